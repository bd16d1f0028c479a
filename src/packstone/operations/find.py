"""Find paths in many snapshots, each with its history: first seen, changed, gone.

Reads trees only, and of a directory that several snapshots hold the pages in which they differ:
one walk goes through all snapshots of a host at once. A snapshot says that a path is gone only
where one of its sources covers the path: /srv/a is not gone when /srv/b is saved.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from packstone.errors import UsageError
from packstone.filesystem.ignore import Filter, Rules
from packstone.model import Entry
from packstone.operations.compare import compare_entries, tree_of
from packstone.repository.changes import iter_changes
from packstone.repository.reader import ObjectReader
from packstone.repository.snapshots import SnapshotRow
from packstone.repository.trees import check_entry, find_entry, is_directory_mode, iter_entries

NEW = "new"
GONE = "gone"

FILE_TYPES = {
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "p": stat.S_IFIFO,
    "s": stat.S_IFSOCK,
    "b": stat.S_IFBLK,
    "c": stat.S_IFCHR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FindOptions:
    """What a path must be like, in one of its versions at least.

    `patterns` are those of `--exclude`, matched against each path by itself; none match all.
    `min_size` and `max_size` in bytes, both included, are of regular files; `newer_ns` and
    `older_ns` bound the mtime, both left out; `types` are letters of FILE_TYPES.
    """

    patterns: Sequence[str] = ()
    ignore_case: bool = False
    min_size: int | None = None
    max_size: int | None = None
    newer_ns: int | None = None
    older_ns: int | None = None
    types: Sequence[str] = ()


class FoundVersion(NamedTuple):
    """What happened to a path in a snapshot; `entry` is what it was then, None if it is gone.

    `what` is "new", "content", "attributes", "type" or "gone".
    """

    row: SnapshotRow
    what: str
    entry: Entry | None


class FoundPath(NamedTuple):
    """A path of a host and its versions, oldest first; what is unchanged is not repeated."""

    host: str
    path: bytes
    versions: tuple[FoundVersion, ...]


def find_paths(
    reader: ObjectReader, rows: Sequence[SnapshotRow], options: FindOptions
) -> Iterator[FoundPath]:
    """Yield what fits in some snapshots, oldest first: host by host, names ascending.

    Raises UsageError for patterns or types that make no sense, Damaged, ObjectMissing.
    """
    test = _Test(options)  # what is wrong with it is said at once
    hosts: dict[str, list[SnapshotRow]] = {}
    for row in rows:
        hosts.setdefault(row.snapshot.host, []).append(row)

    def find() -> Iterator[FoundPath]:
        for host in sorted(hosts):
            yield from _Walk(reader, hosts[host], test).run(host)

    return find()


class _Test:
    """Options made ready for many entries."""

    def __init__(self, options: FindOptions) -> None:
        unknown = [letter for letter in options.types if letter not in FILE_TYPES]
        if unknown:
            raise UsageError(
                f"no file is of type {unknown[0]!r}", hint="Known: f, d, l, p, s, b, c"
            )
        self._kinds = {FILE_TYPES[letter] for letter in options.types}
        self._options = options
        self._filter: Filter | None = None
        if options.patterns:
            rules = Rules(patterns=tuple(options.patterns), ignore_case=options.ignore_case)
            self._filter = Filter(rules)

    def may_fit(self, where: str, name: bytes) -> bool:
        """Return whether a name fits, as that of a file or of a directory."""
        found = self._filter
        return (
            found is None or found.excludes(where, name, False) or found.excludes(where, name, True)
        )

    def fits(self, where: str, entry: Entry) -> bool:
        """Return whether an entry is what was asked for; `where` ends in a slash or is empty."""
        options, mode = self._options, entry.mode
        if self._kinds and (mode & 0o170000) not in self._kinds:
            return False
        if options.min_size is not None or options.max_size is not None:
            if mode & 0o170000 != stat.S_IFREG or entry.size < (options.min_size or 0):
                return False
            if options.max_size is not None and entry.size > options.max_size:
                return False
        if options.newer_ns is not None and entry.mtime_ns <= options.newer_ns:
            return False
        if options.older_ns is not None and entry.mtime_ns >= options.older_ns:
            return False
        found = self._filter
        return found is None or found.excludes(where, entry.name, is_directory_mode(mode))


class _State(NamedTuple):
    """What a snapshot, by number, says of a directory: whether it covers it, and its tree."""

    at: int
    covers: bool
    tree: bytes | None


_History = list[tuple[int, Entry | None]]


class _Directory:
    """The names met in a directory that fit or lead further, with what became of them."""

    def __init__(self, name: bytes, states: list[_State], walk: _Walk) -> None:
        self.name = name
        self.histories: dict[bytes, _History] = {}
        self.below: dict[bytes, list[_State]] = {}
        self._walk = walk
        self._may_fit = walk.test.may_fit
        self._read(states)
        self.names = iter(sorted(self.histories.keys() | self.below.keys()))

    def _read(self, states: list[_State]) -> None:
        get = self._walk.reader.get
        last: bytes | None = None  # the tree of the last snapshot that covers this
        strayed: set[bytes] = set()  # names of which a snapshot on the way spoke since
        for state in states:
            if not state.covers:
                self._read_way(state, strayed)
                continue
            for old, new in iter_changes(get, last, state.tree):
                self._note(state.at, True, old, new)
            last = state.tree
            for name in strayed:
                there = None if last is None else find_entry(get, last, name)
                self._note(state.at, True, there, there, name)
            strayed.clear()

    def _read_way(self, state: _State, strayed: set[bytes]) -> None:
        """Read a directory on the way to sources: it lists nothing but what leads there."""
        there = set()
        if state.tree is not None:
            for entry in iter_entries(self._walk.reader.get, state.tree):
                there.add(entry.name)
                covers = self._walk.covers(state.at, self._walk.path + b"/" + entry.name)
                self._note(state.at, covers, None, entry)
        for name in (self.histories.keys() | self.below.keys()) - there:
            path = self._walk.path + b"/" + name
            covers = self._walk.covers(state.at, path)
            if covers or self._walk.leads_to_source(state.at, path):
                self._note(state.at, covers, None, None, name)
                there.add(name)
        strayed |= there

    def _note(
        self, at: int, covers: bool, old: Entry | None, new: Entry | None, name: bytes = b""
    ) -> None:
        entry = new or old
        if entry is not None:
            name = entry.name
        tree = tree_of(new)
        states = self.below.get(name)
        if new is not None and tree is None and is_directory_mode(new.mode):
            pass  # it could not be read: nothing is known of what is below
        elif states is not None:
            # Where all below is covered, what stays the same need not be read again.
            if not (covers and states[-1].covers and states[-1].tree == tree):
                states.append(_State(at, covers, tree))
        elif tree is not None:
            self.below[name] = [_State(at, covers, tree)]
        history = self.histories.get(name)
        if history is not None:
            if new != history[-1][1] and (new is not None or covers):
                history.append((at, new))
        elif new is not None and self._may_fit(self._walk.text, name):
            self.histories[name] = [(at, new)]


class _Walk:
    """All snapshots of a host, oldest first, walked side by side."""

    def __init__(self, reader: ObjectReader, rows: Sequence[SnapshotRow], test: _Test) -> None:
        self.reader = reader
        self.test = test
        self.path = b""  # of the directory that is looked at: one only, deep trees have long ones
        self.text = ""  # the same as patterns see it
        self._rows = rows
        self._sources = [tuple(path.rstrip(b"/") for path in row.snapshot.paths) for row in rows]

    def covers(self, at: int, path: bytes) -> bool:
        """Return whether a path is, or is below, a source of a snapshot."""
        return any(path == each or path.startswith(each + b"/") for each in self._sources[at])

    def leads_to_source(self, at: int, path: bytes) -> bool:
        """Return whether a source of a snapshot is below a path."""
        return any(each.startswith(path + b"/") for each in self._sources[at])

    def run(self, host: str) -> Iterator[FoundPath]:
        """Yield what fits; paths of a directory before those of the next one."""
        roots = [
            _State(at, self.covers(at, b""), row.snapshot.tree) for at, row in enumerate(self._rows)
        ]
        stack = [_Directory(b"", roots, self)]
        while stack:
            directory = stack[-1]
            name = next(directory.names, None)
            if name is None:
                stack.pop()
                if stack:
                    self._move(self.path[: -len(directory.name) - 1])
                continue
            history = directory.histories.pop(name, None)
            if history is not None and any(
                entry is not None and self.test.fits(self.text, entry) for _at, entry in history
            ):
                path = self.path + b"/" + name
                yield FoundPath(host, path, tuple(self._versions(history)))
            states = directory.below.pop(name, None)
            if states is not None:
                self._move(self.path + b"/" + name)
                stack.append(_Directory(name, states, self))

    def _move(self, path: bytes) -> None:
        self.path = path
        self.text = (path[1:] + b"/").decode("utf-8", "surrogateescape") if path else ""

    def _versions(self, history: _History) -> Iterator[FoundVersion]:
        last: Entry | None = None
        for at, entry in history:
            if entry is None:
                what = GONE if last is not None else ""
            else:
                check_entry(entry)
                what = NEW if last is None else compare_entries(last, entry)
            if what:
                yield FoundVersion(self._rows[at], what, entry)
            last = entry
