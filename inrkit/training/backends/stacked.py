"""Many small networks, each with a signal of its own, trained as one stacked computation."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from inrkit.networks import Network, precision_of, set_precision
from inrkit.selectors import Errors, Selection, Survey
from inrkit.selectors.progress import Progress
from inrkit.training.loop import Trainer
from inrkit.training.objectives import MeanSquaredError

Result = TypeVar("Result")

_ELEMENTWISE = (torch.optim.Adam, torch.optim.AdamW)
"""Optimizers that treat every number of a parameter alike and alone, so that one of them may step many networks.
All that they keep of a parameter has its shape, except `step`."""

_PROBE = 16
"""Coordinates at which a stacked network is compared with single ones."""


class Together:
    """Trains many networks, each on its own signal, with the results that each gets by itself, up to rounding.

    Networks of a kind pass forwards and backwards as one computation: those of one class, shapes and training
    options. Signals, their sizes, selectors and seeds may differ, and so may options of the network that are floats,
    like an ω from the signal's spectrum. One Adam or AdamW steps all of them at once.

    Network by network go: choosing coordinates, surveys for influence, terms that link coordinates, losses other
    than the mean squared error, steps of other optimizers, steps under a budget of time, and evaluation. A network
    trains all by itself where there is no other of its kind, and where torch cannot stack it or gets something else
    that way, as where it draws random numbers, changes its buffers or branches on its values.

    Seconds of training and selection are shared out evenly over those that train at once.

    Args:
        trainers: of what is to be trained. They may be resumed: those behind catch up first.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers = list(trainers)

    def run(self) -> list[Exception | None]:
        """Train all to their ends, or until they are stopped.

        Returns:
            A trainer, what it failed of, or None; one that fails leaves the others alone.
        """
        failed: dict[Trainer, Exception] = {}
        for kind in _kinds(self.trainers):
            several = _agreeing(kind) if len(kind) > 1 else []
            if len(several) > 1:
                with torch.random.fork_rng(devices=[]):
                    failed |= _Lockstep(several).run()
            for trainer in kind:
                if len(several) < 2 or trainer not in several:
                    try:
                        trainer.run()
                    except Exception as error:
                        failed[trainer] = error
        return [failed.get(trainer) for trainer in self.trainers]

    def stop(self) -> None:
        """Make the present step the last one of all."""
        for trainer in self.trainers:
            trainer.stop()


def _kinds(trainers: Sequence[Trainer]) -> list[list[Trainer]]:
    """The trainers in groups of a kind."""
    kinds: dict[str, list[Trainer]] = {}
    for trainer in trainers:
        kinds.setdefault(_kind(trainer), []).append(trainer)
    return list(kinds.values())


def _kind(trainer: Trainer) -> str:
    """What is the same of trainers whose networks may be stacked."""
    network, optimizer, schedule = trainer.network, trainer.optimizer, trainer.schedule
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    floats = _floats(network.options)
    options = {name: value for name, value in dataclasses.asdict(network.options).items() if name not in floats}
    tensors = [*network.named_parameters(), *network.named_buffers()]
    groups = [
        {**group, "lr": rate, "params": [names.get(id(parameter)) for parameter in group["params"]]}
        for group, rate in zip(optimizer.param_groups, trainer.base_rates, strict=True)
    ]
    return repr(
        [
            [type(network), options, precision_of(network), network.training, trainer.dataset.device],
            [(name, tuple(tensor.shape), tensor.dtype, tensor.requires_grad) for name, tensor in tensors],
            [type(optimizer), groups, type(schedule), schedule.options],
            [trainer.steps, trainer.budget, trainer.chunk, trainer.selector.needs_slope],
        ]
    )


def _floats(options: Any) -> list[str]:
    """Names of the options that are floats."""
    return [name for name, value in dataclasses.asdict(options).items() if isinstance(value, float)]


