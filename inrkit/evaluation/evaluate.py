"""Running a network over a whole signal, in chunks and without gradients."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from inrkit.device import wide
from inrkit.evaluation.derivatives import jacobian
from inrkit.evaluation.metrics import METRICS, FieldMetric, Measure, Metric
from inrkit.networks import coordinate_dtype, placed
from inrkit.selectors.draws.subsets import sample_without_replacement
from inrkit.selectors.draws.tiles import Tiles
from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.lattice import slabs
from inrkit.signals.signal import Signal
from inrkit.signals.transforms import ValueTransform

_CROPS = 256
"""Crops that represent a large signal, if it can be cut evenly."""


def default_chunk(device: torch.device, network: nn.Module | None = None) -> int:
    """Coordinates that pass through a network at a time: as many as stay in a core's cache, or fill a GPU. Networks
    with tiles take more, which they sort into their tiles."""
    if device.type != "cpu":
        return 1 << 18
    return 1 << 16 if getattr(network, "tiled", False) else 1 << 13


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode, without dropout and the like, and restore its mode afterwards."""
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def decoded(
    network: nn.Module,
    transform: ValueTransform,
    inputs: Callable[[slice], Tensor],
    span: slice,
    chunk: int,
    value_range: tuple[float, float] | None,
) -> Tensor:
    """(k, C) stored values that the network, in evaluation mode, predicts for the coordinates of `span`: float32, or
    float64 where float32 would not tell them apart.

    Args:
        network: (…, D) to (…, C).
        transform: from stored values to the network's range.
        inputs: gives the (k, E) network inputs of a slice of indices.
        span: start and stop of the indices.
        chunk: how many coordinates pass through the network at a time.
        value_range: stored values are clipped to it.
    """
    found: Tensor | None = None
    with evaluating(network), torch.inference_mode():
        for start in range(span.start, span.stop, chunk):
            part = slice(start, min(start + chunk, span.stop))
            output = network(inputs(part))
            resolved = transform.resolved(output.shape[-1])
            values = transform.decode(output).to(torch.float32) if resolved else transform.decode(wide(output))
            values = values if value_range is None else values.clamp_(*value_range)
            if found is None:  # parts kept between the networks' features would leave holes in memory
                found = values.new_empty(span.stop - span.start, values.shape[-1])
            found[part.start - span.start : part.stop - span.start] = values
    assert found is not None, "a span holds something"
    return found


class NetworkPredictor:
    """What a network predicts anywhere; see `Predictor`.

    Args:
        network: (…, D) to (…, C).
        signal: what it was trained on.
        chunk: how many coordinates pass through the network at a time.
    """

    def __init__(self, network: nn.Module, signal: Signal, chunk: int) -> None:
        self._network, self._signal, self._chunk = network, signal, chunk

    def __call__(self, coordinates: Tensor) -> Tensor:
        signal = self._signal
        return decoded(
            self._network,
            signal.transform,
            lambda part: signal.embedding(placed(coordinates[part], self._network)),
            slice(0, len(coordinates)),
            self._chunk,
            signal.dataset.value_range,
        )

    def jacobian(self, coordinates: Tensor) -> Tensor:
        signal = self._signal

        def values(points: Tensor) -> Tensor:
            return signal.transform.decode(self._network(signal.embedding(points))).to(torch.float32)

        with evaluating(self._network):
            return torch.cat([jacobian(values, part) for part in coordinates.split(self._chunk)])


def applicable(metrics: list[str], dataset: CoordinateDataset) -> dict[str, Measure]:
    """The named metrics that apply to a signal like the dataset, by name; they have seen nothing yet.

    Where a part of the signal is not known, those that cannot leave it out do not apply.

    Raises:
        ConfigError: a metric is not defined for the signal, or a package that it needs is missing.
    """
    chosen = {name: METRICS.get(name) for name in metrics}
    suitable = {name: metric for name, metric in chosen.items() if metric.suits(dataset)}
    return {name: metric.of(dataset) for name, metric in suitable.items() if dataset.known is None or metric.leaves_out}


def left_out(metrics: list[str], dataset: CoordinateDataset) -> list[str]:
    """Titles of the named metrics that would apply if all of the signal were known."""
    chosen = {name: METRICS.get(name) for name in metrics if dataset.known is not None}
    return [metric.title or name for name, metric in chosen.items() if metric.suits(dataset) and not metric.leaves_out]


