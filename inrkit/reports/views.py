"""Views: the original and the fit side by side, as a page shows them, small enough whatever the signal's size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inrkit.config import Config
from inrkit.errors import InrkitError
from inrkit.reports.trace import Traced
from inrkit.runs import drawing
from inrkit.runs.run import Run
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.modality import Surface

_READ = 1 << 26
"""Values of a signal that are read for a view; of a larger one every n-th along each axis."""
_RENDERED = 1 << 16
"""Coordinates that are rendered for a view if there is no reconstruction to read."""
_PICTURE = 1800
"""Pixels of a picture's longer side."""
_CROP = 360
"""Pixels of each side of a part that is shown at full resolution."""
_COLUMNS = 1000
"""Pairs of least and largest values that a waveform is drawn from."""
_SOUND = 1 << 21
"""Samples of a sound that are played, of all channels."""
_FRAMES, _FRAME = 48, 360
"""Frames of a video, and pixels of a frame's longer side."""
_VOLUME = 128
"""Cells of a volume's longest axis."""
_PLANE = 200
"""Cells along each axis of what a field makes of the places between free points."""
_POINTS = 3000
"""Free points that are drawn."""

View = dict[str, Any]


@dataclass
class Compared:
    """What views are made of.

    Args:
        original: (*shape, C) float32 values of the signal, or uint8 ones; None if the signal is not there.
        fit: likewise, of the fit; of the same shape unless it was rendered.
        low: the value that is drawn darkest.
        high: the value that is drawn lightest.
        known: (*shape,) bool, where the signal is known; None for everywhere.
        lengths: the lattice, of which the arrays may have only every n-th value.
        affine: the dataset's.
        units: of the axes.
    """

    original: np.ndarray | None
    fit: np.ndarray | None
    low: float
    high: float
    known: np.ndarray | None
    lengths: tuple[int, ...]
    affine: np.ndarray
    units: tuple[str, ...]

    @property
    def errors(self) -> np.ndarray | None:
        """(*shape,) float32 mean over the channels of |fit − original|, NaN where the signal is not known."""
        if self.original is None or self.fit is None or self.original.shape != self.fit.shape:
            return None
        errors = np.zeros(self.fit.shape[:-1], dtype=np.float32)
        for channel in range(self.fit.shape[-1]):
            errors += np.abs(np.subtract(self.fit[..., channel], self.original[..., channel], dtype=np.float32))
        errors /= self.fit.shape[-1]
        if self.known is not None:
            errors[~self.known] = np.nan
        return errors

    @property
    def peak(self) -> float:
        """Of a sound, its largest value."""
        return max(abs(self.low), abs(self.high)) or 1.0

    def rate(self, samples: int) -> int:
        """Samples a second of a sound that has so many in all."""
        seconds = 2 * float(self.affine[0, 0]) or 1.0
        return max(1, round(samples / seconds))

    def bytes(self, values: np.ndarray) -> np.ndarray:
        """Values as uint8 from `low` to `high`."""
        if values.dtype == np.uint8 and (self.low, self.high) == (0, 255):
            return values
        return drawing.as_bytes(values, self.low, self.high)


def views(
    config: Config, run: Run, dataset: CoordinateDataset | None, traced: Traced | None
) -> tuple[list[View], list[str]]:
    """The views of a run, and sentences about what cannot be shown.

    Args:
        config: of the run.
        run: with a field, or a reconstruction.
        dataset: the signal; None if it is not there.
        traced: of its training.
    """
    made: list[View] = []
    notes: list[str] = []

    def attempt(what: str, make: Callable[[], View | None]) -> None:
        try:
            view = make()
        except Exception as error:  # a page that lacks a view is better than none
            reason = str(error) if isinstance(error, InrkitError) else f"{type(error).__name__}: {error}"
            notes.append(f"{what} cannot be drawn: {reason}")
            return
        if view is not None:
            made.append(view)

    attempt("the surfaces", lambda: surface_view(config, run))
    if not made:
        attempt("the signal", lambda: signal_view(config, run, dataset))
    if traced is not None:
        attempt("where the selector looked", lambda: selection_view(traced, dataset))
    return made, notes


