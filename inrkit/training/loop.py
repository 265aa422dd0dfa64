"""The training loop: survey, select, predict, loss, step, observe."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from inrkit.errors import RunError
from inrkit.evaluation.evaluate import evaluate
from inrkit.networks import Network
from inrkit.selectors import Errors, Selection, Selector, Survey
from inrkit.selectors.progress import Progress
from inrkit.signals.dataset import CoordinateDataset
from inrkit.training.learning_rates import LearningRateSchedule
from inrkit.training.objectives import Objective


class Listener:
    """Hears of a training; everything but the loop itself is one. Methods may raise to end the training."""

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step, resumed or not."""

    def on_step(self, trainer: Trainer, selected: int) -> None:
        """After every step, with the number of coordinates it trained on."""

    def on_evaluation(self, trainer: Trainer, row: dict[str, float]) -> None:
        """After an evaluation: step, seconds and the metrics."""

    def on_end(self, trainer: Trainer) -> None:
        """After the last step, or the one that `trainer.stop()` made the last."""


class Trainer:
    """Fits a network to a dataset.

    Args:
        dataset: the signal, on the network's device.
        network: on its device.
        selector: decides which coordinates train at a step.
        objective: the loss.
        optimizer: over the network's parameters.
        schedule: factor on the optimizer's learning rates.
        steps: T.
        budget: seconds of training after which it ends, in place of the T steps, so that schedules follow the clock;
            None for no such limit.
        chunk: how many coordinates pass through the network at a time; bounds the memory of activations.
        metrics: names of the metrics of an evaluation.
        evaluate_every: steps between evaluations; the last step is always evaluated.
        evaluate_most: coordinates of an evaluation, where crops stand for a larger signal; None for no limit.
        listeners: who hears of it.

    Attributes:
        forward: the network as training calls it; a compiled one may take its place. Evaluations, and derivatives with
            respect to coordinates or along directions of the parameters, go through `network` as it is.
    """

    def __init__(
        self,
        dataset: CoordinateDataset,
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
    ) -> None:
        self.dataset = dataset
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
        self.forward: Callable[[Tensor], Tensor] = network
        self.listeners = listeners
        self.step = 0
        self.seconds = {"train": 0.0, "selection": 0.0, "evaluation": 0.0}
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        # For networks that draw while they run, dropout for one.
        self._random = torch.Generator().manual_seed(selector.generator.initial_seed()).get_state()
        self._stopping = False
        self._first = 0.0

    def run(self) -> None:
        """Train from the present step to the last, or until `stop`.

        Raises:
            RunError: the training diverged.
        """
        with torch.random.fork_rng(devices=[]):
            self._run()

    def _run(self) -> None:
        self.start()
        torch.set_rng_state(self._random)
        while not self.ended:
            with self.clock("train"):
                progress = self.begin()
                with self.clock("selection"):
                    survey = self.selector.survey(progress)
                    if survey is not None:
                        self.selector.learn(progress, survey, self.measure(survey))
                    selection = self.selector.select(progress)
                errors = self.update(progress, selection)
                with self.clock("selection"):
                    self.selector.observe(progress, selection, errors)
                self.objective.observe(progress, selection, errors)
                self._random = torch.get_rng_state()
                self.step += 1
            self.report(errors)
        self.end()

    def start(self) -> None:
        """Tell the listeners that training starts."""
        for listener in self.listeners:
            listener.on_start(self)

    def begin(self) -> Progress:
        """Begin a step: draw new points and set the learning rates, if it is time."""
        if self.step == 1:
            self._first = self.seconds["train"]
        progress = self._progress()
        self._advance()
        factor = self.schedule.factor(progress.before, 1 / progress.steps)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        return progress

    def report(self, errors: Errors) -> None:
        """After a step, with its errors: evaluate, if it is time, and tell the listeners.

        Raises:
            RunError: the training diverged.
        """
        evaluated = self.step % self.evaluate_every == 0 or self.finished
        if evaluated:
            self._check(errors)
            self._evaluate()
        for listener in self.listeners:
            listener.on_step(self, len(errors.squared))
        if self._stopping and not evaluated:
            self._check(errors)
            self._evaluate()

    def end(self) -> None:
        """Tell the listeners that training has ended."""
        for listener in self.listeners:
            listener.on_end(self)

    @property
    def ended(self) -> bool:
        """Whether no step is to follow: training is finished, or was stopped."""
        return self.finished or self._stopping

    @property
    def finished(self) -> bool:
        """Whether training has come to its end."""
        if self.budget is None:
            return self.step >= self.steps
        return self.seconds["train"] >= self.budget

    def stop(self) -> None:
        """Make the present step the last one."""
        self._stopping = True

    def _progress(self) -> Progress:
        if self.budget is None:
            return Progress(self.step + 1, self.steps)
        # The first step, which may compile the network, is a poor measure of the others and no share of the schedules.
        spent = (self.seconds["train"] - self._first) / (self.budget - self._first)
        expected = math.ceil(self.step / spent) if self.step and spent else self.steps
        return Progress(self.step + 1, max(self.step + 1, expected), spent)

    def update(self, progress: Progress, selection: Selection, known: tuple[Tensor, Errors] | None = None) -> Errors:
        """One step of the optimizer; it evaluates the loss once, or as often as a line search wants.

        Args:
            progress: of the step.
            selection: what to train on.
            known: what `backpropagate` gives, if the parameters hold the gradients of the selection already.

        Returns:
            The errors of the selection, from before the update.
        """
        seen: list[Errors] = []

        def closure() -> Tensor:
            if known is not None and not seen:
                loss, errors = known
            else:
                self.optimizer.zero_grad()
                loss, errors = self.backpropagate(progress, selection)
            seen.append(errors)
            del seen[1:]  # what counts is from before the update
            return loss

        self.optimizer.step(closure)  # type: ignore[arg-type]  # torch takes a Tensor too
        return seen[0]

    def backpropagate(self, progress: Progress, selection: Selection) -> tuple[Tensor, Errors]:
        """Add the gradient of the objective on the selection to the parameters' gradients.

        Chunks are forgotten one by one. A term that links coordinates needs the residuals of all of them first:
        those of a single chunk are at hand, several chunks pass through the network once more beforehand.

        Returns:
            The objective, a number, where its linking term is known by its gradient alone without that term; and the
            errors of the selection.
        """
        chunks = self._chunks(selection.indices)
        count = len(self.dataset) if selection.indices is None else len(selection.indices)
        couples = self.objective.couples(progress)
        coupling = None
        if couples and len(chunks) > 1:
            with torch.no_grad():
                residuals = [self._residual(chunk) @ self.dataset.channel_weights for chunk in chunks]
            coupling = self.objective.coupling(progress, selection, torch.cat(residuals))
        squared = torch.empty(count, device=self.dataset.device)
        weighted = torch.empty(count, device=self.dataset.device)
        total = torch.zeros((), dtype=torch.float64, device=self.dataset.device)
        slopes = []
        start = 0
        for chunk in chunks:
            coordinates = None
            if self.selector.needs_slope:
                coordinates = self.dataset.coordinates(chunk).requires_grad_()
            residual = self._residual(chunk, coordinates)
            span = slice(start, start + len(residual))
            live = residual @ self.dataset.channel_weights
            weighted[span] = live.detach()
            squared[span] = residual.detach().square().mean(dim=-1)
            pointwise = self.objective.pointwise(residual)
            weights = self.dataset.weights_of(chunk)
            if weights is not None:
                pointwise, squared[span] = pointwise * weights, squared[span] * weights
            factors = self.factors(progress, selection, span, Errors(squared[span], weighted[span]))
            if factors is not None:
                pointwise = pointwise * factors
            loss = pointwise.sum() / count
            total += loss.detach()
            if couples:
                if coupling is None:
                    coupling = self.objective.coupling(progress, selection, weighted)
                loss = loss + (coupling[span] * live).sum()
            loss.backward()
            if coordinates is not None:
                slope = coordinates.grad.detach() * count  # type: ignore[union-attr]
                slopes.append(slope if factors is None else slope / factors[:, None])
            start = span.stop
        return total, Errors(squared, weighted, torch.cat(slopes) if slopes else None)

    def factors(self, progress: Progress, selection: Selection, span: slice, errors: Errors) -> Tensor | None:
        """(k,) factors of the selector on the losses of a span of the selection, with its errors; None for 1 each."""
        factors = self.selector.weigh(progress, errors)
        if selection.weights is None:
            return factors
        given = selection.weights[span]
        return given if factors is None else given * factors

    def measure(self, survey: Survey) -> Errors:
        """The errors of the surveyed coordinates at the present parameters; no gradient is left behind."""
        squared, weighted, influence = [], [], []
        parameters = {name: value for name, value in self.network.named_parameters() if value.requires_grad}
        direction = {name: torch.zeros_like(value) for name, value in parameters.items()}
        for chunk in self._chunks(survey.indices):
            with torch.set_grad_enabled(survey.influence):
                residual = self._residual(chunk)
            weights = self.dataset.weights_of(chunk)
            if survey.influence:
                square = residual.square() if weights is None else residual.square() * weights[:, None]
                half = square.sum() / 2
                parts = torch.autograd.grad(half, list(parameters.values()), allow_unused=True)
                for total, part in zip(direction.values(), parts, strict=True):
                    if part is not None:
                        total += part
            residual = residual.detach()
            mean = residual.square().mean(dim=-1)
            squared.append(mean if weights is None else mean * weights)
            weighted.append(residual @ self.dataset.channel_weights)
        if survey.influence:
            influence = [self._moved(chunk, direction) for chunk in self._chunks(survey.indices)]
        return Errors(torch.cat(squared), torch.cat(weighted), influence=torch.cat(influence) if influence else None)

    def _moved(self, chunk: Tensor | slice, direction: dict[str, Tensor]) -> Tensor:
        """(k,) norms of the derivative of the predictions along a direction of the parameters."""
        inputs = self.dataset.inputs(chunk)
        parameters = {name: value.detach() for name, value in self.network.named_parameters() if name in direction}

        def predict(values: dict[str, Tensor]) -> Tensor:
            predicted: Tensor = torch.func.functional_call(self.network, values, (inputs,))
            return predicted

        with torch.no_grad(), warnings.catch_warnings():
            # The first derivative of this kind makes torch script some of its own functions.
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
            moved: Tensor = torch.func.jvp(predict, (parameters,), (direction,))[1]
        return moved.norm(dim=-1)

    def _advance(self) -> None:
        """Where points are drawn anew during training, draw them when it is time."""
        if not self.dataset.resample_every:
            return
        number = self.step // self.dataset.resample_every
        if number != self.dataset.round:
            self.dataset.advance(number)
            self.selector.operator.rebuild()
            self.selector.restart()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs, in plain containers and tensors."""
        return {
            "step": self.step,
            "seconds": dict(self.seconds),
            "first": self._first,
            "device": self.dataset.device.type,
            "random": self._random,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "selector": self.selector.state_dict(),
            "objective": self.objective.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.selector.load_state_dict(state["selector"])
        self.objective.load_state_dict(state["objective"])
        self.step = state["step"]
        self._random = state["random"]
        if self.dataset.resample_every and self.step:
            self.dataset.advance((self.step - 1) // self.dataset.resample_every)
            self.selector.operator.rebuild()
        self.seconds = dict(state["seconds"])
        self._first = state["first"]

    def _residual(self, chunk: Tensor | slice, coordinates: Tensor | None = None) -> Tensor:
        """(k, C) F(x_i) − y_i; of live coordinates if they are given, around which y is linear."""
        if coordinates is None:
            return self.forward(self.dataset.inputs(chunk)) - self.dataset.targets(chunk)
        offset = coordinates - coordinates.detach()  # zero, with a gradient
        targets = self.dataset.targets(chunk) + (self.dataset.slopes(chunk) @ offset[:, :, None])[:, :, 0]
        return self.network(self.dataset.embedded(coordinates)) - targets

    def _chunks(self, indices: Tensor | None) -> Sequence[Tensor | slice]:
        if indices is not None:
            return indices.split(self.chunk)
        count = len(self.dataset)
        return [slice(start, min(start + self.chunk, count)) for start in range(0, count, self.chunk)]

    def _check(self, errors: Errors) -> None:
        if not math.isfinite(float(errors.squared.sum(dtype=torch.float64))):
            raise self._diverged()

    def _diverged(self) -> RunError:
        return RunError(f"training diverged: the error is not finite at step {self.step}; lower optimizer.lr")

    def _evaluate(self) -> None:
        with self.clock("evaluation"):
            values = evaluate(self.network, self.dataset, self.metrics, self.chunk, self.evaluate_most)
        if any(math.isnan(value) for value in values.values()):
            raise self._diverged()  # by the last update, after the errors were found finite
        row = {"step": self.step, "seconds": self.seconds["train"], **values}
        for listener in self.listeners:
            listener.on_evaluation(self, row)

    @contextlib.contextmanager
    def clock(self, part: str) -> Iterator[None]:
        """Count the time of what happens inside towards a part of `seconds`."""
        start = self.now()
        yield
        self.seconds[part] += self.now() - start

    def now(self) -> float:
        """Seconds on a clock, when all that the device was given to do is done."""
        if self.dataset.device.type == "cuda":
            torch.cuda.synchronize(self.dataset.device)  # or the work of one part would be charged to another
        return time.perf_counter()
