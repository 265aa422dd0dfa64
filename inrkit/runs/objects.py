"""Plug-ins given in Python (a name, a class, an instance, a module) as slots of a config."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from inrkit.config import Choice, Config
from inrkit.config.schema import SLOTS
from inrkit.errors import ConfigError
from inrkit.networks import Network, given
from inrkit.plugins.choice import Chosen
from inrkit.signals.transforms import ValueTransform
from inrkit.training.optimizers import given as given_optimizers


def slot_of(slot: str, value: Any) -> Any:
    """The config's slot for a value that a user gave in Python.

    Args:
        slot: "selector", "network", …
        value: a name; a mapping with a name and options, or options alone; a plug-in's class, such a class called with
            options by name (`Evos(ratio=0.2)`), or an instance of it. For a network also any nn.Module, or an nn.Module
            class that takes no arguments; for an optimizer also one of torch's classes, or a function from parameters
            to an optimizer; for a transform also one with its constants (`MinMax(0, 255)`).

    Raises:
        ConfigError: the value is none of these.
    """
    registry = SLOTS[slot].registry
    if isinstance(value, str | Mapping) or value is None:
        return value
    if isinstance(value, Chosen) and registry.accepts(value.plugin):
        return {"name": registry.name_of(value.plugin), **value.options}
    if isinstance(value, type) and registry.accepts(value):
        return {"name": registry.name_of(value)}
    if registry.accepts(type(value)) and not isinstance(value, Network | ValueTransform):
        return {"name": registry.name_of(type(value)), **dataclasses.asdict(value.options)}
    if slot == "network" and _is_module(value):
        return given.named(_module(value))
    if slot == "transform" and isinstance(value, ValueTransform):
        return {"name": registry.name_of(type(value))}
    if slot == "optimizer" and callable(value):
        return given_optimizers.named(value)
    if slot == "optimizer" and isinstance(value, torch.optim.Optimizer):
        raise ConfigError(
            f"optimizer is an instance of {type(value).__name__}, made for other parameters than the network's; give "
            "its class, or a function of the parameters"
        )
    raise ConfigError(
        f"{slot} is {value!r:.80}; give a name ({', '.join(registry.names()[:3])}, …), a class or an instance of one"
    )


def with_objects(config: Config, options: Mapping[str, Any]) -> Config:
    """The config, with objects that a user gave put into the slots that only name them.

    Args:
        config: made, among others, of the `slot_of` of the options.
        options: the values that a user gave, by slot.
    """
    choices = dict(config.choices)
    network, optimizer, transform = (options.get(slot) for slot in ("network", "optimizer", "transform"))
    if network is not None and config.network.plugin is given.Given:
        module = _module(network)
        choices["network"] = dataclasses.replace(config.network, plugin=given.Given.holding(module))
    if optimizer is not None and config.optimizer.plugin is given_optimizers.Given:
        choices["optimizer"] = dataclasses.replace(config.optimizer, plugin=given_optimizers.Given.holding(optimizer))
    if isinstance(transform, ValueTransform):
        choices["transform"] = Choice(config.transform.name, _Fitted(transform), config.transform.options)
    return dataclasses.replace(config, choices=choices)


def _module(value: Any) -> nn.Module:
    """A module as it is, or made of its class."""
    if isinstance(value, nn.Module):
        return value
    try:
        module: nn.Module = value()
    except TypeError as error:
        raise ConfigError(f"network is the class {value.__name__}, which needs arguments; give it made") from error
    return module


def _is_module(value: Any) -> bool:
    """Whether the value is an nn.Module, or a class of them, that no registry knows."""
    if isinstance(value, nn.Module):
        return True
    return isinstance(value, type) and issubclass(value, nn.Module) and not issubclass(value, Network)


class _Fitted:
    """Takes the place of a transform's class; fitting it gives the given transform.

    Args:
        transform: from stored values to the network's range.
    """

    def __init__(self, transform: ValueTransform) -> None:
        self.transform = transform

    def fit(self, options: Any, values: Any) -> ValueTransform:
        """The given transform, whatever the values are."""
        return self.transform
