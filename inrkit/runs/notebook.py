"""A run at a prompt and in a notebook; it is shown without an error whatever the state of its files."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.runs.drawing import data_uri
from inrkit.runs.wording import duration, metric_in_words

_WIDTH = 512
"""Pixels of a picture's longer side."""
_LARGEST = 1 << 26
"""Pixels of a picture above which it is not opened for a thumbnail."""


def in_a_line(folder: Path, result: Mapping[str, Any]) -> str:
    """A run's status, first metric and seconds of training: `Run('runs/photo': done, PSNR 38.21 dB, 23 s)`.

    Args:
        folder: of the run.
        result: the content of result.json, with a status in any case.
    """
    told = [str(result["status"]), *(" ".join(metric) for metric in _metrics(result)[:1]), *_training(result)]
    return f"Run({str(folder)!r}: {', '.join(told)})"


def as_html(folder: Path, result: Mapping[str, Any], reconstruction: Path | None) -> str:
    """A run as a table, below its reconstruction if that is a picture.

    Args:
        folder: of the run.
        result: the content of result.json, with a status in any case.
        reconstruction: its file, if there is one.
    """
    rows = [
        *((name, str(result[name]).partition("\n")[0]) for name in ("status", "error", "modality") if name in result),
        *_metrics(result),
        *((name, f"{result[name]:,}") for name in ("steps", "parameters") if isinstance(result.get(name), int)),
        *(("training", seconds) for seconds in _training(result)),
        *((name, str(result[name])) for name in ("device",) if name in result),
    ]
    picture = None if reconstruction is None else _thumbnail(reconstruction)
    shown = "" if picture is None else f'<img src="{data_uri("image/png", picture)}"/>'
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<div><b>{escape(str(folder))}</b><br/>{shown}<table>{cells}</table></div>"


def _metrics(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The titles and values of the metrics that are numbers."""
    metrics = result.get("metrics")
    words = []
    for name, value in metrics.items() if isinstance(metrics, dict) else ():
        number = math.inf if value is None else value  # JSON has no number for an infinite PSNR
        if not isinstance(number, int | float):
            continue
        words.append(metric_in_words(name, number))
    return words


def _training(result: Mapping[str, Any]) -> list[str]:
    """The time of training, if it is known."""
    seconds = result.get("seconds")
    train = seconds.get("train") if isinstance(seconds, dict) else None
    return [duration(train)] if isinstance(train, int | float) else []


def _thumbnail(path: Path) -> bytes | None:
    """A small PNG of a picture; None if the file is not a still picture."""
    from PIL import Image, ImageOps

    # A notebook goes on whatever a decoder raises at a damaged file.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=("PNG", "TIFF", "JPEG", "WEBP", "BMP")) as opened:
            if getattr(opened, "n_frames", 1) > 1 or math.prod(opened.size) > _LARGEST:
                return None
            picture: Image.Image = opened
            if picture.mode == "F" or picture.mode.startswith("I"):  # numbers of any range
                values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
                spread = (values - values.min()) * (255 / (np.ptp(values) or 1))
                picture = Image.fromarray(spread.astype(np.uint8))
            picture = ImageOps.contain(picture, (_WIDTH, _WIDTH)) if max(picture.size) > _WIDTH else picture
            file = io.BytesIO()
            picture.save(file, "PNG")
            return file.getvalue()
    return None
