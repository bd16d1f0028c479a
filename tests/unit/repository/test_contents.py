"""Lists of chunks survive being cut into pages, holes included, and are read from any byte on."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packstone.errors import Damaged
from packstone.model import Entry, ObjectType
from packstone.repository import contents
from packstone.repository.contents import (
    ContentWriter,
    decode_list_page,
    iter_content,
    iter_range,
    list_pages,
)

encode = msgspec.msgpack.encode
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
few = settings(shared, max_examples=settings.default.max_examples // 3)

Rows = list[tuple[bytes, int]]  # as iter_content gives them: a hole has an empty id


def store(pages: Any, rows: Rows) -> Entry:
    writer = ContentWriter(pages.put)
    for chunk_id, size in rows:
        if chunk_id:
            writer.add(chunk_id, size)
        else:
            writer.add_hole(size)
    total = sum(size for _, size in rows)
    assert writer.size == total
    return Entry(b"file", 0o100644, 0, 0, total, 0, 0, 0, writer.finish(), None)


def random_rows(count: int, seed: object, holes: float = 0.2) -> Rows:
    rng = Random(repr(seed))
    return [
        (b"" if rng.random() < holes else rng.randbytes(32), rng.randrange(1, 1 << 20))
        for _ in range(count)
    ]


def same_rows(found: Any, rows: Rows) -> bool:
    return list(found) == rows


row = st.tuples(
    st.one_of(st.just(b""), st.integers(0, 1 << 20).map(lambda n: Random(n).randbytes(32))),
    st.integers(1, 1 << 45),
)


# -- rows → pages → rows --------------------------------------------------------------------


@shared
@given(rows=st.lists(row, max_size=40))
def test_short_lists_come_back(new_pages: Any, rows: Rows) -> None:
    pages = new_pages()
    entry = store(pages, rows)
    assert list(iter_content(pages.get, entry)) == rows
    if len(rows) <= 32:
        assert pages.new == [] and list_pages(entry.content) == []
    if not rows:
        assert entry.content == b""
    elif len(rows) == 1 and rows[0][0]:
        assert entry.content == rows[0][0]


@few
@given(count=st.sampled_from([33, 127, 128, 129, 4096, 4097, 9000]), seed=st.integers())
def test_long_lists_come_back(new_pages: Any, count: int, seed: int) -> None:
    pages = new_pages()
    rows = random_rows(count, seed)
    entry = store(pages, rows)
    assert list(iter_content(pages.get, entry)) == rows
    assert entry.content[0] >= 1 and list_pages(entry.content)


@shared
@given(
    rows=st.lists(row, max_size=90),
    limits=st.sampled_from([(1, 2, 1), (2, 3, 2), (2, 7, 3)]),
    starts=st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_every_shape_comes_back_from_any_byte(
    new_pages: Any, rows: Rows, limits: tuple[int, int, int], starts: list[float]
) -> None:
    """With pages of a few rows, ninety chunks make as many levels as a file of petabytes."""
    pages = new_pages()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "_MIN_ROWS", limits[0])
        patch.setattr(contents, "_MAX_ROWS", limits[1])
        patch.setattr(contents, "INLINE_ROWS", limits[2])
        entry = store(pages, rows)
    assert list(iter_content(pages.get, entry)) == rows
    ends: list[int] = []
    for _, size in rows:
        ends.append(size + (ends[-1] if ends else 0))
    if not rows:
        return
    wanted = {0, entry.size - 1, *[int(part * (entry.size - 1)) for part in starts]}
    wanted |= set(ends[:-1]) | {end - 1 for end in ends}
    for start in sorted(wanted):
        first = next(number for number, end in enumerate(ends) if end > start)
        found = list(iter_range(pages.get, entry, start))
        assert found[0][0] <= start < found[0][0] + found[0][2]
        assert [(chunk_id, size) for _, chunk_id, size in found] == rows[first:]
        assert [at for at, _, _ in found] == [
            end - size for end, (_, size) in zip(ends[first:], rows[first:], strict=True)
        ]


def test_reading_from_a_byte_on_reads_only_what_leads_there(pages: Any) -> None:
    rows = random_rows(100_000, "long", holes=0)
    entry = store(pages, rows)
    assert len(pages.new) > 60
    pages.read.clear()
    next(iter_range(pages.get, entry, entry.size * 2 // 3))
    assert len(pages.read) <= entry.content[0]
    # the same page once for the position and once for the rows
    assert sum(pages.read.values()) <= 2 * entry.content[0]


def test_from_the_end_on_there_is_nothing(pages: Any) -> None:
    rows = random_rows(200, "end")
    entry = store(pages, rows)
    assert list(iter_range(pages.get, entry, entry.size)) == []


def test_pages_end_where_the_page_says(pages: Any) -> None:
    """docs/format.md §6: at least 128 rows, byte 0 and the low bits of byte 8 zero, or 4,096."""
    rows = random_rows(60_000, "boundaries", holes=0)
    entry = store(pages, rows)
    level, ids, _ = entry.content
    assert level == 2 or len(ids) <= 32 * 32
    leaves = [decode_list_page(data, 0) for data in pages.stored.values() if data[1] == 0]
    assert sum(len(sizes) for _, sizes in leaves) == 60_000
    ends = 0
    for leaf_ids, sizes in leaves[:-1]:
        for number in range(127, len(sizes)):
            at = leaf_ids[32 * number : 32 * number + 32]
            boundary = not at[0] and not at[8] & 3
            ends += boundary
            assert boundary <= (number == len(sizes) - 1)
        assert len(sizes) == 4096 or ends
    assert ends > 20


def test_a_list_of_holes_and_one_chunk(pages: Any) -> None:
    """Holes have no id that could end a page; 4,096 rows do."""
    rows: Rows = [(b"", 5)] * 5000 + [(bytes([1] * 32), 7)] + [(b"", 5)] * 5000
    entry = store(pages, rows)
    assert list(iter_content(pages.get, entry)) == rows
    assert max(len(decode_list_page(d, 0)[1]) for d in pages.stored.values() if d[1] == 0) == 4096


# -- deduplication --------------------------------------------------------------------------


def test_one_changed_chunk_rewrites_one_page_a_level(pages: Any) -> None:
    rows = random_rows(100_000, "dedup", holes=0)
    entry = store(pages, rows)
    depth = entry.content[0]
    assert depth >= 1
    other = bytes([255]) + bytes(31)
    for number in (0, 12_345, 99_999):
        assert rows[number][0][0], "no boundary, or two pages would become one"
        pages.new.clear()
        changed = store(pages, [*rows[:number], (other, 7), *rows[number + 1 :]])
        assert changed.content != entry.content
        assert len(pages.new) <= depth, number


def test_one_chunk_more_rewrites_few_pages(pages: Any) -> None:
    rows = random_rows(100_000, "dedup", holes=0)
    entry = store(pages, rows)
    pages.new.clear()
    store(pages, [*rows[:50_000], (bytes([9] * 32), 7), *rows[50_000:]])
    # a page that ended at 4,096 rows ends elsewhere, and so do some after it
    assert len(pages.new) <= 8 + entry.content[0]


# -- what is refused ------------------------------------------------------------------------


@given(data=st.binary(max_size=200), level=st.integers(0, 8))
def test_garbage_is_damage(data: bytes, level: int) -> None:
    try:
        decode_list_page(data, level)
    except Damaged:
        pass


json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 1 << 64), st.floats(), st.binary()),
    lambda below: st.lists(below, max_size=4),
    max_leaves=8,
)


@given(content=json, size=st.integers(0, 10))
def test_any_content_is_refused_or_adds_up(content: Any, size: int) -> None:
    entry = Entry(b"file", 0o100644, 0, 0, size, 0, 0, 0, content, None)
    try:
        rows = list(iter_content(lambda kind, page_id: b"", entry))
    except Damaged:
        return
    # nothing is the content of what could not be read
    assert content is None or isinstance(content, bytes) or sum(row[1] for row in rows) == size


def broken(pages: Any, level: int, page: Any, size: int) -> Entry:
    page_id = pages.put(ObjectType.CHUNK_LIST, encode(page))
    return Entry(b"file", 0o100644, 0, 0, size, 0, 0, 0, [level, page_id, [size]], None)


@pytest.mark.parametrize(
    ("level", "page"),
    [
        (1, [0, bytes(32), [9]]),  # covers less than it is said to
        (1, [0, bytes(32), [11]]),
        (1, [1, bytes(32), [10]]),  # of its own level
        (2, [0, bytes(32), [10]]),
        (1, [0, b"", [10]]),
        (1, [0, bytes(32), [10, 0]]),
        (2, [1, bytes(32), [12, -2]]),  # holes stand on level 0 only
    ],
)
def test_pages_that_do_not_fit_are_damage(pages: Any, level: int, page: Any) -> None:
    entry = broken(pages, level, page, 10)
    with pytest.raises(Damaged):
        list(iter_content(pages.get, entry))
    with pytest.raises(Damaged):
        list(iter_range(pages.get, entry, 5))


def test_a_list_that_does_not_add_up_to_the_entry_is_damage(pages: Any) -> None:
    entry = msgspec.structs.replace(store(pages, random_rows(200, 1)), size=5)
    with pytest.raises(Damaged, match="expected 5"):
        list(iter_content(pages.get, entry))


def test_a_page_above_16_mib_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_decode", lambda data: pytest.fail("decoded"))
    with pytest.raises(Damaged, match="limit"):
        decode_list_page(bytes((16 << 20) + 1), 0)
