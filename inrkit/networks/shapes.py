"""The shapes of a network's tensors, found before any of them is allocated."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)


def shapes_of(make: Callable[[], nn.Module], tensors: int, numbers: int) -> dict[str, torch.Size]:
    """The shapes that the entries of a network's state will have.

    The network is made on torch's meta device, which has no memory, and no further than it may grow.

    Args:
        make: makes the network.
        tensors: most parameters and buffers that it may make on the way.
        numbers: most numbers that it may make in these.

    Raises:
        ValueError: it makes more than that.
    """
    left, thread = [tensors, numbers], threading.get_ident()

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None or threading.get_ident() != thread:
            return
        left[0] -= 1
        left[1] -= tensor.numel()
        if min(left) < 0:
            raise ValueError("the network is larger than its weights")

    hooks = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        with torch.device("meta"):
            return {name: tensor.shape for name, tensor in make().state_dict().items()}
    finally:
        for hook in hooks:
            hook.remove()
