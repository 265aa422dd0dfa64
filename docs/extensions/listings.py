"""Pages that are made from the code whenever the site is built: all options, and all commands.

A line `<!-- listing: options -->` in a page stands for what `options` returns here.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

import click

from inrkit.batch.reader import SECTIONS as STUDY_SECTIONS
from inrkit.cli import inrkit as command_line
from inrkit.config import presets
from inrkit.config.plain_yaml import write_plain
from inrkit.config.schema import KINDS, SECTIONS, GeneralOptions, Kind
from inrkit.plugins.options import docstrings

_MARK = re.compile(r"^<!-- listing: (\w+) -->$", re.MULTILINE)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's entry to an extension."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _fill(app: Any, page: str, source: list[str]) -> None:
    source[0] = _MARK.sub(lambda mark: LISTINGS[mark[1]](), source[0])


def options() -> str:
    """Every key of a config with its type, range, default and meaning, in Markdown."""
    parts = ["## Keys without a section", *_entries("", GeneralOptions)]
    for name, section in SECTIONS.items():
        parts += [f"## {name}", *_entries(f"{name}.", section)]
    for kind in KINDS:
        parts += _plugins(kind)
    for name, section in STUDY_SECTIONS.items():
        parts += [f"## {name}, in the file of a study", *_entries(f"{name}.", section)]
    return "\n\n".join(parts)


def commands() -> str:
    """What `--help` prints of every command, in Markdown."""
    parts = []
    # With its parent, as on the command line: click keeps a command's help option from the first time it is asked for.
    parent = click.Context(command_line, info_name="inrkit", **command_line.context_settings)
    for name, command in command_line.commands.items():
        context = click.Context(command, parent, info_name=name, max_content_width=100, terminal_width=100)
        parts += [f"## {name}", f"```text\n{command.get_help(context)}\n```"]
    return "\n\n".join(parts)


def recipes() -> str:
    """Every preset as its file has it, in Markdown."""
    folder = resources.files("inrkit.configs")
    texts = [(name, (folder / f"{name}.yaml").read_text(encoding="utf-8").strip()) for name in presets()]
    return "\n\n".join(f"### {name}\n\n```yaml\n{text}\n```" for name, text in texts)


LISTINGS: dict[str, Callable[[], str]] = {"options": options, "commands": commands, "recipes": recipes}


def _plugins(kind: Kind) -> list[str]:
    """The plug-ins of a kind, each with its options."""
    parts = [f"## {kind.name}"]
    if kind.slot:
        standard = f"`{kind.default}`, unless a preset says otherwise" if kind.default else "what suits the signal"
        parts.append(f"`{kind.name}=NAME` chooses one; {standard}.")
    for name in kind.registry.names():
        plugin = kind.registry.get(name)
        about = (inspect.getdoc(plugin) or "").partition("\n\n")[0]
        parts += [f"### {name} ({kind.name})", _escaped(" ".join(about.split()))]
        if hasattr(plugin, "Options"):
            parts += _entries(f"{kind.name}.", plugin.Options)
    return parts


def _entries(prefix: str, options: type) -> list[str]:
    """The options of a dataclass, as a definition list."""
    comments = docstrings(options)
    parts = []
    for field in dataclasses.fields(options):
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        about = [str(field.type).replace(" | None", ""), *_range(field.metadata)]
        if default is dataclasses.MISSING:
            about.append("no default")
        elif default is not None:
            about.append(f"default `{_plain(default)}`")
        parts.append(f"`{prefix}{field.name}` · {', '.join(about)}\n: {_escaped(comments.get(field.name, ''))}")
    return parts


def _range(metadata: Any) -> list[str]:
    """What an option may be, in words."""
    words = {"at_least": "at least", "above": "above", "at_most": "at most", "below": "below"}
    told = [f"{word} {metadata[key]:,}" for key, word in words.items() if key in metadata]
    if "choices" in metadata:
        told.append("one of " + ", ".join(f"`{choice}`" for choice in metadata["choices"]))
    return told


def _plain(value: Any) -> str:
    text = write_plain(value, default_flow_style=True, width=10**6).strip()
    return text.removesuffix("...").strip()


def _escaped(text: str) -> str:
    """Plain text as Markdown; what stands in single backquotes stays code."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\<*_\[\]|])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)
