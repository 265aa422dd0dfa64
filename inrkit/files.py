"""Files appear whole or not at all: written aside, brought to the disk, then renamed.

Without the second step a power cut could leave the new name with none of the content.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import itertools
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from inrkit.errors import ConfigError, InrkitError, WriteError

LOCK = ".lock"
"""A file of a folder that one process at a time works in."""
_OTHER_FILES = 512
"""Files that a process has open besides, at most: libraries, sockets, mapped signals."""
_MOST_NAMES = 10_000
"""In a folder, that are looked through for a name like the one that is missing."""
_ASIDE = re.compile(r"\.(\d+)-.")
"""What the name begins with of a file that the process of that number writes aside."""


def missing(path: Path) -> str:
    """What to say of a file that does not exist, with the name beside it that it may be a slip of."""
    beside: dict[str, str] = {}
    with contextlib.suppress(OSError):
        beside = {each.name.lower(): each.name for each in itertools.islice(path.parent.iterdir(), _MOST_NAMES)}
    close = difflib.get_close_matches(path.name.lower(), beside, n=1, cutoff=0.75)
    return f"{path} does not exist; " + (f"did you mean '{beside[close[0]]}'?" if close else "check the path")


def expanded(path: str | Path) -> Path:
    """The path with a home folder for its `~` or `~user`; a name that only begins with ~ stays what it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def require_file(path: Path) -> None:
    """Refuse what is there and is neither a file nor a folder: reading a pipe or a device might never end.

    Raises:
        OSError: it is a pipe, a socket or a device.
    """
    mode = path.stat().st_mode if path.exists() else stat.S_IFREG
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


def require_place(path: Path, *kept: Path) -> None:
    """Refuse a place that no file can be written to, or that holds what the file is made from.

    Args:
        path: of the file to write.
        kept: what must not be written over.

    Raises:
        ConfigError: it is such a place.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is not a folder; make it first, or choose another")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the name of a file to write")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is a pipe or a device, which a file would replace; give the name of a file to write")
    if path.exists() and any(each.exists() and path.samefile(each) for each in kept):
        raise ConfigError(f"{path} is what the new file is made from, and would be lost; choose another name")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or a folder to; rename it to `path` when the block ends well.

    The suffixes are kept, since writers choose their format by them.

    Raises:
        WriteError: the disk is full, the folder cannot be written, or any other OSError.
    """
    aside = _aside(path)
    try:
        yield aside
        for file in [aside, *aside.rglob("*")] if aside.is_dir() else [aside]:
            _to_disk(file)
        aside.replace(path)
        _to_disk(path.parent)
    except OSError as error:
        reason = error.strerror or _reason(aside) or error
        raise WriteError(f"cannot write {path}: {reason}; free some space or choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            if aside.is_dir():
                shutil.rmtree(aside)
            aside.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    """Where this process writes what is to become `path`."""
    return path.with_name(f".{os.getpid()}-{path.name}")


def _to_disk(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, would survive a power cut.

    Raises:
        OSError: a file's content cannot be written.
    """
    folder = path.is_dir()
    if folder and os.name == "nt":  # which opens no folders
        return
    number = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(number)
    except OSError:
        if not folder:  # some file systems know no fsync of a folder
            raise
    finally:
        os.close(number)


@contextlib.contextmanager
def exclusive(folder: Path, busy: InrkitError, patience: float = 0.0) -> Iterator[None]:
    """Keep other processes out of a folder. The system ends the lock with this process, however that ends.

    The file `LOCK` is there meanwhile. It stays where the process was killed, or a Ctrl-C cut it short.

    Args:
        folder: that is there.
        busy: raised if another process is at work in it.
        patience: seconds to wait for that process before.

    Raises:
        InrkitError: `busy`; or an error of its kind, because the folder cannot be written to.
    """
    path = folder / LOCK
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience)
        while not path.exists():  # who had the lock before removed the file that was opened here
            lock.release()
            lock.acquire(timeout=patience)
    except Timeout as error:
        raise busy from error
    except OSError as error:
        reason = error.strerror or error
        raise type(busy)(f"{folder} cannot be written: {reason}; choose another --out") from error
    cut_short = False
    try:
        yield
    except BaseException as error:
        cut_short = not isinstance(error, Exception)
        raise
    finally:
        if not cut_short:
            path.unlink(missing_ok=True)
        lock.release(force=True)


def allow_open_files(count: int) -> None:
    """Let this process have so many more files open at a time, as far as the system lets it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = count + _OTHER_FILES if hard == unlimited else min(count + _OTHER_FILES, hard)
    if soft != unlimited and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def remove_stale(folder: Path) -> None:
    """Remove what processes that are no more were writing aside in a folder when they were killed."""
    for path in folder.glob(".*-*"):
        match = _ASIDE.match(path.name)
        if match is None or _lives(int(match[1])):
            continue
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _lives(process: int) -> bool:
    """Whether there is a process of that number."""
    if os.name == "nt":  # where asking by a signal would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of somebody else
        return True
    return True


def _reason(path: Path) -> str | None:
    """Why no more can be written to `path`: some writers say only that they failed. None if it can."""
    try:
        with path.open("ab") as file:
            file.write(bytes(1 << 16))
    except OSError as error:
        return error.strerror
    return None


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with written_whole(path) as aside:
        aside.write_text(text, encoding="utf-8")


def claim(path: Path, text: str) -> None:
    """Write `text` to a file that must not exist yet, whole or not at all: of several that try at once, one succeeds.

    Raises:
        FileExistsError: it exists.
        OSError: no file can be made there.
        WriteError: it cannot be written to its end; the disk may be full.
    """
    aside = _aside(path)
    aside.touch()
    try:
        try:
            aside.write_text(text, encoding="utf-8")
            _to_disk(aside)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            os.link(aside, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
            _to_disk(path)
        _to_disk(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def append_text(path: Path, text: str, wait: bool = True) -> None:
    """Add `text` to the end of a file, in one piece.

    Args:
        path: of the file.
        text: to add.
        wait: until it is on the disk; otherwise `bring_to_disk` is to be called before anything relies on it.

    Raises:
        WriteError: the disk is full, or the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise _unwritable(path, error) from error
    if wait:
        bring_to_disk(path)


def bring_to_disk(path: Path) -> None:
    """Wait until what was written to a file would survive a power cut.

    Raises:
        WriteError: the disk is full, or the file cannot be written.
    """
    try:
        _to_disk(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> WriteError:
    return WriteError(f"cannot write {path}: {error.strerror or error}; free some space or choose another folder")


def from_json(text: str) -> Any:
    """What a text in standard JSON says.

    Raises:
        ValueError: it is not, or is nested without end; NaN and infinities are no JSON.
    """

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def to_json(value: Any, indent: int | None = None, separators: tuple[str, str] | None = None) -> str:
    """Standard JSON: infinities and NaN, which JSON does not know, become null."""

    def finite(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: finite(entry) for key, entry in item.items()}
        if isinstance(item, list | tuple):
            return [finite(entry) for entry in item]
        if isinstance(item, float) and not math.isfinite(item):
            return None
        return item

    return json.dumps(finite(value), indent=indent, separators=separators, allow_nan=False, ensure_ascii=False)
