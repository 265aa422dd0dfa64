"""The commands as a user meets them: real processes on real files."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

QUICK = ["train.steps=6", "log.every=3", "network.hidden_features=16", "network.hidden_layers=1"]


def inrkit(*words: object, cwd, code: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-m", "inrkit", *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(float)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with a sample photo and a run of it."""
    folder = tmp_path_factory.mktemp("fitted")
    inrkit("sample", "image", "photo.png", cwd=folder)
    done = inrkit("fit", "photo.png", *QUICK, cwd=folder)
    (folder / "stderr").write_text(done.stderr)
    return folder


def test_a_fit_says_what_it_will_do_and_what_to_open(fitted):
    said = (fitted / "stderr").read_text()
    for words in (
        "65,536 coordinates",
        "parameters",
        "on cpu",
        "expects about",
        "GiB",
        "look at",
        "reconstruction.png",
    ):
        assert words in said
    assert "PSNR" in said


def test_a_run_leaves_its_files(fitted):
    run = fitted / "runs" / "photo"
    assert {path.name for path in run.iterdir()} == {
        "config.yaml",
        "metrics.jsonl",
        "result.json",
        "field.safetensors",
        "checkpoint.pt",
        "reconstruction.png",
    }
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "done"
    assert set(result) == {
        "status",
        "modality",
        "metrics",
        "steps",
        "parameters",
        "coordinates",
        "seconds",
        "device",
        "precision",
        "seed",
        "versions",
    }
    assert set(result["seconds"]) == {"total", "train", "selection", "evaluation"}
    assert set(result["metrics"]) == {"psnr", "ssim", "ms_ssim"}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    assert set(rows[0]) == {"step", "seconds", "psnr", "ssim", "ms_ssim"}


def test_the_reconstruction_has_the_metrics_that_are_told(fitted):
    run = fitted / "runs" / "photo"
    reconstruction = pixels(run / "reconstruction.png")
    target = pixels(fitted / "photo.png")
    psnr = 10 * np.log10(255**2 / np.mean((reconstruction - target) ** 2))
    told = json.loads((run / "result.json").read_text())["metrics"]["psnr"]
    assert psnr == pytest.approx(told, abs=0.05)
    evaluated = json.loads(inrkit("evaluate", "runs/photo", "--json", cwd=fitted).stdout)
    assert evaluated["psnr"] == pytest.approx(told, abs=1e-3)


def test_evaluate_takes_another_file_of_another_resolution(fitted):
    with Image.open(fitted / "photo.png") as picture:
        picture.resize((64, 64)).save(fitted / "small.png")
        picture.convert("L").save(fitted / "gray.png")
    done = inrkit("evaluate", "runs/photo", "--against", "small.png", cwd=fitted)
    assert "PSNR" in done.stdout
    refused = inrkit("evaluate", "runs/photo", "--against", "gray.png", cwd=fitted, code=2)
    assert "1 channels, and the field 2 and 3" in refused.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("big.png", ["--scale", "2"], (512, 512)),
        ("same.jpg", [], (256, 256)),
        ("wide.tif", ["--shape", "40,90"], (90, 40)),
        ("small.webp", ["--scale", "0.1"], (26, 26)),
    ],
)
def test_render_gives_any_resolution_in_any_format(fitted, name, arguments, size):
    inrkit("render", "runs/photo", name, *arguments, cwd=fitted)
    with Image.open(fitted / name) as picture:
        assert picture.size == size


def test_a_run_is_repeated_from_its_own_config(fitted):
    inrkit("fit", "runs/photo/config.yaml", "--out", "again", "--quiet", cwd=fitted)
    for name in ("field.safetensors", "reconstruction.png"):
        assert (fitted / "again" / name).read_bytes() == (fitted / "runs" / "photo" / name).read_bytes()


def test_a_second_fit_goes_beside_the_first(fitted):
    before = (fitted / "runs" / "photo" / "result.json").read_bytes()
    inrkit("fit", "photo.png", *QUICK, "--quiet", cwd=fitted)
    assert (fitted / "runs" / "photo-2" / "result.json").exists()
    assert (fitted / "runs" / "photo" / "result.json").read_bytes() == before


def test_quiet_says_nothing(fitted):
    done = inrkit("fit", "photo.png", *QUICK, "--quiet", "--out", "quiet", cwd=fitted)
    assert (done.stdout, done.stderr) == ("", "")


