"""The errors and gradients of one member, computed chunk by chunk."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from inrkit.device import widest
from inrkit.selectors import Residuals, Selection, Survey
from inrkit.selectors.progress import Progress
from inrkit.signals.operators import clamp_prediction
from inrkit.signals.signal import Signal
from inrkit.training.member import Member
from inrkit.training.turn import Turn

Gradients = Callable[[Member, Progress, Selection], tuple[Tensor, Residuals]]
"""A function with the arguments and results of `backpropagate`."""


def step(turn: Turn, known: tuple[Tensor, Residuals] | None = None, compute: Gradients | None = None) -> None:
    """Step a member's optimizer. It evaluates the loss once, or as often as its line search needs.

    Args:
        turn: its selection is trained on; it receives the loss and the errors from before the update.
        known: loss and errors, if the parameters hold the gradients already.
        compute: finds the gradients; `backpropagate`, if not given.
    """
    member, compute = turn.member, compute or backpropagate
    seen: list[Residuals] = []

    def closure() -> Tensor:
        if known is not None and not seen:
            loss, errors = known
        else:
            member.optimizer.zero_grad()
            loss, errors = compute(member, turn.progress, turn.selection)
        if not seen:  # only the first evaluation is from before the update
            seen.append(errors)
            turn.loss = loss
        return loss

    try:
        member.optimizer.step(closure)  # type: ignore[arg-type]  # torch takes a Tensor too
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        seen[0].squared.fill_(math.nan)  # a step so large that torch cannot multiply by it: training has diverged
    turn.errors = seen[0]


def backpropagate(member: Member, progress: Progress, selection: Selection) -> tuple[Tensor, Residuals]:
    """Add the gradient of the objective on the selection to the parameters' gradients.

    Each chunk's graph is freed before the next chunk. A term that links coordinates needs the residuals of the whole
    selection first. If the selection has several chunks, they pass through the network once more beforehand to get
    them.

    Returns:
        The objective, a number, without a linking term of which only the gradient is known; and the errors of the
        selection.
    """
    signal, objective = member.signal, member.objective
    chunks = selection.indices.split(member.chunk)
    count = len(selection.indices)
    weights = signal.weights_of(selection.indices)
    couples = objective.couples(progress, selection.whole)
    coupling = None
    if couples and len(chunks) > 1:
        with torch.no_grad():
            residuals = [_reduced(member, _residual(member, chunk), chunk) for chunk in chunks]
        coupling = objective.coupling(progress, selection, torch.cat(residuals), weights)
    squared = torch.empty(count, device=signal.device)
    weighted = torch.empty(count, device=signal.device)
    total = torch.zeros((), dtype=widest(signal.device), device=signal.device)
    slopes = []
    start = 0
    for chunk in chunks:
        coordinates = signal.coordinates(chunk).requires_grad_() if member.selector.needs_slope else None
        span = slice(start, start + len(chunk))
        residual = _residual(member, chunk, coordinates, None if selection.targets is None else selection.targets[span])
        live = _reduced(member, residual, chunk)
        weighted[span] = live.detach()
        squared[span] = residual.detach().square().mean(dim=-1)
        pointwise = objective.pointwise(residual)
        if weights is not None:
            pointwise, squared[span] = pointwise * weights[span], squared[span] * weights[span]
        factors = factors_of(member, progress, selection, span, Residuals(squared[span], weighted[span]))
        if factors is not None:
            pointwise = pointwise * factors
        loss = pointwise.sum() / count
        total += loss.detach()
        if couples:
            if coupling is None:
                coupling = objective.coupling(progress, selection, weighted, weights)
            loss = loss + (coupling[span] * live).sum()
        loss.backward()
        if coordinates is not None:
            slopes.append(slope_of(coordinates.grad, count, factors))
        start = span.stop
    return total, Residuals(squared, weighted, torch.cat(slopes) if slopes else None, weights=weights)


def measure(member: Member, survey: Survey) -> Residuals:
    """The errors of the surveyed coordinates at the present parameters; no gradient is left behind."""
    signal = member.signal
    # Results of chunks that were kept apart, between the networks' features, would leave holes in memory.
    squared = torch.empty(len(survey.indices), device=signal.device)
    weighted = torch.empty(len(survey.indices), device=signal.device)
    parameters = {name: value for name, value in member.network.named_parameters() if value.requires_grad}
    direction = {name: torch.zeros_like(value) for name, value in parameters.items()}
    chunks = survey.indices.split(member.chunk)
    start = 0
    for chunk in chunks:
        with torch.set_grad_enabled(survey.influence):
            residual = _residual(member, chunk)
        weights = signal.weights_of(chunk)
        if survey.influence:
            square = residual.square() if weights is None else residual.square() * weights[:, None]
            half = square.sum() / 2
            parts = torch.autograd.grad(half, list(parameters.values()), allow_unused=True)
            for total, part in zip(direction.values(), parts, strict=True):
                if part is not None:
                    total += part
        residual = residual.detach()
        mean = residual.square().mean(dim=-1)
        span = slice(start, start + len(chunk))
        squared[span] = mean if weights is None else mean * weights
        weighted[span] = _reduced(member, residual, chunk)
        start = span.stop
    influence = [_change_along(member, chunk, direction) for chunk in chunks] if survey.influence else []
    return Residuals(
        squared,
        weighted,
        influence=torch.cat(influence) if influence else None,
        weights=signal.weights_of(survey.indices),
    )


def factors_of(
    member: Member, progress: Progress, selection: Selection, span: slice, errors: Residuals
) -> Tensor | None:
    """(k,) the selector's factors on the losses of a span of the selection, from its errors; None for 1 each."""
    factors = member.selector.weigh(progress, errors)
    if selection.weights is None:
        return factors
    given = selection.weights[span]
    return given if factors is None else given * factors


