"""A directory as storage: the contract, and the order of fsync and rename under it.

Measured before this was written: without the fsync of the file, or of the directory, a power
cut loses acknowledged data (reliability.md); killing the process shows nothing of it.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contract.storage_suite import MemoryStorage, StorageSuite, with_spool

from packstone.errors import Damaged, ObjectMissing, StorageError, StorageFull, StorageUnavailable
from packstone.storage.base import Storage, local_path
from packstone.storage.local import LocalStorage

FOLDERS = ["tmp", "snapshots", "packs", "packs/00"]


class Local(LocalStorage):
    """As it is, with the quick way that the suite uses for thousands of names."""

    def put_unsynced(self, name: str, data: bytes) -> None:
        Path(self.full_path(name)).write_bytes(data)


@pytest.fixture
def storage(tmp_path: Path) -> Local:
    storage = Local(str(tmp_path / "store"))
    storage.make_directories(FOLDERS)
    return storage


def left_over(storage: LocalStorage) -> list[str]:
    return os.listdir(storage.full_path("tmp"))


class TestLocal(StorageSuite):
    @pytest.fixture(autouse=True)
    def nothing_is_left_in_tmp(self, storage: Local) -> Iterator[None]:
        yield
        # a spool that nobody ended is the test's, not the storage's
        assert len(left_over(storage)) == 0


class TestMemory(StorageSuite):
    """The model that other tests use keeps the same contract."""

    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


# -- order ----------------------------------------------------------------------------------


class Calls:
    """Records what a storage asks of the kernel: (call, path or paths)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: str) -> None:
        self.seen: list[tuple[str, ...]] = []
        self._root = root
        for name in ("fsync", "fdatasync", "write", "pwrite", "close"):
            self._wrap(monkeypatch, name, self._by_descriptor)
        for name in ("rename", "replace", "link", "unlink"):
            self._wrap(monkeypatch, name, self._by_path)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, name: str, path_of: Callable) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **more: Any) -> Any:
            row = (name, *path_of(arguments))
            result = real(*arguments, **more)
            self.seen.append(row)
            return result

        monkeypatch.setattr(os, name, call)

    def _by_descriptor(self, arguments: tuple[Any, ...]) -> list[str]:
        return [self._short(os.readlink(f"/proc/self/fd/{arguments[0]}"))]

    def _by_path(self, arguments: tuple[Any, ...]) -> list[str]:
        return [self._short(path) for path in arguments[:2]]

    def _short(self, path: str) -> str:
        return os.path.relpath(path, self._root)

    def at(self, call: str, *paths: str) -> list[int]:
        return [number for number, row in enumerate(self.seen) if row == (call, *paths)]

    def assert_durable(self, name: str) -> None:
        """The bytes are synced before the name exists, the name before the call returns."""
        (named,) = [n for n, row in enumerate(self.seen) if row[0] in ("rename", "link")
                    and row[-1] == name]  # fmt: skip
        temp = self.seen[named][1]
        # put_if_absent gives the file two names in tmp/ first
        chain = {temp} | {row[1] for row in self.seen if row[0] == "rename" and row[-1] == temp}
        synced = [n for path in chain for n in self.at("fsync", path)]
        writes = [n for n, row in enumerate(self.seen) if row[0] in ("write", "pwrite")
                  and row[1] in chain]  # fmt: skip
        assert writes and synced and max(writes) < max(synced) < named, self.seen
        after = self.at("fsync", os.path.dirname(name) or ".")
        assert after and max(after) > named, self.seen


@pytest.fixture
def calls(storage: Local, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch, storage.path)


@pytest.mark.parametrize("name", ["state", "packs/00/name", "snapshots/name"])
def test_put_syncs_the_file_then_the_directory(storage: Local, calls: Calls, name: str) -> None:
    storage.put(name, b"data")
    calls.assert_durable(name)


