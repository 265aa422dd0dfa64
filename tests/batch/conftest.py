"""Pictures and a study of them, for the tests of this room."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from inrkit.batch import Study, read_study

TINY = {"train.steps": 4, "network.hidden_features": 8, "network.hidden_layers": 1}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with photos/a.png, photos/b.png and photos/more/c.png, which is also the current one."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "more/c.png")):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def study(photos) -> Callable[..., Study]:
    """Write study.yaml, of tiny fits of photos/*.png unless keys say otherwise, and read it."""

    def written(words=(), **keys) -> Study:
        keys = {"base": "image", "set": TINY, "matrix": {"data.path": "photos/*.png"}} | keys
        Path("study.yaml").write_text(yaml.safe_dump(keys, sort_keys=False))
        return read_study("study.yaml", words)

    return written
