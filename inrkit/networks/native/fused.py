"""Small SIRENs trained on a GPU by one kernel, written in Triton: a program for each network, which keeps its weights
on the chip from the first point to the step. Imported only where it is asked for, because Triton takes its time; torch
for GPUs brings it along."""
# ruff: noqa: RUF005  Triton knows no unpacking
# mypy: disable-error-code="assignment,no-untyped-def"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

_jit: Callable[[Any], Any] = (lambda function: function) if triton is None else triton.jit
WIDEST = 32
"""Features of a layer up to which registers hold what a program needs."""
_NARROWEST = 16
"""Lengths below are padded to it: Triton multiplies no narrower matrices."""


@_jit
def _matrix(start, outputs, inputs, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr):
    """Where the (outputs, inputs) numbers that begin at `start` are, in a padded (OUTPUTS, INPUTS) matrix; and which of
    its entries are numbers."""
    row, column = tl.arange(0, OUTPUTS)[:, None], tl.arange(0, INPUTS)[None, :]
    return start + row * inputs + column, (row < outputs) & (column < inputs)


@_jit
def _vector(start, outputs, OUTPUTS: tl.constexpr):
    """The same of a (outputs,) vector."""
    row = tl.arange(0, OUTPUTS)
    return start + row, row < outputs


@_jit
def _sine(omega, argument):
    """sin(ω a) and ω cos(ω a). As in siren.c the angle is brought into [−π/2, π/2], where the polynomials are exact to
    a few units of rounding; both share the work, and take far less code than functions for angles of any size."""
    angle = omega * argument
    turns = tl.floor(angle * 0.318309886 + 0.5)
    rest = angle - turns * 3.140625  # π in three parts, the first two exact in few bits
    rest -= turns * 9.67502593994140625e-4
    rest -= turns * 1.509957990978376e-7
    half = 0.5 * turns
    sign = 1.0 - 4.0 * (half - tl.floor(half))
    square = rest * rest
    sine = -2.3889859e-8 * square + 2.7525562e-6
    sine = (sine * square - 1.9840874e-4) * square + 8.3333310e-3
    sine = (sine * square - 1.6666667e-1) * square * rest + rest
    cosine = -2.605e-7 * square + 2.47609e-5
    cosine = (cosine * square - 1.3888378e-3) * square + 4.16666418e-2
    cosine = (cosine * square - 0.5) * square + 1.0
    return sign * sine, omega * sign * cosine


@_jit
def _step(parameters, first, second, gradients, row, program, size, place, mask, gradient, rate, correction, beta1,
          beta2, epsilon, STEPS: tl.constexpr):  # fmt: skip
    """Step parameters at their places by Adam, or write down their gradients."""
    if STEPS:
        at = row * size + place
        mean = tl.load(first + at, mask=mask, other=0.0)
        mean += (1 - beta1) * (gradient - mean)
        square = beta2 * tl.load(second + at, mask=mask, other=0.0) + (1 - beta2) * gradient * gradient
        value = tl.load(parameters + at, mask=mask, other=0.0)
        tl.store(first + at, mean, mask=mask)
        tl.store(second + at, square, mask=mask)
        tl.store(parameters + at, value - rate * mean / (tl.sqrt(square) * correction + epsilon), mask=mask)
    else:
        tl.store(gradients + program * size + place, gradient, mask=mask)


