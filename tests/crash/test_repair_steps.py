"""A repair killed at every step of it, and run again (rows K1 and R1).

At no step is anything lost that could be read before, and the second run ends as one that was
never cut off.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import faults
import pytest
from compare_trees import Description, describe, differences
from crash.test_steps import steps_of
from faults import Plan, faulty, in_child
from tables import CHUNK_SIZE, nights

import packstone
from packstone.repository.packs import DATA

Run = Callable[[packstone.Repository], object]


@dataclass
class Hurt:
    """A repository with damage, a sound copy of it, and what each snapshot still gave."""

    location: Path
    copy: Path
    source: Path
    readable: dict[str, dict[bytes, Description]]

    def repair(self, run: Run) -> None:
        with packstone.open(self.location, threads=1) as repository:
            run(repository)

    def restored(self, snapshot_id: str) -> dict[bytes, Description]:
        """Return what a snapshot gives: files that are whole and nothing else."""
        target = Path(tempfile.mkdtemp(dir=self.location.parent))
        with packstone.open(self.location, threads=1) as repository:
            repository.restore(snapshot_id, target, path=bytes(self.source))
        found = describe(target, top=False)
        shutil.rmtree(target)
        return found

    def assert_nothing_lost(self) -> None:
        """What could be read before can be read now, byte for byte."""
        for snapshot_id, readable in self.readable.items():
            found = self.restored(snapshot_id)
            assert readable.keys() <= found.keys()
            same = {name: found[name] for name in readable}
            assert differences(readable, same) == []


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hurt]:
    """Damage of several kinds: a bad record, both footers of a pack gone, a snapshot's file."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    place = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    source = place / "source"
    source.mkdir()
    dumps = nights("killed", 2_500, 2)
    ids: list[str] = []
    location = place / "store"
    with packstone.init(location, chunk_size=CHUNK_SIZE, pack_size=1 << 20) as repository:
        for at, dump in enumerate(dumps):
            (source / "table").write_bytes(dump)
            (source / f"noise {at}").write_bytes(Random(at).randbytes(120_000))
            (source / f"small {at}").write_text("small\n" * 5)
            ids.append(repository.snapshot([source]).snapshot_id or "")
    shutil.copytree(location, place / "copy")
    data_packs = [
        path
        for path in sorted((location / "packs").rglob("*"), key=lambda path: path.stat().st_mtime)
        if path.is_file() and path.read_bytes()[10] == DATA
    ]
    first, second = data_packs
    flip(first, first.stat().st_size // 2)
    data = second.read_bytes()
    flip(second, 70 + int.from_bytes(data[64:72], "little"))
    flip(second, 5)  # nothing leads to the whole footer but a search
    hurt = Hurt(location, place / "copy", source, {})
    hurt.readable = {snapshot_id: hurt.restored(snapshot_id) for snapshot_id in ids}
    sizes = [len(found) for found in hurt.readable.values()]
    assert min(sizes) > 0
    yield hurt
    shutil.rmtree(place)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x11
    path.write_bytes(data)


@pytest.fixture
def copies(original: Hurt) -> Iterator[Callable[[], Hurt]]:
    made: list[Path] = []

    def make() -> Hurt:
        if made:
            shutil.rmtree(made.pop())
        place = Path(tempfile.mkdtemp(dir=original.location.parent))
        made.append(place)
        shutil.copytree(original.location, place / "store")
        return Hurt(place / "store", original.copy, original.source, original.readable)

    yield make
    for place in made:
        shutil.rmtree(place)


def packs(repository: packstone.Repository) -> object:
    return repository.repair_packs()


def packs_from_copy(copy: Path) -> Run:
    def run(repository: packstone.Repository) -> object:
        index = Path(repository.location).with_name("other index")
        with packstone.open(copy, index_dir=index, threads=1) as other:
            return repository.repair_packs(source=other)

    return run


# What others can see; between two of these a death leaves the same but for files in tmp/.
VERBS = frozenset({"create", "commit", "done commit", "delete", "move", "keep", "index"})


@pytest.mark.parametrize("source", ["alone", "from a copy"])
def test_death_at_every_step_of_repairing_packs(
    copies: Callable[[], Hurt], original: Hurt, source: str
) -> None:
    run = packs if source == "alone" else packs_from_copy(original.copy)
    steps = steps_of(lambda: copies().repair(run), VERBS)
    assert len(steps) > 10
    assert any(step.startswith("move" if source == "alone" else "keep") for step in steps)
    for at in range(len(steps)):
        hurt = copies()

        def die(hurt: Hurt = hurt, at: int = at) -> None:
            with faulty(Plan(faults.leave, at, verbs=VERBS)):
                hurt.repair(run)

        assert in_child(die) == faults.EXIT_CODE, steps[at]
        hurt.assert_nothing_lost()
        hurt.repair(run)
        hurt.assert_nothing_lost()
        with packstone.open(hurt.location) as repository:
            again = repository.repair_packs()
            assert again.damaged == [], steps[at]
            assert again.is_whole == (source != "alone")
            repository.repair_snapshots(forget=True)
            assert repository.check(read_data=True).errors == []
            repository.prune()
            assert repository.check(read_data=True).errors == []


@pytest.mark.parametrize("action", [faults.interrupt, faults.full])
def test_an_exception_at_every_write_of_repairing_packs(
    copies: Callable[[], Hurt], action: faults.Action
) -> None:
    steps = steps_of(lambda: copies().repair(packs), VERBS)
    for at in range(len(steps)):
        hurt = copies()
        with (
            faulty(Plan(action, at, verbs=VERBS)),
            pytest.raises((KeyboardInterrupt, packstone.StorageFull)),
        ):
            hurt.repair(packs)
        hurt.repair(packs)
        hurt.assert_nothing_lost()


def test_death_at_every_step_of_repairing_snapshots(copies: Callable[[], Hurt]) -> None:
    def forget(repository: packstone.Repository) -> object:
        return repository.repair_snapshots(forget=True)

    def prepared() -> Hurt:
        hurt = copies()
        hurt.repair(packs)
        return hurt

    scene = prepared()
    steps = steps_of(lambda: scene.repair(forget), VERBS)
    assert any(step.startswith("move") for step in steps)
    for at in range(len(steps)):
        hurt = prepared()

        def die(hurt: Hurt = hurt, at: int = at) -> None:
            with faulty(Plan(faults.leave, at, verbs=VERBS)):
                hurt.repair(forget)

        assert in_child(die) == faults.EXIT_CODE, steps[at]
        with packstone.open(hurt.location) as repository:
            there = {row.id: row.snapshot.original_id.hex() for row in repository.snapshots()}
        for snapshot_id in hurt.readable:
            assert snapshot_id in there or snapshot_id in there.values(), steps[at]
        hurt.repair(forget)
        with packstone.open(hurt.location) as repository:
            assert len(repository.snapshots()) == len(hurt.readable)
            assert repository.check(read_data=True).errors == []
