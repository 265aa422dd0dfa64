"""Bends: axes along which a signal's cells do not lie evenly in physical space, as frames that are shown unequally
long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from inrkit.device import returned, wide


class Bends:
    """A rising map along each of some axes, piecewise linear, from even coordinates to those of a network.

    Even coordinates are what a signal's affine map leads to physical units from. Without a bend both are the same.

    Args:
        axes: for each bent axis its knots: (n,) even coordinates and the (n,) coordinates of the network there, both
            rising, n at least 2. Beyond them the map goes on as it ends.

    Raises:
        ValueError: knots that do not rise, or are no numbers.
    """

    KEY = "bends"
    """Under which metadata have them: for each bent axis its number and the two lists of knots."""

    def __init__(self, axes: Mapping[int, tuple[Iterable[float], Iterable[float]]]) -> None:
        self._knots: dict[int, tuple[Tensor, Tensor]] = {}
        for axis, sides in axes.items():
            even, bent = (torch.tensor(list(side), dtype=torch.float64) for side in sides)
            if even.shape != bent.shape or len(even) < 2 or not all((side.diff() > 0).all() for side in (even, bent)):
                raise ValueError(f"the knots of axis {axis} do not rise")
            self._knots[int(axis)] = even, bent

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Bends:
        """Those that a signal's metadata tell; none, if they tell of none."""
        return cls({axis: (even, bent) for axis, even, bent in metadata.get(cls.KEY, ())})

    def __bool__(self) -> bool:
        return bool(self._knots)

    def only(self, axes: Iterable[int]) -> Bends:
        """Those along some axes alone."""
        fewer = Bends({})
        fewer._knots = {axis: knots for axis, knots in self._knots.items() if axis in set(axes)}
        return fewer

    def along(self, axis: int, even: Tensor) -> Tensor:
        """(…,) coordinates of the network along an axis, for even ones; differentiable."""
        knots = self._knots.get(axis)
        return even if knots is None else _interpolated(even, *knots)

    def bent(self, even: Tensor) -> Tensor:
        """(…, D) coordinates of the network for even ones; differentiable."""
        return torch.stack([self.along(axis, part) for axis, part in enumerate(even.unbind(-1))], dim=-1)

    def straightened(self, bent: Tensor) -> Tensor:
        """(…, D) even coordinates for those of the network."""
        turned = Bends({})
        turned._knots = {axis: (there, here) for axis, (here, there) in self._knots.items()}
        return turned.bent(bent)


def _interpolated(places: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """(…,) piecewise linear values at places."""
    exact = wide(places)
    knots, values = knots.to(exact.device), values.to(exact.device)
    left = (torch.searchsorted(knots, exact.detach().contiguous(), right=True) - 1).clamp(0, len(knots) - 2)
    slopes = (values[1:] - values[:-1]) / (knots[1:] - knots[:-1])
    return returned(values[left] + slopes[left] * (exact - knots[left]), places)
