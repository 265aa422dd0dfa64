"""Shapes: meshes of every kind become signed distances, and what is drawn from a field lies on the original."""

import gc
import re
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from inrkit import MODALITIES, ConfigError, DataError, fit
from inrkit.cli import main
from inrkit.modalities import shape as shapes
from inrkit.networks import Network
from inrkit.runs.field import Field
from inrkit.signals.embeddings import Identity as NoEmbedding
from inrkit.signals.embeddings import IdentityOptions
from inrkit.signals.transforms import Identity
from inrkit.training.member import Listener

SUFFIXES = [".obj", ".ply", ".stl", ".off", ".glb"]
TINY = ["modality.resolution=12", "modality.export_resolution=16", "network.hidden_features=16"]


def modality(**options):
    plugin = MODALITIES.get("shape")
    return plugin(plugin.Options(**options))


@pytest.fixture
def ball():
    """A closed mesh, not centred and not of unit size."""
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=20.0)
    mesh.apply_translation([100.0, -50.0, 7.0])
    return mesh


@pytest.fixture
def ball_file(ball, tmp_path):
    path = tmp_path / "ball.ply"
    ball.export(path)
    return path


def soup(mesh):
    """The mesh with three vertices of its own for every face."""
    return trimesh.Trimesh(mesh.triangles.reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3), process=False)


def written(mesh, path):
    data = mesh.export(file_type=path.suffix[1:])
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def notes_of(mesh, tmp_path):
    return " ".join(modality(resolution=12).read(written(mesh, tmp_path / "mesh.ply")).metadata["notes"])


@dataclass
class NoOptions:
    pass


class Exact(Network):
    """Any function of coordinates as a network."""

    Options = NoOptions

    def __init__(self, function):
        super().__init__(NoOptions(), 3, 1)
        self.function = function
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, coordinates):
        return self.function(coordinates)[..., None]


def exact_field(function, affine=None, kind="mesh", grid_shape=(8, 8, 8)):
    affine = np.eye(3, 4) if affine is None else affine
    return Field(
        network=Exact(function),
        channels=1,
        embedding=NoEmbedding(IdentityOptions(), 3),
        transform=Identity(),
        names={"network": "exact", "embedding": "identity", "transform": "identity", "modality": "shape"},
        modality_options={},
        grid_shape=grid_shape,
        dtype=np.dtype("float32"),
        value_range=None,
        affine=affine,
        metadata={"kind": kind, "notes": [], "affine": affine.tolist()},
    )


def sphere(radius=0.6, center=(0.0, 0.0, 0.0), scale=1.0):
    return lambda points: scale * ((points - torch.tensor(center)).norm(dim=-1) - radius)


def drawn(field, path, **options):
    lattice = options.pop("shape", None)
    modality(**options).export(path, field, lattice)
    return trimesh.load_mesh(path, process=False)


