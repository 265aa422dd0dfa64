"""Preview: what a network makes of its signal while it trains, small enough to be drawn again and again."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from inrkit.evaluation.evaluate import NetworkPredictor
from inrkit.runs import drawing
from inrkit.signals.lattice import lattice_coordinates
from inrkit.training.member import Member

_SAMPLES = 1 << 17
"""Values of one axis that are predicted, from its middle."""
_PIXELS = 160
"""Pixels of the longer side of a picture whose pixels are seen one by one."""
_FEW = 1 << 16
"""Values that tell from where to where a signal without a range of its own is drawn."""
_ROUGH, _SMOOTH = (40, 180), (56, 280)
"""Cells along each axis of the lattice that a surface is drawn from, and pixels of each side of its picture."""
_EYE, _ANGLE = (2.9, 2.1, 3.75), 32.0
"""From where a surface is looked at, and how many degrees are seen; the second axis points up."""
_PAPER, _INK = (236, 239, 243), (124, 156, 204)
_WAVE = (140, 188, 255)


class Preview:
    """Draws what the network of a member in training makes of its signal.

    A picture is drawn as it is, a sound as its waveform and its spectrogram, a video by its middle frame, distances to
    a surface by that surface, another volume by its three middle planes; of more axes the last two. Of free points
    with two axes the first goes to the right and the second upwards.

    Args:
        member: in training. Drawing changes nothing of it.
        looks: how people look at the signal; see `Modality.looks`.
        longest: pixels of the picture's longer side, at most.
        smooth: whether a pixel is the mean of four places, where the signal has so many.
    """

    def __init__(self, member: Member, looks: str, longest: int, smooth: bool = False) -> None:
        dataset = member.signal.dataset
        self._member, self._looks, self._longest, self._smooth = member, looks, longest, smooth
        self._axes, self._channels = dataset.dimensions, dataset.channels
        self._free = dataset.grid_shape is None
        self._lattice = dataset.grid_shape or (longest,) * self._axes
        self._sizes = [2 * float(np.linalg.norm(dataset.affine[:, axis])) or 1.0 for axis in range(self._axes)]
        few = dataset.stored(slice(0, len(dataset), max(1, len(dataset) // _FEW))).to(torch.float32).cpu().numpy()
        few = few[np.isfinite(few).all(axis=1)]
        few = few if len(few) else np.zeros((1, 1), dtype=np.float32)
        self._positive = bool(few.min() >= 0)
        if dataset.value_range is not None and dataset.full_scale and looks != "slices":
            self._low, self._high = dataset.value_range
        elif self._axes > 1:
            self._low, self._high = drawing.usual_range(few)
        else:
            self._low, self._high = float(few.min()), float(few.max())
        self._loudest = self._level_of_signal() if self._sounds else None

    @property
    def _sounds(self) -> bool:
        return self._looks == "sound" and self._axes == 1

    def pixels(self) -> np.ndarray:
        """(H, W, C) uint8 picture of this moment, of one, three or four channels."""
        if self._axes == 1:
            return self._wave()
        if self._axes == 3 and self._looks == "surface" and self._channels == 1:
            return self._surface()
        if self._axes == 3 and self._looks != "frames":
            return self._planes()
        if self._axes == 2 and self._free:
            values = self._plane(1, 0, self._longest)[::-1]  # as plots have it: the first axis to the right
            if self._channels == 1:
                return drawing.colours(values[..., 0] - self._low, self._high - self._low)
            return self._as_bytes(values)
        return self._as_bytes(self._plane(self._axes - 2, self._axes - 1, self._longest))

    def uri(self) -> str:
        """The picture of this moment as a data URI."""
        image = drawing.as_image(self.pixels())
        return drawing.picture_uri(image, lossless=max(image.size) <= _PIXELS or image.mode == "RGBA")

    def _predict(self, coordinates: Tensor) -> np.ndarray:
        member = self._member
        predictor = NetworkPredictor(member.network, member.signal, member.chunk)
        values: np.ndarray = predictor(coordinates).cpu().numpy()
        return values

    def _plane(self, down: int, right: int, longest: int) -> np.ndarray:
        """(H, W, C) values of the middle plane of two axes."""
        lengths = self._lattice[down], self._lattice[right]
        sizes = np.array(lengths if self._axes == 2 else (self._sizes[down], self._sizes[right]), dtype=np.float64)
        sizes = np.maximum(sizes, sizes.max() / 20)  # or nobody could see a strip
        shape = np.maximum(1, np.rint(sizes * (min(longest, max(lengths)) / sizes.max()))).astype(int).tolist()
        fold = 2 if self._smooth and all(n >= 2 * m for n, m in zip(lengths, shape, strict=True)) else 1
        fine = fold * shape[0], fold * shape[1]
        middle = [(2 * (length // 2) + 1 - length) / length for length in self._lattice]
        coordinates = torch.tensor(middle, dtype=torch.float32).repeat(math.prod(fine), 1)
        coordinates[:, [down, right]] = lattice_coordinates(torch.arange(len(coordinates)), fine)
        values = self._predict(coordinates)
        return values.reshape(shape[0], fold, shape[1], fold, -1).mean(axis=(1, 3))

    def _planes(self) -> np.ndarray:
        """The middle planes of three axes, side by side."""
        side = max(8, self._longest // 3 - 4)
        drawn = [self._as_bytes(self._plane(*axes, side)) for axes in ((0, 1), (0, 2), (1, 2))]
        tallest = max(picture.shape[0] for picture in drawn)
        gap = np.zeros((tallest, 6, drawn[0].shape[2]), dtype=np.uint8)
        parts: list[np.ndarray] = []
        for picture in drawn:
            above = (tallest - picture.shape[0]) // 2
            below = tallest - picture.shape[0] - above
            parts += [np.pad(picture, ((above, below), (0, 0), (0, 0))), gap]
        return np.concatenate(parts[:-1], axis=1)

    def _as_bytes(self, values: np.ndarray) -> np.ndarray:
        pixels = drawing.as_bytes(values, self._low, self._high)
        return pixels if pixels.shape[-1] in (3, 4) else pixels[..., :1]

    def _along(self, most: int) -> np.ndarray:
        """(n, C) values at so many places of the only axis, evenly spread."""
        count = min(most, self._lattice[0])
        return self._predict(lattice_coordinates(torch.arange(count), (count,)))

    def _middle(self) -> range:
        """The part of a sound that is drawn."""
        length = self._lattice[0]
        count = min(length, _SAMPLES)
        return range((length - count) // 2, (length - count) // 2 + count)

    @property
    def _rate(self) -> int:
        return max(1, round(self._lattice[0] / self._sizes[0]))

    def _level_of_signal(self) -> float | None:
        part, dataset = self._middle(), self._member.signal.dataset
        if len(part) < drawing.SHORTEST:
            return None
        samples = dataset.stored(slice(part.start, part.stop)).to(torch.float32).cpu().numpy().mean(axis=1)
        return float(drawing.spectrum(samples, self._rate).max())

    def _wave(self) -> np.ndarray:
        """One axis: the range of the first channel's values in each column; below a sound's, its spectrum over time."""
        if self._sounds:
            part = self._middle()
            values = self._predict(lattice_coordinates(torch.arange(part.start, part.stop), self._lattice))
        else:
            values = self._along(max(self._longest, 1 << 14))
        height = max(40, round(self._longest * (0.25 if self._loudest is not None else 0.45)))
        wave = self._band(values[:, 0].astype(np.float64), height)
        if self._loudest is None:
            return wave
        levels = drawing.spectrum(values.mean(axis=1), self._rate)
        spectrogram = drawing.spectrogram(levels, self._loudest)
        picture = drawing.as_image(spectrogram).resize((self._longest, round(self._longest * 0.4)))
        return np.concatenate([wave, np.asarray(picture)])

    def _band(self, column: np.ndarray, height: int) -> np.ndarray:
        starts, low, high = drawing.ranges(column, self._longest)
        width = len(starts)
        span = (self._high - self._low) or 1.0
        tops, feet = (np.clip((self._high - edge) / span * 0.94 + 0.03, 0, 1) * (height - 1) for edge in (high, low))
        before, after = np.roll(feet, 1), np.roll(tops, 1)
        before[0], after[0] = feet[0], tops[0]
        tops, feet = np.minimum(tops, before), np.maximum(feet, after)  # columns meet, as a line does
        rows = np.arange(height)[:, None]
        inside = (rows >= np.floor(tops)) & (rows <= np.ceil(feet))
        drawn = np.where(inside[..., None], np.array(_WAVE, np.uint8), np.array(drawing.NIGHT[0], np.uint8))
        return drawn if width == self._longest else np.repeat(drawn, -(-self._longest // width), axis=1)

    def _surface(self) -> np.ndarray:
        """Where the values pass zero, seen from an eye and lit from there; of distances without a sign, a shell."""
        cells, side = _SMOOTH if self._smooth else _ROUGH
        values = self._predict(lattice_coordinates(torch.arange(cells**3), (cells,) * 3))
        level = 0.6 * self._high if self._positive else 0.0
        volume = torch.from_numpy(values.reshape(1, 1, cells, cells, cells)) - level
        return _lit(volume, min(self._longest, side))


def _lit(volume: Tensor, side: int) -> np.ndarray:
    """(side, side, 3) uint8 picture of where a (1, 1, X, Y, Z) volume over [−1, 1]³ becomes negative."""
    eye = torch.tensor(_EYE)
    forward = normalize(-eye, dim=0)
    right = normalize(torch.linalg.cross(forward, torch.tensor((0.0, 1.0, 0.0))), dim=0)
    up = torch.linalg.cross(right, forward)
    across = (2 * torch.arange(side) + 1 - side) / side * math.tan(math.radians(_ANGLE / 2))
    rays = normalize(forward - across[:, None, None] * up + across[None, :, None] * right, dim=-1).reshape(-1, 3)
    one, other = ((face - eye) / rays for face in (-1.0, 1.0))
    near, far = torch.minimum(one, other).amax(dim=1), torch.maximum(one, other).amin(dim=1)

    def at(points: Tensor) -> Tensor:
        # `grid_sample` names the last axis first.
        return grid_sample(volume, points.flip(-1)[None, None, None], align_corners=False, padding_mode="border").view(
            -1
        )

    going = (near < far).nonzero().view(-1)
    depth = near[going]
    before = torch.full_like(depth, math.inf)
    hit = torch.full((side * side,), math.nan)
    step = 1.5 / volume.shape[-1]
    while len(going):
        now = at(eye + depth[:, None] * rays[going])
        crossed = now <= 0
        share = torch.where(before[crossed].isinf(), 0.0, now[crossed] / (now[crossed] - before[crossed]))
        hit[going[crossed]] = depth[crossed] - step * share.nan_to_num(0.0)
        left = ~crossed & (depth + step < far[going])
        going, depth, before = going[left], depth[left] + step, now[left]
    seen = hit.isfinite()
    points = eye + hit[seen][:, None] * rays[seen]
    reach = 1.0 / volume.shape[-1]
    offsets = reach * torch.eye(3)
    slopes = torch.stack([at(points + offset) - at(points - offset) for offset in offsets], dim=-1)
    facing = (normalize(slopes, dim=-1) * -rays[seen]).sum(dim=-1).clamp(0, 1)
    above = normalize(slopes, dim=-1)[:, 1]
    light = (0.28 + 0.62 * facing + 0.14 * above).clamp(0, 1.1)
    pixels = torch.tensor(_PAPER, dtype=torch.float32).repeat(side * side, 1)
    pixels[seen] = (light[:, None] * torch.tensor(_INK, dtype=torch.float32) * 1.18).clamp(0, 255)
    drawn: np.ndarray = pixels.round().to(torch.uint8).view(side, side, 3).numpy()
    return drawn


class Pace:
    """Tells when something may be done again, so that it takes a small share of the time.

    The first time does not count: it imports what it needs, and tells nothing of the times to come.

    Args:
        share: of the time, at most.
        spacing: seconds between two times, at least.
    """

    def __init__(self, share: float, spacing: float) -> None:
        self._share, self._spacing = share, spacing
        self._next = 0.0
        self._first = True

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next

    @contextlib.contextmanager
    def spent(self) -> Iterator[None]:
        """Count the time that the block takes."""
        began = time.monotonic()
        try:
            yield
        finally:
            ended = time.monotonic()
            took, self._first = 0.0 if self._first else ended - began, False
            self._next = ended + max(self._spacing, took / self._share)
