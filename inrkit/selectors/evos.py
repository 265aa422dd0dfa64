"""EVOS: evolutionary selection of coordinates (Zhang et al., CVPR 2025, arXiv 2412.10153)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inrkit.plugins.options import option
from inrkit.selectors.base import DRAWS, SELECTORS, RatioOptions, Residuals, Selection, Selector, quasirandom, rankable
from inrkit.selectors.crossover import crossover, fittest
from inrkit.selectors.draws.subsets import gaps_before, sample_besides
from inrkit.selectors.draws.tiles import Tiles, Tour
from inrkit.selectors.progress import Progress
from inrkit.selectors.schedules import MUTATION_SCHEDULES, mutation, share_of
from inrkit.selectors.tiles import EvosOfTiles
from inrkit.signals.operators import FitnessOperator

PUBLISHED_HIGH_FREQUENCY_WEIGHT = 0.1625625  # 1e-5 · 127.5²
"""The paper's λ = 1e-5, in our units. The paper's Laplacian is of values in 0 … 255, its squared error of values in
[−1, 1]. With both in the same units λ is a pure number; a unit of [−1, 1] is 127.5 levels of 0 … 255."""

_TILE = 512
"""Coordinates of a tile. In a picture it is 22×22 pixels; 83 % of them have all their neighbours in the tile."""


@dataclass
class EvosOptions(RatioOptions):
    interval: str = option("linear", choices=("linear", "fixed"))
    """How the number of steps between two key steps changes: `linear` from `interval_start` to `interval_end`, or
    `fixed` at `interval_start`."""
    interval_start: int = option(100, at_least=1)
    """Steps between two key steps at the start: τ0."""
    interval_end: int = option(50, at_least=1)
    """Steps between two key steps at the end, if `interval` is `linear`: τ1."""
    crossover: str = option("select", choices=("select", "add", "none"))
    """How survivors are chosen: `select`, from both parents; `add`, by the sum of both fitnesses; `none`, by the
    squared error alone."""
    mutation: str = option("constant", choices=MUTATION_SCHEDULES)
    """How the mutation rate changes: it stays at `mutation_start`, or goes from there to `mutation_end`."""
    mutation_start: float = option(0.5, at_least=0, at_most=1)
    """Share of r0·N that is drawn uniformly at random, at the start: α0."""
    mutation_end: float = option(0.5, at_least=0, at_most=1)
    """The same at the end: α1."""
    survival: str = option("top", choices=("top", "proportional"))
    """Where tiles are selected: `top`, the fittest survive; `proportional`, all tiles are drawn with probabilities that
    are (1 − α) times their shares of all fitness, and α times equal shares."""
    high_frequency_weight: float = option(PUBLISHED_HIGH_FREQUENCY_WEIGHT, at_least=0)
    """λ of the high-frequency fitness, a pure number (0.1625625 is the published 1e-5 for 0 … 255)."""
    draw: str = option("random", choices=DRAWS)
    """How mutants are drawn: `random`, each step for itself; or `quasi-random`, spread evenly over the signal within a
    step and over steps."""
    key_share: float = option(0.1, above=0)
    """Most coordinates that a key step visits, as a share of all that the steps up to the next key step train on; at
    least k. A larger signal is visited part by part, one part at each key step."""
    key_whole: int = option(1 << 22, at_least=1)
    """Coordinates of the largest signal that key steps always visit as a whole, whatever `key_share` says."""

    def __post_init__(self) -> None:
        if self.mutation == "exponential" and min(self.mutation_start, self.mutation_end) <= 0:
            raise ValueError("mutation_start and mutation_end must be above 0 where mutation is exponential")


@SELECTORS.register("evos")
class Evos(Selector):
    """Sparse fitness evaluation, frequency-guided crossover, augmented unbiased mutation.

    A *key step* trains on all N coordinates and ranks them by their fitness. The steps up to the next key step
    train on the best-ranked `k − m` coordinates, the survivors, and on `m` others drawn uniformly.

    If N is so large that key steps would cost more than the other steps, a key step trains on a part and ranks only
    that: the next tiles of a tour through all tiles in random order. Time and memory then do not grow with N.

    Only the part of the ranking that is needed is ever sorted.
    """

    Options = EvosOptions
    visits_all = True
    of_tiles = EvosOfTiles

    def __init__(
        self, options: EvosOptions, count: int, operator: FitnessOperator, seed: int, device: torch.device
    ) -> None:
        super().__init__(options, count, operator, seed, device)
        self._tour = Tour(Tiles(operator.layout, _TILE), self.generator)
        self._sequence = quasirandom(operator, self.generator) if options.draw == "quasi-random" else None
        self._visited: Tensor | None = None
        """(P,) indices that the last key step visited; None for all N. The ranking and the fitness refer to positions
        in it."""
        self._ranking = torch.empty(0, dtype=torch.int64, device=device)
        self._fitness = torch.empty(0, device=device)
        self._survivors = self._gaps = self._ranking
        self._stale = False

    @property
    def numbers_kept(self) -> float:
        # The fitness; the int64 indices of a part; int64 indices of the ranking, the survivors and the gaps.
        largest = self.options.largest_size(self.count)
        part = self._visits(largest, max(self._interval(0.0), self._interval(1.0)))
        return (part * (1 if self.visits_whole else 3) + 3 * 2 * largest) / self.count

    @property
    def visits_whole(self) -> bool:
        """Whether every key step visits all N coordinates."""
        fewest = min(self.options.scheduled_size(self.count, done) for done in (0.0, 1.0))
        return self._visits(fewest, min(self._interval(0.0), self._interval(1.0))) == self.count

    def is_key_step(self, progress: Progress) -> bool:
        """Step 1, and every step t with t mod I(t) = 1; where I(t) = 1, every step (EVOS, section 3.1)."""
        interval = self._interval(progress.after)
        return progress.step == 1 or progress.step % interval == 1 % interval

    def mutants(self, progress: Progress) -> int:
        """m = ⌊α(t)·r0·N⌋, at most k."""
        options = self.options
        rate = mutation(options.mutation, options.mutation_start, options.mutation_end, progress.before)
        return min(share_of(self.count, rate * options.start(self.count)), self._selected(progress))

    def size(self, progress: Progress) -> int:
        k = self._selected(progress)
        return self._visits(k, self._interval(progress.after)) if self._is_due(progress) else k

    def restart(self) -> None:
        self._stale = True

    def select(self, progress: Progress) -> Selection:
        if self._is_due(progress):
            part = self.size(progress)
            if part == self.count:
                self._visited = None
                return self.everything()
            self._visited = self.operator.placed(self._tour.next(part))
            return Selection(self._visited)
        k = self._selected(progress)
        self._choose_survivors(k - self.mutants(progress))
        mutants = k - len(self._survivors)
        if self._sequence is not None:
            drawn = self._sequence.next(mutants, self._survivors)
        else:
            drawn = sample_besides(self._gaps, self.count, mutants, self.generator)
        return Selection(torch.cat([self._survivors, drawn]))

    def observe(self, progress: Progress, selection: Selection, errors: Residuals) -> None:
        if not self._is_due(progress):
            return
        self._stale = False
        low = rankable(errors.squared)
        response = (
            self.operator.response(errors.residual)
            if self._visited is None
            else self.operator.response_within(errors.residual, self._visited)
        )
        high = self.options.high_frequency_weight * response.square_()
        high = rankable(high if errors.weights is None else high * errors.weights)
        n = min(self._selected(progress) - self.mutants(progress), len(low))
        if self.options.crossover == "select":
            offspring = crossover(low, high, n)
        else:
            fitness = low + high if self.options.crossover == "add" else low
            offspring = fittest(fitness, n)
        self._fitness = low
        self._ranking = offspring[low[offspring].argsort(descending=True, stable=True)]
        self._survivors = self._gaps = self._ranking[:0]

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "ranking": self._ranking,
            "fitness": self._fitness,
            "visited": self._visited,
            "tour": self._tour.state_dict(),
            "stale": self._stale,
            **({} if self._sequence is None else {"sequence": self._sequence.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._ranking = state["ranking"].to(self.device)
        self._fitness = state["fitness"].to(self.device)
        self._visited = None if state["visited"] is None else state["visited"].to(self.device)
        self._tour.load_state_dict(state["tour"])
        self._stale = state["stale"]
        if self._sequence is not None:
            self._sequence.load_state_dict(state["sequence"])
        self._survivors = self._gaps = self._ranking[:0]

    def _selected(self, progress: Progress) -> int:
        """k at a step that is not a key step."""
        return self.options.scheduled_size(self.count, progress.before)

    def _is_due(self, progress: Progress) -> bool:
        """Whether the step is a key step, or stands in for one after points were drawn anew."""
        return self._stale or self.is_key_step(progress)

    def _interval(self, done: float) -> int:
        """I: how many steps there are from one key step to the next."""
        start, end = self.options.interval_start, self.options.interval_end
        return math.floor(start + (end - start) * done + 1e-9) if self.options.interval == "linear" else start

    def _visits(self, k: int, interval: int) -> int:
        """How many coordinates a key step visits if the `interval` steps of its round select k each."""
        if self.count <= self.options.key_whole:
            return self.count
        return min(self.count, max(k, share_of(interval * k, self.options.key_share)))

    def _choose_survivors(self, n: int) -> None:
        """Make the n best-ranked coordinates the survivors, or all visited ones if they are fewer."""
        n = min(n, len(self._fitness))
        if n == len(self._survivors):
            return
        if n > len(self._ranking):
            # The ratio rises by a few percent at a time: with a little ranked in advance this is rarely repeated.
            self._extend_ranking(min(len(self._fitness), n + n // 8))
        best = self._ranking[:n]
        self._survivors = (best if self._visited is None else self._visited[best]).sort().values
        self._gaps = gaps_before(self._survivors)

    def _extend_ranking(self, length: int) -> None:
        """Lengthen the ranking to `length` by the largest squared errors of the coordinates not yet in it."""
        others = self._fitness.clone()
        others[self._ranking] = -1.0
        more = fittest(others, length - len(self._ranking))
        more = more[others[more].argsort(descending=True, stable=True)]
        self._ranking = torch.cat([self._ranking, more])
