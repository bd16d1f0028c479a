"""How much there is and what it takes: packs, objects, deltas, what no snapshot needs.

Reads trees and the view, no chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

from packstone.codec.delta import DELTA_CODECS
from packstone.operations.prune_plan import measure
from packstone.repository.marks import Marker
from packstone.repository.repository import ObjectRepository


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
