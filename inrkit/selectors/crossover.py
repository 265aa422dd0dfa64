"""Crossover: offspring of the fittest by two fitnesses."""

from __future__ import annotations

import torch
from torch import Tensor

from inrkit.device import mean, widest
from inrkit.selectors.draws.subsets import compressed
from inrkit.selectors.schedules import share_of


def crossover(low: Tensor, high: Tensor, n: int) -> Tensor:
    """Crossover `select` (EVOS, section 3.2): n offspring of the n fittest by `low` and the n fittest by `high`.

    Coordinates in both parents survive. The l places left are divided in proportion p to the mean fitnesses: ⌊p·l⌋ go
    to the fittest by `low` that are only in the first parent, the others to the fittest by `high` only in the second.

    Args:
        low: (N,) low-frequency fitness e_L, finite and not negative.
        high: (N,) high-frequency fitness e_H, likewise.
        n: 0 ≤ n ≤ N.

    Returns:
        (n,) int64 distinct indices, in no particular order.
    """
    if low.device.type != "cpu":
        return crossover_unseen(low, high, n)
    first, second = fittest(low, n), fittest(high, n)
    held = torch.zeros(len(low), dtype=torch.uint8, device=low.device)
    held[first] = 1
    held[second] += 2
    both, first, second = first[held[first] == 3], first[held[first] == 1], second[held[second] == 2]
    mean_low, mean_high = mean(low), mean(high)
    total = mean_low + mean_high
    share = mean_low / total if total > 0 else 0.5
    from_first = share_of(n - len(both), share)
    return torch.cat(
        [
            both,
            first[fittest(low[first], from_first)],
            second[fittest(high[second], n - len(both) - from_first)],
        ]
    )


def crossover_unseen(low: Tensor, high: Tensor, n: int) -> Tensor:
    """`crossover` with sizes that do not follow from the fitnesses, so that nobody waits for the device."""
    first, second = fittest(low, n), fittest(high, n)
    held = torch.zeros(len(low), dtype=torch.uint8, device=low.device)
    held[first] = 1
    held[second] += 2
    both, first_alone, second_alone = held[first] == 3, held[first] == 1, held[second] == 2
    left = n - both.sum()
    mean_low, mean_high = (fitness.mean(dtype=widest(low.device)) for fitness in (low, high))
    total = mean_low + mean_high
    share = torch.where(total > 0, mean_low / total, 0.5)
    from_first = torch.floor(share * left + 1e-9)
    kept = torch.cat(
        [
            both | (first_alone & (_rank(low[first], first_alone) < from_first)),
            second_alone & (_rank(high[second], second_alone) < left - from_first),
        ]
    )
    return compressed(torch.cat([first, second]), kept, n)


def _rank(values: Tensor, among: Tensor) -> Tensor:
    """(n,) int64 how many of those `among` (n,) values are larger than each of these; of the others, anything."""
    order = torch.where(among, values, -1.0).argsort(descending=True, stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def fittest(values: Tensor, n: int) -> Tensor:
    """Indices of the n largest of (N,) values, in no particular order."""
    return values.topk(n, sorted=False).indices
