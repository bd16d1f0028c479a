"""Dates of verification: kept, merged, bounded; damaged and future ones ignored."""

from __future__ import annotations

import os
from itertools import count
from random import Random

import msgspec
import pytest
from contract.storage_suite import MemoryStorage
from hypothesis import given
from hypothesis import strategies as st

from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, open_envelope, seal_envelope
from packstone.codec.hashing import checksum
from packstone.errors import Damaged
from packstone.repository import history
from packstone.repository.history import VerifiedDates, decode_rows, write_record
from packstone.repository.layout import history_name

PLAIN, SEALED = Sealer(bytes(16)), Sealer(bytes(16), bytes(range(32)))
PACKS = [Random(number).randbytes(32).hex() for number in range(40)]


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage("history")


def read(
    storage: MemoryStorage, now: int, warnings: list[str] | None = None, sealer: Sealer = PLAIN
) -> VerifiedDates:
    warn = [].append if warnings is None else warnings.append
    return VerifiedDates(storage, sealer, PACKS, now, warn)


def objects(storage: MemoryStorage) -> list[str]:
    return [name for name in storage.files if name.startswith("history/")]


@pytest.mark.parametrize("sealer", [PLAIN, SEALED], ids=["plain", "sealed"])
def test_dates_come_back(storage: MemoryStorage, sealer: Sealer) -> None:
    read(storage, 100, sealer=sealer).keep(PACKS[:2], os.urandom)
    read(storage, 200, sealer=sealer).keep(PACKS[1:3], os.urandom)
    found = read(storage, 300, sealer=sealer)
    assert [found.of(pack_id) for pack_id in PACKS[:4]] == [100, 200, 200, 0]


def test_an_object_is_named_by_its_bytes_and_has_a_salt_of_its_own(storage: MemoryStorage) -> None:
    numbers = count(1)
    for _ in range(3):
        VerifiedDates(storage, SEALED, PACKS, 5, print).keep(
            PACKS, lambda size: next(numbers).to_bytes(size, "big")
        )
    salts = {data[32:64] for data in storage.files.values()}
    assert len(salts) == len(objects(storage)) == 3
    for name, data in storage.files.items():
        assert name == history_name(checksum(data).hex())
        assert bytes.fromhex(PACKS[0])[:8] not in data, "ids are not in the clear"
        assert open_envelope(data, Kind.HISTORY, name, SEALED).mode == 1


def test_nothing_is_written_for_nothing(storage: MemoryStorage) -> None:
    read(storage, 5).keep([], os.urandom)
    assert not storage.files


def test_the_future_counts_as_never(storage: MemoryStorage) -> None:
    read(storage, 1000).keep(PACKS[:1], os.urandom)
    read(storage, 10).keep(PACKS[:2], os.urandom)
    found = read(storage, 500)
    assert [found.of(pack_id) for pack_id in PACKS[:2]] == [10, 10]


@given(
    runs=st.lists(
        st.tuples(st.integers(1, 9), st.sets(st.sampled_from(PACKS), min_size=1)), max_size=60
    )
)
def test_many_runs_leave_few_objects_and_every_date(runs: list[tuple[int, set[str]]]) -> None:
    storage = MemoryStorage("history")
    expected: dict[str, int] = {}
    now = 0
    for passed, packs in runs:
        now += passed
        read(storage, now).keep(packs, os.urandom)
        expected |= dict.fromkeys(packs, now)
        assert len(objects(storage)) <= history.MERGED_FROM
    found = read(storage, now)
    assert {pack_id: found.of(pack_id) for pack_id in expected} == expected


def test_a_merge_forgets_packs_that_are_gone(storage: MemoryStorage) -> None:
    for now in range(1, history.MERGED_FROM):
        VerifiedDates(storage, PLAIN, PACKS, now, print).keep(PACKS, os.urandom)
    VerifiedDates(storage, PLAIN, PACKS[:1], 50, print).keep(PACKS[:1], os.urandom)
    (data,) = storage.files.values()
    assert len(data) < 250


