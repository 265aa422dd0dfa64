"""High dynamic range: OpenEXR and Radiance pictures, whose numbers are light and have no upper end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from inrkit.errors import ConfigError, DataError
from inrkit.modalities.image.picture import ALPHA, BANDS, Picture, upright
from inrkit.signals.decoding import decoding

SUFFIXES = (".exr", ".hdr")
_RADIANCE = b"#?"
_KEY = "exr"
_ATTRIBUTES = {"chromaticities": "float[8]", "PixelAspectRatio": "float"}
_COLOURS = (("R", "G", "B", "A"), ("R", "G", "B"), ("Y", "A"), ("Y",))
_SPACE = ("X", "Y", "Z")
"""Three numbers that belong together, of places or of colours, with no luminance among them that stands for all."""
_NAMES = {1: ("Y",), 2: ("Y", "A"), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}


def openimageio(path: Path) -> Any:
    """OpenImageIO's module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import OpenImageIO
    except ImportError as error:
        raise ConfigError(f"{path} is of a format that needs: pip install 'inrkit[hdr]'") from error
    return OpenImageIO


def read_hdr(path: Path) -> Picture:
    """An OpenEXR or Radiance picture: its colours if it has any, else all its channels in the file's order."""
    library = openimageio(path)
    if path.suffix.lower() == ".hdr":
        with path.open("rb") as file:
            if file.read(2) != _RADIANCE:
                raise DataError(
                    f"{path} is no Radiance picture, or is damaged (ENVI and Analyze headers are named .hdr too; "
                    "save their data as .npy); check that it opens elsewhere"
                )
    with decoding(path, "is damaged or truncated"):
        pixels, spec, parts = decoded(library, path)
    # What is no UTF-8 in a name could neither be kept with the field nor written.
    names = [name.encode(errors="replace").decode() for name in spec.channelnames]
    seen = _COLOURS[:2] if set(_SPACE) <= set(names) else _COLOURS
    chosen = next((colours for colours in seen if set(colours) <= set(names)), tuple(names))
    pixels = pixels[:, :, [names.index(name) for name in chosen]]
    about: dict[str, Any] = {"channels": list(chosen)}
    for name in _ATTRIBUTES:
        value = spec.getattribute(name)
        if value is not None:
            about[name] = [float(number) for number in np.atleast_1d(value)]
    notes = []
    others = [name for name in names if name not in chosen]
    if others:
        notes.append(f"channels {', '.join(chosen)} are read; {', '.join(others)} are left out")
    elif chosen == tuple(names) and chosen not in _COLOURS and len(names) > 1:
        notes.append(f"its channels are {', '.join(names)}")
    if parts > 1:
        notes.append(f"it has {parts} parts; the first is read")
    window, whole = (spec.x, spec.y, spec.width, spec.height), (0, 0, spec.full_width, spec.full_height)
    if (spec.full_x, spec.full_y) != (0, 0) or window != whole:
        notes.append(f"its pixels are those of the data window, {spec.width}×{spec.height} at ({spec.x}, {spec.y})")
    exposure = spec.get_float_attribute("hdr:exposure", 1.0)
    if exposure != 1:
        notes.append(f"its values stay as they are stored; divided by its EXPOSURE, {exposure:g}, they are radiance")
    pixels = upright(pixels, spec.get_int_attribute("Orientation", 1))
    premultiplied = {ALPHA: True} if chosen[-1] == "A" and len(chosen) > 1 else {}
    transparent = chosen[-1].rpartition(".")[2].upper() == "A"
    bands = {BANDS: True} if len(chosen) in (2, 4) and not transparent else {}
    return Picture(
        pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, about={_KEY: about, **premultiplied, **bands}, notes=notes
    )


def decoded(library: Any, path: Path, raw: bool = False) -> tuple[np.ndarray, Any, int]:
    """(H, W, C) pixels of a file in its own depth, what OpenImageIO says of it, and how many parts it has.

    Args:
        library: OpenImageIO.
        path: of the file.
        raw: whether inks stay inks.
    """
    settings = library.ImageSpec()
    settings.attribute("oiio:RawColor", int(raw))
    settings.attribute("oiio:UnassociatedAlpha", 1)  # else colours come multiplied with alpha
    file = library.ImageInput.open(str(path), settings)
    if file is None:
        raise DataError(f"{path} is damaged or truncated ({_line(library.geterror())}); check that it opens elsewhere")
    try:
        spec = file.spec()
        if spec.deep:
            raise DataError(f"{path} has deep pixels, several values each, which inrkit does not read; flatten it")
        pixels = file.read_image(0, 0, 0, spec.nchannels, library.UNKNOWN)
        trouble = file.geterror()
        if pixels is None or trouble:
            raise DataError(f"{path} is damaged or truncated ({_line(trouble)}); check that it opens elsewhere")
        parts = 1
        while file.seek_subimage(parts, 0):
            parts += 1
    finally:
        file.close()
    return np.asarray(pixels), spec, parts


def write_hdr(path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
    """(H, W, C) values as OpenEXR, or as Radiance, whose 8 bits a channel share an exponent."""
    suffix, channels = path.suffix.lower(), values.shape[2]
    library = openimageio(path)
    radiance = suffix == ".hdr"
    kinds = {"float16": "half", "float32": "float", "float64": "float", "uint32": "uint"}
    if values.dtype.name not in kinds or (radiance and (channels not in (1, 3) or values.dtype.kind == "u")):
        integers = values.dtype.kind != "f"
        others = ".npy" if values.dtype.itemsize > 8 else ".tif or .npy" if integers or channels > 4 else ".exr or .tif"
        raise ConfigError(f"{suffix} cannot hold {channels} channels of {values.dtype}; choose {others}")
    if radiance:
        values = np.repeat(values, 3 // channels, axis=2).clip(min=0)
    kind = "float" if radiance else kinds[values.dtype.name]
    values = values.astype({"half": np.float16, "float": np.float32, "uint": np.uint32}[kind])
    height, width, channels = values.shape
    spec = library.ImageSpec(width, height, channels, kind)
    about = metadata.get(_KEY, {})
    names = about.get("channels", [])
    if not radiance:
        default = _NAMES.get(channels, tuple(f"C{number}" for number in range(channels)))
        spec.channelnames = tuple(names) if len(names) == channels else default
        for name, type_name in _ATTRIBUTES.items():
            if name in about:
                numbers = about[name]
                spec.attribute(name, library.TypeDesc(type_name), numbers[0] if len(numbers) == 1 else tuple(numbers))
    file = library.ImageOutput.create(str(path))
    if file is None or not file.open(str(path), spec):
        raise OSError(_line(library.geterror() if file is None else file.geterror()))
    written = file.write_image(np.ascontiguousarray(values))
    if not (file.close() and written):
        raise OSError(_line(file.geterror()))


def _line(text: str) -> str:
    return text.strip().partition("\n")[0][:160]
