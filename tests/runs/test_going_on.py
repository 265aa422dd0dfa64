"""Runs that go on: elsewhere, for longer, from other weights, and one at a time."""

import contextlib
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
from inrkit.batch.identity import identity
from inrkit.files import allow_open_files, append_text, claim, remove_stale, written_whole
from inrkit.networks import Tiles
from inrkit.runs.beginning import Beginning
from inrkit.runs.execute import execute_together, stackable
from inrkit.runs.request import prepare
from inrkit.signals.digest import digest

QUICK = {
    "network": {"name": "siren", "hidden_features": 8, "hidden_layers": 1},
    "steps": 6,
    "every": 3,
    "compile": "never",
    "precision": "float32",
    "train": {"chunk": 256},
}


class StopAt(inrkit.Listener):
    def __init__(self, step):
        self.step = step

    def on_step(self, member, selected):
        if member.step == self.step:
            member.stop()


def pixels(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (20, 16, 3), dtype=np.uint8)


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def begun(photo, tmp_path):
    """A run that was interrupted at its third of six steps, moved to another folder without its picture."""
    inrkit.fit(photo, out=tmp_path / "here" / "run", callbacks=[StopAt(3)], **QUICK)
    shutil.move(tmp_path / "here" / "run", tmp_path / "there")
    return tmp_path / "there"


