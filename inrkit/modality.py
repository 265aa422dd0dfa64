"""What a modality is to inrkit, and where modalities are found. The engine knows none by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from inrkit.dataset import CoordinateDataset
from inrkit.errors import ConfigError
from inrkit.registry import Registry

MODALITIES: Registry[Modality] = Registry("modality", "inrkit.modalities")

SUFFIX_GROUP = "inrkit.suffixes"
"""Entry points `suffix = package.module:Class`: which modality reads a file, known without importing it."""


class Modality(ABC):
    """Reads a kind of file into a CoordinateDataset and writes reconstructions back.

    Args:
        options: an instance of the subclass's `Options`.
    """

    Options: ClassVar[type]
    operator: ClassVar[str]
    """Name of the fitness operator that fits the signal."""
    metrics: ClassVar[tuple[str, ...]]
    """Names of the metrics that fit the signal, the leading one first."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def read(self, path: Path) -> CoordinateDataset:
        """The signal in a file.

        Raises:
            DataError: the file cannot be used.
        """

    @abstractmethod
    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        """Write (*shape, C) stored values to a file, in the format that its suffix names.

        Args:
            path: to write to.
            values: in the dtype of the signal that was read.
            metadata: of the dataset that was read.

        Raises:
            ConfigError: the format is not one the modality writes, or cannot hold the values.
        """

    @abstractmethod
    def reconstruction_suffix(self, metadata: dict[str, Any], dtype: np.dtype) -> str:
        """Suffix, with its dot, of a format that holds a reconstruction without loss."""

    def sample(self, path: Path) -> None:
        """Write a small signal to try things on, made by code.

        Raises:
            ConfigError: the modality has none.
        """
        raise ConfigError(f"{type(self).__name__} has no sample signal")


def modality_of(path: Path) -> str | None:
    """Name of the modality that reads files with the path's suffix; None if none says so."""
    return _modality_by_suffix().get(path.suffix.lower().lstrip("."))


def known_suffixes() -> list[str]:
    """All suffixes that some modality reads, sorted, without the dot."""
    return sorted(_modality_by_suffix())


def _modality_by_suffix() -> dict[str, str]:
    names = {entry.value: entry.name for entry in metadata.entry_points(group=MODALITIES.group)}
    return {
        entry.name: names[entry.value] for entry in metadata.entry_points(group=SUFFIX_GROUP) if entry.value in names
    }
