"""Images: what Pillow, pypng, tifffile and NumPy write is read as they read it, and what is written reads back."""

import io
import logging
import struct
import subprocess
import sys
import warnings
import zlib
from importlib.util import find_spec

import numpy as np
import png
import pytest
import tifffile
from PIL import ExifTags, ImageOps
from PIL import Image as Pillow

from inrkit import MODALITIES, ConfigError, DataError

HEIGHT, WIDTH = 12, 10
LOSSLESS = {".webp": {"lossless": True}}


@pytest.fixture
def image():
    plugin = MODALITIES.get("image")
    return plugin(plugin.Options())


@pytest.fixture
def read(image):
    """The values of a file as the lattice's stored numbers, (H, W, C) in the file's dtype."""

    def values(path):
        dataset = image.read(path)
        array = dataset.values.numpy().view(dataset.dtype) if dataset.dtype.kind == "u" else dataset.values.numpy()
        return array.reshape(*dataset.grid_shape, dataset.channels)

    return values


def noise(channels=3, dtype=np.uint8, shape=(HEIGHT, WIDTH), seed=0):
    """(*shape, channels) values over the whole range of the dtype."""
    random = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return random.standard_normal((*shape, channels)).astype(dtype)
    if dtype.kind == "b":
        return random.random((*shape, channels)) < 0.5
    info = np.iinfo(dtype)
    return random.integers(info.min, info.max, (*shape, channels), dtype=dtype, endpoint=True)


def picture(mode):
    """A Pillow image of noise in any 8-bit mode."""
    channels = len(Pillow.new(mode, (1, 1)).getbands())
    return Pillow.frombytes(mode, (WIDTH, HEIGHT), noise(channels).tobytes())


def as_shown(path, mode):
    """What Pillow makes of a file in a mode, with a channel axis."""
    with Pillow.open(path) as opened:
        pixels = np.asarray(opened.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def same(actual, expected):
    expected = expected if expected.ndim == 3 else expected[:, :, None]
    assert actual.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(actual, expected, strict=False)
    assert actual.shape == expected.shape


# 8 bits a channel


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(suffix, mode) for suffix in (".png", ".tif", ".tiff") for mode in ("L", "LA", "RGB", "RGBA")]
    + [(".webp", mode) for mode in ("RGB", "RGBA")]
    + [(suffix, mode) for suffix in (".jpg", ".jpeg", ".bmp") for mode in ("L", "RGB")],
)
def test_eight_bit_pictures_are_read_as_pillow_reads_them(tmp_path, read, suffix, mode):
    path = tmp_path / f"picture{suffix}"
    picture(mode).save(path, **LOSSLESS.get(suffix, {}))
    same(read(path), as_shown(path, mode))


