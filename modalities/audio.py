"""Audio: everything that libsndfile reads, in the file's own sample precision.

Time is the only axis and the channels are the values; coordinates map to seconds.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import soundfile
import torch
from torch import Tensor

from inrkit.errors import ConfigError, DataError
from inrkit.evaluation.metrics import METRICS, Metric
from inrkit.plugins.options import option
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.lattice import cell_affine
from inrkit.signals.modality import MODALITIES, Modality

_BLOCK = 1 << 16
"""Samples that are decoded or encoded at a time; libsndfile overflows its stack on long blocks of Vorbis."""

# What libsndfile decodes a subtype to without loss. It gives 8 bits as 16 and 24 bits as 32, shifted to full scale.
_STORED: dict[str, type[np.generic]] = {
    "PCM_S8": np.int8,
    "PCM_U8": np.int8,
    "DPCM_8": np.int8,
    "PCM_24": np.int32,
    "PCM_32": np.int32,
    "DWVW_24": np.int32,
    "ALAC_20": np.int32,
    "ALAC_24": np.int32,
    "ALAC_32": np.int32,
    "FLOAT": np.float32,
    "DOUBLE": np.float64,
}
_LOSSY = ("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")
_MAPPED = ("PCM_16", "PCM_32", "FLOAT", "DOUBLE")

# Suffix: libsndfile's format, and its subtype for 8, 16, 24 and 32 bits, float32 and float64.
_WRITTEN: dict[str, tuple[str, tuple[str, str, str, str, str, str]]] = {
    ".wav": ("WAV", ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    ".flac": ("FLAC", ("PCM_S8", "PCM_16", "PCM_24", "PCM_24", "PCM_24", "PCM_24")),
    ".aif": ("AIFF", ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    ".aiff": ("AIFF", ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    ".ogg": ("OGG", ("VORBIS",) * 6),
    ".mp3": ("MP3", ("MPEG_LAYER_III",) * 6),
}
_LARGEST_WAV = (1 << 32) - (1 << 16)
"""Bytes of samples above which a WAV is written as RF64, whose lengths have 64 bits."""


@dataclass
class AudioOptions:
    offset: float = option(0.0, at_least=0)
    """Seconds to leave out at the start."""
    duration: float | None = option(None, above=0)
    """Seconds to read from there; null reads to the end."""


@MODALITIES.register("audio")
class Audio(Modality):
    """Sound on a 1-D lattice: (T, C) samples."""

    Options = AudioOptions
    operator = "laplacian"
    metrics = ("psnr", "snr", "si_sdr", "lsd")
    sample_suffix = ".wav"

    def read(self, path: Path) -> CoordinateDataset:
        with path.open("rb"):
            pass  # the system's own word where there is no file or no permission
        with _decoding(path), soundfile.SoundFile(path) as file:
            _check_whole(path, file)
            rate, subtype = file.samplerate, file.subtype
            start, count = self._span(path, file)
            values = _mapped(path, file)
            values = _decoded(path, file, start, count) if values is None else values[start : start + count]
            container = file.format
        affine = cell_affine((count,)) / rate
        affine[0, -1] += start / rate
        return CoordinateDataset(
            values,
            affine=affine,
            metadata={"rate": rate, "samples": count, "format": container, "subtype": subtype},
        )

    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        """Write (T, C) samples over the extent that was read, at the rate that follows from their number.

        The rate is rounded to whole samples a second. Integers keep their bits where the format has them, and
        become 24 bits in FLAC at most; samples beyond full scale saturate, except in a float format, which has no
        such limit.
        """
        suffix = path.suffix.lower()
        if suffix not in _WRITTEN:
            named = f"as '{suffix}'" if suffix else "without a suffix"
            raise ConfigError(f"audio is not written {named}; choose one of: {', '.join(_WRITTEN)}")
        container, subtypes = _WRITTEN[suffix]
        subtype = subtypes[_precision(values.dtype, metadata["subtype"])]
        if container == "WAV" and values.nbytes > _LARGEST_WAV:
            container = "RF64"
        count, channels = values.shape
        rate = max(1, round(metadata["rate"] * count / metadata["samples"]))
        try:
            file = soundfile.SoundFile(path, "w", rate, channels, subtype, format=container)
        except (soundfile.LibsndfileError, ValueError, OverflowError) as error:
            _raise_system_error(path)
            raise ConfigError(
                f"{suffix} cannot hold {channels} channels at {rate} samples a second ({_reason(error)}); choose .wav"
            ) from error
        try:
            with file:
                for first in range(0, count, _BLOCK):
                    file.write(_encoded(values[first : first + _BLOCK], subtype))
        except (soundfile.LibsndfileError, AssertionError) as error:  # both are how a full disk shows
            raise OSError(f"libsndfile stopped: {_reason(error)}") from error

    def reconstruction_suffix(self, metadata: dict[str, Any], dtype: np.dtype) -> str:
        if metadata["format"] == "FLAC":
            return ".flac"
        return ".aiff" if metadata["format"] == "AIFF" else ".wav"

    def sample(self, path: Path) -> None:
        melody = sample_melody()
        self.write(path, melody, {"rate": SAMPLE_RATE, "samples": len(melody), "subtype": "PCM_16"})

    def _span(self, path: Path, file: soundfile.SoundFile) -> tuple[int, int]:
        """First sample and number of samples that the options ask for."""
        rate, frames = file.samplerate, file.frames
        if frames < 1 or rate < 1:
            raise DataError(f"{path} holds {frames} samples at {rate} a second; check how it was written")
        start = round(self.options.offset * rate)
        if start >= frames:
            raise DataError(
                f"modality.offset is {self.options.offset:g} s, and {path} ends after {frames / rate:g} s; lower it"
            )
        count = frames - start
        if self.options.duration is not None:
            count = min(count, max(1, round(self.options.duration * rate)))
        return start, count


SAMPLE_RATE = 8000
"""Samples a second of `sample_melody`."""


def sample_melody() -> np.ndarray:
    """A second of a plucked string, six notes (Karplus and Strong 1983): (8000, 1) int16, always the same."""
    random = np.random.default_rng(7)
    sound = np.zeros(SAMPLE_RATE)
    for beat, frequency in enumerate((220.0, 277.2, 329.6, 440.0, 329.6, 277.2)):
        start = beat * SAMPLE_RATE // 6
        string = random.uniform(-1, 1, round(SAMPLE_RATE / frequency))
        for index in range(start, len(sound)):
            place = (index - start) % len(string)
            sound[index] += string[place]
            string[place] = 0.498 * (string[place] + string[(place + 1) % len(string)])
    return np.rint(sound / np.abs(sound).max() * 0.8 * 32767).astype(np.int16)[:, None]


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Make a DataError of what a damaged file makes libsndfile say, and keep what its decoders print to ourselves."""
    try:
        with _quiet_stderr():
            yield
    except MemoryError as error:
        raise DataError(f"{path} does not fit in memory; read a part of it with modality.duration=…") from error
    except soundfile.LibsndfileError as error:
        raise DataError(
            f"{path} is not audio that libsndfile reads, or is damaged ({_reason(error)}); "
            "check that it plays elsewhere"
        ) from error


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Silence the process's standard error: mpg123 prints its complaints there and cannot be told not to."""
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _reason(error: Exception) -> str:
    """libsndfile's word on what is wrong, in a few words."""
    said = getattr(error, "error_string", str(error)).removeprefix("Error : ").strip().rstrip(".")
    if not said or said.startswith("File does not exist"):  # its MP3 decoder's word for bytes that are no MP3
        return "Format not recognised"
    return said


