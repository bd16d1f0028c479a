"""Show snapshots as read-only directories through FUSE.

Snapshots stand under their ids, times, hosts and tags. Holds no lock, so that it never keeps a
prune waiting: now and then it looks whether the generation has changed.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from packstone.errors import PackstoneError, UsageError
from packstone.model import Entry
from packstone.operations.snapshot_files import AheadReader, SnapshotFiles
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow

_LOOK_AGAIN = 5.0  # seconds
_LATEST = "latest"
_XATTRS_REFUSED = getattr(errno, "ENODATA", errno.ENOENT)

Folder = dict[str, Any]  # name → Folder, SnapshotRow, or the text of a symbolic link


class MountedSnapshots:
    """What a mount shows; the methods are those that FUSE asks for, paths are text of bytes."""

    use_ns = True  # times are integers of nanoseconds

    def __init__(
        self, repository: ObjectRepository, threads: int, warn: Callable[[str], None]
    ) -> None:
        self._repository = repository
        self._files = SnapshotFiles(repository.reader, threads)
        self._warn = warn
        self._lock = threading.Lock()
        self._checked = 0.0
        self._generation = repository.generation()
        self._ids: set[str] = set()
        self._root: Folder = {}
        self._open: dict[int, AheadReader] = {}
        self._handles = 0
        self._owner = (os.getuid(), os.getgid())
        self._load()
        repository.release_lock()

    # -- which snapshots there are ------------------------------------------------------------

    def _load(self) -> None:
        rows = self._repository.snapshots()
        self._ids = {row.id for row in rows}
        root: Folder = {"ids": {}, "times": {}, "hosts": {}, "tags": {}}
        for row in rows:
            root["ids"][row.id[:12]] = row
            _put_by_time(root["times"], row)
            _put_by_time(root["hosts"].setdefault(_name(row.snapshot.host), {}), row)
            for tag in row.snapshot.tags:
                _put_by_time(root["tags"].setdefault(_name(tag), {}), row)
        self._root = root

    def _follow(self) -> None:
        """Look again for snapshots that came or went, and for a sweep."""
        with self._lock:
            now = time.monotonic()
            if now - self._checked < _LOOK_AGAIN:
                return
            self._checked = now
            repository = self._repository
            names = {name.rpartition("/")[2] for name, _ in repository.storage.list("snapshots")}
            generation = repository.generation()
            if generation != self._generation:
                repository.index.refresh(repository.storage)
                self._generation = generation
            if names != self._ids:
                self._load()

    # -- finding things -----------------------------------------------------------------------

    def _find(self, path: str) -> Folder | SnapshotRow | Entry | str:
        """Return what stands at a path; raises OSError ENOENT."""
        names = [name for name in path.split("/") if name]
        if len(names) < 3:
            self._follow()
        found: Any = self._root
        while names and isinstance(found, dict):
            found = found.get(names.pop(0))
        if found is None or (isinstance(found, str) and names):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not isinstance(found, SnapshotRow) or not names:
            return found  # type: ignore[no-any-return]
        tree_id = found.snapshot.tree
        entry: Entry | None = None
        for name in names:
            if entry is not None:
                if not stat.S_ISDIR(entry.mode) or not isinstance(entry.content, bytes):
                    raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                tree_id = entry.content
            entry = self._files.find(tree_id, os.fsencode(name))
            if entry is None:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        assert entry is not None
        return entry

    def _guard(self, error: PackstoneError) -> OSError:
        """Tell of an error of the repository; who reads gets an input/output error."""
        self._warn(error.message)
        return OSError(errno.EIO, os.strerror(errno.EIO))

    # -- what FUSE asks for -------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """Return the attributes of a path."""
        try:
            found = self._find(path)
        except PackstoneError as error:
            raise self._guard(error) from error
        if isinstance(found, Entry):
            return _attributes(found)
        uid, gid = self._owner
        row = found if isinstance(found, SnapshotRow) else None
        moment = row.snapshot.time_ns if row else 0
        mode = stat.S_IFLNK | 0o777 if isinstance(found, str) else stat.S_IFDIR | 0o555
        return {
            "st_mode": mode,
            "st_nlink": 1 if isinstance(found, str) else 2,
            "st_uid": uid,
            "st_gid": gid,
            "st_size": len(found) if isinstance(found, str) else 0,
            **dict.fromkeys(("st_mtime", "st_ctime", "st_atime"), moment),
        }

    def readdir(self, path: str, fh: int) -> Iterator[Any]:
        """Yield the names in a directory."""
        try:
            found = self._find(path)
            yield from (".", "..")
            if isinstance(found, dict):
                yield from list(found)
                return
            tree_id: Any = found.snapshot.tree if isinstance(found, SnapshotRow) else None
            if isinstance(found, Entry) and stat.S_ISDIR(found.mode):
                tree_id = found.content
            if not isinstance(tree_id, bytes):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            for entry in self._files.entries(tree_id):
                yield os.fsdecode(entry.name)
        except PackstoneError as error:
            raise self._guard(error) from error

    def readlink(self, path: str) -> str:
        """Return where a symbolic link leads."""
        try:
            found = self._find(path)
        except PackstoneError as error:
            raise self._guard(error) from error
        if isinstance(found, str):
            return found
        if isinstance(found, Entry) and stat.S_ISLNK(found.mode):
            assert isinstance(found.content, bytes)
            return os.fsdecode(found.content)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def open(self, path: str, flags: int) -> int:
        """Open a file for reading and return its handle."""
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        try:
            found = self._find(path)
        except PackstoneError as error:
            raise self._guard(error) from error
        if not isinstance(found, Entry) or not stat.S_ISREG(found.mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if found.content is None:
            self._warn(f"{path} could not be read when the snapshot was taken")
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        with self._lock:
            self._handles += 1
            self._open[self._handles] = self._files.open(found)
            return self._handles

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Return bytes of an open file."""
        try:
            return self._open[fh].read(offset, size)
        except PackstoneError as error:
            raise self._guard(error) from error

    def release(self, path: str, fh: int) -> int:
        """Close a file."""
        with self._lock:
            self._open.pop(fh, None)
        return 0

    def listxattr(self, path: str) -> list[str]:
        """Return the names of extended attributes."""
        return [os.fsdecode(name) for name, _value in self._xattrs(path)]

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """Return the value of an extended attribute."""
        for found, value in self._xattrs(path):
            if found == os.fsencode(name):
                return value
        raise OSError(_XATTRS_REFUSED, os.strerror(_XATTRS_REFUSED))

    def _xattrs(self, path: str) -> list[tuple[bytes, bytes]]:
        try:
            found = self._find(path)
        except PackstoneError as error:
            raise self._guard(error) from error
        return found.extras.xattrs if isinstance(found, Entry) and found.extras else []

    def statfs(self, path: str) -> dict[str, int]:
        """Return the size of a file system that takes nothing more."""
        return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 0, "f_bavail": 0, "f_namemax": 255}

    def destroy(self, path: str) -> None:
        """End the mount."""
        self._files.close()