def welded(path):
    """A mesh as read from any format: STL and GLB do not keep which vertices are shared."""
    mesh = trimesh.load_mesh(path, process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    return mesh


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_mesh_format_is_read(suffix, ball, tmp_path):
    dataset = modality(resolution=16).read(written(ball, tmp_path / f"ball{suffix}"))
    assert dataset.grid_shape == (16, 16, 16)
    assert dataset.values.dtype == torch.float32
    assert dataset.channels == 1
    assert dataset.metadata["notes"] == []


def test_values_are_signed_distances_in_the_meshs_units(ball, ball_file):
    dataset = modality(resolution=16, band=10.0).read(ball_file)
    places = dataset.coordinates(slice(0, None)).numpy() @ dataset.affine[:, :3].T + dataset.affine[:, 3]
    distances = np.linalg.norm(places - [100.0, -50.0, 7.0], axis=1) - 20.0
    np.testing.assert_allclose(dataset.values.numpy()[:, 0], distances, atol=0.15)  # of a polyhedron, not a sphere
    assert np.sign(dataset.values.numpy()[np.abs(distances) > 0.2, 0]).tolist() == (
        np.sign(distances[np.abs(distances) > 0.2]).tolist()
    )


def test_a_mesh_is_read_once_while_points_are_drawn_from_it_and_anew_when_its_file_changes(ball, tmp_path, monkeypatch):
    shape = modality(data="points", count=100)
    path, reads = tmp_path / "ball.obj", []
    ball.export(path)
    reader = shapes.read_polygons
    monkeypatch.setattr(shapes, "read_polygons", lambda path: reads.append(path) or reader(path))
    dataset = shape.read(path)
    again = shape.read(path)
    assert len(reads) == 1
    ball.copy().apply_scale(2).export(path)
    larger = shape.read(path)
    assert len(reads) == 2
    np.testing.assert_allclose(larger.affine, 2 * dataset.affine)
    del dataset, again, larger
    gc.collect()
    shape.read(path)
    assert len(reads) == 3


def test_the_mesh_fills_the_cube_up_to_the_margin(tmp_path):
    box = trimesh.creation.box([4.0, 2.0, 1.0])
    solid = shapes.Solid.read(written(box, tmp_path / "box.ply"), 0.1)
    np.testing.assert_allclose(solid.vertices.max(axis=0), [0.9, 0.45, 0.225])
    np.testing.assert_allclose(solid.vertices.min(axis=0), [-0.9, -0.45, -0.225])


def test_values_are_truncated_to_the_band(ball_file):
    dataset = modality(resolution=16, band=0.1, margin=0.2).read(ball_file)
    assert dataset.extent == pytest.approx((-0.1 * 20 / 0.8, 0.1 * 20 / 0.8), rel=1e-6)


def test_seams_and_parts_are_merged(ball, tmp_path):
    other = trimesh.creation.box([10.0, 10.0, 10.0])
    scene = trimesh.Scene([soup(ball), soup(other)])
    path = tmp_path / "scene.glb"
    path.write_bytes(scene.export(file_type="glb"))
    solid = shapes.Solid.read(path, 0.05)
    assert solid.notes == []
    assert len(solid.vertices) == len(ball.vertices) + len(other.vertices)


def test_parts_of_a_scene_stand_where_the_scene_puts_them(tmp_path):
    scene = trimesh.Scene()
    box = trimesh.creation.box([1.0, 1.0, 1.0])
    scene.add_geometry(box)
    scene.add_geometry(box, transform=trimesh.transformations.translation_matrix([5.0, 0.0, 0.0]))
    path = tmp_path / "scene.glb"
    path.write_bytes(scene.export(file_type="glb"))
    solid = shapes.Solid.read(path, 0.0)
    assert solid.scale == pytest.approx(3.0)
    np.testing.assert_allclose(solid.center, [2.5, 0.0, 0.0], atol=1e-6)


def test_an_obj_with_latin_comments_and_no_materials_is_read(ball, tmp_path):
    path = tmp_path / "ball.obj"
    path.write_bytes(b"# caf\xe9\nmtllib missing.mtl\nusemtl caf\xe9\n" + ball.export(file_type="obj").encode())
    assert shapes.Solid.read(path, 0.05).notes == []


def test_an_inside_out_mesh_is_turned_with_a_note(ball, tmp_path):
    expected = modality(resolution=12).read(written(ball, tmp_path / "right.ply"))
    ball.invert()
    dataset = modality(resolution=12).read(written(ball, tmp_path / "wrong.ply"))
    assert "inside out" in dataset.metadata["notes"][0]
    assert torch.equal(dataset.values, expected.values)


def test_faces_that_disagree_are_made_to_agree_with_a_note(ball, tmp_path):
    faces = ball.faces.copy()
    faces[::3] = faces[::3, ::-1]
    mixed = trimesh.Trimesh(ball.vertices, faces, process=False)
    expected = modality(resolution=12).read(written(ball, tmp_path / "right.ply"))
    dataset = modality(resolution=12).read(written(mixed, tmp_path / "wrong.ply"))
    assert "agree" in dataset.metadata["notes"][0]
    torch.testing.assert_close(dataset.values, expected.values)


def test_an_inside_out_part_is_turned_and_a_cavity_is_not(tmp_path):
    outer, inner = trimesh.creation.icosphere(radius=2.0), trimesh.creation.icosphere(radius=1.0)
    inner.invert()
    hollow = shapes.Solid.read(written(trimesh.util.concatenate([outer, inner]), tmp_path / "hollow.ply"), 0.0)
    assert hollow.notes == []
    assert hollow.inside(np.array([[0.0, 0.0, 0.0], [0.75, 0.0, 0.0]])).tolist() == [False, True]
    inner.apply_translation([5.0, 0.0, 0.0])
    beside = shapes.Solid.read(written(trimesh.util.concatenate([outer, inner]), tmp_path / "beside.ply"), 0.0)
    assert "inside out" in beside.notes[0]
    assert beside.inside((np.array([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0]]) - beside.center) / beside.scale).all()


