"""NINT: NTK-guided implicit neural teaching (Zhang et al., CVPR 2026, arXiv 2511.15487)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from inrkit.plugins.options import option
from inrkit.selectors.base import SELECTORS, RatioOptions, RatioSelector, Residuals, Selection, Survey
from inrkit.selectors.progress import Progress
from inrkit.selectors.schedules import share_of
from inrkit.selectors.teaching import largest
from inrkit.signals.operators import FitnessOperator

_NEGLIGIBLE = 1e-3
"""Share of the selection by influence below which influence is no longer computed (NINT's code, nint.py)."""


@dataclass
class NtkTeachingOptions(RatioOptions):
    ratio: float = option(0.2, above=0, at_most=1)
    """Share of the coordinates that a step trains on, at the start: r0."""
    uniform: float = option(0.7, at_least=0, at_most=1, own=True)
    """Share of the selection that is drawn uniformly at random: ξ."""
    refresh: int = option(10, at_least=1)
    """Steps between two computations of the influence, and the unit of `decay`: α."""
    decay: float = option(1.0, at_least=0)
    """How fast influence gives way to error: λ. At step t, counted from 0, the share (1 − ξ)·exp(−λ·t/refresh) of the
    selection is chosen by influence. With 0 this share does not fall, and nothing is chosen by error."""


@SELECTORS.register("nint")
class NtkGuidedTeaching(RatioSelector):
    """NINT: mostly a uniform draw; the rest by influence, and later by error.

    Of the k coordinates, a decaying share has the largest influence ‖Σ_j K(x_i, x_j)·(F(x_j) − y_j)‖, where K is the
    neural tangent kernel and j runs over all N. It takes one vector-Jacobian and one Jacobian-vector product every
    `refresh` steps. Others have the largest squared error, computed at every step. The rest, ξ·k, are drawn uniformly
    from the remaining coordinates.
    """

    Options = NtkTeachingOptions

    def __init__(
        self, options: NtkTeachingOptions, count: int, operator: FitnessOperator, seed: int, device: torch.device
    ) -> None:
        super().__init__(options, count, operator, seed, device)
        self._ranking = torch.empty(0, dtype=torch.int64, device=device)
        self._guided = self._ranking

    @property
    def numbers_kept(self) -> float:
        # int64 indices of the ranking and of what a step's survey chose; each is at most all that is not uniform.
        return 2 * 2 * (1 - self.options.uniform) * self.options.largest_size(self.count) / self.count

    def guided(self, progress: Progress) -> tuple[int, int]:
        """How many coordinates are chosen by influence or error, and how many of these by influence."""
        options, k = self.options, self.size(progress)
        share = (1 - options.uniform) * math.exp(-options.decay * (progress.step - 1) / options.refresh)
        return share_of(k, 1 - options.uniform), share_of(k, share) if share >= _NEGLIGIBLE else 0

    def survey(self, progress: Progress) -> Survey | None:
        guided, influential = self.guided(progress)
        if guided == 0 or self.size(progress) == self.count:
            return None
        due = self._is_due(progress) or len(self._ranking) == 0
        return Survey(self.everything().indices, influence=influential > 0 and due)

    def survey_cost(self, progress: Progress) -> int:
        guided, influential = self.guided(progress)
        if guided == 0 or self.size(progress) == self.count:
            return 0
        return self.count * (5 if influential > 0 and self._is_due(progress) else 1)

    def learn(self, progress: Progress, survey: Survey, errors: Residuals) -> None:
        guided, influential = self.guided(progress)
        if errors.influence is not None:
            self._ranking = largest(errors.influence, influential)
        by_influence = self._ranking[:influential]
        others = errors.squared.clone()
        others[by_influence] = -1.0
        self._guided = torch.cat([by_influence, largest(others, guided - len(by_influence))])

    def select(self, progress: Progress) -> Selection:
        k = self.size(progress)
        if k == self.count:
            return self.everything()
        guided, self._guided = self._guided, self._guided[:0]
        return Selection(torch.cat([guided, self.draw_besides(guided, k - len(guided))]))

    def restart(self) -> None:
        self._ranking = self._ranking[:0]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "ranking": self._ranking.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._ranking = state["ranking"].to(self.device)

    def _is_due(self, progress: Progress) -> bool:
        return (progress.step - 1) % self.options.refresh == 0
