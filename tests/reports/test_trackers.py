"""Runs in the books of other programs, read back by these programs; nothing goes over a network."""

import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

import inrkit
from inrkit.errors import ConfigError
from inrkit.modalities.image import sample_picture
from inrkit.reports.trackers.base import flat

SMALL = {"network": {"name": "siren", "hidden_features": 16, "hidden_layers": 1}, "every": 2, "quiet": True}
SMALL |= {"report": False, "steps": 6}


def events(run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"images": 0, "audio": 0, "tensors": 0})
    return read.Reload()


def picture_of(event):
    import io

    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))


def logged(path):
    """The records of a file in the format of LevelDB's log: blocks of 32 KiB, fragments with a checksum, their length
    and which part of a record they are."""
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    place, parts = 7, []
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, part = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if part in (1, 4):  # a whole record, or the last part of one
            yield b"".join(parts)
            parts = []


def test_settings_are_told_by_their_full_keys():
    told = flat({"seed": 1, "train": {"steps": 6, "precision": "auto"}, "metrics": ["psnr"], "data": {"mask": None}})
    assert told == {"seed": 1, "train.steps": 6, "train.precision": "auto", "metrics": "['psnr']", "data.mask": "None"}


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_said_in_a_line_before_anything_is_made(photo, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"^log\.{name} needs: pip install 'inrkit\[{name}\]'$"):
        inrkit.fit(photo, out=tmp_path / "run", **{name: True}, **SMALL)
    assert not (tmp_path / "run").exists()


def test_tensorboard_has_numbers_pictures_and_hyperparameters(photo, tmp_path):
    run = inrkit.fit(photo, out=tmp_path / "run", tensorboard=True, **SMALL)
    read = events(run)
    psnr = read.Scalars("psnr")
    assert [each.step for each in psnr] == [2, 4, 6]
    assert [each.value for each in psnr] == pytest.approx([row["psnr"] for row in run.history], rel=1e-6)
    assert {"loss", "learning_rate", "share", "seconds", "final/psnr"} <= set(read.Tags()["scalars"])
    assert np.array_equal(picture_of(read.Images("original")[0]), sample_picture(32))
    fit = np.asarray(Image.open(run.folder / "reconstruction.png"))
    assert np.array_equal(picture_of(read.Images("fit")[0]), fit)
    assert {"error", "growing"} <= set(read.Tags()["images"])
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    kept = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(kept).session_start_info.hparams
    assert settings["train.steps"].number_value == 6 and settings["network.name"].string_value == "siren"


def test_a_fit_is_the_same_with_a_tracker_and_goes_on_with_it(photo, tmp_path):
    import torch

    class Stop(inrkit.Listener):
        def on_step(self, member, selected):
            if member.step == 3:
                member.stop()

    plain = inrkit.fit(photo, out=tmp_path / "plain", **SMALL)
    inrkit.fit(photo, out=tmp_path / "run", tensorboard=True, callbacks=[Stop()], **SMALL)
    run = inrkit.fit(photo, out=tmp_path / "run", tensorboard=True, resume=True, **SMALL)
    one, other = (each.field.network.state_dict() for each in (plain, run))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [each.step for each in events(run).Scalars("psnr")] == [2, 3, 4, 6]


@pytest.mark.slow
def test_tensorboard_has_sounds_and_meshes(tmp_path):
    import soundfile

    from inrkit.modalities.audio import sample_melody
    from inrkit.modalities.shape import Shape, ShapeOptions

    soundfile.write(tmp_path / "sound.wav", sample_melody()[:4000], 8000)
    read = events(inrkit.fit(tmp_path / "sound.wav", out=tmp_path / "sound", tensorboard=True, **SMALL))
    assert [(read.Audio(name)[0].sample_rate, read.Audio(name)[0].length_frames) for name in ("original", "fit")] == [
        (8000, 4000)
    ] * 2
    Shape(ShapeOptions()).sample(tmp_path / "shape.ply")
    modality = {"resolution": 16, "export_resolution": 24}
    run = inrkit.fit(tmp_path / "shape.ply", out=tmp_path / "shape", tensorboard=True, modality=modality, **SMALL)
    assert {f"original_{part}" for part in ("VERTEX", "FACE", "COLOR")} <= set(events(run).Tags()["tensors"])


def test_a_resumed_fit_goes_on_with_its_run_of_weights_and_biases(photo, tmp_path, monkeypatch):
    begun = []

    class Run:
        def __init__(self, given):
            self.id, self.summary = given["id"] or f"run{len(begun)}", {}

        log = finish = lambda self, *words, **keys: None

    fake = types.ModuleType("wandb")
    fake.init = lambda **given: begun.append(given) or Run(given)
    fake.Settings = fake.Image = lambda *words, **keys: None
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)

    class Stop(inrkit.Listener):
        def on_step(self, member, selected):
            if member.step == 3:
                member.stop()

    inrkit.fit(photo, out=tmp_path / "run", wandb=True, callbacks=[Stop()], **SMALL)
    monkeypatch.setenv("WANDB_PROJECT", "another")
    run = inrkit.fit(tmp_path / "run", resume=True, quiet=True)
    assert run.result["status"] == "done"
    assert [(each["id"], each["resume"], each["project"]) for each in begun] == [
        (None, None, "inrkit"),
        ("run1", "allow", "inrkit"),
    ]
    (tmp_path / "run" / "wandb.json").write_text("damaged")
    inrkit.fit(tmp_path / "run", resume=True, overrides=["train.steps=8"], quiet=True)
    assert (begun[2]["id"], begun[2]["project"]) == (None, "another")


@pytest.mark.slow
def test_weights_and_biases_without_a_network(photo, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs wandb; pip install 'inrkit[wandb]'")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    run = inrkit.fit(photo, out=tmp_path / "run", wandb=True, **SMALL)
    wandb.teardown()  # until then its own process writes
    (path,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    records = [wandb_internal_pb2.Record.FromString(content) for content in logged(path)]
    rows = [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    psnr = [row["psnr"] for row in rows if "psnr" in row]
    assert psnr == pytest.approx([row["psnr"] for row in run.history])
    pictures = [
        np.asarray(Image.open(path.parent / "files" / rows[-1][f"{name}.path"])) for name in ("original", "fit")
    ]
    assert np.array_equal(pictures[0], sample_picture(32))
    assert np.array_equal(pictures[1], np.asarray(Image.open(run.folder / "reconstruction.png")))
    settings = {item.key: item.value_json for record in records for item in record.run.config.update}
    assert settings["train.steps"] == "6"


@pytest.mark.slow
def test_trackio_on_this_machine(photo, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="needs trackio; pip install 'inrkit[trackio]'")
    for module in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, module)  # it reads the variable when it is imported
    run = inrkit.fit(photo, out=tmp_path / "run", trackio=True, **SMALL)
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("inrkit", "run")
    psnr = [row["psnr"] for row in rows if "psnr" in row]
    assert psnr == pytest.approx([row["psnr"] for row in run.history])
    assert any("fit" in row for row in rows) and any("final/psnr" in row for row in rows)
    assert SQLiteStorage.get_run_config("inrkit", "run")["train.steps"] == 6
