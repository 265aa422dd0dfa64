"""Steps as recorded CUDA graphs: a step is launched at once, not operation by operation."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
import weakref
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from inrkit.selectors import Residuals, Selection, Selector
from inrkit.training.backends.single import Single
from inrkit.training.backends.tiled import Begin, Tiled, beginning, step_of, walked
from inrkit.training.gradients import backpropagate, step
from inrkit.training.member import Member
from inrkit.training.objectives import MeanSquaredError, Objective
from inrkit.training.optimizers.rows import RowAdam
from inrkit.training.randomness import random_states
from inrkit.training.turn import Turn, each

Record = Callable[[Callable[[], None], Callable[[], None]], Callable[[], None]]
"""Makes of a function another one that does the same again, in the same memory; it may call the second, which changes
nothing that lasts, beforehand."""

_REHEARSALS = 2
"""Steps of a kind that are taken as they are, before the next one is recorded: the optimizer has its state by then."""
_MOST_KINDS = 32
"""Recordings that are kept; steps of further kinds run as they are."""


class CudaGraphs:
    """Records functions as CUDA graphs, which share their memory because they run one after the other.

    Args:
        device: the GPU that they run on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._latest: Callable[[], Any] = lambda: None
        """The graph that was recorded last, unless it is gone: its memory is gone with it then."""

    def __call__(self, function: Callable[[], None], rehearsal: Callable[[], None]) -> Callable[[], None]:
        # A recording that fails would leave its stream as the current one.
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream(self._device)):
            return self._recorded(function, rehearsal)

    def _recorded(self, function: Callable[[], None], rehearsal: Callable[[], None]) -> Callable[[], None]:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries set themselves up for a stream when they first run there
            rehearsal()
        torch.cuda.current_stream().wait_stream(aside)
        graph, latest = torch.cuda.CUDAGraph(), self._latest()
        pool = None if latest is None else latest.pool()
        # Other threads, such as one that draws previews, may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
            function()
        self._latest = weakref.ref(graph)
        return graph.replay


class _Recordings:
    """What is known of a member's steps, by their kind.

    Recordings end when the optimizer's state is replaced, as on going back to a checkpoint, and when the signal's
    points are drawn anew.

    Args:
        member: whose steps they are.
        record: how a step is recorded.
    """

    def __init__(self, member: Member, record: Record) -> None:
        self.record = record
        self._member = member
        self._seen: Counter[Any] = Counter()
        self._recorded: dict[Any, Any] = {}
        self._recordable = True
        self._round = member.signal.dataset.round
        self._hook = member.optimizer.register_load_state_dict_post_hook(lambda optimizer: self._forget())

    def of(self, kind: Any, make: Callable[[], Recorded]) -> Recorded | None:
        """The recording of a kind of step, which `make` makes when it is due; None for a step to take as it is."""
        if self._round != self._member.signal.dataset.round:
            self._round = self._member.signal.dataset.round
            self._forget()
        due = self._recordable and self._seen[kind] >= _REHEARSALS and len(self._recorded) < _MOST_KINDS
        if kind not in self._recorded and due:
            try:
                self._recorded[kind] = make()
            except RuntimeError as error:
                self._recordable = False
                reason = " ".join(str(error).split()[:40])
                warnings.warn(f"steps run as they are, as they could not be captured: {reason}", stacklevel=2)
        return self._recorded.get(kind)

    def plainly(self, kind: Any, step: Callable[[], None]) -> None:
        """Take a step as it is. If it draws random numbers, none will be recorded."""
        self._seen[kind] += 1
        before = random_states(self._member.device)
        step()
        after = random_states(self._member.device)
        if not all(torch.equal(before[name], after[name]) for name in before):
            self._recordable = False

    def release(self) -> None:
        self._hook.remove()

    def _forget(self) -> None:
        self._seen.clear()
        self._recorded.clear()


