"""Tables in Parquet and in NumPy's archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inrkit.errors import ConfigError, DataError
from inrkit.modalities.array.columns import column_of
from inrkit.signals.decoding import archived_array, decoding

_DAMAGED = "is damaged or truncated"

_POINTS = ("points", "coordinates", "coords", "positions")
_VALUES = ("values", "value")
"""What the two arrays of scattered samples are called in an archive; the first are documented."""


class ParquetTable:
    """A table in Parquet.

    Raises:
        ConfigError: pyarrow is missing.
        DataError: the file is damaged.
    """

    named = True

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise ConfigError("reading Parquet needs pyarrow; pip install 'inrkit[tables]'") from error
        self._path = path
        with decoding(path, "is not a Parquet file, or is damaged"):
            self._file = parquet.ParquetFile(path)
            fields = list(self._file.schema_arrow)
            self._names = [field.name for field in fields]
            self.columns = [
                column_of(name, kind=_kind(field.type)) for name, field in zip(self._names, fields, strict=True)
            ]

    def read(self, wanted: list[int]) -> np.ndarray:
        """(N, k) float64 of the wanted columns: NaN where a value is missing, dates as seconds since 1970."""
        import pyarrow

        start = 0
        with decoding(self._path, _DAMAGED):
            result = np.empty((self._file.metadata.num_rows, len(wanted)))
            for batch in self._file.iter_batches(columns=[self._names[index] for index in wanted]):
                for column, index in enumerate(wanted):
                    array = batch.column(batch.schema.names.index(self._names[index]))
                    if self.columns[index].kind == "date":
                        array = array.cast(pyarrow.timestamp("us")).cast(pyarrow.int64())
                    numbers = array.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
                    span = slice(start, start + len(batch))
                    result[span, column] = numbers / 1e6 if self.columns[index].kind == "date" else numbers
                start += len(batch)
        return result


class ArchiveTable:
    """Arrays in an .npz: `points`, (N, D), and `values`, (N, C), or by another of their usual names; or a 1-D array a
    column, under its name.

    Raises:
        DataError: the file is damaged, or holds neither.
    """

    named = True

    def __init__(self, path: Path) -> None:
        self._path = path
        with decoding(path, _DAMAGED), path.open("rb") as opened, np.load(opened) as file:
            self._pair = next(((p, v) for p in _POINTS for v in _VALUES if {p, v} <= set(file.files)), None)
            if self._pair not in (None, (_POINTS[0], _VALUES[0])):
                places, values = (archived_array(path, file, name) for name in self._pair)  # type: ignore[union-attr]
                if places.ndim != 2 or values.ndim not in (1, 2) or len(places) != len(values):
                    self._pair = None
            self.given = self._pair is not None
            arrays = {} if self.given else {name: archived_array(path, file, name) for name in file.files}
        self._arrays = {name: array for name, array in arrays.items() if array.ndim == 1}
        lengths = {len(array) for array in self._arrays.values()}
        if not self.given and (len(self._arrays) < 2 or len(lengths) != 1):
            missing = "points" if "points" not in arrays else "values"
            raise DataError(
                f"{path} has no array '{missing}'; scattered samples are points (N, D) and values (N, C), or 1-D "
                "arrays of one length under the columns' names"
            )
        self.columns = [column_of(name, kind=_archive_kind(array.dtype)) for name, array in self._arrays.items()]

    def read(self, wanted: list[int]) -> np.ndarray:
        """(N, k) float64 of the wanted columns: NaN where a value is missing, dates as seconds since 1970."""
        arrays = list(self._arrays.values())
        return np.stack([_numbers(arrays[index]) for index in wanted], axis=1)

    def points_and_values(self) -> tuple[np.ndarray, np.ndarray]:
        """The arrays of these names, of an archive that is `given` so."""
        with decoding(self._path, _DAMAGED), self._path.open("rb") as opened, np.load(opened) as file:
            points, values = (archived_array(self._path, file, name) for name in self._pair or ())
        for name, array in (("points", points), ("values", values)):
            if array.dtype.kind not in "biuf":
                raise DataError(f"{self._path}: {name} are of dtype {array.dtype}; expected real numbers")
        return points, values


def _kind(type: object) -> str:
    from pyarrow import types

    if types.is_timestamp(type) or types.is_date(type):
        return "date"
    numeric = types.is_integer(type) or types.is_floating(type) or types.is_boolean(type) or types.is_decimal(type)
    return "number" if numeric else "text"


def _archive_kind(dtype: np.dtype) -> str:
    return "date" if dtype.kind == "M" else "number" if dtype.kind in "biuf" else "text"


def _numbers(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "M":
        return array.astype(np.float64)
    seconds = array.astype("datetime64[us]").astype(np.int64) / 1e6
    return np.where(np.isnat(array), np.nan, seconds)
