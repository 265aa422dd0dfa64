"""From a prepared fit to a finished run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inrkit.config import Config
from inrkit.config.schema import SLOTS
from inrkit.device import choose_device, choose_precision, reproducible
from inrkit.errors import ConfigError, DataError, InrkitError, RunError, StaleCheckpoint, WriteError
from inrkit.evaluation.between import noise_between
from inrkit.files import allow_open_files
from inrkit.runs.beginning import GIVEN, Beginning
from inrkit.runs.build import (
    as_signal,
    begun,
    build,
    field_of,
    memory_ran_out,
    read_signal,
    refuse_regions,
    require_room,
)
from inrkit.runs.display import Display
from inrkit.runs.listeners import Checkpoints, History, Interrupts
from inrkit.runs.run import Run, versions
from inrkit.runs.writers import writers_of
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.digest import digest
from inrkit.signals.signal import Signal
from inrkit.training.loop import Trainer, train
from inrkit.training.member import Listener, Member


def execute(
    config: Config,
    run: Run,
    *,
    dataset: CoordinateDataset | Signal | None = None,
    beginning: Beginning | None = None,
    resume: bool = False,
    quiet: bool = True,
    interruptible: bool = False,
    listeners: Sequence[Listener] = (),
) -> Run:
    """Carry out a prepared fit.

    Args:
        config: what to fit.
        run: to be made or resumed.
        dataset: the signal, with or without its value transform; the config's file, if not given.
        beginning: weights to start from; those that the config's `init` names, if not given.
        resume: continue the run from its checkpoint.
        quiet: print nothing.
        interruptible: whether Ctrl-C and SIGTERM end the training after the present step, so that it can be resumed.
        listeners: further listeners of the training.

    Returns:
        The run, done or interrupted.

    Raises:
        ConfigError, DataError, RunError: as `inrkit.fit`.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(reproducible(config.train.deterministic))
        fit = Fit(config, run, resume, dataset=dataset, beginning=beginning)
        held.enter_context(fit.released)
        interrupts = Interrupts()
        display = Display(config, run, fit.device, fit.precision, quiet, fit.notes)
        fit.member.listeners = [*fit.listeners, interrupts, display, *listeners]
        with display, interrupts if interruptible else contextlib.nullcontext():
            try:
                Trainer([fit.member]).run()
                fit.write_field()
            except Exception as error:
                told = fit.fail(error)
                if told is error:
                    raise
                raise told from error
            fit.conclude()
    display.conclude(fit.result)
    return run


def execute_together(
    fits: Sequence[tuple[Config, Run]],
    *,
    resume: bool | Sequence[bool] = False,
    interruptible: bool = False,
    listeners: Sequence[Listener] = (),
) -> list[Run | Exception]:
    """Carry out prepared fits of many small signals. Networks of one architecture train as one computation.

    Each fit leaves the files of an ordinary fit, and may be resumed by itself or with others. Its seconds of training
    are its share of the training of all. Its total is, for n fits, an n-th of the time from the start of all to its own
    end. All signals are in memory at the same time.

    Args:
        fits: configs and the runs to be made or resumed; `stackable` tells which fits gain by it.
        resume: continue runs from their checkpoints; one answer for all, or one for each.
        interruptible: as for `execute`.
        listeners: further listeners of the trainings.

    Returns:
        For each fit its run, done or interrupted, or the error that `execute` would raise. If a fit fails, the others
        go on.
    """
    allow_open_files(len(fits))  # each run's folder is locked by one
    started, share = time.perf_counter(), 1 / max(1, len(fits))
    resumed = [resume] * len(fits) if isinstance(resume, bool) else resume
    outcomes: list[Run | Exception] = [run for _, run in fits]
    going: dict[int, Fit] = {}
    interrupts = Interrupts()
    with contextlib.ExitStack() as released:
        released.enter_context(reproducible(any(config.train.deterministic for config, _ in fits)))
        for index, (config, run) in enumerate(fits):
            try:
                fit = Fit(config, run, resumed[index], started, share)
            except Exception as error:
                outcomes[index] = error
                continue
            released.enter_context(fit.released)
            fit.member.listeners = [*fit.listeners, interrupts, *listeners]
            going[index] = fit
        released.enter_context(interrupts if interruptible else contextlib.nullcontext())
        train([fit.member for fit in going.values()])
        for index, fit in going.items():
            try:
                if fit.member.failure is not None:
                    raise fit.member.failure
                fit.write_field()
            except Exception as error:
                outcomes[index] = fit.fail(error)
                continue
            try:
                fit.conclude()
            except RunError as error:
                outcomes[index] = error
    return outcomes


def require_same_signal(config: Config, run: Run, had: str | None, now: str) -> None:
    """Refuse to go on with another signal.

    Args:
        config: of the fit.
        run: that is resumed.
        had: digest of the signal that it was fitted to; None for a run of version 0.1.0, which does not tell.
        now: digest of the present signal.

    Raises:
        DataError: they are two.
    """
    if had in (None, now):
        return
    path = config.data.path
    mend = "name that signal with data.path=…" if path else "give that signal"
    raise DataError(
        f"{path or 'the given object'} is not the signal that {run.folder} was fitted to: its values, its shape, what "
        f"is known of it or its weights have changed; {mend}, or start anew in another --out"
    )


