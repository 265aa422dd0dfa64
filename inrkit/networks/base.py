"""Network: the base class of all networks, and their registry."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from inrkit.plugins.choice import PluginType
from inrkit.plugins.registry import Registry

if TYPE_CHECKING:
    from inrkit.signals.signal import Signal

NETWORKS: Registry[Network] = Registry("network", "inrkit.networks")


@NETWORKS.base
class Network(nn.Module, metaclass=PluginType):
    """Maps (…, D) float32 inputs, coordinates in [−1, 1]^D, to (…, C) float32 values in the network's range.

    A subclass names its options in `Options`. It draws its parameters from torch's default generator, which is seeded
    while the network is built.

    Args:
        options: an instance of `Options`.
        dimensions: D; if coordinates are embedded, E, the length of the embedding.
        channels: C.
    """

    Options: ClassVar[type]
    tiled: ClassVar[bool] = False
    """Whether it consists of a network for each tile, as `Tiles` does."""
    exact: ClassVar[bool] = False
    """Whether it tells float64 coordinates apart that are one and the same in float32."""

    def __init__(self, options: Any, dimensions: int, channels: int) -> None:
        super().__init__()
        self.options = options
        self.dimensions = dimensions
        self.channels = channels

    @classmethod
    def fitted(cls, options: Any, signal: Signal) -> Any:
        """The options, with those that are left to the signal filled in. The base class changes nothing."""
        return options

    def meet(self, signal: Signal) -> None:
        """Take from the signal what does not come from training, before it begins. The base class takes nothing."""

    @abstractmethod
    def forward(self, coordinates: Tensor) -> Tensor: ...
