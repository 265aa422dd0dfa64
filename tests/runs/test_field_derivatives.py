"""Derivatives of a field, against closed forms and finite differences."""

import numpy as np
import pytest
import torch

from inrkit import NETWORKS, ConfigError, CoordinateDataset, DataError, Field
from inrkit.evaluation.derivatives import hessian, jacobian
from inrkit.networks import precision_of, set_precision
from inrkit.networks.siren import Siren, SirenOptions
from inrkit.signals.embeddings import Identity, IdentityOptions, Periodic, PeriodicOptions
from inrkit.signals.signal import Signal
from inrkit.signals.transforms import Identity as IdentityTransform
from inrkit.signals.transforms import MinMax

SKEWED = np.array([[3.0, 1.0, 10.0], [-0.5, 2.0, -4.0]])
"""[−1, 1]² to physical units: neither square nor along the axes."""


def field_of(network, channels, affine=SKEWED, transform=None, dtype="float32", value_range=None, embedding=None):
    dimensions = len(affine)
    return Field(
        network=network,
        channels=channels,
        embedding=embedding or Identity(IdentityOptions(), dimensions),
        transform=transform or IdentityTransform(),
        names={"network": "", "embedding": "identity", "transform": "identity", "modality": ""},
        modality_options={},
        grid_shape=None,
        dtype=np.dtype(dtype),
        value_range=value_range,
        affine=affine,
        metadata={},
    )


def linear_map(channels, affine=SKEWED):
    """A linear layer whose values are w·p + b at the physical coordinates p; and w, (C, D), and b, (C,)."""
    generator = np.random.default_rng(0)
    slopes, offsets = generator.uniform(-1, 1, (channels, len(affine))), generator.uniform(-1, 1, channels)
    layer = torch.nn.Linear(len(affine), channels)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(slopes @ affine[:, :-1]))
        layer.bias.copy_(torch.from_numpy(slopes @ affine[:, -1] + offsets))
    return layer, slopes, offsets


class Sine(torch.nn.Module):
    def forward(self, argument):
        return torch.sin(argument)


class Waves:
    """sin(w·p + b) of physical coordinates p, 100 times over, and its derivatives."""

    def __init__(self, channels=3, sine=None):
        layer, self.slopes, self.offsets = linear_map(channels)
        transform = MinMax(-100.0, 100.0)  # decodes by a factor of 100
        self.field = field_of(torch.nn.Sequential(layer, sine or Sine()), channels, transform=transform)
        self.inside = np.random.default_rng(1).uniform(-1, 1, (4, 5, 2))
        self.physical = self.inside @ SKEWED[:, :2].T + SKEWED[:, 2]
        phase = self.physical @ self.slopes.T + self.offsets
        self.values = 100 * np.sin(phase)
        self.gradient = 100 * np.cos(phase)[..., None] * self.slopes
        self.hessian = -100 * np.sin(phase)[..., None, None] * self.slopes[:, :, None] * self.slopes[:, None, :]
        self.laplacian = np.trace(self.hessian, axis1=-2, axis2=-1)


def close(found, expected, tolerance=1e-4):
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("channels", [1, 3, 20])  # the last in forward mode
def test_derivatives_are_those_of_a_closed_form_per_physical_unit(channels):
    waves = Waves(channels)
    for name in ("gradient", "hessian", "laplacian"):
        derivative = getattr(waves.field, name)
        close(derivative(waves.inside), getattr(waves, name))
        close(derivative(waves.physical, physical=True), getattr(waves, name))
        assert derivative(waves.inside).dtype == np.float32


class OnlyReverse(torch.autograd.Function):
    """A sine that has no forward derivative."""

    @staticmethod
    def forward(context, argument):
        context.save_for_backward(argument)
        return argument.sin()

    @staticmethod
    def backward(context, slope):
        return slope * context.saved_tensors[0].cos()


class ReverseSine(torch.nn.Module):
    def forward(self, argument):
        return OnlyReverse.apply(argument)


def test_an_operation_without_forward_derivative_is_differentiated_all_the_same():
    waves = Waves(20, ReverseSine())
    close(waves.field.gradient(waves.inside), waves.gradient)
    close(waves.field.hessian(waves.inside), waves.hessian)


def test_a_tensor_gives_a_tensor_and_an_array_an_array():
    waves = Waves()
    given = torch.from_numpy(waves.inside)
    for name in ("gradient", "hessian", "laplacian"):
        derivative = getattr(waves.field, name)
        found = derivative(given.requires_grad_())
        assert isinstance(found, torch.Tensor)
        assert not found.requires_grad
        assert not found.is_inference()
        assert np.array_equal(found.numpy(), derivative(waves.inside))
        assert derivative(waves.inside[0, 0]).shape == found.shape[2:]
        assert derivative(waves.inside[:0]).shape == (0, *found.shape[1:])


