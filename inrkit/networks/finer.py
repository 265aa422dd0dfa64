"""FINER and FINER++: activations whose period shortens with their argument."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrkit.networks.base import NETWORKS, Network
from inrkit.networks.frequencies import check_factors, scale_axes, with_axis_factors, with_frequency
from inrkit.networks.layers import ComplexLinear, draw_uniform
from inrkit.networks.perceptron import Perceptron
from inrkit.networks.siren import draw_for_sines
from inrkit.networks.wire import complex_width, gabor
from inrkit.plugins.options import option
from inrkit.signals.signal import Signal


def variable_period(argument: Tensor, training: bool) -> Tensor:
    """(|z| + 1)·z. In training the derivative takes |z| + 1 as a constant, as in the published code."""
    factor = argument.detach() if training else argument
    return (factor.abs() + 1) * argument


@dataclass
class FinerOptions:
    hidden_features: int = option(256, at_least=1)
    """Width of every hidden layer."""
    hidden_layers: int = option(3, at_least=0, at_most=1000)
    """Variable-periodic layers after the first one."""
    first_omega: float = option(30.0, at_least=0)
    """ω of the first layer, in radians a unit of coordinate; 0 takes it from the signal's own spectrum."""
    hidden_omega: float = option(30.0, above=0)
    """ω of the other variable-periodic layers."""
    first_bias: float = option(0.0, at_least=0)
    """k: the first layer's biases are uniform in ±k; a larger k gives higher frequencies. 0 means ±1/√D."""
    weight_scale: float = option(1.0, above=0, own=True)
    """Factor on the initial weights of all layers but the last (weight scaling, arXiv 2410.04779)."""
    axis_factors: list[float] = option([])
    """Factors on the initial frequencies along each axis; one number holds for all axes. 0 is what the axis's samples
    determine, at most 1. An empty list means 0 if `first_omega` is 0, and otherwise 1."""

    def __post_init__(self) -> None:
        check_factors(self.axis_factors)


