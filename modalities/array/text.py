"""Tables in text: comma, semicolon, tab, bar or blanks between the fields, read some rows at a time."""

from __future__ import annotations

import codecs
import csv
import itertools
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import numpy as np

from inrkit.errors import DataError
from inrkit.modalities.array.columns import Column, column_of
from inrkit.signals.decoding import decoding

_ROWS = 1 << 16
"""Lines that are read at a time."""
_HEAD = 1 << 16
"""Bytes that tell how a file is written."""
_TROUBLE = "is no table of numbers"
_SEPARATORS = (";", "\t", ",", "|")
_COMMENTS = ("#", "%")
MISSING = frozenset(["", "nan", "na", "n/a", "#n/a", "null", "none", "-", "--", "?"])
"""What stands in a field, in lower case, whose value is not known."""
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_TRUTH = {"true": 1.0, "false": 0.0}
_ADORNED = re.compile(
    r"[+-]?[$€£]?\s?(\d{1,3}([,.'’\s]\d{3})+([.,]\d+)?|\d+([.,]\d+)?(?=\s?%)|(?<=[$€£\s])\d+([.,]\d+)?)\s?%?"
)
"""A number as people read it, such as `1,234.50`, `12 %` or `$3.20`."""


class TextTable:
    """A table in text.

    The first row is a header if one of its fields is no number; the row after it one of units if none of its fields
    is a number, a date or empty. A header may also be the last comment before the rows, as numpy.savetxt writes it.

    Args:
        path: of the file.

    Raises:
        DataError: it is no text, or holds no rows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            head = file.read(_HEAD)
        self._encoding = _encoding(head, path)
        comments: list[str] = []
        first: list[str] = []
        with decoding(path, _TROUBLE), self._open() as file:
            for line in _whole_lines(file):
                stripped = line.strip()
                if stripped.startswith(_COMMENTS) and not first:
                    comments.append(stripped.lstrip("".join(_COMMENTS)).strip())
                elif stripped and not stripped.startswith(_COMMENTS):
                    first.append(line)
                if len(first) == 20:
                    break
        if not first:
            raise DataError(f"{path} holds no rows; check how it was written")
        self._separator = _separator(first, path)
        rows = [self._fields(line) for line in first]
        numbers = [row for row in rows if any(_is_number(field, False) for field in row)]
        comma = self._separator != "," and any(_COMMA.fullmatch(field) for row in rows for field in row)
        self._comma = comma and not any("." in field and _is_number(field, False) for row in numbers for field in row)
        self._header_rows = 0
        names, units = self._header(rows, comments)
        count = len(names) if names else len(rows[0])
        body = rows[self._header_rows :]
        if not body:
            raise DataError(f"{path} has a header and no rows; check how it was written")
        kinds = [self._kind(body, index) for index in range(count)]
        self.named = bool(names)
        self.columns: list[Column] = [
            column_of(name, unit, kind)
            for name, unit, kind in zip(
                names or [f"column {number}" for number in range(1, count + 1)],
                units or itertools.repeat(""),
                kinds,
                strict=False,
            )
        ]

    def read(self, wanted: list[int]) -> np.ndarray:
        """(N, k) float64 of the wanted columns: NaN where a field is empty, dates as seconds since 1970.

        Raises:
            DataError: a row of another length, or a field that is no number; says where.
        """
        parts = []
        skip = self._header_rows
        with decoding(self._path, _TROUBLE), self._open() as file:
            lines = _numbered(file)
            while block := list(itertools.islice(lines, _ROWS)):
                rows = [
                    (number, line) for number, line in block if line.strip() and not line.lstrip().startswith(_COMMENTS)
                ]
                rows, skip = rows[skip:], max(0, skip - len(rows))
                if rows:
                    parts.append(self._quickly(rows, wanted))
        return np.concatenate(parts) if parts else np.empty((0, len(wanted)))

    def _quickly(self, rows: list[tuple[int, str]], wanted: list[int]) -> np.ndarray:
        """The wanted columns of some lines, by numpy's reader where each field of theirs is a number."""
        separators, blank = len(self.columns) - 1, self._separator is None
        plain = not any(self.columns[index].kind == "date" for index in wanted) and all(
            '"' not in line and (len(line.split()) - 1 if blank else line.count(self._separator)) == separators
            for _, line in rows
        )
        if plain:
            lines = [line.replace(",", ".") if self._comma else line for _, line in rows]
            try:
                read = np.loadtxt(
                    lines, delimiter=self._separator, usecols=wanted, ndmin=2, dtype=np.float64, comments=None
                )
            except ValueError:
                pass
            else:
                if len(read) == len(rows) and not np.isinf(read).any():
                    return read
        return np.array([self._row(number, line, wanted) for number, line in rows], dtype=np.float64)

    def _row(self, number: int, line: str, wanted: list[int]) -> list[float]:
        fields = self._fields(line)
        while len(fields) > len(self.columns) and not fields[-1]:
            fields.pop()
        if len(fields) != len(self.columns):
            raise DataError(
                f"{self._path}, line {number}, has {len(fields)} fields and the table {len(self.columns)} columns; "
                "mend or remove that line"
            )
        return [self._value(number, self.columns[index], fields[index]) for index in wanted]

    def _value(self, number: int, column: Column, field: str) -> float:
        if field.lower() in MISSING:
            return math.nan
        if column.kind == "date":
            moment = _date(field)
            if moment is not None:
                return moment
        elif _is_number(field, self._comma):
            value = _number(field, self._comma)
            if math.isfinite(value):
                return value
        expected = "a date like 2024-05-31 or 2024-05-31T12:00" if column.kind == "date" else "a number"
        raise DataError(
            f"{self._path}, line {number}: {column.name} is '{field[:40]}', which is not {expected}; mend it, or leave "
            "it empty where it is not known"
        )

    def _header(self, rows: list[list[str]], comments: list[str]) -> tuple[list[str], list[str]]:
        """Names and units, where the file has them."""
        if all(self._is_value(field) for field in rows[0]):
            fields = self._fields(comments[-1]) if comments else []
            named = len(fields) == len(rows[0]) and not any(_is_number(field, self._comma) for field in fields)
            return (fields, []) if named else ([], [])
        self._header_rows = 1
        names = rows[0]
        if len(rows) > 2 and len(rows[1]) == len(names) and not any(self._is_value(field) for field in rows[1]):
            body = rows[2:]
            if any(_is_number(field, self._comma) for row in body for field in row):
                self._header_rows = 2
                return names, [field.strip("[]() ") for field in rows[1]]
        return names, []

    def _is_value(self, field: str) -> bool:
        return field.lower() in MISSING or _is_number(field, self._comma) or _date(field) is not None

    def _kind(self, rows: list[list[str]], index: int) -> str:
        """Whether a column holds numbers, dates or text, by its first rows."""
        fields = [row[index] for row in rows if index < len(row) and row[index].lower() not in MISSING]
        if not fields or all(_is_number(field, self._comma) for field in fields):
            return "number"
        if _date(fields[0]) is not None:
            return "date"
        if _is_number(fields[0], self._comma):
            return "number"
        adorned = all(_ADORNED.fullmatch(field) or _is_number(field, self._comma) for field in fields)
        return "adorned" if adorned else "text"

    def _fields(self, line: str) -> list[str]:
        if self._separator is None:
            return line.split()
        try:
            fields = next(csv.reader([line], delimiter=self._separator, skipinitialspace=True))
        except csv.Error as error:
            raise DataError(f"{self._path} has a line that is no row of a table ({error}); mend it") from error
        return [field.strip() for field in fields]

    def _open(self) -> IO[str]:
        return self._path.open(encoding=self._encoding, newline="")


