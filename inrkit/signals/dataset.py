"""CoordinateDataset: N coordinates in D dimensions and their N values in C channels."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrkit.device import available_memory, gathered, has_float64, mean, wide
from inrkit.errors import DataError
from inrkit.signals.lattice import lattice_coordinates, places_of

# Torch computes little with these, so they are kept under a type of the same width and widened when gathered.
_UNSIGNED = {np.dtype("uint16"): (np.int16, 0xFFFF), np.dtype("uint32"): (np.int32, 0xFFFFFFFF)}
_WIDE = (torch.float64, torch.int32, torch.int64)
_SCAN = 1 << 22
_CHUNK = 1 << 20
"""Numbers that are read at a time when a whole signal is read."""


class CoordinateDataset:
    """A signal: coordinates and the values there.

    On a lattice the coordinates are computed from indices when needed; free points are stored. Values stay in
    their file's dtype; a memory map stays one. A `Signal` is the dataset as a network learns it.

    Args:
        values: (*grid_shape, C), or (N, C) with `points`; bool, integer or real.
        points: (N, D) coordinates in [−1, 1]^D, for a signal that is not on a lattice.
        affine: (D, D + 1) map from [−1, 1]^D to physical units; the identity if not given.
        channel_weights: C numbers that reduce the channels to the one value whose high frequencies count
            (luma for RGB); the mean if not given.
        metadata: what the modality needs to write a reconstruction, plain JSON; "notes" are sentences that a user
            is told before the fit.
        weights: how much each coordinate's error counts, broadcast over the lattice, or (N,); scaled to mean 1 over the
            known.
        known: bool, where values are known, broadcast over the lattice, or (N,); everywhere if not given. What values
            hold elsewhere, NaN or a filling, is never read as a number. Points that are not known are dropped; of a
            lattice the known cells are listed, 8 bytes each.
        resample: for free points that are drawn anew during training: gives the points and values of round 0, 1, ….
        resample_every: steps between two rounds.
        source: what the values were computed from, if they were: arrays that tell the signal from others.
        full_scale: whether PSNR refers to all that an integer dtype can hold, as for pictures, or to what is present,
            as for measurements whose dtype merely has room for them.

    Attributes:
        known: (K,) int64 ascending indices of a lattice's known cells; None where everything is known. N and the
            indices of this class count all cells; a `Signal`, and so training, counts the known alone.
        mapped: whether `values` are a memory map of a file.

    Raises:
        DataError: no values, none of them known, a complex or non-numeric dtype, or shapes that do not fit each other.
    """

    def __init__(
        self,
        values: np.ndarray,
        *,
        points: np.ndarray | None = None,
        affine: np.ndarray | None = None,
        channel_weights: tuple[float, ...] | None = None,
        metadata: dict[str, Any] | None = None,
        weights: np.ndarray | None = None,
        known: np.ndarray | None = None,
        resample: Callable[[int], tuple[np.ndarray, np.ndarray]] | None = None,
        resample_every: int = 0,
        full_scale: bool = True,
        source: tuple[np.ndarray, ...] | None = None,
    ) -> None:
        if values.dtype.kind not in "biuf":
            raise DataError(f"values are of dtype {values.dtype}; expected bool, integers or real numbers")
        if values.ndim < 2 or values.size == 0:
            raise DataError(f"values have shape {values.shape}; expected (…, C) with at least one of each")
        channels = values.shape[-1]
        if points is not None and points.shape[:-1] != values.shape[:-1]:
            raise DataError(f"points have shape {points.shape}, values {values.shape}; expected (N, D), (N, C)")
        everywhere = values.shape[:-1]
        if known is not None and resample is not None:
            raise DataError("points that are drawn anew during training are all known; leave `known` out")
        places = None if known is None else _listed(known, everywhere)
        if places is not None and points is not None:
            weights = None if weights is None else _spread_array(weights, everywhere, "weights")[places]
            points, values, places = points[places], values[places], None
        self.dtype = values.dtype.newbyteorder("=")
        self.grid_shape: tuple[int, ...] | None = None if points is not None else values.shape[:-1]
        self.points = None if points is None else torch.as_tensor(np.asarray(points, dtype=np.float32))
        self.values = _as_tensor(values).reshape(-1, channels)
        self.mapped = _is_mapped(values) and self.values.data_ptr() == values.ctypes.data
        dimensions = self.dimensions
        self.affine = np.eye(dimensions, dimensions + 1) if affine is None else np.ascontiguousarray(affine, float)
        self.channel_weights = torch.tensor(channel_weights or (1 / channels,) * channels)
        if self.affine.shape != (dimensions, dimensions + 1) or len(self.channel_weights) != channels:
            raise DataError(
                f"affine has shape {self.affine.shape} and there are {len(self.channel_weights)} channel weights; "
                f"expected {(dimensions, dimensions + 1)} and {channels}"
            )
        self.metadata = metadata or {}
        self.known = None if places is None else torch.from_numpy(places)
        self.weights = None if weights is None else self._spread(weights)
        self.resample = resample
        self.resample_every = resample_every if resample is not None else 0
        self.full_scale = full_scale
        self.source = source
        self.round = 0

    def __len__(self) -> int:
        """N."""
        return len(self.values)

    def __repr__(self) -> str:
        lattice = self.grid_shape
        extent = "×".join(map(str, lattice)) if lattice else f"{len(self):,} points in {self.dimensions} dimensions"
        return f"CoordinateDataset({extent}, {self.channels} channel{'' if self.channels == 1 else 's'} {self.dtype})"

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self.grid_shape) if self.grid_shape is not None else int(self.points.shape[-1])  # type: ignore[union-attr]

    @property
    def channels(self) -> int:
        """C."""
        return self.values.shape[-1]

    @property
    def whole(self) -> tuple[int, ...] | None:
        """The lattice that coordinates count in: its own, but for a `Part` of a larger signal."""
        return self.grid_shape

    @property
    def origin(self) -> tuple[int, ...]:
        """Its first cell in `whole`."""
        return (0,) * self.dimensions

    @property
    def around(self) -> CoordinateDataset:
        """What is known of the signal here and next to it: itself, but for a `Part`."""
        return self

    @property
    def device(self) -> torch.device:
        """Where coordinates and gathered values are; the values that they are gathered from may be in main memory."""
        return self.channel_weights.device

    @property
    def away(self) -> bool:
        """Whether the values stay in main memory, and what is gathered of them goes to the device."""
        return self.values.device != self.device

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Smallest and largest value that the dtype can hold; None for real numbers."""
        if self.dtype.kind == "b":
            return (0.0, 1.0)
        if self.dtype.kind in "iu":
            info = np.iinfo(self.dtype)
            return (float(info.min), float(info.max))
        return None

    @cached_property
    def extent(self) -> tuple[float, float]:
        """Smallest and largest value present, of the known.

        Raises:
            DataError: a value is NaN or infinite; says which and how many.
        """
        low, high = math.inf, -math.inf
        for part in self._parts(_SCAN):
            values = self.stored(part)
            finite = torch.isfinite(values.to(torch.float32))
            if not finite.all():
                first = int((~finite).any(dim=1).nonzero()[0])
                first = part.start + first if isinstance(part, slice) else int(part[first])
                place = first if self.grid_shape is None else np.unravel_index(first, self.grid_shape)
                where = ", ".join(str(int(i)) for i in np.atleast_1d(place))
                if torch.isfinite(values).all():
                    raise DataError(f"the value at index ({where}) is beyond float32; bring all values below 1e38")
                raise DataError(
                    f"the value at index ({where}) is NaN or infinite; replace such values (for instance with "
                    "numpy.nan_to_num) and try again"
                )
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        return low, high

    @property
    def peak(self) -> float:
        """The range that PSNR and SSIM refer to: that of the integer dtype, or the range present; see `full_scale`."""
        low, high = (self.value_range if self.full_scale else None) or self.extent
        return (high - low) or 1.0

    @cached_property
    def reference(self) -> float:
        """What is subtracted before values are compared as float32: the middle of their range where it is so small for
        their size that float32 would round their differences away; 0 where it would not, or holds the stored values."""
        if np.can_cast(self.dtype, np.float32) or resolved(*self.extent):
            return 0.0
        return (self.extent[0] + self.extent[1]) / 2

    def coordinates(self, indices: Tensor | slice, dtype: torch.dtype = torch.float32) -> Tensor:
        """(k, D) coordinates in [−1, 1]^D of `indices`, (k,) int64 or a slice; float32 unless `dtype` asks for more."""
        if self.points is not None:
            return wide(self.points[indices]) if dtype == torch.float64 else self.points[indices]
        if isinstance(indices, slice):
            indices = torch.arange(*indices.indices(len(self)), device=self.device)
        return lattice_coordinates(indices, self.grid_shape, dtype)  # type: ignore[arg-type]

    def weights_of(self, indices: Tensor | slice) -> Tensor | None:
        """(k,) float32 weights of `indices`, of mean 1 over the known; None where all count the same."""
        if self.weights is None:
            return None
        if self.grid_shape is None:
            return self.weights[indices]
        if isinstance(indices, slice):
            indices = torch.arange(*indices.indices(len(self)), device=self.device)
        return self.weights[tuple(places_of(indices, self.grid_shape))]

    def advance(self, number: int) -> None:
        """Replace the points and values by those of round `number`."""
        if self.resample is None or number == self.round:
            return
        points, values = self.resample(number)
        self.points = torch.as_tensor(np.asarray(points, dtype=np.float32)).to(self.device)
        self.values = _as_tensor(values).reshape(-1, self.channels).to(self.values.device)
        self.round = number

    def stored(self, indices: Tensor | slice) -> Tensor:
        """(k, C) values of `indices` in the file's units, as float32 or float64; float64 in main memory if the device
        has none."""
        values = self._gathered(indices)
        if self.dtype in _UNSIGNED:
            return as_float(values.to(torch.int64) & _UNSIGNED[self.dtype][1])
        return as_float(values)

    def stored_array(self) -> np.ndarray:
        """(*grid_shape, C) values of a lattice in their own dtype, without a copy where they are on the CPU."""
        values = self.values.cpu().numpy()
        if values.dtype.itemsize == self.dtype.itemsize:  # wider ones are kept as float64
            values = values.view(self.dtype)
        return values.reshape(*(self.grid_shape or (len(self),)), self.channels)

    def stored32(self, indices: Tensor | slice) -> Tensor:
        """(k, C) values of `indices` in the file's units, less the reference, as float32 on the device."""
        return self.referred(self.stored(indices)).to(self.device)

    def referred(self, values: Tensor) -> Tensor:
        """(…) float32 of stored values, less the reference."""
        return (wide(values) - self.reference if self.reference else values).to(torch.float32)

    def chunks(self) -> Iterator[Tensor]:
        """All known stored values in order, (k, C) float64, some at a time."""
        for part in self._parts(max(1, _CHUNK // self.channels)):
            yield wide(self.stored(part))

    def sample(self, count: int) -> Tensor:
        """(n,) float64 known values: all of them, or those of about `count` / C coordinates, the same each time."""
        rows = max(1, count // self.channels)
        population = len(self) if self.known is None else len(self.known)
        chosen: Tensor | slice = slice(0, population)
        if population > rows:
            drawn = torch.randint(population, (rows,), generator=torch.Generator().manual_seed(0))
            chosen = drawn.sort().values.to(self.device)  # in the order in which a memory map is read fastest
        return wide(self.stored(chosen if self.known is None else self.known[chosen])).reshape(-1)

    def places(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Where indices stand among the known, on a lattice of which a part is known.

        Args:
            indices: (…,) int64; those outside the lattice are not known.

        Returns:
            (…,) int64 places in `known`, some place or other for what is not known; and (…,) bool, which are known.
        """
        assert self.known is not None
        places = torch.searchsorted(self.known, indices.contiguous()).clamp_(max=len(self.known) - 1)
        return places, self.known[places] == indices

    def only(self, known: np.ndarray) -> CoordinateDataset:
        """The same signal with less of it known.

        Args:
            known: bool, broadcast over the lattice, or (N,); what was not known before stays so.

        Raises:
            DataError: nothing is left, or the shapes do not fit each other.
        """
        places = _listed(known, self.grid_shape or (len(self),))
        if places is None:
            return self
        less = copy.copy(self)
        for name in ("extent", "reference"):
            less.__dict__.pop(name, None)
        chosen = torch.from_numpy(places).to(self.device)
        if self.points is not None:
            less.points, less.values = self.points[chosen], self.values[chosen.to(self.values.device)]
            less.weights = None if self.weights is None else self.weights[chosen]
        else:
            less.known = chosen if self.known is None else chosen[self.places(chosen)[1]]
            if not len(less.known):
                raise DataError(_NOTHING_KNOWN)
        less.weights = None if less.weights is None else less._of_mean_one(less.weights)
        return less

    def weighted(self, weights: np.ndarray) -> CoordinateDataset:
        """The same signal with other weights, given as for the constructor.

        Raises:
            DataError: they are not weights, or the shapes do not fit each other.
        """
        other = copy.copy(self)
        other.weights = self._spread(weights).to(self.device)
        return other

    def _parts(self, size: int) -> Iterator[Tensor | slice]:
        """The indices of all that is known, in order, `size` at a time."""
        if self.known is not None:
            yield from self.known.split(size)
            return
        for start in range(0, len(self), size):
            yield slice(start, start + size)

    def to(self, device: torch.device, values: bool = True) -> CoordinateDataset:
        """The same signal on `device`.

        Args:
            device: where.
            values: whether the values go there too. Else they stay where they are, and what is gathered of them goes
                there; so it is with values that need float64 if the device has none.
        """
        moved = copy.copy(self)
        if values and not (self._wide and not has_float64(device)):
            moved.values = self.values.to(device)
        moved.points = None if self.points is None else self.points.to(device)
        moved.known = None if self.known is None else self.known.to(device)
        moved.channel_weights = self.channel_weights.to(device)
        if self.weights is not None:
            # Move the weights as given, then broadcast again: moving the broadcast ones would store every repeat.
            given = self.weights[tuple(slice(None) if step else slice(1) for step in self.weights.stride())]
            moved.weights = given.to(device).expand(self.weights.shape)
        return moved

    @property
    def _wide(self) -> bool:
        """Whether `stored` gives float64."""
        return self.dtype in _UNSIGNED or self.values.dtype in _WIDE

    def _gathered(self, indices: Tensor | slice) -> Tensor:
        """(k, C) values of `indices` as they are kept, on the device; in main memory if they need float64 and it has
        none."""
        kept = self._wide and not has_float64(self.device)
        return gathered(self.values, indices, self.values.device if kept else self.device)

    def _spread(self, weights: np.ndarray) -> Tensor:
        """Weights broadcast over the lattice or the points, without copies."""
        given = torch.as_tensor(np.array(weights, dtype=np.float32))
        try:
            spread = given.expand(self.grid_shape or (len(self),))
        except RuntimeError as error:
            raise DataError(
                f"weights have shape {tuple(given.shape)}; expected a shape that broadcasts over the signal"
            ) from error
        if not (bool(torch.isfinite(given).all()) and bool((given >= 0).all())):
            raise DataError("weights must be finite, not negative, and not all zero")
        return self._of_mean_one(spread)

    def _of_mean_one(self, spread: Tensor) -> Tensor:
        """Spread weights scaled to mean 1 over the known, without a copy of what repeats."""
        counted = spread
        if self.known is not None:
            counted = spread[tuple(places_of(self.known.to(spread.device), spread.shape))]
        average = mean(counted)
        if not (math.isfinite(average) and average > 0):
            raise DataError("weights must be finite, not negative, and not all zero")
        given = spread[tuple(slice(None) if step else slice(1) for step in spread.stride())]
        return (given / average).expand(spread.shape)


def resolved(low: float, high: float) -> bool:
    """Whether float32 tells values between `low` and `high` apart: not where they differ little for their size, as
    seconds since 1970 do."""
    return (high - low or 2.0) > max(abs(low), abs(high)) * _FINEST


_FINEST = 2.0**-12
"""The smallest range that float32 resolves well, as a share of the largest value."""

_NOTHING_KNOWN = "no value is known; check what says which are"


def _listed(known: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """(K,) int64 ascending indices of what is known; None where everything is."""
    places = np.flatnonzero(_spread_array(np.asarray(known).astype(bool), shape, "known"))
    if not len(places):
        raise DataError(_NOTHING_KNOWN)
    return None if len(places) == math.prod(shape) else places.astype(np.int64, copy=False)


def _spread_array(given: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    try:
        return np.broadcast_to(given, shape)
    except ValueError as error:
        raise DataError(
            f"{what} has shape {given.shape}; expected one that spreads over the signal, {shape}"
        ) from error


def _as_tensor(values: np.ndarray) -> Tensor:
    """Share the array's memory if torch can; a memory map stays one."""
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if values.dtype in _UNSIGNED:
        values = values.view(_UNSIGNED[values.dtype][0])
    elif values.dtype.kind in "ui" and values.dtype.itemsize == 8:
        if values.dtype.kind == "u" and int(values.max()) > np.iinfo(np.int64).max:
            raise DataError("a value is above 2⁶³ − 1, more than torch holds; convert the values to float64")
        values = values.astype(np.int64, copy=False)
    elif values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    if not values.flags.c_contiguous:
        if values.nbytes > available_memory():
            raise DataError(
                f"the values are not in C order, and a copy takes {values.nbytes / 2**30:.1f} GiB, but only "
                f"{available_memory() / 2**30:.1f} GiB are free; make the values C-contiguous beforehand"
            )
        values = np.ascontiguousarray(values)
    with warnings.catch_warnings():
        # torch warns because it could write to read-only memory; nothing here writes to values.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def _is_mapped(values: np.ndarray | None) -> bool:
    """Whether an array's memory is that of a memory map."""
    while isinstance(values, np.ndarray):
        if isinstance(values, np.memmap):
            return True
        values = values.base
    return False


def as_float(values: Tensor) -> Tensor:
    """Stored values as float32, or as float64 where float32 would lose whole numbers."""
    return values.to(torch.float64 if values.dtype in _WIDE else torch.float32)
