"""One member's steps as recorded CUDA graphs: a step is launched at once, not operation by operation."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from inrkit.selectors import Residuals, Selection, Selector
from inrkit.training.backends.single import Single
from inrkit.training.gradients import backpropagate, step
from inrkit.training.member import Member
from inrkit.training.objectives import MeanSquaredError, Objective
from inrkit.training.randomness import random_states
from inrkit.training.turn import Turn, each

Record = Callable[[Callable[[], None], Callable[[], None]], Callable[[], None]]
"""Makes of a function another one that does the same again, in the same memory; it may call the second, which changes
nothing that lasts, beforehand."""

_REHEARSALS = 2
"""Steps of a kind that are taken as they are, before the next one is recorded: the optimizer has its state by then."""
_MOST_KINDS = 8
"""Recordings that are kept; each keeps the memory of its activations."""


class CudaGraphs:
    """Records functions as CUDA graphs, which share their memory because they run one after the other.

    Args:
        device: the GPU that they run on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, function: Callable[[], None], rehearsal: Callable[[], None]) -> Callable[[], None]:
        with torch.cuda.device(self._device):
            return self._recorded(function, rehearsal)

    def _recorded(self, function: Callable[[], None], rehearsal: Callable[[], None]) -> Callable[[], None]:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries set themselves up for a stream when they first run there
            rehearsal()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as one that draws previews, may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"):
            function()
        self._pool = graph.pool()
        return graph.replay


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
        self._kinds: dict[Member, _Kinds] = {}

    def update(self, turns: Sequence[Turn]) -> None:
        each(turns, self._update)

    def release(self) -> None:
        for kinds in self._kinds.values():
            kinds.hook.remove()
        self._kinds.clear()

    def _update(self, turn: Turn) -> None:
        member = turn.member
        if not _alike(member) or member.objective.couples(turn.progress, turn.selection.whole):
            super().update([turn])
            return
        if member not in self._kinds:
            self._kinds[member] = _Kinds(member, self._record or CudaGraphs(member.device))
        kinds = self._kinds[member]
        kind = (len(turn.selection.indices), turn.selection.weights is None, member.signal.dataset.round)
        if kind in kinds.recorded:
            kinds.recorded[kind].replay(turn)
            return
        if kinds.recordable and kinds.seen[kind] >= _REHEARSALS:
            if len(kinds.recorded) == _MOST_KINDS:
                del kinds.recorded[next(iter(kinds.recorded))]
            try:
                kinds.recorded[kind] = _Recorded(turn, kinds.record)
            except RuntimeError as error:
                kinds.recordable = False
                reason = " ".join(str(error).split()[:40])
                warnings.warn(f"steps run as they are, as they could not be captured: {reason}", stacklevel=2)
            else:
                kinds.recorded[kind].replay(turn)
                return
        kinds.seen[kind] += 1
        before = random_states(member.device)
        super().update([turn])
        after = random_states(member.device)
        if not all(torch.equal(before[name], after[name]) for name in before):
            kinds.recordable = False


class _Kinds:
    """What is known of a member's steps, by their kind.

    Attributes:
        record: how a step is recorded.
        seen: how many steps of a kind were taken as they are.
        recorded: the recordings. They end when the optimizer's state is replaced, as on going back to a checkpoint.
        recordable: whether steps may be recorded.
        hook: removes the hook that ends the recordings.
    """

    def __init__(self, member: Member, record: Record) -> None:
        self.record = record
        self.seen: Counter[Any] = Counter()
        self.recorded: dict[Any, _Recorded] = {}
        self.recordable = True
        self.hook = member.optimizer.register_load_state_dict_post_hook(lambda optimizer: self._forget())

    def _forget(self) -> None:
        self.seen.clear()
        self.recorded.clear()


class _Recorded:
    """A recorded step, with the tensors that it reads and writes.

    Args:
        turn: a step like those that will be replayed; it is recorded and not taken.
        record: how it is recorded.
    """

    def __init__(self, turn: Turn, record: Record) -> None:
        self._member, self._progress = turn.member, turn.progress
        given = turn.selection
        weights = None if given.weights is None else given.weights.clone()
        self._selection = Selection(given.indices.clone(), weights, given.whole)
        self._steps = _steps_within(turn.member)
        # torch's fused kernel reads a float32; where nothing is captured, the rate should keep all its digits.
        dtype = torch.float64 if turn.member.device.type == "cpu" else torch.float32
        self._rates = [
            torch.full((), group["lr"], dtype=dtype, device=turn.member.device)
            for group in turn.member.optimizer.param_groups
        ]
        self._replay = record(self._run, self._rehearse)

    def replay(self, turn: Turn) -> None:
        """Take the step for a turn."""
        member, given = self._member, turn.selection
        self._selection.indices.copy_(given.indices)
        if self._selection.weights is not None and given.weights is not None:
            self._selection.weights.copy_(given.weights)
        for rate, group in zip(self._rates, member.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self._replay()
        # The next replay writes to the same memory.
        turn.loss = self._loss.clone()
        turn.errors = dataclasses.replace(
            self._errors,
            squared=self._errors.squared.clone(),
            residual=self._errors.residual.clone(),
            weights=None if self._errors.weights is None else self._errors.weights.clone(),
        )
        if not self._steps:
            for parameter, gradient in self._gradients:
                parameter.grad = gradient
            step(turn, (turn.loss, turn.errors))

    def _run(self) -> None:
        """The step itself."""
        optimizer = self._member.optimizer
        self._rehearse()
        if not self._steps:
            self._gradients = [(each, each.grad) for group in optimizer.param_groups for each in group["params"]]
            return
        settings = [dict(group) for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
            group["capturable"] = group["capturable"] or rate.device.type != "cpu"
        try:
            optimizer.step()
        finally:
            for group, setting in zip(optimizer.param_groups, settings, strict=True):
                group.update(setting)

    def _rehearse(self) -> None:
        """The step without the optimizer's."""
        self._member.optimizer.zero_grad()
        self._loss: Tensor
        self._errors: Residuals
        self._loss, self._errors = backpropagate(self._member, self._progress, self._selection)


def _alike(member: Member) -> bool:
    """Whether losses depend on the residuals alone, at steps at which the objective does not link coordinates."""
    selector, objective = type(member.selector), type(member.objective)
    plain = objective.observe is Objective.observe or objective.pointwise is MeanSquaredError.pointwise
    return plain and selector.weigh is Selector.weigh and not selector.needs_slope


def _steps_within(member: Member) -> bool:
    """Whether the optimizer's step may be recorded: it keeps its count on the device, and takes its rate from there."""
    optimizer = member.optimizer
    known = type(optimizer) in (torch.optim.Adam, torch.optim.AdamW)
    return known and (member.device.type == "cpu" or all(group["fused"] for group in optimizer.param_groups))
