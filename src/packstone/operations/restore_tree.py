"""Walk a snapshot's trees and put every entry in place below a target.

Directories, links and devices are made during the walk, contents in windows; a directory
gets its attributes when everything in it is done. What cannot be restored is named and the
rest goes on.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from packstone.errors import Damaged, ObjectMissing, TargetError
from packstone.filesystem.confine import Target, TargetDirectory
from packstone.model import Entry, Flag
from packstone.operations.options import RestoreOptions
from packstone.operations.owners import Owners
from packstone.operations.restore_files import FileRestorer, RestoredFile
from packstone.operations.results import RestoreResult, Ticker
from packstone.operations.selection import Selection
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow
from packstone.repository.trees import check_entry, is_directory_mode, iter_entries

_WINDOW_ENTRIES = 100_000  # directories and links that wait for the contents of a window


class Level:
    """A directory of the snapshot that is being walked; made when something in it is taken."""

    __slots__ = ("above", "directory", "entries", "entry", "included")

    def __init__(
        self,
        above: Level | None,
        entry: Entry | None,
        entries: Iterator[Entry],
        included: bool,
    ) -> None:
        self.above = above
        self.entry = entry
        self.entries = entries
        self.included = included
        self.directory: TargetDirectory | None = None


class TreeRestorer:
    def __init__(
        self,
        repository: ObjectRepository,
        row: SnapshotRow,
        target: Target,
        options: RestoreOptions,
        result: RestoreResult,
    ) -> None:
        self._get = repository.reader.get
        self._target = target
        self._options = options
        self._result = result
        summary = row.snapshot.summary
        self._files = FileRestorer(
            repository,
            target,
            result,
            options.threads,
            Ticker(options.progress),
            (summary.get("files"), summary.get("bytes_total")),
        )
        self._entries = 0
        self._left: list[tuple[TargetDirectory, Entry]] = []  # directories of this window
        self._written: list[tuple[TargetDirectory, Entry]] = []  # of the one before it
        self._linkable: list[tuple[TargetDirectory, Entry]] = []
        self._links: dict[bytes, tuple[RestoredFile | None, TargetDirectory, bytes]] = {}
        self._pending_links: list[tuple[TargetDirectory, Entry]] = []
        self._select = Selection(options.include, options.exclude)
        self._owners = Owners(row, options.owner, result.warnings)

    def run(self, tree_id: bytes | None, only: Entry | None, base: bytes) -> None:
        """Restore a directory's content, or one entry, into the target's root."""
        try:
            if only is not None and (entry := self._sound(only, base)) is not None:
                self._place(self._target.root, entry, base)
            if tree_id is not None:
                self._walk(tree_id, base)
            self._flush()
            self._flush()  # completes what the first one started
        finally:
            self._files.close()

    def _walk(self, tree_id: bytes, base: bytes) -> None:
        get = self._get
        select = self._select
        top = Level(None, None, iter_entries(get, tree_id), included=select.everything)
        top.directory = self._target.root
        stack = [top]
        where = base  # of the topmost level only: paths of a deep tree would fill the memory
        while stack:
            level = stack[-1]
            try:
                entry = next(level.entries, None)
            except (Damaged, ObjectMissing) as error:
                self._files.problem(where or b"/", error.message)
                entry = None
            if entry is None:
                stack.pop()
                if level.entry is not None:
                    where = where[: -len(level.entry.name) - 1]
                    if level.directory is not None:
                        self._left.append((level.directory, level.entry))
                continue
            is_directory = is_directory_mode(entry.mode)
            included = level.included
            if not select.everything:
                if select.excludes(where, entry.name, is_directory):
                    continue
                included = included or select.includes(where, entry.name, is_directory)
                if not included and not is_directory:
                    continue
            path = where + b"/" + entry.name
            sound = self._sound(entry, path)
            if sound is None:
                continue
            try:
                if is_directory:
                    assert isinstance(entry.content, bytes)
                    below = Level(level, sound, iter_entries(get, entry.content), included)
                    if included:
                        self._make(below)
                    stack.append(below)
                    where = path
                else:
                    self._place(self._make(level), sound, path)
            except TargetError as error:
                there = os.path.join(self._target.root.path, path[len(base) :].lstrip(b"/"))
                self._files.problem(there, error.message)
            self._entries += 1
            if self._files.is_full or self._entries >= _WINDOW_ENTRIES:
                self._flush()

    def _make(self, level: Level) -> TargetDirectory:
        """Make a level's directory and those above it, if that was not done; TargetError."""
        missing = []
        while level.directory is None:
            missing.append(level)
            assert level.above is not None
            level = level.above
        directory = level.directory
        for level in reversed(missing):
            assert level.entry is not None
            directory = level.directory = self._target.make_directory(directory, level.entry.name)
        return directory

    def _sound(self, entry: Entry, path: bytes) -> Entry | None:
        """Return an entry that can be restored, its owner as this host knows it."""
        try:
            check_entry(entry)
        except Damaged as error:
            self._files.problem(path, error.message)
            return None
        lost = entry.extras is not None and bool(entry.extras.flags & Flag.LOST)
        if entry.content is None and not stat.S_ISFIFO(entry.mode):
            if lost:
                text = "its content was lost in the repository; left out"
                self._files.problem(path, text)
            elif not stat.S_ISSOCK(entry.mode):  # a socket without its process is worth nothing
                self._files.problem(path, "could not be read when the snapshot was taken; left out")
            return None
        if lost:
            self._files.problem(path, "some of its entries were lost in the repository")
        return self._owners.here(entry)

    def _place(self, directory: TargetDirectory, entry: Entry, path: bytes) -> None:
        """Begin to restore one entry that is no directory."""
        link = entry.extras.link if entry.extras else b""
        if link and link in self._links:
            self._pending_links.append((directory, entry))
            return
        file: RestoredFile | None = None
        if self._is_kept(directory, entry):
            self._result.files_skipped += 1
            if self._options.overwrite == "never":
                return  # what is there is not ours: no further name may become a link to it
        elif stat.S_ISREG(entry.mode):
            file = self._files.begin(directory, entry, path)
        elif stat.S_ISLNK(entry.mode):
            self._files.count(self._target.make_symlink(directory, entry))
        elif stat.S_ISFIFO(entry.mode):
            self._files.count(self._target.make_fifo(directory, entry))
        else:
            self._files.count(self._target.make_device(directory, entry))
        if link:
            self._links[link] = (file, directory, entry.name)

    def _is_kept(self, directory: TargetDirectory, entry: Entry) -> bool:
        """Return whether what is there already stays: its content need not be fetched."""
        overwrite = self._options.overwrite
        if directory.made or overwrite not in ("changed", "never"):
            return False
        found = self._target.stat_names(directory, (entry.name,))[0]
        if found is None:
            return False
        if overwrite == "never":
            return True
        # Size and time, as rsync and restic do: found[0], [3], [4] are mode, size, mtime_ns.
        return (
            stat.S_ISREG(entry.mode)
            and stat.S_ISREG(found[0])
            and (found[3], found[4]) == (entry.size, entry.mtime_ns)
        )

    def _flush(self) -> None:
        """Start to write the contents of this window, and complete the one before it.

        The walk goes on while contents are written. Links need their contents, and
        directories get their attributes when nothing in them changes any more.
        """
        self._files.wait()
        self._make_links()
        for directory, entry in self._written:
            self._target.finish_directory(directory, entry)
        self._files.flush()
        self._linkable, self._pending_links = self._pending_links, []
        self._written, self._left = self._left, []
        self._entries = 0

    def _make_links(self) -> None:
        for directory, entry in self._linkable:
            assert entry.extras is not None
            file, first_directory, first_name = self._links[entry.extras.link]
            if file is not None and file.failed:
                path = directory.path_of(entry.name)
                self._files.problem(path, "a hard link to a file that could not be restored")
                continue
            outcome = self._target.link(directory, entry.name, first_directory, first_name)
            self._files.count(outcome)
        self._linkable.clear()
