"""Products of hidden features in each precision, in all the ways in which networks are differentiated."""

import numpy as np
import pytest
import torch
from torch.func import functional_call, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from inrkit import NETWORKS, ConfigError, HiddenLinear, fit, load
from inrkit.device import choose_precision
from inrkit.networks import precision_of, set_precision
from inrkit.networks.products import PRECISIONS, float32_products
from inrkit.networks.siren import Siren, SirenOptions

TOLERANCE = {"float32": 0.0, "tf32": 0.0, "bfloat16": 1e-2, "float16": 2e-3}
reduced = pytest.mark.parametrize("precision", [name for name in TOLERANCE if name != "float32"])


def layer_of(precision, bias=True):
    torch.manual_seed(0)
    layer = HiddenLinear(24, 16, bias=bias)
    set_precision(layer, precision)
    return layer


def far(ours, theirs):
    """How far values are apart, as a share of the largest."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@reduced
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e6])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_of_any_size_are_those_of_float32_but_for_rounding(precision, scale, bias):
    inputs = torch.rand(5, 40, 24, generator=torch.Generator().manual_seed(1)) - 0.5
    given = torch.rand(5, 40, 16, generator=torch.Generator().manual_seed(2)) - 0.5
    found = []
    for name in (precision, "float32"):
        layer, points = layer_of(name, bias), inputs.clone().requires_grad_()
        values = layer(points)
        assert values.dtype == torch.float32
        (values * given * scale).sum().backward()
        found.append([values.detach(), points.grad, layer.weight.grad])
    for ours, theirs in zip(*found, strict=True):
        assert torch.isfinite(ours).all()
        assert far(ours, theirs) <= TOLERANCE[precision] + 1e-6


def test_float16_sums_over_very_many_coordinates_do_not_overflow():
    layer = layer_of("float16")
    layer(torch.ones(1 << 17, 24)).sum().backward()
    assert torch.equal(layer.weight.grad, torch.full((16, 24), float(1 << 17)))


@reduced
def test_a_gradient_of_zeros_and_one_that_is_not_finite_stay_so(precision):
    layer = layer_of(precision)
    inputs = torch.rand(8, 24)
    (layer(inputs) * 0).sum().backward()
    assert not layer.weight.grad.any()
    (layer(inputs) * torch.inf).sum().backward()
    assert not torch.isfinite(layer.weight.grad).any()


@reduced
@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"
)  # torch's first such derivative
def test_networks_are_stacked_and_differentiated_along_directions(precision):
    torch.manual_seed(0)
    network = Siren(SirenOptions(hidden_features=16, hidden_layers=2, hidden_omega=3.0), 2, 3)
    parameters = {name: value.detach() for name, value in network.named_parameters()}
    direction = {name: torch.randn_like(value) for name, value in parameters.items()}
    stack = {name: torch.stack([value, value + 0.01 * direction[name]]) for name, value in parameters.items()}
    points = torch.rand(2, 30, 2)
    found = []
    for name in (precision, "float32"):
        set_precision(network, name)
        alone = [
            functional_call(network, {key: value[row] for key, value in stack.items()}, (points[row],))
            for row in range(2)
        ]
        leaves = {key: value.clone().requires_grad_() for key, value in stack.items()}
        together = vmap(lambda own, at: functional_call(network, own, (at,)))(leaves, points)
        torch.testing.assert_close(together, torch.stack(alone), atol=2e-2 if precision != "tf32" else 1e-5, rtol=0)
        gradients = torch.autograd.grad(together.square().mean(), list(leaves.values()))
        along = jvp(lambda own: functional_call(network, own, (points[0],)), (parameters,), (direction,))[1]
        found.append([*gradients, along])
    for ours, theirs in zip(*found, strict=True):
        assert far(ours, theirs) < (0.1 if precision == "bfloat16" else 0.02)


class Settings(TorchDispatchMode):
    """Notes how float32 matrices are multiplied at each product."""

    def __init__(self):
        super().__init__()
        self.noted = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            self.noted.append(torch.get_float32_matmul_precision())
        return function(*args, **(kwargs or {}))


def test_only_hidden_products_are_in_tf32_in_both_passes(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    network = Siren(SirenOptions(hidden_features=8, hidden_layers=1), 2, 3)
    set_precision(network, "tf32")
    with Settings() as settings:
        network(torch.rand(10, 2)).sum().backward()
    # Forward: first, hidden, last. Backward: two of the last layer, two of the hidden one, one of the first.
    assert settings.noted == ["highest", "high", "highest", "highest", "highest", "high", "high", "highest"]
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_setting_of_float32_products_comes_back_after_an_error():
    with pytest.raises(ZeroDivisionError), float32_products("high"):
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == "highest"


def test_tf32_is_refused_where_there_is_none():
    with pytest.raises(ConfigError, match="'tf32', which cpu does not multiply in; choose auto or float32"):
        choose_precision("tf32", torch.device("cpu"))


@pytest.mark.parametrize(
    ("bfloat16", "capability", "expected"),
    [(True, (8, 0), "bfloat16"), (False, (7, 5), "float16"), (False, (6, 1), "float32")],
)
def test_a_gpu_multiplies_in_what_it_has(monkeypatch, bfloat16, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", torch.device("cuda")) == expected


@pytest.mark.parametrize("name", [name for name in NETWORKS.names() if not NETWORKS.get(name).tiled])
def test_features_that_stay_bfloat16_end_in_float32_values_near_those_of_bfloat16_products(name):
    plugin = NETWORKS.get(name)
    torch.manual_seed(0)
    network = plugin(plugin.Options(), 2, 3)
    inputs, seen = torch.rand(20, 2), []
    for module in network.modules():
        if isinstance(module, HiddenLinear):
            module.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    set_precision(network, "bfloat16")
    expected = network(inputs).detach()
    assert set(seen) <= {torch.float32}
    seen.clear()
    set_precision(network, "bfloat16-features")
    values = network(inputs)
    values.sum().backward()
    assert values.dtype == torch.float32
    assert set(seen) <= {torch.bfloat16}
    torch.testing.assert_close(values, expected, atol=0.25 * float(expected.abs().max()), rtol=0)


class Wrong(Siren):
    def forward(self, coordinates):
        return self.last(self.hidden[0](self.first(coordinates)))


def test_a_network_that_mixes_dtypes_is_refused(tmp_path):
    network = {"name": f"{__name__}:Wrong", "hidden_features": 8, "hidden_layers": 1}
    options = {"base": "image-single", "network": network, "train": {"steps": 1, "precision": "bfloat16-features"}}
    with pytest.raises(ConfigError, match="a layer takes float32 features alone; choose bfloat16"):
        fit(np.zeros((8, 8, 3), dtype=np.uint8), out=tmp_path / "a", device="cpu", **options)


@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "tf32"])
def test_a_fit_in_every_precision_is_read_back_in_it(tmp_path, precision):
    values = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    network = {"name": "siren", "hidden_features": 8, "hidden_layers": 1}
    options = {"base": "image-single", "network": network, "train": {"steps": 2, "precision": precision}}
    run = fit(values, out=tmp_path / "a", device="cpu", **options)
    assert run.result["precision"] == precision
    assert precision_of(load(tmp_path / "a").network) == precision
