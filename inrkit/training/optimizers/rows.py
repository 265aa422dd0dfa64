"""Adam for many networks in one tensor, each with a step count of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from inrkit.training.optimizers.closures import evaluated


class RowAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba, ICLR 2015) or AdamW on rows that take steps at different times.

    A row that takes no step keeps its moments as they are. The bias corrections of a row follow its own steps.

    Args:
        params: (U, P) parameters, a network in each row.
        lr: learning rate.
        betas: decays of the running means of gradients and of squared gradients.
        eps: added to the root of the mean squared gradient.
        weight_decay: coupled to the gradient, or decoupled.
        decoupled: whether weight decay is decoupled, as in AdamW.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of the rows whose gradient is not zero, after an evaluation of `closure` if it is given."""
        loss = evaluated(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows = parameter.grad.flatten(1).any(dim=1).nonzero()[:, 0]
                    self.step_rows(parameter, rows, parameter.grad[rows])
        return loss

    @torch.no_grad()
    def step_rows(self, parameter: nn.Parameter, rows: Tensor, gradients: Tensor) -> None:
        """A step of some rows.

        Args:
            parameter: (U, P) one of the optimizer's.
            rows: (q,) int64 distinct.
            gradients: (q, P) of these rows.
        """
        group = self.group_of(parameter)
        rates, corrections = self.advance(parameter, rows)
        first, second = self.moments(parameter)
        beta1, beta2 = group["betas"]
        values = parameter[rows]
        if group["weight_decay"] > 0 and group["decoupled"]:
            values.mul_(1 - group["lr"] * group["weight_decay"])
        elif group["weight_decay"] > 0:
            gradients = gradients + group["weight_decay"] * values
        mean = first[rows].lerp_(gradients, 1 - beta1)
        square = second[rows].mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        first[rows], second[rows] = mean, square
        divisors = (square.sqrt() * corrections[:, None]).add_(group["eps"])
        parameter[rows] = values - rates[:, None] * mean / divisors

    def advance(self, parameter: nn.Parameter, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Count a step of (q,) rows.

        Returns:
            (q,) float32 learning rates over 1 − β₁ᵗ, and (q,) float32 1 / √(1 − β₂ᵗ), with each row's own t.
        """
        group, counts = self.group_of(parameter), self._state(parameter)["counts"]
        counts[rows] += 1
        taken = counts[rows].to(torch.float64)
        beta1, beta2 = group["betas"]
        rates = group["lr"] / (1 - beta1**taken)
        return rates.to(torch.float32), (1 - beta2**taken).rsqrt().to(torch.float32)

    def moments(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        """(U, P) running means of the gradients and of their squares, to be updated in place."""
        state = self._state(parameter)
        return state["first"], state["second"]

    def group_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        """The group that a parameter is in."""
        return next(group for group in self.param_groups if any(parameter is each for each in group["params"]))

    def _state(self, parameter: nn.Parameter) -> dict[str, Any]:
        state = self.state[parameter]
        if not state:
            state["counts"] = torch.zeros(len(parameter), device=parameter.device)
            state["first"] = torch.zeros_like(parameter, requires_grad=False)
            state["second"] = torch.zeros_like(parameter, requires_grad=False)
        return state
