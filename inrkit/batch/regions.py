"""`fit_regions`: one giant signal, cut into regions that are fitted on many workers."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from inrkit.batch.engine import stopped_by_signals
from inrkit.batch.launchers.base import JobOptions, Launcher, Started, Task, launcher_choice
from inrkit.config import Config
from inrkit.config.schema import WRITER_KEYS
from inrkit.device import choose_device, choose_precision, free_memory
from inrkit.errors import ConfigError, DataError, InrkitError, RunError, escaped
from inrkit.evaluation.between import noise_between
from inrkit.evaluation.evaluate import applicable, default_chunk, evaluate
from inrkit.files import from_json, remove_stale, require_file, to_json, write_text
from inrkit.runs.build import FREE, as_signal, evaluated_most, on_device, read_signal
from inrkit.runs.execute import require_same_signal
from inrkit.runs.field import Field
from inrkit.runs.memory import MemoryRun
from inrkit.runs.regions import FOLDER, LAYOUT, VALUES, Layout, assemble, forget, region_run, store
from inrkit.runs.request import ask
from inrkit.runs.run import Run, versions
from inrkit.runs.wording import duration, measured
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.digest import digest
from inrkit.signals.signal import Signal

_EVEN = 0.1
"""Share of the steps after the first that all regions get alike, so that none is left out."""
_JUDGED = 1 << 20
"""Coordinates of a region whose error stands for the region's."""
_TRIES = 2
"""How often a region is tried that fails."""
_SEED = 2654435761
"""Tells the seeds of regions apart."""
_GOALS = "goals.json"
_PARTS = ("train", "selection", "evaluation")
"""What the seconds of a run are told of."""


def fit_regions(
    target: Any = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    launcher: str | Mapping[str, Any] = "local",
    workers: int = 0,
    quiet: bool = True,
    **options: Any,
) -> Run:
    """Fit an INR of tiles to a signal on a lattice, region by region, on many workers.

    The signal is cut into regions of whole tiles (`regions.values`). Each is fitted by itself, so no worker needs more
    of the signal than a region, and the parts become one field. The same seed gives the same field whatever the number
    of workers, if each step is as long; where the training is limited by seconds it depends on the machine.

    Every region first gets an equal part of the budget (`regions.first`). The rest is shared out by the error that each
    still has: a tile's error falls about as 1 / steps, so the sum of all errors is smallest where steps go by the
    square root of a region's mean error.

    Worker processes import the main module of the calling program. So a script must make this call below
    `if __name__ == "__main__":`.

    Args:
        target: as for `fit`.
        out: the run's folder, for a launcher on many machines one that all share. If not given, `runs/<file's name>`.
        resume: go on with the run in `out` or `target`; the number of workers may be another.
        launcher: its name, or a mapping with its name and options.
        workers: how many regions are fitted at a time; 0 leaves it to the launcher.
        quiet: print nothing.
        options: as for `fit`, except `callbacks` and `init`.

    Returns:
        The run; its `result["status"]` is "done" or "interrupted".

    Raises:
        ConfigError, DataError, RunError: as `fit`; and where a region has failed twice. A run that failed can be
            resumed.
    """
    if "callbacks" in options:
        raise ConfigError("callbacks reach no region, which other processes fit; leave them out")
    asked = ask(target, out=out, resume=resume, **options)
    if isinstance(asked.run, MemoryRun):
        raise ConfigError("regions leave files behind; name a folder for them with out=…")
    chosen = launcher_of({"name": launcher} if isinstance(launcher, str) else launcher, workers)
    return execute_regions(asked.config, asked.run, chosen, dataset=asked.dataset, resume=resume, quiet=quiet)


def launcher_of(given: Mapping[str, Any], workers: int = 0) -> Launcher:
    """The launcher of that name, with its options.

    Raises:
        ConfigError: there is none, or it has no such options.
    """
    choice, errors = launcher_choice({**({"workers": workers} if workers else {}), **given})
    if errors:
        raise ConfigError("\n".join(errors))
    launcher: Launcher = choice.make(JobOptions())
    return launcher


