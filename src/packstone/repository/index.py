"""The index: object id → places, a view of all pack footers.

Never trusted with correctness: whoever reads through it hashes what it got. Invariant: it
knows a pack wholly or not at all, and `refresh` makes it agree with the packs that are
there. Deleting it loses nothing (docs/format.md §1).
"""

from __future__ import annotations

import secrets
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from packstone.codec.encryption import Sealer
from packstone.errors import Damaged, ObjectMissing
from packstone.repository.layout import list_ids
from packstone.repository.packs import OBJECT, Pack, RecordRow, read_pack
from packstone.repository.spill import SpillSorter
from packstone.repository.view import Reading, open_view
from packstone.storage.base import Storage

VERSION = b"packstone index 2"
# Objects per transaction: smaller ones multiply the bytes written. In a large tree each object
# dirties a page of its own, of which memory must hold as many.
BATCH, LARGE_BATCH = 100_000, 25_000
_LARGE_TREE = 2_000_000  # objects
_CROWDED = 8  # places of one id from which on those in vanished packs are dropped
_LOOKED_UP = 1024  # ids in one transaction
_RELEASED = 4096  # insertions between two releases of mapped pages
_MANY_PACKS = 64  # unseen packs from which on their objects are sorted on disk

_META, _PACKS, _NUMBERS, _OBJECTS, _COMPLETE = (
    b"meta",
    b"packs",
    b"numbers",
    b"objects",
    b"complete",
)
_NUMBER = struct.Struct(">I")
_PACK = struct.Struct("<32s32sBQ")  # id, salt, kind, size; then a row for each record
_ROW = struct.Struct("<QIIBB2x")  # offset, stored size, raw size, codec, depth
_PLACE = struct.Struct("<IIII")  # pack number, record number, offset in the record, size
_CACHED_PACKS = 64


class Place(NamedTuple):
    """Where an object is: a record of a pack, and a range of the decoded record; bytes."""

    pack_id: str
    record: int
    offset: int
    stored_size: int
    raw_size: int
    codec: int
    depth: int
    inner_offset: int
    size: int


