"""inrkit fits implicit neural representations: small networks from coordinates to a signal's values."""

from inrkit import batch
from inrkit.device import keep_freed_memory
from inrkit.errors import ConfigError, DataError, InrkitError, RunError
from inrkit.evaluation.metrics import METRICS, FieldMetric, Metric, Predictor
from inrkit.exports import export
from inrkit.networks import NETWORKS, HiddenLinear, Network
from inrkit.plugins.options import option
from inrkit.runs.compression import Compressed, compress
from inrkit.runs.field import Field
from inrkit.runs.request import fit, trainer
from inrkit.runs.run import Run, load
from inrkit.runs.weights import Weights
from inrkit.selectors import SELECTORS, RatioOptions, RatioSelector, Residuals, Selection, Selector, Survey
from inrkit.selectors.progress import Progress
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.embeddings import EMBEDDINGS, Embedding
from inrkit.signals.modality import MODALITIES, Modality
from inrkit.signals.operators import OPERATORS, FitnessOperator
from inrkit.signals.transforms import TRANSFORMS, ValueTransform
from inrkit.training.learning_rates import SCHEDULES, LearningRateSchedule
from inrkit.training.loop import Trainer
from inrkit.training.member import Listener, Member
from inrkit.training.objectives import OBJECTIVES, Objective
from inrkit.training.optimizers.factories import OPTIMIZERS, OptimizerFactory

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
    "Compressed",
    "ConfigError",
    "CoordinateDataset",
    "DataError",
    "Embedding",
    "Field",
    "FieldMetric",
    "FitnessOperator",
    "HiddenLinear",
    "InrkitError",
    "LearningRateSchedule",
    "Listener",
    "Member",
    "Metric",
    "Modality",
    "Network",
    "Objective",
    "OptimizerFactory",
    "Predictor",
    "Progress",
    "RatioOptions",
    "RatioSelector",
    "Residuals",
    "Run",
    "RunError",
    "Selection",
    "Selector",
    "Survey",
    "Trainer",
    "ValueTransform",
    "Weights",
    "batch",
    "compress",
    "export",
    "fit",
    "keep_freed_memory",
    "load",
    "option",
    "trainer",
]
