"""From layers to a config that is validated as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inrkit.config.layers import merge, normalised, presets, read_preset
from inrkit.config.schema import SECTIONS, SLOTS, TOP_KEYS, Choice, Config, GeneralOptions
from inrkit.errors import ConfigError
from inrkit.evaluation.metrics import METRICS, default_metrics
from inrkit.networks import Tiles
from inrkit.plugins.options import field_names, nearest, parse
from inrkit.signals.modality import MODALITIES, modality_of


def compose(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge layers, the last on top, over the preset that they name as `base`, or else the modality's own.

    Raises:
        ConfigError: neither a base nor a modality is named, and the data's suffix names none.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, normalised(layer))
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
            lacking = ", nor a signal that would tell it (data.path, or its file first)"
            if path:
                lacking = f" and {path} has no suffix that tells it"
            nameless = f"no modality is named{lacking}; choose one with modality={'|'.join(MODALITIES.names())}"
            if not isinstance(data, dict | None):
                nameless = f"data is {data}; it must be a mapping: path"
            raise ConfigError(*_unknown_keys(merged), nameless)
        base = name if name in presets() else None
    base = None if base is None else _for_network(str(base), merged.get("network"))
    below = normalised(read_preset(base)) if base is not None else {}
    return merge(below, merged)


def resolve(layers: Sequence[Mapping[str, Any]]) -> Config:
    """Compose layers and validate the result, recursively.

    Raises:
        ConfigError: lists everything that is wrong.
    """
    merged = compose(layers)
    errors = _unknown_keys(merged)
    choices: dict[str, Choice] = {}
    parts: dict[str, Any] = {}

    modality: Any = None
    for slot, kind in SLOTS.items():
        given = merged.get(slot) or {}
        if not isinstance(given, dict):
            errors.append(f"{slot} is {given}; it must be a name, or a mapping with a name and options")
            continue
        if slot in ("operator", "embedding") and modality is not None:
            given = merge(normalised({slot: getattr(modality, slot)}), {slot: given})[slot]
        name = given.get("name", kind.default)
        if name is None:
            if slot == "modality" or "name" in given:
                errors.append(f"{slot} has no name; choose one of: {', '.join(kind.registry.names())}")
            continue
        try:
            plugin = kind.registry.get(str(name))
        except ConfigError as error:
            errors.append(str(error))
            continue
        options = {key: value for key, value in given.items() if key != "name"}
        instance, wrong = parse(plugin.Options, options, slot)
        errors += wrong
        if slot == "modality" and instance is not None:
            modality = plugin(instance)
        choices[slot] = Choice(str(name), plugin, instance)

    for section, options_class in SECTIONS.items():
        given = merged.get(section) or {}
        if not isinstance(given, dict):
            keys = ", ".join(sorted(field_names(options_class)))
            errors.append(f"{section} is {given}; it must be a mapping: {keys}")
            continue
        parts[section], wrong = parse(options_class, given, section, elsewhere=lambda key: _home(key, merged))
        errors += wrong
    general = {key: merged[key] for key in field_names(GeneralOptions) if key in merged}
    if modality is not None:
        general.setdefault("metrics", default_metrics(modality.metrics))
    parts["general"], wrong = parse(GeneralOptions, general, "")
    errors += wrong
    if parts["general"] is not None:
        for name in parts["general"].metrics:
            try:
                METRICS.get(name)
            except ConfigError as error:
                errors.append(str(error))
    if "objective" in choices and "selector" in choices:
        errors += _objective_errors(choices["objective"], choices["selector"])
        if "optimizer" in choices:
            errors += _optimizer_errors(choices["optimizer"], choices["objective"], choices["selector"])
    if errors:
        raise ConfigError(*errors)
    return Config(choices, **parts)


def _for_network(base: str, given: Any) -> str:
    """The preset for the network that the layers ask for. A recipe for tiles suits no single network: where another
    network is named, or an option given that only the network of `<base>-single` has, that preset takes its place."""
    single = f"{base}-single"
    if single not in presets() or not isinstance(given, dict):
        return base
    if "name" in given:
        return base if given["name"] == "tiles" else single
    own = _declared("network", read_preset(single)["network"]["name"]) - field_names(Tiles.Options)
    return single if own & set(given) else base


def _unknown_keys(merged: Mapping[str, Any]) -> list[str]:
    return [f"{key} is not an option{_place(str(key), merged)}" for key in merged if key not in TOP_KEYS]


def _place(key: str, merged: Mapping[str, Any]) -> str:
    """A hint for an unknown key at the top: the section or slot where it belongs, or the nearest known key."""
    return _home(key, merged) or nearest(key, TOP_KEYS)


def _home(key: str, merged: Mapping[str, Any]) -> str:
    """A hint for a key that stands where it does not belong: the section or the chosen plug-in that has it, if any."""
    found = key_of(key, merged)
    return f"; did you mean '{found}'?" if found else ""


def key_of(name: str, merged: Mapping[str, Any] | None = None) -> str:
    """The config's key that ends in `name`: of the top, of a section, or of a chosen plug-in; "" if there is none.

    Args:
        name: the last part of a key.
        merged: layers that choose plug-ins; else these are the defaults.
    """
    if merged is None and name in TOP_KEYS:
        return name
    for section, options in SECTIONS.items():
        if name in field_names(options):
            return f"{section}.{name}"
    for slot in SLOTS:
        chosen = (merged or {}).get(slot)
        plugin = chosen.get("name") if isinstance(chosen, dict) else None
        if name in _declared(slot, plugin or SLOTS[slot].default):
            return f"{slot}.{name}"
    return ""


def _objective_errors(objective: Choice, selector: Choice) -> list[str]:
    if not objective.plugin.needs_visits or selector.plugin.visits_all:
        return []
    return [
        f"objective is '{objective.name}', which needs a selector that visits all coordinates at some steps, like evos "
        f"or full, but selector is '{selector.name}'; choose objective=mse or another selector"
    ]


def _optimizer_errors(optimizer: Choice, objective: Choice, selector: Choice) -> list[str]:
    if not optimizer.plugin.reevaluates:
        return []
    errors = []
    if not selector.plugin.selects_the_same:
        errors.append(
            f"optimizer is '{optimizer.name}', which compares losses of different steps, but selector "
            f"'{selector.name}' selects new coordinates at each step; choose selector=full or another optimizer"
        )
    if objective.plugin.links:
        errors.append(
            f"optimizer is '{optimizer.name}', which compares losses, but of objective '{objective.name}' only the "
            "gradient is known; choose objective=mse or another optimizer"
        )
    return errors


def _declared(slot: str, name: Any) -> set[str]:
    try:
        return field_names(SLOTS[slot].registry.get(str(name)).Options)
    except ConfigError:
        return set()  # the name is reported when the whole is validated
