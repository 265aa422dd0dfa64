"""PLY, the Stanford polygon format: as text and in either order of bytes, faces of any length, triangle strips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from inrkit.errors import DataError
from inrkit.modalities.shape.files.polygons import Polygons, strip_triangles, words_of

_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "int64": "i8",
    "uint64": "u8",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_INDICES = ("vertex_indices", "vertex_index")


@dataclass
class _Property:
    """A property of an element: one number, or a list that begins with its length."""

    name: str
    type: np.dtype
    length: np.dtype | None


@dataclass
class _Element:
    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)

    @property
    def smallest(self) -> int:
        """Bytes, or words, that a row takes at least, as one number each."""
        return sum((one.length or one.type).itemsize for one in self.properties)


@dataclass
class _Columns:
    """An element's rows: numbers by name, and of each list its (rows,) lengths and all its values."""

    numbers: dict[str, np.ndarray]
    lists: dict[str, tuple[np.ndarray, np.ndarray]]


def read(path: Path) -> Polygons:
    """The vertices of a file and what it has of faces and triangle strips.

    Raises:
        DataError: the header cannot be understood, or the file ends before what it announces.
    """
    data = path.read_bytes()
    order, elements, start = _header(path, data)
    held = _text(path, data[start:], elements) if order == "=" else _binary(path, data, start, elements)
    vertices = held.get("vertex")
    if vertices is None:
        raise DataError(f"{path} has no element 'vertex'; check how it was written")
    missing = [name for name in "xyz" if name not in vertices.numbers]
    if missing:
        raise DataError(f"{path} has vertices without {', '.join(missing)}; they must have x, y and z")
    lengths, corners = _indices(path, held.get("face"))
    triangles = [strip_triangles(strip) for strip in _strips(*_indices(path, held.get("tristrips")))]
    lengths = np.concatenate([lengths, *(np.full(len(some), 3) for some in triangles)])
    corners = np.concatenate([corners, *(some.reshape(-1) for some in triangles)])
    return Polygons(_three(vertices, "x", "y", "z"), lengths, corners, _normals(vertices))


def data_of(vertices: np.ndarray, faces: np.ndarray, double: bool) -> bytes:
    """A binary file of (V, 3) vertices, in double precision or not, and (F, 3) triangles."""
    name, kind = ("double", "<f8") if double else ("float", "<f4")
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *(f"property {name} {axis}" for axis in "xyz"),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    rows = np.empty(len(faces), dtype=[("length", "u1"), ("corners", "<i4", 3)])
    rows["length"], rows["corners"] = 3, faces
    return "\n".join(header).encode() + vertices.astype(kind).tobytes() + rows.tobytes()


def _header(path: Path, data: bytes) -> tuple[str, list[_Element], int]:
    """The order of bytes ('=' for text), the elements, and where their rows begin."""
    if not data.startswith(b"ply"):
        raise DataError(f"{path} is no .ply file, or is damaged: it does not begin with 'ply'")
    end = b"\r\n" if data[3:5] == b"\r\n" else data[3:4]
    order, elements, start = "", list[_Element](), 0
    while True:
        stop = data.find(end, start) if end in (b"\n", b"\r", b"\r\n") else -1
        if stop < 0:
            raise DataError(f"{path} is no .ply file, or is damaged: its header does not end")
        words = data[start:stop].decode("latin-1").split()
        start = stop + len(end)
        try:
            match words:
                case ["format", name, *_]:
                    order = _ORDERS[name]
                case ["element", name, count]:
                    elements.append(_Element(name, int(count)))
                case ["property", "list", length, kind, name]:
                    types = np.dtype(_TYPES[kind]), np.dtype(_TYPES[length])
                    elements[-1].properties.append(_Property(name, *types))
                case ["property", kind, name]:
                    elements[-1].properties.append(_Property(name, np.dtype(_TYPES[kind]), None))
                case ["end_header"]:
                    break
        except (KeyError, ValueError, IndexError):
            raise DataError(f"{path} has the header line '{' '.join(words)[:80]}', which PLY does not know") from None
    if not order or any(element.count < 0 for element in elements):
        raise DataError(f"{path} is damaged: its header has no format, or a negative count")
    for element in elements:
        for one in element.properties:
            one.type = one.type.newbyteorder(order)
            one.length = one.length and one.length.newbyteorder(order)
    return order, elements, start


def _ends_early(path: Path, element: _Element) -> DataError:
    return DataError(f"{path} is damaged: it ends before all of the {element.count:,} rows of '{element.name}'")


def _binary(path: Path, data: bytes, start: int, elements: list[_Element]) -> dict[str, _Columns]:
    held = {}
    for element in elements:
        if element.count * element.smallest > len(data) - start:
            raise _ends_early(path, element)
        # Rows are mostly alike: as long as all lists have the lengths of the first row's, an element is a table.
        lengths = _row_lengths(data, start, element) if element.count else {}
        table = None if lengths is None else _table(data, start, element, lengths)
        held[element.name], start = table or _rows(path, data, start, element)
    return held


def _row_lengths(data: bytes, start: int, element: _Element) -> dict[str, int] | None:
    """Lengths of the lists of the row at `start`; None where the file ends in it."""
    lengths = {}
    for one in element.properties:
        if one.length is not None:
            if start + one.length.itemsize > len(data):
                return None
            lengths[one.name] = int(np.frombuffer(data, one.length, 1, start)[0])
            start += one.length.itemsize + lengths[one.name] * one.type.itemsize
        else:
            start += one.type.itemsize
    return lengths if start <= len(data) else None


