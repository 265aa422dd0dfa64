"""Make docs/pictures: signals fitted with the presets as they ship, for the README and the gallery.

    python tools/picture.py            all of them, some minutes
    python tools/picture.py clip       one of them; not the README's row, which takes them all
    python tools/picture.py --check    whether a preset has changed since they were made

tests/docs/test_pictures.py fails when a preset has changed: then run this again, and look at what it made.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import exhibits
import matplotlib
import nibabel
import numpy as np
import scipy.signal
import soundfile
from PIL import Image, ImageDraw, ImageFont

import inrkit
from inrkit.config import read_preset
from inrkit.reports import trace

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
MADE = "made.json"
"""The presets that the pictures were made with, by name."""
PRESETS = {"photo": "image", "voice": "audio", "scan": "volume", "bust": "shape", "clip": "video"}
SUFFIXES = {"photo": ".png", "voice": ".flac", "scan": ".nii.gz", "bust": ".ply", "clip": ".apng"}
GAP = 12
TITLE = 32
HEIGHT = 260
"""Pixels between panels, of a title's line, and of a panel in the README's row."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="make nothing; exit 1 if a preset has changed")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DRAWINGS)}")
    arguments = parser.parse_args()
    if arguments.check:
        changed = outdated()
        sys.exit(f"made before these presets changed: {', '.join(changed)}; run me without --check" if changed else 0)
    inrkit.keep_freed_memory()
    FOLDER.mkdir(exist_ok=True)
    names, row = arguments.names or list(DRAWINGS), {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            signal = Path(folder) / f"{name}{SUFFIXES[name]}"
            getattr(exhibits, f"write_{name}")(signal)
            run = inrkit.fit(signal, out=Path(folder) / name, quiet=False)
            rows, shown = DRAWINGS[name](signal, run)
            _save(rows, name)
            if name in KINDS:
                width = round(shown.shape[1] * HEIGHT / len(shown))
                row[f"{KINDS[name]}: {_quality(run)}"] = _resized(
                    shown, width=width, height=HEIGHT, kernel=Image.Resampling.LANCZOS
                )
    if len(row) == len(KINDS):
        _save([row], "signals")
    made = {} if len(names) == len(DRAWINGS) else json.loads((FOLDER / MADE).read_text(encoding="utf-8"))
    made |= {PRESETS[name]: read_preset(PRESETS[name]) for name in names}
    (FOLDER / MADE).write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def outdated() -> list[str]:
    """The presets that have changed since the pictures were made."""
    made = json.loads((FOLDER / MADE).read_text(encoding="utf-8"))
    return [preset for preset in PRESETS.values() if made.get(preset) != json.loads(json.dumps(read_preset(preset)))]


Panels = dict[str, np.ndarray]
"""Pictures, (H, W, 3) or (H, W) uint8, by their titles."""


def photo(signal: Path, run: inrkit.Run) -> tuple[list[Panels], np.ndarray]:
    """The photo, its fit, where the tiles trained, and a detail finer than the pixels."""
    original, fitted = np.asarray(Image.open(signal)), run.field.render()
    traced = trace.read(run.folder / trace.FILE)
    assert traced is not None and traced.counts is not None
    heat = _coloured(traced.counts, 0, traced.counts.max(), "inferno")
    corner, size, factor = (86, 138), (42, 63), 8  # an eye
    opposite = tuple(start + length for start, length in zip(corner, size, strict=True))
    detail = run.field.render(region=(corner, opposite), step=1 / factor)
    pixels = original[corner[0] : opposite[0], corner[1] : opposite[1]]
    height = len(original)
    whole = {
        "the photo, 451 × 300": original,
        f"the fit: {_quality(run)}": fitted,
        "how often each tile trained": _resized(heat, width=fitted.shape[1], height=height),
    }
    width = (3 * fitted.shape[1] + GAP) // 2
    close = {
        "an eye, pixel by pixel": _resized(pixels, width=width, height=width * size[0] // size[1]),
        "the field there, rendered 8 times finer": _resized(
            detail, width=width, height=width * size[0] // size[1], kernel=Image.Resampling.LANCZOS
        ),
    }
    return [whole, close], fitted


def voice(signal: Path, run: inrkit.Run) -> tuple[list[Panels], np.ndarray]:
    """Spectrograms of the voice, of its fit and of what is between them, on one scale."""
    original, rate = soundfile.read(signal)
    fitted, _ = soundfile.read(run.reconstruction)
    sounds = {
        "a voice, 3 s": original,
        f"the fit: {_quality(run)}": fitted,
        "the difference, 40 dB louder": 100 * (fitted - original),
    }
    panels = {title: _spectrogram(sound, rate) for title, sound in sounds.items()}
    return [panels], list(panels.values())[1]


def scan(signal: Path, run: inrkit.Run) -> tuple[list[Panels], np.ndarray]:
    """Slices in three planes, as stored and as the field renders them in cubes of half a millimetre."""
    stored = np.asarray(nibabel.load(signal).dataobj)[28:100, 2:94]
    fine = run.field.render(step=0.5, dtype=np.float32)[112:400, 8:376, :, 0]
    brightest = np.percentile(stored, 99.8)
    panels: Panels = {}
    for title, volume in (
        ("a scan as stored, 2 × 2 × 2.2 mm", stored),
        (f"the field in steps of 0.5 mm: {_quality(run)}", fine),
    ):
        axial, coronal, sagittal = (
            Image.fromarray(_coloured(volume.take(volume.shape[axis] // 2, axis).T[::-1], 0, brightest, "gray")).resize(
                [length for other, length in enumerate(fine.shape) if other != axis], Image.Resampling.NEAREST
            )
            for axis in (2, 1, 0)
        )
        sheet = Image.new("RGB", (axial.width + sagittal.width, axial.height))
        sheet.paste(axial, (0, 0))
        sheet.paste(
            coronal, (axial.width + (sagittal.width - coronal.width) // 2, axial.height // 4 - coronal.height // 2)
        )
        sheet.paste(sagittal, (axial.width, 3 * axial.height // 4 - sagittal.height // 2))
        panels[title] = np.asarray(sheet)
    return [panels], np.asarray(axial)


def bust(signal: Path, run: inrkit.Run) -> tuple[list[Panels], np.ndarray]:
    """The bust as it was made, its field, and the field from two more sides, by marching rays through distances."""

    scale, middle = np.diag(run.field.affine[:, :3]), run.field.affine[:, 3]

    def field(points: np.ndarray) -> np.ndarray:
        beyond = (np.abs(points - middle) - scale).max(axis=1)  # beyond its cube a field is made up
        return np.maximum(run.field(points, physical=True)[:, 0], beyond)

    panels = {
        "the bust": _marched(exhibits.bust, 28),
        f"its field: {_quality(run)}": _marched(field, 28),
        "from the side": _marched(field, 85),
        "from behind": _marched(field, 205),
    }
    return [panels], list(panels.values())[1]


def clip(signal: Path, run: inrkit.Run) -> tuple[list[Panels], np.ndarray]:
    """Three frames and their fit; and what a column of pixels shows over time, between the frames too."""
    original, fitted = exhibits.clip(), run.field.render()
    count, height, width = original.shape[:3]
    chosen = [count // 4, count // 2, 3 * count // 4]
    column, finer = width * 3 // 8, 8
    between = run.field.render((finer * count, height, width))[:, :, column].swapaxes(0, 1)
    wide, high = (6 * width + 2 * GAP - GAP) // 2, 2 * height
    frames = [
        {
            title if place == 0 else " " * place: _resized(film[number], width=2 * width, height=2 * height)
            for place, number in enumerate(chosen)
        }
        for title, film in ((f"three of {count} frames", original), (f"the fit: {_quality(run)}", fitted))
    ]
    over_time: Panels = {
        "a column of pixels over time, frame by frame": _resized(
            original[:, :, column].swapaxes(0, 1), width=wide, height=high
        ),
        f"the field there, rendered {finer} times finer in time": _resized(
            between, width=wide, height=high, kernel=Image.Resampling.LANCZOS
        ),
    }
    return [*frames, over_time], fitted[chosen[1]]


DRAWINGS: dict[str, Callable[[Path, inrkit.Run], tuple[list[Panels], np.ndarray]]] = {
    "photo": photo,
    "voice": voice,
    "scan": scan,
    "bust": bust,
    "clip": clip,
}
KINDS = {"photo": "a photo", "voice": "a voice", "scan": "a scan", "bust": "a mesh"}
"""Those in the README's row."""


def _quality(run: inrkit.Run) -> str:
    """The number that counts for the signal: `45.6 dB`."""
    return f"IoU {run.metrics['iou']:.3f}" if "iou" in run.metrics else f"{run.metrics['psnr']:.1f} dB"


def _spectrogram(sound: np.ndarray, rate: int) -> np.ndarray:
    frequencies, _, power = scipy.signal.spectrogram(sound, rate, nperseg=1024, noverlap=928)
    power = power[frequencies < 4800]
    return _coloured(10 * np.log10(power[::-1] + 1e-12), -95, -30, "magma")


def _marched(distance: Callable[[np.ndarray], np.ndarray], degrees: float) -> np.ndarray:
    """A surface in parallel projection, lit by two lamps, from the distance to it.

    Args:
        distance: (n, 3) points to (n,) distances, negative inside; possibly no larger than a band around it.
        degrees: how far the viewer has walked around it.
    """
    height, width, far = 400, 300, 2.6
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), 0, -math.sin(angle)], [0, 1, 0], [math.sin(angle), 0, math.cos(angle)]])
    up, right = np.meshgrid(np.linspace(0.98, -0.86, height), np.linspace(-0.69, 0.69, width), indexing="ij")
    begins = np.stack([right, up, np.full_like(up, far / 2)], axis=-1).reshape(-1, 3) @ turn
    ahead = np.array([0, 0, -1]) @ turn
    gone = np.zeros(len(begins))
    going = np.arange(len(begins))
    for _ in range(160):
        step = distance(begins[going] + gone[going, None] * ahead)
        gone[going] += 0.7 * step
        going = going[(np.abs(step) > 2e-4) & (gone[going] < far)]
        if len(going) == 0:
            break
    hit = gone < far
    places = begins[hit] + gone[hit, None] * ahead
    slopes = [distance(places + 2e-3 * axis) - distance(places - 2e-3 * axis) for axis in np.eye(3)]
    normals = np.stack(slopes, axis=-1)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    light = np.full(len(places), 0.12)
    for lamp, strength in (((-0.5, 0.75, 0.6), 0.85), ((0.8, 0.1, 0.3), 0.25)):
        light += strength * np.clip(normals @ (np.array(lamp) @ turn / np.linalg.norm(lamp)), 0, 1)
    picture = np.tile(np.array([34, 38, 46], dtype=float), (len(begins), 1))
    picture[hit] = np.clip(light, 0, 1)[:, None] * np.array([250, 243, 230])
    return picture.reshape(height, width, 3).astype(np.uint8)


def _coloured(values: np.ndarray, low: float, high: float, colours: str) -> np.ndarray:
    shares = np.clip((values - low) / (high - low or 1), 0, 1)
    return (matplotlib.colormaps[colours](shares)[..., :3] * 255).astype(np.uint8)


def _resized(
    pixels: np.ndarray, *, width: int, height: int, kernel: Image.Resampling = Image.Resampling.NEAREST
) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), kernel))


def _save(rows: list[Panels], name: str) -> None:
    """Write rows of pictures, each below its title."""
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 18)
    width = max(sum(pixels.shape[1] for pixels in row.values()) + GAP * (len(row) - 1) for row in rows)
    heights = [TITLE + max(len(pixels) for pixels in row.values()) for row in rows]
    sheet = Image.new("RGB", (width, sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for title, pixels in row.items():
            draw.text((left + 2, top + 5), title, fill="#333333", font=font)
            sheet.paste(Image.fromarray(pixels), (left, top + TITLE))
            left += pixels.shape[1] + GAP
        top += height
    sheet.save(FOLDER / f"{name}.jpg", quality=88, subsampling=0, optimize=True)
    print(f"docs/pictures/{name}.jpg: {sheet.width}×{sheet.height}")


if __name__ == "__main__":
    main()
