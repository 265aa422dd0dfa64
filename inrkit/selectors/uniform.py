"""A fresh uniformly random subset at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from inrkit.plugins.options import option
from inrkit.selectors.base import DRAWS, SELECTORS, RatioOptions, RatioSelector, Selection, quasirandom
from inrkit.selectors.draws.subsets import sample_without_replacement
from inrkit.selectors.progress import Progress
from inrkit.signals.operators import FitnessOperator


@dataclass
class UniformOptions(RatioOptions):
    draw: str = option("random", choices=DRAWS)
    """`random`, each step for itself; or `quasi-random`, spread evenly over the signal within a step and over steps."""


@SELECTORS.register("uniform")
class Uniform(RatioSelector):
    """k = ⌊r(t)·N⌋ coordinates, drawn uniformly without replacement, or along a quasi-random sequence."""

    Options = UniformOptions
    foresees = True

    def __init__(
        self, options: UniformOptions, count: int, operator: FitnessOperator, seed: int, device: torch.device
    ) -> None:
        super().__init__(options, count, operator, seed, device)
        self._sequence = quasirandom(operator, self.generator) if options.draw == "quasi-random" else None

    def select(self, progress: Progress) -> Selection:
        k = self.size(progress)
        if k == self.count:
            return self.everything()
        if self._sequence is not None:
            return Selection(self._sequence.next(k))
        return Selection(sample_without_replacement(self.count, k, self.generator))

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | ({} if self._sequence is None else {"sequence": self._sequence.state_dict()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self._sequence is not None:
            self._sequence.load_state_dict(state["sequence"])


Uniform.of_tiles = Uniform