@_jit
def _train(rows, inputs, targets, factors, parameters, first, second, rates, corrections, losses, errors, gradients,
           points, between, beta1, beta2, epsilon, first_omega, hidden_omega, size,
           DIMENSIONS: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr, HIDDEN: tl.constexpr,
           D: tl.constexpr, C: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr,
           WEIGHTED: tl.constexpr, TOLD: tl.constexpr, STEPS: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """A step of Adam of one network on points of its own, or its gradients; see `train` in siren.c.

    Lengths in capitals are padded to D, C and W; what is padded is 0 and stays so.
    """
    program = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + program)
    net = parameters + row * size

    # Where each layer's weights and biases begin in a row of the parameters.
    HIDDEN_SIZE: tl.constexpr = WIDTH * (WIDTH + 1)
    FIRST_SIZE: tl.constexpr = WIDTH * (DIMENSIONS + 1)
    LAST: tl.constexpr = FIRST_SIZE + HIDDEN * HIDDEN_SIZE

    place, mask = _matrix(0, WIDTH, DIMENSIONS, W, D)
    first_weight = tl.load(net + place, mask=mask, other=0.0)
    place, mask = _vector(WIDTH * DIMENSIONS, WIDTH, W)
    first_bias = tl.load(net + place, mask=mask, other=0.0)
    weights = ()
    biases = ()
    weight_gradients = ()
    bias_gradients = ()
    for layer in tl.static_range(HIDDEN):
        place, mask = _matrix(FIRST_SIZE + layer * HIDDEN_SIZE, WIDTH, WIDTH, W, W)
        weights += (tl.load(net + place, mask=mask, other=0.0),)
        place, mask = _vector(FIRST_SIZE + layer * HIDDEN_SIZE + WIDTH * WIDTH, WIDTH, W)
        biases += (tl.load(net + place, mask=mask, other=0.0),)
        weight_gradients += (tl.zeros((W, W), tl.float32),)
        bias_gradients += (tl.zeros((W,), tl.float32),)
    place, mask = _matrix(LAST, CHANNELS, WIDTH, C, W)
    last_weight = tl.load(net + place, mask=mask, other=0.0)
    place, mask = _vector(LAST + CHANNELS * WIDTH, CHANNELS, C)
    last_bias = tl.load(net + place, mask=mask, other=0.0)
    first_weight_gradient = tl.zeros((W, D), tl.float32)
    first_bias_gradient = tl.zeros((W,), tl.float32)
    last_weight_gradient = tl.zeros((C, W), tl.float32)
    last_bias_gradient = tl.zeros((C,), tl.float32)

    loss = 0.0
    for start in range(0, points, BLOCK):
        here = points - start
        at, there = _matrix(start * DIMENSIONS, here, DIMENSIONS, BLOCK, D)
        x = tl.load(inputs + program * between + at, mask=there, other=0.0)
        argument = tl.dot(x, tl.trans(first_weight), input_precision=PRECISION) + first_bias[None, :]
        value, slope = _sine(first_omega, argument)
        values = (value,)
        slopes = (slope,)
        for layer in tl.static_range(HIDDEN):
            argument = tl.dot(values[layer], tl.trans(weights[layer]), input_precision=PRECISION)
            value, slope = _sine(hidden_omega, argument + biases[layer][None, :])
            values += (value,)
            slopes += (slope,)
        out = tl.dot(values[HIDDEN], tl.trans(last_weight), input_precision=PRECISION) + last_bias[None, :]

        at, there = _matrix((program * points + start) * CHANNELS, here, CHANNELS, BLOCK, C)
        error = tl.where(there, out - tl.load(targets + at, mask=there, other=0.0), 0.0)
        if TOLD:
            tl.store(errors + at, error, mask=there)
        slope = error
        if WEIGHTED:
            point, known = _vector(program * points + start, here, BLOCK)
            slope = error * tl.load(factors + point, mask=known, other=0.0)[:, None]
        loss += tl.sum(slope * error)
        slope = slope * (2.0 / (points * CHANNELS))

        last_weight_gradient += tl.dot(tl.trans(slope), values[HIDDEN], input_precision=PRECISION)
        last_bias_gradient += tl.sum(slope, axis=0)
        slope = tl.dot(slope, last_weight, input_precision=PRECISION) * slopes[HIDDEN]
        grown = ()
        grown_biases = ()
        for back in tl.static_range(HIDDEN):
            product = tl.dot(tl.trans(slope), values[HIDDEN - 1 - back], input_precision=PRECISION)
            grown = (weight_gradients[HIDDEN - 1 - back] + product,) + grown
            grown_biases = (bias_gradients[HIDDEN - 1 - back] + tl.sum(slope, axis=0),) + grown_biases
            slope = tl.dot(slope, weights[HIDDEN - 1 - back], input_precision=PRECISION) * slopes[HIDDEN - 1 - back]
        weight_gradients = grown
        bias_gradients = grown_biases
        first_weight_gradient += tl.dot(tl.trans(slope), x, input_precision=PRECISION)
        first_bias_gradient += tl.sum(slope, axis=0)

    tl.store(losses + program, loss / (points * CHANNELS))
    rate = 0.0
    correction = 0.0
    if STEPS:
        rate = tl.load(rates + program)
        correction = tl.load(corrections + program)
    place, mask = _matrix(0, WIDTH, DIMENSIONS, W, D)
    _step(parameters, first, second, gradients, row, program, size, place, mask, first_weight_gradient,
          rate, correction, beta1, beta2, epsilon, STEPS)  # fmt: skip
    place, mask = _vector(WIDTH * DIMENSIONS, WIDTH, W)
    _step(parameters, first, second, gradients, row, program, size, place, mask, first_bias_gradient,
          rate, correction, beta1, beta2, epsilon, STEPS)  # fmt: skip
    for layer in tl.static_range(HIDDEN):
        place, mask = _matrix(FIRST_SIZE + layer * HIDDEN_SIZE, WIDTH, WIDTH, W, W)
        _step(parameters, first, second, gradients, row, program, size, place, mask, weight_gradients[layer],
              rate, correction, beta1, beta2, epsilon, STEPS)  # fmt: skip
        place, mask = _vector(FIRST_SIZE + layer * HIDDEN_SIZE + WIDTH * WIDTH, WIDTH, W)
        _step(parameters, first, second, gradients, row, program, size, place, mask, bias_gradients[layer],
              rate, correction, beta1, beta2, epsilon, STEPS)  # fmt: skip
    place, mask = _matrix(LAST, CHANNELS, WIDTH, C, W)
    _step(parameters, first, second, gradients, row, program, size, place, mask, last_weight_gradient,
          rate, correction, beta1, beta2, epsilon, STEPS)  # fmt: skip
    place, mask = _vector(LAST + CHANNELS * WIDTH, CHANNELS, C)
    _step(parameters, first, second, gradients, row, program, size, place, mask, last_bias_gradient,
          rate, correction, beta1, beta2, epsilon, STEPS)  # fmt: skip


