"""Change files at random and read them: every reader must read or refuse them, in bounded memory and time.

    .venv/bin/python tools/fuzz.py --minutes 60

Ctrl-C ends it before, with what it has found so far. Inputs are small valid files of every kind that is read
(`small_files.py`), and what inrkit itself reads back: fields, checkpoints, configs, studies, metrics, results.
`mutations.py` changes them. A signal is read as a fit reads it; what is read is written again, as a fit would at its
end. Whatever raises anything but an error of inrkit is kept.

An input that runs a line of the readers that none has run before is changed further. Inputs are read by a fork of this
process, many of them by one; the fork ends with the first that needs much memory or that kills it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import pickle
import random
import resource
import select
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import mutations
import numpy as np
import small_files
import torch

import inrkit
from inrkit.batch import pack, read_study
from inrkit.batch.results import Results
from inrkit.config import parse_overrides, read_yaml, resolve
from inrkit.config.schema import SLOTS
from inrkit.errors import ConfigError, InrkitError
from inrkit.files import to_json
from inrkit.reports.run_page import run_page
from inrkit.reports.study_page import study_page
from inrkit.runs.build import read_signal
from inrkit.runs.run import Run
from inrkit.signals.digest import digest

TURN = 4.0
"""Seconds of the processor for a kind of input before it is the next one's turn."""
SHARE = 0.1
"""Of a processor, that a fork has at least; one that has not ended by then waits for something."""
OFTEN = 2000
"""Inputs that one fork reads at most: libraries leak."""
GROWTH = 256 << 10
"""KiB by which a fork may grow before it ends, so that the next large input is seen to be large."""
WATCHED = ("/inrkit/", "/modalities/", "/nibabel/", "/tifffile/", "/trimesh/")
"""Of files whose lines count as new ground."""
WRITTEN = 1 << 16
"""Values of a signal up to which it is also written."""
SHAPE = {"count": 600, "resolution": 10}


