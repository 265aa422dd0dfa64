"""Every coordinate at every step."""

from __future__ import annotations

from dataclasses import dataclass

from inrkit.selectors.base import SELECTORS, Selection, Selector
from inrkit.selectors.progress import Progress


@dataclass
class FullOptions:
    pass


@SELECTORS.register("full")
class Full(Selector):
    """Full batch: the baseline that every selector is compared with."""

    Options = FullOptions
    visits_all = True
    selects_the_same = True

    def size(self, progress: Progress) -> int:
        return self.count

    def select(self, progress: Progress) -> Selection:
        return self.everything()


Full.of_tiles = Full
