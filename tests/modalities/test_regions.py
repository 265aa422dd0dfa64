"""A region of each kind of signal, rendered to a file, lies where other programs look for it."""

import contextlib
import io
import json
import sys

import nibabel
import numpy as np
import pytest
import soundfile
import tifffile
import torch
import trimesh
from PIL import Image as Pillow
from torch import nn

import inrkit.cli
from inrkit import MODALITIES, ConfigError, Field
from inrkit.signals.embeddings import Identity as NoEmbedding
from inrkit.signals.embeddings import IdentityOptions
from inrkit.signals.packing import unpacked
from inrkit.signals.transforms import Identity


class Exact(nn.Module):
    """A network that is a function of physical places."""

    def __init__(self, function, affine):
        super().__init__()
        self.function, self.affine = function, torch.as_tensor(affine)

    def forward(self, coordinates):
        places = coordinates.double() @ self.affine[:, :-1].T + self.affine[:, -1]
        return self.function(places).float()


def field_on(name, path, function, **options):
    """A field over the extent and with the metadata of a file, whose values are a function of physical places.

    Args:
        name: of the modality.
        path: of the file.
        function: (k, D) places to (k, C) values.
        options: the modality's.
    """
    plugin = MODALITIES.get(name)
    dataset = plugin(plugin.Options(**options)).read(path)
    return Field(
        network=Exact(function, dataset.affine),
        channels=dataset.channels,
        embedding=NoEmbedding(IdentityOptions(), dataset.dimensions),
        transform=Identity(),
        names={"network": "exact", "embedding": "identity", "transform": "identity", "modality": name},
        modality_options=options,
        grid_shape=dataset.grid_shape,
        dtype=dataset.dtype,
        value_range=dataset.value_range,
        affine=dataset.affine,
        metadata=dataset.metadata,
    )


def mixed(*factors):
    """Each place's coordinates, weighed and added up: one channel that tells the place."""
    weights = torch.tensor(factors, dtype=torch.float64)[:, None]
    return lambda places: places @ weights


def exported(field, path, start=None, stop=None, step=None):
    field.modality.export(path, field, region=field.region(start, stop, step))
    return path


# Sounds


def ramp(path, rate=8000, seconds=0.5):
    soundfile.write(path, np.linspace(0, 0.5, round(rate * seconds), dtype=np.float32), rate, subtype="FLOAT")
    return path


