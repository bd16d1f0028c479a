"""Prune beside others (rows C1 and 14), copies that are damaged, deltas of two writers (B3)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from operations.pruning import History
from operations.test_delta_writers import make_pair

import packstone
from packstone.errors import Damaged
from packstone.model import ObjectType
from packstone.operations.prune_proof import Proof
from packstone.repository.bases import Base, Candidates
from packstone.repository.layout import list_ids, read_state
from packstone.repository.locks import Lock
from packstone.repository.marks import Marker, Marks
from packstone.repository.packs import DATA, read_pack
from packstone.repository.repository import ObjectRepository, init
from packstone.repository.sweep import Sweep

CHUNK = ObjectType.CHUNK


@pytest.fixture
def history(big_place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(big_place / "cache"))
    yield History(big_place, "safety")


def before_a_sweep(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], at: int = 0) -> None:
    """Let somebody else act when a prune has planned and not begun to sweep."""
    original = ObjectRepository.sweep
    calls: list[int] = []

    def sweep(self: ObjectRepository) -> Sweep:
        calls.append(1)
        if len(calls) == at + 1:
            act()
        return original(self)

    monkeypatch.setattr(ObjectRepository, "sweep", sweep)


@pytest.mark.parametrize("at", [0, 1], ids=["of dead packs", "of packs written anew"])
@pytest.mark.parametrize("rebase", [False, True])
def test_a_snapshot_between_plan_and_sweep(
    history: History, monkeypatch: pytest.MonkeyPatch, at: int, rebase: bool
) -> None:
    """It takes up what was found dead: nothing of it may go."""
    with history.open() as repository:
        taken = []
        for _ in range(4):
            history.change()
            history.contents = {"shared": b"x" * 20_000, "own": history.chance.randbytes(90_000)}
            taken.append(history.take(repository))
        taken += history.fill(repository, 2)
        old = [dict(history.stored[each]) for each in taken]
        history.forget(*taken[:4])
        packs = set(history.packs())
        planned = repository.prune(max_unused=0.0, dry_run=True)
        assert planned.packs_deleted and planned.packs_rewritten

        def take() -> None:
            with history.open() as other:
                for contents in old[:3]:
                    history.contents = contents
                    history.take(other)
                assert other._objects.generation()

        before_a_sweep(monkeypatch, take, at)
        result = repository.prune(max_unused=0.0, rebase=rebase)
        assert result.kept
        assert rebase or packs & set(history.packs()), "deduplicated against packs that were to go"
        history.verify(repository)
    with history.open() as repository:
        repository.prune(max_unused=0.0)
        history.verify(repository)


def test_another_prune_in_between(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generation has changed, so everything is marked again, in the packs of the other."""
    with history.open() as repository:
        taken = history.fill(repository, 6)
        history.forget(*taken[1:4])

        def prune() -> None:
            # As while the shared lock is exchanged.
            repository._objects.lock.release()
            with history.open() as other:
                other.prune(max_unused=0.0, rebase=True)
                history.fill(other, 1)
            repository._objects.lock = Lock(repository._objects.storage, exclusive=False)

        before_a_sweep(monkeypatch, prune)
        repository.prune(max_unused=0.0)
        history.verify(repository)


