"""Packs: what is written is read back, from either footer, and nothing else is."""

from __future__ import annotations

import os
import struct
from random import Random
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from contract.storage_suite import MemorySpool, MemoryStorage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packstone.codec.encryption import Sealer
from packstone.codec.hashing import checksum
from packstone.errors import Damaged, PackstoneError, StorageFull, UnsupportedFormat
from packstone.model import GIB, ObjectType
from packstone.repository import packs
from packstone.repository.layout import list_ids, pack_name
from packstone.repository.packs import (
    DATA,
    METADATA,
    Pack,
    PackWriter,
    pack_objects,
    read_pack,
)
from packstone.storage.local import LocalStorage

OWNER, SALT = bytes(range(16)), bytes(range(32))
OURS, OTHER = Sealer(OWNER), Sealer(bytes(16))
MIB = 1 << 20
few = settings(
    max_examples=settings.default.max_examples // 3,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def objects_of(payload: bytes, kind: int) -> bytes:
    """Make up the row of one object, as large as the payload."""
    type_ = ObjectType.CHUNK if kind == DATA else ObjectType.TREE
    return pack_objects([(checksum(payload), len(payload), type_)])


def write(storage: Any, payloads: list[Any], kind: int = DATA, salt: bytes = SALT) -> Pack:
    writer = PackWriter(storage, kind, OURS, salt)
    for number, payload in enumerate(payloads):
        keys = bytes([number & 255]) * 16 if number % 2 else b""
        writer.add(payload, len(payload), 0, objects_of(bytes(payload), kind), keys)
    return writer.finish()


def stored(storage: MemoryStorage, pack: Pack) -> bytes:
    return storage.files[pack_name(pack.id)]


def places(data: bytes) -> tuple[int, int, int]:
    """Return (offset of the first footer, of the second, size of one), from header and trailer."""
    first, size = struct.unpack_from("<QQ", data, 64)
    second, same = struct.unpack_from("<QQ", data, len(data) - 56)
    assert size == same
    return first, second, size


sizes = st.lists(st.sampled_from([1, 3, 100, 16_384, 70_000, 300_000]), max_size=12)


@few
@given(sizes=sizes, kind=st.sampled_from([DATA, METADATA]), seed=st.integers())
def test_records_come_back(sizes: list[int], kind: int, seed: int) -> None:
    rng = Random(seed)
    payloads = [rng.randbytes(size) for size in sizes or [5]]  # nobody writes an empty pack
    storage = MemoryStorage()
    pack = write(storage, payloads, kind)
    data = stored(storage, pack)
    assert dict(list_ids(storage, "packs")) == {pack.id: len(data)}
    assert pack.id == blake3(data).hexdigest() and pack.size == len(data)
    found = read_pack(storage, pack.id, len(data), OURS)
    assert found.rows == pack.rows and found.damage == ()
    assert found.kind == kind
    for row, payload in zip(found.rows, payloads, strict=True):
        assert data[row.offset : row.offset + row.stored_size] == payload
        assert list(row.object_rows()) == [(checksum(payload), len(payload), 1 if kind == 1 else 2)]
    # either copy alone will do
    for name, zeroed in (("header", (0, 128)), ("first", None), ("trailer", (len(data) - 64, 64))):
        begin, size = zeroed or (places(data)[0], places(data)[2])
        storage.files[pack_name(pack.id)] = data[:begin] + bytes(size) + data[begin + size :]
        again = read_pack(storage, pack.id, len(data), OURS)
        assert again.rows == pack.rows, name
        assert bool(again.damage) == (name != "trailer"), name


@few
@given(sizes=sizes, seed=st.integers())
def test_the_copies_stand_apart(sizes: list[int], seed: int) -> None:
    """One bad sector never hits both; in a large pack 1 MiB of records is between them."""
    payloads = [Random(seed).randbytes(size) for size in sizes]
    storage = MemoryStorage()
    data = stored(storage, write(storage, payloads))
    first, second, size = places(data)
    between = second - first - size
    assert between >= 4096
    total = sum(sizes)
    assert between >= min(total, MIB)
    assert data[first : first + size] == data[second : second + size]
    assert second + size + 64 == len(data)


def test_what_no_table_names_is_zero() -> None:
    storage = MemoryStorage()
    data = stored(storage, write(storage, [b"record"]))
    first, second, size = places(data)
    gap = data[first + size + 6 : second]
    assert len(gap) > 4000 and not any(gap)
    assert not any(data[12:16]) and not any(data[80:96])
    assert data[16:64] == OWNER + SALT


def test_a_pack_says_the_same_whatever_its_records_stand_on() -> None:
    """Records are held back until a footer stands before them; the caller's buffer is not."""
    rng = Random(5)
    payloads = [rng.randbytes(200_000) for _ in range(12)]
    expected, storage = MemoryStorage(), MemoryStorage()
    first = write(expected, payloads)
    buffer = bytearray(200_000)
    writer = PackWriter(storage, DATA, OURS, SALT)
    for number, payload in enumerate(payloads):
        buffer[:] = payload
        keys = bytes([number]) * 16 if number % 2 else b""
        writer.add(memoryview(buffer), len(buffer), 0, objects_of(payload, DATA), keys)
        buffer[:] = bytes(200_000)  # the next file is read into it
    assert writer.finish().id == first.id
    assert storage.files == expected.files


def test_offsets_that_grow_with_the_footer() -> None:
    """The footer's size depends on offsets behind it, which depend on its size."""
    for count in (*range(1, 60), 250, 300, 1700):
        storage = MemoryStorage()
        payloads = [b"%d" % number for number in range(count)]
        pack = write(storage, payloads)
        data = stored(storage, pack)
        found = read_pack(storage, pack.id, len(data), OURS)
        for row, payload in zip(found.rows, payloads, strict=True):
            assert data[row.offset : row.offset + row.stored_size] == payload


def test_memory_is_bounded_by_what_is_held_back() -> None:
    storage = MemoryStorage()
    writer = PackWriter(storage, DATA, OURS, SALT)
    for number in range(64):
        payload = bytes([number]) * 100_000
        writer.add(payload, len(payload), 0, objects_of(payload, DATA), b"")
        assert writer._tail_size < MIB + 100_000
    assert writer.size == 128 + 64 * 100_000


# -- writing that goes wrong ----------------------------------------------------------------


class Short(MemorySpool):
    """A disk that gives back less than it took."""

    def read_at(self, offset: int, size: int) -> bytes:
        return super().read_at(offset, size)[: max(0, len(self._data) - 1 - offset)]


class Wrong(MemorySpool):
    """A disk that gives back something else."""

    def read_at(self, offset: int, size: int) -> bytes:
        return bytes(len(super().read_at(offset, size)))


def test_a_file_that_reads_back_short_is_no_pack() -> None:
    storage = MemoryStorage()
    storage.spool = lambda: Short(storage)  # type: ignore[method-assign]
    with pytest.raises(Damaged, match="reads back"):
        write(storage, [b"record"])
    assert storage.files == {}


def test_a_file_that_reads_back_otherwise_is_no_pack() -> None:
    storage = MemoryStorage()
    storage.spool = lambda: Wrong(storage)  # type: ignore[method-assign]
    with pytest.raises(Damaged, match="otherwise"):
        write(storage, [b"record"])
    assert storage.files == {}


def test_an_abandoned_pack_leaves_nothing(location: str) -> None:
    storage = LocalStorage(location)
    writer = PackWriter(storage, DATA, OURS, SALT)
    writer.add(b"record", 6, 0, objects_of(b"record", DATA), b"")
    writer.abandon()
    writer.abandon()
    assert os.listdir(storage.full_path("tmp")) == []
    assert list(list_ids(storage, "packs")) == []


def test_a_full_disk_leaves_nothing(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(location)
    writer = PackWriter(storage, DATA, OURS, SALT)
    writer.add(bytes(MIB), MIB, 0, objects_of(bytes(MIB), DATA), b"")

    def full(fd: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageFull):
        writer.finish()
    writer.abandon()
    assert os.listdir(storage.full_path("tmp")) == []


def test_finishing_keeps_it_from_being_abandoned() -> None:
    storage = MemoryStorage()
    writer = PackWriter(storage, DATA, OURS, SALT)
    pack = writer.finish()
    writer.abandon()
    assert read_pack(storage, pack.id, pack.size, OURS).rows == []


# -- reading what is wrong ------------------------------------------------------------------


def small_pack() -> tuple[MemoryStorage, Pack, bytes]:
    storage = MemoryStorage()
    pack = write(storage, [b"first", b"second" * 10, b"third"])
    return storage, pack, stored(storage, pack)


def test_any_flipped_bit_leaves_a_whole_footer() -> None:
    storage, pack, data = small_pack()
    rng = Random("flips")
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        storage.files[pack_name(pack.id)] = bytes(changed)
        assert read_pack(storage, pack.id, len(data), OURS).rows == pack.rows


def test_every_truncation_is_refused_or_leaves_a_whole_footer() -> None:
    storage, pack, data = small_pack()
    last = pack.rows[-1]
    enough = last.offset + last.stored_size + 64
    for length in range(len(data)):
        storage.files[pack_name(pack.id)] = data[:length]
        if length < enough:
            with pytest.raises(Damaged):
                read_pack(storage, pack.id, length, OURS)
        else:
            assert read_pack(storage, pack.id, length, OURS).rows == pack.rows


@settings(few, max_examples=settings.default.max_examples * 3)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 127) | st.integers(0, 1 << 16), st.integers(0, 255)),
        min_size=1,
        max_size=6,
    ),
    fix=st.booleans(),
)
def test_damaged_packs_give_an_error_or_the_truth(
    changes: list[tuple[int, int]], fix: bool
) -> None:
    """With `fix`, checksums are made right again: then anything sound may come, or an error."""
    storage, pack, data = small_pack()
    changed = bytearray(data)
    for at, value in changes:
        changed[at % len(changed)] = value
    if fix:
        first, second, size = places(data)
        changed[96:128] = checksum(bytes(changed[:96]))
        changed[-32:] = checksum(bytes(changed[-64:-32]))
        for at in (first, second):
            changed[at + size - 32 : at + size] = checksum(bytes(changed[at : at + size - 32]))
    storage.files[pack_name(pack.id)] = bytes(changed)
    try:
        found = read_pack(storage, pack.id, len(changed), OURS)
    except (Damaged, UnsupportedFormat):
        return
    if not fix:
        assert found.rows == pack.rows
    for row in found.rows:
        assert row.offset >= 128 and row.offset + row.stored_size <= len(changed) - 64
        assert sum(size for _, size, _ in row.object_rows()) == row.raw_size


