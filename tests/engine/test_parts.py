import numpy as np
import pytest
import torch

from inrkit.errors import DataError
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.parts import Part
from inrkit.signals.signal import Signal
from inrkit.signals.tiled import tiled
from inrkit.signals.tiling import Tiling

LATTICE, COUNTS, WINDOW = (90, 70), (7, 5), [(2, 5), (1, 4)]
START = [first * length // count for (first, _), length, count in zip(WINDOW, LATTICE, COUNTS, strict=True)]
STOP = [stop * length // count for (_, stop), length, count in zip(WINDOW, LATTICE, COUNTS, strict=True)]
BOX = tuple(slice(*each) for each in zip(START, STOP, strict=True))
INSIDE = np.arange(90 * 70).reshape(LATTICE)[BOX].reshape(-1)


def whole(dtype: str = "float32", **more) -> CoordinateDataset:
    values = np.random.default_rng(0).normal(100, 20, (*LATTICE, 2)).astype(dtype)
    return CoordinateDataset(values, **more)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float32", ">f4", "bool"])
def test_a_part_has_the_values_and_coordinates_of_the_whole(dtype: str) -> None:
    dataset = whole(dtype)
    part = Part(dataset, START, STOP)
    indices = torch.from_numpy(INSIDE)
    assert part.dtype == dataset.dtype
    assert torch.equal(part.stored(slice(None)), dataset.stored(indices))
    for precision in (torch.float32, torch.float64):
        assert torch.equal(part.coordinates(slice(None), precision), dataset.coordinates(indices, precision))
    assert part.peak == dataset.peak


def test_a_parts_weights_and_known_cells_are_the_wholes() -> None:
    known = np.random.default_rng(1).random(LATTICE) < 0.3
    weights = np.random.default_rng(2).random(LATTICE)
    dataset = whole(known=known, weights=weights)
    part = Part(dataset, START, STOP)
    assert part.known is not None and dataset.weights is not None
    assert np.array_equal(part.known.numpy(), np.flatnonzero(known[BOX]))
    assert torch.equal(part.weights_of(slice(None)), dataset.weights_of(torch.from_numpy(INSIDE)))


def test_a_part_of_which_nothing_is_known_is_refused() -> None:
    known = np.ones(LATTICE, dtype=bool)
    known[BOX] = False
    with pytest.raises(DataError, match="no value is known"):
        Part(whole(known=known), START, STOP)


@pytest.mark.parametrize("between", [0.0, 1.0])
@pytest.mark.parametrize("holes", [False, True])
def test_tiles_see_of_a_part_what_they_see_of_the_whole(between: float, holes: bool) -> None:
    dataset = whole(known=np.random.default_rng(1).random(LATTICE) < 0.8 if holes else None)
    numbers = torch.arange(35).view(COUNTS)[tuple(slice(*each) for each in WINDOW)].reshape(-1)
    one = tiled(Signal(dataset), Tiling(LATTICE, COUNTS, 1.0))
    other = tiled(Signal(Part(dataset, START, STOP)), Tiling(LATTICE, COUNTS, 1.0, WINDOW))
    surveys = one.survey(), other.survey()
    assert torch.equal(surveys[0].means[numbers], surveys[1].means)
    assert torch.equal(surveys[0].spreads[numbers], surveys[1].spreads)
    for seed in range(4):
        visits = [
            view.visit(view.begin(60, between, torch.Generator().manual_seed(seed)), tiles)
            for view, tiles in ((one, numbers), (other, torch.arange(len(numbers))))
        ]
        assert torch.equal(visits[0].inputs, visits[1].inputs)
        assert torch.allclose(visits[0].targets, visits[1].targets, rtol=0, atol=1e-3 if between else 0)
        assert (visits[0].weights is None) == (visits[1].weights is None)
        if visits[0].weights is not None and visits[1].weights is not None:
            assert torch.equal(visits[0].weights, visits[1].weights)


def test_how_a_part_is_trained_does_not_depend_on_the_memory_at_hand(monkeypatch) -> None:
    monkeypatch.setattr("inrkit.signals.tiled.available_memory", lambda: 0)
    assert not tiled(Signal(whole()), Tiling(LATTICE, COUNTS, 1.0)).keeps_spline
    assert tiled(Signal(Part(whole(), START, STOP)), Tiling(LATTICE, COUNTS, 1.0, WINDOW)).keeps_spline


def test_a_tile_that_holds_nothing_has_the_mean_of_the_nearest_one() -> None:
    """Also where cells right beside it are known, of the same part or around it."""
    values = np.full((*LATTICE, 1), 5, dtype=np.float32)
    known = np.ones(LATTICE, dtype=bool)
    known[START[0] : START[0] + 13] = False  # the first row of tiles in the window, up to its borders
    dataset = CoordinateDataset(values, known=known)
    for signal, window in ((dataset, None), (Part(dataset, START, STOP), WINDOW)):
        means = tiled(Signal(signal), Tiling(LATTICE, COUNTS, 1.0, window)).survey().means
        assert torch.equal(means, torch.full_like(means, 5))
