"""Files of many spans: buffers are used again while packs still hold records back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import packstone
from packstone.model import ObjectType
from packstone.repository.repository import ObjectRepository

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
