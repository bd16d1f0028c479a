"""What a cache on this machine does to a listing or a range, and must not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

import packstone
from packstone.model import MIB
from packstone.repository.cached import BLOCK, CachedStorage
from packstone.storage.base import open_storage
from packstone.storage.objects import ObjectStorage


def test_a_large_snapshot_is_listed_by_a_new_machine(url: str, tmp_path: Path) -> None:
    """Snapshots are fetched together, and one of them may take some MiB."""
    tags = [f"{'x' * 90}-{number}" for number in range(25_000)]
    (tmp_path / "source").mkdir()
    packstone.init(url).close()
    with packstone.open(url) as repository:
        repository.snapshot([tmp_path / "source"])
        repository.snapshot([tmp_path / "source"], tags=tags)
    assert max(size for _name, size in open_storage(url).list("snapshots")) > BLOCK
    shutil.rmtree(tmp_path / "cache")
    with packstone.open(url) as repository:
        assert len(repository.snapshots()) == 2


def test_a_block_that_another_process_fetches_meanwhile(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is shared: what was missing a moment ago may be there."""
    inner = open_storage(url)
    assert isinstance(inner, ObjectStorage)
    inner.make_directories([])
    name, data = f"packs/00/{'00' * 32}", os.urandom(MIB)
    inner.put(name, data)
    mine, others = CachedStorage(inner), CachedStorage(inner)
    missing = mine._missing
    looks = 0

    def look(name: str, first: int, last: int) -> Sequence[int]:
        nonlocal looks
        looks += 1
        if looks == 3:
            others.get_range(name, 0, 10)
        return missing(name, first, last)

    monkeypatch.setattr(mine, "_missing", look)
    assert mine.get_range(name, 100, 50) == data[100:150]
    assert looks >= 3
    mine.close()
