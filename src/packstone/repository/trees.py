"""Directory pages: encode, decode, validate, walk.

Implements docs/format.md §6. Never reads packs itself: pages come from a `get` function and
go to a `put` function. Invariant: what a decoder returns is strictly sorted and has sound
names, so nothing that was stored can name a place outside its directory.
"""

from __future__ import annotations

import operator
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from packstone.errors import Damaged, ObjectMissing
from packstone.model import ID_SIZE, MIB, Entry, Flag, ObjectType

MAX_PAGE = 16 * MIB
MAX_LEVEL = 8

Put = Callable[[ObjectType, bytes], bytes]
Get = Callable[[ObjectType, bytes], bytes]

_MIN_ROWS, _MAX_ROWS = 32, 1024
_MAX_EXTRAS = 4 * MIB  # of a page: keeps pages of entries with large attributes readable
_encode = msgspec.msgpack.Encoder().encode
_decode_any = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw]).decode
_decode_entries = msgspec.msgpack.Decoder(list[Entry]).decode
_decode_refs = msgspec.msgpack.Decoder(list[tuple[bytes, bytes, int]]).decode
_crc32 = zlib.crc32


class DirectoryWriter:
    """Turn a directory's entries, in ascending order, into pages; memory for one page a level."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._entries: list[Entry] = []
        self._extras_size = 0
        self._levels: list[list[tuple[bytes, bytes, int]]] = []

    def extend(self, entries: Iterable[Entry]) -> None:
        """Add entries that follow all earlier ones."""
        rows = self._entries
        append = rows.append
        for entry in entries:
            append(entry)
            if not _crc32(entry.name) & 0xFF and len(rows) >= _MIN_ROWS:
                self._close_page()
            elif entry.extras is not None:
                self._extras_size += sum(len(value) for _, value in entry.extras.xattrs)
                if self._extras_size >= _MAX_EXTRAS:
                    self._close_page()
            if len(rows) >= _MAX_ROWS:
                self._close_page()

    def _close_page(self) -> None:
        rows = self._entries
        page_id = self._put(ObjectType.TREE, _encode((0, rows)))
        self._add_ref(0, (rows[0].name, page_id, len(rows)))
        rows.clear()
        self._extras_size = 0

    def _add_ref(self, level: int, ref: tuple[bytes, bytes, int]) -> None:
        if level == len(self._levels):
            self._levels.append([])
        refs = self._levels[level]
        number = level + 1
        # The boundary belongs before a row: rows are known by their first names.
        if len(refs) >= _MAX_ROWS or (
            len(refs) >= _MIN_ROWS and number <= 3 and not _crc32(ref[0]) >> 8 * number & 0xFF
        ):
            self._close_level(level)
        refs.append(ref)

    def _close_level(self, level: int) -> None:
        refs = self._levels[level]
        page_id = self._put(ObjectType.TREE, _encode((level + 1, refs)))
        row = (refs[0][0], page_id, sum(count for _, _, count in refs))
        refs.clear()
        self._add_ref(level + 1, row)

    def finish(self) -> bytes:
        """Write what is left and return the directory's id."""
        if self._entries or not self._levels:
            if not self._levels:
                return self._put(ObjectType.TREE, _encode((0, self._entries)))
            self._close_page()
        level = 0
        while True:
            refs = self._levels[level]
            if level == len(self._levels) - 1 and len(refs) == 1:
                return refs[0][1]
            if refs:
                self._close_level(level)
            level += 1


def encode_page(entries: list[Entry]) -> bytes:
    """Return the bytes of a directory that is one page."""
    return _encode((0, entries))


