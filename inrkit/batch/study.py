"""What a study is: axes, points and jobs.

An *axis* is a config key of the matrix with its values, or a group of named variants. A *point* has one value of each
axis. A point's config, resolved, is a *job*.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inrkit.batch.identity import digest, identity
from inrkit.batch.launchers.base import JobOptions
from inrkit.config import Choice, resolve
from inrkit.config.schema import DATA_PATHS, SLOTS
from inrkit.errors import ConfigError
from inrkit.files import missing
from inrkit.plugins.options import option
from inrkit.signals.modality import modality_of

PATH, SEED = "data.path", "seed"


@dataclass
class TuneOptions:
    key: str = dataclasses.field()
    """The config key to tune. Each group of jobs gets its own value."""
    values: list[Any] = dataclasses.field()
    """The values to try."""
    on: dict[str, Any] = dataclasses.field()
    """Axes and the values that stand for all of their values while tuning. An axis without a value uses its first.
    The axes that are not named here make the groups."""
    metric: str = option("psnr")
    """The metric that decides, by its mean over the tuning jobs of a group."""


@dataclass
class TableOptions:
    rows: str = option("")
    """The axis of the rows. By default a row is a combination of all axes that vary, except files and seeds."""
    columns: str = option("")
    """An axis whose values stand side by side."""
    metrics: list[str] = option([])
    """The metrics to show. By default those of the config, and the seconds of training."""
    at: list[int] = option([])
    """Steps at which the first metric is shown as well, read from metrics.jsonl."""
    published: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Published numbers to show below the measured ones: row → metric → number, or row → column → metric → number."""


@dataclass
class BatchOptions:
    together: int = option(1, at_least=1)
    """How many small fits of a kind a worker trains as one stacked computation. 1 trains them one by one."""


@dataclass(frozen=True)
class Value:
    """A value of an axis.

    Args:
        label: how results show it.
        raw: the value as the study file gives it.
        layers: the config layers that it stands for.
    """

    label: Any
    raw: Any
    layers: tuple[dict[str, Any], ...]


Point = dict[str, Value]
"""A value by axis."""


@dataclass(frozen=True)
class Job:
    """A fit of a study.

    Args:
        cell: the label of its value on every axis.
        phase: "main" or "tune".
        id: identity of the fit; "" while tuning has not chosen the job's value yet. Two jobs may share a fit.
        config: every key of the resolved config; None while there is no identity.
        error: why the job can never run.
    """

    cell: dict[str, Any]
    phase: str
    id: str = ""
    config: dict[str, Any] | None = None
    error: str | None = None

    @property
    def title(self) -> str:
        """The job in one line."""
        return "  ".join(
            str(label) if isinstance(label, str) else f"{axis}={label}"
            for axis, label in self.cell.items()
            if label != ""
        )

    @property
    def folder_name(self) -> str:
        """Name of the run's folder: readable words, then the identity."""
        words = [Path(label).stem if axis == PATH else _word(axis, label) for axis, label in self.cell.items()]
        readable = re.sub(r"[^\w.=]+", "-", "-".join(word for word in words if word)).strip("-.")
        readable = readable.encode()[:200].decode(errors="ignore")  # a name has 255 bytes at most
        return f"{readable}-{self.id}"


