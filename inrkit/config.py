"""Configuration: presets, YAML files and `key=value`, merged in this order and validated as a whole.

A *slot* is a key whose value chooses a plug-in and sets its options: `selector: {name: evos, ratio: 0.2}`, or
`selector: evos` for short. Choosing another plug-in in a later layer keeps the earlier options that it declares
too, and drops the others and those that the new one calls its own.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from inrkit.embeddings import EMBEDDINGS
from inrkit.errors import ConfigError
from inrkit.files import expanded
from inrkit.learning_rates import SCHEDULES
from inrkit.metrics import METRICS
from inrkit.modality import MODALITIES, modality_of
from inrkit.networks import NETWORKS
from inrkit.objectives import OBJECTIVES
from inrkit.operators import OPERATORS
from inrkit.optimizers import OPTIMIZERS
from inrkit.options import docstrings, field_names, nearest, option, parse, shared_names
from inrkit.registry import Registry
from inrkit.selectors import SELECTORS
from inrkit.transforms import TRANSFORMS


@dataclass
class DataOptions:
    path: str = dataclasses.field(default=dataclasses.MISSING)  # type: ignore[assignment]
    """The signal's file. In a config file, relative to that file's folder."""


@dataclass
class TrainOptions:
    steps: int = option(1000, at_least=1, at_most=10**9)
    """Optimizer steps: T."""
    seconds: float = option(0.0, at_least=0)
    """Seconds of training, evaluation aside, after which it ends whatever `steps` says, with schedules that follow the
    clock; 0 counts steps."""
    chunk: int = option(0, at_least=0)
    """Coordinates that pass through the network at a time; 0 chooses for the device."""
    precision: str = option("auto", choices=("auto", "float32", "bfloat16"))
    """Of the products of hidden matrices; coordinates, sums and parameters are float32 always. `auto` is bfloat16
    where the processor multiplies it natively."""
    compile: str = option("auto", choices=("auto", "always", "never"))
    """Compile the network for training: it takes a C++ compiler, and up to half a minute when a network is met first.
    `auto` does so on a CPU where the steps are known to be work enough to win that back."""


@dataclass
class LogOptions:
    every: int = option(100, at_least=1)
    """Steps between evaluations, each a row of metrics.jsonl."""
    sample: int = option(1 << 24, at_least=1 << 16)
    """Most coordinates of an evaluation; crops of as many, spread at random and always the same, stand for a larger
    signal."""
    reconstruction: int = option(1 << 28, at_least=0)
    """Coordinates of the largest signal whose reconstruction is written at the end; `inrkit render` writes any."""


@dataclass
class CheckpointOptions:
    seconds: float = option(60.0, at_least=0)
    """Seconds between checkpoints; one is also written at the end and when the run is interrupted."""


@dataclass
class GeneralOptions:
    metrics: list[str] = option([])
    """Metrics of an evaluation, by name."""
    seed: int = option(0, at_least=0, at_most=2**63 - 1)
    """Of everything random."""
    device: str = option("auto")
    """`cpu`, `cuda`, `cuda:1`, or `auto` for a GPU when there is one."""


SECTIONS: dict[str, type] = {
    "data": DataOptions,
    "train": TrainOptions,
    "log": LogOptions,
    "checkpoint": CheckpointOptions,
}

SLOTS: dict[str, Registry[Any]] = {
    "modality": MODALITIES,
    "transform": TRANSFORMS,
    "operator": OPERATORS,
    "embedding": EMBEDDINGS,
    "network": NETWORKS,
    "selector": SELECTORS,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}

_DEFAULT_NAMES = {
    "transform": "minmax",
    "network": "siren",
    "selector": "evos",
    "objective": "mse",
    "optimizer": "adam",
    "schedule": "constant",
}

_TOP = [*SLOTS, *SECTIONS, *field_names(GeneralOptions)]


@dataclass(frozen=True)
class Choice:
    """A chosen plug-in: its name, its class and its validated options."""

    name: str
    plugin: type
    options: Any


@dataclass(frozen=True)
class Config:
    """A whole request, validated."""

    modality: Choice
    transform: Choice
    operator: Choice
    embedding: Choice
    network: Choice
    selector: Choice
    objective: Choice
    optimizer: Choice
    schedule: Choice
    data: DataOptions
    train: TrainOptions
    log: LogOptions
    checkpoint: CheckpointOptions
    general: GeneralOptions

    def to_dict(self) -> dict[str, Any]:
        """Every key with its value, in plain containers."""
        result: dict[str, Any] = {}
        for name in SLOTS:
            choice: Choice = getattr(self, name)
            result[name] = {"name": choice.name, **dataclasses.asdict(choice.options)}
        for name in SECTIONS:
            result[name] = dataclasses.asdict(getattr(self, name))
        return {**result, **dataclasses.asdict(self.general)}

    def to_yaml(self) -> str:
        """Every key with its value, each below the comment that says what it does."""
        return commented_yaml(self.to_dict())


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
    return _parse_yaml(_preset_text(name), f"preset '{name}'")


def preset_comment(name: str) -> str:
    """What a shipped preset says of itself: the first sentence of the comment it begins with."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), _preset_text(name).splitlines())
    return " ".join(line.lstrip("# ") for line in comment).partition(". ")[0]