def execute_regions(
    config: Config,
    run: Run,
    launcher: Launcher,
    *,
    dataset: CoordinateDataset | None = None,
    resume: bool = False,
    quiet: bool = True,
) -> Run:
    """Carry out a prepared fit region by region; arguments and errors are those of `fit_regions`."""
    config.regions.values = config.regions.values or VALUES
    for key in WRITER_KEYS:
        if key != "report" and getattr(config.log, key) not in (False, "none"):
            raise ConfigError(f"log.{key} shows no fit region by region; leave it out")
    with contextlib.ExitStack() as held:
        if resume:
            held.enter_context(run.locked())
        begun = _begun(run, resume)
        signal = read_signal(config) if dataset is None else as_signal(config, dataset)
        applicable(config.general.metrics, signal.dataset)  # raises now if a metric cannot be computed
        if begun:
            layout = Layout.read(run.folder / FOLDER)
            require_same_signal(config, run, layout.signal, digest(signal.dataset))
        else:
            layout = Layout.of(config, signal)
        if not resume:
            run.create(config)
            held.enter_context(run.locked())
        elif _changing(run.config) != _changing(config):
            run.rewrite_config(config)
        if not begun:
            (run.folder / FOLDER).mkdir(exist_ok=True)
            layout.write(run.folder / FOLDER)
        remove_stale(run.folder / FOLDER)
        _Fit(config, run, launcher, signal, layout, begun, quiet).run()
    return run


def _begun(run: Run, resume: bool) -> bool:
    """Whether a run has regions to go on with; one that was killed early may have none yet.

    Raises:
        ConfigError: it is not one of regions, or has lost them; or something is where they are to be.
    """
    folder = run.folder / FOLDER
    if resume and not run.config.regions.values:
        raise ConfigError(f"{run.folder} was not fitted region by region; resume it without --workers")
    if resume and not folder.exists() and _status_of(run) == "done":
        raise ConfigError(f"{run.folder} has no more regions to go on with; start anew in another --out")
    if folder.exists() and not (resume and folder.is_dir()):
        raise ConfigError(f"{folder} is in the way; remove it, or choose another --out")
    return (folder / LAYOUT).exists()


def _changing(config: Config) -> tuple[Any, ...]:
    """What a resumed run may change, so that its config.yaml is written anew."""
    return config.train, config.data, config.general.device


@dataclass(frozen=True)
class _Goals:
    """How long each region trains.

    Args:
        asked: `train.steps` or `train.seconds` that are shared out.
        each: of each region, steps or seconds.
    """

    asked: float
    each: list[float]

    @classmethod
    def read(cls, path: Path, regions: int) -> _Goals | None:
        """Those that a fit of so many regions has written; None if it has not yet.

        Raises:
            DataError: they are damaged.
        """
        if not path.exists():
            return None
        try:
            require_file(path)
            found = cls(**from_json(path.read_text(encoding="utf-8")))
            if len(found.each) != regions or not all(0 <= goal < math.inf for goal in (found.asked, *found.each)):
                raise ValueError("goals")
            return found
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} is damaged; remove it and --resume the run, which shares out anew") from error

    def write(self, path: Path) -> None:
        write_text(path, to_json({"asked": self.asked, "each": self.each}))


