"""A coordinate out of each of k blocks: random like a uniform draw, but never with a hole or a heap."""

import torch

from inrkit import RatioOptions, Selection, Selector


class Stratified(Selector):
    """Cuts the coordinates, in their order, into k blocks of one size and draws one of each."""

    Options = RatioOptions

    def size(self, progress):
        return self.options.scheduled_size(self.count, progress.before)

    def select(self, progress):
        k = self.size(progress)
        edges = torch.arange(k + 1, device=self.device) * self.count // k
        draws = torch.rand(k, generator=self.generator, device=self.device, dtype=torch.float64)
        return Selection(edges[:-1] + (draws * edges.diff()).long())
