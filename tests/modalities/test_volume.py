"""Volumes: what NumPy, tifffile and nibabel write is read as they read it, and what is written reads back."""

import gzip
import io
import subprocess
import sys
import zipfile

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image as Pillow

import inrkit
from inrkit import MODALITIES, ConfigError, DataError
from inrkit.signals import decoding
from inrkit.signals.modality import modality_of

QUICK = {"steps": 2, "network": {"hidden_features": 8, "hidden_layers": 1}}
OBLIQUE = np.array([[-2.0, 0.1, 0.3, 30], [0.2, 1.5, -0.4, -20], [0.1, 0.3, 3.0, 7], [0, 0, 0, 1]])


def volume(**options):
    plugin = MODALITIES.get("volume")
    return plugin(plugin.Options(**options))


def noise(*shape, dtype=np.float32):
    random = np.random.default_rng(0)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return random.random(shape) < 0.5
    info = np.iinfo(dtype)
    return random.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def known_in(dataset):
    """(*grid_shape) bool; True where a value is known."""
    known = np.zeros(dataset.grid_shape, dtype=bool)
    known.flat[slice(None) if dataset.known is None else dataset.known.numpy()] = True
    return known


def stored(dataset):
    """(*grid_shape, C) values of a dataset in the file's dtype."""
    return dataset.values.numpy().view(dataset.dtype).reshape(*dataset.grid_shape, dataset.channels)


def refused(path, *said, **options):
    with pytest.raises((DataError, ConfigError)) as error:
        volume(**options).read(path)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    for words in (str(path), *said):
        assert words in message


# NumPy


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple),
    dtype=st.sampled_from([np.bool_, np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]),
    suffix=st.sampled_from([".npy", ".npz"]),
    channels_last=st.booleans(),
    data=st.data(),
)
def test_arrays_of_one_to_five_dimensions_come_back_as_they_were(tmp_path, shape, dtype, suffix, channels_last, data):
    shape = (*shape, 2) if channels_last else shape
    array = data.draw(arrays.arrays(dtype, shape, elements={"allow_nan": False} if dtype().dtype.kind == "f" else None))
    path = tmp_path / f"array{suffix}"
    np.save(path, array) if suffix == ".npy" else np.savez(path, anything=array)
    reader = volume(channels_last=channels_last)
    dataset = reader.read(path)
    assert dataset.grid_shape == (shape[:-1] if channels_last else shape)
    assert dataset.dtype == array.dtype
    np.testing.assert_array_equal(stored(dataset).reshape(shape), array)
    again = tmp_path / f"again{suffix}"
    reader.write(again, stored(dataset), dataset.metadata)
    if suffix == ".npy":
        read_back = np.load(again)
    else:
        with np.load(again) as archive:
            read_back = archive["anything"]
    np.testing.assert_array_equal(read_back, array, strict=True)


@pytest.mark.parametrize(
    ("shape", "grid", "channels"),
    [
        ((7,), (7,), 1),
        ((6, 5), (6, 5), 1),
        ((6, 5, 3), (6, 5, 3), 1),
        ((6, 5, 4, 3), (6, 5, 4), 3),
        ((6, 5, 4, 5), (6, 5, 4, 5), 1),
        ((2, 3, 4, 5, 6, 2), (2, 3, 4, 5, 6), 2),
    ],
)
def test_a_short_last_axis_of_four_or_more_is_channels(tmp_path, shape, grid, channels):
    np.save(tmp_path / "array.npy", noise(*shape))
    dataset = volume().read(tmp_path / "array.npy")
    assert (dataset.grid_shape, dataset.channels) == (grid, channels)
    assert bool(dataset.metadata["notes"]) == (channels > 1)


def test_the_option_says_what_the_last_axis_is(tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, noise(6, 5, 4, 3))
    assert volume(channels_last=False).read(path).grid_shape == (6, 5, 4, 3)
    np.save(path, noise(6, 5, 9))
    assert volume(channels_last=True).read(path).channels == 9


def test_a_cifti_file_is_no_volume(tmp_path):
    axes = [nibabel.cifti2.SeriesAxis(0, 1, 4), nibabel.cifti2.ScalarAxis(["a", "b", "c"])]
    image = nibabel.Cifti2Image(np.zeros((4, 3), dtype=np.float32), nibabel.cifti2.Cifti2Header.from_axes(axes))
    nibabel.save(image, tmp_path / "numbers.dscalar.nii")
    with pytest.raises(DataError, match="is CIFTI, numbers of a surface's places and no volume"):
        volume().read(tmp_path / "numbers.dscalar.nii")


