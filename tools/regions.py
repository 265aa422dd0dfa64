"""One giant signal as a whole and region by region: `python tools/regions.py picture:8192 sound:3600 volume:512`.

Draws each signal to the disk and fits it with its preset in a process of its own: as a whole, then region by region
with as many workers as asked for, with the steps shared out by error and, for comparison, alike. Prints time and the
most memory of its own that the fit and any worker held, pages of mapped files left out. Linux only, which tells it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile
from scale import draw, wave

COLUMNS = (
    *("signal", "values", "fitted", "regions", "parameters", "steps", "all in, s", "training, s", "PSNR, dB"),
    *("between, dB", "fit, GiB", "a worker, GiB"),
)
RATE = 44_100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("signals", nargs="+", help="picture:SIDE, volume:SIDE or sound:SECONDS")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--whole", action="store_true", help="fit it as a whole, too")
    parser.add_argument("--alike", action="store_true", help="and with one worker and steps shared out alike")
    parser.add_argument("--values", type=int, default=1 << 24, help="of a region, at most")
    parser.add_argument("--words", nargs="*", default=[], help="keys of all fits, such as train.steps=200")
    parser.add_argument(
        "--folder", type=Path, help="for the signals; a temporary one, removed afterwards, unless given"
    )
    arguments = parser.parse_args()
    cut = [f"regions.values={arguments.values}", "--workers"]
    ways = [["whole"]] if arguments.whole else []
    ways += [[f"{count} worker{'s' if count > 1 else ''}", *cut, str(count)] for count in arguments.workers]
    ways += [["alike", *cut, "1", "regions.first=1"]] if arguments.alike else []
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        for signal in arguments.signals:
            kind, _, size = signal.partition(":")
            path = folder / f"{kind}-{size}{'.wav' if kind == 'sound' else '.npy'}"
            if not path.exists():
                DRAWN[kind](path, int(size))
            for name, *words in ways:
                fit(path, kind, name, [*words, *arguments.words])
            if arguments.folder is None:
                path.unlink()


def draw_volume(path: Path, side: int) -> None:
    """Write a (side, side, side) uint8 volume with detail at all scales, slice by slice."""
    random = np.random.default_rng(0)
    octaves = [length for power in range(1, 12) if (length := 1 << power) <= side]
    # Sums of products of a wave along each axis.
    along = [np.concatenate([wave(random, side, length, 3) * length**0.4 for length in octaves]) for _ in range(3)]
    volume = np.lib.format.open_memmap(path, "w+", np.uint8, (side, side, side))
    scale = 45 / np.einsum("ix,iy,iz->xyz", *(each[:, :: max(1, side // 64)] for each in along)).std()
    for place in range(side):
        values = (along[0][:, place, None] * along[1]).T @ along[2]
        volume[place] = np.rint(np.clip(127.5 + scale * values, 0, 255))
    volume.flush()


def draw_sound(path: Path, seconds: int) -> None:
    """Write a sound of 16 bits: tones that come, glide and go."""
    random = np.random.default_rng(0)
    time = np.arange(RATE, dtype=np.float64) / RATE
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for _ in range(seconds):
            heard = np.zeros(RATE)
            tones = (110 * 2 ** random.uniform(0, 5, 8), random.normal(0, 40, 8), random.random(8))
            for pitch, glide, loudness in zip(*tones, strict=True):
                heard += loudness * np.sin(2 * np.pi * (pitch + glide * time) * time) * np.exp(-3 * time)
            file.write(0.1 * heard * np.minimum(1, time * 200))


DRAWN = {"picture": draw, "volume": draw_volume, "sound": draw_sound}
PRESETS = {"picture": "image", "volume": "volume", "sound": "audio"}


def fit(path: Path, kind: str, name: str, words: list[str]) -> None:
    """Fit a signal in a process of its own, and print a row."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "inrkit", "fit", str(path), f"base={PRESETS[kind]}", "--out", str(run)]
        start = time.perf_counter()
        with subprocess.Popen(
            [*command, "log.report=false", "log.reconstruction=0", *words], stderr=subprocess.PIPE, text=True
        ) as process:
            held = watch(process.pid)
            said = process.communicate()[1]
        taken = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"the fit of {path} failed: {said}")
        found = json.loads((run / "result.json").read_text())
    values = soundfile.info(path).frames if kind == "sound" else np.load(path, mmap_mode="r").size
    cells = [
        path.stem.replace("-", " "),
        f"{values:,}",
        name,
        str(found.get("regions", "–")),
        f"{found['parameters']:,}",
    ]
    cells += [
        str(found["steps"]),
        f"{taken:.0f}",
        f"{sum(found['seconds'][part] for part in ('train', 'evaluation')):.0f}",
    ]
    cells += [f"{found['metrics'][metric]:.2f}" for metric in ("psnr", "between")]
    cells += [f"{kept / 2**30:.2f}" if kept else "–" for kept in held]
    print(f"| {' | '.join(cells)} |", flush=True)


def watch(number: int) -> tuple[int, int]:
    """Most bytes of its own that a process has held until it ended, and any of its children."""
    process, most = psutil.Process(number), [0, 0]
    while True:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                break
            for place, each in [(0, process), *((1, child) for child in process.children())]:
                own = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{each.pid}/status").read_text())
                most[place] = max(most[place], 1024 * int(own[1]) if own else 0)
        except (psutil.NoSuchProcess, OSError):
            if not process.is_running():
                break
        time.sleep(0.1)
    return most[0], most[1]


if __name__ == "__main__":
    main()
