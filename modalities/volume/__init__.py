"""Volumes: NumPy arrays of one to five dimensions, TIFF stacks, and scans in scanner coordinates.

Axes keep the file's order: `inrkit render RUN out.nii.gz --scale 2` doubles them all, time too, and `--shape` names the
length of each. The physical unit is the index of a cell; of a scan, millimetres by its affine, and seconds along a
fourth axis; of a TIFF whose axes have a spacing, their own units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.errors import ConfigError, DataError
from inrkit.modalities.image import Image
from inrkit.modalities.known import as_mask, known_of, partly_known, share_unknown
from inrkit.modalities.volume.arrays import (
    Stored,
    read_array,
    read_npy,
    read_npz,
    require_room_in_order,
)
from inrkit.modalities.volume.scans import moved, physical_affine, read_scan, write_scan
from inrkit.modalities.volume.stacks import read_stack, write_stack
from inrkit.plugins.options import option
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.decoding import require_memory
from inrkit.signals.lattice import Region, cell_affine
from inrkit.signals.modality import MODALITIES, Modality
from inrkit.signals.packing import packed, unpacked

__all__ = ["Volume", "VolumeOptions", "read_array", "require_memory", "sample_volume"]

_PICTURES = (".npy", ".tif", ".tiff", ".hdr")
"""Suffixes that pictures and volumes share."""
_MOST_DIMENSIONS = 5
_MOST_SHORT = 4
_KEY = "volume"
_REAL = {8: np.float32, 16: np.float64}
"""What a complex number of so many bytes is two of."""


@dataclass
class VolumeOptions:
    channels_last: bool | None = option(None)
    """Whether the last axis is channels; if not given, the last of four or more axes is where it is at most 4 long,
    and the colours or channels of a TIFF are."""
    key: str = option("")
    """Name of the array in an .npz; needed where it holds several."""
    mask: str = option("")
    """File of the same shape that is 0 where values are not known: those are not trained on. NaN is not known
    either."""
    fill: bool = option(False)
    """Whether files written have the field's own values where the source has NaN, rather than NaN again."""


