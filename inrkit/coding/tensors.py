"""Tensors as whole numbers: in steps of a size that a file holds, as short floats, or exactly.

Decoding is whole numbers, table look-ups and single IEEE operations in a fixed order, so that every machine gets the
same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from inrkit.coding.entropy import LARGEST, Decoder, Encoder

_QUARTERS = np.array([1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429], dtype=np.float32)
"""2 to the power of 0, ¼, ½ and ¾."""
MOST_QUARTERS = 160
"""Largest code of a row's factor."""
_MOST_CLASSES = 255
_LARGEST_SHORT = 0x7F7FF
_MOST_DIMENSIONS = 32
_DTYPES = ("float32", "complex64")


def short(value: float) -> int:
    """The code of a positive number, correct to one part in 4096: the upper 20 bits of a float32."""
    return int((int(np.float32(value).view(np.uint32)) + 0x800) >> 12)


def of_short(codes: Any) -> np.ndarray:
    """Float32 numbers of codes."""
    return (np.asarray(codes, dtype=np.uint32) << 12).view(np.float32)


@dataclass(frozen=True)
class Initial:
    """Uniform numbers as torch draws them for a network's initial weights, from which trained ones often differ little.

    They are drawn as whole numbers: element i of group g in draw d is number d·stride + offsets[g] + i of the Mersenne
    twister, of which 24 bits count.

    Args:
        seed: of the twister.
        draws: distinct draws; rows have them in turn.
        stride: numbers from a draw to the next.
        offsets: of each group; −1 for one that is told from 0.
        bounds: of each group, whose elements lie in ±bound.
    """

    seed: int
    draws: int
    stride: int
    offsets: tuple[int, ...]
    bounds: tuple[float, ...]

    def values(self, rows: int, widths: tuple[int, ...]) -> np.ndarray:
        """(R, K) float64 initial values."""
        stream = uniform_stream(self.seed, self.draws * self.stride)
        draw = np.arange(rows) % self.draws * self.stride
        parts = []
        for width, offset, bound in zip(widths, self.offsets, self.bounds, strict=True):
            if offset < 0:
                parts.append(np.zeros((rows, width)))
                continue
            drawn = stream[draw[:, None] + offset + np.arange(width)[None]]
            parts.append((2 * drawn - (1 << 24)) * (bound / (1 << 24)))
        return np.concatenate(parts, axis=1)


def uniform_stream(seed: int, count: int) -> np.ndarray:
    """(count,) int64 numbers below 2²⁴, as torch's generator on a CPU gives them for uniform floats."""
    twister = np.random.MT19937()
    twister._legacy_seeding(seed)  # numpy keeps this stream as it is for ever
    return (twister.random_raw(count) & 0xFFFFFF).astype(np.int64)


