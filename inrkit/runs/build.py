"""From a config to the parts of a training."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inrkit.config import Config
from inrkit.device import free_memory
from inrkit.errors import ConfigError, DataError, RunError
from inrkit.evaluation.evaluate import applicable, default_chunk
from inrkit.files import missing, require_file
from inrkit.networks import Network, Tiles, set_precision
from inrkit.plugins.options import nearest
from inrkit.runs.beginning import Beginning, begins
from inrkit.runs.field import Field
from inrkit.runs.wording import storage
from inrkit.selectors.progress import Progress
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.decoding import decoding, mapped_array
from inrkit.signals.modality import MODALITIES, modality_of
from inrkit.signals.packing import packed
from inrkit.signals.signal import Signal
from inrkit.signals.tiled import TiledSignal, TileLayout
from inrkit.training.backends.compiled import Compiled
from inrkit.training.member import Member
from inrkit.training.memory import expected_memory
from inrkit.training.randomness import caller_undisturbed, seeded

_SMALLEST = 1e-30
"""The smallest range of values of which float32 resolves the errors."""


def read_signal(config: Config) -> Signal:
    """The signal that a config names, with its value transform fitted.

    Raises:
        DataError: the file cannot be used.
    """
    if not config.data.path:
        raise DataError("the signal was a Python object; give it again, or name a file with data.path=…")
    path = Path(config.data.path)
    if not path.exists():
        raise DataError(missing(path))
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path} is empty; check how it was written")
    try:
        require_file(path)
        dataset = config.modality.make().read(path)
        if dataset.value_range is None:
            _ = dataset.extent  # raises an error if a value is not finite
    except DataError as error:
        named = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise DataError(named) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    return as_signal(config, dataset)


def as_signal(config: Config, dataset: CoordinateDataset) -> Signal:
    """A dataset with the value transform, fitted to it, the embedding and the weights that a config names.

    Raises:
        DataError: the weights cannot be used.
    """
    if dataset.value_range is None:
        _require_span(dataset.extent)
    dataset = weighted(config, dataset)
    transform = config.transform.plugin.fit(config.transform.options, dataset)
    return Signal(dataset, transform, config.embedding.make(dataset.dimensions))


def _require_span(extent: tuple[float, float]) -> None:
    span = extent[1] - extent[0]
    if 0 < span < _SMALLEST:
        raise DataError(f"the values span {span:.3g}, too little for float32; multiply them by a large number")


def weighted(config: Config, dataset: CoordinateDataset) -> CoordinateDataset:
    """A dataset with the weights that a config names; as it is if it names none.

    Raises:
        DataError: they cannot be used.
    """
    if not config.data.weights:
        return dataset
    path = Path(config.data.weights)
    if not path.is_file():
        raise DataError(
            f"data.weights is {path}, which is no file; give a .npy, or a gray picture or another signal of one channel"
        )
    weights = _stored_weights(path) if path.suffix.lower() == ".npy" else _weights_of_signal(path)
    try:
        return dataset.weighted(weights)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _stored_weights(path: Path) -> np.ndarray:
    with decoding(path, "is damaged or truncated"):
        weights = mapped_array(path)
        if weights.dtype.kind not in "biuf":
            raise DataError(f"{path}, the weights, is of dtype {weights.dtype}; expected real numbers")
        return weights


def _weights_of_signal(path: Path) -> np.ndarray:
    """The values of one channel that whichever modality reads a file finds in it; 0 where they are not known."""
    name = modality_of(path)
    if name is None:
        raise DataError(f"data.weights is {path}, which no modality reads; give a .npy, or a gray picture")
    plugin = MODALITIES.get(name)
    dataset = plugin(plugin.Options()).read(path)
    values = dataset.stored(slice(None))
    if dataset.grid_shape is None or (values[:, 1:] != values[:, :1]).any():
        raise DataError(
            f"{path}, the weights, is {dataset!r}; give one channel on a lattice, such as a gray picture or a .npy"
        )
    weights = values[:, 0].numpy().reshape(dataset.grid_shape)
    return weights if dataset.known is None else np.where(known_cells(dataset), weights, 0)


def build(
    config: Config, signal: Signal, device: torch.device, precision: str, beginning: Beginning | None = None
) -> Member:
    """The member that a config describes; everything random is seeded.

    Args:
        config: of the fit, its network's options as `begun` gives them.
        signal: what is fitted.
        device: where. Values that would take most of what it has free stay in main memory and are gathered there.
        precision: of the hidden matrices' products.
        beginning: weights to start from; those that are drawn, if not given.

    Raises:
        ConfigError: parts of the config do not fit each other or the signal.
        RunError: the signal or the network does not fit in the device's memory.
    """
    refuse_regions(config)
    applicable(config.general.metrics, signal.dataset)  # raises now if a metric cannot be computed
    signal = on_device(signal, device)
    try:
        return _build(config, signal, precision, beginning)
    except Exception as error:
        if not memory_ran_out(error):
            raise
        raise RunError("the network does not fit in memory; lower network.hidden_features") from error


def refuse_regions(config: Config) -> None:
    """Refuse to fit a signal as a whole that is to be fitted region by region.

    Raises:
        ConfigError: it is.
    """
    if config.regions.values:
        raise ConfigError(
            "regions.values is set, so the signal is to be fitted region by region; do so with inrkit fit, or with "
            "inrkit.batch.fit_regions in Python"
        )


def on_device(signal: Signal, device: torch.device) -> Signal:
    """The signal on a device, its values too where they leave enough of its memory free.

    Raises:
        RunError: it does not fit there.
    """
    size = signal.dataset.values.nbytes
    try:
        return signal.to(device, device.type == "cpu" or FREE * size <= free_memory(device))
    except Exception as error:
        if not memory_ran_out(error):
            raise
        raise RunError(f"the signal, {size / 2**30:.1f} GiB, does not fit on {device}; choose device=cpu") from error


FREE = 2
"""Times the memory of what is to be on a GPU that it has to have free: training and evaluating take some too."""


def begun(config: Config, signal: Signal, beginning: Beginning) -> Config:
    """The config with its network's options such that the weights of a beginning mean what they meant.

    Raises:
        ConfigError: the beginning is of another kind of network.
    """
    network = config.network
    options = beginning.options_for(network.name, network.options, network.plugin.fitted(network.options, signal))
    return dataclasses.replace(
        config, choices={**config.choices, "network": dataclasses.replace(network, options=options)}
    )


def _build(config: Config, signal: Signal, precision: str, beginning: Beginning | None) -> Member:
    device, count, seed = signal.device, len(signal), config.general.seed
    operator = config.operator.make(signal)
    network = _network(config, signal)
    if beginning is not None:
        beginning.start(network, config.general.init_skip)
    _freeze(network, config.general.frozen)
    set_precision(network, precision)
    if precision == "bfloat16-features":
        _require_same_dtypes(config, network, signal)
    if config.optimizer.plugin.reevaluates and signal.dataset.resample_every:
        raise ConfigError(
            f"optimizer is '{config.optimizer.name}', which compares losses of different steps, but this signal's "
            "points are drawn anew during training; switch that off in the modality's options, or choose another "
            "optimizer"
        )
    if isinstance(network, Tiles):
        network.fused = config.train.compile == "always" and device.type in ("cuda", "xpu")
    view = _view(config, network, signal)
    if view is None or not isinstance(network, Tiles):
        selector = config.selector.make(count, operator, seed, device)
    else:
        units = network.networks
        layout = TileLayout(view, units)
        selector = config.selector.plugin.of_tiles(config.selector.options, units, layout, seed, device)
    if config.objective.plugin.needs_visits and not selector.visits_whole:
        raise ConfigError(
            f"objective is '{config.objective.name}', which needs key steps that visit all coordinates, but of this "
            f"signal's {count:,} they visit a part; choose objective=mse, or raise selector.key_share"
        )
    member = Member(
        signal,
        network,
        selector,
        config.objective.make(count, operator, device),
        config.optimizer.plugin.make(config.optimizer.options, network),
        config.schedule.make(),
        steps=config.train.steps,
        budget=config.train.seconds or None,
        chunk=config.train.chunk or default_chunk(device, network),
        metrics=config.general.metrics,
        evaluate_every=config.log.every,
        evaluate_most=evaluated_most(config),
        view=view,
        recovers=config.train.on_divergence == "recover",
        rate_key=_rate_key(config.optimizer.plugin.rates),
    )
    if config.train.compile == "always" or (config.train.compile == "auto" and _worth_compiling(member)):
        member.forward = Compiled(network)
    member.captured = _captured(config.train.capture, signal)
    return member


def _rate_key(rates: Sequence[str]) -> str:
    """What a message calls an optimizer's learning rates, options of its."""
    return " and ".join(f"optimizer.{name}" for name in rates) or "the optimizer's learning rate"