@pytest.mark.parametrize(("step", "rate"), [(None, 8000), (1 / 44_100, 44_100), (0.001, 1000)])
def test_a_part_of_a_sound_has_its_own_seconds_at_the_rate_of_the_step(tmp_path, step, rate):
    field = field_on("audio", ramp(tmp_path / "in.wav"), mixed(1.0), offset=0.1)
    samples, found = soundfile.read(exported(field, tmp_path / "out.wav", 0.2, 0.3, step))
    assert found == rate
    assert len(samples) == rate / 10
    np.testing.assert_allclose(samples, 0.2 + np.arange(rate // 10) / rate, atol=1e-6)


# Pictures


def test_a_part_of_a_plain_picture_is_its_pixels(tmp_path):
    random = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    Pillow.fromarray(random).save(tmp_path / "in.png")

    def pixels(places):
        return torch.from_numpy(random)[tuple(places.round().long().T)]

    field = field_on("image", tmp_path / "in.png", pixels)
    out = exported(field, tmp_path / "out.png", (10, 4), (25, 24))
    np.testing.assert_array_equal(np.asarray(Pillow.open(out)), random[10:25, 4:24])
    assert np.array_equal(field.render(step=1), field.render())
    assert np.array_equal(field.render(step=0.5), field.render(scale=2))


KEYS = {
    "area": (34735, "H", 8, (1, 1, 0, 1, 1025, 0, 1, 1), True),
    "point": (34735, "H", 8, (1, 1, 0, 1, 1025, 0, 1, 2), True),
}
NORTH_UP = [(33550, "d", 3, (30.0, 20.0, 0.0), True), (33922, "d", 6, (0, 0, 0, 4.4e5, 5.6e6, 0), True)]
MATRIX = [(34264, "d", 16, (30.0, 0, 0, 4.4e5, 0, -20.0, 0, 5.6e6, 0, 0, 0, 0, 0, 0, 0, 1.0), True)]


@pytest.mark.parametrize("tags", [NORTH_UP, MATRIX], ids=["scale", "matrix"])
@pytest.mark.parametrize("kind", ["area", "point"])
@pytest.mark.parametrize("step", [None, (5.0, 10.0)])
def test_a_part_of_terrain_lies_on_the_ground_where_the_terrain_does(tmp_path, tags, kind, step):
    """Values are metres east of a meridian and south of a parallel; the tags written say the same of each pixel."""
    terrain = np.zeros((60, 50), np.float32)
    tifffile.imwrite(tmp_path / "in.tif", terrain, photometric="minisblack", extratags=[*tags, KEYS[kind]])
    field = field_on(
        "image",
        tmp_path / "in.tif",
        lambda places: (places - torch.tensor([5.6e6, 4.4e5])) @ torch.tensor([[-1.0], [1e4]], dtype=torch.float64),
    )
    assert field([[5.6e6 - 200, 4.4e5 + 300]], physical=True).item() == pytest.approx(200 + 3e6)
    out = exported(field, tmp_path / "out.tif", (5.6e6 - 210, 4.4e5 + 345), (5.6e6 - 810, 4.4e5 + 945), step)
    with tifffile.TiffFile(out) as file:
        page = file.pages.first
        values = page.asarray()
        if tags is MATRIX:
            matrix = np.array(page.tags.valueof(34264)).reshape(4, 4)
            wide, high, west, north = matrix[0, 0], -matrix[1, 1], matrix[0, 3], matrix[1, 3]
        else:
            (wide, high, _), (column, row, _, x, y, _) = page.tags.valueof(33550), page.tags.valueof(33922)
            west, north = x - column * wide, y + row * high
        half = 0.5 if page.tags.valueof(34735)[-1] == 1 else 0.0
    assert (high, wide) == pytest.approx(step or (20.0, 30.0))
    assert values.shape == (round(600 / high), round(600 / wide))
    rows, columns = np.indices(values.shape)
    east, south = west + (columns + half) * wide - 4.4e5, 5.6e6 - north + (rows + half) * high
    assert (south[0, 0], east[0, 0]) == pytest.approx((210, 345))
    np.testing.assert_allclose(values, south + 1e4 * east, rtol=1e-5)


def test_a_part_of_a_micrograph_keeps_its_unit_and_the_step_asked_for(tmp_path):
    tifffile.imwrite(
        tmp_path / "in.tif", np.zeros((40, 30), np.float32), imagej=True, resolution=(4.0, 2.0), metadata={"unit": "um"}
    )
    field = field_on("image", tmp_path / "in.tif", mixed(100.0, 1.0))
    out = exported(field, tmp_path / "out.tif", (5, 2), (15, 6), 0.125)
    with tifffile.TiffFile(out) as file:
        assert file.imagej_metadata["unit"] == "um"
        for name in ("XResolution", "YResolution"):
            assert np.divide(*file.pages.first.tags[name].value) == pytest.approx(8)
        values = file.asarray()
    rows, columns = np.indices((80, 32))
    np.testing.assert_allclose(values, 100 * (5 + rows / 8) + 2 + columns / 8, rtol=1e-5)


# Scans and stacks

TURNED = np.array([[0, 0, -2.0, 40], [1.5, 0, 0, -20], [0, 0.5, 0, 3], [0, 0, 0, 1]])
UPRIGHT = np.array([[2.0, 0, 0, -11], [0, 1.5, 0, -20], [0, 0, 3, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize("affine", [TURNED, UPRIGHT], ids=["turned", "upright"])
@pytest.mark.parametrize("step", [None, 1.25])
def test_a_part_of_a_scan_lies_in_the_scanner_where_the_scan_does(tmp_path, affine, step):
    """Each value tells its own millimetres; the affine written says the same of its voxel, in both of its forms."""
    image = nibabel.Nifti1Image(np.zeros((16, 18, 14), np.float32), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["qform_code"] = 1
    image.to_filename(tmp_path / "in.nii.gz")
    field = field_on("volume", tmp_path / "in.nii.gz", mixed(1e4, 100.0, 1.0))
    ends = [np.array([15, -10.0, 5.0]), np.array([35, 0.0, 10.0])]
    if affine is TURNED:
        ends[0][0], ends[1][0] = 35, 15
    else:
        ends = [np.array([-5.0, -10, 5]), np.array([12.0, 1, 40])]
    part = nibabel.load(exported(field, tmp_path / "out.nii.gz", *ends, step))
    voxels = np.indices(part.shape).reshape(3, -1)
    for form in (part.affine, part.get_qform()):
        places = form[:3, :3] @ voxels + form[:3, 3:]
        np.testing.assert_allclose(places[:, 0], ends[0], atol=1e-4)
        np.testing.assert_allclose(part.get_fdata().ravel(), 1e4 * places[0] + 100 * places[1] + places[2], atol=0.5)
    widths = np.abs(affine[:3, :3]).max(axis=0)
    np.testing.assert_allclose(part.header.get_zooms(), [step] * 3 if step else widths, rtol=1e-5)


def test_a_part_of_a_series_of_scans_says_when_it_begins(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((6, 5, 4, 10), np.float32), UPRIGHT)
    image.header.set_xyzt_units("mm", "msec")
    image.header.set_zooms((2, 1.5, 3, 500))
    image.header["toffset"] = 250
    image.to_filename(tmp_path / "in.nii")
    field = field_on("volume", tmp_path / "in.nii", mixed(0, 0, 0, 1.0))
    part = nibabel.load(
        exported(
            field, tmp_path / "out.nii", (None, None, None, 1.25), (None, None, None, 2.25), (None, None, None, 0.25)
        )
    )
    assert part.shape == (6, 5, 4, 4)
    assert float(part.header["toffset"]) == pytest.approx(1250)
    assert part.header.get_zooms()[3] == pytest.approx(250)
    np.testing.assert_allclose(part.get_fdata()[0, 0, 0], [1.25, 1.5, 1.75, 2.0], atol=1e-6)
    np.testing.assert_allclose(part.affine, UPRIGHT, atol=1e-6)


def test_an_oblique_scan_has_no_parts_along_millimetres_but_steps_of_them(tmp_path):
    oblique = UPRIGHT.copy()
    oblique[0, 1] = 0.3
    nibabel.Nifti1Image(np.zeros((6, 5, 4), np.float32), oblique).to_filename(tmp_path / "in.nii")
    field = field_on("volume", tmp_path / "in.nii", mixed(1.0, 0, 0))
    with pytest.raises(ConfigError, match="oblique"):
        field.region((0, 0, 0), (1, 1, 1))
    cubes = nibabel.load(exported(field, tmp_path / "out.nii", step=1))
    np.testing.assert_allclose(cubes.header.get_zooms(), 1, rtol=1e-5)
    corner = [-0.5, -0.5, -0.5, 1]
    np.testing.assert_allclose(cubes.affine @ corner, oblique @ corner, atol=1e-5)
    places = cubes.affine[:3, :3] @ np.indices(cubes.shape).reshape(3, -1) + cubes.affine[:3, 3:]
    np.testing.assert_allclose(cubes.get_fdata().ravel(), places[0], atol=1e-4)


def test_a_part_of_a_scan_is_not_known_where_the_scan_is_not(tmp_path):
    array = np.zeros((6, 5, 4), np.float32)
    array[2:4, :2] = np.nan
    np.save(tmp_path / "in.npy", array)
    field = field_on("volume", tmp_path / "in.npy", mixed(1.0, 10.0, 100.0))
    part = np.load(exported(field, tmp_path / "out.npy", (1, 1, 1), (6, 5, 4)))
    np.testing.assert_array_equal(np.isnan(part), np.isnan(array[1:, 1:, 1:]))
    halved = np.load(exported(field, tmp_path / "half.npy", step=0.5))
    np.testing.assert_array_equal(np.isnan(halved), np.isnan(array).repeat(2, 0).repeat(2, 1).repeat(2, 2))
    assert unpacked(field.metadata["known"], array.shape).sum() == 120 - 16


@pytest.mark.parametrize(
    "options",
    [
        {"imagej": True, "resolution": (5.0, 4.0), "metadata": {"axes": "ZYX", "unit": "um", "spacing": 2.0}},
        {
            "ome": True,
            "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0},
        },
    ],
    ids=["imagej", "ome"],
)
def test_a_part_of_a_stack_has_the_step_asked_for_on_each_axis(tmp_path, options):
    tifffile.imwrite(tmp_path / "in.tif", np.zeros((8, 20, 30), np.float32), photometric="minisblack", **options)
    field = field_on("volume", tmp_path / "in.tif", mixed(100.0, 10.0, 1.0))
    ends = (4, 1, 2), (10, 3, 5), (1, 0.125, 0.1)
    with tifffile.TiffFile(exported(field, tmp_path / "out.tif", *ends)) as file:
        if file.is_imagej:
            wide, high = (np.divide(*file.pages.first.tags[name].value) for name in ("XResolution", "YResolution"))
            found = file.imagej_metadata["spacing"], 1 / high, 1 / wide
        else:
            pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
            found = pixels["PhysicalSizeZ"], pixels["PhysicalSizeY"], pixels["PhysicalSizeX"]
        values = file.asarray()
    assert found == pytest.approx((1, 0.125, 0.1))
    z, y, x = np.indices((6, 16, 30))
    np.testing.assert_allclose(values, 100 * (4 + z) + 10 * (1 + y / 8) + 2 + x / 10, rtol=1e-5)
    scan = nibabel.load(exported(field, tmp_path / "out.nii", *ends))
    np.testing.assert_allclose(scan.affine[:3, 3] * 1e3, [2, 1, 4], rtol=1e-5)


# Shapes


def ball_field(path):
    trimesh.creation.icosphere(3, 10.0).apply_translation([100, 200, 300]).export(path)
    centre = torch.tensor([100.0, 200.0, 300.0], dtype=torch.float64)
    return field_on("shape", path, lambda places: (places - centre).norm(dim=-1, keepdim=True) - 10, resolution=32)


def test_a_part_of_a_shape_is_its_surface_between_the_ends_in_its_own_units(tmp_path):
    field = ball_field(tmp_path / "in.ply")
    mesh = trimesh.load(exported(field, tmp_path / "out.ply", (100, 195, 302), (108, 205, 306), 0.25), force="mesh")
    assert mesh.is_watertight
    np.testing.assert_allclose(mesh.bounds, [[100, 195, 302], [108, 205, 306]], atol=1e-3)
    # Of the box [0, 8] × [−5, 5] × [2, 6] about the centre, what lies in the ball: by 50³ points.
    axes = [np.linspace(low, high, 50, endpoint=False) + (high - low) / 100 for low, high in ((0, 8), (-5, 5), (2, 6))]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    assert mesh.volume == pytest.approx((x**2 + y**2 + z**2 < 100).mean() * 320, rel=0.01)
    half = trimesh.load(exported(field, tmp_path / "half.stl", (None, None, 300), None, 0.25), force="mesh")
    assert half.bounds[0][2] == pytest.approx(300, abs=1e-3)
    assert half.volume == pytest.approx(2 / 3 * np.pi * 1000, rel=0.01)


def test_distances_of_a_part_of_a_shape_are_at_the_places_asked_for(tmp_path):
    field = ball_field(tmp_path / "in.ply")
    distances = np.load(exported(field, tmp_path / "out.npy", (100, 200, 300), (108, 201, 301), 1))
    np.testing.assert_allclose(distances[:, 0, 0], np.arange(8) - 10, atol=1e-4)


# Videos


def test_a_part_of_a_video_has_the_frames_of_its_seconds(tmp_path):
    frames = [Pillow.fromarray(np.full((20, 30), 10 * number, np.uint8)) for number in range(12)]
    frames[0].save(tmp_path / "in.gif", save_all=True, append_images=frames[1:], duration=100)

    def shade(places):
        return (100 * places[:, :1]).expand(-1, 3)

    field = field_on("video", tmp_path / "in.gif", shade)
    start, stop = (0.3, 5, None), (0.9, 15, None)
    with Pillow.open(exported(field, tmp_path / "out.gif", start, stop, (0.05, 1, None))) as clip:
        assert (clip.size, clip.n_frames) == ((30, 10), 12)
        shown = []
        for number in range(12):
            clip.seek(number)
            assert clip.info["duration"] == 50
            shown.append(np.asarray(clip.convert("RGB"))[0, 0, 0])
    np.testing.assert_array_equal(shown, 30 + 5 * np.arange(12))


# The command


def command(*words):
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["inrkit", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
            inrkit.cli.main()
    finally:
        sys.argv = before
    return left.value.code or 0, out.getvalue(), err.getvalue()


def test_the_command_renders_what_python_does(tmp_path):
    inrkit.fit(ramp(tmp_path / "in.wav"), out=tmp_path / "run", overrides=["train.steps=2", "network.hidden_layers=1"])
    out = tmp_path / "out.wav"
    code, said, _ = command("render", tmp_path / "run", out, "--from", "0.1", "--to", "0.3", "--step", "0.0005")
    assert code == 0
    assert "400" in said
    samples, rate = soundfile.read(out)
    assert rate == 2000
    field = inrkit.load(tmp_path / "run")
    np.testing.assert_allclose(samples[:, None], field(np.arange(0.1, 0.3, 0.0005)[:, None], physical=True), atol=1e-5)
    for words, reason in (
        (["--from", "0.4", "--to", "0.6"], "made up"),
        (["--step", "x"], "--step is 'x'"),
        (["--from", "0.1", "--scale", "2"], "leave --scale and --shape out"),
        (["--from", "0.1,0.2"], "from has 2 numbers; expected 1"),
    ):
        code, _, error = command("render", tmp_path / "run", out, *words)
        assert code == 2
        assert reason in error
    code, said, _ = command("render", tmp_path / "run", out, "--from", "0.4", "--to", "0.6", "--extrapolate")
    assert code == 0
    assert soundfile.info(out).duration == pytest.approx(0.2)


def test_a_field_is_evaluated_against_another_file_where_that_file_lies(tmp_path):
    random = np.random.default_rng(0).standard_normal((9, 8, 7)).astype(np.float32)
    nibabel.Nifti1Image(random, UPRIGHT).to_filename(tmp_path / "in.nii")
    quick = ["train.steps=2", "network.hidden_layers=1", "network.hidden_features=16"]
    run = inrkit.fit(tmp_path / "in.nii", out=tmp_path / "run", overrides=quick)
    field, part = run.field, tmp_path / "part.nii"
    exported(field, part, (-7, -17, 5), (1, -10, 20), (1, 1.5, 2))

    def psnr(path):
        code, said, error = command("evaluate", tmp_path / "run", "--against", path, "--json")
        assert code == 0, error
        found = json.loads(said)["psnr"]
        return np.inf if found is None else found, error  # JSON has no infinity

    assert psnr(part)[0] > 90
    image = nibabel.load(part)
    beside = image.affine.copy()
    beside[:3, 3] += 3
    nibabel.Nifti1Image(image.get_fdata(dtype=np.float32), beside).to_filename(tmp_path / "beside.nii")
    assert psnr(tmp_path / "beside.nii")[0] < 60
    field.modality.export(part, field, region=field.region((-15, -17, 5), (1, -10, 20), (1, 1.5, 2), extrapolate=True))
    found, told = psnr(part)  # of −15 … 0, those from −12 on are within the scan, which begins half a voxel before −11
    assert found > 90
    assert "18.8 %" in told
    beside[0, 3] += 500
    nibabel.Nifti1Image(image.get_fdata(dtype=np.float32), beside).to_filename(tmp_path / "far.nii")
    code, _, error = command("evaluate", tmp_path / "run", "--against", tmp_path / "far.nii")
    assert code in (1, 2)
    assert "lies elsewhere" in error


@pytest.mark.parametrize(
    ("name", "suffix", "units"),
    [
        ("audio", ".wav", ("s",)),
        ("image", ".png", ("pixel", "pixel")),
        ("volume", ".npy", ("cell", "cell", "cell")),
        ("video", ".gif", ("s", "pixel", "pixel")),
        ("shape", ".ply", ("own", "own", "own")),
        ("array", ".npz", ("own", "own")),
    ],
)
def test_every_modality_says_its_units(tmp_path, name, suffix, units):
    plugin = MODALITIES.get(name)
    path = tmp_path / f"in{suffix}"
    plugin(plugin.Options()).sample(path)
    assert field_on(name, path, mixed(*[1.0] * len(units))).units == units