@pytest.mark.parametrize(
    ("other", "point", "away"),
    [
        ({"translation": [1.0, 0.0, 0.0]}, [0.5, 0.0, 0.0], -np.sqrt(0.75)),  # to the circle where two balls meet
        ({"scale": 0.5}, [0.5, 0.0, 0.0], -0.5),  # on the face of a ball inside the other
    ],
)
def test_faces_inside_the_solid_are_no_surface(other, point, away, tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=2)
    second = ball.copy()
    second.apply_scale(other.get("scale", 1.0))
    second.apply_translation(other.get("translation", [0.0, 0.0, 0.0]))
    solid = shapes.Solid.read(written(trimesh.util.concatenate([ball, second]), tmp_path / "parts.ply"), 0.0)
    assert "parts overlap" in solid.notes[0]
    place = (np.array([point]) - solid.center) / solid.scale
    assert solid.signed_distance(place)[0] * solid.scale == pytest.approx(away, abs=0.03)
    on, faces = solid.sampled(2000, 0)
    beside = on + 0.05 * solid.normals[faces]
    assert solid.inside(beside).mean() < 0.02


def test_an_open_mesh_is_fitted_with_a_note(ball, tmp_path):
    holed = trimesh.Trimesh(ball.vertices, ball.faces[8:], process=False)
    assert "open" in notes_of(holed, tmp_path)


def test_distances_to_an_open_mesh_are_distances(ball, tmp_path):
    holed = trimesh.Trimesh(ball.vertices, ball.faces[200:], process=False)
    solid = shapes.Solid.read(written(holed, tmp_path / "holed.ply"), 0.05)
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    mesh = trimesh.Trimesh(solid.vertices, solid.faces, process=False)
    expected = np.linalg.norm(mesh.vertices[None] - points[:, None], axis=2).min(axis=1)
    found = np.abs(solid.signed_distance(points))
    assert (found <= expected + 1e-9).all()
    assert (found >= expected - 0.1).all()  # half an edge from the nearest vertex at most


def test_a_mesh_that_is_not_manifold_is_fitted_with_a_note(ball, tmp_path):
    fin = np.array([[*ball.faces[0, :2], len(ball.vertices)]])
    mesh = trimesh.Trimesh(np.vstack([ball.vertices, [[100.0, -50.0, 40.0]]]), np.vstack([ball.faces, fin]))
    assert "not manifold" in notes_of(mesh, tmp_path)


def test_degenerate_and_duplicate_faces_are_dropped_with_a_note(ball, tmp_path):
    more = np.array([[0, 0, 1], [2, 2, 2], ball.faces[5]])
    mesh = trimesh.Trimesh(ball.vertices, np.vstack([ball.faces, more]), process=False)
    notes = notes_of(mesh, tmp_path)
    assert "degenerate faces, without area, were dropped: 2" in notes
    assert "duplicate faces were taken once: 1" in notes


def test_vertices_without_faces_do_not_matter(ball, tmp_path):
    stray = np.array([[1e6, 0.0, 0.0], [np.nan, 0.0, 0.0]])
    mesh = trimesh.Trimesh(np.vstack([ball.vertices, stray]), ball.faces, process=False)
    solid = shapes.Solid.read(written(mesh, tmp_path / "stray.ply"), 0.0)
    assert solid.scale == pytest.approx(20.0, rel=1e-3)
    assert len(solid.vertices) == len(ball.vertices)


def _bytes_of(mesh, suffix):
    data = mesh.export(file_type=suffix)
    return data.encode() if isinstance(data, str) else data


