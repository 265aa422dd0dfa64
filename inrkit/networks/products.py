"""Products of hidden features with a layer's weights, in the precision that the layer takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

PRECISIONS = ("float32", "tf32", "bfloat16", "bfloat16-features", "float16")
"""Precisions of the products of hidden layers. `tf32` is float32 with 11 bits of mantissa while it multiplies, which
only GPUs do; elsewhere it is float32. With `bfloat16-features`, what hidden layers give stays bfloat16 too, and so do
the activations after them; the last layer gets float32 again."""

_LARGEST = 2.0**15
"""What sums of products in float16 should come to at most; its largest number is twice that."""


def product(input: Tensor, weight: Tensor, precision: str) -> Tensor:
    """(…, m) float32 products of (…, n) features with the rows of an (m, n) weight, in a precision below float32."""
    if precision == "bfloat16":
        return functional.linear(input.to(torch.bfloat16), weight.to(torch.bfloat16)).to(torch.float32)
    result: Tensor = _Product.apply(input, weight, precision)
    return result


@contextlib.contextmanager
def float32_products(mode: str) -> Iterator[None]:
    """Multiply float32 matrices as `torch.set_float32_matmul_precision(mode)` says."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(mode)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Product(torch.autograd.Function):
    """A product whose passes backward and along a direction run in the same precision.

    TF32 is a setting of the process, which the products of coordinates must not see. Gradients are scaled for float16:
    those of a mean over many coordinates are below its smallest number.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(input: Tensor, weight: Tensor, precision: str) -> Tensor:
        return _multiplied(input, weight.mT, precision)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
        input, weight, ctx.precision = inputs
        ctx.save_for_backward(input, weight)
        ctx.save_for_forward(input, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,), (input, weight) = gradients, ctx.saved_tensors
        along_input, along_weight, _ = ctx.needs_input_grad
        scaled, scale = gradient, None
        if ctx.precision == "float16":
            rows = gradient.numel() // max(1, gradient.shape[-1])
            scale = gradient.detach().abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
            scaled = gradient * (min(1.0, _LARGEST / max(1, rows)) / scale)
            scale = scale / min(1.0, _LARGEST / max(1, rows))
        of_input = of_weight = None
        if along_input:
            of_input = _multiplied(scaled, weight, ctx.precision)
            of_input = of_input if scale is None else of_input * scale
        if along_weight:
            of_weight = _multiplied(scaled.flatten(0, -2).mT, input.flatten(0, -2), ctx.precision)
            of_weight = of_weight if scale is None else of_weight * scale
        return of_input, of_weight, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        input, weight = ctx.saved_tensors
        along_input, along_weight, _ = tangents
        parts = []
        if along_input is not None:
            parts.append(_multiplied(along_input, weight.mT, ctx.precision))
        if along_weight is not None:
            parts.append(_multiplied(input, along_weight.mT, ctx.precision))
        return sum(parts[1:], start=parts[0])


def _multiplied(left: Tensor, right: Tensor, precision: str) -> Tensor:
    """(…, m) float32 products of (…, n) and (n, m) float32 matrices."""
    if precision == "float16":
        return (left.to(torch.float16) @ right.to(torch.float16)).to(torch.float32)
    if not left.is_cuda:
        return left @ right
    with float32_products("high"):
        return left @ right
