"""First frequencies from the signal: what an option of 0 stands for."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeVar

from inrkit.signals.signal import Signal
from inrkit.signals.spectrum import spectral_edges

_PUBLISHED_OMEGA = 30.0

Options = TypeVar("Options", bound=Any)


def with_frequency(options: Options, name: str, signal: Signal, weight_scale: float = 1.0) -> Options:
    """The options with the first frequency `name`, where it is 0, from the signal's spectrum.

    It becomes its own default, the published value, times `frequency_factor`, and over `weight_scale`, a factor that
    the first layer's weights have already.
    """
    if getattr(options, name) > 0:
        return options
    published = getattr(type(options)(), name)
    return dataclasses.replace(options, **{name: published * frequency_factor(signal) / weight_scale})


def frequency_factor(signal: Signal) -> float:
    """How many times the published first frequencies suit the signal; at least 1.

    For SIREN's 30 radians a unit of coordinate: 12 times the square root of the frequency below which half of the
    energy lies, along the axis where that is highest. The law is empirical: found by short fits of speech and music
    of 1 to 8 seconds, where twice that loses 2 dB and more. The other networks' published settings begin with much
    the same frequencies as SIREN, for all were found on pictures, so that the factor carries over.

    Free points tell no spectrum. Few of them determine only low frequencies: the factor brings SIREN's down to 0.75
    times the square root of the highest that as many points on a lattice could show, where it lies above that. This
    law too was found by fits, rated between the samples: with higher ones a network goes through noise and oscillates.

    Returns:
        The factor; 1 for constants and embedded coordinates.
    """
    if signal.dataset.grid_shape is None:
        highest = math.pi / 2 * len(signal) ** (1 / signal.dataset.dimensions)
        return min(1.0, 0.75 * math.sqrt(highest) / _PUBLISHED_OMEGA)
    edges = spectral_edges(signal, 0.5)
    if edges is None or signal.embedded:
        return 1.0
    return max(1.0, 12 * math.sqrt(max(edges)) / _PUBLISHED_OMEGA)
