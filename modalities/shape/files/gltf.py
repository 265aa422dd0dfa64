"""glTF 2.0: .glb, and .gltf with its buffers inside or beside it.

Source: Khronos glTF 2.0 specification, sections 3.5 to 3.7, and KHR_mesh_quantization, EXT_mesh_gpu_instancing.
"""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from inrkit.errors import DataError
from inrkit.modalities.shape.files.polygons import Polygons, of_triangles, strip_triangles
from inrkit.signals.decoding import require_memory

_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_DRACO = "KHR_draco_mesh_compression"
_COMPRESSED = (_DRACO, "EXT_meshopt_compression", "KHR_meshopt_compression")


def read(path: Path) -> Polygons:
    """The triangles of the scene that a viewer would show: where its nodes put them, in the pose of the file.

    Skins and morph targets are as they are at rest. Points and lines are left out; a scene of points alone gives
    vertices without faces, and their normals where it has any, NaN where it has none.

    Raises:
        DataError: the file is damaged, or compressed in a way that is not read.
    """
    scene = _Scene(path)
    vertices: list[np.ndarray] = []
    faces: list[np.ndarray] = []
    points: list[np.ndarray] = []
    normals: list[np.ndarray | None] = []
    count = 0
    for places, triangles, directions in scene.parts():
        if len(triangles):
            vertices.append(places)
            faces.append(triangles + count)
            count += len(places)
        else:
            points.append(places)
            normals.append(directions)
    if faces:
        return of_triangles(np.concatenate(vertices), np.concatenate(faces))
    cloud = of_triangles(np.concatenate([np.empty((0, 3)), *points]), np.empty((0, 3), dtype=np.int64))
    if any(part is not None for part in normals):
        whole = [np.full_like(at, np.nan) if part is None else part for part, at in zip(normals, points, strict=True)]
        cloud.normals = np.concatenate(whole)
    return cloud


def data_of(vertices: np.ndarray, faces: np.ndarray, far: bool) -> bytes:
    """A .glb of (V, 3) vertices, in single precision, and (F, 3) triangles.

    Where they are `far` from the origin the node's translation, which is text, is their middle.
    """
    document: dict[str, Any] = {"asset": {"version": "2.0", "generator": "inrkit"}, "scene": 0, "scenes": [{}]}
    blob = b""
    if len(faces):
        middle = vertices.min(axis=0) / 2 + vertices.max(axis=0) / 2 if far else np.zeros(3)
        places = (vertices - middle).astype("<f4")
        corners = faces.astype("<u4")
        blob = places.tobytes() + corners.tobytes()
        document["scenes"] = [{"nodes": [0]}]
        document["nodes"] = [{"mesh": 0, "translation": middle.tolist()} if far else {"mesh": 0}]
        document["meshes"] = [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}]
        extent = {"min": places.min(axis=0).tolist(), "max": places.max(axis=0).tolist()}
        document["accessors"] = [
            {"bufferView": 0, "componentType": 5126, "count": len(places), "type": "VEC3", **extent},
            {"bufferView": 1, "componentType": 5125, "count": corners.size, "type": "SCALAR"},
        ]
        document["bufferViews"] = [
            {"buffer": 0, "byteOffset": 0, "byteLength": places.nbytes, "target": 34962},
            {"buffer": 0, "byteOffset": places.nbytes, "byteLength": corners.nbytes, "target": 34963},
        ]
        document["buffers"] = [{"byteLength": len(blob)}]
    text = json.dumps(document).encode()
    chunks = [(_JSON, text + b" " * (-len(text) % 4))] + [(_BIN, blob)] * bool(blob)
    body = b"".join(_words(len(data), kind) + data for kind, data in chunks)
    return _words(_MAGIC, 2, 12 + len(body)) + body


