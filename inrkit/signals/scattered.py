"""Scattered samples as a dataset."""

from __future__ import annotations

from typing import Any

import numpy as np

from inrkit.errors import DataError
from inrkit.signals.dataset import CoordinateDataset


def scattered(
    points: np.ndarray, values: np.ndarray, *, held_out: float = 0.0, metadata: dict[str, Any] | None = None
) -> CoordinateDataset:
    """A dataset of values at free points, whose box is stretched to [−1, 1]^D.

    Samples with a NaN, among the places or the values, are not known: they are left out, and a note says how many.
    Samples at one place that differ are all kept, so that a fit goes through their mean; a note says so too.

    Args:
        points: (N, D), or (N,) in one dimension, in the field's physical units.
        values: (N,) or (N, C).
        held_out: share of the samples that are left out of the dataset, though not of the box; see `split`.
        metadata: of the dataset; its notes come before those from here.

    Raises:
        DataError: shapes that do not fit each other, no samples, or places that are infinite.
    """
    points, values, notes = known_samples(points, values)
    low, high = points.min(axis=0), points.max(axis=0)
    centre, half = (low + high) / 2, np.where(high > low, (high - low) / 2, 1.0)
    affine = np.concatenate([np.diag(half), centre[:, None]], axis=1)
    differing = _differing(points, values)
    if differing:
        notes.append(f"{differing:,} samples share a place with another and differ from it; the fit averages them")
    if held_out > 0:
        chosen, left = split(len(points), held_out)
        points, values = points[chosen], values[chosen]
        notes.append(f"{len(left):,} of {len(left) + len(chosen):,} samples are held out of training and rated apart")
    described = {**(metadata or {})}
    notes = [*described.get("notes", []), *notes]
    if notes:
        described["notes"] = notes
    places = (points - centre) / half
    return CoordinateDataset(values, points=places, affine=affine, metadata=described, full_scale=False)


def known_samples(points: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The samples without a NaN: (n, D) float64 places, (n, C) values, and notes on what was left out.

    Args:
        points: (N, D) or (N,).
        values: (N, C) or (N,).

    Raises:
        DataError: as `scattered`.
    """
    points = points[:, None] if points.ndim == 1 else points
    values = values[:, None] if values.ndim == 1 else values
    if points.ndim != 2 or values.ndim != 2 or len(points) != len(values) or not len(points):
        raise DataError(
            f"points have shape {points.shape} and values {values.shape}; expected (N, D) and (N,) or (N, C), of one N "
            "above 0"
        )
    places = _places(points)
    unknown = np.isnan(places).any(axis=1)
    if values.dtype.kind == "f":
        unknown |= np.isnan(values).any(axis=1)
    notes = []
    if unknown.any():
        if unknown.all():
            raise DataError(f"each of the {len(places):,} samples has a NaN; give some whose numbers are all known")
        notes.append(f"{int(unknown.sum()):,} of {len(places):,} samples are not fully known (empty or NaN): left out")
        places, values = places[~unknown], values[~unknown]
    if not np.isfinite(places).all():
        raise DataError(f"point {int((~np.isfinite(places)).any(axis=1).argmax())} is infinite; leave it out")
    return places, values, notes


def _places(points: np.ndarray) -> np.ndarray:
    """(N, D) places as float64."""
    try:
        if points.dtype.kind in "cmM":
            raise TypeError
        return points.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"points are of dtype {points.dtype}; expected real numbers, such as seconds in place of dates"
        ) from error


def split(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices, in order, of the samples to train on and of a share that is held out, the same each time.

    Raises:
        DataError: nothing is left of one of the two.
    """
    left = round(count * share)
    if not 0 < left < count:
        raise DataError(
            f"of {count:,} samples {left} would be held out and {count - left} trained on; choose another share"
        )
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[left:]), np.sort(order[:left])


def _differing(points: np.ndarray, values: np.ndarray) -> int:
    """How many samples share their place with an earlier one and have another value.

    Places are told apart by 64 bits that are mixed from their coordinates: one pair of 2⁶⁴ is taken for the same.
    """
    mixed = np.zeros(len(points), dtype=np.uint64)
    for column in points.T:
        mixed = (mixed ^ (column + 0.0).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    same = mixed[order[1:]] == mixed[order[:-1]]
    return int((same & (values[order[1:]] != values[order[:-1]]).any(axis=1)).sum())
