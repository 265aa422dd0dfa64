"""What a mesh file holds, vertices and polygons of any length, and the triangles that the polygons are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from inrkit.errors import DataError

_AT_A_TIME = 1 << 20
"""Corners whose triangles are computed at a time."""
_MOST_CORNERS = 1 << 12
"""Of a face that is no fan: cutting its ears off takes time that grows with the square of their number."""
_FLAT = 1e-12
"""Twice the area, as a share of a polygon's extent squared, below which three corners count as in a line."""


_LONGEST_WORD = 128
"""Characters of a number in a text file; in an array of words each takes as many as the longest."""


def words_of(words: Sequence[bytes] | Sequence[Sequence[bytes]]) -> np.ndarray:
    """Words of a text file, flat or in rows of equal length, as an array of bytes.

    Raises:
        ValueError: one is too long to be a number.
    """
    longest = max((len(word) for row in words for word in ((row,) if isinstance(row, bytes) else row)), default=0)
    if longest > _LONGEST_WORD:
        raise ValueError(f"a number of {longest:,} characters")
    return np.array(words, dtype=bytes)


@dataclass
class Polygons:
    """Vertices and faces as a file has them.

    Args:
        vertices: (V, 3) float64.
        lengths: (P,) int64, how many corners each face has.
        corners: (sum of `lengths`,) int64, the faces' vertices one face after the other.
        normals: (V, 3) float64 normals of the vertices, if the file has any.
        notes: what of the file was left out.
    """

    vertices: np.ndarray
    lengths: np.ndarray
    corners: np.ndarray
    normals: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def has_faces(self) -> bool:
        return bool((self.lengths > 2).any())


def of_triangles(vertices: np.ndarray, faces: np.ndarray) -> Polygons:
    """(V, 3) vertices and (F, 3) triangles."""
    faces = faces.astype(np.int64)
    return Polygons(vertices.astype(np.float64), np.full(len(faces), 3), faces.reshape(-1))


def strip_triangles(strip: np.ndarray) -> np.ndarray:
    """(F, 3) triangles of a (k,) triangle strip, every second one turned; those with a repeated corner are left out."""
    faces = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1) if len(strip) > 2 else np.empty((0, 3), strip.dtype)
    faces[1::2] = faces[1::2, [1, 0, 2]]
    return faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]


def triangulated(polygons: Polygons) -> np.ndarray:
    """(F, 3) int64 triangles of all faces, in the order of the faces.

    A face of n corners gives n − 2 triangles with all its corners, so that they meet the neighbouring faces' edges:
    a fan where all triangles of it turn the same way, which those of a convex face do; ears cut off one by one in the
    face's plane otherwise. Faces with fewer than three corners give none.
    """
    vertices, lengths = polygons.vertices, polygons.lengths
    starts = np.cumsum(lengths) - lengths
    triangles, owners = [np.empty((0, 3), dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for length in np.unique(lengths[lengths > 2]):
        which = np.flatnonzero(lengths == length)
        rows = max(1, _AT_A_TIME // int(length))
        for first in range(0, len(which), rows):
            some = which[first : first + rows]
            corners = polygons.corners[starts[some][:, None] + np.arange(length)]
            triangles.append(_of_equal_lengths(vertices, corners).reshape(-1, 3))
            owners.append(np.repeat(some, length - 2))
    order = np.argsort(np.concatenate(owners), kind="stable")
    return np.concatenate(triangles)[order]


def _of_equal_lengths(vertices: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(M, n − 2, 3) triangles of (M, n) polygons."""
    fans = _fans(corners)
    if corners.shape[1] == 3:
        return fans
    turned = ~_agree(vertices, fans)
    if turned.any():
        others = _fans(np.roll(corners[turned], -1, axis=1))
        fans[turned] = others
        for place, agree in zip(np.flatnonzero(turned), _agree(vertices, others), strict=True):
            if not agree and corners.shape[1] > _MOST_CORNERS:
                raise DataError(
                    f"the mesh has a face of {corners.shape[1]:,} corners that is not convex; save it as triangles"
                )
            if not agree:
                fans[place] = corners[place][_ears(_flattened(vertices[corners[place]]))]
    return fans


def _fans(corners: np.ndarray) -> np.ndarray:
    """(M, n − 2, 3) triangles between the first corner of each of (M, n) polygons and its edges."""
    firsts = np.broadcast_to(corners[:, :1], corners[:, 2:].shape)
    return np.stack([firsts, corners[:, 1:-1], corners[:, 2:]], axis=2)


def _agree(vertices: np.ndarray, fans: np.ndarray) -> np.ndarray:
    """(M,) whether all triangles of each of (M, k, 3) fans turn the way that the whole does."""
    places = vertices[fans]
    with np.errstate(over="ignore", invalid="ignore"):
        areas = np.cross(places[:, :, 1] - places[:, :, 0], places[:, :, 2] - places[:, :, 0])
        whole = areas.sum(axis=1)
        squared = (whole**2).sum(axis=1)
        agree = ((areas * whole[:, None]).sum(axis=2) > _FLAT * squared[:, None]).all(axis=1)
    # A polygon without an area, or without a place, is no better for other triangles.
    return agree | ~(squared > 0) | ~np.isfinite(squared)


def _flattened(corners: np.ndarray) -> np.ndarray:
    """(n, 2) places of (n, 3) corners in the polygon's plane, where it is counter-clockwise."""
    corners = corners - corners.mean(axis=0)
    corners = corners / np.abs(corners).max()
    normal = np.cross(corners, np.roll(corners, -1, axis=0)).sum(axis=0)
    normal /= np.linalg.norm(normal)
    first = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    first /= np.linalg.norm(first)
    return corners @ np.stack([first, np.cross(normal, first)], axis=1)


def _ears(places: np.ndarray) -> np.ndarray:
    """(n − 2, 3) triangles of a counter-clockwise polygon with (n, 2) corners in the plane.

    An ear is a corner that turns left and whose triangle holds no other corner that does not. The ear with the
    shortest third side goes first. All triangles turn left and their edges cancel but for the polygon's, hence they
    cover it once, whatever its shape. Where a polygon crosses itself no ear may be left: a fan takes the rest.

    Source: Meisters, Polygons have ears, American Mathematical Monthly 82 (1975).
    """
    ring = np.arange(len(places))
    triangles = []
    while len(ring) > 3:
        before, after = np.roll(ring, 1), np.roll(ring, -1)
        a, b, c = places[before], places[ring], places[after]
        left = _turns(a, b, c) > _FLAT
        blockers = b[~left]
        ears = np.flatnonzero(left)
        ears = ears[np.argsort(((c - a)[ears] ** 2).sum(axis=1), kind="stable")]
        ear = next((ear for ear in ears if not _holds(a[ear], b[ear], c[ear], blockers)), None)
        if ear is None:
            break
        triangles.append([before[ear], ring[ear], after[ear]])
        ring = np.delete(ring, ear)
    return np.array([*triangles, *_fans(ring[None])[0]])


def _holds(a: np.ndarray, b: np.ndarray, c: np.ndarray, points: np.ndarray) -> bool:
    """Whether a triangle, with its edges and without its corners, holds any of (k, 2) points."""
    within = (_turns(a, b, points) > -_FLAT) & (_turns(b, c, points) > -_FLAT) & (_turns(c, a, points) > -_FLAT)
    at_corner = np.zeros(len(points), dtype=bool)
    for corner in (a, b, c):
        at_corner |= (points == corner).all(axis=1)
    return bool((within & ~at_corner).any())


def _turns(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Twice the signed area of triangles; positive where a, b, c turn left."""
    return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
