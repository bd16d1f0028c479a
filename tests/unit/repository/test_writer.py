"""The order of writes (docs/format.md §7): a snapshot appears when all it needs is durable.

The storage is a dict that records what happens to it, in order, and lets a test act at any step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from unit.repository.recording import (
    GENERATIONS,
    HASHER,
    OURS,
    Recording,
    RecordingIndex,
    put_chunk,
    put_some,
    reader_of,
    snapshots,
)

from packstone.codec.envelope import Kind, open_envelope
from packstone.codec.hashing import checksum
from packstone.errors import (
    Damaged,
    GenerationChanged,
    ObjectMissing,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from packstone.model import Buffer, Snapshot
from packstone.repository.index import Index
from packstone.repository.layout import list_ids, read_state
from packstone.repository.snapshots import read_snapshot
from packstone.repository.writer import ObjectWriter


@pytest.fixture
def storage() -> Recording:
    return Recording()


@pytest.fixture
def index(storage: Recording, tmp_path: Path) -> Iterator[RecordingIndex]:
    index = RecordingIndex(str(tmp_path / "index"), OURS)
    index.recording = storage
    yield index
    index.close()


@pytest.fixture
def begin(storage: Recording, index: Index) -> Callable[..., ObjectWriter]:
    rng = Random("salts")

    def begin_it(**options: Any) -> ObjectWriter:
        options = {"level": 3, "pack_size": 1 << 20, "random": rng.randbytes} | options
        options.setdefault("generation", read_state(storage, OURS).generation)
        return ObjectWriter(storage, index, HASHER, OURS, reader_of(storage, index), **options)

    return begin_it


# -- the order ------------------------------------------------------------------------------


def test_everything_is_durable_before_the_snapshot(
    storage: Recording, index: Index, begin: Callable
) -> None:
    writer = begin()
    snapshot = put_some(writer)
    snapshot_id = writer.commit(snapshot)
    steps = storage.steps
    (put,) = [at for at, step in enumerate(steps) if step.startswith("put snapshots/")]
    states = [at for at, step in enumerate(steps) if step == "get state"]
    commits = [at for at, step in enumerate(steps) if step.startswith("commit packs/")]
    views = [at for at, step in enumerate(steps) if step == "index"]
    assert steps[0] == "get state", "the generation, before anything else"
    assert len(commits) >= 2 and max(commits) < max(views) < put
    assert steps[put - 1] == steps[put + 1] == "get state", "just before and just after"
    assert max(views) < states[-2] < put < states[-1]
    assert steps[-1] == "complete"
    assert [name for name, _ in list_ids(storage, "packs")] and snapshots(storage) == [snapshot_id]
    assert not [step for step in steps if step.startswith(("delete", "abandon"))]


def test_a_pack_is_written_whole_read_back_and_named(storage: Recording, begin: Callable) -> None:
    writer = begin()
    put_chunk(writer, b"some data")
    writer.finish()
    at = storage.steps.index("spool")
    kinds = [step.partition(" ")[0] for step in storage.steps[at:]]
    assert kinds[:2] == ["spool", "write"]
    read_back = kinds.index("read")
    assert "write" not in kinds[read_back:], "nothing is written after it was read for its name"
    assert kinds.index("commit") > read_back
    for name, data in storage.files.items():
        if name.startswith("packs/"):
            assert name.rpartition("/")[2] == checksum(data).hex()


def test_a_snapshot_names_what_was_stored(storage: Recording, begin: Callable) -> None:
    writer = begin()
    snapshot = put_some(writer)
    snapshot_id = writer.commit(snapshot)
    assert read_snapshot(storage, snapshot_id, OURS) == snapshot
    data = storage.files[f"snapshots/{snapshot_id}"]
    assert open_envelope(data, Kind.SNAPSHOT, "", OURS)


def test_a_root_that_is_nowhere_is_not_committed(storage: Recording, begin: Callable) -> None:
    """restic #3151: an interrupt left a snapshot without a tree."""
    writer = begin()
    put_some(writer)
    for tree in (bytes(32), b""):
        with pytest.raises(StorageError):
            writer.commit(Snapshot(time_ns=0, host="", paths=[], tree=tree))
    assert snapshots(storage) == []


# -- generations ----------------------------------------------------------------------------


def test_a_sweep_before_the_snapshot(storage: Recording, begin: Callable) -> None:
    writer = begin()
    snapshot = put_some(writer)
    storage.set_generation(GENERATIONS[1])
    with pytest.raises(GenerationChanged):
        writer.commit(snapshot)
    assert not [step for step in storage.steps if "snapshots/" in step], "it was never there"


