"""An optimizer given in Python: one of torch's classes, or a function from parameters to an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from inrkit.errors import ConfigError
from inrkit.networks.layers import trained
from inrkit.plugins.options import option
from inrkit.training.optimizers.factories import OptimizerFactory

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass
class GivenOptions:
    maker: str = option("")
    """Name of the class or function."""


class Given(OptimizerFactory):
    """A maker given in Python, which a config cannot hold. Its learning rate is the one before the schedule's
    factor."""

    Options = GivenOptions
    rates = ()
    held: ClassVar[tuple[MakeOptimizer, ...]] = ()
    """The maker, in a tuple because a function would become a method."""

    @classmethod
    def make(cls, options: GivenOptions, network: nn.Module) -> torch.optim.Optimizer:
        if not cls.held:
            raise ConfigError(
                f"the optimizer was a Python object ({options.maker or 'a class'}), which a file cannot hold; give it "
                "again, as in inrkit.fit(…, optimizer=torch.optim.Adam)"
            )
        optimizer = cls.held[0](iter(trained(network)))
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ConfigError(f"optimizer {options.maker} makes {type(optimizer).__name__}, not a torch optimizer")
        return optimizer

    @classmethod
    def holding(cls, maker: MakeOptimizer) -> type[Given]:
        """The plug-in whose optimizer `maker` makes of a network's parameters."""
        return type("Given", (cls,), {"held": (maker,), "__doc__": cls.__doc__})


def named(maker: Any) -> dict[str, Any]:
    """The config's slot for a maker given in Python."""
    name = getattr(maker, "__qualname__", None) or type(maker).__qualname__
    return {"name": f"{Given.__module__}:{Given.__qualname__}", "maker": name}
