"""The worker's side of the launchers: what a process does before, beside and around `perform`."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from inrkit.batch.job import perform

TOO_MUCH_MEMORY = 77
"""Exit code of a worker that took more memory than its job may."""

_NOTE_PATIENCE = 10.0
"""Seconds that a worker tries to say why it ends itself."""


def thread_variables(threads: int) -> dict[str, str]:
    """The environment in which a worker computes with so many threads; libraries read it when they are loaded."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))


def memory_error(memory: float) -> str:
    """What is said of a job that took more than `memory` GiB."""
    return f"took more than job.memory={memory:g} GiB and was killed"


def begin_locally(slots: str, workers: int, gpus: list[str], memory: float) -> None:
    """Prepare a process of this machine: away from the terminal, with a GPU of its own, ending with its parent.

    Args:
        slots: folder in which workers claim their numbers.
        workers: how many there are.
        gpus: as CUDA_VISIBLE_DEVICES names them; none on a machine without.
        memory: GiB that the process may take; 0 for no limit.
    """
    os.setsid()
    gc.freeze()  # what is imported stays, and need not be looked at after every job
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _watch_memory(memory)
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[_claim(slots, workers) % len(gpus)]


def perform_on_node(task: dict[str, Any], notes: Any, memory: float) -> dict[str, Any]:
    """Perform a task on a node of a Ray cluster.

    Args:
        task: the fields of a `Task`.
        notes: queue for the notes of this process: that it has started, and why it ends itself.
        memory: GiB that the process may take; 0 for no limit.
    """
    import ray

    context = ray.get_runtime_context()
    notes.put({"id": task["id"], "node": context.get_node_id()})
    runs = Path(task["folder"]).parent
    if not runs.is_dir():
        node = socket.gethostname()
        return {"status": "failed", "error": f"{runs} is not on {node}; give an --out that all nodes share"}

    def explain() -> None:
        with contextlib.suppress(Exception):  # it ends whether or not it can say why
            notes.put({"id": task["id"], "reason": memory_error(memory)}, timeout=_NOTE_PATIENCE)

    ended = _watch_memory(memory, explain)
    try:
        return perform(task)
    finally:
        ended.set()


def _watch_memory(memory: float, explain: Callable[[], None] = lambda: None) -> threading.Event:
    """From now on, end this process at once when it takes too much memory.

    Args:
        memory: GiB that it may take; 0 for no limit.
        explain: called before the process ends.

    Returns:
        An event. Once it is set, the watch is over.
    """
    over = threading.Event()

    def watch() -> None:
        process = psutil.Process()
        while not over.wait(0.5):
            if process.memory_info().rss > memory * 2**30:
                explain()
                os._exit(TOO_MUCH_MEMORY)

    if memory:
        threading.Thread(target=watch, daemon=True).start()
    return over


def _end_with_parent() -> None:
    """End this process at once when its parent has gone, however the parent ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


_claimed: list[FileLock] = []
"""Held until the process ends; then the next worker can have the slot."""


def _claim(slots: str, workers: int) -> int:
    """A number below `workers` that no other living worker has."""
    while True:
        for number in range(workers):
            lock = FileLock(Path(slots) / str(number))
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                _claimed.append(lock)
                return number
        time.sleep(0.1)
