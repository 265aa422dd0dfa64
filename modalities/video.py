"""Videos: GIF, MP4 and what else FFmpeg decodes, and folders of pictures as frames.

The axes are frames, rows and columns: `inrkit render RUN out.mp4 --scale 2` doubles all three, `--shape 48,240,320`
names each. The physical units are the second at which a frame begins to be shown and, as for images, pixels. A frame
that is shown for longer than others has several places on the axis of frames, and where frames are shown unequally
long, physical times lead to the frame that is shown then; see `_Timeline.bend`. Files that are written keep the times.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import struct
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import png
from PIL import Image as Pillow
from PIL import ImageSequence

from inrkit.errors import ConfigError, DataError
from inrkit.modalities import apng
from inrkit.modalities.image import CHANNEL_WEIGHTS, LOGGERS, read_picture
from inrkit.modalities.image.writing import png_level
from inrkit.modalities.known import as_mask, known_of, partly_known, read_mask, share_unknown
from inrkit.modalities.volume.arrays import read_array, require_room_in_order
from inrkit.plugins.options import option
from inrkit.signals.bends import Bends
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.decoding import decoding, require_memory, require_present
from inrkit.signals.lattice import Region, cell_affine
from inrkit.signals.modality import MODALITIES, Modality

_PILLOW = (".gif", ".apng", ".png", ".webp")
"""Suffixes of pictures that may move, which Pillow reads better than FFmpeg, if at all."""
_MOVING = (".gif", ".apng")
"""Those that are written."""
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_UNTIMED = 0.1
"""Seconds that browsers show a frame of a GIF that says nothing of them."""
_BT709, _BT601, _BT2020 = 1, 5, 9
_LIMITED = 1
"""Colour matrices and range as FFmpeg numbers them (ITU-T H.273)."""
_LONGEST_SIDE = 2**16 - 1
"""Pixels a side of a GIF."""
_LONGEST = 2**16 - 1
"""Hundredths of a second for which a GIF shows a frame at most, and the larger number of an APNG's fraction."""
_MOST_TIMES_MORE = 2731
"""Pixels, at most, for each byte of a GIF: a code of 12 bits stands for 4096."""
_READ_LESS = "read a part by modality.duration or modality.every"
_ROUNDING = 1e-6
"""Seconds by which the times of frames may miss those asked for."""

_UNEVEN = 0.25
"""Of a step, by which frames may miss even times and still count as even; the files written keep their times."""
_BLENDED = 0.25
"""Of the last place of a frame, in which the next one is blended in where frames are shown unequally long."""
_STILL = 1 / 64
"""Of a place, by which a frame moves on while it is shown; a map that stood still would have no inverse."""
_FINEST = 8
"""Places on the axis of frames, at most, for each frame that was read."""

_APART = 12.0
"""Seconds that lie between two frames that stand by themselves, at most, in most videos."""
_FINEST_ASPECT = 10_000
"""Largest denominator of a pixel's aspect."""

Frames = Generator[tuple[float, float, np.ndarray], None, None]
"""The seconds at which each frame begins and for which it is shown (0 if not said), and its (H, W, C) pixels."""


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
    mask: str = option("")
    """Where pixels are known: a picture or a .npy that is 0 where they are not, for all frames or each, or `alpha` for
    the video's own transparency. The others are not trained on."""


