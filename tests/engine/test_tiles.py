import copy
import dataclasses
import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate, map_coordinates, spline_filter
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import inrkit
from inrkit.contract import check_selector
from inrkit.errors import ConfigError, DataError
from inrkit.networks import Tiles
from inrkit.networks.native import _compiled
from inrkit.networks.tiles import TilesOptions, _values_per_parameter
from inrkit.runs.field import write_field
from inrkit.selectors import Residuals
from inrkit.selectors.evos import EvosOptions
from inrkit.selectors.progress import Progress
from inrkit.selectors.tiles import EvosOfTiles
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.lattice import mirrored
from inrkit.signals.signal import Signal
from inrkit.signals.tiled import TileLayout, tiled
from inrkit.signals.tiling import Tiling
from inrkit.training.optimizers.rows import RowAdam, RowSOAP
from inrkit.training.optimizers.soap import SOAP

TILINGS = [((37, 50), (3, 4), 2.0), ((100,), (7,), 1.0), ((9, 12, 5), (2, 3, 1), 1.5), ((8, 8), (1, 1), 2.0)]

TRAINED = {
    "base": "image-paper",
    "modality": "image",
    "selector": {"name": "evos", "survival": "proportional", "ratio": 0.5},
    "optimizer": {"name": "adam", "lr": 3e-3},
    "objective": "mse",
    "every": 100,
}


def signal_of(values: np.ndarray, **more) -> Signal:
    return Signal(CoordinateDataset(values.astype(np.float32), **more))


def waves(*shape: int, channels: int = 1) -> np.ndarray:
    axes = np.meshgrid(*[np.linspace(0, 5, length) for length in shape], indexing="ij")
    return np.stack([np.sin(sum((n + 1 + c) * a for n, a in enumerate(axes))) for c in range(channels)], axis=-1)


def network_for(signal: Signal, **options) -> Tiles:
    fitted = Tiles.fitted(TilesOptions(**options), signal)
    torch.manual_seed(0)
    network = Tiles(fitted, signal.dataset.dimensions, signal.dataset.channels)
    network.meet(signal)
    return network


@pytest.mark.parametrize("lattice, counts, overlap", TILINGS)
def test_weights_of_overlapping_tiles_add_up_to_one(lattice, counts, overlap) -> None:
    tiling = Tiling(lattice, counts, overlap)
    positions = tiling.positions(torch.rand(5000, len(lattice), dtype=torch.float64) * 2 - 1)
    place, tile, weight = tiling.cover(positions)
    total = torch.zeros(5000, dtype=torch.float64).index_add_(0, place, weight)
    torch.testing.assert_close(total, torch.ones_like(total))
    offset = positions[place] - tiling.origins(tile)
    reach = torch.tensor(tiling.overlaps)
    assert bool((offset >= -reach).all()) and bool((offset <= torch.tensor(tiling.sides) + reach).all())


def test_weights_are_smooth_across_a_border() -> None:
    tiling = Tiling((40,), (4,), 2.0)
    x = torch.linspace(5, 15, 4001, dtype=torch.float64)[:, None]
    place, tile, weight = tiling.cover(x)
    first = torch.zeros(4001, dtype=torch.float64).index_add_(0, place[tile == 0], weight[tile == 0])
    step = 10 / 4000
    for order in (1, 2):
        derivative = np.diff(first.numpy(), order) / step**order
        assert np.abs(np.diff(derivative)).max() < 0.02  # no jump in the first and second derivative


def test_a_tiles_own_coordinates_span_its_longest_side() -> None:
    tiling = Tiling((64, 12), (4, 1), 1.0)
    ends = tiling.local(torch.tensor([[0.0, 0.0], [16.0, 12.0]]))
    torch.testing.assert_close(ends, torch.tensor([[-1.0, -0.75], [1.0, 0.75]]))


def test_mirroring_repeats_no_outermost_sample() -> None:
    expected = np.pad(np.arange(5), 7, mode="reflect")
    assert mirrored(torch.arange(-7, 12), 5).tolist() == expected.tolist()
    assert mirrored(torch.arange(-3, 3), 1).tolist() == [0] * 6


