"""Seconds that the parts of a training take, on a clock of the device."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol

import torch

from inrkit.device import synchronize

_MOST_PENDING = 128
"""Spans of time that may be unknown at once, so that they take no memory to speak of."""


class Clock(Protocol):
    """Moments on a device's own time, which the processor need not wait for."""

    def mark(self) -> Any:
        """This moment, when the work that was launched so far is done."""

    def passed(self, moment: Any) -> bool:
        """Whether a moment has come."""

    def between(self, start: Any, stop: Any) -> float:
        """Seconds from one moment to another; waits for it."""


class ProcessorClock:
    """The processor's clock, which waits at each mark for what a device has been given to do.

    Args:
        device: that works.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> float:
        synchronize(self._device)
        return time.perf_counter()

    def passed(self, moment: float) -> bool:
        return True

    def between(self, start: float, stop: float) -> float:
        return stop - start


class EventClock:
    """The clock of a GPU, which notes the time when it comes to a mark among its work.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def passed(self, moment: torch.cuda.Event) -> bool:
        return moment.query()

    def between(self, start: torch.cuda.Event, stop: torch.cuda.Event) -> float:
        stop.synchronize()
        return start.elapsed_time(stop) / 1000


class Stopwatch:
    """Adds up the seconds of parts, as they become known.

    Args:
        device: whose time it is.
        clock: of the device, if not given.

    Attributes:
        seconds: of each part, as far as they are known; `settle` waits for the others.
    """

    def __init__(self, device: torch.device, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or (EventClock if device.type == "cuda" else ProcessorClock)(device)
        self._pending: deque[tuple[str, Any, Any, float]] = deque()
        self.seconds = {"train": 0.0, "selection": 0.0, "evaluation": 0.0}

    def mark(self) -> Any:
        """This moment, for `add`."""
        return self._clock.mark()

    def add(self, part: str, start: Any, stop: Any, share: float = 1.0) -> None:
        """Add a share of the time between two moments to a part."""
        self._pending.append((part, start, stop, share))
        while self._pending and (len(self._pending) > _MOST_PENDING or self._clock.passed(self._pending[0][2])):
            self._count()

    def settle(self, pending: int = 0) -> None:
        """Wait until all that was added is known, or all but the last so many."""
        while len(self._pending) > pending:
            self._count()

    def reset(self, seconds: dict[str, float]) -> None:
        """Go on from other seconds, and forget what is not known yet."""
        self._pending.clear()
        self.seconds = seconds

    def _count(self) -> None:
        part, start, stop, share = self._pending.popleft()
        self.seconds[part] += self._clock.between(start, stop) * share