@dataclass
class Kind:
    """A kind of input, and how it went so far.

    Attributes:
        name: what reads it, and the file's name.
        path: where its inputs are put, maybe with other files beside them.
        reader: reads the file.
        corpus: inputs that are changed further; the first is valid.
        lines: that they have run.
        faults: what went wrong, by its description, with the input.
        seconds: of the processor.
    """

    name: str
    path: Path
    reader: Callable[[Path], object]
    corpus: list[bytes]
    lines: set[tuple[str, int]] = field(default_factory=set)
    faults: dict[str, bytes] = field(default_factory=dict)
    tried: int = 0
    read: int = 0
    seconds: float = 0.0
    turns: int = 0


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let those in the background ignore it
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="of the processor, of all kinds of input together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="inputs whose names hold this")
    parser.add_argument("--keep", type=Path, default=Path("fuzzed"), help="folder for the inputs that find a fault")
    parser.add_argument("--memory", type=float, default=1.5, help="GiB that reading may take")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the processor that reading may take")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    left = 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        every = [kind for kind in kinds(Path(folder)) if given.only in kind.name]
        print(f"{len(every)} kinds of input", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while left > 0 and every:
                kind = min(every, key=lambda each: each.seconds)
                known = set(kind.faults)
                left -= turn(kind, min(TURN, left), given.seed, given.memory, given.seconds)
                for fault in kind.faults.keys() - known:
                    given.keep.mkdir(exist_ok=True, parents=True)
                    number = len(list(given.keep.iterdir())) + 1
                    (given.keep / f"{number}-{kind.path.name}").write_bytes(kind.faults[fault])
                    print(f"{kind.name}: {fault}", flush=True)
    for kind in every:
        told = f"{kind.tried:>7} inputs, {kind.read:>6} read, {len(kind.corpus):>4} with new lines"
        print(f"{kind.name:<24} {told}, {kind.seconds / 60:5.1f} min, {len(kind.faults)} faults")
    faults = sum(len(kind.faults) for kind in every)
    tried, read = sum(kind.tried for kind in every), sum(kind.read for kind in every)
    print(f"{tried} inputs, {read} of them read, {faults} faults")
    sys.exit(1 if faults else 0)


def kinds(folder: Path) -> list[Kind]:
    """All kinds of input, each with a folder of its own."""
    found = []
    for modality, suffix in small_files.suffixes():
        place = folder / f"{modality}{suffix}"
        place.mkdir()
        path = place / f"signal{suffix}"
        if _written(modality, path):
            found.append(Kind(f"{modality} {suffix}", path, _signal_reader(modality, path), [path.read_bytes()]))
    run = _fitted(folder / "run")
    inrkit.compress(run, run.folder / "field.inr", size=20_000)
    own: dict[str, Callable[[Path], object]] = {
        "field.safetensors": lambda path: inrkit.load(path).render((5, 5)),
        "field.inr": lambda path: inrkit.load(path).render((5, 5)),
        "checkpoint.pt": _resume,
        "config.yaml": lambda path: resolve([read_yaml(path)]),
        "metrics.jsonl": lambda path: run_page(Run(path.parent)),
        "result.json": lambda path: run_page(Run(path.parent)),
        "trace.npz": lambda path: run_page(Run(path.parent)),
        "compressed.jsonl": lambda path: run_page(Run(path.parent)),
    }
    for name, reader in own.items():
        path = _fitted(folder / name).folder / name
        content = (run.folder / name).read_bytes()
        found.append(Kind(f"run {name}", path, reader, [content]))
    pack(run.folder, folder / "weights.safetensors")
    content = (folder / "weights.safetensors").read_bytes()
    found.append(Kind("pack weights.safetensors", folder / "weights.safetensors", _read_weights, [content]))
    path = folder / "study.yaml"
    path.write_text(_STUDY.format(picture=folder / "picture.npy"))
    found.append(Kind("study study.yaml", path, _read_study, [path.read_bytes()]))
    path = folder / "study" / "results.jsonl"
    path.parent.mkdir()
    rows = [{"id": "a", "status": status, "seed": 0, "psnr": 30.5, "seconds": 1.5, "error": None} for status in _STATES]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    found.append(Kind("study results.jsonl", path, lambda path: study_page(path.parent), [content]))
    found.append(Kind("words words.txt", folder / "words.txt", _resolve_words, [_WORDS.encode()]))
    found.append(Kind("words keys.txt", folder / "keys.txt", _resolve_words, [_keys().encode()]))
    return found


_STATES = ("done", "failed", "pending")
_STUDY = """\
base: image-single
set: {{data.path: {picture}, train.steps: 20}}
matrix:
  network: [siren, {{name: wire, hidden_features: 8}}]
  optimizer.lr: [0.001, 0.01]
  seed: [0, 1]
variants: {{way: {{short: {{train.steps: 10}}, plain: {{selector: uniform}}}}}}
exclude: [{{seed: 1, network: wire}}]
include: [{{network: gauss, seed: 7}}]
batch: {{together: 4}}
job: {{retries: 1}}
"""
_WORDS = "selector=evos selector.ratio=0.5 network=wire optimizer.lr=1e-3 metrics=[psnr,ssim] train.steps=5 seed=3"


def _written(modality: str, path: Path) -> bool:
    """Write a small file; False if a library for it is missing. In a fork: some of them keep threads, which forks of
    this process would wait for."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            small_files.write(modality, path)
            code = 0
        except (ImportError, ConfigError):
            code = 2
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code not in (0, 2):
        raise RuntimeError(f"{path.name} cannot be written")
    return code == 0


def _keys() -> str:
    """Every key of the default config with its value, as words of the command line."""
    keys = resolve([{"data": {"path": "photo.png"}}]).to_dict()

    def words(value: Any, key: str) -> list[str]:
        if isinstance(value, dict) and value:
            return [word for name, entry in value.items() for word in words(entry, f"{key}.{name}" if key else name)]
        return [f"{key}={json.dumps(value).replace(' ', '')}"]

    return " ".join(words({slot: keys[slot] for slot in SLOTS} | {"train": keys["train"]}, ""))


def _fitted(folder: Path) -> Run:
    """A small run."""
    picture = folder.parent / "picture.npy"
    np.save(picture, np.random.default_rng(0).random((12, 10, 1)).astype(np.float32))
    quick = {"steps": 2, "network": {"name": "siren", "hidden_features": 8, "hidden_layers": 1}, "compile": "never"}
    return inrkit.fit(picture, out=folder, **quick)


def _signal_reader(modality: str, path: Path) -> Callable[[Path], object]:
    choice = {"name": modality, **(SHAPE if modality == "shape" else {})}
    config = resolve([{"data": {"path": str(path)}, "modality": choice}])

    def read(path: Path) -> object:
        signal = read_signal(config)
        dataset = signal.dataset
        digest(dataset)
        shape = dataset.grid_shape
        if modality == "shape" or not shape or dataset.values.numel() > WRITTEN:
            return dataset
        to_json(dataset.metadata).encode()  # goes into field.safetensors
        plugin = config.modality.make()
        values = dataset.values.reshape(*shape, dataset.channels).numpy().astype(dataset.dtype)
        written = path.parent / f"written{plugin.reconstruction_suffix(dataset.metadata, dataset.dtype)}"
        try:
            plugin.write(written, values, dataset.metadata)
        except InrkitError as error:
            raise RuntimeError(f"is read, but not written: {error}") from error
        return dataset

    return read


def _resume(path: Path) -> object:
    return inrkit.fit(path.parent, resume=True, steps=4)


def _read_weights(path: Path) -> object:
    weights = inrkit.Weights(path)
    return [(weights[index], weights.field(index)) for index in range(min(len(weights), 3))]


def _read_study(path: Path) -> object:
    study = read_study(str(path), out=path.parent / "out")
    return Results(path.parent / "out", []), study


def _resolve_words(path: Path) -> object:
    words = [word for word in path.read_text(errors="surrogateescape").split(" ") if word]
    return resolve([{"data": {"path": "photo.png"}}, parse_overrides(words)])


def turn(kind: Kind, length: float, seed: int, memory: float, seconds: float) -> float:
    """Read changed inputs of a kind in a fork of this process for so many seconds of the processor, or until it has to
    end; returns how many seconds that took."""
    kind.turns += 1
    before = _seconds_of_forks()
    counts = mmap.mmap(-1, 16)  # shared with the fork: inputs tried and read
    receive, send = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.close(receive)
            chance = random.Random(f"{seed} {kind.name} {kind.turns}")
            told = _attempts(kind, time.process_time() + length, chance, counts, memory, seconds)
            with os.fdopen(send, "wb") as pipe:
                pickle.dump(told, pipe)
        finally:
            os._exit(0)
    os.close(send)
    if not select.select([receive], [], [], (length + 2 * seconds) / SHARE)[0]:
        os.kill(process, signal.SIGKILL)
    with os.fdopen(receive, "rb") as pipe:
        told = pipe.read()
    status = os.waitpid(process, 0)[1]
    tried, read = struct.unpack("<QQ", counts)
    kind.tried, kind.read = kind.tried + tried, kind.read + read
    took = _seconds_of_forks() - before
    kind.seconds += took
    if told:
        corpus, lines, faults = pickle.loads(told)
        kind.corpus += corpus
        kind.lines |= lines
        kind.faults = {**faults, **kind.faults}
    else:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        told = f"takes more than {seconds:.0f} s" if number == signal.SIGPROF else f"killed by signal {number}"
        kind.faults.setdefault(told, kind.path.read_bytes())
    return took


def _seconds_of_forks() -> float:
    """Of the processor, that the forks have had that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _attempts(
    kind: Kind, until: float, chance: random.Random, counts: mmap.mmap, memory: float, seconds: float
) -> tuple[list[bytes], set[tuple[str, int]], dict[str, bytes]]:
    """Read changed inputs; returns those that ran new lines, these lines, and what went wrong."""
    silent = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(silent, number)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (8 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))  # the machine is to survive, too
    corpus, faults, lines = [], {}, _Lines(kind.lines)
    begun, tried, read = _peak(), 0, 0
    while time.process_time() < until and tried < OFTEN and _peak() - begun < GROWTH:
        # The newest inputs lead further, the first is the one most like a real file.
        known = [*kind.corpus, *corpus]
        content = known[0] if chance.random() < 0.3 else chance.choice(known[-40:])
        signal.setitimer(signal.ITIMER_PROF, seconds)
        content = mutations.changed(content, chance)
        kind.path.write_bytes(content)
        before = _peak()
        outcome = _outcome(kind.reader, kind.path, lines)
        signal.setitimer(signal.ITIMER_PROF, 0)
        grown = (_peak() - before) / 2**20
        if grown > memory:
            outcome = f"takes more than {memory} GiB ({outcome[:100]})"
        tried, read = tried + 1, read + (outcome == "read")
        struct.pack_into("<QQ", counts, 0, tried, read)
        if outcome not in ("read", "refused"):
            place = outcome.partition(": ")[0]  # the message may name numbers
            if not any(fault.startswith(place) for fault in (*faults, *kind.faults)):
                faults[outcome] = content
        elif lines.found and len(content) < 1 << 18:
            corpus.append(content)
        kind.lines |= lines.found
        lines.found = set()
    return corpus, lines.known, faults


