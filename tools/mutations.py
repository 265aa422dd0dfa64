"""Change a file below its checksums, lengths and compression, so that its reader believes them and looks further.

`changed` takes a file apart as its kind says, changes a part, and puts all together with the right lengths and
checksums. Kinds that are not known here, and parts, are changed as bytes or as text.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import itertools
import json
import math
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import yaml

from inrkit.coding.entropy import inflated
from inrkit.coding.file import MARK
from inrkit.coding.file import WORDS as WORDS_OF_FIELDS

EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
REALS = (0.0, -1.0, 1e-45, 1e30, 3e38, math.inf, -math.inf, math.nan)
WORDS = [b"0", b"-1", b"nan", b"inf", b"1e999", b"9" * 30, b"9" * 5000, b"", b"null", b"{}", b"[]", b"\xff\xfe", b"\0"]
VALUES: tuple[Any, ...] = (
    *(None, True, 0, 1, -1, 3, 2**31, 2**63, 2**64, 10**30, 0.5, -0.5, 1e-300, 1e300, math.inf, math.nan),
    *("", "x", "x" * 9000, "\0", "../..", "${oc.env:HOME}", "name: [", "inf", "1e9999", [], {}, [[[]]], {"name": "x"}),
    *([None], [0] * 2000, ["x", 1], {"": 0}, list(range(9)), [1e300, -1e300], {"name": None}, {"name": ["x"]}),
)

Chance = random.Random
Part = tuple[Any, bytes]
"""What stands before a part's bytes, and these."""


def changed(content: bytes, chance: Chance) -> bytes:
    """The content with one change or a few."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        content = changed_inside(content, chance) if chance.random() < 0.75 else changed_bytes(content, chance)
    return content


def changed_inside(content: bytes, chance: Chance) -> bytes:
    """A change of one part of a file of a known kind; of its bytes if it is of no such kind, or is damaged."""
    with contextlib.suppress(Exception):
        for mark, change in _KINDS:
            if mark(content):
                return change(content, chance)
    return changed_bytes(content, chance)


def changed_bytes(content: bytes, chance: Chance) -> bytes:
    """One change of bytes: a bit, a number, a word, or a piece that is cut, doubled or moved."""
    size = len(content)
    if not size:
        return chance.choice(WORDS)
    # Headers are where it matters.
    place = chance.randrange(min(size, 256)) if chance.random() < 0.6 else chance.randrange(size)
    kind = chance.randrange(9)
    if kind == 0:
        return content[:place] + bytes([content[place] ^ (1 << chance.randrange(8))]) + content[place + 1 :]
    if kind in (1, 2):
        width, order = chance.choice((1, 2, 4, 8)), chance.choice(("little", "big"))
        place -= place % width if chance.random() < 0.7 else 0
        value = chance.choice(EXTREMES) % (1 << 8 * width)
        return content[:place] + value.to_bytes(width, order) + content[place + width :]  # type: ignore[arg-type]
    if kind == 3:
        return content[:place]
    if kind == 4:
        other = chance.randrange(size)
        return content[:place] + content[other : other + chance.choice((1, 8, 64, 4096))] + content[place:]
    if kind == 5:
        return content[:place] + content[place + chance.choice((1, 2, 8, 64)) :]
    if kind == 6:
        new = struct.pack(chance.choice("<>") + chance.choice("fd"), chance.choice(REALS[:3] + REALS[5:]))
        return content[:place] + new + content[place + len(new) :]
    return changed_word(content, chance)


def changed_word(content: bytes, chance: Chance) -> bytes:
    """One word or line of a text exchanged, moved, doubled or left out."""
    if chance.random() < 0.3:
        lines = content.split(b"\n")
        place = chance.randrange(len(lines))
        how = chance.randrange(3)
        lines[place : place + 1] = [[], [lines[place]] * 2, [lines[chance.randrange(len(lines))]]][how]
        return b"\n".join(lines)
    words = list(re.finditer(rb"[^\s,:;=/\[\]{}\"'()<>]+", content[:8192]))
    if not words:
        return content + chance.choice(WORDS)
    word, other = chance.choice(words), chance.choice(words)
    new = chance.choice((chance.choice(WORDS), other[0], word[0] * 2, b"-" + word[0], word[0] + b" " + other[0]))
    return content[: word.start()] + new + content[word.end() :]


def changed_object(value: Any, chance: Chance) -> Any:
    """Nested plain containers with one entry changed, left out, doubled or moved."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []

    def visit(item: Any) -> None:
        for key, entry in item.items() if isinstance(item, dict) else enumerate(item):
            places.append((item, key))
            if isinstance(entry, dict | list):
                visit(entry)

    if not isinstance(value, dict | list):
        return chance.choice(VALUES)
    visit(value)
    if not places or chance.random() < 0.01:
        return chance.choice(VALUES)
    item, key = chance.choice(places)
    other, name = chance.choice(places)
    how = chance.randrange(8)
    if how == 0:
        del item[key]
    elif how == 1:
        item[key] = copy.deepcopy(other[name])
    elif how == 2:
        item[key] = [item[key]] if chance.random() < 0.5 else {str(key): item[key]}
    elif how == 3 and isinstance(item, dict):
        item[chance.choice(("", "x", "name", str(name), "0"))] = copy.deepcopy(item[key])
    elif how == 4 and isinstance(item[key], int | float) and not isinstance(item[key], bool):
        item[key] = chance.choice((-item[key], item[key] * 1000, item[key] + 1, item[key] - 1, float(item[key])))
    else:
        item[key] = _other_entry(item[key], chance)
    return value


