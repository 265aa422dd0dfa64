"""Masks in a field's metadata."""

import base64
import tracemalloc
import zlib

import numpy as np
import pytest

from inrkit import DataError
from inrkit.signals.packing import packed, unpacked


def test_a_mask_comes_back_and_spreads_over_other_lattices():
    mask = np.random.default_rng(0).random((3, 7)) < 0.5
    assert np.array_equal(unpacked(packed(mask), (3, 7)), mask)
    assert np.array_equal(unpacked(packed(mask), (6, 7)), mask.repeat(2, axis=0))


def test_a_mask_takes_no_more_memory_than_its_lattice():
    bomb = base64.b64encode(zlib.compress(bytes(1 << 28), 9)).decode()
    tracemalloc.start()
    mask = unpacked({"shape": [4, 4], "bits": bomb}, (4, 4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not mask.any() and peak < 1 << 22
    with pytest.raises(DataError, match="does not fit in memory"):
        unpacked({"shape": [1 << 30, 1 << 20], "bits": bomb}, (4, 4))
