"""A page: one file with its style, its program, its data and the libraries it needs."""

from __future__ import annotations

import base64
import functools
import time
from collections.abc import Sequence
from importlib import metadata, resources
from typing import Any

from inrkit.runs.drawing import CLAY, in_script, scale_css


def page(template: str, data: dict[str, Any], libraries: Sequence[str] = (), **values: Any) -> str:
    """A page as text.

    Args:
        template: its file in the folder `templates`.
        data: what the page's program draws.
        libraries: names of scripts in the folder `assets` that it needs.
        values: of the template; all of them are escaped.
    """
    text: str = (
        _templates()
        .get_template(template)
        .render(
            css=_safe(_read("templates/page.css")),
            js=_safe(_read("templates/page.js")),
            data=_safe(in_script(data)),
            libraries=[(name, _library(name)) for name in libraries],
            licenses=_read("assets/LICENSES.txt") if libraries else "",
            colours=scale_css(),
            clay=scale_css(CLAY),
            version=metadata.version("inrkit"),
            written=time.strftime("%Y-%m-%d %H:%M"),
            **values,
        )
    )
    return text


@functools.cache
def _templates() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _read(f"templates/{name}")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
    )


def _safe(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


@functools.cache
def _read(name: str) -> str:
    return resources.files("inrkit.reports").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _library(name: str) -> str:
    content = resources.files("inrkit.reports").joinpath(f"assets/{name}.js.gz").read_bytes()
    return base64.b64encode(content).decode()