def _agreeing(trainers: list[Trainer]) -> list[Trainer]:
    """Those of a kind whose networks give by themselves what they give stacked, at a few coordinates."""
    networks = [copy.deepcopy(trainer.network) for trainer in trainers]
    for network in networks:
        set_precision(network, "float32")  # so that rounding cannot be taken for a difference
    count = min(_PROBE, *(len(trainer.dataset) for trainer in trainers))
    inputs = [trainer.dataset.inputs(slice(0, count)) for trainer in trainers]
    before = [{name: buffer.clone() for name, buffer in network.named_buffers()} for network in networks]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # torch warns where it would loop over the networks
            stack = _StackedNetwork(networks)
            together = stack(slice(0, len(networks)), stack.parameters, torch.stack(inputs))
            alone = torch.stack([network(own) for network, own in zip(networks, inputs, strict=True)])
    except Exception:  # of whatever kind: a network that is broken will say so when it trains by itself
        return []
    after = [dict(network.named_buffers()) for network in networks]
    kept = [all(torch.equal(new[name], old[name]) for name in old) for old, new in zip(before, after, strict=True)]
    scale = alone.nan_to_num().abs().amax(dim=(1, 2), keepdim=True)
    close = ((together - alone).abs() <= 1e-4 * scale) | (together.isnan() & alone.isnan())
    same = close.all(dim=2).all(dim=1).tolist()
    return [trainer for trainer, *both in zip(trainers, kept, same, strict=True) if all(both)]


