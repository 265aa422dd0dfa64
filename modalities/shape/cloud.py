"""Point clouds: the distances to the surface that points were taken from, signed where they have normals."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inrkit.errors import DataError
from inrkit.modalities.shape.files.polygons import Polygons
from inrkit.modalities.shape.solid import framed

_NEIGHBOURS = 8
"""Nearest points that tell how far apart points are."""
_ON_A_PLANE = 0.7
"""Distance from the nearest point, in spacings, up to which its plane tells the sign; the winding number does beyond.
From 0.35 to 1 it made little difference to spot, fandisk and the bunny at 30,000 points, and none was best for all."""
_ROUGH = 0.1
"""Height of the nearest points above a point's plane, in spacings, from which on points are taken for noisy. Noise of
an eighth of a spacing gives as much, and from there on averages are nearer to the surface, at 3,000 points as at
30,000."""
_SMOOTHED, _BLUR = 24, 1.0
"""Planes that are averaged where points are noisy, and the distance, in spacings, over which their weight falls to
1/e."""
_APART = 2.0**-40
"""Distance below which points in [−1, 1]³ are one; float32, in which networks see them, tells 2⁻²⁴."""
_NEAR = 2.0
"""Distance, likewise, up to which a point's plane tells the distance."""


class Cloud:
    """Points in [−1, 1]³ and the surface that they were taken from.

    With normals, inside is where the winding number of the oriented points exceeds one half (Barill et al. 2018), or,
    next to a point, what is behind its plane. The distance is that to the nearest point's plane, or to the point
    itself where that is far and not above its own part of the plane. Where points are noisy, heights above planes are
    averages over those of the nearest points (implicit moving least squares, Kolluri 2008). Without normals all
    distances are positive.

    Args:
        points: (N, 3) float64 in [−1, 1]³.
        normals: (N, 3) unit normals, outwards, or None.
        center: (3,) of the cube, in the file's own units.
        scale: half the side of the cube, likewise.
        notes: what was assumed about the points.
    """

    def __init__(
        self, points: np.ndarray, normals: np.ndarray | None, center: np.ndarray, scale: float, notes: list[str]
    ) -> None:
        from scipy.spatial import cKDTree

        self.points = points
        self.normals = normals
        self.center = center
        self.scale = scale
        self.notes = notes
        self._tree = cKDTree(points)
        away, _ = self._tree.query(points, _NEIGHBOURS + 1)
        self._areas = np.pi * away[:, -1] ** 2 / _NEIGHBOURS
        self._spacings = np.sqrt(self._areas)
        self.rough = normals is not None and self._roughness() > _ROUGH

    @classmethod
    def of(cls, path: Path, held: Polygons, margin: float) -> Cloud:
        """The points of a file without faces.

        Args:
            path: of the file, for messages.
            held: what it has.
            margin: room between the points and the faces of [−1, 1]³.

        Raises:
            DataError: there are too few points, or all are one.
        """
        points, firsts = np.unique(held.vertices, axis=0, return_index=True)
        normals, notes = None, list(held.notes)
        if held.normals is not None:
            normals = held.normals[firsts]
            lengths = np.linalg.norm(normals, axis=1)
            known = np.isfinite(lengths) & (lengths > 0)
            if not known.all() and known.any():
                notes.append(f"points without a normal were left out: {(~known).sum():,}")
            points, normals = (points[known], normals[known] / lengths[known, None]) if known.any() else (points, None)
        _require_enough(path, points)
        cube, center, scale = framed(path, points, points, margin)
        # Beside a point that is far away others nearly become the same, which a tree of cells would part without end.
        firsts = np.sort(np.unique(np.rint(cube / _APART), axis=0, return_index=True)[1])
        if len(firsts) < len(cube):
            notes.append(f"points that are the same beside one far away were taken once: {len(cube) - len(firsts):,}")
            cube, normals = cube[firsts], None if normals is None else normals[firsts]
            _require_enough(path, cube)
        cloud = cls(cube, normals, center, scale, notes)
        if normals is None:
            notes.append(
                "the file is a point cloud without normals: distances are unsigned, and a shell around it is drawn"
            )
            return cloud
        notes.append("the file is a point cloud with normals: distances are to the planes that these tell")
        middle = cube.mean(axis=0)
        if (cloud._areas * ((cube - middle) * normals).sum(axis=1)).sum() < 0:
            cloud.normals = -normals
            notes.append("the normals point inwards: they were turned")
        if cloud.rough:
            notes.append("the points are noisy, by their normals: the planes of neighbours are averaged")
        return cloud

    @property
    def content(self) -> tuple[np.ndarray, ...]:
        """Arrays that tell the points from others."""
        normals = np.empty((0, 3)) if self.normals is None else self.normals
        return self.points, normals, self.affine

    @property
    def affine(self) -> np.ndarray:
        """(3, 4) map from [−1, 1]³ to the file's own units."""
        return np.column_stack([self.scale * np.eye(3), self.center])

    @property
    def vertices(self) -> np.ndarray:
        """(N, 3) the points, as `Solid` calls what bounds it."""
        return self.points

    @property
    def spacing(self) -> float:
        """Side of a square that has one point, its median."""
        return float(np.median(self._spacings))

    def inside(self, points: np.ndarray) -> np.ndarray:
        """(k,) whether each of (k, 3) points is inside."""
        return self.signed_distance(points) < 0

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(k,) distances of (k, 3) points to the surface, and the (k,) points of the cloud that are nearest."""
        away, which = self._tree.query(points)
        if self.normals is None:
            return away, which
        above = np.abs(self._heights(points, which))
        beside = np.sqrt(np.maximum(away**2 - above**2, 0))
        spacings = self._spacings[which]
        return np.where((away < _NEAR * spacings) | (beside < spacings), above, away), which

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """(k,) distances of (k, 3) points to the surface, negative inside where the points have normals."""
        import igl

        points = np.ascontiguousarray(points, dtype=np.float64)
        distances, which = self.nearest(points)
        if self.normals is None:
            return distances
        winding = igl.fast_winding_number(self.points, self.normals, self._areas, points)
        close = np.linalg.norm(points - self.points[which], axis=1) < _ON_A_PLANE * self._spacings[which]
        return np.where(np.where(close, self._heights(points, which) < 0, winding > 0.5), -distances, distances)

    def sampled(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(count, 3) of the points, with repetition, and the (count,) places in the cloud that they have."""
        which = np.random.default_rng(seed).choice(len(self.points), count, p=self._areas / self._areas.sum())
        return self.points[which], which

    def _heights(self, points: np.ndarray, which: np.ndarray) -> np.ndarray:
        """(k,) heights of (k, 3) points above the planes of (k,) points of the cloud, those nearest to them."""
        assert self.normals is not None
        if not self.rough:
            return ((points - self.points[which]) * self.normals[which]).sum(axis=1)
        away, around = self._tree.query(points, min(_SMOOTHED, len(self.points)))
        heights = ((points[:, None] - self.points[around]) * self.normals[around]).sum(axis=2)
        weights = np.exp((away[:, :1] ** 2 - away**2) / (_BLUR * self._spacings[which, None]) ** 2)
        averages: np.ndarray = (weights * heights).sum(axis=1) / weights.sum(axis=1)
        return averages

    def _roughness(self) -> float:
        """How high the nearest other points are above a point's plane, in spacings: the median."""
        assert self.normals is not None
        _, near = self._tree.query(self.points, 2)
        heights = ((self.points[near[:, 1]] - self.points) * self.normals).sum(axis=1)
        return float(np.median(np.abs(heights) / self._spacings))


def _require_enough(path: Path, points: np.ndarray) -> None:
    """Refuse points that are too few for a surface."""
    if len(points) <= 2 * _NEIGHBOURS:
        raise DataError(
            f"{path} is a point cloud of {len(points):,} different points and has no faces; a surface takes more "
            f"than {2 * _NEIGHBOURS}"
        )
