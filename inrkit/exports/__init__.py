"""Exports: a fitted field as a file that other programs can call."""

from __future__ import annotations

from pathlib import Path

from inrkit.errors import ConfigError
from inrkit.exports.base import EXPORTS, Export
from inrkit.files import require_place, written_whole
from inrkit.runs.field import Field
from inrkit.runs.run import Run, field_from, made_from

__all__ = ["EXPORTS", "Export", "export"]


def export(run: Field | Run | str | Path, path: str | Path, *, trust: bool = False) -> str:
    """Write a field as a file that other programs can call: `.html`, `.onnx`, `.pt2` or `.glsl`.

    Args:
        run: a field, a run, the folder of one, or a field.safetensors.
        path: the file to write; its suffix says as what.
        trust: whether a network may be named as `package.module:Name` and so imported.

    Returns:
        What was written, in a sentence.

    Raises:
        ConfigError: nothing is exported with that suffix, the field cannot be, or a package is missing.
        DataError: there is no field, or it is damaged.
        RunError: the file cannot be written.
    """
    path = Path(path)
    plugin = EXPORTS.find(path.suffix.lower().removeprefix("."))
    if plugin is None:
        able = ", ".join(f".{name}" for name in EXPORTS.names())
        raise ConfigError(
            f"{path} does not say what to export; its name must end in one of {able} (inrkit render writes pictures, "
            "sounds, meshes and others)"
        )
    require_place(path, *made_from(run))
    field = field_from(run, trust=trust)
    with written_whole(path) as aside:
        return plugin().write(field, aside, path)
