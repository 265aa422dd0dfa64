"""Audio: what libsndfile writes is read in its own precision, and what is written reads back at the right rate."""

import json
import math
import struct
import subprocess
import sys

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio, signal_noise_ratio

import inrkit
from inrkit import METRICS, MODALITIES, ConfigError, DataError
from inrkit.evaluation.evaluate import evaluate
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.signal import Signal
from inrkit.signals.transforms import Identity

QUICK = ["train.steps=2", "network.hidden_features=8", "network.hidden_layers=1"]
RATE = 8000
STORED = {
    "PCM_S8": np.int8,
    "PCM_U8": np.int8,
    "PCM_16": np.int16,
    "PCM_24": np.int32,
    "PCM_32": np.int32,
    "FLOAT": np.float32,
    "DOUBLE": np.float64,
}
LOSSLESS = [
    (suffix, subtype)
    for suffix, subtypes in {
        ".wav": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"),
        ".flac": ("PCM_S8", "PCM_16", "PCM_24"),
        ".aiff": ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"),
        ".aif": ("PCM_16",),
    }.items()
    for subtype in subtypes
]


def audio(**options):
    plugin = MODALITIES.get("audio")
    return plugin(plugin.Options(**options))


def noise(count=2000, channels=1, seed=0):
    """(count, channels) float64 within ±0.9."""
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (count, channels))


def tone(count=RATE, frequency=200.0, rate=RATE):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(count) / rate))[:, None]


def saved(path, samples=None, rate=RATE, subtype=None, container=None):
    container = container or ("AIFF" if path.suffix == ".aif" else None)
    soundfile.write(path, noise() if samples is None else samples, rate, subtype, format=container)
    return path


def known_in(dataset):
    """(*grid_shape) bool; True where a value is known."""
    known = np.zeros(dataset.grid_shape, dtype=bool)
    known.flat[slice(None) if dataset.known is None else dataset.known.numpy()] = True
    return known


def values(dataset):
    return dataset.values.numpy().reshape(*dataset.grid_shape, dataset.channels)


def decoded(path, dtype=np.float64):
    return soundfile.read(path, dtype=np.dtype(dtype).name, always_2d=True)[0]


# Reading


