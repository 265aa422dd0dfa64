"""WIRE: complex Gabor wavelets as activations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrkit.networks.base import NETWORKS, Network
from inrkit.networks.frequencies import check_factors, scale_axes, with_axis_factors
from inrkit.networks.layers import ComplexLinear, draw_uniform
from inrkit.plugins.options import option
from inrkit.signals.signal import Signal


def complex_width(width: int) -> int:
    """The number of complex features whose matrices hold about as many numbers as real matrices of `width`."""
    return max(1, int(width / math.sqrt(2)))


def gabor(real: Tensor, imaginary: Tensor, omega: float, scale: float) -> Tensor:
    """exp(iωz − |s·z|²) of z = real + i·imaginary.

    Computed in real numbers, which have derivatives of every mode.

    Args:
        real: (…, n).
        imaginary: (…, n).
        omega: ω.
        scale: s.

    Returns:
        (…, 2n): the real parts, then the imaginary ones.
    """
    envelope = torch.exp(-omega * imaginary - scale**2 * (real.square() + imaginary.square()))
    return torch.cat([envelope * torch.cos(omega * real), envelope * torch.sin(omega * real)], dim=-1)


@dataclass
class WireOptions:
    hidden_features: int = option(256, at_least=1)
    """Width of a real network of as many parameters; the complex layers are 1/√2 as wide, 181 for 256."""
    hidden_layers: int = option(3, at_least=0, at_most=1000)
    """Complex layers after the first one."""
    first_omega: float = option(20.0, above=0, own=True)
    """ω of the first layer."""
    hidden_omega: float = option(20.0, above=0, own=True)
    """ω of the other layers."""
    scale: float = option(10.0, above=0, own=True)
    """s: the smaller, the wider the wavelets' Gaussian window."""
    axis_factors: list[float] = option([])
    """Factors on the first layer's initial weights along each axis; one number holds for all axes. 0 is what the axis's
    samples determine, at most 1. An empty list means 1."""

    def __post_init__(self) -> None:
        check_factors(self.axis_factors)


@NETWORKS.register("wire")
class Wire(Network):
    """WIRE: complex Gabor wavelets exp(iωz − |s·z|²) as activation (Saragadam et al., CVPR 2023, equation 4).

    The first layer is real, the others complex, and the output is the real part. All parameters are drawn as
    nn.Linear draws them, from ±1/√n with n inputs, real and imaginary parts alike.
    """

    Options = WireOptions

    def __init__(self, options: WireOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        width = complex_width(options.hidden_features)
        self.first = nn.Linear(dimensions, width)
        self.hidden = nn.ModuleList(ComplexLinear(width, width) for _ in range(options.hidden_layers))
        # Only the real part of the output counts, and that is a real linear layer of both parts of its input.
        self.last = nn.Linear(2 * width, channels)
        draw_uniform(1 / math.sqrt(width), self.last.weight, self.last.bias)
        scale_axes(self, self.first.weight)

    @classmethod
    def fitted(cls, options: WireOptions, signal: Signal) -> WireOptions:
        return with_axis_factors(options, "first_omega", signal, along=math.sqrt(2 / signal.embedding.features))

    def forward(self, coordinates: Tensor) -> Tensor:
        first = self.first(coordinates)
        features = gabor(first, torch.zeros_like(first), self.options.first_omega, self.options.scale)
        for layer in self.hidden:
            real, imaginary = layer(features).chunk(2, dim=-1)
            features = gabor(real, imaginary, self.options.hidden_omega, self.options.scale)
        values: Tensor = self.last(features)
        return values
