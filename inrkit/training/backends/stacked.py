"""Many members as one computation: networks of one architecture, with each parameter stacked into one tensor."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inrkit.device import widest
from inrkit.networks import precision_of, set_precision
from inrkit.networks.stacked import StackedNetwork, float_options
from inrkit.selectors import Residuals
from inrkit.signals.operators import clamp_prediction
from inrkit.training.backends.base import Backend
from inrkit.training.gradients import backpropagate, factors_of, linear_targets, measure, slope_of, step
from inrkit.training.member import Member
from inrkit.training.objectives import MeanSquaredError
from inrkit.training.optimizers.soap import SOAP
from inrkit.training.randomness import caller_undisturbed
from inrkit.training.turn import Turn, each

_ELEMENTWISE = (torch.optim.Adam, torch.optim.AdamW)
"""Optimizers that treat every element of a parameter alike and independently, so that one of them may step many
networks. Their state has the parameter's shape, except `step`."""

_PROBE = 16
"""Coordinates at which a stacked network is compared with single ones."""


def stackable_groups(members: Sequence[Member]) -> list[list[Member]]:
    """The members in groups, each to be trained as one computation. A member that cannot be stacked is its own group.

    Networks of a group have the same class, shape and training options. Signals, their sizes, selectors and seeds may
    differ, and so may float options of the network, such as an ω from the signal's spectrum. A network that draws
    random numbers, changes its buffers or branches on its values gives other results when stacked, so it is not.
    """
    kinds: dict[str, list[Member]] = {}
    for number, member in enumerate(members):
        # The networks of a signal's tiles are one computation already.
        kinds.setdefault(str(number) if member.network.tiled else _kind(member), []).append(member)
    groups = []
    for kind in kinds.values():
        several = _agreeing(kind) if len(kind) > 1 else []
        if len(several) > 1:
            groups.append(sorted(several, key=lambda member: len(member.signal)))  # neighbours need little padding
        groups += [[member] for member in kind if len(several) < 2 or member not in several]
    return groups


def _kind(member: Member) -> str:
    """A description that is equal for members whose networks may be stacked."""
    network, optimizer, schedule = member.network, member.optimizer, member.schedule
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    floats = float_options(network.options)
    options = {name: value for name, value in dataclasses.asdict(network.options).items() if name not in floats}
    tensors = [*network.named_parameters(), *network.named_buffers()]
    groups = [
        {**group, "lr": rate, "params": [names.get(id(parameter)) for parameter in group["params"]]}
        for group, rate in zip(optimizer.param_groups, member.base_rates, strict=True)
    ]
    return repr(
        [
            [type(network), options, precision_of(network), network.training, member.device],
            [(name, tuple(tensor.shape), tensor.dtype, tensor.requires_grad) for name, tensor in tensors],
            [type(optimizer), groups, type(schedule), schedule.options],
            [member.steps, member.budget, member.chunk, member.selector.needs_slope],
            [id(member)] if member.recovers else [],  # going back is its own affair
        ]
    )


def _agreeing(members: list[Member]) -> list[Member]:
    """The members of equal `_kind` whose networks give the same values alone and stacked, at a few coordinates."""
    networks = [copy.deepcopy(member.network) for member in members]
    for network in networks:
        set_precision(network, "float32")  # so that rounding is not taken for a difference
    count = min(_PROBE, *(len(member.signal) for member in members))
    inputs = [member.signal.inputs(slice(0, count)) for member in members]
    before = [{name: buffer.clone() for name, buffer in network.named_buffers()} for network in networks]
    try:
        with caller_undisturbed(members[0].device), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # torch warns where it would loop over the networks
            stack = StackedNetwork(networks)
            together = stack(slice(0, len(networks)), stack.parameters, torch.stack(inputs))
            alone = torch.stack([network(own) for network, own in zip(networks, inputs, strict=True)])
    except Exception:  # of any kind: a broken network raises its error when it trains by itself
        return []
    after = [dict(network.named_buffers()) for network in networks]
    kept = [all(torch.equal(new[name], old[name]) for name in old) for old, new in zip(before, after, strict=True)]
    scale = alone.nan_to_num().abs().amax(dim=(1, 2), keepdim=True)
    close = ((together - alone).abs() <= 1e-4 * scale) | (together.isnan() & alone.isnan())
    same = close.all(dim=2).all(dim=1).tolist()
    return [member for member, *both in zip(members, kept, same, strict=True) if all(both)]


