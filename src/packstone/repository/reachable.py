"""What snapshots reach: chunks and, behind deltas, the chunks that these stand on.

The one walk over bases, for whoever checks, moves or drops objects. Reads the view, never
packs. Invariant: a delta's base counts only at a place of less depth, so the walk ends whatever
packs say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from packstone.repository.index import Index
from packstone.repository.places import Place

MOST_STEPS = 64  # packs.MAX_DEPTH: no place says more


class Reached(NamedTuple):
    """A chunk that is needed, where it is best taken from, and which chunks need it.

    `place` is None where there is none; `wanted_by` is what was asked for, not what stands
    between.
    """

    id: bytes
    place: Place | None
    wanted_by: set[int]


def with_bases(index: Index, ids: Sequence[bytes]) -> Iterator[Reached]:
    """Yield each of some chunks, once, and every chunk that they stand on.

    `wanted_by` holds positions in `ids`. A chunk that stands on itself, or on a place that is no
    step nearer to a whole copy, is yielded without a place.
    """
    asked: dict[bytes, tuple[int, set[int]]] = {}  # id → depth it must be below, who wants it
    for at, chunk_id in enumerate(ids):
        asked.setdefault(chunk_id, (MOST_STEPS + 1, set()))[1].add(at)
    for _ in range(MOST_STEPS + 1):
        if not asked:
            return
        deltas: list[tuple[Place, set[int]]] = []
        for chunk_id, (limit, wanted_by), place in _placed(index, asked):
            sound = place is not None and place.depth < limit
            yield Reached(chunk_id, place if sound else None, wanted_by)
            if place is not None and sound and place.depth:
                deltas.append((place, wanted_by))
        below: dict[bytes, tuple[int, set[int]]] = {}
        bases = index.bases_of([(place.pack_id, place.record) for place, _ in deltas])
        for (place, wanted_by), base_ids in zip(deltas, bases, strict=True):
            for base_id in base_ids:
                least, others = below.get(base_id, (place.depth, set()))
                others |= wanted_by  # one set for each base: many may stand on it
                below[base_id] = (min(least, place.depth), others)
        asked = below


def _placed(
    index: Index, asked: dict[bytes, tuple[int, set[int]]]
) -> Iterable[tuple[bytes, tuple[int, set[int]], Place | None]]:
    return zip(asked, asked.values(), index.find_many(list(asked)), strict=True)
