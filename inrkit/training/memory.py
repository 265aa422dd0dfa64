"""The memory that a training takes beside what is there before it starts, found without running it."""

from __future__ import annotations

import contextlib
import copy
import math
import random
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inrkit.evaluation.evaluate import applicable, evaluating
from inrkit.evaluation.metrics import Metric
from inrkit.networks import Tiles
from inrkit.selectors.progress import Progress
from inrkit.signals.lattice import SLAB
from inrkit.signals.tiled import TiledSignal
from inrkit.training.backends.compiled import Compiled
from inrkit.training.backends.tiled import points_at_a_time
from inrkit.training.member import Member
from inrkit.training.optimizers.rows import RowOptimizer
from inrkit.training.randomness import caller_undisturbed

_FEW = 256
"""Coordinates of a trial; twice as many tell what a further one takes."""
_SAMPLE = 100
"""How many steps of a training are asked how much they select."""
_CORNER, _CORNERS = 512, 1 << 16
"""Bytes of a place between the samples, and the most that are rated."""
_COMPILER = 1 << 28
"""Bytes of the compiler of networks."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a training will take.

    Args:
        parameters: gradients and the optimizer's state, from the first step to the end.
        coordinates: what is kept of each coordinate or value, from the first step to the end.
        step: a step, on top of that.
        evaluation: likewise.
        files: likewise.
    """

    parameters: int
    coordinates: int
    step: int
    evaluation: int
    files: int = 0

    @property
    def total(self) -> int:
        """The peak."""
        return self.parameters + self.coordinates + max(self.step, self.evaluation, self.files)

    @property
    def largest(self) -> str:
        """The name of the part that takes most at the peak."""
        return max(("parameters", "coordinates", "step", "evaluation", "files"), key=lambda name: getattr(self, name))


def expected_memory(member: Member, files: int = 0) -> Memory:
    """The memory that a training will take beside what is there.

    It tries a copy of the network and the optimizer on a few coordinates, and counts the tensors that they make.

    Args:
        member: that is to be trained.
        files: bytes that its files take while they are written.
    """
    with caller_undisturbed(member.device):
        if member.view is not None:
            return _of_tiles(member, member.view, files)
        return _of_coordinates(member, files)


def _of_coordinates(member: Member, files: int) -> Memory:
    signal, count = member.signal, len(member.signal)
    largest = most_at_a_step(member)
    network, optimizer = copy.deepcopy((member.network, member.optimizer))

    def loss(size: int) -> Tensor:
        few = slice(0, min(size, count))
        network.zero_grad(set_to_none=False)
        value: Tensor = (network(signal.inputs(few)) - signal.targets(few)).square().mean()
        value.backward()
        return value

    loss(_FEW)  # the gradients stay
    each, fixed = _linear(loss, count)
    with _Tally() as tally, contextlib.suppress(Exception):  # one that is given may not like to be copied
        for _ in range(2):
            optimizer.step(lambda: loss(_FEW))  # type: ignore[arg-type, return-value]  # torch takes a Tensor too
    # Curvature pairs come only with later steps.
    pairs = max((group.get("history_size", 0) for group in optimizer.param_groups), default=0)
    gradients = _bytes(network.parameters())
    state = gradients + tally.alive + 2 * pairs * gradients
    most = max(fixed + each * min(largest, member.chunk), tally.most - tally.alive)
    numbers = 4 * (member.selector.numbers_kept + member.objective.numbers_kept)
    # Indices of the selected, their errors, and what ranks them.
    step = most + 32 * largest + (_COMPILER if isinstance(member.forward, Compiled) else 0)
    return Memory(state, int(numbers * count), int(step), _of_evaluation(member), files)


