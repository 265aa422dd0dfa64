"""The part of a mesh's faces that bounds its solid, where parts overlap or lie inside each other."""

from __future__ import annotations

import numpy as np

_PLACES = np.array([[1, 1, 1], [2.8, 0.1, 0.1], [0.1, 2.8, 0.1], [0.1, 0.1, 2.8]]) / 3
"""Where a face is asked whether it lies inside: its middle, and near its corners; in barycentric coordinates."""
_BESIDE = 1e-6
"""Distance from a face at which its sides are looked at; a mesh spans [−1, 1]³."""
_HALVINGS = 5
"""How often a face is cut into four that lies inside in part."""
_MANY = 20_000
"""Faces of a mesh that are asked at their middles first, and elsewhere only if one of these lies inside."""


def exposed(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a mesh without what has the solid on both sides.

    Faces that lie inside in part are cut; up to a thirtieth of a face stays beyond the cut, and nothing of the surface
    is lost. A mesh of which nothing lies inside is given back as it is.

    Args:
        vertices: (V, 3) float64 in [−1, 1]³.
        faces: (F, 3) int64.
    """
    pending, kept = vertices[faces], []
    if len(faces) > _MANY and not _hidden(pending, vertices, faces, _PLACES[:1]).any():
        return vertices, faces
    for halving in range(_HALVINGS + 1):
        hidden = _hidden(pending, vertices, faces)
        if halving == 0 and not hidden.any():
            return vertices, faces
        partly = hidden.any(axis=1) & ~hidden.all(axis=1)
        kept.append(pending[~hidden.any(axis=1) if halving < _HALVINGS else ~hidden.all(axis=1)])
        pending = _quartered(pending[partly])
        if not len(pending):
            break
    corners = np.concatenate(kept)
    if not len(corners):  # faces that bound nothing
        return vertices, faces
    return corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3)


def _hidden(corners: np.ndarray, vertices: np.ndarray, faces: np.ndarray, weights: np.ndarray = _PLACES) -> np.ndarray:
    """(k, n) whether each of (k, 3, 3) faces has the solid of a mesh on both sides, at places of it by their
    (n, 3) barycentric coordinates."""
    import igl

    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    away = _BESIDE * normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(min=1e-300)
    places = weights @ corners
    hidden = np.ones(places.shape[:2], dtype=bool)
    for side in (away, -away):
        asked = np.flatnonzero(hidden)
        if len(asked):
            points = (places + side[:, None]).reshape(-1, 3)[asked]
            hidden.flat[asked] = igl.fast_winding_number(vertices, faces, np.ascontiguousarray(points)) > 0.5
    return hidden


def _quartered(corners: np.ndarray) -> np.ndarray:
    """(4k, 3, 3) quarters of (k, 3, 3) faces."""
    a, b, c = np.moveaxis(corners, 1, 0)
    ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
    quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return np.concatenate([np.stack(quarter, axis=1) for quarter in quarters])
