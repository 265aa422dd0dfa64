"""The weights of a study's runs as one data set: which runs, whether they are alike, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from inrkit.config import read_yaml
from inrkit.errors import ConfigError, DataError
from inrkit.files import from_json, require_place
from inrkit.runs.field import read_field
from inrkit.runs.run import Run
from inrkit.runs.weights import SUFFIXES, Layout, write_weights

_OF_A_JOB = ("id", "status", "phase", "seconds", "steps", "error", "folder")
"""Columns of results.jsonl that are neither axes nor metrics."""
_ABSENT = object()


@dataclass(frozen=True)
class Packed:
    """What `pack` has written.

    Args:
        runs: how many.
        weights: of each.
        left_out: runs that are not done.
    """

    runs: int
    weights: int
    left_out: int


def pack(sources: str | Path | Sequence[str | Path], path: str | Path) -> Packed:
    """Write the weights of many runs of one network to a file, a row each, which `inrkit.Weights` reads.

    Args:
        sources: folders of studies, of runs, or that runs are in. A study gives its main jobs that are done.
        path: the file to write: .safetensors, or .parquet for programs that read tables.

    Raises:
        ConfigError: the runs are not of one network with the same shapes, or the request is wrong.
        DataError: there is no run that is done, or one is damaged.
        RunError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path} does not say what to write; its name must end in {' or '.join(SUFFIXES)}")
    require_place(path)
    if path.name == "field.safetensors":
        raise ConfigError(f"{path} is the name of a run's own field; choose another, such as weights.safetensors")
    given = [sources] if isinstance(sources, str | Path) else sources
    found: dict[Path, dict[str, Any]] = {}
    left_out = 0
    for source in given:
        runs, missing = _runs_of(Path(source))
        found |= runs
        left_out += missing
    if not found:
        raise DataError(f"{', '.join(map(str, given))}: no run is done; nothing to pack")
    gathered = _Gathered()
    for folder, axes in found.items():
        gathered.add(folder, axes)
    write_weights(path, gathered.layout, gathered.weights(), gathered.infos(), gathered.common())
    return Packed(len(found), gathered.layout.length, left_out)


def _runs_of(source: Path) -> tuple[dict[Path, dict[str, Any]], int]:
    """The runs that are done in a folder, with their axes, and how many are not.

    Raises:
        ConfigError, DataError: it holds none, or is itself a run that is not done.
    """
    if not source.is_dir():
        raise ConfigError(f"{source} is not a folder; give the folder of a study or of a run")
    if Run(source).exists:
        if not _is_done(source):
            raise DataError(f"{source} is not done; go on with inrkit fit {source} --resume, or leave it out")
        return {source: {}}, 0
    if (source / "results.jsonl").exists():
        return _jobs_of(source)
    folders = sorted(path for path in source.iterdir() if path.is_dir() and Run(path).exists)
    if not folders:
        raise ConfigError(f"{source} holds no runs; give the folder of a study, which inrkit batch makes, or of a run")
    done: dict[Path, dict[str, Any]] = {folder: {} for folder in folders if _is_done(folder)}
    return done, len(folders) - len(done)


def _jobs_of(study: Path) -> tuple[dict[Path, dict[str, Any]], int]:
    """The runs of a study's main jobs that are done, with their axes, and how many jobs are not."""
    path = study / "results.jsonl"
    done: dict[Path, dict[str, Any]] = {}
    missing = 0
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read; run the study again, which writes it anew") from error
    for number, line in enumerate(lines, 1):
        try:
            row = from_json(line)
            if row["phase"] != "main":
                continue
            if row["status"] != "done":
                missing += 1
                continue
            folder = study / row["folder"]
            axes = {name: value for name, value in row.items() if name not in _OF_A_JOB}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is damaged at line {number}; run the study again, which writes it anew") from error
        # Two jobs may share a fit; it is packed once.
        done.setdefault(folder, axes)
    return done, missing


def _is_done(folder: Path) -> bool:
    return Run(folder).result.get("status") == "done"