class Recorded(ABC):
    """A recorded step, with the tensors that it reads and writes.

    Args:
        member: whose step it is; it is recorded and not taken.
        record: how it is recorded.
    """

    def __init__(self, member: Member, record: Record) -> None:
        self.member = member
        self._rates = [
            torch.full((), group["lr"], dtype=self._dtype, device=member.device)
            for group in member.optimizer.param_groups
        ]
        self._loss: Tensor
        self._errors: Residuals
        self._replay = record(self._run, self._rehearse)

    @property
    def _dtype(self) -> torch.dtype:
        """Of the learning rates."""
        return torch.float64

    def replay(self, turn: Turn) -> None:
        """Take the step for a turn, whose selection was filled in."""
        for rate, group in zip(self._rates, self.member.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self._replay()
        # The next replay writes to the same memory.
        turn.loss, errors = self._loss.clone(), self._errors
        own: dict[str, Any] = {name: value.clone() for name, value in vars(errors).items() if isinstance(value, Tensor)}
        turn.errors = dataclasses.replace(errors, **own)

    @contextlib.contextmanager
    def _rates_held(self) -> Iterator[None]:
        """Let the optimizer take its learning rates from the tensors that are filled before a replay."""
        groups = self.member.optimizer.param_groups
        before = [dict(group) for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = group["capturable"] or rate.device.type != "cpu"
        try:
            yield
        finally:
            for group, own in zip(groups, before, strict=True):
                group.update(own)

    @abstractmethod
    def _run(self) -> None:
        """The step itself; puts the loss and the errors into `_loss` and `_errors`."""

    @abstractmethod
    def _rehearse(self) -> None:
        """The step without the optimizer's."""


class Captured(Single):
    """Like `Single`, but steps that are alike are recorded, and replayed from then on.

    A step selects coordinates as ever. What follows, gathering, both passes through the network and the optimizer's
    step, then has the same operations on tensors of the same sizes, as long as as many coordinates are selected. It is
    recorded with the selection and the learning rates in tensors of its own, which are filled before a replay. Adam and
    AdamW are recorded too; other optimizers step by themselves, on recorded gradients.

    Steps run as they are where a loss depends on more than the selected coordinates' residuals: where the selector
    weighs losses by what it has learnt, or the objective links coordinates at that step. So do surveys, and all steps
    of networks that draw random numbers.

    Args:
        record: how a function is recorded; as a CUDA graph, if not given.
    """

    def __init__(self, record: Record | None = None) -> None:
        self._record = record
        self._recordings: dict[Member, _Recordings] = {}

    def update(self, turns: Sequence[Turn]) -> None:
        each(turns, self._update)

    def release(self) -> None:
        _released(self._recordings)

    def _update(self, turn: Turn) -> None:
        member, selection = turn.member, turn.selection
        selector = type(member.selector)
        alike = _pointwise(member) and selector.weigh is Selector.weigh and not selector.needs_slope
        if not alike or member.objective.couples(turn.progress, selection.whole):
            super().update([turn])
            return
        recordings = _of(self._recordings, member, self._record)
        kind = (len(selection.indices), selection.weights is None)
        recorded = recordings.of(kind, lambda: _RecordedStep(turn, recordings.record))
        if isinstance(recorded, _RecordedStep):
            recorded.fill(selection)
            recorded.replay(turn)
        else:
            recordings.plainly(kind, lambda: super(Captured, self).update([turn]))


class _RecordedStep(Recorded):
    """A recorded step of a single network.

    Args:
        turn: a step like those that will be replayed.
        record: how it is recorded.
    """

    def __init__(self, turn: Turn, record: Record) -> None:
        given, optimizer = turn.selection, turn.member.optimizer
        self._progress = turn.progress
        weights = None if given.weights is None else given.weights.clone()
        self._selection = Selection(given.indices.clone(), weights, given.whole)
        # An optimizer that is recorded keeps its count on the device, and takes its rate from there.
        known = type(optimizer) in (torch.optim.Adam, torch.optim.AdamW)
        on_device = turn.member.device.type == "cpu" or all(group.get("fused") for group in optimizer.param_groups)
        self._steps = known and on_device
        super().__init__(turn.member, record)

    @property
    def _dtype(self) -> torch.dtype:
        # torch's fused kernel reads a float32; where nothing is captured, the rate should keep all its digits.
        return torch.float64 if self.member.device.type == "cpu" else torch.float32

    def fill(self, selection: Selection) -> None:
        """Take another selection."""
        self._selection.indices.copy_(selection.indices)
        if self._selection.weights is not None and selection.weights is not None:
            self._selection.weights.copy_(selection.weights)

    def replay(self, turn: Turn) -> None:
        super().replay(turn)
        if not self._steps:
            for parameter, gradient in self._gradients:
                parameter.grad = gradient
            step(turn, (turn.loss, turn.errors))

    def _run(self) -> None:
        self._rehearse()
        if self._steps:
            with self._rates_held():
                self.member.optimizer.step()
        else:
            groups = self.member.optimizer.param_groups
            self._gradients = [(each, each.grad) for group in groups for each in group["params"]]

    def _rehearse(self) -> None:
        self.member.optimizer.zero_grad()
        self._loss, self._errors = backpropagate(self.member, self._progress, self._selection)


class CapturedTiles(Tiled):
    """Like `Tiled`, but steps that are alike are recorded, as `Captured` does. There are several kinds of steps: along
    each axis a tile has room for one point more or less, and points may lie between the samples.

    Adam and AdamW are recorded, and so is a kernel in Triton; with other optimizers steps run as they are, and so do
    those whose values come from main memory.

    Args:
        record: how a function is recorded; as a CUDA graph, if not given.
    """

    def __init__(self, record: Record | None = None) -> None:
        super().__init__()
        self._record = record
        self._recordings: dict[Member, _Recordings] = {}

    def release(self) -> None:
        super().release()
        _released(self._recordings)

    def _update(self, turn: Turn, plan: Any) -> None:
        member, rows, view = turn.member, turn.selection.indices, turn.member.view
        alike = _pointwise(member) and isinstance(member.optimizer, RowAdam)
        if view is None or not alike or view.gathers_away(plan):
            super()._update(turn, plan)
            return
        recordings = _of(self._recordings, member, self._record)
        kind = (len(rows), view.kind(plan))
        owners = self._owners_of(member)
        recorded = recordings.of(kind, lambda: _RecordedTiles(turn, owners, plan, recordings.record))
        if isinstance(recorded, _RecordedTiles):
            recorded.fill(rows, plan)
            recorded.replay(turn)
        else:
            recordings.plainly(kind, lambda: super(CapturedTiles, self)._update(turn, plan))


class _RecordedTiles(Recorded):
    """A recorded step of tiles' networks.

    Args:
        turn: a step like those that will be replayed.
        owners: (U,) the tile of each network.
        plan: where the step's points are.
        record: how it is recorded.
    """

    def __init__(self, turn: Turn, owners: Tensor, plan: Any, record: Record) -> None:
        view = turn.member.view
        assert view is not None
        self._view, self._owners = view, owners
        self._rows, self._plan = turn.selection.indices.clone(), view.held(plan)
        super().__init__(turn.member, record)

    def fill(self, rows: Tensor, plan: Any) -> None:
        """Take other networks and points."""
        self._rows.copy_(rows)
        self._view.refill(self._plan, plan)

    def _run(self) -> None:
        with self._rates_held(), beginning(self.member) as begin:
            self._walk(begin)

    def _rehearse(self) -> None:
        self._walk(functools.partial(step_of, self.member, steps=False))

    def _walk(self, begin: Begin) -> None:
        self._loss, self._errors = walked(self.member, self._owners, self._rows, self._plan, begin)


def _of(recordings: dict[Member, _Recordings], member: Member, record: Record | None) -> _Recordings:
    if member not in recordings:
        recordings[member] = _Recordings(member, record or CudaGraphs(member.device))
    return recordings[member]


def _released(recordings: dict[Member, _Recordings]) -> None:
    for each_of_them in recordings.values():
        each_of_them.release()
    recordings.clear()


def _pointwise(member: Member) -> bool:
    """Whether the objective's losses of coordinates depend on their residuals alone."""
    objective = type(member.objective)
    return objective.observe is Objective.observe or objective.pointwise is MeanSquaredError.pointwise
