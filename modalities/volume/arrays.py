"""Arrays as files have them: what NumPy saves, and the memory that values take before they are used."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.device import available_memory
from inrkit.errors import DataError
from inrkit.modalities.image import LOGGERS
from inrkit.signals.decoding import decoding, mapped_array

DEFLATED = 1040
"""Times, at most, that deflated bytes become more (RFC 1951 allows 1032)."""


@dataclass
class Stored:
    """An array as a file has it, and what the file says of it.

    Args:
        array: its values.
        channels_last: whether the last axis is channels; None if the file does not say.
        metadata: what else it says, in plain JSON.
        notes: sentences that a user is told.
    """

    array: np.ndarray
    channels_last: bool | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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


def require_room_in_order(path: Path, array: np.ndarray) -> None:
    """Refuse an array that does not lie as torch reads it, if there is no memory for a copy that does.

    Raises:
        DataError: there is less memory than that.
    """
    if not (array.flags.c_contiguous and array.dtype.isnative):
        require_memory(path, array.nbytes)


def read_array(path: Path) -> np.ndarray:
    """The array of an .npy as a read-only memory map, which takes no memory however large it is.

    Raises:
        DataError: the file is damaged, or holds objects.
    """
    with decoding(path, "is not a NumPy array of numbers, or is damaged", *LOGGERS):
        return mapped_array(path)


def read_npy(path: Path) -> Stored:
    return Stored(read_array(path))


def read_npz(path: Path, key: str = "") -> Stored:
    """One array of an archive: that of the name `key`, or the only one."""
    with (
        decoding(path, "is not an archive of NumPy arrays of numbers, or is damaged", *LOGGERS),
        path.open("rb") as file,
    ):
        archive = np.load(file)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds a single array, not an archive of them; name it .npy")
        with archive:
            key = key or (archive.files[0] if len(archive.files) == 1 else "")
            if key not in archive.files:
                wrong = f"no array '{key}'" if key else f"{len(archive.files)} arrays"
                raise DataError(f"{path} holds {wrong}; choose one with modality.key={'|'.join(archive.files)}")
            name = f"{key}.npy" if f"{key}.npy" in archive.zip.namelist() else key
            entry = archive.zip.getinfo(name)
            if entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                most = DEFLATED if entry.compress_type == zipfile.ZIP_DEFLATED else 1
                require_present(path, entry.file_size, entry.compress_size, most)
            with archive.zip.open(name) as member:
                require_present(path, _promised(member), entry.file_size)
            require_memory(path, entry.file_size)
            return Stored(archive[key], metadata={"key": key})


def _promised(file: Any) -> int:
    """Bytes of values that the header of an .npy promises."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        return 0  # of a later kind, with names that are not Latin
    shape, _, dtype = read[version](file)
    return int(math.prod(shape)) * int(dtype.itemsize)