def test_suffixes_in_capitals_are_the_same_formats(tmp_path, image, read):
    for suffix in (".PNG", ".JPG", ".TIFF", ".NPY", ".BMP", ".WebP"):
        path = tmp_path / f"picture{suffix}"
        image.write(path, noise(), {})
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
        assert read(path).shape == (HEIGHT, WIDTH, 3)
        path.unlink()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_bilevel_pictures_are_black_and_white_gray(tmp_path, read, suffix):
    path = tmp_path / f"bilevel{suffix}"
    mask = noise(1, bool)[:, :, 0]
    Pillow.fromarray(mask).save(path)
    same(read(path), mask.astype(np.uint8) * np.uint8(255))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_gray_span_all_shades(tmp_path, read, bits):
    path = tmp_path / "gray.png"
    levels = noise(1)[:, :, 0] >> (8 - bits)
    with path.open("wb") as file:
        png.Writer(WIDTH, HEIGHT, greyscale=True, bitdepth=bits).write(file, levels)
    same(read(path), (levels * (255 // (2**bits - 1))).astype(np.uint8))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_transparent_gray_becomes_an_alpha_channel(tmp_path, read, bits):
    path = tmp_path / "gray.png"
    levels = noise(1)[:, :, 0] >> (8 - bits)
    with path.open("wb") as file:
        png.Writer(WIDTH, HEIGHT, greyscale=True, bitdepth=bits, transparent=0).write(file, levels)
    shades = levels * (255 // (2**bits - 1))
    same(read(path), np.stack([shades, np.where(levels == 0, 0, 255)], axis=-1).astype(np.uint8))


def test_a_transparent_colour_becomes_an_alpha_channel(tmp_path, read):
    path = tmp_path / "colour.png"
    pixels = noise(3)
    Pillow.fromarray(pixels).save(path, transparency=tuple(int(part) for part in pixels[3, 4]))
    alpha = np.where((pixels == pixels[3, 4]).all(axis=-1, keepdims=True), 0, 255).astype(np.uint8)
    same(read(path), np.concatenate([pixels, alpha], axis=-1))


PALETTE = np.array([(1, 2, 3), (40, 50, 60), (70, 180, 90), (200, 100, 50)], dtype=np.uint8)


@pytest.fixture
def indexed():
    paletted = Pillow.new("P", (WIDTH, HEIGHT))
    paletted.putpalette(PALETTE.ravel().tolist())
    paletted.putdata((noise(1).ravel() % len(PALETTE)).tolist())
    return paletted


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_palettes_are_resolved_to_colours(tmp_path, read, indexed, suffix):
    path = tmp_path / f"palette{suffix}"
    indexed.save(path)
    same(read(path), PALETTE[np.asarray(indexed)])


def test_a_palette_with_a_transparent_entry_becomes_colours_with_alpha(tmp_path, read, indexed):
    path = tmp_path / "palette.png"
    indexed.save(path, transparency=2)
    pixels = read(path)
    same(pixels, as_shown(path, "RGBA"))
    assert set(np.unique(pixels[:, :, 3])) == {0, 255}


def test_a_palette_with_shades_of_transparency_keeps_them(tmp_path, read, indexed):
    path = tmp_path / "palette.png"
    alpha = np.array([0, 128, 255, 3], dtype=np.uint8)
    with path.open("wb") as file:
        colours = [tuple(map(int, entry)) for entry in np.column_stack([PALETTE, alpha])]
        png.Writer(WIDTH, HEIGHT, palette=colours, bitdepth=2).write(file, np.asarray(indexed))
    same(read(path), np.column_stack([PALETTE, alpha])[np.asarray(indexed)])


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_printing_inks_become_colours(tmp_path, read, suffix):
    path = tmp_path / f"inks{suffix}"
    picture("CMYK").save(path)
    same(read(path), as_shown(path, "RGB"))


# 16 bits a channel


@pytest.mark.parametrize("interlace", [False, True], ids=["straight", "interlaced"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_pngs_keep_all_bits(tmp_path, read, channels, interlace):
    path = tmp_path / "deep.png"
    pixels = noise(channels, np.uint16)
    with path.open("wb") as file:
        writer = png.Writer(
            WIDTH, HEIGHT, greyscale=channels < 3, alpha=channels in (2, 4), bitdepth=16, interlace=interlace
        )
        writer.write(file, pixels.reshape(HEIGHT, -1))
    same(read(path), pixels)


def test_sixteen_bit_gray_with_a_transparent_shade_gets_an_alpha_channel(tmp_path, read):
    path = tmp_path / "deep.png"
    gray = noise(1, np.uint16)[:, :, 0]
    with path.open("wb") as file:
        png.Writer(WIDTH, HEIGHT, greyscale=True, bitdepth=16, transparent=int(gray[2, 3])).write(file, gray)
    same(read(path), np.stack([gray, np.where(gray == gray[2, 3], 0, 65535).astype(np.uint16)], axis=-1))


def test_sixteen_bit_gray_written_by_pillow_keeps_all_bits(tmp_path, read):
    gray = noise(1, np.uint16)[:, :, 0]
    for name in ("gray.png", "gray.tif"):
        Pillow.fromarray(gray).save(tmp_path / name)
        same(read(tmp_path / name), gray)


# TIFF


TIFF_DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "f2", "f4", "f8"]


@pytest.mark.parametrize("dtype", TIFF_DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_tiffs_keep_their_numbers(tmp_path, read, channels, dtype):
    pixels = noise(channels, dtype)
    photometric = "rgb" if channels in (3, 4) else "minisblack"
    extra = {2: ["unassalpha"], 4: ["unassalpha"], 5: ["unspecified"] * 4}.get(channels)
    for order in "<>":
        for planar in ("contig", "separate") if channels > 1 else (None,):
            stored = pixels[:, :, 0] if channels == 1 else pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
            tifffile.imwrite(
                tmp_path / "numbers.tif",
                stored,
                photometric=photometric,
                planarconfig=planar,
                extrasamples=extra,
                byteorder=order,
            )
            same(read(tmp_path / "numbers.tif"), pixels)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize(("photometric", "channels"), [("minisblack", 2), ("rgb", 4), ("rgb", 5), ("rgb", 6)])
def test_a_band_beyond_the_colours_is_read_and_is_no_transparency(tmp_path, image, read, photometric, channels, dtype):
    pixels = noise(channels, dtype)
    pixels[:6, :, -1] = 0
    extra = ["unspecified"] * (channels - (3 if photometric == "rgb" else 1))
    tifffile.imwrite(tmp_path / "bands.tif", pixels, photometric=photometric, planarconfig="contig", extrasamples=extra)
    same(read(tmp_path / "bands.tif"), pixels)
    dataset = type(image)(type(image).Options(alpha="mask")).read(tmp_path / "bands.tif")
    assert dataset.channels == channels
    assert dataset.known is None
    assert image.reconstruction_suffix(dataset.metadata, dataset.dtype) == ".tif"
    image.write(tmp_path / "again.tif", pixels, dataset.metadata)
    with tifffile.TiffFile(tmp_path / "again.tif") as file:
        assert set(file.pages.first.extrasamples) == {tifffile.EXTRASAMPLE.UNSPECIFIED}
    with pytest.raises(ConfigError, match=r"\.png cannot hold .*; choose \.tif"):
        image.write(tmp_path / "again.png", pixels, dataset.metadata)


@pytest.mark.parametrize(
    "layout",
    [
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "rowsperstrip": 5},
        {"tile": (16, 16)},
        {"bigtiff": True},
    ],
    ids=lambda layout: "-".join(layout),
)
def test_the_layout_of_a_deep_tiff_does_not_matter(tmp_path, read, layout):
    pixels = noise(3, np.uint16, (40, 37))
    tifffile.imwrite(tmp_path / "deep.tif", pixels, photometric="rgb", **layout)
    same(read(tmp_path / "deep.tif"), pixels)


def test_a_compressed_gray_or_eight_bit_tiff_needs_nothing_more(tmp_path, read):
    for number, compression in enumerate(("tiff_lzw", "tiff_deflate", "packbits")):
        path = tmp_path / f"{number}.tif"
        for pixels in (noise(3), noise(1, np.uint16)[:, :, 0]):
            Pillow.fromarray(pixels).save(path, compression=compression)
            same(read(path), pixels)


@pytest.mark.skipif(find_spec("imagecodecs") is not None, reason="imagecodecs reads it")
def test_a_deep_tiff_in_a_compression_that_needs_a_package_names_it(tmp_path, read):
    path = tmp_path / "lzw.tif"
    tifffile.imwrite(path, noise(3, np.uint16), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["Compression"].overwrite(tifffile.COMPRESSION.LZW)
    with pytest.raises(DataError, match="pip install imagecodecs"):
        read(path)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_tiffs_whose_zero_is_white_are_turned_around(tmp_path, read, dtype):
    gray = noise(1, dtype)[:, :, 0]
    tifffile.imwrite(tmp_path / "white.tif", gray, photometric="miniswhite")
    same(read(tmp_path / "white.tif"), np.iinfo(dtype).max - gray)


def test_sixteen_bit_inks_agree_with_their_eight_bit_colours(tmp_path, read):
    inks = noise(4)
    tifffile.imwrite(tmp_path / "deep.tif", inks.astype(np.uint16) * 257, photometric="separated")
    tifffile.imwrite(tmp_path / "plain.tif", inks, photometric="separated")
    deep, plain = read(tmp_path / "deep.tif"), read(tmp_path / "plain.tif")
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - plain).max() <= 1


def test_a_colour_space_that_would_be_misread_is_refused(tmp_path, read):
    tifffile.imwrite(tmp_path / "lab.tif", noise(3, np.uint16), photometric="cielab")
    with pytest.raises(DataError, match=r"CIELAB .* save it as RGB"):
        read(tmp_path / "lab.tif")


def test_what_a_file_is_counts_not_what_it_is_called(tmp_path, read):
    pixels = noise(3, np.float32)
    tifffile.imwrite(tmp_path / "really-a-tiff.png", pixels, photometric="rgb")
    same(read(tmp_path / "really-a-tiff.png"), pixels)
    Pillow.fromarray(noise()).save(tmp_path / "really-a-png.jpg", format="PNG")
    same(read(tmp_path / "really-a-png.jpg"), noise())


# NumPy


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 1), (HEIGHT, WIDTH, 3), (HEIGHT, WIDTH, 16)])
@pytest.mark.parametrize("dtype", ["?", "<u1", "<u2", ">u2", ">u4", ">i2", "<i8", "<f2", ">f4", "<f8"])
def test_arrays_keep_their_numbers(tmp_path, read, shape, dtype):
    array = noise(int(np.prod(shape[2:])), np.dtype(dtype).newbyteorder("=")).reshape(shape).astype(dtype)
    np.save(tmp_path / "array.npy", array)
    same(read(tmp_path / "array.npy"), array)


def test_the_order_in_memory_does_not_matter(tmp_path, read):
    array = noise(3, np.float32)
    np.save(tmp_path / "columns.npy", np.asfortranarray(array))
    assert b"'fortran_order': True" in (tmp_path / "columns.npy").read_bytes()
    same(read(tmp_path / "columns.npy"), array)


def test_reading_an_array_leaves_its_file_alone(tmp_path, image):
    np.save(tmp_path / "array.npy", noise(3))
    before = (tmp_path / "array.npy").read_bytes()
    image.read(tmp_path / "array.npy").values.zero_()
    assert (tmp_path / "array.npy").read_bytes() == before


# Orientation


def turned(path, pixels, orientation, suffix):
    """Save pixels with an orientation tag."""
    exif = Pillow.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Pillow.fromarray(pixels).save(path, exif=exif, **LOSSLESS.get(suffix, {}))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_pictures_stand_upright_as_exif_transpose_sets_them(tmp_path, read, suffix, orientation):
    path = tmp_path / f"photo{suffix}"
    turned(path, noise(), orientation, suffix)
    with Pillow.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    same(read(path), expected)
    assert (expected.shape[:2] == (WIDTH, HEIGHT)) == (orientation >= 5)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", ["u2", "f4"])
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_tiffs_stand_upright_too(tmp_path, read, channels, dtype, orientation):
    shallow, deep = noise(channels), noise(channels).astype(dtype)
    photometric = "rgb" if channels == 3 else "minisblack"
    tag = [(ExifTags.Base.Orientation.value, "H", 1, orientation, True)]
    for name, pixels in (("shallow.tif", shallow), ("deep.tif", deep)):
        stored = pixels if channels == 3 else pixels[:, :, 0]
        tifffile.imwrite(tmp_path / name, stored, photometric=photometric, extratags=tag)
    turned(tmp_path / "turned.png", shallow.squeeze(), orientation, ".png")
    expected = read(tmp_path / "turned.png")
    same(read(tmp_path / "shallow.tif"), expected)
    same(read(tmp_path / "deep.tif"), expected.astype(dtype))


def chunks(path):
    """The kinds and contents of a PNG's chunks."""
    return list(png.Reader(bytes=path.read_bytes()).chunks())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_pngs_stand_upright_too(tmp_path, read, orientation):
    turned(tmp_path / "shallow.png", noise(), orientation, ".png")
    plain = read(tmp_path / "shallow.png")
    with (tmp_path / "deep.png").open("wb") as file:
        writer = png.Writer(WIDTH, HEIGHT, greyscale=False, bitdepth=16)
        writer.write(file, (noise().astype(np.uint16) * 257).reshape(HEIGHT, -1))
    tags = dict(chunks(tmp_path / "shallow.png"))[b"eXIf"]
    first, *others = chunks(tmp_path / "deep.png")
    with (tmp_path / "deep.png").open("wb") as file:
        png.write_chunks(file, [first, (b"eXIf", tags), *others])
    same(read(tmp_path / "deep.png"), plain.astype(np.uint16) * 257)


def test_tags_that_cannot_be_read_are_no_reason_not_to_read_the_pixels(tmp_path, read):
    for suffix in (".png", ".jpg", ".webp"):
        path = tmp_path / f"photo{suffix}"
        Pillow.fromarray(noise()).save(path, exif=b"Exif\0\0nonsense", **LOSSLESS.get(suffix, {}))
        same(read(path), as_shown(path, "RGB"))


# Several frames


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_of_several_frames_the_first_is_read(tmp_path, read, suffix):
    frames = [Pillow.fromarray(noise(3, seed=seed)) for seed in range(3)]
    path = tmp_path / f"frames{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **LOSSLESS.get(suffix, {}))
    same(read(path), noise(3, seed=0))


def test_of_several_deep_pages_the_first_is_read(tmp_path, read):
    pages = np.stack([noise(3, np.uint16, seed=seed) for seed in range(3)])
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="rgb")
    same(read(tmp_path / "pages.tif"), pages[0])


def test_the_first_picture_of_a_stereo_photo_is_read(tmp_path, read):
    frames = [Pillow.fromarray(noise(3, seed=seed)) for seed in range(2)]
    frames[0].save(tmp_path / "stereo.jpg", format="MPO", save_all=True, append_images=frames[1:])
    same(read(tmp_path / "stereo.jpg"), as_shown(tmp_path / "stereo.jpg", "RGB"))


# Writing


def written_and_read(image, path, values, metadata=None):
    image.write(
        path, values, {"squeezed": False, "suffix": path.suffix, "channels": values.shape[2], **(metadata or {})}
    )
    dataset = image.read(path)
    array = dataset.values.numpy()
    array = array.view(dataset.dtype) if dataset.dtype.kind == "u" else array
    return array.reshape(*dataset.grid_shape, dataset.channels)


HOLDS = (
    [(".png", channels, dtype) for channels in (1, 2, 3, 4) for dtype in ("u1", "u2")]
    + [(".tif", channels, dtype) for channels in (1, 2, 3, 4, 5, 16) for dtype in TIFF_DTYPES]
    + [(".npy", channels, dtype) for channels in (1, 2, 3, 16) for dtype in (*TIFF_DTYPES, "?", "g")]
    + [(".webp", channels, "u1") for channels in (3, 4)]
    + [(".bmp", channels, "u1") for channels in (1, 3)]
)


@pytest.mark.parametrize(("suffix", "channels", "dtype"), HOLDS)
def test_lossless_formats_give_back_what_was_written(tmp_path, image, suffix, channels, dtype):
    for shape in ((HEIGHT, WIDTH), (1, WIDTH), (HEIGHT, 1), (1, 1)):
        values = noise(channels, dtype, shape)
        back = written_and_read(image, tmp_path / f"out{suffix}", values)
        same(back, values.astype(np.float64) if dtype == "g" else values)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_gives_back_nearly_what_was_written(tmp_path, image, suffix, channels):
    ramp = np.linspace(0, 255, 64 * 48).reshape(64, 48, 1).repeat(channels, axis=2).astype(np.uint8)
    back = written_and_read(image, tmp_path / f"out{suffix}", ramp)
    assert np.abs(back.astype(int) - ramp).max() <= 4


@pytest.mark.parametrize("channels", [1, 2])
def test_webp_shows_gray_as_equal_colours(tmp_path, image, channels):
    values = noise(channels)
    back = written_and_read(image, tmp_path / "gray.webp", values)
    expected = values[:, :, [0, 0, 0]] if channels == 1 else values[:, :, [0, 0, 0, 1]]
    same(back, expected)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_sixteen_bits_are_rounded_for_formats_of_eight(tmp_path, image, suffix):
    deep = np.full((HEIGHT, WIDTH, 3), 1000, dtype=np.uint16)
    back = written_and_read(image, tmp_path / f"out{suffix}", deep)
    assert np.abs(back.astype(float) - 1000 / 257).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_masks_are_shown_black_and_white(tmp_path, image, suffix):
    mask = noise(1, bool)
    same(written_and_read(image, tmp_path / f"mask{suffix}", mask), mask.astype(np.uint8) * np.uint8(255))


def test_an_array_without_a_channel_axis_is_written_without_one(tmp_path, image):
    for shape in ((HEIGHT, WIDTH), (HEIGHT, WIDTH, 1)):
        np.save(tmp_path / "in.npy", noise(1).reshape(shape))
        dataset = image.read(tmp_path / "in.npy")
        image.write(tmp_path / "out.npy", noise(1), dataset.metadata)
        assert np.load(tmp_path / "out.npy").shape == shape


SIGNALS = (
    [(".png", channels, dtype) for channels in (1, 2, 3, 4) for dtype in ("u1", "u2")]
    + [(".tif", channels, dtype) for channels in (1, 2, 3, 4, 5) for dtype in TIFF_DTYPES]
    + [(".npy", channels, dtype) for channels in (1, 3, 5) for dtype in (*TIFF_DTYPES, "?", "g")]
)


@pytest.mark.parametrize(("suffix", "channels", "dtype"), SIGNALS)
def test_a_reconstruction_is_kept_in_a_format_that_holds_it(tmp_path, image, suffix, channels, dtype):
    values = noise(channels, dtype)
    image.write(tmp_path / f"in{suffix}", values, {})
    dataset = image.read(tmp_path / f"in{suffix}")
    chosen = image.reconstruction_suffix(dataset.metadata, dataset.dtype)
    rendered = values.astype(dataset.dtype)
    back = written_and_read(image, tmp_path / f"reconstruction{chosen}", rendered, dataset.metadata)
    same(back, rendered.astype(np.float64) if dtype == "g" else rendered)
    assert dataset.dtype == np.dtype(dtype)


CANNOT = (
    [(suffix, channels, "u1") for suffix in (".jpg", ".bmp") for channels in (2, 4, 5)]
    + [(suffix, 5, dtype) for suffix in (".png", ".webp") for dtype in ("u1", "u2", "?")]
    + [(suffix, 3, dtype) for suffix in (".png", ".jpg", ".webp", ".bmp") for dtype in ("i2", "i8", "f4", "f8", "g")]
    + [(".tif", 3, "g"), (".tif", 1, "g"), (".jpg", 4, "u2")]
)


@pytest.mark.parametrize(("suffix", "channels", "dtype"), CANNOT)
def test_an_impossible_format_is_an_error_that_names_ones_that_work(tmp_path, image, suffix, channels, dtype):
    values = noise(channels, dtype)
    with pytest.raises(ConfigError) as caught:
        image.write(tmp_path / f"out{suffix}", values, {})
    message = str(caught.value)
    assert suffix in message
    assert str(values.dtype) in message
    assert not list(tmp_path.iterdir())
    named = [word.strip(",;") for word in message.partition("choose ")[2].split() if word.startswith(".")]
    assert named
    for other in named:
        expected = values.astype(np.float64) if dtype == "g" else values
        if dtype == "?" and other != ".npy":
            expected = values.astype(np.uint8) * np.uint8(255)
        same(written_and_read(image, tmp_path / f"out{other}", values), expected)


@pytest.mark.parametrize("name", ["out.gif", "out.xyz", "out", "out.png.bak"])
def test_an_unknown_suffix_is_an_error_that_lists_the_known(tmp_path, image, name):
    with pytest.raises(ConfigError) as caught:
        image.write(tmp_path / name, noise(), {})
    for suffix in (".png", ".jpg", ".tif", ".webp", ".bmp", ".npy"):
        assert suffix in str(caught.value)


@pytest.mark.parametrize(("suffix", "longest"), [(".jpg", 65500), (".webp", 16383)])
def test_a_side_that_a_format_has_no_number_for_is_an_error_that_names_another(tmp_path, image, suffix, longest):
    image.write(tmp_path / f"fits{suffix}", np.zeros((1, longest, 3), np.uint8), {})
    for shape in ((1, longest + 1), (longest + 1, 1)):
        with pytest.raises(ConfigError, match=rf"{longest} a side; choose .png or .tif"):
            image.write(tmp_path / f"out{suffix}", np.zeros((*shape, 3), np.uint8), {})
    image.write(tmp_path / "out.png", np.zeros((1, longest + 1, 3), np.uint8), {})


# Files that are not what they should be


def files_of_every_kind():
    """Name and bytes of a good file in each format and way of decoding it."""

    def pillow(name, pixels, **options):
        buffer = io.BytesIO()
        Pillow.fromarray(pixels).save(buffer, name, **options)
        return buffer.getvalue()

    def tiff(pixels, **options):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, **options)
        return buffer.getvalue()

    def deep_png():
        buffer = io.BytesIO()
        writer = png.Writer(WIDTH, HEIGHT, greyscale=False, bitdepth=16, chunk_limit=100)
        writer.write(buffer, noise(3, np.uint16).reshape(HEIGHT, -1))
        return buffer.getvalue()

    def array():
        buffer = io.BytesIO()
        np.save(buffer, noise(3, np.float32))
        return buffer.getvalue()

    return {
        "a.png": pillow("PNG", noise()),
        "deep.png": deep_png(),
        "a.jpg": pillow("JPEG", noise()),
        "progressive.jpg": pillow("JPEG", noise(), progressive=True),
        "a.webp": pillow("WEBP", noise(), lossless=True),
        "a.bmp": pillow("BMP", noise()),
        "a.tif": pillow("TIFF", noise()),
        "deep.tif": tiff(noise(3, np.uint16), photometric="rgb"),
        "zlib.tif": tiff(noise(3, np.uint16), photometric="rgb", compression="zlib", rowsperstrip=4),
        "planar.tif": tiff(np.moveaxis(noise(3, np.uint16), -1, 0), photometric="rgb", planarconfig="separate"),
        "real.tif": tiff(noise(1, np.float32)[:, :, 0]),
        "a.npy": array(),
    }


