"""report.html of a study: curves of its groups, and a table of its runs to sort, to filter, and to go to each from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from inrkit.errors import DataError, InrkitError
from inrkit.files import from_json, write_text
from inrkit.reports.html import page
from inrkit.reports.run_page import FILE
from inrkit.runs import drawing
from inrkit.runs.run import Run, is_number
from inrkit.runs.wording import duration, metric_in_words

_FIXED = ("id", "status", "phase", "seconds", "steps", "error", "folder")
_AVERAGED = ("data.path", "seed")
"""Axes that make no groups."""
_LESS = ("seconds", "chamfer")
"""Numbers of a run, besides its registered metrics, of which less is better."""
_GROUPS = 40
"""Groups that have a curve, at most."""
_SUMMARISED = 400
"""Groups that are listed, at most."""
_POINTS = 120
"""Points of a group's curve."""
_THUMBNAILS = 400
"""Runs that have a picture, at most."""
_FIRST = 200
"""Rows of the table that a page has without its program, which shows as many at first."""
_FAILURES = 100
"""Failed runs that are listed with their reasons, at most."""
_SETTINGS = 1 << 16
"""Characters of study.yaml that are shown: it lists every file."""
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_LARGEST = 1 << 24
"""Pixels of a picture above which it is not opened for a thumbnail."""

Row = Mapping[str, Any]


def write_study_page(folder: Path) -> Path:
    """Write a study's report.html from the files in its folder.

    Returns:
        The file.

    Raises:
        DataError: results.jsonl is missing or damaged.
        RunError: the page cannot be written.
    """
    write_text(folder / FILE, study_page(folder))
    return folder / FILE


def study_page(folder: Path) -> str:
    """A study's page as text; errors are those of `write_study_page`."""
    rows = _results(folder / "results.jsonl")
    runs = {row["id"]: Run(folder / row["folder"]) for row in rows if row.get("folder")}
    metrics = _metrics(rows, runs)
    for number, row in enumerate(rows, 1):
        if not all(is_number(row.get(name)) for name in metrics):
            raise DataError(f"{folder / 'results.jsonl'} is damaged at line {number}; run the study again")
    axes = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in (*_FIXED, *metrics)]
    varying = [axis for axis in axes if len({str(row.get(axis)) for row in rows}) > 1]
    groups = _groups(rows, runs, [axis for axis in varying if axis not in _AVERAGED], metrics)
    statuses = {status: sum(row["status"] == status for row in rows) for status in _order(rows)}
    title, unit = _titled(metrics[0]) if metrics else ("", "")
    return page(
        "study.html",
        {"groups": groups, "metric": f"{title} {unit}".strip()},
        ["plotly"] if groups else [],
        title=folder.absolute().name,
        statuses=statuses,
        lead=_lead(rows, statuses, varying, metrics),
        columns=[*varying, *metrics, "seconds", "steps"],
        numbers={*metrics, "seconds", "steps"},
        lower=[name for name in metrics if not _larger_is_better(name)],
        titles={name: " ".join(filter(None, _titled(name))) for name in metrics},
        rows=[_shown(row, runs.get(row["id"]), folder, varying, metrics, n) for n, row in enumerate(rows)],
        first=_FIRST,
        failures=[row for row in rows if row.get("error")],
        listed=_FAILURES,
        groups=groups,
        summary=groups and _summary(rows, [axis for axis in varying if axis not in _AVERAGED], metrics),
        grouped=[axis for axis in varying if axis not in _AVERAGED],
        metrics=metrics,
        command=f"inrkit batch {folder / 'study.yaml'} --out {folder}",
        settings=_text(folder / "study.yaml"),
    )


