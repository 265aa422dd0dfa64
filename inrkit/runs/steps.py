"""Training in a loop of the user's own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inrkit.config import Config
from inrkit.device import choose_device, choose_precision, reproducible
from inrkit.evaluation.evaluate import evaluate
from inrkit.runs.beginning import Beginning
from inrkit.runs.build import as_signal, begun, build, field_of, read_signal
from inrkit.runs.field import Field
from inrkit.selectors import Selection
from inrkit.signals.dataset import CoordinateDataset
from inrkit.training.loop import Trainer
from inrkit.training.member import Listener, Member
from inrkit.training.turn import Turn


@dataclass(frozen=True)
class Step:
    """A step that is done.

    Args:
        number: t, from 1.
        member: the member in training: `member.network`, `member.optimizer`, `member.selector`, `member.seconds`, …
        turn: its selection and errors.
    """

    number: int
    member: Member
    turn: Turn

    @property
    def loss(self) -> float:
        """Mean squared error of the selected coordinates, in the network's range squared, from before the update."""
        return float(self.turn.errors.squared.mean())

    @property
    def selection(self) -> Selection:
        """The coordinates that the step trained on."""
        return self.turn.selection

    def __repr__(self) -> str:
        return f"Step({self.number} of {self.turn.progress.steps}, loss {self.loss:.3g})"


class Training:
    """The training of a fit; iterate over it to get a `Step` for every step.

    You may leave the loop at any time, and go on with another loop; or end it with `stop`.

    Args:
        config: of the fit.
        dataset: the signal; the config's file, if not given.
        listeners: who hears of it.
        beginning: weights to start from; those that the config's `init` names, if not given.
    """

    def __init__(
        self,
        config: Config,
        dataset: CoordinateDataset | None = None,
        listeners: Sequence[Listener] = (),
        beginning: Beginning | None = None,
    ) -> None:
        device = choose_device(config.general.device)
        signal = read_signal(config) if dataset is None else as_signal(config, dataset)
        if config.general.init:
            beginning = beginning or Beginning.read(config.general.init)
            config = begun(config, signal, beginning)
        self.config = config
        with reproducible(config.train.deterministic):
            self.member = build(config, signal, device, choose_precision(config.train.precision, device), beginning)
        self.member.listeners = list(listeners)

    def __repr__(self) -> str:
        return f"Training({self.config.network.name}, step {self.member.step} of {self.member.steps})"

    def __len__(self) -> int:
        """How many steps are left, if steps are counted."""
        return max(0, self.member.steps - self.member.step)

    def __iter__(self) -> Iterator[Step]:
        steps = iter(Trainer([self.member]))
        while True:
            with reproducible(self.config.train.deterministic):  # not while the user's loop runs
                turns = next(steps, None)
            if turns is None:
                return
            yield Step(self.member.step, self.member, turns[0])

    def stop(self) -> None:
        """Make the present step the last one of the loop."""
        self.member.stop()

    def evaluate(self) -> dict[str, float]:
        """The metrics at this moment, by name."""
        member = self.member
        with reproducible(self.config.train.deterministic):
            return evaluate(member.network, member.signal, member.metrics, member.chunk, member.evaluate_most)

    @property
    def field(self) -> Field:
        """The field at this moment: a copy that further steps do not change."""
        return field_of(self.config, copy.deepcopy(self.member.network), self.member.signal)

    def save(self, path: str | Path) -> None:
        """Write the field at this moment to a safetensors file, for `inrkit.load`."""
        self.field.save(path)
