"""Entries that together try to write outside the target, over what is there, or as root (X1)."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
from compare_trees import describe, differences, remove_tree
from hostile import DIRECTORY, SYMLINK, Forger, row
from operations.samples import ROOT, as_nobody

import packstone

Rows = list[Any]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a target and a canary beside it."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    path.chmod(0o755)
    (path / "canary" / "below").mkdir(parents=True)
    (path / "canary" / "secret").write_bytes(b"untouched")
    (path / "canary" / "below" / "secret").write_bytes(b"untouched")
    (path / "target").mkdir()
    yield path
    remove_tree(path)


def restore(place: Path, rows: Callable[[Forger], Rows], **options: Any) -> packstone.RestoreResult:
    """Restore a forged root and make sure that the canary lives."""
    location = place / "repository"
    if not location.exists():
        hostile.new_repository(location)
    forger = Forger(location)
    snapshot_id = forger.commit(sorted(rows(forger), key=lambda each: each[0]))
    before = describe(place / "canary")
    with packstone.open(location) as repository:
        result = repository.restore(snapshot_id, place / "target", **options)
    assert differences(before, describe(place / "canary")) == [], "the canary has changed"
    return result


def linked(group: bytes) -> dict[str, Any]:
    return {"link": group}


GROUPS: dict[str, Callable[[Forger], Rows]] = {
    "a file linked to a symlink": lambda f: [
        row(b"a", SYMLINK, b"../canary/secret", extras=linked(b"a")),
        row(b"b", content=f.chunk(b"evil"), size=4, extras=linked(b"a")),
    ],
    "a directory linked to a symlink": lambda f: [
        row(b"a", SYMLINK, b"../canary", extras=linked(b"a")),
        row(b"b", DIRECTORY, f.page([f.file(b"secret", b"evil")]), extras=linked(b"a")),
    ],
    "a symlink linked to a directory": lambda f: [
        row(b"a", DIRECTORY, f.page([]), extras=linked(b"a")),
        row(b"b", SYMLINK, b"../canary", extras=linked(b"a")),
    ],
    "a group named after a path outside": lambda f: [
        row(b"a", content=f.chunk(b"evil"), size=4, extras=linked(b"../canary/secret")),
        row(b"b", content=f.chunk(b"evil"), size=4, extras=linked(b"../canary/secret")),
    ],
    "a symlink and what would be below it": lambda f: [
        row(b"link", SYMLINK, b"../canary"),
        f.below(b"link.", [f.file(b"secret", b"evil")]),
    ],
    "a link of links": lambda f: [
        row(b"a", SYMLINK, b"b"),
        row(b"b", SYMLINK, b"../canary"),
        row(b"c", content=f.chunk(b"evil"), size=4, extras=linked(b"a")),
    ],
    "attributes for a symlink": lambda f: [
        row(b"a", stat.S_IFLNK | 0o4777, b"../canary/secret", uid=12345, gid=12345, mtime_ns=1,
            extras={"xattrs": [[b"user.evil", b"1"]]}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("rows", GROUPS.values(), ids=GROUPS.keys())
@pytest.mark.parametrize("overwrite", [None, "always", "changed", "never"])
def test_links(place: Path, rows: Callable[[Forger], Rows], overwrite: str | None) -> None:
    for _ in range(2 if overwrite else 1):  # the second time over the links of the first
        restore(place, rows, overwrite=overwrite)
        for path in (place / "target").iterdir():
            status = path.lstat()
            assert not (stat.S_ISREG(status.st_mode) and status.st_nlink > 2)
    assert (place / "canary" / "secret").stat().st_nlink == 1


def test_two_snapshots_one_after_the_other(place: Path) -> None:
    """The first plants a link, the second writes through it: the classic."""
    restore(place, lambda f: [row(b"a", SYMLINK, b"../canary")], overwrite="always")
    second: Callable[[Forger], Rows] = lambda f: [f.below(b"a", [f.file(b"secret", b"evil")])]  # noqa: E731
    for overwrite in ("never", "changed", "always"):
        result = restore(place, second, overwrite=overwrite)
        if overwrite == "never":
            assert [os.path.basename(row.path) for row in result.errors] == [b"a"]
            assert (place / "target" / "a").is_symlink()
    assert (place / "target" / "a" / "secret").read_bytes() == b"evil"
    assert not (place / "target" / "a").is_symlink()


BEFORE: dict[str, Callable[[Path], object]] = {
    "a link to a directory": lambda p: (p / "target/evil").symlink_to(p / "canary"),
    "a link to a file": lambda p: (p / "target/evil").symlink_to(p / "canary/secret"),
    "a link to nothing": lambda p: (p / "target/evil").symlink_to(p / "canary/new"),
    "a hard link": lambda p: os.link(p / "canary/secret", p / "target/evil"),
    "a fifo": lambda p: os.mkfifo(p / "target/evil"),
    "a directory": lambda p: (p / "target/evil/below").mkdir(parents=True),
    "a directory with a link": lambda p: [
        (p / "target/evil").mkdir(),
        (p / "target/evil/below").symlink_to(p / "canary/below"),
    ],
    "a directory nobody may write": lambda p: (p / "target/evil").mkdir(0o500),
}
AFTER: dict[str, Callable[[Forger], list[Any]]] = {
    "file": lambda f: f.file(b"evil", b"evil"),
    "long file": lambda f: f.file(b"evil", bytes(2 << 20)),
    "empty file": lambda f: row(b"evil"),
    "directory": lambda f: f.below(b"evil", [f.below(b"below", [f.file(b"secret", b"evil")])]),
    "symlink": lambda f: row(b"evil", SYMLINK, b"../canary/secret"),
    "fifo": lambda f: row(b"evil", stat.S_IFIFO | 0o600, None),
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE.keys())
@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER.keys())
def test_over_what_is_there(
    place: Path, before: Callable[[Path], object], after: Callable[[Forger], list[Any]]
) -> None:
    kind = 0
    for overwrite in ("never", "changed", "always"):
        shutil.rmtree(place / "target")
        (place / "target").mkdir()
        before(place)
        links = (place / "canary/secret").stat().st_nlink
        was = (place / "target/evil").lstat()

        def rows(forger: Forger) -> Rows:
            nonlocal kind
            entry = after(forger)
            kind = stat.S_IFMT(entry[1])
            return [entry]

        result = restore(place, rows, overwrite=overwrite)
        now = (place / "target/evil").lstat()
        if overwrite == "never":
            assert (now.st_ino, now.st_mode) == (was.st_ino, was.st_mode)
        elif not stat.S_ISDIR(was.st_mode):
            assert result.errors == []
            assert stat.S_IFMT(now.st_mode) == kind
            assert (place / "canary/secret").stat().st_nlink in (1, links)
        elif not stat.S_ISDIR(now.st_mode):
            pytest.fail("a whole directory was replaced")
    if (place / "target/evil").exists() and os.path.islink(place / "target/evil/below"):
        assert [os.path.basename(problem.path) for problem in result.errors]


def test_without_overwrite_a_link_in_the_target_is_no_way(place: Path) -> None:
    (place / "target" / "evil").symlink_to(place / "canary")
    with pytest.raises(packstone.UsageError):
        restore(place, lambda f: [f.below(b"evil", [f.file(b"secret", b"evil")])])


def test_the_target_itself_may_be_a_link(place: Path) -> None:
    """The user named it; nothing in a snapshot can."""
    (place / "real").mkdir()
    (place / "target").rmdir()
    (place / "target").symlink_to(place / "real")
    location = hostile.new_repository(place / "repository")
    forger = Forger(location)
    forger.commit([forger.file(b"file", b"good")])
    with packstone.open(location) as repository:
        try:
            repository.restore("latest", place / "target")
        except packstone.PackstoneError:
            return
    assert (place / "real" / "file").read_bytes() == b"good"


def test_what_a_normal_user_must_not_get(place: Path) -> None:
    """Devices, set-id bits, security attributes: refused and named, the rest is restored."""
    location = hostile.new_repository(place / "repository")
    forger = Forger(location)
    content = forger.chunk(b"#!/bin/sh\n")
    forger.commit(
        [
            row(b"block", stat.S_IFBLK | 0o666, [8, 0]),
            row(b"capable", content=content, size=10,
                extras={"xattrs": [[b"security.capability", bytes(20)]]}),
            row(b"character", stat.S_IFCHR | 0o666, [1, 1]),
            row(b"good", content=content, size=10),
            row(b"setgid", stat.S_IFREG | 0o2755, content, size=10, uid=0, gid=0),
            row(b"setuid", stat.S_IFREG | 0o4755, content, size=10, uid=0, gid=0),
            row(b"setuid directory", stat.S_IFDIR | 0o6755, forger.page([]), uid=0, gid=0),
            row(b"trusted", content=content, size=10,
                extras={"xattrs": [[b"trusted.overlay.opaque", b"y"]]}),
        ]
    )  # fmt: skip
    for path in [location, *location.rglob("*")]:
        if ROOT:
            os.chown(path, 65534, 65534)
    (place / "target").chmod(0o777)

    def run() -> None:
        with packstone.open(location) as repository:
            result = repository.restore("latest", place / "target", owner=True)
            paths = {os.path.basename(problem.path) for problem in result.errors}
            assert {b"block", b"character", b"capable", b"trusted"} <= paths
            found = {path.name: path.lstat() for path in (place / "target").iterdir()}
            assert not {"block", "character"} & found.keys()
            assert {"good", "setuid", "setgid", "capable", "trusted"} <= found.keys()
            for name in ("setuid", "setgid", "capable"):
                assert not found[name].st_mode & (stat.S_ISUID | stat.S_ISGID)
            for name in ("capable", "trusted"):
                assert os.listxattr(place / "target" / name) == []

    as_nobody(run)


def test_set_id_bits_wait_for_the_owner(place: Path) -> None:
    """As root: at no moment is there a set-id file of another owner than the entry's."""
    if not ROOT:
        pytest.skip("only root can give files away")
    content = b"x" * 10
    result = restore(
        place,
        lambda f: [
            row(b"other's", stat.S_IFREG | 0o6755, f.chunk(content), size=10, uid=1234, gid=1234),
            row(b"root's", stat.S_IFREG | 0o4755, f.chunk(content), size=10, uid=0, gid=0),
        ],
    )
    assert result.errors == []
    other = (place / "target" / "other's").stat()
    assert (other.st_uid, other.st_gid, stat.S_IMODE(other.st_mode)) == (1234, 1234, 0o6755)
    without = restore(
        place,
        lambda f: [f.file(b"other's", content, mode=stat.S_IFREG | 0o6755, uid=1234, gid=1234)],
        owner=False,
        overwrite="always",
    )  # fmt: skip
    other = (place / "target" / "other's").stat()
    assert other.st_uid == 0 and not other.st_mode & (stat.S_ISUID | stat.S_ISGID), without
