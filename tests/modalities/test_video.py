"""Videos: what Pillow and FFmpeg write is read as they read it, and what is written reads back."""

import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageSequence

import inrkit
from inrkit import MODALITIES, ConfigError, DataError
from inrkit.evaluation.places import map_between, mapped
from inrkit.modalities import video as videos
from inrkit.signals.bends import Bends
from inrkit.signals.embeddings import Identity as NoEmbedding
from inrkit.signals.embeddings import IdentityOptions
from inrkit.signals.modality import modality_of
from inrkit.signals.transforms import Identity

QUICK = {"steps": 2, "network": {"hidden_features": 8, "hidden_layers": 1}}


def video(**options):
    plugin = MODALITIES.get("video")
    return plugin(plugin.Options(**options))


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def brightening(frames=20, height=32, width=48):
    """(frames, height, width, 3), frame i of one shade of gray that tells i."""
    shades = (np.arange(frames) * 10).astype(np.uint8)
    return np.broadcast_to(shades[:, None, None, None], (frames, height, width, 3)).copy()


def known_in(dataset):
    """(*grid_shape) bool; True where a value is known."""
    known = np.zeros(dataset.grid_shape, dtype=bool)
    known.flat[slice(None) if dataset.known is None else dataset.known.numpy()] = True
    return known


def stored(dataset):
    """(frames, H, W, C) values of a dataset in the file's dtype."""
    return dataset.values.numpy().view(dataset.dtype).reshape(*dataset.grid_shape, dataset.channels)


def shown(dataset):
    """Which frames of `brightening` a dataset has."""
    return np.rint(stored(dataset)[:, 5, 5, 0] / 10).astype(int).tolist()


def refused(path, *said, **options):
    with pytest.raises((DataError, ConfigError)) as error:
        video(**options).read(path)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    for words in (str(path), *said):
        assert words in message


# Writing and reading back


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.integers(1, 6),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([1, 3, 4]),
    levels=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_what_reconstructions_are_written_as_loses_nothing(tmp_path, frames, height, width, channels, levels, seed):
    # Few levels, so that frames, and parts of them, are the same as the ones before.
    values = np.random.default_rng(seed).integers(0, levels, (frames, height, width, channels), dtype=np.uint8) * 85
    if channels == 4:
        values[0, 0, 0, 3] = 0
    path = tmp_path / f"clip{video().reconstruction_suffix({'channels': channels}, values.dtype)}"
    assert path.suffix == ".apng"
    video().write(path, values, {"seconds": frames / 8})
    dataset = video().read(path)
    np.testing.assert_array_equal(stored(dataset), values)
    if frames > 1:
        assert dataset.metadata["seconds"] == pytest.approx(frames / 8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_array_of_frames_comes_back_as_it_was(tmp_path, dtype, channels):
    values = noise(5, 6, 7, channels, dtype=dtype)
    video().write(tmp_path / "clip.npy", values, {})
    np.testing.assert_array_equal(stored(video().read(tmp_path / "clip.npy")), values)
    if dtype == np.uint16:
        assert video().reconstruction_suffix({"channels": channels}, np.dtype(dtype)) == ".npy"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_folder_of_pictures_comes_back_as_it_was(tmp_path, channels):
    values = noise(12, 6, 7, channels)
    video().write(tmp_path / "frames", values, {})
    assert (tmp_path / "frames" / "frame-00.png").exists()
    np.testing.assert_array_equal(stored(video().read(tmp_path / "frames")), values)


def test_a_gif_is_read_as_pillow_shows_it(tmp_path):
    path = tmp_path / "clip.gif"
    video().sample(path)
    with Pillow.open(path) as animation:
        expected = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)])
    dataset = video().read(path)
    np.testing.assert_array_equal(stored(dataset), expected)
    np.testing.assert_allclose(dataset.affine[0], [0.1 * 12 / 2, 0, 0, 0.1 * 11 / 2])
    np.testing.assert_allclose(dataset.affine[1:], [[0, 24, 0, 23.5], [0, 0, 24, 23.5]])


def test_a_transparent_gif_keeps_its_transparency(tmp_path):
    frames = [Pillow.new("RGBA", (8, 8), (200, 10, 10, 0)) for _ in range(3)]
    for number, frame in enumerate(frames):
        frame.paste((10, 200, 10, 255), (number, 0, number + 3, 8))
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=100, disposal=2)
    dataset = video().read(tmp_path / "clip.gif")
    assert dataset.channels == 4
    assert sorted(np.unique(stored(dataset)[..., 3])) == [0, 255]


