"""Expansive Supervision: the anchor area, the source area, and what their errors stand for."""

import numpy as np
import pytest
import torch

from inrkit import CoordinateDataset, Progress
from inrkit.selectors.expansive import ExpansiveOptions, ExpansiveSupervision
from inrkit.signals.operators import LaplacianOptions, LatticeLaplacian, NoneOptions, NoOperator
from inrkit.signals.signal import Signal

FIRST = Progress(1, 10**6)


def make(values, operator=None, seed=0, **options) -> ExpansiveSupervision:
    dataset = CoordinateDataset(np.asarray(values, dtype=np.float32))
    operator = operator(dataset) if operator else LatticeLaplacian(LaplacianOptions(), Signal(dataset))
    return ExpansiveSupervision(ExpansiveOptions(**options), len(dataset), operator, seed, torch.device("cpu"))


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 1))


def strongest(selector, count: int) -> set[int]:
    return set(selector.operator.edges().argsort(descending=True)[:count].tolist())


def test_half_of_a_selection_is_the_strongest_edges_and_half_is_drawn_from_the_rest():
    selector = make(noise(100), ratio=0.4)
    anchors = strongest(selector, 20)
    rounds, drawn = 2000, torch.zeros(100)
    for _ in range(rounds):
        indices = selector.select(FIRST).indices
        assert len(indices.unique()) == 40
        assert anchors <= set(indices.tolist())
        drawn[indices] += 1
    others = drawn[[i for i in range(100) if i not in anchors]] / rounds
    share = 20 / 80
    assert ((others - share).abs() < 5 * (share * (1 - share) / rounds) ** 0.5).all()


def test_anchors_stay_as_many_while_the_selection_grows():
    selector = make(noise(100), ratio=0.4, ratio_schedule="linear")
    anchors = strongest(selector, 20)
    for step in (1, 30, 60, 100):
        indices = selector.select(Progress(step, 100)).indices
        assert anchors <= set(indices.tolist())
        assert len(indices.unique()) == selector.size(Progress(step, 100))


def test_anchors_keep_to_their_share_while_the_selection_shrinks():
    selector = make(noise(100), ratio=1.0, ratio_schedule="reverse-cosine")
    anchors = strongest(selector, 50)
    seen = set()
    for step in range(1, 101):
        indices = selector.select(Progress(step, 100)).indices.tolist()
        k = selector.size(Progress(step, 100))
        assert len(set(indices)) == len(indices) == k
        assert len(anchors & set(indices)) == k // 2
        if step > 90:
            seen |= anchors & set(indices)
    assert len(seen) > 40  # not the same few of them


def test_equal_edges_are_drawn_at_random():
    ramp = np.arange(100.0)[:, None]
    chosen = [frozenset(make(ramp, ratio=0.4, anchor=1.0, seed=seed).select(FIRST).indices.tolist()) for seed in (0, 1)]
    assert chosen[0] != chosen[1]
    assert all(len(indices) == 40 for indices in chosen)


def test_anchors_drawn_at_random_survive_a_checkpoint():
    ramp = np.arange(100.0)[:, None]
    selector = make(ramp, ratio=0.4)
    selector.select(FIRST)
    other = make(ramp, ratio=0.4, seed=1)
    other.load_state_dict(selector.state_dict())
    for _ in range(3):
        assert torch.equal(selector.select(FIRST).indices, other.select(FIRST).indices)


@pytest.mark.parametrize("how", ["a constant signal", "no neighbours"])
def test_without_edges_all_coordinates_are_as_likely(how):
    operator = (lambda dataset: NoOperator(NoneOptions(), Signal(dataset))) if how == "no neighbours" else None
    selector = make(noise(20) if operator else np.ones((20, 1)), operator, ratio=0.5)
    rounds, drawn = 2000, torch.zeros(20)
    for _ in range(rounds):
        drawn[selector.select(FIRST).indices] += 1
    assert ((drawn / rounds - 0.5).abs() < 5 * (0.25 / rounds) ** 0.5).all()


@pytest.mark.parametrize("schedule", ["constant", "reverse-cosine"])
def test_an_expanded_loss_estimates_the_mean_over_all_without_bias(schedule):
    selector = make(noise(200), ratio=0.5, anchor=0.3, expand=True, ratio_schedule=schedule)
    losses = torch.rand(200, generator=torch.Generator().manual_seed(0)) * (1 + selector.operator.edges())
    progress = Progress(80, 100)
    estimates = []
    for _ in range(1500):
        selection = selector.select(progress)
        assert selection.weights.mean() == pytest.approx(1, abs=1e-5)
        estimates.append(float((losses[selection.indices] * selection.weights).mean()))
    error = np.std(estimates) / len(estimates) ** 0.5
    assert abs(np.mean(estimates) - float(losses.mean())) < 5 * error


def test_every_error_counts_the_same_by_default():
    assert make(noise(20)).select(FIRST).weights is None


def test_points_drawn_anew_have_new_anchors():
    selector = make(np.eye(30)[5][:, None], ratio=0.1, anchor=1.0)
    assert sorted(selector.select(FIRST).indices.tolist()) == [4, 5, 6]
    selector.operator._signal.dataset.values = torch.from_numpy(np.eye(30)[20][:, None])
    selector.restart()
    assert sorted(selector.select(FIRST).indices.tolist()) == [19, 20, 21]
