"""From what a user asked for to a config and the run that it goes to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inrkit.config import Config, parse_overrides, presets, read_yaml, resolve
from inrkit.config.schema import SECTIONS, SLOTS, GeneralOptions
from inrkit.errors import ConfigError, DataError
from inrkit.files import expanded
from inrkit.plugins.options import field_names, nearest
from inrkit.runs.execute import execute
from inrkit.runs.run import Run, default_folder
from inrkit.signals.modality import MODALITIES, known_suffixes, modality_of
from inrkit.training.listener import Listener


def fit(
    target: str | Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
    quiet: bool = True,
    listeners: Sequence[Listener] = (),
    **options: Any,
) -> Run:
    """Fit an INR to a signal and leave a run's folder behind.

    Args:
        target: a signal's file; or a config file, a preset's name, or, with `resume`, a run's folder.
        out: the run's folder; `runs/<name of the signal>` if not given.
        resume: continue the run in `out`, or in `target`, from its checkpoint.
        overrides: `key=value` words, as on the command line.
        quiet: print nothing.
        listeners: who else hears of the training.
        options: config keys: a slot's name or mapping (`selector="evos"`, `network={"hidden_features": 128}`), a
            section's mapping (`train={"steps": 500}`), or any key of a section by itself (`steps=500`).

    Returns:
        The run; its `result["status"]` is "done" or "interrupted".

    Raises:
        ConfigError: the request is wrong; nothing was written.
        DataError: the signal cannot be used; nothing was written.
        RunError: the run failed; what it had written stays.
    """
    config, run = prepare(target, out=out, resume=resume, layers=[parse_overrides(overrides), _layer(options)])
    return execute(config, run, resume=resume, quiet=quiet, listeners=listeners)


def prepare(
    target: str | Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    layers: Sequence[Mapping[str, Any]] = (),
) -> tuple[Config, Run]:
    """Find out what is asked for, and where it goes.

    Returns:
        The validated config and the run to be made or resumed.

    Raises:
        ConfigError, DataError: as `fit`.
    """
    given = expanded(target)
    continued = resume and Run(given).exists
    config = resolve([read_yaml(given / "config.yaml") if continued else _target_layer(target), *layers])
    config.data.path = str(Path.cwd() / expanded(config.data.path))
    try:
        config.data.path.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{config.data.path!a} is not UTF-8, so config.yaml cannot name it; rename the file") from error
    if continued:
        run = Run(given if out is None else expanded(out))
    else:
        folder = expanded(out) if out is not None else None
        if folder is None:
            folder = Path("runs") / Path(config.data.path).stem if resume else default_folder(config.data.path)
        run = Run(folder)
    if resume and not run.exists:
        raise ConfigError(f"{run.folder} holds no run to resume; fit without --resume, or name it with --out")
    if resume:
        _check_same(config, run.config, run.folder)
    elif run.exists:
        raise ConfigError(f"{run.folder} already holds a run; continue it with --resume, or choose another --out")
    return config, run


def _target_layer(target: str | Path) -> dict[str, Any]:
    """The config layer that a positional argument stands for."""
    path = expanded(target)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return read_yaml(path)
    name = str(target)
    if name in presets():
        return {"base": name}
    if name in MODALITIES.names():
        return {"modality": name}
    if Run(path).exists:
        raise ConfigError(f"{path} is a run; continue it with --resume, or repeat it with {path}/config.yaml")
    if modality_of(path) is not None:
        return {"data": {"path": str(path)}}
    if path.exists():
        raise ConfigError(
            f"{path} has no suffix that tells its modality; write modality={'|'.join(MODALITIES.names())} "
            f"data.path={path} (known suffixes: {', '.join(known_suffixes())})"
        )
    if suffix or "/" in name:
        raise DataError(f"{path} does not exist; check the path")
    known = [*presets(), *MODALITIES.names()]
    raise ConfigError(f"'{name}' is neither a file nor a config{nearest(name, known)}")


def _layer(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments as a config layer; a key of one section may be given by itself."""
    top = {"base", *SLOTS, *SECTIONS, *field_names(GeneralOptions)}
    layer: dict[str, Any] = {}
    for key, value in options.items():
        if key in top:
            known = layer.get(key)
            layer[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
            continue
        sections = [name for name, declared in SECTIONS.items() if key in field_names(declared)]
        if not sections:
            every = top.union(*(field_names(declared) for declared in SECTIONS.values()))
            raise ConfigError(f"{key} is not an option of fit{nearest(key, every)}")
        layer.setdefault(sections[0], {})[key] = value
    return layer


def _check_same(asked: Config, had: Config, folder: Path) -> None:
    """A resumed run must be the run that was interrupted; only how it is watched may change."""
    one, other = _flat(asked), _flat(had)
    free = {f"checkpoint.{field.name}" for field in dataclasses.fields(asked.checkpoint)} | {
        "log.every",
        "log.reconstruction",
        "log.sample",
        "train.chunk",
    }
    changed = [key for key in one.keys() | other.keys() if key not in free and one.get(key) != other.get(key)]
    if changed:
        key = min(changed)
        raise ConfigError(
            f"{key} is {one.get(key)}, and {folder} was fitted with {other.get(key)}; resume with the same "
            "values, or start anew in another --out"
        )


def _flat(config: Config) -> dict[str, Any]:
    flat = {}
    for key, value in config.to_dict().items():
        if isinstance(value, dict):
            flat.update({f"{key}.{name}": entry for name, entry in value.items()})
        else:
            flat[key] = value
    return flat