def test_a_memory_mapped_volume_far_larger_than_memory_is_read_at_once(tmp_path):
    path = tmp_path / "vast.npy"
    shape = (1 << 14, 1 << 14, 1 << 14)  # 4 TiB, of which the file system stores nothing
    try:
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)[5, 6, 7] = 9
    except OSError:
        pytest.skip("the file system has no sparse files of this size")
    dataset = volume().read(path)
    assert dataset.grid_shape == shape
    assert int(dataset.values[(5 * shape[1] + 6) * shape[2] + 7]) == 9
    assert modality_of(path) == "volume"


def test_a_memory_mapped_volume_is_fitted_and_left_as_it_was(tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, noise(12, 11, 10))
    before = path.read_bytes()
    run = inrkit.fit(path, out=tmp_path / "run", **QUICK)
    assert run.result["modality"] == "volume"
    assert np.load(run.reconstruction).shape == (12, 11, 10)
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", [".npz", ".tif", ".nii", ".nii.gz"])
def test_a_file_that_does_not_fit_in_memory_names_the_way_that_does(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"large{suffix}"
    array = noise(12, 11, 10)
    if suffix == ".tif":
        tifffile.imwrite(path, array, compression="zlib")
    else:
        volume().write(path, array[..., None], {"squeezed": True})
    monkeypatch.setattr("inrkit.signals.decoding.available_memory", lambda: array.nbytes - 1)
    refused(path, "memory", "save it as .npy")


def test_an_array_in_fortran_order_is_read_while_it_fits(tmp_path, monkeypatch):
    path = tmp_path / "turned.npy"
    array = noise(6, 5, 7)
    np.save(path, np.asfortranarray(array))
    np.testing.assert_array_equal(stored(volume().read(path))[..., 0], array)
    monkeypatch.setattr("inrkit.signals.decoding.available_memory", lambda: 10)
    refused(path, "memory", "C order")


def test_an_archive_of_several_arrays_asks_which(tmp_path):
    path = tmp_path / "several.npz"
    np.savez(path, density=noise(6, 5, 7), energy=noise(5, 5, 5))
    refused(path, "2 arrays", "modality.key=density|energy")
    refused(path, "no array 'mass'", "modality.key=density|energy", key="mass")
    assert volume(key="energy").read(path).grid_shape == (5, 5, 5)


# TIFF


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6, 7, 8), (3, 4, 5, 6), (6, 7, 8, 3), (6, 7, 8, 2), (6, 7, 8, 4)])
def test_a_tiff_stack_comes_back_as_it_was(tmp_path, dtype, shape):
    channels = shape[-1] if shape[-1] <= 4 and len(shape) > 3 else 1
    array = noise(*shape, dtype=dtype)
    path, again = tmp_path / "stack.tif", tmp_path / "again.tif"
    volume().write(path, array if channels > 1 else array[..., None], {"squeezed": channels == 1})
    np.testing.assert_array_equal(tifffile.imread(path), array)
    dataset = volume().read(path)
    assert (dataset.channels, dataset.dtype) == (channels, array.dtype)
    np.testing.assert_array_equal(stored(dataset).reshape(shape), array)
    assert volume().reconstruction_suffix(dataset.metadata, dataset.dtype) == ".tif"
    volume().write(again, stored(dataset), dataset.metadata)
    np.testing.assert_array_equal(tifffile.imread(again), array)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"bigtiff": True}, {"byteorder": ">"}, {"tile": (16, 16)}]
)
def test_however_a_tiff_stack_is_laid_out_its_values_are_the_same(tmp_path, options):
    array = noise(6, 7, 8, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", array, photometric="minisblack", **options)
    np.testing.assert_array_equal(stored(volume().read(tmp_path / "stack.tif"))[..., 0], array)


def test_the_channels_of_a_microscope_are_channels(tmp_path):
    array = noise(5, 2, 6, 7, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "cells.ome.tif", array, ome=True, metadata={"axes": "ZCYX"}, photometric="minisblack")
    dataset = volume().read(tmp_path / "cells.ome.tif")
    assert (dataset.grid_shape, dataset.channels) == ((5, 6, 7), 2)
    np.testing.assert_array_equal(stored(dataset), np.moveaxis(array, 1, -1))


IMAGEJ = {"imagej": True, "resolution": (1 / 0.2, 1 / 0.25)}
OME = {"PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}


@pytest.mark.parametrize(
    ("shape", "options", "axes", "spacing"),
    [
        ((5, 6, 7), {**IMAGEJ, "metadata": {"spacing": 1.5, "unit": "um", "axes": "ZYX"}}, "ZYX", [1.5, 0.25, 0.2]),
        (
            (2, 5, 6, 7),
            {**IMAGEJ, "metadata": {"spacing": 1.5, "unit": "micron", "finterval": 2.5, "axes": "TZYX"}},
            "TZYX",
            [2.5, 1.5, 0.25, 0.2],
        ),
        (
            (5, 2, 6, 7),
            {**IMAGEJ, "metadata": {"spacing": 1.5, "unit": "um", "axes": "ZCYX"}},
            "ZYX",
            [1.5, 0.25, 0.2],
        ),
        ((5, 6, 7), {"ome": True, "metadata": {**OME, "axes": "ZYX", "PhysicalSizeZ": 1.5}}, "ZYX", [1.5, 0.25, 0.2]),
        (
            (5, 2, 6, 7),
            {"ome": True, "metadata": {**OME, "axes": "TCYX", "TimeIncrement": 2.5}, "compression": "zlib"},
            "TYX",
            [2.5, 0.25, 0.2],
        ),
    ],
)
def test_the_axes_of_a_microscope_keep_their_names_and_steps(tmp_path, shape, options, axes, spacing):
    array = noise(*shape, dtype=np.uint16)
    path, again, finer = tmp_path / "cells.tif", tmp_path / "again.tif", tmp_path / "finer.tif"
    tifffile.imwrite(path, array, photometric="minisblack", **options)
    dataset = volume().read(path)
    assert "".join(dataset.metadata["axes"]) == axes
    centres = dataset.affine @ [*((3 - length) / length for length in dataset.grid_shape), 1]  # of the second cells
    np.testing.assert_allclose(centres, spacing, rtol=1e-6)
    assert dataset.metadata["axis_units"] == ["s" if name == "T" else "µm" for name in axes]
    volume().write(again, stored(dataset), dataset.metadata)
    np.testing.assert_array_equal(tifffile.imread(again), array)
    with tifffile.TiffFile(path) as one, tifffile.TiffFile(again) as other:
        assert (one.is_ome, one.is_imagej, one.series[0].axes) == (other.is_ome, other.is_imagej, other.series[0].axes)
    copy = volume().read(again)
    np.testing.assert_allclose(copy.affine, dataset.affine, rtol=1e-5)
    assert copy.metadata["axis_units"] == dataset.metadata["axis_units"]
    volume().write(finer, stored(dataset).repeat(2, axis=-2), dataset.metadata)
    np.testing.assert_allclose(volume().read(finer).metadata["spacing"], [*spacing[:-1], spacing[-1] / 2], rtol=1e-5)


def test_a_microscope_s_stack_becomes_a_scan_with_x_first_in_millimetres(tmp_path):
    array = noise(2, 5, 6, 7, dtype=np.uint16)
    tifffile.imwrite(
        tmp_path / "cells.tif",
        array,
        **IMAGEJ,
        metadata={"spacing": 1.5, "unit": "um", "finterval": 2.5, "axes": "TZYX"},
    )
    dataset = volume().read(tmp_path / "cells.tif")
    volume().write(tmp_path / "cells.nii", stored(dataset), dataset.metadata)
    scanned = nibabel.load(tmp_path / "cells.nii")
    np.testing.assert_array_equal(np.asarray(scanned.dataobj), array.T)
    np.testing.assert_allclose(scanned.affine, np.diag([2e-4, 2.5e-4, 1.5e-3, 1]), rtol=1e-6)
    assert scanned.header.get_zooms()[3] == 2.5


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_a_stack_cut_between_its_pages_is_not_read_as_a_shorter_one(tmp_path, share):
    path = tmp_path / "stack.tif"
    pages = [Pillow.fromarray(page) for page in noise(10, 64, 64, dtype=np.uint8)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert volume().read(path).grid_shape == (10, 64, 64)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(path)


# NIfTI


def scan(path, array, affine=OBLIQUE, step=None, **header):
    image = nibabel.Nifti1Image(array, affine, dtype=array.dtype)
    for key, value in header.items():
        image.header[key] = value
    if step is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], step))
        image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return nibabel.load(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_a_scan_comes_back_with_its_values_and_its_affine(tmp_path, suffix, dtype):
    array = noise(6, 7, 8, dtype=dtype)
    original = scan(tmp_path / f"scan{suffix}", array)
    dataset = volume().read(tmp_path / f"scan{suffix}")
    np.testing.assert_array_equal(stored(dataset)[..., 0], np.asarray(original.dataobj))
    again = tmp_path / f"again{volume().reconstruction_suffix(dataset.metadata, dataset.dtype)}"
    volume().write(again, stored(dataset), dataset.metadata)
    loaded = nibabel.load(again)
    np.testing.assert_array_equal(np.asarray(loaded.dataobj), array, strict=True)
    np.testing.assert_allclose(loaded.affine, original.affine, rtol=1e-6)


def test_the_affine_of_the_dataset_leads_to_scanner_millimetres(tmp_path):
    scan(tmp_path / "scan.nii", noise(6, 7, 8))
    dataset = volume().read(tmp_path / "scan.nii")
    for voxel in [(0, 0, 0), (5, 6, 7), (2, 0, 4)]:
        index = np.ravel_multi_index(voxel, (6, 7, 8))
        coordinate = dataset.coordinates(slice(index, index + 1))[0].numpy()
        millimetres = dataset.affine[:, :3] @ coordinate + dataset.affine[:, 3]
        np.testing.assert_allclose(millimetres, (OBLIQUE @ [*voxel, 1])[:3], rtol=1e-5)


@pytest.mark.parametrize("shape", [(12, 14, 16), (3, 14, 8), (5, 9, 2)])
def test_a_scan_rendered_at_another_resolution_covers_the_same_millimetres(tmp_path, shape):
    scan(tmp_path / "scan.nii.gz", noise(6, 7, 8))
    dataset = volume().read(tmp_path / "scan.nii.gz")
    volume().write(tmp_path / "finer.nii.gz", noise(*shape, 1), dataset.metadata)
    np.testing.assert_allclose(volume().read(tmp_path / "finer.nii.gz").affine, dataset.affine, rtol=1e-5, atol=1e-5)


def test_a_scan_over_time_keeps_its_seconds(tmp_path):
    scan(tmp_path / "scan.nii.gz", noise(6, 5, 4, 7), step=2.5)
    dataset = volume().read(tmp_path / "scan.nii.gz")
    assert dataset.grid_shape == (6, 5, 4, 7)
    np.testing.assert_allclose(dataset.affine[3], [0, 0, 0, 2.5 * 3.5, 2.5 * 3])
    volume().write(tmp_path / "finer.nii", noise(6, 5, 4, 14, 1), dataset.metadata)
    finer = nibabel.load(tmp_path / "finer.nii")
    assert finer.header.get_zooms()[3] == 1.25
    assert finer.header.get_xyzt_units() == ("mm", "sec")


@pytest.mark.parametrize(("unit", "millimetres"), [("mm", 1), ("meter", 1000), ("micron", 1e-3), ("unknown", 1)])
def test_whatever_the_units_of_a_scan_coordinates_are_millimetres_and_seconds(tmp_path, unit, millimetres):
    image = nibabel.Nifti1Image(noise(6, 5, 4, 3), OBLIQUE)
    image.header.set_xyzt_units(unit, "msec")
    image.header.set_zooms((*image.header.get_zooms()[:3], 1500))
    image.header["toffset"] = 500
    nibabel.save(image, tmp_path / "scan.nii")
    dataset = volume().read(tmp_path / "scan.nii")
    assert dataset.grid_shape == (6, 5, 4, 3)  # three moments, since the header has a unit of time
    first = dataset.affine @ [*(1 / length - 1 for length in dataset.grid_shape), 1]
    np.testing.assert_allclose(first, [*OBLIQUE[:3, 3] * millimetres, 0.5], rtol=1e-5)
    volume().write(tmp_path / "finer.nii", noise(6, 5, 4, 6, 1), dataset.metadata)
    header = nibabel.load(tmp_path / "finer.nii").header
    assert (header.get_xyzt_units(), header.get_zooms()[3]) == ((unit, "msec"), 750)
    assert header["toffset"] == 500 - 750 / 2  # so that two moments share the middle of the one that was read


SHEARED = OBLIQUE + np.array([[0, 0.7, 0, 0], *[[0] * 4] * 3])
STRAIGHT = np.array([[0.0, -2, 0, 30], [1.5, 0, 0, -20], [0, 0, 3, 7], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("sform", "qform"),
    [
        (None, None),
        (None, (STRAIGHT, 1)),
        ((STRAIGHT, 4), None),
        ((np.diag([-2.0, 2, 3, 1]), 4), (STRAIGHT, 1)),
        ((SHEARED, 2), None),
    ],
)
def test_a_scan_lies_where_it_did_for_programs_that_look_at_either_transform(tmp_path, sform, qform):
    image = nibabel.Nifti1Image(noise(6, 7, 8), None)
    image.header.set_zooms((2, 1.5, 3))
    if qform is not None:
        image.set_qform(*qform)
    if sform is not None:
        image.set_sform(*sform)
    nibabel.save(image, tmp_path / "scan.nii")
    original = nibabel.load(tmp_path / "scan.nii")
    dataset = volume().read(tmp_path / "scan.nii")
    volume().write(tmp_path / "again.nii", stored(dataset), dataset.metadata)
    again = nibabel.load(tmp_path / "again.nii")
    np.testing.assert_allclose(again.affine, original.affine, atol=1e-4)
    if qform is not None:
        np.testing.assert_allclose(again.get_qform(), original.get_qform(), atol=1e-4)
        assert again.header["qform_code"] == qform[1]
    if sform is not None:
        assert again.header["sform_code"] == sform[1]
    if sform is None and qform is None:
        assert (again.header["sform_code"], again.header["qform_code"]) == (0, 0)
    volume().write(tmp_path / "finer.nii", noise(12, 7, 24, 1), dataset.metadata)
    finer = nibabel.load(tmp_path / "finer.nii")
    for corner in ((-0.5, -0.5, -0.5), (5.5, 6.5, 7.5), (-0.5, 6.5, 2)):
        cell = (np.array(corner) + 0.5) * (2, 1, 3) - 0.5
        np.testing.assert_allclose(finer.affine @ [*cell, 1], original.affine @ [*corner, 1], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("scan.img", nibabel.Nifti1Pair),
        ("scan.mgz", nibabel.MGHImage),
        ("scan.nii", nibabel.Nifti2Image),
        ("spm.img", nibabel.Spm99AnalyzeImage),
    ],
)
def test_other_scans_that_nibabel_reads_are_read_and_written_as_nifti(tmp_path, name, kind):
    affine = np.diag([-2.0, 2, 3, 1]) if "spm" in name else STRAIGHT
    nibabel.save(kind(noise(6, 7, 8), affine), tmp_path / name)
    original = nibabel.load(tmp_path / name)
    assert modality_of(tmp_path / name) == "volume"
    dataset = volume().read(tmp_path / name)
    again = tmp_path / f"again{volume().reconstruction_suffix(dataset.metadata, dataset.dtype)}"
    volume().write(again, stored(dataset), dataset.metadata)
    np.testing.assert_array_equal(nibabel.load(again).get_fdata(), original.get_fdata())
    np.testing.assert_allclose(nibabel.load(again).affine, original.affine, atol=1e-4)


def test_a_scan_of_another_byte_order_is_read(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    nibabel.save(nibabel.Nifti1Image(noise(6, 7, 8), OBLIQUE, header), tmp_path / "scan.nii")
    np.testing.assert_array_equal(stored(volume().read(tmp_path / "scan.nii"))[..., 0], noise(6, 7, 8))


def test_the_vectors_of_a_deformation_are_channels(tmp_path):
    field = noise(6, 7, 8, 1, 3)
    image = nibabel.Nifti1Image(field, OBLIQUE)
    image.header.set_intent("vector")
    nibabel.save(image, tmp_path / "warp.nii.gz")
    dataset = volume().read(tmp_path / "warp.nii.gz")
    assert (dataset.grid_shape, dataset.channels) == ((6, 7, 8, 1), 3)
    volume().write(tmp_path / "again.nii", stored(dataset), dataset.metadata)
    again = nibabel.load(tmp_path / "again.nii")
    np.testing.assert_array_equal(np.asarray(again.dataobj), field)
    assert again.header.get_intent()[0] == "vector"


def test_scaled_integers_are_read_as_the_numbers_they_stand_for(tmp_path):
    path = tmp_path / "scan.nii"
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(np.linspace(-1, 1, 60).reshape(3, 4, 5), OBLIQUE, header)
    nibabel.save(image, path)
    dataset = volume().read(path)
    assert dataset.dtype == np.float32
    np.testing.assert_allclose(stored(dataset)[..., 0], nibabel.load(path).get_fdata(), rtol=1e-6)


def test_a_scan_in_colours_has_them_as_channels(tmp_path):
    colours = noise(4, 5, 6, 3, dtype=np.uint8)
    packed = colours.copy().view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(packed, OBLIQUE), tmp_path / "scan.nii")
    dataset = volume().read(tmp_path / "scan.nii")
    np.testing.assert_array_equal(stored(dataset), colours)
    volume().write(tmp_path / "again.nii", stored(dataset), dataset.metadata)
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "again.nii").dataobj), packed)


