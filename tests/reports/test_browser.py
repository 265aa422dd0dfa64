"""Pages in a real browser: no complaints, no requests, and everything that moves moves."""

import gzip
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import inrkit
from inrkit.modalities.audio import sample_melody
from inrkit.modalities.image import sample_picture
from inrkit.modalities.volume import sample_volume
from inrkit.reports.study_page import write_study_page

_SPEC = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browser = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(browser)

NAME = "<script>alert(1)</script>.png"
SMALL = {"network": {"hidden_features": 16, "hidden_layers": 1}, "steps": 12, "every": 4, "quiet": True}
WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each modality, by its name."""
    folder = tmp_path_factory.mktemp("runs")
    picture = sample_picture(48)
    (folder / "with <").mkdir()
    # A file's name cannot hold a slash; the page shows what is left of the tag.
    path = folder / "with <" / NAME.replace("/", "∕")
    Image.fromarray(picture).save(path)
    np.save(folder / "volume.npy", sample_volume(12))
    frames = [Image.fromarray(np.roll(picture, 3 * shift, axis=1)) for shift in range(4)]
    frames[0].save(folder / "video.gif", save_all=True, append_images=frames[1:], duration=100)
    import soundfile

    soundfile.write(folder / "sound.wav", sample_melody()[:4000], 8000)
    places = np.random.default_rng(0).uniform(0, 1, (60, 2))
    table = np.column_stack([10 * places, places.sum(axis=1)])
    np.savetxt(folder / "points.csv", table, delimiter=",", header="east,north,height", comments="")
    from inrkit.modalities.shape import Shape, ShapeOptions

    Shape(ShapeOptions()).sample(folder / "shape.ply")
    targets = {
        "image": (path, {"selector": {"name": "evos", "ratio": 0.3, "least": 1}, "objective": "mse"}),
        "audio": (folder / "sound.wav", {"selector": {"name": "uniform", "ratio": 0.3, "least": 1}}),
        "shape": (folder / "shape.ply", {"modality": {"resolution": 16, "export_resolution": 24}}),
        "volume": (folder / "volume.npy", {}),
        "video": (folder / "video.gif", {"film": "webp"}),
        "array": (folder / "points.csv", {}),
    }
    return {name: inrkit.fit(path, out=folder / name, **SMALL, **more) for name, (path, more) in targets.items()}


@pytest.fixture(scope="module")
def study(runs, tmp_path_factory):
    """A study of three runs, of which one failed."""
    folder = tmp_path_factory.mktemp("study")
    rows = []
    for number, ratio in enumerate((0.2, 0.8)):
        out = folder / "runs" / f"r-{number}"
        run = inrkit.fit(
            runs["image"].config.data.path,
            out=out,
            selector={"name": "uniform", "ratio": ratio},
            objective="mse",
            **SMALL,
        )
        rows.append(
            {"id": str(number), "status": "done", "phase": "main", "selector.ratio": ratio, **run.metrics}
            | {"seconds": run.result["seconds"]["train"], "steps": 12, "error": None, "folder": f"runs/r-{number}"}
        )
    failed = {"id": "2", "status": "failed", "phase": "main", "selector.ratio": 0.5, "seconds": None, "steps": None}
    rows.append({**failed, "error": "training diverged: <b>lower optimizer.lr</b>", "folder": "runs/r-2"})
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return write_study_page(folder)


def unmoved(page):
    assert page.complaints() == []
    assert [address for address in page.requests() if not address.startswith("file:")] == []
    assert page.run("document.documentElement.scrollWidth") <= page.run("innerWidth")


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["image", "audio", "shape", "volume", "video", "array", "study"])
def test_a_page_asks_for_nothing_and_complains_of_nothing(runs, study, kind, width, dark):
    path = study if kind == "study" else runs[kind].folder / "report.html"
    with browser.opened(path, width, dark=dark) as page:
        assert page.run("document.documentElement.dataset.theme") == ("dark" if dark else "light")
        assert page.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.run("[...document.images].every(image => image.hasAttribute('alt'))")
        unmoved(page)


def test_the_slider_moves_between_original_and_fit(runs):
    from selenium.webdriver.common.keys import Keys

    with browser.opened(runs["image"].folder / "report.html") as page:
        assert page.find("h1").text == NAME.replace("/", "∕")
        slider = page.find("[data-cut]")
        for _ in range(10):
            slider.send_keys(Keys.ARROW_RIGHT)
        assert page.run("document.querySelector('[data-compare]').style.getPropertyValue('--at')") == "55%"
        page.find("[data-mode=errors]").click()
        assert page.run("document.querySelector('[data-layer=base]').alt").startswith("The error")
        assert page.find("[data-scale]").is_displayed()
        page.find("[data-zoom=in]").click()
        assert "scale(2)" in page.run("document.querySelector('.stage').style.transform")
        assert page.run("document.querySelectorAll('.js-plotly-plot').length") == 4
        page.find("[data-over=seconds]").click()
        page.wait("document.querySelector('[data-curve=loss]').layout.xaxis.title.text == 'seconds of training'")
        page.find("#theme").click()
        assert page.run("document.documentElement.dataset.theme") == "dark"
        unmoved(page)


def test_players_play_one_at_a_time(runs):
    with browser.opened(runs["audio"].folder / "report.html") as page:
        page.wait("[...document.querySelectorAll('audio')].every(player => Math.abs(player.duration - 0.5) < 0.01)")
        page.run("document.querySelectorAll('audio')[0].play()")
        page.wait("!document.querySelectorAll('audio')[0].paused")
        page.run("document.querySelectorAll('audio')[1].play()")
        page.wait("document.querySelectorAll('audio')[0].paused")
        unmoved(page)


def test_meshes_turn_together(runs):
    from selenium.webdriver.common.keys import Keys

    image = "[...document.querySelectorAll('.canvas canvas')].map(canvas => canvas.toDataURL())"
    with browser.opened(runs["shape"].folder / "report.html") as page:
        before = page.run(image)
        page.find("#surface-original").send_keys(Keys.ARROW_RIGHT)
        after = page.run(image)
        assert len(before) == 2
        assert all(one != other for one, other in zip(before, after, strict=True))
        unmoved(page)


def test_slices_scroll_together(runs):
    from selenium.webdriver.common.keys import Keys

    places = "viewers.map(viewer => [...viewer.scene.crosshairPos].map(place => Math.round(12 * place - 0.5)))"
    with browser.opened(runs["volume"].folder / "report.html") as page:
        assert page.run(places) == [[6, 6, 6]] * 2
        page.find("[data-axis='1']").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
        assert page.run(places) == [[6, 8, 6]] * 2
        page.find("[data-slice=errors]").click()
        page.wait("document.querySelector('[data-slice-name]').textContent == 'error'")
        unmoved(page)


def test_frames_play(runs):
    with browser.opened(runs["video"].folder / "report.html") as page:
        first = page.run("document.querySelector('[data-frame=fit]').src")
        page.find("[data-play]").click()
        page.wait(f"document.querySelector('[data-frame=fit]').src != {json.dumps(first)}")
        unmoved(page)


@pytest.mark.slow
def test_the_field_between_points_lies_where_the_points_do(runs):
    with browser.opened(runs["array"].folder / "report.html") as page:
        plane = page.run("document.querySelector('[data-plot=plane]').layout.images[0]")
        low, high = (runs["array"].field.affine[:, :2].diagonal() * side for side in (-1, 1))
        middle = runs["array"].field.affine[:, 2]
        assert (plane["x"], plane["y"]) == pytest.approx((middle[0] + low[0], middle[1] + high[1]))
        assert (plane["sizex"], plane["sizey"]) == pytest.approx(tuple(high - low))
        axes = "document.querySelector('[data-plot=plane]').layout"
        assert [page.run(f"{axes}.{axis}.title.text") for axis in ("xaxis", "yaxis")] == ["east", "north"]
        unmoved(page)


def test_a_study_is_sorted_filtered_and_leads_to_its_runs(study):
    shown = (
        "[...document.querySelectorAll('table.sortable tbody tr')].filter(row => !row.hidden).map(row => row.innerText)"
    )
    with browser.opened(study) as page:
        heads = page.driver.find_elements("css selector", "table.sortable th button")
        (psnr,) = (head for head in heads if "PSNR" in head.text)
        psnr.click()
        values = [re.findall(r"\d+\.\d+", row) for row in page.run(shown)]
        numbers = [float(found[1]) for found in values[:2]]
        assert numbers == sorted(numbers, reverse=True)
        assert "failed" in page.run(shown)[2]
        psnr.click()
        assert page.find("th[aria-sort]").get_attribute("aria-sort") == "ascending"
        page.find("[data-filter]").send_keys("failed")
        assert len(page.run(shown)) == 1
        assert "<b>lower optimizer.lr</b>" in page.find("#failures + ul").text
        page.find("[data-filter]").clear()
        page.run("document.querySelector('[data-filter]').dispatchEvent(new Event('input'))")
        page.find("table.sortable a").click()
        page.wait("'ready' in document.documentElement.dataset")
        assert page.find("h1").text == NAME.replace("/", "∕")
        unmoved(page)


@pytest.mark.slow
def test_all_jobs_of_a_large_study_are_sorted_and_found_though_few_are_laid_out(tmp_path):
    rows = [
        {"id": f"{number}", "status": "done", "phase": "main", "data.path": f"p{number}.png", "seconds": float(number)}
        | {"steps": 9, "error": None, "folder": f"runs/r-{number}"}
        for number in range(1000)
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with browser.opened(write_study_page(tmp_path)) as page:
        laid_out = "document.querySelectorAll('table.sortable tbody tr').length"
        assert page.run(laid_out) == 200
        assert page.find("[data-count]").text == "1,000 of 1,000, the first 200 below"
        page.find("[data-more]").click()
        assert page.run(laid_out) == 800
        (seconds,) = (head for head in page.driver.find_elements("css selector", "th button") if "sec" in head.text)
        seconds.click()
        seconds.click()
        assert "run 1000" in page.find("table.sortable tbody tr").text
        page.find("[data-filter]").send_keys("p777.png")
        assert page.run(laid_out) == 1
        assert page.find("[data-count]").text == "1 of 1,000"
        assert not page.find("[data-more]").is_displayed()
        unmoved(page)


def test_a_page_can_be_read_without_a_browser(runs):
    text = (runs["volume"].folder / "report.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    (view,) = (view for view in data["views"] if view["kind"] == "slices")
    import base64

    nifti = gzip.decompress(base64.b64decode(view["original"]))
    assert np.frombuffer(nifti[:4], "<i4")[0] == 348
    assert np.frombuffer(nifti[40:48], "<i2").tolist() == [3, 12, 12, 12]
    volume = np.frombuffer(nifti[352:], np.uint8).reshape(12, 12, 12, order="F")
    given = sample_volume(12)
    low, high = np.quantile(given, [0.002, 0.998])
    np.testing.assert_allclose(volume, np.clip((given - low) / (high - low), 0, 1) * 255, atol=1)
