"""Volumes: NumPy arrays of one to five dimensions, TIFF stacks, and NIfTI scans in scanner coordinates.

Axes keep the file's order: `inrkit render RUN out.nii.gz --scale 2` doubles them all, time too, and `--shape` names the
length of each. The physical unit is the index of a cell, and of a NIfTI file what its affine maps to:
millimetres, and seconds along a fourth axis, unless its header names other units.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from inrkit.device import available_memory
from inrkit.errors import ConfigError, DataError
from inrkit.modalities.image import LOGGERS, Image
from inrkit.plugins.options import option
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.decoding import decoding, mapped_array
from inrkit.signals.lattice import cell_affine
from inrkit.signals.modality import MODALITIES, Modality

_MOST_DIMENSIONS = 5
_MOST_SHORT = 4
_KEY = "volume"


@dataclass
class VolumeOptions:
    channels_last: bool | None = option(None)
    """Whether the last axis is channels; if not given, the last of four or more axes is where it is at most 4 long,
    and the colours or channels of a TIFF are."""
    key: str = option("")
    """Name of the array in an .npz; needed where it holds several."""


@dataclass
class _Stored:
    """An array as a file has it, and what the file says of it."""

    array: np.ndarray
    channels_last: bool | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@MODALITIES.register("volume")
class Volume(Modality):
    """Scans, simulations and other arrays on a lattice of one to five dimensions."""

    Options = VolumeOptions
    operator = "laplacian"
    metrics = ("psnr",)
    sample_suffix = ".npy"

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether a file is no single picture; what those are, `Image.claims` says."""
        return not Image.claims(path)

    def read(self, path: Path) -> CoordinateDataset:
        suffix = _suffix(path)
        if suffix not in _READERS:
            raise DataError(f"{path} is not of a format of volumes; save it as one of: {', '.join(_READERS)}")
        stored = _READERS[suffix](path, self.options)
        array = stored.array
        in_place = array.flags.c_contiguous and array.dtype.isnative
        if isinstance(array, np.memmap) and not in_place:
            require_memory(path, array.nbytes)
        notes = []
        channels_last = self.options.channels_last
        if channels_last is None:
            channels_last = stored.channels_last
        if channels_last is None:
            channels_last = array.ndim > 3 and array.shape[-1] <= _MOST_SHORT
            if channels_last:
                notes = [f"the last axis, {array.shape[-1]} long, is channels; modality.channels_last=false denies it"]
        shape = array.shape[:-1] if channels_last else array.shape
        if not 1 <= len(shape) <= _MOST_DIMENSIONS or array.size == 0:
            raise DataError(
                f"{path} has shape {array.shape}; a volume has one to {_MOST_DIMENSIONS} dimensions, none of them of "
                "length 0, and modality.channels_last=true says that the last one is channels"
            )
        if "affine" in stored.metadata and len(shape) < 3:
            raise DataError(f"{path} has three dimensions, as NIfTI files do; leave modality.channels_last out")
        about = {"suffix": suffix, "squeezed": not channels_last, "shape": list(shape), "notes": notes}
        metadata = {**stored.metadata, **about}
        return CoordinateDataset(
            array if channels_last else array[..., None],
            affine=_affine(shape, metadata),
            metadata=metadata,
            full_scale=array.dtype.itemsize == 1,
        )

    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        suffix = _suffix(path)
        array = values[..., 0] if metadata.get("squeezed") else values
        if suffix == ".npy":
            with path.open("wb") as file:
                np.save(file, array)
        elif suffix == ".npz":
            with path.open("wb") as file:
                np.savez(file, **{metadata.get("key", _KEY): array})
        elif suffix in (".tif", ".tiff"):
            _write_stack(path, array, channels=0 if metadata.get("squeezed") else values.shape[-1])
        elif suffix in (".nii", ".nii.gz"):
            encoded = _encode_scan(path, values, metadata)
            path.write_bytes(gzip.compress(encoded, mtime=0) if suffix == ".nii.gz" else encoded)
        else:
            written = f"as '{path.suffix}'" if path.suffix else "without a suffix"
            raise ConfigError(f"volumes are not written {written}; choose one of: {', '.join(_READERS)}")

    def reconstruction_suffix(self, metadata: dict[str, Any], dtype: np.dtype) -> str:
        suffix = str(metadata["suffix"])
        return suffix if suffix != ".npz" else ".npy"

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


