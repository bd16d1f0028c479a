"""Verify packs, one on each worker: footers, the view, the name, and with data every object.

Reads only. A pack is read once, in order, for its name and its records together; what is wrong
then is read once more, from the medium if that can be had. What is wrong both times is damage.
What is wrong once is a fault on the way: cable, controller, memory.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from blake3 import blake3

from packstone.codec.compression import Compressor
from packstone.codec.delta import DELTA_CODECS
from packstone.errors import Damaged, StorageError, UnsupportedFormat
from packstone.model import ID_SIZE, MIB, Buffer, ObjectType
from packstone.repository.agreement import count_objects
from packstone.repository.ancestry import Ancestry
from packstone.repository.attempt import REFUSED
from packstone.repository.layout import pack_name
from packstone.repository.packs import KINDS_OF_OBJECTS, OBJECT, Pack, RecordRow, read_pack
from packstone.repository.places import Place
from packstone.repository.reachable import hangs
from packstone.repository.repository import ObjectRepository

_TOGETHER = 16 * MIB  # of deltas, decoded, whose bases are looked up together
_READ = MIB  # measured: what is hashed twice should still be in the processor's cache
_FAULTS = (Damaged, StorageError, UnsupportedFormat)


class Depth(enum.IntEnum):
    """How much of a pack is looked at; each includes the one before."""

    FOOTERS = 0
    NAME = 1
    DATA = 2


class Problem(NamedTuple):
    """What is wrong with a pack, or with one record of it."""

    kind: str
    message: str
    record: int | None = None


class PackReport(NamedTuple):
    """What one pack's check found.

    `transient` problems were there at one of two reads. `opened` says whether the footer could
    be read: without it no record can be taken as whole. `verified` says whether all of the pack
    was read, and was whole at the first try.
    """

    pack_id: str
    bytes_read: int
    object_count: int
    problems: list[Problem]
    transient: list[Problem]
    opened: bool
    verified: bool
    raw_size: int = 0  # of all objects, before compression


class _Records:
    """Check the records of one pack as their bytes come."""

    def __init__(self, pack: Pack, repository: ObjectRepository, codec: Compressor) -> None:
        self._pack = pack
        self._codec = codec
        self._reader = repository.reader
        self._index = repository.index
        self._ancestry: Ancestry | None = None
        self._planned = range(0)  # the records whose deltas it is of
        self._seal = repository.sealer.pack(pack.kind, pack.salt)
        self._hashes: dict[int, Callable[[Buffer], bytes]] = {
            kind: repository.hasher.function(ObjectType(kind))
            for kind in KINDS_OF_OBJECTS[pack.kind]
        }

    def check(self, number: int, payload: Buffer, behind: int = 0) -> str:
        """Return what is wrong with a record, given its stored bytes, or an empty text.

        Records up to `behind` are going to be checked next.
        """
        row = self._pack.rows[number]
        try:
            if len(payload) != row.stored_size:
                raise Damaged(f"{len(payload)} bytes, expected {row.stored_size}")
            if row.codec in DELTA_CODECS:
                raw = self._delta(number, payload, behind)
            else:
                opened = self._seal.open(number, row.raw_size, row.codec, payload)
                raw = self._codec.decode(row.codec, opened, row.raw_size)
        except REFUSED as error:
            if self._hangs(number):
                return ""
            # Of a delta the message says where it is.
            if hangs(self._index, row.bases, row.depth):
                # Who needs it hears of it by the snapshots; of what nobody needs a sweep takes
                # the bases.
                return ""
            known = error.message.startswith(self._where(number))
            return error.message if known else f"{self._where(number)}: {error.message}"
        position = 0
        view = memoryview(raw)
        hashes = self._hashes
        for object_id, size, kind in OBJECT.iter_unpack(row.objects):
            end = position + size
            found = hashes[kind](view[position:end])
            if found != object_id:
                return (
                    f"{self._where(number)}: hash {found.hex()[:12]}…, "
                    f"expected {object_id.hex()[:12]}…"
                )
            position = end
        return ""

    def _delta(self, number: int, payload: Buffer, behind: int) -> Buffer:
        """Return a decoded delta; of one that goes wrong, with sound bases or an error."""
        row = self._pack.rows[number]
        place = _whole_record(self._pack, number)
        if number not in self._planned:
            self._plan(number, max(behind, number + 1))
        if self._ancestry is not None:
            try:
                raw = self._reader.decode(place, payload, self._ancestry)
                if self._hashes[ObjectType.CHUNK](raw) == row.objects[:ID_SIZE]:
                    return raw
            except REFUSED:
                pass
        # The view agrees with the footers by now: nothing is gained by making it anew, and
        # whoever looks something up meanwhile would find it empty.
        return self._reader.delta(place, payload, row.bases, heal=False)

    def _hangs(self, number: int) -> bool:
        """Return whether a delta lacks a base: it is not present, and who needs it hears of it."""
        row = self._pack.rows[number]
        return row.codec in DELTA_CODECS and self._index.hangs(row)

    def _plan(self, number: int, behind: int) -> None:
        """Look up together what the deltas from a record on stand on."""
        rows = self._pack.rows
        last = number
        size = 0
        while last < behind and size <= _TOGETHER:
            size += rows[last].raw_size
            last += 1
        self._planned = range(number, last)
        deltas = [n for n in self._planned if rows[n].codec in DELTA_CODECS]
        try:
            places = [_whole_record(self._pack, n) for n in deltas]
            self._ancestry = self._reader.ancestry(places, [rows[n].bases for n in deltas])
        except REFUSED:
            self._ancestry = None  # each by itself will tell

    def _where(self, number: int) -> str:
        offset = self._pack.rows[number].offset
        return f"pack {self._pack.id[:12]}… is damaged at byte {offset} (record {number})"


class _Look:
    """One reading of one pack."""

    def __init__(
        self, repository: ObjectRepository, codec: Compressor, pack_id: str, size: int, depth: Depth
    ) -> None:
        self.bytes_read = 0
        self.pack: Pack | None = None
        self.problems: dict[tuple[str, int | None], Problem] = {}
        self.asked: set[str] = {"footers", "footer", "read"}  # what could have been found wrong
        self._storage = repository.storage
        self._name = pack_name(pack_id)
        self._id = pack_id
        try:
            self.pack = read_pack(self._storage, pack_id, size, repository.sealer)
        except _FAULTS as error:
            self._add("footers", error.kind, error.message)
        else:
            for text in self.pack.damage:
                self._add("footer", "pack", f"{text}; the other copy is whole")
        if depth >= Depth.NAME:
            records = None
            if depth == Depth.DATA and self.pack is not None:
                records = _Records(self.pack, repository, codec)
            self._read(records)

    def _add(self, what: str, kind: str, message: str, record: int | None = None) -> None:
        self.problems[what, record] = Problem(kind, message, record)

    def _read(self, records: _Records | None) -> None:
        """Read all of the file for its name, and check the records that are in what was read."""
        rows = self.pack.rows if self.pack is not None and records is not None else []
        if records is not None:
            self.asked.add("record")
        hasher = blake3()
        for start, end, first, behind in _stretches(rows):
            try:
                data = self._storage.get_once(self._name, start, end - start)
            except (Damaged, StorageError) as error:
                self._add("read", error.kind, error.message)
                self._read_singly(records, range(first, len(rows)))
                return
            self.bytes_read += len(data)
            hasher.update(data)
            if records is not None and first < behind:
                view = memoryview(data)
                for number in range(first, behind):
                    at = rows[number].offset - start
                    self._note(
                        number,
                        records.check(number, view[at : at + rows[number].stored_size], behind),
                    )
            if len(data) < end - start:  # the end of the file; records behind it are cut off
                if records is not None:
                    for number in range(behind, len(rows)):
                        self._note(number, records.check(number, b""))
                break
        self.asked.add("name")
        found = hasher.hexdigest()
        if found != self._id:
            text = f"pack {self._id[:12]}… is damaged: its bytes hash to {found[:12]}…"
            self._add("name", "pack", text)

    def _read_singly(self, records: _Records | None, numbers: Sequence[int]) -> None:
        """Check one by one what could not be read in one go."""
        if records is None or self.pack is None:
            return
        for number in numbers:
            row = self.pack.rows[number]
            try:
                payload = self._storage.get_once(self._name, row.offset, row.stored_size)
            except (Damaged, StorageError) as error:
                self._note(number, f"record {number}: {error.message}")
            else:
                self.bytes_read += len(payload)
                self._note(number, records.check(number, payload))

    def _note(self, number: int, text: str) -> None:
        if text:
            self._add("record", "data", text, number)


def _stretches(rows: Sequence[RecordRow]) -> Iterator[tuple[int, int, int, int]]:
    """Cut a pack of any length into reads: start, end, and the records that are wholly inside.

    Each ends where a record does, so that no bytes need to be kept for the next one.
    """
    start = number = 0
    while True:
        end = start + _READ
        first = number
        while number < len(rows) and rows[number].offset + rows[number].stored_size <= end:
            number += 1
        if number < len(rows) and rows[number].offset < end:
            if number == first:  # one that is longer than what is read in one go
                row = rows[number]
                number += 1
                end = row.offset + row.stored_size
            else:
                end = rows[number - 1].offset + rows[number - 1].stored_size
        yield start, end, first, number
        start = end


def _whole_record(pack: Pack, record: int) -> Place:
    """Return the place of a record, as of one object that fills it."""
    row = pack.rows[record]
    size = row.raw_size
    return Place(
        pack.id, record, row.offset, row.stored_size, size, row.codec, row.depth, 0, size, 0
    )


def check_pack(
    repository: ObjectRepository, codec: Compressor, pack_id: str, size: int, depth: Depth
) -> PackReport:
    """Check one pack; every error of the pack becomes a problem.

    Footers alone are compared with the view, which must be right before records are read. A pack
    whose name is wrong is always looked at record by record, to say what it costs.
    """
    look = _Look(repository, codec, pack_id, size, depth)
    first, asked, bytes_read = look.problems, look.asked, look.bytes_read
    problems: dict[tuple[str, int | None], Problem] = {}
    transient: dict[tuple[str, int | None], Problem] = {}
    if first:
        repository.storage.drop_cached(pack_name(pack_id))
        repository.reader.forget()  # bases of deltas, too
        look = _Look(repository, codec, pack_id, size, Depth.DATA if depth else depth)
        bytes_read += look.bytes_read
        for key, problem in (first | look.problems).items():
            # What one of the two reads did not get to has no say in what the other found.
            seen_once = (key not in look.problems and key[0] in look.asked) or (
                key not in first and key[0] in asked
            )
            (transient if seen_once else problems)[key] = problem
    found = list(problems.values())
    object_count = 0
    if look.pack is not None:
        if depth == Depth.FOOTERS:
            found += _against_view(repository, look.pack)
        object_count = count_objects(look.pack)
    verified = depth == Depth.DATA and not first
    return PackReport(
        pack_id,
        bytes_read,
        object_count,
        found,
        list(transient.values()),
        look.pack is not None,
        verified,
        sum(row.raw_size for row in look.pack.rows) if look.pack is not None else 0,
    )


def _count_hanging(repository: ObjectRepository, pack: Pack) -> int:
    """Return how many deltas of a pack the view rightly leaves out: their bases are gone."""
    index = repository.index
    deltas = [(number, row) for number, row in enumerate(pack.rows) if row.bases]
    found = index.find_all([row.objects[:ID_SIZE] for _number, row in deltas])
    return sum(
        all((place.pack_id, place.record) != (pack.id, number) for place in places)
        and hangs(index, row.bases, row.depth)
        for (number, row), places in zip(deltas, found, strict=True)
    )


def _against_view(repository: ObjectRepository, pack: Pack) -> list[Problem]:
    """Compare a pack's footer with what the view says of it."""
    wrong = repository.index.count_differing(pack)
    if wrong:
        wrong -= _count_hanging(repository, pack)
    if not wrong:
        return []
    text = f"the index disagrees with pack {pack.id[:12]}… on {wrong} objects"
    return [Problem("index", text)]
