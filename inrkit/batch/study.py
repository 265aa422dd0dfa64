"""The study file: a matrix over files and config keys, named variants, and what to make of the results.

An *axis* is a config key of the matrix, with its values, or a group of named variants. A *point* is one value of every
axis: with it, a config is resolved and becomes a job.
"""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import functools
import glob
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from inrkit.batch.identity import digest, identity
from inrkit.batch.launchers.base import LAUNCHERS, BatchOptions, JobOptions
from inrkit.config import Choice, parse_overrides, presets, read_yaml, resolve
from inrkit.config.schema import SLOTS
from inrkit.errors import ConfigError
from inrkit.files import expanded
from inrkit.plugins.options import nearest, option, parse
from inrkit.signals.modality import modality_of

PATH, SEED = "data.path", "seed"


@dataclass
class TuneOptions:
    key: str = dataclasses.field()
    """The config key to choose for each group of jobs."""
    values: list[Any] = dataclasses.field()
    """What it may be."""
    on: dict[str, Any] = dataclasses.field()
    """Values of some axes, which stand for all of them, or nothing for an axis's first value: jobs that differ in the
    other axes are groups of their own."""
    metric: str = option("psnr")
    """The metric that decides, by its mean over the tuning jobs of a group."""


@dataclass
class TableOptions:
    rows: str = option("")
    """The axis of the rows; by default all that vary, but for the files and seeds."""
    columns: str = option("")
    """An axis whose values stand side by side."""
    metrics: list[str] = option([])
    """What is measured in each; by default the metrics of the config, and seconds."""
    at: list[int] = option([])
    """Steps at which the first metric is read off metrics.jsonl too, besides at the end."""
    published: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Row → metric → number, or row → column → metric → number, shown beside what was measured."""


_SECTIONS: dict[str, type] = {"tune": TuneOptions, "table": TableOptions, "job": JobOptions, "batch": BatchOptions}
_KEYS = ("extends", "base", "set", "matrix", "variants", "exclude", "include", "overrides", *_SECTIONS, "launcher")


@dataclass(frozen=True)
class Value:
    """A value of an axis.

    Args:
        label: as results show it.
        raw: as the study file gives it.
        layers: the config layers that it stands for.
    """

    label: Any
    raw: Any
    layers: tuple[dict[str, Any], ...]


Point = dict[str, Value]


@dataclass(frozen=True)
class Job:
    """A fit of a study.

    Args:
        cell: the label of every axis.
        phase: "main" or "tune".
        id: identity of the fit, "" while the value that a tuning will choose is not known. Two jobs may share a fit.
        config: every key of the resolved config; None likewise.
        error: why the job can never be run.
    """

    cell: dict[str, Any]
    phase: str
    id: str = ""
    config: dict[str, Any] | None = None
    error: str | None = None

    @property
    def title(self) -> str:
        """What the job is, in a line."""
        return "  ".join(
            str(label) if isinstance(label, str) else f"{axis}={label}"
            for axis, label in self.cell.items()
            if label != ""
        )

    @property
    def folder_name(self) -> str:
        """Of the run: something to read, and the identity."""
        words = [Path(label).stem if axis == PATH else _word(axis, label) for axis, label in self.cell.items()]
        readable = re.sub(r"[^\w.=]+", "-", "-".join(word for word in words if word)).strip("-.")
        readable = readable.encode()[:200].decode(errors="ignore")  # a name has 255 bytes at most
        return f"{readable}-{self.id}"


@dataclass(frozen=True)
class Study:
    """A validated study.

    Args:
        name: the stem of its file.
        path: its file; None for a shipped study.
        layers: config layers below every point's.
        axes: values by axis.
        points: the main jobs', in order.
        overrides: config layers above every point's.
        tune, table, job, batch, launcher: as the study file gives them, validated.
        text: the study as resolved, YAML.
    """

    name: str
    path: Path | None
    layers: list[dict[str, Any]]
    axes: dict[str, list[Value]]
    points: list[Point]
    overrides: list[dict[str, Any]]
    tune: TuneOptions | None
    tuned_on: dict[str, list[Value]]
    table: TableOptions
    job: JobOptions
    batch: BatchOptions
    launcher: Choice
    text: str
    _digests: dict[Path, str] = dataclasses.field(default_factory=dict)
    _modalities: dict[Path, str | None] = dataclasses.field(default_factory=dict)
    _resolved: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def columns(self) -> list[str]:
        """Every axis, in the order of the study file, the tuned key last."""
        names = [name for point in self.points for name in point]
        return list(dict.fromkeys([*self.axes, *names, *([self.tune.key] if self.tune else [])]))

    def group(self, cell: Mapping[str, Any]) -> tuple[Any, ...]:
        """The labels that make a group of jobs, which is tuned together."""
        tuned = [] if self.tune is None else [self.tune.key]
        return tuple(cell.get(axis, "") for axis in self.columns if axis not in self.tuned_on and axis not in tuned)

    def tuning_jobs(self) -> list[Job]:
        """The jobs that choose the tuned key's value for each group."""
        if self.tune is None:
            return []
        candidates = [self._tuned(value) for value in self.tune.values]
        points = [
            {**{axis: value for axis, value in point.items() if axis not in self.tuned_on}, **on, self.tune.key: tuned}
            for point, on, tuned in itertools.product(self.points, _product(self.tuned_on), candidates)
        ]
        # By group, so that one that is interrupted leaves whole groups.
        jobs = _distinct(self._job(point, "tune") for point in points)
        order = {group: number for number, group in enumerate(dict.fromkeys(self.group(job.cell) for job in jobs))}
        return sorted(jobs, key=lambda job: order[self.group(job.cell)])

    def main_jobs(self, chosen: Mapping[tuple[Any, ...], Any] | None = None) -> list[Job]:
        """The jobs of the matrix.

        Args:
            chosen: the tuned key's value by group; a `ConfigError` where no value can be chosen.
        """
        jobs = []
        for point in self.points:
            if self.tune is None:
                jobs.append(self._job(point, "main"))
                continue
            candidate = self._job({**point, self.tune.key: self._tuned(self.tune.values[0])}, "main").cell
            value = (chosen or {}).get(self.group(candidate))
            if value is None or isinstance(value, ConfigError):
                jobs.append(Job({**candidate, self.tune.key: ""}, "main", error=None if value is None else str(value)))
            else:
                jobs.append(self._job({**point, self.tune.key: self._tuned(value)}, "main"))
        return _distinct(jobs)

    def _tuned(self, value: Any) -> Value:
        assert self.tune is not None
        return Value(value, value, (_nested(self.tune.key, value),))

    def _job(self, point: Point, phase: str) -> Job:
        config = self._resolve(point)
        path = Path(config["data"]["path"])
        if path not in self._digests:
            self._digests[path] = digest(path)
        cell = {axis: point[axis].label if axis in point else _told(config, axis) for axis in self.columns}
        return Job(cell, phase, identity(config, self._digests[path]), config)

    def _resolve(self, point: Point) -> dict[str, Any]:
        """The config of a point.

        Resolving takes long for thousands of files, and they differ in little but their names: a config is resolved
        once for all files of a modality.

        Raises:
            ConfigError: it is wrong, or names no file that exists.
        """
        # A base that is an axis goes below what is set for all.
        based = [layer for axis, value in point.items() if axis == "base" for layer in value.layers]
        others = [layer for axis, value in point.items() if axis != "base" for layer in value.layers]
        layers = [*self.layers[:1], *based, *self.layers[1:], *others, *self.overrides]
        named = [layer["data"]["path"] for layer in layers if "path" in (layer.get("data") or {})]
        if not named:
            raise ConfigError("no job has a data.path; name the files, as in matrix: {data.path: [photos/*.png]}")
        path = Path(os.path.abspath(named[-1]))  # noqa: PTH100, links in it may be why two files differ
        if not path.exists():
            raise ConfigError(f"data.path {path} does not exist; check the path")
        rest = [{**layer, "data": _without_path(layer["data"])} if "data" in layer else layer for layer in layers]
        if path not in self._modalities:
            self._modalities[path] = modality_of(path)
        key = json.dumps([rest, self._modalities[path]], default=str)
        if key not in self._resolved:
            self._resolved[key] = resolve([*layers, {"data": {"path": str(path)}}]).to_dict()
        return {**self._resolved[key], "data": {**self._resolved[key]["data"], "path": str(path)}}


