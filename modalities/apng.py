"""Animated PNG, whose frames Pillow does not always clear away as they ask for (PNG specification, 3rd edition, 12)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import png
from PIL import Image as Pillow

from inrkit.signals.decoding import DEFLATED

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LEAVE, _CLEAR, _RESTORE = range(3)
_REPLACE, _OVER = range(2)
_ABOUT_THE_FRAME = (b"IHDR", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT")

Frame = tuple[float, np.ndarray]
"""Seconds for which a frame is shown (0 if not said), and its (H, W, C) pixels."""


def is_animated(path: Path) -> bool:
    """Whether a file is a PNG with an animation in it."""
    with path.open("rb") as file:
        if file.read(8) != _SIGNATURE:
            return False
        for name, body in _chunks(file):
            if name == b"acTL":
                return int.from_bytes(body[:4], "big") > 0
            if name == b"IDAT":
                return False
    return False


def frames_of(path: Path) -> Iterator[Frame]:
    """The frames of an animated PNG as they are shown: gray, or colours with transparency; 8 or 16 bits.

    Raises:
        ValueError: the file is damaged or truncated.
    """
    with path.open("rb") as file:
        file.read(8)
        header, shared, promised = b"", b"", 0
        control, data = b"", b""
        canvas: np.ndarray | None = None
        shown = 0
        for name, body in _chunks(file):
            if name == b"IHDR":
                header = body
                width, height, depth = struct.unpack(">IIB", header[:9])
                if height * (width * depth // 8) > path.stat().st_size * DEFLATED:
                    raise ValueError(f"it promises {width}×{height} pixels and has no data for them")
            elif name == b"acTL":
                promised = int.from_bytes(body[:4], "big")
            elif name == b"IDAT" and control:
                data += body
            elif name == b"fdAT":
                data += body[4:]
            elif name not in _ABOUT_THE_FRAME and not control:
                shared += _chunk(name, body)
            if name in (b"fcTL", b"IEND") and control and data:
                across, down = struct.unpack(">II", control[4:12])
                if across > width or down > height:
                    raise ValueError("a frame lies outside the picture")
                if down * (across * depth // 8) > len(data) * DEFLATED:
                    raise ValueError(f"it promises {across}×{down} pixels and has no data for them")
                part = _decoded(header, shared, control, data)
                if canvas is None:
                    canvas = np.zeros((*struct.unpack(">II", header[:8])[::-1], part.shape[2]), dtype=part.dtype)
                seconds, picture, canvas = _drawn(canvas, part, control)
                yield seconds, picture
                shown += 1
            if name == b"fcTL":
                control, data = body, b""
    if shown < promised:
        raise ValueError(f"it has {shown} of {promised} frames")


def _chunks(file: io.BufferedReader) -> Iterator[tuple[bytes, bytes]]:
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        body = file.read(length)
        checksum = file.read(4)
        if len(body) < length or checksum != struct.pack(">I", zlib.crc32(name + body)):
            raise ValueError(f"its chunk {name!r} is damaged")
        yield name, body
        if name == b"IEND":
            return


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _decoded(header: bytes, shared: bytes, control: bytes, data: bytes) -> np.ndarray:
    """(h, w, C) pixels of one frame's own part of the picture, by way of a PNG that has it alone."""
    alone = (
        _SIGNATURE + _chunk(b"IHDR", control[4:12] + header[8:]) + shared + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    )
    depth, colour = header[8:10]
    gray = colour == 0 and b"tRNS" not in shared
    if depth < 16:
        with Pillow.open(io.BytesIO(alone)) as picture:
            pixels = np.asarray(picture.convert("L" if gray else "RGBA"))
        return pixels[:, :, None] if gray else pixels
    width, height, rows, info = png.Reader(bytes=alone).asDirect()
    pixels = np.vstack([np.asarray(row, dtype=np.uint16) for row in rows]).reshape(height, width, info["planes"])
    if gray:
        return pixels
    opaque = np.full((height, width, 1), 0xFFFF, dtype=np.uint16)
    if info["planes"] < 3:
        pixels = np.concatenate([pixels[..., :1].repeat(3, axis=2), pixels[..., 1:]], axis=2)
    return pixels if pixels.shape[2] == 4 else np.concatenate([pixels, opaque], axis=2)


def _drawn(canvas: np.ndarray, part: np.ndarray, control: bytes) -> tuple[float, np.ndarray, np.ndarray]:
    """Seconds, the picture with a frame's part drawn on the canvas, and what is left of it for the next frame."""
    width, height, left, top, over, under, clearing, blending = struct.unpack(">4IHHBB", control[4:26])
    place = (slice(top, top + height), slice(left, left + width))
    before = canvas
    picture = canvas.copy()
    if picture[place].shape != part.shape:
        raise ValueError("a frame lies outside the picture")
    picture[place] = _over(canvas[place], part) if blending == _OVER and part.shape[2] == 4 else part
    left_over = before if clearing == _RESTORE else picture
    if clearing == _CLEAR:
        left_over = picture.copy()
        left_over[place] = 0
    return over / (under or 100), picture, left_over


def _over(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Colours with transparency laid over others, all as integers."""
    full = np.iinfo(above.dtype).max
    front = above[..., 3:] / full
    back = below[..., 3:] / full * (1 - front)
    alpha = front + back
    colours = (above[..., :3] * front + below[..., :3] * back) / np.where(alpha > 0, alpha, 1)
    return np.rint(np.concatenate([colours, alpha * full], axis=2)).astype(above.dtype)
