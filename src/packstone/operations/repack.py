"""Write what is still needed of some packs into new ones, object by object.

A record of one object is copied as it is stored; of a run of small ones those that are needed go
into new runs. Everything is decoded and hashed before it is written again. Never deletes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future

from packstone.codec.compression import Compressor
from packstone.codec.delta import DELTA_CODECS, DeltaCoder
from packstone.codec.encryption import PackSealer
from packstone.errors import Damaged, ObjectMissing
from packstone.model import SMALL_OBJECT, Buffer, ObjectType
from packstone.operations.prune_plan import PackUse
from packstone.operations.storing import Workers
from packstone.repository.layout import pack_name
from packstone.repository.marks import Marks
from packstone.repository.packs import KEYS, Pack, RecordRow, read_pack
from packstone.repository.repository import ObjectRepository
from packstone.repository.writer import ObjectWriter

_READ = 4 << 20  # bytes of records that one worker takes at once

Part = list[tuple[int, RecordRow, list[int]]]  # records: number, row, which objects to copy


class Repacker:
    """Copy the marked objects of packs through a writer.

    `damaged` holds ids of packs with needed objects that cannot be read: they must stay.
    """

    def __init__(self, repository: ObjectRepository, writer: ObjectWriter, marks: Marks) -> None:
        self._repository = repository
        self._writer = writer
        self._marks = marks
        self._codec = Compressor(repository.config.level)
        self._deltas = DeltaCoder(self._codec)
        self.damaged: dict[str, str] = {}  # pack id → what is wrong

    def run(self, uses: Iterable[PackUse], threads: int) -> None:
        """Copy what is marked in these packs; raises StorageError."""
        workers = Workers(threads)
        waiting: deque[Future[None]] = deque()
        try:
            for use in uses:
                pack = read_pack(
                    self._repository.storage, use.pack_id, use.size, self._repository.sealer
                )
                for part in self._parts(pack):
                    waiting.append(
                        workers.submit(lambda pack=pack, part=part: self._copy(pack, part))
                    )
                    while len(waiting) > 2 * threads:
                        waiting.popleft().result()
            while waiting:
                waiting.popleft().result()
        finally:
            workers.close()

    def _parts(self, pack: Pack) -> Iterator[Part]:
        """Yield neighbouring records that hold anything marked, with the objects that are."""
        part: Part = []
        size = at = 0
        for record, row in enumerate(pack.rows):
            count = sum(1 for _ in row.object_rows())
            live = [n for n in range(count) if self._marks.has(pack.id, at + n)]
            at += count
            live = self._choose(row, live)
            if live:
                part.append((record, row, live))
                size += row.stored_size
            if size >= _READ:
                yield part
                part, size = [], 0
        if part:
            yield part

    def _choose(self, row: RecordRow, live: list[int]) -> list[int]:
        """Return which of a record's marked objects are to be copied: all of them."""
        return live

    def _copy(self, pack: Pack, part: Part) -> None:
        seal = self._repository.sealer.pack(pack.kind, pack.salt)
        for record, row, live in part:
            try:
                payload, raw = self._read(pack, seal, record, row, live)
            except Damaged as error:
                self._from_elsewhere(pack, row, live, error)
                continue
            rows = list(row.object_rows())
            if len(rows) == 1 and (row.raw_size >= SMALL_OBJECT or row.codec in DELTA_CODECS):
                self._keep(pack, row, payload, raw)
                continue
            small: list[tuple[bytes, ObjectType, Buffer]] = []
            wanted = set(live)
            position = 0
            for n, (object_id, size, kind) in enumerate(rows):
                if n in wanted:
                    data = bytes(raw[position : position + size])
                    small.append((object_id, ObjectType(kind), data))
                position += size
            self._writer.put_small(pack.kind, small)

    def _keep(self, pack: Pack, row: RecordRow, payload: Buffer, raw: memoryview) -> None:
        """Store a record of one object as it is; `raw` is what it decodes to."""
        self._writer.copy(pack.kind, row, payload)

    def _read(
        self, pack: Pack, seal: PackSealer, record: int, row: RecordRow, live: list[int]
    ) -> tuple[Buffer, memoryview]:
        """Return a record's payload and its decoded bytes, those of live objects hashed."""
        storage = self._repository.storage
        stored = storage.get_range(pack_name(pack.id), row.offset, row.stored_size)
        if len(stored) != row.stored_size:
            raise Damaged(f"{len(stored)} bytes, expected {row.stored_size}")
        payload = seal.open(record, row.raw_size, row.codec, stored)
        if row.codec in DELTA_CODECS:
            bases = self._repository.reader.bases(row.bases, row.depth)
            raw = memoryview(self._deltas.decode(row.codec, payload, bases, row.raw_size))
        else:
            raw = memoryview(self._codec.decode(row.codec, payload, row.raw_size))
        position = 0
        wanted = set(live)
        hasher = self._repository.hasher
        for n, (object_id, size, kind) in enumerate(row.object_rows()):
            if n in wanted:
                found = hasher.id(ObjectType(kind), raw[position : position + size])
                if found != object_id:
                    raise Damaged(f"hash {found.hex()[:12]}…, expected {object_id.hex()[:12]}…")
            position += size
        return payload, raw

    def _from_elsewhere(self, pack: Pack, row: RecordRow, live: list[int], error: Damaged) -> None:
        """Copy what a damaged record holds from other places, whole; else keep its pack."""
        reader = self._repository.reader
        wanted = set(live)
        for n, (object_id, size, kind) in enumerate(row.object_rows()):
            if n not in wanted:
                continue
            try:
                data = reader.get(ObjectType(kind), object_id)
            except (Damaged, ObjectMissing):
                self.damaged.setdefault(
                    pack.id,
                    f"pack {pack.id[:12]}… is damaged at byte {row.offset}: {error.message}",
                )
                continue
            if ObjectType(kind) == ObjectType.CHUNK and size >= SMALL_OBJECT:
                keys = KEYS.unpack(row.keys) if row.keys else (0, 0)
                self._writer.put_chunk(object_id, data, keys)
            else:
                self._writer.put_small(pack.kind, [(object_id, ObjectType(kind), data)])
