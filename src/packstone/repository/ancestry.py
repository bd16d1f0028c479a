"""What deltas stand on: found in a few looks, read in ranges, each base made once.

The fast way, for as many deltas as one read gives. Takes each base from its place of least depth
and compares nothing with ids: the id of what is made in the end tells whether all of it was
right. Whatever fails here is tried again one by one (attempt.py). Invariant: bases come from
places of less depth, so decoding ends; what one delta stands on is at most MAX_STANDING bytes,
so it ends soon (docs/format.md §4).
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence

from packstone.codec.delta import DELTA_CODECS, Text, joined
from packstone.errors import Damaged
from packstone.model import MIB, Buffer
from packstone.repository.index import Index
from packstone.repository.packs import DATA, MAX_DEPTH, MAX_STANDING
from packstone.repository.places import Place
from packstone.repository.records import RecordReader, located, piece

_MOST_PLANNED = 512 * MIB  # of bases for one range: far above what sound ones have
_MOST_COUNTED = 1_000_000  # bases, each time they are
_A_BASE = 4096  # bytes that planning a base is counted as beside its own
_READ = MIB  # of bases in one read
_HELD = 8 * MIB  # of stored bytes
_HELD_RAW = 64 * MIB  # of bases that wait for another delta


class Ancestry:
    """The bases of some deltas, themselves deltas or not; for one thread."""

    def __init__(
        self,
        records: RecordReader,
        index: Index,
        deltas: Iterable[Place],
        bases: Iterable[list[bytes]] | None = None,
    ) -> None:
        """`bases` are those that footers name; without them it is asked of the view."""
        self._records = records
        self._index = index
        self._below: dict[tuple[str, int], list[bytes]] = {}  # pack, record → ids of its bases
        self._places: dict[bytes, Place | None] = {}
        self._uses: defaultdict[bytes, int] = defaultdict(int)  # that are still to come
        self._texts: dict[bytes, Text] = {}
        self._texts_size = 0
        self._weights: dict[tuple[str, int], int] = {}  # bytes that a delta stands on
        self._counted = 0
        self._kinds: dict[str, bool] = {}
        self._plan(list(deltas), bases)
        self._groups: dict[tuple[str, int], list[Place]] = {}
        self._stored: OrderedDict[tuple[str, int], dict[int, memoryview]] = OrderedDict()
        self._stored_size = 0
        self._group()

    def _plan(self, asked: list[Place], known: Iterable[list[bytes]] | None) -> None:
        """Find the bases of deltas, and theirs, one step of all together."""
        planned = 0
        for _ in range(MAX_DEPTH + 1):
            if not asked or planned > _MOST_PLANNED:
                return  # what was not planned cannot be decoded here
            keys = [(place.pack_id, place.record) for place in asked]
            found = list(known or self._index.bases_of(keys))
            known = None
            self._below.update(zip(keys, found, strict=True))
            fresh: dict[bytes, None] = {}
            for base_ids in found:
                for base_id in base_ids:
                    self._uses[base_id] += 1
                    if base_id not in self._places:
                        fresh[base_id] = None
            asked = []
            for base_id, place in zip(fresh, self._index.find_many(list(fresh)), strict=True):
                sound = place is not None and self._holds_chunks(place.pack_id)
                self._places[base_id] = place if sound else None
                if place is not None and sound:
                    planned += place.raw_size + _A_BASE
                    if place.codec in DELTA_CODECS:
                        asked.append(place)

    def _holds_chunks(self, pack_id: str) -> bool:
        """Return whether what a pack holds may be a base: pages may not."""
        found = self._kinds.get(pack_id)
        if found is None:
            found = self._kinds[pack_id] = self._index.kind_and_salt(pack_id)[0] == DATA
        return found

    def _group(self) -> None:
        """Part the bases into ranges that are worth one read."""
        packs: defaultdict[str, dict[int, Place]] = defaultdict(dict)
        for place in self._places.values():
            if place is not None:
                packs[place.pack_id][place.offset] = place
        for places in packs.values():
            ordered = [places[offset] for offset in sorted(places)]
            for group in self._records.ranges(ordered, _READ):
                for place in group:
                    self._groups[place.pack_id, place.offset] = group

    def ranges(self) -> list[list[Place]]:
        """Return what will be read of packs for the bases of all the deltas."""
        return list({id(group): group for group in self._groups.values()}.values())

    def decode(self, place: Place, payload: Buffer) -> bytes:
        """Return the chunk of one of the deltas; raises Damaged, ObjectMissing."""
        if self._texts_size > _HELD_RAW:
            self._texts.clear()
            self._texts_size = 0
        return joined(self._delta(place, payload))

    def _delta(self, place: Place, payload: Buffer) -> Text:
        self._weigh(place)  # before any of it is made
        bases = [self._base(base_id) for base_id in self._below[place.pack_id, place.record]]
        return self._records.delta(place, payload, bases)

    def _base(self, base_id: bytes) -> Text:
        """Return a base once more; kept as long as another delta needs it."""
        place = self._places[base_id]
        assert place is not None, "weighed before"
        self._uses[base_id] -= 1
        text = self._texts.get(base_id)
        if text is None:
            text = self._make(place)
            if self._uses[base_id] > 0:
                self._texts[base_id] = text
                self._texts_size += place.raw_size
        elif self._uses[base_id] <= 0:
            del self._texts[base_id]
            self._texts_size -= place.raw_size
        return text

    def _make(self, place: Place) -> Text:
        payload = self._payload(place)
        if place.codec not in DELTA_CODECS:
            return piece(self._records.whole(place, payload), place)
        text = self._delta(place, payload)
        return text if place.size == len(text) else piece(text, place)

    def _weigh(self, place: Place) -> int:
        """Return what a delta stands on, in bytes; raises Damaged where that is unsound.

        What several of its bases share may count more than once, unless it would be too much.
        """
        key = (place.pack_id, place.record)
        total = self._weights.get(key, -1)
        if total >= 0:
            return total
        base_ids = self._below.get(key)
        if not base_ids:
            raise located(place, Damaged("its bases are not known"))
        total = 0
        for base_id in base_ids:
            base = self._places.get(base_id)
            if base is None or base.depth >= place.depth:
                text = f"no base {base_id.hex()[:12]}… of less than {place.depth} steps"
                raise located(place, Damaged(text))
            total += base.raw_size
            if base.codec in DELTA_CODECS:
                total += self._weigh(base)
        if total > MAX_STANDING:
            total = sum(each.raw_size for each in self._all_below(base_ids))
        if total > MAX_STANDING:
            raise located(place, stands_on_too_much())
        self._weights[key] = total
        return total

    def _all_below(self, base_ids: Sequence[bytes]) -> Iterable[Place]:
        seen: dict[bytes, Place] = {}
        waiting = list(base_ids)
        while waiting:
            base_id = waiting.pop()
            place = self._places[base_id]
            if base_id not in seen and place is not None:
                seen[base_id] = place
                waiting += self._below.get((place.pack_id, place.record), ())
        self._counted += len(seen)
        if self._counted > _MOST_COUNTED:
            raise Damaged("it is one of very many that stand on much")
        return seen.values()

    def _payload(self, place: Place) -> Buffer:
        """Return the stored bytes of a base; what lies beside it is read with it."""
        group = self._groups[place.pack_id, place.offset]
        key = (place.pack_id, group[0].offset)
        stored = self._stored.get(key)
        if stored is None:
            read = self._records.read_range(group)
            stored = {each.offset: payload for each, payload in read}
            self._stored[key] = stored
            self._stored_size += _size(group)
            while self._stored_size > _HELD and len(self._stored) > 1:
                (pack_id, offset), _ = self._stored.popitem(last=False)
                self._stored_size -= _size(self._groups[pack_id, offset])
        else:
            self._stored.move_to_end(key)
        return stored[place.offset]


def standing(index: Index, base_ids: Sequence[bytes]) -> int:
    """Return what a delta of these bases would stand on, in bytes; more than may be, if it is."""
    total = 0
    seen: set[bytes] = set()
    asked = list(dict.fromkeys(base_ids))
    while asked and total <= MAX_STANDING:
        seen.update(asked)
        places = [place for place in index.find_many(asked) if place is not None]
        total += sum(place.raw_size for place in places)
        deltas = [(place.pack_id, place.record) for place in places if place.depth]
        below = dict.fromkeys(each for ids in index.bases_of(deltas) for each in ids)
        asked = [each for each in below if each not in seen]
    return total


def stands_on_too_much() -> Damaged:
    """Return the refusal of a delta that no reader needs to make."""
    return Damaged(f"it stands on more than {MAX_STANDING // MIB} MiB of other chunks")


def _size(group: Sequence[Place]) -> int:
    return group[-1].offset + group[-1].stored_size - group[0].offset
