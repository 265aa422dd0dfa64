"""The contents of a config: sections of plain keys, and slots whose value chooses a plug-in."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from inrkit.evaluation.metrics import METRICS
from inrkit.networks import NETWORKS
from inrkit.networks.products import PRECISIONS
from inrkit.plugins.options import field_names, option
from inrkit.plugins.registry import Registry
from inrkit.selectors import SELECTORS
from inrkit.signals.embeddings import EMBEDDINGS
from inrkit.signals.modality import MODALITIES
from inrkit.signals.operators import OPERATORS
from inrkit.signals.transforms import TRANSFORMS
from inrkit.training.learning_rates import SCHEDULES
from inrkit.training.objectives import OBJECTIVES
from inrkit.training.optimizers.factories import OPTIMIZERS


@dataclass
class DataOptions:
    path: str = dataclasses.field(default=dataclasses.MISSING)  # type: ignore[assignment]
    """The signal's file. In a config file, relative to that file's folder."""
    weights: str = option("")
    """How much each coordinate's error counts: a .npy of the lattice's shape, or one that spreads over it, of numbers
    that are not negative; or a gray picture, or another file of one channel that a modality reads. In a config file,
    relative to that file's folder."""


DATA_PATHS = ("path", "weights")
"""Keys of `data` that name files."""


@dataclass
class TrainOptions:
    steps: int = option(1000, at_least=1, at_most=10**9)
    """Optimizer steps: T."""
    seconds: float = option(0.0, at_least=0)
    """Seconds after which training ends, without evaluations and whatever `steps` says; schedules then follow the
    clock. 0 counts steps."""
    chunk: int = option(0, at_least=0)
    """Coordinates that pass through the network at a time; 0 chooses for the device."""
    precision: str = option("auto", choices=("auto", *PRECISIONS))
    """Precision of the products of hidden matrices; coordinates, sums and parameters are always float32. `auto` is
    bfloat16 if the processor multiplies it natively, and float16 on a GPU that multiplies only that. `tf32` is a GPU's:
    float32 that multiplies with 11 bits of mantissa. `bfloat16-features` keeps what hidden layers give in
    bfloat16 too."""
    compile: str = option("auto", choices=("auto", "always", "never"))
    """Compile the network for training. This needs a C++ compiler, and up to half a minute for a new network. `auto`
    compiles on a CPU if the number of steps is known to be large enough to save that time. With `always`, tiles on
    a GPU are trained by one kernel in Triton if they are plain SIRENs."""
    capture: str = option("never", choices=("auto", "always", "never"))
    """Record steps that are alike as CUDA graphs, and launch each at once in place of its many small operations.
    `auto` does so on a `cuda` GPU, unless the signal stays in main memory."""
    on_divergence: str = option("stop", choices=("stop", "recover"))
    """What happens where the error is no longer finite: `stop` ends the run; `recover` goes back to the last evaluation
    and on from there with half the learning rate, which takes a second copy of all that training holds."""
    deterministic: bool = option(False)
    """Compute on a GPU what each run of the same computes there, to the bit, by algorithms that may be slower; on a CPU
    it is so anyway."""


@dataclass
class LogOptions:
    every: int = option(100, at_least=1)
    """Steps between evaluations, each a row of metrics.jsonl. Under `train.seconds` some are left out, so that all but
    the last take a twentieth of the time at most."""
    evaluated: int = option(1 << 24, at_least=1 << 16)
    """Most coordinates of an evaluation; a larger signal is evaluated on crops of as many, spread at random and always
    the same. Under `train.seconds` 131,072 for each second at most, and 1,048,576 at least."""
    reconstruction: int = option(1 << 28, at_least=0)
    """Coordinates of the largest signal whose reconstruction is written at the end; `inrkit render` writes larger
    ones."""
    report: bool = option(True)
    """Write report.html at the end, a page to look at; `inrkit report` writes it again."""
    film: str = option("none", choices=("none", "gif", "webp", "mp4"))
    """Write a film of the fit as it grows, `film.gif` or another kind; mp4 needs the extra `video`. Its frames take up
    to a third of the time."""
    tensorboard: bool = option(False)
    """Write an event file for TensorBoard into the run's folder; needs the extra `tensorboard`."""
    wandb: bool = option(False)
    """Make a run of Weights & Biases; needs the extra `wandb`."""
    trackio: bool = option(False)
    """Make a run of trackio on this machine; needs the extra `trackio`."""


WRITER_KEYS = ("report", "film", "tensorboard", "wandb", "trackio")
"""Keys of `log` that say what is made to look at, and change no result."""


