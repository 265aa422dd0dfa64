import numpy as np
import pytest
import torch

from inrkit import CoordinateDataset, Progress
from inrkit.selectors import Errors, Selection
from inrkit.signals.operators import LaplacianOptions, LatticeLaplacian
from inrkit.signals.signal import Signal
from inrkit.training.objectives import CrossFrequencyOptions, CrossFrequencySupervision

SHAPE, COUNT = (6, 7), 42


EVERYTHING = Selection(torch.arange(COUNT), whole=True)


def supervision(**options) -> CrossFrequencySupervision:
    operator = LatticeLaplacian(LaplacianOptions(), Signal(CoordinateDataset(np.zeros((*SHAPE, 1)))))
    return CrossFrequencySupervision(CrossFrequencyOptions(**options), COUNT, operator, torch.device("cpu"))


def plain_laplacian(field: torch.Tensor) -> torch.Tensor:
    kernel = torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]])
    return torch.nn.functional.conv2d(field.view(1, 1, *SHAPE), kernel, padding=1).view(-1)


def test_gradient_at_a_key_step_is_that_of_the_live_full_prediction():
    residual = torch.randn(COUNT, requires_grad=True)
    loss = 0.3 * plain_laplacian(residual).square().mean()
    (expected,) = torch.autograd.grad(loss, residual)
    coupling = supervision(weight=0.3).coupling(Progress(1, 10), EVERYTHING, residual.detach())
    torch.testing.assert_close(coupling, expected)


def test_gradient_between_key_steps_replaces_the_selected_entries_of_the_cached_prediction():
    objective = supervision(weight=0.3)
    cached, target = torch.randn(2, COUNT)
    objective.observe(Progress(1, 10), EVERYTHING, Errors(cached.square(), cached - target))
    indices = torch.randperm(COUNT)[:17]
    live = torch.randn(17, requires_grad=True)
    prediction = cached.index_copy(0, indices, live)
    response = plain_laplacian(prediction) - plain_laplacian(target)
    loss = 0.3 * response[indices].square().mean()
    (expected,) = torch.autograd.grad(loss, live)
    for _ in range(2):
        coupling = objective.coupling(Progress(2, 10), Selection(indices), live.detach() - target[indices])
        torch.testing.assert_close(coupling, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("step", "on"), [(1, True), (1500, True), (1501, False), (5000, False)])
def test_it_is_on_for_the_first_thirty_percent(step, on):
    assert supervision().couples(Progress(step, 5000)) is on


def test_a_weight_of_zero_turns_it_off():
    assert not supervision(weight=0).couples(Progress(1, 5000))


def test_the_published_weight_is_stated_free_of_the_bit_depth():
    # λ = 1e-5 · L(0 … 255)² equals λ' · L(−1 … 1)².
    values = torch.rand(COUNT) * 255
    published = 1e-5 * plain_laplacian(values).square()
    ours = CrossFrequencyOptions().weight * plain_laplacian(values / 127.5).square()
    torch.testing.assert_close(ours, published)
