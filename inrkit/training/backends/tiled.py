"""A network for each tile: the selected tiles train, each on points of its own."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inrkit.networks import Tiles
from inrkit.networks.native import SirenKernel
from inrkit.selectors import Residuals
from inrkit.signals.tiled import TiledSignal, Visit
from inrkit.training.backends.base import Backend
from inrkit.training.member import Member
from inrkit.training.objectives import MeanSquaredError
from inrkit.training.optimizers.rows import RowAdam, RowOptimizer
from inrkit.training.turn import Turn, each

if TYPE_CHECKING:
    from inrkit.networks.native.fused import FusedSiren

_POINTS = 1 << 15
"""Points that pass through the networks at a time, so that their activations stay in a processor's cache."""
_POINTS_CUDA = 1 << 19


def points_at_a_time(device: torch.device) -> int:
    """How many points pass through the networks at a time."""
    return _POINTS if device.type == "cpu" else _POINTS_CUDA


class Tiled(Backend):
    """Members whose networks have tiles, and whose selectors choose among these.

    Time and memory of a step follow the tiles that it selects. Where there is machine code for the networks, torch only
    gathers their points.
    """

    def __init__(self) -> None:
        self._owners: dict[Member, Tensor] = {}
        """(U,) the tile of each network."""

    def measure(self, turns: Sequence[Turn]) -> None:
        """Nothing: selectors of tiles make no surveys."""

    def update(self, turns: Sequence[Turn]) -> None:
        each(turns, lambda turn: self._update(turn, plan_of(turn)))

    def release(self) -> None:
        self._owners.clear()

    def _update(self, turn: Turn, plan: Any) -> None:
        """A step of the selected networks on the points of a plan from `plan_of`."""
        member = turn.member
        with beginning(member) as begin:
            owners = self._owners_of(member)
            turn.loss, turn.errors = walked(member, owners, turn.selection.indices, plan, begin)

    def _owners_of(self, member: Member) -> Tensor:
        if member not in self._owners:
            assert isinstance(member.network, Tiles)
            self._owners[member] = member.network.owners
        return self._owners[member]


@contextlib.contextmanager
def _one_thread() -> Iterator[int]:
    """Let torch gather on one thread: the others run machine code, and gathering is too little to be shared. Gives how
    many threads there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def plan_of(turn: Turn) -> Any:
    """Where in the tiles the visits of a step go."""
    member = turn.member
    assert isinstance(member.network, Tiles) and member.view is not None
    options = member.network.options
    return member.view.begin(options.points, options.between, member.visits)


Begin = Callable[[Tensor, Visit, Tensor | None], Callable[[], Tensor]]
"""Begins a step of some networks on the points of a visit, and fills (q, k, C) errors unless they are None; returns
what waits for it and gives their (q,) squared errors."""


@contextlib.contextmanager
def beginning(member: Member) -> Iterator[Begin]:
    """What begins steps of a member's networks inside: a kernel where one trains them, else torch."""
    network, optimizer = member.network, member.optimizer
    assert isinstance(network, Tiles) and isinstance(optimizer, RowOptimizer)
    kernel = network.trained_by if type(member.objective) is MeanSquaredError else None
    if kernel is None:
        yield functools.partial(step_of, member)
        return
    with _one_thread() as threads:
        if isinstance(optimizer, RowAdam) and optimizer.plain:
            yield functools.partial(_begin_adam, kernel, network, optimizer, threads)
        else:
            yield functools.partial(_begin_any, kernel, network, optimizer, threads)


