"""Pieces that are fetched before they are asked for: no reader waits for what never comes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from packstone.errors import StorageUnavailable
from packstone.repository.ahead import Ahead
from packstone.storage.requests import Requests, Retrying

PIECES = 100


class Store:
    """Fetches and keeps pieces; `before` is called at the start of each request."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int, int]] = []
        self.kept: dict[tuple[str, int], bytes] = {}
        self.before: Callable[[str, int], None] = lambda _name, _first: None

    def fetch(self, name: str, first: int, last: int, take: Callable[[int, bytes], None]) -> None:
        self.requests.append((name, first, last))
        self.before(name, first)
        for number in range(first, last + 1):
            take(number, f"{name} {number}".encode())

    def keep(self, name: str, number: int, data: bytes) -> None:
        self.kept[name, number] = data


@pytest.fixture
def store() -> Store:
    return Store()


def test_neighbours_come_in_one_request(store: Store) -> None:
    ahead = Ahead(store.fetch, store.keep, PIECES)
    ahead.announce([("a", 0), ("b", 7), ("a", 1), ("a", 3), ("a", 9)])
    for piece in [("a", 0), ("a", 1), ("a", 3), ("a", 9), ("b", 7)]:
        ahead.wait(*piece)
        assert store.kept[piece] == f"{piece[0]} {piece[1]}".encode()
    assert sorted(store.requests) == [("a", 0, 3), ("a", 9, 9), ("b", 7, 7)]
    assert ("a", 2) not in store.kept  # nobody wants it
    ahead.close()


def test_no_more_than_may_lie_unread(store: Store) -> None:
    """And whoever wants what was not begun fetches it, so that nobody waits for ever."""
    ahead = Ahead(store.fetch, store.keep, 2)
    pieces = [(f"pack {number}", 0) for number in range(50)]
    ahead.announce(pieces)
    for piece in reversed(pieces):
        ahead.wait(*piece)
        assert piece in store.kept
        assert len(store.requests) <= 50
    ahead.close()


def test_what_fails_is_the_readers_own(store: Store) -> None:
    def fail(_name: str, _first: int) -> None:
        raise StorageUnavailable("no")

    store.before = fail
    ahead = Ahead(store.fetch, store.keep, PIECES)
    ahead.announce([("a", number) for number in range(40)])
    for number in range(40):
        ahead.wait("a", number)  # returns, and the reader finds nothing
    assert store.kept == {}
    ahead.close()


def test_closed_while_fetching(store: Store) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold(_name: str, _first: int) -> None:
        begun.set()
        go_on.wait()

    store.before = hold
    ahead = Ahead(store.fetch, store.keep, PIECES)
    ahead.announce([("a", 0), ("b", 0)])
    begun.wait()
    waiting = threading.Thread(target=ahead.wait, args=("a", 0))
    waiting.start()
    closing = threading.Thread(target=ahead.close)
    closing.start()
    waiting.join(10)
    assert not waiting.is_alive()
    go_on.set()
    closing.join(10)
    assert not closing.is_alive()


def test_what_nobody_wants_any_more_is_not_asked_for_again(store: Store) -> None:
    begun, go_on = threading.Event(), threading.Event()
    pauses: list[float] = []
    retrying = Retrying(Requests(), "s3://there", sleep=pauses.append)

    def fetch(name: str, first: int, last: int, take: Callable[[int, bytes], None]) -> None:
        def request(_attempt: int) -> None:
            begun.set()
            go_on.wait()
            store.fetch(name, first, last, take)

        retrying.run("read", name, request)

    ahead = Ahead(fetch, store.keep, PIECES)
    ahead.announce([("a", 0)])
    begun.wait()
    closing = threading.Thread(target=ahead.close)
    closing.start()
    with ahead._change:
        ahead._change.wait_for(lambda: ahead._is_closed, 10)
    go_on.set()
    closing.join(10)
    assert not closing.is_alive()
    assert (store.requests, pauses) == ([("a", 0, 0)], [])


def test_many_readers_at_once(store: Store) -> None:
    """Each piece is fetched once, however many wait for it, in whatever order."""
    ahead = Ahead(store.fetch, store.keep, 3)
    pieces = [(f"{number % 7}", number) for number in range(200)]
    ahead.announce(pieces)

    def read(step: int) -> None:
        for at in range(200):
            ahead.wait(*pieces[at * step % 200])

    readers = [threading.Thread(target=read, args=(step,)) for step in (1, 3, 7, 9, 11)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(30)
        assert not reader.is_alive()
    assert store.kept.keys() == set(pieces)
    ranges = [(name, n) for name, first, last in store.requests for n in range(first, last + 1)]
    assert len(ranges) == len(set(ranges))
    ahead.close()
