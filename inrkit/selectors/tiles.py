"""EVOS where what is selected has parameters of its own: tiles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inrkit.device import widest
from inrkit.selectors.base import Residuals, Selection, Selector, rankable
from inrkit.selectors.crossover import crossover, fittest
from inrkit.selectors.draws.subsets import compressed
from inrkit.selectors.progress import Progress
from inrkit.selectors.schedules import mutation, share_of
from inrkit.signals.operators import FitnessOperator

_FORGETTING = 0.3
"""Weight of a tile's newest error in its running mean."""


class EvosOfTiles(Selector):
    """EVOS on U tiles, each with a network of its own.

    A tile's fitnesses e_L and e_H are running means of what its own visits found, so no pass is made for fitness alone.
    Tiles that have not been visited for long come again as mutants; that takes the place of key steps, whose options
    have no effect. In the first steps every tile is visited once.

    `survival: top` crosses tiles over as coordinates are. `survival: proportional` draws them by e_L + e_H, or by e_L
    for `crossover: none`: places that are shared between the two fitnesses in proportion to their means, and drawn in
    proportion to each, are places drawn by the sum. Tiles of free points have no e_H.

    The loss of a tile has the same minimum however often the tile is selected, so selection biases nothing.
    """

    def __init__(self, options: Any, count: int, operator: FitnessOperator, seed: int, device: torch.device) -> None:
        super().__init__(options, count, operator, seed, device)
        self._errors = torch.full((count,), -1.0, device=device)
        """(U,) running means e_L; −1 for a tile that was not visited yet."""
        self._responses = torch.zeros(count, device=device)
        """(U,) running means e_H."""
        self._fresh = count
        """How many tiles were not selected yet."""

    @property
    def needs_response(self) -> bool:
        return bool(self.options.crossover != "none")

    def size(self, progress: Progress) -> int:
        size: int = self.options.scheduled_size(self.count, progress.before)
        return size

    def select(self, progress: Progress) -> Selection:
        k = self.size(progress)
        if k == self.count:
            return self.everything()
        if self._fresh:
            fresh = compressed(torch.arange(self.count, device=self.device), self._errors < 0, self._fresh)
            first = fresh[torch.randperm(len(fresh), generator=self.generator, device=self.device)[:k]]
            return Selection(torch.cat([first, self.draw_besides(first, k - len(first))]).sort().values)
        options, done = self.options, progress.before
        rate = mutation(options.mutation, options.mutation_start, options.mutation_end, done)
        if options.survival == "proportional":
            return Selection(self._proportional(k, rate).sort().values)
        survivors = k - min(k, share_of(k, rate))
        if options.crossover == "select":
            best = crossover(self._errors, self._responses, survivors)
        else:
            best = fittest(self._errors + self._responses, survivors)
        mutants = self.draw_besides(best, k - survivors)
        return Selection(torch.cat([best, mutants]).sort().values)

    def observe(self, progress: Progress, selection: Selection, errors: Residuals) -> None:
        rows = selection.indices
        self._fresh = max(0, self._fresh - len(rows))
        fresh = self._errors[rows] < 0
        self._errors[rows] = _followed(self._errors[rows], rankable(errors.squared), fresh)
        if errors.response is not None:
            found = rankable(self.options.high_frequency_weight * errors.response)
            self._responses[rows] = _followed(self._responses[rows], found, fresh)

    @property
    def numbers_kept(self) -> float:
        return 2.0

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "errors": self._errors, "responses": self._responses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._errors = state["errors"].to(self.device)
        self._responses = state["responses"].to(self.device)
        self._fresh = int((self._errors < 0).sum())

    def _proportional(self, k: int, rate: float) -> Tensor:
        """(k,) tiles, drawn with probabilities that are a mixture of their shares of all fitness and equal ones."""
        fitness = (self._errors + self._responses).to(widest(self.device))
        shares = (1 - rate) * fitness / fitness.mean().clamp(min=1e-30) + rate
        # The k first arrivals of clocks that tick at these rates: a draw without replacement.
        waits = torch.empty_like(fitness).exponential_(generator=self.generator)
        return (waits / shares.clamp(min=1e-30)).topk(k, largest=False).indices


def _followed(means: Tensor, found: Tensor, fresh: Tensor) -> Tensor:
    """(q,) running means after (q,) new values; those of `fresh` tiles begin with them."""
    return torch.where(fresh, found, means.lerp(found, _FORGETTING))
