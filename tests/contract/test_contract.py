"""Every plug-in that inrkit brings keeps the contract, and the checks notice one that does not."""

import linecache
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from inrkit import (
    METRICS,
    MODALITIES,
    NETWORKS,
    OPERATORS,
    SELECTORS,
    CoordinateDataset,
    DataError,
    FieldMetric,
    FitnessOperator,
    Metric,
    Modality,
    Network,
    Selection,
    Selector,
    option,
)
from inrkit.contract import check_metric, check_modality, check_network, check_operator, check_selector


@pytest.mark.parametrize("name", MODALITIES.names())
def test_every_modality_keeps_the_contract(name):
    check_modality(MODALITIES.get(name))


@pytest.mark.parametrize("name", SELECTORS.names())
def test_every_selector_keeps_the_contract(name):
    check_selector(SELECTORS.get(name))


@pytest.mark.parametrize("name", NETWORKS.names())
def test_every_network_keeps_the_contract(name):
    check_network(NETWORKS.get(name))


@pytest.mark.parametrize("name", METRICS.names())
def test_every_metric_keeps_the_contract(name):
    check_metric(METRICS.get(name))


@pytest.mark.parametrize("name", OPERATORS.names())
def test_every_operator_keeps_the_contract(name):
    check_operator(OPERATORS.get(name))


DOCS = Path(__file__).parents[2] / "docs"


def test_the_operator_and_the_metrics_of_the_docs_keep_the_contract():
    found = {}
    for page in ("add-an-operator.md", "add-a-metric.md"):
        for code in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL):
            linecache.cache[page] = (len(code), None, code.splitlines(keepends=True), page)
            exec(compile(code, page, "exec"), found)
    check_operator(found["AlongTime"])
    check_metric(found["LargestError"])
    check_metric(found["Steepness"])


@dataclass
class NoOptions:
    pass


class Lopsided(FitnessOperator):
    """Its adjoint is its response, though its rows are not symmetric."""

    Options = NoOptions

    def rows(self, indices):
        return torch.stack([indices, (indices - 1).clamp(min=0)], dim=-1), torch.ones(len(indices), 2)

    def adjoint(self, field):
        return self.response(field)


class Beyond(Lopsided):
    """Names a column before the first."""

    def rows(self, indices):
        return indices[:, None] - 1, torch.ones(len(indices), 1)


@pytest.mark.parametrize(("plugin", "complaint"), [(Lopsided, "adjoint is not what"), (Beyond, "columns outside")])
def test_an_operator_that_breaks_a_promise_is_told_which(plugin, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_operator(plugin)


class LastSlab(Metric):
    """Forgets all slabs but the last."""

    def update(self, prediction, target, weights=None):
        self.value = -float((prediction - target).square().mean())

    def compute(self):
        return self.value


class UpsideDown(LastSlab):
    """Says that more is better of an error."""

    higher_is_better = False


class Undecided(FieldMetric):
    """Asks somewhere else each time."""

    count = 0

    def measure(self, predictor, most):
        type(self).count += 1
        return float(predictor(torch.full((1, self.dataset.dimensions), 0.01 * self.count)))


class Outside(FieldMetric):
    """Asks beyond the signal."""

    def measure(self, predictor, most):
        return float(predictor(torch.full((1, self.dataset.dimensions), 2.0)))


class Slopes(FieldMetric):
    """Mean square of the derivatives at one place."""

    def measure(self, predictor, most):
        return float(predictor.jacobian(torch.zeros(1, self.dataset.dimensions)).square().mean())


@pytest.mark.parametrize(
    ("metric", "said"),
    [(LastSlab, "slabs"), (UpsideDown, "higher_is_better"), (Undecided, "the same each time"), (Outside, "outside")],
)
def test_a_metric_that_breaks_the_contract_is_noticed(metric, said):
    with pytest.raises(AssertionError, match=said):
        check_metric(metric)


def test_a_metric_of_derivatives_keeps_the_contract():
    check_metric(Slopes)


def test_the_metrics_of_the_guide_keep_the_contract():
    guide = (Path(__file__).parents[2] / "docs/add-a-metric.md").read_text(encoding="utf-8")
    found: dict = {}
    for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL):
        exec(block, found)
    check_metric(found["LargestError"])
    check_metric(found["Steepness"])


