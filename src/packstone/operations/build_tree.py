"""Turn a walk into tree pages: match with the parent, store what is new, close directories.

The middle of "Snapshot, step by step" of the design. Source errors become problems and the
rest goes on. Memory is bounded by slices of directories, not by their number; directories
are finished in the order they are left, while later ones are walked already.
"""

from __future__ import annotations

import os
import stat as stat_module
from collections import deque
from collections.abc import Sequence
from typing import Any

from packstone.filesystem.metadata import read_xattrs, read_xattrs_of
from packstone.filesystem.walk import Enter, Failed, Leave, OpenDirectory, Slice, walk
from packstone.model import Entry, Flag
from packstone.operations.files import FileReader, PendingFile, entry_of
from packstone.operations.options import SnapshotOptions
from packstone.operations.parent import Parent, ParentDirectory
from packstone.operations.results import SnapshotResult, Ticker, source_problem
from packstone.operations.storing import ChunkStore
from packstone.repository.trees import DirectoryWriter

_FORMAT = stat_module.S_IFMT
_REGULAR, _DIRECTORY = stat_module.S_IFREG, stat_module.S_IFDIR
_QUEUED = 4096  # entries whose files may still be on the workers while the walk goes on


class _Frame:
    """A directory whose entries are being collected."""

    __slots__ = (
        "cursor",
        "directory",
        "entry",
        "name",
        "old",
        "parent",
        "rows",
        "stat",
        "waiting",
        "writer",
        "xattrs",
    )

    def __init__(
        self,
        name: bytes,
        stat: Any,
        directory: OpenDirectory,
        parent: ParentDirectory,
        writer: DirectoryWriter,
    ) -> None:
        self.name = name
        self.stat = stat
        self.directory = directory
        self.parent = parent
        self.writer = writer
        self.rows: list[Any] = []  # of the current slice: Entry, PendingFile or _Frame
        self.waiting = False  # whether rows holds anything but entries
        self.cursor = 0  # the first of rows whose directory may not have been entered yet
        self.xattrs: list[tuple[bytes, bytes]] | None = None
        self.entry: Entry | None = None
        self.old: dict[bytes, Entry] = {}


