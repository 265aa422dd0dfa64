import copy
import math

import pytest
import torch
from pytorch_optimizer.optimizer.soap import SOAP as Reference
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from inrkit.networks import set_precision
from inrkit.networks.siren import Siren, SirenOptions
from inrkit.training.optimizers.factories import Soap, SoapOptions
from inrkit.training.optimizers.soap import SOAP, _eigenvectors

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


SHARES = {"fresh": 1e-4, "fixed": 3e-3, "rank one": 1e-2, "dead rows": 1e-2}
"""How far rounding may turn steps, as a share of them, by how gradients go from step to step.

Rounding is 1e-7 of a matrix's size, and so 1e-5 of a full step where the floor under roots of mean squares damps it.
Of 64 × 64 coordinates it does in all but 64 where a gradient is fixed, and in all but one where its rank is one, which
makes √64 to 64 times that of the whole. Turns mix up to 1e-4 of other rows into dead ones, 1 % of the floor.
"""


def gradients(kind, shape, steps, seed):
    """(T, …) float32 gradients of one parameter."""
    drawn = 1e-3 * torch.randn(steps, *shape, generator=torch.Generator().manual_seed(seed))
    if kind == "fixed":
        return drawn[:1].expand_as(drawn)
    if kind == "rank one":
        product = 1e3 * drawn[0].flatten(1)[:, :1] * drawn[1].flatten(1)[:1]
        return product.view(shape) * torch.linspace(1, 2, steps).view(-1, *[1] * len(shape))
    if kind == "dead rows":
        drawn[:, ::3] = 0
    return drawn


def changes(kind, shape, count=1, relative=0.0, stacked=True, dtype=torch.float32, **options):
    """(count, …) changes of equal parameters after 12 steps, with noise in their gradients of this relative size."""
    trained = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for _ in range(count)]
    options = {"betas": (0.85, 0.9), "precondition_every": 5, **options}
    optimizers = [SOAP(part, **options) for part in ([trained] if stacked else [[each] for each in trained])]
    noise = torch.Generator().manual_seed(99)
    given = [gradients(kind, shape, 12, seed) for seed in range(count)]
    for step in range(12):
        for parameter, each in zip(trained, given, strict=True):
            parameter.grad = (each[step] * (1 + relative * torch.randn(shape, generator=noise))).to(dtype)
        for optimizer in optimizers:
            optimizer.step()
    return torch.stack([parameter.detach() for parameter in trained])


def assert_near(ours, theirs, share):
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= share * other.norm()


every_shape = pytest.mark.parametrize("shape", [(12, 2), (3, 12), (12, 12), (64, 1), (64, 64), (3, 4, 20)], ids=str)


@every_shape
@pytest.mark.parametrize("kind", SHARES)
def test_rounding_of_gradients_decides_nothing(kind, shape):
    exact = changes(kind, shape, 3)
    assert exact.abs().amax(dim=tuple(range(1, exact.ndim))).min() > 1e-3
    assert_near(changes(kind, shape, 3, relative=1e-7), exact, SHARES[kind])
    assert_near(changes(kind, shape, 3, stacked=False), exact, SHARES[kind])


@pytest.mark.parametrize("shape", [(12, 2), (12, 12), (3, 4, 20)], ids=str)
def test_it_steps_in_float32_as_in_float64(shape):
    assert_near(changes("fresh", shape), changes("fresh", shape, dtype=torch.float64), 0.1)


@pytest.mark.parametrize("shape", [(12, 2), (12, 12), (3, 4, 20)], ids=str)
def test_rounding_of_gradients_changes_little_in_bfloat16(shape):
    exact = changes("fresh", shape, 3, precision="bfloat16")
    assert_near(changes("fresh", shape, 3, precision="bfloat16", relative=1e-7), exact, 0.02)


def test_rows_with_a_basis_of_their_own_step_alike_at_any_scale():
    one, other = (nn.Parameter(torch.zeros(40, 3)) for _ in range(2))
    optimizer = SOAP([one, other], precondition_up_to=20)
    for gradient in gradients("fresh", (40, 3), 2, 0):
        one.grad, other.grad = 1e3 * gradient, 1e3 * gradient
        # The basis of the columns is that of the large rows, which are the same.
        one.grad[:20] *= 1e-2
        other.grad[:20] *= 1e-3
        optimizer.step()
    assert torch.allclose(one, other, rtol=0, atol=1e-5)


def assert_diagonal(matrices):
    assert torch.allclose(matrices, torch.diag_embed(matrices.diagonal(dim1=1, dim2=2)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_null_spaces_have_the_basis_nearest_the_axes(rank):
    rows = torch.randn(2, 8, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    vectors = _eigenvectors(rows @ rows.mT, torch.float64)
    assert_diagonal(vectors.mT @ vectors)
    assert_diagonal(vectors.mT @ rows @ rows.mT @ vectors)
    null = vectors[:, :, rank:]
    assert torch.allclose(rows.mT @ null, torch.zeros(2, rank, 8 - rank, dtype=torch.float64), rtol=0, atol=1e-6)
    falling = null.mT @ torch.arange(8, 0, -1, dtype=torch.float64).diag() @ null
    assert_diagonal(falling)
    assert (falling.diagonal(dim1=1, dim2=2).diff() < 0).all()


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_spoils_its_own_parameter_alone(wrong):
    spoilt, whole = (nn.Parameter(torch.ones(6, 6)) for _ in range(2))
    optimizer = SOAP([spoilt, whole], precondition_every=2)
    given = gradients("fresh", (6, 6), 6, 0)
    for gradient in given:
        whole.grad, spoilt.grad = gradient.clone(), gradient.clone()
        spoilt.grad[2, 3] = wrong
        optimizer.step()
    single = nn.Parameter(torch.ones(6, 6))
    optimizer = SOAP([single], precondition_every=2)
    for gradient in given:
        single.grad = gradient.clone()
        optimizer.step()
    assert torch.allclose(whole, single, rtol=0, atol=1e-6)
    assert not spoilt.isfinite().all()


def test_all_bases_of_a_size_are_turned_by_one_decomposition():
    class Decompositions(TorchDispatchMode):
        shapes: list[tuple[int, ...]] = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket is torch.ops.aten.linalg_qr:
                self.shapes.append(tuple(args[0].shape))
            return function(*args, **(kwargs or {}))

    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 8), (8, 2), (8,), (8, 8), (3, 8))]
    optimizer = SOAP(parameters, precondition_every=2)
    with Decompositions() as decompositions:
        for _ in range(3):
            for parameter in parameters:
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
    # Both sides of both square matrices, and a side each of the other two.
    assert sorted(decompositions.shapes) == [(1, 2, 2), (1, 3, 3), (6, 8, 8)]
    state = optimizer.state[parameters[0]]["bases"][0]
    assert state.untyped_storage().nbytes() == state.numel() * 4
