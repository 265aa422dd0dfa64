"""A fresh uniformly random subset at every step."""

from __future__ import annotations

from dataclasses import dataclass

from inrkit.sampling import sample_without_replacement
from inrkit.schedules import Progress
from inrkit.selectors.base import SELECTORS, RatioOptions, RatioSelector, Selection


@dataclass
class UniformOptions(RatioOptions):
    pass


@SELECTORS.register("uniform")
class Uniform(RatioSelector):
    """k = ⌊r(t)·N⌋ coordinates, drawn uniformly without replacement."""

    Options = UniformOptions

    def select(self, progress: Progress) -> Selection:
        k = self.size(progress)
        return Selection(None if k == self.count else sample_without_replacement(self.count, k, self.generator))
