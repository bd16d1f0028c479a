"""Readers of one view do not block each other for ever, nor those that make it larger."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from packstone.errors import StorageUnavailable
from packstone.repository import view
from packstone.repository.view import View, open_view

NAMES = (b"one",)
GROW = """
import sys
sys.path[:0] = {paths!r}
from packstone.repository import view
view._FIRST_MAP = 64 * 1024
opened = view.open_view({directory!r}, (b"one",))
opened.write(lambda t: t.put(b"a", bytes(1_000_000), db=opened.databases[b"one"]))
opened.close()
"""


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[View]:
    """A view with a small map; it stays open if a thread is stuck in it."""
    monkeypatch.setattr(view, "_FIRST_MAP", 64 * 1024)
    opened = open_view(str(tmp_path), NAMES)
    yield opened
    if opened.readers == 0:
        opened.close()


def ends(*functions: Callable[[], object]) -> bool:
    """Run functions on threads and return whether all end within some seconds."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3)
    return not any(thread.is_alive() for thread in threads)


def test_two_readers_of_a_map_that_was_grown(
    opened: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command with several threads does not hang when another process adds to the index."""
    code = GROW.format(paths=sys.path, directory=str(tmp_path))
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    both, met = threading.Barrier(2), threading.local()
    begin = opened.begin
    sizes: list[int] = []

    def begin_together() -> Any:
        if not hasattr(met, "before"):
            met.before = True
            both.wait(3)  # both are readers now, of the old map
        return begin()

    def read() -> None:
        with opened.reading(lambda transaction: None) as transaction:
            sizes.append(len(transaction.get(b"a", db=opened.databases[b"one"])))

    monkeypatch.setattr(opened, "begin", begin_together)
    assert ends(read, read)
    assert sizes == [1_000_000, 1_000_000]


def test_growing_after_a_failed_look(opened: View) -> None:
    """An error of the index is reported, and later writes do not wait for the reader it ended."""

    def fail(transaction: Any) -> None:
        raise lmdb.CorruptedError("wrong page")

    with pytest.raises(StorageUnavailable), opened.reading(fail):
        pass

    def grow(transaction: Any) -> None:
        transaction.put(b"a", bytes(1_000_000), db=opened.databases[b"one"])

    assert ends(lambda: opened.write(grow))


def test_a_reader_that_was_interrupted(opened: View) -> None:
    """Whatever ends a look-up at its very beginning, it is not counted as a reader any more."""

    def interrupt(transaction: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), opened.reading(interrupt):
        pass
    assert opened.readers == 0
