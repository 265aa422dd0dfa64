"""Modality: the base class of all modalities, and their registry. The engine itself contains none."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from inrkit.errors import ConfigError
from inrkit.plugins.choice import PluginType
from inrkit.plugins.registry import Registry, entry_points
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.lattice import Region

MODALITIES: Registry[Modality] = Registry("modality", "inrkit.modalities")

SUFFIX_GROUP = "inrkit.suffixes"
"""Entry points `<suffix>.<modality> = package.module:Class`. They tell who reads a file without importing anything."""


def in_words(values: np.ndarray) -> str:
    """What (*shape, C) values are: `256×256, 3 channels of uint8`."""
    *shape, channels = values.shape
    return f"{'×'.join(map(str, shape))}, {channels} channel{'s' if channels > 1 else ''} of {values.dtype}"


class Rendering(Protocol):
    """The part of a fitted field that a modality may use, to write it and to compare it with its file."""

    @property
    def dimensions(self) -> int:
        """D."""

    @property
    def grid_shape(self) -> tuple[int, ...] | None:
        """The signal's lattice; None for free points."""

    @property
    def affine(self) -> np.ndarray:
        """(D, D + 1) map from [−1, 1]^D to physical units."""

    @property
    def metadata(self) -> dict[str, Any]:
        """Of the dataset that was read."""

    def __call__(self, coordinates: Any, physical: bool = False) -> Any:
        """(…, C) values at (…, D) coordinates."""

    def render(
        self,
        shape: int | Sequence[int] | None = None,
        *,
        scale: float | None = None,
        region: Region | None = None,
        dtype: Any = None,
    ) -> np.ndarray:
        """(*shape, C) values on a lattice."""

    def lattice(self, shape: int | Sequence[int] | None = None, scale: float | None = None) -> tuple[int, ...]:
        """The lattice that `render` would fill."""


@dataclass(frozen=True)
class Surface:
    """A mesh, or points, to be looked at.

    Args:
        vertices: (V, 3) in the file's own units.
        faces: (F, 3) int64; none of points.
        distances: (V,) from the other surface, in the same units; None if there is no other.
    """

    vertices: np.ndarray
    faces: np.ndarray
    distances: np.ndarray | None = None


