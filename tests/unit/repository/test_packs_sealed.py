"""Sealed packs: they open in their own place alone, and their sizes tell little."""

from __future__ import annotations

import contextlib
import struct
from random import Random
from typing import Any

import pytest
from blake3 import blake3
from contract.storage_suite import MemoryStorage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.repository.sealing import OURS, OWNER, SALT, SECRET, Failing, Spy, record, stored

from packstone.codec.encryption import Sealer, padme
from packstone.codec.hashing import checksum
from packstone.errors import Damaged, StorageError, StorageFull, UnsupportedFormat
from packstone.model import KIB, MIB, Buffer, ObjectType
from packstone.repository import packs
from packstone.repository.layout import pack_name
from packstone.repository.packs import (
    DATA,
    METADATA,
    Pack,
    PackWriter,
    pack_objects,
    read_pack,
)

few = settings(
    max_examples=settings.default.max_examples // 3,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def objects_of(payload: Buffer, kind: int = DATA) -> bytes:
    """Make up the row of one object, as large as the payload."""
    type_ = ObjectType.CHUNK if kind == DATA else ObjectType.TREE
    return pack_objects([(checksum(payload), len(payload), type_)])


def write(
    storage: MemoryStorage,
    payloads: list[bytes],
    kind: int = DATA,
    sealer: Sealer = OURS,
    salt: bytes = SALT,
) -> Pack:
    writer = PackWriter(storage, kind, sealer, salt)
    for number, payload in enumerate(payloads):
        keys = bytes([number & 255]) * 16 if number % 2 else b""
        writer.add(payload, len(payload), 0, objects_of(payload, kind), keys)
    return writer.finish()


def places(data: bytes) -> tuple[int, int, int]:
    """Return (offset of the first footer, of the second, size of one), from header and trailer."""
    first, size = struct.unpack_from("<QQ", data, 64)
    second, same = struct.unpack_from("<QQ", data, len(data) - 56)
    assert size == same
    return first, second, size


sizes = st.lists(
    st.sampled_from([0, 1, 3, 100, 16_384, 70_000, 300_000, 1_000_000]), min_size=1, max_size=9
)


# -- what comes back ------------------------------------------------------------------------


@few
@given(sizes=sizes, kind=st.sampled_from([DATA, METADATA]), seed=st.integers())
def test_records_come_back(sizes: list[int], kind: int, seed: int) -> None:
    rng = Random(seed)
    payloads = [rng.randbytes(size) for size in sizes]
    storage = MemoryStorage()
    pack = write(storage, payloads, kind)
    data = stored(storage, pack)
    assert pack.id == blake3(data).hexdigest() and pack.size == len(data)
    first, second, footer = places(data)
    damages: dict[str, list[tuple[int, int]]] = {
        "none": [],
        "header": [(0, 128)],
        "first footer": [(first, footer)],
        "second footer": [(second, footer)],
        "trailer": [(len(data) - 64, 64)],
        "second footer and trailer": [(second, footer + 64)],
        "header and first footer": [(0, 128), (first, footer)],
    }
    for name, spans in damages.items():
        changed = bytearray(data)
        for begin, size in spans:
            changed[begin : begin + size] = bytes(size)
        storage.files[pack_name(pack.id)] = bytes(changed)
        found = read_pack(storage, pack.id, len(data), OURS)
        assert found.rows == pack.rows and found.salt == pack.salt == SALT, name
        assert found.kind == kind, "the types of the objects tell it"
        assert bool(found.damage) == ("header" in name or "first" in name), name
    seal = OURS.pack(found.kind, found.salt)
    for number, (row, payload) in enumerate(zip(found.rows, payloads, strict=True)):
        assert row.stored_size == len(payload) + 16
        assert seal.open(number, row.raw_size, row.codec, record(data, row)) == payload


def test_offsets_that_grow_with_the_footer() -> None:
    """The footer's size depends on offsets behind it, which depend on its size, and on padding."""
    for count in (*range(1, 60), 250, 300, 1700):
        storage = MemoryStorage()
        pack = write(storage, [b"%d" % number for number in range(count)])
        data = stored(storage, pack)
        found = read_pack(storage, pack.id, len(data), OURS)
        seal = OURS.pack(DATA, SALT)
        for number, row in enumerate(found.rows):
            opened = seal.open(number, row.raw_size, 0, record(data, row))
            assert opened == b"%d" % number


# -- what storage learns --------------------------------------------------------------------


@few
@given(sizes=sizes, seed=st.integers())
def test_sizes_and_places_tell_little(sizes: list[int], seed: int) -> None:
    rng = Random(seed)
    storage = MemoryStorage()
    data = stored(storage, write(storage, [rng.randbytes(size) for size in sizes]))
    first, second, size = places(data)
    assert padme(len(data)) == len(data), "docs/format.md §10"
    assert first == 128 or first % (64 * KIB) == 0
    assert padme(size - 112) == size - 112, "head, tag and checksum are no secret"
    assert second - first - size >= 4096
    assert second - first - size >= min(sum(sizes), MIB)
    assert data[first : first + size] == data[second : second + size]
    assert second + size + 64 == len(data)


def test_neither_ids_nor_contents_nor_the_ends_of_records_are_seen() -> None:
    """Of a pack with all sorts of padding: before the first footer and before the second."""
    payloads = [bytes([number]) * 400_000 for number in range(1, 5)]
    storage = MemoryStorage()
    pack = write(storage, payloads)
    data = stored(storage, pack)
    first, second, _ = places(data)
    last = pack.rows[-1].offset + pack.rows[-1].stored_size
    held = next(row.offset for row in pack.rows if row.offset > first)
    before = max(row.offset + row.stored_size for row in pack.rows if row.offset < first)
    assert first - before > 1000 and second - last > 1000 and held > first
    for payload in payloads:
        assert checksum(payload) not in data and payload[:16] not in data
    rest = data[128:-64]
    for piece in (data[before:first], data[last:second]):
        assert bytes(4) not in piece
        assert len({piece[at : at + 4] for at in range(0, len(piece), 4)}) > len(piece) // 4 - 20
    assert rest.count(bytes(5)) == 2, "in the head of each footer"


def test_equal_records_are_not_seen_to_be_equal() -> None:
    """Neither in one pack nor in two: not even their first bytes."""
    storage = MemoryStorage()
    one, two = (write(storage, [b"same" * 100] * 3, salt=bytes([n]) * 32) for n in (1, 2))
    found = {record(stored(storage, pack), row)[:8] for pack in (one, two) for row in pack.rows}
    assert len(found) == 6
    footers = [stored(storage, pack)[192:200] for pack in (one, two)]
    assert footers[0] != footers[1]


@pytest.mark.parametrize("target", [MIB, MIB + 1, 3 * MIB])
@pytest.mark.parametrize(("largest", "most"), [(300, 1), (300, 200), (20_000, 30), (300_000, 1)])
def test_packs_stay_below_their_target(largest: int, most: int, target: int) -> None:
    """And are worth their file: of records of all sizes and footers of all shares."""
    rng = Random(f"{largest} {most}")
    storage = MemoryStorage()
    writer = PackWriter(storage, DATA, OURS, rng.randbytes(32))
    done: list[Pack] = []
    while len(done) < 4:
        payload = bytes(rng.randrange(largest // 10, largest))
        objects = bytes(37) * rng.randint(1, most)
        if not writer.has_room(len(payload), len(objects) + 16, target):
            done.append(writer.finish())
            writer = PackWriter(storage, DATA, OURS, rng.randbytes(32))
        writer.add(payload, len(payload), 0, objects, bytes(16))
    for pack in done:
        assert pack.size <= padme(target)
        assert pack.size > 0.75 * target - largest


def test_a_record_larger_than_the_target_has_a_pack() -> None:
    storage = MemoryStorage()
    writer = PackWriter(storage, DATA, OURS, SALT)
    assert writer.has_room(5 * MIB, 53, MIB)
    writer.add(bytes(5 * MIB), 5 * MIB, 0, objects_of(bytes(5 * MIB)), bytes(16))
    assert not writer.has_room(0, 0, MIB)
    pack = writer.finish()
    assert pack.size == padme(pack.size)
    assert read_pack(storage, pack.id, pack.size, OURS).rows == pack.rows


# -- what is not ours -----------------------------------------------------------------------

STRANGERS = {
    "another repository": Sealer(bytes(16), SECRET),
    "another secret": Sealer(OWNER, bytes(32)),
    "plain": Sealer(OWNER),
    "plain of another repository": Sealer(bytes(16)),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_pack_of_others_is_refused(name: str) -> None:
    """In both directions, and as damage: a stranger's file must not look like a later version."""
    for writer, reader in ((STRANGERS[name], OURS), (OURS, STRANGERS[name])):
        storage = MemoryStorage()
        pack = write(storage, [b"first", b"second"], sealer=writer)
        with pytest.raises(Damaged, match="both footers"):
            read_pack(storage, pack.id, pack.size, reader)


def test_a_pack_made_to_look_like_ours_is_refused() -> None:
    """Whoever can write to the storage makes checksums right; the keys he has not."""
    storage = MemoryStorage()
    pack = write(storage, [b"first", b"second"], sealer=Sealer(OWNER))
    for mode in (0, 1):
        data = bytearray(stored(storage, pack))
        data[11] = mode
        data[96:128] = checksum(bytes(data[:96]))
        storage.files[pack_name("a" * 64)] = bytes(data)
        with pytest.raises(Damaged, match="both footers"):
            read_pack(storage, "a" * 64, len(data), OURS)


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


def test_every_altered_byte_of_the_footers_is_seen() -> None:
    """Both copies alike, with checksums made right again: what it says is authenticated."""
    storage, pack, data = small_pack()
    first, second, size = places(data)
    for at in range(size - 32):
        changed = bytearray(data)
        for copy in (first, second):
            changed[copy + at] ^= 1
            changed[copy + size - 32 : copy + size] = checksum(
                bytes(changed[copy : copy + size - 32])
            )
        storage.files[pack_name(pack.id)] = bytes(changed)
        with pytest.raises(Damaged):
            read_pack(storage, pack.id, len(data), OURS)


def test_a_header_of_another_mode_is_said_to_be_wrong() -> None:
    """The second copy will do, and does not hide that somebody was at the first."""
    for sealer, mode in ((OURS, 0), (Sealer(OWNER), 1)):
        storage = MemoryStorage()
        pack = write(storage, [b"first"], sealer=sealer)
        data = bytearray(stored(storage, pack))
        data[11] = mode
        data[96:128] = checksum(bytes(data[:96]))
        storage.files[pack_name(pack.id)] = bytes(data)
        found = read_pack(storage, pack.id, len(data), sealer)
        assert found.rows == pack.rows
        assert ["mode" in text for text in found.damage] == [True]


def test_a_footer_of_another_pack_names_none_of_these_records() -> None:
    """Put before them, it gives its own salt, and under that nothing here opens."""
    storage, pack, data = small_pack()
    other = write(storage, [b"first", b"second" * 10, b"third"], salt=bytes(32))
    first, second, size = places(data)
    theirs = stored(storage, other)
    assert places(theirs) == (first, second, size)
    changed = bytearray(data)
    for at in (first, second):
        changed[at : at + size] = theirs[at : at + size]
    storage.files[pack_name(pack.id)] = bytes(changed)
    found = read_pack(storage, pack.id, len(data), OURS)
    assert ["salts" in text for text in found.damage] == [True], "the header is of this one"
    seal = OURS.pack(found.kind, found.salt)
    for number, row in enumerate(found.rows):
        with pytest.raises(Damaged):
            seal.open(number, row.raw_size, row.codec, record(bytes(changed), row))


@pytest.mark.parametrize(("version", "mode"), [(2, 1), (1, 2), (1, 255)])
def test_a_later_version_is_none_of_ours(version: int, mode: int) -> None:
    storage, pack, data = small_pack()
    changed = bytearray(data)
    changed[8:10], changed[11] = version.to_bytes(2, "little"), mode
    changed[96:128] = checksum(bytes(changed[:96]))
    storage.files[pack_name(pack.id)] = bytes(changed)
    with pytest.raises(UnsupportedFormat):
        read_pack(storage, pack.id, len(data), OURS)


def test_a_footer_that_does_not_open_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that flips a bit while sealing; both copies would be the same."""
    storage = MemoryStorage()
    writer = PackWriter(storage, DATA, OURS, SALT)
    writer.add(b"first", 5, 0, objects_of(b"first"), b"")

    class Flipping:
        def __init__(self, seal: Any) -> None:
            self.seal = seal

        def __getattr__(self, name: str) -> Any:
            return getattr(self.seal, name)

        def seal_footer(self, head: bytes, body: bytes) -> bytes:
            data = bytearray(self.seal.seal_footer(head, body))
            data[20] ^= 4
            return bytes(data)

    writer.seal = Flipping(writer.seal)  # type: ignore[assignment]
    with pytest.raises(Damaged):
        writer.finish()
    writer.abandon()
    assert storage.files == {}


# -- numbers --------------------------------------------------------------------------------


def failing_writer() -> tuple[MemoryStorage, PackWriter, list[int]]:
    """Return a writer whose fifth record was sealed and not written."""
    storage = MemoryStorage()
    full: list[bool] = []
    storage.spool = lambda: Failing(storage, full)  # type: ignore[method-assign]
    writer = PackWriter(storage, DATA, OURS, SALT)
    numbers: list[int] = []
    writer.seal = Spy(writer.seal, numbers)  # type: ignore[assignment]
    for number in range(5):
        payload = bytes([number]) * 700_000
        full += [True] * (number == 4)
        with pytest.raises(StorageFull) if number == 4 else contextlib.nullcontext():
            writer.add(payload, len(payload), 0, objects_of(payload), b"")
    return storage, writer, numbers


def test_no_number_is_given_twice_when_an_add_has_failed() -> None:
    """One key and one nonce for two messages would give both away."""
    _, writer, numbers = failing_writer()
    for _ in range(3):
        with pytest.raises(StorageError):
            writer.add(b"another", 7, 0, objects_of(b"another"), b"")
    assert numbers == [0, 1, 2, 3, 4]


def test_a_pack_is_not_finished_when_an_add_has_failed() -> None:
    storage, writer, _ = failing_writer()
    try:
        pack = writer.finish()
    except StorageError:
        return
    data = stored(storage, pack)
    seal = OURS.pack(DATA, SALT)
    for number, row in enumerate(pack.rows):
        opened = seal.open(number, row.raw_size, row.codec, record(data, row))
        assert checksum(opened) == row.objects[:32]


def test_limits_are_those_of_the_page() -> None:
    assert packs._FIRST_PART == 65_536 and packs._APART == 4096 and packs._HELD_BACK == MIB
