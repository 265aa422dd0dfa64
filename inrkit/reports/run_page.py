"""report.html of a run: what was fitted, how well, how the training went, and how to do it again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.config import Config, commented_yaml
from inrkit.errors import InrkitError
from inrkit.files import write_text
from inrkit.reports import trace
from inrkit.reports.citations import cited
from inrkit.reports.film import film_uri
from inrkit.reports.html import page
from inrkit.reports.trace import Traced
from inrkit.reports.views import View, views
from inrkit.runs.run import Run
from inrkit.runs.wording import duration, metric_in_words
from inrkit.signals.dataset import CoordinateDataset

FILE = "report.html"

_CLEARER = {"between": "between samples", "iou": "IoU", "chamfer": "Chamfer", "f_score": "F-score"}
"""Titles of metrics, where a page has room for others."""
_ROWS = 400
"""Evaluations in the page's table; of more every n-th."""
_FILES = 50
"""Compressed files in the page's table, the last ones."""
_POINTS = 600
"""Points of a curve."""


def write_run_page(
    run: Run, dataset: CoordinateDataset | None = None, traced: Traced | None = None, config: Config | None = None
) -> Path:
    """Write a run's report.html.

    Args:
        run: done, interrupted or failed.
        dataset: its signal; read from the config's file if not given.
        traced: of its training; read from the run's folder if not given.
        config: of the run, if this process has it.

    Returns:
        The file.

    Raises:
        ConfigError: the folder holds no run.
        RunError: the page cannot be written.
    """
    path = run.folder / FILE
    write_text(path, run_page(run, dataset, traced, config))
    return path


def run_page(
    run: Run, dataset: CoordinateDataset | None = None, traced: Traced | None = None, config: Config | None = None
) -> str:
    """A run's page as text; arguments and errors are those of `write_run_page`."""
    config = config or run.config
    result, history = run.result, run.history
    notes: list[str] = []
    if dataset is None:
        dataset, reason = _signal(config)
        notes += [reason] if reason else []
    traced = traced or trace.read(run.folder / trace.FILE)
    shown, missing = views(config, run, dataset, traced) if result.get("status") != "failed" else ([], [])
    notes += missing
    if dataset is not None:
        notes += dataset.metadata.get("notes", [])
    curves = _curves(history, traced)
    name = Path(config.data.path).name if config.data.path else run.folder.name
    folder = run.folder.absolute()
    return page(
        "run.html",
        {
            "views": [_drawn(view) for view in shown],
            "curves": curves,
            "key_steps": None if traced is None else _key_steps(traced),
        },
        _libraries(shown, bool(curves)),
        title=name,
        status=result.get("status", "unfinished"),
        modality=config.modality.name,
        device=result.get("device", ""),
        error=str(result.get("error", "")),
        lead=_lead(name, config, result, dataset),
        stats=_stats(result),
        notes=notes,
        views=shown,
        film=film_uri(run),
        curves=curves,
        key_steps=0 if traced is None else len(traced.key_steps),
        columns=_columns(history),
        rows=_rows(history),
        times=_times(result),
        total=duration((result.get("seconds") or {}).get("total", 0.0)),
        compressed=_compressed(run),
        facts=_facts(config, run, result, dataset, traced),
        command=" --out ".join(
            [f"inrkit fit {shlex.quote(str(folder / 'config.yaml'))}", shlex.quote(f"{folder}-again")]
        ),
        settings=commented_yaml(config.to_dict()),
        bibtex=cited(config),
    )


def _signal(config: Config) -> tuple[CoordinateDataset | None, str]:
    """The signal that a config names, or why it is not there."""
    from inrkit.runs.build import read_signal

    if not config.data.path:
        return None, "The signal was given in Python and is not kept, so the fit stands alone here."
    try:
        return read_signal(config).dataset, ""
    except InrkitError as error:
        return None, f"The signal cannot be read again, so the fit stands alone here: {error}"


def _libraries(shown: Sequence[View], curves: bool) -> list[str]:
    kinds = {view["kind"] for view in shown}
    plots = curves or kinds & {"sound", "line", "points", "selection"}
    wanted = {"plotly": bool(plots), "three": "surface" in kinds, "niivue": "slices" in kinds}
    return [name for name, needed in wanted.items() if needed]


def _drawn(view: View) -> View:
    """The part of a view that the page's program draws; the template has the rest."""
    left_out = {"detail", "original_player", "fit_player", "original_spectrogram", "fit_spectrogram", "moments"}
    if view["kind"] == "selection":
        left_out |= {"picture"}
    return {name: value for name, value in view.items() if name not in left_out}


