import dataclasses
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import save_file

from inrkit import ConfigError, CoordinateDataset, DataError, Field, RunError, load
from inrkit.config import resolve
from inrkit.networks import Tiles, set_precision
from inrkit.networks.siren import Siren, SirenOptions
from inrkit.networks.tiles import TilesOptions
from inrkit.runs.build import field_of
from inrkit.runs.tensor_file import write_tensors
from inrkit.signals.lattice import cell_affine, lattice_coordinates
from inrkit.signals.signal import Signal
from inrkit.signals.transforms import MinMax

SHAPE = (12, 9)


@pytest.fixture
def field() -> Field:
    torch.manual_seed(0)
    network = Siren(SirenOptions(hidden_features=8, hidden_layers=1), 2, 3)
    dataset = CoordinateDataset(np.zeros((*SHAPE, 3), np.uint8), affine=cell_affine(SHAPE), metadata={"a": [1]})
    return field_of(
        resolve([{"base": "image-single", "data": {"path": "photo.png"}}]), network, Signal(dataset, MinMax(0, 255))
    )


def test_a_loaded_field_is_the_saved_one(field, tmp_path):
    field.save(tmp_path / "field.safetensors")
    for path in (tmp_path, tmp_path / "field.safetensors"):
        loaded = load(path)
        assert np.array_equal(loaded.render(), field.render())
        assert loaded.grid_shape == field.grid_shape
        assert loaded.dtype == field.dtype
        assert loaded.metadata == {"a": [1]}
        assert np.array_equal(loaded.affine, field.affine)


def test_rendering_equals_calling_at_the_lattice(field):
    shape = (5, 7)
    values = field(lattice_coordinates(torch.arange(35), shape).numpy())
    np.testing.assert_allclose(field.render(shape, dtype=np.float32).reshape(35, 3), values, rtol=1e-5)
    assert np.array_equal(field.render(shape).reshape(35, 3), np.rint(values).clip(0, 255).astype(np.uint8))


def test_rendering_in_slabs_equals_rendering_at_once(field, monkeypatch):
    whole = field.render((40, 30), dtype=np.float32)
    monkeypatch.setattr("inrkit.runs.field.slabs", lambda shape: iter([slice(0, 600), slice(600, 1200)]))
    monkeypatch.setattr("inrkit.runs.field.default_chunk", lambda device, network: 7)
    np.testing.assert_allclose(field.render((40, 30), dtype=np.float32), whole, rtol=1e-5)


def test_scale_is_a_factor_on_the_original_lattice(field):
    assert field.render(scale=2).shape == (24, 18, 3)
    assert field.render(scale=0.01).shape == (1, 1, 3)
    assert field.render().dtype == np.uint8


def test_physical_units_are_those_of_the_affine_map(field):
    pixel = np.array([[3.0, 5.0], [0.0, 0.0]])
    np.testing.assert_allclose(
        field(pixel, physical=True), field.render(dtype=np.float32)[[3, 0], [5, 0]], rtol=1e-4, atol=1e-3
    )


def test_a_tensor_gives_a_tensor_and_an_array_an_array(field):
    points = torch.zeros(2, 4, 2)
    assert isinstance(field(points), torch.Tensor)
    assert isinstance(field(points.numpy()), np.ndarray)
    assert field(points).shape == (2, 4, 3)
    assert field(torch.zeros(2)).shape == (3,)
    assert field(torch.zeros(0, 2)).shape == (0, 3)


@pytest.mark.parametrize(
    "arguments",
    [{"shape": (3,)}, {"shape": 3}, {"shape": (0, 3)}, {"shape": (3.5, 3)}, {"scale": 0}, {"scale": float("nan")}],
)
def test_impossible_lattices_are_refused(field, arguments):
    with pytest.raises(ConfigError, match="must be"):
        field.render(**arguments)


def test_a_shape_and_a_scale_at_once_are_refused(field):
    with pytest.raises(ConfigError, match="give one of them"):
        field.render((3, 3), scale=2)


def test_coordinates_of_another_dimension_are_refused(field):
    with pytest.raises(DataError, match=r"expected \(…, 2\)"):
        field(np.zeros((4, 3)))


