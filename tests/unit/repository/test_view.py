"""LMDB is mapped only after plain reads found it whole enough not to end the process."""

from __future__ import annotations

import os
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import pytest

from packstone.errors import StorageFull, StorageUnavailable
from packstone.repository import view
from packstone.repository.view import is_sound, open_view

NAMES = (b"one", b"two")


def fill(directory: Path, count: int = 3000) -> Path:
    """Make an environment of some pages and return its data file."""
    opened = open_view(str(directory), NAMES)
    rng = Random("fill")

    def change(transaction: Any) -> None:
        for _ in range(count):
            transaction.put(rng.randbytes(32), rng.randbytes(16), db=opened.databases[b"one"])

    opened.write(change)
    opened.close()
    return directory / "data.mdb"


def read_all(directory: Path) -> int:
    """Open what is there and read all of it; return the number of rows."""
    opened = open_view(str(directory), NAMES)
    try:
        with opened.reading(lambda transaction: None) as transaction:
            return sum(1 for _ in transaction.cursor(db=opened.databases[b"one"]))
    finally:
        opened.close()


def test_an_environment_is_sound(tmp_path: Path) -> None:
    assert is_sound(str(fill(tmp_path)))
    assert read_all(tmp_path) == 3000


def test_every_truncation_is_seen_before_it_is_mapped(tmp_path: Path) -> None:
    """Reading a mapped file behind its end is SIGBUS."""
    path = fill(tmp_path)
    whole = path.read_bytes()
    page = struct.unpack_from("<I", whole, 40)[0]
    for size in (*range(0, len(whole), page), *range(1, len(whole), 7919), len(whole) - 1):
        path.write_bytes(whole[:size])
        assert not is_sound(str(path)), size
    path.write_bytes(whole[: len(whole) // 2])
    assert read_all(tmp_path) == 0, "replaced by an empty one"


@pytest.mark.parametrize(
    "data",
    [b"", b"x", bytes(8192), os.urandom(100_000), b"SQLite format 3\0" * 600],
    ids=["empty", "a byte", "zeros", "noise", "SQLite"],
)
def test_what_is_no_environment_is_replaced(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(data)
    assert not is_sound(str(tmp_path / "data.mdb"))
    assert read_all(tmp_path) == 0


@pytest.mark.parametrize("at", [16, 20, 40])
@pytest.mark.parametrize("meta", [0, 1])
def test_other_metas_are_not_ours(tmp_path: Path, at: int, meta: int) -> None:
    """Magic, version, page size: LMDB 1.0 has other files than 0.9, in wheels of one name."""
    path = fill(tmp_path)
    data = bytearray(path.read_bytes())
    page = struct.unpack_from("<I", data, 40)[0]
    found = struct.unpack_from("<I", data, meta * page + at)[0]
    struct.pack_into("<I", data, meta * page + at, found * 2 % (1 << 32))
    path.write_bytes(data)
    assert not is_sound(str(path))
    assert read_all(tmp_path) == 0


def test_a_missing_file_is_not_sound(tmp_path: Path) -> None:
    assert not is_sound(str(tmp_path / "data.mdb"))
    assert not is_sound(str(tmp_path))


def test_one_environment_for_a_process(tmp_path: Path) -> None:
    first, second = open_view(str(tmp_path), NAMES), open_view(str(tmp_path / "."), NAMES)
    assert first is second
    first.close()
    second.write(lambda transaction: transaction.put(b"a", b"b", db=second.databases[b"one"]))
    second.close()
    third = open_view(str(tmp_path), NAMES)
    assert third is not first
    with third.reading(lambda transaction: None) as transaction:
        assert bytes(transaction.get(b"a", db=third.databases[b"one"])) == b"b"
    third.close()


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    opened = open_view(str(tmp_path), NAMES)

    def change(transaction: Any) -> None:
        transaction.put(b"a", b"b", db=opened.databases[b"one"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened.write(change)
    with opened.reading(lambda transaction: None) as transaction:
        assert transaction.get(b"a", db=opened.databases[b"one"]) is None
    assert opened.readers == 0
    opened.close()


def test_who_waits_for_readers_to_leave_is_not_kept_out_by_new_ones(tmp_path: Path) -> None:
    """Else workers that look up ids all the time would stop the one that stores."""
    opened = open_view(str(tmp_path), NAMES)
    order: list[str] = []

    def grow() -> None:
        opened.resize(1 << 27)
        order.append("grown")

    def read() -> None:
        with opened.reading(lambda transaction: None):
            order.append("read")

    with ThreadPoolExecutor(2) as pool:
        with opened.reading(lambda transaction: None):
            growing = pool.submit(grow)
            while not opened.waiting:
                time.sleep(0.001)
            reading = pool.submit(read)
            time.sleep(0.05)
            assert order == []
        growing.result(10)
        reading.result(10)
    assert order == ["grown", "read"]
    opened.close()


def test_errors_of_lmdb_are_storage_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_view(str(tmp_path), NAMES)

    def change(transaction: Any) -> None:
        raise lmdb.DiskError("Input/output error")

    with pytest.raises(StorageUnavailable) as caught:
        opened.write(change)
    assert str(tmp_path) in caught.value.message and "rebuilt" in caught.value.hint
    # LMDB says "Input/output error" for a full disk too
    monkeypatch.setattr(view.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 4096})())
    with pytest.raises(StorageFull):
        opened.write(change)
    opened.close()


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageUnavailable):
        open_view(str(tmp_path / "file" / "index"), NAMES)
