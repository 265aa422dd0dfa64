"""Boolean arrays in plain JSON, as metadata holds them."""

from __future__ import annotations

import base64
import math
import zlib
from typing import Any

import numpy as np

from inrkit.device import available_memory
from inrkit.errors import DataError


def packed(known: np.ndarray) -> dict[str, Any]:
    """A boolean array in plain JSON, for a dataset's metadata."""
    return {
        "shape": list(known.shape),
        "bits": base64.b64encode(zlib.compress(np.packbits(known).tobytes(), 9)).decode(),
    }


def unpacked(stored: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """The array that `packed` stored, over a lattice of another shape: each cell as the one there."""
    own = tuple(int(length) for length in stored["shape"])
    count = math.prod(own)
    if count > available_memory() // 4:
        raise DataError(f"the mask of a lattice of {count:,} does not fit in memory")
    # No more than the mask needs, however little the compressed bits are.
    bits = np.frombuffer(zlib.decompressobj().decompress(base64.b64decode(stored["bits"]), count // 8 + 1), np.uint8)
    known = np.unpackbits(bits, count=count).view(bool).reshape(own)
    for axis, (old, new) in enumerate(zip(own, shape, strict=True)):
        if old not in (1, new):
            known = known.take((2 * np.arange(new) + 1) * old // (2 * new), axis=axis)
    return np.broadcast_to(known, shape)
