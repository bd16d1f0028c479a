"""Rewrite: exactly the excluded paths are gone, all else is as it was, byte by byte."""

from __future__ import annotations

import os
import random
import stat
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from compare_trees import describe, differences
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations.samples import make_one_of_each
from operations.synthetic import Leaf, commit, listing, seen, versions, wide

import packstone
from packstone.filesystem.ignore import Filter, Rules

in_one_repository = settings(
    max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PATTERNS = st.lists(
    st.sampled_from(["a", "b", "/a", "/a/b", "a/b", "b/", "*.txt", "/c/**", "!/a/b/c", "d.txt"]),
    min_size=1,
    max_size=3,
)


def drops(filter_: Filter, path: bytes, is_directory: bool) -> bool:
    names = path.split(b"/")[1:]
    text = ""
    for at, name in enumerate(names):
        if filter_.excludes(text, name, is_directory or at < len(names) - 1):
            return True
        text += name.decode("utf-8", "surrogateescape") + "/"
    return False


def with_links(tree: Any, chance: random.Random, where: bytes = b"") -> Any:
    """Make some leaves of equal kind names of one hard-link group, called by its first path."""
    leaves: list[tuple[dict[bytes, Any], bytes, bytes]] = []

    def collect(node: dict[bytes, Any], where: bytes) -> dict[bytes, Any]:
        copy = dict(node)
        for name in sorted(copy):
            path = where + b"/" + name
            if isinstance(copy[name], dict):
                copy[name] = collect(copy[name], path)
            else:
                leaves.append((copy, name, path))
        return copy

    copy = collect(tree, b"")
    for _ in range(2):
        group = chance.sample(leaves, min(len(leaves), 3))
        leaves = [leaf for leaf in leaves if leaf not in group]
        group.sort(key=lambda leaf: leaf[2].split(b"/"))
        for node, name, _path in group:
            node[name] = Leaf(content=1, size=2, link=group[0][2][1:])
    return copy


@in_one_repository
@given(trees=versions(most=3), patterns=PATTERNS, seed=st.integers(0, 99), forget=st.booleans())
def test_all_else_stays(
    repository: packstone.Repository,
    trees: list[Any],
    patterns: list[str],
    seed: int,
    forget: bool,
) -> None:
    chance = random.Random(seed)
    trees = [with_links(tree, chance) for tree in trees]
    ids = commit(repository, [(tree, [b"/"], "x") for tree in trees])
    before = {each: listing(repository, each) for each in ids}
    filter_ = Filter(Rules(patterns=tuple(patterns)))
    result = repository.rewrite(ids, exclude=patterns, forget=forget)
    assert not result.emptied
    assert len(result.rewritten) + len(result.unchanged) == len(ids)
    after = {row.id: row for row in repository.snapshots()}
    gone = {done.old.id for done in result.rewritten}
    assert not gone & after.keys() if forget else gone <= after.keys()
    for row in result.unchanged:
        assert row.id in after
        assert not any(drops(filter_, path, stat.S_ISDIR(entry.mode))
                       for path, entry in before[row.id].items())  # fmt: skip
    for done in result.rewritten:
        old, new = before[done.old.id], listing(repository, done.new.id)
        kept = {path for path, entry in old.items()
                if not drops(filter_, path, stat.S_ISDIR(entry.mode))}  # fmt: skip
        assert new.keys() == kept
        assert {p: seen(e)[:-1] for p, e in new.items()} == {p: seen(old[p])[:-1] for p in kept}
        assert_sound_groups({path: old[path] for path in kept}, new)
        files = [entry for entry in new.values() if stat.S_ISREG(entry.mode)]
        summary = done.new.snapshot.summary
        assert summary["files"] == len(files)
        assert summary["bytes_total"] == sum(entry.size for entry in files)
        assert summary["dirs"] == sum(stat.S_ISDIR(entry.mode) for entry in new.values())
        assert done.new.snapshot.original_id == bytes.fromhex(done.old.id)
        assert done.new.snapshot.time_ns == done.old.snapshot.time_ns
        assert set(patterns) <= set(done.new.snapshot.excludes)
        # A subtree without anything that changed is the very same object.
        for path, entry in new.items():
            below = [each for each in old if each.startswith(path + b"/")]
            if stat.S_ISDIR(entry.mode) and all(
                each in new and seen(new[each]) == seen(old[each]) for each in below
            ):
                assert entry.content == old[path].content


def assert_sound_groups(old: dict[bytes, Any], new: dict[bytes, Any]) -> None:
    """The same names belong together, and each group is called by one of its names."""

    def groups(entries: dict[bytes, Any]) -> dict[bytes, set[bytes]]:
        found = defaultdict(set)
        for path, entry in entries.items():
            if entry.extras and entry.extras.link:
                found[entry.extras.link].add(path)
        return found

    before, after = groups(old), groups(new)
    assert sorted(map(sorted, before.values())) == sorted(map(sorted, after.values()))
    for link, paths in after.items():
        assert b"/" + link in paths, "a group is named by a path that is not there"
        if link in before:
            assert before[link] == paths
        else:
            first = min(paths, key=lambda path: path.split(b"/"))
            assert b"/" + link == first


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=wide(), digit=st.integers(0, 9))
def test_directories_of_many_pages(repository: packstone.Repository, pair: Any, digit: int) -> None:
    """What is written is what a snapshot without these names would have written."""
    (first, wanted) = commit(
        repository,
        [({b"big": pair[0]}, [b"/"], "x"),
         ({b"big": {k: v for k, v in pair[0].items() if not k.endswith(b"%d" % digit)}},
          [b"/"], "x")],
    )  # fmt: skip
    result = repository.rewrite([first], exclude=[f"*{digit}"])
    tree = result.rewritten[0].new.snapshot.tree if result.rewritten else None
    if tree is not None:
        assert tree == repository.find_snapshot(wanted).snapshot.tree