def _table(data: bytes, start: int, element: _Element, lengths: dict[str, int]) -> tuple[_Columns, int] | None:
    """An element's rows if all its lists have the same lengths, and where they end."""
    fields: list[tuple] = []
    for place, one in enumerate(element.properties):
        if one.length is not None:
            fields += [
                (f"length {place}", one.length),
                (f"value {place}", one.type, (max(0, lengths.get(one.name, 0)),)),
            ]
        else:
            fields.append((f"value {place}", one.type))
    kind = np.dtype(fields)
    stop = start + element.count * kind.itemsize
    if stop > len(data):
        return None
    rows = np.frombuffer(data, kind, element.count, start)
    held = _Columns({}, {})
    for place, one in enumerate(element.properties):
        values = rows[f"value {place}"]
        if one.length is None:
            held.numbers[one.name] = values
            continue
        counts = rows[f"length {place}"].astype(np.int64)
        if (counts != lengths.get(one.name, 0)).any():
            return None
        held.lists[one.name] = counts, values.reshape(-1)
    return held, stop


def _rows(path: Path, data: bytes, start: int, element: _Element) -> tuple[_Columns, int]:
    """An element's rows one by one, and where they end."""
    numbers: dict[str, list] = {one.name: [] for one in element.properties if one.length is None}
    lists: dict[str, list] = {one.name: [] for one in element.properties if one.length is not None}
    for _ in range(element.count):
        for one in element.properties:
            count = 1
            if one.length is not None:
                if start + one.length.itemsize > len(data):
                    raise _ends_early(path, element)
                count = int(np.frombuffer(data, one.length, 1, start)[0])
                start += one.length.itemsize
            if count < 0 or start + count * one.type.itemsize > len(data):
                raise _ends_early(path, element)
            values = np.frombuffer(data, one.type, count, start)
            (numbers if one.length is None else lists)[one.name].append(values)
            start += count * one.type.itemsize
    return _Columns({name: np.concatenate(parts) for name, parts in numbers.items()}, _joined(lists)), start


def _joined(lists: dict[str, list]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        name: (np.array([len(part) for part in parts], dtype=np.int64), np.concatenate(parts))
        for name, parts in lists.items()
    }


def _text(path: Path, data: bytes, elements: list[_Element]) -> dict[str, _Columns]:
    words = data.split()
    held = {}
    start = 0
    for element in elements:
        if element.count * len(element.properties) > len(words) - start:
            raise _ends_early(path, element)
        columns = len(element.properties)
        if all(one.length is None for one in element.properties):
            values = words_of(words[start : start + element.count * columns]).reshape(-1, columns)
            start += element.count * columns
            numbers = {one.name: values[:, place].astype(np.float64) for place, one in enumerate(element.properties)}
            held[element.name] = _Columns(numbers, {})
            continue
        single: dict[str, list] = {one.name: [] for one in element.properties if one.length is None}
        lists: dict[str, list] = {one.name: [] for one in element.properties if one.length is not None}
        lengths: dict[str, list] = {name: [] for name in lists}
        for _ in range(element.count):
            for one in element.properties:
                if start >= len(words):
                    raise _ends_early(path, element)
                if one.length is None:
                    single[one.name].append(words[start])
                    start += 1
                    continue
                count = int(words[start])
                if not 0 <= count < len(words) - start:
                    raise _ends_early(path, element)
                lengths[one.name].append(count)
                lists[one.name] += words[start + 1 : start + 1 + count]
                start += 1 + count
        held[element.name] = _Columns(
            {name: words_of(some).astype(np.float64) for name, some in single.items()},
            {
                name: (np.array(lengths[name], dtype=np.int64), words_of(some).astype(np.float64))
                for name, some in lists.items()
            },
        )
    return held


def _indices(path: Path, rows: _Columns | None) -> tuple[np.ndarray, np.ndarray]:
    """(P,) lengths and all values of the list of vertices that faces or strips have."""
    if rows is None or not (rows.lists or any(map(len, rows.numbers.values()))):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    names = (*_INDICES, *rows.lists) if len(rows.lists) == 1 else _INDICES
    name = next((name for name in names if name in rows.lists), None)
    if name is None:
        held = ", ".join([*rows.lists, *rows.numbers])
        raise DataError(f"{path} has faces without 'vertex_indices', only {held}; check how it was written")
    lengths, corners = rows.lists[name]
    return lengths, corners.astype(np.int64)


def _strips(lengths: np.ndarray, corners: np.ndarray) -> Iterator[np.ndarray]:
    """The triangle strips of (P,) lists, in each of which −1 ends one."""
    for strip in np.split(corners, np.cumsum(lengths)[:-1]):
        for part in np.split(strip, np.flatnonzero(strip == -1)):
            yield part[part != -1]


def _three(rows: _Columns, *names: str) -> np.ndarray:
    return np.stack([rows.numbers[name].astype(np.float64) for name in names], axis=1)


def _normals(rows: _Columns) -> np.ndarray | None:
    names = ("nx", "ny", "nz")
    return _three(rows, *names) if all(name in rows.numbers for name in names) else None