def _peak() -> int:
    """KiB of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class _Lines:
    """Notes which lines of the readers run that have not run before.

    Args:
        known: lines that have.
    """

    def __init__(self, known: set[tuple[str, int]]) -> None:
        self.known = set(known)
        self.found: set[tuple[str, int]] = set()
        self._watched: dict[CodeType, bool] = {}

    def __enter__(self) -> None:
        sys.settrace(self._called)
        threading.settrace(self._called)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        self.known |= self.found

    def _called(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if code not in self._watched:
            self._watched[code] = any(part in code.co_filename for part in WATCHED)
        return self._ran if self._watched[code] else None

    def _ran(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            line = (frame.f_code.co_filename, frame.f_lineno)
            if line not in self.known:
                self.found.add(line)
        return self._ran


def _outcome(reader: Callable[[Path], object], path: Path, lines: _Lines) -> str:
    """ "read", "refused", or in a line what went wrong."""
    try:
        with lines:
            reader(path)
    except InrkitError as error:
        return "refused" if str(error).count("\n") < 60 else "a message without end"
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [each for each in frames if "/inrkit/" in each.filename or "/modalities/" in each.filename]
        own = (ours or frames)[-1]
        return f"{type(error).__name__} at {Path(own.filename).name}:{own.lineno}: {str(error)[:120]!r}"
    return "read"


if __name__ == "__main__":
    main()