def _captured(choice: str, signal: Signal) -> bool:
    """Whether steps are captured.

    Raises:
        ConfigError: they are to be, and cannot be.
    """
    device, away = signal.device.type, signal.dataset.away
    possible = device == "cuda" and not away
    if choice == "always" and not possible:
        why = "the signal stays in main memory" if away else f"there are no CUDA graphs on {device}"
        raise ConfigError(f"train.capture is 'always', but {why}; choose auto or never")
    return possible and choice != "never"


def _require_same_dtypes(config: Config, network: Network, signal: Signal) -> None:
    """Refuse a network whose layers do not take the bfloat16 features that hidden layers give."""
    try:
        with torch.no_grad(), caller_undisturbed(signal.device):
            network(signal.inputs(slice(0, 1)))
    except RuntimeError as error:
        raise ConfigError(
            f"train.precision is 'bfloat16-features', and in network '{config.network.name}' a layer takes float32 "
            "features alone; choose bfloat16"
        ) from error


def evaluated_most(config: Config) -> int:
    """Most coordinates of an evaluation: under a budget of time no more than take a small share of it."""
    budget = config.train.seconds
    return (
        min(config.log.evaluated, max(1 << 20, int(budget * _EVALUATED_A_SECOND))) if budget else config.log.evaluated
    )


