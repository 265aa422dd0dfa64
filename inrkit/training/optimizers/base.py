"""What inrkit's own optimizers have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch


class Optimizer(torch.optim.Optimizer):
    """A torch optimizer that is quickly made.

    Torch guards some methods against being compiled, and imports all of its compiler to do so: a second of every fit.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


def evaluated(closure: Callable[[], Any] | None) -> Any:
    """The result of a closure that zeroes the gradients and backpropagates; gradients are on inside. None for no
    closure."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
