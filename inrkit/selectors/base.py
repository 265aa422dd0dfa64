"""Selector: the base class of all selectors, and their registry."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from inrkit.plugins.choice import PluginType
from inrkit.plugins.options import option
from inrkit.plugins.registry import Registry
from inrkit.selectors.draws.quasirandom import QuasiRandom
from inrkit.selectors.draws.subsets import gaps_before, sample_besides
from inrkit.selectors.progress import Progress
from inrkit.selectors.schedules import RATIO_SCHEDULES, ratio, share_of
from inrkit.signals.operators import FitnessOperator

SELECTORS: Registry[Selector] = Registry("selector", "inrkit.selectors")


@dataclass(frozen=True)
class Selection:
    """The coordinates that train the network at one step.

    Args:
        indices: (k,) int64, distinct, on the selector's device.
        weights: (k,) float32 above 0, how much each coordinate's error counts in the loss, which is a mean over the
            selected; None for 1 each.
        whole: whether they are all N coordinates in order, as `everything` gives them.
        targets: (k, C) float32 their values in the network's range, where they were gathered beforehand.
    """

    indices: Tensor
    weights: Tensor | None = None
    whole: bool = False
    targets: Tensor | None = None


@dataclass(frozen=True)
class Survey:
    """Coordinates whose errors a selector wants to know before it selects. A survey does not train on them.

    Args:
        indices: (k,) int64, distinct.
        influence: whether `Residuals.influence` is wanted too; it costs about three times as much again.
    """

    indices: Tensor
    influence: bool = False


@dataclass(frozen=True)
class Residuals:
    """The residuals F(x_i) − y_i of the selected, or surveyed, coordinates, in their order, and what follows from them.

    Args:
        squared: (k,) mean over channels of (F(x_i) − y_i)², in the network's range squared, times the
            coordinate's weight where the dataset has weights.
        residual: (k,) channel-weighted sum of F(x_i) − y_i, which the FitnessOperator acts on. F(x_i) is clamped to the
            operator's `bounds` here, if it has some.
        slope: (k, D) gradient of the coordinate's loss with respect to the coordinate, for selectors with
            `needs_slope`. The signal is taken as linear between lattice points, and as constant between free points.
        influence: (k,) norm over the channels of J_i Σ_j w_j J_jᵀ (F(x_j) − y_j), for surveys that ask for it. J_i is
            the Jacobian of F(x_i) with respect to the parameters, w_j the dataset's weight; j runs over the surveyed.
            It says how far a small step of gradient descent on the surveyed moves the prediction at x_i.
        weights: (k,) the dataset's weights of the coordinates, of mean 1 over the signal; None for 1 each.
        points: how many points each number stands for: 1, or those of a tile.
        response: (k,) of tiles, for selectors with `needs_response`: mean squared response of the lattice's Laplacian,
            over a tile's visited points and the channels, to F − y. The visited points count as neighbours.
    """

    squared: Tensor
    residual: Tensor
    slope: Tensor | None = None
    influence: Tensor | None = None
    weights: Tensor | None = None
    points: int = 1
    response: Tensor | None = None


@SELECTORS.base
class Selector(metaclass=PluginType):
    """Decides which coordinates train the network at a step. It knows no modality.

    Args:
        options: an instance of the subclass's `Options`.
        count: N.
        operator: the dataset's fitness operator.
        seed: of the selector's own generator.
        device: where indices are made.
    """

    Options: ClassVar[type]
    visits_all: ClassVar[bool] = False
    """Whether some steps select all N coordinates, so that other steps may use the predictions of these."""
    selects_the_same: ClassVar[bool] = False
    """Whether all steps select the same coordinates, so that losses of different steps can be compared."""
    foresees: ClassVar[bool] = False
    """Whether what `select` gives depends on no errors, so that it may be asked for a step early."""
    needs_slope: ClassVar[bool] = False
    """Whether `observe` needs `Residuals.slope`."""
    of_tiles: ClassVar[type[Selector] | None] = None
    """The class that takes its place, with the same options, where the network has tiles: N is then their number, and
    the errors are means over a tile's points. None if it always selects coordinates."""

    def __init__(self, options: Any, count: int, operator: FitnessOperator, seed: int, device: torch.device) -> None:
        self.options = options
        self.count = count
        self.operator = operator
        self.device = device
        self.generator = torch.Generator(device=device).manual_seed(seed)

    @property
    def needs_response(self) -> bool:
        """Whether `observe` needs `Residuals.response` of tiles."""
        return False

    @abstractmethod
    def size(self, progress: Progress) -> int:
        """How many coordinates the step trains on, 1 to N."""

    def survey(self, progress: Progress) -> Survey | None:
        """The coordinates whose errors are needed before `select`; None if none are."""
        return None

    def learn(self, progress: Progress, survey: Survey, errors: Residuals) -> None:
        """Learn the errors of the coordinates that `survey` asked for."""

    @abstractmethod
    def select(self, progress: Progress) -> Selection:
        """The coordinates of a step."""

    def weigh(self, progress: Progress, errors: Residuals) -> Tensor | None:
        """(k,) factors on the losses of some of the selected, from their errors at the present parameters.

        They multiply `Selection.weights`, and no gradient passes through them; None for 1 each. The selected come chunk
        by chunk, so a coordinate's factor may depend only on its own errors and on what was learnt before.
        """
        return None

    def observe(self, progress: Progress, selection: Selection, errors: Residuals) -> None:
        """Learn the errors that the selected coordinates had before the network's update."""

    def survey_cost(self, progress: Progress) -> int:
        """How many coordinates the step's survey passes through the network, for the estimate of time.

        A coordinate whose influence is asked for counts as five: for passes forward, backward and along a direction.
        """
        return 0

    def restart(self) -> None:
        """Forget what was learnt of the coordinates, because they have been drawn anew."""

    def everything(self) -> Selection:
        """All N coordinates, in order."""
        return Selection(torch.arange(self.count, device=self.device), whole=True)

    def draw_besides(self, taken: Tensor, count: int) -> Tensor:
        """(count,) distinct indices, drawn uniformly from the coordinates that are not among the (n,) `taken`.

        Args:
            taken: (n,) int64 distinct indices, in any order.
            count: at most N − n.
        """
        return sample_besides(gaps_before(taken), self.count, count, self.generator)

    @property
    def visits_whole(self) -> bool:
        """Whether it `visits_all` on this signal too."""
        return self.visits_all

    @property
    def numbers_kept(self) -> float:
        """float32 numbers per coordinate that are kept between steps, for the memory estimate."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """Everything that `select` depends on besides its arguments, in plain containers and tensors."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.generator.set_state(state["generator"].cpu())


