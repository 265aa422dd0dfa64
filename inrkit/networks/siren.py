"""SIREN: sines as activations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inrkit.networks.base import NETWORKS
from inrkit.networks.frequencies import check_factors, scale_axes, with_frequency
from inrkit.networks.layers import draw_uniform
from inrkit.networks.perceptron import Perceptron
from inrkit.plugins.options import option
from inrkit.signals.signal import Signal


@dataclass
class SirenOptions:
    hidden_features: int = option(256, at_least=1)
    """Width of every hidden layer."""
    hidden_layers: int = option(3, at_least=0, at_most=1000)
    """Sine layers after the first one."""
    first_omega: float = option(30.0, at_least=0)
    """ω of the first layer: its highest initial frequency, in radians a unit of coordinate; 0 takes it from the
    signal's own spectrum."""
    hidden_omega: float = option(30.0, above=0)
    """ω of the other sine layers."""
    weight_scale: float = option(1.0, above=0)
    """Factor on the initial weights of all sine layers (weight scaling, arXiv 2410.04779); 1 is SIREN as published."""
    axis_factors: list[float] = option([])
    """Factors on the initial frequencies along each axis; one number holds for all axes. 0 is what the axis's samples
    determine, at most 1. An empty list means 0 if `first_omega` is 0, and otherwise 1."""

    def __post_init__(self) -> None:
        check_factors(self.axis_factors)


@NETWORKS.register("siren")
class Siren(Perceptron):
    """SIREN: sines as activation (Sitzmann et al., NeurIPS 2020, section 3.2 for the initialisation).

    The first layer's weights are uniform in ±1/D, the others' in ±√(6/n)/ω, with n inputs; biases as nn.Linear
    draws them. The last layer is linear.
    """

    Options = SirenOptions

    def __init__(self, options: SirenOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        self.make_layers(dimensions)
        draw_for_sines(self, options.hidden_omega, options.weight_scale)
        scale_axes(self, self.first.weight)

    @classmethod
    def fitted(cls, options: SirenOptions, signal: Signal) -> SirenOptions:
        return with_frequency(options, "first_omega", signal, options.weight_scale, 2 / signal.embedding.features)

    def first_activation(self, argument: Tensor) -> Tensor:
        return torch.sin(self.options.first_omega * argument)

    def activation(self, argument: Tensor) -> Tensor:
        return torch.sin(self.options.hidden_omega * argument)


def draw_for_sines(network: Perceptron, omega: float, weight_scale: float = 1.0, first_bias: float = 0.0) -> None:
    """Draw a perceptron's weights as SIREN's.

    Args:
        network: its layers are made.
        omega: ω of the layers after the first.
        weight_scale: factor on the weights of all layers but the last.
        first_bias: the first layer's biases are uniform in ±first_bias; 0 leaves them unchanged.
    """
    first, *hidden, last = network.layers
    bound = math.sqrt(6 / first.out_features) / omega
    draw_uniform(weight_scale / first.in_features, first.weight)
    if first_bias > 0:
        draw_uniform(first_bias, first.bias)
    draw_uniform(weight_scale * bound, *(layer.weight for layer in hidden))
    draw_uniform(bound, last.weight)
