"""Kill fits at any moment and resume them: what they leave must be, bit for bit, what an undisturbed fit leaves.

    .venv/bin/python tools/kill.py --kills 100 --minutes 40

Each case of `killable.py` is fitted once undisturbed. Then it is fitted and killed again and again, at random moments
or when a certain file appears, by SIGKILL, SIGTERM, or two SIGINTs as Ctrl-C sends them, until it is done. Where other
processes work for it, also one of them is killed, or all at once; or one is stopped when the fit is killed, and goes on
beside the resumed fit. All files that are left are compared, but for the times in them, and no process may be left.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import commands
import psutil
import torch
from commands import Command
from killable import Case, cases
from left_behind import differences

ROUND = 10
"""Kills of a case before it is the next one's turn."""
PATIENCE = 60.0
"""Seconds in which the processes of a killed command must end."""
WORKER = "SIGKILL of a worker"
ALL = "SIGKILL of all processes"
ASLEEP = "SIGKILL beside a stopped worker"
FORBIDDEN = "a folder that cannot be written to"
KINDS = ("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT", WORKER, WORKER, WORKER, ALL, ASLEEP)
"""What is done to a command; the first four also to one without workers."""


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let those in the background ignore it
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="of each case")
    parser.add_argument("--minutes", type=float, default=10.0, help="of all cases")
    parser.add_argument("--cold", type=float, default=0.1, help="share of the fits that start in a Python of their own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--keep", type=Path, help="folder for what a wrong run leaves")
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for those in a Python of their own
    chance, until = random.Random(given.seed), time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        known = cases(Path(folder))
        every = {name: case for name, case in known.items() if given.only in name}
        _fit_undisturbed(Path(folder) / "first", known["tiles-selector-evos"], chance)
        for name, case in every.items():
            _fit_undisturbed(Path(folder) / name, case, chance)
        for limit in range(ROUND, given.kills + ROUND, ROUND):
            for name, case in every.items():
                while case.kills < min(limit, given.kills) and not case.faults and time.monotonic() < until:
                    torment(Path(folder) / name, case, given.cold, chance)
                    if case.faults:
                        print(f"{name}: {'; '.join(case.faults)}", flush=True)
                        if given.keep:
                            shutil.copytree(Path(folder) / name, given.keep / name)
    for name, case in every.items():
        told = "; ".join(case.faults) or "identical"
        print(f"{name:<28} {case.kills:>5} kills, {case.cold:>3} of them cold, {case.runs:>4} runs  {told}")
    wrong = sum(len(case.faults) for case in every.values())
    print(f"{sum(case.kills for case in every.values())} kills, {wrong} faults")
    sys.exit(1 if wrong else 0)


def _fit_undisturbed(folder: Path, case: Case, chance: random.Random) -> None:
    """Fit a case, and learn by it what fits import and how long they take."""
    folder.mkdir(parents=True)
    if case.read_only and os.geteuid() == 0:
        os.chown(folder, commands.NOBODY, commands.NOBODY)
    known = folder / "modules.txt"
    for own in (True, not case.read_only):  # the second is as quick as the others will be
        start = time.monotonic()
        known.unlink(missing_ok=True)
        whole = _empty(folder / "whole")
        cache = _empty(folder / "cache") if case.empty_cache else None
        command = Command(case.command(whole, chance), folder, cache=cache, modules=known, own=own)
        if command.ended() != case.code or not case.is_done(whole):
            case.faults.append(f"an undisturbed fit fails: {command.told()}")
            return
        case.length = time.monotonic() - start
        commands.know(known.read_text().split())


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def torment(folder: Path, case: Case, cold: float, chance: random.Random) -> None:
    """Fit a case once under as many kills as it takes, and compare what it leaves."""
    out = _empty(folder / "run")
    case.runs += 1
    left: set[psutil.Process] = set()
    for _ in range(200):
        by_itself = chance.random() < cold and not case.read_only
        cache = _empty(folder / "cache") if case.empty_cache else None
        command = Command(case.command(out, chance), folder, by_itself, cache=cache, own=not case.read_only)
        killed = _killed(command, out, case, left, chance)
        code = command.ended()
        if code in (0, 1, 2):  # it ended before it was killed
            killed = [kind for kind in killed if kind in (WORKER, FORBIDDEN)]
        case.kills += len(killed)
        case.cold += by_itself * len(killed)
        # Python tells of a Ctrl-C that comes while it cleans up.
        crashed = code >= 0 and signal.SIGINT.name not in killed and "Traceback" in command.log.read_text()
        if crashed or code not in _expected(case, killed):
            case.faults.append(f"exit code {code} after {', '.join(killed) or 'no kill'}: {command.told()}")
            break
        if set(killed) <= {WORKER} and case.is_done(out):
            break
        if not killed:
            case.faults.append(f"an undisturbed command leaves it unfinished: {command.told()}")
            break
        if chance.random() < 0.5:
            case.faults += _gone(left)
    case.faults += _gone(left | set(command.workers()))
    if not case.faults:
        case.faults += differences(folder / "whole", out)


