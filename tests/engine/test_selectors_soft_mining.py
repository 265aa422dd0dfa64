"""Soft Mining: its walks, its corrections, and the loss that they add up to."""

import math

import numpy as np
import pytest
import torch

from inrkit import CoordinateDataset, Member, Progress, Trainer
from inrkit.networks.siren import Siren, SirenOptions
from inrkit.selectors import Residuals
from inrkit.selectors.soft_mining import SoftMining, SoftMiningOptions
from inrkit.signals.operators import LaplacianOptions, LatticeLaplacian, NoneOptions, NoOperator
from inrkit.signals.signal import Signal
from inrkit.training.gradients import backpropagate
from inrkit.training.learning_rates import Constant, ConstantOptions
from inrkit.training.objectives import MeanSquaredError, MeanSquaredErrorOptions
from inrkit.training.optimizers.factories import OPTIMIZERS

STILL = {"step": 0.0, "noise": 0.0, "uniform": 0.0, "redrawn": 0.0}
LATE = Progress(5000, 10**6)


def make(values, points=None, **options) -> SoftMining:
    dataset = CoordinateDataset(np.asarray(values, dtype=np.float32), points=points)
    signal = Signal(dataset)
    operator = LatticeLaplacian(LaplacianOptions(), signal) if points is None else NoOperator(NoneOptions(), signal)
    return SoftMining(SoftMiningOptions(**options), len(dataset), operator, 0, torch.device("cpu"))


def flat(*shape: int) -> np.ndarray:
    return np.zeros((*shape, 1))


def errors_of(squared: torch.Tensor, slope: torch.Tensor) -> Residuals:
    return Residuals(squared, squared.sqrt(), slope)


def unmoved(selector: SoftMining, squared: torch.Tensor) -> Residuals:
    return errors_of(squared, torch.zeros(len(squared), selector.operator.neighbourhood.dimensions))


class TestCorrections:
    def test_at_full_softness_the_loss_estimates_the_mean_over_all_without_bias(self):
        count = 20_000
        generator = torch.Generator().manual_seed(0)
        error = 0.05 + torch.rand(count, generator=generator)
        selector = make(flat(count), ratio=1.0, softness=1.0, warmup=1, spread=100.0)
        drawn = torch.multinomial(error, count, replacement=True, generator=generator)  # Q, in proportion to the error
        squared = error[drawn].square()
        selector.observe(LATE, selector.select(LATE), unmoved(selector, squared))
        losses = selector.weigh(LATE, unmoved(selector, squared)) * squared
        standard_error = float(losses.std()) / count**0.5
        expected = float(error.square().mean())
        assert abs(float(losses.mean()) - expected) < 5 * standard_error
        assert float(squared.mean()) > expected + 50 * standard_error  # what hard mining would minimise

    def test_softness_warms_up_by_a_thousandth_a_step(self):
        selector = make(flat(4))
        errors = unmoved(selector, torch.tensor([1.0, 0.25, 0.01, 0.0]))
        error = torch.tensor([1.0, 0.5, 0.1, 2.0**-10])
        for step, softness in ((1, 0.001), (300, 0.3), (600, 0.6), (5000, 0.6)):
            torch.testing.assert_close(selector.correction(Progress(step, 5000), errors), error**-softness)

    def test_corrections_end_where_those_of_the_last_step_said(self):
        selector = make(flat(5), ratio=1.0)
        squared = torch.tensor([1.0, 1.0, 0.5, 0.01, 1e-4])
        errors = unmoved(selector, squared)
        selector.observe(LATE, selector.select(LATE), errors)
        correction = selector.correction(LATE, errors)
        bound = correction.mean() + correction.std(correction=0)
        cut = correction.clamp(max=bound)
        assert correction.max() > bound
        torch.testing.assert_close(selector.weigh(LATE, errors), cut / cut.mean())

    def test_corrections_are_never_below_a_fifth(self):
        selector = make(flat(2), softness=1.0)
        errors = unmoved(selector, torch.tensor([1e4, math.inf]))
        assert selector.correction(LATE, errors).tolist() == pytest.approx([0.2, 0.2])

    def test_without_softness_every_error_counts_the_same(self):
        selector = make(flat(50), softness=0.0)
        squared = torch.rand(25)
        selector.observe(LATE, selector.select(LATE), unmoved(selector, squared))
        assert selector.weigh(LATE, unmoved(selector, squared)).tolist() == pytest.approx([1.0] * 25)


