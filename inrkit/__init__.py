"""inrkit fits implicit neural representations: small networks from coordinates to a signal's values."""

from inrkit.dataset import CoordinateDataset
from inrkit.embeddings import EMBEDDINGS, Embedding
from inrkit.errors import ConfigError, DataError, InrkitError, RunError
from inrkit.field import Field
from inrkit.fitting import fit
from inrkit.learning_rates import SCHEDULES, LearningRateSchedule
from inrkit.metrics import METRICS, Metric
from inrkit.modality import MODALITIES, Modality
from inrkit.networks import NETWORKS, HiddenLinear, Network
from inrkit.objectives import OBJECTIVES, Objective
from inrkit.operators import OPERATORS, FitnessOperator
from inrkit.optimizers import OPTIMIZERS, OptimizerFactory
from inrkit.options import option
from inrkit.run import Run, load
from inrkit.schedules import Progress
from inrkit.selectors import SELECTORS, Errors, RatioOptions, RatioSelector, Selection, Selector, Survey
from inrkit.trainer import Listener, Trainer
from inrkit.transforms import TRANSFORMS, ValueTransform

__all__ = [
    "EMBEDDINGS",
    "METRICS",
    "MODALITIES",
    "NETWORKS",
    "OBJECTIVES",
    "OPERATORS",
    "OPTIMIZERS",
    "SCHEDULES",
    "SELECTORS",
    "TRANSFORMS",
    "ConfigError",
    "CoordinateDataset",
    "DataError",
    "Embedding",
    "Errors",
    "Field",
    "FitnessOperator",
    "HiddenLinear",
    "InrkitError",
    "LearningRateSchedule",
    "Listener",
    "Metric",
    "Modality",
    "Network",
    "Objective",
    "OptimizerFactory",
    "Progress",
    "RatioOptions",
    "RatioSelector",
    "Run",
    "RunError",
    "Selection",
    "Selector",
    "Survey",
    "Trainer",
    "ValueTransform",
    "fit",
    "load",
    "option",
]
