"""What a recipe is worth between the samples: `python tools/between.py FILE… --recipe "NAME: key=value …"`.

Each signal is halved along each axis, and the halved signal is fitted and rendered at the original size. The table
compares PSNR there with what linear, cubic and Lanczos interpolation of the halved signal reach; for a sound polyphase
filtering takes the place of Lanczos. It also compares the error of the gradient, as differences between neighbours: its
root mean square over that of the original's. Pictures and volumes are halved by an antialiasing Lanczos filter, so that
a cell of the halved signal covers two of the original; sounds by a polyphase filter, which leaves every second sample
where it was. Of a video every second frame is left out, and only those are compared; its gradient is that along time.

Without --recipe the signal's preset is fitted; a recipe may name another, "paper: base=image-paper train.steps=2000".
With --crop 256, or --crop 16,512,512, the middle of each signal is taken.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

import inrkit
from inrkit import CoordinateDataset, DataError, Field
from inrkit.config import resolve
from inrkit.config.layers import parse_overrides
from inrkit.runs.build import read_signal
from inrkit.signals.lattice import Region

Kernel = Callable[[np.ndarray], np.ndarray]


def triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(x))


def keys(x: np.ndarray) -> np.ndarray:
    """The cubic convolution of Keys (1981) with a = −1/2, which is what pictures' "bicubic" means."""
    x = np.abs(x)
    return np.where(x < 1, (1.5 * x - 2.5) * x**2 + 1, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0))


def lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


KERNELS: dict[str, tuple[Kernel, int]] = {"linear": (triangle, 1), "cubic": (keys, 2), "Lanczos": (lanczos, 3)}
"""Kernels, and how far they reach."""


def resampled(values: np.ndarray, axis: int, places: np.ndarray, kernel: str, stretch: float = 1.0) -> np.ndarray:
    """Values at other places along an axis; beyond the ends of the axis kernels are cut off, as in Pillow.

    Args:
        values: real.
        axis: of `values`.
        places: (m,) in cells of the axis.
        kernel: one of `KERNELS`.
        stretch: of the kernel; 2 for halving, so that nothing is folded into lower frequencies.
    """
    function, reach = KERNELS[kernel]
    count = 2 * math.ceil(reach * stretch) + 1
    cells = np.round(places)[:, None].astype(int) + np.arange(count) - count // 2
    weights = function((cells - places[:, None]) / stretch)
    weights[(cells < 0) | (cells >= values.shape[axis])] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    cells = cells.clip(0, values.shape[axis] - 1)
    turned = np.moveaxis(values, axis, 0)
    result = np.zeros((len(places), *turned.shape[1:]))
    for column in range(count):
        share = weights[:, column]
        if share.any():
            result += share.reshape(-1, *[1] * (turned.ndim - 1)) * turned[cells[:, column]]
    return np.moveaxis(result, 0, axis)


