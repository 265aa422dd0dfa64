"""Small pictures of a network in training, against what is known of them otherwise."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

import inrkit
from inrkit.modalities.image import sample_picture
from inrkit.runs import drawing
from inrkit.runs.preview import _EYE, _PAPER, Pace, Preview, _lit
from inrkit.training.member import Listener

SMALL = {"network": {"name": "siren", "hidden_features": 16, "hidden_layers": 1}, "quiet": True, "objective": "mse"}


class Draws(Listener):
    """Draws the last moment of a training."""

    def __init__(self, looks, longest, **options):
        self.arguments, self.options = (looks, longest), options

    def on_end(self, member):
        self.pixels = Preview(member, *self.arguments, **self.options).pixels()


def drawn(signal, looks, longest, steps=3, **options):
    draws = Draws(looks, longest, **options)
    run = inrkit.fit(signal, steps=steps, callbacks=[draws], **SMALL)
    return draws.pixels, run.field


def in_bytes(values, low=0.0, high=255.0):
    return np.clip((values.astype(np.float64) - low) / (high - low) * 255 + 0.5, 0, 255).astype(np.uint8)


def near(one, other):
    assert one.shape == other.shape
    assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


def test_a_picture_is_what_the_field_renders():
    photo = sample_picture(32)[:, :24]
    pixels, field = drawn(photo, "picture", 16)
    near(pixels, in_bytes(field.render((16, 12), dtype=np.float32)))
    smooth, field = drawn(photo, "picture", 16, smooth=True)
    whole = field.render((32, 24), dtype=np.float32)
    near(smooth, in_bytes(whole.reshape(16, 2, 12, 2, 3).mean(axis=(1, 3))))


def test_a_volume_is_its_three_middle_planes_and_a_video_its_middle_frame():
    values = np.random.default_rng(0).random((8, 6, 10, 1)).astype(np.float32)
    dataset = inrkit.CoordinateDataset(values, affine=np.diag([4.0, 3.0, 5.0, 0.0])[:3])
    pixels, field = drawn(dataset, "slices", 60)
    low, high = np.quantile(values, (0.002, 0.998))
    volume = in_bytes(field.render(dtype=np.float32)[..., 0], low, high)
    assert pixels.shape == (8, 6 + 6 + 10 + 6 + 10, 1)
    near(pixels[:, :6, 0], volume[:, :, 5])
    near(pixels[:, 12:22, 0], volume[:, 3])
    near(pixels[1:7, 28:, 0], volume[4])
    frame, field = drawn(dataset, "frames", 60)
    near(frame[..., 0], volume[4])


def test_a_surface_covers_what_a_ball_covers():
    cells, side, radius = 48, 160, 0.6
    axis = (2 * torch.arange(cells) + 1 - cells) / cells
    ball = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt() - radius
    pixels = _lit(ball[None, None], side)
    covered = (pixels != np.array(_PAPER)).any(axis=-1)
    # From a distance d, a ball of radius r is seen under asin(r / d); the picture's half side under 16°.
    disc = math.tan(math.asin(radius / math.hypot(*_EYE))) / math.tan(math.radians(16)) * side / 2
    assert covered.sum() == pytest.approx(math.pi * disc**2, rel=0.02)
    rows, columns = covered.nonzero()
    assert (rows.mean(), columns.mean()) == pytest.approx((side / 2, side / 2), abs=1)
    assert (_lit(torch.ones(1, 1, 8, 8, 8), 16) == np.array(_PAPER)).all()


def test_a_spectrum_shows_a_tone_where_it_is():
    rate, tone = 8000, 1000
    levels = drawing.spectrum(np.sin(2 * np.pi * tone * np.arange(rate) / rate), rate)
    frequencies = np.linspace(0, rate / 2, len(levels))
    assert frequencies[levels.mean(axis=1).argmax()] == pytest.approx(tone, abs=rate / 256)


def test_a_sound_is_its_waveform_above_its_spectrum():
    from inrkit.runs.preview import _WAVE

    tone = np.sin(2 * np.pi * 200 * np.arange(4000) / 8000).astype(np.float32)[:, None]
    pixels, _ = drawn(inrkit.CoordinateDataset(tone, affine=np.array([[0.25, 0.25]])), "sound", 200)
    assert pixels.shape == (50 + 80, 200, 3)
    line = (pixels[:50] == np.array(_WAVE)).all(axis=-1)
    assert line.any(axis=0).all()


@pytest.mark.parametrize("dimensions", [1, 2, 4])
def test_free_points_and_many_axes_are_drawn_too(dimensions):
    points = np.random.default_rng(0).uniform(-1, 1, (50, dimensions)).astype(np.float32)
    draws = Draws("", 40)
    inrkit.fit(points=points, values=points[:, :1], steps=2, callbacks=[draws], **SMALL)
    assert draws.pixels.dtype == np.uint8 and max(draws.pixels.shape) == 40


def test_free_points_of_a_plane_are_drawn_as_plots_have_them():
    points = np.random.default_rng(0).uniform(-1, 1, (400, 2)).astype(np.float32)
    draws = Draws("", 20)
    run = inrkit.fit(points=points, values=points[:, :1] + 3 * points[:, 1:], steps=60, callbacks=[draws], **SMALL)
    light = draws.pixels.astype(float).sum(axis=-1)
    corners = np.array([[-0.95, 0.95], [0.95, 0.95], [-0.95, -0.95], [0.95, -0.95]], dtype=np.float32)
    values = run.field(corners)[:, 0]
    drawn = np.array([light[0, 0], light[0, -1], light[-1, 0], light[-1, -1]])
    assert np.array_equal(np.argsort(values), np.argsort(drawn))
    assert np.argmax(values) == 1


def test_a_pace_keeps_to_its_share(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    pace = Pace(0.01, 0.5)
    assert pace.due
    with pace.spent():
        now[0] += 3
    now[0] += 0.51
    assert pace.due  # the first time does not count
    with pace.spent():
        now[0] += 0.02
    now[0] += 1.99
    assert not pace.due
    now[0] += 0.02
    assert pace.due
    with pace.spent():
        pass
    now[0] += 0.49
    assert not pace.due


def test_a_cell_shows_a_picture_beside_its_bar(monkeypatch):
    pytest.importorskip("IPython")
    from inrkit.runs import display

    shown = []

    class Handle:
        def update(self, content):
            shown.append(content.data)

    def put(content, display_id):
        shown.append(content.data)
        return Handle()

    monkeypatch.setattr(display, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", put)
    inrkit.fit(Image.fromarray(sample_picture(32)), steps=4, **{**SMALL, "quiet": False})
    bars, pictures = ([text for text in shown if text.startswith(start)] for start in ("<progress", "<img"))
    assert 'value="0.2500"' in bars[0] and 'value="1.0000"' in bars[-1] and "step 4" in bars[-1]
    assert len(pictures) == 2 and pictures[0] != pictures[1] and "step 4" in pictures[1]
