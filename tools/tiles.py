"""What a fit reaches in so many seconds: `python tools/tiles.py [--seconds S] FILE… [-- key=value …]`.

Each signal is fitted with its preset, and with the keys that follow `--`, for so many seconds of training, compilation
of any kind included. A row of the table tells the quality at the samples and between them, and the seconds from the
start of the fit to its end, evaluation and files included. With `--compare`, each signal is fitted by EVOS, by even
draws, and by the fittest and mutants, for the same time and with each of several seeds: means and ranges of the PSNR.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import inrkit

METHODS = {
    "even draws": ["selector={name: uniform, draw: quasi-random, most: 0}"],
    "EVOS, proportional": ["selector={name: evos, survival: proportional, crossover: none}"],
    "EVOS, top": ["selector={name: evos, survival: top, crossover: none, mutation_start: 0.5}"],
}


def fitted(path: Path, seconds: float, words: list[str], seed: int) -> dict[str, float]:
    """The metrics of a fit, its parameters, and its seconds in all."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        asked = [f"train.seconds={seconds}", f"seed={seed}", "log.every=1000000", "log.report=false", *words]
        run = inrkit.fit(path, out=Path(folder) / "run", overrides=asked)
        taken = time.perf_counter() - start
        return {**run.metrics, "parameters": run.result["parameters"], "seconds": taken}


def shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def table(paths: list[Path], seconds: float, words: list[str]) -> None:
    print("| signal | parameters | trained, s | in all, s | PSNR, dB | between, dB | SNR, dB |\n|" + "---|" * 7)
    for path in paths:
        found = fitted(path, seconds, words, 0)
        cells = [shown(found.get(name)) for name in ("psnr", "between", "snr")]
        print(
            f"| {path.name} | {found['parameters']:,} | {seconds:g} | {found['seconds']:.1f} | {' | '.join(cells)} |",
            flush=True,
        )


def comparison(paths: list[Path], seconds: float, words: list[str], seeds: int) -> None:
    print(f"| signal | trained, s | {' | '.join(METHODS)} |\n|" + "---|" * (2 + len(METHODS)))
    for path in paths:
        cells = []
        for method in METHODS.values():
            found = [fitted(path, seconds, [*method, *words], seed)["psnr"] for seed in range(seeds)]
            cells.append(f"{statistics.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})")
        print(f"| {path.name} | {seconds:g} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    arguments, words = sys.argv[1:], []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, words = arguments[:cut], arguments[cut + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args(arguments)
    if given.compare:
        comparison(given.files, given.seconds, words, given.seeds)
    else:
        table(given.files, given.seconds, words)


if __name__ == "__main__":
    main()
