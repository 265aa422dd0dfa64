"""Compression of fields: weights in few bits, after a short training that knows of their rounding."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from inrkit.coding.entropy import LARGEST, require_coder
from inrkit.coding.file import Part, packed, unpacked
from inrkit.coding.initial import found_initial
from inrkit.coding.tensors import MOST_QUARTERS, Exact, Initial, Short, Stepped, of_short, short
from inrkit.config import Config
from inrkit.config.schema import Choice
from inrkit.device import choose_device, choose_precision
from inrkit.errors import ConfigError, DataError
from inrkit.evaluation.evaluate import default_chunk, evaluate
from inrkit.evaluation.sensitivity import sensitivities
from inrkit.files import require_place, written_whole
from inrkit.networks import Network, Tiles
from inrkit.networks.given import GIVEN
from inrkit.networks.tiles import DRAWS
from inrkit.runs.beginning import Beginning
from inrkit.runs.build import as_signal, begun, build, evaluated_most, read_signal
from inrkit.runs.field import Field
from inrkit.runs.given import restricted, signal_of, without_mask
from inrkit.runs.run import Run, field_from, made_from
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.digest import digest
from inrkit.signals.modality import modality_of
from inrkit.signals.signal import Signal
from inrkit.training.learning_rates import SCHEDULES
from inrkit.training.loop import Trainer
from inrkit.training.optimizers.factories import OPTIMIZERS
from inrkit.training.randomness import seeded
from inrkit.training.straight_through import Grid, StraightThrough, real

DEFAULT_BITS = 6.0
_BITS_TO_FIT = 5
"""A parameter; a network of so many parameters is about the best for a size."""
_FINEST, _START, _COARSEST = 2.0**-30, 2.0**-6, 2.0**4
"""Steps, in the network's range."""
_SEARCH = 20
"""Steps that are tried for a size."""
_SHARE = 0.25
"""Of a fit's steps, those that the finish takes."""
_PACE = 40
"""Updates of a weight that are one step of its rounding, at the beginning of the finish."""
_MOST_STEPS = 500
_LONGEST = 10**9
"""Steps of a finish that may be asked for; nobody waits for so many."""
_GLANCE = 1 << 12
"""Coordinates of the evaluation that ends a training; what counts is measured afterwards."""
_RATE = 1e-3
"""The finish's highest learning rate, if the fit's optimizer has none."""
_TRIALS = 6
_CLOSE = 0.15
"""Decibels above those asked for that are near enough."""
_APART = 32
"""Classes from a group to the next if none is shared: more than rows have."""
_MEANS = 0.5
"""Steps of tiles' means, in steps of values."""
_OVER = 0.995
"""Of a size, what is aimed at before the finish, which changes it a little."""


@dataclass(frozen=True)
class Compressed:
    """A compressed field's file.

    Args:
        path: of the file.
        size: its bytes.
        parameters: of the network.
        values: of the signal, coordinates times channels; 0 if it has no lattice and was not at hand.
        before: metrics of the field as it was; empty if the signal was not at hand.
        after: metrics of the compressed field.
        steps: of the finish, all trials together.
        seconds: that it all took.
    """

    path: Path
    size: int
    parameters: int
    values: int
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0

    @property
    def bits_per_parameter(self) -> float:
        """The file's bits for each of the network's parameters."""
        return 8 * self.size / max(1, self.parameters)

    @property
    def bits_per_value(self) -> float:
        """The file's bits for each value of the signal; NaN if their number is not known."""
        return 8 * self.size / self.values if self.values else math.nan

    @property
    def row(self) -> dict[str, Any]:
        """What a run notes of it: the file's name and numbers."""
        measured = {name: value for name, value in self.after.items() if name in self.before}
        return {
            "file": self.path.name,
            "bytes": self.size,
            "bits_per_parameter": self.bits_per_parameter,
            **({"bits_per_value": self.bits_per_value} if self.values else {}),
            **{f"{name}_before": self.before[name] for name in measured},
            **{f"{name}_after": value for name, value in measured.items()},
        }


