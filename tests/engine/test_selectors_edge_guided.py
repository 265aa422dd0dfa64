"""EGRA: what is drawn, how often, and what happens where there are no edges."""

import math

import numpy as np
import pytest
import torch

from inrkit import CoordinateDataset, Progress
from inrkit.selectors.edge_guided import EdgeGuided, EdgeGuidedOptions
from inrkit.signals.operators import (
    GraphLaplacian,
    GraphLaplacianOptions,
    LaplacianOptions,
    LatticeLaplacian,
    NoneOptions,
    NoOperator,
)
from inrkit.signals.signal import Signal
from inrkit.signals.transforms import MinMax, MinMaxOptions

FIRST = Progress(1, 10**6)


def make(values, points=None, operator=None, seed=0, **options) -> EdgeGuided:
    dataset = CoordinateDataset(np.asarray(values, dtype=np.float32), points=points)
    operator = operator(dataset) if operator else LatticeLaplacian(LaplacianOptions(), Signal(dataset))
    return EdgeGuided(EdgeGuidedOptions(**options), len(dataset), operator, seed, torch.device("cpu"))


def step_at(place: int, count: int) -> np.ndarray:
    """A signal whose only edge is between `place` and the coordinate before it."""
    return (np.arange(count) >= place).astype(np.float32)[:, None]


def frequencies(selector: EdgeGuided, rounds: int) -> torch.Tensor:
    drawn = torch.zeros(selector.count)
    for _ in range(rounds):
        drawn[selector.select(FIRST).indices] += 1
    return drawn / rounds


def assert_near(found: torch.Tensor, expected: torch.Tensor, rounds: int) -> None:
    assert ((found - expected).abs() <= 5 * (expected * (1 - expected) / rounds).sqrt() + 1e-9).all()


def test_the_published_constants_make_edges_two_fifths_more_likely():
    assert make(step_at(3, 10)).advantage == pytest.approx((0.0025 + 0.9975 * 0.0064) / (0.9975 * 0.0064))


def test_first_draws_are_in_proportion_to_the_stated_probability():
    selector = make(step_at(5, 16), ratio=1 / 16, emphasis=0.2, base=0.1, shift_least=3, shift_most=3)
    expected = torch.full((16,), 0.8 * 0.1)
    expected[[7, 8]] += 0.2  # the edge's two sides, 4 and 5, moved by 3
    assert_near(frequencies(selector, 8000), expected / expected.sum(), 8000)


def test_further_draws_are_in_proportion_among_those_that_are_left():
    selector = make(step_at(2, 5), ratio=2 / 5, emphasis=0.3, base=0.2, shift_least=0, shift_most=0)
    weights = torch.full((5,), 0.7 * 0.2)
    weights[[1, 2]] += 0.3
    share = weights / weights.sum()
    second = torch.tensor(
        [sum(float(share[j] * share[i] / (1 - share[j])) for j in range(5) if j != i) for i in range(5)]
    )
    assert_near(frequencies(selector, 8000), share + second, 8000)


@pytest.mark.parametrize("k", [1, 3, 7, 9])
def test_few_draws_are_distributed_as_those_from_as_many_numbers_as_coordinates(k):
    """With weights of 2 and 1; the chances follow from how many of the draws so far were near edges."""
    selector = make(step_at(4, 20), ratio=(k + 0.5) / 20, emphasis=0.5, base=1.0, shift_least=0, shift_most=0)
    assert selector.advantage == 2
    # chances[j]: after some draws, j of them are of the two emphasised ones.
    chances = [1.0, 0.0, 0.0]
    for drawn in range(k):
        new = [0.0, 0.0, 0.0]
        for near, chance in enumerate(chances):
            heavy, light = 2 * (2 - near), 18 - (drawn - near)
            new[near] += chance * light / (heavy + light)
            if near < 2:
                new[near + 1] += chance * heavy / (heavy + light)
        chances = new
    mean = chances[1] + 2 * chances[2]
    expected = torch.full((20,), (k - mean) / 18)
    expected[[3, 4]] = mean / 2
    for draw in (selector._of_few, selector._of_all):
        selector.select(FIRST)
        drawn = torch.zeros(20)
        for _ in range(4000):
            indices = draw(selector._edges, k)
            assert len(indices) == len(indices.unique()) == k
            drawn[indices] += 1
        assert_near(drawn / 4000, expected, 4000)


