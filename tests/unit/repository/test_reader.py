"""What a reader gives hashes to what was asked for, whatever index and packs say."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import pytest

from packstone.errors import Damaged, ObjectMissing
from packstone.model import ObjectType
from packstone.repository.index import Place
from packstone.repository.layout import pack_name
from packstone.repository.packs import DATA
from packstone.repository.places import ROW
from packstone.repository.reader import ObjectReader
from packstone.repository.repository import ObjectRepository

CHUNK = ObjectType.CHUNK
Stored = dict[bytes, bytes]


def store(repository: ObjectRepository, count: int, seed: object) -> Stored:
    """Store chunks, small ones in runs and large ones alone, in one pack."""
    rng = Random(repr(seed))
    writer = repository.writer()
    stored: Stored = {}
    for number in range(count):
        data = rng.randbytes(20_000 if number % 8 == 0 else rng.randrange(1, 3000))
        chunk_id = repository.hasher.id(CHUNK, data)
        assert writer.reserve([chunk_id]) == [True]
        writer.put_chunk(chunk_id, data, (1, 2))
        stored[chunk_id] = data
    writer.finish()
    return stored


@pytest.fixture
def stored(repository: ObjectRepository) -> Stored:
    return store(repository, 60, 1) | store(repository, 60, 2)


@pytest.fixture
def reopen(repository: ObjectRepository, location: str) -> Iterator[Callable]:
    """Change things while the repository is closed, and open it again."""
    opened: list[ObjectRepository] = []

    def again(change: Callable[[], None] = lambda: None) -> ObjectRepository:
        repository.close()
        change()
        opened.append(ObjectRepository(location))
        return opened[-1]

    yield again
    for each in opened:
        each.close()


def pack_paths(location: str) -> list[str]:
    folder = os.path.join(location, "packs")
    return [
        os.path.join(folder, first, name)
        for first in sorted(os.listdir(folder))
        for name in os.listdir(os.path.join(folder, first))
    ]


def test_gives_what_was_stored(repository: ObjectRepository, stored: Stored) -> None:
    for chunk_id, data in stored.items():
        assert repository.reader.get(CHUNK, chunk_id) == data
    assert repository.warnings == []


def test_an_id_names_an_object_of_one_type(repository: ObjectRepository, stored: Stored) -> None:
    """A chunk that holds the bytes of a tree is no tree (CVE-2016-10099)."""
    for kind in (ObjectType.TREE, ObjectType.CHUNK_LIST):
        with pytest.raises(Damaged):
            repository.reader.get(kind, next(iter(stored)))


def test_missing(repository: ObjectRepository, stored: Stored) -> None:
    with pytest.raises(ObjectMissing, match="chunk 5555") as caught:
        repository.reader.get(CHUNK, b"U" * 32)
    assert caught.value.hint


def test_what_another_process_has_stored_since_is_found(
    repository: ObjectRepository, location: str, stored: Stored
) -> None:
    assert repository.reader.get(CHUNK, next(iter(stored)))
    other = ObjectRepository(location, index_dir=location + ".other")
    for chunk_id, data in store(other, 3, "other").items():
        assert repository.reader.get(CHUNK, chunk_id) == data
    other.close()


def test_memory_for_decoded_records_is_bounded(
    repository: ObjectRepository, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packstone.repository.reader._CACHE_SIZE", 50_000)
    reader = repository.reader
    for chunk_id, data in [*stored.items()] * 2:
        assert reader.get(CHUNK, chunk_id) == data
        kept = sum(len(raw) for raw in reader._cache.values())
        assert kept == reader._cache_size and (kept <= 50_000 or len(reader._cache) == 1)


# -- damaged packs --------------------------------------------------------------------------


def test_another_place_is_as_good(
    repository: ObjectRepository, location: str, reopen: Callable
) -> None:
    """Each object is in two packs; of each, one place is damaged."""
    one = store(repository, 40, "same")
    writer = repository.writer()
    for chunk_id, data in one.items():
        writer.put_chunk(chunk_id, data, (0, 0))
    writer.finish()
    paths = pack_paths(location)
    assert len(paths) == 2

    def damage() -> None:
        for number, path in enumerate(paths):
            data = bytearray(Path(path).read_bytes())
            middle = len(data) // 2
            begin, end = (200, middle) if number else (middle, len(data) - 5000)
            data[begin:end] = bytes(end - begin)
            Path(path).write_bytes(data)

    again = reopen(damage)
    found = 0
    for chunk_id, data in one.items():
        try:
            assert again.reader.get(CHUNK, chunk_id) == data
            found += 1
        except Damaged:
            pass
    assert found > len(one) // 2


def test_damage_says_where(repository: ObjectRepository, location: str, stored: Stored) -> None:
    chunk_id = max(stored, key=lambda each: len(stored[each]))
    (place,) = repository.index.find(chunk_id)
    path = os.path.join(location, pack_name(place.pack_id))
    with open(path, "r+b") as file:
        file.seek(place.offset + 100)
        byte = file.read(1)
        file.seek(place.offset + 100)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(Damaged) as caught:
        repository.reader.get(CHUNK, chunk_id)
    error = caught.value
    assert (error.name, error.offset, error.record) == (
        pack_name(place.pack_id), place.offset, place.record,
    )  # fmt: skip
    assert error.expected == chunk_id.hex() != error.found
    for other, data in stored.items():
        if repository.index.find(other)[0].record != place.record:
            assert repository.reader.get(CHUNK, other) == data


def test_a_pack_that_is_cut_off(
    repository: ObjectRepository, location: str, stored: Stored
) -> None:
    for path in pack_paths(location):
        os.truncate(path, os.path.getsize(path) // 2)
    good = 0
    for chunk_id, data in stored.items():
        try:
            assert repository.reader.get(CHUNK, chunk_id) == data
            good += 1
        except (Damaged, ObjectMissing):
            pass
    assert 0 < good < len(stored)


def test_a_pack_that_is_gone(repository: ObjectRepository, location: str, stored: Stored) -> None:
    os.unlink(pack_paths(location)[0])
    outcomes = set()
    for chunk_id, data in stored.items():
        try:
            assert repository.reader.get(CHUNK, chunk_id) == data
            outcomes.add("whole")
        except ObjectMissing:
            outcomes.add("missing")
    assert outcomes == {"whole", "missing"}


# -- a wrong index --------------------------------------------------------------------------


def change_index(location: str, change: Callable[[Any, Any, Any], None]) -> None:
    """Call change(transaction, objects, packs) on the index of a closed repository."""
    environment = lmdb.open(os.path.join(location, "index"), max_dbs=9, map_size=64 << 20)
    objects, packs = environment.open_db(b"objects"), environment.open_db(b"packs")
    with environment.begin(write=True) as transaction:
        change(transaction, objects, packs)
    environment.close()


def swap_places(transaction: Any, objects: Any, packs: Any) -> None:
    """Every id leads to the place of another."""
    rows = [(bytes(key), bytes(value)) for key, value in transaction.cursor(db=objects)]
    for (key, _), (_, value) in zip(rows, rows[1:] + rows[:1], strict=True):
        transaction.put(key, value, db=objects)


def shift_records(transaction: Any, objects: Any, packs: Any) -> None:
    """Every record is said to begin a byte later."""
    for key, value in [(bytes(key), bytes(value)) for key, value in transaction.cursor(db=packs)]:
        moved = bytearray(value)
        for at in range(0, len(moved), ROW.size):
            moved[at] ^= 1
        transaction.put(key, bytes(moved), db=packs)


def no_such_record(transaction: Any, objects: Any, packs: Any) -> None:
    for key, value in [(bytes(key), bytes(value)) for key, value in transaction.cursor(db=objects)]:
        transaction.put(key, value[:4] + b"\xff\xff\0\0" + value[8:], db=objects)


def drop_objects(transaction: Any, objects: Any, packs: Any) -> None:
    """The packs are known and their objects are not."""
    transaction.drop(objects, delete=False)


WRONG = [swap_places, shift_records, no_such_record, drop_objects]


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
def test_a_wrong_index_costs_a_rebuild_and_nothing_else(
    location: str, stored: Stored, reopen: Callable, change: Callable
) -> None:
    again = reopen(lambda: change_index(location, change))
    for chunk_id, data in stored.items():
        assert again.reader.get(CHUNK, chunk_id) == data
    assert len(again.warnings) <= 1 and all("index" in text for text in again.warnings)


@pytest.mark.parametrize("change", [swap_places, shift_records], ids=lambda each: each.__name__)
def test_a_rebuild_while_others_read(
    location: str, stored: Stored, reopen: Callable, change: Callable
) -> None:
    """Whoever looks while the index is rebuilt must not take it for empty."""
    again = reopen(lambda: change_index(location, change))
    reader: ObjectReader = again.reader
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda each: reader.get(CHUNK, each), stored))
    finally:
        sys.setswitchinterval(interval)
    assert found == list(stored.values())


def test_a_damaged_pack_is_no_reason_to_rebuild(
    repository: ObjectRepository, location: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index agrees with the footer: it is the record that is wrong."""
    resets: list[int] = []
    monkeypatch.setattr(repository.index, "reset", lambda: resets.append(1))
    for path in pack_paths(location):
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) - 30_000)
            file.write(bytes(20_000))
    damaged = 0
    for chunk_id, data in stored.items():
        try:
            assert repository.reader.get(CHUNK, chunk_id) == data
        except Damaged:
            damaged += 1
    assert damaged and not resets


# -- ranges ---------------------------------------------------------------------------------


def place(offset: int, size: int) -> Place:
    return Place("a" * 64, offset, offset, size, size, 0, 0, 0, size, 0)


def test_ranges_are_worth_one_read(repository: ObjectRepository) -> None:
    reader = repository.reader
    close = [place(0, 1000), place(1000, 1000), place(60_000, 1000)]
    far = [place(200_000, 1000)]
    assert list(reader.ranges([*close, *far])) == [close, far]
    huge = [place(number * (3 << 20), 3 << 20) for number in range(4)]
    assert [len(group) for group in reader.ranges(huge)] == [2, 2]
    assert list(reader.ranges([])) == []


def test_a_range_gives_each_record(repository: ObjectRepository, stored: Stored) -> None:
    places = {p.record: p for each in stored for p in repository.index.find(each)
              if p.pack_id == repository.index.packs[1]}  # fmt: skip
    ordered = sorted(places.values(), key=lambda each: each.offset)
    for group in repository.reader.ranges(ordered):
        for found, payload in repository.reader.read_range(group):
            assert len(payload) == found.stored_size
            assert len(repository.reader.decode(found, payload)) == found.raw_size
    assert DATA == 1
