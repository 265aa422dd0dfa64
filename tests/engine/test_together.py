import dataclasses
import io
import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import inrkit
from inrkit import NETWORKS, OBJECTIVES, OPTIMIZERS, SELECTORS, CoordinateDataset, Listener, Member, RunError, Trainer
from inrkit.config import resolve
from inrkit.networks import set_precision
from inrkit.networks.siren import Siren, SirenOptions
from inrkit.runs.execute import execute_together, stackable
from inrkit.runs.run import Run
from inrkit.signals.operators import LaplacianOptions, LatticeLaplacian
from inrkit.signals.signal import Signal
from inrkit.training.backends.stacked import _spans
from inrkit.training.learning_rates import Cosine, CosineOptions
from inrkit.training.loop import train
from inrkit.training.objectives import MeanSquaredError
from inrkit.training.optimizers.soap import SOAP

CPU = torch.device("cpu")
SHAPES = ((9, 11), (12, 10), (16, 20), (8, 8), (12, 10))
"""Of the signals: none alike in size but two, and one more than twice as large as another."""


class StopAt(Listener):
    def __init__(self, step):
        self.step = step

    def on_step(self, member, selected):
        if member.step == self.step:
            member.stop()


def member_of(
    seed: int,
    shape=(12, 10),
    selector="uniform",
    objective="mse",
    network="siren",
    optimizer="adam",
    steps=12,
    chunk=400,
    budget=None,
    weighted=False,
    network_options=None,
    lr=1e-3,
    listeners=(),
) -> Member:
    """A member on a small picture of its own, everything drawn from `seed`."""
    values = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    weights = np.linspace(0.5, 1.5, shape[0])[:, None] if weighted else None
    dataset = CoordinateDataset(values, weights=weights, channel_weights=(0.3, 0.6, 0.1))
    learned = Signal(dataset, inrkit.TRANSFORMS.get("minmax")(0.0, 255.0))
    operator = LatticeLaplacian(LaplacianOptions(), learned)
    network_class = NETWORKS.get(network)
    options = network_class.Options()
    sizes = {"hidden_features": 12, "hidden_layers": 1, "features": 8, "levels": 3, "table_bits": 6}
    for name, value in {**sizes, "finest_resolution": 8, "octaves": 3, **(network_options or {})}.items():
        if name in {field.name for field in dataclasses.fields(options)}:
            setattr(options, name, value)
    if network == "bacon":
        options.bandwidth = [5.0]
    torch.manual_seed(seed)
    built = network_class(options, 2, 3)
    set_precision(built, "float32")
    selector_class, objective_class, factory = (
        SELECTORS.get(selector),
        OBJECTIVES.get(objective),
        OPTIMIZERS.get(optimizer),
    )
    chosen, rate = selector_class.Options(), factory.Options()
    rate.lr = lr
    if selector == "evos":
        chosen.interval_start, chosen.interval_end = 5, 4
    return Member(
        learned,
        built,
        selector_class(chosen, len(dataset), operator, seed, CPU),
        objective_class(objective_class.Options(), len(dataset), operator, CPU),
        factory.make(rate, built),
        Cosine(CosineOptions(warmup=0.2)),
        steps=steps,
        budget=budget,
        chunk=chunk,
        metrics=["psnr"],
        evaluate_every=6,
        listeners=listeners,
    )


def group(shapes=SHAPES, **more) -> list[Member]:
    return [member_of(seed, shape, **more) for seed, shape in enumerate(shapes)]


def states(optimizer: torch.optim.Optimizer) -> list:
    """What an optimizer, or each part of a joined one, keeps of its parameters."""
    state = optimizer.state_dict()
    return [part["state"] for part in state.get("parts", [state])]


