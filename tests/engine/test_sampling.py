import io
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inrkit.selectors.draws.subsets import drawn_unseen, sample_without_replacement
from inrkit.selectors.draws.tiles import Tiles, Tour


@given(st.integers(0, 400), st.data())
def test_a_sample_is_distinct_and_in_range(population, data):
    count = data.draw(st.integers(0, population))
    sample = sample_without_replacement(population, count, torch.Generator().manual_seed(0))
    assert len(sample) == count
    assert len(sample.unique()) == count
    assert not len(sample) or (sample.min() >= 0 and sample.max() < population)


@pytest.mark.parametrize(
    ("population", "count"), [(100, 1), (400, 99), (10_000, 2500), (10**6, 2000), (2**40, 5000), (5, 1)]
)
def test_a_sample_drawn_unseen_is_distinct_ascending_and_in_range(population, count):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        sample = drawn_unseen(population, count, generator)
        assert len(sample) == count
        assert (sample[1:] > sample[:-1]).all()
        assert sample[0] >= 0 and sample[-1] < population


@pytest.mark.parametrize("draw", [sample_without_replacement, drawn_unseen])
@pytest.mark.parametrize(("population", "count"), [(5, 2), (12, 2)])
def test_every_subset_is_equally_likely(population, count, draw):
    generator = torch.Generator().manual_seed(3)
    rounds, subsets = 6000, {}
    for _ in range(rounds):
        key = tuple(sorted(draw(population, count, generator).tolist()))
        subsets[key] = subsets.get(key, 0) + 1
    possible = list(itertools.combinations(range(population), count))
    expected = rounds / len(possible)
    chi_squared = sum((subsets.get(key, 0) - expected) ** 2 / expected for key in possible)
    # The statistic has len(possible) − 1 degrees of freedom: five standard deviations above its mean.
    degrees = len(possible) - 1
    assert chi_squared < degrees + 5 * (2 * degrees) ** 0.5


LATTICES = st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple)


@settings(deadline=None)
@given(LATTICES, st.integers(1, 60))
def test_tiles_are_boxes_of_nearly_one_size_that_hold_each_cell_once(shape, size):
    tiles = Tiles(shape, size)
    numbers = torch.randperm(len(tiles))
    assert sorted(tiles.cells(numbers).tolist()) == list(range(math.prod(shape)))
    for number in numbers[:5]:
        cells = tiles.cells(number[None])
        along = torch.stack(torch.unravel_index(cells, shape))
        lengths = along.amax(1) - along.amin(1) + 1
        assert len(cells) == int(lengths.prod()) == int(tiles.sizes(number[None])) <= size
        assert all(least <= length <= least + 1 for least, length in zip(tiles.least, lengths.tolist(), strict=True))


@pytest.mark.parametrize("shape", [(500, 700), (3, 90000), (40, 50, 60), (70000,)])
def test_tiles_come_near_the_size_asked_for(shape):
    assert math.prod(Tiles(shape, 512).least) > 300


def test_even_cells_are_the_corner_that_all_tiles_have():
    tiles = Tiles((7, 10), 9)
    cells = tiles.even_cells(torch.arange(len(tiles))).view(len(tiles), *tiles.least)
    for number, corner in enumerate(cells):
        own = tiles.cells(torch.tensor([number]))
        assert corner[0, 0] == own.min()
        assert set(corner.flatten().tolist()) <= set(own.tolist())


@settings(deadline=None)
@given(LATTICES, st.integers(1, 40), st.integers(0, 2**31), st.data())
def test_a_tour_meets_each_cell_once_a_round_and_none_twice_in_a_part(shape, size, seed, data):
    count = math.prod(shape)
    tour = Tour(Tiles(shape, size), torch.Generator().manual_seed(seed))
    met = torch.zeros(count, dtype=torch.int64)
    for _ in range(12):
        part = tour.next(data.draw(st.integers(1, count)))
        assert len(part.unique()) == len(part)
        met[part] += 1
        assert met.max() - met.min() <= 1


def test_every_cell_is_as_likely_as_any_other_to_be_in_a_part():
    counts, rounds = torch.zeros(24), 2000
    for seed in range(rounds):
        counts[Tour(Tiles((4, 6), 4), torch.Generator().manual_seed(seed)).next(8)] += 1
    expected = rounds * 8 / 24
    assert ((counts - expected).abs() < 5 * (expected * (1 - 8 / 24)) ** 0.5).all()


def test_a_tour_goes_on_from_its_state_and_the_state_is_small():
    tour, other = (Tour(Tiles((200, 300), 64), torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for _ in range(20):
        tour.next(2777)
    saved = io.BytesIO()
    torch.save(tour.state_dict(), saved)
    assert len(saved.getvalue()) < 4 * len(tour.tiles) + 4096
    saved.seek(0)
    other.load_state_dict(torch.load(saved, weights_only=True))
    other.generator.set_state(tour.generator.get_state())
    for _ in range(60):
        assert torch.equal(tour.next(2777), other.next(2777))


def test_a_part_of_an_enormous_lattice_costs_what_the_part_does():
    side = 1 << 15
    tour = Tour(Tiles((side, side), 512), torch.Generator().manual_seed(0))
    part = tour.next(100_000)
    assert len(part.unique()) == 100_000
    rows = torch.histc((part // side).float(), 8, 0, side)
    columns = torch.histc((part % side).float(), 8, 0, side)
    assert min(rows.min(), columns.min()) > 0.4 * 100_000 / 8  # all over it
