"""Small packs of numbered objects, and where an index must say that they are."""

from __future__ import annotations

from random import Random
from typing import Any

from packstone.codec.encryption import Sealer
from packstone.model import ObjectType
from packstone.repository.index import Index
from packstone.repository.packs import DATA, Pack, PackWriter, pack_objects

OURS = Sealer(bytes(range(16)))


def object_id(number: int) -> bytes:
    return Random(number).randbytes(32)


def make_pack(storage: Any, records: list[list[int]], salt: int) -> Pack:
    """Write a pack whose records hold the numbered objects, object n of n % 7 + 1 bytes."""
    writer = PackWriter(storage, DATA, OURS, salt.to_bytes(32, "big"))
    for record in records:
        rows = [(object_id(number), number % 7 + 1, ObjectType.CHUNK) for number in record]
        size = sum(row[1] for row in rows)
        writer.add(bytes(size), size, 0, pack_objects(rows), b"")
    return writer.finish()


Where = tuple[str, int, int, int, int]  # pack, record, its offset, inner offset, size


def where(pack: Pack) -> list[tuple[bytes, Where]]:
    rows = []
    for number, row in enumerate(pack.rows):
        inner = 0
        for each, size, _type in row.object_rows():
            rows.append((each, (pack.id, number, row.offset, inner, size)))
            inner += size
    return rows


def found_by(index: Index, each: bytes) -> set[Where]:
    places = index.find(each)
    assert [place.depth for place in places] == sorted(place.depth for place in places)
    return {(p.pack_id, p.record, p.offset, p.inner_offset, p.size) for p in places}
