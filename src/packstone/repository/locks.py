"""Locks of a repository on a local file system, held by the kernel.

Shared for whoever reads or adds, exclusive for a sweep. The kernel releases them when a
process dies, so nobody ever unlocks by hand. Never decides by time.
"""

from __future__ import annotations

import fcntl
import os

from packstone.errors import RepositoryLocked
from packstone.storage.local import LocalStorage, fail

LOCK = "lock"


class Lock:
    """A held lock; `release` or the end of the process gives it back."""

    def __init__(self, storage: LocalStorage, *, exclusive: bool, name: str = LOCK) -> None:
        """Take the lock of a file or directory or raise RepositoryLocked; never waits."""
        path = storage.full_path(name)
        try:
            # A disk that is mounted read-only has no writers to exclude.
            try:
                self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            fail(error, "open", name)
        mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(self._fd, mode | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            wanted = "exclusive" if exclusive else "shared"
            raise RepositoryLocked(
                f"another process holds a lock on {storage.url} that excludes a {wanted} one",
                hint="Run again when it has finished",
            ) from error
        except OSError as error:
            os.close(self._fd)
            fail(error, "lock", name)

    def release(self) -> None:
        """Give the lock back; calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
