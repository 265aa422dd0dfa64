"""A lattice cut into tiles, and a tour through them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Tiles:
    """A lattice cut into tiles, as near to cubes as its axes allow; along an axis their lengths differ by one at most.

    Args:
        shape: lengths of the D axes.
        size: most cells of a tile.
    """

    def __init__(self, shape: tuple[int, ...], size: int) -> None:
        self.shape = shape
        sides, left = [0] * len(shape), size
        # If an axis is too short for its share, the longer axes take the rest.
        for done, axis in enumerate(sorted(range(len(shape)), key=lambda axis: shape[axis])):
            sides[axis] = max(1, min(shape[axis], math.floor(left ** (1 / (len(shape) - done)) + 1e-9)))
            left //= sides[axis]
        self.counts = tuple(-(-length // side) for length, side in zip(shape, sides, strict=True))
        self.least = tuple(length // count for length, count in zip(shape, self.counts, strict=True))
        """Lengths of the smallest tile."""

    def __len__(self) -> int:
        """How many tiles there are."""
        return math.prod(self.counts)

    def sizes(self, numbers: Tensor) -> Tensor:
        """(q,) int64 cells of the tiles of (q,) `numbers`."""
        return math.prod((stop - start for start, stop in self._spans(numbers)), start=torch.ones_like(numbers))

    def numbers_of(self, cells: Tensor) -> Tensor:
        """(n,) int64 numbers of the tiles that hold (n,) int64 `cells`."""
        numbers, stride, before = torch.zeros_like(cells), 1, 1
        for length, count in zip(reversed(self.shape), reversed(self.counts), strict=True):
            along = torch.div(cells, before, rounding_mode="floor") % length
            numbers += torch.div((along + 1) * count - 1, length, rounding_mode="floor") * stride
            before, stride = before * length, stride * count
        return numbers

    def cells(self, numbers: Tensor) -> Tensor:
        """(n,) int64 indices of all cells of the tiles of (q,) `numbers`, tile after tile."""
        return self._cells(numbers, [-(-n // count) for n, count in zip(self.shape, self.counts, strict=True)])

    def even_cells(self, numbers: Tensor) -> Tensor:
        """(q · prod(least),) int64 indices of a block of each tile, from its first cell on, as large as the smallest
        tile."""
        return self._cells(numbers, self.least)

    def _cells(self, numbers: Tensor, lengths: Sequence[int]) -> Tensor:
        indices = torch.zeros(len(numbers), 1, dtype=torch.int64, device=numbers.device)
        inside = torch.ones_like(indices, dtype=torch.bool)
        for (start, stop), length, extent in zip(self._spans(numbers), lengths, self.shape, strict=True):
            along = start[:, None] + torch.arange(length, device=numbers.device)
            indices = (indices[:, :, None] * extent + along[:, None, :]).flatten(1)
            inside = (inside[:, :, None] & (along < stop[:, None])[:, None, :]).flatten(1)
        return indices[inside]

    def _spans(self, numbers: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(q,) starts and (q,) stops of tiles along each axis."""
        places, spans = numbers.to(torch.int64), []
        for length, count in zip(reversed(self.shape), reversed(self.counts), strict=True):
            place = places % count
            places = torch.div(places, count, rounding_mode="floor")
            spans.append((place * length // count, (place + 1) * length // count))
        return spans[::-1]


class Tour:
    """Goes through the N cells of a lattice part by part, tile after tile in random order, round after round.

    Each cell comes once a round, so a part is a random sample of the lattice. All cells come together with their
    neighbours, except those at the sides of a tile.

    Args:
        tiles: of the lattice.
        generator: source of randomness; indices lie on its device.
    """

    def __init__(self, tiles: Tiles, generator: torch.Generator) -> None:
        self.tiles = tiles
        self.generator = generator
        self._order = torch.empty(0, dtype=torch.int32, device=generator.device)
        """Tiles to come."""
        self._begun = 0
        """How many cells of the first of these tiles have come already."""
        self._left = 0
        """How many cells of these tiles are still to come."""

    def next(self, count: int) -> Tensor:
        """(count,) int64 distinct indices: the next part of the tour, at most N."""
        if self._left < count:
            left = self._order
            fresh = torch.randperm(len(self.tiles), generator=self.generator, device=left.device, dtype=torch.int32)
            # The tiles left of a round come last in the next, in the same order, so that no part has a cell twice.
            self._order = torch.cat([left, fresh[~torch.isin(fresh, left)], left])
            self._left += math.prod(self.tiles.shape)
        head = self._order[: count // math.prod(self.tiles.least) + 2]  # at most so many tiles, the cut ones included
        part = self.tiles.cells(head)[self._begun : self._begun + count]
        ends = self.tiles.sizes(head).cumsum(0)
        passed = int((ends <= self._begun + count).sum())
        self._begun += count - (int(ends[passed - 1]) if passed else 0)
        self._order = self._order[passed:]
        self._left -= count
        return part

    def state_dict(self) -> dict[str, Any]:
        """Where the tour stands, in plain containers and tensors."""
        # A view would be saved together with all of its base tensor.
        return {"order": self._order.clone(), "begun": self._begun, "left": self._left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._order = state["order"].to(self.generator.device)
        self._begun, self._left = state["begun"], state["left"]
