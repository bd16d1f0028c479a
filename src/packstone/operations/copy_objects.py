"""Copy objects by id between repositories of one family, encoded as they are.

Ids and compressed payloads stay; records are sealed anew. A delta keeps its bases where the
other repository has them at a depth that allows it, and is made whole elsewhere. What the other
repository holds already does not travel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from packstone.model import Buffer
from packstone.operations.prune_plan import PackUse, read_listed
from packstone.operations.repack import Part, Repacker
from packstone.repository.marks import Marks
from packstone.repository.packs import KEYS, Pack, RecordRow
from packstone.repository.repository import ObjectRepository
from packstone.repository.writer import ObjectWriter

_MAX_DEPTH = 8  # steps to a whole chunk: far from what readers refuse, however often it is copied


class Missing(NamedTuple):
    """What another repository lacks: objects, the bytes they take here, and where they are.

    `uses` are packs that hold any, by the depth of the records in question.
    """

    objects: int
    size: int
    uses: dict[int, list[PackUse]]


def find_missing(source: ObjectRepository, target: ObjectRepository, marks: Marks) -> Missing:
    """Return what of the marked objects a repository of the same family lacks."""
    objects = size = 0
    uses: dict[int, list[PackUse]] = {}
    for pack_id, pack_size, kind, count in source.index.counts():
        live = marks.count(pack_id)
        if not live:
            continue
        rows = list(_marked(read_listed(source, pack_id), marks))
        there = _present(target, [object_id for _row, _count, ids in rows for object_id in ids])
        depths: set[int] = set()
        for row, row_count, ids in rows:
            absent = sum(object_id not in there for object_id in ids)
            if absent:
                objects += absent
                depths.add(row.depth)
                size += row.stored_size * absent // row_count
        for depth in depths:
            uses.setdefault(depth, []).append(PackUse(pack_id, kind, pack_size, count, live, 0))
    return Missing(objects, size, uses)


def _present(target: ObjectRepository, ids: Sequence[bytes]) -> set[bytes]:
    """Return those that are there; asked together, for a transaction costs more than a look-up."""
    present = target.index.present(ids)
    return {object_id for object_id, is_there in zip(ids, present, strict=True) if is_there}


def _marked(pack: Pack, marks: Marks) -> Iterator[tuple[RecordRow, int, list[bytes]]]:
    """Yield records with how many objects they have, and the ids of those that are marked."""
    at = 0
    for row in pack.rows:
        ids = [found[0] for found in row.object_rows()]
        found = [ids[n] for n in range(len(ids)) if marks.has(pack.id, at + n)]
        at += len(ids)
        if found:
            yield row, len(ids), found


class ObjectCopier(Repacker):
    """Copy marked objects that the other repository lacks; `depth` is that of the records taken.

    Bases go before what stands on them: copy by ascending depth, and let the other view know of
    each before the next.
    """

    def __init__(
        self,
        source: ObjectRepository,
        target: ObjectRepository,
        writer: ObjectWriter,
        marks: Marks,
        depth: int,
    ) -> None:
        super().__init__(source, writer, marks)
        self._target = target
        self._depth = depth
        self._there: set[bytes] = set()  # of the pack in hand

    def _parts(self, pack: Pack) -> Iterator[Part]:
        ids = [
            object_id
            for row, _count, found in _marked(pack, self._marks)
            if row.depth == self._depth
            for object_id in found
        ]
        self._there = _present(self._target, ids)
        yield from super()._parts(pack)

    def _choose(self, row: RecordRow, live: list[int]) -> list[int]:
        if row.depth != self._depth or not live:
            return []
        ids = [found[0] for found in row.object_rows()]
        return [n for n in live if ids[n] not in self._there]

    def _keep(self, pack: Pack, row: RecordRow, payload: Buffer, raw: memoryview) -> None:
        if not row.bases:
            self._writer.copy(pack.kind, row, payload)
            return
        places = self._target.index.find_many(row.bases)
        depths = [place.depth for place in places if place is not None]
        if len(depths) == len(places) and max(depths) < _MAX_DEPTH:
            # Of a base that is there twice it was another place, perhaps, that counted as there.
            self._target.index.count_on(row.bases)
            moved = msgspec.structs.replace(row, depth=1 + max(depths))
            self._writer.copy(pack.kind, moved, payload)
        else:
            keys = KEYS.unpack(row.keys) if row.keys else (0, 0)
            self._writer.put_chunk(row.objects[:32], raw, keys)
