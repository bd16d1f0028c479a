"""Repositories written by an enemy (rows X1, X3): nothing escapes the target, nothing blows up.

Every attack stands beside sound files, which must be restored. What is refused must be named;
a canary outside the target must not change; only errors of Packstone's own family may escape.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hostile
import pytest
from compare_trees import describe, differences, remove_tree
from hostile import DIRECTORY, REGULAR, SYMLINK, Forger, encode, row

import packstone
from packstone.model import Flag, ObjectType

Rows = list[Any]
GOOD = b"this must be restored\n" * 100


class Said(NamedTuple):
    """Problems of the restore by path, and the paths that `check` named."""

    problems: dict[bytes, str]
    checked: set[bytes]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory, if possible, with a canary that nobody may touch."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    (path / "canary" / "below").mkdir(parents=True)
    (path / "canary" / "secret").write_bytes(b"untouched")
    (path / "canary" / "below" / "secret").write_bytes(b"untouched")
    yield path
    remove_tree(path)


def assault(place: Path, build: Callable[[Forger], Rows], **options: Any) -> Said:
    """Restore, check, list and read a hostile snapshot; return what they said."""
    forger = Forger(hostile.new_repository(place / "repository"))
    rows = build(forger)
    rows += [forger.below(b"a good", [forger.file(b"file", GOOD)]), forger.file(b"z good", GOOD)]
    forger.commit(sorted(rows, key=lambda each: each[0]))
    before = describe(place / "canary")
    begin = time.monotonic()
    said = explore(place / "repository", place / "target", **options)
    assert time.monotonic() - begin < 2
    assert differences(before, describe(place / "canary")) == [], "the canary has changed"
    assert sorted(os.listdir(place)) == ["canary", "repository", "target"]
    assert (place / "target" / "a good" / "file").read_bytes() == GOOD
    assert (place / "target" / "z good").read_bytes() == GOOD
    assert not [path for path in (place / "target").rglob("*") if b".packstone-" in bytes(path)]
    return said


def explore(location: Path, target: Path, **options: Any) -> Said:
    """Do everything a user may do with a repository."""
    with packstone.open(location, threads=2) as repository:
        result = repository.restore("latest", target, **options)
        found = repository.check(read_data=True).errors
        try:
            repository.restore("latest", target, dry_run=True)
        except packstone.PackstoneError:
            pass
        try:
            for listed in repository.ls("latest", recursive=True):
                try:
                    with repository.open_file("latest", listed.path) as file:
                        file.read(1 << 20)
                except packstone.PackstoneError:
                    pass
        except packstone.PackstoneError:
            pass
    return Said(
        {problem.path: problem.message for problem in result.errors},
        {path for finding in found for path in finding.paths},
    )


def named(paths: Iterable[bytes]) -> bool:
    """Say whether what is evil is among the paths, and nothing that is good."""
    return bool(paths) and all(b"evil" in path.split(b"/") for path in paths)


# -- pages that are no directories ----------------------------------------------------------

NAMES: dict[str, list[Any]] = {
    "dot dot": [b".."],
    "dot": [b"."],
    "empty": [b""],
    "slash inside": [b"a/b"],
    "way out": [b"../canary/secret"],
    "absolute": [b"/tmp/evil"],
    "nul": [b"nul\0byte"],
    "nul alone": [b"\0"],
    "slash alone": [b"/"],
    "256 bytes": [b"x" * 256],
    "a megabyte": [b"x" * (1 << 20)],
    "twice": [b"twin", b"twin"],
    "unsorted": [b"b", b"a"],
    "unsorted far apart": [b"a", b"c", b"b", b"d"],
    "dot dot between": [b"-", b"..", b"a"],
    "text": ["text"],
    "number": [1],
    "nil": [None],
    "list": [[b"a"]],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES.keys())
def test_names(place: Path, names: list[Any]) -> None:
    def build(forger: Forger) -> Rows:
        content = forger.chunk(b"evil")
        return [forger.below(b"evil", [row(name, content=content, size=4) for name in names])]

    said = assault(place, build)
    assert named(said.problems) and named(said.checked)
    assert os.listdir(place / "target" / "evil") == []


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES.keys())
def test_names_of_directories(place: Path, names: list[Any]) -> None:
    def build(forger: Forger) -> Rows:
        inner = forger.page([forger.file(b"secret", b"evil")])
        return [forger.below(b"evil", [row(name, DIRECTORY, inner) for name in names])]

    said = assault(place, build)
    assert named(said.problems) and named(said.checked)


PAGES: dict[str, Callable[[Forger], bytes]] = {
    "no bytes": lambda f: f.put(ObjectType.TREE, b""),
    "noise": lambda f: f.put(ObjectType.TREE, bytes(range(256))),
    "nil": lambda f: f.put(ObjectType.TREE, encode(None)),
    "a map": lambda f: f.put(ObjectType.TREE, encode({"level": 0, "rows": []})),
    "one part": lambda f: f.put(ObjectType.TREE, encode([0])),
    "three parts": lambda f: f.put(ObjectType.TREE, encode([0, [], 1])),
    "bytes behind it": lambda f: f.put(ObjectType.TREE, encode([0, []]) + b"\0"),
    "rows of nine": lambda f: f.page([row(b"a")[:9]]),
    "rows of eleven": lambda f: f.page([[*row(b"a"), None]]),
    "rows of none": lambda f: f.page([[]]),
    "a count of 2^32": lambda f: f.put(ObjectType.TREE, b"\x92\x00\xdd\xff\xff\xff\xff"),
    "a name of 2^32": lambda f: f.put(ObjectType.TREE, b"\x92\x00\x91\x9a\xc6\xff\xff\xff\xff"),
    "nested without end": lambda f: f.put(ObjectType.TREE, b"\x92\x00" + b"\x91" * 500_000),
    "nested content": lambda f: f.put(
        ObjectType.TREE, b"\x92\x00\x91\x9a\xc4\x01a" + b"\0" * 7 + b"\x91" * 500_000
    ),
    "level -1": lambda f: f.page([], level=-1),
    "level 9": lambda f: f.page([[b"a", bytes(32), 1]], level=9),
    "level 2^63": lambda f: f.page([[b"a", bytes(32), 1]], level=1 << 63),
    "level true": lambda f: f.page([], level=True),
    "level text": lambda f: f.page([], level="0"),
    "no rows above": lambda f: f.page([], level=1),
    "rows of another level": lambda f: f.page([row(b"a")], level=1),
    "references below": lambda f: f.page([[b"a", bytes(32), 1]]),
    "short id": lambda f: f.page([[b"a", bytes(31), 1]], level=1),
    "id that is nowhere": lambda f: f.page([[b"a", bytes(32), 1]], level=1),
    "skips a level": lambda f: f.page([[b"a", f.page([row(b"a")]), 1]], level=2),
    "stays on its level": lambda f: f.page(
        [[b"a", f.page([[b"a", f.page([row(b"a")]), 1]], level=1), 1]], level=1
    ),
    "first name lies": lambda f: f.page([[b"m", f.page([row(b"z")]), 1]], level=1),
    "count lies": lambda f: f.page([[b"a", f.page([row(b"a")]), 1 << 40]], level=1),
    "negative count": lambda f: f.page([[b"a", f.page([row(b"a")]), -1]], level=1),
    "twins in two pages": lambda f: f.page(
        [
            [b"a", f.page([row(b"a"), row(b"link", SYMLINK, b"/etc")]), 2],
            [b"b", f.page([forged_directory(f, b"link")]), 1],
        ],
        level=1,
    ),
    "the same page twice": lambda f: f.page(
        [[b"a", (page := f.page([row(b"a")])), 1], [b"b", page, 1]], level=1
    ),
    "empty page below": lambda f: f.page([[b"a", f.page([]), 0]], level=1),
    "a chunk as a page": lambda f: f.chunk(encode([0, [row(b"a")]])),
    "a chunk list as a page": lambda f: f.put(ObjectType.CHUNK_LIST, encode([0, []])),
    "unknown extras": lambda f: f.page([row(b"a", extras={"recipe2": 1})]),
    "extras of wrong type": lambda f: f.page([row(b"a", extras={"link": 7})]),
    "extras of lists": lambda f: f.page([row(b"a", extras=[1, b"", []])]),
    "xattrs in threes": lambda f: f.page([row(b"a", extras={"xattrs": [[b"a", b"b", b"c"]]})]),
    "file of text": lambda f: f.page([row(b"a", content="text", size=5)]),
    "link of text": lambda f: f.page([row(b"a", SYMLINK, "text")]),
    "text for a number": lambda f: f.page([row(b"a", size="1")]),
    "float for a number": lambda f: f.page([row(b"a", size=1.5)]),
    "size of 2^64": lambda f: f.put(
        ObjectType.TREE, encode([0, [row(b"a", size=7)]]).replace(b"\x07", b"\xcb" + b"\x43" * 8)
    ),
}


def forged_directory(forger: Forger, name: bytes) -> list[Any]:
    return forger.below(name, [forger.file(b"passwd", b"evil")])


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_pages(place: Path, page: Callable[[Forger], bytes]) -> None:
    said = assault(place, lambda forger: [row(b"evil", DIRECTORY, page(forger))])
    assert named(said.problems) and named(said.checked)


# -- entries that lie -----------------------------------------------------------------------

ID = bytes(32)
REFUSED: dict[str, Callable[[Forger], list[Any]]] = {
    "no type": lambda f: row(b"evil", 0o644),
    "two types": lambda f: row(b"evil", 0o170644),
    "whiteout": lambda f: row(b"evil", 0o160644),
    "mode of 17 bits": lambda f: row(b"evil", REGULAR | 1 << 16),
    "negative mode": lambda f: row(b"evil", -1),
    "mode of 2^63": lambda f: row(b"evil", 1 << 63),
    "directory of nothing": lambda f: row(b"evil", DIRECTORY, None),
    "directory of 31 bytes": lambda f: row(b"evil", DIRECTORY, bytes(31)),
    "directory of chunks": lambda f: row(b"evil", DIRECTORY, [0, ID, [1]]),
    "directory that is nowhere": lambda f: row(b"evil", DIRECTORY, ID),
    "file of a page": lambda f: row(b"evil", content=f.page([row(b"a")]), size=20),
    "file of a chunk that is nowhere": lambda f: row(b"evil", content=ID, size=5),
    "file of 31 bytes": lambda f: row(b"evil", content=bytes(31), size=5),
    "file of nothing": lambda f: row(b"evil", content=None, size=5),
    "file with bytes and no size": lambda f: row(b"evil", content=f.chunk(b"12345"), size=0),
    "file with size and no bytes": lambda f: row(b"evil", content=b"", size=5),
    "size below the chunk's": lambda f: row(b"evil", content=f.chunk(b"12345"), size=4),
    "size above the chunk's": lambda f: row(b"evil", content=f.chunk(b"12345"), size=6),
    "size far above": lambda f: row(b"evil", content=f.chunk(b"12345"), size=1 << 62),
    "negative size": lambda f: row(b"evil", content=f.chunk(b"12345"), size=-5),
    "negative size and a hole": lambda f: row(b"evil", content=[0, b"", [-5]], size=-5),
    "list of two": lambda f: row(b"evil", content=[0, b""], size=5),
    "list of four": lambda f: row(b"evil", content=[0, b"", [-5], 1], size=5),
    "list without ids": lambda f: row(b"evil", content=[0, b"", [5]], size=5),
    "list with half an id": lambda f: row(b"evil", content=[0, bytes(16), [5]], size=5),
    "list with an id too many": lambda f: row(b"evil", content=[0, ID + ID, [5]], size=5),
    "list of zeros": lambda f: row(b"evil", content=[0, b"", [0]], size=0),
    "list of text": lambda f: row(b"evil", content=[0, b"", ["-5"]], size=5),
    "list of floats": lambda f: row(b"evil", content=[0, b"", [-5.0]], size=5),
    "list of lists": lambda f: row(b"evil", content=[0, b"", [[-5]]], size=5),
    "list of a text of ids": lambda f: row(b"evil", content=[0, "x" * 32, [5]], size=5),
    "list of truth": lambda f: row(b"evil", content=[0, f.chunk(b"1"), [True]], size=1),
    "list too short": lambda f: row(b"evil", content=[0, f.chunk(b"12345"), [5]], size=6),
    "list too long": lambda f: row(b"evil", content=[0, f.chunk(b"12345"), [5, -9]], size=6),
    "sizes swapped": lambda f: row(
        b"evil", content=[0, f.chunk(b"12345") + f.chunk(b"abc"), [3, 5]], size=8
    ),
    "a chunk longer than its row": lambda f: row(
        b"evil", content=[0, f.chunk(b"12345") + f.chunk(b"abc"), [2, 3]], size=5
    ),
    "a chunk shorter than its row": lambda f: row(
        b"evil", content=[0, f.chunk(b"12345") + f.chunk(b"abc"), [50, 3]], size=53
    ),
    "list of level 9": lambda f: row(b"evil", content=[9, ID, [5]], size=5),
    "list of level -1": lambda f: row(b"evil", content=[-1, ID, [5]], size=5),
    "level of holes": lambda f: row(b"evil", content=[1, b"", [-5]], size=5),
    "page of another level": lambda f: row(
        b"evil", content=[2, f.put(ObjectType.CHUNK_LIST, encode([0, b"", [-5]])), [5]], size=5
    ),
    "page that does not add up": lambda f: row(
        b"evil", content=[1, f.put(ObjectType.CHUNK_LIST, encode([0, b"", [-6]])), [5]], size=5
    ),
    "page of noise": lambda f: row(
        b"evil", content=[1, f.put(ObjectType.CHUNK_LIST, b"\xff" * 50), [5]], size=5
    ),
    "page with a count of 2^32": lambda f: row(
        b"evil",
        content=[1, f.put(ObjectType.CHUNK_LIST, b"\x93\x00\xc4\x00\xdd\xff\xff\xff\xff"), [5]],
        size=5,
    ),
    "page nested without end": lambda f: row(
        b"evil",
        content=[1, f.put(ObjectType.CHUNK_LIST, b"\x93\x00\xc4\x00" + b"\x91" * 500_000), [5]],
        size=5,
    ),
    "chunk as a list page": lambda f: row(
        b"evil", content=[1, f.chunk(encode([0, b"", [-5]])), [5]], size=5
    ),
    "tree as a list page": lambda f: row(b"evil", content=[1, f.page([]), [5]], size=5),
    "empty link": lambda f: row(b"evil", SYMLINK, b""),
    "link of nothing": lambda f: row(b"evil", SYMLINK, None),
    "link with nul": lambda f: row(b"evil", SYMLINK, b"a\0b"),
    "link of 5000 bytes": lambda f: row(b"evil", SYMLINK, b"x" * 5000),
    "device of one number": lambda f: row(b"evil", stat.S_IFCHR | 0o666, [1]),
    "device of texts": lambda f: row(b"evil", stat.S_IFCHR | 0o666, ["1", "3"]),
    "device below zero": lambda f: row(b"evil", stat.S_IFBLK | 0o666, [-1, 3]),
    "device of 2^40": lambda f: row(b"evil", stat.S_IFBLK | 0o666, [1 << 40, 3]),
    "device of nothing": lambda f: row(b"evil", stat.S_IFCHR | 0o666, None),
    "fifo with content": lambda f: row(b"evil", stat.S_IFIFO | 0o666, b"x"),
    "socket with content": lambda f: row(b"evil", stat.S_IFSOCK | 0o666, b"x"),
    "unreadable with content": lambda f: row(
        b"evil", content=f.chunk(b"12345"), size=5, extras={"flags": int(Flag.UNREADABLE)}
    ),
}
ATTRIBUTES: dict[str, Callable[[Forger], list[Any]]] = {
    "xattr without a name": lambda f: row(b"evil", extras={"xattrs": [[b"", b"1"]]}),
    "xattr with nul": lambda f: row(b"evil", extras={"xattrs": [[b"user.a\0b", b"1"]]}),
    "xattr without a namespace": lambda f: row(b"evil", extras={"xattrs": [[b"colour", b"1"]]}),
    "xattr of noise as ACL": lambda f: row(
        b"evil", extras={"xattrs": [[b"system.posix_acl_access", b"\xff" * 9]]}
    ),
    "xattr of a megabyte": lambda f: row(
        b"evil", extras={"xattrs": [[b"user.large", bytes(1 << 20)]]}
    ),
}


@pytest.mark.parametrize("build", REFUSED.values(), ids=REFUSED.keys())
def test_entries_that_lie(place: Path, build: Callable[[Forger], list[Any]]) -> None:
    def beside(forger: Forger) -> Rows:
        return [forger.below(b"evil", [build(forger), forger.file(b"sibling", GOOD)])]

    said = assault(place, beside)
    assert named(said.problems) and named(said.checked)
    assert not (place / "target" / "evil" / "evil").is_file(), "it was restored all the same"
    assert (place / "target" / "evil" / "sibling").read_bytes() == GOOD


@pytest.mark.parametrize("build", ATTRIBUTES.values(), ids=ATTRIBUTES.keys())
def test_attributes_that_lie(place: Path, build: Callable[[Forger], list[Any]]) -> None:
    """The file is restored without them, and they are named."""
    said = assault(place, lambda forger: [build(forger)])
    assert named(said.problems)
    assert "attribute" in "".join(said.problems.values())
    assert (place / "target" / "evil").read_bytes() == b""


HARMLESS: dict[str, Callable[[Forger], list[Any]]] = {
    "a size that no file has": lambda f: row(
        b"evil", content=[0, b"", [-(1 << 62), -(1 << 62)]], size=1 << 63
    ),
    "owner -1": lambda f: f.file(b"evil", b"1", uid=-1, gid=-1),
    "owner 2^32 - 1": lambda f: f.file(b"evil", b"1", uid=(1 << 32) - 1, gid=(1 << 32) - 1),
    "owner 2^63": lambda f: f.file(b"evil", b"1", uid=1 << 63, gid=1 << 63),
    "time of 2^63": lambda f: f.file(b"evil", b"1", mtime_ns=(1 << 64) - 1),
    "time of -2^63": lambda f: f.file(b"evil", b"1", mtime_ns=-(1 << 63)),
    "link out": lambda f: row(b"evil", SYMLINK, b"../canary/secret"),
    "link to the root": lambda f: row(b"evil", SYMLINK, b"/"),
    "link to itself": lambda f: row(b"evil", SYMLINK, b"evil"),
    "link up": lambda f: row(b"evil", SYMLINK, b".."),
    "group outside": lambda f: row(
        b"evil", content=f.chunk(b"1"), size=1, extras={"link": b"../canary/secret"}
    ),
    "group of the root": lambda f: row(
        b"evil", content=f.chunk(b"1"), size=1, extras={"link": b"/"}
    ),
    "group of a directory": lambda f: row(
        b"evil", DIRECTORY, f.page([]), extras={"link": b"a good"}
    ),
    "flags of later versions": lambda f: row(
        b"evil", content=f.chunk(b"1"), size=1, extras={"flags": 1 << 40}
    ),
    "a fifo": lambda f: row(b"evil", stat.S_IFIFO | 0o666, None),
    "a socket": lambda f: row(b"evil", stat.S_IFSOCK | 0o666, None),
    "directory with a size": lambda f: row(b"evil", DIRECTORY, f.page([]), size=1 << 62),
    "huge names of owners": lambda f: f.file(b"evil", b"1", uid=123456),
}


@pytest.mark.parametrize("build", HARMLESS.values(), ids=HARMLESS.keys())
def test_odd_entries_do_no_harm(place: Path, build: Callable[[Forger], list[Any]]) -> None:
    """These may be restored as well as the system can, or be named; they change nothing else."""
    assault(place, lambda forger: [build(forger)])
