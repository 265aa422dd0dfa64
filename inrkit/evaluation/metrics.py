"""Metrics of a reconstruction against its signal, whose memory does not grow with N."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from inrkit.device import total, wide
from inrkit.plugins.registry import Registry
from inrkit.signals.lattice import SLAB

if TYPE_CHECKING:
    from inrkit.signals.dataset import CoordinateDataset

METRICS: Registry[Measure] = Registry("metric", "inrkit.metrics")


def default_metrics(metrics: Sequence[str]) -> list[str]:
    """The metrics of an evaluation that names none: those of the modality and, after the main one, `between`."""
    return list(dict.fromkeys([*metrics[:1], "between", *metrics[1:]]))


class Predictor(Protocol):
    """What a network predicts anywhere, as stored values, clipped to what the dtype holds."""

    def __call__(self, coordinates: Tensor) -> Tensor:
        """(k, C) values at (k, D) coordinates in [−1, 1]^D: float32, or float64 where float32 would not tell them
        apart."""

    def jacobian(self, coordinates: Tensor) -> Tensor:
        """(k, C, D) float32 derivatives of the values, before they are clipped, with respect to the coordinates."""


@METRICS.base
class Measure(ABC):
    """What metrics have in common. A metric derives from `Metric` or from `FieldMetric`."""

    title: ClassVar[str] = ""
    """The metric's usual name; the registered name if empty."""
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    leaves_out: ClassVar[bool] = False
    """Whether it rates what is known of a signal of which a part is not; one that does not is undefined there, and a
    note says that it is left out."""

    @classmethod
    @abstractmethod
    def of(cls, dataset: CoordinateDataset) -> Self:
        """The metric for a signal.

        Raises:
            ConfigError: it is not defined for the signal, or a package that it needs is missing.
        """

    @classmethod
    @abstractmethod
    def suits(cls, dataset: CoordinateDataset) -> bool:
        """Whether the metric is meaningful for a signal, all of which is known."""


class FieldMetric(Measure):
    """Asks the field wherever it likes: between the samples, or for derivatives.

    Args:
        dataset: the signal.
    """

    def __init__(self, dataset: CoordinateDataset) -> None:
        self.dataset = dataset

    @classmethod
    def of(cls, dataset: CoordinateDataset) -> Self:
        return cls(dataset)

    @classmethod
    def suits(cls, dataset: CoordinateDataset) -> bool:
        return True

    @abstractmethod
    def measure(self, predictor: Predictor, most: int) -> float | None:
        """The metric; None if it is undefined for the signal.

        Args:
            predictor: gives the field's values, and their derivatives, at coordinates.
            most: how many coordinates the evaluation asks for the other metrics; ask for a fraction of them. The same
                ones each time, so that evaluations can be compared.
        """


class Metric(Measure):
    """Compares predictions with the samples: accumulates over consecutive slabs of a signal, in stored values; where
    float32 would not tell these apart, less `CoordinateDataset.reference`.

    Args:
        shape: the lattice's shape, or (N,) for free points.
        channels: C.
        peak: the range that the values may span.
    """

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        self.shape = shape
        self.channels = channels
        self.peak = peak

    @classmethod
    def of(cls, dataset: CoordinateDataset) -> Self:
        return cls(dataset.grid_shape or (len(dataset),), dataset.channels, dataset.peak)

    @classmethod
    def suits(cls, dataset: CoordinateDataset) -> bool:
        return cls.applies(dataset.grid_shape or (len(dataset),))

    @classmethod
    def applies(cls, shape: tuple[int, ...]) -> bool:
        """Whether the metric is meaningful for a signal of this shape."""
        return True

    @classmethod
    def memory(cls, shape: tuple[int, ...], channels: int) -> int:
        """Bytes that it takes at most, beside the slabs that it is given, for the memory estimate."""
        return 8 * channels * min(math.prod(shape), SLAB)

    @abstractmethod
    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        """Take the next slab.

        Args:
            prediction: (rows, *shape[1:], C) float32.
            target: likewise.
            weights: (rows, *shape[1:]) how much each coordinate counts, of mean 1 over the signal; metrics of
                structure ignore them.
        """

    def update_known(self, prediction: Tensor, target: Tensor, weights: Tensor | None, known: Tensor) -> None:
        """Take the next slab of a signal of which a part is not known, for metrics with `leaves_out`.

        What is not known counts as of weight 0: for metrics that go by weights, and see no coordinate beside another.

        Args:
            prediction: as for `update`; 0 where nothing is known.
            target: likewise.
            weights: as for `update`, of mean 1 over the known.
            known: (rows, *shape[1:]) bool.
        """
        self.update(prediction, target, known.to(torch.float32) if weights is None else weights * known)

    @abstractmethod
    def compute(self) -> float | None:
        """The metric over all slabs; None if it is undefined for the signal."""


