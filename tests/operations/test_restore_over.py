"""Restore over what is there: whatever stood there, afterwards it is what it should be."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from compare_trees import Description, describe, differences, remove_tree
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from operations.random_trees import Tree, build, trees
from operations.samples import has_xattrs

import packstone

numbers = itertools.count()
SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
property_test = settings(
    max_examples=2_000 if SOAK else 40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Scene:
    """A on disk, B in a snapshot."""

    def __init__(self, place: Path, repository: packstone.Repository, disk: Tree, stored: Tree):
        self.repository = repository
        self.place = place / f"{next(numbers)}"
        self.source, self.target = self.place / "source", self.place / "target"
        self.source.mkdir(parents=True)
        self.target.mkdir()
        xattrs = has_xattrs(place)
        build(self.source, stored, xattrs=xattrs)
        build(self.target, disk, xattrs=xattrs)
        self.wanted = describe(self.source, top=False)
        self.before = describe(self.target, top=False)
        self.repository.snapshot([self.source])

    def restore(self, **options: Any) -> packstone.RestoreResult:
        return self.repository.restore(
            "latest", self.target, path=os.fsencode(self.source), **options
        )

    def now(self) -> dict[bytes, Description]:
        return describe(self.target, top=False)

    def remove(self) -> None:
        remove_tree(self.place)


@property_test
@given(disk=trees(), stored=trees().filter(bool), read_data=st.booleans())
def test_changed_and_delete_give_the_snapshot(
    big_place: Path, repository: packstone.Repository, disk: Tree, stored: Tree, read_data: bool
) -> None:
    scene = Scene(big_place, repository, disk, stored)
    result = scene.restore(overwrite="changed", delete=True, read_data=read_data, verify=read_data)
    assert result.errors == []
    now = scene.now()
    if not read_data:  # what has the size and time of the stored one is believed
        for path, row in now.items():
            was, wanted = scene.before.get(path), scene.wanted.get(path)
            if was and wanted and row.content == was.content != wanted.content:
                assert (was.size, was.mtime_ns) == (wanted.size, wanted.mtime_ns)
                now[path] = row._replace(content=wanted.content)
    # of equal content is left where it is, however much of it is written out
    assert differences(scene.wanted, now, ignore=("holes",)) == []
    again = scene.restore(overwrite="changed", delete=True, read_data=read_data)
    assert again.errors == []
    assert (again.files_restored, again.files_deleted, again.bytes_written) == (0, 0, 0)
    event(f"files replaced: {min(result.files_changed, 3)}")
    event(f"files deleted: {min(result.files_deleted, 3)}")
    scene.remove()


@property_test
@given(disk=trees(), stored=trees())
def test_always_gives_the_snapshot_and_leaves_the_rest(
    big_place: Path, repository: packstone.Repository, disk: Tree, stored: Tree
) -> None:
    scene = Scene(big_place, repository, disk, stored)
    result = scene.restore(overwrite="always")
    refused = {os.path.relpath(row.path, bytes(scene.target)) for row in result.errors}
    for path in refused:  # only a directory is too much to give up for a file
        assert stat.S_ISDIR(scene.before[path].kind) != stat.S_ISDIR(scene.wanted[path].kind)
    now = scene.now()
    assert refused <= {path for path, row in now.items() if stat.S_ISDIR(row.kind)}
    kept = scene.before.keys() - scene.wanted.keys()
    for path in kept:
        if path in now and not stat.S_ISDIR(now[path].kind):
            assert (
                differences({path: scene.before[path]}, {path: now[path]}, ignore=["group"]) == []
            )
    if not refused:
        found = {path: row for path, row in now.items() if path in scene.wanted}
        ignore = ["mtime_ns", "group"] if kept else []
        assert differences(scene.wanted, found, ignore=ignore) == []
    scene.remove()


@property_test
@given(disk=trees(), stored=trees())
def test_never_touches_nothing_that_is_there(
    big_place: Path, repository: packstone.Repository, disk: Tree, stored: Tree
) -> None:
    scene = Scene(big_place, repository, disk, stored)
    scene.restore(overwrite="never")
    now = scene.now()
    untouched = {path: now[path] for path in scene.before if path in now}
    directories = [path for path, row in untouched.items() if stat.S_ISDIR(row.kind)]
    for path in directories:  # that something new is in it shows in its time
        untouched[path] = untouched[path]._replace(mtime_ns=scene.before[path].mtime_ns)
    assert differences(scene.before, untouched) == []
    for path in scene.wanted.keys() - scene.before.keys():
        above = [path[:at] for at, byte in enumerate(path) if byte == ord("/")]
        if all(stat.S_ISDIR(scene.before[each].kind) for each in above if each in scene.before):
            assert (
                differences(
                    {path: scene.wanted[path]}, {path: now[path]}, ignore=("group", "holes")
                )
                == []
            )
    scene.remove()


@property_test
@given(
    disk=trees(),
    stored=trees().filter(bool),
    overwrite=st.sampled_from(["changed", "changed", "always", "never"]),
    delete=st.booleans(),
)
def test_a_dry_run_says_what_then_happens(
    big_place: Path,
    repository: packstone.Repository,
    disk: Tree,
    stored: Tree,
    overwrite: str,
    delete: bool,
) -> None:
    scene = Scene(big_place, repository, disk, stored)
    options: dict[str, Any] = {"overwrite": overwrite, "delete": delete and overwrite != "never"}
    said: list[packstone.Change] = []
    tried = scene.restore(dry_run=True, report=said.append, **options)
    assert scene.now() == scene.before
    done: list[packstone.Change] = []
    real = scene.restore(report=done.append, **options)
    problems = {row.path for row in real.errors}
    assert {row.path for row in tried.errors} == problems
    assert sorted(row for row in done if row.path not in problems) == sorted(said)
    for name in ("files_restored", "files_skipped", "files_deleted", "bytes_written",
                 "bytes_deleted"):  # fmt: skip
        assert getattr(tried, name) == getattr(real, name), name
    scene.remove()


@pytest.fixture
def long(source: Path, repository: packstone.Repository, tmp_path: Path) -> Path:
    """The copy of a stored file of many chunks, with one range changed."""
    (source / "long").write_bytes(os.urandom(3 << 20))
    repository.snapshot([source])
    target = tmp_path / "target"
    target.mkdir()
    shutil.copy2(source / "long", target)
    with open(target / "long", "r+b") as file:
        file.seek(1 << 20)
        file.write(b"x" * 5000)
    return target / "long"


def over(
    repository: packstone.Repository, source: Path, target: Path, **options: Any
) -> packstone.RestoreResult:
    options = {"overwrite": "changed", **options}
    return repository.restore("latest", target, path=os.fsencode(source), **options)


def test_only_what_differs_is_fetched(
    repository: packstone.Repository, source: Path, long: Path
) -> None:
    old = os.open(long, os.O_RDONLY)
    inode = long.stat().st_ino
    result = over(repository, source, long.parent)
    assert result.errors == []
    assert 5000 <= result.bytes_written < 50_000
    assert result.bytes_written + result.bytes_reused == 3 << 20
    assert long.read_bytes() == (source / "long").read_bytes()
    assert long.stat().st_ino != inode
    assert os.pread(old, 5000, 1 << 20) == b"x" * 5000, "whoever has it open keeps the old one"
    os.close(old)


def test_a_hard_linked_file_is_not_written_through(
    repository: packstone.Repository, source: Path, long: Path, tmp_path: Path
) -> None:
    """Its other name, which may be anybody's, keeps content and attributes."""
    os.link(long, tmp_path / "elsewhere")
    before = describe(long.parent)[b"long"]
    assert over(repository, source, long.parent).errors == []
    with open(tmp_path / "elsewhere", "rb") as file:
        file.seek(1 << 20)
        assert file.read(5000) == b"x" * 5000
    status = (tmp_path / "elsewhere").stat()
    assert (status.st_mtime_ns, status.st_nlink) == (before.mtime_ns, 1)


