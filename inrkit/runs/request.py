"""From a user's request to a config and a run."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrkit.config import Config, key_of, parse_overrides, presets, read_yaml, resolve
from inrkit.config.schema import DATA_PATHS, SECTIONS, SLOTS, WRITER_KEYS, GeneralOptions
from inrkit.errors import ConfigError, DataError
from inrkit.evaluation.metrics import METRICS, Measure
from inrkit.files import expanded, missing
from inrkit.plugins.choice import Chosen
from inrkit.plugins.options import field_names, nearest
from inrkit.runs.beginning import GIVEN, Beginning
from inrkit.runs.display import in_notebook
from inrkit.runs.execute import execute
from inrkit.runs.field import Field
from inrkit.runs.given import require_clear, restricted, signal_of, without_mask
from inrkit.runs.listeners import AfterStep
from inrkit.runs.memory import MemoryRun
from inrkit.runs.objects import slot_of, with_objects
from inrkit.runs.run import Run, name_of, next_folder
from inrkit.runs.steps import Training
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.modality import MODALITIES, known_suffixes, modality_of
from inrkit.training.member import Listener, Member

Slot = str | Mapping[str, Any] | Chosen | type | object
"""The ways to give a plug-in: a name, a mapping, a class, a class called with its options, an instance."""
Callback = Listener | Callable[[Member], object]
Callbacks = Callback | Sequence[Callback]


def fit(
    target: str | Path | np.ndarray | Tensor | CoordinateDataset | Any = None,
    *,
    points: Any = None,
    values: Any = None,
    out: str | Path | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
    quiet: bool | None = None,
    callbacks: Callbacks = (),
    base: str | None = None,
    modality: Slot | None = None,
    transform: Slot | None = None,
    operator: Slot | None = None,
    embedding: Slot | None = None,
    network: Slot | None = None,
    selector: Slot | None = None,
    objective: Slot | None = None,
    optimizer: Slot | None = None,
    schedule: Slot | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    chunk: int | None = None,
    precision: str | None = None,
    compile: str | None = None,
    every: int | None = None,
    metrics: Sequence[str | type[Measure]] | None = None,
    seed: int | None = None,
    device: str | torch.device | None = None,
    init: str | Path | Run | Field | None = None,
    init_skip: Sequence[str] | None = None,
    frozen: Sequence[str] | None = None,
    **more: Any,
) -> Run:
    """Fit an INR to a signal.

    Args:
        target: a signal's file; a config file, a preset's name, or, with `resume`, a run's folder. Or the signal
            itself: a CoordinateDataset, a PIL image, or an array of numpy or torch. Unless `modality` says what it is,
            an array is a sound if it is (N,); a picture if it is (H, W), or (H, W, C) with at most 4 channels; a video
            if it is (T, H, W, C) with at most 4; else a volume. (3, H, W) could be either and is refused.
        points: (N, D) positions of scattered samples, in any units; give `values` too.
        values: (N,) or (N, C) values at the points.
        out: the run's folder. If not given, `runs/<name of the file>`; a signal given as an object stays in memory.
        resume: continue the run in `out`, or in `target`, from its checkpoint. `steps` and `seconds` may be raised, and
            the signal may have moved. A signal that was given as an object is given again, with the run's `out`.
        overrides: `key=value` words, as on the command line.
        quiet: print nothing. If not given, progress is shown in a notebook and nowhere else.
        callbacks: a listener of the training, a function that is called with the member after every step, or
            several of them.
        base: the preset to start from; the modality's own if not given.
        modality, transform, operator, embedding, network, selector, objective, optimizer, schedule: each a plug-in by
            its name, a mapping of options, its class, its class called with options (`Evos(ratio=0.2)`), or an
            instance. A network may be any nn.Module from (…, D) to (…, C), which trains in place; an optimizer one of
            torch's classes or a function of the parameters; a transform one with its constants.
        steps: optimizer steps, T.
        seconds: of training, in place of steps.
        chunk: coordinates that pass through the network at a time.
        precision: of the products: "auto", "float32", "bfloat16", "bfloat16-features", "float16" or "tf32".
        compile: "auto", "always" or "never".
        every: steps between evaluations.
        metrics: of an evaluation, by name or class.
        seed: of everything random.
        device: "auto", "cpu", "cuda", "cuda:1", "xpu", "mps".
        init: what to take the weights from that training starts with: a run, a field, or the path of one.
        init_skip: parameters that are drawn all the same, by what their names begin with (`["last"]`).
        frozen: parameters that are not trained, likewise.
        more: any other key of the config: a section's mapping (`train={"steps": 500}`), or a key of one by itself.

    Returns:
        The run; its `result["status"]` is "done" or "interrupted".

    Raises:
        ConfigError: the request is wrong; nothing was written.
        DataError: the signal cannot be used; nothing was written.
        RunError: the run failed; what it had written stays.
    """
    given = {key: value for key, value in locals().items() if key in _OPTIONS and value is not None}
    asked = ask(target, points=points, values=values, out=out, resume=resume, overrides=overrides, **given, **more)
    quiet = not in_notebook() if quiet is None else quiet
    return execute(
        asked.config,
        asked.run,
        dataset=asked.dataset,
        beginning=asked.beginning,
        resume=resume,
        quiet=quiet,
        listeners=_listeners(callbacks),
    )


def trainer(
    target: str | Path | np.ndarray | Tensor | CoordinateDataset | Any = None,
    *,
    callbacks: Callbacks = (),
    **options: Any,
) -> Training:
    """The training of a fit, for a loop of your own; it writes no files.

        training = inrkit.trainer("photo.png", steps=500)
        for step in training:
            if step.number % 100 == 0:
                print(step.number, step.loss)
        training.field.render((1024, 1024))

    Args:
        target: as for `fit`.
        callbacks: as for `fit`.
        options: as for `fit`, except `out`, `resume` and `quiet`.

    Raises:
        ConfigError, DataError, RunError: as `fit`.
    """
    files = {"out", "resume", "quiet"} & options.keys()
    if files:
        raise ConfigError(f"{files.pop()} is for inrkit.fit; a trainer writes no files and prints nothing")
    asked = ask(target, out=None, in_memory=True, **options)
    return Training(asked.config, asked.dataset, _listeners(callbacks), asked.beginning)


@dataclass(frozen=True)
class Request:
    """A validated request.

    Args:
        config: every key.
        run: to be made or resumed.
        dataset: the signal, if it was given as an object; else the config names its file.
        beginning: weights to start from, if they were given as an object; else the config names their file, if any.
    """

    config: Config
    run: Run
    dataset: CoordinateDataset | None
    beginning: Beginning | None


def ask(
    target: Any,
    *,
    points: Any = None,
    values: Any = None,
    out: str | Path | None = None,
    resume: bool = False,
    in_memory: bool = False,
    overrides: Sequence[str] = (),
    **options: Any,
) -> Request:
    """Find out what is asked for in Python; arguments and errors are `fit`'s."""
    options, beginning = _with_beginning(options)
    named = {key: _plain(slot_of(key, value) if key in SLOTS else value) for key, value in options.items()}
    layers = [parse_overrides([overrides] if isinstance(overrides, str) else overrides), _layer(named)]
    if points is None and values is None and isinstance(target, str | Path):
        config, run = prepare(target, out=out, resume=resume, layers=layers, default=not in_memory)
        return Request(with_objects(config, options), run, None, beginning)
    run = MemoryRun() if out is None else Run(expanded(out))
    if resume and (out is None or not run.exists):
        raise ConfigError(
            f"{'a run in memory' if out is None else run.folder} cannot be resumed with a signal that is given as an "
            "object; name the folder of its run with out=…"
        )
    target, known = without_mask(target)
    dataset, name = signal_of(target, points, values)
    modality = named.get("modality")
    below: dict[str, Any] = {"data": {"path": ""}}
    if modality is None or (isinstance(modality, Mapping) and "name" not in modality):
        below["modality"] = name
        if not isinstance(dataset, CoordinateDataset):
            require_clear(dataset)
        if isinstance(dataset, CoordinateDataset) and dataset.grid_shape is not None:
            below["operator"] = "laplacian"  # the modality's own is for free points
    if resume:
        below = read_yaml(run.folder / "config.yaml")
    config = with_objects(resolve([below, *layers]), options)
    config.general.init = _absolute(config.general.init)
    if not isinstance(dataset, CoordinateDataset):
        dataset = config.modality.make().from_array(dataset)
    if known is not None:
        dataset = restricted(dataset, known)
    if resume:
        _check_same(config, run)
        if config.data.path:
            raise ConfigError(f"{run.folder} was fitted to {config.data.path}; resume it by its folder alone")
    elif run.exists:
        raise ConfigError(f"{run.folder} already holds a run; choose another out")
    return Request(config, run, dataset, beginning)


