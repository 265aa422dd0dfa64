"""EVOS against a plain, slow statement of its equations, and the cases that the published code gets wrong."""

import io
import math

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import inrkit
from inrkit import ConfigError, CoordinateDataset, Progress, RatioOptions
from inrkit.config.resolve import resolve
from inrkit.selectors import Residuals, Selection
from inrkit.selectors.crossover import crossover, crossover_unseen
from inrkit.selectors.evos import Evos, EvosOptions
from inrkit.selectors.schedules import RATIO_SCHEDULES, ratio
from inrkit.signals.operators import GraphLaplacian, GraphLaplacianOptions, LaplacianOptions, LatticeLaplacian
from inrkit.signals.signal import Signal


def make(count: int, **options) -> Evos:
    operator = LatticeLaplacian(LaplacianOptions(), Signal(CoordinateDataset(np.zeros((count, 1)))))
    return Evos(EvosOptions(**options), count, operator, 0, torch.device("cpu"))


def errors_of(count: int, seed: int = 0, weights: torch.Tensor | None = None) -> Residuals:
    residual = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    squared = residual.square() if weights is None else residual.square() * weights
    return Residuals(squared, residual, weights=weights)


def key_step(selector: Evos, errors: Residuals, progress: Progress) -> None:
    selection = selector.select(progress)
    assert selection.whole
    selector.observe(progress, selection, errors)


def plain_crossover(low: list[float], high: list[float], n: int) -> set[int]:
    everyone = range(len(low))
    first = set(sorted(everyone, key=lambda i: -low[i])[:n])
    second = set(sorted(everyone, key=lambda i: -high[i])[:n])
    both = first & second
    left = n - len(both)
    mean_low, mean_high = sum(low) / len(low), sum(high) / len(high)
    share = mean_low / (mean_low + mean_high)
    from_first = math.floor(share * left)
    best_low = sorted(first - second, key=lambda i: -low[i])[:from_first]
    best_high = sorted(second - first, key=lambda i: -high[i])[: left - from_first]
    return both | set(best_low) | set(best_high)


@pytest.mark.parametrize("select", [crossover, crossover_unseen])
@given(st.integers(1, 60), st.integers(0, 2**31), st.data())
def test_crossover_equals_its_plain_statement(select, count, seed, data):
    n = data.draw(st.integers(0, count))
    low, high = np.random.default_rng(seed).random((2, count))
    offspring = select(torch.tensor(low), torch.tensor(high), n).tolist()
    assert len(offspring) == n
    assert set(offspring) == plain_crossover(low.tolist(), high.tolist(), n)


def test_key_steps_of_the_published_setting_number_72():
    selector = make(100, ratio=0.5)
    keys = [t for t in range(1, 5001) if selector.is_key_step(Progress(t, 5000))]
    assert len(keys) == 72
    assert keys == [t for t in range(1, 5001) if t % math.floor(100 - 50 * t / 5000) == 1]


def test_a_fixed_interval_stays():
    selector = make(100, interval="fixed", interval_start=30)
    assert [t for t in range(1, 100) if selector.is_key_step(Progress(t, 100))] == [1, 31, 61, 91]


def test_an_interval_of_one_makes_every_step_a_key_step():
    selector = make(100, interval="fixed", interval_start=1)
    assert all(selector.is_key_step(Progress(t, 50)) for t in range(1, 51))


@pytest.mark.parametrize("modality", ["image", "audio", "video", "volume"])
def test_the_published_presets_clamp_and_count_supervision_in_steps(modality):
    config = resolve([{"base": f"{modality}-paper", "data": {"path": "x"}}])
    assert config.operator.options.clamp
    assert config.objective.options.until == 1500


def test_step_one_is_always_a_key_step():
    assert make(10, interval="linear", interval_start=1000, interval_end=1).is_key_step(Progress(1, 1))


