"""Regions: boxes of whole tiles that a large signal is cut into, each fitted by itself, and one field of all of them.

Tiles share no parameters, and a region's tiles are those that the whole signal has there. So the fields of regions are
put together without a seam: where two tiles meet they are blended as ever, be they of one region or of two.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inrkit.config import Config
from inrkit.errors import ConfigError, DataError
from inrkit.files import LOCK, from_json, require_file, to_json, write_text, written_whole
from inrkit.networks import Tiles
from inrkit.networks.tiles import TilesOptions, divided_evenly
from inrkit.runs.build import field_of
from inrkit.runs.field import read_field, write_field
from inrkit.runs.run import Run
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.decoding import mapped_array
from inrkit.signals.digest import digest
from inrkit.signals.parts import MARGIN, Part, known_inside
from inrkit.signals.signal import Signal
from inrkit.signals.tiled import Survey, filled
from inrkit.signals.transforms import TRANSFORMS, ValueTransform
from inrkit.training.member import Listener, Member
from inrkit.training.optimizers.given import Given as GivenOptimizer

FOLDER = "regions"
"""Of a run, for all that its regions leave behind."""
VALUES = 1 << 24
"""Most values of a region, unless said otherwise: a region takes about a GiB of memory with its training."""
LAYOUT = "layout.json"
"""Of the folder of regions: how the signal is cut."""
_ARRAYS = ("values", "cells", "weights")
"""What regions map into memory of a signal, as .npy: its values, the list of its known cells, and its weights."""


@dataclass(frozen=True)
class Layout:
    """How a signal is cut, and what all regions have in common; it is plain JSON.

    Args:
        network: options of the whole field's network.
        signal: the whole signal's digest.
        windows: of each region, as `TilesOptions.window`.
        held: of each region, whether something in it is known.
        counted: of each region, how many of its cells are known, or the sum of their weights.
        transform: name and state of the whole signal's value transform.
        extent: smallest and largest value of the whole signal; None if PSNR does not refer to them.
        channel_weights: the signal's.
        full_scale: the signal's.
        stored: whether the signal's values are stored beside the regions, because its file cannot be mapped.
    """

    network: dict[str, Any]
    signal: str
    windows: list[list[int]]
    held: list[bool]
    counted: list[float]
    transform: dict[str, Any]
    extent: tuple[float, float] | None
    channel_weights: tuple[float, ...]
    full_scale: bool
    stored: bool

    @classmethod
    def of(cls, config: Config, signal: Signal) -> Layout:
        """Cut a signal.

        Raises:
            ConfigError: it cannot be cut, or the config's parts do not act on tiles.
        """
        dataset = signal.dataset
        if config.network.plugin is not Tiles:
            raise ConfigError(
                f"only a network of tiles can be fitted region by region, and network is '{config.network.name}'; "
                "choose network=tiles, or leave --workers and --launcher out"
            )
        if dataset.grid_shape is None:
            raise ConfigError(
                "only a signal on a lattice can be cut into regions, and this one has free points; leave --workers and "
                "--launcher out"
            )
        if config.general.init:
            raise ConfigError("regions cannot begin with the weights of another fit; leave init out")
        if issubclass(config.optimizer.plugin, GivenOptimizer):
            raise ConfigError(
                "regions are fitted by other processes, which get no optimizer that is a Python object; choose one by "
                "its name, such as optimizer=adam"
            )
        options = Tiles.fitted(config.network.options, signal)
        windows = _windows(options, dataset.channels, config.regions.values)
        known, counted = zip(*(_counted(dataset, *box_of(options, window)) for window in windows), strict=True)
        transform = {"name": config.transform.name, "state": signal.transform.state()}
        to_extent = dataset.value_range is None or not dataset.full_scale
        return cls(
            network=dataclasses.asdict(options),
            signal=digest(dataset),
            windows=windows,
            held=[count > 0 for count in known],
            counted=list(counted),
            transform=transform,
            extent=dataset.extent if to_extent else None,
            channel_weights=tuple(dataset.channel_weights.tolist()),
            full_scale=dataset.full_scale,
            stored=not dataset.mapped or not config.data.path,
        )

    @classmethod
    def read(cls, folder: Path) -> Layout:
        """From a run's folder of regions.

        Raises:
            DataError: it is missing or damaged.
        """
        path = folder / LAYOUT
        try:
            require_file(path)
            found = cls(**from_json(path.read_text(encoding="utf-8")))
            found._check()
            return found
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise DataError(
                f"{path} is missing or damaged; remove it and go on with inrkit fit {folder.parent} --resume"
            ) from error

    def write(self, folder: Path) -> None:
        write_text(folder / LAYOUT, to_json(dataclasses.asdict(self)))

    def _check(self) -> None:
        """Raise some error if it is no layout that `of` makes."""
        options = self.options
        _ = self.value_transform
        areas = [
            math.prod(stop - first for first, stop in zip(window[::2], window[1::2], strict=True))
            for window in self.windows
            if dataclasses.replace(options, window=window).window  # refuses one beyond the tiles
        ]
        lengths = {len(self.windows), len(areas), len(self.held), len(self.counted)}
        if len(options.lattice) != len(options.counts) or sum(areas) != math.prod(options.counts) or len(lengths) > 1:
            raise ValueError("windows")
        if not all(0 <= count < math.inf for count in self.counted) or sum(self.counted) == 0:
            raise ValueError("counted")
        if self.extent is not None and not self.extent[0] <= self.extent[1]:
            raise ValueError("extent")

    def __len__(self) -> int:
        """How many regions there are."""
        return len(self.windows)

    @cached_property
    def options(self) -> TilesOptions:
        """Of the whole field's network."""
        return TilesOptions(**self.network)

    @property
    def value_transform(self) -> ValueTransform:
        """The whole signal's."""
        transform: ValueTransform = TRANSFORMS.get(self.transform["name"]).from_state(self.transform["state"])
        return transform

    def options_of(self, number: int) -> dict[str, Any]:
        """Options of a region's network."""
        return {**self.network, "window": self.windows[number], "networks": 0}

    def box(self, number: int) -> tuple[list[int], list[int]]:
        """A region's first cells, and those after its last, along each axis."""
        return box_of(self.options, self.windows[number])

    def values(self, number: int) -> int:
        """How many values a region has, but for a factor that all have in common."""
        return math.prod(stop - start for start, stop in zip(*self.box(number), strict=True))


