"""TIFF stacks, with the names, the spacing and the units of their axes where ImageJ or OME wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from inrkit.errors import ConfigError, DataError
from inrkit.modalities.image import LOGGERS
from inrkit.modalities.volume.arrays import Stored
from inrkit.signals.decoding import DEFLATED, decoding, require_memory, require_present, tell_of_unpacking

_CHANNELS = "SC"
_MICROMETRES = ("µm", "μm", "um", "micron", "microns", "micrometer", "\\u00B5m")
_IMAGEJ_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
_MOST_TIMES_MORE = {1: 1, 5: 1400, 8: DEFLATED, 32773: 64, 32946: DEFLATED}
"""How many bytes one of a file becomes at most, by TIFF's number of a compression: none, LZW, deflate, PackBits."""


def read_stack(path: Path) -> Stored:
    """The first series of a TIFF: all its pages that belong together."""
    with decoding(path, "is damaged or truncated", *LOGGERS), tifffile.TiffFile(path) as file:
        pages = len(file.pages)
        file.filehandle.seek(file.pages.next_page_offset)
        if any(file.filehandle.read(file.tiff.offsetsize)):
            raise DataError(
                f"{path} is truncated: it names more pages than the {pages} it has; check how it was copied"
            )
        series = file.series[0]
        axes = series.axes
        metadata = _described(file, axes)
        notes = [f"it holds {len(file.series)} series of pictures; the first is read"] if len(file.series) > 1 else []
        if series.dataoffset is not None:
            # The pages lie in the file one after the other, uncompressed: they come from there as they are needed.
            array = tifffile.memmap(path, mode="r")
        else:
            most = _MOST_TIMES_MORE.get(int(series.keyframe.compression))
            if most is not None and file.ome_metadata is None:  # parts of an OME stack may lie in other files
                require_present(path, series.nbytes, path.stat().st_size, most)
            require_memory(path, series.nbytes)
            if int(series.keyframe.compression) != 1:
                tell_of_unpacking(path, series.nbytes)
            try:
                array = series.asarray()
            except ValueError as error:
                if "imagecodecs" in str(error):
                    needs = "is damaged, or compressed in a way that needs: pip install imagecodecs"
                    raise DataError(f"{path} {needs}") from error
                raise
    channels = next((axes.index(name) for name in _CHANNELS if name in axes), None)
    if "spacing" in metadata:
        cell = " × ".join(f"{step:.4g} {unit}".strip() for step, unit in zip(*_steps(metadata), strict=True))
        notes.append(f"its axes are {', '.join(metadata['axes'])}, a cell {cell}")
    if channels is None:
        return Stored(array, None, metadata, notes)
    return Stored(np.moveaxis(array, channels, -1), True, metadata, notes)


def _steps(metadata: dict[str, Any]) -> tuple[list[float], list[str]]:
    return metadata["spacing"], metadata["axis_units"]


def _described(file: tifffile.TiffFile, axes: str) -> dict[str, Any]:
    """Names, spacing and units of the axes that are not channels; empty where the file says nothing of them."""
    names = [name for name in axes if name not in _CHANNELS]
    if file.is_ome:
        flavour, steps = "ome", _steps_of_ome(file.ome_metadata)
    elif file.is_imagej:
        flavour, steps = "imagej", _steps_of_imagej(file)
    else:
        return {}
    channels = next((name for name in _CHANNELS if name in axes), "")
    metadata: dict[str, Any] = {"flavour": flavour, "axes": names, "channel_axis": channels}
    if steps:
        metadata["spacing"] = [steps.get(name, (1.0, ""))[0] for name in names]
        metadata["axis_units"] = [steps.get(name, (1.0, ""))[1] for name in names]
    return metadata