def _other_entry(entry: Any, chance: Chance) -> Any:
    if isinstance(entry, torch.Tensor):
        return _other_tensor(entry, chance)
    if isinstance(entry, str) and entry[:1] in "{[" and chance.random() < 0.8:  # JSON inside JSON
        with contextlib.suppress(ValueError):
            return json.dumps(changed_object(json.loads(entry), chance))
    return chance.choice(VALUES)


def _other_tensor(tensor: torch.Tensor, chance: Chance) -> Any:
    how = chance.randrange(7)
    if how == 0:
        return tensor.flatten()[: chance.randrange(tensor.numel() + 1)].clone()
    if how == 1:
        return tensor.to(chance.choice((torch.float64, torch.int8, torch.int64, torch.bool, torch.complex64)))
    if how == 2:
        return tensor.expand(chance.choice((1, 2, 1000, 1 << 33)), *tensor.shape)
    if how == 3 and tensor.is_floating_point():
        return torch.full_like(tensor, chance.choice(REALS))
    if how == 4:
        return tensor.to("meta") if chance.random() < 0.3 else tensor.to_sparse()
    if how == 5 and tensor.numel():
        new = tensor.clone().flatten()
        new[chance.randrange(new.numel())] = chance.choice((0, 1, 100))
        return new.reshape(tensor.shape)
    return chance.choice(VALUES)


def _changed_parts(parts: list[Part], chance: Chance, change: Callable[[Any, bytes], bytes]) -> list[Part]:
    """Parts of a container with one changed, left out, doubled or moved."""
    place, how = chance.randrange(len(parts)), chance.randrange(10)
    head, body = parts[place]
    if how == 0:
        return parts[:place] + parts[place + 1 :]
    if how == 1:
        parts.insert(chance.randrange(len(parts) + 1), parts[place])
    elif how == 2:
        other = chance.randrange(len(parts))
        parts[place], parts[other] = parts[other], parts[place]
    else:
        parts[place] = head, change(head, body)
    return parts


