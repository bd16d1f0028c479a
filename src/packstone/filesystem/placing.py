"""How what was written gets its name, and where what went wrong is noted.

Never here: content. The invariant: a final name is given by one rename within the directory
that holds the temporary one, and takes the place of something only if that was asked for.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import threading
from collections.abc import Callable
from enum import IntEnum

from packstone.errors import TargetError
from packstone.filesystem import _scan
from packstone.filesystem.metadata import (
    ACL_ACCESS,
    HOLD_FLAGS,
    Loss,
    apply_attributes,
    remove_xattr,
)
from packstone.filesystem.target_directory import Directories, TargetDirectory, validate_name
from packstone.model import Entry, Problem

# What a snapshot may claim (a link to nowhere with a NUL, a device number beyond all) and what
# a platform may lack (fifos by descriptor) is a problem of one entry.
_FAILURES = (OSError, ValueError, TypeError, OverflowError, NotImplementedError, TargetError)


class Outcome(IntEnum):
    """What became of one entry."""

    WRITTEN = 0
    KEPT = 1  # something was there, and overwriting is "never"
    FAILED = 2  # a Problem was noted


class Problems:
    """What could not be restored, one row each, and attributes lost, one row per kind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: list[Problem] = []
        self._lost: dict[str, tuple[Problem, int]] = {}

    def note(self, path: bytes, message: str) -> None:
        """Note one entry that is not there as it should be."""
        with self._lock:
            self._rows.append(Problem(path, message))

    def lose(self, path: bytes, losses: list[Loss]) -> None:
        """Note attributes of an entry that is there; the first of a kind is named."""
        with self._lock:
            for kind, reason in losses:
                first, count = self._lost.get(kind, (Problem(path, reason), 0))
                self._lost[kind] = (first, count + 1)

    def lost_count(self, kind: str) -> int:
        """Return how many entries lost this: "owner", "set-id", "mode", "time", "xattr user" …"""
        with self._lock:
            return self._lost[kind][1] if kind in self._lost else 0

    def rows(self) -> list[Problem]:
        """Return all, those of lost attributes last."""
        with self._lock:
            rows = list(self._rows)
            for first, count in self._lost.values():
                more = f" (and {count - 1:,} more)" if count > 1 else ""
                rows.append(Problem(first.path, first.message + more))
            return rows


class Placing:
    """Temporary names and final ones in the directories of one target; thread-safe."""

    def __init__(
        self,
        directories: Directories,
        problems: Problems,
        *,
        owner: bool,
        overwrite: str | None,
        token: bytes,
    ) -> None:
        self.directories = directories
        self.problems = problems
        self.owner = owner
        self.overwrite = overwrite
        self.replaces = overwrite in ("changed", "always")
        # What replaces a file is on the disk before it has the name: a power cut leaves one or
        # the other. Who rewrites everything anyway is spared one fsync for each file.
        self.syncs = overwrite == "changed"
        # Empties a directory that a file is to replace, as far as it may: set by the target.
        self.clear: Callable[[TargetDirectory, bytes], bool] | None = None
        self._token = token
        self._numbers = itertools.count()

    def temporary(self) -> bytes:
        """Return a name no other file has; a prefix of such names for a batch."""
        return b".packstone-%s-%d-" % (self._token, next(self._numbers))

    def is_own(self, name: bytes) -> bool:
        """Return whether this is a temporary name of this very restore."""
        return name.startswith(b".packstone-%s-" % self._token)

    def place(
        self, directory: TargetDirectory, directory_fd: int, temporary: bytes, name: bytes
    ) -> None:
        """Give the final name. Raises OSError, then the temporary name is still there.

        A directory gives way to what replaces it only where `clear` may remove it.
        """
        if not self.replaces:
            _scan.rename_exclusively(directory_fd, temporary, name)
            return
        try:
            os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        except IsADirectoryError:
            if self.clear is None or not self.clear(directory, name):
                raise
            os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)

    def make(
        self, directory: TargetDirectory, entry: Entry, make: Callable[[bytes, int], None]
    ) -> Outcome:
        """Make what has no content: `make` takes a temporary name and a directory descriptor."""
        temporary = self.temporary()
        try:
            validate_name(entry.name)
            with self.directories.hold(directory) as directory_fd:
                make(temporary, directory_fd)
                try:
                    losses = self._finish(temporary, directory_fd, entry, directory.inherits)
                    self.place(directory, directory_fd, temporary, entry.name)
                except BaseException:
                    discard(temporary, directory_fd)
                    raise
        except _FAILURES as error:
            return self.failed(directory, entry.name, error)
        if losses:
            self.problems.lose(directory.path_of(entry.name), losses)
        return Outcome.WRITTEN

    def _finish(
        self, temporary: bytes, directory_fd: int, entry: Entry, inherits: bool
    ) -> list[Loss]:
        # Held, not opened: devices and fifos do things when opened, links cannot be. Attributes
        # go to the inode that is held, whatever stands under the name by then.
        fd = os.open(temporary, HOLD_FLAGS, dir_fd=directory_fd)
        try:
            status = os.fstat(fd)
            if status.st_mode & 0o170000 != entry.mode & 0o170000 or status.st_nlink != 1:
                raise TargetError("refused: it was replaced while it was being made")
            if inherits and entry.mode & 0o170000 != 0o120000:
                remove_xattr(fd, ACL_ACCESS)
            return apply_attributes(fd, entry, owner=self.owner)
        finally:
            os.close(fd)

    def failed(self, directory: TargetDirectory, name: bytes, error: Exception) -> Outcome:
        """Turn what went wrong with an entry, or b"" for the directory, into its outcome."""
        if isinstance(error, FileExistsError) and self.overwrite == "never":
            return Outcome.KEPT
        path = directory.path_of(name) if name else directory.path
        self.problems.note(path, reason_of(error))
        return Outcome.FAILED


def reason_of(error: Exception) -> str:
    """Say in a few words why an entry could not be restored."""
    if isinstance(error, TargetError):
        return error.message
    if isinstance(error, OSError):
        if error.errno == errno.EEXIST:
            return "not restored: it exists already"
        if error.errno in (errno.EISDIR, errno.ENOTEMPTY):
            return "not restored: a directory is in its place"
        return f"not restored: {error.strerror or error}"
    return f"not restored: {error}"


_TEMPORARY = re.compile(rb"\.packstone-[0-9a-f]{16}-[0-9]+-[0-9]*")


def is_temporary(name: bytes) -> bool:
    """Return whether a restore gives such names to what is unfinished."""
    return _TEMPORARY.fullmatch(name) is not None


def discard(temporary: bytes, directory_fd: int) -> None:
    """Remove a temporary name, if it can be."""
    try:
        os.unlink(temporary, dir_fd=directory_fd)
    except OSError:
        pass
