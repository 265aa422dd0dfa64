"""Comparing signals where they lie: two files of one scene need not have the same extent, nor the same lattice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inrkit.device import mean, wide
from inrkit.signals.bends import Bends
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.embeddings import Embedding, IdentityOptions

COUNTED = ("cell", "pixel")
"""Units that count a lattice's own cells: equal numbers of them are no equal places on another lattice."""

_EDGE = 1 + 1e-6
_CHUNK = 1 << 20
_NONE = Bends({})


def map_between(
    source: np.ndarray, source_units: Sequence[str], target: np.ndarray, target_units: Sequence[str]
) -> np.ndarray | None:
    """The (D, D + 1) map from a source's coordinates in [−1, 1]^D to those of the same places in a target.

    An axis whose units differ, or count cells, is taken to have the same extent in both.

    Args:
        source: (D, D + 1) map from [−1, 1]^D to the source's physical units.
        source_units: D names, those of its axes; none if they are not known.
        target: as `source`.
        target_units: likewise.

    Returns:
        None where both have the same extent.
    """
    dimensions = len(source)
    one, other = np.eye(dimensions, dimensions + 1), np.eye(dimensions, dimensions + 1)
    for row, (unit, same) in enumerate(zip(source_units, target_units, strict=False)):
        if unit == same and unit not in COUNTED:
            one[row], other[row] = source[row], target[row]
    inverse = np.linalg.inv(other[:, :-1])
    found = np.column_stack([inverse @ one[:, :-1], inverse @ (one[:, -1] - other[:, -1])])
    return None if np.allclose(found, np.eye(dimensions, dimensions + 1), rtol=0, atol=1e-9) else found


class Placed(Embedding):
    """An embedding of the coordinates that a map between two signals gives.

    Args:
        embedding: of (…, D) coordinates.
        affine, bends: as for `mapped`, to be applied before it.
    """

    Options = IdentityOptions

    def __init__(self, embedding: Embedding, affine: np.ndarray, bends: tuple[Bends, Bends]) -> None:
        super().__init__(IdentityOptions(), embedding.dimensions)
        self._embedding, self._affine, self._bends = embedding, affine, bends

    @property
    def features(self) -> int:
        return self._embedding.features

    def __call__(self, coordinates: Tensor) -> Tensor:
        return self._embedding(mapped(coordinates, self._affine, self._bends))


def mapped(coordinates: Tensor, affine: np.ndarray, bends: tuple[Bends, Bends] = (_NONE, _NONE)) -> Tensor:
    """(…, D) float32 coordinates of the same places in another signal.

    Args:
        coordinates: (…, D) in [−1, 1]^D.
        affine: (D, D + 1), between the even coordinates of both.
        bends: of the signal whose coordinates they are, and of the other.
    """
    places = bends[0].straightened(wide(coordinates)) if bends[0] else wide(coordinates)
    matrix = torch.as_tensor(affine[:, :-1].T.copy(), device=places.device)
    offset = torch.as_tensor(affine[:, -1].copy(), device=places.device)
    even = places @ matrix + offset
    return (bends[1].bent(even) if bends[1] else even).to(torch.float32).to(coordinates.device)


def leave_out_beyond(
    dataset: CoordinateDataset, affine: np.ndarray, bends: tuple[Bends, Bends] = (_NONE, _NONE)
) -> float:
    """Give coordinates that a map, as for `mapped`, takes out of [−1, 1]^D the weight 0; returns their share."""
    inside = torch.cat(
        [
            (mapped(dataset.coordinates(slice(start, start + _CHUNK)), affine, bends).abs() <= _EDGE).all(dim=-1)
            for start in range(0, len(dataset), _CHUNK)
        ]
    )
    share = 1 - mean(inside)
    if 0 < share < 1:
        weights = inside.to(torch.float32).view(dataset.grid_shape or (len(dataset),))
        weights = weights if dataset.weights is None else weights * dataset.weights
        average = mean(weights)
        if average == 0:
            return 1.0
        dataset.weights = weights / average
    return share
