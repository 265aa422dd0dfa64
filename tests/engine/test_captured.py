"""Recorded steps, replayed here by calling what was recorded: a CPU records nothing."""

import contextlib
import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inrkit import OPTIMIZERS, SELECTORS, ConfigError, CoordinateDataset, fit
from inrkit.config import resolve
from inrkit.networks.siren import Siren
from inrkit.runs.build import as_signal, build
from inrkit.training.backends import captured
from inrkit.training.backends.captured import Captured, CapturedTiles, CudaGraphs
from inrkit.training.backends.single import Single
from inrkit.training.backends.tiled import Tiled
from inrkit.training.loop import Trainer


class Recorder:
    """Counts what is recorded; to replay is to call it again."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, function, rehearsal):
        self.recorded += 1
        rehearsal()

        def replay():
            self.replayed += 1
            function()

        return replay


class Log(TorchDispatchMode):
    """Notes all operations with their arguments and results."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, results))
        return results


class Tape(Recorder):
    """Replays as a CUDA graph does: the same operations on the same memory, and no Python in between.

    What is recorded runs once, at the first replay, and its operations are noted. Afterwards they are called again, and
    their results put where the first ones were.
    """

    def __call__(self, function, rehearsal):
        self.recorded += 1
        rehearsal()
        log = Log()

        def replay():
            self.replayed += 1
            if not log.operations:
                with log:
                    function()
                return
            with torch.no_grad():
                for operation, args, kwargs, results in log.operations:
                    again = operation(*args, **kwargs)
                    given = {each.untyped_storage().data_ptr() for each in tensors_in((args, kwargs))}
                    for kept, new in zip(tensors_in(results), tensors_in(again), strict=True):
                        if kept.untyped_storage().data_ptr() not in given:  # neither a view nor changed in place
                            kept.copy_(new)

        return replay


def tensors_in(things):
    return [leaf for leaf in tree_leaves(things) if isinstance(leaf, torch.Tensor)]


def picture(weighted=False, known=False):
    y, x = np.mgrid[0:20, 0:16]
    values = np.stack([x * 16, y * 12, (x * y) % 256], axis=-1).astype(np.uint8)
    weights = 1.0 + y / 20 if weighted else None
    return CoordinateDataset(values, weights=weights, known=(x + y) % 7 > 0 if known else None)


def points():
    places = np.random.default_rng(0).uniform(-1, 1, (400, 3)).astype(np.float32)
    return CoordinateDataset(np.linalg.norm(places, axis=1, keepdims=True), points=places)


def member_of(dataset=None, steps=30, weighted=False, **layer):
    dataset = picture(weighted) if dataset is None else dataset
    layer = {
        "modality": "image" if dataset.grid_shape is not None else "shape",
        "data": {"path": "none"},
        "network": {"name": "siren", "hidden_features": 12, "hidden_layers": 1},
        "selector": {"name": "evos", "interval_start": 8, "interval": "fixed"},
        "objective": "mse",
        "optimizer": "adam",
        "schedule": "cosine",
        "train": {"steps": steps, "chunk": 100},
        "log": {"every": 10},
        **layer,
    }
    config = resolve([layer])
    if hasattr(config.selector.options, "least"):
        config.selector.options.least = 1
    return build(config, as_signal(config, dataset), torch.device("cpu"), "float32")


def outcome(backend, fused=False, native=False, **options):
    """Losses, errors and the network of a training."""
    member = member_of(**options)
    member.network.native = native  # machine code rounds differently
    if fused:
        for group in member.optimizer.param_groups:
            group["fused"] = True
    turns = [turn for (turn,) in Trainer([member], backend)]
    losses = torch.stack([turn.loss for turn in turns])
    errors = torch.cat([turn.errors.squared for turn in turns])
    return [losses, errors, *member.network.state_dict().values()]


CASES = {
    **{f"selector {name}": {"selector": name} for name in SELECTORS.names()},
    **{f"optimizer {name}": {"optimizer": name} for name in OPTIMIZERS.names() if name != "lbfgs"},
    "optimizer lbfgs": {"optimizer": "lbfgs", "selector": "full", "schedule": "constant", "steps": 6},
    "weights": {"weighted": True, "selector": {"name": "expansive", "expand": True}},
    "linking": {"objective": "cross-frequency"},
    "a ratio that rises": {"selector": {"name": "uniform", "ratio": 0.2, "ratio_schedule": "step"}, "steps": 50},
}