def _check_whole(path: Path, file: soundfile.SoundFile) -> None:
    """libsndfile shortens a WAV, AIFF or Ogg whose end is missing, and only its log tells."""
    for said, found in re.findall(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE):
        # A program that writes to a pipe cannot go back to fill in the length: it leaves the largest number, or 0.
        if int(found) < int(said) < 0x7FFFFFFF - 1024:
            raise DataError(
                f"{path} is truncated: its header promises {said} bytes of samples and {found} are there; "
                "check that it was copied whole"
            )
    if file.format == "OGG" and re.search(r"Ogg: (Junk after the last page|Last page lacks)", file.extra_info):
        raise DataError(f"{path} is truncated: its last page is cut off or missing; check that it was copied whole")


def _mapped(path: Path, file: soundfile.SoundFile) -> np.ndarray | None:
    """(T, C) samples of a WAV as a memory map; None where the samples are not stored as they are used."""
    if file.format not in ("WAV", "WAVEX", "RF64") or file.subtype not in _MAPPED:
        return None
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, values = wavfile.read(path, mmap=True)
    except Exception:  # a variant that SciPy does not know; libsndfile does
        return None
    values = values[:, None] if values.ndim == 1 else values
    if values.shape != (file.frames, file.channels) or values.dtype.newbyteorder("=") != _stored_type(file.subtype):
        return None
    return values


