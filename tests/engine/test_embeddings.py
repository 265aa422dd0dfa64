import pytest
import torch

from inrkit import EMBEDDINGS, ConfigError
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
