"""Many networks of one architecture as one function."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from inrkit.networks.base import Network


class StackedNetwork:
    """B networks of one architecture as one function.

    Args:
        networks: B.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self.parameters = _stack([dict(network.named_parameters()) for network in networks])
        for name, parameter in networks[0].named_parameters():
            self.parameters[name].requires_grad_(parameter.requires_grad)
        self._buffers = _stack([dict(network.named_buffers()) for network in networks])
        names = float_options(networks[0].options)
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


def float_options(options: Any) -> list[str]:
    """Names of the options that are floats. Networks that are stacked may differ in these."""
    return [name for name, value in dataclasses.asdict(options).items() if isinstance(value, float)]
