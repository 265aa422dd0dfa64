"""Images: everything Pillow reads, 16 bits a channel without loss, float TIFF, and NumPy arrays.

Rows are the first axis and columns the second; pixel centres are at whole numbers of the physical unit.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import png
import tifffile
from PIL import Image as Pillow
from PIL import TiffImagePlugin, UnidentifiedImageError

from inrkit.errors import ConfigError, DataError
from inrkit.plugins.options import option
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.decoding import decoding, mapped_array
from inrkit.signals.lattice import cell_affine
from inrkit.signals.modality import MODALITIES, Modality

LUMA = (0.2989, 0.587, 0.114)
"""What EVOS's Laplacian acts on: the luma of ITU-R BT.601."""

CHANNEL_WEIGHTS = {1: (1.0,), 2: (1.0, 0.0), 3: LUMA, 4: (*LUMA, 0.0)}
LOGGERS = ("PIL", "tifffile")
"""Loggers that decoding a picture must not let speak."""

_MOST_CHANNELS = 16
_TIFF = (".tif", ".tiff")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_CODED_COLOURS = tuple(tifffile.PHOTOMETRIC[name] for name in ("PALETTE", "YCBCR", "CIELAB", "ICCLAB", "ITULAB"))

_ORIENTATION = 0x0112
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
class ImageOptions:
    longest: int = option(0, at_least=0)
    """Pixels of the longer side to which a larger picture is reduced (Lanczos) as it is read; 0 leaves it."""


@MODALITIES.register("image")
class Image(Modality):
    """Photos and other pictures on a 2-D lattice."""

    Options = ImageOptions
    operator = "laplacian"
    metrics = ("psnr", "ssim", "ms_ssim")
    sample_suffix = ".png"

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether a file is one picture: an array of two axes, or of three with at most 4 channels last; a TIFF of
        a single page."""
        suffix = path.suffix.lower()
        if suffix == ".npy":
            shape = np.load(path, mmap_mode="r").shape
            return len(shape) == 2 or (len(shape) == 3 and shape[2] <= 4)
        if suffix in _TIFF:
            with decoding(path, "is damaged or truncated", *LOGGERS), tifffile.TiffFile(path) as file:
                series = file.series[0]
                lengths = zip(series.axes, series.shape, strict=True)
                return math.prod(length for axis, length in lengths if axis not in "YXS") == 1
        return True

    def read(self, path: Path) -> CoordinateDataset:
        pixels = _read_array(path) if path.suffix.lower() == ".npy" else read_picture(path)
        if pixels.size == 0:
            raise DataError(f"{path} has shape {pixels.shape}, so no pixels; check how it was written")
        if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] > _MOST_CHANNELS):
            raise DataError(
                f"{path} has shape {pixels.shape}; an image is (height, width) or (height, width, channels) "
                f"with at most {_MOST_CHANNELS} channels, last"
            )
        squeezed = pixels.ndim == 2
        if squeezed:
            pixels = pixels[:, :, None]
        if 0 < self.options.longest < max(pixels.shape[:2]):
            pixels = _reduced(pixels, self.options.longest)
        return CoordinateDataset(
            pixels,
            affine=cell_affine(pixels.shape[:2]),
            channel_weights=CHANNEL_WEIGHTS.get(pixels.shape[2]),
            metadata={
                "squeezed": squeezed,
                "suffix": path.suffix.lower(),
                "channels": pixels.shape[2],
            },
        )

    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        suffix = path.suffix.lower()
        if suffix == ".npy":
            with path.open("wb") as file:
                np.save(file, values[:, :, 0] if metadata.get("squeezed") else values)
        elif suffix in _TIFF:
            _write_tiff(path, values)
        elif suffix == ".png" and values.dtype == np.uint16 and values.shape[2] <= 4:
            height, width, channels = values.shape
            writer = png.Writer(width, height, greyscale=channels < 3, alpha=channels in (2, 4), bitdepth=16)
            with path.open("wb") as file:
                writer.write(file, values.reshape(height, -1))
        elif suffix in _PILLOW_MODES:
            _write_picture(path, values, suffix)
        else:
            known = ", ".join([*_PILLOW_MODES, *_TIFF, ".npy"])
            written = f"as '{suffix}'" if suffix else "without a suffix"
            raise ConfigError(f"images are not written {written}; choose one of: {known}")

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
# JPEG_MAX_DIMENSION of libjpeg, WEBP_MAX_DIMENSION of libwebp.
_LONGEST_SIDE = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}


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


def _reduced(pixels: np.ndarray, longest: int) -> np.ndarray:
    """(H, W, C) pixels to the size at which the longer side has `longest`."""
    height, width = pixels.shape[:2]
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if pixels.dtype == np.uint8:
        channels = [Pillow.fromarray(channel) for channel in np.moveaxis(pixels, 2, 0)]
    else:
        channels = [Pillow.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(pixels, 2, 0)]
    reduced = np.stack([np.asarray(channel.resize(size, Pillow.Resampling.LANCZOS)) for channel in channels], axis=2)
    if reduced.dtype != pixels.dtype and pixels.dtype.kind in "iub":
        low, high = float(pixels.min()), float(pixels.max())  # Lanczos overshoots at edges
        reduced = np.rint(reduced).clip(low, high)
    return reduced.astype(pixels.dtype)


def _read_array(path: Path) -> np.ndarray:
    with decoding(path, "is not a NumPy array of numbers, or is damaged", *LOGGERS):
        return mapped_array(path)


def read_picture(path: Path) -> np.ndarray:
    """(H, W) or (H, W, C) pixels of a picture, upright, in the file's own depth."""
    with decoding(path, "is damaged or truncated", *LOGGERS), path.open("rb") as file:
        try:
            # Given the file's name, Pillow would map it into memory, and mix up the sides of a TIFF turned by 90°.
            picture = Pillow.open(file)
        except UnidentifiedImageError as error:
            if _start(path, 4) in _TIFF_MAGIC:
                return _read_tiff(path)
            raise DataError(f"{path} is not an image that Pillow can read; check that it opens elsewhere") from error
        except Pillow.DecompressionBombError as error:
            raise DataError(f"{path} is too large to decode; save it as .npy, which is read from disk") from error
        with picture:
            if isinstance(picture, TiffImagePlugin.TiffImageFile) and not _pillow_keeps(picture):
                return _read_tiff(path)
            if picture.format == "PNG" and _is_deep_png(path, picture):
                pixels = _read_deep_png(path)
            else:
                picture.load()
                pixels = np.asarray(picture.convert(_plain_mode(picture)))
            return _upright(pixels, _orientation(picture))


