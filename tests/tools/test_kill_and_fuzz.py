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
def test_killed_fits_end_as_undisturbed_ones():
    assert "0 faults" in run(TOOLS / "kill.py", "--only", "selector-evos", "--kills", 2, "--minutes", 2)
    assert "0 faults" in run(TOOLS / "kill.py", "--only", "tiles-recover", "--kills", 2, "--minutes", 2)
    assert "0 faults" in run(TOOLS / "kill.py", "--only", "together-evos", "--kills", 1, "--minutes", 2)


@pytest.mark.slow
def test_changed_files_are_read_or_refused(tmp_path):
    assert " 0 faults" in run(TOOLS / "fuzz.py", "--minutes", 0.3, "--keep", tmp_path)