@pytest.mark.parametrize(("suffix", "subtype"), LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_samples_are_read_in_the_precision_of_the_file(tmp_path, suffix, subtype, channels):
    path = saved(tmp_path / f"sound{suffix}", noise(channels=channels), subtype=subtype)
    dataset = audio().read(path)
    dtype = STORED[subtype]
    assert dataset.dtype == dtype
    assert dataset.grid_shape == (2000,)
    full = 1 if np.dtype(dtype).kind == "f" else 2 ** (8 * np.dtype(dtype).itemsize - 1)
    np.testing.assert_array_equal(values(dataset) / full, decoded(path))


@pytest.mark.parametrize(("suffix", "container"), [(".ogg", "OGG"), (".mp3", "MP3")])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_formats_are_read_as_float32(tmp_path, suffix, container, channels):
    path = saved(tmp_path / f"sound{suffix}", np.tile(tone(), channels), container=container)
    dataset = audio().read(path)
    assert dataset.dtype == np.float32
    np.testing.assert_array_equal(values(dataset), decoded(path, np.float32))


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_telephone_formats_are_read_as_the_sixteen_bits_that_they_decode_to(tmp_path, subtype):
    path = saved(tmp_path / "call.wav", tone(1600), subtype=subtype)
    np.testing.assert_array_equal(values(audio().read(path)), decoded(path, np.int16))


@pytest.mark.parametrize("container", ["WAVEX", "RF64", "W64", "CAF", "AU", "NIST"])
def test_what_a_file_is_counts_not_what_it_is_called(tmp_path, container):
    path = saved(tmp_path / "sound.wav", container=container, subtype="PCM_16")
    np.testing.assert_array_equal(values(audio().read(path)), decoded(path, np.int16))


@pytest.mark.parametrize("rate", [1, 8000, 11025, 44100, 192000])
def test_any_rate_is_read_and_coordinates_are_seconds(tmp_path, rate):
    dataset = audio().read(saved(tmp_path / "sound.wav", noise(100), rate))
    seconds = dataset.coordinates(slice(0, 100)).double().numpy() @ dataset.affine[:, :1].T + dataset.affine[:, 1]
    np.testing.assert_allclose(seconds[:, 0], np.arange(100) / rate, atol=1e-5 / rate * 100)


@pytest.mark.parametrize(("suffix", "subtype"), [(".wav", "PCM_16"), (".wav", "PCM_24"), (".flac", "PCM_16")])
@settings(max_examples=15, deadline=None)
@given(first=st.integers(0, 999), count=st.one_of(st.none(), st.integers(1, 1500)))
def test_offset_and_duration_select_samples(tmp_path_factory, suffix, subtype, first, count):
    path = tmp_path_factory.getbasetemp() / f"parts-{subtype}{suffix}"
    if not path.exists():
        saved(path, noise(1000, 2), subtype=subtype)
    part = audio(offset=first / RATE, duration=None if count is None else count / RATE).read(path)
    stop = None if count is None else first + count
    np.testing.assert_array_equal(values(part), values(audio().read(path))[first:stop])
    # The first sample keeps its time.
    start = part.coordinates(slice(0, 1)).double().numpy() @ part.affine[:, :1].T + part.affine[:, 1]
    assert float(start[0, 0]) == pytest.approx(first / RATE, abs=1e-6)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_32", "FLOAT", "DOUBLE"])
def test_plain_wav_stays_on_disk(tmp_path, monkeypatch, subtype):
    path = saved(tmp_path / "sound.wav", noise(channels=2), subtype=subtype)
    expected = decoded(path, STORED[subtype])

    def read(*_, **__):
        raise AssertionError("the samples were decoded")

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    np.testing.assert_array_equal(values(audio().read(path)), expected)


def test_reading_leaves_the_file_as_it_is(tmp_path):
    path = saved(tmp_path / "sound.wav")
    before = path.read_bytes()
    audio().read(path).values.numpy()[:] = 0
    assert path.read_bytes() == before


def chunk(name, body):
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
@pytest.mark.parametrize(
    ("riff", "data"), [(0, 0), (36, 0), (2**32 - 1, 2**32 - 1), (2**31 - 1, 2**31 - 4096), (2**32 - 1, 2**31 - 37)]
)
def test_a_wav_written_to_a_pipe_has_no_length_in_its_header_and_is_read_to_its_end(tmp_path, subtype, riff, data):
    path = saved(tmp_path / "sound.wav", subtype=subtype)
    expected = decoded(path)
    content = bytearray(path.read_bytes())
    place = content.find(b"data")
    content[4:8], content[place + 4 : place + 8] = struct.pack("<I", riff), struct.pack("<I", data)
    path.write_bytes(content)
    dataset = audio().read(path)
    full = 1 if dataset.dtype.kind == "f" else 2 ** (8 * dataset.dtype.itemsize - 1)
    np.testing.assert_array_equal(values(dataset) / full, expected)
    assert audio(offset=0.1).read(path).grid_shape == (1200,)


def test_an_rf64_written_to_a_pipe_is_read_to_its_end(tmp_path):
    path = saved(tmp_path / "sound.wav", container="RF64", subtype="PCM_24")
    expected = decoded(path)
    content = bytearray(path.read_bytes())
    place = content.find(b"ds64")
    content[place + 8 : place + 24] = bytes(16)
    path.write_bytes(content)
    np.testing.assert_array_equal(values(audio().read(path)) / 2**31, expected)


def test_chunks_of_odd_length_before_and_after_the_samples_are_passed_over(tmp_path):
    path = tmp_path / "sound.wav"
    samples = (np.arange(101) * 2).astype(np.uint8)
    form = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, RATE, 1, 8))
    rest = chunk(b"data", samples.tobytes()) + chunk(b"LIST", b"INFO")
    body = b"WAVE" + chunk(b"junk", b"abc") + form + rest
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    np.testing.assert_array_equal(values(audio().read(path))[:, 0], samples.astype(int) - 128)
    path.write_bytes(b"RIFF" + bytes(4) + b"WAVE" + form + chunk(b"data", b"") + chunk(b"LIST", b"INFO"))
    read_fails(path, "holds 0 samples")


def test_a_flac_written_to_a_pipe_is_read_to_its_end(tmp_path):
    path = saved(tmp_path / "sound.flac", noise(100_000), subtype="PCM_16")
    expected = decoded(path, np.int16)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that count samples (RFC 9639, 8.2)
    content[22:26] = bytes(4)
    path.write_bytes(content)
    np.testing.assert_array_equal(values(audio().read(path)), expected)
    np.testing.assert_array_equal(values(audio(offset=1, duration=2).read(path)), expected[RATE : 3 * RATE])


def mp3(path, bit_rate=None):
    """A second at 44,100 samples a second; its count of samples is taken out again."""
    with av.open(str(path), "w") as container:
        quality = {"flags": "+qscale", "global_quality": "236"}  # rather than a bit rate
        options = quality if bit_rate is None else {"b": str(bit_rate)}
        stream = container.add_stream("libmp3lame", rate=44_100, layout="mono", options=options)
        frame = av.AudioFrame.from_ndarray(chord(1).T.astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44_100
        for part in av.AudioResampler(format="fltp", frame_size=1152).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"Info", bytes(4)).replace(b"Xing", bytes(4)))
    return path


