"""Wavefront OBJ."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from inrkit.errors import DataError
from inrkit.modalities.shape.files.polygons import Polygons, words_of

_FREE_FORM = (b"curv", b"curv2", b"surf")


def read(path: Path) -> Polygons:
    """All faces of a file, whatever their object or group; lines, points and materials are left out.

    Raises:
        DataError: a line cannot be understood.
    """
    places: list[list[bytes]] = []
    normals: list[list[bytes]] = []
    lengths: list[int] = []
    corners: list[int] = []
    free_form = 0
    lines = enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(), 1)
    for number, line in lines:
        words = line.partition(b"#")[0].split()
        if not words or words[0].rstrip(b"\\") not in (b"v", b"vn", b"f", b"fo"):
            free_form += bool(words) and words[0] in _FREE_FORM
            continue
        while words[-1].endswith(b"\\"):
            words[-1] = words[-1][:-1]
            words += next(lines, (number, b""))[1].partition(b"#")[0].split()
            words = [word for word in words if word]
        if words[0] in (b"v", b"vn"):
            if len(words) < 4:
                raise DataError(
                    f"{path}, line {number}: a vertex has {len(words) - 1} numbers and must have three; the file is "
                    "cut off or damaged"
                )
            (places if words[0] == b"v" else normals).append(words[1:4])
            continue
        count = len(places)
        lengths.append(len(words) - 1)
        for word in words[1:]:
            parts = word.split(b"/")
            try:
                index = int(parts[0])
            except ValueError:
                raise DataError(
                    f"{path}, line {number}: '{word.decode(errors='replace')}' is no corner of a face; it must be an "
                    "index, as in f 1 2 3 or f 1/1/1 2/2/2 3/3/3"
                ) from None
            if index == 0 or index < -count:
                raise DataError(
                    f"{path}, line {number}: a face has the vertex {index}; OBJ counts from 1, or back from −1 to the "
                    f"{count:,} vertices before the face"
                )
            corners.append(index - 1 if index > 0 else count + index)
    notes = [f"curves and free-form surfaces of the file were left out: {free_form:,}"] if free_form else []
    return Polygons(
        _numbers(path, places),
        np.array(lengths, dtype=np.int64),
        np.array(corners, dtype=np.int64),
        # Faces say which normal a corner has; without faces they can only stand in the vertices' order.
        _numbers(path, normals) if not lengths and len(normals) == len(places) else None,
        notes,
    )


def _numbers(path: Path, words: list[list[bytes]]) -> np.ndarray:
    """(k, 3) float64 numbers of k lists of three words."""
    try:
        return words_of(words).reshape(-1, 3).astype(np.float64)
    except ValueError as error:
        raise DataError(f"{path} has a vertex that is no three numbers ({error})") from None


def data_of(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    """A file of (V, 3) vertices, to nine significant digits of their extent, and (F, 3) triangles."""
    if not len(faces):
        return b"# no surface\n"
    digits = max(1, 9 - math.floor(math.log10(np.ptp(vertices, axis=0).max() or 1.0)))
    lines = [f"v {x:.{digits}f} {y:.{digits}f} {z:.{digits}f}\n" for x, y, z in vertices.tolist()]
    lines += [f"f {a} {b} {c}\n" for a, b, c in (faces + 1).tolist()]
    return "".join(lines).encode()
