"""What stands under a name of the target already: its content and attributes, compared.

Never here: a change of content. The invariant: what is looked at is held by descriptor, is of
the inode that was met, and attributes are set on it only where nobody else can lay hands on it
afterwards; everything else must be written anew, under an inode of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from enum import IntEnum

from packstone.filesystem import _scan
from packstone.filesystem.metadata import (
    ACL_ACCESS,
    DEVICE,
    GID,
    INODE,
    MODE,
    MTIME_NS,
    NLINK,
    UID,
    Loss,
    StatRow,
    apply_attributes,
    is_foreign_xattr,
    remove_foreign_xattrs,
)
from packstone.model import MIB, Entry

_FICLONE = 0x40049409  # Linux, _IOW(0x94, 9, int), for all architectures Python runs on but few
_SET_ID = stat.S_ISUID | stat.S_ISGID
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class ExistingFile:
    """The content of a regular file that is there, open for reading; a context manager.

    Whoever owns it may change it meanwhile: take nothing from it that was not hashed.
    """

    __slots__ = ("_fd", "size")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size

    def __enter__(self) -> ExistingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; once."""
        os.close(self._fd)

    @property
    def fd(self) -> int:
        """The descriptor, for reading."""
        return self._fd

    def read(self, offset: int, size: int) -> bytes | None:
        """Return these bytes, or None where there are fewer or the disk does not give them."""
        return read_exactly(self._fd, offset, size)

    def is_zero(self, offset: int, size: int) -> bool:
        """Return whether these bytes are there and all zero; holes are not read."""
        return offset + size <= self.size and is_zero(self._fd, offset, size)

    def drop_cached(self) -> None:
        """Make the next reads come from the disk, as far as the system lets us."""
        os.fsync(self._fd)  # what is not on the disk yet cannot be dropped
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)


def read_exactly(fd: int, offset: int, size: int) -> bytes | None:
    """Return `size` bytes at `offset`, or None where there are fewer or reading fails."""
    try:
        data = os.pread(fd, size, offset)
        while len(data) < size:
            more = os.pread(fd, size - len(data), offset + len(data))
            if not more:
                return None
            data += more
    except OSError:
        return None
    return data


def is_zero(fd: int, offset: int, size: int) -> bool:
    """Return whether a range of an open file is zeros, reading what is no hole."""
    end = offset + size
    while offset < end:
        try:
            offset = max(offset, os.lseek(fd, offset, os.SEEK_DATA))
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole to the end
                return True
        if offset >= end:
            return True
        part = min(MIB, end - offset)
        data = read_exactly(fd, offset, part)
        if data is None or data.count(0) != part:
            return False
        offset += part
    return True


def clone(source_fd: int, target_fd: int) -> bool:
    """Make one file share all blocks of another; False where file systems cannot (reflink)."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError:
        return False
    return True


class Settled(IntEnum):
    """How the attributes of what is there stand to those of an entry."""

    SAME = 0
    FIXED = 1
    NEEDS_COPY = 2  # they differ and must not be changed on this inode


def settle_attributes(
    fd: int, row: StatRow, entry: Entry, *, owner: bool, pretend: bool
) -> tuple[Settled, list[Loss]]:
    """Give what is held the attributes of an entry, unless they are right or it must not be.

    It must not be where the inode has other names, which may be anybody's, and where somebody
    who could write to it before keeps it open: what was compared could be changed after it
    became somebody else's, or got its set-id bits.
    """
    status = os.fstat(fd)
    if (status.st_dev, status.st_ino) != (row[DEVICE], row[INODE]):
        return Settled.NEEDS_COPY, []
    mode = _mode_to_be(entry, row, owner)
    same_owner = not owner or (row[UID], row[GID]) == (entry.uid, entry.gid)
    xattrs_same, xattrs_safe = _compare_xattrs(fd, entry)
    has = stat.S_IMODE(row[MODE])
    if same_owner and xattrs_same and (has, row[MTIME_NS]) == (mode, entry.mtime_ns):
        return Settled.SAME, []
    if (
        status.st_nlink != 1
        or not same_owner
        or not xattrs_safe
        or mode & ~has & _SET_ID
        or has & ~mode & _OTHERS_WRITE
    ):
        return Settled.NEEDS_COPY, []
    if pretend:
        return Settled.FIXED, []
    remove_foreign_xattrs(fd, entry)
    return Settled.FIXED, apply_attributes(fd, entry, owner=owner)


def has_attributes(fd: int, row: StatRow, entry: Entry, *, owner: bool) -> bool:
    """Return whether what is held has the attributes of an entry already."""
    return (
        (not owner or (row[UID], row[GID]) == (entry.uid, entry.gid))
        and row[MTIME_NS] == entry.mtime_ns
        and (stat.S_ISLNK(row[MODE]) or stat.S_IMODE(row[MODE]) == _mode_to_be(entry, row, owner))
        and _compare_xattrs(fd, entry)[0]
    )


def has_other_names(row: StatRow) -> bool:
    """Return whether an inode has more names than the one it was found under."""
    return row[NLINK] > 1


def _mode_to_be(entry: Entry, row: StatRow, owner: bool) -> int:
    mode = stat.S_IMODE(entry.mode)
    if not owner:  # set-id bits are for the owner and group they were meant for
        if row[UID] != entry.uid:
            mode &= ~stat.S_ISUID
        if row[GID] != entry.gid:
            mode &= ~stat.S_ISGID
    return mode


def _compare_xattrs(fd: int, entry: Entry) -> tuple[bool, bool]:
    """Return whether attributes are as they should be, and whether they may be set here."""
    has = dict(_scan.read_xattrs(fd) or ())
    wanted = dict(entry.extras.xattrs) if entry.extras is not None else {}
    differ = {name for name, value in wanted.items() if has.get(name) != value}
    differ |= {name for name in has if name not in wanted and is_foreign_xattr(name)}
    unsafe = {name for name in differ if name == ACL_ACCESS or name.startswith(b"security.")}
    return not differ, not unsafe