def _with_beginning(options: Mapping[str, Any]) -> tuple[dict[str, Any], Beginning | None]:
    """The options with a name for what was given as `init`, and the weights themselves if it was an object."""
    given = options.get("init")
    if isinstance(given, Field):
        return {**options, "init": GIVEN}, Beginning.of(given)
    if isinstance(given, MemoryRun):
        return {**options, "init": GIVEN}, Beginning.of(given.field)
    if isinstance(given, Run):
        return {**options, "init": str(given.folder)}, None
    return {**options, **({"init": str(given)} if isinstance(given, Path) else {})}, None


def _absolute(init: str) -> str:
    """`init` of a config such that it names the same file from everywhere."""
    return init if init in ("", GIVEN) else str(Path.cwd() / expanded(init))


_OPTIONS = frozenset(inspect.signature(fit).parameters) - {
    *("target", "points", "values", "out", "resume", "overrides", "quiet", "callbacks", "more"),
}


def _listeners(callbacks: Callbacks) -> list[Listener]:
    callbacks = [callbacks] if isinstance(callbacks, Listener) or callable(callbacks) else callbacks
    for callback in callbacks:
        if isinstance(callback, type) or not (isinstance(callback, Listener) or callable(callback)):
            raise ConfigError(f"a callback is {callback!r:.80}; give functions of the member, or instances of Listener")
    return [callback if isinstance(callback, Listener) else AfterStep(callback) for callback in callbacks]