@pytest.mark.parametrize("shape, counts", [((24, 31), (2, 3)), ((100,), (7,)), ((6, 8, 9), (1, 2, 2))])
@pytest.mark.parametrize("between", [0.0, 1.0])
def test_a_visits_points_are_the_signals(shape, counts, between) -> None:
    values = waves(*shape, channels=2)
    signal, tiling = signal_of(values), Tiling(shape, counts, 1.0)
    view = tiled(signal, tiling)
    plan = view.begin(8, between, torch.Generator().manual_seed(1))
    tiles = torch.arange(len(tiling))
    visit = view.visit(plan, tiles)
    scale = max(tiling.sides) / 2
    offsets = visit.inputs.double() * scale + torch.tensor(tiling.sides) / 2
    at = (offsets + tiling.origins(tiles)[:, None]).numpy() - 0.5  # in samples
    coefficients = [spline_filter(values[..., channel], 3, mode="mirror") for channel in range(2)]
    expected = [
        map_coordinates(each, np.moveaxis(at, -1, 0), order=3, prefilter=False, mode="mirror") for each in coefficients
    ]
    np.testing.assert_allclose(visit.targets.numpy(), np.stack(expected, axis=-1), atol=2e-4)
    assert bool(between) == bool((np.abs(at - np.rint(at)) > 1e-3).any())


@pytest.mark.parametrize("shape", [(2, 900), (900, 3), (1, 2, 800)])
def test_a_visit_has_points_along_axes_of_few_cells(shape) -> None:
    view = tiled(signal_of(waves(*shape)), Tiling(shape, [1] * len(shape), 1.0))
    generator = torch.Generator().manual_seed(0)
    cells = set()
    for _ in range(600):
        plan = view.begin(20, 0.0, generator)
        assert all(len(along) for along in plan.cells)
        cells |= set(itertools.product(*[along.tolist() for along in plan.cells]))
    assert len(cells) == math.prod(shape)


def test_the_lattice_of_a_fit_is_that_of_its_signal() -> None:
    fitted = Tiles.fitted(TilesOptions(lattice=[5, 5], counts=[2, 2]), signal_of(waves(12, 20)))
    assert fitted.lattice == [12, 20]


def test_a_visit_leaves_out_what_is_not_known() -> None:
    known = np.ones((16, 16), dtype=bool)
    known[:4, :4] = False
    signal = signal_of(waves(16, 16), known=known)
    view = tiled(signal, Tiling((16, 16), (2, 2), 0.0))
    visit = view.visit(view.begin(64, 1.0, torch.Generator().manual_seed(0)), torch.arange(4))
    assert visit.weights.sum(dim=1).tolist() == [48, 64, 64, 64]


def test_what_stands_in_place_of_unknown_values_reaches_no_tile() -> None:
    values, known = waves(16, 16), np.ones((16, 16), dtype=bool)
    known[:4, :12] = False
    found = []
    for hole in (0.0, np.nan):
        values = np.where(known[..., None], values, hole).astype(np.float32)
        view = tiled(signal_of(values, known=known), Tiling((16, 16), (2, 2), 0.0))
        survey = view.survey()
        visit = view.visit(view.begin(64, 0.0, torch.Generator().manual_seed(0)), torch.arange(4))
        found.append((survey.means, survey.spreads, visit.targets * visit.weights[..., None]))
    for without, with_nan in zip(*found, strict=True):
        assert torch.equal(without, with_nan)


def test_a_signal_is_surveyed_again_for_other_tiles_only() -> None:
    signal = signal_of(waves(16, 16))
    first = tiled(signal, Tiling((16, 16), (2, 2), 0.0)).survey()
    assert tiled(signal, Tiling((16, 16), (2, 2), 0.0)).survey() is first
    other = tiled(signal, Tiling((16, 16), (2, 4), 0.0)).survey()
    assert len(other.means) == 8
    assert not torch.equal(other.means[:4], first.means)


