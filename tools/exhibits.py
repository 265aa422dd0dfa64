"""The signals that docs/pictures show: files that anyone can make again, without a download.

The photo is Chelsea, by Stéfan van der Walt, in the public domain (CC0), as scikit-image carries it. The scan is a slab
of a head that nibabel carries for its tests, two millimetres a voxel and slightly oblique. The code below makes the
voice, the bust and the clip.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import scipy.signal
import skimage.data
import skimage.measure
import soundfile
import trimesh
from PIL import Image

RATE = 16000
"""Samples a second of the voice."""


def write_photo(path: Path) -> None:
    """A cat: 300×451 pixels."""
    Image.fromarray(skimage.data.chelsea()).save(path)


def write_scan(path: Path) -> None:
    """The first of the two volumes of nibabel's example: 128×96×24 voxels."""
    example = nibabel.load(Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz")
    nibabel.save(example.slicer[..., 0], path)


def write_voice(path: Path) -> None:
    """Someone sings eight vowels on eight notes, in three seconds."""
    soundfile.write(path, voice(), RATE)


def voice() -> np.ndarray:
    """A glottal pulse (Rosenberg 1971) with vibrato and breath, through four formants that glide: (48000,) int16."""
    formants = {
        "a": (730, 1090, 2440, 3400),
        "e": (530, 1840, 2480, 3500),
        "i": (270, 2290, 3010, 3700),
        "o": (570, 840, 2410, 3300),
        "u": (300, 870, 2240, 3300),
    }
    sung = np.array([formants[vowel] for vowel in "aeiouoia"], dtype=float)
    notes = (196, 220, 247, 262, 294, 247, 220, 196)
    time = np.arange(3 * RATE) / RATE
    share = time / time[-1]
    pitch = np.interp(share, np.linspace(0, 1, len(notes)), notes) * (1 + 0.012 * np.sin(2 * np.pi * 5.5 * time))
    phase = np.cumsum(pitch) / RATE % 1
    pulse = np.where(phase < 0.6, (phase / 0.6) ** 2 * (1 - phase / 0.6), 0)
    sound = 30 * np.diff(pulse, prepend=0) + 0.02 * np.random.default_rng(7).standard_normal(len(time))
    frame = RATE // 200
    for formant in range(4):
        state = np.zeros(2)
        for start in range(0, len(sound), frame):
            vowel, between = divmod(share[start] * (len(sung) - 1), 1)
            ends = sung[int(vowel) : int(vowel) + 2, formant]
            frequency = np.interp(between, (0.3, 0.7), (ends[0], ends[-1]))
            radius = np.exp(-np.pi * (60 + 40 * formant) / RATE)
            slope = 2 * radius * np.cos(2 * np.pi * frequency / RATE)
            poles = [1, -slope, radius**2]
            sound[start : start + frame], state = scipy.signal.lfilter(
                [sum(poles)], poles, sound[start : start + frame], zi=state
            )
    sound *= np.sin(np.pi * (8 * share % 1)) ** 0.4
    return np.rint(sound / np.abs(sound).max() * 0.8 * 32767).astype(np.int16)


def write_clip(path: Path) -> None:
    """Three drops fall into a basin, in a second and a half: 36 frames of 108×144 pixels."""
    frames = [Image.fromarray(frame) for frame in clip()]
    frames[0].save(path, format="PNG", save_all=True, append_images=frames[1:], duration=1000 // 24, loop=0)


def clip(frames: int = 36, height: int = 108, width: int = 144) -> np.ndarray:
    """Rings on water above a tiled floor, which they bend and light: (T, H, W, 3) uint8."""
    y, x = np.meshgrid(np.linspace(-0.75, 0.75, height), np.linspace(-1, 1, width), indexing="ij")
    film = np.empty((frames, height, width, 3), dtype=np.uint8)
    for number in range(frames):
        slope = np.zeros((2, height, width))
        for begins, left, top, strength in ((0.0, -0.35, -0.1, 1.0), (0.35, 0.45, 0.25, 0.8), (0.7, 0.1, -0.45, 0.7)):
            age = number / frames * 1.5 - begins
            if age <= 0:
                continue
            away = np.hypot(x - left, y - top) + 1e-6
            front = 0.75 * age
            ring = np.exp(-(((away - front) / (0.05 + 0.06 * age)) ** 2)) * strength / (1 + 2 * age)
            rise = ring * np.cos(34 * (away - front))
            slope += rise * np.stack([y - top, x - left]) / away
        floor_y, floor_x = y + 0.06 * slope[0], x + 0.06 * slope[1]
        tiles = np.tanh(25 * np.sin(14 * floor_x)) * np.tanh(25 * np.sin(14 * floor_y))
        colour = np.array([0.16, 0.5, 0.62]) + 0.09 * tiles[..., None] * np.array([1.0, 0.9, 0.6])
        glint = np.clip(0.55 * slope[0] - 0.8 * slope[1], 0, 1)[..., None] ** 2
        light = 1 - 0.35 * np.hypot(x, y)[..., None] + 0.5 * (slope[0] + slope[1])[..., None]
        film[number] = np.clip(255 * (colour * light + 0.8 * glint), 0, 255).round()
    return film


def write_bust(path: Path) -> None:
    """The bust as a mesh of some 130,000 faces, closed."""
    half = np.array([0.56, 0.96, 0.44])
    lengths = (124, 212, 98)
    axes = [reach * np.linspace(-1, 1, length) for reach, length in zip(half, lengths, strict=True)]
    distances = bust(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
    spacing = tuple(2 * half / (np.array(lengths) - 1))
    vertices, faces, _, _ = skimage.measure.marching_cubes(distances, 0, spacing=spacing)
    mesh = trimesh.Trimesh(vertices - half, faces)
    if mesh.volume < 0:
        mesh.invert()
    mesh.export(path)


def bust(points: np.ndarray) -> np.ndarray:
    """About how far (…, 3) points are from the surface of a bust on a plinth, y upwards; negative inside: (…)."""
    x, y, z = np.moveaxis(points, -1, 0)
    both = np.stack([np.abs(x), y, z], axis=-1)  # what is on the right is on the left too
    head = _joined(
        _ellipsoid(points, (0, 0.5, 0), (0.245, 0.31, 0.27)),
        _ellipsoid(points, (0, 0.36, 0.07), (0.17, 0.2, 0.19)),
        0.1,
    )
    chin = _ellipsoid(points, (0, 0.25, 0.17), (0.06, 0.05, 0.05))
    brows = _ellipsoid(both, (0.1, 0.56, 0.225), (0.09, 0.025, 0.035))
    sockets = _ellipsoid(both, (0.095, 0.505, 0.285), (0.06, 0.035, 0.05))
    eyes = _ellipsoid(both, (0.095, 0.505, 0.215), (0.042, 0.032, 0.035))
    nose = _joined(
        _capsule(points, (0, 0.56, 0.245), (0, 0.455, 0.315), 0.02),
        _ellipsoid(both, (0.02, 0.445, 0.285), (0.028, 0.02, 0.035)),
        0.025,
    )
    lips = np.minimum(
        _ellipsoid(points, (0, 0.358, 0.248), (0.065, 0.019, 0.032)),
        _ellipsoid(points, (0, 0.322, 0.243), (0.05, 0.02, 0.032)),
    )
    ears = _ellipsoid(both, (0.25, 0.46, 0), (0.03, 0.075, 0.05))
    head = _joined(_joined(head, chin, 0.06), brows, 0.04)
    head = -_joined(-head, sockets, 0.03)
    for part, softness in ((eyes, 0.012), (nose, 0.03), (lips, 0.016), (ears, 0.02)):
        head = _joined(head, part, softness)

    angle, radius = np.arctan2(x, z + 0.05), np.hypot(x, z + 0.05)
    hair = _ellipsoid(points, (0, 0.585, -0.055), (0.275, 0.275, 0.285))
    hair = np.maximum(hair, 0.5 + 0.5 * np.maximum(z, 0) - 0.06 * np.cos(9 * x) * (z > 0) - y)
    hair = _joined(hair, _ellipsoid(points, (0, 0.66, -0.33), (0.11, 0.1, 0.1)), 0.05)
    hair -= 0.011 * np.sin(26 * angle + 14 * y) * np.clip(8 * radius, 0, 1) + 0.006 * np.sin(60 * y + 9 * angle)

    neck = _joined(
        _capsule(points, (0, 0, -0.03), (0, 0.35, -0.01), 0.105),
        _capsule(both, (0.12, 0.3, -0.02), (0.03, -0.02, 0.07), 0.025),
        0.05,
    )
    chest = _joined(
        _ellipsoid(points, (0, -0.16, -0.02), (0.4, 0.21, 0.2)),
        _ellipsoid(both, (0.33, -0.14, -0.02), (0.15, 0.15, 0.14)),
        0.12,
    )
    chest = _joined(chest, _ellipsoid(both, (0.15, -0.2, 0.1), (0.15, 0.13, 0.12)), 0.08)
    cloth = np.maximum(_ellipsoid(points, (0.02, -0.21, -0.01), (0.43, 0.22, 0.235)), y + 0.13 - 0.35 * x)
    cloth -= 0.012 * np.sin(40 * (y + 0.35 * np.abs(x - 0.1) + 0.25 * x))
    body = np.maximum(_joined(_joined(neck, chest, 0.1), cloth, 0.02), -0.4 - y)

    stem = _joined(_cylinder(points, -0.62, -0.42, 0.13), _cylinder(points, -0.46, -0.4, 0.2), 0.06)
    block = np.abs(points - np.array([0, -0.72, 0])) - np.array([0.24, 0.07, 0.24])
    plinth = np.linalg.norm(np.maximum(block, 0), axis=-1) + np.minimum(block.max(axis=-1), 0) - 0.02
    plinth = _joined(_cylinder(points, -0.66, -0.58, 0.2), plinth, 0.02)
    return np.minimum(_joined(_joined(head, hair, 0.02), body, 0.04), np.minimum(stem, plinth))


def _joined(one: np.ndarray, other: np.ndarray, softness: float) -> np.ndarray:
    """The smooth minimum of two distances (Quílez 2013)."""
    share = np.clip(0.5 + 0.5 * (other - one) / softness, 0, 1)
    return other + (one - other) * share - softness * share * (1 - share)


def _ellipsoid(points: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    scaled = (points - np.array(centre)) / np.array(radii)
    length = np.linalg.norm(scaled, axis=-1)
    return length * (length - 1) / np.maximum(np.linalg.norm(scaled / np.array(radii), axis=-1), 1e-9)


def _capsule(points: np.ndarray, start: tuple[float, ...], end: tuple[float, ...], radius: float) -> np.ndarray:
    along = np.array(end) - np.array(start)
    share = np.clip((points - np.array(start)) @ along / (along @ along), 0, 1)
    return np.linalg.norm(points - np.array(start) - share[..., None] * along, axis=-1) - radius


def _cylinder(points: np.ndarray, bottom: float, top: float, radius: float, edge: float = 0.02) -> np.ndarray:
    beyond = np.stack(
        [
            np.hypot(points[..., 0], points[..., 2]) - radius + edge,
            np.abs(points[..., 1] - (bottom + top) / 2) - (top - bottom) / 2 + edge,
        ],
        axis=-1,
    )
    return np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(axis=-1), 0) - edge
