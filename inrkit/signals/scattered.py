"""Scattered samples as a dataset."""

from __future__ import annotations

import numpy as np

from inrkit.errors import DataError
from inrkit.signals.dataset import CoordinateDataset


def scattered(points: np.ndarray, values: np.ndarray) -> CoordinateDataset:
    """A dataset of values at free points, whose box is stretched to [−1, 1]^D.

    Args:
        points: (N, D), or (N,) in one dimension, in units that the field's are to be.
        values: (N,) or (N, C).

    Raises:
        DataError: shapes that do not fit each other, no points, or places that are not finite.
    """
    points = points[:, None] if points.ndim == 1 else points
    values = values[:, None] if values.ndim == 1 else values
    if points.ndim != 2 or values.ndim != 2 or len(points) != len(values) or not len(points):
        raise DataError(
            f"points have shape {points.shape} and values {values.shape}; expected (N, D) and (N,) or (N, C), of one N "
            "above 0"
        )
    places = points.astype(np.float64)
    if not np.isfinite(places).all():
        raise DataError(f"point {int((~np.isfinite(places)).any(axis=1).argmax())} is NaN or infinite; leave it out")
    low, high = places.min(axis=0), places.max(axis=0)
    centre, half = (low + high) / 2, np.where(high > low, (high - low) / 2, 1.0)
    affine = np.concatenate([np.diag(half), centre[:, None]], axis=1)
    return CoordinateDataset(values, points=(places - centre) / half, affine=affine, full_scale=False)
