"""Memory that is given back is ours to give: a map that moved is left alone, values stay."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest

from packstone.repository import view
from packstone.repository.memory import find_mapping, trim_heap
from packstone.repository.view import View, open_view

NAMES = (b"one",)
ROWS = 20_000

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc")


def mapped(path: Path) -> int:
    """Return how many KiB of a file are mapped into this process right now."""
    found = re.search(
        rf"{re.escape(str(path))}\n(?:\w+:.*\n)*?Rss: +(\d+)", Path("/proc/self/smaps").read_text()
    )
    assert found is not None
    return int(found[1])


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(view, "_LARGE", 0)
    rng = Random("rows")
    made = open_view(str(tmp_path), NAMES)

    def change(transaction: Any) -> None:
        for number in range(ROWS):
            row = rng.randbytes(60)
            transaction.put(number.to_bytes(4, "big"), row, db=made.databases[b"one"])

    made.write(change)
    yield made
    made.close()


def read_all(made: View) -> int:
    with made.reading(lambda transaction: None) as transaction:
        return sum(len(value) for _key, value in transaction.cursor(db=made.databases[b"one"]))


def test_pages_of_look_ups_are_unmapped_and_come_back(opened: View) -> None:
    path = Path(opened.directory, "data.mdb")
    assert read_all(opened) == 60 * ROWS
    assert mapped(path) > 1000
    opened.looked_up(2000)
    assert mapped(path) < 100
    assert read_all(opened) == 60 * ROWS


def test_a_map_that_was_moved_is_looked_for_again(opened: View) -> None:
    path = Path(opened.directory, "data.mdb")
    opened.looked_up(2000)
    before = find_mapping(str(path))
    for doubling in range(1, 4):
        opened.resize(view._FIRST_MAP << doubling)
        assert read_all(opened) == 60 * ROWS
        opened.looked_up(2000)
        assert mapped(path) < 100
    assert find_mapping(str(path)) != before


def test_pages_are_unmapped_while_the_map_moves(opened: View) -> None:
    """Of another thread's memory that took the place of the map nothing may be emptied."""
    stop = threading.Event()
    kept: list[bytearray] = []

    def release() -> None:
        while not stop.is_set():
            opened.looked_up(2000)

    threads = [threading.Thread(target=release) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(15):
            opened.resize(view._FIRST_MAP + (turn % 7 + 1) * (16 << 20))
            # Large enough to be mapped, perhaps where the index was a moment ago.
            kept.append(bytearray(b"\x5a") * (view._FIRST_MAP // 16))
            kept[:-4] = []
            assert read_all(opened) == 60 * ROWS
            assert all(block.count(b"\0") == 0 for block in kept)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_file_whose_path_ends_alike_is_another_one(tmp_path: Path) -> None:
    """What is emptied must be ours: the other map may be gone the next moment."""
    made = open_view(str(tmp_path / "copy" / str(tmp_path).lstrip("/")), NAMES)
    try:
        assert find_mapping(str(tmp_path / "data.mdb")) is None
        assert find_mapping(str(Path(made.directory, "data.mdb"))) is not None
    finally:
        made.close()


def test_trimming_the_heap_leaves_what_is_in_use() -> None:
    kept = [bytes([number % 251]) * 10_000 for number in range(1000)]
    del kept[::2]
    trim_heap()
    assert all(block == block[:1] * 10_000 for block in kept)
