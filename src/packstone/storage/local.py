"""A directory as storage.

Order for every file: write under a random name in tmp/, fsync it, rename it, fsync the
directory it now stands in (measured: without either fsync a power cut loses acknowledged
data). An fsync that failed is never tried again: the kernel may have dropped the pages.
Files are read, never mapped: a mapped file on a failing disk kills the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import struct
from collections.abc import Iterator
from typing import NoReturn

from packstone.errors import (
    Damaged,
    ObjectMissing,
    PackstoneError,
    StorageFull,
    StorageUnavailable,
)
from packstone.model import Buffer
from packstone.storage.base import Spool, Storage
from packstone.storage.system import SystemCalls

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BAD_SECTOR = {errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_SECTOR = 4096  # what a disk loses at once
_MODE = 0o600  # a repository holds what its owner may read, whoever else can see the disk


def fail(error: OSError, verb: str, name: str) -> NoReturn:
    """Raise the StorageError that an OSError of the repository's disk means."""
    reason = error.strerror or str(error)
    message = f"cannot {verb} {name}: {reason}"
    failure: PackstoneError
    if error.errno in _FULL:
        failure = StorageFull(
            message, hint="Nothing was committed. Free space on the repository's disk, run again"
        )
    elif verb == "read" and error.errno in _BAD_SECTOR:
        # One place of one file does not read: other copies and places may.
        failure = Damaged(message, name=name, hint="Run: packstone check")
    elif error.errno in (errno.ENOENT, errno.ENOTDIR):
        failure = ObjectMissing(message, hint="Run: packstone check")
    else:
        failure = StorageUnavailable(message, hint="Nothing was committed. Check the disk")
    raise failure from error


def write_all(fd: int, data: Buffer, calls: SystemCalls = os) -> None:
    """Write every byte; a short write is not an error of write(2)."""
    view = memoryview(data)
    while view:
        view = view[calls.write(fd, view) :]


def read_range(fd: int, offset: int, size: int, calls: SystemCalls = os) -> bytes:
    """Read `size` bytes from `offset`, fewer only at the end of the file."""
    data = calls.pread(fd, size, offset)
    if len(data) == size or not data:
        return data
    parts = [data]
    done = len(data)
    while done < size:
        data = calls.pread(fd, size - done, offset + done)
        if not data:
            break
        parts.append(data)
        done += len(data)
    return b"".join(parts)


# linux/fiemap.h: of all extents from byte 0 on, one is asked for
_FS_IOC_FIEMAP = 0xC020660B
_FIEMAP = struct.Struct("=QQIIII 56x")
_EXTENT = struct.Struct(
    "=32x QQ"
)  # behind the request: its first two numbers are logical, physical
_ANY_LENGTH = (1 << 64) - 1


def _first_block(fd: int) -> int:
    """Return where on its disk a file begins, in bytes; raises OSError where that is not told."""
    request = bytearray(_FIEMAP.pack(0, _ANY_LENGTH, 0, 0, 1, 0))
    fcntl.ioctl(fd, _FS_IOC_FIEMAP, request)
    physical: int = _EXTENT.unpack_from(request)[1]
    return physical


def sync_directory(path: str, calls: SystemCalls = os) -> None:
    """Make the names in a directory durable."""
    fd = calls.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        calls.fsync(fd)
    finally:
        calls.close(fd)