def signal_view(config: Config, run: Run, dataset: CoordinateDataset | None) -> View | None:
    """The signal beside its fit, as people look at its kind."""
    if dataset is not None and dataset.grid_shape is None:
        return points_view(run, dataset)
    compared = compare(config, run, dataset)
    if compared is None:
        return None
    axes = len(compared.lengths)
    looks = config.modality.plugin.looks
    draw = {"picture": picture_view, "sound": sound_view, "frames": frames_view, "slices": slices_view}
    wanted = {"picture": 2, "sound": 1, "frames": 3}
    if looks not in draw or wanted.get(looks, axes) != axes or (looks == "slices" and axes < 3):
        looks = {1: "line", 2: "picture"}.get(axes, "slices")
    return line_view(compared) if looks == "line" else draw[looks](compared)


def picture_view(compared: Compared) -> View:
    """A picture, its fit and the error between them; the part with the largest errors at full resolution."""
    view: View = {"kind": "picture", "size": list(compared.lengths)}
    fit_image = None
    if compared.fit is not None:
        fit_image = drawing.reduced(drawing.as_image(compared.bytes(compared.fit)), _PICTURE)
        view["fit"] = drawing.picture_uri(fit_image)
        view["shown"] = [fit_image.height, fit_image.width]
    if compared.original is not None:
        original = drawing.as_image(compared.bytes(compared.original))
        original = drawing.reduced(original, _PICTURE) if fit_image is None else _as_large(original, fit_image.size)
        view["original"] = drawing.picture_uri(original)
        view["shown"] = [original.height, original.width]
    errors = compared.errors
    if errors is None and compared.original is not None and fit_image is not None and original.mode == fit_image.mode:
        errors = np.abs(np.asarray(original, np.float32) - np.asarray(fit_image, np.float32))
        errors = errors.reshape(*errors.shape[:2], -1).mean(axis=-1) * (compared.high - compared.low) / 255
    if errors is not None:
        small = _box(errors, math.ceil(max(errors.shape) / _PICTURE))
        top = drawing.lightest(small)
        view["errors"] = drawing.picture_uri(drawing.as_image(drawing.colours(small, top)), quality=85)
        view["top"], view["range"] = top, compared.high - compared.low
        if max(errors.shape) > _PICTURE and compared.original is not None and compared.fit is not None:
            view["detail"] = _worst(compared, errors)
    return view


