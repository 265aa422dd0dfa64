"""Layers that networks share."""

from __future__ import annotations

import math
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional

from inrkit.device import has_float64, wide
from inrkit.networks.products import product


class FirstLinear(nn.Linear):
    """A linear layer from coordinates, or their encoding, to hidden features; always in float32.

    The layer multiplies by a transposed copy of the weight, because the gradient follows the memory order of the matrix
    in the product. With two or three inputs, (width × rows)·(rows × inputs) runs several times slower on a CPU than its
    transpose.
    """

    def forward(self, input: Tensor) -> Tensor:
        return input @ self.weight.t().contiguous() + self.bias


class HiddenLinear(nn.Linear):
    """A linear layer between hidden features, whose matrix product may run in a lower precision.

    Do not use it for coordinates: bfloat16 has 8 bits of mantissa and cannot tell 257 positions apart. Hidden features
    need no more. The parameters stay float32, and so does the output, unless features are to stay bfloat16.
    """

    precision: str = "float32"
    """Of the product; one of `PRECISIONS`."""

    def forward(self, input: Tensor) -> Tensor:
        if self.precision == "float32":
            return super().forward(input)
        if self.precision == "bfloat16-features":
            bias = None if self.bias is None else self.bias.to(torch.bfloat16)
            return functional.linear(input.to(torch.bfloat16), self.weight.to(torch.bfloat16), bias)
        result = product(input, self.weight, self.precision)
        return result if self.bias is None else result + self.bias


class ComplexLinear(nn.Module):
    """A linear layer between complex features, always in float32.

    Complex numbers are stored as their real parts followed by their imaginary parts, (…, 2n) float32. The parameters
    are two real matrices, which work with every optimizer and with forward and reverse derivatives. Both parts of
    weights and biases are drawn from ±1/√n, as nn.Linear does with a complex dtype.

    Args:
        in_features: n, complex.
        out_features: complex.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.real = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.imaginary = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(2 * out_features).uniform_(-bound, bound))

    def forward(self, input: Tensor) -> Tensor:
        upper = torch.cat([self.real, -self.imaginary], dim=1)
        lower = torch.cat([self.imaginary, self.real], dim=1)
        return functional.linear(input, torch.cat([upper, lower]), self.bias)


def draw_uniform(bound: float, *weights: Tensor) -> None:
    """Draw the elements of all `weights` from ±`bound`."""
    with torch.no_grad():
        for weight in weights:
            weight.uniform_(-bound, bound)


def hidden_layers(network: nn.Module) -> list[HiddenLinear]:
    """Every HiddenLinear of `network`, in its order."""
    return [module for module in network.modules() if isinstance(module, HiddenLinear)]


def trained(network: nn.Module) -> list[nn.Parameter]:
    """The parameters of `network` that are not frozen, in its order."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def precision_of(network: nn.Module) -> str:
    """The precision that `set_precision` set; "float32" if no layer takes another."""
    return next((layer.precision for layer in hidden_layers(network)), "float32")


def set_precision(network: nn.Module, precision: str) -> None:
    """Make every HiddenLinear of `network` multiply in `precision`, one of `PRECISIONS`."""
    for layer in hidden_layers(network):
        layer.precision = precision


def coordinate_dtype(network: nn.Module) -> torch.dtype:
    """The dtype of the coordinates that a network should be given."""
    return torch.float64 if getattr(network, "exact", False) else torch.float32


def placed(coordinates: Tensor, network: nn.Module) -> Tensor:
    """(…, D) coordinates as a network should be given them, where it is; but float64 ones in main memory if its device
    has no float64."""
    device = next((each.device for each in chain(network.parameters(), network.buffers())), coordinates.device)
    if not has_float64(device):
        exact = coordinate_dtype(network) == torch.float64
        return wide(coordinates.cpu()) if exact else coordinates.to(torch.float32).to(device)
    return coordinates.to(device, coordinate_dtype(network))