class Index:
    """The view of one repository; safe to use from several threads."""

    def __init__(self, directory: str, sealer: Sealer) -> None:
        """Open the view; one of another repository or version is emptied."""
        self._sealer = sealer
        self._repository_id = sealer.repository_id
        self._view = open_view(directory, (_META, _PACKS, _NUMBERS, _OBJECTS, _COMPLETE))
        self._writing = self._view.writing
        self._pending: list[Pack] = []
        self._pending_count = 0
        self._rows: OrderedDict[int, bytes] = OrderedDict()
        self._rows_lock = threading.Lock()
        self._numbers: dict[int, str] = {}
        self._epoch = b""
        self._seen = -1  # the last transaction whose epoch was compared
        self._view.write(self._adopt)
        self._batch = LARGE_BATCH if self.objects() > _LARGE_TREE else BATCH

    def _adopt(self, transaction: Any) -> None:
        """Make the view ours, emptied if it is of another repository or version."""
        meta = self._view.databases[_META]
        known = bytes(transaction.get(b"version", b"", db=meta))
        owner = bytes(transaction.get(b"repository", b"", db=meta))
        if (known, owner) != (VERSION, self._repository_id):
            self._empty(transaction)

    def _empty(self, transaction: Any) -> None:
        for database in self._view.databases.values():
            transaction.drop(database, delete=False)
        meta = self._view.databases[_META]
        transaction.put(b"version", VERSION, db=meta)
        transaction.put(b"repository", self._repository_id, db=meta)
        self._turn(transaction)
        self._lose(transaction)

    def reset(self) -> None:
        """Empty the view, in one step for all who use it."""
        with self._writing:
            self._write(self._empty)

    def _turn(self, transaction: Any) -> None:
        """Mark that the set of packs changes: others load it again."""
        epoch = secrets.token_bytes(16)
        transaction.put(b"epoch", epoch, db=self._view.databases[_META])

    def _lose(self, transaction: Any) -> None:
        """Mark that packs were dropped: what stood on them is complete no more."""
        token = secrets.token_bytes(16)
        transaction.put(b"forgotten", token, db=self._view.databases[_META])
        transaction.drop(self._view.databases[_COMPLETE], delete=False)

    def forgotten(self) -> bytes:
        """Return a token that changes whenever packs are dropped from the view."""
        with self._reading() as transaction:
            return bytes(transaction.get(b"forgotten", b"", db=self._view.databases[_META]))

    def _reading(self) -> Reading:
        return self._view.reading(self._follow)

    def _write(self, change: Callable[[Any], None]) -> None:
        """Run a change in a write transaction that knows what others have done before it."""

        def run(transaction: Any) -> None:
            self._follow(transaction)
            change(transaction)

        try:
            self._view.write(run)
        finally:
            self._seen = -1  # what was compared inside is not what was committed

    def _follow(self, transaction: Any) -> None:
        """Load the packs again if anyone, in this process or another, has changed them."""
        seen = transaction.id()
        if seen == self._seen:
            return
        databases = self._view.databases
        epoch = bytes(transaction.get(b"epoch", b"", db=databases[_META]))
        if epoch != self._epoch:
            numbers = {
                _NUMBER.unpack(number)[0]: bytes(pack_id).hex()
                for pack_id, number in transaction.cursor(db=databases[_NUMBERS])
            }
            with self._rows_lock:
                self._rows.clear()
            self._numbers = numbers
            self._epoch = epoch
        self._seen = seen

    @property
    def packs(self) -> dict[int, str]:
        """Return pack number → pack id of every pack the view knows."""
        with self._reading():
            return self._numbers

    # -- keeping the view -------------------------------------------------------------------

    def refresh(self, storage: Storage) -> list[Damaged]:
        """Make the view agree with the packs that are there; return packs it cannot read."""
        # Asked before the listing: what another writer adds after it is not gone.
        before = self.packs
        there = dict(list_ids(storage, "packs"))
        sizes = self._sizes(before)
        gone = [number for number, pack_id in before.items() if there.get(pack_id) != sizes[number]]
        if gone:
            self._forget(gone)
        known = set(self.packs.values())  # read again: some may have been forgotten
        unseen = sorted(there.keys() - known)
        damaged: list[Damaged] = []

        def packs() -> Iterator[Pack]:
            for pack_id in unseen:
                try:
                    yield read_pack(storage, pack_id, there[pack_id], self._sealer)
                except Damaged as error:
                    damaged.append(error)

        if len(unseen) >= _MANY_PACKS:
            self._add_many(packs(), len(unseen))
        else:
            for pack in packs():
                self.add(pack)
        self.flush()
        return damaged

    def _add_many(self, packs: Iterable[Pack], count: int) -> None:
        """Take up many packs: objects first, in the order of their ids, packs themselves last.

        A process that dies meanwhile leaves places in packs without a number, which count as
        absent.
        """
        sorter = SpillSorter(self._view.directory, 32, _PLACE.size)
        ids: dict[int, bytes] = {}
        rows: dict[int, bytes] = {}
        with self._writing:
            number = self._reserve(count)
            try:
                for pack in packs:
                    number += 1
                    ids[number] = bytes.fromhex(pack.id)
                    rows[number] = _pack_row(pack)
                    for key, place in _places(number, pack.rows):
                        sorter.add(key, place)
                    if len(rows) >= _MANY_PACKS:
                        self._write(partial(self._put_rows, rows=rows))
                        rows.clear()
                self._write(partial(self._put_rows, rows=rows))
                for part in sorter.partitions():
                    for start in range(0, len(part), BATCH):
                        batch = part[start : start + BATCH]
                        self._write(partial(self._put_places, places=batch, added=ids))
            finally:
                sorter.close()
            self._write(partial(self._put_ids, ids=ids))

    def _sizes(self, numbers: Iterable[int]) -> dict[int, int]:
        sizes: dict[int, int] = {}
        with self._reading() as transaction:
            for number in numbers:
                value = transaction.get(_NUMBER.pack(number), db=self._view.databases[_PACKS])
                sizes[number] = -1 if value is None else _PACK.unpack_from(value)[3]
        return sizes

    def _forget(self, numbers: Iterable[int]) -> None:
        """Drop packs; their objects' places count as absent from then on."""

        def change(transaction: Any) -> None:
            for number in numbers:
                key = _NUMBER.pack(number)
                pack_id = bytes.fromhex(self._numbers.get(number, ""))
                if transaction.get(pack_id or b"-", db=self._view.databases[_NUMBERS]) == key:
                    transaction.delete(pack_id, db=self._view.databases[_NUMBERS])
                transaction.delete(key, db=self._view.databases[_PACKS])
            self._turn(transaction)
            self._lose(transaction)

        with self._writing:
            self._write(change)

    def add(self, pack: Pack) -> list[Pack]:
        """Take up a durable pack; return the packs that were written to the view with it."""
        with self._writing:
            self._pending.append(pack)
            self._pending_count += sum(len(row.objects) // OBJECT.size for row in pack.rows)
            return self._flush() if self._pending_count >= self._batch else []

    def flush(self) -> list[Pack]:
        """Write what is pending, durably; return those packs."""
        with self._writing:
            return self._flush()

    def _flush(self) -> list[Pack]:
        flushed = self._pending
        if flushed:
            self._write(self._insert)
            self._pending = []
            self._pending_count = 0
        return flushed

    def _insert(self, transaction: Any) -> None:
        # Numbers are never given twice: places in packs that are gone keep theirs.
        number = self._last_number(transaction)
        ids: dict[int, bytes] = {}
        rows: dict[int, bytes] = {}
        places: list[tuple[bytes, bytes]] = []
        for pack in self._pending:
            pack_id = bytes.fromhex(pack.id)
            if transaction.get(pack_id, db=self._view.databases[_NUMBERS]) is not None:
                continue  # who looked at the packs meanwhile has taken it up
            number += 1
            ids[number] = pack_id
            rows[number] = _pack_row(pack)
            places.extend(_places(number, pack.rows))
        self._put_rows(transaction, rows)
        # Sorted keys touch each page of the tree once.
        places.sort()
        self._put_places(transaction, places, ids)
        self._put_ids(transaction, ids)

    def _last_number(self, transaction: Any) -> int:
        value = transaction.get(b"last", b"", db=self._view.databases[_META])
        return int.from_bytes(value, "little")

    def _put_rows(self, transaction: Any, rows: dict[int, bytes]) -> None:
        """Add what is known of packs' records, under numbers that are used up with it."""
        for number, row in rows.items():
            transaction.put(_NUMBER.pack(number), row, db=self._view.databases[_PACKS])
        last = max(self._last_number(transaction), *rows, 0)
        transaction.put(b"last", last.to_bytes(4, "little"), db=self._view.databases[_META])

    def _reserve(self, count: int) -> int:
        """Use up `count` numbers before anything is filed under them; return the one before."""
        reserved = [0]

        def change(transaction: Any) -> None:
            reserved[0] = self._last_number(transaction)
            last = (reserved[0] + count).to_bytes(4, "little")
            transaction.put(b"last", last, db=self._view.databases[_META])

        self._write(change)
        return reserved[0]

    def _put_ids(self, transaction: Any, ids: dict[int, bytes]) -> None:
        """Make packs known, but for those that another process took up meanwhile."""
        numbers = self._view.databases[_NUMBERS]
        for number, pack_id in ids.items():
            transaction.put(pack_id, _NUMBER.pack(number), overwrite=False, db=numbers)
        self._turn(transaction)

    def _put_places(
        self, transaction: Any, places: Sequence[tuple[bytes, bytes]], added: dict[int, bytes]
    ) -> None:
        """Add places in the order of their ids, beside those that are there and alive."""
        objects = self._view.databases[_OBJECTS]
        live = self._numbers.keys() | added.keys()
        put = transaction.put
        for start in range(0, len(places), _RELEASED):
            for key, place in places[start : start + _RELEASED]:
                if not put(key, place, overwrite=False, db=objects):
                    old = bytes(transaction.get(key, db=objects))
                    if place in old:
                        continue
                    if len(old) >= _CROWDED * _PLACE.size:
                        # Only then: a number unknown here may be one that another process
                        # files things under right now.
                        old = _live(old, live)
                    put(key, old + place, db=objects)
            self._view.looked_up(_RELEASED)

    # -- asking the view --------------------------------------------------------------------

    def present(self, ids: Sequence[bytes]) -> list[bool]:
        """Return for each id whether some pack that is there holds it."""
        found: list[bool] = []
        for part in _parts(ids):
            with self._reading() as transaction:
                numbers = self._numbers
                get = transaction.get
                objects = self._view.databases[_OBJECTS]
                for object_id in part:
                    value = get(object_id, db=objects)
                    if value is None:
                        found.append(False)
                    elif int.from_bytes(value[:4], "little") in numbers:
                        found.append(True)
                    else:
                        found.append(bool(_live(bytes(value), numbers)))
            self._view.looked_up(len(part))
        return found

    def find(self, object_id: bytes) -> list[Place]:
        """Return every place of an object, least depth first; empty when there is none."""
        with self._reading() as transaction:
            value = bytes(transaction.get(object_id, b"", db=self._view.databases[_OBJECTS]))
            places: list[Place] = []
            for number, record, inner, size in _PLACE.iter_unpack(value):
                row = self._row(transaction, number, record)
                if row is not None:
                    places.append(Place(self._numbers[number], record, *row, inner, size))
        if len(places) > 1:
            places.sort(key=lambda place: place.depth)
        return places

    def find_many(self, ids: Sequence[bytes]) -> list[Place | None]:
        """Return one place for each id, of least depth, None where there is none."""
        found: list[Place | None] = []
        for part in _parts(ids):
            with self._reading() as transaction:
                found += [self._best(transaction, object_id) for object_id in part]
            self._view.looked_up(len(part))
        return found

    def _best(self, transaction: Any, object_id: bytes) -> Place | None:
        value = transaction.get(object_id, db=self._view.databases[_OBJECTS])
        best: Place | None = None
        if value is not None:
            for number, record, inner, size in _PLACE.iter_unpack(value):
                row = self._row(transaction, number, record)
                if row is not None and (best is None or row[4] < best.depth):
                    best = Place(self._numbers[number], record, *row, inner, size)
        return best

    def _row(
        self, transaction: Any, number: int, record: int
    ) -> tuple[int, int, int, int, int] | None:
        """Return a record's (offset, stored size, raw size, codec, depth), None if gone."""
        with self._rows_lock:
            rows = self._rows.get(number)
            if rows is not None:
                self._rows.move_to_end(number)
        if rows is None:
            if number not in self._numbers:
                return None
            value = transaction.get(_NUMBER.pack(number), db=self._view.databases[_PACKS])
            if value is None:
                return None
            rows = bytes(value)
            with self._rows_lock:
                self._rows[number] = rows
                if len(self._rows) > _CACHED_PACKS:
                    self._rows.popitem(last=False)
        start = _PACK.size + record * _ROW.size
        if start + _ROW.size > len(rows):
            return None
        offset, stored_size, raw_size, codec, depth = _ROW.unpack_from(rows, start)
        return offset, stored_size, raw_size, codec, depth

    def kind_and_salt(self, pack_id: str) -> tuple[int, bytes]:
        """Return the kind and the salt of a pack; raises ObjectMissing where it is unknown."""
        databases = self._view.databases
        with self._reading() as transaction:
            number = transaction.get(bytes.fromhex(pack_id), db=databases[_NUMBERS])
            row = None if number is None else transaction.get(number, db=databases[_PACKS])
            if row is None:
                raise ObjectMissing(f"pack {pack_id[:12]}… is not there any more")
            _id, salt, kind, _size = _PACK.unpack_from(row)
            return kind, bytes(salt)

    def objects(self) -> int:
        """Return the number of ids in the view, those of vanished packs included."""
        with self._reading() as transaction:
            count: int = transaction.stat(self._view.databases[_OBJECTS])["entries"]
            return count

    def count_places(self, pack_ids: Container[str]) -> int:
        """Return the number of places in these packs: one for each object of each."""
        count = 0
        start = b""
        while True:
            with self._reading() as transaction:
                numbers = {n for n, pack_id in self._numbers.items() if pack_id in pack_ids}
                cursor = transaction.cursor(db=self._view.databases[_OBJECTS])
                if not cursor.set_range(start):
                    return count
                for row, (key, value) in enumerate(cursor):
                    start = bytes(key)
                    if row >= _RELEASED:
                        break
                    count += len(_live(bytes(value), numbers)) // _PLACE.size
                else:
                    return count
            self._view.looked_up(_RELEASED)

    def size(self) -> int:
        """Return the bytes that the view takes on disk."""
        return self._view.size()

    def follow_serial(self, serial: int) -> int:
        """Return the largest serial of `state` ever seen with this view, this one included."""
        meta = self._view.databases[_META]
        with self._reading() as transaction:
            seen = int.from_bytes(transaction.get(b"serial", b"", db=meta), "little")
        if serial > seen:
            with self._writing:
                self._view.write(
                    lambda transaction: transaction.put(
                        b"serial", serial.to_bytes(8, "little"), db=meta
                    )
                )
        return max(serial, seen)

    # -- snapshots found complete -----------------------------------------------------------

    def is_complete(self, snapshot_id: str, generation: bytes) -> bool:
        """Return whether all of a snapshot was found present under this generation."""
        with self._reading() as transaction:
            value = transaction.get(snapshot_id.encode(), db=self._view.databases[_COMPLETE])
            return value is not None and bytes(value) == generation

    def set_complete(self, snapshot_id: str, generation: bytes, forgotten: bytes) -> None:
        """Remember that all of a snapshot is present under this generation.

        Does nothing if packs were dropped since `forgotten` was read.
        """

        def change(transaction: Any) -> None:
            databases = self._view.databases
            if bytes(transaction.get(b"forgotten", b"", db=databases[_META])) == forgotten:
                transaction.put(snapshot_id.encode(), generation, db=databases[_COMPLETE])

        with self._writing:
            self._view.write(change)

    def close(self) -> None:
        """Close the view; pending packs are found again from their footers."""
        self._view.close()


def _live(value: bytes, numbers: Container[int]) -> bytes:
    """Leave out the places in packs that are gone: this is how they are swept out."""
    return b"".join(
        [
            value[start : start + _PLACE.size]
            for start in range(0, len(value), _PLACE.size)
            if int.from_bytes(value[start : start + 4], "little") in numbers
        ]
    )


def _parts(ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut many look-ups into short transactions."""
    for start in range(0, len(ids), _LOOKED_UP):
        yield ids[start : start + _LOOKED_UP]


def _pack_row(pack: Pack) -> bytes:
    """Return what the view keeps of a pack and its records."""
    return _PACK.pack(bytes.fromhex(pack.id), pack.salt, pack.kind, pack.size) + b"".join(
        [
            _ROW.pack(row.offset, row.stored_size, row.raw_size, row.codec, row.depth)
            for row in pack.rows
        ]
    )


def _places(number: int, rows: list[RecordRow]) -> Iterable[tuple[bytes, bytes]]:
    """Yield (id, place) of every object of a pack."""
    pack_place = _PLACE.pack
    for record, row in enumerate(rows):
        inner = 0
        for object_id, size, _type in row.object_rows():
            yield object_id, pack_place(number, record, inner, size)
            inner += size