def compress(
    run: Run | Field | str | Path,
    path: str | Path,
    *,
    bits: float | None = None,
    db: float | None = None,
    size: int | None = None,
    steps: int | None = None,
    signal: Any = None,
    device: str = "auto",
    trust: bool = False,
    told: Callable[[str], object] = lambda line: None,
) -> Compressed:
    """Write a field to a small file, which `inrkit.load` reads like any other.

    Weights are rounded to steps of a size that follows how much they matter, trained on for a while through that
    rounding, and entropy coded. One of `bits`, `db` and `size` says how coarse the steps are.

    Args:
        run: a run, its folder, a field, or the file of one. A field alone has no signal: it is neither trained on nor
            measured.
        path: of the file to write.
        bits: most bits a parameter, the whole file counted; 6 if none of the three is given.
        db: least PSNR in dB; the file is the smallest found.
        size: most bytes.
        steps: of the training through the rounding; a quarter of the fit's if not given, 0 for none.
        signal: that was fitted, if it is not where the run has it from: a file, or an object as for `fit`.
        device: "auto", "cpu", "cuda", "cuda:1", "xpu", "mps".
        trust: whether what a field names as `package.module:Name` may be imported; what a run's config names is
            imported anyway.
        told: is given a line for each trial of a search for `db`.

    Raises:
        ConfigError: the request is wrong, or no such file can be made.
        DataError: the field or the signal cannot be used.
        RunError: the file cannot be written.
    """
    asked = _asked(bits, db, size, steps)
    require_place(Path(path), *made_from(run))
    if modality_of(Path(path)) is not None:
        raise ConfigError(f"{path} is named like a signal, and a compressed field is none; name it like photo.inr")
    require_coder()
    started = time.perf_counter()
    chosen = choose_device(device)
    if isinstance(run, str | Path) and (Path(run) / "config.yaml").exists():
        run = Run(run)
    if not isinstance(run, Run) and (signal is not None or steps):
        given = "signal" if signal is not None else "steps"
        raise ConfigError(
            f"{given} is for a run, and a field alone does not say how to train it; give its run's folder"
        )
    original = field_from(run, trust=trust)  # before the signal, which may take long to read
    fit = _fit(run, signal) if isinstance(run, Run) else None
    compression = _Compression(original, chosen, fit, steps)
    if db is not None:
        if fit is None:
            raise ConfigError("db needs the signal to measure by, which a field alone has not; give its run's folder")
        content = compression.of_quality(db, told)
    else:
        parameters = compression.parameters
        most = math.floor(min(sys.maxsize, asked if size is not None else asked * parameters / 8))
        content = compression.of_size(most, f"{size} bytes" if size is not None else f"{asked:g} bits a parameter")
    with written_whole(Path(path)) as aside:
        aside.write_bytes(content)
    lattice = original.grid_shape
    values = len(fit.signal.dataset) if fit is not None else 0 if lattice is None else math.prod(lattice)
    done = Compressed(
        Path(path),
        len(content),
        compression.parameters,
        values * original.channels,
        compression.before,
        compression.after,
        compression.steps_done,
        time.perf_counter() - started,
    )
    if isinstance(run, Run):
        run.note_compressed(done.row)
    return done


def _asked(bits: float | None, db: float | None, size: int | None, steps: int | None) -> float:
    """The one number that is asked for."""
    given = {name: value for name, value in (("bits", bits), ("db", db), ("size", size)) if value is not None}
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are given; give one of bits, db and size")
    name, value = next(iter(given.items()), ("bits", DEFAULT_BITS))
    if not 0 < value < math.inf:
        raise ConfigError(f"{name} is {value}; it must be a finite number above 0")
    if steps is not None and not 0 <= steps <= _LONGEST:
        raise ConfigError(f"steps is {steps}; it must be in [0, {_LONGEST:,}]")
    return value


@dataclass(frozen=True)
class _Fit:
    """What a field came from."""

    config: Config
    signal: Signal


def _fit(run: Run, given: Any) -> _Fit:
    config = run.config
    config = dataclasses.replace(config, regions=dataclasses.replace(config.regions, values=0))  # all in one file
    if isinstance(given, str | Path):
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(given)))
        given = None
    file = run.folder / "field.safetensors"
    alone = f"compress {file if file.exists() else 'run.field'}, which is rounded without it"
    if given is None and not config.data.path:
        raise DataError(f"the signal was a Python object; give it again as signal=…, or {alone}")
    try:
        signal = read_signal(config) if given is None else as_signal(config, _dataset(config, given))
    except DataError as error:
        raise DataError(f"{error}; or say as signal where it is now, or {alone}") from error
    known = run.result.get("signal")
    if known is not None and known != digest(signal.dataset):
        raise DataError(
            f"{config.data.path or 'the given object'} is not the signal that {run.folder} was fitted to: its values, "
            "its shape, what is known of it or its weights have changed; give that signal"
        )
    return _Fit(config, signal)


