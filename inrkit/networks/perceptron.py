"""Perceptron: the base of networks of linear layers with an activation in between."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from inrkit.networks.base import Network
from inrkit.networks.layers import FirstLinear, HiddenLinear


class Perceptron(Network):
    """Linear layers `first`, `hidden` and `last`, with an activation after each but the last.

    A subclass makes the layers with `make_layers` and defines `activation`.
    """

    first: nn.Linear
    hidden: nn.ModuleList
    last: nn.Linear

    def make_layers(self, inputs: int) -> None:
        """Make the layers, with the width and number from the options, drawn as nn.Linear draws them.

        Args:
            inputs: how many numbers `encode` gives for a coordinate.
        """
        width = self.options.hidden_features
        self.first = FirstLinear(inputs, width)
        self.hidden = nn.ModuleList(HiddenLinear(width, width) for _ in range(self.options.hidden_layers))
        self.last = nn.Linear(width, self.channels)

    @property
    def layers(self) -> list[nn.Linear]:
        """All of them, in order."""
        return [self.first, *self.hidden, self.last]

    def encode(self, coordinates: Tensor) -> Tensor:
        """(…, inputs) the first layer's inputs at (…, D) coordinates."""
        return coordinates

    def first_activation(self, argument: Tensor) -> Tensor:
        """The activation after the first layer; `activation` unless a subclass overrides it."""
        return self.activation(argument)

    @abstractmethod
    def activation(self, argument: Tensor) -> Tensor:
        """The activation after a hidden layer."""

    def forward(self, coordinates: Tensor) -> Tensor:
        features = self.first_activation(self.first(self.encode(coordinates)))
        for layer in self.hidden:
            features = self.activation(layer(features))
        values: Tensor = self.last(features.to(self.last.weight.dtype))
        return values
