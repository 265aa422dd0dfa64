"""Scans that nibabel reads: NIfTI, alone or as .hdr and .img, Analyze and FreeSurfer's; NIfTI is written.

Voxel (i, j, k), its centre, lies where the affine maps it to; files at another resolution cover the same extent.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.errors import ConfigError, DataError
from inrkit.modalities.image import LOGGERS
from inrkit.modalities.volume.arrays import Stored
from inrkit.signals.decoding import DEFLATED, decoding, require_memory, require_present, tell_of_unpacking

_VECTORS = 1007
"""Code of the intent of values that are vectors (nifti1.h)."""
MILLIMETRES = {"meter": 1000.0, "m": 1000.0, "cm": 10.0, "micron": 1e-3, "µm": 1e-3, "nm": 1e-6}
SECONDS = {"msec": 1e-3, "ms": 1e-3, "usec": 1e-6, "µs": 1e-6, "min": 60.0}
_COLOURS = {3: [("R", "u1"), ("G", "u1"), ("B", "u1")], 4: [("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")]}


def read_scan(path: Path) -> Stored:
    nibabel = _nibabel(path)
    with nibabel.imageglobals.LoggingOutputSuppressor(), decoding(path, "is not a NIfTI file, or is damaged", *LOGGERS):
        scan = nibabel.load(path)
        if isinstance(scan, nibabel.Cifti2Image):
            raise DataError(
                f"{path} is CIFTI, numbers of a surface's places and no volume; save them as .npy or a table"
            )
        header, proxy = scan.header, scan.dataobj
        scaled = (proxy.slope, proxy.inter) != (1, 0)
        dtype = header.get_data_dtype()
        count = math.prod(header.get_data_shape())
        _require_present(scan, count * dtype.itemsize)
        if scaled and dtype.kind in "iu":
            dtype = np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)
        # The file has its first axis fastest, and a lattice its last: the values are there twice for a moment.
        require_memory(path, 2 * dtype.itemsize * count)
        if path.suffix.lower() in (".gz", ".mgz"):
            tell_of_unpacking(path, header.get_data_dtype().itemsize * count)
        array = np.asarray(proxy, dtype=dtype)
        affine = np.array(scan.affine, dtype=float)
        if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
            raise DataError(f"{path} has an affine that maps its voxels to no volume; set its sform or qform anew")
        metadata: dict[str, Any] = {
            "affine": affine.tolist(),
            "steps": [abs(float(step)) if 0 < abs(step) < math.inf else 1.0 for step in header.get_zooms()[3:]],
            "units": _units(header),
        }
        if isinstance(header, nibabel.Nifti1Header):
            qform = header.get_qform() if header["qform_code"] else None
            metadata |= {
                "space": int(header["sform_code"]),
                "qform": qform.tolist() if qform is not None and np.isfinite(qform).all() else None,
                "qform_space": int(header["qform_code"]),
                "start": float(np.nan_to_num(header["toffset"])),
                "intent": int(header["intent_code"]),
            }
        channels_last = None
        if array.dtype.names is not None:
            array = np.stack([array[name] for name in array.dtype.names], axis=-1)
            channels_last = metadata["colours"] = True
        else:
            array = array.reshape(*array.shape, *[1] * (3 - array.ndim))
            if array.ndim == 5:
                channels_last = array.shape[3] == 1 or metadata.get("intent") == _VECTORS or None
            elif array.ndim == 4 and metadata["units"][1] in ("sec", *SECONDS):
                channels_last = False
    notes = [] if metadata["units"][0] in ("mm", "unknown") else [f"its {metadata['units'][0]}s are taken to mm"]
    return Stored(np.ascontiguousarray(array), channels_last, metadata, notes)


def _require_present(scan: Any, size: int) -> None:
    """Refuse a header that promises more than its file can hold."""
    name = scan.file_map["image"].filename if "image" in scan.file_map else None
    if name is not None and Path(name).exists():
        most = DEFLATED if str(name).lower().endswith((".gz", ".mgz")) else 1
        if not str(name).lower().endswith((".bz2", ".zst")):
            require_present(Path(name), size, Path(name).stat().st_size, most)


def _units(header: Any) -> list[str]:
    """Names of the units of space and time, as nibabel has them."""
    if not hasattr(header, "get_xyzt_units"):
        return ["mm", "msec"]  # FreeSurfer's, and Analyze's
    try:
        return [str(unit) for unit in header.get_xyzt_units()]
    except KeyError:  # a code that stands for none
        return ["unknown", "unknown"]


def physical_affine(cells: np.ndarray, metadata: dict[str, Any]) -> np.ndarray:
    """The map from [−1, 1]^D to millimetres and seconds, of the map `cells` to the indices of cells."""
    dimensions = len(cells)
    length = MILLIMETRES.get(metadata["units"][0], 1.0)
    second = SECONDS.get(metadata["units"][1], 1.0)
    scanner = np.diag([1.0, 1.0, 1.0, *metadata["steps"], *[1.0] * dimensions][:dimensions])
    scanner[:3, :3] = np.array(metadata["affine"])[:3, :3] * length
    if dimensions > 3:
        scanner[3, 3] *= second
    affine = scanner @ cells
    affine[:3, dimensions] += np.array(metadata["affine"])[:3, 3] * length
    if dimensions > 3:
        affine[3, dimensions] += metadata.get("start", 0.0) * second
    return affine


def moved(metadata: dict[str, Any], begins: np.ndarray) -> dict[str, Any]:
    """What says where voxels lie, of a scan that begins (D,) voxels further on each axis than that of `metadata`."""
    move = np.eye(4)
    move[: min(3, len(begins)), 3] = begins[:3]
    if "spacing" in metadata:
        return {"origin": (np.array(metadata["spacing"]) * begins).tolist()}
    place: dict[str, Any] = {"affine": (np.array(metadata.get("affine", np.eye(4))) @ move).tolist()}
    if metadata.get("qform") is not None:
        place["qform"] = (np.array(metadata["qform"]) @ move).tolist()
    steps = [*metadata.get("steps", []), 1.0]
    if len(begins) > 3:
        place["start"] = metadata.get("start", 0.0) + float(begins[3]) * steps[0]
    return place


def write_scan(path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
    """Write (*shape, C) values as NIfTI, over the extent that was read with cells of another size."""
    encoded = _encoded(_nibabel(path), *_in_scanner_order(values, metadata))
    path.write_bytes(gzip.compress(encoded, mtime=0) if path.name.lower().endswith(".gz") else encoded)


def _in_scanner_order(values: np.ndarray, metadata: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """A microscope's stack, whose axes have names, with x first and time last, and its spacing as an affine."""
    names = "".join(metadata.get("axes", ""))
    if "spacing" not in metadata or names not in ("YX", "ZYX", "TYX", "TZYX"):
        return values, metadata
    order = [names.index(name) for name in "XYZT" if name in names]
    turned = values.transpose(*order, values.ndim - 1)
    shape, steps, units = ([metadata[key][axis] for axis in order] for key in ("shape", "spacing", "axis_units"))
    begins = metadata.get("origin", [0.0] * len(names))
    origin = [begins[axis] for axis in order]
    if "Z" not in names:
        turned = np.expand_dims(turned, 2)
        shape.insert(2, 1)
        steps.insert(2, 1.0)
        units.insert(2, units[0])
        origin.insert(2, 0.0)
    lengths = np.array([MILLIMETRES.get(unit, 1.0) for unit in units[:3]])
    affine = np.diag([*(lengths * steps[:3]), 1.0])
    affine[:3, 3] = lengths * origin[:3]
    return turned, {
        "affine": affine.tolist(),
        "steps": [step * SECONDS.get(unit, 1.0) for step, unit in zip(steps[3:], units[3:], strict=True)],
        "start": sum(place * SECONDS.get(unit, 1.0) for place, unit in zip(origin[3:], units[3:], strict=True)),
        "units": ["mm" if all(unit in ("mm", *MILLIMETRES) for unit in units[:3]) else "unknown", "sec"],
        "shape": shape,
        "squeezed": metadata.get("squeezed"),
    }


