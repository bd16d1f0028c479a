"""Hard-link groups: of files, links and fifos, across directories, in whole and in part."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from compare_trees import assert_equal_trees, describe

import packstone

RoundTrip = Callable[..., packstone.SnapshotResult]


def test_groups_across_directories(
    repository: packstone.Repository, source: Path, round_trip: RoundTrip
) -> None:
    (source / "b" / "below").mkdir(parents=True)
    (source / "a").mkdir()
    (source / "z").mkdir()
    (source / "b" / "below" / "small").write_bytes(b"small")
    (source / "b" / "long").write_bytes(random.Random(1).randbytes(3 << 20))
    (source / "b" / "empty").write_bytes(b"")
    os.symlink("nowhere", source / "b" / "symlink")
    os.mkfifo(source / "b" / "fifo")
    for name in ("below/small", "long", "empty", "symlink", "fifo"):
        for other in ("a", "z"):
            new = source / other / name.replace("/", "-")
            os.link(source / "b" / name, new, follow_symlinks=False)
    os.link(source / "b" / "long", source / "b" / "long too")
    assert len({row.group for row in describe(source).values()} - {b""}) == 5
    result = round_trip(repository, source)
    assert result.bytes_read == (3 << 20) + 5, "each inode is read once"
    assert result.bytes_added < (4 << 20)


def test_two_files_alike_are_not_linked(
    repository: packstone.Repository, source: Path, round_trip: RoundTrip
) -> None:
    (source / "one").write_bytes(b"the same bytes")
    (source / "two").write_bytes(b"the same bytes")
    os.utime(source / "one", ns=(0, 0))
    os.utime(source / "two", ns=(0, 0))
    round_trip(repository, source)
    restored = Path(f"{source.parent}/target{source}")
    assert (restored / "one").stat().st_nlink == (restored / "two").stat().st_nlink == 1


def test_a_group_with_names_outside_the_source(
    repository: packstone.Repository, source: Path, round_trip: RoundTrip
) -> None:
    (source.parent / "outside").write_bytes(b"linked")
    os.link(source.parent / "outside", source / "inside")
    os.link(source.parent / "outside", source / "inside too")
    round_trip(repository, source)


@pytest.mark.parametrize("kind", ["small", "long", "symlink", "fifo"])
def test_only_the_second_name_is_restored(
    repository: packstone.Repository, source: Path, tmp_path: Path, kind: str
) -> None:
    (source / "a").mkdir()
    (source / "b").mkdir()
    first, second = source / "a" / "first", source / "b" / "second"
    if kind == "symlink":
        os.symlink("target", first)
    elif kind == "fifo":
        os.mkfifo(first)
    else:
        first.write_bytes(b"small" if kind == "small" else random.Random(2).randbytes(2 << 20))
    os.link(first, second, follow_symlinks=False)
    repository.snapshot([source])

    by_path = tmp_path / "by path"
    assert repository.restore("latest", by_path, path=os.fsencode(source / "b")).errors == []
    assert_equal_trees(source / "b", by_path, top=False)
    by_pattern = tmp_path / "by pattern"
    assert repository.restore("latest", by_pattern, include=["second"]).errors == []
    assert_equal_trees(source / "b", f"{by_pattern}{source}/b")
    assert not os.path.lexists(f"{by_pattern}{source}/a")
    alone = tmp_path / "alone"
    assert repository.restore("latest", alone, path=os.fsencode(second)).errors == []
    assert os.lstat(alone / "second").st_mode == second.lstat().st_mode
    if not stat.S_ISFIFO(second.lstat().st_mode):
        with_content = os.readlink if kind == "symlink" else _read
        assert with_content(alone / "second") == with_content(second)


def _read(path: Path) -> bytes:
    return path.read_bytes()


def test_groups_that_change(settled: packstone.Repository, source: Path, tmp_path: Path) -> None:
    """The first name goes, a new one comes: the content is not read again, the group holds."""
    for name in ("b", "c", "d"):
        if name == "b":
            (source / name).write_bytes(b"content")
        else:
            os.link(source / "b", source / name)
    assert settled.snapshot([source]).errors == []
    steps: list[Callable[[], object]] = [
        lambda: os.unlink(source / "b"),
        lambda: os.link(source / "c", source / "a"),
        lambda: (source / "d").write_bytes(b"another content"),
        lambda: [os.unlink(source / "c"), (source / "c").write_bytes(b"on its own")],
    ]
    for number, step in enumerate(steps):
        step()
        assert settled.snapshot([source]).errors == []
        target = tmp_path / f"target {number}"
        assert settled.restore("latest", target, path=os.fsencode(source)).errors == []
        assert_equal_trees(source, target, top=False)
        assert settled.check(read_data=True).errors == []


def test_over_names_that_are_there(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    (source / "one").write_bytes(b"linked")
    os.link(source / "one", source / "two")
    repository.snapshot([source])
    target = tmp_path / "target"
    for overwrite in (None, "changed", "always", "never"):
        result = repository.restore("latest", target, path=os.fsencode(source), overwrite=overwrite)
        assert result.errors == []
        assert_equal_trees(source, target, top=False)
    os.unlink(target / "two")
    (target / "two").write_bytes(b"torn apart")
    repository.restore("latest", target, path=os.fsencode(source), overwrite="changed")
    assert_equal_trees(source, target, top=False)