def test_an_mp3_without_a_count_of_its_samples_is_read_to_its_end(tmp_path):
    path = mp3(tmp_path / "sound.mp3", 128_000)
    assert abs(len(audio().read(path)) - 44_100) <= 3 * 1152  # with the encoder's delay, and whole frames
    refused_if_longer_than_guessed = mp3(tmp_path / "varies.mp3")
    read_fails(refused_if_longer_than_guessed, "does not say how long it is, and its bit rate varies")


# Speakers


FREQUENCIES = (200, 400, 800, 50, 1600, 3200, 600, 1000)


def chord(channels):
    """A second, each channel at a frequency of its own."""
    times = np.arange(44_100) / 44_100
    return np.stack([0.5 * np.sin(2 * np.pi * each * times) for each in FREQUENCIES[:channels]], axis=1)


def frequencies(samples):
    spectrum = np.abs(np.fft.rfft(samples[:44_000].T * np.hanning(len(samples[:44_000]))))
    return [round(float(peak)) for peak in spectrum.argmax(axis=1) * 44_100 / len(samples[:44_000])]


def as_a_player_hears_it(path):
    """(T, C) samples and the names of the channels, as FFmpeg has them: in the order of a WAV."""
    with av.open(str(path)) as container:
        packed = av.AudioResampler(format="flt")
        parts = [part for frame in container.decode(audio=0) for part in packed.resample(frame)]
        channels = len(parts[0].layout.channels)
        samples = np.concatenate([part.to_ndarray().reshape(-1, channels) for part in parts])
        return samples, parts[0].layout.name


def for_speakers(path, channels, mask):
    """A WAV whose header names the speakers."""
    saved(path, chord(channels), 44_100, "PCM_16", "WAVEX")
    content = bytearray(path.read_bytes())
    place = content.find(b"fmt ") + 28
    content[place : place + 4] = struct.pack("<I", mask)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("channels", "mask", "name"),
    [
        (6, 0x3F, "5.1"),
        (6, 0x60F, "5.1(side)"),
        (8, 0x63F, "7.1"),
        (4, 0x107, "4.0"),
        (3, 0xB, "2.1"),
        (4, 0x33, "quad"),
    ],
)
def test_the_speakers_of_a_wav_travel_into_what_is_written(tmp_path, channels, mask, name):
    dataset = audio().read(for_speakers(tmp_path / "film.wav", channels, mask))
    audio().write(tmp_path / "copy.wav", values(dataset), dataset.metadata)
    samples, layout = as_a_player_hears_it(tmp_path / "copy.wav")
    assert layout == name
    np.testing.assert_allclose(frequencies(samples), FREQUENCIES[:channels], atol=2)
    assert audio().read(tmp_path / "copy.wav").metadata["speakers"] == mask


@pytest.mark.parametrize("suffix", [".flac", ".ogg"])
@pytest.mark.parametrize(("channels", "mask"), [(3, 0x7), (5, 0x37), (6, 0x3F), (6, 0x60F), (7, 0x70F), (8, 0x63F)])
def test_each_channel_comes_from_its_speaker_in_a_format_with_an_order_of_its_own(tmp_path, suffix, channels, mask):
    dataset = audio().read(for_speakers(tmp_path / "film.wav", channels, mask))
    path = tmp_path / f"copy{suffix}"
    audio().write(path, values(dataset), dataset.metadata)
    np.testing.assert_allclose(frequencies(as_a_player_hears_it(path)[0])[:3], FREQUENCIES[:3], atol=2)
    again = audio().read(path)
    # An encoder keeps little above 120 Hz of the speaker for effects, which is what has 50 Hz here.
    np.testing.assert_allclose(frequencies(values(again)), frequencies(as_a_player_hears_it(path)[0]), atol=2)
    np.testing.assert_allclose(frequencies(values(again)), FREQUENCIES[:channels], atol=2)


@pytest.mark.parametrize(("suffix", "channels", "mask"), [(".flac", 4, 0x107), (".ogg", 3, 0xB), (".aiff", 6, 0x3F)])
def test_a_format_that_cannot_say_which_speakers_is_refused(tmp_path, suffix, channels, mask):
    dataset = audio().read(for_speakers(tmp_path / "film.wav", channels, mask))
    with pytest.raises(ConfigError, match=rf"\{suffix} cannot say which {channels} speakers .* choose \.wav"):
        audio().write(tmp_path / f"copy{suffix}", values(dataset), dataset.metadata)


# Samples that are not known


