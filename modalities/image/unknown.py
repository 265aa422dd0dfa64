"""Pixels that are not known: where they are, and how the engine is told."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.errors import DataError
from inrkit.signals.dataset import CoordinateDataset


def dataset_of(values: np.ndarray, known: np.ndarray | None, **about: Any) -> CoordinateDataset:
    """A dataset of values of which some may not be known: the one place that tells the engine so.

    Args:
        values: (*grid_shape, C).
        known: bool, broadcast over the lattice; None if all are.
        about: further arguments of `CoordinateDataset`.
    """
    if known is None:
        return CoordinateDataset(values, **about)
    # What is not known counts nothing, and stands within the range of what is.
    return CoordinateDataset(filled(values, known), weights=known.astype(np.float32), **about)


def filled(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """A copy of (*shape, C) values with the mean of the known ones, channel by channel, in place of the others."""
    means = values[known].mean(axis=0, dtype=np.float64)
    result = values.copy()
    result[~known] = np.rint(means) if values.dtype.kind in "iub" else means
    return result


def joined(*masks: np.ndarray | None) -> np.ndarray | None:
    """Where all of several masks know a value; None where that is everywhere."""
    given = [mask for mask in masks if mask is not None]
    known = np.logical_and.reduce(given) if given else None
    return None if known is None or known.all() else known


def finite(values: np.ndarray) -> np.ndarray | None:
    """(*shape,) bool, where all channels are numbers; None for dtypes that hold nothing else."""
    return np.isfinite(values).all(axis=-1) if values.dtype.kind in "fc" else None


def mask_of(path: Path, pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What a mask's pixels say is known: what is brighter than half of the brightest.

    Args:
        path: of the mask, for the message.
        pixels: (H, W) or (H, W, C); alpha does not count.
        shape: (H, W) of the picture that it is a mask of.

    Raises:
        DataError: it is of another size.
    """
    if pixels.ndim == 3:
        pixels = pixels[:, :, : pixels.shape[2] - (pixels.shape[2] in (2, 4))].mean(axis=2)
    if pixels.shape != shape:
        raise DataError(
            f"mask {path} has shape {pixels.shape}, and the picture {shape}; give one of the picture's height and width"
        )
    return np.nan_to_num(pixels.astype(np.float64)) > np.nanmax(pixels.astype(np.float64)) / 2


def described(known: np.ndarray) -> dict[str, Any]:
    """Where a signal is not known, as JSON can hold it; `unknown_of` gives it back."""
    packed = base64.b64encode(zlib.compress(np.packbits(~known).tobytes())).decode()
    return {"count": int((~known).sum()), "shape": list(known.shape), "packed": packed}


def unknown_of(metadata: dict[str, Any]) -> np.ndarray | None:
    """(*grid_shape,) bool, True where the signal that was read was not known; None if it was known everywhere."""
    about = metadata.get("unknown")
    if about is None:
        return None
    bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(about["packed"])), dtype=np.uint8))
    return bits[: int(np.prod(about["shape"]))].reshape(about["shape"]).astype(bool)
