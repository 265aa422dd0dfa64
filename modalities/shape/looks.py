"""Meshes as they are looked at: small enough for a page, each vertex with its distance from the other surface."""

from __future__ import annotations

import numpy as np

from inrkit.signals.modality import Surface

_MOST_VERTICES = 30_000
"""Of a mesh that is looked at; a larger one is drawn from fewer."""


def compared(*meshes: tuple[np.ndarray, np.ndarray]) -> list[Surface]:
    """Two meshes, each with its vertices' distances from the other.

    Args:
        meshes: (V, 3) vertices and (F, 3) faces of each; no faces of points.
    """
    small = [reduced(*mesh) for mesh in meshes]
    return [
        Surface(vertices, faces, _distances(vertices, *other))
        for (vertices, faces), other in zip(small, reversed(small), strict=True)
    ]


def reduced(vertices: np.ndarray, faces: np.ndarray, most: int = _MOST_VERTICES) -> tuple[np.ndarray, np.ndarray]:
    """A mesh of at most so many vertices: the vertices in each cell of a lattice become one, their mean."""
    used = np.unique(faces) if len(faces) else np.arange(len(vertices))
    if len(used) <= most:
        return vertices, faces
    low, extent = vertices[used].min(axis=0), float(np.ptp(vertices[used], axis=0).max()) or 1.0
    cells = round(most**0.5)
    while True:
        keys = ((vertices - low) * (cells / extent)).astype(np.int64).clip(0, cells) @ [(cells + 1) ** 2, cells + 1, 1]
        kept, place = np.unique(keys[used], return_inverse=True)
        if len(kept) <= most:
            break
        cells = round(0.85 * cells)
    numbers = np.zeros(len(vertices), dtype=np.int64)
    numbers[used] = place
    count = np.bincount(place, minlength=len(kept))
    merged = np.stack([np.bincount(place, axis, len(kept)) / count for axis in vertices[used].T], axis=1)
    corners = numbers[faces].reshape(-1, 3)
    distinct = (corners != np.roll(corners, 1, axis=1)).all(axis=1)
    return merged, corners[distinct]


def _distances(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray | None:
    """(V,) distances of points from a mesh, or from other points; None if there is nothing there."""
    if not len(vertices) or not len(points):
        return None
    if not len(faces):
        from scipy.spatial import cKDTree

        nearest: np.ndarray = cKDTree(vertices).query(points)[0]
        return nearest
    import igl

    squared = igl.point_mesh_squared_distance(*(np.ascontiguousarray(each) for each in (points, vertices, faces)))[0]
    distances: np.ndarray = np.sqrt(np.maximum(squared, 0))
    return distances
