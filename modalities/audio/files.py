"""Sound files: what libsndfile reads and writes, in the samples' own precision."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from inrkit.errors import ConfigError, DataError
from inrkit.modalities.audio.riff import Riff, never_filled_in, read_riff, speakers_at
from inrkit.signals.decoding import require_memory

_BLOCK = 1 << 16
"""Samples that are decoded or encoded at a time; libsndfile overflows its stack on long blocks of Vorbis."""

# What libsndfile decodes a subtype to without loss. It gives 8 bits as 16 and 24 bits as 32, shifted to full scale.
_STORED: dict[str, type[np.generic]] = {
    "PCM_S8": np.int8,
    "PCM_U8": np.int8,
    "DPCM_8": np.int8,
    "PCM_24": np.int32,
    "PCM_32": np.int32,
    "DWVW_24": np.int32,
    "ALAC_20": np.int32,
    "ALAC_24": np.int32,
    "ALAC_32": np.int32,
    "FLOAT": np.float32,
    "DOUBLE": np.float64,
}
_LOSSY = ("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")

# Suffix: libsndfile's format, and its subtype for 8, 16, 24 and 32 bits, float32 and float64.
_WRITTEN: dict[str, tuple[str, tuple[str, str, str, str, str, str]]] = {
    ".wav": ("WAV", ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    ".flac": ("FLAC", ("PCM_S8", "PCM_16", "PCM_24", "PCM_24", "PCM_24", "PCM_24")),
    ".aif": ("AIFF", ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    ".aiff": ("AIFF", ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    ".ogg": ("OGG", ("VORBIS",) * 6),
    ".mp3": ("MP3", ("MPEG_LAYER_III",) * 6),
}
_LARGEST_WAV = (1 << 32) - (1 << 16)
"""Bytes of samples above which a WAV is written as RF64, whose lengths have 64 bits."""


_LARGEST_COUNT = 1 << 62
"""Samples of a file that does not say how many it has, in libsndfile's words, or more."""

