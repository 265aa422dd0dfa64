import math

import numpy as np
import pytest
import torch

from inrkit import CoordinateDataset, Progress, Residuals
from inrkit.selectors import ImplicitNeuralTeaching
from inrkit.selectors.teaching import MINING_SCHEDULES, largest, mines
from inrkit.signals.operators import NoneOptions, NoOperator
from inrkit.signals.signal import Signal

CPU = torch.device("cpu")


def make(count=100, **options) -> ImplicitNeuralTeaching:
    operator = NoOperator(NoneOptions(), Signal(CoordinateDataset(np.zeros((count, 1), dtype=np.float32))))
    return ImplicitNeuralTeaching(ImplicitNeuralTeaching.Options(**options), count, operator, 0, CPU)


def take(selector, step, steps, squared):
    """The indices of a step, and whether it surveyed."""
    progress = Progress(step, steps)
    survey = selector.survey(progress)
    if survey is not None:
        assert torch.equal(survey.indices, torch.arange(selector.count))
        assert not survey.influence
        selector.learn(progress, survey, Residuals(squared, squared.sqrt()))
    selection = selector.select(progress)
    return selection.indices, survey is not None


def test_takes_the_coordinates_of_largest_error_among_all():
    squared = torch.rand(100, generator=torch.Generator().manual_seed(0))
    indices, _ = take(make(ratio=0.23, ratio_schedule="constant"), 1, 10, squared)
    assert set(indices.tolist()) == set(squared.argsort(descending=True)[:23].tolist())


def test_errors_that_are_no_numbers_come_first():
    values = torch.tensor([1.0, math.nan, 3.0, math.inf, 0.0, 2.0])
    assert set(largest(values, 2).tolist()) == {1, 3}
    assert largest(values, 6).tolist()[2:] == [2, 5, 0, 4]


def test_dense_chooses_at_every_step_and_every_second_at_every_other():
    assert all(mines("dense", Progress(step, 40)) for step in range(1, 41))
    assert [step for step in range(1, 10) if mines("every-second", Progress(step, 40))] == [1, 3, 5, 7, 9]


# Intervals by the first of 1000 steps, counted from 0, that they hold for (INT's code).
INCREMENTAL = {0: 1, 250: 10, 400: 20, 550: 30, 700: 40, 850: 50}
REVERSE = {0: 90, 100: 80, 200: 70, 300: 60, 400: 50, 500: 40, 600: 30, 700: 20, 800: 10, 900: 1}


@pytest.mark.parametrize(("schedule", "intervals"), [("incremental", INCREMENTAL), ("reverse-incremental", REVERSE)])
def test_intervals_are_the_published_ones(schedule, intervals):
    expected = []
    for step in range(1000):
        interval = intervals[max(first for first in intervals if first <= step)]
        if step % interval == 0:
            expected.append(step + 1)
    assert [step for step in range(1, 1001) if mines(schedule, Progress(step, 1000))] == expected


@pytest.mark.parametrize("schedule", MINING_SCHEDULES)
def test_the_first_step_chooses_however_short_the_training(schedule):
    for steps in (1, 2, 3, 7, 5000):
        assert mines(schedule, Progress(1, steps))


def test_stages_follow_the_clock_where_time_is_the_budget():
    assert mines("incremental", Progress(7, 1000, spent=0.2))
    assert not mines("incremental", Progress(7, 1000, spent=0.3))
    assert mines("incremental", Progress(11, 1000, spent=0.3))


def test_the_same_coordinates_train_until_others_are_chosen():
    selector = make(ratio=0.2, ratio_schedule="linear", mining="reverse-incremental")
    generator = torch.Generator().manual_seed(0)
    kept = None
    for step in range(1, 101):
        squared = torch.rand(100, generator=generator)
        promised = selector.size(Progress(step, 100))
        indices, surveyed = take(selector, step, 100, squared)
        assert len(indices) == promised
        assert surveyed == mines("reverse-incremental", Progress(step, 100))
        assert selector.survey_cost(Progress(step, 100)) == (100 if surveyed else 0)
        if surveyed:
            assert len(indices) == selector.options.scheduled_size(100, (step - 1) / 100)
        else:
            assert torch.equal(indices, kept)
        kept = indices


def test_chooses_at_once_where_points_are_drawn_anew():
    selector = make(mining="reverse-incremental")
    squared = torch.rand(100, generator=torch.Generator().manual_seed(0))
    take(selector, 1, 100, squared)
    assert not take(selector, 2, 100, squared)[1]
    selector.restart()
    indices, surveyed = take(selector, 3, 100, 1 - squared)
    assert surveyed
    assert set(indices.tolist()) == set(squared.argsort()[: len(indices)].tolist())


def test_keeps_no_more_than_the_indices():
    selector = make(count=1000, ratio=0.1, ratio_schedule="constant")
    take(selector, 1, 10, torch.rand(1000))
    kept = sum(tensor.numel() for name, tensor in selector.state_dict().items() if name != "generator")
    assert kept == 100
    assert selector.numbers_kept == pytest.approx(2 * kept / 1000)
