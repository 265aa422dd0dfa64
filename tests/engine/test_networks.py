"""The networks' published initialisations, what each promises of its output, and what 0 takes from the signal."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, jvp, stack_module_state, vjp, vmap

from inrkit import NETWORKS, ConfigError, CoordinateDataset
from inrkit.networks import ComplexLinear, FirstLinear, HiddenLinear
from inrkit.networks.filters import Bacon, BaconOptions
from inrkit.networks.hash_grid import HashGrid, HashGridOptions, level_resolutions, multiplier
from inrkit.networks.wire import gabor
from inrkit.plugins.options import parse
from inrkit.signals.embeddings import Periodic, PeriodicOptions
from inrkit.signals.signal import Signal

# torch itself uses torch.jit where it loads what forward-mode differentiation needs.
forward_mode = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

EVERY = [name for name in NETWORKS.names() if not NETWORKS.get(name).tiled]
SPECTRAL = {
    "siren": "first_omega",
    "finer": "first_omega",
    "finer-wire": "first_omega",
    "fourier-features": "sigma",
    "mfn-fourier": "input_scale",
    "mfn-gabor": "input_scale",
}


def build(name, dimensions=2, channels=3, seed=0, **given):
    torch.manual_seed(seed)
    plugin = NETWORKS.get(name)
    return plugin(plugin.Options(**given), dimensions, channels)


def points(count, dimensions=2, seed=0):
    return torch.rand(count, dimensions, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def parameters_of(network):
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


def random_like(tensors, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}


def assert_uniform(values, bound):
    """Uniform in ±bound: nothing outside, and the first moments within five standard errors."""
    values = values.detach().flatten().double() / bound
    error = 5 / math.sqrt(len(values))
    assert values.abs().max() <= 1 + 1e-6
    assert abs(values.mean()) < error / math.sqrt(3)
    assert abs(values.square().mean() - 1 / 3) < error * math.sqrt(4 / 45)


# What every network promises


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("dimensions", "channels"), [(1, 2), (3, 1), (5, 3)])
def test_any_number_of_dimensions_and_channels(name, dimensions, channels):
    network = build(name, dimensions, channels, hidden_features=8)
    given = points(6, dimensions).view(2, 3, dimensions)
    found = network(given)
    assert found.shape == (2, 3, channels) and found.dtype == torch.float32
    assert network(given[:0]).shape == (0, 3, channels)
    assert network(given[0, 0]).shape == (channels,)


@pytest.mark.parametrize("name", EVERY)
def test_one_layer_is_enough(name):
    network = build(name, hidden_features=1, hidden_layers=0)
    assert torch.isfinite(network(points(5))).all()


@pytest.mark.parametrize("name", EVERY)
def test_stacked_networks_under_vmap_equal_each_network(name):
    networks = [build(name, seed=seed, hidden_features=12) for seed in range(3)]
    given = points(20)
    parameters, buffers = stack_module_state(networks)

    def call(own, fixed):
        return functional_call(networks[0], (own, fixed), (given,))

    expected = torch.stack([network(given) for network in networks])
    torch.testing.assert_close(vmap(call)(parameters, buffers), expected, rtol=1e-3, atol=1e-3)

    stacked = {name: parameter.detach() for name, parameter in parameters.items()}
    gradients = vmap(grad(lambda own, fixed: call(own, fixed).square().sum()))(stacked, buffers)
    networks[1](given).square().sum().backward()
    for key, parameter in networks[1].named_parameters():
        if parameter.grad is not None:
            scale = parameter.grad.abs().max().item() or 1.0
            torch.testing.assert_close(gradients[key][1] / scale, parameter.grad / scale, rtol=0, atol=1e-2)


@forward_mode
@pytest.mark.parametrize("name", EVERY)
def test_forward_and_reverse_mode_have_the_same_derivative(name):
    network = build(name, hidden_features=12)
    given, own = points(20), parameters_of(network)

    def call(parameters):
        return functional_call(network, parameters, (given,))

    tangent = random_like(own)
    values, forward = jvp(call, (own,), (tangent,))
    cotangent = torch.randn(values.shape, generator=torch.Generator().manual_seed(2))
    (reverse,) = vjp(call, own)[1](cotangent)
    products = torch.stack([(reverse[key] * tangent[key]).sum() for key in own])
    assert (cotangent * forward).sum().item() == pytest.approx(
        products.sum().item(), rel=1e-2, abs=1e-3 * products.abs().sum().item()
    )


@forward_mode
@pytest.mark.parametrize("name", EVERY)
def test_forward_mode_runs_under_vmap(name):
    network = build(name, hidden_features=12)
    given, own = points(20), parameters_of(network)
    tangents = [random_like(own, seed) for seed in range(2)]

    def along(tangent):
        return jvp(lambda parameters: functional_call(network, parameters, (given,)), (own,), (tangent,))[1]

    together = vmap(along)({key: torch.stack([tangent[key] for tangent in tangents]) for key in own})
    expected = torch.stack([along(tangent) for tangent in tangents])
    torch.testing.assert_close(together, expected, rtol=1e-2, atol=1e-2 * expected.abs().max().item())


@pytest.mark.parametrize("name", EVERY)
def test_the_derivative_by_the_coordinates_is_finite(name):
    network = build(name, hidden_features=12)
    given = torch.cat([points(20), torch.zeros(1, 2), torch.ones(1, 2), -torch.ones(1, 2)]).requires_grad_()
    (found,) = torch.autograd.grad(network(given).sum(), given)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", EVERY)
def test_hidden_products_take_bfloat16_and_first_and_last_ones_do_not(name):
    network = build(name, hidden_features=16)
    lower = {key for key, module in network.named_modules() if isinstance(module, HiddenLinear)}
    complex_ones = {key for key, module in network.named_modules() if isinstance(module, ComplexLinear)}
    hidden = {key for key, _ in network.named_modules() if key.startswith("hidden.")}
    assert lower | complex_ones == hidden and hidden
    assert not (lower and complex_ones)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("siren", 198_915),
        ("finer", 198_915),
        ("finer-gauss", 198_915),
        ("gauss", 198_915),
        # 181 complex features instead of 256; without the imaginary biases of the last layer, which have no effect
        ("wire", 2 * 181 + 181 + 3 * 2 * (181 * 181 + 181) + 3 * 2 * 181 + 3),
        ("finer-wire", 2 * 181 + 181 + 3 * 2 * (181 * 181 + 181) + 3 * 2 * 181 + 3),
        ("pe-mlp", 42 * 256 + 256 + 3 * (256 * 256 + 256) + 3 * 256 + 3),
        ("mfn-fourier", 4 * (2 * 256 + 256) + 3 * (256 * 256 + 256) + 3 * 256 + 3),
    ],
)
def test_parameters_for_a_picture_are_as_many_as_published(name, count):
    assert sum(parameter.numel() for parameter in build(name).parameters()) == count


# Initial distributions


@pytest.mark.parametrize("name", ["siren", "finer"])
def test_arguments_of_the_sines_have_unit_deviation(name):
    network = build(name, hidden_features=512, hidden_layers=3)
    arguments = []
    for layer in network.hidden:
        layer.register_forward_hook(
            lambda layer, _, found: arguments.append(network.options.hidden_omega * (found - layer.bias))
        )
    network(points(2000))
    # The promise is of ω·Wx; nn.Linear's biases, which the published codes keep, come on top.
    assert len(arguments) == 3
    for argument in arguments:
        assert argument.std().item() == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("name", ["siren", "finer"])
def test_weight_scale_multiplies_all_layers_but_the_last(name):
    plain, scaled = build(name), build(name, weight_scale=2.0)
    ratios = {key: dict(scaled.named_parameters())[key] / value for key, value in plain.named_parameters()}
    for key, ratio in ratios.items():
        expected = 2.0 if key.endswith("weight") and not key.startswith("last") else 1.0
        torch.testing.assert_close(ratio, torch.full_like(ratio, expected))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("name", "omega"), [("siren", 30), ("finer", 30), ("finer-gauss", 3), ("finer-wire", 4 * 5)])
def test_sine_networks_draw_sirens_weights(name, omega, dimensions):
    network = build(name, dimensions)
    width = network.first.out_features
    assert_uniform(network.first.weight, 1 / dimensions)
    bound = math.sqrt(6 / width) / omega
    for layer in network.hidden:
        weights = [layer.real, layer.imaginary] if isinstance(layer, ComplexLinear) else [layer.weight]
        for weight in weights:
            assert_uniform(weight, bound)
    assert_uniform(network.last.weight, bound)


def test_the_first_bias_of_finer_is_uniform_within_k():
    assert_uniform(build("finer", 3, hidden_features=4096, hidden_layers=0).first.bias, 1 / math.sqrt(3))
    assert_uniform(build("finer", 3, hidden_features=4096, hidden_layers=0, first_bias=5.0).first.bias, 5)


def test_wire_draws_both_parts_as_torch_draws_complex_layers():
    network = build("wire")
    bound = 1 / math.sqrt(181)
    for layer in network.hidden:
        for part in (layer.real, layer.imaginary, layer.bias):
            assert_uniform(part, bound)
    assert_uniform(network.last.weight, bound)
    torch.manual_seed(0)
    reference = torch.nn.Linear(181, 181, dtype=torch.complex64)
    for part in (reference.weight.real, reference.weight.imag):
        assert_uniform(part, bound)


def test_fourier_features_have_deviation_sigma_and_stay_as_they_are():
    network = build("fourier-features", sigma=7.0, features=5000, hidden_features=4)
    assert network.frequencies.std().item() == pytest.approx(7, rel=0.03)
    assert "frequencies" in network.state_dict()
    assert "frequencies" not in dict(network.named_parameters())


def test_gabor_filters_draw_sharpness_from_a_gamma_distribution():
    network = build("mfn-gabor", hidden_features=20000, hidden_layers=0)
    (found,) = network.filters
    assert found.sharpness.mean().item() == pytest.approx(6, rel=0.03)
    assert found.sharpness.var().item() == pytest.approx(6, rel=0.06)
    assert_uniform(found.centre, 1)
    assert_uniform(found.linear.bias, math.pi)
    frequencies = found.linear.weight / (256 * found.sharpness.sqrt()[:, None])
    assert_uniform(frequencies, 1 / math.sqrt(2))


# What each network computes


@pytest.mark.parametrize("inputs", [1, 3, 40])
def test_a_first_layer_is_a_linear_layer_in_both_passes(inputs):
    layer, coordinates = FirstLinear(inputs, 16), torch.rand(5, 30, inputs, requires_grad=True)
    found = layer(coordinates)
    expected = torch.nn.functional.linear(coordinates, layer.weight, layer.bias)
    torch.testing.assert_close(found, expected)
    leaves = [layer.weight, layer.bias, coordinates]
    of_found = torch.autograd.grad(found.square().sum(), leaves)
    torch.testing.assert_close(of_found, torch.autograd.grad(expected.square().sum(), leaves))


def test_wire_equals_complex_arithmetic():
    network = build("wire", hidden_features=24)
    given = points(50)
    features = network.first(given).to(torch.complex64)
    scale = network.options.scale
    features = torch.exp(20j * features - (scale * features).abs().square())
    for layer in network.hidden:
        weight, bias = torch.complex(layer.real, layer.imaginary), torch.complex(*layer.bias.chunk(2))
        features = features @ weight.T + bias
        features = torch.exp(20j * features - (scale * features).abs().square())
    real, imaginary = network.last.weight.chunk(2, dim=1)
    expected = (features @ torch.complex(real, -imaginary).T).real + network.last.bias
    torch.testing.assert_close(network(given), expected, rtol=1e-3, atol=1e-3)


def test_finer_wire_equals_complex_arithmetic():
    network = build("finer-wire", hidden_features=24)
    given = points(50)

    def activation(z):
        varied = torch.complex((z.real.abs() + 1) * z.real, (z.imag.abs() + 1) * z.imag)
        sine = torch.sin(5 * varied)
        return torch.exp(4j * sine - (2 * sine).abs().square())

    features = activation(network.first(given).to(torch.complex64))
    for layer in network.hidden:
        weight, bias = torch.complex(layer.real, layer.imaginary), torch.complex(*layer.bias.chunk(2))
        features = activation(features @ weight.T + bias)
    real, imaginary = network.last.weight.chunk(2, dim=1)
    expected = (features @ torch.complex(real, -imaginary).T).real + network.last.bias
    torch.testing.assert_close(network(given), expected, rtol=1e-3, atol=1e-3)


def test_the_gabor_wavelet_is_largest_at_its_centre():
    at = torch.linspace(-1, 1, 201)
    real, imaginary = gabor(at, torch.zeros_like(at), 20.0, 10.0).chunk(2)
    size = torch.hypot(real, imaginary)
    assert size.argmax() == 100 and size[100] == 1


def test_finers_sine_varies_its_period_and_its_derivative_takes_that_for_constant():
    network = build("finer", 1, 1, hidden_layers=0, hidden_features=1)
    with torch.no_grad():
        network.first.weight.fill_(1.0), network.first.bias.zero_()
        network.last.weight.fill_(1.0), network.last.bias.zero_()
    place = torch.tensor([[0.37]], requires_grad=True)
    value = network(place)
    assert value.item() == pytest.approx(math.sin(30 * 1.37 * 0.37), abs=1e-5)
    (slope,) = torch.autograd.grad(value, place)
    assert slope.item() == pytest.approx(30 * 1.37 * math.cos(30 * 1.37 * 0.37), rel=1e-4)


def test_the_positional_encoding_holds_every_octave():
    network = build("pe-mlp", 2, octaves=3)
    given = []
    network.first.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    network(torch.tensor([0.3, -0.8]))
    phases = [x * 2**k for x in (0.3, -0.8) for k in range(3)]
    expected = [0.3, -0.8, *map(math.sin, phases), *map(math.cos, phases)]
    torch.testing.assert_close(given[0], torch.tensor(expected))


@pytest.mark.parametrize("name", ["mfn-fourier", "mfn-gabor", "bacon"])
def test_the_filters_recursion_equals_its_unrolled_product(name):
    network = build(name, hidden_features=6, hidden_layers=2).double()
    given = points(10).double()
    filters = []
    for module in network.filters:
        if name == "bacon":
            filters.append(torch.sin(given @ module.frequencies + module.phase))
            continue
        filters.append(torch.sin(given @ module.linear.weight.T + module.linear.bias))
        if name == "mfn-gabor":
            distance = (given[:, None, :] - module.centre).square().sum(dim=-1)
            filters[-1] = filters[-1] * torch.exp(-module.sharpness / 2 * distance)
    first, second = network.hidden
    expected = filters[2] * ((filters[1] * (filters[0] @ first.weight.T + first.bias)) @ second.weight.T + second.bias)
    torch.testing.assert_close(network(given), expected @ network.last.weight.T + network.last.bias)


@pytest.mark.parametrize(("bandwidth", "layers"), [([5.0, 12.0], 4), ([9.0], 2), ([1.0], 3), ([7.5], 0)])
def test_bacon_has_no_frequency_above_its_bandwidth_trained_or_not(bandwidth, layers):
    network = build("bacon", 2, 1, hidden_features=32, hidden_layers=layers, bandwidth=bandwidth).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    size = 64
    axis = (2 * torch.arange(size, dtype=torch.float64) + 1 - size) / size
    values = network(torch.cartesian_prod(axis, axis)).detach().view(size, size)
    energy = torch.fft.fft2(values).abs().square()
    frequencies = (torch.fft.fftfreq(size) * size).abs()
    limits = bandwidth if len(bandwidth) == 2 else bandwidth * 2
    inside = (frequencies[:, None] <= limits[0]) & (frequencies[None, :] <= limits[1])
    assert energy[~inside].sum() <= 1e-11 * energy.sum()
    reached = (energy > 1e-11 * energy.sum()).nonzero()
    assert frequencies[reached].max(dim=0).values.tolist() == [math.floor(limit) for limit in limits]


def test_bacon_trains_phases_and_weights_but_not_frequencies():
    network = build("bacon")
    assert not any("frequencies" in key for key, _ in network.named_parameters())
    assert sum("frequencies" in key for key in network.state_dict()) == 5


def test_a_bandwidth_for_each_of_other_axes_is_refused():
    with pytest.raises(ConfigError, match=r"bandwidth has 3 numbers, and the network 2 inputs"):
        Bacon(BaconOptions(bandwidth=[1.0, 2.0, 3.0]), 2, 1)


def test_a_negative_bandwidth_is_refused():
    options, errors = parse(BaconOptions, {"bandwidth": [4.0, -1.0]}, "network")
    assert options is None
    assert errors == ["network: bandwidth has -1.0; it must hold finite numbers, 0 or more"]


# The hash grid


@pytest.mark.parametrize(("dimensions", "bits"), [(1, 2), (1, 20), (2, 4), (2, 20), (3, 5), (4, 6)])
def test_looking_features_up_equals_a_loop_over_the_corners(dimensions, bits):
    options = HashGridOptions(levels=3, table_bits=bits, base_resolution=2, finest_resolution=7)
    network = HashGrid(options, dimensions, 1)
    table = network.features.detach().double()
    given = torch.cat([points(12, dimensions), torch.ones(1, dimensions), -torch.ones(1, dimensions)])
    found = network.encoded(given)
    resolutions = level_resolutions(options)
    assert resolutions == [2, 3, 7]
    for point, features in zip(given.double(), found, strict=True):
        start = 0
        for level, resolution in enumerate(resolutions):
            vertices = (resolution + 1) ** dimensions
            entries = min(vertices, 2**bits)
            place = (point + 1) / 2 * resolution
            expected = torch.zeros(2, dtype=torch.float64)
            for corner in itertools.product((0, 1), repeat=dimensions):
                cell = [min(int(along), resolution - 1) for along in place]
                vertex = [int(base) + step for base, step in zip(cell, corner, strict=True)]
                if vertices <= 2**bits:
                    row = sum(index * (resolution + 1) ** axis for axis, index in enumerate(vertex))
                else:
                    row = 0
                    for axis, index in enumerate(vertex):
                        row ^= (index * multiplier(axis)) % 2**32
                    row %= 2**bits
                share = math.prod(1 - abs(float(along) - index) for along, index in zip(place, vertex, strict=True))
                expected += share * table[start + row]
            start += entries
            torch.testing.assert_close(features[level].double(), expected, rtol=1e-4, atol=1e-9)
    assert start == len(table)


def test_dense_levels_give_every_vertex_an_entry_of_its_own():
    network = HashGrid(HashGridOptions(levels=2, base_resolution=3, finest_resolution=6, table_bits=10), 2, 1)
    rows = []
    for level, resolution in enumerate([3, 6]):
        vertices = torch.cartesian_prod(*[torch.arange(resolution + 1)] * 2)
        rows += network.rows(vertices[:, None, None, :].expand(-1, 2, 1, -1))[:, level, 0].tolist()
    assert sorted(rows) == list(range(len(network.features)))


def test_a_place_outside_counts_as_the_nearest_inside():
    network = build("hash-grid")
    outside = torch.tensor([[1.5, 0.2], [-3.0, -9.0]])
    torch.testing.assert_close(network(outside), network(outside.clamp(-1, 1)))


# What 0 takes from the signal


def tone(cycles, count=4096):
    """A sine of so many cycles over the extent."""
    values = np.sin(2 * np.pi * cycles * np.arange(count) / count).astype(np.float32)
    return Signal(CoordinateDataset(values[:, None]))


@pytest.mark.parametrize(("name", "option"), SPECTRAL.items())
def test_zero_follows_the_signals_spectrum(name, option):
    plugin = NETWORKS.get(name)
    published = getattr(plugin.Options(), option)
    options = plugin.Options(**{option: 0})

    def found(cycles):
        return getattr(plugin.fitted(options, tone(cycles)), option)

    assert found(1) == published
    # π · cycles radians a unit of coordinate, and the square-root law
    assert found(200) == pytest.approx(published * 0.4 * math.sqrt(200 * math.pi), rel=0.02)
    assert found(800) == pytest.approx(2 * found(200), rel=0.02)


@pytest.mark.parametrize(("name", "option"), SPECTRAL.items())
def test_zero_follows_the_slopes_of_free_points(name, option):
    plugin = NETWORKS.get(name)
    options, published = plugin.Options(**{option: 0}), getattr(plugin.Options(), option)
    many = Signal(CoordinateDataset(np.zeros((2500, 1)), points=np.zeros((2500, 1))))
    assert getattr(plugin.fitted(options, many), option) == published
    places = np.random.default_rng(0).uniform(-1, 1, (2500, 2))
    wave = Signal(CoordinateDataset(np.sin(12 * places[:, :1]), points=places))
    assert getattr(plugin.fitted(options, wave), option) == pytest.approx(published * 0.8 * 2.5**0.1 * 12 / 30, rel=0.2)
    embedded = Signal(tone(800).dataset, embedding=Periodic(PeriodicOptions(axes=[0]), 1))
    assert getattr(plugin.fitted(options, embedded), option) == published


@pytest.mark.parametrize("name", ["siren", "finer"])
def test_the_spectrums_omega_counts_the_weight_scale(name):
    plugin = NETWORKS.get(name)
    plain, scaled = (
        plugin.fitted(plugin.Options(first_omega=0, weight_scale=scale), tone(200)).first_omega for scale in (1, 2)
    )
    assert scaled == pytest.approx(plain / 2)


@pytest.mark.parametrize("name", EVERY)
def test_a_given_number_is_kept(name):
    plugin = NETWORKS.get(name)
    given = {"bacon": {"bandwidth": [3.0]}, "pe-mlp": {"octaves": 3}, "hash-grid": {"finest_resolution": 5}}
    options = plugin.Options(**given.get(name, {}))
    assert dataclasses.asdict(plugin.fitted(options, tone(800))) == dataclasses.asdict(options)


@pytest.mark.parametrize(("length", "octaves"), [(1, 1), (2, 2), (128, 8), (512, 10), (4096, 13)])
def test_octaves_stop_below_what_the_lattice_can_show(length, octaves):
    plugin = NETWORKS.get("pe-mlp")
    signal = Signal(CoordinateDataset(np.zeros((1, length, 1), dtype=np.float32)))
    assert plugin.fitted(plugin.Options(octaves=0), signal).octaves == octaves
    assert 2 ** (octaves - 1) <= math.pi * length / 2 < 2**octaves


def test_the_lattice_gives_bacon_its_bandwidth_and_the_hash_grid_its_finest_level():
    signal = Signal(CoordinateDataset(np.zeros((40, 100, 1), dtype=np.float32)))
    assert Bacon.fitted(BaconOptions(), signal).bandwidth == [20, 50]
    assert HashGrid.fitted(HashGridOptions(), signal).finest_resolution == 100
    free = Signal(CoordinateDataset(np.zeros((5, 1)), points=np.zeros((5, 2))))
    assert Bacon.fitted(BaconOptions(), free).bandwidth == [64]
    assert HashGrid.fitted(HashGridOptions(), free).finest_resolution == 256


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 1), (1, 1, 7)])
@pytest.mark.parametrize("name", EVERY)
def test_the_smallest_lattices_make_a_network(name, shape):
    plugin = NETWORKS.get(name)
    zeros = {SPECTRAL[name]: 0} if name in SPECTRAL else {}
    signal = Signal(CoordinateDataset(np.zeros((*shape, 1))))
    options = plugin.fitted(plugin.Options(hidden_features=4, **zeros), signal)
    network = plugin(options, len(shape), 1)
    assert torch.isfinite(network(points(4, len(shape)))).all()
