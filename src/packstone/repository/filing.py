"""File packs, places and cuts in the view, inside write transactions that the index hands out.

Knows how things are filed, not which packs are there. Invariant: numbers of packs are never
given twice, for places in packs that are gone keep theirs.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from packstone.repository.cuts import BASES, CUTS, drop_bases, drop_cuts, put_bases, put_cuts
from packstone.repository.packs import Pack
from packstone.repository.places import NUMBER, PLACE, live, record_rows, split_places
from packstone.repository.view import View

META, PACKS, NUMBERS, OBJECTS = b"meta", b"packs", b"numbers", b"objects"
RELEASED = 1024  # insertions between two releases of mapped pages: at most 64 MiB of them
_CROWDED = 8  # places of one id from which on those in vanished packs are dropped


class Filing:
    """Put things into one view; sorted keys touch each page of a tree once."""

    def __init__(self, view: View) -> None:
        self._view = view

    def last_number(self, transaction: Any) -> int:
        """Return the last number that was given to a pack, or kept for one."""
        value = transaction.get(b"last", b"", db=self._view.databases[META])
        return int.from_bytes(value, "little")

    def use_numbers(self, transaction: Any, last: int) -> None:
        """Let all numbers up to `last` be used up."""
        transaction.put(b"last", last.to_bytes(4, "little"), db=self._view.databases[META])

    def put_rows(self, transaction: Any, packs: dict[int, Pack]) -> None:
        """Add what is known of packs' records, under numbers that are used up with it."""
        for number, pack in packs.items():
            transaction.put(NUMBER.pack(number), record_rows(pack), db=self._view.databases[PACKS])
            put_bases(transaction, self._view.databases[BASES], number, pack.rows)
        self.use_numbers(transaction, max(self.last_number(transaction), *packs, 0))

    def put_cuts(self, transaction: Any, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Add cuts in the order of their keys."""
        for start in range(0, len(rows), RELEASED):
            put_cuts(transaction, self._view.databases[CUTS], rows[start : start + RELEASED])
            self._view.looked_up(RELEASED)

    def drop_cuts(self, transaction: Any, number: int) -> None:
        """Drop a pack's chunks at their cuts, before the pack itself."""
        databases = self._view.databases
        rows = bytes(transaction.get(NUMBER.pack(number), b"", db=databases[PACKS]))
        self._view.looked_up(drop_cuts(transaction, databases[CUTS], number, rows))

    def drop_bases(self, transaction: Any, number: int) -> None:
        """Drop what the deltas of a pack stand on, behind the pack itself."""
        drop_bases(transaction, self._view.databases[BASES], number)

    def put_ids(self, transaction: Any, ids: dict[int, tuple[bytes, bytes]]) -> None:
        """Make packs known, but for those that another process took up meanwhile."""
        numbers = self._view.databases[NUMBERS]
        for pack_id, value in ids.values():
            transaction.put(pack_id, value, overwrite=False, db=numbers)

    def put_places(
        self,
        transaction: Any,
        places: Sequence[tuple[bytes, bytes]],
        numbers: Container[int],
        added: Container[int],
    ) -> None:
        """Add places in the order of their ids, beside those that are there and alive.

        Alive are packs of `numbers` and those just `added`.
        """
        objects = self._view.databases[OBJECTS]
        put = transaction.put
        for start in range(0, len(places), RELEASED):
            for key, place in places[start : start + RELEASED]:
                if not put(key, place, overwrite=False, db=objects):
                    old = b"".join(there := split_places(bytes(transaction.get(key, db=objects))))
                    if place in there:  # bytes alone may agree across two places
                        continue
                    if len(old) >= _CROWDED * PLACE.size:
                        # Only then: a number unknown here may be one that another process
                        # files things under right now.
                        old = live(old, numbers) + live(old, added)
                    put(key, old + place, db=objects)
            self._view.looked_up(RELEASED)

    def note_lost(self, transaction: Any, ids: Sequence[bytes]) -> None:
        """Remember chunks that are gone and that deltas stand on: they are to come back whole."""
        for object_id in ids:
            transaction.put(object_id, b"", overwrite=False, db=self._view.databases[OBJECTS])

    def drop_places(
        self, transaction: Any, places: Sequence[tuple[tuple[int, int], bytes]]
    ) -> None:
        """Drop some places, ((pack number, record), id) each, of objects."""
        objects = self._view.databases[OBJECTS]
        for place, object_id in places:
            value = bytes(transaction.get(object_id, b"", db=objects))
            kept = [each for each in split_places(value) if PLACE.unpack(each)[:2] != place]
            if kept:
                transaction.put(object_id, b"".join(kept), db=objects)
            elif value:
                transaction.delete(object_id, db=objects)
