"""A signal seen tile by tile: what a tile's network trains on in one visit."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from inrkit.device import available_memory, free_memory, gathered, wide, widest
from inrkit.signals.lattice import mirrored, places_of
from inrkit.signals.operators import NoneOptions, NoOperator
from inrkit.signals.parts import Part
from inrkit.signals.signal import Signal
from inrkit.signals.tiling import Tiling

_CELLS = 1 << 20
"""Cells that are looked at together when all tiles are surveyed."""


@dataclass(frozen=True)
class Visit:
    """The points of q tiles at one step.

    Args:
        inputs: (q, k, D) float32 in the tiles' own coordinates; (1, k, D) where they are the same for all.
        targets: (q, k, C) float32 in the network's range.
        weights: (q, k) float32, how much each point counts; 0 for what is not known. None for 1 each.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class Survey:
    """What the tiles hold, all T of them.

    Args:
        means: (T, C) float32 mean values, in the network's range; of a tile that holds nothing, those of the nearest.
        spreads: (T,) float32 root mean squared deviation from the mean.
        constant: (T,) bool, whether all values of a tile are equal, or it holds none.
    """

    means: Tensor
    spreads: Tensor
    constant: Tensor


_LAST: WeakKeyDictionary[Signal, tuple[object, Survey]] = WeakKeyDictionary()
"""The last survey of each signal: the one by which a tiling was chosen is soon asked for again."""


class TiledSignal(ABC):
    """A signal and its tiles.

    Args:
        signal: with coordinates that are not embedded.
        tiling: of [−1, 1]^D.
    """

    def __init__(self, signal: Signal, tiling: Tiling) -> None:
        self.signal = signal
        self.tiling = tiling

    def survey(self) -> Survey:
        """What the tiles hold, in one pass over the signal; that of the signal's last tiling is kept."""
        tiling = self.tiling
        asked = (tiling.lattice, tiling.counts, tiling.overlaps, tiling.firsts, tiling.shape, self.signal.dataset.round)
        kept = _LAST.get(self.signal)
        if kept is None or kept[0] != asked:
            kept = _LAST[self.signal] = asked, self._surveyed()
        return kept[1]

    @abstractmethod
    def _surveyed(self) -> Survey: ...

    @abstractmethod
    def begin(self, points: int, between: float, generator: torch.Generator) -> Any:
        """Draw where in the tiles the visits of a step go.

        Args:
            points: k, about how many of a tile.
            between: probability that they lie between the samples, on the signal's cubic spline.
            generator: source of randomness, on the CPU: what it draws says how large tensors are.
        """

    @abstractmethod
    def visit(self, plan: Any, tiles: Tensor) -> Visit:
        """The points of (q,) tiles as `begin` drew them. The tiles' numbers are in main memory where visits gather
        there, so that a GPU need not be waited for."""

    def gathers_away(self, plan: Any) -> bool:
        """Whether what visits with a plan take is gathered in main memory, while the signal is on a GPU."""
        return self.signal.dataset.away

    @abstractmethod
    def kind(self, plan: Any) -> Any:
        """What the sizes of a visit with a plan follow from, and the operations that make it; it can be compared."""

    @abstractmethod
    def held(self, plan: Any) -> Any:
        """A plan in tensors of its own, which `refill` fills."""

    @abstractmethod
    def refill(self, held: Any, plan: Any) -> None:
        """Fill a held plan with another one of the same kind."""

    def response(self, plan: Any, errors: Tensor) -> Tensor:
        """(q,) mean squared response of the lattice's Laplacian to errors at a plan's points; 0 where these have no
        neighbours.

        Args:
            plan: from `begin`.
            errors: (q, k, C) at its points, 0 where the signal is not known.
        """
        return errors.new_zeros(len(errors))

    @property
    def keeps_spline(self) -> bool:
        """Whether visits between the samples keep the coefficients of the signal's spline, a number for each value."""
        return False

    @property
    def spline_away(self) -> bool:
        """Whether these numbers stay in main memory, where the signal is on a GPU."""
        return False

    def rebuild(self) -> None:
        """The signal's points were drawn anew."""


def tiled(signal: Signal, tiling: Tiling) -> TiledSignal:
    """A lattice or free points, tile by tile."""
    return TiledPoints(signal, tiling) if signal.dataset.grid_shape is None else TiledLattice(signal, tiling)


