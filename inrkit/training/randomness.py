"""torch's own random generators, for networks that draw random numbers while they run, such as dropout."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from inrkit import device as devices


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The states of the generators that a computation on `device` may draw from: the CPU's, and the device's own."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    elif device.type in devices.GPUS:
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Set the generators to the states that `random_states` gave. The state of a device not in use is ignored."""
    torch.set_rng_state(states["cpu"])
    if device.type not in devices.GPUS or device.type not in states:
        return
    if device.type == "mps":
        torch.mps.set_rng_state(states["mps"])
    else:
        torch.get_device_module(device).set_rng_state(states[device.type], device)


def seeded_states(seed: int, device: torch.device) -> dict[str, Tensor]:
    """The states of generators that were seeded with `seed`."""
    states = {"cpu": torch.Generator().manual_seed(seed).get_state()}
    if device.type in devices.GPUS:
        states[device.type] = torch.Generator(device).manual_seed(seed).get_state()
    return states


def begin_anew(generator: torch.Generator, seed: int, step: int) -> None:
    """Seed a generator of a training that goes on at a step, where its own state cannot be had."""
    generator.manual_seed((seed ^ (step * _GOLDEN)) & ((1 << 63) - 1))


_GOLDEN = 0x9E37_79B9_7F4A_7C15
"""2⁶⁴ over the golden ratio: its multiples have no bits in common."""


@contextlib.contextmanager
def caller_undisturbed(device: torch.device) -> Iterator[None]:
    """Restore the generators' states at the end, whatever is drawn inside."""
    before = random_states(device)
    try:
        yield
    finally:
        set_random_states(before, device)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the CPU's generator for draws inside, such as a network's parameters; restore its state at the end."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
    try:
        yield
    finally:
        torch.set_rng_state(before)
