"""Jobs as tasks of a Ray cluster: of a small one on this machine, or of one that runs elsewhere."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import torch

from inrkit.batch.job import perform
from inrkit.batch.launchers.base import JobOptions, Launcher, Outcome, Started, Task
from inrkit.errors import ConfigError
from inrkit.plugins.options import option

_OUT = 1000
"""So many tasks are given to Ray at a time, at most: enough for it to see what is wanted, and quick to wait for."""

_PATIENCE = 10.0
"""Seconds until a process that was killed, or a node that may be dying, is taken to be gone."""

_OBJECTS = 100 * 2**20
"""Bytes for what tasks share, which is next to nothing here; Ray asks for 75 MiB at least."""


@dataclass
class RayOptions:
    workers: int = option(0, at_least=0)
    """Jobs at a time; 0 for as many as there are resources for."""
    address: str = option("")
    """Of a cluster to join, host:port or "auto" for the one that this machine belongs to; by default Ray is started on
    this machine, and ended with the study."""
    cpus: int = option(1, at_least=1)
    """Cores of a job, which are its threads."""
    gpus: float | None = option(None, at_least=0)
    """GPUs of a job, or the part of one; by default one if the cluster has any."""
    losses: int = option(3, at_least=0)
    """How often a job is run again because its node was lost."""
    grace: float = option(30.0, at_least=0)
    """Seconds that running jobs get to end their step and write a checkpoint when the study is stopped."""

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
        lost: how many nodes it has been lost with.
        told: whether it has been said to have started.
        node: that it runs on, "" until it has started there.
        since: when it started there, seconds of the monotonic clock.
        killed: when it was killed, 0 if it was not.
        reason: why.
    """

    task: Task
    lost: int = 0
    told: bool = False
    node: str = ""
    since: float = 0.0
    killed: float = 0.0
    reason: str = ""


