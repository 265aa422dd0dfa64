"""OFF, the object file format of Geomview, with colours, normals and comments."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from inrkit.errors import DataError
from inrkit.modalities.shape.files.polygons import Polygons, words_of

# ST, C and N say what follows a vertex's place; 4 a fourth coordinate; n another number of them. MeshLab writes NC, and
# colours before normals.
_WORD = re.compile(rb"(ST)?(?P<coloured>(?=NC))?C?(?P<normals>N)?C?(?P<homogeneous>4)?(?P<dimension>n)?OFF(?=\d|$)")
_COLOUR = 4
"""Numbers of a vertex's colour in MeshLab's files."""


def read(path: Path) -> Polygons:
    """The vertices and faces of a text file.

    Raises:
        DataError: the file is none, is binary, or ends early.
    """
    lines = [line.partition(b"#")[0].split() for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()]
    lines = [words for words in lines if words]
    word = _WORD.match(lines[0][0]) if lines else None
    if word is None:
        raise DataError(f"{path} is no .off file, or is damaged: it does not begin with 'OFF'")
    if b"BINARY" in lines[0]:
        raise DataError(f"{path} is a binary .off file, which is not read; save it as text, or as .ply")
    if word["dimension"]:
        raise DataError(f"{path} is an nOFF file, of any number of dimensions; save it as OFF, with three")
    # Some files, ModelNet's among them, have the counts on the first line, even joined to the word.
    lines[0] = [part for part in (lines[0][0][word.end() :], *lines[0][1:]) if part]
    lines = [words for words in lines if words]
    if not lines or len(lines[0]) < 2:
        raise DataError(f"{path} is damaged: its header does not say how many vertices and faces it has")
    vertex_count, face_count = int(lines[0][0]), int(lines[0][1])
    if not 0 <= vertex_count <= len(lines) - 1 or not 0 <= face_count <= len(lines) - 1 - vertex_count:
        raise DataError(
            f"{path} is damaged: it announces {vertex_count:,} vertices and {face_count:,} faces and has "
            f"{len(lines) - 1:,} lines for them"
        )
    numbers = 4 if word["homogeneous"] else 3
    rows = lines[1 : 1 + vertex_count]
    if any(len(row) < numbers for row in rows):
        raise DataError(f"{path} has a vertex with fewer than {numbers} numbers; check how it was written")
    places = words_of([row[:numbers] for row in rows]).reshape(-1, numbers).astype(np.float64)
    vertices = places[:, :3] / places[:, 3:] if word["homogeneous"] else places
    normals = None
    before = numbers + (_COLOUR if word["coloured"] is not None else 0)
    if word["normals"] and all(len(row) >= before + 3 for row in rows):
        normals = words_of([row[before : before + 3] for row in rows]).reshape(-1, 3).astype(np.float64)
    lengths: list[int] = []
    corners: list[int] = []
    for row in lines[1 + vertex_count : 1 + vertex_count + face_count]:
        length = int(row[0])
        if not 0 <= length < len(row):
            raise DataError(f"{path} is damaged: a face of {length:,} corners has {len(row) - 1:,} numbers")
        lengths.append(length)
        corners += map(int, row[1 : 1 + length])
    return Polygons(vertices, np.array(lengths, dtype=np.int64), np.array(corners, dtype=np.int64), normals)