# The order in which a codec has the speakers, as places in it of those of a WAV; by the number of channels.
_VORBIS_ORDER = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
_ALAC_ORDER = {
    3: (1, 2, 0),
    4: (1, 2, 0, 3),
    5: (1, 2, 0, 3, 4),
    6: (1, 2, 0, 5, 3, 4),
    7: (1, 2, 0, 6, 5, 3, 4),
    8: (3, 4, 0, 7, 5, 6, 1, 2),
}
# Bit masks of the speakers that a number of channels stands for where a format fixes them.
_SPEAKERS = {1: 0x4, 2: 0x3, 3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
_ALAC_SPEAKERS = {**_SPEAKERS, 4: 0x107, 8: 0xFF}


@dataclass
class Sound:
    """Samples of a file, and what the file says of them.

    Args:
        values: (T, C) samples, of more than two channels in the order of a WAV.
        rate: samples a second.
        first: place in the file of the first of them.
        total: samples that the file has.
        format: libsndfile's name of the container.
        subtype: its name of how a sample is stored.
        speakers: bit mask of the speakers that the channels are for, as WAV has it; 0 if the file does not say.
    """

    values: np.ndarray
    rate: int
    first: int
    total: int
    format: str
    subtype: str
    speakers: int


def read_sound(path: Path, offset: float, duration: float | None) -> Sound:
    """The samples from `offset` seconds on, `duration` seconds of them or all.

    Raises:
        DataError: the file is damaged or no audio, or has no samples there.
    """
    riff = read_riff(path)
    if riff is not None and riff.truncated:
        raise _truncated(path, riff.promised, riff.present)
    with _decoding(path), contextlib.ExitStack() as opened:
        source: Any = path
        if riff is not None and riff.promised is None:
            source = opened.enter_context(riff.filled_in(path))
        file = opened.enter_context(soundfile.SoundFile(source))
        _check_whole(path, file)
        values = None if riff is None else _mapped(path, file, riff)
        if values is None and not _length_is_said(path, file):
            values = _decoded_to_the_end(path, file)
        total = file.frames if values is None else len(values)
        first, count = _span(path, total, file.samplerate, offset, duration)
        values = _decoded(path, file, first, count) if values is None else values[first : first + count]
        order, speakers = _speakers_of(file)
        if order is not None:
            values = values[:, order]
        speakers = speakers if riff is None else riff.speakers
        return Sound(values, file.samplerate, first, total, file.format, file.subtype, speakers)


def takes_rate(suffix: str, rate: int) -> bool:
    """Whether a format is written at so many samples a second; FLAC is read at some at which it is not."""
    container, subtypes = _WRITTEN[suffix]
    try:
        with soundfile.SoundFile(io.BytesIO(), "w", rate, 1, subtypes[1], format=container) as file:
            file.write(np.zeros(1, np.int16))  # some rates are refused only now
    except (soundfile.LibsndfileError, AssertionError, ValueError, OverflowError):
        return False
    return True


def write_sound(path: Path, values: np.ndarray, rate: int, stored: str, speakers: int = 0) -> None:
    """Write (T, C) samples in the format that the path's suffix names.

    Args:
        path: to write to.
        values: integers to full scale, or real numbers; of more than two channels in the order of a WAV.
        rate: samples a second.
        stored: subtype of the file that the values are from, which tells 24 bits from 32.
        speakers: bit mask of the speakers that the channels are for; 0 if not known.

    Raises:
        ConfigError: the format is not one that is written, or cannot hold the values.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITTEN:
        named = f"as '{suffix}'" if suffix else "without a suffix"
        raise ConfigError(f"audio is not written {named}; choose one of: {', '.join(_WRITTEN)}")
    container, subtypes = _WRITTEN[suffix]
    subtype = subtypes[_precision(values.dtype, stored)]
    count, channels = values.shape
    speakers = speakers if speakers.bit_count() <= channels else 0
    if container == "WAV":
        if values.nbytes > _LARGEST_WAV:
            container = "RF64"
        elif speakers and (channels > 2 or speakers != _SPEAKERS[channels]):
            container = "WAVEX"
    elif speakers and channels > 2:
        fixed = _SPEAKERS.get(channels, 0) if suffix in (".flac", ".ogg") else 0
        if _behind(speakers) != _behind(fixed):
            raise ConfigError(f"{suffix} cannot say which {channels} speakers the sound is for; choose .wav")
    order = None
    if subtype == "VORBIS" and channels in _VORBIS_ORDER:
        order = np.argsort(_VORBIS_ORDER[channels])
    try:
        file = soundfile.SoundFile(path, "w", rate, channels, subtype, format=container)
    except (soundfile.LibsndfileError, ValueError, OverflowError) as error:
        _raise_system_error(path)
        raise ConfigError(
            f"{suffix} cannot hold {channels} channels at {rate} samples a second ({_reason(error)}); choose .wav"
        ) from error
    try:
        with file:
            for first in range(0, count, _BLOCK):
                block = _encoded(values[first : first + _BLOCK], subtype)
                file.write(block if order is None else block[:, order])
    except (soundfile.LibsndfileError, AssertionError) as error:  # both are how a full disk shows
        raise OSError(f"libsndfile stopped: {_reason(error)}") from error
    place = speakers_at(path) if container in ("WAVEX", "RF64") else None
    if place is not None:
        with path.open("r+b") as written:
            written.seek(place)
            written.write(struct.pack("<I", speakers))


def _speakers_of(file: soundfile.SoundFile) -> tuple[tuple[int, ...] | None, int]:
    """How to bring the channels into the order of a WAV, if they are not, and the speakers that they are then for."""
    if file.subtype in ("VORBIS", "OPUS"):
        return _VORBIS_ORDER.get(file.channels), _SPEAKERS.get(file.channels, 0)
    if file.subtype.startswith("ALAC"):
        return _ALAC_ORDER.get(file.channels), _ALAC_SPEAKERS.get(file.channels, 0)
    return None, _SPEAKERS.get(file.channels, 0) if file.format == "FLAC" else 0


def _behind(speakers: int) -> int:
    """Speakers with those at the side taken for those at the back, where there is but one pair of them."""
    side, back = 0x600, 0x30
    return speakers ^ side ^ back if speakers & side and not speakers & back else speakers


def _truncated(path: Path, promised: int, found: int) -> DataError:
    return DataError(
        f"{path} is truncated: its header promises {promised} bytes of samples and {found} are there; "
        "check that it was copied whole"
    )


def _span(path: Path, frames: int, rate: int, offset: float, duration: float | None) -> tuple[int, int]:
    """First sample and number of samples that are asked for."""
    if frames < 1 or rate < 1:
        raise DataError(f"{path} holds {frames} samples at {rate} a second; check how it was written")
    first = round(offset * rate)
    if first >= frames:
        raise DataError(f"modality.offset is {offset:g} s, and {path} ends after {frames / rate:g} s; lower it")
    count = frames - first
    if duration is not None:
        count = min(count, max(1, round(duration * rate)))
    return first, count


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Make a DataError of what a damaged file makes libsndfile say, and keep what its decoders print to ourselves."""
    try:
        with _quiet_stderr():
            yield
    except MemoryError as error:
        raise DataError(f"{path} does not fit in memory; read a part of it with modality.duration=…") from error
    except (soundfile.LibsndfileError, ValueError) as error:  # numbers of samples that cannot be
        raise DataError(
            f"{path} is not audio that libsndfile reads, or is damaged ({_reason(error)}); "
            "check that it plays elsewhere"
        ) from error


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Silence the process's standard error: mpg123 prints its complaints there and cannot be told not to."""
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _reason(error: Exception) -> str:
    """libsndfile's word on what is wrong, in a few words."""
    said = getattr(error, "error_string", str(error)).removeprefix("Error : ").strip().rstrip(".")
    if not said or said.startswith("File does not exist"):  # its MP3 decoder's word for bytes that are no MP3
        return "Format not recognised"
    return said


def _check_whole(path: Path, file: soundfile.SoundFile) -> None:
    """libsndfile shortens a file whose end is missing, and only its log tells."""
    for said, found in re.findall(
        r"^ *(?:SSND|BODY|riff|Data Size) *: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE
    ):
        if int(found) < int(said) and not never_filled_in(int(said)):
            raise _truncated(path, int(said), int(found))
    if file.format == "FLAC" and _LARGEST_COUNT > file.frames > path.stat().st_size * _MOST_OF_A_BYTE:
        raise DataError(f"{path} is damaged: it promises {file.frames:,} samples, which no FLAC of its length can hold")
    if file.format == "OGG" and not _ends_with_a_page(path):
        raise DataError(f"{path} is truncated: its last page is cut off or missing; check that it was copied whole")


_MOST_OF_A_BYTE = 1 << 13
"""Samples, at most, of a byte of FLAC: a frame of silence takes more than eight bytes, and has 65,535 at most."""
_LONGEST_PAGE = 27 + 255 + 255 * 255
"""Bytes of a page of Ogg (RFC 3533)."""


def _ends_with_a_page(path: Path) -> bool:
    """Whether an Ogg's last page is there to its end, and says that it is the last."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2 * _LONGEST_PAGE))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return bool(segments) and bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(segments)


def _mapped(path: Path, file: soundfile.SoundFile, riff: Riff) -> np.ndarray | None:
    """(T, C) samples of a WAV as a memory map; None where the samples are not stored as they are used."""
    if riff.dtype is None or np.dtype(riff.dtype).newbyteorder("=") != _stored_type(file.subtype):
        return None
    # Copy-on-write: a stray write stays in memory.
    values = np.memmap(path, riff.dtype, "c", riff.data, (file.frames, file.channels))
    return values if values.flags.aligned and values.dtype.isnative else None


def _length_is_said(path: Path, file: soundfile.SoundFile) -> bool:
    """Whether the number of samples is in the file: a FLAC from a pipe has none, and an MP3 need not."""
    if file.format == "FLAC":
        return bool(file.frames < _LARGEST_COUNT)
    if file.subtype not in _LOSSY[2:]:
        return True
    with path.open("rb") as opened:
        head = opened.read(10)
        if head[:3] == b"ID3":  # a tag, whose length comes in four bytes of seven bits (ID3v2, 3.1)
            opened.seek(10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)))
        else:
            opened.seek(0)
        first_frame = opened.read(1 << 11)
    return any(word in first_frame for word in (b"Xing", b"Info", b"VBRI"))


def _decoded_to_the_end(path: Path, file: soundfile.SoundFile) -> np.ndarray:
    """(T, C) samples of a file that does not say how many it has."""
    stored = _stored_type(file.subtype)
    file.seekable = lambda: False  # soundfile seeks after every read, and libFLAC cannot without that number
    blocks = []
    while len(block := file.read(_BLOCK, dtype="int16" if stored == np.int8 else stored.name, always_2d=True)):
        blocks.append((block >> 8).astype(np.int8) if stored == np.int8 else block)
    values = np.concatenate(blocks) if blocks else np.empty((0, file.channels), dtype=stored)
    if len(values) >= file.frames:  # libsndfile's guess, by the first frame's bit rate, where it stops
        raise DataError(f"{path} does not say how long it is, and its bit rate varies; save it as .wav or .flac")
    return values


def _decoded(path: Path, file: soundfile.SoundFile, start: int, count: int) -> np.ndarray:
    """(count, C) samples from `start` on."""
    stored = _stored_type(file.subtype)
    require_memory(path, count * file.channels * stored.itemsize, "read a part of it with modality.duration=…")
    values = np.empty((count, file.channels), dtype=stored)
    if file.seekable():
        file.seek(start)
    else:
        for skipped in range(0, start, _BLOCK):
            file.read(min(_BLOCK, start - skipped), dtype="int16")
    done = 0
    while done < count:
        length = min(_BLOCK, count - done)
        block = file.read(length, dtype="int16" if stored == np.int8 else stored.name, always_2d=True)
        values[done : done + len(block)] = block >> 8 if stored == np.int8 else block
        done += len(block)
        if len(block) < length:
            raise DataError(
                f"{path} is truncated: it has {start + done} of {file.frames} samples; check that it was copied whole"
            )
    return values


def _stored_type(subtype: str) -> np.dtype:
    if subtype in _LOSSY:
        return np.dtype(np.float32)
    return np.dtype(_STORED.get(subtype, np.int16))


def _precision(dtype: np.dtype, subtype: str) -> int:
    """Place in `_WRITTEN` of the precision that values of a file of `subtype` have."""
    if dtype.kind == "f":
        return 5 if dtype.itemsize > 4 else 4
    if dtype.itemsize == 4:
        return 2 if subtype in ("PCM_24", "DWVW_24", "ALAC_20", "ALAC_24") else 3
    return 0 if dtype.itemsize == 1 else 1


def _encoded(block: np.ndarray, subtype: str) -> np.ndarray:
    """Samples as libsndfile wants them for `subtype`: to full scale, rounded where it would cut bits off."""
    if block.dtype.kind == "i" and subtype in _LOSSY:  # of 16 bits its MP3 encoder makes another sound
        return block.astype(np.float32) / np.float32(2.0 ** (8 * block.dtype.itemsize - 1))
    if block.dtype == np.int8:
        return block.astype(np.int16) << 8
    if subtype == "PCM_24":
        if block.dtype.kind == "f":
            full = float(1 << 23)
            block = np.clip(np.rint(block.astype(np.float64) * full), -full, full - 1).astype(np.int32) << 8
        elif block.dtype == np.int32:
            block = np.minimum(block, np.int32(2**31 - 129)) + np.int32(128) & np.int32(-256)
    elif subtype not in ("FLOAT", "DOUBLE") and block.dtype.kind == "f":
        block = np.clip(block, -1.0, 1.0)
    if block.dtype == np.float16:
        block = block.astype(np.float32)
    return block


def _raise_system_error(path: Path) -> None:
    """Raise the OSError that says why `path` cannot be written, if it cannot."""
    with path.open("ab"):
        pass
