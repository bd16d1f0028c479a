"""One file of a target, written piece by piece in any order, by any thread.

Never here: a final name before all is written and all attributes are set. The invariant: its
descriptor may be closed and opened again at any time between two pieces, and is then of the
same inode or refused; so a restore may have any number of files begun.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable

from packstone.errors import TargetError
from packstone.filesystem import _scan
from packstone.filesystem.descriptors import Descriptors, Node
from packstone.filesystem.existing import ExistingFile, clone, is_zero, read_exactly
from packstone.filesystem.metadata import (
    ACL_ACCESS,
    apply_attributes,
    remove_foreign_xattrs,
    remove_xattr,
)
from packstone.filesystem.placing import Outcome, Placing, discard, reason_of
from packstone.filesystem.target_directory import TargetDirectory, validate_name
from packstone.model import MIB, Buffer, Entry

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AGAIN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GRAIN = 4096  # a block, of which holes are made
_ZEROS = bytes(_GRAIN)


class TargetFile(Node):
    """A file begun: `write_at` its content, then `finish` or `abandon` it.

    What is never written is a hole. A failure is kept until `finish`, which reports it.
    """

    __slots__ = (
        "_adopted",
        "_done",
        "_error",
        "_files",
        "_forget",
        "_identity",
        "_lock",
        "_placing",
        "_sparse",
        "_temporary",
        "directory",
        "name",
        "size",
    )

    def __init__(
        self,
        placing: Placing,
        files: Descriptors,
        directory: TargetDirectory,
        name: bytes,
        size: int,
        *,
        sparse: bool,
        forget: Callable[[TargetFile], object],
        adopted: bytes | None = None,
    ) -> None:
        """Create the temporary file. Raises TargetError; `size` is the final one in bytes.

        `adopted` is the name of one that an earlier restore left; what is in it is to be
        compared and patched.
        """
        super().__init__()
        validate_name(name)
        self.directory = directory
        self.name = name
        self.size = size
        self._placing = placing
        self._files = files
        self._sparse = sparse
        self._forget = forget
        self._temporary = adopted or placing.temporary()
        self._adopted = adopted is not None
        self._error: Exception | None = None
        self._done = False
        self._lock = threading.Lock()
        with placing.directories.hold(directory) as directory_fd:
            try:
                flags = _AGAIN if self._adopted else _CREATE
                fd = os.open(self._temporary, flags, 0o600, dir_fd=directory_fd)
            except OSError as error:
                raise TargetError(reason_of(error)) from error
            try:
                status = os.fstat(fd)
                self._identity = (status.st_dev, status.st_ino)
                if self._adopted and not is_adoptable(status):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                if directory.inherits:
                    remove_xattr(fd, ACL_ACCESS)
                if size or self._adopted:
                    os.ftruncate(fd, size)
            except (OSError, OverflowError) as error:
                os.close(fd)
                if not self._adopted:
                    discard(self._temporary, directory_fd)
                raise TargetError(reason_of(error)) from error
        files.adopt(self, fd)
        files.release(self)

    @property
    def failed(self) -> bool:
        """Whether a piece could not be written; more of them would be for nothing."""
        return self._error is not None

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write a piece at its place. A failure is kept for `finish` and stops later pieces."""
        if self._error is not None:
            return
        try:
            fd = self._acquire()
            try:
                if self._sparse and _ZEROS in bytes(data):
                    _write_around_zeros(fd, offset, memoryview(data))
                else:
                    _write_all(fd, offset, memoryview(data))
            finally:
                self._files.release(self)
        except (OSError, TargetError) as error:
            self._error = error

    def clone(self, existing: ExistingFile) -> bool:
        """Begin with the content of a file that is there, sharing its blocks; False if that fails.

        Call it before anything is written.
        """
        try:
            fd = self._acquire()
            try:
                if not clone(existing.fd, fd):
                    return False
                os.ftruncate(fd, self.size)
            finally:
                self._files.release(self)
        except (OSError, TargetError) as error:
            self._error = error
            return False
        return True

    def read(self, offset: int, size: int) -> bytes | None:
        """Return what is written there, of a file that was cloned or adopted; None on failure."""
        try:
            fd = self._acquire()
            try:
                return read_exactly(fd, offset, size)
            finally:
                self._files.release(self)
        except (OSError, TargetError) as error:
            self._error = error
            return None

    def clear(self, offset: int, size: int) -> None:
        """Have zeros there, a hole if that can be. A failure is kept for `finish`."""
        try:
            fd = self._acquire()
            try:
                _clear(fd, offset, size)
            finally:
                self._files.release(self)
        except (OSError, TargetError) as error:
            self._error = error

    def finish(self, entry: Entry) -> Outcome:
        """Set the attributes of `entry` and give the file its name, once all is written."""
        placing = self._placing
        with self._lock:
            if self._done:
                raise ValueError("this file is finished already")
            self._done = True
        self._forget(self)
        try:
            if self._error is not None:
                raise self._error
            fd = self._acquire()
            try:
                if self._adopted:
                    remove_foreign_xattrs(fd, entry)
                losses = apply_attributes(fd, entry, owner=placing.owner)
                if placing.syncs and self._replaces():
                    os.fsync(fd)
            finally:
                self._files.release(self)
            self._close()  # a full quota may show only now
            with placing.directories.hold(self.directory) as directory_fd:
                placing.place(self.directory, directory_fd, self._temporary, self.name)
        except (OSError, TargetError) as error:
            self._drop()
            return placing.failed(self.directory, self.name, error)
        except BaseException:
            self._drop()
            raise
        if losses:
            placing.problems.lose(self.directory.path_of(self.name), losses)
        return Outcome.WRITTEN

    def _replaces(self) -> bool:
        with self._placing.directories.hold(self.directory) as directory_fd:
            try:
                os.stat(self.name, dir_fd=directory_fd, follow_symlinks=False)
            except FileNotFoundError:
                return False
        return True

    def abandon(self) -> None:
        """Remove what was written; after `finish` or a second time this does nothing."""
        with self._lock:
            if self._done:
                return
            self._done = True
        self._forget(self)
        self._drop()

    def _drop(self) -> None:
        try:
            self._close()
        except OSError:
            pass
        try:
            with self._placing.directories.hold(self.directory) as directory_fd:
                discard(self._temporary, directory_fd)
        except TargetError:
            pass  # its directory has been moved away, the temporary file with it

    def _close(self) -> None:
        fd = self._files.detach(self)
        if fd is not None:
            os.close(fd)

    def _acquire(self) -> int:
        fd = self._files.acquire(self)
        if fd is not None:
            return fd
        with self._placing.directories.hold(self.directory) as directory_fd:
            fd = os.open(self._temporary, _AGAIN, dir_fd=directory_fd)
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != self._identity:
            os.close(fd)
            raise TargetError("refused: it was replaced while it was being written")
        return self._files.adopt(self, fd)


