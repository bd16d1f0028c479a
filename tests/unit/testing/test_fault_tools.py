"""The fault tools keep the contract of storages while nothing is to fail, and fail as told."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.storage_suite import MemoryStorage, StorageSuite, with_spool

from packstone.errors import StorageFull, StorageUnavailable
from packstone.storage.base import Storage
from packstone.storage.local import LocalStorage
from packstone.testing import (
    Clock,
    CrashStorage,
    FaultyCalls,
    FaultyStorage,
    Interleaving,
    Plan,
    RecordingStorage,
    ShortCalls,
    UnsyncedCalls,
    full,
    interrupt,
    system_error,
    unavailable,
)

FOLDERS = ["tmp", "snapshots", "packs", "packs/00"]


class Quick(LocalStorage):
    """With the quick way that the suite uses for thousands of names."""

    def put_unsynced(self, name: str, data: bytes) -> None:
        Path(self.full_path(name)).write_bytes(data)


def local(path: Path, *calls: object) -> Quick:
    storage = Quick(str(path), *calls)  # type: ignore[arg-type]
    storage.make_directories(FOLDERS)
    return storage


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory: what is tested here needs no disk."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    yield path
    shutil.rmtree(path)


class TestFaulty(StorageSuite):
    @pytest.fixture
    def storage(self, place: Path) -> Storage:
        return FaultyStorage(local(place), Plan())


class TestWholePuts(StorageSuite):
    @pytest.fixture
    def storage(self) -> Storage:
        return RecordingStorage(MemoryStorage(), whole_puts=True)


class TestFaultyCalls(StorageSuite):
    @pytest.fixture
    def storage(self, place: Path) -> Storage:
        return local(place, ShortCalls(calls=FaultyCalls(str(place), Plan())))


class QuickCrash(CrashStorage, Quick):
    """Both."""


class TestCrash(StorageSuite):
    @pytest.fixture
    def storage(self, place: Path) -> Storage:
        storage = QuickCrash(str(place))
        storage.make_directories(FOLDERS)
        return storage


# -- storages that fail ---------------------------------------------------------------------


def test_every_step_of_a_put_can_fail(tmp_path: Path) -> None:
    plan = Plan()
    FaultyStorage(local(tmp_path), plan).put("snapshots/name", b"data")
    assert plan.steps == [
        "create spool", "done create spool", "write spool", "done write spool",
        "commit snapshots", "done commit snapshots",
    ]  # fmt: skip
    for at, step in enumerate(plan.steps):
        storage = FaultyStorage(local(tmp_path / str(at)), Plan(unavailable, at))
        with pytest.raises(StorageUnavailable, match=step):
            storage.put("snapshots/name", b"data")
        assert os.listdir(storage.full_path("tmp")) == []
        assert len(list(storage.list("snapshots"))) == (step == "done commit snapshots")


def test_once_or_from_then_on() -> None:
    for onwards in (False, True):
        storage = FaultyStorage(
            MemoryStorage(), Plan(full, 1, onwards=onwards, verbs={"put"}), whole_puts=True
        )
        storage.put("a", b"")
        with pytest.raises(StorageFull):
            storage.put("b", b"")
        if onwards:
            with pytest.raises(StorageFull):
                storage.put("c", b"")
        else:
            storage.put("c", b"")
        assert storage.get("a", 9) == b""


def test_what_was_done_is_written_down(tmp_path: Path) -> None:
    storage = RecordingStorage(local(tmp_path))
    storage.put("state", b"data")
    with_spool(storage, "packs/00/name", [b"data"])
    assert list(storage.list("packs")) == [("packs/00/name", 4)]
    with pytest.raises(Exception, match="nowhere"):
        storage.get("nowhere", 9)
    storage.delete("state")
    assert [each for each in storage.operations if each.name != "spool"] == [
        ("commit", "state"), ("commit", "packs/00/name"), ("list", "packs"), ("delete", "state"),
    ]  # fmt: skip


def test_every_call_of_a_put_can_fail(tmp_path: Path) -> None:
    """Whatever call fails, there is an error of storage, no name and nothing left over."""
    plan = Plan()
    local(tmp_path, FaultyCalls(str(tmp_path), plan))
    before = len(plan.steps)
    local(tmp_path / "x", FaultyCalls(str(tmp_path / "x"), plan)).put("state", b"data")
    steps = plan.steps[2 * before :]
    assert [step for step in steps if not step.startswith("done")] == [
        "create tmp", "write tmp", "fsync tmp", "close tmp", "rename state", "open .", "fsync .",
        "close .",
    ]  # fmt: skip
    for at, step in enumerate(steps):
        place = tmp_path / str(at)
        local(place)
        storage = LocalStorage(
            str(place), FaultyCalls(str(place), Plan(system_error(errno.EIO), at))
        )
        with pytest.raises(StorageUnavailable):
            storage.put("state", b"data")
        assert os.listdir(place / "tmp") == [], step
        if at < steps.index("done rename state"):
            assert not (place / "state").exists(), step


def test_ctrl_c_in_a_call_is_cleaned_up(tmp_path: Path) -> None:
    for at in range(8):
        place = tmp_path / str(at)
        local(place)
        storage = LocalStorage(str(place), FaultyCalls(str(place), Plan(interrupt, at)))
        with pytest.raises(KeyboardInterrupt):
            storage.put("state", b"data")
        assert os.listdir(place / "tmp") == []


def test_half_a_call(tmp_path: Path) -> None:
    calls = ShortCalls()
    local(tmp_path, calls).put("state", bytes(1000))
    assert calls.count > 9, "each write was cut in half again and again"
    assert (tmp_path / "state").read_bytes() == bytes(1000)


def test_fsyncs_can_be_left_out(tmp_path: Path) -> None:
    asked: list[str] = []

    class Told(FaultyCalls):
        def fsync(self, fd: int, /) -> None:
            asked.append(self._paths[fd])
            super().fsync(fd)

    for files, directories, expected in (
        (False, False, ["tmp", "."]),
        (True, False, ["."]),
        (False, True, ["tmp"]),
    ):
        told = Told(str(tmp_path), Plan())
        storage = Quick(
            str(tmp_path), UnsyncedCalls(files=files, directories=directories, calls=told)
        )
        local(tmp_path)
        storage.put("state", b"data")
        assert asked == expected
        asked.clear()


# -- the clock ------------------------------------------------------------------------------


def test_a_clock_goes_as_it_is_told() -> None:
    clock = Clock(1_000)
    assert clock() == clock() == 1_000
    clock.advance(2.5)
    assert clock() == 2_500_001_000
    clock.jump_back(3)
    assert clock() == -499_999_000
    clock.set(7)
    assert clock() == 7
    ticking = Clock(0, tick_ns=1)
    assert [ticking() for _ in range(3)] == [0, 1, 2]


# -- actors ---------------------------------------------------------------------------------


def interleave(seed: int) -> list[str]:
    shared = MemoryStorage()
    turns = Interleaving(seed)

    def act() -> None:
        storage = turns.storage(shared)
        for number in range(5):
            storage.put_if_absent("snapshots/x", b"%d" % number)
            storage.get("snapshots/x", 9)

    results = turns.run({"a": act, "b": act})
    assert results == {"a": None, "b": None} and turns.stalls == 0
    return turns.order


def test_a_seed_decides_the_order() -> None:
    orders = {tuple(interleave(seed)) for seed in range(20)}
    assert len(orders) > 15
    assert all(sorted(order) == ["a"] * 10 + ["b"] * 10 for order in orders)
    assert [interleave(seed) for seed in range(5)] == [interleave(seed) for seed in range(5)]


def test_an_actor_that_waits_for_another_does_not_stop_all() -> None:
    shared, turns, done = MemoryStorage(), Interleaving(1), threading.Event()

    def first() -> None:
        turns.storage(shared).put("a", b"")
        assert done.wait(20)

    def second() -> None:
        for _ in range(3):
            turns.storage(shared).put("b", b"")
        done.set()

    assert turns.run({"first": first, "second": second}) == {"first": None, "second": None}


def test_what_actors_raise_is_returned() -> None:
    def fail() -> None:
        raise StorageFull("no")

    turns = Interleaving(0)
    results = turns.run({"a": fail, "b": lambda: turns.storage(MemoryStorage()).put("a", b"")})
    assert isinstance(results["a"], StorageFull) and results["b"] is None


def test_orders_are_spread() -> None:
    """Each actor is first about as often as the other."""
    first = sum(interleave(seed)[0] == "a" for seed in range(200))
    assert 60 < first < 140
