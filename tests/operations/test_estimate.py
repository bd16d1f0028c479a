"""Estimates of restores: right where the truth is known, and never narrower than they may be."""

from __future__ import annotations

from random import Random
from statistics import median

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from packstone.model import GIB, MIB
from packstone.operations.estimate import Estimate, estimate_seconds, fit_rates, spread_of
from packstone.repository.rates import CHECK, LOAD, RESTORE, STREAM, VERIFIED_RESTORE, Sample


def measured(
    size: int, files: int, seconds: float, what: str = RESTORE, job: str = "", host: str = "here"
) -> Sample:
    return Sample(1, what, size, files, round(seconds * 1e9), host, "directory", job)


def asked(samples: list[Sample], size: int, files: int = 1, **options: object) -> Estimate:
    found = estimate_seconds(samples, size, files, host="here", **options)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_nothing_measured_nothing_said() -> None:
    assert estimate_seconds([], GIB, 1) is None
    assert estimate_seconds([measured(100, 1, 0.1)], GIB, 1) is None, "a beginning is no rate"


def test_one_restore_gives_its_rate_and_a_wide_range() -> None:
    found = asked([measured(10 * GIB, 1, 100)], 20 * GIB)
    assert found.seconds == pytest.approx(200)
    assert (found.low, found.high) == (pytest.approx(100), pytest.approx(400))
    assert "102.4 MiB/s measured in 1 restore" in found.basis


def test_opening_is_told_from_the_rate() -> None:
    opening = [measured(1000, 1, 5, host="here") for _ in range(3)]
    found = asked([*opening, measured(10 * GIB, 1, 105)], 20 * GIB)
    assert found.seconds == pytest.approx(205)
    assert asked([*opening, measured(10 * GIB, 1, 105)], 0).seconds == pytest.approx(5)


@given(
    per_byte=st.floats(1e-10, 1e-7),
    per_file=st.floats(1e-5, 1e-2),
    sizes=st.lists(st.integers(100 * MIB, 100 * GIB), min_size=4, max_size=12),
)
def test_costs_of_bytes_and_files_come_back(
    per_byte: float, per_file: float, sizes: list[int]
) -> None:
    """From restores of few large files and of many small ones."""
    content = [(size, 1 if at % 2 else size // 10_000) for at, size in enumerate(sizes)]
    samples = [measured(s, f, s * per_byte + f * per_file) for s, f in content]
    assume(all(each.seconds >= 1 for each in samples))
    for size, files in ((50 * GIB, 10), (GIB, 100_000)):
        truth = size * per_byte + files * per_file
        assert asked(samples, size, files).seconds == pytest.approx(truth, rel=0.3)


def test_files_do_not_count_where_they_cannot_be_told_apart() -> None:
    """All samples with as many files per byte: any split of the time would fit."""
    samples = [measured(n * GIB, n * 1000, n * 10.0 * (1 + n % 2 / 50)) for n in range(1, 8)]
    model = fit_rates(samples)
    assert model is not None and model.per_file == 0
    assert asked(samples, 10 * GIB, 1).seconds == pytest.approx(100, rel=0.05)


def test_two_measurements_of_unlike_files_tell_both_costs() -> None:
    known = [measured(10 * GIB, 1, 100), measured(MIB * 100, 100_000, 1 + 50)]
    assert asked(known, 20 * GIB, 1).seconds == pytest.approx(200, rel=0.02)
    assert asked(known, 10 * GIB, 100_000).seconds == pytest.approx(150, rel=0.02)


def test_files_of_a_size_that_was_never_measured_widen_the_range() -> None:
    large = asked([measured(GIB, 1, 10)], GIB, 100_000)
    assert large.high > 100 and "smaller ones take longer" in large.basis
    small = asked([measured(GIB, 100_000, 100)], GIB, 1)
    assert small.low < 10 and "larger ones take less" in small.basis
    assert "take" not in asked([measured(GIB, 100, 10)], GIB, 150).basis


def test_one_wild_measurement_moves_little() -> None:
    samples = [measured(n * GIB, 1, 10.0 * n) for n in range(1, 8)]
    wild = [*samples, measured(GIB, 1, 3000)]
    assert asked(wild, 10 * GIB).seconds == pytest.approx(100, rel=0.05)
    assert asked(wild, 10 * GIB).high > 3000, "and yet it has happened"


def test_the_nearest_measurements_count() -> None:
    here = [measured(GIB, 1, 10), measured(GIB, 1, 10)]
    elsewhere = [measured(GIB, 1, 2, host="there")]
    crm = [measured(GIB, 1, 20, job="crm"), measured(GIB, 1, 20, job="crm")]
    assert asked([*elsewhere, *here], GIB).seconds == pytest.approx(10)
    assert asked(elsewhere, GIB).seconds == pytest.approx(2)
    assert asked([*here, *crm], GIB, job="crm").seconds == pytest.approx(20)
    assert asked([*here, *crm[:1]], GIB, job="crm").seconds == pytest.approx(10), "one is chance"


def test_kinds() -> None:
    check = measured(GIB, 0, 4, what=CHECK)
    restore = measured(GIB, 1, 10)
    verified = measured(GIB, 1, 15, what=VERIFIED_RESTORE)
    stream = measured(GIB, 1, 6, what=STREAM, job="crm")
    load = measured(GIB, 1, 60, what=LOAD, job="crm")
    known = [check, restore, verified, stream, load]
    assert asked(known, GIB).seconds == pytest.approx(10)
    assert asked(known, GIB, verify=True).seconds == pytest.approx(15)
    assert asked(known, GIB, stream=True).seconds == pytest.approx(6)
    assert asked(known, GIB, load=True, job="crm").seconds == pytest.approx(60)
    assert estimate_seconds(known, GIB, 1, load=True, job="other") is None
    only = asked([check, check, check, check], GIB)
    assert only.seconds == pytest.approx(4) and only.kind == CHECK
    assert only.high >= 8, "a check writes nothing"


@given(
    st.lists(
        st.tuples(st.integers(MIB, 1 << 45), st.integers(0, 10**7), st.floats(1, 1e6)),
        min_size=1,
        max_size=20,
    ),
    st.integers(0, 1 << 45),
    st.integers(0, 10**7),
)
def test_never_negative_always_ordered_and_more_never_takes_less(
    rows: list[tuple[int, int, float]], size: int, files: int
) -> None:
    samples = [measured(16 * MIB + s, f, t) for s, f, t in rows]
    found = asked(samples, size, files)
    assert 0 <= found.low <= found.seconds <= found.high
    more = asked(samples, size + MIB, files + 1)
    assert more.seconds >= found.seconds


def test_the_range_holds_what_comes_next() -> None:
    """Of lognormal noise of 25 %: at least as often as order statistics promise."""
    for count, promised in ((2, 0.33), (5, 0.67), (12, 0.85)):
        held = errors = 0
        off = []
        for seed in range(400):
            rng = Random(seed)
            times = [10 * rng.lognormvariate(0, 0.25) for _ in range(count + 1)]
            found = asked([measured(GIB, 1, each) for each in times[:-1]], GIB)
            held += found.low <= times[-1] <= found.high
            errors += 1
            off.append(abs(found.seconds - times[-1]) / times[-1])
        assert held / errors >= promised
        assert median(off) < 0.3


def test_spread() -> None:
    assert spread_of([1.0]) == (0.5, 2.0)
    low, high = spread_of([0.9, 1.0, 1.2, 1.0])
    assert (low, high) == (pytest.approx(0.72), pytest.approx(1.5))
