"""Points alone: .xyz text, and .npz with arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inrkit.errors import DataError
from inrkit.modalities.shape.files.polygons import Polygons, words_of
from inrkit.signals.decoding import archived_array

_NAMES = ("points", "xyz", "vertices")
_OF_UNIT_LENGTH = 0.01


def read_text(path: Path) -> Polygons:
    """Lines of x y z, or of x y z nx ny nz, separated by blanks, commas or semicolons; # begins a comment.

    Three more numbers are a normal if they have unit length in at least nine of ten lines; otherwise, as colours, they
    and all further ones are left out.

    Raises:
        DataError: a line has fewer than three numbers, or fewer than others have.
    """
    data = path.read_bytes().translate(bytes.maketrans(b",;", b"  "))
    rows = [words for words in (line.partition(b"#")[0].split() for line in data.splitlines()) if words]
    columns = min(map(len, rows), default=0)
    if columns < 3:
        raise DataError(f"{path} has a line of {columns} words; a point is x y z, or x y z nx ny nz")
    values = words_of([row[: 6 if columns >= 6 else 3] for row in rows]).astype(np.float64)
    normals = values[:, 3:6] if columns >= 6 else None
    if normals is not None and (np.abs(np.linalg.norm(normals, axis=1) - 1) < _OF_UNIT_LENGTH).mean() < 0.9:
        note = "numbers after x y z have no unit length: they are no normals, and were left out"
        return _of(values[:, :3], None, [note])
    return _of(values[:, :3], normals, [])


def read_arrays(path: Path) -> Polygons:
    """The arrays points (or xyz, or vertices) and normals, both (N, 3), of an .npz.

    Raises:
        DataError: there are none, or they do not belong together.
    """
    with path.open("rb") as opened, np.load(opened) as file:
        name = next((name for name in _NAMES if name in file.files), None)
        if name is None:
            raise DataError(f"{path} holds the arrays {', '.join(file.files) or 'none'}; name the points 'points'")
        points = archived_array(path, file, name)
        normals = archived_array(path, file, "normals") if "normals" in file.files else None
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "iuf":
        raise DataError(f"{path} has points of shape {points.shape} and {points.dtype}; they must be (N, 3) numbers")
    if normals is not None and normals.shape != points.shape:
        raise DataError(f"{path} has {points.shape} points and {normals.shape} normals; each point must have one")
    return _of(points.astype(np.float64), None if normals is None else normals.astype(np.float64), [])


def holds_points(path: Path) -> bool:
    """Whether an .npz has points, by the names of its arrays, and no volume of distances."""
    with path.open("rb") as opened, np.load(opened) as file:
        return "sdf" not in file.files and any(name in file.files for name in _NAMES)


def _of(points: np.ndarray, normals: np.ndarray | None, notes: list[str]) -> Polygons:
    none = np.empty(0, dtype=np.int64)
    return Polygons(points, none, none, normals, notes)