class _Gathered:
    """What is known of the runs, without their weights, so that any number of them fits into memory."""

    layout: Layout

    def __init__(self) -> None:
        self._folders: list[Path] = []
        self._said: list[dict[str, Any]] = []
        self._configs, self._fields = _Common(), _Common()

    def add(self, folder: Path, axes: Mapping[str, Any]) -> None:
        """Note a run.

        Raises:
            ConfigError: its network is not that of the first run.
            DataError: it is damaged.
        """
        run = Run(folder)
        result, metrics = run.result, run.metrics
        description, weights = read_field(folder)
        try:
            layout = Layout.of(weights)
        except ValueError as error:
            raise DataError(f"{folder} cannot be packed: it has {error}") from error
        if not self._folders:
            self.layout = layout
        difference = _difference(self._fields.first, description) or _other_shape(self.layout, layout)
        if difference:
            raise ConfigError(
                f"{folder} cannot be packed with {self._folders[0]}: {difference}; a data set is of one network, so "
                "pack the others by themselves"
            )
        config = _flat(read_yaml(folder / "config.yaml"))
        seconds = result.get("seconds")
        self._folders.append(folder)
        self._said.append(
            {
                "run": folder.absolute().name,
                "signal": config.get("data.path"),
                "seed": config.get("seed"),
                "steps": result.get("steps"),
                "seconds": seconds.get("train") if isinstance(seconds, dict) else None,
                "metrics": metrics,
                "axes": {name: value for name, value in axes.items() if name not in metrics},
            }
        )
        self._configs.add(config)
        self._fields.add(description)

    def infos(self) -> list[dict[str, Any]]:
        """What is known of each run."""
        own = zip(self._said, self._configs.own(), self._fields.own(), strict=True)
        return [{**said, "config": config, "field": field} for said, config, field in own]

    def common(self) -> dict[str, Any]:
        """What is the same for all runs."""
        return {"config": self._configs.shared, "field": self._fields.shared}

    def weights(self) -> Iterator[dict[str, Tensor]]:
        """The weights of each run, read when their turn comes.

        Raises:
            DataError: a run has changed since it was noted.
        """
        for folder in self._folders:
            _, weights = read_field(folder)
            if Layout.of(weights) != self.layout:
                raise DataError(f"{folder} has changed meanwhile; pack again")
            yield weights


class _Common:
    """What mappings have in common, and what each has of its own. Of each only what differs from the first is kept."""

    def __init__(self) -> None:
        self.first: dict[str, Any] = {}
        self._changes: list[dict[str, Any]] = []
        self._varying: dict[str, None] = {}

    def add(self, mapping: Mapping[str, Any]) -> None:
        if not self._changes:
            self.first = dict(mapping)
        names = dict.fromkeys([*self.first, *mapping])
        changed = {
            name: mapping.get(name, _ABSENT)
            for name in names
            if mapping.get(name, _ABSENT) != self.first.get(name, _ABSENT)
        }
        self._changes.append(changed)
        self._varying |= dict.fromkeys(changed)

    @property
    def shared(self) -> dict[str, Any]:
        """What all have."""
        return {name: value for name, value in self.first.items() if name not in self._varying}

    def own(self) -> Iterator[dict[str, Any]]:
        """The rest of each."""
        for changed in self._changes:
            values = {name: changed.get(name, self.first.get(name, _ABSENT)) for name in self._varying}
            yield {name: value for name, value in values.items() if value is not _ABSENT}


def _flat(layer: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested mappings."""
    flat: dict[str, Any] = {}
    for name, value in layer.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _difference(first: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """What makes the networks of two fields' descriptions others; None if they are the same.

    Real numbers may differ: an ω may come from each signal's spectrum.
    """
    for slot in ("network", "embedding"):
        one, two = (_flat({slot: described.get(slot)}) for described in (first or other, other))
        for name in dict.fromkeys([*one, *two]):
            values = one.get(name), two.get(name)
            if values[0] != values[1] and not all(isinstance(value, float) for value in values):
                return f"its {name.replace('.options.', '.')} is {values[1]}, not {values[0]}"
    return None


def _other_shape(first: Layout, other: Layout) -> str | None:
    """The first tensor whose shape is another; None if all are the same."""
    if first == other:
        return None
    names: Iterable[str] = dict.fromkeys([*first.shapes, *other.shapes])
    for name in names:
        if first.shapes.get(name) != other.shapes.get(name):
            return f"its weights {name} are {_by(other.shapes.get(name))}, not {_by(first.shapes.get(name))}"
    return "its weights are of other types"


def _by(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "×".join(map(str, shape)) or "one number"
