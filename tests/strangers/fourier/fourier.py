"""Random Fourier features (Tancik et al., NeurIPS 2020) before a perceptron."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from inrkit import HiddenLinear, Network, option


@dataclass
class FourierOptions:
    features: int = option(128, at_least=1)
    """How many random frequencies there are."""
    sigma: float = option(3.0, above=0)
    """Standard deviation of the frequencies, in periods a unit of coordinate."""
    width: int = option(128, at_least=1)
    """Width of the two hidden layers."""


class Fourier(Network):
    """A perceptron on sines and cosines of random frequencies."""

    Options = FourierOptions

    def __init__(self, options, dimensions, channels):
        super().__init__(options, dimensions, channels)
        self.register_buffer("frequencies", options.sigma * torch.randn(dimensions, options.features))
        self.layers = nn.Sequential(
            HiddenLinear(2 * options.features, options.width),
            nn.ReLU(),
            HiddenLinear(options.width, options.width),
            nn.ReLU(),
            nn.Linear(options.width, channels),
        )

    def forward(self, coordinates):
        phases = 2 * math.pi * coordinates @ self.frequencies
        return self.layers(torch.cat([phases.sin(), phases.cos()], dim=-1))
