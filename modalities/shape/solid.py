"""Meshes read from files: their distances, and what is inside."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from inrkit.errors import DataError
from inrkit.modalities.shape.files import read_polygons
from inrkit.modalities.shape.files.polygons import Polygons, triangulated
from inrkit.modalities.shape.skin import exposed

_QUERIES = 1 << 16
"""Points whose winding numbers are computed at a time."""
_EXTENTS = (1e-30, 1e30)
"""Extents of a mesh whose distances float32 holds with full precision."""
_COARSE = 1e-4
"""Steps between neighbouring float32 coordinates, as a share of a mesh's extent, that are worth a word."""
_FEWEST_CORNERS, _MOST_CORNERS = 4, 64
"""Corners of a part at which is asked what holds it."""


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
        skin: vertices and faces of its surface, where that is not all faces.
    """

    def __init__(
        self,
        vertices: np.ndarray,
        faces: np.ndarray,
        center: np.ndarray,
        scale: float,
        notes: list[str],
        skin: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        import igl

        self.vertices = vertices
        self.faces = faces
        self.center = center
        self.scale = scale
        self.notes = notes
        self._skin = (vertices, faces) if skin is None else skin
        self._tree = igl.AABB()
        self._tree.init(*self._skin)

    @classmethod
    def read(cls, path: Path, margin: float) -> Solid:
        """The mesh in a file; see `of`."""
        return cls.of(path, read_polygons(path), margin)

    @classmethod
    def of(cls, path: Path, held: Polygons, margin: float) -> Solid:
        """The mesh in a file: its parts joined, its seams closed, its faces turned outwards.

        Args:
            path: of the file, for messages.
            held: what it has.
            margin: room between the mesh and the faces of [−1, 1]³.

        Raises:
            DataError: there is no mesh in the file, or none with a surface.
        """
        if not held.has_faces:
            raise DataError(f"{path} has no faces and so no surface, or is damaged; check that it opens elsewhere")
        corners = held.vertices[np.unique(held.corners)]
        cube, center, scale = framed(path, corners, held.vertices, margin)
        vertices, faces, notes = _repaired(cube, triangulated(replace(held, vertices=cube)))
        if not len(faces):
            raise DataError(f"{path} has degenerate faces only: none has an area; check how it was written")
        skin = exposed(vertices, faces)
        if skin[1] is not faces:
            notes.append("parts overlap: what of their faces lies inside the solid is no surface of it")
        return cls(vertices, faces, center, scale, held.notes + _steps(corners, scale * (1 - margin)) + notes, skin)

    @property
    def content(self) -> tuple[np.ndarray, ...]:
        """Arrays that tell the mesh from others."""
        return self.vertices, self.faces, self.affine

    @property
    def affine(self) -> np.ndarray:
        """(3, 4) map from [−1, 1]³ to the mesh's own units."""
        return np.column_stack([self.scale * np.eye(3), self.center])

    @cached_property
    def normals(self) -> np.ndarray:
        """(F, 3) unit normals of the surface's faces."""
        return face_normals(*self._skin)

    def inside(self, points: np.ndarray) -> np.ndarray:
        """(k,) whether each of (k, 3) points is inside."""
        import igl

        parts = (points[start : start + _QUERIES] for start in range(0, len(points), _QUERIES))
        return np.concatenate(
            [igl.fast_winding_number(self.vertices, self.faces, _doubles(part)) > 0.5 for part in parts]
        )

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(k,) distances of (k, 3) points to the surface, and the (k,) faces that are nearest."""
        squared, faces, _ = self._tree.squared_distance(*self._skin, _doubles(points))
        return np.sqrt(squared), faces

    def sampled(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(count, 3) points uniform on the surface, and the (count,) faces that they are on."""
        import trimesh

        mesh = trimesh.Trimesh(*self._skin, process=False)
        points, on = trimesh.sample.sample_surface(mesh, count, seed=seed)[:2]
        return np.asarray(points), np.asarray(on)

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """(k,) distances of (k, 3) points to the surface, negative inside.

        `igl.signed_distance` with its fast winding number gives them times |1 − 2w|, w the winding number: a
        distance only where w is 0 or 1.
        """
        distances, _ = self.nearest(points)
        return np.where(self.inside(points), -distances, distances)