@pytest.mark.parametrize("weights", [None, torch.rand(200, generator=torch.Generator().manual_seed(1)) * 2])
@pytest.mark.parametrize("name", ["select", "add", "none"])
def test_survivors_and_mutants_are_what_the_equations_say(name, weights):
    count, errors = 200, errors_of(200, weights=weights)
    selector = make(count, ratio=0.3, crossover=name, high_frequency_weight=0.1, mutation_start=0.4, mutation_end=0.4)
    key_step(selector, errors, Progress(1, 10**6))
    k, m = 60, math.floor(0.4 * 0.3 * 200)
    low = errors.squared
    high = 0.1 * torch.tensor(np.convolve(errors.residual, [1, -2, 1], "same")).square()
    high = high if weights is None else high * weights
    fitness = {"add": low + high, "none": low}.get(name)
    expected = (
        plain_crossover(low.tolist(), high.tolist(), k - m)
        if fitness is None
        else set(fitness.argsort(descending=True)[: k - m].tolist())
    )
    drawn = [selector.select(Progress(t, 10**6)).indices.tolist() for t in range(2, 99)]
    for indices in drawn:
        assert len(set(indices)) == len(indices) == k
        assert set(indices[: k - m]) == expected
    mutants = [index for indices in drawn for index in indices[k - m :]]
    assert set(mutants) == set(range(count)) - expected


def test_mutants_are_uniform_over_those_that_did_not_survive():
    selector = make(40, ratio=0.5)
    key_step(selector, errors_of(40), Progress(1, 10**6))
    counts = torch.zeros(40)
    survivors = set(selector.select(Progress(2, 10**6)).indices[:10].tolist())
    rounds = 4000
    for _ in range(rounds):
        counts[selector.select(Progress(2, 10**6)).indices[10:]] += 1
    others = counts[[i for i in range(40) if i not in survivors]]
    expected = rounds * 10 / 30
    assert ((others - expected).abs() < 5 * (expected * (1 - 10 / 30)) ** 0.5).all()


def test_a_growing_selection_goes_on_down_the_ranking_by_squared_error():
    count, errors = 100, errors_of(100)
    selector = make(count, ratio=0.2, ratio_schedule="linear", mutation_start=0.0, mutation_end=0.0)
    selector.options.interval_start = 10**9
    key_step(selector, errors, Progress(1, 50))
    first = set(selector.select(Progress(2, 50)).indices.tolist())
    rest = [i for i in errors.squared.argsort(descending=True).tolist() if i not in first]
    for step in (10, 30, 50):
        indices = selector.select(Progress(step, 50)).indices.tolist()
        assert set(indices) == first | set(rest[: len(indices) - len(first)])


def test_a_shrinking_selection_loses_those_first_that_their_high_frequencies_alone_chose():
    count, errors = 300, errors_of(300)
    selector = make(count, ratio=0.4, ratio_schedule="reverse-cosine", mutation_start=0.0, mutation_end=0.0)
    key_step(selector, errors, Progress(1, 50))
    first = selector.select(Progress(2, 50)).indices
    large = errors.squared.argsort(descending=True)[: len(first)]
    alone = set(first.tolist()) - set(large.tolist())
    assert 10 < len(alone) < 60
    for step in range(3, 50):
        left = set(selector.select(Progress(step, 50)).indices.tolist())
        gone = set(first.tolist()) - left
        assert gone <= alone or alone <= gone
    assert len(left) < len(first) - len(alone)


def test_a_small_signal_is_trained_on_as_many_coordinates_as_are_asked_for():
    selector = make(50, ratio=0.1, least=20)
    key_step(selector, errors_of(50), Progress(1, 100))
    indices = selector.select(Progress(2, 100)).indices
    assert len(indices) == 20
    assert selector.mutants(Progress(2, 100)) == 10
    assert make(50, ratio=0.1, least=500).size(Progress(2, 100)) == 50


def test_mutation_may_rise_until_nothing_survives():
    selector = make(50, ratio=0.4, mutation="linear", mutation_start=0.0, mutation_end=1.0)
    key_step(selector, errors_of(50), Progress(1, 1000))
    indices = selector.select(Progress(1000, 1000)).indices
    assert len(indices.unique()) == 20


@pytest.mark.parametrize("schedule", ["linear", "exponential"])
def test_mutation_runs_from_its_start_to_its_end(schedule):
    selector = make(1000, ratio=0.5, mutation=schedule, mutation_start=0.2, mutation_end=0.8)
    counts = [selector.mutants(Progress(t, 1000)) for t in range(1, 1001)]
    assert counts[0] == 100
    assert counts[-1] == pytest.approx(400, abs=1)
    assert counts == sorted(counts)
    assert counts[500] == pytest.approx(250 if schedule == "linear" else 200, abs=1)


