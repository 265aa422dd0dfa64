"""A GPU that is none: "meta:0" stands for a device without float64, and the CPU computes what is there."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import inrkit
import inrkit.configs
from inrkit import device as devices
from inrkit.runs import build as building
from inrkit.runs.execute import execute_together
from inrkit.runs.request import prepare
from inrkit.signals import tiled as tiling
from inrkit.training.optimizers.rows import learnt

pytestmark = pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")  # torch knows no better

THERE = torch.device("meta", 0)
_Generator = torch.Generator
PRESETS = (Path(inrkit.configs.__file__).parent).glob("*.yaml")


class There(torch.Tensor):
    """A tensor on the device; the CPU holds it."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=THERE,
        )

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"There({self.held})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _computed(function, args, kwargs or {})


class GeneratorThere(_Generator):
    device = THERE


class Generators(_Generator):
    """torch.Generator, that can be on the device too."""

    def __new__(cls, device="cpu"):
        return GeneratorThere() if torch.device(device).type == "meta" else _Generator(device)


class Device(TorchDispatchMode):
    """Computes what is on the device. Float64 there is an error, and so is a tensor of main memory beside one of there,
    except where it is copied or is an index."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _computed(function, args, kwargs or {})


class Making(TorchFunctionMode):
    """Tensors from Python's numbers, which torch makes without asking what dispatches."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.new_tensor and args[0].device == THERE:
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}).to(THERE)
        if function in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu") == THERE:
            made = function(*args, **{**kwargs, "device": None})
            assert made.dtype != torch.float64, f"{function.__name__} makes float64"
            return made.to(THERE)
        if function is torch.Tensor.tolist and args[0].device == THERE:
            return args[0].cpu().tolist()
        if function is torch.unravel_index:  # makes such tensors itself
            return tuple(axis.to(args[0].device) for axis in function(args[0].cpu(), *args[1:], **kwargs))
        return function(*args, **kwargs)


_MOVES = (
    "aten::_to_copy",
    "aten::copy_",
    "aten::index",
    "aten::index_put_",
    "aten::index_put",
    "aten::_index_put_impl_",
)


def _computed(function, args, kwargs):
    name = function._schema.name
    given = []

    def held(value):
        if isinstance(value, torch.Tensor):
            given.append(value)
        return value.held if isinstance(value, There) else value

    inside, options = tree_map(held, args), tree_map(held, kwargs)
    there = any(isinstance(value, There) for value in given)
    asked = kwargs.get("device")
    if asked is not None:
        there = torch.device(asked) == THERE
        options["device"] = "cpu" if there else asked
        if name == "aten::_to_copy" and isinstance(args[0], There) != there:
            exact = {args[0].dtype, kwargs.get("dtype") or args[0].dtype}
            assert torch.float64 not in exact, "float64 is turned into something else while it is copied"
    elif there and name not in _MOVES:
        assert all(isinstance(value, There) or value.ndim == 0 for value in given), f"{name} beside main memory"
    result = function(*inside, **options)
    if function._schema.is_mutable and name.endswith("_"):
        return args[0]
    if "out" in kwargs:
        return kwargs["out"]

    def wrapped(value):
        if not (there and isinstance(value, torch.Tensor)):
            return value
        assert value.dtype != torch.float64, f"{name} makes float64"
        return There(value)

    return tree_map(wrapped, result)


@pytest.fixture
def without_float64(monkeypatch):
    """A device without float64, named meta:0."""
    state = {"now": torch.arange(16, dtype=torch.uint8)}
    module = SimpleNamespace(
        get_rng_state=lambda device: state["now"].clone(),
        set_rng_state=lambda new, device: state.update(now=new),
        synchronize=lambda device: None,
    )
    monkeypatch.setattr(torch, "meta", module, raising=False)
    monkeypatch.setattr(devices, "GPUS", ("meta",))
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", ("mps", "meta"))
    monkeypatch.setattr(torch, "Generator", Generators)
    # Tensors like these cannot be inference tensors.
    monkeypatch.setattr(torch, "inference_mode", lambda mode=True: torch.no_grad() if mode else torch.enable_grad())
    with Device(), Making():
        yield THERE


