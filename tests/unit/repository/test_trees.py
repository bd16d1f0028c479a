"""Directories survive being cut into pages, and a change rewrites a page and not the list."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packstone.errors import Damaged
from packstone.model import Entry, Extras, ObjectType
from packstone.repository import trees
from packstone.repository.trees import (
    DirectoryWriter,
    check_entry,
    decode_page,
    encode_page,
    find_entry,
    iter_entries,
    iter_pages,
)

encode = msgspec.msgpack.encode
few = settings(
    max_examples=settings.default.max_examples // 3,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
plain_names = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


def store(pages: Any, entries: list[Entry], slices: Random | None = None) -> bytes:
    """Write a directory, in slices of any size."""
    writer = DirectoryWriter(pages.put)
    at = 0
    while at < len(entries):
        size = slices.choice((1, 2, 31, 32, 1024, 5000)) if slices else len(entries)
        writer.extend(entries[at : at + size])
        at += size
    return writer.finish()


def numbered(make_entry: Callable[..., Entry], count: int, seed: object) -> list[Entry]:
    rng = Random(repr(seed))
    names = sorted({b"%x" % rng.getrandbits(rng.choice((16, 64, 256))) for _ in range(count)})
    return [
        make_entry(name, inode=number, content=rng.randbytes(32), size=1)
        for number, name in enumerate(names)
    ]


# -- entries → pages → entries --------------------------------------------------------------


@few
@given(count=st.sampled_from([0, 1, 31, 32, 33, 300, 1024, 1025, 3000]), seed=st.integers())
def test_entries_come_back(new_pages: Any, make_entry: Any, count: int, seed: int) -> None:
    pages = new_pages()
    entries = numbered(make_entry, count, seed)
    tree_id = store(pages, entries, Random(seed))
    assert list(iter_entries(pages.get, tree_id)) == entries
    for entry in entries[:: max(1, count // 20)]:
        assert find_entry(pages.get, tree_id, entry.name) == entry
    for name in (b"\x01", b"~", b"5555-not-there", b"\xff" * 255):
        assert find_entry(pages.get, tree_id, name) is None


@settings(few, max_examples=settings.default.max_examples)
@given(names=st.sets(plain_names, max_size=60), limits=st.sampled_from([(1, 2), (2, 3), (2, 9)]))
def test_every_shape_of_pages_comes_back(
    new_pages: Any, make_entry: Any, names: set[bytes], limits: tuple[int, int]
) -> None:
    """With pages of a few rows, sixty entries make as many levels as sixty million."""
    pages = new_pages()
    entries = [make_entry(name) for name in sorted(names)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "_MIN_ROWS", limits[0])
        patch.setattr(trees, "_MAX_ROWS", limits[1])
        tree_id = store(pages, entries)
    assert list(iter_entries(pages.get, tree_id)) == entries
    for entry in entries:
        assert find_entry(pages.get, tree_id, entry.name) == entry
    check_references(pages, tree_id)


def check_references(pages: Any, page_id: bytes) -> tuple[int, bytes, int]:
    """Return (level, first name, count) of a page; the rows of a level say the same."""
    level, rows = decode_page(pages.get(ObjectType.TREE, page_id))
    if level == 0:
        return 0, rows[0].name if rows else b"", len(rows)
    total = 0
    for first, child, count in rows:
        assert check_references(pages, child) == (level - 1, first, count)
        total += count
    return level, rows[0][0], total


@few
@given(seed=st.integers())
def test_slices_do_not_matter(new_pages: Any, make_entry: Any, seed: int) -> None:
    entries = numbered(make_entry, 2500, seed)
    assert store(new_pages(), entries, Random(seed)) == store(new_pages(), entries)


@given(
    names=st.sets(plain_names, min_size=1, max_size=5),
    numbers=st.tuples(*[st.integers(-(1 << 63), (1 << 63) - 1)] * 3),
    extras=st.builds(
        Extras,
        flags=st.integers(0, 3),
        link=st.binary(max_size=50),
        xattrs=st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=3),
    ),
)
def test_fields_come_back(names: set[bytes], numbers: tuple[int, int, int], extras: Extras) -> None:
    mtime, ctime, inode = numbers
    entries = [
        Entry(name, 0o104755, 1 << 31, 7, 5, mtime, ctime, abs(inode), bytes(32), extras)
        for name in sorted(names)
    ]
    data = encode_page(entries)
    assert decode_page(data) == (0, entries)
    assert encode((0, entries)) == data
    # absent when empty: one way to write an entry, so one id
    assert encode(Extras()) == encode({})


def test_an_empty_directory(pages: Any) -> None:
    tree_id = store(pages, [])
    assert list(iter_entries(pages.get, tree_id)) == []
    assert list(iter_pages(pages.get, tree_id)) == [[]]
    assert find_entry(pages.get, tree_id, b"a") is None
    assert pages.stored[ObjectType.TREE, tree_id] == encode([0, []])


# -- what ends a page -----------------------------------------------------------------------


def test_pages_end_where_the_page_says(pages: Any, make_entry: Any) -> None:
    """docs/format.md §6: at least 32 rows and a CRC that ends in a zero byte, or 1,024."""
    entries = numbered(make_entry, 20_000, "boundaries")
    tree_id = store(pages, entries)
    found = list(iter_pages(pages.get, tree_id))
    for page in found[:-1]:
        at_crc = zlib.crc32(page[-1].name) & 0xFF == 0
        assert len(page) == 1024 or (at_crc and len(page) >= 32)
        assert not any(zlib.crc32(entry.name) & 0xFF == 0 for entry in page[31:-1])
    sizes = [len(page) for page in found]
    assert 20_000 / 400 < len(sizes) < 20_000 / 200
    level, rows = decode_page(pages.get(ObjectType.TREE, tree_id))
    assert (level, len(rows)) in ((1, len(sizes)), (2, len(rows)))


def test_higher_pages_end_where_the_page_says(pages: Any, hundred_thousand: list[Entry]) -> None:
    """Before a row when there are 32 and the next byte of its name's CRC is zero, or 1,024."""
    store(pages, hundred_thousand)
    decoded = [decode_page(data) for data in pages.stored.values()]
    firsts = [[row[0] for row in rows] for level, rows in decoded if level == 1]
    assert len(firsts) > 1
    for number, names in enumerate(firsts):
        assert len(names) <= 1024
        assert all(zlib.crc32(name) >> 8 & 0xFF for name in names[32:])
        if number:
            assert len(firsts[number - 1]) == 1024 or not zlib.crc32(names[0]) >> 8 & 0xFF