def test_ratio_schedules_go_where_they_say():
    ends = {name: (ratio(name, 0.3, 0.0), ratio(name, 0.3, 1.0)) for name in RATIO_SCHEDULES}
    assert {name: start for name, (start, _) in ends.items()} == dict.fromkeys(RATIO_SCHEDULES, 0.3)
    expected = {"constant": 0.3, "linear": 1.0, "step": 0.93, "cosine": 1.0, "reverse-cosine": 0.2}
    assert {name: end for name, (_, end) in ends.items()} == pytest.approx(expected)
    stages = [ratio("step", 0.2, done / 100) for done in range(100)]
    assert sorted(set(stages)) == pytest.approx([0.2 + 0.08 * stage for stage in range(10)])
    assert all(stages.count(stage) == 10 for stage in set(stages))


@settings(deadline=None)
@given(
    st.integers(1, 300),
    st.floats(0.001, 1.0),
    st.sampled_from(RATIO_SCHEDULES),
    st.sampled_from(["constant", "linear", "exponential"]),
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
    st.sampled_from(["select", "add", "none"]),
)
def test_every_selection_is_distinct_and_of_the_size_it_promises(count, share, schedule, rate, start, end, how):
    selector = make(
        count,
        ratio=share,
        ratio_schedule=schedule,
        mutation=rate,
        mutation_start=start,
        mutation_end=end,
        crossover=how,
    )
    steps = 30
    selector.options.interval_start, selector.options.interval_end = 12, 7
    for step in range(1, steps + 1):
        progress = Progress(step, steps)
        selection = selector.select(progress)
        if selection.whole:
            assert selector.size(progress) == count
            selector.observe(progress, selection, errors_of(count, step))
        else:
            indices = selection.indices
            assert len(indices.unique()) == len(indices) == selector.size(progress) >= 1
            assert indices.min() >= 0
            assert indices.max() < count


class TestWhereThePublishedCodeMisbehaves:
    def test_no_survivors_selects_nobody_instead_of_everybody(self):
        assert crossover(torch.rand(9), torch.rand(9), 0).tolist() == []
        selector = make(10, ratio=0.5, mutation_start=1.0, mutation_end=1.0)
        key_step(selector, errors_of(10), Progress(1, 100))
        assert len(selector.select(Progress(2, 100)).indices) == 5

    def test_a_ratio_below_one_coordinate_selects_one(self):
        selector = make(3, ratio=0.01)
        key_step(selector, errors_of(3), Progress(1, 100))
        assert len(selector.select(Progress(2, 100)).indices) == 1

    def test_one_coordinate_is_enough(self):
        selector = make(1)
        key_step(selector, errors_of(1), Progress(1, 100))
        assert selector.select(Progress(2, 100)).indices.tolist() == [0]

    def test_the_global_generator_is_neither_used_nor_touched(self):
        def indices():
            selector = make(100)
            key_step(selector, errors_of(100), Progress(1, 100))
            return selector.select(Progress(2, 100)).indices

        torch.manual_seed(1)
        before = torch.get_rng_state()
        one = indices()
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert torch.equal(indices(), one)

    def test_state_restores_the_selection_exactly(self):
        selector = make(100)
        key_step(selector, errors_of(100), Progress(1, 100))
        selector.select(Progress(2, 100))
        state = selector.state_dict()
        other = make(100)
        other.load_state_dict(state)
        for step in range(3, 20):
            progress = Progress(step, 100)
            assert torch.equal(selector.select(progress).indices, other.select(progress).indices)

    @pytest.mark.parametrize("how", ["select", "add", "none"])
    def test_a_constant_signal_without_any_error_is_handled(self, how):
        selector = make(30, crossover=how)
        key_step(selector, Residuals(torch.zeros(30), torch.zeros(30)), Progress(1, 100))
        assert len(selector.select(Progress(2, 100)).indices.unique()) == 15

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_fitness_that_is_not_finite_ranks_first_and_breaks_nothing(self, bad):
        errors = errors_of(30)
        errors.squared[7], errors.residual[7] = bad, bad
        selector = make(30)
        key_step(selector, errors, Progress(1, 100))
        indices = selector.select(Progress(2, 100)).indices
        assert len(indices.unique()) == 15
        assert 7 in indices.tolist()

    def test_selecting_does_not_depend_on_whether_gradients_are_recorded(self):
        errors = errors_of(30)
        errors = Residuals(errors.squared, errors.residual)
        selector = make(30)
        selector.observe(Progress(1, 10), selector.everything(), errors)
        assert not selector.state_dict()["fitness"].requires_grad


