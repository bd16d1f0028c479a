"""Read one object the hard way: from every place it has, with every base compared with its id.

For what the fast way (ancestry.py) did not give: a place is damaged, or the view is wrong. Says
what was at fault, and what it was told on the way, which tells whether the view is to be made
anew. Invariants: each place is tried once and no more is decoded than a few times what sound
chunks stand on, so there is an end to it whatever packs say; a base comes from a place of less
depth.
"""

from __future__ import annotations

from collections.abc import Sequence

from packstone.codec.delta import DELTA_CODECS, joined
from packstone.codec.hashing import Hasher
from packstone.errors import Damaged, ObjectMissing, PackstoneError, UnsupportedFormat
from packstone.model import MIB, Buffer, ObjectType
from packstone.repository.ancestry import stands_on_too_much
from packstone.repository.index import Index
from packstone.repository.layout import pack_name
from packstone.repository.packs import MAX_STANDING
from packstone.repository.places import Place
from packstone.repository.records import RecordReader, located, piece

Failures = dict[tuple[bytes, Place], PackstoneError]  # why an object is not to be had from a place
REFUSED = (Damaged, ObjectMissing, UnsupportedFormat)
_MOST_DECODED = 512 * MIB  # from places that turn out to be good or not


class Attempt:
    """One read; `tried` and `lacking` are what the view said of places, and of ids without one."""

    def __init__(
        self, records: RecordReader, index: Index, hasher: Hasher, known: Failures
    ) -> None:
        """`known` are places that gave nothing before."""
        self.failed: Failures = {}
        self.tried: dict[tuple[bytes, Place], None] = {}
        self.lacking: set[bytes] = set()
        self._records = records
        self._index = index
        self._hasher = hasher
        self._known = known
        self._good: dict[bytes, tuple[int, bytes]] = {}  # chunk id → depth it was had from, bytes
        self._standing = 0
        self._decoded = 0
        self._spent = False  # then what fails might have been had by itself

    def read(self, kind: ObjectType, object_id: bytes, places: Sequence[Place]) -> bytes:
        """Return an object from the first place that gives it; raises why the first does not."""
        failure: PackstoneError | None = None
        for place in places:
            try:
                return self._from(kind, object_id, place)
            except REFUSED as error:
                failure = failure or error
        if failure is None:
            self.lacking.add(object_id)
            raise ObjectMissing(
                f"{kind.name.lower()} {object_id.hex()[:12]}… is in no pack",
                hint="Run: packstone check",
            )
        raise failure

    def delta(self, place: Place, payload: Buffer, base_ids: Sequence[bytes]) -> bytes:
        """Return what a delta makes of bases that are what their ids say; raises Damaged."""
        try:
            bases = [self.base(base_id, place.depth) for base_id in base_ids]
        except Damaged as error:
            raise located(place, error) from error
        self._count(place)
        return joined(self._records.delta(place, payload, bases))

    def base(self, base_id: bytes, depth: int) -> bytes:
        """Return a chunk from a place of less than `depth` steps; raises Damaged."""
        had = self._good.get(base_id)
        if had is not None and had[0] < depth:
            return had[1]
        failure = ""
        places = self._index.find(base_id)
        for place in places:
            if place.depth >= depth:
                self.tried[base_id, place] = None
                steps = f"base {base_id.hex()[:12]}… is {place.depth} steps from a whole one"
                failure = failure or steps
                continue
            try:
                data = self._from(ObjectType.CHUNK, base_id, place)
            except REFUSED as error:
                failure = f"base {base_id.hex()[:12]}… cannot be had: {error.message}"
                continue
            if had is None:
                self._standing += len(data)
            if self._standing > MAX_STANDING:
                self._spent = True
                raise stands_on_too_much()
            self._good[base_id] = (place.depth, data)
            return data
        if not places:
            self.lacking.add(base_id)
            failure = f"base {base_id.hex()[:12]}… is in no pack"
        raise Damaged(failure)

    def _from(self, kind: ObjectType, object_id: bytes, place: Place) -> bytes:
        """Return an object from one place, which is tried once."""
        key = (object_id, place)
        self.tried[key] = None
        known = self.failed.get(key) or self._known.get(key)
        if known is not None:
            raise known
        try:
            payload = self._records.read(place)
            try:
                data = self._made(kind, object_id, place, payload)
            except Damaged:
                again = self._records.read_again(place, payload)
                if again is None:
                    raise
                data = self._made(kind, object_id, place, again)
        except REFUSED as error:
            if not self._spent:
                self.failed[key] = error
            raise
        return data

    def _made(self, kind: ObjectType, object_id: bytes, place: Place, payload: Buffer) -> bytes:
        """Return an object from the stored bytes of its record, verified."""
        if place.codec in DELTA_CODECS:
            data = self.delta(place, payload, self._index.bases(place.pack_id, place.record))
        else:
            self._count(place)
            data = piece(self._records.whole(place, payload), place)
        verify(self._hasher, kind, object_id, data, place)
        return data

    def _count(self, place: Place) -> None:
        self._decoded += place.raw_size
        if self._decoded > _MOST_DECODED:
            self._spent = True
            raise located(place, stands_on_too_much())


def verify(hasher: Hasher, kind: ObjectType, object_id: bytes, data: Buffer, place: Place) -> None:
    """Raise Damaged unless `data` hashes to `object_id`."""
    found = hasher.id(kind, data)
    if found != object_id:
        raise Damaged(
            f"pack {place.pack_id[:12]}… is damaged at byte {place.offset} (record "
            f"{place.record}): hash {found.hex()[:12]}…, expected {object_id.hex()[:12]}…",
            name=pack_name(place.pack_id),
            offset=place.offset,
            record=place.record,
            expected=object_id.hex(),
            found=found.hex(),
            hint="Nothing was changed. Run: packstone check --read-data",
        )
