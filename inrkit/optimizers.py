"""Optimizers, and how their learning rate goes on over training."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from inrkit.options import option
from inrkit.registry import Registry

OPTIMIZERS: Registry[OptimizerFactory] = Registry("optimizer", "inrkit.optimizers")
SCHEDULES: Registry[LearningRateSchedule] = Registry("schedule", "inrkit.schedules")


@OPTIMIZERS.base
class OptimizerFactory(ABC):
    """Makes a torch optimizer for a network."""

    Options: ClassVar[type]
    reevaluates: ClassVar[bool] = False
    """Whether a step evaluates the loss several times and compares losses across steps, so that all steps must train
    on the same coordinates."""

    @classmethod
    @abstractmethod
    def make(cls, options: Any, network: nn.Module) -> torch.optim.Optimizer: ...


@dataclass
class AdamOptions:
    lr: float = option(1e-4, above=0)
    """Learning rate before the schedule's factor."""
    beta1: float = option(0.9, at_least=0, below=1)
    """Decay of the running mean of gradients."""
    beta2: float = option(0.999, at_least=0, below=1)
    """Decay of the running mean of squared gradients."""
    weight_decay: float = option(0.0, at_least=0)
    """Weight decay; coupled to the gradient in Adam, decoupled in AdamW."""


@OPTIMIZERS.register("adam")
class Adam(OptimizerFactory):
    """torch.optim.Adam."""

    Options = AdamOptions
    optimizer: ClassVar[type[torch.optim.Adam]] = torch.optim.Adam

    @classmethod
    def make(cls, options: AdamOptions, network: nn.Module) -> torch.optim.Optimizer:
        return cls.optimizer(
            network.parameters(),
            lr=options.lr,
            betas=(options.beta1, options.beta2),
            weight_decay=options.weight_decay,
        )


@OPTIMIZERS.register("adamw")
class AdamW(Adam):
    """torch.optim.AdamW."""

    optimizer = torch.optim.AdamW


@dataclass
class SoapOptions:
    lr: float = option(1e-3, above=0)
    """Learning rate before the schedule's factor; smaller batches want a smaller one."""
    beta1: float = option(0.95, at_least=0, below=1)
    """Decay of the running mean of gradients."""
    beta2: float = option(0.95, at_least=0, below=1)
    """Decay of the running mean of squared gradients."""
    weight_decay: float = option(0.0, at_least=0)
    """Decoupled weight decay."""
    precondition_every: int = option(10, at_least=1)
    """Steps between two updates of the preconditioner's eigenbasis."""


@OPTIMIZERS.register("soap")
class Soap(OptimizerFactory):
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., ICLR 2025), of pytorch-optimizer.

    Its first step only sets the preconditioner up and leaves the network as it is.
    """

    Options = SoapOptions

    @classmethod
    def make(cls, options: SoapOptions, network: nn.Module) -> torch.optim.Optimizer:
        from pytorch_optimizer.optimizer.soap import SOAP

        return SOAP(
            network.parameters(),
            lr=options.lr,
            betas=(options.beta1, options.beta2),
            weight_decay=options.weight_decay,
            precondition_frequency=options.precondition_every,
        )


@SCHEDULES.base
class LearningRateSchedule(ABC):
    """A factor on the learning rate as a function of the share of training done."""

    Options: ClassVar[type]

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def decay(self, done: float) -> float:
        """The factor at `done` in [0, 1), warm-up aside."""

    def factor(self, done: float, step_share: float) -> float:
        """The factor at `done`, warm-up included.

        Args:
            done: share of training done before the step, in [0, 1).
            step_share: 1 / T; the warm-up's first step is not zero.
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
    final: float = option(0.0, at_least=0, at_most=1)
    """Factor at the end of training."""


@SCHEDULES.register("cosine")
class Cosine(LearningRateSchedule):
    """From 1 to `final` along half a cosine (Loshchilov and Hutter, ICLR 2017)."""

    Options = CosineOptions

    def decay(self, done: float) -> float:
        final = self.options.final
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2
