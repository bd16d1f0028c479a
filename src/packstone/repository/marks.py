"""Mark what snapshots reach: four bytes for each object of each pack.

Memory grows with them and with nothing else: no set of ids is kept, for a page that is marked
was walked already. Objects count at the place they are best taken from, the
newest of least depth. Reads trees and the view, no chunks.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence

from packstone.errors import IndexWrong, ObjectMissing
from packstone.model import ID_SIZE, Entry, ObjectType
from packstone.repository.contents import decode_list_page, list_chunks
from packstone.repository.index import Index
from packstone.repository.packs import MAX_FOOTER, OBJECT, Pack
from packstone.repository.places import Place
from packstone.repository.reachable import with_bases
from packstone.repository.trees import Get, check_entry, decode_page, is_directory_mode

_PAGES = 256  # read together, in the order of their packs
_CHUNKS = 10_000  # looked up together
_NAMED = 10  # missing objects that are told of
_TAG = "I"
_SPREAD = 0x9E3779B1  # odd, so that neighbouring records are far apart
_FIRST = struct.Struct(f"<I{OBJECT.size - 4}x")  # of an object's row in a footer


class Marks:
    """Tags for the objects of packs, which are counted in the order of the footer.

    A tag is made of the object's id and its record: a view that takes one object's place for that
    of another must not make that one count as marked, and with it all that it stands on.
    """

    def __init__(self) -> None:
        self._tags: dict[str, array[int]] = {}

    def mark(self, place: Place, object_id: bytes) -> bool:
        """Mark an object at a place; return whether it was not marked before.

        Raises IndexWrong when another one was marked there.
        """
        tags = self._tags.get(place.pack_id)
        if tags is None:
            tags = self._tags[place.pack_id] = array(_TAG)
        number = place.number
        if number >= len(tags):
            if number > MAX_FOOTER // OBJECT.size:  # no pack has so many
                raise _wrong(place.pack_id)
            tags.frombytes(bytes((number + 1 - len(tags)) * tags.itemsize))
        tag = _tag(int.from_bytes(object_id[:4], "little"), place.record)
        found = tags[number]
        if found:
            if found != tag:
                raise _wrong(place.pack_id)
            return False
        tags[number] = tag
        return True

    def has_object(self, place: Place, object_id: bytes) -> bool:
        """Return whether an object is marked at a place; raises IndexWrong like `mark`."""
        tags = self._tags.get(place.pack_id)
        if tags is None or place.number >= len(tags) or not tags[place.number]:
            return False
        if tags[place.number] != _tag(int.from_bytes(object_id[:4], "little"), place.record):
            raise _wrong(place.pack_id)
        return True

    def include(self, other: Marks) -> None:
        """Mark what others have marked, too."""
        for pack_id, theirs in other._tags.items():
            ours = self._tags.get(pack_id)
            if ours is None:
                self._tags[pack_id] = theirs[:]
                continue
            if len(ours) < len(theirs):
                ours.frombytes(bytes((len(theirs) - len(ours)) * ours.itemsize))
            for number, tag in enumerate(theirs):
                if tag:
                    ours[number] = tag

    def common(self, other: Marks) -> Marks:
        """Return what both have marked."""
        return self._chosen(other, shared=True)

    def without(self, other: Marks) -> Marks:
        """Return what others have not marked."""
        return self._chosen(other, shared=False)

    def _chosen(self, other: Marks, *, shared: bool) -> Marks:
        found = Marks()
        for pack_id, ours in self._tags.items():
            theirs = other._tags.get(pack_id, array(_TAG))
            count = len(theirs)
            kept = array(
                _TAG,
                [
                    tag if (at < count and theirs[at] != 0) == shared else 0
                    for at, tag in enumerate(ours)
                ],
            )
            if any(kept):
                found._tags[pack_id] = kept
        return found

    def has(self, pack_id: str, number: int) -> bool:
        """Return whether an object of a pack is marked."""
        tags = self._tags.get(pack_id)
        return tags is not None and number < len(tags) and tags[number] != 0

    def count(self, pack_id: str) -> int:
        """Return how many objects of a pack are marked."""
        tags = self._tags.get(pack_id)
        return 0 if tags is None else len(tags) - tags.count(0)

    def packs(self) -> list[str]:
        """Return the packs that hold anything marked."""
        return list(self._tags)

    def agree(self, pack: Pack) -> bool:
        """Return whether what is marked of a pack is what its footer lists there."""
        tags = self._tags.get(pack.id, ())
        listed = array(
            _TAG,
            (
                _tag(first, record)
                for record, row in enumerate(pack.rows)
                for (first,) in _FIRST.iter_unpack(row.objects)
            ),
        )
        return len(tags) <= len(listed) and all(
            not tag or tag == first for tag, first in zip(tags, listed, strict=False)
        )


def _tag(first: int, record: int) -> int:
    """Return what stands for an id's first four bytes in a record; never 0."""
    return (first + record * _SPREAD) & 0xFFFFFFFF | 1


def _wrong(pack_id: str) -> IndexWrong:
    return IndexWrong(
        f"the index has objects of pack {pack_id[:12]}… in wrong places",
        hint="Nothing was deleted. Run: packstone check, then the same command again",
    )


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
            if not self._before.has_object(place, page_id) and self.marks.mark(place, page_id):
                self.wanted.mark(place, page_id)
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
            elif not before.has_object(place, chunk_id) and wanted.mark(place, chunk_id):
                if place.depth:
                    fresh.append(chunk_id)
                else:
                    self.marks.mark(place, chunk_id)
        for start in range(0, len(fresh), _CHUNKS):
            for reached in with_bases(self._index, fresh[start : start + _CHUNKS]):
                if reached.place is not None:
                    self.marks.mark(reached.place, reached.id)
                else:
                    self.missing += 1
                    if len(self.missing_ids) < _NAMED:
                        self.missing_ids.append(reached.id)
