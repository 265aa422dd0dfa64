"""`read_study`: from a study file and the words of the command line to a validated study."""

from __future__ import annotations

import copy
import fnmatch
import glob
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from inrkit.batch.launchers.base import JobOptions, launcher_choice
from inrkit.batch.shipped import studies
from inrkit.batch.study import (
    PATH,
    BatchOptions,
    Point,
    Study,
    TableOptions,
    TuneOptions,
    Value,
    label_of,
    nested,
    product,
)
from inrkit.config import Choice, parse_overrides, presets, read_yaml
from inrkit.config.plain_yaml import write_plain
from inrkit.config.schema import DATA_PATHS
from inrkit.errors import ConfigError
from inrkit.files import expanded
from inrkit.plugins.options import nearest, parse

SECTIONS: dict[str, type] = {"tune": TuneOptions, "table": TableOptions, "job": JobOptions, "batch": BatchOptions}
_KEYS = ("extends", "base", "set", "matrix", "variants", "exclude", "include", "overrides", *SECTIONS, "launcher")


def read_study(target: str, words: Sequence[str] = (), out: Path | None = None) -> Study:
    """Read a study file, expand its matrix and validate everything that it asks for.

    Args:
        target: a YAML file, or the name of a shipped study. Paths are relative to the file's folder; those of a
            shipped study are relative to the current folder.
        words: `key=value`, which change what the file says. The key is an axis, whose values it replaces; a config
            key; or a key of tune, table, job, batch or launcher.
        out: folder of the results. Globs find no files in it.

    Raises:
        ConfigError: lists all that is wrong, a line each.
    """
    given, folder = _load(target)
    path = expanded(target) if _is_file(target) else None
    return _Reader(given, folder, words, out).study(expanded(target).stem, path)


def _load(target: str) -> tuple[dict[str, Any], Path]:
    """The content of a study file on top of the studies that it extends, and the folder of its paths."""
    given, folder = _load_one(target)
    seen, where = [target], folder
    while "extends" in given:
        below = str(given.pop("extends"))
        if below in seen:
            raise ConfigError(f"study '{below}' extends itself; remove its key extends")
        seen.append(below)
        lower, where = _load_one(str(where / below) if _is_file(below) else below)
        given = _merged(lower, given)
    return given, folder


def _load_one(target: str) -> tuple[dict[str, Any], Path]:
    """The content of one study file, and the folder that its paths are relative to."""
    path = expanded(target)
    if _is_file(target):
        if not path.exists():
            raise ConfigError(f"{path} does not exist; give a study file or one of: {', '.join(studies())}")
        return read_yaml(path), path.parent.resolve()
    if target in studies():
        with resources.as_file(resources.files("inrkit.configs") / "studies" / f"{target}.yaml") as shipped:
            return read_yaml(shipped), Path.cwd()
    raise ConfigError(f"study '{target}' is neither a YAML file nor a shipped study{nearest(target, studies())}")


