"""Plug-ins found by name: registered by a decorator, by an entry point, or as `package.module:Name`.

An entry point is loaded only when its name is asked for, so that one broken plug-in breaks nothing else.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Generic, TypeVar

from inrkit.errors import ConfigError
from inrkit.plugins.options import nearest

T = TypeVar("T")


def entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    """The entry points that installed packages declare in a group; looked up again if `sys.path` has changed."""
    return _entry_points(group, tuple(sys.path))


@functools.cache
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=group))


class Registry(Generic[T]):
    """The plug-ins of one kind.

    Args:
        kind: the kind in the singular ("selector"), for messages.
        group: entry-point group in which other packages declare plug-ins of this kind ("inrkit.selectors").
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._registered: dict[str, type[T]] = {}
        self._imported: dict[str, type[T]] = {}
        self._base: type | None = None

    def base(self, base: type[T]) -> type[T]:
        """Class decorator for the class that all plug-ins of this kind derive from."""
        self._base = base
        return base

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: make the class known as `name`.

        Raises:
            ConfigError: the name is taken by another class.
        """

        def add(plugin: type[T]) -> type[T]:
            taken = self._registered.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (plugin.__module__, plugin.__qualname__):
                raise ConfigError(
                    f"{self.kind} '{name}' is already {taken.__module__}:{taken.__qualname__}; "
                    f"register {plugin.__module__}:{plugin.__qualname__} under another name"
                )
            self._registered[name] = plugin
            return plugin

        return add

    def names(self) -> list[str]:
        """All known names, sorted; loads nothing."""
        return sorted({*self._registered, *(entry.name for entry in entry_points(self.group))})

    def find(self, name: str) -> type[T] | None:
        """The plug-in called `name`; None if nothing has that name. A target counts once it has been imported."""
        return self.get(name) if name in self._imported or name in self.names() else None

    def get(self, name: str, targets: bool = True) -> type[T]:
        """The plug-in called `name`.

        Args:
            name: a registered name, an entry point's name, or a target `package.module:Name`.
            targets: whether a target may be imported; False for names from a file that is not trusted.

        Raises:
            ConfigError: nothing has that name, or loading it failed.
        """
        if name in self._registered:
            return self._registered[name]
        if name in self._imported:
            return self._imported[name]
        for entry in entry_points(self.group):
            if entry.name == name:
                return self._load(entry.value, f"{self.kind} '{name}' of {_package(entry)}")
        if ":" in name:
            if not targets:
                raise ConfigError(
                    f"{self.kind} '{name}' names code to import, which a file from a stranger could abuse; "
                    "if you trust the file, load it with trust=True (--trust)"
                )
            self._imported[name] = self._load(name, f"{self.kind} '{name}'")
            return self._imported[name]
        raise ConfigError(f"{self.kind} '{name}' is not known{nearest(name, self.names())}")

    def accepts(self, plugin: type) -> bool:
        """Whether a class is a plug-in of this kind."""
        return self._base is not None and issubclass(plugin, self._base)

    def name_of(self, plugin: type[T]) -> str:
        """The name that finds a plug-in, at least in this process. A class that is not registered gets its target
        `package.module:Name`, which `get` knows from now on."""
        for name in self.names():
            if name in self._registered and self._registered[name] is plugin:
                return name
        for entry in entry_points(self.group):
            if entry.value == f"{plugin.__module__}:{plugin.__qualname__}":
                return entry.name
        target = f"{plugin.__module__}:{plugin.__qualname__}"
        self._imported[target] = plugin
        return target

    def _load(self, target: str, what: str) -> type[T]:
        module, _, attribute = target.partition(":")
        try:
            found = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except Exception as error:  # a plug-in may raise anything while it is imported
            hint = ""
            if isinstance(error, ModuleNotFoundError) and Path(f"{error.name}.py").is_file():
                hint = f"; {error.name}.py is in this folder, where `python -m inrkit` looks"
            raise ConfigError(f"{what} cannot be loaded: {type(error).__name__}: {error}{hint}") from error
        if not isinstance(found, type) or (self._base is not None and not issubclass(found, self._base)):
            wanted = self._base.__name__ if self._base else "plug-in"
            raise ConfigError(f"{what} is not a subclass of inrkit's {wanted}; name another")
        return found


def _package(entry: metadata.EntryPoint) -> str:
    return f"package {entry.dist.name}" if entry.dist else entry.value
