"""Meshes read from files: their distances, and what is inside."""

from __future__ import annotations

import io
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from inrkit.errors import DataError
from inrkit.signals.decoding import decoding

_QUERIES = 1 << 16
"""Points whose winding numbers are computed at a time."""
_EXTENTS = (1e-30, 1e30)
"""Extents of a mesh whose distances float32 holds with full precision."""


class Solid:
    """A mesh in [−1, 1]³: what is near it, and what is inside.

    Inside is where the generalised winding number exceeds one half (Jacobson et al. 2013; Barill et al. 2018 for how
    it is computed), which open and overlapping surfaces have too.

    Args:
        vertices: (V, 3) float64 in [−1, 1]³.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        center: (3,) of the cube, in the mesh's own units.
        scale: half the side of the cube, likewise.
        notes: what was assumed about the mesh.
    """

    def __init__(
        self, vertices: np.ndarray, faces: np.ndarray, center: np.ndarray, scale: float, notes: list[str]
    ) -> None:
        import igl

        self.vertices = vertices
        self.faces = faces
        self.center = center
        self.scale = scale
        self.notes = notes
        self._tree = igl.AABB()
        self._tree.init(vertices, faces)

    @classmethod
    def read(cls, path: Path, margin: float) -> Solid:
        """The mesh in a file: its parts joined, its seams closed, its faces turned outwards.

        Args:
            path: of a mesh.
            margin: room between the mesh and the faces of [−1, 1]³.

        Raises:
            DataError: there is no mesh in the file, or none with a surface.
        """
        vertices, faces = _load(path)
        corners = vertices[np.unique(faces)]
        wrong = int((~np.isfinite(corners)).any(axis=1).sum())
        if wrong:
            raise DataError(f"{path} has {wrong:,} vertices that are NaN or infinite; check how it was written")
        low, high = corners.min(axis=0), corners.max(axis=0)
        extent = float(np.max(high / 2 - low / 2))
        if extent == 0:
            raise DataError(f"{path} has degenerate faces only: all its vertices are one point")
        if not _EXTENTS[0] < extent < _EXTENTS[1]:
            raise DataError(f"{path} is {2 * extent:.3g} units long, which float32 cannot hold; scale the mesh first")
        scale = extent / (1 - margin)
        center = low / 2 + high / 2
        with np.errstate(over="ignore", invalid="ignore"):  # of vertices that no face has
            cube = (vertices - center) / scale
        vertices, faces, notes = _repaired(cube, faces)
        if not len(faces):
            raise DataError(f"{path} has degenerate faces only: none has an area; check how it was written")
        return cls(vertices, faces, center, scale, notes)

    @property
    def affine(self) -> np.ndarray:
        """(3, 4) map from [−1, 1]³ to the mesh's own units."""
        return np.column_stack([self.scale * np.eye(3), self.center])

    @cached_property
    def normals(self) -> np.ndarray:
        """(F, 3) unit normals of the faces."""
        return face_normals(self.vertices, self.faces)

    def inside(self, points: np.ndarray) -> np.ndarray:
        """(k,) whether each of (k, 3) points is inside."""
        import igl

        parts = (points[start : start + _QUERIES] for start in range(0, len(points), _QUERIES))
        return np.concatenate(
            [igl.fast_winding_number(self.vertices, self.faces, _doubles(part)) > 0.5 for part in parts]
        )

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(k,) distances of (k, 3) points to the surface, and the (k,) faces that are nearest."""
        squared, faces, _ = self._tree.squared_distance(self.vertices, self.faces, _doubles(points))
        return np.sqrt(squared), faces

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """(k,) distances of (k, 3) points to the surface, negative inside.

        `igl.signed_distance` with its fast winding number gives them times |1 − 2w|, w the winding number: a
        distance only where w is 0 or 1.
        """
        distances, _ = self.nearest(points)
        return np.where(self.inside(points), -distances, distances)


def sampled(vertices: np.ndarray, faces: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 3) points uniform on a surface, and the (count,) faces that they are on."""
    import trimesh

    points, on = trimesh.sample.sample_surface(trimesh.Trimesh(vertices, faces, process=False), count, seed=seed)[:2]
    return np.asarray(points), np.asarray(on)


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) float64 vertices and (F, 3) int64 triangles of all parts of the mesh in a file."""
    import trimesh

    suffix = path.suffix.lower()
    if suffix.removeprefix(".") not in trimesh.available_formats():
        raise DataError(f"{path} is neither a mesh nor a .npy or .npz volume; give an obj, ply, stl, off or glb")
    materials = {"skip_materials": True} if suffix == ".obj" else {}
    with decoding(path, f"is no {path.suffix.lower()} file, or is damaged", "trimesh"):
        with _opened(path) as file:
            scene = trimesh.load_scene(file, file_type=suffix[1:], process=False, **materials)
        parts = scene.dump()
        meshes = [part for part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
        vertices = [np.asarray(mesh.vertices, dtype=np.float64) for mesh in meshes]
        before = np.cumsum([0, *(len(part) for part in vertices)])
        faces = [
            np.asarray(mesh.faces, dtype=np.int64) + first for mesh, first in zip(meshes, before[:-1], strict=True)
        ]
        if any(
            part.min() < first or part.max() >= last
            for part, first, last in zip(faces, before[:-1], before[1:], strict=True)
        ):
            raise DataError(f"{path} has faces whose vertices do not exist; check how it was written")
    if meshes:
        return np.concatenate(vertices), np.concatenate(faces)
    points = sum(len(part.vertices) for part in parts)
    if points:
        raise DataError(
            f"{path} is a point cloud: {points:,} points and no faces; reconstruct a surface first, for instance by "
            "Poisson reconstruction"
        )
    raise DataError(f"{path} has no faces and so no surface, or is damaged; check that it opens elsewhere")


def _opened(path: Path) -> BinaryIO:
    """A mesh's file, its text as UTF-8: names and comments in other encodings are no reason not to read a mesh."""
    if path.suffix.lower() not in (".obj", ".off"):
        return path.open("rb")
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        data = data.decode("latin-1").encode("utf-8")
    return io.BytesIO(data)


