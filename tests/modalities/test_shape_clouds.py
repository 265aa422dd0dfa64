"""Point clouds: with normals they are shapes, without they are shells."""

import numpy as np
import pytest
import trimesh

from inrkit import MODALITIES, DataError
from inrkit.modalities.shape import Cloud, Solid
from inrkit.modalities.shape.files import read_polygons

CENTER = np.array([100.0, -50.0, 7.0])


def modality(**options):
    plugin = MODALITIES.get("shape")
    return plugin(plugin.Options(**options))


@pytest.fixture(scope="module")
def knot():
    """A mesh with a ridge, a hollow and a hole through it: a cut ring beside a box."""
    ring = trimesh.creation.torus(1.0, 0.4, major_sections=64, minor_sections=32)
    box = trimesh.creation.box([1.0, 0.7, 0.5], transform=trimesh.transformations.translation_matrix([0, 0, 1.2]))
    return trimesh.util.concatenate([ring, box])


def oriented(mesh, count=8000):
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=0)
    return np.asarray(points) + CENTER, np.asarray(mesh.face_normals[faces])


def ply(path, points, normals=None):
    names = ["x", "y", "z"] + ["nx", "ny", "nz"] * (normals is not None)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property double {name}" for name in names] + ["element face 0"]
    header += ["property list uchar int vertex_indices", "end_header\n"]
    values = points if normals is None else np.hstack([points, normals])
    path.write_bytes("\n".join(header).encode() + values.astype("<f8").tobytes())
    return path


def cloud_of(path):
    return Cloud.of(path, read_polygons(path), 0.05)


def test_the_sign_and_the_distance_of_oriented_points_are_those_of_the_mesh(knot, tmp_path):
    path = ply(tmp_path / "knot.ply", *oriented(knot))
    cloud = cloud_of(path)
    exact = Solid(
        (knot.vertices + CENTER - cloud.center) / cloud.scale, np.array(knot.faces), cloud.center, cloud.scale, []
    )
    points = np.random.default_rng(1).uniform(-1, 1, (20000, 3))
    found, expected = cloud.signed_distance(points), exact.signed_distance(points)
    assert ((found < 0) & (expected < 0)).sum() / ((found < 0) | (expected < 0)).sum() > 0.98
    assert np.abs(np.abs(found) - np.abs(expected)).mean() < 0.1 * cloud.spacing
    np.testing.assert_array_equal(found < 0, cloud.inside(points))
    assert cloud.notes == ["the file is a point cloud with normals: distances are to the planes that these tell"]


def test_noise_of_points_is_averaged_out(knot, tmp_path):
    points, normals = oriented(knot, 20_000)
    noisy = points + 0.02 * np.random.default_rng(2).normal(size=points.shape)
    cloud = cloud_of(ply(tmp_path / "noisy.ply", noisy, normals))
    assert cloud.notes[-1] == "the points are noisy, by their normals: the planes of neighbours are averaged"
    places = np.random.default_rng(1).uniform(-1, 1, (20_000, 3))
    exact = Solid(
        (knot.vertices + CENTER - cloud.center) / cloud.scale, np.array(knot.faces), cloud.center, cloud.scale, []
    )
    expected = exact.signed_distance(places)
    close = np.abs(expected) < 0.05

    def misses(cloud):
        found = cloud.signed_distance(places)
        both = ((found < 0) & (expected < 0)).sum() / ((found < 0) | (expected < 0)).sum()
        return 1 - both, np.abs(found - expected)[close].mean()

    averaged = misses(cloud)
    cloud.rough = False
    plain = misses(cloud)
    assert averaged[0] < 0.6 * plain[0] and averaged[1] < 0.7 * plain[1]
    assert not cloud_of(ply(tmp_path / "clean.ply", points, normals)).rough


def test_normals_that_point_inwards_are_turned_and_missing_ones_left_out(knot, tmp_path):
    points, normals = oriented(knot)
    right = cloud_of(ply(tmp_path / "right.ply", points, normals))
    wrong = normals * -3.0
    wrong[:5] = 0
    cloud = cloud_of(ply(tmp_path / "wrong.ply", points, wrong))
    assert any("inwards" in note for note in cloud.notes)
    assert any("without a normal were left out: 5" in note for note in cloud.notes)
    queries = np.random.default_rng(1).uniform(-1, 1, (2000, 3))
    assert (right.inside(queries) == cloud.inside(queries)).mean() > 0.999


