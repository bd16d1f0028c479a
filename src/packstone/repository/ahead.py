"""Fetch pieces of packs before they are asked for: many in one request, several requests at once.

Knows names and numbers of pieces, not what is in them; what was fetched goes to the cache, and
whoever reads takes it from there. Invariants: a reader waits only for a request that is under
way; what could not be fetched is the reader's own to ask for, and to fail on.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from packstone.errors import StorageError

STREAMS = 4  # requests at once
_GAP = 1  # pieces that nobody wants and that cost less than one request more
_LONGEST = 32  # pieces of one request

Piece = tuple[str, int]  # name of the stored object, number of the piece
# (name, first piece, last piece, what takes each piece)
Fetch = Callable[[str, int, int, Callable[[int, bytes], None]], None]


@dataclass(slots=True, eq=False)
class _Run:
    """One request."""

    name: str
    first: int
    last: int
    wanted: set[int] = field(default_factory=set)
    is_started: bool = False


class Ahead:
    """What was announced; safe to use from several threads."""

    def __init__(
        self, fetch: Fetch, keep: Callable[[str, int, bytes], None], most_unread: int
    ) -> None:
        """At most about `most_unread` pieces lie in the cache unread, beside those on the way."""
        self._fetch = fetch
        self._keep = keep
        self._most_unread = most_unread
        self._change = threading.Condition()
        self._coming: dict[Piece, _Run] = {}
        self._queue: deque[_Run] = deque()
        self._unread: set[Piece] = set()
        self._threads: list[threading.Thread] = []
        self._working = 0
        self._is_closed = False

    def announce(self, pieces: Iterable[Piece]) -> None:
        """Fetch pieces that will be read, about in this order."""
        by_name: dict[str, set[int]] = {}
        with self._change:
            for name, number in pieces:
                if (name, number) not in self._coming:
                    by_name.setdefault(name, set()).add(number)
            for name, numbers in by_name.items():
                for run in _runs(name, sorted(numbers)):
                    self._queue.append(run)
                    self._coming.update(((name, number), run) for number in run.wanted)
            while self._working < min(STREAMS, len(self._queue)):
                self._working += 1
                self._threads = [each for each in self._threads if each.is_alive()]
                thread = threading.Thread(target=self._work, name="ahead", daemon=True)
                self._threads.append(thread)
                thread.start()

    def wait(self, name: str, number: int) -> None:
        """Return when a piece is in the cache, or will not come from here."""
        piece = (name, number)
        with self._change:
            run = self._coming.get(piece)
            if run is not None and not run.is_started:
                # Those who fetch have enough to do, or wait for readers: no waiting for them.
                self._queue.remove(run)
                run.is_started = True
            else:
                while piece in self._coming:
                    self._change.wait()
                run = None
        if run is not None:
            self._carry_out(run)
        with self._change:
            self._unread.discard(piece)
            self._change.notify_all()

    def close(self) -> None:
        """Fetch nothing more; waits for requests under way to notice."""
        with self._change:
            self._is_closed = True
            self._queue.clear()
            self._coming.clear()
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._change:
                while self._queue and len(self._unread) >= self._most_unread:
                    self._change.wait()
                if not self._queue:
                    self._working -= 1
                    return
                run = self._queue.popleft()
                run.is_started = True
            self._carry_out(run)

    def _carry_out(self, run: _Run) -> None:
        def take(number: int, data: bytes) -> None:
            if self._is_closed:
                raise _Closed(f"{run.name} is not wanted any more")
            if number in run.wanted:
                self._keep(run.name, number, data)
                with self._change:
                    self._unread.add((run.name, number))
                    self._coming.pop((run.name, number), None)
                    self._change.notify_all()

        try:
            # What fails is asked for again, and told, by whoever needs it.
            with contextlib.suppress(StorageError):
                self._fetch(run.name, run.first, run.last, take)
        finally:
            with self._change:
                for number in run.wanted:
                    self._coming.pop((run.name, number), None)
                self._change.notify_all()


class _Closed(StorageError):
    """Nobody wants the rest; a StorageError, so that the request is not tried again."""


def _runs(name: str, numbers: list[int]) -> Iterable[_Run]:
    """Group pieces of one object into requests."""
    run: _Run | None = None
    for number in numbers:
        if run is None or number > run.last + 1 + _GAP or number >= run.first + _LONGEST:
            if run is not None:
                yield run
            run = _Run(name, number, number)
        run.last = number
        run.wanted.add(number)
    if run is not None:
        yield run
