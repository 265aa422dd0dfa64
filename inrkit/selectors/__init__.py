"""Selectors: which coordinates train the network at a step."""

from inrkit.selectors.base import SELECTORS, Errors, RatioOptions, Selection, Selector, Survey
from inrkit.selectors.evos import Evos
from inrkit.selectors.full import Full
from inrkit.selectors.uniform import Uniform

__all__ = ["SELECTORS", "Errors", "Evos", "Full", "RatioOptions", "Selection", "Selector", "Survey", "Uniform"]