def test_points_are_copied_to_apples_gpus_before_their_memory_is_freed(monkeypatch) -> None:
    class Copies(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.Tensor.to and torch.device("mps") in args:
                waits.append(not (kwargs or {}).get("non_blocking"))
                return args[0]
            return function(*args, **(kwargs or {}))

    waits: list[bool] = []
    points = np.random.default_rng(0).uniform(-1, 1, (100, 2)).astype(np.float32)
    view = tiled(Signal(CoordinateDataset(points[:, :1].copy(), points=points)), Tiling((8, 8), (2, 2), 2.0))
    monkeypatch.setattr(Signal, "device", torch.device("mps"))
    with Copies():
        view.begin(50, 0.0, torch.Generator().manual_seed(0))
    assert waits == [True]


def test_tiles_of_free_points_take_their_own_points() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 2)).astype(np.float32)
    signal = Signal(CoordinateDataset(points[:, :1].copy(), points=points))
    tiling = Tiling((64, 64), (4, 4), 2.0)
    view = tiled(signal, tiling)
    visit = view.visit(view.begin(50, 0.0, torch.Generator().manual_seed(0)), torch.arange(16))
    x = (visit.inputs[..., 0] * tiling.scale + 8 + tiling.origins(torch.arange(16))[:, None, 0]) / 32 - 1
    torch.testing.assert_close(x, visit.targets[..., 0], atol=1e-5, rtol=0)
    assert len(visit.inputs[5].unique(dim=0)) == 50


@pytest.mark.parametrize("parameters", [2000, 20_000, 100_000])
def test_the_parameters_stay_within_their_budget(parameters: int) -> None:
    network = network_for(signal_of(waves(64, 96)), parameters=parameters)
    assert 0.6 * parameters < network.weights.numel() <= parameters


@pytest.mark.parametrize(
    "values, share", [(5_000, 1), (200_000, 1), (1_800_000, 3), (50_000_000, 5), (800_000_000, 10)]
)
def test_larger_signals_have_more_values_for_a_parameter(values: int, share: float) -> None:
    assert _values_per_parameter(values) == pytest.approx(share)


def test_constant_tiles_have_no_network() -> None:
    values = waves(64, 64)
    values[:32] = 0.25
    network = network_for(signal_of(values), counts=[4, 4])
    assert network.networks == 8
    with torch.no_grad():
        assert network(torch.tensor([[-0.9, 0.3], [-0.4, -0.9]])).tolist() == [[0.25], [0.25]]