def _decoded(path: Path, file: soundfile.SoundFile, start: int, count: int) -> np.ndarray:
    """(count, C) samples from `start` on."""
    stored = _stored_type(file.subtype)
    values = np.empty((count, file.channels), dtype=stored)
    if file.seekable():
        file.seek(start)
    else:
        for skipped in range(0, start, _BLOCK):
            file.read(min(_BLOCK, start - skipped), dtype="int16")
    done = 0
    while done < count:
        length = min(_BLOCK, count - done)
        block = file.read(length, dtype="int16" if stored == np.int8 else stored.name, always_2d=True)
        values[done : done + len(block)] = block >> 8 if stored == np.int8 else block
        done += len(block)
        if len(block) < length:
            raise DataError(
                f"{path} is truncated: it has {start + done} of {file.frames} samples; check that it was copied whole"
            )
    return values


def _stored_type(subtype: str) -> np.dtype:
    if subtype in _LOSSY:
        return np.dtype(np.float32)
    return np.dtype(_STORED.get(subtype, np.int16))


def _precision(dtype: np.dtype, subtype: str) -> int:
    """Place in `_WRITTEN` of the precision that values of a file of `subtype` have."""
    if dtype.kind == "f":
        return 5 if dtype.itemsize > 4 else 4
    if dtype.itemsize == 4:
        return 2 if subtype in ("PCM_24", "DWVW_24", "ALAC_20", "ALAC_24") else 3
    return 0 if dtype.itemsize == 1 else 1


def _encoded(block: np.ndarray, subtype: str) -> np.ndarray:
    """Samples as libsndfile wants them for `subtype`: to full scale, rounded where it would cut bits off."""
    if block.dtype.kind == "i" and subtype in _LOSSY:  # of 16 bits its MP3 encoder makes another sound
        return block.astype(np.float32) / np.float32(2.0 ** (8 * block.dtype.itemsize - 1))
    if block.dtype == np.int8:
        return block.astype(np.int16) << 8
    if subtype == "PCM_24":
        if block.dtype.kind == "f":
            full = float(1 << 23)
            block = np.clip(np.rint(block.astype(np.float64) * full), -full, full - 1).astype(np.int32) << 8
        elif block.dtype == np.int32:
            block = np.minimum(block, np.int32(2**31 - 129)) + np.int32(128) & np.int32(-256)
    elif subtype not in ("FLOAT", "DOUBLE") and block.dtype.kind == "f":
        block = np.clip(block, -1.0, 1.0)
    if block.dtype == np.float16:
        block = block.astype(np.float32)
    return block


def _raise_system_error(path: Path) -> None:
    """Raise the OSError that says why `path` cannot be written, if it cannot."""
    with path.open("ab"):
        pass


class _Energies(Metric):
    """Sums over time, of which ratios of energies follow; in float64, and about the error, so that nothing cancels."""

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        super().__init__(shape, channels, peak)
        self._count = 0
        self._sums = torch.zeros(5, channels, dtype=torch.float64)

    @classmethod
    def applies(cls, shape: tuple[int, ...]) -> bool:
        return len(shape) == 1

    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        signal = target.to(torch.float64)
        error = prediction.to(torch.float64) - signal
        terms = (signal, error, signal * signal, error * error, error * signal)
        self._sums += torch.stack([term.sum(dim=0) for term in terms]).cpu()
        self._count += len(target)