def _png(content: bytes, chance: Chance) -> bytes:
    parts: list[Part] = []
    start = 8
    while start + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, start)
        parts.append((content[start + 4 : start + 8], content[start + 8 : start + 8 + length]))
        start += 12 + length

    def change(name: bytes, body: bytes) -> bytes:
        if name not in (b"IDAT", b"fdAT") or chance.random() < 0.3:
            return changed_bytes(body, chance)
        begin = 0 if name == b"IDAT" else 4
        return body[:begin] + zlib.compress(changed_bytes(zlib.decompress(body[begin:]), chance))

    return content[:8] + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in _changed_parts(parts, chance, change)
    )


def _riff(content: bytes, chance: Chance, order: str = "<") -> bytes:
    """RIFF (WAVE, AVI, WebP) and, with the other order of bytes, IFF (AIFF): chunks, some of them of chunks."""
    parts: list[Part] = []
    start = 12
    while start + 8 <= len(content):
        (length,) = struct.unpack_from(order + "I", content, start + 4)
        parts.append((content[start : start + 4], content[start + 8 : start + 8 + length]))
        start += 8 + length + length % 2

    def change(name: bytes, body: bytes) -> bytes:
        if name == b"LIST" and len(body) > 12 and chance.random() < 0.9:
            return _riff(name + bytes(4) + body, chance, order)[8:]
        return changed_bytes(body, chance)

    inner = content[8:12] + b"".join(
        name + struct.pack(order + "I", len(body)) + body + b"\0" * (len(body) % 2)
        for name, body in _changed_parts(parts, chance, change)
    )
    return content[:4] + struct.pack(order + "I", len(inner)) + inner


def _boxes(content: bytes, chance: Chance) -> bytes:
    """ISO base media: MP4, MOV, AVIF, and JPEG 2000's boxes; some hold boxes, some after a few bytes."""
    parts: list[Part] = []
    start = 0
    while start + 8 <= len(content):
        length = struct.unpack_from(">I", content, start)[0] or len(content) - start
        if length < 8 or start + length > len(content):
            raise ValueError("no boxes")
        parts.append((content[start + 4 : start + 8], content[start + 8 : start + length]))
        start += length
    if start != len(content):
        raise ValueError("no boxes")

    def change(name: bytes, body: bytes) -> bytes:
        for begin in (0, 4, 8, 6, 78) if chance.random() < 0.9 else ():
            with contextlib.suppress(Exception):
                if len(body) >= begin + 8:
                    return body[:begin] + _boxes(body[begin:], chance)
        return changed_bytes(body, chance)

    return b"".join(
        struct.pack(">I", 8 + len(body)) + name + body for name, body in _changed_parts(parts, chance, change)
    )


def _ebml(content: bytes, chance: Chance) -> bytes:
    """Matroska and WebM: elements of elements."""

    def number(place: int, keep: bool) -> tuple[int, int]:
        width = 9 - content[place].bit_length()
        value = int.from_bytes(content[place : place + width], "big")
        return (value if keep else value & ((1 << 7 * width) - 1)), width

    parts: list[Part] = []
    start = 0
    while start < len(content):
        name, width = number(start, True)
        length, more = number(start + width, False)
        begin = start + width + more
        length = min(length, len(content) - begin) if length == (1 << 7 * more) - 1 else length  # of unknown length
        if begin + length > len(content) or not name:
            raise ValueError("no elements")
        parts.append((content[start : start + width], content[begin : begin + length]))
        start = begin + length

    def change(name: bytes, body: bytes) -> bytes:
        if len(body) > 4 and chance.random() < 0.9:
            with contextlib.suppress(Exception):
                return _ebml(body, chance)
        return changed_bytes(body, chance)

    return b"".join(
        name + (len(body) | 1 << 56).to_bytes(8, "big") + body for name, body in _changed_parts(parts, chance, change)
    )