@pytest.mark.parametrize("there", [True, False])
def test_auto_is_a_cuda_gpu_where_there_is_one(monkeypatch, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert devices.choose_device("auto") == torch.device("cuda" if there else "cpu")


@pytest.mark.parametrize("name", ["mps", "xpu", "cuda:7"])
def test_a_gpu_that_is_not_here_is_told_from_one_of_a_kind_not_known(name):
    if devices.choose_device("auto").type == name.partition(":")[0]:
        pytest.skip("there is one here")
    with pytest.raises(inrkit.ConfigError, match=f"device is '{name}', which is not available here"):
        devices.choose_device(name)
    with pytest.raises(inrkit.ConfigError, match="device is 'meta'; inrkit runs on cpu, cuda, xpu, mps"):
        devices.choose_device("meta")


def test_sums_without_float64_are_as_exact_as_float32_allows(without_float64):
    numbers = torch.rand(100_003, generator=_Generator().manual_seed(0)) * 3e4
    right = math.fsum(numbers.tolist())
    assert devices.total(numbers) == pytest.approx(right, rel=1e-14)
    assert devices.total(numbers.to(THERE)) == pytest.approx(right, rel=1e-7)
    assert devices.mean(numbers.to(THERE)) == pytest.approx(right / 100_003, rel=1e-7)
    assert devices.mean((numbers > 1e4).to(THERE)) == pytest.approx(float((numbers > 1e4).double().mean()), rel=1e-7)


def test_steps_of_rows_are_corrected_without_float64(without_float64):
    taken = torch.tensor([1.0, 2.0, 1000.0])
    for beta in (0.0, 0.9, 0.999, 0.99999):
        right = [-math.expm1(count * math.log(beta)) if beta else 1.0 for count in taken.tolist()]
        np.testing.assert_allclose(learnt(beta, taken.to(THERE)).cpu(), right, rtol=1e-6)
        np.testing.assert_allclose(learnt(beta, taken), right, rtol=1e-12 if beta < 0.999 else 1e-9)


SMALL = {"hidden_features": 8, "hidden_layers": 1, "features": 4, "octaves": 3, "table_bits": 8, "levels": 3}


def lattice(*shape):
    """A smooth signal of 8 bits and one channel, (*shape, 1)."""
    axes = np.meshgrid(*(np.linspace(0, 3, length) for length in shape), indexing="ij")
    return np.rint(255 * np.mean([np.sin(axis) ** 2 for axis in axes], axis=0)).astype(np.uint8)[..., None]


SHAPES = {"image": (14, 17), "audio": (300,), "volume": (6, 7, 8), "video": (4, 8, 9), "array": (12, 13)}


def signal_of(modality):
    """A small signal of a modality, as fit takes it: an array, or free points for a shape."""
    if modality == "shape":
        return points_of_a_shape()
    values = lattice(*SHAPES[modality])
    return values[..., 0] / np.float32(256) if modality == "audio" else values


def points_of_a_shape():
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32)
    return inrkit.CoordinateDataset(
        (np.linalg.norm(points, axis=1, keepdims=True) - 0.5).astype(np.float32), points=points
    )


def fitted(signal, tmp_path, **options):
    if isinstance(signal, inrkit.CoordinateDataset):  # it has nothing that a modality would write it with
        options = {"modality": "array", "log": {"reconstruction": 0}, **options}
    return inrkit.fit(signal, out=tmp_path / "run", device="meta:0", steps=2, **options)


def small(network):
    declared = inrkit.NETWORKS.get(network).Options.__dataclass_fields__
    return {"name": network, **{key: value for key, value in SMALL.items() if key in declared}}


def test_tiles_are_fitted_evaluated_and_rendered_without_float64(without_float64, tmp_path):
    run = fitted(signal_of("image"), tmp_path, modality="image", metrics=["psnr", "between"])
    field = inrkit.load(tmp_path / "run", device="meta:0")
    assert field.device == THERE
    rendered = field.render((20, 21))
    here = inrkit.load(tmp_path / "run").render((20, 21))
    assert np.abs(rendered.astype(int) - here).max() <= 1
    assert run.metrics["psnr"] > 0 and math.isfinite(run.metrics["between"])


