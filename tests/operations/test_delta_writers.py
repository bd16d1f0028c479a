"""Deltas of writers that do not see each other, and of writers that are cut off (issue 4).

Whatever the order: every chunk that is whole somewhere can be had, nothing stands on itself, and
an acknowledged snapshot is whole.
"""

from __future__ import annotations

import io
import itertools
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import faults
import pytest
from faults import Plan, faulty, in_child
from tables import CHUNK_SIZE, deltas, nights, records

import packstone
from packstone.errors import Damaged, ObjectMissing
from packstone.model import Entry, ObjectType, Snapshot
from packstone.repository.bases import Base, Candidates
from packstone.repository.packs import KEYS
from packstone.repository.repository import ObjectRepository, init
from packstone.repository.trees import DirectoryWriter

SHARED = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
CHUNK = ObjectType.CHUNK


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="packstone-", dir=SHARED))
    yield path
    shutil.rmtree(path)


# -- each against the other -----------------------------------------------------------------


class Pair(NamedTuple):
    """A repository in which X is whole and against Y, and Y is whole and against X."""

    location: Path
    contents: dict[str, bytes]
    packs: dict[str, Path]  # "X whole", "Y whole", "Y on X", "X on Y"
    snapshot_id: str


def make_pair(place: Path) -> Pair:
    """Let two writers, each with a view of its own, store what the other does not see."""
    location = place / "repository"
    init(str(location), average=CHUNK_SIZE, pack_size=1 << 20, level=3)
    rng = random.Random("pair")
    x = rng.randbytes(40_000)
    contents = {"X": x, "Y": x[:20_000] + rng.randbytes(50) + x[20_000:]}
    one = ObjectRepository(str(location), index_dir=str(place / "one"))
    two = ObjectRepository(str(location), index_dir=str(place / "two"))
    ids = {name: one.hasher.id(CHUNK, data) for name, data in contents.items()}
    writers = {"X": one.writer(), "Y": two.writer()}
    packs: dict[str, Path] = {}

    def note(what: str) -> None:
        (packs[what],) = set(location.glob("packs/*/*")) - set(packs.values())

    for name, writer in writers.items():
        assert writer.reserve([ids[name]]) == [True]
        writer.put_chunk(ids[name], contents[name], (0, 0))
        writer.finish()
        note(f"{name} whole")
    for name, writer in writers.items():
        other = "Y" if name == "X" else "X"
        assert writer.reserve([ids[other]]) == [True], "they do not see each other"
        base = Base(ids[name], 0, 1)
        writer.put_chunk(ids[other], contents[other], (0, 0), Candidates([base], []))
        assert writer.chunks_delta == 1
        writer.finish()
        note(f"{other} on {name}")
    tree = DirectoryWriter(writers["X"].put)
    tree.extend(
        [
            Entry(name.encode(), 0o100644, 0, 0, len(data), 0, 0, 1, ids[name], None)
            for name, data in contents.items()
        ]
    )
    snapshot = Snapshot(time_ns=1, host="h", paths=[b"/"], tree=tree.finish())
    snapshot_id = writers["X"].commit(snapshot)
    one.close()
    two.close()
    return Pair(location, contents, packs, snapshot_id)


def test_each_against_the_other(place: Path) -> None:
    """With any packs gone: what is left is had, what is not is named, and nothing is invented."""
    pair = make_pair(place)
    away = place / "away"
    away.mkdir()
    for count in range(5):
        for gone in itertools.combinations(pair.packs, count):
            left = set(pair.packs) - set(gone)
            alive = {
                name
                for name, other in (("X", "Y"), ("Y", "X"))
                if f"{name} whole" in left or left >= {f"{name} on {other}", f"{other} whole"}
            }
            for what in gone:
                pair.packs[what].rename(away / what)
            for index in ("known before", f"new {count} {gone}"):
                with packstone.open(pair.location, index_dir=place / index) as repository:
                    assert had(repository, pair) == alive, (gone, index)
                    findings = repository.check().errors
                    named = {path.decode()[1:] for each in findings for path in each.paths}
                    assert named == set("XY") - alive
                    target = place / "target"
                    repository.restore("latest", target)
                    assert {path.name for path in target.iterdir()} == alive
                    shutil.rmtree(target)
            for what in gone:
                (away / what).rename(pair.packs[what])
    with packstone.open(pair.location, index_dir=place / "known before") as repository:
        assert had(repository, pair) == {"X", "Y"}
        assert repository.check(read_data=True).errors == []


