"""Signal: a dataset as a network learns it, with coordinates embedded and values transformed."""

from __future__ import annotations

import torch
from torch import Tensor

from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.embeddings import Embedding, Identity, IdentityOptions
from inrkit.signals.transforms import Identity as SameValues
from inrkit.signals.transforms import ValueTransform


class Signal:
    """N inputs of E numbers and N targets of C numbers: all that is known of a dataset.

    Where a part of a lattice is not known, N and the indices count the known cells alone, in their order; so does all
    that is made of a signal, a selector for one.

    Args:
        dataset: the coordinates and values.
        transform: map from stored values to the network's range; the identity if not given.
        embedding: map from coordinates to network inputs; the identity if not given.
    """

    def __init__(
        self, dataset: CoordinateDataset, transform: ValueTransform | None = None, embedding: Embedding | None = None
    ) -> None:
        self.dataset = dataset
        self.transform = transform or SameValues()
        self.embedding = embedding or Identity(IdentityOptions(), dataset.dimensions)

    def __len__(self) -> int:
        """N."""
        known = self.dataset.known
        return len(self.dataset) if known is None else len(known)

    @property
    def device(self) -> torch.device:
        return self.dataset.device

    @property
    def embedded(self) -> bool:
        """Whether the network's inputs differ from the coordinates."""
        return not isinstance(self.embedding, Identity)

    def inputs(self, indices: Tensor | slice) -> Tensor:
        """(k, E) float32 network inputs of `indices`: the coordinates, embedded."""
        return self.embedding(self.coordinates(indices))

    def coordinates(self, indices: Tensor | slice) -> Tensor:
        """(k, D) float32 coordinates in [−1, 1]^D of `indices`."""
        return self.dataset.coordinates(self._cells(indices))

    def weights_of(self, indices: Tensor | slice) -> Tensor | None:
        """(k,) float32 weights of `indices`, of mean 1 over the signal; None where all count the same."""
        return self.dataset.weights_of(self._cells(indices))

    def targets(self, indices: Tensor | slice) -> Tensor:
        """(k, C) float32 values of `indices` in the network's range."""
        return self.encoded(self._cells(indices))

    def reduced(self, indices: Tensor) -> Tensor:
        """(k,) float32 channel-weighted sums of the targets of `indices`, which a FitnessOperator acts on."""
        return self.targets(indices) @ self.dataset.channel_weights

    def slopes(self, indices: Tensor) -> Tensor:
        """(k, C, D) float32 gradient of the targets with respect to the coordinates, by central differences.

        One-sided at the lattice's edge and beside what is not known; zero along an axis of length 1, and for free
        points, whose neighbours are not known.
        """
        dataset = self.dataset
        indices = indices if dataset.known is None else dataset.known[indices]
        slopes = torch.zeros(len(indices), dataset.channels, dataset.dimensions, device=self.device)
        stride = 1
        for axis, length in reversed(list(enumerate(dataset.grid_shape or ()))):
            along = torch.div(indices, stride, rounding_mode="floor") % length
            lower, upper = along > 0, along < length - 1
            if dataset.known is not None:
                lower = lower & dataset.places(indices - stride)[1]
                upper = upper & dataset.places(indices + stride)[1]
            below, above = lower.to(torch.int64), upper.to(torch.int64)
            distance = (below + above).clamp(min=1)[:, None] * (2 / length)
            difference = self.encoded(indices + above * stride) - self.encoded(indices - below * stride)
            slopes[:, :, axis] = difference / distance
            stride *= length
        return slopes

    def _cells(self, indices: Tensor | slice) -> Tensor | slice:
        """The dataset's indices of the signal's."""
        known = self.dataset.known
        return indices if known is None else known[indices]

    def encoded(self, cells: Tensor | slice) -> Tensor:
        """(k, C) float32 values of the dataset's indices in the network's range."""
        return self.transform.encode(self.dataset.stored(cells)).to(torch.float32).to(self.device)

    def to(self, device: torch.device, values: bool = True) -> Signal:
        """The same signal on `device`, its values too unless they are to stay where they are."""
        return Signal(self.dataset.to(device, values), self.transform, self.embedding)
