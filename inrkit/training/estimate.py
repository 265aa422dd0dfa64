"""The expected time of a run, measured on a few chunks before it starts, and its memory."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from inrkit.device import resident_bytes, synchronize
from inrkit.networks import Tiles
from inrkit.selectors import Selection
from inrkit.selectors.progress import Progress
from inrkit.training.backends.tiled import Tiled
from inrkit.training.member import Member
from inrkit.training.memory import expected_memory, most_at_a_step
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


def estimate(member: Member, files: int = 0) -> Estimate:
    """Time a chunk forward and backward and scale it to the whole training.

    It runs a copy of the network, so the training does not change.

    Args:
        member: that is to be trained.
        files: bytes that its files take while they are written.
    """
    before = resident_bytes(member.device)
    memory = expected_memory(member, files)
    seconds = _seconds_of_coordinates(member) if member.view is None else _seconds_of_tiles(member)
    # What the trial leaves behind a training takes again. The allocator uses about half of it for what comes later.
    after = resident_bytes(member.device) + max(memory.evaluation, memory.files) // 2
    return Estimate(seconds, max(before + memory.total, after))


def _seconds_of_coordinates(member: Member) -> float:
    signal, dataset, network = member.signal, member.signal.dataset, copy.deepcopy(member.network)
    size = max(1, min(member.chunk, most_at_a_step(member)))
    chunk = slice(0, size)

    def step() -> None:
        (network(signal.inputs(chunk)) - signal.targets(chunk)).square().mean().backward()

    with caller_undisturbed(dataset.device):
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
    return pace * count + each * evaluations * evaluated / 3


def _seconds_of_tiles(member: Member) -> float:
    """The same where tiles are selected: time a step of some of them."""
    dataset, device = member.signal.dataset, member.device
    trial = copy.copy(member)
    trial.network, trial.visits = copy.deepcopy(member.network), torch.Generator()
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
    return pace * count + min(taken) / points * evaluations * evaluated / 2


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start