class Ray(Launcher):
    """Tasks of a Ray cluster, which this machine is all of, or which is joined; a lost node's jobs are run again."""

    Options = RayOptions

    def __init__(self, options: RayOptions, job: JobOptions) -> None:
        super().__init__(options, job)
        if find_spec("ray") is None:
            raise ConfigError("launcher 'ray' needs: pip install 'inrkit[ray]'")
        self._cores = torch.get_num_threads()
        self._exit = contextlib.ExitStack()
        self._perform: Any = None
        self._notes: Any = None
        self._running: dict[Any, _Attempt] = {}

    @property
    def workers(self) -> int:
        if self.options.workers:
            return self.options.workers
        if self._perform is None:
            with self:
                return self.workers
        return sum(min(int(node.get(name, 0) // need) for name, need in self._needs().items()) for node in _nodes())

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as entered:
            self._connect(entered)
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
            while waiting and len(running) < (self.options.workers or _OUT) and not self.stopping:
                attempt = waiting.popleft()
                running[self._perform.remote(asdict(attempt.task), self._notes, self.job.memory)] = attempt
            ended, _ = ray.wait(list(running), timeout=0.1)
            if ended:
                ended, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
            # Read after it was seen what has ended, the notes on that are complete.
            yield from self._hear()
            self._end_late()
            given_up = [ref for ref, each in running.items() if each.killed and _since(each.killed) > _PATIENCE]
            for ref in dict.fromkeys([*ended, *given_up]):
                attempt = running.pop(ref)
                error = _error(ref)
                lost = not self.stopping and self._lost(attempt, error)
                if lost and attempt.lost < self.options.losses:
                    waiting.appendleft(_Attempt(attempt.task, attempt.lost + 1, attempt.told))
                    continue
                outcome = self._failure(attempt, error, lost) if error else Outcome(attempt.task, **ray.get(ref))
                # What Ray still kept waiting when the study was stopped is as it was.
                if not attempt.told and outcome.status == "interrupted":
                    continue
                if not attempt.told:
                    yield Started(attempt.task)
                yield outcome
            if self.stopping and deadline is None:
                deadline = time.monotonic() + self.options.grace
                for ref in reversed(running):  # those that wait first, lest one takes the place of one that ends
                    ray.cancel(ref)
            if deadline is not None and time.monotonic() > deadline:
                waiting.extend(running.values())
                self._kill()
        yield from (Outcome(attempt.task, "interrupted") for attempt in waiting if attempt.told)

    def _connect(self, entered: contextlib.ExitStack) -> None:
        """Start Ray or join a cluster, quietly, unless this process is in one already."""
        # Neither reports of use to Ray's makers, nor copies of the present folder for the workers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        import ray
        from ray._private import worker as driver

        if ray.is_initialized():
            return
        threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = dict.fromkeys(threads, str(self.options.cpus))
        # A job that asks for no GPU sees none.
        environment["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "1"
        where: dict[str, Any] = {"address": self.options.address}
        if self.options.address:
            _reachable(self.options.address)
        else:
            cores = max(self._cores, self.options.cpus * max(1, self.options.workers))
            where = {
                "address": "local",
                "num_cpus": cores,
                "object_store_memory": _OBJECTS,
                "include_dashboard": False,
            }
        entered.callback(ray.shutdown)
        try:
            with _handlers_kept():
                ray.init(
                    **where,
                    runtime_env={"env_vars": environment},
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except Exception as error:
            address = self.options.address
            what = f"launcher.address={address} cannot be joined" if address else "Ray does not start here"
            raise ConfigError(f"{what}: {_line(error)}; see `ray status`, or use launcher=local") from error
        # What it prints of nodes and workers that died, outcomes tell.
        entered.callback(setattr, driver, "_worker_logs_enabled", driver._worker_logs_enabled)
        driver._worker_logs_enabled = False

    def _prepare(self) -> None:
        """Declare what a job needs, and make the queue on which workers leave notes."""
        import ray
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        needs = self._needs()
        if not any(all(node.get(name, 0) >= need for name, need in needs.items()) for node in _nodes()):
            told = [f"{needs['CPU']} cores"]
            told += [f"{needs['GPU']:g} GPUs"] if "GPU" in needs else []
            told += [f"{self.job.memory:g} GiB of memory"] if "memory" in needs else []
            raise ConfigError(
                f"no node of the cluster has {' and '.join(told)} for a job; "
                "lower launcher.cpus, launcher.gpus or job.memory"
            )
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # As good as this process: on its node, and made anew if it dies.
        self._notes = Queue(
            actor_options={"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        )
        gpus = needs.get("GPU", 0)
        self._perform = ray.remote(
            num_cpus=self.options.cpus,
            num_gpus=gpus,
            memory=needs.get("memory", 0),
            max_retries=0,  # Ray would not tell a job that kills its worker from a node that was lost
            max_calls=1 if gpus else 0,  # a process keeps the GPU that it was first given
        )(_perform)

    def _leave(self) -> None:
        self._kill()
        self._perform = self._notes = None

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
        """What a job needs, by Ray's name of it."""
        gpus = self.options.gpus
        if gpus is None:
            gpus = float(any(node.get("GPU", 0) for node in _nodes()))
        needs = {"CPU": self.options.cpus, "GPU": gpus, "memory": int(self.job.memory * 2**30)}
        return {name: need for name, need in needs.items() if need}

    def _hear(self) -> Iterator[Started]:
        """Read what workers have noted."""
        attempts = {attempt.task.id: attempt for attempt in self._running.values()}
        for note in self._notes.get_nowait_batch(self._notes.qsize()):
            attempt = attempts.get(note["id"])
            if attempt is None:
                continue
            if "reason" in note:
                attempt.reason = note["reason"]
                continue
            attempt.node, attempt.since = note["node"], time.monotonic()
            if not attempt.told:
                attempt.told = True
                yield Started(attempt.task)

    def _end_late(self) -> None:
        """Kill the processes of jobs that take longer than they may."""
        import ray

        for ref, attempt in self._running.items():
            limit = self.seconds(attempt.task)
            if limit and attempt.node and not attempt.killed and _since(attempt.since) > limit:
                attempt.killed = time.monotonic()
                attempt.reason = f"took longer than {self.limit_of(attempt.task)} and was killed"
                ray.cancel(ref, force=True)

    def _lost(self, attempt: _Attempt, error: Exception | None) -> bool:
        """Whether a job ended because its node did."""
        from ray.exceptions import NodeDiedError, WorkerCrashedError

        if isinstance(error, WorkerCrashedError) and not attempt.reason:
            return not _lives(attempt.node)
        return isinstance(error, NodeDiedError)

    def _failure(self, attempt: _Attempt, error: Exception, lost: bool) -> Outcome:
        """What became of a job whose process could not say it."""
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
            reason = f"{type(cause).__name__}: {_line(cause)}"
        return Outcome(attempt.task, "failed", reason)


def _perform(task: dict[str, Any], notes: Any, memory: float) -> dict[str, Any]:
    """Perform a task in a worker of the cluster.

    Args:
        task: the fields of a `Task`.
        notes: queue on which it says that it has started, and why it ends its process.
        memory: GiB that the process may take; 0 for no limit.
    """
    import ray

    context = ray.get_runtime_context()
    notes.put({"id": task["id"], "node": context.get_node_id()})
    runs = Path(task["folder"]).parent
    if not runs.is_dir():
        node = socket.gethostname()
        return {"status": "failed", "error": f"{runs} is not on {node}; give an --out that all nodes share"}
    ended = threading.Event()
    if memory:
        threading.Thread(target=_watch, args=(task["id"], notes, memory, ended), daemon=True).start()
    try:
        return perform(task)
    finally:
        ended.set()


def _watch(job: str, notes: Any, memory: float, ended: threading.Event) -> None:
    """End the process when it takes more than `memory` GiB."""
    process = psutil.Process()
    while not ended.wait(0.5):
        if process.memory_info().rss > memory * 2**30:
            with contextlib.suppress(Exception):  # it ends whether or not it can say why
                notes.put(
                    {"id": job, "reason": f"took more than job.memory={memory:g} GiB and was killed"}, timeout=_PATIENCE
                )
            os._exit(1)


def _nodes() -> list[dict[str, float]]:
    """The resources of each node that lives."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _lives(node: str) -> bool:
    """Whether a node outlives one of its workers; one that is dying may take a moment, and Ray minutes to notice."""
    import ray

    for _ in range(10):
        known = next((each for each in ray.nodes() if each["NodeID"] == node), None)
        if known is None:  # the worker died before it said where
            return True
        if not known["Alive"]:
            return False
        try:
            socket.create_connection((known["NodeManagerAddress"], known["NodeManagerPort"]), timeout=1).close()
        except OSError:
            return False
        time.sleep(0.2)
    return True


def _reachable(address: str) -> None:
    """Raise a `ConfigError` if nobody listens at host:port, which Ray would take a minute to find out."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"launcher.address={address} cannot be reached: {error}; give the host:port that `ray start` printed"
        ) from error


def _error(ref: Any) -> Exception | None:
    """What came of a task instead of a result."""
    import ray

    try:
        ray.get(ref, timeout=0)
    except Exception as error:
        return error
    return None


def _line(error: BaseException) -> str:
    """An error in a line."""
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)


def _since(moment: float) -> float:
    return time.monotonic() - moment


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put back the handlers of signals, which Ray replaces as it starts."""
    ours = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