def had(repository: packstone.Repository, pair: Pair) -> set[str]:
    """Return the files that can be read; fail on a wrong byte."""
    found = set()
    for name, data in pair.contents.items():
        try:
            with repository.open_file(pair.snapshot_id, f"/{name}") as file:
                assert file.read() == data
            found.add(name)
        except (Damaged, ObjectMissing):
            pass
    return found


def test_depths_do_not_lead_in_circles(place: Path) -> None:
    """Further sessions stand on what they read: the place of least depth, and one more."""
    pair = make_pair(place)
    objects = ObjectRepository(str(pair.location), index_dir=str(place / "third"))
    x_id = objects.hasher.id(CHUNK, pair.contents["X"])
    z = pair.contents["X"][:-100] + bytes(100)
    z_id = objects.hasher.id(CHUNK, z)
    writer = objects.writer()
    with objects.index.cuts() as cuts:
        found = cuts.find(x_id)
    assert found is not None and found.depth == 0
    assert writer.reserve([z_id]) == [True]
    writer.put_chunk(z_id, z, (0, 0), Candidates([Base(x_id, found.depth, 1)], []))
    writer.finish()
    (at,) = objects.index.find(z_id)
    assert at.depth == 1
    assert objects.reader.get(CHUNK, z_id) == z
    objects.close()


def test_a_base_that_only_deeper_places_have_is_not_taken(place: Path) -> None:
    """Between search and reading the whole place is lost: no delta that says less than it is."""
    pair = make_pair(place)
    pair.packs["X whole"].unlink()
    objects = ObjectRepository(str(pair.location), index_dir=str(place / "third"))
    x_id = objects.hasher.id(CHUNK, pair.contents["X"])
    z = pair.contents["X"][:-100] + bytes(100)
    z_id = objects.hasher.id(CHUNK, z)
    writer = objects.writer()
    assert writer.reserve([z_id]) == [True]
    writer.put_chunk(z_id, z, (0, 0), Candidates([Base(x_id, 0, 1)], []))
    writer.finish()
    assert writer.chunks_delta == 0
    (at,) = objects.index.find(z_id)
    assert at.depth == 0
    objects.close()


# -- at the same time -----------------------------------------------------------------------


@pytest.mark.parametrize("views", ["one view", "a view each"])
def test_snapshots_at_the_same_time(place: Path, views: str) -> None:
    """Three writers take the same nights in another order; all that was acknowledged is whole."""
    location = place / "repository"
    dumps = nights("together", 6_000, 5)
    packstone.init(location, chunk_size=CHUNK_SIZE).close()
    taken: list[tuple[str, bytes]] = []
    failures: list[BaseException] = []
    barrier = threading.Barrier(3)

    def write(number: int) -> None:
        try:
            index = place / (f"index {number}" if views == "a view each" else "index")
            with packstone.open(location, index_dir=index, threads=2) as repository:
                order = list(range(len(dumps)))
                random.Random(number).shuffle(order)
                for night in order:
                    barrier.wait(60)
                    result = repository.snapshot_stream(io.BytesIO(dumps[night]), f"{number}")
                    taken.append((f"{result.snapshot_id} {number}", dumps[night]))
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with packstone.open(location, index_dir=place / "new") as repository:
        assert len(repository.snapshots()) == len(taken) == 15
        for text, dump in taken:
            snapshot_id, _, number = text.partition(" ")
            with repository.open_file(snapshot_id, f"/{number}") as file:
                assert file.read() == dump
        assert repository.check(read_data=True).errors == []
        rows = records(repository)
        assert deltas(rows) and max(row.depth for row in rows) <= 6
        assert all(row.keys == b"" or len(row.keys) == KEYS.size for row in rows)


