"""What 0.1.0 wrote can still be read; tests/fixtures/v0.1.0/make.py says how it was made."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh

import inrkit
from inrkit.batch import read_study
from inrkit.batch.results import Results

WRITTEN = Path(__file__).parents[1] / "fixtures" / "v0.1.0"
RUNS = ["ball", "photo", "sound", "volume", *(f"study/runs/{path.name}" for path in WRITTEN.glob("study/runs/*"))]


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_fixtures_are_all_there():
    assert len(RUNS) == 6


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_read(name):
    run = inrkit.Run(WRITTEN / name)
    result = json.loads((run.folder / "result.json").read_text())
    assert run.result == result
    assert run.history == rows(run.folder)
    assert run.metrics["psnr"] == rows(run.folder)[-1]["psnr"]
    assert (run.config.train.steps, run.config.network.options.hidden_features) == (4, 8)
    assert run.config.modality.name == result["modality"]
    assert run.reconstruction.exists()
    assert repr(run).startswith(f"Run({str(run.folder)!r}: done, PSNR {result['metrics']['psnr']:.2f} dB")


@pytest.mark.parametrize("name", RUNS)
def test_a_field_draws_the_reconstruction_of_then(name, tmp_path):
    then = inrkit.Run(WRITTEN / name).reconstruction
    field = inrkit.load(WRITTEN / name)
    now = tmp_path / then.name
    field.modality.export(now, field)
    if then.suffix == ".ply":
        before, after = (trimesh.load_mesh(path, process=False) for path in (then, now))
        assert after.volume == pytest.approx(before.volume, rel=1e-3)
        np.testing.assert_allclose(after.bounds, before.bounds, atol=1e-3)
        return
    before, after = (field.modality.read(path).values.numpy().astype(float) for path in (then, now))
    assert after.shape == before.shape
    # Integers are a rounding of what another processor computes a little differently.
    np.testing.assert_allclose(after, before, atol=1.0 if field.dtype.kind in "iu" else 1e-4)


def copied(tmp_path):
    """The folder, whose runs name their signal by its whole path, as 0.1.0 did."""
    folder = tmp_path / "written"
    shutil.copytree(WRITTEN, folder)
    for path in folder.rglob("config.yaml"):
        text = path.read_text(encoding="utf-8")
        here = path.parent
        for name in ("photo.png", "sound.wav", "ball.ply", "volume.npy"):
            above = "/".join([".."] * len(here.relative_to(folder).parts))
            text = text.replace(f"path: {above}/{name}", f"path: {folder / name}")
        path.write_text(text, encoding="utf-8")
    return folder


def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path):
    folder = copied(tmp_path)
    run = inrkit.fit(folder / "interrupted", resume=True)
    assert run.result["status"] == "done"
    assert [row["step"] for row in run.history] == [2, 4, 6]
    expected = [row["psnr"] for row in rows(WRITTEN / "uninterrupted")]
    assert [row["psnr"] for row in run.history] == pytest.approx(expected, abs=1e-3)


def test_the_jobs_of_a_finished_study_are_known_to_be_done(tmp_path, monkeypatch):
    folder = copied(tmp_path)
    monkeypatch.chdir(folder)
    study = read_study("study.yaml")
    results = Results(folder / "study", ["selector"])
    states = {job.cell["selector"]: results.state(job) for job in study.main_jobs()}
    assert {selector: state.status for selector, state in states.items()} == {"full": "done", "uniform": "done"}
    told = [json.loads(line) for line in (WRITTEN / "study/results.jsonl").read_text().splitlines()]
    assert [row["psnr"] for row in told] == [states[row["selector"]].result["metrics"]["psnr"] for row in told]