class Crops:
    """Crops spread at random over a signal, the same each time, put side by side along the first axis.

    For free points a crop is a single point.

    Args:
        dataset: the signal, with more coordinates than `most`.
        most: most coordinates of all crops together.
    """

    def __init__(self, dataset: CoordinateDataset, most: int) -> None:
        lattice = dataset.grid_shape
        size = 1 if lattice is None else max(1, most // _CROPS)
        self._tiles = Tiles(lattice or (len(dataset),), size)
        self._each = math.prod(self._tiles.least)
        # Tiles of which nothing is known would tell nothing.
        known = None if dataset.known is None else self._tiles.numbers_of(dataset.known.cpu()).unique()
        population = len(self._tiles) if known is None else len(known)
        count = min(population, max(1, most // self._each))
        drawn = sample_without_replacement(population, count, torch.Generator().manual_seed(0)).sort().values
        self._chosen = (drawn if known is None else known[drawn]).to(dataset.device)
        self.shape = (count * self._tiles.least[0], *self._tiles.least[1:])
        """Shape of the lattice that the crops make up."""

    def __len__(self) -> int:
        """How many coordinates they hold."""
        return math.prod(self.shape)

    def indices(self, span: slice) -> Tensor:
        """(k,) int64 indices into the signal of a span of the crops' coordinates."""
        first, last = span.start // self._each, -(-span.stop // self._each)
        cells = self._tiles.even_cells(self._chosen[first:last])
        return cells[span.start - first * self._each : span.stop - first * self._each]


def evaluate(
    network: nn.Module, signal: Signal, metrics: list[str], chunk: int, most: int | None = None
) -> dict[str, float]:
    """The metrics of a network's prediction of a signal.

    Args:
        network: (…, D) to (…, C).
        signal: what it was trained on; its transform decodes the prediction.
        metrics: names; those that do not apply to a signal of this shape are left out.
        chunk: how many coordinates pass through the network at a time.
        most: most coordinates; a larger signal is represented by `Crops` of as many in all. None for no limit. With
            crops, metrics of structure also see the seams between them.

    Of what is not known nothing is predicted.

    Returns:
        The value of each metric that applies and is defined, by name.
    """
    dataset = signal.dataset
    running = applicable(metrics, dataset)
    of_samples = {name: metric for name, metric in running.items() if isinstance(metric, Metric)}
    sampled = _at_samples(network, signal, of_samples, chunk, most)
    predictor, asked = NetworkPredictor(network, signal, chunk), min(len(signal), most or len(signal))
    values: dict[str, float] = {}
    for name, metric in running.items():
        value = metric.measure(predictor, asked) if isinstance(metric, FieldMetric) else sampled.get(name)
        if value is not None:
            values[name] = value
    return values


def _at_samples(
    network: nn.Module, signal: Signal, running: dict[str, Metric], chunk: int, most: int | None
) -> dict[str, float | None]:
    """The metrics that compare predictions with the samples; see `evaluate`."""
    dataset = signal.dataset
    crops = None if most is None or len(dataset) <= most else Crops(dataset, most)
    shape = dataset.grid_shape or (len(dataset),)
    if crops is not None:
        again = applicable(list(running), _relaid(dataset, crops.shape))
        running = {name: metric for name, metric in again.items() if isinstance(metric, Metric)}
        shape = crops.shape
    if not running:
        return {}
    for span in slabs(shape):
        indices = torch.arange(span.start, span.stop, device=dataset.device) if crops is None else crops.indices(span)
        rows = (-1, *shape[1:], dataset.channels)
        weights = dataset.weights_of(indices)
        weights = None if weights is None else weights.view(rows[:-1])
        if dataset.known is None:
            prediction, target = _compared(network, signal, indices, chunk)
            for metric in running.values():
                metric.update(prediction.view(rows), target.view(rows), weights)
            continue
        known = dataset.places(indices)[1]
        prediction = torch.zeros(len(indices), dataset.channels, device=dataset.device)
        target = torch.zeros_like(prediction)
        if known.any():
            prediction[known], target[known] = _compared(network, signal, indices[known], chunk)
        for metric in running.values():
            metric.update_known(prediction.view(rows), target.view(rows), weights, known.view(rows[:-1]))
    return {name: metric.compute() for name, metric in running.items()}


def _compared(network: nn.Module, signal: Signal, indices: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """(k, C) float32 stored values, less the dataset's reference, that are predicted for its (k,) `indices`, and those
    that are there."""
    dataset = signal.dataset
    prediction = decoded(
        network,
        signal.transform,
        lambda part: signal.embedding(dataset.coordinates(indices[part], coordinate_dtype(network))),
        slice(0, len(indices)),
        chunk,
        dataset.value_range,
    )
    return dataset.referred(prediction).to(dataset.device), dataset.stored32(indices)


def _relaid(dataset: CoordinateDataset, shape: tuple[int, ...]) -> CoordinateDataset:
    """The signal for metrics whose slabs come from a lattice of `shape`, with cells of the same size."""
    relaid = copy.copy(dataset)
    if dataset.grid_shape is not None:
        relaid.grid_shape = shape
        ratios = [length / whole for length, whole in zip(shape, dataset.grid_shape, strict=True)]
        relaid.affine = dataset.affine * [*ratios, 1.0]
    return relaid
