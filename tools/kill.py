"""Kill fits at any moment and resume them: what they leave must be, bit for bit, what an undisturbed fit leaves.

    .venv/bin/python tools/kill.py --kills 100 --minutes 40

Each case is fitted once undisturbed. Then it is fitted and killed again and again, at random moments or when a certain
file appears, by SIGKILL, SIGTERM, or two SIGINTs as Ctrl-C sends them, until it is done. All files that it leaves are
compared, but for the times in them.

A fit runs in a fork of this process, which has imported all that fits import, so that a kill takes half a second. Such
a fit differs from a real one in how it starts; so a share of them, `--cold`, are commands in a Python of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import small_files
import torch

import inrkit.cli
from inrkit.config import parse_overrides
from inrkit.runs.execute import execute_together
from inrkit.runs.request import prepare
from inrkit.selectors import SELECTORS
from inrkit.signals.modality import MODALITIES

QUICK = [
    "train.steps=40",
    "log.every=10",
    "checkpoint.seconds=0.02",
    "train.compile=never",
    "train.precision=float32",
    "train.chunk=512",
]
SINGLE = ["network=siren", "network.hidden_features=16", "network.hidden_layers=1"]
TILES = ["network=tiles", "network.each={name: siren, hidden_features: 8}", "optimizer=adam", "objective=mse"]
SHAPE = ["modality.count=600", "modality.resolution=10", "modality.resample_every=7", "modality.export_resolution=10"]
"""What makes a mesh small; its points are drawn anew during the training."""
TOGETHER = 3
"""Fits that train as one stacked computation."""
AIMS = ("config.yaml", "checkpoint.pt", "metrics.jsonl", "field.safetensors", "result.json", "reconstruction.*", ".*-*")
"""Files at whose appearance a fit is killed; the last are those that are still being written."""
NOBODY = 65534
"""The user of fits that are not root's."""
ROUND = 10
"""Kills of a case before it is the next one's turn."""
_TOGETHER = "together"
"""The first word of a request for several fits as one."""


@dataclass
class Case:
    """What is fitted and killed, and how that went so far.

    Attributes:
        words: of the command line.
        empty_cache: whether the machine code of tiles is compiled anew each time.
        read_only: whether the run's folder cannot be written to from a moment on, in place of a kill. The fits are then
            somebody's who is not root, to whom nothing is forbidden.
        length: seconds of the undisturbed fit.
        kills: it survived, of which so many were `cold`.
        runs: that were killed, resumed and compared.
    """

    words: list[str]
    empty_cache: bool = False
    read_only: bool = False
    length: float = 0.0
    kills: int = 0
    cold: int = 0
    runs: int = 0
    faults: list[str] = field(default_factory=list)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let those in the background ignore it
    if sys.argv[1:2] == [_TOGETHER]:
        try:
            sys.exit(_fit_together(sys.argv[2:]))
        except KeyboardInterrupt:
            sys.exit(130)
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
        every = {name: case for name, case in cases(Path(folder)).items() if given.only in name}
        for name, case in every.items():
            _fit_undisturbed(Path(folder) / name, case)
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


def cases(folder: Path) -> dict[str, Case]:
    """Cases by name: every selector and every modality, with one network and with tiles; every modality's preset; fits
    that train together; a compiled network; recovery; optimizers with states of their own; a film; tiles' first use."""
    signals = {}
    for name in MODALITIES.names():
        signals[name] = folder / f"{name}{small_files.USUAL[name]}"
        small_files.write(name, signals[name])
    picture = str(signals["image"])
    each = {name: [str(path), *(SHAPE if name == "shape" else [])] for name, path in signals.items()}
    others = {name: words for name, words in each.items() if name != "image"}
    names = SELECTORS.names()
    found = {f"selector-{name}": [picture, *SINGLE, f"selector={name}", "objective=mse"] for name in names}
    found |= {f"tiles-selector-{name}": [picture, *TILES, f"selector={name}"] for name in names}
    found |= {f"modality-{name}": [*words, *SINGLE] for name, words in others.items()}
    found |= {f"tiles-modality-{name}": [*words, *TILES] for name, words in others.items()}
    found |= {f"preset-{name}": words for name, words in each.items()}
    found |= {
        f"together-{name}": [_TOGETHER, picture, *SINGLE, f"selector={name}", "objective=mse", "optimizer=adam"]
        for name in ("full", "uniform", "evos", "soft-mining")
    }
    found |= {f"optimizer-{name}": [picture, *SINGLE, f"optimizer={name}"] for name in ("muon", "soap")}
    found["optimizer-lbfgs"] = [picture, *SINGLE, "optimizer=lbfgs", "selector=full", "objective=mse"]
    found["compiled"] = [picture, *SINGLE, "train.compile=always"]
    found["recover"] = [picture, *SINGLE, "train.on_divergence=recover"]
    found["tiles-recover"] = [picture, *TILES, "train.on_divergence=recover"]
    found["film"] = [picture, *SINGLE, "log.film=gif"]
    every = {name: Case(words) for name, words in found.items()}
    every["tiles-first-use"] = Case([picture, *TILES], empty_cache=True)
    every["read-only"] = Case(found["selector-evos"], read_only=True)
    return every


