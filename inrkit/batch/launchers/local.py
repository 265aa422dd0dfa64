"""Worker processes on this machine, each with its share of the cores or with a GPU of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any, Self

import torch
from pebble import ProcessExpired, ProcessPool
from pebble.pool.process import WORKERS_NAME

from inrkit.batch.job import perform
from inrkit.batch.launchers.base import JobOptions, Launcher, Outcome, Started, Task
from inrkit.batch.launchers.worker import TOO_MUCH_MEMORY, begin_locally, memory_error, thread_variables
from inrkit.errors import RunError
from inrkit.plugins.options import option

_MAX_DEATHS = 3
"""How often in a row workers may die before a task reaches them, or cannot be started."""
_MEND = "try fewer with --workers"


@dataclass
class LocalOptions:
    workers: int = option(0, at_least=0)
    """Number of processes. 0 for one a GPU, or one for every two cores where there is no GPU."""
    grace: float = option(30.0, at_least=0)
    """When the study is stopped, running jobs have so many seconds to end their step and write a checkpoint."""


class Local(Launcher):
    """Worker processes on this machine; they share its cores, or each has a GPU of its own."""

    Options = LocalOptions

    def __init__(self, options: LocalOptions, job: JobOptions) -> None:
        super().__init__(options, job)
        self._gpus = _gpus()
        # What one fit alone would use: it heeds OMP_NUM_THREADS and the cores that this process may run on.
        self._cores = torch.get_num_threads()
        self._exit = contextlib.ExitStack()
        self._slots = ""
        self._pool: ProcessPool

    @property
    def workers(self) -> int:
        return self.options.workers or len(self._gpus) or max(1, self._cores // 2)

    @property
    def threads(self) -> int:
        """Threads of each worker."""
        return max(1, self._cores // self.workers)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as entered:
            self._slots = entered.enter_context(tempfile.TemporaryDirectory(prefix="inrkit-"))
            entered.enter_context(_environment(thread_variables(self.threads)))  # workers inherit it
            self._open()
            self._exit = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._exit.close()

    def run(self, tasks: Iterable[Task]) -> Iterator[Started | Outcome]:
        waiting = deque(tasks)
        running: dict[Future[dict[str, Any]], Task] = {}
        announced: set[str] = set()
        deadline: float | None = None
        deaths = 0
        while running or (waiting and not self.stopping):
            # The pool never has more tasks than workers, so that a stop leaves the others untouched.
            while waiting and len(running) < self.workers and not self.stopping:
                if not self._pool.active:
                    self._reopen()
                task = waiting.popleft()
                with contextlib.suppress(RuntimeError):  # the pool broke just now: try again in the next round
                    limit = self.seconds(task) or None
                    running[self._pool.schedule(perform, args=[asdict(task)], timeout=limit)] = task
                    continue
                waiting.appendleft(task)
            ended, _ = wait(running, timeout=0.1, return_when=FIRST_COMPLETED)
            for future, task in running.items():
                if task.id not in announced and future.running():
                    announced.add(task.id)
                    yield Started(task)
            for future in ended:
                if _broken(future):
                    continue
                task = running.pop(future)
                deaths = 0
                if task.id not in announced:
                    yield Started(task)
                yield self._outcome(task, future)
            if any(_broken(future) for future in running):
                deaths += 1
                if not self.stopping:
                    self._reopen()
                for future in [future for future in running if not future.done() or _broken(future)]:
                    task = running.pop(future)
                    if deaths < _MAX_DEATHS:
                        waiting.appendleft(task)
                    else:
                        yield Outcome(task, "failed", f"workers die as they start; {_MEND}")
            if self.stopping and deadline is None:
                deadline = time.monotonic() + self.options.grace
                self._ask_to_stop(running)
            if deadline is not None and time.monotonic() > deadline:
                self._close()
                for task in running.values():
                    yield Outcome(task, "interrupted")
                return

    def _open(self) -> None:
        """Start the workers.

        Raises:
            RunError: one of them ends before it has begun, time and again.
        """
        for _ in range(_MAX_DEATHS):
            try:
                self._start()
                return
            except BrokenProcessPool as error:
                self._close()
                reason = error.__cause__ or error
        raise RunError(f"worker processes cannot be started ({type(reason).__name__}: {reason}); {_MEND}")

    def _start(self) -> None:
        # A Ctrl-C at the terminal reaches every process in the foreground, but only this one is to act on it. So
        # workers begin with the signal blocked, which they inherit from the thread that starts them, and then leave
        # the foreground. The resource tracker is started first, because starting it unblocks the signal.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._pool = ProcessPool(
                self.workers,
                max_tasks=1 if self.job.memory else 0,  # a job must not be killed for the memory of the one before it
                initializer=begin_locally,
                initargs=(self._slots, self.workers, self._gpus, self.job.memory),
                context=multiprocessing.get_context("spawn"),
            )
            _ = self._pool.active  # starts it
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _close(self) -> None:
        self._pool.stop()
        self._pool.join()

    def _reopen(self) -> None:
        self._close()
        self._open()

    def _ask_to_stop(self, running: Iterable[Future[dict[str, Any]]]) -> None:
        """Ask running jobs to stop after their step, and drop those that no worker has taken yet."""
        for future in running:
            if not future.running():
                future.cancel()
        for child in multiprocessing.active_children():
            if child.name == WORKERS_NAME:
                child.terminate()

    def _outcome(self, task: Task, future: Future[dict[str, Any]]) -> Outcome:
        if future.cancelled():
            return Outcome(task, "interrupted")
        error = future.exception()
        if error is None:
            return Outcome(task, **future.result())
        if isinstance(error, TimeoutError):
            return Outcome(task, "failed", f"took longer than {self.limit_of(task)} and was killed")
        if self.stopping or isinstance(error, CancelledError | KeyboardInterrupt):
            return Outcome(task, "interrupted")
        if isinstance(error, ProcessExpired):
            return Outcome(task, "failed", self._why_it_died(error.exitcode))
        return Outcome(task, "failed", f"{type(error).__name__}: {error}")

    def _why_it_died(self, code: int) -> str:
        """What a worker's exit code says."""
        if code == TOO_MUCH_MEMORY:
            return memory_error(self.job.memory)
        if code == -signal.SIGKILL:
            return "its process was killed (SIGKILL), as the system does when memory runs out"
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"


def _broken(future: Future[dict[str, Any]]) -> bool:
    """Whether the task came back because a worker died before it had one, which breaks the whole pool."""
    return future.done() and not future.cancelled() and isinstance(future.exception(), BrokenProcessPool)


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
