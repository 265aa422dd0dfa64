"""Metrics of sound: ratios of energies, spectra, and what speech is rated by."""

from __future__ import annotations

import importlib
import math
import warnings
from types import ModuleType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from inrkit.device import total, wide
from inrkit.errors import ConfigError
from inrkit.evaluation.metrics import METRICS, Metric
from inrkit.signals.dataset import CoordinateDataset


class _Energies(Metric):
    """Sums over time, of which ratios of energies follow; in float64, and about the error, so that nothing cancels."""

    leaves_out = True

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        super().__init__(shape, channels, peak)
        self._count = 0.0
        self._sums = torch.zeros(5, channels, dtype=torch.float64)

    @classmethod
    def applies(cls, shape: tuple[int, ...]) -> bool:
        return len(shape) == 1

    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        signal = wide(target)
        error = wide(prediction) - signal
        terms = torch.stack([signal, error, signal * signal, error * error, error * signal])
        if weights is not None:
            terms = terms * wide(weights)[:, None]
        self._sums += terms.sum(dim=1).cpu()
        self._count += len(target) if weights is None else total(weights)


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
        if not self._count:
            return None
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
    Where a part of the signal is not known, the average is over the frames that see none of it.
    """

    title = "LSD"
    unit = "dB"
    higher_is_better = False
    leaves_out = True

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        super().__init__(shape, channels, peak)
        self._kept: tuple[Tensor, Tensor, Tensor] | None = None
        self._seen = 0
        self._sum = 0.0
        self._frames = 0

    @classmethod
    def applies(cls, shape: tuple[int, ...]) -> bool:
        return len(shape) == 1

    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        self._take(_where_known(prediction, target, weights), target, target.new_zeros(len(target), 1))

    def update_known(self, prediction: Tensor, target: Tensor, weights: Tensor | None, known: Tensor) -> None:
        self._take(_where_known(prediction, target, weights), target, (~known).to(target.dtype)[:, None])

    def _take(self, prediction: Tensor, target: Tensor, hidden: Tensor) -> None:
        """Take the next slab, and which (N, 1) samples of it are not known, as 1."""
        self._seen += len(target)
        parts = prediction, target, hidden
        if self._kept is not None:
            parts = tuple(torch.cat(pair) for pair in zip(self._kept, parts, strict=True))
        if self._seen == self.shape[0]:
            length = len(parts[0])
            missing = -(length - _WINDOW) % _HOP if length > _WINDOW else _WINDOW - length
            parts = tuple(torch.nn.functional.pad(part, (0, 0, 0, missing)) for part in parts)
        prediction, target, hidden = parts
        frames = max(0, (len(target) - _WINDOW) // _HOP + 1)
        if frames:
            difference = self._level(prediction) - self._level(target)
            distances = difference.square().mean(dim=1).sqrt()
            seen = hidden.unfold(0, _WINDOW, _HOP).amax(dim=2).squeeze(1) == 0
            distances = distances if seen.all() else distances[:, seen]
            self._sum += total(distances)
            self._frames += distances.numel()
        self._kept = (
            prediction[frames * _HOP :].clone(),
            target[frames * _HOP :].clone(),
            hidden[frames * _HOP :].clone(),
        )

    def compute(self) -> float | None:
        return self._sum / self._frames if self._frames else None

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
            prediction = _where_known(prediction, target, weights)
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


def _where_known(prediction: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """The prediction, and the signal itself where that counts for nothing: a spectrum needs all samples of a frame."""
    return prediction if weights is None else torch.where(weights[:, None] > 0, prediction, target)


def _decibels(signal: float, error: float) -> float:
    """The ratio of two energies in dB: infinite for no error, NaN where one is not finite."""
    if error == 0:
        return math.inf
    ratio = signal / error
    return 10 * math.log10(ratio) if ratio > 0 else math.nan