def _damaged():
    ball = trimesh.creation.icosphere(subdivisions=1)
    flat = b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n"
    nothing = trimesh.exchange.gltf.export_glb(trimesh.Scene([]))
    header = b"ply\nformat binary_little_endian 1.0\nelement vertex 99999999999\nproperty float x\nproperty float y\n"
    stl = _bytes_of(ball, "stl")
    cases = {
        "no faces.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "point cloud"),
        "few.ply": (trimesh.PointCloud(ball.vertices[:16]).export(file_type="ply"), "point cloud of 16"),
        "nothing.glb": (nothing, "no faces"),
        "flat.obj": (flat, "degenerate"),
        "point.obj": (b"v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "degenerate"),
        "nan.obj": (b"v 0 nan 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "NaN"),
        "infinite.obj": (b"v 0 inf 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "NaN or infinite"),
        "beyond.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "do not exist"),
        "endless.obj": (b"v 0 0 0\nv 1e300 0 0\nv 0 1e300 0\nf 1 2 3\n", "scale the mesh"),
        "sheet.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "encloses no volume"),
        "header.ply": (header + b"property float z\nend_header\n", "damaged"),
        "count.stl": (stl[:80] + b"\xff\xff\xff\x7f" + stl[84:], "damaged"),
        "letter.xyzzy": (b"hello", "neither a mesh"),
    }
    for suffix in SUFFIXES:
        cases[f"text{suffix}"] = (b"dear reader,\nthis is no mesh\n", "text")
        cases[f"noise{suffix}"] = (np.random.default_rng(1).bytes(3000), "noise")
        whole = _bytes_of(ball, suffix[1:])
        cases[f"cut{suffix}"] = (whole[: len(whole) // 2], "damaged")
    return cases


@pytest.mark.parametrize("name", _damaged())
def test_a_file_that_is_no_mesh_is_told_in_a_line(name, tmp_path):
    data, expected = _damaged()[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=re.escape(expected)) as caught:
        modality(resolution=8).read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "module" not in str(caught.value)


def test_a_damaged_mesh_leaves_one_line_on_stderr(tmp_path, monkeypatch, capfd):
    path = tmp_path / "noise.stl"
    path.write_bytes(np.random.default_rng(1).bytes(3000))
    monkeypatch.setattr(sys, "argv", ["inrkit", "fit", str(path), "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code != 0
    assert capfd.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{"resolution": 100_000}, {"data": "points", "count": 10**13}])
def test_more_samples_than_memory_are_refused_before_they_are_made(options, ball_file):
    with pytest.raises(DataError, match=r"needs about .* GiB"):
        modality(**options).read(ball_file)


def test_a_drawing_larger_than_memory_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"needs about .* GiB"):
        modality().export(tmp_path / "out.ply", exact_field(sphere()), (10**6, 10**6, 10**6))


def cube_distances(shape=(10, 12, 14)):
    """Signed distances, in cells, to a ball in the middle of a lattice."""
    middle = (np.array(shape) - 1) / 2
    return np.sqrt(((np.indices(shape).T - middle) ** 2).sum(axis=-1)).T - 3.0


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_volume_of_signed_distances_is_read_as_it_is(suffix, tmp_path):
    path = tmp_path / f"volume{suffix}"
    volume = cube_distances().astype(np.float32)
    np.save(path, volume) if suffix == ".npy" else np.savez(path, sdf=volume, other=np.zeros(3))
    dataset = modality().read(path)
    assert dataset.grid_shape == volume.shape
    np.testing.assert_array_equal(dataset.values.numpy().reshape(volume.shape), volume)


def test_a_drawn_volume_lies_where_the_volume_has_its_surface(tmp_path):
    shape = (10, 12, 14)
    path = tmp_path / "volume.npy"
    np.save(path, cube_distances(shape))
    dataset = modality().read(path)
    modality().write(tmp_path / "out.ply", cube_distances(shape)[..., None], dataset.metadata)
    vertices = trimesh.load_mesh(tmp_path / "out.ply").vertices
    distances = np.linalg.norm(vertices - (np.array(shape) - 1) / 2, axis=1)
    np.testing.assert_allclose(distances, 3.0, atol=0.1)


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        (np.zeros((4, 4)), "must be a volume"),
        (np.zeros((4, 4, 4, 2)), "must be a volume"),
        (np.zeros((1, 4, 4)), "must be a volume"),
        (np.ones((4, 4, 4)), "no signed distances"),
        (-np.ones((4, 4, 4)), "no signed distances"),
        (np.arange(64, dtype=np.uint8).reshape(4, 4, 4), "no signed distances"),
        (np.where(np.arange(64) == 5, np.nan, np.arange(64) - 30.0).reshape(4, 4, 4), "NaN"),
        (np.where(np.arange(64) == 5, np.inf, np.arange(64) - 30.0).reshape(4, 4, 4), "infinite"),
        (np.ones((4, 4, 4), dtype=complex), "real numbers"),
    ],
)
def test_a_volume_that_is_no_signed_distance_is_told(volume, expected, tmp_path):
    path = tmp_path / "volume.npy"
    np.save(path, volume)
    with pytest.raises(DataError, match=expected):
        modality().read(path)


def test_a_damaged_volume_is_told(tmp_path):
    path = tmp_path / "volume.npz"
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match="damaged"):
        modality().read(path)
    np.savez(path, one=np.zeros(3), two=np.zeros(3))
    with pytest.raises(DataError, match="one, two"):
        modality().read(path)


def test_a_volume_is_a_lattice_where_a_mesh_gives_points(tmp_path):
    path = tmp_path / "volume.npy"
    np.save(path, cube_distances())
    assert modality(data="points").read(path).grid_shape == cube_distances().shape


@given(
    center=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
    offset=st.tuples(*[st.floats(-1e3, 1e3)] * 3),
    scale=st.floats(1e-2, 1e2),
    lattice=st.tuples(*[st.integers(24, 40)] * 3),
)
@settings(max_examples=15, deadline=None)
def test_an_exact_field_is_drawn_where_it_is_zero(center, offset, scale, lattice, tmp_path_factory):
    affine = np.column_stack([scale * np.eye(3), offset])
    path = tmp_path_factory.mktemp("drawn") / "out.obj"
    mesh = drawn(exact_field(sphere(0.6, center, scale), affine), path, shape=lattice)
    distances = np.linalg.norm(mesh.vertices - (np.array(center) * scale + offset), axis=1)
    # The sagitta of a cell's diagonal, the error of linear interpolation along an edge, in the mesh's units.
    np.testing.assert_allclose(distances, 0.6 * scale, atol=scale * (2 / min(lattice)) ** 2 / 2)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * (0.6 * scale) ** 3, rel=0.03)


