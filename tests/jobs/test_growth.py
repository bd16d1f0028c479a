"""Growth of simulated histories whose truth is known: how often its range holds the slope."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packstone.operations.jobs.growth import DAY_NS, Slope, fit_growth, theil_sen

TRUTH = 1e9  # bytes a day
START = 500e9


def steady(rng: Random, count: int) -> list[float]:
    """Return sizes around a line, as of data that is cleaned up again and again."""
    return [START + TRUTH * day + rng.gauss(0, 2e9) for day in range(count)]


def wandering(
    change: Callable[[Random, int], float],
) -> Callable[[Random, int], list[float]]:
    """Return sizes that add up from changes, each of which stays."""

    def sizes(rng: Random, count: int) -> list[float]:
        level = START
        found = []
        for day in range(count):
            level += change(rng, day) if day else 0
            found.append(level)
        return found

    return sizes


def with_spikes(rng: Random, count: int) -> list[float]:
    base = wandering(lambda rng, _day: rng.gauss(TRUTH, TRUTH / 2))(rng, count)
    return [size + (300e9 if rng.random() < 0.08 else 0) for size in base]


def with_a_step(rng: Random, count: int) -> list[float]:
    base = wandering(lambda rng, _day: rng.gauss(TRUTH, TRUTH / 2))(rng, count)
    return [size + (200e9 if day >= count // 2 else 0) for day, size in enumerate(base)]


HISTORIES = {
    "steady": steady,
    "wandering": wandering(lambda rng, _day: rng.gauss(TRUTH, TRUTH)),
    "skewed": wandering(lambda rng, _day: TRUTH * rng.lognormvariate(-0.5, 1)),
    "weekdays": wandering(
        lambda rng, day: (TRUTH * 7 / 5 if day % 7 < 5 else 0) * rng.uniform(0.8, 1.2)
    ),
    "step": with_a_step,
    "spikes": with_spikes,
}


def times(rng: Random, count: int) -> list[int]:
    return [int((day + rng.uniform(-0.02, 0.02)) * DAY_NS) for day in range(count)]


def fitted(name: str, count: int, seed: int) -> Slope:
    rng = Random(f"{name} {count} {seed}")
    found = fit_growth(times(rng, count), HISTORIES[name](rng, count))
    assert found is not None
    return found


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize(("count", "held"), [(10, 0.77), (30, 0.84), (90, 0.88)])
def test_the_range_holds_the_truth(name: str, count: int, held: float) -> None:
    """It should in 90 of 100; the skewed ones, of few points, are the worst."""
    seeds = 300 if count < 90 else 100
    found = [fitted(name, count, seed) for seed in range(seeds)]
    assert sum(each.low <= TRUTH <= each.high for each in found) / seeds >= held
    assert median(each.per_day for each in found) == pytest.approx(TRUTH, rel=0.2)
    if count == 90:  # and it is no range that says nothing
        assert median(each.high - each.low for each in found) < 0.8 * TRUTH


def test_a_step_is_told_and_spikes_are_not() -> None:
    step = fitted("step", 30, 1)
    assert [round(each.size / 1e9, -1) for each in step.steps] == [200]
    assert step.steps[0].time_ns == pytest.approx(15 * DAY_NS, rel=0.01)
    assert fitted("spikes", 30, 1).steps == ()


def test_what_comes_again_is_growth() -> None:
    """A batch of 30 GB every tenth day is no exception: it fills the disk."""
    batches = wandering(lambda rng, day: rng.gauss(1e8, 1e7) + (30e9 if day % 10 == 0 else 0))
    rng = Random(1)
    found = fit_growth(times(rng, 90), batches(rng, 90))
    assert found is not None and found.steps == ()
    assert found.low <= 3.1e9 <= found.high


def test_weekends_are_no_steps_of_a_small_table() -> None:
    small = wandering(lambda rng, day: (7e9 if day % 7 < 5 else 0) * rng.uniform(0.9, 1.1))
    rng = Random(1)
    sizes = [size - START + 1e9 for size in small(rng, 28)]
    found = fit_growth(times(rng, 28), sizes)
    assert found is not None and found.steps == ()
    assert found.per_day == pytest.approx(5e9, rel=0.1)


@pytest.mark.parametrize(("count", "days"), [(7, 30), (30, 3), (1, 0), (0, 0)])
def test_too_little_history(count: int, days: float) -> None:
    at = [round(days * DAY_NS * number / max(count - 1, 1)) for number in range(count)]
    assert fit_growth(at, [1.0] * count) is None


def test_theil_sen_by_hand() -> None:
    """The example of Sen (1968), section 7: slopes of ten pairs and more, by their ranks."""
    middle, low, high = theil_sen([1, 2, 3, 4, 10, 12, 18], [9, 15, 19, 20, 45, 55, 78])
    assert middle == 4.0
    assert low <= 4.0 <= high and (low, high) == (
        pytest.approx(3.71, abs=0.3),
        pytest.approx(4.33, abs=0.4),
    )


@given(
    st.lists(st.floats(-1e12, 1e12), min_size=8, max_size=40),
    st.floats(-1e9, 1e9),
)
def test_slopes_are_ordered_and_follow_what_is_added(values: list[float], added: float) -> None:
    at = [float(day) for day in range(len(values))]
    middle, low, high = theil_sen(at, values)
    assert low <= middle <= high
    turned, _low, _high = theil_sen(
        at, [value + added * day for day, value in zip(at, values, strict=True)]
    )
    assert turned == pytest.approx(middle + added, rel=1e-6, abs=1.0)


@given(st.integers(0, 10**15), st.integers(8, 100))
def test_what_stands_still_does_not_grow(size: int, count: int) -> None:
    found = fit_growth([day * DAY_NS for day in range(count)], [float(size)] * count)
    assert found is not None
    assert (found.low, found.per_day, found.high) == (0, 0, 0)