def _start(path: Path, length: int) -> bytes:
    with path.open("rb") as file:
        return file.read(length)


def _orientation(picture: Pillow.Image) -> int:
    try:
        return picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # tags that cannot be read are no reason not to read the pixels
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    return np.ascontiguousarray(_UPRIGHT.get(orientation, lambda same: same)(pixels))


def _is_deep_png(path: Path, picture: Pillow.Image) -> bool:
    """Whether Pillow would lose a part: of 16-bit colours or alpha 8 bits, of 16-bit gray its transparent shade."""
    depth, colour = _start(path, 26)[24:]
    return depth == 16 and (colour != 0 or "transparency" in picture.info)


def _read_deep_png(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        width, height, rows, info = png.Reader(file=file).asDirect()
        pixels = np.empty((height, width * info["planes"]), dtype=np.uint16)
        count = 0
        for row in rows:
            pixels[count] = row
            count += 1
    if count < height:
        raise DataError(f"{path} is truncated: it has {count} of {height} rows; check that it opens elsewhere")
    return pixels.reshape(height, width, info["planes"])


def _pillow_keeps(picture: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether Pillow has a mode that holds a TIFF's samples as they are, and can read them into it."""
    tags, mode = picture.tag_v2, picture.mode
    if mode == "LA" and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == tifffile.PLANARCONFIG.SEPARATE:
        return False
    bits, kinds = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)), tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    signed, real = 2 in kinds, 3 in kinds
    if max(bits) <= 8:
        return not signed
    if len(bits) > 1 or tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) != tifffile.PHOTOMETRIC.MINISBLACK:
        return False
    return mode.startswith("I;16") or (bits == (32,) and ((mode == "I" and signed) or (mode == "F" and real)))