@pytest.mark.parametrize("slab", [1, 20 * 22 * 3, 20 * 22 * 7, 10**9])
def test_slabs_equal_the_whole(slab):
    field = exact_field(sphere(0.62, (0.1, -0.05, 0.2)))
    shape = (24, 20, 22)
    whole = shapes.surface_of(field, shape, slab=10**9)
    parts = shapes.surface_of(field, shape, slab=slab)
    assert len(parts.vertices) == len(whole.vertices)
    assert len(parts.faces) == len(whole.faces)
    one = whole.vertices[whole.faces].reshape(-1, 9)
    other = parts.vertices[parts.faces].reshape(-1, 9)
    np.testing.assert_allclose(np.sort(one.mean(axis=1)), np.sort(other.mean(axis=1)), atol=1e-4)
    np.testing.assert_allclose(sorted(whole.vertices.sum(axis=1)), sorted(parts.vertices.sum(axis=1)), atol=1e-4)


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_any_values_in_any_slabs_give_a_closed_surface(seed, rows):
    """With many exact zeros and values up to the border: the hardest that a lattice can hold."""
    values = np.random.default_rng(seed).integers(-2, 3, (7, 6, 5)).astype(np.float32)
    slabs = [values[first : first + rows] for first in range(0, 7, rows)]
    surface = shapes.extract_surface(slabs, values.shape, 4.0)
    whole = shapes.extract_surface([values], values.shape, 4.0)
    assert (len(surface.vertices), len(surface.faces)) == (len(whole.vertices), len(whole.faces))
    directed = surface.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    forth, times = np.unique(directed, axis=0, return_counts=True)
    back, again = np.unique(directed[:, ::-1], axis=0, return_counts=True)
    np.testing.assert_array_equal(forth, back)
    np.testing.assert_array_equal(times, again)


def test_zeros_on_the_lattice_leave_the_surface_closed():
    # 24 cells: a plane of cell centres at 1/24, so that the box's faces are exactly on centres.
    box = exact_field(lambda points: points.abs().amax(dim=-1) - 13 / 24)
    for slab in (1, 10**9):
        surface = shapes.surface_of(box, (24, 24, 24), slab=slab)
        assert trimesh.Trimesh(surface.vertices, surface.faces, process=False).is_watertight


def test_a_surface_that_leaves_the_cube_is_closed_by_its_faces(tmp_path):
    field = exact_field(lambda points: points.norm(dim=-1) - 1.2)
    path = tmp_path / "out.ply"
    assert "closed where it leaves the cube" in modality().export(path, field, (20, 20, 20))
    mesh = trimesh.load_mesh(path, process=False)
    assert mesh.is_watertight
    assert mesh.volume > 0
    np.testing.assert_allclose(mesh.bounds, [[-1.0] * 3, [1.0] * 3], atol=1e-6)


