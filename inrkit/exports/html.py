"""A page in which the network itself runs: a picture to zoom, a surface to turn, a volume to slice, a sound to play."""

from __future__ import annotations

import base64
import functools
import math
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.exports.base import Export
from inrkit.exports.glsl import source
from inrkit.exports.plain import WIDTH, Plain, described, plain
from inrkit.exports.portable import CHECKED, in_float32, sampled
from inrkit.exports.telling import kept, size_of, span, units_of
from inrkit.networks import precision_of
from inrkit.runs.drawing import in_script
from inrkit.runs.field import Field
from inrkit.signals.packing import unpacked
from inrkit.signals.transforms import MinMax

_SAMPLED = 1 << 15
"""Coordinates from which the range of what is drawn is found."""
_CELLS = 256
"""Cells along an axis of a signal without a lattice, which only measure lengths."""

_WHAT = {
    "picture": "The picture is computed pixel by pixel as you look at it, so it does not end at its pixels: between "
    "them the network answers too.",
    "frames": "Each frame is computed when it is shown, at any moment, also between the frames that were filmed.",
    "slices": "Each slice is computed as you look at it, at any place, also between the cells of the scan.",
    "surface": "The surface is where the network is zero. Rays walk to it by the distances that the network tells.",
    "sound": "The sound is computed from the network when the page opens; a close look shows it between the samples.",
    "line": "The line is computed as you look at it, also between the samples.",
}
_HINTS = {
    "picture": "drag to move, wheel or pinch to zoom",
    "frames": "drag to move, wheel or pinch to zoom",
    "slices": "tap a place, or move the sliders; wheel or pinch to zoom",
    "surface": "drag to turn, wheel or pinch to zoom, shift and drag to move",
    "sound": "tap to go there, wheel or pinch to zoom",
    "line": "wheel or pinch to zoom",
}


class Html(Export):
    """A page in which the network itself runs, by WebGL2 or JavaScript. Of at most 3 dimensions and 4 channels."""

    def write(self, field: Field, aside: Path, path: Path) -> str:
        rough = precision_of(field.network) != "float32"
        with in_float32(field):
            numbers = plain(field, "a page")
            places = sampled(field, CHECKED)
            expected = field(places, physical=True)
            shown = _shown(field, numbers, expected)
        text = _page(path.stem, field, numbers, shown, places, expected, rough)
        aside.write_text(text, encoding="utf-8", newline="\n")
        told = "open it in a browser, where it compares itself with Python's field"
        return f"{path}: {size_of(len(text.encode()))}; {kept(field, mask=True)}; {told}"


def _shown(field: Field, numbers: Plain, expected: np.ndarray) -> dict[str, Any]:
    """What the page's program draws."""
    kind = _kind(field)
    shape = field.grid_shape or (numbers.grid.lattice if numbers.grid else (_CELLS,) * field.dimensions)
    linear = np.asarray(field.affine, dtype=np.float64)[:, :-1]
    largest = [int(np.abs(column).argmax()) for column in linear.T]
    units = field.units
    upright = kind == "slices" and set(units) == {"mm"}
    low, high, peak = _extent(field, kind)
    scale = float(np.linalg.norm(linear, axis=0).max())
    return {
        "kind": kind,
        "plain": described(numbers),
        "width": WIDTH,
        "shape": list(shape),
        "cell": [2 * float(np.linalg.norm(column)) / n for column, n in zip(linear.T, shape, strict=True)],
        "affine": np.asarray(field.affine, dtype=np.float64).tolist(),
        "units": list(units),
        "axes": [f"{'xyz'[largest[axis]]}" if upright else f"axis {axis + 1}" for axis in range(field.dimensions)],
        "upright": upright,
        "turned": [bool(linear[largest[axis], axis] < 0) for axis in range(field.dimensions)],
        "turnedTo": largest,
        "extent": [low, high],
        "alpha": field.channels == 4 and field.dtype.kind == "u",
        "span": span(field, expected),
        "hint": _HINTS[kind],
        "known": field.grid_shape is not None and "known" in field.metadata,
        "rate": shape[0] / (2 * abs(float(linear[0, 0])) or 1.0) if kind == "sound" else 0,
        "peak": peak,
        "scale": scale,
        "level": field.modality.level(field.metadata, field.affine, (128,) * 3) if kind == "surface" else 0.0,
    }


def _kind(field: Field) -> str:
    """How people look at the signal."""
    looks = field.modality.looks if field.names["modality"] else ""
    axes = {"picture": 2, "sound": 1, "frames": 3, "slices": 3, "surface": 3}
    if axes.get(looks) == field.dimensions and (looks != "surface" or field.channels == 1):
        return looks
    return {1: "line", 2: "picture", 3: "slices"}[field.dimensions]