def _turned(normals: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(V, 3) normals of what a (3, 3) matrix moves, of any length; NaN where it flattens all."""
    if abs(np.linalg.det(matrix)) < np.finfo(float).tiny:
        return np.full_like(normals, np.nan)
    turned: np.ndarray = normals @ np.linalg.inv(matrix)
    return turned


def _words(*numbers: int) -> bytes:
    return np.array(numbers, dtype="<u4").tobytes()


class _Scene:
    """A document and its buffers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        self._size = len(data)
        self._embedded: bytes | None = None
        text = self._chunks(data) if data[:4] == b"glTF" else data.removeprefix(b"\xef\xbb\xbf")
        try:
            self.document: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path} is no {path.suffix.lower()} file, or is damaged ({error})") from None
        version = str(self._items("asset", {}).get("version", "1"))
        if not version.startswith("2"):
            raise DataError(f"{path} is glTF {version}; only glTF 2 is read")
        self._buffers: dict[int, bytes] = {}
        required = self._items("extensionsRequired", [])
        compressed = [name for name in _COMPRESSED if name in required]
        if compressed:
            raise self._compressed(compressed[0])

    def _items(self, name: str, default: Any = ()) -> Any:
        return self.document.get(name) or default

    def _chunks(self, data: bytes) -> bytes:
        """The text of a .glb; keeps its binary chunk."""
        version, length = (int(number) for number in np.frombuffer(data, "<u4", 2, 4))
        if version != 2:
            raise DataError(f"{self.path} is glTF {version}; only glTF 2 is read")
        if length > len(data):
            raise DataError(f"{self.path} is damaged: it ends before the {length:,} bytes that it announces")
        chunks: dict[int, bytes] = {}
        start = 12
        while start + 8 <= length:
            size, kind = (int(number) for number in np.frombuffer(data, "<u4", 2, start))
            chunks.setdefault(kind, data[start + 8 : start + 8 + size])
            start += 8 + size
        self._embedded = chunks.get(_BIN)
        return chunks[_JSON]

    def _compressed(self, extension: str) -> DataError:
        name = "Draco" if extension == _DRACO else "meshopt"
        return DataError(
            f"{self.path} is compressed with {name} ({extension}), which is not read; save it without compression"
        )

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """(V, 3) vertices in the scene's coordinates and (F, 3) triangles of each primitive; of one of points no
        triangles, but its (V, 3) normals if it has any."""
        nodes, scenes = self._items("nodes"), self._items("scenes")
        if not (nodes or scenes):
            nodes = [{"mesh": number} for number in range(len(self._items("meshes")))]
        placed: dict[int, np.ndarray] = {}
        if scenes:
            roots = scenes[self.document.get("scene", 0)].get("nodes", [])
        else:
            children = {child for node in nodes for child in node.get("children", ())}
            roots = [number for number in range(len(nodes)) if number not in children]
        waiting = [(root, np.eye(4)) for root in reversed(roots)]
        while waiting:
            number, above = waiting.pop()
            if number in placed:
                raise DataError(f"{self.path} is damaged: its node {number} has two parents")
            placed[number] = above @ _transform(nodes[number])
            waiting += [(child, placed[number]) for child in reversed(nodes[number].get("children", ()))]
        copies: Counter[int] = Counter()
        for number in placed:
            if "mesh" in nodes[number]:
                copies[nodes[number]["mesh"]] += self._count_of_instances(nodes[number])
        held = 0
        for number, matrix in placed.items():
            node = nodes[number]
            if "mesh" not in node:
                continue
            mesh = self.document["meshes"][node["mesh"]]
            expected = copies.pop(node["mesh"], 0)  # all copies are counted with the first
            for primitive in mesh["primitives"]:
                places = self._places(primitive, node.get("weights", mesh.get("weights", ())))
                triangles = self._triangles(primitive, len(places))
                if triangles is None:
                    continue
                held += expected * (places.nbytes + triangles.nbytes)
                require_memory(self.path, 4 * held, "save it with fewer copies of its parts")
                if "skin" in node:
                    yield self._skinned(primitive, node["skin"], places, placed), triangles, None
                    continue
                points = not len(triangles) and "NORMAL" in primitive["attributes"]
                normals = self._attribute(primitive, "NORMAL") if points else None
                for instance in self._instances(node):
                    whole = matrix @ instance
                    # A mirrored part is seen from its other side.
                    turned = triangles if np.linalg.det(whole[:3, :3]) >= 0 else triangles[:, ::-1]
                    upright = None if normals is None else _turned(normals, whole[:3, :3])
                    yield places @ whole[:3, :3].T + whole[:3, 3], turned, upright

    def _places(self, primitive: dict[str, Any], weights: Any) -> np.ndarray:
        """(V, 3) vertices of a primitive, moved by its morph targets."""
        if "POSITION" not in primitive["attributes"]:
            return np.empty((0, 3))
        places = self._attribute(primitive, "POSITION")
        for weight, target in zip(weights, primitive.get("targets", ()), strict=False):
            if "POSITION" in target and weight:
                places = places + weight * self._accessor(target["POSITION"])
        return places

    def _attribute(self, primitive: dict[str, Any], name: str) -> np.ndarray:
        accessor = self.document["accessors"][primitive["attributes"][name]]
        if "bufferView" not in accessor and _DRACO in primitive.get("extensions", {}):
            raise self._compressed(_DRACO)
        return self._accessor(primitive["attributes"][name])

    def _triangles(self, primitive: dict[str, Any], count: int) -> np.ndarray | None:
        """(F, 3) triangles of a primitive with `count` vertices, none of points; None of lines."""
        mode = primitive.get("mode", _TRIANGLES)
        if mode == 0:
            return np.empty((0, 3), dtype=np.int64)
        if mode not in (_TRIANGLES, _STRIP, _FAN):
            return None
        corners = np.arange(count)
        if "indices" in primitive:
            corners = self._accessor(primitive["indices"])[:, 0].astype(np.int64)
        if len(corners) and corners.max() >= count:
            raise DataError(f"{self.path} has faces whose vertices do not exist; check how it was written")
        if mode == _STRIP:
            return strip_triangles(corners)
        if mode == _FAN:
            fan = np.stack([np.broadcast_to(corners[:1], corners[2:].shape), corners[1:-1], corners[2:]], axis=1)
            return fan[(fan != np.roll(fan, 1, axis=1)).all(axis=1)]
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)

    def _skinned(
        self, primitive: dict[str, Any], number: int, places: np.ndarray, placed: dict[int, np.ndarray]
    ) -> np.ndarray:
        """(V, 3) vertices where the joints of skin `number` hold them, as the nodes stand; the mesh's own node counts
        for nothing."""
        skin = self.document["skins"][number]
        joints = np.stack([placed.get(joint, np.eye(4)) for joint in skin["joints"]])
        if "inverseBindMatrices" in skin:
            bound = self._accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
            joints = joints @ bound[: len(joints)]
        whole = np.zeros((len(places), 4, 4))
        total = np.zeros(len(places))
        for group in range(len(primitive["attributes"])):
            if f"JOINTS_{group}" not in primitive["attributes"]:
                break
            which = self._attribute(primitive, f"JOINTS_{group}").astype(np.int64)
            weights = self._attribute(primitive, f"WEIGHTS_{group}")
            for one in range(4):
                whole += weights[:, one, None, None] * joints[which[:, one]]
            total += weights.sum(axis=1)
        whole /= np.where(total > 0, total, 1)[:, None, None]
        return np.einsum("vij,vj->vi", whole[:, :3, :3], places) + whole[:, :3, 3]

    def _count_of_instances(self, node: dict[str, Any]) -> int:
        """How many copies of its mesh a node shows."""
        instancing = node.get("extensions", {}).get("EXT_mesh_gpu_instancing")
        if instancing is None:
            return 1
        counts = [self.document["accessors"][number]["count"] for number in instancing["attributes"].values()]
        return int(max(counts, default=0))

    def _instances(self, node: dict[str, Any]) -> Iterator[np.ndarray]:
        """(4, 4) transforms of the copies of a node's mesh."""
        instancing = node.get("extensions", {}).get("EXT_mesh_gpu_instancing")
        if instancing is None:
            yield np.eye(4)
            return
        columns = {name.lower(): self._accessor(number) for name, number in instancing["attributes"].items()}
        names = [name for name in ("translation", "rotation", "scale") if name in columns]
        for rows in zip(*(columns[name] for name in names), strict=True):
            yield _transform(dict(zip(names, rows, strict=True)))

    def _accessor(self, number: int) -> np.ndarray:
        """(count, width) float64 values."""
        accessor = self.document["accessors"][number]
        kind, width, count = np.dtype(_TYPES[accessor["componentType"]]), _WIDTHS[accessor["type"]], accessor["count"]
        if "bufferView" in accessor:
            values = self._view(accessor["bufferView"], accessor.get("byteOffset", 0), kind, width, count)
        else:
            if count > self._size:  # without a place in the file it can only stand beside one that has
                raise DataError(f"{self.path} is damaged: it promises {count:,} values that are not in it")
            values = np.zeros((count, width), dtype=kind)
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            where, new = sparse["indices"], sparse["values"]
            integer = np.dtype(_TYPES[where["componentType"]])
            rows = self._view(where["bufferView"], where.get("byteOffset", 0), integer, 1, sparse["count"])[:, 0]
            values = values.copy()
            values[rows] = self._view(new["bufferView"], new.get("byteOffset", 0), kind, width, sparse["count"])
        if accessor.get("normalized") and kind.kind in "iu":
            return np.maximum(values / np.iinfo(kind).max, -1.0)
        return values.astype(np.float64)

    def _view(self, number: int, offset: int, kind: np.dtype, width: int, count: int) -> np.ndarray:
        """(count, width) values of a part of a buffer."""
        view = self.document["bufferViews"][number]
        for extension in _COMPRESSED:
            if extension in view.get("extensions", {}):
                raise self._compressed(extension)
        buffer = self._buffer(view.get("buffer", 0))
        start, size = view.get("byteOffset", 0) + offset, kind.itemsize * width
        step = view.get("byteStride", size)
        if start < 0 or step < size or (count and start + (count - 1) * step + size > len(buffer)):
            raise DataError(f"{self.path} is damaged: a buffer ends before what it should hold")
        return np.ndarray((count, width), kind, buffer, start, (step, kind.itemsize))

    def _buffer(self, number: int) -> bytes:
        if number not in self._buffers:
            uri = self.document["buffers"][number].get("uri")
            self._buffers[number] = (self._embedded or b"") if uri is None else self._resource(uri)
            self._size += len(self._buffers[number])
        return self._buffers[number]

    def _resource(self, uri: str) -> bytes:
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2])
        beside = self.path.parent / urllib.parse.unquote(uri)
        if urllib.parse.urlsplit(uri).scheme or not beside.is_file():
            raise DataError(f"{self.path} needs the file {uri[:80]} beside it; copy both, or save it as .glb")
        return beside.read_bytes()


def _transform(node: dict[str, Any]) -> np.ndarray:
    """(4, 4) transform of a node: its matrix, or its translation, rotation (a quaternion, x y z w) and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), dtype=np.float64)
    norm = x * x + y * y + z * z + w * w
    x, y, z, w = (value / (norm**0.5 or 1.0) for value in (x, y, z, w))
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array(node.get("scale", (1, 1, 1)), dtype=np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix
