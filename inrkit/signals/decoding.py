"""For every modality: errors and warnings of libraries that decode files."""

from __future__ import annotations

import contextlib
import errno
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from inrkit.errors import DataError, InrkitError


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
            yield
    except InrkitError:
        raise
    except MemoryError as error:
        raise DataError(
            f"{path} does not fit in memory, or its header is damaged; an array saved as .npy is read from disk"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
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
    """
    try:
        return np.lib.format.open_memmap(path, mode="c")
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return np.lib.format.open_memmap(path, mode="r")