@NETWORKS.register("finer")
class Finer(Perceptron):
    """FINER: sin(ω(|z| + 1)z) as activation (Liu et al., CVPR 2024, equation 4).

    Weights as SIREN's.
    """

    Options = FinerOptions

    def __init__(self, options: FinerOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        self.make_layers(dimensions)
        draw_for_sines(self, options.hidden_omega, options.weight_scale, options.first_bias)
        scale_axes(self, self.first.weight)

    @classmethod
    def fitted(cls, options: FinerOptions, signal: Signal) -> FinerOptions:
        return with_frequency(options, "first_omega", signal, options.weight_scale, 2 / signal.embedding.features)

    def first_activation(self, argument: Tensor) -> Tensor:
        return torch.sin(self.options.first_omega * variable_period(argument, self.training))

    def activation(self, argument: Tensor) -> Tensor:
        return torch.sin(self.options.hidden_omega * variable_period(argument, self.training))


@dataclass
class FinerGaussOptions:
    hidden_features: int = option(256, at_least=1)
    """Width of every hidden layer."""
    hidden_layers: int = option(3, at_least=0, at_most=1000)
    """Variable-periodic layers after the first one."""
    omega: float = option(3.0, above=0, own=True)
    """ω of the sines inside the Gaussians."""
    scale: float = option(10.0, above=0, own=True)
    """s of the Gaussian exp(−(s·sin(ω(|z| + 1)z))²)."""
    first_bias: float = option(0.0, at_least=0)
    """k: the first layer's biases are uniform in ±k; 0 is ±1/√D."""
    axis_factors: list[float] = option([])
    """Factors on the first layer's initial weights along each axis; one number holds for all axes. 0 is what the axis's
    samples determine, at most 1. An empty list means 1."""

    def __post_init__(self) -> None:
        check_factors(self.axis_factors)


@NETWORKS.register("finer-gauss")
class FinerGauss(Perceptron):
    """FINER++ with a Gaussian: exp(−(s·sin(ω(|z| + 1)z))²) as activation (Zhu et al., arXiv 2407.19434).

    Weights as SIREN's.
    """

    Options = FinerGaussOptions

    def __init__(self, options: FinerGaussOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        self.make_layers(dimensions)
        draw_for_sines(self, options.omega, first_bias=options.first_bias)
        scale_axes(self, self.first.weight)

    @classmethod
    def fitted(cls, options: FinerGaussOptions, signal: Signal) -> FinerGaussOptions:
        return with_axis_factors(options, "omega", signal, along=2 / signal.embedding.features)

    def activation(self, argument: Tensor) -> Tensor:
        sine = torch.sin(self.options.omega * variable_period(argument, self.training))
        return torch.exp(-(self.options.scale * sine).square())


@dataclass
class FinerWireOptions:
    hidden_features: int = option(256, at_least=1)
    """Width of a real network of as many parameters; the complex layers are 1/√2 as wide, 181 for 256."""
    hidden_layers: int = option(3, at_least=0, at_most=1000)
    """Complex layers after the first one."""
    first_omega: float = option(5.0, at_least=0, own=True)
    """ω of the first layer's sine; 0 means the default times a factor from the signal's spectrum."""
    hidden_omega: float = option(5.0, above=0, own=True)
    """ω of the other layers' sines."""
    wavelet_omega: float = option(4.0, above=0)
    """ω of the wavelet around the sine."""
    scale: float = option(2.0, above=0, own=True)
    """s of the wavelet: the smaller, the wider its Gaussian window."""
    first_bias: float = option(0.0, at_least=0)
    """k: the first layer's biases are uniform in ±k; 0 is ±1/√D."""
    axis_factors: list[float] = option([])
    """Factors on the initial frequencies along each axis; one number holds for all axes. 0 is what the axis's samples
    determine, at most 1. An empty list means 0 if `first_omega` is 0, and otherwise 1."""

    def __post_init__(self) -> None:
        check_factors(self.axis_factors)


@NETWORKS.register("finer-wire")
class FinerWire(Network):
    """FINER++ with a wavelet: WIRE's complex Gabor wavelet of sin(ω(|z| + 1)z) (Zhu et al., arXiv 2407.19434).

    |z| + 1 is taken of the real and of the imaginary part separately. Weights are drawn as SIREN's, with the product of
    both ω, in the real and the imaginary part alike.
    """

    Options = FinerWireOptions

    def __init__(self, options: FinerWireOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        width = complex_width(options.hidden_features)
        self.first = nn.Linear(dimensions, width)
        hidden = [ComplexLinear(width, width) for _ in range(options.hidden_layers)]
        self.hidden = nn.ModuleList(hidden)
        self.last = nn.Linear(2 * width, channels)
        bound = math.sqrt(6 / width) / (options.hidden_omega * options.wavelet_omega)
        draw_uniform(1 / dimensions, self.first.weight)
        if options.first_bias > 0:
            draw_uniform(options.first_bias, self.first.bias)
        draw_uniform(bound, *(part for layer in hidden for part in (layer.real, layer.imaginary)))
        draw_uniform(bound, self.last.weight)
        draw_uniform(1 / math.sqrt(width), self.last.bias)
        scale_axes(self, self.first.weight)

    @classmethod
    def fitted(cls, options: FinerWireOptions, signal: Signal) -> FinerWireOptions:
        return with_frequency(options, "first_omega", signal, along=2 / signal.embedding.features)

    def forward(self, coordinates: Tensor) -> Tensor:
        options = self.options
        sine = torch.sin(options.first_omega * variable_period(self.first(coordinates), self.training))
        features = gabor(sine, torch.zeros_like(sine), options.wavelet_omega, options.scale)
        for layer in self.hidden:
            real, imaginary = (options.hidden_omega * variable_period(layer(features), self.training)).chunk(2, dim=-1)
            # sin(a + ib) = sin a · cosh b + i · cos a · sinh b
            sine, slope = torch.sin(real) * torch.cosh(imaginary), torch.cos(real) * torch.sinh(imaginary)
            features = gabor(sine, slope, options.wavelet_omega, options.scale)
        values: Tensor = self.last(features)
        return values