def studies() -> list[str]:
    """Names of the shipped studies, sorted."""
    folder = resources.files("inrkit.configs") / "studies"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def study_text(name: str) -> str:
    """The file of a shipped study."""
    return (resources.files("inrkit.configs") / "studies" / f"{name}.yaml").read_text(encoding="utf-8")


def study_comment(name: str) -> str:
    """What a shipped study says of itself: the first sentence of the comment it begins with."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), study_text(name).splitlines())
    return " ".join(line.lstrip("# ") for line in comment).partition(". ")[0]


def read_study(target: str, words: Sequence[str] = (), out: Path | None = None) -> Study:
    """Read a study file, expand it and validate everything that it asks for.

    Args:
        target: a YAML file, or the name of a shipped study. Paths are relative to the file's folder, or to the
            present one if the study is a shipped one.
        words: `key=value` on top: of an axis, its values; otherwise a config key, or a key of tune, table, job or
            launcher.
        out: folder of the results, in which no file of the study is looked for.

    Raises:
        ConfigError: lists all that is wrong, a line each.
    """
    given, folder = _given(target)
    seen, where = [target], folder
    while "extends" in given:
        below = str(given.pop("extends"))
        if below in seen:
            raise ConfigError(f"study '{below}' extends itself; remove its key extends")
        seen.append(below)
        lower, where = _given(str(where / below) if _is_file(below) else below)
        given = _over(lower, given)
    return _Reader(given, folder, words, out).study(
        expanded(target).stem, expanded(target) if _is_file(target) else None
    )


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """One mapping over another, in depth; lists are replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _is_file(target: str) -> bool:
    return expanded(target).suffix.lower() in (".yaml", ".yml")


