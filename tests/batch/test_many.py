"""Many small signals in one study: what each job takes and leaves, and what is shown of all."""

from dataclasses import asdict

import pytest

import inrkit
from inrkit.batch import Task, read_study, summary
from inrkit.batch.display import BatchDisplay
from inrkit.batch.job import _config_of, perform
from inrkit.batch.results import Results, State
from inrkit.config import resolve


def state_of(psnr, seconds=2.0):
    return State("done", None, {"metrics": {"psnr": psnr}, "seconds": {"train": seconds}})


@pytest.fixture
def jobs(study):
    return study(matrix={"data.path": "photos/a.png", "seed": list(range(8))}).main_jobs()


@pytest.fixture
def display(tmp_path, jobs, monkeypatch):
    """A display off a terminal, whose clock stands until it is set."""
    clock = [100.0]
    monkeypatch.setattr("inrkit.batch.display.time.monotonic", lambda: clock[0])
    shown = BatchDisplay(Results(tmp_path / "out", ["data.path", "seed"]), quiet=False)
    shown.clock = clock
    return shown


def test_jobs_that_train_together_are_a_line_with_their_mean_and_the_pace(display, jobs, capsys):
    display.expect(8)
    display.started(jobs[:4])
    display.clock[0] += 2
    display.ended(jobs[:4], [state_of(psnr) for psnr in (30.0, 31.0, 32.0, 33.0)])
    started, ended = capsys.readouterr().err.splitlines()
    assert started.startswith("started  4 jobs: photos/a.png  seed=0 … photos/a.png  seed=3")
    assert "31.50 dB  8 s  (4 left, 2 a second, about 2 s)" in ended


def test_a_job_that_fails_among_others_has_its_own_line(display, jobs, capsys):
    display.expect(8)
    display.started(jobs[:3])
    display.ended(jobs[:3], [state_of(30.0), State("failed", "no picture"), state_of(32.0)])
    told = capsys.readouterr().err.splitlines()
    assert sum("done     2 jobs" in line and "31.00 dB" in line for line in told) == 1
    assert sum("failed" in line and "seed=1: no picture" in line for line in told) == 1


def test_a_perfect_fit_is_shown(display, jobs, capsys):
    display.started(jobs[:1])
    display.ended(jobs[:1], [state_of(None)])  # JSON has no infinity
    assert "inf dB" in capsys.readouterr().err


def test_few_jobs_are_told_by_the_minute_or_the_hour(display, jobs, capsys):
    for seconds, told in ((40, "3 a minute"), (4000, "1.8 an hour")):
        display._begun, display._ended = None, 0
        display.expect(8)
        display.started(jobs[:2])
        display.clock[0] += seconds
        display.ended(jobs[:2], [state_of(30.0)] * 2)
        assert f"{told}, about" in capsys.readouterr().err


def test_a_table_of_many_groups_looks_at_each_job_a_few_times(study, tmp_path, monkeypatch):
    steps = list(range(1, 41))
    asked = study(matrix={"data.path": "photos/*.png", "train.steps": steps})
    results = Results(tmp_path / "out", asked.columns)
    results.jobs = asked.main_jobs()
    for job in results.jobs:
        psnr = job.config["train"]["steps"] + ("b.png" in job.cell["data.path"])
        monkeypatch.setitem(results._states, job.id, state_of(float(psnr)))
    looked, labels = [], summary.labels
    monkeypatch.setattr(summary, "labels", lambda job, axes: looked.append(job) or labels(job, axes))
    lines = summary.summarise(asked, results).splitlines()
    assert len(looked) <= 10 * len(results.jobs)  # and not once for each job and group
    rows = [line.split("|")[1:4] for line in lines if "±" in line and line.startswith("| ")]
    # Each group is of two files, whose PSNRs are the steps and one more.
    assert [[cell.strip(" *") for cell in row] for row in rows] == [
        [str(number), "2", f"{number + 0.5:.2f}" + ("** ± 0.71" if number == 40 else " ± 0.71")] for number in steps
    ]


