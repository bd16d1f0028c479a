"""Write down what a program asks of a file system, with the moments it asks for durability.

The idea is SQLite's: its test6.c keeps a list of writes that are not synced yet, and plays any
part of it. Calls are made in truth, too, so that the program runs on.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Collection
from typing import NamedTuple

from packstone.model import Buffer
from packstone.storage.system import SystemCalls
from packstone.testing.system_calls import PassedCalls


class Write(NamedTuple):
    """Bytes written into a file; `file` is its number, paths may change."""

    file: int
    offset: int
    data: bytes


class Enter(NamedTuple):
    """A name that stands for a file from now on: created, renamed to, linked."""

    path: str
    file: int


class Remove(NamedTuple):
    """A name that is gone: unlinked, renamed away."""

    path: str


class MakeDirectory(NamedTuple):
    """A directory that was made."""

    path: str


class SyncFile(NamedTuple):
    """All bytes of a file are durable."""

    file: int


class SyncDirectory(NamedTuple):
    """All names in a directory are durable."""

    path: str


class Mark(NamedTuple):
    """A moment that means something to the test: something was acknowledged, say."""

    text: str
    payload: bytes


Step = Write | Enter | Remove | MakeDirectory | SyncFile | SyncDirectory | Mark


class WriteList(PassedCalls):
    """Make calls below a directory and write them down; paths are relative to it.

    What is there at the beginning counts as durable. `steps` is the list; `files` and
    `directories` are what was there: path → bytes, and the paths.
    """

    def __init__(
        self, root: str, calls: SystemCalls = os, *, skipped: Collection[str] = ()
    ) -> None:
        """Begin a list; top-level folders named in `skipped` are not looked at."""
        super().__init__(calls)
        self._root = os.path.abspath(root)
        self._lock = threading.RLock()
        self._made = 0  # files so far
        self._numbers: dict[str, int] = {}  # of files, by their present paths
        self._opened: dict[int, tuple[str, int | None]] = {}  # descriptor → path, file number
        self._ends: dict[int, int] = {}  # descriptor → where the next write goes
        self.steps: list[Step] = []
        self.files: dict[str, bytes] = {}  # in the order of their numbers
        self.directories: set[str] = set()
        self.above: list[str] = []  # all directories that the root stands in
        self._begin(skipped)

    def _begin(self, skipped: Collection[str]) -> None:
        above = self._root
        while above != "/":
            if os.path.isdir(above):
                self.directories.add(self._short(above))
            above = os.path.dirname(above)
            self.above.append(self._short(above))
        self.directories.add(self.above[-1])
        for holder, folders, names in os.walk(self._root):
            if holder == self._root:
                folders[:] = [name for name in folders if name not in skipped]
            self.directories.update(self._short(os.path.join(holder, name)) for name in folders)
            for name in names:
                path = os.path.join(holder, name)
                with open(path, "rb") as file:
                    self.files[self._short(path)] = file.read()
                self._numbers[self._short(path)] = self._made
                self._made += 1

    def _short(self, path: str) -> str:
        return os.path.relpath(path, self._root)

    def mark(self, text: str, payload: bytes = b"") -> None:
        """Write down a moment."""
        with self._lock:
            self.steps.append(Mark(text, payload))

    def open(self, path: str, flags: int, mode: int = 0o777, /) -> int:
        """Open; a file that is created is a step."""
        with self._lock:
            short = self._short(path)
            exists = os.path.lexists(path)
            fd = super().open(path, flags, mode)
            if flags & os.O_CREAT and not exists:
                self._numbers[short] = self._made
                self._made += 1
                self.steps.append(Enter(short, self._numbers[short]))
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            self._opened[fd] = (short, None if is_directory else self._numbers.get(short))
            self._ends[fd] = 0
            return fd

    def close(self, fd: int, /) -> None:
        """Close."""
        with self._lock:
            self._opened.pop(fd, None)
            super().close(fd)

    def write(self, fd: int, data: Buffer, /) -> int:
        """Write; a step."""
        with self._lock:
            count = super().write(fd, data)
            self._wrote(fd, data, self._ends[fd], count)
            self._ends[fd] += count
            return count

    def pwrite(self, fd: int, data: Buffer, offset: int, /) -> int:
        """Write; a step."""
        with self._lock:
            count = super().pwrite(fd, data, offset)
            self._wrote(fd, data, offset, count)
            return count

    def _wrote(self, fd: int, data: Buffer, offset: int, count: int) -> None:
        number = self._opened[fd][1]
        assert number is not None
        self.steps.append(Write(number, offset, bytes(memoryview(data).cast("B")[:count])))

    def fsync(self, fd: int, /) -> None:
        """Sync; a step, of a file or a directory."""
        with self._lock:
            super().fsync(fd)
            path, number = self._opened[fd]
            self.steps.append(SyncDirectory(path) if number is None else SyncFile(number))

    def rename(self, source: str, target: str, /) -> None:
        """Rename; two steps, since a crash may leave both names or none."""
        with self._lock:
            super().rename(source, target)
            number = self._numbers.pop(self._short(source))
            self._numbers[self._short(target)] = number
            self.steps += [Enter(self._short(target), number), Remove(self._short(source))]

    def link(self, source: str, target: str, /) -> None:
        """Link; a step."""
        with self._lock:
            super().link(source, target)
            number = self._numbers[self._short(target)] = self._numbers[self._short(source)]
            self.steps.append(Enter(self._short(target), number))

    def unlink(self, path: str, /) -> None:
        """Remove a name; a step."""
        with self._lock:
            super().unlink(path)
            self._numbers.pop(self._short(path), None)
            self.steps.append(Remove(self._short(path)))

    def makedirs(self, name: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        """Make directories; a step for each."""
        with self._lock:
            missing: list[str] = []
            path = os.path.abspath(name)
            while not os.path.isdir(path):
                missing.append(path)
                path = os.path.dirname(path)
            super().makedirs(name, mode, exist_ok)
            self.steps += [MakeDirectory(self._short(each)) for each in reversed(missing)]
