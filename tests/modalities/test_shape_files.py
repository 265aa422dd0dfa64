"""Mesh files as people's programs write them are read as what they say; what is drawn stands where it should."""

import base64
import json
import struct
import tracemalloc

import numpy as np
import pytest
import trimesh

from inrkit import MODALITIES, DataError
from inrkit.modalities.shape import Solid, write_mesh
from inrkit.modalities.shape.files import read_polygons
from inrkit.modalities.shape.files.polygons import Polygons, strip_triangles, triangulated

CUBE = np.array(
    [(-1, -1, -1), (1, -1, -1), (1, 1, -1), (-1, 1, -1), (-1, -1, 1), (1, -1, 1), (1, 1, 1), (-1, 1, 1)], dtype=float
)
QUADS = [(0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)]
# A C: area 7, circumference 16, so that a prism of height 1 has volume 7 and area 30.
C = np.array([(0, 0), (3, 0), (3, 1), (1, 1), (1, 2), (3, 2), (3, 3), (0, 3)], dtype=float)


def prism(ring, first=0):
    """Vertices and faces, of different lengths, of a counter-clockwise polygon drawn out from z = 0 to 1."""
    n = len(ring)
    cap = [(place + first) % n for place in range(n)]
    vertices = np.vstack([np.c_[ring, np.zeros(n)], np.c_[ring, np.ones(n)]])
    sides = [[i, (i + 1) % n, (i + 1) % n + n, i + n] for i in range(n)]
    return vertices, [cap[::-1], [place + n for place in cap], *sides]


def polygons(vertices, faces):
    corners = np.array([corner for face in faces for corner in face], dtype=np.int64)
    return Polygons(np.asarray(vertices, dtype=float), np.array([len(face) for face in faces]), corners)


def measured(path):
    """Faces, volume, area and bounding box of a mesh as read, in its own units."""
    solid = Solid.read(path, 0.05)
    return measures(solid.vertices * solid.scale + solid.center, solid.faces)


def measures(vertices, faces):
    corners = vertices[faces] - vertices.mean(axis=0)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    bounds = np.concatenate([vertices[faces].min(axis=(0, 1)), vertices[faces].max(axis=(0, 1))])
    return len(faces), volume, np.linalg.norm(normals, axis=1).sum() / 2, bounds.round(6).tolist()


CUBE_AS_READ = (12, pytest.approx(8.0), pytest.approx(24.0), [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])


def notes(path):
    return Solid.read(path, 0.05).notes


def refused(path, data, expected):
    path.write_bytes(data)
    with pytest.raises(DataError, match=expected) as caught:
        Solid.read(path, 0.05)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# Polygons


@pytest.mark.parametrize("first", range(8))
@pytest.mark.parametrize("turn", [False, True])
def test_a_concave_face_is_covered_once_whatever_corner_it_begins_with(first, turn):
    vertices, faces = prism(C, first)
    rotation = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])[:3, :3] if turn else np.eye(3)
    triangles = triangulated(polygons(vertices @ rotation.T, faces))
    count, volume, area, _ = measures(vertices, triangles)
    assert (count, volume, area) == (28, pytest.approx(7.0), pytest.approx(30.0))


@pytest.mark.parametrize("seed", range(6))
def test_the_triangles_of_any_polygon_have_its_area_and_its_edges(seed):
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, 60))
    ring = random.uniform(0.2, 1, 60)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vertices, faces = prism(ring)
    triangles = triangulated(polygons(vertices, faces))
    following = np.roll(ring, -1, axis=0)
    area = (ring[:, 0] * following[:, 1] - ring[:, 1] * following[:, 0]).sum() / 2
    around = np.linalg.norm(following - ring, axis=1).sum()
    assert measures(vertices, triangles)[:3] == (236, pytest.approx(area), pytest.approx(2 * area + around))
    assert trimesh.Trimesh(vertices, triangles, process=False).is_watertight


def test_corners_in_the_middle_of_an_edge_keep_a_mesh_closed():
    square = np.array([(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2), (0, 1)], dtype=float)
    for first in range(8):
        vertices, faces = prism(square, first)
        triangles = triangulated(polygons(vertices, faces))
        assert measures(vertices, triangles)[1:3] == (pytest.approx(4.0), pytest.approx(16.0))
        assert trimesh.Trimesh(vertices, triangles, process=False).is_watertight


def test_a_face_with_a_hole_joined_to_its_edge_by_a_cut_stays_hollow():
    outer, hole = np.array([(0, 0), (4, 0), (4, 4), (0, 4)]), np.array([(1, 1), (1, 3), (3, 3), (3, 1)])
    ring = np.vstack([outer, outer[:1], hole, hole[:1]]).astype(float)
    triangles = triangulated(polygons(np.c_[ring, np.zeros(len(ring))], [range(len(ring))]))
    corners = ring[triangles]
    areas = np.linalg.det(np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], axis=1)) / 2
    assert (areas > 0).all()
    assert areas.sum() == pytest.approx(16.0 - 4.0)