def _lead(name: str, config: Config, result: Mapping[str, Any], dataset: CoordinateDataset | None) -> Any:
    from markupsafe import Markup

    metrics = _words(result.get("metrics"))
    what = Markup("<strong>{}</strong>, ").format(name) + _extent(config, dataset)
    network = config.network.name
    seconds = (result.get("seconds") or {}).get("train")
    if not metrics or seconds is None:
        return what + Markup(", by a {} network.").format(network)
    told = Markup(", fitted by a {} network to <strong>{} {}</strong> at the samples").format(network, *metrics[0])
    between = [value for name, (_, value) in zip(result["metrics"], metrics, strict=True) if name == "between"]
    if between:
        told += Markup(" and <strong>{}</strong> between them").format(between[0])
    return what + told + Markup(" in <strong>{}</strong> of training.").format(duration(seconds))


def _extent(config: Config, dataset: CoordinateDataset | None) -> str:
    if dataset is None:
        return f"a signal of modality {config.modality.name}"
    channels = f"{dataset.channels} channel{'' if dataset.channels == 1 else 's'}"
    if dataset.grid_shape is None:
        return f"{len(dataset):,} points in {dataset.dimensions} dimensions with {channels}"
    return f"{' × '.join(f'{length:,}' for length in dataset.grid_shape)} values of {channels}"


def _words(metrics: Any) -> list[tuple[str, str]]:
    words = []
    for name, value in (metrics or {}).items() if isinstance(metrics, dict) else ():
        number = math.inf if value is None else float(value)
        words.append(_in_words(name, number))
    return [(_CLEARER.get(title, title.replace("_", " ")), value) for title, value in words]


def _in_words(name: str, number: float) -> tuple[str, str]:
    """As `metric_in_words`; small numbers keep two digits."""
    title, text = metric_in_words(name, number)
    return title, f"{number:.2g}" if 0 < number < 0.001 and " " not in text else text


