"""Layers of a config: presets, YAML files and `key=value`, read and merged."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from inrkit.config.plain_yaml import MOST_CHARACTERS, PlainYamlError, read_plain
from inrkit.config.schema import DATA_PATHS, SLOTS
from inrkit.errors import ConfigError
from inrkit.files import expanded, require_file
from inrkit.plugins.options import nearest, shared_names


def presets() -> list[str]:
    """Names of the shipped presets, sorted."""
    folder = resources.files("inrkit.configs")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_preset(name: str) -> dict[str, Any]:
    """The keys that a shipped preset sets.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in presets():
        raise ConfigError(f"config '{name}' is not known{nearest(str(name), presets())}")
    return copy.deepcopy(_parsed_preset(name))


@functools.cache
def _parsed_preset(name: str) -> dict[str, Any]:
    return _parse_yaml(_preset_text(name), f"preset '{name}'")


def preset_comment(name: str) -> str:
    """A shipped preset's description: the first sentence of the comment at its top."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), _preset_text(name).splitlines())
    return " ".join(line.lstrip("# ") for line in comment).partition(". ")[0]


def _preset_text(name: str) -> str:
    return (resources.files("inrkit.configs") / f"{name}.yaml").read_text(encoding="utf-8")


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys that a config file sets, with `init` and the paths under `data` made absolute.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        require_file(path)
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_CHARACTERS + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; give a config file or a shipped config's name") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8; give a config file in YAML") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}; give a config file in YAML") from error
    layer = _parse_yaml(text, str(path))
    data = layer.get("data")
    for key in DATA_PATHS:
        if isinstance(data, dict) and isinstance(data.get(key), str) and data[key]:
            data[key] = str(path.parent.resolve() / expanded(data[key]))
    if isinstance(layer.get("init"), str) and layer["init"] not in ("", "given"):
        layer["init"] = str(path.parent.resolve() / expanded(layer["init"]))
    return layer


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """The keys that `key=value` words set; dots nest, values are YAML.

    Raises:
        ConfigError: a word has no `=`, or its value is not YAML.
    """
    bad = [word for word in overrides if "=" not in word or word.startswith("=")]
    if bad:
        raise ConfigError(f"'{bad[0]}' is not of the form key=value, like selector.ratio=0.2")
    layer: dict[str, Any] = {}
    for word in overrides:
        name, _, value = word.partition("=")
        try:
            parsed = read_plain(value, references=False)
        except PlainYamlError as error:
            raise ConfigError(f"'{word}' has no value that YAML can read: it {error}") from error
        for part in reversed(name.split(".")):
            parsed = {part: parsed}
        layer = merge(layer, normalised(parsed))
    return layer


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`: sections are merged key by key, slots as described in the docstring of `inrkit.config`.

    Args:
        below: a normalised layer.
        above: a normalised layer.
    """
    result = copy.deepcopy(dict(below))
    for key, value in above.items():
        old = result.get(key)
        if not (isinstance(old, dict) and isinstance(value, dict)):
            result[key] = copy.deepcopy(value)
            continue
        if key in SLOTS and value.get("name", old.get("name")) != old.get("name") and "name" in old:
            old = {name: kept for name, kept in old.items() if name in _shared(key, value["name"])}
        result[key] = {**old, **_nested(old, value)}
    return result


def _nested(old: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a section; a mapping among them is merged with the one that was there, unless both have names that
    differ."""
    merged = copy.deepcopy(dict(value))
    for key, inner in merged.items():
        before = old.get(key)
        if isinstance(inner, dict) and isinstance(before, dict):
            same = inner.get("name", before.get("name")) == before.get("name")
            merged[key] = {**copy.deepcopy(before), **inner} if same else inner
    return merged


def _shared(slot: str, name: Any) -> set[str]:
    try:
        return shared_names(SLOTS[slot].registry.get(str(name)).Options)
    except ConfigError:
        return set()  # the name is reported when the whole is validated


RENAMED = {"log": {"sample": "evaluated"}}
"""Keys that were renamed since version 0.1.0: for each section, old names and present names."""


def normalised(layer: Mapping[str, Any]) -> dict[str, Any]:
    """The layer with every slot as a mapping, also where only a name was given, and with keys by their present
    names."""
    result: dict[str, Any] = {}
    for key, value in layer.items():
        if key in SLOTS and isinstance(value, str):
            value = {"name": value}
        elif key in RENAMED and isinstance(value, Mapping):
            value = {RENAMED[key].get(name, name): entry for name, entry in value.items()}
        result[str(key)] = value
    return result


def _parse_yaml(text: str, where: str) -> dict[str, Any]:
    try:
        loaded = read_plain(text)
    except PlainYamlError as error:
        raise ConfigError(f"{where} {error}") from error
    if not isinstance(loaded, dict | None):
        raise ConfigError(f"{where} is not a mapping of keys to values, like 'train: {{steps: 500}}'")
    return {str(key): value for key, value in (loaded or {}).items()}