def edited(source, target, change):
    with safe_open(source, framework="pt") as file:
        description = json.loads(file.metadata()["inrkit"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(description)
    save_file(weights, target, metadata={"inrkit": json.dumps(description)})


def test_a_field_from_a_stranger_imports_no_code(field, tmp_path):
    (tmp_path / "stranger_code.py").write_text("raise SystemExit('stranger code ran')")
    field.save(tmp_path / "good.safetensors")
    for key in ("network", "embedding", "transform", "modality"):
        edited(
            tmp_path / "good.safetensors",
            tmp_path / "bad.safetensors",
            lambda description, key=key: description[key].update(name="stranger_code:Network"),
        )
        sys.path.insert(0, str(tmp_path))
        try:
            with pytest.raises(ConfigError, match="trust"):
                load(tmp_path / "bad.safetensors")
        finally:
            sys.path.remove(str(tmp_path))
        assert "stranger_code" not in sys.modules


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(format=99),
        lambda d: d.pop("network"),
        lambda d: d["network"]["options"].update(hidden_features="many"),
        lambda d: d["network"]["options"].update(hidden_features=16),
        lambda d: d.update(dtype="no dtype"),
        lambda d: d.update(grid_shape=3),
    ],
)
def test_a_damaged_description_is_one_line(field, tmp_path, change):
    field.save(tmp_path / "good.safetensors")
    edited(tmp_path / "good.safetensors", tmp_path / "bad.safetensors", change)
    with pytest.raises(DataError) as error:
        load(tmp_path / "bad.safetensors")
    assert "\n" not in str(error.value)


def test_a_folder_that_cannot_be_written_is_told(field, tmp_path):
    with pytest.raises(RunError, match="cannot write"):
        field.save(tmp_path / "missing" / "field.safetensors")


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "\\${oc.env:HOME}", "${ran:1}"])
def test_a_field_from_a_stranger_calls_no_resolver(field, tmp_path, value):
    called = []
    OmegaConf.register_resolver("ran", lambda _: called.append(1) or 16, replace=True)
    field.save(tmp_path / "good.safetensors")
    edited(
        tmp_path / "good.safetensors",
        tmp_path / "bad.safetensors",
        lambda description: description["network"]["options"].update(hidden_features=value),
    )
    with pytest.raises(DataError, match="damaged"):
        load(tmp_path / "bad.safetensors")
    assert not called


def test_a_loaded_field_multiplies_in_the_precision_of_its_training(field, tmp_path):
    set_precision(field.network, "bfloat16")
    field.save(tmp_path / "field.safetensors")
    assert np.array_equal(load(tmp_path).render(dtype=np.float32), field.render(dtype=np.float32))


def test_tied_weights_are_saved(field, tmp_path):
    field.network.hidden[0].bias = field.network.first.bias
    field.save(tmp_path / "field.safetensors")
    assert np.array_equal(load(tmp_path).render(), field.render())


def test_arrays_of_any_layout_and_lists_are_coordinates(field):
    points = np.random.default_rng(0).uniform(-1, 1, (6, 2))
    expected = field(points)
    frozen = points.copy()
    frozen.flags.writeable = False
    for given in (points[::-1][::-1], np.asfortranarray(points), points.astype(">f8"), frozen, points.tolist()):
        assert np.array_equal(field(given), expected)
    assert np.array_equal(field([0, 1]), field(np.array([0.0, 1.0])))
    assert np.array_equal(field(torch.from_numpy(points)).numpy(), expected)


def test_a_tensors_values_may_go_on_into_a_training(field):
    weight = torch.ones(2, 3, requires_grad=True)
    (field(torch.zeros(2, 2)) * weight).sum().backward()  # torch refuses an inference tensor here
    assert weight.grad is not None


def test_the_module_maps_coordinates_to_stored_values_and_trains_the_fields_weights(field):
    points = torch.rand(7, 2) * 2 - 1
    model = torch.nn.Sequential(torch.nn.Identity(), field.module)
    torch.testing.assert_close(model(points).clamp(0, 255), field(points))
    assert {id(weight) for weight in model.parameters()} == {id(weight) for weight in field.network.parameters()}
    with torch.no_grad():
        field.network.last.bias += 10.0  # of a range of 2: all values leave 0 … 255
    assert float(model(points).detach().min()) > 500
    model(points).sum().backward()
    assert field.network.last.bias.grad.tolist() == pytest.approx([7 * 127.5] * 3)


DROPOUT = """
    import torch
    from dataclasses import dataclass
    from inrkit import Network, option

    @dataclass
    class Options:
        rate: float = option(0.5)

    class Dropout(Network):
        Options = Options

        def __init__(self, options, dimensions, channels):
            super().__init__(options, dimensions, channels)
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(dimensions, 32), torch.nn.Dropout(options.rate), torch.nn.Linear(32, channels)
            )

        def forward(self, coordinates):
            return self.layers(coordinates)
"""


