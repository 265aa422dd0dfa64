"""Networks compiled by torch, for training."""

from __future__ import annotations

import contextlib
import platform
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from inrkit.training.randomness import caller_undisturbed

_MOST_VERSIONS = 1 << 16
"""Compiled versions of a class's `forward`: torch counts those of all its networks together, and refuses a ninth."""
_FEWEST_ROWS = 32
"""Rows below which the network runs uncompiled, because torch would compile anew for a single row."""


class Compiled:
    """A network compiled by torch.compile. If torch cannot compile it, it runs uncompiled, with a warning.

    The compiled code works for every number of rows. torch keeps it on disk, so that the next process does not compile
    it again. It rounds differently from the uncompiled network.

    Args:
        network: (k, E) to (k, C).
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._callable: Callable[[Tensor], Tensor] = torch.compile(network, fullgraph=True)
        self._proven = False

    @contextlib.contextmanager
    def settings(self) -> Iterator[None]:
        """torch's settings while the network runs, because it may compile then; they are restored afterwards."""
        from torch._inductor import config as inductor

        limits = torch._dynamo.config
        before = limits.recompile_limit, limits.accumulated_recompile_limit, inductor.cpp.vec_isa_ok
        limits.recompile_limit = max(before[0], _MOST_VERSIONS)
        limits.accumulated_recompile_limit = max(before[1], _MOST_VERSIONS)
        if before[2] is None and platform.machine() in ("x86_64", "AMD64"):
            # Use the vector instructions that the processor lists, without trying each out in a new process. The trials
            # take a second of every process; a compiler that is recent enough for torch's headers knows them all.
            inductor.cpp.vec_isa_ok = True
        try:
            yield
        finally:
            limits.recompile_limit, limits.accumulated_recompile_limit, inductor.cpp.vec_isa_ok = before

    def __call__(self, inputs: Tensor) -> Tensor:
        if len(inputs) < _FEWEST_ROWS:
            return self._network(inputs)
        torch._dynamo.maybe_mark_dynamic(inputs, 0)
        if not self._proven:
            self._compile_now(inputs)
        return self._callable(inputs)

    def _compile_now(self, inputs: Tensor) -> None:
        """Compile both passes now, because an error in the backward pass would appear far from here."""
        parameters = [parameter for parameter in self._network.parameters() if parameter.requires_grad]
        kept = [(buffer, buffer.clone()) for buffer in self._network.buffers()]
        # A resumed training must equal an uninterrupted one, so this pass leaves no draws or counts behind.
        with caller_undisturbed(inputs.device):
            try:
                with torch.enable_grad(), warnings.catch_warnings():
                    # torch imports parts of itself for compiling that it has deprecated.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    torch.autograd.grad(self._callable(inputs).sum(), parameters, allow_unused=True)
            except Exception as error:
                self._network(inputs)  # raises what is wrong with the network itself
                self._callable = self._network
                reason = " ".join(str(error).split()[:40]) or type(error).__name__
                warnings.warn(f"the network runs uncompiled, as torch could not compile it: {reason}", stacklevel=3)
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)
        self._proven = True