@pytest.mark.parametrize("suffix", [".xyz", ".npz", ".obj", ".ply", ".off"])
def test_every_format_of_points_with_normals_gives_the_same(suffix, knot, tmp_path):
    points, normals = oriented(knot, 500)
    path = tmp_path / f"knot{suffix}"
    rows = [" ".join(map(repr, row)) for row in np.hstack([points, normals]).tolist()]
    if suffix == ".xyz":
        path.write_text("# x y z nx ny nz\n" + "\n".join(rows).replace(" ", ", "))
    elif suffix == ".npz":
        np.savez(path, points=points, normals=normals)
    elif suffix == ".obj":
        path.write_text("\n".join(f"v {row.rsplit(' ', 3)[0]}\nvn {row.split(' ', 3)[3]}" for row in rows))
    elif suffix == ".off":
        path.write_text("\n".join(["NOFF", f"{len(rows)} 0 0", *rows]))
    else:
        ply(path, points, normals)
    held = read_polygons(path)
    np.testing.assert_array_equal(held.vertices, points)
    np.testing.assert_array_equal(held.normals, normals)
    dataset = modality(resolution=12).read(path)
    assert dataset.extent[0] < 0 < dataset.extent[1]


def test_the_normals_of_an_off_by_meshlab_are_behind_its_colours(knot, tmp_path):
    points, normals = oriented(knot, 500)
    rows = [
        " ".join(map(repr, [*place, 255, 255, 255, 255, *normal]))
        for place, normal in zip(points.tolist(), normals.tolist(), strict=True)
    ]
    (tmp_path / "knot.off").write_text("\n".join(["NCOFF", "500 0 0", *rows]))
    held = read_polygons(tmp_path / "knot.off")
    np.testing.assert_array_equal(held.normals, normals)


def test_colours_of_an_xyz_are_no_normals(tmp_path):
    path = tmp_path / "coloured.xyz"
    values = np.random.default_rng(0).uniform(0, 255, (100, 6))
    np.savetxt(path, values)
    held = read_polygons(path)
    assert held.normals is None
    assert "no normals" in held.notes[0]
    np.testing.assert_allclose(held.vertices, values[:, :3])


@pytest.mark.parametrize("data", ["lattice", "points"])
def test_points_without_normals_give_unsigned_distances_and_a_shell_with_a_note(data, knot, tmp_path):
    points, _ = oriented(knot)
    path = ply(tmp_path / "knot.ply", points)
    dataset = modality(resolution=32, count=2000, data=data, band=0.5).read(path)
    assert dataset.extent[0] >= 0
    assert "unsigned" in dataset.metadata["notes"][0]
    places = dataset.coordinates(slice(0, None)).numpy() @ dataset.affine[:, :3].T + dataset.affine[:, 3]
    some = np.random.default_rng(0).choice(len(places), 1000, replace=False)
    expected = np.linalg.norm(places[some, None] - points[None], axis=2).min(axis=1)
    values = dataset.values.numpy().reshape(-1)
    np.testing.assert_allclose(values[some], np.minimum(expected, 0.5 * dataset.affine[0, 0]), atol=1e-4)
    if data == "lattice":
        values = values.reshape(32, 32, 32, 1)
        modality(band=0.5).write(tmp_path / "shell.ply", values, dataset.metadata)
        shell = trimesh.load_mesh(tmp_path / "shell.ply", process=False)
        away = np.linalg.norm(shell.vertices[::20, None] - points[None], axis=2).min(axis=1)
        cell = 2 * dataset.affine[0, 0] / 32
        np.testing.assert_allclose(away, cell, atol=cell / 2)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("few.xyz", "0 0 0\n1 0 0\n0 1 0\n", "point cloud of 3"),
        ("flat.xyz", "0 0\n1 0\n", "x y z"),
        ("words.xyz", "3\nwater\nO 0 0 0\n", "x y z"),
        ("nan.xyz", "0 0 nan\n" * 30, "NaN"),
    ],
)
def test_points_that_make_no_sense_are_refused(name, data, expected, tmp_path):
    (tmp_path / name).write_text(data)
    with pytest.raises(DataError, match=expected):
        modality(resolution=8).read(tmp_path / name)


def test_arrays_that_do_not_belong_together_are_refused(tmp_path):
    path = tmp_path / "cloud.npz"
    np.savez(path, points=np.zeros((5, 3)), normals=np.zeros((4, 3)))
    with pytest.raises(DataError, match="each point must have one"):
        modality().read(path)
    np.savez(path, points=np.zeros((5, 2)), normals=np.zeros((5, 2)))
    with pytest.raises(DataError, match=r"\(N, 3\)"):
        modality().read(path)


def test_points_that_one_far_away_makes_the_same_are_one_point(tmp_path):
    ball = trimesh.creation.icosphere(2)
    points, normals = np.asarray(ball.vertices), np.asarray(ball.vertex_normals)
    for far, left in ((1e30, None), (1.2e12, 100)):
        held = np.vstack([points, [[0, far, 0]]]), np.vstack([normals, [[0.0, 1.0, 0.0]]])
        reader = modality(count=200, sigma=0.2)
        if left is None:
            with pytest.raises(DataError, match="a point cloud of 2 different points"):
                reader.read(ply(tmp_path / "far.ply", *held))
            continue
        cloud = Cloud.of(tmp_path / "far.ply", read_polygons(ply(tmp_path / "far.ply", *held)), 0.05)
        assert len(np.unique(cloud.points, axis=0)) == len(cloud.points) == len(cloud.normals) < len(points)
        assert any(note.startswith("points that are the same beside one far away") for note in cloud.notes)