def framed(
    path: Path, corners: np.ndarray, vertices: np.ndarray, margin: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Vertices in [−1, 1]³, (3,) the middle of the cube, and half its side in the file's units.

    Args:
        path: of the file, for messages.
        corners: (k, 3) that the cube is to hold.
        vertices: (V, 3) to bring into it.
        margin: room between the corners and the cube's faces.

    Raises:
        DataError: the corners are one point, or float32 does not hold distances between them.
    """
    low, high = corners.min(axis=0), corners.max(axis=0)
    extent = float(np.max(high / 2 - low / 2))
    if extent == 0:
        raise DataError(f"{path} has degenerate faces only: all its vertices are one point")
    if not _EXTENTS[0] < extent < _EXTENTS[1]:
        raise DataError(f"{path} is {2 * extent:.3g} units long, which float32 cannot hold; scale the mesh first")
    scale = extent / (1 - margin)
    center = low / 2 + high / 2
    with np.errstate(over="ignore", invalid="ignore"):  # of vertices that no face has
        return (vertices - center) / scale, center, scale


def _steps(corners: np.ndarray, extent: float) -> list[str]:
    """A note where (k, 3) corners came in float32, too far from the origin for it."""
    with np.errstate(over="ignore", invalid="ignore"):
        single = corners.astype(np.float32)
        step = float(np.spacing(np.abs(single).max()))
    if step < _COARSE * 2 * extent or (corners != single).any():
        return []
    return [
        f"the file's coordinates are in single precision and far from the origin: they are {step:.3g} apart, on an "
        f"extent of {2 * extent:.4g}"
    ]


def _repaired(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A mesh that distances and winding numbers can be computed of, and notes on what was assumed for it.

    Args:
        vertices: (V, 3) in [−1, 1]³ where faces have them.
        faces: (F, 3).
    """
    import trimesh

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.remove_unreferenced_vertices()
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    distinct = (mesh.faces != np.roll(mesh.faces, 1, axis=1)).all(axis=1)
    flat = int((~distinct).sum())
    once, notes = _once(np.array(mesh.faces)[distinct])
    if len(once):
        once, more = _outward(np.array(mesh.vertices), once)
        notes += _topology(once) + more
    mesh.faces = once
    thick = mesh.area_faces > 1e-15
    flat += int((~thick).sum())
    mesh.update_faces(thick)
    if flat:
        notes.append(f"degenerate faces, without area, were dropped: {flat:,}")
    mesh.remove_unreferenced_vertices()
    return np.array(mesh.vertices, dtype=np.float64), np.array(mesh.faces, dtype=np.int64), notes


def _once(faces: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(F, 3) faces without those that have all their vertices in common, and notes on what became of them.

    One of them stays, but for walls: where closed parts touch with the same faces, the solid goes on behind them, and
    the rest is closed without them.
    """
    _, firsts, counts = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
    repeated = counts > 1
    if not repeated.any():
        return faces, []
    edges = np.sort(faces[firsts][:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, edges = np.unique(edges, axis=0, return_inverse=True)
    edges = edges.reshape(-1, 3)
    others = np.bincount(edges[~repeated].reshape(-1), minlength=edges.max() + 1)
    mine = np.bincount(edges[repeated].reshape(-1), minlength=len(others))
    closed = (others % 2 == 0) & (others + mine > 1)
    patches = _patches(edges[repeated], len(others))
    bounded = np.bincount(patches, weights=(others[edges[repeated]] > 0).any(axis=1)) > 0
    spoilt = np.bincount(patches, weights=~closed[edges[repeated]].all(axis=1)) > 0
    wall = np.zeros(len(firsts), dtype=bool)
    wall[repeated] = (bounded & ~spoilt)[patches]
    notes = []
    if wall.any():
        notes.append(f"walls inside the mesh, where parts of it touch, were left out: {wall.sum():,} faces")
    doubles = int((counts - 1)[repeated & ~wall].sum())
    if doubles:
        notes.append(f"duplicate faces were taken once: {doubles:,}")
    return faces[np.sort(firsts[~wall])], notes


def _patches(edges: np.ndarray, count: int) -> np.ndarray:
    """(F,) number of the patch that each face is in; faces are in one that share one of (F, 3) of `count` edges."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = len(edges) + count
    rows = np.repeat(np.arange(len(edges)), 3)
    links = coo_array((np.ones(len(rows), dtype=bool), (rows, len(edges) + edges.reshape(-1))), shape=(size, size))
    _, patches = connected_components(links, directed=False)
    return np.unique(patches[: len(edges)], return_inverse=True)[1]


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
    waiting = np.flatnonzero(volumes < 0)
    # The outermost first: turned, it may hold what it did not before.
    while len(waiting):
        loose = waiting[_winding_around(vertices, faces, parts, waiting) <= 0.5]
        faces = _turned(faces, np.isin(parts, loose))
        waiting = loose[_winding_around(vertices, faces, parts, loose) > 0.5]
        faces = _turned(faces, np.isin(parts, waiting))
        inwards += len(loose) - len(waiting)
        if len(waiting) == len(loose):
            break
    if inwards:
        notes.append(f"parts of the mesh that are inside out were turned: {inwards:,}")
    return _whole(faces), notes


def _turned(faces: np.ndarray, which: np.ndarray) -> np.ndarray:
    """(F, 3) faces, the (F,) chosen ones from their other side."""
    return np.where(which[:, None], faces[:, ::-1], faces)


def _winding_around(vertices: np.ndarray, faces: np.ndarray, parts: np.ndarray, which: np.ndarray) -> np.ndarray:
    """(k,) mean winding number of all other parts at corners of each of k parts: that of the whole, less its own.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        parts: (F,) the part that each face is of.
        which: (k,) parts.
    """
    import igl

    if not len(which):
        return np.empty(0)
    samples = max(_FEWEST_CORNERS, min(_MOST_CORNERS, _QUERIES // len(which)))
    order = np.argsort(parts, kind="stable")
    ends = np.cumsum(np.bincount(parts))
    members = [order[end - count : end] for end, count in zip(ends[which], np.bincount(parts)[which], strict=True)]
    points = [vertices[faces[rows[:: -(-len(rows) // samples)], 0]] for rows in members]
    whole = igl.fast_winding_number(vertices, _whole(faces), np.concatenate(points))
    own = []
    for rows, some in zip(members, points, strict=True):
        used, corners = np.unique(faces[rows], return_inverse=True)
        own.append(igl.fast_winding_number(vertices[used], _whole(corners.reshape(-1, 3)), some))
    lengths = np.array([len(some) for some in points])
    return np.add.reduceat(whole - np.concatenate(own), np.cumsum(lengths) - lengths) / lengths


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
