"""Neighbourhood: where a signal's coordinates lie, and which of them is near a place."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrkit.signals.dataset import CoordinateDataset


class Neighbourhood:
    """The places of N coordinates in [−1, 1]^D, without their values.

    Args:
        dataset: whose coordinates they are.
    """

    def __init__(self, dataset: CoordinateDataset) -> None:
        self._dataset = dataset

    @property
    def dimensions(self) -> int:
        """D."""
        return self._dataset.dimensions

    @property
    def lattice(self) -> tuple[int, ...] | None:
        """Lengths of the lattice's D axes; None for free points."""
        return self._dataset.grid_shape

    @property
    def spacing(self) -> tuple[float, ...]:
        """D typical distances between neighbours: of the cells of a lattice, or of as many points spread evenly."""
        if self.lattice is None:
            return (2 / len(self._dataset) ** (1 / self.dimensions),) * self.dimensions
        return tuple(2 / length for length in self.lattice)

    def coordinates(self, indices: Tensor) -> Tensor:
        """(k, D) float32 places of (k,) `indices`."""
        return self._dataset.coordinates(indices)

    def nearest(self, positions: Tensor) -> Tensor:
        """(k,) int64 indices of the coordinates nearest to (k, D) positions, which may lie outside [−1, 1]^D."""
        if self.lattice is None:
            _, near = self.tree.query(positions.cpu().numpy(), workers=-1)
            return torch.from_numpy(np.asarray(near)).to(self._dataset.device, torch.int64)
        indices = torch.zeros(len(positions), dtype=torch.int64, device=positions.device)
        for axis, length in enumerate(self.lattice):
            cell = ((positions[:, axis].to(torch.float64) + 1) * (length / 2)).floor().to(torch.int64)
            indices = indices * length + cell.clamp(0, length - 1)
        return indices

    @cached_property
    def tree(self) -> Any:
        """A scipy KDTree of the coordinates."""
        from scipy.spatial import KDTree

        return KDTree(self._dataset.coordinates(slice(0, len(self._dataset))).cpu().numpy())