def test_derivatives_are_the_same_in_chunks_and_whatever_mode_the_caller_is_in(monkeypatch):
    waves = Waves()
    whole = waves.field.hessian(waves.inside)
    with torch.no_grad():
        assert np.array_equal(waves.field.hessian(waves.inside), whole)
    with torch.inference_mode():
        found = waves.field.hessian(torch.from_numpy(waves.inside).clone())
    assert np.array_equal(found.numpy(), whole)
    monkeypatch.setattr("inrkit.runs.field.default_chunk", lambda device, network: 12)
    close(waves.field.hessian(waves.inside), whole, 1e-6)


def test_a_field_is_differentiable_twice_in_its_coordinates(monkeypatch):
    monkeypatch.setattr("inrkit.runs.field.default_chunk", lambda device, network: 7)
    waves = Waves(1)
    for coordinates, physical in ((waves.inside, False), (waves.physical, True)):
        factor = np.eye(2) if physical else SKEWED[:, :2]  # of a derivative per physical unit to one per coordinate
        points = torch.from_numpy(coordinates).requires_grad_()
        values = waves.field(points, physical=physical)
        close(values.detach(), waves.values)
        (slopes,) = torch.autograd.grad(values.sum(), points, create_graph=True)
        close(slopes.detach(), waves.gradient[..., 0, :] @ factor)
        rows = [torch.autograd.grad(slopes[..., axis].sum(), points, retain_graph=True)[0] for axis in range(2)]
        close(torch.stack(rows, dim=-2), factor.T @ waves.hessian[..., 0, :, :] @ factor)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's forward mode uses it
@pytest.mark.parametrize("outer", [torch.func.jacfwd, torch.func.jacrev])
@pytest.mark.parametrize("inner", [torch.func.jacfwd, torch.func.jacrev])
def test_every_mode_of_differentiation_goes_through_a_field(outer, inner):
    waves = Waves()
    points = torch.from_numpy(waves.physical[0])
    found = torch.func.vmap(outer(inner(lambda point: waves.field(point, physical=True))))(points)
    close(found, waves.hessian[0])
    mapped = inner(lambda rows: torch.func.vmap(lambda point: waves.field(point, physical=True))(rows))(points[:1])
    close(mapped[0, :, 0], waves.gradient[0, 0])


def test_differentiating_in_coordinates_leaves_no_gradient_in_the_weights():
    waves = Waves()
    points = torch.from_numpy(waves.inside).requires_grad_()
    waves.field(points).square().sum().backward()
    assert points.grad is not None
    assert all(weight.grad is None for weight in waves.field.network.parameters())
    assert not waves.field(points.detach()).requires_grad


def test_a_clipped_value_has_no_slope_but_its_gradient_is_that_before_clipping():
    layer, slopes, offsets = linear_map(1)
    field = field_of(layer, 1, dtype="uint8", value_range=(0.0, 255.0))
    targets = np.array([[20.0], [-20.0]])
    points = torch.from_numpy((targets - offsets) * slopes / (slopes**2).sum()).requires_grad_()
    values = field(points, physical=True)
    assert values[:, 0].tolist() == pytest.approx([20.0, 0.0], abs=1e-3)
    (found,) = torch.autograd.grad(values.sum(), points)
    close(found, np.stack([slopes[0], np.zeros(2)]))
    close(field.gradient(points, physical=True)[:, 0].numpy(), np.stack([slopes[0]] * 2))


def test_values_that_do_not_depend_on_the_coordinates_have_zero_derivatives():
    class Constant(torch.nn.Module):
        def forward(self, coordinates):
            return torch.ones(*coordinates.shape[:-1], 2)

    field = field_of(Constant(), 2)
    assert np.array_equal(field.gradient(np.zeros((3, 2))), np.zeros((3, 2, 2)))
    assert np.array_equal(field.hessian(np.zeros((3, 2))), np.zeros((3, 2, 2, 2)))
    linear = field_of(linear_map(2)[0], 2)
    assert np.array_equal(linear.laplacian(np.zeros((3, 2))), np.zeros((3, 2)))