DRAWS = ("random", "quasi-random")
"""How coordinates are drawn when all are equally likely; see `QuasiRandom`."""


@dataclass
class RatioOptions:
    """Options of a selector that trains on a share of the coordinates: k = ⌊r(t) · N⌋ of N, between two limits."""

    ratio: float = option(0.5, above=0, at_most=1)
    """Share of the coordinates that a step trains on, at the start: r0."""
    ratio_schedule: str = option("constant", choices=RATIO_SCHEDULES)
    """How the ratio goes on from r0: `linear` to 1, `step` to 1 in ten equal stages, `cosine` to 1,
    `reverse-cosine` to 0.2."""

    least: int = option(1, at_least=1)
    """Fewest coordinates that a step trains on; for a small signal the ratio is raised to reach them."""
    most: int = option(0, at_least=0)
    """Most coordinates that a step trains on, over every other option; for a large signal the ratio is lowered to them;
    0 for no limit."""

    def start(self, count: int) -> float:
        """r0: the ratio, raised if `least` asks for more and lowered if `most` asks for less."""
        return min(1.0, max(self.ratio, self.least / count), self._most(count) / count)

    def scheduled_size(self, count: int, done: float) -> int:
        """k = ⌊r · N⌋, at least `least` or N, at most `most`."""
        wanted = max(min(self.least, count), share_of(count, ratio(self.ratio_schedule, self.start(count), done)))
        return min(wanted, self._most(count))

    def largest_size(self, count: int) -> int:
        """The largest k of the schedule; it occurs at one of its ends."""
        return max(self.scheduled_size(count, done) for done in (0.0, 1.0))

    def _most(self, count: int) -> int:
        return self.most or count


class RatioSelector(Selector):
    """A selector whose `Options` are `RatioOptions`, and whose k follows their schedule."""

    def size(self, progress: Progress) -> int:
        scheduled: int = self.options.scheduled_size(self.count, progress.before)
        return scheduled


def quasirandom(operator: FitnessOperator, generator: torch.Generator) -> QuasiRandom:
    """A quasi-random sequence of a signal's coordinates, spread evenly over the operator's layout of them."""
    return QuasiRandom(operator.layout, generator, operator.placed)


def rankable(errors: Tensor) -> Tensor:
    """Errors that can be ranked: NaN and infinity become 1e30, so that they rank first."""
    return torch.nan_to_num(errors, nan=1e30, posinf=1e30)
