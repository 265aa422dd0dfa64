"""From distances to a mesh: the surface where a field is zero."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from inrkit.runs.field import Field
from inrkit.signals.lattice import Region

SLAB = 1 << 20
"""Lattice points that are evaluated and meshed at a time."""

_PROBE = 16
"""Cells along each axis of the lattice that tells how steep a field is."""


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


def surface_of(
    field: Field, shape: tuple[int, ...], slab: int = SLAB, level: float = 0.0, region: Region | None = None
) -> ExtractedSurface:
    """The surface where a field is zero, or another level, drawn from a lattice of `shape`.

    Args:
        field: in three dimensions.
        shape: lengths of the axes.
        slab: how many lattice points are evaluated and meshed at a time.
        level: of the field's values.
        region: that the lattice divides; all of [−1, 1]³ if not given.
    """
    region = Region.whole(shape) if region is None else region
    layer = shape[1] * shape[2]
    rows = max(1, slab // layer)

    def slabs() -> Iterator[np.ndarray]:
        for first in range(0, shape[0], rows):
            count = min(rows, shape[0] - first)
            indices = torch.arange(first * layer, (first + count) * layer)
            values = field(region.coordinates(indices).numpy())  # of an array, no derivatives are asked for
            yield values.reshape(count, *shape[1:]) - np.float32(level)

    probe = Region((_PROBE,) * 3, region.low, region.high)
    values = field(probe.coordinates(torch.arange(_PROBE**3))).reshape(probe.shape)
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


def placed(surface: ExtractedSurface, shape: tuple[int, ...], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices in the units that `affine` maps [−1, 1]³ to, and faces."""
    coordinates = (2 * surface.vertices + 1) / np.array(shape) - 1
    return coordinates @ affine[:, :3].T + affine[:, 3], surface.faces
