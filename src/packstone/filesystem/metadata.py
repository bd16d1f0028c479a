"""What is known of a file besides its content: stat rows, extended attributes, how to set them.

Never here: following a symbolic link, or naming a file by its path where a descriptor will do.
POSIX ACLs are the extended attributes system.posix_acl_access and system.posix_acl_default and
travel as such. The invariant of setting: owner first, because that clears set-id bits and file
capabilities; then extended attributes, which need a file that is still writable; then the
mode, which brings an ACL's mask to where it was; the time last. Entries: docs/format.md §6.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from packstone.filesystem import _scan
from packstone.model import Entry, Stat

# A stat row: the fields of model.Stat in their order, as a plain tuple.
StatRow = tuple[int, int, int, int, int, int, int, int, int, int, int]
Xattrs = list[tuple[bytes, bytes]]

# Positions in a stat row, for code that cannot afford a named tuple per file.
MODE, UID, GID, SIZE, MTIME_NS, CTIME_NS, INODE, NLINK, DEVICE, RDEV, BLOCKS = range(11)

ACL_ACCESS = b"system.posix_acl_access"
ACL_DEFAULT = b"system.posix_acl_default"

_INT64_MAX = (1 << 63) - 1

# How to hold a file of any kind without opening it: no driver is woken, no fifo waits.
_HOLD = getattr(os, "O_PATH", 0) or getattr(os, "O_SYMLINK", 0) | os.O_NONBLOCK
HOLD_FLAGS = _HOLD | os.O_NOFOLLOW * hasattr(os, "O_PATH") | os.O_CLOEXEC


class Loss(NamedTuple):
    """One attribute that could not be set. `kind` is the same for all files that lack it."""

    kind: str
    reason: str


def stat_of(result: os.stat_result) -> Stat:
    """Return the row that the batched calls would give; times are clamped to 64 bits."""
    return Stat(
        result.st_mode,
        result.st_uid,
        result.st_gid,
        result.st_size,
        _clamp(result.st_mtime_ns),
        _clamp(result.st_ctime_ns),
        result.st_ino,
        result.st_nlink,
        result.st_dev,
        result.st_rdev,
        result.st_blocks,
    )


def _clamp(time_ns: int) -> int:
    # as _scan does: whole seconds that do not fit become the largest or smallest number
    seconds = time_ns // 1_000_000_000
    if seconds > _INT64_MAX // 1_000_000_000 - 1:
        return _INT64_MAX
    if seconds < -(_INT64_MAX // 1_000_000_000) + 1:
        return -_INT64_MAX - 1
    return time_ns


def read_xattrs(directory_fd: int, name: bytes) -> Xattrs | None:
    """Return the extended attributes of any kind of file, ascending, None if there are none.

    A symbolic link's are its own. Where the file system has none, they may not be read, or
    the name has gone meanwhile, there are none. Raises OSError when the disk fails.
    """
    try:
        fd = os.open(name, HOLD_FLAGS, dir_fd=directory_fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ELOOP):
            return None
        raise
    try:
        return _scan.read_xattrs(fd)
    finally:
        os.close(fd)


def read_xattrs_of(fd: int) -> Xattrs | None:
    """Return the extended attributes of an open file or directory, as `read_xattrs`."""
    return _scan.read_xattrs(fd)


def apply_attributes(fd: int, entry: Entry, *, owner: bool) -> list[Loss]:
    """Give an open file what its entry says: owner if asked, attributes, mode, time.

    `fd` may be one that only holds a symbolic link, fifo or device. Returns what was lost.
    Set-id bits of files are dropped where owner or group are not the ones they were meant for.
    """
    lost = _scan.set_owner(fd, entry.uid, entry.gid) if owner else 0
    losses = []
    if entry.extras is not None:
        for name, value in entry.extras.xattrs:
            try:
                _scan.set_xattr(fd, name, value)
            except (OSError, ValueError) as error:
                losses.append(_lost_xattr(name, error))
    lost |= _scan.set_mode(fd, entry.mode, entry.uid, entry.gid, entry.mtime_ns)
    return losses_of(lost) + losses


def losses_of(lost: int) -> list[Loss]:
    """Spell out the bits that `_scan` returns."""
    if not lost:
        return []
    return [loss for bit, loss in _LOSSES if lost & bit]


_LOSSES = [
    (_scan.OWNER_LOST, Loss("owner", "owner and group could not be set")),
    (_scan.SETUID_LOST, Loss("set-id", "set-id bits dropped: the owner is another one")),
    (_scan.MODE_LOST, Loss("mode", "permissions could not be set")),
    (_scan.TIME_LOST, Loss("time", "modification time could not be set")),
]


def _lost_xattr(name: bytes, error: OSError | ValueError) -> Loss:
    # all attributes of a namespace fail alike: what the kernel or the file system does not let
    # this user do in "security." it will not for the next file either
    namespace = name.split(b".", 1)[0].decode("ascii", "replace")
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return Loss(
        f"xattr {namespace}",
        f"extended attribute {name.decode('utf-8', 'backslashreplace')} could not be set: {reason}",
    )


def remove_foreign_xattrs(fd: int, entry: Entry) -> None:
    """Take off a directory that was there before what its entry does not have.

    Only what users set themselves, and ACLs: labels of the system are not ours to remove.
    """
    wanted = {name for name, _ in entry.extras.xattrs} if entry.extras is not None else set()
    for name, _ in _scan.read_xattrs(fd) or ():
        if name not in wanted and is_foreign_xattr(name):
            remove_xattr(fd, name)


def is_foreign_xattr(name: bytes) -> bool:
    """Return whether an attribute that an entry does not have is to go."""
    return name.startswith((b"user.", b"system.posix_acl_"))


def remove_xattr(fd: int, name: bytes) -> None:
    """Remove an attribute; that there is none, or no such thing, is fine."""
    try:
        _scan.remove_xattr(fd, name)
    except OSError as error:
        if error.errno not in _NO_XATTR:
            raise


def has_default_acl(fd: int) -> bool:
    """Say whether files made in this directory inherit an ACL."""
    return any(name == ACL_DEFAULT for name, _ in _scan.read_xattrs(fd) or ())


_NO_XATTR = frozenset(
    getattr(errno, name)
    for name in ("ENODATA", "ENOATTR", "ENOTSUP", "EOPNOTSUPP", "ENOSYS")
    if hasattr(errno, name)
)
