"""Soft Mining (Kheradmand et al., CVPR 2024, arXiv 2312.00075)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inrkit.device import has_float64, wide
from inrkit.plugins.options import option
from inrkit.selectors.base import SELECTORS, RatioOptions, RatioSelector, Residuals, Selection, rankable
from inrkit.selectors.draws.subsets import compressed, first_comers, sample_without_replacement
from inrkit.selectors.progress import Progress
from inrkit.selectors.schedules import share_of
from inrkit.signals.operators import FitnessOperator

_LEAST_ERROR = 9.765625e-4
"""Least error that corrections are computed from: 2⁻¹⁰, as published."""
_LEAST_CORRECTION = 0.2
"""As published."""
_FAINTEST_EDGE = 1e-5
"""Least edge strength in draws by edges, as a share of the strongest edge's; as published."""


@dataclass
class SoftMiningOptions(RatioOptions):
    softness: float = option(0.6, at_least=0, at_most=1)
    """α: each loss is divided by its error to the power α. 0 is hard mining; with 1 the loss is an unbiased estimate of
    the mean over all coordinates."""
    warmup: int = option(1000, at_least=1)
    """Steps over which α rises from 0 towards 1; it stops at `softness`."""
    step: float = option(20.0, at_least=0)
    """a: a position moves by a / (2r) lattice points times the relative change of its loss from one lattice point to
    the next, divided by its correction; r is the share of the coordinates that is selected."""
    noise: float = option(0.02, at_least=0)
    """b: standard deviation of a position's random move, as a share of the signal's extent."""
    uniform: float = option(0.1, at_least=0, at_most=1, own=True)
    """Share of the positions that are drawn anew uniformly at every step."""
    redrawn: float = option(0.1, at_least=0, at_most=1)
    """Share of the positions that are drawn anew by edge strength at every step: those with the least error."""
    spread: float = option(1.0, at_least=0)
    """Standard deviations above the mean at which corrections are cut off."""


