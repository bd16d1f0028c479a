"""Where objects are, and how the view files it: rows of packs, places of ids.

Pure: bytes to values and back. The view's own encoding, which no format page fixes: it is made
again from the footers whenever it changes.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Iterator
from typing import Any, NamedTuple

from packstone.model import ID_SIZE
from packstone.repository.packs import KEYS, OBJECT, Pack, RecordRow

NUMBER = struct.Struct(">I")
# Apart from the rows of its records, which are long and whose pages are read when needed only.
PACK = struct.Struct(">IQBI32s")  # number, size, kind, count of objects, salt
# offset, stored size, raw size, codec, depth, lineage, start key, end key, id of its one chunk
ROW = struct.Struct("<QIIBB2xIQQ32s")
_HEAD = struct.Struct("<QIIBB")  # what a row begins with
# pack number, record number, offset in the record, size, number of the object in its pack
PLACE = struct.Struct("<IIIII")
RECORD = struct.Struct(">II")  # pack number, record number: the key of a delta's bases
_NO_ID = bytes(ID_SIZE)


class Place(NamedTuple):
    """Where an object is: a record of a pack, and a range of the decoded record; bytes.

    `number` counts the objects of the pack in the order of its footer.
    """

    pack_id: str
    record: int
    offset: int
    stored_size: int
    raw_size: int
    codec: int
    depth: int
    inner_offset: int
    size: int
    number: int


class Cut(NamedTuple):
    """A stored chunk as a search for bases sees it; keys are those of its two cuts."""

    id: bytes
    number: int  # of its pack
    record: int
    size: int
    depth: int
    lineage: int
    start_key: int
    end_key: int


def pack_value(number: int, pack: Pack) -> bytes:
    """Return what the view keeps of a pack under its id."""
    count = sum(len(row.objects) for row in pack.rows) // OBJECT.size
    return PACK.pack(number, pack.size, pack.kind, count, pack.salt)


def record_rows(pack: Pack) -> bytes:
    """Return what the view keeps of a pack's records."""
    return b"".join(
        [
            ROW.pack(
                row.offset,
                row.stored_size,
                row.raw_size,
                row.codec,
                row.depth,
                row.lineage,
                *(KEYS.unpack(row.keys) if row.keys else (0, 0)),
                row.objects[:ID_SIZE] if len(row.objects) == OBJECT.size else _NO_ID,
            )
            for row in pack.rows
        ]
    )


def record_of(rows: bytes, record: int) -> tuple[int, int, int, int, int] | None:
    """Return a record's (offset, stored size, raw size, codec, depth), None if there is none."""
    start = record * ROW.size
    if start + ROW.size > len(rows):
        return None
    return _HEAD.unpack_from(rows, start)


def rows_in(rows: bytes) -> Iterable[tuple[Any, ...]]:
    """Return the fields of the records of a pack; bytes that are no whole row are left out."""
    return ROW.iter_unpack(rows[: len(rows) // ROW.size * ROW.size])


def record_sizes(rows: bytes) -> list[tuple[int, int, int]]:
    """Return each record's (stored size, raw size, codec)."""
    return [row[1:4] for row in rows_in(rows)]


def keys_of(rows: bytes) -> set[int]:
    """Return the keys of the cuts of all chunks that are a record of their own."""
    found: set[int] = set()
    for row in rows_in(rows):
        if row[8] != _NO_ID:
            found.update(row[6:8])
    return found


def cut_of(rows: bytes, number: int, record: int) -> Cut | None:
    """Return the chunk that is a record of its own, None for records of other kinds."""
    start = record * ROW.size
    if start + ROW.size > len(rows):
        return None
    _, _, size, _, depth, lineage, start_key, end_key, chunk_id = ROW.unpack_from(rows, start)
    if chunk_id == _NO_ID:
        return None
    return Cut(chunk_id, number, record, size, depth, lineage, start_key, end_key)


def places_of(number: int, rows: Iterable[RecordRow]) -> Iterator[tuple[bytes, bytes]]:
    """Yield (id, place) of every object of a pack."""
    pack_place = PLACE.pack
    at = 0
    for record, row in enumerate(rows):
        inner = 0
        for object_id, size, _type in row.object_rows():
            yield object_id, pack_place(number, record, inner, size, at)
            inner += size
            at += 1


def places_in(value: bytes | memoryview) -> Iterable[tuple[Any, ...]]:
    """Return the fields of the places of an id; none where the view has no sound ones."""
    return () if len(value) % PLACE.size else PLACE.iter_unpack(value)


def split_places(value: bytes) -> list[bytes]:
    """Return the places that stand one behind the other; none where they are not sound."""
    if len(value) % PLACE.size:
        return []
    return [value[start : start + PLACE.size] for start in range(0, len(value), PLACE.size)]


def live(value: bytes, numbers: Container[int]) -> bytes:
    """Leave out the places in packs that are gone: this is how they are swept out."""
    return b"".join(
        [place for place in split_places(value) if int.from_bytes(place[:4], "little") in numbers]
    )
