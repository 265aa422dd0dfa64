"""Networks: nn.Modules from coordinates to values."""

from inrkit.networks.base import NETWORKS, Network
from inrkit.networks.encoded import FourierFeatures, Positional
from inrkit.networks.filters import Bacon, FourierFilters, GaborFilters
from inrkit.networks.finer import Finer, FinerGauss, FinerWire
from inrkit.networks.gauss import Gauss
from inrkit.networks.hash_grid import HashGrid
from inrkit.networks.layers import (
    ComplexLinear,
    FirstLinear,
    HiddenLinear,
    coordinate_dtype,
    placed,
    precision_of,
    set_precision,
)
from inrkit.networks.siren import Siren
from inrkit.networks.tiles import Tiles
from inrkit.networks.wire import Wire

__all__ = [
    "NETWORKS",
    "Bacon",
    "ComplexLinear",
    "Finer",
    "FinerGauss",
    "FinerWire",
    "FirstLinear",
    "FourierFeatures",
    "FourierFilters",
    "GaborFilters",
    "Gauss",
    "HashGrid",
    "HiddenLinear",
    "Network",
    "Positional",
    "Siren",
    "Tiles",
    "Wire",
    "coordinate_dtype",
    "placed",
    "precision_of",
    "set_precision",
]
