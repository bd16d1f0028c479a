"""Calls of the operating system that fail, do half, or only pretend; for LocalStorage.

    LocalStorage(path, FaultyCalls(Plan(system_error(errno.ENOSPC), at=9)))

Each class has another one's calls made, by default those of `os`.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager

from packstone.model import Buffer
from packstone.storage.system import SystemCalls
from packstone.testing.plan import Plan


class PassedCalls:
    """Have all calls made by another object; subclasses change some of them."""

    def __init__(self, calls: SystemCalls = os) -> None:
        self._calls = calls

    def open(self, path: str, flags: int, mode: int = 0o777, /) -> int:
        """Open or create a file, or open a directory; return a descriptor."""
        return self._calls.open(path, flags, mode)

    def close(self, fd: int, /) -> None:
        """Close a descriptor."""
        self._calls.close(fd)

    def write(self, fd: int, data: Buffer, /) -> int:
        """Append; return how many bytes were taken."""
        return self._calls.write(fd, data)

    def pwrite(self, fd: int, data: Buffer, offset: int, /) -> int:
        """Write at a place; return how many bytes were taken."""
        return self._calls.pwrite(fd, data, offset)

    def pread(self, fd: int, size: int, offset: int, /) -> bytes:
        """Read at a place."""
        return self._calls.pread(fd, size, offset)

    def fsync(self, fd: int, /) -> None:
        """Make a file's bytes, or a directory's names, durable."""
        self._calls.fsync(fd)

    def rename(self, source: str, target: str, /) -> None:
        """Give a file another name."""
        self._calls.rename(source, target)

    def link(self, source: str, target: str, /) -> None:
        """Give a file one more name."""
        self._calls.link(source, target)

    def unlink(self, path: str, /) -> None:
        """Remove a name."""
        self._calls.unlink(path)

    def makedirs(self, name: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        """Make a directory and those above it."""
        self._calls.makedirs(name, mode, exist_ok)

    def stat(self, path: str, /) -> os.stat_result:
        """Return what is known of a file."""
        return self._calls.stat(path)

    def scandir(self, path: str, /) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """List a directory."""
        return self._calls.scandir(path)


class FaultyCalls(PassedCalls):
    """Ask a plan around every call: `fsync packs/3f`, `rename state`, `done rename state`, …

    A step names the folder below `root` that a call is about, since names are random.
    """

    def __init__(self, root: str, plan: Plan, calls: SystemCalls = os) -> None:
        super().__init__(calls)
        self._root = os.path.abspath(root)
        self._plan = plan
        self._paths: dict[int, str] = {}

    def _short(self, path: str) -> str:
        return os.path.relpath(path, self._root).split("/")[0]

    def open(self, path: str, flags: int, mode: int = 0o777, /) -> int:
        """Open, as the plan allows."""
        verb = "create" if flags & os.O_CREAT else "open"
        name = self._short(path)
        self._plan.step(verb, name)
        fd = super().open(path, flags, mode)
        self._paths[fd] = name
        try:
            self._plan.step(f"done {verb}", name)
        except BaseException:
            super().close(fd)
            if flags & os.O_CREAT:  # whoever gets no descriptor cannot put the file away
                super().unlink(path)
            raise
        return fd

    def close(self, fd: int, /) -> None:
        """Close; a call that fails has closed all the same, as on Linux."""
        name = self._paths.pop(fd, "?")
        try:
            self._plan.step("close", name)
        finally:
            super().close(fd)
        self._plan.step("done close", name)

    def write(self, fd: int, data: Buffer, /) -> int:
        """Write, as the plan allows."""
        with self._plan.around("write", self._paths[fd]):
            return super().write(fd, data)

    def pwrite(self, fd: int, data: Buffer, offset: int, /) -> int:
        """Write, as the plan allows."""
        with self._plan.around("pwrite", self._paths[fd]):
            return super().pwrite(fd, data, offset)

    def pread(self, fd: int, size: int, offset: int, /) -> bytes:
        """Read, as the plan allows."""
        with self._plan.around("pread", self._paths[fd]):
            return super().pread(fd, size, offset)

    def fsync(self, fd: int, /) -> None:
        """Sync, as the plan allows."""
        with self._plan.around("fsync", self._paths[fd]):
            super().fsync(fd)

    def rename(self, source: str, target: str, /) -> None:
        """Rename, as the plan allows."""
        with self._plan.around("rename", self._short(target)):
            super().rename(source, target)

    def link(self, source: str, target: str, /) -> None:
        """Link, as the plan allows."""
        with self._plan.around("link", self._short(target)):
            super().link(source, target)

    def unlink(self, path: str, /) -> None:
        """Remove, as the plan allows."""
        with self._plan.around("unlink", self._short(path)):
            super().unlink(path)

    def makedirs(self, name: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        """Make directories, as the plan allows."""
        with self._plan.around("makedirs", self._short(name)):
            super().makedirs(name, mode, exist_ok)

    def stat(self, path: str, /) -> os.stat_result:
        """Look, as the plan allows."""
        with self._plan.around("stat", self._short(path)):
            return super().stat(path)

    def scandir(self, path: str, /) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """List, as the plan allows."""
        with self._plan.around("scandir", self._short(path)):
            return super().scandir(path)


class ShortCalls(PassedCalls):
    """Do half of what the `at`-th reading or writing call is asked for, or of every one."""

    def __init__(self, at: int | None = None, calls: SystemCalls = os) -> None:
        super().__init__(calls)
        self._at = at
        self._lock = threading.Lock()
        self.count = 0  # of reading and writing calls

    def _size(self, size: int) -> int:
        with self._lock:
            number = self.count
            self.count += 1
        return (size + 1) // 2 if self._at in (None, number) else size

    def write(self, fd: int, data: Buffer, /) -> int:
        """Write the first half."""
        view = memoryview(data).cast("B")
        return super().write(fd, view[: self._size(len(view))])

    def pwrite(self, fd: int, data: Buffer, offset: int, /) -> int:
        """Write the first half."""
        view = memoryview(data).cast("B")
        return super().pwrite(fd, view[: self._size(len(view))], offset)

    def pread(self, fd: int, size: int, offset: int, /) -> bytes:
        """Read the first half."""
        return super().pread(fd, self._size(size), offset)


class UnsyncedCalls(PassedCalls):
    """Leave out some fsyncs: what a test for power cuts must notice, or it is worth nothing."""

    def __init__(self, *, files: bool, directories: bool, calls: SystemCalls = os) -> None:
        """Leave out those of `files`, of `directories`, or of both."""
        super().__init__(calls)
        self._files = files
        self._directories = directories

    def fsync(self, fd: int, /) -> None:
        """Sync what is not to be left out."""
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        if not (self._directories if is_directory else self._files):
            super().fsync(fd)
