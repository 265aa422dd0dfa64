"""Small SIRENs in machine code: a C file that the machine's own compiler makes into a library on first use."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from inrkit.networks.native.fused import FusedSiren

from inrkit.signals.tiling import Tiling

_SOURCE = Path(__file__).with_name("siren.c")
_FLAGS = ["-O3", "-std=c11", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
_LOCK = threading.Lock()
_FEWEST = 1024
"""Fewest points that a thread is worth."""


MOST_AXES = 8
"""Most dimensions of a tiling in machine code."""


class _Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("dimensions", "channels", "width", "hidden")] + [
        (name, ctypes.c_float) for name in ("first_omega", "hidden_omega")
    ]


class _Tiling(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64 * MOST_AXES) for name in ("lattice", "counts", "sides", "firsts", "shape")),
        ("overlaps", ctypes.c_double * MOST_AXES),
        ("scale", ctypes.c_double),
    ]


@dataclass(frozen=True)
class SirenKernel:
    """Many SIRENs of one shape, trained and evaluated by machine code on all of torch's threads.

    Networks do not depend on each other, so results do not depend on the number of threads. Rounding is float32's;
    sines are exact to a few units of it.

    Args:
        library: the compiled C file.
        shape: of the networks.
    """

    library: Any
    shape: _Shape

    def blend(
        self, tiling: Tiling, coordinates: Tensor, slots: Tensor, means: Tensor, spreads: Tensor, weights: Tensor
    ) -> Tensor:
        """(n, C) float32 values of tiles that overlap, as `Tiles` blends them.

        Args:
            tiling: of [−1, 1]^D.
            coordinates: (n, D).
            slots: (T,) int64 each tile's row of `weights`, or −1.
            means: (T, C) float32 what is added to each tile's network.
            spreads: (T,) float32 what each tile's network is multiplied by.
            weights: (U, P) float32 parameters of the networks.
        """
        coordinates, weights = coordinates.to(torch.float64).contiguous(), weights.detach()
        values = torch.empty(len(coordinates), self.shape.channels)
        layout = _Tiling(scale=tiling.scale)
        for name in ("lattice", "counts", "sides", "firsts", "shape", "overlaps"):
            getattr(layout, name)[: tiling.dimensions] = getattr(tiling, name)

        def run(first: int, last: int) -> int:
            return int(
                self.library.blend(
                    ctypes.byref(self.shape),
                    ctypes.byref(layout),
                    last - first,
                    _at(coordinates, first),
                    *(_at(each) for each in (slots, means, spreads, weights)),
                    len(weights),
                    _at(values, first),
                )
            )

        threads = max(1, min(torch.get_num_threads(), len(coordinates) // _FEWEST))
        _together(_shares(run, len(coordinates), threads))
        return values

    def train(
        self,
        weights: Tensor,
        first: Tensor,
        second: Tensor,
        networks: Tensor,
        inputs: Tensor,
        targets: Tensor,
        factors: Tensor | None,
        rates: Tensor,
        corrections: Tensor,
        betas: tuple[float, float],
        epsilon: float,
        threads: int,
        errors: Tensor | None = None,
    ) -> Callable[[], Tensor]:
        """Begin a step of Adam for q networks.

        Args:
            weights: (U, P) float32 parameters of all networks; updated in place.
            first, second: (U, P) Adam's moments, likewise.
            networks: (q,) int64 distinct rows.
            inputs: (q, k, D) float32 points, or (1, k, D) where all have the same.
            targets: (q, k, C) float32.
            factors: (q, k) float32 factors on the squared errors; None for 1 each.
            rates: (q,) float32 learning rates over 1 − β₁ᵗ.
            corrections: (q,) float32 1 / √(1 − β₂ᵗ).
            betas: β₁, β₂.
            epsilon: Adam's ε.
            threads: share the networks.
            errors: (q, k, C) float32, for the outputs less the targets before the step; None where nobody asks.

        Returns:
            A function that waits for the end of the step and gives the (q,) mean squared errors from before it.
        """
        adam = (weights.detach(), first, second, rates, corrections, *betas, epsilon)
        return self._begin(networks, inputs, targets, factors, adam, threads, errors, None)

    def gradients(
        self,
        weights: Tensor,
        networks: Tensor,
        inputs: Tensor,
        targets: Tensor,
        factors: Tensor | None,
        gradients: Tensor,
        threads: int,
        errors: Tensor | None = None,
    ) -> Callable[[], Tensor]:
        """Begin the gradients of the mean squared errors of q networks, as in `train`, without a step.

        Args:
            gradients: (q, P) float32, for the gradients.

        Returns:
            A function that waits for the end and gives the (q,) mean squared errors.
        """
        nothing = torch.zeros(len(networks))
        adam = (weights.detach(), weights.detach(), weights.detach(), nothing, nothing, 0.0, 0.0, 0.0)
        return self._begin(networks, inputs, targets, factors, adam, threads, errors, gradients)

    def _begin(
        self,
        networks: Tensor,
        inputs: Tensor,
        targets: Tensor,
        factors: Tensor | None,
        adam: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float, float, float],
        threads: int,
        errors: Tensor | None,
        gradients: Tensor | None,
    ) -> Callable[[], Tensor]:
        weights, first, second, rates, corrections, *decays = adam
        inputs, targets = inputs.contiguous(), targets.contiguous()
        factors = None if factors is None else factors.contiguous()
        losses = torch.empty(len(networks))
        points, shared = targets.shape[1], len(inputs) == 1 and len(networks) != 1

        def run(start: int, stop: int) -> int:
            return int(
                self.library.train(
                    ctypes.byref(self.shape),
                    stop - start,
                    _at(networks, start),
                    points,
                    _at(inputs) if shared else _at(inputs, start),
                    int(shared),
                    _at(targets, start),
                    None if factors is None else _at(factors, start),
                    _at(weights),
                    _at(first),
                    _at(second),
                    _at(rates, start),
                    _at(corrections, start),
                    *decays,
                    _at(losses, start),
                    None if errors is None else _at(errors, start),
                    None if gradients is None else _at(gradients, start),
                )
            )

        wait = _begun(_shares(run, len(networks), min(len(networks), threads)))

        def finish() -> Tensor:
            wait()
            return losses

        return finish


def siren_kernel(
    dimensions: int, channels: int, width: int, hidden: int, first_omega: float, hidden_omega: float
) -> SirenKernel | None:
    """The kernel for SIRENs of a shape; None where no C compiler is found, or it fails.

    Args:
        dimensions: D.
        channels: C.
        width: of the hidden layers.
        hidden: sine layers after the first.
        first_omega: ω of the first layer.
        hidden_omega: ω of the others.
    """
    library = _library()
    return (
        None
        if library is None
        else SirenKernel(library, _Shape(dimensions, channels, width, hidden, first_omega, hidden_omega))
    )


def fused_siren(
    dimensions: int, channels: int, width: int, hidden: int, first_omega: float, hidden_omega: float
) -> FusedSiren | None:
    """The kernel for GPUs that trains SIRENs of a shape, given as for `siren_kernel`; None for wide ones, and where
    there is no Triton."""
    from inrkit.networks.native.fused import WIDEST, FusedSiren, triton

    shape = dimensions, channels, width, hidden, first_omega, hidden_omega
    return None if triton is None or width > WIDEST else FusedSiren(*shape)


@functools.cache
def _library() -> Any:
    """The compiled library, from the user's cache if it is there; None if it cannot be made."""
    with _LOCK:
        try:
            return _declared(ctypes.CDLL(str(_compiled())))
        except (OSError, subprocess.SubprocessError):
            return None


