"""The index: object id → places, a view of all pack footers.

Never trusted with correctness: whoever reads through it hashes what it got. Invariant: it
knows a pack wholly or not at all, and `refresh` makes it agree with the packs that are
there. Deleting it loses nothing (docs/format.md §1).
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from packstone.codec.encryption import Sealer
from packstone.errors import Damaged, ObjectMissing
from packstone.model import ID_SIZE
from packstone.repository.agreement import (
    count_objects,
    differing_records,
    misplaced,
    parts,
)
from packstone.repository.bundles import FEW, bundled_packs
from packstone.repository.cuts import (
    BASES,
    CUT_KEY,
    CUT_SIDE,
    CUTS,
    CutReader,
    bases_in,
    cut_rows,
    find_hanging,
    split_ids,
)
from packstone.repository.filing import META, NUMBERS, OBJECTS, PACKS, RELEASED, Filing
from packstone.repository.layout import list_ids
from packstone.repository.pack_reading import read_packs
from packstone.repository.packs import OBJECT, Pack, RecordRow
from packstone.repository.places import (
    NUMBER,
    PACK,
    PLACE,
    RECORD,
    Cut,
    Place,
    cut_of,
    live,
    pack_value,
    places_in,
    places_of,
    record_of,
    record_sizes,
)
from packstone.repository.recall import Remembered, objects_in, recalled
from packstone.repository.spill import SpillSorter
from packstone.repository.view import Reading, open_view
from packstone.storage.base import Storage

T = TypeVar("T")

VERSION = b"packstone index 4"
# Objects per transaction: smaller ones multiply the bytes written. In a large tree each object
# dirties a page of its own, of which memory must hold as many.
BATCH, LARGE_BATCH = 100_000, 25_000
_LARGE_TREE = 2_000_000  # objects
_LOOKED_UP = 1024  # ids in one transaction
_MANY_PACKS = 64  # unseen packs from which on their objects are sorted on disk

_COMPLETE = b"complete"
_HEARSAY = b"hearsay"  # ids of packs whose own footers were not read
_DISTRUST = b"distrust"  # there where a bundle was found to be wrong
_CACHED_PACKS = 64


class Index:
    """The view of one repository; safe to use from several threads."""

    def __init__(self, directory: str, sealer: Sealer) -> None:
        """Open the view; one of another repository or version is emptied."""
        self._sealer = sealer
        self._repository_id = sealer.repository_id
        self._view = open_view(directory, (META, PACKS, NUMBERS, OBJECTS, _COMPLETE, CUTS, BASES))
        self._filing = Filing(self._view)
        self._writing = self._view.writing
        self._pending: list[Pack] = []
        self._pending_count = 0
        self._rows: OrderedDict[int, bytes] = OrderedDict()
        self._rows_lock = threading.Lock()
        self._numbers: dict[int, str] = {}
        self._hearsay: frozenset[int] = frozenset()  # numbers of packs known from bundles only
        self._counted_on: set[int] = set()  # numbers of packs, while there are any of these
        self._asks_bundles = True
        self._pack_sizes: dict[int, int] = {}
        self._epoch = b""
        self._seen = -1  # the last transaction whose epoch was compared
        try:
            self._view.write(self._adopt)
        except BaseException:
            self._view.close()
            raise
        self._batch = LARGE_BATCH if self.objects() > _LARGE_TREE else BATCH

    def _adopt(self, transaction: Any) -> None:
        """Make the view ours, emptied if it is of another repository or version."""
        meta = self._view.databases[META]
        known = bytes(transaction.get(b"version", b"", db=meta))
        owner = bytes(transaction.get(b"repository", b"", db=meta))
        numbers = transaction.cursor(db=self._view.databases[NUMBERS])
        if (known, owner) != (VERSION, self._repository_id) or any(
            (len(pack_id), len(value)) != (ID_SIZE, PACK.size) for pack_id, value in numbers
        ):
            self._empty(transaction)

    def _empty(self, transaction: Any) -> None:
        for database in self._view.databases.values():
            transaction.drop(database, delete=False)
        meta = self._view.databases[META]
        transaction.put(b"version", VERSION, db=meta)
        transaction.put(b"repository", self._repository_id, db=meta)
        self._turn(transaction)
        self._lose(transaction)

    def reset(self) -> None:
        """Empty the view, in one step for all who use it; it is made anew from packs alone."""
        self._asks_bundles = False
        with self._writing:
            self._write(self._empty)

    def _turn(self, transaction: Any) -> None:
        """Mark that the set of packs changes: others load it again."""
        epoch = secrets.token_bytes(16)
        transaction.put(b"epoch", epoch, db=self._view.databases[META])

    def _lose(self, transaction: Any) -> None:
        """Mark that packs were dropped: what stood on them is complete no more."""
        token = secrets.token_bytes(16)
        transaction.put(b"forgotten", token, db=self._view.databases[META])
        transaction.drop(self._view.databases[_COMPLETE], delete=False)

    def forgotten(self) -> bytes:
        """Return a token that changes whenever packs are dropped from the view."""
        with self._reading() as transaction:
            return bytes(transaction.get(b"forgotten", b"", db=self._view.databases[META]))

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
        epoch = bytes(transaction.get(b"epoch", b"", db=databases[META]))
        if epoch != self._epoch:
            numbers: dict[int, str] = {}
            sizes: dict[int, int] = {}
            for pack_id, value in transaction.cursor(db=databases[NUMBERS]):
                number, size, _kind, _count, _salt = PACK.unpack(value)
                numbers[number] = bytes(pack_id).hex()
                sizes[number] = size
            with self._rows_lock:
                self._rows.clear()
            told = bytes(transaction.get(_HEARSAY, b"", db=databases[META]))
            ids = {told[at : at + ID_SIZE].hex() for at in range(0, len(told), ID_SIZE)}
            self._hearsay = frozenset(n for n, pack_id in numbers.items() if pack_id in ids)
            self._numbers = numbers
            self._pack_sizes = sizes
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
        sizes = self._pack_sizes
        gone = [number for number, pack_id in before.items() if there.get(pack_id) != sizes[number]]
        if gone:
            self._forget(gone)
        known = set(self.packs.values())  # read again: some may have been forgotten
        made_anew = not known
        unseen = sorted(there.keys() - known)
        damaged: list[Damaged] = []

        def packs() -> Iterator[Pack]:
            told: set[str] = set()
            asks = storage.is_far and self._asks_bundles and len(unseen) > FEW
            if asks and self._trusts_bundles():
                self._note_hearsay(unseen)
                for pack in bundled_packs(storage, self._sealer, unseen, there):
                    told.add(pack.id)
                    yield pack
                # What another process has filed meanwhile may rest on what a bundle told that one.
                self._note_hearsay(told, without=set(unseen) - told, unless_filed=True)
            rest = [pack_id for pack_id in unseen if pack_id not in told]
            for found in read_packs(storage, rest, there, self._sealer):
                if isinstance(found, Damaged):
                    damaged.append(found)
                else:
                    yield found

        if len(unseen) >= _MANY_PACKS:
            with self._writing:
                self._add_many(packs(), len(unseen))
        else:
            for pack in packs():
                self.add(pack)
        self.flush()
        if gone or damaged or made_anew:
            self._drop_hanging()
        return damaged

    def _note_hearsay(
        self,
        pack_ids: Collection[str],
        without: Collection[str] = (),
        *,
        unless_filed: bool = False,
    ) -> None:
        """Remember that of packs only a bundle has told, and that of others it has not.

        With `unless_filed` others that are in the view by now stay what they are.
        """

        def change(transaction: Any) -> None:
            databases = self._view.databases
            told = bytes(transaction.get(_HEARSAY, b"", db=databases[META]))
            ids = {told[at : at + ID_SIZE] for at in range(0, len(told), ID_SIZE)}
            ids |= {bytes.fromhex(pack_id) for pack_id in pack_ids}
            for pack_id in map(bytes.fromhex, without):
                if not (unless_filed and transaction.get(pack_id, db=databases[NUMBERS])):
                    ids.discard(pack_id)
            transaction.put(_HEARSAY, b"".join(sorted(ids)), db=databases[META])
            self._turn(transaction)

        self._write(change)

    def confirm(self, storage: Storage, *, to_read: bool = False) -> bool:
        """Read the footers of packs that were counted on and that only bundles had told of.

        Returns whether all of them say what the bundles did; what did not is put right. `to_read`
        looks at all that only bundles had told of, and leaves those without a footer: what the
        view has of them may still be read.
        """
        with self._reading() as transaction:
            counted = frozenset() if to_read else frozenset(self._counted_on)
            numbers = self._hearsay
            if not to_read:
                numbers &= self._standing_on(transaction, counted)
            ids = {self._numbers[number]: number for number in sorted(numbers)}
            sizes = {pack_id: self._pack_sizes[number] for pack_id, number in ids.items()}
        wrong: list[int] = []
        unread: list[str] = []
        for pack_id, found in zip(
            ids, read_packs(storage, list(ids), sizes, self._sealer), strict=True
        ):
            if isinstance(found, Damaged) and to_read:
                unread.append(pack_id)
            elif isinstance(found, Damaged) or not (
                self.agrees(found) and not self.count_differing(found)
            ):
                wrong.append(ids[pack_id])
        if wrong:
            with self._writing:
                self._write(self._distrust)
            self._forget(wrong)
        # Last: who is killed before has confirmed nothing.
        if ids:
            with self._writing:
                self._note_hearsay((), without=ids.keys() - set(unread))
        self._counted_on.difference_update(counted)
        if wrong:
            self.refresh(storage)
            self._drop_hanging()
        return not wrong

    def _standing_on(self, transaction: Any, numbers: Collection[int]) -> set[int]:
        """Return packs and all those that what is in them stands on, by number."""
        if not self._hearsay:
            return set()
        databases = self._view.databases
        found: set[int] = set()
        waiting = set(numbers)
        while waiting:
            number = waiting.pop()
            found.add(number)
            for base_id in bases_in(transaction, databases[BASES], number):
                value = transaction.get(base_id, b"", db=databases[OBJECTS])
                waiting.update(at for at, *_ in places_in(value) if at not in found)
        return found

    def _distrust(self, transaction: Any) -> None:
        """Mark that bundles have told what is not so: this view asks none any more."""
        transaction.put(_DISTRUST, b"1", db=self._view.databases[META])

    def _trusts_bundles(self) -> bool:
        with self._reading() as transaction:
            return transaction.get(_DISTRUST, db=self._view.databases[META]) is None

    def _drop_hanging(self) -> None:
        """Drop places of deltas whose bases are gone: what cannot be decoded is not present.

        Whoever stores such a chunk again makes it whole, as it does with any other lost one.
        """
        with self._reading() as transaction:
            dead, lost = find_hanging(
                transaction, self._view.databases, partial(self._depth_of, transaction)
            )
            ids = [
                (place, cut.id)
                for place in dead
                if (rows := self._rows_of(transaction, place[0])) is not None
                and (cut := cut_of(rows, *place)) is not None
            ]

        def change(transaction: Any) -> None:
            self._filing.drop_places(transaction, ids)
            self._filing.note_lost(transaction, sorted(lost))

        if ids:
            with self._writing:
                self._write(change)

    def _depth_of(self, transaction: Any, number: int, record: int) -> int | None:
        row = self._row(transaction, number, record)
        return None if row is None else row[4]

    def _add_many(self, packs: Iterable[Pack], count: int) -> None:
        """Take up many packs: objects first, in the order of their ids, packs themselves last.

        In parts, so that memory does not grow with them. A process that dies meanwhile leaves
        places in packs without a number, which count as absent.
        """
        places = SpillSorter(self._view.directory, 32, PLACE.size)
        cuts = SpillSorter(self._view.directory, CUT_KEY, CUT_SIDE)
        ids: dict[int, tuple[bytes, bytes]] = {}
        rows: dict[int, Pack] = {}
        number = self._reserve(count)
        try:
            for pack in packs:
                number += 1
                ids[number] = (bytes.fromhex(pack.id), pack_value(number, pack))
                rows[number] = pack
                for key, place in places_of(number, pack.rows):
                    places.add(key, place)
                for key, side in cut_rows(number, pack.rows):
                    cuts.add(key, side)
                if len(rows) >= _MANY_PACKS:
                    self._write(partial(self._filing.put_rows, packs=rows))
                    rows.clear()
            self._write(partial(self._filing.put_rows, packs=rows))
            for part in places.partitions():
                for start in range(0, len(part), self._batch):
                    batch = part[start : start + self._batch]
                    self._write(partial(self._file_places, places=batch, added=ids))
            for part in cuts.partitions():
                for start in range(0, len(part), self._batch):
                    self._write(
                        partial(self._filing.put_cuts, rows=part[start : start + self._batch])
                    )
        finally:
            places.close()
            cuts.close()
        self._write(partial(self._file_ids, ids=ids))

    def _forget(self, numbers: Sequence[int]) -> None:
        """Drop packs; their objects' places count as absent from then on."""

        def change(transaction: Any) -> None:
            for number in numbers:
                key = NUMBER.pack(number)
                pack_id = bytes.fromhex(self._numbers.get(number, ""))
                known = transaction.get(pack_id or b"-", db=self._view.databases[NUMBERS])
                if known is not None and bytes(known[: NUMBER.size]) == key:
                    transaction.delete(pack_id, db=self._view.databases[NUMBERS])
                transaction.delete(key, db=self._view.databases[PACKS])
            self._turn(transaction)
            self._lose(transaction)

        with self._writing:
            # One at a time: each is as large as a pack may be.
            for number in numbers:
                self._write(partial(self._filing.drop_cuts, number=number))
            self._write(change)
            for number in numbers:
                self._write(partial(self._filing.drop_bases, number=number))

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
            if self._pending_count > self._batch:  # one pack of small files may hold as many
                self._add_many(flushed, len(flushed))
            else:
                self._write(self._insert)
            self._pending = []
            self._pending_count = 0
        return flushed

    def _insert(self, transaction: Any) -> None:
        # Numbers are never given twice: places in packs that are gone keep theirs.
        number = self._filing.last_number(transaction)
        ids: dict[int, tuple[bytes, bytes]] = {}
        packs: dict[int, Pack] = {}
        places: list[tuple[bytes, bytes]] = []
        cuts: list[tuple[bytes, bytes]] = []
        for pack in self._pending:
            pack_id = bytes.fromhex(pack.id)
            if transaction.get(pack_id, db=self._view.databases[NUMBERS]) is not None:
                continue  # who looked at the packs meanwhile has taken it up
            number += 1
            ids[number] = (pack_id, pack_value(number, pack))
            packs[number] = pack
            places.extend(places_of(number, pack.rows))
            cuts.extend(cut_rows(number, pack.rows))
        self._filing.put_rows(transaction, packs)
        # Sorted keys touch each page of the tree once.
        places.sort()
        self._file_places(transaction, places, ids)
        cuts.sort()
        self._filing.put_cuts(transaction, cuts)
        self._file_ids(transaction, ids)

    def _reserve(self, count: int) -> int:
        """Use up `count` numbers before anything is filed under them; return the one before."""
        reserved = [0]

        def change(transaction: Any) -> None:
            reserved[0] = self._filing.last_number(transaction)
            self._filing.use_numbers(transaction, reserved[0] + count)

        self._write(change)
        return reserved[0]

    def _file_places(
        self, transaction: Any, places: Sequence[tuple[bytes, bytes]], added: Container[int]
    ) -> None:
        self._filing.put_places(transaction, places, self._numbers, added)

    def _file_ids(self, transaction: Any, ids: dict[int, tuple[bytes, bytes]]) -> None:
        self._filing.put_ids(transaction, ids)
        self._turn(transaction)

    # -- asking the view --------------------------------------------------------------------

    def present(self, ids: Sequence[bytes]) -> list[bool]:
        """Return for each id whether some pack that is there holds it."""
        found: list[bool] = []
        for part in _parts(ids):
            with self._reading() as transaction:
                numbers, hearsay = self._numbers, self._hearsay
                get = transaction.get
                objects = self._view.databases[OBJECTS]
                for object_id in part:
                    value = get(object_id, db=objects)
                    if value is None:
                        found.append(False)
                    elif len(value) == PLACE.size and (
                        int.from_bytes(value[:4], "little") in numbers
                    ):
                        found.append(True)
                    else:
                        found.append(bool(live(bytes(value), numbers)))
                    if hearsay and found[-1]:
                        assert value is not None
                        self._count_on(places_in(value), hearsay)
            self._view.looked_up(len(part))
        return found

    def _count_on(self, places: Iterable[tuple[int, ...]], hearsay: Container[int]) -> None:
        """Note a pack that an object is counted on to be in, rather one whose footer was read."""
        chosen = -1
        for number, *_ in places:
            if number in self._counted_on:
                return
            if number in self._numbers and (chosen < 0 or number not in hearsay):
                chosen = number
        if chosen >= 0:
            self._counted_on.add(chosen)

    def count_on(self, ids: Iterable[bytes]) -> None:
        """Note that something new stands on these objects, wherever they are."""
        with self._reading() as transaction:
            if not self._hearsay:
                return
            for object_id in ids:
                value = transaction.get(object_id, b"", db=self._view.databases[OBJECTS])
                self._counted_on.update(n for n, *_ in places_in(value) if n in self._numbers)

    def find(self, object_id: bytes) -> list[Place]:
        """Return every place of an object, the newest of least depth first; may be empty."""
        with self._reading() as transaction:
            places = self._every(transaction, object_id)
        if len(places) > 1:
            places.reverse()  # the newest first, like find_many
            places.sort(key=lambda place: place.depth)
        return places

    def find_all(self, ids: Sequence[bytes]) -> list[list[Place]]:
        """Return every place of each id, in no order."""
        found: list[list[Place]] = []
        for part in _parts(ids):
            with self._reading() as transaction:
                found += [self._every(transaction, object_id) for object_id in part]
            self._view.looked_up(len(part))
        return found

    def _every(self, transaction: Any, object_id: bytes) -> list[Place]:
        value = bytes(transaction.get(object_id, b"", db=self._view.databases[OBJECTS]))
        places: list[Place] = []
        for number, record, inner, size, at in places_in(value):
            row = self._row(transaction, number, record)
            pack_id = self._numbers.get(number)  # another thread may just have followed
            if row is not None and pack_id is not None:
                places.append(Place(pack_id, record, *row, inner, size, at))
        return places

    def find_many(self, ids: Sequence[bytes]) -> list[Place | None]:
        """Return one place for each id, the newest of least depth, None where there is none."""
        found: list[Place | None] = []
        for part in _parts(ids):
            with self._reading() as transaction:
                found += self._best(transaction, part)
            self._view.looked_up(len(part))
        return found

    def _best(self, transaction: Any, ids: Sequence[bytes]) -> Iterator[Place | None]:
        """Yield the place of least depth of each id; a pack's rows are fetched once for many."""
        objects = self._view.databases[OBJECTS]
        get = transaction.get
        rows_of: dict[int, bytes | None] = {}
        for object_id in ids:
            best: Place | None = None
            for number, record, inner, size, at in places_in(get(object_id, b"", db=objects)):
                if number not in rows_of:
                    if len(rows_of) == _CACHED_PACKS:
                        rows_of.clear()
                    rows_of[number] = self._rows_of(transaction, number)
                rows = rows_of[number]
                row = None if rows is None else record_of(rows, record)
                pack_id = self._numbers.get(number)  # another thread may just have followed
                if row is None or pack_id is None:
                    continue
                # The newest of equal depth: what a prune wrote, not what it will sweep.
                if best is None or row[4] <= best.depth:
                    best = Place(pack_id, record, *row, inner, size, at)
            yield best

    def _row(
        self, transaction: Any, number: int, record: int
    ) -> tuple[int, int, int, int, int] | None:
        """Return a record's (offset, stored size, raw size, codec, depth), None if gone."""
        rows = self._rows_of(transaction, number)
        return None if rows is None else record_of(rows, record)

    def _rows_of(self, transaction: Any, number: int) -> bytes | None:
        """Return what is known of the records of a pack, None if it is gone."""
        with self._rows_lock:
            rows = self._rows.get(number)
            if rows is not None:
                self._rows.move_to_end(number)
                return rows
        if number not in self._numbers:
            return None
        value = transaction.get(NUMBER.pack(number), db=self._view.databases[PACKS])
        if value is None:
            return None
        rows = bytes(value)
        with self._rows_lock:
            self._rows[number] = rows
            if len(self._rows) > _CACHED_PACKS:
                self._rows.popitem(last=False)
        return rows

    def count_differing(self, pack: Pack) -> int:
        """Return how many objects of a pack the view has otherwise than the footer says."""
        databases = self._view.databases
        with self._reading() as transaction:
            value = transaction.get(bytes.fromhex(pack.id), db=databases[NUMBERS])
            number = 0 if value is None else PACK.unpack(value)[0]
            rows = self._rows_of(transaction, number)
            if rows is None or bytes(value) != pack_value(number, pack):
                return count_objects(pack)
            differing = differing_records(transaction, databases, number, rows, pack)
        count = sum(len(pack.rows[record].objects) for record in differing) // OBJECT.size
        for part in parts(number, pack):
            with self._reading() as transaction:
                wrong = misplaced(transaction, databases, part)
            self._view.looked_up(len(part))
            count += sum(
                record not in differing and not self.hangs(pack.rows[record]) for record in wrong
            )
        return count

    def hangs(self, row: RecordRow) -> bool:
        """Return whether a base of a delta is gone: such a one does not count as present."""
        return any(place is None or place.depth >= row.depth for place in self.find_many(row.bases))

    def recall(self, pack_id: str) -> Pack | None:
        """Return what the view knows of a pack, None if it does not know it.

        Reads the whole view. Of metadata it does not know which objects are trees.
        """
        databases = self._view.databases
        with self._reading() as transaction:
            value = transaction.get(bytes.fromhex(pack_id), db=databases[NUMBERS])
            if value is None:
                return None
            value = bytes(value)
            number = PACK.unpack(value)[0]
        objects: list[Remembered] = []
        last, more = b"", True
        while more:
            more = False
            with self._reading() as transaction:
                for object_id, found in objects_in(transaction, databases, number, last):
                    more = True
                    objects += found
                    last = object_id
            last += b"\0"
            self._view.looked_up(RELEASED)
        with self._reading() as transaction:
            rows = self._rows_of(transaction, number)
            if rows is None:
                return None
            return recalled(transaction, databases, pack_id, value, rows, objects)

    # -- chunks by their cuts ---------------------------------------------------------------

    @contextmanager
    def cuts(self) -> Iterator[CutReader]:
        """Look chunks up by their cuts and ids, in one read transaction."""
        with self._reading() as transaction:

            def chunk(number: int, record: int) -> Cut | None:
                rows = self._rows_of(transaction, number)
                return None if rows is None else cut_of(rows, number, record)

            def find(chunk_id: bytes) -> Cut | None:
                value = transaction.get(chunk_id, db=self._view.databases[OBJECTS])
                best: Cut | None = None
                for number, record, *_ in places_in(value or b""):
                    found = chunk(number, record)
                    if found is not None and (best is None or found.depth < best.depth):
                        best = found
                return best

            yield CutReader(transaction, self._view.databases, chunk, find)

    def bases(self, pack_id: str, record: int) -> list[bytes]:
        """Return the ids of the chunks that a record is a delta against; empty for others."""
        databases = self._view.databases
        with self._reading() as transaction:
            value = transaction.get(bytes.fromhex(pack_id), db=databases[NUMBERS])
            if value is None:
                return []
            key = RECORD.pack(PACK.unpack(value)[0], record)
            return split_ids(bytes(transaction.get(key, b"", db=databases[BASES])))

    def agrees(self, pack: Pack) -> bool:
        """Return whether the view knows of a pack's records what its footer says."""
        databases = self._view.databases
        with self._reading() as transaction:
            value = transaction.get(bytes.fromhex(pack.id), db=databases[NUMBERS])
            if value is None or len(value) != PACK.size:
                return False
            number = PACK.unpack(value)[0]
            # Not from memory: it is what the view says now that deletions are decided by.
            rows = bytes(transaction.get(NUMBER.pack(number), b"", db=databases[PACKS]))
            return bytes(value) == pack_value(number, pack) and not differing_records(
                transaction, databases, number, rows, pack
            )

    def bases_of(self, records: Sequence[tuple[str, int]]) -> list[list[bytes]]:
        """Return for each (pack id, record) what `bases` does."""
        found: list[list[bytes]] = []
        databases = self._view.databases
        for part in _parts(records):
            with self._reading() as transaction:
                get = transaction.get
                numbers: dict[str, int] = {}
                for pack_id, record in part:
                    number = numbers.get(pack_id)
                    if number is None:
                        value = get(bytes.fromhex(pack_id), db=databases[NUMBERS])
                        number = numbers[pack_id] = 0 if value is None else PACK.unpack(value)[0]
                    ids = get(RECORD.pack(number, record), b"", db=databases[BASES])
                    found.append(split_ids(bytes(ids)))
            self._view.looked_up(len(part))
        return found

    def kind_and_salt(self, pack_id: str) -> tuple[int, bytes]:
        """Return the kind and the salt of a pack; raises ObjectMissing where it is unknown."""
        with self._reading() as transaction:
            value = transaction.get(bytes.fromhex(pack_id), db=self._view.databases[NUMBERS])
            if value is None:
                raise ObjectMissing(f"pack {pack_id[:12]}… is not there any more")
            _number, _size, kind, _count, salt = PACK.unpack(value)
            return kind, salt

    def records(self) -> Iterator[tuple[str, int, list[tuple[int, int, int]]]]:
        """Yield each pack's id, size and its records' (stored size, raw size, codec); bytes."""
        for number, pack_id in self.packs.items():
            with self._reading() as transaction:
                rows = self._rows_of(transaction, number)
                size = self._pack_sizes.get(number, 0)
            if rows is not None:
                yield pack_id, size, record_sizes(rows)

    def counts(self) -> list[tuple[str, int, int, int]]:
        """Return each pack's id, size in bytes, kind and number of objects."""
        with self._reading() as transaction:
            found: list[tuple[str, int, int, int]] = []
            for pack_id, value in transaction.cursor(db=self._view.databases[NUMBERS]):
                _number, size, kind, count, _salt = PACK.unpack(value)
                found.append((bytes(pack_id).hex(), size, kind, count))
            return found

    def objects(self) -> int:
        """Return the number of ids in the view, those of vanished packs included."""
        with self._reading() as transaction:
            count: int = transaction.stat(self._view.databases[OBJECTS])["entries"]
            return count

    def count_places(self, pack_ids: Container[str]) -> int:
        """Return the number of places in these packs: one for each object of each."""
        count = 0
        start = b""
        while True:
            with self._reading() as transaction:
                numbers = {n for n, pack_id in self._numbers.items() if pack_id in pack_ids}
                cursor = transaction.cursor(db=self._view.databases[OBJECTS])
                if not cursor.set_range(start):
                    return count
                rows = list(itertools.islice(cursor, RELEASED + 1))
                places = b"".join(
                    [value for _key, value in rows[:RELEASED] if not len(value) % PLACE.size]
                )
                count += sum([place[0] in numbers for place in PLACE.iter_unpack(places)])
                if len(rows) <= RELEASED:
                    return count
                start = bytes(rows[RELEASED][0])
            self._view.looked_up(RELEASED)

    def size(self) -> int:
        """Return the bytes that the view takes on disk."""
        return self._view.size()

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
            if bytes(transaction.get(b"forgotten", b"", db=databases[META])) == forgotten:
                transaction.put(snapshot_id.encode(), generation, db=databases[_COMPLETE])

        with self._writing:
            self._view.write(change)

    def close(self) -> None:
        """Close the view; pending packs are found again from their footers."""
        self._view.close()


def _parts(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut many look-ups into short transactions."""
    for start in range(0, len(ids), _LOOKED_UP):
        yield ids[start : start + _LOOKED_UP]
