"""What runs the jobs of a study: a launcher, found by name like every plug-in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

from inrkit.config.schema import LAUNCHERS
from inrkit.plugins.options import option


@dataclass
class JobOptions:
    limit: float = option(0.0, at_least=0)
    """Seconds that a job may take before it counts as hanging and is killed, for each of those that train together;
    0 for no limit."""
    retries: int = option(0, at_least=0)
    """How often a job that failed is tried again."""
    memory: float = option(0.0, at_least=0)
    """GiB of main memory that a job may take before it is killed; 0 for no limit."""


@dataclass
class BatchOptions:
    together: int = option(1, at_least=1)
    """How many small fits of a kind a worker trains as one stacked computation; 1 for one by one."""


@dataclass(frozen=True)
class Task:
    """A job as a launcher gets it; plain JSON, and all that `inrkit.batch.job.perform` needs.

    Args:
        id: the job's identity.
        folder: absolute path of the run's folder, on a file system that all workers share.
        config: every key of the resolved config.
        beside: other jobs, which are to train together with this one as one stacked computation.
    """

    id: str
    folder: str
    config: dict[str, Any]
    beside: tuple[Task, ...] = ()

    @property
    def all(self) -> tuple[Task, ...]:
        """Every job of the task."""
        return (self, *self.beside)


@dataclass(frozen=True)
class Started:
    """A worker has taken a task."""

    task: Task


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Args:
        task: the task.
        status: "done", "failed" or "interrupted".
        error: why it failed, in a line.
        each: status and error of every job of the task, by identity, where the worker could tell.
    """

    task: Task
    status: str
    error: str | None = None
    each: dict[str, dict[str, Any]] | None = None


@LAUNCHERS.base
class Launcher(ABC):
    """Runs tasks somewhere. A context manager: workers live inside it, and none is left when it ends.

    Args:
        options: an instance of the subclass's `Options`.
        job: limits of each job.
    """

    Options: ClassVar[type]

    def __init__(self, options: Any, job: JobOptions) -> None:
        self.options = options
        self.job = job
        self.stopping = False

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many jobs run at a time."""

    def seconds(self, task: Task) -> float:
        """How long a task may take; 0 for no limit."""
        return self.job.limit * len(task.all)

    def limit_of(self, task: Task) -> str:
        """The limit of a task in words."""
        several = f" for each of {len(task.all)}" if task.beside else ""
        return f"job.limit={self.job.limit:g} s{several}"

    @abstractmethod
    def run(self, tasks: Iterable[Task]) -> Iterator[Started | Outcome]:
        """Perform tasks, telling of each when it starts and when it has ended, in the order in which that happens.

        May be called several times. Every task that has started comes to an outcome, whatever its worker comes to;
        once `stopping` is set no other task starts, and those that run are asked to stop and to keep what they have.
        """

    def stop(self) -> None:
        """Ask `run` to end soon; safe to call from a signal's handler."""
        self.stopping = True

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
