"""The spectrum of a signal on a lattice, measured from a bounded number of its values."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from inrkit.signals.signal import Signal

_SEGMENT = 1 << 14
"""Longest stretch of an axis for one spectrum; a longer axis is cut into such stretches."""
_SEGMENTS = 1 << 10
"""Most stretches for an axis; they are spread evenly over the signal."""
_AT_A_TIME = 1 << 20
"""Values that are gathered at a time."""


def spectral_edges(signal: Signal, share: float) -> tuple[float, ...] | None:
    """The angular frequency along each axis below which a share of the signal's energy lies.

    Args:
        signal: its channels are weighted by its dataset's `channel_weights`.
        share: of the energy without the mean; in (0, 1).

    Returns:
        D numbers, in radians a unit of coordinate; an axis has two units. 0 along an axis where the signal is constant;
        at most π·n/2 for an axis of n cells. None for free points.
    """
    if signal.dataset.grid_shape is None:
        return None
    return tuple(
        _edge(energy_spectrum(signal, axis), share) * math.pi * length / 2
        for axis, length in enumerate(signal.dataset.grid_shape)
    )


def energy_spectrum(signal: Signal, axis: int) -> Tensor:
    """Energy of a lattice along one axis at F frequencies from 0 to half a cycle a cell.

    The mean of the periodograms of stretches along the axis, each less its mean and under a Hann window (Welch's
    method); what a stretch is too short to tell from its mean does not show. Across what is not known a stretch is a
    straight line from the known value before to the one after.

    Returns:
        (F,) float64.
    """
    dataset = signal.dataset
    shape = dataset.grid_shape or (len(dataset),)
    length = shape[axis]
    size = min(length, _SEGMENT)
    stride = math.prod(shape[axis + 1 :])
    # A stretch is identified by its line, one of N / n, and by its position along the line.
    places = torch.arange(0, length - size + 1, max(1, size // 2))
    lines = len(dataset) // length
    count = lines * len(places)
    if dataset.known is not None:
        chosen = _known_stretches(dataset.known.cpu(), length, stride, len(places), max(1, size // 2))
    elif count > _SEGMENTS:
        chosen = _spread_evenly(count)
    else:
        chosen = torch.arange(count)
    line, start = chosen // len(places), places[chosen % len(places)]
    first = torch.div(line, stride, rounding_mode="floor") * stride * length + line % stride + start * stride
    window = torch.hann_window(size, periodic=False, dtype=torch.float64) if size > 2 else torch.ones(size)
    weights = dataset.channel_weights.cpu().to(torch.float64)
    total = torch.zeros(size // 2 + 1, dtype=torch.float64)
    for begin in first.split(max(1, _AT_A_TIME // (size * dataset.channels))):
        indices = begin[:, None] + torch.arange(size) * stride
        if dataset.known is None:
            values = signal.targets(indices.reshape(-1).to(dataset.device)).cpu().to(torch.float64) @ weights
            values = values.view(-1, size)
        else:
            values = _filled(signal, indices, weights)
        values = (values - values.mean(dim=1, keepdim=True)) * window
        total += torch.fft.rfft(values).abs().square().sum(dim=0)
    return total / len(chosen)


def _spread_evenly(count: int) -> Tensor:
    """`_SEGMENTS` numbers below `count`, spread evenly."""
    # Multiples of the golden ratio, modulo 1, are spread evenly and in step with no axis.
    turns = torch.arange(_SEGMENTS, dtype=torch.float64) * ((math.sqrt(5) - 1) / 2)
    return (turns.frac() * count).long()


def _known_stretches(cells: Tensor, length: int, stride: int, starts: int, step: int) -> Tensor:
    """Numbers of stretches along an axis of which something is known, `_SEGMENTS` at most.

    Args:
        cells: (K,) known cells of the lattice.
        length: of the axis.
        stride: from one cell to the next along it.
        starts: how many stretches a line has.
        step: cells from the start of one to that of the next.
    """
    if len(cells) > _SEGMENTS:
        cells = cells[_spread_evenly(len(cells))]
    along = torch.div(cells, stride, rounding_mode="floor") % length
    line = torch.div(cells, stride * length, rounding_mode="floor") * stride + cells % stride
    return (line * starts + torch.div(along, step, rounding_mode="floor").clamp(max=starts - 1)).unique()


def _filled(signal: Signal, cells: Tensor, weights: Tensor) -> Tensor:
    """(s, n) float64 reduced targets of (s, n) cells in stretches, straight lines across what is not known."""
    places, known = signal.dataset.places(cells.to(signal.device))
    values = (signal.targets(places.reshape(-1)).cpu().to(torch.float64) @ weights).view(cells.shape)
    for row, there in zip(values, known.cpu(), strict=True):
        if not there.all():
            positions = np.flatnonzero(there.numpy())
            row[:] = torch.from_numpy(np.interp(np.arange(len(row)), positions, row.numpy()[positions]))
    return values


def _edge(energy: Tensor, share: float) -> float:
    """Share of the frequency range below which `share` of the energy lies; 0 where there is no energy."""
    summed = energy.cumsum(dim=0)
    if len(energy) < 2 or not float(summed[-1]) > 0:
        return 0.0
    # Frequency k of F represents the range around it, over which its energy is taken as evenly spread.
    wanted = share * float(summed[-1])
    index = int(torch.searchsorted(summed, wanted))
    before = float(summed[index - 1]) if index else 0.0
    within = (wanted - before) / float(energy[index])
    return min(1.0, max(0.0, (index - 0.5 + within) / (len(energy) - 1)))
