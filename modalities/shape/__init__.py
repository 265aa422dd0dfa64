"""Shapes: signed distances to a mesh's surface or to points, or a volume of them, and the surface of a field.

Distances are negative inside. A mesh is brought into [−1, 1]³ by a shift and one factor for all axes; the dataset's
affine map is the inverse, and distances are stored in the mesh's own units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch

from inrkit.device import available_memory
from inrkit.errors import ConfigError, DataError
from inrkit.modalities.shape.cloud import Cloud
from inrkit.modalities.shape.files import MESH_SUFFIXES, checked_suffix, read_polygons, write_mesh
from inrkit.modalities.shape.files.points import holds_points
from inrkit.modalities.shape.files.polygons import triangulated
from inrkit.modalities.shape.looks import compared
from inrkit.modalities.shape.metrics import SignIoU, mesh_iou, surface_metrics, volume_iou
from inrkit.modalities.shape.solid import Solid
from inrkit.modalities.shape.surface import ExtractedSurface, extract_surface, placed, surface_of
from inrkit.plugins.options import option
from inrkit.runs.field import Field
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.decoding import archived_array, decoding, mapped_array
from inrkit.signals.lattice import Region, cell_affine, lattice_coordinates
from inrkit.signals.modality import MODALITIES, Modality, Surface

__all__ = [
    "MESH_SUFFIXES",
    "Cloud",
    "ExtractedSurface",
    "Shape",
    "ShapeOptions",
    "SignIoU",
    "Solid",
    "extract_surface",
    "surface_of",
    "write_mesh",
]

_QUERIES = 1 << 16
"""Points whose distances are computed at a time."""
_BYTES_A_COORDINATE = 32
"""What training takes a coordinate: its value, its fitness, and what a step on all coordinates holds besides."""
_BYTES_A_CELL = 64
"""What meshing takes a cell of the slab that it works on."""
_BYTES_A_COLUMN = 2000
"""What a surface takes that crosses each of a lattice's columns twice, and rating it."""
_LIBRARIES = 50 << 20
"""Bytes of the libraries that mesh."""


@dataclass
class ShapeOptions:
    data: str = option("lattice", choices=("lattice", "points"))
    """What the network learns from: signed distances on a `lattice`, or at free `points`, more of them near the
    surface. A file that is a volume of distances is a lattice already."""
    resolution: int = option(64, at_least=8)
    """Cells along each axis of the lattice."""
    margin: float = option(0.05, at_least=0, below=1)
    """Room between the mesh and the faces of [−1, 1]³, in units of the cube's half side. Where no
    cell's centre of a coarse lattice lies outside the mesh, three quarters of a cell instead."""
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


