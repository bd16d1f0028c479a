"""Target: writes below one directory and nowhere else.

Never here: a path of more than one name in a system call, following a symbolic link, a final
name on anything unfinished. The invariant ("Restore confinement"): every directory is opened
through the one above it with O_NOFOLLOW and must be the one that was there before; everything
appears under a temporary name inside it, gets its attributes by descriptor and is renamed.
Whoever exchanges directories for links meanwhile makes entries fail, not go elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Sequence
from types import TracebackType

from packstone.errors import TargetError, UsageError
from packstone.filesystem import _scan
from packstone.filesystem.descriptors import Descriptors
from packstone.filesystem.existing import (
    ExistingFile,
    Settled,
    has_attributes,
    settle_attributes,
)
from packstone.filesystem.metadata import (
    DEVICE,
    HOLD_FLAGS,
    INODE,
    MODE,
    RDEV,
    StatRow,
    apply_attributes,
    remove_foreign_xattrs,
)
from packstone.filesystem.placing import Outcome, Placing, Problems, discard, is_temporary
from packstone.filesystem.reading import open_regular
from packstone.filesystem.removing import Judge, Removal, Told
from packstone.filesystem.small_files import SmallFile, write_plain
from packstone.filesystem.target_directory import (
    Directories,
    TargetDirectory,
    mount_of,
    validate_name,
)
from packstone.filesystem.target_file import TargetFile, is_adoptable
from packstone.model import Buffer, Entry, Problem

__all__ = [
    "ExistingFile",
    "Outcome",
    "Settled",
    "Target",
    "TargetDirectory",
    "TargetFile",
    "validate_name",
]

OPEN_DIRECTORIES = 128
OPEN_FILES = 64  # some systems allow 256 descriptors in all


class Target:
    """A directory to restore into; a context manager, thread-safe.

    `overwrite`: None (nothing may exist: an entry that does is a problem), "never" (what exists
    is kept), "changed" or "always" (it is replaced; which files need it the caller knows).
    `owner`: set owner and group. `sparse`: write blocks of zeros as holes; holes always stay.
    `token`, 16 hexadecimal digits, makes temporary names unique. With `pretend` only what looks
    may be called, and nothing is made. Raises TargetError if `root` cannot be opened.
    """

    def __init__(
        self,
        root: bytes,
        *,
        owner: bool = True,
        overwrite: str | None = None,
        sparse: bool = False,
        token: bytes | None = None,
        pretend: bool = False,
    ) -> None:
        if overwrite not in (None, "changed", "never", "always"):
            raise UsageError(f"overwrite is changed, never or always, not {overwrite!r}")
        self._problems = Problems()
        self._directories = Directories(
            os.path.abspath(root),
            replaces=overwrite in ("changed", "always"),
            capacity=OPEN_DIRECTORIES,
            pretend=pretend,
        )
        self._placing = Placing(
            self._directories,
            self._problems,
            owner=owner,
            overwrite=overwrite,
            token=token or secrets.token_hex(8).encode(),
        )
        self._files = Descriptors(OPEN_FILES)
        self._begun: set[TargetFile] = set()
        self._sparse = sparse
        self._pretend = pretend
        self._owner = owner
        self._locks: list[int] = []
        self._removal: Removal | None = None
        self.root = self._directories.root

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Abandon the files that were begun and not finished, close all descriptors."""
        for file in list(self._begun):
            file.abandon()
        self._files.close()
        self._directories.close()
        while self._locks:
            os.close(self._locks.pop())

    @property
    def problems(self) -> list[Problem]:
        """What was not restored, one row each; then lost attributes, one row per kind."""
        return self._problems.rows()

    def lost_count(self, kind: str) -> int:
        """Return how many entries lost this: "owner", "set-id", "mode", "time", "xattr user" …"""
        return self._problems.lost_count(kind)

    def report(self, path: bytes, message: str) -> None:
        """Add a problem."""
        self._problems.note(path, message)

    # ---------------------------------------------------------------- directories

    def make_directory(self, parent: TargetDirectory, name: bytes) -> TargetDirectory:
        """Make a directory, or take the real one that is there, until `finish_directory`.

        Raises TargetError: nothing can be restored below it. What is no directory is replaced
        with overwrite "changed" or "always".
        """
        return self._directories.make(parent, name)

    def finish_directory(self, directory: TargetDirectory, entry: Entry) -> Outcome:
        """Set the attributes of a directory; call it when nothing below will change any more.

        One that was there before keeps its own unless overwriting is "changed" or "always".
        """
        if not directory.made and not self._placing.replaces:
            return Outcome.KEPT
        try:
            with self._directories.hold(directory) as fd:
                if not directory.made:
                    remove_foreign_xattrs(fd, entry)
                losses = apply_attributes(fd, entry, owner=self._placing.owner)
                self._directories.open_above(directory)
        except (OSError, TargetError) as error:
            return self._placing.failed(directory, b"", error)
        if losses:
            self._problems.lose(directory.path, losses)
        return Outcome.WRITTEN

    # ---------------------------------------------------------------- files

    def write_small(self, items: Sequence[SmallFile]) -> list[Outcome]:
        """Write whole files in one go; one outcome each, in order."""
        plain: list[SmallFile] = []
        places: list[int] = []
        outcomes = [Outcome.WRITTEN] * len(items)
        for place, item in enumerate(items):
            directory, entry, data = item
            extras = entry.extras
            if directory.inherits or (extras is not None and extras.xattrs):
                outcomes[place] = self._write_one(directory, entry, data)
            else:
                plain.append(item)
                places.append(place)
        for place, outcome in zip(places, write_plain(self._placing, plain), strict=True):
            outcomes[place] = outcome
        return outcomes

    def _write_one(self, directory: TargetDirectory, entry: Entry, data: Buffer) -> Outcome:
        try:
            file = self.create_file(directory, entry.name, len(data))
        except TargetError as error:
            return self._placing.failed(directory, entry.name, error)
        file.write_at(0, data)
        return file.finish(entry)

    def create_file(
        self, directory: TargetDirectory, name: bytes, size: int, adopted: bytes | None = None
    ) -> TargetFile:
        """Begin a file of `size` bytes, all of them a hole. Raises TargetError.

        `adopted` names a temporary file that an earlier restore left: then its content is there.
        """
        file = TargetFile(
            self._placing,
            self._files,
            directory,
            name,
            size,
            sparse=self._sparse,
            forget=self._begun.discard,
            adopted=adopted,
        )
        self._begun.add(file)
        return file

    # ---------------------------------------------------------------- the other kinds

    def make_symlink(self, directory: TargetDirectory, entry: Entry) -> Outcome:
        """Make a symbolic link; `content` is what it points at, taken as it is."""

        def make(name: bytes, fd: int) -> None:
            os.symlink(entry.content, name, dir_fd=fd)  # type: ignore[arg-type]

        return self._placing.make(directory, entry, make)

    def make_fifo(self, directory: TargetDirectory, entry: Entry) -> Outcome:
        """Make a named pipe."""

        def make(name: bytes, fd: int) -> None:
            os.mkfifo(name, 0o600, dir_fd=fd)

        return self._placing.make(directory, entry, make)

    def make_device(self, directory: TargetDirectory, entry: Entry) -> Outcome:
        """Make a device node; `content` is [major, minor]. For root; others get a problem."""

        def make(name: bytes, fd: int) -> None:
            major, minor = entry.content  # type: ignore[misc]
            os.mknod(name, stat.S_IFMT(entry.mode) | 0o600, os.makedev(major, minor), dir_fd=fd)

        return self._placing.make(directory, entry, make)

    def link(
        self,
        directory: TargetDirectory,
        name: bytes,
        existing_directory: TargetDirectory,
        existing_name: bytes,
    ) -> Outcome:
        """Give what was restored under one name a second one; a link itself is linked."""
        placing = self._placing
        temporary = placing.temporary()
        try:
            validate_name(name)
            validate_name(existing_name)
            with (
                self._directories.hold(directory) as fd,
                self._directories.hold(existing_directory) as existing_fd,
            ):
                os.link(
                    existing_name,
                    temporary if placing.replaces else name,
                    src_dir_fd=existing_fd,
                    dst_dir_fd=fd,
                    follow_symlinks=False,
                )
                if placing.replaces:
                    try:
                        placing.place(directory, fd, temporary, name)
                    finally:
                        # also when both were the same file, where rename does nothing
                        discard(temporary, fd)
        except (OSError, TargetError) as error:
            return placing.failed(directory, name, error)
        return Outcome.WRITTEN

    # ---------------------------------------------------------------- what is there

    def names(self, directory: TargetDirectory) -> list[bytes]:
        """Return the names in a directory, ascending. Raises TargetError."""
        if self._pretend and directory.made:
            return []
        with self._directories.hold(directory) as fd:
            try:
                return _scan.list_names(fd)
            except OSError as error:
                raise TargetError(f"cannot be listed: {error.strerror}") from error

    def stat_names(
        self, directory: TargetDirectory, names: Sequence[bytes]
    ) -> list[StatRow | None]:
        """lstat entries; None for those that are not there or cannot be looked at.

        Raises TargetError for what is no name of an entry.
        """
        for name in names:
            validate_name(name)
        if self._pretend and directory.made:
            return [None] * len(names)
        with self._directories.hold(directory) as fd:
            found = _scan.stat_names(fd, names)
        return [None if isinstance(row, int) else row for row in found]

    def open_existing(self, directory: TargetDirectory, name: bytes) -> int:
        """Open a regular file for reading; the caller closes it. Raises OSError, TargetError."""
        validate_name(name)
        with self._directories.hold(directory) as fd:
            return open_regular(fd, name)

    def existing_file(
        self, directory: TargetDirectory, name: bytes, row: StatRow | None = None
    ) -> ExistingFile | None:
        """Open a regular file that is there for comparing; None if it cannot be read.

        With `row` it must still be the inode that was looked at.
        """
        try:
            fd = self.open_existing(directory, name)
        except (OSError, TargetError):
            return None
        status = os.fstat(fd)
        if row is not None and (status.st_dev, status.st_ino) != (row[DEVICE], row[INODE]):
            os.close(fd)
            return None
        return ExistingFile(fd)

    def settle_attributes(self, directory: TargetDirectory, entry: Entry, row: StatRow) -> Settled:
        """Give a file that is there the attributes of its entry, where that may be done."""
        try:
            with self._directories.hold(directory) as directory_fd:
                fd = os.open(entry.name, HOLD_FLAGS, dir_fd=directory_fd)
            try:
                settled, losses = settle_attributes(
                    fd, row, entry, owner=self._owner, pretend=self._pretend
                )
            finally:
                os.close(fd)
        except (OSError, TargetError):
            return Settled.NEEDS_COPY  # which says what is the matter, if it still is
        if losses:
            self._problems.lose(directory.path_of(entry.name), losses)
        return settled

    def is_as_entry(self, directory: TargetDirectory, entry: Entry, row: StatRow) -> bool:
        """Return whether a link, fifo or device that is there is what its entry says, in all."""
        if stat.S_IFMT(row[MODE]) != stat.S_IFMT(entry.mode):
            return False
        try:
            with self._directories.hold(directory) as directory_fd:
                fd = os.open(entry.name, HOLD_FLAGS, dir_fd=directory_fd)
                try:
                    status = os.fstat(fd)
                    if (status.st_dev, status.st_ino) != (row[DEVICE], row[INODE]):
                        return False
                    if stat.S_ISLNK(row[MODE]):
                        target = os.readlink(entry.name, dir_fd=directory_fd)
                        if target != entry.content:
                            return False
                    elif not stat.S_ISFIFO(row[MODE]):
                        number = (os.major(row[RDEV]), os.minor(row[RDEV]))
                        if list(number) != entry.content:
                            return False
                    return has_attributes(fd, row, entry, owner=self._owner)
                finally:
                    os.close(fd)
        except (OSError, TargetError):
            return False

    # ---------------------------------------------------------------- what is to go

    def may_remove(self, judge: Judge, tell: Told) -> None:
        """Allow `remove`, and to empty a directory that a file is to replace, as `judge` says."""
        self._removal = Removal(
            self._directories, self._problems, judge, tell, pretend=self._pretend
        )
        if not self._pretend:
            self._placing.clear = lambda at, name: self._cleared(at, name)

    def remove(self, directory: TargetDirectory, name: bytes, wanted: bool) -> bool:
        """Remove a name and what is below it, as far as it may be; return whether it is gone."""
        if self._removal is None:
            raise ValueError("nothing may be removed here")
        return self._removal.remove(directory, name, wanted)

    def _cleared(self, directory: TargetDirectory, name: bytes) -> bool:
        return self.remove(directory, name, True)

    def enter(self, parent: TargetDirectory, name: bytes) -> TargetDirectory | None:
        """Meet a directory that is there; None if there is none. Raises TargetError."""
        return self._directories.enter(parent, name)

    def mount(self, directory: TargetDirectory) -> int | str:
        """Return what tells the mount that a directory is on from others. Raises TargetError."""
        with self._directories.hold(directory) as fd:
            return mount_of(fd)

    def leftovers(self, directory: TargetDirectory) -> list[tuple[bytes, int]]:
        """Return temporary files that restores left which were killed, and their sizes.

        The size is -1 unless this user wrote it and nobody else can have touched it: only then
        can it be gone on with. Call it under `lock`, or they may be somebody's who is at work.
        Raises TargetError.
        """
        found = [name for name in self.names(directory) if is_temporary(name)]
        if not found:
            return []
        with self._directories.hold(directory) as fd:
            rows = []
            for name in found:
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except OSError:
                    continue
                if not self._placing.is_own(name) and not stat.S_ISDIR(status.st_mode):
                    rows.append((name, status.st_size if is_adoptable(status) else -1))
        return rows

    def discard_leftover(self, directory: TargetDirectory, name: bytes) -> None:
        """Remove one of `leftovers`."""
        if not is_temporary(name) or self._placing.is_own(name):
            raise ValueError("this is no leftover")
        with self._directories.hold(directory) as fd:
            discard(name, fd)

    def lock(self, directory: TargetDirectory) -> bool:
        """Keep other restores from writing into the same directory until `close`.

        Returns False if one does. Where the file system knows no locks there is none.
        """
        if self._pretend:
            return True
        with self._directories.hold(directory) as directory_fd:
            fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory_fd)
        self._locks.append(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True
