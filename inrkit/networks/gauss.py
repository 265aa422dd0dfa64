"""Gaussians as activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrkit.networks.base import NETWORKS
from inrkit.networks.perceptron import Perceptron
from inrkit.plugins.options import option


@dataclass
class GaussOptions:
    hidden_features: int = option(256, at_least=1)
    """Width of every hidden layer."""
    hidden_layers: int = option(3, at_least=0)
    """Gaussian layers after the first one."""
    scale: float = option(30.0, above=0, own=True)
    """s: the larger, the narrower the Gaussians."""


@NETWORKS.register("gauss")
class Gauss(Perceptron):
    """Gaussians exp(−(s·z)²) as activation (Ramasinghe and Lucey, ECCV 2022).

    All parameters are drawn as nn.Linear draws them.
    """

    Options = GaussOptions

    def __init__(self, options: GaussOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        self.make_layers(dimensions)

    def activation(self, argument: Tensor) -> Tensor:
        return torch.exp(-(self.options.scale * argument).square())
