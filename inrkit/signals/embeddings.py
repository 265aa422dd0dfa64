"""Embeddings: fixed maps from a signal's coordinates to a network's inputs."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from inrkit.errors import ConfigError
from inrkit.plugins.choice import PluginType
from inrkit.plugins.options import option
from inrkit.plugins.registry import Registry

EMBEDDINGS: Registry[Embedding] = Registry("embedding", "inrkit.embeddings")


@EMBEDDINGS.base
class Embedding(metaclass=PluginType):
    """Maps (…, D) coordinates in [−1, 1]^D to (…, E) network inputs.

    Args:
        options: an instance of the subclass's `Options`.
        dimensions: D.
    """

    Options: ClassVar[type]

    def __init__(self, options: Any, dimensions: int) -> None:
        self.options = options
        self.dimensions = dimensions

    @property
    @abstractmethod
    def features(self) -> int:
        """E."""

    @abstractmethod
    def __call__(self, coordinates: Tensor) -> Tensor: ...


@dataclass
class IdentityOptions:
    pass


@EMBEDDINGS.register("identity")
class Identity(Embedding):
    """Coordinates as they are."""

    Options = IdentityOptions

    @property
    def features(self) -> int:
        return self.dimensions

    def __call__(self, coordinates: Tensor) -> Tensor:
        return coordinates


@dataclass
class PeriodicOptions:
    axes: list[int] = option([])
    """Axes along which −1 and 1 are the same place, counted from 0."""


@EMBEDDINGS.register("periodic")
class Periodic(Embedding):
    """Each periodic axis becomes a circle, x to (cos πx, sin πx), so that the signal closes without a seam."""

    Options = PeriodicOptions

    def __init__(self, options: PeriodicOptions, dimensions: int) -> None:
        super().__init__(options, dimensions)
        wrong = [axis for axis in options.axes if not 0 <= axis < dimensions]
        if wrong:
            raise ConfigError(f"embedding.axes names axis {wrong[0]}; the signal has axes 0 to {dimensions - 1}")

    @property
    def features(self) -> int:
        return self.dimensions + len(set(self.options.axes))

    def __call__(self, coordinates: Tensor) -> Tensor:
        columns = []
        for axis in range(self.dimensions):
            along = coordinates[..., axis]
            if axis in self.options.axes:
                columns += [torch.cos(math.pi * along), torch.sin(math.pi * along)]
            else:
                columns.append(along)
        return torch.stack(columns, dim=-1)
