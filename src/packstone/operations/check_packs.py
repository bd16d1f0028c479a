"""Verify packs, one on each worker: name, footers, the view, and with data every object.

Reads only. A pack is read once, in order, for its name and its records together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from packstone.codec.delta import DELTA_CODECS
from packstone.errors import Damaged, StorageError, UnsupportedFormat
from packstone.model import ID_SIZE, Buffer, ObjectType
from packstone.operations.check_names import hash_file
from packstone.operations.results import Finding
from packstone.repository.ancestry import Ancestry
from packstone.repository.attempt import REFUSED
from packstone.repository.layout import pack_name
from packstone.repository.packs import Pack, RecordRow, read_pack
from packstone.repository.places import Place
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

    def __init__(self, pack: Pack, repository: ObjectRepository) -> None:
        self._pack = pack
        self._hasher = repository.hasher
        self._reader = repository.reader
        self._places = [_whole_record(pack, record) for record in range(len(pack.rows))]
        self._buffer = bytearray()
        self._base = 0  # offset in the pack of the buffer's first byte
        self._next = 0  # record
        self.texts: list[str] = []
        self.bad_ids: list[bytes] = []

    def feed(self, data: Buffer) -> None:
        """Take the next bytes of the file."""
        self._buffer += data
        end = self._base + len(self._buffer)
        rows = self._pack.rows
        last = self._next
        while last < len(rows) and rows[last].offset + rows[last].stored_size <= end:
            last += 1
        with memoryview(self._buffer) as view:
            for group in self._reader.ranges(self._places[self._next : last]):
                self._range(group, view)
        keep = rows[self._next].offset if self._next < len(rows) else end
        cut = min(max(0, keep - self._base), len(self._buffer))
        del self._buffer[:cut]
        self._base += cut

    def _range(self, group: Sequence[Place], view: memoryview) -> None:
        """Check records that are there; what their deltas stand on is read together."""
        ancestry = self._ancestry(group)
        for place in group:
            start = place.offset - self._base
            with view[start : start + place.stored_size] as payload:
                self._record(place, payload, ancestry)
            self._next += 1

    def _ancestry(self, group: Sequence[Place]) -> Ancestry | None:
        deltas = [place for place in group if place.codec in DELTA_CODECS]
        try:
            bases = [self._pack.rows[place.record].bases for place in deltas]
            return self._reader.ancestry(deltas, bases) if deltas else None
        except REFUSED:
            return None  # each by itself will tell

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
                place = self._places[self._next]
                self._record(place, memoryview(payload), self._ancestry([place]))
            self._next += 1

    def _record(self, place: Place, payload: memoryview, ancestry: Ancestry | None) -> None:
        row = self._pack.rows[place.record]
        try:
            raw = memoryview(self._raw(place, row, payload, ancestry))
        except REFUSED as error:
            self.bad_ids += [found[0] for found in row.object_rows()]
            self.texts.append(error.message)
            return
        where = f"pack {place.pack_id[:12]}… is damaged at byte {row.offset} (record {self._next})"
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

    def _raw(
        self, place: Place, row: RecordRow, payload: memoryview, ancestry: Ancestry | None
    ) -> Buffer:
        """Return a decoded record; of a delta that goes wrong, with sound bases or an error."""
        if row.codec not in DELTA_CODECS:
            return self._reader.decode(place, payload)
        try:
            raw = self._reader.decode(place, payload, ancestry)
            if self._hasher.id(ObjectType.CHUNK, raw) == row.objects[:ID_SIZE]:
                return raw
        except REFUSED:
            pass
        return self._reader.delta(place, payload, row.bases)


def _whole_record(pack: Pack, record: int) -> Place:
    """Return the place of a record, as of one object that fills it."""
    row = pack.rows[record]
    size = row.raw_size
    return Place(
        pack.id, record, row.offset, row.stored_size, size, row.codec, row.depth, 0, size, 0
    )


def check_pack(
    repository: ObjectRepository, pack_id: str, size: int, *, read_data: bool
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
            scanner = _RecordScanner(pack, repository)
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
            expected = (row.offset, row.stored_size, row.raw_size, row.codec, row.depth)
            if (
                place is None
                or (place.offset, place.stored_size, place.raw_size, place.codec, place.depth)
                != expected
            ):
                wrong += 1
    for start in range(0, len(pack.rows), _ASKED):
        records = range(start, min(start + _ASKED, len(pack.rows)))
        found = index.bases_of([(pack.id, record) for record in records])
        wrong += sum(
            bases != pack.rows[record].bases for record, bases in zip(records, found, strict=True)
        )
    if not wrong:
        return []
    text = f"the index disagrees with pack {pack.id[:12]}… on {wrong} objects"
    return [Finding("index", text, pack.id)]