def _fit_undisturbed(folder: Path, case: Case) -> None:
    """Fit a case, and learn by it what fits import and how long they take."""
    folder.mkdir(parents=True)
    if case.read_only and os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    known = folder / "modules.txt"
    for own in (True, not case.read_only):  # the second is as quick as the others will be
        start = time.monotonic()
        shutil.rmtree(folder / "whole", ignore_errors=True)
        known.unlink(missing_ok=True)
        cache = _empty(folder / "cache") if case.empty_cache else None
        process = _begun(_request(case, folder / "whole"), folder, cache=cache, modules=known, own=own)
        if _ended(process):
            case.faults.append(f"an undisturbed fit fails: {_told(folder)}")
            return
        case.length = time.monotonic() - start
        for name in known.read_text().split():
            with contextlib.suppress(Exception):  # a part of a package that only it can import
                importlib.import_module(name)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _request(case: Case, out: Path) -> list[str]:
    words = [*case.words, *QUICK]
    return [*words, "--out", str(out)] if words[0] == _TOGETHER else ["fit", *words, "--quiet", "--out", str(out)]


def torment(folder: Path, case: Case, cold: float, chance: random.Random) -> None:
    """Fit a case once under as many kills as it takes, and compare what it leaves."""
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    case.runs += 1
    for _ in range(200):
        begun = (out / "config.yaml").exists() and case.words[0] != _TOGETHER
        words = ["fit", str(out), "--resume", "--quiet"] if begun else _request(case, out)
        by_itself = chance.random() < cold and not case.read_only
        killed, code = _killed(words, out, folder, case, by_itself, chance)
        case.kills += killed
        case.cold += killed and by_itself
        if not killed:
            if code not in ((0, 1, 2, 130) if case.read_only else (0, 130)):
                case.faults.append(f"exit code {code}: {_told(folder)}")
                return
            if all(_is_done(run) for run in _runs(out)):
                break
    for run in _runs(out):
        case.faults += differences(folder / "whole" / run.relative_to(out), run)


def _is_done(run: Path) -> bool:
    path = run / "result.json"
    return path.exists() and json.loads(path.read_text())["status"] == "done"


def _told(folder: Path) -> str:
    return (folder / "log.txt").read_text()[-300:]


def _runs(out: Path) -> list[Path]:
    """The folders of what a request fits."""
    return [out] if (out / "config.yaml").exists() else sorted(path for path in out.iterdir() if path.is_dir())


def _fit_together(words: list[str]) -> int:
    """Fit a signal with several seeds as one computation, or go on with it; returns an exit code.

    Args:
        words: the signal, keys, `--out` and a folder.
    """
    path, *overrides, _, out = words
    fits, begun = [], []
    for seed in range(TOGETHER):
        folder = Path(out) / str(seed)
        begun.append((folder / "config.yaml").exists())
        layers = [] if begun[-1] else [parse_overrides([*overrides, f"seed={seed}"])]
        target = str(folder) if begun[-1] else path
        fits.append(prepare(target, out=None if begun[-1] else folder, resume=begun[-1], layers=layers))
    ended = execute_together(fits, resume=begun, interruptible=True)
    for outcome in ended:
        if isinstance(outcome, Exception):
            print(f"{type(outcome).__name__}: {outcome}")
            return 1
    return 0 if all(run.result["status"] == "done" for _, run in fits) else 130


