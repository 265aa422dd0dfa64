"""Networks of tiles trained by one kernel in Triton, which is interpreted on the CPU here, in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from inrkit.networks.native import fused_siren

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")

STEP = """
import json, sys, torch
from inrkit.networks.native.fused import FusedSiren

dimensions, channels, width, hidden, points, count, weighted = json.loads(sys.argv[1])
torch.manual_seed(0)
kernel = FusedSiren(dimensions, channels, width, hidden, 20.0, 3.0)
shapes = [(width, dimensions), (width,), *[(width, width), (width,)] * hidden, (channels, width), (channels,)]
sizes = [torch.Size(shape).numel() for shape in shapes]
weights = torch.randn(count + 2, sum(sizes)) / width**0.5
rows = torch.randperm(count + 2)[:count]
shared = count == 1 or hidden == 2
inputs = torch.rand(1 if shared else count, points, dimensions) * 2 - 1
targets = torch.randn(count, points, channels)
factors = torch.rand(count, points) if weighted else None
first, second = torch.rand_like(weights) / 100, torch.rand_like(weights) / 1000
rates, corrections = torch.rand(count) / 100, 1 + torch.rand(count)

# The same by autograd, in float64.
exact = weights[rows].double().requires_grad_()
parts = [part.view(count, *shape) for part, shape in zip(exact.split(sizes, dim=1), shapes)]
features = inputs.double().expand(count, -1, -1)
for layer in range(hidden + 1):
    features = features @ parts[2 * layer].mT + parts[2 * layer + 1][:, None]
    features = torch.sin((3.0 if layer else 20.0) * features)
right = features @ parts[-2].mT + parts[-1][:, None] - targets
squared = right.square().mean(dim=2) * (1 if factors is None else factors)
losses = squared.mean(dim=1)
(gradient,) = torch.autograd.grad(losses.sum(), exact)
mean = first[rows].double().lerp(gradient, 0.1)
square = 0.95 * second[rows].double() + 0.05 * gradient**2
stepped = exact.detach() - rates[:, None] * mean / (square.sqrt() * corrections[:, None] + 1e-8)

apart = {}
def compare(name, found, right):
    apart[name] = float((found - right).abs().max() / right.abs().max())

found, errors = torch.empty(count, weights.shape[1]), torch.empty_like(targets)
compare("losses", kernel.gradients(weights, rows, inputs, targets, factors, found, 1, errors)(), losses)
compare("gradients", found, gradient)
compare("errors", errors, right)
before = weights.clone()
compare("losses of a step", kernel.train(
    weights, first, second, rows, inputs, targets, factors, rates, corrections, (0.9, 0.95), 1e-8, 1
)(), losses)
compare("weights", weights[rows], stepped)
compare("means", first[rows], mean)
compare("squares", second[rows], square)
others = torch.ones(len(weights), dtype=torch.bool)
others[rows] = False
compare("others", weights[others], before[others])
print(json.dumps(apart))
"""

FIT = """
import json, numpy as np, torch, inrkit

y, x = np.mgrid[0:40, 0:33] / 10
values = np.stack([np.sin(x * y), np.cos(x + y)], axis=-1).astype(np.float32)
ends = []
for fused in (False, True):
    training = inrkit.trainer(
        inrkit.CoordinateDataset(values), network={"name": "tiles", "counts": [3, 2]},
        selector={"name": "evos", "survival": "proportional"},
        optimizer={"name": "adam", "lr": 3e-3}, steps=8, precision="float32", device="cpu",
    )
    network = training.member.network
    network.native, network.fused = False, fused
    assert (network.trained_by is not None) is fused
    losses = [step.loss for step in training]
    ends.append(network.weights.detach())
print(json.dumps({"weights": float((ends[0] - ends[1]).abs().max()), "loss": losses[-1] / losses[0]}))
"""


def interpreted(script: str, *words: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [(2, 3, 24, 2, 100, 3, False), (3, 1, 16, 0, 64, 2, True), (1, 2, 13, 1, 70, 1, False), (2, 1, 8, 3, 33, 2, True)],
)
def test_a_step_of_the_kernel_is_autograds_and_adams(shape):
    """D, C, width, hidden layers, points, networks, and whether errors have factors."""
    apart = interpreted(STEP, json.dumps(shape))
    assert max(apart.values()) < 2e-5, apart
    assert apart["others"] == 0


def test_wide_networks_are_left_to_torch():
    assert fused_siren(2, 3, 32, 2, 20.0, 30.0) is not None
    assert fused_siren(2, 3, 33, 2, 20.0, 30.0) is None


@pytest.mark.slow
def test_a_fit_by_the_kernel_is_one_by_torch():
    told = interpreted(FIT)
    assert told["weights"] < 2e-4 and told["loss"] < 1
