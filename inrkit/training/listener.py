"""Listener: hears of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inrkit.training.member import Member


class Listener:
    """Hears of a training; everything but the loop itself is one. Methods may raise to end the training."""

    def on_start(self, member: Member) -> None:
        """Before the first step, resumed or not."""

    def on_step(self, member: Member, selected: int) -> None:
        """After every step, with the number of coordinates it trained on."""

    def on_evaluation(self, member: Member, row: dict[str, float]) -> None:
        """After an evaluation: step, seconds and the metrics."""

    def on_end(self, member: Member) -> None:
        """After the last step, or the one that `member.stop()` made the last."""
