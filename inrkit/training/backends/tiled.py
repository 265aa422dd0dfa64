"""A network for each tile: the selected tiles train, each on points of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from inrkit.networks import Tiles
from inrkit.networks.native import SirenKernel
from inrkit.selectors import Residuals
from inrkit.signals.tiled import Visit
from inrkit.training.backends.base import Backend
from inrkit.training.member import Member
from inrkit.training.objectives import MeanSquaredError
from inrkit.training.optimizers.rows import RowAdam
from inrkit.training.turn import Turn, each

_POINTS = 1 << 15
"""Points that pass through the networks at a time, so that their activations stay in a processor's cache."""
_POINTS_CUDA = 1 << 19


class Tiled(Backend):
    """Members whose networks have tiles, and whose selectors choose among these.

    Time and memory of a step follow the tiles that it selects. Where there is machine code for the networks, torch only
    gathers their points.
    """

    def measure(self, turns: Sequence[Turn]) -> None:
        """Nothing: selectors of tiles make no surveys."""

    def update(self, turns: Sequence[Turn]) -> None:
        each(turns, _update)

    def release(self) -> None:
        pass


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


def _update(turn: Turn) -> None:
    network, optimizer = turn.member.network, turn.member.optimizer
    assert isinstance(network, Tiles) and isinstance(optimizer, RowAdam)
    plain = type(turn.member.objective) is MeanSquaredError and _native(optimizer)
    kernel = network.kernel if plain else None
    if kernel is None:
        _steps(turn, lambda rows, visit: _step(turn.member, network, optimizer, rows, visit))
        return
    with _one_thread() as threads:
        _steps(turn, lambda rows, visit: _begin_native(kernel, network, optimizer, rows, visit, threads))


def _steps(turn: Turn, begin: Callable[[Tensor, Visit], Callable[[], Tensor]]) -> None:
    """Step the selected networks, some at a time.

    Args:
        turn: it receives the loss and the errors.
        begin: begins a step of some networks on the points of a visit; returns what waits for it and gives their (q,)
            errors.
    """
    member = turn.member
    network, view = member.network, member.view
    assert isinstance(network, Tiles) and view is not None
    rows = turn.selection.indices
    tiles = network.owners[rows]
    plan = view.begin(network.options.points, network.options.between, member.visits)
    most = _POINTS if member.device.type == "cpu" else _POINTS_CUDA
    chunk = max(1, most // network.options.points)
    spreads = network.spreads[tiles]
    waiting: list[Callable[[], Tensor]] = []
    points = 0
    for part, numbers, spread in zip(rows.split(chunk), tiles.split(chunk), spreads.split(chunk), strict=True):
        visit = view.visit(plan, numbers)
        targets = (visit.targets - network.means[numbers, None]).div_(spread[:, None, None])
        points = targets.shape[1]
        waiting.append(begin(part, Visit(visit.inputs, targets, visit.weights)))
    squared = torch.cat([finish() for finish in waiting]) * spreads.square()
    turn.errors = Residuals(squared, torch.zeros_like(squared), points=points)
    turn.loss = squared.mean()


def _begin_native(
    kernel: SirenKernel, network: Tiles, optimizer: RowAdam, rows: Tensor, visit: Visit, threads: int
) -> Callable[[], Tensor]:
    """Begin a step of the networks `rows` in machine code; returns what waits for it and gives their (q,) errors."""
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
    )


def _native(optimizer: RowAdam) -> bool:
    """Whether machine code steps as this optimizer would."""
    return all(group["weight_decay"] == 0 for group in optimizer.param_groups)


def _step(member: Member, network: Tiles, optimizer: RowAdam, rows: Tensor, visit: Visit) -> Callable[[], Tensor]:
    """A step of the networks `rows`; returns what gives their (q,) mean squared errors from before it."""
    weights = network.weights.detach()[rows].requires_grad_()
    residual = network.rows(weights, visit.inputs) - visit.targets
    pointwise = member.objective.pointwise(residual)
    squared = residual.detach().square().mean(dim=-1)
    if visit.weights is not None:
        pointwise, squared = pointwise * visit.weights, squared * visit.weights
    (gradients,) = torch.autograd.grad(pointwise.mean(dim=1).sum(), weights)
    optimizer.step_rows(network.weights, rows, gradients)
    errors = squared.mean(dim=1)
    return lambda: errors
