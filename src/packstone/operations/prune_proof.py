"""Prove under the exclusive lock that packs are not needed, before any of them is deleted.

Nothing is concluded from the view alone: what was marked is compared with the footers of the packs
that hold it, and so is each object of the packs that are to go. One that is needed must be
somewhere else, readable, at no greater depth, and where what it stands on is marked, too. What
cannot be proved stays.
"""

from __future__ import annotations

import itertools

from packstone.errors import Damaged, IndexWrong
from packstone.model import ID_SIZE, Buffer, ObjectType
from packstone.operations.prune_plan import read_listed
from packstone.repository.attempt import REFUSED
from packstone.repository.layout import pack_name
from packstone.repository.marks import Marks
from packstone.repository.memory import trim_heap
from packstone.repository.packs import OBJECT, Pack, RecordRow
from packstone.repository.places import Place
from packstone.repository.reachable import hangs
from packstone.repository.repository import ObjectRepository

_ASKED = 10_000  # ids looked up together
_LISTS = 2  # packs of this run whose footers are kept

_Row = tuple[bytes, int, int, int, RecordRow]  # id, type, record, number in the pack


def compare_with_footers(repository: ObjectRepository, marks: Marks) -> None:
    """Require that what is marked is where it was marked, and stands on what the view says.

    Raises IndexWrong where view and footers differ, Damaged where a footer cannot be read.
    """
    for pack_id in sorted(marks.packs()):
        pack = read_listed(repository, pack_id)
        if not (marks.agree(pack) and repository.index.agrees(pack)):
            raise IndexWrong(
                f"the index contradicts the footer of pack {pack_id[:12]}…",
                name=pack_name(pack_id),
                hint="Nothing was deleted. Run: packstone check, then the same command again",
            )


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
        self.damaged: dict[str, str] = {}  # pack id → what cannot be read in it
        self._lists: dict[str, bytes] = {}  # of objects, by pack
        self._decoded: tuple[Place, Buffer] | None = None  # one record: neighbours share it

    def run(self) -> set[str]:
        """Return the packs that may go; raises IndexWrong where view and footers disagree."""
        for pack_id in sorted(self.unneeded):
            try:
                reason = self._needed(read_listed(self._repository, pack_id))
            except IndexWrong:
                raise
            except Damaged as error:
                self.damaged[pack_id] = reason = error.message
            if reason:
                self.kept[pack_id] = reason
                self.unneeded.discard(pack_id)
        return self.unneeded

    def _needed(self, pack: Pack) -> str:
        """Return why a pack must stay, or an empty text."""
        objects = (
            (object_id, kind, record, row)
            for record, row in enumerate(pack.rows)
            for object_id, _size, kind in row.object_rows()
        )
        rows = ((found[0], found[1], found[2], at, found[3]) for at, found in enumerate(objects))
        while part := list(itertools.islice(rows, _ASKED)):
            found = self._repository.index.find_all([each[0] for each in part])
            for each, places in zip(part, found, strict=True):
                reason = self._needed_object(pack.id, each, places)
                if reason:
                    return reason
        return ""

    def _needed_object(self, pack_id: str, row: _Row, places: list[Place]) -> str:
        object_id, kind, record, at, footer_row = row
        listed = any((p.pack_id, p.record, p.number) == (pack_id, record, at) for p in places)
        if not listed and not hangs(self._repository.index, footer_row.bases, footer_row.depth):
            raise IndexWrong(
                f"the index does not know that {object_id.hex()[:12]}… is in pack {pack_id[:12]}…",
                name=pack_name(pack_id),
                record=record,
                hint="Nothing was deleted. Run: packstone check, then the same command again",
            )
        has = self._marks.has
        marked = [place.depth for place in places if has(place.pack_id, place.number)]
        if not marked:
            return ""
        # A copy of greater depth could stand on what stands on this one. What a delta stands on
        # is marked if the delta is, or if it was copied from one that is.
        others = [
            place
            for place in places
            if place.pack_id not in self.unneeded
            and place.depth <= min(marked)
            and (
                not place.depth
                or has(place.pack_id, place.number)
                or place.pack_id in self._written
            )
        ]
        if any(self._is_written(place, object_id) for place in others):
            return ""
        if any(self._is_sound(place, ObjectType(kind), object_id) for place in others):
            return ""
        return f"{ObjectType(kind).name.lower()} {object_id.hex()[:12]}… is nowhere else"

    def _is_written(self, place: Place, object_id: bytes) -> bool:
        """Return whether an object is in a pack of this run, by that pack's own footer."""
        if place.pack_id not in self._written:
            return False
        listed = self._lists.get(place.pack_id)
        if listed is None:
            if len(self._lists) == _LISTS:
                del self._lists[next(iter(self._lists))]
            pack = read_listed(self._repository, place.pack_id)
            listed = b"".join([row.objects for row in pack.rows])
            del pack  # megabytes, of many small files
            trim_heap()
            self._lists[place.pack_id] = listed
        start = place.number * OBJECT.size
        return listed[start : start + ID_SIZE] == object_id

    def _is_sound(self, place: Place, kind: ObjectType, object_id: bytes) -> bool:
        """Return whether an object can be read from this very place."""
        record = place._replace(inner_offset=0, size=0, number=0)
        try:
            if self._decoded is None or self._decoded[0] != record:
                self._decoded = (record, self._repository.reader.read_record(place))
            raw = memoryview(self._decoded[1])
            data = raw[place.inner_offset : place.inner_offset + place.size]
            self._repository.reader.verify(kind, object_id, data, place)
        except REFUSED:
            return False
        return True
