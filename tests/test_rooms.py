"""Who may know whom: tools → modalities → inrkit; and within inrkit a floor only the floors below it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS = [
    {"__init__", "__main__", "contract"},
    {"cli"},
    {"batch", "exports", "reports"},
    {"runs"},
    {"config"},
    {"training"},
    {"evaluation"},
    {"selectors", "networks"},
    {"signals"},
    {"plugins"},
    {"coding"},
    {"device", "files"},
    {"errors"},
]
"""The rooms of the engine, from the top down. A room may import from the floors below its own."""


def imports(folder: str) -> dict[str, set[str]]:
    """Every module name that each file of a room imports."""
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


def room_of(path: str) -> str:
    return Path(path).relative_to("inrkit").parts[0].removesuffix(".py")


def modules() -> dict[str, set[str]]:
    """The files of the engine that each of its files imports, by module name."""
    known = {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): names
        for path, names in imports("inrkit").items()
    }
    return {name: {other for other in names if other in known} - {name} for name, names in known.items()}


def packages_of(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


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


def test_every_room_has_a_floor():
    rooms = {room_of(path) for path in imports("inrkit")}
    assert rooms == set().union(*FLOORS)


def test_imports_go_down_only():
    floor = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
    for path, names in imports("inrkit").items():
        own = room_of(path)
        for name in names:
            parts = name.split(".")
            if parts[0] != "inrkit" or len(parts) == 1 or parts[1] not in floor or parts[1] == own:
                continue
            assert floor[parts[1]] > floor[own], f"{path} imports {name}, which is not on a floor below"


def test_no_imports_go_in_a_circle():
    graph = modules()
    state: dict[str, str] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if state.get(name) == "done":
            return
        assert name not in trail, " → ".join([*trail[trail.index(name) :], name])
        for other in sorted(graph[name] - packages_of(name)):
            visit(other, (*trail, name))
        state[name] = "done"

    for name in graph:
        visit(name, ())


def test_selectors_know_of_a_signal_only_what_they_are_given():
    for path in sorted((ROOT / "inrkit" / "selectors").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        reached = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not reached & {"dataset", "_dataset", "signal", "_signal"}, f"{path.name} reaches for the signal itself"


def test_importing_the_engine_loads_no_modality():
    code = (
        "import sys, inrkit, inrkit.cli\n"
        "print([name for name in sys.modules if 'modalities' in name or name.split('.')[0] in ('PIL', 'tifffile')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_fit_loads_nothing_that_is_slow_to_import_and_that_it_does_not_need(tmp_path):
    code = (
        "import sys\nimport inrkit\nimport numpy as np\n"
        f"inrkit.fit(np.eye(200, dtype=np.uint8), steps=1, out={str(tmp_path / 'run')!r})\n"
        "slow = ('torch._dynamo', 'sympy', 'scipy.stats', 'matplotlib', 'pandas')\n"
        "print([name for name in slow if name in sys.modules])\n"
        "assert [name for name in sys.modules if name in ('numpy', 'torch')] == ['numpy', 'torch']"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_the_public_names_are_one_sorted_list_that_exists():
    import inrkit

    assert list(inrkit.__all__) == sorted(
        inrkit.__all__, key=lambda name: (name.upper() != name, name[0].islower(), name)
    )
    assert all(getattr(inrkit, name) is not None for name in inrkit.__all__)