@dataclass(frozen=True)
class Halving:
    """How a kind of signal is halved, and where the original's cells lie among those of the halved one.

    Args:
        axes: that are halved.
        kept: whether a cell of the halved signal stands where every second one of the original stood, rather than
            covering two of them.
        last: name of the best interpolation.
        compared: which cells of the original are compared, as slices of its axes.
    """

    axes: tuple[int, ...]
    kept: bool
    last: str = "Lanczos"
    compared: tuple[slice, ...] = ()

    def trimmed(self, values: np.ndarray) -> np.ndarray:
        """Values without the last cell of axes whose length does not suit: even, or odd for a video's frames."""
        odd = bool(self.compared)
        for axis in self.axes:
            values = values.take(range(values.shape[axis] - (values.shape[axis] + odd) % 2), axis=axis)
        return values

    def halved(self, values: np.ndarray) -> np.ndarray:
        """(*halved shape, C) in the same dtype."""
        result = values.astype(float)
        for axis in self.axes:
            if self.compared:
                result = result.take(range(0, result.shape[axis], 2), axis=axis)
            elif self.kept:
                result = resample_poly(result, 1, 2, axis=axis)
            else:
                result = resampled(result, axis, 2 * np.arange(result.shape[axis] // 2) + 0.5, "Lanczos", 2)
        return stored(result, values.dtype)

    def places(self, length: int) -> np.ndarray:
        """(length,) where the original's cells lie along a halved axis, in cells of the halved signal."""
        return np.arange(length) / 2 if self.kept else (np.arange(length) + 0.5) / 2 - 0.5

    def interpolated(self, small: np.ndarray, shape: tuple[int, ...], kernel: str) -> np.ndarray:
        """(*shape, C) what a kernel makes of the halved signal."""
        result = small.astype(float)
        for axis in self.axes:
            if kernel == "polyphase":
                result = resample_poly(result, 2, 1, axis=axis)
            else:
                result = resampled(result, axis, self.places(shape[axis]), kernel)
        return result

    def rendered(self, field: Field, small: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
        """(*shape, C) what a field of the halved signal, of shape `small`, has at the places of the original's."""
        lows, highs = [-1.0] * len(shape), [1.0] * len(shape)
        for axis in self.axes:
            places = self.places(shape[axis])
            lows[axis] = (2 * (places[0] - 0.25) + 1) / small[axis] - 1
            highs[axis] = (2 * (places[-1] + 0.25) + 1) / small[axis] - 1
        return field.render(region=Region(shape, tuple(lows), tuple(highs)), dtype=np.float32)

    def interpolations(self) -> list[str]:
        return ["linear", "cubic", self.last]


def halving(modality: str, shape: tuple[int, ...]) -> Halving:
    """How a signal of a modality is halved."""
    if modality == "video":
        return Halving((0,), True, compared=(slice(1, None, 2),))
    if modality == "audio":
        return Halving((0,), True, last="polyphase")
    return Halving(tuple(axis for axis, length in enumerate(shape) if length > 1), False)


def stored(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values as a file of a dtype would hold them."""
    if dtype.kind not in "biu":
        return values.astype(dtype)
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return values.round().clip(low, high).astype(dtype)


def psnr(found: np.ndarray, truth: np.ndarray, peak: float) -> float:
    error = np.mean((found - truth) ** 2)
    return 10 * math.log10(peak**2 / error) if error else math.inf


def gradient_error(found: np.ndarray, truth: np.ndarray, axes: tuple[int, ...]) -> float:
    """Root mean square of the gradient's error over that of the true gradient, both as differences of neighbours."""
    wrong = sum(np.mean(np.diff(found - truth, axis=axis) ** 2) for axis in axes)
    there = sum(np.mean(np.diff(truth, axis=axis) ** 2) for axis in axes)
    return math.sqrt(wrong / there) if there else math.nan


def middle(values: np.ndarray, lengths: list[int]) -> np.ndarray:
    """The middle of (*shape, C) values, at most so many cells along each axis; one number holds for all axes."""
    axes = values.ndim - 1
    if len(lengths) not in (0, 1, axes):
        raise DataError(f"--crop has {len(lengths)} numbers, and the signal {axes} axes; give one for all, or one each")
    for axis, most in enumerate(lengths * axes if len(lengths) == 1 else lengths):
        begin = max(0, (values.shape[axis] - most) // 2)
        values = values.take(range(begin, min(begin + most, values.shape[axis])), axis=axis)
    return values


@dataclass(frozen=True)
class Row:
    """What one recipe reached with one signal.

    Args:
        signal: its name.
        shape: the original's.
        recipe: its name.
        at: PSNR of the field at the samples of the halved signal.
        psnr: at the original size, by interpolation's name; the field's last.
        gradient: errors of the gradient, likewise.
        seconds: of training.
    """

    signal: str
    shape: tuple[int, ...]
    recipe: str
    at: float
    psnr: dict[str, float]
    gradient: dict[str, float]
    seconds: float

    def cells(self) -> list[str]:
        """Of the table's row."""
        return [
            self.signal,
            "×".join(map(str, self.shape)),
            self.recipe,
            f"{self.at:.1f}",
            *(f"{value:.1f}" for value in self.psnr.values()),
            *(f"{100 * value:.0f} %" for value in self.gradient.values()),
            f"{self.seconds:.1f}",
        ]


TITLES = [
    *("signal", "size", "recipe", "at the samples"),
    *("linear", "cubic", "Lanczos, polyphase", "the field"),
    *("∇ linear", "∇ cubic", "∇ Lanczos, polyphase", "∇ the field"),
    "seconds",
]


def compare(path: Path, recipe: str, words: list[str], crop: list[int]) -> Row:
    """Halve a signal, fit it, and compare what lies between its samples.

    Args:
        path: of its file.
        recipe: the recipe's name.
        words: key=value.
        crop: see `middle`.
    """
    config = resolve([{"data": {"path": str(path)}}, parse_overrides(words)])
    dataset = read_signal(config).dataset
    if dataset.grid_shape is None or dataset.known is not None:
        raise DataError(f"{path} has points on no lattice, or values that are not known; give another signal")
    if dataset.grid_shape == (1,) * dataset.dimensions:
        raise DataError(f"{path} has a single cell; give another signal")
    whole = dataset.stored(slice(0, len(dataset))).numpy().astype(dataset.dtype)
    whole = middle(whole.reshape(*dataset.grid_shape, dataset.channels), crop)
    how = halving(config.modality.name, whole.shape[:-1])
    whole = how.trimmed(whole)
    small, shape = how.halved(whole), whole.shape[:-1]
    signal = CoordinateDataset(
        small,
        affine=dataset.affine,
        channel_weights=tuple(dataset.channel_weights.tolist()),
        metadata=dataset.metadata,
        full_scale=dataset.full_scale,
    )
    run = inrkit.fit(
        signal, modality=config.modality.name, overrides=words, metrics=["psnr"], every=1 << 40, quiet=True
    )
    found = {name: how.interpolated(small, shape, name) for name in how.interpolations()}
    found["field"] = how.rendered(run.field, small.shape[:-1], shape)
    low, high = dataset.value_range or (-math.inf, math.inf)
    truth, levels, slopes = whole.astype(float), {}, {}
    for name, values in found.items():
        values = values.clip(low, high)
        levels[name] = psnr(values[how.compared], truth[how.compared], signal.peak)
        slopes[name] = gradient_error(values, truth, how.axes)
    return Row(path.name, shape, recipe, run.metrics["psnr"], levels, slopes, run.result["seconds"]["train"])


def recipe_of(text: str) -> tuple[str, list[str]]:
    """A recipe's name and its words; a recipe without a name is called by its words."""
    name, colon, words = text.partition(":")
    return (name.strip(), words.split()) if colon else (text.strip(), text.split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--recipe", action="append", help='"NAME: key=value …"; may be given several times')
    parser.add_argument("--crop", default="", help="cells of the middle, one number for all axes or one for each")
    arguments = parser.parse_args()
    crop = [int(length) for length in arguments.crop.split(",") if length]
    print(f"| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}")
    for path in arguments.files:
        for name, words in map(recipe_of, arguments.recipe or ["preset:"]):
            print(f"| {' | '.join(compare(path, name, words, crop).cells())} |", flush=True)


if __name__ == "__main__":
    main()