FILES = files_of_every_kind()


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused_unless_all_its_pixels_are_there(tmp_path, read, name):
    whole, path = FILES[name], tmp_path / name
    path.write_bytes(whole)
    pixels = read(path)
    refused = 0
    for length in {*range(1, 40), *range(40, len(whole), 23), *range(len(whole) - 24, len(whole))}:
        path.write_bytes(whole[:length])
        try:
            np.testing.assert_array_equal(read(path), pixels)
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > len(whole) / 23 / 2


@pytest.mark.parametrize("name", FILES)
def test_whatever_is_wrong_in_a_file_is_told_as_a_data_error_of_one_line(tmp_path, read, name):
    random = np.random.default_rng(0)
    whole, path = FILES[name], tmp_path / name
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            span = len(damaged) if random.random() < 0.4 else min(len(damaged), 200)
            damaged[random.integers(span)] = random.integers(256)
        path.write_bytes(damaged)
        try:
            read(path)
        except DataError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)


@pytest.mark.parametrize("name", FILES)
def test_bytes_that_are_no_image_are_refused(tmp_path, read, name):
    for content in (b"", b"\0", b"hello, this is a text and no picture", bytes(range(256)) * 4):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="check that it opens elsewhere"):
            read(tmp_path / name)


def test_an_archive_of_arrays_is_no_array(tmp_path, read):
    np.savez(tmp_path / "arrays.npz", noise())
    (tmp_path / "arrays.npz").rename(tmp_path / "arrays.npy")
    with pytest.raises(DataError, match="not a NumPy array"):
        read(tmp_path / "arrays.npy")


