"""Read objects by id: find a place, read its record, decode, hash.

Never returns bytes whose hash is not the id that was asked for. What a delta stands on is not
compared on the way: the hash of what is made of it tells, and where that is wrong the object is
read again with every base compared. A place that the index has wrong leads to another place, or
to a rebuild from the footers, not to an error.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from packstone.codec.compression import Compressor
from packstone.codec.delta import DELTA_CODECS
from packstone.codec.encryption import Sealer
from packstone.codec.hashing import Hasher
from packstone.model import MIB, Buffer, ObjectType
from packstone.repository.ancestry import Ancestry
from packstone.repository.attempt import REFUSED, Attempt, Failures, verify
from packstone.repository.footers import Footers
from packstone.repository.index import Index
from packstone.repository.layout import pack_name
from packstone.repository.places import Place
from packstone.repository.records import RecordReader, piece
from packstone.storage.base import Storage

_CACHE_SIZE = 32 * MIB  # of decoded records
_MOST_DOUBTS = 16  # after which what failed stays failed
_MOST_FAILURES = 10_000  # that are remembered


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
        self._records = RecordReader(storage, index, sealer, codec)
        self._footers = Footers(storage, index, sealer)
        self._warn = warn
        self._cache: OrderedDict[tuple[str, int], Buffer] = OrderedDict()
        self._cache_size = 0
        self._lock = threading.Lock()
        self._failures: Failures = {}
        self._healing = threading.Lock()  # one looks whether the view is wrong, others wait
        self._heals = 0  # changes of the view by this reader
        self._rebuilt = False
        self._searched = False
        self._may_refresh = True
        self._doubts = 0

    @property
    def may_refresh(self) -> bool:
        """Whether packs may have come that the view has not seen, or damaged ones got better."""
        return self._may_refresh

    @may_refresh.setter
    def may_refresh(self, value: bool) -> None:
        self._may_refresh = value
        self._failures = {}

    # -- single objects ---------------------------------------------------------------------

    def get(self, kind: ObjectType, object_id: bytes) -> bytes:
        """Return an object's bytes; raises Damaged or ObjectMissing when no place gives them."""
        return self._get(kind, object_id, None, heal=True)

    def read_record(self, place: Place) -> Buffer:
        """Read and decode a record from the pack, never from memory; Damaged, ObjectMissing."""
        return self.decode(place, self._records.read(place))

    def get_at(self, kind: ObjectType, object_id: bytes, place: Place) -> bytes:
        """Return an object's bytes from this very place; raises Damaged, ObjectMissing."""
        try:
            data = piece(self.read_record(place), place)
            self.verify(kind, object_id, data, place)
            return data
        except REFUSED:
            return self._attempt().read(kind, object_id, [place])

    def base(self, base_id: bytes, depth: int, *, heal: bool = True) -> bytes:
        """Return a chunk from a place of less than `depth` steps; raises Damaged.

        Without `heal` the view is left as it is, for whoever can do without the chunk.
        """
        return self._get(ObjectType.CHUNK, base_id, depth, heal=heal)

    def pack_below(self, chunk_id: bytes, depth: int) -> str | None:
        """Return the pack from which a chunk of less than `depth` steps is read, if any."""
        places = self._index.find(chunk_id)
        return places[0].pack_id if places and places[0].depth < depth else None

    def is_quick(self, chunk_id: bytes, depth: int) -> bool:
        """Return whether a chunk, and what it stands on, can be had without waiting or paying."""
        for place in self._index.find(chunk_id):
            if place.depth < depth:
                name = pack_name(place.pack_id)
                return self._storage.is_quick(name, place.offset, place.stored_size) and all(
                    self.is_quick(base_id, place.depth)
                    for base_id in self._index.bases(place.pack_id, place.record)
                )
        return False

    def bases(self, ids: Sequence[bytes], depth: int) -> list[bytes]:
        """Return the chunks that a delta of a depth stands on, each compared with its id.

        Only places of less depth are taken, so there is an end to it whatever packs say. Raises
        Damaged where a base is missing or not what its id says.
        """
        return [self.base(base_id, depth) for base_id in ids]

    def _get(self, kind: ObjectType, object_id: bytes, depth: int | None, *, heal: bool) -> bytes:
        """Return an object, of less than `depth` steps if that is given."""
        while True:
            heals = self._heals
            attempt = self._attempt()
            places = self._index.find(object_id)
            if places and (depth is None or places[0].depth < depth):
                try:
                    data = piece(self._record(places[0]), places[0])
                    self.verify(kind, object_id, data, places[0])
                    return data
                except REFUSED as error:
                    # Nothing but this place is at fault, and reading again brings the same.
                    if places[0].codec not in DELTA_CODECS and not self._storage.is_far:
                        attempt.failed[object_id, places[0]] = error
            try:
                if depth is None:
                    return attempt.read(kind, object_id, places)
                return attempt.base(object_id, depth)
            except REFUSED:
                # Without a look at the footers it is not known whether the view was at fault.
                if not heal or not self._heal(heals, attempt):
                    raise

    def delta(
        self, place: Place, payload: Buffer, base_ids: Sequence[bytes], *, heal: bool = True
    ) -> bytes:
        """Return what a delta makes of bases that are what their ids say; raises Damaged.

        For whoever knows from a footer what the bases are, and has seen that `decode` fails.
        Without `heal` the view is left as it is, for whoever has compared it with the footers.
        """
        while True:
            heals = self._heals
            attempt = self._attempt()
            try:
                return attempt.delta(place, payload, base_ids)
            except REFUSED:
                if not heal:
                    self._remember(attempt)
                    raise
                if not self._heal(heals, attempt):
                    raise

    def forget(self) -> None:
        """Drop what was read, so that whoever doubts it reads it again.

        What failed is tried again a few times only: a repository full of damage must not make
        each look at it as long as all of them.
        """
        self._doubts += 1
        if self._doubts <= _MOST_DOUBTS:
            self._failures = {}
        self.release()

    def release(self) -> None:
        """Drop records that are kept in memory, for whoever will not want them again."""
        with self._lock:
            self._cache.clear()
            self._cache_size = 0

    def verify(self, kind: ObjectType, object_id: bytes, data: Buffer, place: Place) -> None:
        """Raise Damaged unless `data` hashes to `object_id`."""
        verify(self._hasher, kind, object_id, data, place)

    def _attempt(self) -> Attempt:
        return Attempt(self._records, self._index, self._hasher, self._failures)

    def _record(self, place: Place) -> Buffer:
        """Return a decoded record, from the cache or the pack."""
        key = (place.pack_id, place.offset)  # not the record: a wrong view may err in it
        with self._lock:
            raw = self._cache.get(key)
            if raw is not None:
                self._cache.move_to_end(key)
                return raw
        raw = self.decode(place, self._records.read(place))
        with self._lock:
            if key not in self._cache:
                self._cache[key] = raw
                self._cache_size += len(raw)
                while self._cache_size > _CACHE_SIZE and len(self._cache) > 1:
                    self._cache_size -= len(self._cache.popitem(last=False)[1])
        return raw

    # -- many records -----------------------------------------------------------------------

    def ranges(self, places: Iterable[Place]) -> Iterator[list[Place]]:
        """Group the places of one pack, ascending by offset, into ranges worth one read."""
        return self._records.ranges(places)

    def announce(self, groups: Sequence[Sequence[Place]]) -> None:
        """Say which ranges will be read soon: where each takes long they are fetched before."""
        if self._storage.is_far:
            ancestry = self.ancestry(place for group in groups for place in group)
            self._records.announce([*ancestry.ranges(), *groups])

    def read_range(self, group: Sequence[Place]) -> Iterator[tuple[Place, memoryview]]:
        """Read a range once and yield each record's place and stored bytes."""
        return self._records.read_range(group)

    def ancestry(
        self, places: Iterable[Place], bases: Iterable[list[bytes]] | None = None
    ) -> Ancestry:
        """Look up what the deltas among some places stand on, all together.

        `bases` are those that footers name, if all of the places are deltas.
        """
        deltas = [place for place in places if place.codec in DELTA_CODECS]
        return Ancestry(self._records, self._index, deltas, bases)

    def decode(self, place: Place, payload: Buffer, ancestry: Ancestry | None = None) -> Buffer:
        """Return the raw bytes of a record, to be compared with an id; raises Damaged.

        `ancestry` is that of several deltas, this one among them.
        """
        if place.codec not in DELTA_CODECS:
            return self._records.whole(place, payload)
        return (ancestry or self.ancestry([place])).decode(place, payload)

    # -- a wrong view -----------------------------------------------------------------------

    def rebuild(self) -> None:
        """Make the view anew from the footers; what it lacks then is not looked for again."""
        with self._healing:
            self._index.reset()
            self._index.refresh(self._storage)
            self._rebuilt, self._may_refresh = True, False
            self._healed()

    def _heal(self, heals: int, attempt: Attempt) -> bool:
        """Bring the view up to date, or rebuild it where footers contradict what it said.

        Returns whether looking again makes sense. Rebuilds once at most, and looks for new
        packs once for each listing of snapshots: damage must not make every read slow.
        """
        with self._healing:
            if self._heals != heals:
                return True  # another thread has done it meanwhile
            if attempt.lacking and self._may_refresh:
                self._may_refresh = False
                self._index.refresh(self._storage)
                if any(self._index.find(each) for each in attempt.lacking):
                    return self._healed()
            if not self._rebuilt:
                wrong = not all(self._footers.agree(*each) for each in attempt.tried)
                if wrong:
                    self._warn(
                        "the index disagrees with the packs; it is rebuilt from their footers"
                    )
                if wrong or self._is_listed(attempt.lacking):
                    self._rebuilt = True
                    self._index.reset()
                    self._index.refresh(self._storage)
                    return self._healed()
            self._remember(attempt)
            return False

    def _is_listed(self, lacking: Collection[bytes]) -> bool:
        """Return whether packs have what the view lacks; looked up once.

        If not, a view made anew would lack it too, and besides what only this one knows: of packs
        whose footers are gone, and whose records `repair packs` can still save.
        """
        if not lacking or self._searched:
            return False
        self._searched = True
        return self._footers.list_any(lacking)

    def _remember(self, attempt: Attempt) -> None:
        """Keep why places gave nothing: damage must not be looked for again and again."""
        if len(self._failures) + len(attempt.failed) > _MOST_FAILURES:
            self._failures = {}
        self._failures.update(attempt.failed)

    def _healed(self) -> bool:
        self._heals += 1
        self._failures = {}
        self._records.forget_seals()
        self.release()
        return True
