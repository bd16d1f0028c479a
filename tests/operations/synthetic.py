"""Snapshots of trees that were never on a disk, of any shape, in milliseconds.

A tree is a dict: name → tree, or a leaf. Chunks are named and not stored: what only looks at
trees never asks for them. Imported as `operations.synthetic`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import Any, NamedTuple

from hypothesis import strategies as st

import packstone
from packstone.model import Entry, Extras, Snapshot
from packstone.operations.browse import list_entries
from packstone.repository.layout import snapshot_name
from packstone.repository.trees import DirectoryWriter
from packstone.repository.writer import ObjectWriter


class Leaf(NamedTuple):
    """A file or symbolic link; what differs in `noise` (inode, ctime) is no difference."""

    content: int = 0
    size: int = 1
    mtime: int = 0
    mode: int = stat.S_IFREG | 0o644
    link: bytes = b""
    noise: int = 0


class Folder(dict[bytes, Any]):
    """A directory with an mtime of its own."""

    mtime = 0


Tree = dict[bytes, Any]


def store(repository: packstone.Repository, writer: ObjectWriter, tree: Tree) -> bytes:
    """Write a tree's pages and return its id."""
    directory = DirectoryWriter(writer.put)
    for name in sorted(tree):
        directory.extend([_entry(repository, writer, name, tree[name])])
    return directory.finish()


def _entry(repository: packstone.Repository, writer: ObjectWriter, name: bytes, node: Any) -> Entry:
    if isinstance(node, dict):
        tree_id = store(repository, writer, node)
        mtime = getattr(node, "mtime", 0)
        return Entry(name, stat.S_IFDIR | 0o755, 0, 0, 0, mtime, 0, 0, tree_id, None)
    content: Any
    size = node.size
    if stat.S_ISLNK(node.mode):
        content, size = b"target %d" % node.content, 0
    else:
        content = bytes([node.content]) * 32 if size else b""
    extras = Extras(link=node.link) if node.link else None
    return Entry(name, node.mode, 0, 0, size, node.mtime, node.noise, node.noise, content, extras)


def commit(
    repository: packstone.Repository,
    trees: Iterable[tuple[Tree, list[bytes], str]],
    first_ns: int = 1_700_000_000_000_000_000,
) -> list[str]:
    """Commit (tree, source paths, host) as the only snapshots, an hour apart; return their ids."""
    for row in repository.snapshots():
        repository._objects.storage.delete(snapshot_name(row.id))
    ids = []
    writer = repository._objects.writer()
    for number, (tree, paths, host) in enumerate(trees):
        snapshot = Snapshot(
            time_ns=first_ns + number * 3_600_000_000_000,
            host=host,
            paths=paths,
            tree=store(repository, writer, tree),
        )
        ids.append(writer.commit(snapshot))
    return ids


def listing(repository: packstone.Repository, snapshot_id: str) -> dict[bytes, Entry]:
    """Return every path of a snapshot and its entry."""
    row = repository.find_snapshot(snapshot_id)
    rows = list_entries(repository._objects.reader, row.snapshot, b"", recursive=True)
    return {row.path: row.entry for row in rows}


def seen(entry: Entry) -> tuple[Any, ...]:
    """Return all of an entry that a user may ever see again."""
    content = None if stat.S_ISDIR(entry.mode) else entry.content
    return (entry.mode, entry.uid, entry.gid, entry.size, entry.mtime_ns, repr(content),
            entry.extras)  # fmt: skip


def only(tree: Tree, paths: Iterable[bytes]) -> Tree:
    """Return what a snapshot of some sources holds of a tree: these, and the way to them."""
    found: Tree = {}
    for path in paths:
        names = [name for name in path.split(b"/") if name]
        if not names:
            return tree
        node, kept = tree, found
        for name in names[:-1]:
            if not isinstance(node.get(name), dict):
                break
            node, kept = node[name], kept.setdefault(name, {})
        else:
            if names[-1] in node:
                kept[names[-1]] = node[names[-1]]
    return found


# Few names and contents: what matters happens where they meet.
NAMES = st.sampled_from([b"a", b"b", b"c", b"d.txt", b"E.TXT"])
LEAVES = st.builds(
    Leaf,
    content=st.integers(0, 1),
    size=st.sampled_from([2, 2, 2, 1, 0]),
    mtime=st.integers(0, 2),
    mode=st.sampled_from([stat.S_IFREG | 0o644, stat.S_IFREG | 0o600, stat.S_IFLNK | 0o777]),
    noise=st.integers(0, 1),
    link=st.just(b""),
)
TREES = st.dictionaries(
    NAMES,
    st.recursive(LEAVES, lambda below: st.dictionaries(NAMES, below, max_size=4), max_leaves=8),
    max_size=5,
)


@st.composite
def versions(draw: st.DrawFn, most: int = 5) -> list[Tree]:
    """Draw a tree and versions of it: entries replaced, taken away, moved, subtrees kept."""
    tree = draw(TREES)
    found = [tree]
    for _ in range(draw(st.integers(1, most - 1))):
        tree = _edited(draw, tree)
        found.append(tree)
    return found


def _edited(draw: st.DrawFn, tree: Tree) -> Tree:
    edited = dict(tree)
    for _ in range(draw(st.integers(0, 2))):
        names = sorted(edited)
        verb = draw(st.sampled_from(["put", "drop", "move", "enter", "touch"]))
        if verb == "put" or not names:
            edited[draw(NAMES)] = draw(st.one_of(LEAVES, TREES))
            continue
        name = draw(st.sampled_from(names))
        node = edited[name]
        if verb == "drop":
            del edited[name]
        elif verb == "move":
            edited[draw(NAMES)] = edited.pop(name)
        elif verb == "enter" and isinstance(node, dict):
            edited[name] = _edited(draw, node)
        elif verb == "touch" and isinstance(node, Leaf):
            edited[name] = node._replace(mtime=draw(st.integers(0, 2)), noise=draw(NOISE))
    return edited


NOISE = st.integers(0, 1)


@st.composite
def wide(draw: st.DrawFn) -> tuple[Tree, Tree]:
    """Draw two versions of a directory of several thousand names, of many pages."""
    count = draw(st.sampled_from([0, 20, 300, 2500, 6000]))
    old = {b"%05d" % number: Leaf(number % 5) for number in range(count)}
    new = dict(old)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, 6500))
        verb = draw(st.sampled_from(["put", "drop", "drop many", "put many"]))
        for number in range(at, at + (700 if "many" in verb else 1)):
            if "put" in verb:
                new[b"%05d" % number] = Leaf(7)
            else:
                new.pop(b"%05d" % number, None)
    return old, new
