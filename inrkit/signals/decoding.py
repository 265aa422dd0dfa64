"""What every modality needs while a library decodes a stranger's file for it."""

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
    """Make a DataError of whatever a damaged file makes a decoder raise, and keep to itself what it warns of.

    Args:
        path: the file.
        trouble: what is wrong with a file that cannot be decoded ("is damaged or truncated").
        loggers: names of the loggers to silence meanwhile.

    Raises:
        DataError: in one line, with the decoder's own reason.
        OSError: the system's word rather than the decoder's: no permission, no file.
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
        # A decoder that looks for a package of its own (a guesser of encodings, say) was given no such file.
        absent = isinstance(error, ModuleNotFoundError)
        reason = "" if absent else f" ({str(error).strip().partition(chr(10))[0][:160] or type(error).__name__})"
        raise DataError(f"{path} {trouble}{reason}; check that it opens elsewhere") from error
    finally:
        for logger, level in zip(silenced, levels, strict=True):
            logger.setLevel(level)


def mapped_array(path: Path) -> np.ndarray:
    """The array in a .npy file as a memory map: pages come from the file as they are needed, none is written back.

    Copy-on-write, so that a stray write stays in memory; read-only where the system will not promise that much.
    """
    try:
        return np.lib.format.open_memmap(path, mode="c")
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return np.lib.format.open_memmap(path, mode="r")
