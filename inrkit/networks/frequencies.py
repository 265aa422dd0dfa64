"""Initial frequencies from the signal's spectrum and its number of samples along each axis, for options that are 0."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeVar

import torch
from torch import Tensor

from inrkit.errors import ConfigError
from inrkit.networks.base import Network
from inrkit.signals.roughness import gradient_frequency
from inrkit.signals.signal import Signal
from inrkit.signals.spectrum import spectral_edges

_PUBLISHED_OMEGA = 30.0

Options = TypeVar("Options", bound=Any)


def with_frequency(
    options: Options, name: str, signal: Signal, weight_scale: float = 1.0, along: float = 1.0
) -> Options:
    """The options; if the first frequency `name` is 0, it is set from the signal's spectrum.

    It becomes its default, the published value, times `frequency_factor`, divided by `weight_scale`, because the first
    layer's weights already have that factor. Along axes of few samples it is then lowered; see `with_axis_factors`.
    """
    if getattr(options, name) > 0:
        return with_axis_factors(options, name, signal, weight_scale, along)
    published = getattr(type(options)(), name)
    found = dataclasses.replace(options, **{name: published * frequency_factor(signal) / weight_scale})
    if not found.axis_factors:
        found = dataclasses.replace(found, axis_factors=[0.0])
    return with_axis_factors(found, name, signal, weight_scale, along)


def with_axis_factors(
    options: Options, name: str, signal: Signal, weight_scale: float = 1.0, along: float = 1.0
) -> Options:
    """The options; each of their `axis_factors` that is 0 becomes what the samples along its axis determine.

    A field that begins with higher frequencies than its samples determine passes through them and is noise between. A
    network's frequencies count as those that SIREN has in a picture, 30 over two dimensions, if its option is the
    published one; `highest_determined` says how high they may be.

    Args:
        options: of a network, with `axis_factors`.
        name: of the first frequency.
        signal: free points and embedded coordinates have factors of 1.
        weight_scale: factor on the first layer's weights.
        along: ratio of the frequencies along an axis to those that the same option gives along one of two axes.

    Raises:
        ConfigError: there is another number of factors than of axes.
    """
    given, inputs = options.axis_factors, signal.embedding.features
    if not given:
        return options
    if len(given) not in (1, inputs):
        raise ConfigError(
            f"network.axis_factors has {len(given)} numbers, and the network {inputs} inputs; give one for each, or "
            "one for all"
        )
    highest = _PUBLISHED_OMEGA / 2 * along * weight_scale * getattr(options, name) / getattr(type(options)(), name)
    lattice = (math.inf,) * inputs if signal.embedded else signal.dataset.grid_shape or (math.inf,) * inputs
    determined = [min(1.0, highest_determined(length) / highest) for length in lattice]
    factors = [factor or most for factor, most in zip(list(given) * (inputs // len(given)), determined, strict=True)]
    return dataclasses.replace(options, axis_factors=[] if set(factors) == {1.0} else factors)


def highest_determined(length: float) -> float:
    """The highest frequency, in radians a unit of coordinate, with which a network may begin along an axis.

    An eighth of what the cells can show at most, half a cycle a cell; on an axis of fewer than 256 cells less, by the
    square root of their share of 256; but at least half a cycle over the extent. The law is empirical, from fits rated
    between the samples: pictures of 256 pixels a side and more keep the frequencies of the preset for images.

    Args:
        length: cells of the axis.
    """
    shown = math.pi / 2 * length
    return max(math.pi / 2, shown / 8 * min(1.0, math.sqrt(length / 256)))


def scale_axes(network: Network, *weights: Tensor) -> None:
    """Multiply a network's initial frequencies by its `axis_factors`. Its options then no longer have them, as they say
    nothing of a network in training.

    Args:
        network: its options are fitted.
        weights: (…, D), drawn.
    """
    factors = network.options.axis_factors
    if not factors:
        return
    with torch.no_grad():
        for weight in weights:
            weight.mul_(torch.tensor(factors))
    network.options = dataclasses.replace(network.options, axis_factors=[])


def check_factors(factors: list[float]) -> None:
    """Refuse what is no list of factors.

    Raises:
        ValueError: a factor is negative or not finite.
    """
    wrong = [factor for factor in factors if not 0 <= factor < math.inf]
    if wrong:
        raise ValueError(f"axis_factors has {wrong[0]}; it must hold finite numbers, 0 or more")


def frequency_factor(signal: Signal) -> float:
    """Factor on the published first frequencies that suits the signal; at least 1 on a lattice.

    SIREN's ω should be 12 times the square root of the frequency below which half of the energy lies, in radians a unit
    of coordinate, along the axis where that is highest; the factor is this over SIREN's published 30. The law is
    empirical, from short fits of speech and music of 1 to 8 seconds; twice that ω loses 2 dB and more. The other
    networks' published settings were found on pictures too and begin with much the same frequencies as SIREN, so the
    factor holds for them.

    Free points tell no spectrum, but how steep the signal is between neighbours: SIREN's ω should be 0.8 times the root
    mean square of its slope over that of its values, times the tenth root of the thousands of points. This law too was
    found by fits, rated between the samples: with higher ones a network goes through noise and oscillates, the sooner
    the fewer points there are; with lower ones it does not reach the detail in time.

    Returns:
        The factor; 1 for constants and embedded coordinates.
    """
    if signal.dataset.grid_shape is None:
        frequency = gradient_frequency(signal)
        return 1.0 if frequency is None else 0.8 * (len(signal) / 1000) ** 0.1 * frequency / _PUBLISHED_OMEGA
    edges = spectral_edges(signal, 0.5)
    if edges is None or signal.embedded:
        return 1.0
    return max(1.0, 12 * math.sqrt(max(edges)) / _PUBLISHED_OMEGA)