def test_samples_that_are_not_known_are_left_out(tmp_path):
    samples = noise(400).astype(np.float32)
    samples[100:150] = np.nan
    dataset = audio().read(saved(tmp_path / "sound.wav", samples, subtype="FLOAT"))
    known = ~np.isnan(samples[:, 0])
    np.testing.assert_array_equal(values(dataset)[known], samples[known])
    assert known_in(dataset).tolist() == known.tolist()
    assert dataset.extent == (samples[known].min(), samples[known].max())
    assert dataset.metadata["notes"] == ["12.5 % of the samples are not known; the field fills them in"]


def test_a_mask_says_which_samples_are_known(tmp_path):
    path = saved(tmp_path / "sound.wav", noise(400), subtype="PCM_16")
    known = np.ones(400, dtype=bool)
    known[10:20] = False
    np.save(tmp_path / "mask.npy", known)
    dataset = audio(mask=str(tmp_path / "mask.npy")).read(path)
    assert known_in(dataset).tolist() == known.tolist()
    part = audio(mask=str(tmp_path / "mask.npy"), offset=15 / RATE, duration=10 / RATE).read(path)
    assert known_in(part).tolist() == [False] * 5 + [True] * 5
    assert audio(mask=str(tmp_path / "mask.npy"), offset=100 / RATE).read(path).known is None
    np.save(tmp_path / "mask.npy", known[:300])
    with pytest.raises(DataError, match=r"mask\.npy, the mask, has shape \(300,\) and the signal \(400,\)"):
        audio(mask=str(tmp_path / "mask.npy")).read(path)
    run = inrkit.fit(path, out=tmp_path / "run", overrides=QUICK)
    assert run.metrics["snr"] is not None


@pytest.mark.parametrize("name", ["snr", "si_sdr", "lsd"])
def test_what_is_not_known_is_not_rated(name):
    target = torch.randn(5000, 1)
    prediction = target + 0.1 * torch.randn(5000, 1)
    weights = torch.ones(5000)
    weights[1000:2000] = 0
    spoilt = prediction.clone()
    spoilt[1000:2000] += 100
    metric = METRICS.get(name)
    ratings = []
    for guess in (prediction, spoilt):
        rating = metric((5000,), 1, 2.0)
        rating.update(guess, target, weights)
        ratings.append(rating.compute())
    assert ratings[0] == pytest.approx(ratings[1])


def test_neighbours_in_ten_minutes_of_sound_have_coordinates_of_their_own():
    count = 10 * 60 * 44_100
    dataset = CoordinateDataset(np.broadcast_to(np.zeros((1, 1), dtype=np.int8), (count, 1)))
    for start in (0, count // 4, count // 2, count - 5000):
        coordinates = dataset.coordinates(slice(start, start + 5000))
        assert (coordinates.diff(dim=0) > 0).all()


# Writing


@pytest.mark.parametrize(("suffix", "subtype"), LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_formats_come_back_with_rate_precision_and_samples(tmp_path, suffix, subtype, channels):
    path = saved(tmp_path / f"sound{suffix}", noise(channels=channels), 22050, subtype)
    dataset = audio().read(path)
    copy = tmp_path / f"copy{suffix}"
    audio().write(copy, values(dataset), dataset.metadata)
    one, other = soundfile.info(path), soundfile.info(copy)
    assert (one.samplerate, one.subtype, one.format, one.channels) == (
        other.samplerate,
        other.subtype,
        other.format,
        other.channels,
    )
    np.testing.assert_array_equal(decoded(copy), decoded(path))


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [(".wav", ".wav"), (".flac", ".flac"), (".aiff", ".aiff"), (".ogg", ".wav"), (".mp3", ".wav")],
)
def test_a_reconstruction_keeps_a_lossless_format_and_gives_a_lossy_one_up(tmp_path, suffix, expected):
    dataset = audio().read(saved(tmp_path / f"sound{suffix}", tone()))
    assert audio().reconstruction_suffix(dataset.metadata, dataset.dtype) == expected
    copy = tmp_path / f"copy{expected}"
    audio().write(copy, values(dataset), dataset.metadata)
    np.testing.assert_array_equal(values(audio().read(copy)), values(dataset))


@pytest.mark.parametrize("suffix", [".ogg", ".mp3"])
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.float32, np.float64])
def test_lossy_formats_are_written_nearly_as_they_were(tmp_path, suffix, dtype):
    sound = np.tile(tone(3 * RATE), 2)
    full = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    path = tmp_path / f"sound{suffix}"
    audio().write(path, (sound * full).astype(dtype), {"rate": RATE, "samples": len(sound), "subtype": "PCM_16"})
    back = decoded(path)
    assert soundfile.info(path).samplerate == RATE
    assert np.sqrt(np.square(back[: len(sound)] - sound[: len(back)]).mean()) < 0.05


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff", ".ogg"])
def test_samples_beyond_full_scale_do_not_wrap_around(tmp_path, suffix):
    loud = 3 * tone().astype(np.float32)
    path = tmp_path / f"sound{suffix}"
    audio().write(path, loud, {"rate": RATE, "samples": len(loud), "subtype": "FLOAT"})
    back = decoded(path)
    if suffix in (".wav", ".aiff"):
        np.testing.assert_array_equal(back, loud)  # a float format has no full scale
    else:
        assert (back * loud > -0.05).all()
        assert np.abs(back).max() < 1.2


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_flac_rounds_to_twenty_four_bits(tmp_path, dtype):
    full = 1.0 if dtype is np.float32 else 2.0**31
    exact = np.array([[-1.0], [-0.5], [0.3], [0.999], [1 - 2**-22]]) * full
    if dtype is np.int32:
        exact = np.append(exact, [[2**31 - 1]], axis=0)
    path = tmp_path / "sound.flac"
    audio().write(path, exact.astype(dtype), {"rate": RATE, "samples": len(exact), "subtype": "PCM_32"})
    steps = np.abs(decoded(path) - exact.astype(dtype) / full) * 2**23
    assert steps.max() <= (1 if dtype is np.int32 else 0.5) + 1e-6


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 300_000), samples=st.integers(1, 300_000), rate=st.integers(1, 192_000))
def test_the_rate_written_keeps_the_duration(tmp_path_factory, count, samples, rate):
    assume(rate * count / samples < 2**31 - 1)
    path = tmp_path_factory.getbasetemp() / "rate.wav"
    audio().write(path, np.zeros((count, 1), np.int8), {"rate": rate, "samples": samples, "subtype": "PCM_U8"})
    info = soundfile.info(path)
    assert info.frames == count
    assert info.samplerate == max(1, round(rate * count / samples))


