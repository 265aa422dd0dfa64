"""Rate and distortion of compressed fields, beside the codecs made for each kind of signal; docs/compress.md.

    python tools/compress.py photo.png speech.flac scan.nii.gz bunny.obj --kilobytes 10 20 40

Prints a table for each file. A field of S bytes is fitted by its modality's preset with 8·S/5 parameters, and
compressed to S bytes. A codec gets its best setting of at most S bytes. Codecs that are not installed are left out:
JPEG XL needs pillow-jxl-plugin, draco DracoPy.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

import inrkit
from inrkit.errors import ConfigError
from inrkit.modalities.shape import _original
from inrkit.modalities.shape.metrics import surface_metrics
from inrkit.signals.modality import modality_of

BITS = 5
"""A parameter, which decides how many a field of a size gets."""

Coded = tuple[int, float]
"""Bytes, and how good that is."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--kilobytes", nargs="+", type=float, default=[10, 20, 40, 80])
    parser.add_argument("--bits", type=float, default=BITS)
    given = parser.parse_args()
    for path in given.files:
        table(path, [round(1000 * each) for each in given.kilobytes], given.bits)


def table(path: Path, sizes: list[int], bits: float) -> None:
    """Print the table of a file."""
    kind = modality_of(path)
    lossless, codecs, quality, title = KINDS[str(kind)](path)
    points = {name: list(settings) for name, settings in codecs.items()}
    points = {name: settings for name, settings in points.items() if settings}
    print(f"\n{path.name}: {title}; {lossless}\n")
    print("| bytes | inrkit | " + " | ".join(points) + " | fit, compression |")
    print("|---" * (len(points) + 3) + "|")
    for size in sizes:
        found, seconds = field_of(path, size, bits, quality)
        best = [at_most(settings, size, kind == "shape") for settings in points.values()]
        print(f"| {size:,} | {found} | {' | '.join(best)} | {seconds} |", flush=True)


def field_of(path: Path, size: int, bits: float, quality: Callable[[inrkit.Field], float]) -> tuple[str, str]:
    """How good a field of `size` bytes is, and how long it takes."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        parameters = round(8 * size / bits)
        run = inrkit.fit(path, out=Path(folder) / "run", network={"parameters": parameters}, log={"report": False})
        fitted = time.perf_counter()
        try:
            done = inrkit.compress(run, Path(folder) / "small.inr", size=size)
        except ConfigError:
            return "–", "–"
        told = shown(quality(inrkit.load(done.path)), run.config.modality.name == "shape")
        return told, f"{fitted - started:.0f} s, {time.perf_counter() - fitted:.0f} s"


def at_most(settings: list[Coded], size: int, least: bool) -> str:
    """The best of a codec's settings that take `size` bytes at most."""
    fitting = [quality for taken, quality in settings if taken <= size]
    return shown((min if least else max)(fitting), least) if fitting else "–"


def shown(quality: float, least: bool) -> str:
    return f"{1e4 * quality:.2f}" if least else f"{quality:.1f}"


def decibels(original: np.ndarray, decoded: np.ndarray, peak: float | None) -> float:
    """PSNR, or the ratio of signal to noise if no peak is given."""
    signal, error = original.astype(float), decoded.astype(float) - original
    power = np.square(signal).mean() if peak is None else peak**2
    return 10 * math.log10(power / max(1e-30, np.square(error).mean()))


def pictures(pixels: np.ndarray, quality: Callable[[np.ndarray], float]) -> dict[str, Iterator[Coded]]:
    """Codecs of pictures, each at a range of settings."""
    with contextlib.suppress(ImportError):
        import pillow_jxl  # noqa: F401
    image = Image.fromarray(pixels)
    Image.init()

    def coded(form: str, settings: list[dict[str, object]]) -> Iterator[Coded]:
        if form not in Image.SAVE:
            return
        for each in settings:
            file = io.BytesIO()
            image.save(file, form, **each)
            yield len(file.getvalue()), quality(np.asarray(Image.open(file).convert(image.mode)))

    qualities = [1, 2, 3, 4, 5, 7, *range(10, 100, 5), 97, 99]
    return {
        "JPEG": coded("JPEG", [{"quality": each, "optimize": True, "progressive": True} for each in qualities]),
        "WebP": coded("WEBP", [{"quality": each, "method": 6} for each in qualities]),
        "AVIF": coded("AVIF", [{"quality": each, "speed": 4} for each in qualities[::2]]),
        "JPEG XL": coded("JXL", [{"quality": each} for each in qualities[::2]]),
    }


def bytes_of(save: Callable[[io.BytesIO], object]) -> int:
    file = io.BytesIO()
    save(file)
    return len(file.getvalue())


