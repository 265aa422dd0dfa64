"""The state of a study's jobs, and the files that list it: results.csv, results.jsonl and summary.md."""

from __future__ import annotations

import csv
import io
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inrkit.batch.job import result_of, was_left
from inrkit.batch.study import Job
from inrkit.errors import DataError
from inrkit.files import from_json, to_json, write_text
from inrkit.runs.run import Run

STATUSES = ("done", "failed", "interrupted", "pending")

_WRITE_SPACING = 30
"""After a write of the files, so many times its duration passes before the next: with thousands of jobs, a write after
each job would take most of the time."""

_NETWORK_LAG = 60.0
"""Seconds after which a file that another machine wrote should be visible on a shared file system."""


@dataclass(frozen=True)
class State:
    """What is known of a fit.

    Args:
        status: one of `STATUSES`.
        error: why it failed.
        result: the content of the run's result.json; empty if there is none.
    """

    status: str = "pending"
    error: str | None = None
    result: dict[str, Any] = field(default_factory=dict)


class Results:
    """The state of every fit of a study, read from the runs' folders and kept up to date.

    A run's folder is what counts. An earlier results.jsonl is used for one thing only: the errors of jobs whose
    process could not write its own, as when it was killed.

    Args:
        folder: of the study; it need not exist.
        columns: axes of the study.
    """

    def __init__(self, folder: Path, columns: list[str]) -> None:
        self.folder = folder
        self.columns = columns
        self.jobs: list[Job] = []
        self._states: dict[str, State] = {}
        self._runs = {path.name.rpartition("-")[2]: path for path in sorted((folder / "runs").glob("*-*"))}
        self._histories: dict[str, list[dict[str, float]]] = {}
        self._failures = _failures(folder / "results.jsonl")
        self._written_at, self._write_took = 0.0, 0.0

    def run(self, job: Job) -> Run:
        """The run of a job. One that exists keeps its folder, even if the study has another axis since."""
        return Run(self._runs.setdefault(job.id, self.folder / "runs" / job.folder_name))

    def state(self, job: Job) -> State:
        """What is known of a job's fit."""
        if not job.id:
            return State("failed", job.error) if job.error else State()
        if job.id not in self._states:
            self._states[job.id] = self._read(job)
        return self._states[job.id]

    def record(self, job: Job, status: str, error: str | None) -> State:
        """Note the outcome of a job that a launcher reports."""
        run = self.run(job)
        if status == "interrupted" and not run.has_progress:
            status = "pending"
        result, deadline = result_of(run), time.monotonic() + _NETWORK_LAG
        while status == "done" and not result and time.monotonic() < deadline:
            time.sleep(0.2)
            result = result_of(run)
        if status == "done" and not result:
            status, error = "failed", f"{run.folder}/result.json cannot be read"
        self._states[job.id] = State(status, error, result)
        return self._states[job.id]

    def history(self, job: Job) -> list[dict[str, float]]:
        """The evaluations of a job that is done; none if its metrics.jsonl is missing or damaged."""
        if job.id not in self._histories:
            try:
                self._histories[job.id] = self.run(job).history
            except DataError:
                self._histories[job.id] = []
        return self._histories[job.id]

    def counts(self) -> Counter[str]:
        """How many jobs have each status."""
        return Counter(self.state(job).status for job in self.jobs)

    def row(self, job: Job) -> dict[str, Any]:
        """The row of a job in results.csv. Metrics are given for a job that is done; seconds are those of training."""
        state = self.state(job)
        result = state.result
        row = {"id": job.id, "status": state.status, "phase": job.phase, **job.cell}
        if state.status == "done":
            # JSON has no infinity: a metric that is null there is the infinite PSNR of a perfect fit.
            metrics = result["metrics"].items()
            row |= {name: math.inf if value is None else value for name, value in metrics if name not in row}
        row["seconds"] = (result.get("seconds") or {}).get("train")
        row["steps"] = result.get("steps")
        row["error"] = state.error
        row["folder"] = str(self.run(job).folder.relative_to(self.folder)) if job.id else None
        return row

    def rows(self, phase: str = "main") -> list[dict[str, Any]]:
        """The rows of a phase."""
        return [self.row(job) for job in self.jobs if job.phase == phase]

    def write(self, summary: Callable[[], str], last: bool = True) -> None:
        """Write results.csv, results.jsonl and summary.md, whole.

        Args:
            summary: makes the text of summary.md.
            last: write now. Otherwise the files may be left as they are for a while, since more calls follow.
        """
        started = time.monotonic()
        if not last and started - self._written_at < _WRITE_SPACING * self._write_took:
            return
        rows = [self.row(job) for job in self.jobs]
        write_text(self.folder / "results.jsonl", "".join(to_json(row) + "\n" for row in rows))
        names = dict.fromkeys(name for row in rows for name in row)
        tail = ("seconds", "steps", "error", "folder")
        text = io.StringIO()
        writer = csv.DictWriter(text, [*(name for name in names if name not in tail), *tail], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.folder / "results.csv", text.getvalue())
        write_text(self.folder / "summary.md", summary())
        self._written_at = time.monotonic()
        self._write_took = self._written_at - started

    def _read(self, job: Job) -> State:
        run = self.run(job)
        result = result_of(run)
        status = result.get("status")
        if status == "done" and not was_left(run):
            return State("done", None, result)
        if status == "failed" or job.id in self._failures:
            error = self._failures.get(job.id) or str(result.get("error", "")).partition("\n")[0]
            return State("failed", error, result)
        return State("interrupted" if run.has_progress else "pending", None, result)


def _failures(path: Path) -> dict[str, str]:
    """The errors of failed jobs, by identity, from an earlier results.jsonl; empty if it cannot be read."""
    try:
        rows: Iterable[dict[str, Any]] = map(from_json, path.read_text(encoding="utf-8").splitlines())
        return {row["id"]: row["error"] for row in rows if row["status"] == "failed" and row["id"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
