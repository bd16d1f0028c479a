"""A reader of a sealed repository gives what was put in this place, or nothing."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import pytest

from packstone.codec.keys import Argon2
from packstone.errors import Damaged, ObjectMissing
from packstone.model import KIB, ObjectType
from packstone.repository.index import Place
from packstone.repository.layout import pack_name
from packstone.repository.places import PACK, ROW
from packstone.repository.repository import ObjectRepository, init

CHUNK = ObjectType.CHUNK
Stored = dict[bytes, bytes]


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new encrypted repository of small packs."""
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path / "cache"))
    path = str(tmp_path / "store")
    cost = Argon2(time=1, memory=8 * KIB, lanes=1)
    init(path, average=4096, pack_size=1 << 20, level=3, passphrase="p", cost=cost)
    return path


@pytest.fixture
def repository(location: str) -> Iterator[ObjectRepository]:
    opened = ObjectRepository(location, passphrase="p")
    yield opened
    opened.close()


def store(repository: ObjectRepository, contents: list[bytes], again: bool = False) -> Stored:
    """Store chunks in a pack of their own, also those that are there if they are to be `again`."""
    writer = repository.writer()
    stored: Stored = {}
    for data in contents:
        chunk_id = repository.hasher.id(CHUNK, data)
        assert again or writer.reserve([chunk_id]) == [True]
        writer.put_chunk(chunk_id, data, (1, 2))
        stored[chunk_id] = data
    writer.finish()
    return stored


def large(count: int, seed: int = 0) -> list[bytes]:
    """Make chunks that are records of their own, all stored in as many bytes."""
    rng = Random(seed)
    return [rng.randbytes(20_000) for _ in range(count)]


def read_place(location: str, place: Place) -> bytes:
    with open(os.path.join(location, pack_name(place.pack_id)), "rb") as file:
        file.seek(place.offset)
        return file.read(place.stored_size)


def write_place(location: str, place: Place, data: bytes) -> None:
    assert len(data) == place.stored_size
    with open(os.path.join(location, pack_name(place.pack_id)), "r+b") as file:
        file.seek(place.offset)
        file.write(data)


def test_gives_what_was_stored(repository: ObjectRepository, location: str) -> None:
    rng = Random(1)
    small = [rng.randbytes(rng.randrange(1, 3000)) for _ in range(40)]
    stored = store(repository, [*large(30), *small]) | store(repository, large(3, 2))
    for opened in (repository, ObjectRepository(location, passphrase="p")):
        for chunk_id, data in stored.items():
            assert opened.reader.get(CHUNK, chunk_id) == data
        assert opened.warnings == []
    opened.close()
    for path in Path(location).rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            for chunk_id, data in stored.items():
                assert chunk_id not in raw and data[:12] not in raw, path


def test_a_deleted_index_loses_nothing(repository: ObjectRepository, location: str) -> None:
    """What opens the records is in the footers."""
    stored = store(repository, large(3)) | store(repository, large(3, 1))
    repository.close()
    shutil.rmtree(os.environ["PACKSTONE_CACHE_DIR"])
    again = ObjectRepository(location, passphrase="p")
    for chunk_id, data in stored.items():
        assert again.reader.get(CHUNK, chunk_id) == data
    again.close()


def exchange(location: str, one: Place, two: Place) -> None:
    first, second = read_place(location, one), read_place(location, two)
    write_place(location, one, second)
    write_place(location, two, first)


@pytest.mark.parametrize("packs", ["one pack", "two packs"])
def test_records_exchanged_do_not_open(
    repository: ObjectRepository, location: str, packs: str
) -> None:
    stored = store(repository, large(4)) | store(repository, large(4, 1))
    ids = list(stored)
    one, two = ids[1], ids[2] if packs == "one pack" else ids[5]
    places = [repository.index.find(each)[0] for each in (one, two)]
    assert (places[0].pack_id == places[1].pack_id) == (packs == "one pack")
    assert (places[0].record == places[1].record) == (packs == "two packs"), "but for the pack"
    exchange(location, *places)
    for chunk_id, data in stored.items():
        if chunk_id in (one, two):
            with pytest.raises(Damaged, match="sealed bytes") as caught:
                repository.reader.get(CHUNK, chunk_id)
            assert caught.value.record == repository.index.find(chunk_id)[0].record
        else:
            assert repository.reader.get(CHUNK, chunk_id) == data