def picture(path: Path) -> tuple[str, dict[str, Iterator[Coded]], Callable[[inrkit.Field], float], str]:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    image = Image.fromarray(pixels)
    png = bytes_of(lambda file: image.save(file, "PNG", optimize=True))
    webp = bytes_of(lambda file: image.save(file, "WEBP", lossless=True, method=6))

    def quality(decoded: np.ndarray) -> float:
        return decibels(pixels, decoded, 255)

    title = f"{'×'.join(map(str, pixels.shape))} values, PSNR in dB"
    lossless = f"lossless: PNG {png:,} bytes, WebP {webp:,}"
    return lossless, pictures(pixels, quality), lambda field: quality(field.render()), title


def sound(path: Path) -> tuple[str, dict[str, Iterator[Coded]], Callable[[inrkit.Field], float], str]:
    samples, rate = soundfile.read(path, dtype="int16", always_2d=True)

    def quality(decoded: np.ndarray) -> float:
        kept = np.zeros(samples.shape)
        kept[: len(decoded)] = decoded.reshape(len(decoded), -1)[: len(samples)]
        return decibels(samples, kept, None)

    def coded(form: str, subtype: str) -> Iterator[Coded]:
        for level in np.linspace(0, 0.98, 25):
            file = io.BytesIO()
            soundfile.write(file, samples, rate, format=form, subtype=subtype, compression_level=float(level))
            file.seek(0)
            yield len(file.getvalue()), quality(soundfile.read(file, dtype="float64")[0] * 32768)

    flac = bytes_of(lambda file: soundfile.write(file, samples, rate, format="FLAC", compression_level=1.0))
    codecs = {
        "Opus": coded("OGG", "OPUS"),
        "Vorbis": coded("OGG", "VORBIS"),
        "MP3": coded("MP3", "MPEG_LAYER_III"),
    }

    def of_field(field: inrkit.Field) -> float:
        scale = 32768 if field.dtype.kind == "f" else 1
        return quality(field.render().astype(float) * scale)

    title = f"{len(samples):,} samples, {len(samples) / rate:.1f} s, signal to noise in dB"
    return f"lossless: FLAC {flac:,} bytes", codecs, of_field, title


def scan(path: Path) -> tuple[str, dict[str, Iterator[Coded]], Callable[[inrkit.Field], float], str]:
    modality = inrkit.MODALITIES.get("volume")
    dataset = modality(modality.Options()).read(path)
    values = dataset.stored(slice(None)).numpy().reshape(dataset.grid_shape).astype(float)
    low, high = values.min(), values.max()

    def quality(decoded: np.ndarray) -> float:
        return decibels(values, decoded.reshape(values.shape), high - low)

    # Codecs of pictures see the slices side by side, 8 bits a value.
    columns = math.ceil(math.sqrt(len(values)))
    rows = math.ceil(len(values) / columns)
    height, width = values.shape[1:]
    tiles = np.zeros((rows * columns, height, width))
    tiles[: len(values)] = values
    flat = tiles.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
    grays = np.rint((flat - low) / (high - low) * 255).astype(np.uint8)

    def of_slices(decoded: np.ndarray) -> float:
        back = decoded.reshape(rows, height, columns, width).swapaxes(1, 2).reshape(-1, height, width)[: len(values)]
        return quality(back / 255 * (high - low) + low)

    title = (
        f"{'×'.join(map(str, values.shape))} values, PSNR in dB of their range; other codecs see slices side by side"
    )
    codecs = pictures(grays, of_slices)
    return f"lossless: {path.stat().st_size:,} bytes as it comes", codecs, lambda field: quality(field.render()), title


def shape(path: Path) -> tuple[str, dict[str, Iterator[Coded]], Callable[[inrkit.Field], float], str]:
    plugin = inrkit.MODALITIES.get("shape")
    options = plugin.Options()
    original = _original(path, options.margin)
    vertices, faces = original.vertices * original.scale + original.center, original.faces

    def coded() -> Iterator[Coded]:
        try:
            import DracoPy
        except ImportError:
            return
        for bits in range(5, 17):
            data = DracoPy.encode(vertices, faces, quantization_bits=bits, compression_level=10)
            mesh = DracoPy.decode(data)
            yield len(data), surface_metrics(original, np.asarray(mesh.points, dtype=float), mesh.faces)["chamfer"]

    title = f"{len(vertices):,} vertices, {len(faces):,} faces, Chamfer distance in 10⁻⁴ of the diagonal"
    whole = f"{path.suffix[1:]} of {path.stat().st_size:,} bytes"
    return whole, {"draco": coded()}, lambda field: field.modality.assess(field, path)["chamfer"], title


KINDS = {"image": picture, "audio": sound, "volume": scan, "shape": shape}


if __name__ == "__main__":
    main()
