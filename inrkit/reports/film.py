"""Film: how the fit came to be, as a moving picture."""

from __future__ import annotations

import io
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inrkit.config import Config
from inrkit.errors import ConfigError
from inrkit.files import written_whole
from inrkit.runs import drawing
from inrkit.runs.preview import Preview
from inrkit.runs.run import Run
from inrkit.runs.wording import duration, measured
from inrkit.runs.writers import Writer
from inrkit.training.member import Member

if TYPE_CHECKING:
    from PIL import Image

NAME = "film"
"""Of the file, without its suffix."""

_LONGEST = 480
"""Pixels of the picture's longer side."""
_FRAMES = 120
"""Frames that are kept at a time; before there are more, every second one is dropped."""
_GROWTH = 1.12
"""From the step of a frame to that of the next: a fit changes most at its beginning."""
_SHARE = 1 / 3
"""Of the time, that frames take at most."""
_SECONDS, _LAST = 0.08, 1.6
"""For which a frame is shown, and the last one."""
_BYTES = 4 << 20
"""Of the file; a larger one is made again with smaller frames."""
_STRIP = 22
"""Height of the strip below the picture, in pixels."""


class Film(Writer):
    """Draws the fit at moments of its training, and joins them to `film.gif`, `film.webp` or `film.mp4` at the end.

    Frames follow each other faster at the beginning. A training that goes on after an interruption has a film of what
    came after it; where nothing did, the film that is there stays.

    Raises:
        ConfigError: an MP4 is asked for and the package that encodes it is missing.
    """

    def __init__(self, config: Config, run: Run) -> None:
        super().__init__(config, run)
        self._suffix = str(config.log.film)
        if self._suffix == "mp4":
            _av()
        self._frames: list[tuple[np.ndarray, str]] = []
        self._growth = _GROWTH
        self._preview: Preview | None = None
        self._quality = ""
        self._step = 0
        self._next = 1
        self._began = self._took = 0.0

    @property
    def _path(self) -> Path:
        return self.run.folder / f"{NAME}.{self._suffix}"

    def on_start(self, member: Member) -> None:
        self._began = time.monotonic()
        self._step, self._next = member.step, member.step + 1

    def on_evaluation(self, member: Member, row: dict[str, float]) -> None:
        self._quality = measured(dict(list(row.items())[:3]))

    def on_step(self, member: Member, selected: int) -> None:
        if member.step < self._next:
            return
        now = time.monotonic()
        if not self._frames or self._took <= _SHARE * (now - self._began):
            self._draw(member)
            self._took += time.monotonic() - now
            self._next = max(member.step + 1, round(member.step * self._growth))

    def on_end(self, member: Member) -> None:
        # A run that was killed between its last checkpoint and its film has none yet, and no step follows.
        if member.step != self._step or not (self._frames or self._path.exists()):
            self._draw(member)

    def conclude(self, result: dict[str, Any]) -> None:
        if not self._frames or result["status"] == "failed":
            return
        pixels, _ = self._frames[-1]
        self._frames[-1] = pixels, _text(self._step, result["seconds"]["train"], self._quality)
        with written_whole(self._path) as aside:
            aside.write_bytes(film(self._frames, self._suffix))

    def _draw(self, member: Member) -> None:
        looks = self.config.modality.plugin.looks
        self._preview = self._preview or Preview(member, looks, _LONGEST, smooth=True)
        if len(self._frames) == _FRAMES:
            del self._frames[1::2]
            self._growth **= 2
        text = _text(member.step, member.seconds["train"], self._quality)
        self._frames.append((self._preview.pixels(), text))
        self._step = member.step


def _text(step: int, seconds: float, quality: str) -> str:
    return "   ".join([_clock(seconds), f"step {step:,}", *filter(None, [quality])])


def _clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else duration(seconds)


