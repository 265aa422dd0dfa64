"""Evaluation of a large signal by crops that stand for it."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import inrkit
from inrkit import CoordinateDataset
from inrkit.evaluation.evaluate import Crops, evaluate
from inrkit.signals.signal import Signal


class Linear(nn.Module):
    """Predicts a constant plus some share of the coordinates; counts what it was asked for."""

    def __init__(self, share=0.0):
        super().__init__()
        self.share = share
        self.asked = 0

    def forward(self, coordinates):
        self.asked += len(coordinates)
        return 0.25 + self.share * coordinates.sum(dim=-1, keepdim=True)


def noise(*shape):
    return np.random.default_rng(0).normal(size=(*shape, 1)).astype(np.float32)


@pytest.mark.parametrize("shape", [(300, 410), (9000,), (30, 31, 32), (2, 5000), (5000, 2)])
def test_crops_are_boxes_of_the_signal(shape):
    dataset = CoordinateDataset(np.zeros((*shape, 1)))
    crops = Crops(dataset, 4000)
    indices = crops.indices(slice(0, len(crops)))
    assert 2000 < len(crops) <= 4000
    assert len(indices.unique()) == len(crops)
    rows = torch.stack(torch.unravel_index(indices, shape), dim=-1).view(*crops.shape, len(shape))
    for axis in range(1, len(shape)):
        step = rows.diff(dim=axis)
        assert (step == torch.eye(len(shape), dtype=step.dtype)[axis]).all()
    assert torch.equal(crops.indices(slice(100, 317)), indices[100:317])


def test_metrics_of_crops_are_those_of_a_signal_made_of_them():
    weights = 1 + np.random.default_rng(1).random((400, 500))
    dataset = CoordinateDataset(noise(400, 500), weights=weights)
    crops = Crops(dataset, 1 << 16)
    inside = crops.indices(slice(0, len(crops)))
    made = CoordinateDataset(dataset.values[inside].numpy().reshape(*crops.shape, 1))
    made.weights = dataset.weights_of(inside).view(crops.shape)
    made.extent = dataset.extent
    found = evaluate(Linear(), Signal(dataset), ["psnr", "ssim"], 1000, most=1 << 16)
    assert found == pytest.approx(evaluate(Linear(), Signal(made), ["psnr", "ssim"], 1000))
    assert set(found) == {"psnr", "ssim"}


@pytest.mark.parametrize("free", [False, True])
def test_crops_are_predicted_where_they_lie_and_nothing_else_is(free):
    lattice = CoordinateDataset(noise(200, 300))
    points = lattice.coordinates(slice(0, 60_000)).numpy()
    values = 0.25 + 0.5 * points.sum(axis=1, keepdims=True)
    dataset = CoordinateDataset(values, points=points) if free else CoordinateDataset(values.reshape(200, 300, 1))
    network = Linear(0.5)
    assert evaluate(network, Signal(dataset), ["psnr"], 1000, most=5000)["psnr"] > 120
    assert 4000 < network.asked <= 5000


def test_crops_tell_what_the_whole_would():
    dataset = CoordinateDataset(noise(700, 900))
    found = evaluate(Linear(0.3), Signal(dataset), ["psnr", "ssim"], 10_000, most=1 << 17)
    whole = evaluate(Linear(0.3), Signal(dataset), ["psnr", "ssim"], 10_000)
    assert found["psnr"] == pytest.approx(whole["psnr"], abs=0.1)
    assert found["ssim"] == pytest.approx(whole["ssim"], abs=0.01)


def test_an_error_that_is_everywhere_the_same_reads_the_same_whatever_weights_crops_have():
    # Nearly all weight in a few rows, of which crops hold more or fewer than their share.
    weights = np.where(np.arange(400)[:, None] < 4, 100.0, 0.01)
    values = np.broadcast_to(np.array([0.0, 1.0], np.float32), (400, 250, 2)).reshape(400, 500, 1)
    dataset, level = CoordinateDataset(values, weights=weights), 10 * math.log10(1 / 0.25)

    class Half(Linear):
        def forward(self, coordinates):
            return torch.full((len(coordinates), 1), 0.5)

    assert evaluate(Half(), Signal(dataset), ["psnr"], 10_000)["psnr"] == pytest.approx(level)
    assert evaluate(Half(), Signal(dataset), ["psnr"], 10_000, most=5000)["psnr"] == pytest.approx(level)


def test_a_signal_that_is_small_enough_is_evaluated_whole():
    dataset = CoordinateDataset(noise(60, 70))
    whole = evaluate(Linear(0.3), Signal(dataset), ["psnr", "ssim"], 1000)
    assert evaluate(Linear(0.3), Signal(dataset), ["psnr", "ssim"], 1000, most=60 * 70) == whole
    assert math.isfinite(whole["psnr"])


def test_a_metric_that_a_large_signal_has_not_does_not_return_for_its_crops():
    dataset = CoordinateDataset(np.zeros((1100, 1000, 1), np.uint8))
    assert set(evaluate(Linear(), Signal(dataset), ["psnr", "ms_ssim"], 10_000, most=1 << 17)) == {"psnr"}


def test_a_signal_larger_than_the_sample_is_evaluated_on_crops_and_not_rendered_if_too_large(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    run = inrkit.fit(
        tmp_path / "a.npy",
        out=tmp_path / "run",
        steps=2,
        device="cpu",
        metrics=["psnr"],
        selector={"name": "uniform", "least": 1, "most": 100},
        network={"hidden_features": 16},
        log={"every": 1, "evaluated": 1 << 16, "reconstruction": 1000},
    )
    assert run.result["status"] == "done"
    assert run.reconstruction is None
    assert [row["step"] for row in run.history] == [1, 2]
