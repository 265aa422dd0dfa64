"""Tiles: many small networks, each for a part of the signal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from inrkit.errors import ConfigError
from inrkit.networks.base import NETWORKS, Network
from inrkit.networks.layers import precision_of
from inrkit.networks.native import MOST_AXES, SirenKernel, fused_siren, siren_kernel
from inrkit.networks.siren import Siren
from inrkit.plugins.options import field_names, option, parse
from inrkit.signals.signal import Signal
from inrkit.signals.tiled import TiledSignal, tiled
from inrkit.signals.tiling import Tiling

if TYPE_CHECKING:
    from inrkit.networks.native.fused import FusedSiren

_NARROW: dict[str, Any] = {"name": "siren", "hidden_features": 24, "hidden_layers": 2, "first_omega": 20.0}
"""A tile's network, unless `each` says otherwise."""
DRAWS = 64
"""Initial networks that are drawn; more tiles begin with the same ones in turn."""
_VIRTUAL = 32
"""Cells of a tile's side for free points."""
_LEAST_SPREAD = 1e-3
"""Of a tile's values, in the network's range; below it a network would learn rounding."""
_SMALL = 200_000
"""Values of a signal that gets a parameter for each."""
_LARGE = 50_000_000
"""Values from which on there is less time than parameters: each network of more would be visited too seldom."""
_NARROWEST = 8
"""Width to which a tile's network is reduced where a single one would exceed the budget."""
_LEAST_POINTS = 16
"""Free points for each network."""
_MOST_TILES = 1 << 22
"""Tiles in all, constant ones included."""
_TRIES = 8
"""Tilings that are tried, because how many tiles are constant shows only then."""
_BLOCK = 256
"""Most points of a block."""


@dataclass
class TilesOptions:
    each: dict[str, Any] = option({})
    """A tile's network: its name and options. What is not given of name=siren, hidden_features=24, hidden_layers=2 and
    first_omega=20 is so. Its coordinates span the tile, so its ω are radians in half of a tile's longest side."""
    parameters: int = option(0, at_least=0)
    """Most parameters of all networks together; 0 for `values_per_parameter` instead."""
    values_per_parameter: float = option(0.0, at_least=0)
    """Values of the signal for each parameter, if `parameters` is 0. 0 lets it grow with the signal: 1 up to 200,000
    values; from there as the square root of their number, up to 5; above 50 million as its fourth root."""
    overlap: float = option(1.0, at_least=0)
    """Cells by which a tile reaches over its borders, where it is blended with the next one."""
    points: int = option(256, at_least=1)
    """About how many points of a tile a step trains on, where tiles are selected."""
    between: float = option(0.25, at_least=0, at_most=1)
    """Share of steps whose points lie between a lattice's samples, on the signal's cubic spline, where tiles are
    selected and all of the signal is known."""
    lattice: list[int] = option([])
    """The signal's cells along each axis, found when the signal is known."""
    counts: list[int] = option([])
    """Tiles along each axis; [] for as many as the parameters allow."""
    window: list[int] = option([])
    """If these are the tiles of a part of the signal: along each axis its first tile and the one after its last."""
    networks: int = option(0, at_least=0)
    """How many tiles have a network, found when the signal is known; the others are constant. 0 for all."""

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.lattice) and self.counts and self.lattice:
            raise ValueError(f"counts has {len(self.counts)} axes and lattice {len(self.lattice)}")
        if min([*self.counts, *self.lattice], default=1) < 1:
            raise ValueError("counts and lattice must be at least 1 along each axis")
        if self.window and not (
            len(self.window) == 2 * len(self.counts)
            and all(
                0 <= first < stop <= count
                for first, stop, count in zip(self.window[::2], self.window[1::2], self.counts, strict=True)
            )
        ):
            raise ValueError(f"window is {self.window}; it must be a first tile and a last one more, for each axis")

    def tiling(self) -> Tiling:
        """Where the tiles are, once their counts are known."""
        window = list(zip(self.window[::2], self.window[1::2], strict=True)) or None
        return Tiling(self.lattice or self.counts, self.counts, self.overlap, window)