def test_an_array_becomes_a_scan_of_unit_voxels(tmp_path):
    np.save(tmp_path / "array.npy", noise(4, 5, 6))
    dataset = volume().read(tmp_path / "array.npy")
    volume().write(tmp_path / "out.nii.gz", noise(8, 10, 12, 1), dataset.metadata)
    np.testing.assert_allclose(volume().read(tmp_path / "out.nii.gz").affine, dataset.affine)


def test_a_fitted_scan_is_rendered_twice_as_fine_with_its_affine(tmp_path):
    original = scan(tmp_path / "scan.nii.gz", noise(6, 7, 8))
    run = inrkit.fit(tmp_path / "scan.nii.gz", out=tmp_path / "run", **QUICK)
    assert run.reconstruction.name == "reconstruction.nii.gz"
    np.testing.assert_allclose(nibabel.load(run.reconstruction).affine, original.affine, rtol=1e-6)
    run.field.modality.export(tmp_path / "finer.nii", run.field, scale=2)
    finer = nibabel.load(tmp_path / "finer.nii")
    assert finer.shape == (12, 14, 16)
    corners = [nibabel.affines.apply_affine(image.affine, [-0.5] * 3) for image in (original, finer)]
    np.testing.assert_allclose(*corners, rtol=1e-5)


