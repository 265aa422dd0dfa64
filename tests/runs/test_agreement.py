"""Two ways to say the same give the same: on signals, networks and chunks drawn at random."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import inrkit
from inrkit import CoordinateDataset, Field
from inrkit.config import resolve
from inrkit.evaluation.evaluate import decoded
from inrkit.networks import NETWORKS
from inrkit.runs.build import field_of
from inrkit.signals.lattice import cell_affine, lattice_coordinates
from inrkit.signals.operators import OPERATORS
from inrkit.signals.signal import Signal
from inrkit.signals.transforms import MinMax

shapes = st.lists(st.integers(2, 7), min_size=1, max_size=3).map(tuple)
seeds = st.integers(0, 999)
networks = st.sampled_from(NETWORKS.names())


def signal_of(shape, seed) -> Signal:
    values = np.random.default_rng(seed).integers(0, 256, (*shape, 2), dtype=np.uint8)
    return Signal(CoordinateDataset(values, affine=cell_affine(shape)), MinMax(0, 255))


def field_for(shape, seed, name) -> Field:
    signal = signal_of(shape, seed)
    config = resolve([{"data": {"path": "photo.png"}, "network": {"name": name}}])
    plugin = NETWORKS.get(name)
    small = {"hidden_features": 8, "hidden_layers": 2, "features": 8, "levels": 3, "table_bits": 6}
    options = plugin.Options(**{key: value for key, value in small.items() if hasattr(plugin.Options(), key)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = plugin(options, len(shape), 2)
    return field_of(config, network, signal)


@given(shape=shapes, seed=seeds, periodic=st.booleans(), data=st.data())
@settings(max_examples=12, deadline=None)
def test_an_operator_on_a_subset_is_the_whole_operator_there(shape, seed, periodic, data):
    signal = signal_of(shape, seed)
    plugin = OPERATORS.get("laplacian")
    operator = plugin(plugin.Options(periodic=[0] if periodic and shape[0] > 2 else []), signal)
    count = len(signal)
    values = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    some = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20)))
    torch.testing.assert_close(operator.response_at(values, some), operator.response(values)[some])
    other = torch.randn(count, generator=torch.Generator().manual_seed(seed + 1))
    forward, back = (operator.response(values) * other).sum(), (values * operator.adjoint(other)).sum()
    torch.testing.assert_close(forward, back, atol=1e-4, rtol=1e-4)


@given(shape=shapes, seed=seeds, name=networks, chunk=st.integers(1, 50))
@settings(max_examples=8, deadline=None)
def test_a_lattice_is_rendered_as_its_points_are_called_whole_or_in_chunks(shape, seed, name, chunk):
    field = field_for(shape, seed, name)
    count = int(np.prod(shape))
    points = lattice_coordinates(torch.arange(count), shape)
    rendered = field.render(dtype=np.float32).reshape(count, 2)
    np.testing.assert_allclose(field(points).detach().numpy(), rendered, atol=2e-3)
    with torch.no_grad():
        parts = decoded(
            field.network, field.transform, lambda span: points[span], slice(0, count), chunk, field.value_range
        )
    np.testing.assert_allclose(parts.numpy(), rendered, atol=2e-3)  # of 255: products of other shapes round otherwise


@given(shape=shapes, seed=seeds, name=networks)
@settings(max_examples=8, deadline=None)
def test_a_field_comes_back_from_its_file_bit_for_bit(shape, seed, name):
    field = field_for(shape, seed, name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "field.safetensors"
        field.save(path)
        again = inrkit.load(path)
        again.save(path)
        content = path.read_bytes()
        inrkit.load(path).save(path)
        assert path.read_bytes() == content
    for key, value in field.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[key], value)
    assert np.array_equal(again.render(), field.render())
    assert (again.grid_shape, again.dtype, again.value_range) == (field.grid_shape, field.dtype, field.value_range)


@given(shape=st.tuples(st.integers(3, 9), st.integers(3, 9)), seed=seeds)
@settings(max_examples=2, deadline=None)
def test_a_reconstruction_is_the_field_at_its_native_shape(shape, seed):
    values = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    network = {"name": "siren", "hidden_features": 8, "hidden_layers": 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "values.npy"
        np.save(path, values)
        run = inrkit.fit(path, out=Path(folder) / "run", network=network, steps=2, compile="never", modality="image")
        with Image.open(run.reconstruction) as picture:
            written = np.asarray(picture)
        assert np.array_equal(written, run.field.render())
        assert np.array_equal(written, inrkit.load(run.folder).render())
