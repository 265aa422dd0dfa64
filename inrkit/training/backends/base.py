"""Backend: how the errors and gradients of members are computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from inrkit.training.turn import Turn


class Backend(ABC):
    """Computes errors and gradients for the loop. If this raises for a member, that member has failed; see `each`."""

    @abstractmethod
    def measure(self, turns: Sequence[Turn]) -> None:
        """Compute the errors of the surveys (`Turn.surveyed`), for the turns that have a survey."""

    @abstractmethod
    def update(self, turns: Sequence[Turn]) -> None:
        """Step the optimizers on the turns' selections; put the errors from before the step into `Turn.errors`."""

    @abstractmethod
    def release(self) -> None:
        """Training has ended or is interrupted: give every member its own parameters and optimizer state."""
