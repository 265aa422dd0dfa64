"""Multiplicative filter networks, including BACON: products, not compositions, of filters of the coordinates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from inrkit.errors import ConfigError
from inrkit.networks.base import NETWORKS, Network
from inrkit.networks.frequencies import check_factors, scale_axes, with_frequency
from inrkit.networks.layers import HiddenLinear, draw_uniform
from inrkit.plugins.options import option
from inrkit.signals.signal import Signal


class MultipliedFilters(Network):
    """Filters of the coordinates, multiplied: z₁ = g₁(x), zᵢ₊₁ = gᵢ₊₁(x) ∘ (Wᵢ·zᵢ + bᵢ). The output is a linear layer
    of the last z (Fathony et al., equation 3).

    A subclass makes the layers with `make_layers`.
    """

    filters: nn.ModuleList
    hidden: nn.ModuleList
    last: nn.Linear

    def make_layers(self, filters: Iterable[nn.Module], bound: float) -> None:
        """Make the layers. Linear layers are drawn as nn.Linear draws them, except the weights between filters.

        Args:
            filters: n + 1 modules g from (…, D) to (…, width).
            bound: the weights between filters are uniform in ±bound.
        """
        width = self.options.hidden_features
        self.filters = nn.ModuleList(filters)
        hidden = [HiddenLinear(width, width) for _ in range(self.options.hidden_layers)]
        self.hidden = nn.ModuleList(hidden)
        self.last = nn.Linear(width, self.channels)
        draw_uniform(bound, *(layer.weight for layer in hidden))

    def forward(self, coordinates: Tensor) -> Tensor:
        features: Tensor = self.filters[0](coordinates)
        for given, linear in zip(self.filters[1:], self.hidden, strict=True):
            features = given(coordinates) * linear(features)
        values: Tensor = self.last(features)
        return values


class SineFilter(nn.Module):
    """sin(Ω·x + φ), Ω from nn.Linear's distribution times `scale`, φ uniform in ±π; both are trained."""

    def __init__(self, dimensions: int, width: int, scale: float) -> None:
        super().__init__()
        self.linear = nn.Linear(dimensions, width)
        with torch.no_grad():
            self.linear.weight.mul_(scale)
        draw_uniform(math.pi, self.linear.bias)

    def forward(self, coordinates: Tensor) -> Tensor:
        return torch.sin(self.linear(coordinates))


class GaborFilter(nn.Module):
    """exp(−γ·‖x − μ‖²/2) · sin(Ω·x + φ), all of it trained.

    μ is uniform in [−1, 1]^D, γ from Gamma(`shape`, 1), and Ω as a sine filter's, times √γ.
    """

    def __init__(self, dimensions: int, width: int, scale: float, shape: float) -> None:
        super().__init__()
        self.linear = nn.Linear(dimensions, width)
        self.centre = nn.Parameter(torch.empty(width, dimensions).uniform_(-1, 1))
        self.sharpness = nn.Parameter(torch.distributions.Gamma(shape, 1.0, validate_args=False).sample((width,)))
        with torch.no_grad():
            self.linear.weight.mul_(scale * self.sharpness.sqrt()[:, None])
        draw_uniform(math.pi, self.linear.bias)

    def forward(self, coordinates: Tensor) -> Tensor:
        distance = (
            coordinates.square().sum(dim=-1, keepdim=True)
            + self.centre.square().sum(dim=-1)
            - 2 * coordinates @ self.centre.mT
        )
        return torch.exp(-0.5 * self.sharpness * distance) * torch.sin(self.linear(coordinates))


@dataclass
class FilterOptions:
    hidden_features: int = option(256, at_least=1)
    """Width of the filters and of the linear layers between them."""
    hidden_layers: int = option(3, at_least=0, at_most=1000)
    """n: linear layers between n + 1 filters."""
    input_scale: float = option(256.0, at_least=0)
    """Factor on the filters' initial frequencies; each filter gets it divided by √(n + 1). 0 means the default times a
    factor from the signal's spectrum."""
    axis_factors: list[float] = option([])
    """Factors on the initial frequencies along each axis; one number holds for all axes. 0 is what the axis's samples
    determine, at most 1. An empty list means 0 if `input_scale` is 0, and otherwise 1."""

    def __post_init__(self) -> None:
        check_factors(self.axis_factors)


