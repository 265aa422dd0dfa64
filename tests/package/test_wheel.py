"""The wheel holds all rooms that a user needs, and works where nothing else of the project is."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = {"inrkit": "inrkit", "inrkit/modalities": "modalities", "inrkit/configs": "configs"}
"""Where a folder of the project lies in an installation."""


DATA = ("assets", "templates")
"""Folders of a package that hold no modules."""


def shipped() -> set[str]:
    """The files of the project that belong in the wheel, by their names there."""
    return {
        f"{room}/{path.relative_to(ROOT / folder).as_posix()}"
        for room, folder in ROOMS.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".c", ".py", ".yaml") or path.name == "py.typed" or path.parent.name in DATA
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    # From a copy: a build leaves metadata beside the sources, which Python would then find before the installed one.
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ROOMS.values():
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def requirements(wheel) -> list[Requirement]:
    """What the wheel asks for, the extras of users included."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        wanted = metadata.PathDistribution(zipfile.Path(archive, name.removesuffix("METADATA"))).requires or []
    found = [Requirement(line) for line in wanted]
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": "none"})] + [
        each for each in found if "extra" in str(each.marker) and not each.marker.evaluate({"extra": "dev"})
    ]


def imported(path: Path) -> tuple[set[str], set[str]]:
    """The packages that a file imports: as it is imported itself, and later, in functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    found: tuple[set[str], set[str]] = (set(), set())
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        found[node in later].update(name.partition(".")[0] for name in names)
    return found


def test_every_folder_of_the_project_is_a_package_of_the_wheel():
    folders = {
        ".".join((*room.split("/"), *path.parent.relative_to(ROOT / folder).parts))
        for room, folder in ROOMS.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == folders
    for room in shipped():
        if Path(room).parent.name in DATA:
            continue
        assert ".".join(Path(room).parent.parts) in folders, f"{room} lies in a folder without an __init__.py"


def test_the_wheel_holds_every_file_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == shipped()


def test_the_wheel_requires_every_package_that_is_imported(requirements):
    base = {canonicalize_name(each.name) for each in requirements if each.marker is None}
    known = base | {canonicalize_name(each.name) for each in requirements}
    brought = {"triton"}  # by torch, where it is one for GPUs
    owners = metadata.packages_distributions()
    used = set()
    for name in sorted(shipped()):
        room = max((room for room in ROOMS if name.startswith(f"{room}/")), key=len)
        if not name.endswith(".py"):
            continue
        for packages, allowed in zip(imported(ROOT / ROOMS[room] / name[len(room) + 1 :]), (base, known), strict=True):
            for package in packages - set(sys.stdlib_module_names) - {"inrkit"}:
                distributions = {canonicalize_name(owner) for owner in owners.get(package, [package])}
                assert distributions & (allowed | brought), (
                    f"{name} imports {package}, and pyproject.toml does not ask for it"
                )
                used |= distributions
    assert base <= used, "pyproject.toml asks everyone for what nothing imports"


def needed(requirements: list[Requirement]) -> list[metadata.Distribution]:
    """What pip would install for these requirements here, without extras of inrkit."""
    waiting = [(each, "") for each in requirements if each.marker is None]
    seen: set[tuple[str, str]] = set()
    found = {}
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                found[name] = metadata.distribution(name)
                waiting += [(Requirement(line), wanted) for line in found[name].requires or []]
    return list(found.values())


SESSION = """
import contextlib, importlib, io, json, pkgutil, sys
import inrkit, inrkit.cli

def call(*words):
    sys.argv[1:] = words
    try:
        inrkit.cli.main()
    except SystemExit as left:
        assert not left.code, words

names = [module.name for module in pkgutil.walk_packages(inrkit.__path__, "inrkit.")]
files = {name: importlib.import_module(name).__file__ for name in names if name != "inrkit.__main__"}
with contextlib.redirect_stdout(io.StringIO()) as listed:
    call("list")
    for modality in inrkit.MODALITIES.names():
        call("sample", modality, modality + inrkit.MODALITIES.get(modality).sample_suffix)
print(json.dumps({"files": files, "listed": listed.getvalue(), "modalities": inrkit.MODALITIES.names()}))
"""


def test_the_wheel_works_in_a_fresh_environment(wheel, requirements, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    binaries = tmp_path / "venv" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", binaries / "python", "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-deps", wheel], check=True, capture_output=True)
    (site,) = (tmp_path / "venv" / "lib").glob("*/site-packages")
    # In place of a download: links to what pip would install, and to nothing else that happens to be installed here.
    for distribution in needed(requirements):
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))

    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)).save(tmp_path / "photo.png")
    fit = [binaries / "inrkit", "fit", "photo.png", "train.steps=2", "--quiet"]
    subprocess.run(fit, cwd=tmp_path, env=outside, check=True)
    assert (tmp_path / "runs" / "photo" / "reconstruction.png").exists()
    session = [binaries / "python", "-c", SESSION]
    done = subprocess.run(session, cwd=tmp_path, env=outside, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    scripts = {name.removesuffix(".py") for name in shipped() if name.endswith(".py")}
    modules = {name.removesuffix("/__init__").replace("/", ".") for name in scripts}
    assert told["files"].keys() == modules - {"inrkit", "inrkit.__main__"}
    assert (tmp_path / "runs" / "photo" / "report.html").exists()
    assert all(Path(file).is_relative_to(site / "inrkit") for file in told["files"].values())
    assert "broken:" not in told["listed"]
    assert set(told["modalities"]) == set(PYPROJECT["project"]["entry-points"]["inrkit.modalities"])
    assert {path.stem for path in tmp_path.iterdir()} >= set(told["modalities"])
