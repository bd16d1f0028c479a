"""Tags: what changes, what stays, and what a crash between the two steps leaves."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import packstone
from packstone.storage.local import LocalStorage


@pytest.fixture
def saved(repository: packstone.Repository, source: Path) -> list[str]:
    (source / "file").write_bytes(b"1")
    return [
        repository.snapshot([source], time_ns=10**18 + at, host="ab"[at % 2]).snapshot_id or ""
        for at in range(3)
    ]


def tags(repository: packstone.Repository) -> list[list[str]]:
    return [list(row.snapshot.tags) for row in repository.snapshots()]


def test_add_remove_set(repository: packstone.Repository, saved: list[str]) -> None:
    before = repository.find_snapshot(saved[1])
    result = repository.tag([saved[1]], add=["b", "a", "b"])
    ((old, new),) = result.changed
    assert old == before and new == repository.find_snapshot(new.id)
    assert tags(repository) == [[], ["b", "a"], []]
    assert len(repository.snapshots()) == 3, "the old version is there still"
    origin = bytes.fromhex(saved[1])
    assert new.snapshot == msgspec.structs.replace(
        before.snapshot, tags=["b", "a"], original_id=origin
    ), "something else changed"

    ((_, newer),) = repository.tag([new.id], add=["c"], remove=["b", "x"]).changed
    assert newer.snapshot.tags == ["a", "c"]
    assert newer.snapshot.original_id == origin, "the first id of all is kept"
    repository.tag([newer.id], replace=["z", "z"])
    assert tags(repository) == [[], ["z"], []]
    repository.tag(["latest~1"], replace=[])
    assert tags(repository) == [[], [], []]
    repository.restore("latest~1", Path(repository.location.removeprefix("file://")).parent / "t")
    assert repository.check().errors == []


def test_nothing_to_change_changes_nothing(
    repository: packstone.Repository, saved: list[str]
) -> None:
    repository.tag(saved, add=["x"])
    ids = [row.id for row in repository.snapshots()]
    result = repository.tag(ids, add=["x"], remove=["y"])
    assert (result.changed, result.unchanged) == ([], 3)
    assert [row.id for row in repository.snapshots()] == ids


def test_those_of_a_host(repository: packstone.Repository, saved: list[str], source: Path) -> None:
    assert len(repository.tag(host="a", paths=[source], add=["x"]).changed) == 2
    assert tags(repository) == [["x"], [], ["x"]]
    assert len(repository.tag(tags=["x"], remove=["x"]).changed) == 2


def test_what_makes_no_sense(repository: packstone.Repository, saved: list[str]) -> None:
    with pytest.raises(packstone.UsageError):
        repository.tag(add=["x"])  # an empty list is not all of them
    for options in ({}, {"add": ["x"], "replace": ["y"]}, {"add": [""]}, {"replace": [""]}):
        with pytest.raises(packstone.UsageError):
            repository.tag(saved, **options)  # type: ignore[arg-type]
    with pytest.raises(packstone.UsageError):
        repository.tag([saved[0], "nothing"], add=["x"])
    assert [row.id for row in repository.snapshots()] == saved


class Cut(BaseException):
    """The end of a process."""


@pytest.mark.parametrize("name", ["put", "delete"])
def test_a_crash_leaves_the_old_one_or_both(
    repository: packstone.Repository,
    saved: list[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    def cut(self: LocalStorage, target: str, *_: object) -> None:
        if target.startswith("snapshots/"):
            raise Cut
        raise AssertionError(target)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, name, cut)
        if name == "put":
            patch.setattr(LocalStorage, "delete", lambda *_: None)
        with pytest.raises(Cut):
            repository.tag([saved[1]], add=["x"])
    rows = repository.snapshots()
    assert set(saved) <= {row.id for row in rows}
    assert len(rows) == 3 + (name == "delete")
    assert len({row.snapshot.tree for row in rows}) == len({saved[1]}) == 1
    repository.tag([saved[1]], add=["x"])  # again
    assert repository.check().errors == []


def test_an_unread_chunk_is_not_taken_for_present(
    repository: packstone.Repository, source: Path
) -> None:
    """A version of a snapshot is known to be complete only if the snapshot was."""
    (source / "file").write_bytes(b"1" * 5000)
    first = repository.snapshot([source]).snapshot_id or ""
    objects = repository._objects
    generation = objects.generation()
    assert objects.index.is_complete(first, generation)
    ((_, known),) = repository.tag([first], add=["x"]).changed
    assert objects.index.is_complete(known.id, generation)
    objects.index.reset()  # as after a repair: nobody has looked since
    objects.index.refresh(objects.storage)
    ((_, unknown),) = repository.tag([known.id], add=["y"]).changed
    assert not objects.index.is_complete(unknown.id, generation)
