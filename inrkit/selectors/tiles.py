"""EVOS where what is selected has parameters of its own: tiles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inrkit.selectors.base import Residuals, Selection, Selector, rankable
from inrkit.selectors.crossover import fittest
from inrkit.selectors.progress import Progress
from inrkit.selectors.schedules import mutation, share_of
from inrkit.signals.operators import FitnessOperator

_FORGETTING = 0.3
"""Weight of a tile's newest error in its running mean."""


class EvosOfTiles(Selector):
    """EVOS on U tiles, each with a network of its own.

    A tile's fitness is a running mean of what its own visits found, so no pass is made for fitness alone. Tiles that
    have not been visited for long come again as mutants; that takes the place of key steps, whose options have no
    effect. In the first steps every tile is visited once.

    The loss of a tile has the same minimum however often the tile is selected, so selection biases nothing.
    """

    def __init__(self, options: Any, count: int, operator: FitnessOperator, seed: int, device: torch.device) -> None:
        super().__init__(options, count, operator, seed, device)
        self._errors = torch.full((count,), -1.0, device=device)
        """(U,) running means; −1 for a tile that was not visited yet."""

    def size(self, progress: Progress) -> int:
        size: int = self.options.scheduled_size(self.count, progress.before)
        return size

    def select(self, progress: Progress) -> Selection:
        k = self.size(progress)
        if k == self.count:
            return self.everything()
        fresh = (self._errors < 0).nonzero()[:, 0]
        if len(fresh):
            first = fresh[torch.randperm(len(fresh), generator=self.generator, device=self.device)[:k]]
            return Selection(torch.cat([first, self.draw_besides(first, k - len(first))]).sort().values)
        options, done = self.options, progress.before
        rate = mutation(options.mutation, options.mutation_start, options.mutation_end, done)
        if options.survival == "proportional":
            return Selection(self._proportional(k, rate).sort().values)
        survivors = k - min(k, share_of(k, rate))
        best = fittest(self._errors, survivors)
        mutants = self.draw_besides(best, k - survivors)
        return Selection(torch.cat([best, mutants]).sort().values)

    def observe(self, progress: Progress, selection: Selection, errors: Residuals) -> None:
        rows = selection.indices
        before, found = self._errors[rows], rankable(errors.squared)
        self._errors[rows] = torch.where(before < 0, found, before.lerp(found, _FORGETTING))

    @property
    def numbers_kept(self) -> float:
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "errors": self._errors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._errors = state["errors"].to(self.device)

    def _proportional(self, k: int, rate: float) -> Tensor:
        """(k,) tiles, drawn with probabilities that are a mixture of their shares of all fitness and equal ones."""
        fitness = self._errors.to(torch.float64)
        shares = (1 - rate) * fitness / fitness.mean().clamp(min=1e-30) + rate
        # The k first arrivals of clocks that tick at these rates: a draw without replacement.
        waits = torch.empty_like(fitness).exponential_(generator=self.generator)
        return (waits / shares.clamp(min=1e-30)).topk(k, largest=False).indices