def test_put_if_absent_does(storage: Local, calls: Calls) -> None:
    storage.put_if_absent("packs/00/name", b"data")
    calls.assert_durable("packs/00/name")


def test_spool_does(storage: Local, calls: Calls) -> None:
    spool = storage.spool()
    spool.write(bytes(100_000))
    spool.write_at(0, b"header")
    assert not calls.at("rename")
    spool.commit("packs/00/name")
    calls.assert_durable("packs/00/name")


def test_delete_syncs_the_directory(storage: Local, calls: Calls) -> None:
    storage.put("packs/00/name", b"data")
    calls.seen.clear()
    storage.delete("packs/00/name")
    (gone,) = calls.at("unlink", "packs/00/name")
    (synced,) = calls.at("fsync", "packs/00")
    assert gone < synced


def test_directories_are_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(str(tmp_path / "new"))
    calls = Calls(monkeypatch, storage.path)
    storage.make_directories(FOLDERS)
    for holder in ("..", ".", "packs"):
        assert calls.at("fsync", holder), holder


def test_new_ancestors_are_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`init /mnt/disk/new/store` must not lose `new` with everything acknowledged below it."""
    storage = LocalStorage(str(tmp_path / "new" / "store"))
    calls = Calls(monkeypatch, storage.path)
    storage.make_directories(FOLDERS)
    assert calls.at("fsync", "../..")


def test_a_failed_fsync_is_never_tried_again(
    storage: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may have dropped the pages: a second fsync that succeeds means nothing."""
    asked: list[int] = []

    def fail(fd: int) -> None:
        asked.append(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageUnavailable):
        storage.put("state", b"data")
    assert len(asked) == 1
    assert not os.path.exists(storage.full_path("state"))
    assert left_over(storage) == []


