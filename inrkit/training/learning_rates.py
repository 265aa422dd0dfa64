"""Learning-rate schedules: how an optimizer's learning rates change during training.

They are functions of the share of training done, so they work for a budget of steps and of seconds alike.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from inrkit.plugins.choice import PluginType
from inrkit.plugins.options import option
from inrkit.plugins.registry import Registry

SCHEDULES: Registry[LearningRateSchedule] = Registry("schedule", "inrkit.schedules")


@SCHEDULES.base
class LearningRateSchedule(metaclass=PluginType):
    """A factor on the learning rate, in (0, 1], as a function of the share of training done."""

    Options: ClassVar[type]

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def decay(self, done: float) -> float:
        """The factor at `done` in [0, 1), without the warm-up."""

    def factor(self, done: float, step_share: float) -> float:
        """The factor at `done`, warm-up included.

        Args:
            done: share of training done before the step, in [0, 1).
            step_share: 1 / T; it keeps the factor of the warm-up's first step above zero.
        """
        warmup = self.options.warmup
        rising = min(1.0, (done + step_share) / warmup) if warmup > 0 else 1.0
        return rising * self.decay(done)


@dataclass
class ConstantOptions:
    warmup: float = option(0.0, at_least=0, at_most=1)
    """Share of training in which the learning rate rises linearly from zero."""


@SCHEDULES.register("constant")
class Constant(LearningRateSchedule):
    """The learning rate stays."""

    Options = ConstantOptions

    def decay(self, done: float) -> float:
        return 1.0


@dataclass
class CosineOptions(ConstantOptions):
    final: float = option(0.0, at_least=0, at_most=1, own=True)
    """Factor at the end of training."""


@SCHEDULES.register("cosine")
class Cosine(LearningRateSchedule):
    """From 1 to `final` along half a cosine (Loshchilov and Hutter, ICLR 2017)."""

    Options = CosineOptions

    def decay(self, done: float) -> float:
        return _half_cosine(1.0, self.options.final, done)


@dataclass
class ExponentialOptions(ConstantOptions):
    final: float = option(0.1, above=0, at_most=1, own=True)
    """Factor at the end of training."""


@SCHEDULES.register("exponential")
class Exponential(LearningRateSchedule):
    """From 1 to `final` by the same ratio in equal shares of training; published INR code decays to a tenth."""

    Options = ExponentialOptions

    def decay(self, done: float) -> float:
        return float(self.options.final**done)


@dataclass
class PolynomialOptions(ConstantOptions):
    power: float = option(1.5, at_least=1)
    """1 is a straight line; higher powers fall earlier and end more gently."""
    final: float = option(0.0, at_least=0, at_most=1, own=True)
    """Factor at the end of training."""


@SCHEDULES.register("polynomial")
class Polynomial(LearningRateSchedule):
    """From 1 to `final` as a power of the share of training left (Chen et al., DeepLab, TPAMI 2018, "poly")."""

    Options = PolynomialOptions

    def decay(self, done: float) -> float:
        final: float = self.options.final
        return final + (1 - final) * float((1 - done) ** self.options.power)


@dataclass
class OneCycleOptions:
    peak: float = option(0.3, above=0, below=1)
    """Share of training at which the learning rate is highest."""
    initial: float = option(0.04, above=0, at_most=1)
    """Factor at the start of training."""
    final: float = option(0.0, at_least=0, at_most=1, own=True)
    """Factor at the end of training."""
    warmup: ClassVar[float] = 0.0
    """No warm-up: the schedule has its own rise to the peak."""


@SCHEDULES.register("one-cycle")
class OneCycle(LearningRateSchedule):
    """From `initial` up to 1 at `peak`, and down to `final` (Smith and Topin, 2018); both along half a cosine.

    The paper's lines are straight; today the method is commonly used with half cosines.
    """

    Options = OneCycleOptions

    def decay(self, done: float) -> float:
        initial, peak, final = self.options.initial, self.options.peak, self.options.final
        if done < peak:
            return _half_cosine(initial, 1.0, done / peak)
        return _half_cosine(1.0, final, (done - peak) / (1 - peak))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
