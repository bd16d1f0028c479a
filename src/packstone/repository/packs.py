"""Packs: immutable files of records with a footer in two copies.

Implements docs/format.md §4. Never decodes records and never looks at the index.
Invariants: a footer is returned only when every byte of it was checked; a pack's name is
computed from what the storage gives back, not from what was meant to be written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec
from blake3 import blake3
from msgspec import Meta

from packstone.codec.hashing import checksum
from packstone.errors import Damaged, UnsupportedFormat
from packstone.model import GIB, MIB, Buffer, ObjectType, Size, Unsigned16, Unsigned32
from packstone.repository.layout import pack_name
from packstone.storage.base import Storage

DATA, METADATA = 1, 2
KINDS_OF_OBJECTS = {DATA: {1}, METADATA: {2, 3}}
HEADER_SIZE, TRAILER_SIZE, FOOTER_HEAD_SIZE = 128, 64, 64
MAX_PACK, MAX_FOOTER, MAX_OBJECTS, MAX_BASES, MAX_DEPTH = 8 * GIB, 256 * MIB, 65536, 3, 64
MAX_RAW_SIZE = 64 * MIB
OBJECT = struct.Struct("<32sIB")

_HEADER = struct.Struct("<8sHBB4x16s32sQQ16x")
_FOOTER = struct.Struct("<8sI4x16s32s")
_TRAILER = struct.Struct("<8sQQQ")
_HEADER_MAGIC, _FOOTER_MAGIC, _TRAILER_MAGIC = b"PKSTPACK", b"PKSTFOOT", b"PKSTTAIL"
_VERSION = 1
# One bad sector, or a bad stretch of an old disk, must not hit both footers.
_HELD_BACK = MIB
_APART = 4096


class RecordRow(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """One record of a pack; offsets and sizes in bytes (docs/format.md §4)."""

    offset: Size
    stored_size: Unsigned32
    raw_size: Unsigned32
    codec: Annotated[int, Meta(ge=0, lt=16)]
    objects: bytes
    keys: bytes
    bases: list[bytes]
    depth: Unsigned16
    lineage: Unsigned32

    def object_rows(self) -> Iterable[tuple[bytes, int, int]]:
        """Iterate over (id, size, type) in the order of the decoded record."""
        return OBJECT.iter_unpack(self.objects)


class Pack(NamedTuple):
    """A pack whose footer was read or written; `damage` says which copy was unusable."""

    id: str
    kind: int
    size: int
    rows: list[RecordRow]
    damage: tuple[str, ...] = ()


_encode_rows = msgspec.msgpack.Encoder().encode
_decode_rows = msgspec.msgpack.Decoder(list[RecordRow]).decode


class PackWriter:
    """Write one pack through a spool; not safe to share between threads.

    `add` takes records, `finish` makes the pack durable under its name. A writer whose
    `add` or `finish` raised must be abandoned, and its salt with it.
    """

    def __init__(self, storage: Storage, kind: int, repository_id: bytes, salt: bytes) -> None:
        self.kind = kind
        self.rows: list[RecordRow] = []
        self.size = HEADER_SIZE  # of what was added so far
        self._storage = storage
        self._repository_id = repository_id
        self._salt = salt
        self._spool = storage.spool()
        try:
            self._spool.write(bytes(HEADER_SIZE))
        except BaseException:
            self._spool.abandon()
            raise
        self._written = HEADER_SIZE
        self._tail: list[Buffer] = []
        self._tail_size = 0
        self._closed = False

    def add(self, payload: Buffer, raw_size: int, codec: int, objects: bytes, keys: bytes) -> None:
        """Append one encoded record that holds `objects` (packed rows of the footer)."""
        # The offset is that of a pack without footers; finish() moves what comes after one.
        self.rows.append(
            RecordRow(self.size, len(payload), raw_size, codec, objects, keys, [], 0, 0)
        )
        self.size += len(payload)
        # What is held back outlives the caller's buffer; bytes are not copied.
        self._tail.append(bytes(payload))
        self._tail_size += len(payload)
        cut = 0
        while self._tail_size - len(self._tail[cut]) >= _HELD_BACK:
            self._write(self._tail[cut])
            self._tail_size -= len(self._tail[cut])
            cut += 1
        del self._tail[:cut]

    def _write(self, data: Buffer) -> None:
        self._spool.write(data)
        self._written += len(data)

    def finish(self) -> Pack:
        """Write footers, trailer and header, read the file back for its name, make it durable."""
        footer_offset = self._written
        footer = self._footer()
        self._write(footer)
        for payload in self._tail:
            self._write(payload)
        gap = footer_offset + len(footer) + _APART - self._written
        if gap > 0:
            self._write(bytes(gap))
        second = self._written
        self._write(footer)
        trailer = _TRAILER.pack(_TRAILER_MAGIC, second, len(footer), self._written + TRAILER_SIZE)
        self._write(trailer + checksum(trailer))
        header = _HEADER.pack(
            _HEADER_MAGIC,
            _VERSION,
            self.kind,
            0,
            self._repository_id,
            self._salt,
            footer_offset,
            len(footer),
        )
        self._spool.write_at(0, header + checksum(header))
        pack_id = self._hash()
        self._spool.commit(pack_name(pack_id))
        self._closed = True
        return Pack(pack_id, self.kind, self._written, self.rows)

    def _footer(self) -> bytes:
        """Return the footer, with the offsets of held-back records moved behind it."""
        if not self._tail:
            return self._encode_footer()
        held = self.rows[-len(self._tail) :]
        first = self._written
        # How long the footer gets depends on offsets that depend on its length; numbers only
        # grow, so this settles after a few rounds.
        size = 0
        while True:
            offset = first + size
            for row in held:
                row.offset = offset
                offset += row.stored_size
            footer = self._encode_footer()
            if len(footer) == size:
                return footer
            size = len(footer)

    def _encode_footer(self) -> bytes:
        body = _encode_rows(self.rows)
        head = _FOOTER.pack(_FOOTER_MAGIC, len(body), self._repository_id, self._salt)
        return head + body + checksum(head + body)

    def _hash(self) -> str:
        hasher = blake3()
        offset = 0
        while data := self._spool.read_at(offset, MIB):
            hasher.update(data)
            offset += len(data)
        if offset != self._written:
            raise Damaged(
                f"a pack of {self._written} bytes reads back as {offset} bytes",
                hint="Nothing was committed. Check the repository's disk",
            )
        return hasher.hexdigest()

    def abandon(self) -> None:
        """Drop the pack; never raises; does nothing after finish()."""
        if not self._closed:
            self._spool.abandon()


def read_pack(storage: Storage, pack_id: str, size: int, repository_id: bytes) -> Pack:
    """Read and check a pack's footer, the second copy where the first is unusable.

    `size` is the size of the stored file. Raises Damaged when neither copy is whole,
    UnsupportedFormat, StorageError.
    """
    name = pack_name(pack_id)
    if size > MAX_PACK:
        raise Damaged(f"pack {pack_id} has {size} bytes, the limit is {MAX_PACK}", name=name)
    failures: list[str] = []
    for read in (_first_copy, _second_copy):
        try:
            kind, footer_offset, footer_size = read(storage, name, size, repository_id)
            rows = _read_footer(storage, name, footer_offset, footer_size, repository_id)
            kind = _validate(name, kind, rows, size, (footer_offset, footer_offset + footer_size))
        except Damaged as error:
            failures.append(error.message)
            continue
        return Pack(pack_id, kind, size, rows, tuple(failures))
    raise Damaged(
        f"pack {pack_id}: both footers are unusable: {'; '.join(failures)}",
        name=name,
        hint=f"Run: packstone check, then restore packs/…/{pack_id[:12]}… from a copy",
    )


def _first_copy(
    storage: Storage, name: str, size: int, repository_id: bytes
) -> tuple[int, int, int]:
    data = storage.get_range(name, 0, HEADER_SIZE)
    if len(data) != HEADER_SIZE or checksum(data[:96]) != data[96:]:
        raise Damaged(f"{name}: the header is damaged", name=name, offset=0)
    magic, version, kind, mode, found_id, _salt, offset, footer_size = _HEADER.unpack(data[:96])
    if magic != _HEADER_MAGIC:
        raise Damaged(f"{name} is not a pack", name=name, offset=0)
    if version != _VERSION or mode != 0:
        raise UnsupportedFormat(f"{name} has format version {version}, mode {mode}")
    if found_id != repository_id:
        raise Damaged(
            f"{name} belongs to repository {found_id.hex()[:12]}…, "
            f"not to {repository_id.hex()[:12]}…",
            name=name,
        )
    return kind, offset, footer_size


def _second_copy(
    storage: Storage, name: str, size: int, repository_id: bytes
) -> tuple[int, int, int]:
    data = storage.get_range(name, max(0, size - TRAILER_SIZE), TRAILER_SIZE)
    if len(data) != TRAILER_SIZE or checksum(data[:32]) != data[32:]:
        raise Damaged(f"{name}: the trailer is damaged", name=name, offset=size - TRAILER_SIZE)
    magic, offset, footer_size, pack_size = _TRAILER.unpack(data[:32])
    if magic != _TRAILER_MAGIC or pack_size != size:
        raise Damaged(f"{name} has {size} bytes, its trailer says {pack_size}", name=name)
    return 0, offset, footer_size


def _read_footer(
    storage: Storage, name: str, offset: int, size: int, repository_id: bytes
) -> list[RecordRow]:
    if not FOOTER_HEAD_SIZE + 32 <= size <= MAX_FOOTER:
        raise Damaged(f"{name}: footer of {size} bytes", name=name, offset=offset)
    data = storage.get_range(name, offset, size)
    if len(data) != size or checksum(data[:-32]) != data[-32:]:
        raise Damaged(f"{name}: the footer at {offset} is damaged", name=name, offset=offset)
    magic, body_size, found_id, _salt = _FOOTER.unpack_from(data)
    if magic != _FOOTER_MAGIC or body_size != size - FOOTER_HEAD_SIZE - 32:
        raise Damaged(f"{name}: no footer at {offset}", name=name, offset=offset)
    if found_id != repository_id:
        raise Damaged(f"{name}: the footer belongs to another repository", name=name)
    try:
        return _decode_rows(memoryview(data)[FOOTER_HEAD_SIZE:-32])
    except (msgspec.MsgspecError, ValueError) as error:
        raise Damaged(f"{name}: the footer does not decode: {error}", name=name) from error


def _validate(
    name: str, kind: int, rows: list[RecordRow], size: int, footer: tuple[int, int]
) -> int:
    """Check what a footer says against the pack's size and its own place; return the kind."""
    end = HEADER_SIZE
    limit = size - TRAILER_SIZE
    types: set[int] = set()
    for number, row in enumerate(rows):
        if row.offset < end or row.stored_size < 0 or row.offset + row.stored_size > limit:
            raise Damaged(f"{name}: record {number} overlaps its neighbours", name=name)
        if row.offset < footer[1] and row.offset + row.stored_size > footer[0]:
            raise Damaged(f"{name}: record {number} overlaps the footer", name=name)
        end = row.offset + row.stored_size
        count, rest = divmod(len(row.objects), OBJECT.size)
        if rest or not 0 < count <= MAX_OBJECTS or not 0 <= row.raw_size <= MAX_RAW_SIZE:
            raise Damaged(f"{name}: record {number} lists no sound objects", name=name)
        total = 0
        for _, object_size, object_type in OBJECT.iter_unpack(row.objects):
            total += object_size
            types.add(object_type)
        if total != row.raw_size or len(row.keys) not in (0, 16):
            raise Damaged(f"{name}: record {number} does not add up", name=name)
        if (
            len(row.bases) > MAX_BASES
            or not 0 <= row.depth <= MAX_DEPTH
            or (row.depth > 0) != bool(row.bases)
            or any(len(base) != 32 for base in row.bases)
        ):
            raise Damaged(f"{name}: record {number} has unsound bases", name=name)
    found = DATA if types <= KINDS_OF_OBJECTS[DATA] else METADATA
    if not types <= KINDS_OF_OBJECTS[found] or kind not in (0, found):
        raise Damaged(f"{name}: objects of a kind that does not belong here", name=name)
    return found


def pack_objects(rows: Iterable[tuple[bytes, int, ObjectType]]) -> bytes:
    """Return a record's objects, (id, size, type) each, as the footer lists them."""
    return b"".join([OBJECT.pack(*row) for row in rows])
