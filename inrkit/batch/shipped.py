"""The studies that ship with inrkit."""

from __future__ import annotations

import itertools
from importlib import resources


def studies() -> list[str]:
    """Names of the shipped studies, sorted."""
    folder = resources.files("inrkit.configs") / "studies"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def study_text(name: str) -> str:
    """The YAML text of a shipped study."""
    return (resources.files("inrkit.configs") / "studies" / f"{name}.yaml").read_text(encoding="utf-8")


def study_comment(name: str) -> str:
    """What a shipped study is for: the first sentence of the comment at the top of its file."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), study_text(name).splitlines())
    return " ".join(line.lstrip("# ") for line in comment).partition(". ")[0]