def linear_targets(signal: Signal, indices: Tensor, coordinates: Tensor) -> Tensor:
    """(k, C) targets of `indices` as linear functions of their (k, D) coordinates, which require gradients."""
    offset = coordinates - coordinates.detach()  # zero, with a gradient
    return signal.targets(indices) + (signal.slopes(indices) @ offset[:, :, None])[:, :, 0]


def slope_of(gradient: Tensor | None, count: int, factors: Tensor | None) -> Tensor:
    """(k, D) `Residuals.slope` from the gradient of a mean over `count` losses, some of them multiplied by factors."""
    assert gradient is not None
    slope = gradient.detach() * count
    return slope if factors is None else slope / factors[:, None]


def _residual(
    member: Member, chunk: Tensor, coordinates: Tensor | None = None, targets: Tensor | None = None
) -> Tensor:
    """(k, C) F(x_i) − y_i; if coordinates that require gradients are given, y is linear in them.

    Args:
        member, chunk: F, and the (k,) i.
        coordinates: (k, D) x_i, if they require gradients.
        targets: (k, C) y_i, if they are known.
    """
    signal = member.signal
    if coordinates is None:
        return member.forward(signal.inputs(chunk)) - (signal.targets(chunk) if targets is None else targets)
    return member.network(signal.embedding(coordinates)) - linear_targets(signal, chunk, coordinates)


def _reduced(member: Member, residual: Tensor, chunk: Tensor) -> Tensor:
    """(k,) channel-weighted sums of (k, C) F(x_i) − y_i, which the fitness operator acts on."""
    bounds = member.selector.operator.bounds
    if bounds is not None:
        residual = clamp_prediction(residual, member.signal.targets(chunk), bounds)
    return residual @ member.signal.dataset.channel_weights


def _change_along(member: Member, chunk: Tensor, direction: dict[str, Tensor]) -> Tensor:
    """(k,) norms of the derivative of the predictions along a direction of the parameters."""
    network, inputs = member.network, member.signal.inputs(chunk)
    parameters = {name: value.detach() for name, value in network.named_parameters() if name in direction}

    def predict(values: dict[str, Tensor]) -> Tensor:
        predicted: Tensor = torch.func.functional_call(network, values, (inputs,))
        return predicted

    with torch.no_grad(), warnings.catch_warnings():
        # The first derivative of this kind makes torch script some of its own functions.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        change: Tensor = torch.func.jvp(predict, (parameters,), (direction,))[1]
    return change.norm(dim=-1)
