"""Where a picture lies on the ground: the tags of GeoTIFF, and of GDAL."""

from __future__ import annotations

from typing import Any

import numpy as np

_SCALE, _TIEPOINTS, _TRANSFORMATION = 33550, 33922, 34264
_KEYS, _KEY_DOUBLES, _KEY_TEXTS = 34735, 34736, 34737
_GDAL_METADATA = 42112
NODATA = 42113

_TYPES = {_SCALE: "d", _TIEPOINTS: "d", _TRANSFORMATION: "d", _KEYS: "H", _KEY_DOUBLES: "d", _KEY_TEXTS: "s"}
_TYPES[_GDAL_METADATA] = "s"
_MODEL_TYPE, _RASTER_TYPE, _LINEAR_UNITS = 1024, 1025, 3076
_GEOGRAPHIC, _METRE = 2, 9001
_PIXEL_IS_POINT = 2

Tags = dict[str, Any]
"""Numbers of tags as text, with a list of numbers or a text each: what JSON keeps."""


def geo_tags(tags: Any) -> Tags:
    """The tags of a TIFF's page that say where it lies; empty where none does."""
    found: Tags = {}
    for code, kind in _TYPES.items():
        value = tags.valueof(code)
        if value is None:
            continue
        found[str(code)] = str(value) if kind == "s" else np.atleast_1d(value).tolist()
    return found if str(_KEYS) in found or str(_SCALE) in found or str(_TRANSFORMATION) in found else {}


def ground_affine(tags: Tags, shape: tuple[int, int]) -> np.ndarray | None:
    """The (2, 3) map from [−1, 1]² to ground coordinates (y, x), the order of rows and columns.

    Args:
        tags: of the file.
        shape: (height, width) of the picture in the file.

    Returns:
        None where the tags hold no map that can be inverted, such as control points alone.
    """
    matrix = _matrix(tags)
    if matrix is None:
        return None
    offset = _offset(tags)
    # From [−1, 1]² to (column, row) of the raster, from there to (x, y).
    raster = np.array([[0, shape[1] / 2, shape[1] / 2 - offset], [shape[0] / 2, 0, shape[0] / 2 - offset]])
    ground = matrix[:, :2] @ raster
    ground[:, 2] += matrix[:, 2]
    ground = ground[::-1]
    return ground if np.isfinite(ground).all() and np.linalg.det(ground[:, :2]) != 0 else None


def ground_unit(tags: Tags) -> str:
    """The unit of ground coordinates: "degree", "m", or "own" where the keys name another one, or none."""
    entries = _entries(tags)
    if entries.get(_MODEL_TYPE) == _GEOGRAPHIC:
        return "degree"
    return "m" if entries.get(_LINEAR_UNITS, _METRE if entries else 0) == _METRE else "own"


def shifted(tags: Tags, begins: tuple[float, float]) -> Tags:
    """The tags of a picture whose first pixel lies so many rows and columns further than that of the file."""
    row, column = begins
    moved = dict(tags)
    if str(_TIEPOINTS) in tags:
        points = np.array(tags[str(_TIEPOINTS)], dtype=float).reshape(-1, 6)
        moved[str(_TIEPOINTS)] = (points - [column, row, 0, 0, 0, 0]).reshape(-1).tolist()
    if str(_TRANSFORMATION) in tags:
        move = np.eye(4)
        move[:2, 3] = column, row
        matrix = np.array(tags[str(_TRANSFORMATION)], dtype=float).reshape(4, 4) @ move
        moved[str(_TRANSFORMATION)] = matrix.reshape(-1).tolist()
    return moved


def rescaled(tags: Tags, ratio: tuple[float, float]) -> list[tuple[int, str, int, Any, bool]]:
    """The tags, as tifffile writes them, of a picture that covers the same ground with pixels of another size.

    Args:
        tags: of the file that was read.
        ratio: how much higher and wider a pixel is than there.
    """
    high, wide = ratio
    offset = _offset(tags)
    written = []
    for code, kind in _TYPES.items():
        value = tags.get(str(code))
        if value is None:
            continue
        if code == _SCALE:
            value = [value[0] * wide, value[1] * high, *value[2:]]
        elif code == _TIEPOINTS:
            points = np.array(value, dtype=float).reshape(-1, 6)
            points[:, 0] = (points[:, 0] + offset) / wide - offset
            points[:, 1] = (points[:, 1] + offset) / high - offset
            value = points.reshape(-1).tolist()
        elif code == _TRANSFORMATION:
            finer = np.diag([wide, high, 1.0, 1.0])
            finer[:2, 3] = offset * (wide - 1), offset * (high - 1)
            value = (np.array(value, dtype=float).reshape(4, 4) @ finer).reshape(-1).tolist()
        written.append((code, kind, 0 if kind == "s" else len(value), value, True))
    return written


def without_value(pixels: np.ndarray, text: str, colours: bool) -> np.ndarray | None:
    """(H, W) bool, where (H, W) or (H, W, C) stored pixels are what GDAL's tag gives for no data.

    Args:
        pixels: as the file has them.
        text: of the tag.
        colours: whether the channels are one colour, which is no data as a whole; else a channel is enough.

    Returns:
        None if the tag names no number that the pixels can be.
    """
    try:
        nodata = float(text.strip().strip("\0"))
    except ValueError:
        return None
    if pixels.dtype.kind in "iub":
        if not (nodata.is_integer() and np.iinfo(pixels.dtype).min <= nodata <= np.iinfo(pixels.dtype).max):
            return None
        empty = pixels == int(nodata)
    elif np.isnan(nodata):
        empty = np.isnan(pixels)
    else:
        with np.errstate(over="ignore"):
            empty = pixels == pixels.dtype.type(nodata)
        if abs(nodata) > 1e30:  # the lowest of all floats, often with too few digits
            empty |= np.abs(pixels) >= abs(nodata) * (1 - 1e-5)
    if empty.ndim == 2:
        return empty
    return empty.all(axis=2) if colours else empty.any(axis=2)


def _offset(tags: Tags) -> float:
    """Where raster coordinate 0 lies within the first pixel: 0 at its corner, half at its centre."""
    return 0.5 if _entries(tags).get(_RASTER_TYPE) == _PIXEL_IS_POINT else 0.0


def _entries(tags: Tags) -> dict[int, int]:
    """The keys of GeoTIFF and their numbers, which for some are places in other tags."""
    keys = np.array(tags.get(str(_KEYS), []), dtype=int)
    return {int(entry[0]): int(entry[3]) for entry in keys[4 : len(keys) - len(keys) % 4].reshape(-1, 4)}


def _matrix(tags: Tags) -> np.ndarray | None:
    """(2, 3) from raster coordinates (column, row) to (x, y)."""
    transformation, scale, points = (tags.get(str(code), []) for code in (_TRANSFORMATION, _SCALE, _TIEPOINTS))
    if len(transformation) == 16:
        return np.array(transformation, dtype=float).reshape(4, 4)[:2, [0, 1, 3]]
    if len(scale) < 2 or len(points) < 6:
        return None
    column, row, _, x, y, _ = points[:6]
    return np.array([[scale[0], 0, x - column * scale[0]], [0, -scale[1], y + row * scale[1]]], dtype=float)
