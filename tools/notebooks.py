"""Run the notebooks of the docs, each in a fresh folder, and store what they show.

    python tools/notebooks.py             all of them
    python tools/notebooks.py photo       one

They are stored with their outputs, so that they can be read on a forge and on the site without being run. Figures are
JPEG, which keeps a notebook below 400 kB. tests/docs/test_notebooks.py runs their cells, and leaves the files alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
FIGURES = ["--InlineBackend.figure_formats=jpeg"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of notebooks; all if none is given")
    names = parser.parse_args().names or sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    for name in names:
        path = FOLDER / f"{name}.ipynb"
        if not path.is_file():
            sys.exit(f"there is no {path}")
        began = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            run(notebook, Path(folder))
            text = nbformat.writes(plain(notebook)).replace(f"{folder}/", "")  # names without the folder of this run
        path.write_text(text + "\n", encoding="utf-8")
        print(f"{name}: {time.perf_counter() - began:.0f} s, {path.stat().st_size / 1000:.0f} kB")


def run(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run all cells of a notebook with a folder of its own; an error in a cell is raised."""
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, resources=place, extra_arguments=FIGURES).execute(env=environment)


def plain(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook without what changes from run to run though nothing else does: times of cells, versions, ids."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
    return notebook


if __name__ == "__main__":
    main()
