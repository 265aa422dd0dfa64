"""Fits that are asked to compute the same each time."""

import os

import numpy as np
import pytest
import torch

import inrkit
from inrkit.batch.identity import identity
from inrkit.config import resolve
from inrkit.device import reproducible

QUICK = {"network": {"name": "siren", "hidden_features": 8, "hidden_layers": 1}, "steps": 3, "compile": "never"}
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        os.environ.get(WORKSPACE),
    )


@pytest.fixture
def callers(monkeypatch):
    """Settings of a caller, unlike torch's own and unlike what a deterministic fit asks for."""
    monkeypatch.delenv(WORKSPACE, raising=False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = True
    yield settings()
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False


def test_settings_hold_during_a_fit_alone(callers):
    seen = []
    inrkit.fit(PIXELS, callbacks=[lambda member: seen.append(settings())], deterministic=True, **QUICK)
    assert set(seen) == {(True, False, False, True, ":4096:8")}
    assert settings() == callers


def test_settings_are_the_callers_where_it_is_not_asked_for(callers):
    seen = []
    inrkit.fit(PIXELS, callbacks=[lambda member: seen.append(settings())], **QUICK)
    assert set(seen) == {callers} and settings() == callers


def test_settings_are_restored_after_an_error(callers):
    def fail(member):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        inrkit.fit(PIXELS, callbacks=[fail], deterministic=True, **QUICK)
    assert settings() == callers


def test_a_workspace_that_the_caller_chose_stays(monkeypatch):
    monkeypatch.setenv(WORKSPACE, ":16:8")
    with reproducible(True):
        assert os.environ[WORKSPACE] == ":16:8"
    assert os.environ[WORKSPACE] == ":16:8"


def test_a_loop_of_the_users_own_runs_under_the_users_settings(callers):
    inside = []
    training = inrkit.trainer(
        PIXELS, deterministic=True, callbacks=[lambda member: inside.append(settings()[:2])], **QUICK
    )
    for _ in training:
        assert settings() == callers
    assert inside == [(True, False)] * 3


@pytest.mark.parametrize("selector", ["evos", "soft-mining"])
def test_deterministic_fits_agree_bit_for_bit(selector):
    one, other = (inrkit.fit(PIXELS, selector=selector, deterministic=True, **QUICK) for _ in range(2))
    for name, value in one.field.network.state_dict().items():
        assert torch.equal(value, other.field.network.state_dict()[name])


def test_jobs_of_earlier_studies_are_known_by_the_option_left_out():
    keys = resolve([{"modality": "image", "data": {"path": "a.png"}}]).to_dict()
    before = {**keys, "train": {name: value for name, value in keys["train"].items() if name != "deterministic"}}
    assert identity(keys, "content") == identity(before, "content")
    asked = {**keys, "train": {**keys["train"], "deterministic": True}}
    assert identity(asked, "content") != identity(keys, "content")
