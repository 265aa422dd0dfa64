"""Kill fits at any moment and resume them: what they leave must be, bit for bit, what an undisturbed fit leaves.

    .venv/bin/python tools/kill.py --kills 100 --minutes 10

Each case is fitted once undisturbed. Then it is fitted and killed again and again, at random moments or when a certain
file appears, by SIGKILL, SIGTERM or two SIGINTs, until it is done. The weights, the history without its times, the
reconstruction and the names of the files are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

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
TOGETHER = 3
"""Fits that train as one stacked computation."""
AIMS = ("config.yaml", "checkpoint.pt", "metrics.jsonl", "field.safetensors", "result.json", "reconstruction.*", ".*-*")
"""Files at whose appearance a fit is killed; the last are those that are still being written."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="of each case")
    parser.add_argument("--minutes", type=float, default=10.0, help="of all cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose names hold this")
    given = parser.parse_args()
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * given.minutes
    survived, wrong = 0, []
    with tempfile.TemporaryDirectory() as folder:
        every = {name: case for name, case in cases(Path(folder)).items() if given.only in name}
        for name, case in every.items():
            kills, faults = torment(Path(folder) / name, case, given.kills, random.Random(given.seed), until)
            survived += kills
            wrong += [f"{name}: {fault}" for fault in faults]
            print(f"{name:<28} {kills:>5} kills  {'; '.join(faults) or 'identical'}", flush=True)
            if time.monotonic() > until:
                break
    print(f"{survived} kills, {len(wrong)} faults")
    sys.exit(1 if wrong else 0)


def cases(folder: Path) -> dict[str, list[str]]:
    """Requests by name: every selector and every modality that makes a sample, with one network and with tiles; fits
    that train together; a compiled network; and recovery."""
    signals = {}
    for name in MODALITIES.names():
        with contextlib.suppress(ValueError):  # one whose library is missing
            signals[name] = _sample(folder, name)
    picture = str(signals["image"])
    names, others = SELECTORS.names(), {name: path for name, path in signals.items() if name != "image"}
    found = {f"selector-{name}": [picture, *SINGLE, f"selector={name}", "objective=mse"] for name in names}
    found |= {f"tiles-selector-{name}": [picture, *TILES, f"selector={name}"] for name in names}
    found |= {f"modality-{name}": [str(path), *SINGLE] for name, path in others.items()}
    found |= {f"tiles-modality-{name}": [str(path), *TILES] for name, path in others.items()}
    found |= {
        f"together-{name}": [_TOGETHER, picture, *SINGLE, f"selector={name}", "objective=mse", "optimizer=adam"]
        for name in ("full", "uniform", "evos", "soft-mining")
    }
    found["compiled"] = [picture, *SINGLE, "train.compile=always"]
    found["recover"] = [picture, *SINGLE, "train.on_divergence=recover"]
    found["tiles-recover"] = [picture, *TILES, "train.on_divergence=recover"]
    found["soap"] = [picture, *SINGLE, "optimizer=soap"]
    return found


_TOGETHER = "together"
"""The first word of a request for several fits as one."""
_SUFFIXES = {"image": ".png", "audio": ".wav", "shape": ".obj", "volume": ".npy", "video": ".gif", "array": ".csv"}


def _sample(folder: Path, modality: str) -> Path:
    path = folder / f"{modality}{_SUFFIXES[modality]}"
    if _child(["sample", modality, str(path)], folder / "log.txt")() or not path.exists():
        raise ValueError(modality)
    return path


def torment(folder: Path, words: list[str], kills: int, chance: random.Random, until: float) -> tuple[int, list[str]]:
    """Fit undisturbed, then under so many kills; returns how many it took and what went wrong."""
    folder.mkdir(parents=True)
    whole, log = folder / "whole", folder / "log.txt"
    together = words[0] == _TOGETHER
    request = [*words, *QUICK] if together else ["fit", *words, *QUICK, "--quiet"]
    start = time.monotonic()
    if _child([*request, "--out", str(whole)], log)():
        return 0, [f"an undisturbed fit fails: {log.read_text()[-300:]}"]
    length = time.monotonic() - start
    done, faults, number = 0, [], 0
    while done < kills and time.monotonic() < until and not faults:
        number += 1
        out = folder / f"run-{number}"
        for _ in range(200):
            begun = (out / "config.yaml").exists() and not together
            again = ["fit", str(out), "--resume", "--quiet"] if begun else [*request, "--out", str(out)]
            killed, code = _killed(again, out, log, length, chance)
            done += killed
            if not killed:
                if code not in (0, 130):
                    faults.append(f"exit code {code}: {log.read_text()[-300:]}")
                    break
                if all(json.loads((run / "result.json").read_text())["status"] == "done" for run in _runs(out)):
                    break
        for run in [] if faults else _runs(out):
            faults += differences(whole / run.relative_to(out), run)
        if not faults:
            shutil.rmtree(out)
    return done, faults


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


def _killed(words: list[str], out: Path, log: Path, length: float, chance: random.Random) -> tuple[bool, int]:
    """Run a command and kill it, at a random moment or when a file of `out` appears or changes."""
    wait = _child(words, log)
    process: int = wait.process  # type: ignore[attr-defined]
    aim = chance.choice(AIMS) if chance.random() < 0.5 else None
    moment = time.monotonic() + chance.random() * 1.2 * length
    before = _seen(out, aim)
    while time.monotonic() < moment or (aim and _seen(out, aim) == before and time.monotonic() < moment + length):
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        if aim and _seen(out, aim) != before:
            break
        time.sleep(0.002)
    kind = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, kind)
        if kind == signal.SIGINT:
            time.sleep(chance.random() * 0.02)
            os.kill(process, kind)
    code = wait()
    return code not in (0, 1, 2), code


def _seen(out: Path, aim: str | None) -> object:
    """What tells that a file has appeared or changed."""
    with contextlib.suppress(OSError):
        folder = out if (out / "config.yaml").exists() else out / "0"
        return [(path.name, path.stat().st_mtime_ns) for path in folder.glob(aim or "config.yaml")]
    return None


def _child(words: list[str], log: Path) -> Callable[[], int]:
    """Run the command line, or fits together, in a fork of this process, which has loaded everything; a call waits for
    its exit code."""
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(number, 1)
        os.dup2(number, 2)
        sys.argv = ["inrkit", *words]
        try:
            if words[0] == _TOGETHER:
                sys.exit(_fit_together(words[1:]))
            inrkit.cli.main()
        except SystemExit as end:
            os._exit(int(end.code or 0))
        except BaseException:
            os._exit(99)
        os._exit(98)

    def wait() -> int:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    wait.process = process  # type: ignore[attr-defined]
    return wait


def differences(whole: Path, other: Path) -> list[str]:
    """In what a run's files differ from those of an undisturbed one."""
    names = [sorted(path.name for path in folder.iterdir()) for folder in (whole, other)]
    found = [] if names[0] == names[1] else [f"files {names[1]} in place of {names[0]}"]
    for path in whole.iterdir():
        if path.name in ("config.yaml", "field.safetensors") or path.name.startswith("reconstruction"):
            same = (other / path.name).exists() and path.read_bytes() == (other / path.name).read_bytes()
            found += [] if same else [f"{path.name} differs"]
    rows = [
        [{**json.loads(line), "seconds": 0} for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole, other)
    ]
    return found if rows[0] == rows[1] else [*found, "metrics.jsonl differs"]


if __name__ == "__main__":
    main()
