import numpy as np
import pytest
import torch

from inrkit import CoordinateDataset, Member, Progress, Trainer
from inrkit.networks.siren import Siren, SirenOptions
from inrkit.selectors import Residuals, Selection
from inrkit.selectors.evos import Evos, EvosOptions
from inrkit.signals.operators import LaplacianOptions, LatticeLaplacian
from inrkit.signals.signal import Signal
from inrkit.signals.transforms import MinMax, MinMaxOptions
from inrkit.training.gradients import backpropagate
from inrkit.training.learning_rates import Constant, ConstantOptions
from inrkit.training.loop import train
from inrkit.training.objectives import CrossFrequencyOptions, CrossFrequencySupervision

SHAPE, COUNT = (6, 7), 42
EVERYTHING = Selection(torch.arange(COUNT), whole=True)


def supervision(**options) -> CrossFrequencySupervision:
    operator = LatticeLaplacian(LaplacianOptions(), Signal(CoordinateDataset(np.zeros((*SHAPE, 1)))))
    return CrossFrequencySupervision(CrossFrequencyOptions(**options), COUNT, operator, torch.device("cpu"))


def plain_laplacian(field: torch.Tensor) -> torch.Tensor:
    kernel = torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]])
    return torch.nn.functional.conv2d(field.view(1, 1, *SHAPE), kernel, padding=1).view(-1)


WEIGHTS = pytest.mark.parametrize("weights", [None, torch.rand(COUNT)], ids=["unweighted", "weighted"])


