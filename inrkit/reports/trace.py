"""Trace: what only the training itself can tell: the loss, the learning rate, and where the selector looked."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrkit.files import written_whole
from inrkit.networks import Tiles
from inrkit.selectors import Selection
from inrkit.signals.decoding import archived_array
from inrkit.signals.lattice import places_of
from inrkit.training.member import Listener, Member

FILE = "trace.npz"

_ROWS = 2048
"""Steps that are kept of a training, evenly spread: between so many and twice as many of a long one."""
_WAITING = 64
"""Losses that stay on the device before they are read, so that a GPU need not be waited for at every step."""
_KEY_STEPS = 4096
_CELLS = 1 << 20
"""Coordinates up to which each is counted; of larger lattices boxes are counted."""
_COUNTED = 1 << 14
"""Coordinates of a step that are counted of such a lattice, evenly spread over the selected."""
_MOMENTS = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Shares of the training at which a selection is kept, besides the last one."""
_SHOWN = 160
"""Cells along the longest axis of a selection that is kept."""


@dataclass
class Traced:
    """What was kept of a training.

    Args:
        rows: (n, 5) step, seconds, loss, share of the coordinates, learning rate.
        key_steps: steps that trained on more coordinates than the steps before and after them.
        counts: how often each coordinate or tile was selected, on a lattice that may be coarser than the signal's; None
            where that was not counted.
        since: the step before the first that was counted.
        moments: steps, and the share of each coarse cell that was selected at them, in [0, 1].
        about: other plain facts.
    """

    rows: np.ndarray
    key_steps: list[int]
    counts: np.ndarray | None = None
    since: int = 0
    moments: list[tuple[int, np.ndarray]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)


def read(path: Path) -> Traced | None:
    """What a file holds; None if there is none, or it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            held = {name: archived_array(path, archive, name) for name in archive.files}
        about = json.loads(str(held["about"]))
        shares = list(held["moments"] / np.float32(255))
        traced = Traced(
            np.asarray(held["rows"], dtype=np.float64),
            [int(step) for step in held["key_steps"].tolist()],
            held.get("counts"),
            int(about["since"]),
            list(zip([int(step) for step in held["moment_steps"].tolist()], shares, strict=True)),
            about,
        )
        return traced if _is_sound(traced) else None
    except Exception:  # damaged bytes may raise anything, and a page does without
        return None


def _is_sound(traced: Traced) -> bool:
    """Whether arrays have the shapes and types that a training's have, and a curve's places are finite."""
    counts = traced.counts
    return (
        traced.rows.ndim == 2
        and traced.rows.shape[1] == 5
        and bool(np.isfinite(traced.rows[:, [0, 1, 3, 4]]).all())
        and isinstance(traced.about.get("machine", ""), str)
        and (counts is None or (counts.dtype.kind in "uif" and 1 <= counts.ndim <= 3 and counts.size > 0))
        and (counts is None or bool(np.isfinite(counts).all()))
        and all(1 <= share.ndim <= 3 and share.size for _, share in traced.moments)
    )


class Trace(Listener):
    """Keeps curves of a training, how often each coordinate was selected, and the selection at some moments.

    Args:
        path: of the file that an interrupted training left, to go on from if it goes on from the same step.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[tuple[float, ...]] = []
        self._waiting: list[tuple[float, float, Tensor, float, float]] = []
        self._every = 1
        self._key_steps: list[int] = []
        self._sizes = (0, 0)
        self._boxes: _Boxes | None = None
        self._since = 0
        self._moments: list[tuple[int, np.ndarray]] = []
        self._last: Selection | None = None
        self._of = "coordinate"
        """What is selected."""

    @property
    def traced(self) -> Traced:
        """What was kept up to now."""
        self._flush()
        return Traced(
            np.array(self._rows, dtype=np.float64).reshape(-1, 5),
            self._key_steps,
            None if self._boxes is None else self._boxes.counts,
            self._since,
            self._moments,
            {"machine": machine(), "since": self._since, "every": self._every, "of": self._of},
        )

    def on_start(self, member: Member) -> None:
        dataset = member.signal.dataset
        self._of = "coordinate" if member.view is None else "tile"
        if self._boxes is None and member.view is not None and len(member.view.tiling.shape) <= 3:
            self._boxes = _Boxes(member.view.tiling.shape, None)
            self._since = member.step
        elif (
            self._boxes is None
            and member.view is None
            and dataset.grid_shape
            and len(dataset.grid_shape) <= 3
            and not dataset.resample_every
        ):
            self._boxes = _Boxes(dataset.grid_shape, dataset.known)
            self._since = member.step
        earlier = read(self.path) if member.step and not self._rows else None
        if earlier is not None and earlier.about.get("step") == member.step:
            self._rows = [tuple(row) for row in earlier.rows.tolist()]
            self._key_steps, self._every = earlier.key_steps, int(earlier.about["every"])
            self._moments = earlier.moments[: len(_MOMENTS)]
            if self._boxes is not None and earlier.counts is not None and earlier.counts.shape == self._boxes.shape:
                self._boxes.add(earlier.counts)
                self._since = earlier.since

    def on_selection(self, member: Member, selection: Selection, loss: Tensor) -> None:
        selection = _placed(member, selection)
        size, count, step = len(selection.indices), member.selector.count, member.step
        if step % self._every == 0 or step == 1:
            rate = float(member.optimizer.param_groups[0]["lr"])
            self._waiting.append((step, member.seconds["train"], loss.detach().clone(), size / count, rate))
            if len(self._waiting) >= _WAITING:
                self._flush()
        before, last = self._sizes
        if last > 1.01 * before and last > 1.01 * size and len(self._key_steps) < _KEY_STEPS:
            self._key_steps.append(step - 1)
        self._sizes = (last, size)
        self._last = selection
        if self._boxes is not None:
            self._boxes.count(selection)
            done = member.seconds["train"] / member.budget if member.budget else step / member.steps
            due = len(self._moments) < len(_MOMENTS) and done >= _MOMENTS[len(self._moments)]
            if due and not selection.whole:
                self._moments.append((step, self._boxes.shares(selection)))

    def on_end(self, member: Member) -> None:
        if self._last is None or self._boxes is None or self._last.whole:
            return
        if not self._moments or self._moments[-1][0] != member.step:
            self._moments.append((member.step, self._boxes.shares(self._last)))

    def save(self, step: int) -> None:
        """Write the file, of a training that has done so many steps."""
        traced = self.traced
        kept: dict[str, Any] = {} if traced.counts is None else {"counts": traced.counts}
        with written_whole(self.path) as aside, aside.open("wb") as file:
            np.savez_compressed(
                file,
                rows=traced.rows,
                key_steps=np.array(traced.key_steps, dtype=np.int64),
                moment_steps=np.array([step for step, _ in traced.moments], dtype=np.int64),
                moments=np.array([np.rint(255 * share) for _, share in traced.moments], dtype=np.uint8),
                about=np.array(json.dumps({**traced.about, "step": step})),
                **kept,
            )

    def _flush(self) -> None:
        if self._waiting:
            losses = torch.stack([row[2] for row in self._waiting]).tolist()
            self._rows += [(*row[:2], loss, *row[3:]) for row, loss in zip(self._waiting, losses, strict=True)]
            self._waiting.clear()
        while len(self._rows) > 2 * _ROWS:
            self._every *= 2
            self._rows = [row for row in self._rows if row[0] % self._every == 0 or row[0] == 1]


