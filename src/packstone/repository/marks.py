"""Mark what snapshots reach: a bit for each object of each pack.

Memory grows with a bit for an object and with nothing else: no set of ids is kept, for a page
whose bit is set was walked already. Objects count at the place they are best taken from, the
newest of least depth. Reads trees and the view, no chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from packstone.errors import ObjectMissing
from packstone.model import ID_SIZE, Entry, ObjectType
from packstone.repository.contents import decode_list_page, list_chunks
from packstone.repository.index import Index
from packstone.repository.places import Place
from packstone.repository.reachable import with_bases
from packstone.repository.trees import Get, check_entry, decode_page, is_directory_mode

_PAGES = 256  # read together, in the order of their packs
_CHUNKS = 10_000  # looked up together
_NAMED = 10  # missing objects that are told of


class Marks:
    """Bits for the objects of packs, which are counted in the order of the footer."""

    def __init__(self) -> None:
        self._bits: dict[str, bytearray] = {}

    def mark(self, place: Place) -> bool:
        """Mark the object at a place; return whether it was not marked before."""
        bits = self._bits.setdefault(place.pack_id, bytearray())
        byte, bit = place.number >> 3, 1 << (place.number & 7)
        if byte >= len(bits):
            bits.extend(bytes(byte + 1 - len(bits)))
        if bits[byte] & bit:
            return False
        bits[byte] |= bit
        return True

    def include(self, other: Marks) -> None:
        """Mark what others have marked, too."""
        for pack_id, theirs in other._bits.items():
            ours = self._bits.setdefault(pack_id, bytearray())
            size = max(len(ours), len(theirs))
            both = int.from_bytes(ours, "little") | int.from_bytes(theirs, "little")
            self._bits[pack_id] = bytearray(both.to_bytes(size, "little"))

    def common(self, other: Marks) -> Marks:
        """Return what both have marked."""
        return self._combined(other, lambda ours, theirs: ours & theirs)

    def without(self, other: Marks) -> Marks:
        """Return what others have not marked."""
        return self._combined(other, lambda ours, theirs: ours & ~theirs)

    def _combined(self, other: Marks, combine: Callable[[int, int], int]) -> Marks:
        found = Marks()
        for pack_id, bits in self._bits.items():
            theirs = int.from_bytes(other._bits.get(pack_id, b""), "little")
            both = combine(int.from_bytes(bits, "little"), theirs)
            if both:
                found._bits[pack_id] = bytearray(both.to_bytes(len(bits), "little"))
        return found

    def packs(self) -> Iterable[str]:
        """Return the ids of the packs that have something marked."""
        return self._bits.keys()

    def has(self, pack_id: str, number: int) -> bool:
        """Return whether an object of a pack is marked."""
        bits = self._bits.get(pack_id, b"")
        return number >> 3 < len(bits) and bool(bits[number >> 3] >> (number & 7) & 1)

    def count(self, pack_id: str) -> int:
        """Return how many objects of a pack are marked."""
        return int.from_bytes(self._bits.get(pack_id, b""), "little").bit_count()


class Marker:
    """Walk trees and mark what they reach.

    `marks` holds everything, `wanted` what snapshots name themselves and not only as the base of
    a delta. What `before` holds was walked already. `missing` counts chunks that are in no pack
    they could be taken from: while there are any, what they stand on is unknown.
    """

    def __init__(self, index: Index, get: Get, before: Marks | None = None) -> None:
        self.marks = Marks()
        self.wanted = Marks()
        self.missing = 0
        self.missing_ids: list[bytes] = []
        self._index = index
        self._get = get
        self._before = before or Marks()
        self._pages: list[tuple[ObjectType, bytes, int]] = []  # type, id, level of a list's page
        self._chunks: set[bytes] = set()

    def add(self, trees: Iterable[bytes]) -> None:
        """Mark what some trees reach; raises Damaged, ObjectMissing where one cannot be read."""
        self._pages += [(ObjectType.TREE, tree_id, 0) for tree_id in trees]
        while self._pages:
            part = self._pages[-_PAGES:]
            del self._pages[-_PAGES:]
            self._walk(part)
            if len(self._chunks) >= _CHUNKS:
                self._settle()
        self._settle()

    def _walk(self, pages: Sequence[tuple[ObjectType, bytes, int]]) -> None:
        """Mark pages and note what stands in those that were not walked before."""
        places = self._index.find_many([page_id for _kind, page_id, _level in pages])
        fresh: list[tuple[str, int, int, ObjectType, bytes, int]] = []
        for (kind, page_id, level), place in zip(pages, places, strict=True):
            if place is None:
                self._get(kind, page_id)  # looks again, and says what is wrong
                place = self._index.find_many([page_id])[0]
                if place is None:
                    raise ObjectMissing(f"{kind.name.lower()} {page_id.hex()[:12]}… is in no pack")
            if not self._before.has(place.pack_id, place.number) and self.marks.mark(place):
                self.wanted.mark(place)
                at = (place.pack_id, place.offset, place.inner_offset)
                fresh.append((*at, kind, page_id, level))
        fresh.sort()
        for _pack, _offset, _inner, kind, page_id, level in fresh:
            data = self._get(kind, page_id)
            if kind == ObjectType.TREE:
                self._note_tree(data)
            else:
                self._note_list(level, decode_list_page(data, level)[0])

    def _note_tree(self, data: bytes) -> None:
        for row in decode_page(data)[1]:
            if isinstance(row, Entry):
                self._note_entry(row)
            else:
                self._pages.append((ObjectType.TREE, row[1], 0))

    def _note_entry(self, entry: Entry) -> None:
        check_entry(entry)
        content = entry.content
        if is_directory_mode(entry.mode):
            if isinstance(content, bytes):
                self._pages.append((ObjectType.TREE, content, 0))
        elif entry.mode & 0o170000 == 0o100000 and content:
            level, ids = list_chunks(entry)
            self._note_list(level, ids)

    def _note_list(self, level: int, ids: bytes) -> None:
        """Note the ids in a list of chunks of a level; above 0 they are pages."""
        split = [ids[start : start + ID_SIZE] for start in range(0, len(ids), ID_SIZE)]
        if level:
            self._pages += [(ObjectType.CHUNK_LIST, page_id, level - 1) for page_id in split]
        else:
            self._chunks.update(split)

    def _settle(self) -> None:
        """Mark the chunks that were noted, and those they stand on."""
        asked = list(self._chunks)
        self._chunks.clear()
        before, wanted = self._before, self.wanted
        fresh: list[bytes] = []
        for chunk_id, place in zip(asked, self._index.find_many(asked), strict=True):
            if place is None:
                fresh.append(chunk_id)
            elif not before.has(place.pack_id, place.number) and wanted.mark(place):
                if place.depth:
                    fresh.append(chunk_id)
                else:
                    self.marks.mark(place)
        for start in range(0, len(fresh), _CHUNKS):
            for reached in with_bases(self._index, fresh[start : start + _CHUNKS]):
                if reached.place is not None:
                    self.marks.mark(reached.place)
                else:
                    self.missing += 1
                    if len(self.missing_ids) < _NAMED:
                        self.missing_ids.append(reached.id)
