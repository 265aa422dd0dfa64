"""Every modality × network × selector works, with no exceptions: every pair of two of them in some combination."""

import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest
import torch

from inrkit import MODALITIES, NETWORKS, SELECTORS, Listener, Trainer, fit
from inrkit.config import resolve
from inrkit.plugins.options import field_names
from inrkit.runs.build import build, field_of, read_signal

POINTS = {"data": "points", "count": 300, "resample_every": 1}
"""Options of a shape by free points, other ones at every step."""

SMALL = {"hidden_features": 8, "hidden_layers": 1, "features": 4, "octaves": 3, "table_bits": 8, "levels": 3}
"""What makes a network small, where it has such options."""


def options_of(plugin, wanted):
    return {name: value for name, value in wanted.items() if name in field_names(plugin.Options)}


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A file of some 250 values for every modality, thinned from its sample; and the sample of a shape, a mesh."""
    folder = tmp_path_factory.mktemp("samples")
    paths = {}
    for name in MODALITIES.names():
        plugin = MODALITIES.get(name)
        modality = plugin(plugin.Options(**options_of(plugin, {"resolution": 12})))
        sample = folder / f"{name}{plugin.sample_suffix}"
        modality.sample(sample)
        dataset = modality.read(sample)
        if dataset.grid_shape is None:  # its table, fewer rows
            paths[name] = folder / f"small-{name}.npz"
            np.savez(paths[name], points=dataset.points.numpy()[:250], values=dataset.values.numpy()[:250])
            continue
        longest = math.ceil(250 ** (1 / dataset.dimensions))
        every = tuple(slice(None, None, math.ceil(length / longest)) for length in dataset.grid_shape)
        values = dataset.values.numpy().reshape(*dataset.grid_shape, dataset.channels)[every]
        paths[name] = folder / f"small-{name}{'.npy' if name == 'shape' else plugin.sample_suffix}"
        modality.write(paths[name], values.copy(), dataset.metadata)
        if name == "shape":
            paths["points"] = sample
    return paths


@pytest.fixture(scope="session")
def resolved(files):
    """From a signal's name, a network and a selector to the config of a fit, and to its dataset."""

    @functools.cache
    def config(signal, network, selector):
        layer = {
            "modality": {"name": "shape", **POINTS} if signal == "points" else signal,
            "data": {"path": str(files[signal])},
            "network": {"name": network, **options_of(NETWORKS.get(network), SMALL)},
            "selector": {"name": selector, **options_of(SELECTORS.get(selector), {"least": 1})},
            "objective": "mse",
            "train": {"steps": 2},
        }
        return resolve([layer])

    @functools.cache
    def dataset(signal):
        return read_signal(config(signal, NETWORKS.names()[0], SELECTORS.names()[0]))

    def pair(signal, network, selector):
        # Slots are resolved one by one: that of a network is the same beside any selector.
        with_selector = config(signal, NETWORKS.names()[0], selector)
        with_network = config(signal, network, SELECTORS.names()[0])
        choices = {**with_selector.choices, "network": with_network.network}
        return dataclasses.replace(with_selector, choices=choices), dataset(signal)

    return pair


class Sizes(Listener):
    def __init__(self):
        self.sizes = []

    def on_step(self, member, selected):
        self.sizes.append(selected)


def pairs(row):
    """The pairs in a combination, each of two columns and what stands in them."""
    return set(itertools.combinations(enumerate(row), 2))


def covering(*columns):
    """Combinations of one entry of each column in which every pair of entries of two columns occurs.

    Of all combinations, the next is always the first of those with the most pairs that none has had yet.
    """
    candidates = {row: pairs(row) for row in itertools.product(*columns)}
    missing = set().union(*candidates.values())
    chosen = []
    while missing:
        row = max(candidates, key=lambda row: len(candidates[row] & missing))
        missing -= candidates[row]
        chosen.append(row)
    return chosen


SIGNALS = [*MODALITIES.names(), "points"]
COMBINATIONS = covering(SIGNALS, NETWORKS.names(), SELECTORS.names())


def test_the_combinations_hold_every_pair():
    signals, networks, selectors = (set(column) for column in zip(*COMBINATIONS, strict=True))
    assert signals == {*MODALITIES.names(), "points"}
    assert (networks, selectors) == (set(NETWORKS.names()), set(SELECTORS.names()))
    assert {row[:2] for row in COMBINATIONS} == set(itertools.product(signals, networks))
    assert {row[1:] for row in COMBINATIONS} == set(itertools.product(networks, selectors))
    assert {row[::2] for row in COMBINATIONS} == set(itertools.product(signals, selectors))
    # The two longest columns cannot be crossed in less, and hardly more will do.
    longest = sorted(map(len, (signals, networks, selectors)))[1:]
    assert len(COMBINATIONS) <= 1.25 * longest[0] * longest[1]


@pytest.mark.parametrize(("signal", "network", "selector"), COMBINATIONS)
def test_every_combination_trains_two_steps(signal, network, selector, resolved):
    config, read = resolved(signal, network, selector)
    member = build(config, read, torch.device("cpu"), "float32")
    module, dataset = member.network, read.dataset
    before = [parameter.detach().clone() for parameter in module.parameters()]
    watched = Sizes()
    member.listeners = [watched]
    Trainer([member]).run()
    assert len(watched.sizes) == 2
    # Tiles that are selected reach over their borders, so together they may take more points than there are.
    most = math.inf if member.view is not None else len(dataset)
    assert all(1 <= size <= most for size in watched.sizes)
    assert any(not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))
    values = field_of(config, module, member.signal)(torch.zeros(1, dataset.dimensions))
    assert values.shape == (1, dataset.channels)
    assert torch.isfinite(values).all()


def cover():
    """Every modality, network and selector at least once, in as few combinations as that takes."""
    count = max(len(MODALITIES.names()), len(NETWORKS.names()), len(SELECTORS.names()))
    columns = (itertools.cycle(registry.names()) for registry in (MODALITIES, NETWORKS, SELECTORS))
    return list(itertools.islice(zip(*columns, strict=False), count))


@pytest.mark.parametrize(("modality", "network", "selector"), cover())
def test_every_plugin_fits_from_file_to_file(modality, network, selector, files, tmp_path):
    run = fit(
        files[modality],
        out=tmp_path / "run",
        modality=modality,
        network={"name": network, **options_of(NETWORKS.get(network), SMALL)},
        selector={"name": selector, **options_of(SELECTORS.get(selector), {"least": 1})},
        steps=2,
        overrides=["objective=mse"],
    )
    assert run.result["status"] == "done"
    assert run.metrics[MODALITIES.get(modality).metrics[0]] is not None
    assert run.reconstruction is not None
    shape = run.field.grid_shape or (5,) * run.field.dimensions
    assert run.field.render(shape).shape[:-1] == shape