def weights(run):
    return {name: value.clone() for name, value in run.field.network.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# The signal's digest


def test_a_digest_is_of_the_values_and_not_of_the_files_bytes(tmp_path):
    image = inrkit.MODALITIES.get("image")
    reader = image(image.Options())
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    Image.fromarray(pixels()).save(tmp_path / "b.png", compress_level=1)
    Image.fromarray(pixels()).save(tmp_path / "c.bmp")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    assert len({digest(reader.read(tmp_path / name)) for name in ("a.png", "b.png", "c.bmp")}) == 1


def test_a_digest_tells_values_shapes_dtypes_and_points():
    values = np.arange(24, dtype=np.int16)
    points = np.linspace(-1, 1, 24)[:, None]
    one = values.copy()
    one[-1] += 1
    signals = [
        inrkit.CoordinateDataset(values.reshape(4, 6, 1)),
        inrkit.CoordinateDataset(values.reshape(6, 4, 1)),
        inrkit.CoordinateDataset(values.reshape(4, 3, 2)),
        inrkit.CoordinateDataset(one.reshape(4, 6, 1)),
        inrkit.CoordinateDataset(values.astype(np.uint16).reshape(4, 6, 1)),
        inrkit.CoordinateDataset(values.astype(np.float32).reshape(4, 6, 1)),
        inrkit.CoordinateDataset(values[:, None], points=points),
        inrkit.CoordinateDataset(values[:, None], points=points / 2),
    ]
    assert len({digest(signal) for signal in signals}) == len(signals)


def test_a_digest_tells_weights_by_what_they_come_to():
    values = np.arange(24, dtype=np.int16).reshape(4, 6, 1)
    rising = np.arange(1.0, 5)[:, None]
    spread = [rising, 3 * rising, np.broadcast_to(rising, (4, 6)).copy()]
    assert len({digest(inrkit.CoordinateDataset(values, weights=weights)) for weights in spread}) == 1
    others = [None, rising[::-1].copy(), rising + 1]
    assert len({digest(inrkit.CoordinateDataset(values, weights=weights)) for weights in [rising, *others]}) == 4


def test_a_digest_is_the_same_in_chunks_and_in_either_byte_order(monkeypatch):
    values = np.random.default_rng(0).random((50, 30, 2)).astype(np.float32)
    whole = digest(inrkit.CoordinateDataset(values))
    assert digest(inrkit.CoordinateDataset(values.astype(">f4"))) == whole
    monkeypatch.setattr("inrkit.signals.digest._CHUNK", 100)
    assert digest(inrkit.CoordinateDataset(values)) == whole


# Resuming elsewhere


def test_a_run_that_was_moved_goes_on_with_the_picture_at_its_new_place(begun, photo, tmp_path):
    whole = inrkit.fit(photo, out=tmp_path / "whole", **QUICK)
    again = tmp_path / "elsewhere" / "same.bmp"  # saved anew, under another name
    again.parent.mkdir()
    Image.open(photo).save(again)
    photo.unlink()
    with pytest.raises(inrkit.DataError, match=r"photo\.png does not exist; if the signal has moved, .*data\.path="):
        inrkit.fit(begun, resume=True)
    run = inrkit.fit(begun, resume=True, overrides=[f"data.path={again}"])
    assert run.result["steps"] == 6
    assert equal(weights(run), weights(whole))
    assert run.config.data.path == str(again)
    assert run.result["signal"] == whole.result["signal"]


def test_the_picture_alone_says_where_a_run_finds_it(begun, photo, tmp_path):
    moved = photo.rename(tmp_path / "moved.png")
    assert inrkit.fit(moved, out=begun, resume=True).result["steps"] == 6


def test_a_relative_path_in_a_runs_config_is_relative_to_its_folder(begun, photo, monkeypatch, tmp_path):
    config = begun / "config.yaml"
    config.write_text(config.read_text().replace(str(photo), "beside.png"))
    photo.rename(begun / "beside.png")
    monkeypatch.chdir(tmp_path)
    assert inrkit.fit("there", resume=True).result["steps"] == 6


@pytest.mark.parametrize("change", [lambda it: it[:-2], lambda it: 255 - it, lambda it: it.swapaxes(0, 1)])
def test_a_signal_that_has_changed_is_refused(begun, photo, change):
    before = {path.name: path.read_bytes() for path in begun.iterdir()}
    Image.fromarray(change(pixels())).save(photo)
    with pytest.raises(
        inrkit.DataError, match=r"photo\.png is not the signal that .*there was fitted to: .*data\.path"
    ):
        inrkit.fit(begun, resume=True)
    assert {path.name: path.read_bytes() for path in begun.iterdir()} == before


def test_weights_that_have_changed_are_refused(photo, tmp_path):
    np.save(tmp_path / "weights.npy", np.linspace(1, 2, 20)[:, None])
    more = {"overrides": [f"data.weights={tmp_path / 'weights.npy'}"], **QUICK}
    whole = inrkit.fit(photo, out=tmp_path / "whole", **more)
    inrkit.fit(photo, out=tmp_path / "run", callbacks=[StopAt(3)], **more)
    np.save(tmp_path / "weights.npy", np.linspace(2, 1, 20)[:, None])
    with pytest.raises(inrkit.DataError, match="or its weights have changed"):
        inrkit.fit(tmp_path / "run", resume=True)
    np.save(tmp_path / "weights.npy", np.linspace(1, 2, 20)[:, None])
    assert equal(weights(inrkit.fit(tmp_path / "run", resume=True)), weights(whole))


# Signals that are given as objects


def given_as(kind):
    """A signal as an object, as arguments of `fit`; another one if the kind ends in "changed"."""
    array = pixels(seed=kind.endswith("changed"))
    if kind.startswith("points"):
        places = np.random.default_rng(1).random((50, 2))
        return {"points": places, "values": array.ravel()[:50].astype(np.float32)}
    if kind.startswith("dataset"):
        return {"target": inrkit.CoordinateDataset(array, weights=np.linspace(1, 2, 20)[:, None])}
    if kind.startswith("masked"):
        return {"target": np.ma.masked_less(array.astype(np.float32), 40)}
    return {"target": array}


@pytest.mark.parametrize("kind", ["array", "points", "dataset", "masked"])
def test_a_signal_that_is_given_again_is_gone_on_with(kind, tmp_path):
    whole = inrkit.fit(**given_as(kind), out=tmp_path / "whole", **QUICK)
    inrkit.fit(**given_as(kind), out=tmp_path / "run", callbacks=[StopAt(3)], **QUICK)
    with pytest.raises(inrkit.DataError, match="the given object is not the signal"):
        inrkit.fit(**given_as(f"{kind} changed"), out=tmp_path / "run", resume=True)
    run = inrkit.fit(**given_as(kind), out=tmp_path / "run", resume=True)
    assert equal(weights(run), weights(whole))
    assert [row["step"] for row in run.history] == [3, 6]
    longer = inrkit.fit(**given_as(kind), out=tmp_path / "run", resume=True, steps=8)
    assert longer.result["steps"] == 8


def test_a_signal_that_is_given_again_needs_its_run(photo, tmp_path):
    with pytest.raises(inrkit.ConfigError, match="name the folder of its run with out"):
        inrkit.fit(pixels(), resume=True)
    with pytest.raises(inrkit.ConfigError, match=r"nothing cannot be resumed .* name the folder of its run"):
        inrkit.fit(pixels(), out=tmp_path / "nothing", resume=True)
    inrkit.fit(photo, out=tmp_path / "run", callbacks=[StopAt(3)], **QUICK)
    with pytest.raises(inrkit.ConfigError, match=r"was fitted to .*photo\.png; resume it by its folder alone"):
        inrkit.fit(pixels(), out=tmp_path / "run", resume=True)
    inrkit.fit(pixels(), out=tmp_path / "other", callbacks=[StopAt(3)], **QUICK)
    with pytest.raises(inrkit.ConfigError, match="seed is 7, and"):
        inrkit.fit(pixels(), out=tmp_path / "other", resume=True, seed=7)


def test_a_run_without_a_digest_resumes_where_its_path_is_the_same(begun, photo, tmp_path):
    state = torch.load(begun / "checkpoint.pt", weights_only=True)
    del state["signal"]
    torch.save(state, begun / "checkpoint.pt")
    moved = tmp_path / "moved.png"
    shutil.copy(photo, moved)
    with pytest.raises(inrkit.ConfigError, match=r"data\.path is .*moved"):
        inrkit.fit(begun, resume=True, overrides=[f"data.path={moved}"])
    assert inrkit.fit(begun, resume=True).result["steps"] == 6


# More of it


def test_seconds_may_be_raised_and_not_lowered(photo, tmp_path):
    inrkit.fit(photo, out=tmp_path / "run", **QUICK, seconds=0.05)
    more = inrkit.fit(tmp_path / "run", resume=True, seconds=0.2)
    assert more.result["status"] == "done"
    assert more.result["seconds"]["train"] >= 0.2
    assert more.config.train.seconds == 0.2
    with pytest.raises(inrkit.ConfigError, match=r"train\.seconds"):
        inrkit.fit(tmp_path / "run", resume=True, seconds=0.1)


@pytest.mark.parametrize("optimizer", ["adam", "soap", "muon"])
def test_a_rate_that_had_fallen_to_zero_rises_again_without_harm(optimizer, tmp_path):
    y, x = np.mgrid[0:24, 0:24] / 24
    smooth = np.uint8(127 + 60 * np.sin(5 * x) + 60 * np.cos(4 * y))
    Image.fromarray(smooth).save(tmp_path / "smooth.png")
    options = {**QUICK, "every": 20, "network": {"name": "siren", "hidden_features": 24, "hidden_layers": 1}}
    options |= {"schedule": "cosine", "optimizer": {"name": optimizer, "lr": 1e-3}, "selector": "full"}
    once = inrkit.fit(tmp_path / "smooth.png", out=tmp_path / "run", **{**options, "steps": 100})
    first = once.metrics["psnr"]
    more = inrkit.fit(tmp_path / "run", resume=True, steps=200)
    assert more.result["status"] == "done"
    assert more.metrics["psnr"] > first + 1


# Beginning from other weights


def test_a_fit_begins_with_the_weights_of_another(photo, tmp_path):
    inrkit.fit(photo, out=tmp_path / "a", **QUICK)
    expected = weights(inrkit.Run(tmp_path / "a"))
    for given in (
        tmp_path / "a",
        tmp_path / "a" / "field.safetensors",
        inrkit.Run(tmp_path / "a"),
        inrkit.load(tmp_path / "a"),
    ):
        training = inrkit.trainer(pixels(1), init=given, **QUICK)
        assert equal(dict(training.member.network.state_dict()), expected)
    mine = inrkit.fit(pixels(2), **QUICK)
    training = inrkit.trainer(pixels(1), init=mine, **QUICK)
    assert equal(dict(training.member.network.state_dict()), weights(mine))


def test_what_is_around_the_network_is_the_new_fits_own(photo, tmp_path):
    inrkit.fit(photo, out=tmp_path / "a", **QUICK)
    dark = pixels(1).astype(np.float32) / 1000
    field = inrkit.trainer(dark, init=tmp_path / "a", **QUICK).field
    assert field.dtype == np.float32
    assert field.transform.state() != inrkit.load(tmp_path / "a").transform.state()


def test_frequencies_from_the_spectrum_follow_the_beginning(tmp_path):
    free = {**QUICK, "network": {**QUICK["network"], "first_omega": 0}}
    smooth = np.float32(np.sin(np.arange(4000) / 300))[:, None]
    rough = np.float32(np.random.default_rng(0).standard_normal(4000))[:, None]
    one, other = (inrkit.trainer(each[:, 0], modality="audio", **free) for each in (smooth, rough))
    assert one.member.network.options.first_omega != other.member.network.options.first_omega
    went_on = inrkit.trainer(rough[:, 0], modality="audio", init=one.field, **free)
    assert went_on.member.network.options.first_omega == one.member.network.options.first_omega


def test_a_beginning_of_another_kind_or_shape_is_refused_with_what_differs(photo, tmp_path):
    inrkit.fit(photo, out=tmp_path / "a", **QUICK)
    with pytest.raises(inrkit.ConfigError, match=r"a, whose network is 'siren', and here it is 'finer'.*network=siren"):
        inrkit.fit(photo, out=tmp_path / "b", init=tmp_path / "a", **{**QUICK, "network": "finer"})
    wide = {**QUICK, "network": {**QUICK["network"], "hidden_features": 9}}
    with pytest.raises(inrkit.ConfigError, match=r"first\.bias is of shape \(8,\), and here it is of shape \(9,\)"):
        inrkit.fit(photo, out=tmp_path / "b", init=tmp_path / "a", **wide)
    deep = {**QUICK, "network": {**QUICK["network"], "hidden_layers": 2}}
    with pytest.raises(inrkit.ConfigError, match=r"hidden\.1\.bias is missing, and here it is of shape"):
        inrkit.fit(photo, out=tmp_path / "b", init=tmp_path / "a", **deep)
    with pytest.raises(inrkit.DataError, match=r"init: .* does not exist"):
        inrkit.fit(photo, out=tmp_path / "b", init=tmp_path / "none", **QUICK)
    assert not (tmp_path / "b").exists()
    with pytest.raises(inrkit.ConfigError, match="init_skip has 'lsat', which no parameter's name begins with"):
        inrkit.fit(photo, out=tmp_path / "b", init=tmp_path / "a", init_skip=["lsat"], **QUICK)
    sound = Beginning("a sound", "tiles", {"counts": [14]}, {})
    with pytest.raises(inrkit.ConfigError, match=r"a sound, whose counts is \[14\], a number for each axis, .* has 2"):
        sound.options_for("tiles", Tiles.Options(), Tiles.Options(counts=[3, 4]))


def test_an_encoder_of_many_signals_begins_a_fit_with_a_head_of_its_own(tmp_path):
    """Signals side by side as channels share all layers but the last, whose rows are a head each."""
    many = np.concatenate([pixels(seed) for seed in range(4)], axis=-1)
    inrkit.fit(many, modality="array", out=tmp_path / "many", **QUICK)
    shared = weights(inrkit.Run(tmp_path / "many"))
    training = inrkit.trainer(pixels(9), init=tmp_path / "many", init_skip=["last"], **QUICK)
    own = training.member.network.state_dict()
    drawn = inrkit.trainer(pixels(9), **QUICK).member.network.state_dict()
    assert shared["last.weight"].shape == (12, 8)
    for name in own:
        assert torch.equal(own[name], drawn[name] if name.startswith("last") else shared[name])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "soap", "muon"])
