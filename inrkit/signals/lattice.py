"""Lattices: where their cells lie, and how they are gone through."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

_EXACT = 1 << 24
"""Length of an axis up to which float32 holds 2i + 1 − n; above it, neighbours would share a coordinate."""


def lattice_coordinates(indices: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Coordinates of lattice points: the centres of the cells that divide [−1, 1] along each axis.

    Cell i of n lies at (2i + 1 − n) / n, so that rendering at another resolution covers the same extent and an
    axis of length 1 lies at 0.

    Args:
        indices: (…,) int64, in C order over `shape`.
        shape: lengths of the D axes.

    Returns:
        (…, D) float32 in (−1, 1), axes in the order of `shape`.
    """
    coordinates = torch.empty(*indices.shape, len(shape), dtype=torch.float32, device=indices.device)
    for axis in range(len(shape) - 1, -1, -1):
        length = shape[axis]
        along = indices if axis == 0 else indices % length
        indices = indices if axis == 0 else torch.div(indices, length, rounding_mode="floor")
        centred = 2 * along + (1 - length)
        if length > _EXACT:
            centred = centred.to(torch.float64)
        torch.div(centred, length, out=coordinates[..., axis])
    return coordinates


def cell_affine(shape: tuple[int, ...]) -> np.ndarray:
    """The affine map from [−1, 1]^D to cell indices: cell i of n, its centre, is at i.

    Returns:
        (D, D + 1) float64, to be applied as `affine[:, :D] @ coordinate + affine[:, D]`.
    """
    return np.array(
        [
            [length / 2 if axis == other else 0.0 for other in range(len(shape))] + [(length - 1) / 2]
            for axis, length in enumerate(shape)
        ]
    )


def slabs(shape: tuple[int, ...], size: int) -> Iterator[slice]:
    """Index ranges of whole rows along the first axis, of about `size` coordinates each."""
    row = math.prod(shape[1:])
    rows = max(1, size // row)
    for first in range(0, shape[0], rows):
        yield slice(first * row, min(first + rows, shape[0]) * row)