def test_attributes_are_not_set_on_a_shared_inode(
    repository: packstone.Repository, source: Path, long: Path, tmp_path: Path
) -> None:
    shutil.copy2(source / "long", long)
    os.chmod(long, 0o640)
    os.link(long, tmp_path / "elsewhere")
    result = over(repository, source, long.parent)
    assert result.errors == [] and result.bytes_written == 0
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o640
    assert stat.S_IMODE(long.stat().st_mode) == 0o644


def test_two_files_that_should_not_be_one(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """On disk they are one inode, with all that both should have: only one of them keeps it."""
    target = tmp_path / "target"
    target.mkdir()
    for name in ("a", "b"):
        (source / name).write_bytes(b"the same")
        os.utime(source / name, ns=(0, 0))
    shutil.copy2(source / "a", target)
    os.link(target / "a", target / "b")
    repository.snapshot([source])
    for options in ({}, {"read_data": True}):
        assert over(repository, source, target, **options).errors == []
        assert describe(source, top=False) == describe(target, top=False)


@pytest.mark.parametrize("mode", [0o666, 0o646])
def test_who_could_write_cannot_change_it_afterwards(
    repository: packstone.Repository, source: Path, long: Path, mode: int
) -> None:
    """A descriptor somebody opened while the file was open to all leads to the old inode."""
    shutil.copy2(source / "long", long)
    os.chmod(long, mode)
    with open(long, "r+b") as held:
        result = over(repository, source, long.parent, read_data=True)
        assert result.errors == [] and result.bytes_written == 0
        held.write(b"changed later")
    assert long.read_bytes() == (source / "long").read_bytes()


def test_set_id_bits_are_not_put_on_an_inode_that_was_there(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    (source / "tool").write_bytes(b"#!/bin/true")
    os.chmod(source / "tool", 0o4755)
    repository.snapshot([source])
    target = tmp_path / "target"
    target.mkdir()
    shutil.copy2(source / "tool", target)
    os.chmod(target / "tool", 0o755)
    inode = (target / "tool").stat().st_ino
    assert over(repository, source, target).errors == []
    status = (target / "tool").stat()
    assert stat.S_IMODE(status.st_mode) == 0o4755 and status.st_ino != inode


def test_attributes_alone(repository: packstone.Repository, source: Path, long: Path) -> None:
    shutil.copy2(source / "long", long)
    os.chmod(long, 0o400)
    os.utime(long, ns=(0, 0))
    inode = long.stat().st_ino
    changes: list[packstone.Change] = []
    result = over(repository, source, long.parent, report=changes.append)
    assert result.errors == [] and result.files_skipped == 1
    assert [row.action for row in changes] == ["attributes"]
    assert describe(long.parent, top=False) == describe(source, top=False)
    assert long.stat().st_ino == inode


def test_size_and_time_are_believed_unless_told_otherwise(
    repository: packstone.Repository, source: Path, long: Path
) -> None:
    time_ns = (source / "long").stat().st_mtime_ns
    os.utime(long, ns=(0, time_ns))
    assert over(repository, source, long.parent).files_skipped == 1
    assert long.read_bytes() != (source / "long").read_bytes()
    assert over(repository, source, long.parent, read_data=True).files_restored == 1
    assert long.read_bytes() == (source / "long").read_bytes()


def test_a_huge_sparse_file(repository: packstone.Repository, source: Path, tmp_path: Path) -> None:
    """1 TiB with two ranges, patched in one of them: nothing is written out, nor read."""
    for place in (source, tmp_path / "target"):
        place.mkdir(exist_ok=True)
        with open(place / "sparse", "wb") as file:
            file.seek(1 << 30)
            file.write(b"the same in both" * 10_000)
            file.seek(700 << 30)
            file.write(os.urandom(100_000))
            file.truncate(1 << 40)
    target = tmp_path / "target" / "sparse"
    repository.snapshot([source])
    result = over(repository, source, tmp_path / "target")
    assert result.errors == []
    assert target.stat().st_blocks * 512 < 4 << 20
    assert describe(source, top=False) == describe(target.parent, top=False)


def test_a_running_program_is_replaced(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    import subprocess

    target = tmp_path / "target"
    target.mkdir()
    shutil.copy(shutil.which("sleep") or "/bin/sleep", target / "tool")
    (source / "tool").write_bytes((target / "tool").read_bytes() + b"newer")
    repository.snapshot([source])
    with subprocess.Popen([target / "tool", "60"]) as running:
        result = over(repository, source, target)
        running.kill()
    assert result.errors == []
    assert (target / "tool").read_bytes().endswith(b"newer")