class _Lockstep:
    """The training loop of trainers of a kind: a step of all, and another.

    Args:
        trainers: of a kind, whose networks stacked agree with the single ones.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers = sorted(trainers, key=lambda trainer: len(trainer.dataset))  # neighbours need little padding
        self.failed: dict[Trainer, Exception] = {}
        self._stack: _Stack | None = None

    def run(self) -> dict[Trainer, Exception]:
        """Train; returns what failed, and of what."""
        self._each(self.trainers, Trainer.start)
        try:
            while going := [trainer for trainer in self.trainers if not (trainer in self.failed or trainer.ended)]:
                behind = min(trainer.step for trainer in going)
                self._step([trainer for trainer in going if trainer.step == behind])
        finally:
            self._release()
        self._each(self.trainers, Trainer.end)
        return self.failed

    def _step(self, trainers: list[Trainer]) -> None:
        """What `Trainer` does in a step, for several at the same one."""
        with self._clock("train", trainers):
            progress = self._each(trainers, Trainer.begin)
            with self._clock("selection", trainers):
                self._survey(progress)
                turns = self._each(progress, lambda trainer: _Turn.of(trainer, progress[trainer]))
            self._update(turns)
            with self._clock("selection", trainers):
                self._each(turns, lambda trainer: trainer.selector.observe(*turns[trainer].outcome))
            self._each(turns, lambda trainer: trainer.objective.observe(*turns[trainer].outcome))
            for trainer in turns:
                trainer.step += trainer not in self.failed
        self._each(turns, lambda trainer: trainer.report(turns[trainer].errors))

    def _survey(self, progress: Mapping[Trainer, Progress]) -> None:
        """Let selectors learn what they ask for."""
        asked = self._each(progress, lambda trainer: trainer.selector.survey(progress[trainer]))
        surveys = {trainer: survey for trainer, survey in asked.items() if survey is not None}
        if len(surveys) < len(progress) or any(survey.influence for survey in surveys.values()):
            errors = self._each(surveys, lambda trainer: trainer.measure(surveys[trainer]))
        else:
            turns = {
                trainer: _Turn(trainer, progress[trainer], Selection(survey.indices))
                for trainer, survey in surveys.items()
            }
            self._stacked(turns, _Stack.measure)
            errors = self._each(turns, lambda trainer: turns[trainer].errors)
        self._each(errors, lambda trainer: trainer.selector.learn(progress[trainer], surveys[trainer], errors[trainer]))

    def _update(self, turns: dict[Trainer, _Turn]) -> None:
        """A step of the optimizers."""
        self._stacked(turns, _Stack.backpropagate)
        if self._stack is not None and self._stack.optimizer is not None:
            self._stacked(turns, _Stack.step)
        else:
            self._each(turns, lambda trainer: turns[trainer].update())

    def _each(self, trainers: Iterable[Trainer], action: Callable[[Trainer], Result]) -> dict[Trainer, Result]:
        """What an action gives for each trainer; one for which it raises has failed, and is left out ever after."""
        results = {}
        for trainer in trainers:
            if trainer not in self.failed:
                try:
                    results[trainer] = action(trainer)
                except Exception as error:
                    self.failed[trainer] = error
        return results

    def _stacked(self, turns: dict[Trainer, _Turn], action: Callable[[_Stack, list[_Turn]], None]) -> None:
        """Do something with the networks of all turns at once; where it raises, all of them have failed."""
        going = {trainer: turn for trainer, turn in turns.items() if trainer not in self.failed}
        if not going:
            return
        try:
            if self._stack is None or self._stack.trainers != list(going):
                self._release()
                self._stack = _Stack(list(going))
            action(self._stack, list(going.values()))
        except Exception as error:
            self.failed |= dict.fromkeys(going, error)

    def _release(self) -> None:
        if self._stack is not None:
            self._stack.release()
            self._stack = None

    @contextlib.contextmanager
    def _clock(self, part: str, trainers: list[Trainer]) -> Iterator[None]:
        """Share the time of what happens inside out over trainers, as a part of their seconds."""
        start = trainers[0].now()
        yield
        share = (trainers[0].now() - start) / len(trainers)
        for trainer in trainers:
            trainer.seconds[part] += share


class _Turn:
    """What one network does at one step.

    Args:
        trainer: its trainer.
        progress: of the step.
        selection: k coordinates, which it trains on or is measured at.
    """

    def __init__(self, trainer: Trainer, progress: Progress, selection: Selection) -> None:
        self.trainer = trainer
        self.progress = progress
        self.selection = selection
        self.count = len(trainer.dataset) if selection.indices is None else len(selection.indices)
        self.loss = torch.zeros(())
        self.errors: Errors
        self._factors: Tensor | None = None

    @classmethod
    def of(cls, trainer: Trainer, progress: Progress) -> _Turn:
        """The turn of a trainer, on what its selector selects."""
        return cls(trainer, progress, trainer.selector.select(progress))

    def chunk(self, length: int) -> Tensor | slice:
        """The indices selected, and the first of them again and again up to `length`."""
        indices = self.selection.indices
        if length == self.count:
            return slice(0, length) if indices is None else indices
        if indices is None:
            indices = torch.arange(self.count, device=self.trainer.dataset.device)
        return torch.cat([indices, indices[:1].expand(length - self.count)])

    def meet(self, squared: Tensor, weighted: Tensor) -> Tensor | None:
        """Take the errors, (k,) each and without the dataset's weights; returns these weights or None."""
        weights = self.trainer.dataset.weights_of(self.chunk(self.count))
        # Errors may be kept for long, and must not keep those of all networks alive.
        self.errors = Errors(squared.clone() if weights is None else squared * weights, weighted.clone())
        return weights

    def share(self, weights: Tensor | None) -> Tensor | float:
        """What the coordinates' losses are multiplied by in the objective: (k,), or one number for all."""
        self._factors = self.trainer.factors(self.progress, self.selection, slice(0, self.count), self.errors)
        share: Tensor | float = 1 / self.count
        for factors in (weights, self._factors):
            share = share if factors is None else factors * share
        return share

    def link(self) -> Tensor | None:
        """(k,) gradient of the term that links coordinates with respect to their residuals; None without one."""
        objective = self.trainer.objective
        if not objective.couples(self.progress):
            return None
        return objective.coupling(self.progress, self.selection, self.errors.residual)

    def incline(self, gradient: Tensor) -> None:
        """Take the (k, D) gradient of the objective with respect to the coordinates."""
        slope = gradient * self.count
        slope = slope if self._factors is None else slope / self._factors[:, None]
        self.errors = dataclasses.replace(self.errors, slope=slope)

    @property
    def outcome(self) -> tuple[Progress, Selection, Errors]:
        """What selector and objective observe."""
        return self.progress, self.selection, self.errors

    def update(self) -> None:
        """A step of the network's own optimizer, whose gradients are there."""
        self.trainer.update(self.progress, self.selection, (self.loss, self.errors))