def test_frozen_parameters_stay_and_the_others_train(photo, tmp_path, optimizer):
    inrkit.fit(photo, out=tmp_path / "a", **QUICK)
    before = weights(inrkit.Run(tmp_path / "a"))
    options = {**QUICK, "optimizer": {"name": optimizer, "lr": 1e-2, "weight_decay": 0.1}}
    run = inrkit.fit(pixels(1), init=tmp_path / "a", frozen=["first", "hidden.0"], **options)
    after = weights(run)
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith(("first", "hidden"))


def test_frozen_names_that_are_none_or_all_are_refused(photo):
    with pytest.raises(inrkit.ConfigError, match="frozen has 'fist', which no parameter's name begins with"):
        inrkit.trainer(photo, frozen=["fist"], **QUICK)
    with pytest.raises(inrkit.ConfigError, match="leaves nothing to train"):
        inrkit.trainer(photo, frozen=["first", "hidden", "last"], **QUICK)


def test_a_resumed_run_needs_its_beginning_no_more(photo, tmp_path):
    inrkit.fit(photo, out=tmp_path / "a", **QUICK)
    options = {**QUICK, "init": tmp_path / "a", "frozen": ["first"]}
    Image.fromarray(pixels(1)).save(tmp_path / "b.png")
    whole = inrkit.fit(tmp_path / "b.png", out=tmp_path / "whole", **options)
    inrkit.fit(tmp_path / "b.png", out=tmp_path / "part", callbacks=[StopAt(2)], **options)
    shutil.rmtree(tmp_path / "a")
    assert equal(weights(inrkit.fit(tmp_path / "part", resume=True)), weights(whole))