def _stats(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The large numbers at the top: name, value, unit."""
    told = []
    for title, text in _words(result.get("metrics"))[:4]:
        value, _, unit = text.partition(" ")
        told.append((title, value.replace("inf", "∞"), unit))
    seconds = result.get("seconds") or {}
    if "train" in seconds:
        value, _, unit = duration(seconds["train"]).partition(" ")
        told.append(("training", value, unit))
    if result.get("steps"):
        told.append(("steps", f"{result['steps']:,}", ""))
    if result.get("parameters"):
        told.append(("parameters", _short(result["parameters"]), ""))
    if result.get("coordinates"):
        told.append(("coordinates", _short(result["coordinates"]), ""))
    return told


def _short(count: int) -> str:
    for factor, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= 10 * factor or (factor > 1000 and count >= factor):
            return f"{count / factor:.3g} {letter}"
    return f"{count:,}"


def _curves(history: Sequence[Mapping[str, float]], traced: Traced | None) -> list[dict[str, Any]]:
    """The plots of a training, each with its lines."""
    made = []
    names = [name for name in _columns(history) if name not in ("step", "seconds")]
    if names and len(history) > 1:
        name = names[0]
        rows = [row for row in history if math.isfinite(row.get(name, math.nan))]
        title, unit = _titled(name)
        if rows:
            made.append(
                {
                    "name": "metric",
                    "title": title,
                    "unit": unit,
                    "alt": f"{title} over the training, from {rows[0][name]:.4g} to {rows[-1][name]:.4g} {unit}",
                    "floor": min(row[name] for row in rows),
                    "marks": False,
                    "lines": [_line(title, rows, name)],
                }
            )
    if traced is None or len(traced.rows) < 2:
        return made
    steps, seconds, loss, share, rate = _thinned(traced.rows).T
    for name, title, values in (
        ("loss", "Loss", loss),
        ("share", "Share of the coordinates that a step trains on", share),
        ("rate", "Learning rate", rate),
    ):
        finite = values[np.isfinite(values) & (values > 0)] if name == "loss" else values
        if not len(finite):
            continue
        floor = float(finite.min())
        log = name == "loss"
        made.append(
            {
                "name": name,
                "title": title,
                "unit": "",
                "log": log,
                "share": name == "share",
                "decades": float(np.log10(finite.max() / finite.min())) if log else 0.0,
                "alt": f"{title} over the training, from {values[0]:.3g} to {values[-1]:.3g}",
                "floor": floor,
                "marks": name in ("loss", "share"),
                "lines": [
                    {
                        "name": title.partition(" of")[0],
                        "steps": steps.tolist(),
                        "seconds": _plain(seconds),
                        "y": _plain(values),
                    }
                ],
            }
        )
    return made


def _line(title: str, rows: Sequence[Mapping[str, float]], name: str) -> dict[str, Any]:
    rows = rows[:: max(1, len(rows) // _POINTS)]
    return {
        "name": title,
        "steps": [row["step"] for row in rows],
        "seconds": [float(f"{row['seconds']:.5g}") for row in rows],
        "y": [float(f"{row[name]:.6g}") for row in rows],
    }


def _thinned(rows: np.ndarray) -> np.ndarray:
    """Rows for a plot: the loss of each is the mean of those that it stands for."""
    every = -(-len(rows) // _POINTS)
    if every <= 1:
        return rows
    starts = np.arange(0, len(rows), every)
    thinned: np.ndarray = np.add.reduceat(rows, starts, axis=0) / np.diff([*starts, len(rows)])[:, None]
    thinned[:, 0] = np.rint(thinned[:, 0])
    return thinned


def _key_steps(traced: Traced) -> dict[str, list[float]]:
    steps = traced.key_steps[:: max(1, len(traced.key_steps) // _POINTS)]
    if not len(traced.rows):
        return {"steps": [], "seconds": []}
    seconds = np.interp(steps, traced.rows[:, 0], traced.rows[:, 1]) if steps else np.empty(0)
    return {"steps": [float(step) for step in steps], "seconds": _plain(seconds)}


def _plain(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]


def _titled(name: str) -> tuple[str, str]:
    """A metric's title and unit."""
    title, text = _words({name: 0.0})[0]
    return title, text.partition(" ")[2]


def _columns(history: Sequence[Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for row in history for name in row))


def _rows(history: Sequence[Mapping[str, float]]) -> list[list[str]]:
    names = _columns(history)
    kept = list(history)[:: max(1, -(-len(history) // _ROWS))]
    return [
        [f"{int(row[name]):,}" if name == "step" else f"{row[name]:.5g}" if name in row else "" for name in names]
        for row in kept
    ]


def _compressed(run: Run) -> list[list[str]]:
    """A row for each file that the run was compressed to: name, bytes, bits a value, bits a parameter, PSNR."""
    try:
        rows = run.compressed
    except InrkitError:
        return []
    return [
        [
            row["file"],
            f"{int(row.get('bytes', 0)):,}",
            *(f"{row[name]:.3g}" if name in row else "" for name in ("bits_per_value", "bits_per_parameter")),
            *(f"{row[name]:.2f}" if name in row else "" for name in ("psnr_before", "psnr_after")),
        ]
        for row in rows[-_FILES:]
    ]


def _times(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of the time that the run took."""
    seconds = result.get("seconds") or {}
    total, train = seconds.get("total") or 0.0, seconds.get("train") or 0.0
    if total <= 0 or train <= 0:
        return []
    selection, evaluation = seconds.get("selection", 0.0), seconds.get("evaluation", 0.0)
    parts = {
        "network: forward, backward, step": train - selection,
        "choosing coordinates": selection,
        "evaluations": evaluation,
        "reading, writing and the rest": max(0.0, total - train - evaluation),
    }
    whole = sum(parts.values())
    return [{"name": name, "text": duration(part), "share": part / whole} for name, part in parts.items() if part > 0]


def _facts(
    config: Config,
    run: Run,
    result: Mapping[str, Any],
    dataset: CoordinateDataset | None,
    traced: Traced | None,
) -> list[tuple[str, str]]:
    facts = [("folder", str(run.folder.absolute()))]
    if config.data.path:
        facts.append(("signal", config.data.path))
    if dataset is not None:
        facts.append(("values", f"{_extent(config, dataset)}, {dataset.dtype}"))
    for slot in ("network", "selector", "objective", "optimizer", "schedule", "transform"):
        facts.append((slot, config.choices[slot].name))
    parameters, coordinates = result.get("parameters"), result.get("coordinates")
    if parameters and coordinates and dataset is not None:
        facts.append(("values a parameter", f"{coordinates * dataset.channels / parameters:.3g}"))
    facts += [(title, value) for title, value in _words(result.get("metrics"))]
    if "regions" in result:
        facts.append(("regions", f"{result['regions']}, fitted by {result.get('workers', 1)} at a time"))
    for name in ("precision", "seed"):
        if name in result:
            facts.append((name, str(result[name])))
    machine = None if traced is None else traced.about.get("machine")
    told = [str(result.get("device", "")), *([machine] if machine else [])]
    facts.append(("machine", ", ".join(filter(None, told))))
    versions = result.get("versions") or {}
    facts.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return [(name, value) for name, value in facts if value]
