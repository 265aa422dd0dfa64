"""FitnessOperators: linear maps from a field of values to its high-frequency response.

Each row of the map has few entries, so the cost of the response at a subset of the coordinates follows the size of the
subset. An operator acts on one number a coordinate: the channels' sum weighted by `CoordinateDataset.channel_weights`.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from inrkit.errors import ConfigError
from inrkit.plugins.choice import PluginType
from inrkit.plugins.options import option
from inrkit.plugins.registry import Registry
from inrkit.signals.neighbourhood import Neighbourhood
from inrkit.signals.signal import Signal

OPERATORS: Registry[FitnessOperator] = Registry("operator", "inrkit.operators")

_ROWS = 1 << 20
"""Rows of the map that are held at a time."""


@OPERATORS.base
class FitnessOperator(metaclass=PluginType):
    """A sparse linear map L on fields over the N coordinates of a signal; also the signal's edges and layout.

    A subclass says what its rows are. The rest follows from these, faster where a subclass overrides it.

    Args:
        options: an instance of the subclass's `Options`.
        signal: it acts on fields over this signal's coordinates.

    Attributes:
        neighbourhood: where the signal's coordinates lie.
    """

    Options: ClassVar[type]
    bounds: tuple[float, float] | None = None
    """Limits that predictions are clamped to, in the network's range, before their channels are added up; None for no
    clamping."""

    def __init__(self, options: Any, signal: Signal) -> None:
        self.options = options
        self._signal = signal
        self.neighbourhood = Neighbourhood(signal.dataset)

    def rebuild(self) -> None:
        """Rebuild the map after points were drawn anew; a lattice does not change."""
        self.neighbourhood = Neighbourhood(self._signal.dataset)

    @abstractmethod
    def rows(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of L at (k,) `indices`: (k, M) int64 columns and (k, M) float32 weights; zero weight is padding."""

    def response(self, field: Tensor) -> Tensor:
        """L applied to the whole (N,) field."""
        return self.response_at(field, torch.arange(len(field), device=field.device))

    def adjoint(self, field: Tensor) -> Tensor:
        """Lᵀ applied to the whole (N,) field."""
        result = torch.zeros_like(field)
        for part in torch.arange(len(field), device=field.device).split(_ROWS):
            columns, weights = self.rows(part)
            result.index_add_(0, columns.reshape(-1), (field[part, None] * weights).reshape(-1))
        return result

    def response_at(self, field: Tensor, indices: Tensor) -> Tensor:
        """(k,) entries of L applied to the (N,) field; only the values that these entries need are read."""
        parts = []
        for part in indices.split(_ROWS):
            columns, weights = self.rows(part)
            parts.append((field[columns] * weights).sum(dim=-1))
        return torch.cat(parts)

    def response_within(self, values: Tensor, indices: Tensor) -> Tensor:
        """(k,) entries of L at `indices`, applied to a field that is known only there.

        A neighbour outside the indices is given the coordinate's own value. If all neighbours are among the indices,
        the entry is exact. Time and memory follow k, not N.

        Args:
            values: (k,) of the field.
            indices: (k,) int64, distinct.
        """
        known, order = indices.sort()
        parts = []
        for part, own in zip(indices.split(_ROWS), values.split(_ROWS), strict=True):
            columns, weights = self.rows(part)
            found = torch.searchsorted(known, columns).clamp_(max=len(known) - 1)
            near = torch.where(known[found] == columns, values[order[found]], own[:, None])
            parts.append((near * weights).sum(dim=-1))
        return torch.cat(parts)

    @property
    def layout(self) -> tuple[int, ...]:
        """The lattice over which `placed` lays the coordinates out: their own, which they fill, or a line."""
        return self.neighbourhood.lattice or (len(self._signal),)

    def placed(self, cells: Tensor) -> Tensor:
        """(k,) indices of the coordinates in (k,) `cells` of the layout, where neighbours lie close to each other."""
        order = self.neighbourhood.order
        return cells if order is None else order[cells]

    def adjoint_at(self, values: Tensor, indices: Tensor, scratch: Tensor) -> Tensor:
        """(k,) entries at `indices` of Lᵀ applied to the field that is `values` at `indices` and zero elsewhere.

        Args:
            values: (k,).
            indices: (k,) int64, distinct.
            scratch: (N,) zeros; left as zeros.
        """
        for part, value in zip(indices.split(_ROWS), values.split(_ROWS), strict=True):
            columns, weights = self.rows(part)
            scratch.index_add_(0, columns.reshape(-1), (value[:, None] * weights).reshape(-1))
        result = scratch[indices]
        for part in indices.split(_ROWS):
            scratch[self.rows(part)[0].reshape(-1)] = 0
        return result

    def edges(self) -> Tensor:
        """How much the signal changes around each coordinate: the edge strength of edge-guided methods.

        The Euclidean norm of the differences between a coordinate and the neighbours in its row, divided by √2. On a
        lattice of unit spacing it is the magnitude of the gradient, from forward and backward differences.

        Returns:
            (N,) float32 ≥ 0, of the channel-weighted targets; zero where there are no neighbours.
        """
        strengths = []
        for part in torch.arange(len(self._signal), device=self._signal.device).split(_ROWS):
            columns, entries = self.rows(part)
            own = self._signal.reduced(part)
            square = torch.zeros_like(own)
            for column, entry in zip(columns.unbind(-1), entries.unbind(-1), strict=True):
                difference = self._signal.reduced(column) - own
                square += torch.where(entry != 0, difference, 0).square_()
            strengths.append((square / 2).sqrt_())
        return torch.cat(strengths)

    def neighbours(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The coordinates beside (k,) `indices`: (k, M) int64, and (k, M) bool, False for padding."""
        columns, entries = self.rows(indices)
        return columns, (entries != 0) & (columns != indices[:, None])


def clamp_prediction(
    residual: Tensor, targets: Tensor, bounds: tuple[float, float] | tuple[Tensor, Tensor] | None
) -> Tensor:
    """(…, C) clamp(F) − y, from residuals F − y; there is no gradient where F is clamped.

    Values inside the bounds stay the same to the last bit.

    Args:
        residual: (…, C).
        targets: (…, C) y, in the network's range.
        bounds: lowest and highest F; None for no clamping.
    """
    if bounds is None:
        return residual
    return residual.clamp(bounds[0] - targets, bounds[1] - targets)


@dataclass
class ClampOptions:
    clamp: bool = option(False)
    """Whether the operator sees predictions clamped to the range of the signal's integers, as in published EVOS (0 …
    255 for 8 bits)."""

    def bounds(self, signal: Signal) -> tuple[float, float] | None:
        """The ends of the range of the signal's dtype, in the network's range; None for real numbers."""
        ends = signal.dataset.value_range
        if not self.clamp or ends is None:
            return None
        low, high = signal.transform.encode(torch.tensor(ends, dtype=torch.float64)).tolist()
        return low, high


@dataclass
class LaplacianOptions(ClampOptions):
    periodic: list[int] = option([])
    """Axes whose last cell is the first one's neighbour, counted from 0."""


