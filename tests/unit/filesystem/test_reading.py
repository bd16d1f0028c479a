"""open_regular, extents, read_into."""

from __future__ import annotations

import errno
import itertools
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packstone.filesystem.metadata import stat_of
from packstone.filesystem.reading import Extent, extents, open_regular, read_into

BLOCK = 65536


def extents_of(path: Path) -> list[Extent]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return list(extents(fd, stat_of(os.fstat(fd))))
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "missing"])
def test_open_regular_opens_nothing_else(here: int, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "f"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "real").write_bytes(b"x")
        path.symlink_to("real")
    elif kind == "directory":
        path.mkdir()
    began = time.monotonic()
    with pytest.raises(OSError) as caught:
        open_regular(here, b"f")
    assert caught.value.errno == (errno.ENOENT if kind == "missing" else errno.ELOOP)
    assert time.monotonic() - began < 2


def test_read_into_fills_or_ends(here: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(range(100)))
    fd = open_regular(here, b"f")
    try:
        buffer = bytearray(50)
        assert read_into(fd, memoryview(buffer), 10) == 50
        assert buffer == bytes(range(10, 60))
        assert read_into(fd, memoryview(buffer), 80) == 20
        assert buffer[:20] == bytes(range(80, 100))
        assert read_into(fd, memoryview(buffer), 100) == 0
        assert read_into(fd, memoryview(buffer)[:0], 0) == 0
    finally:
        os.close(fd)


def test_read_into_goes_on_after_short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(1000)

    def preadv(fd: int, views: list[memoryview], offset: int) -> int:
        size = min(7, len(views[0]), len(content) - offset)
        views[0][:size] = content[offset : offset + size]
        return size

    monkeypatch.setattr(os, "preadv", preadv)
    buffer = bytearray(900)
    assert read_into(0, memoryview(buffer), 50) == 900
    assert buffer == content[50:950]


def test_dense_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "dense").write_bytes(b"x" * 100_000)
    assert extents_of(tmp_path / "empty") == []
    assert extents_of(tmp_path / "dense") == [Extent(0, 100_000, False)]


def test_a_hole_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    os.truncate(path, 1 << 30)
    assert extents_of(path) == [Extent(0, 1 << 30, True)]


def test_a_tebibyte_with_two_extents_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "f"
    size = 1 << 40
    with open(path, "wb") as file:
        file.truncate(size)
        for offset in (1 << 30, size - 2 * BLOCK):
            file.seek(offset)
            file.write(b"x" * BLOCK)
    began = time.monotonic()
    found = extents_of(path)
    assert time.monotonic() - began < 5
    assert sum(extent.size for extent in found) == size
    data = [extent for extent in found if not extent.hole]
    assert len(data) == 2
    assert data[0].offset <= 1 << 30 < data[0].offset + data[0].size
    assert sum(extent.size for extent in data) < 10 * BLOCK


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    blocks=st.lists(st.booleans(), max_size=12),
    tail=st.integers(0, BLOCK),
    shrink=st.integers(0, 3 * BLOCK),
)
def test_extents_cover_the_file_exactly(
    tmp_path: Path, blocks: list[bool], tail: int, shrink: int
) -> None:
    path = tmp_path / "f"
    size = len(blocks) * BLOCK + tail
    with open(path, "wb") as file:
        file.truncate(size)
        for i, written in enumerate(blocks):
            if written:
                file.seek(i * BLOCK)
                file.write(b"x" * BLOCK)
    status = stat_of(os.stat(path))
    fd = os.open(path, os.O_RDWR)
    try:
        os.ftruncate(fd, max(0, size - shrink))  # also when it shrinks after the stat
        found = list(extents(fd, status))
        assert sum(extent.size for extent in found) == size
        position = 0
        for extent in found:
            assert extent.offset == position and extent.size > 0
            position += extent.size
            if extent.hole:
                content = os.pread(fd, extent.size, extent.offset)
                assert not content.strip(b"\0")
        for one, other in itertools.pairwise(found):
            assert one.hole != other.hole
    finally:
        os.close(fd)


def test_without_knowledge_of_holes_there_is_one_extent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.touch()
    os.truncate(path, 1 << 20)

    def lseek(fd: int, offset: int, whence: int) -> int:
        raise OSError(errno.EINVAL, "no SEEK_DATA here")

    monkeypatch.setattr(os, "lseek", lseek)
    assert extents_of(path) == [Extent(0, 1 << 20, False)]


def test_a_failing_disk_is_not_a_file_without_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.touch()
    os.truncate(path, 1 << 20)

    def lseek(fd: int, offset: int, whence: int) -> int:
        raise OSError(errno.EIO, "bad sector")

    monkeypatch.setattr(os, "lseek", lseek)
    with pytest.raises(OSError, match="bad sector"):
        extents_of(path)
