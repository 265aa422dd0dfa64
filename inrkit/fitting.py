"""`fit`: from a request to a finished run."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from inrkit.config import (
    SECTIONS,
    SLOTS,
    Config,
    GeneralOptions,
    parse_overrides,
    presets,
    read_yaml,
    resolve,
)
from inrkit.dataset import CoordinateDataset
from inrkit.device import choose_device, choose_precision
from inrkit.errors import ConfigError, DataError, RunError
from inrkit.evaluation import applicable, default_chunk
from inrkit.field import Field
from inrkit.files import expanded
from inrkit.listeners import Checkpoints, History, Interrupts
from inrkit.modality import MODALITIES, known_suffixes, modality_of
from inrkit.networks import Network, set_precision
from inrkit.options import field_names, nearest
from inrkit.progress import Display
from inrkit.run import Run, default_folder, versions
from inrkit.trainer import Listener, Trainer


def fit(
    target: str | Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
    quiet: bool = True,
    listeners: Sequence[Listener] = (),
    **options: Any,
) -> Run:
    """Fit an INR to a signal and leave a run's folder behind.

    Args:
        target: a signal's file; or a config file, a preset's name, or, with `resume`, a run's folder.
        out: the run's folder; `runs/<name of the signal>` if not given.
        resume: continue the run in `out`, or in `target`, from its checkpoint.
        overrides: `key=value` words, as on the command line.
        quiet: print nothing.
        listeners: who else hears of the training.
        options: config keys: a slot's name or mapping (`selector="evos"`, `network={"hidden_features": 128}`), a
            section's mapping (`train={"steps": 500}`), or any key of a section by itself (`steps=500`).

    Returns:
        The run; its `result["status"]` is "done" or "interrupted".

    Raises:
        ConfigError: the request is wrong; nothing was written.
        DataError: the signal cannot be used; nothing was written.
        RunError: the run failed; what it had written stays.
    """
    config, run = prepare(target, out=out, resume=resume, layers=[parse_overrides(overrides), _layer(options)])
    return execute(config, run, resume=resume, quiet=quiet, listeners=listeners)


def prepare(
    target: str | Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    layers: Sequence[Mapping[str, Any]] = (),
) -> tuple[Config, Run]:
    """Find out what is asked for, and where it goes.

    Returns:
        The validated config and the run to be made or resumed.

    Raises:
        ConfigError, DataError: as `fit`.
    """
    given = expanded(target)
    continued = resume and Run(given).exists
    config = resolve([read_yaml(given / "config.yaml") if continued else _target_layer(target), *layers])
    config.data.path = str(Path.cwd() / expanded(config.data.path))
    try:
        config.data.path.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{config.data.path!a} is not UTF-8, so config.yaml cannot name it; rename the file") from error
    if continued:
        run = Run(given if out is None else expanded(out))
    else:
        folder = expanded(out) if out is not None else None
        if folder is None:
            folder = Path("runs") / Path(config.data.path).stem if resume else default_folder(config.data.path)
        run = Run(folder)
    if resume and not run.exists:
        raise ConfigError(f"{run.folder} holds no run to resume; fit without --resume, or name it with --out")
    if resume:
        _check_same(config, run.config, run.folder)
    elif run.exists:
        raise ConfigError(f"{run.folder} already holds a run; continue it with --resume, or choose another --out")
    return config, run


def execute(
    config: Config,
    run: Run,
    *,
    resume: bool = False,
    quiet: bool = True,
    listeners: Sequence[Listener] = (),
) -> Run:
    """Carry out a prepared fit; arguments and errors are `fit`'s."""
    started = time.perf_counter()
    device = choose_device(config.general.device)
    precision = choose_precision(config.train.precision, device)
    dataset = read_signal(config)
    try:
        trainer, network = build(config, dataset, device, precision)
    except Exception as error:
        if _memory_ran_out(error):
            raise RunError("the network does not fit in memory; lower network.hidden_features") from error
        raise
    result: dict[str, Any] = {
        "status": "interrupted",
        "modality": config.modality.name,
        "metrics": {},
        "steps": 0,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "coordinates": len(dataset),
        "seconds": {},
        "device": str(device),
        "precision": precision,
        "seed": config.general.seed,
        "versions": versions(),
    }
    earlier = 0.0
    assessed: dict[str, float] = {}
    history = History(run)
    if resume and run.has_progress:
        state = run.read_checkpoint()
        if state.get("device") not in (None, device.type):
            raise ConfigError(f"{run.folder} was fitted on {state['device']}; resume it with device={state['device']}")
        try:
            trainer.load_state_dict(state)
            earlier = float(state["elapsed"])
            if trainer.step < 0 or (trainer.budget is None and trainer.step > trainer.steps):
                raise ValueError(trainer.step)
        except Exception as error:  # whatever a checkpoint of something else leads the parts of a training to
            raise DataError(
                f"{run.folder}/checkpoint.pt does not fit the run's config.yaml; start anew in another --out"
            ) from error
        # An interrupted run was evaluated where it stopped; one that never was would have no such row.
        every = run.config.log.every
        history.rows = [
            row
            for row in run.history
            if (row["step"] < trainer.step and row["step"] % every == 0)
            or (row["step"] == trainer.step and (row["step"] % every == 0 or trainer.finished))
        ]
    elif not resume:
        run.create(config)

    def elapsed() -> float:
        return earlier + time.perf_counter() - started

    def conclude(status: str, **more: Any) -> None:
        last = history.rows[-1] if history.rows else {}
        metrics = {name: value for name, value in last.items() if name not in ("step", "seconds")} | assessed
        seconds = {"total": elapsed(), **trainer.seconds}
        result.update(status=status, metrics=metrics, steps=trainer.step, seconds=seconds, **more)
        run.write_result(result)

    checkpoints = Checkpoints(run, config.checkpoint.seconds, elapsed)
    interrupts = Interrupts()
    display = Display(config, run, device, precision, quiet)
    trainer.listeners = [history, checkpoints, interrupts, display, *listeners]
    with display, interrupts:
        try:
            trainer.run()
            field = Field.of(config, network, dataset)
            modality = config.modality.plugin(config.modality.options)
            run.write_field(field, modality)
            assessed = modality.assess(field, Path(config.data.path))
        except Exception as error:
            with contextlib.suppress(RunError):  # what went wrong first is what the user should hear of
                conclude("failed", error=str(error))
            if _memory_ran_out(error):
                raise RunError(
                    "memory ran out; lower train.chunk and --resume, or start anew with a lower selector.ratio"
                ) from error
            raise
        conclude("done" if trainer.finished else "interrupted")
    display.conclude(result)
    return run


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
    trainer = Trainer(
        dataset,
        network,
        config.selector.plugin(config.selector.options, len(dataset), operator, seed, device),
        config.objective.plugin(config.objective.options, len(dataset), operator, device),
        factory.make(config.optimizer.options, network),
        config.schedule.plugin(config.schedule.options),
        steps=config.train.steps,
        budget=config.train.seconds or None,
        chunk=config.train.chunk or default_chunk(device),
        metrics=config.general.metrics,
        evaluate_every=config.log.every,
    )
    return trainer, network


