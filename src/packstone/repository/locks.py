"""Locks of a repository on a local file system, held by the kernel.

Shared for whoever reads or adds, exclusive for a sweep. The kernel releases them when a
process dies, so nobody ever unlocks by hand. Never decides by time. Beside each lock lies a
note of who holds it: for whoever waits to read, and for nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import msgspec

from packstone.errors import RepositoryLocked, StorageUnavailable
from packstone.storage.local import LocalStorage, fail

LOCK = "lock"
HOLDERS = "locks"  # notes of who holds it
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0  # seconds between two tries
NOTE_SIZE = 4096


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lock: `since` is RFC 3339, of the clock of that host."""

    host: str
    pid: int
    since: str
    exclusive: bool


class Waiting(NamedTuple):
    """How long to wait for a lock, in seconds, and whom to tell of it."""

    timeout: float = 0.0
    tell: Callable[[str], None] = lambda _text: None


class HeldLock(Protocol):
    """A lock as everyone sees it, wherever the repository is."""

    def upgrade(self) -> None:
        """Exchange a shared lock for the exclusive one; raises RepositoryLocked."""

    def downgrade(self) -> None:
        """Exchange the exclusive lock for a shared one."""

    def check(self, *, surely: bool = False) -> None:
        """Raise GenerationChanged if the lock was lost; asks the storage if `surely`."""

    def release(self) -> None:
        """Give the lock back; calling it again does nothing."""


class Lock:
    """A held lock; `release` or the end of the process gives it back.

    Shared locks are given while somebody waits for the exclusive one: a snapshot is never refused
    because a prune waits, and a prune that did not get its turn says so and can be run again.
    """

    def __init__(
        self,
        storage: LocalStorage,
        *,
        exclusive: bool,
        name: str = LOCK,
        waiting: Waiting | None = None,
    ) -> None:
        """Take the lock of a file or directory.

        Raises RepositoryLocked when it is not free in time, StorageUnavailable where the file
        system has no locks.
        """
        self._storage = storage
        self._name = name
        self._waiting = waiting or Waiting()
        self._note = -1
        self._note_path = ""
        path = storage.full_path(name)
        try:
            # A disk that is mounted read-only has no writers to exclude.
            try:
                self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            fail(error, "open", name)
        try:
            self._take(exclusive)
        except BaseException:
            self.release()
            raise

    def upgrade(self) -> None:
        """Exchange a shared lock for the exclusive one.

        Others may have had it in between. Raises RepositoryLocked when it is not free in time:
        then the lock is a shared one again.
        """
        try:
            self._take(exclusive=True)
        except RepositoryLocked:
            # A try that failed has given the shared lock up.
            self._take(exclusive=False)
            raise

    def downgrade(self) -> None:
        """Exchange the exclusive lock for a shared one."""
        self._take(exclusive=False)

    def check(self, *, surely: bool = False) -> None:
        """Do nothing: the kernel takes no lock away from a process that lives."""

    def _take(self, exclusive: bool) -> None:
        self._drop_note()
        deadline = time.monotonic() + self._waiting.timeout
        pause = _FIRST_WAIT
        told = False
        while not self._try(exclusive):
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._locked(exclusive)
            if not told:
                told = True
                self._waiting.tell(
                    f"waiting for {_called(exclusive)} lock on {self._storage.url}: {self._whose()}"
                )
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_WAIT)
        if self._name == LOCK:
            self._leave_note(exclusive)

    def _try(self, exclusive: bool) -> bool:
        mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(self._fd, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise StorageUnavailable(
                    f"the file system of {self._storage.url} has no locks: {error.strerror}",
                    hint="Without locks a sweep could delete what a snapshot needs. Keep the "
                    "repository on a local file system, or mount this one with locks",
                ) from error
            fail(error, "lock", self._name)
        return True

    def _locked(self, exclusive: bool) -> RepositoryLocked:
        return RepositoryLocked(
            f"another process holds a lock on {self._storage.url} that excludes "
            f"{_called(exclusive)} one: {self._whose()}",
            hint="Run again when it has finished, or wait for it with --lock-timeout",
        )

    def _whose(self) -> str:
        found = [
            f"process {holder.pid} on {holder.host} since {holder.since}"
            f"{' (exclusive)' if holder.exclusive else ''}"
            for holder in holders(self._storage)
        ]
        return "; ".join(found) or "it has left no note of itself"

    def _leave_note(self, exclusive: bool) -> None:
        """Say who holds the lock; where that cannot be written, go on."""
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        holder = Holder(socket.gethostname(), os.getpid(), now, exclusive)
        directory = self._storage.full_path(HOLDERS)
        path = os.path.join(directory, secrets.token_hex(8))
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._note = os.open(path, flags, 0o600)
            self._note_path = path
            # Its own lock tells whether the writer is still there, whatever its clock said.
            fcntl.flock(self._note, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._note, msgspec.json.encode(holder))
        if exclusive:
            holders(self._storage)  # puts away what was left by the dead

    def _drop_note(self) -> None:
        if self._note >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._note_path)
            with contextlib.suppress(OSError):
                os.close(self._note)
            self._note = -1

    def release(self) -> None:
        """Give the lock back; calling it again does nothing."""
        self._drop_note()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def holders(storage: LocalStorage) -> list[Holder]:
    """Return who says to hold the lock of a repository; notes of the dead are deleted."""
    found: list[Holder] = []
    directory = storage.full_path(HOLDERS)
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return found
    for name in names:
        path = os.path.join(directory, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.unlink(path)
        except BlockingIOError:
            with contextlib.suppress(OSError):
                if (holder := decode_note(os.read(fd, NOTE_SIZE))) is not None:
                    found.append(holder)
        except OSError:
            pass
        finally:
            os.close(fd)
    return found


def decode_note(data: bytes) -> Holder | None:
    """Return what a note says, None where it says nothing: anybody may have written it."""
    try:
        return msgspec.json.decode(data, type=Holder)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _called(exclusive: bool) -> str:
    return "an exclusive" if exclusive else "a shared"
