"""Initial frequencies from the signal's spectrum, for options that are 0."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeVar

from inrkit.signals.roughness import gradient_frequency
from inrkit.signals.signal import Signal
from inrkit.signals.spectrum import spectral_edges

_PUBLISHED_OMEGA = 30.0

Options = TypeVar("Options", bound=Any)


def with_frequency(options: Options, name: str, signal: Signal, weight_scale: float = 1.0) -> Options:
    """The options; if the first frequency `name` is 0, it is set from the signal's spectrum.

    It becomes its default, the published value, times `frequency_factor`, divided by `weight_scale`, because the first
    layer's weights already have that factor.
    """
    if getattr(options, name) > 0:
        return options
    published = getattr(type(options)(), name)
    return dataclasses.replace(options, **{name: published * frequency_factor(signal) / weight_scale})


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