def _network(config: Config, signal: Signal) -> Network:
    """The network that a config names, its parameters drawn."""
    plugin = config.network.plugin
    options = plugin.fitted(config.network.options, signal)
    with seeded(config.general.seed):
        network: Network = plugin(options, signal.embedding.features, signal.dataset.channels)
    network = network.to(signal.device)
    network.meet(signal)
    return network


def _view(config: Config, network: Network, signal: Signal) -> TiledSignal | None:
    """The signal seen by the network's tiles, if the config's parts act on whole tiles; None if they act on
    coordinates."""
    if not isinstance(network, Tiles) or config.selector.plugin.of_tiles is None or config.objective.plugin.links:
        return None
    return network.view(signal) if config.optimizer.plugin.steps_rows else None


def _freeze(network: Network, prefixes: Sequence[str]) -> None:
    """Take parameters out of training.

    Raises:
        ConfigError: a prefix names none, or no parameter is left.
    """
    named = dict(network.named_parameters())
    for prefix in prefixes:
        if not any(begins(name, [prefix]) for name in named):
            raise ConfigError(f"frozen has '{prefix}', which no parameter's name begins with{nearest(prefix, named)}")
    for name, parameter in named.items():
        if begins(name, prefixes):
            parameter.requires_grad_(False)
    if prefixes and not any(parameter.requires_grad for parameter in named.values()):
        raise ConfigError(f"frozen is {', '.join(prefixes)}, which leaves nothing to train; leave something out of it")


def field_of(config: Config, network: Network, signal: Signal) -> Field:
    """The field of `network`, which was trained on `signal` as `config` says."""
    dataset = signal.dataset
    return Field(
        network=network,
        channels=dataset.channels,
        embedding=signal.embedding,
        transform=signal.transform,
        names={slot: getattr(config, slot).name for slot in ("network", "embedding", "transform", "modality")},
        modality_options=dataclasses.asdict(config.modality.options),
        grid_shape=dataset.whole,
        dtype=dataset.dtype,
        value_range=dataset.value_range,
        affine=dataset.affine,
        metadata=_with_holes(dataset),
    )


