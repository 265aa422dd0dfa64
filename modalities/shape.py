"""Shapes: signed distances to a mesh's surface, or a volume of them, and the surface that a field draws.

Distances are negative inside. A mesh is brought into [−1, 1]³ by a shift and one factor for all axes; the dataset's
affine map is the inverse, and distances are stored in the mesh's own units.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from inrkit.device import available_memory
from inrkit.errors import ConfigError, DataError
from inrkit.evaluation.metrics import METRICS, Metric
from inrkit.plugins.options import option
from inrkit.runs.field import Field
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.decoding import decoding, mapped_array
from inrkit.signals.lattice import cell_affine, lattice_coordinates
from inrkit.signals.modality import MODALITIES, Modality

MESH_SUFFIXES = (".ply", ".obj", ".stl", ".glb")
"""What meshes are written as."""

_QUERIES = 1 << 16
"""Points whose distances are computed at a time."""
_SLAB = 1 << 20
"""Lattice points that are meshed at a time."""
_BYTES_A_COORDINATE = 32
"""What training takes a coordinate: its value, its fitness, and what a step on all coordinates holds besides."""
_BYTES_A_CELL = 64
"""What meshing takes a cell of the slab that it works on."""
_PROBE = 16
"""Cells along each axis of the lattice that tells how steep a field is."""
_HELD_OUT = 1 << 17
"""Points that volumes are compared at."""
_SURFACE_SAMPLES = 1 << 15
"""Points on each of two surfaces that they are compared at."""
_F_SCORE_TOLERANCE = 0.01
"""Of the diagonal of the original's bounding box."""
_EXTENTS = (1e-30, 1e30)
"""Extents of a mesh whose distances float32 holds with full precision."""


@dataclass
class ShapeOptions:
    data: str = option("lattice", choices=("lattice", "points"))
    """What the network learns from: signed distances on a `lattice`, or at free `points`, more of them near the
    surface. A file that is a volume of distances is a lattice already."""
    resolution: int = option(64, at_least=8)
    """Cells along each axis of the lattice."""
    margin: float = option(0.05, at_least=0, below=1)
    """Room between the mesh and the faces of [−1, 1]³, in units of the cube's half side."""
    band: float = option(0.05, above=0)
    """Distance, in units of the cube's half side, beyond which all distances of a mesh count as this one."""
    count: int = option(1 << 18, at_least=16)
    """How many free points there are at a time."""
    near: float = option(0.8, at_least=0, at_most=1)
    """Share of the free points that lie near the surface; the others are uniform in the cube."""
    sigma: float = option(0.03, above=0)
    """Standard deviation, in units of the cube's half side, of a near point's offset from the surface along each
    axis."""
    resample_every: int = option(100, at_least=0)
    """Steps after which the free points are drawn anew; 0 keeps the first ones."""
    seed: int = option(0, at_least=0)
    """Of the free points."""
    export_resolution: int = option(128, at_least=2)
    """Cells along each axis of the lattice that a mesh is drawn from where no other is asked for; a volume's own
    lattice comes before it."""


@METRICS.register("sign_iou")
class SignIoU(Metric):
    """Intersection over union of where prediction and signal are negative, over the training samples."""

    title = "sign IoU"

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        super().__init__(shape, channels, peak)
        self._both = 0
        self._either = 0

    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        inside, expected = prediction < 0, target < 0
        self._both += int((inside & expected).sum())
        self._either += int((inside | expected).sum())

    def compute(self) -> float:
        return self._both / self._either if self._either else 1.0


