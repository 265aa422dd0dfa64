"""The tools that kill fits and change files, for a moment each; `tools/kill.py` and `tools/fuzz.py` do it for long."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


def run(*words) -> str:
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "kills", "cold"),
    [("tiles-selector-evos", 2, 0), ("together-evos", 1, 0), ("read-only", 1, 0), ("study-together", 1, 0)],
)
def test_killed_fits_end_as_undisturbed_ones(case, kills, cold):
    told = run(TOOLS / "kill.py", "--only", case, "--kills", kills, "--cold", cold, "--minutes", 20)
    assert "0 faults" in told and not told.endswith("\n0 kills, 0 faults\n")


@pytest.mark.slow
def test_changed_files_are_read_or_refused(tmp_path):
    assert " 0 faults" in run(TOOLS / "fuzz.py", "--minutes", 0.4, "--keep", tmp_path)
