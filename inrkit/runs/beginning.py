"""Beginning: the weights of another fit that one starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from inrkit.errors import ConfigError, DataError
from inrkit.networks import Network
from inrkit.plugins.options import nearest
from inrkit.runs.field import Field, read_field

GIVEN = "given"
"""What a config says where the beginning was given in Python as a field."""


@dataclass(frozen=True)
class Beginning:
    """Weights to start from; what is around a network, the transform and the embedding, is the new fit's own.

    Args:
        source: what to call it in messages.
        network: the network's name in its registry.
        options: the network's options, as they were fitted to the earlier signal.
        weights: its state, by name.
    """

    source: str
    network: str
    options: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: str | Path) -> Beginning:
        """From a run's folder or a field.safetensors; makes no network and runs no code.

        Raises:
            DataError: no field there, or a damaged one.
        """
        try:
            description, weights = read_field(path)
        except DataError as error:
            raise DataError(f"init: {error}") from error
        network = description.get("network")
        network = network if isinstance(network, dict) else {}
        options = network.get("options")
        return cls(str(path), str(network.get("name")), options if isinstance(options, dict) else {}, weights)

    @classmethod
    def of(cls, field: Field) -> Beginning:
        """From a field that there is."""
        network = field.network
        options = dataclasses.asdict(network.options) if isinstance(network, Network) else {}
        weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        return cls(f"the {field!r}", field.names["network"], options, weights)

    def options_for(self, name: str, given: Any, fitted: Any) -> Any:
        """A network's options, where those that would follow the new signal's spectrum or size follow the beginning.

        Weights mean what they meant with the frequency, say, that they were trained with.

        Args:
            name: of the network.
            given: its options as the config has them.
            fitted: the same, fitted to the new signal.

        Raises:
            ConfigError: the beginning is of another kind of network, or of a signal of other dimensions.
        """
        if name != self.network:
            raise ConfigError(
                f"init is {self.source}, whose network is '{self.network}', and here it is '{name}'; fit with "
                f"network={self.network}"
            )
        taken = {
            field.name: self.options[field.name]
            for field in dataclasses.fields(given)
            if field.name in self.options and getattr(given, field.name) != getattr(fitted, field.name)
        }
        for option, value in taken.items():
            here = getattr(fitted, option)
            lists = isinstance(value, list) and isinstance(here, list)
            if lists and value and here and len(value) != len(here):  # an empty one leaves it to the network
                raise ConfigError(
                    f"init is {self.source}, whose {option} is {value}, a number for each axis, and this signal has "
                    f"{len(here)}; start from the fit of a signal with as many axes"
                )
        return dataclasses.replace(fitted, **taken)

    def start(self, network: nn.Module, skip: Sequence[str]) -> None:
        """Give a network the weights.

        Args:
            network: as it was drawn.
            skip: what the names begin with of parameters and buffers that stay as they were drawn.

        Raises:
            ConfigError: names or shapes differ, or nothing begins as `skip` says; says which.
        """
        every = network.state_dict()
        for prefix in skip:
            if not any(begins(name, [prefix]) for name in [*every, *self.weights]):
                raise ConfigError(
                    f"init_skip has '{prefix}', which no parameter's name begins with{nearest(prefix, every)}"
                )
        own = {name: value for name, value in every.items() if not begins(name, skip)}
        theirs = {name: value for name, value in self.weights.items() if not begins(name, skip)}
        for name in sorted(own.keys() | theirs.keys()):
            shapes = [f"of shape {tuple(side[name].shape)}" if name in side else "missing" for side in (theirs, own)]
            if shapes[0] != shapes[1]:
                raise ConfigError(
                    f"init is {self.source}, where {name} is {shapes[0]}, and here it is {shapes[1]}; fit with the "
                    f"same network options, or leave it as it is drawn with init_skip=[{name.partition('.')[0]}]"
                )
        network.load_state_dict(theirs, strict=False)


def begins(name: str, prefixes: Sequence[str]) -> bool:
    """Whether a dotted name is one of the prefixes, or inside what one of them names."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)
