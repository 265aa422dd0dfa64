"""What tells whether two signals are the same."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from torch import Tensor

from inrkit.signals.dataset import CoordinateDataset

_CHUNK = 1 << 24
"""Bytes, about, that are hashed at a time, so that a memory map is never in memory as a whole."""


def digest(dataset: CoordinateDataset) -> str:
    """SHA-256 of a signal's dtype, shape, points, stored values, known places and weights, in hexadecimal digits.

    It is not of a file's bytes: a file that was saved anew is the same signal. Where values were computed from
    something else, it is of that, since another processor may round them differently.

    Args:
        dataset: on the CPU, its points those of round 0.
    """
    parts: list[np.ndarray | Tensor | None] = [dataset.points, dataset.values]
    if dataset.source is not None:
        parts = list(dataset.source)
    if dataset.known is not None:
        parts.append(dataset.known)
    if dataset.weights is not None:
        parts.append(dataset.weights)
    described: list[Any] = [[] if part is None else [str(_numbers(part[:0]).dtype), *part.shape] for part in parts]
    found = hashlib.sha256(json.dumps([dataset.dtype.name, dataset.grid_shape, len(dataset), described]).encode())
    for part in parts:
        if part is None:
            continue
        rows = max(1, _CHUNK // max(1, part[:1].nbytes))
        for start in range(0, len(part), rows):
            found.update(np.ascontiguousarray(_numbers(part[start : start + rows])).data)
    return found.hexdigest()


def _numbers(part: np.ndarray | Tensor) -> np.ndarray:
    """The same numbers as an array whose bytes are in the order of most machines."""
    array = part.numpy() if isinstance(part, Tensor) else part
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