def is_adoptable(status: os.stat_result) -> bool:
    """Return whether a file is what a restore of this user began and nobody else can reach."""
    return (
        stat.S_ISREG(status.st_mode)
        and stat.S_IMODE(status.st_mode) == 0o600
        and status.st_uid == os.geteuid()
        and status.st_nlink == 1
    )


def _clear(fd: int, offset: int, size: int) -> None:
    if is_zero(fd, offset, size):
        return
    try:
        _scan.punch_hole(fd, offset, size)
    except OSError:  # not on this file system: written out
        while size:
            part = min(size, MIB)
            _write_all(fd, offset, memoryview(bytes(part)))
            offset += part
            size -= part


def _write_all(fd: int, offset: int, view: memoryview) -> None:
    while view:
        size = os.pwrite(fd, view, offset)
        offset += size
        view = view[size:]


def _write_around_zeros(fd: int, offset: int, view: memoryview) -> None:
    """Leave out blocks of zeros, and parts of them: the file is long enough, they are there."""
    begin = at = 0
    size = len(view)
    while at < size:
        end = min(size, at + _GRAIN - (offset + at) % _GRAIN)
        if view[at:end] == _ZEROS[: end - at]:
            _write_all(fd, offset + begin, view[begin:at])
            begin = end
        at = end
    _write_all(fd, offset + begin, view[begin:])
