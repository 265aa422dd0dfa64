"""Arrays as files have them: what NumPy saves, and the memory that values take before they are used."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.errors import DataError
from inrkit.modalities.image import LOGGERS
from inrkit.signals.decoding import archived_array, decoding, mapped_array, require_memory


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
            return Stored(archived_array(path, archive, key), metadata={"key": key})
