"""A storage in memory that writes down what happens to it, and a session that stores something."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from contract.storage_suite import MemorySpool, MemoryStorage

from packstone.codec.compression import Compressor
from packstone.codec.encryption import Sealer
from packstone.codec.hashing import Hasher, plain_family
from packstone.model import Buffer, ObjectType, Snapshot
from packstone.repository.index import Index
from packstone.repository.layout import State, encode_state, list_ids
from packstone.repository.reader import ObjectReader
from packstone.repository.trees import DirectoryWriter
from packstone.repository.writer import ObjectWriter

OURS, SALT = Sealer(bytes(range(16))), bytes(32)
HASHER = Hasher(plain_family())
CHUNK = ObjectType.CHUNK
GENERATIONS = [bytes([number]) * 16 for number in (1, 2)]


class Recording(MemoryStorage):
    """Writes down every step; `at` maps a step's text to what is to happen just after it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []
        self.at: dict[str, Callable[[], None]] = {}
        self.set_generation(GENERATIONS[0])
        self.steps.clear()

    def set_generation(self, generation: bytes) -> None:
        self.files["state"] = encode_state(State(generation=generation), OURS, SALT)

    def step(self, text: str) -> None:
        self.steps.append(text)
        for prefix, action in list(self.at.items()):
            if text.startswith(prefix):
                del self.at[prefix]
                action()

    def put(self, name: str, data: Buffer) -> None:
        super().put(name, data)
        self.step(f"put {name}")

    def get(self, name: str, limit: int) -> bytes:
        data = super().get(name, limit)
        self.step(f"get {name}")
        return data

    def delete(self, name: str) -> None:
        super().delete(name)
        self.step(f"delete {name}")

    def spool(self) -> RecordingSpool:
        self.step("spool")
        return RecordingSpool(self)


class RecordingSpool(MemorySpool):
    def __init__(self, storage: Recording) -> None:
        super().__init__(storage)
        self.recording = storage

    def write(self, data: Buffer) -> None:
        super().write(data)
        self.recording.step("write")

    def read_at(self, offset: int, size: int) -> bytes:
        self.recording.step("read back")
        return super().read_at(offset, size)

    def commit(self, name: str) -> None:
        self.recording.files[name] = bytes(self._data)
        self.recording.step(f"commit {name}")

    def abandon(self) -> None:
        super().abandon()
        self.recording.step("abandon")


class RecordingIndex(Index):
    recording: Recording | None = None

    def _write(self, change: Any) -> None:
        super()._write(change)
        if self.recording is not None:
            self.recording.step("index")

    def set_complete(self, snapshot_id: str, *more: bytes) -> None:
        super().set_complete(snapshot_id, *more)
        if self.recording is not None:
            self.recording.step("complete")


def reader_of(storage: Recording, index: Index, sealer: Sealer = OURS) -> ObjectReader:
    """Return what a writer reads the bases of deltas with."""
    return ObjectReader(storage, index, HASHER, sealer, Compressor(3), lambda text: None)


def put_chunk(writer: ObjectWriter, data: bytes) -> bytes:
    chunk_id = HASHER.id(CHUNK, data)
    if writer.reserve([chunk_id])[0]:
        writer.put_chunk(chunk_id, data, (1, 2))
    return chunk_id


def put_some(writer: ObjectWriter, seed: int = 0, count: int = 12) -> Snapshot:
    """Store chunks of all sizes and a tree; return the snapshot that names it."""
    rng = Random(seed)
    for number in range(count):
        put_chunk(writer, rng.randbytes(300_000 if number % 4 == 0 else rng.randrange(1, 9000)))
    tree = DirectoryWriter(writer.put).finish()
    return Snapshot(time_ns=seed, host="h", paths=[b"/a"], tree=tree)


def snapshots(storage: Recording) -> list[str]:
    return [snapshot_id for snapshot_id, _ in list_ids(storage, "snapshots")]