def _given(target: str) -> tuple[dict[str, Any], Path]:
    """What a study's file says, and the folder that its paths are relative to."""
    path = expanded(target)
    if _is_file(target):
        if not path.exists():
            raise ConfigError(f"{path} does not exist; give a study file or one of: {', '.join(studies())}")
        return read_yaml(path), path.parent.resolve()
    if target in studies():
        with resources.as_file(resources.files("inrkit.configs") / "studies" / f"{target}.yaml") as shipped:
            return read_yaml(shipped), Path.cwd()
    raise ConfigError(f"study '{target}' is neither a YAML file nor a shipped study{nearest(target, studies())}")


class _Reader:
    """Makes a study of what its file and the command line say, and collects what is wrong with them."""

    def __init__(self, given: dict[str, Any], folder: Path, words: Sequence[str], out: Path | None) -> None:
        self.given = given
        tune = given.get("tune")
        if isinstance(tune, dict) and True in tune:
            tune["on"] = tune.pop(True)  # YAML 1.1 takes a bare `on` for true
        self.folder = folder
        self.out = None if out is None else out.resolve()
        self.words = words
        self.errors: list[str] = []
        self.kept: dict[str, Any] = {}  # of variants, which the command line names

    def study(self, name: str, path: Path | None) -> Study:
        self.errors += [f"{key} is not a key of a study{nearest(key, _KEYS)}" for key in self.given if key not in _KEYS]
        for key in ("set", "matrix", "variants", "overrides", *_SECTIONS):
            self._mapping(key)
        for word in self.words:
            self._override(word)
        overrides = list(self._layers(self.given.get("overrides") or {}, "overrides"))
        layers = [*self._base(self.given.get("base")), *self._layers(self.given.get("set") or {}, "set")]
        axes = {key: self._values(key, value, "matrix") for key, value in (self.given.get("matrix") or {}).items()}
        axes |= self._variants(axes)
        points = [point for point in _product(axes) if not self._excluded(point, axes)] if axes else [{}]
        for entry in self._entries("include"):
            points += _product({key: self._included(key, value, axes) for key, value in entry.items()})
        sections = {key: self._section(key) for key in _SECTIONS}
        tune, table = sections["tune"], sections["table"]
        tuned_on: dict[str, list[Value]] = {}
        if tune is not None:
            tuned_on = {key: self._stand_in(key, value, axes) for key, value in tune.on.items()}
            if not tune.values:
                self.errors.append("tune.values is empty; give the values to try")
            if tune.key in (self.given.get("overrides") or {}):
                self.errors.append(f"overrides sets {tune.key}, which is to be tuned; remove it there")
            if tune.key in axes:
                self.errors.append(
                    f"tune.key is '{tune.key}', which is an axis of the study already; choose another key"
                )
        if table is not None:
            known = [*axes, *(key for point in points for key in point)]
            for place, axis in (("rows", table.rows), ("columns", table.columns)):
                if axis and axis not in known:
                    self.errors.append(f"table.{place} is '{axis}', which is not an axis{nearest(axis, known)}")
        launcher = self._launcher()
        if not points and not self.errors:
            self.errors.append("exclude leaves no job; remove some of its entries")
        if self.errors:
            raise ConfigError("\n".join(dict.fromkeys(self.errors)))
        study = Study(
            name,
            path,
            layers,
            axes,
            points,
            overrides,
            tune,
            tuned_on,
            table,
            sections["job"],
            sections["batch"],
            launcher,
            self._text(axes),
        )
        for point in points:
            for tuned in tune.values if tune else [None]:
                for on in _product(tuned_on):
                    asked = {**point, **on}
                    try:
                        study._resolve(asked if tune is None else {**asked, tune.key: study._tuned(tuned)})
                        if tune is not None:
                            study._resolve({**point, tune.key: study._tuned(tuned)})
                    except ConfigError as error:
                        self.errors += str(error).splitlines()
        if self.errors:
            raise ConfigError("\n".join(dict.fromkeys(self.errors)))
        return study

    def _mapping(self, key: str) -> None:
        value = self.given.get(key)
        if value is None:
            self.given.pop(key, None)  # a section with nothing in it
        elif not isinstance(value, dict):
            self.errors.append(f"{key} is {value}; it must be a mapping of keys to values")
            self.given[key] = {}

    def _override(self, word: str) -> None:
        key, _, raw = word.partition("=")
        value: Any = raw
        if key != PATH or not raw or raw.startswith("["):
            value = parse_overrides([word])
            for part in key.split("."):
                value = value[part]
        head, _, rest = key.partition(".")
        matrix = self.given.setdefault("matrix", {})
        if head in _SECTIONS and rest:
            self.given.setdefault(head, {})[rest] = value
        elif head == "launcher":
            chosen = self.given.get("launcher")
            chosen = {"name": chosen} if isinstance(chosen, str) else chosen or {}
            self.given["launcher"] = {**chosen, rest: value} if rest else value
        elif key in (self.given.get("variants") or {}):
            self.kept[key] = value if isinstance(value, list) else [value]
        elif key == PATH:
            patterns = value if isinstance(value, list) else [value]
            matrix[key] = [str(Path.cwd() / expanded(str(pattern))) for pattern in patterns]
            if self.folder == Path.cwd():
                matrix[key] = patterns
        elif isinstance(tune := self.given.get("tune"), dict) and key == tune.get("key"):
            tune["values"] = value if isinstance(value, list) else [value]
        elif key in matrix or (isinstance(value, list) and key != "metrics"):
            matrix[key] = value
        elif key == "base":
            self.given["base"] = value
        else:
            self.given["overrides"] = {**(self.given.get("overrides") or {}), key: value}

    def _base(self, base: Any) -> list[dict[str, Any]]:
        """One layer, so that what the study sets goes above it."""
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
        """The config layers that dotted or nested keys stand for."""
        if not isinstance(mapping, dict):
            self.errors.append(f"{where} is {mapping}; it must be a mapping of config keys to values")
            return ()
        layers: list[dict[str, Any]] = []
        for key, value in mapping.items():
            if key == "base":
                layers += self._base(value)
                continue
            layer = _nested(str(key), value)
            data = layer.get("data")
            if isinstance(data, dict) and isinstance(data.get("path"), str):
                data["path"] = str(self.folder / expanded(data["path"]))
            layers.append(layer)
        return tuple(layers)

    def _values(self, key: str, given: Any, where: str) -> list[Value]:
        """The values of a key of the config."""
        given = given if isinstance(given, list) else [given]
        if not given:
            self.errors.append(f"{where}.{key} is empty; give at least one value")
        if key == PATH:
            return [value for pattern in given for value in self._files(str(pattern))]
        values = [Value(_label(value), value, self._layers({key: value}, where)) for value in given]
        return list({str(value.label): value for value in values}.values())

    def _files(self, pattern: str) -> list[Value]:
        """The files that a path or a glob names."""
        wanted = str(expanded(pattern))
        if os.path.lexists(self.folder / wanted):
            found = [wanted]
        elif glob.has_magic(wanted):
            found = sorted(glob.glob(wanted, root_dir=self.folder, recursive=True))  # noqa: PTH207, knows relative and absolute
            if "**" in wanted:
                found = [path for path in found if not (self.folder / path).is_dir()]
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
            for name in self.kept.get(axis, []):
                if str(name) not in map(str, named):
                    self.errors.append(f"{axis} has no variant '{name}'{nearest(str(name), map(str, named))}")
            variants[axis] = [
                Value(str(name), str(name), self._layers(layer or {}, f"{where}.{name}"))
                for name, layer in named.items()
                if axis not in self.kept or str(name) in map(str, self.kept[axis])
            ]
        return variants

    def _entries(self, key: str) -> list[dict[str, Any]]:
        entries = self.given.get(key) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self.errors.append(f"{key} is {entries}; it must be a list of mappings of axes to values")
            return []
        return entries

    def _included(self, key: str, given: Any, axes: Mapping[str, list[Value]]) -> list[Value]:
        """The values that `include` or `tune.on` gives to an axis; a variant is named, anything else is a config's."""
        if key not in (self.given.get("variants") or {}):
            return self._values(key, given, "include")
        known = {value.label: value for value in axes.get(key, [])}
        names = [str(name) for name in (given if isinstance(given, list) else [given])]
        for name in names:
            if name not in known:
                self.errors.append(f"{key} has no variant '{name}'{nearest(name, known)}")
        return [known[name] for name in names if name in known]

    def _stand_in(self, key: str, given: Any, axes: Mapping[str, list[Value]]) -> list[Value]:
        """The values that stand for all of an axis in tuning: those given, or else its first one."""
        return axes[key][:1] if given is None and key in axes else self._included(key, given, axes)

    def _excluded(self, point: Point, axes: Mapping[str, Any]) -> bool:
        for entry in self._entries("exclude"):
            unknown = [key for key in entry if key not in axes]
            if unknown:
                self.errors.append(f"exclude names '{unknown[0]}', which is not an axis{nearest(unknown[0], axes)}")
            elif entry and all(_matches(key, wanted, point[key]) for key, wanted in entry.items()):
                return True
        return False

    def _section(self, key: str) -> Any:
        given = self.given.get(key)
        if given is None and key == "tune":
            return None
        texts = {"on", "published"}
        given = {name: _text_keys(value) if name in texts else value for name, value in (given or {}).items()}
        section, wrong = parse(_SECTIONS[key], given, key)
        self.errors += wrong
        return section

    def _launcher(self) -> Choice:
        given = self.given.get("launcher") or {}
        given = {"name": given} if isinstance(given, str) else given
        if not isinstance(given, dict):
            self.errors.append(f"launcher is {given}; it must be a name, or a mapping with a name and options")
            given = {}
        name = str(given.get("name", "local"))
        try:
            plugin: Any = LAUNCHERS.get(name)
        except ConfigError as error:
            self.errors.append(str(error))
            return Choice(name, object, None)
        options, wrong = parse(plugin.Options, {k: v for k, v in given.items() if k != "name"}, "launcher")
        self.errors += wrong
        return Choice(name, plugin, options)

    def _text(self, axes: Mapping[str, list[Value]]) -> str:
        """The study with its globs expanded and what the command line changed."""
        resolved = {key: copy.deepcopy(self.given[key]) for key in _KEYS if self.given.get(key)}
        if "matrix" in resolved:
            resolved["matrix"] = {key: [value.raw for value in axes[key]] for key in self.given["matrix"]}
        base = resolved.get("base")
        if isinstance(base, str) and base not in presets():
            resolved["base"] = str(self.folder / expanded(base))
        named = [resolved.get("matrix"), *resolved.get("include", []), (resolved.get("tune") or {}).get("on")]
        for mapping in filter(None, named):
            if mapping.get(PATH) is not None:
                patterns = mapping[PATH] if isinstance(mapping[PATH], list) else [mapping[PATH]]
                mapping[PATH] = [str(self.folder / expanded(pattern)) for pattern in patterns]
        return yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True, width=120)


