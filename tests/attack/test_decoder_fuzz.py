"""Decoders take any bytes: they return something sound or raise Damaged or UnsupportedFormat.

Bytes come as noise, as sound encodings with a few bytes changed, and as sound MessagePack of
the wrong shape (rows X1 and F1). HYPOTHESIS_PROFILE=soak tries many more.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, open_envelope, seal_envelope
from packstone.codec.hashing import checksum
from packstone.errors import Damaged, ObjectMissing, UnsupportedFormat
from packstone.model import Entry, Extras, ObjectType, Snapshot
from packstone.repository import layout
from packstone.repository.contents import decode_list_page, iter_content, iter_range
from packstone.repository.packs import OBJECT, PackWriter, read_pack
from packstone.repository.trees import check_entry, decode_page, iter_entries
from packstone.storage.local import LocalStorage

ID, OURS, SALT = bytes(range(32)), Sealer(bytes(16)), bytes(32)
encode = msgspec.msgpack.encode

ENTRIES = [
    Entry(b"a", 0o100644, 0, 0, 5, 1, 1, 1, ID, None),
    Entry(b"b", 0o100644, 0, 0, 12, -1, 1, 1, [0, ID * 2, [5, -2, 5]], None),
    Entry(b"c", 0o040755, 0, 0, 0, 1, 1, 1, ID, Extras(xattrs=[(b"user.a", b"1")])),
    Entry(b"d", 0o120777, 0, 0, 0, 1, 1, 1, b"target", Extras(link=b"x/d")),
    Entry(b"e", 0o020666, 0, 0, 0, 1, 1, 1, [1, 3], None),
    Entry(b"f", 0o100644, 0, 0, 9, 1, 1, 1, None, Extras(flags=2)),
]
PAGES = [encode((0, ENTRIES)), encode((1, [(b"a", ID, 5), (b"m", ID, 7)])), encode((0, []))]
LISTS = [encode((0, ID * 2, [5, -2, 5])), encode((1, ID, [12])), encode((0, b"", [-5]))]
SNAPSHOT = encode(
    Snapshot(time_ns=1, host="h", paths=[b"/a"], tree=ID, tags=["t"], users={0: "root"},
             summary={"files": 1})
)  # fmt: skip
FOOTER = encode([[128, 5, 5, 0, OBJECT.pack(ID, 5, 1), b"", [], 0, 0]])

numbers = st.one_of(st.integers(-(1 << 63), (1 << 64) - 1), st.sampled_from([0, 1, 31, 32, 128]))
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), numbers, st.floats(), st.binary(max_size=40),
        st.just(ID), st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=10),
        st.dictionaries(st.one_of(st.text(max_size=8), st.integers(0, 9)), inner, max_size=4),
    ),
    max_leaves=12,
)  # fmt: skip


@st.composite
def changed(draw: Callable[..., Any], seeds: list[bytes]) -> bytes:
    """A sound encoding with a few bytes overwritten, put in, or taken out."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        verb = draw(st.integers(0, 3))
        if verb == 0 and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif verb == 1:
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif verb == 2:
            del data[at : at + draw(st.integers(1, 9))]
        elif data:
            data[at % len(data)] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


