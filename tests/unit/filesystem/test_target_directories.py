"""Directories of a target: many, deep, read-only, moved, exchanged; ACLs of the surroundings."""

from __future__ import annotations

import gc
import os
import shutil
import stat
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from restoring import DIRECTORY, GID, TIME_NS, UID, entry, file_entry
from walking import FDS

from packstone.errors import TargetError
from packstone.filesystem.confine import OPEN_DIRECTORIES, Outcome, Target, TargetDirectory
from packstone.filesystem.metadata import ACL_ACCESS, ACL_DEFAULT

WRITTEN, KEPT, FAILED = Outcome.WRITTEN, Outcome.KEPT, Outcome.FAILED
LEVELS = 3_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.fixture
def target(root: Path) -> Iterator[Target]:
    with Target(os.fsencode(root)) as target:
        yield target


def put(target: Target, directory: TargetDirectory, name: bytes) -> Outcome:
    return target.write_small([(directory, file_entry(name, b"x"), b"x")])[0]


def test_attributes_come_last(target: Target, root: Path) -> None:
    """A read-only directory is filled before it is read-only, and keeps its time."""
    directory = target.make_directory(target.root, b"d")
    assert directory.made
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o700
    inner = target.make_directory(directory, b"inner")
    assert put(target, inner, b"f") == WRITTEN
    for each, mode in ((inner, 0o040555), (directory, 0o041500)):
        assert target.finish_directory(each, entry(each.name, mode)) == WRITTEN
    for path, mode in ((root / "d" / "inner", 0o555), (root / "d", 0o1500)):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (mode, TIME_NS)
    assert target.problems == []


def test_many_directories_few_descriptors(target: Target, root: Path) -> None:
    before = len(os.listdir(FDS))
    directories = [target.make_directory(target.root, b"d%04d" % i) for i in range(1000)]
    assert len(os.listdir(FDS)) - before <= OPEN_DIRECTORIES
    for directory in directories:
        assert put(target, directory, b"f") == WRITTEN
    for directory in directories:
        assert target.finish_directory(directory, entry(directory.name, DIRECTORY)) == WRITTEN
    assert len(os.listdir(FDS)) - before <= OPEN_DIRECTORIES
    assert sum(len(files) for _, _, files in os.walk(root)) == 1000