def _repaired(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A mesh that distances and winding numbers can be computed of, and notes on what was assumed for it.

    Args:
        vertices: (V, 3) in [−1, 1]³ where faces have them.
        faces: (F, 3).
    """
    import trimesh

    notes = []
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.remove_unreferenced_vertices()
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    distinct = (mesh.faces != np.roll(mesh.faces, 1, axis=1)).all(axis=1)
    flat = int((~distinct).sum())
    mesh.update_faces(distinct)
    once = mesh.unique_faces()
    if not once.all():
        notes.append(f"duplicate faces were taken once: {(~once).sum():,}")
        mesh.update_faces(once)
    if len(mesh.faces):
        oriented, more = _outward(np.array(mesh.vertices), np.array(mesh.faces))
        mesh.faces = oriented
        notes += _topology(oriented) + more
    thick = mesh.area_faces > 1e-15
    flat += int((~thick).sum())
    mesh.update_faces(thick)
    if flat:
        notes.append(f"degenerate faces, without area, were dropped: {flat:,}")
    mesh.remove_unreferenced_vertices()
    return np.array(mesh.vertices, dtype=np.float64), np.array(mesh.faces, dtype=np.int64), notes


def _topology(faces: np.ndarray) -> list[str]:
    """Notes on (F, 3) faces that do not bound a solid."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    notes = []
    if (counts == 1).any():
        notes.append(
            f"the mesh is open ({(counts == 1).sum():,} edges with one face): inside is where its winding number "
            "exceeds one half"
        )
    if (counts > 2).any():
        notes.append(
            f"the mesh is not manifold (edges with more than two faces: {(counts > 2).sum():,}): inside is where its "
            "winding number exceeds one half"
        )
    return notes


def _outward(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Faces turned so that their normals point outwards, and notes on which were not.

    A part with a negative volume may be a cavity: it stays so where another part holds it.
    """
    import igl

    notes = []
    agreeing, patches = igl.bfs_orient(faces)
    turned = (agreeing != faces).any(axis=1)
    members = np.bincount(patches)
    mixed = np.bincount(patches, weights=turned) % members > 0
    if mixed.any():
        notes.append("faces of one part point to different sides: they were made to agree")
        outwards = np.bincount(patches, weights=_volumes(vertices, agreeing, patches)) >= 0
        agreeing = np.where(outwards[patches][:, None], agreeing, agreeing[:, ::-1])
        faces = np.where(mixed[patches][:, None], agreeing, faces)
    _, parts = igl.facet_components(faces)
    volumes = np.bincount(parts, weights=_volumes(vertices, faces, parts))
    if volumes.sum() < 0:
        faces, volumes = faces[:, ::-1], -volumes
        notes.append("the mesh is inside out, its normals point inwards: it was turned")
    inwards = 0
    for part in np.flatnonzero(volumes < 0):
        others = parts != part
        corners = _doubles(vertices[np.unique(faces[~others])[:64]])
        if not others.any() or igl.fast_winding_number(vertices, _whole(faces[others]), corners).mean() <= 0.5:
            faces = np.where(others[:, None], faces, faces[:, ::-1])
            inwards += 1
    if inwards:
        notes.append(f"parts of the mesh that are inside out were turned: {inwards:,}")
    return _whole(faces), notes


def _volumes(vertices: np.ndarray, faces: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(F,) signed volumes of the tetrahedra between each face and the centre of its part."""
    corners = vertices[faces]
    middles = corners.mean(axis=1)
    members = np.maximum(1, np.bincount(parts))
    centers = np.stack([np.bincount(parts, weights=middles[:, axis]) / members for axis in range(3)], axis=1)
    corners = corners - centers[parts][:, None]
    return np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F, 3) unit normals; NaN for a face without area."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def _doubles(points: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(points, dtype=np.float64)


def _whole(faces: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(faces, dtype=np.int64)
