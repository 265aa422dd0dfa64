"""Time steps on a gigapixel image beside steps on a small one: `OMP_NUM_THREADS=1 python tools/scale.py`.

Writes an image of 32768×32768 pixels and every 64th of its pixels along each axis as a small one, and trains the image
preset's network on both with as many coordinates a step. Each has a process of its own, for an honest peak of memory;
they take turns step by step, so that what else the machine does slows both alike. Evaluation is not part of it. Linux
only, which tells the peak.

`python tools/scale.py --fits 4096 8192 16384` draws images of these sides instead and fits each with its preset from
start to end, evaluation and files included: time and memory over size.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from inrkit import Listener, Member, Trainer
from inrkit.config import resolve
from inrkit.device import choose_device, choose_precision
from inrkit.runs.build import build, read_signal

SMALL = 512
BAND = 256
"""Rows that are made at a time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1 << 15, help="pixels of the large image's sides")
    parser.add_argument("--selected", type=int, default=39_321, help="k; 15 %% of 512×512 unless given")
    parser.add_argument("--steps", type=int, default=210)
    parser.add_argument("--selectors", nargs="+", default=["evos", "uniform"])
    parser.add_argument("--folder", type=Path, help="for the images; a temporary one, removed afterwards, unless given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--fits", type=int, nargs="+", metavar="SIDE", help="fit images of these sides to their end")
    parser.add_argument("--words", nargs="*", default=[], help="keys of those fits, such as train.steps=200")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        measure(arguments.measure, arguments.selectors[0], arguments.selected, arguments.device)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if arguments.fits:
            columns = ("side", "values", "parameters", "steps", "trained, s", "all in, s", "PSNR, dB", "GiB", "own GiB")
            print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
            for side in arguments.fits:
                fit_to_the_end(folder / f"{side}.npy", side, arguments.words)
            return
        large, small = folder / f"{arguments.side}.npy", folder / f"{SMALL}.npy"
        start = time.perf_counter()
        draw(large, arguments.side)
        np.save(small, np.load(large, mmap_mode="r")[:: arguments.side // SMALL, :: arguments.side // SMALL])
        print(f"drawn in {time.perf_counter() - start:.0f} s, k = {arguments.selected:,}\n")
        print("| selector | image | step, ms | ratio | key step, s | visits | all, ms | ratio | choosing | peak, GiB |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for selector in arguments.selectors:
            compare(small, large, selector, arguments)


def draw(path: Path, side: int) -> None:
    """Write a (side, side, 3) uint8 image with detail at all scales, band by band."""
    random = np.random.default_rng(0)
    octaves = [length for power in range(1, 16) if (length := 1 << power) <= side]
    # Products of a wave down and one across; waves of all lengths, the longer ones higher.
    down = np.concatenate([wave(random, side, length, 4) * length**0.35 for length in octaves])
    across = np.concatenate([wave(random, side, length, 12) for length in octaves]).reshape(-1, 4, 3, side)
    across = across.transpose(0, 1, 3, 2).reshape(len(down), side * 3)
    image = np.lib.format.open_memmap(path, "w+", np.uint8, (side, side, 3))
    scale = 40 / (down[:, :BAND].T @ across).std()
    for top in range(0, side, BAND):
        band = scale * (down[:, top : top + BAND].T @ across) + 127.5
        image[top : top + BAND] = np.rint(np.clip(band, 0, 255, out=band)).reshape(-1, side, 3)
    image.flush()


def wave(random: np.random.Generator, side: int, length: int, count: int) -> np.ndarray:
    """(count, side) float32: lines through heights drawn at random every `length` pixels."""
    heights = random.normal(size=(count, side // length + 2)).astype(np.float32)
    place = np.arange(side, dtype=np.float32) / length
    left = place.astype(np.int64)
    share = place - left
    return heights[:, left] * (1 - share) + heights[:, left + 1] * share


def compare(small: Path, large: Path, selector: str, arguments: argparse.Namespace) -> None:
    """Train on both images in turns, and print a row for each."""
    command = [sys.executable, __file__, "--selectors", selector, "--selected", str(arguments.selected)]
    processes = [
        subprocess.Popen(
            [*command, "--device", arguments.device, "--measure", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for path in (small, large)
    ]
    steps: list[list[dict[str, Any]]] = [[], []]
    for turn in range(arguments.steps):
        for which in (0, 1) if turn % 2 else (1, 0):
            steps[which].append(answer(processes[which], "step\n"))
    for which, (process, path) in enumerate(zip(processes, (small, large), strict=True)):
        peak = answer(process, "end\n")["peak"]
        process.wait()
        report(selector, f"{path.stem}²", steps[which], steps[0], peak, arguments.selected)


def answer(process: subprocess.Popen[str], request: str) -> dict[str, Any]:
    """What a measuring process says to a request."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(request)
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a measuring process ended early; its error is above")
    found: dict[str, Any] = json.loads(line)
    return found


def report(name: str, image: str, steps: list[dict[str, Any]], base: list[dict[str, Any]], peak: float, k: int) -> None:
    """A row of the table. The first step, which torch prepares much for, counts nowhere."""

    def ordinary(rows: list[dict[str, Any]]) -> float:
        return statistics.median(row["seconds"] for row in rows[1:] if row["selected"] == k)

    def average(rows: list[dict[str, Any]]) -> float:
        """Key steps as many as they are, others at their median."""
        keys = [row["seconds"] for row in rows[1:] if row["selected"] > k]
        return (sum(keys) + ordinary(rows) * (len(rows) - 1 - len(keys))) / (len(rows) - 1)

    keys = [row for row in steps[1:] if row["selected"] > k]
    key, visits = (f"{keys[-1]['seconds']:.2f}", f"{keys[-1]['selected']:,}") if keys else ("–", "–")
    share = sum(row["selection"] for row in steps[1:]) / sum(row["seconds"] for row in steps[1:])
    print(
        f"| {name} | {image} | {1e3 * ordinary(steps):.1f} | {ordinary(steps) / ordinary(base):.2f} | {key} | {visits} "
        f"| {1e3 * average(steps):.1f} | {average(steps) / average(base):.2f} | {share:.1%} | {peak / 2**30:.2f} |",
        flush=True,
    )


def fit_to_the_end(path: Path, side: int, words: list[str]) -> None:
    """Draw an image, fit it with its preset in a process of its own, and print a row."""
    draw(path, side)
    run = path.with_suffix("")
    start = time.perf_counter()
    command = [sys.executable, "-m", "inrkit", "fit", str(path), "--out", str(run), "log.report=false", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        held = {"VmHWM": 0, "RssAnon": 0}
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status")
            for name, kilobytes in re.findall(r"(VmHWM|RssAnon):\s+(\d+) kB", status.read_text()):
                held[name] = max(held[name], 1024 * int(kilobytes))
            time.sleep(0.1)
    taken = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"the fit of {path} failed; its error is above")
    found = json.loads((run / "result.json").read_text())
    cells = [str(side), f"{3 * side**2:,}", f"{found['parameters']:,}", str(found["steps"])]
    cells += [f"{seconds:.1f}" for seconds in (found["seconds"]["train"], taken)]
    cells += [f"{found['metrics']['psnr']:.2f}", *(f"{kept / 2**30:.2f}" for kept in held.values())]
    print(f"| {' | '.join(cells)} |", flush=True)
    path.unlink()


class Enough(Exception):
    """No more steps are asked for; a training that is stopped otherwise would be evaluated."""


class Turns(Listener):
    """Takes a step for each line that comes in, and tells its cost."""

    def on_start(self, member: Member) -> None:
        self._wait(member)

    def on_step(self, member: Member, selected: int) -> None:
        seconds, selection = member.now() - self._start, member.seconds["selection"] - self._selection
        print(json.dumps({"seconds": seconds, "selection": selection, "selected": selected}), flush=True)
        self._wait(member)

    def _wait(self, member: Member) -> None:
        if sys.stdin.readline() != "step\n":
            raise Enough
        self._start, self._selection = member.now(), member.seconds["selection"]


def measure(path: Path, selector: str, k: int, device: str) -> None:
    """Train on an image as the lines of the standard input say; tell the peak of memory at the end."""
    chosen = choose_device(device)
    layer = {
        "base": "image-single",
        "data": {"path": str(path)},
        "selector": {"name": selector, "ratio": 1e-9, "least": k},
        "train": {"steps": 10**6, "compile": "never"},
        "log": {"every": 10**9},
        "metrics": ["psnr"],
    }
    config = resolve([layer])
    member = build(config, read_signal(config), chosen, choose_precision(config.train.precision, chosen))
    member.listeners = [Turns()]
    try:
        Trainer([member]).run()
    except Enough:
        print(json.dumps({"peak": peak()}), flush=True)


def peak() -> int:
    """Most bytes that this process has held in main memory, pages of mapped files included."""
    # getrusage would count what the parent held when it started this process.
    held = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert held is not None
    return 1024 * int(held[1])


if __name__ == "__main__":
    main()
