"""Where coordinates lie, and which is near a place."""

import numpy as np
import pytest
import torch

from inrkit import CoordinateDataset
from inrkit.signals.neighbourhood import Neighbourhood


@pytest.mark.parametrize("shape", [(7,), (1,), (4, 5), (3, 1, 4)])
def test_the_coordinate_nearest_to_a_coordinate_is_itself(shape):
    dataset = CoordinateDataset(np.zeros((*shape, 1)))
    lattice = Neighbourhood(dataset)
    everyone = torch.arange(len(dataset))
    assert torch.equal(lattice.nearest(lattice.coordinates(everyone)), everyone)
    spread = torch.tensor(lattice.spacing)
    assert torch.equal(lattice.nearest(lattice.coordinates(everyone) + 0.4 * spread), everyone)
    points = lattice.coordinates(everyone).numpy()
    free = Neighbourhood(CoordinateDataset(np.zeros((len(dataset), 1)), points=points))
    assert torch.equal(free.nearest(free.coordinates(everyone)), everyone)


def test_positions_outside_count_as_on_the_edge():
    places = Neighbourhood(CoordinateDataset(np.zeros((4, 5, 1))))
    assert places.nearest(torch.tensor([[-9.0, -9.0], [9.0, 0.0], [1.0, 1.0]])).tolist() == [0, 17, 19]
