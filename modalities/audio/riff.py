"""The chunks of WAV files: where the samples lie, how many bytes are promised, and which speakers the channels are.

libsndfile shortens a file whose end is missing without a word, takes a length of 0 at its word, and keeps the speakers
to itself.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_EXTENSIBLE = 0xFFFE
_PLAIN_TAGS = (1, 3)
"""Of integers and of real numbers."""
_NEVER_FILLED_IN = 1 << 16
"""A program that writes to a pipe cannot go back to fill in the length. It leaves 0 or a number so far below 2³¹ or
2³² at most."""


@dataclass
class Riff:
    """The layout of a WAV file: RIFF, RIFX (big-endian), RF64 or BW64.

    Args:
        data: place of the first sample's first byte.
        present: bytes from there to the file's end.
        promised: bytes of samples that the header promises; None if it was never filled in.
        dtype: of the samples, where they are stored as whole numbers of bytes that NumPy knows; None otherwise.
        channels: C.
        block: bytes of all channels' samples of one moment.
        speakers: bit mask of the speakers that the channels are for, in the order of its bits; 0 if not said.
        lengths: fields of the header that hold lengths, (place, bytes of the field, whether it is that of the samples).
        endian: `<` or `>`.
    """

    data: int
    present: int
    promised: int | None
    dtype: str | None
    channels: int
    block: int
    speakers: int
    endian: str
    lengths: list[tuple[int, int, bool]] = field(default_factory=list)

    @property
    def truncated(self) -> bool:
        return self.promised is not None and self.promised > self.present

    def filled_in(self, path: Path) -> PatchedFile:
        """The file with its lengths filled in, where it never was."""
        whole = self.present - self.present % max(1, self.block)
        patches = {}
        for place, width, of_samples in self.lengths:
            length = whole if of_samples else self.data + self.present - 8
            code = {4: "I", 8: "Q"}[width]
            patches[place] = struct.pack(self.endian + code, min(length, 256**width - 1))
        return PatchedFile(path, patches)


class PatchedFile(io.RawIOBase):
    """A file for reading, some of whose bytes are others than on disk.

    Args:
        path: of the file.
        patches: bytes by their place.
    """

    def __init__(self, path: Path, patches: dict[int, bytes]) -> None:
        self._file = path.open("rb")
        self._patches = patches

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        start = self._file.tell()
        count = self._file.readinto(buffer)
        for place, patch in self._patches.items():
            first, last = max(start, place), min(start + count, place + len(patch))
            if first < last:
                memoryview(buffer)[first - start : last - start] = patch[first - place : last - place]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def read_riff(path: Path) -> Riff | None:
    """The layout of a WAV; None for other files, and for what is damaged before its samples."""
    length = path.stat().st_size
    with path.open("rb") as file:
        magic, size, kind = struct.unpack("<4s4s4s", file.read(12).ljust(12, b"\0"))
        if magic not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or kind != b"WAVE":
            return None
        endian = ">" if magic == b"RIFX" else "<"
        lengths = [] if magic in (b"RF64", b"BW64") else [(4, 4, False)]
        tag = channels = bits = block = speakers = 0
        long_length: int | None = None
        place = 12
        while True:
            file.seek(place)
            head = file.read(8)
            if len(head) < 8:
                return None
            name, size = struct.unpack(endian + "4sI", head)
            if name == b"data":
                break
            body = file.read(min(size, 64))
            if name == b"fmt " and len(body) >= 16:
                tag, channels, _, _, block, bits = struct.unpack(endian + "HHIIHH", body[:16])
                if tag == _EXTENSIBLE and len(body) >= 40:
                    speakers, tag = struct.unpack(endian + "IH", body[20:26])
            elif name == b"ds64" and len(body) >= 24:
                long_length = struct.unpack("<Q", body[8:16])[0]
                lengths += [(place + 8, 8, False), (place + 16, 8, True)]
            place += 8 + size + size % 2
        data, present = place + 8, length - place - 8
        if long_length is None or size != 0xFFFFFFFF:
            lengths.append((place + 4, 4, True))
            long_length = size
        promised = None if never_filled_in(long_length) else long_length
        if promised == 0 and present and not _are_chunks(file, data, length, endian):
            promised = None
        dtype = None
        if tag in _PLAIN_TAGS and bits in (16, 32, 64) and block == channels * bits // 8 and (tag, bits) != (3, 16):
            dtype = f"{endian}{'i' if tag == 1 else 'f'}{bits // 8}" if (tag, bits) != (1, 64) else None
        return Riff(data, present, promised, dtype, channels, block, speakers, endian, lengths)


def never_filled_in(length: int) -> bool:
    """Whether a length is what a program leaves that could not go back to fill it in, and not 0."""
    return any(limit - _NEVER_FILLED_IN <= length < limit for limit in (1 << 31, 1 << 32, 1 << 63, 1 << 64))


def _are_chunks(file: io.BufferedReader, place: int, length: int, endian: str) -> bool:
    """Whether the rest of a file is chunks to its end, so that a length of 0 before them is meant."""
    while length - place >= 8:
        file.seek(place)
        name, size = struct.unpack(endian + "4sI", file.read(8))
        if not (name.isascii() and name.decode("ascii").isprintable()):
            return False
        place += 8 + size + size % 2
    return -1 <= length - place <= 1


def speakers_at(path: Path) -> int | None:
    """Place in a WAV of the bit mask of its speakers; None where its header has none."""
    with path.open("rb") as file:
        head = file.read(1 << 12)
    place = 12
    while place + 8 <= len(head):
        name, size = struct.unpack("<4sI", head[place : place + 8])
        if name == b"fmt ":
            return place + 28 if size >= 40 and head[place + 8 : place + 10] == b"\xfe\xff" else None
        place += 8 + size + size % 2
    return None
