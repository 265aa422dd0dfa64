"""Who may know whom: tools → modalities → inrkit."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def imports(folder: str) -> dict[str, set[str]]:
    """Every module name that each file of a room imports, also as a string given to import_module."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        names = found.setdefault(str(path.relative_to(ROOT)), set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("inrkit", ("inrkit.modalities", "modalities", "tools")),
        ("modalities", ("tools",)),
    ],
)
def test_a_room_imports_nothing_from_the_rooms_above_it(room, forbidden):
    for path, names in imports(room).items():
        wrong = [name for name in names if any(name == top or name.startswith(top + ".") for top in forbidden)]
        assert not wrong, f"{path} imports {wrong}"


def test_importing_the_engine_loads_no_modality():
    code = (
        "import sys, inrkit, inrkit.cli\n"
        "print([name for name in sys.modules if 'modalities' in name or name.split('.')[0] in ('PIL', 'tifffile')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_one_sorted_list_that_exists():
    import inrkit

    assert list(inrkit.__all__) == sorted(
        inrkit.__all__, key=lambda name: (name.upper() != name, name[0].islower(), name)
    )
    assert all(getattr(inrkit, name) is not None for name in inrkit.__all__)