def prepare(
    target: str | Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    layers: Sequence[Mapping[str, Any]] = (),
    default: bool = True,
) -> tuple[Config, Run]:
    """The config and the run of a request for a file.

    Args:
        target: as for `fit`, by name.
        out: the run's folder.
        resume: whether the run is to be continued.
        layers: of the config, above the target's layer.
        default: whether a run without `out` goes to a folder named after its signal; else it stays in memory.

    Returns:
        The validated config and the run to be made or resumed.

    Raises:
        ConfigError, DataError: as `fit`.
    """
    given = expanded(target)
    continued = resume and Run(given).exists
    layer = read_yaml(given / "config.yaml") if continued else _target_layer(target)
    if resume and not continued and layer.keys() == {"data"} and not any("base" in each for each in layers):
        had = (Path("runs") / name_of(given) if out is None else expanded(out)) / "config.yaml"
        layer = {**(read_yaml(had) if had.exists() else {}), **layer}  # the signal that the run is to go on with
    config = resolve([layer, *layers])
    config.general.init = _absolute(config.general.init)
    if config.data.path:  # a signal that was given as an object has none
        config.data.path = str(Path.cwd() / expanded(config.data.path))
    if config.data.weights:
        config.data.weights = str(Path.cwd() / expanded(config.data.weights))
    try:
        config.data.path.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{config.data.path!a} is not UTF-8, so config.yaml cannot name it; rename the file") from error
    if out is not None:
        run = Run(expanded(out))
    elif continued:
        run = Run(given)
    elif resume:
        run = Run(Path("runs") / name_of(config.data.path))
    else:
        run = Run(next_folder(config.data.path), movable=True) if default else MemoryRun()
    if continued and config.data.path and not Path(config.data.path).exists():
        raise DataError(f"{config.data.path} does not exist; if the signal has moved, say where to with data.path=…")
    if resume and not run.exists:
        raise ConfigError(f"{run.folder} holds no run to resume; fit without --resume, or name it with --out")
    if resume:
        _check_same(config, run)
    elif run.exists:
        raise ConfigError(f"{run.folder} already holds a run; continue it with --resume, or choose another --out")
    return config, run


