"""Values as pictures, and pictures, sounds and numbers as text that a page can hold."""

from __future__ import annotations

import base64
import gzip
import io
import math
import wave
from typing import TYPE_CHECKING, Any

import numpy as np

from inrkit.files import to_json

if TYPE_CHECKING:
    from PIL import Image

Anchors = tuple[tuple[int, int, int], ...]

NIGHT: Anchors = (
    (12, 8, 38),
    (58, 15, 110),
    (118, 30, 110),
    (178, 48, 92),
    (226, 84, 58),
    (249, 142, 30),
    (252, 205, 75),
    (252, 253, 200),
)
"""From dark to light, so that more is always lighter."""
CLAY: Anchors = (
    (222, 226, 232),
    (236, 214, 178),
    (240, 176, 106),
    (226, 116, 62),
    (186, 52, 48),
    (112, 16, 52),
)
"""From pale to strong, for what is lit: its shades stay visible where there is little."""
SHORTEST = 64
"""Samples of the shortest sound whose spectrum can be drawn."""
_DECIBELS = 80
"""Below the loudest, that a spectrogram shows."""
_LOSSLESS = 300_000
"""Pixels up to which a picture is a PNG; a JPEG above."""


def colours(values: np.ndarray, most: float, scale: Anchors = NIGHT) -> np.ndarray:
    """(*shape, 3) uint8 colours of (*shape,) values, from 0 to `most` along a scale; NaN is grey."""
    at = np.clip(np.nan_to_num(values) / (most or 1.0), 0, 1) * (len(scale) - 1)
    anchors = np.array(scale, dtype=np.float64).T
    drawn = np.stack([np.interp(at, np.arange(len(scale)), channel) for channel in anchors], axis=-1)
    return np.where(np.isnan(values)[..., None], 128, np.rint(drawn)).astype(np.uint8)


def lightest(values: np.ndarray) -> float:
    """The value that `colours` draws lightest: few are larger."""
    few = values.reshape(-1)[:: max(1, values.size >> 20)]
    few = few[np.isfinite(few)]
    return float(np.quantile(few, 0.998)) if len(few) else 0.0


def usual_range(values: np.ndarray) -> tuple[float, float]:
    """The values that are drawn darkest and lightest, where a signal has no range of its own: few lie beyond."""
    low, high = (float(np.nanquantile(values, share)) for share in (0.002, 0.998))
    return low, high


def as_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as uint8, from `low` to `high`; NaN is drawn as zero is."""
    shares = (np.nan_to_num(values) - low) / ((high - low) or 1.0)
    drawn: np.ndarray = np.clip(shares * 255 + 0.5, 0, 255).astype(np.uint8)
    return drawn


def ranges(column: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each of at most so many parts of (T,) values begins, and its least and its largest value."""
    parts = min(most, len(column))
    starts = np.arange(parts) * len(column) // parts
    return starts, np.minimum.reduceat(column, starts), np.maximum.reduceat(column, starts)


def scale_css(scale: Anchors = NIGHT) -> str:
    """The colours of a scale, as a CSS gradient."""
    return f"linear-gradient(90deg,{','.join('rgb({},{},{})'.format(*anchor) for anchor in scale)})"


def spectrum(samples: np.ndarray, rate: int) -> np.ndarray:
    """(frequencies, times) decibels of (T,) samples, low frequencies first; of long ones about a thousand times."""
    window = int(np.clip(2 ** round(math.log2(max(SHORTEST, rate * 0.032))), SHORTEST, len(samples)))
    hop = max(1, window // 4, len(samples) // 1000)
    parts = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float32), window)[::hop]
    parts = (parts - parts.mean(axis=1, keepdims=True)) * np.hanning(window)
    power = np.abs(np.fft.rfft(parts, axis=1)) ** 2
    level: np.ndarray = 10 * np.log10(np.maximum(power, 1e-20))
    return level.T


def spectrogram(level: np.ndarray, loudest: float) -> np.ndarray:
    """(frequencies, times, 3) uint8 picture of decibels that `spectrum` found, low frequencies at its lower edge."""
    return colours(level[::-1] - loudest + _DECIBELS, _DECIBELS)


def as_image(pixels: np.ndarray) -> Image.Image:
    """(H, W, 1 to 4) uint8 pixels as a picture; of more channels the first."""
    from PIL import Image as Pillow

    channels = pixels.shape[-1]
    if channels in (2, 3, 4):
        return Pillow.fromarray(np.ascontiguousarray(pixels))
    return Pillow.fromarray(np.ascontiguousarray(pixels[..., 0]))


def reduced(image: Image.Image, longest: int) -> Image.Image:
    """A picture whose longer side has at most so many pixels."""
    from PIL import Image as Pillow

    if max(image.size) <= longest:
        return image
    scale = longest / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Pillow.Resampling.BOX if scale < 0.5 else Pillow.Resampling.LANCZOS, reducing_gap=2.0)


def picture_uri(image: Image.Image, lossless: bool | None = None, quality: int = 90) -> str:
    """A picture as a data URI."""
    file = io.BytesIO()
    if lossless is None:
        lossless = image.width * image.height <= _LOSSLESS
    if lossless or image.mode not in ("L", "RGB"):
        image.save(file, "PNG", compress_level=4)
        return data_uri("image/png", file.getvalue())
    image.save(file, "JPEG", quality=quality, subsampling=0)
    return data_uri("image/jpeg", file.getvalue())


def sound_uri(samples: np.ndarray, rate: int) -> str:
    """(T, C) samples in [−1, 1] as the data URI of a WAV of 16 bits, the first two channels of it."""
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setnchannels(min(2, samples.shape[1]))
        opened.setsampwidth(2)
        opened.setframerate(rate)
        opened.writeframes(np.rint(samples[:, :2].clip(-1, 1) * 32767).astype("<i2").tobytes())
    return data_uri("audio/wav", file.getvalue())


def in_script(data: Any) -> str:
    """JSON that may stand in a page's element of data: no </script> or <!-- inside it ends the element."""
    return to_json(data).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def packed(numbers: np.ndarray) -> str:
    """An array's bytes, in little-endian order, compressed, as base64."""
    little = np.ascontiguousarray(numbers).astype(numbers.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(gzip.compress(little.tobytes(), 5, mtime=0)).decode()


def data_uri(kind: str, content: bytes) -> str:
    """Bytes of a MIME type as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