def test_coordinates_of_tiles_stay_exact_without_float64(without_float64):
    long = inrkit.CoordinateDataset(np.zeros((1 << 20, 1), dtype=np.uint8)).to(THERE)
    last = torch.arange((1 << 20) - 3, 1 << 20, device=THERE)
    found = long.coordinates(last, torch.float64)
    assert found.device.type == "cpu"
    np.testing.assert_array_equal(
        found[:, 0].numpy(), (2 * np.arange((1 << 20) - 3, 1 << 20) + 1 - (1 << 20)) / (1 << 20)
    )


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["image", "audio", "volume", "video", "array", "shape"])
@pytest.mark.parametrize("tiles", [True, False])
def test_every_kind_of_signal_is_fitted_without_float64(without_float64, tmp_path, modality, tiles):
    options = {} if tiles else {"network": small("siren")}
    options |= {} if modality == "shape" else {"modality": modality}
    run = fitted(signal_of(modality), tmp_path, **options)
    assert run.result["status"] == "done" and math.isfinite(run.metrics["psnr"])


@pytest.mark.slow
@pytest.mark.parametrize("modality", inrkit.MODALITIES.names())
def test_the_samples_of_modalities_are_fitted_and_rated_without_float64(without_float64, tmp_path, modality):
    plugin = inrkit.MODALITIES.get(modality)
    sizes = {"resolution": 12, "export_resolution": 12}
    options = {key: value for key, value in sizes.items() if key in plugin.Options.__dataclass_fields__}
    sample = tmp_path / f"sample{plugin.sample_suffix}"
    plugin(plugin.Options(**options)).sample(sample)
    metrics = [name for name in inrkit.METRICS.names() if name not in ("pesq", "stoi")]
    dataset = plugin(plugin.Options(**options)).read(sample)
    metrics = [name for name in metrics if inrkit.METRICS.get(name).suits(dataset)]
    shown: dict = {"modality": {"name": modality, **options}, "log": {"film": "gif"}}
    run = fitted(sample, tmp_path, network=small("siren"), metrics=metrics, **shown)
    assert set(metrics) - set(run.metrics) <= {"ms_ssim"}


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS))
def test_every_preset_is_fitted_without_float64(without_float64, tmp_path, preset):
    modality = preset.partition("-")[0]
    size = [] if preset == modality else ["network.hidden_features=8"]
    run = fitted(signal_of(modality), tmp_path, base=preset, overrides=size)
    assert run.result["status"] == "done"


@pytest.mark.slow
@pytest.mark.parametrize("tiles", [True, False])
@pytest.mark.parametrize("selector", inrkit.SELECTORS.names())
def test_every_selector_works_without_float64(without_float64, tmp_path, selector, tiles):
    if tiles and selector == "nint":
        pytest.skip("derivatives along a direction, for many networks at once, see through the tensors that stand in")
    network = {} if tiles else {"network": small("siren")}
    run = fitted(signal_of("image"), tmp_path, modality="image", selector={"name": selector}, **network)
    assert run.result["status"] == "done"
    if not tiles:
        run = fitted(points_of_a_shape(), tmp_path / "points", selector={"name": selector}, **network)
        assert run.result["status"] == "done"


@pytest.mark.slow
@pytest.mark.parametrize("network", inrkit.NETWORKS.names())
def test_every_network_works_without_float64(without_float64, tmp_path, network):
    fitted(signal_of("image"), tmp_path, modality="image", network=small(network))
    field = inrkit.load(tmp_path / "run", device="meta:0")
    places = np.array([[3.0, 4.0], [5.5, 6.5]])
    here = inrkit.load(tmp_path / "run")
    np.testing.assert_allclose(field(places, physical=True), here(places, physical=True), atol=0.05)
    np.testing.assert_allclose(
        field.gradient(places, physical=True), here.gradient(places, physical=True), rtol=1e-3, atol=0.05
    )


@pytest.mark.slow
@pytest.mark.parametrize("tiles", [True, False])
@pytest.mark.parametrize("optimizer", inrkit.OPTIMIZERS.names())
def test_every_optimizer_works_without_float64(without_float64, tmp_path, optimizer, tiles):
    network = {"selector": "full"} if tiles else {"network": small("siren"), "selector": "full"}
    fitted(signal_of("image"), tmp_path, modality="image", optimizer={"name": optimizer}, **network)


