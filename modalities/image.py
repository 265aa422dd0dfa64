"""Images: everything Pillow reads, 16 bits a channel without loss, float TIFF, and NumPy arrays.

Rows are the first axis and columns the second; pixel centres are at whole numbers of the physical unit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import png
import tifffile
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from inrkit.dataset import CoordinateDataset, cell_affine
from inrkit.errors import ConfigError, DataError
from inrkit.modality import MODALITIES, Modality

LUMA = (0.2989, 0.587, 0.114)
"""What EVOS's Laplacian acts on: the luma of ITU-R BT.601."""

_CHANNEL_WEIGHTS = {1: (1.0,), 2: (1.0, 0.0), 3: LUMA, 4: (*LUMA, 0.0)}
_MOST_CHANNELS = 16
_TIFF = (".tif", ".tiff")

# EXIF tag 0x0112: how to turn the stored pixels upright (EXIF 2.32, 4.6.4 A).
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
class ImageOptions:
    pass


@MODALITIES.register("image")
class Image(Modality):
    """Photos and other pictures on a 2-D lattice."""

    Options = ImageOptions
    operator = "laplacian"
    metrics = ("psnr", "ssim", "ms_ssim")

    def read(self, path: Path) -> CoordinateDataset:
        pixels = _read_array(path) if path.suffix.lower() == ".npy" else _read_picture(path)
        squeezed = pixels.ndim == 2
        if squeezed:
            pixels = pixels[:, :, None]
        if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= _MOST_CHANNELS or pixels.size == 0:
            raise DataError(
                f"{path} has shape {pixels.shape}; an image is (height, width) or (height, width, channels) "
                f"with at most {_MOST_CHANNELS} channels, last"
            )
        return CoordinateDataset(
            pixels,
            affine=cell_affine(pixels.shape[:2]),
            channel_weights=_CHANNEL_WEIGHTS.get(pixels.shape[2]),
            metadata={
                "squeezed": squeezed,
                "suffix": path.suffix.lower(),
                "channels": pixels.shape[2],
            },
        )

    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        suffix = path.suffix.lower()
        if suffix == ".npy":
            np.save(path, values[:, :, 0] if metadata.get("squeezed") else values)
        elif suffix in _TIFF:
            photometric = "rgb" if values.shape[2] in (3, 4) else "minisblack"
            tifffile.imwrite(path, values, photometric=photometric, planarconfig="contig")
        elif suffix == ".png" and values.dtype == np.uint16 and values.shape[2] <= 4:
            height, width, channels = values.shape
            writer = png.Writer(width, height, greyscale=channels < 3, alpha=channels in (2, 4), bitdepth=16)
            with path.open("wb") as file:
                writer.write(file, values.reshape(height, -1))
        elif suffix in _PILLOW_MODES:
            _write_picture(path, values, suffix)
        else:
            known = ", ".join([*_PILLOW_MODES, *_TIFF, ".npy"])
            raise ConfigError(f"{path.name}: images are not written as '{suffix}'; choose one of: {known}")

    def reconstruction_suffix(self, metadata: dict[str, Any], dtype: np.dtype) -> str:
        if dtype in (np.uint8, np.uint16) and metadata["channels"] <= 4:
            return ".png"
        return ".tif" if metadata["suffix"] in _TIFF else ".npy"

    def sample(self, path: Path) -> None:
        self.write(path, sample_picture(256), {})


_PILLOW_MODES = {
    ".png": ("L", "LA", "RGB", "RGBA"),
    ".jpg": ("L", "RGB"),
    ".jpeg": ("L", "RGB"),
    ".webp": ("RGB", "RGBA"),
    ".bmp": ("L", "RGB"),
}


def sample_picture(size: int) -> np.ndarray:
    """A picture with smooth shading, hard edges and fine texture: (size, size, 3) uint8, always the same."""
    axis = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(axis, axis, indexing="ij")
    sky = np.stack([0.35 + 0.5 * y, 0.55 + 0.3 * y, 0.9 - 0.25 * y], axis=-1)
    sun = np.clip((0.11 - np.hypot(x - 0.72, y - 0.24)) * 120, 0, 1)[..., None]
    picture = sky * (1 - sun) + sun * np.array([1.0, 0.93, 0.7])
    random = np.random.default_rng(7)
    for layer, (height, shade) in enumerate([(0.45, 0.62), (0.58, 0.45), (0.72, 0.28)]):
        ridge = np.full(size, height)
        for octave in range(1, 8):
            frequency, phase = 1.7**octave * (1 + 0.3 * layer), random.uniform(0, 2 * np.pi)
            ridge += 0.11 / 1.7**octave * np.sin(2 * np.pi * frequency * axis + phase)
        grain = np.sin(130 * x + 9 * np.sin(17 * y)) * np.sin(150 * y + 7 * np.sin(13 * x + layer))
        tone = shade * np.array([0.75, 0.95, 1.05]) + 0.05 * grain[..., None] * (layer + 1)
        below = np.clip((y - ridge) * size, 0, 1)[..., None]
        picture = picture * (1 - below) + tone * below
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _read_array(path: Path) -> np.ndarray:
    try:
        # Copy-on-write: pages come from the file as they are needed, and nothing is written back.
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is not a NumPy array of numbers, or is truncated: {error}") from error


