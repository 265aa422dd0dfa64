"""Crossover: offspring of the fittest by two fitnesses."""

from __future__ import annotations

import torch
from torch import Tensor

from inrkit.device import mean
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


def fittest(values: Tensor, n: int) -> Tensor:
    """Indices of the n largest of (N,) values, in no particular order."""
    return values.topk(n, sorted=False).indices