def _of_tiles(member: Member, view: TiledSignal, files: int) -> Memory:
    """The same where tiles are selected."""
    network, dataset = member.network, member.signal.dataset
    assert isinstance(network, Tiles)
    points = points_at_a_time(member.device)
    each = 4.0 * (2 * dataset.dimensions + 4 * dataset.channels)
    if network.trained_by is None:
        weights = network.weights.detach()[:1].requires_grad_()

        def step(size: int) -> None:
            inputs = torch.zeros(1, size, dataset.dimensions, device=member.device)
            torch.autograd.grad(network.rows(weights, inputs).square().sum(), weights)

        each += _linear(step, points)[0]
    kept = view.keeps_spline and not view.spline_away and network.options.between > 0
    spline = 4 * len(dataset) * dataset.channels if kept else 0
    assert isinstance(member.optimizer, RowOptimizer)
    state = 4 * member.optimizer.numbers_kept(network.weights)
    # Machine code works on all visits of a step at once, so their targets are all there.
    begun = 0
    if network.trained_by is not None:
        begun = 4 * dataset.channels * network.options.points * most_at_a_step(member)
    most = max(each * points, begun)
    return Memory(state, spline + 8 * network.networks, int(most), _of_evaluation(member), files)


def _of_evaluation(member: Member) -> int:
    """Bytes of an evaluation: a slab of the signal, its predictions, and the metric that takes most."""
    dataset, signal, network = member.signal.dataset, member.signal, member.network
    shape = dataset.grid_shape or (len(dataset),)
    evaluated = min(len(dataset), member.evaluate_most or len(dataset))
    slab = min(evaluated, max(SLAB, math.prod(shape[1:])))

    def predict(size: int) -> None:
        with evaluating(network), torch.inference_mode():
            network(signal.inputs(slice(0, min(size, len(signal)))))

    each, fixed = _linear(predict, len(signal))
    rows = (max(1, evaluated // math.prod(shape[1:])), *shape[1:])
    measures = [type(metric) for metric in applicable(member.metrics, dataset).values()]
    metrics = [measure.memory(rows, dataset.channels) for measure in measures if issubclass(measure, Metric)]
    held = slab * (8 + 8 * dataset.dimensions + 20 * dataset.channels)
    return int(held + fixed + each * min(member.chunk, slab) + max([_CORNER * min(evaluated, _CORNERS), *metrics]))


def most_at_a_step(member: Member) -> int:
    """The most coordinates that a step to come selects or surveys."""
    steps = range(member.step + 1, member.steps + 1)
    sampled = steps if len(steps) <= _SAMPLE else [steps[0], *random.Random(0).sample(steps, _SAMPLE)]
    selector = member.selector
    asked = [Progress(step, member.steps) for step in sampled]
    largest = max((max(selector.size(at), selector.survey_cost(at)) for at in asked), default=0)
    return math.ceil(min(len(member.signal), largest))


def _linear(run: Callable[[int], Any], most: int) -> tuple[float, float]:
    """Bytes of tensors that a function makes for each of its coordinates, and those however many they are.

    Args:
        run: the function, of how many coordinates.
        most: how many there are.
    """
    taken = []
    for size in (_FEW, 2 * _FEW):
        with _Tally() as tally:
            run(size)
        taken.append(tally.most)
    if most < 2 * _FEW:
        return 0.0, float(max(taken))
    each = max(0.0, (taken[1] - taken[0]) / _FEW)
    return each, max(0.0, taken[0] - each * _FEW)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _Tally(TorchDispatchMode):
    """Counts the bytes of the tensors that operations inside it make.

    Attributes:
        alive: of those that are there.
        most: of those that were there at the same time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.most = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            self._see(tensor, 0)
        result = function(*args, **kwargs)
        for tensor in _tensors(result):
            self._see(tensor, tensor.untyped_storage().nbytes())
        self.most = max(self.most, self.alive)
        return result

    def _see(self, tensor: Tensor, size: int) -> None:
        """Count a tensor's memory, unless it is known."""
        storage = tensor.untyped_storage()
        number = storage._cdata
        if number in self._seen:
            return

        def gone(_: Any) -> None:
            del self._seen[number]
            self.alive -= size

        self._seen[number] = weakref.ref(storage, gone)
        self.alive += size


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