def hostile_bytes(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(changed(seeds), st.binary(max_size=200), values.map(encode))


def nowhere(kind: ObjectType, object_id: bytes) -> bytes:
    raise ObjectMissing("nowhere")


@given(data=hostile_bytes(PAGES))
def test_tree_pages(data: bytes) -> None:
    try:
        level, rows = decode_page(data)
    except Damaged:
        return
    if level:
        return
    names = [row.name for row in rows]
    assert names == sorted(set(names))
    assert not [name for name in names if name in (b"", b".", b"..") or b"/" in name]
    for entry in rows:
        try:
            check_entry(entry)
            if entry.mode & 0o170000 == 0o100000 and entry.content is not None:
                assert sum(size for _, size in iter_content(nowhere, entry)) == entry.size
                list(iter_range(nowhere, entry, max(0, entry.size // 2)))
        except (Damaged, ObjectMissing):
            pass


@given(pages=st.lists(hostile_bytes(PAGES), min_size=1, max_size=4), seed=st.integers(0, 1 << 32))
def test_directories_of_hostile_pages(pages: list[bytes], seed: int) -> None:
    chance = random.Random(seed)
    left = 200

    def get(kind: ObjectType, object_id: bytes) -> bytes:
        nonlocal left
        left -= 1
        if left < 0:
            raise ObjectMissing("enough")
        return chance.choice(pages)

    last = b""
    try:
        for entry in iter_entries(get, ID):
            assert entry.name > last
            last = entry.name
    except (Damaged, ObjectMissing):
        pass


@given(data=hostile_bytes(LISTS), level=st.integers(0, 9))
def test_chunk_lists(data: bytes, level: int) -> None:
    try:
        ids, sizes = decode_list_page(data, level)
    except Damaged:
        return
    assert len(ids) == 32 * sum(size > 0 for size in sizes)
    assert 0 not in sizes


@given(content=values, size=numbers, pages=st.lists(hostile_bytes(LISTS), min_size=1, max_size=3))
def test_contents_of_hostile_lists(content: Any, size: int, pages: list[bytes]) -> None:
    left = 100

    def get(kind: ObjectType, object_id: bytes) -> bytes:
        nonlocal left
        left -= 1
        if left < 0:
            raise ObjectMissing("enough")
        return pages[left % len(pages)]

    entry = Entry(b"a", 0o100644, 0, 0, size, 1, 1, 1, content, None)
    for start in (0, size // 2):
        try:
            check_entry(entry)
            total = sum(row[1] for row in iter_content(get, entry))
            assert total == size
            list(iter_range(get, entry, max(0, start)))
        except (Damaged, ObjectMissing):
            pass


ENVELOPE = seal_envelope(Kind.SNAPSHOT, OURS, SALT, SNAPSHOT)


@given(data=hostile_bytes([ENVELOPE]), seal=st.booleans())
def test_envelopes(data: bytes, seal: bool) -> None:
    """Also with the checksum made right again, which any enemy can do."""
    if seal:
        data = data[:-32] + checksum(data[:-32])
    try:
        found = open_envelope(data, Kind.SNAPSHOT, "snapshots/x", OURS)
    except (Damaged, UnsupportedFormat):
        return
    assert found.repository_id == OURS.repository_id
    assert data[:8] == b"PKSTNOBJ" and data[64:-32] == found.payload


@given(payload=hostile_bytes([SNAPSHOT]))
@pytest.mark.parametrize("kind", [Snapshot, layout.Config])
def test_payloads(kind: type[Any], payload: bytes) -> None:
    try:
        found = layout.decode_payload(payload, kind, "name")
    except Damaged:
        return
    assert isinstance(found, kind)


@pytest.fixture(scope="module")
def storage() -> Iterator[LocalStorage]:
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared) as place:
        storage = LocalStorage(place)
        storage.make_directories(["tmp", "packs", *(f"packs/{at:02x}" for at in range(256))])
        yield storage


@given(body=hostile_bytes([FOOTER]), kind=st.integers(1, 2))
def test_footers(storage: LocalStorage, body: bytes, kind: int) -> None:
    """A footer whose checksum is right: what it says is either refused or fits the pack."""

    class Lying(PackWriter):
        def _seal_footer(self, sound: bytes) -> bytes:
            return super()._seal_footer(body)

    writer = Lying(storage, kind, OURS, SALT)
    writer.add(b"12345", 5, 0, b"", b"")
    pack = writer.finish()
    try:
        found = read_pack(storage, pack.id, pack.size, OURS)
    except (Damaged, UnsupportedFormat):
        return
    finally:
        storage.delete(f"packs/{pack.id[:2]}/{pack.id}")
    for row in found.rows:
        assert row.offset >= 128 and row.offset + row.stored_size <= pack.size - 64
        assert sum(size for _, size, _ in row.object_rows()) == row.raw_size
        assert 0 <= row.codec <= 255 and row.lineage >= 0 and 0 <= row.depth <= 64


@given(spots=st.lists(st.tuples(st.integers(0, 4600), st.integers(0, 255)), min_size=1, max_size=6))
def test_packs_with_changed_bytes(storage: LocalStorage, spots: list[tuple[int, int]]) -> None:
    writer = PackWriter(storage, 1, OURS, SALT)
    writer.add(b"12345", 5, 0, OBJECT.pack(ID, 5, 1), b"")
    pack = writer.finish()
    path = storage.full_path(f"packs/{pack.id[:2]}/{pack.id}")
    with open(path, "r+b") as file:
        for at, value in spots:
            if at < pack.size:
                file.seek(at)
                file.write(bytes((value,)))
    try:
        found = read_pack(storage, pack.id, pack.size, OURS)
        assert found.rows == pack.rows
    except (Damaged, UnsupportedFormat):
        pass
    finally:
        os.unlink(path)
