"""Unchanged files are not opened; whatever could have changed is read (rows 21 and S)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compare_trees import assert_equal_trees
from operations.samples import make_one_of_each

import packstone
from packstone.filesystem import _scan
from packstone.operations import files


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The names of source files that were opened, in batches or alone."""
    names: list[bytes] = []

    class Scan:
        @staticmethod
        def read_files(items: Any, limit: int) -> Any:
            names.extend(item[1] for item in items)
            return _scan.read_files(items, limit)

    open_regular = files.open_regular

    def open_one(directory_fd: int, name: bytes) -> int:
        names.append(name)
        return open_regular(directory_fd, name)

    monkeypatch.setattr(files, "_scan", Scan)
    monkeypatch.setattr(files, "open_regular", open_one)
    yield names


@pytest.fixture
def three(source: Path) -> Path:
    """Three files: empty, small, long."""
    (source / "empty").write_bytes(b"")
    (source / "small").write_bytes(b"small")
    (source / "below").mkdir()
    (source / "below" / "long").write_bytes(os.urandom(3 << 20))
    return source


def test_nothing_is_opened(
    settled: packstone.Repository, three: Path, opened: list[bytes], tmp_path: Path
) -> None:
    make_one_of_each(three)
    first = settled.snapshot([three])
    assert b"small" in opened and b"long" in opened
    opened.clear()
    again = settled.snapshot([three])
    assert opened == []
    assert again.parent_id == first.snapshot_id
    assert (again.files_new, again.files_changed, again.bytes_read) == (0, 0, 0)
    assert again.files_unmodified == first.files_new
    assert again.bytes_total == first.bytes_total
    assert again.bytes_added == 0
    rows = settled.snapshots()
    assert rows[0].snapshot.tree == rows[1].snapshot.tree
    os.unlink(three / "socket")
    assert settled.restore("latest", tmp_path / "target", path=os.fsencode(three)).errors == []
    assert_equal_trees(three, tmp_path / "target", top=False, ignore=("mtime_ns",))


def test_access_times_stay(settled: packstone.Repository, three: Path) -> None:
    """Proof without a look inside: reading a file would move its access time."""
    for path in (three / "small", three / "below" / "long"):
        os.utime(path, ns=(1, path.stat().st_mtime_ns))
    settled.snapshot([three])
    for path in (three / "small", three / "below" / "long"):
        os.utime(path, ns=(1, path.stat().st_mtime_ns))
    settled.snapshot([three])  # utime moved ctime
    before = (three / "small").stat().st_atime_ns
    settled.snapshot([three])
    assert (three / "small").stat().st_atime_ns == before


def test_files_younger_than_two_seconds_are_read_again(
    repository: packstone.Repository, three: Path, opened: list[bytes]
) -> None:
    """Racy: a change within the same tick of the clock would keep the times."""
    repository.snapshot([three])
    opened.clear()
    result = repository.snapshot([three])
    assert sorted(opened) == [b"empty", b"long", b"small"]
    assert result.bytes_read == (3 << 20) + 5
    assert result.bytes_added == 0
    rows = repository.snapshots()
    assert rows[0].snapshot.tree == rows[1].snapshot.tree


@pytest.mark.parametrize(("age", "read"), [(1_999_999_999, True), (2_000_000_001, False)])
def test_the_limit_of_two_seconds(
    tmp_path: Path, three: Path, opened: list[bytes], age: int, read: bool
) -> None:
    newest = max(path.stat().st_ctime_ns for path in three.rglob("*"))
    packstone.init(tmp_path / "repository").close()
    with packstone.Repository(tmp_path / "repository", clock=lambda: newest + age) as repository:
        repository.snapshot([three])
        opened.clear()
        repository.snapshot([three])
        assert (b"long" in opened) is read


def test_a_snapshot_in_disguise_is_not_trusted_longer(
    repository: packstone.Repository, three: Path, opened: list[bytes]
) -> None:
    """`time_ns` is what the snapshot is called; the clock of the machine decides what is racy."""
    repository.snapshot([three], time_ns=time.time_ns() + 10**15)
    opened.clear()
    repository.snapshot([three], time_ns=time.time_ns() + 2 * 10**15)
    assert b"small" in opened


def test_same_size_and_times_put_back(
    settled: packstone.Repository, three: Path, opened: list[bytes]
) -> None:
    """ctime cannot be put back: the change is found."""
    settled.snapshot([three])
    path = three / "small"
    before = path.stat()
    opened.clear()
    time.sleep(0.02)  # for file systems whose clock ticks in hundredths
    path.write_bytes(b"SMALL")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (5, before.st_mtime_ns)
    result = settled.snapshot([three])
    assert opened == [b"small"]
    assert result.files_changed == 1
    with settled.open_file("latest", os.fsencode(path)) as stored:
        assert stored.read() == b"SMALL"