def test_three_thousand_levels(target: Target, root: Path) -> None:
    """Down, then up again, as a restore does: neither costs the square of the depth."""
    chain = [target.root]
    for _ in range(LEVELS):
        chain.append(target.make_directory(chain[-1], b"d" * 50))
    assert put(target, chain[-1], b"deepest") == WRITTEN
    assert put(target, chain[LEVELS // 2], b"middle") == WRITTEN
    assert put(target, chain[-1], b"deepest too") == WRITTEN
    for directory in reversed(chain[1:]):
        assert target.finish_directory(directory, entry(b"d", 0o040750)) == WRITTEN
    assert target.problems == []
    assert len(chain[-1].path) > LEVELS * 50
    # and away with it, as shutil would not
    fd = os.open(root, os.O_RDONLY)
    while True:
        inner = b"d" * 50
        try:
            os.rename(inner + b"/" + inner, b"up", src_dir_fd=fd, dst_dir_fd=fd)
        except FileNotFoundError:
            break
        shutil.rmtree(inner, dir_fd=fd)
        os.rename(b"up", inner, src_dir_fd=fd, dst_dir_fd=fd)
    os.close(fd)


def test_nodes_are_light(target: Target) -> None:
    directory = target.make_directory(target.root, b"d")
    assert not hasattr(directory, "__dict__")
    children = [target.make_directory(directory, b"%d" % i) for i in range(OPEN_DIRECTORIES + 50)]
    gc.collect()
    alive = sum(isinstance(each, TargetDirectory) for each in gc.get_objects())
    del children
    gc.collect()
    left = sum(isinstance(each, TargetDirectory) for each in gc.get_objects())
    assert left <= alive - 50  # only the open ones stay
    with pytest.raises(TypeError):
        weakref.ref(directory)  # not even room for that


def test_a_directory_that_was_there_keeps_what_is_in_it(root: Path) -> None:
    (root / "d").mkdir(parents=True)
    (root / "d" / "old").write_bytes(b"old")
    os.utime(root / "d", ns=(5, 5))
    with Target(os.fsencode(root), overwrite="never") as target:
        directory = target.make_directory(target.root, b"d")
        assert not directory.made
        assert target.finish_directory(directory, entry(b"d", 0o040711)) == KEPT
        assert (root / "d").stat().st_mtime_ns == 5
    with Target(os.fsencode(root), overwrite="changed") as target:
        directory = target.make_directory(target.root, b"d")
        assert target.finish_directory(directory, entry(b"d", 0o040711)) == WRITTEN
    status = (root / "d").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o711, TIME_NS)
    assert (root / "d" / "old").read_bytes() == b"old"


@pytest.mark.parametrize("mode", [0o555, 0o111, 0o000])
def test_restoring_again_over_read_only_directories(
    open_place: Path, ordinary: Callable[..., None], mode: int
) -> None:
    def work() -> None:
        path = open_place / "t" / "d"
        path.mkdir(parents=True)
        path.chmod(mode)
        try:
            with Target(os.fsencode(open_place / "t"), overwrite="always") as target:
                directory = target.make_directory(target.root, b"d")
                mine = {"uid": os.geteuid(), "gid": os.getegid()}
                item = (directory, file_entry(b"f", b"x", **mine), b"x")
                assert target.write_small([item]) == [WRITTEN]
                wanted = entry(b"d", 0o040000 | mode, **mine)
                assert target.finish_directory(directory, wanted) == WRITTEN
                assert target.problems == []
            assert stat.S_IMODE(path.stat().st_mode) == mode
        finally:
            path.chmod(0o700)

    if mode == 0o555 or hasattr(os, "O_PATH"):
        ordinary(work)


def test_without_leave_to_replace_others_read_only_directories_stay(
    open_place: Path, ordinary: Callable[..., None]
) -> None:
    def work() -> None:
        path = open_place / "t" / "d"
        path.mkdir(parents=True)
        path.chmod(0)
        try:
            with (
                Target(os.fsencode(open_place / "t"), overwrite="never") as target,
                pytest.raises(TargetError),
            ):
                target.make_directory(target.root, b"d")
            assert stat.S_IMODE(path.stat().st_mode) == 0
        finally:
            path.chmod(0o700)

    ordinary(work)


# ---------------------------------------------------------------- moved and exchanged


def close_all_but_root(target: Target) -> None:
    """Open enough other directories that earlier ones are closed."""
    for i in range(OPEN_DIRECTORIES + 5):
        target.make_directory(target.root, b"filler%d" % i)


@pytest.mark.parametrize("exchange", ["link", "directory", "file", "nothing"])
@pytest.mark.parametrize("level", ["itself", "above"])
def test_what_took_the_place_of_a_directory_is_not_entered(
    target: Target, root: Path, tmp_path: Path, exchange: str, level: str
) -> None:
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    above = target.make_directory(target.root, b"a")
    directory = target.make_directory(above, b"b")
    file = target.create_file(directory, b"begun", 1)
    close_all_but_root(target)
    assert directory.fd == above.fd == -1
    place = root / "a" if level == "above" else root / "a" / "b"
    other = outside if level == "above" else outside / "b"
    os.rename(place, tmp_path / "away")
    if exchange == "link":
        place.symlink_to(other)
    elif exchange == "directory":
        shutil.copytree(other, place)
    elif exchange == "file":
        place.write_bytes(b"")
    before = sorted(os.walk(outside))
    assert put(target, directory, b"f") == FAILED
    assert target.make_symlink(directory, entry(b"l", 0o120777, b"t")) == FAILED
    assert target.link(directory, b"h", target.root, b"x") == FAILED
    assert target.finish_directory(directory, entry(b"b", DIRECTORY)) == FAILED
    with pytest.raises(TargetError):
        target.make_directory(directory, b"c")
    with pytest.raises(TargetError):
        target.create_file(directory, b"g", 1)
    file.write_at(0, b"x")
    assert file.finish(file_entry(b"begun", b"x")) in (WRITTEN, FAILED)
    assert sorted(os.walk(outside)) == before
    if exchange == "directory":
        assert [files for _, _, files in os.walk(place)] == [[] for _ in os.walk(place)]


def test_a_directory_may_come_back(target: Target, root: Path, tmp_path: Path) -> None:
    directory = target.make_directory(target.root, b"a")
    close_all_but_root(target)
    os.rename(root / "a", tmp_path / "away")
    assert put(target, directory, b"f") == FAILED
    os.rename(tmp_path / "away", root / "a")
    assert put(target, directory, b"f") == WRITTEN


def test_threads_open_the_same_directories(target: Target, root: Path) -> None:
    count = OPEN_DIRECTORIES * 2
    directories = [target.make_directory(target.root, b"d%d" % i) for i in range(count)]
    failures: list[object] = []

    def work(number: int) -> None:
        try:
            for turn in range(3):
                for directory in directories[number * 7 :] + directories[: number * 7]:
                    if put(target, directory, b"f-%d-%d" % (number, turn)) != WRITTEN:
                        failures.append(directory)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sum(len(files) for _, _, files in os.walk(root)) == count * 12
    assert all(directory.holders == 0 for directory in directories)


# ---------------------------------------------------------------- ACLs of the surroundings


def default_acl() -> bytes:
    rows = [(1, 7, -1), (2, 7, 4242), (4, 7, -1), (16, 7, -1), (32, 7, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *row) for row in rows)


def test_no_acl_is_inherited(root: Path) -> None:
    """What is restored has the ACLs that its entry says, wherever it is restored to."""
    root.mkdir()
    try:
        os.setxattr(root, ACL_DEFAULT, default_acl())
    except (AttributeError, OSError):
        pytest.skip("no ACLs here")
    (root / "there").mkdir()
    with Target(os.fsencode(root), overwrite="changed") as target:
        assert target.root.inherits
        there = target.make_directory(target.root, b"there")
        made = target.make_directory(target.root, b"made")
        below = target.make_directory(made, b"below")
        assert there.inherits and not made.inherits and not below.inherits
        for directory in (target.root, there, made, below):
            assert put(target, directory, b"f") == WRITTEN
            target.make_fifo(directory, entry(b"p", 0o010600, None))
            target.make_symlink(directory, entry(b"l", 0o120777, b"t"))
            file = target.create_file(directory, b"long", 1)
            file.write_at(0, b"x")
            file.finish(file_entry(b"long", b"x"))
        for directory in (below, made, there):
            assert target.finish_directory(directory, entry(b"d", 0o040700)) == WRITTEN
        assert target.problems == []
    for path, _, files in os.walk(root):
        for name in files:
            each = os.path.join(path, name)
            assert os.listxattr(each, follow_symlinks=False) == [], each
        if Path(path) != root:
            assert os.listxattr(path) == [], path
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(root / "f").st_mode) == 0o644


