"""Seconds on a clock whose moments come later than they are asked for, as a GPU's do."""

import pytest
import torch

from inrkit.training import stopwatch
from inrkit.training.stopwatch import _MOST_PENDING, Stopwatch

CPU = torch.device("cpu")


class LateClock:
    """Marks are 1 s apart on the device, which has come to `reached` of them; to wait for one lets it come there."""

    def __init__(self):
        self.marks, self.reached, self.waits = 0, 0, 0

    def mark(self):
        self.marks += 1
        return self.marks

    def passed(self, moment):
        return moment <= self.reached

    def between(self, start, stop):
        self.waits += stop > self.reached
        self.reached = max(self.reached, stop)
        return float(stop - start)


def test_time_is_known_when_its_end_has_come_and_not_waited_for():
    clock = LateClock()
    watch = Stopwatch(CPU, clock)
    for _ in range(3):
        watch.add("train", watch.mark(), watch.mark())
    assert watch.seconds["train"] == 0
    clock.reached = 4
    watch.add("selection", watch.mark(), watch.mark())
    assert watch.seconds == {"train": 2.0, "selection": 0.0, "evaluation": 0.0}
    assert clock.waits == 0
    watch.settle()
    assert watch.seconds == {"train": 3.0, "selection": 1.0, "evaluation": 0.0}


def test_only_so_many_steps_are_launched_ahead():
    clock = LateClock()
    watch = Stopwatch(CPU, clock)
    for _ in range(3 * _MOST_PENDING):
        watch.add("train", watch.mark(), watch.mark())
    assert watch.seconds["train"] == 2 * _MOST_PENDING


def test_all_but_the_last_are_waited_for():
    clock = LateClock()
    watch = Stopwatch(CPU, clock)
    for _ in range(10):
        watch.add("train", watch.mark(), watch.mark())
    watch.settle(3)
    assert watch.seconds["train"] == 7


def test_several_share_a_time_and_what_is_not_known_is_forgotten_on_going_back():
    clock = LateClock()
    watches = [Stopwatch(CPU, clock) for _ in range(4)]
    start, stop = watches[0].mark(), watches[0].mark()
    for watch in watches:
        watch.add("train", start, stop, 1 / 4)
    watches[0].reset({"train": 5.0, "selection": 1.0, "evaluation": 0.0})
    for watch in watches:
        watch.settle()
    assert [watch.seconds["train"] for watch in watches] == pytest.approx([5.0, 0.25, 0.25, 0.25])


def test_the_processors_time_is_known_at_once():
    watch = Stopwatch(CPU)
    watch.add("train", watch.mark(), watch.mark())
    assert watch.seconds["train"] > 0


@pytest.mark.parametrize("kind", ["cpu", "mps", "xpu"])
def test_a_device_without_a_clock_is_waited_for_at_each_mark(monkeypatch, kind):
    waited = []
    monkeypatch.setattr(stopwatch, "synchronize", waited.append)
    watch = Stopwatch(torch.device(kind))
    start = watch.mark()
    watch.add("train", start, watch.mark())
    assert waited == 2 * [torch.device(kind)]
    assert watch.seconds["train"] > 0
