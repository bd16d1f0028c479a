"""Sessions of a sealed repository: each number once, each record opened before a pack is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from unit.repository.recording import GENERATIONS, HASHER, Recording, put_chunk, reader_of
from unit.repository.sealing import OURS, OWNER, SALT, Failing, Spy, record, stored

from packstone.codec.encryption import Sealer, padme
from packstone.errors import Damaged, StorageError
from packstone.model import MIB, Buffer, ObjectType
from packstone.repository.index import Index
from packstone.repository.layout import State, encode_state, list_ids, read_state
from packstone.repository.packs import Pack, RecordRow, read_pack
from packstone.repository.writer import ObjectWriter


@pytest.fixture
def storage() -> Recording:
    storage = Recording()
    storage.files["state"] = encode_state(State(generation=GENERATIONS[0]), OURS, SALT)
    return storage


@pytest.fixture
def begin(storage: Recording, tmp_path: Path) -> Iterator[Callable[..., ObjectWriter]]:
    rng = Random("salts")
    index = Index(str(tmp_path / "index"), OURS)

    def begin_it(sealer: Sealer = OURS, pack_size: int = MIB) -> ObjectWriter:
        return ObjectWriter(
            storage,
            index,
            HASHER,
            sealer,
            reader_of(storage, index, sealer),
            level=1,
            pack_size=pack_size,
            generation=read_state(storage, sealer).generation,
            random=rng.randbytes,
        )

    yield begin_it
    index.close()


def rows_of(storage: Recording) -> list[tuple[Pack, int, RecordRow]]:
    return [
        (pack, number, row)
        for pack_id, size in list_ids(storage, "packs")
        for pack in [read_pack(storage, pack_id, size, OURS)]
        for number, row in enumerate(pack.rows)
    ]


@pytest.mark.parametrize("threads", [1, 6])
def test_threads_give_each_number_once(
    storage: Recording, begin: Callable, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """And every record is where the footer says, whoever sealed it."""
    used: list[tuple[bytes, int]] = []
    pack_sealer = Sealer.pack

    def spying(self: Sealer, kind: int, salt: bytes) -> Any:
        numbers: Any = type("", (), {"append": lambda _, number: used.append((salt, number))})()
        return Spy(pack_sealer(self, kind, salt), numbers)

    contents = [Random(number).randbytes(20_000 + number) for number in range(200)]
    writer = begin()
    with monkeypatch.context() as patch:
        patch.setattr(Sealer, "pack", spying)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda data: put_chunk(writer, data), contents))
        writer.finish()
    assert len(used) == len(set(used)) == 200
    found = set()
    for pack, number, row in rows_of(storage):
        assert pack.size <= MIB and pack.size == padme(pack.size)
        payload = record(stored(storage, pack), row)
        found.add(bytes(OURS.pack(pack.kind, pack.salt).open(number, row.raw_size, 0, payload)))
    assert found == set(contents)


def test_sessions_keep_packs_below_their_target(storage: Recording, begin: Callable) -> None:
    """What does not fit any more begins the next one; what fits none has one of its own."""
    rng = Random("target")
    writer = begin()
    for _ in range(24):
        put_chunk(writer, rng.randbytes(rng.randrange(50_000, 400_000)))
    put_chunk(writer, rng.randbytes(3_000_000))
    writer.finish()
    found = [(size, len(read_pack(storage, pack_id, size, OURS).rows))
             for pack_id, size in list_ids(storage, "packs")]  # fmt: skip
    assert sorted(count for size, count in found if size > MIB) == [1]
    assert len(found) < 12


class FlippingSpy(Spy):
    """Memory that flips a bit in what was sealed."""

    def seal(self, number: int, *arguments: Any) -> Buffer:
        data = bytearray(super().seal(number, *arguments))
        data[len(data) // 2] ^= 1
        return bytes(data)


def test_what_does_not_open_is_not_committed(
    storage: Recording, begin: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very bytes that the pack will store are opened, decoded and hashed."""
    pack_sealer = Sealer.pack
    monkeypatch.setattr(
        Sealer, "pack", lambda self, *rest: FlippingSpy(pack_sealer(self, *rest), [])
    )
    writer = begin()
    with pytest.raises(Damaged):
        put_chunk(writer, os.urandom(20_000))
    with pytest.raises(Damaged):
        writer.finish()
    writer.abandon()
    assert not list(list_ids(storage, "packs"))


@pytest.mark.parametrize(("sealer", "at"), [(OURS, 3), (Sealer(OWNER), 4)], ids=["sealed", "plain"])
def test_a_pack_that_a_thread_has_spoilt_is_not_finished_by_another(
    storage: Recording, begin: Callable, sealer: Sealer, at: int
) -> None:
    """What later sessions find in the index is there: they do not store it again."""
    storage.files["state"] = encode_state(State(generation=GENERATIONS[0]), sealer, SALT)
    writer = begin(sealer, 3 * MIB)
    contents = [Random(number).randbytes(700_000) for number in range(6)]

    full: list[bool] = []
    storage.spool = lambda: Failing(storage, full)  # type: ignore[assignment, method-assign]
    errors = []
    for number, data in enumerate(contents):
        full += [True] * (number == at)
        try:
            put_chunk(writer, data)
        except StorageError as error:
            errors.append(error)
    assert errors
    writer.abandon()
    for pack_id, size in list_ids(storage, "packs"):
        pack = read_pack(storage, pack_id, size, sealer)
        for number, row in enumerate(pack.rows):
            payload = record(stored(storage, pack), row)
            opened = sealer.pack(pack.kind, pack.salt).open(number, row.raw_size, 0, payload)
            assert HASHER.id(ObjectType.CHUNK, opened) == row.objects[:32]
