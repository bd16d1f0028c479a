"""The LMDB environment under the index: opening it safely, growing its map.

Knows nothing of packs. LMDB maps its file, so a truncated or foreign file could end the
process or give wrong values: it is looked at with plain reads before it is mapped, and
anything unexpected means a new, empty environment (docs/format.md §1: deleting it loses
nothing).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import lmdb

from packstone.errors import StorageFull, StorageUnavailable
from packstone.model import MIB
from packstone.repository.memory import find_mapping, unmap_pages

T = TypeVar("T")

_META = struct.Struct("<16xIIQQI92xQQ")  # of LMDB 0.9: header, magic, version, …, last page, txn
_META_MAGIC, _META_VERSION = 0xBEEFC0DE, 1
_FIRST_MAP = 64 * MIB
_LOCKS_SIZE = 8192  # of LMDB's lock file: a header and 126 readers
_LARGE = 64 * MIB  # an index below this may stay mapped
_TOUCHED = 1024  # look-ups between two releases: at most 64 MiB of mapped pages


def is_sound(path: str) -> bool:
    """Return whether a data file is one of this engine and as long as its meta pages say."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(_META.size)
            _magic, _version, _address, _map, page_size, *_ = _META.unpack(first)
            if not 512 <= page_size <= 65536 or page_size & (page_size - 1):
                return False
            file.seek(page_size)
            second = file.read(_META.size)
            for meta in (first, second):
                magic, version, _address, _map, found, last_page, _txn = _META.unpack(meta)
                if (magic, version, found) != (_META_MAGIC, _META_VERSION, page_size):
                    return False
                if (last_page + 1) * page_size > size:
                    return False
    except (OSError, struct.error):
        return False
    return True


# LMDB allows an environment to be open once in a process (its locks belong to the process),
# so whoever opens the same directory again shares it. The only state of the module.
_shared: dict[str, View] = {}
_sharing = threading.Lock()


def open_view(directory: str, databases: tuple[bytes, ...]) -> View:
    """Open the view in a directory, or the one that this process has open there already."""
    key = os.path.realpath(directory)
    with _sharing:
        view = _shared.get(key)
        if view is None:
            view = _shared[key] = View(key, databases)
        view.users += 1
        return view


def discard_view(directory: str) -> None:
    """Delete a view, unopened; whoever has it open keeps what is deleted until it closes it."""
    try:
        _remove_files(directory)
    except OSError as error:
        raise _failure(error, directory) from error


def _remove_files(directory: str) -> None:
    for name in ("data.mdb", "lock.mdb"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, name))


class Reading:
    """A read transaction as a context manager; a class, because it is entered for every look-up."""

    __slots__ = ("_follow", "_transaction", "_view")

    def __init__(self, view: View, follow: Callable[[Any], None]) -> None:
        self._view = view
        self._follow = follow

    def __enter__(self) -> Any:
        view = self._view
        self._join()
        try:
            transaction = self._transaction = view.begin()
        except lmdb.MapResizedError:
            # Another process has grown the map. Ours follows when nobody reads in it, so this
            # reader steps back too: two that waited for each other would wait for ever.
            self._leave()
            view.resize(0)
            self._join()
            try:
                transaction = self._transaction = view.begin()
            except BaseException as error:
                self._leave()
                raise _failure(error, view.directory) from error
        except BaseException as error:
            self._leave()
            raise _failure(error, view.directory) from error
        try:
            self._follow(transaction)
        except BaseException as error:
            transaction.abort()
            self._leave()
            raise _failure(error, view.directory) from error
        return transaction

    def _join(self) -> None:
        view = self._view
        with view.gate:
            # Whoever waits for readers to leave must not be kept out by new ones.
            view.gate.wait_for(lambda: not view.waiting)
            view.readers += 1

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._transaction.abort()
        self._leave()
        if isinstance(error, lmdb.Error):
            raise _failure(error, self._view.directory) from error

    def _leave(self) -> None:
        view = self._view
        with view.gate:
            view.readers -= 1
            if view.waiting:
                view.gate.notify_all()