def test_a_rate_beyond_what_a_header_can_say_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="samples a second"):
        audio().write(tmp_path / "a.wav", np.zeros((9, 1)), {"rate": 2**31, "samples": 9, "subtype": "FLOAT"})


def test_long_sounds_are_written_to_vorbis_whole(tmp_path):
    long = np.tile(tone(rate=44100), (120, 1)).astype(np.float32)
    path = tmp_path / "long.ogg"
    audio().write(path, long, {"rate": 44100, "samples": len(long), "subtype": "VORBIS"})
    assert soundfile.info(path).frames == len(long)


@pytest.mark.parametrize("name", ["sound.png", "sound", "sound.wav.txt"])
def test_an_unknown_suffix_is_an_error_that_lists_the_known(tmp_path, name):
    with pytest.raises(ConfigError, match=r"choose one of: \.wav, \.flac"):
        audio().write(tmp_path / name, np.zeros((4, 1)), {"rate": RATE, "samples": 4, "subtype": "FLOAT"})


@pytest.mark.parametrize(("suffix", "channels", "rate"), [(".flac", 9, RATE), (".mp3", 3, RATE), (".mp3", 1, 96000)])
def test_what_a_format_cannot_hold_is_an_error_that_names_one_that_can(tmp_path, suffix, channels, rate):
    sound = np.zeros((100, channels), np.int16)
    with pytest.raises(ConfigError, match=rf"cannot hold {channels} channels at {rate} .*choose \.wav"):
        audio().write(tmp_path / f"sound{suffix}", sound, {"rate": rate, "samples": 100, "subtype": "PCM_16"})
    with pytest.raises(FileNotFoundError):
        audio().write(tmp_path / "nowhere" / "a.wav", sound, {"rate": rate, "samples": 100, "subtype": "PCM_16"})


# Fitting


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_stereo_comes_back_as_stereo(tmp_path, suffix):
    path = saved(tmp_path / f"sound{suffix}", np.tile(tone(2000), 2))
    run = inrkit.fit(path, out=tmp_path / "run", overrides=QUICK)
    assert run.result["modality"] == "audio"
    info, original = soundfile.info(run.reconstruction), soundfile.info(path)
    assert (info.channels, info.frames, info.samplerate) == (2, original.frames, original.samplerate)


def test_another_rate_has_the_same_duration(tmp_path):
    path = saved(tmp_path / "sound.flac", tone(2000))
    run = inrkit.fit(path, out=tmp_path / "run", overrides=QUICK)
    field = run.field
    for shape, scale, rate in ((None, 2.0, 16000), (None, 0.5, 4000), ((500,), None, 2000), ((11025,), None, 44100)):
        out = tmp_path / "other.wav"
        field.modality.export(out, field, shape, scale)
        info = soundfile.info(out)
        assert info.samplerate == rate
        assert info.duration == 0.25


def test_a_field_is_called_with_seconds_of_the_file(tmp_path):
    path = saved(tmp_path / "sound.wav", tone(2000))
    run = inrkit.fit(path, out=tmp_path / "run", overrides=[*QUICK, "modality.offset=0.1", "modality.duration=0.05"])
    field = run.field
    seconds = (800 + np.arange(400))[:, None] / RATE
    np.testing.assert_allclose(field(seconds, physical=True), field.render(dtype=np.float32), atol=2)
    assert soundfile.info(run.reconstruction).frames == 400


