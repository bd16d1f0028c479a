"""Diff: applied to the first it gives the second; what it reads; renames; against the disk."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from operations.samples import has_xattrs, make_one_of_each
from operations.synthetic import Leaf, commit, listing, seen, versions, wide

import packstone

in_one_repository = settings(
    max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def apply(result: packstone.DiffResult, before: dict[bytes, Any]) -> dict[bytes, Any]:
    """Do to a listing what the rows say; each row must fit what is there."""
    after = {path: seen(entry) for path, entry in before.items()}
    for row in result.differences:
        if row.old is not None:
            assert after.pop(row.old_path) == seen(row.old), "the row tells another past"
    for row in result.differences:
        if row.new is not None:
            assert row.path not in after
            after[row.path] = seen(row.new)
    return after


def check_against_listings(repository: packstone.Repository, first: str, second: str) -> None:
    before, after = listing(repository, first), listing(repository, second)
    result = repository.diff(first, second)
    expected = {path: seen(entry) for path, entry in after.items()}
    assert apply(result, before) == expected
    paths = [row.path for row in result.differences]
    assert paths == sorted(paths)
    for row in result.differences:
        assert (row.old is None, row.new is None) == (row.what == "added", row.what == "removed")
        assert (row.path != row.old_path) == (row.what == "renamed")
        if row.old and row.new:
            assert row.what == "renamed" or seen(row.old) != seen(row.new), "nothing differs"


@in_one_repository
@given(trees=versions(most=2))
def test_it_turns_one_listing_into_the_other(
    repository: packstone.Repository, trees: list[Any]
) -> None:
    first, second = commit(repository, [(tree, [b"/"], "x") for tree in trees])
    check_against_listings(repository, first, second)
    check_against_listings(repository, second, first)
    for each in (first, second):
        assert repository.diff(each, each).differences == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=wide())
def test_directories_of_many_pages(repository: packstone.Repository, pair: Any) -> None:
    old, new = pair
    first, second = commit(repository, [({b"big": tree}, [b"/big"], "x") for tree in (old, new)])
    check_against_listings(repository, first, second)
    inside = repository.diff(first, second, path="/big")
    changed = {
        b"/big/" + name for name in old.keys() | new.keys() if old.get(name) != new.get(name)
    }
    assert {row.path for row in inside.differences} | {
        row.old_path for row in inside.differences
    } == changed


def test_only_pages_that_differ_are_read(
    repository: packstone.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    from packstone.repository.reader import ObjectReader

    big = {b"%06d" % number: Leaf(number % 5) for number in range(50_000)}
    deep = {b"%02d" % n: {b"%02d" % m: Leaf() for m in range(50)} for n in range(50)}
    first, second = commit(
        repository,
        [({b"big": big, b"deep": deep}, [b"/"], "x"),
         ({b"big": big | {b"025000": Leaf(9)}, b"deep": deep}, [b"/"], "x")],
    )  # fmt: skip
    count = 0
    get = ObjectReader.get

    def counting(self: ObjectReader, kind: Any, object_id: bytes) -> bytes:
        nonlocal count
        count += 1
        return get(self, kind, object_id)

    monkeypatch.setattr(ObjectReader, "get", counting)
    (row,) = repository.diff(first, second).differences
    assert (row.what, row.path) == ("content", b"/big/025000")
    assert count <= 12, "more than the roots, the tops of the directory and a page of each"


def test_of_the_machine(settled: packstone.Repository, source: Path) -> None:
    """Everything that can be made, changed on a real disk."""
    make_one_of_each(source)
    (source / "renamed dir").mkdir()
    (source / "renamed dir" / "inside").write_bytes(b"inside")
    (source / "renamed dir" / "link").symlink_to("inside")
    settled.snapshot([source])
    (source / "one byte").write_bytes(b"1")
    (source / "directory" / "one byte").write_bytes(b"xy")
    os.chmod(source / "mode 7777", 0o600)
    (source / "dangling").unlink()
    (source / "dangling").symlink_to("elsewhere")
    (source / "empty").unlink()
    (source / "empty").mkdir()
    (source / "renamed dir").rename(source / "bare" / "now here")
    (source / "long link").rename(source / "sticky" / "long link")
    (source / "fifo").unlink()
    settled.snapshot([source])
    check_against_listings(settled, "latest~1", "latest")
    rows = {row.path[len(bytes(source)) + 1 :]: row.what for row in
            settled.diff("latest~1", "latest", path=bytes(source)).differences}  # fmt: skip
    assert rows.pop(b"bare") == rows.pop(b"sticky") == "attributes"
    assert rows.pop(b"directory", "attributes") == "attributes"
    assert rows == {
        b"one byte": "added",
        b"directory/one byte": "content",
        b"mode 7777": "attributes",
        b"dangling": "content",
        b"empty": "type",
        b"bare/now here": "renamed",
        b"bare/now here/inside": "renamed",
        b"bare/now here/link": "renamed",
        b"long link": "removed",
        b"sticky/long link": "added",
        b"fifo": "removed",
    }


def test_renames_pair_files_of_one_name_first(repository: packstone.Repository) -> None:
    same = Leaf(content=3, size=9)
    first, second = commit(
        repository,
        [({b"a": {b"one": same, b"two": same}, b"keep": same}, [b"/"], "x"),
         ({b"b": {b"two": same, b"three": same}, b"keep": same}, [b"/"], "x")],
    )  # fmt: skip
    rows = {row.old_path: row.path for row in repository.diff(first, second).differences
            if row.what == "renamed"}  # fmt: skip
    assert rows == {b"/a/two": b"/b/two", b"/a/one": b"/b/three"}


def test_many_files_alike_are_paired_in_time(repository: packstone.Repository) -> None:
    same = Leaf(content=3, size=9)
    old = {b"old-%05d" % number: same for number in range(20_000)}
    new = {b"new-%05d" % number: same for number in range(20_000)}
    first, second = commit(repository, [(old, [b"/"], "x"), (new, [b"/"], "x")])
    started = time.process_time()
    result = repository.diff(first, second)
    assert result.count("renamed") == len(result.differences) == 20_000
    assert len({row.path for row in result.differences}) == 20_000
    assert time.process_time() - started < 10, "quadratic"


def test_places(repository: packstone.Repository) -> None:
    tree = {b"old": {b"x": Leaf(1), b"y": Leaf(2)}, b"new": {b"x": Leaf(1), b"z": Leaf(2)},
            b"file": Leaf(5)}  # fmt: skip
    (only,) = commit(repository, [(tree, [b"/"], "x")])
    result = repository.diff(only, only, old_path="/old", path="/new")
    assert [(row.what, row.old_path, row.path) for row in result.differences] == [
        ("renamed", b"/old/y", b"/new/z")
    ]
    (row,) = repository.diff(only, only, old_path="/file", path="/new/x").differences
    assert (row.what, row.old_path, row.path) == ("content", b"/file", b"/new/x")
    kinds = [
        row.what for row in repository.diff(only, only, old_path="/old", path="/file").differences
    ]
    assert kinds == ["type", "removed", "removed"]
    with pytest.raises(packstone.UsageError):
        repository.diff(only, only, path="/nowhere")


# -- against the disk -----------------------------------------------------------------------


def told(result: packstone.DiffResult, source: Path) -> dict[bytes, str]:
    assert result.errors == []
    return {row.path[len(bytes(source)) + 1 :]: row.what for row in result.differences}


def test_the_disk_as_it_was_saved(settled: packstone.Repository, source: Path) -> None:
    make_one_of_each(source)
    settled.snapshot([source])
    for read_data in (False, True):
        assert told(settled.diff_disk("latest", source, read_data=read_data), source) == {}


def test_a_restored_tree_is_the_same(
    settled: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """Other inodes and ctimes, all attributes compared in full."""
    make_one_of_each(source)
    (source / "socket").unlink()  # nobody restores one
    settled.snapshot([source])
    target = tmp_path / "target"
    assert settled.restore("latest", target, path=bytes(source)).errors == []
    for read_data in (False, True):
        result = settled.diff_disk("latest", target, path=bytes(source), read_data=read_data)
        assert result.differences == [] and result.errors == []


def test_the_disk_as_it_is_now(settled: packstone.Repository, source: Path) -> None:
    make_one_of_each(source)
    many = source / "many"
    many.mkdir()
    for number in range(1500):  # more than a slice of the walk
        (many / f"{number:04}").write_bytes(b"%d" % number)
    settled.snapshot([source])
    os.utime(source / "directory" / "file")  # the time alone
    (many / "0700").unlink()
    (many / "0701x").write_bytes(b"new")
    (many / "0702").write_bytes(b"7xx")
    (source / "dangling").unlink()
    (source / "dangling").symlink_to("elsewhere")
    shutil.rmtree(source / "sticky")
    (source / "sticky").write_bytes(b"a file now")
    os.mkdir(source / "added")
    (source / "added" / "below").write_bytes(b"")
    expected = {
        b"directory/file": "attributes",
        b"hard link": "attributes",
        b"many": "attributes",
        b"many/0700": "removed",
        b"many/0701x": "added",
        b"many/0702": "content",
        b"dangling": "content",
        b"sticky": "type",
        b"added": "added",
        b"added/below": "added",
    }
    if has_xattrs(source):
        os.setxattr(source / "bare", "user.colour", b"red")
        expected[b"bare"] = "attributes"
    for read_data in (False, True):
        assert told(settled.diff_disk("latest", source, read_data=read_data), source) == expected


def test_a_change_that_kept_its_times(settled: packstone.Repository, source: Path) -> None:
    (source / "file").write_bytes(os.urandom(50_000))
    settled.snapshot([source])
    stat = os.stat(source / "file")
    with open(source / "file", "r+b") as file:
        file.seek(30_000)
        file.write(b"changed")
    os.utime(source / "file", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert told(settled.diff_disk("latest", source), source) == {}
    assert told(settled.diff_disk("latest", source, read_data=True), source) == {b"file": "content"}


def test_content_is_compared_at_every_place(settled: packstone.Repository, source: Path) -> None:
    """Same size, another time: read, first to last byte, holes too."""
    path = source / "file"
    with open(path, "wb") as file:
        file.write(os.urandom(20_000))
        file.seek(9_000_000)
        file.write(os.urandom(20_000))
        file.truncate(12_000_000)
    settled.snapshot([source])
    original = path.read_bytes()
    for at in (0, 19_999, 5_000_000, 8_999_999, 9_000_000, 9_019_999, 11_999_999):
        path.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :])
        assert told(settled.diff_disk("latest", source), source) == {b"file": "content"}
    path.write_bytes(original)
    assert told(settled.diff_disk("latest", source), source) == {b"file": "attributes"}


def test_what_was_left_out_is_not_new(settled: packstone.Repository, source: Path) -> None:
    (source / "cache").mkdir()
    (source / "cache" / "x").write_bytes(b"")
    (source / "file").write_bytes(b"")
    settled.snapshot([source], rules=packstone.Rules(patterns=("cache",)))
    assert told(settled.diff_disk("latest", source), source) == {}
    found = told(settled.diff_disk("latest", source, exclude=[]), source)
    assert found == {b"cache": "added", b"cache/x": "added"}
    (source / "file").unlink()
    os.utime(source, ns=(0, os.stat(source).st_mtime_ns))
    assert told(settled.diff_disk("latest", source, exclude=["cache", "file"]), source) == {}


def test_one_file_and_what_is_not_there(settled: packstone.Repository, source: Path) -> None:
    (source / "file").write_bytes(b"1")
    settled.snapshot([source])
    assert settled.diff_disk("latest", source / "file").differences == []
    (source / "file").write_bytes(b"22")
    (row,) = settled.diff_disk("latest", source / "file").differences
    assert (row.what, row.path) == ("content", bytes(source / "file"))
    (row,) = settled.diff_disk("latest", source, path=bytes(source / "file")).differences[:1]
    assert row.what == "type"
    for path in (source / "missing", Path("/nowhere")):
        with pytest.raises(packstone.UsageError):
            settled.diff_disk("latest", path)
