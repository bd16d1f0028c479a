"""Files of snapshots for whoever looks at them again and again: a mount, fsspec.

Keeps decoded pages of directories and reads ahead in files that are read in order; all of it
bounded. Reads only; errors are Damaged, ObjectMissing, StorageError.
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from packstone.errors import Damaged
from packstone.model import KIB, MIB, Entry, ObjectType
from packstone.repository.contents import iter_range
from packstone.repository.reader import ObjectReader
from packstone.repository.trees import check_entry, decode_page

_PAGES = 64  # decoded pages that are kept, of up to 1,024 rows each
_AHEAD = 8 * MIB  # of one file that is read in order
_FIRST_AHEAD = 256 * KIB
_BEHIND = 2 * MIB  # a kernel asks for pages out of order


class _Page(NamedTuple):
    level: int
    names: list[bytes]
    rows: list[Any]


class SnapshotFiles:
    """Directories and files below tree ids; safe to use from several threads."""

    def __init__(self, reader: ObjectReader, threads: int) -> None:
        self._reader = reader
        self._pages: OrderedDict[bytes, _Page] = OrderedDict()
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="packstone-ahead")

    def _page(self, page_id: bytes) -> _Page:
        with self._lock:
            page = self._pages.get(page_id)
            if page is not None:
                self._pages.move_to_end(page_id)
                return page
        level, rows = decode_page(self._reader.get(ObjectType.TREE, page_id))
        names = [row[0] if level else row.name for row in rows]  # type: ignore[union-attr,index]
        page = _Page(level, names, list(rows))
        with self._lock:
            self._pages[page_id] = page
            while len(self._pages) > _PAGES:
                self._pages.popitem(last=False)
        return page

    def find(self, tree_id: bytes, name: bytes) -> Entry | None:
        """Return the entry of a name in a directory, None if there is none."""
        level = -1
        while True:
            page = self._page(tree_id)
            if level not in (-1, page.level):
                raise Damaged(f"tree page of level {page.level} where {level} belongs")
            at = bisect.bisect_right(page.names, name) - 1
            if at < 0:
                return None
            if page.level:
                level, tree_id = page.level - 1, page.rows[at][1]
                continue
            if page.names[at] != name:
                return None
            entry: Entry = page.rows[at]
            check_entry(entry)
            return entry

    def entries(self, tree_id: bytes) -> Iterator[Entry]:
        """Yield a directory's entries, names ascending."""
        stack = [(-1, tree_id)]
        while stack:
            level, page_id = stack.pop()
            page = self._page(page_id)
            if level not in (-1, page.level):
                raise Damaged(f"tree page of level {page.level} where {level} belongs")
            if page.level:
                stack.extend((page.level - 1, row[1]) for row in reversed(page.rows))
            else:
                yield from page.rows

    def open(self, entry: Entry) -> AheadReader:
        """Open a regular file that could be read when its snapshot was taken."""
        return AheadReader(self._reader, entry, self._workers)

    def close(self) -> None:
        """Stop reading ahead."""
        self._workers.shutdown(wait=True, cancel_futures=True)


class AheadReader:
    """One open file; reads at any offset, ahead of whoever reads in order."""

    def __init__(self, reader: ObjectReader, entry: Entry, workers: ThreadPoolExecutor) -> None:
        self.size = entry.size
        self._entry = entry
        self._reader = reader
        self._workers = workers
        self._lock = threading.Lock()
        self._rows: Iterator[tuple[int, bytes, int]] = iter(())
        self._window: deque[tuple[int, int, Future[bytes] | None]] = deque()  # start, end, bytes
        self._ahead = 0
        self._reached = 0  # the largest offset that was asked for

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from an offset, fewer only at the end of the file."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        with self._lock:
            self._move_to(offset, end)
            found = [row for row in self._window if row[0] < end and row[1] > offset]
        parts: list[bytes | memoryview] = []
        for start, stop, future in found:
            low, high = max(offset, start), min(end, stop)
            if future is None:
                parts.append(bytes(high - low))
            else:
                parts.append(memoryview(future.result())[low - start : high - start])
        data = b"".join(parts)
        if len(data) != end - offset:
            raise Damaged(f"file {self._entry.name!r} ends before its size")
        return data

    def _move_to(self, offset: int, end: int) -> None:
        """Let the window cover a range, and what is likely to be asked for next."""
        window = self._window
        inside = bool(window) and window[0][0] <= offset <= window[-1][1]
        if not inside:
            window.clear()
            self._rows = iter_range(self._reader.get, self._entry, offset)
            self._ahead = 0
            self._reached = offset
        elif end > self._reached:
            self._ahead = min(_AHEAD, max(_FIRST_AHEAD, 2 * self._ahead))
        self._reached = max(self._reached, end)
        wanted = self._reached + self._ahead
        while not window or window[-1][1] < min(wanted, self.size):
            row = next(self._rows, None)
            if row is None:
                break
            start, chunk_id, size = row
            future = self._workers.submit(self._get, chunk_id, size) if chunk_id else None
            window.append((start, start + size, future))
        while len(window) > 1 and window[0][1] < self._reached - _BEHIND:
            window.popleft()

    def _get(self, chunk_id: bytes, size: int) -> bytes:
        data = self._reader.get(ObjectType.CHUNK, chunk_id)
        if len(data) != size:
            raise Damaged(f"chunk {chunk_id.hex()[:12]}… has {len(data)} bytes, expected {size}")
        return data