def walked(member: Member, owners: Tensor, rows: Tensor, plan: Any, begin: Begin) -> tuple[Tensor, Residuals]:
    """Step networks, some at a time.

    Args:
        member: whose networks they are.
        owners: (U,) the tile of each network.
        rows: (q,) the networks.
        plan: from `plan_of`.
        begin: begins the step of some of them.

    Returns:
        The loss and the errors from before the step.
    """
    network, view = member.network, member.view
    assert isinstance(network, Tiles) and view is not None
    tiles = owners[rows]
    chunk = max(1, points_at_a_time(member.device) // network.options.points)
    spreads = network.spreads[tiles]
    waiting: list[Callable[[], tuple[Tensor, Tensor | None]]] = []
    points = 0
    looked_up = tiles.cpu() if view.gathers_away(plan) else tiles
    parts = (each.split(chunk) for each in (rows, tiles, looked_up, spreads))
    for part, numbers, visited, spread in zip(*parts, strict=True):
        visit = view.visit(plan, visited)
        targets = (visit.targets - network.means[numbers, None]).div_(spread[:, None, None])
        points = targets.shape[1]
        # Machine code writes the errors in their order, whatever order the targets lie in.
        laid_out = torch.contiguous_format
        errors = torch.empty_like(targets, memory_format=laid_out) if member.selector.needs_response else None
        finish = begin(part, Visit(visit.inputs, targets, visit.weights), errors)
        waiting.append(functools.partial(_found, finish, view, plan, errors, visit.weights))
    found = [each() for each in waiting]
    squared = torch.cat([losses for losses, _ in found]) * spreads.square()
    responses = [response for _, response in found if response is not None]
    response = torch.cat(responses) * spreads.square() if responses else None
    return squared.mean(), Residuals(squared, torch.zeros_like(squared), points=points, response=response)


def _found(
    finish: Callable[[], Tensor], view: TiledSignal, plan: Any, errors: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The (q,) squared errors of networks whose step has ended, and their (q,) responses unless `errors` is None."""
    squared = finish()
    if errors is not None and weights is not None:
        errors = errors * (weights > 0)[..., None]
    return squared, None if errors is None else view.response(plan, errors)


def _begin_adam(
    kernel: SirenKernel | FusedSiren,
    network: Tiles,
    optimizer: RowAdam,
    threads: int,
    rows: Tensor,
    visit: Visit,
    errors: Tensor | None,
) -> Callable[[], Tensor]:
    """Begin a step of the networks `rows` in machine code."""
    group = optimizer.group_of(network.weights)
    rates, corrections = optimizer.advance(network.weights, rows)
    first, second = optimizer.moments(network.weights)
    return kernel.train(
        network.weights,
        first,
        second,
        rows,
        visit.inputs,
        visit.targets,
        visit.weights,
        rates,
        corrections,
        group["betas"],
        group["eps"],
        threads,
        errors,
    )


def _begin_any(
    kernel: SirenKernel | FusedSiren,
    network: Tiles,
    optimizer: RowOptimizer,
    threads: int,
    rows: Tensor,
    visit: Visit,
    errors: Tensor | None,
) -> Callable[[], Tensor]:
    """Begin the gradients of the networks `rows` in machine code; torch steps when they are there."""
    gradients = network.weights.new_empty(len(rows), network.weights.shape[1])
    wait = kernel.gradients(
        network.weights, rows, visit.inputs, visit.targets, visit.weights, gradients, threads, errors
    )

    def finish() -> Tensor:
        squared = wait()
        optimizer.step_rows(network.weights, rows, gradients)
        return squared

    return finish


def step_of(
    member: Member, rows: Tensor, visit: Visit, errors: Tensor | None, *, steps: bool = True
) -> Callable[[], Tensor]:
    """A step of the networks `rows` by torch, or its gradients alone; returns what gives their (q,) mean squared errors
    from before it."""
    network, optimizer = member.network, member.optimizer
    assert isinstance(network, Tiles) and isinstance(optimizer, RowOptimizer)
    weights = network.weights.detach()[rows].requires_grad_()
    residual = network.rows(weights, visit.inputs) - visit.targets
    if errors is not None:
        errors.copy_(residual.detach())
    pointwise = member.objective.pointwise(residual)
    squared = residual.detach().square().mean(dim=-1)
    if visit.weights is not None:
        pointwise, squared = pointwise * visit.weights, squared * visit.weights
    (gradients,) = torch.autograd.grad(pointwise.mean(dim=1).sum(), weights)
    if steps:
        optimizer.step_rows(network.weights, rows, gradients)
    found = squared.mean(dim=1)
    return lambda: found
