"""Turn: one step of one member."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from inrkit.selectors import Residuals, Selection, Survey
from inrkit.selectors.progress import Progress
from inrkit.training.member import Member


class Turn:
    """One step of one member, from the survey to the report.

    Args:
        member: the member that takes the step.

    Attributes:
        progress: where training stands before the step.
        survey: the coordinates whose errors the selector needs first; None for none.
        surveyed: the errors of the survey.
        selection: the k coordinates that train.
        loss: the objective on the selection, a number, from before the update.
        errors: the errors of the selection, from before the update.
    """

    progress: Progress
    survey: Survey | None
    surveyed: Residuals
    selection: Selection
    loss: Tensor
    errors: Residuals

    def __init__(self, member: Member) -> None:
        self.member = member

    def begin(self) -> None:
        """Begin the step."""
        self.progress = self.member.begin()

    def ask(self) -> None:
        """Ask the selector for its survey."""
        self.survey = self.member.selector.survey(self.progress)

    def select(self) -> None:
        """Let the selector learn the errors of its survey, and choose the coordinates."""
        if self.survey is not None:
            self.member.selector.learn(self.progress, self.survey, self.surveyed)
        self.selection = self.member.select(self.progress)

    def prepare(self) -> None:
        """Gather what the next step takes, while a GPU computes."""
        self.member.prepare()

    def observe(self) -> None:
        """Let the selector learn the errors."""
        self.member.selector.observe(self.progress, self.selection, self.errors)

    def conclude(self) -> None:
        """Let the objective learn the errors, and count the step."""
        self.member.objective.observe(self.progress, self.selection, self.errors)
        self.member.step += 1

    def report(self) -> None:
        """Evaluate the member if it is due, and tell its listeners."""
        for listener in self.member.listeners:
            listener.on_selection(self.member, self.selection, self.loss)
        self.member.report(self.errors)


def each(turns: Sequence[Turn], action: Callable[[Turn], None]) -> list[Turn]:
    """Do `action` for the turn of every member that has not failed.

    If the action raises for a member, that member has failed and is left out from then on; the others go on.

    Returns:
        The turns of the members that have not failed.
    """
    for turn in turns:
        if turn.member.failure is None:
            try:
                action(turn)
            except Exception as error:
                turn.member.failure = error
    return [turn for turn in turns if turn.member.failure is None]
