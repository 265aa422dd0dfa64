"""What a worker does with a task, the same under every launcher."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import faulthandler
import functools
import io
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inrkit.config import Config, resolve
from inrkit.device import choose_device, give_back_freed_memory, keep_freed_memory
from inrkit.errors import DataError, InrkitError, StaleCheckpoint, in_one_line
from inrkit.files import LOCK, allow_open_files
from inrkit.runs.execute import execute, execute_together
from inrkit.runs.regions import Until, open_region
from inrkit.runs.run import Run
from inrkit.signals.signal import Signal

LOG = "log.txt"
_PATIENCE = 60.0
"""Seconds that a run is waited for which another process has: a worker whose study was killed ends at once, unless the
machine has no time for it."""


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """Fit what a task asks for.

    It never raises: an error is returned, since not every exception can be sent between processes. All that is printed
    goes to log.txt in the run's folder. A run that is done is left as it is. One that was interrupted goes on from its
    checkpoint. One that failed by an error of its own starts over. A region of a signal stops at its share of the
    training, and is interrupted then.

    Args:
        task: the fields of a `Task`.

    Returns:
        `status`, "done", "failed" or "interrupted", and `error`, one line or None. Where jobs train together, also
        `each`: status and error of every job, by identity.
    """
    keep_freed_memory()
    try:
        return _perform_together([task, *task["beside"]]) if task["beside"] else _perform_alone(task)
    finally:
        give_back_freed_memory()


def _perform_alone(task: dict[str, Any]) -> dict[str, Any]:
    """Fit what a task asks for that trains with no other; returns as `perform`."""
    run = Run(task["folder"])
    left = was_left(run)
    try:
        with _taken(run):
            if task["region"] is not None or not _is_whole(task, run, left):
                _fit(task, run)
            return {"status": run.result["status"], "error": None}
    except KeyboardInterrupt:
        return {"status": "interrupted", "error": None}
    except BaseException as error:
        return {"status": "failed", "error": _one_line(error)}


def _fit(task: dict[str, Any], run: Run) -> None:
    """Fit what a task asks for in the folder of its run."""
    region = task["region"]
    with _captured(run.folder / LOG):
        try:
            config, resume = _prepare(task, run)
            signal = None if region is None else _signal_of(region)
            listeners = [] if region is None else [Until(region["share"])]
            execute(config, run, dataset=signal, resume=resume, quiet=False, interruptible=True, listeners=listeners)
        except BaseException as error:
            traceback.print_exc()
            _drop_stale_checkpoint(run, error)
            raise


def _perform_together(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit what several tasks ask for, as one stacked computation where they are of a kind; returns as `perform`."""
    allow_open_files(len(tasks))  # each run's folder is locked by one
    each: dict[str, dict[str, Any]] = {task["id"]: {"status": "interrupted", "error": None} for task in tasks}
    try:
        with contextlib.ExitStack() as taken:
            return _fit_together(tasks, each, taken)
    except KeyboardInterrupt:
        return {"status": "interrupted", "error": None, "each": each}


def _fit_together(
    tasks: list[dict[str, Any]], each: dict[str, dict[str, Any]], taken: contextlib.ExitStack
) -> dict[str, Any]:
    """As `_perform_together`, with the folders of the runs taken until a context ends.

    Raises:
        KeyboardInterrupt: a signal ends them at once; `each` tells of those that have ended.
    """
    fits: dict[str, tuple[Config, Run, bool]] = {}
    for task in tasks:
        run = Run(task["folder"])
        left = was_left(run)
        try:
            taken.enter_context(_taken(run))
            if _is_whole(task, run, left):
                each[task["id"]] = {"status": "done", "error": None}
                continue
            config, resume = _prepare(task, run)
            fits[task["id"]] = config, run, resume
        except Exception as error:
            each[task["id"]] = _failed(run, error)
    try:
        with _captured(Path(tasks[0]["folder"]) / LOG):
            ended = execute_together(
                [(config, run) for config, run, _ in fits.values()],
                resume=[resume for *_, resume in fits.values()],
                interruptible=True,
            )
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # of the whole: tried alone, the job to blame will show
        return {"status": "failed", "error": _one_line(error)}
    failures = [outcome for outcome in ended if isinstance(outcome, Exception)]
    if len({id(failure.__cause__ or failure) for failure in failures}) < len(failures):  # several share one error
        return {"status": "failed", "error": _one_line(failures[0])}
    for (identity, (_, run, _)), outcome in zip(fits.items(), ended, strict=True):
        status = {"status": run.result.get("status"), "error": None}
        each[identity] = _failed(run, outcome) if isinstance(outcome, Exception) else status
    return {**each[tasks[0]["id"]], "each": each}


