"""The memory that a fit announces, and what it refuses for lack of it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import inrkit
from inrkit.runs import build
from inrkit.training.memory import Memory, _linear, _Tally

TOOL = Path(__file__).parents[2] / "tools" / "memory.py"
NUMBER = 4 * 1000  # bytes of a thousand float32 numbers


def test_tensors_are_counted_while_they_are_there():
    given = torch.ones(1000, requires_grad=True)
    with _Tally() as tally:
        last = given.sin().sin().exp()
        assert (tally.alive, tally.most) == (2 * NUMBER, 3 * NUMBER)  # the second sine is not kept for the derivatives
        last.sum().backward()
        del last
        assert tally.alive == NUMBER  # the gradient
        torch.zeros(1000).add_(1)
        assert tally.alive == NUMBER


def test_memory_of_a_few_coordinates_tells_that_of_many():
    weights = torch.ones(1000)
    each, fixed = _linear(lambda size: (torch.ones(size, 5), weights * 2), 10**6)
    assert (each, fixed) == (5 * 4, NUMBER)


def test_peak_is_what_is_kept_and_the_largest_of_what_comes_one_after_another():
    memory = Memory(parameters=1, coordinates=2, step=5, evaluation=7, files=6)
    assert memory.total == 10
    assert memory.largest == "evaluation"


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["selector=full", "train.chunk=1000000"], "train.chunk"),
        (["train.chunk=256", "network.hidden_features=1024"], "network.hidden_features"),
    ],
)
def test_fit_that_memory_cannot_hold_is_refused_before_it_starts(tmp_path, monkeypatch, overrides, key):
    monkeypatch.setattr(build, "free_memory", lambda device: 32 << 20)
    image = np.random.default_rng(0).random((128, 128, 3), dtype=np.float32)
    request = ["base=image-single", "optimizer=adam", "train.steps=3", *overrides]
    with pytest.raises(inrkit.ConfigError, match=f"32 MiB are at hand on cpu; .*{key}"):
        inrkit.fit(image, out=tmp_path / "run", overrides=request)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process's peak")
def test_announced_memory_is_within_a_quarter_of_the_measured():
    done = subprocess.run([sys.executable, TOOL, "256×256, one", "sound"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
