"""Every modality × network × selector works, with no exceptions."""

import itertools

import pytest

from inrkit import MODALITIES, NETWORKS, SELECTORS, fit


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """A sample signal of every modality."""
    folder = tmp_path_factory.mktemp("samples")
    paths = {}
    for name in MODALITIES.names():
        plugin = MODALITIES.get(name)
        paths[name] = folder / f"{name}{plugin.sample_suffix}"
        plugin(plugin.Options()).sample(paths[name])
    return paths


@pytest.mark.parametrize(
    ("modality", "network", "selector"),
    list(itertools.product(MODALITIES.names(), NETWORKS.names(), SELECTORS.names())),
)
def test_every_combination_fits_two_steps(modality, network, selector, samples, tmp_path):
    run = fit(
        samples[modality],
        out=tmp_path / "run",
        modality=modality,
        network=network,
        selector=selector,
        steps=2,
        overrides=["objective=mse"],
    )
    assert run.result["status"] == "done"
    assert run.metrics[MODALITIES.get(modality).metrics[0]] is not None
    assert run.reconstruction is not None
    if run.field.grid_shape is not None:
        assert run.field.render().shape[:-1] == run.field.grid_shape
