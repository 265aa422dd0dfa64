"""Networks as strangers' files describe them: no larger than the weights beside the description."""

import resource
import threading

import pytest
import torch

from inrkit.networks import NETWORKS
from inrkit.networks.shapes import shapes_of


@pytest.mark.parametrize("name", NETWORKS.names())
@pytest.mark.parametrize(("dimensions", "channels"), [(1, 1), (2, 3), (3, 2)])
def test_shapes_are_known_before_a_network_is_made(name, dimensions, channels):
    plugin = NETWORKS.get(name)
    made = plugin(plugin.Options(), dimensions, channels).state_dict()
    numbers = sum(tensor.numel() for tensor in made.values())
    found = shapes_of(lambda: plugin(plugin.Options(), dimensions, channels), 8 * len(made) + 64, 8 * numbers + 65536)
    assert found == {key: tensor.shape for key, tensor in made.items()}


HUGE = {"hidden_features": 10**6, "features": 10**9, "hidden_layers": 1000, "levels": 256, "table_bits": 32}


@pytest.mark.parametrize("name", NETWORKS.names())
@pytest.mark.parametrize("option", HUGE)
def test_a_network_beyond_its_weights_takes_no_memory(name, option):
    plugin = NETWORKS.get(name)
    if option not in plugin.Options.__dataclass_fields__:
        return
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = []
    with pytest.raises(ValueError, match="larger than its weights"):
        made.append(shapes_of(lambda: plugin(plugin.Options(**{option: HUGE[option]}), 2, 3), 100, 100_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_networks_of_other_threads_are_not_counted():
    failed = []

    def make():
        thread = threading.Thread(target=lambda: failed.append(torch.nn.Linear(1000, 1000)))
        thread.start()
        thread.join()
        return torch.nn.Linear(2, 3)

    assert shapes_of(make, 2, 9) == {"weight": (3, 2), "bias": (3,)}
    assert len(failed) == 1
    assert torch.nn.Linear(2, 3).weight.device.type == "cpu"
