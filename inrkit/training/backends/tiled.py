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
        threads = torch.get_num_threads()
        with _one_thread():
            each(turns, lambda turn: _update(turn, threads))

    def release(self) -> None:
        pass


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch gather on one thread: the others run machine code, and gathering is too little to be shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _update(turn: Turn, threads: int) -> None:
    member = turn.member
    network, view = member.network, member.view
    assert isinstance(network, Tiles) and view is not None and isinstance(member.optimizer, RowAdam)
    rows = turn.selection.indices
    tiles = network.owners[rows]
    plan = view.begin(network.options.points, network.options.between, member.visits)
    most = _POINTS if member.device.type == "cpu" else _POINTS_CUDA
    chunk = max(1, most // network.options.points)
    spreads = network.spreads[tiles]
    kernel = network.kernel if type(member.objective) is MeanSquaredError and _native(member.optimizer) else None
    waiting: list[Callable[[], Tensor]] = []
    points = 0
    for part, numbers, spread in zip(rows.split(chunk), tiles.split(chunk), spreads.split(chunk), strict=True):
        visit = view.visit(plan, numbers)
        targets = (visit.targets - network.means[numbers, None]).div_(spread[:, None, None])
        points = targets.shape[1]
        visit = Visit(visit.inputs, targets, visit.weights)
        if kernel is not None:
            waiting.append(_begin_native(kernel, network, member.optimizer, part, visit, threads))
        else:
            losses = _step(member, network, member.optimizer, part, visit)
            waiting.append(lambda losses=losses: losses)  # type: ignore[misc]
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


def _step(member: Member, network: Tiles, optimizer: RowAdam, rows: Tensor, visit: Visit) -> Tensor:
    """A step of the networks `rows`; returns their (q,) mean squared errors from before it."""
    weights = network.weights.detach()[rows].requires_grad_()
    residual = network.rows(weights, visit.inputs) - visit.targets
    pointwise = member.objective.pointwise(residual)
    squared = residual.detach().square().mean(dim=-1)
    if visit.weights is not None:
        pointwise, squared = pointwise * visit.weights, squared * visit.weights
    (gradients,) = torch.autograd.grad(pointwise.mean(dim=1).sum(), weights)
    optimizer.step_rows(network.weights, rows, gradients)
    return squared.mean(dim=1)
