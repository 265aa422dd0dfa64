"""Films of a fit: they grow with it, and stay small."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import inrkit
from inrkit.errors import ConfigError
from inrkit.reports import film as films
from inrkit.reports.film import film

SMALL = {"network": {"name": "siren", "hidden_features": 16, "hidden_layers": 1}, "every": 2, "quiet": True}
SMALL |= {"report": False, "steps": 6}


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_a_film_ends_with_the_fit_and_changes_nothing_of_it(photo, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(films, "_SHARE", 1e9)  # a frame a step, whatever it takes
    run = inrkit.fit(photo, out=tmp_path / "run", film=suffix, **SMALL)
    plain = inrkit.fit(photo, out=tmp_path / "plain", **SMALL)
    one, other = (each.field.network.state_dict() for each in (plain, run))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with Image.open(run.folder / f"film.{suffix}") as opened:
        assert opened.n_frames == 6 and opened.size == (480, 480 + 22)
        opened.seek(5)
        last = np.asarray(opened.convert("RGB"), dtype=np.float64)[:480]
        assert opened.info["duration"] == 1600 and opened.info["loop"] == 0
    fit = np.asarray(Image.open(run.folder / "reconstruction.png"), dtype=np.float64)
    assert np.abs(last.reshape(32, 15, 32, 15, 3).mean(axis=(1, 3)) - fit).mean() < 4
    assert not list(plain.folder.glob("film.*"))


def test_an_mp4_needs_av_and_says_so_before_anything_is_made(photo, tmp_path, monkeypatch):
    frames = [(np.full((50, 60, 3), 40 * number, np.uint8), f"step {number}") for number in range(5)]
    av = pytest.importorskip("av", reason="needs av; pip install 'inrkit[video]'")
    with av.open(io.BytesIO(film(frames, "mp4"))) as opened:
        shown = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
    assert len(shown) == 4 + 20 and shown[0].shape == (8 * 50 + 22, 8 * 60, 3)
    for number in range(5):
        assert np.abs(shown[number][100:300, 100:300].astype(int) - 40 * number).max() < 8
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"log\.film=mp4 needs: pip install 'inrkit\[video\]'; or choose"):
        inrkit.fit(photo, out=tmp_path / "run", film="mp4", **SMALL)
    assert not (tmp_path / "run").exists()


def test_frames_become_smaller_until_the_film_fits():
    noise = np.random.default_rng(0).integers(0, 256, (2, 480, 360, 3), dtype=np.uint8)
    frames = [(pixels, "step 1   PSNR 30 dB   SSIM 0.9") for pixels in noise]
    whole = film(frames, "gif")
    part = film(frames, "gif", most=len(whole) // 2)
    assert len(part) <= len(whole) // 2
    assert Image.open(io.BytesIO(part)).size == (252, 336 + 22)


def test_there_are_never_more_frames_than_a_bound(monkeypatch, photo, tmp_path):
    monkeypatch.setattr(films, "_SHARE", 1e9)
    monkeypatch.setattr(films, "_FRAMES", 4)
    run = inrkit.fit(photo, out=tmp_path / "run", film="webp", **{**SMALL, "steps": 40})
    with Image.open(run.folder / "film.webp") as opened:
        assert 2 <= opened.n_frames <= 5


def test_the_last_line_of_a_film_tells_its_step_once_though_nothing_is_measured(photo, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(films, "film", lambda frames, suffix: lines.extend(text for _, text in frames) or b"a film")
    inrkit.fit(photo, out=tmp_path / "run", film="gif", metrics=[], **SMALL)
    assert lines[-1].split("   ")[1:] == ["step 6"]


def test_a_film_stays_where_a_run_that_is_done_is_resumed(photo, tmp_path, monkeypatch):
    monkeypatch.setattr(films, "_SHARE", 1e9)
    run = inrkit.fit(photo, out=tmp_path / "run", film="gif", **SMALL)
    before = (run.folder / "film.gif").read_bytes()
    inrkit.fit(run.folder, resume=True, quiet=True)
    assert (run.folder / "film.gif").read_bytes() == before


def test_a_run_that_was_killed_before_its_film_was_written_has_one_of_its_end(photo, tmp_path):
    run = inrkit.fit(photo, out=tmp_path / "run", film="gif", **SMALL)
    (run.folder / "film.gif").unlink()
    (run.folder / "result.json").unlink()
    inrkit.fit(run.folder, resume=True)
    with Image.open(run.folder / "film.gif") as opened:
        assert getattr(opened, "n_frames", 1) == 1


def test_a_page_shows_its_film(photo, tmp_path):
    run = inrkit.fit(photo, out=tmp_path / "run", film="gif", **{**SMALL, "report": True})
    assert "data:image/gif;base64," in (run.folder / "report.html").read_text()
