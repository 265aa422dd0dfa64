"""What a fit shows: its plan, then a bar or a line per evaluation, and at the end where its files are."""

from __future__ import annotations

import html
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from inrkit.config import Config
from inrkit.device import describe
from inrkit.errors import escaped
from inrkit.evaluation.evaluate import left_out
from inrkit.runs.build import files_memory
from inrkit.runs.preview import Pace, Preview
from inrkit.runs.run import Run
from inrkit.runs.wording import duration, measured, storage
from inrkit.training.estimate import estimate
from inrkit.training.member import Listener, Member

_LONGEST = 320
"""Pixels of the longer side of the picture in a notebook's cell."""
_SHARES = {"bar": 0.003, "picture": 0.01}
"""Of the time, that is spent at most on what a notebook's cell shows."""
_SPACINGS = {"bar": 0.2, "picture": 0.5}
"""Seconds between two states of the cell, at least."""


def in_notebook() -> bool:
    """Whether this code runs in a notebook, whose cells can show pictures and bars."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return running is not None and running.__class__.__name__ == "ZMQInteractiveShell"


class Cell:
    """A bar with a line of text in a notebook's cell, and below it a picture of the fit, which replace themselves.

    Args:
        config: of the fit.
    """

    def __init__(self, config: Config) -> None:
        self._looks = config.modality.plugin.looks
        self._preview: Preview | None = None
        self._shown: dict[str, Any] = {}
        self._paces = {part: Pace(_SHARES[part], _SPACINGS[part]) for part in _SHARES}

    def show(self, member: Member, text: str) -> None:
        """Show how far a training is and what its network has learnt; what is not due is not drawn."""
        for part, draw in (("bar", lambda: _bar(member, text)), ("picture", lambda: self._picture(member))):
            pace = self._paces[part]
            if member.ended or pace.due:
                with pace.spent():
                    self._put(part, draw())

    def _put(self, part: str, content: str) -> None:
        from IPython.display import HTML, display  # every notebook has IPython

        if part in self._shown:
            self._shown[part].update(HTML(content))
        else:
            self._shown[part] = display(HTML(content), display_id=True)

    def _picture(self, member: Member) -> str:
        try:
            self._preview = self._preview or Preview(member, self._looks, _LONGEST)
            uri = self._preview.uri()
        except Exception as error:  # a fit goes on without its picture
            return html.escape(f"no picture of it: {type(error).__name__}: {error}")
        return f'<img src="{uri}" alt="The fit at step {member.step:,}" style="display:block"/>'


def _bar(member: Member, text: str) -> str:
    total = member.budget or member.steps
    done = member.seconds["train"] if member.budget else member.step
    bar = f'<progress value="{min(1.0, done / total):.4f}" max="1" style="width:20em"></progress>'
    return f"{bar} {html.escape(text)}"


class Display(Listener):
    """Shows the progress of a fit in a terminal; without a terminal, prints a plain line per evaluation.

    Args:
        config: of the fit.
        run: of the fit.
        device: the fit runs on it.
        precision: of the hidden matrices' products.
        quiet: show nothing.
        notes: what to tell of the fit before it starts, a sentence each.
    """

    def __init__(
        self, config: Config, run: Run, device: torch.device, precision: str, quiet: bool, notes: Sequence[str] = ()
    ) -> None:
        self.config = config
        self.run = run
        self.device = device
        self.precision = precision
        self.notes = notes
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[quality]}"),
            TextColumn("{task.fields[share]:.0%} of coordinates"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self._cell = Cell(config) if in_notebook() and not quiet else None
        self._quality = ""
        self._task = self._bar.add_task("", total=None, step="0", quality="", share=1.0, speed="")

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_start(self, member: Member) -> None:
        if self.console.quiet:
            return
        config, count = self.config, len(member.signal.dataset)
        cost = estimate(member, files_memory(config, member.signal.dataset))
        lattice = member.signal.dataset.grid_shape
        shape = f" ({'×'.join(map(str, lattice))})" if lattice else ""
        unknown = count - len(member.signal)
        holes = f", {unknown:,} of them not known" if unknown else ""
        name = escape(escaped(_near(config.data.path))) or "a signal in memory"
        self.console.print(
            f"[bold]{name}[/bold]: {config.modality.name}, {count:,} coordinates{shape}{holes}, "
            f"{member.signal.dataset.channels} channel{'s' if member.signal.dataset.channels > 1 else ''}\n"
            f"{config.network.name}, {member.parameters:,} parameters; {config.selector.name} selection, "
            f"{config.objective.name} loss, {config.optimizer.name}, {_extent(member)}"
            f"{f' from step {member.step:,}' if member.step else ''}\n"
            f"on {describe(self.device)}, {self.precision} products; "
            f"expects about {storage(cost.memory)} and {duration(cost.seconds)}"
        )
        if member.signal.dataset.away:
            size = storage(member.signal.dataset.values.nbytes)
            self.console.print(f"the signal's values, {size}, stay in main memory and are gathered there")
        most = member.evaluate_most
        if most is not None and count > most:
            self.console.print(f"evaluated on crops of {most:,} coordinates in all (log.evaluated)")
        if count > config.log.reconstruction:
            self.console.print("no reconstruction is written of a signal this large; inrkit render writes it")
        for note in [*member.signal.dataset.metadata.get("notes", []), *self.notes]:
            self.console.print(f"note: {escape(escaped(note))}")
        for metric in left_out(config.general.metrics, member.signal.dataset):
            self.console.print(f"note: {metric} is left out: it is not defined where a part is not known")
        self._show(member)
        self._bar.start()

    def on_step(self, member: Member, selected: int) -> None:
        if self._cell is not None:
            self._cell.show(member, f"step {member.step:,}  {self._quality}  {duration(member.seconds['train'])}")
        if self._bar.disable:
            return
        train = member.seconds["train"]
        self._show(
            member,
            share=selected / len(member.signal),
            speed=f"{member.step / train:.3g} steps/s" if train > 0 else "",
        )

    def on_evaluation(self, member: Member, row: dict[str, float]) -> None:
        self._quality = quality = measured(row)
        self._bar.update(self._task, quality=quality)
        if self._bar.disable and self._cell is None:
            steps = f"/{member.steps}" if member.budget is None else ""
            self.console.print(f"step {member.step}{steps}  {quality}  {row['seconds']:.1f} s")

    def on_recovery(self, member: Member, lost: int) -> None:
        rate = f"{0.5**member.recoveries:.3g} of the learning rate"
        self.console.print(f"diverged by step {lost:,}; goes on from step {member.step:,} with {rate}")

    def _show(self, member: Member, **fields: Any) -> None:
        total, completed = member.budget, member.seconds["train"]
        if total is None:
            total, completed = member.steps, member.step
        self._bar.update(self._task, total=total, completed=completed, step=f"{member.step:,}", **fields)

    def conclude(self, result: dict[str, Any]) -> None:
        """Say how the fit ended and which files to open."""
        seconds = result["seconds"]
        share = seconds["selection"] / seconds["train"] if seconds["train"] else 0.0
        self.console.print(
            f"[bold]{result['status']}[/bold] after {result['steps']:,} steps: {measured(result['metrics'])}\n"
            f"{duration(seconds['train'])} of training, {share:.1%} of it choosing coordinates"
        )
        for note in result["notes"][len(self.notes) :]:  # those were told before
            self.console.print(f"note: {escape(note)}")
        if result["status"] == "interrupted":
            self.console.print(f"go on with: inrkit fit {escape(escaped(shlex.quote(str(self.run.folder))))} --resume")
        opened = self.run.reconstruction or self.run.folder
        for path in (opened, self.run.folder / "report.html"):
            if path.exists():
                self.console.print(f"look at {escape(escaped(str(path)))}")


def _near(path: str) -> str:
    """A path as it is written from the current folder, if it is in there."""
    return str(Path(path).relative_to(Path.cwd())) if path and Path(path).is_relative_to(Path.cwd()) else path


def _extent(member: Member) -> str:
    """The length of a training, in steps or in seconds as it was asked for."""
    return f"{member.steps:,} steps" if member.budget is None else f"{duration(member.budget)} of training"
