"""A dataset as a network learns it."""

import numpy as np
import torch

from inrkit import CoordinateDataset
from inrkit.signals.embeddings import Periodic, PeriodicOptions
from inrkit.signals.signal import Signal
from inrkit.signals.transforms import MinMax, MinMaxOptions


def test_targets_span_the_network_range():
    dataset = CoordinateDataset(np.array([[[0], [51], [255]]], np.uint8))
    signal = Signal(dataset, MinMax.fit(MinMaxOptions(), dataset))
    torch.testing.assert_close(signal.targets(slice(0, 3))[:, 0], torch.tensor([-1.0, -0.6, 1.0]))


def test_inputs_are_the_coordinates_embedded():
    dataset = CoordinateDataset(np.zeros((3, 4, 1)))
    places = dataset.coordinates(slice(0, 12))
    assert torch.equal(Signal(dataset).inputs(slice(0, 12)), places)
    embedding = Periodic(PeriodicOptions(axes=[0, 1]), 2)
    signal = Signal(dataset, embedding=embedding)
    assert torch.equal(signal.inputs(slice(0, 12)), embedding(places))
    assert signal.embedded and not Signal(dataset).embedded


def test_slopes_of_a_linear_signal_are_its_coefficients():
    dataset = CoordinateDataset(np.zeros((4, 5, 3, 1)))
    at = dataset.coordinates(slice(0, 60)).numpy()
    values = np.stack([at @ [2.0, -1.0, 0.5], at @ [0.0, 3.0, 1.0]], axis=-1).astype(np.float32)
    dataset = CoordinateDataset(values.reshape(4, 5, 3, 2))
    expected = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]]).expand(60, 2, 3)
    torch.testing.assert_close(Signal(dataset).slopes(torch.arange(60)), expected)
    assert Signal(dataset).slopes(torch.tensor([59])).shape == (1, 2, 3)


def test_slopes_vanish_where_nothing_tells_them():
    assert Signal(CoordinateDataset(np.ones((1, 3)))).slopes(torch.arange(1)).tolist() == [[[0.0]] * 3]
    free = CoordinateDataset(np.arange(4.0)[:, None], points=np.zeros((4, 2)))
    assert not Signal(free).slopes(torch.arange(4)).any()
