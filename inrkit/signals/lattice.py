"""Lattices: the coordinates of their cells, and slabs of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrkit.device import has_float64
from inrkit.errors import ConfigError
from inrkit.signals.bends import Bends

_EXACT = 1 << 24
"""Length of an axis up to which float32 represents 2i + 1 − n; beyond it, neighbours would share a coordinate."""
SLAB = 1 << 18
"""Coordinates that are predicted before something is done with them, roughly."""


def lattice_coordinates(indices: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Coordinates of lattice points: the centres of the cells that divide [−1, 1] along each axis.

    Cell i of n lies at (2i + 1 − n) / n, so that rendering at another resolution covers the same extent and an
    axis of length 1 lies at 0.

    Args:
        indices: (…,) int64, in C order over `shape`.
        shape: lengths of the D axes.
        dtype: of the coordinates.

    Returns:
        (…, D) of `dtype` in (−1, 1), axes in the order of `shape`; float64 in main memory if the indices' device has
        none.
    """
    device = indices.device
    if not has_float64(device) and (dtype == torch.float64 or max(shape) > _EXACT):
        indices = indices.cpu()
    coordinates = torch.empty(*indices.shape, len(shape), dtype=dtype, device=indices.device)
    for axis in range(len(shape) - 1, -1, -1):
        length = shape[axis]
        along = indices if axis == 0 else indices % length
        indices = indices if axis == 0 else torch.div(indices, length, rounding_mode="floor")
        centred = 2 * along + (1 - length)
        if length > _EXACT or dtype == torch.float64:
            centred = centred.to(torch.float64)
        torch.div(centred, length, out=coordinates[..., axis])
    return coordinates if dtype == torch.float64 else coordinates.to(device)


