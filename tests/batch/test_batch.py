"""Studies as users run them: real processes, killed, poisoned, stopped and run again."""

import contextlib
import csv
import errno
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.numpy import load_file

import inrkit.cli
from inrkit import Run
from inrkit.batch import JobOptions, Task, read_study
from inrkit.batch.launchers.local import Local, LocalOptions

STUDY = """
base: image
set:
  train.steps: {steps}
  log.every: 5
  checkpoint.seconds: 0
  network: {{name: "slow:Slow", seconds: {pause}}}
matrix:
  data.path: ["photos/*.png"]
  selector: [full, uniform]
"""

# A network that takes its time, so that a kill meets a job, and that can hang, hold memory and end its process.
SLOW = """
import dataclasses, os, time
from pathlib import Path
import torch
from inrkit import HiddenLinear, Network

@dataclasses.dataclass
class Options:
    seconds: float = 0.0
    gibibytes: int = 0
    hangs: str = ""
    deadly_seed: int = -1

class Slow(Network):
    Options = Options

    def __init__(self, options, dimensions, channels):
        super().__init__(options, dimensions, channels)
        self.first, self.last = torch.nn.Linear(dimensions, 8), torch.nn.Linear(8, channels)
        if torch.initial_seed() == options.deadly_seed:
            os._exit(3)
        self.eaten = [torch.ones(2**28) for _ in range(options.gibibytes)]

    def forward(self, coordinates):
        time.sleep(self.options.seconds)
        while self.options.hangs and Path(self.options.hangs).exists():
            time.sleep(0.1)
        return self.last(torch.sin(10 * self.first(coordinates)))
"""


def picture(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)


def room(folder: Path, *, names: str = "ab", steps: int = 20, pause: float = 0.0) -> Path:
    """A folder with a study of two jobs a picture."""
    (folder / "photos").mkdir(parents=True)
    for number, name in enumerate(names):
        picture(folder / "photos" / f"{name}.png", number)
    (folder / "slow.py").write_text(SLOW)
    (folder / "study.yaml").write_text(STUDY.format(steps=steps, pause=pause))
    return folder


def words(*more: object) -> list[str]:
    return ["batch", "study.yaml", "--out", "out", "--workers", "2", *map(str, more)]


def batch(folder: Path, *more: object, code: int = 0) -> str:
    """Run the study from this process; what it said."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["inrkit", *words(*more)]
    sys.path.insert(0, str(folder))  # where slow.py is
    try:
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as left,
        ):
            inrkit.cli.main()
    finally:
        sys.argv = before
        sys.path.remove(str(folder))
    assert left.value.code == code, err.getvalue()
    assert "Traceback" not in err.getvalue()
    return out.getvalue() + err.getvalue()


def rows(folder: Path) -> list[dict]:
    text = (folder / "out" / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in text]


def statuses(folder: Path) -> dict[tuple[str, str], str]:
    return {(Path(row["data.path"]).stem, row["selector"]): row["status"] for row in rows(folder)}


def quality(folder: Path) -> dict[tuple[str, str], tuple]:
    """All that is measured of every job, by file and selector."""
    return {
        (row["data.path"], row["selector"]): (row["status"], row["psnr"], row["ssim"], row["steps"])
        for row in rows(folder)
    }


def weights(folder: Path) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """The weights of every job's field, by file and selector."""
    return {
        (row["data.path"], row["selector"]): load_file(folder / "out" / row["folder"] / "field.safetensors")
        for row in rows(folder)
    }


