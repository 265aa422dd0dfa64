import numpy as np
import pytest
import torch

from inrkit import EMBEDDINGS, ConfigError, CoordinateDataset
from inrkit.signals.embeddings import Periodic, PeriodicOptions


def test_a_periodic_axis_has_no_seam():
    embedding = Periodic(PeriodicOptions(axes=[1]), 2)
    ends = embedding(torch.tensor([[0.3, -1.0], [0.3, 1.0]]))
    torch.testing.assert_close(ends[0], ends[1], atol=1e-6, rtol=0)
    assert ends[0, 0] == pytest.approx(0.3)


@pytest.mark.parametrize("name", EMBEDDINGS.names())
def test_an_embedding_gives_as_many_features_as_it_says(name):
    embedding = EMBEDDINGS.get(name)(EMBEDDINGS.get(name).Options(), 3)
    assert embedding(torch.zeros(4, 5, 3)).shape == (4, 5, embedding.features)


def test_an_axis_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="axis 2; the signal has axes 0 to 1"):
        Periodic(PeriodicOptions(axes=[2]), 2)


def test_a_dataset_gives_embedded_inputs():
    dataset = CoordinateDataset(np.zeros((3, 4, 1)))
    assert torch.equal(dataset.inputs(slice(0, 12)), dataset.coordinates(slice(0, 12)))
    dataset.embedding = Periodic(PeriodicOptions(axes=[0, 1]), 2)
    assert torch.equal(dataset.inputs(slice(0, 12)), dataset.embedding(dataset.coordinates(slice(0, 12))))