class _Stack:
    """B networks of a kind whose parameters lie in one tensor a name.

    Until `release`, the parameters of each network are rows of the stacked ones, so that an update of either is one
    of both, and one optimizer of the stacked parameters takes the place of the networks' own where it may.

    Args:
        trainers: B, at the same step.
    """

    def __init__(self, trainers: list[Trainer]) -> None:
        self.trainers = trainers
        self.chunk = trainers[0].chunk
        self.network = _StackedNetwork([trainer.network for trainer in trainers])
        self._channel_weights = torch.stack([trainer.dataset.channel_weights for trainer in trainers])[:, :, None]
        self._signals: dict[Trainer, tuple[Tensor, Tensor]] = {}
        self._named = [dict(trainer.network.named_parameters()) for trainer in trainers]
        self.optimizer = self._joint_optimizer()
        for row, named in enumerate(self._named):
            for name, parameter in named.items():
                parameter.data = self.network.parameters[name].data[row]
        self._hooks = [trainer.network.register_state_dict_post_hook(_detach) for trainer in trainers]
        if self.optimizer is not None:
            self._hooks += [
                trainer.optimizer.register_state_dict_pre_hook(self._giver(row)) for row, trainer in enumerate(trainers)
            ]

    def release(self) -> None:
        """Give the networks parameters of their own, and their optimizers the states of these."""
        for hook in self._hooks:
            hook.remove()
        for row, (trainer, named) in enumerate(zip(self.trainers, self._named, strict=True)):
            if self.optimizer is not None:
                self._giver(row)(trainer.optimizer)
            for parameter in named.values():
                parameter.data = parameter.data.clone()
                parameter.grad = None

    def step(self, turns: list[_Turn]) -> None:
        """A step of the joint optimizer, at the learning rates of the networks' own."""
        groups, own = self.optimizer.param_groups, turns[0].trainer.optimizer.param_groups  # type: ignore[union-attr]
        for joint, single in zip(groups, own, strict=True):
            joint["lr"] = single["lr"]
        self.optimizer.step()  # type: ignore[union-attr]

    def measure(self, turns: list[_Turn]) -> None:
        """Find the errors of the B selections."""
        for rows in _tiles([turn.count for turn in turns], self.chunk):
            if rows.stop - rows.start == 1:
                turn = turns[rows.start]
                turn.errors = turn.trainer.measure(Survey(turn.selection.indices))
                continue
            with torch.no_grad():
                residual, _ = self._residual(rows, turns[rows], self.network.rows(rows))
                squared, weighted = residual.square().mean(dim=-1), (residual @ self._channel_weights[rows])[..., 0]
            for row, turn in enumerate(turns[rows]):
                turn.meet(squared[row, : turn.count], weighted[row, : turn.count])

    def backpropagate(self, turns: list[_Turn]) -> None:
        """Find the errors of the B selections, and the gradients of their objectives in place of what was there."""
        gradients: dict[str, Tensor] = {}
        for rows in _tiles([turn.count for turn in turns], self.chunk):
            alone = rows.stop - rows.start == 1
            parts = self._alone(rows.start, turns[rows.start]) if alone else self._backpropagate(rows, turns[rows])
            for name, part in parts.items():
                if name not in gradients:
                    gradients[name] = torch.zeros_like(self.network.parameters[name], requires_grad=False)
                gradients[name][rows] = part
        for name, parameter in self.network.parameters.items():
            parameter.grad = gradients.get(name)
        if self.optimizer is None:
            for row, named in enumerate(self._named):
                for name, parameter in named.items():
                    parameter.grad = gradients[name][row] if name in gradients else None

    def _alone(self, row: int, turn: _Turn) -> dict[str, Tensor]:
        """The gradients of a network that passes by itself, and its errors."""
        for parameter in self._named[row].values():
            parameter.grad = None
        turn.loss, turn.errors = turn.trainer.backpropagate(turn.progress, turn.selection)
        return {name: parameter.grad for name, parameter in self._named[row].items() if parameter.grad is not None}

    def _backpropagate(self, rows: slice, turns: list[_Turn]) -> dict[str, Tensor]:
        """The (R, …) gradients of R networks, and their errors."""
        parameters = self.network.rows(rows)
        residual, coordinates = self._residual(rows, turns, parameters, turns[0].trainer.selector.needs_slope)
        live = (residual @ self._channel_weights[rows])[..., 0]
        squared, weighted = residual.detach().square().mean(dim=-1), live.detach()
        # What fills a row up to the longest has no share, and so no part in the gradients.
        shares, links = torch.zeros_like(weighted), torch.zeros_like(weighted)
        linked = False
        for row, turn in enumerate(turns):
            weights = turn.meet(squared[row, : turn.count], weighted[row, : turn.count])
            shares[row, : turn.count] = turn.share(weights)
            link = turn.link()
            if link is not None:
                links[row, : turn.count], linked = link, True
        losses = _pointwise(turns, residual) * shares
        loss = losses.sum()
        if linked:
            loss = loss + (links * live).sum()
        trained = {name: value for name, value in parameters.items() if value.requires_grad}
        inputs = [*trained.values(), *([] if coordinates is None else [coordinates])]
        parts = torch.autograd.grad(loss, inputs, allow_unused=True)
        totals = losses.detach().sum(dim=1, dtype=torch.float64)
        for row, turn in enumerate(turns):
            turn.loss = totals[row]
            if coordinates is not None:
                turn.incline(parts[-1][row, : turn.count])
        return {name: part for name, part in zip(trained, parts, strict=False) if part is not None}

    def _residual(
        self, rows: slice, turns: list[_Turn], parameters: dict[str, Tensor], slope: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(R, k, C) F(x_i) − y_i of the selections of R networks, k as many as the longest has.

        Args:
            rows: which networks.
            turns: theirs.
            parameters: theirs, (R, …) each.
            slope: whether coordinates are to be live; y is linear around them then.

        Returns:
            The residuals, and the live (R, k, D) coordinates or None.
        """
        length = max(turn.count for turn in turns)
        if not slope:
            inputs, targets = zip(*(self._signal(turn.trainer, turn.chunk(length)) for turn in turns), strict=True)
            return self.network(rows, parameters, torch.stack(inputs)) - torch.stack(targets), None
        signals = [(turn.trainer.dataset, turn.chunk(length)) for turn in turns]
        coordinates = torch.stack([dataset.coordinates(chunk) for dataset, chunk in signals]).requires_grad_()
        offset = coordinates - coordinates.detach()  # zero, with a gradient
        slopes = torch.stack([dataset.slopes(chunk) for dataset, chunk in signals])
        target = torch.stack([dataset.targets(chunk) for dataset, chunk in signals])
        target = target + (slopes @ offset[..., None])[..., 0]
        embedded = [dataset.embedded(own) for (dataset, _), own in zip(signals, coordinates, strict=True)]
        return self.network(rows, parameters, torch.stack(embedded)) - target, coordinates

    def _signal(self, trainer: Trainer, chunk: Tensor | slice) -> tuple[Tensor, Tensor]:
        """(k, E) inputs and (k, C) targets; those of a signal that is no larger than a chunk are kept."""
        dataset = trainer.dataset
        if len(dataset) > self.chunk or dataset.resample_every:
            return dataset.inputs(chunk), dataset.targets(chunk)
        if trainer not in self._signals:
            whole = slice(0, len(dataset))
            self._signals[trainer] = dataset.inputs(whole), dataset.targets(whole)
        inputs, targets = self._signals[trainer]
        return inputs[chunk], targets[chunk]

    def _joint_optimizer(self) -> torch.optim.Optimizer | None:
        """An optimizer of the stacked parameters that does what the networks' own do; None where there is none."""
        own = self.trainers[0].optimizer
        # A budget of time leads the learning rate of each network by itself.
        if type(own) not in _ELEMENTWISE or self.trainers[0].budget is not None:
            return None
        names = {id(parameter): name for name, parameter in self._named[0].items()}
        groups = [
            {**group, "params": [self.network.parameters[names[id(parameter)]] for parameter in group["params"]]}
            for group in own.param_groups
        ]
        joint: torch.optim.Optimizer = type(own)(groups)  # type: ignore[call-arg]
        for name, parameter in self.network.parameters.items():
            states = [
                trainer.optimizer.state[named[name]]
                for trainer, named in zip(self.trainers, self._named, strict=True)
                if named[name] in trainer.optimizer.state
            ]
            if states:
                joint.state[parameter] = {
                    key: value.clone() if key == "step" else torch.stack([state[key] for state in states])
                    for key, value in states[0].items()
                }
        return joint

    def _giver(self, row: int) -> Callable[[torch.optim.Optimizer], None]:
        """What gives a network's own optimizer its part of the joint one's state."""

        def give(own: torch.optim.Optimizer) -> None:
            for name, parameter in self._named[row].items():
                state = self.optimizer.state.get(self.network.parameters[name], {})  # type: ignore[union-attr]
                if state:
                    own.state[parameter] = {
                        key: value.clone() if key == "step" else value[row].clone() for key, value in state.items()
                    }

        return give


class _StackedNetwork:
    """B networks of a kind as one function.

    Args:
        networks: B.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self.parameters = _stack([dict(network.named_parameters()) for network in networks])
        for name, parameter in networks[0].named_parameters():
            self.parameters[name].requires_grad_(parameter.requires_grad)
        self._buffers = _stack([dict(network.named_buffers()) for network in networks])
        names = _floats(networks[0].options)
        options = {name: [getattr(network.options, name) for network in networks] for name in names}
        device = next(networks[0].parameters()).device
        self._differing = {
            name: torch.tensor(values, device=device) for name, values in options.items() if len(set(values)) > 1
        }
        self._network = copy.deepcopy(networks[0])
        self._options = self._network.options

    def rows(self, rows: slice) -> dict[str, Tensor]:
        """(R, …) parameters of some of the networks, as leaves."""
        return {
            name: parameter.detach()[rows].requires_grad_(parameter.requires_grad)
            for name, parameter in self.parameters.items()
        }

    def __call__(self, rows: slice, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
        """(R, k, C) values of some of the networks.

        Args:
            rows: which, R of them.
            parameters: theirs, (R, …) each.
            inputs: (R, k, E).
        """
        buffers = {name: buffer[rows] for name, buffer in self._buffers.items()}
        options = {name: values[rows] for name, values in self._differing.items()}
        values: Tensor = vmap(self._single)(parameters, buffers, options, inputs)
        return values

    def _single(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], options: dict[str, Tensor], inputs: Tensor
    ) -> Any:
        self._network.options = copy.copy(self._options)
        for name, value in options.items():
            object.__setattr__(self._network.options, name, value)  # frozen or not
        return functional_call(self._network, (parameters, buffers), (inputs,))


def _stack(tensors: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([own[name].detach() for own in tensors]) for name in tensors[0]}


def _detach(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """A hook: let a network's state have memory of its own, or the memory of all networks would be saved with it."""
    for name, value in state.items():
        state[name] = value.clone()


def _tiles(counts: list[int], chunk: int) -> Iterator[slice]:
    """Cut a row of selections into tiles that pass through their networks one after another.

    Args:
        counts: lengths of the selections.
        chunk: how many coordinates pass at a time, filling included.

    Yields:
        One selection, of any length; or several that are together no more than a chunk when each is filled up to the
        longest, and none less than half as long as that.
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


def _pointwise(turns: list[_Turn], residual: Tensor) -> Tensor:
    """(R, k) losses of (R, k, C) residuals by the networks' own objectives, 0 where a selection is filled up."""
    objectives = [turn.trainer.objective for turn in turns]
    if all(type(objective).pointwise is MeanSquaredError.pointwise for objective in objectives):
        return objectives[0].pointwise(residual)
    losses = torch.zeros_like(residual[..., 0])
    for row, (turn, objective) in enumerate(zip(turns, objectives, strict=True)):
        losses[row, : turn.count] = objective.pointwise(residual[row, : turn.count])
    return losses