@pytest.mark.parametrize("name", NETWORKS.names())
def test_derivatives_of_every_network_in_a_field_are_finite_differences(name):
    plugin = NETWORKS.get(name)
    options = plugin.fitted(plugin.Options(), Signal(CoordinateDataset(np.zeros((16, 16, 2), dtype=np.float32))))
    options.hidden_features = 16
    module = field_of(plugin(options, 2, 2), 2).module.double()  # the steep ones enlarge the rounding of float32
    points = torch.rand(24, 2, dtype=torch.float64) * 1.8 - 0.9
    steps = torch.eye(2, dtype=torch.float64) * 1e-6

    def differences(function):
        with torch.no_grad():
            return torch.stack([(function(points + step) - function(points - step)) / 2e-6 for step in steps], dim=-1)

    slopes, curvatures = jacobian(module, points), hessian(module, points)
    assert (slopes - differences(module)).abs().max() <= 1e-5 * slopes.abs().max()
    expected = differences(lambda moved: jacobian(module, moved))
    assert (curvatures - expected).abs().max() <= 1e-3 * (curvatures.abs().max() + slopes.abs().max())


def test_an_embedding_is_differentiated_through():
    layer = torch.nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0, 2.0]]))
    affine = np.array([[180.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # an axis of degrees, that closes
    field = field_of(layer, 1, affine=affine, embedding=Periodic(PeriodicOptions(axes=[0]), 2))
    degrees = np.array([[30.0, 0.2], [170.0, -0.4]])
    expected = np.stack([-np.sin(np.radians(degrees[:, 0])) * np.pi / 180, [2.0, 2.0]], axis=-1)
    close(field.gradient(degrees, physical=True)[:, 0], expected)


def test_derivatives_are_in_float32_also_of_a_network_that_multiplies_in_bfloat16():
    network = Siren(SirenOptions(hidden_features=16), 2, 1)
    field, points = field_of(network, 1), np.random.default_rng(0).uniform(-1, 1, (20, 2))
    values, gradient = field(points), field.gradient(points)
    set_precision(network, "bfloat16")
    assert np.array_equal(field.gradient(points), gradient)
    assert precision_of(network) == "bfloat16"
    assert not np.array_equal(field(points), values)


class Ball(torch.nn.Module):
    """The signed distance to a sphere of radius 2 about (1, −3, 5), in physical units."""

    def __init__(self, affine):
        super().__init__()
        self.linear = torch.from_numpy(affine[:, :3]).float()
        self.offset = torch.from_numpy(affine[:, 3] - [1.0, -3.0, 5.0]).float()

    def forward(self, coordinates):
        return (coordinates @ self.linear.T + self.offset).norm(dim=-1, keepdim=True) - 2.0


def test_normals_of_a_signed_distance_point_outwards():
    affine = np.array([[4.0, 0.0, 0.0, 1.0], [0.0, 0.0, 8.0, -3.0], [0.0, 2.0, 0.0, 5.0]])  # two axes change places
    field = field_of(Ball(affine), 1, affine=affine)
    directions = np.random.default_rng(0).normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = field.normals(directions * 2 + [1.0, -3.0, 5.0], physical=True)
    np.testing.assert_allclose(found, directions, atol=1e-5)
    inside = (np.linalg.inv(affine[:, :3]) @ (directions * 2).T).T
    np.testing.assert_allclose(field.normals(inside), directions, atol=1e-5)


def test_normals_of_any_size_of_gradient_have_length_one_and_of_none_are_zero():
    for scale in (1e-30, 1.0, 1e30):
        layer = torch.nn.Linear(3, 1)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[3.0, 0.0, -4.0]]) * scale)
        found = field_of(layer, 1, affine=np.eye(3, 4)).normals(np.zeros(3))
        np.testing.assert_allclose(found, [0.6, 0.0, -0.8], atol=1e-6)
    with torch.no_grad():
        layer.weight.zero_()
    assert np.array_equal(field_of(layer, 1, affine=np.eye(3, 4)).normals(np.zeros((2, 3))), np.zeros((2, 3)))


def test_normals_of_several_channels_are_refused():
    with pytest.raises(ConfigError, match="has 3 channels; use gradient"):
        Waves(3).field.normals(np.zeros((1, 2)))


def test_coordinates_that_fit_no_field_are_refused_by_derivatives_too():
    field = Waves().field
    with pytest.raises(DataError, match=r"expected \(…, 2\)"):
        field.gradient(np.zeros((4, 3)))
    with pytest.raises(DataError, match="expected real numbers"):
        field.gradient([["a", "b"]])
    field.affine = np.zeros((2, 3))
    with pytest.raises(DataError, match="no inverse"):
        field.gradient(np.zeros((4, 2)))
