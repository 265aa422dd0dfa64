import itertools

import numpy as np
import pytest
import torch

from inrkit import OPERATORS, ConfigError, CoordinateDataset
from inrkit.signals.operators import (
    GraphLaplacian,
    GraphLaplacianOptions,
    LaplacianOptions,
    LatticeLaplacian,
)
from inrkit.signals.signal import Signal

SHAPES = [(9,), (1,), (5, 7), (1, 6), (4, 3, 5), (2, 3, 1, 4)]


def plain_laplacian(field: np.ndarray) -> np.ndarray:
    """The definition: neighbours along every axis less twice the centre, zero outside."""
    result = np.zeros_like(field)
    for place in itertools.product(*map(range, field.shape)):
        for axis in range(field.ndim):
            result[place] -= 2 * field[place]
            for offset in (-1, 1):
                other = list(place)
                other[axis] += offset
                if 0 <= other[axis] < field.shape[axis]:
                    result[place] += field[tuple(other)]
    return result


def laplacian(shape: tuple[int, ...]) -> LatticeLaplacian:
    return LatticeLaplacian(LaplacianOptions(), Signal(CoordinateDataset(np.zeros((*shape, 1)))))


@pytest.mark.parametrize("shape", SHAPES)
def test_laplacian_equals_its_plain_definition(shape):
    field = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    response = laplacian(shape).response(torch.from_numpy(field).reshape(-1))
    np.testing.assert_allclose(response.numpy(), plain_laplacian(field).reshape(-1), atol=1e-5)


def test_the_kernels_are_those_of_the_paper():
    impulse = torch.zeros(5)
    impulse[2] = 1
    assert laplacian((5,)).response(impulse).tolist() == [0, 1, -2, 1, 0]
    impulse = torch.zeros(9)
    impulse[4] = 1
    assert laplacian((3, 3)).response(impulse).tolist() == [0, 1, 0, 1, -4, 1, 0, 1, 0]