class TreeBuilder:
    """Turn the events of a walk into tree pages."""

    def __init__(
        self, store: ChunkStore, parent: Parent, options: SnapshotOptions, result: SnapshotResult
    ) -> None:
        self._put = store.writer.put
        self._parent = parent
        self._options = options
        self._result = result
        self._files = FileReader(store, parent, result.errors, self._report)
        self._queue: deque[tuple[_Frame, list[Any] | None, bool]] = deque()
        self._queued = 0
        self._frames: list[_Frame] = []
        self._links: dict[tuple[int, int], list[Any]] = {}
        self._tick = Ticker(options.progress)
        self.owners: set[int] = set()
        self.groups: set[int] = set()
        self.tree = b""

    def build(self, paths: Sequence[bytes]) -> bytes:
        """Walk the paths and return the id of the root directory."""
        for event in walk(paths, self._options.rules):
            kind = type(event)
            if kind is Slice:
                self._slice(event)  # type: ignore[arg-type]
            elif kind is Enter:
                self._enter(event)  # type: ignore[arg-type]
            elif kind is Leave:
                self._leave()
            else:
                self._failed(event)  # type: ignore[arg-type]
        self._finish_queue(0)
        self._result.bytes_read = self._files.bytes_read
        return self.tree

    # -- events -----------------------------------------------------------------------------

    def _enter(self, event: Enter) -> None:
        writer = DirectoryWriter(self._put)
        if not self._frames:
            frame = _Frame(b"", event.stat, event.directory, self._parent.root(), writer)
        else:
            above = self._frames[-1]
            parent = above.parent.child(above.old.get(event.name))
            frame = _Frame(event.name, event.stat, event.directory, parent, writer)
            try:
                frame.xattrs = read_xattrs_of(event.directory.fd)
            except OSError as error:
                self._lost_xattrs(event.directory.path, error)
            self._place(above, frame)
        self._frames.append(frame)

    def _place(self, above: _Frame, frame: _Frame) -> None:
        """Put a directory that was entered into the row that waits for it."""
        for at in range(above.cursor, len(above.rows)):
            row = above.rows[at]
            if type(row) is _Waiting and row.name == frame.name:
                above.rows[at] = frame
                above.cursor = at + 1
                return
        raise AssertionError(f"the walk entered {frame.name!r} without naming it")

    def _slice(self, event: Slice) -> None:
        frame = self._frames[-1]
        self._close_slice(frame)
        names, stats = event.names, event.stats
        if not names:
            return
        old = frame.old = frame.parent.upto(names[-1])
        options = self._options
        before = -(1 << 63) if options.read_all else self._parent.trusted_before_ns
        ignore_inode = options.ignore_inode
        find = old.get
        rows = frame.rows
        append = rows.append
        unmodified = 0
        has_content = self._parent.has_content
        for name, stat in zip(names, stats, strict=True):
            entry = find(name)
            if (
                entry is not None
                and entry.ctime_ns == stat[5]
                and entry.mtime_ns == stat[4]
                and entry.size == stat[3]
                and entry.mode == stat[0]
                and entry.inode == stat[6]
                and stat[5] < before
                and stat[4] < before
                and stat[7] == 1
                and (entry.extras is None or not entry.extras.flags)
                and stat[0] & 0o170000 == _REGULAR
                and has_content(entry)
            ):
                unmodified += 1
                append(entry)
            else:
                append(self._other(frame, name, stat, entry, ignore_inode, before))
        self._result.files_unmodified += unmodified
        self.owners.update({stat[1] for stat in stats})
        self.groups.update({stat[2] for stat in stats})
        self._report(frame.directory)

    def _report(self, directory: OpenDirectory) -> None:
        """Pass on how far this is."""
        if self._tick.is_due():
            done = self._result
            files = done.files_new + done.files_changed + done.files_unmodified
            self._tick(files, self._files.bytes_read, directory.path)

    def _other(
        self,
        frame: _Frame,
        name: bytes,
        stat: Any,
        old: Entry | None,
        ignore_inode: bool,
        before: int,
    ) -> Any:
        """Return the row of anything but a plainly unchanged file."""
        kind = _FORMAT(stat[0])
        if kind == _DIRECTORY:
            frame.waiting = True
            return _Waiting(name, stat)
        link = b""
        if stat[7] > 1:
            key = (stat[8], stat[6])
            path = os.path.join(frame.directory.path, name).lstrip(b"/")
            first = self._links.get(key)
            if first is not None:
                frame.waiting = True
                first[2] -= 1
                if first[2] == 0:  # all names of the group are found: memory stays flat
                    del self._links[key]
                return _Linked(name, stat, old, first[0], first[1])
            link = path
        row: Any
        if kind == _REGULAR:
            row = self._file(frame, name, stat, old, ignore_inode, before, link)
            if type(row) is not Entry:
                frame.waiting = True
        else:
            row = self._special(frame, name, stat, kind, link)
            frame.waiting = frame.waiting or row is None
        if link:
            self._links[key] = [link, row, stat[7] - 1]
        return row

    def _file(
        self,
        frame: _Frame,
        name: bytes,
        stat: Any,
        old: Entry | None,
        ignore_inode: bool,
        before: int,
        link: bytes,
    ) -> Any:
        if old is not None and _FORMAT(old.mode) != _REGULAR:
            old = None
        if (
            old is not None
            and old.ctime_ns == stat[5]
            and old.mtime_ns == stat[4]
            and old.size == stat[3]
            and (ignore_inode or old.inode == stat[6])
            and max(stat[4], stat[5]) < before
            and (old.extras is None or not old.extras.flags)
            and self._parent.has_content(old)
        ):
            # ctime covers the attributes too, so only the group's first path can differ.
            self._result.files_unmodified += 1
            xattrs = old.extras.xattrs if old.extras else None
            return entry_of(name, stat, old.size, old.content, link=link, xattrs=xattrs)
        return self._files.read(frame.directory, name, stat, old, link)

    def _special(
        self, frame: _Frame, name: bytes, stat: Any, kind: int, link: bytes
    ) -> Entry | None:
        content: Any = None
        if kind == stat_module.S_IFLNK:
            try:
                content = os.readlink(name, dir_fd=frame.directory.fd)
            except OSError as error:
                path = os.path.join(frame.directory.path, name)
                self._result.errors.append(source_problem(path, error))
                return None
        elif kind in (stat_module.S_IFBLK, stat_module.S_IFCHR):
            content = [os.major(stat[9]), os.minor(stat[9])]
        xattrs = None
        try:
            xattrs = read_xattrs(frame.directory.fd, name)
        except OSError as error:
            self._lost_xattrs(os.path.join(frame.directory.path, name), error)
        return entry_of(name, stat, 0, content, link=link, xattrs=xattrs)

    def _lost_xattrs(self, path: bytes, error: OSError) -> None:
        what = "extended attributes cannot be read: {}; stored without them"
        self._result.errors.append(source_problem(path, error, what))

    def _failed(self, event: Failed) -> None:
        self._result.errors.append(source_problem(event.path, event.error))

    def _leave(self) -> None:
        frame = self._frames.pop()
        self._close_slice(frame)
        self._queue.append((frame, None, True))
        if self._queued > _QUEUED or len(self._queue) > _QUEUED:
            self._finish_queue(_QUEUED // 2)

    # -- finishing --------------------------------------------------------------------------

    def _close_slice(self, frame: _Frame) -> None:
        """Queue the rows of the current slice: all its subdirectories are queued before it."""
        if frame.rows:
            self._queue.append((frame, frame.rows, frame.waiting))
            self._queued += len(frame.rows)
            frame.rows = []
            frame.waiting = False
            frame.cursor = 0
            if self._queued > _QUEUED:  # a directory may be larger than everything else
                self._finish_queue(_QUEUED // 2)

    def _finish_queue(self, keep: int) -> None:
        """Finish directories in the order they were left, down to `keep` queued entries."""
        queue = self._queue
        while queue and (self._queued > keep or len(queue) > keep):
            frame, rows, waiting = queue.popleft()
            if rows is None:
                self._finish_directory(frame)
                continue
            self._queued -= len(rows)
            entries = [entry for row in rows if (entry := self._entry(row))] if waiting else rows
            self._result.bytes_total += sum([entry.size for entry in entries])
            frame.writer.extend(entries)

    def _entry(self, row: Any) -> Entry | None:
        """Wait for a row's entry; None for what vanished."""
        kind = type(row)
        if kind is Entry:
            return row  # type: ignore[no-any-return]
        if kind is _Frame:
            return row.entry  # type: ignore[no-any-return]
        entry: Entry | None = None
        if kind is PendingFile:
            entry = row.resolve()
            self._count(row.old, entry)
        elif kind is _Linked:
            entry = row.resolve()
            if entry is not None and _FORMAT(entry.mode) == _REGULAR:
                self._count(row.old, entry)
        elif kind is _Waiting:  # a directory that could not be opened; named already
            entry = entry_of(row.name, row.stat, 0, None, flags=Flag.UNREADABLE)
        return entry

    def _count(self, old: Entry | None, entry: Entry | None) -> None:
        """Count a file by what its content turned out to be."""
        if entry is None:
            return
        if old is None:
            self._result.files_new += 1
        elif (old.size, old.content) == (entry.size, entry.content):
            self._result.files_unmodified += 1
        else:
            self._result.files_changed += 1

    def _finish_directory(self, frame: _Frame) -> None:
        tree_id = frame.writer.finish()
        if not frame.name:
            self.tree = tree_id
        else:
            self._result.dirs += 1
            frame.entry = entry_of(frame.name, frame.stat, 0, tree_id, xattrs=frame.xattrs)


class _Waiting:
    """The row of a directory that the walk has not entered yet."""

    __slots__ = ("name", "stat")

    def __init__(self, name: bytes, stat: Any) -> None:
        self.name = name
        self.stat = stat


class _Linked:
    """The row of a further name of a hard-link group."""

    __slots__ = ("first", "link", "name", "old", "stat")

    def __init__(self, name: bytes, stat: Any, old: Entry | None, link: bytes, first: Any) -> None:
        self.name = name
        self.stat = stat
        self.old = old
        self.link = link
        self.first = first

    def resolve(self) -> Entry | None:
        """Wait for the content of the group's first name."""
        first = self.first.resolve() if type(self.first) is PendingFile else self.first
        if first is None:
            return None
        flags, xattrs = (first.extras.flags, first.extras.xattrs) if first.extras else (0, None)
        return entry_of(
            self.name,
            self.stat,
            first.size,
            first.content,
            flags=flags,
            link=self.link,
            xattrs=xattrs,
        )
