import pytest

from inrkit.optimizers import SCHEDULES, Constant, ConstantOptions, Cosine, CosineOptions


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_warmup_rises_linearly_and_ends_when_it_says(name):
    plain = SCHEDULES.get(name)(SCHEDULES.get(name).Options())
    warm = SCHEDULES.get(name)(SCHEDULES.get(name).Options(warmup=0.1))
    for step in range(100):
        done = step / 100
        rising = min(1, (step + 1) / 10)
        assert warm.factor(done, 0.01) == pytest.approx(rising * plain.factor(done, 0.01))


def test_constant_stays():
    assert Constant(ConstantOptions()).factor(0.7, 0.1) == 1


def test_cosine_falls_from_one_to_its_final_factor():
    schedule = Cosine(CosineOptions(final=0.1))
    assert schedule.decay(0.0) == 1
    assert schedule.decay(0.5) == pytest.approx(0.55)
    assert schedule.decay(1.0) == pytest.approx(0.1)