def test_an_array_of_objects_runs_no_code(tmp_path, read):
    class Touch:
        def __reduce__(self):
            return (type(tmp_path).touch, (tmp_path / "ran",))

    np.save(tmp_path / "objects.npy", np.array([[Touch()]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not a NumPy array of numbers"):
        read(tmp_path / "objects.npy")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': ('a', 4), }",
        "{'descr': '<zz', 'fortran_order': False, 'shape': (3, 4), }",
        "{'descr': '<f4'}",
        "((((((((((",
        "",
        "__import__('os').system('true')",
    ],
)
def test_a_nonsense_header_of_an_array_is_refused(tmp_path, read, header):
    text = header.encode().ljust(117) + b"\n"
    (tmp_path / "array.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(48))
    with pytest.raises(DataError, match="not a NumPy array"):
        read(tmp_path / "array.npy")


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4, 5), (3, 20, 30), (1, 1, 17)])
def test_an_array_of_another_shape_says_what_an_image_is(tmp_path, read, shape):
    np.save(tmp_path / "array.npy", np.zeros(shape))
    with pytest.raises(DataError, match=r"\(height, width\) or \(height, width, channels\)") as caught:
        read(tmp_path / "array.npy")
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (4, 0, 3), (4, 4, 0)])
def test_an_array_without_pixels_says_so(tmp_path, read, shape):
    np.save(tmp_path / "array.npy", np.zeros(shape))
    with pytest.raises(DataError, match="no pixels") as caught:
        read(tmp_path / "array.npy")
    assert str(shape) in str(caught.value)


