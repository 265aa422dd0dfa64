"""YAML from anyone, read into plain containers: bounded in size, and without calls of any kind.

The rules are OmegaConf's: 1e-3 is a number, dates are text, a key stands once in a mapping, and `${train.steps}` in a
file stands for the value of another key of it. Unlike there, a reference is all that `${…}` may be. It calls no
resolver, so a stranger's file learns nothing of the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

MOST_CHARACTERS = 1 << 22
"""Of a file; studies that list all their files by name have the largest."""
_MOST_VALUES = 1 << 18
"""Of a file once aliases, merges and references are replaced by what they stand for."""
_DEEPEST = 64
_LONGEST_NUMBER = 1000
"""Characters of a number; the largest float takes 309."""

_REFERENCE = re.compile(r"(\\*)\$\{([^{}]*)\}?")
_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
        |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)


class PlainYamlError(ValueError):
    """A text is not such YAML; says why in a few words."""


def read_plain(text: str, references: bool = True) -> Any:
    """The content of a YAML text in dicts, lists, texts, numbers, booleans and None.

    Args:
        text: in YAML.
        references: whether `${key}` stands for the value of another key; else it is text.

    Raises:
        PlainYamlError: it is not YAML, or something in it is none of these, too deep or too much.
    """
    if len(text) > MOST_CHARACTERS:
        raise PlainYamlError(f"is longer than {MOST_CHARACTERS:,} characters")
    try:
        loaded = yaml.load(text, Loader=_Loader)
        return _Plain(loaded, references).whole()
    except RecursionError as error:
        raise PlainYamlError("is nested too deep") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise PlainYamlError(f"is not YAML{line}: {getattr(error, 'problem', None) or error}") from error
    except ValueError as error:
        if isinstance(error, PlainYamlError):
            raise
        raise PlainYamlError(f"is not YAML: {error}") from error


def write_plain(value: Any, **style: Any) -> str:
    """The value as YAML that `read_plain` reads back as it is; no text in it becomes a reference or a number.

    Args:
        value: plain containers.
        style: further arguments of `yaml.dump`.
    """
    return yaml.dump(_without_references(value), Dumper=_Dumper, allow_unicode=True, **style)


def _without_references(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", value)
    if isinstance(value, Mapping):
        return {key: _without_references(entry) for key, entry in value.items()}
    return [_without_references(entry) for entry in value] if isinstance(value, list | tuple) else value


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's loader of plain data, where merges are bounded and no key stands twice in a mapping."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._seen: set[yaml.Node] = set()
        self._entries = self._depth = 0

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        self._depth += 1
        if self._depth > 2 * _DEEPEST:  # the library's parser in C would overflow the stack
            raise PlainYamlError("is nested too deep")
        super().descend_resolver(current_node, current_index)

    def ascend_resolver(self) -> None:
        self._depth -= 1
        super().ascend_resolver()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if node not in self._seen:
            self._seen.add(node)
            _require_single_keys(node)
        super().flatten_mapping(node)
        self._entries += len(node.value)  # a mapping that is merged often counts as often
        if self._entries > _MOST_VALUES:
            raise PlainYamlError("merges too much")

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """A number, of a length that Python can read in no time."""
        if len(node.value) > _LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value):,} characters", node.start_mark
            )
        if node.tag == "tag:yaml.org,2002:int":
            return self.construct_yaml_int(node)
        return self.construct_yaml_float(node)


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer of plain data, which puts marks around texts that `_Loader` would take for a number, and escapes
    line breaks of every alphabet."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = None if text.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)


def _require_single_keys(node: yaml.MappingNode) -> None:
    keys = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if (key.tag, key.value) in keys:
                raise yaml.constructor.ConstructorError(None, None, f"found duplicate key {key.value}", key.start_mark)
            keys.add((key.tag, key.value))


class _Plain:
    """Copies what the loader gives, with references replaced.

    Args:
        root: of the file.
        references: whether there are any.
    """

    def __init__(self, root: Any, references: bool) -> None:
        self._root = root
        self._references = references
        self._left = _MOST_VALUES
        self._characters = 4 * MOST_CHARACTERS

    def whole(self) -> Any:
        return self._copied(self._root, (), 0)

    def _copied(self, value: Any, place: tuple[Any, ...], depth: int) -> Any:
        """A value of the file that stands at `place`, inside so many values or references."""
        self._left -= 1
        if self._left < 0 or self._characters < 0:
            raise PlainYamlError("holds too much once its aliases and references are replaced")
        if depth > _DEEPEST:
            raise PlainYamlError(f"is nested deeper than {_DEEPEST} levels, or refers to itself")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str | int | float):
                    raise PlainYamlError(f"has a key that is neither text nor a number: {key!r:.40}")
            return {key: self._copied(entry, (*place, key), depth + 1) for key, entry in value.items()}
        if isinstance(value, list):
            return [self._copied(entry, (*place, index), depth + 1) for index, entry in enumerate(value)]
        if isinstance(value, str):
            self._characters -= len(value)
            return self._filled(value, place, depth) if self._references and "${" in value else value
        if value is None or isinstance(value, bool | int | float):
            return value
        raise PlainYamlError(f"holds a value that is neither text nor a number: {value!r:.40}")

    def _filled(self, text: str, place: tuple[Any, ...], depth: int) -> Any:
        """A text with its references replaced; the value itself, if a reference is the whole text."""
        whole = _REFERENCE.fullmatch(text)
        if whole and not whole[1]:
            return self._referred(whole, place, depth)

        def replaced(match: re.Match[str]) -> str:
            kept = match[1][: len(match[1]) // 2]
            if len(match[1]) % 2:
                return kept + match[0][len(match[1]) :]  # \\${ is the text ${
            value = self._referred(match, place, depth)
            if isinstance(value, dict | list):
                raise PlainYamlError(f"has {match[0]} inside a text, and that is no text or number")
            return kept + str(value)

        filled = _REFERENCE.sub(replaced, text)
        self._characters -= len(filled)
        return filled

    def _referred(self, match: re.Match[str], place: tuple[Any, ...], depth: int) -> Any:
        """What a reference stands for: a key of the file, or of the section that as many dots as levels lead up to."""
        name = match[2].strip()
        if not match[0].endswith("}") or ":" in name:
            raise PlainYamlError(
                f"has {match[0]:.60}; in a file ${{…}} names another of its keys, like ${{train.steps}}, and "
                "\\${ is the text ${"
            )
        path = name.lstrip(".")
        dots = len(name) - len(path)
        start = place[: len(place) - dots] if dots else ()
        value, found = self._root, (*start, *(part for part in re.split(r"[.\[\]]+", path) if part))
        reached: list[Any] = []
        for part in found:
            key: Any = part
            if isinstance(value, list):
                key = int(part) if str(part).isdecimal() and len(str(part)) < 10 else -1
                if not 0 <= key < len(value):
                    raise PlainYamlError(f"has {match[0]:.60}, and no such key")
            elif not isinstance(value, dict) or key not in value:
                raise PlainYamlError(f"has {match[0]:.60}, and no such key")
            value = value[key]
            reached.append(key)
            if isinstance(value, str) and self._references and len(reached) < len(found) and "${" in value:
                value = self._copied(value, tuple(reached), depth + 1)
        return self._copied(value, tuple(reached), depth + 1)
