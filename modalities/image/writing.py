"""Writing pictures in the formats that have no room for any depth: PNG, JPEG, WebP and BMP."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import png
from PIL import Image as Pillow

from inrkit.errors import ConfigError
from inrkit.modalities.image.colour import to_srgb, with_colour
from inrkit.modalities.image.files import PNG
from inrkit.modalities.image.picture import BANDS

MODES = {
    ".png": ("L", "LA", "RGB", "RGBA"),
    ".jpg": ("L", "RGB"),
    ".jpeg": ("L", "RGB"),
    ".webp": ("RGB", "RGBA"),
    ".bmp": ("L", "RGB"),
}
"""Suffixes of the formats, and which of Pillow's modes each holds."""

# JPEG_MAX_DIMENSION of libjpeg, WEBP_MAX_DIMENSION of libwebp.
_LONGEST_SIDE = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}


def write_picture(path: Path, values: np.ndarray, profile: bytes | None, metadata: dict[str, Any]) -> None:
    """(H, W, C) values of 8 or 16 bits, or a mask, in the format that the suffix names.

    Raises:
        ConfigError: the format cannot hold them.
    """
    suffix = path.suffix.lower()
    height, width, channels = values.shape
    mode = None if BANDS in metadata else {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(channels)
    if suffix == ".webp":
        mode = {"L": "RGB", "LA": "RGBA"}.get(mode, mode)
    if mode not in MODES[suffix] or values.dtype not in (np.bool_, np.uint8, np.uint16):
        fits = channels <= 4 and BANDS not in metadata and values.dtype in (np.bool_, np.uint8, np.uint16)
        others = ".png or .tif" if fits else ".npy" if values.dtype.itemsize > 8 else ".tif or .npy"
        raise ConfigError(f"{suffix} cannot hold {channels} channels of {values.dtype}; choose {others}")
    longest = _LONGEST_SIDE.get(suffix)
    if longest is not None and max(height, width) > longest:
        raise ConfigError(
            f"{suffix} cannot hold {height}×{width} pixels, at most {longest} a side; choose .png or .tif"
        )
    encoded = io.BytesIO()  # Pillow does not notice when the system writes only a part of what it is given
    if suffix == ".png" and values.dtype == np.uint16:
        writer = png.Writer(width, height, greyscale=channels < 3, alpha=channels in (2, 4), bitdepth=16)
        writer.write(encoded, values.reshape(height, -1))
    else:
        _encode(encoded, eight_bit(values), profile, suffix)
    content = encoded.getvalue()
    path.write_bytes(with_colour(content, profile, metadata.get(PNG, {})) if suffix == ".png" else content)


def _encode(file: io.BytesIO, values: np.ndarray, profile: bytes | None, suffix: str) -> None:
    picture = Pillow.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    gray = picture.mode in ("L", "LA")
    if profile is not None and (suffix == ".bmp" or (suffix == ".webp" and gray and profile[16:20] == b"GRAY")):
        # These hold no profile, or none of gray.
        seen = to_srgb(picture, profile)
        if seen is not None:
            picture, profile = seen, None
    if suffix == ".webp" and picture.mode in ("L", "LA"):
        picture = picture.convert({"L": "RGB", "LA": "RGBA"}[picture.mode])
    options: dict[str, Any] = {"lossless": True, "exact": True} if suffix == ".webp" else {"quality": 95}
    if suffix == ".png":
        options = {"compress_level": png_level(picture.width * picture.height)}
    elif profile is not None:
        options["icc_profile"] = profile
    picture.save(file, Pillow.registered_extensions()[suffix], **options)


def png_level(pixels: int) -> int:
    """zlib's level for a PNG of so many pixels: where there are many, a quarter of the time for a sixth more bytes."""
    return 2 if pixels > 1 << 22 else 6


def eight_bit(values: np.ndarray) -> np.ndarray:
    """Values of a mask, or of 8 or 16 bits, as the 8 bits that show them."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    return values if values.dtype == np.uint8 else np.rint(values / 257).astype(np.uint8)
