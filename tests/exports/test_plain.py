"""Fields in a browser: a page of their own, and GLSL. Both give Python's values."""

import base64
import re

import numpy as np
import pytest
import torch

import inrkit
from inrkit import ConfigError, Field
from inrkit.networks import Siren
from inrkit.signals.embeddings import Identity, IdentityOptions
from inrkit.signals.transforms import TRANSFORMS, BoxCox, MinMax, SymmetricPower

HARNESS = "harness.html"


PIXELS = """(() => {
  const canvas = document.querySelector("canvas");
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
})()"""


def near(values, expected, field, share=1e-5):
    low, high = field.value_range or (expected.min(), expected.max())
    np.testing.assert_allclose(np.reshape(values, expected.shape), expected, atol=share * (high - low))


def asked(page, places, where="gpu"):
    """Values that a page gives at physical coordinates, from the graphics card or the processor."""
    script = {"gpu": "inrkit.gpu().values(arguments[0].flat())", "cpu": "inrkit.values(arguments[0])"}[where]
    return page.driver.execute_script(f"return [...{script}]", places.tolist())


def silent(page):
    assert page.complaints() == []
    assert [address for address in page.requests() if not address.startswith("file:")] == []
    assert page.run("document.documentElement.scrollWidth") <= page.run("innerWidth")


