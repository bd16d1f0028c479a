"""The steps from id to disk: look up, compress, decode and verify, write a pack."""

from __future__ import annotations

import os
import random
import shutil

from step_lanes import AVERAGE, HASHER, Lane, chunks_of
from stopwatch import Pass

from packstone.codec.compression import Compressor
from packstone.codec.encryption import Sealer
from packstone.model import MIB, ObjectType
from packstone.repository.index import Index
from packstone.repository.packs import DATA, OBJECT, Pack, PackWriter, RecordRow
from packstone.storage.local import LocalStorage

INDEXED = 1_000_000
ASKED = 1_000  # ids in one question, as many as a span of 128 MiB has
LEVEL = 3
PLAIN = Sealer(bytes(16))


def lookup_pass(lane: Lane) -> Pass:
    """Ask for ids that are there, in no order; each stands for a chunk of average size."""
    rng = random.Random(71)
    directory = lane.scratch / "index"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    index = Index(str(directory), PLAIN)
    ids = [rng.randbytes(32) for _ in range(INDEXED)]
    for number in range(0, INDEXED, 100_000):
        rows = [
            RecordRow(
                128 + place, 1, AVERAGE, 0, OBJECT.pack(object_id, AVERAGE, 1), bytes(16), [], 0, 0
            )
            for place, object_id in enumerate(ids[number : number + 100_000])
        ]
        index.add(Pack(f"{number:064x}", DATA, bytes(32), 1 << 30, rows))
    index.flush()
    rng.shuffle(ids)
    questions = [ids[at : at + ASKED] for at in range(0, 100 * ASKED, ASKED)]

    def step() -> int:
        for question in questions:
            if not all(index.present(question)):
                raise AssertionError("an id that was put is not found")
        return len(questions) * ASKED * AVERAGE

    return step


def compress_pass(lane: Lane, data: bytes) -> Pass:
    codec = Compressor(LEVEL)
    chunks = chunks_of(data[: 16 * MIB])

    def step() -> int:
        for chunk in chunks:
            codec.encode(chunk)
        return sum(map(len, chunks))

    return step


def decode_pass(lane: Lane, data: bytes) -> Pass:
    codec = Compressor(LEVEL)
    records = [(*codec.encode(chunk), len(chunk)) for chunk in chunks_of(data)]
    object_id = HASHER.function(ObjectType.CHUNK)
    size = sum(raw_size for _, _, raw_size in records)

    def step() -> int:
        for kind, payload, raw_size in records:
            object_id(codec.decode(kind, payload, raw_size))
        return size

    return step


def pack_pass(lane: Lane) -> Pass:
    """Write one pack of stored chunks and remove it again."""
    storage = LocalStorage(str(lane.scratch / "packs"))
    storage.make_directories(["tmp", "packs", *(f"packs/{first:02x}" for first in range(256))])
    object_id = HASHER.function(ObjectType.CHUNK)
    records = [
        (chunk, OBJECT.pack(object_id(chunk), len(chunk), ObjectType.CHUNK), bytes(16))
        for chunk in chunks_of(lane.data)
    ]

    def step() -> int:
        writer = PackWriter(storage, DATA, PLAIN, os.urandom(32))
        for chunk, row, keys in records:
            writer.add(chunk, len(chunk), 0, row, keys)
        pack = writer.finish()
        storage.delete(f"packs/{pack.id[:2]}/{pack.id}")
        return pack.size

    return step
