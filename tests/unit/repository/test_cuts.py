"""Cuts and bases in a real view: found while their packs are there, the newest first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract.storage_suite import MemoryStorage
from unit.repository.making import OURS, object_id

from packstone.model import ObjectType
from packstone.repository.cuts import BASES, CUTS, cut_rows, split_ids
from packstone.repository.index import Index
from packstone.repository.layout import pack_name
from packstone.repository.packs import (
    DATA,
    KEYS,
    Lineage,
    Pack,
    PackWriter,
    RecordRow,
    pack_objects,
)
from packstone.repository.places import Cut

SIZE = 20_000
Chunk = tuple[int, int, int]  # number of the object, start key, end key


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index(str(tmp_path / "index"), OURS)
    yield opened
    opened.close()


def store(
    storage: Any, chunks: list[Chunk], salt: int, lineages: dict[int, Lineage] | None = None
) -> Pack:
    """Write a pack of chunks that are records of their own; bases are numbers of objects."""
    writer = PackWriter(storage, DATA, OURS, salt.to_bytes(32, "big"))
    for number, start, end in chunks:
        rows = [(object_id(number), SIZE, ObjectType.CHUNK)]
        lineage = (lineages or {}).get(number, Lineage((), 0, 0))
        codec = 2 if lineage.bases else 0
        payload = b"delta" if codec else bytes(SIZE)
        writer.add(payload, SIZE, codec, pack_objects(rows), KEYS.pack(start, end), lineage)
    return writer.finish()


def rows_in(index: Index) -> tuple[int, int]:
    """Return how many cuts and how many deltas the view knows."""
    with index._reading() as transaction:
        databases = index._view.databases
        counts = [transaction.stat(databases[name])["entries"] for name in (CUTS, BASES)]
    return counts[0], counts[1]


def test_what_is_gone_leaves_nothing(index: Index, storage: MemoryStorage) -> None:
    """Not what other packs have put at the same cuts."""
    first = store(storage, [(1, 10, 20), (2, 20, 30)], 1)
    lineage = {number: Lineage([object_id(1)], 1, 1) for number in (3, 4)}
    second = store(storage, [(3, 20, 30), (4, 30, 40)], 2, lineage)
    for pack in (first, second):
        index.add(pack)
    index.flush()
    assert rows_in(index) == (4, 2)
    storage.delete(pack_name(second.id))
    index.refresh(storage)
    assert rows_in(index) == (2, 0)
    assert at(index, 20) == (object_id(1), None), "the later one had taken its place"
    storage.delete(pack_name(first.id))
    index.refresh(storage)
    assert rows_in(index) == (0, 0)


def at(index: Index, key: int) -> tuple[bytes | None, bytes | None]:
    with index.cuts() as cuts:
        left, right = cuts.at(key)
    return left and left.id, right and right.id


def put(index: Index, *packs: Pack) -> None:
    for pack in packs:
        index.add(pack)
    index.flush()


def test_both_sides(storage: MemoryStorage, index: Index) -> None:
    put(index, store(storage, [(1, 10, 20), (2, 20, 30)], 1))
    assert at(index, 10) == (None, object_id(1))
    assert at(index, 20) == (object_id(1), object_id(2))
    assert at(index, 30) == (object_id(2), None)
    assert at(index, 11) == (None, None)


def test_keys_of_any_value(storage: MemoryStorage, index: Index) -> None:
    ends = [0, 1, 255, 256, 2**32, 2**63, 2**64 - 1]
    put(index, store(storage, [(key % 97, key, key) for key in ends], 1))
    for key in ends:
        assert at(index, key) == (object_id(key % 97), object_id(key % 97))


def test_what_is_known_of_a_chunk(storage: MemoryStorage, index: Index) -> None:
    lineage = Lineage([object_id(1), object_id(5)], 3, 7)
    put(index, store(storage, [(1, 10, 20), (2, 20, 30)], 1, {2: lineage}))
    with index.cuts() as cuts:
        cut = cuts.at(20)[1]
        assert cut == Cut(object_id(2), 1, 1, SIZE, 3, 7, 20, 30)
        assert cuts.bases(cut) == list(lineage.bases)
        first = cuts.find(object_id(1))
        assert first is not None and (first.record, cuts.bases(first)) == (0, [])
        assert cuts.find(object_id(9)) is None
    (pack_id,) = index.packs.values()
    assert index.bases(pack_id, 1) == list(lineage.bases)
    assert index.bases(pack_id, 0) == index.bases(pack_id, 9) == index.bases("00" * 32, 1) == []


def test_later_packs_win_on_each_side(storage: MemoryStorage, index: Index) -> None:
    put(index, store(storage, [(1, 10, 20), (2, 20, 30)], 1))
    put(index, store(storage, [(3, 10, 20)], 2))
    assert at(index, 10) == (None, object_id(3))
    assert at(index, 20) == (object_id(3), object_id(2))
    put(index, store(storage, [(4, 20, 30)], 3), store(storage, [(5, 20, 30)], 4))
    assert at(index, 20) == (object_id(3), object_id(5))


def test_the_order_in_a_pack(storage: MemoryStorage, index: Index) -> None:
    put(index, store(storage, [(1, 10, 20), (2, 10, 20)], 1))
    assert at(index, 10) == (None, object_id(2))


def test_packs_that_are_gone(storage: MemoryStorage, index: Index) -> None:
    first, second = store(storage, [(1, 10, 20)], 1), store(storage, [(2, 20, 30)], 2)
    put(index, first, second)
    data = storage.files.pop(pack_name(first.id))
    index.refresh(storage)
    assert at(index, 20) == (None, object_id(2))
    with index.cuts() as cuts:
        assert cuts.find(object_id(1)) is None
    storage.files[pack_name(first.id)] = data
    index.refresh(storage)
    assert at(index, 20) == (object_id(1), object_id(2))


def test_bases_of_a_pack_that_is_gone(storage: MemoryStorage, index: Index) -> None:
    lineage = Lineage([object_id(1)], 1, 1)
    pack = store(storage, [(2, 10, 20)], 1, {2: lineage})
    put(index, pack)
    del storage.files[pack_name(pack.id)]
    index.refresh(storage)
    assert index.bases(pack.id, 0) == []
    other = store(storage, [(3, 10, 20)], 2)
    put(index, other)
    assert index.bases(other.id, 0) == [], "numbers of packs are never given twice"


def test_of_several_places_the_one_of_least_depth(storage: MemoryStorage, index: Index) -> None:
    deep = Lineage([object_id(1)], 5, 5)
    put(index, store(storage, [(2, 10, 20)], 1, {2: deep}))
    put(index, store(storage, [(2, 30, 40)], 2))
    put(index, store(storage, [(2, 50, 60)], 3, {2: Lineage([object_id(1)], 2, 2)}))
    with index.cuts() as cuts:
        found = cuts.find(object_id(2))
        assert found is not None and (found.depth, found.start_key) == (0, 30)
    (best,) = index.find_many([object_id(2)])
    assert best is not None and best.depth == 0
    assert [place.depth for place in index.find(object_id(2))] == [0, 2, 5]


def test_runs_have_no_cuts(storage: MemoryStorage, index: Index) -> None:
    writer = PackWriter(storage, DATA, OURS, bytes(32))
    rows = [(object_id(number), 10, ObjectType.CHUNK) for number in (1, 2)]
    writer.add(bytes(20), 20, 0, pack_objects(rows), b"")
    put(index, writer.finish())
    assert at(index, 0) == (None, None)
    with index.cuts() as cuts:
        assert cuts.find(object_id(1)) is None


@pytest.mark.parametrize("many", [2, 100])
def test_made_anew(
    storage: MemoryStorage, index: Index, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From footers, also where many packs are sorted on disk: cuts, depths and bases are there."""
    monkeypatch.setattr("packstone.repository.index._MANY_PACKS", many)
    packs = [
        store(
            storage,
            [(number, 10 * number, 10 * number + 10)],
            number,
            {number: Lineage([object_id(number - 1)], number, number)} if number > 1 else None,
        )
        for number in range(1, 10)
    ]
    index.refresh(storage)
    for change in (lambda: None, index.reset):
        change()
        index.refresh(storage)
        for number, pack in enumerate(packs, 1):
            left = object_id(number - 1) if number > 1 else None
            assert at(index, 10 * number) == (left, object_id(number))
            bases = [object_id(number - 1)] if number > 1 else []
            assert index.bases(pack.id, 0) == bases
            (place,) = index.find(object_id(number))
            assert place.depth == (number if number > 1 else 0)


@pytest.mark.parametrize("many", [2, 100])
def test_the_newest_is_still_the_newest_when_made_anew(
    storage: MemoryStorage, index: Index, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packstone.repository.index._MANY_PACKS", many)
    for number in range(1, 9):
        lineage = Lineage([object_id(number & (number - 1))], number.bit_count(), number)
        put(index, store(storage, [(number, 10, 20)], number, {number: lineage}))
    assert at(index, 10) == (None, object_id(8))
    assert max(index.packs.values()) != index.packs[8], "or it would be so by chance"
    index.reset()
    index.refresh(storage)
    assert at(index, 10) == (None, object_id(8))


def test_rows_of_cuts() -> None:
    made = cut_rows(5, [RecordRow(0, 1, 1, 0, b"", KEYS.pack(1, 2), [], 0, 0)])
    assert [key for key, _ in made] == [(1).to_bytes(8, "big"), (2).to_bytes(8, "big")]
    assert list(cut_rows(5, [RecordRow(0, 1, 1, 0, b"", b"", [], 0, 0)])) == []


def test_split_ids() -> None:
    ids = [object_id(number) for number in range(3)]
    assert split_ids(b"".join(ids)) == ids and split_ids(b"") == []