def sealed_footer(rows: Any) -> bytes:
    body = msgspec.msgpack.encode(rows)
    data = struct.pack("<8sI4x16s32s", b"PKSTFOOT", len(body), OWNER, SALT) + body
    return data + checksum(data)


def pack_of(rows: Any) -> bytes:
    copy = sealed_footer(rows)
    head = struct.pack("<8sHBB4x16s32sQQ16x", b"PKSTPACK", 1, 1, 0, OWNER, SALT, 128, len(copy))
    tail = struct.pack("<8sQQQ", b"PKSTTAIL", 128, len(copy), 192 + len(copy))
    return head + checksum(head) + copy + tail + checksum(tail)


@pytest.mark.parametrize("count", [65_536, 65_537])
def test_a_record_has_65536_objects_at_most(count: int) -> None:
    objects = b"".join([bytes(36) + b"\x01"] * count)  # of no bytes
    data = pack_of([[128, 0, 0, 0, objects, b"", [], 0, 0]])
    storage = MemoryStorage()
    storage.files[pack_name("a" * 64)] = data
    if count == 65_536:
        assert len(read_pack(storage, "a" * 64, len(data), OURS).rows) == 1
    else:
        with pytest.raises(Damaged):
            read_pack(storage, "a" * 64, len(data), OURS)


