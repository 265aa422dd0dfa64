"""Member: one network in training, with everything that its training needs; and Listener."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from inrkit.device import synchronize, total
from inrkit.errors import RunError
from inrkit.evaluation.evaluate import evaluate
from inrkit.networks import Network
from inrkit.selectors import Residuals, Selection, Selector
from inrkit.selectors.progress import Progress
from inrkit.signals.signal import Signal
from inrkit.signals.tiled import TiledSignal
from inrkit.training.learning_rates import LearningRateSchedule
from inrkit.training.objectives import Objective
from inrkit.training.optimizers.kernels import load
from inrkit.training.randomness import begin_anew, seeded_states
from inrkit.training.stopwatch import Stopwatch

_VISITS = 0x7469_6C65
"""Tells the seed of tiles' points from the selector's."""


_EVALUATED_SHARE = 0.05
"""Of a budget of time, what evaluations before the last one may take besides."""

_SPANS_AHEAD = 6
"""Spans of time that need not be known under a budget of time: a GPU is given two steps in advance."""

_DRAWS_LEFT = 4
"""Of a budget of time, how often drawing new points must fit into what is left, to be worth its time."""


class Listener:
    """Is called at the events of a training: history, checkpoints, display. Methods may raise to end the training."""

    def on_start(self, member: Member) -> None:
        """Before the first step, resumed or not."""

    def on_selection(self, member: Member, selection: Selection, loss: Tensor) -> None:
        """After every step, with the coordinates it trained on and the loss from before its update, a number."""

    def on_step(self, member: Member, selected: int) -> None:
        """After every step, with the number of coordinates it trained on."""

    def on_evaluation(self, member: Member, row: dict[str, float]) -> None:
        """After an evaluation: step, seconds and the metrics."""

    def on_recovery(self, member: Member, lost: int) -> None:
        """Training diverged by step `lost`, and goes on from the member's step with lower learning rates."""

    def on_end(self, member: Member) -> None:
        """After the last step, also if `member.stop()` made it the last."""


