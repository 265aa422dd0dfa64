"""A config as YAML with comments that explain it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from inrkit.config.plain_yaml import write_plain
from inrkit.config.schema import SECTIONS, SLOTS, GeneralOptions
from inrkit.plugins.options import docstrings


def commented_yaml(config: Mapping[str, Any]) -> str:
    """A composed config as YAML, with a comment above every key that says what it does."""
    lines = []
    for key, value in config.items():
        options = _options_of(key, value)
        if isinstance(value, dict):
            lines += ["", f"{key}:"]
            comments = docstrings(options) if options else {}
            for name, entry in value.items():
                if name in comments:
                    lines.append(f"  # {comments[name]}")
                lines.append(f"  {name}: {_scalar(entry)}")
        else:
            comment = docstrings(GeneralOptions).get(key)
            lines += ["", f"# {comment}"] if comment else [""]
            lines.append(f"{key}: {_scalar(value)}")
    return "\n".join(lines).lstrip("\n") + "\n"


def _options_of(key: str, value: Any) -> type | None:
    if key in SECTIONS:
        return SECTIONS[key]
    if key in SLOTS and isinstance(value, dict) and "name" in value:
        return SLOTS[key].registry.get(value["name"]).Options
    return None


def _scalar(value: Any) -> str:
    # Not floats: -0.0 is equal to 0.0, and would be taken for it.
    return _remembered(value) if isinstance(value, str | int | None) else _written(value)


def _written(value: Any) -> str:
    text = write_plain(value, default_flow_style=True, width=10**6).strip()
    return text.removesuffix("...").strip()


_remembered = functools.lru_cache(maxsize=1 << 12, typed=True)(_written)
"""Cached, because the runs of a study write the same few values thousands of times."""