class Recording(MemoryStorage):
    """Says what was asked for, to see that nothing large is."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        self.asked.append(size)
        return super().get_range(name, offset, size)


def test_a_pack_above_8_gib_is_not_read() -> None:
    storage = Recording()
    with pytest.raises(Damaged, match="limit"):
        read_pack(storage, "a" * 64, 8 * GIB + 1, OURS)
    assert storage.asked == []


@pytest.mark.parametrize("size", [0, 95, 257 * MIB, 1 << 62])
def test_a_footer_of_an_impossible_size_is_not_read(size: int) -> None:
    storage = Recording()
    data = bytearray(pack_of([]))
    struct.pack_into("<Q", data, 72, size)
    data[96:128] = checksum(bytes(data[:96]))
    struct.pack_into("<Q", data, len(data) - 48, size)
    data[-32:] = checksum(bytes(data[-64:-32]))
    storage.files[pack_name("a" * 64)] = bytes(data)
    with pytest.raises(Damaged, match="footers are unusable"):
        read_pack(storage, "a" * 64, len(data), OURS)
    assert max(storage.asked) <= 128


def test_a_pack_of_another_repository_is_refused() -> None:
    storage, pack, data = small_pack()
    with pytest.raises(Damaged, match="repository"):
        read_pack(storage, pack.id, len(data), OTHER)


def test_errors_say_what_to_do() -> None:
    storage, pack, _ = small_pack()
    storage.files[pack_name(pack.id)] = bytes(5000)
    with pytest.raises(PackstoneError) as caught:
        read_pack(storage, pack.id, 5000, OURS)
    assert pack.id in caught.value.message and caught.value.hint
    assert caught.value.exit_code == 14


def test_limits_are_those_of_the_page() -> None:
    assert (packs.MAX_PACK, packs.MAX_FOOTER) == (8 << 30, 256 << 20)
    assert (packs.MAX_OBJECTS, packs.MAX_BASES, packs.MAX_DEPTH) == (65_536, 3, 64)
    assert packs.MAX_RAW_SIZE == 64 << 20
