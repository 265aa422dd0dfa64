"""tools/between.py: halving, placing and comparing, on signals made by code."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import inrkit
from inrkit.modalities.image import sample_picture

TOOL = Path(__file__).parents[2] / "tools" / "between.py"


@pytest.fixture(scope="module")
def tool():
    specification = importlib.util.spec_from_file_location("between_tool", TOOL)
    module = importlib.util.module_from_spec(specification)
    sys.modules["between_tool"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["between_tool"]


@pytest.mark.parametrize(
    ("kernel", "filtered"),
    [("linear", Image.Resampling.BILINEAR), ("cubic", Image.Resampling.BICUBIC), ("Lanczos", Image.Resampling.LANCZOS)],
)
def test_pictures_are_halved_and_doubled_as_pillow_does_it(tool, kernel, filtered):
    picture = sample_picture(64)[:, :, :1].astype(np.float32)
    how = tool.halving("image", (64, 64))
    small = how.halved(picture)
    expected = Image.fromarray(picture[:, :, 0]).resize((32, 32), Image.Resampling.LANCZOS)
    np.testing.assert_allclose(small[:, :, 0], np.asarray(expected), atol=1e-3)
    doubled = np.asarray(expected.resize((64, 64), filtered))
    np.testing.assert_allclose(how.interpolated(small, (64, 64), kernel)[:, :, 0], doubled, atol=1e-3)


class Ramp(nn.Module):
    """Predicts the coordinates themselves: each channel is one."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, coordinates):
        return coordinates + self.offset


@pytest.mark.parametrize(
    ("modality", "shape"), [("image", (10, 14)), ("volume", (6, 1, 8)), ("audio", (40,)), ("video", (9, 4, 6))]
)
def test_fields_and_interpolations_are_seen_where_the_original_s_cells_lie(tool, modality, shape):
    how = tool.halving(modality, shape)
    # Every cell holds its own place in the original; a ramp stays one when it is halved, except near its ends.
    original = np.stack(np.indices(shape), axis=-1).astype(np.float64)
    small = how.halved(original)
    assert small.shape[:-1] == tuple(
        -(-length // 2) if axis in how.axes else length for axis, length in enumerate(shape)
    )
    exact = original
    for axis in how.axes:
        kept = exact.take(range(0, shape[axis], 2), axis=axis)
        exact = kept if how.kept else (kept + exact.take(range(1, shape[axis], 2), axis=axis)) / 2
    trained = inrkit.trainer(
        inrkit.CoordinateDataset(exact),
        modality="array",
        network=Ramp(),
        transform={"name": "identity"},
        selector="full",
        device="cpu",
    )
    field = trained.field
    rendered = how.rendered(field, exact.shape[:-1], shape)
    for axis, length in enumerate(shape):
        cells = exact.shape[axis]
        in_cells = ((rendered[..., axis] + 1) * cells - 1) / 2  # of the halved signal
        expected = original[..., axis]
        if axis in how.axes:
            expected = expected / 2 if how.kept else (expected + 0.5) / 2 - 0.5
        np.testing.assert_allclose(in_cells, expected, atol=1e-5)
        assert length == rendered.shape[axis]
    linear = how.interpolated(exact, shape, "linear")
    inside = tuple(slice(1, -1) if axis in how.axes else slice(None) for axis in range(len(shape)))
    np.testing.assert_allclose(linear[inside], original[inside], atol=1e-9)


def test_polyphase_interpolation_restores_a_sound_below_half_the_band(tool):
    sound = np.sin(2 * np.pi * 0.05 * np.arange(2000))[:, None]
    how = tool.halving("audio", (2000,))
    small = how.halved(sound)
    np.testing.assert_allclose(small[100:-100], sound[::2][100:-100], atol=2e-3)
    found = how.interpolated(small, (2000,), "polyphase")
    assert tool.psnr(found[200:-200], sound[200:-200], 2.0) > 50
    assert tool.psnr(how.interpolated(small, (2000,), "linear")[200:-200], sound[200:-200], 2.0) < 40


def test_of_a_video_only_the_frames_left_out_are_compared(tool):
    how = tool.halving("video", (8, 3, 3))
    frames = np.random.default_rng(0).integers(0, 256, (8, 3, 3, 1), np.uint8)
    trimmed = how.trimmed(frames)
    assert len(trimmed) == 7
    assert np.array_equal(how.halved(trimmed), frames[:7:2])
    assert np.array_equal(trimmed[how.compared], frames[1:7:2])
    for kernel in ("linear", "cubic", "Lanczos"):
        np.testing.assert_allclose(how.interpolated(frames[:7:2], (7, 3, 3), kernel)[::2], frames[:7:2], atol=1e-9)


def test_errors_of_gradients_are_relative_to_those_of_the_signal(tool):
    y, x = np.mgrid[:20, :30]
    truth = (2.0 * x + y)[..., None]
    assert tool.gradient_error(truth + 7, truth, (0, 1)) == pytest.approx(0, abs=1e-12)
    # 3x + y has an error of 1 beside a gradient of (2, 1)
    assert tool.gradient_error((3.0 * x + y)[..., None], truth, (0, 1)) == pytest.approx(1 / math.sqrt(5))
    assert math.isnan(tool.gradient_error(truth, np.zeros_like(truth), (0, 1)))


def test_the_middle_is_cut_out(tool):
    values = np.arange(7 * 9).reshape(7, 9, 1)
    assert np.array_equal(tool.middle(values, [3, 5]), values[2:5, 2:7])
    assert np.array_equal(tool.middle(values, []), values)
    assert np.array_equal(tool.middle(values, [8]), values[:, :8])
    with pytest.raises(inrkit.DataError, match="--crop has 3 numbers"):
        tool.middle(values, [1, 2, 3])


def test_it_prints_a_table(tool, tmp_path, capsys, monkeypatch):
    Image.fromarray(sample_picture(32)).save(tmp_path / "a.png")
    np.save(tmp_path / "v.npy", np.random.default_rng(0).random((5, 6, 8)).astype(np.float32))
    recipe = "small: network.hidden_features=8 train.steps=2 device=cpu train.compile=never"
    monkeypatch.setattr(sys, "argv", ["between.py", str(tmp_path / "a.png"), "--crop", "20", "--recipe", recipe])
    tool.main()
    head, rule, row = capsys.readouterr().out.splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == len(tool.TITLES) + 1
    assert row.startswith("| a.png | 20×20 | small | ")
    words = tool.recipe_of(recipe + " modality=volume")[1]
    assert tool.compare(tmp_path / "v.npy", "small", words, []).shape == (4, 6, 8)


def test_a_field_that_is_exact_scores_as_its_samples_do(tool):
    # A field of a band-limited wave, rendered where the original's cells lie, is the original.
    class Wave(Ramp):
        def forward(self, coordinates):
            return torch.sin(2 * super().forward(coordinates)).sum(dim=-1, keepdim=True)

    full = [(2 * np.arange(n) + 1 - n) / n for n in (16, 24)]
    original = sum(np.sin(2 * axis) for axis in np.meshgrid(*full, indexing="ij"))[..., None]
    how = tool.halving("image", (16, 24))
    trained = inrkit.trainer(
        inrkit.CoordinateDataset(how.halved(original)),
        modality="array",
        network=Wave(),
        transform={"name": "identity"},
        selector="full",
        device="cpu",
    )
    rendered = how.rendered(trained.field, (8, 12), (16, 24))
    np.testing.assert_allclose(rendered, original, atol=1e-6)
