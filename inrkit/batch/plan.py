"""`inrkit batch --dry-run`: which jobs a study would run, and how long they would take."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch

from inrkit.batch.results import STATUSES, Results
from inrkit.batch.study import Job, Study
from inrkit.batch.tuning import choose
from inrkit.config import resolve
from inrkit.device import choose_device, choose_precision
from inrkit.errors import InrkitError
from inrkit.runs.build import build, read_signal
from inrkit.runs.wording import duration
from inrkit.training.estimate import estimate


def plan(study: Study, folder: Path, only: Collection[str], limit: int | None) -> Iterator[str]:
    """The lines of the plan. Writes nothing.

    A job's time is estimated from a few chunks of its training. It is measured once for all similar jobs: those whose
    configs differ only in file and seed, with files of the same type and about the same size.
    """
    results = Results(folder.absolute(), study.columns)
    tuning = study.tuning_jobs()
    chosen = choose(study, tuning, results)
    if study.tune is not None:
        # Tuning has not chosen yet. Any value will do here: a job's time hardly depends on it.
        for job in tuning:
            chosen.setdefault(study.group(job.cell), study.tune.values[0])
    jobs = [*tuning, *study.main_jobs(chosen)]
    results.jobs = jobs
    counts = results.counts()
    yield f"{len(jobs)} jobs: " + ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    launcher: Any = study.launcher.plugin
    workers = launcher(study.launcher.options, study.job).workers
    wanted = {job.id: job for job in jobs if job.id and results.state(job).status in only}
    known: dict[str, float] = {}
    total, unknown = 0.0, 0
    with _threads(max(1, torch.get_num_threads() // workers)):
        for job in list(wanted.values())[:limit]:
            seconds = _seconds(job, known)
            total += seconds or 0.0
            unknown += seconds is None
            length = "cannot be read" if seconds is None else f"about {duration(seconds)}"
            phase = "  to tune" if job.phase == "tune" else ""
            yield f"{results.state(job).status:<11} {job.title}{phase}  {length}"
    yield (
        f"about {duration(total / workers)} with {workers} worker{'s' if workers > 1 else ''}"
        f"{f', and {unknown} jobs of unknown length' if unknown else ''}; results go to {folder}"
    )


def _seconds(job: Job, known: dict[str, float]) -> float | None:
    """Seconds of a whole job; None if its file cannot be read.

    Args:
        job: to estimate.
        known: seconds of similar jobs, by what they have in common; a new measurement is added.
    """
    assert job.config is not None
    path = Path(job.config["data"]["path"])
    size = path.stat().st_size.bit_length() if path.is_file() else 0
    similar = json.dumps([{**job.config, "data": path.suffix, "seed": 0}, size], default=str)
    if similar not in known:
        try:
            config = resolve([job.config])
            device = choose_device(config.general.device)
            precision = choose_precision(config.train.precision, device)
            member = build(config, read_signal(config), device, precision)
        except InrkitError:
            return None
        known[similar] = estimate(member).seconds
    return known[similar]


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
