"""A file's list of chunks: inline in its entry, or in chunk-list pages.

Implements docs/format.md §6. Never reads packs itself. Invariant: sizes that a reader sees
add up to what the level above says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from packstone.errors import Damaged
from packstone.model import ID_SIZE, Entry, ObjectType
from packstone.repository.trees import MAX_LEVEL, MAX_PAGE, Get, Put

INLINE_ROWS = 32
_MIN_ROWS, _MAX_ROWS = 128, 4096  # what is written
_MOST_ROWS = 65_536  # what is read
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, bytes, list[int]]).decode


class ContentWriter:
    """Collect a file's chunks and holes in order; memory for one page a level."""

    def __init__(self, put: Put, level: int = 0) -> None:
        self._put = put
        self._level = level
        self._ids = bytearray()
        self._sizes: list[int] = []
        self._first: list[tuple[bytes, list[int]]] = []
        self._above: ContentWriter | None = None
        self.size = 0  # bytes of the file covered so far

    def add(self, chunk_id: bytes, size: int) -> None:
        """Append a chunk, or on higher levels a page."""
        self._ids += chunk_id
        self._sizes.append(size)
        self.size += size
        self._maybe_close()

    def add_hole(self, size: int) -> None:
        """Append a hole of `size` bytes."""
        self._sizes.append(-size)
        self.size += size
        self._maybe_close()

    def _maybe_close(self) -> None:
        rows = len(self._sizes)
        if rows < _MIN_ROWS:
            return
        last = self._ids[-ID_SIZE:]
        if rows >= _MAX_ROWS or (last and not last[self._level] and not last[self._level + 8] & 3):
            self._close_page()

    def _close_page(self) -> None:
        page = _encode((self._level, bytes(self._ids), self._sizes))
        if self._above is None:
            self._above = ContentWriter(self._put, self._level + 1)
        self._above.add(self._put(ObjectType.CHUNK_LIST, page), sum(map(abs, self._sizes)))
        self._ids.clear()
        self._sizes.clear()

    def finish(self) -> bytes | list[Any]:
        """Return the content of the file's entry."""
        if self._above is None and len(self._sizes) <= INLINE_ROWS:
            if not self._sizes:
                return b""
            if self._level == 0 and len(self._sizes) == 1 and self._sizes[0] > 0:
                return bytes(self._ids)
            return [self._level, bytes(self._ids), list(self._sizes)]
        if self._sizes:
            self._close_page()
        assert self._above is not None
        return self._above.finish()


def iter_content(get: Get, entry: Entry) -> Iterator[tuple[bytes, int]]:
    """Yield (chunk id, size) in the file's order; a hole has an empty id.

    Raises Damaged when the list is unsound or does not add up to the entry's size.
    """
    content = entry.content
    if content is None:  # it could not be read when the snapshot was taken
        return
    if isinstance(content, bytes):
        if content:
            yield content, entry.size
        return
    if not isinstance(content, list) or len(content) != 3:
        raise Damaged(f"entry {entry.name!r} has no sound list of chunks")
    level, ids, sizes = content
    total = 0
    for row in _iter_rows(get, level, ids, sizes, 0):
        total += row[1]
        yield row
    if total != entry.size:
        raise Damaged(f"entry {entry.name!r}: chunks of {total} bytes, expected {entry.size}")


def iter_range(get: Get, entry: Entry, start: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield (file offset, chunk id, size) from the row that covers byte `start` on.

    Pages that end before `start` are not read.
    """
    content = entry.content
    if isinstance(content, bytes):
        if content:
            yield 0, content, entry.size
        return
    if not isinstance(content, list) or len(content) != 3:
        raise Damaged(f"entry {entry.name!r} has no sound list of chunks")
    level, ids, sizes = content
    position = _skipped(level, ids, sizes, start, get)
    for chunk_id, size in _iter_rows(get, level, ids, sizes, start):
        yield position, chunk_id, size
        position += size


def list_chunks(entry: Entry) -> tuple[int, bytes]:
    """Return (level, ids) that a file's entry names itself; above level 0 they are of pages.

    Raises Damaged when the list is unsound.
    """
    content = entry.content
    if isinstance(content, bytes):
        return 0, content
    if not isinstance(content, list) or len(content) != 3:
        raise Damaged(f"entry {entry.name!r} has no sound list of chunks")
    _check_rows(*content)
    return content[0], content[1]


def list_pages(content: Any) -> list[bytes]:
    """Return the ids of the chunk-list pages that an entry's content names itself."""
    if isinstance(content, list) and len(content) == 3 and content[0]:
        return _split(content[1])
    return []


def _split(ids: bytes) -> list[bytes]:
    return [ids[start : start + ID_SIZE] for start in range(0, len(ids), ID_SIZE)]


def _check_rows(level: Any, ids: Any, sizes: Any) -> None:
    sound = (
        isinstance(level, int)
        and 0 <= level <= MAX_LEVEL
        and isinstance(ids, bytes)
        and isinstance(sizes, list)
        and len(sizes) <= _MOST_ROWS
        and all(type(size) is int for size in sizes)
        and 0 not in sizes
    )
    if sound:
        chunks = sum(size > 0 for size in sizes)
        sound = chunks * ID_SIZE == len(ids) and (level == 0 or chunks == len(sizes))
    if not sound:
        raise Damaged("unsound list of chunks")


def decode_list_page(data: bytes, level: int) -> tuple[bytes, list[int]]:
    """Return (ids, sizes) of a chunk-list page of the given level; raises Damaged."""
    if len(data) > MAX_PAGE:
        raise Damaged(f"chunk-list page of {len(data)} bytes, the limit is {MAX_PAGE}")
    try:
        found, ids, sizes = _decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Damaged(f"chunk-list page does not decode: {error}") from error
    if found != level:
        raise Damaged(f"chunk-list page of level {found} where {level} belongs")
    _check_rows(level, ids, sizes)
    return ids, sizes


def _iter_rows(
    get: Get, level: int, ids: bytes, sizes: list[int], start: int
) -> Iterator[tuple[bytes, int]]:
    """Yield rows of level 0 depth first, leaving out those that end at or before `start`."""
    _check_rows(level, ids, sizes)
    position = 0
    stack = [(level, _rows(ids, sizes))]
    while stack:
        level, rows = stack[-1]
        row = next(rows, None)
        if row is None:
            stack.pop()
            continue
        row_id, size = row
        if position + size <= start:
            position += size
            continue
        if level == 0:
            position += size
            yield row_id, size
            continue
        below = decode_list_page(get(ObjectType.CHUNK_LIST, row_id), level - 1)
        if sum(map(abs, below[1])) != size:
            raise Damaged("chunk-list page does not add up")
        stack.append((level - 1, _rows(*below)))


def _rows(ids: bytes, sizes: list[int]) -> Iterator[tuple[bytes, int]]:
    position = 0
    for size in sizes:
        if size > 0:
            yield ids[position : position + ID_SIZE], size
            position += ID_SIZE
        else:
            yield b"", -size


def _skipped(level: int, ids: bytes, sizes: list[int], start: int, get: Get) -> int:
    """Return the file offset of the first row that `_iter_rows` yields for `start`."""
    _check_rows(level, ids, sizes)
    position = 0
    while True:
        below = b""
        for row_id, size in _rows(ids, sizes):
            if position + size > start:
                below = row_id
                break
            position += size
        if level == 0 or not below:
            return position
        ids, sizes = decode_list_page(get(ObjectType.CHUNK_LIST, below), level - 1)
        level -= 1
