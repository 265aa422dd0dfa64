"""curves.png: the metric over steps and over seconds, a line a group."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inrkit.batch.results import Results
from inrkit.batch.study import Study
from inrkit.batch.summary import Layout, labels, measures
from inrkit.files import written_whole
from inrkit.metrics import METRICS

_POINTS = 200


def draw_curves(study: Study, results: Results) -> str | None:
    """Draw curves.png from the jobs that are done: each group's mean, with a band of one standard deviation.

    Histories of a group are read at common steps, or seconds, as far as all of them reach.

    Returns:
        Why there is none, in a line; None if there is, or if there is nothing to draw yet.
    """
    done = [job for job in results.jobs if job.phase == "main" and results.state(job).status == "done"]
    if not done:
        return None
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no curves.png without matplotlib; pip install 'inrkit[plots]'"
    metric = measures(study, results)[0].partition("@")[0]
    layout = Layout.of(study, done)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for group in dict.fromkeys(labels(job, layout.axes) for job in done):
        histories = [results.history(job) for job in done if labels(job, layout.axes) == group]
        histories = [[row for row in rows if np.isfinite(row.get(metric, np.nan))] for rows in histories]
        histories = [rows for rows in histories if rows]
        if not histories:
            continue
        name = " ".join(map(str, group)) or study.name
        for panel, over in zip(panels, ("step", "seconds"), strict=True):
            first = max(rows[0][over] for rows in histories)
            last = min(rows[-1][over] for rows in histories)
            at = np.linspace(first, max(first, last), _POINTS)
            read = [np.interp(at, [row[over] for row in rows], [row[metric] for row in rows]) for rows in histories]
            mean, spread = np.mean(read, axis=0), np.std(read, axis=0, ddof=1 if len(read) > 1 else 0)
            (line,) = panel.plot(at, mean, label=f"{name} ({len(read)})")
            panel.fill_between(at, mean - spread, mean + spread, color=line.get_color(), alpha=0.15, linewidth=0)
    plugin = METRICS.get(metric) if metric in METRICS.names() else None
    title = " ".join(filter(None, (plugin.title, plugin.unit))) if plugin is not None else ""
    for panel, over in zip(panels, ("steps", "seconds of training"), strict=True):
        panel.set_xlabel(over)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(title or metric)
    panels[0].legend(fontsize="small")
    with written_whole(Path(results.folder) / "curves.png") as aside:
        figure.savefig(aside, dpi=110)
    return None