def _target_layer(target: str | Path) -> dict[str, Any]:
    """The config layer of a positional argument: a signal's file, a config file, a shipped config, or the first
    `key=value` where a key names the signal."""
    path = expanded(target)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return read_yaml(path)
    name = str(target)
    if re.match(r"\w+(\.\w+)*=", name) and not path.exists():
        return parse_overrides([name])
    if name in presets():
        return {"base": name}
    if name in MODALITIES.names():
        return {"modality": name}
    if Run(path).exists:
        raise ConfigError(f"{path} is a run; continue it with --resume, or repeat it with {path}/config.yaml")
    if modality_of(path) is not None and "://" not in name:
        return {"data": {"path": str(path)}}
    if path.exists():
        raise ConfigError(
            f"{path} has no suffix that tells its modality; write modality={'|'.join(MODALITIES.names())} "
            f"data.path={path} (known suffixes: {', '.join(known_suffixes())})"
        )
    if "://" in name:
        raise DataError(f"{name} is an address, and a signal is a file; download it first")
    if suffix or "/" in name:
        raise DataError(missing(path))
    known = [*presets(), *MODALITIES.names()]
    raise ConfigError(f"'{name}' is neither a file nor a config{nearest(name, known)}")


def _plain(value: Any) -> Any:
    """A value as a config holds it: numbers of numpy as Python's, metrics by name, paths and devices as text."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, type) and METRICS.accepts(value):
        return METRICS.name_of(value)
    return str(value) if isinstance(value, Path | torch.device) else value


def _layer(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments as a config layer; a key that only one section has may be given without its section."""
    top = {"base", *SLOTS, *SECTIONS, *field_names(GeneralOptions)}
    layer: dict[str, Any] = {}
    for key, value in options.items():
        if key in top:
            known = layer.get(key)
            layer[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
            continue
        sections = [name for name, declared in SECTIONS.items() if key in field_names(declared)]
        if not sections:
            slot, _, option = key_of(key).partition(".")
            every = top.union(*(field_names(declared) for declared in SECTIONS.values()))
            hint = f"; give it as {slot}={{'{option}': …}}" if option else nearest(key, every)
            raise ConfigError(f"{key} is not an option of fit{hint}")
        layer.setdefault(sections[0], {})[key] = value
    return layer


def _check_same(asked: Config, run: Run) -> None:
    """A resumed run must be the run that was interrupted; only how it is watched and for how long it trains may change.

    Where the signal is may change too, if the run tells whether it is the same.
    """
    had, folder = run.config, run.folder
    one, other = _flat(asked), _flat(had)
    for flat in (one, other):
        for key in DATA_PATHS:
            name = f"data.{key}"
            flat[name] = str(Path(flat[name]).resolve()) if flat[name] else ""
    free = {f"checkpoint.{field.name}" for field in dataclasses.fields(asked.checkpoint)} | {
        "log.every",
        "log.reconstruction",
        "log.evaluated",
        *(f"log.{key}" for key in WRITER_KEYS),
        "device",
        "train.chunk",
        "train.on_divergence",
        "train.capture",
    }
    if asked.train.steps > had.train.steps:
        free.add("train.steps")  # the schedules go on as those of the longer training
    if asked.train.seconds > had.train.seconds > 0:
        free.add("train.seconds")
    if one["data.path"] != other["data.path"] and (
        had.regions.values or not run.has_progress or "signal" in run.read_checkpoint()
    ):
        free.add("data.path")
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
