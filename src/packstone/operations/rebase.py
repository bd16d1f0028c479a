"""Store chunks whole that stand on chunks which no snapshot names any more.

A delta keeps its base alive, and with it bytes that somebody may have been promised are gone.
Afterwards every delta that is needed stands on chunks that snapshots name themselves.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future

from packstone.codec.delta import DELTA_CODECS
from packstone.model import ObjectType
from packstone.operations.prune_plan import read_listed
from packstone.operations.storing import Workers
from packstone.repository.marks import Marks
from packstone.repository.packs import KEYS, RecordRow
from packstone.repository.repository import ObjectRepository
from packstone.repository.writer import ObjectWriter


def rebase_chunks(
    repository: ObjectRepository, writer: ObjectWriter, marks: Marks, wanted: Marks, threads: int
) -> int:
    """Store what must not stand on its base again, whole; return the number of chunks.

    `marks` is everything needed, `wanted` what snapshots name themselves. Raises Damaged,
    StorageError.
    """

    def store(row: RecordRow) -> None:
        chunk_id = row.objects[:32]
        data = repository.reader.get(ObjectType.CHUNK, chunk_id)
        writer.put_chunk(chunk_id, data, KEYS.unpack(row.keys) if row.keys else (0, 0))

    count = 0
    workers = Workers(threads)
    waiting: deque[Future[None]] = deque()
    try:
        for pack_id, _size, records in list(repository.index.records()):
            if not any(codec in DELTA_CODECS for _stored, _raw, codec in records):
                continue
            for row in _unwanted(repository, marks, wanted, pack_id):
                count += 1
                waiting.append(workers.submit(lambda row=row: store(row)))
                while len(waiting) > 2 * threads:
                    waiting.popleft().result()
        while waiting:
            waiting.popleft().result()
    finally:
        workers.close()
    return count


def _unwanted(
    repository: ObjectRepository, marks: Marks, wanted: Marks, pack_id: str
) -> list[RecordRow]:
    """Return the needed deltas of a pack with a base that no snapshot names."""
    found: list[RecordRow] = []
    at = 0
    for row in read_listed(repository, pack_id).rows:
        # Any place of a base will do: the newest may be one that was written a moment ago.
        if (
            row.bases
            and marks.has(pack_id, at)
            and wanted.has(pack_id, at)
            and not all(
                any(wanted.has(place.pack_id, place.number) for place in places)
                for places in repository.index.find_all(row.bases)
            )
        ):
            found.append(row)
        at += sum(1 for _ in row.object_rows())
    return found
