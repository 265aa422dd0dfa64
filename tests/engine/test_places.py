"""Signals are compared where they lie."""

import numpy as np
import pytest
import torch

from inrkit import CoordinateDataset
from inrkit.evaluation.places import leave_out_beyond, map_between
from inrkit.signals.lattice import cell_affine

ONE = np.array([[2.0, 0.5, 10.0], [0.0, 3.0, -4.0]])
OTHER = np.array([[0.0, 5.0, 12.0], [4.0, 1.0, 0.0]])


def test_places_in_the_same_units_are_the_same_places():
    found = map_between(ONE, ("mm", "mm"), OTHER, ("mm", "mm"))
    points = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    inside = points @ found[:, :2].T + found[:, 2]
    np.testing.assert_allclose(inside @ OTHER[:, :2].T + OTHER[:, 2], points @ ONE[:, :2].T + ONE[:, 2], atol=1e-12)


@pytest.mark.parametrize("units", [((), ()), (("pixel", "pixel"),) * 2, (("mm", "mm"), ("s", "s")), (("mm", "mm"), ())])
def test_units_that_count_or_differ_mean_the_same_extent(units):
    assert map_between(cell_affine((8, 8)), units[0], cell_affine((16, 4)), units[1]) is None


def test_each_axis_has_its_own_unit():
    seconds = map_between(
        np.array([[1.0, 0, 1], [0, 4, 3.5]]), ("s", "pixel"), np.array([[2.0, 0, 2], [0, 9, 8.5]]), ("s", "pixel")
    )
    np.testing.assert_allclose(seconds, [[0.5, 0, -0.5], [0, 1, 0]])


def test_what_lies_beyond_does_not_count():
    dataset = CoordinateDataset(np.zeros((4, 2, 1), np.float32), weights=np.array([1.0, 3.0]))
    assert leave_out_beyond(dataset, np.array([[1.0, 0, 0.5], [0, 1, 0]])) == 0.25  # −0.75 … 0.75 become −0.25 … 1.25
    expected = torch.tensor([[1.0, 3.0]] * 3 + [[0.0, 0.0]])
    torch.testing.assert_close(dataset.weights, expected / expected.mean())