class Member:
    """One network in training: its signal, selector, objective, optimizer, schedule and random state.

    Args:
        signal: what it learns, on the network's device.
        network: on its device.
        selector: decides which coordinates train at a step.
        objective: the loss.
        optimizer: over the network's parameters.
        schedule: factor on the optimizer's learning rates.
        steps: T.
        budget: seconds after which training ends, in place of the T steps; schedules then follow the clock. None for no
            such limit.
        chunk: how many coordinates pass through the network at a time; bounds the memory of activations.
        metrics: names of the metrics of an evaluation.
        evaluate_every: steps between evaluations; the last step is always evaluated.
        evaluate_most: most coordinates of an evaluation; a larger signal is evaluated on crops. None for no limit.
        listeners: are called at the events of the training.
        view: the signal seen by the network's tiles, where the selector selects these; None where it selects
            coordinates.
        recovers: whether a training that diverges goes back to its last finite evaluation, and on from there with half
            the learning rates; else it fails.
        rate_key: the config's key for the learning rate, or keys, as messages name it.

    Attributes:
        forward: the network that training calls, possibly compiled. Evaluations, and derivatives with respect to
            coordinates or along directions of the parameters, use `network` itself.
        captured: whether steps that are alike are recorded and replayed, on a GPU.
        step: how many steps are done.
        watch: measures its seconds, by the device's clock.
        visits: generator of the points of tiles, on the CPU.
        random: states of torch's own generators between two steps.
        base_rates: learning rates of the optimizer's groups before the schedule's factor.
        recoveries: how often it has gone back because it had diverged.
        failure: the error that ended its training; None for none.
        unscheduled: the step of an evaluation that was made only because training was stopped at that step.
    """

    def __init__(
        self,
        signal: Signal,
        network: Network,
        selector: Selector,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: LearningRateSchedule,
        *,
        steps: int,
        budget: float | None = None,
        chunk: int,
        metrics: list[str],
        evaluate_every: int,
        evaluate_most: int | None = None,
        listeners: Sequence[Listener] = (),
        view: TiledSignal | None = None,
        recovers: bool = False,
        rate_key: str = "optimizer.lr",
    ) -> None:
        self.signal = signal
        self.network = network
        self.selector = selector
        self.objective = objective
        self.optimizer = optimizer
        self.schedule = schedule
        self.steps = steps
        self.budget = budget
        self.chunk = chunk
        self.metrics = metrics
        self.evaluate_every = evaluate_every
        self.evaluate_most = evaluate_most
        self.listeners = listeners
        self.view = view
        self._seed = selector.generator.initial_seed()
        self.visits = torch.Generator().manual_seed(self._seed ^ _VISITS)
        self.recovers = recovers
        self.rate_key = rate_key
        self.forward: Callable[[Tensor], Tensor] = network
        self.captured = False
        self.step = 0
        self.watch = Stopwatch(signal.device)
        self._draw = 0.0
        """Seconds that drawing points anew took, the last time."""
        self.random = seeded_states(self._seed, signal.device)
        self.failure: Exception | None = None
        self.unscheduled: int | None = None
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self.recoveries = 0
        self._sound: dict[str, Any] | None = None
        self._ahead: Selection | None = None
        """What the next step will select, if it was asked for already."""
        self._ahead_here = torch.empty(0, dtype=torch.int64)
        """Its indices, in main memory."""
        self._before_ahead: dict[str, Any] | None = None
        """The selector's state from before it was asked."""
        self._trains = network.training
        self._stopping = False
        self._first = 0.0

    @property
    def device(self) -> torch.device:
        return self.signal.device

    @property
    def seconds(self) -> dict[str, float]:
        """Spent on "train" (without evaluations), on "selection" (a part of "train") and on "evaluation". A GPU's time
        is known a little later, at the latest when training is evaluated or has ended."""
        return self.watch.seconds

    @property
    def parameters(self) -> int:
        """The number of the network's parameters, frozen ones included."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def finished(self) -> bool:
        """Whether training has come to its end."""
        if self.budget is None:
            return self.step >= self.steps
        self.watch.settle(_SPANS_AHEAD)
        return self.seconds["train"] >= self.budget

    @property
    def _affords_evaluation(self) -> bool:
        """Whether evaluations have taken so small a share of a budget of time that another one may be made."""
        return self.budget is None or self.seconds["evaluation"] <= _EVALUATED_SHARE * self.seconds["train"]

    @property
    def ended(self) -> bool:
        """Whether no step follows: training is finished, was stopped, or failed."""
        return self.finished or self._stopping or self.failure is not None

    def stop(self) -> None:
        """Make the present step the last one, until training is started again."""
        self._stopping = True

    def start(self) -> None:
        """Tell the listeners that training starts, or goes on."""
        self._stopping = False
        if self.recovers and self._sound is None:
            self._sound = self._copied_state()
        for listener in self.listeners:
            listener.on_start(self)

    def begin(self) -> Progress:
        """Begin a step: draw new points if they are due, and set the learning rates.

        Returns:
            Where training stands before the step.
        """
        if self.step == 1:
            self.watch.settle()
            self._first = self.seconds["train"]
        if self._trains and not self.network.training:  # making a field of it put it in eval mode
            self.network.train()
        progress = self._progress()
        self._advance()
        factor = self.schedule.factor(progress.before, 1 / progress.steps)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor * 0.5**self.recoveries
        return progress

    def select(self, progress: Progress) -> Selection:
        """The coordinates of a step, which may have been asked for a step early.

        Where values stay in main memory and the selector foresees, it is asked for the next step's too, before the GPU
        is busy with this one: the indices can be had then without waiting for it.
        """
        selection = self._ahead or self.selector.select(progress)
        self._ahead = self._before_ahead = None
        if self._foresees and progress.step < progress.steps:
            self._before_ahead = copy.deepcopy(self.selector.state_dict())
            ahead = self.selector.select(Progress(progress.step + 1, progress.steps))
            self._ahead, self._ahead_here = ahead, ahead.indices.cpu()
        return selection

    def prepare(self) -> None:
        """Gather the values of what the next step selects, if that is known."""
        if self._ahead is not None and len(self._ahead_here) <= self.chunk:
            self._ahead = dataclasses.replace(self._ahead, targets=self.signal.targets(self._ahead_here))

    @property
    def _foresees(self) -> bool:
        """Whether the next step's selection can be asked for while this step is computed, and it is worth it."""
        away = self.signal.dataset.away and self.view is None
        return away and self.selector.foresees and self.budget is None and not self.signal.dataset.resample_every

    def report(self, errors: Residuals) -> None:
        """After a step, with its errors: evaluate if it is due, and tell the listeners.

        Raises:
            RunError: the training diverged.
        """
        evaluated = self.finished or (self.step % self.evaluate_every == 0 and self._affords_evaluation)
        if evaluated and not self._evaluate(errors):
            return
        for listener in self.listeners:
            listener.on_step(self, len(errors.squared) * errors.points)
        # A listener's checkpoint may have waited for the device, and so found that the budget of time is spent.
        if not evaluated and (self.finished or self._stopping):
            self.unscheduled = None if self.finished else self.step
            self._evaluate(errors)

    def end(self) -> None:
        """Tell the listeners that training has ended."""
        self.watch.settle()
        for listener in self.listeners:
            listener.on_end(self)

    def now(self) -> float:
        """Seconds on a clock, read after the device has finished its pending work."""
        synchronize(self.device)  # or the work of one part would be charged to another
        return time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs, in plain containers and tensors."""
        self.watch.settle()
        return {
            "step": self.step,
            "seconds": dict(self.seconds),
            "first": self._first,
            "device": self.device.type,
            "random": self.random,
            "visits": self.visits.get_state(),
            "unscheduled": self.unscheduled,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "selector": self._before_ahead or self.selector.state_dict(),
            "objective": self.objective.state_dict(),
            **({"recoveries": self.recoveries, "sound": self._sound} if self.recovers else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave.

        On another kind of device random generators have states of another form. They begin anew there, from the seed
        and the step, except for that of the CPU.

        Raises:
            ValueError: its numbers cannot be those of a training.
        """
        _require_sound(state, self.seconds)
        random = state["random"]
        # Version 0.1.0 kept the state of the CPU's generator alone.
        random = {**self.random, "cpu": random} if isinstance(random, Tensor) else random
        if state.get("device", self.device.type) != self.device.type:
            state, random = self._moved(state, random)
        if any(random[name].shape != own.shape or random[name].dtype != own.dtype for name, own in self.random.items()):
            raise ValueError("random states")
        self.network.load_state_dict(state["network"])
        load(self.optimizer, state["optimizer"])
        self.selector.load_state_dict(state["selector"])
        self._ahead = self._before_ahead = None
        self.objective.load_state_dict(state["objective"])
        self.step = state["step"]
        self.random = random
        self.unscheduled = state.get("unscheduled")
        visits = state.get("visits")
        if visits is not None and visits.shape == self.visits.get_state().shape:  # or it was a GPU's, in version 0.1.0
            self.visits.set_state(visits.cpu())
        if self.signal.dataset.resample_every and self.step:
            self.signal.dataset.advance((self.step - 1) // self.signal.dataset.resample_every)
            self._redrawn()
        self.watch.reset(dict(state["seconds"]))
        self._first = state["first"]
        self.recoveries = state.get("recoveries", 0)
        self._sound = state.get("sound")

    def _moved(self, state: dict[str, Any], random: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A state from another kind of device, and its states of torch's generators, as those of this: generators whose
        states cannot be had begin anew."""
        step, selecting = state["step"], self.selector.generator
        begin_anew(selecting, self._seed, step)
        drawing = torch.Generator(device=self.device)
        begin_anew(drawing, self._seed, step)
        selector = {**state["selector"], "generator": selecting.get_state()}
        return {**state, "selector": selector}, {self.device.type: drawing.get_state(), "cpu": random["cpu"]}

    def _progress(self) -> Progress:
        if self.budget is None:
            return Progress(self.step + 1, self.steps)
        # The first step may compile the network, so it counts neither for the pace nor for the schedules.
        spent = (self.seconds["train"] - self._first) / (self.budget - self._first)
        expected = math.ceil(self.step / spent) if self.step and spent else self.steps
        return Progress(self.step + 1, max(self.step + 1, expected), spent)

    def _advance(self) -> None:
        """Draw new points if the dataset draws points anew during training and they are due."""
        dataset = self.signal.dataset
        if not dataset.resample_every:
            return
        number = self.step // dataset.resample_every
        late = self.budget is not None and self.budget - self.seconds["train"] < _DRAWS_LEFT * self._draw
        if number != dataset.round and not late:
            start = self.now()
            dataset.advance(number)
            self._redrawn()
            self.selector.restart()
            self._draw = self.now() - start

    def _redrawn(self) -> None:
        """Points were drawn anew: rebuild what depends on where they lie."""
        if self.view is not None:
            self.view.rebuild()
        else:
            self.selector.operator.rebuild()

    def _evaluate(self, errors: Residuals) -> bool:
        """Evaluate, and tell the listeners; False if training has diverged and was taken back."""
        if not math.isfinite(total(errors.squared)):
            return self._recover()
        self.watch.settle()
        start = self.now()
        values = evaluate(self.network, self.signal, self.metrics, self.chunk, self.evaluate_most)
        self.seconds["evaluation"] += self.now() - start
        if any(math.isnan(value) for value in values.values()):
            return self._recover()  # diverged by the last update, after the errors were found finite
        row = {"step": self.step, "seconds": self.seconds["train"], **values}
        for listener in self.listeners:
            listener.on_evaluation(self, row)
        if self.recovers and self.unscheduled != self.step:
            self._sound = self._copied_state()
        return True

    def _copied_state(self) -> dict[str, Any]:
        """The state by itself, which further steps do not change."""
        return copy.deepcopy({name: value for name, value in self.state_dict().items() if name != "sound"})

    def _recover(self) -> bool:
        """After a divergence: go back to the last finite evaluation with half the learning rates; returns False.

        Raises:
            RunError: it is not to recover, or has tried often enough.
        """
        self.watch.settle()
        lost, sound, seconds, recoveries = self.step, self._sound, self.seconds, self.recoveries
        if sound is None or recoveries == _MOST_RECOVERIES:
            often = f" {recoveries + 1} times" if recoveries else ""
            mend = "" if self.recovers else ", or go on with --resume train.on_divergence=recover"
            raise RunError(
                f"training diverged{often}: the error is not finite at step {lost}; lower {self.rate_key} in another "
                f"--out{mend}"
            )
        self.load_state_dict(copy.deepcopy(sound))
        self.watch.reset(seconds)  # the time is spent
        self._sound, self.recoveries = sound, recoveries + 1
        for listener in self.listeners:
            listener.on_recovery(self, lost)
        return False


def _require_sound(state: dict[str, Any], seconds: dict[str, float]) -> None:
    """Refuse a state whose counts and times are none: a NaN among them would train for ever."""
    counts = [state["step"], state.get("unscheduled") or 0, state.get("recoveries", 0)]
    if not all(type(count) is int and 0 <= count < 1 << 62 for count in counts):
        raise ValueError("counts")
    times = [state["first"], *state["seconds"].values()]
    if state["seconds"].keys() != seconds.keys() or not all(
        isinstance(time, int | float) and 0 <= time < math.inf for time in times
    ):
        raise ValueError("seconds")


_MOST_RECOVERIES = 20
"""Half the learning rate so often is a millionth of it."""
