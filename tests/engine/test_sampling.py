import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inrkit.sampling import sample_without_replacement


@given(st.integers(0, 400), st.data())
def test_a_sample_is_distinct_and_in_range(population, data):
    count = data.draw(st.integers(0, population))
    sample = sample_without_replacement(population, count, torch.Generator().manual_seed(0))
    assert len(sample) == count
    assert len(sample.unique()) == count
    assert not len(sample) or (sample.min() >= 0 and sample.max() < population)


@pytest.mark.parametrize(("population", "count"), [(5, 2), (12, 2)])
def test_every_subset_is_equally_likely(population, count):
    generator = torch.Generator().manual_seed(3)
    rounds, subsets = 6000, {}
    for _ in range(rounds):
        key = tuple(sorted(sample_without_replacement(population, count, generator).tolist()))
        subsets[key] = subsets.get(key, 0) + 1
    possible = list(itertools.combinations(range(population), count))
    expected = rounds / len(possible)
    chi_squared = sum((subsets.get(key, 0) - expected) ** 2 / expected for key in possible)
    # The statistic has len(possible) − 1 degrees of freedom: five standard deviations above its mean.
    degrees = len(possible) - 1
    assert chi_squared < degrees + 5 * (2 * degrees) ** 0.5
