"""ValueTransforms: invertible maps from stored values to the network's range."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from inrkit.device import returned, wide
from inrkit.plugins.options import option
from inrkit.plugins.registry import Registry
from inrkit.signals.dataset import resolved

TRANSFORMS: Registry[ValueTransform] = Registry("transform", "inrkit.transforms")


class StoredValues(Protocol):
    """The values that a transform is fitted to; a CoordinateDataset is one."""

    @property
    def extent(self) -> tuple[float, float]:
        """Smallest and largest value present."""

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Smallest and largest value that the dtype can hold; None for real numbers."""

    @property
    def dtype(self) -> np.dtype:
        """Of the values in their file."""

    def chunks(self) -> Iterable[Tensor]:
        """All values in order, (k, C) float64, some at a time."""

    def sample(self, count: int) -> Tensor:
        """(n,) float64: all values, or about `count` of them, the same each time."""


@TRANSFORMS.base
class ValueTransform(ABC):
    """Invertible, elementwise. `decode(encode(v))` is v within float32 rounding for every v in the fitted range.

    If the inverse is not defined everywhere, outputs outside its range decode as the nearest end, so that every finite
    output of a network has a value; NaN stays NaN.
    """

    Options: ClassVar[type]

    @classmethod
    @abstractmethod
    def fit(cls, options: Any, values: StoredValues) -> ValueTransform:
        """Choose the map's constants from the values and their dtype."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> ValueTransform:
        """The map that `state` describes."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The map's constants, as plain JSON."""

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """(…, C) stored values, float, to (…, C) in the network's range."""

    @abstractmethod
    def decode(self, values: Tensor) -> Tensor:
        """(…, C) in the network's range to (…, C) stored values, float."""

    def resolved(self, channels: int) -> bool:
        """Whether float32 tells the decoded values of C `channels` apart; else they are decoded as float64."""
        ends = self.decode(torch.tensor([[-1.0], [1.0]], dtype=torch.float64).repeat(1, channels)).sort(dim=0).values
        return all(resolved(low, high) for low, high in ends.T.tolist())


@dataclass
class MinMaxOptions:
    range: str = option("auto", choices=("auto", "full", "data"))
    """The range that maps to [−1, 1]: `full`, the whole range of the dtype (0 … 255); `data`, from the smallest value
    present to the largest; `auto`, `full` for 8-bit integers and `data` for everything else."""
    each_channel: bool = option(False)
    """Whether each channel has a range of its own, as the columns of a table need that are in different units."""


@TRANSFORMS.register("minmax")
class MinMax(ValueTransform):
    """[low, high] to [−1, 1], linearly.

    Args:
        low: stored value that maps to −1, or C of them.
        high: stored value that maps to 1; if it equals `low` (a constant signal), the scale is 1.
    """

    Options = MinMaxOptions

    def __init__(self, low: float | list[float], high: float | list[float]) -> None:
        self.low, self.high = low, high
        lows, highs = (torch.tensor(end, dtype=torch.float64) for end in (low, high))
        halves = (highs - lows) / 2
        self.center: float | list[float] = ((lows + highs) / 2).tolist()
        """What `decode` adds, or C of it."""
        self.scale: float | list[float] = halves.where(halves != 0, torch.ones_like(halves)).tolist()
        """What `decode` multiplies by, or C of it."""

    @classmethod
    def fit(cls, options: MinMaxOptions, values: StoredValues) -> MinMax:
        full = values.value_range
        eight_bit = full is not None and values.dtype.itemsize == 1
        if full is not None and (options.range == "full" or (options.range == "auto" and eight_bit)):
            return cls(*full)
        if not options.each_channel:
            return cls(*values.extent)
        ends = [torch.stack([chunk.amin(dim=0), chunk.amax(dim=0)]) for chunk in values.chunks()]
        low, high = torch.stack(ends).amin(dim=0)[0], torch.stack(ends).amax(dim=0)[1]
        return cls(low.tolist(), high.tolist()) if len(low) > 1 else cls(float(low), float(high))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MinMax:
        low, high = state["low"], state["high"]
        if isinstance(low, list):
            return cls([float(one) for one in low], [float(one) for one in high])
        return cls(float(low), float(high))

    def state(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}

    def encode(self, values: Tensor) -> Tensor:
        return (values - _along(values, self.center)) / _along(values, self.scale)

    def decode(self, values: Tensor) -> Tensor:
        return values * _along(values, self.scale) + _along(values, self.center)


def _along(values: Tensor, constant: float | list[float]) -> float | Tensor:
    """A number, or C numbers for the channels of (…, C) values."""
    return values.new_tensor(constant) if isinstance(constant, list) else constant


@dataclass
class IdentityOptions:
    pass


