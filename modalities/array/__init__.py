"""Values as Python gives them, at free points or on a lattice of any dimensions; and tables of scattered samples."""

from __future__ import annotations

import csv
import itertools
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.errors import ConfigError
from inrkit.modalities.array.binary import ArchiveTable, ParquetTable
from inrkit.modalities.array.columns import Column, names_samples, roles
from inrkit.modalities.array.text import TextTable
from inrkit.plugins.options import option
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.lattice import Region, cell_affine
from inrkit.signals.modality import MODALITIES, Modality, Rendering, in_words
from inrkit.signals.scattered import known_samples, scattered, split

__all__ = ["Array", "ArrayOptions"]

_CELLS = 1 << 16
"""Cells of the lattice that scattered samples are written on where no other is asked for."""


@dataclass
class ArrayOptions:
    coordinates: list[str] = option([])
    """A table's columns that are coordinates, by name or by number from 1; empty takes those that are called x, y, z,
    lon, lat, depth, t, time and the like, or without a header all but the last."""
    values: list[str] = option([])
    """A table's columns that are values; empty takes all other columns of numbers."""
    held_out: float = option(0.0, at_least=0, below=1)
    """Share of a table's samples that are left out of training, to rate the fit between the samples."""


@MODALITIES.register("array")
class Array(Modality):
    """Scattered samples in a table of coordinates and values: .csv, .tsv, .npz, .parquet; and what Python gives as a
    dataset."""

    Options = ArrayOptions
    operator = "graph-laplacian"
    metrics = ("psnr",)
    sample_suffix = ".npz"

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether a table's header names a coordinate and a value, or an .npz holds points and values."""
        table = _table(path)
        return (isinstance(table, ArchiveTable) and table.given) or (table.named and names_samples(table.columns))

    def read(self, path: Path) -> CoordinateDataset:
        points, values, metadata = self._samples(path)
        return scattered(points, values, held_out=self.options.held_out, metadata=metadata)

    def from_array(self, values: np.ndarray) -> CoordinateDataset:
        """Values on a lattice, (*grid_shape, C)."""
        return CoordinateDataset(values)

    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        """Write values on a lattice whose coordinates are its cells' indices; `export` knows those of a field."""
        _write(path, values, cell_affine(values.shape[:-1]), metadata)

    def reconstruction_suffix(self, metadata: dict[str, Any], dtype: np.dtype) -> str:
        return ".npz" if "columns" in metadata else ".npy"

    def units(self, metadata: dict[str, Any], dimensions: int) -> tuple[str, ...]:
        columns = metadata.get("columns", {}).get("coordinates", [{}] * dimensions)
        return tuple(column.get("unit") or "own" for column in columns)

    def export(
        self,
        path: Path,
        field: Rendering,
        shape: tuple[int, ...] | None = None,
        scale: float | None = None,
        region: Region | None = None,
    ) -> str:
        """Write values on a lattice; that of a signal without one has about 2¹⁶ cells in all.

        An .npz has the coordinates along each axis too, under its name, and a .csv those of every cell, both in the
        table's units.
        """
        if shape is None and region is None and field.grid_shape is None:
            side = max(2, round((_CELLS * (scale or 1.0)) ** (1 / field.dimensions)))
            shape, scale = (side,) * field.dimensions, None
        values = field.render(shape, scale=scale, region=region)
        _write(path, values, field.affine if region is None else region.affine(field.affine), field.metadata)
        return in_words(values)

    def assess(self, field: Rendering, path: Path) -> dict[str, float]:
        """How near the field is to the samples that were held out, if any were.

        `held_out_rmse`: root of the mean squared error over samples and channels, in the values' units.
        `held_out_psnr`: by the range of all samples' values, in dB.
        """
        if not self.options.held_out:
            return {}
        points, values, _ = known_samples(*self._samples(path)[:2])
        _, left = split(len(points), self.options.held_out)
        missed = field(points[left], physical=True) - values[left].astype(np.float64)
        rmse = float(np.sqrt(np.mean(missed**2)))
        span = float(np.ptp(values.astype(np.float64))) or 1.0
        return {"held_out_rmse": rmse, "held_out_psnr": 20 * math.log10(span / rmse) if rmse > 0 else math.inf}

    def sample(self, path: Path) -> None:
        random = np.random.default_rng(0)
        points = random.uniform([0.0, 40.0], [10.0, 60.0], (4000, 2))
        values = np.sin(points[:, 0]) + np.cos(points[:, 1] / 3) * points[:, 0] / 10
        if path.suffix.lower() == ".csv":
            np.savetxt(path, np.column_stack([points, values]), "%.6g", ",", header="x,y,value", comments="")
            return
        with path.open("wb") as file:
            np.savez(file, points=points, values=values[:, None].astype(np.float32))

    def _samples(self, path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """A file's (N, D) places, its (N, C) values, and what is known of the columns."""
        table = _table(path)
        if isinstance(table, ArchiveTable) and table.given:
            if self.options.coordinates or self.options.values:
                raise ConfigError(f"{path} holds points and values, no columns; leave modality.coordinates and values")
            return *table.points_and_values(), {}
        where, what, notes = roles(table.columns, table.named, self.options.coordinates, self.options.values, path)
        read = table.read([*where, *what])
        points, values = read[:, : len(where)], read[:, len(where) :]
        described: dict[str, Any] = {"coordinates": [], "values": []}
        for axis, index in enumerate(where):
            column = {"name": table.columns[index].name, "unit": table.columns[index].unit}
            if table.columns[index].kind == "date" and not np.isnan(points[:, axis]).all():
                first = float(np.nanmin(points[:, axis]))
                points[:, axis] -= first
                column |= {"unit": "s", "since": _moment(first)}
                notes.append(f"{column['name']} counts seconds since {column['since']}")
            described["coordinates"].append(column)
        for index in what:
            described["values"].append({"name": table.columns[index].name, "unit": table.columns[index].unit})
        return points, np.ascontiguousarray(values), {"columns": described, "notes": notes}


def _table(path: Path) -> TextTable | ParquetTable | ArchiveTable:
    suffix = path.suffix.lower()
    return {".npz": ArchiveTable, ".parquet": ParquetTable}.get(suffix, TextTable)(path)


def _moment(seconds: float) -> str:
    """ISO date and time, in UTC, of so many seconds since 1970."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return moment.replace(tzinfo=None).isoformat()


def _write(path: Path, values: np.ndarray, affine: np.ndarray, metadata: dict[str, Any]) -> None:
    """Write (*shape, C) values on a lattice whose box in the user's units an affine map tells."""
    suffix, shape = path.suffix.lower(), values.shape[:-1]
    if suffix not in (".npy", ".npz", ".csv"):
        raise ConfigError(f"arrays are not written as '{path.suffix}'; choose .npy, .npz or .csv")
    if suffix == ".npy":
        with path.open("wb") as file:
            np.save(file, values)
        return
    columns = metadata.get("columns", {})
    named = columns.get("coordinates") or [{"name": name, "unit": ""} for name in _axis_names(len(shape))]
    contents = columns.get("values") or [{"name": name, "unit": ""} for name in _value_names(values.shape[-1])]
    # Stretched per axis: the map's linear part is diagonal, so that each axis has coordinates of its own.
    axes = [
        affine[axis, axis] * (2 * np.arange(length) + 1 - length) / length + affine[axis, -1]
        for axis, length in enumerate(shape)
    ]
    if suffix == ".npz":
        arrays = {column["name"]: along for column, along in zip(named, axes, strict=True)}
        if "values" in arrays or "file" in arrays or len(arrays) < len(axes):
            arrays = {f"axis_{axis}": along for axis, along in enumerate(axes)}
        with path.open("wb") as file:
            np.savez(file, **arrays, values=values)
        return
    _write_rows(path, values, axes, named, contents)


def _write_rows(
    path: Path,
    values: np.ndarray,
    axes: list[np.ndarray],
    named: list[dict[str, str]],
    contents: list[dict[str, str]],
) -> None:
    """Write a row a cell: its coordinates, dates as dates, and its values."""
    told = [
        [_moment(_seconds(column["since"]) + along) for along in axis]
        if "since" in column
        else [f"{along:.9g}" for along in axis.tolist()]
        for column, axis in zip(named, axes, strict=True)
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([_title(column) for column in [*named, *contents]])
        for place, row in zip(itertools.product(*told), values.reshape(-1, values.shape[-1]), strict=True):
            writer.writerow([*place, *row])


def _title(column: dict[str, str]) -> str:
    shown = column["unit"] if "since" not in column else ""
    return str(Column(column["name"], shown))


def _seconds(moment: str) -> float:
    return (datetime.fromisoformat(moment) - datetime(1970, 1, 1)).total_seconds()


def _axis_names(dimensions: int) -> list[str]:
    return ["x", "y", "z"][:dimensions] if dimensions <= 3 else [f"x{axis + 1}" for axis in range(dimensions)]


def _value_names(channels: int) -> list[str]:
    return ["value"] if channels == 1 else [f"value {channel + 1}" for channel in range(channels)]
