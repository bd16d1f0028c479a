"""The index against a dict: packs come, vanish and come back, and it always says where things are.

Real packs in memory, a real LMDB environment on disk.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from contract.storage_suite import MemoryStorage
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from unit.repository.making import OURS, Where, found_by, make_pack, object_id, where

from packstone.codec.encryption import Sealer
from packstone.errors import Damaged
from packstone.repository import index as index_module
from packstone.repository import view
from packstone.repository.index import Index
from packstone.repository.layout import pack_name
from packstone.repository.packs import Pack, read_pack


class IndexMachine(RuleBasedStateMachine):
    """What the index must say follows from the packs that are there: the model is a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(index_module, "BATCH", 7)  # boundaries within a few packs
        self.patch.setattr(index_module, "_MANY_PACKS", 3, raising=False)
        self.patch.setattr(view, "_FIRST_MAP", 128 * 1024)
        self.directory = tempfile.TemporaryDirectory(prefix="index")
        self.storage = MemoryStorage()
        self.gone: dict[str, bytes] = {}
        self.packs: dict[str, Pack] = {}
        self.pending: set[str] = set()  # added and perhaps not flushed
        self.salt = 0
        self.index = Index(self.directory.name, OURS)

    def teardown(self) -> None:
        self.index.close()
        self.directory.cleanup()
        self.patch.undo()

    @rule(records=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=6), max_size=4))
    def add(self, records: list[list[int]]) -> None:
        """A writer of this process makes a pack and tells the index."""
        self.salt += 1
        pack = make_pack(self.storage, records, self.salt)
        self.packs[pack.id] = pack
        self.pending.add(pack.id)
        written = self.index.add(pack)
        self.pending -= {each.id for each in written}

    @rule()
    def flush(self) -> None:
        self.index.flush()
        self.pending.clear()

    @rule(count=st.integers(1, 5), numbers=st.sets(st.integers(0, 40), min_size=1, max_size=9))
    def others_add(self, count: int, numbers: set[int]) -> None:
        """Packs come that nobody tells the index of."""
        for _ in range(count):
            self.salt += 1
            pack = make_pack(self.storage, [sorted(numbers)], self.salt)
            self.packs[pack.id] = pack
        self.refresh()

    @rule()
    def refresh(self) -> None:
        assert self.index.refresh(self.storage) == []
        self.pending.clear()

    @precondition(lambda self: self.packs)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        """A sweep takes packs away."""
        self.refresh()
        chosen = data.draw(st.sets(st.sampled_from(sorted(self.packs)), min_size=1, max_size=3))
        for pack_id in chosen:
            self.gone[pack_id] = self.storage.files.pop(pack_name(pack_id))
            del self.packs[pack_id]
        self.refresh()

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """Somebody puts a pack back from a copy."""
        pack_id = data.draw(st.sampled_from(sorted(self.gone)))
        raw = self.storage.files[pack_name(pack_id)] = self.gone.pop(pack_id)
        self.packs[pack_id] = read_pack(self.storage, pack_id, len(raw), OURS)
        self.refresh()

    @rule()
    def reopen(self) -> None:
        """What was not flushed is found again from its footer."""
        self.index.close()
        self.index = Index(self.directory.name, OURS)
        self.refresh()

    @rule()
    def second_user(self) -> None:
        """LMDB environments are opened once in a process: a second index shares it."""
        other = Index(self.directory.name, OURS)
        other.refresh(self.storage)
        self.compare(other)
        other.close()

    @rule()
    def reset(self) -> None:
        self.index.reset()
        assert self.index.packs == {}
        self.refresh()

    @rule(directory=st.just("delete"))
    def delete(self, directory: str) -> None:
        """Deleting the index loses nothing."""
        self.index.close()
        for path in Path(self.directory.name).iterdir():
            path.unlink()
        self.index = Index(self.directory.name, OURS)
        self.refresh()

    @invariant()
    def agrees(self) -> None:
        if not self.pending:
            self.compare(self.index)

    def compare(self, index: Index) -> None:
        model: dict[bytes, set[Where]] = {object_id(number): set() for number in range(42)}
        for pack in self.packs.values():
            for each, place in where(pack):
                model[each].add(place)
        ids = list(model)
        assert set(index.packs.values()) == set(self.packs)
        assert len(set(index.packs)) == len(self.packs)
        assert index.present(ids) == [bool(model[each]) for each in ids]
        for each, one in zip(ids, index.find_many(ids), strict=True):
            assert found_by(index, each) == model[each]
            assert (one is None) == (not model[each])
            if one is not None:
                row = self.packs[one.pack_id].rows[one.record]
                assert (one.offset, one.stored_size, one.raw_size, one.codec) == (
                    row.offset,
                    row.stored_size,
                    row.raw_size,
                    row.codec,
                )


TestIndexAgainstADict = IndexMachine.TestCase
TestIndexAgainstADict.settings = settings(
    max_examples=settings.default.max_examples // 4, stateful_step_count=15
)


# -- single properties ----------------------------------------------------------------------


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def open_index(tmp_path: Path) -> Any:
    opened: list[Index] = []

    def open_it(owner: Sealer = OURS, name: str = "index") -> Index:
        index = Index(str(tmp_path / name), owner)
        opened.append(index)
        return index

    yield open_it
    for index in opened:
        index.close()


