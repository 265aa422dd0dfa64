"""Images: what a file says beside its pixels is kept: colours, places, sizes, depth, and what is not known."""

import io
import json
import struct
import sys
import warnings
import zlib

import numpy as np
import png
import pytest
import tifffile
from PIL import Image as Pillow
from PIL import ImageCms, TiffImagePlugin

import inrkit
from inrkit import MODALITIES, ConfigError, DataError
from inrkit.signals.packing import unpacked

HEIGHT, WIDTH = 12, 10


@pytest.fixture
def image():
    return plugin()


def plugin(**options):
    modality = MODALITIES.get("image")
    return modality(modality.Options(**options))


def noise(channels=3, dtype=np.uint8, shape=(HEIGHT, WIDTH), seed=0):
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.standard_normal((*shape, channels)).astype(dtype)
    info = np.iinfo(dtype)
    return random.integers(info.min, info.max, (*shape, channels), dtype=dtype, endpoint=True)


def values_of(dataset):
    values = dataset.values.numpy()
    values = values.view(dataset.dtype) if dataset.dtype.kind == "u" else values
    return values.reshape(*dataset.grid_shape, dataset.channels)


def known_in(dataset):
    """(*grid_shape) bool; True where a value is known."""
    known = np.zeros(dataset.grid_shape, dtype=bool)
    known.flat[slice(None) if dataset.known is None else dataset.known.numpy()] = True
    return known


def notes(dataset):
    return " | ".join(dataset.metadata["notes"])


def kept(metadata):
    """Metadata as a field's file gives them back."""
    return json.loads(json.dumps(metadata))


# ICC profiles


def matrix_profile(space=b"RGB ", gamma=2.19921875):
    """A profile like Adobe RGB (ICC.1:2010, 8.3), or one of gray with the same curve."""

    def fixed(number):
        return struct.pack(">i", round(number * 65536))

    def xyz(*numbers):
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, numbers))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 6) + b"Adobe\0" + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": xyz(0.9642, 1, 0.8249),
    }
    if space == b"RGB ":
        tags |= {b"rXYZ": xyz(0.60974, 0.31111, 0.01947), b"gXYZ": xyz(0.20528, 0.62567, 0.06087)}
        tags |= {b"bXYZ": xyz(0.14919, 0.06322, 0.74457), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    else:
        tags[b"kTRC"] = curve
    table, body = b"", b""
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", 0, b"none", 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(0.9642) + fixed(1) + fixed(0.8249)
    profile = head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(profile)) + profile[4:]


ADOBE = matrix_profile()
GRAY = matrix_profile(b"GRAY")
PATCHES = np.array([(60, 200, 70), (200, 60, 60), (70, 70, 200), (200, 180, 60)], np.uint8)
PHOTO = PATCHES.reshape(2, 2, 3).repeat(16, axis=0).repeat(16, axis=1)  # the blocks that JPEG cuts pictures into