@METRICS.register("psnr")
class PSNR(Metric):
    """10 · log10(peak² / MSE), in dB; a weighted mean if coordinates have weights. Infinite for no error, NaN if a
    prediction is not finite."""

    title = "PSNR"
    unit = "dB"
    leaves_out = True

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        super().__init__(shape, channels, peak)
        self._squares = 0.0
        self._count = 0.0

    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        squares = ((prediction - target) / _unit(self.peak)).square()
        if weights is not None:
            squares = squares * weights[..., None]
        self._squares += total(squares)
        self._count += target.numel() if weights is None else total(weights) * self.channels

    def compute(self) -> float | None:
        if self._count == 0:
            return None
        mean = self._squares / self._count
        if mean == 0:
            return math.inf
        ratio = (self.peak / _unit(self.peak)) ** 2 / mean
        return 10 * math.log10(ratio) if ratio > 0 else math.nan


_WINDOW = 11
_MARGIN = _WINDOW // 2
_RATING = 100
"""Bytes for each value that is rated."""


@METRICS.register("ssim")
class SSIM(Metric):
    """Structural similarity, 11×11 Gaussian window of σ = 1.5 (Wang et al. 2004), mean over pixels and channels.

    Slabs overlap by the window's width less one, so that every pixel is rated with its whole surroundings. Where a part
    of the image is not known, the mean is over the pixels whose window sees none of it.
    """

    title = "SSIM"
    leaves_out = True

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        super().__init__(shape, channels, peak)
        self._kept: tuple[Tensor, Tensor, Tensor | None] | None = None
        self._seen = 0
        self._sum = 0.0
        self._left_out = 0

    @classmethod
    def applies(cls, shape: tuple[int, ...]) -> bool:
        return len(shape) == 2 and min(shape) >= _WINDOW

    @classmethod
    def memory(cls, shape: tuple[int, ...], channels: int) -> int:
        return _RATING * channels * min(math.prod(shape), SLAB)

    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        self._take(prediction, target, None)

    def update_known(self, prediction: Tensor, target: Tensor, weights: Tensor | None, known: Tensor) -> None:
        self._take(prediction, target, ~known)

    def _take(self, prediction: Tensor, target: Tensor, hidden: Tensor | None) -> None:
        """Take the next slab, and which pixels of it are not known."""
        prediction, target, hidden = prediction.cpu(), target.cpu(), None if hidden is None else hidden.cpu()
        first = self._seen == 0 or (self._kept is not None and len(self._kept[0]) == self._seen)
        self._seen += len(target)
        last = self._seen == self.shape[0]
        if self._kept is not None:
            prediction = torch.cat([self._kept[0], prediction])
            target = torch.cat([self._kept[1], target])
            hidden = None if hidden is None or self._kept[2] is None else torch.cat([self._kept[2], hidden])
        if len(target) < _WINDOW and not last:
            self._kept = (prediction, target, hidden)
            return
        rated = _similarity(prediction, target, self.peak)
        # Near a slab's edge inside the image the surroundings are cut off; another slab rates those rows.
        rows = slice(0 if first else _MARGIN, len(target) if last else len(target) - _MARGIN)
        if hidden is not None:
            seen = torch.nn.functional.max_pool2d(hidden[None, None].to(torch.float32), _WINDOW, 1, _MARGIN)[0, 0] > 0
            rated = torch.where(seen[..., None], 0, rated)
            self._left_out += int(seen[rows].sum())
            hidden = hidden[-2 * _MARGIN :]
        self._sum += total(rated[rows])
        self._kept = (prediction[-2 * _MARGIN :], target[-2 * _MARGIN :], hidden)

    def compute(self) -> float | None:
        count = math.prod(self.shape) - self._left_out
        return self._sum / (count * self.channels) if count else None