def test_a_directory_gets_its_own_acls(target: Target, root: Path) -> None:
    xattrs = [(ACL_ACCESS, default_acl()), (ACL_DEFAULT, default_acl()), (b"user.a", b"1")]
    directory = target.make_directory(target.root, b"d")
    wanted = entry(b"d", 0o040777, xattrs=xattrs)
    assert target.finish_directory(directory, wanted) == WRITTEN
    if target.problems:
        pytest.skip("no ACLs here")
    path = root / "d"
    found = {os.fsencode(name): os.getxattr(path, name) for name in os.listxattr(path)}
    assert found == dict(xattrs)
    # again, over it, with fewer: what the entry does not have goes
    with Target(os.fsencode(root), overwrite="changed") as again:
        directory = again.make_directory(again.root, b"d")
        assert again.finish_directory(directory, entry(b"d", 0o040750)) == WRITTEN
    assert os.listxattr(path) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o750


def test_owner_of_directories(target: Target, root: Path) -> None:
    directory = target.make_directory(target.root, b"d")
    other = (1234, 4321) if UID == 0 else (UID, GID)
    wanted = entry(b"d", 0o042770, uid=other[0], gid=other[1])
    assert target.finish_directory(directory, wanted) == WRITTEN
    status = (root / "d").stat()
    assert (status.st_uid, status.st_gid) == other
    assert stat.S_IMODE(status.st_mode) == 0o2770