def seen(path):
    """(H, W, 3) sRGB colours that a colour-managed viewer shows."""
    with Pillow.open(path) as opened:
        profile = opened.info.get("icc_profile")
        plain = opened if opened.mode in ("L", "RGB", "CMYK") else opened.convert("RGB")
        if profile:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            plain = ImageCms.profileToProfile(plain, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return np.asarray(plain.convert("RGB")).astype(int)


@pytest.mark.parametrize("source", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
def test_a_photo_with_a_profile_is_seen_the_same_in_every_format(tmp_path, image, source, suffix):
    lossless = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(source, {})
    Pillow.fromarray(PHOTO).save(tmp_path / f"in{source}", icc_profile=ADOBE, **lossless)
    dataset = image.read(tmp_path / f"in{source}")
    image.write(tmp_path / f"out{suffix}", values_of(dataset), kept(dataset.metadata))
    before, after = seen(tmp_path / f"in{source}"), seen(tmp_path / f"out{suffix}")
    assert np.abs(before - after)[8::16, 8::16].max() <= 2  # JPEG smears edges
    if suffix != ".bmp":
        with Pillow.open(tmp_path / f"out{suffix}") as opened:
            assert opened.info["icc_profile"] == ADOBE


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_keep_their_profile_too(tmp_path, image, suffix, channels):
    profile, pixels = (GRAY if channels == 1 else ADOBE), noise(channels, np.uint16)
    tifffile.imwrite(
        tmp_path / "in.tif",
        pixels[:, :, 0] if channels == 1 else pixels,
        photometric="minisblack" if channels == 1 else "rgb",
        extrasamples=["unassalpha"] if channels == 4 else None,
        iccprofile=profile,
    )
    dataset = image.read(tmp_path / "in.tif")
    image.write(tmp_path / f"out{suffix}", pixels, kept(dataset.metadata))
    again = image.read(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(values_of(again), pixels)
    assert again.metadata["icc"] == dataset.metadata["icc"]
    if suffix == ".png":
        content = dict(png.Reader(bytes=(tmp_path / "out.png").read_bytes()).chunks())[b"iCCP"]
        assert zlib.decompress(content.partition(b"\0\0")[2]) == profile


def test_gray_by_a_profile_of_its_own_is_seen_the_same_as_webp(tmp_path, image):
    ramp = np.linspace(0, 255, HEIGHT * WIDTH).astype(np.uint8).reshape(HEIGHT, WIDTH)
    Pillow.fromarray(ramp).save(tmp_path / "in.png", icc_profile=matrix_profile(b"GRAY", gamma=1.0))
    dataset = image.read(tmp_path / "in.png")
    image.write(tmp_path / "out.webp", values_of(dataset), dataset.metadata)
    assert np.abs(seen(tmp_path / "in.png") - seen(tmp_path / "out.webp")).max() <= 1
    assert np.abs(seen(tmp_path / "out.webp")[:, :, 0] - ramp).max() > 20


def test_a_profile_that_does_not_fit_is_left_out_and_said(tmp_path, image):
    Pillow.fromarray(PHOTO).save(tmp_path / "in.png", icc_profile=b"nonsense")
    dataset = image.read(tmp_path / "in.png")
    assert "icc" not in dataset.metadata
    assert "profile is damaged" in notes(dataset)


def test_a_rendered_photo_has_the_profile_of_the_photo(tmp_path, monkeypatch):
    Pillow.fromarray(PHOTO).save(tmp_path / "photo.png", icc_profile=ADOBE)
    run = inrkit.fit(
        tmp_path / "photo.png", out=tmp_path / "run", steps=2, network={"hidden_features": 16}, device="cpu"
    )
    loaded = inrkit.load(tmp_path / "run")
    loaded.modality.export(tmp_path / "large.jpg", loaded, scale=2)
    for path in (run.reconstruction, tmp_path / "large.jpg"):
        with Pillow.open(path) as opened:
            assert opened.info["icc_profile"] == ADOBE


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    ("kind", "content", "unusual"),
    [
        (b"gAMA", struct.pack(">I", 100000), True),
        (b"gAMA", struct.pack(">I", 45455), False),
        (b"sRGB", b"\0", False),
        (b"cICP", bytes([9, 16, 0, 1]), True),
        (b"cICP", bytes([1, 13, 0, 1]), False),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_chunks_that_change_how_a_png_is_seen_travel_to_pngs(tmp_path, image, kind, content, unusual, dtype):
    image.write(tmp_path / "plain.png", noise(3, dtype), {})
    whole = (tmp_path / "plain.png").read_bytes()
    (tmp_path / "in.png").write_bytes(whole[:33] + chunk(kind, content) + whole[33:])
    dataset = image.read(tmp_path / "in.png")
    assert ("only PNG keeps" in notes(dataset)) == unusual
    image.write(tmp_path / "out.png", values_of(dataset), kept(dataset.metadata))
    found = dict(png.Reader(bytes=(tmp_path / "out.png").read_bytes()).chunks())
    assert found.get(kind) == (content if unusual else None)


def ink_profile():
    """A profile of inks (ICC.1:2010, 10.8) in which cyan is a neutral gray of L* = 50, and every other ink black."""
    corners = [(128, 128, 128) if inks == (1, 0, 0, 0) else (0, 128, 128) for inks in np.ndindex(2, 2, 2, 2)]
    corners[0] = (255, 128, 128)
    identity = b"".join(struct.pack(">i", 65536 * (number % 4 == 0)) for number in range(9))
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(np.array(corners).ravel().tolist())
    lut += ramp * 3
    lut += b"\0" * (-len(lut) % 4)
    head = struct.pack(">I4sI4s4s4s", 0, b"none", 0x02100000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += b"".join(struct.pack(">i", round(number * 65536)) for number in (0.9642, 1, 0.8249))
    tags = {b"A2B0": lut, b"wtpt": b"XYZ \0\0\0\0" + head[-12:]}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 6) + b"Inks!\0" + b"\0" * 78
    table, body = b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    profile = head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(profile)) + profile[4:]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_inks_become_the_colours_that_their_profile_says(tmp_path, image, dtype):
    inks = np.zeros((32, 16, 4), dtype)
    inks[16:, :, 0] = np.iinfo(dtype).max
    tifffile.imwrite(tmp_path / "in.tif", inks, photometric="separated", iccprofile=ink_profile())
    dataset = image.read(tmp_path / "in.tif")
    # L* = 50 is a luminance of 0.1842, which sRGB encodes as 119.
    np.testing.assert_allclose(values_of(dataset)[[8, 24], 8], [[255, 255, 255], [119, 119, 119]], atol=3)
    assert "icc" not in dataset.metadata
    assert "by its colour profile" in notes(dataset)


def test_inks_with_a_profile_of_something_else_become_colours_without_it(tmp_path, image):
    inks = Pillow.fromarray(PHOTO).convert("CMYK")
    inks.save(tmp_path / "plain.jpg", quality=95)
    inks.save(tmp_path / "profiled.jpg", quality=95, icc_profile=ADOBE)  # of RGB: of no use for inks
    plain, profiled = image.read(tmp_path / "plain.jpg"), image.read(tmp_path / "profiled.jpg")
    np.testing.assert_array_equal(values_of(plain), values_of(profiled))
    assert "without its colour profile" in notes(profiled)
    assert "icc" not in profiled.metadata


# Places on the ground

NORTH_UP = [(33550, "d", 3, (30.0, 20.0, 0.0), True), (33922, "d", 6, (0, 0, 0, 500000.0, 4600000.0, 0.0), True)]
AREA = (34735, "H", 8, (1, 1, 0, 1, 1025, 0, 1, 1), True)
POINT = (34735, "H", 8, (1, 1, 0, 1, 1025, 0, 1, 2), True)


def terrain(path, tags, pixels=None, **options):
    pixels = noise(1, np.float32)[:, :, 0] if pixels is None else pixels
    tifffile.imwrite(path, pixels, extratags=tags, **options)


def corners_of(dataset):
    """(y, x) on the ground of the lattice's centres, (H, W, 2)."""
    coordinates = dataset.coordinates(slice(0, len(dataset))).numpy().astype(float)
    ground = coordinates @ dataset.affine[:, :2].T + dataset.affine[:, 2]
    return ground.reshape(*dataset.grid_shape, 2)


@pytest.mark.parametrize(
    ("tags", "shift"), [([*NORTH_UP, AREA], 0.5), (NORTH_UP, 0.5), ([*NORTH_UP, POINT], 0.0)], ids=str
)
def test_a_geotiff_lies_where_its_tags_say(tmp_path, image, tags, shift):
    terrain(tmp_path / "in.tif", tags)
    row, column = np.indices((HEIGHT, WIDTH))
    expected = np.stack([4600000 - 20 * (row + shift), 500000 + 30 * (column + shift)], axis=-1)
    dataset = image.read(tmp_path / "in.tif")
    np.testing.assert_allclose(corners_of(dataset), expected, rtol=0, atol=1e-2)
    assert "lies on the ground" in notes(dataset)


def test_a_turned_geotiff_lies_where_its_matrix_says(tmp_path, image):
    matrix = (3.0, 4.0, 0, 1000.0, 4.0, -3.0, 0, 2000.0, 0, 0, 0, 0, 0, 0, 0, 1.0)
    terrain(tmp_path / "in.tif", [(34264, "d", 16, matrix, True), AREA])
    row, column = np.indices((HEIGHT, WIDTH)) + 0.5
    expected = np.stack([2000 + 4 * column - 3 * row, 1000 + 3 * column + 4 * row], axis=-1)
    np.testing.assert_allclose(corners_of(image.read(tmp_path / "in.tif")), expected, rtol=0, atol=1e-3)


MATRIX = (34264, "d", 16, (3.0, 4.0, 0, 1000.0, 4.0, -3.0, 0, 2000.0, 0, 0, 0, 0, 0, 0, 0, 1.0), True)


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (2 * HEIGHT, 2 * WIDTH), (7, 31)])
@pytest.mark.parametrize("tags", [[*NORTH_UP, AREA], [*NORTH_UP, POINT], [MATRIX, AREA], [MATRIX, POINT]], ids=str)
def test_a_geotiff_rendered_at_any_size_covers_the_same_ground(tmp_path, image, tags, shape):
    names = (34737, "s", 0, "WGS 84 / UTM zone 33N|", True)
    terrain(tmp_path / "in.tif", [*tags, names])
    dataset = image.read(tmp_path / "in.tif")
    image.write(tmp_path / "out.tif", np.zeros((*shape, 1), np.float32), kept(dataset.metadata))
    again = image.read(tmp_path / "out.tif")
    np.testing.assert_allclose(again.affine, dataset.affine, rtol=1e-12)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages.first.tags.valueof(34737) == "WGS 84 / UTM zone 33N|"
        scale = file.pages.first.tags.valueof(33550)
    if tags[0][0] == 33550:
        np.testing.assert_allclose(scale[:2], (30 * WIDTH / shape[1], 20 * HEIGHT / shape[0]))


def test_a_reduced_geotiff_covers_the_same_ground(tmp_path):
    terrain(tmp_path / "in.tif", [*NORTH_UP, AREA])
    whole, reduced = plugin().read(tmp_path / "in.tif"), plugin(longest=6).read(tmp_path / "in.tif")
    assert reduced.grid_shape == (6, 5)
    np.testing.assert_allclose(reduced.affine, whole.affine)
    plugin().write(tmp_path / "out.tif", values_of(reduced), reduced.metadata)
    np.testing.assert_allclose(plugin().read(tmp_path / "out.tif").affine, whole.affine)


def test_control_points_that_are_no_map_are_said(tmp_path, image):
    points = tuple(float(number) for number in range(18))
    terrain(tmp_path / "in.tif", [(33922, "d", 18, points, True), AREA])
    assert "no affine map" in notes(image.read(tmp_path / "in.tif"))


def test_a_picture_on_the_ground_is_kept_as_tiff(tmp_path, image):
    terrain(tmp_path / "in.tif", [*NORTH_UP, AREA], noise(1)[:, :, 0])
    dataset = image.read(tmp_path / "in.tif")
    assert image.reconstruction_suffix(dataset.metadata, dataset.dtype) == ".tif"


def test_damaged_geotags_are_no_reason_not_to_read_the_pixels(tmp_path, image):
    nonsense = [(33550, "d", 1, (0.0,), True), (33922, "d", 2, (float("nan"), 1.0), True), (34735, "H", 3, (1, 2, 3))]
    terrain(tmp_path / "in.tif", nonsense, noise(1)[:, :, 0])
    np.testing.assert_array_equal(values_of(image.read(tmp_path / "in.tif")), noise(1))


# Sizes of pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_micrograph_of_imagej_keeps_its_pixel_size(tmp_path, image, dtype):
    pixels = noise(1, dtype)
    tifffile.imwrite(tmp_path / "in.tif", pixels[:, :, 0], imagej=True, resolution=(4.0, 2.0), metadata={"unit": "um"})
    dataset = image.read(tmp_path / "in.tif")
    expected = np.indices((HEIGHT, WIDTH)).transpose(1, 2, 0) * [0.5, 0.25]
    np.testing.assert_allclose(corners_of(dataset), expected, atol=1e-5)
    assert "µm" in notes(dataset)
    assert image.reconstruction_suffix(dataset.metadata, dataset.dtype) == ".tif"
    image.write(tmp_path / "out.tif", np.zeros((2 * HEIGHT, 2 * WIDTH, 1), dtype), kept(dataset.metadata))
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.imagej_metadata["unit"] == "um"
        assert np.divide(*file.pages.first.tags["XResolution"].value) == pytest.approx(8)
        assert np.divide(*file.pages.first.tags["YResolution"].value) == pytest.approx(4)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_micrograph_of_ome_keeps_its_pixel_size(tmp_path, image, channels):
    pixels = noise(channels, np.float64)
    sizes = {"PhysicalSizeX": 3.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 5.0, "PhysicalSizeYUnit": "nm"}
    tifffile.imwrite(
        tmp_path / "in.ome.tif",
        pixels[:, :, 0] if channels == 1 else pixels,
        photometric="minisblack" if channels == 1 else "rgb",
        metadata={"axes": "YX" if channels == 1 else "YXS", **sizes},
    )
    dataset = image.read(tmp_path / "in.ome.tif")
    assert dataset.metadata["spacing"] == {"size": [5.0, 3.0], "unit": "nm"}
    image.write(tmp_path / "out.tif", np.zeros((HEIGHT // 2, WIDTH // 2, channels)), kept(dataset.metadata))
    again = image.read(tmp_path / "out.tif")
    assert again.metadata["spacing"] == {"size": [10.0, 6.0], "unit": "nm"}


# What is not known

HOLE = (np.indices((HEIGHT, WIDTH)) - np.array([5, 4])[:, None, None]).__pow__(2).sum(axis=0) < 6


@pytest.mark.parametrize(
    ("dtype", "nodata", "text"),
    [
        (np.float32, -9999, "-9999"),
        (np.int16, -32768, "-32768 "),
        (np.uint8, 0, "0"),
        (np.uint16, 65535, "65535"),
        (np.float32, np.nan, "nan"),
        (np.float32, -3.4028235e38, "-3.40282346638529e+38"),
        (np.float64, -1.7976931348623157e308, "-1.79769e+308"),
        (np.int32, -2147483648, "-2147483648"),
    ],
    ids=str,
)
def test_no_data_is_not_terrain(tmp_path, image, dtype, nodata, text):
    pixels = (1 + noise(1, np.uint8)[:, :, 0] % 100).astype(dtype)
    pixels[HOLE] = nodata
    terrain(tmp_path / "in.tif", [(42113, "s", 0, text, True)], pixels)
    dataset = image.read(tmp_path / "in.tif")
    np.testing.assert_array_equal(known_in(dataset), ~HOLE)
    assert dataset.extent == (pixels[~HOLE].min(), pixels[~HOLE].max())
    np.testing.assert_array_equal(values_of(dataset)[~HOLE, 0], pixels[~HOLE])
    np.testing.assert_array_equal(unpacked(kept(dataset.metadata)["known"], (HEIGHT, WIDTH)), ~HOLE)
    assert "are not known; the field fills them in" in notes(dataset)


@pytest.mark.parametrize("text", ["", "none", "70000", "0.5"])
def test_no_data_that_no_pixel_can_be_leaves_all_known(tmp_path, image, text):
    terrain(tmp_path / "in.tif", [(42113, "s", 0, text, True)], noise(1, np.uint16)[:, :, 0])
    assert image.read(tmp_path / "in.tif").known is None


def test_a_colour_is_no_data_as_a_whole_and_a_band_by_itself(tmp_path, image):
    pixels = 1 + noise(3) // 2
    pixels[2, 3] = 0
    pixels[4, 5, 0] = 0
    tag = [(42113, "s", 0, "0", True)]
    tifffile.imwrite(tmp_path / "photo.tif", pixels, photometric="rgb", extratags=tag)
    tifffile.imwrite(
        tmp_path / "bands.tif",
        np.moveaxis(pixels, -1, 0),
        photometric="minisblack",
        planarconfig="separate",
        extratags=tag,
    )
    for name, holes in (("photo.tif", [(2, 3)]), ("bands.tif", [(2, 3), (4, 5)])):
        unknown = ~known_in(image.read(tmp_path / name))
        assert list(map(tuple, np.argwhere(unknown))) == holes


def test_no_data_of_a_map_with_a_palette_is_its_entry(tmp_path, image):
    entries = np.where(HOLE, 0, 1 + noise(1)[:, :, 0] % 3).astype(np.uint8)
    indexed = Pillow.frombytes("P", entries.shape[::-1], entries.tobytes())
    indexed.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 9, 9, 9])
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[42113] = "0"
    indexed.save(tmp_path / "in.tif", tiffinfo=tags)
    np.testing.assert_array_equal(known_in(image.read(tmp_path / "in.tif")), ~HOLE)


def test_a_mask_page_says_what_is_known(tmp_path, image):
    with tifffile.TiffWriter(tmp_path / "in.tif") as file:
        file.write(noise(3), photometric="rgb", metadata=None)
        file.write(~HOLE, photometric=4, subfiletype=4, metadata=None)
    np.testing.assert_array_equal(known_in(image.read(tmp_path / "in.tif")), ~HOLE)


def test_numbers_that_are_none_are_not_known_in_any_channel(tmp_path, image):
    array = noise(3, np.float32)
    array[HOLE, 1] = np.nan
    for name in ("in.npy", "in.tif"):
        image.write(tmp_path / name, array, {})
        dataset = image.read(tmp_path / name)
        np.testing.assert_array_equal(known_in(dataset), ~HOLE)
        assert np.isfinite(values_of(dataset)[known_in(dataset)]).all()


@pytest.mark.parametrize("suffix", [".png", ".npy", ".jpg"])
def test_a_mask_beside_the_picture_says_what_is_known(tmp_path, suffix):
    Pillow.fromarray(noise(3)).save(tmp_path / "in.png")
    mask = np.where(HOLE, 0, 255).astype(np.uint8)
    if suffix == ".npy":
        np.save(tmp_path / "mask.npy", ~HOLE)
    else:
        Pillow.fromarray(mask).save(tmp_path / f"mask{suffix}", **({"quality": 100} if suffix == ".jpg" else {}))
    dataset = plugin(mask=str(tmp_path / f"mask{suffix}")).read(tmp_path / "in.png")
    np.testing.assert_array_equal(known_in(dataset), ~HOLE)


def test_a_mask_of_zeros_and_ones_or_with_alpha_is_understood(tmp_path):
    Pillow.fromarray(noise(3)).save(tmp_path / "in.png")
    level = (~HOLE).astype(np.uint8)
    Pillow.fromarray(level).save(tmp_path / "ones.png")
    Pillow.fromarray(np.stack([255 * level] * 3 + [np.full_like(level, 255)], axis=-1)).save(tmp_path / "alpha.png")
    for name in ("ones.png", "alpha.png"):
        dataset = plugin(mask=str(tmp_path / name)).read(tmp_path / "in.png")
        np.testing.assert_array_equal(known_in(dataset), ~HOLE)


def test_a_mask_that_cannot_be_used_is_named(tmp_path):
    Pillow.fromarray(noise(3)).save(tmp_path / "in.png")
    np.save(tmp_path / "small.npy", np.ones((3, 4)))
    np.save(tmp_path / "empty.npy", np.zeros((HEIGHT, WIDTH)))
    for name, said in (("small.npy", r"\(3, 4\), and the picture \(12, 10\)"), ("none.png", "does not exist")):
        with pytest.raises(DataError, match=said) as caught:
            plugin(mask=str(tmp_path / name)).read(tmp_path / "in.png")
        assert name in str(caught.value)
    with pytest.raises(DataError, match="no value is known"):
        plugin(mask=str(tmp_path / "empty.npy")).read(tmp_path / "in.png")


def test_a_mask_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("mask.npy", ~HOLE)
    Pillow.fromarray(noise(3)).save("in.png")
    modality = plugin(mask="mask.npy")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    np.testing.assert_array_equal(known_in(modality.read(tmp_path / "in.png")), ~HOLE)


@pytest.mark.parametrize("channels", [2, 4])
def test_what_is_transparent_is_unknown_if_asked(tmp_path, channels):
    pixels = noise(channels)
    pixels[:, :, -1] = np.where(HOLE, 0, 1 + pixels[:, :, -1] // 2)
    Pillow.fromarray(pixels).save(tmp_path / "in.png")
    assert plugin().read(tmp_path / "in.png").known is None
    dataset = plugin(alpha="mask").read(tmp_path / "in.png")
    np.testing.assert_array_equal(known_in(dataset), ~HOLE)
    np.testing.assert_array_equal(values_of(dataset)[~HOLE], pixels[~HOLE][:, :-1])


def test_reducing_keeps_what_is_unknown_out_of_what_is_known(tmp_path):
    array = np.full((40, 40), 5.0, np.float32)
    array[10:20, 8:18] = np.nan
    np.save(tmp_path / "in.npy", array)
    dataset = plugin(longest=20).read(tmp_path / "in.npy")
    np.testing.assert_allclose(values_of(dataset), 5)
    unknown = ~known_in(dataset)
    assert unknown[5:10, 4:9].all()
    assert not unknown[:, 14:].any() and not unknown[16:].any()


def test_what_is_unknown_leaves_no_trace_in_what_is_learnt(tmp_path):
    fields = []
    for number, junk in enumerate((0, 255)):
        pixels = noise(3, shape=(16, 16)) // 2 + 60
        pixels[4:9, 5:9] = junk
        Pillow.fromarray(pixels).save(tmp_path / f"{number}.png")
        mask = np.ones((16, 16))
        mask[4:9, 5:9] = 0
        np.save(tmp_path / "mask.npy", mask)
        run = inrkit.fit(
            tmp_path / f"{number}.png",
            out=tmp_path / f"run{number}",
            steps=5,
            network={"hidden_features": 16},
            modality={"name": "image", "mask": str(tmp_path / "mask.npy")},
            device="cpu",
        )
        fields.append(run.field.render())
    np.testing.assert_array_equal(*fields)


# The range that metrics refer to


def test_a_file_that_leaves_most_of_its_range_unused_is_measured_by_what_it_uses(tmp_path, image):
    y, x = np.mgrid[0:48, 0:48]
    relief = (1500 + 200 * np.sin(x / 9) + 100 * np.cos(y / 7)).astype(np.int16)
    tifffile.imwrite(tmp_path / "relief.tif", relief)
    with (tmp_path / "xray.png").open("wb") as file:
        png.Writer(48, 48, greyscale=True, bitdepth=16).write(file, relief.astype(np.uint16))
    np.save(tmp_path / "relief.npy", relief)
    for name in ("relief.tif", "xray.png", "relief.npy"):
        dataset = image.read(tmp_path / name)
        assert dataset.peak == np.ptp(relief)
        assert f"refer to the range in use, {relief.min()} to {relief.max()}" in notes(dataset)


@pytest.mark.parametrize(("top", "peak"), [(65535, 65535), (40000, 65535), (32767, 32767), (4095, 4095)])
def test_half_of_the_range_is_where_it_counts_as_used(tmp_path, image, top, peak):
    pixels = np.linspace(0, top, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH, 1)
    image.write(tmp_path / "in.png", pixels, {})
    assert image.read(tmp_path / "in.png").peak == peak


def test_a_dull_photo_of_eight_bits_is_measured_by_all_of_them(tmp_path, image):
    Pillow.fromarray(noise(3) // 8 + 90).save(tmp_path / "in.png")
    dataset = image.read(tmp_path / "in.png")
    assert dataset.peak == 255
    assert notes(dataset) == ""


# Complex values


@pytest.mark.parametrize("dtype", ["<c8", "<c16", ">c8"])
@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 1), (HEIGHT, WIDTH, 3)])
def test_complex_values_are_two_channels_and_complex_again(tmp_path, image, shape, dtype):
    array = (noise(1, np.float32, shape)[..., 0] + 1j * noise(1, np.float32, shape, seed=1)[..., 0]).astype(dtype)
    np.save(tmp_path / "in.npy", array)
    assert MODALITIES.get("image").claims(tmp_path / "in.npy")
    dataset = image.read(tmp_path / "in.npy")
    values = values_of(dataset)
    full = array.reshape(HEIGHT, WIDTH, -1)
    np.testing.assert_array_equal(values[:, :, 0::2], full.real)
    np.testing.assert_array_equal(values[:, :, 1::2], full.imag)
    assert image.reconstruction_suffix(dataset.metadata, dataset.dtype) == ".npy"
    image.write(tmp_path / "out.npy", values, kept(dataset.metadata))
    back = np.load(tmp_path / "out.npy")
    np.testing.assert_array_equal(back, array)
    assert (back.dtype, back.shape) == (np.dtype(dtype).newbyteorder("="), shape)
    assert "complex" in notes(dataset)


def test_complex_values_in_the_other_order_of_memory_are_the_same(tmp_path, image):
    array = (np.arange(12.0) + 1j * np.arange(12.0)[::-1]).reshape(3, 4)
    np.save(tmp_path / "in.npy", np.asfortranarray(array))
    values = values_of(image.read(tmp_path / "in.npy"))
    np.testing.assert_array_equal(values[:, :, 0] + 1j * values[:, :, 1], array)


def test_complex_tiffs_come_back_complex(tmp_path, image):
    array = (noise(1, np.float32)[:, :, 0] * (1 + 2j)).astype(np.complex64)
    tifffile.imwrite(tmp_path / "in.tif", array)
    dataset = image.read(tmp_path / "in.tif")
    assert image.reconstruction_suffix(dataset.metadata, dataset.dtype) == ".tif"
    image.write(tmp_path / "out.tif", values_of(dataset), kept(dataset.metadata))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), array)