def _encoding(head: bytes, path: Path) -> str:
    """UTF-8, or UTF-16 by its mark; else Windows' Latin, in which ° and µ are often written."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in head:
        raise DataError(f"{path} is not text; a table is a text file with a row a line")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"


def _whole_lines(file: IO[str]) -> Iterator[str]:
    """Lines; one whose quotes are open goes on in the next."""
    held = ""
    for line in file:
        held += line
        if held.count('"') % 2 and len(held) < _HEAD:
            continue
        yield held
        held = ""
    if held:
        yield held


def _numbered(file: IO[str]) -> Iterator[tuple[int, str]]:
    """Lines with their numbers in the file, from 1."""
    number = 1
    for line in _whole_lines(file):
        yield number, line
        number += line.count("\n") or 1


def _separator(lines: list[str], path: Path) -> str | None:
    """What stands between fields; None for blanks."""
    outside = [re.sub(r'"[^"]*"', "", line) for line in lines]
    if path.suffix.lower() == ".tsv":
        return "\t"
    for separator in _SEPARATORS:
        counts = [line.count(separator) for line in outside]
        if min(counts) > 0 and (separator != "," or not _commas_are_decimal(outside)):
            return separator
    return None if any(len(line.split()) > 1 for line in outside) else ","


def _commas_are_decimal(lines: list[str]) -> bool:
    """Whether blanks part the fields and commas are inside of numbers, as in `1,5 2,5`."""
    last = lines[-1].split()
    return len(last) > 1 and all(_COMMA.fullmatch(field) or field.lstrip("+-").isdigit() for field in last)


def _is_number(field: str, comma: bool) -> bool:
    try:
        _number(field, comma)
    except ValueError:
        return False
    return "_" not in field


def _number(field: str, comma: bool) -> float:
    truth = _TRUTH.get(field.lower())
    return float(field.replace(",", ".") if comma else field) if truth is None else truth


def _date(field: str) -> float | None:
    """Seconds from 1970 to an ISO date, in UTC where it names no zone; None for anything else."""
    if "-" not in field[1:]:
        return None
    try:
        moment = datetime.fromisoformat(field)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