def test_packs_that_vanish_under_one_generation(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was marked in them is marked elsewhere, where there is another copy."""
    with history.open() as repository:
        history.fill(repository, 2)
        objects = repository._objects
        before = set(history.packs())
        store_again(objects)
        copies = set(history.packs()) - before
        assert copies

        def lose() -> None:
            for pack_id in copies:  # the newest, so these are marked
                (history.location / "packs" / pack_id[:2] / pack_id).unlink()

        before_a_sweep(monkeypatch, lose)
        repository.prune(max_unused=0.0)
        history.verify(repository)


def store_again(objects: ObjectRepository) -> None:
    """Store everything that is there once more, as writers do that do not see each other."""
    writer = objects.writer()
    for pack_id, size in list(list_ids(objects.storage, "packs")):
        pack = read_pack(objects.storage, pack_id, size, objects.sealer)
        for row in pack.rows:
            for object_id, length, kind in row.object_rows():
                data = objects.reader.get(ObjectType(kind), object_id)
                if pack.kind == DATA and length >= 16384:
                    writer.put_chunk(object_id, data, (0, 0))
                else:
                    writer.put_small(pack.kind, [(object_id, ObjectType(kind), data)])
    writer.finish()


@pytest.mark.parametrize("which", ["newer", "older"])
@pytest.mark.parametrize("max_unused", [0.0, 0.05])
def test_of_two_copies_the_good_one_survives(
    history: History, which: str, max_unused: float
) -> None:
    with history.open() as repository:
        history.fill(repository, 2)
        objects = repository._objects
        older = set(history.packs())
        store_again(objects)
        chosen = older if which == "older" else set(history.packs()) - older
        for pack_id in chosen:
            path = history.location / "packs" / pack_id[:2] / pack_id
            pack = read_pack(objects.storage, pack_id, path.stat().st_size, objects.sealer)
            if pack.kind != DATA:
                continue
            data = bytearray(path.read_bytes())
            for row in pack.rows:
                data[row.offset + row.stored_size // 2] ^= 0x10
            path.write_bytes(data)
    for _ in range(2):
        with history.open() as repository:
            repository.prune(max_unused=max_unused)
            for snapshot_id, contents in history.stored.items():
                assert history.read(repository, snapshot_id) == contents


def test_others_hold_the_lock(history: History) -> None:
    with history.open() as repository, history.open() as other:
        history.fill(repository, 3)
        history.forget(*list(history.stored)[:2])
        packs, state = history.packs(), read_state(other._objects.storage, other._objects.sealer)
        with pytest.raises(packstone.RepositoryLocked):
            repository.prune()
        assert history.packs() == packs
        assert state == read_state(other._objects.storage, other._objects.sealer)
        assert repository.prune(dry_run=True).packs_deleted, "looking needs no lock of its own"
        other.close()
        assert repository.prune().packs_deleted
        history.verify(repository)


def test_a_snapshot_that_cannot_be_read_stops_it(history: History) -> None:
    with history.open() as repository:
        taken = history.fill(repository, 3)
        history.forget(taken[0])
        path = history.location / "snapshots" / taken[1]
        sound = path.read_bytes()
        path.write_bytes(sound[:-1] + b"x")
        packs = history.packs()
        with pytest.raises(Damaged, match="nothing can be pruned"):
            repository.prune()
        assert history.packs() == packs
        path.write_bytes(sound)
        repository.prune()
        history.verify(repository)


@pytest.mark.parametrize("spoilt", ["", "X whole", "Y whole"])
def test_each_against_the_other(big_place: Path, spoilt: str) -> None:
    """X whole and Y on X, Y whole and X on Y: no cycle is left, nor a copy that is none."""
    pair = make_pair(big_place)
    if spoilt:
        path = pair.packs[spoilt]
        data = bytearray(path.read_bytes())
        with packstone.open(pair.location) as repository:
            objects = repository._objects
            row = read_pack(objects.storage, path.name, len(data), objects.sealer).rows[0]
        data[row.offset + row.stored_size // 2] ^= 1
        path.write_bytes(data)
    shutil.rmtree(pair.location / "index", ignore_errors=True)
    for _ in range(3):
        with packstone.open(pair.location) as repository:
            repository.prune(max_unused=0.0)
            target = big_place / "target"
            result = repository.restore(pair.snapshot_id, target)
            assert result.errors == []
            for name, data in pair.contents.items():
                (found,) = target.rglob(name)
                assert found.read_bytes() == data
            shutil.rmtree(target)


def test_an_equal_copy_whose_base_nobody_marked(big_place: Path) -> None:
    """Y against A and Y against B: as long as only A is marked, the first cannot go for the
    second, for B goes in the same sweep."""
    location = big_place / "repository"
    init(str(location), average=1 << 15, pack_size=1 << 20, level=3)
    objects = ObjectRepository(str(location))
    noise = History(big_place / "unused", 5).chance
    a = noise.randbytes(40_000)
    contents = {"A": a, "B": a[:-9] + b"123456789", "Y": a[:-5] + b"12345"}
    ids = {name: objects.hasher.id(CHUNK, data) for name, data in contents.items()}

    def store(name: str, base: str = "") -> str:
        writer = objects.writer()
        bases = [Base(ids[base], 0, 1)] if base else []
        writer.put_chunk(ids[name], contents[name], (0, 0), Candidates(bases, []))
        writer.finish()
        (pack_id,) = writer.packs_written
        return pack_id

    packs = {"A": store("A"), "B": store("B")}
    packs |= {"Y on B": store("Y", "B"), "Y on A": store("Y", "A")}
    places = {place.pack_id: place for place in objects.index.find(ids["Y"])}
    assert {place.depth for place in places.values()} == {1} and len(places) == 2
    marks = Marks()
    marks.mark(places[packs["Y on A"]], ids["Y"])
    marks.mark(objects.index.find(ids["A"])[0], ids["A"])
    proof = Proof(objects, {packs["Y on A"], packs["B"]}, marks, set())
    assert proof.run() == {packs["B"]}
    assert "nowhere else" in proof.kept[packs["Y on A"]]
    # Nor may a whole copy go for a delta, which could stand on what stands on the whole one.
    packs["Y"] = store("Y")
    marks.mark(objects.index.find(ids["Y"])[0], ids["Y"])
    assert marks.count(packs["Y"]) == 1
    proof = Proof(objects, {packs["Y"], packs["B"]}, marks, set())
    assert proof.run() == {packs["B"]}
    objects.close()


def test_a_dead_pack_without_footers_stays(history: History) -> None:
    """And the others go: what is needed was found elsewhere, what it holds is unknown."""
    with history.open() as repository:
        taken = history.fill(repository, 4, delta=False)
        objects = repository._objects
        history.forget(*taken[:3])
        marker = Marker(objects.index, objects.reader.get)
        marker.add(row.snapshot.tree for row in objects.snapshots())
        dead = [each for each in history.packs() if not marker.marks.count(each)]
        assert len(dead) > 1
        path = history.location / "packs" / dead[0][:2] / dead[0]
        size = path.stat().st_size
        path.write_bytes(bytes(size))
        result = repository.prune()
        assert list(result.damaged) == [dead[0]] and path.exists()
        assert result.packs_deleted >= len(dead) - 1
        for snapshot_id, contents in history.stored.items():
            assert history.read(repository, snapshot_id) == contents
