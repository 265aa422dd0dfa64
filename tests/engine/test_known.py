"""Signals of which a part is not known: it is not trained on, chosen, rated or seen."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import inrkit
from inrkit import METRICS, OPERATORS, SELECTORS, TRANSFORMS, CoordinateDataset, DataError, Listener
from inrkit.evaluation.evaluate import Crops, evaluate, left_out
from inrkit.plugins.options import field_names
from inrkit.runs.build import read_signal
from inrkit.runs.request import prepare
from inrkit.signals.neighbourhood import Neighbourhood
from inrkit.signals.operators import LaplacianOptions, LatticeLaplacian
from inrkit.signals.packing import unpacked
from inrkit.signals.signal import Signal
from inrkit.signals.spectrum import spectral_edges
from inrkit.training.loop import train

SHAPE = (14, 17)
KNOWN = np.ones(SHAPE, dtype=bool)
KNOWN[3:9, 5:12] = False
KNOWN[0, 0] = KNOWN[13, 3:] = False
ROWS, COLUMNS = np.nonzero(KNOWN)
SMALL = {"name": "siren", "hidden_features": 8, "hidden_layers": 1}


def picture(hole=np.nan, channels=1, shape=SHAPE):
    """(H, W, C) float32 noise, with something else where KNOWN is False."""
    values = np.random.default_rng(0).normal(size=(*shape, channels)).astype(np.float32)
    values[~KNOWN] = hole
    return values


def partly(hole=np.nan, channels=1, **arguments):
    return CoordinateDataset(picture(hole, channels), known=KNOWN, **arguments)


def laplacian(dataset, periodic=()):
    return LatticeLaplacian(LaplacianOptions(periodic=list(periodic)), Signal(dataset))


def request_of(selector, **more):
    plugin = SELECTORS.get(selector)
    small = {"ratio": 0.3, "least": 1, "interval_start": 4, "interval_end": 3}
    options = {key: value for key, value in small.items() if key in field_names(plugin.Options)}
    optimizer = {"name": "adam", "lr": 1e-3}
    return {"selector": {"name": selector, **options}, "network": SMALL, "optimizer": optimizer, "steps": 12} | more


def objectives_of(selector):
    return ["mse", "cross-frequency"] if SELECTORS.get(selector).visits_all else ["mse"]


CASES = [(selector, objective) for selector in SELECTORS.names() for objective in objectives_of(selector)]


# The dataset


@pytest.mark.parametrize("hole", [np.nan, 1e30, -np.inf])
def test_values_that_are_not_known_are_not_read(hole):
    dataset = partly(hole, channels=2)
    known = picture(channels=2)[KNOWN].astype(np.float64)
    assert dataset.extent == (known.min(), known.max())
    np.testing.assert_array_equal(torch.cat(list(dataset.chunks())).numpy(), known)
    np.testing.assert_array_equal(dataset.sample(10**6).numpy(), known.reshape(-1))
    assert set(dataset.sample(100).tolist()) <= set(known.reshape(-1).tolist())
    assert dataset.peak == known.max() - known.min()


@pytest.mark.parametrize("name", TRANSFORMS.names())
def test_a_transform_is_fitted_to_what_is_known(name):
    plugin = TRANSFORMS.get(name)
    alone = CoordinateDataset(picture()[KNOWN])
    found = plugin.fit(plugin.Options(), partly(1e30))
    assert found.state() == plugin.fit(plugin.Options(), alone).state()


def test_a_signal_counts_the_known_in_their_order():
    dataset = partly(channels=2, weights=np.arange(1.0, 15)[:, None])
    signal = Signal(dataset)
    assert len(signal) == KNOWN.sum() < len(dataset)
    everyone = torch.arange(len(signal))
    np.testing.assert_array_equal(signal.targets(everyone).numpy(), picture(channels=2)[KNOWN])
    np.testing.assert_array_equal(signal.targets(slice(3, 9)).numpy(), picture(channels=2)[KNOWN][3:9])
    places = np.stack([(2 * ROWS + 1) / 14 - 1, (2 * COLUMNS + 1) / 17 - 1], axis=1)
    np.testing.assert_allclose(signal.inputs(everyone).numpy(), places, atol=1e-6)
    expected = (ROWS + 1) / (ROWS + 1).mean()
    np.testing.assert_allclose(signal.weights_of(everyone).numpy(), expected, rtol=1e-6)


def test_where_everything_is_known_nothing_is_listed():
    dataset = CoordinateDataset(np.ones((4, 5, 1)), known=np.ones((4, 1), dtype=bool))
    assert dataset.known is None
    assert len(Signal(dataset)) == 20


def test_points_that_are_not_known_are_dropped():
    points, values = np.random.default_rng(0).uniform(-1, 1, (50, 3)), np.arange(50.0)[:, None]
    known = np.arange(50) % 3 > 0
    values[~known] = np.nan
    dataset = CoordinateDataset(values, points=points, known=known, weights=np.arange(1.0, 51))
    assert (len(dataset), dataset.known) == (33, None)
    np.testing.assert_array_equal(dataset.stored(slice(0, 33)).numpy(), values[known])
    np.testing.assert_allclose(dataset.points.numpy(), points[known], rtol=1e-6)
    expected = np.arange(1.0, 51)[known] / np.arange(1.0, 51)[known].mean()
    np.testing.assert_allclose(dataset.weights_of(slice(0, 33)).numpy(), expected, rtol=1e-6)


def test_less_of_a_signal_can_be_made_known():
    other = np.random.default_rng(1).random(SHAPE) > 0.4
    weights = np.arange(1.0, 15)[:, None]
    less = partly(weights=weights).only(other)
    expected = CoordinateDataset(picture(), known=KNOWN & other, weights=weights)
    assert torch.equal(less.known, expected.known)
    assert less.extent == expected.extent
    torch.testing.assert_close(less.weights, expected.weights)
    free = CoordinateDataset(np.arange(6.0)[:, None], points=np.zeros((6, 2))).only(np.arange(6) > 3)
    assert free.stored(slice(0, 2)).tolist() == [[4.0], [5.0]]


@pytest.mark.parametrize("known", [np.zeros(SHAPE, dtype=bool), np.ones((3, 3), dtype=bool)])
def test_a_signal_of_which_nothing_is_known_is_refused(known):
    with pytest.raises(DataError, match=r"no value is known|known has shape \(3, 3\)"):
        CoordinateDataset(picture(), known=known)


def test_a_value_that_is_no_number_is_an_error_where_it_is_known():
    values = picture()
    values[2, 3] = np.inf
    with pytest.raises(DataError, match=r"index \(2, 3\)"):
        _ = CoordinateDataset(values, known=KNOWN).extent


def test_slopes_are_one_sided_beside_a_hole():
    ramp = np.add.outer(np.arange(14.0) ** 2, 3 * np.arange(17.0))[..., None]
    ramp[~KNOWN] = np.nan
    signal = Signal(CoordinateDataset(ramp, known=KNOWN))
    slopes = signal.slopes(torch.arange(len(signal))).numpy()
    for (row, column), slope in zip(zip(ROWS, COLUMNS, strict=True), slopes, strict=True):
        for axis, here in enumerate((row, column)):
            beside = []
            for step in (-1, 1):
                place = [row, column]
                place[axis] += step
                inside = all(0 <= n < length for n, length in zip(place, SHAPE, strict=True))
                beside.append(here + step if inside and KNOWN[tuple(place)] else here)
            low, high = beside
            difference = high**2 - low**2 if axis == 0 else 3 * (high - low)
            expected = difference / ((high - low) * 2 / SHAPE[axis]) if high > low else 0.0
            assert slope[0, axis] == pytest.approx(expected, rel=1e-5)


# Neighbours


def test_the_nearest_coordinate_to_a_place_is_a_known_one():
    neighbourhood = Neighbourhood(partly())
    places = neighbourhood.coordinates(torch.arange(KNOWN.sum()))
    asked = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    distances = torch.cdist(asked, places)
    found = distances.gather(1, neighbourhood.nearest(asked)[:, None])[:, 0]
    cells = ((asked.numpy() + 1) / 2 * SHAPE).astype(int)
    inside_a_hole = ~KNOWN[cells[:, 0], cells[:, 1]]
    np.testing.assert_allclose(found[inside_a_hole], distances.min(dim=1).values[inside_a_hole], rtol=1e-5)
    assert torch.equal(neighbourhood.nearest(places), torch.arange(len(places)))
    assert neighbourhood.lattice is None
    assert neighbourhood.spacing == (2 / 14, 2 / 17)
    assert sorted(neighbourhood.order.tolist()) == list(range(len(places)))


@pytest.mark.parametrize("periodic", [(), (1,)])
def test_the_laplacian_does_not_reach_across_a_hole(periodic):
    operator = laplacian(partly(), periodic)
    field = torch.randn(len(ROWS), generator=torch.Generator().manual_seed(0))
    full = np.full(SHAPE, np.nan)
    full[KNOWN] = field.numpy()
    expected = []
    for row, column in zip(ROWS, COLUMNS, strict=True):
        total = 0.0
        for rows, columns in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            r, c = row + rows, column + columns
            c = c % 17 if 1 in periodic else c
            neighbour = full[r, c] if 0 <= r < 14 and 0 <= c < 17 else 0.0  # zero outside the lattice, as ever
            total += 0.0 if np.isnan(neighbour) else neighbour - full[row, column]
        expected.append(total)
    expected = torch.tensor(expected, dtype=torch.float32)
    everyone = torch.arange(len(field))
    some = everyone[::3]
    torch.testing.assert_close(operator.response(field), expected)
    torch.testing.assert_close(operator.response_at(field, some), expected[::3])
    torch.testing.assert_close(operator.response_within(field, everyone), expected)
    dense = torch.stack([operator.response(unit) for unit in torch.eye(len(field))], dim=1)
    torch.testing.assert_close(operator.adjoint(field), dense.T @ field)
    chosen = torch.zeros_like(field)
    chosen[some] = field[some]
    found = operator.adjoint_at(field[some], some, torch.zeros_like(field))
    torch.testing.assert_close(found, (dense.T @ chosen)[some])


@pytest.mark.parametrize("name", OPERATORS.names())
def test_an_operator_sees_nothing_of_what_is_not_known(name):
    plugin = OPERATORS.get(name)
    found = []
    for hole in (np.nan, 1e30):
        operator = plugin(plugin.Options(), Signal(partly(hole)))
        columns, _ = operator.rows(torch.arange(len(ROWS)))
        assert int(columns.max()) < len(ROWS)
        found.append(operator.edges())
    assert torch.equal(found[0], found[1])
    assert torch.isfinite(found[0]).all()


# Training


def seen_by(network, seen):
    """Collect all coordinates that pass through a network."""
    return network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))


@pytest.mark.parametrize(("selector", "objective"), CASES)
def test_no_selector_ever_selects_what_is_not_known(selector, objective):
    request = {**request_of(selector), "metrics": ["psnr"]}
    training = inrkit.trainer(partly(), modality="image", objective=objective, **request)
    seen, places = [], Signal(partly()).inputs(slice(None))
    with seen_by(training.member.network, seen):
        for step in training:
            indices = step.selection.indices
            assert 0 <= int(indices.min()) <= int(indices.max()) < len(places)
            assert len(indices.unique()) == len(indices)
    training.evaluate()
    passed = torch.cat(seen)
    assert (passed[:, None] == places).all(dim=-1).any(dim=1).all()


@pytest.mark.parametrize(("selector", "objective"), CASES)
def test_what_stands_where_nothing_is_known_changes_no_bit(selector, objective):
    found = []
    for hole in (np.nan, 0.0, 1e30):
        run = inrkit.fit(partly(hole), modality="image", objective=objective, **request_of(selector))
        assert run.result["coordinates"] == KNOWN.sum()
        found.append((run.field.render(), run.metrics))
    assert np.isfinite(found[0][0]).all()
    for rendered, metrics in found[1:]:
        np.testing.assert_array_equal(rendered, found[0][0])
        assert metrics == found[0][1]


def test_key_steps_in_parts_select_only_what_is_known():
    shape = (300, 310)
    known = np.random.default_rng(0).random(shape) > 0.4
    values = np.where(known, 0.5, np.nan).astype(np.float32)[..., None]
    selector = {"name": "evos", "ratio": 0.05, "interval_start": 3, "key_whole": 1000, "key_share": 0.5}
    for draw in ("random", "quasi-random"):
        training = inrkit.trainer(
            CoordinateDataset(values, known=known),
            modality="image",
            selector=selector | {"draw": draw},
            network=SMALL,
            steps=8,
            objective="mse",
            metrics=["psnr"],
        )
        for step in training:
            indices = step.selection.indices
            assert int(indices.max()) < known.sum()
            assert len(indices.unique()) == len(indices)


def test_a_smooth_picture_is_filled_in_where_it_is_not_known():
    rows, columns = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 30), indexing="ij")
    smooth = (np.sin(2 * rows) + rows * columns).astype(np.float32)[..., None]
    known = np.ones((24, 30), dtype=bool)
    known[9:14, 12:18] = False
    run = inrkit.fit(
        CoordinateDataset(np.where(known[..., None], smooth, 1e6).astype(np.float32), known=known),
        modality="image",
        network={"name": "siren", "hidden_features": 32, "hidden_layers": 1, "first_omega": 3.0, "hidden_omega": 3.0},
        selector="full",
        objective="mse",
        optimizer={"name": "adam", "lr": 2e-3},
        steps=600,
    )
    missed = np.abs(run.field.render() - smooth)
    span = smooth.max() - smooth.min()
    assert missed[known].max() < 0.1 * span
    assert missed[~known].max() < 0.1 * span


class StopAt(Listener):
    def __init__(self, step):
        self.step = step

    def on_step(self, member, selected):
        if member.step == self.step:
            member.stop()


@pytest.mark.parametrize(("selector", "objective"), CASES)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, selector, objective):
    np.save(tmp_path / "in.npy", picture())
    more = request_of(selector, objective=objective)
    whole = inrkit.fit(tmp_path / "in.npy", out=tmp_path / "whole", **more)
    parted = inrkit.fit(tmp_path / "in.npy", out=tmp_path / "parted", callbacks=[StopAt(6)], **more)
    assert parted.result["status"] == "interrupted"
    parted = inrkit.fit(tmp_path / "parted", resume=True)
    ours, theirs = (load_file(run.folder / "field.safetensors") for run in (parted, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert parted.metrics == whole.metrics


@pytest.mark.parametrize(("selector", "objective"), CASES)
def test_members_with_holes_end_stacked_as_alone(selector, objective):
    def members():
        made = []
        for share in (0.2, 0.5):
            known = np.random.default_rng(int(10 * share)).random(SHAPE) > share
            values = np.where(known[..., None], picture(0.0), np.nan)
            dataset = CoordinateDataset(values, known=known, weights=np.linspace(0.5, 1.5, 14)[:, None])
            made.append(inrkit.trainer(dataset, modality="image", objective=objective, **request_of(selector)).member)
        return made

    together, alone = members(), members()
    train(together)
    for one, other in zip(together, alone, strict=True):
        train([other])
        assert one.failure is None
        assert other.failure is None
        torch.testing.assert_close(one.network.state_dict(), other.network.state_dict(), atol=1e-5, rtol=1e-3)


# Evaluation


class Waves(torch.nn.Module):
    """Predicts waves; counts what it was asked for."""

    asked = 0

    def forward(self, coordinates):
        self.asked += len(coordinates)
        return (3 * coordinates).sin().sum(dim=-1, keepdim=True)


def signal_with_a_hole(shape=(60, 50), hole=np.nan, weights=None):
    known = np.ones(shape, dtype=bool)
    known[20:30, 10:22] = known[59, 49] = known[:, 40] = False
    values = np.random.default_rng(0).normal(size=(*shape, 1)).astype(np.float32)
    values[~known] = hole
    return Signal(CoordinateDataset(values, known=known, weights=weights)), values, known


def waves_over(shape):
    axes = [np.sin(3 * ((2 * np.arange(n) + 1) / n - 1)) for n in shape]
    return np.add.outer(*axes)[..., None].astype(np.float32)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hole", [np.nan, 1e30])
def test_psnr_is_over_the_known(hole, weighted):
    weights = np.linspace(0.2, 3, 60)[:, None] if weighted else None
    signal, values, known = signal_with_a_hole(hole=hole, weights=weights)
    network = Waves()
    squares = (waves_over(values.shape[:2]) - values)[known].astype(np.float64) ** 2
    counts = None if weights is None else np.broadcast_to(weights, known.shape)[known]
    peak = float(values[known].max()) - float(values[known].min())
    expected = 10 * math.log10(peak**2 / np.average(squares[:, 0], weights=counts))
    found = evaluate(network, signal, ["psnr", "ms_ssim"], 700)
    assert found == {"psnr": pytest.approx(expected, abs=1e-4)}
    assert network.asked == known.sum()


def test_ssim_is_over_the_pixels_whose_window_sees_no_hole():
    from torchmetrics.functional.image import structural_similarity_index_measure

    signal, values, known = signal_with_a_hole()
    peak = float(values[known].max()) - float(values[known].min())
    prediction = waves_over(values.shape[:2])
    filled = np.where(known[..., None], values, 0.3)
    images = [torch.from_numpy(one.astype(np.float32)).movedim(-1, 0)[None] for one in (prediction, filled)]
    _, rated = structural_similarity_index_measure(*images, data_range=peak, return_full_image=True)
    seen = np.array([[known[max(0, r - 5) : r + 6, max(0, c - 5) : c + 6].all() for c in range(50)] for r in range(60)])
    assert 0 < seen.sum() < known.sum()
    expected = rated[0, 0].numpy()[seen].mean()
    assert evaluate(Waves(), signal, ["ssim"], 700)["ssim"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_slabs_of_a_signal_with_holes_are_rated_as_the_whole(name):
    _, values, known = signal_with_a_hole(hole=0.0)
    target, prediction = torch.from_numpy(values), torch.from_numpy(waves_over(values.shape[:2]))
    ratings = []
    for rows in (60, 7, 3, 1):
        metric = METRICS.get(name)((60, 50), 1, 2.0)
        for start in range(0, 60, rows):
            part = slice(start, start + rows)
            metric.update_known(prediction[part], target[part], None, torch.from_numpy(known)[part])
        ratings.append(metric.compute())
    assert ratings == pytest.approx([ratings[0]] * 4, rel=1e-5)


def test_a_metric_of_which_nothing_can_be_rated_is_undefined():
    for name in ("psnr", "ssim"):
        metric = METRICS.get(name)((20, 20), 1, 2.0)
        metric.update_known(torch.zeros(20, 20, 1), torch.zeros(20, 20, 1), None, torch.zeros(20, 20, dtype=torch.bool))
        assert metric.compute() is None


def test_crops_of_a_signal_lie_where_something_is_known():
    known = np.zeros((400, 500), dtype=bool)
    known[250:330, 100:180] = True
    values = np.where(known, 0.25, np.nan).astype(np.float32)[..., None]
    dataset = CoordinateDataset(values, known=known)
    crops = Crops(dataset, 4000)
    inside = dataset.places(crops.indices(slice(0, len(crops))))[1]
    assert len(crops) <= 4000
    assert inside.float().mean() > 0.4  # and 0.032 of the whole signal
    found = evaluate(Waves(), Signal(dataset), ["psnr"], 1000, most=4000)
    assert math.isfinite(found["psnr"])


# What is told of the signal


def test_a_field_says_where_it_filled_in_and_the_result_how_much_was_known(tmp_path):
    run = inrkit.fit(partly(), modality="array", network=SMALL, steps=2, out=tmp_path / "run")
    assert run.result["coordinates"] == KNOWN.sum()
    filled = unpacked(inrkit.load(tmp_path / "run").metadata["filled"], SHAPE)
    np.testing.assert_array_equal(filled, ~KNOWN)
    whole = inrkit.fit(CoordinateDataset(picture(0.0)), modality="array", network=SMALL, steps=2)
    assert "filled" not in whole.field.metadata


def test_a_person_is_told_how_much_is_not_known(capsys):
    inrkit.fit(partly(), modality="array", network=SMALL, steps=2, quiet=False)
    assert f"238 coordinates (14×17), {(~KNOWN).sum()} of them not known" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.complex64])
@pytest.mark.parametrize("channels", [0, 3])
def test_what_a_mask_of_numpys_hides_is_not_known(dtype, channels):
    shape = (*SHAPE, channels) if channels else SHAPE
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    hidden = np.zeros(shape, dtype=bool)
    hidden[(~KNOWN, 0) if channels else ~KNOWN] = True
    found = []
    for hole in (1, 127):
        array[hidden] = hole
        run = inrkit.fit(np.ma.MaskedArray(array, hidden), network=SMALL, steps=3)
        assert run.result["coordinates"] == KNOWN.sum()
        found.append(run.field.render())
    np.testing.assert_array_equal(*found)


def test_masked_values_of_scattered_samples_are_left_out():
    points, values = np.random.default_rng(0).uniform(0, 9, (60, 2)), np.arange(60.0)
    hidden = np.arange(60) % 4 == 0
    masked = inrkit.fit(points=points, values=np.ma.MaskedArray(values, hidden), network=SMALL, steps=3)
    expected = inrkit.fit(points=points[~hidden], values=values[~hidden], network=SMALL, steps=3)
    assert masked.result["coordinates"] == 45
    np.testing.assert_array_equal(masked.field.render((5, 5)), expected.field.render((5, 5)))


def test_an_array_that_is_all_masked_is_refused():
    with pytest.raises(DataError, match="all of the masked array is masked"):
        inrkit.fit(np.ma.masked_all((12, 12)))


# Neighbours that are not a lattice's own


def graph(known, neighbours):
    dataset = CoordinateDataset(np.zeros((*known.shape, 1), dtype=np.float32), known=known)
    plugin = OPERATORS.get("graph-laplacian")
    columns, _ = plugin(plugin.Options(neighbours=neighbours), Signal(dataset)).rows(torch.arange(int(known.sum())))
    cells = np.argwhere(known)
    return [[tuple(cells[other]) for other in row if other != own] for own, row in enumerate(columns.tolist())], cells


@pytest.mark.parametrize("neighbours", [4, 6, 8, 12])
@pytest.mark.parametrize("wall", ["straight", "slanted", "thick"])
def test_a_graph_s_neighbours_are_on_the_same_side_of_a_hole(neighbours, wall):
    rows, columns = np.mgrid[:12, :12]
    side = (columns > 5 if wall == "straight" else rows + columns > 11 if wall == "slanted" else columns > 7).astype(
        int
    )
    known = {"straight": columns != 5, "slanted": rows + columns != 11, "thick": (columns < 4) | (columns > 7)}[wall]
    found, cells = graph(known, neighbours)
    for cell, near in zip(cells, found, strict=True):
        assert near  # its own side has some
        assert {int(side[other]) for other in near} == {int(side[tuple(cell)])}


def test_a_graph_s_neighbours_around_a_hole_are_those_of_the_whole_lattice_less_what_is_hidden():
    known = np.ones((9, 9), dtype=bool)
    known[4, 4] = False
    found, cells = graph(known, 4)
    for cell, near in zip(cells, found, strict=True):
        around = {tuple(cell + step) for step in np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])}
        inside = {at for at in around if all(0 <= part < 9 for part in at)}
        if len(inside) == 4:
            assert set(near) == {at for at in inside if known[at]}


def test_a_graph_sees_no_response_across_a_hole():
    columns = np.arange(20)
    known = np.broadcast_to((columns < 8) | (columns > 11), (10, 20))
    values = np.where(columns < 10, 1.0, 5.0)[None, :, None].repeat(10, 0).astype(np.float32)
    signal = Signal(CoordinateDataset(values, known=known))
    plugin = OPERATORS.get("graph-laplacian")
    operator = plugin(plugin.Options(), signal)
    field = torch.from_numpy(values[known][:, 0])
    assert operator.response(field).abs().max() == 0


# Metrics


def test_metrics_that_need_all_of_a_signal_are_named():
    values = np.random.default_rng(0).random((200, 200, 1)).astype(np.float32)
    known = np.ones((200, 200), dtype=bool)
    known[50:60] = False
    names = ["psnr", "ssim", "ms_ssim", "snr"]
    assert left_out(names, CoordinateDataset(values, known=known)) == ["MS-SSIM"]
    assert left_out(names, CoordinateDataset(values)) == []
    sound = CoordinateDataset(values[0], known=known[:, 0])
    assert left_out(["snr", "si_sdr", "lsd", "pesq", "stoi"], sound) == ["PESQ", "STOI"]


def test_a_fit_says_which_metrics_are_left_out(tmp_path, capfd):
    values = np.random.default_rng(0).random((180, 180)).astype(np.float32)
    values[40:50] = np.nan
    np.save(tmp_path / "in.npy", values)
    run = inrkit.fit(tmp_path / "in.npy", out=tmp_path / "run", network=SMALL, steps=2, quiet=False)
    assert "note: MS-SSIM is left out: it is not defined where a part is not known" in capfd.readouterr().err
    assert "ms_ssim" not in run.metrics and "ssim" in run.metrics


# Weights from a file


def test_weights_are_read_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = np.linspace(1, 3, 14)[:, None]
    np.save("weights.npy", weights)
    np.save("in.npy", picture())
    more = request_of("evos", objective="mse", modality="image")
    given = inrkit.fit("in.npy", out="run", overrides=["data.weights=weights.npy"], **more)
    expected = inrkit.fit(partly(weights=weights), **more)
    np.testing.assert_array_equal(given.field.render()[..., None].squeeze(-1), expected.field.render())
    assert given.metrics == expected.metrics
    assert given.config.data.weights == str(tmp_path / "weights.npy")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "my.yaml").write_text("data: {path: ../in.npy, weights: ../weights.npy}")
    again = inrkit.fit("sub/my.yaml", out="again", **more)
    assert again.metrics == given.metrics


@pytest.mark.parametrize("kind", ["gray.png", "deep.png", "gray.tif", "colours.png"])
def test_weights_may_be_a_gray_picture(tmp_path, kind):
    levels = np.random.default_rng(5).integers(0, 200, SHAPE)
    np.save(tmp_path / "in.npy", picture())
    np.save(tmp_path / "weights.npy", levels)
    stored = levels.astype(np.uint16 if kind == "deep.png" else np.uint8)
    Image.fromarray(stored[..., None].repeat(3, 2) if kind == "colours.png" else stored).save(tmp_path / kind)
    more = request_of("evos", objective="mse", modality="image")
    runs = [
        inrkit.fit(tmp_path / "in.npy", out=tmp_path / name, overrides=[f"data.weights={tmp_path / file}"], **more)
        for name, file in (("a", "weights.npy"), ("b", kind))
    ]
    np.testing.assert_array_equal(*(run.field.render() for run in runs))


def test_weights_that_a_file_does_not_know_are_nought(tmp_path):
    levels = np.random.default_rng(5).random(SHAPE).astype(np.float32)
    levels[:3] = np.nan
    np.save(tmp_path / "in.npy", picture())
    Image.fromarray(levels).save(tmp_path / "weights.tif")
    config, _ = prepare(tmp_path / "in.npy", layers=[{"data": {"weights": str(tmp_path / "weights.tif")}}])
    dataset = read_signal(config).dataset
    known = np.nan_to_num(levels)
    np.testing.assert_allclose(dataset.weights, known / known[KNOWN].mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("stored", "name", "told"),
    [
        (np.ones((3, 3)), "weights.npy", r"weights\.npy: weights have shape \(3, 3\)"),
        (-np.ones(SHAPE), "weights.npy", r"weights\.npy: weights must be finite, not negative"),
        (np.ones(SHAPE, dtype="U1"), "weights.npy", r"the weights, is of dtype <U1; expected real numbers"),
        (np.ones(SHAPE), "other.npy", r"data\.weights is .*other\.npy, which is no file; give a \.npy"),
        (np.ones(SHAPE), "words.txt", r"data\.weights is .*words\.txt, which no modality reads; give a \.npy"),
        (np.ones(SHAPE), "damaged.png", r"damaged\.png is not an image that Pillow can read"),
        (np.ones(SHAPE), "colours.png", r"colours\.png, the weights, is .*3 channels uint8\); give one channel"),
        (np.ones(SHAPE), "small.png", r"small\.png: weights have shape \(4, 4\)"),
    ],
)
def test_weights_that_cannot_be_used_are_a_one_line_error(tmp_path, stored, name, told):
    np.save(tmp_path / "weights.npy", stored)
    np.save(tmp_path / "in.npy", picture())
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    (tmp_path / "words.txt").write_text("no numbers")
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (*SHAPE, 3), dtype=np.uint8)).save(tmp_path / "colours.png")
    Image.new("L", (4, 4), 3).save(tmp_path / "small.png")
    with pytest.raises(DataError, match=told):
        inrkit.fit(tmp_path / "in.npy", steps=2, overrides=[f"data.weights={tmp_path / name}"])


# Frequencies


def test_the_spectrum_is_that_of_the_known():
    along = np.arange(4000)
    tone = np.sin(2 * np.pi * along / 40)
    known = (along % 500) < 430
    omega = math.pi * 4000 / 40
    values = np.where(known, tone, np.nan)[:, None]
    (found,) = spectral_edges(Signal(CoordinateDataset(values, known=known)), 0.5)
    assert found == pytest.approx(omega, rel=0.02)


@pytest.mark.parametrize("shape", [(90, 70), (8, 9, 10), (5000,)])
def test_the_spectrum_is_finite_wherever_little_is_known(shape):
    known = np.random.default_rng(0).random(shape) > 0.97
    values = np.where(known, np.random.default_rng(1).normal(size=shape), np.nan)[..., None]
    edges = spectral_edges(Signal(CoordinateDataset(values, known=known)), 0.5)
    assert all(0 <= edge <= math.pi * length / 2 for edge, length in zip(edges, shape, strict=True))
    assert max(edges) > 0


def test_tiles_know_which_of_them_hold_a_cell():
    from inrkit.selectors.draws.tiles import Tiles

    for shape, size in itertools.product([(7,), (11, 13), (4, 5, 9)], [1, 3, 8, 50]):
        tiles = Tiles(shape, size)
        for number in range(len(tiles)):
            cells = tiles.cells(torch.tensor([number]))
            assert (tiles.numbers_of(cells) == number).all()