def sound_view(compared: Compared) -> View:
    """Waveforms, spectrograms and players."""
    rate = compared.rate(compared.lengths[0])
    view = line_view(compared)
    view |= {"kind": "sound", "rate": rate}
    if rate < 1000:
        return view
    for name, values in (("original", compared.original), ("fit", compared.fit)):
        if values is None:
            continue
        samples = values.astype(np.float32) / compared.peak
        played = samples[: _SOUND // min(2, samples.shape[1])]
        own = compared.rate(len(samples))  # a fit may have been rendered with fewer
        view[f"{name}_player"] = drawing.sound_uri(played, own)
        view[f"{name}_spectrogram"] = _spectrogram(samples.mean(axis=1), own)
        view["played"], view["partly"] = len(played) / own, len(played) < len(samples)
    return view


def line_view(compared: Compared) -> View:
    """One axis: the range of the values in each of at most `_COLUMNS` parts."""
    view: View = {"kind": "line", "unit": (compared.units or ("",))[0]}
    first = float(compared.affine[0, -1] - compared.affine[0, 0])
    extent = 2 * float(compared.affine[0, 0])
    errors = compared.errors
    for name, values in (("original", compared.original), ("fit", compared.fit), ("errors", errors)):
        if values is None:
            continue
        column = values if values.ndim == 1 else values[:, 0]
        starts, low, high = drawing.ranges(column, _COLUMNS)
        view[name] = {
            "x": _rounded(first + extent * (starts + 0.5) / len(column)),
            "low": _rounded(low.astype(np.float64)),
            "high": _rounded(high.astype(np.float64)),
        }
    view["channels"] = 1 if compared.fit is None else int(compared.fit.shape[-1])
    return view


def frames_view(compared: Compared) -> View:
    """Some frames of a video, and of its fit."""
    seconds = 2 * float(compared.affine[0, 0])
    view: View = {"kind": "frames", "seconds": seconds}
    for name, values in (("original", compared.original), ("fit", compared.fit)):
        if values is None:
            continue
        chosen = np.unique(np.linspace(0, len(values) - 1, min(_FRAMES, len(values))).round().astype(int))
        images = [drawing.reduced(drawing.as_image(compared.bytes(values[number])), _FRAME) for number in chosen]
        view[name] = [drawing.picture_uri(image, False, 88) for image in images]
        view["at"] = [round(float(number) * seconds / len(values), 3) for number in chosen]
        view["shown"] = [images[0].height, images[0].width]
    if (errors := compared.errors) is not None:
        side = math.ceil(max(errors.shape[1:]) / _FRAME)
        small = [_box(errors[number], side) for number in chosen]
        view["top"] = top = drawing.lightest(np.stack(small))
        view["range"] = compared.high - compared.low
        view["errors"] = [
            drawing.picture_uri(drawing.as_image(drawing.colours(frame, top)), False, 85) for frame in small
        ]
    return view


def slices_view(compared: Compared) -> View:
    """A volume of three axes, of which slices are looked at; of further axes the first place."""
    cells = [2 * float(np.linalg.norm(compared.affine[:, axis])) for axis in range(3)]
    view: View = {"kind": "slices", "lengths": list(compared.lengths)}
    for name, values in (("original", compared.original), ("fit", compared.fit), ("errors", compared.errors)):
        if values is None:
            continue
        volume = values if name == "errors" else values[..., 0]
        volume = volume.reshape(*volume.shape[:3], -1)[..., 0]
        every = math.ceil(max(volume.shape) / _VOLUME)
        volume = volume[tuple(slice(None, None, min(every, length)) for length in volume.shape)]
        if name == "errors":
            top = drawing.lightest(volume)
            view["top"], view["range"] = top, compared.high - compared.low
            shown = np.clip(np.nan_to_num(volume) * (255 / (top or 1.0)), 0, 255).astype(np.uint8)
        else:
            shown = compared.bytes(volume)
        spacing = [extent / length for extent, length in zip(cells, volume.shape, strict=True)]
        view[name] = drawing.packed(np.frombuffer(_nifti(shown, spacing), dtype=np.uint8))
        view["shape"] = list(volume.shape)
    return view


def surfaces_of(config: Config, run: Run) -> list[Surface]:
    """The meshes of the signal and of its fit, small enough to be turned around; none if there are none to look at."""
    reconstruction = run.reconstruction
    path = Path(config.data.path) if config.data.path else None
    if reconstruction is None or path is None or not path.exists():
        return []
    return config.modality.make().surfaces(path, reconstruction)


def top_of(surfaces: Sequence[Surface]) -> float:
    """The distance between surfaces that is drawn lightest."""
    known = [surface.distances for surface in surfaces if surface.distances is not None]
    return drawing.lightest(np.concatenate(known)) if known else 0.0


def colours_of(surface: Surface, top: float) -> np.ndarray:
    """(V, 3) uint8 colours of a mesh's vertices, by their distance from the other mesh."""
    distances = np.zeros(len(surface.vertices)) if surface.distances is None else surface.distances
    return drawing.colours(distances, top, drawing.CLAY)


def surface_view(config: Config, run: Run) -> View | None:
    """Two meshes to turn around, coloured by their distance from each other."""
    surfaces = surfaces_of(config, run)
    if not surfaces:
        return None
    every = np.concatenate([surface.vertices for surface in surfaces])
    if not len(every):
        return None
    low, high = every.min(axis=0), every.max(axis=0)
    scale = 2 / (float((high - low).max()) or 1.0)
    top = top_of(surfaces)
    diagonal = float(np.linalg.norm(high - low)) or 1.0
    view: View = {"kind": "surface", "top": top, "share": top / diagonal}
    for name, surface in zip(("original", "fit"), surfaces, strict=True):
        view[name] = {
            "vertices": drawing.packed(((surface.vertices - (low + high) / 2) * scale).astype(np.float32)),
            "faces": drawing.packed(surface.faces.astype(np.uint32)),
            "colours": drawing.packed(colours_of(surface, top)),
            "counts": [len(surface.vertices), len(surface.faces)],
        }
    return view


def points_view(run: Run, dataset: CoordinateDataset) -> View | None:
    """Free points: the values that are there against those of the fit, and where the points lie."""
    if dataset.resample_every:
        return None
    chosen = torch.arange(len(dataset))
    if len(chosen) > _POINTS:
        chosen = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))[:_POINTS].sort().values
    points = dataset.coordinates(chosen.to(dataset.device)).cpu()
    original = dataset.stored(chosen.to(dataset.device)).cpu().numpy()[:, 0]
    fit = run.field(points.numpy())[:, 0]
    places = points.numpy() @ dataset.affine[:, :-1].T + dataset.affine[:, -1]
    order = np.argsort(places[:, 0]) if dataset.dimensions == 1 else np.arange(len(places))
    columns = dataset.metadata.get("columns", {})
    return {
        "kind": "points",
        "names": [_named(column) for column in columns.get("coordinates", [])],
        "value": _named((columns.get("values") or [{}])[0]),
        **(_between_points(run, dataset) if dataset.dimensions == 2 else {}),
        "places": [_rounded(axis[order]) for axis in places.T[:3]],
        "original": _rounded(original[order]),
        "fit": _rounded(fit[order]),
        "count": len(dataset),
    }


