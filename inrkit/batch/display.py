"""What a study shows while it runs: a live table at a terminal, one line for each event elsewhere."""

from __future__ import annotations

import time
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
from inrkit.runs.run import Run
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
        self._running: dict[str, Job] = {}
        self._failed: list[str] = []
        self._begun = time.monotonic()
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

    def started(self, job: Job) -> None:
        """Show that a worker has taken a job."""
        self._running[job.id] = job
        if not self._live.is_started:
            self.say(f"started  {job.title}")

    def ended(self, job: Job, state: State) -> None:
        """Show the outcome of a job."""
        self._running.pop(job.id, None)
        self._ended += 1
        self._left = max(0, self._left - 1)
        line = f"{state.status:<8} {job.title}"
        if state.error:
            line += f": {state.error} ({self.results.run(job).folder / 'log.txt'})"
            self._failed = [*self._failed, line][-_SHOWN:]
        if not self._live.is_started:
            if state.status == "done" and state.result:
                line += f"  {measured(state.result['metrics'])}  {duration(state.result['seconds']['train'])}"
            self.say(f"{line}  ({self._left} left)")

    def __rich__(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for title in ("running", "quality", "step", "left"):
            table.add_column(title, overflow="fold")
        for job in list(self._running.values())[:_ROWS]:
            table.add_row(escape(escaped(job.title)), *_progress(job, self.results.run(job)))
        counts = self.results.counts()
        remaining = max(0, self._left - len(self._running))
        line = f"{counts['done']} done, {len(self._running)} running, {counts['failed']} failed, {remaining} remaining"
        if self._ended and self._left:
            line += f"; about {duration((time.monotonic() - self._begun) / self._ended * self._left)} left"
        return Group(
            *([table] if table.rows else []),
            *(Text(failed, style="red") for failed in self._failed),
            Text(line, style="bold"),
        )


def _progress(job: Job, run: Run) -> tuple[str, str, str]:
    """Quality, step and time left of a running job, from its last evaluation; "" before the first."""
    assert job.config is not None
    train = job.config["train"]
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
    return measured(first), step, duration(max(0.0, left))
