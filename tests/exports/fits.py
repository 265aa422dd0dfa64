"""Tiny fits of each kind of signal, with one network and with tiles."""

import dataclasses
import functools
import tempfile
from pathlib import Path

import numpy as np
import torch

import inrkit
from inrkit.modalities.audio import sample_melody
from inrkit.modalities.image import sample_picture
from inrkit.modalities.volume import sample_volume
from inrkit.networks.tiles import Tiles, TilesOptions

KINDS = ("image", "audio", "volume", "shape", "video")
NETWORKS = {
    "one": {"name": "siren", "hidden_features": 12, "hidden_layers": 1},
    "tiles": {"name": "tiles", "each": {"hidden_features": 12, "hidden_layers": 1}, "values_per_parameter": 1.0},
}


@functools.cache
def fitted(kind: str, network: str = "tiles") -> inrkit.Field:
    """A field of one of `KINDS`, with one of `NETWORKS` or any other single network."""
    return fit(kind, NETWORKS.get(network, {"name": network, "hidden_features": 12, "hidden_layers": 1}))


def fit(kind: str, network: dict) -> inrkit.Field:
    """A field of one of `KINDS` after a few steps."""
    options = {"network": network, "steps": 12, "quiet": True, "log": {"report": False}}
    if network["name"] != "tiles":
        options |= {"base": f"{kind}-single", "train": {"precision": "float32"}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        if kind == "shape":
            from inrkit.modalities.shape import Shape, ShapeOptions

            Shape(ShapeOptions()).sample(path / "shape.ply")
            options |= {"modality": {"count": 4096, "export_resolution": 16, "resolution": 16}}
            target = path / "shape.ply"
        elif kind == "audio":
            import soundfile

            target = path / "sound.wav"
            soundfile.write(target, sample_melody()[:4000], 8000)
        elif kind == "video":
            from PIL import Image

            picture = sample_picture(24)
            frames = [Image.fromarray(np.roll(picture, 3 * shift, axis=1)) for shift in range(4)]
            target = path / "video.gif"
            frames[0].save(target, save_all=True, append_images=frames[1:], duration=[100, 300, 100, 100])
        elif kind == "image":
            from PIL import Image

            target = path / "picture.png"
            Image.fromarray(sample_picture(40)[:32]).save(target)
        else:
            target = path / "volume.npy"
            np.save(target, sample_volume(12))
        return inrkit.fit(target, out=path / "run", **options).field


def long_sound() -> inrkit.Field:
    """A sound so long that products of its cells and its tiles are no float32; its networks are not trained."""
    options = TilesOptions(lattice=[400_000], counts=[900], each={"hidden_features": 4, "hidden_layers": 0})
    field = fitted("audio")
    torch.manual_seed(0)
    network = Tiles(options, 1, 1)
    network.means.uniform_(-1, 1)
    return dataclasses.replace(field, network=network, grid_shape=(400_000,), affine=np.array([[25.0, 25.0]]))


def places_of(field: inrkit.Field, count: int = 1000, beyond: float = 1.0) -> np.ndarray:
    """Random physical coordinates in a field's extent, or a little beyond."""
    even = np.random.default_rng(7).uniform(-beyond, beyond, (count, field.dimensions))
    return even @ field.affine[:, :-1].T + field.affine[:, -1]
