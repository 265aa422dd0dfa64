"""Images: everything Pillow reads, 16 bits a channel without loss, float TIFF, OpenEXR and Radiance, NumPy arrays.

Rows are the first axis and columns the second; pixel centres are at whole numbers of the physical unit, unless the file
says how large its pixels are, or where they lie on the ground: then units are its own, (y, x).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from inrkit.errors import ConfigError, DataError
from inrkit.files import expanded
from inrkit.modalities.image import files
from inrkit.modalities.image.colour import encoded, profile_of
from inrkit.modalities.image.georeference import ground_affine, ground_unit, shifted
from inrkit.modalities.image.hdr import SUFFIXES as HDR
from inrkit.modalities.image.hdr import write_hdr
from inrkit.modalities.image.picture import ALPHA, BANDS, LOGGERS, TIFF, Picture, joined, straight
from inrkit.modalities.image.tiff import GEO, SPACING, one_picture, write_tiff
from inrkit.modalities.image.writing import MODES, write_picture
from inrkit.modalities.known import known_of, partly_known, share_unknown
from inrkit.plugins.options import option
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.decoding import decoding, mapped_array
from inrkit.signals.lattice import Region, cell_affine
from inrkit.signals.modality import MODALITIES, Modality
from inrkit.signals.packing import packed

LUMA = (0.2989, 0.587, 0.114)
"""What EVOS's Laplacian acts on: the luma of ITU-R BT.601."""

CHANNEL_WEIGHTS = {1: (1.0,), 2: (1.0, 0.0), 3: LUMA, 4: (*LUMA, 0.0)}

_MOST_CHANNELS = 16
"""Length up to which the last axis of an array is taken for channels."""


@dataclass
class ImageOptions:
    longest: int = option(0, at_least=0)
    """Pixels of the longer side to which a larger picture is reduced (Lanczos) as it is read; 0 leaves it."""
    mask: str = option("")
    """A picture or .npy of the same height and width, dark (below half of its brightest) where the picture is not
    known: there it is not trained on, and the field fills it in."""
    alpha: str = option("channel", choices=("channel", "mask"))
    """What transparency is: a `channel` like the others, or a `mask`: what is wholly transparent is not known, and
    there is no channel of it."""

    def __post_init__(self) -> None:
        if self.mask:
            self.mask = str(Path.cwd() / expanded(self.mask))


@MODALITIES.register("image")
class Image(Modality):
    """Photos and other pictures on a 2-D lattice."""

    Options = ImageOptions
    operator = "laplacian"
    metrics = ("psnr", "ssim", "ms_ssim")
    sample_suffix = ".png"
    looks = "picture"

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether a file is one picture: an array of two axes, or of three with at most 4 channels last; a TIFF of
        a single page."""
        suffix = path.suffix.lower()
        if suffix == ".npy":
            with decoding(path, "is not a NumPy array of numbers, or is damaged", *LOGGERS):
                shape = mapped_array(path).shape
            return len(shape) == 2 or (len(shape) == 3 and shape[2] <= 4)
        if suffix in TIFF:
            with decoding(path, "is damaged or truncated", *LOGGERS):
                return one_picture(path)
        return True

    def read(self, path: Path) -> CoordinateDataset:
        return self._dataset(files.read_picture(path), str(path), path.suffix.lower())

    def from_array(self, values: np.ndarray) -> CoordinateDataset:
        return self._dataset(Picture(values), "the array", ".npy")

    def _dataset(self, picture: Picture, path: str, suffix: str) -> CoordinateDataset:
        """A picture as a dataset; errors name it `path`."""
        values = picture.pixels
        if values.size == 0:
            raise DataError(f"{path} has shape {values.shape}, so no pixels; check how it was written")
        array = suffix == ".npy"
        if values.ndim not in (2, 3) or (array and values.ndim == 3 and values.shape[2] > _MOST_CHANNELS):
            raise DataError(
                f"{path} has shape {values.shape}; an image is (height, width) or (height, width, channels) "
                f"with at most {_MOST_CHANNELS} channels, last{_volume_key(values.shape)}"
            )
        squeezed = values.ndim == 2
        values = values[:, :, None] if squeezed else values
        shape = values.shape[:2]
        metadata: dict[str, Any] = {"suffix": suffix, "shape": list(shape), **picture.about}
        notes = list(picture.notes)
        opaque = None
        if values.dtype.kind == "c":
            values = _parts(values)
            metadata["complex"] = True
            notes.append("values are complex: the real and the imaginary part are channels")
        elif self.options.alpha == "mask" and values.shape[2] in (2, 4) and BANDS not in metadata:
            opaque = values[:, :, -1] > 0
            values = (straight(values) if ALPHA in metadata else values)[:, :, :-1]
        known = known_of(values, joined(picture.known, opaque, self._mask(shape)))
        if known is not None and not known.any():
            raise DataError(f"{path}: no value is known; check for NaN, no data, transparency and modality.mask")
        if 0 < self.options.longest < max(shape):
            values, known = _reduced(values, known, self.options.longest)
        metadata |= {"squeezed": squeezed, "channels": values.shape[2], "notes": notes}
        if known is not None:
            metadata["known"] = packed(known)
            notes.append(f"{share_unknown(known)} of the pixels are not known; the field fills them in")
        if picture.profile is not None:
            metadata["icc"] = encoded(picture.profile)
        dataset = partly_known(
            values,
            known,
            affine=_affine(metadata, values.shape[:2], notes),
            channel_weights=None if {"complex", BANDS} & set(metadata) else CHANNEL_WEIGHTS.get(values.shape[2]),
            metadata=metadata,
        )
        if _leaves_most_unused(dataset):
            dataset.full_scale = False
            low, high = dataset.extent
            notes.append(
                f"metrics refer to the range in use, {low:g} to {high:g}; the file leaves most of its "
                f"{8 * dataset.dtype.itemsize} bits unused"
            )
        return dataset

    def _mask(self, shape: tuple[int, ...]) -> np.ndarray | None:
        """(H, W) bool, where the mask says that a picture of `shape` is known; None if there is no mask."""
        if not self.options.mask:
            return None
        path = Path(self.options.mask)
        if not path.is_file():
            raise DataError(f"mask {path} does not exist; check modality.mask")
        pixels = files.read_picture(path).pixels
        if pixels.ndim == 3:
            pixels = pixels[:, :, : pixels.shape[2] - (pixels.shape[2] in (2, 4))].mean(axis=2)
        if pixels.shape != shape:
            raise DataError(
                f"mask {path} has shape {pixels.shape}, and the picture {shape}; "
                "give one of the picture's height and width"
            )
        levels = np.nan_to_num(pixels.astype(np.float64))
        return levels > levels.max() / 2

    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        suffix = path.suffix.lower()
        profile = profile_of(metadata)
        if metadata.get("complex") and suffix in (".npy", *TIFF):
            values = _whole(values)
        if suffix == ".npy":
            with path.open("wb") as file:
                np.save(file, values[:, :, 0] if metadata.get("squeezed") else values)
        elif suffix in TIFF:
            write_tiff(path, values, profile, metadata)
        elif suffix in HDR:
            write_hdr(path, values, metadata)
        elif suffix in MODES:
            write_picture(path, values, profile, metadata)
        else:
            known = ", ".join([*MODES, *TIFF, *HDR, ".npy"])
            written = f"as '{suffix}'" if suffix else "without a suffix"
            raise ConfigError(f"images are not written {written}; choose one of: {known}")

    def units(self, metadata: dict[str, Any], dimensions: int) -> tuple[str, ...]:
        if GEO in metadata and ground_affine(metadata[GEO], tuple(metadata["shape"])) is not None:
            return (ground_unit(metadata[GEO]),) * 2
        return (metadata[SPACING]["unit"],) * 2 if SPACING in metadata else ("pixel",) * 2

    def cropped(self, metadata: dict[str, Any], region: Region) -> dict[str, Any]:
        whole = metadata["shape"]
        part = {**metadata, "shape": (region.shares * whole).tolist()}
        if GEO in metadata:
            part[GEO] = shifted(metadata[GEO], tuple(region.begins(whole).tolist()))
        return part

    def reconstruction_suffix(self, metadata: dict[str, Any], dtype: np.dtype) -> str:
        suffix = metadata["suffix"]
        placed = GEO in metadata or SPACING in metadata
        if dtype in (np.uint8, np.uint16) and metadata["channels"] <= 4 and not placed and BANDS not in metadata:
            return ".png"
        if suffix == ".exr" and dtype in (np.float16, np.float32, np.uint32):
            return ".exr"
        return ".tif" if suffix in (*TIFF, *HDR) else ".npy"

    def sample(self, path: Path) -> None:
        self.write(path, sample_picture(256), {})


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


def read_picture(path: Path) -> np.ndarray:
    """(H, W) or (H, W, C) pixels of a picture, upright, in the file's own depth."""
    return files.read_picture(path).pixels


def _affine(metadata: dict[str, Any], shape: tuple[int, ...], notes: list[str]) -> np.ndarray:
    """The map from [−1, 1]² to pixels of the lattice, or to (y, x) in the units of the file."""
    if GEO in metadata:
        ground = ground_affine(metadata[GEO], tuple(metadata["shape"]))
        if ground is not None:
            notes.append("it lies on the ground: physical coordinates are (y, x) of its reference system")
            return ground
        notes.append("its tags of where it lies on the ground are no affine map; physical coordinates are pixels")
    cells = cell_affine(shape)
    if SPACING in metadata:
        spacing = metadata[SPACING]
        whole = cell_affine(tuple(metadata["shape"]))
        notes.append(f"physical coordinates are (y, x) in {spacing['unit']}")
        return np.array(spacing["size"])[:, None] * whole
    return cells


def _leaves_most_unused(dataset: CoordinateDataset) -> bool:
    """Whether the values present span less than half of what a dtype of more than 8 bits can hold."""
    full = dataset.value_range
    if full is None or dataset.dtype.itemsize == 1:
        return False
    low, high = dataset.extent
    return 0 < high - low < (full[1] - full[0]) / 2


def _volume_key(shape: tuple[int, ...]) -> str:
    if len(shape) < 3 or 0 in shape:
        return ""
    return "; for more, or other axes, choose modality=volume, with modality.channels_last=true if channels are last"


def _parts(values: np.ndarray) -> np.ndarray:
    """(H, W, C) complex values as (H, W, 2 C) real and imaginary parts in turn."""
    return np.ascontiguousarray(values).view(values.real.dtype)


def _whole(values: np.ndarray) -> np.ndarray:
    """The inverse of `_parts`."""
    wide = values if values.dtype.itemsize >= 4 else values.astype(np.float32)
    return np.ascontiguousarray(wide).view(np.result_type(wide.dtype, np.complex64))


def _reduced(values: np.ndarray, known: np.ndarray | None, longest: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, C) values, and where they are known, at the size at which the longer side has `longest`."""
    if known is not None:
        values = np.where(known[:, :, None], values, values[known].mean(axis=0)).astype(values.dtype)
    height, width = values.shape[:2]
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    reduced = np.stack([_resized(channel, size) for channel in np.moveaxis(values, 2, 0)], axis=2)
    if reduced.dtype != values.dtype and values.dtype.kind in "iub":
        low, high = float(values.min()), float(values.max())  # Lanczos overshoots at edges
        reduced = np.rint(reduced).clip(low, high)
    if known is not None:
        # Known is what nothing else than known pixels went into.
        known = np.abs(_resized(known.astype(np.float32), size) - 1) < 1e-4
    return reduced.astype(values.dtype), known


def _resized(channel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) values at (width, height), as uint8 if they are, else as float32."""
    plain = channel if channel.dtype == np.uint8 else channel.astype(np.float32)
    return np.asarray(Pillow.fromarray(np.ascontiguousarray(plain)).resize(size, Pillow.Resampling.LANCZOS))
