"""Listeners of a training: the history of evaluations, checkpoints, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch

from inrkit.errors import WriteError
from inrkit.runs.run import Run
from inrkit.training.member import Listener, Member


class AfterStep(Listener):
    """Calls a function with the member after every step."""

    def __init__(self, function: Callable[[Member], object]) -> None:
        self._function = function

    def on_step(self, member: Member, selected: int) -> None:
        self._function(member)


class History(Listener):
    """Writes metrics.jsonl, one row per evaluation. Rows that cannot be written are written later, with the next.

    A row is brought to the disk when something relies on it, a checkpoint or the field: with thousands of small fits,
    waiting for the disk after each evaluation would take longer than training.

    Args:
        run: to write to.

    Attributes:
        rows: all rows, including those from before a resumption.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rows: list[dict[str, float]] = []
        self._behind = self._settled = False

    def on_evaluation(self, member: Member, row: dict[str, float]) -> None:
        self.rows.append(row)
        self._settled = False
        try:
            if self._behind:
                self.catch_up()
            else:
                self.run.append_history(row)
        except WriteError as error:
            _warn(error)
            self._behind = True

    def catch_up(self) -> None:
        """Write the rows that could not be written before, and bring all to the disk.

        Raises:
            WriteError: that still cannot be done.
        """
        if self.rows and not self._settled and not self._behind:
            try:
                self.run.settle_history()
            except WriteError:  # it may be gone
                self._behind = True
        if self._behind:
            self.run.write_history(self.rows)
        self._behind, self._settled = False, True


class Checkpoints(Listener):
    """Writes checkpoint.pt every so many seconds and at the end. If it cannot be written, training goes on.

    Args:
        run: to write to.
        history: is written first, since a resumed run has the rows up to its checkpoint from the file.
        seconds: between two checkpoints.
        more: gives what a checkpoint holds beside the training's own state.
        last: whether one is written at the end of a training that is finished.
    """

    def __init__(
        self, run: Run, history: History, seconds: float, more: Callable[[], dict[str, Any]], last: bool = True
    ) -> None:
        self.run = run
        self.history = history
        self.seconds = seconds
        self.more = more
        self.last = last
        self._last = time.monotonic()

    def on_step(self, member: Member, selected: int) -> None:
        if time.monotonic() - self._last >= self.seconds:
            self._write(member)

    def on_end(self, member: Member) -> None:
        if self.last or not member.finished:
            self._write(member)

    def _write(self, member: Member) -> None:
        # A checkpoint of a diverged network must not overwrite a good one.
        if all(bool(torch.isfinite(parameter).all()) for parameter in member.network.parameters()):
            try:
                self.history.catch_up()
                self.run.write_checkpoint({**member.state_dict(), **self.more()})
            except WriteError as error:
                _warn(error)
        self._last = time.monotonic()


def _warn(error: WriteError) -> None:
    """Say that something could not be written and will be tried again."""
    warnings.warn(f"{error}; the training goes on", stacklevel=2)


class Interrupts(Listener):
    """Ends trainings after the present step on Ctrl-C or SIGTERM; a second one ends them at once.

    A context manager: signals are caught inside it, and only in the main thread, where Python delivers them.
    """

    def __init__(self) -> None:
        self._members: list[Member] = []
        self._before: dict[signal.Signals, Any] = {}
        self._told = False

    def on_start(self, member: Member) -> None:
        self._members.append(member)
        if self._told:
            member.stop()

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._members or self._told:
            raise KeyboardInterrupt
        self._told = True
        os.write(2, b"stopping after this step; once more stops at once\n")  # print is not reentrant
        for member in self._members:
            member.stop()
