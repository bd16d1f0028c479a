"""Add objects and commit a snapshot: the order of writes is here and nowhere else.

Implements docs/format.md §7. Invariants: nothing counts as written before its encoded bytes
were decoded and hashed again; the snapshot object is put after everything it needs is
durable and under an unchanged generation, and withdrawn if the generation changed meanwhile.
Any error leaves packs nobody refers to, never a snapshot.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from packstone.codec.compression import MAX_RAW_SIZE, Compressor
from packstone.codec.delta import DELTA_CODECS, DeltaCoder
from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, seal_envelope
from packstone.codec.hashing import Hasher, checksum
from packstone.errors import Damaged, GenerationChanged, ObjectMissing, StorageError
from packstone.model import KIB, SMALL_OBJECT, Buffer, ObjectType, Snapshot
from packstone.repository.ancestry import standing
from packstone.repository.bases import NONE, Base, Candidates
from packstone.repository.fetching import Fetching
from packstone.repository.index import Index
from packstone.repository.layout import (
    DELTA_FEATURE,
    read_state,
    snapshot_name,
    write_feature,
)
from packstone.repository.locks import HeldLock
from packstone.repository.packs import (
    BASE_SIZE,
    DATA,
    KEYS,
    MAX_STANDING,
    METADATA,
    OBJECT,
    WHOLE,
    Lineage,
    Pack,
    PackWriter,
    RecordRow,
)
from packstone.repository.reader import ObjectReader
from packstone.repository.snapshots import encode_snapshot
from packstone.repository.uploads import Uploads
from packstone.storage.base import Storage

RUN_SIZE = 128 * KIB  # of small objects that share a record
_ON_THEIR_WAY = 4  # packs that are uploaded or wait for it, as files on the local disk
RUN_OBJECTS = 8192  # far below what a reader refuses
_PACK_OF = {ObjectType.CHUNK: DATA, ObjectType.TREE: METADATA, ObjectType.CHUNK_LIST: METADATA}

Small = tuple[bytes, ObjectType, Buffer]


class _Record(NamedTuple):
    """An encoded record; `bases` are the bytes that a delta was made against."""

    codec: int
    payload: Buffer
    raw_size: int
    lineage: Lineage
    bases: Sequence[Buffer]


class ObjectWriter:
    """One writing session; `put` and its kin may be called from several threads.

    Ends with `commit`, of one snapshot or several, or `abandon`. Counts are of this session,
    sizes in bytes.
    """

    def __init__(
        self,
        storage: Storage,
        index: Index,
        hasher: Hasher,
        sealer: Sealer,
        reader: ObjectReader,
        *,
        level: int,
        pack_size: int,
        generation: bytes,
        largest_chunk: int = MAX_RAW_SIZE,
        random: Callable[[int], bytes],
        lock: HeldLock | None = None,
        dry_run: bool = False,
    ) -> None:
        self._storage = storage
        self._held = lock
        # Where a put takes long, packs are on their way while the next ones are made.
        self._uploads = Uploads(_ON_THEIR_WAY) if storage.is_far else None
        self._index = index
        self._hasher = hasher
        self._sealer = sealer
        self._reader = reader
        self._codec = Compressor(level)
        self._deltas = DeltaCoder(self._codec)
        self._announced = False  # whether the repository says that it has deltas
        self._pack_size = pack_size
        self._largest_chunk = largest_chunk
        self._random = random
        self._dry_run = dry_run
        self._lock = threading.Lock()  # pending ids, runs, counts
        self._pack_lock = threading.Lock()  # the open packs
        self._announcing = threading.Lock()
        self._known: set[bytes] = set()  # ids of this session that the view does not hold yet
        self._runs: dict[int, list[Small]] = {DATA: [], METADATA: []}
        self._run_sizes = {DATA: 0, METADATA: 0}
        self._packs: dict[int, PackWriter] = {}
        self._closing: list[PackWriter] = []  # full, but for records that others verify
        self._failure: BaseException | None = None  # the first one; nothing is committed after it
        self.present: Collection[bytes] = ()  # metadata ids known for certain, by the caller
        # What decides which chunks may be fetched to serve as bases; None: all of them.
        self.fetching: Fetching | None = None
        self.generation = generation
        self._forgotten = index.forgotten()
        self.chunks_new = 0
        self.chunks_delta = 0
        self.bytes_delta = 0  # of those chunks
        self.bytes_delta_stored = 0  # what they take without their footer rows
        self.bytes_added = 0
        self.bytes_stored = 0
        self.packs_written: list[str] = []  # ids of those that are durable

    # -- adding -----------------------------------------------------------------------------

    def reserve(self, ids: Sequence[bytes]) -> list[bool]:
        """Return for each id whether the caller must store it now.

        An id is given out once; who got True and fails must abandon the session.
        """
        known = self._known
        wanted = [False] * len(ids)
        fresh: list[int] = []
        with self._lock:
            for position, object_id in enumerate(ids):
                if object_id not in known:
                    known.add(object_id)
                    fresh.append(position)
        if fresh:
            try:
                present = self._index.present([ids[position] for position in fresh])
            except BaseException as error:
                self._failure = self._failure or error
                raise
            for position, there in zip(fresh, present, strict=True):
                wanted[position] = not there
            if any(present):
                with self._lock:
                    for position, there in zip(fresh, present, strict=True):
                        if there:
                            known.discard(ids[position])
        return wanted

    def put(self, kind: ObjectType, data: bytes) -> bytes:
        """Store a metadata object unless it is there, and return its id."""
        object_id = self._hasher.id(kind, data)
        if object_id not in self.present and self.reserve((object_id,))[0]:
            if len(data) >= SMALL_OBJECT:
                row = OBJECT.pack(object_id, len(data), kind)
                self._store(METADATA, data, [(object_id, kind, data)], row, b"")
            else:
                self.put_small(METADATA, [(object_id, kind, data)])
        return object_id

    def put_chunk(
        self, chunk_id: bytes, data: Buffer, keys: tuple[int, int], bases: Candidates = NONE
    ) -> None:
        """Store one reserved chunk with the keys of its two cuts, as a delta if that pays."""
        small: Small = (chunk_id, ObjectType.CHUNK, data)
        if len(data) < SMALL_OBJECT:
            # A run outlives the caller's buffer.
            self.put_small(DATA, [(chunk_id, ObjectType.CHUNK, bytes(data))])
            return
        row = OBJECT.pack(chunk_id, len(data), ObjectType.CHUNK)
        self._store(DATA, data, [small], row, KEYS.pack(*keys), bases)

    def put_whole(
        self, kind: ObjectType, object_id: bytes, data: Buffer, keys: tuple[int, int] = (0, 0)
    ) -> None:
        """Store an object, and not as a delta, whether or not there are other places of it."""
        if len(data) < SMALL_OBJECT:
            self.put_small(_PACK_OF[kind], [(object_id, kind, bytes(data))])
            return
        row = OBJECT.pack(object_id, len(data), kind)
        packed = KEYS.pack(*keys) if any(keys) else b""
        self._store(_PACK_OF[kind], data, [(object_id, kind, data)], row, packed)

    def copy(self, pack_kind: int, row: RecordRow, payload: Buffer) -> None:
        """Store the one object of a record again as it is, encoded; bases and depth stay.

        The caller has decoded and hashed `payload`: what will be stored must open to it.
        """
        lineage = Lineage(row.bases, row.depth, row.lineage)
        record = _Record(row.codec, payload, row.raw_size, lineage, ())
        if row.codec in DELTA_CODECS:
            self._announce_deltas()

        def same(found: Buffer) -> None:
            if found != payload:
                raise Damaged(
                    "a record does not open to what was sealed",
                    hint="Nothing was changed. This points at memory or processor: test them",
                )

        try:
            self._add(pack_kind, record, row.objects, row.keys, same)
        except BaseException as error:
            self._failure = self._failure or error
            raise
        with self._lock:
            self.bytes_added += row.raw_size

    def put_small(self, kind: int, objects: Sequence[Small]) -> None:
        """Store reserved small objects; they wait until a run is full."""
        full: list[list[Small]] = []
        with self._lock:
            run, size = self._runs[kind], self._run_sizes[kind]
            for small in objects:
                run.append(small)
                size += len(small[2])
                if size >= RUN_SIZE or len(run) >= RUN_OBJECTS:
                    full.append(run)
                    run, size = [], 0
            self._runs[kind], self._run_sizes[kind] = run, size
        for run in full:
            self._store_run(kind, run)

    def _store_run(self, kind: int, run: list[Small]) -> None:
        raw = b"".join([small[2] for small in run])
        rows = b"".join([OBJECT.pack(small[0], len(small[2]), small[1]) for small in run])
        self._store(kind, raw, run, rows, b"")

    def _store(
        self,
        kind: int,
        raw: Buffer,
        objects: Sequence[Small],
        rows: bytes,
        keys: bytes,
        bases: Candidates = NONE,
    ) -> None:
        """Encode a record, hand it to the open pack, decode and hash it again."""
        try:
            self._encode_and_add(kind, raw, objects, rows, keys, bases)
        except BaseException as error:
            # Ids were given out for what is lost now. Whoever forgets to ask how a worker fared
            # must still not commit.
            self._failure = self._failure or error
            raise

    def _encode_and_add(
        self,
        kind: int,
        raw: Buffer,
        objects: Sequence[Small],
        rows: bytes,
        keys: bytes,
        bases: Candidates,
    ) -> None:
        record = self._encode_delta(raw, bases.bases) or self._encode_delta(raw, bases.near)
        if record is None:
            record = _Record(*self._codec.encode(raw), len(raw), WHOLE, ())
        payload = record.payload
        if self._dry_run:
            self._verify(record, payload, objects)
        else:
            self._add(kind, record, rows, keys, lambda found: self._verify(record, found, objects))
        with self._lock:
            self.bytes_added += len(raw)
            if kind == DATA:
                self.chunks_new += len(objects)
            if record.lineage.bases:
                self.chunks_delta += 1
                self.bytes_delta += len(raw)
                self.bytes_delta_stored += len(payload)
            if self._dry_run:
                self.bytes_stored += len(payload)

    def _encode_delta(self, raw: Buffer, bases: Sequence[Base]) -> _Record | None:
        """Return a chunk as a delta, or None where that does not save half of the whole one."""
        if not bases:
            return None
        used: list[tuple[Base, Buffer]] = []

        def read() -> Iterator[Buffer]:
            for base in bases:
                if not self._may_read(base):
                    continue
                try:
                    data = self._reader.base(base.id, base.depth + 1, heal=False)
                except (Damaged, ObjectMissing):
                    continue  # who checks will hear of it; here it only costs room
                used.append((base, data))
                yield data

        delta = self._deltas.encode(raw, read())
        if delta is None:
            return None
        size = len(delta.payload)
        if 2 * size > self._deltas.estimate(raw):
            return None
        kept = [used[place] for place in delta.bases]
        lineage = Lineage(
            [base.id for base, _data in kept],
            1 + max(base.depth for base, _data in kept),
            kept[0][0].number,
        )
        if self._stands_on_too_much(lineage):
            return None
        self._announce_deltas()
        if self.fetching is not None:
            pack_id = self._reader.pack_below(kept[0][0].id, kept[0][0].depth + 1)
            self.fetching.note_saved(pack_id or "", self._deltas.estimate(raw) - size)
        contents = [data for _base, data in kept]
        return _Record(delta.codec, delta.payload, len(raw), lineage, contents)

    def _may_read(self, base: Base) -> bool:
        """Return whether a base can be had for nothing, or is worth what it costs."""
        if self.fetching is None or self._reader.is_quick(base.id, base.depth + 1):
            return True
        pack_id = self._reader.pack_below(base.id, base.depth + 1)
        return pack_id is not None and self.fetching.may_fetch(pack_id)

    def _stands_on_too_much(self, lineage: Lineage) -> bool:
        """Return whether readers would refuse a delta for all that they need to make it."""
        most = sum(3**step for step in range(1, lineage.depth + 1)) * self._largest_chunk
        # Looked up only where it might be so: seldom with chunks of the usual size.
        return most > MAX_STANDING and standing(self._index, lineage.bases) > MAX_STANDING

    def _announce_deltas(self) -> None:
        """Make it durable that there are deltas, before the first one can be."""
        if self._announced or self._dry_run:
            return
        with self._announcing:
            if not self._announced:
                write_feature(self._storage, self._sealer, DELTA_FEATURE, "read", self._random(32))
                self._announced = True

    def _add(
        self,
        kind: int,
        record: _Record,
        rows: bytes,
        keys: bytes,
        verify: Callable[[Buffer], None],
    ) -> None:
        """Hand a record to the open pack and verify the very bytes that the pack will store.

        A pack gets its name when it is full and all of its records are verified: whoever makes
        both true finishes it.
        """
        codec, payload, raw_size, lineage, _bases = record
        ripe: list[PackWriter] = []
        with self._pack_lock:
            pack = self._packs.get(kind)
            row_size = len(rows) + len(keys) + BASE_SIZE * len(lineage.bases)
            if pack is not None and not pack.has_room(len(payload), row_size, self._pack_size):
                ripe += self._close(kind)
                pack = None
            if pack is None:
                pack = self._packs[kind] = PackWriter(
                    self._storage, kind, self._sealer, self._random(32)
                )
            number = len(pack.rows)
            stored = pack.add(payload, raw_size, codec, rows, keys, lineage)
        try:
            opened = pack.seal.open(number, raw_size, codec, stored)
        except Damaged as error:
            raise _spoilt(f"does not open to what was sealed: {error.message}") from error
        verify(opened)
        with self._pack_lock:
            pack.verified_count += 1
            if pack in self._closing and pack.verified_count == len(pack.rows):
                self._closing.remove(pack)
                ripe.append(pack)
            elif pack is self._packs.get(kind) and not pack.has_room(0, 0, self._pack_size):
                ripe += self._close(kind)
        for each in ripe:
            self._finish(each)

    def _close(self, kind: int) -> list[PackWriter]:
        """Let no record into the open pack any more; return it if all it has are verified."""
        pack = self._packs.pop(kind)
        if pack.verified_count == len(pack.rows):
            return [pack]
        self._closing.append(pack)
        return []

    def _verify(self, record: _Record, payload: Buffer, objects: Sequence[Small]) -> None:
        """Decode what is about to be written and compare every object with its id."""
        try:
            if record.codec in DELTA_CODECS:
                decoded: Buffer = self._deltas.decode(
                    record.codec, payload, record.bases, record.raw_size
                )
            else:
                decoded = self._codec.decode(record.codec, payload, record.raw_size)
        except Damaged as error:
            raise _spoilt(f"does not decode: {error.message}") from error
        raw = memoryview(decoded)
        position = 0
        for object_id, kind, data in objects:
            end = position + len(data)
            found = self._hasher.id(kind, raw[position:end])
            if found != object_id:
                raise _spoilt(
                    f"does not decode to what was encoded: hash {found.hex()[:12]}…, "
                    f"expected {object_id.hex()[:12]}…",
                    object_id.hex(),
                    found.hex(),
                )
            position = end

    def _finish(self, writer: PackWriter) -> None:
        """Make a pack durable, then let the view know it; now, or by a thread for uploads."""
        if self._uploads is None:
            self._make_durable(writer)
        else:
            self._uploads.start(lambda: self._make_durable(writer))

    def _make_durable(self, writer: PackWriter) -> None:
        try:
            pack = writer.finish()
        except BaseException as error:
            self._failure = self._failure or error
            writer.abandon()
            raise
        with self._lock:
            self.bytes_stored += pack.size
            self.packs_written.append(pack.id)
        self._forget_known(self._index.add(pack))

    def _forget_known(self, packs: Iterable[Pack]) -> None:
        """Drop ids that the view holds by now: memory does not grow with the snapshot."""
        for pack in packs:
            with self._lock:
                for record in pack.rows:
                    self._known.difference_update([row[0] for row in record.object_rows()])

    # -- the end ----------------------------------------------------------------------------

    def finish(self) -> None:
        """Make everything that was put durable, and the view agree with it.

        Raises what a worker raised before, whether or not anyone has seen it.
        """
        if self._failure is not None:
            raise self._failure
        for kind, run in self._runs.items():
            self._runs[kind], self._run_sizes[kind] = [], 0
            if run:
                self._store_run(kind, run)
        assert not self._closing, "a worker is still verifying a record"
        while self._packs:
            self._finish(self._packs.popitem()[1])
        if self._uploads is not None:
            self._uploads.wait()
        if self._failure is not None:
            raise self._failure
        self._forget_known(self._index.flush())
        if not self._dry_run and not self._index.confirm(self._storage):
            raise GenerationChanged(
                "packs do not hold what a bundle of footers said they do",
                hint="Nothing was committed. The index is right now: run the same command again",
            )

    def commit(self, snapshot: Snapshot, *, like: str = "") -> str:
        """Finish, then put the snapshot object: the one commit point. Return its id.

        `like` is the id of a stored snapshot that this one is a version of: then nobody has
        looked at its chunks, and it is known to be complete only if the other one is. Raises
        GenerationChanged when a sweep ran meanwhile: the snapshot is withdrawn.
        """
        self.finish()
        if not self._index.present([snapshot.tree])[0]:
            raise ObjectMissing(
                f"the snapshot's root {snapshot.tree.hex()[:12]}… is in no pack",
                hint="Nothing was committed. Run: packstone check",
            )
        self._check_generation()
        # What vanished meanwhile is noticed now, whoever took it away. Where listings are paid for
        # the lock and the generation must do, which every sweep changes.
        if not self._storage.is_far:
            self._index.refresh(self._storage)
        if self._index.forgotten() != self._forgotten:
            raise GenerationChanged(
                "packs vanished while this snapshot was taken",
                hint="Nothing was committed. Run: packstone check, then the same command again",
            )
        data = seal_envelope(
            Kind.SNAPSHOT, self._sealer, self._random(32), encode_snapshot(snapshot)
        )
        snapshot_id = checksum(data).hex()
        try:
            self._storage.put(snapshot_name(snapshot_id), data)
            # After it: whoever takes a lock for dead deletes it before it lists snapshots.
            self._check_all()
        except BaseException:
            # Also when only its directory could not be synced: what is reported as not
            # committed must not be there.
            self._storage.delete(snapshot_name(snapshot_id))
            raise
        if like and not self._index.is_complete(like, self.generation):
            return snapshot_id
        # This saves look-ups later and no more: the snapshot is there, whatever becomes of it.
        with contextlib.suppress(StorageError):
            self._index.set_complete(snapshot_id, self.generation, self._forgotten)
        return snapshot_id

    def _check_all(self) -> None:
        """Raise unless the lock and the generation are ours still, whatever that costs."""
        held = self._held
        if held is None or not self._storage.is_far:
            if held is not None:
                held.check(surely=True)
            self._check_generation()
            return
        with ThreadPoolExecutor(1) as pool:  # two looks that do not depend on each other
            looking = pool.submit(held.check, surely=True)
            self._check_generation()
            looking.result()

    def _check_generation(self) -> None:
        if self._held is not None:
            self._held.check()
        found = read_state(self._storage, self._sealer).generation
        if found != self.generation:
            raise GenerationChanged(
                f"a sweep ran while this snapshot was taken: generation {found.hex()[:12]}…, "
                f"expected {self.generation.hex()[:12]}…",
                hint="Nothing was committed. Run the same command again",
            )

    def abandon(self) -> None:
        """Drop packs that are not durable yet; never raises."""
        if self._uploads is not None:
            self._uploads.close()
        with self._pack_lock:
            for writer in [*self._packs.values(), *self._closing]:
                writer.abandon()
            self._packs.clear()
            self._closing.clear()


def _spoilt(what: str, expected: str = "", found: str = "") -> Damaged:
    """Say that something of ours went wrong in memory; a disk had no part in it."""
    return Damaged(
        f"an encoded record {what}",
        expected=expected,
        found=found,
        hint="Nothing was committed. This points at memory or processor: test them",
    )
