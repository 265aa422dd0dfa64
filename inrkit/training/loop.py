"""The training loop: survey, select, predict, step, observe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from inrkit.training.backends.base import Backend
from inrkit.training.backends.captured import Captured, CapturedTiles
from inrkit.training.backends.single import Single
from inrkit.training.backends.stacked import Stacked, stackable_groups
from inrkit.training.backends.tiled import Tiled
from inrkit.training.member import Member
from inrkit.training.randomness import caller_undisturbed, random_states, set_random_states
from inrkit.training.turn import Turn, each


class Trainer:
    """Trains members, each a network with its signal, step by step.

        for turns in Trainer([member]):
            print(turns[0].member.step, float(turns[0].loss))

    Args:
        members: one, or several that `stackable_groups` puts in one group. They may be resumed; members with fewer
            steps done catch up first.
        backend: computes errors and gradients; if not given, `Tiled` for a member that selects tiles, else `Single`;
            or, where steps are to be captured, `CapturedTiles` and `Captured`.
    """

    def __init__(self, members: Sequence[Member], backend: Backend | None = None) -> None:
        self.members = list(members)
        self.backend = backend or _backend_for(self.members[0])

    def run(self) -> None:
        """Train all members to their ends, or until they are stopped.

        If one of several fails, its error becomes its `failure`, and the others go on.

        Raises:
            Exception: the only member failed.
        """
        for _ in self:
            pass

    def __iter__(self) -> Iterator[list[Turn]]:
        """Train, and yield for every step the turns that members took in it."""
        every = [Turn(member) for member in self.members]
        for member in self.members:
            member.failure = None
        each(every, lambda turn: turn.member.start())
        self._raise_alone()
        try:
            while going := [member for member in self.members if not member.ended]:
                behind = min(member.step for member in going)
                yield self.step([member for member in going if member.step == behind])
                self._raise_alone()
        finally:
            self.backend.release()
        each(every, lambda turn: turn.member.end())
        self._raise_alone()

    def step(self, members: Sequence[Member]) -> list[Turn]:
        """One step of members that have all done the same number of steps."""
        turns = [Turn(member) for member in members]
        with _own_random_states(members), _clock("train", members):
            turns = each(turns, Turn.begin)
            with _clock("selection", members):
                turns = each(turns, Turn.ask)
                self.backend.measure(turns)
                turns = each(turns, Turn.select)
            self.backend.update(turns)
            turns = each(turns, Turn.prepare)
            with _clock("selection", members):
                turns = each(turns, Turn.observe)
            turns = each(turns, Turn.conclude)
        return each(turns, Turn.report)

    def _raise_alone(self) -> None:
        """If there is only one member, raise its failure."""
        if len(self.members) == 1 and self.members[0].failure is not None:
            raise self.members[0].failure


def _backend_for(member: Member) -> Backend:
    if member.view is not None:
        return CapturedTiles() if member.captured else Tiled()
    return Captured() if member.captured else Single()


def train(members: Sequence[Member]) -> None:
    """Train many members to their ends: those that can be stacked as one computation, the others one by one.

    If a member fails, its error becomes its `failure`, and the others go on.
    """
    for group in stackable_groups(members):
        if len(group) > 1:
            Trainer(group, Stacked()).run()
        else:
            with contextlib.suppress(Exception):  # it is the member's `failure`
                Trainer(group).run()


@contextlib.contextmanager
def _own_random_states(members: Sequence[Member]) -> Iterator[None]:
    """Let a single member draw from torch's generators in its own states; leave the caller's states as they were.

    If there are several members, none draws random numbers: networks that do so cannot be stacked.
    """
    first = members[0]
    with caller_undisturbed(first.device):
        if len(members) == 1:
            set_random_states(first.random, first.device)
        yield
        if len(members) == 1:
            first.random = random_states(first.device)


@contextlib.contextmanager
def _clock(part: str, members: Sequence[Member]) -> Iterator[None]:
    """Add the time spent inside to `part` of the members' seconds, in equal shares."""
    watch = members[0].watch
    start = watch.mark()
    yield
    stop = watch.mark()
    for member in members:
        member.watch.add(part, start, stop, 1 / len(members))
