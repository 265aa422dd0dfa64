"""Selectors: which coordinates train the network at a step."""

from inrkit.selectors.base import SELECTORS, RatioOptions, RatioSelector, Residuals, Selection, Selector, Survey
from inrkit.selectors.edge_guided import EdgeGuided
from inrkit.selectors.evos import Evos
from inrkit.selectors.expansive import ExpansiveSupervision
from inrkit.selectors.full import Full
from inrkit.selectors.ntk import NtkGuidedTeaching
from inrkit.selectors.soft_mining import SoftMining
from inrkit.selectors.teaching import ImplicitNeuralTeaching
from inrkit.selectors.uniform import Uniform

__all__ = [
    "SELECTORS",
    "EdgeGuided",
    "Evos",
    "ExpansiveSupervision",
    "Full",
    "ImplicitNeuralTeaching",
    "NtkGuidedTeaching",
    "RatioOptions",
    "RatioSelector",
    "Residuals",
    "Selection",
    "Selector",
    "SoftMining",
    "Survey",
    "Uniform",
]
