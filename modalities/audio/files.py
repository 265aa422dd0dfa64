"""Sound files: what libsndfile reads and writes, in the samples' own precision."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from inrkit.errors import ConfigError, DataError

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
_MAPPED = ("PCM_16", "PCM_32", "FLOAT", "DOUBLE")

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


@dataclass
class Sound:
    """Samples of a file, and what the file says of them.

    Args:
        values: (T, C) samples.
        rate: samples a second.
        first: place in the file of the first of them.
        format: libsndfile's name of the container.
        subtype: its name of how a sample is stored.
    """

    values: np.ndarray
    rate: int
    first: int
    format: str
    subtype: str


def read_sound(path: Path, offset: float, duration: float | None) -> Sound:
    """The samples from `offset` seconds on, `duration` seconds of them or all.

    Raises:
        DataError: the file is damaged or no audio, or has no samples there.
    """
    with path.open("rb"):
        pass  # the system's own word where there is no file or no permission
    with _decoding(path), soundfile.SoundFile(path) as file:
        _check_whole(path, file)
        first, count = _span(path, file, offset, duration)
        values = _mapped(path, file)
        values = _decoded(path, file, first, count) if values is None else values[first : first + count]
        return Sound(values, file.samplerate, first, file.format, file.subtype)


def write_sound(path: Path, values: np.ndarray, rate: int, stored: str) -> None:
    """Write (T, C) samples in the format that the path's suffix names.

    Args:
        path: to write to.
        values: integers to full scale, or real numbers.
        rate: samples a second.
        stored: subtype of the file that the values are from, which tells 24 bits from 32.

    Raises:
        ConfigError: the format is not one that is written, or cannot hold the values.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITTEN:
        named = f"as '{suffix}'" if suffix else "without a suffix"
        raise ConfigError(f"audio is not written {named}; choose one of: {', '.join(_WRITTEN)}")
    container, subtypes = _WRITTEN[suffix]
    subtype = subtypes[_precision(values.dtype, stored)]
    if container == "WAV" and values.nbytes > _LARGEST_WAV:
        container = "RF64"
    count, channels = values.shape
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
                file.write(_encoded(values[first : first + _BLOCK], subtype))
    except (soundfile.LibsndfileError, AssertionError) as error:  # both are how a full disk shows
        raise OSError(f"libsndfile stopped: {_reason(error)}") from error


def _span(path: Path, file: soundfile.SoundFile, offset: float, duration: float | None) -> tuple[int, int]:
    """First sample and number of samples that are asked for."""
    rate, frames = file.samplerate, file.frames
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
    except soundfile.LibsndfileError as error:
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
    """libsndfile shortens a WAV, AIFF or Ogg whose end is missing, and only its log tells."""
    for said, found in re.findall(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE):
        # A program that writes to a pipe cannot go back to fill in the length: it leaves the largest number, or 0.
        if int(found) < int(said) < 0x7FFFFFFF - 1024:
            raise DataError(
                f"{path} is truncated: its header promises {said} bytes of samples and {found} are there; "
                "check that it was copied whole"
            )
    if file.format == "OGG" and re.search(r"Ogg: (Junk after the last page|Last page lacks)", file.extra_info):
        raise DataError(f"{path} is truncated: its last page is cut off or missing; check that it was copied whole")


def _mapped(path: Path, file: soundfile.SoundFile) -> np.ndarray | None:
    """(T, C) samples of a WAV as a memory map; None where the samples are not stored as they are used."""
    if file.format not in ("WAV", "WAVEX", "RF64") or file.subtype not in _MAPPED:
        return None
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, values = wavfile.read(path, mmap=True)
    except Exception:  # a variant that SciPy does not know; libsndfile does
        return None
    values = values[:, None] if values.ndim == 1 else values
    if values.shape != (file.frames, file.channels) or values.dtype.newbyteorder("=") != _stored_type(file.subtype):
        return None
    return values


def _decoded(path: Path, file: soundfile.SoundFile, start: int, count: int) -> np.ndarray:
    """(count, C) samples from `start` on."""
    stored = _stored_type(file.subtype)
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
