"""What the view remembers of a pack whose footers can be read no more.

As long as the file keeps its size the view still leads to its records, and they are verified
whenever they are read: so they must be found before the file is moved away. Works on
transactions that the index hands out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from packstone.model import ObjectType
from packstone.repository.cuts import BASES, split_ids
from packstone.repository.filing import OBJECTS, RELEASED
from packstone.repository.packs import DATA, KEYS, OBJECT, Pack, RecordRow
from packstone.repository.places import PACK, RECORD, places_in, rows_in

Remembered = tuple[int, int, int, bytes]  # record, offset in it, size, id of an object


def objects_in(
    transaction: Any, databases: dict[bytes, Any], number: int, start: bytes
) -> Iterator[tuple[bytes, list[Remembered]]]:
    """Yield ids from `start` on with what the view says of each in one pack, some at a time."""
    cursor = transaction.cursor(db=databases[OBJECTS])
    if not cursor.set_range(start):
        return
    for row, (key, value) in enumerate(cursor):
        if row >= RELEASED:
            break
        object_id = bytes(key)
        yield (
            object_id,
            [
                (record, inner, size, object_id)
                for its_number, record, inner, size, _at in places_in(value)
                if its_number == number
            ],
        )


def recalled(
    transaction: Any,
    databases: dict[bytes, Any],
    pack_id: str,
    value: bytes,
    rows: bytes,
    objects: list[Remembered],
) -> Pack:
    """Put together what a footer would say; of metadata all objects are called trees."""
    number, size, kind, _count, salt = PACK.unpack(value)
    kind_of_objects = ObjectType.CHUNK if kind == DATA else ObjectType.TREE
    listed: dict[int, list[bytes]] = {}
    for record, _inner, object_size, object_id in sorted(objects):
        packed = OBJECT.pack(object_id, object_size, kind_of_objects)
        listed.setdefault(record, []).append(packed)
    found: list[RecordRow] = []
    for record, row in enumerate(rows_in(rows)):
        offset, stored_size, raw_size, codec, depth, lineage, start_key, end_key, _id = row
        bases = split_ids(
            bytes(transaction.get(RECORD.pack(number, record), b"", db=databases[BASES]))
        )
        keys = KEYS.pack(start_key, end_key) if start_key or end_key else b""
        packed = b"".join(listed.get(record, []))
        found.append(
            RecordRow(offset, stored_size, raw_size, codec, packed, keys, bases, depth, lineage)
        )
    return Pack(pack_id, kind, salt, size, found, ("only the index knows what was in it",))