def film(frames: list[tuple[np.ndarray, str]], suffix: str, most: int = _BYTES) -> bytes:
    """Frames as a file that moves.

    Args:
        frames: (H, W, C) uint8 pictures of one shape, each with a line of text to stand below it.
        suffix: "gif", "webp" or "mp4".
        most: bytes of the file; the frames become smaller until they fit, down to a quarter of their sides.
    """
    encode = {"gif": _gif, "webp": _webp, "mp4": _mp4}[suffix]
    for scale in (1.0, 0.7, 0.5, 0.35, 0.25):
        content = encode([_frame(pixels, text, scale) for pixels, text in frames])
        if len(content) <= most:
            break
    return content


def _frame(pixels: np.ndarray, text: str, scale: float) -> Image.Image:
    """A picture with a line of text below it, both sides even."""
    from PIL import Image, ImageDraw, ImageFont

    picture = drawing.as_image(pixels)
    if picture.mode == "RGBA":
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture)
    picture = picture.convert("RGB")
    side = max(picture.size)
    if scale != 1 or side < _LONGEST / 2:  # pixels of a small picture are shown as squares
        factor = scale * max(1, _LONGEST // side)
        size = [max(2, round(length * factor)) for length in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX)
    width, height = (length + length % 2 for length in picture.size)
    framed = Image.new("RGB", (width, height + _STRIP), (20, 24, 31))
    framed.paste(picture, (0, 0))
    draw, font = ImageDraw.Draw(framed), ImageFont.load_default(12)
    parts = text.split("   ")
    while len(parts) > 1 and draw.textlength("   ".join(parts), font) > width - 16:
        parts.pop(-1 if len(parts) == 2 else 1)
    draw.text((8, height + _STRIP // 2), "   ".join(parts), (233, 236, 241), font, anchor="lm")
    return framed


def _times(count: int) -> list[int]:
    """Milliseconds that each frame is shown."""
    return [round(1000 * _SECONDS)] * (count - 1) + [round(1000 * _LAST)]


def _gif(frames: list[Image.Image]) -> bytes:
    from PIL import Image

    # One palette for all, from the last frame and one on the way: colours do not jump, and the file is smaller.
    way = frames[len(frames) // 2].resize(frames[-1].size)
    both = Image.new("RGB", (way.width, 2 * way.height))
    both.paste(frames[-1], (0, 0))
    both.paste(way, (0, way.height))
    palette = both.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    return _saved(drawn, "GIF", optimize=False, disposal=1)


def _webp(frames: list[Image.Image]) -> bytes:
    return _saved(frames, "WEBP", quality=82, method=3)


def _saved(frames: list[Image.Image], format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    durations = _times(len(frames))
    frames[0].save(file, format, save_all=True, append_images=frames[1:], duration=durations, loop=0, **options)
    return file.getvalue()


def _mp4(frames: list[Image.Image]) -> bytes:
    av = _av()
    file = io.BytesIO()
    rate = Fraction(1 / _SECONDS).limit_denominator(100)
    still = [frames[-1]] * (round(_LAST * rate) - 1)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18"}
        for number, frame in enumerate([*frames, *still]):
            shown = av.VideoFrame.from_image(frame)
            shown.pts, shown.time_base = number, 1 / rate
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return file.getvalue()


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        mend = "or choose log.film=gif or webp"
        raise ConfigError(f"log.film=mp4 needs: pip install 'inrkit[video]'; {mend}") from error
    return av


def film_uri(run: Run) -> tuple[str, str]:
    """The film of a run as a data URI, and its kind, "image" or "video"; empty if there is none."""
    for suffix, kind in (("gif", "image/gif"), ("webp", "image/webp"), ("mp4", "video/mp4")):
        path = run.folder / f"{NAME}.{suffix}"
        if path.is_file() and path.stat().st_size <= _BYTES:
            return drawing.data_uri(kind, path.read_bytes()), kind.partition("/")[0]
    return "", ""
