"""Gaussians as activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrkit.networks.base import NETWORKS, Network
from inrkit.networks.layers import hidden_layers
from inrkit.options import option


@dataclass
class GaussOptions:
    hidden_features: int = option(256, at_least=1)
    """Width of every hidden layer."""
    hidden_layers: int = option(3, at_least=0)
    """Gaussian layers after the first one."""
    scale: float = option(30.0, above=0, own=True)
    """s: the larger, the narrower the Gaussians."""


@NETWORKS.register("gauss")
class Gauss(Network):
    """Gaussians exp(−(s·z)²) as activation (Ramasinghe and Lucey, ECCV 2022).

    All parameters are drawn as nn.Linear draws them.
    """

    Options = GaussOptions

    def __init__(self, options: GaussOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        width = options.hidden_features
        self.first = nn.Linear(dimensions, width)
        self.hidden = nn.ModuleList(hidden_layers(width, options.hidden_layers))
        self.last = nn.Linear(width, channels)

    def forward(self, coordinates: Tensor) -> Tensor:
        features = torch.exp(-(self.options.scale * self.first(coordinates)).square())
        for layer in self.hidden:
            features = torch.exp(-(self.options.scale * layer(features)).square())
        values: Tensor = self.last(features)
        return values
