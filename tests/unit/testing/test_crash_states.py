"""What a power cut leaves of a few writes, counted by hand."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

import pytest

from packstone.storage.local import LocalStorage, sync_directory
from packstone.testing import CrashState, CrashStorage, WriteList, crash_states

FOLDERS = ["tmp", "packs"]


@pytest.fixture
def storage(tmp_path: Path) -> CrashStorage:
    LocalStorage(str(tmp_path)).make_directories(FOLDERS)
    LocalStorage(str(tmp_path)).put("state", b"old")
    return CrashStorage(str(tmp_path))


def seen(states: Iterable[CrashState], name: str) -> set[bytes | None]:
    return {state.files.get(name) for state in states}


def test_what_was_there_stays(storage: CrashStorage) -> None:
    (state,) = storage.states()
    assert state.files == {"state": b"old"} and state.directories == {".", "tmp", "packs"}


def test_a_put_is_there_or_not(storage: CrashStorage) -> None:
    storage.put("packs/name", bytes(range(256)) * 8)
    assert seen(storage.states(), "packs/name") == {None, bytes(range(256)) * 8}
    storage.put("state", b"new")
    assert seen(storage.states(), "state") == {b"old", b"new"}


def after(states: Iterable[CrashState], text: str) -> list[CrashState]:
    return [state for state in states if any(mark.text == text for mark in state.marks)]


def test_what_was_acknowledged_is_there(storage: CrashStorage) -> None:
    storage.put("packs/name", b"data")
    storage.mark("acknowledged")
    storage.put_if_absent("packs/other", b"data")
    storage.mark("absent")
    storage.delete("packs/name")
    storage.mark("deleted")
    states = list(storage.states())
    acknowledged = after(states, "acknowledged")
    assert seen(acknowledged, "packs/name") == {b"data", None}  # None: it was deleted later
    assert seen([s for s in acknowledged if not after([s], "absent")], "packs/name") == {b"data"}
    assert seen(after(states, "absent"), "packs/other") == {b"data"}
    assert seen(after(states, "deleted"), "packs/name") == {None}


def test_without_fsync_of_the_file_any_part_is_left(storage: CrashStorage) -> None:
    storage.put("packs/name", bytes([1]) * 512 + bytes([2]) * 512 + bytes([3]) * 512)
    storage.mark("acknowledged")
    left = after(storage.states(deaf_to=["files"]), "acknowledged")
    found = seen(left, "packs/name")
    assert None not in found and b"" in found and len(found) > 2
    for data in found:
        assert data is not None and {*data[:512]} <= {0, 1} and {*data[512:1024]} <= {0, 2}


def test_without_fsync_of_the_directory_it_may_be_gone(storage: CrashStorage) -> None:
    storage.put("packs/name", b"data")
    storage.mark("acknowledged")
    left = after(storage.states(deaf_to=["directories"]), "acknowledged")
    assert seen(left, "packs/name") == {None, b"data"}


def test_a_directory_that_was_not_synced_takes_all_below_it_along(tmp_path: Path) -> None:
    storage = CrashStorage(str(tmp_path / "store"))
    storage.calls.makedirs(storage.full_path("packs/00"))
    fd = storage.calls.open(storage.full_path("packs/00/name"), os.O_WRONLY | os.O_CREAT)
    storage.calls.write(fd, b"data")
    storage.calls.fsync(fd)
    storage.calls.close(fd)
    for path in ("packs/00", "packs", ".", ".."):
        whole = seen(storage.states(), "packs/00/name") == {b"data"}
        assert not whole
        sync_directory(os.path.normpath(storage.full_path(path)), storage.calls)
    storage.mark("end")
    assert seen(after(storage.states(), "end"), "packs/00/name") == {b"data"}


def write(path: Path, parts: Collection[bytes], calls: WriteList) -> None:
    fd = calls.open(str(path), os.O_WRONLY | os.O_CREAT)
    for part in parts:
        calls.write(fd, part)
    calls.close(fd)


def test_all_subsets_of_what_is_pending(tmp_path: Path) -> None:
    """A name and three writes: without the name one state, with it each subset, torn or not."""
    calls = WriteList(str(tmp_path))
    write(tmp_path / "file", [b"a", b"b", b"c"], calls)
    states = list(crash_states(calls))
    texts = [state.files.get("file") for state in states]
    assert None in texts
    expected = {
        bytes(byte if mask >> at & 1 else 0 for at, byte in enumerate(b"abc"))[: mask.bit_length()]
        for mask in range(8)
    }
    assert expected <= set(texts)


def test_more_than_can_be_counted_is_sampled(tmp_path: Path) -> None:
    calls = WriteList(str(tmp_path))
    for number in range(30):
        write(tmp_path / str(number), [], calls)
    states = list(crash_states(calls, exhaustive=5, samples=50))
    sizes = {len(state.files) for state in states}
    assert 30 in sizes and 0 in sizes and 700 < len(states) < 3000
    assert states == list(crash_states(calls, exhaustive=5, samples=50)), "a seed decides"
    assert states != list(crash_states(calls, exhaustive=5, samples=50, seed=1))


def test_a_state_is_written_and_changed_into_the_next(
    storage: CrashStorage, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for number in range(4):
        storage.put(f"packs/{number}", bytes([number]) * 600)
        storage.delete(f"packs/{number - 1}")
    place = tmp_path_factory.mktemp("states") / "state"
    previous: CrashState | None = None
    count = 0
    for state in storage.states(deaf_to=["files", "directories"], samples=20):
        state.write_to(str(place), previous)
        found = {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}
        assert found == state.files
        previous = state
        count += 1
    assert count > 100
