"""The view's own encoding: what was filed of a pack is what is read back."""

from __future__ import annotations

from contract.storage_suite import MemoryStorage
from hypothesis import given
from hypothesis import strategies as st
from unit.repository.making import make_pack

from packstone.repository.packs import KEYS, OBJECT, Pack, RecordRow
from packstone.repository.places import (
    NUMBER,
    PACK,
    PLACE,
    ROW,
    Cut,
    cut_of,
    live,
    pack_value,
    places_of,
    record_of,
    record_rows,
    record_sizes,
    split_places,
)

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1)
IDS = st.binary(min_size=32, max_size=32)
OBJECTS = st.lists(st.tuples(IDS, st.integers(0, 2**20), st.integers(1, 3)), min_size=1, max_size=4)


@st.composite
def rows(draw: st.DrawFn) -> RecordRow:
    """Any row that a footer may have."""
    objects = draw(OBJECTS)
    keys = draw(st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)))
    depth = draw(st.integers(0, 64))
    return RecordRow(
        draw(U64),
        draw(U32),
        sum(each[1] for each in objects),
        draw(st.integers(0, 15)),
        b"".join(OBJECT.pack(*each) for each in objects),
        keys,
        draw(st.lists(IDS, min_size=1, max_size=3)) if depth else [],
        depth,
        draw(U32),
    )


def pack_of(found: list[RecordRow]) -> Pack:
    return Pack("ab" * 32, 1, bytes(32), 1000, found)


@given(found=st.lists(rows(), max_size=5))
def test_rows(found: list[RecordRow]) -> None:
    filed = record_rows(pack_of(found))
    assert len(filed) == len(found) * ROW.size
    for number, row in enumerate(found):
        expected = (row.offset, row.stored_size, row.raw_size, row.codec, row.depth)
        assert record_of(filed, number) == expected
    assert record_sizes(filed) == [(row.stored_size, row.raw_size, row.codec) for row in found]
    for number in (len(found), len(found) + 1, 2**32 - 1):
        assert record_of(filed, number) is None
        assert cut_of(filed, 7, number) is None
    if filed:
        assert record_of(filed[:-1], len(found) - 1) is None, "cut off"


@given(found=st.lists(rows(), max_size=5))
def test_cuts(found: list[RecordRow]) -> None:
    """A record of one object is a chunk that may be a base; of several none is."""
    filed = record_rows(pack_of(found))
    for number, row in enumerate(found):
        cut = cut_of(filed, 7, number)
        if len(row.objects) > OBJECT.size or not any(row.objects[:32]):
            assert cut is None
            continue
        start, end = KEYS.unpack(row.keys) if row.keys else (0, 0)
        expected = Cut(
            row.objects[:32], 7, number, row.raw_size, row.depth, row.lineage, start, end
        )
        assert cut == expected


@given(found=st.lists(rows(), max_size=5), number=U32)
def test_places(found: list[RecordRow], number: int) -> None:
    """Objects of a record stand one behind the other."""
    filed = list(places_of(number, found))
    expected: list[tuple[bytes, tuple[int, ...]]] = []
    for record, row in enumerate(found):
        inner = 0
        for object_id, size, _type in row.object_rows():
            expected.append((object_id, (number, record, inner, size, len(expected))))
            inner += size
    assert [(object_id, PLACE.unpack(place)) for object_id, place in filed] == expected


@given(numbers=st.lists(st.integers(0, 300), max_size=10), alive=st.sets(st.integers(0, 300)))
def test_what_is_alive(numbers: list[int], alive: set[int]) -> None:
    """Numbers are compared whole: 256 is not 1, and a record's number is no pack's."""
    value = b"".join(PLACE.pack(number, 1, 2, 256, 3) for number in numbers)
    left = [PLACE.unpack(place)[0] for place in split_places(live(value, alive))]
    assert left == [number for number in numbers if number in alive]
    assert b"".join(split_places(value)) == value


def test_a_pack() -> None:
    pack = make_pack(MemoryStorage(), [[1, 2], [3]], 5)
    number, size, kind, count, salt = PACK.unpack(pack_value(9, pack))
    assert (number, size, kind, count, salt) == (9, pack.size, pack.kind, 3, pack.salt)
    assert pack_value(9, pack)[: NUMBER.size] == NUMBER.pack(9)


def test_bounds_of_the_footer_fit() -> None:
    """What a footer may say at most can be filed."""
    objects = OBJECT.pack(bytes(range(32)), 2**26, 1)
    row = RecordRow(2**63 - 1, 2**32 - 1, 2**26, 15, objects, b"\xff" * 16, [], 64, 2**32 - 1)
    filed = record_rows(pack_of([row]))
    assert record_of(filed, 0) == (2**63 - 1, 2**32 - 1, 2**26, 15, 64)
    cut = cut_of(filed, 2**32 - 1, 0)
    assert cut is not None and cut.lineage == 2**32 - 1 and cut.end_key == 2**64 - 1