def test_a_gif_without_times_is_shown_ten_frames_a_second_as_browsers_do(tmp_path):
    frames = [Pillow.fromarray(frame) for frame in brightening(5, 8, 8)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    assert video().read(tmp_path / "clip.gif").metadata["seconds"] == pytest.approx(0.5)


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_an_mp4_keeps_its_size_its_frames_and_its_seconds(tmp_path, size):
    values = brightening(20, *size)
    video().write(tmp_path / "clip.mp4", values, {"seconds": 2.0})
    dataset = video().read(tmp_path / "clip.mp4")
    assert dataset.grid_shape == (20, *size)
    assert np.abs(stored(dataset).astype(int) - values).max() <= 4
    np.testing.assert_allclose(dataset.affine[0], [1.0, 0, 0, 0.95])
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == 10


@pytest.mark.parametrize("suffix", ["mkv", "avi", "webm", "mov"])
def test_what_ffmpeg_decodes_is_read(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    values = brightening(8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9" if suffix == "webm" else "mpeg4", rate=10)
        stream.height, stream.width = values.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in values:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    assert modality_of(path) == "video"
    dataset = video().read(path)
    assert shown(dataset) == list(range(8))
    assert dataset.affine[0, 0] == pytest.approx(0.4, rel=0.01)


# What a player shows


def encoded(path, frames, codec, pixels="yuv420p", stored="rgb24", times=None, rate=10, setup=None, **options):
    """Frames by FFmpeg, `rate` a second or at `times`, in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if setup is not None:
            setup(stream)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=stored)
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def corners():
    """(2, 32, 48, 3) gray with a white corner on the left and a dark blue one on the right of the top."""
    frames = np.full((2, 32, 48, 3), 60, dtype=np.uint8)
    frames[:, :12, :16] = 250
    frames[:, :12, -16:] = (0, 0, 200)
    return frames


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((1, 0, 0, 1, 0, 0), lambda frame: frame),
        ((-1, 0, 0, 1, 48, 0), np.fliplr),
        ((1, 0, 0, -1, 0, 32), np.flipud),
        ((-1, 0, 0, -1, 48, 32), lambda frame: np.rot90(frame, 2)),
        ((0, 1, -1, 0, 32, 0), lambda frame: np.rot90(frame, 3)),
        ((0, -1, 1, 0, 0, 48), np.rot90),
        ((0, 1, 1, 0, 0, 0), lambda frame: frame.swapaxes(0, 1)),
        ((0, -1, -1, 0, 32, 48), lambda frame: np.rot90(frame.swapaxes(0, 1), 2)),
    ],
)
def test_frames_are_turned_and_mirrored_as_the_file_says(tmp_path, matrix, upright):
    path = encoded(tmp_path / "clip.mp4", corners(), "libx264", "yuv444p", crf="1")
    content = bytearray(path.read_bytes())
    place = content.find(b"tkhd") + 4 + 4 + 20 + 8 + 8  # ISO 14496-12, 8.3.2
    a, b, c, d, x, y = matrix
    content[place : place + 36] = struct.pack(">9i", *(n << 16 for n in (a, b, 0, c, d, 0, x, y)), 1 << 30)
    path.write_bytes(content)
    expected = upright(corners()[0])
    frame = stored(video().read(path))[0]
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).max() < 12


COLOURS = [(200, 60, 60), (60, 200, 60), (60, 60, 200), (230, 200, 40)]
WEIGHTS = {5: (0.299, 0.114), 1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}  # red and blue, ITU-R BT.601, 709, 2020


def luma_and_chroma(colour, matrix, full):
    """(Y, Cb, Cr) of 8 bits by the definition (ITU-T H.273, 8.3)."""
    red, blue = WEIGHTS[matrix]
    r, g, b = (value / 255 for value in colour)
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    scaled = (255 * y, 255 * cb + 128, 255 * cr + 128) if full else (16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr)
    return [round(value) for value in scaled]


def bars(height, width, of):
    return np.stack([np.tile(np.repeat([of(c)[k] for c in COLOURS], width // 4), (height, 1)) for k in range(3)])


def seen(frame):
    """The colour of each bar of an (H, W, 3) frame."""
    height, width, _ = frame.shape
    return frame[height // 2, [part * width // 4 + width // 8 for part in range(4)]].astype(int)


@pytest.mark.parametrize(
    ("matrix", "full", "size", "tagged"),
    [
        *((matrix, full, (64, 64), True) for matrix in (5, 1, 9) for full in (False, True)),
        (1, False, (720, 1280), True),
        (1, False, (720, 1280), False),  # which is what a file of this size is taken for that does not say
        (5, False, (64, 64), False),
    ],
)
def test_colours_are_read_by_the_matrix_and_the_range_that_they_are_stored_in(tmp_path, matrix, full, size, tagged):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "0", "preset": "ultrafast"})
        (stream.height, stream.width), stream.pix_fmt = size, "yuv444p"
        frame = av.VideoFrame.from_ndarray(
            bars(*size, lambda colour: luma_and_chroma(colour, matrix, full)).astype(np.uint8), format="yuv444p"
        )
        if tagged:
            for owner in (stream.codec_context, frame):
                owner.colorspace, owner.color_range = matrix, 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert np.abs(seen(stored(video().read(path))[0]) - COLOURS).max() <= 2


@pytest.mark.parametrize(("size", "matrix"), [((64, 64), 5), ((720, 1280), 1)])
def test_the_colours_that_are_written_name_the_matrix_that_they_are_in(tmp_path, size, matrix):
    values = np.moveaxis(bars(*size, lambda colour: colour), 0, -1)[None].astype(np.uint8)
    video().write(tmp_path / "clip.mp4", values, {"seconds": 0.1})
    with av.open(str(tmp_path / "clip.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (matrix, 1)
        planes = frame.to_ndarray(format="yuv420p")
    luma = planes[size[0] // 2, [part * size[1] // 4 + size[1] // 8 for part in range(4)]].astype(int)
    assert np.abs(luma - [luma_and_chroma(colour, matrix, False)[0] for colour in COLOURS]).max() <= 2


def test_colours_of_high_dynamic_range_are_said_so_and_written_so(tmp_path):
    def tag(stream):
        stream.codec_context.colorspace = stream.codec_context.color_primaries = 9
        stream.codec_context.color_trc = 18

    frames = np.broadcast_to(np.linspace(0, 65535, 64).astype(np.uint16)[:, None], (2, 48, 64, 3))
    path = encoded(tmp_path / "clip.mp4", frames, "libx264", "yuv444p10le", "rgb48le", setup=tag, crf="1")
    dataset = video().read(path)
    assert "HLG" in dataset.metadata["notes"][0]
    video().write(tmp_path / "again.mp4", stored(dataset), dataset.metadata)
    with av.open(str(tmp_path / "again.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc) == (9, 9, 18)
    assert np.abs(stored(video().read(tmp_path / "again.mp4")).astype(int) - stored(dataset)).max() < 1200


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "kind", "channels", "error"),
    [
        ("clip.mkv", "ffv1", "gray16le", "gray16le", 1, 0),
        ("clip.mkv", "ffv1", "gray", "gray", 1, 0),
        ("clip.mkv", "ffv1", "gbrp12le", "rgb48le", 3, 16),
        ("clip.mp4", "libx264", "yuv444p10le", "rgb48le", 3, 200),
        ("clip.mov", "prores_ks", "yuv422p10le", "rgb48le", 3, 200),
        ("clip.mov", "qtrle", "argb", "rgba", 4, 0),
        ("clip.mkv", "ffv1", "bgra", "rgba", 4, 0),
    ],
)
def test_bits_and_transparency_are_kept(tmp_path, name, codec, pixels, kind, channels, error):
    dtype = np.uint16 if "16" in kind or "48" in kind else np.uint8
    ramp = np.linspace(0, np.iinfo(dtype).max, 64).astype(dtype)
    frames = np.broadcast_to(ramp[:, None], (2, 48, 64, channels)) if channels > 1 else np.tile(ramp, (2, 48, 1))
    options = {"crf": "1"} if codec == "libx264" else {}
    dataset = video().read(encoded(tmp_path / name, frames, codec, pixels, kind, **options))
    assert (dataset.dtype, dataset.channels) == (dtype, channels)
    assert np.abs(stored(dataset).reshape(frames.shape).astype(int) - frames).max() <= error


def test_the_transparency_of_a_webm_is_kept(tmp_path):
    frames = np.full((3, 48, 64, 4), 255, dtype=np.uint8)
    frames[:, :24, :, 3] = 0

    def tag(stream):
        stream.metadata["alpha_mode"] = "1"

    path = encoded(tmp_path / "clip.webm", frames, "libvpx-vp9", "yuva420p", "rgba", setup=tag, crf="4")
    read = stored(video().read(path))
    assert read.shape == frames.shape
    assert np.abs(read[..., 3].astype(int) - frames[..., 3]).max() <= 3


def test_sixteen_bits_are_written_as_video_and_as_pictures(tmp_path):
    values = noise(2, 8, 8, 3, dtype=np.uint16) // 4096 * 4096
    video().write(tmp_path / "frames", values, {})
    np.testing.assert_array_equal(stored(video().read(tmp_path / "frames")), values)
    smooth = np.broadcast_to(np.linspace(0, 65535, 48).astype(np.uint16)[:, None], (2, 48, 48, 3))
    video().write(tmp_path / "clip.mp4", smooth, {"seconds": 0.2})
    again = stored(video().read(tmp_path / "clip.mp4"))
    assert again.dtype == np.uint16
    assert np.abs(again.astype(int) - smooth).max() < 1200


def test_the_shape_of_pixels_is_kept(tmp_path):
    def wide(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)

    dataset = video().read(encoded(tmp_path / "clip.mp4", brightening(3), "libx264", setup=wide))
    assert "1.45 times as wide as high" in dataset.metadata["notes"][0]
    for times, aspect in ((1, Fraction(16, 11)), (2, Fraction(8, 11))):
        video().write(tmp_path / "again.mp4", stored(dataset).repeat(times, axis=2), dataset.metadata)
        with av.open(str(tmp_path / "again.mp4")) as container:
            assert container.streams.video[0].sample_aspect_ratio == aspect


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_a_gif_s_frames_are_cleared_away_as_they_ask_for(tmp_path, disposal):
    path = tmp_path / "clip.gif"
    frames = moving()
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=80, disposal=disposal)
    assert_as_ffmpeg_shows_it(path)


@pytest.mark.parametrize("disposal", [0, 1, 2])
@pytest.mark.parametrize("blend", [0, 1])
@pytest.mark.parametrize("alpha", [255, 128])
def test_an_apng_s_frames_are_cleared_away_and_laid_over_as_they_ask_for(tmp_path, disposal, blend, alpha):
    path = tmp_path / "clip.apng"
    frames = moving(alpha)
    frames[0].save(path, "PNG", save_all=True, append_images=frames[1:], duration=80, disposal=disposal, blend=blend)
    assert_as_ffmpeg_shows_it(path)


def moving(alpha=255):
    frames = []
    for number in range(6):
        frame = Pillow.new("RGBA", (40, 30), (0, 0, 0, 0))
        left, top = 5 * number, 3 * number
        frame.paste((30 * number + 40, 200 - 30 * number, 90, alpha), (left, top, left + 12, top + 12))
        frames.append(frame)
    return frames


def assert_as_ffmpeg_shows_it(path):
    with av.open(str(path)) as container:
        expected = np.stack([frame.to_ndarray(format="rgba") for frame in container.decode(video=0)]).astype(int)
    read = stored(video().read(path)).astype(int)
    assert np.abs(read[..., 3] - expected[..., 3]).max() <= 1
    visible = (expected[..., 3:] > 0) & (read[..., 3:] > 0)
    assert np.abs((read - expected)[..., :3] * visible).max() <= 2


# Frames at their own times


def gif_durations(path):
    with Pillow.open(path) as animation:
        return [frame.info.get("duration") for frame in ImageSequence.Iterator(animation)]


def timed(path, durations):
    frames = [Pillow.fromarray(np.full((8, 8), 25 * number + 5, np.uint8)) for number in range(len(durations))]
    kind = "GIF" if path.suffix == ".gif" else "PNG"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return path


@pytest.mark.parametrize("suffix", [".gif", ".apng"])
@pytest.mark.parametrize(
    ("durations", "shown", "step"),
    [
        ([100] * 8 + [2000], [1] * 8 + [20], 0.1),
        ([2000] + [100] * 8, [20] + [1] * 8, 0.1),
        ([100, 100, 2000, 100], [1, 1, 20, 1], 0.1),
        ([60, 90, 60, 150], [2, 3, 2, 5], 0.03),
        ([100] * 5, [1] * 5, 0.1),
    ],
)
def test_frames_are_at_their_own_times_and_are_written_with_them(tmp_path, suffix, durations, shown, step):
    path = timed(tmp_path / f"clip{suffix}", durations)
    dataset = video().read(path)
    values = stored(dataset)
    assert np.rint((values[:, 0, 0, 0] - 5.0) / 25).tolist() == np.repeat(np.arange(len(shown)), shown).tolist()
    count = len(values)
    seconds = dataset.affine[0, 0] * (2 * np.arange(count) + 1 - count) / count + dataset.affine[0, 3]
    np.testing.assert_allclose(seconds, step * np.arange(count), atol=1e-9)
    assert dataset.metadata["seconds"] == pytest.approx(sum(durations) / 1000)
    assert bool(dataset.metadata["notes"]) == (count > len(durations))
    for out in (".gif", ".apng", ".mp4"):
        video().write(tmp_path / f"out{out}", values, dataset.metadata)
    assert gif_durations(tmp_path / "out.gif") == durations
    assert gif_durations(tmp_path / "out.apng") == durations
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
        stream = container.streams.video[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(sum(durations) / 1000, abs=1e-3)
    np.testing.assert_allclose(times, np.cumsum([0, *durations[:-1]]) / 1000, atol=1e-3)
    finer = values.repeat(2, axis=0)
    video().write(tmp_path / "finer.mp4", finer, dataset.metadata)
    with av.open(str(tmp_path / "finer.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, step / 2 * np.arange(len(finer)), atol=1e-3)


def shown_at(path):
    """A field on a clip by `timed` that has exactly its frames, evenly blended between its places: values at times."""
    dataset = video().read(path)
    frames = torch.from_numpy((stored(dataset)[:, 0, 0, 0] - 5.0) / 25)
    count = len(frames)

    class Places(torch.nn.Module):
        def forward(self, coordinates):
            at = ((coordinates[:, 0] * count + count - 1) / 2).clamp(0, count - 1)
            low = at.floor().long()
            high = (low + 1).clamp(max=count - 1)
            return (frames[low] + (at - low) * (frames[high] - frames[low]))[:, None].expand(-1, 3).float()

    return inrkit.Field(
        network=Places(),
        channels=3,
        embedding=NoEmbedding(IdentityOptions(), 3),
        transform=Identity(),
        names={"network": "", "embedding": "identity", "transform": "identity", "modality": "video"},
        modality_options={},
        grid_shape=dataset.grid_shape,
        dtype=np.dtype("float32"),
        value_range=None,
        affine=dataset.affine,
        metadata=dataset.metadata,
    )


@pytest.mark.parametrize(
    "durations",
    [
        [100] * 8 + [2000],
        [2000] + [100] * 8,
        [100] * 4 + [2000] + [100] * 4,
        [60, 90, 60, 150],
        [10, 2000, 2000, 2000],
        [70, 310, 130, 1270, 50, 90],
    ],
)
def test_a_field_has_the_frame_that_is_shown_at_a_moment(tmp_path, durations):
    field = shown_at(timed(tmp_path / "clip.gif", durations))
    begins = np.cumsum([0, *durations[:-1]]) / 1000
    for share in (0.0, 0.3, 0.5, 0.7):
        at = begins + share * np.array(durations) / 1000
        values = field(np.c_[at, np.full((len(at), 2), 3.5)], physical=True)[:, 0]
        np.testing.assert_allclose(values, np.arange(len(at)), atol=0.02)


def test_times_that_are_nearly_even_flow_from_frame_to_frame(tmp_path):
    durations = [40, 40, 40, 50, 40, 40, 40, 50]
    field = shown_at(timed(tmp_path / "clip.gif", durations))
    begins = np.cumsum([0, *durations[:-1]]) / 1000
    for share in (0.0, 0.25, 0.75):
        at = (begins + share * np.array(durations) / 1000)[:-1]
        values = field(np.c_[at, np.full((len(at), 2), 3.5)], physical=True)[:, 0]
        np.testing.assert_allclose(values, np.arange(len(at)) + share, atol=1e-4)


def test_a_region_of_unequal_frames_has_what_is_shown_at_its_seconds(tmp_path):
    field = shown_at(timed(tmp_path / "clip.gif", [100, 100, 2000, 300, 100]))
    region = field.region((0.05, 0, 0), (2.4, 1, 1), (0.1, 1, 1))
    values = field.render(region=region)[:, 0, 0, 0]
    np.testing.assert_allclose(values, [0, 1] + [2] * 20 + [3] * 2, atol=0.02)
    assert field.modality.cropped(field.metadata, region)["seconds"] == pytest.approx(2.4)
    assert "durations" not in field.modality.cropped(field.metadata, region)
    # What leaves time open keeps the frames, and their times.
    region = field.region((None, 2, 2), (None, 4, 4))
    assert np.array_equal(field.render(region=region), field.render()[:, 2:4, 2:4])
    assert "durations" in field.modality.cropped(field.metadata, region)


def test_derivatives_in_time_are_of_what_the_field_has_at_each_moment(tmp_path):
    field = shown_at(timed(tmp_path / "clip.gif", [40, 40, 40, 50, 40, 40, 40, 50]))
    slopes = field.gradient([[0.02, 3, 3], [0.14, 3, 3]], physical=True)[:, 0, 0]
    np.testing.assert_allclose(slopes, [1 / 0.04, 1 / 0.05], rtol=1e-3)


def test_a_clip_is_compared_with_one_of_other_times_moment_by_moment(tmp_path):
    one = video().read(timed(tmp_path / "one.gif", [100, 300, 100]))
    field = shown_at(timed(tmp_path / "other.gif", [300, 100, 100]))
    assert map_between(one.affine, ("s", "pixel", "pixel"), field.affine, field.units) is None  # five places of 0.1 s
    bends = Bends.of(one.metadata), Bends.of(field.metadata)
    places = mapped(one.coordinates(torch.arange(5) * 64), np.eye(3, 4), bends)
    np.testing.assert_allclose(field(places)[:, 0], [0, 0, 0, 1, 2], atol=0.02)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_pictures_that_move_are_videos_where_that_is_asked_for(tmp_path, suffix):
    frames = [Pillow.fromarray(np.full((8, 9, 3), 25 * number + 5, np.uint8)) for number in range(4)]
    path = tmp_path / f"clip{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 200, 100, 100], lossless=True)
    dataset = video().read(path)
    assert dataset.grid_shape == (5, 8, 9)
    assert stored(dataset)[:, 0, 0].tolist() == [[25 * number + 5] * 3 for number in (0, 1, 1, 2, 3)]
    assert dataset.metadata["seconds"] == pytest.approx(0.5)
    plugin = MODALITIES.get("image")
    picture = plugin(plugin.Options()).read(path)
    assert picture.grid_shape == (8, 9)
    assert picture.metadata["notes"][0] == "it holds 4 frames; the first is read, modality=video reads them all"


def test_the_frames_of_a_telephone_s_video_are_at_their_own_times(tmp_path):
    times = [0, 33, 67, 133, 167, 200, 233, 267]
    path = encoded(tmp_path / "clip.mkv", brightening(8), "libx264", times=times, rate=30)
    dataset = video().read(path)
    assert shown(dataset) == [0, 1, 2, 2, 3, 4, 5, 6, 7]
    assert dataset.metadata["seconds"] == pytest.approx(0.3, abs=2e-3)


def test_rounding_to_hundredths_of_a_second_does_not_add_up(tmp_path):
    video().write(tmp_path / "clip.gif", brightening(12, 8, 8), {"seconds": 12 / 30})
    assert sum(gif_durations(tmp_path / "clip.gif")) == 400


# Parts of a video


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        ({}, range(20)),
        ({"start": 0.5}, range(5, 20)),
        ({"duration": 0.3}, range(3)),
        ({"start": 1.0, "duration": 0.6}, range(10, 16)),
        ({"every": 3}, range(0, 20, 3)),
        ({"start": 0.4, "duration": 1.0, "every": 4}, range(4, 14, 4)),
        ({"duration": 100}, range(20)),
    ],
)
@pytest.mark.parametrize("form", [".gif", ".mp4", ".apng", ".npy", ""])
def test_the_options_choose_frames_and_leave_seconds_true(tmp_path, form, options, frames):
    path = tmp_path / f"clip{form}"
    video().write(path, brightening(), {"seconds": 2.0})
    dataset = video(frame_rate=10, **options).read(path)
    assert shown(dataset) == list(frames)
    seconds = dataset.affine[0, 0] * (2 * np.arange(len(frames)) + 1 - len(frames)) / len(frames) + dataset.affine[0, 3]
    np.testing.assert_allclose(seconds, np.array(frames) / 10, atol=1e-6)


@pytest.mark.parametrize("form", [".gif", ".mp4", ".npy", ""])
def test_a_start_after_the_end_is_a_one_line_error(tmp_path, form):
    path = tmp_path / f"clip{form}"
    video().write(path, brightening(4), {"seconds": 0.4})
    refused(path, "no frames from modality.start=9 on", start=9.0)


def test_a_part_has_the_frames_of_the_whole_where_a_file_has_no_index(tmp_path):
    path = tmp_path / "clip.ts"
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for pixels in noise(50, 32, 48, 3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    whole = stored(video().read(path))
    assert len(whole) == 50
    for start, duration in [(0.2, 0.2), (1.0, 0.0), (1.84, 0.0)]:
        part = video(start=start, duration=duration).read(path)
        first = round(25 * start)
        np.testing.assert_array_equal(stored(part), whole[first:][: round(25 * duration) or None])
        assert "damaged" not in str(part.metadata["notes"])


def test_a_long_video_reads_no_more_than_is_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    values = brightening()
    video().write(path, values, {"seconds": 2.0})
    monkeypatch.setattr("inrkit.signals.decoding.available_memory", lambda: 5 * values[0].nbytes)
    refused(path, "memory", "modality.duration or modality.every")
    assert shown(video(duration=0.5).read(path)) == list(range(5))


# Pixels that are not known


def test_pixels_that_are_not_known_are_left_out(tmp_path):
    path = tmp_path / "clip.npy"
    values = brightening(3, 8, 10).astype(np.float32)
    values[1, 2:4, 5:] = np.nan
    np.save(path, values)
    dataset = video().read(path)
    known = ~np.isnan(values[..., 0])
    assert (known_in(dataset) == known).all()
    np.testing.assert_array_equal(stored(dataset)[known], values[known])
    assert dataset.extent == (0, 20)


@pytest.mark.parametrize("form", [".png", ".npy", "-each.npy"])
def test_a_mask_says_which_pixels_are_known(tmp_path, form):
    path, mask = tmp_path / "clip.gif", tmp_path / f"mask{form}"
    video().write(path, brightening(3, 8, 10), {"seconds": 0.3})
    known = np.ones((8, 10), dtype=bool)
    known[:, :4] = False
    if form == ".png":
        Pillow.fromarray(known.astype(np.uint8) * 255).save(mask)
    else:
        np.save(mask, known if form == ".npy" else np.stack([known] * 3))
    dataset = video(mask=str(mask)).read(path)
    assert (known_in(dataset) == known).all()
    assert dataset.metadata["notes"] == ["40 % of the pixels are not known; the field fills them in"]
    with pytest.raises(DataError, match=r"none\.npy, the mask, does not exist"):
        video(mask=str(tmp_path / "none.npy")).read(path)


def test_transparency_can_say_which_pixels_are_known(tmp_path):
    values = np.full((2, 6, 6, 4), 200, dtype=np.uint8)
    values[:, :3, :, 3] = 0
    np.save(tmp_path / "clip.npy", values)
    dataset = video(mask="alpha").read(tmp_path / "clip.npy")
    assert dataset.channels == 3
    assert (known_in(dataset) == (values[..., 3] > 0)).all()


# Folders


def test_gaps_in_the_frames_numbers_are_said(tmp_path):
    for number in (1, 2, 3, 7, 8):
        Pillow.new("RGB", (6, 6), (number, 0, 0)).save(tmp_path / f"frame{number}.png")
    assert "frame7.png follows frame3.png" in video().read(tmp_path).metadata["notes"][0]


def test_frames_are_in_natural_order(tmp_path):
    for number in (10, 9, 1, 100, 2):
        Pillow.new("RGB", (6, 6), (number, 0, 0)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / ".hidden.png").write_text("not a frame")
    assert stored(video().read(tmp_path))[:, 0, 0, 0].tolist() == [1, 2, 9, 10, 100]
    assert modality_of(tmp_path) == "video"


def test_a_folder_without_pictures_is_a_one_line_error(tmp_path):
    refused(tmp_path, "holds no pictures", ".png")
    (tmp_path / "notes.txt").write_text("words")
    refused(tmp_path, "holds no pictures")


@pytest.mark.parametrize("other", [("RGB", (6, 7)), ("L", (6, 6)), ("I;16", (6, 6))])
def test_frames_of_unequal_kinds_are_a_one_line_error_that_names_the_one(tmp_path, other):
    for number in range(3):
        Pillow.new("RGB", (6, 6)).save(tmp_path / f"frame{number}.png")
    Pillow.new(*other).save(tmp_path / "frame3.png")
    refused(tmp_path, "frame3.png has", "one size and kind")


def test_a_damaged_frame_is_named(tmp_path):
    video().write(tmp_path / "frames", noise(3, 8, 8, 3), {})
    (tmp_path / "frames" / "frame-1.png").write_bytes(b"words")
    refused(tmp_path / "frames", "frame-1.png is not an image")


# A whole fit


@pytest.mark.parametrize("form", [".gif", ".mp4", ""])
def test_a_video_is_fitted_and_rendered_in_every_format(tmp_path, form):
    path = tmp_path / f"clip{form}"
    video().write(path, videos.sample_clip(6, 16), {"seconds": 0.6})
    run = inrkit.fit(path, out=tmp_path / "run", **QUICK)
    assert run.result["modality"] == "video"
    assert run.reconstruction.suffix == ".apng"
    for out in ("out.gif", "out.mp4", "out.apng", "out.npy", "out"):
        run.field.modality.export(tmp_path / out, run.field, scale=2)
        dataset = video().read(tmp_path / out)
        assert dataset.grid_shape == (12, 32, 32)
        if out.endswith(("4", "g")):
            assert dataset.metadata["seconds"] == pytest.approx(0.6 if form else 0.24, rel=1e-3)


def test_a_folder_of_frames_is_rendered_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video().sample(tmp_path / "clip.gif")
    inrkit.fit("clip.gif", out="run", **QUICK)
    for _ in range(2):
        command = [sys.executable, "-m", "inrkit", "render", "run", "frames", "--shape", "3,8,8"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "frames is a folder" in done.stderr
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == [f"frame-{i}.png" for i in range(3)]
    assert not list(tmp_path.glob(".*"))


# What cannot be used


@pytest.mark.parametrize("suffix", [".gif", ".mp4", ".apng", ".npy"])
@pytest.mark.parametrize("damage", ["words", "half", "head", "flipped"])
def test_a_damaged_file_is_a_one_line_error(tmp_path, suffix, damage, capfd):
    path = tmp_path / f"damaged{suffix}"
    video().write(path, noise(8, 32, 32, 3), {"seconds": 0.8})
    content = path.read_bytes()
    path.write_bytes(
        {
            "words": b"these are words and no pixels\n" * 40,
            "half": content[: len(content) // 2],
            "head": content[:12],
            "flipped": content[:8] + bytes(byte ^ 0xFF for byte in content[8:400]) + content[400:],
        }[damage]
    )
    refused(path)
    assert capfd.readouterr() == ("", "")


def test_of_a_video_that_is_damaged_somewhere_the_other_frames_are_read(tmp_path):
    path, frames = tmp_path / "damaged.mov", noise(8, 32, 32, 3)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb24"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for start, size in places[3:4]:
        content[start : start + size] = bytes(size)
    path.write_bytes(content)
    dataset = video().read(path)
    assert any("damaged (packets: 1, frames: 0)" in note for note in dataset.metadata["notes"])
    np.testing.assert_array_equal(stored(dataset), np.delete(frames, 3, axis=0)[[0, 1, 2, 2, 3, 4, 5, 6]])
    for start, size in places:
        content[start : start + size] = bytes(size)
    path.write_bytes(content)
    refused(path)


def test_a_file_of_sound_alone_is_a_one_line_error(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    refused(path, "has no video in it")


@pytest.mark.parametrize("shape", [(4, 6, 6), (4, 6, 6, 5), (4, 0, 6, 3), (4, 6, 6, 3, 2)])
def test_an_array_of_an_impossible_shape_is_a_one_line_error(tmp_path, shape):
    np.save(tmp_path / "clip.npy", np.zeros(shape, np.uint8))
    refused(tmp_path / "clip.npy", "channels")


def test_what_a_format_cannot_hold_names_one_that_can(tmp_path):
    with pytest.raises(ConfigError, match=r"'\.xyz'; choose one of: \.gif"):
        video().write(tmp_path / "out.xyz", noise(2, 6, 6, 3), {})
    for out in ("out.gif", "out.mp4", "out.apng", "out"):
        with pytest.raises(ConfigError, match=r"cannot hold float32; choose \.npy"):
            video().write(tmp_path / out, np.zeros((2, 6, 6, 3), np.float32), {})
    with pytest.raises(ConfigError, match=r"\.mp4 cannot hold transparency; choose \.apng"):
        video().write(tmp_path / "out.mp4", noise(2, 6, 6, 4), {})
    for suffix in (".gif", ".mp4"):
        with pytest.raises(ConfigError, match=r"cannot hold 70000×1 pixels.*choose \.apng"):
            video().write(tmp_path / f"out{suffix}", noise(2, 1, 70000, 3), {})


def test_without_pyav_a_video_says_what_to_install_and_a_gif_is_read(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"anything")
    video().sample(tmp_path / "clip.gif")
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from pathlib import Path\n"
        "from inrkit import MODALITIES\n"
        "plugin = MODALITIES.get('video')\n"
        "print(plugin(plugin.Options()).read(Path('clip.gif')).grid_shape)\n"
        "sys.argv = ['inrkit', 'fit', 'clip.mp4']\n"
        "import inrkit.cli; inrkit.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "(12, 48, 48)\n")
    assert "clip.mp4 is a video of a kind that needs: pip install 'inrkit[video]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("suffix", "longest"), [(".gif", 655.35), (".apng", 65535.0)])
def test_a_frame_that_is_shown_too_long_is_shown_as_long_as_can_be(tmp_path, suffix, longest):
    frames = noise(3, 8, 8, 3)
    about = {"shown": [1, 1, 1], "durations": [1e6, 70.001, 2.0], "seconds": 1e6 + 72.001, "size": [8, 8]}
    video().write(tmp_path / f"long{suffix}", frames, about)
    with Pillow.open(tmp_path / f"long{suffix}") as opened:
        shown = [frame.info["duration"] / 1000 for frame in ImageSequence.Iterator(opened)]
    earlier = [65.535, 65.535, 2.0]  # of Pillow 11
    assert shown in (pytest.approx([longest, 70.0, 2.0]), *[pytest.approx(earlier)] * (suffix == ".apng"))
