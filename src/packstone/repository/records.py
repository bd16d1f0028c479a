"""Read records of packs: coalesced ranges, seals, codecs.

Knows places, not ids: what is returned was decoded and not yet compared with anything. What
deltas are made from is the caller's affair (ancestry.py). Implements docs/format.md §4, §10.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from packstone.codec.compression import Compressor
from packstone.codec.delta import DeltaCoder, Text, joined
from packstone.codec.encryption import PackSealer, Sealer
from packstone.errors import Damaged, PackstoneError, UnsupportedFormat
from packstone.model import MIB, Buffer
from packstone.repository.index import Index
from packstone.repository.layout import pack_name
from packstone.repository.places import Place
from packstone.storage.base import Storage

_RANGE_SIZE = 8 * MIB  # of one coalesced read
_RANGE_RAW = 16 * MIB  # that it decodes to: one read of deltas must not be the work of all threads
_SEALS = 256  # packs whose keys are kept
_GAP = 64 * 1024  # reading over a gap this small is cheaper than a second read


class RecordReader:
    """Read records of one repository; safe to share between threads."""

    def __init__(self, storage: Storage, index: Index, sealer: Sealer, codec: Compressor) -> None:
        self._storage = storage
        self._index = index
        self._sealer = sealer
        self._codec = codec
        self._deltas = DeltaCoder(codec)
        self._seals: OrderedDict[str, PackSealer] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, place: Place) -> bytes:
        """Return the stored bytes of one record."""
        return self._storage.get_range(pack_name(place.pack_id), place.offset, place.stored_size)

    def read_again(self, place: Place, payload: Buffer) -> bytes | None:
        """Return other bytes than `payload`, if a second look brings some; None if not.

        Where it is far and comes through a cache, what is wrong may be so on this side only.
        """
        if not self._storage.is_far:
            return None
        name = pack_name(place.pack_id)
        self._storage.drop_cached(name)
        again = self._storage.get_once(name, place.offset, place.stored_size)
        return None if again == payload else again

    def announce(self, groups: Iterable[Sequence[Place]]) -> None:
        """Let the storage fetch ranges that will be read soon."""
        self._storage.announce(
            (
                pack_name(group[0].pack_id),
                group[0].offset,
                group[-1].offset + group[-1].stored_size - group[0].offset,
            )
            for group in groups
        )

    def ranges(
        self, places: Iterable[Place], most: int = _RANGE_SIZE, most_raw: int = _RANGE_RAW
    ) -> Iterator[list[Place]]:
        """Group the places of one pack, ascending by offset, into ranges worth one read.

        Of at most `most` bytes that decode to at most `most_raw`, or of one record.
        """
        group: list[Place] = []
        raw_size = 0
        for place in places:
            if group and (
                place.offset > group[-1].offset + group[-1].stored_size + _GAP
                or place.offset + place.stored_size - group[0].offset > most
                or raw_size + place.raw_size > most_raw
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

    def whole(self, place: Place, payload: Buffer) -> Buffer:
        """Return the raw bytes of a record that is no delta; raises Damaged with its place."""
        try:
            return self._codec.decode(place.codec, self._opened(place, payload), place.raw_size)
        except (Damaged, UnsupportedFormat) as error:
            raise located(place, error) from error

    def delta(self, place: Place, payload: Buffer, bases: Sequence[Text]) -> Text:
        """Return the chunk that a record makes from its bases; raises Damaged with its place."""
        try:
            opened = self._opened(place, payload)
            return self._deltas.compose(place.codec, opened, bases, place.raw_size)
        except (Damaged, UnsupportedFormat) as error:
            raise located(place, error) from error

    def _opened(self, place: Place, payload: Buffer) -> Buffer:
        if len(payload) != place.stored_size:
            raise Damaged(f"{len(payload)} bytes, expected {place.stored_size}")
        seal = self._seal(place.pack_id)
        return seal.open(place.record, place.raw_size, place.codec, payload)

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

    def forget_seals(self) -> None:
        """Make the keys of packs anew: the view may have had a wrong salt."""
        with self._lock:
            self._seals.clear()


def piece(text: Buffer | Text, place: Place) -> bytes:
    """Return the object at a place from its decoded record, in one piece."""
    raw = text if isinstance(text, (bytes, memoryview, bytearray)) else joined(text)
    if place.inner_offset == 0 and place.size == len(raw) and isinstance(raw, bytes):
        return raw
    return bytes(memoryview(raw)[place.inner_offset : place.inner_offset + place.size])


def located(place: Place, error: PackstoneError) -> PackstoneError:
    """Return what is wrong with the record at a place as an error that names it."""
    text = f"pack {place.pack_id[:12]}… is damaged at byte {place.offset} (record {place.record})"
    if isinstance(error, UnsupportedFormat):
        return UnsupportedFormat(
            f"pack {place.pack_id[:12]}… record {place.record}: {error.message}"
        )
    return Damaged(
        f"{text}: {error.message}",
        name=pack_name(place.pack_id),
        offset=place.offset,
        record=place.record,
        hint="Nothing was changed. Run: packstone check --read-data",
    )
