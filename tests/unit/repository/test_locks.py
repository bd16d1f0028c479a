"""Many readers and writers or one sweep, decided by the kernel and never by the clock."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from packstone.errors import RepositoryLocked, StorageError, StorageUnavailable
from packstone.repository.locks import HOLDERS, LOCK, Lock, Waiting, holders
from packstone.storage.local import LocalStorage


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(str(tmp_path))
    storage.make_directories(["tmp"])
    storage.put(LOCK, b"")
    return storage


def locked(storage: LocalStorage, *, exclusive: bool) -> bool:
    """Return whether a lock is refused."""
    try:
        Lock(storage, exclusive=exclusive).release()
    except RepositoryLocked as error:
        assert storage.url in error.message and error.hint and error.exit_code == 11
        return True
    return False


def test_many_shared_locks(storage: LocalStorage) -> None:
    locks = [Lock(storage, exclusive=False) for _ in range(5)]
    assert not locked(storage, exclusive=False)
    for lock in locks:
        assert locked(storage, exclusive=True)
        lock.release()
        lock.release()
    assert not locked(storage, exclusive=True)


def test_one_exclusive_lock(storage: LocalStorage) -> None:
    lock = Lock(storage, exclusive=True)
    assert locked(storage, exclusive=True) and locked(storage, exclusive=False)
    lock.release()
    assert not locked(storage, exclusive=False)


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_process_that_is_killed_gives_its_lock_back(
    storage: LocalStorage, exclusive: bool
) -> None:
    """So nobody ever unlocks by hand, and no lock is too old."""
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from packstone.repository.locks import Lock\n"
        "from packstone.storage.local import LocalStorage\n"
        f"lock = Lock(LocalStorage({storage.path!r}), exclusive={exclusive})\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        assert process.stdout.readline() == b"held\n"
        os.utime(storage.full_path(LOCK), (0, 0))  # of no meaning
        assert locked(storage, exclusive=True)
        assert locked(storage, exclusive=False) == exclusive
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()
        process.stdin.close()
    assert not locked(storage, exclusive=True)


def test_children_do_not_inherit_it(storage: LocalStorage) -> None:
    """A command whose output is stored must not hold the lock when it goes on alone."""
    lock = Lock(storage, exclusive=True)
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    lock.release()
    try:
        assert not locked(storage, exclusive=True)
    finally:
        child.kill()
        child.wait(10)


def test_what_is_in_the_file_does_not_matter(storage: LocalStorage) -> None:
    storage.put(LOCK, b"host 1234 2099-01-01")
    assert not locked(storage, exclusive=True)
    os.unlink(storage.full_path(LOCK))
    assert not locked(storage, exclusive=False)
    assert os.path.exists(storage.full_path(LOCK))


def test_a_disk_that_is_mounted_read_only(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def read_only(path: str, flags: int, *more: int) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(30, "Read-only file system")
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", read_only)
    Lock(storage, exclusive=False).release()


def test_no_lock_no_repository(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        Lock(LocalStorage(str(tmp_path / "missing")), exclusive=False)


def test_an_upgrade_that_fails_leaves_a_shared_lock(storage: LocalStorage) -> None:
    one, two = Lock(storage, exclusive=False), Lock(storage, exclusive=False)
    with pytest.raises(RepositoryLocked):
        one.upgrade()
    two.release()
    assert locked(storage, exclusive=True) and not locked(storage, exclusive=False)
    assert [holder.exclusive for holder in holders(storage)] == [False]
    one.upgrade()
    assert locked(storage, exclusive=False)
    assert [holder.exclusive for holder in holders(storage)] == [True]
    one.downgrade()
    assert not locked(storage, exclusive=False)
    one.release()
    assert not locked(storage, exclusive=True) and holders(storage) == []


def test_waiting_ends_when_the_other_is_done(storage: LocalStorage) -> None:
    told: list[str] = []
    other = Lock(storage, exclusive=False)
    timer = threading.Timer(0.3, other.release)
    timer.start()
    lock = Lock(storage, exclusive=True, waiting=Waiting(30, told.append))
    assert len(told) == 1 and f"process {os.getpid()} on " in told[0], "told once"
    lock.release()
    begin = time.monotonic()
    other = Lock(storage, exclusive=True)
    with pytest.raises(RepositoryLocked) as raised:
        Lock(storage, exclusive=False, waiting=Waiting(0.3, told.append))
    assert 0.3 <= time.monotonic() - begin < 10
    assert "(exclusive)" in raised.value.message
    other.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(fd: int, mode: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageUnavailable, match="has no locks") as raised:
        Lock(storage, exclusive=False)
    assert "local file system" in raised.value.hint


def test_no_place_for_notes(storage: LocalStorage) -> None:
    (Path(storage.path) / HOLDERS).write_bytes(b"a file")
    lock = Lock(storage, exclusive=False)
    assert holders(storage) == []
    with pytest.raises(RepositoryLocked, match="no note"):
        Lock(storage, exclusive=True)
    lock.release()


@pytest.mark.parametrize(
    "data",
    [b"", b"[" * 4000, b'{"x":' + b"[" * 4000, b'{"host":"\xff"}', b'{"pid":"one"}', b"\xff"],
)
def test_whatever_stands_in_a_note(storage: LocalStorage, data: bytes) -> None:
    """Anybody may have written it: it names nobody, and is no accident of whoever waits."""
    os.makedirs(Path(storage.path) / HOLDERS)
    with open(Path(storage.path) / HOLDERS / "garbage", "wb") as file:
        file.write(data)
        file.flush()
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        assert holders(storage) == []