def _read_picture(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            with Pillow.open(path) as picture:
                pixels = _deep_pixels(path, picture)
                if pixels is None:
                    picture.load()
                    pixels = np.asarray(picture.convert(_plain_mode(picture)))
                orientation = picture.getexif().get(0x0112, 1)
        return np.ascontiguousarray(_UPRIGHT.get(orientation, lambda same: same)(pixels))
    except UnidentifiedImageError as error:
        if path.suffix.lower() in _TIFF:
            return _read_tiff(path)
        raise DataError(f"{path} is not an image that Pillow can read; check that it opens elsewhere") from error
    except Pillow.DecompressionBombError as error:
        raise DataError(f"{path} is too large to decode; save it as .npy, which is read from disk") from error
    except (OSError, SyntaxError, ValueError, png.Error) as error:
        if isinstance(error, PermissionError):
            raise
        raise DataError(f"{path} is damaged or truncated: {error}") from error


def _deep_pixels(path: Path, picture: Pillow.Image) -> np.ndarray | None:
    """Pixels of a colour or alpha image with 16 bits a channel, of which Pillow keeps 8; None for all others."""
    if picture.format == "PNG":
        with path.open("rb") as file:
            header = file.read(26)
        if header[24] == 16 and header[25] != 0:
            width, height, rows, info = png.Reader(filename=str(path)).asDirect()
            pixels = np.empty((height, width * info["planes"]), dtype=np.uint16)
            for number, row in enumerate(rows):
                pixels[number] = row
            return pixels.reshape(height, width, info["planes"])
    if picture.format == "TIFF" and hasattr(picture, "tag_v2"):
        bits = picture.tag_v2.get(258, 8)
        if isinstance(bits, tuple) and len(bits) > 1 and max(bits) > 8:
            return _read_tiff(path)
    return None


def _read_tiff(path: Path) -> np.ndarray:
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            pixels = page.asarray()
            planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3
        return np.moveaxis(pixels, 0, -1) if planar else pixels
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError, RuntimeError) as error:
        raise DataError(f"{path} is a TIFF that cannot be read: {error}") from error


def _plain_mode(picture: Pillow.Image) -> str:
    """The mode to convert to: as few channels as show what the picture's own mode shows."""
    mode = picture.mode
    if mode.startswith("I;16") or mode in ("I", "F", "L", "LA", "RGB", "RGBA"):
        transparent = "transparency" in picture.info
        return {"L": "LA", "RGB": "RGBA"}.get(mode, mode) if transparent else mode
    if mode in ("P", "PA"):
        return "RGBA" if mode == "PA" or "transparency" in picture.info else "RGB"
    return {"1": "L", "La": "LA", "RGBa": "RGBA"}.get(mode, "RGB")


def _write_picture(path: Path, values: np.ndarray, suffix: str) -> None:
    channels = values.shape[2]
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(channels)
    if suffix == ".webp" and mode in ("L", "LA"):
        mode = {"L": "RGB", "LA": "RGBA"}[mode]
        values = values[:, :, (0, 0, 0, 1) if channels == 2 else (0, 0, 0)]
    if values.dtype == np.uint16:
        values = np.rint(values / 257).astype(np.uint8)
    if mode not in _PILLOW_MODES[suffix] or values.dtype != np.uint8:
        raise ConfigError(
            f"{path.name}: {suffix} cannot hold {channels} channels of {values.dtype}; choose "
            f"{'.png' if values.dtype == np.uint8 and channels <= 4 else '.tif or .npy'}"
        )
    picture = Pillow.fromarray(values[:, :, 0] if channels == 1 and mode == "L" else values)
    picture.save(path, **({"lossless": True} if suffix == ".webp" else {"quality": 95}))
