"""Store chunks anew that stand on chunks which no snapshot names any more.

A delta keeps its base alive, and with it bytes that somebody may have been promised are gone.
Afterwards every delta that is needed stands on chunks that snapshots name themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

from packstone.codec.delta import DELTA_CODECS
from packstone.model import ID_SIZE, ObjectType
from packstone.operations.prune_plan import read_listed
from packstone.operations.storing import Workers
from packstone.repository.bases import NONE, Base, Candidates
from packstone.repository.marks import Marks
from packstone.repository.packs import KEYS, RecordRow
from packstone.repository.repository import ObjectRepository
from packstone.repository.writer import ObjectWriter


def rebase_chunks(
    repository: ObjectRepository, writer: ObjectWriter, marks: Marks, wanted: Marks, threads: int
) -> int:
    """Store what must not stand on its base again; return the number of chunks.

    Of all that stand on one base the first is stored whole, and the others as deltas of that one
    where it pays: no place is deeper than before. `marks` is everything needed, `wanted` what
    snapshots name themselves. Raises Damaged, StorageError.
    """
    roots: dict[bytes, bytes] = {}  # base that no snapshot names → what takes its place
    others: list[tuple[RecordRow, bytes]] = []

    def store(row: RecordRow, bases: Candidates = NONE) -> None:
        chunk_id = row.objects[:ID_SIZE]
        data = repository.reader.get(ObjectType.CHUNK, chunk_id)
        writer.put_chunk(chunk_id, data, KEYS.unpack(row.keys) if row.keys else (0, 0), bases)

    def first_of_each() -> Iterator[Callable[[], None]]:
        for pack_id, _size, records in list(repository.index.records()):
            if not any(codec in DELTA_CODECS for _stored, _raw, codec in records):
                continue
            for row, base_id in _unwanted(repository, marks, wanted, pack_id):
                if base_id in roots:
                    others.append((row, roots[base_id]))
                else:
                    roots[base_id] = row.objects[:ID_SIZE]
                    yield partial(store, row)

    def all_others() -> Iterator[Callable[[], None]]:
        for row, root_id in others:
            # A whole one is number 0 of its lineage; what stands on this chunk counts from it.
            yield partial(store, row, Candidates([Base(root_id, 0, row.lineage)], []))

    count = _run(first_of_each(), threads)
    if others:
        writer.finish()  # so that they can be read as bases
    return count + _run(all_others(), threads)


def _run(work: Iterator[Callable[[], None]], threads: int) -> int:
    """Do all work in threads; return how much there was."""
    count = 0
    workers = Workers(threads)
    waiting: deque[Future[None]] = deque()
    try:
        for each in work:
            count += 1
            waiting.append(workers.submit(each))
            while len(waiting) > 2 * threads:
                waiting.popleft().result()
        while waiting:
            waiting.popleft().result()
    finally:
        workers.close()
    return count


def _unwanted(
    repository: ObjectRepository, marks: Marks, wanted: Marks, pack_id: str
) -> list[tuple[RecordRow, bytes]]:
    """Return the needed deltas of a pack with a base that no snapshot names, and that base."""
    found: list[tuple[RecordRow, bytes]] = []
    at = 0
    for row in read_listed(repository, pack_id).rows:
        if row.bases and marks.has(pack_id, at) and wanted.has(pack_id, at):
            # Any place of a base will do: the newest may be one that was written a moment ago.
            for base_id, places in zip(
                row.bases, repository.index.find_all(row.bases), strict=True
            ):
                if not any(wanted.has(place.pack_id, place.number) for place in places):
                    found.append((row, base_id))
                    break
        at += sum(1 for _ in row.object_rows())
    return found