def _named(column: Mapping[str, str]) -> str:
    """A column's name with its unit."""
    name, unit = column.get("name", ""), column.get("unit", "")
    return f"{name} ({unit})" if name and unit else name


def _between_points(run: Run, dataset: CoordinateDataset) -> View:
    """What the field makes of the rectangle around points of two axes, where these are not turned."""
    affine = dataset.affine
    if affine[0, 1] or affine[1, 0]:
        return {}
    along = (2 * np.arange(_PLANE) + 1 - _PLANE) / _PLANE
    lattice = np.stack(np.meshgrid(along, along[::-1], indexing="xy"), axis=-1).astype(np.float32)
    values = np.asarray(run.field(lattice.reshape(-1, 2)))[:, 0].reshape(_PLANE, _PLANE)
    low, high = drawing.usual_range(values)
    picture = drawing.as_image(drawing.colours(values - low, high - low))
    ends = [[float(affine[axis, -1] + end * affine[axis, axis]) for end in (-1, 1)] for axis in range(2)]
    return {"plane": drawing.picture_uri(picture, True), "ends": ends, "low": low, "high": high}


def selection_view(traced: Traced, dataset: CoordinateDataset | None) -> View | None:
    """How often each coordinate or tile was selected, and the selection at several moments."""
    counts = traced.counts
    if (
        counts is None or not traced.moments or counts.min() == counts.max()
    ):  # where all coordinates train at all steps there is nothing to see
        return None
    view: View = {"kind": "selection", "since": traced.since, "axes": counts.ndim}
    view["of"] = str(traced.about.get("of", "coordinate"))
    view["least"], view["most"] = float(counts.min()), float(counts.max())
    if counts.ndim == 1:
        starts = np.arange(min(_COLUMNS, len(counts))) * len(counts) // min(_COLUMNS, len(counts))
        means = np.add.reduceat(counts, starts) / np.diff([*starts, len(counts)])
        view["line"] = _rounded(means)
        view["moments"] = [{"step": step, "line": _rounded(shares)} for step, shares in traced.moments]
        return view
    if counts.ndim == 3:  # seen through along the first axis
        view["least"], view["most"] = float(counts.mean(axis=0).min()), float(counts.mean(axis=0).max())
    plane = _flat(counts)
    floor = float(plane.min())
    top = float(np.quantile(plane, 0.999)) - floor
    small = _box(plane, math.ceil(max(plane.shape) / 900))
    view["picture"] = drawing.picture_uri(drawing.as_image(drawing.colours(small - floor, top)), quality=85)
    view["floor"], view["top"] = floor, floor + top
    view["moments"] = []
    for step, shares in traced.moments:
        share = _flat(shares)
        drawn = drawing.colours(np.sqrt(share / (share.max() or 1.0)), 1.15)
        view["moments"].append({"step": step, "picture": drawing.picture_uri(drawing.as_image(drawn), True)})
    view["shape"] = list(plane.shape)
    return view


