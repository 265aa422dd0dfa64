"""Training of weights that are to be whole numbers of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrkit.training.member import Listener, Member

_DEAD = 0.1
"""How much further than half a step from a whole number a weight is still rounded towards 0, where numbers cost least
to code."""


@dataclass(frozen=True)
class Grid:
    """The values that a tensor may have.

    Args:
        scale: float32 steps, of the tensor's shape or one that expands to it.
        origin: float32 numbers of steps that are told nothing by, likewise: where a 0 stands.
    """

    scale: Tensor
    origin: Tensor

    def numbers(self, values: Tensor) -> Tensor:
        """Whole numbers, as floats, of steps from the origin to the values."""
        steps = values / self.scale - self.origin
        return torch.sign(steps) * torch.floor(steps.abs() + (0.5 - _DEAD))

    def nearest(self, values: Tensor) -> Tensor:
        """The values on the grid that these are rounded to."""
        return (self.numbers(values) + self.origin) * self.scale


class StraightThrough(Listener):
    """Trains parameters through their rounding (Bengio et al., arXiv 1308.3432, section 4).

    A step finds its gradients at the rounded parameters, and its update goes to the parameters as they were before
    rounding. So whatever steps the network, its backend or optimizer, is as in any training.

    Args:
        parameters: of the network in training, by name; those to be rounded.
        grids: of these.

    Attributes:
        exact: the parameters before rounding.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], grids: Mapping[str, Grid]) -> None:
        self._parameters = dict(parameters)
        self._grids = dict(grids)
        self.exact = {name: real(parameter).clone() for name, parameter in self._parameters.items()}
        self._rounded: dict[str, Tensor] = {}

    def on_start(self, member: Member) -> None:
        self._round()

    def on_step(self, member: Member, selected: int) -> None:
        for name, parameter in self._parameters.items():
            self.exact[name] += real(parameter) - self._rounded[name]
        self._round()

    def _round(self) -> None:
        for name, parameter in self._parameters.items():
            self._rounded[name] = self._grids[name].nearest(self.exact[name])
            real(parameter).copy_(self._rounded[name])


def real(parameter: Tensor) -> Tensor:
    """A parameter's own numbers, without a graph; of complex ones, real and imaginary parts along a last axis."""
    values = parameter.detach()
    return torch.view_as_real(values) if values.is_complex() else values