def silence(count):
    return np.zeros((count, 1))


ODD = {
    "silence": silence(500),
    "a constant": np.full((500, 1), 0.25),
    "one sample": np.full((1, 1), 0.25),
    "one silent sample": silence(1),
    "two samples": np.array([[0.5], [-0.5]]),
    "clipped": np.clip(noise(500) * 4, -1, 1),
    "quiet": noise(500) * 2**-12,
    "offset": noise(500) * 0.01 + 0.8,
}


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "FLOAT"])
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("preset", ["audio", "audio-paper"])
def test_odd_sounds_are_fitted(tmp_path, name, subtype, preset):
    path = saved(tmp_path / "sound.wav", ODD[name], subtype=subtype)
    overrides = [*QUICK, f"base={preset}", "metrics=[psnr,snr,si_sdr,lsd,pesq,stoi]"]
    run = inrkit.fit(path, out=tmp_path / "run", overrides=overrides)
    assert run.result["status"] == "done"
    assert "psnr" in run.metrics
    assert "lsd" in run.metrics
    assert not any(math.isnan(value) for value in run.metrics.values())
    json.loads((run.folder / "result.json").read_text())


def test_silence_has_no_ratio_to_noise(tmp_path):
    run = inrkit.fit(saved(tmp_path / "silence.wav", silence(500)), out=tmp_path / "run", overrides=QUICK)
    assert not {"snr", "si_sdr"} & run.metrics.keys()


def test_first_omega_zero_follows_the_signal_and_is_kept_in_the_field(tmp_path):
    omegas = []
    for frequency in (50, 400):
        path = saved(tmp_path / f"{frequency}.wav", tone(frequency=frequency))
        run = inrkit.fit(path, out=tmp_path / str(frequency), overrides=[*QUICK, "network.first_omega=0"])
        omegas.append(run.field.network.options.first_omega)
    assert 30 <= omegas[0] < omegas[1]


def test_the_sample_is_a_second_of_sound_and_the_same_in_every_process(tmp_path):
    path = tmp_path / "sample.wav"
    audio().sample(path)
    info = soundfile.info(path)
    assert (info.duration, info.channels, info.subtype) == (1.0, 1, "PCM_16")
    assert np.abs(decoded(path)).max() == pytest.approx(0.8, abs=0.01)
    again = tmp_path / "again.wav"
    code = "from inrkit import MODALITIES; from pathlib import Path; P = MODALITIES.get('audio')\n"
    code += f"P(P.Options()).sample(Path({str(again)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert again.read_bytes() == path.read_bytes()


# Metrics


def pair(count=9000, channels=2, error=0.05, seed=0):
    random = torch.Generator().manual_seed(seed)
    target = torch.randn(count, channels, generator=random) + torch.tensor([0.3, -0.2, 0.0][:channels])
    return target + error * torch.randn(count, channels, generator=random) + 0.1 * target.roll(1, 0), target


def measure(name, prediction, target, rows=None, peak=2.0):
    metric = METRICS.get(name)(tuple(target.shape[:1]), target.shape[1], peak)
    for first in range(0, len(target), rows or len(target)):
        metric.update(prediction[first : first + (rows or len(target))], target[first : first + (rows or len(target))])
    return metric.compute()


@pytest.mark.parametrize("name", ["snr", "si_sdr", "lsd"])
@pytest.mark.parametrize("rows", [1, 700, 2048, 2049, 5000])
@pytest.mark.parametrize("count", [40, 2048, 2100, 7777])
def test_slab_by_slab_equals_the_whole_sound(name, rows, count):
    if rows == 1 and count > 100:
        rows = 13
    prediction, target = pair(count)
    assert measure(name, prediction, target, rows) == pytest.approx(measure(name, prediction, target), abs=1e-4)


def test_snr_equals_its_definition():
    prediction, target = pair()
    expected = signal_noise_ratio(prediction.double().flatten(), target.double().flatten())
    assert measure("snr", prediction, target, 1000) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("error", [1e-5, 0.05, 1.0])
def test_si_sdr_equals_its_definition(error):
    prediction, target = pair(channels=1, error=error)
    expected = scale_invariant_signal_distortion_ratio(prediction.double().T, target.double().T, zero_mean=True)
    assert measure("si_sdr", prediction, target, 1000) == pytest.approx(float(expected), abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.01, 100), offset=st.floats(-5, 5))
