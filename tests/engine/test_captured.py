"""Recorded steps, replayed here by calling what was recorded: a CPU records nothing."""

import copy

import numpy as np
import pytest
import torch

from inrkit import OPTIMIZERS, SELECTORS, ConfigError, CoordinateDataset, fit
from inrkit.config import resolve
from inrkit.networks.siren import Siren
from inrkit.runs.build import as_signal, build
from inrkit.training.backends.captured import Captured
from inrkit.training.backends.single import Single
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


def member_of(steps=30, weighted=False, **layer):
    y, x = np.mgrid[0:20, 0:16]
    values = np.stack([x * 16, y * 12, (x * y) % 256], axis=-1).astype(np.uint8)
    dataset = CoordinateDataset(values, weights=1.0 + y / 20 if weighted else None)
    layer = {
        "modality": "image",
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


def outcome(backend, **options):
    """Losses, errors and the network of a training."""
    member = member_of(**options)
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


@pytest.mark.parametrize("case", CASES)
def test_replayed_steps_equal_steps(case):
    recorder = Recorder()
    for ours, theirs in zip(outcome(Captured(recorder), **CASES[case]), outcome(Single(), **CASES[case]), strict=True):
        assert torch.equal(ours, theirs)
    if case == "selector soft-mining":
        assert recorder.replayed == 0
    else:
        assert recorder.replayed > 0
        assert recorder.recorded < recorder.replayed


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
