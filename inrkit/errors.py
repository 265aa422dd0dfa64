"""The errors a user meets. Each message says what is wrong, where, and how to mend it, in a line or two."""


class InrkitError(Exception):
    """Base of all errors that inrkit raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


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