class Stacked(Backend):
    """Members of a group as one computation. Each gets the same results as alone, up to rounding.

    All networks run forward and backward together, and one Adam, AdamW or SOAP steps all of them. These run network by
    network: surveys for influence, and surveys that only some members have; terms that link coordinates; losses other
    than the mean squared error; steps of other optimizers, and steps under a budget of time.
    """

    def __init__(self) -> None:
        self._stack: _Stack | None = None

    def measure(self, turns: Sequence[Turn]) -> None:
        surveys = [turn.survey for turn in turns]
        if all(survey is not None and not survey.influence for survey in surveys):
            self._all(turns, _Stack.measure)
        else:
            each([turn for turn in turns if turn.survey is not None], _measure_alone)

    def update(self, turns: Sequence[Turn]) -> None:
        self._all(turns, _Stack.backpropagate)
        if self._stack is not None and self._stack.optimizer is not None:
            self._all(turns, _Stack.step)
        else:
            each(turns, lambda turn: step(turn, (turn.loss, turn.errors)))

    def release(self) -> None:
        if self._stack is not None:
            self._stack.release()
            self._stack = None

    def _all(self, turns: Sequence[Turn], action: Callable[[_Stack, Sequence[Turn]], None]) -> None:
        """Do `action` with the networks of all turns at once; if it raises, all of them have failed."""
        going = [turn for turn in turns if turn.member.failure is None]
        members = [turn.member for turn in going]
        if not going:
            return
        try:
            if self._stack is None or self._stack.members != members:
                self.release()
                self._stack = _Stack(members)
            action(self._stack, going)
        except Exception as error:
            for member in members:
                member.failure = error


def _measure_alone(turn: Turn) -> None:
    assert turn.survey is not None
    turn.surveyed = measure(turn.member, turn.survey)


class _Row:
    """The part of one member in a computation of several.

    Args:
        member: whose part it is.
        indices: (k,) coordinates that pass through its network.
    """

    def __init__(self, member: Member, indices: Tensor) -> None:
        self.member = member
        self.indices = indices
        self.count = len(indices)

    def padded(self, length: int) -> Tensor:
        """The indices, padded to `length` by repeating the first."""
        if length == self.count:
            return self.indices
        return torch.cat([self.indices, self.indices[:1].expand(length - self.count)])

    def errors(self, squared: Tensor, weighted: Tensor) -> Residuals:
        """The errors from (length,) squared ones without the dataset's weights."""
        squared, weighted = squared[: self.count], weighted[: self.count]
        weights = self.member.signal.weights_of(self.indices)
        # They may be kept for long, and must not keep those of all networks alive.
        squared = squared.clone() if weights is None else squared * weights
        return Residuals(squared, weighted.clone(), weights=weights)


