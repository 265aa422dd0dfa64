"""Columns of a table: their names and units, and which are places and which are values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from inrkit.errors import ConfigError, DataError
from inrkit.plugins.options import nearest

PLACES = (
    *("x", "y", "z", "easting", "northing", "east", "north", "lon", "long", "lng", "longitude"),
    *("lat", "latitude", "depth", "alt", "altitude", "t", "time", "date", "datetime", "timestamp"),
)
"""Names of columns that are taken for coordinates; and `x1`, `x2`, …"""
_NUMBERED = re.compile(r"x_?\d+")
_ROW_NAMES = frozenset(["", "id", "index", "fid", "unnamed: 0"])
"""Names of columns that number the rows."""
_WITH_UNIT = (
    re.compile(r"^(?P<name>[^\[\]]+?)\s*\[(?P<unit>[^\[\]]*)\]$"),
    re.compile(r"^(?P<name>[^()]+?)\s*\((?P<unit>[^()]*)\)$"),
    re.compile(r"^(?P<name>.+?)\s+/\s+(?P<unit>\S+)$"),
)
_MOST_WITHOUT_NAMES = 6
"""Columns of the widest table without a header that is taken for five coordinates and a value."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: without its unit.
        unit: "" where the file has none.
        kind: "number", "date", "text", or "adorned" for numbers that no program reads, such as `1,234.50` or `12 %`.
    """

    name: str
    unit: str = ""
    kind: str = "number"

    def __str__(self) -> str:
        return f"{self.name} [{self.unit}]" if self.unit else self.name


def column_of(title: str, unit: str = "", kind: str = "number") -> Column:
    """The column of a header's title, such as `x [mm]`, `time (s)` or `p / hPa`."""
    for pattern in _WITH_UNIT:
        if not unit and (found := pattern.match(title.strip())):
            return Column(found["name"].strip(), found["unit"].strip(), kind)
    return Column(title.strip(), unit, kind)


def names_samples(columns: list[Column]) -> bool:
    """Whether a header names at least one coordinate and leaves a column of numbers for values."""
    usable = [column for column in columns if _is_usable(column)]
    return len(usable) > 1 and any(_is_place(column) for column in usable)


def roles(
    columns: list[Column], named: bool, coordinates: list[str], values: list[str], path: Path
) -> tuple[list[int], list[int], list[str]]:
    """Which columns are coordinates and which are values, and notes on what was taken for what.

    Args:
        columns: of the table.
        named: whether they have names of their own.
        coordinates: those that the user chose, by name or by number from 1; empty for none.
        values: likewise.
        path: of the table, for messages.

    Raises:
        ConfigError: a chosen column is not there, or chosen twice.
        DataError: nothing says which columns are which, or none is left for one of the two.
    """
    where = _chosen(columns, coordinates, "modality.coordinates", path)
    what = _chosen(columns, values, "modality.values", path)
    if twice := [columns[index] for index in where if index in what]:
        raise ConfigError(f"modality.coordinates and modality.values both name {twice[0].name}; choose one of them")
    free = [index for index, column in enumerate(columns) if index not in {*where, *what} and _is_usable(column)]
    everything = ", ".join(column.name for column in columns[:12]) + (", …" if len(columns) > 12 else "")
    mend = f"name them with modality.coordinates=[…] modality.values=[…]; columns: {everything}"
    if not where:
        if named:
            where = [index for index in free if _is_place(columns[index])]
            if where and not what and len(where) == len(free):  # heights as x, y, z
                where = where[:-1]
        elif len(columns) <= _MOST_WITHOUT_NAMES or what:
            where = free if what else free[:-1]
        if not where and what and named:
            where = free
        if not where:
            told = "names no coordinates" if named else f"has {len(columns)} columns and no header"
            if len(columns) == 1 or not named:
                mend += "; or save an array without coordinates as .npy"
            raise DataError(f"{path} {told}; {mend}")
    if not what:
        what = [index for index in free if index not in where and columns[index].kind == "number"]
    if not what:
        raise DataError(f"{path} has no column of numbers for values; {mend}")
    if dated := [columns[index] for index in what if columns[index].kind == "date"]:
        raise DataError(f"{path}: {dated[0].name} holds dates, which are no values; give a column of numbers")
    counted = range(len(columns)) if not (coordinates and values) else (*where, *what)
    if adorned := [columns[index] for index in counted if columns[index].kind == "adorned"]:
        raise DataError(
            f"{path}: {adorned[0].name} holds numbers with separators or signs, like 1,234.50 or 12 %; write them "
            "plain, like 1234.50, or choose other columns with modality.coordinates=[…] modality.values=[…]"
        )
    worded = [columns[index] for index in (*where, *what) if columns[index].kind == "text"]
    if worded:
        raise DataError(
            f"{path}: {worded[0].name} holds words, not numbers or dates like 2024-05-31; choose other columns"
        )
    notes = []
    if not (coordinates and values):
        notes.append(f"coordinates are {_listed(columns, where)}; values are {_listed(columns, what)}")
        unused = [index for index in range(len(columns)) if index not in {*where, *what}]
        if unused:
            notes.append(f"left out: {_listed(columns, unused)}")
    return where, what, notes


def _is_usable(column: Column) -> bool:
    """Whether a column may count without being named; one that should be a coordinate and holds words is an error."""
    words = column.kind in ("text", "adorned")
    return column.name.lower() not in _ROW_NAMES and (not words or _is_place(column))


def _is_place(column: Column) -> bool:
    name = column.name.lower()
    return name in PLACES or _NUMBERED.fullmatch(name) is not None


def _listed(columns: list[Column], indices: list[int]) -> str:
    return ", ".join(str(columns[index]) or f"column {index + 1}" for index in indices)


def _chosen(columns: list[Column], wanted: list[str], key: str, path: Path) -> list[int]:
    names = [column.name for column in columns]
    lowered = [name.lower() for name in names]
    found = []
    for name in wanted:
        if name in names:
            index = names.index(name)
        elif column_of(name).name.lower() in lowered:
            index = lowered.index(column_of(name).name.lower())
        elif name.isdigit() and 1 <= int(name) <= len(columns):
            index = int(name) - 1
        else:
            raise ConfigError(f"{key} names '{name}', which is no column of {path}{nearest(name, names)}")
        if index in found:
            raise ConfigError(f"{key} names {names[index]} twice; name each column once")
        found.append(index)
    return found