@MODALITIES.register("shape")
class Shape(Modality):
    """Meshes, and volumes of signed distances, negative inside."""

    Options = ShapeOptions
    metrics = ("psnr", "sign_iou")
    sample_suffix = ".ply"

    @property
    def operator(self) -> str:  # type: ignore[override]
        """The lattice's Laplacian, or that of the nearest neighbours of free points."""
        return "laplacian" if self.options.data == "lattice" else "graph-laplacian"

    def read(self, path: Path) -> CoordinateDataset:
        return self._read_volume(path) if _is_volume(path) else self._read_mesh(path)

    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        """Write (*shape, 1) signed distances: the surface as a mesh, or the distances themselves as .npy."""
        if _checked_suffix(path) == ".npy":
            _save(path, values[..., 0])
            return
        distances = values[..., 0].astype(np.float32)
        steps = (float(np.abs(np.diff(distances, axis=axis)).max(initial=0)) for axis in range(3))
        affine = np.array(metadata["affine"]) if "affine" in metadata else cell_affine(distances.shape)
        surface = extract_surface([distances], distances.shape, max(steps))
        write_mesh(path, *_placed(surface, distances.shape, affine))

    def reconstruction_suffix(self, metadata: dict[str, Any], dtype: np.dtype) -> str:
        return ".ply"

    def export(self, path: Path, field: Field, shape: tuple[int, ...] | None = None, scale: float | None = None) -> str:
        """Write the surface where the field is zero as a mesh, in the original's units, or the field as .npy.

        The surface is drawn from a lattice of `shape`; from the default lattice (`export_resolution`, or that of the
        volume which was fitted), finer by `scale`, otherwise. Where it leaves the cube it is closed by the cube's
        faces. A field without a surface gives a mesh without faces.
        """
        lattice = self._lattice(field, shape, scale)
        if _checked_suffix(path) == ".npy":
            _save(path, field.render(lattice)[..., 0])
            return f"{'×'.join(map(str, lattice))} distances"
        surface = surface_of(field, lattice)
        write_mesh(path, *_placed(surface, lattice, field.affine))
        drawn = f"{len(surface.vertices):,} vertices and {len(surface.faces):,} faces from {_times(lattice)} cells"
        if not len(surface.faces):
            return f"no surface: the field has one sign on {_times(lattice)} cells"
        return f"{drawn}; closed where it leaves the cube" if surface.capped else drawn

    def assess(self, field: Field, path: Path) -> dict[str, float]:
        """How near the field's surface is to that of the file.

        Of a mesh, all at points that do not depend on those of the training:

        - `iou`: volume of the intersection over volume of the union of where the field is negative and where the
          mesh's winding number exceeds one half, by 2¹⁷ points uniform in [−1, 1]³.
        - `chamfer`: mean of the mean distance from the drawn surface to the mesh's and the mean distance back, by
          2¹⁵ points uniform on each, to the nearest point of the other's faces; as a share of the diagonal of the
          mesh's bounding box. Infinite where the field has no surface.
        - `normal_consistency`: mean over the same pairs of |n · n′|.
        - `f_score`: harmonic mean of the shares of points on either surface that are within 1 % of the diagonal of
          the other.

        The drawn surface is that of `export_resolution`. Of a volume, `iou` at the cells of its lattice.
        """
        if _is_volume(path):
            return {"iou": _volume_iou(field, _volume(path))}
        original = Solid.read(path, self.options.margin)
        surface = surface_of(field, self._lattice(field, None, None))
        vertices, faces = _placed(surface, self._lattice(field, None, None), field.affine)
        return {"iou": _mesh_iou(field, original), **_surface_metrics(original, vertices, faces)}

    def sample(self, path: Path) -> None:
        cells = 72
        axis = (2 * np.arange(cells) + 1 - cells) / cells
        distances = _sample_distances(*np.meshgrid(axis, axis, axis, indexing="ij"))
        self.write(path, distances[..., None], {"affine": np.eye(3, 4)})

    def _read_mesh(self, path: Path) -> CoordinateDataset:
        options = self.options
        count = options.resolution**3 if options.data == "lattice" else options.count
        named = "modality.resolution" if options.data == "lattice" else "modality.count"
        needed, there = count * _BYTES_A_COORDINATE, available_memory()
        if needed > there:
            raise DataError(
                f"{named}={getattr(options, named.partition('.')[2])} needs about {needed / 2**30:,.0f} GiB of memory "
                f"and this machine has {there / 2**30:,.0f}; lower it"
            )
        solid = Solid.read(path, options.margin)
        metadata = {"kind": "mesh", "notes": solid.notes, "affine": solid.affine.tolist()}
        if options.data == "lattice":
            shape = (options.resolution,) * 3
            values = np.empty((count, 1), dtype=np.float32)
            for start in range(0, count, _QUERIES):
                indices = torch.arange(start, min(start + _QUERIES, count))
                values[start : start + _QUERIES, 0] = self._values(solid, lattice_coordinates(indices, shape).numpy())
            dataset = CoordinateDataset(values.reshape(*shape, 1), affine=solid.affine, metadata=metadata)
            mend = "close its surface, or raise modality.resolution"
        else:

            def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
                points = self._draw(solid, number)
                values = np.empty((count, 1), dtype=np.float32)
                for start in range(0, count, _QUERIES):
                    part = slice(start, start + _QUERIES)
                    values[part, 0] = self._values(solid, points[part])
                return points, values

            points, values = draw(0)
            dataset = CoordinateDataset(
                values,
                points=points,
                affine=solid.affine,
                metadata=metadata,
                resample=draw,
                resample_every=options.resample_every,
            )
            mend = "close its surface, or raise modality.count"
        if not dataset.extent[0] < 0 < dataset.extent[1]:
            raise DataError(f"{path} encloses no volume that the samples meet; {mend}")
        return dataset

    def _values(self, solid: Solid, points: np.ndarray) -> np.ndarray:
        """(k,) truncated signed distances, in the mesh's units, of (k, 3) points in [−1, 1]³."""
        band = self.options.band
        return np.clip(solid.signed_distance(points), -band, band) * solid.scale

    def _draw(self, solid: Solid, number: int) -> np.ndarray:
        """(N, 3) float32 free points of round `number`."""
        options = self.options
        random = np.random.default_rng([options.seed, number])
        near = round(options.near * options.count)
        points = np.empty((options.count, 3), dtype=np.float32)
        points[near:] = random.uniform(-1, 1, (options.count - near, 3))
        if near:
            on_surface, _ = _sampled(solid.vertices, solid.faces, near, int(random.integers(2**31)))
            points[:near] = np.clip(on_surface + random.normal(0, options.sigma, (near, 3)), -1, 1)
        return points

    def _read_volume(self, path: Path) -> CoordinateDataset:
        if self.options.data != "lattice":
            raise DataError(f"{path} is a volume, which is a lattice; give modality.data=lattice")
        volume = _volume(path)
        affine = cell_affine(volume.shape)
        dataset = CoordinateDataset(
            volume[..., None], affine=affine, metadata={"kind": "volume", "affine": affine.tolist()}
        )
        low, high = dataset.extent
        if not low < 0 < high:
            raise DataError(
                f"{path} has values from {low:.6g} to {high:.6g}, no signed distances: they must be negative inside "
                "and positive outside; subtract the level of the surface"
            )
        return dataset

    def _lattice(self, field: Field, shape: tuple[int, ...] | None, scale: float | None) -> tuple[int, ...]:
        """The lattice that a mesh is drawn from; arguments and errors are those of `Field.lattice`."""
        if shape is not None or field.metadata["kind"] == "volume":
            lattice = field.lattice(shape, scale)
        else:
            if scale is not None and not 0 < scale < math.inf:
                raise ConfigError(f"scale is {scale}; it must be a finite number above 0")
            length = max(2, round(self.options.export_resolution * (scale or 1.0)))
            lattice = field.lattice((length,) * 3)
        needed = lattice[1] * lattice[2] * _BYTES_A_CELL * 2
        if needed > available_memory():
            raise ConfigError(
                f"a lattice of {_times(lattice)} cells needs about {needed / 2**30:,.0f} GiB of memory and this "
                f"machine has {available_memory() / 2**30:,.0f}; give a smaller shape or scale"
            )
        return lattice


