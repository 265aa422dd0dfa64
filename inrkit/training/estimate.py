"""The expected time and memory of a run, measured on a few chunks before it starts."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from inrkit.device import resident_bytes
from inrkit.networks import Tiles
from inrkit.selectors import Selection
from inrkit.selectors.progress import Progress
from inrkit.signals.tiled import TiledSignal
from inrkit.training.backends.tiled import Tiled
from inrkit.training.member import Member
from inrkit.training.randomness import caller_undisturbed
from inrkit.training.turn import Turn

_TILES = 64
"""Tiles of the step that is timed."""
_SAMPLE = 10_000
"""How many steps of a long training the estimate looks at; they represent all."""


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a training.

    Args:
        seconds: for the steps and evaluations that are left.
        memory: bytes that the process, or the GPU, will hold at its peak.
    """

    seconds: float
    memory: int


def estimate(member: Member) -> Estimate:
    """Time a chunk forward and backward, count the bytes that it keeps, and scale both to the whole training.

    It runs a copy of the network, so the training does not change.
    """
    if member.view is not None:
        return _estimate_of_tiles(member, member.view)
    signal, dataset, network = member.signal, member.signal.dataset, copy.deepcopy(member.network)
    chunk = slice(0, min(member.chunk, len(signal)))
    size = chunk.stop
    kept = 0

    def count_bytes(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    def step() -> None:
        (network(signal.inputs(chunk)) - signal.targets(chunk)).square().mean().backward()

    with caller_undisturbed(dataset.device):
        with torch.autograd.graph.saved_tensors_hooks(count_bytes, lambda tensor: tensor):
            step()
        each = min(_seconds(step, dataset.device) for _ in range(5)) / size

    steps = range(member.step + 1, member.steps + 1)
    sampled = steps if len(steps) <= _SAMPLE else random.Random(0).sample(steps, _SAMPLE)
    left = [Progress(step, member.steps) for step in sampled]
    trained = 0.0
    for progress in left:
        selected = member.selector.size(progress)
        twice = selected > member.chunk and member.objective.couples(progress, selected == len(signal))
        trained += selected * (4 / 3 if twice else 1) + member.selector.survey_cost(progress) / 3
    pace = each * trained / max(1, len(left))
    count = len(steps)
    if member.budget is not None:
        count = math.ceil(max(0.0, member.budget - member.seconds["train"]) / (pace or 1.0))
    evaluations = math.ceil(count / member.evaluate_every)
    evaluated = min(len(dataset), member.evaluate_most or len(dataset))
    seconds = pace * count + each * evaluations * evaluated / 3

    parameters = sum(parameter.numel() for parameter in network.parameters())
    numbers = member.selector.numbers_kept + member.objective.numbers_kept
    first = [Progress(step, member.steps) for step in steps[:1]]
    asked = [max(member.selector.size(progress), member.selector.survey_cost(progress)) for progress in first]
    largest = min(len(signal), max(asked, default=0))
    transient = 4 * largest * 8 + 3 * kept + 4 * min(len(dataset), 1 << 18) * dataset.channels * 8
    memory = resident_bytes(dataset.device) + 16 * parameters + int(4 * numbers * len(signal)) + transient
    return Estimate(seconds, memory)


def _estimate_of_tiles(member: Member, view: TiledSignal) -> Estimate:
    """The same where tiles are selected: time a step of some of them."""
    dataset, device = member.signal.dataset, member.device
    trial = copy.copy(member)
    trial.network, trial.visits = copy.deepcopy(member.network), torch.Generator(device=device)
    trial.optimizer = copy.deepcopy(member.optimizer)
    assert isinstance(trial.network, Tiles)
    for group in trial.optimizer.param_groups:
        group["params"] = [trial.network.weights]
    progress = Progress(member.step + 1, max(member.steps, member.step + 1))
    turn = Turn(trial)
    turn.progress = progress
    turn.selection = Selection(torch.arange(min(_TILES, trial.network.networks), device=device))
    backend = Tiled()
    with caller_undisturbed(device):
        taken = [_seconds(lambda: backend.update([turn]), device) for _ in range(5)]
    if trial.failure is not None:
        raise trial.failure
    pace = min(taken) / len(turn.selection.indices) * member.selector.size(progress)
    points = len(turn.selection.indices) * turn.errors.points
    count = member.steps - member.step
    if member.budget is not None:
        count = math.ceil(max(0.0, member.budget - member.seconds["train"]) / (pace or 1.0))
    evaluated = min(len(dataset), member.evaluate_most or len(dataset))
    evaluations = math.ceil(count / member.evaluate_every) if member.budget is None else 1
    seconds = pace * count + min(taken) / points * evaluations * evaluated / 2
    # Weights, Adam's two moments and a copy at the end; the spline of a lattice; a slab of an evaluation.
    values = len(dataset) * dataset.channels
    spline = 12 * values if view.keeps_spline and trial.network.options.between > 0 else 0
    slab = 4 * min(len(dataset), 1 << 18) * dataset.channels * 8
    memory = resident_bytes(device) + 16 * member.parameters + max(spline, slab)
    return Estimate(seconds, memory)


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
