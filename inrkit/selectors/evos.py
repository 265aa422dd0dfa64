"""EVOS: a selection that evolves (Zhang et al., CVPR 2025, arXiv 2412.10153)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inrkit.operators import FitnessOperator
from inrkit.options import option
from inrkit.sampling import gaps_before, sample_besides
from inrkit.schedules import MUTATION_SCHEDULES, Progress, mutation, share_of
from inrkit.selectors.base import SELECTORS, Errors, RatioOptions, Selection, Selector, rankable

PUBLISHED_HIGH_FREQUENCY_WEIGHT = 0.1625625  # 1e-5 · 127.5²
"""The paper's λ = 1e-5 for a Laplacian of values in 0 … 255, where the squared error is one of values in [−1, 1].
With both in the same units λ is a pure number, and a unit of [−1, 1] is 127.5 of 0 … 255."""


@dataclass
class EvosOptions(RatioOptions):
    interval: str = option("linear", choices=("linear", "fixed"))
    """How the steps between two key steps go from `interval_start` on: `linear` to `interval_end`, or `fixed`."""
    interval_start: int = option(100, at_least=1)
    """Steps between two key steps at the start: τ0."""
    interval_end: int = option(50, at_least=1)
    """Steps between two key steps at the end, where `interval` is `linear`: τ1."""
    crossover: str = option("select", choices=("select", "add", "none"))
    """How survivors are found: `select` from both parents; `add`, by the sum of both fitnesses; `none`, by the
    squared error alone."""
    mutation: str = option("constant", choices=MUTATION_SCHEDULES)
    """How the mutation rate goes on from `mutation_start`: it stays, or goes to `mutation_end`."""
    mutation_start: float = option(0.5, at_least=0, at_most=1)
    """Share of r0·N that is drawn uniformly at random, at the start: α0."""
    mutation_end: float = option(0.5, at_least=0, at_most=1)
    """The same at the end: α1."""
    high_frequency_weight: float = option(PUBLISHED_HIGH_FREQUENCY_WEIGHT, at_least=0)
    """λ of the high-frequency fitness, a pure number (0.1625625 is the published 1e-5 for 0 … 255)."""

    def __post_init__(self) -> None:
        if self.mutation == "exponential" and min(self.mutation_start, self.mutation_end) <= 0:
            raise ValueError("mutation_start and mutation_end must be above 0 where mutation is exponential")


@SELECTORS.register("evos")
class Evos(Selector):
    """Sparse fitness evaluation, frequency-guided crossover, augmented unbiased mutation.

    A *key step* trains on all N coordinates and ranks them by what it saw. The steps up to the next key step
    train on the best-ranked `k − m` coordinates, the survivors, and on `m` others drawn uniformly.

    Only the head of the ranking that has been asked for is ever sorted.
    """

    Options = EvosOptions
    visits_all = True

    def __init__(
        self, options: EvosOptions, count: int, operator: FitnessOperator, seed: int, device: torch.device
    ) -> None:
        super().__init__(options, count, operator, seed, device)
        self._ranking = torch.empty(0, dtype=torch.int64, device=device)
        self._fitness = torch.zeros(count, device=device)
        self._survivors = self._gaps = self._ranking
        self._stale = False

    @property
    def cached_numbers(self) -> float:
        # The fitness itself, and int64 indices of the ranking and the two views of its head.
        return 1 + 3 * 2 * self.options.largest_size(self.count) / self.count

    def is_key_step(self, progress: Progress) -> bool:
        """Step 1, and every step t with t mod I(t) = 1; where I(t) = 1, every step (EVOS, section 3.1)."""
        start, end = self.options.interval_start, self.options.interval_end
        interval = start
        if self.options.interval == "linear":
            interval = math.floor(start + (end - start) * progress.after + 1e-9)
        return progress.step == 1 or progress.step % interval == 1 % interval

    def mutants(self, progress: Progress) -> int:
        """m = ⌊α(t)·r0·N⌋, at most k."""
        options = self.options
        rate = mutation(options.mutation, options.mutation_start, options.mutation_end, progress.before)
        return min(share_of(self.count, rate * options.start(self.count)), self._selected(progress))

    def size(self, progress: Progress) -> int:
        return self.count if self._stale or self.is_key_step(progress) else self._selected(progress)

    def restart(self) -> None:
        self._stale = True

    def select(self, progress: Progress) -> Selection:
        if self._stale or self.is_key_step(progress):
            return Selection(None)
        m = self.mutants(progress)
        self._choose_survivors(self._selected(progress) - m)
        drawn = sample_besides(self._gaps, self.count, m, self.generator)
        return Selection(torch.cat([self._survivors, drawn]))

    def observe(self, progress: Progress, selection: Selection, errors: Errors) -> None:
        if selection.indices is not None:
            return
        self._stale = False
        low = rankable(errors.squared)
        high = rankable(self.options.high_frequency_weight * self.operator.response(errors.residual).square_())
        n = self._selected(progress) - self.mutants(progress)
        if self.options.crossover == "select":
            offspring = crossover(low, high, n)
        else:
            fitness = low + high if self.options.crossover == "add" else low
            offspring = _top(fitness, n)
        self._fitness = low
        self._ranking = offspring[low[offspring].argsort(descending=True, stable=True)]
        self._survivors = self._gaps = self._ranking[:0]

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "ranking": self._ranking,
            "fitness": self._fitness,
            "stale": self._stale,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._ranking = state["ranking"].to(self.device)
        self._fitness = state["fitness"].to(self.device)
        self._stale = state["stale"]
        self._survivors = self._gaps = self._ranking[:0]

    def _selected(self, progress: Progress) -> int:
        """k at a step that is no key step."""
        return self.options.scheduled_size(self.count, progress.before)

    def _choose_survivors(self, n: int) -> None:
        """Make the n best-ranked coordinates the survivors."""
        if n == len(self._survivors):
            return
        if n > len(self._ranking):
            # The ratio rises at most to 1 and a few percent at a time: ranking a little ahead is rarely repeated.
            self._extend_ranking(min(self.count, n + n // 8))
        self._survivors = self._ranking[:n].sort().values
        self._gaps = gaps_before(self._survivors)

    def _extend_ranking(self, length: int) -> None:
        """Rank the largest squared errors among the others below what is ranked."""
        others = self._fitness.clone()
        others[self._ranking] = -1.0
        more = _top(others, length - len(self._ranking))
        more = more[others[more].argsort(descending=True, stable=True)]
        self._ranking = torch.cat([self._ranking, more])


def crossover(low: Tensor, high: Tensor, n: int) -> Tensor:
    """Crossover `select` (EVOS, section 3.2): n offspring of the n fittest by `low` and the n fittest by `high`.

    What both parents hold survives; the places left are shared out in proportion to the mean fitnesses,
    ⌊p·l⌋ to the fittest by `low` that only the first parent holds, the rest likewise by `high`.

    Args:
        low: (N,) low-frequency fitness e_L, finite and not negative.
        high: (N,) high-frequency fitness e_H, likewise.
        n: 0 ≤ n ≤ N.

    Returns:
        (n,) int64 distinct indices, in no particular order.
    """
    first, second = _top(low, n), _top(high, n)
    held = torch.zeros(len(low), dtype=torch.uint8, device=low.device)
    held[first] = 1
    held[second] += 2
    both, first, second = first[held[first] == 3], first[held[first] == 1], second[held[second] == 2]
    mean_low, mean_high = float(low.mean(dtype=torch.float64)), float(high.mean(dtype=torch.float64))
    total = mean_low + mean_high
    share = mean_low / total if total > 0 else 0.5
    from_first = share_of(n - len(both), share)
    return torch.cat(
        [
            both,
            first[_top(low[first], from_first)],
            second[_top(high[second], n - len(both) - from_first)],
        ]
    )


def _top(values: Tensor, n: int) -> Tensor:
    """Indices of the n largest of (N,) values, in no particular order."""
    return values.topk(n, sorted=False).indices
