"""ValueTransforms: invertible maps from stored values to the network's range."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from inrkit.options import option
from inrkit.registry import Registry

if TYPE_CHECKING:
    from inrkit.dataset import CoordinateDataset

TRANSFORMS: Registry[ValueTransform] = Registry("transform", "inrkit.transforms")


@TRANSFORMS.base
class ValueTransform(ABC):
    """Invertible, elementwise. `decode(encode(v))` is v within float32 rounding."""

    Options: ClassVar[type]

    @classmethod
    @abstractmethod
    def fit(cls, options: Any, dataset: CoordinateDataset) -> ValueTransform:
        """Choose the map's constants from the dataset's values and dtype."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> ValueTransform:
        """The map that `state` describes."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The map's constants, as JSON can hold them."""

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """(…, C) stored values, float, to (…, C) in the network's range."""

    @abstractmethod
    def decode(self, values: Tensor) -> Tensor:
        """(…, C) in the network's range to (…, C) stored values, float."""


@dataclass
class MinMaxOptions:
    range: str = option("auto", choices=("auto", "full", "data"))
    """What maps to [−1, 1]: `full`, all that the dtype can hold (0 … 255); `data`, from the smallest value
    present to the largest; `auto`, `full` for 8-bit integers and `data` for everything else."""


@TRANSFORMS.register("minmax")
class MinMax(ValueTransform):
    """[low, high] to [−1, 1], linearly.

    Args:
        low: stored value that maps to −1.
        high: stored value that maps to 1; where it equals `low` (a constant signal) the scale is 1.
    """

    Options = MinMaxOptions

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self._center = (low + high) / 2
        self._scale = (high - low) / 2 or 1.0

    @classmethod
    def fit(cls, options: MinMaxOptions, dataset: CoordinateDataset) -> MinMax:
        full = dataset.value_range
        eight_bit = full is not None and dataset.values.dtype.itemsize == 1
        if full is not None and (options.range == "full" or (options.range == "auto" and eight_bit)):
            return cls(*full)
        return cls(*dataset.extent)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MinMax:
        return cls(float(state["low"]), float(state["high"]))

    def state(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}

    def encode(self, values: Tensor) -> Tensor:
        return (values - self._center) / self._scale

    def decode(self, values: Tensor) -> Tensor:
        return values * self._scale + self._center


@dataclass
class IdentityOptions:
    pass


@TRANSFORMS.register("identity")
class Identity(ValueTransform):
    """Values as they are."""

    Options = IdentityOptions

    @classmethod
    def fit(cls, options: IdentityOptions, dataset: CoordinateDataset) -> Identity:
        return cls()

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Identity:
        return cls()

    def state(self) -> dict[str, Any]:
        return {}

    def encode(self, values: Tensor) -> Tensor:
        return values

    def decode(self, values: Tensor) -> Tensor:
        return values


def as_float(values: Tensor) -> Tensor:
    """Stored values as float32, or as float64 where float32 would lose whole numbers."""
    wide = values.dtype in (torch.float64, torch.int32, torch.int64)
    return values.to(torch.float64 if wide else torch.float32)