def _flac(content: bytes, chance: Chance) -> bytes:
    parts: list[Part] = []
    start, last = 4, False
    while not last:
        last, length = content[start] >= 128, int.from_bytes(content[start + 1 : start + 4], "big")
        parts.append((content[start] & 127, content[start + 4 : start + 4 + length]))
        start += 4 + length
    parts = _changed_parts(parts, chance, lambda _, body: changed_bytes(body, chance))
    blocks = [
        bytes([kind | (128 if place == len(parts) - 1 else 0)]) + len(body).to_bytes(3, "big") + body
        for place, (kind, body) in enumerate(parts)
    ]
    return content[:4] + b"".join(blocks) + content[start:]


def _ogg(content: bytes, chance: Chance) -> bytes:
    parts: list[Part] = []
    start = 0
    while content[start : start + 4] == b"OggS":
        segments = content[start + 27 : start + 27 + content[start + 26]]
        end = start + 27 + len(segments) + sum(segments)
        parts.append((b"", content[start:end]))
        start = end

    def change(_: Any, page: bytes) -> bytes:
        begin = 28 + page[26] if chance.random() < 0.8 else 4
        page = page[:begin] + changed_bytes(page[begin:], chance)
        lengths = len(page) - 27 - page[26]
        if lengths != sum(page[27 : 27 + page[26]]) and 0 <= lengths < 255 * 255:  # of one packet, in pieces of 255
            table = bytes([255] * (lengths // 255) + [lengths % 255])
            page = page[:26] + bytes([len(table)]) + table + page[27 + page[26] :]
        return page

    return b"".join(_with_checksum(page) for _, page in _changed_parts(parts, chance, change))


def _with_checksum(page: bytes) -> bytes:
    page = page[:22] + bytes(4) + page[26:]
    checksum = 0
    for byte in page:
        checksum = (checksum << 8) & 0xFFFFFFFF ^ _OGG_TABLE[checksum >> 24 ^ byte]
    return page[:22] + struct.pack("<I", checksum) + page[26:]


def _ogg_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = value << 1 ^ (0x104C11DB7 if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


_OGG_TABLE = _ogg_table()


def _jpeg(content: bytes, chance: Chance) -> bytes:
    parts: list[Part] = []
    start = 2
    while content[start + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", content, start + 2)
        parts.append((content[start : start + 2], content[start + 4 : start + 2 + length]))
        start += 2 + length
    (length,) = struct.unpack_from(">H", content, start + 2)
    parts.append((content[start : start + 2], content[start + 4 : start + 2 + length]))
    scan = content[start + 2 + length :]
    if chance.random() < 0.1:
        scan = changed_bytes(scan, chance)
    parts = _changed_parts(parts, chance, lambda _, body: changed_bytes(body, chance)[:65000])
    return content[:2] + b"".join(name + struct.pack(">H", 2 + len(body)) + body for name, body in parts) + scan


def _gif(content: bytes, chance: Chance) -> bytes:
    """Its blocks, with what leads to their pieces of up to 255 bytes."""
    table = 3 << (content[10] & 7) + 1 if content[10] & 128 else 0
    start = 13 + table
    parts: list[Part] = []
    while content[start] in (0x21, 0x2C):
        begin = start
        if content[start] == 0x2C:
            packed = content[start + 9]
            start += 11 + (3 << (packed & 7) + 1 if packed & 128 else 0)
        else:
            start += 2
        lead, body = content[begin:start], b""
        while content[start]:
            body += content[start + 1 : start + 1 + content[start]]
            start += 1 + content[start]
        start += 1
        parts.append((lead, body))
    head = changed_bytes(content[:13], chance)[:13].ljust(13) if chance.random() < 0.15 else content[:13]
    parts = [
        (changed_bytes(lead, chance) if chance.random() < 0.05 else lead, body)
        for lead, body in _changed_parts(parts, chance, lambda _, body: changed_bytes(body, chance))
    ]
    pieces = [
        lead + b"".join(bytes([len(body[at : at + 255])]) + body[at : at + 255] for at in range(0, len(body), 255))
        for lead, body in parts
    ]
    return head + content[13 : 13 + table] + b"".join(piece + b"\0" for piece in pieces) + b";"


def _tiff(content: bytes, chance: Chance) -> bytes:
    """An entry of a directory: its tag, type, count or value."""
    order = "<" if content[:2] == b"II" else ">"
    result = bytearray(content)
    (start,) = struct.unpack_from(order + "I", content, 4)
    directories = []
    while start and start not in directories:
        directories.append(start)
        (count,) = struct.unpack_from(order + "H", content, start)
        (start,) = struct.unpack_from(order + "I", content, start + 2 + 12 * count)
    start = chance.choice(directories)
    (count,) = struct.unpack_from(order + "H", content, start)
    at = start + 2 + 12 * chance.randrange(count)
    _, kind, length, value = struct.unpack_from(order + "HHII", content, at)
    how = chance.randrange(6)
    if how == 0:
        struct.pack_into(order + "H", result, at, chance.choice((256, 257, 258, 259, 262, 277, 284, 317, 322, 339, 9)))
    elif how == 1:
        struct.pack_into(order + "H", result, at + 2, chance.choice((*range(20), 0xFFFF)))
    elif how == 2:
        struct.pack_into(order + "I", result, at + 4, chance.choice((0, 1, 2, length + 1, 2**31, 2**32 - 1, 2**28)))
    elif how == 3 and length * {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}.get(kind, 4) > 4 and value < len(content):
        tail = changed_bytes(content[value:], chance)
        result[value:] = tail
    else:
        new = chance.choice((0, 1, 2, 3, 5, 7, 8, 16, 32, 64, value + 1, 0xFFFF, 34925, 50000, 2**31, 2**32 - 1))
        struct.pack_into(order + ("I" if kind != 3 else "H"), result, at + 8, new if kind != 3 else new & 0xFFFF)
    return bytes(result)


def _archive(content: bytes, chance: Chance) -> bytes:
    """An .npz, or a checkpoint: one of its members."""
    if b"data.pkl" in content and chance.random() < 0.7:
        state = torch.load(io.BytesIO(content), weights_only=True)
        result = io.BytesIO()
        torch.save(changed_object(state, chance), result)
        return result.getvalue()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts: list[Part] = [(part.filename, archive.read(part)) for part in archive.infolist()]
        stored = archive.infolist()[0].compress_type
    change = lambda name, body: changed_inside(body, chance)  # noqa: E731
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", stored) as archive:
        for name, body in _changed_parts(parts, chance, change):
            archive.writestr(name, body)
    return result.getvalue()


_SHAPES = (
    "()",
    "(0,)",
    "(-1,)",
    "(3, 0)",
    "(1, 1, 1, 1, 1, 1, 1)",
    "(10**9,)",
    "(999999999, 999999999)",
    "(2, 2)",
    "None",
)
_TYPES = (
    "<f4",
    ">f8",
    "|b1",
    "|O",
    "<U5",
    "|S3",
    "<c8",
    "<M8[s]",
    "|V0",
    "<f2",
    "|u1",
    "<f16",
    "[('a', '<i4')]",
    "<i8",
)


def _npy(content: bytes, chance: Chance) -> bytes:
    (length,) = struct.unpack_from("<H", content, 8)
    header, values = content[10 : 10 + length].decode("latin1").strip(), content[10 + length :]
    how = chance.randrange(6)
    if how == 0:
        header = re.sub(r"'shape': \([^)]*\)", f"'shape': {chance.choice(_SHAPES)}", header)
    elif how in (1, 2):
        kind = chance.choice(_TYPES)
        header = re.sub(r"'descr': '[^']*'", f"'descr': {kind if kind[0] == '[' else repr(kind)}", header)
    elif how == 3:
        header = header.replace("False", "True")
    elif how == 4:
        values = changed_bytes(values, chance)
    else:
        header = changed_word(header.encode("latin1"), chance).decode("latin1")
    said = (header.ljust(117) + "\n").encode("latin1")[:65535]
    return content[:8] + struct.pack("<H", len(said)) + said + values


def _safetensors(content: bytes, chance: Chance) -> bytes:
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    if "__metadata__" in header and chance.random() < 0.7:
        name = chance.choice(list(header["__metadata__"]))
        header["__metadata__"][name] = _other_text(header["__metadata__"][name], chance)
    else:
        header = changed_object(header, chance)
    text = json.dumps(header).encode()
    values = content[8 + length :]
    return struct.pack("<Q", len(text)) + text + (changed_bytes(values, chance) if chance.random() < 0.1 else values)


def _other_text(text: str, chance: Chance) -> str:
    other = _other_entry(text, chance)
    return other if isinstance(other, str) else json.dumps(other)


def _glb(content: bytes, chance: Chance) -> bytes:
    parts: list[Part] = []
    start = 12
    while start + 8 <= len(content):
        (length,) = struct.unpack_from("<I", content, start)
        parts.append((content[start + 4 : start + 8], content[start + 8 : start + 8 + length]))
        start += 8 + length

    def change(name: bytes, body: bytes) -> bytes:
        return _json(body, chance) if name == b"JSON" else changed_bytes(body, chance)

    inner = b""
    for name, body in _changed_parts(parts, chance, change):
        body += b" " * (-len(body) % 4)
        inner += struct.pack("<I", len(body)) + name + body
    return content[:8] + struct.pack("<I", 12 + len(inner)) + inner


def _json(content: bytes, chance: Chance) -> bytes:
    return json.dumps(changed_object(json.loads(content), chance)).encode()


def _jsonl(content: bytes, chance: Chance) -> bytes:
    lines = [line for line in content.split(b"\n") if line]
    place = chance.randrange(len(lines))
    lines[place] = _json(lines[place], chance)
    return b"\n".join(lines) + b"\n"


def _yaml(content: bytes, chance: Chance) -> bytes:
    return yaml.safe_dump(changed_object(yaml.safe_load(content), chance), allow_unicode=True).encode()


def _compressed(content: bytes, chance: Chance) -> bytes:
    """A compressed field's description, tables or numbers, with the checksum made right."""
    head, ends = content[:12], np.cumsum([24, *struct.unpack_from("<III", content, 12)])
    parts = [content[start:stop] for start, stop in itertools.pairwise(ends)]
    numbers = content[ends[-1] : -4]
    which = chance.randrange(4)
    if which == 3:
        numbers = changed_bytes(numbers, chance)
    else:
        words = WORDS_OF_FIELDS if which == 0 else b""
        plain = inflated(parts[which], 1 << 20, words)
        if which == 0:
            plain = _json(plain, chance) if chance.random() < 0.7 else changed_word(plain, chance)
        else:
            plain = changed_bytes(plain, chance)
        machine = zlib.compressobj(9, zdict=words) if words else zlib.compressobj(9)
        parts[which] = machine.compress(plain) + machine.flush()
    whole = head + struct.pack("<III", *map(len, parts)) + b"".join(parts) + numbers
    return whole + struct.pack("<I", zlib.crc32(whole))


def _nifti(content: bytes, chance: Chance) -> bytes:
    """A field of the header, as nifti1.h has them: place and type."""
    at, kind = chance.choice(
        [
            *((40 + 2 * axis, "h") for axis in range(8)),
            *((at, "h") for at in (68, 70, 72, 252, 254)),
            *((76 + 4 * number, "f") for number in range(11)),
            *((256 + 4 * number, "f") for number in range(18)),
            *((at, "B") for at in (123, 344, 348)),
            *((at, "i") for at in (352, 356)),
        ]
    )
    if kind == "f":
        new = struct.pack("<f", chance.choice(REALS))
    elif at in (70, 72):
        new = struct.pack(
            "<h", chance.choice((0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2304))
        )
    else:
        width = struct.calcsize(kind)
        new = (chance.choice((*EXTREMES, 3, 4, 5, 7)) % (1 << 8 * width)).to_bytes(width, "little")
    return content[:at] + new + content[at + len(new) :]


def _parquet(content: bytes, chance: Chance) -> bytes:
    """The footer, which describes all, with its length made right; else a page."""
    (length,) = struct.unpack_from("<I", content, len(content) - 8)
    pages, footer = content[4 : -8 - length], content[-8 - length : -8]
    if chance.random() < 0.75:
        footer = changed_bytes(footer, chance)
    else:
        pages = changed_bytes(pages, chance)
    return content[:4] + pages + footer + struct.pack("<I", len(footer)) + content[:4]


def _ply(content: bytes, chance: Chance) -> bytes:
    head, mark, body = content.partition(b"end_header")
    if chance.random() < 0.7:
        return changed_word(head, chance) + mark + body
    return head + mark + changed_bytes(body, chance)


def _exr(content: bytes, chance: Chance) -> bytes:
    """An attribute of the header, of the same length, so that the places of lines stay right."""
    start, places = 8, []
    while content[start]:
        name = content.index(b"\0", start)
        kind = content.index(b"\0", name + 1)
        (size,) = struct.unpack_from("<I", content, kind + 1)
        places.append((kind + 5, size))
        start = kind + 5 + size
    begin, size = chance.choice(places)
    new = changed_bytes(content[begin : begin + size], chance)[:size].ljust(size, b"\0")
    return content[:begin] + new + content[begin + size :]


def _zipped(content: bytes, chance: Chance) -> bytes:
    return gzip.compress(changed_inside(gzip.decompress(content), chance), 1)


def _is_text(content: bytes) -> bool:
    return not content[:4096].translate(None, bytes(range(32, 127)) + b"\t\r\n")


def _starts(*marks: bytes, at: int = 0) -> Callable[[bytes], bool]:
    return lambda content: content[at:].startswith(marks) if at else content.startswith(marks)


_KINDS: list[tuple[Callable[[bytes], bool], Callable[[bytes, Chance], bytes]]] = [
    (_starts(b"\x89PNG"), _png),
    (_starts(b"RIFF"), _riff),
    (_starts(b"FORM"), lambda content, chance: _riff(content, chance, ">")),
    (_starts(b"fLaC"), _flac),
    (_starts(b"OggS"), _ogg),
    (_starts(b"\xff\xd8"), _jpeg),
    (_starts(b"GIF8"), _gif),
    (_starts(b"II*\0", b"MM\0*"), _tiff),
    (_starts(b"\x1aE\xdf\xa3"), _ebml),
    (_starts(b"PK"), _archive),
    (_starts(b"\x1f\x8b"), _zipped),
    (_starts(b"\x93NUMPY"), _npy),
    (_starts(b"glTF"), _glb),
    (_starts(b"\x76\x2f\x31\x01"), _exr),
    (_starts(b"PAR1"), _parquet),
    (_starts(b"ply"), _ply),
    (_starts(MARK), _compressed),
    (_starts(b"\x5c\x01\0\0"), _nifti),
    (_starts(b"ftyp", b"moov", b"mdat", b"free", b"wide", b"jP  ", at=4), _boxes),
    (lambda content: content[8:10] == b'{"' and content[3:8] == bytes(5), _safetensors),
    (lambda content: _is_text(content) and content.startswith(b'{"') and b"}\n{" in content, _jsonl),
    (lambda content: _is_text(content) and content.startswith(b"{"), _json),
    (lambda content: _is_text(content) and b"\nnetwork:" in content, _yaml),
    (_is_text, changed_word),
]
"""What tells each kind of file, and how it is changed."""
