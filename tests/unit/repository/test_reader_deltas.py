"""A reader of deltas: bases from places of less depth, and a wrong index is no excuse."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import pytest

from packstone.errors import Damaged
from packstone.model import ObjectType
from packstone.repository.bases import Base, Candidates
from packstone.repository.layout import pack_name
from packstone.repository.places import ROW
from packstone.repository.repository import ObjectRepository

CHUNK = ObjectType.CHUNK


def put(repository: ObjectRepository, data: bytes, *bases: Base) -> bytes:
    """Store a chunk in a pack of its own, as a delta if there are bases; return its id."""
    writer = repository.writer()
    chunk_id = repository.hasher.id(CHUNK, data)
    writer.put_chunk(chunk_id, data, (1, 2), Candidates(list(bases), []))
    assert writer.chunks_delta == bool(bases)
    writer.finish()
    return chunk_id


@pytest.fixture
def chain(repository: ObjectRepository) -> dict[bytes, bytes]:
    """Five chunks, each on the one before; id → content."""
    rng = Random("chain")
    data = rng.randbytes(20_000)
    stored = {put(repository, data): data}
    for depth in range(4):
        base = Base(list(stored)[-1], depth, depth + 1)
        data = data[:5000] + rng.randbytes(20) + data[5100:]
        stored[put(repository, data, base)] = data
    return stored


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


def test_gives_what_was_stored(
    repository: ObjectRepository, chain: dict[bytes, bytes], reopen: Callable
) -> None:
    for opened in (repository, reopen()):
        for chunk_id in reversed(chain):
            assert opened.reader.get(CHUNK, chunk_id) == chain[chunk_id]
        assert opened.warnings == []


def test_a_base_of_enough_depth_is_none(
    repository: ObjectRepository, chain: dict[bytes, bytes]
) -> None:
    ids = list(chain)
    for depth, chunk_id in enumerate(ids):
        assert bytes(repository.reader.base(chunk_id, depth + 1)) == chain[chunk_id]
        with pytest.raises(Damaged):
            repository.reader.base(chunk_id, depth)
    with pytest.raises(Damaged, match="in no pack"):
        repository.reader.base(bytes(32), 64)


def test_several_bases_come_in_order(
    repository: ObjectRepository, chain: dict[bytes, bytes]
) -> None:
    ids = list(chain)
    wanted = [ids[2], ids[0], ids[1]]
    found = repository.reader.bases(wanted, 3)
    assert [bytes(each) for each in found] == [chain[each] for each in wanted]


def test_a_whole_copy_in_a_later_pack_is_enough(
    repository: ObjectRepository, chain: dict[bytes, bytes], location: str
) -> None:
    """The third chunk is whole again elsewhere; the first two are gone."""
    ids = list(chain)
    put(repository, chain[ids[2]])
    for each in ids[:2]:
        (place,) = repository.index.find(each)
        os.unlink(os.path.join(location, pack_name(place.pack_id)))
    repository.close()
    opened = ObjectRepository(location)
    try:
        for each in ids[2:]:
            assert opened.reader.get(CHUNK, each) == chain[each]
    finally:
        opened.close()


def test_damage_names_the_delta_and_its_base(
    repository: ObjectRepository, chain: dict[bytes, bytes], location: str, reopen: Callable
) -> None:
    ids = list(chain)
    (base,) = repository.index.find(ids[0])
    (top,) = repository.index.find(ids[-1])

    def spoil() -> None:
        path = Path(location, pack_name(base.pack_id))
        data = bytearray(path.read_bytes())
        data[base.offset + 7] ^= 1
        path.write_bytes(data)

    opened = reopen(spoil)
    with pytest.raises(Damaged) as caught:
        opened.reader.get(CHUNK, ids[-1])
    error = caught.value
    assert (error.name, error.record) == (pack_name(top.pack_id), top.record)
    assert base.pack_id[:12] in error.message and ids[0].hex()[:12] in error.message
    assert error.hint


def test_a_base_that_decodes_to_other_bytes(
    repository: ObjectRepository, chain: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the id tells: nothing wrong is ever given, and no wrong base is used."""
    ids = list(chain)
    (base,) = repository.index.find(ids[0])
    whole = repository.reader._records.whole

    def wrong(place: Any, payload: Any) -> Any:
        raw = whole(place, payload)
        return bytes(len(raw)) if place.pack_id == base.pack_id else raw

    monkeypatch.setattr(repository.reader._records, "whole", wrong)
    repository.reader._cache.clear()
    repository.reader._cache_size = 0
    for each in ids:
        with pytest.raises(Damaged):
            repository.reader.get(CHUNK, each)


