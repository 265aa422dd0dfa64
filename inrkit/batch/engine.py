"""`run_study`: runs the jobs of a study and writes its results."""

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

from inrkit.batch.curves import draw_curves
from inrkit.batch.display import BatchDisplay
from inrkit.batch.launchers.base import Launcher, Started, Task
from inrkit.batch.results import STATUSES, Results
from inrkit.batch.study import Job, Study
from inrkit.batch.summary import summarise
from inrkit.batch.tuning import choose
from inrkit.errors import ConfigError, WriteError
from inrkit.files import exclusive, remove_stale, write_text
from inrkit.runs.execute import stackable

RUNNABLE = ("failed", "interrupted", "pending")
"""Statuses of the jobs that are run when a study is run again."""


def run_study(
    study: Study,
    folder: str | Path,
    *,
    only: Collection[str] = RUNNABLE,
    limit: int | None = None,
    quiet: bool = True,
) -> int:
    """Run the jobs of a study that are not done yet, and write its results to a folder.

    Worker processes import the main module of the calling program. So a script must make this call below
    `if __name__ == "__main__":`.

    Args:
        study: to run.
        folder: of the results; made if it does not exist.
        only: statuses of the jobs to run.
        limit: how many jobs to run now, at most.
        quiet: print nothing.

    Returns:
        0 if no job of the study is failed or interrupted, 1 if one is, 130 if a signal stopped the study.

    Raises:
        ConfigError: the folder cannot be used, another process works in it, or the results would overwrite the study
            file.
    """
    folder = Path(folder).absolute()
    own = folder / "study.yaml"
    if study.path is not None and own.exists() and own.samefile(study.path) and own.read_text("utf-8") != study.text:
        raise ConfigError(f"{own} would be overwritten by the expanded study; choose another --out")
    with _locked(folder):
        write_text(folder / "study.yaml", study.text)
        return _Engine(study, folder, only, limit, quiet).run()


class _Engine:
    """Runs one study once; arguments are those of `run_study`."""

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
        main = self.study.main_jobs(choose(self.study, tuning, self.results))
        self.results.jobs = [*tuning, *main]
        self._write()
        try:
            with self.display, stopped_by_signals(self.launcher), self._workers:
                self._run_jobs(tuning)
                if tuning:
                    main = self.study.main_jobs(choose(self.study, tuning, self.results))
                    self.results.jobs = [*tuning, *main]
                self._run_jobs(main)
        finally:
            self._write()
        note = draw_curves(self.study, self.results)
        if note:
            self.display.say(note)
        counts = self.results.counts()
        listed = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
        self.display.say(f"{listed} ({self.folder / 'summary.md'})")
        if self.launcher.stopping:
            return 130
        return 1 if counts["failed"] or counts["interrupted"] else 0

    def _run_jobs(self, jobs: list[Job]) -> None:
        """Run the jobs whose status is wanted. Those that fail are tried again, as often as `job.retries` says."""
        # Jobs that share a fit share an identity: the fit is made once.
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
            alone = self._run_tasks(self._tasks(attempt), wanted)
            self._run_tasks([self._task(wanted[task.id]) for task in alone], wanted)
            attempt = [job for job in attempt if self.results.state(job).status == "failed"]

    def _run_tasks(self, tasks: list[Task], wanted: Mapping[str, Job]) -> list[Task]:
        """Have the launcher perform tasks, and record what becomes of each job.

        Args:
            tasks: to perform.
            wanted: jobs by identity.

        Returns:
            Tasks that trained together and failed as a whole. One of them is to blame, and it is not known which: each
            is to be tried alone.
        """
        alone: list[Task] = []
        for event in self.launcher.run(tasks):
            if isinstance(event, Started):
                self.display.started([wanted[task.id] for task in event.task.all])
                continue
            if event.task.beside and event.each is None and event.status == "failed":
                alone += event.task.all
                self.display.returned([wanted[task.id] for task in event.task.all])
                self.display.say(f"{len(event.task.all)} jobs fail together: {event.error}; each goes on alone")
                continue
            whole = {"status": event.status, "error": event.error}
            jobs = [wanted[task.id] for task in event.task.all]
            states = []
            for job in jobs:
                reported = (event.each or {}).get(job.id, whole)
                states.append(self.results.record(job, reported["status"], reported["error"]))
            self.display.ended(jobs, states)
            self._write(last=False)
        return alone

    def _task(self, job: Job, *beside: Job) -> Task:
        assert job.config is not None
        return Task(job.id, str(self.results.run(job).folder), job.config, tuple(self._task(each) for each in beside))

    def _tasks(self, jobs: list[Job]) -> list[Task]:
        """A task for each job, or for each group of jobs of a kind that are to train together.

        A group is no larger than `batch.together`, and small enough that every worker gets one.
        """
        together = self.study.batch.together
        if together == 1:
            return [self._task(job) for job in jobs]
        configs = [job.config for job in jobs if job.config is not None]  # all of them: a job to be run has one
        tasks = []
        for kind in stackable(configs):
            # With a time budget, how far a network gets would depend on those beside it.
            timed = configs[kind[0]]["train"]["seconds"] > 0
            size = 1 if timed else max(1, min(together, math.ceil(len(kind) / max(1, self.launcher.workers))))
            for start in range(0, len(kind), size):
                tasks.append(self._task(*(jobs[place] for place in kind[start : start + size])))
        return tasks

    def _write(self, last: bool = True) -> None:
        """Write the tables, if they are due.

        Raises:
            WriteError: they cannot be written, and it is the last time; before, the jobs go on.
        """
        try:
            self.results.write(lambda: summarise(self.study, self.results), last)
        except WriteError as error:
            if last:
                raise
            self.display.say(f"{error}; the jobs go on")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of the folder. The system ends the lock with this process, however that ends.

    What killed processes left half written is removed.
    """
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{folder} cannot be written: {reason}; choose another --out") from error
    busy = ConfigError(f"another process works on a study in {folder}; wait for it, or choose another --out")
    with exclusive(folder, busy):
        remove_stale(folder)
        yield


@contextlib.contextmanager
def stopped_by_signals(launcher: Launcher) -> Iterator[None]:
    """Ctrl-C or SIGTERM ends the study soon, a second one at once. Off the main thread nothing changes."""

    def handle(number: int, frame: FrameType | None) -> None:
        if launcher.stopping:
            raise KeyboardInterrupt
        launcher.stop()
        os.write(2, b"stopping: running jobs write a checkpoint; a second Ctrl-C stops at once\n")

    ours = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM) if ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
