import copy
import dataclasses
import io

import numpy as np
import pytest
import torch
from torch import nn

import inrkit
from inrkit import OPTIMIZERS, HiddenLinear
from inrkit.config import resolve
from inrkit.networks.siren import Siren, SirenOptions
from inrkit.training.optimizers.factories import Muon, MuonOptions, Soap, SoapOptions
from inrkit.training.optimizers.joined import Joined
from inrkit.training.optimizers.kernels import load

every = pytest.mark.parametrize("name", OPTIMIZERS.names())
one_evaluation = pytest.mark.parametrize(
    "name", [name for name in OPTIMIZERS.names() if not OPTIMIZERS.get(name).reevaluates]
)


class Mixed(nn.Module):
    """A table, a complex matrix, and real layers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 4)
        self.complex = nn.Parameter(torch.randn(4, 6, dtype=torch.complex64) / 4)
        self.hidden = HiddenLinear(6, 6)
        self.again = HiddenLinear(6, 6, bias=False)
        self.last = nn.Linear(6, 2)

    def forward(self, indices):
        features = (self.table(indices).to(torch.complex64) @ self.complex).abs()
        return self.last(torch.tanh(self.again(torch.tanh(self.hidden(features)))))


def siren():
    torch.manual_seed(0)
    return Siren(SirenOptions(hidden_features=16, hidden_layers=2), 2, 3)


def mixed():
    torch.manual_seed(0)
    return Mixed()


INPUTS = {siren: torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1, mixed: torch.arange(50)}
networks = pytest.mark.parametrize("make", [siren, mixed])


def started(name, make):
    network, plugin = make(), OPTIMIZERS.get(name)
    options = plugin.Options() if plugin.reevaluates else plugin.Options(lr=3e-3)
    return network, plugin.make(options, network)


def closure_of(network, zeroes, make):
    """What a trainer gives to `step`; `zeroes` is whose `zero_grad` it calls."""
    inputs = INPUTS[make]
    phases = inputs.reshape(len(inputs), -1).to(torch.float32).sum(dim=1, keepdim=True)
    targets = 0.5 * torch.sin(2 * phases).expand(len(inputs), network(inputs).shape[-1])

    def closure():
        zeroes.zero_grad()
        loss = (network(inputs) - targets).square().mean()
        loss.backward()
        return loss.detach()

    return closure


def train(network, optimizer, make, steps, first=0):
    """The losses; learning rates change from step to step as a schedule changes them."""
    closure = closure_of(network, optimizer, make)
    base = [group["lr"] for group in optimizer.param_groups] if not first else optimizer.base
    optimizer.base = base
    losses = []
    for step in range(first, first + steps):
        for group, rate in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = rate * (1 - step / 60)
        losses.append(float(optimizer.step(closure)))
    return losses


@every
@networks
def test_a_step_takes_a_closure_returns_its_loss_and_lowers_it(name, make):
    network, optimizer = started(name, make)
    before = closure_of(network, optimizer, make)()
    losses = train(network, optimizer, make, 30)
    assert losses[0] == pytest.approx(float(before))
    assert losses[-1] < 0.95 * losses[0]
    assert isinstance(optimizer, torch.optim.Optimizer)


@every
@networks
def test_every_parameter_is_trained_once(name, make):
    network, optimizer = started(name, make)
    trained = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(trained) == sorted(id(parameter) for parameter in network.parameters())
    before = copy.deepcopy(network)
    train(network, optimizer, make, 5)
    for old, new in zip(before.parameters(), network.parameters(), strict=True):
        assert not torch.equal(old, new)


@every
@networks
def test_training_resumed_from_a_checkpoint_is_bit_identical(name, make):
    whole, optimizer = started(name, make)
    train(whole, optimizer, make, 25)
    first, optimizer = started(name, make)
    train(first, optimizer, make, 13)
    saved = io.BytesIO()
    torch.save({"network": first.state_dict(), "optimizer": optimizer.state_dict()}, saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    second, resumed = started(name, make)
    resumed.base = [group["lr"] for group in resumed.param_groups]
    second.load_state_dict(state["network"])
    resumed.load_state_dict(state["optimizer"])
    train(second, resumed, make, 12, first=13)
    for ours, theirs in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@one_evaluation
@networks
def test_rounding_of_gradients_changes_next_to_nothing(name, make):
    (whole, optimizer), (rounded, other) = started(name, make), started(name, make)
    before = copy.deepcopy(whole)
    noise = torch.Generator().manual_seed(2)
    for parameter in rounded.parameters():
        parameter.register_hook(lambda gradient: gradient * (1 + 1e-7 * torch.randn(gradient.shape, generator=noise)))
    train(whole, optimizer, make, 12)
    train(rounded, other, make, 12)
    share = 2e-2 if name == "muon" else 1e-3  # torch's Muon orthogonalises in bfloat16
    for start, ours, theirs in zip(before.parameters(), rounded.parameters(), whole.parameters(), strict=True):
        assert (ours - theirs).norm() <= share * (theirs - start).norm()


@every
@networks
def test_training_is_deterministic_and_draws_from_no_global_generator(name, make):
    results = []
    for seed in (1, 2):
        network, optimizer = started(name, make)
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        train(network, optimizer, make, 12)
        assert torch.equal(torch.get_rng_state(), state)
        results.append(list(network.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@one_evaluation
def test_learning_rates_of_zero_leave_the_network_as_it_is(name):
    network, optimizer = started(name, siren)
    before = copy.deepcopy(network)
    closure = closure_of(network, optimizer, siren)
    for _ in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        optimizer.step(closure)
    for old, new in zip(before.parameters(), network.parameters(), strict=True):
        assert torch.equal(old, new)


def test_only_line_searches_reevaluate():
    assert {name for name in OPTIMIZERS.names() if OPTIMIZERS.get(name).reevaluates} == {"lbfgs"}
    for name in OPTIMIZERS.names():
        network, optimizer = started(name, siren)
        closure, calls = closure_of(network, optimizer, siren), []
        optimizer.step(lambda closure=closure, calls=calls: calls.append(1) or closure())
        assert (len(calls) > 1) == OPTIMIZERS.get(name).reevaluates


def test_a_preset_s_learning_rate_is_no_step_length_of_a_line_search():
    layer = {"data": {"path": "photo.png"}, "selector": "full", "objective": "mse"}
    layer["optimizer"] = {"name": "adam", "lr": 1e-4}
    assert resolve([layer, {"optimizer": "muon"}]).optimizer.options.lr == 1e-4
    assert resolve([layer, {"optimizer": "lbfgs"}]).optimizer.options.step_length == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"optimizer": "adam"}, "optimizer.lr"),
        ({"optimizer": "lbfgs", "selector": "full"}, "optimizer.step_length"),
        ({"optimizer": "muon"}, "optimizer.lr and optimizer.adam_lr"),
        ({"optimizer": torch.optim.SGD}, "the optimizer's learning rate"),
    ],
)
def test_a_training_that_diverges_names_the_keys_that_the_optimizer_has(words, told):
    network = {"name": "siren", "hidden_features": 8, "hidden_layers": 1}
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    members = []
    inrkit.fit(picture, network=network, objective="mse", steps=1, callbacks=[members.append], quiet=True, **words)
    assert members[0].rate_key == told


@every
def test_the_rates_of_an_optimizer_are_options_of_it(name):
    plugin = OPTIMIZERS.get(name)
    assert plugin.rates and set(plugin.rates) <= {field.name for field in dataclasses.fields(plugin.Options)}


def test_muon_trains_hidden_matrices_and_adam_the_rest():
    network = mixed()
    optimizer = Muon.make(MuonOptions(lr=0.5, adam_lr=0.25), network)
    assert isinstance(optimizer, Joined)
    hidden, rest = optimizer.param_groups
    assert [id(parameter) for parameter in hidden["params"]] == [id(network.hidden.weight), id(network.again.weight)]
    assert (hidden["lr"], rest["lr"]) == (0.5, 0.25)
    assert any(network.complex is parameter for parameter in rest["params"])


def test_a_muon_step_of_a_hidden_matrix_is_nearly_orthogonal():
    network = siren()
    optimizer = Muon.make(MuonOptions(lr=0.01), network)
    before = network.hidden[0].weight.detach().clone()
    optimizer.step(closure_of(network, optimizer, siren))
    step = network.hidden[0].weight.detach() - before
    singular = torch.linalg.svdvals(step) / (0.01 * 0.2 * 16**0.5)
    assert singular[0] < 1.3
    assert singular[len(singular) // 2] > 0.5


@pytest.mark.parametrize("plugin", [Muon, Soap])
def test_one_optimizer_is_used_as_it_is_where_it_is_all(plugin):
    network = nn.Linear(2, 3)
    optimizer = plugin.make(plugin.Options(), network)
    assert not isinstance(optimizer, Joined)
    assert len(optimizer.param_groups) == 1


def test_joined_optimizers_step_as_each_would():
    one, other = siren(), siren()
    layers = [list(one.first.parameters()), [*one.hidden.parameters(), *one.last.parameters()]]
    together = Joined([torch.optim.Adam(layers[0], lr=1e-3), torch.optim.SGD(layers[1], lr=1e-2)])
    layers = [list(other.first.parameters()), [*other.hidden.parameters(), *other.last.parameters()]]
    apart = [torch.optim.Adam(layers[0], lr=1e-3), torch.optim.SGD(layers[1], lr=1e-2)]
    closure, reference = closure_of(one, together, siren), closure_of(other, other, siren)
    for _ in range(5):
        together.step(closure)
        reference()
        for optimizer in apart:
            optimizer.step()
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_soap_preconditions_no_side_that_is_longer_than_it_should():
    network = mixed()
    optimizer = Soap.make(SoapOptions(precondition_up_to=10), network)
    optimizer.step(closure_of(network, optimizer, mixed))
    real = optimizer.parts[0]
    assert [side if side is None else len(side[0]) for side in real.state[network.table.weight]["bases"]] == [None, 4]


@pytest.mark.parametrize("parts", [1, 2])
def test_a_state_from_another_device_is_stepped_as_is_done_here(parts):
    def make(network, fused):
        layers = [list(network.first.parameters()), [*network.hidden.parameters(), *network.last.parameters()]]
        made = [torch.optim.Adam(layer, lr=1e-3, fused=fused) for layer in layers]
        return made[0] if parts == 1 else Joined(made)

    there, here = siren(), siren()
    fused, plain = make(there, True), make(here, None)
    for _ in range(2):
        fused.step(closure_of(there, there, siren))
        plain.step(closure_of(here, here, siren))
    here.load_state_dict(there.state_dict())
    load(plain, copy.deepcopy(fused.state_dict()))
    assert all(group["fused"] is None for group in plain.param_groups)
    fused.step(closure_of(there, there, siren))
    plain.step(closure_of(here, here, siren))
    for ours, theirs in zip(here.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert all(group["fused"] for group in fused.param_groups)
