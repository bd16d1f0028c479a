"""Read files of snapshots through fsspec: `packstone://SNAPSHOT/path/in/it`.

Registered with fsspec, so that pandas, DuckDB and whatever else opens such URLs reads yesterday's
table beside today's without a restore. Read-only.
"""

from __future__ import annotations

import io
import os
import stat
from typing import Any

from fsspec.spec import AbstractFileSystem

from packstone.errors import UsageError
from packstone.model import Entry
from packstone.operations.browse import directory_id, find_path
from packstone.operations.facade import Repository
from packstone.operations.passphrases import configured_passphrase
from packstone.operations.snapshot_files import AheadReader, SnapshotFiles

_BUFFER = 1 << 20  # bytes
_KINDS = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "link"}


class PackstoneFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Snapshots of one repository as a file system of fsspec.

    `repo` is a path or URL, `passphrase` opens an encrypted one; without it the variables
    PACKSTONE_PASSPHRASE, _FILE and _COMMAND count, and for `repo` PACKSTONE_REPO.
    """

    protocol = "packstone"
    root_marker = ""

    def __init__(self, repo: str = "", passphrase: str | None = None, **options: Any) -> None:
        super().__init__(repo=repo, passphrase=passphrase, **options)
        location = repo or os.environ.get("PACKSTONE_REPO", "")
        if not location:
            raise UsageError("no repository is named", hint='storage_options={"repo": "/path"}')
        self._repository = Repository(location, passphrase=passphrase or configured_passphrase)
        self._objects = self._repository._objects
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        self._files = SnapshotFiles(self._objects.reader, threads)
        self._objects.release_lock()

    def _find(self, path: str) -> tuple[str, str, Entry | None, bytes]:
        """Return (snapshot, path in it, entry, id of the tree if it is a directory)."""
        name, _, rest = self._strip_protocol(path).partition("/")
        try:
            row = self._repository.find_snapshot(name)
            entry = find_path(self._objects.reader, row.snapshot, os.fsencode(rest))
        except UsageError as error:
            raise FileNotFoundError(error.message) from error
        tree = row.snapshot.tree if entry is None else b""
        if entry is not None and stat.S_ISDIR(entry.mode):
            tree = directory_id(entry)
        return name, rest.strip("/"), entry, tree

    def _info(self, name: str, entry: Entry | None) -> dict[str, Any]:
        if entry is None:
            return {"name": name, "size": 0, "type": "directory"}
        found: dict[str, Any] = {
            "name": name,
            "size": entry.size,
            "type": _KINDS.get(stat.S_IFMT(entry.mode), "other"),
            "mode": entry.mode,
            "uid": entry.uid,
            "gid": entry.gid,
            "mtime": entry.mtime_ns / 1e9,
        }
        if stat.S_ISLNK(entry.mode) and isinstance(entry.content, bytes):
            found["destination"] = os.fsdecode(entry.content)
        return found

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Return what is known of a path; raises FileNotFoundError."""
        if not self._strip_protocol(path):
            return {"name": "", "size": 0, "type": "directory"}
        name, rest, entry, _tree = self._find(path)
        return self._info(f"{name}/{rest}".rstrip("/"), entry)

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        """List a directory, or the snapshots where none is named."""
        stripped = self._strip_protocol(path)
        if not stripped:
            rows = self._repository.snapshots()
            found = [{"name": row.id[:12], "size": 0, "type": "directory"} for row in rows]
        else:
            name, rest, entry, tree = self._find(path)
            where = f"{name}/{rest}".rstrip("/")
            if tree:
                found = [
                    self._info(f"{where}/{os.fsdecode(below.name)}", below)
                    for below in self._files.entries(tree)
                ]
            else:
                found = [self._info(where, entry)]
        return found if detail else [each["name"] for each in found]

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.BufferedReader:
        if mode != "rb":
            raise OSError("snapshots are read-only")
        _name, _rest, entry, _tree = self._find(path)
        if entry is None or not stat.S_ISREG(entry.mode):
            raise IsADirectoryError(path)
        if entry.content is None:
            raise OSError(f"{path} could not be read when the snapshot was taken")
        return io.BufferedReader(_File(self._files.open(entry)), _BUFFER)

    def created(self, path: str) -> Any:
        """Not known of files in snapshots."""
        raise NotImplementedError

    def modified(self, path: str) -> Any:
        """Return when a file was changed last, in UTC."""
        import datetime

        return datetime.datetime.fromtimestamp(self.info(path)["mtime"], datetime.UTC)


class _File(io.RawIOBase):
    """An open file of a snapshot as Python reads files."""

    def __init__(self, reader: AheadReader) -> None:
        self._reader = reader
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._reader.size}
        position = base[whence] + offset
        if position < 0:
            raise ValueError(f"position {position} is before the start of the file")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._reader.read(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