_OFFSET = 4.0
"""Ranges away from 0, beyond which variances as differences of squares need more than float32."""
_FARTHEST = 1000.0
"""Ranges away from 0, at most, since float64 has its limit too, and luminance is the same to a millionth there."""


def _similarity(prediction: Tensor, target: Tensor, peak: float, luminance: bool = True) -> Tensor:
    """(H, W, C) structural similarity of each value of two (H, W, C) images in main memory.

    Beyond its edges an image is mirrored. Without `luminance` only contrast and structure count.
    """
    from skimage.metrics import structural_similarity  # slow to import

    width = ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0))
    images = [prediction, target]
    if max(float(image.abs().max()) for image in images) > _OFFSET * peak:
        middle = float(wide(images[1]).mean())
        excess = middle - math.copysign(min(abs(middle), _FARTHEST * peak), middle)
        images = [wide(image) - excess for image in images]
    mirrored = [np.pad((image / peak).numpy(), width, mode="reflect") for image in images]
    _, rated = structural_similarity(
        *mirrored,
        data_range=1.0,
        channel_axis=2,
        full=True,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        # The term of luminance is a ratio of two sums; the square of K1 is a part of both.
        K1=0.01 if luminance else 1e9,
    )
    return torch.from_numpy(rated[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]).to(torch.float32)


_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales of MS-SSIM, the finest first (Wang et al. 2003, section 3.2)."""


@METRICS.register("ms_ssim")
class MultiScaleSSIM(Metric):
    """Multi-scale SSIM over five scales (Wang et al. 2003).

    It needs the whole image at once, so it is left out above 2²⁰ pixels, and below 176 pixels a side, where the
    coarsest scale is smaller than the window. It is undefined where a part of the image is not known.
    """

    title = "MS-SSIM"

    def __init__(self, shape: tuple[int, ...], channels: int, peak: float) -> None:
        super().__init__(shape, channels, peak)
        self._slabs: list[tuple[Tensor, Tensor]] = []

    @classmethod
    def applies(cls, shape: tuple[int, ...]) -> bool:
        return len(shape) == 2 and min(shape) // 2 ** (len(_SCALES) - 1) >= _WINDOW and math.prod(shape) <= 1 << 20

    @classmethod
    def memory(cls, shape: tuple[int, ...], channels: int) -> int:
        return _RATING * channels * math.prod(shape)

    def update(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        self._slabs.append((prediction.cpu(), target.cpu()))

    def compute(self) -> float:
        prediction, target = (torch.cat(slabs) for slabs in zip(*self._slabs, strict=True))
        value = 1.0
        for scale, weight in enumerate(_SCALES, start=1):
            coarsest = scale == len(_SCALES)
            rated = _similarity(prediction, target, self.peak, luminance=coarsest)
            if not coarsest:
                rated = rated[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
                prediction, target = _halved(prediction), _halved(target)
            value *= max(0.0, total(rated) / rated.numel()) ** weight
        return value


def _unit(peak: float) -> float:
    """A power of two near the peak, to count values in: float32 has no squares beyond 10^±38."""
    return math.ldexp(1.0, math.frexp(peak)[1])


def _halved(image: Tensor) -> Tensor:
    """(H // 2, W // 2, C) means of 2×2 pixels."""
    return torch.nn.functional.avg_pool2d(image.movedim(-1, 0), 2).movedim(0, -1)
