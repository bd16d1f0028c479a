"""Files that hold more than their size says: grown since they were looked at, or of /proc."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

import packstone
from packstone.model import MIB
from packstone.operations.files import FileReader


@pytest.mark.parametrize("size", [MIB - 100, MIB - 98, 3 * MIB])
def test_a_small_file_grows_long(
    repository: packstone.Repository,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    """A file that grows before it is read, and then keeps still, is stored whole."""
    path = source / "dump"
    path.write_bytes(b"x" * 100)
    read = FileReader.read
    more = [Random(size).randbytes(size)]

    def grow(self: FileReader, *arguments: Any) -> Any:
        if arguments[1] == b"dump" and more:
            with open(path, "ab") as file:
                file.write(more.pop())
        return read(self, *arguments)

    monkeypatch.setattr(FileReader, "read", grow)
    assert repository.snapshot([source]).errors == []
    with repository.open_file("latest", os.fsencode(path)) as stored:
        assert stored.read() == path.read_bytes()
    (row,) = repository.ls("latest", os.fsencode(path))
    assert row.entry.size == size + 100 and row.entry.extras is None


def test_a_long_file_of_size_zero(repository: packstone.Repository) -> None:
    """Of a file of /proc that states no size, more than the first MiB is stored."""
    path = Path("/proc/kallsyms")
    try:
        content = path.read_bytes()
    except OSError:
        pytest.skip("no such file here")
    if path.stat().st_size or len(content) <= MIB:
        pytest.skip("it is short here")
    assert repository.snapshot([path]).errors == []
    with repository.open_file("latest", bytes(path)) as stored:
        assert stored.read() == content