def test_a_quadrangle_with_a_corner_inwards_is_cut_through_that_corner():
    vertices = [(0, 0, 0), (2, 2, 0), (0, 0.5, 0), (-2, 2, 0)]
    for first in range(4):
        face = [(place + first) % 4 for place in range(4)]
        assert all(2 in triangle and 0 in triangle for triangle in triangulated(polygons(vertices, [face])).tolist())


def test_a_strip_turns_every_second_triangle_and_leaves_out_its_joints():
    assert strip_triangles(np.array([0, 1, 2, 3, 3, 4, 4, 5, 6])).tolist() == [[0, 1, 2], [2, 1, 3], [4, 5, 6]]
    assert strip_triangles(np.array([0, 1])).shape == (0, 3)


# OBJ


def obj_text(vertices, faces, before=0):
    lines = [f"v {x} {y} {z}" for x, y, z in vertices]
    return lines + ["f " + " ".join(str(corner + 1 + before) for corner in face) for face in faces]


@pytest.mark.parametrize("back", [False, True])
def test_parts_of_an_obj_may_count_back_from_where_they_stand(back, tmp_path):
    lines = []
    for part, center in enumerate([(0, 0, 0), (3, 0, 0), (0, 0, 5)]):
        lines += [f"o part{part}", f"g group{part}", "s off"]
        lines += obj_text(CUBE + center, QUADS, -9 if back else 8 * part)
    path = tmp_path / "boxes.obj"
    path.write_text("\n".join(lines))
    assert measured(path) == (36, pytest.approx(24.0), pytest.approx(72.0), [-1, -1, -1, 4, 1, 6])
    assert notes(path) == []


def test_an_obj_with_a_concave_face_has_no_phantom_faces(tmp_path):
    path = tmp_path / "c.obj"
    path.write_text("\n".join(obj_text(*prism(C, 1))))
    assert measured(path) == (28, pytest.approx(7.0), pytest.approx(30.0), [0, 0, 0, 3, 3, 1])
    solid = Solid.read(path, 0.05)
    between = (np.array([(2.0, 1.5, 0.5), (2.5, 1.5, 1.2)]) - solid.center) / solid.scale
    # In the gap of the C, half a unit from both bars, and 0.2 above it.
    np.testing.assert_allclose(solid.signed_distance(between) * solid.scale, [0.5, np.hypot(0.5, 0.2)], atol=1e-9)


def with_normals(line):
    """Faces as v//vn, counted back, in another line ending and with a comment behind."""
    if line.startswith("f "):
        return "f " + " ".join(f"{int(word) - 9}//-1" for word in line.split()[1:]) + " # quad"
    return line + " 0.5 0.25 1.0 # with a colour"


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: b"\r\n".join(line.encode() for line in lines),
        lambda lines: b"\r".join(line.encode() for line in lines),
        lambda lines: "\n".join(["vn 0 0 1", *map(with_normals, lines)]).encode(),
        lambda lines: "\n".join(line.replace(" 1.0", " +1.00E+00") for line in lines).encode(),
        lambda lines: "\n".join(line.replace(" ", " \\\n\t", 1).replace(" ", "\\\r\n ", 1) for line in lines).encode(),
        lambda lines: "\n".join([*lines, "l 1 2 3", "p 1", "vp 0.5 0.5", "vt 0 0", "l -1 -2"]).encode(),
        lambda lines: "\n".join([line.replace("f ", "fo ") for line in lines]).encode() + b"\n",
        lambda lines: b"\xef\xbb\xbf# \xc3\x85\x85 v 9 9 9\\\n" + "\n".join(lines).encode(),
        lambda lines: "\n".join([*lines, "v 1e9 nan 0 # of no face"]).encode(),
        lambda lines: "\n".join(line + " 1.0" if line.startswith("v") else line for line in lines).encode(),
        lambda lines: "\n".join(
            " ".join(f"{word}/1/1" if word.isdigit() else word for word in line.split()) if line[0] == "f" else line
            for line in lines
        ).encode(),
        lambda lines: "\n".join([*lines[8:], *lines[:8]]).encode(),  # faces before their vertices
    ],
)
def test_an_obj_may_be_written_in_many_ways(change, tmp_path):
    path = tmp_path / "cube.obj"
    path.write_bytes(change(obj_text(CUBE, QUADS)))
    assert measured(path) == CUBE_AS_READ


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", "line 4.*counts from 1"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 -4\n", "line 4.*vertex -4"),
        ("v 0 0 0\nv 1 0\nv 0 1 0\nf 1 2 3\n", "line 2.*2 numbers"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n", "do not exist"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 x\n", "line 4.*'x'"),
        ("v 0 0 0\nv 1,5 0 0\nv 0 1 0\nf 1 2 3\n", "1,5"),
        ("v 0 0 0\nv 1 nan 0\nv 0 1 0\nf 1 2 3\n", "NaN"),
        ("v 0 0 0\nv 1 0 0\nf 1 2\n", "no faces|point cloud"),
    ],
)
def test_an_obj_that_makes_no_sense_is_refused_with_its_line(text, expected, tmp_path):
    refused(tmp_path / "wrong.obj", text.encode(), expected)


