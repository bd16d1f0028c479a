"""Does the view say of a pack what the pack's footer says?

Works on transactions that the index hands out. What it says of records is compared as bytes, in
one go; only the places of objects are looked up one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from packstone.repository.cuts import BASES, split_ids
from packstone.repository.filing import OBJECTS
from packstone.repository.packs import OBJECT, Pack
from packstone.repository.places import PLACE, RECORD, ROW, record_rows, split_places

_LOOKED_UP = 4096  # objects in one go, or as many as one record holds

Part = list[tuple[bytes, bytes, int]]  # id, place, number of the record


def count_objects(pack: Pack) -> int:
    """Return how many objects a pack holds; one that it holds twice counts twice."""
    return sum(len(row.objects) for row in pack.rows) // OBJECT.size


def differing_records(
    transaction: Any, databases: dict[bytes, Any], number: int, rows: bytes, pack: Pack
) -> set[int]:
    """Return the records of which the view has other sizes, codecs or bases than the footer."""
    differing: set[int] = set()
    stated = record_rows(pack)
    if stated != rows:
        differing = {
            record
            for record in range(len(pack.rows))
            if stated[record * ROW.size : (record + 1) * ROW.size]
            != rows[record * ROW.size : (record + 1) * ROW.size]
        }
    for record, row in enumerate(pack.rows):
        if row.bases:
            value = transaction.get(RECORD.pack(number, record), b"", db=databases[BASES])
            if split_ids(bytes(value)) != row.bases:
                differing.add(record)
    return differing


def parts(number: int, pack: Pack) -> Iterator[Part]:
    """Yield what the view should have of the objects of a pack, some thousand at a time."""
    place = PLACE.pack
    part: Part = []
    at = 0
    for record, row in enumerate(pack.rows):
        inner = 0
        for object_id, size, _type in row.object_rows():
            part.append((object_id, place(number, record, inner, size, at), record))
            inner += size
            at += 1
        if len(part) >= _LOOKED_UP:
            yield part
            part = []
    if part:
        yield part


def misplaced(transaction: Any, databases: dict[bytes, Any], part: Part) -> list[int]:
    """Return the records of objects that are not where they should be, one for each object."""
    wrong: list[int] = []
    get = transaction.get
    objects = databases[OBJECTS]
    for object_id, place, record in part:
        value = get(object_id, db=objects)
        if value != place and (value is None or place not in split_places(bytes(value))):
            wrong.append(record)
    return wrong