def test_a_picture_too_large_to_decode_says_how_to_store_it(tmp_path, read):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match=r"too large to decode; save it as \.npy"):
        read(tmp_path / "bomb.png")


def test_a_large_picture_that_fits_is_read_without_a_warning(tmp_path, read, monkeypatch):
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH - 1)
    Pillow.fromarray(noise()).save(tmp_path / "large.png")
    same(read(tmp_path / "large.png"), noise())


@pytest.mark.parametrize("name", ["folder.png", "folder.npy"])
def test_a_folder_is_left_to_the_system_to_refuse(tmp_path, read, name):
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError):
        read(tmp_path / name)


def test_reading_leaves_warnings_and_logs_as_they_were(tmp_path, read):
    (tmp_path / "damaged.tif").write_bytes(FILES["deep.tif"][:300])
    levels = {name: logging.getLogger(name).level for name in ("PIL", "tifffile")}
    filters = list(warnings.filters)
    with pytest.raises(DataError):
        read(tmp_path / "damaged.tif")
    assert warnings.filters == filters
    assert {name: logging.getLogger(name).level for name in levels} == levels


# What the engine is told


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_alpha_does_not_count_towards_high_frequencies(tmp_path, image, channels):
    np.save(tmp_path / "array.npy", noise(channels))
    weights = image.read(tmp_path / "array.npy").channel_weights.numpy()
    luma = [0.2989, 0.587, 0.114]
    expected = {1: [1], 2: [1, 0], 3: luma, 4: [*luma, 0], 5: [0.2] * 5}[channels]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_the_physical_unit_is_a_pixel_and_its_centre_a_whole_number(tmp_path, image):
    np.save(tmp_path / "array.npy", noise())
    dataset = image.read(tmp_path / "array.npy")
    coordinates = dataset.coordinates(slice(0, HEIGHT * WIDTH)).numpy().astype(float)
    pixels = coordinates @ dataset.affine[:, :2].T + dataset.affine[:, 2]
    expected = np.stack(np.indices((HEIGHT, WIDTH)), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(pixels, expected, atol=1e-5)


# The sample


def test_the_sample_picture_is_the_same_in_every_process(tmp_path, image, read):
    image.sample(tmp_path / "here.png")
    code = (
        "import sys, pathlib; from inrkit import MODALITIES; plugin = MODALITIES.get('image'); "
        "plugin(plugin.Options()).sample(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there.png")], check=True)
    same(read(tmp_path / "there.png"), read(tmp_path / "here.png"))


