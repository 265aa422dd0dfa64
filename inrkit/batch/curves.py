"""curves.png: the first metric over steps and over seconds, one line for each group."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from inrkit.batch.results import Results
from inrkit.batch.study import Study
from inrkit.batch.summary import Layout, grouped, measures
from inrkit.evaluation.metrics import METRICS
from inrkit.files import written_whole

_POINTS = 200
"""Points of a line."""
_BANDS = 6
"""With up to so many lines, each has a band. More bands would hide each other."""


def draw_curves(study: Study, results: Results) -> str | None:
    """Draw curves.png from the jobs that are done.

    A line is the mean of a group. Where there are few lines, a band shows one standard deviation. The histories of a
    group are read at common steps, or seconds, in the range that all of them cover.

    Returns:
        Why curves.png could not be drawn, in one line; None if it was, or if no job is done yet.
    """
    done = [job for job in results.jobs if job.phase == "main" and results.state(job).status == "done"]
    if not done:
        return None
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError:
        return "no curves.png without matplotlib; pip install 'inrkit[plots]'"
    metric = measures(study, results)[0].partition("@")[0]
    layout = Layout.of(study, done)
    # What divides the tables, and their columns, get a row of panels each; a row of the tables gets a color.
    apart = [*layout.tables, *layout.columns]
    parts, rows = list(grouped(done, apart)), list(grouped(done, layout.rows))
    groups = grouped(done, [*apart, *layout.rows])
    colors = {row: colormaps["turbo"](number / len(rows)) for number, row in enumerate(rows)}
    if len(rows) <= 10:
        colors = dict(zip(rows, colormaps["tab10"].colors, strict=False))  # type: ignore[attr-defined]
    figure = Figure(figsize=(12, max(4.2 * len(parts), 0.25 * len(rows) + 1)), layout="constrained")
    panels = figure.subplots(len(parts), 2, squeeze=False, sharey="row", sharex="col")
    lines = {}
    for part, row in itertools.product(parts, rows):
        histories = [results.history(job) for job in groups.get((*part, *row), [])]
        histories = [[entry for entry in entries if np.isfinite(entry.get(metric, np.nan))] for entries in histories]
        histories = [entries for entries in histories if entries]
        if not histories:
            continue
        for panel, over in zip(panels[parts.index(part)], ("step", "seconds"), strict=True):
            first = max(entries[0][over] for entries in histories)
            last = min(entries[-1][over] for entries in histories)
            at = np.linspace(first, max(first, last), _POINTS)
            read = [np.interp(at, [each[over] for each in had], [each[metric] for each in had]) for had in histories]
            mean, spread = np.mean(read, axis=0), np.std(read, axis=0, ddof=1 if len(read) > 1 else 0)
            (lines[row],) = panel.plot(at, mean, color=colors[row])
            if len(rows) <= _BANDS:
                panel.fill_between(at, mean - spread, mean + spread, color=colors[row], alpha=0.08, linewidth=0)
    plugin = METRICS.find(metric)
    title = " ".join(filter(None, (plugin.title, plugin.unit))) if plugin is not None else ""
    for part, (left, right) in zip(parts, panels, strict=True):
        left.set_ylabel(title or metric)
        left.set_title(" ".join(map(str, part)), loc="left", fontsize="medium")
        left.grid(alpha=0.3)
        right.grid(alpha=0.3)
    for panel, over in zip(panels[-1], ("steps", "seconds of training"), strict=True):
        panel.set_xlabel(over)
    names = [" ".join(map(str, row)) or study.name for row in lines]
    figure.legend(list(lines.values()), names, loc="outside right center", fontsize="small")
    with written_whole(Path(results.folder) / "curves.png") as aside:
        figure.savefig(aside, dpi=110)
    return None
