"""What a fit costs besides its training: `python tools/overhead.py [--against PYTHON] [FILE…]`.

Each signal is fitted for one step, by `inrkit fit` in a Python of its own with one thread: imports, reading, the plan,
evaluation, files and page. A row tells the processor's seconds, the median of several runs. With `--against` another
Python, which has another version of inrkit, takes turns with this one, and a row tells the ratio, too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import inrkit


def cost(python: str, path: Path, words: list[str]) -> float:
    """Processor seconds of a fit of one step."""
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-m", "inrkit", "fit", str(path), "--quiet", "--out", f"{folder}/run", "train.steps=1"]
        fit = subprocess.Popen([*command, *words], env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=folder)
        _, status, used = os.wait4(fit.pid, 0)
        fit.returncode = os.waitstatus_to_exitcode(status)
        if fit.returncode:
            sys.exit(f"{' '.join(command)} ends with {fit.returncode}")
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="signals; samples of every kind, if none are given")
    parser.add_argument("--against", help="a Python with another version of inrkit")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--words", nargs="*", default=[], help="key=value for all fits")
    given = parser.parse_args()
    pythons = [sys.executable, *([given.against] if given.against else [])]
    with tempfile.TemporaryDirectory() as folder:
        files = [path.resolve() for path in given.files]
        for name in [] if files else inrkit.MODALITIES.names():
            plugin = inrkit.MODALITIES.get(name)
            files.append(Path(folder) / f"{name}{plugin.sample_suffix}")
            plugin(plugin.Options()).sample(files[-1])
        print("| signal | here, s |" + (" there, s | ratio |" if given.against else ""))
        print("|---|---|" + ("---|---|" if given.against else ""))
        for path in files:
            taken = [[cost(python, path, given.words) for python in pythons] for _ in range(1 + given.runs)][1:]
            medians = [statistics.median(column) for column in zip(*taken, strict=True)]
            cells = [path.name, *(f"{seconds:.2f}" for seconds in medians)]
            if given.against:
                cells.append(f"{statistics.median(there / here for here, there in taken):.2f}")
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