def test_copy_show_and_fit_one_s_own_config(fitted):
    inrkit("copy", "image", "my.yaml", cwd=fitted)
    text = (fitted / "my.yaml").read_text()
    assert inrkit("show", "image", cwd=fitted).stdout == text
    (fitted / "my.yaml").write_text(text + "\ndata: {path: photo.png}\n")
    inrkit("fit", "my.yaml", *QUICK, "--out", "own", "--quiet", cwd=fitted)
    assert json.loads((fitted / "own" / "result.json").read_text())["steps"] == 6
    refused = inrkit("copy", "image", "my.yaml", cwd=fitted, code=2)
    assert "exists already" in refused.stderr


def test_list_names_every_kind(fitted):
    done = inrkit("list", cwd=fitted)
    for words in (
        "modalities:",
        "  image ",
        "selectors:",
        "  evos ",
        "networks:",
        "  siren ",
        "configs:",
        "image-paper",
    ):
        assert words in done.stdout
    assert "\nevos " in inrkit("list", "selectors", cwd=fitted).stdout


@pytest.mark.parametrize("command", ["", "fit", "render", "evaluate", "batch", "list", "show", "copy", "sample"])
def test_every_command_has_help(command, tmp_path):
    done = inrkit(*([command] if command else []), "--help", cwd=tmp_path)
    assert "Usage: inrkit" in done.stdout
    if not command:
        for name in ("fit", "render", "evaluate", "batch", "list", "show", "copy", "sample"):
            assert f"\n  {name} " in done.stdout


def test_a_mistyped_command_suggests_the_nearest(tmp_path):
    done = inrkit("rendr", cwd=tmp_path, code=2)
    assert "Did you mean 'render'?" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes_to_the_uninterrupted_result(fitted, tmp_path, number):
    words = [
        "fit",
        str(fitted / "photo.png"),
        "train.steps=60",
        "log.every=20",
        "network.hidden_features=32",
        "selector=evos",
        "selector.interval_start=20",
        "selector.interval_end=10",
    ]
    inrkit(*words, "--out", "whole", "--quiet", cwd=tmp_path)
    command = [sys.executable, "-m", "inrkit", *words, "--out", "part"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("step 20/60"):
                break
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "go on with: inrkit fit part --resume" in said
    result = json.loads((tmp_path / "part" / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert 20 <= result["steps"] < 60
    inrkit("fit", "part", "--resume", "--quiet", cwd=tmp_path)
    for name in ("field.safetensors", "reconstruction.png"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    steps = [json.loads(line)["step"] for line in (tmp_path / "part" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [20, 40, 60]


def test_a_killed_run_resumes_from_its_last_checkpoint(fitted, tmp_path):
    words = ["fit", str(fitted / "photo.png"), "train.steps=40", "log.every=10", "network.hidden_features=32"]
    inrkit(*words, "--out", "whole", "--quiet", cwd=tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "inrkit", *words, "checkpoint.seconds=0", "--out", "part", "--quiet"], cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "part" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "part" / "result.json").exists()
    inrkit("fit", "part", "--resume", "--quiet", cwd=tmp_path)
    assert (tmp_path / "part" / "field.safetensors").read_bytes() == (tmp_path / "whole/field.safetensors").read_bytes()


def test_resuming_with_other_values_is_refused(fitted):
    done = inrkit("fit", "runs/photo", "--resume", "optimizer.lr=0.5", cwd=fitted, code=2)
    assert "optimizer.lr is 0.5" in done.stderr


def test_a_network_of_one_s_own_is_named_by_its_target(fitted, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import dataclasses, torch\n"
        "from inrkit import Network\n"
        "@dataclasses.dataclass\n"
        "class Options:\n"
        "    width: int = 8\n"
        "class Mine(Network):\n"
        "    Options = Options\n"
        "    def __init__(self, options, dimensions, channels):\n"
        "        super().__init__(options, dimensions, channels)\n"
        "        self.layer = torch.nn.Linear(dimensions, channels)\n"
        "    def forward(self, coordinates):\n"
        "        return self.layer(coordinates)\n"
    )
    inrkit("fit", fitted / "photo.png", "network=mine:Mine", "train.steps=2", "--out", "r", "--quiet", cwd=tmp_path)
    refused = inrkit("render", "r", "x.png", cwd=tmp_path, code=2)
    assert "--trust" in refused.stderr
    inrkit("render", "r", "x.png", "--trust", cwd=tmp_path)
    assert (tmp_path / "x.png").exists()