def _placed(member: Member, selection: Selection) -> Selection:
    """The selection as cells of a lattice: that of the signal, or that of its tiles where these are selected."""
    if not isinstance(member.network, Tiles) or member.view is None:
        return selection
    return Selection(member.network.owners[selection.indices], whole=len(selection.indices) == len(member.view.tiling))


class _Boxes:
    """Counts selected coordinates of a lattice in boxes of so many cells along each axis, mostly one.

    Args:
        lattice: its shape, of one to three axes.
        known: (K,) the lattice's indices that the signal's count; None for all.
    """

    def __init__(self, lattice: tuple[int, ...], known: Tensor | None) -> None:
        self.lattice = lattice
        self.known = known
        self.side = 1
        while math.prod(_divided(lattice, self.side)) > _CELLS:
            self.side += 1
        self.shape = _divided(lattice, self.side)
        self._hits: Tensor | None = None
        self._whole = 0
        self._earlier: np.ndarray | None = None

    @property
    def counts(self) -> np.ndarray:
        """(*shape,) float32, how often a coordinate of each box was selected, on average."""
        hits = np.zeros(self.shape) if self._hits is None else self._hits.cpu().numpy().reshape(self.shape)
        counts = hits / _volumes(self.lattice, self.side) + self._whole
        return (counts if self._earlier is None else counts + self._earlier).astype(np.float32)

    def add(self, earlier: np.ndarray) -> None:
        """Count on from earlier counts."""
        self._earlier = earlier

    def count(self, selection: Selection) -> None:
        if selection.whole:
            self._whole += 1
            return
        indices = selection.indices
        if self._hits is None:
            self._hits = torch.zeros(math.prod(self.shape), device=indices.device)
        every = 1 if self.side == 1 else -(-len(indices) // _COUNTED)
        boxes = self._boxes_of(indices[::every], self.side, self.shape)
        # One number for all; sums of whole numbers in float32 do not depend on their order.
        self._hits.index_add_(0, boxes, torch.full((1,), float(every), device=indices.device).expand(len(boxes)))

    def shares(self, selection: Selection) -> np.ndarray:
        """The share of the selected in each of at most `_SHOWN` boxes along each axis, in [0, 1]."""
        side = -(-max(self.lattice) // _SHOWN) if len(self.lattice) > 1 else -(-self.lattice[0] // 1024)
        shape = _divided(self.lattice, side)
        boxes = self._boxes_of(selection.indices, side, shape)
        hits = torch.bincount(boxes, minlength=math.prod(shape)).cpu().numpy().reshape(shape)
        shares: np.ndarray = (hits / _volumes(self.lattice, side)).clip(0, 1).astype(np.float32)
        return shares

    def _boxes_of(self, indices: Tensor, side: int, shape: tuple[int, ...]) -> Tensor:
        """(k,) numbers of the boxes that (k,) indices of the signal lie in."""
        cells = indices if self.known is None else self.known[indices]
        if side == 1:
            return cells
        numbers = torch.zeros_like(cells)
        for along, length in zip(places_of(cells, self.lattice), shape, strict=True):
            numbers = numbers * length + torch.div(along, side, rounding_mode="floor")
        return numbers


def _divided(lattice: tuple[int, ...], side: int) -> tuple[int, ...]:
    return tuple(-(-length // side) for length in lattice)


def _volumes(lattice: tuple[int, ...], side: int) -> np.ndarray:
    """How many cells each box has; those at the far ends may have fewer."""
    volumes = np.ones(())
    for length in lattice:
        widths = np.full(-(-length // side), side)
        widths[-1] = length - side * (len(widths) - 1)
        volumes = volumes[..., None] * widths
    return volumes


def machine() -> str:
    """This machine, in a line."""
    processor = platform.processor() or platform.machine()
    return f"{platform.system()} on {processor}, {torch.get_num_threads()} threads"
