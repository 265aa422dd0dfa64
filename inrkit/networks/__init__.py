"""Networks: nn.Modules from coordinates to values."""

from inrkit.networks.base import NETWORKS, Network
from inrkit.networks.layers import HiddenLinear, precision_of, set_precision
from inrkit.networks.siren import Siren

__all__ = ["NETWORKS", "HiddenLinear", "Network", "Siren", "precision_of", "set_precision"]
