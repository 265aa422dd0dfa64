import importlib.util
from pathlib import Path

import pytest


def _module(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FITS = _module("fits", Path(__file__).with_name("fits.py"))
BROWSER = _module("browser", Path(__file__).parents[1] / "reports" / "browser.py")


@pytest.fixture(scope="session")
def fits():
    """Tiny fits, each made once."""
    return FITS


@pytest.fixture(scope="session")
def browser():
    """What opens pages."""
    return BROWSER
