"""What a field is worth between the samples: at the corners of a lattice's cells, against the signal's cubic spline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrkit.device import has_float64
from inrkit.evaluation.metrics import METRICS, PSNR, FieldMetric, Predictor
from inrkit.plugins.options import field_names
from inrkit.selectors.draws.subsets import sample_without_replacement
from inrkit.selectors.draws.tiles import Tiles
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.lattice import mirrored, places_of

_SHARE, _FEWEST, _MOST = 8, 1 << 12, 1 << 16
"""Corners: one for so many coordinates of an evaluation, but at least and at most so many."""
_CROPS = 16
"""Crops at least, if the signal is larger than they are."""
_LINE, _SIDE = 256, 16
"""Longest sides of a crop in one dimension and in more."""
_AT_A_TIME = 1 << 20
"""Values that are gathered at a time."""


def _spline_taps(reach: int) -> Tensor:
    """(2·reach,) weights of the cells around the middle between two of them, for a cubic spline through their values.

    The spline's coefficients are √3·Σ zᵏ of the values k cells away, z = √3 − 2 (Unser et al. 1993).
    """
    z = math.sqrt(3) - 2
    cells = torch.arange(1 - reach, reach + 1, dtype=torch.float64)
    near = z ** cells.abs() + z ** (cells - 1).abs()
    far = z ** (cells + 1).abs() + z ** (cells - 2).abs()
    taps = 23 / 48 * near + 1 / 48 * far
    return (taps / taps.sum()).to(torch.float32)


_REACH = 12
"""Cells further away from a corner have weights below 1e−7 in its spline."""
SPLINE = _spline_taps(_REACH)
LINEAR = torch.tensor([0.5, 0.5])
_NEXT = torch.ones(2)
_NEAR = torch.ones(4)


class Corners:
    """Corners of a lattice's cells: the places half a cell off along every axis that has more than one.

    Of a large lattice some crops, spread at random, the same each time.

    Args:
        dataset: a signal on a lattice.
        most: most corners.
    """

    def __init__(self, dataset: CoordinateDataset, most: int) -> None:
        assert dataset.grid_shape is not None
        self.dataset = dataset
        self._lattice = dataset.grid_shape
        between = tuple(max(1, length - 1) for length in self._lattice)
        if math.prod(between) <= most:
            self._tiles = Tiles(between, most)
        else:
            axes = sum(length > 1 for length in self._lattice)
            self._tiles = Tiles(between, max(1, min(_LINE if axes == 1 else _SIDE**axes, most // _CROPS)))
        self.sides = self._tiles.least
        """Corners of a crop along each axis."""
        self._widths = tuple(
            min(length, side + 2 * _REACH - 1) for length, side in zip(self._lattice, self.sides, strict=True)
        )
        numbers = torch.arange(len(self._tiles)) if dataset.known is None else self._known_tiles(dataset.known.cpu())
        count = max(1, most // math.prod(self.sides))
        if len(numbers) > count:
            drawn = sample_without_replacement(len(numbers), count, torch.Generator().manual_seed(0))
            numbers = numbers[drawn.sort().values]
        firsts = self._tiles.even_cells(numbers).view(len(numbers), -1)[:, 0]
        self._firsts = torch.stack(places_of(firsts, between), dim=-1).to(dataset.device)

    def __len__(self) -> int:
        """How many corners there are, those included that are not rated."""
        return len(self._firsts) * math.prod(self.sides)

    def __iter__(self) -> Iterator[Block]:
        values = math.prod(self._widths) * self.dataset.channels
        for firsts in self._firsts.split(max(1, _AT_A_TIME // values)):
            yield Block(self.dataset, firsts, self.sides, self._widths)

    def _known_tiles(self, cells: Tensor) -> Tensor:
        """Numbers of the crops of whose cells some are known."""
        places = places_of(cells, self._lattice)
        corners, stride = torch.zeros_like(cells), 1
        for place, length in zip(reversed(places), reversed(self._tiles.shape), strict=True):
            corners += place.clamp(max=length - 1) * stride
            stride *= length
        return self._tiles.numbers_of(corners).unique()


class Block:
    """Corners in crops of one size, with the values around them.

    Args:
        dataset: a signal on a lattice.
        firsts: (q, D) int64 the first corner of each crop; corner i lies between the cells i and i + 1.
        sides: corners of a crop along each axis.
        widths: cells around a crop along each axis: all, or `_REACH` beyond the corners on both sides.
    """

    def __init__(
        self, dataset: CoordinateDataset, firsts: Tensor, sides: tuple[int, ...], widths: tuple[int, ...]
    ) -> None:
        self._dataset, self._lattice = dataset, dataset.grid_shape or ()
        self._firsts, self._sides, self._widths = firsts, sides, widths
        cells = torch.zeros(len(firsts), *[1] * len(widths), dtype=torch.int64, device=firsts.device)
        for axis, (length, width) in enumerate(zip(self._lattice, widths, strict=True)):
            along = torch.arange(width, device=firsts.device).expand(len(firsts), -1)
            if width < length:
                along = mirrored(along + firsts[:, axis, None] - (_REACH - 1), length)
            cells = cells * length + self._spread(along, axis)
        self._cells = cells
        self._values = dataset.stored32(cells.reshape(-1)).view(*cells.shape, dataset.channels)
        self._unknown: Tensor | None = None
        if dataset.known is not None:
            self._unknown = ~dataset.places(cells)[1]
            if self._unknown.any():
                self._fill(self._unknown)
        self._middle = (self._values.min() / 2 + self._values.max() / 2).item()
        self._values -= self._middle  # weights times a large offset would add up to something else

    @property
    def coordinates(self) -> Tensor:
        """(k, D) float64 coordinates in [−1, 1]^D, in main memory if the device has no float64."""
        count, axes = len(self._firsts), len(self._sides)
        firsts = self._firsts if has_float64(self._firsts.device) else self._firsts.cpu()
        found = torch.zeros(count, *self._sides, axes, dtype=torch.float64, device=firsts.device)
        for axis, (length, side) in enumerate(zip(self._lattice, self._sides, strict=True)):
            if length > 1:
                along = firsts[:, axis, None] + torch.arange(side, device=firsts.device)
                place = (2 * along + 2 - length).to(torch.float64) / length
                found[..., axis] = self._spread(place, axis)
        return found.view(-1, axes)

    def interpolated(self, taps: Tensor) -> Tensor:
        """(k, C) float32 values at the corners, less the dataset's reference, within the range that the dtype holds.

        Args:
            taps: `SPLINE` or `LINEAR`. Beyond its ends a signal goes on as in a mirror.
        """
        found = self._applied(taps, self._values).reshape(-1, self._dataset.channels) + self._middle
        if self._dataset.value_range is None:
            return found
        low, high = self._dataset.value_range
        return found.clamp_(low - self._dataset.reference, high - self._dataset.reference)

    @property
    def weights(self) -> Tensor | None:
        """(k,) float32 how much each corner counts: the mean over its cells; 0 where one of them has weight 0, or one
        of the four nearest along an axis is not known. None where all count the same."""
        found = None
        given = self._dataset.weights_of(self._cells.reshape(-1))
        if given is not None:
            cells = given.view(*self._cells.shape, 1)
            nothing = self._applied(_NEXT, (cells == 0).to(torch.float32)) > 0
            found = self._applied(LINEAR, cells).masked_fill(nothing, 0).reshape(-1)
        if self._unknown is not None:
            near = self._applied(_NEAR, self._unknown[..., None].to(torch.float32)).reshape(-1) > 0
            found = (torch.ones_like(near, dtype=torch.float32) if found is None else found).masked_fill(near, 0)
        return found

    def _applied(self, taps: Tensor, values: Tensor) -> Tensor:
        """(q, *sides, n): sums over the cells around each corner, of (q, *widths, n) values times `taps` along every
        axis."""
        for axis, length in enumerate(self._lattice):
            if length > 1:
                turned = values.movedim(axis + 1, 1)
                product = torch.matmul(self._matrices(taps, axis), turned.flatten(start_dim=2))
                values = product.view(*product.shape[:2], *turned.shape[2:]).movedim(1, axis + 1)
        return values

    def _matrices(self, taps: Tensor, axis: int) -> Tensor:
        """(q, side, width), or (1, side, width) if all crops agree: what each cell around a crop adds to each corner
        along an axis."""
        device, length, width = self._firsts.device, self._lattice[axis], self._widths[axis]
        reach = len(taps) // 2
        cells = torch.arange(self._sides[axis], device=device)[:, None] + torch.arange(
            1 - reach, reach + 1, device=device
        )
        if width < length:
            cells = cells[None] + (_REACH - 1)
        else:  # a short axis is there once, and what a mirror shows of it is added up
            cells = mirrored(cells + self._firsts[:, axis, None, None], length)
        matrices = torch.zeros(*cells.shape[:2], width, device=device)
        return matrices.scatter_add_(2, cells, taps.to(device).expand(cells.shape))

    def _fill(self, unknown: Tensor) -> None:
        """Give what is not known the value of the nearest known cell around the same crop."""
        from scipy.ndimage import distance_transform_edt  # slow to import, and for signals with gaps alone

        for values, hidden in zip(self._values, unknown.cpu().numpy(), strict=True):
            if hidden.all():
                values.zero_()
            elif hidden.any():
                nearest = distance_transform_edt(hidden, return_distances=False, return_indices=True)
                flat = torch.from_numpy(np.ravel_multi_index(tuple(nearest), hidden.shape).ravel()).to(values.device)
                values.copy_(values.reshape(-1, values.shape[-1])[flat].view(values.shape))

    def _spread(self, numbers: Tensor, axis: int) -> Tensor:
        """(q, n) numbers along an axis, in a shape that broadcasts over the other axes of a crop."""
        return numbers.view(len(numbers), *[1] * axis, -1, *[1] * (len(self._sides) - axis - 1))


@METRICS.register("between")
class Between(FieldMetric):
    """PSNR between the samples: at the corners of the cells, against the signal's cubic spline.

    The corners lie half a cell off along every axis that has more than one cell. Of a large signal it rates crops, the
    same each time. Corners near what is not known do not count.
    """

    title = "between"
    unit = "dB"
    leaves_out = True

    @classmethod
    def suits(cls, dataset: CoordinateDataset) -> bool:
        return dataset.grid_shape is not None and max(dataset.grid_shape) > 1

    def measure(self, predictor: Predictor, most: int) -> float | None:
        psnr = _psnr(self.dataset)
        for block in _corners(self.dataset, most):
            places, target, weights = block.coordinates, block.interpolated(SPLINE), block.weights
            if weights is not None:
                counted = weights > 0
                places, target, weights = places[counted.to(places.device)], target[counted], weights[counted]
            if len(places):
                psnr.update(self.dataset.referred(predictor(places)).to(target.device), target, weights)
        return psnr.compute()


def linear_between(dataset: CoordinateDataset, most: int) -> float | None:
    """What linear interpolation of the samples reaches by the metric `between`.

    Args:
        dataset: a signal on a lattice.
        most: most coordinates of an evaluation.
    """
    psnr = _psnr(dataset)
    for block in _corners(dataset, most):
        psnr.update(block.interpolated(LINEAR), block.interpolated(SPLINE), block.weights)
    return psnr.compute()


def _psnr(dataset: CoordinateDataset) -> PSNR:
    return PSNR((len(dataset),), dataset.channels, dataset.peak)


def _corners(dataset: CoordinateDataset, most: int) -> Corners:
    return Corners(dataset, min(_MOST, max(_FEWEST, most // _SHARE)))


_FAR = 6.0
"""dB by which a field is worse between the samples than at them, if it is to be called noise there."""
_FREQUENCIES = ("first_omega", "omega", "sigma", "input_scale", "scale", "octaves", "max_resolution")
"""Options of networks, of which lower ones make a field smoother."""


def noise_between(
    metrics: Mapping[str, float], dataset: CoordinateDataset, most: int, network: Any = None
) -> str | None:
    """A sentence for the user if a field is noise between the samples; None if it is not, or was not rated there.

    It is noise where it is far worse than at the samples, and worse than linear interpolation of them.

    Args:
        metrics: of the field.
        dataset: the signal.
        most: most coordinates of an evaluation.
        network: the options of its network, from which the sentence names one to change.
    """
    at, between = metrics.get("psnr", math.nan), metrics.get("between", math.nan)
    if not between < at - _FAR:
        return None
    linear = linear_between(dataset, most)
    if linear is None or not between < linear:
        return None
    names = field_names(type(network)) if network is not None else set()
    each = network.each if "each" in names else {}
    found = next((name for name in _FREQUENCIES if name in {*names, *each}), None)
    mend = "choose a network of lower frequencies"
    if found in each:
        mend = f"lower network.each.{found}, here {each[found]:.4g}, or raise network.between, here {network.between:g}"
    elif found is not None:
        mend = f"lower network.{found}, here {getattr(network, found):.4g}"
        if "weight_scale" in names and network.weight_scale > 1:
            mend += f", or network.weight_scale, here {network.weight_scale:.4g}"
        if "axis_factors" in names:
            mend += "; network.axis_factors=[0] lowers frequencies to what the samples determine"
    return (
        f"the field is noise between the samples: PSNR {between:.1f} dB there, where linear interpolation has "
        f"{linear:.1f} dB, and {at:.1f} dB at the samples; {mend}"
    )
