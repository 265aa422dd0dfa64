"""How fast a signal of free points varies, measured from a bounded number of them."""

from __future__ import annotations

import math

import numpy as np
import torch

from inrkit.signals.signal import Signal

_SAMPLED = 1 << 12
"""Points, at most, whose neighbours are looked at."""
_NEAR, _FAR = 1, 8
"""Which of a point's neighbours are compared."""


def gradient_frequency(signal: Signal) -> float | None:
    """The root mean square of a signal's slope over that of its values less their mean, whatever its noise.

    For a sine it is the angular frequency. Values of neighbours at a distance h differ by the slope, and by noise that
    knows no distance: half their mean squared difference rises with h² from the noise's variance (the variogram of
    geostatistics), and the rise between a near and a farther neighbour tells the slope alone.

    Args:
        signal: of free points, in D dimensions.

    Returns:
        Radians a unit of coordinate, between 1 and half the highest frequency that as many points on a lattice could
        show. None for constants, and for too few points to tell.
    """
    from scipy.spatial import KDTree

    count, dimensions = len(signal), signal.dataset.dimensions
    if count <= _FAR:
        return None
    every = torch.arange(count, device=signal.device)
    points = signal.dataset.coordinates(every).cpu().numpy()
    sampled = np.random.default_rng(0).choice(count, min(count, _SAMPLED), replace=False)
    away, near = KDTree(points).query(points[sampled], k=[1 + _NEAR, 1 + _FAR])

    def values(indices: np.ndarray) -> np.ndarray:
        found = signal.targets(torch.from_numpy(indices).to(signal.device))
        return found.cpu().to(torch.float64).numpy()

    own = values(sampled)
    differences = [np.square(values(others) - own).sum(axis=-1).mean() / 2 for others in near.T]
    squares = np.square(away).mean(axis=0)
    spread = own.var(axis=0).sum()
    if not (squares[1] > squares[0] and spread > 0):
        return None
    rise = max(0.0, (differences[1] - differences[0]) / (squares[1] - squares[0]))
    most = max(1.0, math.pi / 4 * count ** (1 / dimensions))
    return float(min(most, max(1.0, math.sqrt(2 * dimensions * rise / spread))))