@pytest.mark.parametrize("suffix", shapes.MESH_SUFFIXES)
def test_every_format_that_is_written_reads_back(suffix, tmp_path):
    field = exact_field(sphere(0.6))
    modality().export(tmp_path / f"out{suffix}", field, (20, 24, 22))
    mesh = welded(tmp_path / f"out{suffix}")
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.03)


@pytest.mark.parametrize("suffix", shapes.MESH_SUFFIXES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_field_without_a_surface_gives_a_valid_file(suffix, sign, tmp_path):
    field = exact_field(lambda points: sign * (1 + points[..., 0] ** 2))
    path = tmp_path / f"out{suffix}"
    modality().export(path, field, (8, 8, 8))
    read = trimesh.load_scene(path)
    faces = sum(len(part.faces) for part in read.geometry.values() if isinstance(part, trimesh.Trimesh))
    assert (faces > 0) == (sign < 0)  # negative everywhere, the whole cube is inside


def test_the_field_itself_is_written_as_npy(tmp_path):
    modality().export(tmp_path / "out.npy", exact_field(sphere()), (5, 6, 7))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), exact_field(sphere()).render((5, 6, 7))[..., 0])


@pytest.mark.parametrize("name", ["out.png", "out"])
def test_another_format_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match=r"\.ply, \.obj, \.stl, \.glb"):
        modality().export(tmp_path / name, exact_field(sphere()))


@pytest.mark.parametrize("grid_shape", [(8, 8, 8), None])
def test_scale_is_a_factor_on_the_export_resolution(grid_shape, tmp_path):
    field = exact_field(sphere(), grid_shape=grid_shape)
    shape = modality(export_resolution=10)
    assert "10×10×10" in shape.export(tmp_path / "a.ply", field)
    assert "25×25×25" in shape.export(tmp_path / "a.ply", field, scale=2.5)
    assert "9×10×11" in shape.export(tmp_path / "a.ply", field, (9, 10, 11))
    with pytest.raises(ConfigError, match="scale is"):
        shape.export(tmp_path / "a.ply", field, scale=-1.0)
    with pytest.raises(ConfigError, match="both"):
        shape.export(tmp_path / "a.ply", field, (9, 10, 11), 2.0)


def test_an_exact_field_is_assessed_as_such(ball, tmp_path):
    shape = modality(export_resolution=48)
    path = written(ball, tmp_path / "ball.ply")
    affine = shapes.Solid.read(path, 0.05).affine
    metrics = shape.assess(exact_field(sphere(0.95), affine), path)
    assert metrics["iou"] > 0.98
    assert metrics["chamfer"] < 2e-3
    assert metrics["normal_consistency"] > 0.99
    assert metrics["f_score"] > 0.999


def test_what_is_assessed_does_not_depend_on_the_fields_cube(ball, tmp_path):
    path = written(ball, tmp_path / "ball.ply")
    center, scale = np.array([95.0, -45.0, 0.0]), 40.0
    function = sphere(0.5, tuple((np.array([100.0, -50.0, 7.0]) - center) / scale))
    field = exact_field(function, np.column_stack([scale * np.eye(3), center]))
    metrics = modality(export_resolution=64).assess(field, path)
    assert metrics["iou"] > 0.98
    assert metrics["chamfer"] < 2e-3


def test_iou_and_chamfer_of_a_smaller_ball_are_the_analytic_ones(ball, tmp_path):
    path = written(trimesh.creation.icosphere(subdivisions=4), tmp_path / "ball.ply")
    affine = shapes.Solid.read(path, 0.5).affine
    metrics = modality(export_resolution=48, margin=0.5).assess(exact_field(sphere(0.4), affine), path)
    assert metrics["iou"] == pytest.approx(0.8**3, abs=0.02)
    assert metrics["chamfer"] == pytest.approx(0.2 / np.sqrt(12), rel=0.05)
    assert metrics["f_score"] == 0.0


def test_a_field_without_a_surface_is_assessed_as_nothing(ball_file):
    metrics = modality(export_resolution=8).assess(exact_field(lambda points: 1 + points[..., 0] ** 2), ball_file)
    assert metrics == {"iou": 0.0, "chamfer": np.inf, "normal_consistency": 0.0, "f_score": 0.0}


