"""Look into snapshots: list, find a path, open a file.

Reads only. Paths are bytes, absolute as they were stored, with or without a leading slash.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from typing import Any

from packstone.errors import Damaged, UsageError
from packstone.model import Entry, ObjectType, Snapshot
from packstone.operations.results import ListedEntry
from packstone.repository.contents import iter_range
from packstone.repository.reader import ObjectReader
from packstone.repository.trees import check_entry, find_entry, is_directory_mode, iter_entries


def split_path(path: bytes) -> list[bytes]:
    """Return the names in a path, from the root down; `.` and empty ones left out."""
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise UsageError(f"{os.fsdecode(path)!r} has '..' in it", hint="Name the path itself")
    return names


def find_path(reader: ObjectReader, snapshot: Snapshot, path: bytes) -> Entry | None:
    """Return the entry at a path, None for the root; raises UsageError when there is none."""
    entry: Entry | None = None
    tree_id = snapshot.tree
    names = split_path(path)
    for depth, name in enumerate(names):
        entry = find_entry(reader.get, tree_id, name)
        if entry is None:
            where = os.fsdecode(b"/" + b"/".join(names[: depth + 1]))
            raise UsageError(f"{where!r} is not in the snapshot", hint="Run: packstone ls latest")
        if depth < len(names) - 1:
            tree_id = directory_id(entry)
    return entry


def directory_id(entry: Entry) -> bytes:
    """Return the tree id of a directory's entry; raises UsageError for anything else."""
    check_entry(entry)
    if not is_directory_mode(entry.mode) or not isinstance(entry.content, bytes):
        raise UsageError(f"{os.fsdecode(entry.name)!r} is no readable directory in the snapshot")
    return entry.content


def list_entries(
    reader: ObjectReader, snapshot: Snapshot, path: bytes, *, recursive: bool
) -> Iterator[ListedEntry]:
    """Yield what stands in a directory, or a file itself; below it too if `recursive`."""

    def listed(where: bytes, entry: Entry) -> ListedEntry:
        return ListedEntry(
            where,
            entry,
            snapshot.users.get(entry.uid, ""),
            snapshot.groups.get(entry.gid, ""),
        )

    top = find_path(reader, snapshot, path)
    base = b"/" + b"/".join(split_path(path))
    if top is not None and not is_directory_mode(top.mode):
        yield listed(base, top)
        return
    tree_id = snapshot.tree if top is None else directory_id(top)
    where = base.rstrip(b"/")  # of the topmost level only: paths of a deep tree are long
    stack = [(b"", iter_entries(reader.get, tree_id))]
    while stack:
        name, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            where = where[: -len(name) - 1]
            continue
        below = where + b"/" + entry.name
        yield listed(below, entry)
        if recursive and is_directory_mode(entry.mode) and isinstance(entry.content, bytes):
            stack.append((entry.name, iter_entries(reader.get, entry.content)))
            where = below


class StoredFile(io.RawIOBase):
    """A file of a snapshot, readable and seekable; reads only the chunks it needs."""

    def __init__(self, reader: ObjectReader, entry: Entry) -> None:
        check_entry(entry)
        if not stat.S_ISREG(entry.mode) or entry.content is None:
            raise UsageError(f"{os.fsdecode(entry.name)!r} is no readable file in the snapshot")
        self._reader = reader
        self._entry = entry
        self._position = 0
        self._rows: Iterator[tuple[int, bytes, int]] | None = None
        self._chunk = (0, 0, b"")  # start, end, bytes; a hole has none

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._entry.size}
        position = base[whence] + offset
        if position < 0:
            raise ValueError(f"position {position} is before the start of the file")
        if position != self._position:
            self._position = position
            self._rows = None
        return position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer and return the count of bytes, 0 at the end.

        Raises Damaged or ObjectMissing where the repository cannot give the bytes.
        """
        view = memoryview(buffer).cast("B")
        if self._position >= self._entry.size or not view:
            return 0
        start, end, data = self._chunk
        if not start <= self._position < end:
            start, end, data = self._chunk = self._next_chunk()
        count = min(len(view), end - self._position)
        at = self._position - start
        view[:count] = data[at : at + count] if data else bytes(count)
        self._position += count
        return count

    def _next_chunk(self) -> tuple[int, int, bytes]:
        while True:
            if self._rows is None:
                self._rows = iter_range(self._reader.get, self._entry, self._position)
            row = next(self._rows, None)
            if row is None:
                raise Damaged(f"file {self._entry.name!r} ends before its size")
            start, chunk_id, size = row
            if start + size > self._position:
                data = self._reader.get(ObjectType.CHUNK, chunk_id) if chunk_id else b""
                if chunk_id and len(data) != size:
                    raise Damaged(
                        f"chunk {chunk_id.hex()[:12]}… has {len(data)} bytes, expected {size}"
                    )
                return start, start + size, data


def open_stored(reader: ObjectReader, entry: Entry) -> io.BufferedReader:
    """Return a buffered, seekable reader of a file's content."""
    return io.BufferedReader(StoredFile(reader, entry), 1 << 20)
