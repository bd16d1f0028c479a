"""Save what can be read of damaged packs: verified, into new packs, object by object.

A record of one object is copied as it is stored; its depth never grows. What is whole in a sound
pack already, at no greater depth, is left there. Never deletes, and gives up no object before
every place of it was tried.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from packstone.codec.compression import Compressor
from packstone.codec.delta import DELTA_CODECS, DeltaCoder
from packstone.codec.encryption import PackSealer
from packstone.errors import Damaged, ObjectMissing
from packstone.model import SMALL_OBJECT, Buffer, ObjectType
from packstone.operations.storing import Workers
from packstone.repository.layout import pack_name
from packstone.repository.packs import KEYS, METADATA, OBJECT, Pack, RecordRow
from packstone.repository.repository import ObjectRepository
from packstone.repository.writer import ObjectWriter

_READ = 4 << 20  # bytes of records that one worker takes at once

# Gives an object from somewhere else, or raises Damaged or ObjectMissing.
Elsewhere = Callable[[ObjectType, bytes], bytes]


def nowhere(kind: ObjectType, object_id: bytes) -> bytes:
    """Give no object from anywhere else."""
    raise ObjectMissing(f"{kind.name.lower()} {object_id.hex()[:12]}… is nowhere else")


@dataclass(slots=True)
class Salvaged:
    """What became of the objects of one damaged pack, by id with type and depth in that pack.

    `kept` are those that could be read from it or are whole in a sound pack, `fetched` those that
    came from elsewhere, `lost` all others with the reason.
    """

    pack_id: str
    kept: dict[bytes, tuple[ObjectType, int]] = field(default_factory=dict)
    fetched: dict[bytes, tuple[ObjectType, int]] = field(default_factory=dict)
    lost: dict[bytes, str] = field(default_factory=dict)


_Part = list[tuple[int, RecordRow]]


class Salvager:
    """Copy what is whole in packs through a writer; `damaged` are the ids of all bad ones."""

    def __init__(
        self,
        repository: ObjectRepository,
        damaged: Collection[str],
        elsewhere: Elsewhere = nowhere,
    ) -> None:
        self._repository = repository
        self._damaged = damaged
        self._elsewhere = elsewhere
        self._codec = Compressor(repository.config.level)
        self._deltas = DeltaCoder(self._codec)
        self._lock = threading.Lock()
        self._done: dict[bytes, int] = {}  # id → depth of what was written in this run

    def run(self, packs: Iterable[Pack], writer: ObjectWriter, threads: int) -> dict[str, Salvaged]:
        """Save what can be of these packs; several may have one id. Raises StorageError."""
        found: dict[str, Salvaged] = {}
        workers = Workers(threads)
        waiting: deque[Future[None]] = deque()
        try:
            for pack in packs:
                result = found.setdefault(pack.id, Salvaged(pack.id))
                for part in _parts(pack):
                    waiting.append(workers.submit(self._save, pack, part, writer, result))
                    while len(waiting) > 2 * threads:
                        waiting.popleft().result()
            while waiting:
                waiting.popleft().result()
        finally:
            workers.close()
        return found

    def _save(self, pack: Pack, part: _Part, writer: ObjectWriter, result: Salvaged) -> None:
        seal = self._repository.sealer.pack(pack.kind, pack.salt)
        for record, row in part:
            reason = ""
            raw = memoryview(b"")
            payload: Buffer = b""
            try:
                payload, raw = self._read(pack, seal, record, row)
            except (Damaged, ObjectMissing) as error:
                reason = f"record {record} at byte {row.offset}: {error.message}"
            self._save_record(pack, row, payload, raw, reason, writer, result)

    def _read(
        self, pack: Pack, seal: PackSealer, record: int, row: RecordRow
    ) -> tuple[Buffer, memoryview]:
        """Return a record's payload and its decoded bytes; raises Damaged."""
        name = pack_name(pack.id)
        stored = self._repository.storage.get_range(name, row.offset, row.stored_size)
        if len(stored) != row.stored_size:
            raise Damaged(f"{len(stored)} bytes, expected {row.stored_size}")
        payload = seal.open(record, row.raw_size, row.codec, stored)
        if row.codec in DELTA_CODECS:
            bases = self._repository.reader.bases(row.bases, row.depth)
            return payload, memoryview(self._deltas.decode(row.codec, payload, bases, row.raw_size))
        return payload, memoryview(self._codec.decode(row.codec, payload, row.raw_size))

    def _save_record(
        self,
        pack: Pack,
        row: RecordRow,
        payload: Buffer,
        raw: memoryview,
        reason: str,
        writer: ObjectWriter,
        result: Salvaged,
    ) -> None:
        hasher = self._repository.hasher
        objects = list(row.object_rows())
        alone = len(objects) == 1 and (row.raw_size >= SMALL_OBJECT or row.codec in DELTA_CODECS)
        small: list[tuple[bytes, ObjectType, Buffer]] = []
        position = 0
        for object_id, size, stated in objects:
            data = raw[position : position + size]
            position += size
            kind = next(
                (k for k in _kinds(pack, stated) if not reason and hasher.id(k, data) == object_id),
                None,
            )
            if kind is None:
                why = reason or f"record at byte {row.offset}: another hash than its id"
                self._from_elsewhere(pack, row, (object_id, stated), why, writer, result)
                continue
            with self._lock:
                result.kept[object_id] = kind, row.depth
                result.fetched.pop(object_id, None)
                result.lost.pop(object_id, None)
            if self._is_whole(kind, object_id, row.depth) or not self._take(object_id, row.depth):
                continue
            if alone:
                packed = OBJECT.pack(object_id, size, kind)
                stated_row = RecordRow(
                    row.offset, row.stored_size, row.raw_size, row.codec, packed, row.keys,
                    row.bases, row.depth, row.lineage,
                )  # fmt: skip
                writer.copy(pack.kind, stated_row, payload)
            else:
                small.append((object_id, kind, bytes(data)))
        if small:
            writer.put_small(pack.kind, small)

    def _take(self, object_id: bytes, depth: int) -> bool:
        """Return whether an object is to be written now; a second time only with less depth."""
        with self._lock:
            if self._done.get(object_id, depth + 1) <= depth:
                return False
            self._done[object_id] = depth
            return True

    def _is_whole(self, kind: ObjectType, object_id: bytes, depth: int) -> bool:
        """Return whether a sound pack has an object at no greater depth; it is read for that."""
        for place in self._repository.index.find(object_id):
            if place.pack_id in self._damaged or place.depth > depth:
                continue
            try:
                self._repository.reader.get_at(kind, object_id, place)
                return True
            except (Damaged, ObjectMissing):
                continue
        return False

    def _from_elsewhere(
        self,
        pack: Pack,
        row: RecordRow,
        wanted: tuple[bytes, int],
        why: str,
        writer: ObjectWriter,
        result: Salvaged,
    ) -> None:
        """Save an object that a record does not give from any other place, whole; or give it up."""
        object_id, stated = wanted
        with self._lock:
            if object_id in result.kept or object_id in result.fetched:
                return  # this pack has it twice
        for kind in _kinds(pack, stated):
            if self._is_whole(kind, object_id, row.depth):
                with self._lock:
                    result.kept[object_id] = kind, row.depth
                    result.lost.pop(object_id, None)
                return
        for get, into in ((self._anywhere, result.kept), (self._elsewhere, result.fetched)):
            for kind in _kinds(pack, stated):
                try:
                    data = get(kind, object_id)
                except (Damaged, ObjectMissing):
                    continue
                with self._lock:
                    into[object_id] = kind, row.depth
                    result.lost.pop(object_id, None)
                if self._take(object_id, 0):
                    keys = KEYS.unpack(row.keys) if row.keys else (0, 0)
                    writer.put_whole(kind, object_id, data, keys)
                return
        with self._lock:
            result.lost[object_id] = why

    def _anywhere(self, kind: ObjectType, object_id: bytes) -> bytes:
        """Return an object from any place of this repository that gives it."""
        failure: Damaged | ObjectMissing | None = None
        for place in self._repository.index.find(object_id):
            try:
                return self._repository.reader.get_at(kind, object_id, place)
            except (Damaged, ObjectMissing) as error:
                failure = error
        raise failure or ObjectMissing(f"{object_id.hex()[:12]}… is in no pack")


def is_at_fault(repository: ObjectRepository, pack: Pack, records: Iterable[int]) -> bool:
    """Return whether some of these bad records are wrong themselves, and no base of theirs is.

    A delta whose base is damaged elsewhere is whole again as soon as the base is.
    """
    for record in records:
        row = pack.rows[record]
        if row.codec not in DELTA_CODECS:
            return True
        try:
            repository.reader.bases(row.bases, row.depth)
        except Damaged:
            continue
        return True
    return False


def _kinds(pack: Pack, stated: int) -> tuple[ObjectType, ...]:
    """Return what an object may be: where only the index knew of it, not all is known."""
    if pack.kind != METADATA:
        return (ObjectType.CHUNK,)
    other = ObjectType.CHUNK_LIST if stated == ObjectType.TREE else ObjectType.TREE
    return (ObjectType(stated), other)


def _parts(pack: Pack) -> Iterator[_Part]:
    """Yield neighbouring records, some megabytes at a time."""
    part: _Part = []
    size = 0
    for record, row in enumerate(pack.rows):
        part.append((record, row))
        size += row.stored_size
        if size >= _READ:
            yield part
            part, size = [], 0
    if part:
        yield part