@dataclass(frozen=True)
class Stepped:
    """A tensor as a matrix of whole numbers of steps.

    Args:
        name: of the tensor.
        shape: of the tensor.
        numbers: (R, K) int64.
        widths: of groups of columns; they add up to K.
        steps: code of each group's step; see `short`.
        classes: each group's class; columns of groups of one class are taken to be spread alike.
        quarters: (R,) codes of factors by which rows' steps are smaller, in quarters of an octave; None for 1 each.
        per_class: rows whose codes are the same in units of so many quarters are taken to be spread alike; 0 for all.
        running: whether a row holds the difference from the one before.
        initial: what numbers are told from; None for 0.
        dtype: float32 or complex64, which is stored as pairs.
    """

    kind: ClassVar[str] = "steps"
    name: str
    shape: tuple[int, ...]
    numbers: np.ndarray
    widths: tuple[int, ...]
    steps: tuple[int, ...]
    classes: tuple[int, ...]
    quarters: np.ndarray | None = None
    per_class: int = 0
    running: bool = False
    initial: Initial | None = None
    dtype: str = "float32"

    def header(self) -> dict[str, Any]:
        """What the file says of it in words."""
        described: dict[str, Any] = {
            "name": self.name,
            "shape": self.shape,
            "kind": self.kind,
            "rows": len(self.numbers),
            "widths": self.widths,
            "steps": self.steps,
            "classes": self.classes,
        }
        if self.quarters is not None:
            described["per_class"] = self.per_class
        if self.running:
            described["running"] = True
        if self.initial is not None:
            described["initial"] = vars(self.initial)
        if self.dtype != "float32":
            described["dtype"] = self.dtype
        return described

    def encode(self, encoder: Encoder) -> None:
        """Code its numbers."""
        if self.quarters is not None:
            encoder.add(self.quarters[:, None], np.zeros(len(self.quarters), dtype=np.int64), _ONE)
        numbers = np.diff(self.numbers, axis=0, prepend=0) if self.running else self.numbers
        encoder.add(numbers, *self._kinds())

    @classmethod
    def decode(cls, header: dict[str, Any], decoder: Decoder) -> Stepped:
        """From a header and what `encode` coded.

        Raises:
            ValueError, KeyError, TypeError: the header is none that inrkit wrote.
        """
        shape = shape_of(header)
        dtype = header.get("dtype", "float32")
        if dtype not in _DTYPES:
            raise ValueError("dtype")
        count = math.prod(shape) * (2 if dtype == "complex64" else 1)
        rows, widths = whole(header["rows"], count), tuple(whole(width, count) for width in header["widths"])
        steps = tuple(whole(step, _LARGEST_SHORT, 0x800) for step in header["steps"])
        classes = tuple(whole(each, _MOST_CLASSES) for each in header["classes"])
        if not len(widths) == len(steps) == len(classes) or rows * sum(widths) != count:
            raise ValueError("groups")
        quarters, per_class = None, 0
        if "per_class" in header:
            per_class = whole(header["per_class"], MOST_QUARTERS + 1)
            quarters = decoder.numbers(np.zeros(rows, dtype=np.int64), _ONE)[:, 0]
            if rows and not 0 <= quarters.min() <= quarters.max() <= MOST_QUARTERS:
                raise ValueError("quarters")
        initial = _initial_of(header["initial"], rows, widths) if "initial" in header else None
        running = header.get("running", False) is True
        empty = np.zeros((rows, 0), dtype=np.int64)
        made = cls(
            str(header["name"]), shape, empty, widths, steps, classes, quarters, per_class, running, initial, dtype
        )
        numbers = decoder.numbers(*made._kinds())
        object.__setattr__(made, "numbers", np.cumsum(numbers, axis=0) if running else numbers)
        return made

    def _kinds(self) -> tuple[np.ndarray, np.ndarray]:
        """Which rows and columns are spread alike."""
        columns = np.repeat(np.array(self.classes, dtype=np.int64), self.widths)
        if self.quarters is None or self.per_class == 0:
            return np.zeros(len(self.numbers), dtype=np.int64), columns
        return self.quarters // self.per_class, columns

    def scale(self) -> np.ndarray:
        """(R, K) float32 steps, or (1, K) if they are the same for all rows."""
        columns = np.repeat(of_short(self.steps), self.widths)[None]
        if self.quarters is None:
            return columns
        factors = np.ldexp(_QUARTERS[self.quarters % 4], (self.quarters // 4).astype(np.int32))
        scaled: np.ndarray = columns / factors[:, None]
        return scaled

    def origin(self) -> np.ndarray:
        """(R, K) int64 numbers of steps that the initial weights are; (1, 1) zero if they are not used."""
        if self.initial is None:
            return np.zeros((1, 1), dtype=np.int64)
        steps = np.rint(self.initial.values(len(self.numbers), self.widths) / self.scale().astype(np.float64))
        return np.clip(steps, -LARGEST, LARGEST).astype(np.int64)

    def tensor(self) -> np.ndarray:
        """The tensor."""
        total = np.clip(self.numbers + self.origin(), -2 * LARGEST, 2 * LARGEST)
        flat = (total.astype(np.float32) * self.scale()).reshape(-1)
        return (flat.view(np.complex64) if self.dtype == "complex64" else flat).reshape(self.shape)


@dataclass(frozen=True)
class Short:
    """A tensor of positive floats, correct to one part in 4096.

    Args:
        name: of the tensor.
        shape: of the tensor.
        codes: (n,) int64; see `short`.
    """

    kind: ClassVar[str] = "short"
    name: str
    shape: tuple[int, ...]
    codes: np.ndarray

    def header(self) -> dict[str, Any]:
        least = int(self.codes.min()) if self.codes.size else 0
        return {"name": self.name, "shape": self.shape, "kind": self.kind, "least": least}

    def encode(self, encoder: Encoder) -> None:
        zeros = np.zeros(len(self.codes), dtype=np.int64)
        encoder.add(self.codes[:, None] - self.header()["least"], zeros, _ONE)

    @classmethod
    def decode(cls, header: dict[str, Any], decoder: Decoder) -> Short:
        shape, least = shape_of(header), whole(header["least"], _LARGEST_SHORT)
        codes = decoder.numbers(np.zeros(math.prod(shape), dtype=np.int64), _ONE)[:, 0] + least
        if codes.size and not 0 <= codes.min() <= codes.max() <= _LARGEST_SHORT:
            raise ValueError("codes")
        return cls(str(header["name"]), shape, codes)

    def tensor(self) -> np.ndarray:
        return of_short(self.codes).reshape(self.shape)


@dataclass(frozen=True)
class Exact:
    """A tensor as it is, in the file's part for bytes.

    Args:
        name: of the tensor.
        value: the tensor.
    """

    kind: ClassVar[str] = "exact"
    name: str
    value: np.ndarray = field(repr=False)

    def header(self) -> dict[str, Any]:
        kind = self.value.dtype.newbyteorder("<").str
        return {"name": self.name, "shape": self.value.shape, "kind": self.kind, "dtype": kind}

    def raw(self) -> bytes:
        """Its bytes. Of integers, which are often in order, the differences."""
        flat = self.value.reshape(-1)
        if flat.dtype.kind in "iu":
            flat = np.diff(flat, prepend=flat.dtype.type(0))
        return flat.astype(flat.dtype.newbyteorder("<")).tobytes()

    @staticmethod
    def length(header: dict[str, Any]) -> int:
        """How many bytes a tensor has."""
        return math.prod(shape_of(header)) * _exact_dtype(header).itemsize

    @classmethod
    def of(cls, header: dict[str, Any], data: bytes) -> Exact:
        """From a header and its bytes."""
        flat = np.frombuffer(data, dtype=_exact_dtype(header))
        flat = flat.astype(flat.dtype.newbyteorder("="))
        if flat.dtype.kind in "iu":
            flat = np.cumsum(flat, dtype=flat.dtype)
        return cls(str(header["name"]), flat.reshape(shape_of(header)))

    def tensor(self) -> np.ndarray:
        return self.value


_ONE = np.zeros(1, dtype=np.int64)


def whole(value: Any, most: int, least: int = 0) -> int:
    """A whole number of a file.

    Raises:
        ValueError: it is none, or out of range.
    """
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r} is not a whole number from {least} to {most}")
    return value


def shape_of(header: dict[str, Any]) -> tuple[int, ...]:
    """The shape of a tensor."""
    shape = tuple(whole(length, 1 << 40) for length in header["shape"])
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError("shape")
    return shape


def _exact_dtype(header: dict[str, Any]) -> np.dtype:
    dtype = np.dtype(str(header["dtype"]))
    if dtype.kind not in "biufc" or dtype.itemsize > 16:
        raise ValueError("dtype")
    return dtype


def _initial_of(header: dict[str, Any], rows: int, widths: tuple[int, ...]) -> Initial:
    """Initial values as a header describes them, no more numbers than about those of the tensor."""
    count = 16 * (rows * sum(widths) + 1024)
    draws, stride = whole(header["draws"], max(1, rows), 1), whole(header["stride"], count, 1)
    offsets = tuple(whole(offset, stride, -1) for offset in header["offsets"])
    bounds = tuple(float(bound) for bound in header["bounds"])
    if draws * stride > count or not len(offsets) == len(bounds) == len(widths):
        raise ValueError("initial")
    if any(offset + width > stride for offset, width in zip(offsets, widths, strict=True)):
        raise ValueError("initial")
    if not all(math.isfinite(bound) and abs(bound) < 1e6 for bound in bounds):
        raise ValueError("initial")
    return Initial(whole(header["seed"], (1 << 32) - 1), draws, stride, offsets, bounds)