@MODALITIES.register("video")
class Video(Modality):
    """Moving pictures on a lattice of frames, rows and columns."""

    Options = VideoOptions
    operator = "laplacian"
    metrics = ("psnr",)
    sample_suffix = ".gif"
    looks = "frames"

    def read(self, path: Path) -> CoordinateDataset:
        if path.suffix.lower() == ".npy":
            return self._dataset(path, *self._shortened(path, read_array(path)), {}, [])
        about: dict[str, Any] = {}
        notes: list[str] = []
        with contextlib.closing(_timed_frames(path, self.options, about, notes)) as timed:
            frames, timeline = self._gathered(path, timed)
        if frames.shape[-1] == 4 and (frames[..., 3] == _opaque(frames.dtype)).all():
            frames = np.ascontiguousarray(frames[..., :3])
        if timeline.uneven:
            about |= {"shown": timeline.shown, "durations": timeline.durations, Bends.KEY: [[0, *timeline.bend()]]}
        return self._dataset(path, frames, timeline.first, timeline.step, about, notes + timeline.notes())

    def from_array(self, values: np.ndarray) -> CoordinateDataset:
        path = Path("array.npy")
        return self._dataset(path, *self._shortened(path, values), {}, [])

    def _dataset(
        self, path: Path, frames: np.ndarray, first: float, step: float, about: dict[str, Any], notes: list[str]
    ) -> CoordinateDataset:
        """(T, H, W, C) frames, one every `step` seconds from `first` on, as a dataset; errors name their path."""
        if frames.size == 0 or frames.shape[-1] not in CHANNEL_WEIGHTS:
            raise DataError(f"{path} has frames of shape {frames.shape[1:]}; expected (height, width, 1 to 4 channels)")
        frames, mask = self._masked(path, frames)
        known = known_of(frames, mask)
        if known is not None:
            notes.append(f"{share_unknown(known)} of the pixels are not known; the field fills them in")
        channels = frames.shape[-1]
        affine = cell_affine(frames.shape[:3])
        affine[0] *= step
        affine[0, -1] += first
        return partly_known(
            frames,
            known,
            affine=affine,
            channel_weights=CHANNEL_WEIGHTS[channels],
            metadata={
                "seconds": step * len(frames),
                "channels": channels,
                "size": list(frames.shape[1:3]),
                "notes": notes,
                **about,
            },
        )

    def write(self, path: Path, values: np.ndarray, metadata: dict[str, Any]) -> None:
        suffix = path.suffix.lower()
        if suffix == ".npy":
            with path.open("wb") as file:
                np.save(file, values)
            return
        if suffix not in (*_MOVING, ".mp4", ""):
            raise ConfigError(
                f"videos are not written as '{suffix}'; choose one of: .gif, .apng, .mp4, .npy, "
                "or a name without a suffix, for a folder of pictures"
            )
        deep = suffix in (".mp4", "") and values.dtype == np.uint16
        if values.dtype != np.uint8 and not deep:
            others = ".npy, .mp4 or a folder of pictures" if values.dtype == np.uint16 else ".npy"
            raise ConfigError(f"{suffix or 'a folder of pictures'} cannot hold {values.dtype}; choose {others}")
        if suffix == "":
            path.mkdir()
            digits = len(str(len(values) - 1))
            for number, frame in enumerate(values):
                _write_picture(path / f"frame-{number:0{digits}}.png", frame)
            return
        values, durations = _as_shown(values, metadata)
        if suffix == ".mp4":
            path.write_bytes(_encode_mp4(path, values, durations, metadata))
        elif suffix == ".gif":
            height, width = values.shape[1:3]
            if max(height, width) > _LONGEST_SIDE:
                raise ConfigError(f".gif cannot hold {width}×{height} pixels; choose .apng")
            times = [10 * min(ticks, _LONGEST) for ticks in _ticks(durations, 0.01)]
            path.write_bytes(_encode_pictures(values, "GIF", duration=times, loop=0))
        else:
            if values.shape[3] == 2:
                values = values[..., (0, 0, 0, 1)]
            # Pillow makes one of frames that show the same, unless they are drawn in another way. What differs then
            # is of no consequence: how an opaque frame is blended with the one before it, or what a transparent one,
            # that replaces all, leaves behind.
            way = {"blend" if values.shape[3] < 4 else "disposal": [number % 2 for number in range(len(values))]}
            level = png_level(values[..., 0].size)
            times = [_as_fraction(ticks) for ticks in _ticks(durations, 0.001)]
            options = {"loop": 0, "compress_level": level, **way}
            try:
                path.write_bytes(_encode_pictures(values, "PNG", duration=times, **options))
            except struct.error:  # earlier versions of Pillow count thousandths only
                times = [min(ticks, _LONGEST) for ticks in times]
                path.write_bytes(_encode_pictures(values, "PNG", duration=times, **options))

    def units(self, metadata: dict[str, Any], dimensions: int) -> tuple[str, ...]:
        return ("s", "pixel", "pixel")

    def cropped(self, metadata: dict[str, Any], region: Region) -> dict[str, Any]:
        time, *sides = region.shares
        size = [length * share for length, share in zip(metadata["size"], sides, strict=True)]
        part = {**metadata, "seconds": metadata["seconds"] * time, "size": size}
        if region.bends is not None or (region.low[0], region.high[0]) != (-1.0, 1.0):
            # Its frames are none of the source's, whose times they would be, but even.
            part = {key: value for key, value in part.items() if key not in ("shown", "durations", Bends.KEY)}
        return part

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
        require_room_in_order(path, chosen)
        return chosen, first / options.frame_rate, options.every / options.frame_rate

    def _gathered(self, path: Path, timed: Frames) -> tuple[np.ndarray, _Timeline]:
        """The frames that the options ask for, each as often as it has places in time, and their times."""
        options = self.options
        end = options.start + options.duration if options.duration else np.inf
        frames: list[np.ndarray] = []
        seconds: list[float] = []
        passed, until = 0, 0.0
        for second, shown, frame in timed:
            if second < options.start - _ROUNDING:
                continue
            if second >= end - _ROUNDING:
                break
            until = second + shown
            if passed % options.every == 0:
                if frames and frame.shape != frames[0].shape:
                    raise DataError(f"{path} changes from {_size(frames[0])} to {_size(frame)}; save it at one size")
                frames.append(frame)
                seconds.append(second)
                # What is kept already is no longer at hand, and as much again is needed to make one array of it.
                require_memory(path, len(frames) * frame.nbytes, _READ_LESS)
            passed += 1
        self._check_some(path, len(frames))
        # A last frame that is shown long is cut off at the end, though not to less than the others have.
        mean = (seconds[-1] - seconds[0]) / max(1, len(seconds) - 1)
        until = min(until, max(end, seconds[-1] + mean)) if options.every == 1 else 0.0
        timeline = _Timeline(seconds, until)
        require_memory(path, sum(timeline.shown) * frames[0].nbytes, _READ_LESS)
        shown = (frame for frame, times in zip(frames, timeline.shown, strict=True) for _ in range(times))
        return np.stack(list(shown)), timeline

    def _masked(self, path: Path, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The frames, and where `mask` says that they are known."""
        if not self.options.mask:
            return frames, None
        if self.options.mask == "alpha":
            if frames.shape[-1] not in (2, 4):
                raise DataError(f"modality.mask is alpha, and {path} has no transparency; leave it out, or give a file")
            return np.ascontiguousarray(frames[..., :-1]), frames[..., -1] > 0
        file = Path(self.options.mask)
        array = read_picture(file) if file.suffix.lower() in _PICTURES else read_mask(file)
        return frames, as_mask(file, array, frames.shape[:3])

    def _check_some(self, path: Path, count: int) -> None:
        if count == 0:
            asked = f" from modality.start={self.options.start:g} on" if self.options.start else ""
            raise DataError(f"{path} has no frames{asked}; check that it plays elsewhere")


class _Timeline:
    """Where frames that begin at certain seconds lie on an evenly divided axis of time.

    Args:
        seconds: at which each begins, rising.
        until: when the last one ceases to be shown; 0 if not known.
    """

    def __init__(self, seconds: list[float], until: float) -> None:
        self.first = seconds[0]
        count = len(seconds)
        mean = (seconds[-1] - seconds[0]) / max(1, count - 1) or until - seconds[0]
        mean = mean if mean > 0 else _UNTIMED
        until = until if until > seconds[-1] + _ROUNDING else seconds[-1] + mean
        lengths = np.diff([*seconds, until]).clip(min=_ROUNDING)
        self.durations: list[float] = lengths.tolist()
        self.step = mean
        self.shown = [1] * count
        self.off = self._off(lengths, np.ones(count), mean)
        self.uneven = self.off > 0.02 * mean + _ROUNDING
        if self.off > _UNEVEN * mean:
            self._divide(lengths)

    def _divide(self, lengths: np.ndarray) -> None:
        """Find the coarsest step of which all lengths are multiples, or one that is as fine as may be."""
        total = lengths.sum()
        most = _FINEST * len(lengths)
        for part in range(1, most + 1):
            shown = np.rint(lengths * part / lengths.min())
            if shown.sum() > most:
                break
            if self._off(lengths, shown, total / shown.sum()) <= 0.1 * total / shown.sum():
                break
        if shown.sum() > most:
            edges = np.rint(np.cumsum([0, *lengths]) * most / total)
            shown = np.diff(edges).clip(min=1)
        self.shown = [int(number) for number in shown]
        self.step = float(total / shown.sum())
        self.off = self._off(lengths, shown, self.step)

    @staticmethod
    def _off(lengths: np.ndarray, shown: np.ndarray, step: float) -> float:
        """Seconds by which a frame's end misses the place of the next one's beginning, at most."""
        return float(np.abs(np.cumsum(lengths) - np.cumsum(shown) * step).max())

    def notes(self) -> list[str]:
        """What a user is told of it."""
        low, high, count = min(self.durations), max(self.durations), len(self.shown)
        if sum(self.shown) > count:
            return [
                f"the {count} frames are shown for {low:.3g} to {high:.3g} s; they take {sum(self.shown)} places of "
                f"{self.step:.3g} s"
            ]
        if self.uneven:
            return [f"the {count} frames are shown for {low:.3g} to {high:.3g} s; each is at its own time"]
        return []

    def bend(self) -> tuple[list[float], list[float]]:
        """Even coordinates of time, and those on the axis of frames there: knots of `Bends`.

        Where some frames have several places, as in slides, a frame is what there is from its beginning on, and the
        next one is blended in over the last quarter of its last place. Else time flows evenly from each frame's
        beginning to the next one's.
        """
        shown, lengths = np.array(self.shown), np.array(self.durations)
        count = shown.sum()
        times, places = (np.cumsum([0, *counted]) for counted in (lengths, shown))
        if count > len(shown):
            until = times[1:] - _BLENDED * lengths / shown
            until[-1] = times[-1]
            times = np.stack([times[:-1], until], axis=1).ravel()
            places = np.stack([places[:-1], places[1:] - 1 + _STILL], axis=1).ravel()
        even, bent = ((2 * at + 1 - count) / count for at in (times / self.step, places))
        return even.tolist(), bent.tolist()


def _as_shown(values: np.ndarray, metadata: dict[str, Any]) -> tuple[np.ndarray, list[float]]:
    """Frames and the seconds for which each is shown: at the resolution of the source, each of its frames once."""
    seconds = metadata.get("seconds", len(values) / 25)
    shown = metadata.get("shown")
    if shown is None:
        return values, [seconds / len(values)] * len(values)
    ends = np.cumsum(shown)
    if ends[-1] != len(values):
        edges = np.interp(np.linspace(0, ends[-1], len(values) + 1), [0, *ends], np.cumsum([0, *metadata["durations"]]))
        return values, np.diff(edges).tolist()
    return values[ends - np.array(shown) // 2 - 1], metadata["durations"]


def _ticks(durations: list[float], tick: float) -> list[int]:
    """Durations in whole ticks, at least one each, whose rounding does not add up."""
    edges = np.rint(np.cumsum([0.0, *durations]) / tick)
    return [max(1, int(ticks)) for ticks in np.diff(edges)]


def _as_fraction(milliseconds: int) -> int:
    """Milliseconds rounded so that they are a fraction of a second of two numbers of 16 bits, as APNG has them."""
    for unit in (1, 10, 100, 1000):
        if milliseconds <= _LONGEST * unit:
            return round(milliseconds / unit) * unit
    return _LONGEST * 1000


def _opaque(dtype: np.dtype) -> int:
    return int(np.iinfo(dtype).max) if dtype.kind in "iu" else 1


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


def _timed_frames(path: Path, options: VideoOptions, about: dict[str, Any], notes: list[str]) -> Frames:
    if path.is_dir():
        return _frames_of_folder(path, options.frame_rate, notes)
    if path.suffix.lower() in _PILLOW:
        return _frames_of_pillow(path)
    return _frames_of_ffmpeg(path, options.start, about, notes)


def _frames_of_folder(path: Path, frame_rate: float, notes: list[str]) -> Frames:
    pictures = [entry for entry in path.iterdir() if entry.suffix.lower() in _PICTURES and entry.name[0] != "."]
    if not pictures:
        raise DataError(f"{path} holds no pictures; a folder of frames has them as {', '.join(_PICTURES)}")
    pictures.sort(key=_natural)
    notes += _gaps(pictures)
    for number, picture in enumerate(pictures):
        pixels = read_picture(picture)
        frame = pixels[:, :, None] if pixels.ndim == 2 else pixels
        if number == 0:
            first = frame
        if (frame.shape, frame.dtype) != (first.shape, first.dtype):
            raise DataError(
                f"{picture} has {_size(frame)}, {frame.dtype}, and those before it {_size(first)}, {first.dtype}; "
                "frames must all have one size and kind"
            )
        yield number / frame_rate, 1 / frame_rate, frame


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """A key by which 9 comes before 10."""
    parts = re.split(r"(\d+)", path.name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _gaps(pictures: list[Path]) -> list[str]:
    """A note where the numbers of the frames, which rise by some step, skip one."""
    numbers = [int(found[-1]) for picture in pictures if (found := re.findall(r"\d+", picture.stem))]
    steps = np.diff(numbers)
    if len(numbers) != len(pictures) or len(steps) < 2 or (steps == steps.min()).all():
        return []
    gap = int(np.argmax(steps > steps.min()))
    skipped = f"{pictures[gap + 1].name} follows {pictures[gap].name}"
    return [f"the frames' numbers have gaps ({skipped}); they are taken to be evenly spaced all the same"]


def _frames_of_pillow(path: Path) -> Frames:
    with decoding(path, "is damaged or truncated", *LOGGERS):
        second = 0.0
        for shown, pixels in apng.frames_of(path) if apng.is_animated(path) else _pictures_of(path):
            yield second, shown or _UNTIMED, pixels
            second += shown or _UNTIMED


def _pictures_of(path: Path) -> Iterator[apng.Frame]:
    with path.open("rb") as file, Pillow.open(file) as animation:
        if animation.format == "GIF":
            require_present(path, animation.width * animation.height, path.stat().st_size, _MOST_TIMES_MORE)
        gray = animation.format == "PNG" and animation.mode == "L"
        for frame in ImageSequence.Iterator(animation):
            pixels = np.asarray(frame.convert("L" if gray else "RGBA"))
            yield frame.info.get("duration", 0) / 1000, pixels[:, :, None] if gray else pixels


def _frames_of_ffmpeg(path: Path, start: float, about: dict[str, Any], notes: list[str]) -> Frames:
    av = _av(path)
    with decoding(path, "is damaged, or not a video that FFmpeg reads", *LOGGERS), contextlib.ExitStack() as opened:
        stream, frames = _opened(av, path, start, opened, notes)
        begin, unit = stream.start_time or 0, stream.time_base or 0
        second, shown = 0.0, 0.0
        for number, frame in enumerate(frames):
            if number == 0:
                turn = _turn(frame)
                _describe(stream, frame, turn, about, notes)
            second = number * _UNTIMED if frame.pts is None else float((frame.pts - begin) * unit)
            shown = float((frame.duration or 0) * unit) if frame.pts is not None else _UNTIMED
            yield second, shown, np.ascontiguousarray(_turned(_pixels(frame), turn))
        promised = float((stream.duration or 0) * unit)
        if second + 3 * shown < 0.95 * promised:
            notes.append(f"it ends after {second + shown:.3g} of the {promised:.3g} s that it says; it may be cut off")


def _opened(
    av: Any, path: Path, start: float, opened: contextlib.ExitStack, notes: list[str]
) -> tuple[Any, Iterator[Any]]:
    """A file's stream of pictures, and its frames from the last one before `start` seconds that stands by itself.

    Files without an index lead to any place when asked for one, and from there to the next frame that stands by itself.
    If that is too late, they are asked for an earlier place, and at last read from their beginning.
    """
    for place in sorted({start, max(0.0, start - _APART), 0.0}, reverse=True):
        attempt = opened.enter_context(contextlib.ExitStack())
        container = attempt.enter_context(av.open(str(path)))
        stream = container.streams.best("video")
        if stream is None:
            raise DataError(f"{path} has no video in it; give a file that has")
        stream.thread_type = "AUTO"
        begin, unit = stream.start_time or 0, stream.time_base or 0
        if place and unit:
            with contextlib.suppress(av.error.FFmpegError):
                container.seek(begin + int(place / unit), stream=stream)
        told = len(notes)
        frames = attempt.enter_context(contextlib.closing(_decoded(av, container, stream, notes)))
        if place == 0:
            return stream, frames
        first = None
        with contextlib.suppress(av.error.FFmpegError):
            first = next(frames, None)
        if first is not None and first.pts is not None and (first.pts - begin) * unit <= start + _ROUNDING:
            return stream, itertools.chain([first], frames)
        attempt.close()
        del notes[told:]
    raise AssertionError("the last place is the beginning")


def _decoded(av: Any, container: Any, stream: Any, notes: list[str]) -> Generator[Any, None, None]:
    """A stream's frames; as players do, without those that cannot be decoded, of which a note tells."""
    decoder = _decoder(av, stream)
    trouble: list[Exception] = []
    whole, damaged = 0, 0
    try:
        for packet in container.demux(stream):
            try:
                frames = decoder.decode(packet if packet.size else None)
            except (av.error.InvalidDataError, av.error.ArgumentError) as error:
                trouble.append(error)
                continue
            for frame in frames:
                whole, damaged = whole + (not frame.is_corrupt), damaged + frame.is_corrupt
                yield frame
        if trouble and not whole + damaged:
            raise trouble[0]
    finally:
        if trouble or damaged:
            parts = f"packets: {len(trouble)}, frames: {damaged}"
            notes.append(f"a part of it is damaged ({parts}); what cannot be decoded is left out")


def _decoder(av: Any, stream: Any) -> Any:
    """What decodes a stream. FFmpeg's own decoders of VP8 and VP9 leave the transparency of WebM out; libvpx's do
    not."""
    codec = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    transparent = stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1"
    if transparent and codec in av.codecs_available:
        return av.CodecContext.create(codec, "r")
    return stream


def _pixels(frame: Any) -> np.ndarray:
    """(H, W, C) pixels: gray, colours, and transparency if the format has it, in 16 bits where 8 are not enough."""
    parts = frame.format.components
    deep = max(part.bits for part in parts) > 8
    if len(parts) == 1 and frame.format.name.startswith(("gray", "mono")):
        name = "gray16le" if deep else "gray"
    elif any(part.is_alpha for part in parts) or frame.format.has_palette:
        name = "rgba64le" if deep else "rgba"
    else:
        name = "rgb48le" if deep else "rgb24"
    matrix = None if frame.format.is_rgb or len(parts) == 1 else _matrix(frame)
    pixels = frame.reformat(format=name, src_colorspace=matrix, dst_colorspace=matrix).to_ndarray()
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _matrix(frame: Any) -> int:
    """The matrix of a frame's colours, as FFmpeg numbers them: the one that it names, or what players take it to be."""
    named = int(frame.colorspace)
    if named in (_BT709, 4, 5, 6, 7, _BT2020):
        return _BT601 if named == 6 else named
    return _BT2020 if named == 10 else _customary_matrix(frame.height, frame.width)


def _customary_matrix(height: int, width: int) -> int:
    """What players take the colours of a video to be that does not say: those of HD from its sizes on."""
    return _BT709 if width >= 1280 or height > 576 else _BT601


def _turn(frame: Any) -> tuple[int, int, int, int]:
    """(a, b, c, d) of how a player shows the frame: the pixel at x, y at a·x + c·y, b·x + d·y, but for an offset.

    Telephones store frames as the sensor lies, and beside them how it was held; front cameras mirror.
    """
    for side in frame.side_data or ():
        if side.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = struct.unpack("=5i", bytes(side)[:20])
            return (_sign(a), 0, 0, _sign(d)) if abs(a) > abs(b) else (0, _sign(b), _sign(c), 0)
    return 1, 0, 0, 1


def _sign(number: int) -> int:
    return -1 if number < 0 else 1


def _turned(pixels: np.ndarray, turn: tuple[int, int, int, int]) -> np.ndarray:
    a, b, c, d = turn
    if b:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[::d, ::a]


_HIGH_RANGE = {16: "PQ", 18: "HLG"}


def _describe(
    stream: Any, frame: Any, turn: tuple[int, int, int, int], about: dict[str, Any], notes: list[str]
) -> None:
    """What a frame says of how its pixels are shown, for what is written and for the user."""
    colours = stream.codec_context
    about["colours"] = [_matrix(frame), int(colours.color_primaries), int(colours.color_trc)]
    if colours.color_trc in _HIGH_RANGE:
        curve = _HIGH_RANGE[int(colours.color_trc)]
        notes.append(f"colours are of high dynamic range ({curve}); values are as coded, and a written .mp4 says so")
    aspect = stream.sample_aspect_ratio
    if aspect and aspect != 1:
        aspect = 1 / aspect if turn[1] else aspect
        about["pixel_aspect"] = [aspect.numerator, aspect.denominator]
        notes.append(f"pixels are {float(aspect):.3g} times as wide as high; of the formats written, only .mp4 says so")
    if frame.interlaced_frame:
        notes.append("frames are interlaced, and read as they are; a deinterlaced copy is smoother in time")


def _write_picture(path: Path, frame: np.ndarray) -> None:
    if frame.dtype == np.uint8:
        path.write_bytes(_encode_pictures([frame], "PNG"))
        return
    height, width, channels = frame.shape
    writer = png.Writer(width, height, greyscale=channels < 3, alpha=channels in (2, 4), bitdepth=16)
    with path.open("wb") as file:
        writer.write(file, frame.reshape(height, -1))


def _encode_pictures(frames: Iterable[np.ndarray], format: str, **options: Any) -> bytes:
    pictures = [Pillow.fromarray(frame[:, :, 0] if frame.shape[2] == 1 else frame) for frame in frames]
    encoded = io.BytesIO()
    if len(pictures) > 1:
        pictures[0].save(encoded, format, save_all=True, append_images=pictures[1:], **options)
    else:
        pictures[0].save(encoded, format, **({"duration": options["duration"][0]} if format == "GIF" else {}))
    return encoded.getvalue()


def _encode_mp4(path: Path, frames: np.ndarray, durations: list[float], metadata: dict[str, Any]) -> bytes:
    """H.264 of high quality, in the colours that every player shows, or of full size where a side is odd."""
    av = _av(path)
    _, height, width, channels = frames.shape
    if channels in (2, 4):
        raise ConfigError(".mp4 cannot hold transparency; choose .apng or .gif")
    encoded = io.BytesIO()
    try:
        _mux(av, encoded, frames, durations, metadata)
    except (av.error.FFmpegError, ValueError) as error:
        raise ConfigError(f".mp4 cannot hold {width}×{height} pixels ({error}); choose .apng") from error
    return encoded.getvalue()


def _mux(av: Any, encoded: io.BytesIO, frames: np.ndarray, durations: list[float], metadata: dict[str, Any]) -> None:
    _, height, width, _ = frames.shape
    deep = frames.dtype == np.uint16
    matrix, primaries, transfer = metadata.get("colours", (_customary_matrix(height, width), 2, 2))
    unit, ticks = _clock(durations)
    with av.open(encoded, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=1 / (unit * ticks[0]))
        stream.width, stream.height = width, height
        stream.pix_fmt = ("yuv444p" if height % 2 or width % 2 else "yuv420p") + ("10le" if deep else "")
        # Reordered frames would leave the file as long as if they were evenly spaced.
        stream.options = {"crf": "17"} if len(set(ticks)) == 1 else {"crf": "17", "bf": "0"}
        context = stream.codec_context
        context.time_base = unit
        context.colorspace, context.color_range = matrix, _LIMITED
        context.color_primaries, context.color_trc = primaries, transfer
        if "pixel_aspect" in metadata:
            aspect = Fraction(*metadata["pixel_aspect"]) * Fraction(metadata["size"][1]) / width
            aspect = aspect * height / Fraction(metadata["size"][0])
            context.sample_aspect_ratio = aspect.limit_denominator(_FINEST_ASPECT)
        begins = np.cumsum([0, *ticks[:-1]]).tolist()
        lengths = dict(zip(begins, ticks, strict=True))

        def mux(packets: Any) -> None:
            for packet in packets:
                packet.duration = lengths[packet.pts]  # of the last one, the encoder knows none
                container.mux(packet)

        for pixels, begin in zip(frames, begins, strict=True):
            picture = np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3)))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb48le" if deep else "rgb24")
            frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=matrix, dst_color_range=_LIMITED)
            frame.colorspace, frame.color_range = matrix, _LIMITED
            frame.pts, frame.time_base = begin, unit
            mux(stream.encode(frame))
        mux(stream.encode())


def _clock(durations: list[float]) -> tuple[Fraction, list[int]]:
    """A unit of time, and how many of it each frame is shown for: one, where all are shown for as long."""
    if max(durations) - min(durations) < _ROUNDING:
        return Fraction(durations[0]).limit_denominator(1001), [1] * len(durations)
    return Fraction(1, 90_000), _ticks(durations, 1 / 90_000)


def _av(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise ConfigError(f"{path} is a video of a kind that needs: pip install 'inrkit[video]'") from error
    return av
