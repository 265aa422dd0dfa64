"""One file of the weights of many runs, a row each, in safetensors or Parquet; and how it is read as a data set."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.utils.data import Dataset

from inrkit.errors import ConfigError, DataError
from inrkit.files import from_json, require_file, to_json, written_whole
from inrkit.runs.field import Field, field_of
from inrkit.runs.run import numbers_of

SUFFIXES = (".safetensors", ".parquet")
_FORMAT = 1
_KEY = "inrkit.weights"
_ROWS, _INFOS, _BESIDE = "weights", "infos", "beside."
"""Names of the tensors in a file: the rows, what is known of each run as lines of JSON, and one for each tensor of
another type than the rows."""
_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_BATCH = 256
"""Rows of a Parquet file that are in memory at a time."""


@dataclass(frozen=True)
class Layout:
    """Where a network's tensors lie in a row.

    Args:
        dtype: of a row.
        shapes: of the tensors in a row, by name, in their order.
        beside: types and shapes of the other tensors, such as counts, by name.
    """

    dtype: torch.dtype
    shapes: dict[str, tuple[int, ...]]
    beside: dict[str, tuple[torch.dtype, tuple[int, ...]]]

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Layout:
        """The layout of a network's tensors: in a row are those of the floating type that holds the most numbers.

        Raises:
            ValueError: there is no number, or a type that no file holds.
        """
        numbers: dict[torch.dtype, int] = {}
        for tensor in weights.values():
            if tensor.dtype not in _CODES:
                raise ValueError(f"weights of {tensor.dtype}")
            if tensor.is_floating_point():
                numbers[tensor.dtype] = numbers.get(tensor.dtype, 0) + tensor.numel()
        if not sum(numbers.values()):
            raise ValueError("no weights")
        dtype = max(numbers, key=lambda each: numbers[each])
        named = {name: weights[name] for name in sorted(weights, key=_natural)}
        return cls(
            dtype,
            {name: tuple(tensor.shape) for name, tensor in named.items() if tensor.dtype == dtype},
            {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in named.items() if tensor.dtype != dtype},
        )

    @property
    def length(self) -> int:
        """P, the numbers in a row."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def row(self, weights: Mapping[str, Tensor]) -> Tensor:
        """(P,) the tensors one after another."""
        return torch.cat([weights[name].flatten() for name in self.shapes])

    def tensors(self, row: Tensor) -> dict[str, Tensor]:
        """The tensors of a (P,) row, which share its memory."""
        parts = row.split([math.prod(shape) for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


def _natural(name: str) -> list[Any]:
    """So that layer 10 comes after layer 2."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def write_weights(
    path: Path,
    layout: Layout,
    weights: Iterable[Mapping[str, Tensor]],
    infos: list[dict[str, Any]],
    common: dict[str, Any],
) -> None:
    """Write a data set, with one network in memory at a time (256 for Parquet).

    Args:
        path: its suffix is one of `SUFFIXES`.
        layout: of every network.
        weights: of each network, in the order of `infos`.
        infos: what is known of each run, in JSON's containers.
        common: `config` and `field`, what is the same for all runs.

    Raises:
        ConfigError: pyarrow is missing, or a Parquet file cannot hold these weights.
        RunError: the file cannot be written.
    """
    described = {"format": _FORMAT, "shapes": layout.shapes, **common}
    write = _write_parquet if path.suffix == ".parquet" else _write_safetensors
    with written_whole(path) as aside:
        write(aside, layout, weights, infos, to_json(described))


def _write_safetensors(
    path: Path, layout: Layout, weights: Iterable[Mapping[str, Tensor]], infos: list[dict[str, Any]], described: str
) -> None:
    # Written here, because safetensors' own writer wants all rows in memory.
    count, lines = len(infos), "".join(to_json(info) + "\n" for info in infos).encode("utf-8")
    stored: list[tuple[str, torch.dtype, tuple[int, ...]]] = [(_ROWS, layout.dtype, (layout.length,))]
    stored += [(_BESIDE + name, dtype, shape) for name, (dtype, shape) in layout.beside.items()]
    stored.sort(key=lambda each: -each[1].itemsize)  # so that each is aligned
    header: dict[str, Any] = {"__metadata__": {_KEY: described}}
    starts, end = {}, 0
    for name, dtype, shape in stored:
        starts[name], begin = (end, dtype.itemsize * math.prod(shape)), end
        end += count * starts[name][1]
        header[name] = {"dtype": _CODES[dtype], "shape": [count, *shape], "data_offsets": [begin, end]}
    header[_INFOS] = {"dtype": "U8", "shape": [len(lines)], "data_offsets": [end, end + len(lines)]}
    head = to_json(header, separators=(",", ":")).encode("utf-8")
    head += b" " * (-len(head) % 8)
    origin = 8 + len(head)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for number, each in enumerate(weights):
            parts = {_ROWS: layout.row(each), **{_BESIDE + name: each[name] for name in layout.beside}}
            for name, part in parts.items():
                start, length = starts[name]
                file.seek(origin + start + number * length)
                file.write(part.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        file.seek(origin + end)
        file.write(lines)


def _write_parquet(
    path: Path, layout: Layout, weights: Iterable[Mapping[str, Tensor]], infos: list[dict[str, Any]], described: str
) -> None:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ConfigError("writing Parquet needs pyarrow; pip install 'inrkit[tables]'") from error
    if layout.beside or layout.dtype == torch.bfloat16:
        raise ConfigError(f"{path.suffix} holds weights of one type, which numpy knows; write .safetensors")
    number = pyarrow.from_numpy_dtype(np.dtype(str(layout.dtype).removeprefix("torch.")))
    metrics = list(dict.fromkeys(name for info in infos for name in info["metrics"]))
    texts = ("axes", "config", "field")
    columns = [("run", pyarrow.string()), ("signal", pyarrow.string()), ("seed", pyarrow.int64())]
    columns += [("steps", pyarrow.int64()), ("seconds", pyarrow.float64())]
    columns += [(f"metrics.{name}", pyarrow.float64()) for name in metrics]
    columns += [(name, pyarrow.string()) for name in texts]
    columns += [("weights", pyarrow.list_(number, layout.length))]
    schema = pyarrow.schema(columns, metadata={_KEY: described})
    rows = iter(weights)
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(infos), _BATCH):
            part = infos[start : start + _BATCH]
            table: dict[str, Any] = {
                name: [info.get(name) for info in part] for name in ("run", "signal", "seed", "steps", "seconds")
            }
            table |= {f"metrics.{name}": [info["metrics"].get(name) for info in part] for name in metrics}
            table |= {name: [to_json(info[name]) for info in part] for name in texts}
            flat = torch.cat([layout.row(next(rows)) for _ in part]).numpy()
            table["weights"] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(flat, number), layout.length)
            writer.write_table(pyarrow.table(table, schema=schema))


class Weights(Dataset[tuple[Tensor, Any]]):
    """The weights of many runs of one network as a torch Dataset, from a file that `inrkit pack` wrote.

    The file is mapped into memory: only rows that are asked for are read, and worker processes share it. An item is
    the (P,) weights of a run and its info, or what `label` makes of that:

        weights = inrkit.Weights("weights.safetensors", label=lambda info: info["metrics"]["psnr"])
        loader = torch.utils.data.DataLoader(weights, batch_size=32, shuffle=True)

    An info is a dictionary: `run`, the name of its folder; `signal`, the path of what it was fitted to; `seed`;
    `steps`; `seconds` of training; `metrics`; `axes`, its place in a study; `config`, the config keys that are not the
    same for all runs; `field`, likewise for what `Field` needs.

    Args:
        path: of the file.
        label: from a run's info to what goes with its weights, such as a class; the info itself if not given.

    Attributes:
        rows: (runs, P) all weights, on the disk; to be read, not written.
        shapes: of the network's tensors, by name, in their order in a row.
        config: the config keys that are the same for all runs, dotted.

    Raises:
        DataError: the file is missing, damaged, or not a data set of weights.
    """

    def __init__(self, path: str | Path, label: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self.path = Path(path)
        self.label = label
        try:
            require_file(self.path)
            with safe_open(self.path, framework="pt") as file:
                described = (file.metadata() or {}).get(_KEY)
                if described is None:
                    raise DataError(f"{path} is not a data set of weights; make one with inrkit pack")
                self._read(from_json(described), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except FileNotFoundError as error:
            raise DataError(f"{path} does not exist; make it with inrkit pack") from error
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path} is not a data set of weights, or is damaged: {error}; pack it again") from error

    def _read(self, described: Any, tensors: dict[str, Tensor]) -> None:
        if described["format"] != _FORMAT:
            raise DataError(f"{self.path} has format {described['format']}; this inrkit reads format {_FORMAT}")
        self.rows = tensors.pop(_ROWS)
        infos = tensors.pop(_INFOS)
        self._beside = {name.removeprefix(_BESIDE): tensor for name, tensor in tensors.items()}
        self.shapes = {str(name): _shape(given) for name, given in described["shapes"].items()}
        self.config: dict[str, Any] = dict(described["config"])
        self._description: dict[str, Any] = dict(described["field"])
        beside = {name: (tensor.dtype, tuple(tensor.shape[1:])) for name, tensor in self._beside.items()}
        self._layout = Layout(self.rows.dtype, self.shapes, beside)
        if infos.dtype != torch.uint8 or infos.ndim != 1 or not self.rows.is_floating_point():
            raise ValueError("types")
        self._lines = infos.numpy()
        self._ends = np.flatnonzero(self._lines == ord("\n"))
        if self.rows.shape != (len(self._ends), self._layout.length):
            raise ValueError("its weights and what it says of them do not fit each other")
        if any(tensor.ndim == 0 or len(tensor) != len(self.rows) for tensor in self._beside.values()):
            raise ValueError("lengths")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        info = self.info(index)
        return self.rows[index].clone(), info if self.label is None else self.label(info)

    def __reduce__(self) -> Any:
        # Another process maps the file by itself.
        return Weights, (self.path, self.label)

    def __repr__(self) -> str:
        return f"Weights({str(self.path)!r}, {len(self):,} runs of {self.rows.shape[1]:,} weights)"

    def info(self, index: int) -> dict[str, Any]:
        """What is known of a run.

        Raises:
            DataError: it is damaged.
            IndexError: there is no such run.
        """
        number = range(len(self))[index]
        start = 0 if number == 0 else int(self._ends[number - 1]) + 1
        try:
            info = from_json(self._lines[start : int(self._ends[number])].tobytes().decode("utf-8"))
            info["metrics"] = numbers_of(info["metrics"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{self.path} is damaged: what it says of run {number}; pack it again") from error
        found: dict[str, Any] = info
        return found

    def state_dict(self, index: int | Tensor) -> dict[str, Tensor]:
        """The network's tensors by name, for `load_state_dict`.

        Args:
            index: of a run; or (P,) weights in a row's order, such as those that another network has made, whose
                tensors share their memory. Tensors of other types than the rows belong to a run only.

        Raises:
            DataError: the row has another length.
        """
        if isinstance(index, Tensor):
            if index.shape != self.rows.shape[1:]:
                raise DataError(f"a row has shape {tuple(index.shape)}; expected ({self.rows.shape[1]},)")
            return self._layout.tensors(index)
        beside = {name: tensor[index].clone() for name, tensor in self._beside.items()}
        return self._layout.tensors(self.rows[index].clone()) | beside

    def field(self, index: int, row: Tensor | None = None, *, trust: bool = False) -> Field:
        """The field of a run, as `inrkit.load` gives it.

        Args:
            index: of the run.
            row: (P,) other weights in place of its own.
            trust: whether a network may be named as `package.module:Name` and so imported.

        Raises:
            DataError: the file is damaged, or the row has another length.
            ConfigError: the network is not installed here.
        """
        weights = self.state_dict(index)
        if row is not None:
            weights |= self.state_dict(row.detach().cpu().to(self.rows.dtype))
        own = self.info(index).get("field")
        description = self._description | (own if isinstance(own, dict) else {})
        return field_of(description, weights, self.path, trust=trust)


def _shape(given: Any) -> tuple[int, ...]:
    """A shape as a file gives it."""
    if not isinstance(given, list) or not all(type(length) is int and length >= 0 for length in given):
        raise ValueError("shapes")
    return tuple(given)
