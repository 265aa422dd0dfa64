import copy

import pytest
import torch
from pytorch_optimizer.optimizer.soap import SOAP as Reference
from torch import nn

from inrkit.networks import set_precision
from inrkit.networks.siren import Siren, SirenOptions
from inrkit.training.optimizers.factories import Soap, SoapOptions
from inrkit.training.optimizers.soap import SOAP

SHAPES = [(6, 6), (6, 6), (3, 4, 5), (40, 3), (6,), (6,), ()]
"""Equal ones, of three axes, with an axis that is too long for a basis, of one, and of none."""


def parameters(shapes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, dtype=dtype, generator=generator)) for shape in shapes]


def train(optimizer, trained, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in trained:
            noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator) + 0.3
            parameter.grad = noise.to(parameter.dtype)
        optimizer.step()


def test_it_steps_as_the_reference_does():
    ours, theirs = parameters(SHAPES), parameters(SHAPES)
    start = copy.deepcopy(ours)
    common = {"lr": 1e-2, "betas": (0.85, 0.9), "weight_decay": 0.1}
    train(SOAP(ours, precondition_every=5, precondition_up_to=20, **common), ours, 40)
    train(Reference(theirs, precondition_frequency=5, max_precondition_dim=20, **common), theirs, 40)
    for our, their, before in zip(ours, theirs, start, strict=True):
        assert (our - before).abs().max() > 0.05
        assert torch.allclose(our, their, rtol=0, atol=1e-6)


def test_stacked_parameters_step_as_each_would_alone():
    together, alone = parameters(SHAPES), parameters(SHAPES)
    train(SOAP(together, precondition_every=3), together, 20)
    generator = torch.Generator().manual_seed(1)
    optimizers = [SOAP([parameter], precondition_every=3) for parameter in alone]
    for _ in range(20):
        for parameter, optimizer in zip(alone, optimizers, strict=True):
            parameter.grad = torch.randn(parameter.shape, dtype=torch.float64, generator=generator) + 0.3
            optimizer.step()
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-9)


def test_a_parameter_without_a_gradient_stays_and_holds_no_other_back():
    idle, busy = parameters([(6, 6), (6, 6)])
    before, moved = idle.detach().clone(), busy.detach().clone()
    train(SOAP([idle, busy]), [busy], 15)
    assert torch.equal(idle, before)
    assert not torch.equal(busy, moved)


def test_bfloat16_products_turn_a_step_little():
    whole, short = parameters([(64, 64)] * 2, torch.float32), parameters([(64, 64)] * 2, torch.float32)
    start = copy.deepcopy(whole)
    train(SOAP(whole, lr=1e-3), whole, 30)
    train(SOAP(short, lr=1e-3, precision="bfloat16"), short, 30)
    for one, other, before in zip(whole, short, start, strict=True):
        assert not torch.equal(one, other)
        assert (one - other).norm() < 0.05 * (one - before).norm()
        assert other.dtype == torch.float32


def test_hidden_matrices_are_turned_in_the_precision_of_their_layers():
    network = Siren(SirenOptions(hidden_features=16, hidden_layers=2), 2, 3)
    assert [group["precision"] for group in Soap.make(SoapOptions(), network).param_groups] == ["float32"]
    set_precision(network, "bfloat16")
    groups = {group["precision"]: group["params"] for group in Soap.make(SoapOptions(), network).param_groups}
    assert [id(each) for each in groups["bfloat16"]] == [id(layer.weight) for layer in network.hidden]
    assert len(groups["float32"]) == len(list(network.parameters())) - 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gradient_of_zero_leaves_numbers_finite(precision):
    trained = parameters([(8, 8)], torch.float32)
    optimizer = SOAP(trained, precondition_every=2, precision=precision)
    before = trained[0].detach().clone()
    for _ in range(6):
        trained[0].grad = torch.zeros(8, 8)
        optimizer.step()
    assert torch.equal(trained[0], before)