def assert_same(ours: list[Member], theirs: list[Member], atol=1e-5) -> None:
    """Networks, and what goes on from them: the same steps, optimizer states and selectors' states."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.step == other.step
        torch.testing.assert_close(one.network.state_dict(), other.network.state_dict(), atol=atol, rtol=1e-3)
        torch.testing.assert_close(states(one.optimizer), states(other.optimizer), atol=atol, rtol=1e-2)
        assert torch.equal(one.selector.generator.get_state(), other.selector.generator.get_state())


def run_alone(members: list[Member]) -> list[Member]:
    for member in members:
        Trainer([member]).run()
    return members


def run_together(members: list[Member]) -> list[Member]:
    train(members)
    assert [member.failure for member in members] == [None] * len(members)
    return members


@pytest.mark.parametrize("name", SELECTORS.names())
def test_each_selector_ends_as_one_by_one(name):
    objective = "cross-frequency" if SELECTORS.get(name).visits_all else "mse"
    more = {"selector": name, "objective": objective}
    assert_same(run_together(group(**more)), run_alone(group(**more)))


@pytest.mark.parametrize("name", NETWORKS.names())
def test_each_network_ends_as_one_by_one(name):
    def damped():
        trainers = group(SHAPES[:3], network=name, steps=6)
        # Gradients of some networks nearly vanish at first; Adam would step as far along their rounding.
        for trainer in trainers:
            trainer.optimizer.param_groups[0]["eps"] = 1e-3
        return trainers

    assert_same(run_together(damped()), run_alone(damped()), atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_each_optimizer_ends_as_one_by_one(name):
    more = {"optimizer": name, "selector": "full", "steps": 6, "lr": 1e-3}
    ours, theirs = run_together(group(SHAPES[:3], **more)), run_alone(group(SHAPES[:3], **more))
    atol = 1e-3 if OPTIMIZERS.get(name).reevaluates else 1e-5  # a line search may end elsewhere by rounding
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.network.state_dict(), other.network.state_dict(), atol=atol, rtol=1e-3)


@pytest.mark.parametrize("chunk", [40, 150])
def test_chunks_change_nothing_but_rounding(chunk):
    more = {"selector": "evos", "objective": "cross-frequency", "weighted": True}
    assert_same(run_together(group(**more, chunk=chunk)), run_alone(group(**more)))


def test_selectors_may_be_mixed():
    def mixed():
        return [member_of(seed, selector=name) for seed, name in enumerate(["full", "uniform", "int", "evos"])]

    assert_same(run_together(mixed()), run_alone(mixed()))


def test_frequencies_may_differ():
    def mixed():
        return [
            member_of(seed, network_options={"first_omega": omega}) for seed, omega in enumerate([10.0, 30.0, 41.3])
        ]

    assert_same(run_together(mixed()), run_alone(mixed()))


def test_networks_of_other_shapes_are_trained_as_well():
    def mixed():
        return [member_of(seed, network_options={"hidden_features": width}) for seed, width in enumerate([6, 7, 6, 8])]

    assert_same(run_together(mixed()), run_alone(mixed()))


def test_a_step_is_one_pass_for_all(monkeypatch):
    passes = []
    forward = Siren.forward

    def counted(self, coordinates):
        if torch.is_grad_enabled():
            passes.append(1)
        return forward(self, coordinates)

    monkeypatch.setattr(Siren, "forward", counted)
    run_together(group([(10, 10)] * 4, steps=7))
    assert len(passes) == 7


class Steep(Siren):
    """A network that keeps an option of its own under another name."""

    def __init__(self, options, dimensions, channels):
        super().__init__(options, dimensions, channels)
        self.steepness = options.first_omega

    def forward(self, coordinates):
        return super().forward(coordinates) * self.steepness


class Forgetful(Siren):
    """A network that draws while it runs."""

    def forward(self, coordinates):
        return torch.nn.functional.dropout(super().forward(coordinates), 0.1)


class Counting(Siren):
    """A network that changes its own buffers."""

    def __init__(self, options, dimensions, channels):
        super().__init__(options, dimensions, channels)
        self.register_buffer("calls", torch.ones(()))

    def forward(self, coordinates):
        self.calls += 1
        return super().forward(coordinates) / self.calls


@pytest.mark.parametrize("network", [Steep, Forgetful, Counting])
def test_what_cannot_be_stacked_is_trained_one_by_one(network):
    def odd():
        members = []
        for seed, omega in enumerate([10.0, 30.0]):
            member = member_of(seed)
            options = SirenOptions(hidden_features=12, hidden_layers=1, first_omega=omega)
            torch.manual_seed(seed)
            member.network = network(options, 2, 3)
            member.optimizer = torch.optim.Adam(member.network.parameters(), lr=1e-3)
            members.append(member)
        return members

    ours, theirs = run_together(odd()), run_alone(odd())
    for one, other in zip(ours, theirs, strict=True):
        for name, value in one.network.state_dict().items():
            assert torch.equal(value, other.network.state_dict()[name])


class Relative(MeanSquaredError):
    """A loss that depends on what was observed."""

    scale = 1.0

    def pointwise(self, residual):
        return super().pointwise(residual) * self.scale

    def observe(self, progress, selection, errors):
        self.scale = 1 / (0.1 + float(errors.squared.mean()))


def test_a_loss_of_a_networks_own_is_kept_apart():
    def relative():
        members = group()
        for member in members:
            member.objective = Relative(None, len(member.signal.dataset), member.selector.operator, CPU)
        return members

    assert_same(run_together(relative()), run_alone(relative()))


def poison(member: Member) -> Member:
    with torch.no_grad():
        next(member.network.parameters())[0, 0] = torch.nan
    return member


@pytest.mark.parametrize("optimizer", ["adam", "muon", "soap"])
def test_one_that_diverges_fails_alone(optimizer):
    ours, theirs = group(optimizer=optimizer), group(optimizer=optimizer)
    poison(ours[1])
    train(ours)
    failures = [member.failure for member in ours]
    assert isinstance(failures[1], RunError) and "diverged" in str(failures[1])
    assert [failure is None for failure in failures] == [True, False, True, True, True]
    assert ours[1].step == 6
    rest = [0, 2, 3, 4]
    assert_same([ours[index] for index in rest], run_alone([theirs[index] for index in rest]))


@pytest.mark.parametrize("moment", ["select", "observe"])
def test_an_error_anywhere_in_a_step_fails_one_alone(moment, monkeypatch):
    ours, theirs = group(), group()

    def broken(*_):
        if ours[2].step == 4:
            raise ValueError("broken")
        return getattr(type(ours[2].selector), moment)(ours[2].selector, *_)

    monkeypatch.setattr(ours[2].selector, moment, broken)
    train(ours)
    failures = [member.failure for member in ours]
    assert [str(failure) for failure in failures if failure] == ["broken"]
    assert ours[2].step == 4
    rest = [0, 1, 3, 4]
    assert_same([ours[index] for index in rest], run_alone([theirs[index] for index in rest]))


def test_soap_steps_all_networks_at_once(monkeypatch):
    counts, alone = [], SOAP._step

    def noted(optimizer, parameters, options):
        counts.append(len(parameters))
        alone(optimizer, parameters, options)

    monkeypatch.setattr(SOAP, "_step", noted)
    run_together(group([(10, 10)] * 4, optimizer="soap", steps=3))
    # Three layers have three weights and three biases, two of these of one shape.
    assert len(counts) == 3 * 5
    assert sum(counts) == 3 * 4 * 6


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_those_interrupted_go_on_together_or_alone(optimizer):
    more = {"optimizer": optimizer, "selector": "evos", "objective": "cross-frequency"}
    # They stop at steps of their own, so that those behind have to catch up.
    stopped = [member_of(seed, shape, **more, listeners=[StopAt(4 + seed)]) for seed, shape in enumerate(SHAPES)]
    run_together(stopped)
    assert [member.step for member in stopped] == [4, 5, 6, 7, 8]
    together, alone = group(**more), group(**more)
    for one, other, member in zip(together, alone, stopped, strict=True):
        saved = io.BytesIO()
        torch.save(member.state_dict(), saved)
        for resumed in (one, other):
            saved.seek(0)
            resumed.load_state_dict(torch.load(saved, weights_only=True))
    whole = run_alone(group(**more))
    assert_same(run_together(together), whole)
    assert_same(run_alone(alone), whole)


@pytest.mark.parametrize("stop", [5, 15])
@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_those_interrupted_at_a_step_end_together_bit_for_bit(optimizer, stop):
    """As they would have ended undisturbed, also when SOAP's bases have turned before they were interrupted."""
    more = {"optimizer": optimizer, "shapes": ((12, 10),) * 4, "steps": 24}
    stopped, resumed = run_together(group(**more, listeners=[StopAt(stop)])), group(**more)
    for member, earlier in zip(resumed, stopped, strict=True):
        saved = io.BytesIO()
        torch.save(earlier.state_dict(), saved)
        saved.seek(0)
        member.load_state_dict(torch.load(saved, weights_only=True))
    for one, other in zip(run_together(resumed), run_together(group(**more)), strict=True):
        for name, value in one.network.state_dict().items():
            assert torch.equal(value, other.network.state_dict()[name]), name


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_a_checkpoint_in_mid_training_is_that_of_one_by_one(optimizer):
    class Keep(Listener):
        def __init__(self):
            self.sizes, self.states = [], []

        def on_step(self, member, selected):
            if member.step == 5:
                saved = io.BytesIO()
                torch.save(member.state_dict(), saved)
                self.sizes.append(saved.tell())
                saved.seek(0)
                self.states.append(torch.load(saved, weights_only=True))

    ours, theirs = Keep(), Keep()
    shapes = [(10, 10)] * 4
    run_together(group(shapes, optimizer=optimizer, listeners=[ours]))
    run_alone(group(shapes, optimizer=optimizer, listeners=[theirs]))
    assert max(ours.sizes) < 1.1 * max(theirs.sizes)
    for one, other in zip(ours.states, theirs.states, strict=True):
        torch.testing.assert_close(one["network"], other["network"], atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(one["optimizer"]["state"], other["optimizer"]["state"], atol=1e-5, rtol=1e-3)


def test_networks_have_parameters_of_their_own_afterwards():
    one, other = run_together(group([(10, 10)] * 2))
    before = [value.clone() for value in other.network.parameters()]
    with torch.no_grad():
        for value in one.network.parameters():
            assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
            value.zero_()
    assert all(torch.equal(value, kept) for value, kept in zip(other.network.parameters(), before, strict=True))


def test_seconds_of_all_add_up_to_the_time_that_passed():
    members = group()
    start = members[0].now()
    run_together(members)
    passed = members[0].now() - start
    parts = [sum(member.seconds[part] for member in members) for part in ("train", "selection", "evaluation")]
    assert 0 < parts[1] < parts[0] < passed
    assert parts[0] + parts[2] <= passed


def test_a_budget_of_time_ends_all():
    members = run_together(group(budget=0.02))
    assert all(member.finished and member.seconds["train"] >= 0.02 for member in members)


def test_the_global_generator_is_left_alone():
    members = group()
    before = torch.get_rng_state()
    run_together(members)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("counts", [[5], [5, 5, 5], [3, 4, 9, 9, 30, 100], [100, 1, 1, 1, 1]])
def test_tiles_hold_all_in_order_and_no_more_than_a_chunk(counts):
    tiles = list(_spans(counts, 20))
    assert [index for tile in tiles for index in range(tile.start, tile.stop)] == list(range(len(counts)))
    for tile in tiles:
        inside = counts[tile]
        assert len(inside) == 1 or (len(inside) * max(inside) <= 20 and max(inside) <= 2 * min(inside))


def photos(folder, count=4) -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"{number}.png"
        values = np.random.default_rng(number).integers(0, 256, (10, 9 + number % 2, 3), dtype=np.uint8)
        Image.fromarray(values).save(path)
        paths.append(str(path))
    return paths


def config_of(path, **more):
    return resolve(
        [
            {
                "data": {"path": path},
                "device": "cpu",
                "network": {"name": "siren", "hidden_features": 8, "hidden_layers": 1, "first_omega": 0.0},
                "selector": {"name": "uniform", "ratio": 0.5, "least": 1},
                "optimizer": {"name": "adam", "lr": 1e-3},
                "train": {"steps": 8, "precision": "float32"},
                "log": {"every": 4},
                **more,
            }
        ]
    )


def test_fits_together_leave_what_fits_leave(tmp_path):
    paths = photos(tmp_path / "photos")
    requests = [(config_of(path), Run(tmp_path / "together" / str(index))) for index, path in enumerate(paths)]
    outcomes = execute_together(requests)
    assert outcomes == [run for _, run in requests]
    for index, (config, run) in enumerate(requests):
        single = inrkit.runs.execute.execute(config, Run(tmp_path / "alone" / str(index)))
        assert {path.name for path in run.folder.iterdir()} == {path.name for path in single.folder.iterdir()}
        assert (run.folder / "config.yaml").read_text() == (single.folder / "config.yaml").read_text()
        assert run.result.keys() == single.result.keys()
        assert run.result["status"] == "done"
        assert run.result["seconds"].keys() == single.result["seconds"].keys()
        assert run.metrics == pytest.approx(single.metrics, rel=1e-4)
        assert [row["step"] for row in run.history] == [4, 8]
        assert run.history[0]["psnr"] == pytest.approx(single.history[0]["psnr"], rel=1e-4)
        np.testing.assert_allclose(run.field.render(), single.field.render(), atol=1)


def test_a_poisoned_file_fails_alone(tmp_path):
    paths = photos(tmp_path / "photos")
    (tmp_path / "photos" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    requests = [(config_of(path), Run(tmp_path / str(index))) for index, path in enumerate(paths)]
    outcomes = execute_together(requests)
    assert isinstance(outcomes[1], inrkit.DataError)
    assert not requests[1][1].exists
    assert [run.result["status"] for _, run in requests if run.exists] == ["done"] * 3


def test_a_fit_that_diverges_is_recorded_and_the_others_are_done(tmp_path):
    paths = photos(tmp_path / "photos", 3)
    requests = [(config_of(path), Run(tmp_path / str(index))) for index, path in enumerate(paths)]

    class Poison(Listener):
        def on_start(self, member):
            if member.signal.dataset is first[0]:
                poison(member)

    first = []

    class Find(Listener):
        def on_start(self, member):
            first.append(member.signal.dataset)

    outcomes = execute_together(requests, listeners=[Find(), Poison()])
    failed = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Exception)]
    assert len(failed) == 1
    for index, (_, run) in enumerate(requests):
        assert run.result["status"] == ("failed" if index in failed else "done")
    assert "diverged" in json.loads((requests[failed[0]][1].folder / "result.json").read_text())["error"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_all_and_each_resumes_together_or_alone(tmp_path, number):
    paths = photos(tmp_path / "photos")
    requests = [(config_of(path), Run(tmp_path / str(index))) for index, path in enumerate(paths)]
    before = signal.getsignal(number)

    class Press(Listener):
        def on_step(self, member, selected):
            if member.step == 5 and not pressed:
                pressed.append(member)
                os.kill(os.getpid(), number)

    pressed = []
    execute_together(requests, interruptible=True, listeners=[Press()])
    assert signal.getsignal(number) == before
    assert {run.result["status"] for _, run in requests} == {"interrupted"}
    assert {run.result["steps"] for _, run in requests} <= {5, 6}
    inrkit.fit(requests[0][1].folder, resume=True)
    assert execute_together(requests[1:], resume=True) == [run for _, run in requests[1:]]
    for index, (config, run) in enumerate(requests):
        assert run.result["status"] == "done"
        whole = inrkit.runs.execute.execute(config, Run(tmp_path / f"whole{index}"))
        assert run.metrics == pytest.approx(whole.metrics, rel=1e-4)


def test_what_may_be_stacked_agrees_in_all_but_the_signal_and_how_it_is_chosen():
    configs = [
        config_of("a.png"),
        config_of("b.png", seed=3, selector="full"),
        config_of("c.png", network={"name": "siren", "hidden_features": 9}),
        config_of("d.png", train={"steps": 9}),
        config_of("e.png", log={"every": 7}),
    ]
    assert stackable([config.to_dict() for config in configs]) == [[0, 4], [1], [2], [3]]