def store(dataset: CoordinateDataset, folder: Path, whole: bool) -> None:
    """Write what regions map into memory.

    Args:
        dataset: the signal.
        folder: of its regions.
        whole: all of it, since its own file cannot be mapped; else its weights alone.
    """
    arrays = dict.fromkeys(_ARRAYS)
    if whole:
        arrays["values"] = dataset.stored_array()
        arrays["cells"] = None if dataset.known is None else dataset.known.numpy()
    arrays["weights"] = None if dataset.weights is None else dataset.weights.numpy()
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        if array is not None and not path.exists():
            with written_whole(path) as aside:
                np.save(aside, array)


def forget(folder: Path) -> None:
    """Remove what regions have needed and no resumed run does."""
    stored = [folder / f"{name}.npy" for name in _ARRAYS]
    for path in [*stored, *folder.glob("*/field.safetensors"), *folder.glob(f"*/{LOCK}")]:  # locks of killed workers
        with contextlib.suppress(OSError):  # of no harm where it cannot be removed
            path.unlink()


def open_region(config: Config, folder: Path, number: int) -> Signal:
    """The signal of one region, which alone is in memory.

    Args:
        config: of the whole fit.
        folder: of its regions.
        number: of the region.

    Raises:
        DataError: the signal cannot be read.
    """
    layout = Layout.read(folder)
    dataset = _stored(layout, folder) if layout.stored else config.modality.make().read(Path(config.data.path))
    if config.data.weights or (folder / "weights.npy").exists():
        dataset.weights = torch.from_numpy(_mapped(folder, "weights"))
    if layout.extent is not None:
        dataset.extent = layout.extent[0], layout.extent[1]
    margin = MARGIN + math.ceil(max(layout.options.tiling().overlaps))
    return Signal(Part(dataset, *layout.box(number), margin), layout.value_transform)


class Until(Listener):
    """Ends a training when a share of it is done.

    Args:
        share: of the steps, or of the seconds where these are limited.
    """

    def __init__(self, share: float) -> None:
        self.share = share

    def on_start(self, member: Member) -> None:
        if not member.budget and self._reached(member):  # one that was killed before it could say so
            member.stop()

    def on_step(self, member: Member, selected: int) -> None:
        if self._reached(member):
            member.stop()

    def _reached(self, member: Member) -> bool:
        done = member.seconds["train"] if member.budget else member.step
        return done >= self.share * (member.budget or member.steps)


def assemble(config: Config, signal: Signal, layout: Layout, run: Run) -> None:
    """Write a run's field.safetensors from those of its regions, without having them in memory.

    Raises:
        DataError: the field of a region is missing or damaged.
        RunError: the file cannot be written.
    """
    options = layout.options
    tiling, channels = options.tiling(), signal.dataset.channels
    means, spreads = torch.zeros(len(tiling), channels), torch.ones(len(tiling))
    slots = torch.full((len(tiling),), -1)
    numbers = torch.arange(len(tiling)).view(tiling.shape)
    holding = torch.zeros(len(tiling), dtype=torch.bool)
    weights: list[torch.Tensor] = []
    networks = 0
    for number, window in enumerate(layout.windows):
        if not layout.held[number]:
            continue
        box = tuple(slice(first, stop) for first, stop in zip(window[::2], window[1::2], strict=True))
        tiles = numbers[box].reshape(-1)
        parts = _parts_of(run, number, len(tiles), channels, weights)
        means[tiles], spreads[tiles], holding[tiles] = parts["means"], parts["spreads"], True
        slots[tiles] = torch.where(parts["slots"] < 0, -1, parts["slots"] + networks)
        weights.append(parts["weights"])
        networks += len(parts["weights"])
    means = filled(Survey(means, spreads, slots < 0), holding, tiling).means
    with torch.device("meta"):
        network = Tiles(dataclasses.replace(options, networks=networks), signal.dataset.dimensions, channels)
    description = field_of(config, network, signal).description()
    state: dict[str, torch.Tensor | Sequence[torch.Tensor]] = {
        "weights": weights,
        "means": means,
        "spreads": spreads,
        "slots": slots,
    }
    write_field(run.folder / "field.safetensors", description, state)