def _steps_of_ome(xml: str) -> dict[str, tuple[float, str]]:
    """Spacing and unit by the axis's name, from the first image of OME-XML."""
    root = ElementTree.fromstring(xml)
    found = next((element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"), None)
    if found is None:
        return {}
    steps = {}
    for name, key, usual in (
        ("X", "PhysicalSizeX", "µm"),
        ("Y", "PhysicalSizeY", "µm"),
        ("Z", "PhysicalSizeZ", "µm"),
        ("T", "TimeIncrement", "s"),
    ):
        if float(found.get(key, 0)) > 0:
            steps[name] = (float(found.get(key, 0)), found.get(f"{key}Unit", usual))
    return steps


def _steps_of_imagej(file: tifffile.TiffFile) -> dict[str, tuple[float, str]]:
    """Spacing and unit by the axis's name, from ImageJ's description and the resolution of the first page."""
    said = file.imagej_metadata or {}
    unit = str(said.get("unit", ""))
    unit = "µm" if unit in _MICROMETRES else unit
    steps = {}
    if unit and unit not in ("pixel", "pixels", "inch"):
        for name, tag in (("X", "XResolution"), ("Y", "YResolution")):
            count, length = file.pages.first.tags.valueof(tag, (1, 1))
            if count > 0 and length > 0:
                steps[name] = (length / count, unit)
        if float(said.get("spacing", 0)) > 0:
            steps["Z"] = (float(said["spacing"]), unit)
    if float(said.get("finterval", 0)) > 0:
        steps["T"] = (float(said["finterval"]), "s")
    return steps


def write_stack(path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
    """Write (*shape, C) values, as a stack of ImageJ or OME where they came from one."""
    array = values[..., 0] if metadata.get("squeezed") else values
    channels = 0 if metadata.get("squeezed") else values.shape[-1]
    if array.ndim - (channels > 0) < 2 or array.dtype.itemsize > 8:
        raise ConfigError(f"{path.suffix} cannot hold {array.ndim} axes of {array.dtype}; choose .npy")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8) * np.uint8(255)
    names = metadata.get("axes", [])
    if len(names) == array.ndim - (channels > 0) and "".join(names) in ("YX", "ZYX", "TYX", "TZYX"):
        _write_described(path, array, channels, metadata)
    elif not channels:
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        colours = 3 if channels in (3, 4) else 1
        tifffile.imwrite(
            path,
            array,
            photometric="rgb" if colours == 3 else "minisblack",
            planarconfig="contig",
            extrasamples=["unspecified"] * (channels - colours),
        )


def _write_described(path: Path, array: np.ndarray, channels: int, metadata: dict[str, Any]) -> None:
    """With axes that have names, and steps over the extent that was read."""
    names = "".join(metadata["axes"])
    dimensions = len(names)
    steps = {}
    if "spacing" in metadata:
        spacing = np.multiply(metadata["spacing"], np.divide(metadata["shape"], array.shape[:dimensions]))
        steps = {
            name: (float(step), unit) for name, step, unit in zip(names, spacing, metadata["axis_units"], strict=True)
        }
    colours = channels in (3, 4) and metadata.get("channel_axis") == "S"
    if channels and not colours:
        array, names = np.moveaxis(array, -1, dimensions - 2), f"{names[:-2]}C{names[-2:]}"
    elif colours:
        names += "S"
    photometric = "rgb" if colours else "minisblack"
    plain = {name: unit for name, (_, unit) in steps.items() if name != "T"}
    in_imagej = array.dtype in _IMAGEJ_TYPES and (not colours or array.dtype == np.uint8)
    if metadata["flavour"] == "imagej" and in_imagej and len(set(plain.values())) <= 1:
        said: dict[str, Any] = {"axes": names}
        if plain:
            said["unit"] = next(iter(plain.values())).replace("µ", "\\u00B5")
        if "Z" in steps:
            said["spacing"] = steps["Z"][0]
        if "T" in steps:
            said["finterval"] = steps["T"][0]
        resolution = (1 / steps["X"][0], 1 / steps["Y"][0]) if {"X", "Y"} <= steps.keys() else None
        tifffile.imwrite(path, array, imagej=True, photometric=photometric, resolution=resolution, metadata=said)
        return
    keys = {"X": "PhysicalSizeX", "Y": "PhysicalSizeY", "Z": "PhysicalSizeZ", "T": "TimeIncrement"}
    said = {"axes": names}
    for name, (step, unit) in steps.items():
        said |= {keys[name]: step, f"{keys[name]}Unit": unit}
    tifffile.imwrite(path, array, ome=True, photometric=photometric, metadata=said)
