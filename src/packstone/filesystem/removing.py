"""Remove names of a target, and what is below them, for `--delete`.

Never here: following a link, entering another mount, a judgement of what may go: that is asked
for each name. The invariant: a name is removed from a held directory, a directory only when it
is empty; what is spared keeps every directory above it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from packstone.errors import TargetError
from packstone.filesystem import _scan
from packstone.filesystem.placing import Problems, reason_of
from packstone.filesystem.target_directory import (
    Directories,
    TargetDirectory,
    mount_of,
    validate_name,
)

# (directory below the root, name, is it a directory, is what is above it wanted gone) → None:
# spare it and all below; else whether the name itself is wanted gone
Judge = Callable[[bytes, bytes, bool, bool], bool | None]
Told = Callable[[bytes, int], None]  # (path of what is removed, size of a file or 0)


class _Frame:
    """A directory that is being emptied."""

    __slots__ = ("directory", "names", "spared", "wanted")

    def __init__(self, directory: TargetDirectory, names: Iterator[bytes], wanted: bool) -> None:
        self.directory = directory
        self.names = names
        self.wanted = wanted
        self.spared = False


class Removal:
    """Removes what `judge` lets go and tells each name; with `pretend` it only tells."""

    def __init__(
        self,
        directories: Directories,
        problems: Problems,
        judge: Judge,
        tell: Told,
        *,
        pretend: bool,
    ) -> None:
        self._directories = directories
        self._problems = problems
        self._judge = judge
        self._tell = tell
        self._pretend = pretend

    def remove(self, directory: TargetDirectory, name: bytes, wanted: bool) -> bool:
        """Remove a name and all below it; return whether it is gone.

        `wanted`: whether what is above it was asked for. What stays and why is a problem, but
        for what is spared.
        """
        validate_name(name)
        where = directory.path[len(self._directories.root.path) :].strip(b"/")
        begun = self._begin(directory, name, where, wanted)
        if not isinstance(begun, _Frame):
            return begun
        stack = [begun]
        where = os.path.join(where, name)  # of the topmost only: paths of a deep tree are long
        while True:
            frame = stack[-1]
            child = next(frame.names, None)
            if child is not None:
                begun = self._begin(frame.directory, child, where, frame.wanted)
                if isinstance(begun, _Frame):
                    stack.append(begun)
                    where = os.path.join(where, child)
                elif not begun:
                    frame.spared = True
                continue
            stack.pop()
            where = where[: -len(frame.directory.name)].rstrip(b"/")
            gone = self._end(frame)
            if not stack:
                return gone
            if not gone:
                stack[-1].spared = True

    def _begin(
        self, directory: TargetDirectory, name: bytes, where: bytes, wanted: bool
    ) -> _Frame | bool:
        """Remove what is no directory, or begin with one; return whether it is gone."""
        try:
            with self._directories.hold(directory) as fd:
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    return True
                is_directory = stat.S_ISDIR(status.st_mode)
                verdict = self._judge(where, name, is_directory, wanted)
                if verdict is None:
                    return False
                if is_directory:
                    return self._enter(directory, fd, name, verdict)
                if not verdict:
                    return False
                if not self._pretend:
                    os.unlink(name, dir_fd=fd)
        except (OSError, TargetError) as error:
            return self._failed(directory.path_of(name), error)
        self._tell(directory.path_of(name), status.st_size if stat.S_ISREG(status.st_mode) else 0)
        return True

    def _enter(
        self, parent: TargetDirectory, parent_fd: int, name: bytes, wanted: bool
    ) -> _Frame | bool:
        directory = self._directories.enter(parent, name)
        if directory is None:
            raise TargetError("refused: it was replaced while it was being deleted")
        with self._directories.hold(directory) as fd:
            if mount_of(fd) != mount_of(parent_fd):
                raise TargetError("another file system is mounted there")
            return _Frame(directory, iter(_scan.list_names(fd)), wanted)

    def _end(self, frame: _Frame) -> bool:
        if not frame.wanted or frame.spared:
            return False
        directory, parent = frame.directory, frame.directory.parent
        assert parent is not None
        try:
            if not self._pretend:
                with self._directories.hold(directory):
                    self._directories.open_above(directory)
                with self._directories.hold(parent) as parent_fd:
                    os.rmdir(directory.name, dir_fd=parent_fd)
        except (OSError, TargetError) as error:
            return self._failed(directory.path, error)
        self._tell(directory.path, 0)
        return True

    def _failed(self, path: bytes, error: OSError | TargetError) -> bool:
        reason = reason_of(error).removeprefix("not restored: ")
        self._problems.note(path, f"not deleted: {reason}")
        return False