def require_memory(path: Path, size: int, mend: str = "") -> None:
    """Refuse a file whose decoded values would take more than the memory at hand.

    Args:
        path: of the file, for the message.
        size: bytes that decoding takes.
        mend: what to do about it, if not to save the values as .npy.

    Raises:
        DataError: there is less memory than that.
    """
    available = available_memory()
    if available is not None and size > available:
        raise DataError(
            f"{path} takes {size / 2**30:.1f} GiB of memory and {available / 2**30:.1f} GiB are at hand; "
            + (mend or "save it as .npy, in C order, which is read from disk")
        )


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def _affine(shape: tuple[int, ...], metadata: dict[str, Any]) -> np.ndarray:
    """The map from [−1, 1]^D to cell indices, or to what a NIfTI's affine makes of them."""
    cells = cell_affine(shape)
    if "affine" not in metadata:
        return cells
    dimensions = len(shape)
    scanner = np.diag([1.0, 1.0, 1.0, *metadata["steps"]][:dimensions])
    scanner[:3, :3] = np.array(metadata["affine"])[:3, :3]
    affine = scanner @ cells
    affine[:3, dimensions] += np.array(metadata["affine"])[:3, 3]
    return affine


def read_array(path: Path) -> np.ndarray:
    """The array of an .npy as a read-only memory map, which takes no memory however large it is.

    Raises:
        DataError: the file is damaged, or holds objects.
    """
    with decoding(path, "is not a NumPy array of numbers, or is damaged", *LOGGERS):
        return mapped_array(path)


def _read_npy(path: Path, options: VolumeOptions) -> _Stored:
    return _Stored(read_array(path))


def _read_npz(path: Path, options: VolumeOptions) -> _Stored:
    with (
        decoding(path, "is not an archive of NumPy arrays of numbers, or is damaged", *LOGGERS),
        path.open("rb") as file,
    ):
        archive = np.load(file)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds a single array, not an archive of them; name it .npy")
        with archive:
            key = options.key or (archive.files[0] if len(archive.files) == 1 else "")
            if key not in archive.files:
                wrong = f"no array '{key}'" if key else f"{len(archive.files)} arrays"
                raise DataError(f"{path} holds {wrong}; choose one with modality.key={'|'.join(archive.files)}")
            require_memory(path, archive.zip.getinfo(f"{key}.npy").file_size)
            return _Stored(archive[key], metadata={"key": key})


def _read_stack(path: Path, options: VolumeOptions) -> _Stored:
    with decoding(path, "is damaged or truncated", *LOGGERS), tifffile.TiffFile(path) as file:
        pages = len(file.pages)
        file.filehandle.seek(file.pages.next_page_offset)
        if any(file.filehandle.read(file.tiff.offsetsize)):
            raise DataError(
                f"{path} is truncated: it names more pages than the {pages} it has; check how it was copied"
            )
        series = file.series[0]
        axes = series.axes
        if series.dataoffset is not None:
            # The pages lie in the file one after the other, uncompressed: they come from there as they are needed.
            array = tifffile.memmap(path, mode="r")
        else:
            require_memory(path, series.nbytes)
            try:
                array = series.asarray()
            except ValueError as error:
                if "imagecodecs" in str(error):
                    needs = "is damaged, or compressed in a way that needs: pip install imagecodecs"
                    raise DataError(f"{path} {needs}") from error
                raise
    channels = next((axes.index(name) for name in "SC" if name in axes), None)
    return _Stored(array) if channels is None else _Stored(np.moveaxis(array, channels, -1), channels_last=True)


