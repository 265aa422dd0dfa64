"""Tiling: [−1, 1]^D cut into boxes that overlap a little, and the weights that blend what belongs to each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inrkit.signals.lattice import places_of


class Tiling:
    """A lattice of tiles over [−1, 1]^D.

    Along an axis of N cells the tiles begin at whole cells, as evenly as these allow. All have the same sides, so that
    where the cells do not divide evenly a tile reaches up to a cell further than the next one's beginning. Beyond that
    each tile reaches `overlap` cells over its borders. Around a border two tiles are blended: their weights are smooth
    with two continuous derivatives, and add up to 1.

    Args:
        lattice: N cells along each of the D axes; free points have cells too, which only measure lengths.
        counts: tiles along each axis, at most N.
        overlap: cells by which a tile reaches over its borders; at most half of a tile. Along an axis with a single
            tile there is no overlap.
        window: first tile and the one after the last along each axis, if only these are meant; all if not given. Tiles
            are counted within the window, and a place outside it belongs to the tile of the window nearest to it.

    Attributes:
        firsts: the window's first tile along each axis.
        shape: how many tiles the window has along each axis.
        sides: cells of a tile along each axis, without the overlap.
        overlaps: cells of overlap along each axis.
        scale: cells that a unit of a tile's own coordinates spans, along every axis alike; its longest side goes from
            −1 to 1.
    """

    def __init__(
        self,
        lattice: Sequence[int],
        counts: Sequence[int],
        overlap: float,
        window: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.lattice = tuple(lattice)
        self.counts = tuple(counts)
        window = window or [(0, count) for count in counts]
        self.firsts = tuple(first for first, _ in window)
        self.shape = tuple(stop - first for first, stop in window)
        self.sides = tuple(-(-length // count) for length, count in zip(lattice, counts, strict=True))
        self.overlaps = tuple(
            0.0 if count == 1 else min(overlap, length // count / 2)
            for length, count in zip(lattice, counts, strict=True)
        )
        self.scale = max(self.sides) / 2

    def __len__(self) -> int:
        """How many tiles there are."""
        return math.prod(self.shape)

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self.counts)

    def origins(self, tiles: Tensor) -> Tensor:
        """(q, D) int64 first cells of (q,) `tiles`, which are counted in C order."""
        places = places_of(tiles.to(torch.int64), self.shape)
        return torch.stack(
            [
                self._starts(axis, place + first)
                for axis, (place, first) in enumerate(zip(places, self.firsts, strict=True))
            ],
            dim=-1,
        )

    def positions(self, coordinates: Tensor) -> Tensor:
        """(…, D) places in cells, from 0 to N along each axis, of coordinates in [−1, 1]^D."""
        lengths = torch.tensor(self.lattice, dtype=coordinates.dtype, device=coordinates.device)
        return (coordinates + 1) * (lengths / 2)

    def local(self, offsets: Tensor) -> Tensor:
        """(…, D) a tile's own coordinates of (…, D) `offsets` in cells from its first cell's beginning."""
        middle = torch.tensor(self.sides, dtype=offsets.dtype, device=offsets.device) / 2
        return (offsets - middle) / self.scale

    def cover(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The tiles that each place belongs to.

        Args:
            positions: (n, D) in cells; a place outside belongs to the tile nearest to it.

        Returns:
            m ≥ n pairs of a place and a tile with a weight above 0: (m,) int64 numbers of the places, (m,) int64 tiles,
            (m,) weights, which for each place add up to 1.
        """
        options = [self._along(axis, positions[:, axis]) for axis in range(self.dimensions)]
        everything = torch.arange(len(positions), device=positions.device)
        pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        for choice in itertools.product((0, 1), repeat=self.dimensions):
            tile = torch.zeros_like(everything)
            weight = torch.ones_like(positions[:, 0])
            for (near, other, share), first, count, second in zip(
                options, self.firsts, self.shape, choice, strict=True
            ):
                tile = tile * count + ((other if second else near) - first)
                weight = weight * (share if second else 1 - share)
            if any(choice):
                chosen = (weight.detach() > 0).nonzero()[:, 0]
                pairs.append((chosen, tile[chosen], weight[chosen]))
            else:
                pairs.append((everything, tile, weight))
        place, tile, weight = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        return place, tile, weight

    def _along(self, axis: int, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Along an axis: (n,) the tile that a place lies in, (n,) another one near it, (n,) the other's weight."""
        length, count, overlap = self.lattice[axis], self.counts[axis], self.overlaps[axis]
        first, last = self.firsts[axis], self.firsts[axis] + self.shape[axis] - 1
        place = position.detach()
        cell = place.floor().clamp(0, length - 1).to(torch.int64)
        near = torch.div((cell + 1) * count - 1, length, rounding_mode="floor").clamp(first, last)
        if count == 1 or overlap == 0:
            return near, near, torch.zeros_like(position)
        start, end = self._starts(axis, near), self._starts(axis, near + 1)
        lower = place - start < end - place
        other = torch.where(lower, near - 1, near + 1)
        inside = (other >= first) & (other <= last)
        distance = torch.where(lower, position - start, end - position)
        # 0 at `overlap` cells before the border, 1/2 there: a place's own tile has the other half and more.
        reach = (1 - distance / overlap).clamp(0, 1) / 2
        share = reach * reach * reach * (reach * (reach * 6 - 15) + 10)
        return near, torch.where(inside, other, near), torch.where(inside, share, 0)

    def _starts(self, axis: int, places: Tensor) -> Tensor:
        """First cells of the tiles at (…,) places along an axis."""
        return torch.div(places * self.lattice[axis], self.counts[axis], rounding_mode="floor")
