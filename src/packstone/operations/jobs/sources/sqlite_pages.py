"""Write the pages of an SQLite database to stdout as they are at one moment; a program of its own.

    python sqlite_pages.py DATABASE

Nothing is copied first, neither to memory nor to a file. A read transaction of SQLite itself keeps
the moment, and the bytes are read from the files beneath it:

- Without a write-ahead log nobody writes to the database file while a reader has its lock.
- With one, pages that the log holds up to the frame that its index names come from the log, all
  others from the database file. A checkpoint writes nothing to that file but frames that our
  transaction sees already, and those pages come from the log. A log is begun anew only once the
  file holds all of it and no reader needs it; then its salts change, and the file alone is right.

The formats are SQLite's "Database File Format" §4 and "WAL-mode File Format" §2.2; the rules of
locks its §2.3. Closing a file drops every lock that the process has on it (POSIX): hence the
files stay open until the transaction has ended, and all of it runs in a process of its own, for
the program that uses the library may have the same database open.
Standard library only.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import sys
import time
from collections.abc import Iterator
from urllib.parse import quote

_BUSY = 60.0  # seconds to wait for a writer that is committing
_BLOCK = 1 << 20
_WAL_HEADER = 32
_FRAME_HEADER = 24
_INDEX_HEADER = struct.Struct("=IIIBBHII8s8sII")  # 48 bytes, of which there are two copies
_TRIES = 1000


class LogChanged(Exception):
    """The write-ahead log is not the one that was looked at any more."""


class Log:
    """The pages in a write-ahead log up to one frame; made while a read transaction is open."""

    def __init__(self, database: str, page_size: int) -> None:
        self._page_size = page_size
        self._file = -1
        self.offsets: dict[int, int] = {}  # page number, from 1 → where in the log it is
        self._index = os.open(database + "-shm", os.O_RDONLY)
        frames, self.page_count, self._salts = _read_index(self._index, page_size)
        if not frames:
            return
        self._file = os.open(database + "-wal", os.O_RDONLY)
        offsets = {}
        step = _FRAME_HEADER + page_size
        try:
            for at in range(_WAL_HEADER, _WAL_HEADER + frames * step, step):
                offsets[struct.unpack(">I", self._read(at, 4))[0]] = at + _FRAME_HEADER
            self._require_same()
            self.offsets = offsets
        except LogChanged:
            pass

    def page(self, number: int) -> bytes:
        """Return a page; raises LogChanged once the log was begun anew."""
        data = self._read(self.offsets[number], self._page_size)
        self._require_same()  # after reading: a new log writes its header before its frames
        return data

    def _read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._file, size, offset)
        if len(data) != size:
            raise LogChanged
        return data

    def _require_same(self) -> None:
        if self._read(16, 8) != self._salts:
            raise LogChanged

    def close(self) -> None:
        """Close the files; only after the transaction, whose locks are on the index."""
        os.close(self._index)
        if self._file >= 0:
            os.close(self._file)


def _read_index(file: int, page_size: int) -> tuple[int, int, bytes]:
    """Return the frames that are committed, the database's pages with them, the log's salts."""
    for _ in range(_TRIES):
        first, second = os.pread(file, 48, 0), os.pread(file, 48, 48)
        if first == second and len(first) == 48:
            fields = _INDEX_HEADER.unpack(first)
            size = (fields[5] & 0xFE00) + ((fields[5] & 1) << 16)
            if fields[3] == 1 and fields[10:] == _sums(first[:40]):
                if fields[6] and size != page_size:  # an empty log has no size yet
                    raise sqlite3.DatabaseError(f"pages of {size} bytes, expected {page_size}")
                return fields[6], fields[7], fields[9]
        time.sleep(0.001)  # it is being written
    raise sqlite3.DatabaseError("the index of the write-ahead log cannot be read")


def _sums(data: bytes) -> tuple[int, int]:
    """Return the two sums over words in the machine's order, as the index has them."""
    one = two = 0
    words = struct.unpack(f"={len(data) // 4}I", data)
    for left, right in zip(words[::2], words[1::2], strict=True):
        one = (one + left + two) & 0xFFFFFFFF
        two = (two + right + one) & 0xFFFFFFFF
    return one, two


def read_pages(database: str) -> Iterator[bytes]:
    """Yield a database's bytes in order, as they are at one moment; up to 1 MiB each.

    Raises sqlite3.Error, OSError.
    """
    path = os.path.realpath(database)  # the log stands beside the file, not beside a link to it
    file = os.open(path, os.O_RDONLY)
    log = None
    connection = None
    try:
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(path))}?mode=rw",
            uri=True,
            isolation_level=None,
            timeout=_BUSY,
        )
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()  # takes the lock
        if not os.path.samestat(os.fstat(file), os.stat(path)):
            raise sqlite3.DatabaseError("the file was replaced by another")
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            log = Log(path, page_size)
        yield from _merge(file, log, page_size)
        connection.execute("ROLLBACK")
    finally:
        if connection is not None:
            connection.close()
        if log is not None:
            log.close()
        os.close(file)  # at last: this drops the locks of the process


def _merge(file: int, log: Log | None, page_size: int) -> Iterator[bytes]:
    """Yield the file's blocks, pages of the log in their places."""
    newer = sorted(log.offsets) if log is not None else []
    size = log.page_count * page_size if log is not None and newer else os.fstat(file).st_size
    at = 0
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        block = bytearray(os.pread(file, end - start, start))
        block += bytes(end - start - len(block))  # pages that only the log has
        while at < len(newer) and (newer[at] - 1) * page_size < end:
            assert log is not None
            try:
                place = (newer[at] - 1) * page_size - start
                block[place : place + page_size] = log.page(newer[at])
                at += 1
            except LogChanged:
                at = len(newer)  # the file holds what the log held
        yield bytes(block)


def main() -> int:
    """Write the database that the command line names to stdout; return the exit code."""
    try:
        for block in read_pages(sys.argv[1]):
            view = memoryview(block)
            while view:
                view = view[os.write(1, view) :]
    except BrokenPipeError:
        return 1
    except (sqlite3.Error, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
