"""One file of a target, written piece by piece in any order, by any thread.

Never here: a final name before all is written and all attributes are set. The invariant: its
descriptor may be closed and opened again at any time between two pieces, and is then of the
same inode or refused; so a restore may have any number of files begun.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from packstone.errors import TargetError
from packstone.filesystem.descriptors import Descriptors, Node
from packstone.filesystem.metadata import ACL_ACCESS, apply_attributes, remove_xattr
from packstone.filesystem.placing import Outcome, Placing, discard, reason_of
from packstone.filesystem.target_directory import TargetDirectory, validate_name
from packstone.model import Buffer, Entry

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AGAIN = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GRAIN = 4096  # a block, of which holes are made
_ZEROS = bytes(_GRAIN)


class TargetFile(Node):
    """A file begun: `write_at` its content, then `finish` or `abandon` it.

    What is never written is a hole. A failure is kept until `finish`, which reports it.
    """

    __slots__ = (
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
    ) -> None:
        """Create the temporary file. Raises TargetError; `size` is the final one in bytes."""
        super().__init__()
        validate_name(name)
        self.directory = directory
        self.name = name
        self.size = size
        self._placing = placing
        self._files = files
        self._sparse = sparse
        self._forget = forget
        self._temporary = placing.temporary()
        self._error: Exception | None = None
        self._done = False
        self._lock = threading.Lock()
        with placing.directories.hold(directory) as directory_fd:
            try:
                fd = os.open(self._temporary, _CREATE, 0o600, dir_fd=directory_fd)
            except OSError as error:
                raise TargetError(reason_of(error)) from error
            try:
                status = os.fstat(fd)
                self._identity = (status.st_dev, status.st_ino)
                if directory.inherits:
                    remove_xattr(fd, ACL_ACCESS)
                if size:
                    os.ftruncate(fd, size)
            except (OSError, OverflowError) as error:
                os.close(fd)
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
                losses = apply_attributes(fd, entry, owner=placing.owner)
            finally:
                self._files.release(self)
            self._close()  # a full quota may show only now
            with placing.directories.hold(self.directory) as directory_fd:
                placing.place(directory_fd, self._temporary, self.name)
        except (OSError, TargetError) as error:
            self._drop()
            return placing.failed(self.directory, self.name, error)
        except BaseException:
            self._drop()
            raise
        if losses:
            placing.problems.lose(self.directory.path_of(self.name), losses)
        return Outcome.WRITTEN

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
