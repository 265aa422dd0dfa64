import math

import numpy as np
import pytest
import torch

from inrkit import CoordinateDataset, Progress, Residuals
from inrkit.selectors import NtkGuidedTeaching
from inrkit.signals.operators import NoneOptions, NoOperator
from inrkit.signals.signal import Signal

N, STEPS = 1000, 200


def make(count=N, **options) -> NtkGuidedTeaching:
    operator = NoOperator(NoneOptions(), Signal(CoordinateDataset(np.zeros((count, 1), dtype=np.float32))))
    return NtkGuidedTeaching(NtkGuidedTeaching.Options(**options), count, operator, 0, torch.device("cpu"))


def numbers(seed, count=N):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def take(selector, step, squared, influence):
    """The indices of a step, and its survey."""
    progress = Progress(step, STEPS)
    survey = selector.survey(progress)
    if survey is not None:
        assert torch.equal(survey.indices, torch.arange(selector.count))
        errors = Residuals(squared, squared.sqrt(), influence=influence if survey.influence else None)
        selector.learn(progress, survey, errors)
    return selector.select(progress).indices, survey


def head(values, count):
    return set(values.argsort(descending=True)[:count].tolist())


def test_first_step_is_70_percent_uniform_and_30_percent_by_influence():
    squared, influence = numbers(0), numbers(1)
    indices, survey = take(make(), 1, squared, influence)
    assert survey.influence
    assert len(indices) == 200  # 20 % of N
    assert set(indices[:60].tolist()) == head(influence, 60)


@pytest.mark.parametrize("step", [2, 5, 10, 15, 30])
def test_influence_gives_way_to_error_exponentially(step):
    squared, influence = numbers(0), numbers(1)
    selector = make()
    for earlier in range(1, step):
        take(selector, earlier, numbers(2), influence)
    by_influence = math.floor(200 * 0.3 * math.exp(-(step - 1) / 10))
    indices, _ = take(selector, step, squared, influence)
    assert len(indices) == 200
    assert set(indices[:by_influence].tolist()) == head(influence, by_influence)
    others = squared.clone()
    others[indices[:by_influence]] = -1
    assert set(indices[by_influence:60].tolist()) == head(others, 60 - by_influence)


def test_influence_is_asked_for_every_tenth_step_while_it_counts():
    selector = make()
    asked = [step for step in range(1, STEPS + 1) if take(selector, step, numbers(step), numbers(step))[1].influence]
    # 60·exp(−t/10) coordinates: at least one up to t = 40.
    assert asked == [1, 11, 21, 31, 41]
    assert asked == [step for step in range(1, STEPS + 1) if selector.survey_cost(Progress(step, STEPS)) == 5 * N]
    assert selector.survey_cost(Progress(STEPS, STEPS)) == N


def test_however_many_the_coordinates_a_thousandth_of_the_selection_is_too_few():
    selector = make(count=10**8)
    asked = [step for step in range(1, STEPS + 1) if selector.survey_cost(Progress(step, STEPS)) == 5 * 10**8]
    # exp(−t/10) · 0.3 ≥ 0.001 up to t = 57.
    assert asked == [1, 11, 21, 31, 41, 51]


def test_between_two_rankings_the_last_one_holds():
    selector, influence = make(), numbers(1)
    take(selector, 1, numbers(0), influence)
    indices, survey = take(selector, 4, numbers(2), numbers(3))
    assert not survey.influence
    by_influence = math.floor(60 * math.exp(-0.3))
    assert set(indices[:by_influence].tolist()) == head(influence, by_influence)


def test_without_decay_influence_guides_to_the_end():
    selector = make(decay=0.0)
    for step in range(1, STEPS + 1):
        influence = numbers(step)
        indices, survey = take(selector, step, numbers(0), influence)
        assert survey.influence == (step % 10 == 1)
        if survey.influence:
            assert set(indices[:60].tolist()) == head(influence, 60)


def test_the_uniform_share_favours_none_of_the_coordinates_left():
    selector = make(count=50, ratio=0.5)
    squared = numbers(0, 50)
    guided = head(squared, 7)
    times, drawn = torch.zeros(50), 4000
    for _ in range(drawn):
        indices, _ = take(selector, STEPS, squared, squared)
        assert guided <= set(indices.tolist())
        times[indices] += 1
    left = torch.tensor([index for index in range(50) if index not in guided])
    expected = drawn * 18 / 43  # 25 − 7 of the 50 − 7 that are left
    # Drawn without replacement, counts vary by less than independent ones would: 43·(1 − 18/43) is the mean here.
    deviation = ((times[left] - expected) ** 2 / expected).sum()
    assert deviation < 43


def test_all_uniform_asks_for_nothing():
    selector = make(uniform=1.0)
    assert selector.survey(Progress(1, STEPS)) is None
    assert selector.survey_cost(Progress(1, STEPS)) == 0
    indices, _ = take(selector, 1, None, None)
    assert len(indices.unique()) == 200


def test_new_points_are_ranked_at_once():
    selector = make()
    take(selector, 1, numbers(0), numbers(1))
    selector.restart()
    influence = numbers(2)
    indices, survey = take(selector, 5, numbers(0), influence)
    assert survey.influence
    assert set(indices[: math.floor(60 * math.exp(-0.4))].tolist()) == head(influence, math.floor(60 * math.exp(-0.4)))


def test_keeps_no_more_than_the_indices_of_the_guided():
    selector = make()
    take(selector, 1, numbers(0), numbers(1))
    kept = sum(tensor.numel() for name, tensor in selector.state_dict().items() if name != "generator")
    assert kept == 60