def _nested(key: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` for a.b."""
    nested = copy.deepcopy(value)
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested


def _without_path(data: Any) -> Any:
    return {key: value for key, value in data.items() if key != "path"} if isinstance(data, dict) else data


def _text_keys(value: Any) -> Any:
    return {str(key): _text_keys(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def _product(axes: Mapping[str, list[Value]]) -> list[Point]:
    """Every combination, the last axis the fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _distinct(jobs: Iterable[Job]) -> list[Job]:
    """The jobs without those that an earlier one equals."""
    return list({json.dumps([job.id, job.cell], default=str): job for job in jobs}.values())


def _label(value: Any) -> Any:
    if isinstance(value, dict):
        name = [str(value["name"])] if "name" in value else []
        return " ".join([*name, *(f"{key}={entry}" for key, entry in value.items() if key != "name")])
    return str(value) if isinstance(value, list) else value


def _word(axis: str, label: Any) -> str:
    """A label in the name of a folder."""
    return label if isinstance(label, str) else f"{axis.rpartition('.')[2]}{label}"


def _told(config: Mapping[str, Any], axis: str) -> Any:
    """The label of an axis that a point leaves to the config; "" for variants."""
    value: Any = config
    for part in axis.split("."):
        if not isinstance(value, dict) or part not in value:
            return ""
        value = value[part]
    return value["name"] if axis in SLOTS else _label(value)


def _matches(key: str, wanted: Any, value: Value) -> bool:
    """Whether an entry of `exclude` means a value: by itself, its label, its plug-in's name, or a glob of files."""
    if isinstance(wanted, list):
        return any(_matches(key, each, value) for each in wanted)
    if key == PATH:
        return fnmatch.fnmatch(value.label, str(wanted)) or value.label == str(wanted)
    name = value.raw.get("name") if isinstance(value.raw, dict) else value.raw
    return wanted in (value.raw, value.label, name)
