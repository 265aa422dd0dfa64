"""TIFF: any depth and number of channels, with where the picture lies on the ground or how large its pixels are."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from PIL import Image as Pillow
from PIL import TiffImagePlugin

from inrkit.errors import ConfigError, DataError, InrkitError
from inrkit.modalities.image.colour import to_srgb
from inrkit.modalities.image.georeference import NODATA, geo_tags, rescaled, without_value
from inrkit.modalities.image.hdr import decoded, openimageio
from inrkit.modalities.image.picture import ALPHA, BANDS, ORIENTATION, Picture, joined, straight, upright

_PHOTOMETRIC = TiffImagePlugin.PHOTOMETRIC_INTERPRETATION
_CODED_COLOURS = tuple(tifffile.PHOTOMETRIC[name] for name in ("PALETTE", "YCBCR", "CIELAB", "ICCLAB", "ITULAB"))
_PLAIN_COLOURS = tuple(tifffile.PHOTOMETRIC[name] for name in ("MINISWHITE", "MINISBLACK", "RGB"))
_MASK_PAGE = 4
"""NewSubfileType of a page that says which pixels of another are there."""

GEO, SPACING = "geo", "spacing"


def one_picture(path: Path) -> bool:
    """Whether a TIFF's first series is a single page; its channels may lie one after the other."""
    with tifffile.TiffFile(path) as file:
        return _stacked(file) == 1


def pillow_keeps(picture: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether Pillow has a mode that holds a TIFF's samples as they are, and can read them into it."""
    tags, mode = picture.tag_v2, picture.mode
    if mode == "LA" and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == tifffile.PLANARCONFIG.SEPARATE:
        return False
    bits, kinds = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)), tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    samples, colours = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1), tags.get(_PHOTOMETRIC)
    signed, real = 2 in kinds, 3 in kinds
    if colours in _PLAIN_COLOURS and len(picture.getbands()) < samples:
        return False
    if max(bits) <= 8:
        return not signed
    if len(bits) > 1 or colours != tifffile.PHOTOMETRIC.MINISBLACK:
        return False
    return mode.startswith("I;16") or (bits == (32,) and ((mode == "I" and signed) or (mode == "F" and real)))