@MODALITIES.register("volume")
class Volume(Modality):
    """Scans, simulations and other arrays on a lattice of one to five dimensions."""

    Options = VolumeOptions
    operator = "laplacian"
    metrics = ("psnr",)
    sample_suffix = ".npy"
    looks = "slices"

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether a file is no single picture; what those are, `Image.claims` says. Only .npy and TIFF may be one."""
        return path.suffix.lower() not in _PICTURES or not Image.claims(path)

    def read(self, path: Path) -> CoordinateDataset:
        return self._dataset(_stored(path, self.options.key), path)

    def from_array(self, values: np.ndarray) -> CoordinateDataset:
        return self._dataset(Stored(values), Path("array.npy"))

    def _dataset(self, stored: Stored, path: Path) -> CoordinateDataset:
        """A volume as a dataset; errors name its path."""
        array, notes = stored.array, list(stored.notes)
        require_room_in_order(path, array)
        channels_last = self.options.channels_last
        if channels_last is None:
            channels_last = stored.channels_last
        if channels_last is None:
            channels_last = array.ndim > 3 and array.shape[-1] <= _MOST_SHORT
            if channels_last:
                notes.append(
                    f"the last axis, {array.shape[-1]} long, is channels; modality.channels_last=false denies it"
                )
        shape = array.shape[:-1] if channels_last else array.shape
        if not 1 <= len(shape) <= _MOST_DIMENSIONS or array.size == 0:
            raise DataError(
                f"{path} has shape {array.shape}; a volume has one to {_MOST_DIMENSIONS} dimensions, none of them of "
                "length 0, and modality.channels_last=true says that the last one is channels"
            )
        if "affine" in stored.metadata and len(shape) < 3:
            raise DataError(f"{path} has three dimensions, as scans do; leave modality.channels_last out")
        values = array if channels_last else array[..., None]
        is_complex = array.dtype.kind == "c"
        if is_complex:
            values = _as_pairs(values)
            notes.append("complex numbers are two channels each, and complex again in the files written")
        mask = None
        if self.options.mask:
            file = Path(self.options.mask)
            over = _stored(file, "")
            places = [about.metadata.get("affine") for about in (stored, over)]
            if None not in places and not np.allclose(*places, rtol=1e-3, atol=1e-3):
                raise DataError(f"{file}, the mask, lies elsewhere than {path} by its affine; resample it to that scan")
            mask = as_mask(file, over.array, shape)
        known = known_of(values, mask)
        holes = None
        if known is not None:
            again = values.dtype.kind == "f" and mask is None and not self.options.fill
            holes = packed(known) if again else None
            written = "NaN again in the files written" if again else "filled in by the field"
            notes.append(f"{share_unknown(known)} of the values are not known: not trained on, and {written}")
        metadata = {
            **stored.metadata,
            "suffix": _suffix(path),
            "squeezed": not channels_last,
            "shape": list(shape),
            "complex": is_complex,
            "notes": notes,
        }
        if holes is not None:
            metadata["known"] = holes
        return partly_known(
            values,
            known,
            affine=_affine(shape, metadata),
            metadata=metadata,
            full_scale=array.dtype.itemsize == 1,
        )

    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        suffix = _suffix(path)
        if "known" in metadata:
            known = unpacked(metadata["known"], values.shape[:-1])
            values = np.where(known[..., None], values, np.array(np.nan, dtype=values.dtype))
        if metadata.get("complex"):
            values = np.ascontiguousarray(values).view(np.result_type(values.dtype, np.complex64))
        array = values[..., 0] if metadata.get("squeezed") else values
        if suffix == ".npy":
            with path.open("wb") as file:
                np.save(file, array)
        elif suffix == ".npz":
            with path.open("wb") as file:
                np.savez(file, **{metadata.get("key", _KEY): array})
        elif suffix in (".tif", ".tiff"):
            write_stack(path, values, metadata)
        elif suffix in (".nii", ".nii.gz"):
            write_scan(path, values, metadata)
        else:
            written = f"as '{path.suffix}'" if path.suffix else "without a suffix"
            raise ConfigError(f"volumes are not written {written}; choose one of: {', '.join(_WRITTEN)}")

    def units(self, metadata: dict[str, Any], dimensions: int) -> tuple[str, ...]:
        if "affine" in metadata:
            return ("mm", "mm", "mm", "s", "cell")[:dimensions]
        if len(metadata.get("spacing", ())) == dimensions:
            return tuple(unit or "cell" for unit in metadata["axis_units"])
        return ("cell",) * dimensions

    def cropped(self, metadata: dict[str, Any], region: Region) -> dict[str, Any]:
        whole = metadata["shape"]
        begins = region.begins(whole)
        part = {**metadata, **moved(metadata, begins), "shape": (region.shares * whole).tolist()}
        if "known" in metadata:
            known = unpacked(metadata["known"], tuple(whole))
            for axis, (length, begin, share) in enumerate(zip(region.shape, begins, region.shares, strict=True)):
                cells = begin + share * whole[axis] * (np.arange(length) + 0.5) / length
                known = known.take(np.floor(cells).astype(int).clip(0, whole[axis] - 1), axis=axis)
            part["known"] = packed(known)
        return part

    def reconstruction_suffix(self, metadata: dict[str, Any], dtype: np.dtype) -> str:
        suffix = str(metadata["suffix"])
        if suffix in _WRITTEN and suffix != ".npz":
            return suffix
        return ".nii.gz" if "affine" in metadata else ".npy"

    def sample(self, path: Path) -> None:
        self.write(path, sample_volume(32)[..., None], {"squeezed": True})


def sample_volume(size: int) -> np.ndarray:
    """Ellipsoids of several densities, one within another, with a fine texture: (size, size, size) float32."""
    axis = (2 * np.arange(size) + 1 - size) / size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    volume = np.zeros((size, size, size), dtype=np.float32)
    for density, (c, b, a), (k, j, i) in [
        (1.0, (0.9, 0.92, 0.7), (0.0, 0.0, 0.0)),
        (-0.7, (0.84, 0.86, 0.64), (0.0, 0.0, 0.0)),
        (0.4, (0.3, 0.35, 0.18), (0.1, -0.3, -0.2)),
        (0.3, (0.25, 0.3, 0.15), (-0.2, 0.25, 0.25)),
        (0.5, (0.1, 0.1, 0.1), (0.4, 0.3, -0.1)),
    ]:
        inside = ((z - k) / c) ** 2 + ((y - j) / b) ** 2 + ((x - i) / a) ** 2 < 1
        volume[inside] += density
    volume += (0.05 * (volume > 0) * np.sin(19 * x) * np.sin(17 * y) * np.sin(23 * z)).astype(np.float32)
    return volume


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def _stored(path: Path, key: str) -> Stored:
    suffix = _suffix(path)
    if suffix == ".npz":
        return read_npz(path, key)
    if suffix not in _READERS:
        raise DataError(f"{path} is not of a format of volumes; save it as one of: .npz, {', '.join(_READERS)}")
    return _READERS[suffix](path)


def _as_pairs(values: np.ndarray) -> np.ndarray:
    """(…, C) complex numbers as (…, 2C) real ones: real and imaginary parts in turn."""
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if values.dtype.itemsize not in _REAL:
        values = values.astype(np.complex128)
    return np.ascontiguousarray(values).view(_REAL[values.dtype.itemsize])


def _affine(shape: tuple[int, ...], metadata: dict[str, Any]) -> np.ndarray:
    """The map from [−1, 1]^D to cell indices, or to the units that a file gives them."""
    cells = cell_affine(shape)
    if "affine" in metadata:
        return physical_affine(cells, metadata)
    if "spacing" in metadata and len(metadata["spacing"]) == len(shape):
        return np.asarray(metadata["spacing"])[:, None] * cells
    return cells


_READERS: dict[str, Callable[[Path], Stored]] = {
    ".npy": read_npy,
    ".tif": read_stack,
    ".tiff": read_stack,
    ".nii": read_scan,
    ".nii.gz": read_scan,
    ".hdr": read_scan,
    ".img": read_scan,
    ".mgh": read_scan,
    ".mgz": read_scan,
}
_WRITTEN = (".npy", ".npz", ".tif", ".tiff", ".nii", ".nii.gz")
