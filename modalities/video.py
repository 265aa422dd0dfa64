"""Videos: GIF, MP4 and what else FFmpeg decodes, and folders of pictures as frames.

The axes are frames, rows and columns: `inrkit render RUN out.mp4 --scale 2` doubles all three, `--shape 48,240,320`
names each. The physical units are the second at which a frame is shown and, as for images, pixels. Frames that are
shown for unequal times are taken to be evenly spaced over the whole.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageSequence

from inrkit.errors import ConfigError, DataError
from inrkit.modalities.image import CHANNEL_WEIGHTS, LOGGERS, read_picture
from inrkit.modalities.volume import read_array, require_memory
from inrkit.plugins.options import option
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.decoding import decoding
from inrkit.signals.lattice import cell_affine
from inrkit.signals.modality import MODALITIES, Modality

_PILLOW = (".gif", ".apng")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_UNTIMED = 0.1
"""Seconds that browsers show a frame of a GIF that says nothing of them."""
_LONGEST_SIDE = 2**16 - 1
"""Pixels a side of a GIF."""
_ROUNDING = 1e-6
"""Seconds by which the times of frames may miss those asked for."""

Frames = Generator[tuple[float, np.ndarray], None, None]
"""The seconds at which each frame begins, and its (H, W, C) pixels."""


@dataclass
class VideoOptions:
    start: float = option(0.0, at_least=0)
    """Seconds to leave out at the beginning."""
    duration: float = option(0.0, at_least=0)
    """Seconds to read; 0 reads to the end."""
    every: int = option(1, at_least=1)
    """Read every n-th frame."""
    frame_rate: float = option(25.0, above=0)
    """Frames a second of a folder of pictures or an array, which have none of their own."""


@MODALITIES.register("video")
class Video(Modality):
    """Moving pictures on a lattice of frames, rows and columns."""

    Options = VideoOptions
    operator = "laplacian"
    metrics = ("psnr",)
    sample_suffix = ".gif"

    def read(self, path: Path) -> CoordinateDataset:
        if path.suffix.lower() == ".npy":
            frames, first, step = self._shortened(path, read_array(path))
        else:
            with contextlib.closing(_timed_frames(path, self.options)) as timed:
                frames, first, step = self._gathered(path, timed)
            if path.suffix.lower() in _PILLOW and frames.shape[-1] == 4 and (frames[..., 3] == 255).all():
                frames = np.ascontiguousarray(frames[..., :3])
        channels = frames.shape[-1]
        if frames.size == 0 or channels not in CHANNEL_WEIGHTS:
            raise DataError(f"{path} has frames of shape {frames.shape[1:]}; expected (height, width, 1 to 4 channels)")
        affine = cell_affine(frames.shape[:3])
        affine[0] *= step
        affine[0, -1] += first
        return CoordinateDataset(
            frames,
            affine=affine,
            channel_weights=CHANNEL_WEIGHTS[channels],
            metadata={"seconds": step * len(frames), "channels": channels},
        )

    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        suffix = path.suffix.lower()
        if suffix == ".npy":
            with path.open("wb") as file:
                np.save(file, values)
            return
        if suffix not in (*_PILLOW, ".mp4", ""):
            raise ConfigError(
                f"videos are not written as '{suffix}'; choose one of: .gif, .apng, .mp4, .npy, "
                "or a name without a suffix, for a folder of pictures"
            )
        if values.dtype != np.uint8:
            raise ConfigError(f"{suffix or 'a folder of pictures'} cannot hold {values.dtype}; choose .npy")
        seconds = metadata.get("seconds", len(values) / 25) / len(values)
        if suffix == "":
            path.mkdir()
            digits = len(str(len(values) - 1))
            for number, frame in enumerate(values):
                (path / f"frame-{number:0{digits}}.png").write_bytes(_encode_pictures([frame], "PNG"))
        elif suffix == ".mp4":
            path.write_bytes(_encode_mp4(path, values, seconds))
        elif suffix == ".gif":
            height, width = values.shape[1:3]
            if max(height, width) > _LONGEST_SIDE:
                raise ConfigError(f".gif cannot hold {width}×{height} pixels; choose .apng")
            path.write_bytes(_encode_pictures(values, "GIF", duration=round(1000 * seconds), loop=0))
        else:
            if values.shape[3] == 2:
                values = values[..., (0, 0, 0, 1)]
            # Pillow makes one of frames that show the same, unless they are drawn in another way. What differs then
            # is of no consequence: how an opaque frame is blended with the one before it, or what a transparent one,
            # that replaces all, leaves behind.
            way = {"blend" if values.shape[3] < 4 else "disposal": [number % 2 for number in range(len(values))]}
            path.write_bytes(_encode_pictures(values, "PNG", duration=1000 * seconds, loop=0, **way))

    def reconstruction_suffix(self, metadata: dict[str, Any], dtype: np.dtype) -> str:
        # Browsers show it, and unlike GIF and MP4 it loses nothing.
        return ".apng" if dtype == np.uint8 and metadata["channels"] != 2 else ".npy"

    def sample(self, path: Path) -> None:
        self.write(path, sample_clip(12, 48), {"seconds": 1.2})

    def _shortened(self, path: Path, frames: np.ndarray) -> tuple[np.ndarray, float, float]:
        """As `_gathered`, of an array of frames."""
        if frames.ndim != 4:
            raise DataError(f"{path} has shape {frames.shape}; a video is (frames, height, width, channels)")
        options = self.options
        first = round(options.start * options.frame_rate)
        last = first + max(1, round(options.duration * options.frame_rate)) if options.duration else len(frames)
        chosen = frames[first : last : options.every]
        self._check_some(path, len(chosen))
        return chosen, first / options.frame_rate, options.every / options.frame_rate

    def _gathered(self, path: Path, timed: Frames) -> tuple[np.ndarray, float, float]:
        """The frames that the options ask for, the seconds of the first one, and those from one to the next."""
        options = self.options
        end = options.start + options.duration if options.duration else np.inf
        frames: list[np.ndarray] = []
        seconds: list[float] = []
        passed = 0
        for second, frame in timed:
            if second < options.start - _ROUNDING:
                continue
            if second >= end - _ROUNDING:
                break
            if passed % options.every == 0:
                if frames and frame.shape != frames[0].shape:
                    raise DataError(f"{path} changes from {_size(frames[0])} to {_size(frame)}; save it at one size")
                frames.append(frame)
                seconds.append(second)
                # What is kept already is no longer at hand, and as much again is needed to make one array of it.
                require_memory(path, len(frames) * frame.nbytes, "read a part by modality.duration or modality.every")
            passed += 1
        self._check_some(path, len(frames))
        step = (seconds[-1] - seconds[0]) / max(1, len(seconds) - 1)
        return np.stack(frames), seconds[0], step or _UNTIMED

    def _check_some(self, path: Path, count: int) -> None:
        if count == 0:
            asked = f" from modality.start={self.options.start:g} on" if self.options.start else ""
            raise DataError(f"{path} has no frames{asked}; check that it plays elsewhere")


def sample_clip(frames: int, size: int) -> np.ndarray:
    """A ball that rolls before a striped ground: (frames, size, size, 3) uint8, always the same."""
    axis = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(axis, axis, indexing="ij")
    clip = np.empty((frames, size, size, 3), dtype=np.uint8)
    for number in range(frames):
        turn = 2 * np.pi * number / frames
        ground = np.stack([0.3 + 0.4 * y, 0.5 + 0 * y, 0.7 - 0.3 * y + 0.1 * np.sign(np.sin(40 * (x + y)))], axis=-1)
        center = (0.5 + 0.28 * np.sin(turn), 0.5 + 0.28 * np.cos(turn))
        ball = np.hypot(y - center[0], x - center[1]) < 0.16
        ground[ball] = (0.95, 0.75, 0.2)
        clip[number] = np.rint(255 * ground)
    return clip


def _size(frame: np.ndarray) -> str:
    height, width, channels = frame.shape
    return f"{width}×{height} pixels of {channels} channels"


def _timed_frames(path: Path, options: VideoOptions) -> Frames:
    if path.is_dir():
        return _frames_of_folder(path, options.frame_rate)
    return _frames_of_pillow(path) if path.suffix.lower() in _PILLOW else _frames_of_ffmpeg(path, options.start)


def _frames_of_folder(path: Path, frame_rate: float) -> Frames:
    pictures = [entry for entry in path.iterdir() if entry.suffix.lower() in _PICTURES and entry.name[0] != "."]
    if not pictures:
        raise DataError(f"{path} holds no pictures; a folder of frames has them as {', '.join(_PICTURES)}")
    for number, picture in enumerate(sorted(pictures, key=_natural)):
        pixels = read_picture(picture)
        frame = pixels[:, :, None] if pixels.ndim == 2 else pixels
        if number == 0:
            first = frame
        if (frame.shape, frame.dtype) != (first.shape, first.dtype):
            raise DataError(
                f"{picture} has {_size(frame)}, {frame.dtype}, and those before it {_size(first)}, {first.dtype}; "
                "frames must all have one size and kind"
            )
        yield number / frame_rate, frame


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """A key by which 9 comes before 10."""
    parts = re.split(r"(\d+)", path.name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _frames_of_pillow(path: Path) -> Frames:
    with decoding(path, "is damaged or truncated", *LOGGERS), path.open("rb") as file, Pillow.open(file) as animation:
        gray = animation.format == "PNG" and animation.mode == "L"
        second = 0.0
        for frame in ImageSequence.Iterator(animation):
            pixels = np.asarray(frame.convert("L" if gray else "RGBA"))
            yield second, pixels[:, :, None] if gray else pixels
            second += frame.info.get("duration", 0) / 1000 or _UNTIMED


def _frames_of_ffmpeg(path: Path, start: float) -> Frames:
    av = _av(path)
    with decoding(path, "is damaged, or not a video that FFmpeg reads", *LOGGERS), av.open(str(path)) as container:
        if not container.streams.video:
            raise DataError(f"{path} has no video in it; give a file that has")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        begin, unit = stream.start_time or 0, stream.time_base or 0
        if start and unit:
            # To the last frame before that can be decoded by itself; not all formats can.
            with contextlib.suppress(av.error.FFmpegError):
                container.seek(begin + int(start / unit), stream=stream)
        for number, frame in enumerate(container.decode(stream)):
            second = number * _UNTIMED if frame.pts is None else float((frame.pts - begin) * unit)
            yield second, _turned(frame.to_ndarray(format="rgb24"), frame.rotation)


def _turned(pixels: np.ndarray, degrees: int) -> np.ndarray:
    """Pixels as a player shows them: telephones store frames as the sensor lies, and how it was held."""
    return np.ascontiguousarray(np.rot90(pixels, round(degrees / 90)))


def _encode_pictures(frames: Iterable[np.ndarray], format: str, **options: Any) -> bytes:
    pictures = [Pillow.fromarray(frame[:, :, 0] if frame.shape[2] == 1 else frame) for frame in frames]
    encoded = io.BytesIO()
    if len(pictures) > 1:
        pictures[0].save(encoded, format, save_all=True, append_images=pictures[1:], **options)
    else:
        pictures[0].save(encoded, format)
    return encoded.getvalue()


def _encode_mp4(path: Path, frames: np.ndarray, seconds: float) -> bytes:
    """H.264 of high quality, in the colours that every player shows, or of full size where a side is odd."""
    av = _av(path)
    _, height, width, channels = frames.shape
    if channels in (2, 4):
        raise ConfigError(".mp4 cannot hold transparency; choose .apng or .gif")
    encoded = io.BytesIO()
    try:
        _mux(av, encoded, frames, seconds)
    except (av.error.FFmpegError, ValueError) as error:
        raise ConfigError(f".mp4 cannot hold {width}×{height} pixels ({error}); choose .apng") from error
    return encoded.getvalue()


def _mux(av: Any, encoded: io.BytesIO, frames: np.ndarray, seconds: float) -> None:
    _, height, width, _ = frames.shape
    with av.open(encoded, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(1 / seconds).limit_denominator(1001))
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        stream.options = {"crf": "17"}
        for pixels in frames:
            picture = np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _av(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise ConfigError(f"{path} is a video of a kind that needs: pip install 'inrkit[video]'") from error
    return av