def _compiled() -> Path:
    """The library's file, compiled for this machine unless it is there already.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be compiled.
    """
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        raise FileNotFoundError("no C compiler")
    native = [] if platform.machine() == "arm64" else ["-march=native"]
    told = [_SOURCE.read_text(), compiler, *_FLAGS, *native, _processor()]
    name = hashlib.sha256("\n".join(told).encode()).hexdigest()[:24]
    folder = _cache()
    file = folder / f"siren-{name}.so"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            made = Path(aside) / "library.so"
            subprocess.run(
                [*compiler.split(), *_FLAGS, *native, str(_SOURCE), "-o", str(made), "-lm"],
                check=True,
                capture_output=True,
                timeout=120,
                start_new_session=True,  # Ctrl-C ends the fit after its step, not the compiler
            )
            made.replace(file)
    return file


def _cache() -> Path:
    """The folder of compiled libraries."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inrkit"


def _processor() -> str:
    """What tells processors with different instructions apart: a cache may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"


def _declared(library: Any) -> Any:
    """The library with its functions' types."""
    pointer, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    library.train.argtypes = [
        *(pointer, number, pointer, number, pointer, ctypes.c_int, pointer, pointer),
        *(pointer, pointer, pointer, pointer, pointer, real, real, real, pointer, pointer, pointer),
    ]
    library.blend.argtypes = [pointer, pointer, number, *[pointer] * 5, number, pointer]
    return library


def _at(tensor: Tensor, row: int = 0) -> int:
    """The address of a row of a contiguous tensor."""
    return tensor.data_ptr() + row * tensor.stride(0) * tensor.element_size()


def _shares(run: Callable[[int, int], int], count: int, threads: int) -> list[Callable[[], int]]:
    """Jobs that together call `run` on 0 … count, each on the part from a first to a last one."""
    bounds = [count * part // threads for part in range(threads + 1)]
    return [functools.partial(run, *pair) for pair in itertools.pairwise(bounds)]


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The threads that run machine code, of a process."""
    return ThreadPoolExecutor(max(1, os.cpu_count() or 1), thread_name_prefix="inrkit")


def _begun(jobs: list[Callable[[], int]]) -> Callable[[], None]:
    """Begin jobs on threads of their own; returns a function that waits for their end."""
    futures: list[Future[int]] = [_pool(os.getpid()).submit(job) for job in jobs]

    def wait() -> None:
        if max(future.result() for future in futures):
            raise MemoryError("no memory for a tile's activations")

    return wait


def _together(jobs: list[Callable[[], int]]) -> None:
    """Run jobs, at the same time if they are several."""
    if len(jobs) == 1:
        if jobs[0]():
            raise MemoryError("no memory for a tile's activations")
        return
    _begun(jobs)()
