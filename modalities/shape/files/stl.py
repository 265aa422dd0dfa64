"""STL, binary and as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inrkit.errors import DataError
from inrkit.modalities.shape.files.polygons import Polygons, of_triangles, words_of

_HEADER = 84
_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def read(path: Path) -> Polygons:
    """The faces of all solids in a file, each with vertices of its own.

    Raises:
        DataError: the file is neither of the two kinds, or ends early.
    """
    data = path.read_bytes()
    count = int.from_bytes(data[80:_HEADER], "little")
    whole = _HEADER + count * _RECORD.itemsize
    # A binary file may begin with "solid" too: what tells is its size.
    if len(data) == whole and count:
        return _binary(data, count)
    if data.lstrip()[:5].lower() == b"solid" and b"\0" not in data:
        return _text(path, data)
    if len(data) < whole or not count:
        raise DataError(
            f"{path} is no .stl file, or is damaged: its header announces {count:,} faces and it has room for "
            f"{max(0, len(data) - _HEADER) // _RECORD.itemsize:,}"
        )
    return _binary(data, count)


def data_of(vertices: np.ndarray, faces: np.ndarray, text: bool) -> bytes:
    """A file of (V, 3) vertices and (F, 3) triangles: binary in single precision, or text in double precision."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    if not text:
        records = np.zeros(len(faces), dtype=_RECORD)
        records["normal"], records["corners"] = normals, corners
        return b"\0" * 80 + len(faces).to_bytes(4, "little") + records.tobytes()
    lines = ["solid"]
    for (x, y, z), triangle in zip(normals.tolist(), corners.tolist(), strict=True):
        lines.append(f"facet normal {x:.6g} {y:.6g} {z:.6g}\nouter loop")
        lines += [f"vertex {x!r} {y!r} {z!r}" for x, y, z in triangle]
        lines.append("endloop\nendfacet")
    return "\n".join([*lines, "endsolid\n"]).encode()


def _binary(data: bytes, count: int) -> Polygons:
    corners = np.frombuffer(data, _RECORD, count, _HEADER)["corners"].reshape(-1, 3)
    return of_triangles(corners, np.arange(len(corners)).reshape(-1, 3))


def _text(path: Path, data: bytes) -> Polygons:
    places: list[list[bytes]] = []
    lengths: list[int] = []
    inside = False
    last = b""
    for number, line in enumerate(data.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        last = words[0].lower()
        if last == b"end":  # as some write it, apart from what ends
            last += b"".join(words[1:2]).lower()
        if last == b"outer":
            inside = True
            lengths.append(0)
        elif last == b"vertex":
            if not inside or len(words) != 4:
                raise DataError(f"{path}, line {number}: expected 'vertex x y z' in an 'outer loop'")
            places.append(words[1:])
            lengths[-1] += 1
        elif last == b"endloop":
            inside = False
    if inside or last != b"endsolid":
        raise DataError(f"{path} is damaged: it ends before 'endsolid'")
    try:
        vertices = words_of(places).reshape(-1, 3).astype(np.float64)
    except ValueError as error:
        raise DataError(f"{path} has a vertex that is no three numbers ({error})") from None
    return Polygons(vertices, np.array(lengths, dtype=np.int64), np.arange(len(vertices)))
