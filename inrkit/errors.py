"""The errors a user meets. Each message says what is wrong, where, and how to mend it, in a line or two."""

_LONGEST, _MOST = 1200, 50
"""Characters of a line, and lines of a message; both are far above what inrkit itself has to say."""


class InrkitError(Exception):
    """Base of all errors that inrkit raises on purpose; `exit_code` is what the command line returns.

    Messages repeat names and values that come from files, so each of `lines` is made one readable line.
    """

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)  # as they are given, so that a copy from another process says the same

    def __str__(self) -> str:
        told = [in_one_line(str(line)) for line in self.args[:_MOST]]
        if len(self.args) > _MOST:
            told.append(f"and {len(self.args) - _MOST} more")
        return "\n".join(told)


def interrupted(error: BaseException | None) -> bool:
    """Whether an error came of Ctrl-C: what a library does on its way out may fail in turn, and hide it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


class ConfigError(InrkitError):
    """The request is wrong: an unknown key or name, an impossible value, an option that does not fit."""

    exit_code = 2


class DataError(InrkitError):
    """The input cannot be used: missing, empty, damaged, of an unknown format, or not finite."""

    exit_code = 2


class StaleCheckpoint(DataError):
    """A checkpoint is whole, and is not one of this fit: of other code, or of another config."""


class RunError(InrkitError):
    """The run failed after it had started: diverged training, a full disk, an unreadable checkpoint."""


class WriteError(RunError):
    """A file cannot be written: the disk is full, or the folder is not to be written to. What was there stays."""


def in_one_line(text: str) -> str:
    """The text as one line of bounded length: control characters escaped, and left out in the middle if it is long."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST * 2 // 3]} … {text[-_LONGEST // 3 :]}"
    return escaped(text)


def escaped(text: str) -> str:
    """The text with what no terminal should be sent, such as control characters, as Python would write it."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
