"""One member after the other, each chunk by chunk."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from inrkit.training.backends.base import Backend
from inrkit.training.backends.compiled import Compiled
from inrkit.training.gradients import measure, step
from inrkit.training.member import Member
from inrkit.training.turn import Turn, each


class Single(Backend):
    """The plain backend: every member by itself, with its network compiled or not."""

    def measure(self, turns: Sequence[Turn]) -> None:
        each(turns, _measure)

    def update(self, turns: Sequence[Turn]) -> None:
        each(turns, _update)

    def release(self) -> None:
        pass


def _measure(turn: Turn) -> None:
    if turn.survey is not None:
        with _settings(turn.member):
            turn.surveyed = measure(turn.member, turn.survey)


def _update(turn: Turn) -> None:
    with _settings(turn.member):
        step(turn)


def _settings(member: Member) -> contextlib.AbstractContextManager[None]:
    """torch's settings while a compiled network runs."""
    return member.forward.settings() if isinstance(member.forward, Compiled) else contextlib.nullcontext()