def test_a_complex_value_that_is_none_is_not_known(tmp_path, image):
    array = np.ones((HEIGHT, WIDTH), np.complex64)
    array[HOLE] = np.nan + 1j
    array[0, 0] = 2
    np.save(tmp_path / "in.npy", array)
    np.testing.assert_array_equal(known_in(image.read(tmp_path / "in.npy")), ~HOLE)


# Many bands, and several pictures


def test_many_bands_of_a_tiff_are_channels(tmp_path, image):
    bands = noise(31, np.float32)
    tifffile.imwrite(tmp_path / "in.tif", np.moveaxis(bands, -1, 0), photometric="minisblack", planarconfig="separate")
    np.testing.assert_array_equal(values_of(image.read(tmp_path / "in.tif")), bands)


def test_many_bands_of_an_array_are_an_error_that_names_the_keys_that_work(tmp_path, image):
    bands = noise(31, np.float32)
    np.save(tmp_path / "in.npy", bands)
    with pytest.raises(DataError, match=r"modality=volume, with modality\.channels_last=true"):
        image.read(tmp_path / "in.npy")
    run = inrkit.fit(
        tmp_path / "in.npy",
        out=tmp_path / "run",
        overrides=["modality=volume", "modality.channels_last=true", "train.steps=1", "network.hidden_features=8"],
        device="cpu",
    )
    assert run.field.channels == 31


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_of_an_animation_the_first_frame_is_read_and_it_is_said(tmp_path, image, suffix):
    frames = [Pillow.fromarray(noise(3, seed=seed)) for seed in range(3)]
    path = tmp_path / f"frames{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == ".webp" else {}))
    dataset = image.read(path)
    np.testing.assert_array_equal(values_of(dataset), noise(3))
    assert notes(dataset) == "it holds 3 frames; the first is read, modality=video reads them all"