_OF_A_KIND = (*(slot for slot in SLOTS if slot not in ("transform", "operator")), "device", "train")
"""Keys in which fits must agree to train as one; what a signal's values and neighbours are made of may differ."""


def stackable(configs: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Groups of fits that may train as one stacked computation: their positions in `configs`, which have all keys.

    Fits of a group agree in the network, optimizer, schedule, selector, objective, modality, embedding, device and all
    of `train`; signals, seeds and logging may differ. If the signal decides a network's shape, such as the levels of a
    hash grid, `stackable_groups` divides a group further; an ω from the signal makes no difference.
    """
    groups: dict[str, list[int]] = {}
    for index, keys in enumerate(configs):
        groups.setdefault(repr([keys[name] for name in _OF_A_KIND]), []).append(index)
    return list(groups.values())


_MAY_CHANGE = (
    ("general", "device"),
    ("train", "steps"),
    ("train", "seconds"),
    ("train", "on_divergence"),
    ("data", "path"),
)
"""Sections and keys in which a resumed run may differ from what it was, so that its config.yaml is written anew."""


class Fit:
    """One fit, from a prepared request to its files. The caller trains its member, then calls `conclude` or `fail`.

    Args:
        config: of the fit.
        run: to be made, or resumed.
        resume: continue the run from its checkpoint, if it left one.
        started: the clock's reading when the fit began; now, if not given.
        share: this fit's share of the time that passes from then on.
        dataset: the signal; the config's file, if not given.
        beginning: weights to start from; those that the config's `init` names, if not given.

    Attributes:
        notes: what a user is told of this fit, a sentence each.
        released: a context at whose end other fits may go on with the run.

    Raises:
        ConfigError, DataError, RunError: as `fit`.
    """

    def __init__(
        self,
        config: Config,
        run: Run,
        resume: bool,
        started: float | None = None,
        share: float = 1.0,
        dataset: CoordinateDataset | Signal | None = None,
        beginning: Beginning | None = None,
    ) -> None:
        self.config = config
        self.run = run
        self._started = time.perf_counter() if started is None else started
        self._share = share
        self._earlier = 0.0
        self._resumed_at: int | None = None
        self._assessed: dict[str, float] = {}
        self.notes: list[str] = []
        self.device = choose_device(config.general.device)
        self.precision = choose_precision(config.train.precision, self.device)
        refuse_regions(config)
        if isinstance(dataset, Signal):
            self.signal = dataset
        else:
            self.signal = read_signal(config) if dataset is None else as_signal(config, dataset)
        self._digest = digest(self.signal.dataset)
        with contextlib.ExitStack() as held:
            state: dict[str, Any] = {}
            if resume:
                held.enter_context(run.locked())
                state = run.read_checkpoint() if run.has_progress else {}
                require_same_signal(config, run, state.get("signal"), self._digest)
            self.config, beginning = _begun(config, run, self.signal, beginning, resume, bool(state))
            self.member = build(self.config, self.signal, self.device, self.precision, beginning)
            require_room(self.config, self.member)
            self.result: dict[str, Any] = {
                "status": "interrupted",
                "modality": config.modality.name,
                "metrics": {},
                "steps": 0,
                "parameters": self.member.parameters,
                "coordinates": len(self.signal),
                "seconds": {},
                "device": str(self.device),
                "precision": self.precision,
                "seed": config.general.seed,
                "signal": self._digest,
                "versions": versions(),
            }
            self._writers = writers_of(config, run)
            self._history = History(run)
            self.listeners: list[Listener] = [
                self._history,
                Checkpoints(run, self._history, config.checkpoint.seconds, self._beside, config.checkpoint.keep),
                *self._writers,
            ]
            if resume:
                self._go_on(state)
            else:
                run.create(self.config)
                held.enter_context(run.locked())
            self.released = held.pop_all()

    def _go_on(self, state: dict[str, Any]) -> None:
        """Bring a resumed run and its files to the state of a checkpoint, or to their beginning if it is empty."""
        run, had = self.run, self.run.config
        if state:
            self._restore(state)
        for section, key in _MAY_CHANGE:
            if getattr(getattr(self.config, section), key) != getattr(getattr(had, section), key):
                run.rewrite_config(self.config)
                break
        run.write_history(self._history.rows)

    def _beside(self) -> dict[str, Any]:
        """What a checkpoint holds beside the training's own state."""
        rows = len(self._history.rows)
        return {"elapsed": self.elapsed(), "signal": self._digest, "notes": self.notes, "rows": rows}

    def _restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        run, member = self.run, self.member
        try:
            member.load_state_dict(state)
            self._earlier = float(state["elapsed"])
            self.notes = [str(note) for note in state.get("notes", [])]
            if not 0 <= self._earlier < math.inf or (member.budget is None and member.step > member.steps):
                raise ValueError(member.step)
            if type(state.get("rows", 0)) is not int or state.get("rows", 0) < 0:
                raise ValueError("rows")
        except Exception as error:  # a checkpoint of another fit may raise anything
            raise StaleCheckpoint(
                f"{run.folder}/checkpoint.pt does not fit the run's config.yaml; start anew in another --out"
            ) from error
        before = state.get("device", self.device.type)
        if before != self.device.type:
            self.notes.append(
                f"from step {member.step:,} on {self.device.type}, until then on {before}: the result is not bit for "
                "bit that of an uninterrupted fit"
            )
        self._resumed_at = member.step
        self._history.rows = _kept_rows(run, member, state)

    def elapsed(self) -> float:
        """Seconds that the fit has taken so far, including those before an interruption."""
        return self._earlier + self._share * (time.perf_counter() - self._started)

    def write_field(self) -> None:
        """After the training: write the field and the reconstruction, and assess them as the modality does."""
        field = field_of(self.config, self.member.network, self.signal)
        modality = self.config.modality.make()
        self.run.write_field(field, modality, reconstruct=len(self.signal.dataset) <= self.config.log.reconstruction)
        if self.config.data.path:
            self._assessed = modality.assess(field, Path(self.config.data.path))
        self._history.catch_up()

    def conclude(self) -> None:
        """Write the result of a fit whose field is written."""
        self._write_result("done" if self.member.finished else "interrupted")
        if self.member.finished and not self.config.checkpoint.keep:
            self.run.drop_checkpoint()

    def fail(self, error: Exception) -> Exception:
        """Write the result of a fit that failed; returns the error to show to the user."""
        with contextlib.suppress(RunError), warnings.catch_warnings():  # the first error is the one to show
            warnings.simplefilter("ignore")
            # A fit whose files could not be written goes on from its checkpoint when they can.
            going = isinstance(error, WriteError) and (self.run.folder / "checkpoint.pt").exists()
            self._write_result("interrupted" if going else "failed", error=str(error))
        if not memory_ran_out(error):
            if self._resumed_at != self.member.step or isinstance(error, InrkitError):
                return error
            told: InrkitError = StaleCheckpoint(  # its first step failed, by shapes that do not fit for example
                f"{self.run.folder}/checkpoint.pt does not fit the run's config.yaml; start anew in another --out"
            )
            told.__cause__ = error
            return told
        told = RunError("memory ran out; lower train.chunk and --resume, or start anew with a lower selector.ratio")
        told.__cause__ = error
        return told

    def _write_result(self, status: str, **more: Any) -> None:
        last = self._history.rows[-1] if self._history.rows else {}
        metrics = {name: value for name, value in last.items() if name not in ("step", "seconds")} | self._assessed
        seconds = {"total": self.elapsed(), **self.member.seconds}
        if self.member.recoveries:
            more["recoveries"] = self.member.recoveries
        self.result.update(status=status, metrics=metrics, steps=self.member.step, seconds=seconds, **more)
        dataset, most = self.signal.dataset, self.member.evaluate_most or len(self.signal.dataset)
        noise = noise_between(metrics, dataset, min(most, len(dataset)), self.member.network.options)
        self.result["notes"] = [*self.notes, *([] if noise is None else [noise])]
        self.run.write_result(self.result)
        for writer in self._writers:
            writer.conclude(self.result)


def _begun(
    config: Config, run: Run, signal: Signal, beginning: Beginning | None, resume: bool, restored: bool
) -> tuple[Config, Beginning | None]:
    """What a fit is to begin with.

    Args:
        config: as it was asked for.
        run: to be made, or resumed.
        signal: of the fit.
        beginning: given in Python, in place of what `init` names.
        resume: whether the run is there already; then its own config has the options that go with the weights.
        restored: whether it has a checkpoint, which decides.

    Returns:
        The config, and weights to start from, if there are any.
    """
    if not config.general.init:
        return config, None
    if resume:
        network = dataclasses.replace(config.network, options=run.config.network.options)
        config = dataclasses.replace(config, choices={**config.choices, "network": network})
    if restored:
        return config, None
    if beginning is None and config.general.init == GIVEN:
        raise ConfigError("init was a Python object; give it again, or start anew in another --out")
    beginning = beginning or Beginning.read(config.general.init)
    return config if resume else begun(config, signal, beginning), beginning


def _kept_rows(run: Run, member: Member, state: dict[str, Any]) -> list[dict[str, float]]:
    """The rows of a resumed run's history that an uninterrupted run would have too.

    Args:
        run: with its history.
        member: with its checkpoint loaded.
        state: of the checkpoint. It says which evaluation was made only because the run was interrupted; checkpoints of
            version 0.1.0 do not. A run may be killed after such an evaluation and before the checkpoint that tells of
            it; so the checkpoint also says how many rows there were when it was written, where it is new enough.
    """
    every, tells = run.config.log.every, "unscheduled" in state
    return [
        row
        for row in run.history[: state.get("rows")]
        if row["step"] <= member.step
        and (member.finished or row["step"] != member.unscheduled)
        and (tells or row["step"] % every == 0 or (row["step"] == member.step and member.finished))
    ]