def _expected(case: Case, killed: list[str]) -> set[int]:
    """Exit codes of a command after what was done to it."""
    codes = {case.code}
    for kind in killed:
        codes |= {WORKER: {0, 1}, FORBIDDEN: {0, 1, 2, 130}}.get(kind, {-signal.SIGKILL})
        codes |= {130, -signal.SIGTERM, -signal.SIGINT} if kind in (signal.SIGTERM.name, signal.SIGINT.name) else set()
    return codes


def _killed(command: Command, out: Path, case: Case, left: set[psutil.Process], chance: random.Random) -> list[str]:
    """Kill a command, at a random moment or when a file of `out` appears or changes, maybe its workers before.

    Args:
        command: that has begun.
        out: folder that it writes to.
        case: of which it is.
        left: processes of earlier commands; those of this one are added. Some of them are stopped, and go on now.
        chance: what decides.

    Returns:
        What was done to it.
    """
    killed = []
    if command.cold and chance.random() < 0.9:  # of the seconds in which Python imports, few are worth a kill
        _wait(command, PATIENCE, partial(_changed, out, case.aims, _seen(out, case.aims)))
    if any(map(_is_stopped, left)):
        _wait(command, chance.random() * case.length)
        _wake(left)
    while True:
        seconds = chance.random() * 1.2 * case.length
        if chance.random() < 0.5:
            aim = (chance.choice(case.aims),)
            _wait(command, seconds + case.length, partial(_changed, out, aim, _seen(out, aim)))
        else:
            _wait(command, seconds)
        workers = [each for each in command.workers() if each not in left] if case.has_workers else []
        if not command.runs:
            return killed
        if case.read_only:
            return _forbidden(command, out)
        kind = chance.choice(KINDS if workers else KINDS[:4])
        if kind != WORKER:
            left.update(workers)
            return killed + _kill(command, kind, workers, chance)
        killed.append(kind)
        _send(chance.choice(workers), signal.SIGKILL)


def _kill(command: Command, kind: str, workers: list[psutil.Process], chance: random.Random) -> list[str]:
    """Kill a command that has such workers; returns what was done to it."""
    if kind == ALL:
        for each in workers:
            _send(each, signal.SIGKILL)
    if kind == ASLEEP:
        _send(chance.choice(workers), signal.SIGSTOP)
    with contextlib.suppress(ProcessLookupError):
        if kind == signal.SIGINT.name:  # which a terminal sends to all processes of the command
            os.killpg(command.pid, signal.SIGINT)
            time.sleep(chance.random() * 0.02)
            os.killpg(command.pid, signal.SIGINT)
        else:
            os.kill(command.pid, signal.SIGTERM if kind == signal.SIGTERM.name else signal.SIGKILL)
    return [kind]


def _is_stopped(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_STOPPED
    return False


def _wake(processes: Iterable[psutil.Process]) -> None:
    for each in processes:
        _send(each, signal.SIGCONT)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _gone(left: set[psutil.Process]) -> list[str]:
    """Wait until processes have ended that nothing is left of to work for; returns what is wrong with them."""
    _wake(left)
    _, alive = psutil.wait_procs(left, PATIENCE)
    for each in alive:
        _send(each, signal.SIGKILL)
    left.clear()
    return [f"process {each.pid} goes on" for each in alive]


def _forbidden(command: Command, out: Path) -> list[str]:
    """Let nobody write to a folder, if there is one, until a command has ended; returns what was done to it."""
    if not out.is_dir():
        return []
    out.chmod(0o555)
    _wait(command, math.inf)
    out.chmod(0o755)
    return [FORBIDDEN]


def _wait(command: Command, seconds: float, over: Callable[[], bool] = lambda: False) -> None:
    """Wait for some time, or until something is over or the command ends."""
    until = time.monotonic() + seconds
    while command.runs and time.monotonic() < until and not over():
        time.sleep(0.002)


def _changed(out: Path, aims: tuple[str, ...], before: object) -> bool:
    return _seen(out, aims) != before


def _seen(out: Path, aims: tuple[str, ...]) -> object:
    """What tells that a file has appeared or changed."""
    with contextlib.suppress(OSError):
        return [(path, path.stat().st_mtime_ns) for aim in aims for path in out.glob(aim)]
    return None


if __name__ == "__main__":
    main()
