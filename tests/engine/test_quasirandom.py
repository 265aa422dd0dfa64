import math

import numpy as np
import pytest
import torch

from inrkit import CoordinateDataset, Progress
from inrkit.selectors import SELECTORS
from inrkit.selectors.draws.quasirandom import QuasiRandom
from inrkit.signals.operators import LaplacianOptions, LatticeLaplacian
from inrkit.signals.signal import Signal


def sequence(shape, seed=0) -> QuasiRandom:
    return QuasiRandom(shape, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((256, 256), 4096),
        ((256, 256), 40_000),
        ((100,), 30),
        ((7, 3), 20),
        ((5, 1000), 1200),
        ((9, 8, 7), 60),
        ((1,), 1),
    ],
)
def test_each_draw_is_distinct_and_in_range_and_all_cells_get_their_turn(shape, count):
    drawn, population = sequence(shape), math.prod(shape)
    visits = torch.zeros(population, dtype=torch.int64)
    for _ in range(100):
        indices = drawn.next(count)
        assert len(indices) == len(indices.unique()) == count
        visits[indices] += 1
    assert visits.sum() == 100 * count
    assert visits.min() > 0
    assert visits.max() < 100 * count / population * 3 + 5


@pytest.mark.parametrize("count", [100, 1000, 2730])
def test_what_is_taken_is_not_drawn(count):
    taken = torch.arange(0, 4096, 3)
    drawn = sequence((64, 64)).next(count, taken)
    assert len(drawn.unique()) == count
    assert not torch.isin(drawn, taken).any()


@pytest.mark.parametrize("taken", [None, torch.arange(0, 4096, 3), torch.arange(2000)])
def test_what_is_drawn_unseen_is_the_same(taken):
    seen, unseen = sequence((64, 64)), sequence((64, 64))
    for count in (1, 1000, 30, 0, 999, 64):
        expected, drawn = seen.next(count, taken), unseen.next_unseen(count, taken)
        assert torch.equal(drawn.sort().values, expected.sort().values)


def test_where_all_that_follows_is_taken_others_are_drawn_unseen():
    following, drawn = sequence((64, 64)), sequence((64, 64))
    taken = following.next(2000)
    indices = drawn.next_unseen(500, taken)
    assert len(indices.unique()) == 500
    assert not torch.isin(indices, taken).any()
    assert len(drawn.next_unseen(500, taken).unique()) == 500


def test_points_are_spread_more_evenly_than_chance_would():
    # How many of 1024 points lie in each of 8×8 blocks: 16 on average, with a variance of 16 by chance.
    cells = sequence((256, 256)).next(1024)
    blocks = torch.bincount((cells // 256 // 32) * 8 + cells % 256 // 32, minlength=64)
    assert blocks.float().var() < 4
    # And what follows falls into the gaps: of a quarter more points, hardly one comes close to one that was there.
    following = sequence((256, 256))
    first, then = (following.next(512) for _ in range(2))
    apart = torch.cdist(
        torch.stack([first // 256, first % 256], 1).double(), torch.stack([then // 256, then % 256], 1).double()
    )
    assert apart.min() > 4


def test_another_seed_starts_elsewhere_and_the_same_does_not():
    assert torch.equal(sequence((64, 64)).next(50), sequence((64, 64)).next(50))
    assert not torch.equal(sequence((64, 64)).next(50), sequence((64, 64), seed=1).next(50))


def test_the_points_are_those_of_the_published_sequence():
    drawn = sequence((1 << 20, 1 << 20))
    drawn._start = torch.zeros(2, dtype=torch.int64)
    cells = drawn._cells(1000)
    plastic = 1.32471795724474602596
    numbers = torch.arange(1000, dtype=torch.float64)
    for axis, found in enumerate((cells // (1 << 20), cells % (1 << 20))):
        expected = numbers * plastic ** -(axis + 1) % 1 * (1 << 20)
        assert (found - expected.floor()).abs().max() <= 1


@pytest.mark.parametrize("name", ["uniform", "evos"])
def test_selectors_go_on_along_the_sequence_where_they_stopped(name):
    picture = CoordinateDataset(np.zeros((40, 50, 1), np.uint8))
    operator = LatticeLaplacian(LaplacianOptions(), Signal(picture))
    plugin = SELECTORS.get(name)
    options = plugin.Options(ratio=0.1, draw="quasi-random")

    def fresh(seed):
        return plugin(options, len(picture), operator, seed, torch.device("cpu"))

    whole, cut = fresh(0), fresh(0)
    steps = [Progress(step, 100) for step in range(2, 6)]
    expected = [whole.select(progress).indices for progress in steps]
    found = [cut.select(progress).indices for progress in steps[:2]]
    other = fresh(1)
    other.load_state_dict(cut.state_dict())
    found += [other.select(progress).indices for progress in steps[2:]]
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    assert len(torch.cat(expected).unique()) > 3.5 * len(expected[0])
