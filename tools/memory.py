"""The memory that a fit announces, and what it takes: `python tools/memory.py [NAME…]`.

Each case is fitted in a process of its own, for a few steps with one evaluation and all files. A row of the table tells
what the process holds once everything is imported, what the estimate says before the first step, and the most that the
process has held; both without what is imported. Linux only, on a CPU.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

CASES: dict[str, tuple[str, list[str]]] = {
    "photo 4000×3000": ("photo", []),
    "image 256×256, one network": ("small", ["base=image-single"]),
    "sound of a minute": ("sound", []),
    "volume 181×217×181": ("volume", []),
    "clip 120×240×320": ("clip", []),
    "shape": ("shape", []),
    "shape, one network": ("shape", ["base=shape-single", "train.steps=100", "log.every=100"]),
    "table of 200,000 rows": ("table", []),
    "image 256×256, all of it at once": ("small", ["base=image-paper", "selector=full", "train.chunk=65536"]),
    "image 512×512, large chunks": ("middle", ["base=image-single", "train.chunk=262144"]),
    "image 1024×1024, hash grid": ("large", ["base=image-single", "network=hash-grid", "optimizer=adam"]),
    "image 256×256, SOAP, width 512": ("small", ["base=image-single", "network.hidden_features=512"]),
    "image 256×256, published EVOS": ("small", ["base=image-paper"]),
}
"""What is fitted, and keys."""
SHORT = ["train.steps=4", "log.every=4", "train.compile=never", "train.precision=float32"]
PHASES = ("read", "training", "evaluation", "files", "page")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="cases whose names hold one of these; all, if none is given")
    parser.add_argument("--phases", action="store_true", help="also tell the peak of each part of the fit")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(_fitted(given.child, given.names)))
        return
    print("| fit | imported, MiB | announced | measured | ratio | ratio, imports included |\n|" + "---|" * 6)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (signal, words) in CASES.items():
            if given.names and not any(part in name for part in given.names):
                continue
            found = _in_a_process([str(_made(signal, Path(folder))), *words])
            least = found["imported"]
            announced, measured = found["announced"] - least, found["peak"] - least
            ratio, whole = announced / measured, found["announced"] / found["peak"]
            wrong += not 0.75 <= whole <= 1.25
            print(
                f"| {name} | {least:.0f} | {announced:.0f} | {measured:.0f} | {ratio:.2f} ({whole:.2f}) |", flush=True
            )
            if given.phases:
                print("    " + ", ".join(f"{phase} {found[phase] - least:.0f}" for phase in PHASES if phase in found))
    sys.exit(1 if wrong else 0)


def _in_a_process(words: list[str]) -> dict[str, float]:
    """What `_fitted` finds, in a fresh process."""
    with tempfile.TemporaryDirectory() as out:
        child = [sys.executable, __file__, "--child", f"{out}/run", "--", *words]
        done = subprocess.run(child, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _fitted(out: str, words: list[str]) -> dict[str, float]:
    """Fit as the command line does; returns MiB: imported, announced, the peak in all and that of each phase."""
    import inrkit.cli
    from inrkit.runs import display
    from inrkit.runs.run import Run
    from inrkit.runs.writers import Harmless
    from inrkit.training import member

    found: dict[str, float] = {"imported": _now(), "peak": 0}

    def ends(phase: str) -> None:
        peak = _peak()
        found[phase] = max(found.get(phase, 0), peak)
        found["peak"] = max(found["peak"], peak)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew

    def marked(function: Any, before: str, after: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            ends(before)
            result = function(*given, **named)
            ends(after)
            return result

        return call

    estimate = display.estimate

    def announced(*given: Any) -> Any:
        ends("read")
        cost = estimate(*given)
        found["announced"] = cost.memory / 2**20
        ends("estimate")
        return cost

    display.estimate = announced
    member.evaluate = marked(member.evaluate, "training", "evaluation")
    Run.write_field = marked(Run.write_field, "training", "files")  # type: ignore[method-assign]
    Harmless.conclude = marked(Harmless.conclude, "files", "page")  # type: ignore[method-assign]
    sys.argv = ["inrkit", "fit", words[0], *SHORT, *words[1:], "--out", out]
    try:
        inrkit.cli.main()
    except SystemExit as end:
        if end.code:
            raise
    ends("files")
    return found


def _now() -> float:
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def _status(name: str) -> float:
    """MiB that the system tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def _made(name: str, folder: Path) -> Path:
    """A signal's file."""
    found = next(iter(folder.glob(f"{name}.*")), None)
    return found or _MAKERS[name](folder)


def _waves(*lengths: int, channels: int = 1) -> np.ndarray:
    """(*lengths, channels) float32 in [0, 1]: waves and a little noise, so that nothing is constant."""
    axes = [np.linspace(0, 1, length, dtype=np.float32) for length in lengths]
    field = np.zeros(lengths, dtype=np.float32)
    for number, axis in enumerate(np.ix_(*axes)):
        field = field + np.sin(40 * (number + 1) * axis + field)
    noise = np.random.default_rng(0).random((*lengths, channels), dtype=np.float32)
    return np.asarray(0.5 + 0.4 * field[..., None] / len(lengths) + 0.1 * (noise - 0.5), dtype=np.float32)


def _image(name: str, height: int, width: int) -> Any:
    def make(folder: Path) -> Path:
        from PIL import Image

        path = folder / f"{name}.png"
        Image.fromarray((255 * _waves(height, width, channels=3)).astype(np.uint8)).save(path)
        return path

    return make


def _sound(folder: Path) -> Path:
    import soundfile

    soundfile.write(folder / "sound.wav", _waves(60 * 44100)[:, 0] - 0.5, 44100)
    return folder / "sound.wav"


def _volume(folder: Path) -> Path:
    np.save(folder / "volume.npy", _waves(181, 217, 181)[..., 0])
    return folder / "volume.npy"


def _clip(folder: Path) -> Path:
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in (255 * _waves(120, 240, 320, channels=3)).astype(np.uint8)]
    first.save(folder / "clip.gif", save_all=True, append_images=others, duration=40)
    return folder / "clip.gif"


def _shape(folder: Path) -> Path:
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=4)
    mesh.vertices *= 1 + 0.2 * np.sin(6 * mesh.vertices[:, :1])
    mesh.export(folder / "shape.obj")
    return folder / "shape.obj"


def _table(folder: Path) -> Path:
    points = np.random.default_rng(0).random((200_000, 3))
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "y", "z", "value"])
        writer.writerows((*point, math.sin(10 * point[0])) for point in points.tolist())
    return folder / "table.csv"


_MAKERS = {
    "photo": _image("photo", 3000, 4000),
    "small": _image("small", 256, 256),
    "middle": _image("middle", 512, 512),
    "large": _image("large", 1024, 1024),
    "sound": _sound,
    "volume": _volume,
    "clip": _clip,
    "shape": _shape,
    "table": _table,
}


if __name__ == "__main__":
    main()
