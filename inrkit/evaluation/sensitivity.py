"""How far a change of a parameter moves a network's values."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inrkit.device import mean, wide
from inrkit.networks import Tiles
from inrkit.signals.embeddings import Embedding

_POINTS = 1 << 13
_PROBES = 4
_TILES = 256
"""Tiles that represent all."""
_LEAST = 1e-6


def sensitivities(network: nn.Module, embedding: Embedding) -> dict[str, list[tuple[int, float]]]:
    """Root mean square, over coordinates and a group's parameters, of the derivatives of the values with respect to
    each group of parameters.

    The sum over channels and coordinates is estimated by random signs (Hutchinson), with a seed of its own.

    Args:
        network: (…, E) to (…, C).
        embedding: (…, D) coordinates to (…, E).

    Returns:
        For each parameter by name, its groups in order: how many numbers each has, real and imaginary parts counted
        one by one, and their root mean square. A tensor is one group; the matrix of a network with tiles has one for
        each tensor of a tile's network, where derivatives are those of the tile's own network.
    """
    generator = torch.Generator().manual_seed(0)
    device = next(network.parameters()).device
    if isinstance(network, Tiles):
        return {"weights": _of_tiles(network, generator)}
    parameters = {name: each for name, each in network.named_parameters() if each.requires_grad}
    totals = dict.fromkeys(parameters, 0.0)
    for _ in range(_PROBES):
        points = torch.rand(_POINTS, embedding.dimensions, generator=generator) * 2 - 1
        values = network(embedding(points.to(device)))
        gradients = torch.autograd.grad(
            (values * _signs(values, generator)).sum(), list(parameters.values()), allow_unused=True
        )
        for name, gradient in zip(totals, gradients, strict=True):
            if gradient is not None:
                gradient = torch.view_as_real(gradient) if gradient.is_complex() else gradient
                totals[name] += mean(gradient.square()) / (_PROBES * _POINTS)
    found = {}
    for name, parameter in network.named_parameters():
        size = parameter.numel() * (2 if parameter.is_complex() else 1)
        found[name] = [(size, max(_LEAST, math.sqrt(totals.get(name, 1.0))))]
    return found


def _of_tiles(network: Tiles, generator: torch.Generator) -> list[tuple[int, float]]:
    rows = torch.randperm(network.networks, generator=generator)[:_TILES].to(network.weights.device)
    weights = network.weights.detach()[rows].requires_grad_()
    sides = torch.tensor(network.tiling.sides, dtype=torch.float32)
    count = max(1, _POINTS // 32)
    total = torch.zeros(weights.shape[1], dtype=torch.float64)
    for _ in range(_PROBES):
        offsets = torch.rand(1, count, network.dimensions, generator=generator) * sides
        values = network.rows(weights, network.tiling.local(offsets).to(weights.device))
        (gradients,) = torch.autograd.grad((values * _signs(values, generator)).sum(), weights)
        total += wide(gradients).square().mean(dim=0).cpu() / (_PROBES * count)
    parts = total.split(network.widths)
    return [(len(part), max(_LEAST, math.sqrt(float(part.mean())))) for part in parts]


def _signs(values: Tensor, generator: torch.Generator) -> Tensor:
    """Random signs in the shape of `values`."""
    return (torch.randint(0, 2, values.shape, generator=generator) * 2 - 1).to(values.device, values.dtype)
