"""The contract of storages: what every Storage must do, as tests that any of them can run.

A storage's test module subclasses StorageSuite and gives it the fixture `storage`, an empty
storage that holds the folders `packs/00` and `snapshots`. `MemoryStorage` keeps the contract in
the plainest way: tests of what rests on storages use it where no disk is wanted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packstone.errors import Damaged, ObjectMissing, StorageError
from packstone.model import Buffer
from packstone.storage.base import Spool, Storage

_THREADS = 8
# one storage for all examples of a test, and one test for several storages, are meant
_shared = settings(
    max_examples=settings.default.max_examples // 3,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


class StorageSuite:
    """Subclass it, give it a `storage` fixture, and pytest runs the contract."""

    def names(self, storage: Storage, prefix: str) -> dict[str, int]:
        found = list(storage.list(prefix))
        assert len(found) == len(dict(found)), "a name is listed once"
        return dict(found)

    # -- hints ------------------------------------------------------------------------------

    def test_hints_change_nothing(self, storage: Storage) -> None:
        """Also of names that are not there."""
        storage.put("name", b"bytes")
        for name in ("name", "snapshots/none"):
            assert storage.drop_cached(name) in (False, True)
            assert storage.disk_position(name) >= 0
        assert storage.get("name", 99) == b"bytes"

    # -- put and get ------------------------------------------------------------------------

    @_shared
    @given(data=st.binary(max_size=300))
    def test_get_gives_what_was_put(self, storage: Storage, data: bytes) -> None:
        storage.put("name", data)
        assert storage.get("name", 300) == data
        assert storage.size("name") == len(data)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_takes_every_kind_of_buffer(self, storage: Storage, kind: type) -> None:
        storage.put("a", kind(b"put"))
        assert storage.put_if_absent("b", kind(b"if absent"))
        with_spool(storage, "c", [kind(b"spo"), kind(b"oled")])
        assert [storage.get(name, 99) for name in "abc"] == [b"put", b"if absent", b"spooled"]
        assert type(storage.get("a", 99)) is bytes

    def test_keeps_megabytes(self, storage: Storage) -> None:
        data = os.urandom(3_000_001)
        storage.put("large", data)
        assert storage.get("large", 1 << 30) == data
        assert storage.size("large") == len(data)

    def test_put_replaces(self, storage: Storage) -> None:
        storage.put("name", b"first, longer")
        storage.put("name", b"second")
        assert storage.get("name", 99) == b"second"
        assert self.names(storage, "snapshots") == {}

    def test_replacing_is_atomic(self, storage: Storage) -> None:
        """A reader sees one whole version or the other, at every moment."""
        versions = [bytes([number]) * 60_000 for number in (1, 2)]
        storage.put("state", versions[0])
        done = threading.Event()
        seen: list[bytes] = []

        def read() -> None:
            while not done.is_set():
                seen.append(storage.get("state", 60_000))
                assert storage.size("state") == 60_000

        with ThreadPoolExecutor(2) as readers:
            waiting = [readers.submit(read) for _ in range(2)]
            for turn in range(60):
                storage.put("state", versions[turn % 2])
            done.set()
            for each in waiting:
                each.result()
        assert set(seen) <= set(versions)

    def test_get_refuses_more_than_the_limit(self, storage: Storage) -> None:
        storage.put("name", bytes(100))
        assert storage.get("name", 100) == bytes(100)
        with pytest.raises(Damaged):
            storage.get("name", 99)

    @_shared
    @given(offset=st.integers(0, 150), size=st.integers(0, 150))
    def test_range(self, storage: Storage, offset: int, size: int) -> None:
        data = bytes(range(100))
        storage.put_if_absent("range", data)
        assert storage.get_range("range", offset, size) == data[offset : offset + size]

    # -- names ------------------------------------------------------------------------------

    def test_names_in_folders(self, storage: Storage) -> None:
        storage.put("packs/00/one", b"1")
        storage.put("packs/00/two", b"22")
        storage.put("snapshots/three", b"333")
        storage.put("four", b"4444")
        assert self.names(storage, "packs") == {"packs/00/one": 1, "packs/00/two": 2}
        assert self.names(storage, "packs/00") == {"packs/00/one": 1, "packs/00/two": 2}
        assert self.names(storage, "snapshots") == {"snapshots/three": 3}
        assert storage.get("packs/00/two", 99) == b"22"

    def test_a_folder_lists_no_name_that_only_begins_like_it(self, storage: Storage) -> None:
        storage.put("snapshots.bak", b"")
        storage.put("snapshots/a", b"")
        assert self.names(storage, "snapshots") == {"snapshots/a": 0}

    def test_lists_two_thousand_names(self, storage: Storage) -> None:
        """More than one page of any listing."""
        expected = {}
        for number in range(2000):
            expected[f"packs/00/{number:04}"] = number % 7
            fast_put(storage, f"packs/00/{number:04}", bytes(number % 7))
        assert self.names(storage, "packs") == expected

    def test_a_listing_that_cannot_be_had_raises(self, storage: Storage) -> None:
        """Never an empty one: a sweep would take every pack for unneeded."""
        with pytest.raises(StorageError):
            list(storage.list("no such folder"))

    # -- put_if_absent ----------------------------------------------------------------------

    def test_put_if_absent(self, storage: Storage) -> None:
        assert storage.put_if_absent("name", b"first") is True
        assert storage.put_if_absent("name", b"second") is False
        assert storage.get("name", 99) == b"first"
        storage.delete("name")
        assert storage.put_if_absent("name", b"third") is True
        assert storage.get("name", 99) == b"third"

    def test_put_if_absent_has_one_winner(self, storage: Storage) -> None:
        for turn in range(10):
            start = threading.Barrier(_THREADS)

            def race(number: int, turn: int = turn, start: threading.Barrier = start) -> bool:
                start.wait()
                return storage.put_if_absent(f"packs/00/{turn}", b"%d" % number)

            with ThreadPoolExecutor(_THREADS) as pool:
                won = list(pool.map(race, range(_THREADS)))
            assert sum(won) == 1
            assert storage.get(f"packs/00/{turn}", 99) == b"%d" % won.index(True)

    # -- delete -----------------------------------------------------------------------------

    def test_move(self, storage: Storage) -> None:
        storage.put("packs/00/one", b"1")
        storage.move("packs/00/one", "aside/packs/one")
        assert self.names(storage, "packs") == {}
        assert self.names(storage, "aside/packs") == {"aside/packs/one": 1}
        assert storage.get("aside/packs/one", 9) == b"1"
        with pytest.raises(ObjectMissing):
            storage.move("packs/00/one", "aside/packs/two")

    def test_a_second_name_outlives_the_first(self, storage: Storage) -> None:
        storage.put("packs/00/one", b"old")
        storage.keep("packs/00/one", "aside/one")
        assert storage.get("packs/00/one", 9) == storage.get("aside/one", 9) == b"old"
        with_spool(storage, "packs/00/one", [b"new"])
        assert storage.get("packs/00/one", 9) == b"new"
        assert storage.get("aside/one", 9) == b"old"
        with pytest.raises(ObjectMissing):
            storage.keep("packs/00/two", "aside/two")

    def test_delete(self, storage: Storage) -> None:
        storage.put("packs/00/a", b"a")
        storage.put("packs/00/b", b"b")
        storage.delete("packs/00/a")
        assert self.names(storage, "packs") == {"packs/00/b": 1}
        with pytest.raises(ObjectMissing):
            storage.get("packs/00/a", 99)
        storage.delete("packs/00/a")  # that it is gone is no error

    # -- what is missing --------------------------------------------------------------------

    @pytest.mark.parametrize("name", ["missing", "packs/00/missing", "no folder/missing"])
    def test_missing(self, storage: Storage, name: str) -> None:
        for read in (
            lambda: storage.get(name, 99),
            lambda: storage.get_range(name, 0, 1),
            lambda: storage.size(name),
        ):
            with pytest.raises(ObjectMissing):
                read()

    # -- spools -----------------------------------------------------------------------------

    def test_spool(self, storage: Storage) -> None:
        spool = storage.spool()
        spool.write(bytes(4))
        spool.write(b"56789")
        spool.write_at(0, b"1234")
        assert spool.read_at(0, 99) == b"123456789"
        assert spool.read_at(3, 2) == b"45"
        assert spool.read_at(9, 2) == b""
        assert self.names(storage, "packs") == {}, "invisible until it is committed"
        spool.commit("packs/00/name")
        assert storage.get("packs/00/name", 99) == b"123456789"

    @_shared
    @given(
        parts=st.lists(st.binary(max_size=50), max_size=8),
        changes=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=20)), max_size=4),
    )
    def test_spool_is_a_file(
        self, storage: Storage, parts: list[bytes], changes: list[tuple[int, bytes]]
    ) -> None:
        model = bytearray(b"".join(parts))
        spool = storage.spool()
        for part in parts:
            spool.write(part)
        for offset, data in changes:
            data = data[: max(0, len(model) - offset)]
            if data:
                spool.write_at(offset, data)
                model[offset : offset + len(data)] = data
        assert spool.read_at(0, len(model) + 1) == model
        spool.commit("name")
        assert storage.get("name", 1000) == model

    def test_an_abandoned_spool_leaves_nothing(self, storage: Storage) -> None:
        spool = storage.spool()
        spool.write(b"data")
        spool.abandon()
        spool.abandon()
        assert self.names(storage, "packs") == self.names(storage, "snapshots") == {}

    def test_abandoning_after_a_commit_does_nothing(self, storage: Storage) -> None:
        spool = storage.spool()
        spool.write(b"data")
        spool.commit("name")
        spool.abandon()
        assert storage.get("name", 99) == b"data"

    def test_spools_are_independent(self, storage: Storage) -> None:
        spools = [storage.spool() for _ in range(4)]
        for turn in range(3):
            for number, spool in enumerate(spools):
                spool.write(b"%d%d " % (number, turn))
        for number, spool in enumerate(spools):
            spool.commit(f"packs/00/{number}")
        for number in range(4):
            expected = b"".join(b"%d%d " % (number, turn) for turn in range(3))
            assert storage.get(f"packs/00/{number}", 99) == expected

    def test_many_threads(self, storage: Storage) -> None:
        def work(number: int) -> None:
            data = bytes([number]) * 5000
            for turn in range(4):
                name = f"packs/00/{number}-{turn}"
                with_spool(storage, name, [data] * 3)
                assert storage.get(name, 15_000) == data * 3
                assert storage.get_range(name, 4999, 2) == data[:2]

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(work, range(_THREADS)))
        assert len(self.names(storage, "packs")) == 4 * _THREADS

    def test_has_a_url(self, storage: Storage) -> None:
        assert storage.url


def with_spool(storage: Storage, name: str, parts: list[Any]) -> None:
    spool = storage.spool()
    for part in parts:
        spool.write(part)
    spool.commit(name)


def fast_put(storage: Storage, name: str, data: bytes) -> None:
    """Put a name whose durability is not what is tested; a storage may have a quicker way."""
    getattr(storage, "put_unsynced", storage.put)(name, data)


class MemoryStorage(Storage):
    """The contract in a dict."""

    def __init__(self, *folders: str) -> None:
        self.url = "memory"
        self.files: dict[str, bytes] = {}
        self.folders = {"packs", "packs/00", "snapshots", "features", "keys", "tmp", *folders}
        self._lock = threading.Lock()

    def make_directories(self, names: list[str]) -> None:
        self.folders.update(names)

    def put(self, name: str, data: Buffer) -> None:
        self.files[name] = bytes(data)

    def put_if_absent(self, name: str, data: Buffer) -> bool:
        with self._lock:
            if name in self.files:
                return False
            self.files[name] = bytes(data)
            return True

    def get(self, name: str, limit: int) -> bytes:
        if self.size(name) > limit:
            raise Damaged(f"{name} has more than {limit} bytes")
        return self.files[name]

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        self.size(name)
        return self.files[name][offset : offset + size]

    def size(self, name: str) -> int:
        try:
            return len(self.files[name])
        except KeyError:
            raise ObjectMissing(f"{name} is missing") from None

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        if prefix not in self.folders:
            raise ObjectMissing(f"{prefix} is missing")
        for name in sorted(self.files):
            if name.startswith(prefix + "/"):
                yield name, len(self.files[name])

    def delete(self, name: str) -> None:
        self.files.pop(name, None)

    def move(self, name: str, new_name: str) -> None:
        self.keep(name, new_name)
        del self.files[name]

    def keep(self, name: str, new_name: str) -> None:
        self.size(name)
        self.folders.add(new_name.rpartition("/")[0])
        self.files[new_name] = self.files[name]

    def spool(self) -> MemorySpool:
        return MemorySpool(self)

    def close(self) -> None:
        pass


class MemorySpool(Spool):
    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage
        self._data = bytearray()

    def write(self, data: Buffer) -> None:
        self._data += data

    def write_at(self, offset: int, data: Buffer) -> None:
        self._data[offset : offset + len(data)] = data

    def read_at(self, offset: int, size: int) -> bytes:
        return bytes(self._data[offset : offset + size])

    def commit(self, name: str) -> None:
        self._storage.put(name, self._data)

    def abandon(self) -> None:
        self._data = bytearray()