def _is_file(target: str) -> bool:
    return expanded(target).suffix.lower() in (".yaml", ".yml")


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """One mapping over another, in depth; lists are replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


_MOST_POINTS = 200_000
"""Jobs of a study, at most."""
_MOST_ENTRIES = 1_000_000
"""Files and folders, at most, that a pattern with ** may look through."""


def _start(folder: Path, pattern: str) -> Path:
    """The folder where a pattern begins."""
    return folder.joinpath(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))


def _walks_far(start: Path) -> bool:
    """Whether there are more files and folders below a place than a pattern may look through."""
    count = 0
    for _, folders, files in os.walk(start, followlinks=True):  # as glob does
        count += len(folders) + len(files)
        if count > _MOST_ENTRIES:
            return True
    return False


def _lies_below(path: Path, start: Path) -> bool:
    """Whether a file is found below a folder without following a link to another, which may lead out or in a circle."""
    return not path.is_dir() and path.parent.resolve() == start.resolve() / path.parent.relative_to(start)


class _Reader:
    """Makes a study of a file's content and the words of the command line, and collects all that is wrong.

    Args:
        given: content of the study file; the reader changes it.
        folder: that paths are relative to.
        words: `key=value` of the command line.
        out: folder in which globs find no files.
    """

    def __init__(self, given: dict[str, Any], folder: Path, words: Sequence[str], out: Path | None) -> None:
        self.given = given
        tune = given.get("tune")
        if isinstance(tune, dict) and True in tune:
            tune["on"] = tune.pop(True)  # YAML 1.1 reads a bare `on` as true
        self.folder = folder
        self.out = None if out is None else out.resolve()
        self.words = words
        self.errors: list[str] = []
        self.wanted_variants: dict[str, list[Any]] = {}
        """Names of the variants to keep, by axis; of an axis that is not here, all are kept."""

    def study(self, name: str, path: Path | None) -> Study:
        """The study.

        Args:
            name: of the study.
            path: its file; None for a shipped study.
        """
        self.errors += [f"{key} is not a key of a study{nearest(key, _KEYS)}" for key in self.given if key not in _KEYS]
        for key in ("set", "matrix", "variants", "overrides", *SECTIONS):
            self._require_mapping(key)
        for word in self.words:
            self._apply_word(word)
        overrides = list(self._layers(self.given.get("overrides") or {}, "overrides"))
        layers = [*self._base(self.given.get("base")), *self._layers(self.given.get("set") or {}, "set")]
        axes = {key: self._values(key, value, "matrix") for key, value in (self.given.get("matrix") or {}).items()}
        axes |= self._variants(axes)
        self._require_few(axes, "matrix")
        points = [point for point in product(axes) if not self._is_excluded(point, axes)] if axes else [{}]
        for entry in self._entries("include"):
            included = {key: self._values_of_axis(key, value, axes, "include") for key, value in entry.items()}
            self._require_few(included, "include")
            points += product(included)
        sections = {key: self._section(key) for key in SECTIONS}
        tuned_on = self._tuned_on(sections["tune"], axes)
        self._check_table(sections["table"], axes, points)
        launcher = self._launcher()
        if not points and not self.errors:
            self.errors.append("exclude leaves no job; remove some of its entries")
        self._raise_errors()
        study = Study(
            name=name,
            path=path,
            layers=layers,
            axes=axes,
            points=points,
            overrides=overrides,
            tuned_on=tuned_on,
            launcher=launcher,
            text=self._text(axes),
            **sections,
        )
        self.errors += study.config_errors()
        self._raise_errors()
        return study

    def _require_few(self, axes: Mapping[str, Sequence[Value]], where: str) -> None:
        """Refuse a study that nobody can mean, before its jobs are listed."""
        count = math.prod(len(values) for values in axes.values())
        if count > _MOST_POINTS:
            lengths = " × ".join(f"{len(values):,} {key}" for key, values in axes.items())
            self.errors.append(
                f"{where} has {count:,} combinations, {lengths}; at most {_MOST_POINTS:,} make a study, so leave out "
                "some of its values"
            )
            self._raise_errors()

    def _raise_errors(self) -> None:
        if self.errors:
            raise ConfigError(*dict.fromkeys(self.errors))

    def _require_mapping(self, key: str) -> None:
        value = self.given.get(key)
        if value is None:
            self.given.pop(key, None)  # a section with nothing in it
        elif not isinstance(value, dict):
            self.errors.append(f"{key} is {value}; it must be a mapping of keys to values")
            self.given[key] = {}

    # Words of the command line

    def _apply_word(self, word: str) -> None:
        """Change what the study file says by a `key=value`."""
        key, _, raw = word.partition("=")
        value: Any = raw
        if key != PATH or not raw or raw.startswith("["):
            value = parse_overrides([word])
            for part in key.split("."):
                value = value[part]
        head, _, rest = key.partition(".")
        matrix = self.given.setdefault("matrix", {})
        if head in SECTIONS and rest:
            self.given.setdefault(head, {})[rest] = value
        elif head == "launcher":
            chosen = self.given.get("launcher")
            chosen = {"name": chosen} if isinstance(chosen, str) else chosen or {}
            self.given["launcher"] = {**chosen, rest: value} if rest else value
        elif key in (self.given.get("variants") or {}):
            self.wanted_variants[key] = _as_list(value)
        elif key == PATH:
            # Paths of the command line are relative to the current folder.
            patterns = _as_list(value)
            matrix[key] = [str(Path.cwd() / expanded(str(pattern))) for pattern in patterns]
            if self.folder == Path.cwd():
                matrix[key] = patterns
        elif isinstance(tune := self.given.get("tune"), dict) and key == tune.get("key"):
            tune["values"] = _as_list(value)
        elif key in matrix or (isinstance(value, list) and key != "metrics"):
            matrix[key] = value
        elif key == "base":
            self.given["base"] = value
        else:
            self.given["overrides"] = {**(self.given.get("overrides") or {}), key: value}

    # Config layers

    def _base(self, base: Any) -> list[dict[str, Any]]:
        """The base as exactly one layer, so that `Study.layers` begins with it."""
        if base is None:
            return [{}]
        if isinstance(base, str) and Path(base).suffix.lower() in (".yaml", ".yml"):
            try:
                return [read_yaml(self.folder / expanded(base))]
            except ConfigError as error:
                self.errors += str(error).splitlines()
                return [{}]
        return [{"base": base}]

    def _layers(self, mapping: Any, where: str) -> tuple[dict[str, Any], ...]:
        """The config layers of dotted or nested keys.

        Args:
            mapping: of config keys to values.
            where: key of the study under which it stands, for messages.
        """
        if not isinstance(mapping, dict):
            self.errors.append(f"{where} is {mapping}; it must be a mapping of config keys to values")
            return ()
        layers: list[dict[str, Any]] = []
        for key, value in mapping.items():
            if key == "base":
                layers += self._base(value)
                continue
            layer = nested(str(key), value)
            data = layer.get("data")
            for name in DATA_PATHS:
                if isinstance(data, dict) and isinstance(data.get(name), str) and (data[name] or name == "path"):
                    data[name] = str(self.folder / expanded(data[name]))
            if isinstance(layer.get("init"), str) and layer["init"]:
                layer["init"] = str(self.folder / expanded(layer["init"]))
            layers.append(layer)
        return tuple(layers)

    # Axes, their values, and the points that are left out

    def _values(self, key: str, given: Any, where: str) -> list[Value]:
        """The values that a config key is given under `where`."""
        given = _as_list(given)
        if not given:
            self.errors.append(f"{where}.{key} is empty; give at least one value")
        if key == PATH:
            return [value for pattern in given for value in self._files(str(pattern))]
        values = [Value(label_of(value), value, self._layers({key: value}, where)) for value in given]
        return list({str(value.label): value for value in values}.values())

    def _files(self, pattern: str) -> list[Value]:
        """The files that a path or a glob names."""
        wanted = str(expanded(pattern))
        if os.path.lexists(self.folder / wanted):
            found = [wanted]
        elif glob.has_magic(wanted):
            start = _start(self.folder, wanted)
            if "**" in wanted and _walks_far(start):
                self.errors.append(
                    f"data.path '{pattern}' looks through more than {_MOST_ENTRIES:,} files and folders; begin it with "
                    "the folder that holds the files"
                )
                return []
            found = sorted(glob.glob(wanted, root_dir=self.folder, recursive=True))  # noqa: PTH207, knows relative and absolute
            if "**" in wanted:
                found = [path for path in found if _lies_below(self.folder / path, start)]
            if self.out is not None:
                found = [path for path in found if not (self.folder / path).resolve().is_relative_to(self.out)]
            if not found:
                self.errors.append(f"data.path '{pattern}' matches no file in {self.folder}; check the pattern")
        else:
            self.errors.append(f"data.path '{pattern}' does not exist in {self.folder}; check the path")
            found = []
        return [Value(path, path, ({"data": {"path": str(self.folder / path)}},)) for path in found]

    def _variants(self, axes: Mapping[str, Any]) -> dict[str, list[Value]]:
        variants: dict[str, list[Value]] = {}
        for axis, named in (self.given.get("variants") or {}).items():
            where = f"variants.{axis}"
            if not isinstance(named, dict) or not named:
                self.errors.append(f"{where} is {named}; it must be a mapping of names to config keys")
                continue
            if axis in axes:
                self.errors.append(f"{where} is also a key of the matrix; give it another name")
            for name in self.wanted_variants.get(axis, []):
                if str(name) not in map(str, named):
                    self.errors.append(f"{axis} has no variant '{name}'{nearest(str(name), map(str, named))}")
            variants[axis] = [
                Value(str(name), str(name), self._layers(layer or {}, f"{where}.{name}"))
                for name, layer in named.items()
                if axis not in self.wanted_variants or str(name) in map(str, self.wanted_variants[axis])
            ]
        return variants

    def _entries(self, key: str) -> list[dict[str, Any]]:
        """The entries of `exclude` or `include`."""
        entries = self.given.get(key) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self.errors.append(f"{key} is {entries}; it must be a list of mappings of axes to values")
            return []
        return entries

    def _values_of_axis(self, key: str, given: Any, axes: Mapping[str, list[Value]], where: str) -> list[Value]:
        """The values that `include` or `tune.on` gives to an axis: names of variants, or values of a config key."""
        if key not in (self.given.get("variants") or {}):
            return self._values(key, given, where)
        known = {value.label: value for value in axes.get(key, [])}
        names = [str(name) for name in _as_list(given)]
        for name in names:
            if name not in known:
                self.errors.append(f"{key} has no variant '{name}'{nearest(name, known)}")
        return [known[name] for name in names if name in known]

    def _is_excluded(self, point: Point, axes: Mapping[str, Any]) -> bool:
        for entry in self._entries("exclude"):
            unknown = [key for key in entry if key not in axes]
            if unknown:
                self.errors.append(f"exclude names '{unknown[0]}', which is not an axis{nearest(unknown[0], axes)}")
            elif entry and all(_matches(key, wanted, point[key]) for key, wanted in entry.items()):
                return True
        return False

    # Sections

    def _section(self, key: str) -> Any:
        given = self.given.get(key)
        if given is None and key == "tune":
            return None
        texts = {"on", "published"}
        given = {name: _with_text_keys(value) if name in texts else value for name, value in (given or {}).items()}
        section, wrong = parse(SECTIONS[key], given, key)
        self.errors += wrong
        return section

    def _tuned_on(self, tune: TuneOptions | None, axes: Mapping[str, list[Value]]) -> dict[str, list[Value]]:
        """The values that stand for all values of an axis while tuning: those given, or else its first."""
        if tune is None:
            return {}
        tuned_on = {
            key: axes[key][:1] if value is None and key in axes else self._values_of_axis(key, value, axes, "tune.on")
            for key, value in tune.on.items()
        }
        if not tune.values:
            self.errors.append("tune.values is empty; give the values to try")
        if tune.key in (self.given.get("overrides") or {}):
            self.errors.append(f"overrides sets {tune.key}, which is to be tuned; remove it there")
        if tune.key in axes:
            self.errors.append(f"tune.key is '{tune.key}', which is an axis of the study already; choose another key")
        return tuned_on

    def _check_table(self, table: TableOptions | None, axes: Mapping[str, Any], points: list[Point]) -> None:
        if table is None:  # its errors are noted already
            return
        known = [*axes, *(key for point in points for key in point)]
        for place, axis in (("rows", table.rows), ("columns", table.columns)):
            if axis and axis not in known:
                self.errors.append(f"table.{place} is '{axis}', which is not an axis{nearest(axis, known)}")

    def _launcher(self) -> Choice:
        given = self.given.get("launcher") or {}
        given = {"name": given} if isinstance(given, str) else given
        if not isinstance(given, dict):
            self.errors.append(f"launcher is {given}; it must be a name, or a mapping with a name and options")
            given = {}
        try:
            choice, wrong = launcher_choice(given)
        except ConfigError as error:
            self.errors.append(str(error))
            return Choice(str(given.get("name")), object, None)
        self.errors += wrong
        return choice

    def _text(self, axes: Mapping[str, list[Value]]) -> str:
        """The study as YAML, with its globs expanded and the words of the command line applied."""
        resolved = {key: copy.deepcopy(self.given[key]) for key in _KEYS if self.given.get(key)}
        if "matrix" in resolved:
            resolved["matrix"] = {key: [value.raw for value in axes[key]] for key in self.given["matrix"]}
        base = resolved.get("base")
        if isinstance(base, str) and base not in presets():
            resolved["base"] = str(self.folder / expanded(base))
        named = [resolved.get("matrix"), *resolved.get("include", []), (resolved.get("tune") or {}).get("on")]
        for mapping in filter(None, named):
            if mapping.get(PATH) is not None:
                mapping[PATH] = [str(self.folder / expanded(pattern)) for pattern in _as_list(mapping[PATH])]
        return write_plain(resolved, sort_keys=False, width=120)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _with_text_keys(value: Any) -> Any:
    return {str(key): _with_text_keys(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def _matches(key: str, wanted: Any, value: Value) -> bool:
    """Whether an entry of `exclude` means this value: by itself, its label, its plug-in's name, or a glob of files."""
    if isinstance(wanted, list):
        return any(_matches(key, each, value) for each in wanted)
    if key == PATH:
        return fnmatch.fnmatch(value.label, str(wanted)) or value.label == str(wanted)
    name = value.raw.get("name") if isinstance(value.raw, dict) else value.raw
    return wanted in (value.raw, value.label, name)
