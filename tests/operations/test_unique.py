"""What snapshots bring, need alone, and free: against sets of objects, and a real prune."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import packstone
from packstone.operations.unique import freed_by
from packstone.repository.marks import Marker


@pytest.fixture
def repository(big_place: Path) -> Iterator[packstone.Repository]:
    """A repository whose chunks are large enough to become deltas."""
    with packstone.init(big_place / "repository", chunk_size=65536) as repository:
        yield repository


@pytest.fixture
def saved(repository: packstone.Repository, source: Path) -> list[str]:
    """Ten nights of a file that grows and changes, deltas among them, and one of its own."""
    chance = random.Random(5)
    data = bytearray(chance.randbytes(3_000_000))
    ids = []
    for night in range(6):
        for _ in range(5):
            data[chance.randrange(len(data))] ^= 255
        data += chance.randbytes(200_000)
        (source / "dump").write_bytes(data)
        (source / f"only {night}").write_bytes(chance.randbytes(300_000))
        ids.append(repository.snapshot([source]).snapshot_id or "")
        (source / f"only {night}").unlink()
    return ids


def reached(repository: packstone.Repository, snapshot_id: str) -> set[tuple[str, int]]:
    objects = repository._objects
    marker = Marker(objects.index, objects.reader.get)
    marker.add([repository.find_snapshot(snapshot_id).snapshot.tree])
    return {
        (pack_id, number)
        for pack_id, _size, _kind, count in objects.index.counts()
        for number in range(count)
        if marker.marks.has(pack_id, number)
    }


def test_sets_of_objects(repository: packstone.Repository, saved: list[str]) -> None:
    sets = [reached(repository, each) for each in saved]
    found = repository.snapshot_stats(saved)
    assert [one.row.id for one in found] == saved
    assert found[2].reached.chunks_delta > 0
    for at, one in enumerate(found):
        older = set().union(*sets[:at])
        others = older.union(*sets[at + 1 :])
        assert one.reached.objects == len(sets[at])
        assert one.new.objects == len(sets[at] - older)
        assert one.unique.objects == len(sets[at] - others)
        assert one.named.objects <= one.reached.objects
        # The size of the file, the private one, and a few pages of trees.
        assert 0 < one.named.bytes_objects - (one.bytes_total or 0) < 20_000
        assert one.unique.bytes_objects >= 300_000
    assert sum(one.new.objects for one in found) == len(set().union(*sets))
    growth = repository.growth()
    assert [one.new for one in growth] == [one.new for one in found]
    assert growth[-1].bytes_stored == sum(one.new.bytes_stored for one in found)
    total = repository.stats()
    assert total.bytes_packs * 0.8 < growth[-1].bytes_stored <= total.bytes_packs


def test_what_a_prune_frees(repository: packstone.Repository, saved: list[str]) -> None:
    """Told before, within what a record that is written anew may differ."""
    alone = {one.row.id: one.bytes_freed for one in repository.snapshot_stats(saved)}
    for each in (saved[3], saved[0]):
        told = repository.freed_by([each])
        assert told > 300_000
        if each == saved[3]:
            assert told == alone[each]
        before = repository.stats().bytes_packs
        repository.forget([each])
        repository.prune(max_unused=0.0)
        freed = before - repository.stats().bytes_packs
        # Few and small packs: headers and footers that vanish with them weigh in.
        assert told * 0.99 <= freed <= told * 1.1 + 50_000
    assert repository.check(read_data=True).errors == []


def test_what_nobody_needs_already_does_not_count(
    repository: packstone.Repository, saved: list[str]
) -> None:
    told = repository.freed_by([saved[3]])
    repository.forget([saved[1]])
    assert repository.freed_by([saved[3]]) == told
    assert freed_by(repository._objects, []) == 0
    everything = repository.freed_by([row.id for row in repository.snapshots()])
    stats = repository.stats()
    assert everything == stats.bytes_packs - stats.bytes_unused


def test_together_they_free_what_each_alone_does_not(
    repository: packstone.Repository, source: Path
) -> None:
    (source / "file").write_bytes(random.Random(1).randbytes(100_000))
    ids = [repository.snapshot([source]).snapshot_id or "" for _ in range(2)]
    assert all(repository.freed_by([each]) < 5_000 for each in ids)
    assert repository.freed_by(ids) > 100_000