def test_restored(repository: packstone.Repository, source: Path, tmp_path: Path) -> None:
    """On a real disk, with links whose first names go, everything else byte for byte."""
    make_one_of_each(source)
    (source / "secret").mkdir()
    (source / "secret" / "first").write_bytes(random.Random(1).randbytes(300_000))
    (source / "z").mkdir()
    os.link(source / "secret" / "first", source / "z" / "second")
    os.link(source / "secret" / "first", source / "z" / "third")
    repository.snapshot([source])
    result = repository.rewrite(["latest"], exclude=["secret/", "hard link"], forget=True)
    (done,) = result.rewritten
    assert result.forgotten and [row.id for row in repository.snapshots()] == [done.new.id]
    assert done.files_dropped == 2
    target = tmp_path / "target"
    assert repository.restore("latest", target, path=bytes(source)).errors == []
    expected = {
        path: row
        for path, row in describe(source, top=False).items()
        if not path.startswith(b"secret") and path not in (b"hard link", b"socket")
    }
    found = describe(target, top=False)
    # Of a group the names that are left belong together; one that is left alone to nobody.
    assert found[b"z/second"].group == found[b"z/third"].group == b"z/second"
    assert differences(expected, found, ignore=["group"]) == []
    assert repository.check(read_data=True).errors == []
    repository.prune(rebase=True)
    assert repository.check(read_data=True).errors == []
    again = repository.snapshot([source], rules=packstone.Rules(patterns=("secret", "hard link")))
    assert again.parent_id == done.new.id
    assert again.chunks_new == 0, "what was there is not found again"


