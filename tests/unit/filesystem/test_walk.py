"""The walk sees every name once, in order, and says what it could not see."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from walking import FILE, OTHER, make, tree_of, walked

from packstone.errors import UsageError
from packstone.filesystem import _scan
from packstone.filesystem.walk import Enter, Failed, Slice, walk


def test_a_tree_with_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "source"
    make(root, {"a": "1", "d": {"x": "", "e": {}, "f": {"g": "2"}}, b"\xff\n\x1b": {b"\xfe": ""}})
    os.mkfifo(root / "fifo")
    os.symlink("d", root / "link")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("socket")
    result = walked(root)
    assert not result.failed
    assert result.below(root) == tree_of(root)
    assert result.below(root)[b"link"] == OTHER


def test_random_trees(tmp_path: Path) -> None:
    choose = random.Random(3)

    def grow(depth: int) -> dict[str, object]:
        return {
            f"{choose.randrange(10**6):x}": grow(depth - 1)
            if depth and choose.random() < 0.4
            else "x"
            for _ in range(choose.randrange(12))
        }

    for number in range(8):
        root = tmp_path / str(number)
        make(root, grow(5))
        assert walked(root).below(root) == tree_of(root)


def test_stats_are_those_of_lstat(tmp_path: Path) -> None:
    make(tmp_path / "s", {"a": "12345", "d": {}})
    events = list(walk([os.fsencode(tmp_path / "s")]))
    slices = [e for e in events if isinstance(e, Slice) and e.names == [b"a", b"d"]]
    status = os.lstat(tmp_path / "s" / "a")
    assert slices[0].stats[0][:8] == (
        status.st_mode, status.st_uid, status.st_gid, 5, status.st_mtime_ns, status.st_ctime_ns,
        status.st_ino, 1,
    )  # fmt: skip


def test_ancestors_show_only_the_way(tmp_path: Path) -> None:
    make(tmp_path, {"a": {"b": {"x": "1"}, "other": ""}, "c": "2", "not": {}})
    result = walked([tmp_path / "a" / "b", tmp_path / "c"])
    assert result.below(tmp_path) == {b"a": {b"b": {b"x": FILE}}, b"c": FILE}
    assert list(result.tree) == [os.fsencode(tmp_path.parts[1])]


def test_sources_that_contain_each_other(tmp_path: Path) -> None:
    make(tmp_path / "a", {"b": {"c": "1"}, "d": "2"})
    expected = {b"b": {b"c": FILE}, b"d": FILE}
    for paths in (
        [tmp_path / "a", tmp_path / "a" / "b"],
        [tmp_path / "a" / "b", tmp_path / "a"],
        [tmp_path / "a", tmp_path / "a"],
        [os.fsencode(tmp_path) + b"//./a/", tmp_path / "a"],
    ):
        assert walked(paths).below(tmp_path / "a") == expected


def test_relative_and_climbing_paths_are_refused() -> None:
    for path in (b"relative", b"", b"/a/../b", b"/a\0b"):
        with pytest.raises(UsageError):
            walk([path])


def test_nothing_asked_for_is_an_empty_root() -> None:
    assert walked([]).tree == {}


def test_a_missing_source_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    make(tmp_path, {"there": {"x": ""}, "file": ""})
    missing = [tmp_path / "no", tmp_path / "no2" / "deep", tmp_path / "file" / "below"]
    result = walked([tmp_path / "there", *missing])
    assert result.below(tmp_path) == {b"there": {b"x": FILE}}
    assert result.failed == {
        os.fsencode(missing[0]): errno.ENOENT,
        os.fsencode(missing[1]): errno.ENOENT,
        os.fsencode(missing[2]): errno.ENOTDIR,
    }


def test_a_source_below_another_that_will_not_be_met_is_reported(tmp_path: Path) -> None:
    make(tmp_path / "s", {"a": {"x": ""}})
    os.symlink("a", tmp_path / "s" / "link")
    (tmp_path / "l2").symlink_to("s")
    for outer in (tmp_path / "s", Path("/")):
        sources = [
            tmp_path / "s",
            tmp_path / "s" / "a" / "x",
            tmp_path / "s" / "link",
            tmp_path / "s" / "missing",
            tmp_path / "s" / "a" / "x" / "below a file",
            tmp_path / "s" / "link" / "x",
        ]
        expected = {
            os.fsencode(tmp_path / "s" / "missing"): errno.ENOENT,
            os.fsencode(tmp_path / "s" / "a" / "x" / "below a file"): errno.ENOTDIR,
            os.fsencode(tmp_path / "s" / "link" / "x"): errno.ELOOP,
        }
        if outer == Path("/"):
            events = walk([b"/", *map(os.fsencode, sources)])
            found = [next(events) for _ in range(4)]
            events.close()  # type: ignore[attr-defined]
            assert {e.path: e.error.errno for e in found if isinstance(e, Failed)} == expected
        else:
            assert walked(sources).failed == expected
    way = walked([tmp_path / "l2", tmp_path / "l2" / "a"])
    assert not way.failed


def test_a_link_as_source_is_a_link_and_on_the_way_is_followed(tmp_path: Path) -> None:
    make(tmp_path / "real", {"sub": {"x": ""}})
    os.symlink("real", tmp_path / "link")
    assert walked(tmp_path / "link").below(tmp_path) == {b"link": OTHER}
    way = walked(tmp_path / "link" / "sub")
    assert way.below(tmp_path) == {b"link": {b"sub": {b"x": FILE}}}
    both = walked([tmp_path / "link", tmp_path / "link" / "sub"])
    assert both.below(tmp_path) == {b"link": {b"sub": {b"x": FILE}}}
    assert not both.failed


def test_a_source_may_be_a_file_or_a_dangling_link(tmp_path: Path) -> None:
    make(tmp_path, {"f": "1"})
    os.symlink("nowhere", tmp_path / "l")
    result = walked([tmp_path / "f", tmp_path / "l"])
    assert result.below(tmp_path) == {b"f": FILE, b"l": OTHER}
    assert not result.failed


def test_unreadable_directories_are_reported(
    open_place: Path, ordinary: Callable[..., None]
) -> None:
    make(open_place, {"a": {"x": ""}, "secret": {"y": ""}, "z": ""})
    (open_place / "secret").chmod(0o311)

    def work() -> None:
        result = walked(open_place)
        assert result.below(open_place) == {b"a": {b"x": FILE}, b"secret": None, b"z": FILE}
        assert result.failed == {os.fsencode(open_place / "secret"): errno.EACCES}

    ordinary(work)
    (open_place / "secret").chmod(0o755)


def test_a_directory_one_may_pass_but_not_list_leads_to_a_source(
    open_place: Path, ordinary: Callable[..., None]
) -> None:
    make(open_place, {"pass": {"mine": {"x": ""}}})
    (open_place / "pass").chmod(0o711)

    def work() -> None:
        result = walked(open_place / "pass" / "mine")
        assert result.below(open_place) == {b"pass": {b"mine": {b"x": FILE}}}
        assert not result.failed

    if hasattr(os, "O_PATH"):
        ordinary(work)


def test_names_that_vanish_are_reported(tmp_path: Path) -> None:
    root = tmp_path / "s"
    make(root, {f"f{i:04}": "" for i in range(1500)} | {"d": {}, "zd": {"x": ""}})
    events = walk([os.fsencode(root)])
    seen: list[bytes] = []
    failed: dict[bytes, int | None] = {}
    for event in events:
        if isinstance(event, Enter) and event.name == b"s":
            for i in range(1200, 1300):
                (root / f"f{i:04}").unlink()
        if isinstance(event, Slice) and event.directory.path == os.fsencode(root):
            seen += event.names
            if b"zd" in event.names:
                (root / "zd" / "x").unlink()
                (root / "zd").rmdir()
        if isinstance(event, Failed):
            failed[event.path] = event.error.errno
    assert len(seen) == 1500 + 2 - 100
    assert len(failed) == 101
    assert set(failed.values()) == {errno.ENOENT}
    assert os.fsencode(root / "zd") in failed


def test_a_directory_that_became_a_link_is_not_entered(tmp_path: Path) -> None:
    root = tmp_path / "s"
    make(root, {"a": {"x": ""}, "b": {"y": ""}})
    make(tmp_path / "secret", {"password": ""})
    failed = []
    names: list[bytes] = []
    for event in walk([os.fsencode(root)]):
        if isinstance(event, Slice):
            names += event.names
            if b"b" in event.names:
                (root / "b" / "y").unlink()
                (root / "b").rmdir()
                (root / "b").symlink_to(tmp_path / "secret")
        if isinstance(event, Failed):
            failed.append((event.path, event.error.errno))
    assert failed in (
        [(os.fsencode(root / "b"), errno.ENOTDIR)],
        [(os.fsencode(root / "b"), errno.ELOOP)],
    )
    assert b"password" not in names


def test_a_listing_that_fails_is_no_empty_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "s"
    make(root, {"a": {"x": ""}, "b": {"y": ""}})
    real = _scan.open_directory

    def failing(fd: int, name: bytes) -> object:
        if name == b"a":
            raise OSError(errno.EIO, "bad sector")
        return real(fd, name)

    monkeypatch.setattr(_scan, "open_directory", failing)
    result = walked(root)
    assert result.failed == {os.fsencode(root / "a"): errno.EIO}
    assert result.below(root) == {b"a": None, b"b": {b"y": FILE}}


def test_the_repository_itself_is_left_out(tmp_path: Path) -> None:
    from packstone.filesystem.ignore import Rules

    make(tmp_path / "s", {"a": "", "repo": {"packs": {}}, "z": {"inner": {}}})
    status = os.stat(tmp_path / "s" / "repo")
    rules = Rules(exclude_paths=((status.st_dev, status.st_ino),))
    result = walked(tmp_path / "s", rules)
    assert result.below(tmp_path / "s") == {b"a": FILE, b"z": {b"inner": {}}}
    assert walked([tmp_path / "s" / "repo", tmp_path / "s" / "a"], rules).below(tmp_path / "s") == {
        b"a": FILE
    }


def test_an_abandoned_walk_closes_everything(tmp_path: Path) -> None:
    """The fixture counts descriptors."""
    make(tmp_path / "s", {"a": {"b": {"c": {"d": ""}}}})
    for stop in range(1, 20):
        events = walk([os.fsencode(tmp_path / "s")], held=3)
        for _ in range(stop):
            next(events, None)
        events.close()  # type: ignore[attr-defined]


def test_workers_read_through_a_directory_that_was_left(tmp_path: Path) -> None:
    make(tmp_path / "s", {"a": {"x": "content"}, "b": {}})
    kept = []
    for event in walk([os.fsencode(tmp_path / "s")]):
        if isinstance(event, Slice) and event.names == [b"x"]:
            kept.append(event.directory.acquire())
    directory = kept[0]
    result = _scan.read_files([(directory.fd, b"x", 7)], 100)[0]
    assert result[1] == b"content"  # type: ignore[index]
    directory.release()
    assert directory.fd == -1
    with pytest.raises(ValueError, match="closed"):
        directory.acquire()