def test_the_sample_picture_has_shading_edges_and_texture(tmp_path, image, read):
    image.sample(tmp_path / "sample.png")
    picture = read(tmp_path / "sample.png").astype(float)
    assert picture.shape == (256, 256, 3)
    steps = np.abs(np.diff(picture, axis=0)).max(axis=-1)
    assert steps.max() > 60
    assert np.median(steps[:40]) < 2
    assert np.median(steps[-40:]) > 2


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".webp", ".bmp"])
def test_the_sample_picture_comes_in_any_format(tmp_path, image, read, suffix):
    image.sample(tmp_path / "sample.png")
    image.sample(tmp_path / f"other{suffix}")
    same(read(tmp_path / f"other{suffix}"), read(tmp_path / "sample.png"))


def reducing(longest):
    plugin = MODALITIES.get("image")
    return plugin(plugin.Options(longest=longest))


def test_a_larger_picture_is_reduced_to_its_longest_side(tmp_path):
    pixels = noise(shape=(30, 48))
    Pillow.fromarray(pixels).save(tmp_path / "big.png")
    dataset = reducing(16).read(tmp_path / "big.png")
    expected = np.asarray(Pillow.fromarray(pixels).resize((16, 10), Pillow.Resampling.LANCZOS))
    np.testing.assert_array_equal(dataset.values.numpy().reshape(10, 16, 3), expected)
    assert dataset.affine.shape == (2, 3)


def test_a_picture_that_is_small_enough_is_left_alone(tmp_path):
    Pillow.fromarray(noise()).save(tmp_path / "small.png")
    for longest in (0, 12, 500):
        assert reducing(longest).read(tmp_path / "small.png").grid_shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64, np.bool_])
def test_reducing_keeps_the_dtype_and_the_range(dtype, tmp_path):
    pixels = noise(2, dtype, shape=(40, 20))
    np.save(tmp_path / "big.npy", pixels)
    dataset = reducing(20).read(tmp_path / "big.npy")
    assert (dataset.grid_shape, dataset.dtype) == ((20, 10), np.dtype(dtype))
    if np.dtype(dtype).kind in "iub":
        assert dataset.extent[0] >= float(pixels.min()) and dataset.extent[1] <= float(pixels.max())
