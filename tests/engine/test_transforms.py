import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from inrkit import TRANSFORMS, CoordinateDataset, DataError, load
from inrkit.config import resolve
from inrkit.evaluation.evaluate import evaluate
from inrkit.networks.siren import Siren, SirenOptions
from inrkit.runs.build import field_of
from inrkit.signals.signal import Signal
from inrkit.signals.transforms import (
    BoxCox,
    BoxCoxOptions,
    Identity,
    MinMax,
    MinMaxOptions,
    SymmetricPower,
    SymmetricPowerOptions,
    ZScore,
    ZScoreOptions,
)

BOUNDED = ["boxcox", "symmetric-power"]
TINY = torch.finfo(torch.float32).tiny
DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "int32", "float32", "float64"]

every = pytest.mark.parametrize("name", TRANSFORMS.names())
random = np.random.default_rng(0)
SKEWED = {
    "right": random.lognormal(size=(3000, 1)),
    "left": -random.lognormal(size=(3000, 1)),
    "symmetric": random.normal(size=(3000, 1)),
    "dark": 10 * random.beta(1, 6, size=(3000, 1)),
    "bright": 10 * random.beta(6, 1, size=(3000, 1)),
}


def fitted(name, values):
    plugin = TRANSFORMS.get(name)
    dataset = CoordinateDataset(values)
    return plugin.fit(plugin.Options(), dataset), dataset.stored(slice(0, len(dataset)))


@st.composite
def signals(draw):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 3)))
    limited = {"f": {"min_value": -(2.0**80), "max_value": 2.0**80, "allow_subnormal": False}}.get(dtype.kind, {})
    return draw(arrays.arrays(dtype, shape, elements=arrays.from_dtype(dtype, **limited)))


@every
@settings(max_examples=80, deadline=None)
@given(values=signals())
def test_decoding_what_was_encoded_gives_every_value_back(name, values):
    transform, stored = fitted(name, values)
    encoded = transform.encode(stored)
    assert encoded.dtype == stored.dtype
    low, high = float(stored.min()), float(stored.max())
    # A network is trained on float32 targets, so that what they lose counts.
    for seen in (encoded, encoded.to(torch.float32)):
        missed = (transform.decode(seen).to(torch.float64) - stored.to(torch.float64)).abs()
        assert float(missed.max()) <= 7e-6 * (high - low) + 4e-7 * max(abs(low), abs(high)) + TINY


@pytest.mark.parametrize("name", ["minmax", "zscore", *BOUNDED])
@pytest.mark.parametrize("shape", SKEWED)
def test_16_bit_integers_come_back_exactly(name, shape):
    values = SKEWED[shape]
    levels = np.rint(65535 * (values - values.min()) / np.ptp(values)).astype(np.uint16)
    transform, stored = fitted(name, levels)
    decoded = transform.decode(transform.encode(stored).to(torch.float32))
    assert torch.equal(decoded.round(), stored)


@every
@settings(max_examples=30, deadline=None)
@given(values=signals(), outputs=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8))
def test_every_output_of_a_network_decodes_to_a_number_in_order(name, values, outputs):
    transform, _ = fitted(name, values)
    decoded = transform.decode(torch.tensor(sorted(outputs), dtype=torch.float32)[:, None])
    assert torch.isfinite(decoded).all()
    assert (decoded.diff(dim=0) >= 0).all()


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("shape", SKEWED)
def test_what_lies_outside_of_the_range_is_taken_for_its_end(name, shape):
    transform, stored = fitted(name, SKEWED[shape])
    ends = transform.decode(torch.tensor([-1.0, 1.0], dtype=torch.float64))
    beyond = transform.decode(torch.tensor([-torch.inf, torch.inf], dtype=torch.float64))
    assert torch.equal(ends, beyond)
    assert ends[0] <= stored.min() + 1e-9
    assert ends[1] >= stored.max() - 1e-9
    outside = transform.encode(ends + torch.tensor([-9.0, 9.0]))
    torch.testing.assert_close(outside, torch.tensor([-1.0, 1.0], dtype=torch.float64))
    assert torch.isnan(transform.decode(torch.tensor([torch.nan]))).all()


@pytest.mark.parametrize("name", ["minmax", "zscore", *BOUNDED])
@pytest.mark.parametrize("values", [np.full((5, 2), 7.25), np.array([[-3.0]]), np.full((4, 1), 255, np.uint8)])
def test_a_constant_is_the_middle_of_the_range(name, values):
    transform, stored = fitted(name, values)
    if (name, values.dtype) != ("minmax", np.uint8):  # whose range is the dtype's
        torch.testing.assert_close(transform.encode(stored), torch.zeros_like(stored), atol=1e-12, rtol=0)
    assert torch.equal(transform.decode(transform.encode(stored)), stored)


