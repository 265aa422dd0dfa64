"""The closures that torch's optimizers take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def evaluated(closure: Callable[[], Any] | None) -> Any:
    """The result of a closure that zeroes the gradients and backpropagates; gradients are on inside. None for no
    closure."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
