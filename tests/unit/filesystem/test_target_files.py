"""TargetFile: pieces in any order from any thread, holes, failure, being abandoned."""

from __future__ import annotations

import errno
import os
import random
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from restoring import TIME_NS, file_entry
from walking import FDS

from packstone.errors import TargetError
from packstone.filesystem.confine import OPEN_FILES, Outcome, Target

WRITTEN, KEPT, FAILED = Outcome.WRITTEN, Outcome.KEPT, Outcome.FAILED
MIB = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.fixture
def target(root: Path) -> Iterator[Target]:
    with Target(os.fsencode(root)) as target:
        yield target


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


def test_pieces_in_any_order(target: Target, root: Path) -> None:
    content = os.urandom(300_000)
    cuts = sorted(random.Random(1).sample(range(1, len(content)), 20))
    pieces = list(zip([0, *cuts], [*cuts, len(content)], strict=True))
    random.Random(2).shuffle(pieces)
    file = target.create_file(target.root, b"f", len(content))
    for begin, end in pieces:
        file.write_at(begin, memoryview(content)[begin:end])
    assert len(names(root)) == 1 and names(root)[0].startswith(".packstone-")
    assert file.finish(file_entry(b"f", content, 0o100440)) == WRITTEN
    assert names(root) == ["f"]
    status = (root / "f").stat()
    assert (root / "f").read_bytes() == content
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o440, TIME_NS)


def test_threads_write_one_file(target: Target, root: Path) -> None:
    content = os.urandom(4 * MIB)
    piece = 64 << 10
    file = target.create_file(target.root, b"f", len(content))

    def work(number: int) -> None:
        for begin in range(number * piece, len(content), 4 * piece):
            file.write_at(begin, content[begin : begin + piece])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.finish(file_entry(b"f", content)) == WRITTEN
    assert (root / "f").read_bytes() == content


def test_more_files_begun_than_descriptors(target: Target, root: Path) -> None:
    """A restore in the order of packs has many files begun at a time."""
    before = len(os.listdir(FDS))
    count = OPEN_FILES * 3
    files = [target.create_file(target.root, b"f%03d" % i, 8) for i in range(count)]
    assert len(os.listdir(FDS)) - before <= OPEN_FILES + 2
    for half in (0, 4):
        for i, file in enumerate(files):
            file.write_at(half, b"%04d" % i)
    assert len(os.listdir(FDS)) - before <= OPEN_FILES + 2
    for i, file in enumerate(files):
        assert file.finish(file_entry(b"f%03d" % i, b"%04d" % i * 2)) == WRITTEN
    assert names(root) == [f"f{i:03}" for i in range(count)]
    assert all((root / f"f{i:03}").read_bytes() == b"%04d" % i * 2 for i in range(count))


def park(target: Target) -> None:
    """Begin so many others that earlier files are closed."""
    for i in range(OPEN_FILES + 2):
        target.create_file(target.root, b"filler%d" % i, 0)


@pytest.mark.parametrize("exchange", ["link", "file", "fifo", "nothing"])
def test_a_parked_file_that_was_exchanged_is_refused(
    target: Target, root: Path, tmp_path: Path, exchange: str
) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"canary")
    file = target.create_file(target.root, b"f", 6)
    (temporary,) = root.iterdir()
    park(target)
    assert file.fd == -1
    temporary.unlink()
    if exchange == "link":
        temporary.symlink_to(canary)
    elif exchange == "file":
        os.link(canary, temporary)
    elif exchange == "fifo":
        os.mkfifo(temporary)
    file.write_at(0, b"attack")
    assert file.failed
    file.write_at(0, b"again")
    assert file.finish(file_entry(b"f", b"attack")) == FAILED
    assert canary.read_bytes() == b"canary"
    assert not (root / "f").exists()
    assert len(target.problems) == 1


def test_holes_stay_holes(target: Target, root: Path) -> None:
    size = 1 << 40
    file = target.create_file(target.root, b"f", size)
    file.write_at(1 << 30, b"x" * 4096)
    file.write_at(size - 5, b"end..")
    assert file.finish(file_entry(b"f", b"")) == WRITTEN
    status = (root / "f").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 < MIB
    with open(root / "f", "rb") as written:
        written.seek(size - 5)
        assert written.read() == b"end.."


