"""Reading pictures: who decodes a file, and into what mode, so that nothing that it shows is lost."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import png
from PIL import Image as Pillow
from PIL import TiffImagePlugin, UnidentifiedImageError

from inrkit.errors import DataError
from inrkit.modalities.image.colour import fits, png_chunks, to_srgb, unusual
from inrkit.modalities.image.hdr import SUFFIXES as HDR
from inrkit.modalities.image.hdr import decoded, openimageio, read_hdr
from inrkit.modalities.image.picture import LOGGERS, ORIENTATION, TIFF_MAGIC, Picture, upright
from inrkit.modalities.image.tiff import add_facts, pillow_keeps, read_tiff, stored_of
from inrkit.signals.decoding import DEFLATED, decoding, mapped_array, require_memory, require_present

PNG = "png"

_HEAD = 1 << 16
"""Bytes of a file in which its header is looked for."""

_ANIMATED = ("PNG", "WEBP", "AVIF", "GIF")


def read_picture(path: Path) -> Picture:
    """A picture of any format, upright, in the file's own depth."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        with decoding(path, "is not a NumPy array of numbers, or is damaged", *LOGGERS):
            return Picture(mapped_array(path))
    picture = read_hdr(path) if suffix in HDR else _read_encoded(path)
    channels = picture.pixels.shape[2] if picture.pixels.ndim == 3 else 1
    if picture.profile is not None and not fits(picture.profile, channels):
        picture.profile = None
        picture.notes.append("its colour profile is damaged, or of other channels; it is left out")
    return picture


def _read_encoded(path: Path) -> Picture:
    with decoding(path, "is damaged or truncated", *LOGGERS), path.open("rb") as file:
        try:
            # Given the file's name, Pillow would map it into memory, and mix up the sides of a TIFF turned by 90°.
            opened = Pillow.open(file)
        except UnidentifiedImageError as error:
            if _start(path, 4) in TIFF_MAGIC:
                return read_tiff(path)
            raise DataError(f"{path} is not an image that Pillow can read; check that it opens elsewhere") from error
        except Pillow.DecompressionBombError as error:
            raise DataError(f"{path} is too large to decode; save it as .npy, which is read from disk") from error
        with opened:
            tiff = isinstance(opened, TiffImagePlugin.TiffImageFile)
            if isinstance(opened, TiffImagePlugin.TiffImageFile) and not pillow_keeps(opened):
                return read_tiff(path)
            _require_room(path, opened)
            if opened.format == "PNG" and _is_deep_png(path, opened):
                picture = Picture(_read_deep_png(path), profile=opened.info.get("icc_profile"))
            else:
                opened.load()
                picture = _plain(opened)
                if opened.format == "PPM" and picture.pixels.dtype == np.int32:
                    picture.pixels = picture.pixels.astype(np.uint16)  # Pillow's room for 16 bits
            picture.pixels = upright(picture.pixels, _orientation(opened))  # loading a TIFF has turned it
            if tiff:
                add_facts(path, picture, stored_of(opened))
            else:
                _tell_frames(opened, picture)
            if opened.format == "PNG":
                _keep_chunks(path, picture)
            else:
                _keep_depth(path, opened.format or "", picture)
            return picture