@dataclass
class NoOptions:
    pass


@dataclass
class Unexplained:
    width: int = option(3)


@dataclass
class Required:
    width: int
    """There is no default for this."""


class GoodModality(Modality):
    """Numbers in a text."""

    Options = NoOptions
    operator = "laplacian"
    metrics = ("psnr",)
    sample_suffix = ".txt"

    def read(self, path):
        try:
            return CoordinateDataset(np.loadtxt(path, ndmin=2), affine=np.array([[2.0, 0.0]]))
        except ValueError as error:
            raise DataError(f"{path} is no table of numbers") from error

    def write(self, path, values, metadata):
        if path.suffix != ".txt":
            from inrkit import ConfigError

            raise ConfigError("numbers are written as .txt")
        np.savetxt(path, values, fmt="%.17g")

    def reconstruction_suffix(self, metadata, dtype):
        return ".txt"

    def sample(self, path):
        np.savetxt(path, np.sin(np.arange(20)))


class GoodSelector(Selector):
    """The first half, in an order drawn anew."""

    Options = NoOptions

    def size(self, progress):
        return (self.count + 1) // 2

    def select(self, progress):
        return Selection(torch.randperm(self.size(progress), generator=self.generator))


class GoodNetwork(Network):
    """A line."""

    Options = NoOptions

    def __init__(self, options, dimensions, channels):
        super().__init__(options, dimensions, channels)
        self.line = torch.nn.Linear(dimensions, channels)

    def forward(self, coordinates):
        return self.line(coordinates)


def test_good_plugins_pass():
    check_modality(GoodModality)
    check_selector(GoodSelector)
    check_network(GoodNetwork)


class Nameless(GoodSelector):
    pass


class NotExplained(GoodSelector):
    """Has an option that nothing explains."""

    Options = Unexplained


class NotOptional(GoodSelector):
    """Has an option without a default."""

    Options = Required


