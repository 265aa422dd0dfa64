"""EGRA: edge-guided allocation (Gai et al., EGRA-NeRF, Image and Vision Computing 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrkit.plugins.options import option
from inrkit.selectors.base import SELECTORS, RatioOptions, RatioSelector, Selection
from inrkit.selectors.draws.subsets import distinct, gaps_before, sample_besides, sample_without_replacement
from inrkit.selectors.progress import Progress
from inrkit.signals.operators import FitnessOperator

PUBLISHED_THRESHOLD = 0.0392157  # 40 / (8 · 127.5)
"""The upper threshold, 40, of the published edge detector in units of `FitnessOperator.edges`.

That detector's 3×3 kernels give 8 for a slope of one level a pixel, and a unit of [−1, 1] is 127.5 levels of 8 bits."""


@dataclass
class EdgeGuidedOptions(RatioOptions):
    emphasis: float = option(0.0025, at_least=0, below=1)
    """p: a coordinate is drawn in proportion to p·E + (1 − p)·base, where E is 1 near an edge and 0 elsewhere."""
    base: float = option(0.0064, above=0)
    """Share of the coordinates that is drawn from where there is no edge (published: 4096 of 800·800)."""
    threshold: float = option(PUBLISHED_THRESHOLD, above=0)
    """Least edge strength of a coordinate that lies on an edge: the change from one lattice point to the next, in the
    network's range."""
    shift_least: int = option(6, at_least=0)
    """Least shift of an edge at a step, in lattice points along the last axis."""
    shift_most: int = option(9, at_least=0)
    """Largest shift of an edge at a step, in lattice points along the last axis."""

    def __post_init__(self) -> None:
        if self.shift_most < self.shift_least:
            raise ValueError(f"shift_most is {self.shift_most}, below shift_least, which is {self.shift_least}")


@SELECTORS.register("egra")
class EdgeGuided(RatioSelector):
    """EGRA: a random draw that favours coordinates near edges of the signal.

    k coordinates are drawn without replacement, each in proportion to p·E(i) + (1 − p)·base among those that are left.
    E is 1 at the edges. At every step each edge coordinate is shifted along the last axis by a random distance, so that
    its surroundings are covered too.
    """

    Options = EdgeGuidedOptions

    def __init__(
        self, options: EdgeGuidedOptions, count: int, operator: FitnessOperator, seed: int, device: torch.device
    ) -> None:
        super().__init__(options, count, operator, seed, device)
        self._edges: Tensor | None = None

    @property
    def numbers_kept(self) -> float:
        return 2.0  # int64 indices of the edges, at most all

    @property
    def advantage(self) -> float:
        """How many times as likely as another a coordinate near an edge is to be drawn first."""
        elsewhere = (1 - self.options.emphasis) * self.options.base
        return (self.options.emphasis + elsewhere) / elsewhere

    def select(self, progress: Progress) -> Selection:
        k = self.size(progress)
        if k == self.count:
            return self.everything()
        if self._edges is None:
            self._edges = (self.operator.edges() >= self.options.threshold).nonzero()[:, 0]
        draw = self._of_all if self.device.type != "cpu" or 2 * k >= self.count else self._of_few
        return Selection(draw(self._edges, k))

    def _of_all(self, edges: Tensor, k: int) -> Tensor:
        """(k,) draws from as many numbers as there are coordinates; no size follows from what is drawn."""
        # Exponential waiting times at rates w: the k shortest are k successive draws in proportion to w
        # (Efraimidis and Spirakis, 2006).
        times = torch.empty(self.count, device=self.device).exponential_(generator=self.generator)
        emphasised = torch.zeros(self.count, dtype=torch.bool, device=self.device)
        emphasised[self._moved(edges)] = True
        times = torch.where(emphasised, times / self.advantage, times)
        return times.topk(k, largest=False, sorted=False).indices

    def _of_few(self, edges: Tensor, k: int) -> Tensor:
        """`_of_all` from about 4k numbers and one for each edge: how many of the draws are near edges, then which."""
        emphasised = distinct(self._moved(edges))
        near = self._waiting(len(emphasised), k) / self.advantage
        elsewhere = self._waiting(self.count - len(emphasised), k)
        last = torch.cat([near, elsewhere]).kthvalue(k).values
        count = int((near <= last).sum())
        chosen = sample_without_replacement(len(emphasised), count, self.generator)
        others = sample_besides(gaps_before(emphasised), self.count, k - count, self.generator)
        return torch.cat([emphasised[chosen], others])

    def _waiting(self, among: int, most: int) -> Tensor:
        """The shortest of so many exponential waiting times at rate 1, ascending; `most` at most."""
        # From one of them to the next passes an exponential time at the rate of all that are left (Rényi, 1953).
        passed = torch.empty(min(among, most), dtype=torch.float64).exponential_(generator=self.generator)
        return (passed / torch.arange(among, among - len(passed), -1)).cumsum(0)

    def restart(self) -> None:
        self._edges = None

    def _moved(self, edges: Tensor) -> Tensor:
        """The edges, shifted for this step; those of free points stay, because no axis orders them."""
        if self.operator.neighbourhood.lattice is None:
            return edges
        least, most = self.options.shift_least, self.options.shift_most
        shift = torch.randint(least, most + 1, edges.shape, generator=self.generator, device=self.device)
        return (edges + shift) % self.count