def plain_mean(terms: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return (terms if weights is None else terms * weights).mean()


@WEIGHTS
def test_gradient_at_a_key_step_is_that_of_the_live_full_prediction(weights):
    residual = torch.randn(COUNT, requires_grad=True)
    loss = 0.3 * plain_mean(plain_laplacian(residual).square(), weights)
    (expected,) = torch.autograd.grad(loss, residual)
    coupling = supervision(weight=0.3).coupling(Progress(1, 10), EVERYTHING, residual.detach(), weights)
    torch.testing.assert_close(coupling, expected)


@WEIGHTS
def test_gradient_between_key_steps_replaces_the_selected_entries_of_the_cached_prediction(weights):
    objective = supervision(weight=0.3)
    cached, target = torch.randn(2, COUNT)
    objective.observe(Progress(1, 10), EVERYTHING, Residuals(cached.square(), cached - target))
    indices = torch.randperm(COUNT)[:17]
    live = torch.randn(17, requires_grad=True)
    prediction = cached.index_copy(0, indices, live)
    response = plain_laplacian(prediction) - plain_laplacian(target)
    given = None if weights is None else weights[indices]
    loss = 0.3 * plain_mean(response[indices].square(), given)
    (expected,) = torch.autograd.grad(loss, live)
    for _ in range(2):
        coupling = objective.coupling(Progress(2, 10), Selection(indices), live.detach() - target[indices], given)
        torch.testing.assert_close(coupling, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("until", "steps", "last"),
    [(0.3, 5000, 1500), (0.0, 5000, 0), (1.0, 700, 700), (1500, 5000, 1500), (1500, 2000, 1500), (1500, 1000, 1000)],
)
def test_it_is_on_for_a_share_of_training_or_for_a_number_of_steps(until, steps, last):
    objective = supervision(until=until)
    on = [step for step in range(1, steps + 1) if objective.couples(Progress(step, steps), whole=False)]
    assert on == list(range(1, last + 1))


def test_it_is_on_at_key_steps_to_the_end():
    assert supervision(until=0.3).couples(Progress(5000, 5000), whole=True)
    assert supervision(until=0).couples(Progress(1, 5000), whole=True)


def test_a_number_of_steps_is_a_whole_one():
    with pytest.raises(ValueError, match=r"until is 1\.5; it must be a share from 0 to 1, or a whole number of steps"):
        CrossFrequencyOptions(until=1.5)


def test_a_weight_of_zero_turns_it_off():
    objective = supervision(weight=0)
    assert not any(objective.couples(Progress(1, 5000), whole) for whole in (False, True))


def test_nothing_is_kept_once_key_steps_alone_have_it():
    objective, residual = supervision(until=2), torch.randn(COUNT)
    errors = Residuals(residual.square(), residual)
    objective.observe(Progress(1, 10), EVERYTHING, errors)
    assert torch.equal(objective.state_dict()["residual"], residual)
    for step in (3, 4):
        objective.observe(Progress(step, 10), EVERYTHING, errors)
        assert len(objective.state_dict()["residual"]) == 0


def test_steps_that_are_added_after_its_end_wait_for_a_key_step():
    objective, residual, some = supervision(until=0.3), torch.randn(COUNT), torch.tensor([3, 5, 9])
    errors = Residuals(residual.square(), residual)
    for steps in (10, 100):  # off at step 10 of 10, on at step 10 of 100
        assert not objective.coupling(Progress(10, steps), Selection(some), residual[some], None).any()
        objective.observe(Progress(10, steps), EVERYTHING, errors)
    assert objective.coupling(Progress(11, 100), Selection(some), residual[some], None).all()


def test_the_published_weight_is_stated_free_of_the_bit_depth():
    # λ = 1e-5 · L(0 … 255)² equals λ' · L(−1 … 1)².
    values = torch.rand(COUNT) * 255
    published = 1e-5 * plain_laplacian(values).square()
    ours = CrossFrequencyOptions().weight * plain_laplacian(values / 127.5).square()
    torch.testing.assert_close(ours, published)


WHOLE = Selection(torch.arange(30), whole=True)


class TestThePublishedLoss:
    """A fit of a small picture against the published loss, stated on the whole decoded picture in 0 … 255."""

    HEIGHT, WIDTH = 6, 5

    def member(self, chunk=100, seed=0, clamp=True, weights=None, steps=200) -> Member:
        random = np.random.default_rng(seed)
        picture = random.integers(0, 256, (self.HEIGHT, self.WIDTH, 3), dtype=np.uint8)
        dataset = CoordinateDataset(picture, channel_weights=(0.2989, 0.587, 0.114), weights=weights)
        signal = Signal(dataset, MinMax.fit(MinMaxOptions(range="full"), dataset))
        operator = LatticeLaplacian(LaplacianOptions(clamp=clamp), signal)
        torch.manual_seed(seed)
        network = Siren(SirenOptions(hidden_features=16, hidden_layers=1), 2, 3)
        with torch.no_grad():
            network.last.weight.mul_(40)  # so that about half of what it predicts is out of range
        device = torch.device("cpu")
        options = EvosOptions(ratio=0.5, interval_start=10, interval_end=10)
        return Member(
            signal,
            network,
            Evos(options, len(dataset), operator, seed, device),
            CrossFrequencySupervision(CrossFrequencyOptions(until=15), len(dataset), operator, device),
            torch.optim.Adam(network.parameters(), lr=1e-3),
            Constant(ConstantOptions()),
            steps=steps,
            chunk=chunk,
            metrics=["psnr"],
            evaluate_every=steps,
        )

    def response(self, prediction: torch.Tensor) -> torch.Tensor:
        """(N,) Laplacian of the luma of (N, 3) values in [−1, 1], decoded and clamped to 0 … 255."""
        decoded = ((prediction + 1) / 2 * 255).clamp(0, 255)
        luma = 0.2989 * decoded[:, 0] + 0.587 * decoded[:, 1] + 0.114 * decoded[:, 2]
        padded = torch.nn.functional.pad(luma.view(self.HEIGHT, self.WIDTH), (1, 1, 1, 1))
        beside = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        return (beside - 4 * padded[1:-1, 1:-1]).reshape(-1)

    def predict(self, member: Member) -> tuple[torch.Tensor, torch.Tensor]:
        whole = slice(0, len(member.signal))
        return member.network(member.signal.inputs(whole)), member.signal.targets(whole)

    def assert_gradient(self, member: Member, selection: Selection, loss: torch.Tensor) -> None:
        expected = torch.autograd.grad(loss, list(member.network.parameters()))
        member.network.zero_grad()
        backpropagate(member, Progress(2, 200), selection)
        for parameter, right in zip(member.network.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, right, atol=1e-6, rtol=1e-4)

    @pytest.mark.parametrize("chunk", [100, 7])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_at_a_key_step(self, chunk, weighted):
        member = self.member(chunk, weights=np.arange(1.0, 6.0) if weighted else None)
        weights = (torch.arange(1.0, 6.0) / 3).repeat(6) if weighted else torch.ones(30)
        prediction, target = self.predict(member)
        assert 0.2 < (prediction.abs() > 1).float().mean() < 0.8
        missed = (prediction - target).square().mean(dim=1)
        high = 1e-5 * (self.response(prediction) - self.response(target)).square()
        self.assert_gradient(member, WHOLE, (weights * (missed + high)).mean())
        _, errors = backpropagate(member, Progress(1, 200), WHOLE)
        torch.testing.assert_close(errors.squared, (weights * missed).detach())
        # Fitness by high frequencies alone: the survivors are the nine largest.
        member.selector.options.crossover = "add"
        member.selector.options.high_frequency_weight *= 1e9
        member.selector.observe(Progress(1, 200), WHOLE, errors)
        survivors = member.selector.select(Progress(2, 200)).indices[:8]
        assert set(survivors.tolist()) == set((weights * high).topk(8).indices.tolist())

    @pytest.mark.parametrize("chunk", [100, 7])
    def test_between_key_steps(self, chunk):
        member = self.member(chunk)
        _, errors = backpropagate(member, Progress(1, 200), WHOLE)
        member.objective.observe(Progress(1, 200), WHOLE, errors)
        cached = self.predict(member)[0].detach()
        with torch.no_grad():
            for parameter in member.network.parameters():
                parameter.mul_(1.1)
        prediction, target = self.predict(member)
        indices = torch.randperm(30, generator=torch.Generator().manual_seed(0))[:15]
        assert (prediction[indices].abs() > 1).any()
        assert (cached.abs() > 1).any()
        mixed = cached.index_copy(0, indices, prediction[indices])
        high = (self.response(mixed) - self.response(target))[indices].square().mean()
        loss = (prediction - target)[indices].square().mean() + 1e-5 * high
        self.assert_gradient(member, Selection(indices), loss)

    def test_without_clamping_it_is_another(self):
        gradients = []
        for clamp in (True, False):
            member = self.member(clamp=clamp)
            backpropagate(member, Progress(1, 200), WHOLE)
            gradients.append(member.network.last.weight.grad.clone())
        assert (gradients[0] - gradients[1]).abs().max() > 1e-2

    def test_real_numbers_have_no_bounds(self):
        assert (
            LatticeLaplacian(LaplacianOptions(clamp=True), Signal(CoordinateDataset(np.zeros((4, 1))))).bounds is None
        )

    def test_many_together_end_as_one_by_one(self):
        def members():
            return [self.member(seed=seed, clamp=seed != 1, steps=25) for seed in range(3)]

        alone, together = members(), members()
        for member in alone:
            Trainer([member]).run()
        train(together)
        assert [each.failure for each in together] == [None] * 3
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one.network.state_dict(), other.network.state_dict(), atol=1e-5, rtol=1e-3)