class TestWalks:
    def test_a_walk_follows_the_relative_slope_by_the_stated_number_of_lattice_points(self):
        selector = make(flat(40, 100), **{**STILL, "step": 20.0}, ratio=0.01, softness=0.5, warmup=1)
        selection = selector.select(LATE)
        k, squared = 40, torch.full((40,), 0.04)
        correction = 0.2**-0.5
        change = torch.tensor([-1.0, 2.0]) * 2 * 0.01 * correction / 20  # a lattice point up, two to the right
        slope = squared[:, None] * change / torch.tensor([2 / 40, 2 / 100])
        place = selector.operator.neighbourhood.coordinates(selection.indices) + torch.tensor([-2 / 40, 4 / 100])
        selector.observe(LATE, selection, errors_of(squared, slope))
        stayed = (place.abs() < 1).all(dim=1)
        found = selector.operator.neighbourhood.coordinates(selector.select(LATE).indices)
        assert stayed.sum() > k / 2
        torch.testing.assert_close(found[stayed], place[stayed])

    def test_noise_spreads_by_its_share_of_the_extent(self):
        selector = make(flat(100_001), **{**STILL, "noise": 0.02}, ratio=0.02)
        selection = selector.select(LATE)
        selector.observe(LATE, selection, unmoved(selector, torch.ones(2000)))
        moved = (selector.select(LATE).indices - selection.indices).float()
        inside = (selection.indices - 50_000).abs() < 30_000
        assert float(moved[inside].std()) == pytest.approx(2000, rel=0.1)

    def test_walks_end_up_where_the_errors_are_large(self):
        selector = make(flat(100_001), **{**STILL, "noise": 0.005, "step": 1e4}, ratio=0.002, softness=0.0)
        where = selector.operator.neighbourhood.coordinates(slice(0, 100_001))[:, 0]
        squared = (0.05 + torch.exp(-((where - 0.3) ** 2) / 0.2)).square()
        slope = torch.gradient(squared, spacing=2 / 100_001)[0]
        at_start = squared[selector.select(LATE).indices].mean()
        for _ in range(60):
            selection = selector.select(LATE)
            selector.observe(LATE, selection, errors_of(squared[selection.indices], slope[selection.indices, None]))
        assert squared[selector.select(LATE).indices].mean() > 1.5 * at_start

    def test_the_least_errors_are_drawn_anew_by_edge_strength(self):
        values = np.zeros((1000, 1))
        values[700:720:2] = 1
        selector = make(values, **{**STILL, "redrawn": 0.2}, ratio=0.05)
        selection = selector.select(LATE)
        squared = torch.linspace(1, 2, 50)[torch.randperm(50, generator=torch.Generator().manual_seed(0))]
        selector.observe(LATE, selection, unmoved(selector, squared))
        before, after = selection.indices, selector.select(LATE).indices
        least = squared.argsort()[:10]
        kept = torch.ones(50, dtype=torch.bool)
        kept[least] = False
        # But for those that met.
        assert (after[kept] == before[kept]).sum() >= 38
        assert sum(698 <= index <= 721 for index in after[least].tolist()) >= 5

    def test_walks_that_leave_the_extent_are_drawn_anew_by_edge_strength(self):
        values = np.zeros((1000, 1))
        values[700] = 1
        selector = make(values, **{**STILL, "step": 1e9}, ratio=0.001)
        found = []
        for _ in range(50):
            selector.observe(LATE, selector.select(LATE), errors_of(torch.ones(1), torch.ones(1, 1)))
            found.append(int(selector.select(LATE).indices))
        assert sum(abs(index - 700) <= 1 for index in found) >= 45

    def test_a_share_is_drawn_anew_at_every_step(self):
        selector = make(flat(10_000), **{**STILL, "uniform": 0.3}, ratio=0.01)
        before = selector.select(LATE)
        selector.observe(LATE, before, unmoved(selector, torch.ones(100)))
        after = selector.select(LATE).indices
        assert torch.equal(after[:70], before.indices[:70])
        assert (after[70:] != before.indices[70:]).float().mean() > 0.9

    def test_walks_that_meet_give_way_to_coordinates_that_none_has_come_to(self):
        values = np.zeros((100, 1))
        values[50] = 1
        selector = make(values, **{**STILL, "redrawn": 1.0}, ratio=0.5)
        for _ in range(20):
            selection = selector.select(LATE)
            assert len(selection.indices.unique()) == 50
            selector.observe(LATE, selection, unmoved(selector, torch.ones(50)))

    @pytest.mark.parametrize("schedule", ["linear", "reverse-cosine"])
    def test_walks_become_more_or_fewer_with_the_selection(self, schedule):
        selector = make(flat(200), **STILL, ratio=0.6, ratio_schedule=schedule)
        before: set[int] = set()
        for step in range(1, 41):
            progress = Progress(step, 40)
            selection = selector.select(progress)
            present = set(selection.indices.tolist())
            assert len(present) == selector.size(progress)
            assert before <= present or present <= before
            before = present
            selector.observe(progress, selection, unmoved(selector, torch.ones(len(present))))

    def test_walks_among_free_points_train_the_nearest(self):
        points = np.random.default_rng(0).random((300, 3)) * 2 - 1
        selector = make(flat(300), points=points, ratio=0.2)
        for _ in range(5):
            selection = selector.select(LATE)
            assert len(selection.indices.unique()) == 60
            selector.observe(LATE, selection, unmoved(selector, torch.rand(60)))

    @pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
    def test_errors_and_slopes_that_are_not_finite_break_nothing(self, bad):
        selector = make(flat(9, 9))
        for _ in range(3):
            selection = selector.select(LATE)
            k = len(selection.indices)
            errors = errors_of(torch.full((k,), bad), torch.full((k, 2), bad))
            assert bool((selector.weigh(LATE, errors) > 0).all())
            selector.observe(LATE, selection, errors)
            assert len(selector.select(LATE).indices.unique()) == k

    def test_points_drawn_anew_begin_walks_anew(self):
        selector = make(flat(1000), **STILL, ratio=0.05)
        before = selector.select(LATE).indices
        selector.restart()
        assert not torch.equal(selector.select(LATE).indices, before)