def read_tiff(path: Path) -> Picture:
    """First page of a TIFF that Pillow does not read, or not in full."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.photometric in _CODED_COLOURS:
            colours = tifffile.PHOTOMETRIC(page.photometric).name
            raise DataError(f"{path} has {colours} pixels of {page.dtype}, which inrkit does not read; save it as RGB")
        pixels = _samples(path, page)
    stored = pixels
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    profile, notes = page.iccprofile, []
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED and pixels.ndim == 3 and pixels.dtype.kind == "u":
        pixels, notes = _colours_of_inks(pixels[:, :, :4], profile)
        profile = None
    premultiplied = pixels.ndim == 3 and page.extrasamples[-1:] == (tifffile.EXTRASAMPLE.ASSOCALPHA,)
    if premultiplied and pixels.dtype.kind == "u":
        pixels = straight(pixels)
    picture = Picture(upright(pixels, page.tags.valueof(ORIENTATION, 1)), profile=profile, notes=notes)
    if premultiplied and pixels.dtype.kind == "f":
        picture.about[ALPHA] = True
    if page.extrasamples[-1:] == (tifffile.EXTRASAMPLE.UNSPECIFIED,) and pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        picture.about[BANDS] = True
        picture.notes.append(f"its channel {pixels.shape[2]} is no transparency, but one more band")
    add_facts(path, picture, upright(stored, page.tags.valueof(ORIENTATION, 1)))
    return picture


def _colours_of_inks(inks: np.ndarray, profile: bytes | None) -> tuple[np.ndarray, list[str]]:
    """(H, W, 3) colours of (H, W, 4) amounts of ink, and notes on how they came about."""
    peak = np.iinfo(inks.dtype).max
    share = inks.astype(np.float64) / peak
    plain = np.rint((1 - share[:, :, :3]) * (1 - share[:, :, 3:]) * peak).astype(inks.dtype)
    if profile is None or inks.shape[2] != 4:
        return plain, []
    eight_bit = np.rint(share * 255).astype(np.uint8)
    seen = to_srgb(Pillow.frombytes("CMYK", inks.shape[1::-1], eight_bit.tobytes()), profile)
    if seen is None:
        return plain, ["its inks became colours without its colour profile"]
    return np.asarray(seen), ["its inks became sRGB colours by its colour profile, of 8 bits a channel"]


def _samples(path: Path, page: tifffile.TiffPage) -> np.ndarray:
    """(H, W) or (H, W, C) numbers of a page, the first of its file, as they are stored."""
    try:
        pixels = page.asarray()
    except (ImportError, NotImplementedError, ValueError) as error:
        if isinstance(error, ValueError) and "imagecodecs" not in str(error):
            raise
        pixels = _samples_by_openimageio(path, page)
        if pixels is None:
            needed = "pip install imagecodecs, or 'inrkit[hdr]'"
            raise DataError(f"{path} is damaged, or compressed in a way that needs: {needed}") from error
        return pixels
    separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3
    return np.moveaxis(pixels, 0, -1) if separate else pixels


def _samples_by_openimageio(path: Path, page: tifffile.TiffPage) -> np.ndarray | None:
    """As `_samples`, of a page compressed in a way that tifffile needs a package for; None if that fails too."""
    try:
        pixels = decoded(openimageio(path), path, raw=True)[0]
    except InrkitError:
        return None
    spare = 8 * pixels.dtype.itemsize - page.bitspersample
    whole = pixels.dtype.kind == "u"
    if pixels.dtype != page.dtype or pixels.shape[2] != page.samplesperpixel or (spare and not whole):
        return None
    if spare:
        pixels = pixels >> spare  # it spreads 12 bits over 16
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels = np.iinfo(pixels.dtype).max - pixels  # as they were before it turned them around
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def add_facts(path: Path, picture: Picture, stored: np.ndarray) -> None:
    """What a TIFF says beside its first page's pixels: where they are known, where they lie, and what else it holds.

    Args:
        path: of the file.
        picture: to be told; its pixels are read.
        stored: (H, W) or (H, W, C) numbers as the file has them, upright.
    """
    with contextlib.suppress(Exception), tifffile.TiffFile(path) as file:  # Pillow reads some that tifffile does not
        page = file.pages.first
        orientation = page.tags.valueof(ORIENTATION, 1)
        geo = geo_tags(page.tags)
        if geo and orientation == 1:
            picture.about[GEO] = geo
        spacing = _spacing(file)
        if spacing is not None and not geo and orientation < 5:
            picture.about[SPACING] = spacing
        nodata = page.tags.valueof(NODATA)
        if nodata is not None:
            colours = page.photometric == tifffile.PHOTOMETRIC.RGB
            empty = without_value(stored, str(nodata), colours)
            if empty is not None:
                picture.known = joined(picture.known, ~empty)
        masks = [other for other in _further_pages(file) if other.subfiletype == _MASK_PAGE]
        if masks and masks[0].shape[:2] == page.shape[:2] and len(masks[0].shape) == 2:
            picture.known = joined(picture.known, upright(masks[0].asarray() > 0, orientation))
        count = _stacked(file)
        if count > 1:
            picture.notes.append(f"it holds {count} pictures; the first is read, modality=volume reads them all")
        elif any(other.subfiletype not in (1, _MASK_PAGE, _MASK_PAGE | 1) for other in _further_pages(file)):
            picture.notes.append("it has further pages; the first is read")


def write_tiff(path: Path, values: np.ndarray, profile: bytes | None, metadata: dict[str, Any]) -> None:
    """(H, W, C) values, complex ones too, in one page."""
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * np.uint8(255)
    if values.dtype.itemsize > (16 if values.dtype.kind == "c" else 8):
        raise ConfigError(f"{path.suffix} cannot hold values of {values.dtype}; choose .npy")
    height, width, channels = values.shape
    options: dict[str, Any] = {}
    if profile is not None:
        options["iccprofile"] = profile
    whole = metadata.get("shape", (height, width))
    ratio = (whole[0] / height, whole[1] / width)
    if GEO in metadata:
        # Not its tag for no data: every pixel has a value now, and one that happens to be that number stays.
        options["extratags"] = rescaled(metadata[GEO], ratio)
    if SPACING in metadata:
        options |= _spacing_options(metadata[SPACING], ratio, values)
    if channels == 1:
        tifffile.imwrite(path, values[:, :, 0], photometric="minisblack", **options)
        return
    colours = 3 if channels in (3, 4) and values.dtype.kind != "c" else 1
    alpha = channels - colours == 1 and values.dtype.kind != "c" and BANDS not in metadata
    kind = "assocalpha" if metadata.get(ALPHA) else "unassalpha"
    tifffile.imwrite(
        path,
        values,
        photometric="rgb" if colours == 3 else "minisblack",
        planarconfig="contig",
        extrasamples=[kind if alpha else "unspecified"] * (channels - colours),
        **options,
    )


def _stacked(file: tifffile.TiffFile) -> int:
    series = file.series[0]
    lengths = zip(series.axes, series.shape, strict=True)
    return math.prod(length for axis, length in lengths if axis not in "YXS")


_LOOKED_AT = 16


def _further_pages(file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    return [file.pages[number].aspage() for number in range(1, min(len(file.pages), _LOOKED_AT))]


def _spacing(file: tifffile.TiffFile) -> dict[str, Any] | None:
    """How high and wide a pixel is, and in what unit, as ImageJ and OME say it; None if neither does."""
    page = file.pages.first
    if file.is_ome:
        pixels = next(iter(ElementTree.fromstring(file.ome_metadata or "").iterfind(".//{*}Pixels")), None)
        sizes = [] if pixels is None else [pixels.get("PhysicalSizeY"), pixels.get("PhysicalSizeX")]
        if pixels is None or None in sizes:
            return None
        size = [float(number) for number in sizes if number is not None]
        unit = pixels.get("PhysicalSizeXUnit", "µm")
        if pixels.get("PhysicalSizeYUnit", "µm") != unit:
            return None
    elif file.is_imagej:
        unit = str((file.imagej_metadata or {}).get("unit", ""))
        unit = unit.encode("latin-1", "replace").decode("unicode_escape") if "\\u" in unit else unit
        rationals = [page.tags.valueof(name) for name in ("YResolution", "XResolution")]
        if None in rationals or unit.lower() in ("", "pixel", "pixels"):
            return None
        size = [denominator / numerator for numerator, denominator in rationals]
        unit = "µm" if unit in ("um", "micron", "microns") else unit
    else:
        return None
    if not all(math.isfinite(number) and number > 0 for number in size):
        return None
    return {"size": size, "unit": unit}


def _spacing_options(spacing: dict[str, Any], ratio: tuple[float, float], values: np.ndarray) -> dict[str, Any]:
    """What makes tifffile say the spacing: as ImageJ where it has the dtype, else as OME."""
    (high, wide), unit = spacing["size"], spacing["unit"]
    high, wide = high * ratio[0], wide * ratio[1]
    plain = values.shape[2] == 1 and values.dtype in (np.uint8, np.uint16, np.float32)
    if plain or (values.shape[2] == 3 and values.dtype == np.uint8):
        ascii_unit = "um" if unit == "µm" else unit.encode("ascii", "backslashreplace").decode()
        return {"imagej": True, "resolution": (1 / wide, 1 / high), "metadata": {"unit": ascii_unit}}
    sizes = {"PhysicalSizeX": wide, "PhysicalSizeXUnit": unit, "PhysicalSizeY": high, "PhysicalSizeYUnit": unit}
    return {"ome": True, "metadata": {"axes": "YX" if values.shape[2] == 1 else "YXS", **sizes}}


def stored_of(picture: Pillow.Image) -> np.ndarray:
    """What a TIFF that Pillow has read has as numbers: the entries of a palette rather than their colours."""
    pixels = np.asarray(picture)
    white = picture.tag_v2.get(_PHOTOMETRIC) == tifffile.PHOTOMETRIC.MINISWHITE  # type: ignore[attr-defined]
    return 255 - pixels if white and pixels.dtype == np.uint8 else pixels
