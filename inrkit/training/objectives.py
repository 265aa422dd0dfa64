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
from inrkit.selectors import Errors, Selection
from inrkit.selectors.evos import PUBLISHED_HIGH_FREQUENCY_WEIGHT
from inrkit.selectors.progress import Progress
from inrkit.signals.operators import FitnessOperator

OBJECTIVES: Registry[Objective] = Registry("objective", "inrkit.objectives")


@OBJECTIVES.base
class Objective(metaclass=PluginType):
    """A mean over the selected coordinates, and possibly a term that links coordinates with each other.

    Coordinates pass through the network in chunks. A term that is a sum over coordinates needs nothing more; one
    that links them is given as its gradient with respect to all selected residuals, so that chunking changes
    nothing but rounding.

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
    """Whether a term may link the coordinates; its gradient is known then, and its value is not."""

    def __init__(self, options: Any, count: int, operator: FitnessOperator, device: torch.device) -> None:
        self.options = options
        self.count = count
        self.operator = operator
        self.device = device

    @abstractmethod
    def pointwise(self, residual: Tensor) -> Tensor:
        """(k, C) values F(x_i) − y_i to a (k,) loss of each coordinate, whose mean is minimised."""

    def couples(self, progress: Progress) -> bool:
        """Whether a term links the coordinates at this step."""
        return False

    def coupling(self, progress: Progress, selection: Selection, residual: Tensor) -> Tensor:
        """Gradient of the linking term with respect to the (k,) channel-weighted residuals of the selection."""
        return torch.zeros_like(residual)

    def observe(self, progress: Progress, selection: Selection, errors: Errors) -> None:
        """Learn the errors of the step's selection, from before the network's update."""

    @property
    def cached_numbers(self) -> float:
        """How many float32 numbers a coordinate are kept between steps, for the memory estimate."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """Everything that the loss depends on besides the arguments."""
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
    until: float = option(0.3, at_least=0, at_most=1)
    """Share of training during which the term is on."""


@OBJECTIVES.register("cross-frequency")
class CrossFrequencySupervision(MeanSquaredError):
    """MSE + λ · mean over the selected of (L[F̂](i) − L[y](i))² (EVOS, section 3.3).

    F̂ is the full prediction of the last key step with the selected entries replaced by live ones. L is linear,
    so what is kept of that prediction is its residual F̂ − y, one number a coordinate.
    """

    Options = CrossFrequencyOptions
    needs_visits = True
    links = True

    def __init__(
        self, options: CrossFrequencyOptions, count: int, operator: FitnessOperator, device: torch.device
    ) -> None:
        super().__init__(options, count, operator, device)
        self._residual = torch.zeros(count, device=device)
        self._scratch = torch.zeros(count, device=device)

    @property
    def cached_numbers(self) -> float:
        return 2.0

    def couples(self, progress: Progress) -> bool:
        return self.options.weight > 0 and progress.before < self.options.until

    def coupling(self, progress: Progress, selection: Selection, residual: Tensor) -> Tensor:
        factor = 2 * self.options.weight / len(residual)
        if selection.whole:
            return self.operator.adjoint(self.operator.response(residual)).mul_(factor)
        indices = selection.indices
        kept = self._residual[indices]
        self._residual[indices] = residual
        response = self.operator.response_at(self._residual, indices)
        self._residual[indices] = kept
        return self.operator.adjoint_at(response, indices, self._scratch).mul_(factor)

    def observe(self, progress: Progress, selection: Selection, errors: Errors) -> None:
        if not self.couples(progress):
            self._residual = self._scratch = self._residual[:0].clone()
        elif selection.whole:
            self._residual.copy_(errors.residual)

    def state_dict(self) -> dict[str, Any]:
        return {"residual": self._residual}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._residual = state["residual"].to(self.device)
        self._scratch = torch.zeros_like(self._residual)
