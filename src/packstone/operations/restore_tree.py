"""Walk a snapshot's trees and put every entry in place below a target.

Directories, links and devices are made during the walk, contents in windows; a directory
gets its attributes when everything in it is done. What cannot be restored is named and the
rest goes on.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from typing import NamedTuple

from packstone.errors import Damaged, ObjectMissing, PackstoneError, TargetError
from packstone.filesystem.confine import Settled, Target, TargetDirectory
from packstone.filesystem.existing import has_other_names
from packstone.filesystem.metadata import DEVICE, INODE, MODE, MTIME_NS, SIZE, StatRow
from packstone.model import MIB, Entry, Flag
from packstone.operations.options import RestoreOptions
from packstone.operations.owners import Owners
from packstone.operations.restore_delete import Deleter
from packstone.operations.restore_files import FileRestorer, RestoredFile, SmallFile
from packstone.operations.results import Change, RestoreResult, Ticker
from packstone.operations.selection import Selection
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow
from packstone.repository.trees import check_entry, find_entry, is_directory_mode, iter_entries

_WINDOW_ENTRIES = 100_000  # directories and links that wait for the contents of a window


class Level:
    """A directory of the snapshot that is being walked; made when something in it is taken."""

    __slots__ = (
        "above", "abroad", "directory", "entries", "entry", "included", "leftovers", "mount",
        "taken", "tree_id", "whole",
    )  # fmt: skip

    def __init__(
        self,
        above: Level | None,
        entry: Entry | None,
        tree_id: bytes | None,
        entries: Iterator[Entry],
        included: bool,
    ) -> None:
        self.above = above
        self.entry = entry
        self.tree_id = tree_id  # None: a list of what is asked for, no directory in full
        self.entries = entries
        self.included = included
        self.directory: TargetDirectory | None = None  # the one that is there, or is made
        self.taken = False  # whether something in it is restored
        self.whole = True  # whether all of its entries could be read
        self.leftovers: dict[int, bytes] = {}  # size → temporary file of a killed restore
        self.mount: int | str = 0  # where its directory is, for --delete
        self.abroad = False  # on another mount than what is restored


def has_lost(entry: Entry) -> bool:
    """Return whether the repository lost something of an entry: all, or part of a directory."""
    return entry.extras is not None and bool(entry.extras.flags & Flag.LOST)


class _Left(NamedTuple):
    """A directory whose walk is over; what is in it may still be waiting to be written."""

    level: Level
    directory: TargetDirectory


class TreeRestorer:
    """Restores entries into the root of a target; `base` is the stored path of that root."""

    def __init__(
        self,
        repository: ObjectRepository,
        row: SnapshotRow,
        target: Target,
        options: RestoreOptions,
        result: RestoreResult,
        base: bytes,
    ) -> None:
        self._get = repository.reader.get
        self._target = target
        self._options = options
        self._result = result
        self._base = base
        self._pretend = options.dry_run
        summary = row.snapshot.summary
        self._files = FileRestorer(
            repository,
            target,
            result,
            options.threads,
            Ticker(options.progress),
            (summary.get("files"), summary.get("bytes_total")),
            pretend=options.dry_run,
        )
        self._entries = 0
        self._left: list[_Left] = []  # directories of this window
        self._written: list[_Left] = []  # of the one before it
        self._linkable: list[tuple[TargetDirectory, Entry]] = []
        self._links: dict[bytes, tuple[RestoredFile | None, TargetDirectory, bytes]] = {}
        self._pending_links: list[tuple[TargetDirectory, Entry]] = []
        self._kept: set[tuple[int, int]] = set()  # inodes of several names that stay
        self._fresh: list[tuple[TargetDirectory, Entry, RestoredFile | None]] = []
        self._verifiable: list[tuple[TargetDirectory, Entry, RestoredFile | None]] = []
        self._select = Selection(options.include, options.exclude)
        self._owners = Owners(row, options.owner, result.warnings)
        self._told = threading.Lock()
        self._deleter: Deleter | None = None
        if options.delete:
            self._deleter = Deleter(row, target, self._get, options, base)
            target.may_remove(self._deleter.judge, self._deleted)

    def run(self, tree_id: bytes, *, whole: bool = True) -> None:
        """Restore a directory's content into the target's root.

        `whole`: whether the snapshot has all that was in it; else nothing is deleted in it.
        """
        entries = iter_entries(self._get, tree_id)
        top = Level(None, None, tree_id, entries, included=self._select.everything)
        top.whole = whole
        self._run(top)

    def run_entry(self, entry: Entry) -> None:
        """Restore one entry, a directory with all below it, into the target's root."""
        self._run(Level(None, None, None, iter([entry]), included=self._select.everything))

    def _run(self, top: Level) -> None:
        top.directory = self._target.root
        top.taken = True
        try:
            if top.tree_id is not None:
                self._meet(top)
            self._walk(top)
            self._flush()
            self._flush()  # completes what the first one started
        finally:
            self._files.close()

    def _walk(self, top: Level) -> None:
        select = self._select
        stack = [top]
        where = self._base  # of the topmost level only: paths of a deep tree fill the memory
        while stack:
            level = stack[-1]
            try:
                entry = next(level.entries, None)
            except (Damaged, ObjectMissing) as error:
                self._files.problem(where or b"/", error.message)
                level.whole = False
                entry = None
            if entry is None:
                stack.pop()
                if level.directory is not None:
                    self._left.append(_Left(level, level.directory))
                if level.entry is not None:
                    where = where[: -len(level.entry.name) - 1]
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
                    stack.append(self._below(level, sound, included))
                    where = path
                else:
                    self._place(level, self._take(level), sound, path)
            except TargetError as error:
                there = os.path.join(self._target.root.path, path[len(self._base) :].lstrip(b"/"))
                self._files.problem(there, error.message)
            self._entries += 1
            if self._files.is_full or self._entries >= _WINDOW_ENTRIES:
                self._flush()

    def _below(self, level: Level, entry: Entry, included: bool) -> Level:
        """Return the level of a directory, made if it is asked for; raises TargetError."""
        assert isinstance(entry.content, bytes)
        entries = iter_entries(self._get, entry.content)
        below = Level(level, entry, entry.content, entries, included)
        below.whole = not has_lost(entry)
        if included:
            self._take(below)
        elif self._deleter is not None and level.directory is not None:
            # nothing in it may be asked for, and yet what matches in it and is not in the
            # snapshot is to go
            below.directory = self._target.enter(level.directory, entry.name)
            self._locate(below)
        return below

    def _locate(self, level: Level) -> None:
        """Note whether a directory is on a mount that the restore came upon."""
        if self._deleter is None or level.directory is None or level.directory.made:
            return
        level.mount = self._target.mount(level.directory)
        above = level.above
        if above is not None and above.tree_id is not None:
            level.abroad = above.abroad or level.mount != above.mount
            if level.abroad and not above.abroad:
                place = os.fsdecode(level.directory.path)
                self._result.warnings.append(
                    f"nothing was deleted in {place!r}: another file system is mounted there"
                )

    def _take(self, level: Level) -> TargetDirectory:
        """Make a level's directory and those above it, if that was not done; TargetError."""
        if level.taken:
            assert level.directory is not None
            return level.directory
        missing = []
        at = level
        while not at.taken:
            missing.append(at)
            assert at.above is not None
            at = at.above
        for at in reversed(missing):
            assert at.above is not None and at.above.directory is not None
            assert at.entry is not None
            at.directory = self._target.make_directory(at.above.directory, at.entry.name)
            at.taken = True
            self._meet(at)
        assert level.directory is not None
        return level.directory

    def _meet(self, level: Level) -> None:
        """Take note of what is in a directory that is restored into; raises PackstoneError."""
        assert level.directory is not None
        if level.above is None or level.above.tree_id is None:
            self._lock(level.directory)
        self._locate(level)
        if level.directory.made:
            # Its path is long below many levels: made for whoever listens only.
            if level.entry is not None and self._options.report is not None:
                self._report("create", level.directory.path)
        elif not self._pretend:
            for name, size in self._target.leftovers(level.directory):
                assert level.tree_id is not None
                if find_entry(self._get, level.tree_id, name) is not None:
                    continue  # the snapshot has it: nothing of ours
                if size <= MIB or size in level.leftovers:
                    self._target.discard_leftover(level.directory, name)
                else:
                    level.leftovers[size] = name

    def _lock(self, directory: TargetDirectory) -> None:
        if not self._target.lock(directory):
            raise PackstoneError(
                f"another restore is at work in {os.fsdecode(directory.path)!r}",
                hint="Wait until it has ended, then run this command again",
            )

    def _sound(self, entry: Entry, path: bytes) -> Entry | None:
        """Return an entry that can be restored, its owner as this host knows it."""
        try:
            check_entry(entry)
        except Damaged as error:
            self._files.problem(path, error.message)
            return None
        lost = has_lost(entry)
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

    def _place(self, level: Level, directory: TargetDirectory, entry: Entry, path: bytes) -> None:
        """Begin to restore one entry that is no directory."""
        link = entry.extras.link if entry.extras else b""
        if link and link in self._links:
            self._pending_links.append((directory, entry))
            return
        overwrite = self._options.overwrite
        row = None
        if not directory.made:
            row = self._target.stat_names(directory, (entry.name,))[0]
        file: RestoredFile | None = None
        if row is not None and overwrite is None:
            self._files.problem(directory.path_of(entry.name), "not restored: it exists already")
            return
        if row is not None and overwrite == "never":
            self._keep(directory, entry)
            return  # what is there is not ours: no further name may become a link to it
        if row is not None and self._is_in_the_way(directory, entry, row):
            return
        if stat.S_ISREG(entry.mode):
            file = self._place_file(level, directory, entry, path, row)
        elif (
            row is not None and overwrite == "changed" and self._is_as_entry(directory, entry, row)
        ):
            self._keep(directory, entry, row)
        else:
            self._replaced(directory, entry, row)
            if self._pretend:
                file = SmallFile(directory, entry, path)  # it would not be the one that is there
                self._result.files_restored += 1
            elif stat.S_ISLNK(entry.mode):
                self._files.count(self._target.make_symlink(directory, entry))
            elif stat.S_ISFIFO(entry.mode):
                self._files.count(self._target.make_fifo(directory, entry))
            else:
                self._files.count(self._target.make_device(directory, entry))
        if link:
            self._links[link] = (file, directory, entry.name)

    def _place_file(
        self,
        level: Level,
        directory: TargetDirectory,
        entry: Entry,
        path: bytes,
        row: StatRow | None,
    ) -> RestoredFile | None:
        """Begin to restore a regular file; None if the one that is there stays."""
        leftover = level.leftovers.pop(entry.size, None) if level.leftovers else None
        existing = None
        try:
            if row is not None and self._options.overwrite == "changed" and stat.S_ISREG(row[MODE]):
                same = not self._options.read_data and (row[SIZE], row[MTIME_NS]) == (
                    entry.size,
                    entry.mtime_ns,
                )
                if not same:
                    existing = self._target.existing_file(directory, entry.name, row)
                    same = existing is not None and self._files.is_there(existing, entry)
                if same and self._may_stay(directory, entry, row):
                    if leftover is not None:
                        self._target.discard_leftover(directory, leftover)
                    if self._options.verify:
                        self._fresh.append((directory, entry, None))
                    return None
                if existing is None:
                    existing = self._target.existing_file(directory, entry.name, row)
            self._replaced(directory, entry, row)
            file = self._files.begin(
                directory,
                entry,
                path,
                existing,
                leftover=leftover,
                alone=row is not None and stat.S_ISDIR(row[MODE]),
            )
        finally:
            if existing is not None:
                existing.close()
        if self._options.verify:
            self._fresh.append((directory, entry, file))
        return file

    def _may_stay(self, directory: TargetDirectory, entry: Entry, row: StatRow) -> bool:
        """Leave a file of the right content as it is, its attributes set; False if it cannot be."""
        if self._is_taken(row):
            return False
        settled = self._target.settle_attributes(directory, entry, row)
        if settled == Settled.NEEDS_COPY:
            return False
        action = "keep" if settled == Settled.SAME else "attributes"
        self._keep(directory, entry, row, action)
        return True

    def _is_as_entry(self, directory: TargetDirectory, entry: Entry, row: StatRow) -> bool:
        return (
            self._options.overwrite == "changed"
            and not self._is_taken(row)
            and self._target.is_as_entry(directory, entry, row)
        )

    def _is_taken(self, row: StatRow) -> bool:
        """Return whether an inode stays under another name, which is no link to this one."""
        return has_other_names(row) and (row[DEVICE], row[INODE]) in self._kept

    def _keep(
        self,
        directory: TargetDirectory,
        entry: Entry,
        row: StatRow | None = None,
        action: str = "keep",
    ) -> None:
        if row is not None and has_other_names(row):
            self._kept.add((row[DEVICE], row[INODE]))
        self._result.files_skipped += 1
        if self._options.report is not None:
            self._report(action, directory.path_of(entry.name), entry.size)

    def _replaced(self, directory: TargetDirectory, entry: Entry, row: StatRow | None) -> None:
        size = entry.size if stat.S_ISREG(entry.mode) else 0
        self._result.files_changed += row is not None
        action = "create" if row is None else "change"
        if self._options.report is not None:
            self._report(action, directory.path_of(entry.name), size)

    def _is_in_the_way(self, directory: TargetDirectory, entry: Entry, row: StatRow) -> bool:
        """Say whether a directory keeps an entry from its place; what would be in it is told."""
        if not stat.S_ISDIR(row[MODE]):
            return False
        if self._deleter is not None and (
            not self._pretend or self._target.remove(directory, entry.name, True)
        ):
            return False  # it is removed when what replaces it is whole
        there = directory.path_of(entry.name)
        self._files.problem(there, "not restored: a directory is in its place")
        return True

    def _flush(self) -> None:
        """Start to write the contents of this window, and complete the one before it.

        The walk goes on while contents are written. Links need their contents, and
        directories get their attributes when nothing in them changes any more.
        """
        self._files.wait()
        self._make_links()
        self._files.verify(
            (directory, entry)
            for directory, entry, file in self._verifiable
            if file is None or not file.failed
        )
        for left in self._written:
            self._leave(left)
        self._files.flush()
        self._linkable, self._pending_links = self._pending_links, []
        self._written, self._left = self._left, []
        self._verifiable, self._fresh = self._fresh, []
        self._entries = 0

    def _leave(self, left: _Left) -> None:
        """Remove what does not belong into a directory, then set its attributes."""
        level, directory = left
        for name in level.leftovers.values():
            self._target.discard_leftover(directory, name)
        deletes = level.tree_id is not None and not (directory.made or level.abroad)
        if self._deleter is not None and deletes:
            assert level.tree_id is not None
            trouble: str | None = "nothing was deleted in it: not all of it could be read"
            if level.whole:
                trouble = self._deleter.clean(directory, level.tree_id, level.included)
            if trouble is not None:
                self._files.problem(directory.path, trouble)
        if level.entry is not None and level.taken and not self._pretend:
            self._target.finish_directory(directory, level.entry)

    def _make_links(self) -> None:
        for directory, entry in self._linkable:
            assert entry.extras is not None
            file, first_directory, first_name = self._links[entry.extras.link]
            if file is not None and file.failed:
                path = directory.path_of(entry.name)
                self._files.problem(path, "a hard link to a file that could not be restored")
                continue
            row = None
            if not directory.made:
                row = self._target.stat_names(directory, (entry.name,))[0]
            if row is not None and self._options.overwrite is None:
                path = directory.path_of(entry.name)
                self._files.problem(path, "not restored: it exists already")
                continue
            if row is not None and self._options.overwrite != "always":
                first = self._target.stat_names(first_directory, (first_name,))[0]
                same = first is not None and first[INODE] == row[INODE]
                if self._options.overwrite == "never" or (
                    same and first is not None and first[DEVICE] == row[DEVICE] and file is None
                ):
                    self._keep(directory, entry, row)
                    continue
            if row is not None and self._is_in_the_way(directory, entry, row):
                continue
            self._replaced(directory, entry, row)
            if self._pretend:
                self._result.files_restored += 1
                continue
            outcome = self._target.link(directory, entry.name, first_directory, first_name)
            self._files.count(outcome)
        self._linkable.clear()

    def _report(self, action: str, path: bytes, size: int = 0) -> None:
        if self._options.report is not None:
            self._options.report(Change(action, path, size))

    def _deleted(self, path: bytes, size: int) -> None:
        with self._told:  # workers empty directories that files replace
            self._result.files_deleted += 1
            self._result.bytes_deleted += size
        self._report("delete", path, size)
