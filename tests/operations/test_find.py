"""Find: histories against a brute-force listing of every snapshot, filters, what it reads."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations.synthetic import NAMES, Leaf, commit, listing, only, seen, versions, wide

import packstone
from packstone.filesystem.ignore import Filter, Rules

in_one_repository = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def covered(path: bytes, sources: list[bytes]) -> bool:
    return any(path == source or path.startswith(source.rstrip(b"/") + b"/") for source in sources)


def histories(
    repository: packstone.Repository, ids: list[str]
) -> dict[tuple[str, bytes], list[tuple[str, str, Any]]]:
    """List every snapshot in full and compare, path by path: (snapshot, what, entry)."""
    rows = [row for row in repository.snapshots() if row.id in ids]
    listings = {row.id: listing(repository, row.id) for row in rows}
    paths = {(row.snapshot.host, path) for row in rows for path in listings[row.id]}
    found: dict[tuple[str, bytes], list[tuple[str, str, Any]]] = {}
    for host, path in paths:
        last = None
        history = found[host, path] = []
        for row in rows:
            if row.snapshot.host != host:
                continue
            entry = listings[row.id].get(path)
            if entry is None:
                if last is not None and covered(path, row.snapshot.paths):
                    history.append((row.id, "gone", None))
                    last = None
                continue
            if last is None:
                history.append((row.id, "new", entry))
            elif seen(last) != seen(entry):
                if stat.S_IFMT(last.mode) != stat.S_IFMT(entry.mode):
                    what = "type"
                elif not stat.S_ISDIR(entry.mode) and (last.size, last.content) != (
                    entry.size,
                    entry.content,
                ):
                    what = "content"
                else:
                    what = "attributes"
                history.append((row.id, what, entry))
            last = entry
    return found


def found_by(
    repository: packstone.Repository, ids: list[str], **options: Any
) -> dict[tuple[str, bytes], list[tuple[str, str, Any]]]:
    found: dict[tuple[str, bytes], list[tuple[str, str, Any]]] = {}
    for each in repository.find(snapshots=ids, **options):
        assert (each.host, each.path) not in found
        found[each.host, each.path] = [(v.row.id, v.what, v.entry) for v in each.versions]
    return found


def visible(found: dict[Any, list[tuple[str, str, Any]]]) -> dict[Any, Any]:
    return {
        key: [(row, what, entry and seen(entry)) for row, what, entry in history]
        for key, history in found.items()
    }


SOURCES = st.lists(
    st.sampled_from([b"/", b"/a", b"/a/b", b"/b", b"/c/a", b"/d.txt"]), min_size=1, max_size=2
)


@in_one_repository
@given(trees=versions(), data=st.data())
def test_histories_are_those_of_full_listings(
    repository: packstone.Repository, trees: list[Any], data: st.DataObject
) -> None:
    """Hosts take turns, sources change, directories are on the way for one and inside another."""
    snapshots = []
    for tree in trees:
        sources = data.draw(SOURCES)
        snapshots.append((only(tree, sources), sources, data.draw(st.sampled_from("xy"))))
    ids = commit(repository, snapshots)
    assert visible(found_by(repository, ids)) == visible(histories(repository, ids))


@in_one_repository
@given(trees=versions(), data=st.data())
def test_what_fits_is_listed_with_its_whole_history(
    repository: packstone.Repository, trees: list[Any], data: st.DataObject
) -> None:
    ids = commit(repository, [(tree, [b"/"], "x") for tree in trees])
    pattern = data.draw(
        st.one_of(NAMES.map(lambda name: name.decode("utf-8", "surrogateescape")),
                  st.sampled_from(["*.txt", "a/", "/a/*", "a/b", "**/c", "?"]))
    )  # fmt: skip
    ignore_case = data.draw(st.booleans())
    low, high = data.draw(st.sampled_from([(None, None), (2, None), (None, 1), (1, 2)]))
    newer, older = data.draw(st.sampled_from([(None, None), (0, None), (None, 2), (0, 2)]))
    types = data.draw(st.sampled_from([(), ("f",), ("d",), ("l", "f")]))
    kinds = {"f": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK}
    rules = Filter(Rules(patterns=(pattern,), ignore_case=ignore_case))

    def fits(path: bytes, entry: Any) -> bool:
        where, _, name = path[1:].rpartition(b"/")
        text = where.decode("utf-8", "surrogateescape")
        kind = stat.S_IFMT(entry.mode)
        return (
            rules.excludes(text + "/" if text else "", name, kind == stat.S_IFDIR)
            and (low is None or (kind == stat.S_IFREG and entry.size >= low))
            and (high is None or (kind == stat.S_IFREG and entry.size <= high))
            and (newer is None or entry.mtime_ns > newer)
            and (older is None or entry.mtime_ns < older)
            and (not types or kind in {kinds[letter] for letter in types})
        )

    rows = {row.id: listing(repository, row.id) for row in repository.snapshots()}
    expected = {
        (host, path): history
        for (host, path), history in histories(repository, ids).items()
        if any(path in rows[each] and fits(path, rows[each][path]) for each in ids)
    }
    found = found_by(
        repository,
        ids,
        patterns=[pattern],
        ignore_case=ignore_case,
        min_size=low,
        max_size=high,
        newer_ns=newer,
        older_ns=older,
        types=types,
    )
    assert visible(found) == visible(expected)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=wide())
def test_directories_of_many_pages(repository: packstone.Repository, pair: Any) -> None:
    old, new = pair
    ids = commit(repository, [({b"big": tree}, [b"/big"], "x") for tree in (old, new, old)])
    assert visible(found_by(repository, ids)) == visible(histories(repository, ids))


def test_many_snapshots_are_read_once(
    repository: packstone.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    from packstone.repository.reader import ObjectReader

    tree = {b"%03d" % n: {b"%03d" % m: Leaf(m % 7) for m in range(100)} for n in range(100)}
    trees = []
    for number in range(50):
        changed = b"%03d" % number
        tree = tree | {changed: tree[changed] | {b"007": Leaf(9, mtime=number)}}
        trees.append(({b"data": tree}, [b"/data"], "x"))
    ids = commit(repository, trees)
    count = 0
    get = ObjectReader.get

    def counting(self: ObjectReader, kind: Any, object_id: bytes) -> bytes:
        nonlocal count
        count += 1
        return get(self, kind, object_id)

    monkeypatch.setattr(ObjectReader, "get", counting)
    list(repository.find(["007"], snapshots=ids[:1]))
    one, count = count, 0
    found = list(repository.find(["007"], snapshots=ids))
    # The root, its pages and the changed directory of each; never the 99 others.
    assert count <= one + 50 * 8
    assert len(found) == 101  # a directory is called so, too
    assert sum(len(each.versions) for each in found) == 101 + 49


def test_a_path_is_not_gone_where_nobody_looked(repository: packstone.Repository) -> None:
    file = {b"srv": {b"a": {b"file": Leaf()}}}
    other = {b"srv": {b"b": {b"else": Leaf()}}}
    without = {b"srv": {b"a": {}}}
    ids = commit(
        repository,
        [(file, [b"/srv/a"], "x"), (other, [b"/srv/b"], "x"), (file, [b"/srv/a"], "x"),
         (without, [b"/srv/a"], "x"), (file, [b"/srv/a"], "y")],
    )  # fmt: skip
    found = found_by(repository, ids, patterns=["file"])
    assert [(row, what) for row, what, _ in found["x", b"/srv/a/file"]] == [
        (ids[0], "new"),
        (ids[3], "gone"),
    ]
    assert [what for _, what, _ in found["y", b"/srv/a/file"]] == ["new"]


def test_sources_that_change(repository: packstone.Repository) -> None:
    """A snapshot of one file between two of its directory, which are the same tree."""
    one = {b"srv": {b"x": Leaf(1), b"y": Leaf(1), b"d": {b"z": Leaf(1)}}}
    other = {b"srv": {b"x": Leaf(2), b"d": {b"z": Leaf(2)}}}
    ids = commit(
        repository,
        [(one, [b"/srv"], "x"), (only(other, [b"/srv/x", b"/srv/d/z"]), [b"/srv/x", b"/srv/d/z"],
         "x"), (one, [b"/srv"], "x"), (only(one, [b"/srv/y"]), [b"/srv/x", b"/srv/y"], "x")],
    )  # fmt: skip
    found = {path: [what for _, what, _ in history]
             for (_, path), history in found_by(repository, ids, types=["f"]).items()}  # fmt: skip
    assert found == {
        b"/srv/x": ["new", "content", "content", "gone"],
        b"/srv/y": ["new"],
        b"/srv/d/z": ["new", "content", "content"],
    }


def test_one_version_that_fits_is_enough(repository: packstone.Repository) -> None:
    trees = [{b"Dump.SQL": Leaf(number, size)} for number, size in enumerate([10, 900, 20])]
    ids = commit(repository, [(tree, [b"/"], "x") for tree in trees])
    (found,) = repository.find(["dump.*"], snapshots=ids, min_size=500, ignore_case=True)
    assert [v.entry.size for v in found.versions if v.entry] == [10, 900, 20]
    assert list(repository.find(["dump.*"], snapshots=ids)) == []
    assert list(repository.find(snapshots=ids, min_size=901)) == []


def test_real_files(repository: packstone.Repository, source: Path) -> None:
    (source / "report.csv").write_bytes(b"1")
    (source / "steady").write_bytes(b"1")
    repository.snapshot([source], tags=["first"])
    (source / "report.csv").write_bytes(b"22")
    repository.snapshot([source])
    (source / "report.csv").chmod(0o600)
    repository.snapshot([source])
    (source / "report.csv").unlink()
    (source / "report.csv").mkdir()
    repository.snapshot([source])
    (source / "report.csv").rmdir()
    repository.snapshot([source])
    (found,) = repository.find(["*.csv"])
    assert found.path == bytes(source / "report.csv")
    assert [v.what for v in found.versions] == ["new", "content", "attributes", "type", "gone"]
    (steady,) = repository.find(["steady"])
    assert [v.what for v in steady.versions] == ["new"]
    (first,) = repository.find(["*.csv"], tags=["first"])
    assert len(first.versions) == 1


def test_what_makes_no_sense(repository: packstone.Repository) -> None:
    with pytest.raises(packstone.UsageError):
        repository.find(types=["z"])
    with pytest.raises(packstone.UsageError):
        repository.find(["a"], snapshots=["nothing"])


def test_deep_trees(repository: packstone.Repository) -> None:
    tree: Any = {b"bottom": Leaf()}
    for _ in range(3000):
        tree = {b"d": tree}
    ids = commit_deep(repository, tree)
    (found,) = repository.find(["bottom"], snapshots=ids)
    assert found.path == b"/d" * 3000 + b"/bottom"


def commit_deep(repository: packstone.Repository, tree: Any) -> list[str]:
    import sys

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        return commit(repository, [(tree, [b"/d"], "x")])
    finally:
        sys.setrecursionlimit(limit)
