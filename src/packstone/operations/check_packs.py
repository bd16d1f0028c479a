"""Verify packs, one on each worker: name, footers, the view, and with data every object.

Reads only. A pack is read once, in order, for its name and its records together.
"""

from __future__ import annotations

from typing import NamedTuple

from packstone.codec.compression import Compressor
from packstone.codec.delta import DELTA_CODECS, DeltaCoder
from packstone.errors import Damaged, StorageError, UnsupportedFormat
from packstone.model import Buffer, ObjectType
from packstone.operations.check_names import hash_file
from packstone.operations.results import Finding
from packstone.repository.layout import pack_name
from packstone.repository.packs import Pack, RecordRow, read_pack
from packstone.repository.reachable import hangs
from packstone.repository.repository import ObjectRepository
from packstone.storage.base import Storage

_ASKED = 10_000  # ids looked up together


class PackReport(NamedTuple):
    """What one pack's check found; `bad_ids` are objects that do not decode to their id."""

    pack_id: str
    bytes_read: int
    object_count: int
    findings: list[Finding]
    bad_ids: list[bytes]


class _RecordScanner:
    """Take a pack's bytes in order and check each record as soon as it is there."""

    def __init__(self, pack: Pack, repository: ObjectRepository, codec: Compressor) -> None:
        self._pack = pack
        self._hasher = repository.hasher
        self._codec = codec
        self._deltas = DeltaCoder(codec)
        self._bases = repository.reader.bases
        self._index = repository.index
        self._seal = repository.sealer.pack(pack.kind, pack.salt)
        self._buffer = bytearray()
        self._base = 0  # offset in the pack of the buffer's first byte
        self._next = 0  # record
        self.texts: list[str] = []
        self.bad_ids: list[bytes] = []

    def feed(self, data: Buffer) -> None:
        """Take the next bytes of the file."""
        rows = self._pack.rows
        self._buffer += data
        end = self._base + len(self._buffer)
        with memoryview(self._buffer) as view:
            while self._next < len(rows):
                row = rows[self._next]
                if row.offset + row.stored_size > end:
                    break
                start = row.offset - self._base
                with view[start : start + row.stored_size] as payload:
                    self._record(row, payload)
                self._next += 1
        keep = rows[self._next].offset if self._next < len(rows) else end
        cut = min(max(0, keep - self._base), len(self._buffer))
        del self._buffer[:cut]
        self._base += cut

    def finish(self, storage: Storage) -> None:
        """Check one by one what could not be read in one go."""
        name = pack_name(self._pack.id)
        while self._next < len(self._pack.rows):
            row = self._pack.rows[self._next]
            try:
                payload = storage.get_range(name, row.offset, row.stored_size)
            except (Damaged, StorageError) as error:
                self.texts.append(f"record {self._next}: {error.message}")
                self.bad_ids += [found[0] for found in row.object_rows()]
            else:
                self._record(row, memoryview(payload))
            self._next += 1

    def _record(self, row: RecordRow, payload: memoryview) -> None:
        where = f"pack {self._pack.id[:12]}… is damaged at byte {row.offset} (record {self._next})"
        try:
            opened = self._seal.open(self._next, row.raw_size, row.codec, payload)
            if row.codec in DELTA_CODECS:
                bases = self._bases(row.bases, row.depth)
                raw = memoryview(self._deltas.decode(row.codec, opened, bases, row.raw_size))
            else:
                raw = memoryview(self._codec.decode(row.codec, opened, row.raw_size))
        except Damaged as error:
            self.bad_ids += [found[0] for found in row.object_rows()]
            # A base that is gone: who needs it hears of it by the snapshots, and from what nobody
            # needs a sweep takes its bases.
            if not hangs(self._index, row.bases, row.depth):
                self.texts.append(f"{where}: {error.message}")
            return
        position = 0
        wrong = ""
        for object_id, size, kind in row.object_rows():
            found = self._hasher.id(ObjectType(kind), raw[position : position + size])
            position += size
            if found != object_id:
                self.bad_ids.append(object_id)
                wrong = wrong or (
                    f"{where}: hash {found.hex()[:12]}…, expected {object_id.hex()[:12]}…"
                )
        if wrong:
            self.texts.append(wrong)


def check_pack(
    repository: ObjectRepository, codec: Compressor, pack_id: str, size: int, *, read_data: bool
) -> PackReport:
    """Check one pack; every error of the pack becomes a finding."""
    storage = repository.storage
    findings: list[Finding] = []
    scanner: _RecordScanner | None = None
    object_count = done = 0
    pack: Pack | None = None
    try:
        pack = read_pack(storage, pack_id, size, repository.sealer)
        for text in pack.damage:
            findings.append(Finding("pack", f"{text}; the other copy is whole", pack_id))
        findings += _against_view(repository, pack)
        object_count = sum(len(row.objects) // 37 for row in pack.rows)
        if read_data:
            scanner = _RecordScanner(pack, repository, codec)
    except (Damaged, StorageError, UnsupportedFormat) as error:
        findings.append(Finding(error.kind, error.message, pack_id))

    def take(data: bytes) -> None:
        nonlocal done
        done += len(data)
        if scanner is not None:
            scanner.feed(data)

    found = ""
    try:
        found = hash_file(storage, pack_name(pack_id), take)
    except (Damaged, StorageError) as error:
        findings.append(Finding(error.kind, error.message, pack_id))
    if found and found != pack_id:
        text = f"pack {pack_id[:12]}… is damaged: its bytes hash to {found[:12]}…"
        findings.insert(0, Finding("pack", text, pack_id))
    bad_ids: list[bytes] = []
    if scanner is not None:
        scanner.finish(storage)
        findings += [Finding("data", text, pack_id) for text in scanner.texts]
        bad_ids = scanner.bad_ids
    return PackReport(pack_id, done, object_count, findings, bad_ids)


def _against_view(repository: ObjectRepository, pack: Pack) -> list[Finding]:
    """Compare a pack's footer with what the view says of it."""
    index = repository.index
    wrong = 0
    rows = [
        (record, row, object_id)
        for record, row in enumerate(pack.rows)
        for object_id, _, _ in row.object_rows()
    ]
    for start in range(0, len(rows), _ASKED):
        part = rows[start : start + _ASKED]
        places = index.find_many([object_id for _, _, object_id in part])
        for (record, row, object_id), place in zip(part, places, strict=True):
            if place is None or place.pack_id != pack.id or place.record != record:
                every = index.find(object_id)
                place = next(
                    (at for at in every if (at.pack_id, at.record) == (pack.id, record)), None
                )
            expected = (row.offset, row.stored_size, row.raw_size, row.codec)
            if place is None and hangs(index, row.bases, row.depth):
                continue
            if (
                place is None
                or (place.offset, place.stored_size, place.raw_size, place.codec) != expected
            ):
                wrong += 1
    if not wrong:
        return []
    text = f"the index disagrees with pack {pack.id[:12]}… on {wrong} objects"
    return [Finding("index", text, pack.id)]
