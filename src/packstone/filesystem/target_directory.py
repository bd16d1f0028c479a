"""The directories of a target, opened one below the other and known again.

Never here: files, attributes. The invariant: a directory is opened through the one above it,
never through a link, and is refused unless device and inode are those it had when it was made
or first met. What a directory of the target is exchanged for is therefore never entered.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from packstone.errors import TargetError
from packstone.filesystem.descriptors import Descriptors, Node
from packstone.filesystem.metadata import ACL_ACCESS, ACL_DEFAULT, has_default_acl, remove_xattr

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TargetDirectory(Node):
    """A directory below the target; knows the one above it and none below."""

    __slots__ = ("identity", "inherits", "made", "name", "parent")

    def __init__(self, parent: TargetDirectory | None, name: bytes) -> None:
        super().__init__()
        self.parent = parent
        self.name = name
        self.identity = 0  # device and inode in one number: there may be millions of these
        self.made = False  # by this restore; else it was there before
        self.inherits = False  # what is made in it gets an ACL by default

    @property
    def path(self) -> bytes:
        """The path for messages; nothing is ever opened by it."""
        names = []
        node: TargetDirectory | None = self
        while node is not None:
            names.append(node.name)
            node = node.parent
        names.reverse()
        return os.path.join(names[0], b"/".join(names[1:])) if names[1:] else names[0]

    def path_of(self, name: bytes) -> bytes:
        """The path of an entry, for messages."""
        return os.path.join(self.path, name)


def validate_name(name: bytes) -> None:
    """Raise TargetError unless this is a name that an entry of a directory can have."""
    if not 0 < len(name) <= 255:
        raise TargetError(f"refused: a name has 1 to 255 bytes, this one {len(name)}")
    if name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise TargetError("refused: this is not the name of an entry in a directory")


class Directories:
    """Open directories of one target; thread-safe.

    `replaces`: what is no directory gives way to one. With `pretend` nothing is made or
    changed: a directory that would be made is one that nothing is in. Raises TargetError if the
    root cannot be opened or made.
    """

    def __init__(
        self, root: bytes, *, replaces: bool, capacity: int, pretend: bool = False
    ) -> None:
        self._open = Descriptors(capacity)
        self._replaces = replaces
        self._pretend = pretend
        self.root = TargetDirectory(None, root)
        try:
            # The user named this path and whatever it leads through; below it, trust ends.
            self.root.made = not os.path.isdir(root)
            if pretend and self.root.made and not os.path.lexists(root):
                return
            os.makedirs(root, exist_ok=True)
            fd = os.open(root, _OPEN & ~os.O_NOFOLLOW)
        except OSError as error:
            raise TargetError(
                f"target {os.fsdecode(root)!r} cannot be opened: {error.strerror}"
            ) from error
        self._meet(self.root, fd, os.fstat(fd))
        self._open.adopt(self.root, fd)  # and held until the end

    def close(self) -> None:
        """Close all descriptors."""
        self._open.close()

    @contextmanager
    def hold(self, directory: TargetDirectory) -> Iterator[int]:
        """Give the descriptor of a directory for the length of a `with` block."""
        fd = self.acquire(directory)
        try:
            yield fd
        finally:
            self._open.release(directory)

    def acquire(self, directory: TargetDirectory) -> int:
        """Return a descriptor to use until `release`; TargetError if the place is taken."""
        fd = self._open.acquire(directory)
        if fd is not None:
            return fd
        below = [directory]
        node = directory.parent
        while node is not None and (fd := self._open.acquire(node)) is None:
            below.append(node)
            node = node.parent
        if node is None or fd is None:
            raise ValueError("the target is closed")
        for inner in reversed(below):
            try:
                fd = self._open_again(inner, inner.name, fd)
            finally:
                self._open.release(node)
            node = inner
        return fd

    def release(self, directory: TargetDirectory) -> None:
        """Let go of a directory."""
        self._open.release(directory)

    def make(self, parent: TargetDirectory, name: bytes) -> TargetDirectory:
        """Make a directory only its owner may enter, or meet the one that is there.

        Raises TargetError: the name is refused, something else has it, or the disk says no.
        """
        validate_name(name)
        if self._pretend:
            return self._pretend_to_make(parent, name)
        directory = TargetDirectory(parent, name)
        with self.hold(parent) as parent_fd:
            try:
                fd = self._make_or_open(directory, parent_fd)
                try:
                    self._meet(directory, fd, os.fstat(fd))
                except BaseException:
                    os.close(fd)
                    raise
            except OSError as error:
                raise TargetError(f"directory cannot be made: {error.strerror}") from error
            self._open.adopt(directory, fd)
            self._open.release(directory)
        return directory

    def enter(self, parent: TargetDirectory, name: bytes) -> TargetDirectory | None:
        """Meet a directory that is there; None if nothing or something else is.

        Raises TargetError if it cannot be opened.
        """
        validate_name(name)
        if parent.made and self._pretend:
            return None
        directory = TargetDirectory(parent, name)
        with self.hold(parent) as parent_fd:
            try:
                try:
                    fd = os.open(name, _OPEN, dir_fd=parent_fd)
                except PermissionError:
                    if not self._replaces or self._pretend:
                        raise
                    fd = _open_own(name, parent_fd)
                try:
                    if self._replaces and not self._pretend:
                        _make_writable(fd)
                    self._meet(directory, fd, os.fstat(fd))
                except BaseException:
                    os.close(fd)
                    raise
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    return None
                raise TargetError(f"directory cannot be opened: {error.strerror}") from error
            self._open.adopt(directory, fd)
            self._open.release(directory)
        return directory

    def _pretend_to_make(self, parent: TargetDirectory, name: bytes) -> TargetDirectory:
        found = self.enter(parent, name)
        if found is None:
            found = TargetDirectory(parent, name)
            found.made = True
            if not self._replaces and not parent.made:
                with self.hold(parent) as parent_fd:
                    if _is_there(name, parent_fd):
                        raise TargetError("something that is no directory is in its place")
        return found

    def open_above(self, directory: TargetDirectory) -> None:
        """Have the parent of a held directory open, at the price of one call at any depth.

        Directories are finished from the leaves up; opening each from the root again would
        cost the square of the depth.
        """
        parent = directory.parent
        if parent is None or parent.fd >= 0 or directory.fd < 0:
            return
        try:
            self._open_again(parent, b"..", directory.fd)
            self._open.release(parent)
        except TargetError:
            pass  # moved away: whoever needs the parent finds it from above, or not

    # ---------------------------------------------------------------- one directory

    def _open_again(self, directory: TargetDirectory, name: bytes, parent_fd: int) -> int:
        try:
            fd = os.open(name, _OPEN, dir_fd=parent_fd)
        except OSError as error:
            raise TargetError(
                f"directory {os.fsdecode(directory.path)!r} cannot be opened again: "
                f"{error.strerror}"
            ) from error
        if _identity(os.fstat(fd)) != directory.identity:
            os.close(fd)
            raise TargetError(
                f"another directory has taken the place of {os.fsdecode(directory.path)!r}"
            )
        return self._open.adopt(directory, fd)

    def _make_or_open(self, directory: TargetDirectory, parent_fd: int) -> int:
        name = directory.name
        directory.made = _make(name, parent_fd)
        try:
            fd = os.open(name, _OPEN, dir_fd=parent_fd)
        except OSError as error:
            if directory.made:
                raise
            if error.errno == errno.EACCES and self._replaces:
                return _open_own(name, parent_fd)
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            if not self._replaces:
                raise TargetError("something that is no directory is in its place") from None
            os.unlink(name, dir_fd=parent_fd)
            directory.made = _make(name, parent_fd)
            fd = os.open(name, _OPEN, dir_fd=parent_fd)
        if not directory.made and self._replaces:
            _make_writable(fd)
        return fd

    def _meet(self, directory: TargetDirectory, fd: int, status: os.stat_result) -> None:
        directory.identity = _identity(status)
        inherited = directory.parent is None or directory.parent.inherits
        if not directory.made or directory.parent is None:
            directory.inherits = has_default_acl(fd)
        elif inherited:  # entries say which ACLs there are; none comes from the surroundings
            remove_xattr(fd, ACL_DEFAULT)
            remove_xattr(fd, ACL_ACCESS)


def _identity(status: os.stat_result) -> int:
    return status.st_dev << 64 | status.st_ino


def _make(name: bytes, parent_fd: int) -> bool:
    try:
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    except FileExistsError:
        return False
    return True


def _is_there(name: bytes, parent_fd: int) -> bool:
    try:
        os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def mount_of(fd: int) -> int | str:
    """Return what tells the mount of an open directory from others: its number, or the device.

    The number finds bind mounts too; it is there where /proc is.
    """
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            return next(line for line in file if line.startswith("mnt_id:"))
    except (OSError, StopIteration):
        return os.fstat(fd).st_dev


def _make_writable(fd: int) -> None:
    """Let the owner write into his read-only directory; its entry gives the final mode."""
    status = os.fstat(fd)
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU and status.st_uid == os.geteuid() != 0:
        os.fchmod(fd, mode | stat.S_IRWXU)


def _open_own(name: bytes, parent_fd: int) -> int:
    """Open a directory whose owner may not even read it. Only where O_PATH can hold it."""
    if not hasattr(os, "O_PATH"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
    held = os.open(
        name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd
    )
    try:
        status = os.fstat(held)
        if status.st_uid == os.geteuid():
            os.chmod(f"/proc/self/fd/{held}", stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
        return os.open(b".", _OPEN, dir_fd=held)
    finally:
        os.close(held)