def _dataset(config: Config, given: Any) -> CoordinateDataset:
    """A signal given as an object, as `fit` made one of it."""
    target, known = without_mask(given)
    dataset, _ = signal_of(target)
    if not isinstance(dataset, CoordinateDataset):
        dataset = config.modality.make().from_array(dataset)
    return dataset if known is None else restricted(dataset, known)


class _Compression:
    """One field on its way to a file.

    Args:
        original: the field.
        device: where to train and measure.
        fit: what the field came from, if that is at hand.
        steps: of the finish; None for a share of the fit's.

    Attributes:
        parameters: of the network.
        before, after: metrics; empty if the signal is not at hand.
        steps_done: steps of the finish so far.
    """

    def __init__(self, original: Field, device: torch.device, fit: _Fit | None, steps: int | None) -> None:
        self._field = dataclasses.replace(original, network=copy.deepcopy(original.network)).to(device)
        self._description = original.description()
        self._device = device
        self._fit = None if fit is None else _Fit(fit.config, fit.signal.to(device))
        self._steps = steps
        network = self._field.network
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        self.steps_done = 0
        self.before = self._measured(network)
        self.after: dict[str, float] = {}
        self._groups = sensitivities(network, self._field.embedding)
        self._widths = {name: tuple(width for width, _ in groups) for name, groups in self._groups.items()}
        self._short: dict[str, Short] = {}
        self._quarters: np.ndarray | None = None
        self._least = 0.0
        self._tile_means = np.zeros((0, 0))
        if isinstance(network, Tiles):
            self._tile_means = network.means.cpu().numpy().copy()
            self._shorten_spreads(network)
        self._exact = {
            name: real(parameter).clone()
            for name, parameter in network.named_parameters()
            if parameter.dtype in (torch.float32, torch.complex64)
        }
        self._initials = self._found_initials(network)

    def of_size(self, most: int, asked: str) -> bytes:
        """The content of a file of `most` bytes at most, as good as it gets."""
        step = self._step_of_size(round(_OVER * most), asked)
        if self._finishes:
            self._finish(step)
        content = self._content(step)
        if len(content) > most:
            content = self._content(self._step_of_size(most, asked))
        self._measure(content)
        return content

    def of_quality(self, db: float, told: Callable[[str], object]) -> bytes:
        """The content of the smallest file found whose PSNR is `db` at least."""
        if "psnr" not in self.before:
            raise ConfigError("db asks for a PSNR, which this signal has not; give bits or size")
        if self.before["psnr"] < db:
            raise ConfigError(
                f"the run itself has {self.before['psnr']:.2f} dB, less than the {db:g} dB asked for; fit it for "
                "longer or with more parameters, or ask for less"
            )
        # First without training, which gains some two decibels, to a place from which few trials are left.
        step, best, below = _START, None, math.inf
        exact = self._exact
        for _ in range(4 * _TRIALS):
            content = self._content(step)
            gap = self._measure(content) - db
            if -3 < gap < 1 or step <= _FINEST:
                break
            step = min(_COARSEST, max(_FINEST, step * 2 ** max(-4.0, min(4.0, (gap + 1) / 6))))
        for _ in range(_TRIALS):
            if self._finishes:
                self._finish(step)
            content = self._content(step)
            gap = self._measure(content) - db
            told(self._line(content))
            if gap >= 0 and (best is None or len(content) < len(best)):
                best = content
            if gap < 0:
                below = min(below, step)
            if 0 <= gap < _CLOSE:
                break
            step *= 2 ** max(-2.0, min(2.0, (gap - _CLOSE / 2) / 5))
            if step >= below:
                step = 0.97 * below
        while best is None:
            step /= 2
            self._exact = exact  # finer steps end at the field as it was
            content = self._content(step)
            best = content if self._measure(content) >= db else None
        self._measure(best)
        return best

    @property
    def _finishes(self) -> bool:
        """Whether there is something to train. A network given in Python would be trained in place."""
        given = self._field.names["network"] == GIVEN
        return self._fit is not None and self._steps != 0 and bool(self._exact) and not given

    @property
    def _metrics(self) -> list[str]:
        """Names of what is measured: PSNR, or where there is none everything."""
        assert self._fit is not None
        names = self._fit.config.general.metrics
        return ["psnr"] if "psnr" in names else names

    def _line(self, content: bytes) -> str:
        measured = f"{self.after['psnr']:.2f} dB, " if "psnr" in self.after else ""
        return f"{measured}{len(content):,} bytes, {8 * len(content) / self.parameters:.2f} bits a parameter"

    def _measured(self, network: nn.Module) -> dict[str, float]:
        """Metrics of a network; none without a signal."""
        if self._fit is None:
            return {}
        chunk, most = default_chunk(self._device, network), evaluated_most(self._fit.config)
        return evaluate(network, self._fit.signal, self._metrics, chunk, most)

    def _measure(self, content: bytes) -> float:
        """Measure what a file of that content would give back; returns its PSNR, or NaN."""
        state = {name: torch.from_numpy(array) for name, array in unpacked(content)[1].items()}
        self._field.network.load_state_dict(state)
        self.after = self._measured(self._field.network)
        return self.after.get("psnr", math.nan)

    def _shorten_spreads(self, network: Tiles) -> None:
        """Round tiles' factors, and let networks' steps follow them, because errors are multiplied by them too."""
        spreads = network.spreads.cpu().numpy()
        if not ((spreads > 1e-30) & (spreads < 1e30)).all():
            return
        self._short["spreads"] = Short("spreads", spreads.shape, np.array([short(each) for each in spreads.tolist()]))
        rounded = torch.from_numpy(self._short["spreads"].tensor())
        network.spreads.copy_(rounded)
        of_rows = np.log2(rounded.numpy()[network.owners.cpu().numpy()].astype(np.float64))
        self._least = float(of_rows.min())
        self._quarters = np.rint(4 * (of_rows - self._least)).clip(0, MOST_QUARTERS).astype(np.int64)

    def _found_initials(self, network: nn.Module) -> dict[str, Initial]:
        """Where the parameters' initial values are in torch's stream, for those that stayed near them."""
        given = self._field.names["network"] == GIVEN
        if self._fit is None or self._fit.config.general.init or given or not isinstance(network, Network):
            return {}
        seed = self._fit.config.general.seed
        with seeded(seed):
            fresh = type(network)(network.options, network.dimensions, network.channels)
        found = {}
        for name, parameter in fresh.named_parameters():
            if name not in self._exact:
                continue
            widths = self._widths[name]
            drawn, trained = (
                each.reshape(-1, sum(widths)).cpu().numpy() for each in (real(parameter), self._exact[name])
            )
            draws = min(DRAWS, len(drawn)) if isinstance(network, Tiles) else len(drawn)
            initial = found_initial(drawn[:draws], trained, widths, seed)
            if initial is not None:
                found[name] = initial
        return found

    def _stepped(self, name: str, step: float, numbers: np.ndarray | None = None, apart: bool = False) -> Stepped:
        """A parameter in steps, as coarse as they are for values in steps of `step`; `apart` if each group of columns
        has tables of its own, else those of one scale share them."""
        exact, widths = self._exact[name], self._widths[name]
        rows = exact.numel() // sum(widths)
        numbers = np.zeros((rows, sum(widths)), dtype=np.int64) if numbers is None else numbers
        quarters = self._quarters if isinstance(self._field.network, Tiles) else None
        least = 2**self._least if quarters is not None else 1.0
        steps = tuple(short(step / (sensitivity * least)) for _, sensitivity in self._groups[name])
        ends = np.cumsum([0, *widths])
        # In half octaves of their mean size, so that with rows' half octaves they add up to one scale.
        sizes = [np.abs(numbers[:, start:stop]).mean() for start, stop in itertools.pairwise(ends)]
        classes = tuple(round(2 * math.log2(size + 0.25)) + 4 for size in sizes)
        if apart:
            classes = tuple(min(_APART * group, 255) for group in range(len(widths)))
        parameter = dict(self._field.network.named_parameters())[name]
        return Stepped(
            name,
            tuple(parameter.shape),
            numbers,
            widths,
            steps,
            classes,
            quarters,
            0 if quarters is None else 2,
            initial=self._initials.get(name),
            dtype="complex64" if parameter.is_complex() else "float32",
        )

    def _grid(self, name: str, step: float) -> Grid:
        """The values that a parameter may have."""
        exact, stepped = self._exact[name], self._stepped(name, step)
        matrices = (np.broadcast_to(each, stepped.numbers.shape) for each in (stepped.scale(), stepped.origin()))
        scale, origin = (torch.tensor(each, dtype=torch.float32).view(exact.shape) for each in matrices)
        return Grid(scale.to(exact.device), origin.to(exact.device))

    def _means(self, step: float) -> Stepped:
        """The tiles' means, each told from the one before."""
        means = self._tile_means
        code = short(_MEANS * step)
        numbers = np.rint(means / of_short(code)).clip(-LARGEST / 4, LARGEST / 4).astype(np.int64)
        return Stepped("means", means.shape, numbers, (means.shape[1],), (code,), (0,), running=True)

    def _parts(self, step: float, apart: bool) -> list[Part]:
        """The network's state, as coarse as it is for values in steps of `step`; see `_stepped`."""
        parts: list[Part] = []
        for name, tensor in self._field.network.state_dict().items():
            if name in self._exact:
                numbers = self._grid(name, step).numbers(self._exact[name])
                flat = numbers.cpu().numpy().reshape(-1, sum(self._widths[name]))
                parts.append(self._stepped(name, step, flat.astype(np.int64), apart))
            elif name in self._short:
                parts.append(self._short[name])
            elif name == "means" and self._short:
                parts.append(self._means(step))
            else:
                parts.append(Exact(name, tensor.cpu().numpy()))
        return parts

    def _content(self, step: float) -> bytes:
        """The content of the file, with the parameters as they are now.

        Raises:
            ConfigError: steps are too fine to be counted.
        """
        try:
            return min((packed(self._description, self._parts(step, apart)) for apart in self._ways), key=len)
        except OverflowError as error:
            raise ConfigError("steps of weights would be too fine to be counted; ask for less") from error

    def _length(self, step: float) -> float:
        """Bytes of the content; infinite if steps are too fine to be counted."""
        try:
            return len(self._content(step))
        except ConfigError:
            return math.inf

    @property
    def _ways(self) -> tuple[bool, ...]:
        """The ways to share tables that are tried; only several groups can share."""
        return (False, True) if any(len(groups) > 1 for groups in self._groups.values()) else (False,)

    def _step_of_size(self, most: int, asked: str) -> float:
        """The finest step at which a file has `most` bytes at most."""
        fine, coarse = _FINEST, _COARSEST
        least = len(self._content(coarse))
        if least > most:
            raise ConfigError(
                f"a network of {self.parameters:,} parameters takes at least {least:,} bytes, more than {asked} allow; "
                f"fit one of about {8 * most // _BITS_TO_FIT:,} (with tiles, network.parameters=…)"
            )
        step, found = _START, coarse
        for _ in range(_SEARCH):
            size = self._length(step)
            if size <= most:
                found, coarse = step, step
                if size >= _OVER * most:
                    break
            else:
                fine = step
            # At fine steps each octave costs a bit a parameter; a little more brings the other side of the root.
            guess = step * 2 ** (1.02 * 8 * (size - most) / self.parameters) if math.isfinite(size) else 0
            step = guess if fine < guess < coarse else math.sqrt(fine * coarse)
        return found

    def _finish(self, step: float) -> None:
        """Train through the rounding."""
        assert self._fit is not None
        config, network = self._fit.config, self._field.network
        grids = {name: self._grid(name, step) for name in self._exact}
        scales = torch.cat([grid.scale.flatten() for grid in grids.values()])
        adam, schedule = OPTIMIZERS.get("adam"), SCHEDULES.get("polynomial")
        # Never faster than the fit itself, for its rate is known to be stable.
        rate = min(float(scales.median()) / _PACE, getattr(config.optimizer.options, "lr", _RATE))
        steps = self._steps or min(_MOST_STEPS, max(1, round(_SHARE * config.train.steps)))
        choices = {
            **config.choices,
            "optimizer": Choice("adam", adam, adam.Options(lr=rate, beta2=0.95)),
            "schedule": Choice("polynomial", schedule, schedule.Options(warmup=0.05)),
        }
        config = dataclasses.replace(
            config,
            choices=choices,
            train=dataclasses.replace(
                config.train, steps=steps, seconds=0.0, compile="never", capture="never", on_divergence="stop"
            ),
            log=dataclasses.replace(config.log, every=steps),
            general=dataclasses.replace(config.general, init="", init_skip=[], metrics=self._metrics),
        )
        state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        for name, exact in self._exact.items():
            complex_ = state[name].is_complex()
            state[name] = torch.view_as_complex(exact.contiguous()) if complex_ else exact.view(state[name].shape)
        if self._short:
            state["means"] = torch.from_numpy(self._means(step).tensor())
        beginning = dataclasses.replace(Beginning.of(self._field), weights=state)
        config = begun(config, self._fit.signal, beginning)
        precision = choose_precision(config.train.precision, self._device)
        member = build(config, self._fit.signal, self._device, precision, beginning)
        member.evaluate_most = _GLANCE
        rounding = StraightThrough(
            {name: each for name, each in member.network.named_parameters() if name in grids}, grids
        )
        member.listeners = [rounding]
        Trainer([member]).run()
        self.steps_done += steps
        self._exact = rounding.exact
        dataset = self._fit.signal.dataset
        if dataset.resample_every:
            dataset.advance(0)  # so that all measurements are at the same points
