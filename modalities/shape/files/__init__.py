"""Mesh files, read and written by what each format's specification says: a file a format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inrkit.errors import ConfigError, DataError
from inrkit.modalities.shape.files import gltf, obj, off, ply, points, stl
from inrkit.modalities.shape.files.polygons import Polygons
from inrkit.signals.decoding import decoding

MESH_SUFFIXES = (".ply", ".obj", ".stl", ".glb")
"""What meshes are written as."""

_READERS = {
    ".obj": obj.read,
    ".ply": ply.read,
    ".stl": stl.read,
    ".off": off.read,
    ".glb": gltf.read,
    ".gltf": gltf.read,
    ".xyz": points.read_text,
    ".npz": points.read_arrays,
}
_SINGLE = 1e-6
"""The share of a mesh's extent that rounding to float32 may move a vertex by."""


def read_polygons(path: Path) -> Polygons:
    """The vertices and faces of the mesh in a file, or the vertices of a point cloud.

    Raises:
        DataError: the file is no mesh, is damaged, or has faces whose vertices do not exist or have no place.
    """
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise DataError(
            f"{path} is neither a mesh nor a .npy or .npz volume, by its suffix; shapes are read from .npy and "
            f"{', '.join(_READERS)}"
        )
    with decoding(path, f"is no {suffix} file, or is damaged"):
        held = _READERS[suffix](path)
    wrong = (held.corners < 0) | (held.corners >= len(held.vertices))
    if wrong.any():
        raise DataError(
            f"{path} has faces whose vertices do not exist (index {held.corners[wrong][0]:,}, counted from 0, of "
            f"{len(held.vertices):,} vertices); check how it was written"
        )
    used = np.unique(held.corners) if len(held.corners) else slice(None)
    lost = int((~np.isfinite(held.vertices[used])).any(axis=1).sum())
    if lost:
        raise DataError(f"{path} has {lost:,} vertices that are NaN or infinite; check how it was written")
    return held


def write_mesh(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Write a mesh, in the format that the suffix names; one without faces is a valid file too.

    Coordinates are in single precision where that moves no vertex by more than a millionth of the mesh's extent. For
    a mesh far from the origin .ply is in double precision, .stl is text, and .glb has the mesh's middle in its node;
    .obj always has nine significant digits of the extent.

    Args:
        path: to write to.
        vertices: (V, 3).
        faces: (F, 3).

    Raises:
        ConfigError: the suffix names no format that is written.
    """
    extent = float(np.ptp(vertices, axis=0).max()) if len(vertices) else 0.0
    moved = float(np.abs(vertices - vertices.astype(np.float32)).max()) if len(vertices) else 0.0
    far = moved > _SINGLE * extent
    match checked_suffix(path):
        case ".obj":
            data = obj.data_of(vertices, faces)
        case ".ply":
            data = ply.data_of(vertices, faces, double=far)
        case ".stl":
            data = stl.data_of(vertices, faces, text=far)
        case _:
            data = gltf.data_of(vertices, faces, far)
    path.write_bytes(data)


def checked_suffix(path: Path) -> str:
    """The suffix of a file that a shape can be written to.

    Raises:
        ConfigError: it names no format that is written.
    """
    suffix = path.suffix.lower()
    if suffix not in (*MESH_SUFFIXES, ".npy"):
        written = f"as '{suffix}'" if suffix else "without a suffix"
        raise ConfigError(f"shapes are not written {written}; choose one of: {', '.join(MESH_SUFFIXES)}, .npy")
    return suffix