@METRICS.register("snr")
class SignalToNoiseRatio(_Energies):
    """10 · log10(Σ y² / Σ (ŷ − y)²) over all samples and channels, in dB; infinite for no error.

    Left out where the signal is silence.
    """

    title = "SNR"
    unit = "dB"

    def compute(self) -> float | None:
        _, _, signal, error, _ = self._sums.sum(dim=1).tolist()
        return _decibels(signal, error) if signal > 0 else None


_RESOLUTION = float(np.finfo(np.float64).eps)


@METRICS.register("si_sdr")
class ScaleInvariantSDR(_Energies):
    """Scale-invariant signal-to-distortion ratio, in dB (Le Roux et al., ICASSP 2019, equation 5).

    10 · log10(Σ (αy)² / Σ (αy − ŷ)²) with α = Σ ŷy / Σ y², both signals less their channel's mean, as the paper
    assumes them; one α for all channels. Infinite for no distortion, −156.5 (what float64 resolves) for a
    prediction that has nothing of the signal. Left out where the signal is constant.
    """

    title = "SI-SDR"
    unit = "dB"

    def compute(self) -> float | None:
        sums = self._sums
        means = sums[:2] / self._count
        signal = float((sums[2] - self._count * means[0] ** 2).sum())
        if signal <= 1e-14 * float(sums[2].sum()):
            return None
        error = float((sums[3] - self._count * means[1] ** 2).sum())
        both = float((sums[4] - self._count * means[0] * means[1]).sum())
        if not math.isfinite(error):
            return math.nan
        if signal + 2 * both + error <= _RESOLUTION * signal:
            return _decibels(_RESOLUTION, 1.0)
        # With the error e = ŷ − y: α = 1 + Σ ey / Σ y², and αy − ŷ = (α − 1)·y − e.
        projected = (signal + both) ** 2 / signal
        distortion = max(0.0, error - both**2 / signal)
        return _decibels(projected + _RESOLUTION * distortion, distortion)


_WINDOW, _HOP = 2048, 512
_FLOOR = 1e-12