def test_jobs_of_other_files_have_the_configs_that_they_have_alone(study):
    jobs = study(matrix={"data.path": "photos/*.png", "selector": ["full", "evos"]}).main_jobs()
    configs = [_config_of(asdict(Task(job.id, "/runs/x", job.config))) for job in jobs]
    assert [config.to_dict() for config in configs] == [resolve([job.config]).to_dict() for job in jobs]
    options = {id(config.network.options) for config in configs}
    assert len(options) == len(jobs)  # what one fit may change is not another's


def test_thumbnails_leave_what_learning_from_their_weights_takes(photos):
    asked = read_study("thumbnails", ["data.path=photos/*.png", "train.steps=2", "log.every=2", "device=cpu"])
    assert asked.batch.together > 1
    tasks = [Task(job.id, str(photos / job.id), job.config) for job in asked.main_jobs()]
    done = perform(asdict(Task(tasks[0].id, tasks[0].folder, tasks[0].config, beside=tuple(tasks[1:]))))
    assert {each["status"] for each in done["each"].values()} == {"done"}
    for task in tasks:
        assert {path.name for path in (photos / task.id).iterdir()} <= {
            "config.yaml",
            "field.safetensors",
            "log.txt",
            "metrics.jsonl",
            "result.json",
        }
        assert inrkit.load(photos / task.id).render().shape == (16, 16, 3)


def test_a_run_without_its_last_checkpoint_goes_on_after_an_interruption_and_ends_the_same(photos):
    class Stop(inrkit.Listener):
        def on_step(self, member, selected):
            if member.step == 3:
                member.stop()

    keys = {
        "network": {"name": "siren", "hidden_features": 8},
        "steps": 6,
        "every": 2,
        "device": "cpu",
        "report": False,
    }
    whole = inrkit.fit("photos/a.png", out="whole", **keys)
    assert (whole.folder / "checkpoint.pt").exists()
    keys["checkpoint"] = {"keep": False}
    run = inrkit.fit("photos/a.png", out="run", callbacks=[Stop()], **keys)
    assert (run.folder / "checkpoint.pt").exists()
    assert run.result["status"] == "interrupted"
    run = inrkit.fit("run", resume=True)
    assert run.metrics == whole.metrics
    assert not (run.folder / "checkpoint.pt").exists()
    with pytest.raises(inrkit.DataError, match=r"no checkpoint.pt to resume from"):
        inrkit.fit("run", resume=True, steps=8)


@pytest.mark.parametrize("together", [False, True])
def test_jobs_wait_for_what_a_killed_study_left_and_finish_it(study, tmp_path, monkeypatch, together):
    monkeypatch.setattr("inrkit.batch.job._PATIENCE", 0.1)
    jobs = study(matrix={"data.path": "photos/a.png", "seed": [0, 1]}).main_jobs()
    runs = [Results(tmp_path, []).run(job) for job in jobs]
    one, other = (Task(job.id, str(run.folder), job.config) for job, run in zip(jobs, runs, strict=True))
    both = asdict(Task(one.id, one.folder, one.config, beside=(other,)))

    def performed():
        ended = [perform(task) for task in ([both] if together else [asdict(one), asdict(other)])]
        return list(ended[0]["each"].values()) if together else ended

    half = runs[1].folder / "metrics.jsonl"
    half.parent.mkdir(parents=True)
    half.write_text("what a worker writes before it ends")
    with runs[1].locked():
        told = performed()
        assert [each["status"] for each in told] == ["done", "failed"]
        assert "is being fitted by another process" in told[1]["error"]
        assert half.read_text().startswith("what")
    assert [each["status"] for each in performed()] == ["done", "done"]
    # One that was cut short after its result, and before its page.
    result = runs[1].result
    with pytest.raises(KeyboardInterrupt), runs[1].locked():
        (runs[1].folder / "report.html").unlink()
        raise KeyboardInterrupt
    assert [Results(tmp_path, []).state(job).status for job in jobs] == ["done", "interrupted"]
    assert [each["status"] for each in performed()] == ["done", "done"]
    assert (runs[1].folder / "report.html").exists()
    assert runs[1].result["metrics"] == result["metrics"]
    assert [Results(tmp_path, []).state(job).status for job in jobs] == ["done", "done"]
