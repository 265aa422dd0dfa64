"""Signal: a dataset as a network learns it, coordinates embedded and values transformed."""

from __future__ import annotations

import torch
from torch import Tensor

from inrkit.signals.dataset import CoordinateDataset
from inrkit.signals.embeddings import Embedding, Identity, IdentityOptions
from inrkit.signals.transforms import Identity as SameValues
from inrkit.signals.transforms import ValueTransform


class Signal:
    """N inputs of E numbers and N targets of C numbers.

    Args:
        dataset: the coordinates and values.
        transform: map from stored values to the network's range; values stay as they are, if not given.
        embedding: map from coordinates to network inputs; coordinates stay as they are, if not given.
    """

    def __init__(
        self, dataset: CoordinateDataset, transform: ValueTransform | None = None, embedding: Embedding | None = None
    ) -> None:
        self.dataset = dataset
        self.transform = transform or SameValues()
        self.embedding = embedding or Identity(IdentityOptions(), dataset.dimensions)

    def __len__(self) -> int:
        """N."""
        return len(self.dataset)

    @property
    def device(self) -> torch.device:
        return self.dataset.device

    @property
    def embedded(self) -> bool:
        """Whether a network is given something else than the coordinates themselves."""
        return not isinstance(self.embedding, Identity)

    def inputs(self, indices: Tensor | slice) -> Tensor:
        """(k, E) float32 network inputs of `indices`: the coordinates, embedded."""
        return self.embedding(self.dataset.coordinates(indices))

    def targets(self, indices: Tensor | slice) -> Tensor:
        """(k, C) float32 values of `indices` in the network's range."""
        return self.transform.encode(self.dataset.stored(indices)).to(torch.float32)

    def reduced(self, indices: Tensor) -> Tensor:
        """(k,) float32 channel-weighted sums of the targets of `indices`: what a FitnessOperator acts on."""
        return self.targets(indices) @ self.dataset.channel_weights

    def slopes(self, indices: Tensor) -> Tensor:
        """(k, C, D) float32 gradient of the targets with respect to the coordinates, by central differences.

        One-sided at the lattice's edge; zero along an axis of length 1, and for free points, whose neighbours are
        not known.
        """
        dataset = self.dataset
        slopes = torch.zeros(len(indices), dataset.channels, dataset.dimensions, device=self.device)
        stride = 1
        for axis, length in reversed(list(enumerate(dataset.grid_shape or ()))):
            along = torch.div(indices, stride, rounding_mode="floor") % length
            below, above = (along > 0).to(torch.int64), (along < length - 1).to(torch.int64)
            distance = (below + above).clamp(min=1)[:, None] * (2 / length)
            difference = self.targets(indices + above * stride) - self.targets(indices - below * stride)
            slopes[:, :, axis] = difference / distance
            stride *= length
        return slopes

    def to(self, device: torch.device) -> Signal:
        """The same signal with its values on `device`."""
        return Signal(self.dataset.to(device), self.transform, self.embedding)
