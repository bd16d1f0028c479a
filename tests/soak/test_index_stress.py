"""The index under several processes: rows L1 (a map that grows) and L3 (readers that were killed).

Every round in new processes, as commands are; the short forms run every day.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import pytest
from campaign import Caught, campaign, control, trials
from unit.repository.making import OURS, make_pack, object_id

from packstone.repository import view
from packstone.repository.index import Index
from packstone.repository.view import View, open_view
from packstone.storage.local import LocalStorage

ROUNDS = trials(3, 200)
KILLED = trials(2, 20)
WRITES = 10_000

_PREPARED = """
import sys
sys.path[:0] = {paths!r}
from packstone.codec.encryption import Sealer
from packstone.repository import view
view._FIRST_MAP = 64 * 1024
from packstone.repository.index import Index
from packstone.storage.local import LocalStorage
"""
WRITER = (
    _PREPARED
    + """
from unit.repository.making import make_pack, object_id
storage = LocalStorage({store!r})
index = Index({directory!r}, Sealer({owner!r}))
for number in range({first}, {first} + 6):
    ids = list(range(number * 400, number * 400 + 400))
    index.add(make_pack(storage, [ids], number))
    index.flush()
    assert all(index.present([object_id(each) for each in ids]))
index.close()
"""
)
READER = (
    _PREPARED
    + """
index = Index({directory!r}, Sealer({owner!r}))
with index._reading():
    print("reading", flush=True)
    sys.stdin.read()
"""
)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory in memory: ten thousand commits would wait for a disk."""
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="packstone-", dir=shared) as path:
        yield Path(path)


@pytest.fixture
def store(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(str(tmp_path / "store"))
    storage.make_directories(["tmp", "packs", *(f"packs/{first:02x}" for first in range(256))])
    return storage


def start(code: str, store: LocalStorage, directory: Path, first: int = 0) -> subprocess.Popen[str]:
    text = code.format(
        paths=sys.path, store=store.path, directory=str(directory), owner=OURS.repository_id,
        first=first,
    )  # fmt: skip
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", text], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def grow(store: LocalStorage, directory: Path) -> None:
    """Let two processes fill one index that begins with a map of 64 KiB."""
    writers = [start(WRITER, store, directory, first) for first in (0, 6)]
    for writer in writers:
        _, said = writer.communicate(timeout=120)
        if writer.returncode:
            raise Caught(said)
    index = Index(str(directory), OURS)
    try:
        assert index.refresh(store) == []
        lost = index.present([object_id(each) for each in range(12 * 400)]).count(False)
        assert lost == 0, f"{lost} entries are lost"
    finally:
        index.close()


def test_a_map_that_two_processes_grow(store: LocalStorage, tmp_path: Path) -> None:
    with campaign("L1", "index, two processes, map of 64 KiB") as row:
        for number in range(ROUNDS):
            grow(store, tmp_path / f"index {number}")
            row.trials += 1


def test_a_map_that_never_grows_would_be_noticed(store: LocalStorage, tmp_path: Path) -> None:
    with control("L1", "no resize of the map") as row:
        row.trials += 0
        broken = "view.View.resize = lambda self, size: (_ for _ in ()).throw(SystemExit(9))\n"
        process = start(_PREPARED + broken + WRITER.removeprefix(_PREPARED), store, tmp_path / "i")
        process.communicate(timeout=120)
        if process.returncode:
            raise Caught


def kill_readers(store: LocalStorage, directory: Path, count: int) -> None:
    """Leave readers behind that hold a transaction and are no more."""
    readers = [start(READER, store, directory) for _ in range(count)]
    for reader in readers:
        assert reader.stdout is not None and reader.stdout.readline() == "reading\n"
    for reader in readers:
        reader.send_signal(signal.SIGKILL)
        reader.communicate(timeout=60)


def write_much(directory: Path, first: int) -> int:
    """Change an index 10,000 times over; return its size in bytes afterwards."""
    opened = open_view(str(directory), (b"meta", b"objects"))
    chance = Random(first)
    keys = [chance.randbytes(32) for _ in range(64)]
    try:
        for _ in range(WRITES // 50):
            for _ in range(50):
                opened.write(
                    lambda transaction: transaction.put(
                        chance.choice(keys), chance.randbytes(12), db=opened.databases[b"objects"]
                    )
                )
        return opened.size()
    finally:
        opened.close()


@pytest.mark.parametrize("when", ["before", "while it is open"])
def test_killed_readers_make_no_file_grow(
    store: LocalStorage, tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_FIRST_MAP", 1 << 20)
    directory = tmp_path / "index"
    index = Index(str(directory), OURS)
    index.add(make_pack(store, [[1, 2, 3]], 0))
    index.flush()
    index.close()
    with campaign("L3", f"index, a reader killed {when}, 10,000 writes") as row:
        for number in range(KILLED):
            if when == "before":
                kill_readers(store, directory, 1)
                size = write_much(directory, number)
            else:
                held = Index(str(directory), OURS)
                kill_readers(store, directory, 1)
                size = write_much(directory, number)
                held.close()
            assert size < 4 << 20, f"the index has grown to {size} bytes"
            row.trials += 1


def test_readers_that_are_never_cleared_would_be_noticed(
    store: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_FIRST_MAP", 1 << 20)

    def write(self: View, change: Callable[[Any], Any]) -> Any:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    return change(transaction)
            except lmdb.MapFullError:
                self.resize(2 * self._environment.info()["map_size"])

    directory = tmp_path / "index"
    held = Index(str(directory), OURS)
    held.add(make_pack(store, [[1, 2, 3]], 0))
    held.flush()
    with control("L3", "no reader_check when the map is full") as row:
        kill_readers(store, directory, 1)
        monkeypatch.setattr(View, "write", write)
        try:
            row.trials += 0
            if write_much(directory, 0) > 4 << 20:
                raise Caught
        finally:
            held.close()
