"""The source, directory by directory: a walk by descriptors with an explicit stack.

Never here: opening files, comparing with earlier snapshots. The invariant: every name that was
listed and is not left out appears in a Slice or a Failed (or in the count of its directory's
Failed), and every directory in a Slice is followed by its Enter or its Failed; nothing is
dropped in silence. Costs per name are in `_scan`; here is work per directory and per slice.

Order: Enter of "/", then per directory [Slice, then for each subdirectory in that slice, in
order: Enter … Leave]* Leave. Names ascend, so events come as docs/format.md §6 stores them.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from typing import cast

from packstone.filesystem import _scan
from packstone.filesystem.directory import OPEN, OpenDirectory, open_again, open_on_the_way
from packstone.filesystem.events import Enter, Event, Failed, Leave, Slice
from packstone.filesystem.ignore import Filter, Rules
from packstone.filesystem.metadata import DEVICE, MODE, StatRow, stat_of
from packstone.filesystem.sources import Source, plant

__all__ = [
    "Enter",
    "Event",
    "Failed",
    "Leave",
    "OpenDirectory",
    "Rules",
    "Slice",
    "walk",
]

SLICE = 1024  # names looked at per call: enough to spread its cost, little enough to hold
HELD = 64  # directories the walker keeps open on its way down


def walk(
    paths: Sequence[bytes], rules: Rules | None = None, *, held: int = HELD
) -> Iterator[Event]:
    """Walk absolute source paths; ancestors are entered with the names that lead to sources.

    A source that is a symbolic link is met as one; a link on the way to a source is followed
    and appears as a directory. `held` bounds the descriptors the walker itself keeps.
    Raises UsageError for a relative path or a pattern that makes no sense.
    """
    return _Walk(plant(paths), Filter(rules or Rules()), held).events()


class _Frame:
    """One directory on the way down."""

    __slots__ = ("device", "directory", "foreign", "is_closed", "names", "next", "source", "todo")

    def __init__(
        self, directory: OpenDirectory, names: list[bytes], source: Source | None, device: int
    ) -> None:
        self.directory = directory
        self.names = names
        self.next = 0  # position of the next slice
        self.todo: list[bytes] = []  # subdirectories of the last slice, last one first
        self.source = source  # on the way to sources: only the names that lead there
        self.device = device  # where the source began
        self.foreign: frozenset[bytes] = frozenset()  # of the slice, on other devices
        self.is_closed = False


class _Walk:
    def __init__(self, root: Source, filter_: Filter, held: int) -> None:
        self._root = root
        self._filter = filter_
        self._one_file_system = filter_.rules.one_file_system
        self._held = max(held, 2)
        self._stack: list[_Frame] = []
        self._lock = threading.Lock()

    def events(self) -> Iterator[Event]:
        stack = self._stack
        try:
            yield self._enter(None, b"", self._root)
            yield from _missed(self._root)
            while stack:
                frame = stack[-1]
                if frame.todo:
                    yield self._descend(frame, frame.todo.pop())
                elif frame.next < len(frame.names):
                    found, failed = self._slice(frame)
                    if failed:
                        yield from failed
                    if found is not None:
                        yield found
                else:
                    yield Leave(frame.directory)
                    if len(stack) > 1 and stack[-2].is_closed:
                        yield from self._reopen(stack[-2], frame)
                    stack.pop()
                    if not frame.is_closed:
                        frame.directory.release()
        finally:
            for frame in stack:
                if not frame.is_closed:
                    frame.directory.release()

    # ---------------------------------------------------------------- names

    def _slice(self, frame: _Frame) -> tuple[Slice | None, list[Failed]]:
        """Look at the next names of a directory; its subdirectories become `todo`."""
        directory = frame.directory
        names = frame.names
        if frame.next or len(names) > SLICE:
            names = names[frame.next : frame.next + SLICE]
        frame.next += len(names)
        failed: list[Failed] = []
        rows: list[StatRow | int]
        if frame.source is not None:
            rows = self._look_up(frame, frame.source, names)
            directories, failures = _positions(rows)
        else:
            rows, directories, failures = _scan.stat_slice(directory.fd, names)
        if self._filter.looks_at_entries:
            kept = self._keep(frame, names, rows)
            names, rows = [names[i] for i in kept], [rows[i] for i in kept]
            directories, failures = _positions(rows)
        if failures:
            for i in failures:
                failed += self._fail(frame, names[i], cast(int, rows[i]))
            kept = [i for i, row in enumerate(rows) if not isinstance(row, int)]
            names, rows = [names[i] for i in kept], [rows[i] for i in kept]
            directories, failures = _positions(rows)
        stats = cast("list[StatRow]", rows)
        if directories:
            frame.todo = [names[i] for i in reversed(directories)]
            if self._one_file_system and frame.source is None:
                frame.foreign = frozenset(
                    names[i] for i in directories if stats[i][DEVICE] != frame.device
                )
        return Slice(directory, names, stats) if names else None, failed

    def _look_up(self, frame: _Frame, source: Source, names: list[bytes]) -> list[StatRow | int]:
        """stat the way to sources: links are followed on it, but not where it ends."""
        fd = frame.directory.fd
        found: list[StatRow | int] = []
        for name in names:
            child = source.children[name]
            try:
                row = stat_of(os.stat(name, dir_fd=fd, follow_symlinks=not child.chosen))
                if child.chosen and child.children and stat.S_ISLNK(row.mode):
                    # asked for the link and for something behind it: that needs a directory
                    child.chosen = False
                    row = stat_of(os.stat(name, dir_fd=fd))
                if not child.chosen and not stat.S_ISDIR(row.mode):
                    found.append(errno.ENOTDIR)
                else:
                    found.append(row)
            except OSError as error:
                found.append(error.errno or errno.EIO)
        return found

    def _keep(self, frame: _Frame, names: list[bytes], found: list[StatRow | int]) -> list[int]:
        if frame.source is not None:  # asked for by name: patterns do not apply
            return self._filter.keep_named(found)
        prefix = ""
        if self._filter.needs_path:
            prefix = frame.directory.path[1:].decode("utf-8", "surrogateescape")
            prefix += "/" if prefix else ""
        return self._filter.keep(prefix, names, found)

    def _fail(self, frame: _Frame, name: bytes, number: int) -> list[Failed]:
        path = frame.directory.path_of(name)
        lost = [path] if frame.source is None else frame.source.children[name].paths(path)
        return [Failed(each, OSError(number, os.strerror(number), each)) for each in lost]

    # ---------------------------------------------------------------- down

    def _descend(self, frame: _Frame, name: bytes) -> Event:
        source = frame.source.children[name] if frame.source is not None else None
        try:
            return self._enter(frame, name, source)
        except OSError as error:
            path = frame.directory.path_of(name)
            return Failed(path, OSError(error.errno, error.strerror, path))

    def _enter(self, parent: _Frame | None, name: bytes, source: Source | None) -> Enter:
        """Open and push a directory. `source` is what was asked for there, if anything was."""
        row: StatRow
        if source is not None and not source.chosen:  # on the way: not listed
            fd = open_on_the_way(parent.directory.fd if parent else None, name)
            row, names = stat_of(os.fstat(fd)), sorted(source.children)
        else:
            source = None
            if parent is None:
                fd, row, names = _scan.open_directory(-1, b"/")
            elif name in parent.foreign:
                fd = os.open(name, OPEN | os.O_NOFOLLOW, dir_fd=parent.directory.fd)
                row, names = stat_of(os.fstat(fd)), []
            else:
                fd, row, names = _scan.open_directory(parent.directory.fd, name)
        above = parent.directory if parent else None
        directory = OpenDirectory(fd, row, above, name, self._lock)
        is_inside = parent is not None and parent.source is None
        device = parent.device if parent is not None and is_inside else row[DEVICE]
        if self._one_file_system and device != row[DEVICE]:
            names = []  # a mount point keeps its entry
        if source is None and self._filter.looks_at_names:
            names = self._filter.narrow(fd, names)
        self._stack.append(_Frame(directory, names, source, device))
        self._close_far()
        return Enter(directory, name, row)

    def _close_far(self) -> None:
        """Bound the open descriptors: those between the root and the last few are closed."""
        far = len(self._stack) - self._held
        if far > 0 and not self._stack[far].is_closed:
            self._stack[far].is_closed = True
            self._stack[far].directory.release()

    # ---------------------------------------------------------------- up

    def _reopen(self, frame: _Frame, below: _Frame) -> Iterator[Failed]:
        """Open a directory again when the one below is done, through its ".." or from the root."""
        directory = frame.directory
        if directory.try_acquire():  # a reader still has it
            frame.is_closed = False
            return
        fd = None
        if not below.is_closed:
            fd = open_again(directory, b"..", below.directory.fd, os.O_NOFOLLOW)
        if fd is None:  # moved away, or reached through a link: the long way
            fd = self._open_from_root(frame)
        if fd is not None:
            directory.reopen(fd)
            frame.is_closed = False
            return
        left = len(frame.names) - frame.next
        reason = "moved or replaced while it was read"
        for name in reversed(frame.todo):
            path = directory.path_of(name)
            yield Failed(path, OSError(errno.ESTALE, f"its directory was {reason}", path))
        if left:
            reason = f"{reason}: {left} names were not looked at"
            yield Failed(directory.path, OSError(errno.ESTALE, reason, directory.path))
        frame.todo.clear()
        frame.next = len(frame.names)

    def _open_from_root(self, wanted: _Frame) -> int | None:
        fd = os.dup(self._stack[0].directory.fd)
        for frame in self._stack[1 : self._stack.index(wanted) + 1]:
            flags = 0 if frame.source is not None else os.O_NOFOLLOW
            inner = open_again(frame.directory, frame.directory.name, fd, flags)
            os.close(fd)
            if inner is None:
                return None
            fd = inner
        return fd


def _missed(root: Source) -> Iterator[Failed]:
    """Name the sources that the walk of another source will not meet, though they were named."""
    for outer, path in root.covered():
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            yield Failed(path, error)
            continue
        above = os.path.dirname(path)
        while len(above) > len(outer) and not os.path.islink(above):
            above = os.path.dirname(above)
        if len(above) > len(outer):
            reason = "behind a symbolic link that another source stores as such"
            yield Failed(path, OSError(errno.ELOOP, reason, path))


def _positions(found: Sequence[StatRow | int]) -> tuple[list[int], list[int]]:
    """Positions of directories and of errnos, as stat_slice gives them."""
    directories = []
    failures = []
    for i, row in enumerate(found):
        if isinstance(row, int):
            failures.append(i)
        elif stat.S_ISDIR(row[MODE]):
            directories.append(i)
    return directories, failures
