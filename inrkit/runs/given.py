"""Signals given in Python: arrays, tensors, pictures, scattered samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrkit.errors import DataError
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.scattered import scattered

_CHANNELS = 4
"""Longest last axis of an array that is taken for the channels of a picture or a video."""

_PLAIN_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "I", "F")
"""Modes of PIL images whose numbers are brightness."""


def signal_of(target: Any, points: Any = None, values: Any = None) -> tuple[CoordinateDataset | np.ndarray, str]:
    """The signal that a user gave, and its modality.

    Args:
        target: a CoordinateDataset, or anything that numpy can make an array of: a tensor, a PIL image.
        points: (N, D) places of scattered samples, instead of a target.
        values: (N,) or (N, C) values there.

    Raises:
        DataError: nothing was given, or an object of another kind or shape.
    """
    if points is not None or values is not None:
        if target is not None or points is None or values is None:
            raise DataError("scattered samples are points and values; give both, and no other signal")
        if isinstance(values, np.ma.MaskedArray):
            kept = ~np.ma.getmaskarray(values).reshape(len(values), -1).any(axis=1)
            points, values = _array(points, "points")[kept], np.ma.getdata(values)[kept]
        return scattered(_array(points, "points"), _array(values, "values")), "array"
    if isinstance(target, CoordinateDataset):
        return target, "array"
    names = _columns(target)
    if names:
        raise DataError(
            f"the signal is a table with the columns {', '.join(names[:8])}{', …' if len(names) > 8 else ''}; give "
            "points=table[[…]] and values=table[[…]] with the names of some, or its numbers alone as an array"
        )
    array = _array(target, "the signal")
    shape = array.shape
    if array.ndim == 0 or array.dtype.kind not in "biufc":
        raise DataError(
            f"the signal is {type(target).__name__} of shape {shape} and dtype {array.dtype}; give a file's path, an "
            "array of numbers, a PIL image, a CoordinateDataset, or points=… and values=…"
        )
    if array.ndim == 1:
        return array, "audio"
    if array.ndim == 2 or (array.ndim == 3 and shape[-1] <= _CHANNELS):
        return array, "image"
    return array, "video" if array.ndim == 4 and shape[-1] <= _CHANNELS else "volume"


def require_clear(array: np.ndarray) -> None:
    """Refuse an array that `signal_of` takes for a volume, and that looks like a picture with its channels first.

    Raises:
        DataError: it is such an array; says how to tell which of the two is meant.
    """
    if array.ndim == 3 and array.shape[0] == 3 and min(array.shape[1:]) > _CHANNELS:
        raise DataError(
            f"an array of shape {array.shape} may be a picture with its channels first, or a volume; give the picture "
            "as (H, W, 3), or say modality='volume'"
        )


def without_mask(target: Any) -> tuple[Any, np.ndarray | None]:
    """A masked array as a plain one, and where it is known; another target as it is.

    What is masked becomes NaN where the type has it, and otherwise some value that is known: it is not to be read.

    Raises:
        DataError: all is masked.
    """
    if not isinstance(target, np.ma.MaskedArray):
        return target, None
    array, known = np.ma.getdata(target), ~np.ma.getmaskarray(target)
    if known.all():
        return array, None
    if not known.any():
        raise DataError("all of the masked array is masked; give one with values")
    return np.where(known, array, np.array(np.nan if array.dtype.kind in "fc" else array[known][0], array.dtype)), known


def restricted(dataset: CoordinateDataset, known: np.ndarray) -> CoordinateDataset:
    """What a modality made of an array, with that known which the array's mask left.

    Args:
        dataset: it may know already what NaN says.
        known: of the array's shape: the lattice's, or with an axis of channels more.

    Raises:
        DataError: the dataset has another shape than the array.
    """
    if dataset.known is not None:
        return dataset
    if known.ndim > len(dataset.grid_shape or ()):
        known = np.asarray(known.all(axis=-1))
    return dataset.only(known)


def _array(value: Any, what: str) -> np.ndarray:
    if value is None:
        raise DataError("no signal is given; give a file's path, an array, or points=… and values=…")
    if isinstance(value, Tensor):
        return _numbers(value, what)
    if type(value).__module__.startswith("PIL.") and value.mode not in _PLAIN_MODES:
        value = value.convert("RGBA" if value.has_transparency_data else "RGB")  # numbers of a palette say nothing
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what} cannot be made an array: {error}") from error


def _numbers(tensor: Tensor, what: str) -> np.ndarray:
    """A tensor's numbers; those of a type that numpy lacks, such as bfloat16, as float32."""
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    try:
        return tensor.numpy(force=True)
    except (RuntimeError, TypeError) as error:
        raise DataError(
            f"{what} is a tensor of {tensor.dtype}, {tensor.layout}; give a dense one of numbers"
        ) from error


def _columns(target: Any) -> list[str]:
    """Names of the columns of a table, as pandas, polars and pyarrow have them; of another object none."""
    return [name for name in getattr(target, "column_names", getattr(target, "columns", ())) if isinstance(name, str)]
