import io
import math
import time

import numpy as np
import pytest
import torch

from inrkit import CoordinateDataset, Listener, Member, Progress, RunError, Trainer
from inrkit.evaluation.evaluate import evaluate
from inrkit.networks import set_precision
from inrkit.networks.siren import Siren, SirenOptions
from inrkit.selectors import SELECTORS, Residuals, Selection
from inrkit.signals.operators import GraphLaplacian, GraphLaplacianOptions, LaplacianOptions, LatticeLaplacian
from inrkit.signals.signal import Signal
from inrkit.signals.transforms import MinMax, MinMaxOptions
from inrkit.training.gradients import backpropagate
from inrkit.training.learning_rates import Constant, ConstantOptions, Cosine, CosineOptions
from inrkit.training.objectives import OBJECTIVES
from inrkit.training.optimizers.factories import OPTIMIZERS
from inrkit.training.stopwatch import Stopwatch


def make_optimizer(name, lr, network):
    plugin = OPTIMIZERS.get(name)
    return plugin.make(plugin.Options(**({} if plugin.reevaluates else {"lr": lr})), network)


def make(
    objective="cross-frequency", selector="evos", chunk=64, steps=30, lr=1e-3, schedule=None, optimizer="adam", **more
) -> Member:
    y, x = np.mgrid[0:16, 0:20]
    picture = np.stack([x * 12, y * 15, (x * y) % 256], axis=-1).astype(np.uint8)
    dataset = CoordinateDataset(picture, channel_weights=(0.2989, 0.587, 0.114))
    signal = Signal(dataset, MinMax.fit(MinMaxOptions(), dataset))
    operator = LatticeLaplacian(LaplacianOptions(), signal)
    torch.manual_seed(0)
    network = Siren(SirenOptions(hidden_features=16, hidden_layers=1), 2, 3)
    selector_class, objective_class = SELECTORS.get(selector), OBJECTIVES.get(objective)
    options = selector_class.Options()
    if selector == "evos":
        options.interval_start, options.interval_end = 10, 5
    return Member(
        signal,
        network,
        selector_class(options, len(dataset), operator, 0, torch.device("cpu")),
        objective_class(objective_class.Options(), len(dataset), operator, torch.device("cpu")),
        make_optimizer(optimizer, lr, network),
        schedule or Constant(ConstantOptions()),
        steps=steps,
        chunk=chunk,
        metrics=["psnr"],
        evaluate_every=10,
        **more,
    )


def gradients(member: Member, progress: Progress, selection: Selection) -> list[torch.Tensor]:
    member.network.zero_grad()
    backpropagate(member, progress, selection)
    return [parameter.grad.clone() for parameter in member.network.parameters()]


@pytest.mark.parametrize("objective", ["mse", "cross-frequency"])
@pytest.mark.parametrize(
    "indices", [torch.arange(320), torch.randperm(320, generator=torch.Generator().manual_seed(0))[:100]]
)
def test_chunked_gradient_equals_whole_gradient(objective, indices):
    progress, selection = Progress(1, 30), Selection(indices, whole=len(indices) == 320)
    whole = gradients(make(objective, chunk=1000), progress, selection)
    for chunk in (1, 7, 64):
        for part, expected in zip(gradients(make(objective, chunk=chunk), progress, selection), whole, strict=True):
            torch.testing.assert_close(part, expected, atol=1e-6, rtol=1e-4)


