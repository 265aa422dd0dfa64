"""Export: the base class of all that a field leaves Python as."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from inrkit.config.schema import EXPORTS
from inrkit.runs.field import Field

__all__ = ["EXPORTS", "Export"]


@EXPORTS.base
class Export(ABC):
    """Writes fields to files of one kind, which its name in the registry is the suffix of."""

    @abstractmethod
    def write(self, field: Field, aside: Path, path: Path) -> str:
        """Write a field.

        Args:
            field: any.
            aside: the file to write, which becomes `path` when it is whole.
            path: what it will be called.

        Returns:
            What was written, in a sentence: how it is called, how large it is, how near to the field.

        Raises:
            ConfigError: the field cannot be written so, or a package is missing.
        """
