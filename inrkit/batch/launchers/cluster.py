"""A Ray cluster: joining it or starting a small one, and which of its nodes live."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from inrkit.errors import ConfigError

_OBJECTS = 100 * 2**20
"""Bytes for what tasks share, which is next to nothing here; Ray asks for 75 MiB at least."""


@contextlib.contextmanager
def joined(address: str, cores: int, environment: Mapping[str, str]) -> Iterator[None]:
    """Be connected to a cluster inside the block, quietly. A process that is in a cluster already stays in it.

    Args:
        address: host:port of the cluster, or "auto"; "" starts a Ray on this machine, which ends with the block.
        cores: of the Ray that is started.
        environment: variables of the workers.

    Raises:
        ConfigError: the cluster cannot be joined, or Ray does not start.
    """
    # Ray sends no usage reports, and copies no folder to the workers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray
    from ray._private import worker as driver

    if ray.is_initialized():
        yield
        return
    where: dict[str, Any] = {"address": address}
    if address:
        _check_reachable(address)
    else:
        where = {"address": "local", "num_cpus": cores, "object_store_memory": _OBJECTS, "include_dashboard": False}
    with contextlib.ExitStack() as leaving:
        leaving.callback(ray.shutdown)
        try:
            with _signal_handlers_kept():
                ray.init(
                    **where,
                    runtime_env={"env_vars": dict(environment)},
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except Exception as error:
            what = f"launcher.address={address} cannot be joined" if address else "Ray does not start here"
            raise ConfigError(f"{what}: {first_line(error)}; see `ray status`, or use launcher=local") from error
        # Ray's own lines about nodes and workers that died repeat what outcomes say.
        leaving.callback(setattr, driver, "_worker_logs_enabled", driver._worker_logs_enabled)
        driver._worker_logs_enabled = False
        yield


def node_resources() -> list[dict[str, float]]:
    """The resources of each node that lives."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def node_lives(node: str) -> bool:
    """Whether a node still lives after one of its workers has died.

    A dying node may take a moment, and Ray may take minutes to notice. So the node is asked for about two seconds.

    Args:
        node: its id; "" where the worker died before it could say it, and the node counts as alive.
    """
    import ray

    for _ in range(10):
        known = next((each for each in ray.nodes() if each["NodeID"] == node), None)
        if known is None:
            return True
        if not known["Alive"]:
            return False
        try:
            socket.create_connection((known["NodeManagerAddress"], known["NodeManagerPort"]), timeout=1).close()
        except OSError:
            return False
        time.sleep(0.2)
    return True


def first_line(error: BaseException) -> str:
    """The first line of an error that says something."""
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)


def _check_reachable(address: str) -> None:
    """Raise a `ConfigError` if nobody listens at host:port; Ray would take a minute to find out."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"launcher.address={address} cannot be reached: {error}; give the host:port that `ray start` printed"
        ) from error


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Put back the handlers of signals, which Ray replaces as it starts."""
    ours = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