def _extent(field: Field, kind: str) -> tuple[float, float, float]:
    """The values that are drawn darkest and lightest, or lowest and highest; and the largest that a sound may have."""
    if kind in ("sound", "line") and isinstance(field.transform, MinMax):
        low, high = float(np.min(field.transform.low)), float(np.max(field.transform.high))
    elif field.dtype == np.uint8 and kind in ("picture", "frames"):
        low, high = 0.0, 255.0
    else:
        count = max(2, round(_SAMPLED ** (1 / field.dimensions)))
        lattice = tuple(min(count, n) for n in field.grid_shape or (count,) * field.dimensions)
        values = field.render(lattice, dtype=np.float32)
        low, high = (float(np.quantile(values, share)) for share in (0.001, 0.9995))
    most = max(abs(low), abs(high)) or 1.0
    if kind == "sound":
        full = field.value_range
        return -most, most, max(abs(full[0]), abs(full[1])) if full else max(1.0, most)
    return low, high if high > low else low + 1.0, most


def _page(
    title: str,
    field: Field,
    numbers: Plain,
    shown: dict[str, Any],
    places: np.ndarray,
    expected: np.ndarray,
    rough: bool,
) -> str:
    known = ""
    if shown["known"]:
        assert field.grid_shape is not None
        known = _base64(np.packbits(unpacked(field.metadata["known"], field.grid_shape)))
    axes = field.dimensions
    flat = {1: "at", 2: "at.x * lattice.y + at.y", 3: "(at.x * lattice.y + at.y) * lattice.z + at.z"}[axes]
    part = ("x", "xy", "xyz")[axes - 1]
    shaders = _template("shaders.html").render(
        kind=shown["kind"],
        axes=axes,
        width=WIDTH,
        shift=WIDTH.bit_length() - 1,
        cell=f"{'int' if axes == 1 else f'ivec{axes}'}(cell.{part})",
        rest=f"rest.{part}",
        flat=flat,
    )
    text: str = _template("page.html").render(
        title=title,
        lead=_lead(field, numbers, shown["kind"]),
        what=_WHAT[shown["kind"]],
        facts=_facts(field, numbers, rough),
        example=", ".join(f"{place:.6g}" for place in places[0]),
        version=metadata.version("inrkit"),
        **{
            name: _safe(content)
            for name, content in {
                "css": _read("page.css"),
                "js": _read("field.js") + _read("views.js"),
                "about": in_script(shown),
                "places": _base64(places.astype("<f8")),
                "expected": _base64(expected.astype("<f4")),
                "known": known,
                "source": source(numbers),
                "shaders": shaders,
                "weights": _base64(numbers.texture.astype("<f4")),
            }.items()
        },
    )
    return text


def _lead(field: Field, numbers: Plain, kind: str) -> str:
    """A line on what it is."""
    if kind == "sound":
        assert field.grid_shape is not None
        extent = f"{2 * abs(float(field.affine[0][0])):.3g} s, {field.grid_shape[0]:,} samples"
    elif kind == "surface":
        extent = "a surface"
    else:
        extent = " × ".join(f"{length:,}" for length in field.grid_shape) if field.grid_shape else "a field"
    return f"{extent} · {_networks(numbers)}"


def _networks(numbers: Plain) -> str:
    count = "one network" if numbers.networks == 1 else f"{numbers.networks:,} small networks"
    return f"{count}, {numbers.parameters:,} parameters"


def _facts(field: Field, numbers: Plain, rough: bool) -> list[tuple[str, str]]:
    """What the page keeps of the field."""
    units = units_of(field)
    tiles = f", of {math.prod(numbers.grid.counts):,} tiles, blended where they overlap" if numbers.grid else ""
    clipped = f", clipped to {field.value_range[0]:g} … {field.value_range[1]:g}" if field.value_range else ""
    channels = "1 channel" if field.channels == 1 else f"{field.channels} channels"
    facts = [
        ("network", f"{numbers.name}, {_networks(numbers)}{tiles}"),
        ("coordinates", f"physical: {units}" if units else "physical"),
        ("values", f"{channels} in the units of the stored {field.dtype}{clipped}"),
    ]
    if "known" in field.metadata:
        facts.append(("mask", "what is not known is left blank; the field has values there all the same"))
    if rough:
        facts.append(("precision", "float32; the run multiplied in a lower precision"))
    return facts


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


@functools.cache
def _template(name: str) -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(name)


def _safe(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


@functools.cache
def _read(name: str) -> str:
    return resources.files("inrkit.exports").joinpath(f"templates/{name}").read_text(encoding="utf-8")
