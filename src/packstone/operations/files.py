"""Read source files and store their content: small ones in batches, long ones in spans.

Knows files by directory and name, never paths to open. Errors of a source file become
problems; errors of the repository pass through and end the snapshot. Invariant: a file whose
size or times moved while it was read is read again twice, then kept with the flag CHANGED.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any

from packstone.filesystem import _scan
from packstone.filesystem.metadata import read_xattrs_of, stat_of
from packstone.filesystem.reading import Extent, extents, open_regular, read_into
from packstone.filesystem.walk import OpenDirectory
from packstone.model import ID_SIZE, MIB, Entry, Extras, Flag, Problem, Stat
from packstone.operations.parent import OldVersion, Parent
from packstone.operations.results import source_problem
from packstone.operations.storing import ChunkStore, ReadAt, drain
from packstone.repository.contents import ContentWriter

SMALL_FILE = MIB  # up to this a file is read in a batch
_LIMIT = SMALL_FILE + 1  # one byte more shows that a file is not small any more
_ENDLESS = 1 << 62
_BATCH_SIZE = MIB
_BATCH_FILES = 256
_BATCH_DIRECTORIES = 32  # descriptors that a batch keeps open
_LONG_FILES = 16  # of which descriptors are kept until they are whole
_RETRIES = 2


def entry_of(
    name: bytes,
    stat: Any,
    size: int,
    content: Any,
    *,
    flags: int = 0,
    link: bytes = b"",
    xattrs: list[tuple[bytes, bytes]] | None = None,
) -> Entry:
    """Build an entry from what lstat said (the fields of model.Stat, in order)."""
    extras = None
    if flags or link or xattrs:
        extras = Extras(flags, link, xattrs or [])
    return Entry(name, stat[0], stat[1], stat[2], size, stat[4], stat[5], stat[6], content, extras)


# Stands for the entry of a file that has grown too long for its batch.
_TOO_LONG: Any = object()


class PendingFile:
    """A file whose content is being stored; `resolve` gives its entry, None if it vanished."""

    __slots__ = ("_entry", "_settle", "link", "old")

    def __init__(self, link: bytes, old: Entry | None) -> None:
        self.link = link
        self.old = old
        self._entry: Entry | None = None
        self._settle: Callable[[], None] | None = None

    def set(self, entry: Entry | None) -> None:
        """Give the finished entry."""
        self._entry = entry
        self._settle = None

    def when(self, settle: Callable[[], None]) -> None:
        """Say what to call for the entry to be set."""
        self._settle = settle

    def resolve(self) -> Entry | None:
        """Wait for the entry."""
        while self._settle is not None:  # a file may turn out to be longer than it was
            settle = self._settle
            self._settle = None
            settle()
        return self._entry


class _Batch:
    """Small files that are read together; one closure settles them all."""

    __slots__ = ("directories", "files", "future", "settle", "size")

    def __init__(self, settle: Callable[[_Batch], None]) -> None:
        self.files: list[tuple[OpenDirectory, bytes, Any, Entry | None, PendingFile]] = []
        self.directories: set[OpenDirectory] = set()  # held open until they are read
        self.settle = lambda: settle(self)
        self.size = 0
        self.future: Future[list[Entry | None]] | None = None


class FileReader:
    """Store the content of files through a ChunkStore; used by one thread, works on many.

    `problems` names source files that could not be read or changed meanwhile.
    """

    def __init__(
        self,
        store: ChunkStore,
        parent: Parent,
        problems: list[Problem],
        report: Callable[[OpenDirectory], None],
    ) -> None:
        self._store = store
        self._parent = parent
        self._problems = problems
        self._report = report
        self._batch = _Batch(self._settle_batch)
        self._long: deque[PendingFile] = deque()
        self._put = store.writer.put
        self._lock = threading.Lock()
        self.bytes_read = 0

    def read(
        self, directory: OpenDirectory, name: bytes, stat: Any, old: Entry | None, link: bytes
    ) -> PendingFile:
        """Begin to store one regular file; `old` is the parent's entry of that name."""
        pending = PendingFile(link, old)
        size = stat[3]
        if size > SMALL_FILE:
            self._read_long(directory, name, stat, old, pending)
            return pending
        batch = self._batch
        if directory not in batch.directories:
            batch.directories.add(directory.acquire())
        batch.files.append((directory, name, stat, old, pending))
        batch.size += size
        pending.when(batch.settle)
        if (
            batch.size >= _BATCH_SIZE
            or len(batch.files) >= _BATCH_FILES
            or len(batch.directories) >= _BATCH_DIRECTORIES
        ):
            self._submit(batch)
        return pending

    def _submit(self, batch: _Batch) -> None:
        if batch is self._batch:
            self._batch = _Batch(self._settle_batch)
        batch.future = self._store.workers.submit(self._store_batch, batch)

    def _settle_batch(self, batch: _Batch) -> None:
        if batch.future is None:
            self._submit(batch)
        assert batch.future is not None
        for file, entry in zip(batch.files, batch.future.result(), strict=True):
            if entry is _TOO_LONG:
                directory, name, stat, old, pending = file
                pending.set(None)
                self._read_long(directory, name, stat, old, pending)
                directory.release()
            else:
                file[4].set(entry)
        batch.files.clear()
        batch.future = None

    def _count(self, size: int) -> None:
        with self._lock:
            self.bytes_read += size

    # -- on a worker ------------------------------------------------------------------------

    def _store_batch(self, batch: _Batch) -> list[Entry | None]:
        files = batch.files
        try:
            items = [(file[0].fd, file[1], file[2][3]) for file in files]
            results: list[Any] = _scan.read_files(items, _LIMIT)
            for at, result in enumerate(results):
                if type(result) is not int and not result[2]:
                    results[at] = self._read_again(files[at], result)
        finally:
            for directory in batch.directories:
                directory.release()
            batch.directories.clear()
        return self._store_read(files, results)

    def _read_again(self, file: Any, result: Any) -> Any:
        """Return what is read of a file that moved, once it keeps still, or the last try."""
        for retry in range(_RETRIES + 1):
            if type(result) is int or result[2]:
                return result
            stat, data, _stable, xattrs = result
            if len(data) > SMALL_FILE:
                file[0].acquire()  # until it is read as the long file that it is
                return _TOO_LONG
            if stat[3] == 0 and data and _size_now(file) == 0:
                return stat, data, True, xattrs  # as files of /proc and /sys are
            if retry < _RETRIES:
                result = _scan.read_files([(file[0].fd, file[1], stat[3])], _LIMIT)[0]
        return result

    def _store_read(self, files: list[Any], results: list[Any]) -> list[Entry | None]:
        """Store what was read; whole small files in one look-up, longer ones cut."""
        store = self._store
        minimum = store.chunker.minimum
        chunk_id = store.chunk_id
        contents: list[Any] = [b""] * len(files)
        single: list[int] = []
        ids: list[bytes] = []
        for at, result in enumerate(results):
            if type(result) is not tuple or not result[1]:
                continue
            data = result[1]
            if len(data) <= minimum:
                found = chunk_id(data)
                contents[at] = found
                old = files[at][3]
                if old is not None and old.content == found and self._parent.is_known(found):
                    continue
                single.append(at)
                ids.append(found)
            else:
                ends = store.chunker.cut(data, 0, len(data), True)
                version = self._parent.old_version(files[at][3])
                content = ContentWriter(self._put)
                for row in store.store(data, 0, ends, 0, len(data), version, 0):
                    content.add(*row)
                contents[at] = content.finish()
        if ids:
            beside = [_only_chunk(files[at][3]) for at in single]
            store.store_whole(ids, [results[at][1] for at in single], beside)
        self._count(sum([len(result[1]) for result in results if type(result) is tuple]))
        return [
            self._finish(file, result, content)
            for file, result, content in zip(files, results, contents, strict=True)
        ]

    def _finish(self, file: Any, result: Any, content: Any) -> Entry | None:
        directory, name, stat, _old, pending = file
        if result is _TOO_LONG:
            return _TOO_LONG  # type: ignore[no-any-return]
        if type(result) is int:
            return self._unreadable(directory, name, stat, pending.link, result)
        found, data, stable, xattrs = result
        flags = 0
        if not stable:
            flags = Flag.CHANGED
            self._changed(directory, name)
        return entry_of(
            name, found, len(data), content, flags=flags, link=pending.link, xattrs=xattrs
        )

    def _changed(self, directory: OpenDirectory, name: bytes) -> None:
        path = os.path.join(directory.path, name)
        self._problems.append(
            Problem(path, "changed while it was read; stored as it was read last")
        )

    def _unreadable(
        self, directory: OpenDirectory, name: bytes, stat: Any, link: bytes, number: int
    ) -> Entry | None:
        path = os.path.join(directory.path, name)
        if number == errno.ENOENT:
            self._problems.append(Problem(path, "vanished before it could be read"))
            return None
        error = OSError(number, os.strerror(number))
        self._problems.append(source_problem(path, error))
        return entry_of(name, stat, stat[3], None, flags=Flag.UNREADABLE, link=link)

    # -- long files -------------------------------------------------------------------------

    def _read_long(
        self,
        directory: OpenDirectory,
        name: bytes,
        stat: Any,
        old: Entry | None,
        pending: PendingFile,
    ) -> None:
        try:
            fd = open_regular(directory.fd, name)
        except OSError as error:
            number = error.errno or errno.EIO
            pending.set(self._unreadable(directory, name, stat, pending.link, number))
            return
        version = self._parent.old_version(old)
        directory.acquire()
        try:
            attempt = self._begin(directory, fd, version)
        except _Unreadable as error:
            os.close(fd)
            directory.release()
            pending.set(self._unreadable(directory, name, stat, pending.link, error.number))
            return

        def settle() -> None:
            pending.set(self._finish_long(directory, name, stat, fd, attempt, version, pending))

        pending.when(settle)
        self._long.append(pending)
        if len(self._long) > _LONG_FILES:
            self._long.popleft().resolve()

    def _begin(
        self, directory: OpenDirectory, fd: int, version: OldVersion
    ) -> tuple[Stat, ContentWriter, deque[Future[list[tuple[bytes, int]]]]]:
        """Read and cut a file as it is now; its last spans may still be on the workers."""
        with _of_source():
            before = stat_of(os.fstat(fd))
        content = ContentWriter(self._put)
        spans: deque[Future[list[tuple[bytes, int]]]] = deque()
        try:
            self._store_extents(directory, fd, before, content, spans, version)
        except BaseException:
            # What went wrong in the repository outweighs what went wrong in the source.
            _drain_all(content, spans)
            raise
        return before, content, spans

    def _store_extents(
        self,
        directory: OpenDirectory,
        fd: int,
        stat: Stat,
        content: ContentWriter,
        spans: deque[Future[list[tuple[bytes, int]]]],
        version: OldVersion,
    ) -> None:
        with _of_source():
            found = list(extents(fd, stat)) if stat.size else [Extent(0, _ENDLESS, False)]
        for extent in found:
            if extent.hole:
                drain(content, spans, wait=True)
                content.add_hole(extent.size)
                continue

            def read(view: memoryview, offset: int) -> int:
                with _of_source():
                    count = read_into(fd, view, offset)
                self._count(count)
                return count

            if extent.size < _ENDLESS:
                run = (extent.offset, extent.size)
                for _ in self._store.store_extent(content, spans, read, run, version):
                    self._report(directory)
            else:
                self._store_endless(directory, read, content, spans, version)

    def _store_endless(
        self,
        directory: OpenDirectory,
        read: ReadAt,
        content: ContentWriter,
        spans: deque[Future[list[tuple[bytes, int]]]],
        version: OldVersion,
    ) -> None:
        """Store a file that states no size, as those of /proc do."""
        offset = 0

        def read_on(view: memoryview) -> int:
            nonlocal offset
            count = read(view, offset)
            offset += count
            self._report(directory)
            return count

        self._store.store_run(content, spans, read_on, version)

    def _finish_long(
        self,
        directory: OpenDirectory,
        name: bytes,
        stat: Any,
        fd: int,
        attempt: Any,
        version: OldVersion,
        pending: PendingFile,
    ) -> Entry | None:
        try:
            for retry in range(_RETRIES + 1):
                before, content, spans = attempt
                _drain_all(content, spans)
                flags = 0
                with _of_source():
                    after = stat_of(os.fstat(fd))
                # Files of /proc and /sys state size 0 and have content: not a change.
                if before[:7] == after[:7] and (content.size == before.size or not before.size):
                    break
                flags = Flag.CHANGED
                if retry < _RETRIES:
                    attempt = self._begin(directory, fd, version)
            if flags:
                self._changed(directory, name)
            with _of_source():
                xattrs = read_xattrs_of(fd)
            rows = content.finish()
            return entry_of(
                name, before, content.size, rows, flags=flags, link=pending.link, xattrs=xattrs
            )
        except _Unreadable as error:
            return self._unreadable(directory, name, stat, pending.link, error.number)
        finally:
            wait(attempt[2])  # they read from it
            os.close(fd)
            directory.release()


def _only_chunk(old: Entry | None) -> bytes | None:
    """Return the id of the chunk that a file was, None if it had several or none."""
    content = old.content if old is not None else None
    return content if isinstance(content, bytes) and len(content) == ID_SIZE else None


class _Unreadable(Exception):
    """A source file gave an error; never anything of the repository."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _drain_all(content: ContentWriter, spans: deque[Future[list[tuple[bytes, int]]]]) -> None:
    """Wait until no span reads its file any more; errors of the repository go first."""
    failure: _Unreadable | None = None
    try:
        while spans:
            try:
                drain(content, spans, wait=True)
            except _Unreadable as error:
                failure = failure or error
    finally:
        wait(spans)
    if failure is not None:
        raise failure


@contextmanager
def _of_source() -> Iterator[None]:
    """Mark errors of the system as those of a source file."""
    try:
        yield
    except OSError as error:
        raise _Unreadable(error.errno or errno.EIO) from error


def _size_now(file: Any) -> int:
    """Return the size that a file states, -1 if it cannot be asked."""
    try:
        return os.stat(file[1], dir_fd=file[0].fd, follow_symlinks=False).st_size
    except OSError:
        return -1