class _Fit:
    """A fit region by region; arguments are those of `execute_regions`, and whether it has regions to go on with."""

    def __init__(
        self, config: Config, run: Run, launcher: Launcher, signal: Signal, layout: Layout, begun: bool, quiet: bool
    ) -> None:
        self.config = config
        self._begun = begun
        self._run = run
        self._launcher = launcher
        self._signal = signal
        self._layout = layout
        self._earlier = _seconds_of(run)
        self._started = time.perf_counter()
        self._evaluation = 0.0
        self._folder = run.folder / FOLDER
        self._held = [number for number in range(len(layout)) if layout.held[number]]
        self._goals = _Goals.read(self._folder / _GOALS, len(self._held))
        # Regions of a run that is done have no fields, unless they have been given more steps since.
        self._behind = _status_of(run) != "done" or any(map(self._left_a_field, self._held))
        """Whether the run's files are not those of its regions as they are."""
        self._all = sum(map(layout.values, self._held))
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed} of {task.total} regions"),
            TimeElapsedColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )

    def run(self) -> None:
        self._tell()
        try:
            with stopped_by_signals(self._launcher), self._launcher, self._bar:
                self._train()
            if self._behind:
                self._conclude("interrupted" if self._launcher.stopping else "done")
        except Exception as error:
            with contextlib.suppress(InrkitError):  # the first error is the one to show
                self._write_result("failed", {}, error=str(error))
            raise

    def _train(self) -> None:
        """Train every region for its part of the budget; where the launcher is stopped, some."""
        path, asked, goals = self._folder / _GOALS, self._asked, self._goals
        if goals is None:
            each = [asked * self._size(number) * self._workers if self._timed else asked for number in self._held]
            first = self.config.regions.first
            if not self._bring(each, first, "first part"):
                return
            self._note()
            goals = self._shared(_Goals(first * asked, [first * goal for goal in each]), asked)
            goals.write(path)
        elif asked > goals.asked:
            if not self._bring(goals.each, 1.0, "going on"):
                return
            goals = self._shared(goals, asked)
            goals.write(path)
        self._bring(goals.each, 1.0, "by error")

    @property
    def _timed(self) -> bool:
        return self.config.train.seconds > 0

    @property
    def _asked(self) -> float:
        """What is shared out: steps of each region, or seconds of each worker."""
        return self.config.train.seconds or self.config.train.steps

    @property
    def _workers(self) -> int:
        """How many regions are fitted at a time."""
        return max(1, min(self._launcher.workers, len(self._held)))

    def _size(self, number: int) -> float:
        """A region's share of the whole signal."""
        return self._layout.values(number) / self._all

    def _done(self, number: int) -> float:
        """How long a region has trained, if its run says so in sound files."""
        run = region_run(self._run, number)
        try:
            result = run.result
            if "error" in result:  # its field may be that of an earlier part
                return 0.0
            said = [result["parameters"], *(result["seconds"][part] for part in _PARTS)]
            if self._layout.counted[number]:
                said.append(run.metrics["psnr"])
            done = float(result["seconds"]["train"] if self._timed else result["steps"])
            return done if None not in said else 0.0
        except (DataError, KeyError, TypeError):
            return 0.0

    def _bring(self, goals: Sequence[float], share: float, what: str) -> bool:
        """Train the regions until each has a share of its goal; False if the launcher was stopped before.

        Raises:
            RunError: a region fails again and again.
        """
        wanted = dict(zip(self._held, goals, strict=True))
        behind = {number for number in self._held if self._done(number) < share * wanted[number]}
        self._behind = self._behind or bool(behind)
        if self._behind:
            behind.update(number for number in self._held if not self._left_a_field(number))
        bar = self._bar.add_task(what, total=len(self._held), completed=len(self._held) - len(behind))
        keys = self.config.to_dict()  # of which all tasks have the same parts, for there may be many
        tasks = {str(number): self._task(number, wanted[number], share, keys) for number in sorted(behind)}
        if tasks:
            store(self._signal.dataset, self._folder, self._layout.stored)
        errors: dict[str, str] = {}
        for _ in range(_TRIES):
            errors = {}
            for event in self._launcher.run(list(tasks.values())):
                if isinstance(event, Started):
                    continue
                if event.status == "failed":
                    errors[event.task.id] = event.error or "no reason given"
                    continue
                number = int(event.task.id)
                if self._done(number) >= share * wanted[number]:
                    tasks.pop(event.task.id)
                    self._bar.advance(bar)
                    if self._bar.disable:
                        self._say(number, len(self._held) - len(tasks))
            if self._launcher.stopping or not tasks:
                return not tasks
        failed, reason = next(iter(errors.items()), (next(iter(tasks)), "it did not come to its end"))
        log = region_run(self._run, int(failed)).folder / "log.txt"
        raise RunError(
            f"region {failed} of {len(self._layout)} failed: {reason} ({log}); what is done is kept: go on with inrkit "
            f"fit {self._run.folder} --resume"
        )

    def _left_a_field(self, number: int) -> bool:
        return (region_run(self._run, number).folder / "field.safetensors").exists()

    def _task(self, number: int, goal: float, share: float, keys: dict[str, Any]) -> Task:
        silent = {**dict.fromkeys(WRITER_KEYS, False), "film": "none"}
        # Never fewer than it has trained for, which its checkpoint would not fit.
        steps = keys["train"]["steps"] if self._timed else max(round(goal), round(self._done(number)))
        every = math.ceil(share * steps)  # its last evaluation is one that a resumed run keeps
        own = {
            **keys,
            "network": {**keys["network"], **self._layout.options_of(number)},
            "data": {"path": "", "weights": ""},
            "train": {**keys["train"], "steps": steps, "seconds": goal if self._timed else 0.0},
            "log": {**keys["log"], **silent, "every": every, "evaluated": _JUDGED, "reconstruction": 0},
            "regions": {**keys["regions"], "values": 0},
            "metrics": ["psnr"],
            "seed": (keys["seed"] + _SEED * number) % (1 << 62),
        }
        folder = region_run(self._run, number).folder
        region = {"number": number, "folder": str(self._folder.absolute()), "config": keys, "share": share}
        return Task(str(number), str(folder.absolute()), own, region=region)

    def _shared(self, before: _Goals, asked: float) -> _Goals:
        """Goals by the error that regions have left, if so much is asked for in all."""
        parameters, errors = [], []
        for number in self._held:
            run = region_run(self._run, number)
            parameters.append(float(run.result["parameters"]))
            errors.append(self._error(number) * self._layout.counted[number] / parameters[-1])
        # In steps of 4 %, so that the rounding of a sum, which differs with the number of threads, changes nothing.
        wishes = [2.0 ** (round(16 * math.log2(error)) / 32) if error > 0 else 0.0 for error in errors]
        mean = sum(count * wish for count, wish in zip(parameters, wishes, strict=True)) / sum(parameters)
        more = asked - before.asked
        each = []
        for goal, count, wish in zip(before.each, parameters, wishes, strict=True):
            factor = (1 - _EVEN) * wish / mean + _EVEN if mean > 0 else 1.0
            part = more * factor * (self._workers * count / sum(parameters) if self._timed else 1)
            each.append(goal + part if self._timed else float(math.ceil(goal) + round(part)))
        return _Goals(asked, each)

    def _error(self, number: int) -> float:
        """A region's mean squared error, as a share of the squared range; 0 if nothing in it counts."""
        if not self._layout.counted[number]:
            return 0.0
        return float(10 ** (-region_run(self._run, number).metrics["psnr"] / 10))

    def _seconds(self, part: str) -> float:
        """Seconds that a worker has spent on a part, on average, if all had the same to do."""
        spent = [region_run(self._run, number).result["seconds"][part] for number in self._held]
        return float(sum(spent)) / self._workers

    def _steps(self) -> int:
        """The mean over the regions, by their sizes."""
        return round(sum(region_run(self._run, number).result["steps"] * self._size(number) for number in self._held))

    def _note(self) -> None:
        """A row of metrics.jsonl from the regions' own."""
        counted = self._layout.counted
        error = sum(self._error(number) * counted[number] for number in self._held) / sum(counted)
        quality = -10 * math.log10(error) if error > 0 else math.inf
        row = {"step": self._steps(), "seconds": self._seconds("train"), "psnr": quality}
        self._run.write_history([row])
        self._console.print(f"all regions have their first part: {measured({'psnr': quality})}")

    def _conclude(self, status: str) -> None:
        """Put the regions' fields together, and say how good the whole is."""
        if not all(map(self._left_a_field, self._held)):
            self._write_result("interrupted", {})
            return
        config, signal, run = self.config, self._signal, self._run
        assemble(config, signal, self._layout, run)
        field = self._placed(run.field)
        began = time.perf_counter()
        metrics = evaluate(
            field.network,
            on_device(signal, field.device),
            config.general.metrics,
            default_chunk(field.device, field.network),
            evaluated_most(config),
        )
        self._evaluation = time.perf_counter() - began
        if status == "done":  # an uninterrupted fit is evaluated nowhere else
            row = {"step": self._steps(), "seconds": self._seconds("train"), **metrics}
            run.write_history([*(each for each in run.history if each["step"] < row["step"]), row])
        modality = config.modality.make()
        run.write_reconstruction(field, modality, reconstruct=len(signal.dataset) <= config.log.reconstruction)
        if config.data.path:
            metrics = metrics | modality.assess(field, Path(config.data.path))
        self._write_result(status, metrics, parameters=sum(each.numel() for each in field.network.parameters()))
        if status == "done":
            forget(self._folder)

    def _placed(self, field: Field) -> Field:
        """The field where it is evaluated: in main memory if a GPU has no room for it."""
        device = choose_device(self.config.general.device)
        size = sum(each.nbytes for each in field.network.parameters())
        return field if device.type != "cpu" and FREE * size > free_memory(device) else field.to(device)

    def _write_result(self, status: str, metrics: dict[str, float], **more: Any) -> None:
        config, dataset = self.config, self._signal.dataset
        parts = dict.fromkeys(_PARTS, 0.0)
        steps = 0
        with contextlib.suppress(DataError, KeyError, TypeError):  # of a region that has not begun
            parts = {part: self._seconds(part) for part in parts}
            parts["evaluation"] += self._evaluation
            steps = self._steps()
        device = choose_device(config.general.device)
        noise = None
        if metrics:
            most = evaluated_most(config)
            noise = noise_between(metrics, dataset, min(most, len(dataset)), self._layout.options)
        self._run.write_result(
            {
                "status": status,
                "modality": config.modality.name,
                "metrics": metrics,
                "steps": steps,
                "parameters": 0,
                "coordinates": len(self._signal),
                "seconds": {"total": self._earlier + time.perf_counter() - self._started, **parts},
                "device": str(device),
                "precision": choose_precision(config.train.precision, device),
                "seed": config.general.seed,
                "signal": self._layout.signal,
                "versions": versions(),
                "regions": len(self._held),
                "workers": self._launcher.workers,
                "notes": [] if noise is None else [noise],
                **more,
            }
        )

    def _tell(self) -> None:
        """Say what is going to be done."""
        dataset, layout = self._signal.dataset, self._layout
        name = escape(escaped(self.config.data.path)) or "a signal in memory"
        lattice = "×".join(map(str, dataset.grid_shape or ()))
        channels = f"{dataset.channels} channel{'s' if dataset.channels > 1 else ''}"
        budget = duration(self.config.train.seconds) if self._timed else f"{self.config.train.steps:,} steps"
        self._console.print(
            f"[bold]{name}[/bold]: {self.config.modality.name}, {lattice}, {channels} of {dataset.dtype}\n"
            f"{len(layout):,} regions of at most {self.config.regions.values:,} values, {budget} on "
            f"{self._launcher.workers} worker{'s' if self._launcher.workers > 1 else ''}"
        )
        idle = self._launcher.workers - self._workers
        if idle > 0:
            mend = "a resumed run keeps its regions" if self._begun else "a smaller regions.values makes more regions"
            self._console.print(f"{idle} of them {'has' if idle == 1 else 'have'} nothing to do: {mend}")

    def _say(self, number: int, ended: int) -> None:
        run = region_run(self._run, number)
        self._console.print(
            f"region {number}: {measured(run.metrics)} after {run.result['steps']:,} steps ({ended} of "
            f"{len(self._held)})"
        )


def _status_of(run: Run) -> str | None:
    """The status that a run's result tells, if it can be read."""
    try:
        return str(run.result.get("status"))
    except DataError:
        return None


def _seconds_of(run: Run) -> float:
    """Seconds that a run has taken before it was interrupted."""
    try:
        return float(run.result["seconds"]["total"])
    except (DataError, KeyError, TypeError):
        return 0.0
