"""Whether two folders hold the same, but for times: what a killed fit has left, and what an undisturbed one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch
import yaml

_OF_THE_WAY = ("seconds", "elapsed", "first", "unscheduled", "workers")
"""Entries that may differ between two runs of one fit: times, which evaluation an interruption brought about, and how
many processes were at work in the end."""
_SHOWN = {"report.html", "trace.npz", "film.gif", "curves.png"}
"""Files that tell of the way to the result: of times, and of what the last process saw of the training."""
_LOG = "log.txt"
"""What processes said; jobs that train together have one log."""


def differences(whole: Path, other: Path) -> list[str]:
    """In what a folder's files differ from those of an undisturbed fit."""
    names = [{path.relative_to(folder) for path in folder.rglob("*") if path.name != _LOG} for folder in (whole, other)]
    found = [f"{name} is missing" for name in sorted(names[0] - names[1])]
    found += [f"{name} is left" for name in sorted(names[1] - names[0])]
    for name in sorted(name for name in names[0] & names[1] if name.name not in _SHOWN):
        if (whole / name).is_file() and _content(whole / name) != _content(other / name):
            found.append(f"{name} differs")
    return found


def _content(path: Path) -> Any:
    """What a file says, without times."""
    if path.suffix == ".pt":
        return _timeless(torch.load(path, weights_only=True))
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        return [_timeless(row) for row in csv.DictReader(path.read_text().splitlines())]
    if path.name == "study.yaml":
        return _timeless(yaml.safe_load(path.read_text()))
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    """Nested plain containers without the entries of times, tensors as their bits."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: _timeless(entry) for key, entry in value.items() if key not in _OF_THE_WAY}
    if isinstance(value, list | tuple):
        return [_timeless(entry) for entry in value]
    return value
