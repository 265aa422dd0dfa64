"""Optimizers: what turns gradients into steps."""

from inrkit.training.optimizers.factories import OPTIMIZERS, OptimizerFactory

__all__ = ["OPTIMIZERS", "OptimizerFactory"]
