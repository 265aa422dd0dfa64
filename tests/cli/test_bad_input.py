"""What users do wrong, and what the machine refuses them, is told in a line or two and destroys nothing."""

import contextlib
import io
import json
import math
import os
import pickle
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load, save_file

import inrkit.cli
from inrkit import Run

QUICK = ["train.steps=2", "network.hidden_features=8", "network.hidden_layers=1"]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@contextlib.contextmanager
def full_disk(free: int):
    """No file can grow beyond `free` bytes: the kernel refuses it, as it does where no space is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def call(*words) -> Outcome:
    """The command, in this process."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["inrkit", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
            inrkit.cli.main()
    finally:
        sys.argv = before
    return Outcome(left.value.code or 0, out.getvalue(), err.getvalue())


def spawn(*words) -> Outcome:
    """The command, in a process of its own."""
    command = [sys.executable, "-m", "inrkit", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its bytes, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def told(outcome: Outcome, code: int, *said: str, lines: int = 1) -> None:
    """The outcome is an error with this exit code, told in so many lines, which hold these words."""
    assert outcome.code == code, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("inrkit: ")
    assert len(outcome.err.splitlines()) == lines, outcome.err
    for trace in ("Traceback", 'File "', "fault of inrkit"):
        assert trace not in outcome.err
    for words in said:
        assert words in outcome.err


def refused(*words, said: tuple[str, ...], lines: int = 1) -> None:
    """The command finds the request wrong, says so, and leaves everything as it was."""
    before = contents(Path.cwd())
    told(call(*words), 2, *said, lines=lines)
    assert contents(Path.cwd()) == before


def finished(outcome: Outcome) -> None:
    assert outcome.code == 0, outcome.err


def strict_json(text: str):
    """What a text says in standard JSON, which knows no infinity."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working folder with one good picture in it."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise(12, 10, 3)).save("photo.png")
    return tmp_path


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A run's folder, for `run` to copy from."""
    folder = tmp_path_factory.mktemp("finished")
    Image.fromarray(noise(12, 10, 3)).save(folder / "photo.png")
    finished(call("fit", folder / "photo.png", "--out", folder / "run", "--quiet", *QUICK))
    return folder / "run"


@pytest.fixture
def run(finished_run):
    """A finished run in the working folder, free to damage."""
    shutil.copytree(finished_run, "run")
    return Path("run")


# The signal's file


def damaged_picture(name: str, format: str, keep: float) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(12, 10, 3)).save(buffer, format)
    Path(name).write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * keep)])


def test_a_missing_file_is_named():
    refused("fit", "missing.png", said=("missing.png does not exist", "check the path"))
    refused("fit", "no/such/folder.png", said=("no/such/folder.png does not exist",))
    refused("fit", "photo.png/inside.png", said=("photo.png/inside.png does not exist",))
    refused("fit", "missing.xyz", said=("missing.xyz does not exist",))
    refused("fit", "image", "data.path=missing.png", said=("missing.png does not exist",))


def test_an_empty_file_is_said_to_be_empty():
    for name in ("empty.png", "empty.npy", "empty.tif"):
        Path(name).touch()
        refused("fit", name, said=(f"{name} is empty", "check how it was written"))


@pytest.mark.parametrize("keep", [0.5, 0.9])
@pytest.mark.parametrize(
    ("name", "format"),
    [("cut.png", "PNG"), ("cut.jpg", "JPEG"), ("cut.tif", "TIFF"), ("cut.webp", "WEBP"), ("cut.bmp", "BMP")],
)
def test_a_truncated_picture_is_a_one_line_error(name, format, keep):
    damaged_picture(name, format, keep)
    refused("fit", name, said=(name, "check that it opens elsewhere"))


def test_a_truncated_picture_is_a_one_line_error_of_a_real_process():
    damaged_picture("cut.png", "PNG", 0.7)
    told(spawn("fit", "cut.png"), 2, "cut.png is damaged or truncated", "check that it opens elsewhere")
    assert not Path("runs").exists()


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp", "npy"])
def test_a_text_with_the_suffix_of_an_image_is_a_one_line_error(suffix):
    Path(f"text.{suffix}").write_text("these are words and no pixels\n" * 20)
    refused("fit", f"text.{suffix}", said=(f"text.{suffix}", "check that it opens elsewhere"))


@pytest.mark.parametrize("name", ["photo.qqq", "photo", "photo.png.bak"])
def test_an_unknown_suffix_says_how_to_name_the_modality(name):
    shutil.copy("photo.png", name)
    refused("fit", name, said=(name, "modality=", "image", f"data.path={name}", "png"))
    finished(call("fit", "image", f"data.path={name}", "--quiet", *QUICK))


@pytest.mark.parametrize("name", ["folder.png", "folder.npy", "folder"])
def test_a_folder_in_place_of_a_file_is_a_one_line_error(name):
    Path(name).mkdir()
    refused("fit", "image", f"data.path={name}", said=(f"{name} cannot be read: Is a directory", "check the path"))


def test_a_file_that_may_not_be_read_is_a_one_line_error(monkeypatch):
    real = Path.open

    def guarded(self, *arguments, **options):
        if self.name == "photo.png":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", guarded)
        outcome = call("fit", "photo.png")
    told(outcome, 2, "photo.png cannot be read: Permission denied")


@pytest.mark.parametrize("suffix", ["png", "npy", "tif", "wav", "obj", "csv", "npz", "nii.gz", "gif", "mp4", "glb"])
def test_a_pipe_in_place_of_a_file_is_a_one_line_error(suffix):
    os.mkfifo(f"pipe.{suffix}")
    said = (f"pipe.{suffix} cannot be read", "a pipe or a device", "check the path")
    told(call("fit", f"pipe.{suffix}"), 2, *said)
    Path("study.yaml").write_text(f"set: {{data.path: photo.png}}\nmatrix: {{data.path: [pipe.{suffix}]}}\n")
    assert call("batch", "study.yaml", "--workers", "1", *QUICK).code == 1


