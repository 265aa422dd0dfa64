"""The site: what is made from the code is complete, and no page asks another host for anything."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import click
import pytest

import inrkit
from inrkit.batch.reader import SECTIONS as STUDY_SECTIONS
from inrkit.cli import inrkit as command_line
from inrkit.config.schema import KINDS, SECTIONS, GeneralOptions

DOCS = Path(__file__).parents[2] / "docs"


def extension(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / "extensions" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def listings():
    return extension("listings")


def sections_of(page):
    """The text below each heading of a page in Markdown."""
    parts = re.split(r"^#{2,3} (.*)$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def expected():
    """(heading, prefix, dataclass) of everything that a config or a study's file may set."""
    yield "Keys without a section", "", GeneralOptions
    for name, section in SECTIONS.items():
        yield name, f"{name}.", section
    for name, section in STUDY_SECTIONS.items():
        yield f"{name}, in the file of a study", f"{name}.", section
    for kind in KINDS:
        for name in kind.registry.names():
            if kind.name not in ("metric", "export"):
                yield f"{name} ({kind.name})", f"{kind.name}.", kind.registry.get(name).Options


def test_the_page_of_options_has_every_key_with_a_description(listings):
    sections = sections_of(listings.options())
    for heading, prefix, options in expected():
        for field in dataclasses.fields(options):
            found = re.search(rf"^`{re.escape(prefix + field.name)}` · .+\n: (.*)$", sections[heading], re.MULTILINE)
            assert found and len(found[1]) > 5, f"{heading}: {prefix}{field.name}"


def test_an_option_has_its_range_and_its_default(listings):
    evos = sections_of(listings.options())["evos (selector)"]
    assert "`selector.ratio` · float, above 0, at most 1, default `0.5`" in evos
    assert "one of `select`, `add`, `none`, default `select`" in evos


def test_the_page_of_commands_has_every_command_and_its_flags(listings):
    sections = sections_of(listings.commands())
    assert set(sections) == set(command_line.commands)
    for name, command in command_line.commands.items():
        flags = [flag for each in command.params if isinstance(each, click.Option) for flag in each.opts]
        assert all(flag in sections[name] for flag in flags)


def test_the_page_of_the_python_names_has_all_of_them():
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    named = {*re.findall(r"inrkit\.(\w+)$", page, re.MULTILINE), *re.findall(r"`([A-Z]+)`", page)}
    assert set(inrkit.__all__) <= named


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"^([\w/-]+)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE))
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*") if path.suffix in PAGES}
    assert pages - {"index"} <= listed


PAGES = (".md", ".ipynb")


@pytest.mark.parametrize(
    ("page", "asked"),
    [
        ('<script src="https://a.example/x.js"></script>', ["https://a.example/x.js"]),
        ('<link rel="stylesheet" href="//a.example/x.css">', ["//a.example/x.css"]),
        ("<p style=\"background: url('https://a.example/x.png')\">", ["https://a.example/x.png"]),
        ('<a href="https://a.example/">a link</a><link rel="canonical" href="https://a.example/">', []),
        ('<img src="picture.png"><script src="_static/x.js"></script>', []),
    ],
)
def test_what_a_page_would_ask_of_another_host_is_found(page, asked):
    assert extension("offline").requests(page) == asked