def test_si_sdr_knows_no_scale_and_no_offset(scale, offset):
    prediction, target = pair(1000)
    moved = prediction.double() * scale + offset
    assert measure("si_sdr", moved, target) == pytest.approx(measure("si_sdr", prediction, target), abs=1e-3)


def test_si_sdr_of_a_prediction_that_shares_nothing_is_low_and_finite():
    _, target = pair(1000)
    assert -400 < measure("si_sdr", torch.zeros_like(target), target) < -100


def test_lsd_equals_its_definition():
    prediction, target = pair(6000)
    window = np.hanning(2049)[:-1]
    distances = []
    for channel in range(2):
        frames = []
        for sound in (prediction, target):
            padded = np.concatenate([sound[:, channel].double().numpy() / 2.0, np.zeros(2048)])
            starts = range(0, 512 * math.ceil((6000 - 2048) / 512) + 1, 512)
            spectra = [np.abs(np.fft.rfft(padded[first : first + 2048] * window)) for first in starts]
            frames.append(20 * np.log10(np.maximum(np.array(spectra) * 4 / window.sum(), 1e-6)))
        distances.append(np.sqrt(np.square(frames[0] - frames[1]).mean(axis=1)))
    assert measure("lsd", prediction, target, 1000) == pytest.approx(np.mean(distances), rel=1e-4)


@pytest.mark.parametrize("hole", [slice(0, 10), slice(3000, 3400), slice(5990, 6000)])
def test_lsd_of_a_sound_with_a_hole_is_over_the_frames_that_see_none_of_it(hole):
    prediction, target = pair(6000)
    whole = [METRICS.get("lsd")((6000,), 2, 2.0) for _ in range(2)]
    known = torch.ones(6000, dtype=torch.bool)
    known[hole] = False
    spoiled = torch.where(known[:, None], prediction, 9.0)
    whole[0].update_known(spoiled, target, None, known)
    for first, last in ((0, 2500), (2500, 6000)):
        whole[1].update_known(spoiled[first:last], target[first:last], None, known[first:last])
    starts = [first for first in range(0, 4097, 512) if known[first : first + 2048].all()]
    distances = []
    for first in starts:
        frame = METRICS.get("lsd")((2048,), 2, 2.0)
        padded = [torch.nn.functional.pad(part, (0, 0, 0, 2048))[first : first + 2048] for part in (prediction, target)]
        frame.update(*padded)
        distances.append(frame.compute())
    assert 0 < len(starts) < 9
    for metric in whole:
        assert metric.compute() == pytest.approx(np.mean(distances), rel=1e-4)


@pytest.mark.parametrize(("name", "best"), [("snr", math.inf), ("si_sdr", math.inf), ("lsd", 0.0)])
def test_equal_sounds_are_rated_best(name, best):
    _, target = pair(3000)
    assert measure(name, target, target) == best


@pytest.mark.parametrize("name", ["snr", "si_sdr", "lsd"])
def test_a_prediction_that_is_not_finite_is_not_rated(name):
    prediction, target = pair(3000)
    prediction[7] = math.nan
    assert math.isnan(measure(name, prediction, target))


class Identically(torch.nn.Module):
    """Predicts what a dataset holds, plus noise."""

    def __init__(self, dataset, error):
        super().__init__()
        self.dataset, self.error = dataset, error

    def forward(self, coordinates):
        count = len(self.dataset)
        indices = ((coordinates[:, 0].double() * count + count - 1) / 2).round().long()
        random = torch.Generator().manual_seed(0)
        return self.dataset.stored(indices).float() + self.error * torch.randn(count, 1, generator=random)[indices]


@pytest.mark.parametrize("rate", [8000, 16000])
def test_speech_metrics_equal_their_libraries_and_use_the_file_s_rate(tmp_path, rate):
    from pesq import pesq
    from pystoi import stoi

    random = np.random.default_rng(0)
    time = np.arange(2 * rate) / rate
    syllables = np.sin(2 * np.pi * 3 * time) ** 2 * sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 12))
    sound = 0.2 * syllables + 0.001 * random.standard_normal(len(time))
    dataset = audio().read(saved(tmp_path / "speech.wav", sound, rate, "DOUBLE"))
    network = Identically(dataset, 0.02)
    found = evaluate(network, Signal(dataset, Identity()), ["pesq", "stoi"], 1000)
    degraded = network(dataset.coordinates(slice(0, len(dataset))))[:, 0].double().numpy()
    mode = "nb" if rate == 8000 else "wb"
    assert found["pesq"] == pytest.approx(pesq(rate, sound, degraded, mode), abs=0.02)
    assert found["stoi"] == pytest.approx(stoi(sound, degraded, rate), abs=1e-4)


