"""Several processes use one index: what one adds the others see, and the map grows under them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from unit.repository.making import OURS, found_by, make_pack, object_id, where

from packstone.codec.encryption import Sealer
from packstone.repository import view
from packstone.repository.index import Index
from packstone.storage.local import LocalStorage


@pytest.fixture
def open_index(tmp_path: Path) -> Any:
    opened: list[Index] = []

    def open_it(owner: Sealer = OURS, name: str = "index") -> Index:
        index = Index(str(tmp_path / name), owner)
        opened.append(index)
        return index

    yield open_it
    for index in opened:
        index.close()


OTHER_PROCESS = """
import sys
sys.path[:0] = {paths!r}
from packstone.codec.encryption import Sealer
from packstone.repository import view
view._FIRST_MAP = 64 * 1024
from packstone.repository.index import Index
from packstone.storage.local import LocalStorage
index = Index({directory!r}, Sealer({owner!r}))
print(index.refresh(LocalStorage({store!r})), flush=True)
if {hold}:
    sys.stdin.read()
index.close()
"""


def other_process(directory: Path, store: Path, hold: bool = False) -> subprocess.Popen[str]:
    code = OTHER_PROCESS.format(
        paths=sys.path,
        directory=str(directory),
        owner=OURS.repository_id,
        store=str(store),
        hold=hold,
    )
    words = [sys.executable, "-c", code]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def local(tmp_path: Path) -> Any:
    """A storage whose packs other processes see."""
    storage = LocalStorage(str(tmp_path / "store"))
    storage.make_directories(["tmp", "packs", *(f"packs/{first:02x}" for first in range(256))])
    return storage


def test_another_process_grows_the_map(
    local: Any, tmp_path: Path, open_index: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_FIRST_MAP", 64 * 1024)
    index = open_index()
    index.add(make_pack(local, [[1, 2, 3]], 0))
    index.flush()
    expected = [make_pack(local, [list(range(n * 900, n * 900 + 900))], n) for n in range(1, 5)]
    process = other_process(tmp_path / "index", tmp_path / "store")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and out == "[]\n"
    # reading, before anything of ours was written
    assert index.find(object_id(2))[0].size == 3
    assert index.refresh(local) == []
    ids = [object_id(number) for number in (1, 900, 4499)]
    assert index.present(ids) == [True] * 3
    assert set(index.packs.values()) >= {pack.id for pack in expected}
    # and writing on, in the larger map
    index.add(make_pack(local, [list(range(9000, 9900))], 9))
    index.flush()
    assert index.present([object_id(9000)]) == [True]
    assert len(set(index.packs.values())) == len(index.packs) == 6


def test_two_readers_meet_a_map_that_another_process_has_grown(
    local: Any, tmp_path: Path, open_index: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_FIRST_MAP", 64 * 1024)
    index = open_index()
    index.add(make_pack(local, [[1]], 0))
    index.flush()
    make_pack(local, [list(range(2, 4000))], 1)
    process = other_process(tmp_path / "index", tmp_path / "store")
    process.communicate(timeout=60)
    both = threading.Barrier(2)
    resize = index._view.resize

    def meet(size: int) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(1)  # both have begun to read, and both have met the larger map
        resize(size)

    monkeypatch.setattr(index._view, "resize", meet)
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(index.present, [object_id(1), object_id(3999)]) for _ in range(2)]
        _, late = wait(readers, timeout=2)
        while not wait(readers, timeout=0.1).done:  # let them go, or the test would hang as they do
            with index._view.gate:
                index._view.readers = 0
                index._view.gate.notify_all()
        assert not late
        assert [reader.result(10) for reader in readers] == [[True, True]] * 2


def test_two_processes_take_up_the_same_packs(
    local: Any, tmp_path: Path, open_index: Callable
) -> None:
    """Whoever is second finds the work done; no place is lost or listed twice."""
    index = open_index()
    packs = [make_pack(local, [[n, n + 1], [n + 2]], n) for n in range(20)]
    first = other_process(tmp_path / "index", tmp_path / "store")
    index.refresh(local)
    out, _ = first.communicate(timeout=60)
    assert first.returncode == 0 and out == "[]\n"
    index.refresh(local)
    assert sorted(index.packs.values()) == sorted(pack.id for pack in packs)
    for number in range(22):
        expected = {place for pack in packs for each, place in where(pack)
                    if each == object_id(number)}  # fmt: skip
        assert found_by(index, object_id(number)) == expected


def test_a_killed_reader_is_no_obstacle(local: Any, tmp_path: Path, open_index: Callable) -> None:
    make_pack(local, [[1]], 1)
    process = other_process(tmp_path / "index", tmp_path / "store", hold=True)
    assert process.stdout is not None and process.stdout.readline() == "[]\n"
    process.kill()
    process.wait(10)
    process.stdout.close()
    process.stdin.close()  # type: ignore[union-attr]
    index = open_index()
    make_pack(local, [[2]], 2)
    assert index.refresh(local) == []
    assert index.present([object_id(1), object_id(2)]) == [True, True]