@dataclass(frozen=True)
class Study:
    """A study, as `read_study` reads it.

    Args:
        name: the stem of its file.
        path: its file; None for a shipped study.
        layers: config layers below those of every point. The first is the base.
        axes: values by axis.
        points: the points of the main jobs, in order.
        overrides: config layers above those of every point.
        tune: the section of the study file; None if nothing is tuned.
        tuned_on: the values that stand for all values of an axis while tuning, by axis.
        table, job, batch: the sections of the study file.
        launcher: the chosen launcher and its options.
        text: the study with its globs expanded, YAML.
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
        """Every axis, in the order of the study file. The tuned key is the last."""
        names = [name for point in self.points for name in point]
        return list(dict.fromkeys([*self.axes, *names, *([self.tune.key] if self.tune else [])]))

    def group(self, cell: Mapping[str, Any]) -> tuple[Any, ...]:
        """The group that a job with these labels is tuned with: its labels of the axes that make groups."""
        tuned = [] if self.tune is None else [self.tune.key]
        return tuple(cell.get(axis, "") for axis in self.columns if axis not in self.tuned_on and axis not in tuned)

    def tuning_jobs(self) -> list[Job]:
        """The jobs that find the tuned key's value for each group."""
        if self.tune is None:
            return []
        candidates = [self._tuned_value(value) for value in self.tune.values]
        points = [
            {**{axis: value for axis, value in point.items() if axis not in self.tuned_on}, **on, self.tune.key: tuned}
            for point, on, tuned in itertools.product(self.points, product(self.tuned_on), candidates)
        ]
        # Group by group: if the study is interrupted, the groups before are complete.
        jobs = _distinct(self._job(point, "tune") for point in points)
        order = {group: number for number, group in enumerate(dict.fromkeys(self.group(job.cell) for job in jobs))}
        return sorted(jobs, key=lambda job: order[self.group(job.cell)])

    def main_jobs(self, chosen: Mapping[tuple[Any, ...], Any] | None = None) -> list[Job]:
        """The jobs of the matrix.

        Args:
            chosen: the tuned key's value by group; a `ConfigError` for a group where no value can be chosen.
        """
        jobs = []
        for point in self.points:
            if self.tune is None:
                jobs.append(self._job(point, "main"))
                continue
            candidate = self._job({**point, self.tune.key: self._tuned_value(self.tune.values[0])}, "main").cell
            value = (chosen or {}).get(self.group(candidate))
            if value is None or isinstance(value, ConfigError):
                jobs.append(Job({**candidate, self.tune.key: ""}, "main", error=None if value is None else str(value)))
            else:
                jobs.append(self._job({**point, self.tune.key: self._tuned_value(value)}, "main"))
        return _distinct(jobs)

    def config_errors(self) -> list[str]:
        """All that is wrong with the configs of the jobs, a line each."""
        errors = []
        for point in self.points:
            for value in self.tune.values if self.tune else [None]:
                tuned = {self.tune.key: self._tuned_value(value)} if self.tune else {}
                for on in product(self.tuned_on):
                    try:
                        self._config({**point, **on, **tuned})
                        if self.tune is not None:
                            self._config({**point, **tuned})
                    except ConfigError as error:
                        errors += str(error).splitlines()
        return errors

    def _tuned_value(self, value: Any) -> Value:
        assert self.tune is not None
        return Value(value, value, (nested(self.tune.key, value),))

    def _job(self, point: Point, phase: str) -> Job:
        config = self._config(point)
        files = [Path(config["data"][key]) for key in DATA_PATHS if config["data"][key]]
        for path in files:
            if path not in self._digests:
                self._digests[path] = digest(path)
        cell = {axis: point[axis].label if axis in point else _label_in(config, axis) for axis in self.columns}
        return Job(cell, phase, identity(config, *(self._digests[path] for path in files)), config)

    def _config(self, point: Point) -> dict[str, Any]:
        """The resolved config of a point.

        A study may have thousands of files, whose configs differ in little but the file, and resolving takes long. So
        the same layers are resolved once for all files of a modality.

        Raises:
            ConfigError: the config is wrong, or its file does not exist.
        """
        # A base that is an axis goes below what is set for all jobs.
        based = [layer for axis, value in point.items() if axis == "base" for layer in value.layers]
        others = [layer for axis, value in point.items() if axis != "base" for layer in value.layers]
        layers = [*self.layers[:1], *based, *self.layers[1:], *others, *self.overrides]
        sections = [layer["data"] for layer in layers if isinstance(layer.get("data"), dict)]
        named = [section["path"] for section in sections if "path" in section]
        if not named:
            raise ConfigError("no job has a data.path; name the files, as in matrix: {data.path: [photos/*.png]}")
        if not isinstance(named[-1], str):
            raise ConfigError(f"data.path is {named[-1]}; name one file, or several in matrix: {{data.path: [a.png]}}")
        path = Path(os.path.abspath(named[-1]))  # noqa: PTH100, links in it may be why two files differ
        if not path.exists():
            raise ConfigError(f"data.path {missing(path)}")
        rest = [{**layer, "data": _without_path(layer["data"])} if "data" in layer else layer for layer in layers]
        if path not in self._modalities:
            self._modalities[path] = modality_of(path)
        key = json.dumps([rest, self._modalities[path]], default=str)
        if key not in self._resolved:
            self._resolved[key] = resolve([*layers, {"data": {"path": str(path)}}]).to_dict()
        return {**self._resolved[key], "data": {**self._resolved[key]["data"], "path": str(path)}}


def nested(key: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` for the key a.b."""
    inner = copy.deepcopy(value)
    for part in reversed(key.split(".")):
        inner = {part: inner}
    return inner


def product(axes: Mapping[str, list[Value]]) -> list[Point]:
    """Every combination of the values; the last axis varies fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def label_of(value: Any) -> Any:
    """How results show a value that a study file gives: a mapping as `name key=value`, a list as text."""
    if isinstance(value, dict):
        name = [str(value["name"])] if "name" in value else []
        return " ".join([*name, *(f"{key}={entry}" for key, entry in value.items() if key != "name")])
    return str(value) if isinstance(value, list) else value


def _label_in(config: Mapping[str, Any], axis: str) -> Any:
    """The label of a config's own value on an axis; "" if the axis is no key of the config."""
    value: Any = config
    for part in axis.split("."):
        if not isinstance(value, dict) or part not in value:
            return ""
        value = value[part]
    return value["name"] if axis in SLOTS else label_of(value)


def _word(axis: str, label: Any) -> str:
    """A label as part of a folder's name."""
    return label if isinstance(label, str) else f"{axis.rpartition('.')[2]}{label}"


def _without_path(data: Any) -> Any:
    return {key: value for key, value in data.items() if key != "path"} if isinstance(data, dict) else data


def _distinct(jobs: Iterable[Job]) -> list[Job]:
    """The jobs, each once."""
    return list({json.dumps([job.id, job.cell], default=str): job for job in jobs}.values())
