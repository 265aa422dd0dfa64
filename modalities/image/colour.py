"""What says how a picture's numbers are seen: ICC profiles, and the colour chunks of PNG."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image as Pillow
from PIL import ImageCms

_SPACES = {b"GRAY": (1, 2), b"RGB ": (1, 2, 3, 4)}
"""Colour spaces of profiles, and the numbers of channels that they go with; gray photos often bear an RGB profile."""

_CHUNKS = (b"cHRM", b"gAMA", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_SRGB_GAMMA = 45455
_SRGB_TRANSFER = 13


def fits(profile: bytes, channels: int) -> bool:
    """Whether a profile is whole, and of as many channels."""
    return len(profile) >= 128 and profile[36:40] == b"acsp" and channels in _SPACES.get(profile[16:20], ())


def encoded(profile: bytes) -> str:
    """A profile as JSON can hold it."""
    return base64.b64encode(profile).decode()


def profile_of(metadata: dict[str, Any]) -> bytes | None:
    """The profile that a dataset's metadata holds."""
    return base64.b64decode(metadata["icc"]) if "icc" in metadata else None


def to_srgb(picture: Pillow.Image, profile: bytes) -> Pillow.Image | None:
    """The picture in the colours that every viewer takes for granted, RGB; None where its profile is of no use."""
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        alpha = picture.getchannel("A") if picture.mode in ("LA", "RGBA") else None
        plain = picture.convert(picture.mode[:-1]) if alpha is not None else picture
        seen = ImageCms.profileToProfile(plain, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if seen is not None and alpha is not None:
        seen.putalpha(alpha)
    return seen


def png_chunks(start: bytes) -> dict[str, str]:
    """The colour chunks of a PNG, in base64 by name; those that say no more than sRGB does are left out.

    Args:
        start: of the file; what lies before the pixels is looked at.
    """
    found = {kind.decode(): encoded(content) for kind, content in _chunks(start) if kind in _CHUNKS}
    return found if unusual(found) else {}


def unusual(chunks: dict[str, str]) -> str | None:
    """How a PNG with these chunks differs from what other formats would show; None if it does not."""
    content = {name: base64.b64decode(text) for name, text in chunks.items()}
    if len(content.get("cICP", b"")) == 4:
        primaries, transfer = content["cICP"][:2]
        return None if (primaries, transfer) == (1, _SRGB_TRANSFER) else f"cICP {primaries}, {transfer}"
    if "sRGB" in content or len(content.get("gAMA", b"")) != 4:
        return None
    (gamma,) = struct.unpack(">I", content["gAMA"])
    return None if abs(gamma - _SRGB_GAMMA) < 1000 else f"gAMA {gamma / 1e5:g}"


def with_colour(png: bytes, profile: bytes | None, chunks: dict[str, str]) -> bytes:
    """A PNG's bytes with a profile and colour chunks where they belong, right behind its header."""
    parts = [(name.encode(), base64.b64decode(text)) for name, text in chunks.items()]
    if profile is not None:
        parts.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)))
    header = 8 + 12 + struct.unpack(">I", png[8:12])[0]
    inserted = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )
    return png[:header] + inserted + png[header:]


def _chunks(start: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place + 8 <= len(start):
        length, kind = struct.unpack(">I4s", start[place : place + 8])
        if kind == b"IDAT":
            return
        yield kind, start[place + 8 : place + 8 + length]
        place += 12 + length