class _Stack:
    """B networks of one architecture, with each parameter stacked into one tensor.

    Until `release`, the parameters of each network are rows of the stacked ones, so that an update of one changes both.
    If possible, one optimizer replaces the networks' own optimizers: of the stacked parameters, or with SOAP, which
    stacks what it needs, of all networks' parameters.

    Args:
        members: B, at the same step.
    """

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.chunk = members[0].chunk
        self.network = StackedNetwork([member.network for member in members])
        self._channel_weights = torch.stack([member.signal.dataset.channel_weights for member in members])[:, :, None]
        self._bounds = self._clamped_to()
        self._gathered: dict[Member, tuple[Tensor, Tensor]] = {}
        self._named = [dict(member.network.named_parameters()) for member in members]
        self.optimizer = self._joint_optimizer()
        for row, named in enumerate(self._named):
            for name, parameter in named.items():
                parameter.data = self.network.parameters[name].data[row]
        self._hooks = [member.network.register_state_dict_post_hook(_own_memory) for member in members]
        if self.optimizer is not None:
            self._hooks += [
                member.optimizer.register_state_dict_pre_hook(self._state_hook(row))
                for row, member in enumerate(members)
            ]

    def release(self) -> None:
        """Give each network its own parameters, and its optimizer their state."""
        for hook in self._hooks:
            hook.remove()
        for row, (member, named) in enumerate(zip(self.members, self._named, strict=True)):
            if self.optimizer is not None:
                self._state_hook(row)(member.optimizer)
            for parameter in named.values():
                parameter.data = parameter.data.clone()
                parameter.grad = None

    def step(self, turns: Sequence[Turn]) -> None:
        """A step of the joint optimizer, at the learning rates of the networks' own."""
        groups, own = self.optimizer.param_groups, turns[0].member.optimizer.param_groups  # type: ignore[union-attr]
        for joint, single in zip(groups, own, strict=True):
            joint["lr"] = single["lr"]
        self.optimizer.step()  # type: ignore[union-attr]

    def measure(self, turns: Sequence[Turn]) -> None:
        """Find the errors of the B surveys."""
        rows = [_Row(turn.member, turn.survey.indices) for turn in turns if turn.survey is not None]
        for span in _spans([row.count for row in rows], self.chunk):
            if span.stop - span.start == 1:
                _measure_alone(turns[span.start])
                continue
            with torch.no_grad():
                residual, _ = self._residual(span, rows[span], self.network.rows(span))
                squared, weighted = residual.square().mean(dim=-1), self._reduced(span, rows[span], residual)
            for number, (row, turn) in enumerate(zip(rows[span], turns[span], strict=True)):
                turn.surveyed = row.errors(squared[number], weighted[number])

    def backpropagate(self, turns: Sequence[Turn]) -> None:
        """Compute the errors of the B selections, and set the gradients to those of their objectives."""
        gradients: dict[str, Tensor] = {}
        rows = [_Row(turn.member, turn.selection.indices) for turn in turns]
        for span in _spans([row.count for row in rows], self.chunk):
            if span.stop - span.start == 1:
                parts = self._backpropagate_alone(span.start, turns[span.start])
            else:
                parts = self._backpropagate(span, rows[span], turns[span])
            for name, part in parts.items():
                if name not in gradients:
                    gradients[name] = torch.zeros_like(self.network.parameters[name], requires_grad=False)
                gradients[name][span] = part
        for name, parameter in self.network.parameters.items():
            parameter.grad = gradients.get(name)
        if self.optimizer is None or isinstance(self.optimizer, SOAP):
            for number, named in enumerate(self._named):
                for name, parameter in named.items():
                    parameter.grad = gradients[name][number] if name in gradients else None

    def _backpropagate_alone(self, number: int, turn: Turn) -> dict[str, Tensor]:
        """The gradients of a network that runs by itself; its errors go to its turn."""
        for parameter in self._named[number].values():
            parameter.grad = None
        turn.loss, turn.errors = backpropagate(turn.member, turn.progress, turn.selection)
        return {name: parameter.grad for name, parameter in self._named[number].items() if parameter.grad is not None}

    def _backpropagate(self, span: slice, rows: list[_Row], turns: Sequence[Turn]) -> dict[str, Tensor]:
        """The (R, …) gradients of R networks; their errors go to their turns."""
        parameters = self.network.rows(span)
        residual, coordinates = self._residual(span, rows, parameters, turns[0].member.selector.needs_slope)
        live = self._reduced(span, rows, residual)
        squared, weighted = residual.detach().square().mean(dim=-1), live.detach()
        # Padding has weight 0, so it does not enter the gradients.
        shares, couplings = torch.zeros_like(weighted), torch.zeros_like(weighted)
        coupled, factors = False, []
        for number, (row, turn) in enumerate(zip(rows, turns, strict=True)):
            turn.errors = row.errors(squared[number], weighted[number])
            whole = slice(0, row.count)
            factors.append(factors_of(turn.member, turn.progress, turn.selection, whole, turn.errors))
            share: Tensor | float = 1 / row.count
            for factor in (turn.errors.weights, factors[-1]):
                share = share if factor is None else factor * share
            shares[number, : row.count] = share
            objective, errors = turn.member.objective, turn.errors
            if objective.couples(turn.progress, turn.selection.whole):
                coupling = objective.coupling(turn.progress, turn.selection, errors.residual, errors.weights)
                couplings[number, : row.count], coupled = coupling, True
        losses = _pointwise(rows, residual) * shares
        loss = losses.sum()
        if coupled:
            loss = loss + (couplings * live).sum()
        trained = {name: value for name, value in parameters.items() if value.requires_grad}
        inputs = [*trained.values(), *([] if coordinates is None else [coordinates])]
        parts = torch.autograd.grad(loss, inputs, allow_unused=True)
        totals = losses.detach().sum(dim=1, dtype=widest(losses.device))
        for number, (row, turn) in enumerate(zip(rows, turns, strict=True)):
            turn.loss = totals[number]
            if coordinates is not None:
                slope = slope_of(parts[-1][number, : row.count], row.count, factors[number])
                turn.errors = dataclasses.replace(turn.errors, slope=slope)
        return {name: part for name, part in zip(trained, parts, strict=False) if part is not None}

    def _residual(
        self, span: slice, rows: list[_Row], parameters: dict[str, Tensor], slope: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(R, k, C) F(x_i) − y_i at the coordinates of R networks; k is the length of the longest row.

        Args:
            span: which networks.
            rows: their rows.
            parameters: their parameters, (R, …) each.
            slope: whether coordinates require gradients; y is then linear in them.

        Returns:
            The residuals, and the (R, k, D) coordinates if they require gradients, else None.
        """
        length = max(row.count for row in rows)
        if not slope:
            gathered = [self._inputs_and_targets(row, length) for row in rows]
            inputs, targets = (torch.stack(parts) for parts in zip(*gathered, strict=True))
            return self.network(span, parameters, inputs) - targets, None
        padded = [(row.member.signal, row.padded(length)) for row in rows]
        places = [signal.coordinates(indices) for signal, indices in padded]
        coordinates = torch.stack(places).requires_grad_()
        live = [(signal, indices, own) for (signal, indices), own in zip(padded, coordinates, strict=True)]
        targets = torch.stack([linear_targets(*each) for each in live])
        inputs = torch.stack([signal.embedding(own) for signal, _, own in live])
        return self.network(span, parameters, inputs) - targets, coordinates

    def _clamped_to(self) -> Tensor | None:
        """(2, B, 1, 1) lowest and highest values that operators see; None if no operator clamps."""
        bounds = [member.selector.operator.bounds for member in self.members]
        if all(own is None for own in bounds):
            return None
        ends = [own or (-math.inf, math.inf) for own in bounds]
        return torch.tensor(ends, device=self._channel_weights.device).T[:, :, None, None]

    def _reduced(self, span: slice, rows: list[_Row], residual: Tensor) -> Tensor:
        """(R, k) channel-weighted sums of (R, k, C) residuals of R networks, which the fitness operators act on."""
        if self._bounds is not None:
            targets = torch.stack([self._inputs_and_targets(row, residual.shape[1])[1] for row in rows])
            low, high = self._bounds[:, span]
            residual = clamp_prediction(residual, targets, (low, high))
        return (residual @ self._channel_weights[span])[..., 0]

    def _inputs_and_targets(self, row: _Row, length: int) -> tuple[Tensor, Tensor]:
        """(length, E) inputs and (length, C) targets; for a signal no larger than a chunk they are kept."""
        signal, indices = row.member.signal, row.padded(length)
        if len(signal) > self.chunk or signal.dataset.resample_every:
            return signal.inputs(indices), signal.targets(indices)
        if row.member not in self._gathered:
            whole = slice(0, len(signal))
            self._gathered[row.member] = signal.inputs(whole), signal.targets(whole)
        inputs, targets = self._gathered[row.member]
        return inputs[indices], targets[indices]

    def _joint_optimizer(self) -> torch.optim.Optimizer | None:
        """An optimizer of the stacked parameters that replaces the networks' own; None if none can."""
        own = self.members[0].optimizer
        # Under a budget of time each network has its own learning rate.
        if self.members[0].budget is not None:
            return None
        if type(own) is SOAP:
            return SOAP.of_all([member.optimizer for member in self.members])  # type: ignore[misc]
        if type(own) not in _ELEMENTWISE:
            return None
        names = {id(parameter): name for name, parameter in self._named[0].items()}
        groups = [
            {**group, "params": [self.network.parameters[names[id(parameter)]] for parameter in group["params"]]}
            for group in own.param_groups
        ]
        joint: torch.optim.Optimizer = type(own)(groups)  # type: ignore[call-arg]
        for name, parameter in self.network.parameters.items():
            states = [
                member.optimizer.state[named[name]]
                for member, named in zip(self.members, self._named, strict=True)
                if named[name] in member.optimizer.state
            ]
            if states:
                joint.state[parameter] = {
                    key: value.clone() if key == "step" else torch.stack([state[key] for state in states])
                    for key, value in states[0].items()
                }
        return joint

    def _state_hook(self, number: int) -> Callable[[torch.optim.Optimizer], None]:
        """A hook that gives a network's own optimizer its part of the joint optimizer's state."""
        if isinstance(self.optimizer, SOAP):
            return functools.partial(self.optimizer.give_back, number)

        def give(own: torch.optim.Optimizer) -> None:
            for name, parameter in self._named[number].items():
                state = self.optimizer.state.get(self.network.parameters[name], {})  # type: ignore[union-attr]
                if state:
                    own.state[parameter] = {
                        key: value.clone() if key == "step" else value[number].clone() for key, value in state.items()
                    }

        return give


def _own_memory(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """A hook that copies a network's state; as a view it would be saved with the memory of all networks."""
    for name, value in state.items():
        state[name] = value.clone()


def _spans(counts: list[int], chunk: int) -> Iterator[slice]:
    """Cut a row of selections into spans that pass through their networks one after another.

    Args:
        counts: lengths of the selections.
        chunk: how many coordinates pass at a time, padding included.

    Yields:
        One selection, of any length; or several that fit into a chunk when each is padded to the longest, none of them
        less than half as long as the longest.
    """
    start = 0
    while start < len(counts):
        low = high = counts[start]
        stop = start + 1
        while stop < len(counts):
            low, high = min(low, counts[stop]), max(high, counts[stop])
            if high > 2 * low or high * (stop + 1 - start) > chunk:
                break
            stop += 1
        yield slice(start, stop)
        start = stop


def _pointwise(rows: list[_Row], residual: Tensor) -> Tensor:
    """(R, k) losses of (R, k, C) residuals by the members' own objectives; those at padding mean nothing."""
    objectives = [row.member.objective for row in rows]
    if all(type(objective).pointwise is MeanSquaredError.pointwise for objective in objectives):
        return objectives[0].pointwise(residual)
    losses = torch.zeros_like(residual[..., 0])
    for number, (row, objective) in enumerate(zip(rows, objectives, strict=True)):
        losses[number, : row.count] = objective.pointwise(residual[number, : row.count])
    return losses
