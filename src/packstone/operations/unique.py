"""What each snapshot needs, adds, and needs alone.

An object is needed by one snapshot alone if that is both the first and the last to reach it.
So two walks over all trees, one from the oldest and one from the newest snapshot, each going
where it has not been before, tell it for all snapshots. What stands behind a delta counts with
it. Reads trees and the view, and footers of packs that are looked into; no chunks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from packstone.codec.delta import DELTA_CODECS
from packstone.operations.prune_plan import measure, read_listed
from packstone.repository.marks import Marker, Marks
from packstone.repository.packs import OBJECT
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow

_ROWS = 2 * OBJECT.size  # of an object in a footer, one in each copy


@dataclass(slots=True)
class ObjectsSize:
    """Bytes of some objects: decoded, and what they take in packs; of deltas among them, too.

    In a record of several objects each takes its share of the stored bytes.
    """

    objects: int = 0
    bytes_objects: int = 0
    bytes_stored: int = 0
    chunks_delta: int = 0
    bytes_delta: int = 0
    bytes_delta_stored: int = 0


def freed_by(repository: ObjectRepository, ids: Collection[str]) -> int:
    """Return the bytes that a prune would free more once these snapshots are forgotten.

    What nobody needs now does not count. Exact for packs that are needed no more; of others it
    is the share of what is not. Raises Damaged, ObjectMissing where a tree cannot be read.
    """
    rows = repository.snapshots()
    kept = mark(repository, [row for row in rows if row.id not in ids])
    gone = mark(repository, [row for row in rows if row.id in ids], kept)
    return _freed(repository, kept, gone)


def _freed(repository: ObjectRepository, kept: Marks, gone: Marks) -> int:
    after = sum(use.unused for use in measure(repository, kept))
    both = Marks()
    both.include(kept)
    both.include(gone)
    return after - sum(use.unused for use in measure(repository, both))


def mark(
    repository: ObjectRepository, rows: Iterable[SnapshotRow], before: Marks | None = None
) -> Marks:
    """Return what some snapshots reach, all of it that `before` does not hold; see `walk_trees`."""
    return walk_trees(repository, rows, before).marks


def walk_trees(
    repository: ObjectRepository, rows: Iterable[SnapshotRow], before: Marks | None = None
) -> Marker:
    """Return what went through some snapshots; missing chunks are warned of."""
    marker = Marker(repository.index, repository.reader.get, before)
    marker.add(row.snapshot.tree for row in rows)
    if marker.missing:
        text = f"{marker.missing} chunks are in no pack: what they stand on is not counted"
        if text not in repository.warnings:
            repository.warnings.append(text)
    return marker


def first_reached(
    repository: ObjectRepository, rows: Iterable[SnapshotRow], wanted: Collection[str]
) -> tuple[dict[str, Marks], Marks]:
    """Return what snapshots are the first to reach, in the order given, and what all reach.

    The first part only for the ids that are `wanted`: it takes a bit for each object of its own.
    """
    everything = Marks()
    found: dict[str, Marks] = {}
    for row in rows:
        # The bases of new deltas are marked whether or not they were reached before.
        fresh = mark(repository, [row], everything).without(everything)
        everything.include(fresh)
        if row.id in wanted:
            found[row.id] = fresh
    return found, everything


def unique_to(
    repository: ObjectRepository, rows: Sequence[SnapshotRow], wanted: Collection[str]
) -> tuple[dict[str, Marks], dict[str, Marks], Marks]:
    """Return what snapshots reach first, what they reach alone, and what all reach.

    `rows` are all snapshots, oldest first; the first two parts are by id, for those `wanted`.
    """
    first, everything = first_reached(repository, rows, wanted)
    last, _ = first_reached(repository, reversed(rows), wanted)
    return first, {key: first[key].common(last[key]) for key in first}, everything


def freed_alone(
    repository: ObjectRepository, everything: Marks, alone: Sequence[Marks]
) -> list[int]:
    """Return for each part of what is reached the bytes that go away with it alone."""
    now = sum(use.unused for use in measure(repository, everything))
    return [
        sum(use.unused for use in measure(repository, everything.without(part))) - now
        for part in alone
    ]


def measure_objects(repository: ObjectRepository, several: Sequence[Marks]) -> list[ObjectsSize]:
    """Return the sizes of several sets of objects; reads each footer once.

    Raises Damaged where a footer cannot be read, StorageError.
    """
    sizes = [ObjectsSize() for _ in several]
    holders: dict[str, list[int]] = {}
    for at, marks in enumerate(several):
        for pack_id in marks.packs():
            holders.setdefault(pack_id, []).append(at)
    for pack_id, positions in holders.items():
        _measure_pack(repository, pack_id, [(several[at], sizes[at]) for at in positions])
    return sizes


def _measure_pack(
    repository: ObjectRepository, pack_id: str, several: Sequence[tuple[Marks, ObjectsSize]]
) -> None:
    number = 0
    for row in read_listed(repository, pack_id).rows:
        is_delta = row.codec in DELTA_CODECS
        for _object_id, size, _type in row.object_rows():
            for marks, found in several:
                if marks.has(pack_id, number):
                    stored = row.stored_size * size // row.raw_size + _ROWS
                    found.objects += 1
                    found.bytes_objects += size
                    found.bytes_stored += stored
                    if is_delta:
                        found.chunks_delta += 1
                        found.bytes_delta += size
                        found.bytes_delta_stored += stored
            number += 1
