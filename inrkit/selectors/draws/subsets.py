"""Random subsets whose cost follows their own size, not the population's.

On a GPU the processor would wait whenever it looks at what was drawn, and at sizes that follow from it. There, all is
computed with sizes that are known beforehand.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def sample_without_replacement(population: int, count: int, generator: torch.Generator) -> Tensor:
    """A uniformly random subset of 0 … population − 1.

    For a small share, slightly too many numbers are drawn with replacement, and repeats are removed. Every set of
    distinct numbers of the same size is then equally likely, so dropping a random surplus keeps the subset uniform. A
    large share is the head of a random permutation.

    Args:
        population: N ≥ count.
        count: k ≥ 0, how many distinct indices to draw.
        generator: source of randomness; the result lies on its device.

    Returns:
        (k,) int64 distinct indices; ascending where the share is small.
    """
    device = generator.device
    if count == 0:
        return torch.empty(0, dtype=torch.int64, device=device)
    if 4 * count >= population:
        return torch.randperm(population, generator=generator, device=device)[:count]
    if device.type != "cpu":
        return drawn_unseen(population, count, generator)
    drawn = torch.empty(0, dtype=torch.int64, device=device)
    while len(drawn) < count:
        # Of count·(1 + share) draws about a share/2 are repeats: one round is nearly always enough.
        draws = int((count - len(drawn)) * (1 + count / population)) + 16
        fresh = torch.randint(population, (draws,), generator=generator, device=device)
        drawn = distinct(torch.cat([drawn, fresh]))
    surplus = len(drawn) - count
    if surplus:
        keep = torch.ones(len(drawn), dtype=torch.bool, device=device)
        keep[sample_without_replacement(len(drawn), surplus, generator)] = False
        drawn = drawn[keep]
    return drawn


def drawn_unseen(population: int, count: int, generator: torch.Generator) -> Tensor:
    """`sample_without_replacement` of a small share, with sizes that do not follow from what is drawn.

    Numbers are drawn one after the other, and the first k that did not come before are taken. So many are drawn that
    these are too few less than once in 10¹² times.

    Returns:
        (k,) int64 distinct indices, ascending.
    """
    draws = population * (1 - math.sqrt(max(0.0, 1 - 2 * count / population)))
    draws = math.ceil(draws + 12 * math.sqrt(draws * draws / (2 * population))) + 32
    drawn = torch.randint(population, (draws,), generator=generator, device=generator.device)
    ascending, order = drawn.sort(stable=True)
    new = _new(ascending, order)
    taken = new & (new.cumsum(0) <= count)
    return compressed(ascending, taken[order], count)


def first_comers(candidates: Tensor) -> Tensor:
    """(m,) bool, which of (m,) int64 candidates equal none before them."""
    return _new(*candidates.sort(stable=True))


def _new(ascending: Tensor, order: Tensor) -> Tensor:
    """`first_comers` of what a stable sort has put in ascending order."""
    new = torch.ones_like(ascending, dtype=torch.bool)
    new[1:] = ascending[1:] != ascending[:-1]
    return torch.empty_like(new).scatter_(0, order, new)


def compressed(values: Tensor, kept: Tensor, count: int) -> Tensor:
    """(count,) the first of (m,) values that are `kept`, in their order; zeros at the end if these are fewer."""
    place = kept.cumsum(0).sub_(1)
    place = torch.where(kept & (place < count), place, count)  # the others go to one place beyond the end
    return values.new_zeros(count + 1).scatter_(0, place, values)[:count]


def distinct(indices: Tensor) -> Tensor:
    """(n,) the distinct values of (k,) int64 indices on the CPU, ascending."""
    ascending = np.sort(indices.numpy())  # ten times as fast as torch's
    first = np.ones(len(ascending), dtype=bool)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    return torch.from_numpy(ascending[first])


def gaps_before(taken: Tensor) -> Tensor:
    """(n,) how many indices are not taken below each of (n,) distinct taken ones, in ascending order of these."""
    return taken.sort().values - torch.arange(len(taken), device=taken.device)


def sample_besides(gaps: Tensor, population: int, count: int, generator: torch.Generator) -> Tensor:
    """A uniformly random subset of the indices in 0 … population − 1 that are not taken.

    Args:
        gaps: (n,) `gaps_before` of the indices that are taken.
        population: N.
        count: how many distinct indices to draw, at most N − n.
        generator: source of randomness; the result lies on its device.

    Returns:
        (count,) int64 distinct indices.
    """
    # The j-th index that is not taken is j plus the number of taken ones before it.
    places = sample_without_replacement(population - len(gaps), count, generator)
    return places + torch.searchsorted(gaps, places, right=True)
