"""Tuning: which value of the tuned key each group of a study's jobs gets."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any, TypeVar

from inrkit.batch.results import Results
from inrkit.batch.study import Job, Study
from inrkit.errors import ConfigError
from inrkit.evaluation.metrics import METRICS

K = TypeVar("K")

_LESS_IS_BETTER = frozenset({"seconds", "chamfer"})
"""Numbers of a run, besides its registered metrics, of which less is better."""


def best(metric: str, scores: Mapping[K, float]) -> K:
    """The key of the best score; the first of equal ones."""
    plugin = METRICS.find(metric)
    higher = metric not in _LESS_IS_BETTER if plugin is None else plugin.higher_is_better
    return (max if higher else min)(scores, key=scores.__getitem__)


def choose(study: Study, tuning: list[Job], results: Results) -> dict[tuple[Any, ...], Any]:
    """The tuned key's value for each group whose tuning jobs have all ended: the one with the best mean metric.

    Returns:
        The value by group; a `ConfigError` for a group in which every value failed, or no job has the metric.
    """
    if study.tune is None:
        return {}
    metric, key = study.tune.metric, study.tune.key
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in tuning:
        groups.setdefault(study.group(job.cell), []).append(job)
    chosen: dict[tuple[Any, ...], Any] = {}
    for group, jobs in groups.items():
        states = [results.state(job).status for job in jobs]
        if "pending" in states or "interrupted" in states:
            continue
        rows = [results.row(job) for job in jobs]
        scores: dict[int, float] = {}
        for number, value in enumerate(study.tune.values):
            # A value is out if one of its jobs fails, as when training diverges.
            tried = [row for row in rows if row[key] == value]
            had = [row.get(metric, math.nan) if row["status"] == "done" else math.nan for row in tried]
            if not any(map(math.isnan, had)):
                scores[number] = statistics.fmean(had)
        if scores:
            chosen[group] = study.tune.values[best(metric, scores)]
        else:
            measured = {name for row in rows if row["status"] == "done" for name in row} - {*study.columns}
            reason = f"none has {metric}" if measured else "each failed"
            chosen[group] = ConfigError(f"no value of {key} can be chosen from the tuning jobs of its group: {reason}")
    return chosen
