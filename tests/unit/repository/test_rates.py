"""Measured rates: kept, merged, bounded; damaged, future and foreign ones ignored."""

from __future__ import annotations

import os
from collections import Counter

import msgspec
import pytest
from contract.storage_suite import MemoryStorage
from hypothesis import given
from hypothesis import strategies as st

from packstone.codec.encryption import Sealer
from packstone.errors import Damaged, StorageUnavailable
from packstone.repository import rates
from packstone.repository.history import VerifiedDates, write_record
from packstone.repository.rates import (
    CHECK,
    LARGEST,
    MOST_ALIKE,
    MOST_SAMPLES,
    RESTORE,
    Sample,
    decode_samples,
    is_small,
    keep_rates,
    newest_samples,
    read_rates,
)

PLAIN, SEALED = Sealer(bytes(16)), Sealer(bytes(16), bytes(range(32)))
PACK = "ab" * 32


def sample(time_ns: int, **fields: object) -> Sample:
    made = Sample(time_ns, RESTORE, 1 << 30, 10, 5 * 10**9, "host", "directory", "crm")
    return msgspec.structs.replace(made, **fields)


samples = st.lists(
    st.builds(
        sample,
        st.integers(0, 200),
        what=st.sampled_from([RESTORE, CHECK]),
        job=st.sampled_from(["", "crm"]),
        bytes=st.integers(0, 1 << 40),
    ),
    max_size=120,
)


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage("rates")


def objects(storage: MemoryStorage) -> list[str]:
    return [name for name in storage.files if name.startswith("history/")]


@pytest.mark.parametrize("sealer", [PLAIN, SEALED], ids=["plain", "sealed"])
def test_samples_come_back(storage: MemoryStorage, sealer: Sealer) -> None:
    first, second = sample(10), sample(20, what=CHECK, estimated_ns=7)
    keep_rates(storage, sealer, [second], 20, os.urandom)
    keep_rates(storage, sealer, [first], 30, os.urandom)
    assert read_rates(storage, sealer, 30) == [first, second], "oldest first"
    assert read_rates(storage, sealer, 15) == [first], "the future counts for nothing"


def test_nothing_of_a_sealed_one_is_in_the_clear(storage: MemoryStorage) -> None:
    keep_rates(storage, SEALED, [sample(10, job="payroll", host="db1.example")], 10, os.urandom)
    assert len(objects(storage)) == 1
    for data in storage.files.values():
        assert b"payroll" not in data and b"db1" not in data and b"restore" not in data


def test_objects_and_samples_stay_few_and_the_newest_stay(storage: MemoryStorage) -> None:
    for at in range(300):
        keep_rates(storage, PLAIN, [sample(at)], at, os.urandom)
        assert len(objects(storage)) < 24
    found = read_rates(storage, PLAIN, 300)
    assert len(found) == MOST_ALIKE
    assert [each.time_ns for each in found] == list(range(300 - MOST_ALIKE, 300))
    assert all(len(storage.files[name]) < LARGEST for name in objects(storage))


def test_rates_and_dates_leave_each_other_alone(storage: MemoryStorage) -> None:
    for at in range(1, 60):
        keep_rates(storage, PLAIN, [sample(at)], at, os.urandom)
        VerifiedDates(storage, PLAIN, [PACK], at, print).keep([PACK], os.urandom)
    assert len(objects(storage)) < 48
    assert read_rates(storage, PLAIN, 60)[-1] == sample(59)
    assert VerifiedDates(storage, PLAIN, [PACK], 60, print).of(PACK) == 59


def test_a_merge_that_was_cut_off_counts_nothing_twice(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise StorageUnavailable(f"{name}: cut off")

    monkeypatch.setattr(storage, "delete", fail)
    for at in range(23):
        keep_rates(storage, PLAIN, [sample(at)], at, os.urandom)
    with pytest.raises(StorageUnavailable):
        keep_rates(storage, PLAIN, [sample(23)], 23, os.urandom)
    assert len(objects(storage)) == 24
    assert [each.time_ns for each in read_rates(storage, PLAIN, 30)] == list(range(24))


def test_what_is_damaged_or_too_large_costs_itself(storage: MemoryStorage) -> None:
    keep_rates(storage, PLAIN, [sample(1)], 1, os.urandom)
    keep_rates(storage, PLAIN, [sample(2)], 2, os.urandom)
    name = objects(storage)[0]
    storage.files[name] = storage.files[name][:-1] + b"?"
    large = [*msgspec.structs.astuple(sample(3)), "x" * LARGEST]
    write_record(storage, PLAIN, os.urandom(32), rates.RATES, 3, [large])
    warnings: list[str] = []
    found = read_rates(storage, PLAIN, 9, warnings.append)
    assert len(found) == 1 and len(warnings) == 1, "what is too large was not read"


def test_sizes_that_no_writer_leaves(storage: MemoryStorage) -> None:
    many = msgspec.msgpack.encode([sample(at) for at in range(MOST_SAMPLES + 1)])
    with pytest.raises(Damaged):
        decode_samples(many, "history/x")
    storage.make_directories(["history"])
    write_record(
        storage,
        PLAIN,
        os.urandom(32),
        rates.RATES,
        3,
        [sample(1, job="x" * 1000), sample(2, elapsed_ns=0), sample(3)],
    )
    assert read_rates(storage, PLAIN, 9) == [sample(3)]
    keep_rates(storage, PLAIN, [sample(4, job="y" * 1000)], 4, os.urandom)
    assert read_rates(storage, PLAIN, 9)[-1].job == "y" * 100


def test_the_folder_may_be_gone(storage: MemoryStorage) -> None:
    assert read_rates(storage, PLAIN, 9) == []
    keep_rates(storage, PLAIN, [], 9, os.urandom)
    assert not storage.files


@given(samples)
def test_few_of_each_kind_and_again_the_same(found: list[Sample]) -> None:
    kept = newest_samples(found)
    assert newest_samples(kept) == kept
    assert len(kept) <= MOST_SAMPLES
    counts = Counter((each.what, each.job, each.host) for each in kept)
    assert all(count <= MOST_ALIKE for count in counts.values())
    for each in found:
        if each not in kept:
            alike = [k for k in kept if (k.what, k.job) == (each.what, each.job)]
            assert all(k.time_ns >= each.time_ns for k in alike)


def test_what_tells_a_rate() -> None:
    assert is_small(sample(1, elapsed_ns=900_000_000)), "too quick"
    assert is_small(sample(1, bytes=1 << 20)), "too little"
    assert not is_small(sample(1, bytes=1 << 20, files=100_000)), "many files are no beginning"
    assert not is_small(sample(1))
