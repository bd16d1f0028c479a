"""Locks that expire by the store's own time, and what becomes of those who slept past theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import packstone
from packstone.errors import GenerationChanged, RepositoryLocked
from packstone.repository.cached import CachedStorage
from packstone.repository.object_locks import ObjectLock
from packstone.repository.opening import storage_at


@pytest.fixture
def storage(url: str) -> Iterator[CachedStorage]:
    storage = storage_at(url)
    assert isinstance(storage, CachedStorage)
    storage.make_directories([])
    yield storage
    storage.close()


def names(storage: CachedStorage) -> list[str]:
    return [name for name, _size in storage.inner.list("locks")]


def test_shared_locks_live_side_by_side(storage: CachedStorage) -> None:
    locks = [ObjectLock(storage, exclusive=False) for _ in range(3)]
    assert len(names(storage)) == 3
    with pytest.raises(RepositoryLocked, match=r"process \d+ on .* expires in 15 min"):
        ObjectLock(storage, exclusive=True)
    for lock in locks:
        lock.release()
        lock.release()
    assert names(storage) == []


def test_upgrade_and_back(storage: CachedStorage) -> None:
    lock = ObjectLock(storage, exclusive=False)
    lock.upgrade()
    with pytest.raises(RepositoryLocked, match="exclusive"):
        ObjectLock(storage, exclusive=False)
    lock.downgrade()
    other = ObjectLock(storage, exclusive=False)
    with pytest.raises(RepositoryLocked):
        lock.upgrade()
    lock.check(surely=True)
    other.release()
    lock.upgrade()
    lock.release()
    assert names(storage) == []


def test_it_is_renewed(storage: CachedStorage) -> None:
    lock = ObjectLock(storage, exclusive=False, lifetime=3)
    time.sleep(5)
    with pytest.raises(RepositoryLocked):
        ObjectLock(storage, exclusive=True)
    lock.check(surely=True)
    lock.release()


def killed_holder(url: str, lifetime: int) -> None:
    code = f"""
import os
from packstone.repository.object_locks import ObjectLock
from packstone.repository.opening import storage_at
ObjectLock(storage_at({url!r}), exclusive=False, lifetime={lifetime})
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == -signal.SIGKILL


def test_that_of_a_killed_holder_expires(url: str, storage: CachedStorage) -> None:
    killed_holder(url, 4)
    with pytest.raises(RepositoryLocked, match=r"expires in \d s"):
        ObjectLock(storage, exclusive=True)
    time.sleep(5)
    ObjectLock(storage, exclusive=True).release()
    assert names(storage) == []


@pytest.mark.parametrize("hours", [-30, 30])
def test_the_local_clock_does_not_matter(
    url: str, storage: CachedStorage, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    killed_holder(url, 60)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
    with pytest.raises(RepositoryLocked):
        ObjectLock(storage, exclusive=True)


def test_whoever_lost_its_lock_stops(storage: CachedStorage) -> None:
    """Another took it for dead and deleted it: no renewal brings it back."""
    lock = ObjectLock(storage, exclusive=False, lifetime=5)
    (name,) = names(storage)
    storage.delete(name)
    time.sleep(1.5)
    with pytest.raises(GenerationChanged, match="expired"):
        lock.check()
    assert names(storage) == []
    lock.release()


SLEEPER = """
import os, signal, sys
import packstone
from packstone.repository.writer import ObjectWriter
from packstone.repository.cached import CachedStorage
where, url, source = sys.argv[1:]
if where == "paused":
    # a virtual machine that is stopped: none of its clocks goes on, no thread has its turn
    from packstone.repository import object_locks
    object_locks._elapsed = lambda: 1.0
    object_locks.ObjectLock._renew_all = lambda self: None
    where = "between"
def sleep():
    print("asleep", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
check, put = ObjectWriter._check_generation, CachedStorage.put
calls = []
def check_first(self):
    calls.append(1)
    if where == "before" and len(calls) == 1:
        sleep()
    check(self)
    if where == "between" and len(calls) == 1:
        sleep()
def put_first(self, name, data):
    put(self, name, data)
    if where == "after" and name.startswith("snapshots/"):
        sleep()
ObjectWriter._check_generation, CachedStorage.put = check_first, put_first
with packstone.open(url) as repository:
    try:
        repository.snapshot([source])
    except packstone.StorageError as error:
        print("refused", error.message, flush=True)
    else:
        print("taken", flush=True)
"""


@pytest.mark.parametrize("where", ["before", "between", "after"])
def test_suspended_past_its_lock(url: str, tmp_path: Path, where: str) -> None:
    """A machine sleeps anywhere around its commit while another prunes what it counts on."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(100_000))
    with packstone.init(url) as repository:
        first = repository.snapshot([source])
    environment = os.environ | {"PACKSTONE_LOCK_LIFETIME": "2"}
    sleeper = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, where, url, str(source)],
        stdout=subprocess.PIPE, env=environment, text=True,
    )  # fmt: skip
    assert sleeper.stdout is not None
    assert sleeper.stdout.readline() == "asleep\n"
    time.sleep(4)
    with packstone.open(url) as repository:
        assert first.snapshot_id is not None
        repository.forget([first.snapshot_id])
        pruned = repository.prune()
    sleeper.send_signal(signal.SIGCONT)
    said = sleeper.stdout.read()
    assert sleeper.wait(60) == 0
    assert said.startswith("refused"), said
    with packstone.open(url) as repository:
        assert repository.snapshots() == []
        assert repository.check(read_data=True).errors == []
        if where != "after":
            assert pruned.packs_deleted > 0
        repository.prune()
        assert repository.stats().packs == 0


@pytest.mark.parametrize("where", ["between", "paused"])
def test_taken_for_dead_by_one_who_has_not_begun(url: str, tmp_path: Path, where: str) -> None:
    """The generation is unchanged still: only the lock tells that the snapshot was not seen."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(100_000))
    packstone.init(url).close()
    sleeper = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, where, url, str(source)],
        stdout=subprocess.PIPE, env=os.environ | {"PACKSTONE_LOCK_LIFETIME": "2"}, text=True,
    )  # fmt: skip
    assert sleeper.stdout is not None
    assert sleeper.stdout.readline() == "asleep\n"
    time.sleep(4)
    storage = storage_at(url)
    assert isinstance(storage, CachedStorage)
    lock = ObjectLock(storage, exclusive=True)
    assert dict(storage.list("snapshots")) == {}
    sleeper.send_signal(signal.SIGCONT)
    said = sleeper.stdout.read()
    assert sleeper.wait(60) == 0
    assert said.startswith("refused"), said
    assert dict(storage.list("snapshots")) == {}
    lock.release()
