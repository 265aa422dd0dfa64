"""How torch's optimizers compute a step: in one kernel for all parameters where there is one, else as torch chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_HOW = ("foreach", "fused", "capturable")
"""Options of torch's optimizers that change how a step is computed, and nothing else."""


def fused(parameters: Sequence[Tensor]) -> bool | None:
    """Whether Adam and AdamW step real parameters on a GPU in one kernel; None leaves the choice to torch."""
    return True if all(each.is_cuda and each.is_floating_point() for each in parameters) else None


def load(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Continue from what `state_dict` gave, perhaps on another device: how steps are computed stays as it is here."""
    optimizer.load_state_dict(_computed_as(state, optimizer.param_groups))


def _computed_as(state: dict[str, Any], groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A state of an optimizer, or of several joined ones, whose steps are computed as those of `groups`."""
    if "parts" in state:
        parts, start = [], 0
        for part in state["parts"]:
            stop = start + len(part["param_groups"])
            parts.append(_computed_as(part, groups[start:stop]))
            start = stop
        return {**state, "parts": parts}
    pairs = zip(state["param_groups"], groups, strict=True)
    changed = [{**group, **{key: own[key] for key in _HOW if key in own}} for group, own in pairs]
    kept = {
        number: {**each, "step": each["step"].cpu()} if isinstance(each.get("step"), Tensor) else each
        for number, each in state["state"].items()
    }
    return {**state, "param_groups": changed, "state": kept}
