"""How fast a machine fits: the rate of its matrix products, and the time of each part of a training step."""

from __future__ import annotations

import contextlib
import copy
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from inrkit.config import Config, parse_overrides, presets, read_yaml
from inrkit.device import choose_device, choose_precision, describe
from inrkit.errors import ConfigError, RunError
from inrkit.files import expanded
from inrkit.networks import precision_of
from inrkit.networks.products import float32_products
from inrkit.runs.build import build, read_signal
from inrkit.runs.execute import memory_ran_out
from inrkit.runs.request import prepare
from inrkit.runs.run import versions
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.modality import MODALITIES
from inrkit.signals.signal import Signal
from inrkit.training.backends.base import Backend
from inrkit.training.gradients import backpropagate, measure, step
from inrkit.training.loop import Trainer
from inrkit.training.member import Listener, Member
from inrkit.training.randomness import caller_undisturbed
from inrkit.training.turn import Turn

WARM_UP = 3
"""Steps before those that are measured: they compile, set optimizers up, and fill caches."""
LEAST_STEPS = WARM_UP + 3
"""Fewest steps of a training that can be measured: one undisturbed, one with clocks, and a last one that is not run."""
COORDINATES = 1 << 18
"""How many coordinates a modality's own sample is repeated to, so that recipes get a signal of a realistic size."""

PARTS = ("network", "optimizer", "selection", "gathering", "other")
"""The parts of a step's time; see `benchmark`."""

_LAYER = 256
"""Width of a hidden layer whose product is timed: the default SIREN's."""
_TIMED = 0.01
"""Fewest seconds that products are repeated for, each of the three times that they are timed."""
_LONGEST = 0.1
"""Seconds of a square product above which no larger one is tried, because a call's overhead is then negligible."""


