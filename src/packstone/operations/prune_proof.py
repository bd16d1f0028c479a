"""Prove under the exclusive lock that packs are not needed, before any of them is deleted.

Nothing is concluded from the view alone: each object of each of these packs is compared with the
pack's own footer, and one that is needed must be somewhere else, readable and at no greater
depth. What cannot be proved stays.
"""

from __future__ import annotations

from packstone.errors import Damaged, ObjectMissing
from packstone.model import ObjectType
from packstone.operations.prune_plan import read_listed
from packstone.repository.layout import pack_name
from packstone.repository.marks import Marks
from packstone.repository.packs import Pack, RecordRow
from packstone.repository.places import Place
from packstone.repository.repository import ObjectRepository

_ASKED = 10_000  # ids looked up together

_Row = tuple[bytes, int, int, int, RecordRow]  # id, type, record, number in the pack


class Proof:
    """Which of some packs nobody needs; `marks` are of everything that is needed.

    `written` are packs of this very run, whose every record was read back.
    """

    def __init__(
        self,
        repository: ObjectRepository,
        victims: set[str],
        marks: Marks,
        written: set[str],
    ) -> None:
        self._repository = repository
        self._marks = marks
        self._written = written
        self.unneeded = set(victims)
        self.kept: dict[str, str] = {}  # pack id → why it must stay

    def run(self) -> set[str]:
        """Return the packs that may go; raises Damaged where view and footers disagree."""
        for pack_id in sorted(self.unneeded):
            pack = read_listed(self._repository, pack_id)
            reason = self._needed(pack)
            if reason:
                self.kept[pack_id] = reason
                self.unneeded.discard(pack_id)
        return self.unneeded

    def _needed(self, pack: Pack) -> str:
        """Return why a pack must stay, or an empty text."""
        rows: list[_Row] = []
        at = 0
        for record, row in enumerate(pack.rows):
            for object_id, _size, kind in row.object_rows():
                rows.append((object_id, kind, record, at, row))
                at += 1
        for start in range(0, len(rows), _ASKED):
            part = rows[start : start + _ASKED]
            found = self._repository.index.find_all([each[0] for each in part])
            for each, places in zip(part, found, strict=True):
                reason = self._needed_object(pack.id, each, places)
                if reason:
                    return reason
        return ""

    def _needed_object(self, pack_id: str, row: _Row, places: list[Place]) -> str:
        object_id, kind, record, at, footer_row = row
        listed = any((p.pack_id, p.record, p.number) == (pack_id, record, at) for p in places)
        if not listed and not self._hangs(footer_row):
            raise Damaged(
                f"the index does not know that {object_id.hex()[:12]}… is in pack {pack_id[:12]}…",
                name=pack_name(pack_id),
                record=record,
                hint="Nothing was deleted. Run: packstone repair index, then prune again",
            )
        has = self._marks.has
        marked = [place.depth for place in places if has(place.pack_id, place.number)]
        if not marked:
            return ""
        # A copy of greater depth could stand on what stands on this one.
        others = [
            place
            for place in places
            if place.pack_id not in self.unneeded and place.depth <= min(marked)
        ]
        if any(place.pack_id in self._written for place in others):
            return ""
        for place in others:
            try:
                self._repository.reader.get_at(ObjectType(kind), object_id, place)
                return ""
            except (Damaged, ObjectMissing):
                continue
        return f"{ObjectType(kind).name.lower()} {object_id.hex()[:12]}… is nowhere else"

    def _hangs(self, row: RecordRow) -> bool:
        """Return whether a base of a delta is gone: the view does not count such a one."""
        return any(
            place is None or place.depth >= row.depth
            for place in self._repository.index.find_many(row.bases)
        )