def canvas_values(page, selector: str, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Even coordinates under random pixels of a canvas, and (n, 4) what is drawn there."""
    script = """
    const canvas = document.querySelector(arguments[0]), found = [];
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let seed = 1;
    const random = () => (seed = seed * 16807 % 2147483647) / 2147483647;
    for (let i = 0; i < arguments[1]; i++) {
      const x = Math.floor(random() * canvas.width), y = Math.floor(random() * canvas.height);
      const even = inrkit.view.under((x + 0.5) / devicePixelRatio, (y + 0.5) / devicePixelRatio);
      if (even) found.push([even, [...data.slice(4 * (y * canvas.width + x)).slice(0, 4)]]);
    }
    return found;"""
    found = page.driver.execute_script(script, selector, count)
    return np.array([even for even, _ in found]), np.array([pixel for _, pixel in found])


def test_a_page_runs_the_network_and_draws_what_python_has(fits, browser, tmp_path):
    field = fits.fitted("image")
    told = inrkit.export(field, tmp_path / "a <b>.html")
    assert "compares itself" in told
    places = fits.places_of(field)
    expected = field(places, physical=True)
    with browser.opened(tmp_path / "a <b>.html", 390, 700) as page:
        assert page.find("h1").text == "a <b>"
        near(asked(page, places), expected, field)
        near(asked(page, places, "cpu"), expected, field)
        assert "equal to Python" in page.find("#badge").text
        page.run("inrkit.view.zoomAt(3, 100, 200)")
        page.wait("inrkit.idle()")
        even, drawn = canvas_values(page, "canvas.full")
        assert len(even) > 10
        expected = field(even)
        np.testing.assert_allclose(drawn[:, :3], expected, atol=1.01)
        silent(page)


@pytest.mark.slow
def test_pages_of_every_kind_equal_python(fits, browser, tmp_path):
    for kind in fits.KINDS:
        for network in fits.NETWORKS:
            inrkit.export(fits.fitted(kind, network), tmp_path / f"{kind}-{network}.html")
    with browser.opened(tmp_path / "image-one.html", 360, 420) as page:
        for kind in fits.KINDS:
            for network in fits.NETWORKS:
                field = fits.fitted(kind, network)
                page.driver.get((tmp_path / f"{kind}-{network}.html").as_uri())
                page.wait("'ready' in document.documentElement.dataset")
                places = fits.places_of(field)
                expected = field(places, physical=True)
                near(asked(page, places), expected, field)
                near(asked(page, places, "cpu"), expected, field)
                assert max(page.run("Object.values(inrkit.differences)")) < 1e-5, kind
                silent(page)


@pytest.mark.slow
def test_without_webgl_the_processor_draws_the_same(fits, browser, tmp_path):
    fields = {"video": fits.fitted("video"), "volume": fits.fitted("volume"), "shape": fits.fitted("shape", "one")}
    for kind, field in fields.items():
        inrkit.export(field, tmp_path / f"{kind}.html")
    with browser.opened(tmp_path / "video.html", 240, 260) as page:
        for kind in fields:
            drawn = []
            for query in ("", "?cpu"):
                page.driver.get((tmp_path / f"{kind}.html").as_uri() + query)
                page.wait("'ready' in document.documentElement.dataset")
                assert page.run("inrkit.gpu() === null") == bool(query)
                page.wait("inrkit.idle()")
                drawn.append(np.array(page.run(PIXELS)))
            # At the edges of a surface a pixel may belong to it or not.
            assert (np.abs(drawn[0] - drawn[1]) > 2).mean() < 0.01, kind
            assert drawn[0].max() > 0
        assert "because the address says cpu" in page.find("#where").get_attribute("textContent")


@pytest.mark.slow
def test_a_surface_is_drawn_where_python_has_it(browser, tmp_path):
    """A ball's signed distance, made by hand of two layers, and its silhouette."""
    field = ball()
    inrkit.export(field, tmp_path / "ball.html")
    with browser.opened(tmp_path / "ball.html", 200, 300) as page:
        page.wait("inrkit.idle()")
        drawn = page.run(PIXELS)
        width, height = page.run("[document.querySelector('canvas').width, document.querySelector('canvas').height]")
        camera = page.run("inrkit.view.camera")
        alpha = np.array(drawn).reshape(height, width, 4)[..., 3] > 0
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        sides = np.stack([(2 * x - width) / min(width, height), (height - 2 * y) / min(width, height)], axis=-1)
        rays = camera["focal"] * np.array(camera["ahead"]) + sides @ np.array([camera["right"], camera["up"]])
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        eye = np.array(camera["eye"])
        reach = np.arange(0.5, 5, 0.02)
        lowest = np.full(alpha.shape, np.inf)
        for t in reach:
            places = eye + t * rays
            values = field(places.reshape(-1, 3)).reshape(alpha.shape)
            lowest = np.minimum(lowest, np.where((np.abs(places) <= 1).all(axis=-1), values, np.inf))
        known = np.abs(lowest) > 0.02
        assert (alpha == (lowest < 0))[known].mean() > 0.999
        assert 0.005 < alpha.mean() < 0.6


def ball() -> Field:
    """A field whose zeros are a closed surface around the middle."""
    torch.manual_seed(1)
    network = Siren(Siren.Options(hidden_features=8, hidden_layers=0, first_omega=2.0), 3, 1)
    with torch.no_grad():
        # -Σ cos(2 x_i) / 4 is least in the middle and rises in all directions.
        network.first.weight.zero_()
        network.first.bias.fill_(np.pi / 4)
        network.last.weight.zero_()
        for axis in range(3):
            network.first.weight[axis, axis] = 1.0
            network.last.weight[0, axis] = -0.25
        network.last.bias.fill_(0.25 * (2 + np.cos(1.0)))
    return Field(
        network,
        1,
        Identity(IdentityOptions(), 3),
        MinMax(-1.0, 1.0),
        {"network": "siren", "embedding": "identity", "transform": "minmax", "modality": "shape"},
        {},
        None,
        np.dtype(np.float32),
        None,
        np.eye(3, 4),
        {"kind": "mesh"},
    )


@pytest.mark.slow
def test_a_sound_is_computed_and_can_be_played(fits, browser, tmp_path):
    field = fits.fitted("audio")
    inrkit.export(field, tmp_path / "sound.html")
    with browser.opened(tmp_path / "sound.html") as page:
        page.wait("!document.querySelector('#play').disabled")
        samples = np.array(page.run("[...inrkit.view.samples]"))
        near(samples, field.render(dtype=np.float32), field)
        page.find("#play").click()
        page.wait("inrkit.view.cursor > 0.01")
        played = np.array(page.run("[...inrkit.view.buffer.getChannelData(0)]"))
        np.testing.assert_allclose(played, samples / 32768, atol=1e-6)
        assert page.run("inrkit.view.buffer.sampleRate") == 8000
        silent(page)


@pytest.mark.slow
def test_moments_and_slices_move(fits, browser, tmp_path):
    for kind in ("video", "volume"):
        inrkit.export(fits.fitted(kind), tmp_path / f"{kind}.html")
    move = """
    const input = document.querySelector(arguments[0]);
    input.value = arguments[1];
    input.dispatchEvent(new Event("input"));"""
    for kind, slider, axis in (("video", "[data-time]", 0), ("volume", "[data-axis='2']", 2)):
        field = fits.fitted(kind)
        with browser.opened(tmp_path / f"{kind}.html", 420, 800) as page:
            page.driver.execute_script(move, slider, 0.3)
            page.wait("inrkit.idle()")
            even, drawn = canvas_values(page, "canvas", 60)
            assert np.allclose(even[:, axis], -0.4)
            physical = even @ field.affine[:, :-1].T + field.affine[:, -1]
            expected = field(physical, physical=True)
            low, high = page.run("about.extent")
            shown = np.clip((expected - low) / (high - low), 0, 1) * 255
            lined = np.zeros(len(even), bool) if kind == "video" else np.ptp(drawn[:, :3], axis=1) > 3
            np.testing.assert_allclose(drawn[~lined, : field.channels], shown[~lined], atol=1.5)
            silent(page)


@pytest.mark.slow
def test_glsl_gives_the_fields_values_in_a_context_of_webgl2(fits, browser, tmp_path):
    from pathlib import Path

    cases = [(kind, network) for kind in fits.KINDS for network in fits.NETWORKS]
    cases += [("audio", "long")] + [
        ("image", name) for name in ("finer", "finer-gauss", "gauss", "pe-mlp", "fourier-features")
    ]
    with browser.opened(Path(__file__).with_name(HARNESS)) as page:
        for kind, network in cases:
            field = fits.long_sound() if network == "long" else fits.fitted(kind, network)
            told = inrkit.export(field, tmp_path / "field.glsl")
            text = (tmp_path / "field.glsl").read_text()
            beside = tmp_path / "field.weights.f32"
            assert ("texture" in told) == ("uniform" in text)
            weights = base64.b64encode(beside.read_bytes()).decode() if "uniform" in text else None
            places = fits.places_of(field).astype(np.float32)
            values = page.driver.execute_script(
                "return called(...arguments)", text, field.dimensions, field.channels, places.tolist(), weights
            )
            # Places in float32 are less exact than those that Python takes.
            share = {"audio": 1e-3, "long": 1e-2}.get(network if network == "long" else kind, 1e-4)
            near(values, field(places.astype(np.float64), physical=True), field, share)


@pytest.mark.slow
@pytest.mark.parametrize("each", ["finer", "gauss", "pe-mlp"])
def test_tiles_of_other_networks_and_other_transforms_run_in_a_page(fits, browser, tmp_path, each):
    slot = {"name": "tiles", "each": {"name": each, "hidden_features": 10, "hidden_layers": 1}, "counts": [3, 2]}
    field = fits.fit("image", slot)
    field.transform = {
        "finer": MinMax([0.0, 20.0, 40.0], [255.0, 200.0, 180.0]),
        "gauss": SymmetricPower(0.0, 255.0, 1.7, 3.0, 2.0),
        "pe-mlp": BoxCox(0.0, 255.0, 0.4),
    }[each]
    assert type(field.transform) in {TRANSFORMS.get(name) for name in ("minmax", "symmetric-power", "boxcox")}
    inrkit.export(field, tmp_path / "field.html")
    places = fits.places_of(field)
    with browser.opened(tmp_path / "field.html", 300, 400) as page:
        for where in ("gpu", "cpu"):
            near(asked(page, places, where), field(places, physical=True), field, 3e-5)


@pytest.mark.slow
def test_what_is_not_known_is_left_blank(browser, tmp_path):
    values = np.random.default_rng(0).uniform(0, 1, (12, 10)).astype(np.float32)
    values[3:6, 4:8] = np.nan
    np.save(tmp_path / "holes.npy", values)
    options = {"modality": "image", "network": {"name": "tiles", "counts": [3, 2]}, "steps": 3, "quiet": True}
    run = inrkit.fit(tmp_path / "holes.npy", out=tmp_path / "run", log={"report": False}, **options)
    inrkit.export(run, tmp_path / "holes.html")
    with browser.opened(tmp_path / "holes.html", 400, 500) as page:
        page.wait("inrkit.idle()")
        even, drawn = canvas_values(page, "canvas.full", 400)
        cells = np.floor((even + 1) / 2 * np.array(values.shape)).astype(int)
        hole = np.isnan(values[cells[:, 0], cells[:, 1]])
        assert hole.any() and not hole.all()
        assert ((drawn[:, 3] == 0) == hole).mean() > 0.99


def test_a_page_names_what_it_cannot_hold(fits, tmp_path):
    for suffix, what in (("html", "a page"), ("glsl", "GLSL")):
        with pytest.raises(ConfigError, match=f"{what} knows siren, .* not the network 'wire'; export .onnx or .pt2"):
            inrkit.export(fits.fitted("image", "wire"), tmp_path / f"field.{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_a_glsl_text_says_how_to_load_its_weights(fits, tmp_path):
    field = fits.fitted("audio")
    inrkit.export(field, tmp_path / "sound.glsl")
    text = (tmp_path / "sound.glsl").read_text()
    (rows,) = (int(found) for found in re.findall(r"2048 x (\d+) texels", text))
    weights = np.frombuffer((tmp_path / "sound.weights.f32").read_bytes(), "<f4").reshape(rows, 2048, 4)
    network = field.network
    tiles = len(network.tiling)
    heads = weights.reshape(-1, 4)[: 2 * tiles].reshape(tiles, 2, 4)
    np.testing.assert_array_equal(heads[:, 0, 0], network.slots)
    np.testing.assert_array_equal(heads[:, 1, 0], network.means[:, 0])
    # All parameters are there, and nothing else but zeros.
    held = weights.reshape(-1, 4)[2 * tiles :].reshape(-1)
    np.testing.assert_array_equal(np.sort(held[held != 0]), np.sort(network.weights.detach().numpy().reshape(-1)))
    assert "float field(float x): stored values, not rounded, at physical coordinates (s)." in text
