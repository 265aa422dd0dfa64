"""ReLU networks on a fixed encoding of the coordinates by sines and cosines."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrkit.networks.base import NETWORKS
from inrkit.networks.frequencies import check_factors, scale_axes, with_frequency
from inrkit.networks.perceptron import Perceptron
from inrkit.plugins.options import option
from inrkit.signals.signal import Signal

_PUBLISHED_OCTAVES = 10


@dataclass
class PositionalOptions:
    hidden_features: int = option(256, at_least=1)
    """Width of every hidden layer."""
    hidden_layers: int = option(3, at_least=0, at_most=1000)
    """ReLU layers after the first one."""
    octaves: int = option(10, at_least=0, at_most=64)
    """L: frequencies 1, 2, 4, … 2^(L−1) radians a unit of coordinate. 0 means as many as the lattice can represent
    along its longest axis: 10 for 512 cells; for free points 10 too."""


@NETWORKS.register("pe-mlp")
class Positional(Perceptron):
    """ReLU perceptron on NeRF's positional encoding (Mildenhall et al., ECCV 2020, equation 4).

    The encoding is x, sin(2^k·x) and cos(2^k·x), as in the published code. The paper's has π in the frequencies and
    does not include x. All parameters are drawn as nn.Linear draws them.
    """

    Options = PositionalOptions
    frequencies: Tensor

    def __init__(self, options: PositionalOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        octaves = options.octaves or _PUBLISHED_OCTAVES
        self.register_buffer("frequencies", 2.0 ** torch.arange(octaves), persistent=False)
        self.make_layers(dimensions * (1 + 2 * octaves))

    @classmethod
    def fitted(cls, options: PositionalOptions, signal: Signal) -> PositionalOptions:
        if options.octaves > 0:
            return options
        if signal.dataset.grid_shape is None:
            return dataclasses.replace(options, octaves=_PUBLISHED_OCTAVES)
        highest = math.pi * max(signal.dataset.grid_shape) / 2
        return dataclasses.replace(options, octaves=1 + max(0, math.floor(math.log2(highest))))

    def encode(self, coordinates: Tensor) -> Tensor:
        phases = (coordinates[..., None] * self.frequencies).flatten(start_dim=-2)
        return torch.cat([coordinates, torch.sin(phases), torch.cos(phases)], dim=-1)

    def activation(self, argument: Tensor) -> Tensor:
        return torch.relu(argument)


@dataclass
class FourierFeaturesOptions:
    features: int = option(256, at_least=1)
    """How many random frequencies there are."""
    sigma: float = option(10.0, at_least=0)
    """σ: standard deviation of the frequencies along each axis, in periods over the signal's extent (two units of
    coordinate). 0 means the default times a factor from the signal's spectrum."""
    hidden_features: int = option(256, at_least=1)
    """Width of every hidden layer."""
    hidden_layers: int = option(2, at_least=0, at_most=1000, own=True)
    """ReLU layers after the first one."""
    axis_factors: list[float] = option([])
    """Factors on the initial frequencies along each axis; one number holds for all axes. 0 is what the axis's samples
    determine, at most 1. An empty list means 0 if `sigma` is 0, and otherwise 1."""

    def __post_init__(self) -> None:
        check_factors(self.axis_factors)


@NETWORKS.register("fourier-features")
class FourierFeatures(Perceptron):
    """ReLU perceptron on sines and cosines of random frequencies (Tancik et al., NeurIPS 2020, section 4).

    The frequencies B ~ N(0, σ²) are drawn once and not trained. Weights are drawn by Glorot's normal rule, biases from
    N(0, 0.01²), as in the published code. The last layer is linear; the paper's has a sigmoid for values in [0, 1].
    """

    Options = FourierFeaturesOptions
    frequencies: Tensor

    def __init__(self, options: FourierFeaturesOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        self.register_buffer("frequencies", options.sigma * torch.randn(dimensions, options.features))
        self.make_layers(2 * options.features)
        for layer in self.layers:
            nn.init.xavier_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.01)
        scale_axes(self, self.frequencies.T)

    @classmethod
    def fitted(cls, options: FourierFeaturesOptions, signal: Signal) -> FourierFeaturesOptions:
        return with_frequency(options, "sigma", signal)

    def encode(self, coordinates: Tensor) -> Tensor:
        phases = math.pi * coordinates @ self.frequencies
        return torch.cat([torch.sin(phases), torch.cos(phases)], dim=-1)

    def activation(self, argument: Tensor) -> Tensor:
        return torch.relu(argument)