@MODALITIES.register("shape")
class Shape(Modality):
    """Meshes, point clouds, and volumes of signed distances, negative inside."""

    Options = ShapeOptions
    metrics = ("psnr", "sign_iou")
    sample_suffix = ".ply"
    looks = "surface"

    @property
    def operator(self) -> str:  # type: ignore[override]
        """The lattice's Laplacian, or that of the nearest neighbours of free points."""
        return "laplacian" if self.options.data == "lattice" else "graph-laplacian"

    def read(self, path: Path) -> CoordinateDataset:
        return self._read_volume(path) if _is_volume(path) else self._read_mesh(path)

    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        """Write (*shape, 1) signed distances: the surface as a mesh, or the distances themselves as .npy."""
        if checked_suffix(path) == ".npy":
            _save(path, values[..., 0])
            return
        distances = values[..., 0].astype(np.float32)
        steps = (float(np.abs(np.diff(distances, axis=axis)).max(initial=0)) for axis in range(3))
        affine = np.array(metadata["affine"]) if "affine" in metadata else cell_affine(distances.shape)
        level = self.level(metadata, affine, distances.shape)
        surface = extract_surface([distances - np.float32(level)], distances.shape, max(steps))
        write_mesh(path, *placed(surface, distances.shape, affine))

    def reconstruction_suffix(self, metadata: dict[str, Any], dtype: np.dtype) -> str:
        return ".ply"

    def memory(self, dataset: CoordinateDataset) -> int:
        rows, columns = (dataset.grid_shape or (self.options.export_resolution,) * 3)[1:]
        return _LIBRARIES + _BYTES_A_COLUMN * rows * columns

    def units(self, metadata: dict[str, Any], dimensions: int) -> tuple[str, ...]:
        return ("own" if metadata["kind"] == "mesh" else "cell",) * dimensions

    def cropped(self, metadata: dict[str, Any], region: Region) -> dict[str, Any]:
        return {**metadata, "affine": region.affine(np.array(metadata["affine"])).tolist()}

    def export(
        self,
        path: Path,
        field: Field,
        shape: tuple[int, ...] | None = None,
        scale: float | None = None,
        region: Region | None = None,
    ) -> str:
        """Write the surface where the field is zero as a mesh, in the original's units, or the field as .npy.

        The surface is drawn from a lattice of `shape`; from the default lattice (`export_resolution`, or that of the
        volume which was fitted), finer by `scale`, otherwise. Where it leaves the cube it is closed by the cube's
        faces. A field without a surface gives a mesh without faces. Of a region the surface is what lies between its
        ends, closed by the faces of that box; the distances are at its own places.
        """
        lattice = self._lattice(field, region.shape if region is not None else shape, scale)
        if checked_suffix(path) == ".npy":
            _save(path, field.render(lattice if region is None else None, region=region)[..., 0])
            return f"{'×'.join(map(str, lattice))} distances"
        level = self.level(field.metadata, field.affine, lattice)
        box = Region.whole(lattice) if region is None else _between(region)
        surface = surface_of(field, lattice, level=level, region=box)
        write_mesh(path, *placed(surface, lattice, box.affine(field.affine)))
        drawn = f"{len(surface.vertices):,} vertices and {len(surface.faces):,} faces from {_times(lattice)} cells"
        if not len(surface.faces):
            return f"no surface: the field has one sign on {_times(lattice)} cells"
        left = "cube" if region is None else "region"
        return f"{drawn}; closed where it leaves the {left}" if surface.capped else drawn

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

        The drawn surface is that of `export_resolution`. Of points with normals, the same with the surface that they
        tell for the mesh's. Of points without normals, nothing. Of a volume, `iou` at the cells of its lattice.
        """
        if _is_volume(path):
            return {"iou": volume_iou(field, _volume(path))}
        original = _original(path, self.options.margin)
        if isinstance(original, Cloud) and original.normals is None:
            return {}
        lattice = self._lattice(field, None, None)
        surface = surface_of(field, lattice)
        vertices, faces = placed(surface, lattice, field.affine)
        return {"iou": mesh_iou(field, original), **surface_metrics(original, vertices, faces)}

    def surfaces(self, path: Path, reconstruction: Path) -> list[Surface]:
        if _is_volume(path):
            volume = np.asarray(_volume(path), dtype=np.float32)
            steps = (float(np.abs(np.diff(volume, axis=axis)).max(initial=0)) for axis in range(3))
            surface = extract_surface([volume], volume.shape, max(steps))
            original = placed(surface, volume.shape, cell_affine(volume.shape))
        else:
            held = read_polygons(path)
            original = held.vertices, triangulated(held)
        drawn = read_polygons(reconstruction)
        return compared(original, (drawn.vertices, triangulated(drawn)))

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
        solid = _original(path, options.margin)
        unsigned = isinstance(solid, Cloud) and solid.normals is None
        kind = "unsigned" if unsigned else "mesh"
        metadata: dict[str, Any] = {"kind": kind, "notes": [*solid.notes], "affine": solid.affine.tolist()}
        if isinstance(solid, Cloud):
            metadata["spacing"] = solid.spacing * solid.scale
        if options.data == "lattice":
            values = self._lattice_values(solid)
            if values.max() < 0:  # a box whose faces lie between the outermost centres and the cube's faces
                solid = _original(path, 1.5 / options.resolution)
                metadata["affine"] = solid.affine.tolist()
                values = self._lattice_values(solid)
            shape = (options.resolution,) * 3
            dataset = CoordinateDataset(values.reshape(*shape, 1), affine=solid.affine, metadata=metadata)
            dataset.source = solid.content
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
            dataset.source = solid.content
            mend = "close its surface, or raise modality.count"
        if not unsigned and not dataset.extent[0] < 0 < dataset.extent[1]:
            raise DataError(f"{path} encloses no volume that the samples meet; {mend}")
        return dataset

    def _lattice_values(self, solid: Solid | Cloud) -> np.ndarray:
        """(resolution³, 1) float32 values at the centres of a lattice's cells."""
        shape = (self.options.resolution,) * 3
        values = np.empty((math.prod(shape), 1), dtype=np.float32)
        for start in range(0, len(values), _QUERIES):
            indices = torch.arange(start, min(start + _QUERIES, len(values)))
            values[start : start + _QUERIES, 0] = self._values(solid, lattice_coordinates(indices, shape).numpy())
        return values

    def level(self, metadata: dict[str, Any], affine: np.ndarray, lattice: tuple[int, ...]) -> float:
        """The distance that is drawn: zero, or, where none is negative, that at which a shell around the points holds
        together and a lattice shows it."""
        if metadata.get("kind") != "unsigned":
            return 0.0
        side = float(np.linalg.norm(affine[:, 0]))
        return min(max(2 * side / min(lattice), metadata["spacing"]), 0.9 * self.options.band * side)

    def _values(self, solid: Solid | Cloud, points: np.ndarray) -> np.ndarray:
        """(k,) truncated signed distances, in the mesh's units, of (k, 3) points in [−1, 1]³."""
        band = self.options.band
        return np.clip(solid.signed_distance(points), -band, band) * solid.scale

    def _draw(self, solid: Solid | Cloud, number: int) -> np.ndarray:
        """(N, 3) float32 free points of round `number`."""
        options = self.options
        random = np.random.default_rng([options.seed, number])
        near = round(options.near * options.count)
        points = np.empty((options.count, 3), dtype=np.float32)
        points[near:] = random.uniform(-1, 1, (options.count - near, 3))
        if near:
            on_surface, _ = solid.sampled(near, int(random.integers(2**31)))
            points[:near] = np.clip(on_surface + random.normal(0, options.sigma, (near, 3)), -1, 1)
        return points

    def _read_volume(self, path: Path) -> CoordinateDataset:
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


