"""A field as one module that needs nothing of inrkit once it is traced."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from inrkit.errors import ConfigError
from inrkit.networks import coordinate_dtype, precision_of, set_precision
from inrkit.networks.tiles import Tiles
from inrkit.runs.field import Field
from inrkit.signals.bends import Bends

CHECKED = 1000
"""Random coordinates at which an export is compared with its field."""


class Portable(nn.Module):
    """(N, D) float64 coordinates in physical units to (N, C) float32 stored values, as `field(x, physical=True)`.

    Everything in it can be traced: no machine code, and no choice that depends on values.

    Args:
        field: any.

    Raises:
        ConfigError: the field's affine map has no inverse.
    """

    offset: Tensor
    inverse: Tensor

    def __init__(self, field: Field) -> None:
        super().__init__()
        affine = np.asarray(field.affine, dtype=np.float64)
        self.register_buffer("offset", torch.from_numpy(affine[:, -1].copy()))
        self.register_buffer("inverse", torch.from_numpy(inverse_of(field).T.copy()))
        self.bends = nn.ModuleDict({str(axis): _Bend(*knots) for axis, knots in bends_of(field).items()})
        network = copy.deepcopy(field.network)  # moved to another device, it must not take the field along
        self.network = _Traceable(network) if isinstance(network, Tiles) else network
        self.embedding, self.transform, self.range = field.embedding, field.transform, field.value_range
        self.dtype = coordinate_dtype(field.network)
        self.eval()

    def forward(self, coordinates: Tensor) -> Tensor:
        points = (coordinates - self.offset) @ self.inverse
        if len(self.bends):
            columns = [
                self.bends[str(axis)](column) if str(axis) in self.bends else column
                for axis, column in enumerate(points.unbind(-1))
            ]
            points = torch.stack(columns, dim=-1)
        values = self.transform.decode(self.network(self.embedding(points.to(self.dtype)))).to(torch.float32)
        return values if self.range is None else values.clamp(*self.range)


class _Bend(nn.Module):
    """A rising piecewise linear map, as a sum of ramps; see `Bends`.

    Args:
        knots: (n,) places.
        values: (n,) there.
    """

    knots: Tensor
    turns: Tensor

    def __init__(self, knots: np.ndarray, values: np.ndarray) -> None:
        super().__init__()
        slopes = np.diff(values) / np.diff(knots)
        self.first, self.start, self.slope = float(knots[0]), float(values[0]), float(slopes[0])
        self.register_buffer("knots", torch.from_numpy(knots[1:-1].copy()))
        self.register_buffer("turns", torch.from_numpy(np.diff(slopes)))

    def forward(self, places: Tensor) -> Tensor:
        ramps = (places[:, None] - self.knots).clamp(min=0) @ self.turns
        return self.start + self.slope * (places - self.first) + ramps


class _Traceable(nn.Module):
    """A network of tiles, in which a point has a copy of its tiles' weights.

    Only the pairs of a point and a tile that reaches it are evaluated. They are not sorted by tile, because blocks of a
    size that depends on the points cannot be traced. All axes and all neighbours are computed together, which makes the
    trace several times shorter than one of `Tiling.cover`, and are the same.
    """

    means: Tensor
    spreads: Tensor
    slots: Tensor
    lattice: Tensor
    counts: Tensor
    overlaps: Tensor
    middles: Tensor
    corners: Tensor
    strides: Tensor

    def __init__(self, network: Tiles) -> None:
        super().__init__()
        tiling = network.tiling
        self.each, self.channels = network.each, network.channels
        self.names = [name for name, _ in network.layout]
        sizes = [shape.numel() for _, shape in network.layout]
        parts = network.weights.detach().split(sizes, dim=1)
        # Each parameter of all networks by itself, so that only what a product needs is copied.
        for number, (part, (_, shape)) in enumerate(zip(parts, network.layout, strict=True)):
            self.register_buffer(f"parameter_{number}", part.unflatten(1, shape).contiguous())
        self.scale = tiling.scale
        for name in ("means", "spreads", "slots"):
            self.register_buffer(name, getattr(network, name).detach())
        # Whole numbers as float64, which hold their products; ONNX would divide integers in float32.
        self.register_buffer("lattice", torch.tensor(tiling.lattice, dtype=torch.float64))
        self.register_buffer("counts", torch.tensor(tiling.counts, dtype=torch.float64))
        self.register_buffer("overlaps", torch.tensor(tiling.overlaps, dtype=torch.float64))
        self.register_buffer("middles", torch.tensor(tiling.sides, dtype=torch.float64) / 2)
        axes = tiling.dimensions
        strides = [math.prod(tiling.counts[axis + 1 :]) for axis in range(axes)]
        self.register_buffer("corners", torch.tensor(list(itertools.product((False, True), repeat=axes)))[:, None])
        self.register_buffer("strides", torch.tensor(strides, dtype=torch.float64))

    def forward(self, points: Tensor) -> Tensor:
        positions = (points + 1) * (self.lattice / 2)
        place, at, share = self.cover(positions)
        tile = (at * self.strides).sum(dim=1).to(torch.int64)
        slot = self.slots[tile]
        local = ((positions[place] - self.starts(at) - self.middles) / self.scale).to(torch.float32)
        row = slot.clamp(min=0)
        named = {name: self.get_buffer(f"parameter_{number}")[row] for number, name in enumerate(self.names)}
        predicted = torch.func.vmap(lambda weights, at: torch.func.functional_call(self.each, weights, (at,)))(
            named, local[:, None]
        )[:, 0]
        spread = torch.where(slot >= 0, self.spreads[tile], 0.0)
        values = self.means[tile] + predicted * spread[:, None]
        blended = torch.zeros_like(points[:, :1], dtype=torch.float32).expand(-1, self.channels)
        return blended.index_add(0, place, values * share[:, None].to(torch.float32))

    def cover(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """m pairs of a place and a tile that reaches it; see `Tiling.cover`.

        Args:
            positions: (n, D) in cells.

        Returns:
            (m,) numbers of the places, (m, D) float64 places of the tiles along the axes, (m,) weights.
        """
        cell = torch.minimum(positions.floor().clamp(min=0), self.lattice - 1)
        near = (((cell + 1) * self.counts - 1) / self.lattice).floor()
        before, after = positions - self.starts(near), self.starts(near + 1) - positions
        other = torch.where(before < after, near - 1, near + 1)
        inside = (other >= 0) & (other < self.counts) & (self.overlaps > 0)
        distance = torch.minimum(before, after) / torch.where(self.overlaps > 0, self.overlaps, 1.0)
        reach = (1 - distance).clamp(0, 1) / 2
        share = torch.where(inside, reach * reach * reach * (reach * (reach * 6 - 15) + 10), 0.0)
        each = torch.where(self.corners, share, 1 - share)
        weight = each[..., 0]
        for axis in range(1, each.shape[-1]):
            weight = weight * each[..., axis]
        at = torch.where(self.corners, torch.where(inside, other, near), near)
        places = torch.arange(positions.shape[0], device=positions.device).expand(len(self.corners), -1)
        chosen = (weight.reshape(-1) > 0).nonzero()[:, 0]
        return places.reshape(-1)[chosen], at.flatten(0, 1)[chosen], weight.reshape(-1)[chosen]

    def starts(self, at: Tensor) -> Tensor:
        """First cells of tiles at (…, D) places along the axes."""
        return (at * self.lattice / self.counts).floor()


def inverse_of(field: Field) -> np.ndarray:
    """(D, D) float64, from physical offsets to those in [−1, 1]^D.

    Raises:
        ConfigError: there is none.
    """
    try:
        return np.linalg.inv(np.asarray(field.affine, dtype=np.float64)[:, :-1])
    except np.linalg.LinAlgError as error:
        raise ConfigError("the field's affine map has no inverse, so it has no physical units to export") from error


def bends_of(field: Field) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """For each bent axis its knots: (n,) even coordinates, and (n,) those of the network; see `Bends`."""
    found = field.metadata.get(Bends.KEY, ())
    return {int(axis): (np.asarray(even, float), np.asarray(bent, float)) for axis, even, bent in found}


def sampled(field: Field, count: int) -> np.ndarray:
    """(count, D) float64 physical coordinates, uniform in the signal's extent and always the same."""
    even = np.random.default_rng(0).uniform(-1, 1, (count, field.dimensions))
    affine = np.asarray(field.affine, dtype=np.float64)
    physical: np.ndarray = even @ affine[:, :-1].T + affine[:, -1]
    return physical


@contextlib.contextmanager
def in_float32(field: Field) -> Iterator[None]:
    """Products in float32 inside the block, even if the field was trained with others; exports have no others."""
    precision = precision_of(field.network)
    set_precision(field.network, "float32")
    try:
        yield
    finally:
        set_precision(field.network, precision)
