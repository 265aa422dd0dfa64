"""Which device and precision a run uses, and what a device can do."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy  # noqa: F401  before torch, which would import it, too, and lose a Ctrl-C on the way
import psutil
import torch
from torch import Tensor

from inrkit.errors import ConfigError

GPUS = ("cuda", "xpu", "mps")
"""Kinds of GPU: NVIDIA's and AMD's, Intel's, Apple's."""

WITHOUT_FLOAT64 = ("mps",)
"""Kinds of GPU that have no float64 at all."""


def choose_device(name: str) -> torch.device:
    """The torch device called `name`; `auto` is a `cuda` GPU when there is one.

    Intel's and Apple's GPUs are taken when they are named: whether a fit is faster there has not been measured.

    Raises:
        ConfigError: no such device is here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", *GPUS):
            raise ConfigError(f"device is '{name}'; inrkit runs on cpu, {', '.join(GPUS)}")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device is '{name}', which is not available here; choose auto or cpu") from error
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """A precision by name; `auto` is bfloat16 where the device multiplies it natively, or else float16 if a GPU does.

    Raises:
        ConfigError: the device does not multiply so.
    """
    if name == "tf32" and device.type != "cuda":
        raise ConfigError(
            f"train.precision is 'tf32', which {device.type} does not multiply in; choose auto or float32"
        )
    if name != "auto":
        return name
    if device.type in ("cuda", "xpu"):
        if torch.get_device_module(device).is_bf16_supported(including_emulation=False):
            return "bfloat16"
        able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FLOAT16
        return "float16" if able else "float32"
    if device.type == "cpu":
        return "bfloat16" if {"avx512_bf16", "amx_bf16"} & _cpu_flags() else "float32"
    return "float32"


_FLOAT16 = (7, 0)
"""Compute capability of the first GPUs that multiply matrices in float16 faster than in float32."""


def has_float64(device: torch.device) -> bool:
    """Whether a device has numbers of 64 bits; Apple's have none, nor do some of Intel's."""
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return device.type not in WITHOUT_FLOAT64


def widest(device: torch.device) -> torch.dtype:
    """float64; float32 on a device that has no float64."""
    return torch.float64 if has_float64(device) else torch.float32


def wide(values: Tensor) -> Tensor:
    """(…) float64 `values`, in main memory if their device has no float64."""
    return (values if has_float64(values.device) else values.cpu()).to(torch.float64)


def returned(values: Tensor, like: Tensor) -> Tensor:
    """(…) `values` that `wide` led to, in the dtype and on the device of other ones."""
    return values.to(like.dtype).to(like.device)


def gathered(rows: Tensor, indices: Tensor | slice, device: torch.device) -> Tensor:
    """(k, …) of (N, …) `rows`, on a device.

    Rows that are elsewhere are gathered where they are: for a GPU into pinned memory, out of which it takes them while
    the processor goes on. (k,) indices that are in main memory already save waiting for the GPU.
    """
    indices = indices if isinstance(indices, slice) else indices.to(rows.device)
    if rows.device == device or device.type not in _PINNING:
        return rows[indices].to(device)
    if isinstance(indices, slice):
        return rows[indices].pin_memory().to(device, non_blocking=True)
    found = torch.empty((len(indices), *rows.shape[1:]), dtype=rows.dtype, pin_memory=True)
    return torch.index_select(rows, 0, indices, out=found).to(device, non_blocking=True)


_PINNING = ("cuda", "xpu")
"""Kinds of GPU that copy from pinned memory by themselves."""


def total(values: Tensor) -> float:
    """The sum of (…) real values, in float64. A device without it adds up short runs of them, and the processor these
    sums."""
    if has_float64(values.device):
        return float(values.sum(dtype=torch.float64))
    flat = values.reshape(-1)
    runs = flat[: len(flat) // _RUN * _RUN].view(-1, _RUN).sum(dim=1, dtype=torch.float32)
    rest = flat[len(runs) * _RUN :].to(torch.float32)
    return float(wide(torch.cat([runs, rest])).sum())


def mean(values: Tensor) -> float:
    """The mean of (…) real values, added up as in `total`."""
    if has_float64(values.device):
        return float(values.mean(dtype=torch.float64))
    return total(values) / values.numel()


_RUN = 256


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished its pending work."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


@contextlib.contextmanager
def reproducible(wanted: bool) -> Iterator[None]:
    """Have torch compute inside what it computes in each run of the same, to the bit, on the same device.

    Operations that cannot raise an error that names them. The caller's settings are restored at the end.

    Args:
        wanted: if not, nothing is changed.
    """
    if not wanted:
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    convolutions, workspace = (cudnn.benchmark, cudnn.deterministic), os.environ.get(_WORKSPACE)
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # cuBLAS reads it when it is first used
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.benchmark, cudnn.deterministic = convolutions
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)


_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


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


def give_back_freed_memory() -> None:
    """Free what a fit has left in cycles of references, and have glibc's allocator give the system what it has kept.

    Between fits of one process: the next one's large arrays would fit in none of the pieces that lie free.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of malloc.h; the last may be 2²⁵ at most


def describe(device: torch.device) -> str:
    """The device in words."""
    if device.type in ("cuda", "xpu"):
        return f"{device} ({torch.get_device_module(device).get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"{device} ({threads} thread{'s' if threads > 1 else ''})" if device.type == "cpu" else str(device)


def available_memory() -> int:
    """Bytes of main memory that can still be had."""
    return psutil.virtual_memory().available


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type in ("cuda", "xpu"):
        module = torch.get_device_module(device)
        kept = module.memory_reserved(device) - module.memory_allocated(device)
        return int(module.mem_get_info(device)[0] + kept)
    if device.type == "mps":  # it shares main memory with the processor
        return min(available_memory(), torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return available_memory()


def resident_bytes(device: torch.device) -> int:
    """Bytes that this process holds in main memory, or on the GPU."""
    if device.type in ("cuda", "xpu"):
        return int(torch.get_device_module(device).memory_allocated(device))
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    return psutil.Process().memory_info().rss


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
