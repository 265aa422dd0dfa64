"""Where training stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where training stands when step t of T begins.

    Args:
        step: t, from 1 to T.
        steps: T; with a budget of time, how many steps training will take at the pace so far.
        spent: share of the budget of time spent before the step, in [0, 1]; None if steps are counted.
    """

    step: int
    steps: int
    spent: float | None = None

    @property
    def before(self) -> float:
        """Share of training done before this step, in [0, 1): (t − 1) / T where steps are counted."""
        return (self.step - 1) / self.steps if self.spent is None else self.spent

    @property
    def after(self) -> float:
        """Share of training done with this step, in (0, 1]: t / T where steps are counted."""
        return self.step / self.steps if self.spent is None else min(1.0, self.spent + 1 / self.steps)
