"""SIREN: sines as activations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrkit.dataset import CoordinateDataset
from inrkit.networks.base import NETWORKS, Network
from inrkit.networks.layers import draw_uniform, hidden_layers
from inrkit.networks.spectral import with_spectral
from inrkit.options import option


@dataclass
class SirenOptions:
    hidden_features: int = option(256, at_least=1)
    """Width of every hidden layer."""
    hidden_layers: int = option(3, at_least=0)
    """Sine layers after the first one."""
    first_omega: float = option(30.0, at_least=0)
    """ω of the first layer: the highest frequency, in radians a unit of coordinate, that it starts with; 0 takes it
    from the signal's own spectrum."""
    hidden_omega: float = option(30.0, above=0)
    """ω of the other sine layers."""
    weight_scale: float = option(1.0, above=0)
    """Factor on the initial weights of all sine layers (weight scaling, arXiv 2410.04779); 1 is SIREN as published."""


@NETWORKS.register("siren")
class Siren(Network):
    """SIREN: sines as activation (Sitzmann et al., NeurIPS 2020, section 3.2 for the initialisation).

    The first layer's weights are uniform in ±1/D, the others' in ±√(6/n)/ω, with n inputs; biases as nn.Linear
    draws them. The last layer is linear.
    """

    Options = SirenOptions

    def __init__(self, options: SirenOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        width = options.hidden_features
        self.first = nn.Linear(dimensions, width)
        hidden = hidden_layers(width, options.hidden_layers)
        self.hidden = nn.ModuleList(hidden)
        self.last = nn.Linear(width, channels)
        bound = math.sqrt(6 / width) / options.hidden_omega
        draw_uniform(options.weight_scale / dimensions, self.first.weight)
        draw_uniform(options.weight_scale * bound, *(layer.weight for layer in hidden))
        draw_uniform(bound, self.last.weight)

    @classmethod
    def fitted(cls, options: SirenOptions, dataset: CoordinateDataset) -> SirenOptions:
        return with_spectral(options, "first_omega", dataset, options.weight_scale)

    def forward(self, coordinates: Tensor) -> Tensor:
        features = torch.sin(self.options.first_omega * self.first(coordinates))
        for layer in self.hidden:
            features = torch.sin(self.options.hidden_omega * layer(features))
        values: Tensor = self.last(features)
        return values
