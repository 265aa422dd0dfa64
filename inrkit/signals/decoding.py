"""For every modality: errors and warnings of libraries that decode files."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.device import available_memory
from inrkit.errors import DataError, InrkitError

DEFLATED = 1040
"""Times, at most, that deflated bytes become more (RFC 1951 allows 1032)."""
_LONG = 2 << 30
"""Bytes of values whose unpacking takes so long that a user is told of it."""


class LongDecoding(UserWarning):
    """A file is so large when it is unpacked that this takes its time."""


@contextlib.contextmanager
def decoding(path: Path, trouble: str, *loggers: str) -> Iterator[None]:
    """Turn any error of a decoder at a damaged file into a DataError, and silence its warnings.

    Args:
        path: the file.
        trouble: what is wrong with a file that cannot be decoded ("is damaged or truncated").
        loggers: names of the loggers to silence meanwhile.

    Raises:
        DataError: in one line, with the decoder's own reason.
        OSError: an error of the system, not of the decoder: no permission, no file.
    """
    silenced = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in silenced]
    try:
        for logger in silenced:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("default", LongDecoding)
            yield
    except InrkitError:
        raise
    except MemoryError as error:
        raise DataError(
            f"{path} does not fit in memory, or its header is damaged; an array saved as .npy is read from disk"
        ) from error
    except Exception as error:
        # An impossible place in a file (EINVAL) is one that the file itself has named.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        # A decoder may look for an optional package, to guess an encoding for instance; that says nothing of the file.
        absent = isinstance(error, ModuleNotFoundError)
        reason = "" if absent else f" ({str(error).strip().partition(chr(10))[0][:160] or type(error).__name__})"
        raise DataError(f"{path} {trouble}{reason}; check that it opens elsewhere") from error
    finally:
        for logger, level in zip(silenced, levels, strict=True):
            logger.setLevel(level)


def mapped_array(path: Path) -> np.ndarray:
    """The array in a .npy file as a memory map: pages come from the file as they are needed, none is written back.

    Copy-on-write, so that a stray write stays in memory; read-only if the system cannot reserve that much memory.

    Raises:
        ValueError: the file is damaged, or its header is none of an array that can be.
    """
    with path.open("rb") as file:
        _promised(file)
    try:
        return np.lib.format.open_memmap(path, mode="c")
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return np.lib.format.open_memmap(path, mode="r")


def archived_array(path: Path, archive: Any, key: str) -> np.ndarray:
    """An array of an .npz, which promises no more than is there, and no more than fits in memory.

    Args:
        path: of the file, for messages.
        archive: as np.load opens it.
        key: name of the array.

    Raises:
        DataError: it promises more.
    """
    name = f"{key}.npy" if f"{key}.npy" in archive.zip.namelist() else key
    entry = archive.zip.getinfo(name)
    if entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        most = DEFLATED if entry.compress_type == zipfile.ZIP_DEFLATED else 1
        require_present(path, entry.file_size, entry.compress_size, most)
        if most > 1:
            tell_of_unpacking(path, entry.file_size)
    with archive.zip.open(name) as member:
        require_present(path, _promised(member), entry.file_size)
    require_memory(path, entry.file_size)
    array: np.ndarray = archive[key]
    return array


def require_memory(path: Path, size: int, mend: str = "") -> None:
    """Refuse a file whose decoded values would take more than the memory at hand.

    Args:
        path: of the file, for the message.
        size: bytes that decoding takes.
        mend: what to do about it, if not to save the values as .npy.

    Raises:
        DataError: there is less memory than that.
    """
    available = available_memory()
    if available is not None and size > available:
        raise DataError(
            f"{path} takes {size / 2**30:.1f} GiB of memory and {available / 2**30:.1f} GiB are at hand; "
            + (mend or "save it as .npy, in C order, which is read from disk")
        )


def tell_of_unpacking(path: Path, size: int) -> None:
    """Warn, before it begins, that a packed file takes long to read: it may be small itself.

    Args:
        path: of the file, for the message.
        size: bytes of its values.
    """
    if size >= _LONG:
        warnings.warn(
            f"{path} becomes {size / 2**30:.1f} GiB when it is unpacked, which takes its time; saved as .npy, in C "
            "order, it is read from disk as it is needed",
            LongDecoding,
            stacklevel=2,
        )


def require_present(path: Path, size: int, stored: int, most: int = 1) -> None:
    """Refuse a file that promises more than can be in it, before anything is laid out for it.

    Args:
        path: of the file, for the message.
        size: bytes of values that its header promises.
        stored: bytes that it has for them.
        most: times, at most, that a stored byte becomes more.

    Raises:
        DataError: they cannot be there.
    """
    if size > stored * most:
        raise DataError(
            f"{path} is damaged or truncated: it promises {size} bytes of values and has {stored}; "
            "check that it was copied whole"
        )


def _promised(file: Any) -> int:
    """Bytes of values that the header of an .npy promises.

    Raises:
        ValueError: it is none, or of values of no size, at which NumPy would divide by zero and end the process.
    """
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        return 0  # of a later kind, with names that are not Latin
    shape, _, dtype = read[version](file)
    if dtype.itemsize == 0 or any(length < 0 for length in shape):
        raise ValueError(f"an array of shape {shape} and dtype {dtype.str} cannot be")
    return int(math.prod(shape)) * int(dtype.itemsize)
