"""tools/gpu_check.py where there is no GPU: it says so, and its checks run on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "gpu_check.py"


def gpu_check(*words: object, code: int = 0) -> tuple[dict, str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(TOOL), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout), done.stderr


def test_without_a_gpu_it_says_so_in_a_line_and_is_content():
    told, said = gpu_check()
    assert told["device"] is None
    assert told["checks"] == {}
    assert said.count("\n") == 1
    assert "no GPU" in said


@pytest.mark.slow
def test_every_check_passes_on_the_cpu_in_place_of_a_gpu():
    told, said = gpu_check("--device", "cpu")
    assert told["device"].startswith("cpu")
    failed = {name: outcome for name, outcome in told["checks"].items() if not outcome["passed"]}
    assert failed == {}, said
    checks = told["checks"]
    assert set(checks) == {
        "losses",
        "selections",
        "resume",
        "move",
        "deterministic",
        "main_memory",
        "evaluation",
        "portable",
        "waits",
        "captured",
        "target",
        "steps",
        "fused",
        "throughput",
        "fits",
        "table1",
    }
    assert checks["resume"]["exact"]
    assert set(checks["steps"]["reports"]) == {"float32", "bfloat16"}
    for name in ("tiles", "published network"):
        curve = checks["target"][name]["curve"]
        assert curve == sorted(curve)
        assert checks["target"][name]["psnr"] == curve[-1][1]
    for rates in checks["throughput"]["coordinates_per_second"].values():
        assert rates["training"] > 0 < rates["rendering"]
    assert checks["table1"]["left_out"] == [] and checks["fits"]["left_out"] == 0
    evos = checks["table1"]["rows"]["EVOS"]
    assert evos["published"]["psnr@5000"] == 37.81 and evos["psnr@6"] == evos["psnr"]


def test_a_target_that_is_met_is_timed_and_one_that_is_not_is_null(tmp_path):
    told, said = gpu_check("--device", "cpu", "--only", "target", "--target", "1")
    recipe = told["checks"]["target"]["tiles"]
    assert list(told["checks"]) == ["target"]
    assert recipe["seconds_to_target"] == recipe["curve"][0][0]
    assert recipe["aim_met"] is (recipe["seconds_to_target"] <= told["checks"]["target"]["aim"])
    assert "1 dB reached in" in said


def test_a_failed_check_is_told_and_is_exit_code_1(tmp_path):
    told, said = gpu_check(
        "--device", "cpu", "--image", tmp_path / "none.png", "--only", "evaluation", "--only", "selections", code=1
    )
    assert not any(outcome["passed"] for outcome in told["checks"].values())
    assert "none.png" in told["checks"]["evaluation"]["error"]
    assert "evaluation: FAILED" in said


@pytest.mark.slow
def test_what_the_time_does_not_allow_is_left_out_and_says_so():
    told, said = gpu_check("--device", "cpu", "--seconds", "1", "--only", "losses", "--only", "table1")
    assert [outcome["left_out"] for outcome in told["checks"].values()] == ["no time was left"] * 2
    assert "table1: no time was left" in said