def decode_page(data: bytes) -> tuple[int, list[Entry] | list[tuple[bytes, bytes, int]]]:
    """Return (level, rows) of a tree page; raises Damaged for anything out of order."""
    if len(data) > MAX_PAGE:
        raise Damaged(f"tree page of {len(data)} bytes, the limit is {MAX_PAGE}")
    try:
        level, raw = _decode_any(data)
        rows: Any = _decode_entries(raw) if level == 0 else _decode_refs(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Damaged(f"tree page does not decode: {error}") from error
    names = [row.name for row in rows] if level == 0 else [row[0] for row in rows]
    if not 0 <= level <= MAX_LEVEL or (level and not rows):
        raise Damaged(f"tree page of level {level} with {len(rows)} rows")
    _check_names(names)
    if level and any(len(row[1]) != ID_SIZE for row in rows):
        raise Damaged("tree page with an unsound reference")
    return level, rows


def _check_names(names: list[bytes]) -> None:
    """Refuse names that are no plain names, or not strictly ascending."""
    if not names:
        return
    # Whole-list operations: this runs for every entry of every page that is read.
    joined = b"".join(names)
    sizes = list(map(len, names))
    if b"/" in joined or b"\0" in joined or min(sizes) < 1 or max(sizes) > 255:
        raise Damaged("tree page with a name that is no name")
    if names[0] <= b".." and (b"." in names or b".." in names):
        raise Damaged("tree page with the name '.' or '..'")
    if not all(map(operator.lt, names, names[1:])):
        raise Damaged("tree page with names out of order")


def iter_entries(get: Get, tree_id: bytes) -> Iterator[Entry]:
    """Yield a directory's entries in ascending order, reading page by page."""
    for page in iter_pages(get, tree_id):
        yield from page


def iter_pages(get: Get, tree_id: bytes) -> Iterator[list[Entry]]:
    """Yield a directory's entries a page at a time; raises Damaged for unsound nesting."""
    last = b""
    stack: list[Expected] = [(-1, tree_id, b"", -1)]
    while stack:
        expected = stack.pop()
        level, rows = read_page(get, expected)
        if level:
            refs: list[tuple[bytes, bytes, int]] = rows  # type: ignore[assignment]
            stack.extend((level - 1, ref[1], ref[0], ref[2]) for ref in reversed(refs))
            continue
        entries: list[Entry] = rows  # type: ignore[assignment]
        if entries:
            if entries[0].name <= last:
                raise Damaged("tree pages with names out of order")
            last = entries[-1].name
        yield entries


def iter_readable(get: Get, tree_id: bytes) -> Iterator[list[Entry] | Damaged | ObjectMissing]:
    """Yield a directory's pages in order, and in the place of one that is unsound its error.

    Raises Damaged, ObjectMissing where the topmost page cannot be read: then all is lost.
    """
    last = b""
    stack: list[Expected] = [(-1, tree_id, b"", -1)]
    while stack:
        expected = stack.pop()
        try:
            level, rows = read_page(get, expected)
            if not level and rows and rows[0].name <= last:  # type: ignore[union-attr]
                raise Damaged("tree pages with names out of order")
        except (Damaged, ObjectMissing) as error:
            if expected[0] == -1:
                raise
            yield error
            continue
        if level:
            refs: list[tuple[bytes, bytes, int]] = rows  # type: ignore[assignment]
            stack.extend((level - 1, ref[1], ref[0], ref[2]) for ref in reversed(refs))
            continue
        entries: list[Entry] = rows  # type: ignore[assignment]
        if entries:
            last = entries[-1].name
        yield entries


Expected = tuple[int, bytes, bytes, int]  # level, id, first name, entries below; -1: any


def read_page(
    get: Get, expected: Expected
) -> tuple[int, list[Entry] | list[tuple[bytes, bytes, int]]]:
    """Read a page and compare it with what the page above says of it; raises Damaged."""
    level, page_id, first, count = expected
    found, rows = decode_page(get(ObjectType.TREE, page_id))
    if level == -1:
        return found, rows
    if found != level:
        raise Damaged(f"tree page of level {found} where {level} belongs")
    if found == 0:
        entries: list[Entry] = rows  # type: ignore[assignment]
        sound = bool(entries) and entries[0].name == first and len(entries) == count
    else:
        refs: list[tuple[bytes, bytes, int]] = rows  # type: ignore[assignment]
        sound = refs[0][0] == first and sum(ref[2] for ref in refs) == count
    if not sound:
        raise Damaged("tree page that is not what the page above it says")
    return found, rows


def find_entry(get: Get, tree_id: bytes, name: bytes) -> Entry | None:
    """Return the entry of one name, reading only the pages that lead to it."""
    expected: Expected = (-1, tree_id, b"", -1)
    while True:
        level, rows = read_page(get, expected)
        if level == 0:
            entries: list[Entry] = rows  # type: ignore[assignment]
            return next((entry for entry in entries if entry.name == name), None)
        refs: list[tuple[bytes, bytes, int]] = rows  # type: ignore[assignment]
        below = [ref for ref in refs if ref[0] <= name]
        if not below:
            return None
        first, page_id, count = below[-1]
        expected = (level - 1, page_id, first, count)


def is_directory_mode(mode: int) -> bool:
    """Return whether a mode says directory; any number may be asked about, unlike stat's own."""
    return mode & 0o170000 == 0o040000


def check_entry(entry: Entry) -> None:
    """Refuse an entry with numbers out of bounds or content that does not fit; raises Damaged."""
    content = entry.content
    if not (0 <= entry.mode < 1 << 16 and 0 <= entry.size < 1 << 63):
        raise Damaged(f"entry {entry.name!r} has mode {entry.mode} and size {entry.size}")
    kind = stat.S_IFMT(entry.mode)
    unreadable = entry.extras is not None and bool(entry.extras.flags & Flag.UNREADABLE)
    if unreadable:
        sound = content is None
    elif kind == stat.S_IFDIR:
        sound = isinstance(content, bytes) and len(content) == ID_SIZE
    elif kind == stat.S_IFREG:
        sound = isinstance(content, list) or (
            isinstance(content, bytes) and len(content) == (ID_SIZE if entry.size else 0)
        )
    elif kind == stat.S_IFLNK:
        sound = isinstance(content, bytes) and 0 < len(content) <= 4096 and b"\0" not in content
    elif kind in (stat.S_IFBLK, stat.S_IFCHR):
        sound = (
            isinstance(content, list)
            and len(content) == 2
            and all(isinstance(part, int) and 0 <= part < 1 << 32 for part in content)
        )
    else:
        sound = kind in (stat.S_IFIFO, stat.S_IFSOCK) and content is None
    if not sound:
        raise Damaged(f"entry {entry.name!r} has unsound content for mode {entry.mode:o}")