def test_of_a_stack_the_first_page_is_read_and_it_is_said(tmp_path, image):
    tifffile.imwrite(tmp_path / "in.tif", noise(5, np.uint16).transpose(2, 0, 1), photometric="minisblack")
    dataset = image.read(tmp_path / "in.tif")
    np.testing.assert_array_equal(values_of(dataset)[:, :, 0], noise(5, np.uint16)[:, :, 0])
    assert notes(dataset) == "it holds 5 pictures; the first is read, modality=volume reads them all"


# High dynamic range


def test_openexr_is_read_and_written_in_its_own_numbers(tmp_path, image):
    pytest.importorskip("OpenImageIO")
    for dtype in (np.float16, np.float32, np.uint32):
        for channels in (1, 2, 3, 4, 6):
            values = noise(channels, dtype) if dtype == np.uint32 else np.exp(3 * noise(channels, dtype))
            image.write(tmp_path / "in.exr", values, {})
            dataset = image.read(tmp_path / "in.exr")
            np.testing.assert_array_equal(values_of(dataset), values)
            assert dataset.dtype == dtype
            assert image.reconstruction_suffix(dataset.metadata, dataset.dtype) == ".exr"


@pytest.mark.parametrize("names", [("Z", "far", "near"), ("X", "Y", "Z")])
def test_openexr_keeps_the_names_of_channels_and_the_primaries(tmp_path, image, names):
    oiio = pytest.importorskip("OpenImageIO")
    spec = oiio.ImageSpec(WIDTH, HEIGHT, 3, "float")
    spec.channelnames = names
    primaries = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, 0.3127, 0.329)
    spec.attribute("chromaticities", oiio.TypeDesc("float[8]"), primaries)
    file = oiio.ImageOutput.create(str(tmp_path / "in.exr"))
    file.open(str(tmp_path / "in.exr"), spec)
    file.write_image(noise(3, np.float32))
    file.close()
    dataset = image.read(tmp_path / "in.exr")
    assert ", ".join(names) in notes(dataset)
    image.write(tmp_path / "out.exr", values_of(dataset), kept(dataset.metadata))
    written = oiio.ImageInput.open(str(tmp_path / "out.exr"))
    assert written.spec().channelnames == names
    np.testing.assert_allclose(written.spec().getattribute("chromaticities"), primaries, rtol=1e-6)
    written.close()
    np.testing.assert_array_equal(values_of(image.read(tmp_path / "out.exr")), noise(3, np.float32))