@pytest.mark.parametrize("sparse", [True, False])
def test_runs_of_zeros_become_holes_if_asked(root: Path, sparse: bool) -> None:
    content = os.urandom(10_000) + bytes(2 * MIB) + os.urandom(5_000) + bytes(300) + b"x"
    content += bytes(MIB)
    with Target(os.fsencode(root), sparse=sparse) as target:
        file = target.create_file(target.root, b"f", len(content))
        for begin in range(0, len(content), 100_003):
            file.write_at(begin, content[begin : begin + 100_003])
        assert file.finish(file_entry(b"f", content)) == WRITTEN
    assert (root / "f").read_bytes() == content
    blocks = (root / "f").stat().st_blocks * 512
    assert (blocks < 100_000) == sparse


def test_abandoned_files_leave_nothing(root: Path) -> None:
    with Target(os.fsencode(root)) as target:
        file = target.create_file(target.root, b"f", 10)
        file.write_at(0, b"x")
        file.abandon()
        file.abandon()
        with pytest.raises(ValueError, match="finished already"):
            file.finish(file_entry(b"f", b""))
        assert names(root) == []
        park(target)  # never finished: closing the target abandons them
        assert len(names(root)) == OPEN_FILES + 2
    assert names(root) == []


def test_an_error_in_the_middle_of_a_restore_leaves_nothing_unfinished(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Target(os.fsencode(root)) as target:
        done = target.create_file(target.root, b"done", 0)
        done.finish(file_entry(b"done", b""))
        target.create_file(target.root, b"begun", 10).write_at(0, b"x")
        raise KeyboardInterrupt
    assert names(root) == ["done"]


def test_a_full_disk_is_the_files_problem(
    target: Target, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = target.create_file(target.root, b"f", 10)
    other = target.create_file(target.root, b"g", 1)
    real = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if fd == file.fd:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    file.write_at(0, b"x")
    other.write_at(0, b"y")
    assert file.failed and not other.failed
    assert file.finish(file_entry(b"f", b"x")) == FAILED
    assert other.finish(file_entry(b"g", b"y")) == WRITTEN
    assert names(root) == ["g"]
    (problem,) = target.problems
    assert problem.path == os.fsencode(root / "f")
    assert "No space left" in problem.message


def test_short_writes_are_continued(
    target: Target, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:7], offset))
    content = os.urandom(1000)
    file = target.create_file(target.root, b"f", len(content))
    file.write_at(0, content)
    assert file.finish(file_entry(b"f", content)) == WRITTEN
    assert (root / "f").read_bytes() == content


@pytest.mark.parametrize("size", [1 << 62, (1 << 63) - 1, 1 << 63, 1 << 70])
def test_impossible_sizes_are_refused(target: Target, root: Path, size: int) -> None:
    try:
        file = target.create_file(target.root, b"f", size)
    except TargetError:
        assert names(root) == []
    else:  # some file systems can
        file.abandon()
    assert names(root) == []


def test_a_failing_write_of_small_files_leaves_nothing(tmp_path: Path) -> None:
    """A file system that is full in the middle of a batch."""
    import subprocess

    mount = tmp_path / "small"
    mount.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "none", mount], capture_output=True
        ).returncode
    ):
        pytest.skip("needs to mount a small file system")
    try:
        with Target(os.fsencode(mount / "t")) as target:
            data = os.urandom(40_000)
            items = [(target.root, file_entry(b"f%d" % i, data), data) for i in range(20)]
            outcomes = target.write_small(items)
            written = [f"f{i}" for i, outcome in enumerate(outcomes) if outcome == WRITTEN]
            assert 0 < len(written) < 20
            assert outcomes.count(FAILED) == 20 - len(written) == len(target.problems)
            assert sorted(written) == names(mount / "t")
            assert all((mount / "t" / name).read_bytes() == data for name in written)
            assert "No space left" in target.problems[0].message
    finally:
        subprocess.run(["umount", mount], check=True)
