"""Multiresolution hash grid: trained features on lattices of many resolutions, before a small perceptron."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from inrkit.errors import ConfigError
from inrkit.networks.base import NETWORKS
from inrkit.networks.layers import draw_uniform
from inrkit.networks.perceptron import Perceptron
from inrkit.plugins.options import option
from inrkit.signals.signal import Signal

_FREE_RESOLUTION = 256
_MULTIPLIERS = (1, 2654435761, 805459861)
_FINEST = 1 << 16
"""Most cells along an axis: in finer cells, float32 would misplace coordinates by several percent of a cell."""


_MOST_DIMENSIONS = 10


@dataclass
class HashGridOptions:
    levels: int = option(16, at_least=1, at_most=256)
    """L: how many lattices there are, from the coarsest to the finest in equal ratios."""
    level_features: int = option(2, at_least=1)
    """F: features of a vertex."""
    table_bits: int = option(14, at_least=1, at_most=32)
    """log₂ T: the vertices of a level with more than T of them share T entries by hashing."""
    base_resolution: int = option(16, at_least=1)
    """Cells along an axis at the coarsest level."""
    finest_resolution: int = option(0, at_least=0)
    """Cells along an axis at the finest level. 0 means the cells of the signal's lattice along its longest axis, at
    most 65,536; for free points 256."""
    hidden_features: int = option(64, at_least=1, own=True)
    """Width of the perceptron's hidden layers."""
    hidden_layers: int = option(1, at_least=0, at_most=1000, own=True)
    """ReLU layers after the first one."""


@NETWORKS.register("hash-grid")
class HashGrid(Perceptron):
    """Small ReLU perceptron on a multiresolution hash grid (Müller et al., SIGGRAPH 2022, section 3).

    Each level interpolates linearly between the 2^D vertices around a coordinate. A coordinate outside [−1, 1]^D is
    moved to the nearest one inside. Features start uniform in ±1e−4, weights by Glorot's uniform rule, biases at zero.
    """

    Options = HashGridOptions
    resolutions: Tensor
    offsets: Tensor
    strides: Tensor
    hashed: Tensor
    multipliers: Tensor
    corners: Tensor

    def __init__(self, options: HashGridOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        if dimensions > _MOST_DIMENSIONS:
            raise ConfigError(
                f"network is 'hash-grid', which interpolates between the 2^D vertices around a coordinate, and D is "
                f"{dimensions}; choose another network for more than {_MOST_DIMENSIONS} dimensions"
            )
        resolutions = level_resolutions(options)
        self.size = 1 << options.table_bits
        vertices = [(resolution + 1) ** dimensions for resolution in resolutions]
        hashed = [count > self.size for count in vertices]
        *offsets, entries = itertools.accumulate((min(count, self.size) for count in vertices), initial=0)
        strides = [
            [0 if over else (resolution + 1) ** axis for axis in range(dimensions)]
            for over, resolution in zip(hashed, resolutions, strict=True)
        ]
        tables = {
            "resolutions": torch.tensor(resolutions)[:, None],
            "offsets": torch.tensor(offsets)[:, None],
            "strides": torch.tensor(strides)[:, None, :],
            "hashed": torch.tensor(hashed)[:, None],
            "multipliers": torch.tensor([multiplier(axis) for axis in range(dimensions)]),
            "corners": torch.tensor(list(itertools.product((0, 1), repeat=dimensions))),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        self.features = nn.Parameter(torch.empty(entries, options.level_features))
        self.make_layers(options.levels * options.level_features)
        draw_uniform(1e-4, self.features)
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    @classmethod
    def fitted(cls, options: HashGridOptions, signal: Signal) -> HashGridOptions:
        if options.finest_resolution > 0:
            return options
        finest = _FREE_RESOLUTION if signal.dataset.grid_shape is None else min(max(signal.dataset.grid_shape), _FINEST)
        return dataclasses.replace(options, finest_resolution=finest)

    def encode(self, coordinates: Tensor) -> Tensor:
        return self.encoded(coordinates).flatten(start_dim=-2)

    def activation(self, argument: Tensor) -> Tensor:
        return torch.relu(argument)

    def encoded(self, coordinates: Tensor) -> Tensor:
        """(…, L, F) interpolated features at (…, D) coordinates."""
        places = (coordinates.clamp(-1, 1)[..., None, :] + 1) / 2 * self.resolutions
        cells = torch.minimum(places.detach().floor().long().clamp(min=0), self.resolutions - 1)
        inside = (places - cells)[..., None, :]
        weights = torch.where(self.corners == 1, inside, 1 - inside)
        rows = self.rows(cells[..., None, :] + self.corners)
        # Factor by factor, because the derivative of torch.prod branches on its values, and vmap cannot branch.
        shares = weights[..., 0]
        for axis in range(1, self.dimensions):
            shares = shares * weights[..., axis]
        return (functional.embedding(rows, self.features) * shares[..., None]).sum(dim=-2)

    def rows(self, vertices: Tensor) -> Tensor:
        """(…, L, K) rows of `features` that hold the (…, L, K, D) int64 vertices, with K vertices a level."""
        dense = (vertices * self.strides).sum(dim=-1)
        mixed = vertices[..., 0] * self.multipliers[0]
        for axis in range(1, self.dimensions):
            mixed = mixed ^ (vertices[..., axis] * self.multipliers[axis])
        return self.offsets + torch.where(self.hashed, mixed & (self.size - 1), dense)


def level_resolutions(options: HashGridOptions) -> list[int]:
    """N_l = ⌊N_min · b^l⌋ cells along an axis, with b such that the last is N_max (equations 2 and 3)."""
    finest = options.finest_resolution or _FREE_RESOLUTION
    base = min(options.base_resolution, finest)
    steps = options.levels - 1
    if steps == 0:
        return [finest]
    # Plus 1e-6, because rounding may leave the power just below a whole number.
    return [math.floor(base * (finest / base) ** (level / steps) + 1e-6) for level in range(options.levels)]


def multiplier(axis: int) -> int:
    """π of equation 4 along an axis: the paper's three, then powers of the second."""
    return _MULTIPLIERS[axis] if axis < len(_MULTIPLIERS) else pow(_MULTIPLIERS[1], axis, 1 << 32)