class LocalSpool(Spool):
    """A file in tmp/ on its way to a name."""

    def __init__(self, storage: LocalStorage) -> None:
        self._storage = storage
        self._calls = storage.calls
        self._path = os.path.join(storage.path, "tmp", secrets.token_hex(16))
        try:
            self._fd = self._calls.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE
            )
        except OSError as error:
            fail(error, "create a file in", "tmp/")

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""
        try:
            write_all(self._fd, data, self._calls)
        except OSError as error:
            fail(error, "write", "tmp/")

    def write_at(self, offset: int, data: Buffer) -> None:
        """Overwrite bytes that were written before."""
        view = memoryview(data)
        try:
            while view:
                written = self._calls.pwrite(self._fd, view, offset)
                offset += written
                view = view[written:]
        except OSError as error:
            fail(error, "write", "tmp/")

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes, as the file system gives them back."""
        try:
            return read_range(self._fd, offset, size, self._calls)
        except OSError as error:
            fail(error, "read back", "tmp/")

    def commit(self, name: str) -> None:
        """Make the bytes durable, then the name; the spool is closed."""
        target = self._storage.full_path(name)
        try:
            self._calls.fsync(self._fd)
            self._calls.close(self._fd)
            self._fd = -1
            self._calls.rename(self._path, target)
            sync_directory(os.path.dirname(target), self._calls)
        except OSError as error:
            self.abandon()
            fail(error, "store", name)

    def abandon(self) -> None:
        """Drop everything; never raises."""
        with contextlib.suppress(OSError):
            if self._fd >= 0:
                self._calls.close(self._fd)
        self._fd = -1
        with contextlib.suppress(OSError):
            self._calls.unlink(self._path)


class LocalStorage(Storage):
    """Named bytes below one directory of a local file system."""

    is_near = True

    def __init__(self, path: str, calls: SystemCalls = os) -> None:
        """Use a directory; `calls` is what reaches the disk, by default the system's own."""
        self.calls = calls
        self.path = os.path.abspath(path)
        self.url = self.path

    @property
    def place(self) -> str:
        """Return the directory, by whatever links it was named."""
        return os.path.realpath(self.path)

    def full_path(self, name: str) -> str:
        """Return where a name is; names come from this program, never from stored bytes."""
        return os.path.join(self.path, name)

    def make_directories(self, names: list[str]) -> None:
        """Create the root and the named directories, durably; existing ones are fine."""
        try:
            above = os.path.dirname(self.path)
            while not os.path.isdir(above):  # each new name above must survive, too
                above = os.path.dirname(above)
            self.calls.makedirs(self.path, mode=0o700, exist_ok=True)
            for name in names:
                self.calls.makedirs(self.full_path(name), mode=0o700, exist_ok=True)
            for name in sorted({os.path.dirname(name) for name in names} | {""}):
                sync_directory(self.full_path(name), self.calls)
            made = self.path
            while made != above:
                made = os.path.dirname(made)
                sync_directory(made, self.calls)
        except OSError as error:
            fail(error, "create", self.path)

    def put(self, name: str, data: Buffer) -> None:
        """Store `data` under `name`, replacing what was there in one step."""
        spool = self.spool()
        try:
            spool.write(data)
            spool.commit(name)
        except BaseException:
            spool.abandon()
            raise

    def put_if_absent(self, name: str, data: Buffer) -> bool:
        """Store `data` unless the name exists; return whether it was stored."""
        temp = os.path.join("tmp", secrets.token_hex(16))
        self.put(temp, data)
        target = self.full_path(name)
        try:
            try:
                # link(2) fails on an existing name, rename(2) replaces it.
                self.calls.link(self.full_path(temp), target)
            except FileExistsError:
                # Its writer may not have got there yet.
                sync_directory(os.path.dirname(target), self.calls)
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if os.path.lexists(target):
                    sync_directory(os.path.dirname(target), self.calls)
                    return False
                # This file system has no hard links; two at once would store equal things here.
                self.calls.rename(self.full_path(temp), target)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    self.calls.unlink(self.full_path(temp))
            sync_directory(os.path.dirname(target), self.calls)
        except OSError as error:
            fail(error, "store", name)
        return True

    def get(self, name: str, limit: int) -> bytes:
        """Return all bytes; raises ObjectMissing, or Damaged above `limit` bytes."""
        size = self.size(name)
        if size > limit:
            raise Damaged(f"{name} has {size} bytes, the limit is {limit}", name=name)
        return self.get_range(name, 0, limit)

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, fewer only where the file ends."""
        try:
            fd = self.calls.open(self.full_path(name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                return read_range(fd, offset, size, self.calls)
            finally:
                self.calls.close(fd)
        except OSError as error:
            fail(error, "read", name)

    def size(self, name: str) -> int:
        """Return the size in bytes; raises ObjectMissing."""
        try:
            return self.calls.stat(self.full_path(name)).st_size
        except OSError as error:
            fail(error, "look at", name)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (name, size) of every stored name below the folder `prefix`, in no order."""
        try:
            with self.calls.scandir(self.full_path(prefix)) as entries:
                found = list(entries)
            for entry in found:
                name = f"{prefix}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    yield from self.list(name)
                elif entry.is_file(follow_symlinks=False):
                    try:
                        size = entry.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:
                        # deleted since: in no listing; but what is listed and not there is none
                        if entry.name in os.listdir(self.full_path(prefix)):
                            raise
                        continue
                    yield name, size
        except OSError as error:
            fail(error, "list", prefix)

    def delete(self, name: str) -> None:
        """Remove a name durably; removing one that is gone is no error."""
        target = self.full_path(name)
        try:
            with contextlib.suppress(FileNotFoundError):
                self.calls.unlink(target)
            sync_directory(os.path.dirname(target), self.calls)
        except OSError as error:
            fail(error, "delete", name)

    def move(self, name: str, new_name: str) -> None:
        """Give a file another name instead of its own, durably; raises ObjectMissing."""
        source, target = self.full_path(name), self.full_path(new_name)
        self.make_directories([os.path.dirname(new_name)])
        try:
            self.calls.rename(source, target)
            # The new name first: a power cut in between must not lose both.
            sync_directory(os.path.dirname(target), self.calls)
            sync_directory(os.path.dirname(source), self.calls)
        except OSError as error:
            fail(error, "move", name)

    def keep(self, name: str, new_name: str) -> None:
        """Give a file a second name, durably; raises ObjectMissing."""
        target = self.full_path(new_name)
        self.make_directories([os.path.dirname(new_name)])
        try:
            self.calls.link(self.full_path(name), target)
            sync_directory(os.path.dirname(target), self.calls)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                fail(error, "keep", name)
            self._copy_readable(name, new_name)

    def _copy_readable(self, name: str, new_name: str) -> None:
        """Copy what can be read of a file; bad sectors become zeros."""
        size = self.size(name)
        spool = self.spool()
        try:
            for offset in range(0, size, _SECTOR):
                wanted = min(_SECTOR, size - offset)
                try:
                    data = self.get_range(name, offset, wanted)
                except Damaged:
                    data = b""
                spool.write(data.ljust(wanted, b"\0"))
            spool.commit(new_name)
        except BaseException:
            spool.abandon()
            raise

    def spool(self) -> LocalSpool:
        """Begin a large file whose name is known only at its end."""
        return LocalSpool(self)

    def drop_cached(self, name: str) -> bool:
        """Ask the kernel to forget the clean pages of a file; never raises."""
        try:
            fd = os.open(self.full_path(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def disk_position(self, name: str) -> int:
        """Return where a file begins on its disk, or its inode's number; never raises."""
        try:
            fd = os.open(self.full_path(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return 0
        try:
            return _first_block(fd)
        except OSError:  # not every file system tells
            return os.fstat(fd).st_ino
        finally:
            os.close(fd)

    def free(self) -> int | None:
        """Return the bytes that fit in it still."""
        try:
            found = os.statvfs(self.path)
        except OSError as error:
            fail(error, "look at", self.path)
        return found.f_bavail * found.f_frsize

    def close(self) -> None:
        """Release what is held: nothing."""
