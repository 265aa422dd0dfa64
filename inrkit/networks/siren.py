"""SIREN: sines as activations."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrkit.dataset import CoordinateDataset
from inrkit.embeddings import Identity
from inrkit.networks.base import NETWORKS, Network
from inrkit.networks.layers import HiddenLinear
from inrkit.options import option
from inrkit.spectrum import spectral_edges


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
    """SIREN (Sitzmann et al., NeurIPS 2020, section 3.2 for the initialisation).

    The first layer's weights are uniform in ±1/D, the others' in ±√(6/n)/ω, with n inputs; biases as nn.Linear
    draws them. The last layer is linear.
    """

    Options = SirenOptions

    def __init__(self, options: SirenOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        width = options.hidden_features
        self.first = nn.Linear(dimensions, width)
        hidden = [HiddenLinear(width, width) for _ in range(options.hidden_layers)]
        self.hidden = nn.ModuleList(hidden)
        self.last = nn.Linear(width, channels)
        bound = math.sqrt(6 / width) / options.hidden_omega
        with torch.no_grad():
            self.first.weight.uniform_(-1 / dimensions, 1 / dimensions).mul_(options.weight_scale)
            for layer in hidden:
                layer.weight.uniform_(-bound, bound).mul_(options.weight_scale)
            self.last.weight.uniform_(-bound, bound)

    @classmethod
    def fitted(cls, options: SirenOptions, dataset: CoordinateDataset) -> SirenOptions:
        if options.first_omega > 0:
            return options
        omega = spectral_omega(dataset) / options.weight_scale
        return dataclasses.replace(options, first_omega=omega)

    def forward(self, coordinates: Tensor) -> Tensor:
        features = torch.sin(self.options.first_omega * self.first(coordinates))
        for layer in self.hidden:
            features = torch.sin(self.options.hidden_omega * layer(features))
        values: Tensor = self.last(features)
        return values


_PUBLISHED_OMEGA = 30.0


def spectral_omega(dataset: CoordinateDataset) -> float:
    """ω · weight_scale of a first layer that fits the signal's spectrum, in radians a unit of coordinate.

    12 times the square root of the frequency below which half of the energy lies, along the axis where that is
    highest. The law is empirical: found by short fits of speech and music of 1 to 8 seconds, where twice that loses
    2 dB and more. SIREN's 30 at least, and for free points, constants and embedded coordinates.
    """
    edges = spectral_edges(dataset, 0.5)
    embedded = dataset.embedding is not None and not isinstance(dataset.embedding, Identity)
    if edges is None or embedded:
        return _PUBLISHED_OMEGA
    return max(_PUBLISHED_OMEGA, 12 * math.sqrt(max(edges)))