def test_free_form_surfaces_of_an_obj_are_missed_aloud(tmp_path):
    path = tmp_path / "surface.obj"
    path.write_text("\n".join([*obj_text(CUBE, QUADS), "surf 0 1 0 1 1 2 3 4"]))
    assert "free-form" in notes(path)[0]


# PLY


def ply_data(vertices, faces, form, length, index, place="float", extra=True, vertex_last=False):
    """A PLY with columns in an odd order, a colour, a list of texture coordinates and flags of faces."""
    name = "vertex_indices" if index == "int" else "vertex_index"
    colour, flags = ["property uchar red"] * extra, ["property uchar flags"] * extra
    vertex = [f"element vertex {len(vertices)}", f"property {place} z", *colour]
    vertex += [f"property {place} x", f"property {place} y"]
    texture = ["property list uchar float texcoord"] * extra
    face = [f"element face {len(faces)}", *texture, f"property list {length} {index} {name}", *flags]
    order = {"ascii": None, "binary_little_endian": "<", "binary_big_endian": ">"}[form]
    codes = {
        "uchar": "B",
        "char": "b",
        "ushort": "H",
        "short": "h",
        "int": "i",
        "uint": "I",
        "float": "f",
        "double": "d",
    }
    rows = {"vertex": [], "face": []}
    for x, y, z in vertices:
        rows["vertex"].append([(place, z), *[("uchar", 200)] * extra, (place, x), (place, y)])
    for number, corners in enumerate(faces):
        many = [("uchar", number % 3), *[("float", 0.5)] * (number % 3)] * extra
        rows["face"].append(
            [*many, (length, len(corners)), *((index, one) for one in corners), *[("uchar", 7)] * extra]
        )
    names = ["face", "vertex"] if vertex_last else ["vertex", "face"]
    header = ["ply", f"format {form} 1.0", "comment by hand", "obj_info 3"]
    header += [line for name in names for line in {"vertex": vertex, "face": face}[name]]
    data = "\n".join([*header, "end_header\n"]).encode()
    for name in names:
        for row in rows[name]:
            if order is None:
                data += (" ".join(str(value) for _, value in row) + "\n").encode()
            else:
                data += b"".join(struct.pack(order + codes[kind], value) for kind, value in row)
    return data


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize(
    ("length", "index", "place"),
    [("uchar", "int", "float"), ("int", "uint", "double"), ("ushort", "uchar", "float"), ("uint", "short", "double")],
)
@pytest.mark.parametrize(("extra", "vertex_last"), [(True, False), (False, True)])
def test_a_ply_may_have_faces_of_mixed_size_and_numbers_of_any_kind(
    form, length, index, place, extra, vertex_last, tmp_path
):
    path = tmp_path / "c.ply"
    path.write_bytes(ply_data(*prism(C, 3), form, length, index, place, extra, vertex_last))
    assert measured(path) == (28, pytest.approx(7.0), pytest.approx(30.0), [0, 0, 0, 3, 3, 1])


def test_a_ply_with_a_header_of_windows_is_read(tmp_path):
    data = ply_data(CUBE, QUADS, "binary_little_endian", "uchar", "int")
    header, _, body = data.partition(b"end_header\n")
    path = tmp_path / "cube.ply"
    path.write_bytes((header + b"end_header\n").replace(b"\n", b"\r\n") + body)
    assert measured(path) == CUBE_AS_READ


def strips_of_a_cube(joint):
    strip = []
    for a, b, c, d in QUADS:
        strip += [*joint(strip, a), a, b, d, c]
    return strip


@pytest.mark.parametrize("form", ["ascii", "binary_big_endian"])
def test_triangle_strips_of_a_ply_are_faces(form, tmp_path):
    strip = strips_of_a_cube(lambda strip, first: [-1] if strip else [])
    data = ply_data(CUBE, [strip], form, "int", "int", extra=False).replace(b"element face", b"element tristrips")
    path = tmp_path / "strips.ply"
    path.write_bytes(data)
    assert measured(path) == CUBE_AS_READ
    dataset = MODALITIES.get("shape")(MODALITIES.get("shape").Options(resolution=16)).read(path)
    assert dataset.extent[0] < 0 < dataset.extent[1]


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("left", [0.3, 0.9, 0.99])
def test_a_ply_that_ends_early_is_refused(form, left, tmp_path):
    data = ply_data(*prism(C), form, "uchar", "int")
    refused(tmp_path / "cut.ply", data[: int(left * len(data))], "damaged")


