"""The commands as a user meets them: in this process, and where that is the promise in one of its own."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import inrkit.cli

QUICK = ["train.steps=6", "log.every=3", "network.hidden_features=16", "network.hidden_layers=1"]


class Outcome(NamedTuple):
    stdout: str
    stderr: str


def ended(code: int, expected: int, stdout: str, stderr: str) -> Outcome:
    assert code == expected, stderr
    assert "Traceback" not in stderr
    return Outcome(stdout, stderr)


def call(*words: object, cwd, code: int = 0) -> Outcome:
    """The command, in this process, with its folder and exit code."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["inrkit", *map(str, words)]
    try:
        with (
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as left,
        ):
            inrkit.cli.main()
    finally:
        sys.argv = before
    return ended(left.value.code or 0, code, out.getvalue(), err.getvalue())


def spawn(*words: object, cwd, code: int = 0) -> Outcome:
    """The command, in a process of its own."""
    command = [sys.executable, "-m", "inrkit", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return ended(done.returncode, code, done.stdout, done.stderr)


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(float)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with a sample photo and a run of it."""
    folder = tmp_path_factory.mktemp("fitted")
    call("sample", "image", "photo.png", cwd=folder)
    done = spawn("fit", "photo.png", *QUICK, cwd=folder)
    (folder / "stderr").write_text(done.stderr)
    return folder


def test_a_fit_says_what_it_will_do_and_what_to_open(fitted):
    said = (fitted / "stderr").read_text()
    for words in (
        "65,536 coordinates",
        "parameters",
        "on cpu",
        "expects about",
        "MiB",
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
        "report.html",
        "trace.npz",
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
        "signal",
        "seconds",
        "device",
        "precision",
        "seed",
        "versions",
        "notes",
    }
    assert set(result["seconds"]) == {"total", "train", "selection", "evaluation"}
    assert set(result["metrics"]) == {"psnr", "between", "ssim", "ms_ssim"}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    assert set(rows[0]) == {"step", "seconds", "psnr", "between", "ssim", "ms_ssim"}


def test_the_reconstruction_has_the_metrics_that_are_told(fitted):
    run = fitted / "runs" / "photo"
    reconstruction = pixels(run / "reconstruction.png")
    target = pixels(fitted / "photo.png")
    psnr = 10 * np.log10(255**2 / np.mean((reconstruction - target) ** 2))
    told = json.loads((run / "result.json").read_text())["metrics"]["psnr"]
    assert psnr == pytest.approx(told, abs=0.05)
    evaluated = json.loads(call("evaluate", "runs/photo", "--json", cwd=fitted).stdout)
    assert evaluated["psnr"] == pytest.approx(told, abs=1e-3)


def test_evaluate_takes_another_file_of_another_resolution(fitted):
    with Image.open(fitted / "photo.png") as picture:
        picture.resize((64, 64)).save(fitted / "small.png")
        picture.convert("L").save(fitted / "gray.png")
    done = call("evaluate", "runs/photo", "--against", "small.png", cwd=fitted)
    assert "PSNR" in done.stdout
    refused = call("evaluate", "runs/photo", "--against", "gray.png", cwd=fitted, code=2)
    assert "1 channels, but the field has 2 and 3" in refused.stderr


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
    call("render", "runs/photo", name, *arguments, cwd=fitted)
    with Image.open(fitted / name) as picture:
        assert picture.size == size


def test_a_compressed_run_renders_and_evaluates_like_any_other(fitted):
    said = call("compress", "runs/photo", "small.inr", "--size", "3kB", "--steps", "2", cwd=fitted).stdout
    size = (fitted / "small.inr").stat().st_size
    assert size <= 3000
    assert f"{size:,} bytes" in said and "bits a value" in said
    before, after = (float(number) for number in re.findall(r"PSNR ([\d.]+) dB", said))
    call("render", "small.inr", "small.png", cwd=fitted)
    error = np.square(pixels(fitted / "small.png") - pixels(fitted / "photo.png")).mean()
    assert 10 * np.log10(255**2 / error) == pytest.approx(after, abs=0.1)
    assert after <= before + 1
    measured = json.loads(call("evaluate", "small.inr", "--against", "photo.png", "--json", cwd=fitted).stdout)
    assert measured["psnr"] == pytest.approx(after, abs=0.01)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["compress", "runs/photo", "none.inr", "--size", "3 pounds"], "--size is '3 pounds'"),
        (["compress", "runs/photo", "none.inr", "--size", "9" * 400], "--size is '999"),
        (["render", "runs/photo", "photo.png"], "would be lost"),
        (["compress", "runs/photo", "none.inr", "--db", "99"], "the run itself has"),
        (["compress", "runs/photo", "none.inr", "--db", "9", "--bits", "4"], "give one of"),
        (["compress", "runs/photo", "nowhere/none.inr"], "is not a folder"),
        (["compress", "runs/none", "none.inr"], "runs/none"),
        (["evaluate", "runs/photo/field.safetensors"], "add --against"),
    ],
)
def test_a_compression_that_cannot_be_is_told_in_a_line(fitted, words, told):
    stderr = call(*words, cwd=fitted, code=2).stderr
    assert told in stderr and len(stderr.splitlines()) == 1
    assert not (fitted / "none.inr").exists()


def test_a_run_is_repeated_from_its_own_config(fitted):
    call("fit", "runs/photo/config.yaml", "--out", "again", "--quiet", cwd=fitted)
    for name in ("field.safetensors", "reconstruction.png"):
        assert (fitted / "again" / name).read_bytes() == (fitted / "runs" / "photo" / name).read_bytes()


def test_a_second_fit_goes_beside_the_first(fitted):
    before = (fitted / "runs" / "photo" / "result.json").read_bytes()
    call("fit", "photo.png", *QUICK, "--quiet", cwd=fitted)
    assert (fitted / "runs" / "photo-2" / "result.json").exists()
    assert (fitted / "runs" / "photo" / "result.json").read_bytes() == before


def test_quiet_says_nothing(fitted):
    done = call("fit", "photo.png", *QUICK, "--quiet", "--out", "quiet", cwd=fitted)
    assert (done.stdout, done.stderr) == ("", "")


def test_copy_show_and_fit_one_s_own_config(fitted):
    call("copy", "image-single", "my.yaml", cwd=fitted)
    text = (fitted / "my.yaml").read_text()
    assert call("show", "image-single", cwd=fitted).stdout == text
    (fitted / "my.yaml").write_text(text + "\ndata: {path: photo.png}\n")
    assert "name: wire" in call("show", "image", "network=wire", cwd=fitted).stdout
    call("fit", "my.yaml", *QUICK, "--out", "own", "--quiet", cwd=fitted)
    assert json.loads((fitted / "own" / "result.json").read_text())["steps"] == 6
    refused = call("copy", "image-single", "my.yaml", cwd=fitted, code=2)
    assert "exists already" in refused.stderr


def test_list_names_every_kind(fitted):
    done = call("list", cwd=fitted)
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
    assert "\nevos " in call("list", "selectors", cwd=fitted).stdout


def test_a_field_is_exported_and_the_command_says_how(fitted):
    done = call("export", ".", "field.glsl", cwd=fitted / "runs" / "photo")
    assert done.stdout.startswith("field.glsl: ")
    assert "keeps physical coordinates (pixel)" in done.stdout
    assert "vec3 field(vec2 x)" in (fitted / "runs" / "photo" / "field.glsl").read_text(encoding="utf-8")


COMMANDS = (
    "fit",
    "batch",
    "pack",
    "render",
    "export",
    "report",
    "cite",
    "evaluate",
    "compress",
    "list",
    "show",
    "copy",
    "sample",
    "benchmark",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, tmp_path):
    said = call(command, "--help", cwd=tmp_path).stdout
    assert said.startswith(f"Usage: inrkit {command} ")
    for parameter in inrkit.cli.inrkit.commands[command].params:
        assert max(parameter.opts) in said or parameter.human_readable_name in said
    assert call(command, "-h", cwd=tmp_path).stdout == said


def test_the_help_lists_every_command(tmp_path):
    assert set(inrkit.cli.inrkit.commands) == set(COMMANDS)
    said = call("--help", cwd=tmp_path).stdout
    assert said.startswith("Usage: inrkit ")
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\w", said, re.MULTILINE)


def test_a_process_says_its_help_on_stdout_and_a_wrong_word_on_stderr(tmp_path):
    assert spawn("fit", "--help", cwd=tmp_path) == call("fit", "--help", cwd=tmp_path)
    wrong = spawn("rendr", cwd=tmp_path, code=2)
    assert wrong == call("rendr", cwd=tmp_path, code=2)
    assert wrong.stdout == ""


def test_a_mistyped_command_suggests_the_nearest(tmp_path):
    done = call("rendr", cwd=tmp_path, code=2)
    assert "Did you mean 'render'?" in done.stderr


LONG = [
    "train.steps=60",
    "log.every=20",
    "network.hidden_features=32",
    "network.hidden_layers=1",
    "selector=evos",
    "selector.interval_start=20",
    "selector.interval_end=10",
]


@pytest.fixture(scope="module")
def whole(fitted):
    """The run of a fit that nothing disturbed."""
    call("fit", "photo.png", *LONG, "--out", "whole", "--quiet", cwd=fitted)
    return fitted / "whole"


def equal(run, whole):
    for name in ("field.safetensors", "reconstruction.png"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [20, 40, 60]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes_to_the_uninterrupted_result(fitted, whole, tmp_path, number):
    command = [sys.executable, "-m", "inrkit", "fit", str(fitted / "photo.png"), *LONG, "--out", "part"]
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
    call("fit", "part", "--resume", "--quiet", cwd=tmp_path)
    equal(tmp_path / "part", whole)


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_last_checkpoint(fitted, whole, tmp_path):
    words = ["fit", str(fitted / "photo.png"), *LONG, "checkpoint.seconds=0", "--out", "part", "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "inrkit", *words], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "part" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "part" / "result.json").exists()
    call("fit", "part", "--resume", "--quiet", cwd=tmp_path)
    equal(tmp_path / "part", whole)


def test_resuming_with_other_values_is_refused(fitted):
    done = call("fit", "runs/photo", "--resume", "optimizer.lr=0.5", cwd=fitted, code=2)
    assert "optimizer.lr is 0.5" in done.stderr


def test_a_network_of_one_s_own_is_named_by_its_target(fitted, tmp_path, monkeypatch):
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
    # A real `python -m inrkit` looks for modules in the present folder.
    spawn("fit", fitted / "photo.png", "network=mine:Mine", "train.steps=2", "--out", "r", "--quiet", cwd=tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    refused = call("render", "r", "x.png", cwd=tmp_path, code=2)
    assert "--trust" in refused.stderr
    assert "mine" not in sys.modules
    call("render", "r", "x.png", "--trust", cwd=tmp_path)
    assert (tmp_path / "x.png").exists()