def _results(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; run the study first") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = from_json(line)
            if not all(is_number(row.get(name)) for name in ("seconds", "steps")):
                raise ValueError("numbers")
            if not all(isinstance(row.get(name), str | None) for name in ("folder", "error")):
                raise ValueError("words")
            rows.append({**row, "status": str(row["status"]), "id": str(row["id"] or f"row {number}")})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is damaged at line {number}; run the study again, which writes it anew") from error
    return rows


def _metrics(rows: Sequence[Row], runs: Mapping[str, Run]) -> list[str]:
    """Names of the metrics of runs that are done, in the runs' order."""
    names: dict[str, None] = {}
    for row in rows:
        if row["status"] == "done" and row["id"] in runs:
            try:
                names |= dict.fromkeys(name for name in runs[row["id"]].result.get("metrics", {}) if name in row)
            except (OSError, ValueError, AttributeError):
                continue
    return list(names)


def _groups(
    rows: Sequence[Row], runs: Mapping[str, Run], axes: Sequence[str], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Median and spread of the first metric over the training, of each group of runs that are done."""
    if not metrics:
        return []
    members: dict[str, list[list[dict[str, float]]]] = {}
    for row in rows:
        if row["status"] != "done" or row.get("phase", "main") != "main" or row["id"] not in runs:
            continue
        try:
            history = [each for each in runs[row["id"]].history if math.isfinite(each.get(metrics[0], math.nan))]
        except (InrkitError, OSError):
            continue
        if history:
            members.setdefault(_name(row, axes), []).append(history)
    groups = []
    for name, histories in list(members.items())[:_GROUPS]:
        group: dict[str, Any] = {"name": name, "count": len(histories)}
        for over, key in (("steps", "step"), ("seconds", "seconds")):
            first = max(history[0][key] for history in histories)
            last = min(history[-1][key] for history in histories)
            at = np.linspace(first, max(first, last), _POINTS if last > first else 1)
            read = np.array(
                [
                    np.interp(at, [each[key] for each in history], [each[metrics[0]] for each in history])
                    for history in histories
                ]
            )
            low, median, high = np.quantile(read, [0.25, 0.5, 0.75], axis=0)
            told = {"x": at, "median": median, "low": low, "high": high}
            group[over] = {part: [float(f"{value:.6g}") for value in values] for part, values in told.items()}
        groups.append(group)
    return groups


def _name(row: Row, axes: Sequence[str]) -> str:
    return ", ".join(str(row.get(axis)) for axis in axes) or "all runs"


def _summary(rows: Sequence[Row], axes: Sequence[str], metrics: Sequence[str]) -> list[list[Any]]:
    """A row for each group: its name; then pairs of texts, how many runs, and of each metric the median and the range
    of its middle half."""
    members: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] == "done" and row.get("phase", "main") == "main":
            members.setdefault(_name(row, axes), []).append(row)
    told = []
    for name, group in list(members.items())[:_SUMMARISED]:
        cells: list[Any] = [name, (str(len(group)), "")]
        for metric in [*metrics, "seconds"]:
            values = [math.inf if row[metric] is None else float(row[metric]) for row in group if metric in row]
            finite = [value for value in values if math.isfinite(value)]
            if not finite:
                cells.append(("∞" if values else "", ""))
                continue
            low, median, high = np.quantile(finite, [0.25, 0.5, 0.75])
            median, low, high = (_short(metric, value) for value in (median, low, high))
            cells.append((median, f"{low} to {high}" if len(finite) > 1 else ""))
        told.append(cells)
    return told


def _short(metric: str, value: float) -> str:
    """A metric's value without its unit, or seconds."""
    if metric == "seconds":
        return f"{value:.3g}"
    return metric_in_words(metric, value)[1].partition(" ")[0]


def _shown(
    row: Row, run: Run | None, folder: Path, axes: Sequence[str], metrics: Sequence[str], number: int
) -> dict[str, Any]:
    """A row of the table."""
    cells = []
    for axis in axes:
        value = row.get(axis)
        text = Path(value).name if axis == "data.path" and isinstance(value, str) else str(value)
        cells.append({"text": text, "value": value if isinstance(value, int | float) else text})
    for name in [*metrics, "seconds", "steps"]:
        value = row.get(name)
        if value is None:
            infinite = name in metrics and name in row and row["status"] == "done"
            cells.append({"text": "∞" if infinite else "", "value": "1e999" if infinite else ""})
        elif name == "steps":
            cells.append({"text": f"{int(value):,}", "value": value})
        else:
            text = duration(value) if name == "seconds" else _short(name, value)
            cells.append({"text": text, "value": value})
    link = None
    if run is not None and run.exists:
        link = quote(f"{row['folder']}/{FILE if (run.folder / FILE).exists() else ''}")
    return {
        "number": number + 1,
        "name": f"run {number + 1}",
        "link": link,
        "status": row["status"],
        "cells": cells,
        "thumbnail": _thumbnail(run) if run is not None and number < _THUMBNAILS and row["status"] == "done" else None,
    }


def _thumbnail(run: Run) -> str | None:
    """A small picture of what a run fitted, if that is a picture."""
    from PIL import Image

    path = run.reconstruction
    if path is None or path.suffix.lower() not in _PICTURES:
        return None
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > _LARGEST or opened.mode.startswith(("I", "F")):
                return None
            opened.draft("RGB", (112, 112))
            image = opened.convert("RGB")
    except Exception:  # a decoder may raise anything at a damaged file
        return None
    image.thumbnail((112, 112))
    return drawing.picture_uri(image, False, 80)


def _lead(rows: Sequence[Row], statuses: Mapping[str, int], varying: Sequence[str], metrics: Sequence[str]) -> str:
    counted = ", ".join(f"{count:,} {status}" for status, count in statuses.items() if count)
    over = f", over {', '.join(varying)}" if varying else ""
    told = f"{len(rows):,} runs{over}: {counted}."
    done = [row for row in rows if metrics and row["status"] == "done" and isinstance(row.get(metrics[0]), float)]
    if done:
        best = (max if _larger_is_better(metrics[0]) else min)(done, key=lambda row: row[metrics[0]])
        title, value = metric_in_words(metrics[0], best[metrics[0]])
        told += f" The best {title} is {value}" + (f", with {_told(best, varying)}." if varying else ".")
    return told


def _told(row: Row, axes: Sequence[str]) -> str:
    return ", ".join(f"{axis}={row.get(axis)}" for axis in axes)


def _larger_is_better(name: str) -> bool:
    from inrkit.evaluation.metrics import METRICS

    metric = METRICS.find(name)
    return name not in _LESS if metric is None else metric.higher_is_better


def _titled(name: str) -> tuple[str, str]:
    title, text = metric_in_words(name, 0.0)
    return title, text.partition(" ")[2]


def _order(rows: Sequence[Row]) -> list[str]:
    known = ["done", "failed", "interrupted", "pending"]
    return [*known, *sorted({row["status"] for row in rows} - set(known))]


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text if len(text) <= _SETTINGS else f"{text[:_SETTINGS]}\n… ({path.name} has the rest)"
