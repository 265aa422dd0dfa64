"""Compressed fields: as small and as good as was asked for, and like any other field."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import inrkit
from inrkit import MODALITIES, NETWORKS, ConfigError, DataError
from inrkit.evaluation.sensitivity import sensitivities
from inrkit.networks.tiles import Tiles, TilesOptions
from inrkit.signals.embeddings import EMBEDDINGS
from inrkit.training.straight_through import Grid, StraightThrough

ROWS, COLUMNS = np.mgrid[0:40, 0:48] / 16
PICTURE = (127 + 60 * np.sin(5 * COLUMNS) * np.cos(4 * ROWS) + 60 * np.sin(9 * ROWS)).astype(np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compression")
    Image.fromarray(PICTURE).save(folder / "photo.png")
    return inrkit.fit(folder / "photo.png", out=folder / "run", steps=150, log={"report": False})


def psnr(field):
    error = np.square(field.render()[..., 0].astype(float) - PICTURE).mean()
    return 10 * np.log10(255**2 / error)


def test_a_compressed_field_is_a_field_like_any_other(run, tmp_path):
    done = inrkit.compress(run, tmp_path / "small.inr", bits=9)
    assert done.size == (tmp_path / "small.inr").stat().st_size <= 9 * done.parameters / 8
    assert done.bits_per_value == 8 * done.size / PICTURE.size
    field = inrkit.load(tmp_path / "small.inr")
    assert psnr(field) == pytest.approx(done.after["psnr"], abs=0.3)  # of rounded pixels
    assert field.description() == run.field.description()
    assert field.render((7, 9)).shape == (7, 9, 1)
    field.save(tmp_path / "field.safetensors")
    assert np.array_equal(inrkit.load(tmp_path / "field.safetensors").render(), field.render())


@pytest.mark.slow
def test_a_fresh_process_reads_the_same_weights(run, tmp_path):
    inrkit.compress(run, tmp_path / "small.inr", bits=9, steps=2)
    code = (
        "import sys, inrkit, numpy\nnumpy.save(sys.argv[2], inrkit.load(sys.argv[1]).network.weights.detach().numpy())"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "small.inr", tmp_path / "weights.npy"], check=True)
    weights = inrkit.load(tmp_path / "small.inr").network.weights.detach().numpy()
    assert np.load(tmp_path / "weights.npy").tobytes() == weights.tobytes()


def test_training_through_the_rounding_gains(run, tmp_path):
    plain = inrkit.compress(run, tmp_path / "plain.inr", bits=8, steps=0)
    trained = inrkit.compress(run, tmp_path / "trained.inr", bits=8)
    assert trained.size <= 8 * trained.parameters / 8
    assert trained.after["psnr"] > plain.after["psnr"] + 1
    assert (plain.steps, trained.steps) == (0, 38)


def test_the_same_request_writes_the_same_file(run, tmp_path):
    for name in ("a", "b"):
        inrkit.compress(run, tmp_path / name, bits=7, steps=3)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_quality_is_kept_by_few_bytes(run, tmp_path):
    asked = run.metrics["psnr"] - 4
    done = inrkit.compress(run, tmp_path / "small.inr", db=asked, steps=20)
    assert done.after["psnr"] >= asked
    assert inrkit.compress(run, tmp_path / "smaller.inr", size=int(0.85 * done.size), steps=20).after["psnr"] < asked
    with pytest.raises(ConfigError, match="the run itself has"):
        inrkit.compress(run, tmp_path / "none.inr", db=90)
    assert not (tmp_path / "none.inr").exists()


def test_what_a_fit_began_with_has_no_part_in_it(run, tmp_path):
    path = run.config.data.path
    later = inrkit.fit(path, out=tmp_path / "later", steps=60, init=run.folder, init_skip=["weights"])
    done = inrkit.compress(later, tmp_path / "a.inr", bits=12, steps=1)
    assert done.after["psnr"] > done.before["psnr"] - 3


def test_requests_that_cannot_be_met_are_told(run, tmp_path):
    for wrong, words in (
        ({"bits": 4, "size": 100}, "one of"),
        ({"bits": 0}, "above 0"),
        ({"size": 50}, "takes at least"),
        ({"steps": -1}, r"steps is -1; it must be in \[0, 1,000,000,000\]"),
        ({"steps": 10**24}, r"it must be in \[0, 1,000,000,000\]"),
    ):
        with pytest.raises(ConfigError, match=words):
            inrkit.compress(run, tmp_path / "none.inr", **wrong)
    with pytest.raises(ConfigError, match="needs the signal"):
        inrkit.compress(run.field, tmp_path / "none.inr", db=20)
    with pytest.raises(DataError, match="is not the signal"):
        inrkit.compress(run, tmp_path / "none.inr", signal=PICTURE[::-1])
    for given in ({"signal": PICTURE}, {"steps": 5}):
        with pytest.raises(ConfigError, match="give its run's folder"):
            inrkit.compress(run.field, tmp_path / "none.inr", **given)
    assert not list(tmp_path.iterdir())
    assert inrkit.compress(run.field, tmp_path / "large.inr", bits=1e308).size > 0


def test_a_run_without_a_field_is_told_before_its_signal_is_read(run, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    shutil.copy(run.folder / "config.yaml", tmp_path / "run")
    monkeypatch.setattr("inrkit.runs.compression.read_signal", lambda config: pytest.fail("the signal was read"))
    with pytest.raises(DataError, match=r"field\.safetensors"):
        inrkit.compress(tmp_path / "run", tmp_path / "none.inr")


def test_what_a_file_is_made_from_is_not_written_over(run, tmp_path):
    own = [run.folder / name for name in ("field.safetensors", "config.yaml", "result.json", "checkpoint.pt")]
    for name in (run.config.data.path, *own):
        before = Path(name).read_bytes()
        with pytest.raises(ConfigError, match="would be lost"):
            inrkit.compress(run, name, bits=9, steps=0)
        with pytest.raises(ConfigError, match="would be lost"):
            inrkit.compress(run.folder / "field.safetensors", name, bits=9)
        assert Path(name).read_bytes() == before
    inrkit.compress(run, tmp_path / "a.inr", bits=9, steps=0)
    inrkit.compress(run, tmp_path / "a.inr", bits=9, steps=0)  # what was made from them may be
    with pytest.raises(ConfigError, match="would be lost"):
        inrkit.compress(tmp_path / "a.inr", tmp_path / "a.inr")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ConfigError, match="a pipe or a device"):
            inrkit.compress(run, tmp_path / "pipe")


def test_a_field_alone_is_rounded_as_it_is(run, tmp_path):
    done = inrkit.compress(run.field, tmp_path / "a.inr", bits=10)
    again = inrkit.compress(tmp_path / "a.inr", tmp_path / "b.inr", bits=10)
    assert (done.before, done.after, done.steps) == ({}, {}, 0)
    assert psnr(inrkit.load(tmp_path / "b.inr")) > run.metrics["psnr"] - 3
    assert again.size <= 10 * again.parameters / 8


def test_a_run_in_memory_is_given_its_signal_again(tmp_path):
    sound = np.sin(np.arange(600) / 5).astype(np.float32)
    run = inrkit.fit(sound, steps=20)
    assert inrkit.compress(run, tmp_path / "a.inr", size=1000, signal=sound).after["psnr"] > 0
    with pytest.raises(DataError, match="give"):
        inrkit.compress(run, tmp_path / "a.inr")


def test_a_network_given_in_python_stays_as_it_is(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    run = inrkit.fit(PICTURE, network=network, steps=3)
    before = [parameter.clone() for parameter in network.parameters()]
    done = inrkit.compress(run, tmp_path / "a.inr", size=1000, signal=PICTURE)
    assert done.steps == 0
    assert all(torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True))
    other = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    field = inrkit.load(tmp_path / "a.inr", network=other)
    assert np.abs(field.render().astype(float) - run.field.render()).max() <= 1


@pytest.mark.parametrize("name", [name for name in NETWORKS.names() if name != "tiles"])
def test_every_network_can_be_compressed(name, tmp_path):
    known = {"hidden_features": 8, "hidden_layers": 1, "levels": 2, "table_bits": 6}
    fields = NETWORKS.get(name).Options.__dataclass_fields__
    options = {key: value for key, value in known.items() if key in fields}
    run = inrkit.fit(PICTURE[:12, :12], base="image-single", network={"name": name, **options}, steps=2)
    inrkit.compress(run.field, tmp_path / "a.inr", size=1000 + 4 * run.result["parameters"])
    coordinates = np.random.default_rng(0).uniform(-1, 1, (30, 2))
    assert np.abs(inrkit.load(tmp_path / "a.inr")(coordinates) - run.field(coordinates)).max() < 1


@pytest.mark.slow
@pytest.mark.parametrize("single", [False, True], ids=["tiles", "single"])
@pytest.mark.parametrize("name", ["image", "audio", "volume", "video", "shape"])
def test_every_kind_of_signal_is_compressed_and_read_back(name, single, tmp_path):
    ramp = np.random.default_rng(0).random((4, 20, 24, 1)).cumsum(axis=1).astype(np.float32)
    signals = {"image": ramp[0], "audio": ramp.ravel()[:900], "volume": ramp[..., 0], "video": ramp}
    signal = signals.get(name, tmp_path / "shape.obj")
    if name == "shape":
        plugin = MODALITIES.get("shape")
        plugin(plugin.Options()).sample(signal)
    small = {"hidden_features": 8, "hidden_layers": 1}
    network = {"name": "siren", **small} if single else {"each": {"name": "siren", **small}, "parameters": 2000}
    run = inrkit.fit(
        signal,
        modality={
            "name": name,
            **({"count": 3000, "resolution": 12, "export_resolution": 12} if name == "shape" else {}),
        },
        base=f"{name}-single" if single else name,
        network=network,
        steps=5,
        out=tmp_path / "run",
        log={"report": False},
    )
    size = 2000 + run.result["parameters"]
    done = inrkit.compress(run, tmp_path / "a.inr", size=size, steps=3, signal=signal)
    field = inrkit.load(tmp_path / "a.inr")
    assert done.size <= size and np.isfinite(done.after["psnr"])
    coordinates = np.random.default_rng(0).uniform(-1, 1, (40, field.dimensions))
    assert np.array_equal(inrkit.load(tmp_path / "a.inr")(coordinates), field(coordinates))
    assert field.units == run.field.units and np.array_equal(field.affine, run.field.affine)


def test_what_is_not_known_stays_so(tmp_path):
    picture = PICTURE.astype(np.float32)
    picture[5:20, 10:30] = np.nan
    run = inrkit.fit(picture, steps=2)
    inrkit.compress(run.field, tmp_path / "a.inr", size=4000)
    assert inrkit.load(tmp_path / "a.inr").metadata == run.field.metadata


def test_what_reads_and_writes_the_files_is_an_extra(run, tmp_path, monkeypatch):
    inrkit.compress(run.field, tmp_path / "a.inr", size=4000)
    monkeypatch.setitem(sys.modules, "constriction", None)
    for call in (lambda: inrkit.load(tmp_path / "a.inr"), lambda: inrkit.compress(run, tmp_path / "b.inr")):
        with pytest.raises(ConfigError, match=r"pip install 'inrkit\[compress\]'"):
            call()


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor([3.0]))
        self.offset = torch.nn.Parameter(torch.tensor([2.0]))

    def forward(self, coordinates):
        return self.factor * coordinates + self.offset


def test_sensitivities_are_root_mean_square_derivatives():
    identity = EMBEDDINGS.get("identity")
    found = sensitivities(Line(), identity(identity.Options(), 1))
    (size, factor), (_, offset) = found["factor"][0], found["offset"][0]
    # Of Σ ±x and Σ ±1 over N points, whose mean squares are N/3 and N; four draws of signs tell them roughly.
    assert size == 1
    assert 0.1 < factor < 2 and 0.2 < offset < 3
    tiles = Tiles(TilesOptions(counts=[4, 4], lattice=[40, 40]), 2, 3)
    groups = sensitivities(tiles, identity(identity.Options(), 2))["weights"]
    assert [size for size, _ in groups] == tiles.widths
    assert groups[-1][1] == pytest.approx(1, rel=0.3)  # of the last biases, which are added to the values


def test_updates_reach_the_weights_before_their_rounding():
    parameter = torch.nn.Parameter(torch.tensor([0.24, -0.9]))
    grid = Grid(torch.tensor(0.5), torch.zeros(1))
    rounding = StraightThrough({"w": parameter}, {"w": grid})
    rounding.on_start(None)
    assert parameter.tolist() == [0.0, -1.0]
    with torch.no_grad():
        parameter += torch.tensor([0.1, 0.3])  # a step from the rounded weights
    rounding.on_step(None, 1)
    assert rounding.exact["w"].tolist() == pytest.approx([0.34, -0.6])
    assert parameter.tolist() == [0.5, -0.5]
    # 0.6 steps and more go away from 0, because numbers near 0 cost least.
    assert grid.numbers(torch.tensor([0.29, 0.31, -0.79, -0.81])).tolist() == [0, 1, -1, -2]
