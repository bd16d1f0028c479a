"""What a snapshot is called, which one it continues, and when there is none."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

import pytest

import packstone


def packs(repository: packstone.Repository) -> dict[str, bytes]:
    """Return every file of a repository but its index."""
    top = Path(repository.location)
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and "index" not in path.relative_to(top).parts
    }


def test_what_it_is_called(repository: packstone.Repository, source: Path) -> None:
    (source / "file").write_bytes(b"1")
    result = repository.snapshot(
        [source], tags=["nightly", "crm"], host="elsewhere", time_ns=1_000_000_000_000_000_001
    )
    assert result.time_ns == 1_000_000_000_000_000_001
    row = repository.find_snapshot("latest")
    assert row.id == result.snapshot_id
    found = row.snapshot
    assert (found.tags, found.host) == (["nightly", "crm"], "elsewhere")
    assert found.time_ns == 1_000_000_000_000_000_001
    assert found.paths == [os.fsencode(source)]
    assert found.program.startswith("packstone ")
    assert found.summary["files"] == 1 and found.summary["bytes_total"] == 1
    cost = found.summary["bytes_read"], found.summary["bytes_stored"]
    assert cost == (result.bytes_read, result.bytes_stored) and 0 not in cost
    assert 0 < found.summary["duration_ns"] <= result.seconds * 1e9
    plain = repository.snapshot([source])
    assert repository.find_snapshot(plain.snapshot_id or "").snapshot.host == socket.gethostname()


def test_the_parent_is_the_newest_of_the_same_host_and_paths(
    repository: packstone.Repository, source: Path
) -> None:
    (source / "a").mkdir()
    (source / "b").mkdir()
    one = repository.snapshot([source / "a"], host="h").snapshot_id
    two = repository.snapshot([source / "a", source / "b"], host="h").snapshot_id
    other = repository.snapshot([source / "a"], host="i").snapshot_id
    assert repository.snapshot([source / "a"], host="h", dry_run=True).parent_id == one
    reordered = [source / "b", source / "a", source / "b"]
    assert repository.snapshot(reordered, host="h", dry_run=True).parent_id == two
    assert repository.snapshot([source / "a"], host="i", dry_run=True).parent_id == other
    assert repository.snapshot([source / "b"], host="h", dry_run=True).parent_id is None
    given = repository.snapshot([source / "a"], host="h", parent=(other or "")[:12])
    assert given.parent_id == other
    row = repository.find_snapshot(given.snapshot_id or "")
    assert row.snapshot.parent == bytes.fromhex(other or "")
    with pytest.raises(packstone.UsageError):
        repository.snapshot([source / "a"], parent="0123456789")


def test_skip_if_unchanged(repository: packstone.Repository, source: Path) -> None:
    (source / "file").write_bytes(b"1")
    first = repository.snapshot([source], skip_if_unchanged=True)
    assert first.snapshot_id is not None
    before = packs(repository)
    again = repository.snapshot([source], skip_if_unchanged=True)
    assert again.snapshot_id is None and again.parent_id == first.snapshot_id
    assert packs(repository) == before
    (source / "file").write_bytes(b"2")
    assert repository.snapshot([source], skip_if_unchanged=True).snapshot_id is not None
    os.utime(source / "file", ns=(1, 1))
    assert repository.snapshot([source], skip_if_unchanged=True).snapshot_id is not None
    assert len(repository.snapshots()) == 3


def test_dry_run_writes_nothing(repository: packstone.Repository, source: Path) -> None:
    (source / "text").write_bytes(b"line of text\n" * 100_000)
    (source / "noise").write_bytes(os.urandom(3 << 20))
    before = packs(repository)
    tried = repository.snapshot([source], dry_run=True)
    assert tried.snapshot_id is None
    assert packs(repository) == before
    real = repository.snapshot([source])
    for field in ("files_new", "bytes_total", "bytes_read", "bytes_added", "chunks_new", "dirs"):
        assert getattr(tried, field) == getattr(real, field), field
    assert 0 < tried.bytes_stored <= real.bytes_stored < tried.bytes_stored * 1.1 + 20_000
    before = packs(repository)
    (source / "text").write_bytes(b"other text\n" * 100_000)
    assert repository.snapshot([source], dry_run=True).files_changed == 1
    assert packs(repository) == before
    assert repository.check(read_data=True).errors == []


def test_level(tmp_path: Path, source: Path) -> None:
    chosen = random.Random(4).choices([b"alpha", b"beta", b"gamma", b"delta", b"omega"], k=100_000)
    text = b" ".join(chosen)
    (source / "text").write_bytes(text)
    stored = []
    for level in (1, 19):
        with packstone.init(tmp_path / str(level)) as repository:
            stored.append(repository.snapshot([source], level=level).bytes_stored)
    assert stored[1] < stored[0]


def test_counts_and_sizes_are_true(repository: packstone.Repository, source: Path) -> None:
    (source / "below").mkdir()
    (source / "below" / "a").write_bytes(b"aa")
    (source / "b").write_bytes(os.urandom(100_000))
    os.link(source / "b", source / "c")
    os.symlink("b", source / "link")
    result = repository.snapshot([source])
    assert result.files_new == 3
    assert result.dirs == len(source.parts) - 1 + 1
    assert result.bytes_total == 2 + 200_000
    assert result.bytes_read == 2 + 100_000
    assert result.chunks_new <= result.chunks_total
    sizes = sum(len(data) for name, data in packs(repository).items() if "packs/" in name)
    assert result.bytes_stored == sizes
    assert result.bytes_added >= 100_002
    assert result.seconds > 0
