"""The content of files of the source: open, find the holes, read.

Never here: mapping a file into memory, because one truncated under a map kills the process.
The invariant: what is opened is a regular file and opening it never waits; extents follow one
another without gap or overlap and cover exactly the size that stat gave.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Iterator
from typing import NamedTuple

from packstone.filesystem.metadata import BLOCKS, SIZE, StatRow

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NOATIME = getattr(os, "O_NOATIME", 0)

# lseek fails so where the file system, or this file, knows nothing of holes.
_NO_HOLES = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ESPIPE})


class Extent(NamedTuple):
    """A run of data or a hole; offset and size in bytes."""

    offset: int
    size: int
    hole: bool


def open_regular(directory_fd: int, name: bytes) -> int:
    """Open a regular file for reading; its atime is left alone where that is allowed.

    Raises OSError; with errno ELOOP if the name has become something else since it was listed.
    """
    try:
        fd = os.open(name, _OPEN | _NOATIME, dir_fd=directory_fd)
    except PermissionError as error:
        if error.errno != errno.EPERM or not _NOATIME:
            raise
        fd = os.open(name, _OPEN, dir_fd=directory_fd)  # somebody else's file
    try:
        if not modes.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.ELOOP, "not a regular file any more", name)
    except BaseException:
        os.close(fd)
        raise
    return fd


def extents(fd: int, stat: StatRow) -> Iterator[Extent]:
    """Yield runs of data and holes in order, adjacent ones of a kind merged.

    A file that occupies its size, or a file system without holes, gives one run of data. What
    lies beyond the end of a file that shrank meanwhile counts as a hole: the second fstat of
    the caller finds out. Raises OSError if seeking fails otherwise.
    """
    size = stat[SIZE]
    if size == 0:
        return
    if stat[BLOCKS] * 512 >= size:
        yield Extent(0, size, False)
        return
    offset = 0
    while offset < size:
        begin = _seek(fd, offset, os.SEEK_DATA, size)
        if begin is None:
            yield Extent(offset, size - offset, False)
            return
        if begin > offset:
            yield Extent(offset, begin - offset, True)
        if begin >= size:
            return
        end = _seek(fd, begin, os.SEEK_HOLE, size)
        if end is None or end <= begin:  # somebody punches holes just now: read it all
            end = size
        yield Extent(begin, end - begin, False)
        offset = end


def _seek(fd: int, offset: int, whence: int, size: int) -> int | None:
    try:
        return max(offset, min(os.lseek(fd, offset, whence), size))
    except OSError as error:
        if error.errno == errno.ENXIO:  # no more data, or the file is shorter now
            return size
        if error.errno in _NO_HOLES:
            return None
        raise


def read_into(fd: int, view: memoryview, offset: int) -> int:
    """Fill `view` from `offset`; return the bytes read, fewer only at the end of the file."""
    done = 0
    while done < len(view):
        size = os.preadv(fd, [view[done:]], offset + done)
        if size == 0:
            break
        done += size
    return done