def test_gradient_is_that_of_the_stated_loss():
    member = make("cross-frequency")
    prediction = member.network(member.signal.dataset.coordinates(slice(0, 320)))
    missed = prediction - member.signal.targets(slice(0, 320))
    luma = (missed @ torch.tensor([0.2989, 0.587, 0.114])).view(1, 1, 16, 20)
    kernel = torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]])
    response = torch.nn.functional.conv2d(luma, kernel, padding=1)
    loss = missed.square().mean() + 0.1625625 * response.square().mean()
    expected = torch.autograd.grad(loss, list(member.network.parameters()))
    for ours, theirs in zip(
        gradients(member, Progress(1, 30), Selection(torch.arange(320), whole=True)), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("selector", "optimizer"),
    [*((name, "adam") for name in SELECTORS.names()), *(("evos", name) for name in OPTIMIZERS.names())],
)
def test_resumed_run_equals_uninterrupted_run(selector, optimizer):
    objective = "cross-frequency" if SELECTORS.get(selector).visits_all else "mse"
    more = {"optimizer": optimizer, "schedule": Cosine(CosineOptions(warmup=0.1))}

    class StopAt(Listener):
        def on_step(self, member, selected):
            if member.step == 13:
                member.stop()

    whole = make(objective, selector, **more)
    Trainer([whole]).run()
    first = make(objective, selector, **more, listeners=[StopAt()])
    Trainer([first]).run()
    assert first.step == 13
    second = make(objective, selector, **more)
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second.load_state_dict(torch.load(saved, weights_only=True))
    torch.randn(3)
    Trainer([second]).run()
    for ours, theirs in zip(second.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_same_seed_gives_the_same_result_whatever_the_global_generator_does():
    class Disturb(Listener):
        def on_step(self, member, selected):
            torch.rand(selected)

    one, other = make(), make(listeners=[Disturb()])
    Trainer([one]).run()
    Trainer([other]).run()
    for ours, theirs in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_training_lowers_the_error():
    rows = []

    class Keep(Listener):
        def on_evaluation(self, member, row):
            rows.append(row)

    Trainer([make("mse", "full", steps=60, listeners=[Keep()])]).run()
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert rows[-1]["psnr"] > rows[0]["psnr"] + 1


def test_evaluation_records_no_gradients(monkeypatch):
    recorded = []
    member = make()
    forward = Siren.forward

    def watch(self, coordinates):
        recorded.append((len(coordinates), torch.is_grad_enabled()))
        return forward(self, coordinates)

    monkeypatch.setattr(Siren, "forward", watch)
    member.step = member.steps
    member.report(Residuals(torch.zeros(1), torch.zeros(1)))
    assert sum(size for size, _ in recorded) == 320
    assert not any(enabled for _, enabled in recorded)


def test_no_more_than_a_chunk_passes_through_the_network_at_a_time(monkeypatch):
    sizes = []
    member = make(chunk=48)
    forward = Siren.forward

    def watch(self, coordinates):
        sizes.append(len(coordinates))
        return forward(self, coordinates)

    monkeypatch.setattr(Siren, "forward", watch)
    Trainer([member]).run()
    assert max(sizes) == 48


def test_divergence_ends_the_run_with_the_mend():
    with pytest.raises(RunError, match=r"diverged.*lower optimizer.lr"):
        Trainer([make("mse", "full", lr=1e30)]).run()


class Upset(Listener):
    """Spoils the weights after a step, the first time that it comes."""

    def __init__(self, step):
        self.step, self.told = step, []

    def on_step(self, member, selected):
        if member.step == self.step:
            self.step = None
            with torch.no_grad():
                next(member.network.parameters()).fill_(math.nan)

    def on_recovery(self, member, lost):
        self.told.append((lost, member.step))


@pytest.mark.parametrize("optimizer", OPTIMIZERS.names())
@pytest.mark.parametrize(("upset", "lost", "back"), [(13, 20, 10), (9, 10, 0)])
def test_a_training_that_recovers_goes_on_as_from_its_last_evaluation_with_half_the_rate(optimizer, upset, lost, back):
    listener = Upset(upset)
    member = make(optimizer=optimizer, recovers=True, listeners=[listener])
    Trainer([member]).run()
    assert listener.told == [(lost, back)]
    assert (member.step, member.recoveries) == (30, 1)

    first = make(optimizer=optimizer, listeners=[AtStep(back, Member.stop)])
    if back:
        Trainer([first]).run()
    second = make(optimizer=optimizer)
    second.load_state_dict(first.state_dict())
    second.base_rates = [rate / 2 for rate in second.base_rates]
    Trainer([second]).run()
    for ours, theirs in zip(member.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_resumed_training_recovers_as_an_uninterrupted_one():
    whole = make(recovers=True, listeners=[Upset(13)])
    Trainer([whole]).run()
    first = make(recovers=True, listeners=[AtStep(12, Member.stop)])
    Trainer([first]).run()
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second = make(recovers=True, listeners=[Upset(13)])
    second.load_state_dict(torch.load(saved, weights_only=True))
    Trainer([second]).run()
    assert second.recoveries == 1
    for ours, theirs in zip(second.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_training_that_cannot_be_saved_ends():
    with pytest.raises(RunError, match=r"diverged 21 times.*lower optimizer.lr"):
        Trainer([make("mse", "full", lr=1e30, steps=10**6, recovers=True)]).run()


def test_a_step_that_float32_cannot_hold_is_a_divergence():
    member = make("mse", "full", optimizer="lbfgs", rate_key="optimizer.step_length")
    member.base_rates = [1e30]
    with pytest.raises(RunError, match=r"diverged.*lower optimizer.step_length in another"):
        Trainer([member]).run()


class AtStep(Listener):
    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step(self, member, selected):
        if member.step == self.step:
            self.action(member)


def test_selection_time_is_part_of_training_time():
    member = make()
    Trainer([member]).run()
    assert 0 < member.seconds["selection"] < member.seconds["train"]
    assert member.seconds["evaluation"] > 0


def test_bfloat16_touches_hidden_matrices_only():
    member = make("mse", "full")
    dtypes = []
    member.network.first.register_forward_hook(lambda _, inputs, output: dtypes.append((inputs[0].dtype, output.dtype)))
    exact = member.network(member.signal.dataset.coordinates(slice(0, 320)))
    set_precision(member.network, "bfloat16")
    rounded = member.network(member.signal.dataset.coordinates(slice(0, 320)))
    assert dtypes == [(torch.float32, torch.float32)] * 2
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05


def test_weighted_loss_and_psnr_are_the_weighted_means():
    member = make("mse", "full")
    weights = torch.rand(16, 1)
    member.signal.dataset.weights = (weights / weights.mean()).expand(16, 20)
    prediction = member.network(member.signal.dataset.coordinates(slice(0, 320)))
    missed = (prediction - member.signal.targets(slice(0, 320))).square().mean(dim=-1)
    loss = (missed * member.signal.dataset.weights.reshape(-1)).mean()
    expected = torch.autograd.grad(loss, list(member.network.parameters()))
    for ours, theirs in zip(
        gradients(member, Progress(1, 30), Selection(torch.arange(320), whole=True)), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    # Values span 255 where the network's range spans 2, and clipping changes nothing here.
    psnr = evaluate(member.network, member.signal, ["psnr"], 64)["psnr"]
    assert psnr == pytest.approx(10 * math.log10(4 / float(loss.detach())), abs=0.1)


def points_member(**more) -> Member:
    def resample(number):
        points = np.random.default_rng(number).uniform(-1, 1, (60, 2))
        return points, np.sin(3 * points).sum(axis=1, keepdims=True).astype(np.float32)

    points, values = resample(0)
    signal = Signal(CoordinateDataset(values, points=points, resample=resample, resample_every=7))
    operator = GraphLaplacian(GraphLaplacianOptions(), signal)
    torch.manual_seed(0)
    network = Siren(SirenOptions(hidden_features=16, hidden_layers=1), 2, 1)
    device = torch.device("cpu")
    objective = OBJECTIVES.get("cross-frequency")
    return Member(
        signal,
        network,
        SELECTORS.get("evos")(SELECTORS.get("evos").Options(), 60, operator, 0, device),
        objective(objective.Options(until=1.0), 60, operator, device),
        OPTIMIZERS.get("adam").make(OPTIMIZERS.get("adam").Options(lr=1e-3), network),
        Constant(ConstantOptions()),
        steps=30,
        chunk=16,
        metrics=["psnr"],
        evaluate_every=30,
        **more,
    )


def test_a_new_round_of_points_is_visited_as_a_whole():
    sizes = []

    class Watch(Listener):
        def on_step(self, member, selected):
            sizes.append(selected)

    Trainer([points_member(listeners=[Watch()])]).run()
    assert [step for step, size in enumerate(sizes) if size == 60] == [0, 7, 14, 21, 28]


def test_no_points_are_drawn_when_the_budget_leaves_little_time_for_them():
    member = points_member(budget=10.0)
    for clock, step, expected in ((0.0, 7, 1), (5.0, 14, 2), (6.1, 21, 2), (9.0, 28, 2)):
        member.seconds["train"], member.step = clock, step
        member._advance()
        member._draw = 1.0
        assert member.signal.dataset.round == expected


@pytest.mark.parametrize("at", [6, 7, 8, 20])
def test_resumed_run_on_resampled_points_equals_uninterrupted_run(at):
    class StopAt(Listener):
        def on_step(self, member, selected):
            if member.step == at:
                member.stop()

    whole, first, second = points_member(), points_member(listeners=[StopAt()]), points_member()
    Trainer([whole]).run()
    Trainer([first]).run()
    second.load_state_dict(first.state_dict())
    Trainer([second]).run()
    for ours, theirs in zip(second.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


class Rates(Listener):
    """Keeps the learning rate of every step."""

    def __init__(self):
        self.kept = []

    def on_step(self, member, selected):
        self.kept.append(member.optimizer.param_groups[0]["lr"])


def test_a_budget_of_time_ends_training_and_leads_the_schedules():
    rates = Rates()
    member = make("mse", "uniform", steps=1, budget=0.3, schedule=Cosine(CosineOptions()), listeners=[rates])
    Trainer([member]).run()
    assert member.finished and member.step > 1
    assert member.seconds["train"] >= 0.3
    assert rates.kept == sorted(rates.kept, reverse=True)
    assert rates.kept[-1] < 0.5 * rates.kept[0]


def test_a_slow_first_step_is_no_share_of_schedules_that_follow_the_clock():
    rates = Rates()
    member = make("mse", "uniform", budget=1.0, schedule=Cosine(CosineOptions()), listeners=[rates])
    network, calls = member.network, []

    def forward(inputs):
        calls.append(time.sleep(0.5 if not calls else 0.0))
        return network(inputs)

    member.forward = forward
    Trainer([member]).run()
    assert member.seconds["train"] < 2
    assert rates.kept[1] > 0.95 * rates.kept[0]
    assert rates.kept[-1] < 0.3 * rates.kept[0]


def test_a_resumed_run_has_what_is_left_of_its_budget():
    class StopAt(Listener):
        def on_step(self, member, selected):
            if member.step == 2:
                member.stop()

    first = make("mse", "uniform", budget=0.3, listeners=[StopAt()])
    Trainer([first]).run()
    assert not first.finished
    second = make("mse", "uniform", budget=0.3)
    second.load_state_dict(first.state_dict())
    second.seconds["train"] = 0.2999
    Trainer([second]).run()
    assert second.finished and second.step >= 3


class ClockBehind:
    """A GPU's: marks are 1 s apart, and none has come before it is waited for."""

    def __init__(self):
        self.marks = 0

    def mark(self):
        self.marks += 1
        return self.marks

    def passed(self, moment):
        return False

    def between(self, start, stop):
        return float(stop - start)


def test_the_last_step_is_evaluated_where_a_checkpoint_finds_that_the_time_is_over():
    class CheckpointAt(Listener):
        def __init__(self):
            self.evaluated = []

        def on_step(self, member, selected):
            if member.step == 6:
                member.state_dict()

        def on_evaluation(self, member, row):
            self.evaluated.append(row["step"])

    listener = CheckpointAt()
    member = make("mse", "uniform", budget=20.0, listeners=[listener])
    member.watch = Stopwatch(member.device, ClockBehind())
    Trainer([member]).run()
    assert member.finished and listener.evaluated == [6] and member.unscheduled is None


def test_weights_of_a_selection_count_in_the_loss_alone():
    member = make("mse", "full", chunk=50)
    indices = torch.arange(0, 320, 2)
    weights = torch.linspace(0.5, 2, 160)
    missed = member.network(member.signal.dataset.coordinates(indices)) - member.signal.targets(indices)
    loss = (missed.square().mean(dim=-1) * weights).mean()
    expected = torch.autograd.grad(loss, list(member.network.parameters()))
    progress, selection = Progress(1, 30), Selection(indices, weights)
    for ours, theirs in zip(gradients(member, progress, selection), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    value, errors = backpropagate(member, progress, selection)
    torch.testing.assert_close(value.float(), loss)
    torch.testing.assert_close(errors.squared, missed.square().mean(dim=-1))
