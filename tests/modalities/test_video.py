"""Videos: what Pillow and FFmpeg write is read as they read it, and what is written reads back."""

import subprocess
import sys

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageSequence

import inrkit
from inrkit import MODALITIES, ConfigError, DataError
from inrkit.modalities import video as videos
from inrkit.signals.modality import modality_of

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


def test_a_long_video_reads_no_more_than_is_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    values = brightening()
    video().write(path, values, {"seconds": 2.0})
    monkeypatch.setattr("inrkit.modalities.volume.available_memory", lambda: 5 * values[0].nbytes)
    refused(path, "memory", "modality.duration or modality.every")
    assert shown(video(duration=0.5).read(path)) == list(range(5))


# Folders


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
