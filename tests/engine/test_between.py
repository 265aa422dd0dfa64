"""`between`, the metric of a field at the corners of a lattice's cells."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn

import inrkit
from inrkit import METRICS, CoordinateDataset, FieldMetric
from inrkit.batch.identity import identity
from inrkit.config import resolve
from inrkit.evaluation.between import LINEAR, SPLINE, Corners, linear_between, noise_between
from inrkit.evaluation.evaluate import NetworkPredictor, evaluate
from inrkit.networks import Tiles
from inrkit.networks.tiles import TilesOptions
from inrkit.signals.signal import Signal


class Waves(nn.Module):
    """A smooth function of the coordinates; counts what it was asked for."""

    asked = 0

    def forward(self, coordinates):
        self.asked += len(coordinates)
        return torch.stack([torch.sin(2 * coordinates.sum(dim=-1)), coordinates[..., 0]], dim=-1)


def noise(*shape):
    return np.random.default_rng(0).normal(size=(*shape, 2)).astype(np.float32)


def interpolated(values, coordinates, order):
    """(k, C) by scipy, at (k, D) coordinates."""
    lengths = np.array(values.shape[:-1])
    cells = ((coordinates.double().numpy() * lengths + lengths - 1) / 2).T
    channels = [
        map_coordinates(channel.astype(float), cells, order=order, mode="mirror")
        for channel in np.moveaxis(values, -1, 0)
    ]
    return np.stack(channels, axis=-1)


def corner_lattice(shape):
    """(k, D) float64 coordinates of all corners."""
    axes = [np.array([0.0]) if n == 1 else (2 * np.arange(n - 1) + 2 - n) / n for n in shape]
    return torch.from_numpy(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(shape)))


@pytest.mark.parametrize(
    ("shape", "most"),
    [
        ((9,), 100),
        ((5000,), 700),
        ((2, 5), 100),
        ((1, 7, 6), 1000),
        ((40, 50), 300),
        ((3, 60, 61), 2000),
        ((50, 40, 30), 4096),
        ((4, 1, 9, 12), 1000),
    ],
)
def test_what_lies_at_the_corners_is_what_scipy_interpolates_there(shape, most):
    values = noise(*shape)
    corners = Corners(CoordinateDataset(values), most)
    asked = []
    for block in corners:
        asked.append(block.coordinates)
        for taps, order in ((SPLINE, 3), (LINEAR, 1)):
            expected = interpolated(values, block.coordinates, order)
            np.testing.assert_allclose(block.interpolated(taps).numpy(), expected, atol=2e-3)
    found = torch.cat(asked)
    assert len(found) == len(corners) == len(found.unique(dim=0)) <= most
    whole = corner_lattice(shape)
    if len(whole) <= most:
        torch.testing.assert_close(found, whole.to(torch.float64))
    else:
        assert len(found) > most / 2
        places = (found.double().numpy() * shape + np.array(shape)) / 2  # of the corners, in whole cells
        np.testing.assert_allclose(places, places.round(), atol=1e-3)


def test_between_is_the_psnr_of_the_field_against_the_spline():
    values = noise(20, 30)
    network, coordinates = Waves(), corner_lattice((20, 30)).to(torch.float32)
    expected = interpolated(values, coordinates, 3)
    error = np.mean((network(coordinates).double().numpy() - expected) ** 2)
    found = evaluate(network, Signal(CoordinateDataset(values)), ["psnr", "between"], 100)
    assert list(found) == ["psnr", "between"]
    assert found["between"] == pytest.approx(10 * math.log10(np.ptp(values) ** 2 / error), abs=1e-3)


@pytest.mark.parametrize("offset", [-3.5e7, 1e30])
def test_what_lies_between_equal_values_is_that_value(offset):
    dataset = CoordinateDataset(np.full((9, 50, 1), offset, np.float32))
    (block,) = Corners(dataset, 500)
    assert (block.interpolated(SPLINE).double() + dataset.reference == np.float32(offset)).all()


def test_values_are_kept_within_what_the_dtype_holds():
    values = np.where(np.arange(30) % 5 < 2, 255, 0).astype(np.uint8)[:, None]
    (block,) = Corners(CoordinateDataset(values), 100)
    found = block.interpolated(SPLINE)
    assert found.min() == 0
    assert found.max() == 255


def test_crops_tell_what_all_corners_would_and_cost_a_fraction():
    values = noise(700, 800)
    signal, network = Signal(CoordinateDataset(values)), Waves()
    expected = interpolated(values, corner_lattice((700, 800)), 3)
    predicted = network(corner_lattice((700, 800)).to(torch.float32)).double().numpy()
    whole = 10 * math.log10(np.ptp(values) ** 2 / np.mean((predicted - expected) ** 2))
    network.asked = 0
    assert evaluate(network, signal, ["between"], 10_000)["between"] == pytest.approx(whole, abs=0.1)
    assert 40_000 < network.asked <= 700 * 800 / 8
    network.asked = 0
    assert evaluate(network, signal, ["between"], 10_000, most=1 << 17)["between"] == pytest.approx(whole, abs=0.1)
    assert 10_000 < network.asked <= (1 << 17) / 8


def test_corners_near_what_is_not_known_do_not_count():
    values = noise(40, 50)
    known = np.ones((40, 50), dtype=bool)
    known[10:14, 20:23] = False
    known[30, 40] = False
    hidden = values.copy()
    hidden[~known] = np.nan
    # The nearest known value, by what its distance is.
    filled = values.copy()
    places = np.argwhere(known)
    for cell in np.argwhere(~known):
        distance = ((places - cell) ** 2).sum(axis=1)
        nearest = places[distance == distance.min()]
        filled[tuple(cell)] = filled[tuple(nearest[0])]
    counted = np.ones((39, 49), dtype=bool)
    for row, column in np.argwhere(~known):
        counted[max(0, row - 2) : row + 2, max(0, column - 2) : column + 2] = False
    coordinates = corner_lattice((40, 50))[torch.from_numpy(counted.ravel())].to(torch.float32)
    network = Waves()
    squares = (network(coordinates).double().numpy() - interpolated(filled, coordinates, 3)) ** 2
    dataset = CoordinateDataset(hidden, known=known)
    expected = 10 * math.log10(dataset.peak**2 / squares.mean())
    # Of several nearest values another may have been taken, a few thousandths of which reach a corner that counts.
    assert evaluate(network, Signal(dataset), ["between"], 100)["between"] == pytest.approx(expected, abs=0.02)


def test_a_signal_of_which_little_is_known_has_corners_where_it_is():
    known = np.zeros((600, 700), dtype=bool)
    known[500:540, 300:360] = True
    dataset = CoordinateDataset(noise(600, 700), known=known)
    assert math.isfinite(evaluate(Waves(), Signal(dataset), ["between"], 10_000)["between"])
    scattered = CoordinateDataset(noise(60, 70), known=np.arange(4200).reshape(60, 70) % 3 == 0)
    assert evaluate(Waves(), Signal(scattered), ["between"], 10_000) == {}


def test_weights_count_at_the_corners():
    values = noise(20, 30)
    weights = np.ones((20, 30))
    weights[:, :15] = 0
    dataset = CoordinateDataset(values, weights=weights)
    coordinates = corner_lattice((20, 30)).to(torch.float32)
    coordinates = coordinates[coordinates[:, 1] > 1 / 30]
    error = (Waves()(coordinates).double().numpy() - interpolated(values, coordinates, 3)) ** 2
    expected = 10 * math.log10(np.ptp(values) ** 2 / error.mean())
    assert evaluate(Waves(), Signal(dataset), ["between"], 100)["between"] == pytest.approx(expected, abs=1e-3)


def test_free_points_and_single_cells_have_nothing_between():
    free = CoordinateDataset(noise(50), points=np.random.default_rng(0).uniform(-1, 1, (50, 2)))
    assert set(evaluate(Waves(), Signal(free), ["psnr", "between"], 100)) == {"psnr"}
    assert set(evaluate(Waves(), Signal(CoordinateDataset(noise(1, 1))), ["psnr", "between"], 100)) == {"psnr"}


def test_a_field_is_called_noise_where_it_is_worse_than_at_the_samples_and_than_linear_interpolation():
    smooth = np.sin(np.arange(40) / 6)[:, None].astype(np.float32)
    dataset = CoordinateDataset(smooth)
    coordinates = corner_lattice((40,))
    spline, linear = interpolated(smooth, coordinates, 3), interpolated(smooth, coordinates, 1)
    reached = linear_between(dataset, 40)
    assert reached == pytest.approx(10 * math.log10(np.ptp(smooth) ** 2 / np.mean((spline - linear) ** 2)), abs=0.1)
    options = inrkit.NETWORKS.get("siren").Options(first_omega=45.0)
    told = noise_between({"psnr": 60.0, "between": 20.0}, dataset, 40, options)
    assert told is not None
    assert "20.0 dB" in told
    assert f"{reached:.1f} dB" in told
    assert "lower network.first_omega, here 45" in told
    assert "\n" not in told
    assert noise_between({"psnr": 60.0, "between": reached + 0.1}, dataset, 40, options) is None
    assert noise_between({"psnr": 23.0, "between": 20.0}, dataset, 40, options) is None
    tiles = Tiles.fitted(TilesOptions(), Signal(dataset))
    told = noise_between({"psnr": 60.0, "between": 20.0}, dataset, 40, tiles)
    assert "lower network.each.first_omega, here 20, or raise network.between, here 0.25" in told
    assert noise_between({"psnr": 60.0}, dataset, 40, options) is None


def test_every_lattice_run_is_rated_between_its_samples_and_told_if_it_is_noise_there(tmp_path, capsys):
    y, x = np.mgrid[:16, :16]
    np.save(tmp_path / "a.npy", (np.sin(x / 4) + np.cos(y / 5)).astype(np.float32))
    common = {"modality": "image", "device": "cpu", "selector": "full", "train": {"chunk": 256, "compile": "never"}}
    network = {"hidden_features": 64, "hidden_layers": 1}
    noisy = inrkit.fit(
        tmp_path / "a.npy",
        out=tmp_path / "noisy",
        steps=150,
        network={**network, "first_omega": 200, "axis_factors": [1]},
        **common,
    )
    assert set(noisy.history[-1]) >= {"psnr", "between"}
    assert list(noisy.metrics)[:2] == ["psnr", "between"]
    (note,) = noisy.result["notes"]
    assert "network.first_omega, here 200" in note
    smooth = inrkit.fit(
        tmp_path / "a.npy",
        out=tmp_path / "smooth",
        steps=150,
        network={**network, "first_omega": 5, "weight_scale": 1},
        **common,
    )
    assert smooth.metrics["between"] > noisy.metrics["between"] + 10
    assert smooth.result["notes"] == []
    paper = inrkit.fit(tmp_path / "a.npy", out=tmp_path / "paper", base="image-paper", steps=1, device="cpu")
    assert "between" in paper.metrics


class Steepness(FieldMetric):
    """Largest derivative along the first axis."""

    higher_is_better = False

    def measure(self, predictor, most):
        places = self.dataset.coordinates(slice(0, min(most, 100)))
        return float(predictor.jacobian(places)[:, :, 0].abs().max())


def test_a_metric_of_ones_own_may_ask_for_derivatives():
    METRICS.register("steepness")(Steepness)
    try:
        values = np.zeros((30, 30, 2), np.float32)
        found = evaluate(Waves(), Signal(CoordinateDataset(values)), ["steepness"], 7)
    finally:
        METRICS._registered.pop("steepness")
    # sin 2(x + y) has slope 2 where x + y is 0, x has slope 1 everywhere
    places = CoordinateDataset(values).coordinates(slice(0, 100)).double().sum(dim=1)
    assert found["steepness"] == pytest.approx(max(1.0, float(2 * torch.cos(2 * places).abs().max())), rel=1e-5)


def test_a_predictor_gives_stored_values_and_their_derivatives():
    values = (100 + 50 * np.sin(np.arange(40) / 6))[:, None].astype(np.float32)
    dataset = CoordinateDataset(values)
    plugin = inrkit.TRANSFORMS.get("minmax")
    transform = plugin.fit(plugin.Options(), dataset)

    class Line(nn.Module):
        def forward(self, coordinates):
            return 0.5 * coordinates

    predictor = NetworkPredictor(Line(), Signal(dataset, transform), 3)
    points = torch.tensor([[-0.5], [0.0], [0.25], [1.0]])
    low, high = float(values.min()), float(values.max())
    torch.testing.assert_close(predictor(points), (low + high) / 2 + 0.25 * (high - low) * points)
    torch.testing.assert_close(predictor.jacobian(points), torch.full((4, 1, 1), 0.25 * (high - low)))


def test_studies_from_before_the_metric_know_their_jobs(tmp_path):
    keys = resolve([{"data": {"path": "a.png"}, "modality": "image"}]).to_dict()
    assert keys["metrics"] == ["psnr", "between", "ssim", "ms_ssim"]
    assert identity(keys, "x") == identity({**keys, "metrics": ["psnr", "ssim", "ms_ssim"]}, "x")
    assert identity({**keys, "metrics": ["psnr", "between"]}, "x") != identity({**keys, "metrics": ["psnr"]}, "x")