@pytest.mark.parametrize("each", ["siren", "finer", "wire", "gauss", "pe-mlp", "fourier-features"])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_forward_is_the_blend_of_the_tiles_networks(each: str, dimensions: int) -> None:
    signal = signal_of(waves(*[40, 24, 16][:dimensions], channels=2))
    network = network_for(signal, counts=[3, 2, 2][:dimensions], each={"name": each})
    points = torch.rand(60, dimensions, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    place, tile, share = network.tiling.cover(network.tiling.positions(points))
    expected = torch.zeros(60, 2)
    for point, number, weight in zip(place.tolist(), tile.tolist(), share.tolist(), strict=True):
        origin = network.tiling.origins(torch.tensor([number]))[0]
        local = network.tiling.local(network.tiling.positions(points[point]) - origin)
        own = network.rows(network.weights[number, None], local[None, None].float())[0, 0]
        expected[point] += weight * (network.means[number] + network.spreads[number] * own)
    torch.testing.assert_close(network(points), expected, atol=1e-4, rtol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(network(points), expected, atol=1e-4, rtol=1e-4)


def test_machine_code_gives_what_torch_gives() -> None:
    network = network_for(signal_of(waves(40, 40, channels=3)), counts=[3, 3], each={"hidden_features": 13})
    if network.kernel is None:
        pytest.skip("no C compiler here")
    x = torch.rand(500, 2) * 2 - 1
    with torch.inference_mode():
        given = network(x)
    torch.testing.assert_close(given, network(x).detach(), atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize(
    "each, optimizer",
    [({}, "adam"), ({"hidden_layers": 0}, "adam"), ({"hidden_features": 17, "hidden_layers": 1}, "adam"), ({}, "soap")],
)
def test_training_in_machine_code_is_training_in_torch(each: dict, optimizer: str) -> None:
    values = waves(40, 33, channels=2)
    trained = []
    for native in (True, False):
        network = {"name": "tiles", "counts": [3, 2], "each": each}
        options = {**TRAINED, "optimizer": {"name": optimizer, "lr": 3e-3}}
        training = inrkit.trainer(values.astype(np.float32), steps=12, network=network, **options)
        training.member.network.native = native
        if native and training.member.network.kernel is None:
            pytest.skip("no C compiler here")
        for _ in training:
            pass
        trained.append(training.member.network.weights.detach().clone())
    torch.testing.assert_close(trained[0], trained[1], atol=2e-4, rtol=1e-3)


def test_machine_code_tells_the_errors_of_several_channels_between_the_samples_of_one_axis() -> None:
    # The spline's values lie channel by channel there.
    responses = []
    for native in (True, False):
        options = {**TRAINED, "modality": "audio", "network": {"name": "tiles", "counts": [4], "between": 1.0}}
        training = inrkit.trainer(waves(400, channels=2).astype(np.float32), steps=1, **options)
        training.member.network.native = native
        if native and training.member.network.kernel is None:
            pytest.skip("no C compiler here")
        responses += [step.turn.errors.response for step in training]
    torch.testing.assert_close(responses[0], responses[1], atol=1e-4, rtol=1e-3)


def test_rows_step_as_adam_steps_each_of_them() -> None:
    torch.manual_seed(0)
    start = torch.randn(4, 6)
    rows = torch.nn.Parameter(start.clone())
    ours = RowAdam([rows], lr=0.01, betas=(0.9, 0.95))
    singles = [torch.nn.Parameter(start[n].clone()) for n in range(4)]
    theirs = [torch.optim.Adam([each], lr=0.01, betas=(0.9, 0.95)) for each in singles]
    for step in range(9):
        chosen = [n for n in range(4) if (step + n) % (n + 1) == 0]
        gradients = torch.randn(len(chosen), 6)
        ours.step_rows(rows, torch.tensor(chosen), gradients)
        for n, gradient in zip(chosen, gradients, strict=True):
            singles[n].grad = gradient
            theirs[n].step()
    torch.testing.assert_close(rows.detach(), torch.stack([each.detach() for each in singles]))


def test_rows_step_as_soap_steps_each_of_them() -> None:
    torch.manual_seed(0)
    shapes = [torch.Size([4, 3]), torch.Size([4])]
    start = torch.randn(4, 16)
    rows = torch.nn.Parameter(start.clone())
    options = {"lr": 0.01, "weight_decay": 0.1, "precondition_every": 3}
    ours = RowSOAP([rows], shapes, **options)
    singles = [
        [
            torch.nn.Parameter(part.reshape(shape).clone())
            for part, shape in zip(row.split([12, 4]), shapes, strict=True)
        ]
        for row in start
    ]
    theirs = [SOAP(single, **options) for single in singles]
    for step in range(25):
        chosen = [n for n in range(4) if (step + n) % (n + 1) == 0]
        gradients = torch.randn(len(chosen), 16)
        ours.step_rows(rows, torch.tensor(chosen), gradients)
        for n, gradient in zip(chosen, gradients, strict=True):
            for parameter, part in zip(singles[n], gradient.split([12, 4]), strict=True):
                parameter.grad = part.reshape(parameter.shape)
            theirs[n].step()
    expected = torch.stack([torch.cat([part.detach().flatten() for part in single]) for single in singles])
    torch.testing.assert_close(rows.detach(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", ["adam", "soap"])
def test_an_optimizer_of_rows_says_what_it_keeps_and_can_be_copied(make: str) -> None:
    torch.manual_seed(0)
    rows = torch.nn.Parameter(torch.randn(5, 16))
    optimizer: RowAdam | RowSOAP = (
        RowAdam([rows], lr=0.01, betas=(0.9, 0.95))
        if make == "adam"
        else RowSOAP([rows], [torch.Size([4, 3]), torch.Size([4])], precondition_up_to=3)
    )
    for _ in range(2):
        optimizer.step_rows(rows, torch.arange(5), torch.randn(5, 16))
    kept = [each for each in tree_leaves(optimizer.state[rows]) if isinstance(each, torch.Tensor)]
    assert optimizer.numbers_kept(rows) == sum(each.numel() for each in kept)
    copied, gradients = copy.deepcopy(optimizer), torch.randn(5, 16)
    (twin,) = copied.param_groups[0]["params"]
    for each, parameter in ((optimizer, rows), (copied, twin)):
        each.step_rows(parameter, torch.arange(5), gradients)
    assert torch.equal(rows, twin)


@pytest.mark.parametrize(
    "optimizer, crossover", [("adam", "none"), ("soap", "select")], ids=["adam", "soap and high frequencies"]
)
def test_a_fit_with_tiles_resumes_to_the_bit(tmp_path, optimizer: str, crossover: str) -> None:
    values = (waves(48, 40, channels=3) * 100 + 128).astype(np.uint8)
    from PIL import Image

    Image.fromarray(values).save(tmp_path / "a.png")
    network = {"name": "tiles", "counts": [3, 3]}
    options = {**TRAINED, "network": network, "every": 5, "optimizer": {"name": optimizer, "lr": 3e-3}}
    options["selector"] = {**TRAINED["selector"], "crossover": crossover}
    whole = inrkit.fit(tmp_path / "a.png", out=tmp_path / "whole", steps=20, **options)

    def stop(member) -> None:
        if member.step == 9:
            member.stop()

    inrkit.fit(tmp_path / "a.png", out=tmp_path / "half", steps=20, callbacks=[stop], **options)
    resumed = inrkit.fit(tmp_path / "half", resume=True)
    assert torch.equal(whole.field.network.weights, resumed.field.network.weights)
    assert [row["psnr"] for row in whole.history] == [row["psnr"] for row in resumed.history]
    loaded = inrkit.load(tmp_path / "half")
    assert np.array_equal(loaded.render(), whole.field.render())


def test_a_long_signals_neighbours_are_told_apart() -> None:
    count = 1 << 23
    signal = Signal(CoordinateDataset(np.zeros((count, 1), dtype=np.int8)))
    network = network_for(signal, counts=[1 << 14])
    cells = torch.arange(count - 300, count)
    coordinates = signal.dataset.coordinates(cells, torch.float64)
    positions = network.tiling.positions(coordinates)[:, 0]
    torch.testing.assert_close(positions, cells.double() + 0.5, atol=1e-3, rtol=0)


def test_tiles_within_tiles_and_embeddings_are_refused() -> None:
    with pytest.raises(ConfigError, match="a tile's network is a single one"):
        network_for(signal_of(waves(8, 8)), each={"name": "tiles"})
    with pytest.raises(ConfigError, match=r"network.each.hiden is not an option"):
        network_for(signal_of(waves(8, 8)), each={"hiden": 1})
    with pytest.raises(ConfigError, match=r"network\.counts is \[3\]; it must have 2 numbers, one for each axis"):
        network_for(signal_of(waves(8, 8)), counts=[3])
    with pytest.raises(ConfigError, match=r"network\.counts is \[2, 9\]; the signal has 8×8 cells"):
        network_for(signal_of(waves(8, 8)), counts=[2, 9])
    with pytest.raises(ValueError, match="counts has 1 axes and lattice 2"):
        TilesOptions(counts=[1], lattice=[4, 4])


def test_gradients_of_a_blended_field_are_its_slopes() -> None:
    run = inrkit.fit(
        waves(32, 32).astype(np.float32)[..., 0], network={"name": "tiles", "counts": [2, 2]}, steps=60, **TRAINED
    )
    x = np.array([[15.9, 16.2], [4.0, 15.5], [20.3, 8.1]])
    slopes = run.field.gradient(x, physical=True)[:, 0]
    for axis in range(2):
        shift = np.zeros(2)
        shift[axis] = 1e-2
        expected = (run.field(x + shift, physical=True) - run.field(x - shift, physical=True))[:, 0] / 2e-2
        np.testing.assert_allclose(slopes[:, axis], expected, atol=2e-3, rtol=2e-2)
    assert math.isfinite(float(run.field.laplacian(x).sum()))


def test_options_of_a_run_say_what_was_built(tmp_path) -> None:
    signal = signal_of(waves(30, 30))
    fitted = Tiles.fitted(TilesOptions(parameters=6000), signal)
    again = Tiles.fitted(fitted, signal)
    assert dataclasses.asdict(fitted) == dataclasses.asdict(again)


@pytest.mark.parametrize("each", ["siren", "wire", "mfn-gabor", "fourier-features"])
def test_a_field_of_many_tiles_loads_as_it_was_saved(tmp_path, each: str) -> None:
    values = waves(96, 96).astype(np.float32)[..., 0]
    run = inrkit.fit(values, network={"name": "tiles", "counts": [12, 12], "each": {"name": each}}, steps=2, **TRAINED)
    run.field.save(tmp_path / "field.safetensors")
    assert np.array_equal(inrkit.load(tmp_path / "field.safetensors").render(), run.field.render())


@pytest.mark.parametrize("survival", ["top", "proportional"])
def test_evos_of_tiles_keeps_the_promises_of_selectors(survival: str) -> None:
    class Ours(EvosOfTiles):
        """EVOS on tiles."""

        Options = EvosOptions

        def __init__(self, options, *more) -> None:
            super().__init__(dataclasses.replace(options, survival=survival), *more)

    check_selector(Ours)


def tile_selector(**options) -> EvosOfTiles:
    signal = signal_of(waves(40, 40))
    layout = TileLayout(tiled(signal, Tiling((40, 40), (10, 10), 1.0)), 100)
    return EvosOfTiles(EvosOptions(ratio=0.2, **options), 100, layout, 0, torch.device("cpu"))


def selections(selector: EvosOfTiles, steps: int, error: torch.Tensor) -> list[torch.Tensor]:
    taken = []
    for step in range(1, steps + 1):
        progress = Progress(step, steps)
        selection = selector.select(progress)
        selector.observe(progress, selection, Residuals(error[selection.indices], error[selection.indices]))
        taken.append(selection.indices)
    return taken


def test_every_tile_is_visited_before_any_is_ranked() -> None:
    first = selections(tile_selector(), 5, torch.ones(100))
    assert len(torch.cat(first).unique()) == 100


def test_the_fittest_tiles_survive_beside_mutants() -> None:
    error = torch.zeros(100)
    error[40:50] = torch.arange(1.0, 11.0)
    taken = selections(tile_selector(mutation_start=0.5), 200, error)
    assert all(set(range(40, 50)) <= set(each.tolist()) for each in taken[8:])
    visits = torch.bincount(torch.cat(taken[8:]), minlength=100).double()
    others = torch.cat([visits[:40], visits[50:]])
    expected = 192 * 10 / 90
    assert abs(others.mean() - expected) < 1e-9 and others.min() > expected / 3


def test_proportional_survival_draws_in_proportion_to_the_errors() -> None:
    error = torch.ones(100)
    error[:10] = 3.0
    taken = selections(tile_selector(survival="proportional", mutation_start=0.25), 3000, error)
    visits = torch.bincount(torch.cat(taken[8:]), minlength=100).double()
    shares = 0.75 * error / error.mean() + 0.25
    # Small draws without replacement follow the shares a little less than they say.
    assert 0.75 * shares[0] / shares[-1] < visits[:10].mean() / visits[10:].mean() < shares[0] / shares[-1]


@pytest.mark.parametrize("shape, points", [((40,), 40), ((24, 30), 200), ((9, 10, 11), 400), ((1, 40, 2), 60)])
def test_a_tiles_response_is_that_of_its_points_laplacian(shape, points) -> None:
    view = tiled(signal_of(waves(*shape)), Tiling(shape, [1] * len(shape), 1.0))
    plan = view.begin(points, 0.0, torch.Generator().manual_seed(0))
    lengths = [len(cells) for cells in plan.cells]
    errors = torch.randn(3, math.prod(lengths), 2, dtype=torch.float64)
    wide = [axis for axis, length in enumerate(lengths) if length > 2]
    inner = tuple(slice(1, -1) if axis in wide else slice(None) for axis in range(len(lengths)))
    stencil = np.zeros([3 if axis in wide else 1 for axis in range(len(lengths))])
    middle = [1 if axis in wide else 0 for axis in range(len(lengths))]
    for axis in wide:
        for place in (0, 1, 2):
            stencil[tuple(place if other == axis else at for other, at in enumerate(middle))] += (1, -2, 1)[place]
    expected = []
    for tile in errors.view(3, *lengths, 2).numpy():
        responses = [correlate(tile[..., c], stencil)[inner] for c in range(2)]
        expected.append(np.mean(np.square(responses)))
    np.testing.assert_allclose(view.response(plan, errors).numpy(), expected, rtol=1e-9)


def test_tiles_whose_errors_are_rough_survive_the_crossover() -> None:
    rough = torch.zeros(100)
    rough[20:24] = 5.0
    for options in ({}, {"crossover": "add"}, {"survival": "proportional", "mutation_start": 0.01}):
        selector = tile_selector(high_frequency_weight=1.0, **options)
        assert selector.needs_response
        for step in range(1, 30):
            progress = Progress(step, 30)
            selection = selector.select(progress)
            even = torch.full((len(selection.indices),), 1e-3)
            selector.observe(progress, selection, Residuals(even, even, response=rough[selection.indices]))
        assert {20, 21, 22, 23} <= set(selector.select(Progress(30, 30)).indices.tolist())
    assert not tile_selector(crossover="none").needs_response


@pytest.mark.parametrize(("shape", "counts"), [((400,), [8]), ((48, 48), [3, 3]), ((20, 20, 20), [2, 2, 2])])
def test_a_fitted_field_has_no_seams(shape, counts) -> None:
    cells = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    dataset = CoordinateDataset(np.sin(0.5 * cells).sum(axis=-1, keepdims=True).astype(np.float32))
    network = {"name": "tiles", "counts": counts, "between": 0.5}
    run = inrkit.fit(dataset, network=network, steps=400, **{**TRAINED, "selector": {"name": "full"}})
    places = np.arange(1, 2 * shape[0]) / 2
    points = np.zeros((len(places), len(shape)))
    points[:, 0] = 2 * places / shape[0] - 1
    found = run.field(points)[:, 0].astype(np.float64)
    borders = np.arange(1, counts[0]) * shape[0] / counts[0]
    expected = np.sin(0.5 * (places - 0.5))
    for order in (1, 2):  # steps of the values, and of the slopes, half a cell apart
        middles = (places[order:] + places[:-order]) / 2
        near = (np.abs(middles[:, None] - borders) < 1.5).any(axis=1)
        error = np.abs(np.diff(found, order) - np.diff(expected, order))
        assert error[near].mean() < 2 * error[~near].mean()


@pytest.mark.parametrize(("lattice", "counts", "overlap"), TILINGS)
def test_a_window_of_tiles_is_the_tiling_there(lattice, counts, overlap) -> None:
    whole = Tiling(lattice, counts, overlap)
    window = [(count // 3, count) for count in counts]
    part = Tiling(lattice, counts, overlap, window)
    numbers = torch.arange(len(whole)).view(counts)[tuple(slice(*each) for each in window)].reshape(-1)
    assert len(part) == len(numbers)
    assert torch.equal(part.origins(torch.arange(len(part))), whole.origins(numbers))
    low = [first * length // count + overlap for (first, _), length, count in zip(window, lattice, counts, strict=True)]
    places = torch.rand(500, len(lattice), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    places = torch.tensor(low) + places * (torch.tensor(lattice) - torch.tensor(low))
    one, other = whole.cover(places), part.cover(places)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], numbers[other[1]])
    assert torch.equal(one[2], other[2])


def test_a_place_outside_a_window_belongs_to_its_nearest_tile() -> None:
    part = Tiling((30, 20), (3, 2), 1.0, [(1, 2), (1, 2)])
    place, tile, share = part.cover(torch.tensor([[2.0, 3.0], [29.0, 19.0], [15.0, 15.0]], dtype=torch.float64))
    assert place.tolist() == [0, 1, 2]
    assert tile.tolist() == [0, 0, 0]
    assert share.tolist() == [1, 1, 1]


def test_machine_code_blends_a_window_as_torch_does() -> None:
    options = TilesOptions(lattice=[60, 40], counts=[4, 3], window=[1, 3, 0, 2])
    network = Tiles(options, 2, 3)
    if network.kernel is None:
        pytest.skip("no C compiler")
    torch.nn.init.normal_(network.means)
    points = torch.rand(400, 2, dtype=torch.float64) * 2 - 1
    with torch.inference_mode():
        compiled = network(points)
    assert torch.allclose(compiled, network(points), atol=1e-5)


@pytest.mark.parametrize("slot", [-2, 3, 1 << 40])
def test_a_field_whose_slots_are_no_rows_is_refused(tmp_path, slot: int) -> None:
    rng = np.random.default_rng(0)
    run = inrkit.fit(
        rng.random((30, 30, 1), dtype=np.float32), out=tmp_path / "run", steps=1, network={"counts": [3, 1]}
    )
    state = run.field.network.state_dict()
    write_field(tmp_path / "evil.safetensors", run.field.description(), {**state, "slots": torch.tensor([0, 1, slot])})
    with pytest.raises(DataError, match="damaged"):
        inrkit.load(tmp_path / "evil.safetensors")


def test_ctrl_c_does_not_reach_the_compiler_of_machine_code(tmp_path, monkeypatch):
    """A terminal sends it to all processes of its session; without the compiler's work the fit would end otherwise."""
    told = tmp_path / "told"
    (tmp_path / "cc.py").write_text(f"import os; open({str(told)!r}, 'w').write(str(os.getsid(0))); exit(1)")
    monkeypatch.setenv("CC", f"{sys.executable} {tmp_path / 'cc.py'}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(subprocess.CalledProcessError):
        _compiled()
    assert int(told.read_text()) != os.getsid(0)