def test_of_the_channels_of_an_openexr_its_colours_are_read_and_the_others_named(tmp_path, image):
    oiio = pytest.importorskip("OpenImageIO")
    spec = oiio.ImageSpec(WIDTH, HEIGHT, 5, "float")
    spec.channelnames = ("R", "G", "B", "Z", "diffuse.R")
    file = oiio.ImageOutput.create(str(tmp_path / "in.exr"))
    file.open(str(tmp_path / "in.exr"), spec)
    file.write_image(noise(5, np.float32))
    file.close()
    dataset = image.read(tmp_path / "in.exr")
    np.testing.assert_array_equal(values_of(dataset), noise(5, np.float32)[:, :, :3])
    assert "Z, diffuse.R are left out" in notes(dataset)


def rgbe(order=b"-Y %d +X %d", pixels=None):
    pixels = np.random.default_rng(0).integers(128, 256, (HEIGHT, WIDTH, 4), np.uint8) if pixels is None else pixels
    pixels[:, :, 3] = 120 + pixels[:, :, 3] % 16
    return b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n" + order % pixels.shape[:2] + b"\n" + pixels.tobytes(), pixels


def test_radiance_pictures_are_light_of_a_shared_exponent(tmp_path, image):
    pytest.importorskip("OpenImageIO")
    content, pixels = rgbe()
    (tmp_path / "in.hdr").write_bytes(content)
    dataset = image.read(tmp_path / "in.hdr")
    light = pixels[:, :, :3] * 2.0 ** (pixels[:, :, 3:].astype(float) - 136)
    np.testing.assert_array_equal(values_of(dataset), light.astype(np.float32))
    image.write(tmp_path / "out.hdr", values_of(dataset), kept(dataset.metadata))
    np.testing.assert_array_equal(values_of(image.read(tmp_path / "out.hdr")), light.astype(np.float32))
    assert image.reconstruction_suffix(dataset.metadata, dataset.dtype) == ".tif"
    (tmp_path / "turned.hdr").write_bytes(rgbe(b"+Y %d +X %d")[0])
    np.testing.assert_array_equal(values_of(image.read(tmp_path / "turned.hdr")), light[::-1].astype(np.float32))


