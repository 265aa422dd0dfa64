"""A study of many thumbnails, as a user runs it: `python tools/thumbnails.py [--count 1000] [--together 128]`.

The thumbnails are drawn by code. `inrkit batch thumbnails` fits a small network to each, together, then some of them
one by one; `inrkit pack` makes one data set of the weights; a DataLoader reads it, and some fields made from it are
compared with the runs' own. Seconds are of the processor, with one thread a process, so that other work counts little.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

import inrkit

_COMPARED = 5
"""Fields made from the data set that are compared with the runs' own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--alone", type=int, default=20, help="thumbnails that are fitted one by one as well")
    parser.add_argument("--side", type=int, default=32, help="pixels of a thumbnail's sides")
    parser.add_argument("--together", type=int, default=128)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="of the study, such as train.steps=500")
    parser.add_argument("--keep", type=Path, help="a folder for all files; otherwise they are removed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        folder = arguments.keep or Path(aside)
        draw(folder / "thumbnails", arguments.count, arguments.side)
        many, alone, data = folder / "together", folder / "alone", folder / "weights.safetensors"
        study = [
            "batch",
            "thumbnails",
            f"data.path={folder}/thumbnails/*.png",
            *arguments.words,
            "--workers",
            "1",
            "--quiet",
        ]
        together = [*study, f"batch.together={arguments.together}", "--out", many]
        begun = command([*study, "--limit", 0, "--out", folder / "begun"])
        report(begun, "read only", arguments.count)
        joint = command(together)
        report(joint, "together", arguments.count)
        if arguments.alone:
            single = command([*study, "batch.together=1", "--limit", arguments.alone, "--out", alone])
            report(single, "one by one", arguments.alone)
            compare(begun, (joint, arguments.count), (single, arguments.alone))
        report(command(["pack", many, data]), "packed", arguments.count)
        report(command(together), "run again, nothing to do", arguments.count)
        sizes(folder)
        read(data, many)


@dataclass
class Spent:
    """What a command took: seconds of the processors and of a clock, and GiB of the largest process."""

    processor: float
    clock: float
    memory: float


def command(words: list[object]) -> Spent:
    """Run a command of inrkit's."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "inrkit", *map(str, words)], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(processor, time.perf_counter() - start, after.ru_maxrss / 2**20)


def report(spent: Spent, what: str, count: int) -> None:
    print(
        f"{what}: {count:,} in {spent.processor:.1f} s of the processor ({spent.clock:.1f} s by the clock), "
        f"{count / spent.processor:.2f} a second; largest process so far {spent.memory:.2f} GiB",
        flush=True,
    )


def compare(begun: Spent, *ways: tuple[Spent, int]) -> None:
    """Seconds of a job both ways, without those that reading the study takes, which is for all jobs in both."""
    joint, single = ((spent.processor - begun.processor) / count for spent, count in ways)
    print(f"a job besides that: {joint:.3f} s together, {single:.3f} s alone, {single / joint:.1f} times as long")


def draw(folder: Path, count: int, side: int) -> None:
    """Thumbnails of many kinds: gradients, waves, discs and boxes over each other, with grain."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    rows, columns = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    for number in range(count):
        turn, first, last = random.uniform(0, np.pi), *random.uniform(0, 1, (2, 3))
        along = np.cos(turn) * rows + np.sin(turn) * columns
        image = first + (last - first) * ((along + 1.5) / 3)[..., None]
        image += 0.15 * np.sin(random.uniform(2, 12) * along + random.uniform(0, 6))[..., None]
        for _ in range(random.integers(1, 6)):
            (top, left), size, color = random.uniform(-1, 1, 2), random.uniform(0.1, 0.6), random.uniform(0, 1, 3)
            round_one = (rows - top) ** 2 + (columns - left) ** 2 < size**2
            square = (abs(rows - top) < size) & (abs(columns - left) < size)
            image[round_one if random.integers(2) else square] = color
        image += random.normal(0, random.uniform(0, 0.03), image.shape)
        Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8)).save(folder / f"{number:05}.png")


def sizes(folder: Path) -> None:
    """How large things are on the disk."""
    files = [path for path in (folder / "together").rglob("*") if path.is_file()]
    held = sum(path.stat().st_blocks * 512 for path in files)
    page = folder / "together" / "report.html"
    packed = (folder / "weights.safetensors").stat().st_size
    print(
        f"{len(files):,} files of {held / 2**20:,.0f} MiB on the disk; the study's page "
        f"{page.stat().st_size / 2**20:.1f} MiB, the data set {packed / 2**20:.1f} MiB"
    )


def read(path: Path, study: Path) -> None:
    """Read the data set as a torch Dataset, and compare fields made from it with the runs' own."""
    weights = inrkit.Weights(path, label=lambda info: info["metrics"]["psnr"])
    start = time.process_time()
    psnr = torch.cat([label for _, label in DataLoader(weights, batch_size=32, shuffle=True)])
    seconds = time.process_time() - start
    count, length = weights.rows.shape
    print(f"{count:,} rows of {length:,} weights read in {seconds:.1f} s; mean PSNR {psnr.mean():.2f} dB")
    for index in np.linspace(0, count - 1, _COMPARED).astype(int).tolist():
        own = inrkit.load(study / "runs" / weights.info(index)["run"])
        if not np.array_equal(own.render(), weights.field(index).render()):
            raise SystemExit(f"run {index} is another field in the data set")
    print(f"{_COMPARED} fields made from the data set equal the runs' own")


if __name__ == "__main__":
    main()
