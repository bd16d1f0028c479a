"""A directory of the source, held open for as long as somebody reads through it.

Never here: deciding what to read. The invariant: the descriptor is open while at least one
user holds the directory, and closed by whoever lets go last.
"""

from __future__ import annotations

import os
import threading

from packstone.filesystem.metadata import DEVICE, INODE, StatRow

OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class OpenDirectory:
    """A source directory: `fd` is valid while it is acquired, `stat` is what fstat gave.

    The walker holds it while it yields an event. Whoever needs `fd` later, in another thread
    say, calls `acquire` before the walk goes on and `release` when done.
    """

    __slots__ = ("_lock", "_users", "fd", "name", "parent", "stat")

    def __init__(
        self,
        fd: int,
        stat: StatRow,
        parent: OpenDirectory | None,
        name: bytes,
        lock: threading.Lock,
    ) -> None:
        self.fd = fd
        self.stat = stat
        self.parent = parent
        self.name = name
        self._lock = lock  # one for all directories of a walk: it is held for an instant
        self._users = 1

    @property
    def path(self) -> bytes:
        """The absolute path, put together each time: in deep trees all paths would not fit."""
        names = []
        node = self
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        names.reverse()
        return b"/" + b"/".join(names)

    def path_of(self, name: bytes) -> bytes:
        """Return the absolute path of an entry."""
        return os.path.join(self.path, name)

    def acquire(self) -> OpenDirectory:
        """Keep the descriptor open until `release`; only while somebody else still does."""
        if not self.try_acquire():
            raise ValueError("this directory is closed already")
        return self

    def try_acquire(self) -> bool:
        """Like `acquire`, but say False if the directory is closed."""
        with self._lock:
            if self._users == 0:
                return False
            self._users += 1
            return True

    def release(self) -> None:
        """Let go; the last one closes the descriptor."""
        with self._lock:
            self._users -= 1
            if self._users > 0:
                return
            fd, self.fd = self.fd, -1
        os.close(fd)

    def reopen(self, fd: int) -> None:
        """Take `fd`, of the same directory, for the one closed; the caller is its user."""
        with self._lock:
            self.fd = fd
            self._users = 1


def open_on_the_way(parent_fd: int | None, name: bytes) -> int:
    """Open a directory on the way to a source: passing through needs no right to list it."""
    path = name if parent_fd is not None else b"/"
    try:
        return os.open(path, OPEN, dir_fd=parent_fd)
    except PermissionError:
        hold = getattr(os, "O_PATH", 0)
        if not hold:
            raise
        return os.open(path, hold | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent_fd)


def open_again(directory: OpenDirectory, name: bytes, parent_fd: int, flags: int) -> int | None:
    """Open `name` if it is still this directory."""
    try:
        if flags:
            fd = os.open(name, OPEN | flags, dir_fd=parent_fd)
        else:
            fd = open_on_the_way(parent_fd, name)
    except OSError:
        return None
    status = os.fstat(fd)
    if (status.st_ino, status.st_dev) != (directory.stat[INODE], directory.stat[DEVICE]):
        os.close(fd)
        return None
    return fd
