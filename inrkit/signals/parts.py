"""Part: a box of a signal on a lattice that knows where in the whole it lies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.lattice import lattice_coordinates, places_of

MARGIN = 16
"""Cells around a part, beyond its tiles' overlap, that are kept too. They make the cubic spline the whole signal's, to
1e-7 of a value, since its coefficients depend on samples k cells away by 0.268ᵏ."""


class Part(CoordinateDataset):
    """The cells of a box, with the coordinates that they have in the whole signal.

    Its values are a copy, so that nothing else of a memory map is touched. PSNR refers to the whole signal's range.

    Args:
        dataset: the whole signal, on a lattice.
        start: the box's first cell along each axis.
        stop: the cell after its last one.
        margin: cells around it that `around` holds too.

    Raises:
        DataError: nothing in the box is known.
    """

    def __init__(
        self, dataset: CoordinateDataset, start: Sequence[int], stop: Sequence[int], margin: int = MARGIN
    ) -> None:
        lattice = dataset.grid_shape
        assert lattice is not None
        box = tuple(slice(first, end) for first, end in zip(start, stop, strict=True))
        known = None if dataset.known is None else known_inside(dataset.known, lattice, box)
        super().__init__(
            dataset.stored_array()[box].copy(),
            affine=dataset.affine,
            channel_weights=tuple(dataset.channel_weights.tolist()),
            known=known,
            full_scale=dataset.full_scale,
        )
        if dataset.weights is not None:  # as they are in the whole, where their mean is 1
            self.weights = dataset.weights[box]
        if dataset.value_range is None or not dataset.full_scale:
            self.extent = dataset.extent
        self._whole, self._origin = lattice, tuple(start)
        self._around: CoordinateDataset = self
        if margin:
            below = [max(0, first - margin) for first in start]
            above = [min(length, end + margin) for end, length in zip(stop, lattice, strict=True)]
            self._around = Part(dataset, below, above, margin=0)

    @property
    def whole(self) -> tuple[int, ...]:
        return self._whole

    @property
    def origin(self) -> tuple[int, ...]:
        return self._origin

    @property
    def around(self) -> CoordinateDataset:
        return self._around

    def coordinates(self, indices: Tensor | slice, dtype: torch.dtype = torch.float32) -> Tensor:
        if isinstance(indices, slice):
            indices = torch.arange(*indices.indices(len(self)), device=self.device)
        assert self.grid_shape is not None
        cells = torch.zeros_like(indices)
        places = places_of(indices, self.grid_shape)
        for place, first, length in zip(places, self._origin, self._whole, strict=True):
            cells = cells * length + (place + first)
        return lattice_coordinates(cells, self._whole, dtype)

    def to(self, device: torch.device, values: bool = True) -> CoordinateDataset:
        moved = super().to(device, values)
        assert isinstance(moved, Part)
        moved._around = moved if self._around is self else self._around.to(device, values)
        return moved


def known_inside(known: Tensor, lattice: tuple[int, ...], box: tuple[slice, ...]) -> np.ndarray:
    """(*box) bool, which of the listed cells lie where in a box."""
    row = math.prod(lattice[1:])
    # Only the known of the box's rows are looked at.
    first, last = torch.searchsorted(known, torch.tensor([box[0].start * row, box[0].stop * row]).to(known.device))
    places = np.unravel_index(known[first:last].cpu().numpy(), lattice)
    held = np.ones(len(places[0]), dtype=bool)
    for place, each in zip(places, box, strict=True):
        held &= (place >= each.start) & (place < each.stop)
    found = np.zeros([each.stop - each.start for each in box], dtype=bool)
    found[tuple(place[held] - each.start for place, each in zip(places, box, strict=True))] = True
    return found