def was_left(run: Run) -> bool:
    """Whether a process was killed or cut short that worked in a run's folder, or is at work there. What shows a result
    that is done, such as its page, may be missing then."""
    return (run.folder / LOCK).exists()


def _is_whole(task: dict[str, Any], run: Run, left: bool) -> bool:
    """Whether nothing is left to do for a task.

    Args:
        task: to be done.
        run: of the task.
        left: whether a process was killed that worked on it.
    """
    if result_of(run).get("status") != "done":
        return False
    return not left or not _resumable(run, _config_of(task).general.device)


def _taken(run: Run) -> contextlib.AbstractContextManager[None]:
    """Keep other processes out of a run's folder, made if there is none.

    Raises:
        RunError: another one is at work in it, and stays.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    return run.locked(_PATIENCE)


def _signal_of(region: dict[str, Any]) -> Signal:
    """What a region of a signal is fitted to."""
    return open_region(resolve([region["config"]]), Path(region["folder"]), region["number"])


def _prepare(task: dict[str, Any], run: Run) -> tuple[Config, bool]:
    """The config of a task, and whether its run goes on from a checkpoint; if not, the run's folder is cleared."""
    config = _config_of(task)
    # A region is part of a long fit, which goes on as it can; a job of a study is to be what one device computes.
    resume = _resumable(run, None if task["region"] else config.general.device)
    if not resume:
        _clear(run)
    return config, resume


def _config_of(task: dict[str, Any]) -> Config:
    """The config of a task. Resolving takes long, and the configs of thousands of files differ in little but the file:
    what they have in common is resolved once."""
    given = task["config"]
    common = json.dumps({**given, "data": {**given["data"], "path": ""}})
    config = copy.deepcopy(_resolved(common))
    return dataclasses.replace(config, data=dataclasses.replace(config.data, path=given["data"]["path"]))


@functools.lru_cache(maxsize=64)
def _resolved(config: str) -> Config:
    return resolve([json.loads(config)])


def _failed(run: Run, error: Exception) -> dict[str, Any]:
    """Write the error of a job to its own log."""
    with contextlib.suppress(OSError), _Log(run.folder / LOG) as log:
        traceback.print_exception(error, file=log)
    _drop_stale_checkpoint(run, error)
    return {"status": "failed", "error": _one_line(error)}


def _drop_stale_checkpoint(run: Run, error: BaseException) -> None:
    """Remove a checkpoint that no longer fits, as after a change of code. The next attempt starts over."""
    if isinstance(error, StaleCheckpoint):
        (run.folder / "checkpoint.pt").unlink(missing_ok=True)


def result_of(run: Run) -> dict[str, Any]:
    """The result of an earlier attempt; empty if its result.json is damaged, so that the fit is made again."""
    try:
        return run.result
    except DataError:
        return {}


def _one_line(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, InrkitError):
        return lines[0]
    return in_one_line(f"{type(error).__name__}: {lines[0]}" if lines[0] else type(error).__name__)


def _resumable(run: Run, device: str | None) -> bool:
    """Whether the folder holds a checkpoint to go on from, of this device unless it is None; a failed fit is not worth
    going on with."""
    if result_of(run).get("status") == "failed":
        return False
    try:
        before = run.read_checkpoint().get("device") if run.exists else None
        return before is not None and (device is None or before == choose_device(device).type)
    except DataError:
        return False


def _clear(run: Run) -> None:
    """Remove what an earlier attempt left, except its log; the folder stays this process's."""
    for path in run.folder.iterdir():
        if path.name in (LOG, LOCK):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


class _Log(io.TextIOWrapper):
    """A text file that is added to. What a full disk does not take is left out: no fit ends by its log."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("ab", buffering=0), "utf-8", "backslashreplace", write_through=True)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


@contextlib.contextmanager
def _captured(path: Path) -> Iterator[None]:
    """Append all that the process prints to a file, including what C libraries print."""
    with _Log(path) as log:
        print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}", file=log)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        kept = [os.dup(number) for number in (1, 2)]
        # A crash in C prints its place, unless faulthandler writes elsewhere already.
        ours = not faulthandler.is_enabled()
        try:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
            if ours:
                faulthandler.enable(log)
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                yield
        finally:
            if ours:
                faulthandler.disable()
            for number, descriptor in zip((1, 2), kept, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
