"""Compare two snapshots, or places in them: added, removed, changed, renamed.

Reads trees only, and of those the subtrees and pages that differ. What is in a row is what the
second place has to become of the first: rows applied to the first give the second.
"""

from __future__ import annotations

import bisect
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from packstone.model import Entry, Problem
from packstone.operations.browse import find_path, split_path
from packstone.operations.compare import TYPE, compare_entries, tree_of
from packstone.repository.changes import Change, iter_changes
from packstone.repository.reader import ObjectReader
from packstone.repository.snapshots import SnapshotRow
from packstone.repository.trees import check_entry, is_directory_mode

ADDED = "added"
REMOVED = "removed"
RENAMED = "renamed"


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that differs.

    `what` is "added", "removed", "renamed", "type", "content" or "attributes". `path` is where it
    is in the second place, of what was removed in the first; `old_path` where it was, if that is
    not the same. Only what was added has no `old` entry, only what was removed no `new` one.
    """

    what: str
    path: bytes
    old_path: bytes
    old: Entry | None
    new: Entry | None


@dataclass(slots=True)
class DiffResult:
    """All differences by path, and totals; bytes are those of regular files.

    `bytes_added` counts what is new, also of files whose content changed; `bytes_removed` what
    these were before. `errors` names files on the disk that could not be read.
    """

    differences: list[Difference] = field(default_factory=list)
    bytes_added: int = 0
    bytes_removed: int = 0
    errors: list[Problem] = field(default_factory=list)

    def count(self, what: str) -> int:
        """Return the number of differences of a kind."""
        return sum(row.what == what for row in self.differences)


@dataclass(frozen=True, slots=True)
class Place:
    """What stands at a path of a snapshot; the root has no entry."""

    base: bytes  # absolute, b"" for the root
    entry: Entry | None
    tree: bytes | None

    @classmethod
    def find(cls, reader: ObjectReader, row: SnapshotRow, path: bytes) -> Place:
        """Find a path in a snapshot; raises UsageError when it is not there."""
        entry = find_path(reader, row.snapshot, path)
        names = split_path(path)
        base = b"/" + b"/".join(names) if names else b""
        return cls(base, entry, row.snapshot.tree if entry is None else tree_of(entry))


def diff_places(reader: ObjectReader, old: Place, new: Place) -> DiffResult:
    """Compare two places; if they are directories, what is in them and not they themselves.

    Raises Damaged, ObjectMissing.
    """
    if _is_directory(old) and _is_directory(new):
        changes = walk_changes(reader, old.tree, new.tree)
    else:
        changes = iter(_one(reader, old, new))
    rows = [row for path, change in changes if (row := make_row(old.base, new.base, path, change))]
    return settle(DiffResult(match_renames(rows)))


def settle(result: DiffResult) -> DiffResult:
    """Put rows in order and add up."""
    result.differences.sort(key=lambda row: row.path)
    for row in result.differences:
        if row.what in (ADDED, REMOVED, TYPE, "content"):
            result.bytes_removed += _size(row.old)
            result.bytes_added += _size(row.new)
    return result


def _size(entry: Entry | None) -> int:
    return entry.size if entry is not None else 0


def _is_directory(place: Place) -> bool:
    return place.entry is None or is_directory_mode(place.entry.mode)


def _one(reader: ObjectReader, old: Place, new: Place) -> Iterator[tuple[bytes, Change]]:
    """Yield the difference of two places of which one at least is no directory."""
    yield b"", (old.entry, new.entry)
    yield from walk_changes(reader, old.tree, new.tree)


def walk_changes(
    reader: ObjectReader, old_id: bytes | None, new_id: bytes | None
) -> Iterator[tuple[bytes, Change]]:
    """Yield (path below, change) of all that differs; a directory before what is in it."""
    where = b""
    stack = [(b"", iter_changes(reader.get, old_id, new_id))]
    while stack:
        name, changes = stack[-1]
        change = next(changes, None)
        if change is None:
            stack.pop()
            where = where[: -len(name) - 1]
            continue
        old, new = change
        entry = new or old
        assert entry is not None
        path = where + b"/" + entry.name
        yield path, change
        trees = tree_of(old), tree_of(new)
        if trees[0] != trees[1]:
            stack.append((entry.name, iter_changes(reader.get, *trees)))
            where = path


def make_row(old_base: bytes, new_base: bytes, path: bytes, change: Change) -> Difference | None:
    """Return what a user is told of a change, None for what does not count."""
    old, new = change
    for entry in change:
        if entry is not None:
            check_entry(entry)
    old_path, new_path = old_base + path or b"/", new_base + path or b"/"
    if old is None:
        return Difference(ADDED, new_path, new_path, old, new)
    if new is None:
        return Difference(REMOVED, old_path, old_path, old, new)
    what = compare_entries(old, new)
    return Difference(what, new_path, old_path, old, new) if what else None


def match_renames(rows: list[Difference]) -> list[Difference]:
    """Pair what was removed here and added there with the same content.

    A directory with the same tree takes along all that is below it; else files that are not
    empty pair with files of the same chunks, of several with one of the same name first.
    """
    removed = {row.path: row for row in rows if row.what == REMOVED}
    added = {row.path: row for row in rows if row.what == ADDED}
    if not removed or not added:
        return rows
    pairs = _pair_trees(removed, added)
    _pair_files(removed, added, pairs)
    gone, come = pairs.keys(), set(pairs.values())
    kept = [
        row
        for row in rows
        if not (row.what == REMOVED and row.path in gone)
        and not (row.what == ADDED and row.path in come)
    ]
    return kept + [
        Difference(RENAMED, new_path, old_path, removed[old_path].old, added[new_path].new)
        for old_path, new_path in pairs.items()
    ]


def _pair_trees(
    removed: dict[bytes, Difference], added: dict[bytes, Difference]
) -> dict[bytes, bytes]:
    """Return old path → new path of directories with equal trees and of all below them."""
    pairs: dict[bytes, bytes] = {}
    taken: set[bytes] = set()
    paths, new_paths = sorted(removed), sorted(added)
    # Paths ascend, so a directory has its turn before those in it.
    for path, target in _alike(removed, added, tree_of):
        below = _below(paths, path)
        if path in pairs or not below:  # of empty directories any two are alike
            continue
        if target in taken or not taken.isdisjoint(_below(new_paths, target)):
            continue
        for old_path in [path, *below]:
            new_path = target + old_path[len(path) :]
            pairs[old_path] = new_path
            taken.add(new_path)
    return pairs


def _pair_files(
    removed: dict[bytes, Difference], added: dict[bytes, Difference], pairs: dict[bytes, bytes]
) -> None:
    """Pair the files that are left."""
    taken = set(pairs.values())
    left = {path: row for path, row in removed.items() if path not in pairs}
    free = {path: row for path, row in added.items() if path not in taken}
    pairs.update(_alike(left, free, _content_key))


def _alike(
    removed: dict[bytes, Difference],
    added: dict[bytes, Difference],
    key: Callable[[Entry | None], Any],
) -> list[tuple[bytes, bytes]]:
    """Return (old path, new path) of equal keys, each path once; old paths ascend."""
    found: dict[bytes, bytes] = {}
    taken: set[bytes] = set()
    for same_name in (True, False):
        free: dict[Any, list[bytes]] = {}
        for path in sorted(added, reverse=True):
            if path not in taken and (value := key(added[path].new)) is not None:
                free.setdefault((value, same_name and os.path.basename(path)), []).append(path)
        for path in sorted(removed):
            if path not in found and (value := key(removed[path].old)) is not None:
                others = free.get((value, same_name and os.path.basename(path)))
                if others:
                    found[path] = others.pop()
                    taken.add(found[path])
    return sorted(found.items())


def _below(paths: list[bytes], path: bytes) -> list[bytes]:
    return paths[bisect.bisect_left(paths, path + b"/") : bisect.bisect_left(paths, path + b"0")]


def _content_key(entry: Entry | None) -> Any:
    """Return what two files of the same bytes have in common, None for anything else."""
    if entry is None or not entry.size or entry.mode & 0o170000 != 0o100000 or not entry.content:
        return None
    content = entry.content
    if isinstance(content, list):
        return (entry.size, content[0], content[1], tuple(content[2]))
    return (entry.size, content)


def totals(result: DiffResult) -> dict[str, int]:
    """Return the number of differences of each kind, and the bytes."""
    counts = Counter(row.what for row in result.differences)
    return {
        "added": counts[ADDED],
        "removed": counts[REMOVED],
        "changed": counts["content"],
        "attributes": counts["attributes"],
        "type": counts[TYPE],
        "renamed": counts[RENAMED],
        "bytes_added": result.bytes_added,
        "bytes_removed": result.bytes_removed,
    }
