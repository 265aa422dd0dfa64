"""Writer: the base class of what makes something to look at of a run, and their registry. This room contains none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor

from inrkit.config import Config
from inrkit.errors import InrkitError
from inrkit.plugins.registry import Registry
from inrkit.runs.memory import MemoryRun
from inrkit.runs.run import Run
from inrkit.selectors import Selection
from inrkit.training.member import Listener, Member

WRITERS: Registry[Writer] = Registry("writer", "inrkit.writers")


@WRITERS.base
class Writer(Listener):
    """Listens to a training, and writes something to look at when the run is over. `log.NAME=true` switches one on,
    or another value that its option has.

    Args:
        config: of the fit.
        run: whose folder it may write to.

    Raises:
        ConfigError: a package that it needs is missing.
    """

    def __init__(self, config: Config, run: Run) -> None:
        self.config = config
        self.run = run

    def conclude(self, result: dict[str, Any]) -> None:
        """After all other files of the run are written, however it ended.

        Args:
            result: the content of result.json.
        """


def writers_of(config: Config, run: Run) -> list[Writer]:
    """The writers that a config switches on; none for a run that leaves no files.

    Raises:
        ConfigError: a package that one of them needs is missing.
    """
    if isinstance(run, MemoryRun):
        return []
    wanted = [name for name in WRITERS.names() if getattr(config.log, name, False) not in (False, "none")]
    return [Harmless(f"log.{name}", WRITERS.get(name)(config, run)) for name in wanted]


class Harmless(Writer):
    """A writer that ends no fit: after its first error, of which it warns, it does nothing more.

    Args:
        name: what it is called in the warning.
        writer: to call.
    """

    def __init__(self, name: str, writer: Writer) -> None:
        super().__init__(writer.config, writer.run)
        self._name = name
        self._writer: Writer | None = writer

    def on_start(self, member: Member) -> None:
        self._try(lambda writer: writer.on_start(member))

    def on_selection(self, member: Member, selection: Selection, loss: Tensor) -> None:
        self._try(lambda writer: writer.on_selection(member, selection, loss))

    def on_step(self, member: Member, selected: int) -> None:
        self._try(lambda writer: writer.on_step(member, selected))

    def on_evaluation(self, member: Member, row: dict[str, float]) -> None:
        self._try(lambda writer: writer.on_evaluation(member, row))

    def on_end(self, member: Member) -> None:
        self._try(lambda writer: writer.on_end(member))

    def conclude(self, result: dict[str, Any]) -> None:
        self._try(lambda writer: writer.conclude(result))

    def _try(self, call: Callable[[Writer], None]) -> None:
        if self._writer is None:
            return
        try:
            call(self._writer)
        except Exception as error:
            self._writer = None
            reason = str(error) if isinstance(error, InrkitError) else f"{type(error).__name__}: {error}"
            warnings.warn(f"{self._name} gave up: {reason}", stacklevel=2)