# Which files are volumes


@pytest.mark.parametrize(
    ("shape", "modality"),
    [
        ((9,), "volume"),
        ((9, 8), "image"),
        ((9, 8, 1), "image"),
        ((9, 8, 4), "image"),
        ((9, 8, 5), "volume"),
        ((3, 9, 8), "volume"),
        ((9, 8, 7, 3), "volume"),
    ],
)
def test_an_array_goes_to_who_reads_its_shape(tmp_path, shape, modality):
    np.save(tmp_path / "array.npy", noise(*shape))
    assert modality_of(tmp_path / "array.npy") == modality


@pytest.mark.parametrize(
    ("shape", "options", "modality"),
    [
        ((9, 8), {"photometric": "minisblack"}, "image"),
        ((9, 8, 3), {"photometric": "rgb"}, "image"),
        ((1, 9, 8), {"photometric": "minisblack"}, "image"),
        ((5, 9, 8), {"photometric": "minisblack"}, "volume"),
        ((5, 9, 8, 3), {"photometric": "rgb"}, "volume"),
        ((5, 9, 8), {"photometric": "minisblack", "metadata": None}, "volume"),
    ],
)
def test_a_tiff_goes_to_who_reads_its_pages(tmp_path, shape, options, modality):
    for suffix in (".tif", ".tiff", ".TIF"):
        tifffile.imwrite(tmp_path / f"stack{suffix}", noise(*shape, dtype=np.uint8), **options)
        assert modality_of(tmp_path / f"stack{suffix}") == modality


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "NII.GZ"])
def test_scans_are_volumes_without_a_look(tmp_path, suffix):
    assert modality_of(tmp_path / f"scan.2.{suffix}") == "volume"


