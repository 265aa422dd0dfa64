"""The wheel holds all rooms that a user needs, and works where nothing else of the project is."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_wheel_installs_in_a_fresh_environment_and_fits(tmp_path):
    # From a copy: a build leaves metadata beside the sources, which Python would then find before the installed one.
    source = tmp_path / "source"
    for name in ("inrkit", "modalities", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, source], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("inrkit/modalities/image.py", "inrkit/configs/image-paper.yaml", "inrkit/py.typed"):
        assert name in names
    assert not [name for name in names if name.startswith(("tests", "tools", "modalities", "configs"))]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    binaries = tmp_path / "venv" / "bin"
    install = [binaries / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run(install, check=True, capture_output=True)
    subprocess.run([binaries / "inrkit", "sample", "image", "photo.png"], cwd=tmp_path, check=True)
    subprocess.run([binaries / "inrkit", "fit", "photo.png", "train.steps=2", "--quiet"], cwd=tmp_path, check=True)
    assert (tmp_path / "runs" / "photo" / "reconstruction.png").exists()
