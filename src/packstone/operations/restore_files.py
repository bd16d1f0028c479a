"""Contents of files to restore: wanted chunk by chunk, fetched pack by pack, written whole.

Knows files by target directory and entry, not the snapshot's tree. Invariants: a chunk is
written only after it hashed to its id; a file whose chunk cannot be had never gets its name.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from packstone.errors import Damaged, ObjectMissing, PackstoneError, TargetError
from packstone.filesystem.confine import (
    ExistingFile,
    Outcome,
    Target,
    TargetDirectory,
    TargetFile,
)
from packstone.model import MIB, Buffer, Entry, ObjectType, Problem
from packstone.operations.restore_over import Reuse, has_content, missing_size
from packstone.operations.restore_plan import (
    WINDOW_ROWS,
    Range,
    Window,
    read_anywhere,
    read_range,
)
from packstone.operations.restore_verify import verify_file
from packstone.operations.results import RestoreResult, Ticker
from packstone.operations.storing import Workers
from packstone.repository.contents import iter_content
from packstone.repository.repository import ObjectRepository

_SMALL = MIB  # a file of one chunk up to this is written in one go, with others


class SmallFile:
    """A file of one chunk, or an empty one: written whole."""

    __slots__ = ("directory", "entry", "failed", "path")

    def __init__(self, directory: TargetDirectory, entry: Entry, path: bytes) -> None:
        self.path = path  # in the snapshot
        self.directory = directory
        self.entry = entry
        self.failed = False


class LongFile:
    """A file that is written chunk by chunk, by several threads."""

    __slots__ = ("directory", "entry", "failed", "fed", "file", "lock", "open_rows", "path")

    def __init__(self, directory: TargetDirectory, entry: Entry, path: bytes) -> None:
        self.path = path
        self.directory = directory
        self.entry = entry
        self.failed = False
        self.file: TargetFile | None = None
        self.lock = threading.Lock()
        self.open_rows = 0  # wanted and not written yet
        self.fed = False  # whether all rows are wanted


RestoredFile = SmallFile | LongFile


class FileRestorer:
    """Restore contents in windows of bounded size; `begin` and `flush` belong to one thread."""

    def __init__(
        self,
        repository: ObjectRepository,
        target: Target,
        result: RestoreResult,
        threads: int,
        tick: Ticker,
        totals: tuple[int | None, int | None],
        *,
        pretend: bool = False,
    ) -> None:
        self._reader = repository.reader
        self._chunk_id_of = repository.hasher.function(ObjectType.CHUNK)
        self._pretend = pretend
        self._index = repository.index
        self._target = target
        self._result = result
        self._workers = Workers(threads)
        self._tick = tick
        self._files_total, self._bytes_total = totals
        self._lock = threading.Lock()
        self._window = Window()
        self._empty: list[tuple[SmallFile, Buffer]] = []
        self._running: deque[Future[None]] = deque()

    def close(self) -> None:
        """Let what is running end."""
        self._workers.close()

    @property
    def is_full(self) -> bool:
        """Whether the window should be flushed."""
        return self._window.rows + len(self._empty) >= WINDOW_ROWS

    def begin(
        self,
        directory: TargetDirectory,
        entry: Entry,
        path: bytes,
        existing: ExistingFile | None = None,
        *,
        leftover: bytes | None = None,
        alone: bool = False,
    ) -> RestoredFile:
        """Want the content of a regular file; it is there after the next `flush`.

        What `existing`, the file in its place, and `leftover`, a temporary file of a killed
        restore, have of it is taken from there. `alone`: not in a batch with others.
        """
        if self._pretend:
            return self._count(directory, entry, path, existing)
        xattrs = bool(entry.extras and entry.extras.xattrs)
        if isinstance(entry.content, bytes) and entry.size <= _SMALL and not xattrs and not alone:
            return self._begin_small(SmallFile(directory, entry, path), entry, existing)
        long = LongFile(directory, entry, path)
        position = 0
        try:
            reuse = None
            if existing is not None or leftover is not None:
                chunk_id_of = self._chunk_id_of
                reuse = Reuse(self._target, directory, entry, existing, leftover, chunk_id_of)
                long.file = reuse.file
            for chunk_id, size in iter_content(self._reader.get, entry):
                if not chunk_id:
                    if reuse is not None:
                        reuse.hole(position, size)
                elif reuse is not None and reuse.take(position, size, chunk_id):
                    self._result.bytes_reused += size
                else:
                    with long.lock:
                        long.open_rows += 1
                    self._window.want(chunk_id, long, position, size)
                    if self._window.rows >= WINDOW_ROWS:  # a huge file takes several windows
                        self.wait()
                        self.flush()
                position += size
        except (Damaged, ObjectMissing, TargetError) as error:
            self._fail(long, error.message)
        with long.lock:
            long.fed = True
            done = long.open_rows == 0
        if done:
            self._finish_long(long)
        return long

    def _begin_small(
        self, small: SmallFile, entry: Entry, existing: ExistingFile | None
    ) -> SmallFile:
        if not entry.content:
            self._empty.append((small, b""))
            return small
        assert isinstance(entry.content, bytes)
        data = existing.read(0, entry.size) if existing is not None else None
        if data is not None and self._chunk_id_of(data) == entry.content:
            self._result.bytes_reused += entry.size
            self._write_small([(small, data)], reused=True)
        else:
            self._window.want(entry.content, small, 0, entry.size)
        return small

    def _count(
        self,
        directory: TargetDirectory,
        entry: Entry,
        path: bytes,
        existing: ExistingFile | None,
    ) -> RestoredFile:
        """Count what restoring a file would write."""
        file = SmallFile(directory, entry, path)
        try:
            fetched, reused = missing_size(existing, entry, self._reader.get, self._chunk_id_of)
        except (Damaged, ObjectMissing) as error:
            self._fail(file, error.message)
            return file
        self._result.files_restored += 1
        self._result.bytes_written += fetched
        self._result.bytes_reused += reused
        return file

    def is_there(self, existing: ExistingFile, entry: Entry) -> bool:
        """Return whether a file has the content of an entry; not if that cannot be known."""
        try:
            return has_content(existing, entry, self._reader.get, self._chunk_id_of)
        except (Damaged, ObjectMissing):
            return False  # whoever restores it meets the same and says so

    def verify(self, files: Iterable[tuple[TargetDirectory, Entry]]) -> None:
        """Read restored files back and name those whose content is wrong; waits for all."""
        running = [
            (directory, entry, self._workers.queue(self._verify, directory, entry))
            for directory, entry in files
        ]
        for directory, entry, future in running:
            message = future.result()
            self._result.files_verified += 1
            if message is not None:
                self.problem(directory.path_of(entry.name), message)

    def _verify(self, directory: TargetDirectory, entry: Entry) -> str | None:
        return verify_file(self._target, directory, entry, self._reader.get, self._chunk_id_of)

    def flush(self) -> None:
        """Start to fetch and write everything wanted so far; `wait` ends it."""
        window, self._window = self._window, Window()
        ranges, missing = window.plan(self._index, self._reader)
        if missing:  # the view may be behind the packs, or wrong: ask what looks at footers
            found = ((chunk_id, read_anywhere(self._reader, chunk_id)) for chunk_id in missing)
            self._deliver(found, window.wanted)
        self._reader.announce([part.places for part in ranges])
        empty, self._empty = self._empty, []
        if empty:
            self._write_small(empty)
        for part in ranges:
            self._running.append(self._workers.queue(self._fetch, part, window.wanted))

    def wait(self) -> None:
        """Wait for everything that was flushed."""
        while self._running:
            self._running.popleft().result()
            self._report()

    def _fetch(self, part: Range, wanted: dict[bytes, list[tuple[Any, int, int]]]) -> None:
        """Read one range on a worker and deliver its chunks."""
        self._deliver(read_range(self._reader, part), wanted)

    def _deliver(
        self,
        chunks: Iterable[tuple[bytes, Buffer | PackstoneError]],
        wanted: dict[bytes, list[tuple[Any, int, int]]],
    ) -> None:
        small: list[tuple[SmallFile, Buffer]] = []
        size = 0
        for chunk_id, data in chunks:
            for file, position, expected in wanted[chunk_id]:
                if isinstance(data, PackstoneError):
                    self._lost(file, data)
                elif len(data) != expected:
                    text = f"chunk {chunk_id.hex()[:12]}… has {len(data)} bytes"
                    self._lost(file, Damaged(f"{text}, expected {expected}"))
                elif type(file) is SmallFile:
                    small.append((file, data))
                    size += len(data)
                else:
                    self._write_long(file, position, data)
            if size >= 4 * MIB:
                self._write_small(small)
                small, size = [], 0
        if small:
            self._write_small(small)

    def _write_small(self, files: list[tuple[SmallFile, Buffer]], *, reused: bool = False) -> None:
        outcomes = self._target.write_small(
            [(file.directory, file.entry, memoryview(data)) for file, data in files]
        )
        written = size = kept = 0
        for (file, data), outcome in zip(files, outcomes, strict=True):
            if outcome == Outcome.WRITTEN:
                written += 1
                size += len(data)
            else:
                kept += outcome == Outcome.KEPT
                file.failed = True  # nothing may be linked to what is there
        with self._lock:
            self._result.files_restored += written
            if not reused:
                self._result.bytes_written += size
            self._result.files_skipped += kept

    def _write_long(self, long: LongFile, position: int, data: Buffer) -> None:
        with long.lock:
            file = self._file_of(long)
        if file is not None:
            file.write_at(position, data)
        with long.lock:
            long.open_rows -= 1
            done = long.fed and long.open_rows == 0
        with self._lock:
            self._result.bytes_written += len(data)
        if done:
            self._finish_long(long)

    def _file_of(self, long: LongFile) -> TargetFile | None:
        """Return the file to write to, created at the first call; None once it has failed."""
        if long.file is None and not long.failed:
            try:
                entry = long.entry
                long.file = self._target.create_file(long.directory, entry.name, entry.size)
            except TargetError as error:
                self._fail(long, error.message)
        return None if long.failed else long.file

    def _finish_long(self, long: LongFile) -> None:
        file = self._file_of(long)
        if file is not None:
            outcome = file.finish(long.entry)
            long.failed = outcome != Outcome.WRITTEN
            self.count(outcome)
        elif long.file is not None:
            long.file.abandon()

    def _lost(self, file: Any, error: PackstoneError) -> None:
        """Take note that a chunk of a file cannot be had."""
        self._fail(file, error.message)
        if type(file) is LongFile:
            with file.lock:
                file.open_rows -= 1
                done = file.fed and file.open_rows == 0
            if done:
                self._finish_long(file)

    def _fail(self, file: RestoredFile, message: str) -> None:
        if not file.failed:
            file.failed = True
            self.problem(file.path, message)

    def count(self, outcome: Outcome) -> None:
        """Count one entry; of those that failed the target keeps the problems."""
        with self._lock:
            if outcome == Outcome.WRITTEN:
                self._result.files_restored += 1
            elif outcome == Outcome.KEPT:
                self._result.files_skipped += 1

    def problem(self, path: bytes, message: str) -> None:
        """Name one entry that could not be restored."""
        with self._lock:
            self._result.errors.append(Problem(path, message))

    def _report(self) -> None:
        self._tick(
            self._result.files_restored,
            self._result.bytes_written,
            files_total=self._files_total,
            bytes_total=self._bytes_total,
        )