def test_a_field_of_a_network_with_dropout_is_the_same_live_saved_loaded_and_in_a_model_that_trains(
    tmp_path, monkeypatch
):
    (tmp_path / "with_dropout.py").write_text(textwrap.dedent(DROPOUT))
    monkeypatch.syspath_prepend(tmp_path)
    signal = Signal(CoordinateDataset(np.zeros((*SHAPE, 3), np.float32)), MinMax(-1, 1))
    config = resolve([{"data": {"path": "photo.png"}, "network": "with_dropout:Dropout"}])
    network = config.network.plugin(config.network.options, 2, 3).train()
    live = field_of(config, network, signal)
    values = live.render()
    assert np.array_equal(values, live.render())
    live.save(tmp_path / "field.safetensors")
    assert np.array_equal(load(tmp_path, trust=True).render(), values)
    torch.nn.Sequential(live.module).train()
    assert np.array_equal(live.render(), values)
    torch.nn.Sequential(live.module).eval().train(True)
    assert np.array_equal(live.render(), values)


def test_loading_leaves_the_callers_random_state_alone(field, tmp_path):
    field.save(tmp_path / "field.safetensors")
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


class Plain(torch.nn.Module):
    """A network as torch's users write them."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)

    def forward(self, coordinates):
        return self.layer(coordinates)


class NoParameters(torch.nn.Module):
    def forward(self, coordinates):
        return torch.cat([coordinates, coordinates[..., :1]], dim=-1)


@pytest.mark.parametrize("plain", [Plain, NoParameters])
def test_any_module_is_a_network_for_all_but_a_file(field, tmp_path, plain):
    field = dataclasses.replace(field, network=plain(), names={**field.names, "network": ""})
    assert field.render((4, 5)).shape == (4, 5, 3)
    assert field(np.zeros((2, 2))).shape == (2, 3)
    assert field.gradient(np.zeros((2, 2))).shape == (2, 3, 2)
    assert field.to("cpu").device == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"derive it from inrkit\.Network, and register it") as error:
        field.save(tmp_path / "field.safetensors")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_field_says_in_a_line_what_it_is(field):
    assert repr(field) == "Field(image, 12×9, 3 channels uint8, siren 123 parameters)"
    plain = dataclasses.replace(
        field, network=Plain(), names={**field.names, "network": "", "modality": ""}, grid_shape=None, channels=1
    )
    assert repr(plain) == "Field(array, 2 dimensions, 1 channel uint8, Plain 9 parameters)"


def test_a_file_of_tensors_is_what_safetensors_reads(tmp_path):
    given = {
        name: torch.arange(-6, 6).reshape(3, 4).to(getattr(torch, name))
        for name in ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    }
    given |= {
        name: torch.arange(12).reshape(3, 4).to(getattr(torch, name))
        for name in ["uint64", "uint32", "uint16", "float8_e4m3fn", "float8_e5m2"]
    }
    given |= {"none": torch.zeros(0, 3), "number": torch.tensor(3.5), "turned": torch.rand(4, 5).T, "ü": torch.ones(1)}
    rows = [torch.rand(2, 3), torch.rand(1, 3), torch.rand(0, 3)]
    write_tensors(tmp_path / "file.safetensors", {**given, "rows": rows}, {"said": "ä\n"})
    with safe_open(tmp_path / "file.safetensors", framework="pt") as file:
        assert file.metadata() == {"said": "ä\n"}
        assert set(file.keys()) == {*given, "rows"}
        for name, tensor in {**given, "rows": torch.cat(rows)}.items():
            assert file.get_tensor(name).dtype == tensor.dtype
            assert file.get_tensor(name).tolist() == tensor.tolist()


def test_a_dtype_that_no_file_holds_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"odd is torch\.complex128, .*another dtype"):
        write_tensors(tmp_path / "file.safetensors", {"odd": torch.zeros(1, dtype=torch.complex128)}, {})


def test_a_lattice_larger_than_memory_is_rendered_to_the_disk(field, monkeypatch):
    in_memory = field.render((40, 50))
    monkeypatch.setattr("inrkit.runs.field.available_memory", lambda: 1000)
    on_disk = field.render((40, 50))
    assert isinstance(on_disk, np.memmap)
    assert np.array_equal(on_disk, in_memory)


def test_weights_of_tiles_are_read_as_they_are_asked_for(tmp_path):
    network = Tiles(TilesOptions(lattice=[40, 40], counts=[4, 4]), 2, 3)
    dataset = CoordinateDataset(np.zeros((40, 40, 3), np.uint8))
    config = resolve([{"base": "image", "data": {"path": "photo.png"}}])
    field_of(config, network, Signal(dataset, MinMax(0, 255))).save(tmp_path / "field.safetensors")
    loaded = load(tmp_path)
    weights = loaded.network.weights
    maps = Path("/proc/self/maps")
    if maps.exists():
        places = [line.split()[0].split("-") for line in maps.read_text().splitlines() if "field.safetensors" in line]
        assert any(int(first, 16) <= weights.data_ptr() < int(last, 16) for first, last in places)
    with torch.no_grad():
        weights += 1  # a change stays in memory
    assert torch.equal(load(tmp_path).network.weights, network.weights)
