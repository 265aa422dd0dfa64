"""What a study shows while it runs: a live table at a terminal, one line for each event elsewhere."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from inrkit.batch.results import Results, State
from inrkit.batch.study import Job
from inrkit.errors import DataError, escaped
from inrkit.runs.run import Run, numbers_of
from inrkit.runs.wording import duration, measured

_ROWS = 12
"""How many running jobs are shown; with more, the table would push away what is below it."""
_SHOWN = 5
"""How many failed jobs are shown, the last ones."""


class BatchDisplay:
    """Shows the progress of a study.

    Args:
        results: of the study.
        quiet: say nothing.
    """

    def __init__(self, results: Results, quiet: bool) -> None:
        self.results = results
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._running: list[Sequence[Job]] = []
        self._failed: list[str] = []
        self._begun: float | None = None
        self._ended = 0
        self._left = 0
        self._live = Live(self, console=self.console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.console.quiet:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Print a line."""
        self.console.print(escape(escaped(line)))

    def expect(self, count: int) -> None:
        """Say how many jobs are going to run."""
        self._left = count

    def started(self, jobs: Sequence[Job]) -> None:
        """Show that a worker has taken jobs; several train together."""
        self._begun = self._begun or time.monotonic()
        self._running.append(jobs)
        if not self._live.is_started:
            self.say(f"started  {_named(jobs)}")

    def ended(self, jobs: Sequence[Job], states: Sequence[State]) -> None:
        """Show the outcome of jobs that were started together."""
        self.returned(jobs)
        self._ended += len(jobs)
        self._left = max(0, self._left - len(jobs))
        for status in dict.fromkeys(state.status for state in states):
            group = [(job, state) for job, state in zip(jobs, states, strict=True) if state.status == status]
            failed = [(job, state.error) for job, state in group if state.error]
            for job, error in failed:
                line = f"{status:<8} {job.title}: {error} ({self.results.run(job).folder / 'log.txt'})"
                self._failed = [*self._failed, line][-_SHOWN:]
                if not self._live.is_started:
                    self.say(f"{line}  ({self._pace()})")
            if not failed and not self._live.is_started:
                line = f"{status:<8} {_named([job for job, _ in group])}"
                if status == "done":
                    line += _reached([state.result for _, state in group])
                self.say(f"{line}  ({self._pace()})")

    def returned(self, jobs: Sequence[Job]) -> None:
        """Jobs that were started together run no longer, whether or not they have ended."""
        self._running = [running for running in self._running if running[0].id != jobs[0].id]

    def _pace(self) -> str:
        """How many jobs are left; once several have ended, also how fast they end and how long the rest takes."""
        told = f"{self._left:,} left"
        if self._begun is None or self._ended < 2 or not self._left:
            return told
        a_job = (time.monotonic() - self._begun) / self._ended
        return f"{told}, {_rate(1 / max(a_job, 1e-9))}, about {duration(a_job * self._left)}"

    def __rich__(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for title in ("running", "quality", "step", "left"):
            table.add_column(title, overflow="fold")
        for jobs in self._running[:_ROWS]:
            table.add_row(escape(escaped(_named(jobs))), *_progress(jobs, self.results.run(jobs[0])))
        counts = self.results.counts()
        running = sum(map(len, self._running))
        remaining = max(0, self._left - running)
        line = f"{counts['done']:,} done, {running:,} running, {counts['failed']:,} failed, {remaining:,} remaining"
        if self._ended and self._left:
            line += f"; {self._pace()}"
        return Group(
            *([table] if table.rows else []),
            *(Text(failed, style="red") for failed in self._failed),
            Text(line, style="bold"),
        )


def _named(jobs: Sequence[Job]) -> str:
    """Jobs in one line: a title, or how many, with the first and the last."""
    if len(jobs) == 1:
        return jobs[0].title
    return f"{len(jobs)} jobs: {jobs[0].title} … {jobs[-1].title}"


def _reached(results: Sequence[Mapping[str, Any]]) -> str:
    """Mean metrics of jobs that are done, and their seconds of training together."""
    try:
        metrics = [numbers_of(result["metrics"]) for result in results]
        seconds = sum(float(result["seconds"]["train"]) for result in results)
    except (KeyError, ValueError, TypeError, AttributeError):  # a result of another version, or edited
        return ""
    names = [name for name in metrics[0] if all(name in each for each in metrics)]
    means = {name: statistics.fmean(each[name] for each in metrics) for name in names}
    return f"  {measured(means)}  {duration(seconds)}"


def _rate(a_second: float) -> str:
    """How many a second in words; an hour, where they are few."""
    for times, unit in ((1, "second"), (60, "minute")):
        if a_second * times >= 1:
            return f"{a_second * times:.3g} a {unit}"
    return f"{a_second * 3600:.3g} an hour"


def _progress(jobs: Sequence[Job], run: Run) -> tuple[str, str, str]:
    """Quality and step of the first of the jobs that run together, and time left for all, from its last evaluation; ""
    before the first."""
    config = jobs[0].config
    assert config is not None
    train = config["train"]
    try:
        row: dict[str, Any] = run.history[-1]
    except (IndexError, DataError):
        return "", "", ""
    first = next(({name: value} for name, value in row.items() if name not in ("step", "seconds")), {})
    left = train["seconds"] - row["seconds"]
    step = f"{row['step']:,}"
    if not train["seconds"]:
        left = row["seconds"] / row["step"] * (train["steps"] - row["step"])
        step = f"{step}/{train['steps']:,}"
    return measured(first), step, duration(max(0.0, left) * len(jobs))  # its seconds are its share
