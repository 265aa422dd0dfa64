"""`fit`: from a request to a finished run."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from inrkit.compilation import Compiled
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
from inrkit.device import choose_device, choose_precision, keep_freed_memory
from inrkit.errors import ConfigError, DataError, RunError, StaleCheckpoint
from inrkit.evaluation import applicable, default_chunk
from inrkit.field import Field
from inrkit.files import expanded
from inrkit.listeners import Checkpoints, History, Interrupts
from inrkit.modality import MODALITIES, known_suffixes, modality_of
from inrkit.networks import Network, set_precision
from inrkit.options import field_names, nearest
from inrkit.progress import Display
from inrkit.run import Run, default_folder, versions
from inrkit.schedules import Progress
from inrkit.together import Together
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
    fit = _Fit(config, run, resume)
    interrupts = Interrupts()
    display = Display(config, run, fit.device, fit.precision, quiet)
    fit.trainer.listeners = [*fit.listeners, interrupts, display, *listeners]
    with display, interrupts:
        try:
            fit.trainer.run()
            fit.write_field()
        except Exception as error:
            fit.fail(error)
            if memory_ran_out(error):
                raise RunError(_MEMORY) from error
            raise
        fit.conclude()
    display.conclude(fit.result)
    return run


def execute_together(
    fits: Sequence[tuple[Config, Run]],
    *,
    resume: bool | Sequence[bool] = False,
    listeners: Sequence[Listener] = (),
) -> list[Run | Exception]:
    """Carry out prepared fits of many small signals as one: their networks train together, as `Together` says.

    Each leaves the files of an ordinary fit, and may be resumed by itself or with others. Its seconds are a share:
    of the training of all, and, for the total of n fits, an n-th of the time from the start of all to its own end.
    All signals are in memory at the same time.

    Args:
        fits: configs and the runs to be made or resumed; `stackable` tells which gain by it.
        resume: continue runs from their checkpoints; one answer for all, or one for each.
        listeners: who else hears of the trainings.

    Returns:
        For each fit its run, done or interrupted, or what it failed of: what `execute` would raise. The others go on.
    """
    started, share = time.perf_counter(), 1 / max(1, len(fits))
    resumed = [resume] * len(fits) if isinstance(resume, bool) else resume
    outcomes: list[Run | Exception] = [run for _, run in fits]
    going: dict[int, _Fit] = {}
    for index, (config, run) in enumerate(fits):
        try:
            going[index] = _Fit(config, run, resumed[index], started, share)
        except Exception as error:
            outcomes[index] = error
    for fit in going.values():
        fit.trainer.listeners = [*fit.listeners, *listeners]
    together = Together([fit.trainer for fit in going.values()])
    interrupts = Interrupts()
    with interrupts:
        interrupts.on_start(together)  # type: ignore[arg-type]  # what it asks of a trainer is to stop
        for (index, fit), failure in zip(going.items(), together.run(), strict=True):
            try:
                if failure is not None:
                    raise failure
                fit.write_field()
            except Exception as error:
                fit.fail(error)
                outcomes[index] = error
                if memory_ran_out(error):
                    outcomes[index] = told = RunError(_MEMORY)
                    told.__cause__ = error
                continue
            try:
                fit.conclude()
            except RunError as error:
                outcomes[index] = error
    return outcomes


_OF_A_KIND = ("network", "optimizer", "schedule", "selector", "objective", "modality", "embedding", "device", "train")


def stackable(configs: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Which fits may train as one stacked computation: their places in `configs`, of all keys each, in groups.

    Fits of a group agree in the network, optimizer, schedule, selector, objective, modality, embedding, device and all
    of `train`; signals, seeds and what is logged may differ. Where a network takes its shape from the signal, such
    as the levels of a hash grid, `Together` finds out and divides a group further; an ω from the signal is no matter.
    """
    groups: dict[str, list[int]] = {}
    for index, keys in enumerate(configs):
        groups.setdefault(repr([keys[name] for name in _OF_A_KIND]), []).append(index)
    return list(groups.values())


