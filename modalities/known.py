"""Coordinates whose values are not known: NaN in a file, or zeros of a mask beside it.

They are left out of training and of the range that values span; the field has values there all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from inrkit.errors import DataError
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.decoding import decoding, mapped_array

_ROWS = 1 << 22
"""Values that are looked at in one go."""


def read_mask(path: Path) -> np.ndarray:
    """The array of a mask's .npy.

    Raises:
        DataError: the file is damaged, or no array of numbers.
    """
    if not path.exists():
        raise DataError(f"{path}, the mask, does not exist; check the path")
    with decoding(path, "is not a mask: a NumPy array of numbers, 0 where a value is not known"):
        array = mapped_array(path)
        if array.dtype.kind not in "biuf":
            raise DataError(f"{path}, the mask, is of dtype {array.dtype}; expected numbers, 0 where not known")
        return array


def as_mask(path: Path, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What a mask's file says of a lattice: True where a value is known, which is where the mask is not 0.

    Args:
        path: of the mask, for messages.
        array: its values: of the lattice's shape, or one that spreads over it; a last axis of channels may follow.
        shape: of the lattice.

    Returns:
        Boolean, of as many axes as `shape`, each as long or of length 1.

    Raises:
        DataError: the shapes do not fit each other.
    """
    axes = len(shape)
    for candidate in (array, array[..., 0] if array.ndim > 1 else array):
        fits = candidate.reshape((1,) * (axes - candidate.ndim) + candidate.shape) if candidate.ndim <= axes else None
        if fits is not None and all(one in (1, length) for one, length in zip(fits.shape, shape, strict=True)):
            colours = array[..., :3] if candidate is not array else array[..., None]
            known: np.ndarray = (np.nan_to_num(colours) != 0).any(axis=-1).reshape(fits.shape)
            return known
    raise DataError(
        f"{path}, the mask, has shape {array.shape} and the signal {shape}; expected one that spreads over the signal"
    )


def known_of(values: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray | None:
    """Where all channels are numbers and the mask, if there is one, says that they are known.

    Args:
        values: (*shape, C); those that are not real numbers are never NaN.
        mask: boolean, as `as_mask` gives it.

    Returns:
        Boolean of the lattice's shape, or one that spreads over it; None where everything is known.
    """
    known = mask
    if values.dtype.kind == "f":
        rows = max(1, _ROWS // max(1, values[0].size))
        for start in range(0, len(values), rows):
            numbers = ~np.isnan(values[start : start + rows]).any(axis=-1)
            if not numbers.all():
                if known is None or known.shape != values.shape[:-1]:
                    known = np.broadcast_to(True if known is None else known, values.shape[:-1]).copy()
                known[start : start + rows] &= numbers
    return None if known is None or known.all() else known


def partly_known(values: np.ndarray, known: np.ndarray | None, **arguments: Any) -> CoordinateDataset:
    """The dataset of values of which only those at `known` count.

    Args:
        values: (*shape, C).
        known: as `known_of` gives it.
        arguments: more of CoordinateDataset's.

    Raises:
        DataError: no value is known.
    """
    if known is None:
        return CoordinateDataset(values, **arguments)
    if not known.any():
        raise DataError("no value is known: all are NaN, or the mask is 0 everywhere; check the file and its mask")
    return CoordinateDataset(values, known=known, **arguments)


def share_unknown(known: np.ndarray) -> str:
    """The share of coordinates that are not known, in words: `12.5 %`."""
    return f"{100 * (1 - float(known.mean())):.3g} %"