@pytest.mark.parametrize("change", ["size", "mtime", "ctime", "inode"])
def test_each_field_alone_is_enough(
    settled: packstone.Repository, three: Path, opened: list[bytes], change: str
) -> None:
    """Seen from the stored side: the parent's entry differs in one field only."""
    settled.snapshot([three])
    entries = {row.path: row.entry for row in settled.ls("latest", recursive=True)}
    opened.clear()
    path = three / "small"
    time.sleep(0.02)
    if change == "size":
        path.write_bytes(b"longer than before")
    elif change == "mtime":
        os.utime(path, ns=(0, 1))
    elif change == "ctime":
        path.chmod(0o600)
        path.chmod(0o644)
    else:
        shutil.copy2(path, three / "copy")
        os.rename(three / "copy", path)
    settled.snapshot([three])
    assert opened == [b"small"]
    assert entries[os.fsencode(path)].size == 5


def test_ignore_inode(settled: packstone.Repository, three: Path, opened: list[bytes]) -> None:
    """Network file systems invent inode numbers; told to, they are not compared."""
    settled.snapshot([three])
    wrong = _with_other_inodes(settled, three)
    opened.clear()
    settled.snapshot([three], parent=wrong, ignore_inode=True)
    assert opened == []
    settled.snapshot([three], parent=wrong)
    assert sorted(opened) == [b"empty", b"long", b"small"]


def _with_other_inodes(repository: packstone.Repository, root: Path) -> str:
    """Take a snapshot of the tree as a file system would show it that renumbered its inodes."""
    from packstone.operations import build_tree

    walk = build_tree.walk

    def renumbered(*arguments: Any) -> Iterator[Any]:
        for event in walk(*arguments):
            if hasattr(event, "stats"):
                rows = [(*row[:6], row[6] + 1_000_000, *row[7:]) for row in event.stats]
                event = event._replace(stats=rows)
            yield event

    build_tree.walk = renumbered  # type: ignore[assignment]
    try:
        result = repository.snapshot([root], ignore_inode=True)
    finally:
        build_tree.walk = walk
    assert result.snapshot_id is not None
    return result.snapshot_id


def test_read_all(settled: packstone.Repository, three: Path, opened: list[bytes]) -> None:
    settled.snapshot([three])
    opened.clear()
    result = settled.snapshot([three], read_all=True)
    assert sorted(opened) == [b"empty", b"long", b"small"]
    assert result.bytes_read == (3 << 20) + 5
    assert result.bytes_added == 0


def test_touched_but_the_same(settled: packstone.Repository, three: Path) -> None:
    """Read again, found the same: no new bytes but the directory's page."""
    settled.snapshot([three])
    for path in (three / "small", three / "below" / "long"):
        os.utime(path, ns=(5, 5))
    result = settled.snapshot([three])
    assert (result.files_changed, result.files_unmodified) == (0, 3)
    assert result.bytes_read == (3 << 20) + 5
    assert result.chunks_new == 0
    assert result.bytes_added < 4096


def test_a_mode_alone_needs_no_content(
    settled: packstone.Repository, three: Path, tmp_path: Path
) -> None:
    settled.snapshot([three])
    (three / "small").chmod(0o600)
    os.chmod(three / "below", 0o700)
    result = settled.snapshot([three])
    assert result.chunks_new == 0
    settled.restore("latest", tmp_path / "target", path=os.fsencode(three))
    assert_equal_trees(three, tmp_path / "target", top=False)


def test_a_file_that_became_something_else(
    settled: packstone.Repository, three: Path, tmp_path: Path
) -> None:
    settled.snapshot([three])
    os.unlink(three / "small")
    (three / "small").mkdir()
    (three / "small" / "file").write_bytes(b"1")
    os.unlink(three / "empty")
    os.symlink("small", three / "empty")
    shutil.rmtree(three / "below")
    (three / "below").write_bytes(b"a file now")
    assert settled.snapshot([three]).errors == []
    settled.restore("latest", tmp_path / "target", path=os.fsencode(three))
    assert_equal_trees(three, tmp_path / "target", top=False)


def test_what_could_not_be_read_is_tried_again(
    settled: packstone.Repository, three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        @staticmethod
        def read_files(items: Any, limit: int) -> Any:
            rows = _scan.read_files(items, limit)
            return [
                5 if item[1] == b"small" else row for item, row in zip(items, rows, strict=True)
            ]

    with monkeypatch.context() as patch:
        patch.setattr(files, "_scan", Broken)
        result = settled.snapshot([three])
    assert [problem.path for problem in result.errors] == [os.fsencode(three / "small")]
    assert settled.snapshot([three]).errors == []
    with settled.open_file("latest", os.fsencode(three / "small")) as stored:
        assert stored.read() == b"small"


def test_a_damaged_parent_is_no_excuse(
    settled: packstone.Repository, three: Path, opened: list[bytes]
) -> None:
    """What the parent holds and no pack does is read and stored again."""
    settled.snapshot([three])
    location = Path(settled.location)
    data_packs = sorted((location / "packs").rglob("?" * 64), key=lambda path: path.stat().st_size)
    settled.close()
    data_packs[-1].unlink()
    shutil.rmtree(location / "index")
    opened.clear()
    with packstone.Repository(location, clock=time.time_ns) as repository:
        repository.snapshot([three])
        assert b"long" in opened
        with repository.open_file("latest", os.fsencode(three / "below" / "long")) as stored:
            assert stored.read() == (three / "below" / "long").read_bytes()
        findings = repository.check(read_data=True).errors
        assert findings == [], "the same chunks serve the old snapshot again"
