"""Forgetting deletes snapshot objects alone, oldest first, and can be cut off anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import faults
import msgspec
import pytest
from compare_trees import remove_tree
from faults import Plan, faulty, in_child

import packstone
from packstone.codec.envelope import Kind, seal_envelope
from packstone.errors import StorageError, UsageError
from packstone.repository.layout import Feature
from packstone.repository.locks import Lock
from packstone.storage.local import LocalStorage

DAY = 24 * 3600 * 10**9
LATER = 1_795_000_000 * 10**9
KEEP = packstone.Retention(last=2)


@pytest.fixture
def place(big_place: Path, source: Path) -> Path:
    """A repository with six snapshots, a day apart, each of other content."""
    path = big_place / "repository"
    with packstone.init(path) as repository:
        for number in range(6):
            (source / "file").write_text(f"night {number}\n" * 1000)
            repository.snapshot([source], time_ns=LATER - (6 - number) * DAY, host="h")
    return path


def ids(place: Path) -> list[str]:
    with packstone.open(place) as repository:
        return [row.id for row in repository.snapshots()]


def files(place: Path) -> dict[str, bytes]:
    found = [path for path in place.rglob("*") if path.is_file() and path.parent.name != "index"]
    return {str(path.relative_to(place)): path.read_bytes() for path in found}


def forget(place: Path, **options: object) -> packstone.ForgetResult:
    with packstone.open(place) as repository:
        return repository.forget(**{"keep": KEEP, **options})  # type: ignore[arg-type]


def test_only_snapshot_objects_go(place: Path) -> None:
    before, listed = files(place), ids(place)
    result = forget(place)
    assert [row.id for row in result.forgotten] == listed[:4]
    after = files(place)
    assert set(before) - set(after) == {f"snapshots/{name}" for name in listed[:4]}
    assert after.items() <= before.items(), "and nothing else was written"


def test_a_dry_run_writes_nothing(place: Path) -> None:
    before = files(place)
    assert len(forget(place, dry_run=True).forgotten) == 4
    assert files(place) == before


@pytest.mark.parametrize("verb", ["delete", "done delete"])
@pytest.mark.parametrize("failing", range(4))
def test_a_delete_that_fails_says_how_far_it_came(place: Path, verb: str, failing: int) -> None:
    before = ids(place)
    with faulty(Plan(faults.unavailable, failing, verbs=frozenset({verb}))):
        with pytest.raises(packstone.StorageUnavailable) as caught:
            forget(place)
    gone = failing + (verb == "done delete")
    assert ids(place) == before[gone:], "the oldest went first, and then no other"
    message = caught.value.message
    assert f"forgot {failing} of 4" in message
    assert [name[:12] in message for name in before] == [True] * (failing + 1) + [False] * (
        5 - failing
    )
    assert "again" in caught.value.hint
    forget(place)
    assert ids(place) == before[4:]


def test_a_crash_anywhere_ends_the_same_when_run_again(place: Path, big_place: Path) -> None:
    before = ids(place)
    counting = Plan()
    with faulty(counting):
        forget(place, dry_run=True)
    reading = len(counting.steps)
    for step in range(reading + 2 * 4):
        copy = big_place / "copy"
        if copy.exists():
            remove_tree(copy)
        shutil.copytree(place, copy)

        def run(copy: Path = copy, step: int = step) -> None:
            with faulty(Plan(faults.leave, step)):
                forget(copy)

        assert in_child(run) == faults.EXIT_CODE
        left = ids(copy)
        assert left == before[len(before) - len(left) :] and left[-2:] == before[-2:]
        assert len(forget(copy).forgotten) == len(left) - 2
        assert ids(copy) == before[-2:]
        with packstone.open(copy) as repository:
            assert repository.check(read_data=True).errors == []


def test_a_listing_that_fails_deletes_nothing(place: Path) -> None:
    before = ids(place)
    plan = Plan()
    with faulty(plan):
        forget(place, dry_run=True)
    for at, step in enumerate(plan.steps):
        if not step.startswith(("list snapshots", "get snapshots", "done list snapshots")):
            continue
        with faulty(Plan(faults.unavailable, at)):
            with pytest.raises(StorageError):
                forget(place)
        assert ids(place) == before


def test_writers_are_not_disturbed(place: Path, source: Path) -> None:
    """A snapshot that continues one that is being forgotten is whole."""
    with packstone.open(place) as writer, packstone.open(place) as other:
        parent = writer.snapshots()[-1].id
        other.forget([parent])
        result = writer.snapshot([source], parent=None)
        assert result.snapshot_id
        assert writer.check(read_data=True).errors == []


def test_a_sweep_excludes_it(place: Path) -> None:
    lock = Lock(LocalStorage(str(place)), exclusive=True)
    with pytest.raises(packstone.RepositoryLocked):
        forget(place)
    lock.release()
    assert len(ids(place)) == 6


def test_a_feature_that_writers_must_know_forbids_it(place: Path) -> None:
    with packstone.open(place) as repository:
        sealer = repository._objects.sealer
    payload = msgspec.msgpack.encode(Feature(need="write"))
    data = seal_envelope(Kind.FEATURE, sealer, bytes(32), payload)
    (place / "features" / "holds").write_bytes(data)
    with pytest.raises(packstone.UnsupportedFormat):
        forget(place)
    assert len(ids(place)) == 6


def test_the_clock_is_the_repositorys(place: Path) -> None:
    before = ids(place)
    for now, kept in ((0, before), (LATER - 3 * DAY, before[2:]), (LATER, before[4:])):
        with packstone.Repository(place, clock=lambda: now) as repository:
            result = repository.forget(keep=KEEP, dry_run=True)
            assert [each.row.id for each in result.groups[0].keep] == kept
            assert len(result.warnings) == sum(
                row.snapshot.time_ns > now for row in repository.snapshots()
            )


def refused(place: Path, call: Callable[[packstone.Repository], object]) -> None:
    before = ids(place)
    with packstone.open(place) as repository, pytest.raises(UsageError):
        call(repository)
    assert ids(place) == before


def test_what_is_refused(place: Path) -> None:
    refused(place, lambda repository: repository.forget())
    refused(place, lambda repository: repository.forget([], allow_empty=True))
    refused(place, lambda repository: repository.forget(["latest"], keep=KEEP))
    refused(place, lambda repository: repository.forget(keep=packstone.Retention(tags=["x"])))
    # the letters of one text are no list of snapshots
    refused(place, lambda repository: repository.forget("0123456789abcdef"))


def test_one_text_is_one_snapshot(place: Path) -> None:
    before = ids(place)
    with packstone.open(place) as repository:
        repository.forget(before[3])
    assert ids(place) == before[:3] + before[4:]