def test_equal_directories_are_told_apart_by_path(repository: packstone.Repository) -> None:
    same = {b"x": Leaf(1), b"y": {b"x": Leaf(1)}}
    (first,) = commit(repository, [({b"a": same, b"b": same}, [b"/"], "x")])
    (done,) = repository.rewrite([first], exclude=["/b/x", "/a/y/x"]).rewritten
    assert set(listing(repository, done.new.id)) == {
        b"/a", b"/a/x", b"/a/y", b"/b", b"/b/y", b"/b/y/x"
    }  # fmt: skip


def test_a_group_may_begin_elsewhere_in_each_snapshot(repository: packstone.Repository) -> None:
    """The directory that both share names the group in one of them, and not in the other."""
    link = Leaf(1, link=b"a/first")
    shared = {b"second": link, b"third": link}
    one = {b"a": {b"first": link}, b"z": shared}
    two = one | {b"b": link}
    ids = commit(repository, [(tree, [b"/"], "x") for tree in (one, two)])
    done = repository.rewrite(ids, exclude=["/a"]).rewritten
    groups = [
        {entry.extras.link for entry in listing(repository, each.new.id).values() if entry.extras}
        for each in done
    ]
    assert groups == [{b"z/second"}, {b"b"}]


def test_dry_run_writes_nothing(repository: packstone.Repository, source: Path) -> None:
    (source / "a").write_bytes(b"123")
    (source / "b").write_bytes(b"4")
    repository.snapshot([source])
    before = {path: path.stat().st_mtime_ns for path in files_of(repository)}
    result = repository.rewrite(["latest"], exclude=["a"], forget=True, dry_run=True)
    assert [(done.files_dropped, done.bytes_dropped) for done in result.rewritten] == [(1, 3)]
    assert not result.forgotten
    assert {path: path.stat().st_mtime_ns for path in files_of(repository)} == before


def files_of(repository: packstone.Repository) -> list[Path]:
    top = Path(repository.location.removeprefix("file://"))
    return [path for name in ("packs", "snapshots") for path in (top / name).rglob("*")]


def test_nothing_that_would_stay(repository: packstone.Repository, source: Path) -> None:
    (source / "a").write_bytes(b"123")
    repository.snapshot([source])
    before = repository.snapshots()
    result = repository.rewrite(["latest"], exclude=[source.name], forget=True)
    assert (result.emptied, result.rewritten) == (before, [])
    assert repository.rewrite(["latest"], exclude=["none"], forget=True).unchanged == before
    assert repository.snapshots() == before


def test_the_first_id_of_all_is_kept(repository: packstone.Repository, source: Path) -> None:
    for name in "abc":
        (source / name).write_bytes(b"1")
    first = repository.snapshot([source]).snapshot_id or ""
    repository.tag([first], add=["x"])
    repository.rewrite(["latest"], exclude=["a"], forget=True)
    repository.rewrite(["latest"], exclude=["b"], forget=True)
    (row,) = repository.snapshots()
    assert row.snapshot.original_id.hex() == first
    assert row.snapshot.tags == ["x"]
    assert [each.path for each in repository.ls("latest", bytes(source))] == [bytes(source / "c")]


def test_what_makes_no_sense(repository: packstone.Repository, source: Path) -> None:
    (source / "a").write_bytes(b"123")
    repository.snapshot([source])
    for options in ({"exclude": []}, {"exclude": ["# comment", ""]}):
        with pytest.raises(packstone.UsageError):
            repository.rewrite(["latest"], **options)
    with pytest.raises(packstone.UsageError):
        repository.rewrite(exclude=["a"])


def test_an_error_leaves_the_old_ones(
    repository: packstone.Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from packstone.repository.writer import ObjectWriter

    (source / "a").write_bytes(b"123")
    (source / "b").write_bytes(b"123")
    repository.snapshot([source])
    before = repository.snapshots()

    def full(*_: object, **__: object) -> str:
        raise packstone.StorageFull("full")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectWriter, "commit", full)
        with pytest.raises(packstone.StorageFull):
            repository.rewrite(["latest"], exclude=["a"], forget=True)
    assert repository.snapshots() == before
