"""Snapshots come back as they were, under the name that is their hash, and are found by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from contract.storage_suite import MemoryStorage
from hypothesis import given
from hypothesis import strategies as st

from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, seal_envelope
from packstone.codec.hashing import checksum
from packstone.errors import Damaged, ObjectMissing, UsageError
from packstone.model import Snapshot
from packstone.repository.layout import snapshot_name
from packstone.repository.snapshots import (
    SnapshotRow,
    encode_snapshot,
    find_parent,
    list_snapshots,
    read_snapshot,
    resolve,
    select,
)

OURS = Sealer(bytes(range(16)))
ids = st.binary(min_size=32, max_size=32)
text = st.text(max_size=9)
snapshots = st.builds(
    Snapshot,
    time_ns=st.integers(-(1 << 63), (1 << 63) - 1),
    host=text,
    paths=st.lists(st.binary(max_size=9), max_size=3),
    tree=ids,
    user=text,
    name=st.binary(max_size=9),
    tags=st.lists(text, max_size=3),
    parent=st.just(b"") | ids,
    original_id=st.just(b"") | ids,
    program=text,
    excludes=st.lists(text, max_size=2),
    users=st.dictionaries(st.integers(0, 1 << 32), text, max_size=3),
    groups=st.dictionaries(st.integers(0, 1 << 32), text, max_size=3),
    summary=st.dictionaries(text, st.integers(0, 1 << 60), max_size=3),
)


def make(**changes: Any) -> Snapshot:
    fields: dict[str, Any] = {"time_ns": 1, "host": "h", "paths": [b"/a"], "tree": bytes(32)}
    return Snapshot(**(fields | changes))


def store(storage: MemoryStorage, snapshot: Snapshot, salt: int = 0) -> str:
    data = seal_envelope(Kind.SNAPSHOT, OURS, salt.to_bytes(32, "big"), encode_snapshot(snapshot))
    snapshot_id = checksum(data).hex()
    storage.put(snapshot_name(snapshot_id), data)
    return snapshot_id


@given(snapshot=snapshots)
def test_snapshots_come_back(snapshot: Snapshot) -> None:
    storage = MemoryStorage()
    snapshot_id = store(storage, snapshot)
    assert read_snapshot(storage, snapshot_id, OURS) == snapshot
    # the same fields in the same order, absent when empty: one way to write a snapshot
    payload = storage.get(snapshot_name(snapshot_id), 1 << 20)[64:-32]
    found = msgspec.msgpack.decode(payload)
    assert msgspec.msgpack.encode(found) == payload
    order = [field for field in Snapshot.__struct_fields__ if field in found]
    assert list(found) == order and order[:4] == ["time_ns", "host", "paths", "tree"]
    assert all(found[key] or key in ("time_ns", "host", "paths") for key in found)


def test_every_flipped_byte_is_damage() -> None:
    storage = MemoryStorage()
    snapshot_id = store(storage, make())
    data = storage.files[snapshot_name(snapshot_id)]
    for at in range(len(data)):
        storage.files[snapshot_name(snapshot_id)] = (
            data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        )
        with pytest.raises(Damaged, match=snapshot_id[:12]):
            read_snapshot(storage, snapshot_id, OURS)


def test_a_snapshot_under_another_name_is_damage() -> None:
    """Nobody makes an old snapshot look like a new one by renaming it."""
    storage = MemoryStorage()
    first, second = store(storage, make()), store(storage, make(host="other"))
    storage.files[snapshot_name(first)] = storage.files[snapshot_name(second)]
    with pytest.raises(Damaged):
        read_snapshot(storage, first, OURS)
    with pytest.raises(ObjectMissing):
        read_snapshot(storage, "0" * 64, OURS)


def test_one_damaged_snapshot_hides_no_other() -> None:
    storage = MemoryStorage()
    good = [store(storage, make(time_ns=when), when) for when in (3, 1, 2)]
    bad = store(storage, make(host="bad"))
    storage.files[snapshot_name(bad)] = b"damaged"
    storage.files["snapshots/not-a-snapshot"] = b""
    rows, damaged = list_snapshots(storage, OURS)
    assert [row.id for row in rows] == [good[1], good[2], good[0]], "oldest first"
    assert [bad[:12] in error.message for error in damaged] == [True]


class Forgetting(MemoryStorage):
    """Lists first; then others forget, or a disk loses what it goes on listing."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten: list[str] = []
        self.lost: list[str] = []

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        yield from list(super().list(prefix))

    def get(self, name: str, limit: int) -> bytes:
        for each in self.forgotten:
            self.files.pop(each, None)
        if name in self.lost:
            raise ObjectMissing(name)
        return super().get(name, limit)


