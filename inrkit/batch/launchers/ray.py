"""Jobs as tasks of a Ray cluster: of a small one on this machine, or of one that runs elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

import torch

from inrkit.batch.launchers.base import JobOptions, Launcher, Outcome, Started, Task
from inrkit.batch.launchers.cluster import first_line, joined, node_lives, node_resources
from inrkit.batch.launchers.worker import perform_on_node, thread_variables
from inrkit.errors import ConfigError
from inrkit.plugins.options import option

_MAX_SUBMITTED = 1000
"""How many tasks Ray has at a time, at most: enough for it to see what is wanted, and few enough to wait for."""

_PATIENCE = 10.0
"""Seconds after which a process that was killed is taken to be gone."""


@dataclass
class RayOptions:
    workers: int = option(0, at_least=0)
    """Jobs at a time. 0 for as many as the cluster has resources for."""
    address: str = option("")
    """The cluster to join: host:port, or "auto" for the one that this machine belongs to. By default Ray is started on
    this machine and ends with the study."""
    cpus: int = option(1, at_least=1)
    """Cores of a job. It has as many threads."""
    gpus: float | None = option(None, at_least=0)
    """GPUs of a job, or the part of one. By default 1 if the cluster has any."""
    losses: int = option(3, at_least=0)
    """How often a job is run again because its node was lost."""
    grace: float = option(30.0, at_least=0)
    """When the study is stopped, running jobs have so many seconds to end their step and write a checkpoint."""

    def __post_init__(self) -> None:
        if self.address.startswith("ray://"):
            raise ValueError(
                f"address is {self.address}, a Ray client's; run inrkit on a machine of the cluster, with address=auto"
            )


@dataclass
class _Attempt:
    """A task that Ray has.

    Args:
        task: the task.
        lost: how many nodes were lost while it ran on them.
        announced: whether `Started` was yielded for it.
        node: id of the node that it runs on; "" until it has started there.
        since: when it started there, seconds of the monotonic clock.
        killed: when it was killed, likewise; 0 if it was not.
        reason: why its process was ended; "" if it was not.
    """

    task: Task
    lost: int = 0
    announced: bool = False
    node: str = ""
    since: float = 0.0
    killed: float = 0.0
    reason: str = ""


class Ray(Launcher):
    """Tasks of a Ray cluster: a small one on this machine, or one that is joined. Jobs of a lost node run again."""

    Options = RayOptions

    def __init__(self, options: RayOptions, job: JobOptions) -> None:
        super().__init__(options, job)
        if find_spec("ray") is None:
            raise ConfigError("launcher 'ray' needs: pip install 'inrkit[ray]'")
        self._cores = torch.get_num_threads()
        self._exit = contextlib.ExitStack()
        self._remote_perform: Any = None
        self._notes: Any = None
        self._running: dict[Any, _Attempt] = {}

    @property
    def workers(self) -> int:
        if self.options.workers:
            return self.options.workers
        if self._remote_perform is None:
            with self:
                return self.workers
        needs = self._needs()
        return sum(min(int(node.get(name, 0) // need) for name, need in needs.items()) for node in node_resources())

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as entered:
            cores = max(self._cores, self.options.cpus * max(1, self.options.workers))
            # A job that asks for no GPU sees none.
            environment = {**thread_variables(self.options.cpus), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
            entered.enter_context(joined(self.options.address, cores, environment))
            entered.callback(self._leave)
            self._prepare()
            self._exit = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def run(self, tasks: Iterable[Task]) -> Iterator[Started | Outcome]:
        import ray

        waiting = deque(_Attempt(task) for task in tasks)
        running = self._running
        deadline: float | None = None
        while running or (waiting and not self.stopping):
            while waiting and len(running) < (self.options.workers or _MAX_SUBMITTED) and not self.stopping:
                attempt = waiting.popleft()
                running[self._remote_perform.remote(asdict(attempt.task), self._notes, self.job.memory)] = attempt
            ended, _ = ray.wait(list(running), timeout=0.1)
            if ended:
                ended, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
            # In this order: the notes of all that has ended are there by now.
            yield from self._read_notes()
            self._kill_overdue()
            given_up = [ref for ref, each in running.items() if each.killed and _seconds_since(each.killed) > _PATIENCE]
            for ref in dict.fromkeys([*ended, *given_up]):
                attempt = running.pop(ref)
                error = _error_of(ref)
                lost = not self.stopping and self._lost(attempt, error)
                if lost and attempt.lost < self.options.losses:
                    waiting.appendleft(_Attempt(attempt.task, attempt.lost + 1, attempt.announced))
                    continue
                outcome = self._failure(attempt, error, lost) if error else Outcome(attempt.task, **ray.get(ref))
                # Ray had not begun it when the study was stopped: it stays as it was.
                if not attempt.announced and outcome.status == "interrupted":
                    continue
                if not attempt.announced:
                    yield Started(attempt.task)
                yield outcome
            if self.stopping and deadline is None:
                deadline = time.monotonic() + self.options.grace
                for ref in reversed(running):  # the waiting ones first, or one could take the place of one that ends
                    ray.cancel(ref)
            if deadline is not None and time.monotonic() > deadline:
                waiting.extend(running.values())
                self._kill()
        yield from (Outcome(attempt.task, "interrupted") for attempt in waiting if attempt.announced)

    def _prepare(self) -> None:
        """Declare what a job needs, and make the queue on which workers leave notes."""
        import ray
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        needs = self._needs()
        if not any(all(node.get(name, 0) >= need for name, need in needs.items()) for node in node_resources()):
            wanted = [f"{needs['CPU']} cores"]
            wanted += [f"{needs['GPU']:g} GPUs"] if "GPU" in needs else []
            wanted += [f"{self.job.memory:g} GiB of memory"] if "memory" in needs else []
            raise ConfigError(
                f"no node of the cluster has {' and '.join(wanted)} for a job; "
                "lower launcher.cpus, launcher.gpus or job.memory"
            )
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # It lasts as long as this process: it lives on the same node, and Ray starts it again if it dies.
        self._notes = Queue(
            actor_options={"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        )
        gpus = needs.get("GPU", 0)
        self._remote_perform = ray.remote(
            num_cpus=self.options.cpus,
            num_gpus=gpus,
            memory=needs.get("memory", 0),
            max_retries=0,  # Ray cannot tell a job that kills its worker from a node that was lost
            max_calls=1 if gpus else 0,  # a process keeps the GPU that it was first given
        )(perform_on_node)

    def _leave(self) -> None:
        """End the jobs that still run, and forget the cluster."""
        self._kill()
        self._remote_perform = self._notes = None

    def _kill(self) -> None:
        """End the processes of jobs that still run."""
        import ray

        refs = list(self._running)
        self._running.clear()
        for ref in refs:
            ray.cancel(ref, force=True)
        if refs:
            ray.wait(refs, num_returns=len(refs), timeout=_PATIENCE)

    def _needs(self) -> dict[str, float]:
        """What a job needs, by Ray's names of resources."""
        gpus = self.options.gpus
        if gpus is None:
            gpus = float(any(node.get("GPU", 0) for node in node_resources()))
        needs = {"CPU": self.options.cpus, "GPU": gpus, "memory": int(self.job.memory * 2**30)}
        return {name: need for name, need in needs.items() if need}

    def _read_notes(self) -> Iterator[Started]:
        """Read what workers have noted, and yield `Started` for jobs that have begun."""
        attempts = {attempt.task.id: attempt for attempt in self._running.values()}
        for note in self._notes.get_nowait_batch(self._notes.qsize()):
            attempt = attempts.get(note["id"])
            if attempt is None:
                continue
            if "reason" in note:
                attempt.reason = note["reason"]
                continue
            attempt.node, attempt.since = note["node"], time.monotonic()
            if not attempt.announced:
                attempt.announced = True
                yield Started(attempt.task)

    def _kill_overdue(self) -> None:
        """Kill the processes of jobs that take longer than they may."""
        import ray

        for ref, attempt in self._running.items():
            limit = self.seconds(attempt.task)
            if limit and attempt.node and not attempt.killed and _seconds_since(attempt.since) > limit:
                attempt.killed = time.monotonic()
                attempt.reason = f"took longer than {self.limit_of(attempt.task)} and was killed"
                ray.cancel(ref, force=True)

    def _lost(self, attempt: _Attempt, error: Exception | None) -> bool:
        """Whether a job ended because its node did."""
        from ray.exceptions import NodeDiedError, WorkerCrashedError

        if isinstance(error, WorkerCrashedError) and not attempt.reason:
            return not node_lives(attempt.node)
        return isinstance(error, NodeDiedError)

    def _failure(self, attempt: _Attempt, error: Exception, lost: bool) -> Outcome:
        """The outcome of a job whose process could not report one."""
        from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

        if attempt.reason:
            reason = attempt.reason
        elif self.stopping:
            return Outcome(attempt.task, "interrupted")
        elif lost:
            reason = f"its node was lost, {attempt.lost + 1} times in a row" if attempt.lost else "its node was lost"
        elif isinstance(error, OutOfMemoryError):
            reason = "its process was killed as its node ran out of memory"
        elif isinstance(error, WorkerCrashedError):
            reason = "its process was killed or crashed, as when memory runs out; see its log"
        else:
            cause = error.cause if isinstance(error, RayTaskError) else error
            reason = f"{type(cause).__name__}: {first_line(cause)}"
        return Outcome(attempt.task, "failed", reason)


def _error_of(ref: Any) -> Exception | None:
    """The error that a task ended with; None if it has a result."""
    import ray

    try:
        ray.get(ref, timeout=0)
    except Exception as error:
        return error
    return None


def _seconds_since(moment: float) -> float:
    return time.monotonic() - moment