@every
@pytest.mark.parametrize("shape", SKEWED)
def test_the_state_is_json_and_describes_the_whole_map(name, shape):
    transform, stored = fitted(name, SKEWED[shape])
    again = type(transform).from_state(json.loads(json.dumps(transform.state())))
    assert torch.equal(again.encode(stored), transform.encode(stored))
    outputs = torch.linspace(-2, 2, 99)
    assert torch.equal(again.decode(outputs), transform.decode(outputs))


def test_a_map_between_channels_is_asked_for_all_of_them():
    class Swapped(Identity):
        """The channels in another order, as a change of colour space may have it."""

        def encode(self, values):
            return values[..., [2, 0, 1]]

        def decode(self, values):
            return values[..., [1, 2, 0]]

    values = np.random.default_rng(0).random((12, 10, 3)).astype(np.float32)
    signal = Signal(CoordinateDataset(values), Swapped())
    found = evaluate(Siren(SirenOptions(hidden_features=8), 2, 3), signal, ["psnr"], 50)
    assert np.isfinite(found["psnr"])


def test_each_channel_may_have_a_range_of_its_own():
    values = np.column_stack([np.linspace(101_000, 102_000, 11), np.linspace(0, 1e-3, 11), np.full(11, 7.0)])
    dataset = CoordinateDataset(values)
    transform = MinMax.fit(MinMaxOptions(each_channel=True), dataset)
    encoded = transform.encode(torch.from_numpy(values))
    expected = np.linspace(-1, 1, 11)
    np.testing.assert_allclose(encoded.numpy(), np.column_stack([expected, expected, np.zeros(11)]), atol=1e-12)
    again = MinMax.from_state(json.loads(json.dumps(transform.state())))
    np.testing.assert_allclose(again.decode(encoded).numpy(), values)
    assert MinMax.fit(MinMaxOptions(each_channel=True), CoordinateDataset(values[:, :1])).state() == {
        "low": 101_000.0,
        "high": 102_000.0,
    }


@every
def test_a_loaded_field_decodes_as_the_saved_one(name, tmp_path):
    dataset = CoordinateDataset(SKEWED["dark"].astype(np.float32).reshape(50, 60, 1))
    plugin = TRANSFORMS.get(name)
    transform = plugin.fit(plugin.Options(), dataset)
    network = Siren(SirenOptions(hidden_features=8, hidden_layers=1), 2, 1)
    config = resolve([{"base": "image-single", "data": {"path": "photo.png"}, "transform": name}])
    field = field_of(config, network, Signal(dataset, transform))
    field.save(tmp_path / "field.safetensors")
    loaded = load(tmp_path)
    assert config.transform.name == name
    assert np.array_equal(loaded.render(), field.render())


@every
def test_a_signal_read_in_parts_gives_the_map_of_the_whole(name, monkeypatch):
    values = np.concatenate([SKEWED["dark"], SKEWED["right"]], axis=1).astype(np.float32)
    whole, stored = fitted(name, values)
    monkeypatch.setattr("inrkit.signals.dataset._CHUNK", 64)
    parts, _ = fitted(name, values)
    torch.testing.assert_close(parts.encode(stored), whole.encode(stored))


@pytest.mark.parametrize("name", ["zscore", *BOUNDED])
def test_no_more_than_a_part_of_a_signal_is_gathered_at_a_time(name, monkeypatch):
    monkeypatch.setattr("inrkit.signals.dataset._CHUNK", 64)
    monkeypatch.setattr("inrkit.signals.transforms._SAMPLED", 96)
    dataset = CoordinateDataset(np.concatenate([SKEWED["dark"], SKEWED["right"]], axis=1))
    _ = dataset.extent
    sizes = []
    stored = CoordinateDataset.stored
    monkeypatch.setattr(
        CoordinateDataset, "stored", lambda self, at: sizes.append((rows := stored(self, at)).numel()) or rows
    )
    TRANSFORMS.get(name).fit(TRANSFORMS.get(name).Options(), dataset)
    assert 0 < max(sizes) <= 96


@pytest.mark.parametrize("name", ["minmax", "zscore", *BOUNDED])
def test_a_value_that_is_not_finite_is_an_error(name):
    with pytest.raises(DataError, match=r"index \(2\) is NaN"):
        fitted(name, np.array([[0.0], [1.0], [np.nan]]))


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_zscore_has_mean_0_and_deviation_1_over_all_channels(offset):
    values = offset + np.concatenate([SKEWED["right"], 5 * SKEWED["bright"]], axis=1)
    transform, stored = fitted("zscore", values)
    encoded = transform.encode(stored)
    assert float(encoded.mean()) == pytest.approx(0, abs=1e-8)
    assert float(encoded.std(correction=0)) == pytest.approx(1)
    assert abs(float(encoded[:, 0].mean())) > 0.1
    direct = ZScore.fit(ZScoreOptions(), CoordinateDataset(values))
    assert (direct.mean, direct.deviation) == pytest.approx((values.mean(), values.std()))