def test_a_ply_whose_faces_have_a_negative_vertex_is_refused(tmp_path):
    data = ply_data(CUBE, [(0, 1, -2), *QUADS], "binary_little_endian", "uchar", "int")
    refused(tmp_path / "negative.ply", data, "do not exist")
    flat = ply_data(CUBE, QUADS, "ascii", "uchar", "int", extra=False).replace(b"float z", b"float w")
    refused(tmp_path / "flat.ply", flat, "without z")
    other = ply_data(CUBE, QUADS, "ascii", "uchar", "int", extra=False).replace(b"float x", b"half x")
    refused(tmp_path / "half.ply", other, "half x")


# OFF


def off_text(word, vertices, faces, behind="", colour=""):
    lines = [word, "# a comment", "", f"{len(vertices)} {len(faces)} 0  # counts"]
    lines += [" ".join(map(str, place)) + behind for place in vertices]
    return lines + [f"{len(face)} " + " ".join(map(str, face)) + colour + " # a face" for face in faces]


@pytest.mark.parametrize(
    "lines",
    [
        off_text("OFF", *prism(C)),
        off_text("COFF", *prism(C), " 255 0 0 255", " 0.2 0.3 0.4"),
        off_text("NOFF", *prism(C), " 0 0 1", " 3"),
        off_text("NCOFF", *prism(C), " 255 255 255 255 0 0 1"),
        off_text("STCNOFF", *prism(C), " 0 0 1 1 1 1 1 0 0", " 200 0 0"),
        off_text("4OFF", np.c_[prism(C)[0] * 2, np.full(16, 2)], prism(C)[1]),
        ["OFF16 10 0", *off_text("", *prism(C))[4:]],
        ["OFF 16 10 0", *off_text("", *prism(C))[4:]],
        ["OFF", "16 10", *off_text("", *prism(C))[4:]],
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_off_may_have_faces_of_mixed_size_colours_and_comments(lines, end, tmp_path):
    path = tmp_path / "c.off"
    path.write_bytes(end.join(lines).encode())  # with no end to the last line
    assert measured(path) == (28, pytest.approx(7.0), pytest.approx(30.0), [0, 0, 0, 3, 3, 1])


def test_an_off_that_is_binary_or_cut_is_refused(tmp_path):
    refused(tmp_path / "binary.off", b"OFF BINARY\n" + bytes(200), "binary")
    refused(tmp_path / "n.off", b"nOFF\n4\n" + bytes(200), "nOFF")
    refused(tmp_path / "cut.off", "\n".join(off_text("OFF", *prism(C))[:-3]).encode(), "damaged")
    refused(tmp_path / "short.off", "\n".join([*off_text("OFF", *prism(C))[:-1], "4 0 1"]).encode(), "damaged")


# STL


def stl_text(triangles, name):
    lines = [f"solid {name}"]
    for triangle in triangles:
        lines += ["  facet normal 0 0 0", "    outer loop"]
        lines += [f"      vertex {x:.8e} {y:.8e} {z:.8e}" for x, y, z in triangle]
        lines += ["    endloop", "  endfacet"]
    return "\n".join([*lines, f"endsolid {name}"])


def cube_triangles(center=(0, 0, 0)):
    return (CUBE + center)[triangulated(polygons(CUBE, QUADS))]


def test_all_solids_of_a_text_stl_are_read(tmp_path):
    text = stl_text(cube_triangles(), "vertex one") + "\n" + stl_text(cube_triangles((0, 5, 0)), "")
    path = tmp_path / "two.stl"
    for data in (text, text.upper(), text.replace("\n", "\r\n"), text.replace("endsolid", "end solid")):
        path.write_bytes(data.encode())
        assert measured(path) == (24, pytest.approx(16.0), pytest.approx(48.0), [-1, -1, -1, 1, 6, 1])
    refused(path, text[: len(text) // 2].encode(), "damaged")


@pytest.mark.parametrize("header", [b"solid made by a program", b"\x00", b"solid facet normal outer loop vertex"])
@pytest.mark.parametrize("behind", [b"", b"\0trailing bytes"])
def test_a_binary_stl_is_known_by_its_size(header, behind, tmp_path):
    records = b"".join(struct.pack("<12fH", 0, 0, 0, *row.reshape(-1), 0) for row in cube_triangles())
    path = tmp_path / "cube.stl"
    path.write_bytes(header.ljust(80, b" ") + struct.pack("<I", 12) + records + behind)
    assert measured(path) == CUBE_AS_READ


# glTF


class Gltf:
    """A glTF document in the making."""

    def __init__(self, **more):
        self.blob = b""
        self.document = {"asset": {"version": "2.0"}, "scene": 0, "accessors": [], "bufferViews": [], **more}

    def view(self, data, **more):
        self.blob += b"\0" * (-len(self.blob) % 4)
        self.document["bufferViews"].append(
            {"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data), **more}
        )
        self.blob += data
        return len(self.document["bufferViews"]) - 1

    def accessor(self, array, kind, code, view=None, **more):
        """Number of an accessor of (count, width) values."""
        view = {"bufferView": self.view(array.tobytes())} if view is None else view
        entry = {**view, "componentType": code, "count": len(array), "type": kind, **more}
        self.document["accessors"].append(entry)
        return len(self.document["accessors"]) - 1

    def mesh(self, vertices, indices=None, code=5125, mode=None, **more):
        kinds = {5121: "<u1", 5123: "<u2", 5125: "<u4"}
        primitive = {"attributes": {"POSITION": self.accessor(np.asarray(vertices, "<f4"), "VEC3", 5126)}, **more}
        if indices is not None:
            primitive["indices"] = self.accessor(np.asarray(indices, kinds[code]).reshape(-1), "SCALAR", code)
        if mode is not None:
            primitive["mode"] = mode
        self.document.setdefault("meshes", []).append({"primitives": [primitive]})
        return primitive

    def scene(self, *nodes, roots=None):
        self.document["nodes"] = list(nodes)
        self.document["scenes"] = [{"nodes": list(range(len(nodes))) if roots is None else roots}]
        return self

    def save(self, path):
        self.document["buffers"] = [{"byteLength": len(self.blob)}]
        text = json.dumps(self.document).encode()
        text += b" " * (-len(text) % 4)
        blob = self.blob + b"\0" * (-len(self.blob) % 4)
        body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + blob
        path.write_bytes(struct.pack("<III", 0x46546C67, 2, 12 + len(body)) + body)
        return path


TRIANGLES = triangulated(polygons(CUBE, QUADS))


@pytest.mark.parametrize("code", [5121, 5123, 5125])
def test_indices_of_every_width_are_read(code, tmp_path):
    gltf = Gltf()
    gltf.mesh(CUBE, TRIANGLES, code)
    assert measured(gltf.scene({"mesh": 0}).save(tmp_path / "cube.glb")) == CUBE_AS_READ


def test_triangles_strips_fans_and_vertices_without_indices_are_faces(tmp_path):
    joined = strips_of_a_cube(lambda strip, first: [strip[-1], first] if strip else [])
    strip, plain, fans = Gltf(), Gltf(), Gltf()
    strip.mesh(CUBE, joined, mode=5)
    plain.mesh(CUBE[TRIANGLES].reshape(-1, 3))
    for quad in QUADS:
        fans.mesh(CUBE, quad, mode=6)
    assert measured(strip.scene({"mesh": 0}).save(tmp_path / "strip.glb")) == CUBE_AS_READ
    assert measured(plain.scene({"mesh": 0}).save(tmp_path / "plain.glb")) == CUBE_AS_READ
    assert measured(fans.scene(*({"mesh": n} for n in range(6))).save(tmp_path / "fans.glb")) == CUBE_AS_READ
    assert notes(tmp_path / "strip.glb") == []


@pytest.mark.parametrize(("code", "kind", "top"), [(5122, "<i2", 32767), (5120, "<i1", 127), (5123, "<u2", 65535)])
def test_normalized_integers_are_shares_of_one(code, kind, top, tmp_path):
    gltf = Gltf(extensionsRequired=["KHR_mesh_quantization"])
    gltf.mesh(CUBE, TRIANGLES)
    rows = np.zeros((8, 4), kind)  # four bytes or eight a vertex, the last ones padding
    rows[:, :3] = np.round((CUBE if kind[1] == "i" else (CUBE + 1) / 2) * top)
    view = {"bufferView": gltf.view(rows.tobytes(), byteStride=rows.strides[0])}
    number = gltf.accessor(rows, "VEC3", code, view, normalized=True)
    gltf.document["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = number
    gltf.scene({"mesh": 0, "scale": [3, 3, 3], "translation": [5, 0, 0]})
    low = [2, -3, -3] if kind[1] == "i" else [5, 0, 0]
    assert measured(gltf.save(tmp_path / "small.glb"))[3] == [*low, 8, 3, 3]


def test_nested_nodes_turn_mirror_and_place_their_meshes(tmp_path):
    gltf = Gltf()
    gltf.mesh(CUBE * [1, 2, 3], TRIANGLES)
    quarter = [0, 0, np.sqrt(0.5), np.sqrt(0.5)]  # about z: x to y
    mirror = np.diag([-2.0, 1.0, 1.0, 1.0])
    mirror[:3, 3] = [0, 0, 10]
    gltf.scene(
        {"children": [1], "translation": [10, 0, 0]},
        {"children": [2], "rotation": quarter},
        {"mesh": 0, "matrix": mirror.T.reshape(-1).tolist()},
        {"mesh": 0, "translation": [0, 0, -20]},
        {"mesh": 0, "translation": [1e6, 0, 0]},  # in no scene
        roots=[0, 3],
    )
    path = gltf.save(tmp_path / "nested.glb")
    # The mirrored box is 4×4×6, its x along y, about (10, 0, 10); the other 2×4×6 about (0, 0, −20).
    assert measured(path) == (24, pytest.approx(96 + 48), pytest.approx(128 + 88), [-1, -2, -23, 12, 2, 13])
    assert notes(path) == []


def test_points_of_a_glb_have_their_normals_where_the_scene_puts_them(tmp_path):
    random = np.random.default_rng(0)
    directions = random.normal(size=(200, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    gltf = Gltf()
    gltf.mesh(directions, mode=0)["attributes"]["NORMAL"] = gltf.accessor(directions.astype("<f4"), "VEC3", 5126)
    gltf.mesh(directions[:50] + 9, mode=0)
    quarter = [0, 0, np.sqrt(0.5), np.sqrt(0.5)]
    # A sphere turned and stretched is an ellipsoid, x²/9 + y²/4 + z² = 1, whose normals are along its form's gradient.
    gltf.scene({"mesh": 0, "scale": [-2, 3, 1], "rotation": quarter, "translation": [5, 0, 0]}, {"mesh": 1})
    held = read_polygons(gltf.save(tmp_path / "cloud.glb"))
    assert not held.has_faces
    gradients = (held.vertices[:200] - [5, 0, 0]) / [9, 4, 1]
    gradients /= np.linalg.norm(gradients, axis=1, keepdims=True)
    lengths = np.linalg.norm(held.normals[:200], axis=1, keepdims=True)
    np.testing.assert_allclose(held.normals[:200] / lengths, gradients, atol=1e-5)
    assert np.isnan(held.normals[200:]).all()
    alone = Gltf()
    alone.mesh(directions, mode=0)
    assert read_polygons(alone.scene({"mesh": 0}).save(tmp_path / "alone.glb")).normals is None


def test_copies_of_a_mesh_by_instancing_are_read(tmp_path):
    gltf = Gltf(extensionsRequired=["EXT_mesh_gpu_instancing"])
    gltf.mesh(CUBE, TRIANGLES)
    where = gltf.accessor(np.array([(0, 0, 0), (9, 0, 0)], "<f4"), "VEC3", 5126)
    sizes = gltf.accessor(np.array([(1, 1, 1), (2, 1, 1)], "<f4"), "VEC3", 5126)
    attributes = {"TRANSLATION": where, "SCALE": sizes}
    gltf.scene({"mesh": 0, "extensions": {"EXT_mesh_gpu_instancing": {"attributes": attributes}}})
    expected = (24, pytest.approx(24.0), pytest.approx(64.0), [-1, -1, -1, 11, 1, 1])
    assert measured(gltf.save(tmp_path / "copies.glb")) == expected


def test_sparse_values_replace_those_of_the_buffer(tmp_path):
    gltf = Gltf()
    gltf.mesh(CUBE, TRIANGLES)
    top = np.flatnonzero(CUBE[:, 2] > 0).astype("<u2")
    sparse = {
        "count": 4,
        "indices": {"bufferView": gltf.view(top.tobytes()), "componentType": 5123},
        "values": {"bufferView": gltf.view((CUBE[top] * [1, 1, 5]).astype("<f4").tobytes())},
    }
    gltf.document["accessors"][0]["sparse"] = sparse
    assert measured(gltf.scene({"mesh": 0}).save(tmp_path / "sparse.glb"))[3] == [-1, -1, -1, 1, 1, 5]


def test_interleaved_vertices_are_read_by_their_stride(tmp_path):
    gltf = Gltf()
    primitive = gltf.mesh(CUBE, TRIANGLES)
    rows = np.hstack([np.full((8, 3), 77.0), CUBE]).astype("<f4")
    view = {"bufferView": gltf.view(rows.tobytes(), byteStride=24), "byteOffset": 12}
    primitive["attributes"] = {"POSITION": gltf.accessor(rows, "VEC3", 5126, view)}
    assert measured(gltf.scene({"mesh": 0}).save(tmp_path / "mixed.glb")) == CUBE_AS_READ


def test_a_skin_holds_the_mesh_in_the_pose_of_its_joints_and_morphs_move_it(tmp_path):
    gltf = Gltf()
    primitive = gltf.mesh(CUBE, TRIANGLES)
    bound = np.stack([np.eye(4), np.eye(4)])
    bound[1, :3, 3] = [0, 0, -1]
    binds = gltf.accessor(bound.transpose(0, 2, 1).reshape(2, 16).astype("<f4"), "MAT4", 5126)
    joints = np.zeros((8, 4), "<u1")
    joints[:, 0] = CUBE[:, 2] > 0
    weights = np.tile(np.array([255, 0, 0, 0], "<u1"), (8, 1))
    primitive["attributes"] |= {
        "JOINTS_0": gltf.accessor(joints, "VEC4", 5121),
        "WEIGHTS_0": gltf.accessor(weights, "VEC4", 5121, normalized=True),
    }
    wider = gltf.accessor(np.where(CUBE[:, :1] > 0, [[2.0, 0, 0]], [[0.0, 0, 0]]).astype("<f4"), "VEC3", 5126)
    primitive["targets"] = [{"POSITION": wider}]
    gltf.document["skins"] = [{"joints": [1, 2], "inverseBindMatrices": binds}]
    gltf.scene(
        {"mesh": 0, "skin": 0, "weights": [0.5], "translation": [100, 0, 0]},
        {"translation": [0, 0, 0]},
        {"translation": [0, 0, 4]},
    )
    # The top, one above its joint, goes with it from z = 1 to 4; the node's own place counts for nothing.
    assert measured(gltf.save(tmp_path / "skin.glb"))[3] == [-1, -1, -1, 2, 1, 4]


def test_a_gltf_finds_its_buffer_inside_or_beside_it(tmp_path):
    gltf = Gltf()
    gltf.mesh(CUBE, TRIANGLES)
    document = gltf.scene({"mesh": 0}).document
    path = tmp_path / "cube.gltf"
    inside = "data:application/octet-stream;base64," + base64.b64encode(gltf.blob).decode()
    path.write_text(json.dumps({**document, "buffers": [{"byteLength": len(gltf.blob), "uri": inside}]}))
    assert measured(path) == CUBE_AS_READ
    text = json.dumps({**document, "buffers": [{"byteLength": len(gltf.blob), "uri": "the%20cube.bin"}]})
    refused(path, text.encode(), "needs the file the%20cube.bin")
    (tmp_path / "the cube.bin").write_bytes(gltf.blob)
    assert measured(path) == CUBE_AS_READ


@pytest.mark.parametrize(
    ("extension", "name"), [("KHR_draco_mesh_compression", "Draco"), ("EXT_meshopt_compression", "meshopt")]
)
@pytest.mark.parametrize("required", [True, False])
def test_a_compressed_glb_says_what_it_is_compressed_with(extension, name, required, tmp_path):
    gltf = Gltf(**({"extensionsRequired": [extension]} if required else {}))
    primitive = gltf.mesh(CUBE, TRIANGLES)
    if name == "Draco":
        primitive["extensions"] = {extension: {"bufferView": 0}}
        for accessor in gltf.document["accessors"]:
            del accessor["bufferView"]
    else:
        gltf.document["bufferViews"][0]["extensions"] = {extension: {"buffer": 0}}
    path = gltf.scene({"mesh": 0}).save(tmp_path / "compressed.glb")
    refused(path, path.read_bytes(), name)


def test_a_glb_that_is_old_or_refers_beyond_itself_is_refused(tmp_path):
    gltf = Gltf()
    primitive = gltf.mesh(CUBE, TRIANGLES + 1)
    path = gltf.scene({"mesh": 0}).save(tmp_path / "beyond.glb")
    refused(path, path.read_bytes(), "do not exist")
    refused(path, path.read_bytes().replace(struct.pack("<I", 2), struct.pack("<I", 1), 1), "glTF 1")
    primitive["indices"] = 99
    refused(path, gltf.save(path).read_bytes(), "damaged")
    gltf.document["bufferViews"][0]["byteOffset"] = 10**6
    primitive["indices"] = 1
    refused(path, gltf.save(path).read_bytes(), "damaged")
    gltf.document["nodes"] = [{"children": [0], "mesh": 0}]
    refused(path, gltf.save(path).read_bytes(), "two parents")


# Meshes that are wrong in themselves


def saved(tmp_path, vertices, faces):
    write_mesh(tmp_path / "mesh.ply", np.asarray(vertices, dtype=float), np.asarray(faces))
    return tmp_path / "mesh.ply"


def test_a_wall_between_two_parts_that_touch_is_inside(tmp_path):
    other = CUBE + np.array([2, 0, 0])
    vertices = np.vstack([CUBE, other])
    second = TRIANGLES + 8
    # The wall's triangles are the same on both sides: x = 1 of the first, x = 1 of the second.
    wall = [face for face in TRIANGLES if (CUBE[face, 0] == 1).all()]
    same = {tuple(other[index]): 8 + index for index in range(8)}
    second = [face for face in second if not (vertices[face, 0] == 1).all()]
    second += [[same[tuple(CUBE[index])] for index in face[::-1]] for face in wall]
    for part in (second, [face[::-1] for face in second]):
        path = saved(tmp_path, vertices, [*TRIANGLES, *part])
        solid = Solid.read(path, 0.05)
        assert "walls inside" in solid.notes[0]
        assert measured(path) == (20, pytest.approx(16.0), pytest.approx(40.0), [-1, -1, -1, 3, 1, 1])
        assert solid.inside((np.array([(0.9, 0.3, 0.2), (1.1, 0.3, 0.2)]) - solid.center) / solid.scale).all()


def test_a_mesh_whose_faces_are_written_from_both_sides_is_taken_once(tmp_path):
    path = saved(tmp_path, CUBE, [*TRIANGLES, *TRIANGLES[:, ::-1]])
    assert measured(path) == CUBE_AS_READ
    assert notes(path) == ["duplicate faces were taken once: 12"]


def test_an_inside_out_hollow_part_keeps_its_cavity_beside_a_larger_part(tmp_path):
    shells = [(CUBE * 5, TRIANGLES), (CUBE + np.array([20, 0, 0]), TRIANGLES[:, ::-1])]
    inner = (CUBE / 2 + np.array([20, 0, 0]), TRIANGLES[:, ::-1])
    for parts in ([*shells, inner], [inner, *shells]):
        vertices = np.vstack([places for places, _ in parts])
        path = saved(tmp_path, vertices, np.vstack([faces + 8 * number for number, (_, faces) in enumerate(parts)]))
        solid = Solid.read(path, 0.05)
        assert measured(path)[1] == pytest.approx(1000 + 8 - 1)
        points = np.array([(0, 0, 0), (20, 0, 0), (20.8, 0, 0)])
        assert solid.inside((points - solid.center) / solid.scale).tolist() == [True, False, True]
        assert solid.notes == ["parts of the mesh that are inside out were turned: 1"]


def test_thousands_of_parts_are_turned_outwards(tmp_path):
    """Each part alone would be asked for in turn against all the others: minutes, not seconds, for 4,000."""
    places = np.stack(np.meshgrid(*[np.arange(16) * 3.0] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:4000]
    vertices = (CUBE[None] + places[:, None]).reshape(-1, 3)
    faces = TRIANGLES[None] + 8 * np.arange(4000)[:, None, None]
    faces[::3] = faces[::3, :, ::-1]
    path = saved(tmp_path, vertices, faces.reshape(-1, 3))
    assert measured(path)[:3] == (48000, pytest.approx(32000.0), pytest.approx(96000.0))
    assert notes(path) == ["parts of the mesh that are inside out were turned: 1,334"]


# Far from the origin


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".stl", ".glb"])
@pytest.mark.parametrize("offset", [(0, 0, 0), (512345.25, 4612345.75, 130.5)])
def test_a_mesh_far_from_the_origin_is_written_and_read_where_it_is(suffix, offset, tmp_path):
    ball = trimesh.creation.icosphere(3, 6.0)
    path = tmp_path / f"ball{suffix}"
    write_mesh(path, ball.vertices + offset, ball.faces)
    for vertices in (read_polygons(path).vertices, trimesh.load(path, process=False, force="mesh").vertices):
        np.testing.assert_allclose(np.linalg.norm(vertices - offset, axis=1), 6.0, rtol=1e-6)
    count, volume, area, _ = measured(path)
    assert count == len(ball.faces)
    assert (volume, area) == (pytest.approx(ball.volume, rel=1e-6), pytest.approx(ball.area, rel=1e-6))
    assert notes(path) == []


def test_coordinates_too_far_for_single_precision_are_said_so(tmp_path):
    path = tmp_path / "far.ply"
    ball = trimesh.creation.icosphere(3, 6.0)
    trimesh.Trimesh(ball.vertices + np.array([512345.25, 4612345.75, 130.5]), ball.faces, process=False).export(path)
    assert any("0.5 apart" in note for note in notes(path))


def test_file_with_too_many_copies_of_a_part_is_refused_before_they_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr("inrkit.signals.decoding.available_memory", lambda: 2**30)
    gltf = Gltf()
    gltf.mesh(np.random.default_rng(0).random((30_000, 3)))
    path = gltf.scene(*[{"mesh": 0}] * 300).save(tmp_path / "copies.glb")
    tracemalloc.start()
    with pytest.raises(DataError, match=r"takes 1\.1 GiB of memory and .* save it with fewer copies"):
        read_polygons(path)
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()
