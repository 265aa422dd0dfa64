"""Which device and precision a run uses."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

import psutil
import torch

from inrkit.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The torch device called `name`; `auto` is a GPU when there is one.

    Raises:
        ConfigError: no such device is here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise ConfigError(f"device is '{name}'; inrkit runs on cpu and cuda")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device is '{name}', which is not available here; choose auto or cpu") from error
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """ "float32" or "bfloat16"; `auto` is bfloat16 where the device multiplies it natively."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type == "cpu":
        return "bfloat16" if {"avx512_bf16", "amx_bf16"} & _cpu_flags() else "float32"
    return "float32"


def keep_freed_memory() -> None:
    """Have glibc's allocator keep what is freed, up to half a GiB, for what is allocated next, in the whole process.

    The command line does so. From Python it is yours to call, once: steps on a CPU may take half the time. As it
    comes, it gives large blocks back to the system at every step of a training and has them cleared again. Where
    the environment sets such limits itself, or the allocator is another one, nothing is changed.
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return
    with contextlib.suppress(AttributeError, OSError, TypeError):
        set_limit = ctypes.CDLL(None).mallopt
        set_limit(_MMAP_THRESHOLD, 1 << 25)
        set_limit(_TRIM_THRESHOLD, 1 << 29)
        set_limit(_TOP_PAD, 1 << 26)


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of malloc.h; the last may be 2²⁵ at most


def describe(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"{device} ({threads} thread{'s' if threads > 1 else ''})" if device.type == "cpu" else str(device)


def available_memory() -> int:
    """Bytes of main memory that can still be had."""
    return psutil.virtual_memory().available


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return available_memory()


def resident_bytes(device: torch.device) -> int:
    """Bytes that this process holds in main memory, or on the GPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