def _encoded(nibabel: Any, values: np.ndarray, metadata: dict[str, Any]) -> bytes:
    shape, channels = values.shape[:-1], values.shape[-1]
    ratio = np.ones(max(3, len(shape)))
    ratio[: len(shape)] = np.divide(metadata.get("shape", shape), shape)
    cells = np.diag([*ratio[:3], 1.0])
    cells[:3, 3] = (ratio[:3] - 1) / 2
    if values.dtype in (np.bool_, np.float16):
        values = values.astype(np.uint8 if values.dtype.kind == "b" else np.float32)
    if metadata.get("colours") and channels in _COLOURS and values.dtype == np.uint8:
        array = np.ascontiguousarray(values).view(np.dtype(_COLOURS[channels]))[..., 0]
    else:
        array = values.reshape(*shape, *[1] * (3 - len(shape)), *[channels] * (not metadata.get("squeezed")))
    kind = nibabel.Nifti1Image if max(array.shape) < 2**15 else nibabel.Nifti2Image
    affine = np.array(metadata.get("affine", np.eye(4))) @ cells
    scan = kind(array, affine, dtype=array.dtype)
    header = scan.header
    _place(header, affine, cells, metadata)
    header.set_xyzt_units(*metadata.get("units", ()))
    header["intent_code"] = metadata.get("intent", 0)
    steps = np.array([*metadata.get("steps", []), *[1.0] * array.ndim][: array.ndim - 3])
    if len(steps):
        along = np.array([*ratio[3:], *[1.0] * array.ndim])[: len(steps)]
        header["toffset"] = metadata.get("start", 0.0) + (along[0] - 1) / 2 * steps[0]
        header.set_zooms((*header.get_zooms()[:3], *steps * along))
    return bytes(scan.to_bytes())


def _place(header: Any, affine: np.ndarray, cells: np.ndarray, metadata: dict[str, Any]) -> None:
    """Say where the voxels lie in both ways that programs look for, as far as the source does."""
    space, other = metadata.get("space", 1), metadata.get("qform_space", 0)
    header.set_sform(affine, space or other)
    if metadata.get("qform") is not None:
        header.set_qform(np.array(metadata["qform"]) @ cells, other)
        return
    header.set_qform(affine, space)  # without its shears, which a quaternion has not
    if not np.allclose(header.get_qform(), affine, atol=1e-3 * np.abs(affine[:3, :3]).max()):
        header["qform_code"] = 0


def _nibabel(path: Path) -> Any:
    try:
        import nibabel
        import nibabel.imageglobals
    except ImportError as error:
        raise ConfigError(f"{path} is NIfTI, which needs: pip install 'inrkit[medical]'") from error
    return nibabel