@TRANSFORMS.register("identity")
class Identity(ValueTransform):
    """Values as they are."""

    Options = IdentityOptions

    @classmethod
    def fit(cls, options: IdentityOptions, values: StoredValues) -> Identity:
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


@dataclass
class ZScoreOptions:
    pass


@TRANSFORMS.register("zscore")
class ZScore(ValueTransform):
    """To mean 0 and standard deviation 1, linearly, over all channels together.

    One mean and one deviation for the whole signal, as in the published comparisons (code of Zhang et al., AAAI 2025).
    A deviation for each channel would change how much the channels count in the loss.

    Args:
        mean: stored value that maps to 0.
        deviation: standard deviation of the stored values; if it is 0 (a constant signal), the scale is 1.
    """

    Options = ZScoreOptions

    def __init__(self, mean: float, deviation: float) -> None:
        self.mean, self.deviation = mean, deviation
        self._scale = deviation or 1.0

    @classmethod
    def fit(cls, options: ZScoreOptions, values: StoredValues) -> ZScore:
        low, high = values.extent
        # Sums about the middle keep their precision under a large offset.
        middle, total, squared, count = (low + high) / 2, 0.0, 0.0, 0
        for chunk in values.chunks():
            centred = chunk - middle
            total += float(centred.sum())
            squared += float(centred.square().sum())
            count += chunk.numel()
        mean = total / count
        return cls(middle + mean, math.sqrt(max(0.0, squared / count - mean**2)))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ZScore:
        return cls(float(state["mean"]), float(state["deviation"]))

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "deviation": self.deviation}

    def encode(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self._scale

    def decode(self, values: Tensor) -> Tensor:
        return values * self._scale + self.mean


@dataclass
class SymmetricPowerOptions:
    calibration: float = option(0.05, at_least=0, below=0.5)
    """Deviation-aware calibration: share β of the range, at the end where the power crowds values. The more values it
    gains, the closer the power is moved to 1; 0 turns this off."""
    edge: float = option(0.01, at_least=0, below=0.5)
    """Adaptive soft boundary: share α of the range at each end. The margin there is proportional to the share of values
    in it."""
    margin: float = option(1.0, at_least=0)
    """κ: margin at an end, in units of the range, if all values lay in its `edge`; 0 turns the soft boundary off."""
    limit: float = option(5.0, at_least=1, at_most=5)
    """The power stays between 1 / limit and limit."""


@TRANSFORMS.register("symmetric-power")
class SymmetricPower(ValueTransform):
    """To [−1, 1] by a power that brings the median to the middle (Zhang et al., AAAI 2025, arXiv 2412.09213).

    v maps to 2 y^γ − 1, where y in [0, 1] is v's position between the ends of the range, each moved outwards by its
    margin. Values outside map to the nearest end.

    Args:
        low: smallest value present.
        high: largest value present.
        power: γ.
        below: margin below `low`, in units of the stored values.
        above: margin above `high`.
    """

    Options = SymmetricPowerOptions

    def __init__(self, low: float, high: float, power: float, below: float, above: float) -> None:
        self.low, self.high, self.power, self.below, self.above = low, high, power, below, above
        self._start = low - below
        self._span = (high - low) + below + above

    @classmethod
    def fit(cls, options: SymmetricPowerOptions, values: StoredValues) -> SymmetricPower:
        low, high = values.extent
        if low == high:
            margin = 0.5 * (min(1.0, abs(low)) or 1.0)  # rounding would swallow a tiny value in a range of 1
            return cls(low, high, 1.0, margin, margin)
        below = _Shares(values)
        power = _symmetric_power(below, options)
        lower = options.margin * below(options.edge)
        upper = options.margin * (1 - below(1 - options.edge))
        if power > 1:
            least = (power * _STEEPEST) ** (1 / (1 - power))
            lower = max(lower, least / (1 - least) * (1 + upper))
        return cls(low, high, power, lower * (high - low), upper * (high - low))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> SymmetricPower:
        return cls(*(float(state[name]) for name in ("low", "high", "power", "below", "above")))

    def state(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "power": self.power, "below": self.below, "above": self.above}

    def encode(self, values: Tensor) -> Tensor:
        place = ((wide(values) - self._start) / self._span).clamp(0, 1)
        return returned(2 * place**self.power - 1, values)

    def decode(self, values: Tensor) -> Tensor:
        place = ((wide(values).clamp(-1, 1) + 1) / 2) ** (1 / self.power)
        return returned(place * self._span + self._start, values)


_STEEPEST = 100.0
"""Largest slope of the inverse of a power: float32's rounding, times this, stays below half a step of 16-bit integers.
The published map has no such bound, and its lowest values become equal."""
_BINS = 1 << 12


class _Shares:
    """The share of a signal's values that lie below a position in its range.

    Args:
        values: not all the same.
    """

    def __init__(self, values: StoredValues) -> None:
        low, high = values.extent
        counts = torch.zeros(_BINS, dtype=torch.float64)
        for chunk in values.chunks():
            counts += torch.histc((chunk - low) / (high - low), _BINS, 0, 1).cpu()
        self._below = torch.cat([torch.zeros(1, dtype=torch.float64), counts.cumsum(0) / counts.sum()])

    def __call__(self, place: float) -> float:
        """Share of the values below `place`, in [0, 1] from the smallest value to the largest."""
        return float(self._below[round(place * _BINS)])

    @property
    def median(self) -> float:
        """The median's position, in (0, 1)."""
        return (int(torch.searchsorted(self._below, 0.5)) - 0.5) / _BINS


def _symmetric_power(below: _Shares, options: SymmetricPowerOptions) -> float:
    """γ: log ½ / log(median), moved towards 1 as far as it crowds values at an end, and limited."""
    # 1 / 256 is the published resolution; without a bound the median of a mask would give an infinite power.
    median = min(max(below.median, 1 / 256), 255 / 256)
    power = math.log(0.5) / math.log(median)
    excess = max(power, 1 / power) - 1
    if options.calibration > 0:
        edge = options.calibration
        if power > 1:
            gain = below(edge ** (1 / power)) - below(edge)
        else:
            gain = below(1 - edge) - below((1 - edge) ** (1 / power))
        excess *= 1 - min(max(gain / edge, 0.0), 1.0)
    strength = min(1 + excess, options.limit)
    return strength if power > 1 else 1 / strength


@dataclass
class BoxCoxOptions:
    pass


@TRANSFORMS.register("boxcox")
class BoxCox(ValueTransform):
    """To [−1, 1] by the Box–Cox power that makes the values most nearly normal (Box and Cox, 1964).

    v maps to (x^λ − 1) / λ, log x for λ = 0, then linearly to [−1, 1]. x runs from 0.1 at the smallest value to 1.1 at
    the largest, so that any signal is positive. The shift by a tenth of the range is that of Zhang et al. (AAAI 2025).
    Values outside map to the nearest end.

    Args:
        low: smallest value present.
        high: largest value present. If it equals `low` (a constant signal), `low` is the middle of a range of 1, or of
            |low| if that is less and not 0, so that it is not lost in rounding.
        exponent: λ.
    """

    Options = BoxCoxOptions

    def __init__(self, low: float, high: float, exponent: float) -> None:
        self.low, self.high, self.exponent = low, high, exponent
        self._range = (high - low) or min(1.0, abs(low)) or 1.0
        self._start = low if high > low else low - self._range / 2
        first, last = self._forward(torch.tensor([_SHIFT, 1 + _SHIFT], dtype=torch.float64)).tolist()
        self._center, self._scale = (first + last) / 2, (last - first) / 2

    @classmethod
    def fit(cls, options: BoxCoxOptions, values: StoredValues) -> BoxCox:
        from scipy import optimize, stats

        low, high = values.extent
        sample = values.sample(_SAMPLED).cpu().numpy()
        if sample.min() == sample.max():
            return cls(low, high, 1.0)
        shifted = (sample - low) / (high - low) + _SHIFT
        found = optimize.minimize_scalar(
            lambda exponent: -stats.boxcox_llf(exponent, shifted), bounds=_EXPONENTS, method="bounded"
        )
        return cls(low, high, float(found.x))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> BoxCox:
        return cls(*(float(state[name]) for name in ("low", "high", "exponent")))

    def state(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "exponent": self.exponent}

    def encode(self, values: Tensor) -> Tensor:
        place = ((wide(values) - self._start) / self._range).clamp(0, 1)
        return returned((self._forward(place + _SHIFT) - self._center) / self._scale, values)

    def decode(self, values: Tensor) -> Tensor:
        shifted = self._backward(wide(values).clamp(-1, 1) * self._scale + self._center)
        return returned((shifted - _SHIFT) * self._range + self._start, values)

    def _forward(self, shifted: Tensor) -> Tensor:
        logarithm = shifted.log()
        return torch.expm1(self.exponent * logarithm) / self.exponent if self.exponent else logarithm

    def _backward(self, transformed: Tensor) -> Tensor:
        if self.exponent:
            transformed = torch.log1p(self.exponent * transformed) / self.exponent
        return transformed.exp()


_SHIFT = 0.1
_EXPONENTS = (-2.0, 3.0)
"""Limits of λ: from x = 0.1 to 1.1 the slope of the inverse is then at most about 70, see `_STEEPEST`."""
_SAMPLED = 1 << 17
"""Numbers that λ is fitted to."""