def _memory_ran_out(error: Exception) -> bool:
    # On a CPU torch says so by a RuntimeError.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _target_layer(target: str | Path) -> dict[str, Any]:
    """The config layer that a positional argument stands for."""
    path = expanded(target)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return read_yaml(path)
    name = str(target)
    if name in presets():
        return {"base": name}
    if name in MODALITIES.names():
        return {"modality": name}
    if Run(path).exists:
        raise ConfigError(f"{path} is a run; continue it with --resume, or repeat it with {path}/config.yaml")
    if modality_of(path) is not None:
        return {"data": {"path": str(path)}}
    if path.exists():
        raise ConfigError(
            f"{path} has no suffix that tells its modality; write modality={'|'.join(MODALITIES.names())} "
            f"data.path={path} (known suffixes: {', '.join(known_suffixes())})"
        )
    if suffix or "/" in name:
        raise DataError(f"{path} does not exist; check the path")
    known = [*presets(), *MODALITIES.names()]
    raise ConfigError(f"'{name}' is neither a file nor a config{nearest(name, known)}")


def _layer(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments as a config layer; a key of one section may be given by itself."""
    top = {"base", *SLOTS, *SECTIONS, *field_names(GeneralOptions)}
    layer: dict[str, Any] = {}
    for key, value in options.items():
        if key in top:
            known = layer.get(key)
            layer[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
            continue
        sections = [name for name, declared in SECTIONS.items() if key in field_names(declared)]
        if not sections:
            every = top.union(*(field_names(declared) for declared in SECTIONS.values()))
            raise ConfigError(f"{key} is not an option of fit{nearest(key, every)}")
        layer.setdefault(sections[0], {})[key] = value
    return layer


def _check_same(asked: Config, had: Config, folder: Path) -> None:
    """A resumed run must be the run that was interrupted; only how it is watched may change."""
    one, other = _flat(asked), _flat(had)
    free = {f"checkpoint.{field.name}" for field in dataclasses.fields(asked.checkpoint)} | {
        "log.every",
        "train.chunk",
    }
    changed = [key for key in one.keys() | other.keys() if key not in free and one.get(key) != other.get(key)]
    if changed:
        key = min(changed)
        raise ConfigError(
            f"{key} is {one.get(key)}, and {folder} was fitted with {other.get(key)}; resume with the same "
            "values, or start anew in another --out"
        )


def _flat(config: Config) -> dict[str, Any]:
    flat = {}
    for key, value in config.to_dict().items():
        if isinstance(value, dict):
            flat.update({f"{key}.{name}": entry for name, entry in value.items()})
        else:
            flat[key] = value
    return flat
