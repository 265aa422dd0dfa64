"""Expansive Supervision (Zhang et al., ICME 2025, arXiv 2409.08056)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inrkit.plugins.options import option
from inrkit.selectors.base import SELECTORS, RatioOptions, RatioSelector, Selection
from inrkit.selectors.progress import Progress
from inrkit.selectors.schedules import share_of
from inrkit.signals.operators import FitnessOperator


@dataclass
class ExpansiveOptions(RatioOptions):
    anchor: float = option(0.5, at_least=0, at_most=1)
    """Number of anchors, the coordinates with the strongest edges, as a share of r0·N."""
    expand: bool = option(False)
    """Whether the errors of the source area are weighted to represent all coordinates outside the anchors. The loss is
    then an unbiased estimate of the mean over all coordinates; otherwise every selected coordinate counts the same."""


@SELECTORS.register("expansive")
class ExpansiveSupervision(RatioSelector):
    """Expansive Supervision: the signal's strongest edges at every step, and a random part of the rest.

    The anchor area A is fixed beforehand: the ⌊anchor·r0·N⌋ coordinates with the strongest edges. Equal ones are drawn
    at random; coordinates without an edge are never anchors. A step trains on A and on the source area S: as many
    others, drawn uniformly from outside A, as make k. When k falls below r0·N, a random part of A, the same share of k,
    is used.
    """

    Options = ExpansiveOptions

    def __init__(
        self, options: ExpansiveOptions, count: int, operator: FitnessOperator, seed: int, device: torch.device
    ) -> None:
        super().__init__(options, count, operator, seed, device)
        self._anchors: Tensor | None = None

    @property
    def numbers_kept(self) -> float:
        return 2 * self.options.anchor * self.options.start(self.count)  # int64 indices

    def select(self, progress: Progress) -> Selection:
        k = self.size(progress)
        if self._anchors is None:
            r0 = self.options.start(self.count)
            self._anchors = self._strongest_edges(share_of(self.count, self.options.anchor * r0))
        area, anchors = len(self._anchors), self._anchors
        most = share_of(k, self.options.anchor)
        if most < area:
            anchors = anchors[torch.randperm(area, generator=self.generator, device=self.device)[:most]]
        source = self.draw_besides(self._anchors, k - len(anchors))
        weights = None
        if self.options.expand and len(source):
            stands_for = torch.full((k,), (self.count - area) / len(source), device=self.device)
            stands_for[: len(anchors)] = area / max(1, len(anchors))
            weights = stands_for * (k / self.count)
        return Selection(torch.cat([anchors, source]), weights)

    def restart(self) -> None:
        self._anchors = None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "anchors": self._anchors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        anchors = state["anchors"]
        self._anchors = None if anchors is None else anchors.to(self.device)

    def _strongest_edges(self, count: int) -> Tensor:
        """The `count` coordinates with the strongest edges; fewer if fewer have an edge."""
        edges = self.operator.edges()
        if count == 0:
            return torch.empty(0, dtype=torch.int64, device=self.device)
        weakest = edges.topk(count, sorted=False).values.min()
        stronger = (edges > weakest).nonzero()[:, 0]
        if weakest == 0:
            return stronger
        equal = (edges == weakest).nonzero()[:, 0]
        order = torch.randperm(len(equal), generator=self.generator, device=self.device)
        return torch.cat([stronger, equal[order[: count - len(stronger)]]])