def compare(config: Config, run: Run, dataset: CoordinateDataset | None) -> Compared | None:
    """The signal and its fit as arrays."""
    fitted = _reconstruction(config, run)
    if dataset is not None and fitted is not None and fitted.grid_shape != dataset.grid_shape:
        fitted = None
    about = dataset or fitted
    original = None if dataset is None else _values(dataset)
    fit = _values(fitted) if fitted is not None else _rendered(run)
    if about is None and fit is None:
        return None
    if about is None or about.grid_shape is None:
        field = run.field
        assert fit is not None
        lengths, affine = field.grid_shape or fit.shape[:-1], field.affine
        low, high = field.value_range or (float(fit.min()), float(fit.max()))
        return Compared(None, fit, low, high, None, lengths, affine, ())
    low, high = (about.value_range if about.full_scale else None) or about.extent
    slices = config.modality.plugin.looks == "slices"
    if (about.value_range is None or slices) and original is not None and len(about.grid_shape) > 1:
        few = original.reshape(-1)[:: max(1, original.size >> 20)]
        low, high = drawing.usual_range(few)
    known = None
    if about.known is not None:
        known = np.zeros(math.prod(about.grid_shape), dtype=bool)
        known[about.known.cpu().numpy()] = True
        known = known.reshape(about.grid_shape)[_strides(about)]
    units = config.modality.make().units(about.metadata, about.dimensions)
    return Compared(original, fit, low, high, known, about.grid_shape, about.affine, units)


def _reconstruction(config: Config, run: Run) -> CoordinateDataset | None:
    """The fit as it was written; None if it was not, or is not read as it was."""
    path = run.reconstruction
    plugin = config.modality.plugin
    if path is None:
        return None
    try:
        dataset: CoordinateDataset = plugin(plugin.Options()).read(path)
    except InrkitError:
        return None
    return dataset if dataset.grid_shape is not None else None


def _rendered(run: Run) -> np.ndarray | None:
    """The fit on a lattice that may be coarser than the signal's; None if there is no field."""
    try:
        field = run.field
    except InrkitError:
        return None
    if field.grid_shape is None:
        return None
    count = math.prod(field.grid_shape)
    factor = min(1.0, (_RENDERED / count) ** (1 / len(field.grid_shape)))
    return field.render(tuple(max(1, round(length * factor)) for length in field.grid_shape))


def _strides(dataset: CoordinateDataset) -> tuple[slice, ...]:
    assert dataset.grid_shape is not None
    axes = len(dataset.grid_shape)
    every = math.ceil((max(1.0, len(dataset) * dataset.channels / _READ)) ** (1 / axes))
    return (slice(None, None, every),) * axes


def _values(dataset: CoordinateDataset) -> np.ndarray:
    """(*shape, C) uint8 or float32 values of a lattice, of a large one every n-th along each axis."""
    assert dataset.grid_shape is not None
    if dataset.dtype == np.uint8:
        values = dataset.values.view(*dataset.grid_shape, dataset.channels)[_strides(dataset)]
        bytes_: np.ndarray = values.cpu().numpy()
        return bytes_
    strides = _strides(dataset)
    if strides[0].step == 1:
        whole = dataset.stored(slice(0, len(dataset))).to(torch.float32).cpu().numpy()
        return whole.reshape(*dataset.grid_shape, dataset.channels)
    numbers = torch.arange(len(dataset)).view(dataset.grid_shape)[strides]
    stored = dataset.stored(numbers.reshape(-1).to(dataset.device)).to(torch.float32)
    return stored.cpu().numpy().reshape(*numbers.shape, dataset.channels)