def _preset_text(name: str) -> str:
    return (resources.files("inrkit.configs") / f"{name}.yaml").read_text(encoding="utf-8")


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys that a config file sets, with `data.path` made absolute.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; give a config file or a shipped config's name") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8; give a config file in YAML") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}; give a config file in YAML") from error
    layer = _parse_yaml(text, str(path))
    data = layer.get("data")
    if isinstance(data, dict) and isinstance(data.get("path"), str):
        data["path"] = str(path.parent.resolve() / expanded(data["path"]))
    return layer


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """The keys that `key=value` words set; dots nest, values are YAML.

    Raises:
        ConfigError: a word has no `=` or its value is no YAML.
    """
    bad = [word for word in overrides if "=" not in word or word.startswith("=")]
    if bad:
        raise ConfigError(f"'{bad[0]}' is not of the form key=value, like selector.ratio=0.2")
    layer: dict[str, Any] = {}
    for word in overrides:
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([word]), resolve=True)
        except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"'{word}' has no value that YAML can read: {_first_line(error)}") from error
        layer = merge(layer, _normalised(parsed))  # type: ignore[arg-type]
    return layer


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`: sections key by key, slots as the module's docstring says.

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
        result[key] = {**old, **copy.deepcopy(value)}
    return result


def compose(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge layers, the last on top, above the preset that they name as `base` or else their modality's own.

    Raises:
        ConfigError: neither a base nor a modality is named, and the data's suffix names none.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, _normalised(layer))
    base = merged.pop("base", None)
    if base is None:
        chosen = merged.get("modality")
        name = chosen.get("name") if isinstance(chosen, dict) else None
        data = merged.get("data")
        path = data.get("path") if isinstance(data, dict) else None
        if name is None and isinstance(path, str):
            name = modality_of(Path(path))
            if name is not None:
                merged = merge(merged, {"modality": {"name": name}})
        if name is None:
            nameless = (
                f"no modality is named{f' and {path} has no suffix that tells it' if path else ''}; "
                f"choose one with modality={'|'.join(MODALITIES.names())}"
            )
            if not isinstance(data, dict | None):
                nameless = f"data is {data}; it must be a mapping: path"
            raise ConfigError("\n".join([*_unknown_keys(merged), nameless]))
        base = name if name in presets() else None
    below = _normalised(read_preset(base)) if base is not None else {}
    return merge(below, merged)


def resolve(layers: Sequence[Mapping[str, Any]]) -> Config:
    """Compose layers and validate the result, recursively.

    Raises:
        ConfigError: lists all that is wrong.
    """
    merged = compose(layers)
    errors = _unknown_keys(merged)
    parts: dict[str, Any] = {}

    modality: Any = None
    for slot, registry in SLOTS.items():
        given = merged.get(slot) or {}
        if not isinstance(given, dict):
            errors.append(f"{slot} is {given}; it must be a name, or a mapping with a name and options")
            continue
        if slot in ("operator", "embedding") and modality is not None:
            given = merge(_normalised({slot: getattr(modality, slot)}), {slot: given})[slot]
        name = given.get("name", _DEFAULT_NAMES.get(slot))
        if name is None:
            if slot == "modality":
                errors.append(f"modality is missing; choose one of: {', '.join(registry.names())}")
            continue
        try:
            plugin = registry.get(str(name))
        except ConfigError as error:
            errors.append(str(error))
            continue
        options = {key: value for key, value in given.items() if key != "name"}
        instance, wrong = parse(plugin.Options, options, slot)
        errors += wrong
        if slot == "modality" and instance is not None:
            modality = plugin(instance)
        parts[slot] = Choice(str(name), plugin, instance)

    for section, options_class in SECTIONS.items():
        given = merged.get(section) or {}
        if not isinstance(given, dict):
            errors.append(f"{section} is {given}; it must be a mapping: {', '.join(field_names(options_class))}")
            continue
        parts[section], wrong = parse(options_class, given, section)
        errors += wrong
    general = {key: merged[key] for key in field_names(GeneralOptions) if key in merged}
    if modality is not None:
        general.setdefault("metrics", list(modality.metrics))
    parts["general"], wrong = parse(GeneralOptions, general, "")
    errors += wrong
    if parts["general"] is not None:
        for name in parts["general"].metrics:
            try:
                METRICS.get(name)
            except ConfigError as error:
                errors.append(str(error))
    if "objective" in parts and "selector" in parts:
        errors += _objective_errors(parts["objective"], parts["selector"])
        if "optimizer" in parts:
            errors += _optimizer_errors(parts["optimizer"], parts["objective"], parts["selector"])
    if errors:
        raise ConfigError("\n".join(errors))
    return Config(**parts)


def _unknown_keys(merged: Mapping[str, Any]) -> list[str]:
    return [f"{key} is not an option{_place(str(key), merged)}" for key in merged if key not in _TOP]


def _place(key: str, merged: Mapping[str, Any]) -> str:
    """Where a key belongs that stands at the top by mistake, or what it may have been meant to be."""
    for section, options in SECTIONS.items():
        if key in field_names(options):
            return f"; did you mean '{section}.{key}'?"
    for slot in ("selector", "network", "optimizer", "objective", "schedule", "modality", "transform"):
        chosen = merged.get(slot)
        name = chosen.get("name") if isinstance(chosen, dict) else None
        if key in _declared(slot, name or _DEFAULT_NAMES.get(slot)):
            return f"; did you mean '{slot}.{key}'?"
    return nearest(key, _TOP)


def _objective_errors(objective: Choice, selector: Choice) -> list[str]:
    if not objective.plugin.needs_visits or selector.plugin.visits_all:  # type: ignore[attr-defined]
        return []
    return [
        f"objective is '{objective.name}', which needs a selector that visits all coordinates at times, like evos "
        f"or full, and selector is '{selector.name}'; choose objective=mse or another selector"
    ]


def _optimizer_errors(optimizer: Choice, objective: Choice, selector: Choice) -> list[str]:
    if not optimizer.plugin.reevaluates:  # type: ignore[attr-defined]
        return []
    errors = []
    if not selector.plugin.stands_still:  # type: ignore[attr-defined]
        errors.append(
            f"optimizer is '{optimizer.name}', which compares the losses of steps, and selector '{selector.name}' "
            "selects other coordinates at each; choose selector=full or another optimizer"
        )
    if objective.plugin.links:  # type: ignore[attr-defined]
        errors.append(
            f"optimizer is '{optimizer.name}', which compares losses, and the value of objective '{objective.name}' "
            "is not known; choose objective=mse or another optimizer"
        )
    return errors


def commented_yaml(config: Mapping[str, Any]) -> str:
    """A composed config as YAML, every key below the comment that says what it does."""
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
        return SLOTS[key].get(value["name"]).Options
    return None


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).strip()
    return text.removesuffix("...").strip()


def _shared(slot: str, name: Any) -> set[str]:
    try:
        return shared_names(SLOTS[slot].get(str(name)).Options)
    except ConfigError:
        return set()  # the name is reported when the whole is validated


def _declared(slot: str, name: Any) -> set[str]:
    try:
        return field_names(SLOTS[slot].get(str(name)).Options)
    except ConfigError:
        return set()  # the name is reported when the whole is validated


def _normalised(layer: Mapping[str, Any]) -> dict[str, Any]:
    """A slot given as a name alone becomes a mapping."""
    return {
        str(key): {"name": value} if key in SLOTS and isinstance(value, str) else value for key, value in layer.items()
    }


def _parse_yaml(text: str, where: str) -> dict[str, Any]:
    shape = f"{where} is not a mapping of keys to values, like 'train: {{steps: 500}}'"
    try:
        loaded = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    except AssertionError as error:  # how OmegaConf says that it met a bare number
        raise ConfigError(shape) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where} is not YAML{line}: {getattr(error, 'problem', error)}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {_first_line(error)}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(shape)
    return {str(key): value for key, value in loaded.items()}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
