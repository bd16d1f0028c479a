"""Files of many spans: buffers are used again while packs still hold records back."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

import packstone
from packstone.chunking.chunker import Chunker, ChunkerParams
from packstone.model import ObjectType
from packstone.operations import files, storing
from packstone.repository.repository import ObjectRepository
from packstone.repository.writer import ObjectWriter

MIB = 1 << 20


@pytest.mark.parametrize("chunk_size", [64 << 10, MIB])
def test_incompressible_files_of_many_spans(tmp_path: Path, chunk_size: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rng = random.Random(chunk_size)
    contents = {f"file {number}": rng.randbytes(11 * MIB + number) for number in range(3)}
    for name, data in contents.items():
        (source / name).write_bytes(data)
    packstone.init(tmp_path / "repository", chunk_size=chunk_size, pack_size=8 * MIB).close()
    with packstone.open(tmp_path / "repository", threads=3) as repository:
        result = repository.snapshot([source])
        assert result.bytes_stored > result.bytes_total
        checked = repository.check(read_data=True)
        assert checked.errors == []
        for name, data in contents.items():
            with repository.open_file("latest", str(source / name)) as file:
                assert file.read() == data


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_buffer_may_be_used_again_at_once(tmp_path: Path, size: int) -> None:
    """Stored as they are, bytes wait in a pack's tail while the next span is read."""
    packstone.init(tmp_path / "repository").close()
    repository = ObjectRepository(str(tmp_path / "repository"))
    data = random.Random(size).randbytes(size)
    chunk_id = repository.hasher.id(ObjectType.CHUNK, data)
    buffer = bytearray(data)
    writer = repository.writer()
    assert writer.reserve([chunk_id]) == [True]
    writer.put_chunk(chunk_id, memoryview(buffer), (0, 0))
    buffer[:] = bytes(size)
    writer.finish()
    assert repository.reader.get(ObjectType.CHUNK, chunk_id) == data
    repository.close()


@pytest.mark.parametrize("span_size", [10_000, MIB, 4 * MIB])
def test_spans_leave_no_trace_in_chunks_and_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, span_size: int
) -> None:
    """Cut span by span on the workers, a file has the chunks and keys of one cut in one go."""
    monkeypatch.setattr(storing, "SPAN_SIZE", span_size)
    data = random.Random(span_size).randbytes(5 * MIB) + bytes(MIB) + b"end"
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(data)
    found: dict[bytes, tuple[int, int]] = {}
    put_chunk = ObjectWriter.put_chunk

    def put(self: ObjectWriter, chunk_id: bytes, chunk: Any, keys: Any, *others: Any) -> Any:
        found[chunk_id] = keys
        return put_chunk(self, chunk_id, chunk, keys, *others)

    monkeypatch.setattr(ObjectWriter, "put_chunk", put)
    packstone.init(tmp_path / "repository", chunk_size=64 << 10).close()
    with packstone.open(tmp_path / "repository", threads=3) as repository:
        repository.snapshot([source])
    opened = ObjectRepository(str(tmp_path / "repository"))
    hasher = opened.hasher
    chunker = Chunker(ChunkerParams(64 << 10, hasher.cutting_secret))
    ends = chunker.cut(data, 0, len(data), True)
    expected: dict[bytes, tuple[int, int]] = {}
    for start, end in zip([0, *ends], ends, strict=False):
        chunk_id = hasher.id(ObjectType.CHUNK, data[start:end])
        first, last = chunker.keys(data, (start, end), 0, len(data))
        expected.setdefault(chunk_id, (first, last))
    opened.close()
    assert found.keys() == expected.keys()
    zeros = hasher.id(ObjectType.CHUNK, bytes(chunker.maximum))  # stands at several places
    assert all(found[key] == keys for key, keys in expected.items() if key != zeros)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_unreadable_span_ends_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Nothing reads a file's descriptor any more once it is closed."""
    source = tmp_path / "source"
    source.mkdir()
    size = 40 * storing.SPAN_SIZE
    with open(source / "file", "wb") as file:
        file.truncate(size)
        for at in range(0, size, MIB):
            os.pwrite(file.fileno(), b"data", at)
    seen: set[int] = set()
    closed: set[int] = set()
    reads = 0
    read_into, close = files.read_into, os.close

    def read(fd: int, view: memoryview, offset: int) -> int:
        nonlocal reads
        reads += 1
        seen.add(fd)
        assert fd not in closed
        if offset >= 2 * storing.SPAN_SIZE:
            raise OSError(errno.EIO, "Input/output error")
        return read_into(fd, view, offset)

    def close_too(fd: int) -> None:
        if fd in seen:
            closed.add(fd)
        close(fd)

    monkeypatch.setattr(files, "read_into", read)
    monkeypatch.setattr(files, "extents", lambda fd, stat: [files.Extent(0, stat.size, False)])
    packstone.init(tmp_path / "repository").close()
    with packstone.open(tmp_path / "repository", threads=threads) as repository:
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "close", close_too)
            result = repository.snapshot([source])
        (problem,) = result.errors
        assert problem.path == os.fsencode(source / "file")
        assert "Input/output error" in problem.message
    assert reads < 20
