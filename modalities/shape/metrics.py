"""How near a field and its surface are to the file's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrkit.evaluation.metrics import METRICS, Metric
from inrkit.modalities.shape.cloud import Cloud
from inrkit.modalities.shape.solid import Solid, face_normals
from inrkit.modalities.shape.surface import SLAB
from inrkit.runs.field import Field
from inrkit.signals.lattice import lattice_coordinates

_HELD_OUT = 1 << 17
"""Points that volumes are compared at."""
_SURFACE_SAMPLES = 1 << 15
"""Points on each of two surfaces that they are compared at."""
_F_SCORE_TOLERANCE = 0.01
"""Of the diagonal of the original's bounding box."""


@METRICS.register("sign_iou")
class SignIoU(Metric):
    """Intersection over union of where prediction and signal are negative, over the training samples."""

    title = "sign IoU"

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        super().__init__(shape, channels, peak)
        self._both = 0
        self._either = 0

    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        inside, expected = prediction < 0, target < 0
        self._both += int((inside & expected).sum())
        self._either += int((inside | expected).sum())

    def compute(self) -> float:
        return self._both / self._either if self._either else 1.0


def mesh_iou(field: Field, original: Solid | Cloud) -> float:
    """See `Shape.assess`."""
    points = np.random.default_rng(0).uniform(-1, 1, (_HELD_OUT, 3))
    expected = original.inside(points)
    offset = points * original.scale + original.center - field.affine[:, 3]
    # A field of another file's cube knows nothing beyond it.
    cube = np.linalg.solve(field.affine[:, :3], offset.T).T
    inside = (field(cube)[:, 0] < 0) & (np.abs(cube) <= 1).all(axis=1)
    return float((inside & expected).sum() / max(1, (inside | expected).sum()))


def volume_iou(field: Field, volume: np.ndarray) -> float:
    """See `Shape.assess`."""
    layer = volume.shape[1] * volume.shape[2]
    rows = max(1, SLAB // layer)
    both = either = 0
    for first in range(0, volume.shape[0], rows):
        expected = volume[first : first + rows].reshape(-1) < 0
        indices = torch.arange(first * layer, first * layer + len(expected))
        inside = field(lattice_coordinates(indices, volume.shape)).cpu().numpy()[:, 0] < 0
        both += int((inside & expected).sum())
        either += int((inside | expected).sum())
    return both / max(1, either)


def surface_metrics(original: Solid | Cloud, vertices: np.ndarray, faces: np.ndarray) -> dict[str, float]:
    """Chamfer distance, normal consistency and F-score; see `Shape.assess`.

    Args:
        original: the mesh, or points with normals.
        vertices: (V, 3) of the other surface, in the mesh's own units.
        faces: (F, 3) of the other surface.
    """
    cube = (vertices - original.center) / original.scale
    normals = face_normals(cube, faces)
    has_area = np.isfinite(normals).all(axis=1)
    if not has_area.any():
        return {"chamfer": math.inf, "normal_consistency": 0.0, "f_score": 0.0}
    drawn = Solid(cube, faces[has_area], original.center, original.scale, [])
    diagonal = float(np.linalg.norm(np.ptp(original.vertices, axis=0)))
    distances, agreements, shares = [], [], []
    pairs: tuple[tuple[Any, Any], ...] = ((drawn, original), (original, drawn))
    for one, other in pairs:
        points, on = one.sampled(_SURFACE_SAMPLES, 0)
        away, nearest = other.nearest(points)
        distances.append(float(away.mean()) / diagonal)
        agreements.append(float(np.abs((one.normals[on] * other.normals[nearest]).sum(axis=1)).mean()))
        shares.append(float((away <= _F_SCORE_TOLERANCE * diagonal).mean()))
    f_score = 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0
    return {"chamfer": sum(distances) / 2, "normal_consistency": sum(agreements) / 2, "f_score": f_score}