def test_nothing_is_mapped(storage: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapped file on a failing disk ends the process; so no module of storages maps one."""
    folder = Path(sys.modules["packstone.storage.local"].__file__).parent
    assert all("mmap" not in path.read_text() for path in folder.glob("*.py"))


# -- what the kernel may do -----------------------------------------------------------------


@pytest.mark.parametrize("at_most", [1, 7, 4096])
def test_short_writes(storage: Local, monkeypatch: pytest.MonkeyPatch, at_most: int) -> None:
    data = os.urandom(3000 if at_most < 100 else 50_000)
    write, pwrite = os.write, os.pwrite
    monkeypatch.setattr(os, "write", lambda fd, view: write(fd, view[:at_most]))
    monkeypatch.setattr(os, "pwrite", lambda fd, view, at: pwrite(fd, view[:at_most], at))
    storage.put("put", data)
    storage.put_if_absent("absent", data)
    spool = storage.spool()
    spool.write(bytes(len(data)))
    spool.write_at(0, data)
    spool.commit("spool")
    monkeypatch.undo()
    for name in ("put", "absent", "spool"):
        assert storage.get(name, len(data)) == data


@pytest.mark.parametrize("at_most", [1, 7, 4096])
def test_short_reads(storage: Local, monkeypatch: pytest.MonkeyPatch, at_most: int) -> None:
    data = os.urandom(3000 if at_most < 100 else 50_000)
    storage.put("name", data)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, at_most), at))
    assert storage.get("name", len(data)) == data
    assert storage.get_range("name", 10, 2000) == data[10:2010]
    assert storage.get_range("name", 100, len(data)) == data[100:]
    spool = storage.spool()
    spool.write(data)
    assert spool.read_at(0, len(data) + 5) == data
    spool.abandon()


def test_signals_interrupt_nothing(storage: Local) -> None:
    """Every call may end in EINTR; a handler that returns lets it go on."""
    data = os.urandom(4 << 20)
    count = 0

    def handler(number: int, frame: Any) -> None:
        nonlocal count
        count += 1

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        for turn in range(3):
            with_spool(storage, f"packs/00/{turn}", [data, data])
            assert storage.get(f"packs/00/{turn}", 8 << 20) == data * 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert count > 10


FAULTS = [
    (errno.ENOSPC, StorageFull),
    (errno.EDQUOT, StorageFull),
    (errno.EFBIG, StorageFull),
    (errno.EIO, StorageUnavailable),
    (errno.EROFS, StorageUnavailable),
    (errno.EACCES, StorageUnavailable),
    (errno.ENOENT, ObjectMissing),
]


@pytest.mark.parametrize(
    ("number", "expected"), FAULTS, ids=lambda each: getattr(each, "__name__", each)
)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename", "close"])
def test_faults_of_writing(
    storage: Local,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    expected: type[StorageError],
) -> None:
    """Whatever call fails: the right error, no name, nothing left over."""
    real = getattr(os, call)

    def fail(*arguments: Any, **more: Any) -> Any:
        if call == "close":
            real(*arguments)
        raise OSError(number, os.strerror(number))

    for write in (
        lambda: storage.put("name", b"data"),
        lambda: storage.put_if_absent("name", b"data"),
        lambda: with_spool_abandoned(storage),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(StorageError) as caught:
                write()
        assert type(caught.value) is expected
        assert caught.value.message and not os.path.exists(storage.full_path("name"))
    if call != "close":  # what close failed for is still in the kernel's hands
        assert left_over(storage) == []


def with_spool_abandoned(storage: Local) -> None:
    """Use a spool as PackWriter does: who fails abandons."""
    spool = storage.spool()
    try:
        spool.write(b"data")
        spool.commit("name")
    except StorageError:
        spool.abandon()
        raise


@pytest.mark.parametrize("call", ["open", "pread", "stat", "scandir"])
def test_faults_of_reading(storage: Local, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    storage.put("packs/00/name", b"data")

    def fail(*arguments: Any, **more: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    reads = {
        "open": lambda: storage.get_range("packs/00/name", 0, 4),
        "pread": lambda: storage.get("packs/00/name", 4),
        "stat": lambda: storage.size("packs/00/name"),
        "scandir": lambda: list(storage.list("packs")),
    }
    monkeypatch.setattr(os, call, fail)
    # a bad sector is one place's damage and other places may be whole; the rest is the disk's
    with pytest.raises(Damaged if call in ("open", "pread") else StorageUnavailable):
        reads[call]()


def test_a_listing_that_fails_midway_raises(
    storage: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """restic took such a listing for complete once; here nothing of it is believed."""
    for name in ("a", "b", "c"):
        storage.put(f"packs/00/{name}", b"")
    real = os.scandir

    class Failing:
        def __init__(self, path: str) -> None:
            self.rows = real(path)
            self.left = 2

        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *error: Any) -> None:
            self.rows.close()

        def __iter__(self) -> Failing:
            return self

        def __next__(self) -> Any:
            if self.left == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self.left -= 1
            return next(self.rows)

    monkeypatch.setattr(os, "scandir", Failing)
    with pytest.raises(StorageUnavailable):
        list(storage.list("packs/00"))


def test_what_is_deleted_meanwhile_is_in_no_listing(
    storage: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {f"snapshots/{letter}" for letter in "abcdef"}
    for name in names:
        storage.put(name, b"")
    listing = storage.list("snapshots")
    first, _size = next(listing)
    gone = sorted(names - {first})[:3]
    for name in gone:
        storage.delete(name)
    assert {first, *(name for name, _size in listing)} == names - set(gone)

    listing = storage.list("snapshots")
    first, _size = next(listing)
    (lost, *_others) = sorted(names - set(gone) - {first})
    storage.delete(lost)
    monkeypatch.setattr(os, "listdir", lambda path: [lost.rpartition("/")[2]])
    with pytest.raises(ObjectMissing):
        list(listing)


def test_a_full_disk(storage: Local) -> None:
    """A limit on file size is what a full disk looks like to one process."""
    code = (
        "import sys, resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "from packstone.storage.local import LocalStorage\n"
        "from packstone.errors import StorageFull\n"
        f"storage = LocalStorage({storage.path!r})\n"
        "storage.put('small', bytes(40_000))\n"
        "try:\n"
        "    storage.put('large', bytes(60_000))\n"
        "except StorageFull as error:\n"
        "    print(error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "tmp/" in done.stdout, done.stderr
    assert storage.size("small") == 40_000
    assert not os.path.exists(storage.full_path("large"))
    assert left_over(storage) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE) != (50_000, 50_000)


# -- what else may stand in the directory ---------------------------------------------------


def test_a_listing_holds_plain_files_only(storage: Local, tmp_path: Path) -> None:
    storage.put("packs/00/name", b"data")
    (tmp_path / "elsewhere").write_bytes(b"not ours")
    os.symlink(tmp_path / "elsewhere", storage.full_path("packs/00/link"))
    os.symlink(tmp_path, storage.full_path("packs/linked"))
    os.mkfifo(storage.full_path("packs/00/fifo"))
    assert dict(storage.list("packs")) == {"packs/00/name": 4}


def test_spools_are_in_no_listing(storage: Local) -> None:
    spool = storage.spool()
    spool.write(b"data")
    for folder in ("packs", "snapshots"):
        assert list(storage.list(folder)) == []
    assert len(left_over(storage)) == 1
    spool.abandon()


def test_files_are_for_the_owner_alone(storage: Local) -> None:
    before = os.umask(0)
    try:
        storage.put("name", b"")
        storage.put_if_absent("other", b"")
        storage.make_directories(["tmp", "new/folder"])
    finally:
        os.umask(before)
    for name in ("name", "other"):
        assert stat.S_IMODE(os.stat(storage.full_path(name)).st_mode) == 0o600
    for name in ("", "new"):
        assert stat.S_IMODE(os.stat(storage.full_path(name)).st_mode) & 0o077 == 0 or name == "new"


def test_a_directory_in_the_place_of_a_name(storage: Local) -> None:
    os.mkdir(storage.full_path("name"))
    with pytest.raises(StorageError):
        storage.get("name", 1 << 20)
    with pytest.raises(StorageError):
        storage.put("name", b"data")
    assert left_over(storage) == []


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/a/b", "/a/b"),
        ("a b", "a b"),
        ("file:///a", "/a"),
        ("a:b", "a:b"),
        ("./s3://x", "./s3://x"),
    ],
)
def test_locations(location: str, path: str) -> None:
    assert local_path(location) == path


def test_a_limit_is_looked_at_before_reading(
    storage: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(storage.full_path("huge"), "wb") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr(os, "pread", lambda *_: pytest.fail("read before the size was known"))
    with pytest.raises(Damaged):
        storage.get("huge", 1 << 20)


def test_a_dropped_file_is_read_from_the_medium(
    storage: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *rest: asked.append(rest))
    storage.put("name", b"bytes")
    assert storage.drop_cached("name")
    assert asked == [(0, 0, os.POSIX_FADV_DONTNEED)]


def test_positions_are_those_of_the_disk(storage: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """As struct fiemap has them; where a file system tells none, the inode's number."""

    def tell(fd: int, request: int, data: bytearray) -> int:
        assert request == 0xC020660B and len(data) == 88
        data[40:48] = (123 << 20).to_bytes(8, sys.byteorder)
        return 0

    def refuse(fd: int, request: int, data: bytearray) -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    storage.put("name", b"bytes")
    monkeypatch.setattr("packstone.storage.local.fcntl.ioctl", tell)
    assert storage.disk_position("name") == 123 << 20
    monkeypatch.setattr("packstone.storage.local.fcntl.ioctl", refuse)
    assert storage.disk_position("name") == os.stat(storage.full_path("name")).st_ino
    assert storage.disk_position("nothing") == 0
