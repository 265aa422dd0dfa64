"""What a picture's file says: pixels, and what a file written of them should say again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LOGGERS = ("PIL", "tifffile")
"""Loggers that decoding a picture must not let speak."""

TIFF = (".tif", ".tiff")
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

ALPHA = "premultiplied"
"""Key in what a picture is about: its colours are multiplied with its alpha, the last channel."""

BANDS = "bands"
"""Key in what a picture is about: its last channel is one more measurement, infrared for instance, and no alpha."""

ORIENTATION = 0x0112
# What the tag says of how to turn the stored pixels upright (EXIF 2.32, 4.6.4 A).
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, 3),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}


@dataclass
class Picture:
    """A picture as it is read.

    Args:
        pixels: (H, W) or (H, W, C), upright, in the file's own depth.
        known: (H, W) bool, False where the file says that it has no value; None if it says so nowhere.
        profile: an ICC profile.
        about: what else a file written of it should say, by a key of the room that reads and writes it; plain JSON.
        notes: sentences that a user is told before the fit.
    """

    pixels: np.ndarray
    known: np.ndarray | None = None
    profile: bytes | None = None
    about: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, …) stored pixels as the orientation tag says that they are seen."""
    return np.ascontiguousarray(_UPRIGHT.get(orientation, lambda same: same)(pixels))


def joined(*masks: np.ndarray | None) -> np.ndarray | None:
    """Where all of several masks know a value; None if there are none."""
    given = [mask for mask in masks if mask is not None]
    return np.logical_and.reduce(given) if given else None


def straight(pixels: np.ndarray) -> np.ndarray:
    """(H, W, C) pixels whose colours were multiplied with alpha, the last channel, as they are without it."""
    peak = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else 1
    alpha = pixels[:, :, -1:].astype(np.float64) / peak
    colours = np.divide(pixels[:, :, :-1], alpha, out=np.zeros(pixels[:, :, :-1].shape), where=alpha > 0)
    if pixels.dtype.kind in "iu":
        colours = np.rint(colours).clip(0, peak)
    return np.concatenate([colours.astype(pixels.dtype), pixels[:, :, -1:]], axis=2)
