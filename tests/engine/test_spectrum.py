"""The spectrum of a signal on a lattice: pure tones are found where they are, along each axis by itself."""

import math

import numpy as np
import pytest
import torch

from inrkit.signals import spectrum
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.signal import Signal
from inrkit.signals.spectrum import energy_spectrum, spectral_edges


def tone(length, omega):
    """(length,) cos(ωx) at the cells' centres."""
    return np.cos(omega * (2 * np.arange(length) + 1 - length) / length)


def dataset(values, **options):
    return Signal(CoordinateDataset(np.asarray(values, dtype=np.float32)[..., None], **options))


@pytest.mark.parametrize("omega", [30.0, 200.0, 1000.0])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_all_energy_of_a_tone_is_at_its_frequency(omega, share):
    (found,) = spectral_edges(dataset(tone(4000, omega)), share)
    assert found == pytest.approx(omega, abs=1.5 * math.pi)  # the distance of two frequencies of 4000 cells is π


def test_share_decides_between_a_strong_low_tone_and_a_weak_high_one():
    signal = dataset(2 * tone(4000, 100.0) + tone(4000, 2000.0))
    assert spectral_edges(signal, 0.7)[0] == pytest.approx(100, abs=10)
    assert spectral_edges(signal, 0.9)[0] == pytest.approx(2000, abs=10)


def test_axes_are_measured_by_themselves_whatever_their_lengths():
    shape, omegas = (60, 200, 90), (20.0, 130.0, 60.0)
    field = np.ones(shape)
    for axis, (length, omega) in enumerate(zip(shape, omegas, strict=True)):
        field = np.moveaxis(np.moveaxis(field, axis, -1) * tone(length, omega), -1, axis)
    found = spectral_edges(dataset(field), 0.5)
    assert found == pytest.approx(omegas, abs=1.5 * math.pi)


def test_spectrum_of_a_short_signal_is_its_plain_periodogram():
    values = np.random.default_rng(0).standard_normal(300)
    centred = (values - values.mean()) * np.hanning(300)
    signal = Signal(CoordinateDataset(values[:, None]))
    expected = np.abs(np.fft.rfft(centred)) ** 2
    np.testing.assert_allclose(energy_spectrum(signal, 0).numpy(), expected, rtol=1e-3, atol=1e-3)


def test_a_long_axis_cut_into_stretches_tells_the_same_edge(monkeypatch):
    random = np.random.default_rng(1)
    noise = np.convolve(random.standard_normal(40_000), np.ones(8) / 8, mode="same")
    whole = spectral_edges(dataset(noise), 0.8)[0]
    monkeypatch.setattr(spectrum, "_SEGMENT", 512)
    monkeypatch.setattr(spectrum, "_SEGMENTS", 100)
    assert spectral_edges(dataset(noise), 0.8)[0] == pytest.approx(whole, rel=0.05)


def test_gathering_in_parts_changes_nothing(monkeypatch):
    signal = dataset(np.random.default_rng(2).standard_normal((40, 50)))
    whole = [energy_spectrum(signal, axis) for axis in (0, 1)]
    monkeypatch.setattr(spectrum, "_AT_A_TIME", 64)
    for axis in (0, 1):
        torch.testing.assert_close(energy_spectrum(signal, axis), whole[axis])


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (1, 5), (7, 1, 2)])
def test_signals_of_a_few_cells_have_finite_edges(shape):
    edges = spectral_edges(dataset(np.random.default_rng(3).standard_normal(shape)), 0.9)
    assert len(edges) == len(shape)
    assert all(0 <= edge <= math.pi * length / 2 for edge, length in zip(edges, shape, strict=True))


def test_constants_have_no_frequency_and_an_offset_adds_none():
    assert spectral_edges(dataset(np.full(100, 7.0)), 0.9) == (0.0,)
    signal = tone(1000, 50.0)
    assert spectral_edges(dataset(signal + 1000), 0.5)[0] == pytest.approx(
        spectral_edges(dataset(signal), 0.5)[0], rel=1e-3
    )


def test_free_points_have_no_spectrum():
    assert spectral_edges(Signal(CoordinateDataset(np.ones((5, 1)), points=np.zeros((5, 2)))), 0.9) is None
