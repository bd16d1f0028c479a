"""Drop paths from stored snapshots: new trees without them, new snapshots of these trees.

Only directories on the way to what is dropped are written, and of those the pages that change;
no chunk is read. A hard-link group whose first path is dropped is named by the first one that
stays (docs/format.md §6). Old snapshots are deleted last, each after its new version is durable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from packstone.errors import UsageError
from packstone.filesystem.ignore import Filter, Rules
from packstone.model import Entry, Snapshot
from packstone.operations.compare import tree_of
from packstone.operations.tag import delete_replaced, with_origin
from packstone.repository.reader import ObjectReader
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow
from packstone.repository.trees import (
    DirectoryWriter,
    Put,
    check_entry,
    is_directory_mode,
    iter_entries,
    iter_pages,
)

_KNOWN = 200_000  # directories whose outcome is remembered for the next snapshot


class Rewritten(NamedTuple):
    """A snapshot and its new version, without an id after a dry run; what was dropped."""

    old: SnapshotRow
    new: SnapshotRow
    files_dropped: int
    bytes_dropped: int


@dataclass(slots=True)
class RewriteResult:
    """What became of each snapshot: `emptied` would have lost all sources and were left alone."""

    rewritten: list[Rewritten] = field(default_factory=list)
    unchanged: list[SnapshotRow] = field(default_factory=list)
    emptied: list[SnapshotRow] = field(default_factory=list)
    bytes_stored: int = 0  # of new tree pages
    forgotten: bool = False  # whether the old versions were deleted
    dry_run: bool = False


def rewrite_snapshots(
    repository: ObjectRepository,
    rows: Sequence[SnapshotRow],
    *,
    exclude: Sequence[str],
    forget: bool = False,
    dry_run: bool = False,
) -> RewriteResult:
    """Drop what patterns as those of `--exclude` match, also if it is a source itself.

    Raises UsageError, StorageError, Damaged, ObjectMissing: then all old snapshots are there.
    """
    filter_ = Filter(Rules(patterns=tuple(exclude)))
    if not filter_.looks_at_entries:
        raise UsageError("no pattern is named", hint="Say --exclude PATTERN")
    result = RewriteResult(dry_run=dry_run)
    writer = repository.writer(dry_run=dry_run)
    trees = _Trees(repository.reader, writer.put, filter_)
    try:
        for row in rows:
            if all(trees.excludes(path, True) for path in row.snapshot.paths):
                result.emptied.append(row)
                continue
            tree, counts = trees.rewrite(row.snapshot.tree)
            if tree == row.snapshot.tree:
                result.unchanged.append(row)
                continue
            result.rewritten.append(_rewritten(row, tree, counts, exclude))
        if dry_run:
            writer.finish()
        else:
            for at, done in enumerate(result.rewritten):
                new_id = writer.commit(done.new.snapshot, like=done.old.id)
                result.rewritten[at] = done._replace(new=done.new._replace(id=new_id))
                if forget:
                    delete_replaced(repository, done.old)
            result.forgotten = forget
    finally:
        writer.abandon()
    result.bytes_stored = writer.bytes_stored
    return result


def _rewritten(row: SnapshotRow, tree: bytes, counts: _Counts, exclude: Sequence[str]) -> Rewritten:
    old = row.snapshot
    summary = {
        **old.summary,
        "files": counts.files,
        "dirs": counts.dirs,
        "bytes_total": counts.size,
    }
    excludes = [*old.excludes, *(each for each in exclude if each not in old.excludes)]
    changed: Snapshot = msgspec.structs.replace(old, tree=tree, excludes=excludes, summary=summary)
    return Rewritten(
        row,
        SnapshotRow("", with_origin(row, changed)),
        old.summary.get("files", counts.files) - counts.files,
        old.summary.get("bytes_total", counts.size) - counts.size,
    )


class _Counts(NamedTuple):
    """What stays: regular files, directories, bytes of files."""

    files: int = 0
    dirs: int = 0
    size: int = 0

    def plus(self, other: _Counts) -> _Counts:
        return _Counts(self.files + other.files, self.dirs + other.dirs, self.size + other.size)


class _Frame:
    """A directory on the way down."""

    __slots__ = ("changes", "counts", "entries", "entry", "regrouped", "tree_id")

    def __init__(self, entry: Entry | None, tree_id: bytes, entries: Iterator[Entry]) -> None:
        self.entry = entry  # None for the root
        self.tree_id = tree_id
        self.entries = entries
        self.changes: dict[bytes, Entry | None] = {}  # None: dropped
        self.counts = _Counts()
        self.regrouped = False  # whether names of hard-link groups changed here or below


class _Trees:
    """Rewrite trees; what became of a directory is remembered for snapshots that share it."""

    def __init__(self, reader: ObjectReader, put: Put, filter_: Filter) -> None:
        self._get = reader.get
        self._put = put
        self._filter = filter_
        self._known: dict[tuple[str, bytes], tuple[bytes, _Counts]] = {}
        self._groups: dict[bytes, bytes] = {}
        self._path = b""
        self._text = ""

    def excludes(self, path: bytes, is_directory: bool) -> bool:
        """Return whether a path, or a directory above it, is dropped."""
        text = ""
        names = [name for name in path.split(b"/") if name]
        for at, name in enumerate(names, 1):
            if self._filter.excludes(text, name, is_directory or at < len(names)):
                return True
            text += os.fsdecode(name) + "/"
        return False

    def rewrite(self, tree_id: bytes) -> tuple[bytes, _Counts]:
        """Return the id of a root without what is dropped, and what stays."""
        self._groups = {}
        self._move(b"")
        stack = [self._frame(None, tree_id)]
        while True:
            frame = stack[-1]
            entry = next(frame.entries, None)
            if entry is not None:
                below = self._look_at(frame, entry)
                if below is not None:
                    stack.append(below)
                continue
            new_id = self._write(frame) if frame.changes else frame.tree_id
            if not frame.regrouped and len(self._known) < _KNOWN:
                self._known[self._key(frame.tree_id)] = (new_id, frame.counts)
            stack.pop()
            if frame.entry is None:
                return new_id, frame.counts
            self._move(self._path[: -len(frame.entry.name) - 1])
            stack[-1].regrouped |= frame.regrouped
            self._place(stack[-1], frame.entry, new_id, frame.counts)

    def _look_at(self, frame: _Frame, entry: Entry) -> _Frame | None:
        """Settle an entry; return the directory that has to be looked at first."""
        check_entry(entry)
        is_directory = is_directory_mode(entry.mode)
        if self._filter.excludes(self._text, entry.name, is_directory):
            frame.changes[entry.name] = None
            return None
        tree_id = tree_of(entry)
        if tree_id is not None:
            self._move(self._path + b"/" + entry.name)
            known = self._known.get(self._key(tree_id))
            if known is None:
                return self._frame(entry, tree_id)
            self._move(self._path[: -len(entry.name) - 1])
            self._place(frame, entry, *known)
            return None
        if entry.mode & 0o170000 == 0o100000:
            frame.counts = frame.counts.plus(_Counts(1, 0, entry.size))
        if entry.extras is not None and entry.extras.link:
            link = self._group(entry.extras.link, entry.name)
            if link != entry.extras.link:
                extras = msgspec.structs.replace(entry.extras, link=link)
                frame.changes[entry.name] = msgspec.structs.replace(entry, extras=extras)
                frame.regrouped = True
        return None

    def _group(self, link: bytes, name: bytes) -> bytes:
        """Return what a hard-link group is called now; `name` is the one at hand."""
        new = self._groups.get(link)
        if new is None:
            new = (self._path + b"/" + name)[1:] if self.excludes(link, False) else link
            self._groups[link] = new
        return new

    def _place(self, frame: _Frame, entry: Entry, new_id: bytes, counts: _Counts) -> None:
        frame.counts = frame.counts.plus(counts).plus(_Counts(dirs=1))
        if new_id != entry.content:
            frame.changes[entry.name] = msgspec.structs.replace(entry, content=new_id)

    def _write(self, frame: _Frame) -> bytes:
        changes = frame.changes
        directory = DirectoryWriter(self._put)
        for page in iter_pages(self._get, frame.tree_id):
            kept = [changes.get(entry.name, entry) for entry in page]
            directory.extend(entry for entry in kept if entry is not None)
        return directory.finish()

    def _frame(self, entry: Entry | None, tree_id: bytes) -> _Frame:
        return _Frame(entry, tree_id, iter_entries(self._get, tree_id))

    def _key(self, tree_id: bytes) -> tuple[str, bytes]:
        return (self._text if self._filter.needs_path else "", tree_id)

    def _move(self, path: bytes) -> None:
        self._path = path
        self._text = (path[1:] + b"/").decode("utf-8", "surrogateescape") if path else ""