class TestTraining:
    def member(self, chunk: int) -> Member:
        y, x = np.mgrid[0:12, 0:15]
        dataset = CoordinateDataset(np.stack([x / 8 - 1, np.sin(x * y / 20)], axis=-1).astype(np.float32))
        signal = Signal(dataset)
        operator = LatticeLaplacian(LaplacianOptions(), signal)
        torch.manual_seed(0)
        network = Siren(SirenOptions(hidden_features=16, hidden_layers=1), 2, 2)
        options = SoftMiningOptions(warmup=1)
        optimizer = OPTIMIZERS.get("adam")
        return Member(
            signal,
            network,
            SoftMining(options, len(dataset), operator, 0, torch.device("cpu")),
            MeanSquaredError(MeanSquaredErrorOptions(), len(dataset), operator, torch.device("cpu")),
            optimizer.make(optimizer.Options(lr=1e-3), network),
            Constant(ConstantOptions()),
            steps=4,
            chunk=chunk,
            metrics=["psnr"],
            evaluate_every=10,
        )

    @pytest.mark.parametrize("chunk", [7, 1000])
    def test_the_gradient_is_that_of_the_corrected_loss(self, chunk):
        member = self.member(chunk=1000)
        Trainer([member]).run()
        member.chunk = chunk
        progress, selection = Progress(5, 10), member.selector.select(Progress(5, 10))
        missed = member.network(member.signal.inputs(selection.indices)) - member.signal.targets(selection.indices)
        squared = missed.square().mean(dim=-1)
        factors = member.selector.weigh(progress, errors_of(squared.detach(), None))
        assert factors.std() > 0.1
        expected = torch.autograd.grad((factors * squared).mean(), list(member.network.parameters()))
        member.network.zero_grad()
        backpropagate(member, progress, selection)
        for parameter, gradient in zip(member.network.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)

    def test_the_slope_that_walks_follow_is_that_of_the_loss_without_its_correction(self):
        member = self.member(chunk=1000)
        Trainer([member]).run()
        progress, selection = Progress(5, 10), member.selector.select(Progress(5, 10))
        corrected = backpropagate(member, progress, selection)[1].slope
        member.selector.options.softness = 0.0
        torch.testing.assert_close(backpropagate(member, progress, selection)[1].slope, corrected, atol=1e-5, rtol=1e-4)


def test_positions_parted_unseen_are_distinct_and_the_first_at_a_place_stays():
    selector = make(flat(40, 100), ratio=0.1)
    places = torch.rand(400, 2, generator=torch.Generator().manual_seed(0)) * 0.5  # crowded
    places[:50] = 0.3
    reached = selector.operator.neighbourhood.nearest(places)
    positions, indices = selector._parted(places, reached)
    assert len(indices.unique()) == 400
    assert torch.equal(selector.operator.neighbourhood.nearest(positions), indices)
    seen = set()
    for place, own, position, index in zip(places, reached.tolist(), positions, indices.tolist(), strict=True):
        if own not in seen:
            assert index == own and torch.equal(position, place)
        seen.add(own)