def _require_room(path: Path, opened: Pillow.Image) -> None:
    """Refuse a picture that takes more memory than is at hand, or more than there can be data for."""
    count = opened.width * opened.height
    if opened.format == "PNG":
        require_present(path, count * _start(path, 25)[24] // 8, path.stat().st_size, DEFLATED)
    # Pillow has three channels in the room of four, and the array is a copy of them.
    require_memory(path, 2 * 4 * count)


def _start(path: Path, length: int) -> bytes:
    with path.open("rb") as file:
        return file.read(length)


def _orientation(picture: Pillow.Image) -> int:
    try:
        return picture.getexif().get(ORIENTATION, 1)
    except Exception:  # tags that cannot be read are no reason not to read the pixels
        return 1


def _plain(opened: Pillow.Image) -> Picture:
    """A loaded picture in as few channels as show what its own mode shows."""
    profile = opened.info.get("icc_profile")
    if opened.mode == "CMYK" and profile is not None:
        seen = to_srgb(opened, profile)
        if seen is not None:
            return Picture(np.asarray(seen), notes=["its inks became sRGB colours by its colour profile"])
        return Picture(np.asarray(opened.convert("RGB")), notes=["its inks became colours without its colour profile"])
    if opened.mode in ("CMYK", "LAB", "YCbCr"):
        profile = None
    return Picture(np.asarray(opened.convert(_plain_mode(opened))), profile=profile)


def _plain_mode(picture: Pillow.Image) -> str:
    """The mode to convert to: as few channels as show what the picture's own mode shows."""
    mode = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "P": "RGB"}.get(picture.mode, picture.mode)
    if mode.startswith("I;16") or mode in ("I", "F"):
        return mode
    if "transparency" in picture.info:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    return mode if mode in ("L", "LA", "RGB", "RGBA") else "RGB"


def _is_deep_png(path: Path, picture: Pillow.Image) -> bool:
    """Whether Pillow would lose a part: of 16-bit colours or alpha 8 bits, of 16-bit gray its transparent shade."""
    depth, colour = _start(path, 26)[24:]
    return depth == 16 and (colour != 0 or "transparency" in picture.info)


def _read_deep_png(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        width, height, rows, info = png.Reader(file=file).asDirect()
        pixels = np.empty((height, width * info["planes"]), dtype=np.uint16)
        count = 0
        for row in rows:
            pixels[count] = row
            count += 1
    if count < height:
        raise DataError(f"{path} is truncated: it has {count} of {height} rows; check that it opens elsewhere")
    return pixels.reshape(height, width, info["planes"])


def _keep_chunks(path: Path, picture: Picture) -> None:
    chunks = png_chunks(_start(path, _HEAD))
    if chunks:
        picture.about[PNG] = chunks
        picture.notes.append(f"it is seen by its {unusual(chunks)}, which only PNG keeps")


def _tell_frames(opened: Pillow.Image, picture: Picture) -> None:
    frames = getattr(opened, "n_frames", 1)
    if frames > 1:
        more = ", modality=video reads them all" if opened.format in _ANIMATED else ""
        kind = "frames" if more else "pictures"
        picture.notes.append(f"it holds {frames} {kind}; the first is read{more}")


def _keep_depth(path: Path, format: str, picture: Picture) -> None:
    """Read again what Pillow has read with fewer bits a channel than the file has."""
    bits = _bits(format, _start(path, _HEAD))
    if bits <= 8 or picture.pixels.dtype == np.uint16:
        return
    if format != "AVIF":
        try:
            library = openimageio(path)
        except Exception:
            library = None
        if library is not None:
            pixels, _, _ = decoded(library, path)
            picture.pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
            return
    mend = "; save it as TIFF to keep them" if format == "AVIF" else "; pip install 'inrkit[hdr]' keeps them"
    picture.notes.append(f"of its {bits} bits a channel 8 are read{mend}")


def _bits(format: str, start: bytes) -> int:
    """Bits a channel of formats that Pillow reads into 8, as far as their headers tell."""
    if format == "PPM":
        header = re.match(rb"P[2356]\s+(?:#.*\s+)*\d+\s+(?:#.*\s+)*\d+\s+(?:#.*\s+)*(\d+)\s", start)
        return int(header[1]).bit_length() if header else 8
    if format == "JPEG2000":
        place = start.find(b"\xff\x4f\xff\x51")
        return (start[place + 42] & 0x7F) + 1 if 0 <= place < len(start) - 42 else 8
    if format == "AVIF":
        place = start.find(b"av1C")
        return {0: 8, 1: 10, 2: 12, 3: 12}[start[place + 6] >> 5 & 3] if 0 <= place < len(start) - 6 else 8
    if format == "SGI":
        return 8 * struct.unpack(">H", b"\0" + start[3:4])[0]
    return 8
