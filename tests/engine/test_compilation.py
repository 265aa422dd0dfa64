import copy
import os
import shutil

import numpy as np
import pytest
import torch
from torch import nn

import inrkit
from inrkit.config import resolve
from inrkit.networks.siren import Siren, SirenOptions
from inrkit.runs.build import build, read_signal
from inrkit.training.backends.compiled import Compiled

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="takes a C++ compiler")


@pytest.fixture(autouse=True)
def kept_apart(tmp_path, monkeypatch):
    """torch tells what it keeps on disk apart by its computation, not by the instructions that this variable allows."""
    if "ATEN_CPU_CAPABILITY" in os.environ:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))


def siren() -> nn.Module:
    torch.manual_seed(0)
    return Siren(SirenOptions(hidden_features=32, hidden_layers=1), 2, 3)


@needs_compiler
@pytest.mark.slow
def test_a_compiled_network_equals_it_for_every_number_of_rows():
    network = siren()
    compiled = Compiled(copy.deepcopy(network))
    for rows in (1000, 77, 1, 4096):
        inputs = torch.rand(rows, 2)
        expected, found = network(inputs), compiled(inputs)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        expected.square().sum().backward()
        found.square().sum().backward()
    parameters = zip(network.parameters(), compiled._network.parameters(), strict=True)
    for one, other in parameters:
        torch.testing.assert_close(other.grad, one.grad, atol=1e-2, rtol=1e-3)


@needs_compiler
@pytest.mark.slow
def test_a_compiled_fit_ends_where_the_other_does_and_resumes_to_the_same_bits(tmp_path):
    class StopAt(inrkit.Listener):
        def on_step(self, member, selected):
            if member.step == 5:
                member.stop()

    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.integers(0, 256, (40, 50, 3), np.uint8))
    options = {"network": {"hidden_features": 32, "hidden_layers": 1}, "steps": 10, "device": "cpu", "chunk": 300}
    whole = inrkit.fit(tmp_path / "a.npy", out=tmp_path / "whole", compile="always", **options)
    plain = inrkit.fit(tmp_path / "a.npy", out=tmp_path / "plain", compile="never", **options)
    inrkit.fit(tmp_path / "a.npy", out=tmp_path / "cut", compile="always", callbacks=[StopAt()], **options)
    cut = inrkit.fit(tmp_path / "cut", resume=True)
    assert whole.metrics["psnr"] == pytest.approx(plain.metrics["psnr"], abs=0.01)
    assert cut.metrics == whole.metrics
    assert (tmp_path / "cut/field.safetensors").read_bytes() == (tmp_path / "whole/field.safetensors").read_bytes()


class Uncompilable(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 1)

    def forward(self, inputs):
        if torch.compiler.is_compiling():
            raise NotImplementedError("this network does not compile")
        return self.last(inputs)


def test_a_network_that_does_not_compile_runs_as_it_is_and_says_so():
    network = Uncompilable()
    compiled, inputs = Compiled(network), torch.rand(100, 2)
    with pytest.warns(UserWarning, match="runs uncompiled"):
        found = compiled(inputs)
    assert torch.equal(found, network(inputs))
    assert torch.equal(compiled(inputs[:50]), network(inputs[:50]))


@pytest.mark.parametrize("gradients", [True, False])
def test_finding_out_draws_nothing_and_counts_nothing(gradients):
    class Noisy(Uncompilable):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, inputs):
            return super().forward(nn.functional.dropout(self.norm(inputs)))

    torch.manual_seed(0)
    network = Noisy()
    same, inputs = copy.deepcopy(network), torch.rand(100, 2)
    with torch.set_grad_enabled(gradients):
        torch.manual_seed(1)
        expected = same(inputs)
        torch.manual_seed(1)
        with pytest.warns(UserWarning, match="runs uncompiled"):
            found = Compiled(network)(inputs)
    assert torch.equal(found, expected)
    assert torch.equal(network.norm.running_mean, same.norm.running_mean)


@needs_compiler
@pytest.mark.parametrize(("steps", "compiled"), [(100, False), (100_000, True)])
def test_long_trainings_compile_and_short_ones_do_not(tmp_path, steps, compiled):
    np.save(tmp_path / "a.npy", np.zeros((64, 64, 3), np.uint8))
    config = resolve([{"base": "volume-single", "data": {"path": str(tmp_path / "a.npy")}, "train": {"steps": steps}}])
    member = build(config, read_signal(config), torch.device("cpu"), "float32")
    assert isinstance(member.forward, Compiled) == compiled


@pytest.mark.parametrize("given", [None, False])
def test_vector_instructions_are_trusted_unless_someone_decided(monkeypatch, given):
    from torch._inductor import config

    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with config.patch({"cpp.vec_isa_ok": given}):
        with Compiled(siren()).settings():
            assert config.cpp.vec_isa_ok is (True if given is None else given)
        assert config.cpp.vec_isa_ok is given