def test_free_points_lie_near_the_surface_and_in_space(ball_file):
    dataset = modality(data="points", count=2000, near=0.75, sigma=0.01, band=10.0).read(ball_file)
    distances = np.abs(dataset.values.numpy()[:, 0]) / dataset.affine[0, 0]
    assert (distances[:1500] < 0.05).all()
    assert (distances[1500:] > 0.05).mean() > 0.8
    assert dataset.points.abs().max() <= 1


def test_a_round_of_free_points_is_the_same_whenever_it_is_drawn(ball_file):
    options = {"data": "points", "count": 500, "resample_every": 3}
    one, other = modality(**options).read(ball_file), modality(**options).read(ball_file)
    first = one.points.clone()
    for number in (1, 2, 5):
        one.advance(number)
    other.advance(5)
    assert torch.equal(one.points, other.points)
    assert torch.equal(one.values, other.values)
    assert not torch.equal(one.points, first)
    different = modality(**options, seed=1).read(ball_file)
    assert not torch.equal(different.points, first)


class StopAt(Listener):
    """Makes a step the last one, as Ctrl-C would."""

    def __init__(self, step):
        self.step = step

    def on_step(self, member, selected):
        if member.step == self.step:
            member.stop()


@pytest.mark.parametrize("stop", [4, 5])
def test_a_resumed_run_with_free_points_equals_an_uninterrupted_one(stop, ball_file, tmp_path):
    overrides = [
        *TINY,
        "modality.data=points",
        "modality.count=300",
        "modality.resample_every=2",
        "selector.least=64",
        "train.steps=6",
    ]
    whole = fit(ball_file, out=tmp_path / "whole", overrides=overrides)
    fit(ball_file, out=tmp_path / "part", overrides=overrides, callbacks=[StopAt(stop)])
    resumed = fit(ball_file, out=tmp_path / "part", overrides=overrides, resume=True)
    assert resumed.result["steps"] == 6
    one, other = whole.field.network.state_dict(), resumed.field.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("data", "operator"), [("lattice", "laplacian"), ("points", "graph-laplacian")])
def test_the_operator_fits_the_samples(data, operator):
    assert modality(data=data).operator == operator


def test_a_fit_leaves_a_mesh_and_its_metrics(ball_file, tmp_path):
    run = fit(ball_file, out=tmp_path / "run", overrides=[*TINY, "train.steps=2"])
    assert run.reconstruction.name == "reconstruction.ply"
    assert {"psnr", "sign_iou", "iou", "chamfer", "normal_consistency", "f_score"} <= run.metrics.keys()
    trimesh.load_scene(run.reconstruction)


def test_a_volume_is_fitted_and_assessed_by_its_signs(tmp_path):
    path = tmp_path / "volume.npy"
    np.save(path, cube_distances().astype(np.float32))
    chosen = ["modality.data=points", "train.steps=2", f"data.path={path}"]
    run = fit("shape", out=tmp_path / "run", overrides=[*TINY, *chosen])
    assert 0 <= run.metrics["iou"] <= 1
    assert "chamfer" not in run.metrics
    field = run.field
    assert "10×12×14" in field.modality.export(tmp_path / "a.stl", field)


def test_the_default_recipe_fits_a_mesh_well(tmp_path):
    path = tmp_path / "sample.ply"
    modality().sample(path)
    # A quarter of the recipe's steps will do on a coarse lattice.
    small = ["modality.resolution=32", "modality.export_resolution=48", "train.steps=150"]
    run = fit(path, out=tmp_path / "run", overrides=small)
    assert run.metrics["iou"] > 0.95
    mesh = trimesh.load_mesh(run.reconstruction, process=False)
    assert mesh.is_watertight
    np.testing.assert_allclose(mesh.bounds, trimesh.load_mesh(path).bounds, atol=0.03)


def test_the_sample_is_a_closed_mesh_without_notes(tmp_path):
    path = tmp_path / "sample.ply"
    modality().sample(path)
    assert trimesh.load_mesh(path, process=False).is_watertight
    assert shapes.Solid.read(path, 0.05).notes == []


def test_the_display_shows_what_was_assumed(ball, tmp_path, capfd):
    ball.invert()
    path = written(ball, tmp_path / "ball.ply")
    fit(path, out=tmp_path / "run", overrides=[*TINY, "train.steps=1"], quiet=False)
    assert "note: the mesh is inside out" in capfd.readouterr().err
