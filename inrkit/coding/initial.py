"""Finding a network's initial weights in the stream of torch's generator, so that a file need only name them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from inrkit.coding.tensors import Initial, uniform_stream

_TOLERANCE = 1e-5
_SPARES = 0.8
"""A group is told from its initial values if that leaves at most this much of its mean square."""


def found_initial(drawn: np.ndarray, trained: np.ndarray, widths: Sequence[int], seed: int) -> Initial | None:
    """Where the initial values of a matrix are in the stream, for the groups that are told from them in fewer bits.

    Nothing is assumed of how a network draws its weights: each group is looked for. One that is not uniform about 0
    is not found.

    Args:
        drawn: (n, K) initial values of the distinct draws; rows of the matrix have them in turn.
        trained: (R, K) values after training.
        widths: of groups of columns.
        seed: that the generator was given before it drew.

    Returns:
        None if no group is found, or none gains.
    """
    draws, columns = drawn.shape
    stream = uniform_stream(seed & 0xFFFFFFFF, 4 * draws * columns + 4096)
    centred = 2 * stream - (1 << 24)
    ends = np.cumsum([0, *widths])
    parts = [drawn[:, start:stop].astype(np.float64) for start, stop in itertools.pairwise(ends)]
    reach = 4 * columns + 2048
    offsets = [_offset(part[0], centred[:reach]) for part in parts]
    stride = len(stream)
    if draws > 1:
        known = next((group for group, offset in enumerate(offsets) if offset >= 0), None)
        after = -1 if known is None else offsets[known] + widths[known]
        second = -1 if known is None else _offset(parts[known][1], centred[after : after + reach])
        if known is None or second < 0:
            return None
        stride = after + second - offsets[known]
    elif max(offsets) >= 0:
        stride = max(offset + width for offset, width in zip(offsets, widths, strict=True) if offset >= 0)
    if draws * stride > len(stream):
        return None
    bounds = []
    for group, (part, width) in enumerate(zip(parts, widths, strict=True)):
        bound = 0.0
        if 0 <= offsets[group] <= stride - width:
            at = (np.arange(draws) * stride + offsets[group])[:, None] + np.arange(width)[None]
            units = centred[at] / (1 << 24)
            bound = float(np.float32((units * part).sum() / (units * units).sum()))
            mine = trained[:, ends[group] : ends[group + 1]]
            left = mine - (units * bound)[np.arange(len(mine)) % draws]
            exact = np.abs(units * bound - part).max() <= _TOLERANCE * abs(bound)
            if not exact or np.square(left).mean() > _SPARES * np.square(mine).mean():
                bound = 0.0
        offsets[group] = offsets[group] if bound else -1
        bounds.append(bound)
    if max(offsets) < 0:
        return None
    return Initial(seed & 0xFFFFFFFF, draws, stride, tuple(offsets), tuple(bounds))


def _offset(values: np.ndarray, centred: np.ndarray) -> int:
    """Where in a stream stands what is proportional to the first of some values; −1 for nowhere."""
    if len(values) < 3 or not values[:3].all():
        return -1
    first, second, third = (centred[shift : len(centred) - 2 + shift].astype(np.float64) for shift in range(3))
    near = _TOLERANCE * (1 << 24)
    alike = (np.abs(values[0] * second - values[1] * first) < near * np.abs(values[:2]).max()) & (
        np.abs(values[0] * third - values[2] * first) < near * np.abs(values[:3]).max()
    )
    places = np.flatnonzero(alike)
    return int(places[0]) if len(places) else -1
