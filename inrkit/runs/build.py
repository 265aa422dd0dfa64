"""From a config to the parts of a training."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import torch

from inrkit.config import Config
from inrkit.device import keep_freed_memory
from inrkit.errors import ConfigError, DataError
from inrkit.evaluation.evaluate import applicable, default_chunk
from inrkit.networks import Network, set_precision
from inrkit.selectors.progress import Progress
from inrkit.signals.dataset import CoordinateDataset
from inrkit.training.backends.compiled import Compiled
from inrkit.training.loop import Trainer


def read_signal(config: Config) -> CoordinateDataset:
    """The dataset that a config names, with its value transform fitted.

    Raises:
        DataError: the file cannot be used.
    """
    path = Path(config.data.path)
    if not path.exists():
        raise DataError(f"{path} does not exist; check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path} is empty; check how it was written")
    modality = config.modality.plugin(config.modality.options)
    try:
        dataset = modality.read(path)
        if dataset.value_range is None:
            _ = dataset.extent  # says where a value is not finite
    except DataError as error:
        named = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise DataError(named) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    transform: Any = config.transform.plugin
    dataset.transform = transform.fit(config.transform.options, dataset)
    return dataset


def build(config: Config, dataset: CoordinateDataset, device: torch.device, precision: str) -> tuple[Trainer, Network]:
    """The trainer that a config describes, and its network; everything random is seeded."""
    if device.type == "cpu":
        keep_freed_memory()
    seed = config.general.seed
    applicable(config.general.metrics, dataset)  # one that cannot be computed is better known now
    dataset = dataset.to(device)
    operator = config.operator.plugin(config.operator.options, dataset)
    embedding = config.embedding.plugin(config.embedding.options, dataset.dimensions)
    dataset.embedding = embedding
    network_class: Any = config.network.plugin
    network_options = network_class.fitted(config.network.options, dataset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = network_class(network_options, embedding.features, dataset.channels)
    network = network.to(device)
    set_precision(network, precision)
    factory: Any = config.optimizer.plugin
    if factory.reevaluates and dataset.resample_every:
        raise ConfigError(
            f"optimizer is '{config.optimizer.name}', which compares the losses of steps, and this signal's points are "
            "drawn anew during training; switch that off in the modality's options, or choose another optimizer"
        )
    selector: Any = config.selector.plugin(config.selector.options, len(dataset), operator, seed, device)
    if config.objective.plugin.needs_visits and not selector.visits_whole:
        raise ConfigError(
            f"objective is '{config.objective.name}', which needs key steps that visit all coordinates, and of this "
            f"signal's {len(dataset):,} they visit a part; choose objective=mse, or raise selector.key_share"
        )
    trainer = Trainer(
        dataset,
        network,
        selector,
        config.objective.plugin(config.objective.options, len(dataset), operator, device),
        factory.make(config.optimizer.options, network),
        config.schedule.plugin(config.schedule.options),
        steps=config.train.steps,
        budget=config.train.seconds or None,
        chunk=config.train.chunk or default_chunk(device),
        metrics=config.general.metrics,
        evaluate_every=config.log.every,
        evaluate_most=config.log.sample,
    )
    if config.train.compile == "always" or (config.train.compile == "auto" and _worth_compiling(trainer)):
        trainer.forward = Compiled(network)
    return trainer, network


_COMPILING = 8e12
"""Floating-point operations of a training that two laptop cores need half a minute for; compiled, two thirds of it, and
compiling what torch has not met before takes the rest."""

_SAMPLE = 1000
"""How many of a long training's steps stand for all of them."""


def _worth_compiling(trainer: Trainer) -> bool:
    """Whether a training gains more by a compiled network than compiling takes, as far as its config tells.

    No clock is asked: a run that is repeated or resumed must come to the same answer.
    """
    if trainer.dataset.device.type != "cpu" or trainer.budget is not None or shutil.which("g++") is None:
        return False
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    steps = range(1, trainer.steps + 1)
    sampled = steps if len(steps) <= _SAMPLE else random.Random(0).sample(steps, _SAMPLE)
    size = sum(trainer.selector.size(Progress(step, trainer.steps)) for step in sampled) / len(sampled)
    return 6 * parameters * size * trainer.steps > _COMPILING
