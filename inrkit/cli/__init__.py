"""The command line, one file per command. Exit codes: 0 done, 1 the run failed, 2 wrong request, 130 stopped."""

from __future__ import annotations

import difflib
import sys
import traceback
import warnings
from pathlib import Path

import click

from inrkit.cli.batch import batch
from inrkit.cli.benchmark import benchmark
from inrkit.cli.cite import cite
from inrkit.cli.compress import compress
from inrkit.cli.configs import copy, show
from inrkit.cli.evaluate import evaluate
from inrkit.cli.export import export
from inrkit.cli.fit import fit
from inrkit.cli.listing import list_
from inrkit.cli.pack import pack
from inrkit.cli.render import render
from inrkit.cli.report import report
from inrkit.cli.sample import sample
from inrkit.config import key_of
from inrkit.device import keep_freed_memory
from inrkit.errors import InrkitError, in_one_line, interrupted


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="inrkit")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def inrkit(debug: bool) -> None:
    """Fit implicit neural representations: `inrkit fit photo.png`, and there is a picture to look at.

    Exit codes: 0 done, 1 the run failed, 2 the request is wrong, 130 stopped by Ctrl-C.
    """


_COMMANDS = (fit, batch, pack, render, export, compress, report, evaluate, cite, list_, show, copy, sample, benchmark)

for command in _COMMANDS:
    inrkit.add_command(command)


def main() -> None:
    """Run the command line and exit; an error is printed in a line or two."""
    words = sys.argv[1:]
    # --debug may stand anywhere, so that it can simply be added to a command that failed.
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"] or ["--help"]
    keep_freed_memory()
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        code = _run(words, debug)
    sys.exit(code)


def _run(words: list[str], debug: bool) -> int:
    """Run a command; returns its exit code."""
    try:
        code: int = inrkit.main(words, prog_name="inrkit", standalone_mode=False)
        return code
    except (KeyboardInterrupt, click.Abort):
        return _complain("stopped", 130)
    except Exception as error:
        return _complain("stopped", 130) if interrupted(error) else _failed(error, words, debug)


def _failed(error: Exception, words: list[str], debug: bool) -> int:
    """Tell of the error of a command; returns its exit code."""
    if isinstance(error, BrokenPipeError):
        return 1
    if isinstance(error, click.NoSuchOption) and words[0] in ("fit", "batch", "benchmark", "show"):
        key = key_of(error.option_name.lstrip("-").replace("-", "_"))
        if key:
            return _complain(f"No such option '{error.option_name}'; keys of the config have no dashes: {key}=…", 2)
    if isinstance(error, click.ClickException):
        hint = _hint(error, words) if isinstance(error, click.UsageError) else ""
        return _complain(in_one_line(error.format_message()) + hint, 2)
    if debug:
        traceback.print_exception(error)
    if isinstance(error, InrkitError):
        return _complain(str(error), error.exit_code)
    if isinstance(error, OSError):
        where = f"{error.filename} cannot be used: " if error.filename else ""
        return _complain(in_one_line(f"{where}{error.strerror or error}"), 1)
    told = in_one_line(f"{type(error).__name__}: {error}")
    return _complain(f"{told}; this is a fault of inrkit, see more with --debug", 1)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning in one line."""
    click.echo(f"inrkit: {in_one_line(str(message))}", err=True)


def _complain(message: str, code: int) -> int:
    click.echo(f"inrkit: {message}", err=True)
    return code


def _hint(error: click.UsageError, words: list[str]) -> str:
    if words[0] in inrkit.commands:
        return f" See inrkit {words[0]} --help."
    if Path(words[0]).exists():
        return f" Did you mean 'inrkit fit {words[0]}'?"
    if "Did you mean" in error.format_message():
        return ""
    close = difflib.get_close_matches(words[0], inrkit.commands, n=1)
    return f" Did you mean '{close[0]}'?" if close else " See inrkit --help."
