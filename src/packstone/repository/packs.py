"""Packs: immutable files of records with a footer in two copies.

Implements docs/format.md §4 and §10. Never decodes records and never looks at the index.
Invariants: a footer is returned only when every byte of it was checked; a pack's name is
computed from what the storage gives back, after that was compared with what was meant to be
written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple, Protocol

import msgspec
from blake3 import blake3
from msgspec import Meta

from packstone.codec.compression import STORED, ZSTD
from packstone.codec.delta import DELTA_CODECS
from packstone.codec.encryption import PLAIN, SEALED, Sealer, padme
from packstone.codec.hashing import checksum
from packstone.errors import Damaged, StorageError, StorageUnavailable, UnsupportedFormat
from packstone.model import GIB, KIB, MIB, Buffer, ObjectType, Size, Unsigned16, Unsigned32
from packstone.repository.layout import pack_name
from packstone.repository.read_back import Part, read_back
from packstone.storage.base import Storage

DATA, METADATA = 1, 2
KINDS_OF_OBJECTS = {DATA: {1}, METADATA: {2, 3}}
HEADER_SIZE, TRAILER_SIZE, FOOTER_HEAD_SIZE = 128, 64, 64
MAX_PACK, MAX_FOOTER, MAX_OBJECTS, MAX_BASES, MAX_DEPTH = 8 * GIB, 256 * MIB, 65536, 3, 64
MAX_RAW_SIZE = 64 * MIB
# Of the chunks that one delta stands on, directly and through others, each counted once.
MAX_STANDING = 128 * MIB
OBJECT = struct.Struct("<32sIB")
KEYS = struct.Struct("<QQ")  # of a chunk's two cuts

_HEADER = struct.Struct("<8sHBBI16s32sQQ16s")
_FOOTER = struct.Struct("<8sII16s32s")
_TRAILER = struct.Struct("<8sQQQ")
_HEADER_MAGIC, FOOTER_MAGIC, _TRAILER_MAGIC = b"PKSTPACK", b"PKSTFOOT", b"PKSTTAIL"
_VERSION = 1
# One bad sector, or a bad stretch of an old disk, must not hit both footers.
_HELD_BACK = MIB
_APART = 4096
# Where records end before the first footer of a sealed pack tells their sizes this roughly.
_FIRST_PART = 64 * KIB
_FOOTER_ENOUGH = 16 * MIB  # of rows: many tiny records end a pack before its size does
_ROW_SIZE = 48  # of a footer's row at most, but for what is counted apart
BASE_SIZE = 34  # of each base in it


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


class Lineage(NamedTuple):
    """What a delta stands on: ids of its bases, steps to a whole chunk, number among versions."""

    bases: Sequence[bytes]
    depth: int
    number: int


WHOLE = Lineage((), 0, 0)


class Pack(NamedTuple):
    """A pack whose footer was read or written; `damage` says which copy was unusable."""

    id: str
    kind: int
    salt: bytes
    size: int
    rows: list[RecordRow]
    damage: tuple[str, ...] = ()


_encode_rows = msgspec.msgpack.Encoder().encode
_decode_rows = msgspec.msgpack.Decoder(list[RecordRow]).decode


class PackWriter:
    """Write one pack through a spool; not safe to share between threads.

    `add` takes records, `finish` makes the pack durable under its name. A writer whose
    `add` or `finish` raised must be abandoned, and its salt with it: a number of a record is
    never given twice under one salt.
    """

    def __init__(self, storage: Storage, kind: int, sealer: Sealer, salt: bytes) -> None:
        self.kind = kind
        self.rows: list[RecordRow] = []
        self.size = HEADER_SIZE  # of what was added so far
        self.verified_count = 0  # of the records; whoever adds them keeps count
        self._storage = storage
        self._sealer = sealer
        self._salt = salt
        self.seal = sealer.pack(kind, salt)
        self._body_size = 0  # what the footer's body takes at most
        self._numbers = 0  # given to records
        self._failure: StorageError | None = None
        # Of the records as they were before they were verified: a bit that flips later, in
        # memory or on the way to the disk, would otherwise become part of the pack's name.
        self._records = blake3()
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

    def has_room(self, payload_size: int, row_size: int, target: int) -> bool:
        """Return whether a record should go into this pack, given the size packs should have.

        A plain pack ends after the record that reaches the target. A sealed one is padded to the
        next size that tells nothing, and ends before it would need the one above the target.
        """
        if self._body_size + row_size > _FOOTER_ENOUGH and self.rows:
            return False
        if self._sealer.is_plain or not self.rows:
            return self.size < target
        footer = self._footer_size(self._body_size + row_size + _ROW_SIZE)
        size = self.size + payload_size + self.seal.overhead + _FIRST_PART
        return size + 2 * footer + TRAILER_SIZE <= padme(target)

    def add(
        self,
        payload: Buffer,
        raw_size: int,
        codec: int,
        objects: bytes,
        keys: bytes,
        lineage: Lineage = WHOLE,
    ) -> bytes:
        """Seal and append one record that holds `objects` (packed rows of the footer).

        Returns the bytes that will be stored.
        """
        self._refuse_spoilt()
        number = self._numbers
        self._numbers += 1
        # What is held back outlives the caller's buffer; bytes are not copied.
        stored = bytes(self.seal.seal(number, raw_size, codec, payload))
        self._records.update(stored)
        # The offset is that of a pack without footers; finish() moves what comes after one.
        row = RecordRow(
            self.size,
            len(stored),
            raw_size,
            codec,
            objects,
            keys,
            list(lineage.bases),
            lineage.depth,
            lineage.number,
        )
        self.size += len(stored)
        self._body_size += len(objects) + len(keys) + len(row.bases) * BASE_SIZE + _ROW_SIZE
        self._tail.append(stored)
        self._tail_size += len(stored)
        cut = 0
        try:
            while self._tail_size - len(self._tail[cut]) >= _HELD_BACK:
                self._write(self._tail[cut])
                self._tail_size -= len(self._tail[cut])
                cut += 1
        except StorageError as error:
            self._failure = error
            raise
        del self._tail[:cut]
        self.rows.append(row)
        return stored

    def _refuse_spoilt(self) -> None:
        """Raise what ended an `add` half-way, in any thread."""
        if self._failure is not None:
            raise self._failure
        if self._numbers != len(self.rows):
            raise StorageUnavailable("a record could not be added to a pack, so it is given up")

    def _write(self, data: Buffer) -> None:
        self._spool.write(data)
        self._written += len(data)

    def finish(self) -> Pack:
        """Write footers, trailer and header, read the file back for its name, make it durable."""
        self._refuse_spoilt()
        parts = [Part(HEADER_SIZE), Part(self._written - HEADER_SIZE, is_records=True)]
        if not self._sealer.is_plain and self._written > HEADER_SIZE:
            parts.append(self._pad(-self._written % _FIRST_PART))
        footer_offset = self._written
        footer = self._footer()
        parts.append(self._write_part(footer))
        for payload in self._tail:
            self._write(payload)
        parts.append(Part(self._tail_size, is_records=True))
        second = max(self._written, footer_offset + len(footer) + _APART)
        if not self._sealer.is_plain:
            end = len(footer) + TRAILER_SIZE
            second = padme(second + end) - end
        parts.append(self._pad(second - self._written))
        parts.append(self._write_part(footer))
        trailer = _TRAILER.pack(_TRAILER_MAGIC, second, len(footer), self._written + TRAILER_SIZE)
        parts.append(self._write_part(trailer + checksum(trailer)))
        header = _HEADER.pack(
            _HEADER_MAGIC,
            _VERSION,
            self.kind,
            PLAIN if self._sealer.is_plain else SEALED,
            0,
            self._sealer.repository_id,
            self._salt,
            footer_offset,
            len(footer),
            bytes(16),
        )
        header += checksum(header)
        self._spool.write_at(0, header)
        parts[0] = Part(HEADER_SIZE, header)
        pack_id = read_back(self._spool, parts, self._records.digest())
        self._spool.commit(pack_name(pack_id))
        self._closed = True
        return Pack(pack_id, self.kind, self._salt, self._written, self.rows)

    def _write_part(self, data: bytes) -> Part:
        self._write(data)
        return Part(len(data), data)

    def _pad(self, size: int) -> Part:
        """Fill up with what tells nothing."""
        left = size
        while left > 0:
            data = self.seal.padding(self._written, min(left, MIB))
            self._write(data)
            left -= len(data)
        return Part(size)

    def _footer_size(self, body_size: int) -> int:
        return FOOTER_HEAD_SIZE + self.seal.footer_size(body_size) + 32

    def _footer(self) -> bytes:
        """Return the footer, with the offsets of held-back records moved behind it."""
        held = self.rows[-len(self._tail) :] if self._tail else []
        first = self._written
        # How long the footer gets depends on offsets that depend on its length; numbers only
        # grow, so this settles after a few rounds.
        size = 0
        while True:
            offset = first + size
            for row in held:
                row.offset = offset
                offset += row.stored_size
            body = _encode_rows(self.rows)
            if self._footer_size(len(body)) == size:
                return self._seal_footer(body)
            size = self._footer_size(len(body))

    def _seal_footer(self, body: bytes) -> bytes:
        """Return a footer's bytes; what was sealed is opened again before it counts."""
        size = self.seal.footer_size(len(body))
        if self._footer_size(len(body)) > MAX_FOOTER:
            raise StorageUnavailable(f"a footer of {size} bytes is above what readers take")
        head = _FOOTER.pack(FOOTER_MAGIC, size, 0, self._sealer.repository_id, self._salt)
        stored = head + self.seal.seal_footer(head, body)
        stored += checksum(stored)
        view = memoryview(stored)
        if self.seal.open_footer(stored[:FOOTER_HEAD_SIZE], view[FOOTER_HEAD_SIZE:-32]) != body:
            raise Damaged(
                "a footer does not open to what was sealed",
                hint="Nothing was committed. This points at memory or processor: test them",
            )
        return stored

    def abandon(self) -> None:
        """Drop the pack; never raises; does nothing after finish()."""
        if not self._closed:
            self._spool.abandon()