@dataclass
class CheckpointOptions:
    seconds: float = option(60.0, at_least=0)
    """Seconds between checkpoints; one is also written at the end and when the run is interrupted."""
    keep: bool = option(True)
    """Whether a run that is done keeps its last checkpoint, so that it can be given more steps. Without, thousands of
    small runs take a third of the space."""


@dataclass
class RegionOptions:
    values: int = option(0, at_least=0)
    """Most values of a region, if the signal is cut into regions that are fitted by themselves; 0 fits it whole. It is
    16,777,216 where `--workers` or `--launcher` is given."""
    first: float = option(0.25, above=0, at_most=1)
    """Share of the steps that all regions get alike; the rest is shared out by how much error each still has then."""


@dataclass
class GeneralOptions:
    metrics: list[str] = option([])
    """Metrics of an evaluation, by name."""
    seed: int = option(0, at_least=0, at_most=2**63 - 1)
    """Seed of everything random."""
    device: str = option("auto")
    """`cpu`, `cuda`, `cuda:1`, `xpu`, `mps`, or `auto` for a `cuda` GPU when there is one."""
    init: str = option("")
    """A run's folder or a field.safetensors whose weights training starts from; the network is of the same kind and
    shapes. In a config file, relative to that file's folder."""
    init_skip: list[str] = option([])
    """Parameters that are not taken from `init` but drawn, by what their names begin with: `last` for a last layer."""
    frozen: list[str] = option([])
    """Parameters that are not trained, by what their names begin with: `first`, `hidden.0`."""


SECTIONS: dict[str, type] = {
    "data": DataOptions,
    "train": TrainOptions,
    "log": LogOptions,
    "checkpoint": CheckpointOptions,
    "regions": RegionOptions,
}

LAUNCHERS: Registry[Any] = Registry("launcher", "inrkit.launchers")
"""Launchers run the jobs of a study. They are in `inrkit.batch`, which is above this room."""

EXPORTS: Registry[Any] = Registry("export", "inrkit.exports")
"""Exports write a field for other programs; the name of one is the suffix of its files. They are in `inrkit.exports`,
which is above this room."""


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in.

    Args:
        plural: its name in `inrkit list`.
        registry: finds its plug-ins by name.
        slot: whether a config chooses one, under the kind's name.
        default: the plug-in of the slot if neither a preset nor the user has chosen one; None if the modality names it.
    """

    plural: str
    registry: Registry[Any]
    slot: bool = True
    default: str | None = None

    @property
    def name(self) -> str:
        """The kind in the singular: the key of its slot."""
        return self.registry.kind


KINDS = (
    Kind("modalities", MODALITIES),
    Kind("transforms", TRANSFORMS, default="minmax"),
    Kind("operators", OPERATORS),
    Kind("embeddings", EMBEDDINGS),
    Kind("networks", NETWORKS, default="siren"),
    Kind("selectors", SELECTORS, default="evos"),
    Kind("objectives", OBJECTIVES, default="mse"),
    Kind("optimizers", OPTIMIZERS, default="adam"),
    Kind("schedules", SCHEDULES, default="constant"),
    Kind("metrics", METRICS, slot=False),
    Kind("launchers", LAUNCHERS, slot=False),
    Kind("exports", EXPORTS, slot=False),
)
"""All kinds of plug-in. Configs, listings and the contract's tests follow from this table."""

SLOTS: dict[str, Kind] = {kind.name: kind for kind in KINDS if kind.slot}
TOP_KEYS = [*SLOTS, *SECTIONS, *field_names(GeneralOptions)]


@dataclass(frozen=True)
class Choice:
    """A chosen plug-in: its name, its class and its validated options."""

    name: str
    plugin: Any
    options: Any

    def make(self, *arguments: Any) -> Any:
        """An instance of the plug-in, made of its options and the arguments."""
        return self.plugin(self.options, *arguments)


@dataclass(frozen=True)
class Config:
    """A whole request, validated. The choice of a slot is an attribute with the slot's name: `config.network`."""

    choices: dict[str, Choice]
    data: DataOptions
    train: TrainOptions
    log: LogOptions
    checkpoint: CheckpointOptions
    regions: RegionOptions
    general: GeneralOptions

    def __getattr__(self, slot: str) -> Choice:
        if slot not in SLOTS:
            raise AttributeError(f"a config has no '{slot}'; it has {', '.join(TOP_KEYS)}")
        return self.choices[slot]

    def to_dict(self) -> dict[str, Any]:
        """Every key with its value, in plain containers."""
        slots = {
            name: {"name": choice.name, **dataclasses.asdict(choice.options)} for name, choice in self.choices.items()
        }
        sections = {name: dataclasses.asdict(getattr(self, name)) for name in SECTIONS}
        return {**slots, **sections, **dataclasses.asdict(self.general)}
