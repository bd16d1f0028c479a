"""The steps from file to id: memcpy, read, cut, hash, and all of them in a row.

Each `*_pass` returns a function that does its step once over one lane and returns the bytes.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from stopwatch import Pass

from packstone.chunking.chunker import Chunker, ChunkerParams
from packstone.codec.hashing import Hasher, plain_family
from packstone.model import ObjectType

AVERAGE = 128 << 10
READ = 4 << 20
COPY = 64 << 20
HELD = 64 << 20  # of each lane's data in memory: more than the caches hold
HASHER = Hasher(plain_family())
PARAMS = ChunkerParams(AVERAGE, HASHER.cutting_secret)


class Lane:
    """What one thread works on: a file, the same bytes in part in memory, a scratch directory."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self.scratch = scratch
        self.size = path.stat().st_size
        half = min(HELD, self.size) // 2
        with open(path, "rb") as file:
            self.text = file.read(half)
            file.seek(self.size - half)
            self.noise = file.read(half)
        self.data = self.text + self.noise
        scratch.mkdir(parents=True, exist_ok=True)


def chunks_of(data: bytes) -> list[memoryview]:
    """Return the chunks of `data` as views."""
    view = memoryview(data)
    ends = Chunker(PARAMS).cut(data, 0, len(data), True)
    return [view[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def memcpy_pass(lane: Lane) -> Pass:
    size = min(COPY, len(lane.data))
    source = ctypes.create_string_buffer(lane.data[:size], size)
    target = ctypes.create_string_buffer(size)
    move = ctypes.memmove  # releases the interpreter's lock, which slices do not

    def step() -> int:
        move(target, source, size)
        return size

    return step


def read_pass(lane: Lane) -> Pass:
    buffer = bytearray(READ)
    descriptor = os.open(lane.path, os.O_RDONLY)

    def step() -> int:
        offset = 0
        while got := os.preadv(descriptor, [buffer], offset):
            offset += got
        return offset

    return step


def cut_pass(lane: Lane, path: str) -> Pass:
    chunker = Chunker(PARAMS, path)
    data, size = lane.data, len(lane.data)

    def step() -> int:
        for begin in range(0, size, READ):
            chunker.cut(data, begin, min(begin + READ, size), True)
        return size

    return step


def hash_pass(lane: Lane) -> Pass:
    chunks = chunks_of(lane.data)
    object_id = HASHER.function(ObjectType.CHUNK)

    def step() -> int:
        for chunk in chunks:
            object_id(chunk)
        return len(lane.data)

    return step


def chain_pass(lane: Lane, span: int) -> Pass:
    """Read a span, cut it, hash its chunks; what follows the last cut moves to the front."""
    chunker = Chunker(PARAMS)
    object_id = HASHER.function(ObjectType.CHUNK)
    buffer = bytearray(span + PARAMS.maximum)
    view = memoryview(buffer)
    descriptor = os.open(lane.path, os.O_RDONLY)
    total = lane.size

    def step() -> int:
        offset = held = 0
        while offset < total:
            got = os.preadv(descriptor, [view[held : held + span]], offset)
            offset += got
            end = held + got
            begin = 0
            for cut in chunker.cut(buffer, 0, end, offset == total):
                object_id(view[begin:cut])
                begin = cut
            held = end - begin
            view[:held] = view[begin:end]
        return offset

    return step
