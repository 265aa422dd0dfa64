"""What holds for every launcher, and a launcher of one's own as the docs show it."""

import json
import re
import statistics
from pathlib import Path

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


def test_jobs_that_train_together_may_take_as_long_as_they_may_alone():
    launcher = Local(LocalOptions(workers=1), JobOptions(limit=8))
    one, other = Task("1", "/runs/1", {}), Task("2", "/runs/2", {})
    both = Task("1", "/runs/1", {}, beside=(other,))
    assert (launcher.seconds(one), launcher.seconds(both)) == (8, 16)
    assert (launcher.limit_of(one), launcher.limit_of(both)) == ("job.limit=8 s", "job.limit=8 s for each of 2")