@MODALITIES.base
class Modality(metaclass=PluginType):
    """Reads a kind of file into a CoordinateDataset and writes reconstructions back.

    Args:
        options: an instance of the subclass's `Options`.
    """

    Options: ClassVar[type]
    operator: str | Mapping[str, Any]
    """The fitness operator that suits the signal, a slot as in a config: its name, or a mapping with a name and
    options. It may depend on the modality's options."""
    embedding: str | Mapping[str, Any] = "identity"
    """The embedding of coordinates that suits the signal, likewise."""
    metrics: ClassVar[tuple[str, ...]]
    """Names of the metrics that suit the signal, the main one first."""
    sample_suffix: ClassVar[str]
    """Suffix, with its dot, of a format for `sample`."""
    looks: ClassVar[str] = ""
    """How people look at the signal: as a "picture", a "sound", "frames", "slices" or the "surface" where distances are
    zero; "" leaves it to its axes."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether an existing file belongs to this modality. Called if several modalities read the file's suffix.

        The modalities are asked in the order of their names. Look at the header only.
        """
        return True

    @abstractmethod
    def read(self, path: Path) -> CoordinateDataset:
        """The signal in a file.

        Raises:
            DataError: the file cannot be used.
        """

    def from_array(self, values: np.ndarray) -> CoordinateDataset:
        """The signal in an array, for `inrkit.fit(array)`.

        Raises:
            ConfigError: the modality takes no arrays.
            DataError: the array's shape or dtype does not suit the modality.
        """
        raise ConfigError(
            f"{type(self).__name__} takes no array; name a file, or build an inrkit.CoordinateDataset of the array"
        )

    @abstractmethod
    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        """Write (*shape, C) stored values to a file, in the format that its suffix names.

        Args:
            path: to write to.
            values: in the dtype of the signal that was read.
            metadata: of the dataset that was read.

        Raises:
            ConfigError: the modality does not write the format, or the format cannot hold the values.
        """

    @abstractmethod
    def reconstruction_suffix(self, metadata: dict[str, Any], dtype: np.dtype) -> str:
        """Suffix, with its dot, of a format that holds a reconstruction without loss."""

    def units(self, metadata: dict[str, Any], dimensions: int) -> tuple[str, ...]:
        """Names of the physical units of the D axes, such as "s" or "mm"; "pixel" and "cell" where they count those of
        the lattice, "own" where only the file's author knows. None at all if the modality does not say.

        Args:
            metadata: of the dataset that was read.
            dimensions: D.
        """
        return ()

    def level(self, metadata: dict[str, Any], affine: np.ndarray, lattice: tuple[int, ...]) -> float:
        """The value on the surface, if people look at the signal as one.

        Args:
            metadata: of the dataset that was read.
            affine: (D, D + 1), likewise.
            lattice: lengths of the axes that it is drawn from.
        """
        return 0.0

    def cropped(self, metadata: dict[str, Any], region: Region) -> dict[str, Any]:
        """The metadata that `read` would give of a file which holds only a region, at the resolution of the original.

        `write` gets them with the region's values, so that what it writes lies where the region does. A modality whose
        files do not say where they lie, nor how long they are, returns `metadata` as they are.

        Raises:
            ConfigError: the modality does not know.
        """
        if set(metadata) <= {"notes"}:
            return metadata
        raise ConfigError(
            f"{type(self).__name__} does not say how a region is written (it has no method `cropped`); render the "
            "whole signal, or take the values from field.render(region=…)"
        )

    def export(
        self,
        path: Path,
        field: Rendering,
        shape: tuple[int, ...] | None = None,
        scale: float | None = None,
        region: Region | None = None,
    ) -> str:
        """Write a field's reconstruction to a file; `shape`, `scale` and `region` are those of `Field.render`.

        Returns:
            What was written, in a few words.
        """
        values = field.render(shape, scale=scale, region=region)
        self.write(path, values, field.metadata if region is None else self.cropped(field.metadata, region))
        return in_words(values)

    def assess(self, field: Rendering, path: Path) -> dict[str, float]:
        """Metrics of a finished field that compare it with the file itself, not with the dataset's values."""
        return {}

    def memory(self, dataset: CoordinateDataset) -> int:
        """Bytes that take, beside the signal itself, writing a reconstruction and showing it beside the signal; for the
        memory estimate."""
        return len(dataset) * (3 * dataset.channels * dataset.dtype.itemsize + 4)

    def surfaces(self, path: Path, reconstruction: Path) -> list[Surface]:
        """The meshes in the file and in the reconstruction, if people look at the signal as a surface; else none."""
        return []

    def sample(self, path: Path) -> None:
        """Write a small signal made by code, for trying things out.

        Raises:
            ConfigError: the modality has none.
        """
        raise ConfigError(f"{type(self).__name__} has no sample signal")


def modality_of(path: Path) -> str | None:
    """Name of the modality that reads a file; None if no modality reads its suffix.

    The suffix decides, without importing anything. If several modalities read it, each is asked, in the order of their
    names. A folder has the suffix `folder`.
    """
    able = _readers(path)
    if len(able) > 1 and path.is_file():
        for name in able:
            with contextlib.suppress(Exception):  # a broken plug-in, or a damaged file that its reader will report
                if MODALITIES.get(name).claims(path):
                    return name
    return able[0] if able else None


def known_suffixes() -> list[str]:
    """All suffixes that some modality reads, sorted, without the dot."""
    return sorted(_modalities_by_suffix())


def _readers(path: Path) -> list[str]:
    """Names of the modalities that read the path's suffix; the longest suffix that any modality reads counts."""
    if path.is_dir():
        return _modalities_by_suffix().get("folder", [])
    parts = path.name.lower().split(".")
    for start in range(1, len(parts)):
        able = _modalities_by_suffix().get(".".join(parts[start:]))
        if able:
            return able
    return []


def _modalities_by_suffix() -> dict[str, list[str]]:
    able: dict[str, list[str]] = {}
    for entry in entry_points(SUFFIX_GROUP):
        suffix, _, name = entry.name.rpartition(".")
        able.setdefault(suffix, []).append(name)
    return {suffix: sorted(set(names)) for suffix, names in able.items()}