@pytest.mark.parametrize("target", ["loop.png", "dangling.png"])
def test_a_link_to_nowhere_does_not_exist(target):
    Path("loop.png").symlink_to("loop.png")
    Path("dangling.png").symlink_to("gone.png")
    told(call("fit", target), 2, f"{target} does not exist")


@pytest.mark.parametrize(
    "name",
    ["[red]photo.png", "a=b.png", "~photo.png", "фото ♥.png", "a: b #.png", "[/bold]/photo.png"],
)
def test_odd_names_are_names_like_any_other(name):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy("photo.png", name)
    outcome = call("fit", name, "--out", "[/runs]/odd", *QUICK)
    finished(outcome)
    assert name in outcome.err
    assert "look at [/runs]/odd/reconstruction.png" in outcome.err
    finished(call("fit", "[/runs]/odd/config.yaml", "--out", "again", "--quiet"))
    finished(call("evaluate", "[/runs]/odd"))
    assert Path("again/field.safetensors").read_bytes() == Path("[/runs]/odd/field.safetensors").read_bytes()


def test_a_name_that_no_config_could_hold_is_refused():
    name = os.fsdecode(b"\xff\xfe.png")
    try:
        shutil.copy("photo.png", name)
    except OSError:
        pytest.skip("the file system has names in UTF-8 only")
    refused("fit", name, said=("is not UTF-8", "rename the file"))


def test_a_name_that_is_too_long_is_a_one_line_error():
    told(call("fit", "photo.png", "--out", "x" * 300, *QUICK), 1, "File name too long")
    told(call("fit", "x" * 300 + ".png", *QUICK), 1, "File name too long")


# Small and plain signals


@pytest.mark.parametrize(
    ("shape", "selector"), [((1, 1), "evos"), ((1, 9), "evos"), ((9, 1), "evos"), ((1, 1), "uniform"), ((1, 1), "full")]
)
def test_the_smallest_images_fit(shape, selector):
    Image.fromarray(noise(*shape, 3)).save("small.png")
    finished(call("fit", "small.png", "--out", "run", f"selector={selector}", "objective=mse", *QUICK))
    assert strict_json(Path("run/result.json").read_text())["status"] == "done"
    with Image.open("run/reconstruction.png") as picture:
        assert picture.size == shape[::-1]
    finished(call("evaluate", "run"))
    finished(call("render", "run", "out.png", "--shape", "3,4"))