class View:
    """One LMDB environment that several threads read and one at a time writes."""

    def __init__(self, directory: str, databases: tuple[bytes, ...]) -> None:
        """Open or create the environment; an unsound one is replaced by an empty one."""
        self.directory = directory
        self.users = 0
        self._touched = 0
        self._mapping: tuple[int, int] | None = None  # (0, 0): there is no saying where it is
        self.writing = threading.Lock()  # held by whoever prepares and makes a change
        self._path = os.path.join(directory, "data.mdb")
        self.gate = threading.Condition()  # readers leave before the map is moved
        self.readers = 0
        self.waiting = 0
        self._names = databases
        self.databases: dict[bytes, Any] = {}
        self._open()

    def _open(self) -> None:
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            exists = os.path.exists(self._path)
            if exists and not is_sound(self._path):
                self._remove()
                exists = False
            self._allocate_locks()
            size = max(_FIRST_MAP, 2 * os.path.getsize(self._path)) if exists else _FIRST_MAP
            self._environment = lmdb.open(
                self.directory,
                map_size=size,
                max_dbs=len(self._names),
                # Ids are random: reading ahead would fill memory with pages nobody asked for.
                readahead=False,
                mode=0o600,
                max_spare_txns=8,
            )
            # Readers that were killed pin old pages and make the file grow.
            self._environment.reader_check()
            try:
                self.databases = self._open_databases()
            except lmdb.MapResizedError:  # another process has grown it since the line before
                self._environment.set_mapsize(0)
                self.databases = self._open_databases()
        except (lmdb.Error, OSError) as error:
            raise _failure(error, self.directory) from error

    def _allocate_locks(self) -> None:
        """Give the file of LMDB's locks its blocks before it is mapped.

        LMDB writes to it through a map: on a full disk one with holes would end the process.
        """
        fd = os.open(
            os.path.join(self.directory, "lock.mdb"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            # Not where they are there already: other processes may be using the file.
            if hasattr(os, "posix_fallocate") and os.fstat(fd).st_blocks * 512 < _LOCKS_SIZE:
                os.posix_fallocate(fd, 0, _LOCKS_SIZE)
        finally:
            os.close(fd)

    def _open_databases(self) -> dict[bytes, Any]:
        return {name: self._environment.open_db(name) for name in self._names}

    def _remove(self) -> None:
        _remove_files(self.directory)

    def reading(self, follow: Callable[[Any], None]) -> Reading:
        """Hold a short read transaction; values are valid inside it only.

        `follow` is called with the transaction before anything else.
        """
        return Reading(self, follow)

    def write(self, change: Callable[[Any], T]) -> T:
        """Run `change(transaction)` in one write transaction, again in a larger map if full."""
        # A reader that was killed pins old pages for as long as this is open. Writes are few.
        self._environment.reader_check()
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    return change(transaction)
            except lmdb.MapFullError:
                self.resize(2 * self._environment.info()["map_size"])
            except lmdb.MapResizedError:
                self.resize(0)
            except lmdb.Error as error:
                raise _failure(error, self.directory) from error

    def begin(self) -> Any:
        """Begin a read transaction; the caller is counted among the readers."""
        return self._environment.begin(buffers=True)

    def looked_up(self, count: int) -> None:
        """Count look-ups at random keys; now and then give back the pages they mapped."""
        self._touched += count
        if self._touched >= _TOUCHED:
            self._touched = 0
            self._release_pages()

    def _release_pages(self) -> None:
        """Unmap the pages of a large file from this process; they stay in the page cache.

        Each look-up maps up to 64 KiB around its page, so that without this the process would
        seem to hold a large index in memory.
        """
        try:
            if os.path.getsize(self._path) < _LARGE:
                return
        except OSError:  # deleted under our feet: it stays mapped until we close it
            return
        with self.gate:  # who moves the map holds it
            if self._mapping is None:
                self._mapping = find_mapping(self._path) or (0, 0)
            start, size = self._mapping
            if size:
                unmap_pages(start, size)

    def resize(self, size: int) -> None:
        """Make the map larger, or with 0 as large as another process made it."""
        with self._alone():
            self._mapping = None
            self._environment.set_mapsize(size)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep readers out."""
        with self.gate:
            self.waiting += 1
            self.gate.wait_for(lambda: self.readers == 0)
            self.waiting -= 1
            try:
                yield
            finally:
                self.gate.notify_all()

    def size(self) -> int:
        """Return the bytes that the environment takes on disk."""
        try:
            return os.stat(self._path).st_blocks * 512
        except OSError:
            return 0

    def close(self) -> None:
        """Close the environment when nobody else in this process uses it."""
        with _sharing:
            self.users -= 1
            if self.users == 0:
                _shared.pop(self.directory, None)
                with self.gate:  # nobody empties what will be somebody else's memory
                    self._mapping = (0, 0)
                    self._environment.close()


def _failure(error: BaseException, directory: str) -> BaseException:
    """Say what an error of the index means; a full disk reaches us as an input/output error.

    Errors that are not of LMDB or the system are returned as they are.
    """
    if not isinstance(error, (lmdb.Error, OSError)):
        return error
    with contextlib.suppress(OSError):
        if shutil.disk_usage(directory).free < MIB:
            return StorageFull(
                f"no room for the index in {directory}: {error}",
                hint="Nothing was committed. Free space, run again",
            )
    return StorageUnavailable(
        f"the index in {directory} cannot be used: {error}",
        hint=f"The packs are unaffected. Delete {directory}: it is rebuilt from them",
    )