def test_no_delta_is_written_that_readers_refuse(
    repository: ObjectRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it stands on is counted, each chunk once, and not looked up where it cannot matter."""
    rng = Random("bound")
    data = rng.randbytes(20_000)
    ids = [put(repository, data)]
    monkeypatch.setattr("packstone.repository.writer.MAX_STANDING", 60_000)
    monkeypatch.setattr("packstone.repository.ancestry.MAX_STANDING", 60_000)
    for depth in range(4):
        data = data[:5000] + rng.randbytes(20) + data[5020:]
        writer = repository.writer()
        ids.append(repository.hasher.id(CHUNK, data))
        bases = Candidates([Base(ids[-2], depth, depth + 1)], [])
        writer.put_chunk(ids[-1], data, (1, 2), bases)
        assert writer.chunks_delta == (depth < 3), "three times 20,000 are as much as may be"
        writer.finish()
    assert repository.reader.get(CHUNK, ids[-1]) == data
    assert [repository.index.find(each)[0].depth for each in ids] == [0, 1, 2, 3, 0]


# -- a wrong index --------------------------------------------------------------------------


def change_index(location: str, change: Callable[[Any, Any, Any], None]) -> None:
    """Call change(transaction, packs, bases) on the index of a closed repository."""
    environment = lmdb.open(os.path.join(location, "index"), max_dbs=9, map_size=64 << 20)
    packs, bases = environment.open_db(b"packs"), environment.open_db(b"bases")
    with environment.begin(write=True) as transaction:
        change(transaction, packs, bases)
    environment.close()


def rows_of(transaction: Any, database: Any) -> list[tuple[bytes, bytes]]:
    return [(bytes(key), bytes(value)) for key, value in transaction.cursor(db=database)]


def wrong_depth(transaction: Any, packs: Any, bases: Any, depth: int) -> None:
    for key, value in rows_of(transaction, packs):
        rows = [list(row) for row in ROW.iter_unpack(value)]
        for row in rows:
            row[4] = depth
        transaction.put(key, b"".join(ROW.pack(*row) for row in rows), db=packs)


def no_bases(transaction: Any, packs: Any, bases: Any) -> None:
    transaction.drop(bases, delete=False)


def swapped_bases(transaction: Any, packs: Any, bases: Any) -> None:
    rows = rows_of(transaction, bases)
    for (key, _), (_, value) in zip(rows, rows[1:] + rows[:1], strict=True):
        transaction.put(key, value, db=bases)


def bases_of_nowhere(transaction: Any, packs: Any, bases: Any) -> None:
    for key, value in rows_of(transaction, bases):
        transaction.put(key, bytes(len(value)), db=bases)


def half_a_base(transaction: Any, packs: Any, bases: Any) -> None:
    for key, value in rows_of(transaction, bases):
        transaction.put(key, value[:20], db=bases)


WRONG: dict[str, Callable[..., None]] = {
    "no bases": no_bases,
    "bases of others": swapped_bases,
    "bases that are nowhere": bases_of_nowhere,
    "half a base": half_a_base,
    "half a base more": lambda t, packs, bases: [
        t.put(key, value + value[:16], db=bases) for key, value in rows_of(t, bases)
    ],
    "the bases of other records": lambda t, packs, bases: [
        (t.delete(key, db=bases), t.put(key[:-1] + b"\7", value, db=bases))
        for key, value in rows_of(t, bases)
    ],
    "all of depth 0": lambda *them: wrong_depth(*them, 0),
    "all of depth 1": lambda *them: wrong_depth(*them, 1),
    "all of depth 64": lambda *them: wrong_depth(*them, 64),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_index_costs_a_rebuild_and_nothing_else(
    location: str, chain: dict[bytes, bytes], reopen: Callable, change: Callable
) -> None:
    again = reopen(lambda: change_index(location, change))
    for chunk_id in reversed(chain):
        assert again.reader.get(CHUNK, chunk_id) == chain[chunk_id]
    assert len(again.warnings) <= 1 and all("index" in text for text in again.warnings)
