"""How well a network reproduces its signal."""

from inrkit.evaluation.between import Between, noise_between
from inrkit.evaluation.evaluate import evaluate
from inrkit.evaluation.metrics import METRICS, FieldMetric, Metric

__all__ = ["METRICS", "Between", "FieldMetric", "Metric", "evaluate", "noise_between"]