def test_a_page_of_names_without_boundaries_ends_at_1024(pages: Any, make_entry: Any) -> None:
    names = (b"%06d" % number for number in range(100_000))
    chosen = [name for name in names if zlib.crc32(name) & 0xFF][:5000]
    tree_id = store(pages, [make_entry(name) for name in chosen])
    assert [len(page) for page in iter_pages(pages.get, tree_id)] == [1024] * 4 + [904]


def test_large_attributes_end_a_page(pages: Any, make_entry: Any) -> None:
    """ext4 with large inodes and NFS have attributes of 64 KiB: 1,024 of those are too many."""
    extras = Extras(xattrs=[(b"user.large", bytes(65_536))])
    entries = [make_entry(b"%04d" % number, extras=extras) for number in range(200)]
    tree_id = store(pages, entries)
    assert list(iter_entries(pages.get, tree_id)) == entries
    assert max(len(data) for data in pages.stored.values()) < 5 << 20


# -- deduplication --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hundred_thousand() -> list[Entry]:
    rng = Random("a hundred thousand")
    return [
        Entry(b"file-%06d" % n, 0o100644, 0, 0, 1, n, n, n, rng.randbytes(32), None)
        for n in range(100_000)
    ]


def test_one_changed_entry_rewrites_three_pages_at_most(
    pages: Any, hundred_thousand: list[Entry]
) -> None:
    entries = hundred_thousand
    store(pages, entries)
    whole = len(pages.new)
    boundary = next(
        number for number, entry in enumerate(entries[50_000:], 50_000)
        if zlib.crc32(entry.name) & 0xFF == 0
    )  # fmt: skip
    for number in (0, boundary, 99_999):
        pages.new.clear()
        changed = msgspec.structs.replace(entries[number], mtime_ns=-1)
        tree_id = store(pages, [*entries[:number], changed, *entries[number + 1 :]])
        assert 1 <= len(pages.new) <= 3 < whole, number
        assert tree_id in pages.new


