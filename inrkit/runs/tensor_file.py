"""Writing tensors to a safetensors file, some rows at a time, so that they need not be in memory together."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from inrkit.errors import ConfigError

_NAMES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The format's names of the dtypes that networks have."""
_PIECE = 1 << 22
"""Numbers that are written at a time."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor | Sequence[Tensor]], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file.

    Args:
        path: to write to.
        tensors: by name, on any device; of a sequence, the rows of each in turn make up one tensor.
        metadata: texts by name.

    Raises:
        ConfigError: the format has no name for a dtype.
    """
    parts = {name: [given] if isinstance(given, Tensor) else list(given) for name, given in tensors.items()}
    unknown = [f"{name} is {part[0].dtype}" for name, part in parts.items() if part[0].dtype not in _NAMES]
    if unknown:
        raise ConfigError(f"{unknown[0]}, which no safetensors file holds; give the network another dtype")
    # The widest numbers first: so all begin at a multiple of their width.
    order = sorted(parts, key=lambda name: (-parts[name][0].dtype.itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        first = parts[name][0]
        shape = list(first.shape) if len(parts[name]) == 1 else [sum(map(len, parts[name])), *first.shape[1:]]
        start, end = end, end + math.prod(shape) * first.dtype.itemsize
        header[name] = {"dtype": _NAMES[first.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            for piece in _pieces(parts[name]):
                file.write(piece.view(torch.uint8).numpy().data)


def _pieces(parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """The numbers of tensors in C order, (k,) at a time, on the CPU."""
    for part in parts:
        for piece in part.detach().reshape(-1).split(_PIECE):
            if len(piece):
                yield piece.cpu().contiguous()