@pytest.mark.parametrize("what", ["changed", "damaged", "missing"])
def test_a_sweep_between_the_snapshot_and_its_success(
    storage: Recording, index: Index, begin: Callable, what: str
) -> None:
    writer = begin()
    snapshot = put_some(writer)
    change = {
        "changed": lambda: storage.set_generation(GENERATIONS[1]),
        "damaged": lambda: storage.files.update(state=b"damaged"),
        "missing": lambda: storage.files.pop("state"),
    }
    storage.at["put snapshots/"] = change[what]  # type: ignore[assignment]
    with pytest.raises((GenerationChanged, Damaged, ObjectMissing)) as caught:
        writer.commit(snapshot)
    assert snapshots(storage) == [], "withdrawn"
    assert [step for step in storage.steps if step.startswith("delete snapshots/")]
    assert "complete" not in storage.steps
    if what == "changed":
        assert isinstance(caught.value, GenerationChanged) and caught.value.exit_code == 13


@pytest.mark.parametrize("at", ["spool", "write", "read back", "commit packs/", "index"])
def test_a_sweep_at_any_time_before(storage: Recording, begin: Callable, at: str) -> None:
    """restic #2715: prune ran in the middle of a backup that had fallen asleep."""
    writer = begin()
    storage.at[at] = lambda: storage.set_generation(GENERATIONS[1])
    with pytest.raises(GenerationChanged):
        writer.commit(put_some(writer))
    assert snapshots(storage) == []


def test_a_new_session_has_the_new_generation(storage: Recording, begin: Callable) -> None:
    storage.set_generation(GENERATIONS[1])
    writer = begin()
    assert writer.generation == GENERATIONS[1]
    assert writer.commit(put_some(writer)) in snapshots(storage)


# -- errors ---------------------------------------------------------------------------------


def fail() -> None:
    raise StorageFull("no room left")


def test_an_error_at_any_step_leaves_no_snapshot(
    storage: Recording, index: RecordingIndex, begin: Callable
) -> None:
    """Every step of a whole session once; tests/crash does the same with real processes."""
    reached: list[str] = []
    for at in range(1, 100):
        storage.files = {"state": storage.files["state"]}
        index.reset()
        left = at

        def step(text: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                reached.append(text)
                if not text.startswith("put snapshots/"):
                    fail()

        storage.step = step  # type: ignore[method-assign]
        writer = None
        try:
            writer = begin()
            writer.commit(put_some(writer))
        except StorageFull:
            assert snapshots(storage) == [], f"step {at}: {reached[-1]}"
        else:
            assert reached[-1].startswith("put snapshots/"), "the error went nowhere"
            break
        finally:
            if writer is not None:
                writer.abandon()
    assert len(reached) > 15 and "commit packs" in " ".join(reached)


class Undecided(Recording):
    """A snapshot is put, and then its directory cannot be synced."""

    def put(self, name: str, data: Buffer) -> None:
        super().put(name, data)
        if name.startswith("snapshots/"):
            raise StorageUnavailable("cannot store: Input/output error")


def test_a_snapshot_that_may_not_be_durable_is_withdrawn(tmp_path: Path) -> None:
    """The command says that nothing was committed; so nothing may be."""
    storage = Undecided()
    index = Index(str(tmp_path / "index"), OURS)
    writer = ObjectWriter(
        storage,
        index,
        HASHER,
        OURS,
        reader_of(storage, index),
        level=3,
        pack_size=1 << 20,
        generation=read_state(storage, OURS).generation,
        random=Random(0).randbytes,
    )
    with pytest.raises(StorageUnavailable):
        writer.commit(put_some(writer))
    index.close()
    assert snapshots(storage) == []


def test_what_only_saves_time_fails_no_snapshot(
    storage: Recording, index: Index, begin: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = begin()
    snapshot = put_some(writer)

    def full(*arguments: object) -> None:
        raise StorageFull("no room for the index")

    monkeypatch.setattr(index, "set_complete", full)
    assert writer.commit(snapshot) in snapshots(storage)


def test_abandoning_drops_what_is_not_durable(storage: Recording, begin: Callable) -> None:
    writer = begin()
    put_some(writer)
    assert storage.steps[-1] != "abandon"
    writer.abandon()
    writer.abandon()
    assert "abandon" in storage.steps and snapshots(storage) == []
