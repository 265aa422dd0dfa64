"""What every selector promises, at any size, ratio and error, and over a checkpoint."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from inrkit import OPERATORS, SELECTORS, CoordinateDataset, Listener, Progress, Residuals, fit
from inrkit.plugins.options import field_names
from inrkit.selectors.schedules import RATIO_SCHEDULES
from inrkit.signals.signal import Signal

ERRORS = {
    "zero": lambda random: torch.zeros_like(random),
    "equal": lambda random: torch.ones_like(random),
    "uniform": lambda random: random,
    "spread over many orders": lambda random: 10 ** (60 * random - 30),
    "infinite": lambda random: torch.full_like(random, math.inf),
    "not a number": lambda random: torch.full_like(random, math.nan),
    "partly infinite": lambda random: torch.where(random < 0.3, math.inf, random),
    "partly not a number": lambda random: torch.where(random < 0.3, math.nan, random),
}
"""Residuals made of numbers uniform in [0, 1)."""


def signal(kind, count, constant):
    """N values on a line, or at points in the plane of which some coincide."""
    random = np.random.default_rng(count)
    values = np.ones((count, 1)) if constant else random.normal(size=(count, 1))
    if kind == "laplacian":
        return CoordinateDataset(values.astype(np.float32))
    return CoordinateDataset(values.astype(np.float32), points=random.integers(-4, 5, (count, 2)) / 5)


def make(name, dataset, operator, wanted):
    plugin, kind = SELECTORS.get(name), OPERATORS.get(operator)
    options = plugin.Options(**{key: value for key, value in wanted.items() if key in field_names(plugin.Options)})
    return plugin(options, len(dataset), kind(kind.Options(), Signal(dataset)), 0, torch.device("cpu"))


@pytest.mark.parametrize("name", SELECTORS.names())
@settings(max_examples=60, deadline=None)
@given(
    count=st.one_of(st.integers(1, 12), st.integers(1, 400)),
    ratio=st.one_of(st.just(1.0), st.floats(0, 1, exclude_min=True)),
    schedule=st.sampled_from(RATIO_SCHEDULES),
    steps=st.integers(1, 25),
    operator=st.sampled_from(["laplacian", "graph-laplacian", "none"]),
    constant=st.booleans(),
    kind=st.sampled_from(sorted(ERRORS)),
    drawn_anew=st.integers(1, 25),
)
def test_exactly_as_many_distinct_coordinates_as_promised(
    name, count, ratio, schedule, steps, operator, constant, kind, drawn_anew
):
    dataset = signal(operator, count, constant)
    selector = make(name, dataset, operator, {"ratio": ratio, "ratio_schedule": schedule})
    generator = torch.Generator().manual_seed(count)

    def errors(indices, slope=False, influence=False):
        size = len(indices)
        squared = ERRORS[kind](torch.rand(size, generator=generator))
        inclined = torch.randn(size, dataset.dimensions, generator=generator) * squared[:, None]
        return Residuals(squared, squared.sqrt(), inclined if slope else None, squared if influence else None)

    allowed = {count} if selector.visits_all else set()
    for step in range(1, steps + 1):
        progress = Progress(step, steps)
        if step == drawn_anew:
            selector.restart()
        promised = selector.size(progress)
        survey = selector.survey(progress)
        if survey is not None:
            selector.learn(progress, survey, errors(survey.indices, influence=survey.influence))
        selection = selector.select(progress)
        indices = selection.indices
        assert indices.dtype == torch.int64
        assert len(indices) == promised
        assert len(indices.unique()) == len(indices)
        assert indices.min() >= 0
        assert indices.max() < count
        if "ratio" in field_names(selector.Options):
            allowed.add(selector.options.scheduled_size(count, progress.before))
        assert promised in allowed
        if ratio == 1 and schedule != "reverse-cosine":
            assert promised == count  # none is lost
        if selection.weights is not None:
            assert selection.weights.shape == indices.shape
            assert torch.isfinite(selection.weights).all()
            assert (selection.weights > 0).all()
        selector.observe(progress, selection, errors(indices, slope=selector.needs_slope))


@pytest.mark.parametrize("name", SELECTORS.names())
def test_every_coordinate_that_can_matter_is_reached(name):
    dataset = signal("laplacian", 50, False)
    selector = make(name, dataset, "laplacian", {"ratio": 0.2, "ratio_schedule": "constant", "least": 1})
    random = torch.Generator().manual_seed(0)
    seen = torch.zeros(50, dtype=torch.bool)
    for step in range(1, 301):
        progress = Progress(step, 300)
        survey = selector.survey(progress)
        if survey is not None:
            size = len(survey.indices)
            squared = torch.rand(size, generator=random)
            selector.learn(progress, survey, Residuals(squared, squared.sqrt(), influence=squared))
        selection = selector.select(progress)
        seen[selection.indices] = True
        squared = torch.rand(len(selection.indices), generator=random)
        slope = squared[:, None] - 0.5 if selector.needs_slope else None
        selector.observe(progress, selection, Residuals(squared, squared.sqrt(), slope))
    assert seen.all()


@pytest.mark.parametrize("name", [name for name in SELECTORS.names() if SELECTORS.get(name).foresees])
@pytest.mark.parametrize("draw", ["random", "quasi-random"])
def test_what_a_selector_foresees_depends_on_no_errors(name, draw):
    dataset = signal("laplacian", 50, False)
    told, untold = (make(name, dataset, "laplacian", {"ratio": 0.2, "draw": draw}) for _ in range(2))
    for step in range(1, 20):
        progress = Progress(step, 20)
        selection = told.select(progress)
        squared = torch.rand(len(selection.indices), generator=torch.Generator().manual_seed(step))
        told.observe(progress, selection, Residuals(squared, squared.sqrt()))
        assert torch.equal(untold.select(progress).indices, selection.indices)


class StopAt(Listener):
    def __init__(self, step):
        self.step = step

    def on_step(self, member, selected):
        if member.step == self.step:
            member.stop()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in SELECTORS.names()),
        ("int", {"mining": "reverse-incremental"}),
        ("nint", {"decay": 0.0}),
        ("evos", {"interval_start": 20}),
    ],
)
@pytest.mark.parametrize("stop", [1, 17])
def test_interrupted_and_resumed_fit_equals_an_uninterrupted_one(name, options, stop, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "noise.png")
    small = {"ratio": 0.3, "least": 1}
    plugin = SELECTORS.get(name)
    selector = {"name": name, **{key: value for key, value in small.items() if key in field_names(plugin.Options)}}
    request = {
        "selector": selector | options,
        "network": {"name": "siren", "hidden_features": 8, "hidden_layers": 1},
        "steps": 30,
        "overrides": ["objective=mse", "optimizer=adam"],
    }
    whole = fit(tmp_path / "noise.png", out=tmp_path / "whole", **request)
    parted = fit(tmp_path / "noise.png", out=tmp_path / "parted", callbacks=[StopAt(stop)], **request)
    assert (parted.result["status"], parted.result["steps"]) == ("interrupted", stop)
    parted = fit(tmp_path / "parted", resume=True)
    assert (parted.result["status"], parted.result["steps"]) == ("done", 30)
    ours, theirs = load_file(parted.folder / "field.safetensors"), load_file(whole.folder / "field.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert parted.metrics == whole.metrics
