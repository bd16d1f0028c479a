"""Several actors on one storage, each operation of theirs in an order that a seed decides."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import TypeVar

from packstone.storage.base import Storage
from packstone.testing.observed import ObservedStorage

T = TypeVar("T")
_STALLED = 0.5  # seconds after which whoever runs must be waiting for another actor


class Interleaving:
    """Let actors take turns, one operation of a storage at a time.

    Between operations only one of them runs, and a seed decides which: the same seed gives the
    same order, as long as each actor uses one thread and none waits for another but here.
    `order` is what was done, an actor's name for each operation; `stalls` counts turns that were
    given because the one who ran did not come back.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._condition = threading.Condition()
        self._waiting: dict[int, str] = {}  # ticket → actor
        self._tickets = 0
        self._running = ""
        self._expected: set[str] = set()  # who has not come to the first operation yet
        self._granted = -1
        self._local = threading.local()
        self.order: list[str] = []
        self.stalls = 0

    def storage(self, inner: Storage, actor: str = "") -> ObservedStorage:
        """Return a storage of one actor's, by default of the one that calls this."""
        name = actor or self._local.actor
        return ObservedStorage(inner, _Turns(self, name))

    def run(self, actors: Mapping[str, Callable[[], T]]) -> dict[str, T | BaseException]:
        """Run all actors to their ends; return what each returned or raised."""
        results: dict[str, T | BaseException] = {}
        self._expected = set(actors)

        def act(name: str, function: Callable[[], T]) -> None:
            self._local.actor = name
            try:
                results[name] = function()
            except BaseException as error:
                results[name] = error
            finally:
                self._leave(name)

        threads = [threading.Thread(target=act, args=each, daemon=True) for each in actors.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def turn(self, actor: str) -> None:
        """Wait until it is this actor's turn."""
        with self._condition:
            ticket = self._tickets
            self._tickets += 1
            self._waiting[ticket] = actor
            self._expected.discard(actor)
            if self._running == actor:
                self._running = ""
            self._choose()
            while self._granted != ticket:
                if not self._condition.wait(_STALLED) and self._granted == -1:
                    self.stalls += 1
                    self._running = ""
                    self._expected.clear()
                    self._choose()
            self._granted = -1
            self.order.append(actor)

    def _choose(self) -> None:
        if self._running or self._expected or self._granted != -1 or not self._waiting:
            return
        # By name and not by arrival: who came first is the operating system's chance.
        actors = sorted(set(self._waiting.values()))
        actor = self._random.choice(actors)
        ticket = min(each for each, name in self._waiting.items() if name == actor)
        del self._waiting[ticket]
        self._running = actor
        self._granted = ticket
        self._condition.notify_all()

    def _leave(self, actor: str) -> None:
        with self._condition:
            self._expected.discard(actor)
            if self._running == actor:
                self._running = ""
            self._choose()


class _Turns:
    """Waits for a turn before each operation."""

    def __init__(self, interleaving: Interleaving, actor: str) -> None:
        self._interleaving = interleaving
        self._actor = actor

    @contextlib.contextmanager
    def around(self, verb: str, name: str) -> Iterator[None]:
        self._interleaving.turn(self._actor)
        yield