def _put_by_time(folder: Folder, row: SnapshotRow) -> None:
    """Add a snapshot under its time; rows come oldest first."""
    moment = datetime.fromtimestamp(row.snapshot.time_ns // 1_000_000_000, UTC).astimezone()
    name = base = moment.isoformat(timespec="seconds")
    number = 1
    while name in folder:
        number += 1
        name = f"{base}-{number}"
    folder[name] = row
    folder[_LATEST] = name


def _name(text: str) -> str:
    """Return a text as one name of a directory."""
    return quote(text, safe=" ,=+@:~") if text in ("", ".", "..") or "/" in text else text


def _attributes(entry: Entry) -> dict[str, int]:
    found = {
        "st_mode": entry.mode,
        "st_nlink": 2 if stat.S_ISDIR(entry.mode) else 1,
        "st_uid": entry.uid,
        "st_gid": entry.gid,
        "st_size": entry.size,
        "st_blocks": (entry.size + 511) // 512,
        "st_mtime": entry.mtime_ns,
        "st_ctime": entry.ctime_ns,
        "st_atime": entry.mtime_ns,
    }
    if stat.S_ISLNK(entry.mode) and isinstance(entry.content, bytes):
        found["st_size"] = len(entry.content)
    if isinstance(entry.content, list) and (stat.S_ISBLK(entry.mode) or stat.S_ISCHR(entry.mode)):
        found["st_rdev"] = os.makedev(*entry.content)
    return found


def mount(
    repository: ObjectRepository,
    directory: str,
    *,
    threads: int,
    warn: Callable[[str], None],
    allow_other: bool = False,
) -> None:
    """Show all snapshots below a directory until it is unmounted.

    Needs the extra `mount` (mfusepy) and libfuse. Raises UsageError where they are missing or the
    directory cannot be mounted on.
    """
    try:
        import mfusepy
    except (ImportError, OSError) as error:
        raise UsageError(
            f"cannot mount: {error}",
            hint="Install the extra with: pip install 'packstone[mount]', and libfuse 3 "
            "(Debian: fuse3)",
        ) from error
    if not os.path.isdir(directory):
        raise UsageError(f"{directory} is not a directory to mount on")
    try:
        mfusepy.FUSE(
            MountedSnapshots(repository, threads, warn),
            directory,
            foreground=True,
            ro=True,
            fsname="packstone",
            kernel_cache=True,
            attr_timeout=60,
            entry_timeout=60,
            negative_timeout=0,
            **({"allow_other": True} if allow_other else {}),
        )
    except RuntimeError as error:
        raise UsageError(
            f"cannot mount on {directory}: FUSE ended with {error}",
            hint="See its message above. Is the directory mounted on already?",
        ) from error
