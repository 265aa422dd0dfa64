"""The site asks nothing of any other host: a page that would is a warning, and so ends a strict build."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from sphinx.util import logging

_LOADS = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "audio": "src",
    "video": "src",
}
"""What a browser fetches without a click, by tag. A `link` to a page's own address (canonical) fetches nothing."""
_FETCHED_LINKS = ("stylesheet", "preload", "preconnect", "dns-prefetch", "icon", "modulepreload", "prefetch")

_log = logging.getLogger(__name__)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's entry to an extension."""
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _check(app: Any, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        for path in sorted(Path(app.outdir).rglob("*.html")):
            for address in requests(path.read_text(encoding="utf-8")):
                _log.warning("%s would ask another host: %s", path.relative_to(app.outdir), address)
        for path in sorted(Path(app.outdir).rglob("*.css")):
            for address in _in_styles(path.read_text(encoding="utf-8")):
                _log.warning("%s would ask another host: %s", path.relative_to(app.outdir), address)


def requests(page: str) -> list[str]:
    """The addresses on other hosts that a browser would ask when it opens a page.

    Args:
        page: HTML.
    """
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            given = {name: value or "" for name, value in attributes}
            address = given.get(_LOADS.get(tag, ""), "")
            fetched = tag != "link" or any(word in given.get("rel", "").split() for word in _FETCHED_LINKS)
            if fetched and address.startswith(("http:", "https:", "//")):
                found.append(address)
            found.extend(_in_styles(given.get("style", "")))

    reader = Reader()
    reader.feed(page)
    return found


def _in_styles(text: str) -> Iterator[str]:
    return iter(re.findall(r"(?:url\(|@import\s+)[\s'\"]*((?:https?:)?//[^\s'\")]+)", text))