def _killed(
    words: list[str], out: Path, folder: Path, case: Case, cold: bool, chance: random.Random
) -> tuple[bool, int]:
    """Run a command and kill it, at a random moment or when a file of `out` appears or changes."""
    aim = chance.choice(AIMS) if chance.random() < 0.5 else None
    aimed, begun = _seen(out, aim), _seen(out, "*")
    cache = _empty(folder / "cache") if case.empty_cache else None
    process = _begun(words, folder, cold=cold, cache=cache, own=not case.read_only)
    if cold and chance.random() < 0.9:  # of the seconds in which Python imports, few are worth a kill
        while _runs_on(process) and _seen(out, "*") == begun:
            time.sleep(0.002)
    moment = time.monotonic() + chance.random() * 1.2 * case.length
    while _runs_on(process) and time.monotonic() < moment + (case.length if aim else 0):
        if aim and _seen(out, aim) != aimed:
            break
        time.sleep(0.002)
    if case.read_only:
        return _forbidden(process, out), _ended(process)
    kind = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    with contextlib.suppress(ProcessLookupError):
        if kind == signal.SIGINT:  # which a terminal sends to all processes of the command
            os.killpg(process, kind)
            time.sleep(chance.random() * 0.02)
            os.killpg(process, kind)
        else:
            os.kill(process, kind)
    code = _ended(process)
    return code not in (0, 1, 2), code


def _forbidden(process: int, out: Path) -> bool:
    """Let nobody write to a folder until a process has ended; False if there is no folder, or it had ended before."""
    if not out.is_dir() or not _runs_on(process):
        return False
    out.chmod(0o555)
    while _runs_on(process):
        time.sleep(0.002)
    out.chmod(0o755)
    return True


def _seen(out: Path, aim: str | None) -> object:
    """What tells that a file has appeared or changed."""
    with contextlib.suppress(OSError):
        folder = out / "0" if (out / "0").exists() else out
        return [(path.name, path.stat().st_mtime_ns) for path in folder.glob(aim or "config.yaml")]
    return None


def _begun(
    words: list[str],
    folder: Path,
    cold: bool = False,
    cache: Path | None = None,
    modules: Path | None = None,
    own: bool = True,
) -> int:
    """Begin a command in a process group of its own; its words go to `log.txt` in `folder`.

    Args:
        words: of the command line, or of fits together.
        folder: of the case.
        cold: whether it runs in a Python of its own, not in a fork of this process.
        cache: folder for compiled code, if not the user's.
        modules: file for the names of all modules that it has imported in the end.
        own: whether it keeps this process's user, if that is root.

    Returns:
        The process.
    """
    environment = {**os.environ, **({"XDG_CACHE_HOME": str(cache)} if cache else {})}
    with (folder / "log.txt").open("w") as log:
        if cold:
            program = [__file__] if words[0] == _TOGETHER else ["-m", "inrkit"]
            command = [sys.executable, *program, *words]
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment, process_group=0).pid
        process = os.fork()
        if process:
            with contextlib.suppress(OSError):
                os.setpgid(process, process)  # by both: whoever comes first
            return process
        code = 98
        try:
            os.setpgid(0, 0)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            os.environ.update(environment)
            sys.argv = ["inrkit", *words]
            if not own and os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = tempfile.tempdir = str(folder)
            sys.exit(_fit_together(words[1:]) if words[0] == _TOGETHER else inrkit.cli.main())
        except SystemExit as end:
            code = int(end.code or 0)
            if modules:
                modules.write_text("\n".join(sys.modules))
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            code = 99
        finally:
            os._exit(code)


def _runs_on(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _ended(process: int) -> int:
    """Wait for a process; returns its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


OF_THE_WAY = ("seconds", "elapsed", "first", "unscheduled")
"""Entries that may differ between two runs of one fit: times, and which evaluation an interruption brought about."""
_SHOWN = {"report.html", "trace.npz", "film.gif"}
"""Files that tell of the way to the result: of times, and of what the last process saw of the training."""


def differences(whole: Path, other: Path) -> list[str]:
    """In what a run's files differ from those of an undisturbed one."""
    names = [{path.name for path in folder.iterdir()} for folder in (whole, other)]
    found = [] if names[0] == names[1] else [f"files {sorted(names[1])} in place of {sorted(names[0])}"]
    for name in sorted(names[0] & names[1] - _SHOWN):
        if _content(whole / name) != _content(other / name):
            found.append(f"{name} differs")
    return found


def _content(path: Path) -> Any:
    """What a file says, without times."""
    if path.suffix == ".pt":
        return _timeless(torch.load(path, weights_only=True))
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    """Nested plain containers without the entries of times, tensors as their bits."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: _timeless(entry) for key, entry in value.items() if key not in OF_THE_WAY}
    if isinstance(value, list | tuple):
        return [_timeless(entry) for entry in value]
    return value


if __name__ == "__main__":
    main()
