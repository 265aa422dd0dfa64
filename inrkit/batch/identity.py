"""What makes two jobs the same job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inrkit.config.layers import RENAMED
from inrkit.config.schema import WRITER_KEYS
from inrkit.errors import ConfigError
from inrkit.evaluation.metrics import default_metrics
from inrkit.files import require_file
from inrkit.signals.modality import MODALITIES

_IRRELEVANT = ("device", "checkpoint")
"""Keys of a config that change where a fit runs and how often it saves itself, but not its result beyond rounding."""

_UNSEEN = {"log": WRITER_KEYS}
"""Options of sections that change nothing of a fit's result either."""

_ADDED: dict[str, Any] = {
    "modality": {"mask": "", "alpha": "channel", "fill": False},
    "operator": {"clamp": False},
    "network": {"axis_factors": [], "window": []},
    "train": {"on_divergence": "stop", "deterministic": False, "capture": "never"},
    "selector": {"survival": "top"},
    "regions": {"values": 0, "first": 0.25},
    "transform": {"each_channel": False},
    "init": "",
    "init_skip": [],
    "frozen": [],
}
"""Keys, and options of slots, that came after a release, with what went without saying before: so the jobs of earlier
studies are known."""


def _as_before(key: str, value: Any) -> Any:
    """A key's value by the names that its options had, without those that came later where they change nothing."""
    if not isinstance(value, Mapping):
        return value
    added, before = _ADDED.get(key, {}), {new: old for old, new in RENAMED.get(key, {}).items()}
    value = {name: entry for name, entry in value.items() if name not in _UNSEEN.get(key, ())}
    return {before.get(name, name): entry for name, entry in value.items() if name not in added or entry != added[name]}


def identity(config: Mapping[str, Any], content: str, weights: str = "") -> str:
    """16 hexadecimal digits of the SHA-256 of a resolved config, its file's name and the file's content.

    The file's folder does not count, so that a study can be moved along with its files. The device and checkpoints do
    not count either.

    Args:
        config: every key, as `Config.to_dict` gives them.
        content: the file's `digest`.
        weights: that of the file of its weights, if it has one.
    """
    settings = {
        key: _as_before(key, value)
        for key, value in config.items()
        if key not in _IRRELEVANT and (key not in _ADDED or value != _ADDED[key])
    }
    if settings.get("init"):  # its folder does not count either
        settings["init"] = _weights_digest(Path(settings["init"]))
    settings["metrics"] = _metrics_as_before(config)
    path = settings.pop("data")["path"]
    told = [settings, Path(path).name, content, *([weights] if weights else [])]
    text = json.dumps(told, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _metrics_as_before(config: Mapping[str, Any]) -> list[str]:
    """The metrics of a config; where they are those that go without saying, without those that did not at first."""
    given = list(config["metrics"])
    try:
        before = list(MODALITIES.get(config["modality"]["name"]).metrics)
    except ConfigError:  # the fit will say what is wrong with the modality
        return given
    return before if given == default_metrics(before) else given


def _weights_digest(path: Path) -> str:
    """The digest of the field that a fit begins with, which another fit may have replaced meanwhile."""
    return digest(path / "field.safetensors" if path.is_dir() else path)


def digest(path: Path) -> str:
    """SHA-256 of a file's content, or of the names and contents of all files in a folder.

    A file that cannot be read has the digest "unreadable"; its fit will say what is wrong with it.
    """
    try:
        if not path.is_dir():
            return _digest(path)
        files = sorted(entry for entry in path.rglob("*") if entry.is_file())
        listed = json.dumps([[str(entry.relative_to(path)), _digest(entry)] for entry in files])
        return hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()
    except OSError:
        return "unreadable"


def _digest(path: Path) -> str:
    require_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