QUICK = ("selector evos", "optimizer soap", "linking")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_replayed_steps_equal_steps(case):
    recorder = Recorder()
    for ours, theirs in zip(outcome(Captured(recorder), **CASES[case]), outcome(Single(), **CASES[case]), strict=True):
        assert torch.equal(ours, theirs)
    if case == "selector soft-mining":
        assert recorder.replayed == 0
    else:
        assert recorder.replayed > 0
        assert recorder.recorded < recorder.replayed


TILED = [name for name in SELECTORS.names() if SELECTORS.get(name).of_tiles is not None]


@pytest.mark.slow
@pytest.mark.parametrize("selector", TILED)
@pytest.mark.parametrize("dataset", [picture(), picture(weighted=True, known=True), points()])
@pytest.mark.parametrize("optimizer", [{"name": "adam"}, {"name": "adamw", "weight_decay": 0.1}])
def test_replayed_steps_of_tiles_equal_steps(selector, dataset, optimizer):
    recorder = Recorder()
    options = {
        "dataset": dataset,
        "steps": 50,
        "selector": {"name": selector, **({} if selector == "full" else {"ratio": 0.5})},
        "optimizer": optimizer,
        "network": {"name": "tiles", "parameters": 8000, "points": 16, "between": 0.4},
    }
    ours, theirs = outcome(CapturedTiles(recorder), **options), outcome(Tiled(), **options)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert recorder.recorded <= 8
    assert recorder.replayed > 15


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_machine_code_is_replayed_too(decay):
    recorder = Recorder()
    options = {
        "native": True,
        "selector": {"name": "evos", "ratio": 0.5},
        "optimizer": {"name": "adamw", "weight_decay": decay},
        "network": {"name": "tiles", "parameters": 8000, "points": 16},
    }
    ours, theirs = outcome(CapturedTiles(recorder), **options), outcome(Tiled(), **options)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert recorder.replayed > 5


def test_tiles_step_as_they_are_with_other_optimizers():
    recorder = Recorder()
    options = {"network": {"name": "tiles", "parameters": 8000}, "optimizer": "soap", "steps": 8}
    ours, theirs = outcome(CapturedTiles(recorder), **options), outcome(Tiled(), **options)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert recorder.recorded == 0


REPLAYED = {
    "evos": {},
    "uniform": {"selector": {"name": "uniform", "ratio": 0.3}},
    "weights": {"weighted": True, "selector": {"name": "expansive", "expand": True}},
    "adamw": {"optimizer": {"name": "adamw", "weight_decay": 0.1}},
    "tiles": {"network": {"name": "tiles", "parameters": 8000, "points": 16, "between": 0.4}},
    "tiles of points": {"dataset": points(), "network": {"name": "tiles", "parameters": 8000}},
}


@pytest.mark.parametrize("case", REPLAYED)
def test_operations_alone_replay_a_step(case):
    tape, options = Tape(), REPLAYED[case]
    tiled = "network" in options
    backends = (CapturedTiles(tape), Tiled()) if tiled else (Captured(tape), Single())
    ours, theirs = (outcome(backend, fused=not tiled, **options) for backend in backends)
    assert tape.replayed > 3 * tape.recorded > 0
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_a_kernel_that_trains_tiles_is_recorded_too():
    options = {"network": {"name": "tiles", "parameters": 8000}, "selector": "full", "steps": 6, "native": True}
    recorder = Recorder()
    for ours, theirs in zip(outcome(CapturedTiles(recorder), **options), outcome(Tiled(), **options), strict=True):
        assert torch.equal(ours, theirs)
    assert recorder.replayed > 0


def test_points_that_are_drawn_anew_end_recordings(monkeypatch):
    monkeypatch.setattr(captured, "_MOST_KINDS", 1)

    def drawn(number):
        places = np.random.default_rng(number).uniform(-1, 1, (50, 3)).astype(np.float32)
        return places, np.linalg.norm(places, axis=1, keepdims=True)

    def dataset():
        places, values = drawn(0)
        return CoordinateDataset(values, points=places, resample=drawn, resample_every=4)

    recorder = Recorder()
    ours, theirs = (
        outcome(backend, dataset=dataset(), operator="none", selector="full", steps=16)
        for backend in (Captured(recorder), Single())
    )
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert (recorder.recorded, recorder.replayed) == (4, 8)  # of four steps of each draw two are taken as they are