_READ: WeakValueDictionary[object, Solid | Cloud] = WeakValueDictionary()
"""What was read from files, as long as a dataset draws points from it: reading and mending it again takes seconds."""


def _original(path: Path, margin: float) -> Solid | Cloud:
    """The mesh in a file, or its points where it has no faces."""
    state = path.stat()
    asked = path.resolve(), state.st_mtime_ns, state.st_size, margin
    known = _READ.get(asked)
    if known is not None:
        return known
    held = read_polygons(path)
    kind = Solid if held.has_faces or not len(held.vertices) else Cloud
    _READ[asked] = original = kind.of(path, held, margin)
    return original


def _between(region: Region) -> Region:
    """The box between a region's ends: its cells, moved so that they begin where its leading values lie."""
    lows, highs = [], []
    for length, low, high in zip(region.shape, region.low, region.high, strict=True):
        half = 0.0 if low == -1 else (high - low) / length / 2
        lows.append(low + half)
        highs.append(min(high + half, max(high, 1.0)))
    return Region(region.shape, tuple(lows), tuple(highs))


def _is_volume(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix != ".npz":
        return suffix == ".npy"
    with decoding(path, "is no .npz file, or is damaged"):
        return not holds_points(path)


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
                volume = archived_array(path, file, name)
    if volume.ndim == 4 and volume.shape[-1] == 1:
        volume = volume[..., 0]
    if volume.ndim != 3 or min(volume.shape) < 2:
        raise DataError(f"{path} has shape {volume.shape}; signed distances must be a volume, (X, Y, Z)")
    if volume.dtype.kind not in "biuf":
        raise DataError(f"{path} has values of {volume.dtype}; signed distances must be real numbers")
    return volume


def _save(path: Path, volume: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, volume)


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
