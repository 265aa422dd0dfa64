"""Choosing a plug-in in Python: its class, called with its options by name."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inrkit.errors import ConfigError
from inrkit.plugins.options import field_names, nearest


@dataclass(frozen=True)
class Chosen:
    """A plug-in and some of its options, as in `inrkit.fit(selector=Evos(ratio=0.2))`; presets give the other options.

    Args:
        plugin: its class.
        options: values by name.
    """

    plugin: type
    options: Mapping[str, Any]

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.plugin.__name__}({given})"


class PluginType(ABCMeta):
    """The metaclass of plug-ins whose instances need options and a signal.

    If such a class is called only with options, by name, it makes a `Chosen` instead of an instance, because there is
    no signal yet. Called in any other way it is an ordinary class.
    """

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        options = getattr(cls, "Options", None)
        if not arguments and options is not None and field_names(options) >= set(named):
            return Chosen(cls, named)
        try:
            return super().__call__(*arguments, **named)
        except TypeError as error:
            if arguments or options is None or "options" in named:
                raise
            known = field_names(options)
            unknown = min(set(named) - known)
            raise ConfigError(f"{cls.__name__} has no option '{unknown}'{nearest(unknown, known)}") from error
