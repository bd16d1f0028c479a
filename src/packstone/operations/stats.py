"""How much there is and what it takes: packs, objects, deltas, what no snapshot needs.

Of the whole repository, of single snapshots, and over time. Reads trees, the view and footers,
no chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packstone.codec.delta import DELTA_CODECS
from packstone.operations.prune_plan import measure
from packstone.operations.unique import (
    ObjectsSize,
    first_reached,
    freed_alone,
    measure_objects,
    unique_to,
    walk_trees,
)
from packstone.repository.marks import Marker
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow


@dataclass(slots=True)
class Stats:
    """Counts, and sizes in bytes.

    `bytes_objects` are those of all objects before compression. `bytes_unused` is what nobody
    needs: packs without any object that a snapshot reaches, and such objects in other packs.
    """

    snapshots: int = 0
    packs: int = 0
    bytes_packs: int = 0
    bytes_index: int = 0
    objects: int = 0
    bytes_objects: int = 0
    bytes_live: int = 0
    bytes_unused: int = 0
    chunks_delta: int = 0
    bytes_delta: int = 0  # of the chunks that are stored as deltas
    bytes_delta_stored: int = 0  # what these take


def collect_stats(repository: ObjectRepository) -> Stats:
    """Return what there is; raises Damaged, ObjectMissing where a tree cannot be read."""
    rows = repository.snapshots()
    index = repository.index
    marker = Marker(index, repository.reader.get)
    marker.add(row.snapshot.tree for row in rows)
    stats = Stats(snapshots=len(rows))
    for use in measure(repository, marker.marks):
        stats.packs += 1
        stats.bytes_packs += use.size
        stats.bytes_unused += use.unused
        stats.objects += use.objects
    stats.bytes_live = stats.bytes_packs - stats.bytes_unused
    for _pack_id, _size, records in index.records():
        for stored_size, raw_size, codec in records:
            stats.bytes_objects += raw_size
            if codec in DELTA_CODECS:
                stats.chunks_delta += 1
                stats.bytes_delta += raw_size
                stats.bytes_delta_stored += stored_size
    stats.bytes_index = index.size()
    return stats


@dataclass(frozen=True, slots=True)
class SnapshotStats:
    """What one snapshot holds, brought, and needs alone; sizes in bytes.

    `named` are its objects, each once, `reached` these and what their deltas stand on; `new`
    are those of the latter that no older snapshot reaches, `unique` those that no other one
    does; `bytes_freed` is what goes away with it alone.
    """

    row: SnapshotRow
    files: int | None
    bytes_total: int | None
    named: ObjectsSize
    reached: ObjectsSize
    new: ObjectsSize
    unique: ObjectsSize
    bytes_freed: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What one snapshot added to the older ones, and all that was there with it."""

    row: SnapshotRow
    new: ObjectsSize
    bytes_stored: int  # of all snapshots up to this one


def collect_snapshot_stats(
    repository: ObjectRepository, wanted: Sequence[SnapshotRow]
) -> list[SnapshotStats]:
    """Return what some snapshots take; raises Damaged, ObjectMissing."""
    rows = repository.snapshots()
    ids = [row.id for row in wanted]
    first, alone, everything = unique_to(repository, rows, ids)
    markers = [walk_trees(repository, [row]) for row in wanted]
    named = measure_objects(repository, [marker.wanted for marker in markers])
    reached = measure_objects(repository, [marker.marks for marker in markers])
    new = measure_objects(repository, [first[key] for key in ids])
    unique = measure_objects(repository, [alone[key] for key in ids])
    freed = freed_alone(repository, everything, [alone[key] for key in ids])
    return [
        SnapshotStats(
            row=row,
            files=row.snapshot.summary.get("files"),
            bytes_total=row.snapshot.summary.get("bytes_total"),
            named=named[at],
            reached=reached[at],
            new=new[at],
            unique=unique[at],
            bytes_freed=freed[at],
        )
        for at, row in enumerate(wanted)
    ]


def collect_growth(
    repository: ObjectRepository, rows: Sequence[SnapshotRow] | None = None
) -> list[Growth]:
    """Return how what the snapshots of today need came together; oldest first.

    With `rows`, oldest first, as if there were no others. Raises Damaged, ObjectMissing.
    """
    rows = repository.snapshots() if rows is None else rows
    first, _ = first_reached(repository, rows, {row.id for row in rows})
    sizes = measure_objects(repository, [first[row.id] for row in rows])
    found: list[Growth] = []
    stored = 0
    for row, new in zip(rows, sizes, strict=True):
        stored += new.bytes_stored
        found.append(Growth(row, new, stored))
    return found