# What cannot be used


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array(3.0), "shape ()"),
        (np.zeros((3, 0, 4)), "shape (3, 0, 4)"),
        (np.zeros((2, 2, 2, 2, 2, 5)), "shape (2, 2, 2, 2, 2, 5)"),
    ],
)
def test_an_array_of_an_impossible_shape_is_a_one_line_error(tmp_path, array, said):
    for suffix in (".npy", ".npz"):
        np.save(tmp_path / "a.npy", array) if suffix == ".npy" else np.savez(tmp_path / "a.npz", array)
        refused(tmp_path / f"a{suffix}", said, "dimensions")


def test_objects_are_refused_and_not_unpickled(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, 2], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", np.array([{}, 2], dtype=object))
    refused(tmp_path / "objects.npy", "not a NumPy array of numbers")
    refused(tmp_path / "objects.npz", "not an archive of NumPy arrays of numbers")


def test_values_that_are_no_numbers_are_a_one_line_error(tmp_path):
    np.save(tmp_path / "odd.npy", np.zeros((3, 4, 5), "U3"))
    with pytest.raises(DataError, match=r"odd\.npy: values are of dtype <U3"):
        inrkit.fit(tmp_path / "odd.npy", out=tmp_path / "run", modality="volume", **QUICK)


def test_a_value_that_is_not_finite_is_found(tmp_path):
    array = noise(6, 7, 8)
    array[2, 3, 4] = np.inf
    for suffix in (".npy", ".nii.gz", ".npz", ".tif"):
        volume().write(tmp_path / f"hole{suffix}", array[..., None], {"squeezed": True})
        with pytest.raises(DataError, match=r"hole\..*index \(2, 3, 4\) is NaN"):
            inrkit.fit(tmp_path / f"hole{suffix}", out=tmp_path / "run", **QUICK)