@pytest.mark.slow
@pytest.mark.parametrize("transform", inrkit.TRANSFORMS.names())
@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64", "int32"])
def test_every_transform_of_every_dtype_works_without_float64(without_float64, tmp_path, transform, dtype):
    values = lattice(8, 9)[..., 0].astype(dtype)
    run = fitted(values, tmp_path, modality="volume", transform=transform)
    field = inrkit.load(tmp_path / "run", device="meta:0")
    np.testing.assert_allclose(
        field.render((8, 9)).astype(float),
        inrkit.load(tmp_path / "run").render((8, 9)).astype(float),
        rtol=0.01,
        atol=1.5,
    )
    assert math.isfinite(run.metrics["psnr"])


@pytest.mark.slow
@pytest.mark.parametrize("objective", inrkit.OBJECTIVES.names())
@pytest.mark.parametrize("signal", ["gaps", "weights", "points"])
def test_gaps_weights_and_points_work_without_float64(without_float64, tmp_path, signal, objective):
    values = lattice(12, 13)
    known = np.ones((12, 13), dtype=bool)
    known[3:6, 4:8] = False
    weights = np.linspace(1, 2, 12 * 13).reshape(12, 13)
    dataset = {
        "gaps": lambda: inrkit.CoordinateDataset(values, known=known),
        "weights": lambda: inrkit.CoordinateDataset(values, weights=weights),
        "points": points_of_a_shape,
    }[signal]()
    for number, network in enumerate(({"selector": "evos"}, {"network": small("siren"), "selector": "evos"})):
        fitted(dataset, tmp_path / str(number), objective=objective, **network)


AWAY = {
    "tiles": {},
    "tiles between the samples": {"network": {"name": "tiles", "between": 1.0}},
    "uniform": {"network": small("siren"), "selector": {"name": "uniform", "least": 60}},
    "quasi-random": {"network": small("siren"), "selector": {"name": "uniform", "least": 60, "draw": "quasi-random"}},
    "in chunks": {"network": small("siren"), "selector": {"name": "uniform", "least": 60}, "chunk": 32},
    "evos": {"network": small("siren"), "selector": {"name": "evos", "least": 60}},
    "soft-mining": {"network": small("siren"), "selector": {"name": "soft-mining", "least": 60}},
}
"""Fits of signals whose values stay in main memory."""


def kept_away(monkeypatch):
    """Have the device say that it has no room for values."""
    monkeypatch.setattr(building, "FREE", 1 << 50)


@pytest.mark.slow
@pytest.mark.parametrize("case", AWAY)
def test_values_in_main_memory_give_the_same_bits(without_float64, tmp_path, monkeypatch, case):
    ends, options = [], {"modality": "image", "precision": "float32", **AWAY[case]}
    for away in (False, True):
        if away:
            kept_away(monkeypatch)
        seen = []
        run = inrkit.fit(
            signal_of("image"),
            out=tmp_path / str(away),
            device="meta:0",
            steps=4,
            callbacks=[lambda member, seen=seen: seen.append(member.signal.dataset.away)],
            **options,
        )
        assert seen == [away] * 4
        ends.append([value.cpu() for value in run.field.network.state_dict().values()])
        ends[-1].append(torch.tensor(run.metrics["psnr"]))
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def test_the_values_of_the_next_step_are_gathered_while_this_one_is_computed(without_float64, tmp_path, monkeypatch):
    kept_away(monkeypatch)
    known = []
    inrkit.fit(
        signal_of("image"),
        device="meta:0",
        steps=4,
        every=4,
        callbacks=[lambda member: known.append(member._ahead is not None and member._ahead.targets is not None)],
        modality="image",
        **AWAY["uniform"],
    )
    assert known == [True, True, True, False]  # nothing follows the last step


def test_a_fit_that_looks_ahead_resumes_to_the_same_bits(without_float64, tmp_path, monkeypatch):
    kept_away(monkeypatch)
    options = {"modality": "image", "steps": 4, "precision": "float32", "device": "meta:0", **AWAY["quasi-random"]}
    whole = inrkit.fit(signal_of("image"), out=tmp_path / "whole", **options)
    inrkit.fit(signal_of("image"), out=tmp_path / "run", callbacks=[StopAt()], **options)
    resumed = inrkit.fit(signal_of("image"), out=tmp_path / "run", resume=True, **options)
    for name, value in whole.field.network.state_dict().items():
        assert torch.equal(value.cpu(), resumed.field.network.state_dict()[name].cpu())


