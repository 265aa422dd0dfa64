"""Gaussians as activations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inrkit.networks.base import NETWORKS
from inrkit.networks.frequencies import check_factors, scale_axes, with_axis_factors
from inrkit.networks.perceptron import Perceptron
from inrkit.plugins.options import option
from inrkit.signals.signal import Signal


@dataclass
class GaussOptions:
    hidden_features: int = option(256, at_least=1)
    """Width of every hidden layer."""
    hidden_layers: int = option(3, at_least=0, at_most=1000)
    """Gaussian layers after the first one."""
    scale: float = option(30.0, above=0, own=True)
    """s: the larger, the narrower the Gaussians."""
    axis_factors: list[float] = option([])
    """Factors on the first layer's initial weights along each axis; one number holds for all axes. 0 is what the axis's
    samples determine, at most 1. An empty list means 1."""

    def __post_init__(self) -> None:
        check_factors(self.axis_factors)


@NETWORKS.register("gauss")
class Gauss(Perceptron):
    """Gaussians exp(−(s·z)²) as activation (Ramasinghe and Lucey, ECCV 2022).

    All parameters are drawn as nn.Linear draws them.
    """

    Options = GaussOptions

    def __init__(self, options: GaussOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        self.make_layers(dimensions)
        scale_axes(self, self.first.weight)

    @classmethod
    def fitted(cls, options: GaussOptions, signal: Signal) -> GaussOptions:
        return with_axis_factors(options, "scale", signal, along=math.sqrt(2 / signal.embedding.features))

    def activation(self, argument: Tensor) -> Tensor:
        return torch.exp(-(self.options.scale * argument).square())
