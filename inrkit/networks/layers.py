"""Layers that networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class HiddenLinear(nn.Linear):
    """A linear layer between hidden features, whose matrix product may run in a lower precision.

    Coordinates must not pass through one: bfloat16 has 8 bits of mantissa and cannot tell 257 positions apart.
    Hidden matrices do not mind. The parameters stay float32, and so does what comes out.
    """

    product_dtype: torch.dtype = torch.float32

    def forward(self, input: Tensor) -> Tensor:
        if self.product_dtype == torch.float32:
            return super().forward(input)
        dtype = self.product_dtype
        product = functional.linear(input.to(dtype), self.weight.to(dtype))
        return product.to(torch.float32) + self.bias


def precision_of(network: nn.Module) -> str:
    """The precision that `set_precision` set, "float32" where no layer takes another."""
    layers = (module for module in network.modules() if isinstance(module, HiddenLinear))
    return next((str(layer.product_dtype).removeprefix("torch.") for layer in layers), "float32")


def set_precision(network: nn.Module, precision: str) -> None:
    """Make every HiddenLinear of `network` multiply in `precision`, "float32" or "bfloat16"."""
    for module in network.modules():
        if isinstance(module, HiddenLinear):
            module.product_dtype = getattr(torch, precision)
