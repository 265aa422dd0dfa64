"""One signal on many workers: regions, their budget, the field of all, and what gets lost."""

import gc
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import inrkit
from inrkit.batch import fit_regions
from inrkit.batch.job import perform
from inrkit.batch.launchers.base import JobOptions, Launcher, Outcome, Started
from inrkit.batch.launchers.local import LocalOptions
from inrkit.batch.regions import execute_regions
from inrkit.errors import ConfigError, DataError, RunError
from inrkit.networks.tiles import TilesOptions
from inrkit.runs.build import as_signal, read_signal
from inrkit.runs.regions import Layout, assemble, open_region, store
from inrkit.runs.request import ask
from inrkit.runs.run import Run
from inrkit.signals.parts import Part
from inrkit.signals.tiled import tiled

SHORT = {"steps": 12, "seed": 3, "log": {"report": False}}


class Here(Launcher):
    """Performs tasks in this process, and is stopped after some of them."""

    Options = LocalOptions

    def __init__(self, most: int = 1 << 30, reverse: bool = False) -> None:
        super().__init__(LocalOptions(), JobOptions())
        self.most, self.reverse, self.performed = most, reverse, []

    @property
    def workers(self) -> int:
        return 1

    def run(self, tasks):
        for task in sorted(tasks, key=lambda each: int(each.id), reverse=self.reverse):
            if self.stopping:
                return
            yield Started(task)
            ended = perform(json.loads(json.dumps(asdict(task))))
            yield Outcome(task, **ended)
            self.performed.append(task.id)
            if len(self.performed) == self.most:
                self.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def picture(height: int = 120, width: int = 90, channels: int = 3) -> np.ndarray:
    """Smooth on the left and rough on the right."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 60, (height, width, channels)) * (x > width / 2)[..., None]
    return np.clip(128 + 60 * np.sin(x / 9 + y / 17)[..., None] + noise, 0, 255).astype(np.uint8)


def fitted(given, out, *, launcher=None, resume=False, parts=4, quiet=True, **options):
    size = np.prod(np.shape(given)) if not isinstance(given, str) else 120 * 90 * 3
    regions = {"values": int(size) // parts, **options.pop("regions", {})}
    asked = ask(given, out=out, resume=resume, regions=regions, **{**SHORT, **options})
    how = {"dataset": asked.dataset, "resume": resume, "quiet": quiet}
    return execute_regions(asked.config, asked.run, launcher or Here(), **how)


def test_the_parts_make_up_one_field_without_seams(tmp_path) -> None:
    values = picture()
    run = fitted(values, tmp_path / "run", steps=60)
    assert run.result["status"] == "done"
    assert run.result["regions"] >= 4
    # The same tiles as those of a fit of the whole, and about as good.
    whole = inrkit.fit(values, **{**SHORT, "steps": 60})
    assert run.field.network.options.counts == whole.field.network.options.counts
    assert run.result["parameters"] == whole.result["parameters"]
    assert run.metrics["psnr"] > whole.metrics["psnr"] - 0.5
    error = np.square(run.field.render(dtype=np.float32).astype(float) - values).mean()
    assert run.metrics["psnr"] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-3)
    # Each region is what its own run learnt.
    layout = Layout.read(tmp_path / "run" / "regions")
    assert sum(layout.values(number) for number in range(len(layout))) == 120 * 90


@pytest.mark.parametrize("kind", ["sound", "volume", "holes"])
def test_signals_of_all_dimensions_can_be_cut(tmp_path, kind: str) -> None:
    t = np.linspace(0, 60, 6000, dtype=np.float32)
    given, options = np.sin(t), {}
    if kind == "volume":
        given = np.sin(np.mgrid[:20, :24, :28].sum(0) / 5).astype(np.float32)
    if kind == "holes":
        given = np.ma.masked_array(picture()[..., 0].astype(np.float32), mask=np.mgrid[:120, :90][0] > 60)
        options = {"modality": "volume"}
    run = fitted(given, tmp_path / "run", **options)
    assert run.result["status"] == "done"
    assert np.isfinite(run.field.render()).all()
    assert not list((tmp_path / "run" / "regions").glob("*.npy"))


def test_the_field_does_not_depend_on_who_fits_which_region_when(tmp_path) -> None:
    values = picture()
    one = fitted(values, tmp_path / "one")
    stopped = fitted(values, tmp_path / "other", launcher=Here(most=3))
    assert stopped.result["status"] == "interrupted"
    # What a worker leaves behind that was killed after its first part: a checkpoint, and no result.
    shutil.copytree(tmp_path / "other", tmp_path / "killed")
    (tmp_path / "killed" / "regions" / "00001" / "result.json").unlink()
    half = tmp_path / "killed" / "regions" / ".99999999-values.npy"
    half.write_text("what was being written then")
    # A stop in the second part, when there is a field of all to evaluate.
    stopped = fitted(values, tmp_path / "other", launcher=Here(most=one.result["regions"] - 2), resume=True)
    assert stopped.result["status"] == "interrupted"
    assert stopped.metrics
    for name in ("other", "killed"):
        launcher = Here(reverse=True)
        other = fitted(values, tmp_path / name, launcher=launcher, resume=True)
        assert other.result["status"] == "done"
        assert launcher.performed[0] != "0"
        assert other.metrics == one.metrics
        assert [{**row, "seconds": 0} for row in other.history] == [{**row, "seconds": 0} for row in one.history]
        for each, same in zip(one.field.network.parameters(), other.field.network.parameters(), strict=True):
            assert torch.equal(each, same)
    assert not half.exists()


def test_steps_go_where_error_is_left(tmp_path) -> None:
    run = fitted(picture(), tmp_path / "run", steps=40)
    goals = json.loads((tmp_path / "run" / "regions" / "goals.json").read_text())
    layout = Layout.read(tmp_path / "run" / "regions")
    rough = [layout.box(number)[0][1] >= 45 for number in range(len(layout))]
    shares = [goal for goal, is_rough in zip(goals["each"], rough, strict=True) if is_rough]
    assert min(shares) > max(goal for goal, is_rough in zip(goals["each"], rough, strict=True) if not is_rough)
    sizes = [layout.values(number) for number in range(len(layout))]
    mean = sum(goal * size for goal, size in zip(goals["each"], sizes, strict=True)) / sum(sizes)
    assert mean == pytest.approx(40, rel=0.1)
    assert abs(run.result["steps"] - mean) <= 1
    alike = fitted(picture(), tmp_path / "alike", regions={"first": 1.0})
    assert json.loads((alike.folder / "regions" / "goals.json").read_text())["each"] == [12.0] * len(layout)


def test_a_run_goes_on_with_more_steps(tmp_path) -> None:
    values = picture()
    fitted(values, tmp_path / "run")
    launcher = Here()
    longer = fitted(values, tmp_path / "run", launcher=launcher, resume=True, steps=30)
    assert longer.result["status"] == "done"
    assert longer.result["steps"] == pytest.approx(30, abs=2)
    assert longer.metrics["psnr"] > inrkit.fit(values, **SHORT).metrics["psnr"]
    again = Here()
    assert fitted(values, tmp_path / "run", launcher=again, resume=True, steps=30).result["status"] == "done"
    assert not again.performed


def test_a_run_that_is_killed_before_it_puts_more_steps_together_does_so_later(tmp_path, monkeypatch) -> None:
    values = picture(60, 60)
    fitted(values, tmp_path / "run")
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr("inrkit.batch.regions.assemble", Mock(side_effect=KeyboardInterrupt))
        fitted(values, tmp_path / "run", resume=True, steps=30)
    launcher = Here()
    longer = fitted(values, tmp_path / "run", launcher=launcher, resume=True, steps=30)
    assert longer.result["steps"] == pytest.approx(30, abs=2)
    assert not launcher.performed


def test_damaged_goals_leave_the_result_of_a_run_that_is_done(tmp_path) -> None:
    run = fitted(picture(60, 60), tmp_path / "run")
    before = run.result
    (tmp_path / "run" / "regions" / "goals.json").write_text("[]")
    with pytest.raises(DataError, match=r"goals.json is damaged"):
        fitted(picture(60, 60), tmp_path / "run", resume=True)
    assert run.result == before


def test_a_memory_map_is_not_copied(tmp_path) -> None:
    np.save(tmp_path / "signal.npy", picture(channels=1)[..., 0])
    run = fitted(str(tmp_path / "signal.npy"), tmp_path / "run", parts=12, launcher=Here(most=2))
    assert run.result["status"] == "interrupted"
    assert not Layout.read(tmp_path / "run" / "regions").stored
    assert not list((tmp_path / "run" / "regions").glob("*.npy"))


def test_weights_count_in_every_region(tmp_path) -> None:
    weights = np.linspace(0.2, 3, 90, dtype=np.float32)[None].repeat(120, 0)
    np.save(tmp_path / "weights.npy", weights)
    values = picture()
    run = fitted(values, tmp_path / "run", data={"weights": str(tmp_path / "weights.npy")})
    error = np.square(run.field.render(dtype=np.float32).astype(float) - values).mean(axis=2)
    weighted = (error * weights).sum() / weights.sum()
    assert run.metrics["psnr"] == pytest.approx(10 * np.log10(255**2 / weighted), abs=1e-3)


@pytest.mark.parametrize("mapped", [False, True])
def test_regions_have_the_weights_and_the_known_cells_of_the_whole(tmp_path, mapped: bool) -> None:
    values, holes = picture(60, 50, 1)[..., 0].astype(np.float32), np.mgrid[:60, :50][0] % 7 == 3
    np.save(tmp_path / "weights.npy", np.random.default_rng(0).random((60, 50)))
    np.save(tmp_path / "signal.npy", np.where(holes, np.nan, values))
    given = str(tmp_path / "signal.npy") if mapped else np.ma.masked_array(values, mask=holes)
    data = {"weights": str(tmp_path / "weights.npy")}
    asked = ask(given, modality="volume", data=data, regions={"values": 900}, **SHORT)
    signal = read_signal(asked.config) if mapped else as_signal(asked.config, asked.dataset)
    layout = Layout.of(asked.config, signal)
    assert layout.stored is not mapped
    layout.write(tmp_path)
    (tmp_path / "weights.npy").unlink()  # regions have one of their own
    store(signal.dataset, tmp_path, layout.stored)
    for number in range(len(layout)):
        part = open_region(asked.config, tmp_path, number).dataset
        same = Part(signal.dataset, *layout.box(number))
        for name in ("weights", "known"):
            assert torch.equal(getattr(part, name), getattr(same, name))
            assert torch.equal(getattr(part.around, name), getattr(same.around, name))
    (tmp_path / "weights.npy").unlink()
    with pytest.raises(DataError, match=r"weights.npy, a part of the signal, is missing"):
        open_region(asked.config, tmp_path, 0)


def test_a_region_whose_weights_are_zero_gets_the_fewest_steps(tmp_path) -> None:
    weights = np.ones((120, 90), dtype=np.float32)
    weights[:, 40:] = 0  # most of all in the regions on the right, whose error is largest
    np.save(tmp_path / "weights.npy", weights)
    run = fitted(picture(), tmp_path / "run", data={"weights": str(tmp_path / "weights.npy")}, steps=40)
    assert run.result["status"] == "done"
    layout = Layout.read(tmp_path / "run" / "regions")
    boxes = [tuple(slice(*ends) for ends in zip(*layout.box(number), strict=True)) for number in range(len(layout))]
    assert layout.counted == pytest.approx([weights[box].sum() / weights.mean() for box in boxes])
    goals = json.loads((tmp_path / "run" / "regions" / "goals.json").read_text())["each"]
    assert np.argmin(goals) == np.argmin(layout.counted)


def test_a_region_that_fails_fails_the_fit_and_loses_nothing(tmp_path) -> None:
    values = picture()
    one = fitted(values, tmp_path / "one")
    fitted(values, tmp_path / "run", launcher=Here(most=2))
    # A file in place of its folder: nothing can be written there.
    lost = tmp_path / "run" / "regions" / "00002"
    lost.write_text("")
    with pytest.raises(RunError, match=r"region 2 of \d+ failed.*--resume"):
        fitted(values, tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"
    lost.unlink()
    assert fitted(values, tmp_path / "run", resume=True).metrics == one.metrics


def test_a_region_whose_files_could_not_be_written_goes_on_from_its_checkpoint(tmp_path) -> None:
    values = picture()
    one = fitted(values, tmp_path / "one")
    launcher = Here(most=one.result["regions"] + 1)
    fitted(values, tmp_path / "run", launcher=launcher)
    region = tmp_path / "run" / "regions" / f"{int(launcher.performed[-1]):05d}"
    result = json.loads((region / "result.json").read_text())
    (region / "result.json").write_text(json.dumps({**result, "status": "interrupted", "error": "the disk was full"}))
    shutil.copy(tmp_path / "run" / "regions" / "00001" / "field.safetensors", region)  # one of an earlier part
    assert fitted(values, tmp_path / "run", resume=True).metrics == one.metrics


def test_a_region_whose_field_is_damaged_is_named(tmp_path) -> None:
    values = picture()
    run = fitted(values, tmp_path / "run", launcher=Here(most=1))
    fitted(values, tmp_path / "run", launcher=Here(most=run.result["regions"]), resume=True)
    field = tmp_path / "run" / "regions" / "00001" / "field.safetensors"
    asked = ask(values, out=tmp_path / "run", resume=True, **SHORT)
    signal, layout = as_signal(asked.config, asked.dataset), Layout.read(tmp_path / "run" / "regions")
    for damaged in (b"nothing", (run.folder / "field.safetensors").read_bytes()):
        field.write_bytes(damaged)
        with pytest.raises(DataError, match=r"00001/field.safetensors is missing or damaged; remove it and go on"):
            assemble(asked.config, signal, layout, asked.run)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("goals.json", {"each": [1]}),
        ("goals.json", {"asked": "some"}),
        ("layout.json", {"held": [True]}),
        ("layout.json", {"windows": [[0, 1, 0, 1]]}),
        ("layout.json", {"transform": {}}),
    ],
)
def test_damaged_files_of_all_regions_are_named_and_made_anew(tmp_path, name: str, entry: dict) -> None:
    values = picture(60, 60)
    one = fitted(values, tmp_path / "run", launcher=Here(most=5))
    file = tmp_path / "run" / "regions" / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **entry}))
    with pytest.raises(DataError, match=f"{name} is .*damaged; remove it"):
        fitted(values, tmp_path / "run", resume=True)
    file.unlink()
    assert fitted(values, tmp_path / "run", resume=True).result["status"] == "done"
    assert one.result["regions"] == 4


def test_a_run_that_was_killed_before_it_had_regions_goes_on(tmp_path) -> None:
    values = picture(60, 60)
    one = fitted(values, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "regions")
    with pytest.raises(ConfigError, match="has no more regions"):
        fitted(values, tmp_path / "run", resume=True)
    (tmp_path / "run" / "result.json").unlink()
    assert fitted(values, tmp_path / "run", resume=True).metrics == one.metrics


def test_a_region_goes_on_on_another_device(tmp_path) -> None:
    values = picture(60, 60)
    fitted(values, tmp_path / "run", launcher=Here(most=1))
    region = Run(tmp_path / "run" / "regions" / "00000")
    torch.save({**region.read_checkpoint(), "device": "cuda"}, region.folder / "checkpoint.pt")
    assert fitted(values, tmp_path / "run", resume=True).result["status"] == "done"
    assert "until then on cuda" in region.result["notes"][0]


def test_a_run_goes_on_with_its_signal_alone_wherever_that_is(tmp_path) -> None:
    file, run = tmp_path / "signal.npy", tmp_path / "run"
    np.save(file, picture(channels=1)[..., 0])
    fitted(str(file), run, parts=12, launcher=Here(most=2))
    file.rename(tmp_path / "moved.npy")
    for other in (picture(channels=1)[..., 0] + 1, picture(height=100, channels=1)[..., 0]):
        np.save(file, other)
        with pytest.raises(DataError, match="not the signal that"):
            fitted(str(file), run, parts=12, resume=True)
    moved = fitted(str(tmp_path / "moved.npy"), run, parts=12, resume=True)
    assert moved.result["status"] == "done"
    assert moved.config.data.path == str(tmp_path / "moved.npy")


def test_tiles_that_overlap_far_see_what_they_see_of_the_whole(tmp_path) -> None:
    values = np.random.default_rng(0).random((100, 100), dtype=np.float32)
    network = {"overlap": 24, "counts": [2, 2]}
    asked = ask(values, modality="volume", network=network, regions={"values": 2500}, **SHORT)
    signal = as_signal(asked.config, asked.dataset)
    layout = Layout.of(asked.config, signal)
    layout.write(tmp_path)
    store(signal.dataset, tmp_path, layout.stored)
    whole = tiled(signal, layout.options.tiling())
    plan = whole.begin(200, 0.0, torch.Generator().manual_seed(0))
    for number in range(4):
        part = tiled(open_region(asked.config, tmp_path, number), TilesOptions(**layout.options_of(number)).tiling())
        seen = part.visit(plan, torch.zeros(1, dtype=torch.int64)).targets
        assert torch.equal(seen, whole.visit(plan, torch.tensor([number])).targets)


@pytest.mark.parametrize("selector", ["egra", "uniform", "full"])
def test_other_selectors_select_in_regions_too(tmp_path, selector: str) -> None:
    run = fitted(picture(60, 60, 1), tmp_path / "run", selector=selector, steps=3)
    assert run.result["status"] == "done"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"network": "siren"}, "only a network of tiles"),
        ({"init": "somewhere"}, "leave init out"),
        ({"optimizer": torch.optim.SGD}, "choose one by its name"),
        ({"log": {"film": "gif"}}, "log.film shows no fit region by region"),
    ],
)
def test_what_cannot_be_cut_is_refused_before_anything_is_written(tmp_path, options: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        fitted(picture(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_callbacks_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="callbacks reach no region"):
        fit_regions(picture(), out=tmp_path / "run", callbacks=[print])


def test_a_folder_with_other_regions_is_refused(tmp_path) -> None:
    (tmp_path / "run" / "regions").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"regions is in the way; remove it"):
        fitted(picture(), tmp_path / "run")


def test_workers_without_a_region_are_told_of(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(Here, "workers", 3)
    for resume, told in ((False, "a smaller regions.values makes more"), (True, "a resumed run keeps its regions")):
        fitted(picture(30, 30, 1), tmp_path / "run", parts=1, steps=2, resume=resume, quiet=False)
        assert f"2 of them have nothing to do: {told}" in capsys.readouterr().err


def test_free_points_are_refused(tmp_path) -> None:
    points = np.random.default_rng(0).random((50, 2))
    asked = ask(None, points=points, values=points[:, 0], out=tmp_path / "run", network="tiles")
    with pytest.raises(ConfigError, match="free points"):
        execute_regions(asked.config, asked.run, Here(), dataset=asked.dataset)


def test_a_config_of_regions_is_not_fitted_as_a_whole() -> None:
    with pytest.raises(ConfigError, match="fit_regions"):
        inrkit.fit(picture(), regions={"values": 1000}, **SHORT)


def test_a_run_of_regions_is_not_resumed_as_a_whole(tmp_path) -> None:
    np.save(tmp_path / "signal.npy", picture(60, 60, 1)[..., 0])
    run = fitted(str(tmp_path / "signal.npy"), tmp_path / "run", parts=40, launcher=Here(most=1))
    with pytest.raises(ConfigError, match="fit_regions"):
        inrkit.fit(run.folder, resume=True)


def test_an_ordinary_run_is_not_resumed_in_regions(tmp_path) -> None:
    inrkit.fit(picture(), out=tmp_path / "run", **SHORT)
    asked = ask(picture(), out=tmp_path / "run", resume=True, **SHORT)
    with pytest.raises(ConfigError, match="not fitted region by region"):
        execute_regions(asked.config, asked.run, Here(), dataset=asked.dataset, resume=True)


def test_seconds_are_those_of_each_worker(tmp_path) -> None:
    values = picture()
    run = fitted(values, tmp_path / "run", steps=1000, seconds=0.4)
    assert run.result["status"] == "done"
    assert run.result["seconds"]["train"] >= 0.4
    launcher = Here()
    longer = fitted(values, tmp_path / "run", launcher=launcher, resume=True, steps=1000, seconds=0.6)
    assert longer.result["seconds"]["train"] >= 0.6
    assert launcher.performed


def test_a_run_of_regions_is_compressed_like_any_other(tmp_path) -> None:
    Image.fromarray(picture(60, 60)).save(tmp_path / "photo.png")
    run = fitted(str(tmp_path / "photo.png"), tmp_path / "run", parts=3)
    small = inrkit.compress(run, tmp_path / "small.inr", bits=6, steps=2)
    assert small.path.stat().st_size < (run.folder / "field.safetensors").stat().st_size / 3


def test_a_worker_keeps_nothing_of_a_region_that_it_has_fitted(tmp_path) -> None:
    gc.disable()
    try:
        fitted(picture(60, 60, 1), tmp_path / "run", steps=3)
        left = [each for each in gc.get_objects() if type(each) is inrkit.Member]
    finally:
        gc.enable()
    assert not left


def trained_on(folder) -> dict:
    """When the checkpoints of a run's regions were written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("run/regions/*/checkpoint.pt")}


@pytest.mark.slow
def test_a_fit_that_is_killed_ends_with_the_same_field(tmp_path) -> None:
    np.save(tmp_path / "signal.npy", picture(400, 300))
    words = ["base=image", "train.steps=100", "regions.values=100000", "checkpoint.seconds=0.3", "log.report=false"]
    fit = [sys.executable, "-m", "inrkit", "fit", "signal.npy", *words]
    subprocess.run([*fit, "--workers", "1", "--out", "alone"], cwd=tmp_path, check=True, capture_output=True)
    with subprocess.Popen([*fit, "--workers", "2", "--out", "run"], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while len(trained_on(tmp_path)) < 2:
            assert process.poll() is None and time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)
        parent = psutil.Process(process.pid)
        workers = [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]
        parent.kill()
        said = process.communicate(timeout=300)[1]
    assert process.returncode == -signal.SIGKILL, said
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    resumed = [sys.executable, "-m", "inrkit", "fit", "run", "--resume", "--workers", "1"]
    subprocess.run(resumed, cwd=tmp_path, check=True, capture_output=True)
    fields = [(tmp_path / name / "field.safetensors").read_bytes() for name in ("run", "alone")]
    assert fields[0] == fields[1]
