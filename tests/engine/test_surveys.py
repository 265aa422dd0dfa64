"""What selectors learn of the network: errors before a step, influence by the neural tangent kernel, slopes."""

import numpy as np
import pytest
import torch

from inrkit import NETWORKS, CoordinateDataset, Member, Network, Progress, Selection, Survey
from inrkit.plugins.options import field_names
from inrkit.selectors import Full
from inrkit.signals.operators import NoneOptions, NoOperator
from inrkit.signals.signal import Signal
from inrkit.training.gradients import backpropagate, measure
from inrkit.training.learning_rates import Constant, ConstantOptions
from inrkit.training.objectives import MeanSquaredError, MeanSquaredErrorOptions
from inrkit.training.optimizers.factories import OPTIMIZERS

SMALL = {"hidden_features": 6, "hidden_layers": 1, "features": 4, "octaves": 2, "log_table_size": 6, "levels": 2}


class WithSlope(Full):
    needs_slope = True


def signal(weights=False, points=False):
    random = np.random.default_rng(0)
    values = random.normal(size=(5, 6, 2)).astype(np.float32)
    more = {"channel_weights": (0.7, 0.3)}
    if weights:
        more["weights"] = random.uniform(0.2, 2, (5, 6))
    if points:
        places = random.uniform(-1, 1, (30, 2))
        more["weights"] = more["weights"].reshape(30) if weights else None
        return CoordinateDataset(values.reshape(30, 2), points=places, **more)
    return CoordinateDataset(values, **more)


def member_of(dataset, network="siren", chunk=1000, selector=Full) -> Member:
    plugin = NETWORKS.get(network) if isinstance(network, str) else network
    wanted = {key: value for key, value in SMALL.items() if key in field_names(plugin.Options)}
    torch.manual_seed(0)
    module = plugin(plugin.fitted(plugin.Options(**wanted), Signal(dataset)), dataset.dimensions, dataset.channels)
    learned = Signal(dataset)
    operator = NoOperator(NoneOptions(), learned)
    device = torch.device("cpu")
    return Member(
        learned,
        module,
        selector(selector.Options(), len(dataset), operator, 0, device),
        MeanSquaredError(MeanSquaredErrorOptions(), len(dataset), operator, device),
        OPTIMIZERS.get("adam").make(OPTIMIZERS.get("adam").Options(), module),
        Constant(ConstantOptions()),
        steps=1,
        chunk=chunk,
        metrics=["psnr"],
        evaluate_every=1,
    )


def missed(member: Member, indices: torch.Tensor) -> torch.Tensor:
    return (member.network(member.signal.inputs(indices)) - member.signal.targets(indices)).detach()


ALL = torch.arange(30)
SOME = torch.tensor([17, 3, 29, 0, 8, 21, 4])


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("points", [False, True])
def test_surveyed_errors_are_those_of_the_present_network(weights, points):
    member = member_of(signal(weights, points), chunk=3)
    for indices in (SOME, torch.arange(30)):
        residual = missed(member, indices)
        expected = residual.square().mean(dim=-1)
        if weights:
            expected = expected * member.signal.dataset.weights.reshape(-1)[indices]
        errors = measure(member, Survey(indices))
        torch.testing.assert_close(errors.squared, expected)
        torch.testing.assert_close(errors.residual, residual @ torch.tensor([0.7, 0.3]))
        assert errors.influence is None


def test_a_survey_sees_what_a_step_then_trains_on():
    member = member_of(signal(True), chunk=7)
    surveyed = measure(member, Survey(SOME))
    _, trained = backpropagate(member, Progress(1, 1), Selection(SOME))
    torch.testing.assert_close(surveyed.squared, trained.squared)
    torch.testing.assert_close(surveyed.residual, trained.residual)


def tangent_kernel(member: Member, indices: torch.Tensor) -> torch.Tensor:
    """(k·C, k·C) neural tangent kernel J Jᵀ in float64, J from one backward pass for each output."""
    network = member.network.double()
    inputs = member.signal.inputs(indices).double()
    outputs = network(inputs).reshape(-1)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    rows = []
    for output in outputs:
        row = torch.autograd.grad(output, parameters, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([part.reshape(-1) for part in row]))
    jacobian = torch.stack(rows)
    network.float()
    return jacobian @ jacobian.T


@pytest.mark.parametrize("indices", [SOME, torch.arange(30)], ids=["some", "all"])
def test_influence_is_the_tangent_kernel_applied_to_the_errors(indices):
    member = member_of(signal(True), chunk=4)
    residual = missed(member, indices) * member.signal.dataset.weights.reshape(-1)[indices, None]
    kernel = tangent_kernel(member, indices)
    expected = (kernel @ residual.double().reshape(-1)).reshape(-1, 2).norm(dim=-1).float()
    found = measure(member, Survey(indices, influence=True))
    torch.testing.assert_close(found.influence, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.squared, measure(member, Survey(indices)).squared)


