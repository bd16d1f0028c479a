"""What snapshots reach: chunks and, behind deltas, the chunks that these stand on.

The one walk over bases, for whoever checks, moves or drops objects. Reads the view, never
packs. Invariant: a delta's base counts only at a place of less depth, so the walk ends whatever
packs say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from packstone.model import Entry, ObjectType
from packstone.repository.contents import iter_content
from packstone.repository.index import Index
from packstone.repository.places import Place
from packstone.repository.trees import Get, is_directory_mode, iter_entries

_TOGETHER = 10_000  # ids looked up in one go
MOST_STEPS = 64  # packs.MAX_DEPTH: no place says more


class Reached(NamedTuple):
    """A chunk that is needed, where it is best taken from, and which chunks need it.

    `place` is None where there is none; `wanted_by` is what was asked for, not what stands
    between.
    """

    id: bytes
    place: Place | None
    wanted_by: set[int]


def with_bases(index: Index, ids: Sequence[bytes]) -> Iterator[Reached]:
    """Yield each of some chunks, once, and every chunk that they stand on.

    `wanted_by` holds positions in `ids`. A chunk that stands on itself, or on a place that is no
    step nearer to a whole copy, is yielded without a place.
    """
    asked: dict[bytes, tuple[int, set[int]]] = {}  # id → depth it must be below, who wants it
    for at, chunk_id in enumerate(ids):
        asked.setdefault(chunk_id, (MOST_STEPS + 1, set()))[1].add(at)
    for _ in range(MOST_STEPS + 1):
        if not asked:
            return
        deltas: list[tuple[Place, set[int]]] = []
        for chunk_id, (limit, wanted_by), place in _placed(index, asked):
            sound = place is not None and place.depth < limit
            yield Reached(chunk_id, place if sound else None, wanted_by)
            if place is not None and sound and place.depth:
                deltas.append((place, wanted_by))
        below: dict[bytes, tuple[int, set[int]]] = {}
        bases = index.bases_of([(place.pack_id, place.record) for place, _ in deltas])
        for (place, wanted_by), base_ids in zip(deltas, bases, strict=True):
            for base_id in base_ids:
                least, others = below.get(base_id, (place.depth, set()))
                others |= wanted_by  # one set for each base: many may stand on it
                below[base_id] = (min(least, place.depth), others)
        asked = below


def _placed(
    index: Index, asked: dict[bytes, tuple[int, set[int]]]
) -> Iterable[tuple[bytes, tuple[int, set[int]], Place | None]]:
    return zip(asked, asked.values(), index.find_many(list(asked)), strict=True)


class Marks:
    """Which records of which packs hold something that is reached: a bit for each."""

    def __init__(self) -> None:
        self._bits: dict[str, bytearray] = {}

    def mark(self, place: Place) -> None:
        """Mark the record of a place."""
        bits = self._bits.setdefault(place.pack_id, bytearray())
        byte = place.record >> 3
        if byte >= len(bits):
            bits.extend(bytes(byte + 1 - len(bits)))
        bits[byte] |= 1 << (place.record & 7)

    def has(self, pack_id: str, record: int) -> bool:
        """Return whether a record is marked."""
        bits = self._bits.get(pack_id, b"")
        return record >> 3 < len(bits) and bool(bits[record >> 3] >> (record & 7) & 1)


def mark_trees(index: Index, get: Get, trees: Iterable[bytes]) -> Marks:
    """Mark what some trees reach, each object at the place it is best taken from.

    Memory grows with directories and packs, not with chunks. Raises Damaged and ObjectMissing
    where a tree cannot be read: then nothing may be concluded from marks.
    """
    marks = Marks()
    pages: list[bytes] = []
    chunks: list[bytes] = []
    seen: set[bytes] = set()

    def noting(kind: ObjectType, page_id: bytes) -> bytes:
        pages.append(page_id)
        return get(kind, page_id)

    def settle(least: int) -> None:
        if len(pages) >= least:
            for place in index.find_many(pages):
                if place is not None:
                    marks.mark(place)
            pages.clear()
        if len(chunks) >= least:
            for reached in with_bases(index, chunks):
                if reached.place is not None:
                    marks.mark(reached.place)
            chunks.clear()

    for tree_id in trees:
        stack: list[Iterator[Entry]] = []
        if tree_id not in seen:
            seen.add(tree_id)
            stack.append(iter_entries(noting, tree_id))
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
            elif is_directory_mode(entry.mode):
                if isinstance(entry.content, bytes) and entry.content not in seen:
                    seen.add(entry.content)
                    stack.append(iter_entries(noting, entry.content))
            elif entry.mode & 0o170000 == 0o100000:
                chunks += [row[0] for row in iter_content(noting, entry) if row[0]]
            settle(_TOGETHER)
    settle(0)
    return marks
