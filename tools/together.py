"""Time many small fits one by one and together: `python tools/together.py [--count 64] [--steps 200]`.

Signals are 32×32 crops of a photograph. "fits" are whole runs with all their files, once their configs are resolved;
"training" is from the first step to the last. Seconds are the processor's, on one thread, so that other work on the
machine counts little. The last column says how far the PSNRs lie apart at most.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data

from inrkit import Listener, Member, Run
from inrkit.config import Config, resolve
from inrkit.runs.execute import execute, execute_together

NETWORKS = {
    "SIREN 1×32": {"hidden_features": 32, "hidden_layers": 1},
    "SIREN 2×64": {"hidden_features": 64, "hidden_layers": 2},
}
SELECTORS = {
    "full": {"name": "full"},
    "uniform 25 %": {"name": "uniform", "ratio": 0.25, "least": 1},
    "evos 25 %": {"name": "evos", "ratio": 0.25, "least": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--optimizers", nargs="+", default=["adam", "soap"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | optimizer | selection | fits, s | together | ratio | training, s | together | ratio | PSNR |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        paths = thumbnails(Path(folder), arguments.count)
        cases = [(n, o, s) for o in arguments.optimizers for n in NETWORKS for s in SELECTORS]
        for case, (network, optimizer, selector) in enumerate(cases):
            base = {
                "device": "cpu",
                "network": {"name": "siren", **NETWORKS[network]},
                "optimizer": {"name": optimizer, "lr": 1e-3},
                "selector": SELECTORS[selector],
                "train": {"steps": arguments.steps, "precision": "float32"},
                "log": {"every": arguments.steps},
                "metrics": ["psnr"],
            }
            configs = [resolve([{**base, "data": {"path": str(path)}}]) for path in paths]
            if case == 0:
                timed(configs[:2], Path(folder, "warm"), together=True)  # what torch loads at the first step
            alone, trained, single = timed(configs, Path(folder, f"alone{case}"), together=False)
            both, stacked_trained, stacked = timed(configs, Path(folder, f"together{case}"), together=True)
            apart = max(abs(a.metrics["psnr"] - b.metrics["psnr"]) for a, b in zip(single, stacked, strict=True))
            print(
                f"| {network} | {optimizer} | {selector} | {alone:.1f} | {both:.1f} | {alone / both:.1f} "
                f"| {trained:.1f} | {stacked_trained:.1f} | {trained / stacked_trained:.1f} | ±{apart:.1g} dB |",
                flush=True,
            )


def thumbnails(folder: Path, count: int) -> list[Path]:
    """Crops from all over a photograph, as files."""
    photo = data.astronaut()
    corners = np.random.default_rng(0).integers(0, [photo.shape[0] - 32, photo.shape[1] - 32], (count, 2))
    paths = [folder / f"{number}.png" for number in range(count)]
    for path, (top, left) in zip(paths, corners, strict=True):
        Image.fromarray(photo[top : top + 32, left : left + 32]).save(path)
    return paths


class Stopwatch(Listener):
    """Measures while any training is under way."""

    def __init__(self) -> None:
        self.seconds = self.started = 0.0
        self.under_way = 0

    def on_start(self, member: Member) -> None:
        if self.under_way == 0:
            self.started = time.process_time()
        self.under_way += 1

    def on_end(self, member: Member) -> None:
        self.under_way -= 1
        if self.under_way == 0:
            self.seconds += time.process_time() - self.started


def timed(configs: list[Config], folder: Path, together: bool) -> tuple[float, float, list[Any]]:
    """Seconds that the fits take, those of training among them, and the runs."""
    fits = [(config, Run(folder / str(number))) for number, config in enumerate(configs)]
    watch = Stopwatch()
    start = time.process_time()
    runs: list[Any] = (
        execute_together(fits, listeners=[watch])
        if together
        else [execute(config, run, listeners=[watch]) for config, run in fits]
    )
    return time.process_time() - start, watch.seconds, runs


if __name__ == "__main__":
    main()
