"""INT: implicit neural teaching (Zhang et al., ICML 2024, arXiv 2405.10531)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inrkit.plugins.options import option
from inrkit.selectors.base import SELECTORS, RatioOptions, Residuals, Selection, Selector, Survey
from inrkit.selectors.progress import Progress
from inrkit.selectors.schedules import RATIO_SCHEDULES
from inrkit.signals.operators import FitnessOperator

MINING_SCHEDULES = ("dense", "every-second", "incremental", "reverse-incremental")


@dataclass
class TeachingOptions(RatioOptions):
    ratio: float = option(0.2, above=0, at_most=1)
    """Share of the coordinates that a step trains on, at the start: r0."""
    ratio_schedule: str = option("step", choices=RATIO_SCHEDULES)
    """How the ratio goes on from r0: `linear` to 1, `step` to 1 in ten equal stages, `cosine` to 1,
    `reverse-cosine` to 0.2; k changes only at the steps that choose anew."""

    mining: str = option("incremental", choices=MINING_SCHEDULES)
    """Which steps choose anew: `dense`, all; `every-second`; `incremental`, all of the first quarter, then every 10th
    to every 50th; `reverse-incremental`, every 90th to every 10th, then all of the last tenth."""


@SELECTORS.register("int")
class ImplicitNeuralTeaching(Selector):
    """INT: the k coordinates with the largest error among all, chosen at some steps and kept in between.

    A step that chooses anew passes all N coordinates through the network, without gradients, and takes the k with the
    largest squared error (INT, figure 1). All steps until the next choice train on these coordinates.
    """

    Options = TeachingOptions

    def __init__(
        self, options: TeachingOptions, count: int, operator: FitnessOperator, seed: int, device: torch.device
    ) -> None:
        super().__init__(options, count, operator, seed, device)
        self._subset = torch.empty(0, dtype=torch.int64, device=device)

    @property
    def numbers_kept(self) -> float:
        return 2 * self.options.largest_size(self.count) / self.count  # int64 indices

    def size(self, progress: Progress) -> int:
        if self._chooses(progress):
            return self.options.scheduled_size(self.count, progress.before)
        return len(self._subset)

    def survey(self, progress: Progress) -> Survey | None:
        return Survey(self.everything().indices) if self._chooses(progress) else None

    def survey_cost(self, progress: Progress) -> int:
        return self.count if mines(self.options.mining, progress) else 0

    def learn(self, progress: Progress, survey: Survey, errors: Residuals) -> None:
        self._subset = largest(errors.squared, self.options.scheduled_size(self.count, progress.before))

    def select(self, progress: Progress) -> Selection:
        return self.everything() if len(self._subset) == self.count else Selection(self._subset)

    def restart(self) -> None:
        self._subset = self._subset[:0]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "subset": self._subset.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._subset = state["subset"].to(self.device)

    def _chooses(self, progress: Progress) -> bool:
        return len(self._subset) == 0 or mines(self.options.mining, progress)


def mines(schedule: str, progress: Progress) -> bool:
    """Whether a step of INT chooses anew: whether its number, counted from 0, is a multiple of its stage's interval.

    `incremental`: every step of the first quarter, then intervals of 10, 20, … 50 in five equal stages;
    `reverse-incremental`: 90, 80, … 10, 1 in ten equal stages (INT's code, strategy.py).

    Args:
        schedule: one of MINING_SCHEDULES.
    """
    interval = 1
    if schedule == "every-second":
        interval = 2
    elif schedule == "incremental" and progress.before >= 0.25:
        interval = 10 * (1 + min(math.floor((progress.before - 0.25) / 0.15 + 1e-9), 4))
    elif schedule == "reverse-incremental":
        interval = max(1, 90 - 10 * min(math.floor(10 * progress.before + 1e-9), 9))
    return (progress.step - 1) % interval == 0


def largest(values: Tensor, count: int) -> Tensor:
    """(count,) indices of the largest of (N,) values, the largest first; NaN counts as infinite."""
    return torch.nan_to_num(values, nan=math.inf, posinf=math.inf).topk(count).indices
