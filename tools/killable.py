"""What `kill.py` fits and kills: the cases, and how each is begun, resumed and done."""

from __future__ import annotations

import json
import random
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import small_files
from PIL import Image

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
TOGETHER = "together"
"""The first word of a request for several fits as one."""
AIMS = ("config.yaml", "checkpoint.pt", "metrics.jsonl", "field.safetensors", "result.json", "reconstruction.*", ".*-*")
"""Files of a fit; the last are those that are still being written."""
_MEMBERS = 3
"""Fits that train as one stacked computation."""


@dataclass
class Case:
    """A fit that is killed, and how that went so far.

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

    code: ClassVar[int] = 0
    """Exit code of a command that comes to its end."""
    has_workers: ClassVar[bool] = False
    """Whether the command has processes that work for it."""
    aims: ClassVar[tuple[str, ...]] = AIMS
    """Files at whose appearance it is killed."""

    def command(self, out: Path, chance: random.Random) -> list[str]:
        """Words of the command that begins the fit in a folder, or goes on with what is there."""
        if (out / "config.yaml").exists():
            return ["fit", str(out), "--resume", "--quiet"]
        return ["fit", *self.words, *QUICK, "--quiet", "--out", str(out)]

    def is_done(self, out: Path) -> bool:
        """Whether nothing is left to do in a folder."""
        return _is_done(out)


class Together(Case):
    """Fits that train as one stacked computation."""

    aims = tuple(f"0/{name}" for name in AIMS)

    def command(self, out: Path, chance: random.Random) -> list[str]:
        return [TOGETHER, *self.words, *QUICK, "--out", str(out)]

    def is_done(self, out: Path) -> bool:
        return all(_is_done(out / str(seed)) for seed in range(_MEMBERS))


class Regions(Case):
    """A fit region by region, each time with one worker or with two."""

    has_workers = True
    aims = (*AIMS, "regions/*.json", *(f"regions/*/{name}" for name in AIMS))

    def command(self, out: Path, chance: random.Random) -> list[str]:
        return [*super().command(out, chance), "--workers", chance.choice("12")]


class Batch(Case):
    """A study, each time with one worker or with two. Its words are the study's file and keys."""

    has_workers = True
    aims = ("results.jsonl", "summary.md", *(f"runs/*/{name}" for name in AIMS))

    def command(self, out: Path, chance: random.Random) -> list[str]:
        return ["batch", *self.words, "--quiet", "--out", str(out), "--workers", chance.choice("12")]

    def is_done(self, out: Path) -> bool:
        return all(row["status"] == "done" for row in _rows(out))


class Failing(Batch):
    """A study with a job that cannot succeed."""

    code = 1

    def is_done(self, out: Path) -> bool:
        return all("is not an image" in (row["error"] or "") for row in _rows(out) if row["status"] != "done")


def _rows(study: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (study / "results.jsonl").read_text().splitlines()]


def _is_done(run: Path) -> bool:
    path = run / "result.json"
    return path.exists() and json.loads(path.read_text())["status"] == "done"


def fit_together(words: list[str]) -> int:
    """Fit a signal with several seeds as one computation, or go on with it; returns an exit code.

    Args:
        words: the signal, keys, `--out` and a folder.
    """
    path, *overrides, _, out = words
    fits, begun = [], []
    for seed in range(_MEMBERS):
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


def cases(folder: Path) -> dict[str, Case]:
    """Cases by name: every selector and every modality, with one network and with tiles; every modality's preset; fits
    that train together; a compiled network; recovery; optimizers with states of their own; a film; tiles' first use;
    studies; regions."""
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
    every: dict[str, Case] = {name: Case(words) for name, words in found.items()}
    for name in ("full", "uniform", "evos", "soft-mining"):
        every[f"together-{name}"] = Together([picture, *SINGLE, f"selector={name}", "objective=mse", "optimizer=adam"])
    for name in ("muon", "soap"):
        every[f"optimizer-{name}"] = Case([picture, *SINGLE, f"optimizer={name}"])
    every["optimizer-lbfgs"] = Case([picture, *SINGLE, "optimizer=lbfgs", "selector=full", "objective=mse"])
    every["compiled"] = Case([picture, *SINGLE, "train.compile=always"])
    every["recover"] = Case([picture, *SINGLE, "train.on_divergence=recover"])
    every["tiles-recover"] = Case([picture, *TILES, "train.on_divergence=recover"])
    every["film"] = Case([picture, *SINGLE, "log.film=gif"])
    every["tiles-first-use"] = Case([picture, *TILES], empty_cache=True)
    every["read-only"] = Case(every["selector-evos"].words, read_only=True)
    return every | _studies(picture, folder) | _regions(folder)


def _studies(picture: str, folder: Path) -> dict[str, Case]:
    """Cases of studies, of a small picture and a few seeds."""
    damaged = folder / "damaged.png"
    damaged.write_text("poison")
    single, tiles = _study(folder / "single.yaml", SINGLE), _study(folder / "tiles.yaml", TILES)
    keys = [f"data.path={picture}", *QUICK]
    return {
        "study": Batch([single, *keys]),
        "study-tiles": Batch([tiles, *keys]),
        "study-together": Batch([single, *keys, "optimizer=adam", "batch.together=3"]),
        "study-failing": Failing([single, *QUICK, f"data.path=[{picture}, {damaged}]", "seed=[0]", "job.retries=1"]),
    }


def _study(path: Path, keys: list[str]) -> str:
    """Write the file of a study with such keys; returns its name."""
    base = "".join(f"  {key.replace('=', ': ', 1)}\n" for key in keys)
    # The tables show no seconds.
    path.write_text(
        f"base: image\nset:\n{base}matrix: {{data.path: [], seed: [0, 1, 2]}}\ntable: {{metrics: [psnr]}}\n"
    )
    return str(path)


def _regions(folder: Path) -> dict[str, Case]:
    """Cases of regions: of a signal that is mapped into memory, and of one that is stored beside them, with weights."""
    pixels = np.random.default_rng(0).integers(0, 200, (64, 48, 3)).astype(np.uint8)
    mapped, stored, weights = folder / "mapped.npy", folder / "stored.png", folder / "weights.npy"
    np.save(mapped, pixels)
    Image.fromarray(pixels).save(stored)
    np.save(weights, np.linspace(0.1, 2, 64)[:, None])
    keys = ["base=image", *TILES, "regions.values=3000"]
    return {
        "regions": Regions([str(mapped), *keys]),
        "regions-stored": Regions([str(stored), *keys, f"data.weights={weights}"]),
    }


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have let it ignore
    try:
        sys.exit(fit_together(sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(130)
