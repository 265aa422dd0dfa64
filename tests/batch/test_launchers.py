"""What holds for every launcher, and a launcher of one's own as the docs show it."""

import contextlib
import json
import re
import statistics
from pathlib import Path

import pytest
from pebble.pool import process

from inrkit import RunError
from inrkit.batch import JobOptions, Task, run_study
from inrkit.batch.launchers.local import Local, LocalOptions

ROOT = Path(__file__).parents[2]


def test_the_launcher_of_the_docs_runs_a_study_and_a_limit_leaves_the_rest_pending(photos, study):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "batch.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "Launcher" in block]
    names = {"__name__": "docs_batch"}
    exec(block, names)
    asked = study(["launcher=here", "log.every=2"], table={"at": [4]})
    half = photos / "out" / ".99999999-results.jsonl"  # what was being written when the study was killed
    half.parent.mkdir()
    half.touch()
    assert run_study(asked, photos / "out", limit=1) == 0
    assert not half.exists()
    assert [json.loads(line)["status"] for line in Path("out/results.jsonl").read_text().splitlines()] == [
        "done",
        "pending",
    ]
    assert run_study(asked, photos / "out") == 0
    rows = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["done", "done"]
    mean = statistics.fmean(row["psnr"] for row in rows)
    assert f"| {asked.name} | 2 | {mean:.2f} ± " in Path("out/summary.md").read_text()


@pytest.mark.parametrize("failures", [2, 99])
def test_workers_that_cannot_be_started_are_tried_again_and_then_told_of_in_a_line(failures, monkeypatch):
    start = process.launch_process
    tries = []

    def launch(*given):
        tries.append(given)
        if len(tries) <= failures:
            raise EOFError("unexpected EOF")
        return start(*given)

    monkeypatch.setattr(process, "launch_process", launch)
    told = pytest.raises(RunError, match=r"cannot be started \(EOFError: unexpected EOF\); try fewer with --workers")
    with told if failures > 3 else contextlib.nullcontext(), Local(LocalOptions(workers=1), JobOptions()):
        pass
    assert len(tries) == 3


def test_jobs_that_train_together_may_take_as_long_as_they_may_alone():
    launcher = Local(LocalOptions(workers=1), JobOptions(limit=8))
    one, other = Task("1", "/runs/1", {}), Task("2", "/runs/2", {})
    both = Task("1", "/runs/1", {}, beside=(other,))
    assert (launcher.seconds(one), launcher.seconds(both)) == (8, 16)
    assert (launcher.limit_of(one), launcher.limit_of(both)) == ("job.limit=8 s", "job.limit=8 s for each of 2")
