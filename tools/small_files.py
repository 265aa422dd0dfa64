"""Small valid files of every kind that a modality reads, made by code: what `kill.py` fits and `fuzz.py` changes."""

from __future__ import annotations

import base64
import contextlib
import json
from importlib import metadata
from pathlib import Path

import numpy as np

from inrkit.signals.modality import MODALITIES

USUAL = {"image": ".png", "audio": ".wav", "shape": ".obj", "volume": ".npy", "video": ".gif", "array": ".csv"}
"""A suffix of each modality that needs no extra."""


def suffixes() -> list[tuple[str, str]]:
    """The modality and the suffix of every kind of file that is read, a folder of pictures left out."""
    names = (entry.name.rpartition(".") for entry in metadata.entry_points(group="inrkit.suffixes"))
    return sorted((modality, f".{suffix}") for suffix, _, modality in names if suffix != "folder")


def write(modality: str, path: Path) -> None:
    """Write a small signal.

    Raises:
        Exception: any at all, if the kind of file needs a library that is missing.
    """
    _WRITERS[modality](path)


def _image(path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 200, (24, 20, 3)).astype(np.uint8)
    if path.suffix in (".pgm", ".npy"):
        values = values[..., :1]
    if path.suffix in (".exr", ".hdr"):
        _write("image", path, values.astype(np.float32) / 100)
    elif path.suffix in (".npy", ".tif", ".tiff"):
        _write("image", path, values)
    else:
        from PIL import Image

        kind = {".pgm": "PPM", ".pnm": "PPM"}.get(path.suffix)
        Image.fromarray(values.squeeze()).save(path, kind)


def _audio(path: Path) -> None:
    import soundfile

    values = np.random.default_rng(0).integers(-9999, 9999, 2000).astype(np.int16)
    kind = {".opus": ("OGG", "OPUS"), ".oga": ("OGG", "VORBIS"), ".aifc": ("AIFF", "ULAW")}
    kind |= {".aif": ("AIFF", "PCM_16")}
    form, coding = kind.get(path.suffix, (path.suffix[1:].upper(), None))
    soundfile.write(path, values, 8000, format=form, subtype=coding)


def _shape(path: Path) -> None:
    if path.suffix in (".npy", ".npz"):
        places = np.stack(np.meshgrid(*[np.linspace(-1, 1, 8)] * 3, indexing="ij"))
        distances = (np.linalg.norm(places, axis=0) - 0.6).astype(np.float32)
        np.save(path, distances) if path.suffix == ".npy" else np.savez(path, sdf=distances)
        return
    import trimesh

    ball = trimesh.creation.icosphere(1)
    if path.suffix == ".xyz":
        np.savetxt(path, np.concatenate([ball.vertices, ball.vertex_normals], axis=1))
    elif path.suffix == ".gltf":
        files = ball.export(file_type="gltf")
        document = json.loads(files["model.gltf"])
        for buffer in document["buffers"]:
            content = base64.b64encode(files[buffer["uri"]]).decode()
            buffer["uri"] = f"data:application/octet-stream;base64,{content}"
        path.write_text(json.dumps(document))
    else:
        ball.export(path)


def _volume(path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 200, (8, 6, 5)).astype(np.int16)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, volume=values)
    elif path.suffix in (".tif", ".tiff"):
        _write("volume", path, values[..., None])
    else:
        import nibabel

        kinds = {".hdr": nibabel.Nifti1Pair, ".img": nibabel.Nifti1Pair}
        kinds |= {".mgh": nibabel.MGHImage, ".mgz": nibabel.MGHImage}
        nibabel.save(kinds.get(path.suffix, nibabel.Nifti1Image)(values, np.diag([1.0, 1.0, 2.0, 1.0])), path)


def _video(path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 200, (5, 16, 16, 3)).astype(np.uint8)
    if path.suffix == ".apng":
        from PIL import Image

        frames = [Image.fromarray(frame) for frame in values]
        frames[0].save(path, "PNG", save_all=True, append_images=frames[1:])
    elif path.suffix in (".gif", ".npy"):
        _write("video", path, values)
    else:
        import av

        form = {".m4v": "mp4", ".mkv": "matroska"}.get(path.suffix, path.suffix[1:])
        with av.open(str(path), "w", format=form) as file:
            stream = file.add_stream("libvpx" if form == "webm" else "mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
            for frame in values:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
            file.mux(stream.encode())


def _array(path: Path) -> None:
    rows = np.random.default_rng(0).random((60, 3))
    if path.suffix == ".npz":
        np.savez(path, points=rows[:, :2], values=rows[:, 2:])
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(dict(zip(("x", "y", "t"), rows.T, strict=True))), path)
    else:
        separator = "," if path.suffix == ".csv" else "\t"
        lines = [("x [m]", "y [m]", "t"), *rows.tolist()]
        path.write_text("\n".join(separator.join(map(str, line)) for line in lines) + "\n")


_WRITERS = {
    "image": _image,
    "audio": _audio,
    "shape": _shape,
    "volume": _volume,
    "video": _video,
    "array": _array,
}


def _write(modality: str, path: Path, values: np.ndarray) -> None:
    """Write values as the modality writes a reconstruction."""
    plugin = MODALITIES.get(modality)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    plugin(plugin.Options()).write(path, values, {"squeezed": True, "frame_rate": 10.0})