def test_numbers_are_never_given_twice(storage: MemoryStorage, open_index: Callable) -> None:
    """A place in a pack that is gone must not become one in another pack."""
    index = open_index()
    index.add(make_pack(storage, [[1, 2]], 1))
    index.refresh(storage)
    (first,) = index.packs
    storage.files.clear()
    index.refresh(storage)
    index.add(make_pack(storage, [[3, 4]], 2))
    index.refresh(storage)
    (second,) = index.packs
    assert second > first
    assert index.find(object_id(1)) == [] and index.present([object_id(1)]) == [False]


def test_a_pack_that_changed_its_size_is_looked_at_again(
    storage: MemoryStorage, open_index: Callable
) -> None:
    index = open_index()
    pack = make_pack(storage, [[1], [2]], 1)
    index.refresh(storage)
    storage.files[pack_name(pack.id)] = storage.files[pack_name(pack.id)][:200]
    (damaged,) = index.refresh(storage)
    assert isinstance(damaged, Damaged) and pack.id in damaged.message
    assert index.packs == {} and index.present([object_id(1)]) == [False]


def test_one_damaged_pack_keeps_none_from_being_found(
    storage: MemoryStorage, open_index: Callable
) -> None:
    index = open_index()
    bad = make_pack(storage, [[1]], 1)
    make_pack(storage, [[2]], 2)
    storage.files[pack_name(bad.id)] = bytes(5000)
    assert len(index.refresh(storage)) == 1
    assert index.present([object_id(1), object_id(2)]) == [False, True]


def test_an_index_of_another_repository_is_emptied(
    storage: MemoryStorage, open_index: Callable
) -> None:
    index = open_index()
    make_pack(storage, [[1]], 1)
    index.refresh(storage)
    index.set_complete("s", b"generation", index.forgotten())
    index.close()
    other = open_index(Sealer(bytes(16)))
    assert other.packs == {} and other.present([object_id(1)]) == [False]
    assert not other.is_complete("s", b"generation")


def test_completeness_goes_with_the_generation_and_with_packs(
    storage: MemoryStorage, open_index: Callable
) -> None:
    index = open_index()
    pack = make_pack(storage, [[1]], 1)
    index.refresh(storage)
    assert not index.is_complete("s", b"one")
    index.set_complete("s", b"one", index.forgotten())
    assert index.is_complete("s", b"one")
    assert not index.is_complete("s", b"two") and not index.is_complete("t", b"one")
    del storage.files[pack_name(pack.id)]
    index.refresh(storage)
    assert not index.is_complete("s", b"one"), "what was complete may have stood on that pack"


def test_the_map_grows(
    storage: MemoryStorage, open_index: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_FIRST_MAP", 64 * 1024)
    index = open_index()
    for number in range(8):
        ids = list(range(number * 400, number * 400 + 400))
        index.add(make_pack(storage, [ids], number))
        index.flush()
    assert all(index.present([object_id(number) for number in range(3200)]))
    assert index.objects() == 3200
    assert index.size() > 64 * 1024


def test_the_map_grows_under_readers(
    storage: MemoryStorage, open_index: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A map must not be moved while anybody in the process reads in it."""
    monkeypatch.setattr(view, "_FIRST_MAP", 64 * 1024)
    index = open_index()
    index.add(make_pack(storage, [list(range(50))], 0))
    index.flush()
    done = threading.Event()
    ids = [object_id(number) for number in range(50)]

    def read() -> int:
        turns = 0
        while not done.is_set():
            assert all(index.present(ids))
            assert len(index.find(ids[turns % 50])) == 1
            turns += 1
            time.sleep(0.002)  # or Python gives the writer hardly a turn
        return turns

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        try:
            for number in range(1, 9):
                first = number * 1000
                index.add(make_pack(storage, [list(range(first, first + 400))], number))
                index.flush()
        finally:
            done.set()
        assert all(reader.result(30) for reader in readers)


def test_a_hundred_packs_at_once(storage: MemoryStorage, open_index: Callable) -> None:
    """What a new index finds in a repository that is there: more packs than go one by one."""
    rng = Random("hundred")
    packs = [
        make_pack(storage, [[rng.randrange(3000) for _ in range(40)] for _ in range(2)], number)
        for number in range(100)
    ]
    index = open_index()
    assert index.refresh(storage) == []
    model: dict[bytes, set[Where]] = {}
    for pack in packs:
        for each, place in where(pack):
            model.setdefault(each, set()).add(place)
    assert index.objects() == len(model)
    for each, places in model.items():
        assert found_by(index, each) == places
    other = open_index(name="one by one")
    for pack in packs:
        other.add(pack)
        other.flush()
    for each in model:
        assert found_by(other, each) == model[each]


@pytest.mark.parametrize(("table", "key"), [(b"packs", b"\0\0\0\1"), (b"objects", object_id(1))])
def test_what_it_remembers_of_a_pack_bears_values_of_any_size(
    storage: MemoryStorage, open_index: Callable, table: bytes, key: bytes
) -> None:
    """LMDB checks nothing: a value cut short is a hint less, and no accident."""
    index = open_index()
    pack = make_pack(storage, [[1, 2], [3]], 1)
    index.refresh(storage)

    def cut_short(transaction: Any) -> None:
        database = index._view.databases[table]
        transaction.put(key, bytes(transaction.get(key, db=database))[:-1], db=database)

    index._view.write(cut_short)
    remembered = index.recall(pack.id)
    assert remembered is not None
    for row in remembered.rows:
        assert row.offset in {each.offset for each in pack.rows}
