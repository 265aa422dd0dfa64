"""First frequencies by the number of samples along each axis."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import inrkit
from inrkit import NETWORKS, ConfigError, CoordinateDataset
from inrkit.batch.identity import identity
from inrkit.config import resolve
from inrkit.plugins.options import field_names
from inrkit.signals.signal import Signal

ABLE = [name for name in NETWORKS.names() if "axis_factors" in field_names(NETWORKS.get(name).Options)]
FROM_SIGNAL = {
    "siren": "first_omega",
    "finer": "first_omega",
    "finer-wire": "first_omega",
    "fourier-features": "sigma",
    "mfn-fourier": "input_scale",
    "mfn-gabor": "input_scale",
}


def signal_of(*shape):
    return Signal(CoordinateDataset(np.random.default_rng(0).random((*shape, 1)).astype(np.float32)))


def smooth(*shape):
    axes = np.meshgrid(*[np.linspace(-1, 1, length) for length in shape], indexing="ij")
    return Signal(CoordinateDataset(np.sin(2 * sum(axes))[..., None].astype(np.float32)))


def built(name, options, dimensions=2):
    plugin = NETWORKS.get(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return plugin(options, dimensions, 1)


def first_weights(network):
    """(…, D) weights that meet the coordinates."""
    if network.__class__.__name__ == "FourierFeatures":
        return [network.frequencies.T]
    if "filters.0.linear.weight" in network.state_dict():
        return [layer.linear.weight for layer in network.filters]
    return [network.first.weight]


def test_every_network_with_a_frequency_of_its_first_layer_has_factors():
    assert set(ABLE) == {*FROM_SIGNAL, "wire", "gauss", "finer-gauss"}


@pytest.mark.parametrize("name", ABLE)
def test_factors_scale_the_first_weights_along_each_axis_and_nothing_else(name):
    plugin = NETWORKS.get(name)
    plain = built(name, plugin.Options(hidden_features=16))
    scaled = built(name, plugin.Options(hidden_features=16, axis_factors=[0.25, 2.0]))
    for one, other in zip(first_weights(plain), first_weights(scaled), strict=True):
        assert torch.equal(one * torch.tensor([0.25, 2.0]), other)
    first = [name for name in plain.state_dict() if torch.equal(plain.state_dict()[name], scaled.state_dict()[name])]
    assert len(plain.state_dict()) - len(first) == len(first_weights(plain))
    assert scaled.options == plain.options  # what they began with says nothing of them in training


@pytest.mark.parametrize("name", ABLE)
def test_a_network_begins_as_before_where_nothing_is_asked_for(name):
    plugin = NETWORKS.get(name)
    assert plugin.fitted(plugin.Options(), signal_of(4, 30)).axis_factors == []


@pytest.mark.parametrize(("name", "option"), FROM_SIGNAL.items())
def test_a_frequency_left_to_the_signal_is_lowered_along_short_axes(name, option):
    plugin = NETWORKS.get(name)
    short, long = plugin.fitted(plugin.Options(**{option: 0}), smooth(8, 400)).axis_factors
    assert 0 < short < 0.5
    assert long == 1
    for shape in ((256, 256), (512, 512)):
        assert plugin.fitted(plugin.Options(**{option: 0}), smooth(*shape)).axis_factors == []


def test_siren_begins_with_an_eighth_of_the_highest_frequency_that_an_axis_shows_or_less():
    plugin = NETWORKS.get("siren")
    options = plugin.Options(hidden_features=4000, first_omega=150, weight_scale=2.0, axis_factors=[0.0])
    fitted = plugin.fitted(options, signal_of(5, 64, 300))
    highest = (150 * built("siren", fitted, 3).first.weight.abs()).amax(dim=0)
    # Half a cycle over the extent; a sixteenth of half a cycle a cell; an eighth of it.
    expected = [math.pi / 2, math.pi / 2 * 64 / 16, math.pi / 2 * 300 / 8]
    assert highest.tolist() == pytest.approx(expected, rel=0.01)
    fitted = plugin.fitted(options, signal_of(5, 64, 1000))
    assert fitted.axis_factors[2] == 1


def test_the_pictures_of_the_papers_begin_as_they_did():
    config = resolve([{"data": {"path": "a.png"}, "network": {"axis_factors": [0]}}])
    fitted = config.network.plugin.fitted(config.network.options, signal_of(256, 256))
    assert fitted == dataclasses.replace(config.network.options, axis_factors=[])
    for base in ("image-paper", "audio-paper", "volume-paper", "video-paper", "shape-paper"):
        config = resolve([{"base": base, "data": {"path": "a"}}])
        assert config.network.plugin.fitted(config.network.options, signal_of(5, 6, 7)).axis_factors == []


def test_speech_begins_as_it_did():
    plugin = NETWORKS.get("siren")
    # Energy up to half the band, more than speech has.
    values = np.random.default_rng(0).normal(size=16000)
    values = np.convolve(values, np.sinc(np.arange(-50, 51) / 2) * np.hanning(101), mode="same")
    fitted = plugin.fitted(plugin.Options(first_omega=0), Signal(CoordinateDataset(values[:, None])))
    assert fitted.first_omega > 600
    assert fitted.axis_factors == []


def test_free_points_and_embedded_coordinates_have_no_cells_to_count():
    plugin = NETWORKS.get("siren")
    points = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    free = Signal(CoordinateDataset(np.zeros((50, 1), np.float32), points=points))
    assert plugin.fitted(plugin.Options(axis_factors=[0]), free).axis_factors == []
    embedding = inrkit.EMBEDDINGS.get("periodic")
    around = Signal(signal_of(4, 5).dataset, embedding=embedding(embedding.Options(axes=[1]), 2))
    assert plugin.fitted(plugin.Options(axis_factors=[0]), around).axis_factors == []
    assert plugin.fitted(plugin.Options(axis_factors=[0.5]), around).axis_factors == [0.5, 0.5, 0.5]


def test_factors_that_are_none_are_refused():
    plugin = NETWORKS.get("siren")
    with pytest.raises(ConfigError, match="axis_factors has 3 numbers, and the network 2 inputs"):
        plugin.fitted(plugin.Options(axis_factors=[1, 2, 3]), signal_of(4, 5))
    for wrong in (-1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="axis_factors"):
            resolve([{"base": "image-single", "network": {"axis_factors": [wrong]}}])


def test_jobs_of_studies_from_before_the_option_are_known():
    keys = resolve([{"base": "image-single", "data": {"path": "a.png"}}]).to_dict()
    before = {**keys, "network": {name: value for name, value in keys["network"].items() if name != "axis_factors"}}
    assert identity(keys, "x") == identity(before, "x")
    asked = {**keys, "network": {**keys["network"], "axis_factors": [0.0]}}
    assert identity(asked, "x") != identity(keys, "x")


def test_a_series_of_few_frames_is_right_between_them():
    t, x = np.meshgrid((2 * np.arange(8) - 7) / 8, (2 * np.arange(24) - 23) / 24, indexing="ij")
    fine = np.meshgrid((2 * np.arange(24) - 23) / 24, (2 * np.arange(24) - 23) / 24, indexing="ij")
    errors = []
    for factors in ([], [0]):
        network = {"hidden_features": 48, "hidden_layers": 2, "first_omega": 30, "weight_scale": 2.0}
        run = inrkit.fit(
            np.tanh(3 * np.sin(2 * t + 2 * x))[..., None].astype(np.float32),
            modality="array",
            network={**network, "axis_factors": factors},
            selector="full",
            steps=150,
            compile="never",
            device="cpu",
        )
        found = run.field.render((24, 24))[..., 0]
        errors.append(np.abs(found - np.tanh(3 * np.sin(2 * fine[0] + 2 * fine[1]))).mean())
    assert errors[1] < errors[0] / 3
