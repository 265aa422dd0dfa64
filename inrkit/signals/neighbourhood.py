"""Neighbourhood: where a signal's coordinates lie, and which of them is nearest to a position."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrkit.device import wide
from inrkit.signals.dataset import CoordinateDataset

_BOX = 1 << 12
"""Cells of a box whose coordinates `order` puts next to each other."""


class Neighbourhood:
    """The places of N coordinates in [−1, 1]^D, without their values.

    Args:
        dataset: whose coordinates they are; the known ones, where a part is not.
    """

    def __init__(self, dataset: CoordinateDataset) -> None:
        self._dataset = dataset

    @property
    def dimensions(self) -> int:
        """D."""
        return self._dataset.dimensions

    @property
    def lattice(self) -> tuple[int, ...] | None:
        """Lengths of the D axes of the lattice that the coordinates fill; None for free points, and where a part of the
        lattice is not known."""
        return self._dataset.grid_shape if self._dataset.known is None else None

    @property
    def spacing(self) -> tuple[float, ...]:
        """D typical distances between neighbours: of the cells of a lattice, or of as many points spread evenly."""
        if self._dataset.grid_shape is None:
            return (2 / len(self._dataset) ** (1 / self.dimensions),) * self.dimensions
        return tuple(2 / length for length in self._dataset.grid_shape)

    def coordinates(self, indices: Tensor | slice) -> Tensor:
        """(k, D) float32 places of (k,) `indices`."""
        return self._dataset.coordinates(self._cells(indices))

    def nearest(self, positions: Tensor) -> Tensor:
        """(k,) int64 indices of the coordinates nearest to (k, D) positions, which may lie outside [−1, 1]^D."""
        if self._dataset.grid_shape is None:
            return self._nearest_in_tree(positions)
        indices = torch.zeros(len(positions), dtype=torch.int64, device=positions.device)
        for axis, length in enumerate(self._dataset.grid_shape):
            cell = ((wide(positions[:, axis]) + 1) * (length / 2)).floor().to(torch.int64).to(positions.device)
            indices = indices * length + cell.clamp(0, length - 1)
        if self._dataset.known is None:
            return indices
        places, known = self._dataset.places(indices)
        if not known.all():
            places[~known] = self._nearest_in_tree(positions[~known])
        return places

    @cached_property
    def order(self) -> Tensor | None:
        """(N,) int64 indices of all coordinates, those of a small box of the lattice next to each other, where a part
        of the lattice is not known; None elsewhere."""
        shape, cells = self._dataset.grid_shape, self._dataset.known
        if shape is None or cells is None:
            return None
        side = max(1, round(_BOX ** (1 / len(shape))))
        boxes, count, stride = torch.zeros_like(cells), 1, 1
        for length in reversed(shape):
            along = torch.div(cells, stride, rounding_mode="floor") % length
            boxes += torch.div(along, side, rounding_mode="floor") * count
            count *= -(-length // side)
            stride *= length
        return boxes.argsort(stable=True)

    @cached_property
    def tree(self) -> Any:
        """A scipy KDTree of the coordinates."""
        from scipy.spatial import KDTree

        return KDTree(self.coordinates(slice(None)).cpu().numpy())

    def _nearest_in_tree(self, positions: Tensor) -> Tensor:
        _, near = self.tree.query(positions.cpu().numpy(), workers=-1)
        return torch.from_numpy(np.asarray(near)).to(self._dataset.device, torch.int64)

    def _cells(self, indices: Tensor | slice) -> Tensor | slice:
        """The dataset's indices of these."""
        return indices if self._dataset.known is None else self._dataset.known[indices]