# Values that are not known


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
def test_nan_is_left_out_and_is_nan_again_in_the_files_written(tmp_path, suffix, dtype):
    array = noise(6, 7, 8).astype(dtype)
    array[:2] = np.nan
    path, again = tmp_path / f"map{suffix}", tmp_path / f"again{suffix}"
    volume().write(path, channels_of(array), {"squeezed": True, "complex": dtype == np.complex64})
    dataset = volume().read(path)
    known = ~np.isnan(array)
    np.testing.assert_array_equal(stored(dataset)[known], channels_of(array)[known])
    assert (known_in(dataset) == known).all()
    assert dataset.extent == (channels_of(array)[known].min(), channels_of(array)[known].max())
    assert dataset.metadata["notes"][-1].startswith("33.3 % of the values are not known")
    volume().write(again, stored(dataset), dataset.metadata)
    np.testing.assert_array_equal(known_in(volume().read(again)), known)
    finer = tmp_path / f"finer{suffix}"
    volume().write(finer, stored(dataset).repeat(2, axis=0).repeat(3, axis=2), dataset.metadata)
    np.testing.assert_array_equal(known_in(volume().read(finer)), known.repeat(2, axis=0).repeat(3, axis=2))
    filled = volume(fill=True).read(path)
    volume().write(again, np.nan_to_num(stored(filled)), filled.metadata)
    assert volume().read(again).known is None