def _write_stack(path: Path, array: np.ndarray, channels: int) -> None:
    if array.ndim - (channels > 0) < 2 or array.dtype.itemsize > 8:
        raise ConfigError(f"{path.suffix} cannot hold {array.ndim} axes of {array.dtype}; choose .npy")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8) * np.uint8(255)
    if not channels:
        tifffile.imwrite(path, array, photometric="minisblack")
        return
    colours = 3 if channels in (3, 4) else 1
    tifffile.imwrite(
        path,
        array,
        photometric="rgb" if colours == 3 else "minisblack",
        planarconfig="contig",
        extrasamples=["unspecified"] * (channels - colours),
    )


def _read_scan(path: Path, options: VolumeOptions) -> _Stored:
    nibabel = _nibabel(path)
    with nibabel.imageglobals.LoggingOutputSuppressor(), decoding(path, "is not a NIfTI file, or is damaged", *LOGGERS):
        scan = nibabel.load(path)
        header, proxy = scan.header, scan.dataobj
        scaled = (proxy.slope, proxy.inter) != (1, 0)
        dtype = header.get_data_dtype()
        if scaled:
            dtype = np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)
        # The file has its first axis fastest, and a lattice its last: the values are there twice for a moment.
        require_memory(path, 2 * dtype.itemsize * math.prod(header.get_data_shape()))
        array = np.asarray(proxy, dtype=dtype)
        channels_last = None
        if array.dtype.names is not None:
            array = np.stack([array[name] for name in array.dtype.names], axis=-1)
            channels_last = True
        else:
            array = array.reshape(*array.shape, *[1] * (3 - array.ndim))
        affine = np.array(scan.affine, dtype=float)
        if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
            raise DataError(f"{path} has an affine that maps its voxels to no volume; set its sform or qform anew")
        steps = [float(step) or 1.0 for step in header.get_zooms()[3:]]
        metadata = {
            "affine": affine.tolist(),
            "steps": steps,
            "units": list(header.get_xyzt_units()),
            "space": int(header["sform_code"]) or int(header["qform_code"]),
        }
    return _Stored(np.ascontiguousarray(array), channels_last, metadata)


def _encode_scan(path: Path, values: np.ndarray, metadata: dict[str, Any]) -> bytes:
    """A NIfTI file whose affine covers, with cells of another size, the extent of the one that was read."""
    nibabel = _nibabel(path)
    shape, channels = values.shape[:-1], values.shape[-1]
    ratio = np.ones(max(3, len(shape)))
    ratio[: len(shape)] = np.divide(metadata.get("shape", shape), shape)
    cells = np.diag([*ratio[:3], 1.0])
    cells[:3, 3] = (ratio[:3] - 1) / 2
    if values.dtype in (np.bool_, np.float16):
        values = values.astype(np.uint8 if values.dtype.kind == "b" else np.float32)
    array = values.reshape(*shape, *[1] * (3 - len(shape)), *[channels] * (not metadata.get("squeezed")))
    kind = nibabel.Nifti1Image if max(array.shape) < 2**15 else nibabel.Nifti2Image
    scan = kind(array, np.array(metadata.get("affine", np.eye(4))) @ cells, dtype=array.dtype)
    scan.header["sform_code"] = metadata.get("space") or 1
    scan.header.set_xyzt_units(*metadata.get("units", ()))
    zooms = np.array(scan.header.get_zooms())
    zooms[3:] = [*metadata.get("steps", []), *[1.0] * array.ndim][: array.ndim - 3]
    zooms[3 : len(ratio)] *= ratio[3:]
    scan.header.set_zooms(zooms)
    return bytes(scan.to_bytes())


def _nibabel(path: Path) -> Any:
    try:
        import nibabel
        import nibabel.imageglobals
    except ImportError as error:
        raise ConfigError(f"{path} is NIfTI, which needs: pip install 'inrkit[medical]'") from error
    return nibabel


_READERS: dict[str, Callable[[Path, VolumeOptions], _Stored]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".tif": _read_stack,
    ".tiff": _read_stack,
    ".nii": _read_scan,
    ".nii.gz": _read_scan,
}