def places_of(indices: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """Where (…,) int64 indices of cells, in C order over `shape`, lie along each of the D axes: (…,) int64 each.

    As torch.unravel_index has it, which copies the shape to the device, so that a GPU is waited for, and imports
    another half second of modules.
    """
    places = []
    for length in reversed(shape):
        places.append(indices % length)
        indices = torch.div(indices, length, rounding_mode="floor")
    return places[::-1]


def mirrored(places: Tensor, length: int) -> Tensor:
    """Int64 places along an axis, those outside 0 … length − 1 mirrored about the outermost ones."""
    if length == 1:
        return torch.zeros_like(places)
    folded = places.remainder(2 * length - 2)
    return (length - 1) - (folded - (length - 1)).abs()


def cell_affine(shape: tuple[int, ...]) -> np.ndarray:
    """The affine map from [−1, 1]^D to cell indices: the centre of cell i is mapped to i.

    Returns:
        (D, D + 1) float64, to be applied as `affine[:, :D] @ coordinate + affine[:, D]`.
    """
    return np.array(
        [
            [length / 2 if axis == other else 0.0 for other in range(len(shape))] + [(length - 1) / 2]
            for axis, length in enumerate(shape)
        ]
    )


@dataclass(frozen=True)
class Region:
    """A lattice over a box of [−1, 1]^D, such as a part of a signal at a resolution of its own.

    Args:
        shape: lengths of the D axes.
        low: D numbers, where the leading cells begin.
        high: D numbers, where the last cells end.
        bends: of the signal, along axes on which the region's cells are even in physical space; low and high are even
            coordinates there.
    """

    shape: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    bends: Bends | None = None

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Region:
        """All of [−1, 1]^D, on a lattice of `shape`."""
        return cls(shape, (-1.0,) * len(shape), (1.0,) * len(shape))

    @property
    def shares(self) -> np.ndarray:
        """(D,) how much of the signal's length each axis covers."""
        return (np.array(self.high) - self.low) / 2

    def begins(self, shape: Sequence[float]) -> np.ndarray:
        """(D,) how many cells of a lattice of `shape` over [−1, 1]^D lie before the region on each axis."""
        return (np.array(self.low) + 1) / 2 * shape

    def affine(self, affine: np.ndarray) -> np.ndarray:
        """The (D, D + 1) map from [−1, 1]^D over the region to what `affine` maps [−1, 1]^D over the signal to."""
        centre = (np.array(self.low) + self.high) / 2
        return np.column_stack([affine[:, :-1] * self.shares, affine[:, :-1] @ centre + affine[:, -1]])

    def coordinates(self, indices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Coordinates of the centres of the region's cells, as those of `lattice_coordinates`."""
        if self == Region.whole(self.shape):
            return lattice_coordinates(indices, self.shape, dtype)
        device = indices.device
        indices = indices if has_float64(device) else indices.cpu()
        axes = places_of(indices, self.shape)
        coordinates = torch.empty(*indices.shape, len(self.shape), dtype=dtype, device=indices.device)
        for axis, (along, length, low, high) in enumerate(zip(axes, self.shape, self.low, self.high, strict=True)):
            place = low + (high - low) * (2 * along.to(torch.float64) + 1) / (2 * length)
            place = place if self.bends is None else self.bends.along(axis, place)
            coordinates[..., axis] = torch.where(place.abs() < _NOTHING, 0.0, place)
        return coordinates if dtype == torch.float64 else coordinates.to(device)


_NOTHING = 1e-13
"""What a coordinate of 0 may come to by rounding."""
_SAME = 1e-6
"""Share of a cell by which a place may miss a cell's and be taken for it."""
_SAME_STEP = 1e-9
"""The same of a step, which is taken many times."""
_MOST = 1 << 40
"""Cells along an axis, far more than any memory holds."""

Lengths = float | Sequence[float | None] | None
"""A number for all axes, or one for each, of which None is left open; None leaves all open."""


def region_of(
    affine: np.ndarray,
    grid_shape: tuple[int, ...] | None,
    start: Lengths = None,
    stop: Lengths = None,
    step: Lengths = None,
    *,
    extrapolate: bool = False,
    bends: Bends | None = None,
) -> Region:
    """The region whose values lie at `start`, `start + step`, … short of `stop` on each axis, in physical units.

    These are the places of numpy.arange, at which `field(x, physical=True)` has the same values. Each is the centre of
    a cell of size `step`. Where `start` is open, cells fill the extent from its beginning; where `stop` is, to its end.

    Args:
        affine: (D, D + 1) map from [−1, 1]^D to physical units.
        grid_shape: the lattice that the signal came on; None for free points.
        start: in the order of the physical axes.
        stop: likewise.
        step: likewise, above 0; where open, that of the signal's lattice. Of a signal that lies oblique to the physical
            axes, which has no start nor stop, lengths along the lattice's own axes.
        extrapolate: whether places beyond the signal's extent are allowed.
        bends: of the signal. An axis of which all is left open keeps the signal's own places.

    Raises:
        ConfigError: physical axes are oblique to the lattice's, or numbers are missing, impossible, or lie outside.
    """
    starts, stops, steps = (
        _one_an_axis(given, len(affine), name) for given, name in ((start, "from"), (stop, "to"), (step, "step"))
    )
    along = _axes_along(affine)
    if along is None:
        if any(place is not None for place in (*starts, *stops)):
            raise ConfigError(
                "the signal lies oblique to the axes of its physical units, so a box along them is no lattice of its "
                "own; leave from and to out, or call field(points, physical=True)"
            )
        along = list(range(len(affine)))
        affine = np.column_stack([np.diag(np.linalg.norm(affine[:, :-1], axis=0)), np.zeros(len(affine))])
    shape, lows, highs = [0] * len(along), [0.0] * len(along), [0.0] * len(along)
    for row, axis in enumerate(along):
        named = f"axis {row + 1} of {len(along)}"
        factor, offset = float(affine[row, axis]), float(affine[row, -1])
        cells = None if grid_shape is None else grid_shape[axis]
        if steps[row] is None and cells is None:
            raise ConfigError("the signal came on no lattice, so there is no step to fall back on; give one")
        size = 2 / cells if steps[row] is None else steps[row] / abs(factor)  # type: ignore[operator]
        if not 0 < size < math.inf:
            raise ConfigError(f"step is {steps[row]:g} on {named}; it must be a finite number above 0")
        if cells is not None and size > 1 / cells:
            size = _snapped(size, 2 / cells, _SAME_STEP)
        first = -1 + size / 2 if starts[row] is None else (starts[row] - offset) / factor  # type: ignore[operator]
        if cells is not None:
            first = _snapped(first + 1 - 1 / cells, 2 / cells, _SAME) - 1 + 1 / cells
        last = 1.0 if stops[row] is None else (stops[row] - offset) / factor  # type: ignore[operator]
        ends = sorted(offset + sign * abs(factor) for sign in (-1, 1))
        begin, end = ends if factor > 0 else reversed(ends)
        if not first < last:
            begun = offset + factor * first
            raise ConfigError(
                f"the region goes from {begun:.8g} to {offset + factor * last:.8g} on {named}, and the signal from "
                f"{begin:.8g} to {end:.8g}; give from and to in that direction, with something between"
            )
        if not (last - first) / size < _MOST:
            raise ConfigError(f"step is {size * abs(factor):g} on {named}, too small for so large a region")
        length = max(1, math.ceil((last - first) / size - _SAME))
        reach = first + (length - 1) * size
        if not extrapolate and (first < -1 - _SAME * size or reach > 1 + _SAME * size):
            raise ConfigError(
                f"the region has values from {offset + factor * first:.8g} to {offset + factor * reach:.8g} on "
                f"{named}, and the signal lies from {begin:.8g} to {end:.8g}; give a region inside, or extrapolate, "
                "for values that are made up"
            )
        low, high = first - size / 2, first + (length - 0.5) * size
        shape[axis] = length
        lows[axis] = -1.0 if abs(low + 1) < _SAME * size else low
        highs[axis] = 1.0 if abs(high - 1) < _SAME * size else high
    asked = [axis for row, axis in enumerate(along) if any(given[row] is not None for given in (starts, stops, steps))]
    bends = (bends.only(asked) or None) if bends else None
    return Region(tuple(shape), tuple(lows), tuple(highs), bends)


def _axes_along(affine: np.ndarray) -> list[int] | None:
    """For each physical axis, the lattice's axis that lies along it; None where they lie oblique to each other."""
    sizes = np.abs(affine[:, :-1])
    along = [int(axis) for axis in sizes.argmax(axis=1)]
    rest = sizes.copy()
    rest[np.arange(len(along)), along] = 0
    straight = sorted(along) == list(range(len(along))) and (rest <= _SAME * sizes.max(axis=1, keepdims=True)).all()
    return along if straight else None


def _one_an_axis(given: Lengths, count: int, name: str) -> list[float | None]:
    numbers = [given] * count if given is None or np.ndim(given) == 0 else list(given)  # type: ignore[arg-type]
    if len(numbers) != count:
        raise ConfigError(f"{name} has {len(numbers)} numbers; expected {count}, one an axis")
    if any(number is not None and not math.isfinite(number) for number in numbers):  # type: ignore[arg-type]
        raise ConfigError(f"{name} is {', '.join(map(str, numbers))}; expected finite numbers")
    return [None if number is None else float(number) for number in numbers]  # type: ignore[arg-type]


def _snapped(place: float, unit: float, tolerance: float) -> float:
    """`place`, or the whole number of units that it misses by less than `tolerance` of one."""
    whole = round(place / unit)
    return whole * unit if abs(place / unit - whole) < tolerance else place


def slabs(shape: tuple[int, ...], size: int = SLAB) -> Iterator[slice]:
    """Index ranges of whole rows along the first axis, of about `size` coordinates each."""
    row = math.prod(shape[1:])
    rows = max(1, size // row)
    for first in range(0, shape[0], rows):
        yield slice(first * row, min(first + rows, shape[0]) * row)
