"""How much there is and what it takes: packs, objects, deltas, what no snapshot needs.

Reads trees and the view, no chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

from packstone.codec.delta import DELTA_CODECS
from packstone.repository.reachable import mark_trees
from packstone.repository.repository import ObjectRepository


@dataclass(slots=True)
class Stats:
    """Counts, and sizes in bytes.

    `bytes_objects` are those of all objects before compression. A record counts as live if any
    of its objects is reached from a snapshot; `bytes_unused` is what all packs take beyond that.
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
    marks = mark_trees(index, repository.reader.get, [row.snapshot.tree for row in rows])
    stats = Stats(snapshots=len(rows))
    for pack_id, size, records in index.records():
        stats.packs += 1
        stats.bytes_packs += size
        live = 0
        for record, (stored_size, raw_size, codec) in enumerate(records):
            stats.bytes_objects += raw_size
            if marks.has(pack_id, record):
                live += stored_size
            if codec in DELTA_CODECS:
                stats.chunks_delta += 1
                stats.bytes_delta += raw_size
                stats.bytes_delta_stored += stored_size
        stats.bytes_live += live
        stats.bytes_unused += size - live
    stats.objects = index.count_places(set(index.packs.values()))
    stats.bytes_index = index.size()
    return stats
