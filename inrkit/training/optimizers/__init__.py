"""Optimizers: from gradients to steps."""

from inrkit.training.optimizers.factories import OPTIMIZERS, OptimizerFactory

__all__ = ["OPTIMIZERS", "OptimizerFactory"]