@pytest.mark.parametrize("shape", SHAPES)
def test_response_of_a_subset_equals_those_entries_of_the_whole(shape):
    operator = laplacian(shape)
    generator = torch.Generator().manual_seed(1)
    field = torch.randn(int(np.prod(shape)), generator=generator)
    indices = torch.randperm(len(field), generator=generator)[: max(1, len(field) // 2)]
    torch.testing.assert_close(operator.response_at(field, indices), operator.response(field)[indices])


@pytest.mark.parametrize("name", OPERATORS.names())
def test_adjoint_satisfies_its_definition(name):
    shape = (4, 5)
    dataset = CoordinateDataset(np.zeros((*shape, 1)))
    operator = OPERATORS.get(name)(OPERATORS.get(name).Options(), Signal(dataset))
    generator = torch.Generator().manual_seed(2)
    one, other = torch.randn(2, 20, generator=generator)
    torch.testing.assert_close(operator.response(one) @ other, one @ operator.adjoint(other))
    indices = torch.randperm(20, generator=generator)[:7]
    scattered, scratch = torch.zeros(20), torch.zeros(20)
    scattered[indices] = one[:7]
    torch.testing.assert_close(operator.adjoint_at(one[:7], indices, scratch), operator.adjoint(scattered)[indices])
    assert not scratch.any()


def test_rows_taken_a_few_at_a_time_give_the_same(monkeypatch):
    operator = laplacian((6, 6))
    field, indices, scratch = torch.randn(36), torch.randperm(36)[:20], torch.zeros(36)
    whole = operator.response_at(field, indices), operator.adjoint_at(field[:20], indices, scratch)
    monkeypatch.setattr("inrkit.signals.operators._ROWS", 3)
    parts = operator.response_at(field, indices), operator.adjoint_at(field[:20], indices, scratch)
    torch.testing.assert_close(parts, whole)


def test_laplacian_of_free_points_is_refused_with_the_mend():
    dataset = CoordinateDataset(np.zeros((5, 1)), points=np.zeros((5, 3)))
    with pytest.raises(ConfigError, match="choose operator=none"):
        LatticeLaplacian(LaplacianOptions(), Signal(dataset))


@pytest.mark.parametrize("periodic", [[0], [1], [0, 1]])
def test_a_periodic_axis_closes_the_lattice(periodic):
    shape = (5, 6)
    dataset = CoordinateDataset(np.zeros((*shape, 1)))
    operator = LatticeLaplacian(LaplacianOptions(periodic=periodic), Signal(dataset))
    field = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    padded = field
    for axis in range(2):
        width = [(1, 1) if other == axis else (0, 0) for other in range(2)]
        padded = np.pad(padded, width, mode="wrap" if axis in periodic else "constant")
    expected = plain_laplacian(padded)[1:-1, 1:-1].reshape(-1)
    values = torch.from_numpy(field).reshape(-1)
    np.testing.assert_allclose(operator.response(values).numpy(), expected, atol=1e-5)
    indices = torch.randperm(30)[:11]
    torch.testing.assert_close(operator.response_at(values, indices), operator.response(values)[indices])


def test_graph_laplacian_is_the_lattice_laplacian_inside_a_lattice():
    shape = (6, 6, 6)
    lattice = CoordinateDataset(np.zeros((*shape, 1)))
    points = CoordinateDataset(np.zeros((216, 1)), points=lattice.coordinates(slice(0, 216)).numpy())
    field = torch.randn(216)
    inside = np.zeros(shape, bool)
    inside[1:-1, 1:-1, 1:-1] = True
    inside = torch.from_numpy(inside.reshape(-1))
    graph = GraphLaplacian(GraphLaplacianOptions(neighbours=6), Signal(points))
    torch.testing.assert_close(graph.response(field)[inside], laplacian(shape).response(field)[inside])


def test_graph_laplacian_takes_few_points_and_equal_points():
    points = np.zeros((3, 2))
    operator = GraphLaplacian(
        GraphLaplacianOptions(neighbours=6), Signal(CoordinateDataset(np.zeros((3, 1)), points=points))
    )
    assert operator.response(torch.ones(3)).abs().max() < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_are_the_differences_to_the_neighbours(shape):
    values = np.random.default_rng(0).normal(size=(*shape, 2)).astype(np.float32)
    operator = LatticeLaplacian(LaplacianOptions(), Signal(CoordinateDataset(values, channel_weights=(0.25, 0.75))))
    weighted = values @ np.array([0.25, 0.75], dtype=np.float32)
    square = np.zeros(shape)
    for axis in range(len(shape)):
        step = np.diff(weighted, axis=axis) ** 2
        pad = [(0, 0)] * len(shape)
        square += np.pad(step, [*pad[:axis], (0, 1), *pad[axis + 1 :]])
        square += np.pad(step, [*pad[:axis], (1, 0), *pad[axis + 1 :]])
    np.testing.assert_allclose(operator.edges().numpy(), np.sqrt(square / 2).reshape(-1), atol=1e-5)


def test_edges_of_points_on_a_lattice_are_those_of_the_lattice():
    shape = (6, 7)
    values = np.random.default_rng(0).normal(size=(*shape, 1)).astype(np.float32)
    lattice = CoordinateDataset(values)
    points = (np.stack(np.mgrid[0:6, 0:7], axis=-1) / 10).reshape(-1, 2)
    free = CoordinateDataset(values.reshape(-1, 1), points=points)
    inside = np.zeros(shape, bool)
    inside[1:-1, 1:-1] = True
    graph = GraphLaplacian(GraphLaplacianOptions(neighbours=4), Signal(free))
    mask = torch.from_numpy(inside.reshape(-1))
    expected = LatticeLaplacian(LaplacianOptions(), Signal(lattice)).edges()
    torch.testing.assert_close(graph.edges()[mask], expected[mask])


def test_a_signal_without_neighbours_has_no_edges():
    operator = OPERATORS.get("none")(
        OPERATORS.get("none").Options(), Signal(CoordinateDataset(np.arange(5.0)[:, None]))
    )
    assert operator.edges().tolist() == [0] * 5
    assert not operator.neighbours(torch.arange(5))[1].any()


def test_neighbours_name_each_coordinate_beside():
    columns, real = laplacian((3, 4)).neighbours(torch.tensor([0, 5]))
    beside = [sorted(row[mask].tolist()) for row, mask in zip(columns, real, strict=True)]
    assert beside == [[1, 4], [1, 4, 6, 9]]


def test_response_within_everything_is_the_response():
    operator = laplacian((5, 7))
    field, order = torch.randn(35), torch.randperm(35)
    torch.testing.assert_close(operator.response_within(field[order], order), operator.response(field)[order])


@pytest.mark.parametrize("name", OPERATORS.names())
def test_response_within_a_part_takes_what_is_not_known_for_the_coordinates_own(name, monkeypatch):
    monkeypatch.setattr("inrkit.signals.operators._ROWS", 4)
    operator = OPERATORS.get(name)(OPERATORS.get(name).Options(), Signal(CoordinateDataset(np.zeros((4, 5, 1)))))
    generator = torch.Generator().manual_seed(0)
    field, part = torch.randn(20, generator=generator), torch.randperm(20, generator=generator)[:11]
    known = torch.zeros(20, dtype=torch.bool)
    known[part] = True
    for index, found in zip(part, operator.response_within(field[part], part), strict=True):
        filled = torch.where(known, field, field[index])
        torch.testing.assert_close(found, operator.response(filled)[index])


def test_free_points_are_placed_so_that_runs_hold_neighbours():
    points = np.random.default_rng(0).uniform(-1, 1, (4096, 2))
    operator = GraphLaplacian(GraphLaplacianOptions(), Signal(CoordinateDataset(np.zeros((4096, 1)), points=points)))
    assert operator.layout == (4096,)
    order = operator.placed(torch.arange(4096))
    assert sorted(order.tolist()) == list(range(4096))
    run = order[1024:1536]
    columns, real = operator.neighbours(run)
    assert torch.isin(columns[real], run).float().mean() > 0.8