def test_a_spline_stays_in_main_memory_where_the_gpu_has_no_room_for_it(without_float64, tmp_path, monkeypatch):
    ends = []
    for room in (1 << 30, 1000):
        monkeypatch.setattr(tiling, "free_memory", lambda device, room=room: room)
        seen = []
        run = inrkit.fit(
            signal_of("image"),
            device="meta:0",
            steps=2,
            modality="image",
            network={"name": "tiles", "between": 1.0},
            callbacks=[lambda member, seen=seen: seen.append(isinstance(member.view._spline, There))],
        )
        assert seen == [room > 1000] * 2
        ends.append([value.cpu() for value in run.field.network.state_dict().values()])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


@pytest.mark.parametrize("what", ["values", "spline"])
def test_tiles_gather_in_main_memory_without_a_look_at_the_device(without_float64, monkeypatch, what):
    if what == "values":
        kept_away(monkeypatch)
    else:
        monkeypatch.setattr(tiling, "free_memory", lambda device: 1000)
    visit, computed = tiling.TiledLattice.visit, _computed
    inside, read = [], []

    def visited(*args):
        inside.append(True)
        try:
            return visit(*args)
        finally:
            inside.pop()

    def watched(function, args, kwargs):
        if inside and function._schema.name == "aten::_to_copy" and isinstance(args[0], There):
            read.extend([kwargs] if kwargs.get("device") == torch.device("cpu") else [])
        return computed(function, args, kwargs)

    monkeypatch.setattr(tiling.TiledLattice, "visit", visited)
    monkeypatch.setitem(globals(), "_computed", watched)
    network = {"name": "tiles", "between": 0.0 if what == "values" else 1.0}
    inrkit.fit(signal_of("image"), device="meta:0", steps=2, modality="image", network=network)
    assert not read


def test_values_of_a_large_signal_are_gathered_from_its_file(without_float64, tmp_path):
    values = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.uint8, shape=(50, 40, 1))
    values[:] = lattice(50, 40)
    dataset = inrkit.CoordinateDataset(np.load(tmp_path / "a.npy", mmap_mode="c")).to(THERE, values=False)
    assert dataset.away and dataset.device == THERE and not isinstance(dataset.values, There)
    indices = torch.tensor([3, 1999, 40])
    for given in (indices, indices.to(THERE)):
        found = dataset.stored(given)
        assert found.device == THERE
        assert torch.equal(found.cpu()[:, 0], torch.from_numpy(lattice(50, 40).reshape(-1))[indices].float())
    assert torch.equal(dataset.stored(slice(5, 9)).cpu(), dataset.to(torch.device("cpu")).stored(slice(5, 9)))


class StopAt(inrkit.Listener):
    def on_step(self, member, selected):
        if member.step == 1:
            member.stop()


@pytest.mark.parametrize("places", [("meta:0", "cpu"), ("cpu", "meta:0")])
def test_a_fit_moves_between_devices(without_float64, tmp_path, places):
    first, second = places
    options = {"steps": 2, "modality": "image", "precision": "float32"}
    inrkit.fit(signal_of("image"), out=tmp_path / "run", device=first, callbacks=[StopAt()], **options)
    run = inrkit.fit(signal_of("image"), out=tmp_path / "run", resume=True, device=second, **options)
    assert run.result["status"] == "done" and run.result["device"] == second
    assert torch.device(first).type in run.result["notes"][0]


@pytest.mark.slow
def test_networks_stacked_as_one_are_fitted_without_float64(without_float64, tmp_path):
    fits = []
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", lattice(9, 10 + number)[..., 0])
        layer = {"device": "meta:0", "network": small("siren"), "selector": "evos", "train": {"steps": 3}}
        fits.append(prepare(tmp_path / f"{number}.npy", out=tmp_path / f"run-{number}", layers=[layer]))
    for run in execute_together(fits):
        assert isinstance(run, inrkit.Run) and run.result["status"] == "done", run


@pytest.mark.slow
@pytest.mark.parametrize("tiles", [True, False])
def test_a_field_is_compressed_without_float64(without_float64, tmp_path, tiles):
    pytest.importorskip("constriction")
    options = {} if tiles else {"network": small("siren")}
    fitted(signal_of("image"), tmp_path, modality="image", **options)
    given = {"signal": signal_of("image"), "device": "meta:0", "bits": 40, "steps": 2}
    done = inrkit.compress(tmp_path / "run", tmp_path / "small.inr", **given)
    assert math.isfinite(done.before["psnr"]) and math.isfinite(done.after["psnr"])