SIDE = 32


def make_rolling(**options) -> Evos:
    """EVOS on 32×32 coordinates, of which a key step visits 200 unless told otherwise."""
    operator = LatticeLaplacian(LaplacianOptions(), Signal(CoordinateDataset(np.zeros((SIDE, SIDE, 1)))))
    given = {
        "ratio": 0.05,
        "interval": "fixed",
        "interval_start": 40,
        "key_whole": 1000,
        "key_share": 0.0982,
        **options,
    }
    return Evos(EvosOptions(**given), SIDE * SIDE, operator, 0, torch.device("cpu"))


class TestWhereASignalIsTooLargeForAPassOverAllOfIt:
    def step(self, selector, step, residual, steps=10**6):
        progress = Progress(step, steps)
        selection = selector.select(progress)
        indices = selection.indices
        assert len(indices.unique()) == len(indices) == selector.size(progress)
        selector.observe(progress, selection, Residuals(residual[indices].square(), residual[indices]))
        return selection.indices

    def test_key_steps_visit_a_share_of_what_the_steps_between_them_train_on(self):
        selector = make_rolling()
        assert not selector.visits_whole
        assert selector.size(Progress(2, 100)) == 51
        assert selector.size(Progress(41, 100)) == math.floor(0.0982 * 40 * 51)
        assert make_rolling(key_share=0.001).size(Progress(1, 100)) == 51

    def test_a_signal_that_is_not_larger_than_that_or_moderate_is_visited_whole(self):
        for options in ({"key_share": 0.6}, {"key_whole": SIDE * SIDE}):
            selector = make_rolling(**options)
            assert selector.visits_whole
            assert selector.select(Progress(1, 100)).whole

    @pytest.mark.parametrize("count", [512 * 512, 1 << 30])
    def test_the_presets_key_steps_visit_everything_however_large_it_is(self, count):
        operator = LatticeLaplacian(LaplacianOptions(), Signal(CoordinateDataset(np.zeros((1, 1)))))
        published = EvosOptions(ratio=0.5)
        image = EvosOptions(ratio=0.15, least=8192, interval="fixed", interval_start=100)
        for options in (published, image):
            assert Evos(options, count, operator, 0, torch.device("cpu")).visits_whole

    def test_survivors_are_the_fittest_of_the_visited_and_mutants_come_from_everywhere(self):
        residual = torch.randn(SIDE * SIDE, generator=torch.Generator().manual_seed(0))
        selector = make_rolling(high_frequency_weight=0.1)
        visited = self.step(selector, 1, residual)
        low = residual[visited].square()
        high = 0.1 * selector.operator.response_within(residual[visited], visited).square()
        expected = {int(visited[place]) for place in plain_crossover(low.tolist(), high.tolist(), 26)}
        mutants = torch.zeros(SIDE * SIDE, dtype=torch.bool)
        for step in range(2, 41):
            indices = self.step(selector, step, residual)
            assert set(indices[:26].tolist()) == expected
            mutants[indices[26:]] = True
        assert not mutants[list(expected)].any()
        unseen = torch.ones_like(mutants)
        unseen[visited] = False
        assert mutants[unseen].float().mean() > 0.4

    def test_in_time_all_coordinates_get_their_turn_in_key_steps(self):
        residual, selector = torch.randn(SIDE * SIDE), make_rolling()
        met = torch.zeros(SIDE * SIDE)
        for step in range(1, 1 + 40 * 11, 40):
            met[self.step(selector, step, residual)] += 1
        assert met.min() >= 2
        assert met.max() - met.min() <= 1

    def test_more_survivors_than_were_visited_give_way_to_mutants(self):
        selector = make_rolling(ratio_schedule="linear", mutation_start=0.0, mutation_end=0.0, interval_start=10**9)
        selector.options.key_share = 1e-12
        residual = torch.randn(SIDE * SIDE)
        self.step(selector, 1, residual, 20)
        for step in range(2, 21):
            self.step(selector, step, residual, 20)

    def test_a_growing_ratio_may_end_with_visits_of_everything(self):
        selector = make_rolling(ratio_schedule="linear")
        residual = torch.randn(SIDE * SIDE)
        parts = [self.step(selector, step, residual, 400) for step in range(1, 401, 1)][::40]
        assert len(parts[0]) == 200
        assert len(parts[-1]) == SIDE * SIDE

    def test_resumed_run_equals_uninterrupted_run(self):
        residual = torch.randn(SIDE * SIDE)
        whole, second = make_rolling(), make_rolling()
        for step in range(1, 96):
            self.step(whole, step, residual)
        saved = io.BytesIO()
        torch.save(whole.state_dict(), saved)
        saved.seek(0)
        second.load_state_dict(torch.load(saved, weights_only=True))
        for step in range(96, 300):
            assert torch.equal(self.step(whole, step, residual), self.step(second, step, residual))

    def test_free_points_are_visited_with_their_neighbours(self):
        points = np.random.default_rng(0).uniform(-1, 1, (6000, 2))
        operator = GraphLaplacian(
            GraphLaplacianOptions(), Signal(CoordinateDataset(np.zeros((6000, 1)), points=points))
        )
        options = EvosOptions(ratio=0.01, key_whole=1000, key_share=0.5)
        visited = Evos(options, 6000, operator, 0, torch.device("cpu")).select(Progress(1, 100)).indices
        assert len(visited) == 0.5 * 99 * 60 // 1
        columns, real = operator.neighbours(visited)
        assert torch.isin(columns[real], visited).float().mean() > 0.9

    def test_steps_on_a_gigapixel_image_hold_no_more_than_their_coordinates(self, tmp_path):
        side, k = 1 << 15, 2048
        np.lib.format.open_memmap(tmp_path / "huge.npy", "w+", np.uint8, (side, side, 1))  # a hole takes no space
        dataset = CoordinateDataset(np.load(tmp_path / "huge.npy", mmap_mode="c"))
        operator = LatticeLaplacian(LaplacianOptions(), Signal(dataset))
        options = EvosOptions(ratio=1e-9, least=k)
        selector = Evos(options, len(dataset), operator, 0, torch.device("cpu"))
        assert 4 * selector.numbers_kept * len(dataset) < 1 << 20
        before = psutil.Process().memory_info().rss
        for step in (1, 2, 100, 101):
            progress = Progress(step, 10**6)
            indices = selector.select(progress).indices
            assert len(indices.unique()) == len(indices) == selector.size(progress)
            assert len(indices) == (math.floor(0.1 * 99 * k) if selector.is_key_step(progress) else k)
            coordinates = dataset.coordinates(indices).to(torch.float64)
            exact = torch.stack([indices // side, indices % side], dim=1) * 2 + 1 - side
            assert torch.equal(coordinates * side, exact.to(torch.float64))
            residual = coordinates.sum(1).float()
            selector.observe(progress, Selection(indices), Residuals(residual.square(), residual))
        assert psutil.Process().memory_info().rss - before < 100 << 20


def test_a_large_signal_is_trained_on_no_more_coordinates_than_are_asked_for():
    options = RatioOptions(ratio=0.15, least=8192, most=262144)
    assert [options.scheduled_size(n, 0.0) for n in (1000, 1 << 18, 1 << 30)] == [1000, 39321, 262144]
    assert RatioOptions(ratio=0.15, ratio_schedule="linear", most=500).largest_size(10**6) == 500


def test_cross_frequency_supervision_of_parts_is_refused_before_anything_is_written(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((64, 64), np.uint8))
    selector = {"name": "evos", "ratio": 0.01, "least": 1, "key_whole": 1000}
    with pytest.raises(ConfigError, match="visit a part; choose objective=mse"):
        inrkit.fit(tmp_path / "a.npy", out=tmp_path / "run", base="image-paper", selector=selector)
    assert not (tmp_path / "run").exists()
