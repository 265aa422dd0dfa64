"""Random subsets whose cost follows their own size, not the population's."""

from __future__ import annotations

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


def distinct(indices: Tensor) -> Tensor:
    """(n,) the distinct values of (k,) int64 indices, ascending."""
    if indices.device.type != "cpu":
        return torch.unique(indices)
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