def test_a_copy_of_the_same_chunk_is_of_its_own_place_alone(
    repository: ObjectRepository, location: str
) -> None:
    """The hash of the content would agree; it is the place that is wrong."""
    data = large(1)
    store(repository, data)
    (chunk_id,) = store(repository, data, again=True)
    one, two = repository.index.find(chunk_id)
    assert (one.record, one.stored_size) == (two.record, two.stored_size)
    exchange(location, one, two)
    with pytest.raises(Damaged, match="sealed bytes"):
        repository.reader.get(CHUNK, chunk_id)


def test_another_place_is_as_good(repository: ObjectRepository, location: str) -> None:
    stored = store(repository, large(5))
    store(repository, list(stored.values()), again=True)
    for number, (chunk_id, data) in enumerate(stored.items()):
        place = repository.index.find(chunk_id)[number % 2]
        write_place(location, place, bytes(place.stored_size))
        assert repository.reader.get(CHUNK, chunk_id) == data


def test_a_pack_that_is_gone(repository: ObjectRepository, location: str) -> None:
    stored = store(repository, large(2)) | store(repository, large(2, 1))
    for chunk_id in stored:
        place = repository.index.find(chunk_id)[0]
        if place.record:
            assert repository.reader.get(CHUNK, chunk_id) == stored[chunk_id]
        else:
            os.rename(os.path.join(location, pack_name(place.pack_id)), f"{location}/moved")
            with pytest.raises(ObjectMissing):
                repository.reader.get(CHUNK, chunk_id)
            os.rename(f"{location}/moved", os.path.join(location, pack_name(place.pack_id)))


# -- a wrong index --------------------------------------------------------------------------

Change = Callable[[bytearray], None]


def change_packs(
    location: str, repository_id: bytes, change: Change, database: bytes = b"numbers"
) -> None:
    """Change what the index of a closed repository says of every pack, or of its records."""
    (directory,) = glob(f"{os.environ['PACKSTONE_CACHE_DIR']}/{repository_id.hex()}*")
    environment = lmdb.open(directory, max_dbs=9, map_size=64 << 20)
    packs = environment.open_db(database)
    with environment.begin(write=True) as transaction:
        rows = [(bytes(key), bytearray(value)) for key, value in transaction.cursor(db=packs)]
        for key, value in rows:
            change(value)
            transaction.put(key, bytes(value), db=packs)
    environment.close()


def wrong_salt(value: bytearray) -> None:
    value[PACK.size - 1] ^= 1


def wrong_kind(value: bytearray) -> None:
    value[12] = 3 - value[12]


def wrong_raw_size(value: bytearray) -> None:
    for at in range(0, len(value), ROW.size):
        size = struct.unpack_from("<I", value, at + 12)[0]
        struct.pack_into("<I", value, at + 12, size + 1)


@pytest.mark.parametrize(
    "change",
    [
        wrong_salt,
        wrong_kind,
        wrong_raw_size,
    ],
    ids=lambda change: change.__name__,
)
def test_a_wrong_index_costs_a_rebuild_and_nothing_else(
    repository: ObjectRepository, location: str, change: Any
) -> None:
    stored = store(repository, large(5))
    repository.close()
    database = b"packs" if change is wrong_raw_size else b"numbers"
    change_packs(location, repository.repository_id, change, database)
    again = ObjectRepository(location, passphrase="p")
    try:
        for chunk_id, data in stored.items():
            assert again.reader.get(CHUNK, chunk_id) == data
    finally:
        again.close()
    assert len(again.warnings) <= 1 and all("index" in text for text in again.warnings)


def test_storage_does_not_choose_where_the_index_goes(
    repository: ObjectRepository, location: str
) -> None:
    """It tells ids and sizes of all chunks, which the storage is promised not to learn."""
    store(repository, large(3))
    repository.close()
    os.makedirs(f"{location}/inviting")
    os.makedirs(f"{location}/index", exist_ok=True)
    Path(location, "index/location").write_text(f"{location}/inviting\n")
    again = ObjectRepository(location, passphrase="p")
    assert len(again.index.packs) == 1
    again.close()
    assert list(Path(location, "inviting").rglob("*")) == []
