"""Metrics: how near a reconstruction is to the signal, computed in slabs so that memory does not grow with N."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from inrkit.plugins.registry import Registry

if TYPE_CHECKING:
    from inrkit.signals.dataset import CoordinateDataset

METRICS: Registry[Metric] = Registry("metric", "inrkit.metrics")


@METRICS.base
class Metric(ABC):
    """Accumulates over consecutive slabs of a signal, in stored values.

    Args:
        shape: the lattice's shape, or (N,) for free points.
        channels: C.
        peak: the range that the values may span.
    """

    title: ClassVar[str] = ""
    """What people call it; the registered name if empty."""
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        self.shape = shape
        self.channels = channels
        self.peak = peak

    @classmethod
    def of(cls, dataset: CoordinateDataset) -> Metric:
        """The metric for a signal.

        Raises:
            ConfigError: it is not defined for the signal, or a package that it needs is missing.
        """
        return cls(dataset.grid_shape or (len(dataset),), dataset.channels, dataset.peak)

    @classmethod
    def applies(cls, shape: tuple[int, ...]) -> bool:
        """Whether the metric means something for a signal of this shape."""
        return True

    @abstractmethod
    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        """Take the next slab.

        Args:
            prediction: (rows, *shape[1:], C) float32.
            target: likewise.
            weights: (rows, *shape[1:]) how much each coordinate counts, of mean 1 over the signal; metrics of
                structure have no use for them.
        """

    @abstractmethod
    def compute(self) -> float | None:
        """The metric over all slabs; None where the signal leaves it undefined."""


@METRICS.register("psnr")
class PSNR(Metric):
    """10 · log10(peak² / MSE), in dB, the mean a weighted one where coordinates have weights; infinite for no
    error, NaN where a prediction is not finite."""

    title = "PSNR"
    unit = "dB"

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        super().__init__(shape, channels, peak)
        self._squares = 0.0
        self._count = 0.0

    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        squares = (prediction - target).square()
        if weights is not None:
            squares = squares * weights[..., None]
        self._squares += float(squares.sum(dtype=torch.float64))
        self._count += target.numel() if weights is None else float(weights.sum(dtype=torch.float64)) * self.channels

    def compute(self) -> float:
        mean = self._squares / self._count
        if mean == 0:
            return math.inf
        ratio = self.peak**2 / mean
        return 10 * math.log10(ratio) if ratio > 0 else math.nan


_WINDOW = 11


@METRICS.register("ssim")
class SSIM(Metric):
    """Structural similarity, 11×11 Gaussian window of σ = 1.5 (Wang et al. 2004), mean over pixels and channels.

    Slabs overlap by the window's width less one, so that every pixel is rated with its whole surroundings.
    """

    title = "SSIM"

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        super().__init__(shape, channels, peak)
        self._kept: tuple[Tensor, Tensor] | None = None
        self._seen = 0
        self._sum = 0.0

    @classmethod
    def applies(cls, shape: tuple[int, ...]) -> bool:
        return len(shape) == 2 and min(shape) >= _WINDOW

    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        from torchmetrics.functional.image import structural_similarity_index_measure

        first = self._seen == 0 or (self._kept is not None and len(self._kept[0]) == self._seen)
        self._seen += len(target)
        last = self._seen == self.shape[0]
        if self._kept is not None:
            prediction = torch.cat([self._kept[0], prediction])
            target = torch.cat([self._kept[1], target])
        if len(target) < _WINDOW and not last:
            self._kept = (prediction, target)
            return
        _, rated = structural_similarity_index_measure(
            _channels_first(prediction), _channels_first(target), data_range=self.peak, return_full_image=True
        )
        # Near a slab's edge that is not the image's the surroundings are cut off: another slab rates those rows.
        margin = _WINDOW // 2
        rows = slice(0 if first else margin, len(target) if last else len(target) - margin)
        self._sum += float(rated[:, :, rows].sum(dtype=torch.float64))
        self._kept = (prediction[-2 * margin :], target[-2 * margin :])

    def compute(self) -> float:
        return self._sum / (math.prod(self.shape) * self.channels)


@METRICS.register("ms_ssim")
class MultiScaleSSIM(Metric):
    """Multi-scale SSIM over five scales (Wang et al. 2003).

    It needs the whole image at once, some 800 bytes a pixel, so it is left out above 2²⁰ pixels, and below 176 pixels
    a side, where the coarsest scale is smaller than the window.
    """

    title = "MS-SSIM"

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        super().__init__(shape, channels, peak)
        self._slabs: list[tuple[Tensor, Tensor]] = []

    @classmethod
    def applies(cls, shape: tuple[int, ...]) -> bool:
        return len(shape) == 2 and min(shape) // 2**4 >= _WINDOW and math.prod(shape) <= 1 << 20

    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        self._slabs.append((prediction, target))

    def compute(self) -> float:
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

        prediction, target = (torch.cat(slabs) for slabs in zip(*self._slabs, strict=True))
        return float(
            multiscale_structural_similarity_index_measure(
                _channels_first(prediction), _channels_first(target), data_range=self.peak, normalize="relu"
            )
        )


def _channels_first(image: Tensor) -> Tensor:
    return image.movedim(-1, 0)[None]
