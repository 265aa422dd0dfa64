"""Values as Python gives them: at free points, or on a lattice of any dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.errors import ConfigError, DataError
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.decoding import decoding
from inrkit.signals.lattice import Region
from inrkit.signals.modality import MODALITIES, Modality, Rendering
from inrkit.signals.scattered import scattered

_ARRAYS = ("points", "values")


@dataclass
class ArrayOptions:
    pass


@MODALITIES.register("array")
class Array(Modality):
    """Scattered samples in an .npz of `points`, (N, D), and `values`, (N, C); and what Python gives as a dataset."""

    Options = ArrayOptions
    operator = "none"
    metrics = ("psnr",)
    sample_suffix = ".npz"

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether an .npz holds points and values."""
        with decoding(path, "is damaged or truncated"), path.open("rb") as stream, np.load(stream) as file:
            return set(_ARRAYS) <= set(file.files)

    def read(self, path: Path) -> CoordinateDataset:
        with decoding(path, "is damaged or truncated"), path.open("rb") as stream, np.load(stream) as file:
            missing = [name for name in _ARRAYS if name not in file.files]
            if missing:
                raise DataError(
                    f"{path} has no array '{missing[0]}'; scattered samples are points (N, D) and values (N, C)"
                )
            points, values = (file[name] for name in _ARRAYS)
        return scattered(points, values)

    def from_array(self, values: np.ndarray) -> CoordinateDataset:
        """Values on a lattice, (*grid_shape, C)."""
        return CoordinateDataset(values)

    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        if path.suffix.lower() != ".npy":
            raise ConfigError(f"arrays are not written as '{path.suffix}'; choose .npy")
        with path.open("wb") as file:
            np.save(file, values)

    def reconstruction_suffix(self, metadata: dict[str, Any], dtype: np.dtype) -> str:
        return ".npy"

    def units(self, metadata: dict[str, Any], dimensions: int) -> tuple[str, ...]:
        return ("own",) * dimensions

    def cropped(self, metadata: dict[str, Any], region: Region) -> dict[str, Any]:
        return metadata

    def export(
        self,
        path: Path,
        field: Rendering,
        shape: tuple[int, ...] | None = None,
        scale: float | None = None,
        region: Region | None = None,
    ) -> str:
        """Write values on a lattice; that of a signal without one has about 2¹⁶ cells in all."""
        if shape is None and region is None and field.grid_shape is None:
            side = max(2, round((_CELLS * (scale or 1.0)) ** (1 / field.dimensions)))
            shape, scale = (side,) * field.dimensions, None
        return super().export(path, field, shape, scale, region)

    def sample(self, path: Path) -> None:
        random = np.random.default_rng(0)
        points = random.uniform([0.0, 40.0], [10.0, 60.0], (4000, 2))
        values = np.sin(points[:, 0]) + np.cos(points[:, 1] / 3) * points[:, 0] / 10
        with path.open("wb") as file:
            np.savez(file, points=points, values=values[:, None].astype(np.float32))


_CELLS = 1 << 16
