"""What a writer stores: every object once, in records that were decoded before a pack is named."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.repository.recording import (
    CHUNK,
    HASHER,
    OURS,
    Recording,
    RecordingIndex,
    put_chunk,
    put_some,
    reader_of,
    snapshots,
)

from packstone.codec.compression import Compressor
from packstone.errors import Damaged, PackstoneError, StorageFull
from packstone.model import Buffer, ObjectType
from packstone.repository import writer as writer_module
from packstone.repository.index import Index
from packstone.repository.layout import list_ids, read_state
from packstone.repository.packs import read_pack
from packstone.repository.snapshots import list_snapshots
from packstone.repository.writer import ObjectWriter


@pytest.fixture
def storage() -> Recording:
    return Recording()


@pytest.fixture
def index(storage: Recording, tmp_path: Path) -> Iterator[RecordingIndex]:
    index = RecordingIndex(str(tmp_path / "index"), OURS)
    index.recording = storage
    yield index
    index.close()


@pytest.fixture
def begin(storage: Recording, index: Index) -> Callable[..., ObjectWriter]:
    rng = Random("salts")

    def begin_it(**options: Any) -> ObjectWriter:
        options = {"level": 3, "pack_size": 1 << 20, "random": rng.randbytes} | options
        options.setdefault("generation", read_state(storage, OURS).generation)
        return ObjectWriter(storage, index, HASHER, OURS, reader_of(storage, index), **options)

    return begin_it


# -- encode, decode, compare ----------------------------------------------------------------


class Flipping(Compressor):
    """Memory that flips one bit of what was encoded."""

    def __init__(self, at: int) -> None:
        super().__init__(3)
        self.at = at

    def encode(self, raw: Buffer) -> tuple[int, Buffer]:
        codec, payload = super().encode(raw)
        changed = bytearray(payload)
        changed[self.at // 8 % len(changed)] ^= 1 << self.at % 8
        return codec, bytes(changed)


@pytest.mark.parametrize("kind", ["stored", "zstd", "run"])
def test_a_flipped_bit_in_the_encoded_record_is_seen(
    storage: Recording, begin: Callable, kind: str
) -> None:
    """B4 of reliability.md: every bit of a record, or 3,000 of them."""
    rng = Random(kind)
    data = {
        "stored": rng.randbytes(17_000),
        "zstd": b"".join(
            b"row %d %s\n" % (n, rng.randbytes(4).hex().encode()) for n in range(2000)
        ),
        "run": rng.randbytes(40) * 2,
    }[kind]
    harmless = caught = 0
    codec, payload = Compressor(3).encode(data)
    assert codec == (kind != "stored")
    bits = range(8 * len(payload))
    for at in bits if len(bits) < 3000 else rng.sample(bits, 3000):
        writer = begin()
        writer._codec = Flipping(at)
        try:
            put_chunk(writer, data)
            if kind == "run":
                for run_kind, run in writer._runs.items():
                    if run:
                        writer._store_run(run_kind, run)
        except Damaged as error:
            assert "memory" in error.hint or "zstd" in error.message
            caught += 1
        else:
            harmless += 1  # a bit that zstd ignores: what is read is what was meant
            assert bytes(Flipping(at).decode(*Flipping(at).encode(data), len(data))) == data
        writer.abandon()
    assert snapshots(storage) == [] and not list(list_ids(storage, "packs"))
    assert caught > 100 * max(1, harmless)


def test_what_was_damaged_is_not_taken_for_stored(storage: Recording, begin: Callable) -> None:
    writer = begin()
    writer._codec = Flipping(4000)
    with pytest.raises(Damaged):
        put_chunk(writer, Random(1).randbytes(20_000))
    writer.abandon()
    again = begin()
    chunk_id = put_chunk(again, Random(1).randbytes(20_000))
    again.finish()
    assert again.chunks_new == 1 and again._index.present([chunk_id]) == [True]


# -- deduplication and records --------------------------------------------------------------


def objects_in(storage: Recording) -> list[tuple[bytes, int]]:
    found = []
    for pack_id, size in list_ids(storage, "packs"):
        for row in read_pack(storage, pack_id, size, OURS).rows:
            found += [(each, kind) for each, _, kind in row.object_rows()]
    return found


@settings(
    max_examples=settings.default.max_examples // 4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(numbers=st.lists(st.integers(0, 30), max_size=60), threads=st.sampled_from([1, 6]))
def test_each_object_is_stored_once(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], threads: int
) -> None:
    storage = Recording()
    index = Index(str(tmp_path_factory.mktemp("index")), OURS)
    contents = [Random(number).randbytes(18_000 if number % 5 == 0 else number + 1)
                for number in range(31)]  # fmt: skip
    for _session in range(2):  # the second finds all of it there
        writer = ObjectWriter(
            storage,
            index,
            HASHER,
            OURS,
            reader_of(storage, index),
            level=1,
            pack_size=1 << 20,
            generation=read_state(storage, OURS).generation,
            random=Random(5).randbytes,
        )
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda number, w=writer: put_chunk(w, contents[number]), numbers))
        writer.finish()
        assert writer._known == set(), "ids that the view holds need no memory"
    found = objects_in(storage)
    expected = {(HASHER.id(CHUNK, contents[number]), 1) for number in numbers}
    assert sorted(found) == sorted(expected)
    assert index.present([each for each, _ in expected]) == [True] * len(expected)
    index.close()


def test_reserving_gives_an_id_out_once(begin: Callable) -> None:
    writer = begin()
    one, other = HASHER.id(CHUNK, b"1"), HASHER.id(CHUNK, b"2")
    assert writer.reserve([one, one, other]) == [True, False, True]
    assert writer.reserve([other, one]) == [False, False]
    assert writer.reserve([]) == []


def test_threads_reserve_each_id_once(begin: Callable) -> None:
    writer = begin()
    ids = [HASHER.id(CHUNK, b"%d" % number) for number in range(3000)]
    start = threading.Barrier(6)

    def reserve(seed: int) -> int:
        mine = Random(seed).sample(ids, len(ids))
        start.wait()
        return sum(sum(writer.reserve(mine[at : at + 7])) for at in range(0, len(mine), 7))

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(reserve, range(6))) == len(ids)


def test_small_objects_share_records(storage: Recording, begin: Callable) -> None:
    writer = begin()
    sizes = [100, 16_383, 16_384, 200_000, 5000]
    for seed, size in enumerate(sizes):
        put_chunk(writer, Random(seed).randbytes(size))
    for number in range(100):
        put_chunk(writer, Random(f"small {number}").randbytes(4000))
    writer.finish()
    rows = [
        row
        for pack_id, size in list_ids(storage, "packs")
        for row in read_pack(storage, pack_id, size, OURS).rows
    ]
    for row in rows:
        objects = list(row.object_rows())
        large = [size for _, size, _ in objects if size >= 16_384]
        assert large == [] or len(objects) == 1
        assert bool(row.keys) == bool(large)
        assert len(objects) == 1 or row.raw_size < writer_module.RUN_SIZE + 16_384
    assert len(rows) < 10


def test_kinds_of_objects_have_packs_of_their_own(storage: Recording, begin: Callable) -> None:
    writer = begin()
    writer.commit(put_some(writer))
    kinds = {
        frozenset(
            kind
            for row in read_pack(storage, pack_id, size, OURS).rows
            for _, _, kind in row.object_rows()
        )
        for pack_id, size in list_ids(storage, "packs")
    }
    assert kinds == {frozenset({1}), frozenset({2})}


def test_packs_are_closed_at_their_size(storage: Recording, begin: Callable) -> None:
    writer = begin(pack_size=1 << 20)
    for number in range(40):
        put_chunk(writer, Random(number).randbytes(100_000))
    writer.finish()
    sizes = sorted(size for _, size in list_ids(storage, "packs"))
    assert len(sizes) == 4
    assert all(1 << 20 <= size < (1 << 20) + 110_000 for size in sizes[1:])


def test_what_is_known_of_the_parent_is_not_looked_up(
    storage: Recording, begin: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = begin()
    page_id = writer.put(ObjectType.TREE, b"a page")
    writer.finish()
    again = begin()
    again.present = {page_id}
    monkeypatch.setattr(again, "reserve", lambda ids: pytest.fail("looked up"))
    assert again.put(ObjectType.TREE, b"a page") == page_id


def test_a_dry_run_writes_nothing(storage: Recording, begin: Callable) -> None:
    writer = begin(dry_run=True)
    put_some(writer)
    writer.finish()
    assert [step for step in storage.steps if step != "get state"] == []
    assert writer.bytes_added > 900_000 and writer.bytes_stored > 900_000
    assert writer.chunks_new == 12


def test_counts(storage: Recording, begin: Callable) -> None:
    writer = begin()
    put_some(writer)
    writer.finish()
    assert writer.chunks_new == 12
    assert writer.bytes_stored == sum(size for _, size in list_ids(storage, "packs"))
    again = begin()
    put_some(again)
    again.finish()
    assert (again.chunks_new, again.bytes_added, again.bytes_stored) == (0, 0, 0)


def test_equal_snapshots_have_names_of_their_own(storage: Recording, begin: Callable) -> None:
    ids = set()
    for _ in range(3):
        writer = begin()
        ids.add(writer.commit(put_some(writer)))
    assert len(ids) == 3 and len(list_snapshots(storage, OURS)[0]) == 3


def test_errors_of_the_storage_pass_through(storage: Recording, begin: Callable) -> None:
    """borg lost data when a full repository looked like an unreadable file (5aaa2ddc4)."""
    writer = begin()

    def fail() -> None:
        raise StorageFull("no room left")

    storage.at["spool"] = fail
    with pytest.raises(StorageFull) as caught:
        put_chunk(writer, Random(1).randbytes(20_000))
        writer.finish()
    assert isinstance(caught.value, PackstoneError) and caught.value.exit_code == 13