@NETWORKS.register("tiles")
class Tiles(Network):
    """A network for each tile of the signal, all of one kind, blended where tiles overlap (KiloNeRF, ICCV 2021; MINER,
    ECCV 2022).

    Tiles share no parameters, so each may train as often as it needs. A tile's values are its signal's mean, and its
    network's output times its signal's spread. A tile in which the signal is constant has no network.

    The number of tiles follows from the parameters: a larger signal has more tiles of the same size.

    Attributes:
        tiling: where the tiles are.
        each: the network of one tile; it has no parameters of its own.
        weights: (U, P) parameters of the U networks.
        means: (T, C) mean of each tile's values.
        spreads: (T,) factor of each tile's network.
        slots: (T,) int64 row of each tile's network in `weights`; −1 for none.
        layout: names and shapes of the parameters of one network, in the order of the columns of `weights`.
        native: whether machine code may take the place of torch, where there is some.
        fused: whether a kernel in Triton trains the networks, where there is Triton.
    """

    Options = TilesOptions
    tiled = True
    exact = True
    native = True
    fused = False
    means: Tensor
    spreads: Tensor
    slots: Tensor

    def __init__(self, options: TilesOptions, dimensions: int, channels: int) -> None:
        super().__init__(options, dimensions, channels)
        self.tiling = dataclasses.replace(options, counts=options.counts or [1] * dimensions).tiling()
        total = len(self.tiling)
        networks = options.networks or total
        plugin, each_options = each_network(options)
        # On the meta device nothing is drawn; only the shapes are wanted.
        most = 1 if torch.get_default_device().type == "meta" else DRAWS
        draws = [plugin(each_options, dimensions, channels) for _ in range(min(most, networks))]
        flat = torch.stack([nn.utils.parameters_to_vector(draw.parameters()).detach() for draw in draws])
        self.weights = nn.Parameter(flat[torch.arange(networks) % len(draws)].contiguous())
        self.each = draws[0]
        self.layout = [(name, parameter.shape) for name, parameter in self.each.named_parameters()]
        _strip(self.each)
        self.register_buffer("means", torch.zeros(total, channels))
        self.register_buffer("spreads", torch.ones(total))
        slots = torch.full((total,), -1)
        slots[:networks] = torch.arange(networks)
        self.register_buffer("slots", slots)

    @classmethod
    def of(cls, options: TilesOptions, dimensions: int, channels: int, state: Mapping[str, Tensor]) -> Tiles:
        """A network with a state that there is already.

        The state's tensors are taken as they are: of a memory map, only the tiles that are asked for are read.

        Args:
            options: of the network that the state is of.
            dimensions: D.
            channels: C.
            state: from `state_dict`, of the same shapes.

        Raises:
            RuntimeError: it is not such a state.
        """
        network = cls(dataclasses.replace(options, networks=1), dimensions, channels)
        network.options = options
        network.weights = nn.Parameter(network.weights.new_empty(state["weights"].shape, device="meta"))
        own = network.state_dict()
        state = {name: given.to(own[name].dtype) if name in own else given for name, given in state.items()}
        network.load_state_dict(state, assign=True)
        return network

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        errors = rest[-1]
        if self.slots.numel() and not -1 <= int(self.slots.min()) <= int(self.slots.max()) < len(self.weights):
            errors.append("slots are no rows of the weights")  # machine code would read beyond them

    @classmethod
    def fitted(cls, options: TilesOptions, signal: Signal) -> TilesOptions:
        if signal.embedded:
            raise ConfigError("network=tiles takes coordinates as they are; choose embedding=identity")
        dataset = signal.dataset
        plugin, each = each_network(options)
        values = len(signal) * dataset.channels
        share = options.values_per_parameter or _values_per_parameter(values)
        # Of a part, all of it was decided for the whole.
        budget = math.inf if options.window else options.parameters or math.ceil(values / share)
        size = _size(plugin, each, dataset.dimensions, dataset.channels)
        while size > budget and getattr(each, "hidden_features", 0) > _NARROWEST:
            each = dataclasses.replace(each, hidden_features=max(_NARROWEST, each.hidden_features - 4))
            size = _size(plugin, each, dataset.dimensions, dataset.channels)
        options = dataclasses.replace(options, each={"name": _name(options), **dataclasses.asdict(each)})
        if not options.counts:
            most = max(1, int(budget // size))
            if dataset.grid_shape is None:
                most = min(most, max(1, len(signal) // _LEAST_POINTS))
            return _divided(options, signal, most)
        if len(options.counts) != dataset.dimensions:
            raise ConfigError(
                f"network.counts is {options.counts}; it must have {dataset.dimensions} numbers, one for each axis"
            )
        lattice = list(dataset.whole or [_VIRTUAL * count for count in options.counts])
        if any(count > length for count, length in zip(options.counts, lattice, strict=True)):
            raise ConfigError(f"network.counts is {options.counts}; the signal has {'×'.join(map(str, lattice))} cells")
        options = dataclasses.replace(options, lattice=lattice)
        return dataclasses.replace(options, networks=max(1, _varying(options, signal)))

    def meet(self, signal: Signal) -> None:
        survey = self.view(signal).survey()
        self.means.copy_(survey.means)
        self.spreads.copy_(survey.spreads.clamp(min=_LEAST_SPREAD))
        varying = (~survey.constant).nonzero()[:, 0]
        if not len(varying):  # a constant signal still has something to train
            varying = torch.zeros(1, dtype=torch.int64, device=self.slots.device)
        self.slots.fill_(-1)
        self.slots[varying] = torch.arange(len(varying), device=self.slots.device)

    def view(self, signal: Signal) -> TiledSignal:
        """The signal, seen by this network's tiles."""
        return tiled(signal, self.tiling)

    @property
    def kernel(self) -> SirenKernel | None:
        """Machine code for the networks; None where there is none for their kind, or for this machine."""
        here = self.native and self.weights.device.type == "cpu" and self.dimensions <= MOST_AXES
        return siren_kernel(*self._sines) if here and self._sines is not None else None

    @property
    def trained_by(self) -> SirenKernel | FusedSiren | None:
        """What trains the networks in place of torch; None for torch."""
        if self.fused:
            return None if self._sines is None else fused_siren(*self._sines)
        return self.kernel

    @property
    def _sines(self) -> tuple[int, int, int, int, float, float] | None:
        """The shape of the networks as `siren_kernel` takes it; None if they are not plain SIRENs in float32."""
        each, precise = self.each, self.weights.dtype == torch.float32
        if type(each) is not Siren or precision_of(each) != "float32" or not precise:
            return None
        options = each.options
        omegas = options.first_omega, options.hidden_omega
        return self.dimensions, self.channels, options.hidden_features, options.hidden_layers, *omegas

    @property
    def networks(self) -> int:
        """U."""
        return len(self.weights)

    @property
    def shapes(self) -> list[torch.Size]:
        """Of a network's parameters, in their order in a row of `weights`."""
        return [shape for _, shape in self.layout]

    @property
    def widths(self) -> list[int]:
        """How many columns of `weights` each tensor of a tile's network has, in their order."""
        return [shape.numel() for _, shape in self.layout]

    @property
    def owners(self) -> Tensor:
        """(U,) int64 the tile of each network."""
        tiles = torch.arange(len(self.slots), device=self.slots.device)
        rows = torch.where(self.slots >= 0, self.slots, self.networks)  # tiles without one share a place beyond the end
        return tiles.new_zeros(self.networks + 1).scatter_(0, rows, tiles)[:-1]

    def forward(self, coordinates: Tensor) -> Tensor:
        points = coordinates.reshape(-1, self.dimensions)
        # Machine code has no derivatives; only in inference mode does nobody ask for them.
        kernel = self.kernel if torch.is_inference_mode_enabled() else None
        if kernel is not None:
            values = kernel.blend(self.tiling, points, self.slots, self.means, self.spreads, self.weights)
            return values.view(*coordinates.shape[:-1], self.channels)
        positions = self.tiling.positions(points)
        place, tile, share = self.tiling.cover(positions)
        # Exact coordinates may be in main memory, and so is then what is made of them to find each point's tiles.
        device, dtype = self.weights.device, self.weights.dtype
        slot = self.slots.to(tile.device)[tile]
        having = (slot >= 0).nonzero()[:, 0]
        order = slot[having].argsort(stable=True)
        chosen = having[order]
        local = self.tiling.local(positions[place[chosen]] - self.tiling.origins(tile[chosen])).to(dtype).to(device)
        place, tile, share, slot, chosen = (each.to(device) for each in (place, tile, share.to(dtype), slot, chosen))
        values = self.means[tile]
        if len(chosen):
            predicted = self._grouped(slot[chosen], local) * self.spreads[tile[chosen], None]
            values = values.index_add(0, chosen, predicted)
        blended = torch.zeros(len(points), self.channels, dtype=values.dtype, device=device)
        blended = blended.index_add(0, place, values * share[:, None])
        return blended.view(*coordinates.shape[:-1], self.channels)

    def rows(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """(q, k, C) outputs of q networks.

        Args:
            weights: (q, P) their parameters.
            inputs: (q, k, D) in their tiles' own coordinates, or (1, k, D).
        """
        values: Tensor = vmap(self._single)(weights, inputs.expand(len(weights), -1, -1))
        return values

    def _single(self, weights: Tensor, inputs: Tensor) -> Any:
        parts = weights.split(self.widths)
        named = {name: part.view(shape) for (name, shape), part in zip(self.layout, parts, strict=True)}
        return functional_call(self.each, named, (inputs,))

    def _grouped(self, slots: Tensor, local: Tensor) -> Tensor:
        """(m, C) outputs at (m, D) points of networks `slots`, (m,) in ascending order.

        The points of each network are cut into blocks of one size, the last one padded, so that the cost follows the
        points however unevenly they lie.
        """
        networks, counts = torch.unique_consecutive(slots, return_counts=True)
        block = min(_BLOCK, 1 << max(0, (max(1, len(slots) // len(networks)) - 1).bit_length()))
        blocks = torch.div(counts + block - 1, block, rounding_mode="floor")
        owner = torch.repeat_interleave(networks, blocks)
        # Where each network's points begin in the padded list.
        begin = (blocks.cumsum(0) - blocks) * block
        within = torch.arange(len(slots), device=slots.device) - torch.repeat_interleave(
            counts.cumsum(0) - counts, counts
        )
        at = torch.repeat_interleave(begin, counts) + within
        padded = torch.zeros(len(owner) * block, self.dimensions, dtype=local.dtype, device=local.device).index_copy(
            0, at, local
        )
        values = self.rows(self.weights[owner], padded.view(len(owner), block, self.dimensions))
        return values.reshape(-1, self.channels)[at]


def _values_per_parameter(values: int) -> float:
    """How many of so many values a parameter stands for, unless options say it."""
    return min(5.0, max(1.0, math.sqrt(values / _SMALL))) * max(1.0, values / _LARGE) ** 0.25


def _name(options: TilesOptions) -> str:
    """The name of a tile's network."""
    return str(options.each.get("name", _NARROW["name"]))


def each_network(options: TilesOptions) -> tuple[type[Network], Any]:
    """The class and options of a tile's network.

    Raises:
        ConfigError: there is no such network, or it has no such options.
    """
    name = _name(options)
    plugin = NETWORKS.get(name)
    if plugin.tiled:
        raise ConfigError("network.each is 'tiles'; a tile's network is a single one, such as siren")
    known = field_names(plugin.Options)
    narrow = _NARROW if name == _NARROW["name"] else {"hidden_features": _NARROW["hidden_features"]}
    options_given = {key: value for key, value in options.each.items() if key != "name"}
    unless = {key: value for key, value in narrow.items() if key in known}
    parsed, errors = parse(plugin.Options, {**unless, **options_given}, "network.each")
    if errors:
        raise ConfigError("\n".join(errors))
    return plugin, parsed


def _size(plugin: type[Network], options: Any, dimensions: int, channels: int) -> int:
    """Parameters of a tile's network."""
    with torch.random.fork_rng(devices=[]):
        network = plugin(options, dimensions, channels)
    return sum(parameter.numel() for parameter in network.parameters())


def _strip(network: nn.Module) -> None:
    """Take the parameters out of a network, so that it can only be called with others'."""
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            del module._parameters[name]
            setattr(module, name, None if parameter is None else torch.empty(parameter.shape, device="meta"))


def _varying(options: TilesOptions, signal: Signal) -> int:
    """How many tiles are not constant."""
    return int((~tiled(signal, options.tiling()).survey().constant).sum())


def _divided(options: TilesOptions, signal: Signal, most: int) -> TilesOptions:
    """The options with the finest tiling found of which at most `most` tiles are not constant."""
    lattice = list(signal.dataset.grid_shape or [])
    dimensions = signal.dataset.dimensions
    found, low, high, allowed = None, 0.0, math.inf, float(most)
    for _ in range(_TRIES):
        counts = divided_evenly(lattice or [_MOST_TILES] * dimensions, min(allowed, _MOST_TILES))
        tried = dataclasses.replace(options, counts=counts, lattice=lattice or [_VIRTUAL * count for count in counts])
        varying = _varying(tried, signal)
        if varying <= most:
            found, low = dataclasses.replace(tried, networks=max(1, varying)), allowed
            if varying == math.prod(counts) or varying >= 0.95 * most or allowed >= _MOST_TILES:
                break
        else:
            high = allowed
        allowed = min(low * most / max(1, varying) if varying <= most else math.inf, math.sqrt(low * high), 8 * low)
    assert found is not None, "the first tiling has at most `most` tiles"
    return found


def divided_evenly(lattice: list[int], most: float) -> list[int]:
    """How many boxes a lattice is cut into along each axis: at most `most` in all, as near to cubes as it allows."""
    counts, left = [1] * len(lattice), float(most)
    axes = sorted(range(len(lattice)), key=lambda axis: lattice[axis])
    for done, axis in enumerate(axes):
        # If an axis is too short for its share, the longer axes take the rest.
        rest = [lattice[other] for other in axes[done:]]
        side = (math.prod(rest) / left) ** (1 / len(rest))
        counts[axis] = max(1, min(lattice[axis], math.floor(lattice[axis] / side + 1e-9)))
        left /= counts[axis]
    return counts