class Solid:
    """A mesh in [−1, 1]³: what is near it, and what is inside.

    Inside is where the generalised winding number exceeds one half (Jacobson et al. 2013; Barill et al. 2018 for how
    it is computed), which open and overlapping surfaces have too.

    Args:
        vertices: (V, 3) float64 in [−1, 1]³.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        center: (3,) of the cube, in the mesh's own units.
        scale: half the side of the cube, likewise.
        notes: what was assumed about the mesh.
    """

    def __init__(
        self, vertices: np.ndarray, faces: np.ndarray, center: np.ndarray, scale: float, notes: list[str]
    ) -> None:
        import igl

        self.vertices = vertices
        self.faces = faces
        self.center = center
        self.scale = scale
        self.notes = notes
        self._tree = igl.AABB()
        self._tree.init(vertices, faces)

    @classmethod
    def read(cls, path: Path, margin: float) -> Solid:
        """The mesh in a file: its parts joined, its seams closed, its faces turned outwards.

        Args:
            path: of a mesh.
            margin: room between the mesh and the faces of [−1, 1]³.

        Raises:
            DataError: there is no mesh in the file, or none with a surface.
        """
        vertices, faces = _load(path)
        corners = vertices[np.unique(faces)]
        wrong = int((~np.isfinite(corners)).any(axis=1).sum())
        if wrong:
            raise DataError(f"{path} has {wrong:,} vertices that are NaN or infinite; check how it was written")
        low, high = corners.min(axis=0), corners.max(axis=0)
        extent = float(np.max(high / 2 - low / 2))
        if extent == 0:
            raise DataError(f"{path} has degenerate faces only: all its vertices are one point")
        if not _EXTENTS[0] < extent < _EXTENTS[1]:
            raise DataError(f"{path} is {2 * extent:.3g} units long, which float32 cannot hold; scale the mesh first")
        scale = extent / (1 - margin)
        center = low / 2 + high / 2
        with np.errstate(over="ignore", invalid="ignore"):  # of vertices that no face has
            cube = (vertices - center) / scale
        vertices, faces, notes = _repaired(cube, faces)
        if not len(faces):
            raise DataError(f"{path} has degenerate faces only: none has an area; check how it was written")
        return cls(vertices, faces, center, scale, notes)

    @property
    def affine(self) -> np.ndarray:
        """(3, 4) map from [−1, 1]³ to the mesh's own units."""
        return np.column_stack([self.scale * np.eye(3), self.center])

    @cached_property
    def normals(self) -> np.ndarray:
        """(F, 3) unit normals of the faces."""
        return _normals(self.vertices, self.faces)

    def inside(self, points: np.ndarray) -> np.ndarray:
        """(k,) whether each of (k, 3) points is inside."""
        import igl

        parts = (points[start : start + _QUERIES] for start in range(0, len(points), _QUERIES))
        return np.concatenate(
            [igl.fast_winding_number(self.vertices, self.faces, _doubles(part)) > 0.5 for part in parts]
        )

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(k,) distances of (k, 3) points to the surface, and the (k,) faces that are nearest."""
        squared, faces, _ = self._tree.squared_distance(self.vertices, self.faces, _doubles(points))
        return np.sqrt(squared), faces

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """(k,) distances of (k, 3) points to the surface, negative inside.

        `igl.signed_distance` with its fast winding number gives them times |1 − 2w|, w the winding number: a
        distance only where w is 0 or 1.
        """
        distances, _ = self.nearest(points)
        return np.where(self.inside(points), -distances, distances)


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) float64 vertices and (F, 3) int64 triangles of all parts of the mesh in a file."""
    import trimesh

    suffix = path.suffix.lower()
    if suffix.removeprefix(".") not in trimesh.available_formats():
        raise DataError(f"{path} is neither a mesh nor a .npy or .npz volume; give an obj, ply, stl, off or glb")
    materials = {"skip_materials": True} if suffix == ".obj" else {}
    with decoding(path, f"is no {path.suffix.lower()} file, or is damaged", "trimesh"):
        with _opened(path) as file:
            scene = trimesh.load_scene(file, file_type=suffix[1:], process=False, **materials)
        parts = scene.dump()
        meshes = [part for part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
        vertices = [np.asarray(mesh.vertices, dtype=np.float64) for mesh in meshes]
        before = np.cumsum([0, *(len(part) for part in vertices)])
        faces = [
            np.asarray(mesh.faces, dtype=np.int64) + first for mesh, first in zip(meshes, before[:-1], strict=True)
        ]
        if any(
            part.min() < first or part.max() >= last
            for part, first, last in zip(faces, before[:-1], before[1:], strict=True)
        ):
            raise DataError(f"{path} has faces whose vertices do not exist; check how it was written")
    if meshes:
        return np.concatenate(vertices), np.concatenate(faces)
    points = sum(len(part.vertices) for part in parts)
    if points:
        raise DataError(
            f"{path} is a point cloud: {points:,} points and no faces; reconstruct a surface first, for instance by "
            "Poisson reconstruction"
        )
    raise DataError(f"{path} has no faces and so no surface, or is damaged; check that it opens elsewhere")


def _opened(path: Path) -> BinaryIO:
    """A mesh's file, its text as UTF-8: names and comments in other encodings are no reason not to read a mesh."""
    if path.suffix.lower() not in (".obj", ".off"):
        return path.open("rb")
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        data = data.decode("latin-1").encode("utf-8")
    return io.BytesIO(data)


def _repaired(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A mesh that distances and winding numbers can be computed of, and notes on what was assumed for it.

    Args:
        vertices: (V, 3) in [−1, 1]³ where faces have them.
        faces: (F, 3).
    """
    import trimesh

    notes = []
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.remove_unreferenced_vertices()
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    distinct = (mesh.faces != np.roll(mesh.faces, 1, axis=1)).all(axis=1)
    flat = int((~distinct).sum())
    mesh.update_faces(distinct)
    once = mesh.unique_faces()
    if not once.all():
        notes.append(f"duplicate faces were taken once: {(~once).sum():,}")
        mesh.update_faces(once)
    if len(mesh.faces):
        oriented, more = _outward(np.array(mesh.vertices), np.array(mesh.faces))
        mesh.faces = oriented
        notes += _topology(oriented) + more
    thick = mesh.area_faces > 1e-15
    flat += int((~thick).sum())
    mesh.update_faces(thick)
    if flat:
        notes.append(f"degenerate faces, without area, were dropped: {flat:,}")
    mesh.remove_unreferenced_vertices()
    return np.array(mesh.vertices, dtype=np.float64), np.array(mesh.faces, dtype=np.int64), notes


def _topology(faces: np.ndarray) -> list[str]:
    """Notes on (F, 3) faces that do not bound a solid."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    notes = []
    if (counts == 1).any():
        notes.append(
            f"the mesh is open ({(counts == 1).sum():,} edges with one face): inside is where its winding number "
            "exceeds one half"
        )
    if (counts > 2).any():
        notes.append(
            f"the mesh is not manifold (edges with more than two faces: {(counts > 2).sum():,}): inside is where its "
            "winding number exceeds one half"
        )
    return notes


def _outward(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Faces turned so that their normals point outwards, and notes on which were not.

    A part with a negative volume may be a cavity: it stays so where another part holds it.
    """
    import igl

    notes = []
    agreeing, patches = igl.bfs_orient(faces)
    turned = (agreeing != faces).any(axis=1)
    members = np.bincount(patches)
    mixed = np.bincount(patches, weights=turned) % members > 0
    if mixed.any():
        notes.append("faces of one part point to different sides: they were made to agree")
        outwards = np.bincount(patches, weights=_volumes(vertices, agreeing, patches)) >= 0
        agreeing = np.where(outwards[patches][:, None], agreeing, agreeing[:, ::-1])
        faces = np.where(mixed[patches][:, None], agreeing, faces)
    _, parts = igl.facet_components(faces)
    volumes = np.bincount(parts, weights=_volumes(vertices, faces, parts))
    if volumes.sum() < 0:
        faces, volumes = faces[:, ::-1], -volumes
        notes.append("the mesh is inside out, its normals point inwards: it was turned")
    inwards = 0
    for part in np.flatnonzero(volumes < 0):
        others = parts != part
        corners = _doubles(vertices[np.unique(faces[~others])[:64]])
        if not others.any() or igl.fast_winding_number(vertices, _whole(faces[others]), corners).mean() <= 0.5:
            faces = np.where(others[:, None], faces, faces[:, ::-1])
            inwards += 1
    if inwards:
        notes.append(f"parts of the mesh that are inside out were turned: {inwards:,}")
    return _whole(faces), notes


def _volumes(vertices: np.ndarray, faces: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(F,) signed volumes of the tetrahedra between each face and the centre of its part."""
    corners = vertices[faces]
    middles = corners.mean(axis=1)
    members = np.maximum(1, np.bincount(parts))
    centers = np.stack([np.bincount(parts, weights=middles[:, axis]) / members for axis in range(3)], axis=1)
    corners = corners - centers[parts][:, None]
    return np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6


def _is_volume(path: Path) -> bool:
    return path.suffix.lower() in (".npy", ".npz")


def _volume(path: Path) -> np.ndarray:
    """The (X, Y, Z) volume in a file; a memory map of .npy."""
    with decoding(path, f"is no {path.suffix.lower()} file, or is damaged", "trimesh"):
        if path.suffix.lower() == ".npy":
            volume: np.ndarray = mapped_array(path)
        else:
            with path.open("rb") as opened, np.load(opened) as file:
                names = file.files
                name = "sdf" if "sdf" in names else names[0] if len(names) == 1 else None
                if name is None:
                    held = ", ".join(names) or "none"
                    raise DataError(
                        f"{path} holds the arrays {held}; name the signed distances sdf, or save them alone"
                    )
                volume = file[name]
    if volume.ndim == 4 and volume.shape[-1] == 1:
        volume = volume[..., 0]
    if volume.ndim != 3 or min(volume.shape) < 2:
        raise DataError(f"{path} has shape {volume.shape}; signed distances must be a volume, (X, Y, Z)")
    if volume.dtype.kind not in "biuf":
        raise DataError(f"{path} has values of {volume.dtype}; signed distances must be real numbers")
    return volume


@dataclass
class ExtractedSurface:
    """The surface where a lattice of values is zero.

    Args:
        vertices: (V, 3) float64 in units of cells: the centre of cell i is at i.
        faces: (F, 3) int64, counter-clockwise seen from where values are positive.
        capped: whether it leaves the lattice, and is closed half a cell beyond the outermost centres.
    """

    vertices: np.ndarray
    faces: np.ndarray
    capped: bool


def surface_of(field: Field, shape: tuple[int, ...], slab: int = _SLAB) -> ExtractedSurface:
    """The surface where a field is zero, drawn from a lattice of `shape`.

    Args:
        field: in three dimensions.
        shape: lengths of the axes.
        slab: how many lattice points are evaluated and meshed at a time.
    """
    layer = shape[1] * shape[2]
    rows = max(1, slab // layer)

    def slabs() -> Iterator[np.ndarray]:
        for first in range(0, shape[0], rows):
            count = min(rows, shape[0] - first)
            indices = torch.arange(first * layer, (first + count) * layer)
            values = field(lattice_coordinates(indices, shape))
            yield values.cpu().numpy().reshape(count, *shape[1:])

    probe = (_PROBE,) * 3
    values = field(lattice_coordinates(torch.arange(_PROBE**3), probe)).reshape(probe)
    steepest = max(float(values.diff(dim=axis).abs().max()) for axis in range(3))
    return extract_surface(slabs(), shape, steepest * _PROBE / max(shape))


def extract_surface(slabs: Iterable[np.ndarray], shape: tuple[int, ...], step: float) -> ExtractedSurface:
    """Marching cubes (Lewiner et al. 2003) in slabs, welded.

    Args:
        slabs: arrays of whole layers along the first axis, consecutive, that make up `shape`.
        shape: lengths of the three axes.
        step: by how much values of neighbouring cells differ at most, roughly: no value comes nearer to zero than a
            thousandth of it. The vertices of different edges then lie apart, and welding joins no others.
    """
    from skimage.measure import marching_cubes

    step = step or 1.0
    vertices: list[np.ndarray] = []
    faces: list[np.ndarray] = []
    seams: list[int] = []
    before: np.ndarray | None = None
    done = count = 0
    capped = False
    for slab in slabs:
        block = np.pad((slab / step).astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
        inner = slice(1, -1)
        edge = np.ones(block.shape[1:], dtype=bool)
        edge[inner, inner] = False
        first, last = done == 0, done + len(slab) == shape[0]
        ends = [block[0]] * first + [block[-1]] * last
        capped = capped or bool((block[:, edge] < 0).any()) or any(bool((end < 0).any()) for end in ends)
        # A crossing then lies halfway between a cell's centre and the padding: on the face of the cube.
        block[:, edge] = np.abs(block[:, edge])
        block = np.concatenate(
            [
                *([np.abs(block[:1])] if before is None else [before]),
                block,
                *([np.abs(block[-1:])] if last else []),
            ]
        )
        before = block[-1:]
        small = np.abs(block) < 1e-3
        block[small] = np.where(block[small] < 0, np.float32(-1e-3), np.float32(1e-3))
        if block.min() < 0 < block.max():
            found, triangles, _, _ = marching_cubes(block, 0.0)
            found = found.astype(np.float64) + np.array([done - 1, -1, -1])
            vertices.append(found)
            faces.append(triangles.astype(np.int64) + count)
            count += len(found)
        done += len(slab)
        seams.append(done - 1)
    if not vertices:
        return ExtractedSurface(np.empty((0, 3)), np.empty((0, 3), dtype=np.int64), False)
    return ExtractedSurface(*_welded(np.concatenate(vertices), np.concatenate(faces), np.array(seams)), capped)


def _welded(vertices: np.ndarray, faces: np.ndarray, seams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One vertex for those that two slabs have of the layer they share."""
    shared = np.flatnonzero(np.isin(vertices[:, 0], seams))
    _, firsts, places = np.unique(vertices[shared], axis=0, return_index=True, return_inverse=True)
    same = np.arange(len(vertices))
    same[shared] = shared[firsts[places.reshape(-1)]]
    kept = same == np.arange(len(vertices))
    numbers = np.cumsum(kept) - 1
    return vertices[kept], numbers[same][faces]


def _placed(surface: ExtractedSurface, shape: tuple[int, ...], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices in the units that `affine` maps [−1, 1]³ to, and faces."""
    coordinates = (2 * surface.vertices + 1) / np.array(shape) - 1
    return coordinates @ affine[:, :3].T + affine[:, 3], surface.faces


def write_mesh(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Write a mesh, in the format that the suffix names; one without faces is a valid file too.

    Coordinates are float32 in all formats but .obj.

    Args:
        path: to write to.
        vertices: (V, 3).
        faces: (F, 3).

    Raises:
        ConfigError: the suffix names no format that is written.
    """
    import trimesh

    suffix = _checked_suffix(path)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    more: dict[str, Any] = {}
    if suffix == ".obj":
        if not len(faces):
            path.write_text("# no surface\n", encoding="utf-8")
            return
        # Digits after the point: nine significant ones of the extent.
        more["digits"] = max(1, 9 - math.floor(math.log10(np.ptp(vertices, axis=0).max() or 1.0)))
    data = mesh.export(file_type=suffix[1:], **more)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def _checked_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (*MESH_SUFFIXES, ".npy"):
        written = f"as '{suffix}'" if suffix else "without a suffix"
        raise ConfigError(f"shapes are not written {written}; choose one of: {', '.join(MESH_SUFFIXES)}, .npy")
    return suffix


def _save(path: Path, volume: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, volume)


def _mesh_iou(field: Field, original: Solid) -> float:
    """See `Shape.assess`."""
    points = np.random.default_rng(0).uniform(-1, 1, (_HELD_OUT, 3))
    expected = original.inside(points)
    offset = points * original.scale + original.center - field.affine[:, 3]
    # A field of another file's cube knows nothing beyond it.
    cube = np.linalg.solve(field.affine[:, :3], offset.T).T
    inside = (field(cube)[:, 0] < 0) & (np.abs(cube) <= 1).all(axis=1)
    return float((inside & expected).sum() / max(1, (inside | expected).sum()))


def _volume_iou(field: Field, volume: np.ndarray) -> float:
    """See `Shape.assess`."""
    layer = volume.shape[1] * volume.shape[2]
    rows = max(1, _SLAB // layer)
    both = either = 0
    for first in range(0, volume.shape[0], rows):
        expected = volume[first : first + rows].reshape(-1) < 0
        indices = torch.arange(first * layer, first * layer + len(expected))
        inside = field(lattice_coordinates(indices, volume.shape)).cpu().numpy()[:, 0] < 0
        both += int((inside & expected).sum())
        either += int((inside | expected).sum())
    return both / max(1, either)


def _surface_metrics(original: Solid, vertices: np.ndarray, faces: np.ndarray) -> dict[str, float]:
    """Chamfer distance, normal consistency and F-score; see `Shape.assess`.

    Args:
        original: the mesh.
        vertices: (V, 3) of the other surface, in the mesh's own units.
        faces: (F, 3) of the other surface.
    """
    cube = (vertices - original.center) / original.scale
    normals = _normals(cube, faces)
    has_area = np.isfinite(normals).all(axis=1)
    if not has_area.any():
        return {"chamfer": math.inf, "normal_consistency": 0.0, "f_score": 0.0}
    drawn = Solid(cube, _whole(faces[has_area]), original.center, original.scale, [])
    diagonal = float(np.linalg.norm(np.ptp(original.vertices, axis=0)))
    distances, agreements, shares = [], [], []
    for one, other in ((drawn, original), (original, drawn)):
        points, on = _sampled(one.vertices, one.faces, _SURFACE_SAMPLES, 0)
        away, nearest = other.nearest(points)
        distances.append(float(away.mean()) / diagonal)
        agreements.append(float(np.abs((one.normals[on] * other.normals[nearest]).sum(axis=1)).mean()))
        shares.append(float((away <= _F_SCORE_TOLERANCE * diagonal).mean()))
    f_score = 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0
    return {"chamfer": sum(distances) / 2, "normal_consistency": sum(agreements) / 2, "f_score": f_score}


def _sampled(vertices: np.ndarray, faces: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 3) points uniform on a surface, and the (count,) faces that they are on."""
    import trimesh

    points, on = trimesh.sample.sample_surface(trimesh.Trimesh(vertices, faces, process=False), count, seed=seed)[:2]
    return np.asarray(points), np.asarray(on)


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F, 3) unit normals; NaN for a face without area."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def _doubles(points: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(points, dtype=np.float64)


def _whole(faces: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(faces, dtype=np.int64)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _sample_distances(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Roughly the signed distances to a ring with a ball on it and one with an edge cut out of its middle."""
    ring = np.hypot(np.hypot(x, y) - 0.55, z) - 0.18
    ball = np.sqrt((x - 0.5) ** 2 + y**2 + (z - 0.2) ** 2) - 0.24
    head = np.sqrt((x + 0.45) ** 2 + y**2 + (z - 0.15) ** 2) - 0.34
    blended = ring
    for other in (ball, head):
        mix = np.clip(0.5 + (other - blended) / 0.2, 0, 1)
        blended = other + (blended - other) * mix - 0.1 * mix * (1 - mix)
    cut = np.maximum(np.abs(y) - 0.08, 0.25 - z)
    return np.maximum(blended, -cut)
