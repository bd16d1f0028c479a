"""Compare what the view says with footers: is it the view that is wrong, or a pack?

Keeps the last footers it read: many objects of one pack may be asked about. Reads only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from packstone.codec.encryption import Sealer
from packstone.errors import Damaged, ObjectMissing, UnsupportedFormat
from packstone.repository.index import Index
from packstone.repository.layout import list_ids, pack_name
from packstone.repository.pack_reading import read_packs
from packstone.repository.packs import Pack, read_pack
from packstone.repository.places import Place
from packstone.storage.base import Storage

_KEPT = 200_000  # records and objects in the footers that are kept, or one footer


class Footers:
    """The footers of some packs; for one thread."""

    def __init__(self, storage: Storage, index: Index, sealer: Sealer) -> None:
        self._storage = storage
        self._index = index
        self._sealer = sealer
        self._packs: OrderedDict[str, tuple[Pack | None, int]] = OrderedDict()
        self._size = 0

    def agree(self, object_id: bytes, place: Place) -> bool:
        """Return whether the pack's own footer says what the view says of a place.

        Of a pack whose footer cannot be read, nothing is known against the view.
        """
        pack = self._pack(place.pack_id)
        if pack is None:
            return True
        try:
            if (pack.kind, pack.salt) != self._index.kind_and_salt(place.pack_id):
                return False
        except ObjectMissing:
            return False
        if place.record >= len(pack.rows):
            return False
        row = pack.rows[place.record]
        stated = (row.offset, row.stored_size, row.raw_size, row.codec, row.depth)
        said = (place.offset, place.stored_size, place.raw_size, place.codec, place.depth)
        if stated != said or row.bases != self._index.bases(place.pack_id, place.record):
            return False
        inner = 0
        for found_id, size, _type in row.object_rows():
            if (found_id, inner, size) == (object_id, place.inner_offset, place.size):
                return True
            inner += size
        return False

    def list_any(self, ids: Collection[bytes]) -> bool:
        """Return whether some pack that is there lists one of these objects."""
        wanted = frozenset(ids)
        there = dict(list_ids(self._storage, "packs"))
        return any(
            object_id in wanted
            for found in read_packs(self._storage, sorted(there), there, self._sealer)
            if isinstance(found, Pack)
            for row in found.rows
            for object_id, _size, _type in row.object_rows()
        )

    def _pack(self, pack_id: str) -> Pack | None:
        kept = self._packs.get(pack_id)
        if kept is not None:
            self._packs.move_to_end(pack_id)
            return kept[0]
        pack: Pack | None = None
        size = 1
        try:
            stored_size = self._storage.size(pack_name(pack_id))
            pack = read_pack(self._storage, pack_id, stored_size, self._sealer)
            size = sum(1 + len(row.objects) // 37 for row in pack.rows)
        except (Damaged, ObjectMissing, UnsupportedFormat):
            pass  # the pack is at fault, not the view
        self._packs[pack_id] = (pack, size)
        self._size += size
        while self._size > _KEPT and len(self._packs) > 1:
            self._size -= self._packs.popitem(last=False)[1][1]
        return pack
