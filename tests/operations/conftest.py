"""Fixtures: a repository with small chunks, places to put trees, the round trip itself."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compare_trees import assert_equal_trees, remove_tree

import packstone


@pytest.fixture
def big_place() -> Iterator[Path]:
    """A directory for what is quicker in memory, or what pytest could not remove again."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    yield path
    remove_tree(path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where indexes go, of this process and its children."""
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def repository(big_place: Path) -> Iterator[packstone.Repository]:
    """A new plain repository with small chunks, so that small files have several."""
    with packstone.init(big_place / "repository", chunk_size=4096) as repository:
        yield repository


@pytest.fixture
def settled(big_place: Path) -> Iterator[packstone.Repository]:
    """A repository whose clock is ten seconds ahead: files just made are old enough to trust."""
    packstone.init(big_place / "settled", chunk_size=4096).close()
    with packstone.Repository(big_place / "settled", clock=later) as repository:
        yield repository


def later() -> int:
    return time.time_ns() + 10_000_000_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty directory to fill."""
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def round_trip(tmp_path: Path) -> Callable[..., packstone.SnapshotResult]:
    """Take a snapshot, restore it, compare everything; returns the snapshot's result."""

    def run(
        repository: packstone.Repository,
        source: Path,
        target: Path | None = None,
        **options: object,
    ) -> packstone.SnapshotResult:
        target = target or tmp_path / "target"
        result = repository.snapshot([source], **options)
        assert result.errors == []
        assert result.snapshot_id is not None
        restored = repository.restore(result.snapshot_id, target)
        assert restored.errors == [] and restored.warnings == []
        assert_equal_trees(source, Path(f"{target}{source}"))
        assert repository.check(read_data=True).errors == []
        return result

    return run


@pytest.fixture
def open_path(tmp_path: Path) -> Iterator[Path]:
    """A directory that an unprivileged user may write to, with a way to it."""
    place = tmp_path / "open"
    place.mkdir()
    changed = []
    for parent in [place, *place.parents][:-1]:
        mode = stat.S_IMODE(parent.stat().st_mode)
        if not mode & 0o001 and parent.stat().st_uid == os.geteuid():
            changed.append((parent, mode))
            parent.chmod(mode | 0o011)
    place.chmod(0o777)
    yield place
    for parent, mode in changed:
        parent.chmod(mode)
