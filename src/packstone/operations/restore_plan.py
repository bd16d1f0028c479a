"""Which chunks go where: a window of files, planned by pack and read in one pass.

Knows chunk ids, packs and positions, not directories. A window is bounded, so that memory
does not grow with the snapshot; within it every pack is read once, ascending, and a chunk
that several files share is decoded once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from packstone.errors import Damaged, ObjectMissing, PackstoneError
from packstone.model import Buffer, ObjectType
from packstone.repository.ancestry import Ancestry
from packstone.repository.attempt import REFUSED
from packstone.repository.index import Index
from packstone.repository.places import Place
from packstone.repository.reader import ObjectReader

WINDOW_ROWS = 32_768  # chunk references that are planned together; two windows are in memory

Deliver = Callable[[object, int, Buffer], None]  # (file, position, bytes)


@dataclass(slots=True)
class Range:
    """One read of a pack: records in order, and who wants which of their chunks."""

    places: list[Place]
    wanted: dict[int, list[tuple[bytes, Place]]]  # record → chunks inside it


class Window:
    """Chunks that are wanted, each by (file, position) pairs."""

    def __init__(self) -> None:
        self.wanted: dict[bytes, list[tuple[object, int, int]]] = {}  # file, position, size
        self.rows = 0

    def want(self, chunk_id: bytes, file: object, position: int, size: int) -> None:
        """Ask for a chunk of `size` bytes at a position of a file."""
        self.wanted.setdefault(chunk_id, []).append((file, position, size))
        self.rows += 1

    def plan(self, index: Index, reader: ObjectReader) -> tuple[list[Range], list[bytes]]:
        """Return reads in the order packs were first wanted, and ids without a place."""
        ids = list(self.wanted)
        missing: list[bytes] = []
        packs: defaultdict[str, dict[int, list[tuple[bytes, Place]]]] = defaultdict(dict)
        for chunk_id, place in zip(ids, index.find_many(ids), strict=True):
            if place is None:
                missing.append(chunk_id)
            else:
                packs[place.pack_id].setdefault(place.record, []).append((chunk_id, place))
        ranges: list[Range] = []
        for records in packs.values():
            places = sorted((chunks[0][1] for chunks in records.values()), key=_offset)
            for group in reader.ranges(places):
                wanted = {place.record: records[place.record] for place in group}
                ranges.append(Range(group, wanted))
        return ranges, missing


def _offset(place: Place) -> int:
    return place.offset


def read_range(
    reader: ObjectReader, part: Range
) -> Iterator[tuple[bytes, Buffer | PackstoneError]]:
    """Yield every wanted chunk of a range, verified, or the error that keeps it from us.

    A record that is damaged here is looked for in other places.
    """
    try:
        ancestry = reader.ancestry(part.places)
        for place, payload in reader.read_range(part.places):
            yield from _record(reader, place, payload, ancestry, part.wanted[place.record])
    except (ObjectMissing, Damaged):  # of the read itself: record by record, then
        for chunks in part.wanted.values():
            for chunk_id, _place in chunks:
                yield chunk_id, read_anywhere(reader, chunk_id)


def _record(
    reader: ObjectReader,
    place: Place,
    payload: memoryview,
    ancestry: Ancestry,
    chunks: Sequence[tuple[bytes, Place]],
) -> Iterator[tuple[bytes, Buffer | PackstoneError]]:
    try:
        raw = memoryview(reader.decode(place, payload, ancestry))
    except REFUSED:
        for chunk_id, _place in chunks:
            yield chunk_id, read_anywhere(reader, chunk_id)
        return
    for chunk_id, at in chunks:
        data = raw[at.inner_offset : at.inner_offset + at.size]
        try:
            reader.verify(ObjectType.CHUNK, chunk_id, data, at)
        except Damaged:
            yield chunk_id, read_anywhere(reader, chunk_id)
        else:
            yield chunk_id, data


def read_anywhere(reader: ObjectReader, chunk_id: bytes) -> Buffer | PackstoneError:
    """Return a chunk from any other place, or why there is none."""
    try:
        return reader.get(ObjectType.CHUNK, chunk_id)
    except REFUSED as error:
        return error
