"""tools/thumbnails.py: the thumbnails that it draws, and how it tells a data set that is not what it should be."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

import inrkit
from inrkit.batch import pack

TOOL = Path(__file__).parents[2] / "tools" / "thumbnails.py"


@pytest.fixture(scope="module")
def tool():
    specification = importlib.util.spec_from_file_location("thumbnails_tool", TOOL)
    module = importlib.util.module_from_spec(specification)
    sys.modules["thumbnails_tool"] = module
    specification.loader.exec_module(module)
    return module


def test_thumbnails_are_alike_each_time_and_unlike_each_other(tool, tmp_path):
    drawn = []
    for name in ("one", "other"):
        tool.draw(tmp_path / name, 12, 16)
        drawn.append([np.asarray(Image.open(path)) for path in sorted((tmp_path / name).iterdir())])
    assert len(drawn[0]) == 12 and all(image.shape == (16, 16, 3) for image in drawn[0])
    assert all(np.array_equal(one, other) for one, other in zip(*drawn, strict=True))
    assert len({image.tobytes() for image in drawn[0]}) == 12
    assert min(image.std() for image in drawn[0]) > 5


def test_a_data_set_with_other_weights_is_told(tool, tmp_path, capsys):
    tool.draw(tmp_path / "thumbnails", 2, 8)
    network = {"name": "siren", "hidden_features": 4, "hidden_layers": 1}
    for number in range(2):
        out = tmp_path / "study" / "runs" / f"{number}"
        inrkit.fit(tmp_path / "thumbnails" / f"0000{number}.png", out=out, network=network, steps=1, report=False)
    path = tmp_path / "weights.safetensors"
    pack(tmp_path / "study" / "runs", path)
    tool.read(path, tmp_path / "study")
    assert "equal the runs' own" in capsys.readouterr().out
    with safetensors.safe_open(path, "pt") as file:
        said = file.metadata()
    tensors = safetensors.torch.load_file(path)
    tensors["weights"][1] += 0.5
    safetensors.torch.save_file(tensors, path, said)
    with pytest.raises(SystemExit, match="run 1 is another field"):
        tool.read(path, tmp_path / "study")
