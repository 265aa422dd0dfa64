"""Docstrings are plain text for the terminal. Here they become reStructuredText.

Asterisks outside code are asterisks, and what is indented after an empty line is an example.
"""

from __future__ import annotations

from typing import Any


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's entry to an extension."""
    app.connect("autodoc-process-docstring", _prepare, priority=400)  # before napoleon, which makes fields of sections
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _prepare(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    text = "\n".join(lines).split("`")
    text[::2] = [part.replace("*", r"\*") for part in text[::2]]
    lines[:] = _with_examples("`".join(text).split("\n"))


def _with_examples(lines: list[str]) -> list[str]:
    found: list[str] = []
    for line in lines:
        said = next((earlier for earlier in reversed(found) if earlier), "")
        if line.startswith("    ") and found and not found[-1] and not said.startswith(" "):
            found += [".. code-block:: python", ""]
        found.append(line)
    return found