class NoGpu(SimpleNamespace):
    """torch.cuda, as far as graphs need it. A recording that fails leaves its stream as the current one, as torch's
    does."""

    class CUDAGraph:
        def pool(self):
            return id(self)

        def replay(self):
            pass

    def __init__(self):
        super().__init__(current="main", pools=[])

    def current_stream(self, device=None):
        return SimpleNamespace(name=self.current, wait_stream=lambda other: None)

    def Stream(self):
        return SimpleNamespace(name="aside", wait_stream=lambda other: None)

    def device(self, device):
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream.name
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        self.pools.append(pool)
        before, self.current = self.current, stream.name
        yield
        self.current = before


def test_graphs_share_the_memory_of_those_that_are_left(monkeypatch):
    gpu = NoGpu()
    monkeypatch.setattr(torch, "cuda", gpu)
    graphs = CudaGraphs(torch.device("cuda", 0))
    first = graphs(lambda: None, lambda: None)
    second = graphs(lambda: None, lambda: None)
    assert gpu.pools == [None, id(first.__self__)]
    del first, second
    graphs(lambda: None, lambda: None)
    assert gpu.pools[2] is None


def test_a_recording_that_fails_leaves_the_stream_as_it_was(monkeypatch):
    gpu = NoGpu()
    monkeypatch.setattr(torch, "cuda", gpu)

    def failing():
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        CudaGraphs(torch.device("cuda", 0))(failing, lambda: None)
    assert gpu.current == "main"


def test_every_kind_of_step_is_recorded_once():
    recorder = Recorder()
    outcome(Captured(recorder), steps=40)
    # Of 40 steps five are key steps; the first two of each kind are taken as they are.
    assert (recorder.recorded, recorder.replayed) == (2, 36)


def test_what_a_turn_tells_stays_when_the_next_step_is_replayed():
    member = member_of(selector="full")
    told = [
        (turn.errors.squared, turn.errors.squared.clone(), turn.loss, turn.loss.clone())
        for (turn,) in Trainer([member], Captured(Recorder()))
    ]
    for squared, then, loss, loss_then in told:
        assert torch.equal(squared, then)
        assert loss == loss_then


def test_recordings_end_when_a_state_is_loaded():
    recorder = Recorder()
    member, other = member_of(), member_of()
    trainer, plain = Trainer([member], Captured(recorder)), Trainer([other], Single())
    for _ in range(6):
        trainer.step([member])
        plain.step([other])
    for each in (member, other):
        each.load_state_dict(copy.deepcopy(each.state_dict()))
    before = recorder.recorded
    for _ in range(6):
        trainer.step([member])
        plain.step([other])
    assert recorder.recorded > before
    for ours, theirs in zip(member.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


class Dropping(Siren):
    def activation(self, argument):
        return torch.nn.functional.dropout(super().activation(argument), 0.1, self.training)


def test_steps_of_a_network_that_draws_are_not_recorded():
    recorder = Recorder()
    network = {"name": f"{__name__}:Dropping", "hidden_features": 12, "hidden_layers": 1}
    ours, theirs = outcome(Captured(recorder), network=network), outcome(Single(), network=network)
    assert recorder.recorded == 0
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_steps_run_as_they_are_where_they_cannot_be_recorded():
    def refused(function, rehearsal):
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.warns(UserWarning, match="could not be captured: operation not permitted"):
        ours = outcome(Captured(refused))
    assert all(torch.equal(one, other) for one, other in zip(ours, outcome(Single()), strict=True))


def test_to_capture_on_a_cpu_is_refused_and_auto_does_not(tmp_path):
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    with pytest.raises(ConfigError, match="'always', but there are no CUDA graphs on cpu; choose auto or never"):
        fit(picture, out=tmp_path / "a", base="image-single", device="cpu", train={"capture": "always", "steps": 1})
    assert not member_of(train={"capture": "auto", "steps": 1}).captured
