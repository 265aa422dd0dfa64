import numpy as np
import pytest
import torch

from inrkit import CoordinateDataset, DataError
from inrkit.signals.lattice import cell_affine, lattice_coordinates
from inrkit.signals.transforms import MinMax, MinMaxOptions


@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 1, 4), (2, 3, 2, 5)])
def test_lattice_coordinates_are_the_cell_centres_of_the_meshgrid(shape):
    axes = [(np.arange(n) + 0.5) / n * 2 - 1 for n in shape]
    expected = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(shape))
    coordinates = lattice_coordinates(torch.arange(len(expected)), shape)
    np.testing.assert_allclose(coordinates.numpy(), expected, atol=1e-7)


def test_coordinates_of_some_indices_equal_those_rows_of_all():
    dataset = CoordinateDataset(np.zeros((6, 5, 2)))
    indices = torch.tensor([29, 0, 13])
    assert torch.equal(dataset.coordinates(indices), dataset.coordinates(slice(0, 30))[indices])


def test_neighbouring_coordinates_of_a_long_signal_stay_distinct():
    count = 1 << 22
    coordinates = lattice_coordinates(torch.arange(count - 1000, count), (count,))
    assert len(coordinates.unique()) == 1000


def test_cell_affine_maps_coordinates_to_indices():
    shape = (4, 7)
    affine = cell_affine(shape)
    indices = np.array(list(np.ndindex(shape)))
    coordinates = lattice_coordinates(torch.arange(28), shape).numpy()
    np.testing.assert_allclose(coordinates @ affine[:, :2].T + affine[:, 2], indices, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64"])
def test_stored_values_come_back_as_the_numbers_that_they_were(dtype):
    values = (np.arange(24) % 2 if dtype == "bool" else np.arange(24)).astype(dtype).reshape(4, 3, 2)
    if dtype == "uint16":
        values[0, 0] = 65535
    dataset = CoordinateDataset(values)
    assert dataset.stored(slice(0, 12)).tolist() == values.reshape(-1, 2).astype(float).tolist()
    assert dataset.stored(torch.tensor([3])).tolist() == [values.reshape(-1, 2)[3].astype(float).tolist()]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", ">u2"])
def test_any_byte_order_and_width_is_read(dtype):
    values = np.arange(12, dtype=dtype).reshape(3, 4, 1)
    assert CoordinateDataset(values).stored(slice(0, 12))[:, 0].tolist() == list(range(12))


def test_values_stay_in_their_dtype_and_memory(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(60, dtype=np.uint8).reshape(5, 4, 3))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="c")
    dataset = CoordinateDataset(mapped)
    assert dataset.values.dtype == torch.uint8
    assert dataset.values.data_ptr() == mapped.ctypes.data


def test_a_value_that_is_not_finite_is_named_by_its_place():
    values = np.zeros((4, 5, 1))
    values[2, 3] = np.nan
    with pytest.raises(DataError, match=r"index \(2, 3\) is NaN or infinite"):
        _ = CoordinateDataset(values).extent


@pytest.mark.parametrize(
    "values",
    [np.zeros((0, 3, 1)), np.zeros((3, 3, 0)), np.zeros(4), np.zeros((2, 2, 1), complex), np.array([["a"]])],
)
def test_what_is_no_signal_is_refused(values):
    with pytest.raises(DataError, match="expected"):
        CoordinateDataset(values)


def test_eight_bits_map_by_dtype_and_the_rest_by_what_is_present():
    options = MinMaxOptions()
    eight = MinMax.fit(options, CoordinateDataset(np.array([[[10], [20]]], np.uint8)))
    sixteen = MinMax.fit(options, CoordinateDataset(np.array([[[10], [20]]], np.uint16)))
    assert (eight.low, eight.high) == (0, 255)
    assert (sixteen.low, sixteen.high) == (10, 20)


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_a_constant_signal_survives_its_transform(value):
    dataset = CoordinateDataset(np.full((3, 3, 1), value))
    transform = MinMax.fit(MinMaxOptions(), dataset)
    encoded = transform.encode(dataset.stored(slice(0, 9)))
    assert torch.isfinite(encoded).all()
    assert torch.equal(transform.decode(encoded), dataset.stored(slice(0, 9)))


def test_weights_spread_over_the_lattice_with_mean_one():
    dataset = CoordinateDataset(np.zeros((3, 4, 1)), weights=np.array([[1.0], [2.0], [3.0]]))
    expected = np.repeat([0.5, 1.0, 1.5], 4)
    np.testing.assert_allclose(dataset.weights_of(slice(0, 12)).numpy(), expected)
    np.testing.assert_allclose(dataset.weights_of(torch.tensor([11, 0])).numpy(), [1.5, 0.5])
    assert CoordinateDataset(np.zeros((3, 4, 1))).weights_of(slice(0, 12)) is None


@pytest.mark.parametrize("weights", [np.ones(5), np.zeros(4), np.array([1.0, -1, 1, 1]), np.full(4, np.nan)])
def test_weights_that_cannot_be_are_refused(weights):
    with pytest.raises(DataError, match="weights"):
        CoordinateDataset(np.zeros((3, 4, 1)), weights=weights)


def test_points_are_drawn_anew_round_by_round():
    def resample(number):
        random = np.random.default_rng(number)
        return random.uniform(-1, 1, (5, 2)), np.full((5, 1), float(number))

    points, values = resample(0)
    dataset = CoordinateDataset(values, points=points, resample=resample, resample_every=10)
    dataset.advance(3)
    np.testing.assert_allclose(dataset.coordinates(slice(0, 5)).numpy(), resample(3)[0].astype(np.float32))
    assert dataset.stored(slice(0, 5)).unique().tolist() == [3.0]
