"""Copy a tree into a repository that cuts or names chunks otherwise: read, cut and store anew.

Directories and files that occur again are not read again; what is remembered of files lies in a
temporary database, so that memory does not grow with them.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import msgspec

from packstone.chunking.chunker import Chunker, ChunkerParams
from packstone.errors import Damaged
from packstone.model import Entry, ObjectType
from packstone.operations.parent import NOTHING_OLD
from packstone.operations.storing import ChunkStore, Workers, drain
from packstone.repository.contents import ContentWriter, iter_content
from packstone.repository.repository import ObjectRepository
from packstone.repository.trees import (
    DirectoryWriter,
    check_entry,
    is_directory_mode,
    iter_entries,
)
from packstone.repository.writer import ObjectWriter


class _Memory:
    """What became of contents: key of the old one → the new one."""

    def __init__(self) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="packstone-")  # noqa: SIM115
        self._database = sqlite3.connect(self._file.name, isolation_level=None)
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def get(self, key: bytes) -> Any:
        """Return what was kept under a key, None if nothing was."""
        row = self._database.execute("SELECT value FROM seen WHERE key = ?", (key,)).fetchone()
        return None if row is None else msgspec.msgpack.decode(row[0])

    def put(self, key: bytes, value: Any) -> None:
        """Keep a value."""
        encoded = msgspec.msgpack.encode(value)
        self._database.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", (key, encoded))

    def close(self) -> None:
        """Forget everything."""
        self._database.close()
        self._file.close()


class Recutter:
    """Copy trees from one repository to another, cut anew."""

    def __init__(self, source: ObjectRepository, target: ObjectRepository, threads: int) -> None:
        self._source = source
        self._target = target
        self._threads = threads
        self._memory = _Memory()

    def close(self) -> None:
        """Forget what became of files and directories."""
        self._memory.close()

    def copy(self, tree_id: bytes, writer: ObjectWriter) -> bytes:
        """Copy a directory and all below it; return its id in the other repository.

        Raises Damaged, ObjectMissing where the source cannot be read, StorageError.
        """
        params = ChunkerParams(self._target.config.average, self._target.hasher.cutting_secret)
        workers = Workers(self._threads)
        try:
            store = ChunkStore(
                writer,
                self._target.hasher,
                Chunker(params),
                workers,
                self._target.bases() if self._target.storage.is_near else None,
            )
            return self._directory(tree_id, store)
        finally:
            workers.close()

    def _directory(self, tree_id: bytes, store: ChunkStore) -> bytes:
        get = self._source.reader.get
        frames: list[tuple[bytes, Entry | None, Iterator[Entry], DirectoryWriter]] = []

        def enter(found: bytes, entry: Entry | None) -> None:
            directory = DirectoryWriter(store.writer.put)
            frames.append((found, entry, iter_entries(get, found), directory))

        enter(tree_id, None)
        while True:
            old_id, own, entries, directory = frames[-1]
            entry = next(entries, None)
            if entry is None:
                frames.pop()
                new_id = directory.finish()
                self._memory.put(b"d" + old_id, new_id)
                if own is None:
                    return new_id
                frames[-1][3].extend([msgspec.structs.replace(own, content=new_id)])
                continue
            check_entry(entry)
            if is_directory_mode(entry.mode) and isinstance(entry.content, bytes):
                known = self._memory.get(b"d" + entry.content)
                if known is None:
                    enter(entry.content, entry)
                    continue
                entry = msgspec.structs.replace(entry, content=known)
            elif entry.mode & 0o170000 == 0o100000 and entry.content:
                content = self._content(entry, store)
                entry = msgspec.structs.replace(entry, content=content)
            directory.extend([entry])

    def _content(self, entry: Entry, store: ChunkStore) -> Any:
        """Return the content of a file in the other repository, stored if it is not there."""
        key = b"f" + msgspec.msgpack.encode((entry.size, entry.content))
        if len(key) > 512:
            key = b"h" + self._source.hasher.id(ObjectType.CHUNK_LIST, key)
        known = self._memory.get(key)
        if known is not None:
            return known
        content = ContentWriter(store.writer.put)
        pending: deque[Future[list[tuple[bytes, int]]]] = deque()
        rows = iter_content(self._source.reader.get, entry)
        row = next(rows, None)
        while row is not None:
            if not row[0]:
                content.add_hole(row[1])
                row = next(rows, None)
                continue
            run = _Run(self._source, row, rows)
            store.store_run(content, pending, run.read, NOTHING_OLD, content.size)
            drain(content, pending, wait=True)
            row = run.following
        found = content.finish()
        self._memory.put(key, found)
        return found


class _Run:
    """The bytes of the chunks of a file up to its next hole, read one after the other."""

    def __init__(
        self, source: ObjectRepository, first: tuple[bytes, int], rows: Iterator[tuple[bytes, int]]
    ) -> None:
        self._source = source
        self._rows = rows
        self._row: tuple[bytes, int] | None = first
        self._rest = memoryview(b"")
        self.following: tuple[bytes, int] | None = None  # the hole that ended the run

    def read(self, view: memoryview) -> int:
        """Fill a view; fewer bytes only at the end of the run."""
        done = 0
        while done < len(view):
            if not self._rest:
                if self._row is None:
                    break
                chunk_id, size = self._row
                data = self._source.reader.get(ObjectType.CHUNK, chunk_id)
                if len(data) != size:
                    raise Damaged(
                        f"chunk {chunk_id.hex()[:12]}… has {len(data)} bytes, expected {size}"
                    )
                self._rest = memoryview(data)
                self._row = next(self._rows, None)
                if self._row is not None and not self._row[0]:
                    self.following, self._row = self._row, None
            count = min(len(view) - done, len(self._rest))
            view[done : done + count] = self._rest[:count]
            self._rest = self._rest[count:]
            done += count
        return done