@OPERATORS.register("laplacian")
class LatticeLaplacian(FitnessOperator):
    """The Laplacian on the signal's own lattice, zero outside it except along periodic axes.

    1-D [1 −2 1], 2-D 5-point, 3-D 7-point, and so on: the sum of the 2D neighbours less 2D times the centre
    (EVOS, equation 6, for images). A neighbour that is not known counts as equal to the coordinate itself.
    """

    Options = LaplacianOptions

    def __init__(self, options: LaplacianOptions, signal: Signal) -> None:
        super().__init__(options, signal)
        self.bounds = options.bounds(signal)
        if signal.dataset.grid_shape is None:
            raise ConfigError(
                "operator 'laplacian' needs a lattice, and this signal has free points; choose operator=none"
            )
        self.shape = signal.dataset.grid_shape
        wrong = [axis for axis in options.periodic if not 0 <= axis < len(self.shape)]
        if wrong:
            raise ConfigError(
                f"operator.periodic names axis {wrong[0]}; the signal has axes 0 to {len(self.shape) - 1}"
            )
        self.periodic = set(options.periodic)

    def rows(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        known = self._signal.dataset.known
        if known is None:
            return self._cell_rows(indices)
        columns, weights = self._cell_rows(known[indices])
        places, there = self._signal.dataset.places(columns)
        weights[:, 0] += (weights * ~there).sum(dim=-1)
        return torch.where(there, places, indices[:, None]), torch.where(there, weights, 0)

    def _cell_rows(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The rows over all cells of the lattice."""
        columns, weights = [indices], [torch.full_like(indices, -2 * len(self.shape), dtype=torch.float32)]
        stride = 1
        for axis, length in reversed(list(enumerate(self.shape))):
            along = torch.div(indices, stride, rounding_mode="floor") % length
            around = (length - 1) * stride if axis in self.periodic else 0
            for offset, inside in ((-stride, along > 0), (stride, along < length - 1)):
                beyond = indices + (around if offset < 0 else -around)
                columns.append(torch.where(inside, indices + offset, beyond))
                weights.append(torch.ones_like(inside, dtype=torch.float32) if around else inside.to(torch.float32))
            stride *= length
        return torch.stack(columns, dim=-1), torch.stack(weights, dim=-1)

    def response(self, field: Tensor) -> Tensor:
        if self._signal.dataset.known is not None:
            return super().response(field)
        result = field * (-2 * len(self.shape))
        before = 1
        for axis, length in enumerate(self.shape):
            after = math.prod(self.shape[axis + 1 :])
            lattice, out = field.view(before, length, after), result.view(before, length, after)
            out[:, 1:] += lattice[:, :-1]
            out[:, :-1] += lattice[:, 1:]
            if axis in self.periodic and length > 1:
                out[:, 0] += lattice[:, -1]
                out[:, -1] += lattice[:, 0]
            before *= length
        return result

    def adjoint(self, field: Tensor) -> Tensor:
        return self.response(field)  # symmetric: what is outside the lattice or not known is in no other's row

    def adjoint_at(self, values: Tensor, indices: Tensor, scratch: Tensor) -> Tensor:
        # Symmetry again. On a GPU gathering is deterministic; scattering is not.
        scratch[indices] = values
        result = self.response_at(scratch, indices)
        scratch[indices] = 0
        return result


@dataclass
class GraphLaplacianOptions(ClampOptions):
    neighbours: int = option(6, at_least=1)
    """How many nearest points each point is compared with."""


@OPERATORS.register("graph-laplacian")
class GraphLaplacian(FitnessOperator):
    """The sum of the k nearest other points minus k times the point's own value: a Laplacian for free points.

    If the nearest points are a lattice's neighbours, it is the lattice Laplacian. On a lattice of which a part is not
    known, points that are farther away than neighbours of a whole lattice, or behind a hole, count as equal to the
    point itself.
    """

    Options = GraphLaplacianOptions

    def __init__(self, options: GraphLaplacianOptions, signal: Signal) -> None:
        super().__init__(options, signal)
        self.bounds = options.bounds(signal)

    def rebuild(self) -> None:
        super().rebuild()
        self.__dict__.pop("_graph", None)

    @cached_property
    def _graph(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every point and its neighbours, (N, k + 1); an order of the points in which neighbours lie close; and the
        weights of a row. Found when first asked for: many selectors never ask."""
        tree, device = self.neighbourhood.tree, self._signal.device
        wanted = min(self.options.neighbours, len(self._signal) - 1)
        # The nearest point is the point itself, or another one at the same place, which does as well.
        away, near = tree.query(tree.data, k=[*range(1, wanted + 2)], workers=-1)
        if self._signal.dataset.known is not None:
            near = self._on_this_side(away, near)
        weights = torch.ones(wanted + 1, device=device)
        weights[0] = -wanted
        # Each leaf of the tree, and each branch, is a run of its order.
        order = torch.from_numpy(tree.indices).to(device, torch.int64)
        return torch.from_numpy(near).to(device, torch.int64), order, weights

    def _on_this_side(self, away: np.ndarray, near: np.ndarray) -> np.ndarray:
        """(N, k + 1) neighbours on a lattice with holes, each point itself in place of those that a hole hides.

        Args:
            away: (N, k + 1) distances to the neighbours.
            near: (N, k + 1) the neighbours, the point itself first.
        """
        dataset = self._signal.dataset
        shape, known = dataset.grid_shape, dataset.known
        assert shape is not None and known is not None
        hidden = away > _farthest(shape, near.shape[1] - 1) * (1 + _ROUNDING)
        cells = np.stack(np.unravel_index(known.cpu().numpy(), shape), axis=-1)
        offsets = cells[near] - cells[:, None]
        # Next to each other along an axis, nothing is between them.
        rows, columns = np.nonzero(~hidden & (np.abs(offsets).sum(axis=-1) > 1))
        filled = np.zeros(shape, dtype=bool)
        filled.flat[known.cpu().numpy()] = True
        hidden[rows, columns] = ~_sees(filled, cells[rows], offsets[rows, columns])
        own = np.arange(len(near))[:, None]
        return np.where(hidden, own, near)

    def rows(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        every, _, weights = self._graph
        columns = every[indices]
        columns[:, 0] = indices
        return columns, weights.expand(columns.shape)

    def placed(self, cells: Tensor) -> Tensor:
        return self._graph[1][cells]

    def response(self, field: Tensor) -> Tensor:
        return self.response_at(field, torch.arange(len(field), device=field.device))

    def adjoint(self, field: Tensor) -> Tensor:
        everyone = torch.arange(len(field), device=field.device)
        return self.adjoint_at(field, everyone, torch.zeros_like(field))


_ROUNDING = 1e-3
"""Share by which a distance may miss a neighbour's on a lattice."""


def _farthest(shape: tuple[int, ...], count: int) -> float:
    """The distance of the last of the `count` nearest cells of a cell inside a lattice over [−1, 1]^D."""
    squares = np.zeros(1)
    for length in shape:
        along = 2 * np.arange(-min(count, length - 1), min(count, length - 1) + 1) / length
        squares = np.sort((squares[:, None] + along**2).ravel())[: count + 1]
    return float(np.sqrt(squares[-1]))


def _sees(filled: np.ndarray, cells: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) whether the line from each cell to the one at its offset touches, all along, something that is filled.

    Args:
        filled: bool, of the lattice's shape.
        cells: (n, D) where lines begin.
        offsets: (n, D) from there to where they end.
    """
    seen = np.ones(len(cells), dtype=bool)
    halves = 2 * np.abs(offsets).max(axis=-1, initial=0)
    for step in range(1, int(halves.max(initial=0))):
        on = np.flatnonzero(step < halves)
        begins, ends = cells[on], cells[on] + offsets[on]
        places = begins + offsets[on] * (step / halves[on])[:, None]
        touched, between = np.zeros(len(on), dtype=bool), np.zeros(len(on), dtype=bool)
        for corner in itertools.product((np.floor, np.ceil), repeat=filled.ndim):
            at = np.stack([side(part) for side, part in zip(corner, places.T, strict=True)]).astype(int)
            inner = (begins != at.T).any(axis=-1) & (ends != at.T).any(axis=-1)
            between |= inner
            touched |= inner & filled[tuple(at)]
        seen[on] &= touched | ~between
    return seen


@dataclass
class NoneOptions:
    pass


@OPERATORS.register("none")
class NoOperator(FitnessOperator):
    """No response anywhere, for signals without neighbours; only the errors count."""

    Options = NoneOptions

    def rows(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return indices[:, None], torch.zeros(len(indices), 1, device=indices.device)

    def response(self, field: Tensor) -> Tensor:
        return torch.zeros_like(field)

    def adjoint(self, field: Tensor) -> Tensor:
        return torch.zeros_like(field)
