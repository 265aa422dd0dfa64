"""Several optimizers as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from inrkit.training.optimizers.base import Optimizer, evaluated


class Joined(Optimizer):
    """Several optimizers, each over some of a network's parameters, as one.

    Args:
        parts: the optimizers; their parameter groups are this one's, in order.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of every part, after one evaluation of `closure` if it is given; returns the closure's result."""
        loss = evaluated(closure)
        for part in self.parts:
            part.step()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self.parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["parts"])  # type: ignore[misc]

    def state_dict(self) -> dict[str, Any]:
        """The parts' states, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def joined(
    *parts: tuple[list[Any], Callable[[list[Any]], torch.optim.Optimizer]],
) -> torch.optim.Optimizer:
    """One optimizer made of several. Each part is a pair: parameters, or groups of them, and a function that makes
    their optimizer. Parts without parameters are left out."""
    made = [make(parameters) for parameters, make in parts if parameters]
    return made[0] if len(made) == 1 else Joined(made)
