"""Turn the bytes of files into stored chunks, on worker threads.

Knows buffers and chunks, not directories or snapshots. A long file is read, cut and hashed span
by span on the workers, each span by one of them while its bytes are in that processor's cache;
where a span's first chunk starts it learns from the span before. A stream is read and cut where
the caller is. What is in flight is bounded. Invariant: a `Content` gives its chunks in the file's
order, whoever made them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from packstone.chunking.chunker import Chunker
from packstone.codec.hashing import Hasher
from packstone.model import MIB, SMALL_OBJECT, Buffer, ObjectType
from packstone.operations.parent import OldVersion
from packstone.repository.bases import NONE, BaseFinder, Candidates, Wanted
from packstone.repository.contents import ContentWriter
from packstone.repository.packs import DATA
from packstone.repository.writer import ObjectWriter

T = TypeVar("T")

SPAN_SIZE = 4 * MIB
WINDOW = 32  # bytes on either side of a cut that its key depends on

Read = Callable[[memoryview], int]  # fill the view; fewer bytes only at the end of the run
ReadAt = Callable[[memoryview, int], int]  # the same, from an offset


class _Baton:
    """What a span hands to the next one: the bytes that belong to both."""

    __slots__ = ("_closed", "_lead", "_rest")

    def __init__(self) -> None:
        self._closed = threading.Lock()
        self._closed.acquire()
        self._rest: Buffer | None = None
        self._lead = 0

    def pass_on(self, rest: Buffer | None, lead: int) -> None:
        """Give the end of a span, of which `lead` bytes are in chunks; None ends the run."""
        self._rest, self._lead = rest, lead
        self._closed.release()

    def take(self) -> tuple[Buffer | None, int]:
        """Wait for the span before. It runs or is done: the workers keep the order."""
        self._closed.acquire()
        rest, self._rest = self._rest, None
        return rest, self._lead


class _Run:
    """Spans that are cut as one."""

    __slots__ = ("is_over", "old", "read")

    def __init__(self, read: ReadAt, old: OldVersion) -> None:
        self.read = read
        self.old = old
        self.is_over = False  # a span met the end of the file, or failed


class NewChunk(NamedTuple):
    """A chunk to store, the keys of its cuts, and the id of what stood at its place before."""

    id: bytes
    data: Buffer
    start_key: int
    end_key: int
    aligned: bytes | None


class Workers:
    """Threads for hashing and compressing, with a bound on what waits for them."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="packstone")
        self._slots = threading.BoundedSemaphore(threads + 2)
        self.threads = threads

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run `function` on a worker; waits while too much is in flight."""
        self._slots.acquire()

        def run() -> T:
            try:
                return function(*arguments)
            finally:
                self._slots.release()

        try:
            return self._executor.submit(run)
        except BaseException:
            self._slots.release()
            raise

    def queue(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run `function` on a worker, never waiting: for work that holds no bytes until it runs."""
        return self._executor.submit(function, *arguments)

    def close(self) -> None:
        """Let what is running end, drop what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)


class ChunkStore:
    """Cut, hash and store content through one writing session."""

    def __init__(
        self,
        writer: ObjectWriter,
        hasher: Hasher,
        chunker: Chunker,
        workers: Workers,
        finder: BaseFinder | None = None,
    ) -> None:
        """Without `finder` no chunk is stored as a delta."""
        self.chunker = chunker
        self._finder = finder
        self.writer = writer
        self.workers = workers
        self.chunk_id = hasher.function(ObjectType.CHUNK)
        self._tail = chunker.maximum + WINDOW
        self._buffers: deque[bytearray] = deque()
        self._lock = threading.Lock()
        self.chunks_total = 0

    def store(
        self,
        buffer: Buffer,
        begin: int,
        ends: list[int],
        low: int,
        high: int,
        old: OldVersion,
        position: int,
    ) -> list[tuple[bytes, int]]:
        """Hash the chunks of buffer[begin:ends[-1]], store new ones, return (id, size) each.

        `low` and `high` bound the run's bytes in `buffer`, for the keys of cuts; `old` is the
        file as it was, and `position` where in the file these chunks begin.
        """
        view = memoryview(buffer)
        chunk_id = self.chunk_id
        starts = [begin, *ends[:-1]]
        rows = [
            (chunk_id(view[start:end]), end - start)
            for start, end in zip(starts, ends, strict=True)
        ]
        unknown = [at for at, row in enumerate(rows) if not old.is_known(row[0])]
        if unknown:
            wanted = self.writer.reserve([rows[at][0] for at in unknown])
            new = [at for at, wants in zip(unknown, wanted, strict=True) if wants]
            if new:
                aligned = old.aligned(rows, position) if self._finder is not None else []
                found: list[NewChunk] = []
                for at in new:
                    start, end = starts[at], ends[at]
                    keys = self.chunker.keys(view, (start, end), low, high)
                    beside = aligned[at] if aligned else None
                    found.append(NewChunk(rows[at][0], view[start:end], keys[0], keys[1], beside))
                self._put_chunks(found)
        self.count(len(rows))
        return rows

    def _put_chunks(self, chunks: list[NewChunk]) -> None:
        """Store reserved chunks that stand in a file in this order."""
        bases: list[Candidates] = []
        if self._finder is not None:
            bases = self._finder.find(
                [
                    Wanted(
                        chunk.id,
                        len(chunk.data),
                        chunk.start_key,
                        chunk.end_key,
                        chunk.aligned,
                        number > 0 and chunk.start_key == chunks[number - 1].end_key,
                    )
                    for number, chunk in enumerate(chunks)
                ]
            )
        for at, chunk in enumerate(chunks):
            keys = (chunk.start_key, chunk.end_key)
            self.writer.put_chunk(chunk.id, chunk.data, keys, bases[at] if bases else NONE)

    def store_whole(
        self, ids: list[bytes], contents: list[bytes], aligned: list[bytes | None]
    ) -> None:
        """Store contents that are one chunk each, given their ids and those of their old ones."""
        small: list[tuple[bytes, ObjectType, Buffer]] = []
        wanted = self.writer.reserve(ids)
        for found, data, beside, new in zip(ids, contents, aligned, wanted, strict=True):
            if not new:
                continue
            if len(data) < SMALL_OBJECT:
                small.append((found, ObjectType.CHUNK, data))
            else:
                keys = self.chunker.keys(data, (0, len(data)), 0, len(data))
                self._put_chunks([NewChunk(found, data, keys[0], keys[1], beside)])
        if small:
            self.writer.put_small(DATA, small)
        self.count(len(ids))

    def count(self, chunks: int) -> None:
        """Count chunks that files were found to consist of."""
        with self._lock:
            self.chunks_total += chunks

    def store_run(
        self,
        content: ContentWriter,
        pending: deque[Future[list[tuple[bytes, int]]]],
        read: Read,
        old: OldVersion,
        position: int = 0,
    ) -> int:
        """Cut one run of data, at a position of its file; return its size in bytes.

        Its spans are handed to the workers.

        Spans that are done by then are added to `content`; the rest is left in `pending`,
        in order.
        """
        buffer = self._take()
        low = begin = end = WINDOW  # low: the run's first byte that is still in the buffer
        size = 0
        while True:
            with memoryview(buffer) as view:
                count = read(view[end : end + SPAN_SIZE])
            size += count
            end += count
            final = count < SPAN_SIZE
            # A cut near the end waits for the bytes behind it, which its key depends on.
            ends = self.chunker.cut(
                buffer, begin, end if final else max(begin, end - WINDOW), final
            )
            following = buffer
            last = ends[-1] if ends else begin
            if not final:
                following = self._take()
                start = max(low, last - WINDOW)
                kept = end - start
                following[WINDOW - (last - start) : WINDOW - (last - start) + kept] = buffer[
                    start:end
                ]
            if ends:
                pending.append(
                    self.workers.submit(
                        self._store_span, buffer, begin, ends, low, end, old, position
                    )
                )
                position += last - begin
            else:
                self._give_back(buffer)
            if final:
                break
            low, begin, end = WINDOW - (last - start), WINDOW, WINDOW - (last - start) + kept
            buffer = following
            drain(content, pending, wait=False)
        return size

    def _store_span(
        self,
        buffer: bytearray,
        begin: int,
        ends: list[int],
        low: int,
        high: int,
        old: OldVersion,
        position: int,
    ) -> list[tuple[bytes, int]]:
        try:
            return self.store(buffer, begin, ends, low, high, old, position)
        finally:
            self._give_back(buffer)

    def store_extent(
        self,
        content: ContentWriter,
        pending: deque[Future[list[tuple[bytes, int]]]],
        read: ReadAt,
        extent: tuple[int, int],
        old: OldVersion,
    ) -> Iterator[None]:
        """Let the workers read, cut and store a run of known (offset, size) in a file.

        As `store_run`, and faster; what is left in `pending` calls `read` until it is done.
        Yields after each span, for the caller to report.
        """
        run = _Run(read, old)
        offset, size = extent
        before = _Baton()
        before.pass_on(b"", 0)
        while size and not run.is_over:
            part = min(size, SPAN_SIZE)
            final = part == size
            after = _Baton()
            pending.append(
                self.workers.submit(self._store_part, run, offset, part, final, before, after)
            )
            offset += part
            size -= part
            before = after
            drain(content, pending, wait=False)
            yield

    def _store_part(
        self, run: _Run, offset: int, size: int, final: bool, before: _Baton, after: _Baton
    ) -> list[tuple[bytes, int]]:
        """Read a span, cut it when the span before is cut, hash and store its chunks."""
        try:
            buffer = self._take()
        except BaseException:
            run.is_over = True
            after.pass_on(None, 0)  # or the next span would wait for ever
            raise
        rest: Buffer | None = None
        lead = 0
        at = WINDOW + self._tail  # of the span's own bytes; what is left of the last one ends here
        try:
            try:
                with memoryview(buffer) as view:
                    end = at + run.read(view[at : at + size], offset)
                left, begin = before.take()
                if left is None:
                    return []
                final = final or end < at + size
                low = at - len(left)  # the run's first byte that is still in the buffer
                begin += low
                buffer[low:at] = left
                # A cut near the end waits for the bytes behind it, which its key depends on.
                ends = self.chunker.cut(
                    buffer, begin, end if final else max(begin, end - WINDOW), final
                )
                if not final:
                    last = ends[-1] if ends else begin
                    start = max(low, last - WINDOW)
                    rest, lead = buffer[start:end], last - start
            finally:
                run.is_over = run.is_over or rest is None
                after.pass_on(rest, lead)
            position = offset - (at - begin)
            return self.store(buffer, begin, ends, low, end, run.old, position) if ends else []
        finally:
            self._give_back(buffer)

    def _take(self) -> bytearray:
        with self._lock:
            if self._buffers:
                return self._buffers.pop()
        return bytearray(WINDOW + self._tail + WINDOW + SPAN_SIZE)

    def _give_back(self, buffer: bytearray) -> None:
        with self._lock:
            self._buffers.append(buffer)


def drain(
    content: ContentWriter, pending: deque[Future[list[tuple[bytes, int]]]], *, wait: bool
) -> None:
    """Move the chunks of finished spans into `content`, in order."""
    while pending and (wait or pending[0].done()):
        for chunk_id, size in pending.popleft().result():
            content.add(chunk_id, size)