def when(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@contextlib.contextmanager
def running(folder: Path, *more: object):
    """The study in the background, and its workers once both are at work."""
    command = [sys.executable, "-m", "inrkit", *words(*more)]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        children: list[psutil.Process] = []
        try:
            when(lambda: len(list(folder.glob("out/runs/*/metrics.jsonl"))) >= 2)
            children = psutil.Process(process.pid).children(recursive=True)
            yield process, children
        finally:
            process.kill()
            psutil.wait_procs(children, timeout=30)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that was left alone."""
    folder = room(tmp_path_factory.mktemp("finished"))
    (folder / "said").write_text(batch(folder))
    return folder


def test_a_study_leaves_its_results(finished):
    names = {path.name for path in (finished / "out").iterdir()}
    assert {"study.yaml", "results.csv", "results.jsonl", "summary.md", "curves.png", "runs"} <= names
    with (finished / "out" / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["data.path"], row["selector"], row["status"]) for row in table] == [
        (f"photos/{name}.png", selector, "done") for name in "ab" for selector in ("full", "uniform")
    ]
    for row, told in zip(rows(finished), table, strict=True):
        result = json.loads((finished / "out" / row["folder"] / "result.json").read_text())
        assert result["metrics"]["psnr"] == row["psnr"] == float(told["psnr"])
        assert result["seconds"]["train"] == row["seconds"]
        log = (finished / "out" / row["folder"] / "log.txt").read_text()
        assert "step 20/20" in log
    assert "4 done" in (finished / "said").read_text()


def test_the_summary_has_mean_and_spread_of_each_group(finished):
    psnr = [row["psnr"] for row in rows(finished) if row["selector"] == "full"]
    summary = (finished / "out" / "summary.md").read_text()
    (line,) = [line for line in summary.splitlines() if line.startswith("| full | 2 |")]
    assert f"{np.mean(psnr):.2f}" in line
    assert f"± {np.std(psnr, ddof=1):.2f}" in line
    assert "**" in summary


def test_a_finished_study_is_left_as_it_is_and_a_changed_file_runs_its_jobs_only(finished):
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in finished.glob("out/runs/*/*")}

    left, before = times(), rows(finished)
    batch(finished)
    assert times() == left
    kept = (finished / "photos" / "b.png").read_bytes()
    picture(finished / "photos" / "b.png", 7)
    plan = batch(finished, "--dry-run")
    assert "4 jobs: 2 done, 2 pending" in plan
    assert "photos/a.png" not in plan
    batch(finished)
    assert {path: time for path, time in times().items() if path in left} == left
    assert len(list(finished.glob("out/runs/*"))) == 6
    assert set(statuses(finished).values()) == {"done"}
    (finished / "photos" / "b.png").write_bytes(kept)
    batch(finished)
    assert rows(finished) == before


def test_a_dry_run_writes_nothing(tmp_path):
    folder = room(tmp_path / "room")
    before = sorted(folder.rglob("*"))
    plan = batch(folder, "--dry-run")
    assert "4 jobs: 4 pending" in plan
    assert "with 2 workers" in plan
    assert [path for path in sorted(folder.rglob("*")) if "__pycache__" not in str(path)] == before


@pytest.mark.slow
def test_a_poisoned_file_fails_alone_and_is_tried_again_until_it_is_healed(tmp_path):
    folder = room(tmp_path / "room", names="a")
    (folder / "photos" / "b.png").write_text("poison")
    assert "4 pending" in batch(folder, "--limit", 0)
    assert "2 done, 2 failed" in batch(folder, code=1)
    assert statuses(folder) == {
        ("a", "full"): "done",
        ("a", "uniform"): "done",
        ("b", "full"): "failed",
        ("b", "uniform"): "failed",
    }
    for row in rows(folder)[2:]:
        assert "is not an image" in row["error"]
        assert "is not an image" in (folder / "out" / row["folder"] / "log.txt").read_text()
        assert row["folder"] in (folder / "out" / "summary.md").read_text()
    said = batch(folder, "--only", "FAILED", "--retries", 1, code=1)
    assert said.count("started") == 4
    assert "--only is 'done'" in batch(folder, "--only", "done", code=2)
    picture(folder / "photos" / "b.png", 1)
    assert "4 pending" not in batch(folder, "--only", "failed")  # another content is another job
    assert statuses(folder)["b", "full"] == "pending"
    assert "4 done" in batch(folder)


@pytest.mark.slow
def test_a_killed_parent_leaves_no_orphan_and_its_study_ends_like_an_undisturbed_one(finished, tmp_path):
    folder = room(tmp_path / "room", pause=0.2)
    with running(folder) as (process, children):
        assert "another process works on a study" in batch(folder, code=2)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
    assert len(list(folder.glob("out/runs/*/field.safetensors"))) < 4
    batch(folder)
    assert quality(folder) == quality(finished)
    for job, undisturbed in weights(finished).items():
        for name, tensor in weights(folder)[job].items():
            assert np.array_equal(tensor, undisturbed[name])
    attempts = [path.read_text().count("--- ") for path in folder.glob("out/runs/*/log.txt")]
    assert sorted(attempts) == [1, 1, 2, 2]
    assert sum("from step" in path.read_text() for path in folder.glob("out/runs/*/log.txt")) == 2


@pytest.mark.slow
def test_a_stopped_study_keeps_what_it_has_leaves_no_orphan_and_goes_on(finished, tmp_path):
    folder = room(tmp_path / "room", pause=0.2)
    with running(folder) as (process, children):
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait() == 130, said
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
    assert "Traceback" not in said
    assert sorted(statuses(folder).values()) == ["interrupted", "interrupted", "pending", "pending"]
    for row in rows(folder)[:2]:
        assert 5 <= row["steps"] < 20
    batch(folder)
    assert quality(folder) == quality(finished)


@pytest.mark.slow
def test_a_killed_worker_takes_only_its_job_along_and_that_is_tried_again(finished, tmp_path):
    folder = room(tmp_path / "room", pause=0.2)
    with running(folder, "--retries", 1) as (process, children):
        worker = next(child for child in children if "spawn_main" in " ".join(child.cmdline()))
        worker.kill()
        said = process.stderr.read()
        assert process.wait() == 0, said
    assert said.count("its process was killed (SIGKILL)") == 1
    assert said.count("started") == 5
    assert quality(folder) == quality(finished)


@pytest.mark.slow
def test_a_job_that_hangs_is_killed_and_the_others_go_on(tmp_path):
    folder = room(tmp_path / "room", names="a")
    (folder / "hang").write_text("uniform")
    said = batch(folder, "job.limit=3", "network.hangs=hang", "--retries", 0, code=1)
    assert said.count("took longer than job.limit=3 s and was killed") == 2
    assert set(statuses(folder).values()) == {"failed"}
    (folder / "hang").unlink()
    batch(folder, "job.limit=60", "network.hangs=hang")
    assert set(statuses(folder).values()) == {"done"}


@pytest.mark.slow
def test_a_job_that_takes_too_much_memory_is_killed_and_told(tmp_path):
    folder = room(tmp_path / "room", names="a", pause=0.2)
    said = batch(folder, "network.gibibytes=2", "selector=full", "job.memory=1.5", code=1)
    assert "took more than job.memory=1.5 GiB" in said


def test_workers_that_die_before_they_have_a_task_are_replaced(tmp_path):
    picture(tmp_path / "a.png", 0)
    tiny = ["data.path=a.png", "train.steps=3", "network.hidden_features=8"]
    (tmp_path / "study.yaml").write_text("base: image")
    with contextlib.chdir(tmp_path):
        (job,) = read_study("study.yaml", tiny).main_jobs()
    with Local(LocalOptions(workers=2), JobOptions()) as launcher:
        victims = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
        assert len(victims) == 2
        for victim in victims:
            victim.kill()
        *_, outcome = launcher.run([Task(job.id, str(tmp_path / "run"), job.config)])
    assert (outcome.status, outcome.error) == ("done", None)
    assert Run(tmp_path / "run").result["steps"] == 3


@pytest.mark.slow
def test_tuning_gives_each_group_the_best_value(tmp_path):
    folder = room(tmp_path / "room")
    with (folder / "study.yaml").open("a") as file:
        file.write("tune: {key: optimizer.lr, values: [1.0e-6, 1.0e-2], on: {data.path: photos/a.png, seed: 9}}\n")
        file.write("table: {rows: selector, metrics: [psnr, seconds], at: [5, 20], ")
        file.write("published: {full: {psnr@20: 31.06}}}\n")
    assert "8 jobs: 8 pending" in batch(folder, "--dry-run")
    batch(folder, "--limit", 3)
    assert sorted(row["status"] for row in rows(folder)) == ["done"] * 3 + ["pending"] * 5
    batch(folder)
    tuning = [row for row in rows(folder) if row["phase"] == "tune"]
    assert len(tuning) == 4
    for row in rows(folder):
        assert row["status"] == "done"
        if row["phase"] == "main":
            tried = {each["optimizer.lr"]: each["psnr"] for each in tuning if each["selector"] == row["selector"]}
            assert row["optimizer.lr"] == max(tried, key=tried.get)
    summary = (folder / "out" / "summary.md").read_text()
    assert "## optimizer.lr by tuning" in summary
    assert summary.count("at the edge of the list") == 2
    full = [row for row in rows(folder) if (row["phase"], row["selector"]) == ("main", "full")]
    at_5 = np.mean([Run(folder / "out" / row["folder"]).history[0]["psnr"] for row in full])
    at_20 = np.mean([row["psnr"] for row in full])
    lines = summary.splitlines()
    assert "| selector | n | PSNR at 5 | PSNR at 20 | PSNR | seconds |" in lines
    (line,) = [line.replace("**", "") for line in lines if line.startswith("| full | 2 |")]
    assert line.startswith(f"| full | 2 | {at_5:.2f} ± ")
    assert f"| {at_20:.2f} ± " in line
    assert "| full, published |  | – | 31.06 | – | – |" in lines


@pytest.mark.slow
def test_jobs_that_train_together_get_what_they_get_alone_and_a_bad_file_fails_alone(tmp_path):
    alone = room(tmp_path / "alone", names="abcd", steps=10)
    (alone / "photos" / "c.png").write_bytes(b"no picture")
    network = "network={name: siren, hidden_features: 16, hidden_layers: 1}"
    batch(alone, network, code=1)
    together = room(tmp_path / "together", names="abcd", steps=10)
    (together / "photos" / "c.png").write_bytes(b"no picture")
    said = batch(together, network, "batch.together=4", code=1)
    assert "6 done, 2 failed" in said
    assert {row["id"]: row["status"] for row in rows(together)} == {row["id"]: row["status"] for row in rows(alone)}
    expected = {row["id"]: row["psnr"] for row in rows(alone) if row["status"] == "done"}
    found = {row["id"]: row["psnr"] for row in rows(together) if row["status"] == "done"}
    assert found == pytest.approx(expected, abs=0.01)
    failed = [row for row in rows(together) if row["status"] == "failed"]
    assert all("c.png" in row["error"] for row in failed)
    assert all("DataError" in (together / "out" / row["folder"] / "log.txt").read_text() for row in failed)


@pytest.mark.slow
def test_one_job_that_ends_its_process_does_not_take_along_the_one_that_trains_with_it(tmp_path):
    folder = room(tmp_path / "room", names="a", steps=3)
    text = (folder / "study.yaml").read_text().replace("selector: [full, uniform]", "seed: [0, 1]")
    (folder / "study.yaml").write_text(text)
    said = batch(folder, "--workers", 1, "network.deadly_seed=1", "batch.together=2", code=1)
    assert "2 jobs fail together" in said
    assert {row["seed"]: (row["status"], row["error"]) for row in rows(folder)} == {
        0: ("done", None),
        1: ("failed", "its process ended with exit code 3"),
    }


@pytest.mark.slow
def test_a_study_with_a_damaged_result_makes_that_fit_again(tmp_path):
    folder = room(tmp_path / "room", names="a", steps=3)
    batch(folder)
    damaged = folder / "out" / rows(folder)[0]["folder"] / "result.json"
    damaged.write_text("")
    batch(folder)
    assert set(statuses(folder).values()) == {"done"}
    assert json.loads(damaged.read_text())["status"] == "done"


def test_the_study_file_itself_is_not_overwritten(tmp_path):
    folder = room(tmp_path / "room", names="a", steps=3)
    before = (folder / "study.yaml").read_text()
    said = batch(folder, "data.path=photos/a.png", "--out", ".", code=2)
    assert "would be overwritten" in said
    assert (folder / "study.yaml").read_text() == before


@pytest.mark.slow
def test_a_full_disk_stops_no_job_and_the_tables_are_written_later(tmp_path, monkeypatch):
    folder = room(tmp_path, names="a")
    waits, count = os.fsync, itertools.count(1)

    def full(number):
        if next(count) > 8:  # the study and its first tables are written
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        waits(number)

    monkeypatch.setattr("inrkit.files.os.fsync", full)  # of the process that writes the tables, not of the workers
    said = batch(folder, code=1)
    assert "No space left on device; free some space or choose another folder; the jobs go on" in said
    assert said.splitlines()[-1].startswith("inrkit: cannot write")
    results = {path: path.stat().st_mtime_ns for path in folder.glob("out/runs/*/result.json")}
    assert len(results) == 2
    monkeypatch.setattr("inrkit.files.os.fsync", waits)
    batch(folder)
    assert {path: path.stat().st_mtime_ns for path in results} == results
    assert set(statuses(folder).values()) == {"done"}