def _with_holes(dataset: CoordinateDataset) -> dict[str, Any]:
    """A signal's metadata, which say as "filled" where the field has values that were not known, if the modality has
    not said as "known" which were."""
    if dataset.known is None or dataset.grid_shape is None or "known" in dataset.metadata:
        return dataset.metadata
    return {**dataset.metadata, "filled": packed(~known_cells(dataset))}


def known_cells(dataset: CoordinateDataset) -> np.ndarray:
    """(*grid_shape) bool, where the values on a lattice of which a part is known are."""
    assert dataset.grid_shape is not None
    known = np.zeros(dataset.grid_shape, dtype=bool)
    known.flat[dataset.known.cpu().numpy()] = True  # type: ignore[union-attr]
    return known


def files_memory(config: Config, dataset: CoordinateDataset) -> int:
    """Bytes that a fit's files take, beside the signal, while they are written and shown."""
    if len(dataset) > config.log.reconstruction:
        return 0
    memory: int = config.modality.make().memory(dataset)
    return memory


def require_room(config: Config, member: Member) -> None:
    """Refuse a fit that the memory at hand cannot hold.

    Raises:
        ConfigError: says how much it would take, what for, and which key to change.
    """
    dataset = member.signal.dataset
    plain = not config.train.chunk and len(dataset) * dataset.channels < _PLAIN and member.parameters < _PLAIN
    if plain:
        return
    room = free_memory(member.device)
    copies = 12 * member.parameters  # weights and gradients of the copy that is tried, at least
    if copies < room:
        memory = expected_memory(member, files_memory(config, dataset))
        if _SURE * memory.total < room:
            return
        needed, largest = memory.total, memory.largest
    else:
        needed, largest = 2 * copies, "parameters"
    tiled = isinstance(member.network, Tiles)
    what, mend = {
        "parameters": ("its parameters", f"lower network.{'parameters' if tiled else 'hidden_features'}"),
        "coordinates": ("each coordinate", "choose selector=uniform, or fit a part of the signal"),
        "step": ("a step", "lower train.chunk, or what the selector selects"),
        "evaluation": ("evaluations", "lower train.chunk or log.evaluated, or leave metrics out"),
        "files": ("its files", "set log.reconstruction=0"),
    }[largest]
    if tiled and dataset.grid_shape is not None and largest != "files":
        mend += ", or fit it region by region with --workers 1"
    raise ConfigError(
        f"this fit would take {storage(needed)} of memory, most of it for {what}, and {storage(room)} are at hand on "
        f"{member.device}; {mend}"
    )


def memory_ran_out(error: Exception) -> bool:
    """Whether an error says that there was no memory left."""
    # On a CPU torch raises a RuntimeError.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


_PLAIN = 1 << 22
"""Parameters, and values of a signal, below which a fit with chunks of the usual size fits anywhere."""
_SURE = 0.8
"""Share of the expected memory that is surely needed."""
_COMPILING = 8e12
"""Floating-point operations that two laptop cores compute in half a minute. A compiled network needs two thirds of that
time, and compiling a new network takes the rest."""
_EVALUATED_A_SECOND = 1 << 17
"""Coordinates of an evaluation for each second of a budget."""
_SAMPLE = 1000
"""How many steps of a long training are looked at; they represent all."""


def _worth_compiling(member: Member) -> bool:
    """Whether a compiled network saves a training more time than compiling takes, as far as its config tells.

    This uses no clock, because a run that is repeated or resumed must get the same answer.
    """
    if member.network.tiled or member.device.type != "cpu" or member.budget is not None or shutil.which("g++") is None:
        return False
    steps = range(1, member.steps + 1)
    sampled = steps if len(steps) <= _SAMPLE else random.Random(0).sample(steps, _SAMPLE)
    size = sum(member.selector.size(Progress(step, member.steps)) for step in sampled) / len(sampled)
    return 6 * member.parameters * size * member.steps > _COMPILING