def test_fits_that_train_together_begin_as_those_alone(photo, tmp_path):
    inrkit.fit(photo, out=tmp_path / "a", **QUICK)
    for seed in (1, 2):
        Image.fromarray(pixels(seed)).save(tmp_path / f"{seed}.png")
    layer = {
        "network": QUICK["network"],
        "train": {"steps": 6, "compile": "never", "precision": "float32", "chunk": 256},
        "optimizer": {"name": "adam", "lr": 1e-3},
        "init": str(tmp_path / "a"),
        "frozen": ["first"],
    }
    fits = [prepare(tmp_path / f"{seed}.png", out=tmp_path / f"together{seed}", layers=[layer]) for seed in (1, 2)]
    assert len(stackable([config.to_dict() for config, _ in fits])) == 1
    start = weights(inrkit.Run(tmp_path / "a"))
    for seed, run in zip((1, 2), execute_together(fits), strict=True):
        alone = inrkit.fit(tmp_path / f"{seed}.png", out=tmp_path / f"alone{seed}", **layer)
        one, other = weights(run), weights(alone)
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)
            assert torch.equal(one[name], start[name]) == name.startswith("first")


def test_a_job_is_another_with_another_beginning_and_the_same_without(photo, tmp_path):
    config, _ = prepare(photo, layers=[{"network": QUICK["network"]}])
    keys = config.to_dict()
    earlier = {name: value for name, value in keys.items() if name not in ("init", "init_skip", "frozen")}
    assert identity(keys, "x") == identity(earlier, "x")
    inrkit.fit(photo, out=tmp_path / "a", **QUICK)
    begun = identity({**keys, "init": str(tmp_path / "a")}, "x")
    assert begun != identity(keys, "x")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert identity({**keys, "init": str(tmp_path / "b")}, "x") == begun


