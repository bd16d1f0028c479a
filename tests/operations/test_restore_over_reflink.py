"""Where the file system shares blocks, a changed file takes only the room of what changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from compare_trees import describe, differences
from filesystems import mounted_btrfs

import packstone
from packstone.filesystem import existing


@pytest.fixture
def shared_blocks(big_place: Path) -> Iterator[Path]:
    """A small btrfs."""
    with mounted_btrfs(big_place / "image", big_place / "mounted", 400 << 20) as place:
        yield place


def free(place: Path) -> int:
    os.sync()
    status = os.statvfs(place)
    return status.f_bfree * status.f_frsize


def test_a_changed_file_is_cloned(
    shared_blocks: Path, repository: packstone.Repository, source: Path
) -> None:
    target = shared_blocks / "target"
    target.mkdir()
    block = os.urandom(1 << 20)
    with open(source / "long", "wb") as file:
        for at in range(48):
            if at != 7:  # a hole here
                file.seek(at << 20)
                file.write(at.to_bytes(4, "big") + block[4:])
    shutil.copyfile(source / "long", target / "long")
    with open(target / "long", "r+b") as changed:
        changed.seek(7 << 20)
        changed.write(block)  # where the hole belongs
        changed.seek(30 << 20)
        changed.write(b"changed")
        changed.seek(0, os.SEEK_END)
        changed.write(block)  # longer than it should be
    old = os.open(target / "long", os.O_RDONLY)  # it keeps its blocks: what is new must show
    snapshot_id = repository.snapshot([source]).snapshot_id or ""
    room = free(shared_blocks)
    try:
        result = repository.restore(
            snapshot_id, target, path=os.fsencode(source), overwrite="changed", verify=True
        )
        taken = room - free(shared_blocks)
    finally:
        os.close(old)
    assert result.errors == []
    assert result.bytes_written < 1 << 20
    assert taken < 8 << 20, f"{taken} bytes for a change of a few"
    assert differences(describe(source, top=False), describe(target, top=False)) == []


def test_what_is_cloned_is_hashed_afterwards(
    shared_blocks: Path,
    repository: packstone.Repository,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old file is changed after the first look at it, before it is cloned."""
    target = shared_blocks / "target"
    target.mkdir()
    data = os.urandom(4 << 20)
    (source / "long").write_bytes(data)
    (target / "long").write_bytes(data[:-1] + b"?")
    snapshot_id = repository.snapshot([source]).snapshot_id or ""
    clone = existing.clone

    def change_first(source_fd: int, target_fd: int) -> bool:
        with open(target / "long", "r+b") as file:
            file.write(b"meanwhile")
        return clone(source_fd, target_fd)

    monkeypatch.setattr("packstone.filesystem.target_file.clone", change_first)
    result = repository.restore(snapshot_id, target, path=os.fsencode(source), overwrite="changed")
    assert result.errors == []
    assert (target / "long").read_bytes() == data
