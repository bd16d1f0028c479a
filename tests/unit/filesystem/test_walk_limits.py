"""Deep, large and moving trees: bounded descriptors, nothing dropped in silence."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from walking import FDS, FILE, make, walked

from packstone.filesystem.walk import Enter, Failed, Leave, Slice, walk

LEVELS = 3_000


def dig(root: Path, levels: int, name: bytes) -> None:
    """Make nested directories, each with a file, deeper than a path can be long."""
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for level in range(levels):
        os.close(os.open(b"file", os.O_CREAT, 0o644, dir_fd=fd))
        os.mkdir(name, dir_fd=fd)
        if level % 2:
            os.mkdir(b"zz", dir_fd=fd)  # something left to do on the way up
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


def bury(root: Path, name: bytes) -> None:
    """Remove what `dig` made: shutil cannot."""
    fd = os.open(root, os.O_RDONLY)
    fds = 0
    while True:  # move the inner directory up again and again, until none is left
        for each in (b"file",):
            try:
                os.unlink(each, dir_fd=fd)
            except FileNotFoundError:
                pass
        try:
            os.rmdir(b"zz", dir_fd=fd)
        except FileNotFoundError:
            pass
        try:
            os.rename(os.path.join(name, name), b"next", src_dir_fd=fd, dst_dir_fd=fd)
        except FileNotFoundError:
            break
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        for each in os.listdir(inner):
            (os.rmdir if each == "zz" else os.unlink)(each, dir_fd=inner)
        os.close(inner)
        os.rmdir(name, dir_fd=fd)
        os.rename(b"next", name, src_dir_fd=fd, dst_dir_fd=fd)
        fds += 1
    os.close(fd)
    shutil.rmtree(root)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "deep"
    dig(root, LEVELS, b"d" * 50)
    yield root
    bury(root, b"d" * 50)


def test_three_thousand_levels_with_few_descriptors(deep: Path) -> None:
    before = len(os.listdir(FDS))
    entered = left = files = side = most = 0
    for event in walk([os.fsencode(deep)]):
        if isinstance(event, Enter):
            entered += 1
            os.fstat(event.directory.fd)
            if entered % 100 == 0:
                most = max(most, len(os.listdir(FDS)) - before)
        elif isinstance(event, Leave):
            left += 1
            os.fstat(event.directory.fd)
        elif isinstance(event, Slice):
            os.fstat(event.directory.fd)
            files += b"file" in event.names
            side += b"zz" in event.names
        else:
            raise AssertionError(event)
    above = len(deep.parts)
    assert files == LEVELS
    assert side == LEVELS // 2
    assert entered == left == LEVELS + side + above
    assert most <= 70


def test_deep_with_directories_that_workers_keep(tmp_path: Path) -> None:
    """What readers hold stays open, and the walker takes it up again instead of reopening."""
    dig(tmp_path / "s", 40, b"d")
    kept = []
    for event in walk([os.fsencode(tmp_path / "s")], held=4):
        if isinstance(event, Slice) and b"file" in event.names:
            kept.append(event.directory.acquire())
        assert not isinstance(event, Failed)
    assert len({directory.fd for directory in kept}) == 40
    for directory in kept:
        os.stat(b"file", dir_fd=directory.fd)
        directory.release()


def test_deep_behind_a_link_on_the_way(tmp_path: Path) -> None:
    """ ".." of a followed link is not the directory the walk came from."""
    make(
        tmp_path, {"real": {"far": {"s": {"a": {"b": {"c": {"d": {}}}}, "z": ""}}}, "q": {"w": ""}}
    )
    os.symlink("real/far", tmp_path / "link")
    result = walked([tmp_path / "link" / "s", tmp_path / "q"], held=2)
    assert not result.failed
    assert result.below(tmp_path) == {
        b"link": {b"s": {b"a": {b"b": {b"c": {b"d": {}}}}, b"z": FILE}},
        b"q": {b"w": FILE},
    }


def test_a_subtree_moved_away_while_inside_does_not_derail_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "s"
    make(root, {"a": {"b": {"c": {"d": {"x": ""}}, "n": {}}, "m": {"y": ""}}, "z": {"w": ""}})
    make(tmp_path / "elsewhere", {"password": ""})
    names: list[bytes] = []
    failed = []
    for event in walk([os.fsencode(root)], held=2):
        if isinstance(event, Enter) and event.name == b"d":
            os.rename(root / "a" / "b" / "c", tmp_path / "elsewhere" / "c")
        if isinstance(event, Slice):
            names += event.names
        if isinstance(event, Failed):
            failed.append(event.path)
    assert not failed  # found again from above: only what was moved had moved
    assert names.count(b"y") == names.count(b"w") == names.count(b"x") == 1
    assert b"password" not in names


def test_a_directory_replaced_while_below_it_is_reported(tmp_path: Path) -> None:
    """Identity, not the name, decides: another "b" is not the rest of the first."""
    root = tmp_path / "s"
    many = {f"n{i:04}": "" for i in range(2000)}
    make(root, {"a": {"b": {"c": {"d": {"e": {}}}, "cc": {}, **many}, "m": {"y": ""}}, "z": {}})
    names: list[bytes] = []
    failed = {}
    for event in walk([os.fsencode(root)], held=2):
        if isinstance(event, Enter) and event.name == b"e":
            os.rename(root / "a" / "b" / "c", tmp_path / "c")
            os.rename(root / "a" / "b", tmp_path / "moved")
            make(root / "a" / "b", {"fake": ""})
        if isinstance(event, Slice):
            names += event.names
        if isinstance(event, Failed):
            failed[event.path] = event.error
    b = os.fsencode(root / "a" / "b")
    assert set(failed) == {b, os.path.join(b, b"cc")}
    assert {error.errno for error in failed.values()} == {errno.ESTALE}
    assert "978 names" in str(failed[b])
    assert b"fake" not in names
    assert names.count(b"y") == 1 and names.count(b"z") == 1


@pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 3000])
def test_slices_cut_at_1024(tmp_path: Path, count: int) -> None:
    root = tmp_path / "s"
    make(root, {f"{i:05}": "" for i in range(count)})
    result = walked(root)
    assert len(result.below(root)) == count
    assert result.slices_of[os.fsencode(root)] == -(-count // 1024)


def test_a_hundred_thousand_names(tmp_path: Path) -> None:
    root = tmp_path / "s"
    root.mkdir()
    os.close(os.open(root / "first", os.O_CREAT, 0o644))
    fd = os.open(root, os.O_RDONLY)
    count = 100_000
    try:
        linked = b"first"
        for i in range(count - 1):  # links are cheap to make; a file has at most 65,000
            if i % 60_000 == 59_999:
                linked = b"first%d" % i
                os.close(os.open(linked, os.O_CREAT, 0o644, dir_fd=fd))
                continue
            os.link(linked, b"name-%08x" % (i * 2654435761 % 2**32), src_dir_fd=fd, dst_dir_fd=fd)
    finally:
        os.close(fd)
    tracemalloc.start()
    found = 0
    last = b""
    for event in walk([os.fsencode(root)]):
        if isinstance(event, Slice) and event.directory.path == os.fsencode(root):
            found += len(event.names)
            assert event.names[0] > last
            last = event.names[-1]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == count
    assert peak < count * 120  # the names, and one slice of stats


def test_walking_with_few_descriptors_allowed(tmp_path: Path) -> None:
    dig(tmp_path / "s", 200, b"d")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir(FDS))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 80, hard))
    try:
        result = walked(tmp_path / "s")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not result.failed