# One at a time, and nothing lost


def test_a_run_that_another_process_fits_is_refused(begun):
    with inrkit.Run(begun).locked():
        done = subprocess.run(
            [sys.executable, "-m", "inrkit", "fit", str(begun), "--resume"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "is being fitted by another process; wait for it" in done.stderr
    assert inrkit.fit(begun, resume=True).result["status"] == "done"


def test_a_run_is_locked_from_its_beginning_to_its_end(photo, tmp_path):
    told = []

    def meanwhile(member):
        if not told:
            with pytest.raises(inrkit.RunError, match="is being fitted by another process"):
                inrkit.fit(tmp_path / "run", resume=True)
            told.append(member.step)

    inrkit.fit(photo, out=tmp_path / "run", callbacks=[meanwhile], **QUICK)
    assert told == [1]
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_run_is_free_again_where_its_display_fails(photo, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no terminal")

    with monkeypatch.context() as patched:
        patched.setattr("inrkit.runs.execute.Display", fail)
        with pytest.raises(RuntimeError, match="no terminal"):
            inrkit.fit(photo, out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run" / ".lock").exists()
    assert inrkit.fit(tmp_path / "run", resume=True).result["status"] == "done"


def test_a_run_that_failed_before_its_first_checkpoint_starts_over(photo, tmp_path):
    whole = inrkit.fit(photo, out=tmp_path / "whole", **QUICK)

    def fail(member):
        if member.step == 4:
            raise inrkit.RunError("no more")

    with pytest.raises(inrkit.RunError, match="no more"):
        inrkit.fit(photo, out=tmp_path / "run", callbacks=[fail], **QUICK)
    assert inrkit.Run(tmp_path / "run").result["status"] == "failed"
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    run = inrkit.fit(tmp_path / "run", resume=True)
    assert equal(weights(run), weights(whole))
    assert [row["step"] for row in run.history] == [3, 6]
    assert run.result["status"] == "done" and "error" not in run.result


class InterruptedTwice(StopAt):
    """Ctrl-C during a step, and again after the evaluation that follows, before the checkpoint that tells of it."""

    def on_evaluation(self, member, row):
        if row["step"] == self.step:
            raise KeyboardInterrupt


def test_an_evaluation_of_an_interrupted_run_is_no_row_of_a_resumed_one_whatever_ended_it(photo, tmp_path):
    often = {**QUICK, "checkpoint": {"seconds": 1e-9}}
    whole = inrkit.fit(photo, out=tmp_path / "whole", **often)
    with pytest.raises(KeyboardInterrupt):
        inrkit.fit(photo, out=tmp_path / "run", callbacks=[InterruptedTwice(4)], **often)
    assert [row["step"] for row in inrkit.Run(tmp_path / "run").history] == [3, 4]
    run = inrkit.fit(tmp_path / "run", resume=True)
    assert [row["step"] for row in run.history] == [3, 6] == [row["step"] for row in whole.history]
    assert equal(weights(run), weights(whole))


def ended_process():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_what_killed_processes_left_half_written_is_removed(tmp_path):
    gone = ended_process()
    (tmp_path / f".{gone}-checkpoint.pt").write_bytes(b"half")
    (tmp_path / f".{gone}-frames").mkdir()
    (tmp_path / f".{gone}-frames" / "0.png").write_bytes(b"")
    kept = {f".{os.getpid()}-field.safetensors", f".{os.getppid()}-x", ".hidden-file", f"{gone}-x", ".lock"}
    for name in kept:
        (tmp_path / name).write_bytes(b"")
    remove_stale(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_resumed_run_leaves_no_half_written_file(begun):
    (begun / f".{ended_process()}-checkpoint.pt").write_bytes(b"half")
    inrkit.fit(begun, resume=True)
    assert not [path for path in begun.iterdir() if path.name.startswith(".")]


def test_files_reach_the_disk_before_they_have_their_names(tmp_path, monkeypatch):
    happened = []
    fsync, replace, link = os.fsync, Path.replace, os.link

    def name_of(number):
        return Path(f"/proc/self/fd/{number}").readlink().name if Path("/proc/self/fd").exists() else "?"

    monkeypatch.setattr(os, "fsync", lambda number: (happened.append(("disk", name_of(number))), fsync(number)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (happened.append(("name", to.name)), replace(self, to)))
    monkeypatch.setattr(os, "link", lambda one, other: (happened.append(("name", Path(other).name)), link(one, other)))
    with written_whole(tmp_path / "a.txt") as aside:
        aside.write_text("a")
    claim(tmp_path / "b.txt", "b")
    append_text(tmp_path / "c.txt", "c")
    assert [kind for kind, _ in happened] == ["disk", "name", "disk", "disk", "name", "disk", "disk"]
    if happened[0][1] != "?":
        assert [name for kind, name in happened if kind == "disk"][1::2] == [tmp_path.name, tmp_path.name]
    assert [(tmp_path / f"{name}.txt").read_text() for name in "abc"] == ["a", "b", "c"]


def test_thousands_of_files_may_be_open_where_the_system_lets_them(tmp_path):
    resource = pytest.importorskip("resource", reason="there are no such limits on Windows")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(list(Path("/proc/self/fd").iterdir())) + 20 if Path("/proc/self/fd").exists() else 200
    if 0 <= before[1] < few + 712:
        pytest.skip("the system allows few files")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
        allow_open_files(200)
        with contextlib.ExitStack() as opened:
            for number in range(200):
                opened.enter_context((tmp_path / f"{number}").open("w"))
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
        allow_open_files(1)  # what is enough stays
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == raised
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
