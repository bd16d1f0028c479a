"""Read objects by id: find a place, read its record, decode, hash.

Never returns bytes whose hash is not the id that was asked for. A place that the index has
wrong leads to another place, or to a rebuild from the footers, not to an error.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence

from packstone.codec.compression import Compressor
from packstone.codec.delta import DELTA_CODECS, DeltaCoder
from packstone.codec.encryption import PackSealer, Sealer
from packstone.codec.hashing import Hasher
from packstone.errors import Damaged, ObjectMissing
from packstone.model import MIB, Buffer, ObjectType
from packstone.repository.index import Index
from packstone.repository.layout import pack_name
from packstone.repository.packs import read_pack
from packstone.repository.places import Place
from packstone.storage.base import Storage

_CACHE_SIZE = 32 * MIB  # of decoded records
_RANGE_SIZE = 8 * MIB  # of one coalesced read
_RANGE_RAW = 16 * MIB  # that it decodes to: one read of deltas must not be the work of all threads
_SEALS = 256  # packs whose keys are kept
_GAP = 64 * 1024  # reading over a gap this small is cheaper than a second read


class ObjectReader:
    """Read objects of one repository; safe to share between threads."""

    def __init__(
        self,
        storage: Storage,
        index: Index,
        hasher: Hasher,
        sealer: Sealer,
        codec: Compressor,
        warn: Callable[[str], None],
    ) -> None:
        self._storage = storage
        self._index = index
        self._hasher = hasher
        self._sealer = sealer
        self._seals: OrderedDict[str, PackSealer] = OrderedDict()
        self._codec = codec
        self._deltas = DeltaCoder(codec)
        self._warn = warn
        self._cache: OrderedDict[tuple[str, int], Buffer] = OrderedDict()
        self._cache_size = 0
        self._lock = threading.Lock()
        self._rebuilt = False
        self.may_refresh = True  # whether packs may have come that the view has not seen

    def get(self, kind: ObjectType, object_id: bytes) -> bytes:
        """Return an object's bytes; raises Damaged or ObjectMissing when no place gives them."""
        while True:
            failure: Damaged | ObjectMissing | None = None
            for place in self._index.find(object_id):
                try:
                    raw = self._record(place)
                    data = bytes(raw[place.inner_offset : place.inner_offset + place.size])
                    self.verify(kind, object_id, data, place)
                    return data
                except (Damaged, ObjectMissing) as error:
                    failure = failure or error
            if not self._rebuild_if_wrong(object_id):
                raise failure or ObjectMissing(
                    f"{kind.name.lower()} {object_id.hex()[:12]}… is in no pack",
                    hint="Run: packstone check",
                )

    def get_at(self, kind: ObjectType, object_id: bytes, place: Place) -> bytes:
        """Return an object's bytes from this very place; raises Damaged, ObjectMissing."""
        payload = self._storage.get_range(pack_name(place.pack_id), place.offset, place.stored_size)
        raw = memoryview(self.decode(place, payload))
        data = bytes(raw[place.inner_offset : place.inner_offset + place.size])
        self.verify(kind, object_id, data, place)
        return data

    def verify(self, kind: ObjectType, object_id: bytes, data: Buffer, place: Place) -> None:
        """Raise Damaged unless `data` hashes to `object_id`."""
        found = self._hasher.id(kind, data)
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

    def bases(self, ids: Sequence[bytes], depth: int) -> list[Buffer]:
        """Return the chunks that a delta of a depth stands on.

        Only places of less depth are taken, so there is an end to it whatever packs say. Raises
        Damaged where a base is missing or not what its id says.
        """
        return [self.base(base_id, depth) for base_id in ids]

    def base(self, base_id: bytes, depth: int, *, heal: bool = True) -> Buffer:
        """Return a chunk from a place of less than `depth` steps; raises Damaged.

        Without `heal` the view is left as it is, for whoever can do without the chunk.
        """
        while True:
            failure = f"base {base_id.hex()[:12]}… is in no pack"
            for place in self._index.find(base_id):
                if place.depth >= depth:
                    failure = f"base {base_id.hex()[:12]}… is {place.depth} steps from a whole one"
                    continue
                try:
                    raw = memoryview(self._record(place))
                    data = raw[place.inner_offset : place.inner_offset + place.size]
                    self.verify(ObjectType.CHUNK, base_id, data, place)
                    return data
                except (Damaged, ObjectMissing) as error:
                    failure = f"base {base_id.hex()[:12]}… cannot be had: {error.message}"
            if not heal or not self._rebuild_if_wrong(base_id):
                raise Damaged(failure)

    def _record(self, place: Place) -> Buffer:
        """Return a decoded record, from the cache or the pack."""
        key = (place.pack_id, place.offset)  # not the record: a wrong view may err in it
        with self._lock:
            raw = self._cache.get(key)
            if raw is not None:
                self._cache.move_to_end(key)
                return raw
        payload = self._storage.get_range(pack_name(place.pack_id), place.offset, place.stored_size)
        raw = self.decode(place, payload)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = raw
                self._cache_size += len(raw)
                while self._cache_size > _CACHE_SIZE and len(self._cache) > 1:
                    self._cache_size -= len(self._cache.popitem(last=False)[1])
        return raw

    def forget(self) -> None:
        """Drop decoded records, so that whoever doubts what was read reads it again."""
        with self._lock:
            self._cache.clear()
            self._cache_size = 0

    def decode(self, place: Place, payload: Buffer) -> Buffer:
        """Return the raw bytes of a record; raises Damaged with its place."""
        try:
            if len(payload) != place.stored_size:
                raise Damaged(f"{len(payload)} bytes, expected {place.stored_size}")
            opened = self._seal(place.pack_id).open(
                place.record, place.raw_size, place.codec, payload
            )
            if place.codec not in DELTA_CODECS:
                return self._codec.decode(place.codec, opened, place.raw_size)
            bases = self.bases(self._index.bases(place.pack_id, place.record), place.depth)
            return self._deltas.decode(place.codec, opened, bases, place.raw_size)
        except Damaged as error:
            raise Damaged(
                f"pack {place.pack_id[:12]}… is damaged at byte {place.offset} (record "
                f"{place.record}): {error.message}",
                name=pack_name(place.pack_id),
                offset=place.offset,
                record=place.record,
                hint="Nothing was changed. Run: packstone check --read-data",
            ) from error

    def _seal(self, pack_id: str) -> PackSealer:
        """Return the keys of a pack; those used lately are kept."""
        with self._lock:
            seal = self._seals.get(pack_id)
            if seal is not None:
                self._seals.move_to_end(pack_id)
                return seal
        kind, salt = (0, b"") if self._sealer.is_plain else self._index.kind_and_salt(pack_id)
        seal = self._sealer.pack(kind, salt)
        with self._lock:
            self._seals[pack_id] = seal
            if len(self._seals) > _SEALS:
                self._seals.popitem(last=False)
        return seal

    def ranges(self, places: Iterable[Place]) -> Iterator[list[Place]]:
        """Group the places of one pack, ascending by offset, into ranges worth one read."""
        group: list[Place] = []
        raw_size = 0
        for place in places:
            if group and (
                place.offset > group[-1].offset + group[-1].stored_size + _GAP
                or place.offset + place.stored_size - group[0].offset > _RANGE_SIZE
                or raw_size + place.raw_size > _RANGE_RAW
            ):
                yield group
                group = []
                raw_size = 0
            group.append(place)
            raw_size += place.raw_size
        if group:
            yield group

    def read_range(self, group: Sequence[Place]) -> Iterator[tuple[Place, memoryview]]:
        """Read a range once and yield each record's place and stored bytes."""
        start = group[0].offset
        size = group[-1].offset + group[-1].stored_size - start
        data = memoryview(self._storage.get_range(pack_name(group[0].pack_id), start, size))
        for place in group:
            at = place.offset - start
            yield place, data[at : at + place.stored_size]

    def _rebuild_if_wrong(self, object_id: bytes) -> bool:
        """Bring the view up to date, or rebuild it where footers contradict it.

        Returns whether looking again makes sense. Rebuilds once at most, and looks for new
        packs once for each listing of snapshots: damage must not make every read slow.
        """
        places = self._index.find(object_id)
        with self._lock:
            allowed = not self._rebuilt if places else self.may_refresh
            if places:
                self._rebuilt = True
            else:
                self.may_refresh = False
        if not allowed:
            return False
        if not places:
            self._index.refresh(self._storage)
            if self._index.find(object_id):
                return True
            with self._lock:
                allowed, self._rebuilt = not self._rebuilt, True
            if not allowed:
                return False
            self._index.reset()
            self._index.refresh(self._storage)
            return bool(self._index.find(object_id))
        if all(self._agrees(place, object_id) for place in places):
            with self._lock:
                self._rebuilt = False
            return False
        self._warn("the index disagrees with the packs; it is rebuilt from their footers")
        self._index.reset()
        self._index.refresh(self._storage)
        return True

    def _agrees(self, place: Place, object_id: bytes) -> bool:
        """Return whether the pack's own footer says what the view says of a place."""
        try:
            size = self._storage.size(pack_name(place.pack_id))
            pack = read_pack(self._storage, place.pack_id, size, self._sealer)
        except (Damaged, ObjectMissing):
            return True  # the pack is at fault, not the view
        if place.record >= len(pack.rows):
            return False
        if (pack.kind, pack.salt) != self._index.kind_and_salt(place.pack_id):
            with self._lock:
                self._seals.pop(place.pack_id, None)
            return False
        row = pack.rows[place.record]
        inner = 0
        for found_id, found_size, _type in row.object_rows():
            if (found_id, inner, found_size) == (object_id, place.inner_offset, place.size):
                stated = (row.offset, row.stored_size, row.raw_size, row.codec, row.depth)
                bases = self._index.bases(place.pack_id, place.record)
                return bases == row.bases and stated == (
                    place.offset,
                    place.stored_size,
                    place.raw_size,
                    place.codec,
                    place.depth,
                )
            inner += found_size
        return False