class TooMany(GoodSelector):
    """Selects more than it says."""

    def size(self, progress):
        return max(1, self.count // 3)

    def select(self, progress):
        return self.everything()


class Twice(GoodSelector):
    """Selects a coordinate twice."""

    def select(self, progress):
        return Selection(torch.zeros(self.size(progress), dtype=torch.int64))


class Outside(GoodSelector):
    """Selects what is not there."""

    def select(self, progress):
        return Selection(torch.arange(self.size(progress)) + self.count)


class GlobalDraws(GoodSelector):
    """Draws from torch's own generator."""

    def select(self, progress):
        torch.rand(1)
        return super().select(progress)


class Unseeded(GoodSelector):
    """Selects anew each time."""

    def select(self, progress):
        return Selection(torch.randperm(self.count)[: self.size(progress)])


class Forgetful(GoodSelector):
    """Does not keep its steps in its state."""

    seen = 0

    def select(self, progress):
        self.seen += 1
        return Selection((torch.arange(self.size(progress)) + self.seen) % self.count)


class OddState(GoodSelector):
    """Keeps an object in its state."""

    def state_dict(self):
        return {**super().state_dict(), "options": self.options}


@pytest.mark.parametrize(
    ("plugin", "complaint"),
    [
        (Nameless, "has no docstring"),
        (NotExplained, "Unexplained.width has no docstring"),
        (NotOptional, "Required.width has no default"),
        (TooMany, "selects 2 coordinates and says 1"),
        (Twice, "selects a coordinate twice"),
        (Outside, "selects indices outside"),
        (GlobalDraws, "draws from a global generator"),
        (Unseeded, "selects differently with the same seed"),
        (Forgetful, "goes on differently after state_dict"),
        (OddState, "more than plain containers"),
    ],
)
def test_a_selector_that_breaks_a_promise_is_told_which(plugin, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_selector(plugin)


class Flat(GoodNetwork):
    """Forgets the leading axes."""

    def forward(self, coordinates):
        return super().forward(coordinates).reshape(-1, self.channels)


class Complex(GoodNetwork):
    """Gives complex numbers."""

    def forward(self, coordinates):
        return torch.complex(super().forward(coordinates), super().forward(coordinates))


class Centred(GoodNetwork):
    """Looks at all coordinates together."""

    def forward(self, coordinates):
        return super().forward(coordinates - coordinates.reshape(-1, self.dimensions).mean(dim=0))


class Undefined(GoodNetwork):
    """Divides by zero."""

    def forward(self, coordinates):
        return super().forward(coordinates) * 0 / 0


class NotFinite(GoodNetwork):
    """Has a gradient without bounds."""

    def forward(self, coordinates):
        return super().forward(coordinates) + (self.line.bias - self.line.bias).sqrt()


class OwnSeed(GoodNetwork):
    """Draws from the clock."""

    def __init__(self, options, dimensions, channels):
        super().__init__(options, dimensions, channels)
        with torch.no_grad():
            self.line.weight.uniform_(generator=torch.Generator().manual_seed(torch.seed() % 2**63))


class Unsaved(GoodNetwork):
    """Keeps numbers where no state_dict finds them."""

    def __init__(self, options, dimensions, channels):
        super().__init__(options, dimensions, channels)
        self.factor = torch.rand(1)

    def forward(self, coordinates):
        return super().forward(coordinates) * self.factor


@pytest.mark.parametrize(
    ("plugin", "complaint"),
    [
        (Flat, r"maps \(1,\) to \(1, 1\)"),
        (Complex, "it must be float32"),
        (Centred, "another value beside others"),
        (Undefined, "not finite"),
        (NotFinite, "gradients, or some that are not finite"),
        (OwnSeed, "another generator than torch's"),
        (Unsaved, "another network after Field.save"),
    ],
)
def test_a_network_that_breaks_a_promise_is_told_which(plugin, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_network(plugin)


class NoMetric(GoodModality):
    """Names a metric that is none."""

    metrics = ("beauty",)


class NoOperator(GoodModality):
    """Names an operator that is none."""

    operator = "telephone"


class OddOperator(GoodModality):
    """Sets an option that the operator has not."""

    operator = {"name": "laplacian", "colour": "red"}


class Lossy(GoodModality):
    """Rounds what it writes."""

    def write(self, path, values, metadata):
        super().write(path, values.round(), metadata)


class Elsewhere(GoodModality):
    """Gives an affine that leads all coordinates to one place."""

    def read(self, path):
        return CoordinateDataset(super().read(path).values.numpy(), affine=np.zeros((1, 2)))


class AnySuffix(GoodModality):
    """Writes what it is told."""

    def write(self, path, values, metadata):
        np.savetxt(path, values, fmt="%.17g")


class Fragile(GoodModality):
    """Falls over a damaged file."""

    def read(self, path):
        return CoordinateDataset(np.loadtxt(path, ndmin=2))


class Disowned(GoodModality):
    """Does not claim its sample."""

    @classmethod
    def claims(cls, path):
        return False


@pytest.mark.parametrize(
    ("plugin", "complaint"),
    [
        (NoMetric, "'beauty', which is no metric"),
        (NoOperator, "'telephone', which is no operator"),
        (OddOperator, "'colour'.*no option of 'laplacian'"),
        (Lossy, "loses values in .txt"),
        (Elsewhere, "cannot be inverted"),
        (AnySuffix, "takes any suffix"),
        (Fragile, "should be a DataError"),
        (Disowned, "does not claim its own sample"),
    ],
)
def test_a_modality_that_breaks_a_promise_is_told_which(plugin, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_modality(plugin)
