"""Objectives: the loss on the selected coordinates."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from inrkit.plugins.choice import PluginType
from inrkit.plugins.options import option
from inrkit.plugins.registry import Registry
from inrkit.selectors import Residuals, Selection
from inrkit.selectors.evos import PUBLISHED_HIGH_FREQUENCY_WEIGHT
from inrkit.selectors.progress import Progress
from inrkit.signals.operators import FitnessOperator

OBJECTIVES: Registry[Objective] = Registry("objective", "inrkit.objectives")


@OBJECTIVES.base
class Objective(metaclass=PluginType):
    """A mean over the selected coordinates, and possibly a term that links coordinates with each other.

    Coordinates pass through the network in chunks. A term that is a sum over coordinates needs nothing more. A term
    that links coordinates is given by its gradient with respect to all selected residuals, so that chunks change only
    rounding.

    Args:
        options: an instance of the subclass's `Options`.
        count: N.
        operator: the dataset's fitness operator.
        device: where the residuals are.
    """

    Options: ClassVar[type]
    needs_visits: ClassVar[bool] = False
    """Whether it works only with selectors that visit all coordinates at some steps."""

    links: ClassVar[bool] = False
    """Whether a term may link the coordinates; of such a term only the gradient is known, not the value."""

    def __init__(self, options: Any, count: int, operator: FitnessOperator, device: torch.device) -> None:
        self.options = options
        self.count = count
        self.operator = operator
        self.device = device

    @abstractmethod
    def pointwise(self, residual: Tensor) -> Tensor:
        """(k, C) residuals F(x_i) − y_i to (k,) losses, whose mean is minimised."""

    def couples(self, progress: Progress, whole: bool) -> bool:
        """Whether a term links the coordinates at this step, which trains on all N of them (`whole`) or on some."""
        return False

    def coupling(self, progress: Progress, selection: Selection, residual: Tensor, weights: Tensor | None) -> Tensor:
        """(k,) gradient of the linking term with respect to the channel-weighted residuals of the selection.

        Args:
            progress: of the step.
            selection: k coordinates.
            residual: (k,) channel-weighted residuals of the selection.
            weights: (k,) the dataset's weights of the selection; None if all count the same.
        """
        return torch.zeros_like(residual)

    def observe(self, progress: Progress, selection: Selection, errors: Residuals) -> None:
        """Learn the errors that the step's selection had before the network's update."""

    @property
    def numbers_kept(self) -> float:
        """float32 numbers per coordinate that are kept between steps, for the memory estimate."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """Everything that the loss depends on besides its arguments."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""


@dataclass
class MeanSquaredErrorOptions:
    pass


@OBJECTIVES.register("mse")
class MeanSquaredError(Objective):
    """Mean over coordinates and channels of (F(x) − y)²."""

    Options = MeanSquaredErrorOptions

    def pointwise(self, residual: Tensor) -> Tensor:
        return residual.square().mean(dim=-1)


@dataclass
class CrossFrequencyOptions(MeanSquaredErrorOptions):
    weight: float = option(PUBLISHED_HIGH_FREQUENCY_WEIGHT, at_least=0)
    """λ, a pure number (0.1625625 is the published 1e-5 for values in 0 … 255)."""
    until: float = option(0.3, at_least=0)
    """How long the term is on at every step: up to 1 a share of training (1: to the end), above 1 a number of steps
    (1500). Afterwards it is on only at steps that train on all coordinates."""

    def __post_init__(self) -> None:
        if self.until > 1 and not float(self.until).is_integer():
            raise ValueError(f"until is {self.until:g}; it must be a share from 0 to 1, or a whole number of steps")


@OBJECTIVES.register("cross-frequency")
class CrossFrequencySupervision(MeanSquaredError):
    """MSE + λ · mean over the selected of (L[F̂](i) − L[y](i))² (EVOS, section 3.3), each times the dataset's weight.

    At a step that trains on all coordinates, a key step, F̂ is the current prediction. At other steps F̂ is the
    prediction of the last key step, with the selected entries replaced by current ones. L is linear, so only the
    residual F̂ − y is kept, one number a coordinate, and only as long as steps other than key steps have the term.
    """

    Options = CrossFrequencyOptions
    needs_visits = True
    links = True

    def __init__(
        self, options: CrossFrequencyOptions, count: int, operator: FitnessOperator, device: torch.device
    ) -> None:
        super().__init__(options, count, operator, device)
        self._residual = self._scratch = torch.empty(0, device=device)

    @property
    def numbers_kept(self) -> float:
        return 2.0

    def couples(self, progress: Progress, whole: bool) -> bool:
        return self.options.weight > 0 and (whole or self._is_on(progress))

    def coupling(self, progress: Progress, selection: Selection, residual: Tensor, weights: Tensor | None) -> Tensor:
        factor = 2 * self.options.weight / len(residual)
        if selection.whole:
            response = self.operator.response(residual)
            return self.operator.adjoint(response if weights is None else response * weights).mul_(factor)
        if not len(self._residual):
            # No residuals are kept if the term had ended and more steps were asked for on resuming.
            return torch.zeros_like(residual)
        indices = selection.indices
        kept = self._residual[indices]
        self._residual[indices] = residual
        response = self.operator.response_at(self._residual, indices)
        self._residual[indices] = kept
        response = response if weights is None else response * weights
        return self.operator.adjoint_at(response, indices, self._scratch).mul_(factor)

    def observe(self, progress: Progress, selection: Selection, errors: Residuals) -> None:
        if not self.couples(progress, whole=False):
            self._residual = self._scratch = self._residual[:0].clone()
        elif selection.whole:
            self._residual = errors.residual.clone()
            self._scratch = torch.zeros_like(self._residual)

    def _is_on(self, progress: Progress) -> bool:
        """Whether the step has the term even if it is not a key step."""
        until = self.options.until
        return progress.before < until if until <= 1 else progress.step <= until

    def state_dict(self) -> dict[str, Any]:
        return {"residual": self._residual}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._residual = state["residual"].to(self.device)
        self._scratch = torch.zeros_like(self._residual)
