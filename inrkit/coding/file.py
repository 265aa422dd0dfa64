"""A compressed field's file: a description in JSON, and tensors.

    8 bytes    the mark
    1          version
    3          zero
    3 × 4      lengths of the description, of the exact tensors, and of the tables
    …          these three, each compressed by zlib
    …          the coded numbers
    4          CRC-32 of all before it

Numbers of more than one byte are little-endian.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.coding.entropy import Decoder, Encoder, inflated
from inrkit.coding.tensors import Exact, Short, Stepped, shape_of
from inrkit.errors import DataError
from inrkit.files import from_json, to_json

MARK = b"\x89inr\r\n\x1a\n"
VERSION = 1
_HEAD = struct.Struct("<8sB3xIII")
_TAIL = struct.Struct("<I")
_RATIO = 64
"""Most characters of a description for each byte of it, beside the first 65,536."""
_NUMBERS_A_BYTE = 16
"""Most numbers of all tensors for each byte of a file; so what a file of few bytes may take is bounded."""
WORDS = (
    b'"means","kind":"short","least":"spreads","dtype":"<i8"},"slots","kind":"exact","rows":"weights","shape":['
    b'"initial":{"seed":0,"draws":64,"stride":"offsets":[-1,"bounds":["running":true,"per_class":"classes":"steps":'
    b'"widths":[48,24,576,24,576,24,72,3]{"field":{"format":1,"network":{"name":"tiles","options":{"each":{"name":'
    b'"siren","hidden_features":24,"hidden_layers":2,"first_omega":20.0,"hidden_omega":30.0,"weight_scale":1.0,'
    b'"axis_factors":[]},"parameters":0,"values_per_parameter":0.0,"overlap":1.0,"points":256,"between":0.25,'
    b'"lattice":[512,768],"counts":[15,24],"networks":360}},"embedding":{"name":"identity","options":{}},"precision":'
    b'"float32","dimensions":2,"channels":3,"transform":{"name":"minmax","state":{"offset":127.5,"scale":127.5}},'
    b'"modality":{"name":"image","options":{"mode":"auto"}},"grid_shape":[512,768],"dtype":"|u1","value_range":[0.0,'
    b'255.0],"affine":[[256.0,0.0,255.5],[0.0,384.0,383.5]],"metadata":{}},"tensors":[{"name":'
)
"""What descriptions are likely to say, so that it costs little. It is a part of the format and never changes."""

Part = Stepped | Short | Exact


def packed(description: dict[str, Any], parts: Sequence[Part]) -> bytes:
    """The content of a file.

    Args:
        description: of a field, in JSON's containers.
        parts: its tensors.
    """
    said = to_json({"field": description, "tensors": [part.header() for part in parts]}, separators=(",", ":"))
    machine = zlib.compressobj(9, zdict=WORDS)
    words = machine.compress(said.encode("utf-8")) + machine.flush()
    exact = zlib.compress(b"".join(part.raw() for part in parts if isinstance(part, Exact)), 9)
    encoder = Encoder()
    for part in parts:
        if not isinstance(part, Exact):
            part.encode(encoder)
    tables, numbers = encoder.bytes()
    # A file that is small beyond belief, of a network of zeros for example, is filled up.
    count = sum(_count(part.header()) for part in parts)
    lacking = -(-count // _NUMBERS_A_BYTE) - sum(map(len, (words, exact, tables, numbers)))
    content = (
        _HEAD.pack(MARK, VERSION, len(words), len(exact), len(tables))
        + words
        + exact
        + tables
        + numbers
        + bytes(max(0, lacking))
    )
    return content + _TAIL.pack(zlib.crc32(content))


def is_compressed(path: Path) -> bool:
    """Whether a file begins as a compressed field does."""
    with path.open("rb") as file:
        return file.read(len(MARK)) == MARK


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description of a field, and its tensors by name.

    Raises:
        DataError: the file is damaged, or of another version.
        ConfigError: constriction is not installed.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    if data[: len(MARK)] == MARK and len(data) > len(MARK) and data[len(MARK)] != VERSION:
        raise DataError(f"{path} is of version {data[len(MARK)]}; this inrkit reads version {VERSION}; update it")
    try:
        return unpacked(data)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error, UnicodeError) as error:
        raise DataError(f"{path} is not a compressed field, or is damaged: {error}") from error


def unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the tensors, by name, of a file's content.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error: the content is damaged.
        ConfigError: constriction is not installed.
    """
    content, tail = data[: -_TAIL.size], data[-_TAIL.size :]
    if len(content) < _HEAD.size:
        raise ValueError("it is cut off")
    if _TAIL.unpack(tail)[0] != zlib.crc32(content):
        raise ValueError("its checksum is wrong; it was cut off or changed")
    _, _, *lengths = _HEAD.unpack_from(content)
    ends = np.cumsum([_HEAD.size, *lengths])
    if ends[-1] > len(content):
        raise ValueError("it is cut off")
    words, exact, tables = (content[start:stop] for start, stop in itertools.pairwise(ends))
    said = from_json(inflated(words, (1 << 16) + _RATIO * len(words), WORDS).decode("utf-8"))
    description, headers = said["field"], said["tensors"]
    if not isinstance(description, dict):
        raise ValueError("description")
    counts = [_count(header) for header in headers]
    if sum(counts) > _NUMBERS_A_BYTE * len(data):
        raise ValueError("it promises more than it holds")
    bytes_of = [Exact.length(header) if header["kind"] == Exact.kind else 0 for header in headers]
    raw = inflated(exact, sum(bytes_of) + 1)
    numbers = content[ends[-1] :].rstrip(b"\0")
    decoder = Decoder(tables, numbers + bytes(-len(numbers) % 4))
    found: dict[str, np.ndarray] = {}
    at = 0
    for header, length in zip(headers, bytes_of, strict=True):
        part: Part
        if header["kind"] == Exact.kind:
            part = Exact.of(header, raw[at : at + length])
            at += length
        elif header["kind"] in (Stepped.kind, Short.kind):
            part = (Stepped if header["kind"] == Stepped.kind else Short).decode(header, decoder)
        else:
            raise ValueError(f"a tensor's kind is {header['kind']!r}")
        found[part.name] = part.tensor()
    decoder.finish()
    if at != len(raw) or len(found) != len(headers):
        raise ValueError("tensors")
    return description, found


def _count(header: dict[str, Any]) -> int:
    """How many numbers a tensor has, at least one: a million empty ones take memory too."""
    return max(1, math.prod(shape_of(header)))
