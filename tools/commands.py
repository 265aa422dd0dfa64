"""Commands that `kill.py` begins, with all their processes.

A command runs in a fork of this process, which has imported all that fits import, so that a kill takes half a second.
Its workers are forks of a server that has done so, too. Such a command differs from a real one in how its processes
start; so some are `cold`: commands in a Python of their own.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from multiprocessing import forkserver
from pathlib import Path

import killable
import psutil

import inrkit.cli

NOBODY = 65534
"""The user of fits that are not root's."""


def know(modules: Iterable[str]) -> None:
    """Import what commands import, and begin the server of workers, which does so, too."""
    for name in modules:
        with contextlib.suppress(Exception):  # a part of a package that only it can import
            importlib.import_module(name)
    if forkserver._forkserver._forkserver_pid is None:
        forkserver.set_forkserver_preload(["__main__", *(name for name in modules if name in sys.modules)])
        with _silent():
            forkserver.ensure_running()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Processes that begin inside say nothing: workers that are killed as they start do, and the others have logs."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class Command:
    """A command that runs in a process group of its own; its words go to `log.txt` in `folder`.

    Args:
        words: of the command line, or of fits together.
        folder: of the case.
        cold: whether it runs in a Python of its own, not in a fork of this process.
        cache: folder for compiled code, if not the user's.
        modules: file for the names of all modules that it has imported in the end.
        own: whether it keeps this process's user, if that is root.
    """

    def __init__(
        self,
        words: list[str],
        folder: Path,
        cold: bool = False,
        cache: Path | None = None,
        modules: Path | None = None,
        own: bool = True,
    ) -> None:
        environment = {**os.environ, **({"XDG_CACHE_HOME": str(cache)} if cache else {})}
        self.log = folder / "log.txt"
        self.cold = cold
        with self.log.open("w") as log:
            if cold:
                program = [killable.__file__] if words[0] == killable.TOGETHER else ["-m", "inrkit"]
                command = [sys.executable, *program, *words]
                self.pid = subprocess.Popen(command, stdout=log, stderr=log, env=environment, process_group=0).pid
                return
            self.pid = os.fork()
            if self.pid:
                with contextlib.suppress(OSError):
                    os.setpgid(self.pid, self.pid)  # by both: whoever comes first
                return
            code = 98
            try:
                os.setpgid(0, 0)
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                os.environ.update(environment)
                if not own and os.geteuid() == 0:
                    _become_nobody(folder)
                code = _run(words)
                if modules:
                    modules.write_text("\n".join(sys.modules))
            except BaseException:
                code = 99
            finally:
                os._exit(code)

    @property
    def runs(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def ended(self) -> int:
        """Wait for its end; returns its exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def workers(self) -> list[psutil.Process]:
        """The processes that work for it, but for those that have ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self.cold:
                kids = psutil.Process(self.pid).children(recursive=True)
                return [kid for kid in kids if "spawn_main" in " ".join(kid.cmdline())]
            kids = psutil.Process(forkserver._forkserver._forkserver_pid).children()
            return [kid for kid in kids if kid.status() != psutil.STATUS_ZOMBIE]
        return []

    def told(self) -> str:
        """The end of what it said."""
        return self.log.read_text()[-300:]


def _run(words: list[str]) -> int:
    """Run a command in this process; returns its exit code."""
    server = multiprocessing.get_context("forkserver")
    multiprocessing.get_context = lambda method=None: server  # type: ignore[assignment, misc]
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
    sys.argv = ["inrkit", *words]
    try:
        return killable.fit_together(words[1:]) if words[0] == killable.TOGETHER else inrkit.cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    except KeyboardInterrupt:
        return 130


def _become_nobody(folder: Path) -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = tempfile.tempdir = str(folder)
