"""What the pages tell a newcomer to type works, and the pictures show what the presets do today."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import click
import numpy as np
import pytest

from inrkit import InrkitError
from inrkit.cli import inrkit as command_line
from inrkit.config import parse_overrides, presets, read_preset, resolve
from inrkit.signals.modality import modality_of

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_the_first_fit_works_as_its_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("first-fit.md", "sh") for line in block.splitlines()]
    assert len(lines) == 6
    for line in lines:
        _, *words = shlex.split(line)
        if words[0] == "fit" and "train.steps" not in line:
            words.append("train.steps=20")
        assert command_line.main(words, standalone_mode=False) in (0, None)
    assert Path("runs/photo/report.html").is_file() and Path("large.png").is_file() and Path("detail.png").is_file()
    (code,) = blocks("first-fit.md", "python")
    exec(code, {})


@pytest.mark.slow
def test_the_python_of_the_page_on_masks_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    masked, scattered = ({}, {})
    for code, names in zip(blocks("masks.md", "python"), (masked, scattered), strict=True):
        exec(re.sub(r"steps=\d+", "steps=3", code), names)
    assert masked["whole"].shape == (64, 64, 3) and np.isfinite(masked["whole"]).all()
    assert scattered["run"].result["status"] == "done"


def test_the_pictures_were_made_with_the_presets_that_ship():
    made = json.loads((DOCS / "pictures" / "made.json").read_text(encoding="utf-8"))
    changed = [name for name, preset in made.items() if json.loads(json.dumps(read_preset(name))) != preset]
    assert not changed, f"{changed} changed since docs/pictures were made: run tools/picture.py, and look at them"


def test_the_first_page_lists_all_extras():
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (DOCS / "first-fit.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in text.partition("| extra |")[2].splitlines() if line.startswith("| `")]
    listed = [name for cell in cells for name in re.findall(r"`([a-z]+)`", cell)]
    assert sorted(listed) == sorted(project["optional-dependencies"])


def test_the_readme_shows_every_command():
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert not [name for name in command_line.commands if f"inrkit {name} " not in text.replace("\n", " ")]


def test_the_docs_stay_small():
    assert sum(path.stat().st_size for path in DOCS.rglob("*") if path.is_file()) < 3_000_000


def typed():
    """Every command that the pages tell to type, without what stands beside it: its page, and its words."""
    for path in [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        fenced = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        lines = [re.split(r" {2,}| #", line)[0] for block in fenced for line in block.splitlines()]
        lines += [" ".join(code.split()) for code in re.findall(r"(?<!`)`(inrkit \w+ [^`]+)`", text)]
        for line in lines:
            found = re.match(r"(?:python -m )?inrkit (.*)", line)
            if found and "…" not in line:
                yield path.name, shlex.split(found[1].removesuffix("\\"))


def test_the_pages_tell_commands_that_the_command_line_takes():
    refused, count = [], 0
    for page, (name, *words) in typed():
        count += 1
        if words == ["--help"]:
            continue
        try:
            given = command_line.commands[name].make_context(name, words[:]).params
            if name in ("fit", "show") and given["overrides"] and not page.startswith("add-a"):  # plug-ins of others
                target = given.get("target") or given["config"]
                base = target if target in presets() else modality_of(Path(target)) or "image"
                resolve([{"base": base, "data": {"path": ""}}, parse_overrides(given["overrides"])])
        except (KeyError, click.ClickException, InrkitError) as error:
            refused.append(f"{page}: {name} {' '.join(words)}: {error}")
    assert count > 100 and not refused, "\n".join(refused)