@METRICS.register("lsd")
class LogSpectralDistance(Metric):
    """Log-spectral distance, in dB: the root mean square over frequencies of 10 · log10(|Y|² / |Ŷ|²), averaged over
    frames and channels (Gray and Markel, 1976); 0 is best.

    Frames are 2048 samples under a Hann window, 512 apart, the signal padded with zeros at its end to a whole
    number of them. Powers below −120 dB of a full-scale sine's count as −120 dB, so that silence has a spectrum.
    """

    title = "LSD"
    unit = "dB"
    higher_is_better = False

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        super().__init__(shape, channels, peak)
        self._kept: tuple[Tensor, Tensor] | None = None
        self._seen = 0
        self._sum = 0.0
        self._frames = 0

    @classmethod
    def applies(cls, shape: tuple[int, ...]) -> bool:
        return len(shape) == 1

    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        self._seen += len(target)
        if self._kept is not None:
            prediction, target = torch.cat([self._kept[0], prediction]), torch.cat([self._kept[1], target])
        if self._seen == self.shape[0]:
            missing = -(len(target) - _WINDOW) % _HOP if len(target) > _WINDOW else _WINDOW - len(target)
            prediction, target = (torch.nn.functional.pad(part, (0, 0, 0, missing)) for part in (prediction, target))
        frames = max(0, (len(target) - _WINDOW) // _HOP + 1)
        if frames:
            difference = self._level(prediction) - self._level(target)
            self._sum += float(difference.square().mean(dim=1).sqrt().sum(dtype=torch.float64))
            self._frames += difference.shape[0] * difference.shape[2]
        self._kept = (prediction[frames * _HOP :].clone(), target[frames * _HOP :].clone())

    def compute(self) -> float:
        return self._sum / self._frames

    def _level(self, samples: Tensor) -> Tensor:
        """(T, C) samples to the (C, F, frames) level of their spectrum, in dB."""
        window = torch.hann_window(_WINDOW, device=samples.device)
        spectrum = torch.stft(samples.T / self.peak, _WINDOW, _HOP, window=window, center=False, return_complex=True)
        # A sine from the lowest to the highest value has amplitude peak / 2.
        power = (spectrum.abs() * (4 / window.sum())).square()
        return 10 * power.clamp_min(_FLOOR).log10()


_LONGEST_SPEECH = 60
"""Seconds of speech that PESQ and STOI are computed for: both are made for utterances and take the whole of one."""


class _SpeechMetric(Metric):
    """A metric of speech from the `speech` extra; needs the sampling rate, and all samples at once."""

    module: ClassVar[str]
    """That the metric comes from."""

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float, rate: int) -> None:
        super().__init__(shape, channels, peak)
        self.rate = rate
        self._slabs: list[tuple[Tensor, Tensor]] = []
        try:
            self._library: ModuleType = importlib.import_module(self.module)
        except ImportError as error:
            raise ConfigError(f"metric '{self.title}' needs: pip install 'inrkit[speech]'") from error

    @classmethod
    def of(cls, dataset: CoordinateDataset) -> Metric:
        (count,) = dataset.grid_shape or (len(dataset),)
        rate = round(count / (2 * dataset.affine[0, 0]))
        return cls((count,), dataset.channels, dataset.peak, rate)

    @classmethod
    def applies(cls, shape: tuple[int, ...]) -> bool:
        return len(shape) == 1

    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        if self.shape[0] <= _LONGEST_SPEECH * self.rate:
            self._slabs.append((prediction.mean(dim=-1), target.mean(dim=-1)))

    def compute(self) -> float | None:
        if not self._slabs:
            return None
        degraded, reference = (torch.cat(part).cpu().numpy() / self.peak for part in zip(*self._slabs, strict=True))
        return self._rate(reference, degraded) if np.isfinite(degraded).all() else math.nan

    def _rate(self, reference: np.ndarray, degraded: np.ndarray) -> float | None:
        raise NotImplementedError


@METRICS.register("pesq")
class Pesq(_SpeechMetric):
    """Perceptual evaluation of speech quality (ITU-T P.862), as a mean opinion score from 1 to 4.6.

    Narrow band at 8000 samples a second, wide band (P.862.2) at 16000, of the mean over the channels. Left out
    where P.862 finds no speech, or too little, and above a minute.
    """

    title = "PESQ"
    module = "pesq"

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float, rate: int) -> None:
        super().__init__(shape, channels, peak, rate)
        if rate not in (8000, 16000):
            raise ConfigError(
                f"metric 'pesq' is defined at 8000 and 16000 samples a second, and this signal has {rate}; "
                "leave it out of metrics"
            )

    def _rate(self, reference: np.ndarray, degraded: np.ndarray) -> float | None:
        if not reference.any():
            return None
        mode = "wb" if self.rate == 16000 else "nb"
        try:
            return float(self._library.pesq(self.rate, reference, degraded, mode))
        except self._library.PesqError:
            return None


@METRICS.register("stoi")
class Stoi(_SpeechMetric):
    """Short-time objective intelligibility (Taal et al., ICASSP 2010), up to 1, of the mean over the channels.

    Left out where the signal has less than 0.4 s that are not silent, and above a minute.
    """

    title = "STOI"
    module = "pystoi"

    def _rate(self, reference: np.ndarray, degraded: np.ndarray) -> float | None:
        if not reference.any():
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                return float(self._library.stoi(reference, degraded, self.rate))
            except (RuntimeWarning, ValueError):  # both are how it says that the signal is too short
                return None


def _decibels(signal: float, error: float) -> float:
    """The ratio of two energies in dB: infinite for no error, NaN where one is not finite."""
    if error == 0:
        return math.inf
    ratio = signal / error
    return 10 * math.log10(ratio) if ratio > 0 else math.nan
