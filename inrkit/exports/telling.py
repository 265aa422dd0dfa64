"""What exports say of themselves."""

from __future__ import annotations

import numpy as np

from inrkit.runs.field import Field


def size_of(count: int) -> str:
    """Bytes, for people."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"


def rows(field: Field) -> str:
    """The shapes of what goes in and comes out."""
    return f"coordinates (rows, {field.dimensions}) float64 to values (rows, {field.channels}) float32"


def difference(field: Field, values: np.ndarray, expected: np.ndarray, where: str) -> str:
    """The largest difference from Python's field, as a share of the range of its values.

    Args:
        values: (n, C), as another program computes them.
        expected: (n, C), as Python does.
        where: that program.
    """
    most = float(np.abs(np.asarray(values, np.float64) - expected).max())
    return (
        f"at {len(expected):,} coordinates {where} differs by {most / span(field, expected):.1g} of the range at most"
    )


def span(field: Field, values: np.ndarray) -> float:
    """The range of a field's values, by which differences are told.

    Args:
        values: (n, C), some of them.
    """
    low, high = field.value_range or (float(values.min()), float(values.max()))
    return (high - low) or 1.0


def kept(field: Field, mask: bool = False) -> str:
    """What an export keeps of a field, and what not.

    Args:
        mask: whether it knows where the signal is not known.
    """
    units = units_of(field)
    parts = [f"physical coordinates{f' ({units})' if units else ''}"]
    if getattr(field.network, "tiled", False):
        parts.append("tiles and their blending")
    parts.append(f"the transform {field.names['transform']}" if field.names["transform"] else "the transform")
    if field.value_range is not None:
        parts.append("the range of values")
    if "known" not in field.metadata:
        return f"keeps {', '.join(parts)}"
    return f"keeps {', '.join([*parts, 'the mask'])}" if mask else f"keeps {', '.join(parts)}, not the mask"


def units_of(field: Field) -> str:
    """The units of a field's axes, each once; "" if they are not known."""
    return ", ".join(dict.fromkeys("its own" if unit == "own" else unit for unit in field.units))


def untraceable(field: Field, what: str, error: Exception) -> str:
    """Why a network cannot be exported, in a line."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    name = field.names["network"] or type(field.network).__name__
    return f"network {name} cannot be written as {what}, because torch cannot trace it: {reason}"
