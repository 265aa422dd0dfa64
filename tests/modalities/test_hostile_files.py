"""Small files that promise much: refused in a line, before memory is taken for what is not there."""

import io
import json
import resource
import struct
import zipfile
import zlib

import numpy as np
import pytest
import soundfile

from inrkit import DataError
from inrkit.signals.modality import MODALITIES, modality_of


def words(*numbers):
    return np.array(numbers, dtype="<u4").tobytes()


def glb(accessors, blob=b"", **view):
    document = {"asset": {"version": "2.0"}, "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}]}
    document |= {"accessors": accessors, "bufferViews": [{"buffer": 0, **view}], "buffers": [{"byteLength": len(blob)}]}
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = words(len(text), 0x4E4F534A) + text + words(len(blob), 0x004E4942) + blob
    return words(0x46546C67, 2, 12 + len(body)) + body


def npy(shape, kind="<f4"):
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def npz(**arrays):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def tall(rows):
    """A PNG of 20 pixels a row that promises so many rows and has one."""
    header = struct.pack(">IIBBBBB", 20, rows, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(61))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def apng(side, frames, part=1):
    pixel = zlib.compress(bytes(2))
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))]
    parts.append(chunk(b"acTL", struct.pack(">II", frames, 0)))
    for number in range(frames):
        parts.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, part, part, 0, 0, 1, 10, 0, 0)))
        parts.append(chunk(b"IDAT", pixel) if number == 0 else chunk(b"fdAT", struct.pack(">I", number) + pixel))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def gif(width, height):
    """A GIF of one pixel on a canvas of so many."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00;"


def flac(samples):
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).integers(-999, 999, 4000).astype(np.int16), 8000, format="FLAC")
    content = bytearray(file.getvalue())
    said = int.from_bytes(content[18:26], "big") >> 36 << 36  # of STREAMINFO, whose last 36 bits are the samples
    content[18:26] = (said | samples).to_bytes(8, "big")
    return bytes(content)


VEC3 = {"componentType": 5126, "type": "VEC3"}
CORNERS = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 3 3 1\n"
FILES = {
    "image": {"rows.png": (tall(8_000_000), "promises 160000000 bytes")},
    "shape": {
        "no buffer.glb": (glb([{**VEC3, "count": 10**9}]), "values that are not in it"),
        "no step.glb": (glb([{**VEC3, "count": 4 * 10**8, "bufferView": 0}], bytes(12), byteStride=0), "a buffer ends"),
        "small step.glb": (glb([{**VEC3, "count": 2, "bufferView": 0}], bytes(16), byteStride=4), "a buffer ends"),
        "long face.obj": (CORNERS + b"f" + b" 1 2 3 4 2" * 50_000, "250,000 corners"),
        "long number.obj": (CORNERS * 10_000 + b"v 0 1 " + b"9" * 100_000, "a number of 100,000 characters"),
        "long number.xyz": (b"0 0 1\n" * 50_000 + b"0 1 " + b"9" * 100_000, "a number of 100,000 characters"),
        "long number.off": (b"OFF\n1 0 0\n0 1 " + b"9" * 100_000, "a number of 100,000 characters"),
        "two numbers.obj": (b"v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n", "line 1: a vertex has 2 numbers"),
        "points.npz": (npz(points=npy((10**9, 3))), "promises 12000000000 bytes"),
        "sdf.npz": (npz(sdf=npy((4000, 4000, 4000))), "promises 256000000000 bytes"),
    },
    "array": {
        "table.npz": (npz(points=npy((10**9, 3)), values=npy((10**9, 1))), "promises 12000000000 bytes"),
        "columns.npz": (npz(x=npy((10**10,)), y=npy((10**10,))), "promises 40000000000 bytes"),
        "long field.csv": (b"x,y\n1,2\n" + b"1" * 200_000 + b",3\n", "no row of a table"),
    },
    "volume": {"lie.npz": (npz(volume=npy((1 << 14, 1 << 14, 1 << 10))), "promises 1099511627776 bytes")},
    "video": {
        "canvas.gif": (gif(10_000, 9_000), "promises 90000000 bytes"),
        "canvas.apng": (apng(18_300, 4), "18300×18300 pixels"),
        "frame.apng": (apng(40, 2, 18_300), "a frame lies outside the picture"),
        "part.apng": (apng(900, 2, 900), "promises 900×900 pixels and has no data"),
    },
    "audio": {
        "many.flac": (flac(10**8), "100,000,000 samples"),
        "most.flac": (flac(2**36 - 1), "68,719,476,735 samples"),
    },
}


@pytest.mark.parametrize(
    ("modality", "name"), [(modality, name) for modality, files in FILES.items() for name in files]
)
def test_a_file_that_promises_more_than_it_holds_takes_no_memory(modality, name, tmp_path):
    content, said = FILES[modality][name]
    (tmp_path / name).write_bytes(content)
    plugin = MODALITIES.get(modality)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=said):
        len(plugin(plugin.Options()).read(tmp_path / name))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


@pytest.mark.parametrize("modality", ["image", "volume", "shape", "array"])
@pytest.mark.parametrize(
    ("shape", "kind"), [((3, 4), "|V0"), ((-1,), "|V0"), ((4, 0), "|S0"), ((-1,), "<f4"), ((), "|V0")]
)
def test_an_array_that_cannot_be_ends_no_process(modality, shape, kind, tmp_path):
    plugin = MODALITIES.get(modality)
    files = {"array.npz": npz(x=npy(shape, kind), y=npy(shape, kind))}
    if modality != "array":
        files = {"array.npy": npy(shape, kind) + bytes(99), "array.npz": npz(sdf=npy(shape, kind))}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        modality_of(tmp_path / name)  # looks into it
        with pytest.raises(DataError, match=name):
            len(plugin(plugin.Options()).read(tmp_path / name))


def test_an_archive_whose_directory_points_before_its_beginning_is_damaged(tmp_path):
    file = io.BytesIO()
    np.savez(file, x=np.arange(9.0), y=np.arange(9.0))
    content = bytearray(file.getvalue())
    end = content.rindex(b"PK\x05\x06")
    content[end + 16 : end + 20] = words(0xFFFFFF00)  # where the directory begins
    (tmp_path / "table.npz").write_bytes(content)
    plugin = MODALITIES.get("array")
    with pytest.raises(DataError, match="damaged"):
        plugin(plugin.Options()).read(tmp_path / "table.npz")


def test_a_flac_of_silence_holds_what_it_promises(tmp_path):
    soundfile.write(tmp_path / "silence.flac", np.zeros(10**7, dtype=np.int16), 8000)
    audio = MODALITIES.get("audio")
    assert len(audio(audio.Options()).read(tmp_path / "silence.flac")) == 10**7


def test_a_name_of_a_channel_that_is_no_text_is_kept_as_text(tmp_path):
    pytest.importorskip("OpenImageIO", reason="needs OpenImageIO; pip install 'inrkit[hdr]'")
    image = MODALITIES.get("image")
    reader = image(image.Options())
    reader.write(tmp_path / "named.exr", np.zeros((4, 3, 5), np.float32), {})
    content = (tmp_path / "named.exr").read_bytes()
    assert content.count(b"C0\0") == 1
    (tmp_path / "named.exr").write_bytes(content.replace(b"C0\0", b"\xff0\0"))
    dataset = reader.read(tmp_path / "named.exr")
    assert "?0" in json.dumps(dataset.metadata, ensure_ascii=False).encode().decode()
    values = dataset.values.numpy().reshape(4, 3, 5)
    reader.write(tmp_path / "again.exr", values, dataset.metadata)
    assert len(reader.read(tmp_path / "again.exr")) == 12


def with_checksum(page):
    """A page of an Ogg with the checksum that it has by RFC 3533: CRC-32 of 0x04C11DB7, not reflected, from 0."""
    page = page[:22] + bytes(4) + page[26:]
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1) ^ (0x104C11DB7 if checksum & 0x80000000 else 0)
    return page[:22] + struct.pack("<I", checksum) + page[26:]


def test_an_opus_with_a_page_out_of_turn_is_damaged(tmp_path):
    file, pages = io.BytesIO(), []
    values = np.random.default_rng(0).integers(-9999, 9999, 2000).astype(np.int16)
    soundfile.write(file, values, 8000, format="OGG", subtype="OPUS")
    content = file.getvalue()
    while content:
        length = 27 + content[26] + sum(content[27 : 27 + content[26]])
        pages.append(content[:length])
        content = content[length:]
    assert len(pages) > 2 and with_checksum(pages[1]) == pages[1]
    pages[1] = with_checksum(pages[1][:18] + struct.pack("<I", 4278190081) + pages[1][22:])
    (tmp_path / "turn.opus").write_bytes(b"".join(pages))
    audio = MODALITIES.get("audio")
    with pytest.raises(DataError, match="is not audio that libsndfile reads, or is damaged"):
        audio(audio.Options()).read(tmp_path / "turn.opus")


@pytest.mark.parametrize("steps", [-2.0, 0.0, float("nan"), float("inf")])
def test_a_scan_whose_steps_in_time_are_none_is_written_again(steps, tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="needs nibabel; pip install 'inrkit[medical]'")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 3, 2, 5), np.int16), np.eye(4)), tmp_path / "scan.nii")
    content = bytearray((tmp_path / "scan.nii").read_bytes())
    content[92:96] = struct.pack("<f", steps)  # pixdim[4]
    content[252:254] = struct.pack("<h", 1)  # qform_code
    content[268:272] = struct.pack("<f", float("inf"))  # qoffset_x
    (tmp_path / "scan.nii").write_bytes(content)
    volume = MODALITIES.get("volume")
    reader = volume(volume.Options())
    dataset = reader.read(tmp_path / "scan.nii")
    values = dataset.values.numpy().reshape(*dataset.grid_shape, -1)
    reader.write(tmp_path / "again.nii", values, dataset.metadata)
    assert np.asarray(nibabel.load(tmp_path / "again.nii").dataobj).shape == (4, 3, 2, 5)