def _read_tiff(path: Path) -> np.ndarray:
    """First page of a TIFF that Pillow does not read, or not in full."""
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            pixels = page.asarray()
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise DataError(f"{path} is damaged, or compressed in a way that needs: pip install imagecodecs") from error
        raise
    if page.photometric in _CODED_COLOURS:
        colours = tifffile.PHOTOMETRIC(page.photometric).name
        raise DataError(f"{path} has {colours} pixels of {pixels.dtype}, which inrkit does not read; save it as RGB")
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    elif page.photometric == tifffile.PHOTOMETRIC.SEPARATED and pixels.ndim == 3 and pixels.dtype.kind == "u":
        peak = np.iinfo(pixels.dtype).max
        ink = pixels[:, :, :4].astype(np.float64) / peak
        pixels = np.rint((1 - ink[:, :, :3]) * (1 - ink[:, :, 3:]) * peak).astype(pixels.dtype)
    return _upright(pixels, page.tags.valueof(_ORIENTATION, 1))


def _plain_mode(picture: Pillow.Image) -> str:
    """The mode to convert to: as few channels as show what the picture's own mode shows."""
    mode = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "P": "RGB"}.get(picture.mode, picture.mode)
    if mode.startswith("I;16") or mode in ("I", "F"):
        return mode
    if "transparency" in picture.info:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    return mode if mode in ("L", "LA", "RGB", "RGBA") else "RGB"


def _write_tiff(path: Path, values: np.ndarray) -> None:
    if values.dtype.kind == "b":
        values = _shown(values)
    if values.dtype.itemsize > 8:
        raise ConfigError(f"{path.suffix} cannot hold values of {values.dtype}; choose .npy")
    channels = values.shape[2]
    if channels == 1:
        tifffile.imwrite(path, values[:, :, 0], photometric="minisblack")
    else:
        colours = 3 if channels in (3, 4) else 1
        alpha = channels - colours == 1
        tifffile.imwrite(
            path,
            values,
            photometric="rgb" if colours == 3 else "minisblack",
            planarconfig="contig",
            extrasamples=["unassalpha" if alpha else "unspecified"] * (channels - colours),
        )


def _write_picture(path: Path, values: np.ndarray, suffix: str) -> None:
    height, width, channels = values.shape
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(channels)
    if suffix == ".webp":
        mode = {"L": "RGB", "LA": "RGBA"}.get(mode, mode)
    if mode not in _PILLOW_MODES[suffix] or values.dtype not in (np.bool_, np.uint8, np.uint16):
        fits = channels <= 4 and values.dtype in (np.bool_, np.uint8, np.uint16)
        others = ".png or .tif" if fits else ".npy" if values.dtype.itemsize > 8 else ".tif or .npy"
        raise ConfigError(f"{suffix} cannot hold {channels} channels of {values.dtype}; choose {others}")
    longest = _LONGEST_SIDE.get(suffix)
    if longest is not None and max(height, width) > longest:
        raise ConfigError(
            f"{suffix} cannot hold {height}×{width} pixels, at most {longest} a side; choose .png or .tif"
        )
    values = _shown(values)
    if suffix == ".webp" and channels < 3:
        values = values[:, :, (0, 0, 0, 1)[: channels + 2]]
    picture = Pillow.fromarray(values[:, :, 0] if mode == "L" else values)
    # By way of memory: Pillow does not notice when the system writes only a part of what it is given.
    encoded = io.BytesIO()
    format = Pillow.registered_extensions()[suffix]
    picture.save(encoded, format, **({"lossless": True, "exact": True} if suffix == ".webp" else {"quality": 95}))
    path.write_bytes(encoded.getbuffer())


def _shown(values: np.ndarray) -> np.ndarray:
    """Values of a mask, or of 8 or 16 bits, as the 8 bits that show them."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    return values if values.dtype == np.uint8 else np.rint(values / 257).astype(np.uint8)
