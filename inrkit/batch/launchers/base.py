"""What runs the jobs of a study: a launcher, found by name like every plug-in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

from inrkit.config.schema import LAUNCHERS, Choice
from inrkit.plugins.options import option, parse


@dataclass
class JobOptions:
    limit: float = option(0.0, at_least=0)
    """Seconds that a job may take. A job that takes longer is killed. Jobs that train together may take that long for
    each of them. 0 for no limit."""
    retries: int = option(0, at_least=0)
    """How often a failed job is tried again."""
    memory: float = option(0.0, at_least=0)
    """GiB of main memory that a job may take. A job that takes more is killed. 0 for no limit."""


@dataclass(frozen=True)
class Task:
    """A job as a launcher gets it. It is plain JSON, and all that `inrkit.batch.job.perform` needs.

    Args:
        id: the job's identity.
        folder: absolute path of the run's folder, on a file system that all workers share.
        config: every key of the resolved config.
        beside: other jobs, to be trained together with this one as one stacked computation.
        region: if it is a region of a signal, its `number`, the `folder` of all, the whole fit's `config`, and the
            `share` of the training after which it is to stop.
    """

    id: str
    folder: str
    config: dict[str, Any]
    beside: tuple[Task, ...] = ()
    region: dict[str, Any] | None = None

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
    """How a task ended.

    Args:
        task: the task.
        status: "done", "failed" or "interrupted".
        error: why it failed, in one line.
        each: status and error of every job of the task, by identity; None where the worker could not tell.
    """

    task: Task
    status: str
    error: str | None = None
    each: dict[str, dict[str, Any]] | None = None


def launcher_choice(given: Mapping[str, Any]) -> tuple[Choice, list[str]]:
    """The launcher that a mapping with its name and options names, `local` without a name, and what is wrong with it.

    Raises:
        ConfigError: there is no such launcher.
    """
    name = str(given.get("name", "local"))
    plugin: Any = LAUNCHERS.get(name)
    options, errors = parse(plugin.Options, {key: value for key, value in given.items() if key != "name"}, "launcher")
    return Choice(name, plugin, options), errors


@LAUNCHERS.base
class Launcher(ABC):
    """Runs tasks somewhere. It is a context manager: its workers live inside, and none is left when it ends.

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
        """Perform tasks. Yields `Started` when a task starts and `Outcome` when it has ended, as it happens.

        May be called several times. Every task that has started gets an outcome, whatever happens to its worker. Once
        `stopping` is set, no further task starts; those that run are asked to stop and to keep what they have.
        """

    def stop(self) -> None:
        """Ask `run` to end soon. Safe to call from a signal handler."""
        self.stopping = True

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