def channels_of(array):
    """(…, C) real numbers of an array of real or complex ones."""
    return array[..., None].view(np.float32) if array.dtype.kind == "c" else array[..., None]


def test_a_map_with_nan_around_it_is_fitted_inside_alone(tmp_path):
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (10, 12, 9)], indexing="ij"))
    array = np.exp(-3 * (grid**2).sum(axis=0)).astype(np.float32)
    array[(grid**2).sum(axis=0) > 0.8] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-3.0, 3, 3, 1])), tmp_path / "tmap.nii.gz")
    run = inrkit.fit(tmp_path / "tmap.nii.gz", out=tmp_path / "run", **QUICK)
    written = nibabel.load(run.reconstruction).get_fdata()
    np.testing.assert_array_equal(np.isnan(written), np.isnan(array))
    assert np.isfinite(run.field.render()).all()
    error = (written - array)[~np.isnan(array)]
    peak = np.nanmax(array) - np.nanmin(array)
    assert run.metrics["psnr"] == pytest.approx(10 * np.log10(peak**2 / (error**2).mean()), abs=1e-3)


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".nii.gz"])
def test_a_mask_says_which_values_are_known(tmp_path, suffix):
    known = noise(6, 7, 8) > -0.5
    array = noise(6, 7, 8, dtype=np.int16)
    np.save(tmp_path / "array.npy", array)
    volume().write(tmp_path / f"mask{suffix}", known[..., None].astype(np.uint8), {"squeezed": True})
    dataset = volume(mask=str(tmp_path / f"mask{suffix}")).read(tmp_path / "array.npy")
    assert (known_in(dataset) == known).all()
    np.testing.assert_array_equal(stored(dataset)[known][:, 0], array[known])


def test_a_mask_that_does_not_fit_is_a_one_line_error(tmp_path):
    scan(tmp_path / "scan.nii", noise(6, 7, 8))
    np.save(tmp_path / "mask.npy", np.ones((6, 7, 9)))
    with pytest.raises(DataError, match=r"mask\.npy, the mask, has shape \(6, 7, 9\) and the signal \(6, 7, 8\)"):
        volume(mask=str(tmp_path / "mask.npy")).read(tmp_path / "scan.nii")
    scan(tmp_path / "mask.nii", noise(6, 7, 8), affine=np.eye(4))
    with pytest.raises(DataError, match=r"mask\.nii, the mask, lies elsewhere than"):
        volume(mask=str(tmp_path / "mask.nii")).read(tmp_path / "scan.nii")
    np.save(tmp_path / "mask.npy", np.zeros((6, 7, 8)))
    with pytest.raises(DataError, match="no value is known"):
        volume(mask=str(tmp_path / "mask.npy")).read(tmp_path / "scan.nii")


# Complex numbers


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".nii.gz"])
@pytest.mark.parametrize("shape", [(6, 7, 8), (6, 7, 8, 2)])
def test_complex_numbers_are_two_channels_and_complex_again(tmp_path, suffix, shape):
    if suffix == ".tif" and len(shape) == 4:
        shape = (6, 7, 8, 9)
    array = (noise(*shape) + 1j * noise(*shape)[::-1]).astype(np.complex64)
    path, again = tmp_path / f"mri{suffix}", tmp_path / f"again{suffix}"
    channels = 2 if len(shape) == 4 and suffix != ".tif" else 1
    volume().write(path, array if channels > 1 else array[..., None], {"squeezed": channels == 1})
    dataset = volume().read(path)
    parts = array.reshape(*shape[: array.ndim - (channels > 1)], channels)
    np.testing.assert_array_equal(stored(dataset)[..., ::2], parts.real)
    np.testing.assert_array_equal(stored(dataset)[..., 1::2], parts.imag)
    volume().write(again, stored(dataset), dataset.metadata)
    both = [volume().read(one) for one in (path, again)]
    np.testing.assert_array_equal(stored(both[1]), stored(both[0]))
    if suffix == ".npy":
        np.testing.assert_array_equal(np.load(again), array, strict=True)
    if suffix == ".nii.gz":
        np.testing.assert_array_equal(np.asarray(nibabel.load(again).dataobj), array, strict=True)


# Files that promise more than they have


def test_what_a_header_promises_must_be_there_before_anything_is_laid_out_for_it(tmp_path, monkeypatch):
    header = nibabel.Nifti1Header()
    header.set_data_shape((30_000, 30_000, 30_000))
    header.set_data_dtype(np.float32)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    content = header.binaryblock + bytes(1004)
    (tmp_path / "bomb.nii").write_bytes(content)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(content))
    start = io.BytesIO()
    np.lib.format.write_array_header_1_0(start, {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 20)})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", start.getvalue() + bytes(1000))
    (tmp_path / "bomb.npy").write_bytes(start.getvalue() + bytes(1000))
    monkeypatch.setattr("inrkit.signals.decoding.available_memory", lambda: None)
    for name in ("bomb.nii", "bomb.nii.gz", "bomb.npz", "bomb.npy"):
        refused(tmp_path / name, "damaged")


