"""Row C1(b): two actors on one repository, one operation at a time, in orders that seeds decide.

Two writers; and a writer whose lock a sweeper does not see, as with two machines on a network
file system: generation and a second look at the packs are all that is left then. A pruner that
keeps to the lock is one more actor, where there is one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from campaign import Caught, campaign, control, seeds, trials
from compare_trees import describe, differences
from crash.commands import change
from faults import storages

import packstone
from packstone.errors import StorageError
from packstone.repository import layout
from packstone.repository.repository import ObjectRepository
from packstone.repository.writer import ObjectWriter
from packstone.storage.local import LocalStorage
from packstone.testing import Interleaving

ORDERS = trials(25, 10_000)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    path = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(path / "cache"))
    yield path
    shutil.rmtree(path)


class Scene:
    """A repository with one snapshot, two sources that share most of what they hold."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.original = place / "original"
        self.location = place / "repository"
        self.sources = [place / "source 0", place / "source 1"]
        for number, source in enumerate(self.sources):
            change(source, Random(0), 0)
            change(source, Random(number), 1)
        with packstone.init(self.original, chunk_size=4096) as repository:
            repository.snapshot([self.sources[0]])
        change(self.sources[0], Random(7), 2)

    def again(self) -> None:
        for name in ("repository", "index a", "index b"):
            shutil.rmtree(self.place / name, ignore_errors=True)
        shutil.copytree(self.original, self.location)

    def write(self, number: int, actor: str) -> str:
        """Take a snapshot, with an index of one's own: another machine has one, too."""
        with packstone.open(
            self.location, threads=1, index_dir=self.place / f"index {actor}"
        ) as repository:
            return repository.snapshot([self.sources[number]]).snapshot_id or ""

    def judge(self, acknowledged: dict[str, Path]) -> None:
        """All that was acknowledged is there and whole, and so is all else that is there."""
        with packstone.open(self.location) as repository:
            there = {row.id: row.snapshot for row in repository.snapshots()}
            assert acknowledged.keys() <= there.keys(), "an acknowledged snapshot is gone"
            assert repository.check(read_data=True).errors == []
            for snapshot_id, source in acknowledged.items():
                target = self.place / "target"
                result = repository.restore(snapshot_id, target, path=bytes(source))
                assert result.errors == []
                found = differences(describe(source, top=False), describe(target, top=False))
                assert found == []
                shutil.rmtree(target)


def trial(
    scene: Scene, seed: int, actors: dict[str, Callable[[], str]]
) -> dict[str, str | BaseException]:
    scene.again()
    turns = Interleaving(seed)
    with storages(lambda path: turns.storage(LocalStorage(path))):
        return turns.run(actors)


def test_two_writers(place: Path) -> None:
    scene = Scene(place)
    orders = set()
    with campaign("C1", "two writers, interleaved") as row:
        for seed in seeds(ORDERS):
            turns = Interleaving(seed)
            scene.again()
            with storages(lambda path: turns.storage(LocalStorage(path))):
                found = turns.run(
                    {"a": lambda: scene.write(0, "a"), "b": lambda: scene.write(1, "b")}
                )
            ids = {name: each for name, each in found.items() if isinstance(each, str)}
            assert ids.keys() == {"a", "b"}, found
            scene.judge({ids["a"]: scene.sources[0], ids["b"]: scene.sources[1]})
            orders.add(tuple(turns.order))
            row.trials += 1
        row.note = f", {len(orders):,} different orders"
    assert len(orders) > ORDERS // 2


class Sweeper:
    """Removes packs that no snapshot needs, without asking for the lock."""

    def __init__(self, scene: Scene, begun: Callable[[], bool], wait: int) -> None:
        self._scene = scene
        self._begun = begun
        self._wait = wait  # turns: a writer makes many more than a sweeper

    def sweep(self) -> str:
        repository = ObjectRepository(
            str(self._scene.location), index_dir=str(self._scene.place / "index b")
        )
        try:
            storage = repository.storage
            packs = {name for name, _ in LocalStorage(str(self._scene.original)).list("packs")}
            snapshots = len(list(storage.list("snapshots")))
            while not self._begun():  # who writes later would see the lock
                storage.size(layout.STATE)
            for _ in range(self._wait):
                storage.size(layout.STATE)
            state = layout.State(generation=Random(1).randbytes(16), sweep=b"sweep")
            storage.put(layout.STATE, layout.encode_state(state, repository.sealer, bytes(32)))
            if len(list(storage.list("snapshots"))) == snapshots:
                for name, _ in storage.list("packs"):
                    if name not in packs:  # those that were there are all needed
                        storage.delete(name)
        finally:
            repository.close()
        return ""


def swept(scene: Scene, seed: int) -> str:
    """Take a snapshot while somebody sweeps; return what became of it."""
    began: list[int] = []
    init = ObjectWriter.__init__

    def beginning(self: ObjectWriter, *arguments: object, **options: object) -> None:
        init(self, *arguments, **options)  # type: ignore[arg-type]
        began.append(1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ObjectWriter, "__init__", beginning)
        sweeper = Sweeper(scene, lambda: bool(began), Random(seed).randrange(50))
        found = trial(scene, seed, {"a": lambda: scene.write(0, "a"), "b": sweeper.sweep})
    assert found["b"] == "", found
    written = found["a"]
    if isinstance(written, str):
        scene.judge({written: scene.sources[0]})
        return "committed"
    if not isinstance(written, StorageError):
        raise written
    scene.judge({})
    return type(written).__name__


def test_a_sweeper_whose_lock_nobody_sees(place: Path) -> None:
    scene = Scene(place)
    outcomes: dict[str, int] = {}
    with campaign("C1", "writer and sweeper without a lock, interleaved") as row:
        for seed in seeds(ORDERS):
            outcome = swept(scene, seed)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            row.trials += 1
        row.note = f", {outcomes}"
    assert outcomes.keys() == {"committed", "GenerationChanged"}


def test_without_a_second_look_it_would_be_noticed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(place)
    with control("C1", "no look at the generation before a commit") as row:
        monkeypatch.setattr(ObjectWriter, "_check_generation", lambda self: None)
        for seed in range(2000):
            try:
                swept(scene, seed)
            except AssertionError as error:
                raise Caught from error
            row.trials += 1