def test_one_that_is_forgotten_meanwhile_is_left_out() -> None:
    storage = Forgetting()
    ids = [store(storage, make(time_ns=when), when) for when in range(4)]
    storage.forgotten = [snapshot_name(name) for name in ids[:3]]
    rows, damaged = list_snapshots(storage, OURS)
    assert [row.id for row in rows] == ids[3:] and damaged == []


def test_one_that_is_listed_and_not_there_is_an_error() -> None:
    storage = Forgetting()
    ids = [store(storage, make(time_ns=when), when) for when in range(4)]
    storage.lost = [snapshot_name(ids[2])]
    with pytest.raises(ObjectMissing, match=ids[2]):
        list_snapshots(storage, OURS)


def test_equal_times_have_an_order() -> None:
    storage = MemoryStorage()
    stored = sorted(store(storage, make(), salt) for salt in range(5))
    assert [row.id for row in list_snapshots(storage, OURS)[0]] == stored


# -- finding --------------------------------------------------------------------------------


def row(number: int, **changes: Any) -> SnapshotRow:
    return SnapshotRow(f"{number:064x}"[::-1], make(time_ns=number, **changes))


def test_resolve() -> None:
    rows = [row(number) for number in range(1, 20)]
    assert resolve("latest", rows) is rows[-1]
    assert resolve("latest~0", rows) is rows[-1]
    assert resolve("latest~18", rows) is rows[0]
    assert resolve(rows[4].id, rows) is rows[4]
    assert resolve(rows[4].id[:3], rows) is rows[4]
    assert resolve(rows[11].id[:1].upper(), rows) is rows[11], "12 is c"
    for wrong in ("latest~19", "latest~", "latest~-1", "", "zz", "1"):
        with pytest.raises(UsageError):
            resolve(wrong, rows)
    with pytest.raises(UsageError):
        resolve("latest", [])


def test_an_ambiguous_prefix_says_which() -> None:
    rows = [row(0x11), row(0x21)]
    with pytest.raises(UsageError, match="ambiguous") as caught:
        resolve("1", rows)
    assert all(each.id[:12] in caught.value.message for each in rows)


def test_select() -> None:
    rows = [
        row(1, host="a", paths=[b"/x", b"/y"], tags=["t", "u"]),
        row(2, host="a", paths=[b"/x"], tags=["t"]),
        row(3, host="b", paths=[b"/y"], name=b"dump"),
    ]
    assert select(rows) == rows
    assert select(rows, host="a") == rows[:2]
    assert select(rows, paths=[b"/x", b"/y"]) == rows[:1]
    assert select(rows, tags=["t", "u"]) == rows[:1]
    assert select(rows, paths=[b"/dump"]) == select(rows, paths=[b"dump"]) == rows[2:]
    assert select(rows, host="a", tags=["nothing"]) == []


def test_find_parent() -> None:
    rows = [
        row(1, paths=[b"/a", b"/b"]),
        row(2, paths=[b"/b", b"/a"]),
        row(3, paths=[b"/a"]),
        row(4, paths=[b"/a", b"/b"], host="other"),
        row(5, paths=[b"/dump"], name=b"dump", tags=["nightly"]),
        row(6, paths=[b"/other"], name=b"other", tags=["nightly"]),
    ]
    assert find_parent(rows, make(paths=[b"/a", b"/b"])) is rows[1]
    assert find_parent(rows, make(paths=[b"/a"])) is rows[2]
    assert find_parent(rows, make(paths=[b"/c"])) is None
    assert find_parent(rows, make(paths=[b"/dump"])) is None, "a piped one is no directory"
    assert find_parent(rows, make(name=b"dump", tags=["nightly"])) is rows[4]
    assert find_parent(rows, make(name=b"renamed", tags=["nightly"])) is rows[5]
    assert find_parent(rows, make(name=b"renamed")) is None