@NETWORKS.register("mfn-fourier")
class FourierFilters(MultipliedFilters):
    """Multiplicative filter network of sines (Fathony et al., ICLR 2021, section 3.1).

    The linear layers' weights are uniform in ±1/√width; their biases, and the last layer, as nn.Linear draws them.
    """

    Options = FilterOptions

    def __init__(self, options: FilterOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        width, count = options.hidden_features, options.hidden_layers + 1
        scale = options.input_scale / math.sqrt(count)
        self.make_layers((SineFilter(dimensions, width, scale) for _ in range(count)), 1 / math.sqrt(width))
        scale_axes(self, *(layer.weight for layer in self.filters.modules() if isinstance(layer, nn.Linear)))

    @classmethod
    def fitted(cls, options: FilterOptions, signal: Signal) -> FilterOptions:
        return with_frequency(options, "input_scale", signal, along=math.sqrt(2 / signal.embedding.features))


@dataclass
class GaborFilterOptions(FilterOptions):
    alpha: float = option(6.0, above=0)
    """Sum of the filters' Gamma shapes: the larger, the narrower their windows."""


@NETWORKS.register("mfn-gabor")
class GaborFilters(MultipliedFilters):
    """Multiplicative filter network of Gabor wavelets (Fathony et al., ICLR 2021, section 3.2).

    The linear layers' weights are uniform in ±1/√width; their biases, and the last layer, as nn.Linear draws them.
    """

    Options = GaborFilterOptions

    def __init__(self, options: GaborFilterOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        width, count = options.hidden_features, options.hidden_layers + 1
        scale, shape = options.input_scale / math.sqrt(count), options.alpha / count
        self.make_layers((GaborFilter(dimensions, width, scale, shape) for _ in range(count)), 1 / math.sqrt(width))
        scale_axes(self, *(layer.weight for layer in self.filters.modules() if isinstance(layer, nn.Linear)))

    @classmethod
    def fitted(cls, options: GaborFilterOptions, signal: Signal) -> GaborFilterOptions:
        return with_frequency(options, "input_scale", signal, along=math.sqrt(2 / signal.embedding.features))


class LimitedFilter(nn.Module):
    """sin(Ω·x + φ). Ω is fixed, a whole number of periods over the extent; φ starts uniform in ±π and is trained.

    Args:
        bandwidths: most periods over the extent along each of the D axes; each Ω is drawn from −bandwidth … bandwidth.
        width: how many filters.
    """

    frequencies: Tensor

    def __init__(self, bandwidths: list[int], width: int) -> None:
        super().__init__()
        periods = [torch.randint(-most, most + 1, (width,)) for most in bandwidths]
        self.register_buffer("frequencies", math.pi * torch.stack(periods).to(torch.float32))
        self.phase = nn.Parameter(torch.empty(width).uniform_(-math.pi, math.pi))

    def forward(self, coordinates: Tensor) -> Tensor:
        return torch.sin(coordinates @ self.frequencies + self.phase)


@dataclass
class BaconOptions:
    hidden_features: int = option(256, at_least=1)
    """Width of the filters and of the linear layers between them."""
    hidden_layers: int = option(4, at_least=0, at_most=1000, own=True)
    """n: linear layers between n + 1 filters. The first two filters have half the bandwidth of the others."""
    bandwidth: list[float] = option([])
    """Highest frequency of the output along each axis, in periods over the signal's extent; one number holds for all
    axes. An empty list means half the cells of the lattice, and 64 for free points and embedded coordinates."""

    def __post_init__(self) -> None:
        wrong = [most for most in self.bandwidth if not 0 <= most < math.inf]
        if wrong:
            raise ValueError(f"bandwidth has {wrong[0]}; it must hold finite numbers, 0 or more")


@NETWORKS.register("bacon")
class Bacon(MultipliedFilters):
    """BACON: a band-limited multiplicative filter network of fixed frequencies (Lindell et al., CVPR 2022).

    Its output never has a frequency above `bandwidth`. Only the last scale has an output. Weights are uniform in
    ±√(6/width), the last layer's too; biases are drawn as nn.Linear draws them.
    """

    Options = BaconOptions

    def __init__(self, options: BaconOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        width, given = options.hidden_features, options.bandwidth or [_FREE_BANDWIDTH]
        if len(given) not in (1, dimensions):
            raise ConfigError(
                f"network.bandwidth has {len(given)} numbers, and the network {dimensions} inputs; give one for each, "
                "or one for all"
            )
        axes = [_shares(most, options.hidden_layers + 1) for most in given] * (dimensions // len(given))
        bound = math.sqrt(6 / width)
        self.make_layers((LimitedFilter(list(bandwidths), width) for bandwidths in zip(*axes, strict=True)), bound)
        draw_uniform(bound, self.last.weight)

    @classmethod
    def fitted(cls, options: BaconOptions, signal: Signal) -> BaconOptions:
        if options.bandwidth:
            return options
        if signal.dataset.grid_shape is None or signal.embedded:
            return dataclasses.replace(options, bandwidth=[_FREE_BANDWIDTH])
        return dataclasses.replace(options, bandwidth=[length / 2 for length in signal.dataset.grid_shape])


_FREE_BANDWIDTH = 64.0


def _shares(bandwidth: float, count: int) -> list[int]:
    """The bandwidth divided over `count` filters, in whole periods whose sum does not exceed it."""
    weights = [1 if index < 2 else 2 for index in range(count)]
    bounds = [math.floor(bandwidth * part / sum(weights)) for part in accumulate(weights, initial=0)]
    return [high - low for low, high in pairwise(bounds)]
