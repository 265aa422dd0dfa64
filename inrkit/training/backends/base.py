"""Backend: how the errors and gradients of members are computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from inrkit.training.turn import Turn


class Backend(ABC):
    """Computes what the loop asks for. A member for which that raises has failed; see `each`."""

    @abstractmethod
    def measure(self, turns: Sequence[Turn]) -> None:
        """Find the errors that surveys ask for, of the turns that have one: `Turn.surveyed`."""

    @abstractmethod
    def update(self, turns: Sequence[Turn]) -> None:
        """Step the optimizers on the turns' selections; leave the errors from before that in `Turn.errors`."""

    @abstractmethod
    def release(self) -> None:
        """Training has ended, or is interrupted: let every member have what is its own."""