def test_few_draws_take_few_numbers(monkeypatch):
    """Other than one for each edge: of a million coordinates, far fewer than these."""
    selector = make(step_at(4, 10**6), ratio=1e-4)
    selector.select(FIRST)  # finds the edges
    numbers = []
    for name in ("exponential_", "random_"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor,
            name,
            lambda self, *a, original=original, **k: numbers.append(len(self)) or original(self, *a, **k),
        )
    randint, permuted = torch.randint, torch.randperm
    monkeypatch.setattr(torch, "randint", lambda *a, **k: numbers.append(len(randint(*a, **k))) or randint(*a, **k))
    monkeypatch.setattr(torch, "randperm", lambda n, **k: numbers.append(n) or permuted(n, **k))
    assert len(selector.select(FIRST).indices) == 100
    assert 100 <= sum(numbers) < 1000


def test_edges_move_six_to_nine_points_along_the_last_axis_anew_at_every_step():
    picture = np.zeros((3, 40, 1))
    picture[1, 20] = 1
    selector = make(picture, ratio=1 / 120, emphasis=0.999, base=1e-9, threshold=1.0)
    found = {int(selector.select(FIRST).indices) for _ in range(300)}
    # A difference on one side is below this threshold; only the point itself has several.
    assert found == {60 + shift for shift in (6, 7, 8, 9)}


@pytest.mark.parametrize(("levels", "edge"), [(4, False), (6, True)])
def test_the_threshold_is_the_published_one_for_pictures_of_8_bits(levels, edge):
    ramp = np.repeat((levels * np.arange(40, dtype=np.uint8))[None, :, None], 9, axis=0)
    dataset = CoordinateDataset(ramp)
    signal = Signal(dataset, MinMax.fit(MinMaxOptions(range="full"), dataset))
    strength = LatticeLaplacian(LaplacianOptions(), signal).edges().view(9, 40)[1:-1, 1:-1]
    assert bool((strength >= EdgeGuidedOptions().threshold).all()) is edge


@pytest.mark.parametrize("how", ["a constant signal", "no neighbours"])
def test_without_edges_all_coordinates_are_as_likely(how):
    operator = (lambda dataset: NoOperator(NoneOptions(), Signal(dataset))) if how == "no neighbours" else None
    values = step_at(3, 12) if how == "no neighbours" else np.full((12, 1), 0.3)
    selector = make(values, operator=operator, ratio=0.25, emphasis=0.9)
    assert_near(frequencies(selector, 3000), torch.full((12,), 0.25), 3000)


def test_edges_among_free_points_stay_where_they_are():
    points = np.linspace(-1, 1, 50)[:, None]
    selector = make(
        (points > 0).astype(np.float32),
        points=points,
        operator=lambda dataset: GraphLaplacian(GraphLaplacianOptions(neighbours=2), Signal(dataset)),
        ratio=2 / 50,
        emphasis=0.999,
        base=1e-9,
    )
    assert sorted(selector.select(FIRST).indices.tolist()) == [24, 25]


def test_points_drawn_anew_have_new_edges():
    selector = make(step_at(5, 30), ratio=2 / 30, emphasis=0.999, base=1e-9, shift_least=0, shift_most=0)
    assert sorted(selector.select(FIRST).indices.tolist()) == [4, 5]
    selector.operator._signal.dataset.values = torch.from_numpy(step_at(20, 30))
    selector.restart()
    assert sorted(selector.select(FIRST).indices.tolist()) == [19, 20]


def test_all_are_drawn_at_a_ratio_of_one():
    assert make(step_at(5, 30), ratio=1.0).select(FIRST).whole


def test_shifts_the_wrong_way_round_are_refused():
    with pytest.raises(ValueError, match="shift_most is 2"):
        EdgeGuidedOptions(shift_least=3, shift_most=2)


def test_the_least_likely_coordinates_are_still_drawn_when_nearly_all_are():
    selector = make(step_at(5, 30), ratio=0.9, emphasis=0.9, base=1e-3)
    indices = selector.select(FIRST).indices
    assert len(indices.unique()) == math.floor(0.9 * 30)
