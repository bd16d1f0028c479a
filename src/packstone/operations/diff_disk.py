"""Compare a place in a snapshot with a directory on the disk.

Metadata first: a file whose size and mtime are the stored ones counts as unchanged, unless all
are to be read. Content is compared chunk by chunk at the stored cuts, so nothing is cut and
nothing is fetched from the repository but trees. Names of hard-link groups are not compared.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from packstone.codec.hashing import Hasher
from packstone.errors import UsageError
from packstone.filesystem.directory import OpenDirectory
from packstone.filesystem.events import Enter, Failed, Leave, Slice
from packstone.filesystem.ignore import Filter, Rules
from packstone.filesystem.metadata import (
    CTIME_NS,
    MODE,
    MTIME_NS,
    RDEV,
    SIZE,
    StatRow,
    read_xattrs,
    read_xattrs_of,
)
from packstone.filesystem.reading import open_regular, read_into
from packstone.filesystem.walk import walk
from packstone.model import Entry, Flag, ObjectType, Problem
from packstone.operations.compare import tree_of
from packstone.operations.diff import DiffResult, Place, make_row, settle, walk_changes
from packstone.operations.files import entry_of
from packstone.repository.contents import iter_content
from packstone.repository.reader import ObjectReader
from packstone.repository.repository import ObjectRepository
from packstone.repository.trees import check_entry, is_directory_mode, iter_entries
from packstone.storage.base import as_directory

_READ = 1 << 20


class _Frame:
    """A directory on the disk beside the stored one."""

    def __init__(self, reader: ObjectReader, tree_id: bytes | None, below: bytes) -> None:
        self._entries = iter_entries(reader.get, tree_id) if tree_id else iter(())
        self._next = next(self._entries, None)
        self.below = below  # the path from the place on
        self.known: dict[bytes, Entry] = {}  # of the last slice
        self.failed: set[bytes] = set()

    def upto(self, name: bytes | None) -> Iterator[Entry]:
        """Yield the stored entries up to a name, the rest without one."""
        while self._next is not None and (name is None or self._next.name <= name):
            yield self._next
            self._next = next(self._entries, None)


def diff_disk(
    repository: ObjectRepository,
    place: Place,
    path: bytes,
    *,
    exclude: Sequence[str] = (),
    read_data: bool = False,
) -> DiffResult:
    """Compare a place in a snapshot (old) with a path on the disk (new).

    Names that `exclude` matches count on neither side. With `read_data` every file is read.
    Content that differs has an entry whose `content` says nothing. What cannot be read is in
    the result's `errors`. Raises UsageError for a path that is not there, Damaged,
    ObjectMissing.
    """
    return _Comparison(repository, place, path, exclude, read_data).run()


class _Comparison:
    def __init__(
        self,
        repository: ObjectRepository,
        place: Place,
        path: bytes,
        exclude: Sequence[str],
        read_data: bool,
    ) -> None:
        self._reader = repository.reader
        self._hash = Hasher.function(repository.hasher, ObjectType.CHUNK)
        self._place = place
        self._top = os.path.abspath(path)
        directory = as_directory(repository.storage)
        own = os.stat(directory.path) if directory is not None else None
        self._rules = Rules(
            patterns=tuple(exclude),
            exclude_paths=((own.st_dev, own.st_ino),) if own is not None else (),
        )
        self._filter = Filter(Rules(patterns=tuple(exclude)))
        self._read_data = read_data
        self._frames: list[_Frame | None] = []  # None on the way to the top
        self._result = DiffResult()
        self._buffer = memoryview(bytearray(_READ))

    def run(self) -> DiffResult:
        if not os.path.lexists(self._top):
            raise UsageError(f"{os.fsdecode(self._top)!r} is not there")
        for event in walk([self._top], self._rules):
            if isinstance(event, Slice):
                self._slice(event)
            elif isinstance(event, Enter):
                self._enter(event)
            elif isinstance(event, Leave):
                self._leave()
            else:
                self._failed(event)
        return settle(self._result)

    # -- events -----------------------------------------------------------------------------

    def _enter(self, event: Enter) -> None:
        above = self._frames[-1] if self._frames else None
        if above is not None:
            old = above.known.get(event.name)
            below = above.below + b"/" + event.name
            self._frames.append(_Frame(self._reader, tree_of(old), below))
        elif event.directory.path == self._top:
            self._frames.append(_Frame(self._reader, self._place.tree, b""))
        else:
            self._frames.append(None)

    def _slice(self, event: Slice) -> None:
        frame = self._frames[-1]
        if frame is None:
            for name, row in zip(event.names, event.stats, strict=True):
                if event.directory.path_of(name) == self._top:
                    self._look_at_top(event.directory, name, row)
            return
        frame.known = {entry.name: entry for entry in frame.upto(event.names[-1])}
        names = set(event.names)
        for name, entry in frame.known.items():
            if name not in names and name not in frame.failed:
                self._removed(frame.below + b"/" + name, entry)
        for name, row in zip(event.names, event.stats, strict=True):
            old = frame.known.get(name)
            self._compare(frame.below + b"/" + name, old, event.directory, name, row)

    def _look_at_top(self, directory: OpenDirectory, name: bytes, row: StatRow) -> None:
        entry = self._place.entry
        stored_directory = entry is None or is_directory_mode(entry.mode)
        if not (stat.S_ISDIR(row[MODE]) and stored_directory):
            self._compare(b"", entry, directory, name, row)

    def _leave(self) -> None:
        frame = self._frames.pop()
        if frame is not None:
            for entry in frame.upto(None):
                if entry.name not in frame.failed:
                    self._removed(frame.below + b"/" + entry.name, entry)

    def _failed(self, event: Failed) -> None:
        frame = self._frames[-1] if self._frames else None
        if frame is not None:
            frame.failed.add(os.path.basename(event.path))
        self._problem(event.path, event.error)

    def _problem(self, path: bytes, error: OSError) -> None:
        reason = error.strerror or str(error)
        self._result.errors.append(Problem(path, f"cannot be read: {reason}"))

    # -- rows -------------------------------------------------------------------------------

    def _note(self, below: bytes, old: Entry | None, new: Entry | None) -> None:
        top = b"" if self._top == b"/" else self._top
        row = make_row(self._place.base, top, below, (old, new))
        if row is not None:
            self._result.differences.append(row)

    def _removed(self, below: bytes, entry: Entry) -> None:
        """Note an entry, and what is below it, unless it was to be left out."""
        where, name = os.path.split(os.path.join(self._top, below[1:]))
        text = os.fsdecode(where.strip(b"/"))
        is_directory = is_directory_mode(entry.mode)
        if self._filter.excludes(text + "/" if text else "", name, is_directory):
            return
        self._note(below, entry, None)
        self._removed_below(below, entry)

    def _removed_below(self, below: bytes, entry: Entry | None) -> None:
        for path, (old, _new) in walk_changes(self._reader, tree_of(entry), None):
            self._note(below + path, old, None)

    def _compare(
        self, below: bytes, old: Entry | None, directory: OpenDirectory, name: bytes, row: StatRow
    ) -> None:
        try:
            new = self._read(old, directory, name, row)
        except OSError as error:
            self._problem(directory.path_of(name), error)
            return
        if new is not None:
            self._note(below, old, new)
            if old is not None and is_directory_mode(old.mode) and not is_directory_mode(new.mode):
                self._removed_below(below, old)

    def _read(
        self, old: Entry | None, directory: OpenDirectory, name: bytes, row: StatRow
    ) -> Entry | None:
        """Return what is on the disk, None if it is certain to be what is stored."""
        if old is not None:
            check_entry(old)
            if (old.mode ^ row[MODE]) & 0o170000:
                old = None
        trusted = (
            old is not None and old.ctime_ns == row[CTIME_NS] and not self._read_data
        )  # nothing was changed since: ctime covers the attributes, too
        if old is not None and trusted and old.mtime_ns == row[MTIME_NS]:
            is_same = old.size == row[SIZE] or not stat.S_ISREG(old.mode)
            if is_same and old.content is not None:
                return None
        if old is not None and trusted:
            xattrs = old.extras.xattrs if old.extras else None
        else:
            xattrs = self._xattrs(directory, name, row)
        flags = old.extras.flags & ~Flag.UNREADABLE if old is not None and old.extras else 0
        link = old.extras.link if old is not None and old.extras else b""
        content = self._content(old, directory, name, row)
        size = row[SIZE] if stat.S_ISREG(row[MODE]) else 0
        return entry_of(name, row, size, content, flags=flags, link=link, xattrs=xattrs)

    def _xattrs(
        self, directory: OpenDirectory, name: bytes, row: StatRow
    ) -> list[tuple[bytes, bytes]] | None:
        if not stat.S_ISDIR(row[MODE]):
            return read_xattrs(directory.fd, name)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=directory.fd)
        except PermissionError:  # the walk fails on it, too, and says so
            return None
        try:
            return read_xattrs_of(fd)
        finally:
            os.close(fd)

    def _content(
        self, old: Entry | None, directory: OpenDirectory, name: bytes, row: StatRow
    ) -> bytes | list[int] | None:
        """Return the stored content where it is the same, else something that is not."""
        mode = row[MODE]
        if stat.S_ISLNK(mode):
            return os.readlink(name, dir_fd=directory.fd)
        if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
            return [os.major(row[RDEV]), os.minor(row[RDEV])]
        if stat.S_ISDIR(mode):  # what is in it has rows of its own
            return bytes(32)
        if not stat.S_ISREG(mode):
            return None
        if not row[SIZE]:
            return b""
        if old is None or old.size != row[SIZE] or old.content is None:
            return bytes(32)
        if old.mtime_ns == row[MTIME_NS] and not self._read_data:
            return old.content
        if self._same_bytes(old, directory.fd, name):
            return old.content
        return bytes(32)

    def _same_bytes(self, old: Entry, directory_fd: int, name: bytes) -> bool:
        fd = open_regular(directory_fd, name)
        try:
            position = 0
            for chunk_id, size in iter_content(self._reader.get, old):
                if not (self._is(fd, position, size, chunk_id)):
                    return False
                position += size
            return not read_into(fd, self._buffer[:1], position)
        finally:
            os.close(fd)

    def _is(self, fd: int, position: int, size: int, chunk_id: bytes) -> bool:
        """Return whether a part of a file is a chunk, or zeros where there is none."""
        if chunk_id:
            if size > len(self._buffer):
                self._buffer = memoryview(bytearray(size))
            view = self._buffer[:size]
            return read_into(fd, view, position) == size and self._hash(view) == chunk_id
        while size:
            view = self._buffer[: min(size, len(self._buffer))]
            if read_into(fd, view, position) != len(view) or any(view.tobytes().strip(b"\0")):
                return False
            position += len(view)
            size -= len(view)
        return True