def _parts_of(run: Run, number: int, tiles: int, channels: int, others: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of a region's network.

    Args:
        run: of the whole fit.
        number: of the region.
        tiles: how many it has.
        channels: C.
        others: weights of other regions, whose rows are as long.

    Raises:
        DataError: its file is missing or damaged, or another network's.
    """
    path = region_run(run, number).folder / "field.safetensors"
    try:
        _, parts = read_field(path)
        weights = parts["weights"]
        first = others[0] if others else weights
        found = {name: tuple(tensor.shape) for name, tensor in parts.items() if name != "weights"}
        alike = weights.ndim == 2 and (weights.shape[1:], weights.dtype) == (first.shape[1:], first.dtype)
        if not alike or found != {"means": (tiles, channels), "spreads": (tiles,), "slots": (tiles,)}:
            raise ValueError("shapes")
        return parts
    except (DataError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} is missing or damaged; remove it and go on with inrkit fit {run.folder} --resume"
        ) from error


def region_run(run: Run, number: int) -> Run:
    """The run of one region."""
    return Run(run.folder / FOLDER / f"{number:05d}")


def box_of(options: TilesOptions, window: Sequence[int]) -> tuple[list[int], list[int]]:
    """The first cells of a window of tiles, and those after its last, along each axis."""
    axes = list(zip(options.lattice, options.counts, strict=True))
    starts = [first * length // count for first, (length, count) in zip(window[::2], axes, strict=True)]
    stops = [stop * length // count for stop, (length, count) in zip(window[1::2], axes, strict=True)]
    return starts, stops


def _windows(options: TilesOptions, channels: int, most: int) -> list[list[int]]:
    """Windows of tiles that cover all, each of at most so many values where a tile has no more."""
    tiles, lattice = options.counts, options.lattice
    wanted = math.ceil(math.prod(lattice) * channels / most)
    while True:
        counts = [min(count, along) for count, along in zip(divided_evenly(lattice, wanted), tiles, strict=True)]
        # A region's longest side is a tile longer than its shortest, at most.
        sides = [
            math.ceil(along / count) * math.ceil(length / along)
            for along, count, length in zip(tiles, counts, lattice, strict=True)
        ]
        if math.prod(sides) * channels <= most or counts == tiles:
            break
        wanted += 1
        if wanted > math.prod(tiles):
            counts = list(tiles)
            break
    along = [
        [(place * tile // count, (place + 1) * tile // count) for place in range(count)]
        for tile, count in zip(tiles, counts, strict=True)
    ]
    return [[end for pair in pairs for end in pair] for pairs in itertools.product(*along)]


def _counted(dataset: CoordinateDataset, start: Sequence[int], stop: Sequence[int]) -> tuple[int, float]:
    """How many cells of a box are known, and the sum of their weights, or their number if there are none."""
    assert dataset.grid_shape is not None
    box = tuple(slice(first, end) for first, end in zip(start, stop, strict=True))
    inside = None if dataset.known is None else known_inside(dataset.known, dataset.grid_shape, box)
    count = math.prod(end - first for first, end in zip(start, stop, strict=True))
    if inside is not None:
        count = int(np.count_nonzero(inside))
    if dataset.weights is None:
        return count, float(count)
    return count, float(dataset.weights[box].numpy().sum(dtype=np.float64, where=True if inside is None else inside))


def _stored(layout: Layout, folder: Path) -> CoordinateDataset:
    """The signal that `store` has written, but for its weights.

    Raises:
        DataError: it is missing.
    """
    weights = tuple(layout.channel_weights)
    dataset = CoordinateDataset(_mapped(folder, "values"), channel_weights=weights, full_scale=layout.full_scale)
    if (folder / "cells.npy").exists():
        dataset.known = torch.from_numpy(_mapped(folder, "cells"))
    return dataset


def _mapped(folder: Path, name: str) -> np.ndarray:
    """An array that `store` has written.

    Raises:
        DataError: it is missing.
    """
    path = folder / f"{name}.npy"
    if not path.exists():
        raise DataError(f"{path}, a part of the signal, is missing; go on with inrkit fit {folder.parent} --resume")
    return mapped_array(path)
