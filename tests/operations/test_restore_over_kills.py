"""A restore over what is there, ended at every step: each file is the old one or the new one.

Every call that changes the target is counted, in a child that ends at the k-th. Then the same
command is run again and must give the snapshot, with nothing left over.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from compare_trees import Description, describe, differences, remove_tree
from faults import EXIT_CODE, in_child

import packstone
from packstone.filesystem import _scan

TRIALS = int(os.environ.get("PACKSTONE_TEST_KILL_TRIALS", "50"))
_CHANGES = ("open", "mkdir", "rmdir", "unlink", "rename", "link", "symlink", "mkfifo", "pwrite",
            "ftruncate", "fsync", "close")  # fmt: skip
_SCAN_CHANGES = ("write_files", "rename_exclusively", "set_owner", "set_mode", "set_xattr",
                 "remove_xattr", "punch_hole")  # fmt: skip
_TEMPORARY = re.compile(rb"(.*/)?\.packstone-[0-9a-f]{16}-[0-9]+-[0-9]*")


@dataclass
class Scene:
    location: Path
    snapshot_id: str
    source: Path
    original: Path  # what the target is a copy of
    old: dict[bytes, Description]
    new: dict[bytes, Description]

    def copy(self) -> Path:
        target = Path(tempfile.mkdtemp(dir=self.location.parent)) / "target"
        shutil.copytree(self.original, target, symlinks=True)
        return target

    def restore(self, target: Path, **options: Any) -> packstone.RestoreResult:
        options = {"overwrite": "changed", "delete": True, **options}
        with packstone.open(self.location, threads=1) as repository:
            return repository.restore(
                self.snapshot_id, target, path=os.fsencode(self.source), **options
            )

    def check_between(self, target: Path) -> None:
        """Every name is what it was or what it is to be, whole; nothing else is there."""
        for path, row in describe(target, top=False).items():
            if _TEMPORARY.fullmatch(path):
                continue
            was, will = self.old.get(path), self.new.get(path)
            assert was or will, f"{path!r} came out of nowhere"
            assert (row.kind, row.size, row.content, row.target) in [
                (each.kind, each.size, each.content, each.target) for each in (was, will) if each
            ], f"{path!r} is neither the old one nor the new one"
        for path in self.old.keys() & self.new.keys():
            if stat.S_ISREG(self.old[path].kind) and stat.S_ISREG(self.new[path].kind):
                assert os.path.lexists(os.path.join(bytes(target), path)), f"{path!r} is gone"

    def check_after(self, target: Path) -> None:
        assert self.restore(target).errors == []
        assert differences(self.new, describe(target, top=False)) == []


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    place = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    source, original = place / "source", place / "original"
    chance = random.Random(4)
    long = bytearray(chance.randbytes(60_000))
    for root in (source, original):
        (root / "sub" / "deep").mkdir(parents=True)
        (root / "same").write_bytes(b"the same in both")
        os.utime(root / "same", ns=(0, 1_500_000_000_000_000_000))
    (original / "long").write_bytes(long)
    long[30_000:30_100] = bytes(100)
    (source / "long").write_bytes(long)
    (original / "small").write_bytes(b"old")
    (source / "small").write_bytes(b"new content")
    (original / "mode").write_bytes(b"its mode differs")
    (source / "mode").write_bytes(b"its mode differs")
    os.chmod(source / "mode", 0o400)
    (original / "file to directory").write_bytes(b"1")
    (source / "file to directory").mkdir()
    (source / "file to directory" / "below").write_bytes(b"2")
    (original / "directory to file").mkdir()
    (original / "directory to file" / "below").write_bytes(b"3")
    (source / "directory to file").write_bytes(b"4")
    os.symlink("/etc", original / "link")
    os.symlink("small", source / "link")
    os.link(source / "small", source / "sub" / "hard link")
    (original / "sub" / "hard link").write_bytes(b"a file of its own")
    (original / "sub" / "deep" / "extra").write_bytes(b"to be deleted")
    (original / "extra").mkdir()
    (original / "extra" / "below").write_bytes(b"to be deleted")
    os.mkfifo(source / "sub" / "fifo")
    with packstone.init(place / "repository", chunk_size=4096) as repository:
        snapshot_id = repository.snapshot([source]).snapshot_id or ""
    yield Scene(
        place / "repository", snapshot_id, source, original,
        describe(original, top=False), describe(source, top=False),
    )  # fmt: skip
    remove_tree(place)


def counting(run: Callable[[], object], at: int) -> Callable[[], None]:
    """Return a function for a child: run, ended before the `at`-th change of the target."""

    def child() -> None:
        count = 0

        def wrap(module: Any, name: str) -> None:
            inner = getattr(module, name)

            def asking(*args: Any, **named: Any) -> Any:
                nonlocal count
                if name != "open" or args[1] & os.O_CREAT:
                    if count == at:
                        os._exit(EXIT_CODE)
                    count += 1
                return inner(*args, **named)

            setattr(module, name, asking)

        for name in _CHANGES:
            wrap(os, name)
        for name in _SCAN_CHANGES:
            wrap(_scan, name)
        run()

    return child


def test_ended_at_every_step(scene: Scene) -> None:
    step = 0
    while True:
        target = scene.copy()
        code = in_child(counting(lambda target=target: scene.restore(target), step))
        assert code in (0, EXIT_CODE), f"step {step}"
        scene.check_between(target)
        scene.check_after(target)
        remove_tree(target.parent)
        if code == 0:
            break
        step += 1
    assert step > 60, "not all changes are counted"


def test_killed_at_random_times(scene: Scene) -> None:
    chance = random.Random(7)
    killed = 0
    for _ in range(TRIALS):
        target = scene.copy()
        code = in_child(lambda t=target: scene.restore(t), kill_after=chance.uniform(0.002, 0.06))
        killed += code < 0
        scene.check_between(target)
        scene.check_after(target)
        remove_tree(target.parent)
    assert killed > TRIALS // 5


def test_a_long_file_is_gone_on_with(scene: Scene, tmp_path: Path) -> None:
    """What a killed restore wrote of it is compared and kept; other leftovers are removed."""
    source = tmp_path / "source"
    source.mkdir()
    data = random.Random(5).randbytes(6 << 20)
    (source / "long").write_bytes(data)
    with packstone.open(scene.location) as repository:
        snapshot_id = repository.snapshot([source]).snapshot_id or ""
    target = tmp_path / "target"
    target.mkdir()
    part = target / ".packstone-0123456789abcdef-17-"
    with open(part, "wb") as file:
        file.write(data[: 4 << 20])
        file.truncate(len(data))
    part.chmod(0o600)
    inode = part.stat().st_ino
    (target / ".packstone-0123456789abcdef-18-3").write_bytes(b"a small one")
    of_no_use = target / ".packstone-0123456789abcdef-20-"
    of_no_use.write_bytes(data[: 3 << 20])
    of_no_use.chmod(0o600)
    os.symlink("/etc/passwd", target / ".packstone-0123456789abcdef-19-")
    mine = target / ".packstone-notes"
    mine.write_bytes(b"no name of a restore")
    with packstone.open(scene.location) as repository:
        result = repository.restore(snapshot_id, target, path=bytes(source), overwrite="changed")
    assert result.errors == []
    assert 2 << 20 <= result.bytes_written < 3 << 20
    assert (target / "long").read_bytes() == data
    assert (target / "long").stat().st_ino == inode
    assert sorted(path.name for path in target.iterdir()) == [mine.name, "long"]


@pytest.mark.parametrize("spoil", ["mode", "link", "content"])
def test_a_leftover_somebody_laid_hands_on(scene: Scene, tmp_path: Path, spoil: str) -> None:
    """It is not gone on with, or what is wrong in it is written anew."""
    source = tmp_path / "source"
    source.mkdir()
    data = random.Random(5).randbytes(3 << 20)
    (source / "long").write_bytes(data)
    with packstone.open(scene.location) as repository:
        snapshot_id = repository.snapshot([source]).snapshot_id or ""
    target = tmp_path / "target"
    target.mkdir()
    part = target / ".packstone-0123456789abcdef-17-"
    part.write_bytes(data)
    part.chmod(0o666 if spoil == "mode" else 0o600)
    if spoil == "link":
        os.link(part, tmp_path / "elsewhere")
    if spoil == "content":
        part.write_bytes(b"x" + data[1:])
    with open(part, "rb") as held, packstone.open(scene.location) as repository:
        inode = os.fstat(held.fileno()).st_ino
        result = repository.restore(snapshot_id, target, path=bytes(source), overwrite="changed")
    assert result.errors == []
    assert (target / "long").read_bytes() == data
    assert ((target / "long").stat().st_ino == inode) == (spoil == "content")
    assert os.listdir(target) == ["long"]


def test_two_restores_into_one_directory(scene: Scene) -> None:
    """The second one would take the first one's unfinished files for leftovers."""
    target = scene.copy()
    fd = os.open(target, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(packstone.PackstoneError, match="another restore"):
        scene.restore(target)
    assert differences(scene.old, describe(target, top=False)) == []
    os.close(fd)
    scene.check_after(target)
    remove_tree(target.parent)