@SELECTORS.register("soft-mining")
class SoftMining(RatioSelector):
    """Soft Mining: Langevin walks towards large errors, and losses divided by error^α to compensate.

    k positions walk through the signal's extent; a step trains on the coordinates nearest to them. After a step

        x ← x + a∇log Q(x) + b·η,  η ~ N(0, 1)

    with Q proportional to the error. Positions that leave the extent and those with the least error are drawn anew by
    edge strength, and a share of all uniformly. If several positions reach the same coordinate, all but one are drawn
    anew from the coordinates that no position reached.
    """

    Options = SoftMiningOptions
    needs_slope = True

    def __init__(
        self, options: SoftMiningOptions, count: int, operator: FitnessOperator, seed: int, device: torch.device
    ) -> None:
        super().__init__(options, count, operator, seed, device)
        self._positions = torch.empty(0, operator.neighbourhood.dimensions, device=device)
        self._mean = torch.ones((), device=device)
        self._bound = torch.full((), math.inf, device=device)
        self._spacing: Tensor | None = None
        self._cumulative: Tensor | None = None

    @property
    def numbers_kept(self) -> float:
        # The float64 sums of edge strengths, and the positions.
        return 2 + self.operator.neighbourhood.dimensions * self.options.largest_size(self.count) / self.count

    def select(self, progress: Progress) -> Selection:
        k = self.size(progress)
        positions = self._positions[max(0, len(self._positions) - k) :]
        positions = torch.cat([self._anywhere(k - len(positions)), positions])
        indices = self.operator.neighbourhood.nearest(positions)
        if self.device.type != "cpu":
            self._positions, indices = self._parted(positions, indices)
            return Selection(indices)
        ranked, order = indices.sort(stable=True)
        repeated = ranked[1:] == ranked[:-1]
        surplus = order[1:][repeated]
        fresh = self.draw_besides(torch.cat([ranked[:1], ranked[1:][~repeated]]), len(surplus))
        indices[surplus] = fresh
        positions[surplus] = self.operator.neighbourhood.coordinates(fresh)
        self._positions = positions
        return Selection(indices)

    def weigh(self, progress: Progress, errors: Residuals) -> Tensor:
        return self.correction(progress, errors).clamp_(max=self._bound) / self._mean

    def correction(self, progress: Progress, errors: Residuals) -> Tensor:
        """(k,) 1 / error^α, at least 0.2; α follows its warm-up."""
        softness = min(progress.step / self.options.warmup, self.options.softness)
        error = rankable(errors.squared).sqrt()
        return error.clamp(min=_LEAST_ERROR).pow_(-softness).clamp_(min=_LEAST_CORRECTION)

    def observe(self, progress: Progress, selection: Selection, errors: Residuals) -> None:
        assert errors.slope is not None
        options, k = self.options, len(self._positions)
        correction = self.correction(progress, errors)
        self._bound = correction.mean() + options.spread * correction.std(correction=0)
        correction.clamp_(max=self._bound)
        self._mean = correction.mean()

        if self._spacing is None:
            self._spacing = torch.tensor(self.operator.neighbourhood.spacing, device=self.device)
        steepness = errors.slope / (errors.squared * correction + torch.finfo(torch.float32).eps)[:, None]
        noise = torch.randn(self._positions.shape, generator=self.generator, device=self.device)
        drift = self._spacing.square() * torch.nan_to_num(steepness) * (options.step * self.count / (2 * k))
        positions = self._positions + drift + 2 * options.noise * noise
        astray = (positions.abs() > 1).any(dim=1)
        squared = rankable(errors.squared)
        astray[squared.topk(share_of(k, options.redrawn), largest=False, sorted=False).indices] = True
        if self.device.type == "cpu":
            places = astray.nonzero()[:, 0]
            positions[places] = self._at_edges(len(places))
        else:  # to count them, the processor would wait for the device
            positions = torch.where(astray[:, None], self._at_edges(k), positions)
        uniform = share_of(k, options.uniform)
        positions[k - uniform :] = self._anywhere(uniform)
        self._positions = positions

    def restart(self) -> None:
        self._positions = self._positions[:0]
        self._spacing = self._cumulative = None

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "positions": self._positions,
            "mean": float(self._mean),
            "bound": float(self._bound),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._positions = state["positions"].to(self.device)
        self._mean, self._bound = (torch.full((), state[name], device=self.device) for name in ("mean", "bound"))

    def _parted(self, positions: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Positions and the coordinates nearest to them, with others where several reach the same coordinate.

        As `select` does it, with sizes that do not follow from the positions. Of k distinct coordinates as many are
        not reached as there are positions too many, or more.
        """
        k = len(indices)
        drawn = sample_without_replacement(self.count, k, self.generator)
        drawn = drawn[torch.randperm(k, generator=self.generator, device=self.device)]
        new = first_comers(torch.cat([indices, drawn]))
        alone, others = new[:k], compressed(drawn, new[k:], k)
        others = others[(~alone).cumsum(0).sub_(1).clamp_(min=0)]
        places = self.operator.neighbourhood.coordinates(others)
        return torch.where(alone[:, None], positions, places), torch.where(alone, indices, others)

    def _anywhere(self, count: int) -> Tensor:
        """(count, D) places of uniformly random coordinates."""
        drawn = torch.randint(self.count, (count,), generator=self.generator, device=self.device)
        return self.operator.neighbourhood.coordinates(drawn)

    def _at_edges(self, count: int) -> Tensor:
        """(count, D) places of coordinates drawn in proportion to their edge strength."""
        if self._cumulative is None:
            edges = self.operator.edges()
            strength = (edges / edges.max().clamp(min=torch.finfo(torch.float32).tiny)).clamp_(min=_FAINTEST_EDGE)
            strength = wide(strength)
            # The CPU adds up in the same order each time.
            lasting = strength.cpu() if torch.are_deterministic_algorithms_enabled() else strength
            self._cumulative = lasting.cumsum(0).to(strength.device)
        drawn = torch.searchsorted(self._cumulative, self._heights(count) * self._cumulative[-1], right=True)
        return self.operator.neighbourhood.coordinates(drawn.clamp_(max=self.count - 1).to(self.device))

    def _heights(self, count: int) -> Tensor:
        """(count,) float64 random numbers in [0, 1), where `_cumulative` is."""
        if has_float64(self.device):
            return torch.rand(count, generator=self.generator, device=self.device, dtype=torch.float64)
        high, low = wide(torch.rand(2, count, generator=self.generator, device=self.device))
        return high + low / (1 << 24)  # a float32 has 24 random bits