def expected_size(sealer: Sealer, records: int, rows: int, target: int) -> tuple[int, int]:
    """Return how many packs some records would fill, and their bytes together.

    `records` are the stored bytes, `rows` those of their rows in a footer.
    """
    if not records:
        return 0, 0
    seal = sealer.pack(DATA, bytes(32))
    count = max(1, round((records + 2 * rows) / target + 0.5))
    footer = FOOTER_HEAD_SIZE + seal.footer_size(rows // count) + 32
    size = records // count
    apart = max(0, _APART - size)
    if not sealer.is_plain and size > _HELD_BACK:
        size += _FIRST_PART // 2  # on average
    size += HEADER_SIZE + 2 * footer + apart + TRAILER_SIZE
    return count, count * (size if sealer.is_plain else padme(size))


class Ranges(Protocol):
    """What can give ranges of a pack."""

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, fewer only where the file ends."""


def read_pack(
    storage: Ranges, pack_id: str, size: int, sealer: Sealer, *, from_end: bool = False
) -> Pack:
    """Read and check a pack's footer, the second copy where the first is unusable.

    `size` is the size of the stored file; `from_end` takes the second copy first.
    Raises Damaged when neither copy is whole, UnsupportedFormat, StorageError.
    """
    name = pack_name(pack_id)
    if size > MAX_PACK:
        raise Damaged(f"pack {pack_id} has {size} bytes, the limit is {MAX_PACK}", name=name)
    failures: list[str] = []
    for read in (_second_copy, _first_copy) if from_end else (_first_copy, _second_copy):
        try:
            kind, stated_salt, footer_offset, footer_size = read(storage, name, size, sealer)
            salt, rows = _read_footer(storage, name, footer_offset, footer_size, sealer)
            if stated_salt not in (None, salt):
                raise Damaged(f"{name}: header and footer have different salts", name=name)
            kind = _validate(name, kind, rows, size, (footer_offset, footer_offset + footer_size))
        except Damaged as error:
            failures.append(error.message)
            continue
        return Pack(pack_id, kind, salt, size, rows, tuple(failures))
    raise Damaged(
        f"pack {pack_id}: both footers are unusable: {'; '.join(failures)}",
        name=name,
        hint="Run: packstone repair packs, with --from if there is a copy",
    )


def read_pack_at(storage: Storage, pack_id: str, size: int, sealer: Sealer, offset: int) -> Pack:
    """Return what a footer at an offset says, though the file may end before its records do.

    Raises Damaged where there is none, StorageError.
    """
    name = pack_name(pack_id)
    head = storage.get_range(name, offset, _FOOTER.size)
    footer_size = FOOTER_HEAD_SIZE + int.from_bytes(head[8:12], "little") + 32
    if len(head) < _FOOTER.size or footer_size > size - offset:
        raise Damaged(f"{name}: no footer at {offset}", name=name, offset=offset)
    salt, rows = _read_footer(storage, name, offset, footer_size, sealer)
    # Where the file should end at the least, its records tell.
    end = max([HEADER_SIZE, *(row.offset + row.stored_size for row in rows)])
    kind = _validate(name, 0, rows, end + TRAILER_SIZE, (0, 0))
    return Pack(pack_id, kind, salt, size, rows, (f"{name}: no way leads to its footers",))


class _Given:
    """A footer that was read before, as what can give ranges of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` in the footer."""
        return self._data[offset : offset + size]


def read_footer(storage: Ranges, pack_id: str, size: int, sealer: Sealer) -> bytes:
    """Return the bytes of a pack's second footer; raises Damaged, StorageError."""
    name = pack_name(pack_id)
    _kind, _salt, offset, footer_size = _second_copy(storage, name, size, sealer)
    if not 0 < footer_size <= MAX_FOOTER:
        raise Damaged(f"{name}: footer of {footer_size} bytes", name=name, offset=offset)
    data = storage.get_range(name, offset, footer_size)
    open_footer(pack_id, size, data, sealer)
    return data


def open_footer(pack_id: str, size: int, data: bytes, sealer: Sealer) -> Pack:
    """Return what the bytes of a footer say of a pack of `size` bytes; raises Damaged.

    That this is the footer of this very pack only the pack can tell.
    """
    name = pack_name(pack_id)
    if size > MAX_PACK:
        raise Damaged(f"pack {pack_id} has {size} bytes, the limit is {MAX_PACK}", name=name)
    salt, rows = _read_footer(_Given(data), name, 0, len(data), sealer)
    kind = _validate(name, 0, rows, size, (0, 0))
    return Pack(pack_id, kind, salt, size, rows, ())


_Found = tuple[int, bytes | None, int, int]  # kind, salt, offset and size of a footer; 0 unknown


def _first_copy(storage: Ranges, name: str, size: int, sealer: Sealer) -> _Found:
    data = storage.get_range(name, 0, HEADER_SIZE)
    if len(data) != HEADER_SIZE or checksum(data[:96]) != data[96:]:
        raise Damaged(f"{name}: the header is damaged", name=name, offset=0)
    magic, version, kind, mode, zero, found_id, salt, offset, footer_size, rest = _HEADER.unpack(
        data[:96]
    )
    if magic != _HEADER_MAGIC:
        raise Damaged(f"{name} is not a pack", name=name, offset=0)
    if version != _VERSION or mode not in (PLAIN, SEALED):
        raise UnsupportedFormat(f"{name} has format version {version}, mode {mode}")
    if found_id != sealer.repository_id:
        raise Damaged(
            f"{name} belongs to repository {found_id.hex()[:12]}…, "
            f"not to {sealer.repository_id.hex()[:12]}…",
            name=name,
        )
    if (mode == PLAIN) != sealer.is_plain:
        raise Damaged(f"{name} is of mode {mode}, which no pack of this repository is", name=name)
    if zero or any(rest):
        raise Damaged(f"{name}: the header has bytes that should be zero", name=name, offset=0)
    return kind, salt, offset, footer_size


def _second_copy(storage: Ranges, name: str, size: int, sealer: Sealer) -> _Found:
    data = storage.get_range(name, max(0, size - TRAILER_SIZE), TRAILER_SIZE)
    if len(data) != TRAILER_SIZE or checksum(data[:32]) != data[32:]:
        raise Damaged(f"{name}: the trailer is damaged", name=name, offset=size - TRAILER_SIZE)
    magic, offset, footer_size, pack_size = _TRAILER.unpack(data[:32])
    if magic != _TRAILER_MAGIC or pack_size != size:
        raise Damaged(f"{name} has {size} bytes, its trailer says {pack_size}", name=name)
    return 0, None, offset, footer_size


def _read_footer(
    storage: Ranges, name: str, offset: int, size: int, sealer: Sealer
) -> tuple[bytes, list[RecordRow]]:
    if not FOOTER_HEAD_SIZE + 32 <= size <= MAX_FOOTER:
        raise Damaged(f"{name}: footer of {size} bytes", name=name, offset=offset)
    data = storage.get_range(name, offset, size)
    if len(data) != size or checksum(data[:-32]) != data[-32:]:
        raise Damaged(f"{name}: the footer at {offset} is damaged", name=name, offset=offset)
    magic, body_size, zero, found_id, salt = _FOOTER.unpack_from(data)
    if magic != FOOTER_MAGIC or zero or body_size != size - FOOTER_HEAD_SIZE - 32:
        raise Damaged(f"{name}: no footer at {offset}", name=name, offset=offset)
    if found_id != sealer.repository_id:
        raise Damaged(f"{name}: the footer belongs to another repository", name=name)
    body = memoryview(data)[FOOTER_HEAD_SIZE:-32]
    try:
        # A footer names no kind, and its key knows none.
        opened = sealer.pack(0, salt).open_footer(data[:FOOTER_HEAD_SIZE], body)
    except Damaged as error:
        raise Damaged(f"{name}: the footer was altered: {error.message}", name=name) from error
    try:
        return salt, _decode_rows(opened)
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
            or (row.codec in (STORED, ZSTD) and row.bases)
            or (row.codec in DELTA_CODECS and (not row.bases or count != 1 or types != {1}))
        ):
            raise Damaged(f"{name}: record {number} has unsound bases", name=name)
    found = DATA if types <= KINDS_OF_OBJECTS[DATA] else METADATA
    if not types <= KINDS_OF_OBJECTS[found] or kind not in (0, found):
        raise Damaged(f"{name}: objects of a kind that does not belong here", name=name)
    return found


def pack_objects(rows: Iterable[tuple[bytes, int, ObjectType]]) -> bytes:
    """Return a record's objects, (id, size, type) each, as the footer lists them."""
    return b"".join([OBJECT.pack(*row) for row in rows])