class _Fit:
    """One fit, from a prepared request to the files that it leaves; who runs its trainer tells it how that went.

    Args:
        config: of the fit.
        run: to be made, or resumed.
        resume: continue the run from its checkpoint, if it left one.
        started: the clock's reading when the fit began; now, if not given.
        share: of the time that passes from then on, how much is this fit's.

    Raises:
        ConfigError, DataError, RunError: as `fit`.
    """

    def __init__(
        self, config: Config, run: Run, resume: bool, started: float | None = None, share: float = 1.0
    ) -> None:
        self.config = config
        self.run = run
        self._started = time.perf_counter() if started is None else started
        self._share = share
        self._earlier = 0.0
        self._assessed: dict[str, float] = {}
        self.device = choose_device(config.general.device)
        self.precision = choose_precision(config.train.precision, self.device)
        self.dataset = read_signal(config)
        try:
            self.trainer, self.network = build(config, self.dataset, self.device, self.precision)
        except Exception as error:
            if memory_ran_out(error):
                raise RunError("the network does not fit in memory; lower network.hidden_features") from error
            raise
        self.result: dict[str, Any] = {
            "status": "interrupted",
            "modality": config.modality.name,
            "metrics": {},
            "steps": 0,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "coordinates": len(self.dataset),
            "seconds": {},
            "device": str(self.device),
            "precision": self.precision,
            "seed": config.general.seed,
            "versions": versions(),
        }
        self._history = History(run)
        self.listeners: list[Listener] = [
            self._history,
            Checkpoints(run, config.checkpoint.seconds, self.elapsed),
        ]
        if resume and run.has_progress:
            self._restore()
        elif not resume:
            run.create(config)

    def _restore(self) -> None:
        """Go on from the run's checkpoint."""
        run, trainer = self.run, self.trainer
        state = run.read_checkpoint()
        if state.get("device") not in (None, self.device.type):
            raise ConfigError(f"{run.folder} was fitted on {state['device']}; resume it with device={state['device']}")
        try:
            trainer.load_state_dict(state)
            self._earlier = float(state["elapsed"])
            if trainer.step < 0 or (trainer.budget is None and trainer.step > trainer.steps):
                raise ValueError(trainer.step)
        except Exception as error:  # whatever a checkpoint of something else leads the parts of a training to
            raise StaleCheckpoint(
                f"{run.folder}/checkpoint.pt does not fit the run's config.yaml; start anew in another --out"
            ) from error
        # An interrupted run was evaluated where it stopped; one that never was would have no such row.
        every = run.config.log.every
        self._history.rows = [
            row
            for row in run.history
            if (row["step"] < trainer.step and row["step"] % every == 0)
            or (row["step"] == trainer.step and (row["step"] % every == 0 or trainer.finished))
        ]

    def elapsed(self) -> float:
        """Seconds that the fit has taken so far, before it was interrupted included."""
        return self._earlier + self._share * (time.perf_counter() - self._started)

    def write_field(self) -> None:
        """After the training: write the field and the reconstruction, and assess them as the modality does."""
        field = Field.of(self.config, self.network, self.dataset)
        modality = self.config.modality.plugin(self.config.modality.options)
        self.run.write_field(field, modality, reconstruct=len(self.dataset) <= self.config.log.reconstruction)
        self._assessed = modality.assess(field, Path(self.config.data.path))

    def conclude(self) -> None:
        """Write the result of a fit whose field is written."""
        self._write_result("done" if self.trainer.finished else "interrupted")

    def fail(self, error: Exception) -> None:
        """Write the result of a fit that failed."""
        with contextlib.suppress(RunError):  # what went wrong first is what the user should hear of
            self._write_result("failed", error=str(error))

    def _write_result(self, status: str, **more: Any) -> None:
        last = self._history.rows[-1] if self._history.rows else {}
        metrics = {name: value for name, value in last.items() if name not in ("step", "seconds")} | self._assessed
        seconds = {"total": self.elapsed(), **self.trainer.seconds}
        self.result.update(status=status, metrics=metrics, steps=self.trainer.step, seconds=seconds, **more)
        self.run.write_result(self.result)


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
    if config.objective.plugin.needs_visits and not selector.visits_whole:  # type: ignore[attr-defined]
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


_MEMORY = "memory ran out; lower train.chunk and --resume, or start anew with a lower selector.ratio"


def memory_ran_out(error: Exception) -> bool:
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
        "log.reconstruction",
        "log.sample",
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
