"""A run that leaves no files."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

from inrkit.config import Config
from inrkit.errors import DataError
from inrkit.runs.field import Field
from inrkit.runs.run import Run
from inrkit.signals.modality import Modality


class MemoryRun(Run):
    """The results of one fit, kept in memory."""

    def __init__(self) -> None:
        super().__init__("(in memory)")
        self._config: Config | None = None
        self._rows: list[dict[str, float]] = []
        self._result: dict[str, Any] = {}
        self._compressed: list[dict[str, Any]] = []

    @property
    def exists(self) -> bool:
        return self._config is not None

    @property
    def config(self) -> Config:
        assert self._config is not None, "a run in memory has a config from its beginning"
        return self._config

    @property
    def result(self) -> dict[str, Any]:
        return self._result

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self._result.get("metrics", {}))

    @property
    def history(self) -> list[dict[str, float]]:
        return self._rows

    @property
    def compressed(self) -> list[dict[str, Any]]:
        return self._compressed

    def note_compressed(self, row: dict[str, Any]) -> None:
        self._compressed.append(row)

    def load_field(self, *, trust: bool = False) -> Field:
        if self._field is None:
            raise DataError("this fit has no field yet; it failed, or is under way")
        return self._field

    @property
    def reconstruction(self) -> None:
        return None

    def create(self, config: Config) -> None:
        self._config = config

    def locked(self, patience: float = 0.0) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def rewrite_config(self, config: Config) -> None:
        self._config = config

    def write_history(self, rows: list[dict[str, float]]) -> None:
        self._rows = rows

    def append_history(self, row: dict[str, float]) -> None:
        self._rows.append(row)

    def settle_history(self) -> None:
        """Do nothing: there is no file."""

    def write_result(self, result: dict[str, Any]) -> None:
        self._result = copy.deepcopy(result)

    def write_field(self, field: Field, modality: Modality, reconstruct: bool = True) -> None:
        self._field = field

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Do nothing: a run in memory cannot be resumed."""
