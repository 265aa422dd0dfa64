"""Report: writes report.html at the end of a run."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inrkit.config import Config
from inrkit.reports import trace
from inrkit.reports.run_page import write_run_page
from inrkit.reports.trace import Trace
from inrkit.runs.run import Run
from inrkit.runs.writers import Writer
from inrkit.selectors import Selection
from inrkit.signals.dataset import CoordinateDataset
from inrkit.training.member import Member


class Report(Writer):
    """A page to look at: the signal beside its fit, where the selector looked, and how the training went."""

    def __init__(self, config: Config, run: Run) -> None:
        super().__init__(config, run)
        self._trace: Trace | None = None
        self._dataset: CoordinateDataset | None = None
        self._step = 0

    def on_start(self, member: Member) -> None:
        self._trace = self._trace or Trace(self.run.folder / trace.FILE)
        self._dataset = member.signal.dataset
        self._trace.on_start(member)

    def on_selection(self, member: Member, selection: Selection, loss: Tensor) -> None:
        assert self._trace is not None
        self._trace.on_selection(member, selection, loss)

    def on_end(self, member: Member) -> None:
        assert self._trace is not None
        self._trace.on_end(member)
        self._step = member.step

    def conclude(self, result: dict[str, Any]) -> None:
        if self._trace is None:
            return
        if result["status"] != "failed":
            self._trace.save(self._step)
        write_run_page(self.run, self._dataset, self._trace.traced, self.config)
