"""What the docs tell a stranger to write is installed beside inrkit, with no line of inrkit changed, and works."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
PACKAGES = {"globe": "add-a-modality.md", "stratified": "add-a-selector.md", "fourier": "add-a-network.md"}
EXACT = ["--quiet", "train.steps=3", "train.precision=float32"]
QUICK = [*EXACT, "network.hidden_features=16", "network.hidden_layers=1"]
TOGETHER = [*EXACT, "network=fourier", "network.width=16", "selector=stratified", "selector.ratio=0.1"]


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A folder that pip has installed the packages in, for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("strangers")
    for name in PACKAGES:
        shutil.copytree(HERE / name, folder / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    options = ["--no-deps", "--no-build-isolation", "--target", folder / "site"]
    subprocess.run([*pip, *options, *(folder / name for name in PACKAGES)], check=True, capture_output=True)
    return folder / "site"


SESSION = """
import contextlib, io, json, sys
import inrkit.cli

def call(words):
    printed = io.StringIO()
    sys.argv = ["inrkit", *words]
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        inrkit.cli.main()
    return printed.getvalue()

printed = [call(words) for words in json.loads(sys.argv[1])]
from fourier import Fourier
from globe import Globe
from stratified import Stratified
from inrkit.contract import check_modality, check_network, check_selector
check_modality(Globe), check_network(Fourier), check_selector(Stratified)
field = inrkit.load("runs/weather")
edges = field([[40.0, -180.0], [40.0, 180.0]], physical=True).ravel().tolist()
print(json.dumps({"printed": printed, "edges": edges}))
"""

COMMANDS = {
    "modalities": ["list", "modalities"],
    "selectors": ["list", "selectors"],
    "networks": ["list", "networks"],
    "sample": ["sample", "globe", "weather.csv"],
    "fit": ["fit", "weather.csv", *QUICK],
    "map": ["render", "runs/weather", "map.png", "--scale", "2"],
    "evaluate": ["evaluate", "runs/weather"],
    "fit together": ["fit", "weather.csv", "--out", "together", *TOGETHER],
    "render together": ["render", "together", "again.csv"],
}


@pytest.fixture(scope="session")
def session(installed, tmp_path_factory):
    """What one process of a stranger's, who has the packages installed, prints at each command; and its folder."""
    folder = tmp_path_factory.mktemp("session")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SESSION, json.dumps(list(COMMANDS.values()))],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    return {**dict(zip(COMMANDS, result["printed"], strict=True)), "edges": result["edges"], "folder": folder}


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("modalities", "globe Temperatures on a grid of latitudes and longitudes."),
        (
            "selectors",
            "stratified Cuts the coordinates, in their order, into k blocks of one size and draws one of each.",
        ),
        ("networks", "fourier A perceptron on sines and cosines of random frequencies."),
    ],
)
def test_the_plugins_are_listed(session, kind, line):
    assert line in [" ".join(row.split()) for row in session[kind].splitlines()]


def test_a_strangers_modality_is_fitted_rendered_and_evaluated(session):
    run = session["folder"] / "runs" / "weather"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["modality"]["name"] == "globe"
    assert config["operator"] == {"name": "laplacian", "clamp": False, "periodic": [1]}
    assert config["embedding"] == {"name": "periodic", "axes": [1]}
    assert np.loadtxt(run / "reconstruction.csv", delimiter=",").shape == (72, 144)
    with Image.open(session["folder"] / "map.png") as picture:
        assert picture.size == (288, 144)
    assert "PSNR" in session["evaluate"]


def test_the_globe_closes_without_a_seam(session):
    west, east = session["edges"]
    assert west == pytest.approx(east, rel=1e-4)


def test_all_three_work_together(session):
    run = session["folder"] / "together"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert [config[slot]["name"] for slot in ("modality", "selector", "network")] == ["globe", "stratified", "fourier"]
    rendered = np.loadtxt(session["folder"] / "again.csv", delimiter=",")
    np.testing.assert_allclose(rendered, np.loadtxt(run / "reconstruction.csv", delimiter=","), rtol=1e-4)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_docs_show_the_package_as_it_is(package):
    blocks = re.findall(
        r"```(?:python|toml)\n(.*?)```", (DOCS / PACKAGES[package]).read_text(encoding="utf-8"), re.DOTALL
    )
    for name in (f"{package}.py", "pyproject.toml"):
        text = (HERE / package / name).read_text(encoding="utf-8")
        shown = [block for block in blocks if block in text]
        assert "\n".join(block.strip("\n") for block in shown).split() == text.split(), f"{name} is shown in part only"


def test_a_modality_takes_less_than_sixty_lines():
    assert len((HERE / "globe" / "globe.py").read_text().splitlines()) < 60
