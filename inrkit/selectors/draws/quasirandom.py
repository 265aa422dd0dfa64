"""Quasi-random subsets of a lattice: spread more evenly than chance would."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inrkit.selectors.draws.subsets import compressed, distinct, first_comers, gaps_before, sample_besides

_BITS = 31
"""Bits of a fraction. Lengths have at most as many, so that the product fits into an int64."""

_ROUNDS = 64
"""The sequence starts anew after this many times N points, because on lattices much longer than wide one start misses
some cells."""


class QuasiRandom:
    """Goes through the N cells of a lattice along a Kronecker sequence with a random start.

    Point j lies at the fractional part of s + j·α. α holds the powers of 1/x, where x is the real root of x^(D+1) = x +
    1: the golden ratio in one dimension, the plastic number in two (the "R" sequence of Roberts, 2018). Any run of
    consecutive points is spread evenly over the lattice, and the next points fill the gaps between them. On lattices
    thousands of times as long as wide, some cells come late. Integer arithmetic gives the same cells on every device.

    Args:
        shape: lengths of the D axes, each below 2³¹; better far below.
        generator: source of the start; indices lie on its device.
        placed: maps (k,) cells to the (k,) indices of the coordinates there; the identity if not given.
    """

    _start: Tensor
    _position: int

    def __init__(
        self, shape: tuple[int, ...], generator: torch.Generator, placed: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.shape = shape
        self._placed = placed
        self._generator = generator
        device = generator.device
        root = 2.0
        for _ in range(64):
            root = (1 + root) ** (1 / (len(shape) + 1))
        steps = [round(root ** -(axis + 1) * 2.0**53) << 11 for axis in range(len(shape))]
        # Fractions of 1 in units of 2⁻⁶⁴, which overflow as fractional parts do.
        signed = [step - (1 << 64) if step >> 63 else step for step in steps]
        self._steps = torch.tensor(signed, device=device)[:, None]
        self._lengths = torch.tensor(shape, device=device)[:, None]
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        self._strides = torch.tensor(strides, device=device)[:, None]
        self._begin()

    def next(self, count: int, taken: Tensor | None = None) -> Tensor:
        """The coordinates of the next cells of the sequence that are not taken.

        Args:
            count: at most as many as are not taken.
            taken: (n,) int64 distinct indices in ascending order; none if not given.

        Returns:
            (count,) int64 distinct indices, ascending.
        """
        device = self._start.device
        population = math.prod(self.shape)
        free = population - (0 if taken is None else len(taken))
        if 2 * count > free:
            # More than half: drawing the cells that are left out is cheaper, and they are spread as evenly.
            keep = torch.ones(population, dtype=torch.bool, device=device)
            keep[self.next(free - count, taken)] = False
            if taken is not None:
                keep[taken] = False
            if device.type != "cpu":
                return compressed(torch.arange(population, device=device), keep, count)
            return keep.nonzero()[:, 0]
        if device.type != "cpu":
            return self.next_unseen(count, taken)
        found = torch.empty(0, dtype=torch.int64, device=device)
        while len(found) < count:
            missing = count - len(found)
            cells = self._cells(missing * population // free)  # of which about `missing` are not taken
            if taken is not None and len(taken):
                place = torch.searchsorted(taken, cells).clamp_(max=len(taken) - 1)
                untaken = (taken[place] != cells).nonzero()[:, 0]
                if len(untaken) >= missing:
                    self._position -= len(cells) - 1 - int(untaken[missing - 1])  # unused cells come again
                cells = cells[untaken[:missing]]
            found = distinct(torch.cat([found, cells]) if len(found) else cells)
        return found

    def next_unseen(self, count: int, taken: Tensor | None = None) -> Tensor:
        """`next` of at most half of what is not taken, with sizes that do not follow from what the cells are.

        Half as many cells again are looked at as are needed on average. Where too few of them are not taken, random
        ones make up for it.

        Returns:
            (count,) int64 distinct indices, in the order of the sequence.
        """
        if count == 0:
            return self._start.new_empty(0)
        population = math.prod(self.shape)
        taken = self._start.new_empty(0) if taken is None else taken
        cells = self._cells(count * population // (population - len(taken)) * 3 // 2 + 64)
        besides = sample_besides(gaps_before(taken), population, count, self._generator)
        new = first_comers(torch.cat([taken, cells, besides]))[len(taken) :]
        passed = compressed(torch.arange(1, len(new) + 1, device=new.device), new, count)[-1]
        unused = passed.clamp(max=len(cells)) - len(cells)
        self._start = self._start + unused * self._steps[:, 0]  # they come again
        return compressed(torch.cat([cells, besides]), new, count)

    def _cells(self, count: int) -> Tensor:
        """(count,) int64 indices of the coordinates in the next cells, repeats included."""
        if self._position >= _ROUNDS * math.prod(self.shape):
            self._begin()
        numbers = torch.arange(self._position, self._position + count, device=self._start.device)
        self._position += count
        fractions = (self._start[:, None] + numbers * self._steps) >> (64 - _BITS) & ((1 << _BITS) - 1)
        indices = ((fractions * self._lengths >> _BITS) * self._strides).sum(dim=0)
        return indices if self._placed is None else self._placed(indices)

    def _begin(self) -> None:
        """Start the sequence anew from a random point."""
        generator, dimensions = self._generator, len(self.shape)
        self._start = torch.randint(
            -(1 << 63), (1 << 63) - 1, (dimensions,), generator=generator, device=generator.device
        )
        self._position = 0

    def state_dict(self) -> dict[str, Any]:
        """Where the sequence stands, in plain containers and tensors."""
        return {"start": self._start, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._start = state["start"].to(self._start.device)
        self._position = state["position"]
