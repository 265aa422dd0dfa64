"""What `tools/fuzz.py` changes still has the right lengths and checksums, or readers would look no further."""

import io
import random
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOLS = Path(__file__).parents[2] / "tools"
# The first page of a Vorbis file as libogg has written it.
PAGE = bytes.fromhex(
    "4f676753000200000000000000004c67782000000000a1af2cd9011e"
    "01766f726269730000000001401f00000000000070620000000000009901"
)


@pytest.fixture(scope="module")
def tools():
    sys.path.insert(0, str(TOOLS))
    try:
        import mutations
        import small_files
    finally:
        sys.path.remove(str(TOOLS))
    return mutations, small_files


def test_a_small_file_is_made_of_every_kind_that_is_read(tools, tmp_path):
    kinds = tools[1].suffixes()
    assert {("image", ".png"), ("volume", ".nii.gz"), ("shape", ".glb"), ("array", ".csv")} < set(kinds)
    for modality, suffix in tools[1].USUAL.items():
        tools[1].write(modality, tmp_path / f"small{suffix}")
        assert (modality, suffix) in kinds and (tmp_path / f"small{suffix}").stat().st_size < 1 << 16


def test_changed_chunks_of_a_png_have_right_lengths_and_checksums(tools):
    file, chance = io.BytesIO(), random.Random(0)
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10)).save(file, "PNG")
    for _ in range(50):
        content, start = tools[0]._png(file.getvalue(), chance), 8
        while start < len(content):
            (length,) = struct.unpack_from(">I", content, start)
            body = content[start + 4 : start + 8 + length]
            assert struct.unpack_from(">I", content, start + 8 + length) == (zlib.crc32(body),)
            start += 12 + length


def test_changed_pages_of_an_ogg_have_the_checksum_of_libogg(tools):
    assert tools[0]._with_checksum(PAGE[:22] + bytes(4) + PAGE[26:]) == PAGE


def test_changed_members_of_an_archive_can_be_unpacked(tools):
    file, chance = io.BytesIO(), random.Random(0)
    np.savez(file, x=np.arange(5), y=np.arange(6))
    with pytest.warns(UserWarning, match="Duplicate name"):  # one of the changes
        for _ in range(50):
            with zipfile.ZipFile(io.BytesIO(tools[0]._archive(file.getvalue(), chance))) as archive:
                assert archive.testzip() is None
