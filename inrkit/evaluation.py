"""Running a network over a whole signal, in chunks and without gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from inrkit.dataset import CoordinateDataset
from inrkit.metrics import METRICS, Metric
from inrkit.transforms import ValueTransform


def default_chunk(device: torch.device) -> int:
    """Coordinates that pass through a network at a time: what stays in a core's cache, or fills a GPU."""
    return 1 << 13 if device.type == "cpu" else 1 << 18


def decoded(
    network: nn.Module,
    transform: ValueTransform,
    inputs: Callable[[slice], Tensor],
    span: slice,
    chunk: int,
    value_range: tuple[float, float] | None,
) -> Tensor:
    """(k, C) float32 stored values that the network predicts for the coordinates of `span`.

    Args:
        network: (…, D) to (…, C).
        transform: from stored values to the network's range.
        inputs: gives the (k, E) network inputs of a slice of indices.
        span: start and stop of the indices.
        chunk: how many coordinates pass through the network at a time.
        value_range: what stored values are clipped to.
    """
    parts = []
    with torch.inference_mode():
        for start in range(span.start, span.stop, chunk):
            part = inputs(slice(start, min(start + chunk, span.stop)))
            values = transform.decode(network(part)).to(torch.float32)
            parts.append(values if value_range is None else values.clamp_(*value_range))
    return torch.cat(parts)


def slabs(shape: tuple[int, ...], size: int) -> Iterator[slice]:
    """Index ranges of whole rows along the first axis, of about `size` coordinates each."""
    row = math.prod(shape[1:])
    rows = max(1, size // row)
    for first in range(0, shape[0], rows):
        yield slice(first * row, min(first + rows, shape[0]) * row)


def applicable(metrics: list[str], dataset: CoordinateDataset) -> dict[str, Metric]:
    """Those of the named metrics that apply to a signal of the dataset's shape, by name, yet without slabs.

    Raises:
        ConfigError: a metric is not defined for the signal, or a package that it needs is missing.
    """
    shape = dataset.grid_shape or (len(dataset),)
    chosen = {name: METRICS.get(name) for name in metrics}
    return {name: metric.of(dataset) for name, metric in chosen.items() if metric.applies(shape)}


def evaluate(network: nn.Module, dataset: CoordinateDataset, metrics: list[str], chunk: int) -> dict[str, float]:
    """The metrics of a network's prediction of a whole signal.

    Args:
        network: (…, D) to (…, C).
        dataset: the signal; its transform decodes the prediction.
        metrics: names; those that do not apply to a signal of this shape are left out.
        chunk: how many coordinates pass through the network at a time.

    Returns:
        The value of each metric that applies and is defined, by name.
    """
    shape = dataset.grid_shape or (len(dataset),)
    running = applicable(metrics, dataset)
    for span in slabs(shape, 1 << 18):
        prediction = decoded(network, dataset.transform, dataset.inputs, span, chunk, dataset.value_range)
        target = dataset.stored(span).to(torch.float32)
        rows = (-1, *shape[1:], dataset.channels)
        weights = dataset.weights_of(span)
        weights = None if weights is None else weights.view(rows[:-1])
        for metric in running.values():
            metric.update(prediction.view(rows), target.view(rows), weights)
    computed = {name: metric.compute() for name, metric in running.items()}
    return {name: value for name, value in computed.items() if value is not None}