def test_influence_is_how_far_a_small_step_of_descent_moves_the_predictions():
    member = member_of(signal())
    influence = measure(member, Survey(SOME, influence=True)).influence
    inputs, targets = member.signal.inputs(SOME), member.signal.targets(SOME)
    network = member.network.double()
    before = network(inputs.double())
    loss = (before - targets).square().sum() / 2
    rate = 1e-6
    with torch.no_grad():
        for parameter, slope in zip(
            network.parameters(), torch.autograd.grad(loss, list(network.parameters())), strict=True
        ):
            parameter -= rate * slope
        moved = (network(inputs.double()) - before).norm(dim=-1) / rate
    torch.testing.assert_close(influence, moved.float(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS.names())
def test_influence_does_not_depend_on_the_chunks(name):
    whole = measure(member_of(signal(), name), Survey(ALL, influence=True))
    parted = measure(member_of(signal(), name, chunk=7), Survey(ALL, influence=True))
    scale = float(whole.influence.max())
    torch.testing.assert_close(parted.influence, whole.influence, rtol=1e-3, atol=1e-4 * scale)
    assert torch.isfinite(whole.influence).all()
    assert (whole.influence > 0).any()


def test_frozen_parameters_have_no_influence():
    member = member_of(signal())
    with_all = measure(member, Survey(ALL, influence=True)).influence
    for parameter in list(member.network.parameters())[:2]:
        parameter.requires_grad_(False)
    kernel = tangent_kernel(member, torch.arange(30))
    expected = kernel @ missed(member, torch.arange(30)).double().reshape(-1)
    found = measure(member, Survey(ALL, influence=True)).influence
    torch.testing.assert_close(found, expected.reshape(-1, 2).norm(dim=-1).float(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, with_all)


@pytest.mark.parametrize("influence", [False, True])
def test_a_survey_leaves_no_gradient_and_no_change(influence):
    member = member_of(signal(), chunk=7)
    before = [parameter.detach().clone() for parameter in member.network.parameters()]
    errors = measure(member, Survey(ALL, influence=influence))
    assert not errors.squared.requires_grad
    assert all(parameter.grad is None for parameter in member.network.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, member.network.parameters(), strict=True))


class Line(Network):
    """A product of the coordinates and a sine of them, whose slope is known."""

    Options = MeanSquaredErrorOptions

    def __init__(self, options, dimensions, channels):
        super().__init__(options, dimensions, channels)
        self.scale = torch.nn.Parameter(torch.ones(channels))

    def forward(self, coordinates):
        return self.scale * (coordinates.prod(dim=-1, keepdim=True) + torch.sin(3 * coordinates[..., :1]))


def loss_at(member: Member, index: int, offset: torch.Tensor) -> float:
    """Weighted loss at a place beside a lattice point, between which the targets are linear, in float64."""
    signal, dataset = member.signal, member.signal.dataset
    indices = torch.tensor([index])
    place = dataset.coordinates(indices).double() + offset
    target = signal.targets(indices).double() + (signal.slopes(indices).double() @ offset)
    with torch.no_grad():
        loss = (member.network.double()(place) - target).square().mean()
        member.network.float()
    weight = dataset.weights_of(indices)
    return float(loss if weight is None else loss * weight)


@pytest.mark.parametrize("network", ["siren", Line], ids=["siren", "line"])
@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("chunk", [4, 1000])
def test_slope_is_the_gradient_of_the_loss_by_the_coordinate(network, points, chunk):
    member = member_of(signal(True, points), network, chunk, WithSlope)
    selection = Selection(SOME, torch.linspace(0.5, 2, len(SOME)))
    _, errors = backpropagate(member, Progress(1, 1), selection)
    step = 1e-4
    for row, index in enumerate(SOME.tolist()):
        for axis in range(2):
            offset = torch.zeros(2, dtype=torch.float64)
            offset[axis] = step
            expected = (loss_at(member, index, offset) - loss_at(member, index, -offset)) / (2 * step)
            # The network at 1e-4 beside the point is in float64, the slope in float32.
            assert float(errors.slope[row, axis]) == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_slope_is_not_computed_for_selectors_that_need_none():
    _, errors = backpropagate(member_of(signal()), Progress(1, 1), Selection(ALL, whole=True))
    assert errors.slope is None


def test_asking_for_the_slope_does_not_change_the_gradient():
    def gradients(selector):
        member = member_of(signal(True), selector=selector)
        _, errors = backpropagate(member, Progress(1, 1), Selection(SOME))
        return [parameter.grad for parameter in member.network.parameters()], errors

    (plain, one), (with_slope, other) = gradients(Full), gradients(WithSlope)
    for ours, theirs in zip(with_slope, plain, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(other.squared, one.squared)