def test_the_feature_is_announced_by_several_at_once(place: Path) -> None:
    """Each finds it or makes it; nobody fails, nobody writes it twice."""
    location = place / "repository"
    old, new = nights("features", 4_000, 2)
    for trial in range(5):
        with packstone.init(location, chunk_size=CHUNK_SIZE) as repository:
            repository.snapshot_stream(io.BytesIO(old), "dump")
        opened = [
            packstone.open(location, index_dir=place / f"{trial} {at}", threads=2)
            for at in range(3)
        ]
        barrier = threading.Barrier(len(opened))
        failures: list[BaseException] = []
        counts: list[int] = []

        def write(repository: packstone.Repository) -> None:
            try:
                barrier.wait(60)
                counts.append(repository.snapshot_stream(io.BytesIO(new), "dump").chunks_delta)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(each,)) for each in opened]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for each in opened:
            each.close()
        assert failures == [] and sum(counts) > 0
        assert os.listdir(location / "features") == ["delta"]
        assert os.listdir(location / "tmp") == []
        with packstone.open(location) as repository:
            assert repository.check(read_data=True).errors == []
        shutil.rmtree(location)


# -- cut off --------------------------------------------------------------------------------


class Scene(NamedTuple):
    """A repository of some nights, and a source in which the next one waits."""

    location: Path
    source: Path
    stored: dict[str, bytes]
    waiting: bytes

    def take(self) -> packstone.SnapshotResult:
        with packstone.open(self.location, threads=1) as repository:
            return repository.snapshot([self.source])

    def verify(self) -> bool:
        """Require that all is whole; return whether the new snapshot is there."""
        with packstone.open(self.location, threads=1) as repository:
            there = {row.id for row in repository.snapshots()}
            assert self.stored.keys() <= there, "an acknowledged snapshot is gone"
            for snapshot_id in there:
                with repository.open_file(snapshot_id, bytes(self.source / "dump")) as file:
                    assert file.read() == self.stored.get(snapshot_id, self.waiting)
            assert repository.check(read_data=True).errors == []
            if deltas(records(repository)):
                assert os.listdir(self.location / "features") == ["delta"]
        return bool(there - self.stored.keys())


@pytest.fixture(params=[1, 3], ids=["the first deltas", "deltas on deltas"])
def scenes(place: Path, request: pytest.FixtureRequest) -> Callable[[], Scene]:
    """Make a fresh copy of a repository of some nights for each trial."""
    source = place / "source"
    source.mkdir()
    original = place / "original"
    stored = {}
    dumps = nights("crash", 3_000, request.param + 1)
    with packstone.init(original, chunk_size=CHUNK_SIZE) as repository:
        for dump in dumps[:-1]:
            (source / "dump").write_bytes(dump)
            stored[repository.snapshot([source]).snapshot_id or ""] = dump
    (source / "dump").write_bytes(dumps[-1])

    def make() -> Scene:
        shutil.rmtree(place / "trial", ignore_errors=True)
        shutil.copytree(original, place / "trial", symlinks=True)
        return Scene(place / "trial", source, stored, dumps[-1])

    return make


def test_death_at_every_step(scenes: Callable[[], Scene]) -> None:
    """Also between the feature and the first pack of deltas, and between packs."""
    plan = Plan()
    with faulty(plan):
        assert scenes().take().chunks_delta > 0
    steps = plan.steps
    absent = whole = 0
    for at in range(len(steps)):
        scene = scenes()

        def run(scene: Scene = scene, at: int = at) -> None:
            with faulty(Plan(faults.leave, at)):
                scene.take()

        assert in_child(run) == faults.EXIT_CODE, steps[at]
        if scene.verify():
            whole += 1
        else:
            absent += 1
            assert at <= steps.index("done commit snapshots"), steps[at]
        if at % 3 == 0:
            assert scene.take().errors == [] and scene.verify()
    assert absent > 20 and whole > 1


@pytest.mark.parametrize("scenes", [1], indirect=True, ids=["the first deltas"])
@pytest.mark.parametrize("action", [faults.full, faults.interrupt])
def test_an_exception_at_every_write(scenes: Callable[[], Scene], action: faults.Action) -> None:
    """A full disk, or Ctrl-C: no snapshot unless it was committed, nothing left in tmp/."""
    plan = Plan(verbs=faults.WRITES)
    with faulty(plan):
        scenes().take()
    last = plan.steps.index("commit snapshots")
    for at in range(last + 1):
        scene = scenes()
        with faulty(Plan(action, at, verbs=faults.WRITES)), pytest.raises(
            (packstone.StorageFull, KeyboardInterrupt)
        ):  # fmt: skip
            scene.take()
        assert os.listdir(scene.location / "tmp") == [], plan.steps[at]
        assert not scene.verify(), plan.steps[at]
        assert scene.take().errors == [] and scene.verify()
