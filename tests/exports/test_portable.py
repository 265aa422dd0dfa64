"""ONNX and torch programs give a field's values, where inrkit is not."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import inrkit
from inrkit import ConfigError
from inrkit.exports.portable import Portable

IN_TORCH = """
import sys, numpy as np, torch
program = torch.export.load(sys.argv[1]).module()
for count in (1, 7, 10_000):
    places = np.load(sys.argv[2])[:count]
    np.save(f"{sys.argv[3]}-{count}.npy", program(torch.from_numpy(places)).detach().numpy())
assert "inrkit" not in sys.modules
"""
IN_ONNX = """
import sys, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
for count in (1, 7, 10_000):
    places = np.load(sys.argv[2])[:count]
    np.save(f"{sys.argv[3]}-{count}.npy", session.run(None, {"coordinates": places})[0])
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("kind", ["image", "video"])
def test_the_traceable_module_equals_the_field_also_where_tiles_blend(fits, kind):
    field = fits.fitted(kind)
    places = fits.places_of(field, 4000, 1.01)
    values = Portable(field)(torch.from_numpy(places)).detach().numpy()
    np.testing.assert_allclose(values, field(places, physical=True), atol=1e-5 * 255)


@pytest.mark.parametrize("base", ["image", "image-single"])
def test_a_module_that_moves_leaves_its_field_where_it_is(base):
    field = inrkit.fit(np.zeros((9, 9), np.uint8) + np.arange(9, dtype=np.uint8), base=base, steps=1).field
    Portable(field).to("meta")
    assert {each.device.type for each in (*field.network.parameters(), *field.network.buffers())} == {"cpu"}
    assert field([[0.0, 0.0]]).shape == (1, 1)


def test_traceable_tiles_are_those_of_the_tiling(fits):
    network = fits.fitted("video").network
    positions = torch.rand(500, 3, dtype=torch.float64) * torch.tensor(network.tiling.lattice)
    place, at, share = Portable(fits.fitted("video")).network.cover(positions)
    _, rows, columns = network.tiling.counts
    tile = at @ torch.tensor([rows * columns, columns, 1], dtype=torch.float64)
    expected = network.tiling.cover(positions)

    def table(place, tile, share):
        return {(int(one), int(two)): float(three) for one, two, three in zip(place, tile, share, strict=True)}

    assert table(place, tile, share) == table(*expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "kind", "network"),
    [
        ("pt2", "image", "one"),
        ("pt2", "video", "tiles"),
        ("onnx", "audio", "long"),
        ("onnx", "video", "one"),
        ("onnx", "volume", "tiles"),
        ("onnx", "image", "wire"),
    ],
)
def test_a_program_gives_the_fields_values_in_a_process_without_inrkit(fits, suffix, kind, network, tmp_path):
    field = fits.long_sound() if network == "long" else fits.fitted(kind, network)
    told = inrkit.export(field, tmp_path / f"field.{suffix}")
    assert "of the range at most" in told
    places = fits.places_of(field, 10_000)
    np.save(tmp_path / "places.npy", places)
    code = IN_TORCH if suffix == "pt2" else IN_ONNX
    arguments = [tmp_path / f"field.{suffix}", tmp_path / "places.npy", tmp_path / "values"]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], check=True, cwd=tmp_path)
    expected = field(places, physical=True)
    low, high = field.value_range or (expected.min(), expected.max())
    for count in (1, 7, 10_000):
        values = np.load(tmp_path / f"values-{count}.npy")
        np.testing.assert_allclose(values, expected[:count], atol=2e-5 * (high - low))


def test_what_cannot_be_exported_is_refused_in_a_line(fits, tmp_path):
    field = fits.fitted("image", "one")
    with pytest.raises(
        ConfigError, match=r"field\.obj does not say what to export; its name must end in one of \.glsl"
    ):
        inrkit.export(field, tmp_path / "field.obj")
    with pytest.raises(ConfigError, match="is not a folder; make it first"):
        inrkit.export(field, tmp_path / "nowhere" / "field.html")
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_a_network_named_by_its_module_is_exported_if_that_is_trusted(tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text("from inrkit.networks import Siren\n\nclass Own(Siren):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = inrkit.fit(np.zeros((8, 8), np.uint8), network="siren", steps=1, out=tmp_path / "run", log={"report": False})
    run.field.names["network"] = "own_network:Own"
    run.field.save(run.folder / "field.safetensors")
    again = inrkit.Run(run.folder)
    with pytest.raises(ConfigError, match=r"own_network:Own.*trust"):
        inrkit.export(again, tmp_path / "own.glsl")
    with pytest.raises(ConfigError, match=r"GLSL knows siren, .* not the network 'own_network:Own'"):
        inrkit.export(again, tmp_path / "own.glsl", trust=True)
