"""Listeners of a training: the history of evaluations, checkpoints, and Ctrl-C."""

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
from inrkit.training.member import Listener, Member


class AfterStep(Listener):
    """Calls a function with the member after every step."""

    def __init__(self, function: Callable[[Member], object]) -> None:
        self._function = function

    def on_step(self, member: Member, selected: int) -> None:
        self._function(member)


class History(Listener):
    """Writes metrics.jsonl, one row per evaluation.

    Args:
        run: to write to.

    Attributes:
        rows: all rows, including those from before a resumption.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rows: list[dict[str, float]] = []

    def on_evaluation(self, member: Member, row: dict[str, float]) -> None:
        self.rows.append(row)
        self.run.append_history(row)


class Checkpoints(Listener):
    """Writes checkpoint.pt every so many seconds and at the end.

    Args:
        run: to write to.
        seconds: between two checkpoints.
        more: gives what a checkpoint holds beside the training's own state.
    """

    def __init__(self, run: Run, seconds: float, more: Callable[[], dict[str, Any]]) -> None:
        self.run = run
        self.seconds = seconds
        self.more = more
        self._last = time.monotonic()

    def on_step(self, member: Member, selected: int) -> None:
        if time.monotonic() - self._last >= self.seconds:
            self._write(member)

    def on_end(self, member: Member) -> None:
        self._write(member)

    def _write(self, member: Member) -> None:
        # A checkpoint of a diverged network must not overwrite a good one.
        if all(bool(torch.isfinite(parameter).all()) for parameter in member.network.parameters()):
            self.run.write_checkpoint({**member.state_dict(), **self.more()})
        self._last = time.monotonic()


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