def benchmark(
    target: str | Path = "image",
    *,
    overrides: Sequence[str] = (),
    seconds: float = 5.0,
    device: str | None = None,
) -> dict[str, Any]:
    """Measure this machine's matrix products and the training of a fit, which leaves no files.

    The training is the one that `fit` would run, from its first step on, without evaluations and without a budget of
    time. After the first steps it is measured undisturbed for `seconds`, then for half as long with a clock at each
    part; on a GPU these clocks make the parts wait for each other. If the request names no signal, it is the modality's
    own sample, repeated along its axes to at least `COORDINATES`.

    Args:
        target: a signal's file, a config file, or the name of a shipped config or a modality.
        overrides: `key=value` words, as on the command line.
        seconds: how long steps are measured, above 0; never beyond the training's own steps.
        device: the same as `device=…` among the overrides.

    Returns:
        device: in words. threads: of torch on the CPU. versions: of inrkit, torch and python.
        signal: modality, source ("sample" or the file), shape (None for free points), coordinates N and channels C.
        fit: network, its parameters and matrix_parameters (below), selector, objective, optimizer, precision of hidden
        products and steps T.
        peaks: by precision, in TFLOP/s, the best of square products ("square") and of (n × 256)·(256 × 256) with n the
        training's chunk, or N if that is less ("layer"); "tf32" on a GPU only.
        first_step: its seconds, compilation included, and coordinates. warm_up: steps and seconds of all that was not
        measured.
        step: means over the measured steps: how many (steps), seconds of one, coordinates of one,
        coordinates_per_second; teraflops, at 6 · matrix_parameters a coordinate, matrix_parameters being half the
        multiplications and additions in the products of one prediction; share_of_peak, of the larger peak of the
        precision that hidden matrices multiply in. Surveys and a line search's further evaluations take time and are
        not counted as arithmetic.
        shares: of a step's time, which sum to 1: network (forwards and backwards, the loss), optimizer, selection
        (surveys and key-step fitness included), gathering (coordinates, embedded, and targets), other.
        peak_memory: bytes that the process, or its tensors on the GPU, held at most by the end of training.

    Raises:
        ConfigError, DataError: as `fit`; or the training has fewer than `LEAST_STEPS` steps.
        RunError: memory ran out.
    """
    config, sampled = _request(target, overrides, device)
    if config.train.steps < LEAST_STEPS:
        raise ConfigError(f"train.steps is {config.train.steps}; a benchmark needs at least {LEAST_STEPS}")
    place = choose_device(config.general.device)
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
    with _enough_memory(), _signal(config, sampled) as signal:
        dataset = signal.dataset
        member = build(config, signal, place, choose_precision(config.train.precision, place))
        member.budget = None
        member.evaluate_every = member.steps + 1
        flops = _flops(member)
        first = _train(member, steps=1)
        more = _train(member, steps=WARM_UP - 1)
        left = member.steps - member.step - 1  # the last step would be evaluated
        measured = _train(member, steps=max(1, 2 * left // 3), seconds=seconds)
        parts = _Parts(member)
        _train(member, steps=member.steps - member.step - 1, seconds=seconds / 2, backend=parts)
        memory = _peak_memory(place)
        peaks = _peaks(member)
    precision = _precision(member)
    pace = measured.seconds / measured.steps
    teraflops = 3 * flops * measured.coordinates / measured.seconds / 1e12
    return {
        "device": describe(place),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "signal": {
            "modality": config.modality.name,
            "source": "sample" if sampled else config.data.path,
            "shape": None if dataset.grid_shape is None else list(dataset.grid_shape),
            "coordinates": len(dataset),
            "channels": dataset.channels,
        },
        "fit": {
            "network": config.network.name,
            "parameters": member.parameters,
            "matrix_parameters": flops / 2,
            "selector": config.selector.name,
            "objective": config.objective.name,
            "optimizer": config.optimizer.name,
            "precision": precision,
            "compiled": member.forward is not member.network,
            "steps": config.train.steps,
        },
        "peaks": peaks,
        "first_step": {"seconds": first.seconds, "coordinates": first.coordinates},
        "warm_up": {"steps": first.steps + more.steps, "seconds": first.seconds + more.seconds},
        "step": {
            "steps": measured.steps,
            "seconds": pace,
            "coordinates": measured.coordinates / measured.steps,
            "coordinates_per_second": measured.coordinates / measured.seconds,
            "teraflops": teraflops,
            "share_of_peak": teraflops / max(peaks[precision].values()),
        },
        "shares": parts.shares(),
        "peak_memory": memory,
    }


def _request(target: str | Path, overrides: Sequence[str], device: str | None) -> tuple[Config, bool]:
    """The config of the fit, and whether its signal is the modality's sample, because the request names none."""
    layer = parse_overrides(overrides)
    if device is not None:
        layer["device"] = device
    path = expanded(target)
    if path.suffix.lower() in (".yaml", ".yml"):
        sampled = not (_names_signal(layer) or _names_signal(read_yaml(path)))
    else:
        sampled = not _names_signal(layer) and str(target) in (*presets(), *MODALITIES.names())
    config, _ = prepare(target, layers=[{"data": {"path": "sample"}}, layer] if sampled else [layer])
    return config, sampled


def _names_signal(layer: Mapping[str, Any]) -> bool:
    data = layer.get("data")
    return isinstance(data, dict) and "path" in data


@contextlib.contextmanager
def _signal(config: Config, sampled: bool) -> Iterator[Signal]:
    """The signal of a fit; its files exist inside the context."""
    if not sampled:
        yield read_signal(config)
        return
    plugin: Any = config.modality.plugin
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"sample{plugin.sample_suffix}"
        try:
            plugin(config.modality.options).sample(path)
        except ConfigError as error:
            raise ConfigError(f"{error}; name a signal with data.path=…") from error
        config.data.path = str(path)
        signal = read_signal(config)
        yield Signal(repeated(signal.dataset, COORDINATES), signal.transform, signal.embedding)


def repeated(dataset: CoordinateDataset, count: int) -> CoordinateDataset:
    """A signal that repeats `dataset` along its shortest axes until it has at least `count` coordinates.

    Free points and signals with weights stay unchanged.
    """
    if dataset.grid_shape is None or dataset.weights is not None or dataset.known is not None:
        return dataset
    values = dataset.values.view(*dataset.grid_shape, dataset.channels)
    while values.numel() < count * dataset.channels:
        shape = values.shape[:-1]
        values = torch.cat([values, values], dim=shape.index(min(shape)))
    larger = copy.copy(dataset)
    larger.values = values.reshape(-1, dataset.channels)
    larger.grid_shape = tuple(values.shape[:-1])
    return larger


@contextlib.contextmanager
def _enough_memory() -> Iterator[None]:
    """If memory runs out, raise an error that says so in a line."""
    try:
        yield
    except Exception as error:
        if not memory_ran_out(error):
            raise
        raise RunError("memory ran out; lower train.chunk, selector.ratio or network.hidden_features") from error


class _Enough(Exception):
    """Ends a training after the wanted steps, before it is evaluated."""


class _Watch(Listener):
    """Counts steps, their coordinates and their seconds, and ends the training when enough are measured."""

    def __init__(self, steps: int, seconds: float) -> None:
        self._most = steps
        self._until = seconds
        self._start = 0.0
        self.steps = 0
        self.coordinates = 0
        self.seconds = 0.0

    def on_start(self, member: Member) -> None:
        self._start = member.now()

    def on_step(self, member: Member, selected: int) -> None:
        self.steps += 1
        self.coordinates += selected
        if self.steps < self._most and time.perf_counter() - self._start < self._until:
            return
        self.seconds = member.now() - self._start
        raise _Enough


def _train(member: Member, *, steps: int, seconds: float = math.inf, backend: Backend | None = None) -> _Watch:
    """Train for `steps` more, or until `seconds` have passed; at least one step."""
    watch = _Watch(steps, seconds)
    member.listeners = [watch]
    with contextlib.suppress(_Enough):
        Trainer([member], backend).run()
    return watch


class _Parts(Backend):
    """Divides a training's time among `PARTS`: each moment counts for the innermost part that is running.

    A selection counts as one part, including surveys that run the network.
    """

    def __init__(self, member: Member) -> None:
        self._now = member.now
        self._part = "outside"
        self._since = 0.0
        self._seconds = dict.fromkeys((*PARTS, "outside"), 0.0)
        self._measure = self._timed("selection", measure)
        self._backpropagate = self._timed("network", backpropagate)
        self._step = self._timed("optimizer", step)
        signal = member.signal
        self._wrap("gathering", signal, "inputs", "targets", "slopes")
        self._wrap("gathering", signal.dataset, "coordinates", "weights_of")
        self._wrap("selection", member.selector, "survey", "learn", "select", "observe")
        self._mark("other", member, "begin")
        self._mark("outside", member, "report")

    def measure(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            if turn.survey is not None:
                turn.surveyed = self._measure(turn.member, turn.survey)

    def update(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            self._step(turn, compute=self._backpropagate)

    def release(self) -> None:
        pass

    def shares(self) -> dict[str, float]:
        """Each part's share of the time of training."""
        total = sum(self._seconds[part] for part in PARTS)
        return {part: self._seconds[part] / total for part in PARTS}

    def _wrap(self, part: str, owner: Any, *names: str) -> None:
        for name in names:
            setattr(owner, name, self._timed(part, getattr(owner, name)))

    def _mark(self, part: str, owner: Any, name: str) -> None:
        """Count the time from a call on as `part`, until another part takes over."""
        function = getattr(owner, name)

        def marked(*arguments: Any) -> Any:
            self._switch(part)
            return function(*arguments)

        setattr(owner, name, marked)

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            outer = self._part
            if outer in ("selection", "outside"):
                return function(*arguments, **named)
            self._switch(part)
            try:
                return function(*arguments, **named)
            finally:
                self._switch(outer)

        return timed

    def _switch(self, part: str) -> None:
        now = self._now()
        self._seconds[self._part] += now - self._since
        self._part, self._since = part, now


def _flops(member: Member) -> float:
    """Multiplications and additions in the matrix products of one prediction."""
    count = min(2, len(member.signal))
    inputs = member.signal.inputs(slice(0, count))
    with torch.no_grad(), caller_undisturbed(member.device), FlopCounterMode(display=False) as counter:
        member.network(inputs)
    return counter.get_total_flops() / count


def _peak_memory(device: torch.device) -> int:
    """Bytes that the process, or its tensors on the GPU, held at most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _precision(member: Member) -> str:
    """The precision that hidden matrices multiply in, as a key of `peaks`."""
    precision = precision_of(member.network)
    reduced = member.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
    return "tf32" if precision == "float32" and reduced else precision.removesuffix("-features")


def _peaks(member: Member) -> dict[str, dict[str, float]]:
    """TFLOP/s of the fastest products, by precision and kind; see `benchmark`."""
    device = member.device
    found = {}
    for name, dtype, mode in (
        ("float32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bfloat16", torch.bfloat16, "highest"),
        ("float16", torch.float16, "highest"),
    ):
        if (name == "tf32" and device.type != "cuda") or (name == "float16" and precision_of(member.network) != name):
            continue
        with float32_products(mode):
            rows = min(member.chunk, len(member.signal))
            layer = 2 * rows * _LAYER**2 / _seconds((rows, _LAYER, _LAYER), dtype, member)
            square, side = 0.0, 256
            while side <= 8192:
                took = _seconds((side, side, side), dtype, member)
                square = max(square, 2 * side**3 / took)
                if 8 * took > _LONGEST:
                    break
                side *= 2
        found[name] = {"square": square / 1e12, "layer": layer / 1e12}
    return found


def _seconds(shape: tuple[int, int, int], dtype: torch.dtype, member: Member) -> float:
    """Fewest seconds of a product (n, m)·(m, l), measured over many in a row so that calls do not count."""
    rows, inner, columns = shape
    device = member.device
    generator = torch.Generator(device=device).manual_seed(0)
    left = torch.randn(rows, inner, device=device, generator=generator).to(dtype)  # zeros may multiply faster
    right = torch.randn(inner, columns, device=device, generator=generator).to(dtype)
    product = torch.empty(rows, columns, device=device, dtype=dtype)

    def timed(count: int) -> float:
        start = member.now()
        for _ in range(count):
            torch.mm(left, right, out=product)
        return member.now() - start

    timed(1)
    count = 1
    while (took := timed(count)) < _TIMED:
        count *= 2
    return min(took, timed(count), timed(count)) / count