def test_a_merge_is_in_bounded_objects(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_MOST_PREFIXES", 7)
    for now, pack_id in enumerate(PACKS, 1):
        read(storage, now).keep([pack_id], os.urandom)
    for data in storage.files.values():
        payload = msgspec.msgpack.decode(open_envelope(data, Kind.HISTORY, "x", PLAIN).payload)
        assert sum(len(prefixes) // 8 for _, prefixes in payload["data"]) <= 7
    found = read(storage, 99)
    assert [found.of(pack_id) for pack_id in PACKS] == list(range(1, 41))


def test_damage_is_warned_of_and_ignored(storage: MemoryStorage) -> None:
    read(storage, 10).keep(PACKS[:1], os.urandom)
    (name,) = objects(storage)
    read(storage, 20).keep(PACKS[1:2], os.urandom)
    for spoilt in (b"", b"x", storage.files[name][:-1], storage.files[name][:-1] + b"\0"):
        storage.files[name] = spoilt
        warnings: list[str] = []
        found = read(storage, 30, warnings)
        assert [found.of(pack_id) for pack_id in PACKS[:2]] == [0, 20]
        assert len(warnings) == 1 and name in warnings[0]


def test_what_cannot_be_read_is_never_deleted(storage: MemoryStorage) -> None:
    """Another kind of record, and one that is damaged, are there after a merge."""
    write_record(storage, PLAIN, bytes(32), "rate", 5, {"bytes": 1})
    storage.files[history_name("0" * 64)] = b"damaged"
    others = set(objects(storage))
    for now in range(1, 2 * history.MERGED_FROM):
        read(storage, now).keep(PACKS, os.urandom)
    assert others <= set(objects(storage))


def test_other_kinds_say_nothing(storage: MemoryStorage) -> None:
    write_record(storage, PLAIN, bytes(32), "rate", 5, [[7, bytes.fromhex(PACKS[0])[:8]]])
    warnings: list[str] = []
    assert read(storage, 10, warnings).of(PACKS[0]) == 0
    assert not warnings


def test_a_plain_record_in_a_sealed_repository_is_refused(storage: MemoryStorage) -> None:
    """Whoever can write to the storage cannot make a pack look verified."""
    read(storage, 10).keep(PACKS, os.urandom)
    warnings: list[str] = []
    assert read(storage, 20, warnings, SEALED).of(PACKS[0]) == 0
    assert warnings


def test_without_a_folder_there_are_no_dates() -> None:
    assert read(MemoryStorage(), 10).of(PACKS[0]) == 0


def test_reading_is_bounded(storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        storage.files[history_name(f"{number:064x}")] = b"x" * 1000
    for name, most in (("MOST_READ", 50_000), ("MOST_OBJECTS", 50)):
        with monkeypatch.context() as patch:
            patch.setattr(history, name, most)
            asked: list[str] = []
            patch.setattr(storage, "get", lambda name, limit: asked.append(name) or b"x")
            warnings: list[str] = []
            read(storage, 10, warnings)
        assert len(asked) == 50
        assert len(warnings) == 2 and any("more than is read" in text for text in warnings)


numbers = st.integers(-(1 << 63), (1 << 64) - 1)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.binary(max_size=40), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=10,
)
rows = st.lists(st.lists(st.one_of(numbers, st.binary(max_size=24)), max_size=3), max_size=4)


@pytest.mark.parametrize(
    "rows", [[(5, b"1234567")], [(-1, bytes(8))], [(1, bytes(8))] * 1025, [(1, "text")], {}]
)
def test_unsound_rows(rows: object) -> None:
    with pytest.raises(Damaged):
        decode_rows(msgspec.msgpack.encode(rows), "history/x")


@given(data=st.one_of(st.binary(max_size=60), st.one_of(values, rows).map(msgspec.msgpack.encode)))
def test_hostile_data(data: bytes) -> None:
    try:
        found = decode_rows(data, "history/x")
    except Damaged:
        return
    assert all(time_ns >= 0 and len(prefixes) % 8 == 0 for time_ns, prefixes in found)


@given(
    payload=st.one_of(
        st.binary(max_size=60),
        st.fixed_dictionaries(
            {"kind": st.one_of(st.just("verified"), values), "time_ns": values, "data": values}
        ).map(msgspec.msgpack.encode),
    )
)
def test_hostile_payloads(payload: bytes) -> None:
    """In an envelope that is whole: ignored with a warning, or sound."""
    storage = MemoryStorage("history")
    storage.files[history_name("1" * 64)] = seal_envelope(Kind.HISTORY, PLAIN, bytes(32), payload)
    dates = read(storage, 10)
    assert all(dates.of(pack_id) <= 10 for pack_id in PACKS)