def test_one_entry_more_or_less_rewrites_few_pages(
    pages: Any, hundred_thousand: list[Entry]
) -> None:
    entries = hundred_thousand
    store(pages, entries)
    for number in (0, 31_415):
        more = msgspec.structs.replace(entries[number], name=entries[number].name + b"-")
        for changed in (
            [*entries[: number + 1], more, *entries[number + 1 :]],
            [*entries[:number], *entries[number + 1 :]],
        ):
            pages.new.clear()
            store(pages, changed)
            # the page itself, its neighbour where a boundary moved, and those above
            assert len(pages.new) <= 5, number


def test_looking_up_a_name_reads_one_page_a_level(
    pages: Any, hundred_thousand: list[Entry]
) -> None:
    tree_id = store(pages, hundred_thousand)
    pages.read.clear()
    assert find_entry(pages.get, tree_id, b"file-054321") == hundred_thousand[54_321]
    assert sum(pages.read.values()) <= 3


# -- what is refused ------------------------------------------------------------------------


@given(data=st.binary(max_size=200))
def test_garbage_is_damage(data: bytes) -> None:
    try:
        decode_page(data)
    except Damaged:
        pass


@given(at=st.integers(0, 1 << 20), value=st.integers(0, 255), drop=st.integers(0, 3))
def test_a_changed_page_is_damage_or_sound(at: int, value: int, drop: int) -> None:
    entries = [
        Entry(b"a%d" % n, 0o100644, 0, 0, 9, 5, 5, 5, [0, bytes(32), [4, -5]], None)
        for n in range(5)
    ]
    data = bytearray(encode_page(entries))
    data[at % len(data)] = value
    try:
        level, rows = decode_page(bytes(data[: len(data) - drop]))
        for entry in rows:
            check_entry(entry)  # type: ignore[arg-type]
    except Damaged:
        return
    names = [entry.name for entry in rows]  # type: ignore[union-attr]
    assert level == 0 and names == sorted(set(names))
    assert all(0 < len(name) < 256 and not {0, 47} & {*name} for name in names)


def put_page(pages: Any, value: Any) -> bytes:
    return pages.put(ObjectType.TREE, encode(value))


def test_pages_out_of_order_are_damage(pages: Any, make_entry: Any) -> None:
    low = put_page(pages, [0, [make_entry(b"a"), make_entry(b"m")]])
    high = put_page(pages, [0, [make_entry(b"l"), make_entry(b"z")]])
    tree_id = put_page(pages, [1, [[b"a", low, 2], [b"l", high, 2]]])
    with pytest.raises(Damaged, match="order"):
        list(iter_entries(pages.get, tree_id))
    tree_id = put_page(pages, [1, [[b"a", high, 2], [b"l", low, 2]]])
    with pytest.raises(Damaged, match="above it says"):
        list(iter_entries(pages.get, tree_id))


@pytest.mark.parametrize("below", [0, 2])
def test_a_page_of_another_level_is_damage(pages: Any, make_entry: Any, below: int) -> None:
    leaf = put_page(pages, [0, [make_entry(b"a")]])
    child = leaf if below == 0 else put_page(pages, [below, [[b"a", leaf, 1]]])
    tree_id = put_page(pages, [2, [[b"a", child, 1]]])
    with pytest.raises(Damaged, match="level"):
        list(iter_entries(pages.get, tree_id))
    with pytest.raises(Damaged, match="level"):
        find_entry(pages.get, tree_id, b"a")


@pytest.mark.parametrize("row", [(b"b", 1), (b"a", 2)], ids=["first name", "count"])
def test_a_page_that_is_not_what_its_reference_says_is_damage(
    pages: Any, make_entry: Any, row: tuple[bytes, int]
) -> None:
    """Else `restore` finds an entry that `find_entry` does not."""
    leaf = put_page(pages, [0, [make_entry(b"a")]])
    tree_id = put_page(pages, [1, [[row[0], leaf, row[1]]]])
    with pytest.raises(Damaged):
        list(iter_entries(pages.get, tree_id))
        find_entry(pages.get, tree_id, b"a")


def test_a_million_levels_are_refused_at_once(pages: Any) -> None:
    with pytest.raises(Damaged):
        decode_page(encode([1_000_000, [[b"a", bytes(32), 1]]]))


def test_a_page_above_16_mib_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "_decode_any", lambda data: pytest.fail("decoded"))
    with pytest.raises(Damaged, match="limit"):
        decode_page(bytes((16 << 20) + 1))