@dataclass(frozen=True)
class FusedSiren:
    """Many SIRENs of one shape, trained by one kernel on a GPU; the same as `SirenKernel` of the CPU, up to rounding.

    Args:
        dimensions: D.
        channels: C.
        width: of the hidden layers.
        hidden: sine layers after the first.
        first_omega: ω of the first layer.
        hidden_omega: ω of the others.
        block: points that pass through a network at a time.
        warps: of a program. By default registers hold all that networks of up to 32 features need.
        precision: of products: "ieee" for float32's; "tf32x3" for nearly the same, or "tf32", on tensor cores.
    """

    dimensions: int
    channels: int
    width: int
    hidden: int
    first_omega: float
    hidden_omega: float
    block: int = 32
    warps: int = 8
    precision: str = "ieee"

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
        """A step of Adam for q networks; arguments and what is returned are `SirenKernel.train`'s."""
        adam = (weights, first, second, rates, corrections, *betas, epsilon)
        return self._begin(networks, inputs, targets, factors, adam, errors, None)

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
        """The gradients of q networks; arguments and what is returned are `SirenKernel.gradients`'."""
        adam = (weights, weights, weights, weights, weights, 0.0, 0.0, 0.0)
        return self._begin(networks, inputs, targets, factors, adam, errors, gradients)

    def _begin(
        self,
        networks: Tensor,
        inputs: Tensor,
        targets: Tensor,
        factors: Tensor | None,
        adam: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float, float, float],
        errors: Tensor | None,
        gradients: Tensor | None,
    ) -> Callable[[], Tensor]:
        weights, first, second, rates, corrections, beta1, beta2, epsilon = adam
        weights, inputs, targets = weights.detach(), inputs.contiguous(), targets.contiguous()
        points = targets.shape[1]
        losses = torch.empty(len(networks), device=weights.device)
        _train[(len(networks),)](
            networks,
            inputs,
            targets,
            targets if factors is None else factors.contiguous(),
            weights,
            first,
            second,
            rates,
            corrections,
            losses,
            targets if errors is None else errors,
            weights if gradients is None else gradients,
            points,
            0 if len(inputs) == 1 else points * self.dimensions,
            beta1,
            beta2,
            epsilon,
            self.first_omega,
            self.hidden_omega,
            weights.shape[1],
            DIMENSIONS=self.dimensions,
            CHANNELS=self.channels,
            WIDTH=self.width,
            HIDDEN=self.hidden,
            D=_padded(self.dimensions),
            C=_padded(self.channels),
            W=_padded(self.width),
            BLOCK=self.block,
            WEIGHTED=factors is not None,
            TOLD=errors is not None,
            STEPS=gradients is None,
            PRECISION=self.precision,
            num_warps=self.warps,
        )
        return lambda: losses


def _padded(length: int) -> int:
    """The next power of two, at least `_NARROWEST`."""
    return max(_NARROWEST, 1 << (length - 1).bit_length())
