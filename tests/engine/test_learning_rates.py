import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrkit.plugins.options import field_names
from inrkit.training.learning_rates import (
    SCHEDULES,
    Constant,
    ConstantOptions,
    Cosine,
    CosineOptions,
    Exponential,
    ExponentialOptions,
    OneCycle,
    OneCycleOptions,
    Polynomial,
    PolynomialOptions,
)

WARMED = [name for name in SCHEDULES.names() if "warmup" in field_names(SCHEDULES.get(name).Options)]

shares = st.floats(0, 1, exclude_max=True)
finals = st.floats(1e-6, 1)


@st.composite
def schedules(draw):
    plugin = SCHEDULES.get(draw(st.sampled_from(SCHEDULES.names())))
    ranges = {"warmup": st.floats(0, 1), "final": finals, "initial": finals, "peak": st.floats(0.01, 0.99)}
    ranges["power"] = st.floats(1, 10)
    return plugin(plugin.Options(**{name: draw(ranges[name]) for name in field_names(plugin.Options)}))


@settings(deadline=None)
@given(schedules(), shares, st.integers(1, 10**6))
def test_a_factor_is_positive_and_at_most_one(schedule, done, steps):
    assert 0 < schedule.factor(done, 1 / steps) <= 1


@settings(deadline=None)
@given(schedules(), shares, st.floats(0, 1e-6))
def test_a_factor_changes_no_faster_than_training_goes_on(schedule, done, later):
    step = 0.01
    other = min(done + later, math.nextafter(1, 0))
    assert abs(schedule.factor(other, step) - schedule.factor(done, step)) <= 1e-3


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("steps", [1, 2, 10, 10**6])
def test_no_step_is_lost_to_a_rate_of_zero(name, steps):
    plugin = SCHEDULES.get(name)
    options = {"warmup": 0.5} if name in WARMED else {}
    schedule = plugin(plugin.Options(**options))
    for step in {0, steps // 2, steps - 1}:
        assert schedule.factor(step / steps, 1 / steps) > 0


@pytest.mark.parametrize("name", WARMED)
def test_warmup_rises_linearly_and_ends_when_it_says(name):
    plain = SCHEDULES.get(name)(SCHEDULES.get(name).Options())
    warm = SCHEDULES.get(name)(SCHEDULES.get(name).Options(warmup=0.1))
    for step in range(100):
        done = step / 100
        rising = min(1, (step + 1) / 10)
        assert warm.factor(done, 0.01) == pytest.approx(rising * plain.factor(done, 0.01))


def test_warmup_is_common_to_all_but_the_schedule_that_rises_by_itself():
    assert set(SCHEDULES.names()) - set(WARMED) == {"one-cycle"}


def test_constant_stays():
    assert Constant(ConstantOptions()).factor(0.7, 0.1) == 1


def test_cosine_falls_from_one_to_its_final_factor():
    schedule = Cosine(CosineOptions(final=0.1))
    assert schedule.decay(0.0) == 1
    assert schedule.decay(0.5) == pytest.approx(0.55)
    assert schedule.decay(1.0) == pytest.approx(0.1)


@settings(deadline=None)
@given(finals, shares, st.floats(0, 0.5))
def test_exponential_falls_by_the_same_ratio_in_equal_shares(final, done, share):
    schedule = Exponential(ExponentialOptions(final=final))
    assert schedule.decay(0.0) == 1
    assert schedule.decay(1.0) == pytest.approx(final)
    assert schedule.decay(done + share) == pytest.approx(schedule.decay(done) * schedule.decay(share))


@settings(deadline=None)
@given(st.floats(0.01, 0.99), finals, finals)
def test_one_cycle_rises_to_its_peak_and_falls_to_its_final_factor(peak, initial, final):
    schedule = OneCycle(OneCycleOptions(peak=peak, initial=initial, final=final))
    assert schedule.factor(0.0, 0.01) == schedule.decay(0.0) == pytest.approx(initial)
    assert schedule.decay(peak) == pytest.approx(1)
    assert schedule.decay(1.0) == pytest.approx(final)
    rising = [schedule.decay(peak * i / 20) for i in range(21)]
    falling = [schedule.decay(peak + (1 - peak) * i / 20) for i in range(21)]
    assert all(after >= before - 1e-12 for before, after in itertools.pairwise(rising))
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(falling))


@pytest.mark.parametrize(("power", "middle"), [(1.0, 0.55), (2.0, 0.325)])
def test_polynomial_falls_as_a_power_of_what_is_left(power, middle):
    schedule = Polynomial(PolynomialOptions(power=power, final=0.1))
    assert schedule.decay(0.0) == 1
    assert schedule.decay(0.5) == pytest.approx(middle)
    assert schedule.decay(1.0) == pytest.approx(0.1)
