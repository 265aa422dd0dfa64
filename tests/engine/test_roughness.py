"""How fast signals of free points vary."""

import math

import numpy as np
import pytest

from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.roughness import gradient_frequency
from inrkit.signals.signal import Signal


def of(points, values):
    return gradient_frequency(Signal(CoordinateDataset(values.reshape(len(points), -1), points=points)))


@pytest.mark.parametrize(("dimensions", "count"), [(1, 400), (2, 3000), (3, 20_000)])
@pytest.mark.parametrize("omega", [6.0, 15.0])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_of_a_wave_it_is_the_angular_frequency_with_and_without_noise(dimensions, count, omega, noise):
    random = np.random.default_rng(0)
    points = random.uniform(-1, 1, (count, dimensions))
    direction = np.ones(dimensions) / math.sqrt(dimensions)
    values = np.sin(omega * points @ direction) + noise * random.normal(size=count)
    assert of(points, values) == pytest.approx(omega, rel=0.25)


def test_units_offsets_and_channels_change_nothing():
    random = np.random.default_rng(0)
    points = random.uniform(-1, 1, (2000, 2))
    wave = np.sin(9 * points[:, 0] + 5 * points[:, 1])
    one = of(points, wave)
    assert of(points, 1000 + 70 * wave) == pytest.approx(one, rel=1e-3)
    assert of(points, np.stack([wave, -wave], axis=1)) == pytest.approx(one, rel=1e-3)


def test_noise_alone_varies_slowly():
    random = np.random.default_rng(0)
    assert of(random.uniform(-1, 1, (3000, 2)), random.normal(size=3000)) < 8


def test_it_is_no_more_than_half_of_what_the_points_can_show():
    points = np.random.default_rng(0).uniform(-1, 1, (400, 2))
    assert of(points, np.sin(200 * points[:, 0])) <= math.pi / 4 * 20


@pytest.mark.parametrize(
    ("points", "values"),
    [
        (np.zeros((50, 2)), np.arange(50.0)),
        (np.linspace(-1, 1, 50)[:, None], np.zeros(50)),
        (np.linspace(-1, 1, 8)[:, None], np.arange(8.0)),
        (np.zeros((1, 1)), np.zeros(1)),
    ],
)
def test_constants_single_places_and_few_points_tell_nothing(points, values):
    assert of(points, values) is None
