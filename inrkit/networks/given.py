"""A network that a user made: any nn.Module of the right shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from inrkit.errors import ConfigError
from inrkit.networks.base import Network
from inrkit.plugins.options import option


@dataclass
class GivenOptions:
    module: str = option("")
    """Name of the module's class."""


class Given(Network):
    """A module given in Python, which a config cannot hold. It trains in place.

    `holding` makes a subclass that has the module.
    """

    Options = GivenOptions
    held: ClassVar[nn.Module | None] = None

    def __init__(self, options: GivenOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        if self.held is None:
            raise ConfigError(
                f"the network was a Python object ({options.module or 'an nn.Module'}), which a file cannot hold; give "
                "it again, as in inrkit.fit(…, network=module)"
            )
        self.module = self.held
        parameter = next(self.module.parameters(), torch.empty(0))
        try:
            shape = tuple(self.module(torch.zeros(2, dimensions, device=parameter.device)).shape)
        except Exception as error:
            raise ConfigError(
                f"network {options.module} cannot take (2, {dimensions}) coordinates: {str(error).splitlines()[0]}"
            ) from error
        if shape != (2, channels):
            raise ConfigError(
                f"network {options.module} maps (2, {dimensions}) to {shape}; it must give (2, {channels}), a value of "
                f"{channels} channel{'s' if channels > 1 else ''} for each coordinate"
            )

    @classmethod
    def holding(cls, module: nn.Module) -> type[Given]:
        """The network that is `module`."""
        return type("Given", (cls,), {"held": module, "__doc__": cls.__doc__})

    def forward(self, coordinates: Tensor) -> Tensor:
        values: Tensor = self.module(coordinates)
        return values


def named(module: nn.Module) -> dict[str, Any]:
    """The config's slot for a module given in Python."""
    return {"name": GIVEN, "module": type(module).__qualname__}


GIVEN = f"{Given.__module__}:{Given.__qualname__}"
"""The name that stands for such a network in configs and fields."""