def _as_large(image: Any, size: tuple[int, int]) -> Any:
    from PIL import Image as Pillow

    small = image.size[0] <= size[0]
    return image if image.size == size else image.resize(size, Pillow.Resampling.NEAREST if small else 4)


def _worst(compared: Compared, errors: np.ndarray) -> View:
    """The part with the largest errors, at full resolution."""
    assert compared.original is not None and compared.fit is not None
    coarse = _box(np.nan_to_num(errors), _CROP // 4)
    row, column = np.unravel_index(int(coarse.argmax()), coarse.shape)
    corner = []
    for place, length in zip((row, column), errors.shape, strict=True):
        corner.append(int(np.clip((int(place) + 0.5) * (_CROP // 4) - _CROP / 2, 0, max(0, length - _CROP))))
    part = tuple(slice(first, first + _CROP) for first in corner)
    top = drawing.lightest(errors[part])
    return {
        "corner": corner,
        "original": drawing.picture_uri(drawing.as_image(compared.bytes(compared.original[part])), False, 95),
        "fit": drawing.picture_uri(drawing.as_image(compared.bytes(compared.fit[part])), False, 95),
        "errors": drawing.picture_uri(drawing.as_image(drawing.colours(errors[part], top)), False),
        "top": top,
    }


def _spectrogram(samples: np.ndarray, rate: int) -> View:
    """A picture of the spectrum over time, from −80 dB of its own peak."""
    level = drawing.spectrum(samples, rate)
    shown = drawing.spectrogram(level, float(level.max()))
    image = drawing.reduced(drawing.as_image(shown), 1000)
    return {"picture": drawing.picture_uri(image), "top": rate / 2000}


def _nifti(volume: np.ndarray, spacing: list[float]) -> bytes:
    """A uint8 volume as a NIfTI-1 file (Cox et al. 2004), for the viewer of slices."""
    header = np.zeros(352, dtype=np.uint8)

    def put(offset: int, values: Any, kind: str) -> None:
        content = np.atleast_1d(np.asarray(values, dtype=kind)).view(np.uint8)
        header[offset : offset + len(content)] = content

    put(0, 348, "<i4")
    put(40, [3, *volume.shape, 1, 1, 1, 1], "<i2")
    put(70, [2, 8], "<i2")
    put(76, [1, *spacing, 1, 1, 1, 1], "<f4")
    put(108, [352, 1, 0], "<f4")
    put(252, [0, 1], "<i2")
    for axis in range(3):
        row = [0.0, 0.0, 0.0, -spacing[axis] * (volume.shape[axis] - 1) / 2]
        row[axis] = spacing[axis]
        put(280 + 16 * axis, row, "<f4")
    put(344, np.frombuffer(b"n+1\0", np.uint8), "u1")
    return header.tobytes() + np.asfortranarray(volume).tobytes(order="F")


def _flat(values: np.ndarray) -> np.ndarray:
    """(H, W) of two or three axes, the mean along the first of three."""
    flat: np.ndarray = values.mean(axis=0) if values.ndim == 3 else values
    return flat


def _box(values: np.ndarray, side: int) -> np.ndarray:
    """(H, W) values as means of boxes of so many cells a side."""
    if side <= 1:
        return values
    height, width = (side * max(1, length // side) for length in values.shape)
    if min(values.shape) < side:
        return values[::side, ::side]
    cut = values[:height, :width].reshape(height // side, side, width // side, side)
    means: np.ndarray = cut.mean(axis=(1, 3))
    return means


def _rounded(values: np.ndarray) -> list[float]:
    """Numbers for a plot, with six digits."""
    return [float(f"{value:.6g}") for value in np.nan_to_num(values).tolist()]
