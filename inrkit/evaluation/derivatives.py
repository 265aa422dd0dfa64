"""First and second derivatives of a function of coordinates, by automatic differentiation."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
"""(k, D) coordinates to (k, C) values. Each row depends only on its own row; the weights need no gradient."""

_FORWARD = 3
"""Channels per dimension above which forward mode is faster; its cost does not depend on the channels."""


def jacobian(function: Function, points: Tensor) -> Tensor:
    """(k, C, D) first derivatives at (k, D) points."""
    return _derived(function, points, 1)


def hessian(function: Function, points: Tensor) -> Tensor:
    """(k, C, D, D) second derivatives at (k, D) points."""
    return _derived(function, points, 2)


def _derived(function: Function, points: Tensor, order: int) -> Tensor:
    # Gradients may be off around the call, or the points may have been made in inference mode.
    with torch.inference_mode(False), torch.enable_grad():
        points = points.detach().clone().requires_grad_()
        values = function(points)
        if values.shape[1] > _FORWARD * points.shape[1]:
            # An operation may have no forward derivative, or torch.func may not support it.
            with contextlib.suppress(RuntimeError), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
                return _forward(function, points.detach(), order)
        return _reverse(values, points, order).detach()


def _reverse(values: Tensor, points: Tensor, order: int) -> Tensor:
    """(k, n, *[D] * order) derivatives of (k, n) values at (k, D) points, a backward pass for each of n."""
    slopes = []
    for value in values.unbind(dim=1):
        if value.requires_grad:
            (slope,) = torch.autograd.grad(
                value.sum(), points, retain_graph=True, create_graph=order > 1, materialize_grads=True
            )
        else:  # it does not depend on the coordinates
            slope = torch.zeros_like(points)
        slopes.append(slope if order == 1 else _reverse(slope, points, order - 1))
    return torch.stack(slopes, dim=1)


def _forward(function: Function, points: Tensor, order: int) -> Tensor:
    """(k, C, *[D] * order) derivatives at (k, D) points, a forward pass for each of the D axes."""
    if order == 0:
        return function(points)
    inner = partial(_forward, function, order=order - 1)
    axes = torch.eye(points.shape[1], dtype=points.dtype, device=points.device)
    columns = [torch.func.jvp(inner, (points,), (axis.expand_as(points),))[1] for axis in axes]
    return torch.stack(columns, dim=-1)
