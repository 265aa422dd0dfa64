"""What listens to a training: the history of evaluations, checkpoints, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch

from inrkit.runs.run import Run
from inrkit.training.loop import Listener, Trainer


class History(Listener):
    """Writes metrics.jsonl, a row an evaluation."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rows: list[dict[str, float]] = []

    def on_evaluation(self, trainer: Trainer, row: dict[str, float]) -> None:
        self.rows.append(row)
        self.run.write_history(self.rows)


class Checkpoints(Listener):
    """Writes checkpoint.pt every so many seconds and at the end.

    Args:
        run: to write to.
        seconds: between two checkpoints.
        elapsed: gives the seconds that the run has taken so far, earlier parts included.
    """

    def __init__(self, run: Run, seconds: float, elapsed: Callable[[], float]) -> None:
        self.run = run
        self.seconds = seconds
        self.elapsed = elapsed
        self._last = time.monotonic()

    def on_step(self, trainer: Trainer, selected: int) -> None:
        if time.monotonic() - self._last >= self.seconds:
            self._write(trainer)

    def on_end(self, trainer: Trainer) -> None:
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        # A checkpoint of a diverged network would overwrite one that is worth resuming from.
        if all(bool(torch.isfinite(parameter).all()) for parameter in trainer.network.parameters()):
            self.run.write_checkpoint({**trainer.state_dict(), "elapsed": self.elapsed()})
        self._last = time.monotonic()


class Interrupts(Listener):
    """Ends the training after the present step on Ctrl-C or SIGTERM; a second one ends it at once.

    A context manager: signals are caught inside it, and only in the main thread, where Python delivers them.
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._told = False

    def on_start(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._trainer is None or self._told:
            raise KeyboardInterrupt
        self._told = True
        os.write(2, b"stopping after this step; once more stops at once\n")  # print may not be entered twice
        self._trainer.stop()