def test_what_is_packed_well_is_read(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((200, 200, 200), np.uint8), np.eye(4)), tmp_path / "empty.nii.gz")
    np.savez_compressed(tmp_path / "empty.npz", a=np.zeros((200, 200, 200), np.uint8))
    tifffile.imwrite(tmp_path / "empty.tif", np.zeros((50, 200, 200), np.uint8), compression="zlib")
    for name in ("empty.nii.gz", "empty.npz", "empty.tif"):
        assert float(volume().read(tmp_path / name).values.max()) == 0


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".nii", ".nii.gz"])
@pytest.mark.parametrize("damage", ["words", "half", "most", "head", "flipped"])
def test_a_damaged_file_is_a_one_line_error(tmp_path, suffix, damage, capfd):
    path = tmp_path / f"damaged{suffix}"
    volume().write(path, noise(12, 11, 10, 1), {"squeezed": True})
    content = path.read_bytes()
    path.write_bytes(
        {
            "words": b"these are words and no voxels\n" * 40,
            "half": content[: len(content) // 2],
            "most": content[: len(content) * 7 // 10],
            "head": content[:20],
            "flipped": content[:8] + bytes(byte ^ 0xFF for byte in content[8:400]) + content[400:],
        }[damage]
    )
    refused(path)
    assert capfd.readouterr() == ("", "")


def test_a_scan_that_is_no_gzip_or_has_no_affine_is_a_one_line_error(tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(b"words" * 200))
    refused(path, "not a NIfTI file")
    flat = np.diag([1.0, 1.0, 0.0, 1.0])
    image = nibabel.Nifti1Image(noise(4, 5, 6), None)
    image.header.set_sform(flat, 1)
    nibabel.save(image, tmp_path / "flat.nii")
    refused(tmp_path / "flat.nii", "affine", "sform")


def test_an_unknown_suffix_lists_the_known(tmp_path):
    (tmp_path / "scan.xyz").write_bytes(b"x")
    refused(tmp_path / "scan.xyz", ".npy", ".nii.gz")
    for name, said in (("out.xyz", "as '.xyz'"), ("out", "without a suffix")):
        with pytest.raises(ConfigError, match=said):
            volume().write(tmp_path / name, noise(3, 4, 5, 1), {})


def test_what_a_tiff_cannot_hold_goes_to_an_array(tmp_path):
    for values in (noise(9, 1), noise(3, 4, 5, 1).astype(np.longdouble)):
        with pytest.raises(ConfigError, match=r"choose \.npy"):
            volume().write(tmp_path / "out.tif", values, {"squeezed": True})


def test_without_nibabel_a_scan_says_what_to_install(tmp_path):
    scan(tmp_path / "scan.nii.gz", noise(6, 7, 8))
    code = (
        "import sys; sys.modules['nibabel'] = None\n"
        f"sys.argv = ['inrkit', 'fit', {str(tmp_path / 'scan.nii.gz')!r}]\n"
        "import inrkit.cli; inrkit.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"inrkit: {tmp_path / 'scan.nii.gz'} is NIfTI, which needs: pip install 'inrkit[medical]'\n"


def test_psnr_refers_to_what_a_wide_dtype_holds_and_to_all_that_a_byte_can(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    assert volume().read(tmp_path / "a.npy").peak == 59
    np.save(tmp_path / "a.npy", np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
    assert volume().read(tmp_path / "a.npy").peak == 255


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz", ".npz", ".tif", ".nii", ".npy"])
def test_a_file_that_is_large_when_it_is_unpacked_is_told_of_before(tmp_path, monkeypatch, suffix):
    path, values = tmp_path / f"long{suffix}", np.zeros((9, 8, 7), np.float32)
    if suffix == ".npz":
        np.savez_compressed(path, volume=values)
    elif suffix == ".tif":
        tifffile.imwrite(path, values, compression="zlib")
    elif suffix == ".npy":
        np.save(path, values)
    else:
        kind = nibabel.MGHImage if suffix == ".mgz" else nibabel.Nifti1Image
        nibabel.save(kind(values, np.eye(4)), path)
    monkeypatch.setattr(decoding, "_LONG", values.nbytes)
    if suffix in (".nii", ".npy"):
        assert len(volume().read(path)) == values.size  # without a warning, which would be an error here
    else:
        with pytest.warns(decoding.LongDecoding, match=f"{suffix} becomes .* when it is unpacked"):
            assert len(volume().read(path)) == values.size
