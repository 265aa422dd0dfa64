import math

import pytest
import torch
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from inrkit import METRICS
from inrkit.signals.lattice import slabs

REFERENCES = {
    "psnr": peak_signal_noise_ratio,
    "ssim": structural_similarity_index_measure,
    "ms_ssim": multiscale_structural_similarity_index_measure,
}


@pytest.mark.parametrize("rows", [1, 3, 10, 11, 64, 1000])
@pytest.mark.parametrize("name", REFERENCES)
def test_slab_by_slab_equals_the_whole_image(name, rows):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(190, 180, 3, generator=generator) * 255
    prediction = target + 20 * torch.randn(target.shape, generator=generator)
    metric = METRICS.get(name)((190, 180), 3, 255.0)
    for span in slabs((190, 180), rows * 180):
        part = slice(span.start // 180, span.stop // 180)
        metric.update(prediction[part], target[part])
    channels_first = [image.movedim(-1, 0)[None] for image in (prediction, target)]
    expected = float(REFERENCES[name](*channels_first, data_range=255.0))
    assert metric.compute() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("unit", "offset"), [(1e-30, 0.0), (1e-12, 0.0), (1e30, 0.0), (1.0, 1e3), (1e-9, 1e-5)])
@pytest.mark.parametrize("name", REFERENCES)
def test_metrics_do_not_depend_on_the_unit_of_values_nor_fail_under_an_offset(name, unit, offset):
    generator = torch.Generator().manual_seed(0)
    target = offset + torch.rand(176, 176, 1, generator=generator) * unit
    prediction = target + 0.1 * unit * torch.randn(target.shape, generator=generator)
    metric = METRICS.get(name)((176, 176), 1, unit)
    metric.update(prediction, target)
    as_one = [(image.double() / unit).movedim(-1, 0)[None] for image in (prediction, target)]
    assert metric.compute() == pytest.approx(float(REFERENCES[name](*as_one, data_range=1.0)), abs=1e-4)


@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
def test_equal_images_are_alike_however_far_their_values_are_from_zero(name):
    metric = METRICS.get(name)((176, 176), 1, 1.0)
    metric.update(torch.full((176, 176, 1), -3.5e7), torch.full((176, 176, 1), -3.5e7))
    assert metric.compute() == pytest.approx(1, abs=1e-5)


def test_psnr_of_equal_signals_is_infinite():
    metric = METRICS.get("psnr")((2, 2), 1, 255.0)
    metric.update(torch.ones(2, 2, 1), torch.ones(2, 2, 1))
    assert metric.compute() == math.inf


@pytest.mark.parametrize(("name", "least"), [("ssim", 11), ("ms_ssim", 176)])
def test_structural_metrics_are_left_out_where_their_window_does_not_fit(name, least):
    metric = METRICS.get(name)
    assert metric.applies((least, least))
    assert not metric.applies((least - 1, 500))
    assert not metric.applies((1000,))


@pytest.mark.parametrize(("name", "least"), [("ssim", 11), ("ms_ssim", 176)])
def test_structural_metrics_compute_where_they_apply(name, least):
    metric = METRICS.get(name)((least, least), 1, 1.0)
    image = torch.rand(least, least, 1)
    metric.update(image, image)
    assert metric.compute() == pytest.approx(1.0, abs=1e-5)


def test_slabs_cover_all_indices_once_in_whole_rows():
    spans = list(slabs((7, 5), 12))
    assert [span.start for span in spans] == [0, 10, 20, 30]
    assert spans[-1].stop == 35