@pytest.mark.parametrize("shape", SKEWED)
def test_the_bare_power_brings_the_median_to_the_middle(shape):
    plain = SymmetricPowerOptions(calibration=0, margin=0)
    dataset = CoordinateDataset(SKEWED[shape])
    transform = SymmetricPower.fit(plain, dataset)
    place = (np.median(SKEWED[shape]) - SKEWED[shape].min()) / np.ptp(SKEWED[shape])
    wanted = np.log(0.5) / np.log(place)
    assert transform.power == pytest.approx(np.clip(wanted, 0.2, 5), rel=0.01)
    if transform.power <= 1:
        assert transform.below == transform.above == 0
        if wanted >= 0.2:
            median = torch.tensor(np.median(SKEWED[shape]))
            assert float(transform.encode(median)) == pytest.approx(0, abs=0.01)


def test_calibration_weakens_the_power_by_what_it_crowds_at_the_end():
    values = random.beta(1.5, 1, size=(3000, 1))
    dataset = CoordinateDataset(values)
    bare = SymmetricPower.fit(SymmetricPowerOptions(calibration=0), dataset).power
    calibrated = SymmetricPower.fit(SymmetricPowerOptions(calibration=0.05), dataset).power
    place = (values - values.min()) / np.ptp(values)
    gain = ((place**bare < 0.05).mean() - (place < 0.05).mean()) / 0.05
    assert 0 < gain < 1 < bare
    assert calibrated == pytest.approx(bare - (bare - 1) * gain, rel=0.02)
    assert calibrated < bare


def test_margins_are_the_shares_of_values_at_the_ends():
    values = np.concatenate([np.zeros(300), np.linspace(0, 100, 500), np.full(200, 100)])[:, None]
    transform = SymmetricPower.fit(SymmetricPowerOptions(), CoordinateDataset(values))
    assert transform.below == pytest.approx(100 * 0.305, rel=0.01)
    assert transform.above == pytest.approx(100 * 0.205, rel=0.01)
    twice = SymmetricPower.fit(SymmetricPowerOptions(margin=2.0), CoordinateDataset(values))
    assert twice.above == pytest.approx(2 * transform.above)


@pytest.mark.parametrize("shape", ["right", "dark"])
def test_symmetric_power_is_less_skewed_than_the_values(shape):
    transform, stored = fitted("symmetric-power", SKEWED[shape])
    assert abs(stats.skew(transform.encode(stored).numpy())[0]) < 0.5 * abs(stats.skew(SKEWED[shape])[0])


def test_the_exponent_of_boxcox_is_the_likeliest_one():
    transform, stored = fitted("boxcox", SKEWED["dark"])
    low, high = float(stored.min()), float(stored.max())
    shifted = ((stored - low) / (high - low) + 0.1).numpy().reshape(-1)
    normal, exponent = stats.boxcox(shifted)
    assert transform.exponent == pytest.approx(exponent, abs=1e-3)
    expected = 2 * (normal - normal.min()) / np.ptp(normal) - 1
    np.testing.assert_allclose(transform.encode(stored).numpy().reshape(-1), expected, atol=1e-3)


@pytest.mark.parametrize("exponent", [0.0, 1e-18, -1e-9, 1e-4])
def test_boxcox_is_the_logarithm_where_its_exponent_vanishes(exponent):
    values = torch.linspace(3, 8, 50, dtype=torch.float64)
    shifted = ((values - 3) / 5 + 0.1).log()
    expected = 2 * (shifted - shifted.min()) / (shifted.max() - shifted.min()) - 1
    transform = BoxCox(3.0, 8.0, exponent)
    torch.testing.assert_close(transform.encode(values), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(transform.decode(transform.encode(values)), values)


def test_boxcox_of_a_sample_is_that_of_all(monkeypatch):
    dataset = CoordinateDataset(SKEWED["dark"])
    whole = BoxCox.fit(BoxCoxOptions(), dataset)
    monkeypatch.setattr("inrkit.signals.transforms._SAMPLED", 1500)
    sample = BoxCox.fit(BoxCoxOptions(), dataset)
    assert 0 < abs(sample.exponent - whole.exponent) < 0.1
    assert (sample.low, sample.high) == (whole.low, whole.high)
