"""`fit`: from a request to a finished run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from inrkit.config import Config
from inrkit.device import choose_device, choose_precision
from inrkit.errors import ConfigError, RunError, StaleCheckpoint
from inrkit.runs.build import build, read_signal
from inrkit.runs.display import Display
from inrkit.runs.field import Field
from inrkit.runs.listeners import Checkpoints, History, Interrupts
from inrkit.runs.run import Run, versions
from inrkit.training.backends.stacked import Together
from inrkit.training.loop import Listener


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


_MEMORY = "memory ran out; lower train.chunk and --resume, or start anew with a lower selector.ratio"


def memory_ran_out(error: Exception) -> bool:
    # On a CPU torch says so by a RuntimeError.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
