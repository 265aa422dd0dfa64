"""`run_study`: from a study to its results."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from inrkit.batch.curves import draw_curves
from inrkit.batch.display import BatchDisplay
from inrkit.batch.launchers.base import Launcher, Started, Task
from inrkit.batch.results import STATUSES, Results
from inrkit.batch.study import Job, Study
from inrkit.batch.summary import summarise
from inrkit.batch.tuning import choose
from inrkit.errors import ConfigError
from inrkit.files import write_text
from inrkit.runs.execute import stackable

RUNNABLE = ("failed", "interrupted", "pending")
"""Statuses of the jobs that a study runs when it is run again."""


def run_study(
    study: Study,
    folder: str | Path,
    *,
    only: Collection[str] = RUNNABLE,
    limit: int | None = None,
    quiet: bool = True,
) -> int:
    """Run what a study lacks, and leave its results in a folder.

    Worker processes import the main module of the program that calls this: a script must keep the call below
    `if __name__ == "__main__":`.

    Args:
        study: to run.
        folder: of the results; made if it does not exist.
        only: statuses of the jobs to run.
        limit: of the number of jobs to run now.
        quiet: print nothing.

    Returns:
        0 if no job of the study is failed or interrupted, 1 if one is, 130 if the study was stopped by a signal.

    Raises:
        ConfigError: the folder cannot be used, another process works in it, or it is the study file's own.
    """
    folder = Path(folder).absolute()
    own = folder / "study.yaml"
    if study.path is not None and own.exists() and own.samefile(study.path) and own.read_text("utf-8") != study.text:
        raise ConfigError(f"{own} would be overwritten by what it resolves to; choose another --out")
    with _locked(folder):
        write_text(folder / "study.yaml", study.text)
        return _Engine(study, folder, only, limit, quiet).run()


class _Engine:
    def __init__(self, study: Study, folder: Path, only: Collection[str], limit: int | None, quiet: bool) -> None:
        self.study = study
        self.folder = folder
        self.only = only
        self.left = limit
        self.results = Results(folder, study.columns)
        self.display = BatchDisplay(self.results, quiet)
        launcher: Any = study.launcher.plugin
        self.launcher: Launcher = launcher(study.launcher.options, study.job)
        self._workers, self._launched = contextlib.ExitStack(), False

    def run(self) -> int:
        tuning = self.study.tuning_jobs()
        self.results.jobs = [*tuning, *self.study.main_jobs(choose(self.study, tuning, self.results))]
        self._write()
        try:
            with self.display, _stopped_by_signals(self.launcher), self._workers:
                self._perform(tuning)
                main = self.study.main_jobs(choose(self.study, tuning, self.results))
                self.results.jobs = [*tuning, *main]
                self._perform(main)
        finally:
            self._write()
        note = draw_curves(self.study, self.results)
        if note:
            self.display.say(note)
        counts = self.results.counts()
        told = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
        self.display.say(f"{told} ({self.folder / 'summary.md'})")
        if self.launcher.stopping:
            return 130
        return 1 if counts["failed"] or counts["interrupted"] else 0

    def _perform(self, jobs: list[Job]) -> None:
        """Run those of the jobs that are wanted, and those that fail again as often as they may be."""
        # One fit for all jobs that share it.
        wanted = {job.id: job for job in jobs if job.id and self.results.state(job).status in self.only}
        attempt = list(wanted.values())[: self.left]
        if self.left is not None:
            self.left -= len(attempt)
        for _ in range(1 + self.study.job.retries):
            if not attempt or self.launcher.stopping:
                return
            if not self._launched:
                self._workers.enter_context(self.launcher)
                self._launched = True
            self.display.expect(len(attempt))
            alone = self._run(self._tasks(attempt), wanted)
            self._run([self._task(wanted[task.id]) for task in alone], wanted)
            attempt = [job for job in attempt if self.results.state(job).status == "failed"]

    def _run(self, tasks: list[Task], wanted: Mapping[str, Job]) -> list[Task]:
        """Have tasks performed.

        Returns:
            The jobs that trained together when their worker came to an end: which of them it was is not known.
        """
        alone: list[Task] = []
        for event in self.launcher.run(tasks):
            if isinstance(event, Started):
                for task in event.task.all:
                    self.display.started(wanted[task.id])
                continue
            if event.task.beside and event.each is None and event.status == "failed":
                alone += event.task.all
                self.display.say(f"{len(event.task.all)} jobs fail together: {event.error}; each goes on alone")
                continue
            whole = {"status": event.status, "error": event.error}
            for task in event.task.all:
                told = (event.each or {}).get(task.id, whole)
                state = self.results.record(wanted[task.id], told["status"], told["error"])
                self.display.ended(wanted[task.id], state)
            self._write(last=False)
        return alone

    def _task(self, job: Job, *beside: Job) -> Task:
        assert job.config is not None
        return Task(job.id, str(self.results.run(job).folder), job.config, tuple(self._task(each) for each in beside))

    def _tasks(self, jobs: list[Job]) -> list[Task]:
        """A task for each job, or for as many of a kind as are to train together, shared out over the workers."""
        together = self.study.batch.together
        if together == 1:
            return [self._task(job) for job in jobs]
        configs = [job.config for job in jobs if job.config is not None]  # all of them: jobs to be run have one
        tasks = []
        for kind in stackable(configs):
            # Under a budget of time, what a network gets would depend on those beside it.
            timed = configs[kind[0]]["train"]["seconds"] > 0
            size = 1 if timed else max(1, min(together, math.ceil(len(kind) / max(1, self.launcher.workers))))
            for start in range(0, len(kind), size):
                tasks.append(self._task(*(jobs[place] for place in kind[start : start + size])))
        return tasks

    def _write(self, last: bool = True) -> None:
        if self.results.write(last):
            write_text(self.folder / "summary.md", summarise(self.study, self.results))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Have the folder for this process alone; the system ends that with the process, however it ends."""
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"another process works on a study in {folder}; wait for it, or choose another --out"
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{folder} cannot be written: {reason}; choose another --out") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _stopped_by_signals(launcher: Launcher) -> Iterator[None]:
    """Ctrl-C or SIGTERM ends the study soon, a second one at once; only the main thread hears of signals."""

    def handle(number: int, frame: FrameType | None) -> None:
        if launcher.stopping:
            raise KeyboardInterrupt
        launcher.stop()
        os.write(2, b"stopping, running jobs keep what they have; once more stops at once\n")

    ours = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM) if ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