def test_pesq_says_which_rates_it_is_defined_at_before_anything_is_done(tmp_path):
    path = saved(tmp_path / "sound.wav", rate=44100)
    with pytest.raises(ConfigError, match="8000 and 16000 samples a second, and this signal has 44100"):
        inrkit.fit(path, out=tmp_path / "run", overrides=[*QUICK, "metrics=[psnr,pesq]"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "module"), [("pesq", "pesq"), ("stoi", "pystoi")])
def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install 'inrkit\[speech\]'"):
        inrkit.fit(saved(tmp_path / "a.wav"), out=tmp_path / "run", overrides=[*QUICK, f"metrics=[psnr,{name}]"])


# Bad input


def refused(path, tmp_path, *overrides):
    """What the command says of a file that cannot be used: one line, exit code 2."""
    words = ["fit", str(path), "--out", str(tmp_path / "run"), *QUICK, *overrides]
    done = subprocess.run([sys.executable, "-m", "inrkit", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()
    return done.stderr


def read_fails(path, said, **options):
    with pytest.raises(DataError, match=said) as raised:
        audio(**options).read(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff", ".ogg", ".mp3"])
@pytest.mark.parametrize("content", [b"hello, this is text\n" * 50, b"RIFF", b"\0" * 1000, b"RIFF\x24\0\0\0WAVEfmt "])
def test_bytes_that_are_no_audio_are_refused(tmp_path, capfd, suffix, content):
    path = tmp_path / f"sound{suffix}"
    path.write_bytes(content)
    read_fails(path, "is not audio that libsndfile reads|holds 0 samples")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff", ".ogg", ".mp3"])
def test_a_corrupt_header_is_refused(tmp_path, capfd, suffix):
    path = saved(tmp_path / f"sound{suffix}", tone())
    content = bytearray(path.read_bytes())
    content[:60] = np.random.default_rng(0).bytes(60)
    path.write_bytes(content)
    read_fails(path, "is not audio that libsndfile reads|is truncated")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff", ".ogg", ".mp3"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path, capfd, suffix, share):
    path = saved(tmp_path / f"sound{suffix}", noise(30_000))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    read_fails(path, "truncated|damaged")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("RF64", "PCM_16"), ("W64", "FLOAT"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("OGG", "OPUS"), ("WAV", "IMA_ADPCM")],
)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_of_a_rarer_format_is_refused(tmp_path, container, subtype, share):
    path = saved(tmp_path / "sound.wav", noise(30_000), container=container, subtype=subtype)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    read_fails(path, "truncated|damaged")


def test_audio_without_samples_is_refused(tmp_path):
    for suffix in (".wav", ".aiff"):
        read_fails(saved(tmp_path / f"empty{suffix}", np.zeros((0, 1))), "holds 0 samples")


def test_audio_without_channels_is_refused(tmp_path):
    path = saved(tmp_path / "sound.wav")
    content = bytearray(path.read_bytes())
    content[22:24] = struct.pack("<H", 0)
    path.write_bytes(content)
    read_fails(path, "Channel count is zero")


def test_an_offset_beyond_the_end_is_refused(tmp_path):
    path = saved(tmp_path / "sound.wav")
    read_fails(path, r"modality.offset is 0.25 s, and .* ends after 0.25 s", offset=0.25)


def test_what_is_refused_is_told_in_one_line(tmp_path):
    path = saved(tmp_path / "sound.wav")
    assert "modality.duration is -1.0; it must be above 0" in refused(path, tmp_path, "modality.duration=-1")
    text = tmp_path / "text.mp3"
    text.write_text("hello, this is text\n" * 50)
    assert "is not audio that libsndfile reads" in refused(text, tmp_path)


def test_samples_that_are_not_finite_are_refused(tmp_path):
    samples = noise(100)
    samples[42] = math.inf
    path = saved(tmp_path / "sound.wav", samples, subtype="FLOAT")
    with pytest.raises(DataError, match=r"sound\.wav.*index \(42\) is NaN or infinite"):
        inrkit.fit(path, out=tmp_path / "run", overrides=QUICK)


@pytest.mark.parametrize("rate", [(1 << 20) - 1, 524_288, 65_537])
def test_a_sound_is_written_where_its_own_format_cannot_hold_its_rate(tmp_path, rate):
    path = saved(tmp_path / "sound.flac", noise(), subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[18:21] = (rate << 4 | content[20] & 15).to_bytes(3, "big")  # STREAMINFO's 20 bits of the rate
    path.write_bytes(content)
    audio = MODALITIES.get("audio")
    reader = audio(audio.Options())
    dataset = reader.read(path)
    assert dataset.metadata["rate"] == rate
    suffix = reader.reconstruction_suffix(dataset.metadata, dataset.dtype)
    reader.write(tmp_path / f"again{suffix}", dataset.values.numpy(), dataset.metadata)
    assert soundfile.info(tmp_path / f"again{suffix}").samplerate == rate