CONSTANT = {
    "black": np.zeros((12, 10, 3), np.uint8),
    "white": np.full((12, 10), 255, np.uint8),
    "deep": np.full((12, 10, 4), 77, np.uint16),
    "real": np.full((12, 10), 3.5, np.float32),
    "zero": np.zeros((12, 10)),
    "false": np.zeros((12, 10), bool),
    "whole": np.full((12, 10), -(2**40), np.int64),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_constant_images_fit(name):
    np.save("plain.npy", CONSTANT[name])
    finished(call("fit", "plain.npy", "--out", "run", *QUICK))
    assert math.isfinite(strict_json(Path("run/result.json").read_text())["seconds"]["total"])
    for row in Path("run/metrics.jsonl").read_text().splitlines():
        strict_json(row)


@pytest.fixture
def exact():
    """A run whose reconstruction equals its signal: float32 has no room for the network's part."""
    array = np.full((12, 10), 1e9, np.float32)
    np.save("plain.npy", array)
    finished(call("fit", "plain.npy", "--out", "run", *QUICK))
    np.testing.assert_array_equal(np.load("run/reconstruction.npy"), array)
    return Run("run")


def test_an_infinite_psnr_is_null_in_json_and_infinite_in_python(exact):
    assert strict_json((exact.folder / "result.json").read_text())["metrics"]["psnr"] is None
    assert strict_json((exact.folder / "metrics.jsonl").read_text())["psnr"] is None
    assert exact.metrics["psnr"] == exact.history[-1]["psnr"] == math.inf


def test_an_infinite_psnr_is_told_and_survives_a_resume(exact):
    for outcome in (call("evaluate", "run"), call("fit", "run", "--resume")):
        finished(outcome)
        assert "PSNR inf dB" in outcome.out + outcome.err
    outcome = call("evaluate", "run", "--json")
    assert strict_json(outcome.out)["psnr"] is None
    assert strict_json((exact.folder / "result.json").read_text())["metrics"]["psnr"] is None


# Arrays


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_that_is_no_number_is_found_and_placed(value, dtype):
    array = noise(12, 10, 3).astype(dtype)
    with np.errstate(over="ignore"):
        array[4, 7, 1] = value
    np.save("array.npy", array)
    infinite = ("NaN or infinite", "numpy.nan_to_num")
    said = infinite if np.isinf(array).any() else ("beyond float32", "below 1e38")
    refused("fit", "array.npy", said=("array.npy", "index (4, 7)", *said))


UNUSABLE = {
    "unknown": (np.full((4, 5), np.nan), "no value is known"),
    "text": (np.array([["a", "b"]]), "<U1"),
    "bytes": (np.array([[b"a", b"b"]]), "|S1"),
    "dates": (np.zeros((4, 5), "M8[s]"), "datetime64"),
    "records": (np.zeros((4, 5), [("x", "f4")]), "'x'"),
    "objects": (np.array([[1, None]], dtype=object), "objects"),
    "huge": (np.full((4, 5), 2**64 - 1, np.uint64), "float64"),
    "four axes": (np.zeros((2, 3, 4, 5)), "(2, 3, 4, 5)"),
    "one axis": (np.zeros(7), "(7,)"),
    "no axis": (np.float32(1.5), "()"),
    "channels first": (np.zeros((3, 20, 30)), "(3, 20, 30)"),
    "no rows": (np.zeros((0, 4)), "(0, 4)"),
    "no columns": (np.zeros((4, 0, 3)), "(4, 0, 3)"),
    "no channels": (np.zeros((4, 4, 0)), "(4, 4, 0)"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_array_that_is_no_image_is_a_one_line_error(name):
    array, said = UNUSABLE[name]
    np.save("array.npy", array, allow_pickle=True)
    refused("fit", "array.npy", "modality=image", *QUICK, said=("array.npy", said))


@pytest.mark.parametrize("damage", ["magic", "header", "data", "archive"])
def test_a_damaged_array_is_a_one_line_error(damage):
    np.save("array.npy", noise(12, 10))
    whole = bytearray(Path("array.npy").read_bytes())
    if damage == "magic":
        whole[0] = 0
    elif damage == "header":
        whole[10:40] = b"(" * 30
    elif damage == "data":
        del whole[-5:]
    else:
        np.savez("array.npz", noise(12, 10))
        whole = Path("array.npz").read_bytes()
    Path("array.npy").write_bytes(whole)
    refused("fit", "array.npy", said=("array.npy is not a NumPy array", "check that it opens elsewhere"))


# The config


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("bogus=1", ("bogus is not an option",)),
        ("optimiser.lr=1", ("optimiser is not an option", "did you mean 'optimizer'?")),
        ("selector.ratoi=0.3", ("selector.ratoi is not an option", "did you mean 'ratio'?")),
        ("train.stps=3", ("train.stps is not an option", "did you mean 'steps'?")),
        ("a.b.c=1", ("a is not an option",)),
        ("selector.ratio=1.5", ("selector.ratio is 1.5", "in (0, 1]")),
        ("selector.ratio=0", ("selector.ratio is 0", "in (0, 1]")),
        ("train.steps=0", ("train.steps is 0", "[1, ")),
        ("train.steps=-3", ("train.steps is -3",)),
        (f"train.steps={10**30}", ("train.steps is", "[1, ")),
        (f"seed={10**400}", ("seed is", "[0, ")),
        ("optimizer.lr=nan", ("optimizer.lr is nan", "a finite number")),
        ("optimizer.lr=inf", ("optimizer.lr is inf", "a finite number")),
        ("train.steps=many", ("train.steps is 'many'", "a whole number")),
        ("train.steps=1.5", ("train.steps is 1.5", "a whole number")),
        ("train.steps=", ("train.steps is None", "a whole number")),
        ("train.steps=[1,2]", ("train.steps is [1, 2]", "a whole number")),
        ("train.steps.x=1", ("train.steps is {'x': 1}", "a whole number")),
        ("train=5", ("train is 5", "a mapping")),
        ("data=5", ("data is 5", "a mapping")),
        ("selector=5", ("selector is 5", "a name")),
        ("selector.draw=even", ("selector.draw is 'even'", "random, quasi-random")),
        ("selector=evoss", ("'evoss' is not known", "did you mean 'evos'?")),
        ("selector.name=[1]", ("selector", "is not known", "evos")),
        ("network=SIREN", ("'SIREN' is not known", "did you mean 'siren'?")),
        ("network=no.such:Thing", ("'no.such:Thing' cannot be loaded", "No module named 'no'")),
        ("network=os:system", ("'os:system' is not a subclass of inrkit's Network",)),
        ("modality=imgae", ("'imgae' is not known", "image")),
        ("metrics=psnr", ("metrics is 'psnr'", "a list, like [a,b]")),
        ("metrics=[psnrr]", ("'psnrr' is not known", "did you mean 'psnr'?")),
        ("base=nope", ("config 'nope' is not known", "image-paper")),
        ("base=5", ("config '5' is not known", "image-paper")),
        ("device=tpu5", ("device is 'tpu5'", "auto or cpu")),
        ("selector.ratio=${foo}", ("selector.ratio is '${foo}'", "a number")),
        ("train.steps=[1", ("'train.steps=[1' has no value that YAML can read",)),
        ("metrics={a:1}", ("metrics is",)),
        ("network.name=null", ("network has no name", "siren")),
        ("metrics={a}", ("metrics is {'a': None}", "a list")),
        ("metrics=[{a}]", ("metrics is [{'a': None}]", "a list")),
        ("metrics=[[psnr]]", ("metrics is [['psnr']]", "a list")),
        ("network=mfn-gabor network.bandwidth={}", ("network.bandwidth is",)),
        ("optimizer.lr=1e300", ("optimizer.lr is 1e+300", "at most 1e+30")),
        ("optimizer=lbfgs selector=full optimizer.step_length=1e300", ("optimizer.step_length is 1e+300",)),
        ("optimizer=muon optimizer.adam_lr=1e31", ("optimizer.adam_lr is 1e+31",)),
        ("train.chunk=99999999999999999999", ("train.chunk is 99999999999999999999", "at most 9223372036854775807")),
        (f"seed={'9' * 5000}", ("a number of 5,000 characters",)),
        ("word", ("'word' is not of the form key=value", "selector.ratio=0.2")),
        ("=3", ("'=3' is not of the form key=value",)),
        ("objective=cross-frequency selector=uniform", ("objective is 'cross-frequency'", "'uniform'")),
    ],
)
def test_nonsense_in_an_option_says_what_and_what_is_right(word, said):
    refused("fit", "photo.png", *word.split(), said=said)


def test_all_errors_of_a_config_are_listed_a_line_each():
    words = ["selector.ratio=2", "train.stps=3", "network=sirn", "nonsense=1", "optimizer.lr=fast"]
    said = ("selector.ratio", "train.stps", "sirn", "nonsense", "optimizer.lr")
    refused("fit", "photo.png", *words, said=said, lines=5)


def test_all_errors_are_listed_by_a_real_process():
    told(spawn("fit", "photo.png", "selector.ratio=2", "train.stps=3"), 2, "in (0, 1]", "'steps'", lines=2)


CONFIGS = {
    "list": ("- 1\n- 2\n", ("config.yaml is not a mapping",)),
    "number": ("5\n", ("config.yaml is not a mapping",)),
    "word": ("hello\n", ("config.yaml is not a mapping",)),
    "nothing": ("", ("no modality is named", "modality=", "image")),
    "open bracket": ("train: [1\nfoo", ("config.yaml is not YAML at line",)),
    "tab": ("train:\n\tsteps: 5\n", ("config.yaml is not YAML at line 2",)),
    "same key twice": ("seed: 1\nseed: 2\n", ("config.yaml is not YAML at line 2", "seed")),
    "no signal": ("modality: image\n", ("data.path is missing", "data.path=…")),
    "unknown reference": ("modality: image\nseed: ${nope}\n", ("config.yaml", "nope")),
    "ordered mapping": ("train: !!omap [steps: 1]\n", ("config.yaml holds a value that is neither",)),
    "environment": ("data: {path: '${oc.env:HOME}'}\n", ("config.yaml", "names another of its keys")),
    "slot as a list": ("selector: [evos]\ndata: {path: photo.png}\n", ("selector is ['evos']", "a name")),
    "signal as a list": ("data: {path: [1]}\n", ("no modality is named",)),
    "missing signal": ("data: {path: gone.png}\n", ("gone.png does not exist",)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_nonsense_in_a_config_file_says_what_and_where(name):
    text, said = CONFIGS[name]
    Path("config.yaml").write_text(text)
    refused("fit", "config.yaml", said=said)


def test_a_config_file_with_several_errors_lists_them_all():
    Path("config.yaml").write_text(
        "selector: {ratio: 7, nope: 1}\nntwork: siren\ntrain: {steps: -1, 3: 4}\n1: 2\ndata: {path: photo.png}\n"
    )
    said = (
        "selector.ratio is 7",
        "selector.nope",
        "did you mean 'network'?",
        "train.steps is -1",
        "train.3",
        "1 is not",
    )
    refused("fit", "config.yaml", said=said, lines=6)


def test_a_misspelt_key_is_told_even_where_no_modality_is_named():
    Path("config.yaml").write_text("modalty: image\n")
    refused("fit", "config.yaml", said=("did you mean 'modality'?", "no modality is named"), lines=2)


def test_a_config_file_that_cannot_be_read_is_a_one_line_error():
    refused("fit", "missing.yaml", said=("missing.yaml does not exist", "shipped config"))
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    refused("fit", "binary.yaml", said=("binary.yaml is not text in UTF-8",))
    Path("folder.yaml").mkdir()
    refused("fit", "folder.yaml", said=("folder.yaml cannot be read: Is a directory",))
    for command in ("show", "copy"):
        refused(command, "missing.yaml", *["out.yaml"][: command == "copy"], said=("missing.yaml does not exist",))


def test_a_target_that_is_nothing_suggests_what_is_near():
    refused("fit", "imag", said=("'imag' is neither a file nor a config", "did you mean 'image'?"))
    refused("fit", "zzzz", said=("choose one of: ", "image, image-paper"))
    refused("fit", "data.path=missing.png", said=("missing.png does not exist",))
    refused("fit", "https://a.example/b.png", said=("https://a.example/b.png is an address", "download it"))
    refused("fit", "photo.png", "--steps", "5", said=("No such option '--steps'", "train.steps=…"))
    refused("fit", "Photo.jpg", said=("Photo.jpg does not exist", "did you mean 'photo.png'?"))
    refused("fit", "photo.png", "photo.png", said=("photo.png is a second file", "inrkit batch"))
    refused("photo.png", said=("Did you mean 'inrkit fit photo.png'?",))
    refused("fit", "train.steps=5", said=("nor a signal that would tell it (data.path, or its file first)",))


# The words of the command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fti", "photo.png"], "Did you mean 'fit'?"),
        (["nonsense"], "See inrkit --help"),
        (["fit"], "Missing argument"),
        (["fit", "photo.png", "--otu", "x"], "--otu"),
        (["render", "run"], "Missing argument"),
        (["list", "nonsense"], "nonsense"),
        (["show", "nonsense"], "config 'nonsense' is not known"),
        (["copy", "image", "photo.png"], "exists already"),
        (["copy", "image", "out.txt"], "should end in .yaml"),
        (["copy", "image", "no/such/out.yaml"], "no/such is not a folder"),
        (["sample", "imgae", "out.png"], "'imgae' is not known"),
        (["sample", "image", "out.gif"], "not written as '.gif'"),
        (["sample", "image", "no/such/out.png"], "no/such is not a folder"),
        (["sample", "image", "."], "is a folder"),
    ],
)
def test_a_wrong_command_line_is_a_one_line_error(words, said):
    refused(*words, said=(said,))
    assert call(*words).err.count("Did you mean") <= 1


def test_the_bare_command_shows_its_help():
    outcome = call()
    finished(outcome)
    assert outcome.out.startswith("Usage: inrkit")
    assert outcome.err == ""


def test_debug_shows_the_traceback_wherever_it_stands():
    for words in (["--debug", "fit", "missing.png"], ["fit", "missing.png", "--debug"]):
        outcome = call(*words)
        assert outcome.code == 2
        assert "Traceback (most recent call last)" in outcome.err
        assert outcome.err.splitlines()[-1].startswith("inrkit: ")
        assert outcome.err.splitlines()[-1].endswith("missing.png does not exist; check the path")


def test_debug_shows_the_traceback_of_a_real_process():
    Path("text.png").write_text("no picture")
    outcome = spawn("fit", "text.png", "--debug")
    assert outcome.code == 2
    assert "Traceback (most recent call last)" in outcome.err
    assert "UnidentifiedImageError" in outcome.err


# The folder to write to


@pytest.mark.parametrize("out", ["photo.png", "photo.png/run", "/proc/run", "/proc"])
def test_a_folder_that_cannot_be_written_is_a_one_line_error(out):
    refused("fit", "photo.png", "--out", out, *QUICK, said=(f"{out} cannot be written", "choose another --out"))


@pytest.mark.parametrize("words", [["render", "run"], ["sample", "image"]], ids=lambda words: words[0])
def test_an_output_that_cannot_be_written_is_a_one_line_error(run, words):
    told(call(*words, "/proc/out.png"), 1, "cannot write /proc/out.png", "choose another folder")
    refused(*words, "photo.png/out.png", said=("photo.png is not a folder",))
    Path("folder.png").mkdir()
    refused(*words, "folder.png", said=("folder.png is a folder",))


def test_a_second_fit_into_the_same_folder_leaves_the_first_byte_for_byte(run):
    for words in ([], ["seed=5"], ["selector=uniform"]):
        refused(
            "fit", "photo.png", "--out", "run", *QUICK, *words, said=("run already holds a run", "--resume", "--out")
        )
    refused("fit", "run", said=("run is a run", "--resume", "run/config.yaml"))


def test_a_fit_without_out_takes_a_folder_of_its_own():
    for name in ("photo", "photo-2", "photo-3"):
        before = contents(Path.cwd())
        finished(call("fit", "photo.png", "--quiet", *QUICK))
        after = contents(Path.cwd())
        assert (Path("runs") / name / "result.json").exists()
        assert {path: after[path] for path in before} == before


# Resuming


def test_resuming_what_is_no_run_is_a_one_line_error():
    Path("empty").mkdir()
    for words in (["photo.png"], ["photo.png", "--out", "empty"], ["photo.png", "--out", "none"]):
        refused("fit", *words, "--resume", *QUICK, said=("holds no run to resume", "fit without --resume"))


def test_resuming_with_other_options_is_a_one_line_error(run):
    for key, value in (
        ("seed", "5"),
        ("train.steps", "1"),
        ("selector.ratio", "0.7"),
        ("network.hidden_features", "9"),
    ):
        refused("fit", "run", "--resume", f"{key}={value}", said=(key, value, "resume with the same values"))


def test_resuming_a_finished_run_changes_nothing_but_its_times(run):
    before = contents(run)
    finished(call("fit", "run", "--resume"))
    after = contents(run)
    assert before.keys() == after.keys()
    for name in ("config.yaml", "metrics.jsonl", "field.safetensors", "reconstruction.png"):
        assert after[name] == before[name]
    old, new = json.loads(before["result.json"]), json.loads(after["result.json"])
    assert {**old, "seconds": None} == {**new, "seconds": None}


class Touch:
    """Leaves a file behind if it is unpickled as a stranger's pickle asks."""

    def __reduce__(self):
        return (os.system, ("touch ran",))


def edited(path: Path, **changes) -> None:
    state = torch.load(path, weights_only=True)
    torch.save(
        {
            **{key: value for key, value in state.items() if changes.get(key, ...) is not None},
            **{key: value for key, value in changes.items() if value is not None},
        },
        path,
    )


def deflated(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        parts = {part.filename: file.read(part) for part in file.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)


CHECKPOINTS = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "noise": lambda path: path.write_bytes(noise(5000).tobytes()),
    "head": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "hole": lambda path: path.write_bytes(path.read_bytes()[:3000] + bytes(300) + path.read_bytes()[3300:]),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "pickle": lambda path: path.write_bytes(pickle.dumps(Touch())),
    "code": lambda path: torch.save(Touch(), path),
    "list": lambda path: torch.save([1], path),
    "missing": lambda path: path.unlink(),
    **{
        f"no {key}": lambda path, key=key: edited(path, **{key: None})
        for key in ("format", "step", "network", "optimizer", "selector", "elapsed")
    },
    **{
        f"odd {key}": lambda path, key=key: edited(path, **{key: "x"})
        for key in ("format", "step", "network", "optimizer", "selector", "elapsed")
    },
    **{
        f"{key} {value}": lambda path, key=key, value=value: edited(path, **{key: value})
        for key, value in (
            ("step", math.nan),
            ("step", -1),
            ("step", True),
            ("step", torch.tensor([1, 2])),
            ("elapsed", math.nan),
            ("elapsed", -math.inf),
            ("first", math.nan),
            ("seconds", {}),
            ("seconds", [1.0]),
            ("seconds", {"train": math.nan, "selection": 0.0, "evaluation": 0.0}),
            ("seconds", {"train": torch.zeros(3), "selection": 0.0, "evaluation": 0.0}),
            ("unscheduled", "x"),
            ("random", {"cpu": torch.zeros(3)}),
            ("selector", torch.zeros(1).expand(10**12)),
            ("selector", torch.ones(1).to_sparse()),
            ("visits", torch.zeros(1, device="meta")),
            ("rows", -1),
            ("rows", "x"),
        )
    },
    "deflated": lambda path: deflated(path),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "later step": lambda path: edited(path, step=10**6),
}


@pytest.mark.parametrize("damage", CHECKPOINTS)
def test_resuming_from_a_damaged_checkpoint_is_a_one_line_error(run, damage):
    CHECKPOINTS[damage](run / "checkpoint.pt")
    refused("fit", "run", "--resume", said=("checkpoint", "start anew in another --out"))
    assert not Path("ran").exists()


def test_a_checkpoint_whose_first_step_fails_is_a_one_line_error(run):
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    state["optimizer"]["state"][0] = {name: torch.zeros(3, 3, 3) for name in state["optimizer"]["state"][0]}
    torch.save(state, run / "checkpoint.pt")
    told(call("fit", "run", "--resume", "--quiet", "train.steps=4"), 2, "checkpoint.pt does not fit the run's config")


@pytest.mark.parametrize(
    "text",
    [
        "nonsense\n",
        "[]\n",
        "{}\n",
        '{"step": "x"}\n',
        "5\n",
        '{"step": 2, "psnr": "x"}\n',
        '{"step": 2, "psnr": Infinity}\n',
        '{"step": NaN}\n',
        '{"step": 1e999}\n',
        "[" * 200_000 + "\n",
    ],
)
def test_resuming_with_damaged_metrics_says_which_line(run, text):
    good = '{"step": 1, "seconds": 0.5, "psnr": 3.0}\n'
    (run / "metrics.jsonl").write_text(good + text)
    refused("fit", "run", "--resume", said=("metrics.jsonl is damaged at line 2", "remove that line"))
    (run / "metrics.jsonl").write_text(good)
    finished(call("fit", "run", "--resume", "--quiet"))


def test_resuming_without_the_signal_says_what_is_missing(run, finished_run, monkeypatch):
    text = (run / "config.yaml").read_text().replace(str(finished_run.parent), "/no/such/place")
    (run / "config.yaml").write_text(text)
    for words in (["fit", "run", "--resume"], ["evaluate", "run"]):
        refused(*words, said=("/no/such/place/photo.png does not exist",))
    finished(call("render", "run", "out.png"))
    finished(call("evaluate", "run", "--against", "photo.png"))


@pytest.mark.parametrize("text", ["selector: {", "- 1\n", "nonsense: 1\nmodality: image\ndata: {path: photo.png}\n"])
def test_a_damaged_config_of_a_run_is_a_one_line_error(run, text):
    (run / "config.yaml").write_text(text)
    for words in (["fit", "run", "--resume"], ["evaluate", "run"]):
        refused(*words, said=())


# Exporting, rendering and evaluating


def test_exporting_what_is_no_run_or_to_what_is_no_export_is_a_one_line_error():
    refused("export", "none", "field.html", said=("none does not exist",))
    refused("export", "photo.png", "field.glsl", said=("photo.png is not a field",))
    refused("export", "photo.png", "field.obj", said=("field.obj does not say what to export", ".glsl, .html, .onnx"))
    refused("export", "photo.png", "field", said=("field does not say what to export",))
    refused("export", "photo.png", "nowhere/field.html", said=("nowhere is not a folder", "make it first"))


def test_rendering_what_is_no_run_is_a_one_line_error():
    Path("empty").mkdir()
    refused("render", "empty", "out.png", said=("empty/field.safetensors does not exist", "a run's folder"))
    Path("begun").mkdir()
    Path("begun/config.yaml").write_text("modality: image\ndata: {path: ../photo.png}\n")
    for words in (("render", "begun", "out.png"), ("export", "begun", "out.glsl"), ("compress", "begun", "out.inr")):
        refused(*words, said=("begun has no field.safetensors", "inrkit fit begun --resume"))
    refused("render", "none", "out.png", said=("none does not exist",))
    refused("render", "photo.png", "out.png", said=("photo.png is not a field",))
    refused("evaluate", "photo.png", said=("photo.png is not a field",))
    for target in ("empty", "none"):
        refused("evaluate", target, said=(f"{target} is not a run", "give the folder of a fit"))


def described(path: Path, text: str | None) -> None:
    """Write a field's weights anew under another description."""
    save_file(load(path.read_bytes()), path, metadata=None if text is None else {"inrkit": text})


def describe(path: Path, **changes) -> None:
    """Change parts of a field's description."""
    with safe_open(path, "pt") as file:
        description = json.loads(file.metadata()["inrkit"])
    described(path, json.dumps({**description, **changes}))


def network(name: str, **options) -> dict:
    return {"name": name, "options": options}


FIELDS = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello, this is a text"),
    "head": lambda path: path.write_bytes(path.read_bytes()[:300]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "hole": lambda path: path.write_bytes(path.read_bytes()[:100] + bytes(100) + path.read_bytes()[200:]),
    "last byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "undescribed": lambda path: described(path, None),
    "described by words": lambda path: described(path, "words"),
    "described by a list": lambda path: described(path, "[]"),
    "described by a number": lambda path: described(path, "5"),
    "format": lambda path: describe(path, format=99),
    "no dimension": lambda path: describe(path, dimensions=0),
    "too many dimensions": lambda path: describe(path, dimensions=10**16),
    "other channels": lambda path: describe(path, channels=7),
    "no network": lambda path: describe(path, network=None),
    "wider network": lambda path: describe(path, network={"name": "siren", "options": {"hidden_features": 9}}),
    "16,000 features": lambda path: describe(path, network=network("siren", hidden_features=16_000)),
    "a billion layers": lambda path: describe(path, network=network("siren", hidden_layers=10**9)),
    "vast encoding": lambda path: describe(path, network=network("fourier-features", features=3 * 10**8)),
    "vast table": lambda path: describe(path, network=network("hash-grid", table_bits=32, levels=99)),
    "odd network": lambda path: describe(path, network={"name": "siren", "options": {"nope": 1}}),
    "unknown network": lambda path: describe(path, network={"name": "nope", "options": {}}),
    "odd transform": lambda path: describe(path, transform={"name": "minmax", "state": {"low": "x"}}),
    "odd modality": lambda path: describe(path, modality=[1]),
    "odd lattice": lambda path: describe(path, grid_shape=[[1]]),
    "vast lattice": lambda path: describe(path, grid_shape=[10**9, 10**9]),
    "flat lattice": lambda path: describe(path, grid_shape=[5]),
    "odd dtype": lambda path: describe(path, dtype="O"),
    "odd range": lambda path: describe(path, value_range=[]),
    "range beyond float32": lambda path: describe(path, value_range=[-1e300, 1e300]),
    "range upside down": lambda path: describe(path, value_range=[1, 0]),
    "affine of no number": lambda path: describe(path, affine=[[1, 0, math.inf], [0, 1, 0]]),
    "odd affine": lambda path: describe(path, affine=[[1]]),
    "odd metadata": lambda path: describe(path, metadata=5),
}


@pytest.mark.parametrize("damage", FIELDS)
def test_a_damaged_field_is_a_one_line_error(run, damage):
    FIELDS[damage](run / "field.safetensors")
    refused("render", "run", "out.png", said=("nothing in it says",) if damage == "undescribed" else ())
    if damage in ("empty", "half", "wider network"):
        refused("evaluate", "run", said=("field.safetensors",))


@pytest.mark.parametrize("part", ["network", "embedding", "transform", "modality"])
def test_a_field_that_asks_for_code_is_refused(run, part):
    describe(run / "field.safetensors", **{part: {"name": "os:system", "options": {}, "state": {}}})
    refused("render", "run", "out.png", said=("os:system", "--trust"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scale", "0"], "scale is 0.0"),
        (["--scale", "-1"], "scale is -1.0"),
        (["--scale", "nan"], "scale is nan"),
        (["--scale", "inf"], "scale is inf"),
        (["--scale", "big"], "'big' is not a valid float"),
        (["--scale", "1e9"], "fits neither in memory"),
        (["--scale", "1e300"], "fits neither in memory"),
        (["--scale", "1e308"], "scale is 1e+308"),
        (["--shape", "3"], "2 lengths"),
        (["--shape", "3,4,5"], "2 lengths"),
        (["--shape", "0,4"], "at least 1"),
        (["--shape=-1,4"], "at least 1"),
        (["--shape", "a,b"], "like 512,768"),
        (["--shape", "3,,4"], "like 512,768"),
        (["--shape", "1.5,2"], "like 512,768"),
        (["--shape="], "like 512,768"),
        (["--shape", "1000000,100000000"], "fits neither in memory"),
        (["--shape", "99999999999999999999,4"], "fits neither in memory"),
        (["--shape", "3,4", "--scale", "2"], "give one of them"),
        (["--device", "tpu5"], "device is 'tpu5'"),
    ],
)
def test_an_impossible_size_is_a_one_line_error(run, words, said):
    refused("render", "run", "out.png", *words, said=(said,))


@pytest.mark.parametrize("name", ["out.gif", "out.xyz", "out"])
def test_an_unknown_suffix_to_render_lists_the_known(run, name):
    refused("render", "run", name, said=("images are not written", ".png", ".jpg", ".tif", ".npy"))


def test_a_format_that_cannot_hold_the_result_names_one_that_can(run):
    refused("render", "run", "out.jpg", "--shape", "1,70000", said=(".jpg cannot hold 1×70000", ".png"))
    Path("out.jpg").write_bytes(b"something precious")
    refused("render", "run", "out.jpg", "--shape", "1,70000", said=(".jpg cannot hold",))
    np.save("alpha.npy", noise(12, 10, 4))
    finished(call("fit", "alpha.npy", "--out", "alpha", "--quiet", *QUICK))
    refused("render", "alpha", "out.jpg", said=(".jpg cannot hold 4 channels of uint8", "choose .png"))


def test_evaluating_against_another_kind_of_signal_is_a_one_line_error(run):
    np.save("gray.npy", noise(12, 10))
    refused("evaluate", "run", "--against", "gray.npy", said=("gray.npy", "1 channels", "like the one that was fitted"))
    refused("evaluate", "run", "--against", "missing.png", said=("missing.png does not exist",))
    Path("text.png").write_text("words")
    refused("evaluate", "run", "--against", "text.png", said=("text.png is not an image",))
    np.save("infinite.npy", np.full((12, 10, 3), np.inf))
    refused("evaluate", "run", "--against", "infinite.npy", said=("infinite.npy", "index (0, 0)"))


# Runs that fail


DIVERGE = ["log.every=1", "optimizer=adam", "schedule=constant", "optimizer.lr=1e30"]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_diverging_run_fails_with_advice(steps):
    np.save("real.npy", noise(12, 10) / 255)
    words = ["--out", "run", "--quiet", *QUICK[1:], *DIVERGE, f"train.steps={steps}"]
    told(call("fit", "real.npy", *words), 1, "diverged", "lower optimizer.lr")
    assert {path.name for path in Path("run").iterdir()} <= {
        "config.yaml",
        "metrics.jsonl",
        "result.json",
        "report.html",
    }
    result = strict_json(Path("run/result.json").read_text())
    assert result["status"] == "failed"
    assert "diverged" in result["error"]
    told(call("fit", "run", "--resume", "--quiet"), 1, "diverged", "lower optimizer.lr")  # it starts over


@pytest.mark.slow
def test_a_diverged_run_goes_on_where_it_may_recover():
    np.save("real.npy", noise(12, 10) / 255)
    words = ["network=pe-mlp", "network.hidden_layers=4", "optimizer=adam", "optimizer.lr=1e8", "schedule=constant"]
    words += ["train.steps=200", "log.every=2", "train.compile=never", "train.precision=float32"]
    told(call("fit", "real.npy", "--out", "run", "--quiet", *words), 1, "diverged", "train.on_divergence=recover")
    outcome = call("fit", "run", "--resume", "train.on_divergence=recover")
    finished(outcome)
    assert "diverged by step 2; goes on from step 0 with 0.5 of the learning rate" in outcome.err
    run = Run("run")
    assert (run.result["status"], run.result["steps"]) == ("done", 200)
    assert run.result["recoveries"] > 0
    assert [row["step"] for row in run.history] == list(range(2, 201, 2))
    assert run.config.train.on_divergence == "recover"


def test_a_vast_number_of_steps_does_not_delay_the_first():
    np.save("real.npy", noise(12, 10) / 255)
    outcome = call(
        "fit", "real.npy", "--out", "run", *QUICK[1:], *DIVERGE, f"train.steps={10**9}", "train.compile=never"
    )
    assert outcome.code == 1
    assert "1,000,000,000 steps" in outcome.err
    assert "diverged" in outcome.err


def test_a_network_beyond_all_memory_is_a_one_line_error():
    outcome = call("fit", "photo.png", "--out", "run", *QUICK, f"network.hidden_features={10**14}")
    told(outcome, 1, "does not fit in memory", "lower network.hidden_features")
    assert not Path("run").exists()


# A full disk


def found_full(outcome: Outcome, file: str) -> None:
    told(outcome, 1, f"cannot write {file}: File too large", "free some space or choose another folder")
    assert not [path for path in Path.cwd().rglob("*") if path.name.startswith(".")]


def test_a_full_disk_at_the_start_leaves_no_half_a_file():
    # A process inherits the limit.
    with full_disk(1000):
        outcome = spawn("fit", "photo.png", "--out", "run", "--quiet", *QUICK)
    found_full(outcome, "run/config.yaml")
    assert not list(Path("run").iterdir())
    finished(call("fit", "photo.png", "--out", "run", "--quiet", *QUICK))


@pytest.mark.filterwarnings("default")
def test_a_full_disk_at_a_checkpoint_ends_no_training():
    with full_disk(8000):
        outcome = call("fit", "photo.png", "--out", "run", "--quiet", *QUICK)
    full = "File too large; free some space or choose another folder"
    assert outcome.code == 0
    assert outcome.err.splitlines() == [
        f"inrkit: cannot write run/checkpoint.pt: {full}; the training goes on",
        f"inrkit: log.report gave up: cannot write run/report.html: {full}",
    ]
    names = {path.name for path in Path("run").iterdir()}
    assert names > {"config.yaml", "field.safetensors", "metrics.jsonl", "reconstruction.png", "result.json"}
    assert "checkpoint.pt" not in names
    assert strict_json(Path("run/result.json").read_text())["status"] == "done"
    assert [row["step"] for row in Run("run").history] == [2]


@pytest.mark.filterwarnings("default")
def test_a_full_disk_at_a_later_checkpoint_leaves_the_earlier_one_to_resume_from(run):
    before = contents(run)
    with full_disk(8000):
        outcome = call("fit", "run", "--resume", "--quiet")
    assert outcome.code == 0
    assert "cannot write run/checkpoint.pt" in outcome.err
    assert {**contents(run), "result.json": None} == {**before, "result.json": None}
    finished(call("fit", "run", "--resume", "--quiet"))
    assert contents(run)["field.safetensors"] == before["field.safetensors"]
    assert Run("run").result["status"] == "done"


def test_a_full_disk_at_the_reconstruction_loses_no_training():
    np.save("large.npy", np.random.default_rng(0).random((100, 100, 3), dtype=np.float32))
    words = ["--quiet", "train.steps=2", "network.hidden_features=4", "network.hidden_layers=0", "selector=uniform"]
    with full_disk(60_000):
        outcome = call("fit", "large.npy", "--out", "run", *words)
    found_full(outcome, "run/reconstruction.npy")
    assert Run("run").result["status"] == "interrupted"
    assert Run("run").field.grid_shape == (100, 100)
    finished(call("fit", "run", "--resume", "--quiet"))
    finished(call("fit", "large.npy", "--out", "whole", *words))
    for name in ("reconstruction.npy", "field.safetensors"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes()


def test_a_full_disk_leaves_an_output_as_it_was_in_every_format(run):
    np.save("deep.npy", noise(12, 10, 3).astype(np.uint16) * 257)
    finished(call("fit", "deep.npy", "--out", "deep", "--quiet", *QUICK))
    names = [f"run.{suffix}" for suffix in ("png", "jpg", "webp", "bmp", "tif", "npy")] + ["deep.png", "deep.tif"]
    for name in names:
        Path(name).write_bytes(b"something precious")
    field, before = inrkit.load("run"), contents(Path.cwd())
    with full_disk(2000):
        outcomes = {name: call("render", Path(name).stem, name, "--shape", "200,200") for name in names}
        outcomes["sample.png"] = call("sample", "image", "sample.png")
    with full_disk(500):
        outcomes["config.yaml"] = call("copy", "image", "config.yaml")
        with pytest.raises(inrkit.RunError, match=r"cannot write run/field\.safetensors: File too large; free some"):
            field.save("run/field.safetensors")
    for name, outcome in outcomes.items():
        found_full(outcome, name)
    assert contents(Path.cwd()) == before
