"""What a network is to inrkit, and where networks are found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from inrkit.registry import Registry

NETWORKS: Registry[Network] = Registry("network", "inrkit.networks")


class Network(nn.Module, ABC):
    """Maps (…, D) float32 coordinates in [−1, 1]^D to (…, C) float32 values in the network's range.

    A subclass names its options in `Options`. Its parameters are drawn from torch's default generator, which is
    seeded while the network is built.

    Args:
        options: an instance of `Options`.
        dimensions: D.
        channels: C.
    """

    Options: ClassVar[type]

    def __init__(self, options: Any, dimensions: int, channels: int) -> None:
        super().__init__()
        self.options = options
        self.dimensions = dimensions
        self.channels = channels

    @abstractmethod
    def forward(self, coordinates: Tensor) -> Tensor: ...
