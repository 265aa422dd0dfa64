"""Compare recipes of fast fitting: `python tools/recipes.py PICTURE --target 44.4 --steps 2000`.

First the pace of the published way of training on this machine: EVOS's setting, all selected coordinates at once, in
float32, with an allocator that returns memory after every step; `--steps` of that are what all is compared with. Then
the preset `image-single` to its end: how long it takes to the target, as a ratio to the published way's time. With
`--seconds`, then an ablation at equal time: the published setting with one part of the preset each, and the preset
without one part each; schedules follow the clock. Fits run one after another, in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAPER = "image-paper"
AT_ONCE = ["train.chunk=1000000000"]
CHUNKS = "chunks that stay in cache"
AS_IT_COMES = {"GLIBC_TUNABLES": ""}
"""An environment in which inrkit leaves the allocator as it is."""

Rows = list[dict[str, float]]
"""A run's history."""


@dataclass(frozen=True)
class Part:
    """What the preset has and the published setting has not.

    Args:
        name: in the tables.
        present: words that give it to the published setting.
        absent: words that take it from the preset.
        untouched: whether the allocator stays as it comes where the part is absent.
    """

    name: str
    present: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    untouched: bool = False


SMALL = ["selector.ratio=0.1", "selector.least=4096"]
PARTS = [
    Part("memory kept between steps", untouched=True),
    Part(CHUNKS, [], AT_ONCE),
    Part("bfloat16 hidden products", ["train.precision=bfloat16"], ["train.precision=float32"]),
    Part("compiled network", ["train.compile=always"], ["train.compile=never"]),
    Part("weight scale 2", ["network.weight_scale=2"], ["network.weight_scale=1"]),
    Part("ω of 45", ["network.first_omega=45"], ["network.first_omega=30"]),
    Part(
        "SOAP",
        ["optimizer=soap", "optimizer.lr=1e-3"],
        ["optimizer=adam", "optimizer.lr=1e-3", "optimizer.beta1=0.9", "optimizer.beta2=0.99"],
    ),
    Part("falling learning rate", ["schedule=polynomial", "schedule.warmup=0.05"], ["schedule=constant"]),
    Part("batches of a tenth", SMALL, ["selector.ratio=0.5"]),
    Part("quasi-random draws", ["selector.draw=quasi-random"], ["selector.draw=random"]),
    Part(
        "uniform selection",
        ["selector=uniform", "objective=mse"],
        [
            *("selector=evos", "selector.interval=fixed", "selector.interval_start=100", "selector.mutation=linear"),
            *("selector.mutation_start=0.8", "selector.mutation_end=1", "selector.draw=quasi-random", *SMALL),
        ],
    ),
]


class Fits:
    """Fits in processes of their own.

    Args:
        picture: the file.
        folder: for their runs.
    """

    def __init__(self, picture: Path, folder: Path) -> None:
        self.picture = picture
        self.folder = folder

    def __call__(
        self, name: str, *words: str, untouched: bool = False
    ) -> tuple[dict[str, Any], list[dict[str, float]]]:
        """The result and the history of a fit by config words; `untouched` leaves the allocator as it comes."""
        out = self.folder / name.replace(" ", "-")
        command = [sys.executable, "-m", "inrkit", "fit", str(self.picture), *words, "metrics=[psnr]", "--quiet"]
        environment = {**os.environ, **(AS_IT_COMES if untouched else {})}
        subprocess.run([*command, "--out", str(out)], check=True, env=environment)
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return json.loads((out / "result.json").read_text()), rows


def reached(rows: Rows, target: float) -> float | None:
    """Seconds of training after which PSNR is at the target, by lines between evaluations; None if it never is."""
    for before, after in zip([{"seconds": 0.0, "psnr": 0.0}, *rows], rows, strict=False):
        if after["psnr"] >= target:
            share = (target - before["psnr"]) / (after["psnr"] - before["psnr"])
            return before["seconds"] + share * (after["seconds"] - before["seconds"])
    return None


def time_published(fits: Fits, steps: int) -> float:
    """Seconds a step of the published way; its first step, with start-up and a key step, is left out."""
    words = [f"base={PAPER}", *AT_ONCE, "log.every=1000000"]
    longer, _ = fits("paced", *words, f"train.steps={steps + 1}", untouched=True)
    shorter, _ = fits("started", *words, "train.steps=1", untouched=True)
    return float(longer["seconds"]["train"] - shorter["seconds"]["train"]) / steps


def ablate(fits: Fits, seconds: float, preset: list[str]) -> None:
    """Print the table of the parts, each fit trained for so many seconds."""

    preset = ["base=image-single", "train.compile=always", *preset]  # under a budget of time `auto` does not compile

    def psnr(name: str, *words: str, untouched: bool) -> float:
        fits(f"{name}, to compile", *words, "train.steps=2", untouched=untouched)  # once and for all on a machine
        result, _ = fits(name, *words, f"train.seconds={seconds}", "log.every=1000000", untouched=untouched)
        return float(result["metrics"]["psnr"])

    def ends(when: str) -> tuple[float, float]:
        paper = psnr(f"paper {when}", f"base={PAPER}", *AT_ONCE, untouched=True)
        return paper, psnr(f"all {when}", *preset, untouched=False)

    print("\n| part | published setting with it alone | preset without it |\n|---|---|---|", flush=True)
    before = ends("before")
    for part in PARTS:
        paper = [f"base={PAPER}", *([] if part.name == CHUNKS else AT_ONCE), *part.present]
        alone = psnr(f"with {part.name}", *paper, untouched=not part.untouched)
        without = psnr(f"without {part.name}", *preset, *part.absent, untouched=part.untouched)
        print(f"| {part.name} | {alone:.2f} | {without:.2f} |", flush=True)
    # Measured before and after all others: what lies between the two is the machine's.
    said = [" and ".join(f"{value:.2f}" for value in pair) for pair in zip(before, ends("after"), strict=True)]
    print(f"| none, or all | {said[0]} | {said[1]} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--target", type=float, help="PSNR in dB at which the published way ends")
    parser.add_argument("--steps", type=int, default=2000, help="of the published way")
    parser.add_argument("--pace", type=int, default=8, help="of those, how many to time")
    parser.add_argument("--seconds", type=float, help="of training for each row of the ablation")
    parser.add_argument("--keep", type=Path, help="folder for the runs, which are deleted if it is not given")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="for the preset")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as scratch:
        fits = Fits(arguments.picture, arguments.keep or Path(scratch))
        pace = time_published(fits, arguments.pace)
        published = pace * arguments.steps
        print(f"published way: {pace:.3f} s a step, {arguments.steps} steps {published:.0f} s", flush=True)
        result, rows = fits("preset", "base=image-single", *arguments.words, "log.every=10")
        took = result["seconds"]["train"]
        print(
            f"preset: {took:.1f} s, {result['metrics']['psnr']:.2f} dB, a ratio of {published / took:.0f}", flush=True
        )
        if arguments.target is not None:
            seconds = reached(rows, arguments.target)
            said = "not reached" if seconds is None else f"{seconds:.1f} s, a ratio of {published / seconds:.0f}"
            print(f"to {arguments.target:g} dB: {said}", flush=True)
        if arguments.seconds is not None:
            ablate(fits, arguments.seconds, arguments.words)


if __name__ == "__main__":
    main()