@dataclass(frozen=True)
class _Grid:
    """Even points of a lattice's tiles, along each axis from a tile's first cell on. Numbers may be () tensors.

    Args:
        cells: (length,) int64 whole cells.
        spans: how far the last cell is from the first.
        offsets: of the points, in cells from the beginnings of these.
        firsts: the first cell whose coefficient the spline has a part of.
        splines: the four B-splines around a point; None where the points are samples.
        here: `cells` in main memory, if visits gather there while the signal is on a GPU: to read them back, the
            processor would wait for it. Else none.
    """

    cells: tuple[Tensor, ...]
    spans: tuple[int, ...]
    offsets: tuple[float | Tensor, ...]
    firsts: tuple[int | Tensor, ...]
    splines: tuple[tuple[float | Tensor, ...], ...] | None
    here: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, places: Sequence[range], shift: Sequence[float], device: torch.device, away: bool) -> _Grid:
        """Cells along each axis, and a shift of all from their centres, in cells; whether visits gather away from the
        device."""

        def cells(device: torch.device) -> tuple[Tensor, ...]:
            return tuple(torch.arange(each.start, each.stop, each.step, device=device) for each in places)

        return cls(
            cells(device),
            tuple(each[-1] - each[0] for each in places),
            tuple(each + 0.5 for each in shift),
            tuple(each[0] + math.floor(by) - 1 for each, by in zip(places, shift, strict=True)),
            tuple(_basis(each - math.floor(each)) for each in shift) if any(shift) else None,
            cells(torch.device("cpu")) if away else (),
        )

    @property
    def kind(self) -> Any:
        """What the sizes of a visit, and its operations, follow from."""
        return self.spans, tuple(len(cells) for cells in self.cells), self.splines is None

    def held(self) -> _Grid:
        """The same, with all numbers in tensors of its own, which `refill` fills."""
        device = self.cells[0].device

        def tensors(numbers: Sequence[float | Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
            return tuple(torch.full((), float(number), dtype=dtype, device=device) for number in numbers)

        return _Grid(
            tuple(cells.clone() for cells in self.cells),
            self.spans,
            tensors(self.offsets, torch.float32),
            tensors(self.firsts, torch.int64),
            None if self.splines is None else tuple(tensors(each, torch.float32) for each in self.splines),
        )

    def refill(self, other: _Grid) -> None:
        """Take the numbers of another one of the same kind."""
        for mine, others in zip(self._numbers, other._numbers, strict=True):
            assert isinstance(mine, Tensor)
            mine.copy_(others) if isinstance(others, Tensor) else mine.fill_(others)

    @property
    def _numbers(self) -> list[float | Tensor]:
        splines = [] if self.splines is None else [each for axis in self.splines for each in axis]
        return [*self.cells, *self.offsets, *self.firsts, *splines]


class TiledLattice(TiledSignal):
    """The tiles of a lattice. A visit takes every s-th cell along each axis, from a random first one on: so the points
    lie evenly, and are the same in all tiles of a step.

    Of a part of a signal, tiles reach into what lies around it.
    """

    def __init__(self, signal: Signal, tiling: Tiling) -> None:
        super().__init__(signal, tiling)
        around = signal.dataset.around
        self._held = signal if around is signal.dataset else Signal(around, signal.transform)
        self._dataset = around
        self._starts = around.origin
        self._lengths: tuple[int, ...] = around.grid_shape or ()

    def _surveyed(self) -> Survey:
        signal, tiling = self.signal, self.tiling
        cells = [torch.arange(side, device=signal.device) for side in tiling.sides]
        means, spreads, constant, holding = [], [], [], []
        every = torch.arange(len(tiling), device=signal.device)
        for tiles in every.split(max(1, _CELLS // math.prod(tiling.sides))):
            indices = self._indices(tiles, cells).flatten(1)
            known = self._known(indices)
            values = self._values(indices, known)
            share = torch.ones_like(values[..., 0]) if known is None else known.to(torch.float32)
            total = share.sum(dim=1).clamp(min=1)[:, None]
            mean = (values * share[..., None]).sum(dim=1) / total
            deviation = (values - mean[:, None]) * share[..., None]
            means.append(mean)
            spreads.append((deviation.square().mean(dim=2).sum(dim=1) / total[:, 0]).sqrt())
            first = values.gather(1, share.argmax(dim=1)[:, None, None].expand(-1, 1, values.shape[2]))
            constant.append((((values == first).all(dim=2)) | (share == 0)).all(dim=1))
            holding.append((share > 0).any(dim=1))
        found = Survey(torch.cat(means), torch.cat(spreads), torch.cat(constant))
        return found if self._dataset.known is None else filled(found, torch.cat(holding), tiling)

    def begin(self, points: int, between: float, generator: torch.Generator) -> _Grid:
        stride = max(1, round((math.prod(self._extents) / points) ** (1 / len(self._axes)))) if self._axes else 1
        places = []
        for side, overlap, extent in zip(self.tiling.sides, self._overlaps, self._extents, strict=True):
            step = min(stride, extent)  # an axis of few cells has a point too
            first = int(torch.randint(step, (), generator=generator))
            places.append(range(first - overlap, side + overlap, step))
        shift = [0.0] * len(places)
        draws = torch.rand(1 + len(places), generator=generator).tolist()
        if draws[0] < between and self._spline is not None:
            shift = [draw - 0.5 if axis in self._axes else 0.0 for axis, draw in enumerate(draws[1:])]
        away = self.spline_away if any(shift) else self.signal.dataset.away
        return _Grid.of(places, shift, self.signal.device, away)

    def gathers_away(self, plan: _Grid) -> bool:
        return bool(plan.here)

    def kind(self, plan: _Grid) -> Any:
        return plan.kind

    def held(self, plan: _Grid) -> _Grid:
        return plan.held()

    def refill(self, held: _Grid, plan: _Grid) -> None:
        held.refill(plan)

    def visit(self, plan: _Grid, tiles: Tensor) -> Visit:
        # As `Tiling.local` has them, without a tensor of constants, for whose copy a GPU would be waited for.
        local = [
            (cells.to(torch.float32) + offset - side / 2) / self.tiling.scale
            for cells, offset, side in zip(plan.cells, plan.offsets, self.tiling.sides, strict=True)
        ]
        inputs = torch.stack(torch.meshgrid(*local, indexing="ij"), dim=-1).reshape(1, -1, len(local))
        if plan.splines is not None:
            return Visit(inputs, self._between(plan, tiles))
        indices = self._indices(tiles, plan.here or plan.cells).flatten(1)
        known, weights = self._known(indices), self._weights(indices)
        if known is not None:
            weights = known.to(torch.float32) if weights is None else weights * known
        return Visit(inputs, self._values(indices, known), weights)

    def response(self, plan: _Grid, errors: Tensor) -> Tensor:
        lengths = [len(cells) for cells in plan.cells]
        axes = [axis for axis, length in enumerate(lengths) if length > 2]
        if not axes:
            return super().response(plan, errors)
        field = errors.view(len(errors), *lengths, -1)
        inner = [slice(1, -1) if axis in axes else slice(None) for axis in range(len(lengths))]
        response = field[(slice(None), *inner)] * (-2.0 * len(axes))
        for axis in axes:
            for shifted in (slice(None, -2), slice(2, None)):
                response += field[(slice(None), *inner[:axis], shifted, *inner[axis + 1 :])]
        return response.flatten(1).square_().mean(dim=1)

    @cached_property
    def _axes(self) -> list[int]:
        """The axes that have more than one cell."""
        return [axis for axis, length in enumerate(self.tiling.lattice) if length > 1]

    @cached_property
    def _overlaps(self) -> list[int]:
        """Whole cells beyond a tile's borders that its network still has a part in."""
        return [math.ceil(overlap) for overlap in self.tiling.overlaps]

    @cached_property
    def _extents(self) -> list[int]:
        return [side + 2 * overlap for side, overlap in zip(self.tiling.sides, self._overlaps, strict=True)]

    def _indices(self, tiles: Tensor, cells: Sequence[Tensor]) -> Tensor:
        """(q, *lengths) int64 indices of cells of (q,) tiles, given along each axis from the tile's first cell on;
        what lies outside the lattice is mirrored into it."""
        origins = self.tiling.origins(tiles)
        dimensions = origins.shape[1]
        indices = torch.zeros((len(tiles),) + (1,) * dimensions, dtype=torch.int64, device=tiles.device)
        for axis, (along, whole) in enumerate(zip(cells, self.tiling.lattice, strict=True)):
            place = mirrored(origins[:, axis, None] + along, whole)
            start, length = self._starts[axis], self._lengths[axis]
            if length < whole:
                place = (place - start).clamp_(0, length - 1)
            shape = [len(tiles)] + [1] * dimensions
            shape[1 + axis] = len(along)
            indices = indices * length + place.view(shape)
        return indices

    def _values(self, indices: Tensor, known: Tensor | None) -> Tensor:
        """(q, k, C) float32 values of (q, k) cells, in the network's range; 0 where they are not `known`."""
        values = self._held.encoded(indices.reshape(-1)).view(*indices.shape, -1)
        # What stands in their place may be NaN, which a weight of 0 does not take out.
        return values if known is None else values.masked_fill(~known[..., None], 0)

    def _weights(self, indices: Tensor) -> Tensor | None:
        weights = self._dataset.weights_of(indices.reshape(-1))
        return None if weights is None else weights.view(indices.shape)

    def _known(self, indices: Tensor) -> Tensor | None:
        """(q, k) bool, which cells are known; None where all are."""
        known = self._whether_known
        return None if known is None else known[indices]

    @cached_property
    def _whether_known(self) -> Tensor | None:
        dataset = self._dataset
        if dataset.known is None:
            return None
        known = torch.zeros(len(dataset), dtype=torch.bool, device=dataset.device)
        known[dataset.known] = True
        return known

    @property
    def keeps_spline(self) -> bool:
        dataset = self._dataset
        if dataset.known is not None:
            return False
        # A part is small, and its fit must not depend on the machine that it comes to.
        return isinstance(dataset, Part) or 12 * len(dataset) * dataset.channels <= available_memory() / 4

    @cached_property
    def spline_away(self) -> bool:
        dataset = self.signal.dataset
        on_gpu = dataset.device.type != "cpu"
        return dataset.away or (on_gpu and 8 * len(dataset) * dataset.channels > free_memory(dataset.device))

    @cached_property
    def _spline(self) -> Tensor | None:
        """(*lengths, C) float32 coefficients of the cubic spline through the values, which are mirrored about the
        outermost samples; None where they are not all known, or would take too much memory."""
        dataset = self._dataset
        if not self.keeps_spline:
            return None
        from scipy.ndimage import spline_filter1d  # slow to import

        coefficients = np.empty((len(dataset), dataset.channels), dtype=np.float32)
        for start in range(0, len(dataset), _CELLS):
            span = slice(start, min(start + _CELLS, len(dataset)))
            coefficients[span] = self._held.encoded(span).cpu().numpy()
        coefficients = coefficients.reshape(*self._lengths, dataset.channels)
        for axis in self._axes:  # in place: the values are not needed beside their coefficients
            spline_filter1d(coefficients, 3, axis=axis, output=coefficients, mode="mirror")
        kept = torch.from_numpy(coefficients)
        return kept if self.spline_away else kept.to(dataset.device)

    def _between(self, plan: _Grid, tiles: Tensor) -> Tensor:
        """(q, k, C) values of the signal's cubic spline at the plan's points."""
        assert self._spline is not None and plan.splines is not None
        device = self.signal.device
        supports: list[Tensor] = []
        matrices: list[Tensor | None] = []
        for axis, (cells, span, first) in enumerate(zip(plan.cells, plan.spans, plan.firsts, strict=True)):
            if axis not in self._axes:
                supports.append((plan.here or plan.cells)[axis])
                matrices.append(None)
                continue
            matrix = torch.zeros(len(cells), span + 4, device=device)
            rows, begin = torch.arange(len(cells), device=device), cells - cells[0]
            for column, weight in enumerate(plan.splines[axis]):
                matrix[rows, begin + column] = weight
            supports.append(first + torch.arange(span + 4, device=tiles.device))
            matrices.append(matrix)
        indices = self._indices(tiles, supports)
        rows = self._spline.view(-1, self._spline.shape[-1])
        values = gathered(rows, indices.reshape(-1), device).view(*indices.shape, -1)
        for axis, each in enumerate(matrices):
            if each is not None:
                values = torch.movedim(torch.tensordot(values, each, dims=([1 + axis], [1])), -1, 1 + axis)
        return values.reshape(len(tiles), -1, values.shape[-1])


class TiledPoints(TiledSignal):
    """The tiles of free points. A visit takes points at random; a tile with few of them takes some several times."""

    def __init__(self, signal: Signal, tiling: Tiling) -> None:
        super().__init__(signal, tiling)
        self.rebuild()

    def rebuild(self) -> None:
        """Sort the points into the tiles that they belong to."""
        device = self.signal.device
        positions = self.tiling.positions(wide(self.signal.coordinates(slice(None))))
        points, tiles, _ = self.tiling.cover(positions)
        # In a random order within a tile, so that an even choice along the list is an even choice of points.
        shuffled = torch.randperm(len(points), generator=torch.Generator().manual_seed(0)).to(points.device)
        order = shuffled[tiles[shuffled].argsort(stable=True)]
        places = positions[points[order]] - self.tiling.origins(tiles[order])
        self._local = self.tiling.local(places).to(torch.float32).to(device)
        self._points = points[order].to(device)
        self._counts = torch.bincount(tiles, minlength=len(self.tiling)).to(device)
        self._some_empty = bool((self._counts == 0).any())
        self._starts = self._counts.cumsum(0) - self._counts

    def _surveyed(self) -> Survey:
        count = len(self.tiling)
        values = self.signal.targets(self._points)
        tiles = torch.repeat_interleave(torch.arange(count, device=values.device), self._counts)
        total = self._counts.clamp(min=1).to(torch.float32)
        means = values.new_zeros(count, values.shape[1]).index_add_(0, tiles, values) / total[:, None]
        deviation = (values - means[tiles]).square().mean(dim=1)
        spreads = (values.new_zeros(count).index_add_(0, tiles, deviation) / total).sqrt()
        holding = self._counts > 0
        first = values[self._starts.clamp(max=len(values) - 1)]
        differing = torch.zeros(count, dtype=torch.bool, device=values.device)
        differing[tiles[(values != first[tiles]).any(dim=1)]] = True
        return filled(Survey(means, spreads, ~differing), holding, self.tiling)

    def begin(self, points: int, between: float, generator: torch.Generator) -> Tensor:
        draws = torch.rand(points, generator=generator, dtype=torch.float64)
        device = self.signal.device
        plan = ((torch.arange(points) + draws) / points).to(widest(device))
        return plan.to(device, non_blocking=device.type != "mps")  # it would read the memory after it is freed

    def kind(self, plan: Tensor) -> Any:
        return len(plan)

    def held(self, plan: Tensor) -> Tensor:
        return plan.clone()

    def refill(self, held: Tensor, plan: Tensor) -> None:
        held.copy_(plan)

    def visit(self, plan: Tensor, tiles: Tensor) -> Visit:
        counts = self._counts[tiles][:, None]
        among = torch.minimum((plan * counts).to(torch.int64), (counts - 1).clamp(min=0))
        chosen = (self._starts[tiles][:, None] + among).clamp(max=len(self._points) - 1)
        indices = self._points[chosen]
        targets = self.signal.targets(indices.reshape(-1)).view(*indices.shape, -1)
        weights = self.signal.weights_of(indices.reshape(-1))
        weights = None if weights is None else weights.view(indices.shape)
        # Points that are drawn anew may leave a tile out. To look for it among these, a GPU would be waited for.
        if self._some_empty and (counts.device.type != "cpu" or bool((counts == 0).any())):
            weights = (counts > 0).to(torch.float32).expand(indices.shape) * (1.0 if weights is None else weights)
        return Visit(self._local[chosen], targets, weights)


class TileLayout(NoOperator):
    """Stands for the fitness operator where tiles are selected: it says where they lie, and links nothing.

    Args:
        signal: seen by its tiles.
        count: how many of the tiles have a network.
    """

    def __init__(self, signal: TiledSignal, count: int) -> None:
        super().__init__(NoneOptions(), signal.signal)
        self._tiles = signal.tiling.shape if count == len(signal.tiling) else (count,)

    @property
    def layout(self) -> tuple[int, ...]:
        return self._tiles

    def placed(self, cells: Tensor) -> Tensor:
        return cells


def _basis(fraction: float) -> tuple[float, float, float, float]:
    """The cubic B-splines of the four cells around a place, `fraction` of a cell after the second one's centre."""
    rest = 1 - fraction
    return (
        rest**3 / 6,
        (3 * fraction**3 - 6 * fraction**2 + 4) / 6,
        (3 * rest**3 - 6 * rest**2 + 4) / 6,
        fraction**3 / 6,
    )


def filled(survey: Survey, holding: Tensor, tiling: Tiling) -> Survey:
    """A survey in which tiles that hold nothing have the mean of the nearest one that does."""
    if bool(holding.all()):
        return survey
    from scipy.spatial import cKDTree  # slow to import

    places = torch.stack(places_of(torch.arange(len(tiling)), tiling.shape), dim=-1).numpy()
    full = holding.cpu().numpy()
    _, nearest = cKDTree(places[full]).query(places[~full])
    means = survey.means.clone()
    means[~holding] = means[holding][torch.as_tensor(nearest, device=means.device)]
    return Survey(means, survey.spreads, survey.constant | ~holding)
