"""Optimizers for many networks in one tensor, each with a step count of its own."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inrkit.device import has_float64
from inrkit.training.optimizers.base import Optimizer, evaluated
from inrkit.training.optimizers.soap import adopt, first_state, mapped, refined


class RowOptimizer(Optimizer):
    """Steps some rows of its parameters; the others, and what it keeps of them, stay as they are."""

    @abstractmethod
    def step_rows(self, parameter: nn.Parameter, rows: Tensor, gradients: Tensor) -> None:
        """A step of some rows.

        Args:
            parameter: (U, P) one of the optimizer's.
            rows: (q,) int64 distinct.
            gradients: (q, P) of these rows.
        """

    @abstractmethod
    def numbers_kept(self, parameter: nn.Parameter) -> int:
        """Numbers that it keeps once all rows have taken a step."""

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

    def group_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        """The group that a parameter is in."""
        return next(group for group in self.param_groups if any(parameter is each for each in group["params"]))


class RowAdam(RowOptimizer):
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
    def step_rows(self, parameter: nn.Parameter, rows: Tensor, gradients: Tensor) -> None:
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

    def numbers_kept(self, parameter: nn.Parameter) -> int:
        return 2 * parameter.numel() + len(parameter)

    @property
    def plain(self) -> bool:
        """Whether no group decays its weights."""
        return all(group["weight_decay"] == 0 for group in self.param_groups)

    def advance(self, parameter: nn.Parameter, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Count a step of (q,) rows.

        Returns:
            (q,) float32 learning rates over 1 − β₁ᵗ, and (q,) float32 1 / √(1 − β₂ᵗ), with each row's own t.
        """
        group, counts = self.group_of(parameter), self._state(parameter)["counts"]
        counts[rows] += 1
        taken = counts[rows]
        beta1, beta2 = group["betas"]
        rates = group["lr"] / learnt(beta1, taken)
        return rates.to(torch.float32), learnt(beta2, taken).rsqrt().to(torch.float32)

    def moments(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        """(U, P) running means of the gradients and of their squares, to be updated in place."""
        state = self._state(parameter)
        return state["first"], state["second"]

    def _state(self, parameter: nn.Parameter) -> dict[str, Any]:
        state = self.state[parameter]
        if not state:
            state["counts"] = torch.zeros(len(parameter), device=parameter.device)
            state["first"] = torch.zeros_like(parameter, requires_grad=False)
            state["second"] = torch.zeros_like(parameter, requires_grad=False)
        return state


class RowSOAP(RowOptimizer):
    """SOAP (see `SOAP`) on rows that take steps at different times.

    A row's eigenbases turn after every `precondition_every` steps of its own, and its first step only sets them up.

    Args:
        params: (U, P) parameters, a network in each row.
        shapes: of a network's matrices and vectors, in their order in a row.
        lr, betas, eps, weight_decay, precondition_every, precondition_up_to: as for `SOAP`.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        shapes: Sequence[Sequence[int]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        precondition_every: int = 10,
        precondition_up_to: int = 1024,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_every": precondition_every,
            "precondition_up_to": precondition_up_to,
            "precision": "float32",
            "shapes": [tuple(shape) for shape in shapes],  # here, because a copy of an optimizer has nothing else
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step_rows(self, parameter: nn.Parameter, rows: Tensor, gradients: Tensor) -> None:
        group, state = self.group_of(parameter), self.state[parameter]
        shapes = group["shapes"]
        sizes = [math.prod(shape) for shape in shapes]
        parts = [part.view(-1, *shape) for part, shape in zip(gradients.split(sizes, 1), shapes, strict=True)]
        if not state:
            state["counts"] = torch.full((len(parameter),), -1.0, device=parameter.device)
            state["parts"] = [_for_all(first_state(part[:1], group), len(parameter)) for part in parts]
        state["counts"][rows] += 1
        counts = state["counts"][rows]
        begun, going = (counts == 0).nonzero()[:, 0], (counts > 0).nonzero()[:, 0]
        if len(begun):
            for kept, part in zip(state["parts"], parts, strict=True):
                _put(kept, rows[begun], first_state(part[begun], group))
        if not len(going):
            return
        chosen, taken = rows[going], counts[going]
        turns = taken % group["precondition_every"] == 0
        beta1, beta2 = group["betas"]
        rates = group["lr"] * learnt(beta2, taken).sqrt() / learnt(beta1, taken)
        changes = []
        for kept, part in zip(state["parts"], parts, strict=True):
            picked = _picked(kept, chosen)
            changes.append(refined(picked, part[going], group).flatten(1))
            if bool(turns.any()):
                turning = turns.nonzero()[:, 0]
                turned = _picked(picked, turning)
                adopt([turned])
                _put(picked, turning, turned)
            _put(kept, chosen, picked)
        values = parameter[chosen] - rates.to(gradients.dtype)[:, None] * torch.cat(changes, dim=1)
        if group["weight_decay"] > 0:
            values.mul_(1 - group["lr"] * group["weight_decay"])
        parameter[chosen] = values

    def numbers_kept(self, parameter: nn.Parameter) -> int:
        group = self.group_of(parameter)
        matrices = [shape for shape in group["shapes"] if len(shape) > 1]
        turned = [length for shape in matrices for length in shape if length <= group["precondition_up_to"]]
        bases = 2 * sum(length * length for length in turned)  # and covariances
        return 2 * parameter.numel() + (1 + bases) * len(parameter)


def learnt(beta: float, taken: Tensor) -> Tensor:
    """(q,) 1 − βᵗ for (q,) float32 numbers of steps; in float64, or to float32's precision on a device without it."""
    if has_float64(taken.device):
        return 1 - beta ** taken.to(torch.float64)
    return -torch.expm1(taken * (math.log(beta) if beta else -math.inf))


def _for_all(state: dict[str, Any], count: int) -> dict[str, Any]:
    """Room for the state of `count` rows like that of one row."""
    return mapped(lambda kept: kept.new_zeros(count, *kept.shape[1:]), state)


def _picked(state: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """The state of some rows."""
    return mapped(lambda kept: kept[rows], state)


def _put(state: dict[str, Any], rows: Tensor, new: dict[str, Any]) -> None:
    """Replace the state of some rows."""
    for key, kept in state.items():
        for old, other in zip(kept, new[key], strict=True) if isinstance(kept, list) else [(kept, new[key])]:
            if old is not None:
                old[rows] = other