def test_a_header_of_another_kind_named_hdr_is_told_apart(tmp_path, image):
    (tmp_path / "in.hdr").write_text("ENVI\nsamples = 10\nlines = 12\nbands = 31\n")
    pytest.importorskip("OpenImageIO")
    with pytest.raises(DataError, match="ENVI and Analyze headers"):
        image.read(tmp_path / "in.hdr")


@pytest.mark.parametrize("name", ["in.exr", "in.hdr"])
def test_a_damaged_picture_of_high_range_is_an_error(tmp_path, image, name, capfd):
    pytest.importorskip("OpenImageIO")
    image.write(tmp_path / name, np.exp(noise(3, np.float32, (40, 50))), {})
    whole = (tmp_path / name).read_bytes()
    for length in (1, 8, 60, 300, len(whole) // 2, len(whole) - 200):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(DataError) as caught:
            image.read(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_without_the_package_it_is_named(tmp_path, image, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenImageIO", None)
    (tmp_path / "in.exr").write_bytes(b"v/1\x01")
    with pytest.raises(ConfigError, match=r"pip install 'inrkit\[hdr\]'"):
        image.read(tmp_path / "in.exr")
    with pytest.raises(ConfigError, match=r"pip install 'inrkit\[hdr\]'"):
        image.write(tmp_path / "out.hdr", noise(3, np.float32), {})


@pytest.mark.parametrize(
    ("name", "channels", "dtype"),
    [("out.exr", 3, "u1"), ("out.hdr", 4, "f4"), ("out.hdr", 3, "u2"), ("out.exr", 1, "i2")],
)
def test_what_no_format_of_high_range_holds_names_one_that_does(tmp_path, image, name, channels, dtype):
    pytest.importorskip("OpenImageIO")
    with pytest.raises(ConfigError, match="cannot hold") as caught:
        image.write(tmp_path / name, noise(channels, dtype), {})
    suffix = str(caught.value).partition("choose ")[2].split()[0]
    image.write(tmp_path / f"other{suffix}", noise(channels, dtype), {})
    np.testing.assert_array_equal(values_of(image.read(tmp_path / f"other{suffix}")), noise(channels, dtype))


# Depth


def test_sixteen_bits_of_netpbm_are_kept(tmp_path, image):
    gray, colours = noise(1, np.uint16), noise(3, np.uint16)
    for name, kind, pixels in (("in.pgm", b"P5", gray), ("in.ppm", b"P6", colours)):
        (tmp_path / name).write_bytes(
            kind + b"\n# by hand\n%d %d\n65535\n" % (WIDTH, HEIGHT) + pixels.astype(">u2").tobytes()
        )
    np.testing.assert_array_equal(values_of(image.read(tmp_path / "in.pgm")), gray)
    pytest.importorskip("OpenImageIO")
    np.testing.assert_array_equal(values_of(image.read(tmp_path / "in.ppm")), colours)


def test_bits_that_cannot_be_kept_are_said(tmp_path, image, monkeypatch):
    content = b"P6 %d %d 65535\n" % (WIDTH, HEIGHT) + noise(3, np.uint16).astype(">u2").tobytes()
    (tmp_path / "in.ppm").write_bytes(content)
    monkeypatch.setitem(sys.modules, "OpenImageIO", None)
    dataset = image.read(tmp_path / "in.ppm")
    assert dataset.dtype == np.uint8
    assert "of its 16 bits a channel 8 are read; pip install 'inrkit[hdr]' keeps them" in notes(dataset)


def test_colours_multiplied_with_alpha_are_divided_again(tmp_path, image):
    pixels = np.dstack([noise(3) // 2, np.full((HEIGHT, WIDTH), 128, np.uint8)])
    for name, stored in (("eight.tif", pixels), ("sixteen.tif", pixels.astype(np.uint16) * 257)):
        tifffile.imwrite(tmp_path / name, stored, photometric="rgb", extrasamples=["assocalpha"])
        values = values_of(image.read(tmp_path / name)).astype(float) / np.iinfo(stored.dtype).max
        np.testing.assert_allclose(values[:, :, :3], (pixels[:, :, :3] / 128).clip(max=1), atol=1 / 200)


def test_real_colours_multiplied_with_alpha_stay_so_and_say_so(tmp_path, image):
    pixels = np.abs(noise(4, np.float32))
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb", extrasamples=["assocalpha"])
    dataset = image.read(tmp_path / "in.tif")
    np.testing.assert_array_equal(values_of(dataset), pixels)
    image.write(tmp_path / "out.tif", pixels, kept(dataset.metadata))
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages.first.extrasamples == (tifffile.EXTRASAMPLE.ASSOCALPHA,)


@pytest.mark.parametrize("suffix", [".tga", ".ppm", ".jp2", ".avif", ".webp", ".gif"])
def test_further_formats_are_read_as_pillow_shows_them(tmp_path, image, suffix):
    smooth = np.linspace(0, 255, 32 * 48 * 3).reshape(32, 48, 3).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pillow.fromarray(smooth).save(tmp_path / f"in{suffix}")
    with Pillow.open(tmp_path / f"in{suffix}") as opened:
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(values_of(image.read(tmp_path / f"in{suffix}")), expected)


def test_a_float_tiff_with_a_predictor_is_read(tmp_path, image):
    pixels = noise(1, np.float32)[:, :, 0]
    rows = b""
    for row in pixels.astype(">f4"):
        planes = np.frombuffer(row.tobytes(), np.uint8).reshape(-1, 4).T.ravel()
        rows += np.diff(planes, prepend=np.uint8(0)).astype(np.uint8).tobytes()
    (tmp_path / "in.tif").write_bytes(raw_tiff(zlib.compress(rows), bits=32, compression=8, predictor=3, format=3))
    np.testing.assert_array_equal(values_of(image.read(tmp_path / "in.tif"))[:, :, 0], pixels)


@pytest.mark.parametrize(("dtype", "compression"), [("u2", "lzw"), ("f4", "zip"), ("f8", "lzw")])
def test_a_deep_tiff_in_any_compression_is_read_where_openimageio_is_there(tmp_path, image, dtype, compression):
    library = pytest.importorskip("OpenImageIO")
    pixels = noise(3, dtype)
    spec = library.ImageSpec(*pixels.shape[1::-1], 3, {"u2": "uint16", "f4": "float", "f8": "double"}[dtype])
    spec.attribute("compression", compression)  # of real numbers, with a predictor
    file = library.ImageOutput.create(str(tmp_path / "in.tif"))
    assert file.open(str(tmp_path / "in.tif"), spec)
    assert file.write_image(pixels)
    file.close()
    read = values_of(image.read(tmp_path / "in.tif"))
    assert read.dtype == pixels.dtype
    np.testing.assert_array_equal(read, pixels)


def test_twelve_bits_packed_in_a_tiff_are_read(tmp_path, image):
    pixels = noise(1, np.uint16)[:, :, 0] >> 4
    first, second = pixels.reshape(-1, 2).T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8).tobytes()
    (tmp_path / "in.tif").write_bytes(raw_tiff(packed, bits=12, compression=1, predictor=1, format=1))
    try:
        dataset = image.read(tmp_path / "in.tif")
    except DataError as error:
        assert "pip install imagecodecs" in str(error)  # where Pillow does not read it
    else:
        np.testing.assert_array_equal(values_of(dataset)[:, :, 0], pixels)
        assert dataset.peak == np.ptp(pixels)


def raw_tiff(content, bits, compression, predictor, format):
    """A little-endian TIFF of one gray strip."""
    tags = [(256, WIDTH), (257, HEIGHT), (258, bits), (259, compression), (262, 1), (273, None), (277, 1)]
    tags += [(278, HEIGHT), (279, len(content)), (317, predictor), (339, format)]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", code, 4, 1, start if value is None else value) for code, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content
