"""Numbers as functions of the share of training done."""

from __future__ import annotations

import math

RATIO_SCHEDULES = ("constant", "linear", "step", "cosine", "reverse-cosine")
MUTATION_SCHEDULES = ("constant", "linear", "exponential")


def ratio(schedule: str, start: float, done: float) -> float:
    """Share of the coordinates to train on: EVOS's five schedules (EVOS, section 3.4 and appendix).

    Args:
        schedule: one of RATIO_SCHEDULES.
        start: r0 in (0, 1], the ratio of the first step.
        done: share of training done, in [0, 1].

    Returns:
        r in (0, 1]: r0 throughout; r0 → 1 linearly, in ten equal stages, or along a cosine; r0 → 0.2 along one.
    """
    rise = (1 - math.cos(math.pi * done)) / 2
    if schedule == "linear":
        return start + (1 - start) * done
    if schedule == "step":
        stage = min(math.floor(10 * done + 1e-9), 9)
        return start + stage * (1 - start) / 10
    if schedule == "cosine":
        return start + (1 - start) * rise
    if schedule == "reverse-cosine":
        return start + (0.2 - start) * rise
    return start


def mutation(schedule: str, start: float, end: float, done: float) -> float:
    """Share of r0·N that is drawn at random: α, constant or from `start` to `end` over training.

    Args:
        schedule: one of MUTATION_SCHEDULES.
        start: α0; above 0 for `exponential`.
        end: α1; above 0 for `exponential`.
        done: share of training done, in [0, 1].
    """
    if schedule == "linear":
        return start + (end - start) * done
    if schedule == "exponential":
        return start * (end / start) ** done
    return start


def share_of(count: int, share: float) -> int:
    """⌊share · count⌋, also where rounding puts the product just below a whole number."""
    return math.floor(share * count + 1e-9)
